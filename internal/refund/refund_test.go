package refund_test

import (
	"context"
	"sync"
	"testing"

	"github.com/requestforge/requestforge/internal/refund"
)

func TestRefundPaysEachChargeBackOnce(t *testing.T) {
	var r refund.Refund
	ctx := refund.With(t.Context(), &r)
	paid := 0
	var charges sync.WaitGroup
	for range 10 {
		charges.Go(func() { refund.Charge(ctx, func() { paid++ }) })
	}
	charges.Wait()
	if !refund.Due(ctx) || refund.Due(t.Context()) {
		t.Error("Due is not what With says")
	}
	if paid != 0 {
		t.Errorf("%d paid back before Pay", paid)
	}
	r.Pay()
	if paid != 10 {
		t.Errorf("%d paid back, want 10", paid)
	}
	r.Pay()
	if paid != 10 {
		t.Errorf("%d paid back by a second Pay, want 10", paid)
	}
	refund.Charge(ctx, func() { paid++ })
	r.Pay()
	if paid != 11 {
		t.Errorf("%d paid back of a later charge, want 11", paid)
	}
}

func TestChargeThatNobodyPaysBack(t *testing.T) {
	refund.Charge(context.Background(), func() { t.Error("paid back") })
}
