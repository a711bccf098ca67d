// Leases of the storage's locks, and leases whose unlock has failed. pipeline_store.go takes
// and unlocks leases.

package requestforge

import (
	"sync"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
)

// lease is a Lease with the result of its Done.
type lease struct {
	Lease
	done <-chan struct{} // the result of Done; nil: the lock can't be lost
}

// held reports whether the lock isn't lost. nil is no lease.
func (l *lease) held() bool {
	if l == nil {
		return false
	}
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

// leases are the leases whose Unlock has failed.
//
// The invariant: each lease of tryLock that the flight has no use for is unlocked by a call
// that reports success, or lost, or kept here for a later try, or in a try under way.
type leases struct {
	hanging *flight.Limit // calls of Unlock left behind

	mu    sync.Mutex // guards later
	later []*unreleased
}

// unreleased is a lease whose Unlock has failed.
type unreleased struct {
	*lease
	tries int
}

// Unlock may fail maxUnlocks times before its lease counts as lost. The first timedUnlocks
// times Unlock is tried again a second later, then two, then four; the other tries wait
// until another call of the storage has worked.
const maxUnlocks, timedUnlocks = 16, 6

// add remembers o, and returns how soon to try again at the latest; 0: never.
func (l *leases) add(o *unreleased) time.Duration {
	if o.tries++; o.tries >= maxUnlocks || !o.held() {
		return 0
	}
	var wait time.Duration
	if o.tries <= timedUnlocks {
		wait = time.Second << (o.tries - 1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.later = append(l.later, o)
	return wait
}

// take returns all leases kept for a later try.
func (l *leases) take() []*unreleased {
	l.mu.Lock()
	defer l.mu.Unlock()
	later := l.later
	l.later = nil
	return later
}
