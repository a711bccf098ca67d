// Package slot bounds how many calls are under way at once.
package slot

import (
	"context"
	"sync"
	"time"
)

// Pool has a number of slots. A nil Pool has as many as are wanted.
type Pool struct{ taken chan struct{} }

// New returns a Pool of n slots; nil if n isn't above 0.
func New(n int) *Pool {
	if n <= 0 {
		return nil
	}
	return &Pool{make(chan struct{}, n)}
}

// Take waits for a slot, in the order of callers: for patience, or without a bound if
// patience isn't above 0, and until ctx ends. Take returns nil without a slot.
func (p *Pool) Take(ctx context.Context, patience time.Duration) *Slot {
	if p != nil && !p.take(ctx, patience) {
		return nil
	}
	return &Slot{pool: p, held: p != nil}
}

func (p *Pool) take(ctx context.Context, patience time.Duration) bool {
	select {
	case p.taken <- struct{}{}:
		return true
	default:
	}
	var late <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case p.taken <- struct{}{}:
		return true
	case <-late:
	case <-ctx.Done():
	}
	return false
}

// Slot is the slot of a call.
//
// The invariant: the slot counts from Take to Free, except while Lent functions run.
// Neither Free nor another Lend waits for a Lend that waits to have the slot again.
type Slot struct {
	pool *Pool

	mu    sync.Mutex
	lent  int  // running functions; guarded by mu
	held  bool // guarded by mu
	freed bool // guarded by mu
}

// Lend frees the slot while wait runs, which waits for another call, and then waits for
// a slot again, until ctx ends. Lend may be called many times at once, and on nil by a
// caller without a slot.
func (s *Slot) Lend(ctx context.Context, wait func()) {
	if s == nil || s.pool == nil {
		wait()
		return
	}
	s.change(func() { s.lent++; s.give() })
	defer func() {
		wanted := false
		s.change(func() { s.lent--; wanted = s.lent == 0 && !s.freed })
		if !wanted || !s.pool.take(ctx, 0) {
			return
		}
		s.change(func() {
			if s.held || s.freed || s.lent > 0 { // changed by other calls since
				<-s.pool.taken
			} else {
				s.held = true
			}
		})
	}()
	wait()
}

// Free gives the slot back. A second call, and a call on nil, do nothing.
func (s *Slot) Free() {
	if s != nil && s.pool != nil {
		s.change(func() { s.freed = true; s.give() })
	}
}

func (s *Slot) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// give gives the slot back if the slot is held, and never waits. The caller holds s.mu.
func (s *Slot) give() {
	if s.held {
		<-s.pool.taken
		s.held = false
	}
}
