// Package refund lets the sender of a request take back the charges for refusals from a
// source of tokens, once a replay has shown that the refusals were real; and lets the source
// keep, until the request is over, what a replay needs.
package refund

import (
	"context"
	"sync"
)

// A Refund collects the charges for the refusals of a request. A Refund travels in the
// context, since other sources may stand between the sender and the source that
// charges. The zero value is ready.
type Refund struct {
	mu   sync.Mutex // a source may report a refusal in another goroutine
	due  []func()
	held []func() // called by Over
	over bool
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

// Hold has release called once: when the request of ctx is over; at once if the request is
// over already, or without a Refund in ctx.
func Hold(ctx context.Context, release func()) {
	if r, _ := ctx.Value(key{}).(*Refund); r == nil || !r.hold(release) {
		release()
	}
}

func (r *Refund) hold(release func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.held = append(r.held, release)
	}
	return !r.over
}

// Over ends the request: everything held is released. The sender calls Over in the end.
func (r *Refund) Over() {
	r.mu.Lock()
	held := r.held
	r.held, r.over = nil, true
	r.mu.Unlock()
	for _, release := range held {
		release()
	}
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
