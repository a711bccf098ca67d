// Package refund lets the sender of a request take back the charges for refusals from a
// source of tokens, once a replay has shown that the refusals were real.
package refund

import (
	"context"
	"sync"
)

// A Refund collects the charges for the refusals of a request. A Refund travels in the
// context, since other sources may stand between the sender and the source that
// charges. The zero value is ready.
type Refund struct {
	mu  sync.Mutex // a source may report a refusal in another goroutine
	due []func()
}

type key struct{}

// With returns a context under which sources charge to r.
func With(ctx context.Context, r *Refund) context.Context {
	return context.WithValue(ctx, key{}, r)
}

// Due reports whether a charge under ctx may be paid back, so that acceptances are
// reported.
func Due(ctx context.Context) bool {
	r, _ := ctx.Value(key{}).(*Refund)
	return r != nil
}

// Charge calls back later if the request of ctx is paid back. Without a Refund in ctx,
// Charge does nothing.
func Charge(ctx context.Context, back func()) {
	r, _ := ctx.Value(key{}).(*Refund)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.due = append(r.due, back)
}

// Pay pays back every charge, each once.
func (r *Refund) Pay() {
	r.mu.Lock()
	due := r.due
	r.due = nil
	r.mu.Unlock()
	for _, back := range due {
		back()
	}
}
