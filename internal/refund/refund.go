// Package refund lets the sender of a request take back what its refusals have
// cost a source of tokens, once a replay has shown that they were real.
package refund

import (
	"context"
	"sync"
)

// A Refund collects what one request's refusals have cost. It travels in the
// context, since other sources may stand between the sender and the one that
// charges. The zero value is ready.
type Refund struct {
	mu  sync.Mutex // a source may report a refusal in a goroutine of its own
	due []func()
}

type key struct{}

// With returns a context under which sources charge to r.
func With(ctx context.Context, r *Refund) context.Context {
	return context.WithValue(ctx, key{}, r)
}

// Charge has back called if the request that ctx belongs to is paid back. If
// nobody pays back, it does nothing.
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
