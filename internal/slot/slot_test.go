package slot_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge/internal/slot"
)

func TestNoMoreThanTheSlots(t *testing.T) {
	p := slot.New(3)
	var now, most atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			s := p.Take(t.Context(), 0)
			defer s.Free()
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			now.Add(-1)
		})
	}
	wg.Wait()
	if most.Load() > 3 {
		t.Errorf("%d at once", most.Load())
	}
	for range 3 {
		if p.Take(t.Context(), time.Nanosecond) == nil {
			t.Error("a slot was lost")
		}
	}
}

func TestPatienceAndContextEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := slot.New(1)
		s := p.Take(t.Context(), 0)
		if p.Take(t.Context(), time.Second) != nil {
			t.Error("two have one slot")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if p.Take(ctx, 0) != nil {
			t.Error("two have one slot")
		}
		s.Free()
		s.Free()
		if p.Take(t.Context(), time.Second) == nil {
			t.Error("the slot is not free")
		}
		if p.Take(t.Context(), time.Second) != nil {
			t.Error("freed twice")
		}
	})
}

func TestWaitingForAnotherCallHoldsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := slot.New(1)
		s := p.Take(t.Context(), 0)
		ran := 0
		s.Lend(t.Context(), func() {
			s.Lend(t.Context(), func() {
				inner := p.Take(t.Context(), time.Second)
				ran++
				inner.Free()
			})
		})
		if ran != 1 || p.Take(t.Context(), time.Second) != nil {
			t.Error("the slot isn't held again")
		}
		s.Free()
		if p.Take(t.Context(), time.Second) == nil {
			t.Error("the slot is not free")
		}
	})
}

func TestSlotThatCannotBeHadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := slot.New(1)
		s := p.Take(t.Context(), 0)
		ctx, cancel := context.WithCancel(t.Context())
		var other *slot.Slot
		s.Lend(ctx, func() { other = p.Take(t.Context(), 0); cancel() })
		s.Free()
		if p.Take(t.Context(), time.Second) != nil {
			t.Error("the slot of another call was freed")
		}
		other.Free()
		if p.Take(t.Context(), time.Second) == nil {
			t.Error("the slot is not free")
		}
	})
}

// Free waits for nothing, nor does a second Lend for what the first one waits for.
func TestNobodyWaitsForALentSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := slot.New(1)
		s := p.Take(t.Context(), 0)
		back := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { s.Lend(context.Background(), func() { <-back }) })
		synctest.Wait()
		other := p.Take(t.Context(), 0)
		close(back)
		synctest.Wait() // Lend waits for the slot
		ran := false
		go s.Lend(t.Context(), func() { ran = true })
		synctest.Wait()
		if s.Free(); !ran {
			t.Error("a second Lend waits for the first")
		}
		other.Free()
		wg.Wait()
		synctest.Wait()
		if p.Take(t.Context(), time.Second) == nil {
			t.Error("the slot is lost")
		}
	})
}

func TestNoBound(t *testing.T) {
	p := slot.New(-1)
	for range 1000 {
		s := p.Take(t.Context(), 0)
		s.Lend(t.Context(), func() {})
		s.Free()
	}
	var none *slot.Slot
	none.Lend(t.Context(), func() {})
	none.Free()
}
