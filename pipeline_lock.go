// The leases of the storage's locks, as the pipeline has them, and those that it owes.
// pipeline_store.go gets them and gives them back.

package requestforge

import (
	"sync"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
)

// lease is a Lease whose methods have been asked what they know.
type lease struct {
	Lease
	done <-chan struct{} // what Done returned; nil: the lock can't be lost
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

// leases are those that couldn't be given back.
//
// The invariant: each lease of tryLock that the flight has no use for is unlocked,
// by a call that reports success, or lost, or among those kept for a later try or under way.
type leases struct {
	hanging *flight.Limit // calls of Unlock left behind

	mu    sync.Mutex // guards later
	later []*unreleased
}

// unreleased is a lease that Unlock has failed on.
type unreleased struct {
	*lease
	tries int
}

// Unlock may fail maxUnlocks times before its lease counts as lost. The first
// timedUnlocks times it is tried again a second later, then two, then four; the rest
// is left for when another call of the storage has worked.
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

// take returns all that are kept for a later try.
func (l *leases) take() []*unreleased {
	l.mu.Lock()
	defer l.mu.Unlock()
	later := l.later
	l.later = nil
	return later
}
