// Package retrybudget bounds the retries of many requests together, so that a server in
// an outage doesn't get several times its usual load.
package retrybudget

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Share is how many retries each request brings.
	Share = 0.1

	// Every is the time that brings a further retry, for a program with few requests.
	Every = 30 * time.Second
)

// A Budget counts the retries left. Each request brings the Share of a retry, and each
// Every a whole retry, up to the initial number. The methods may be called
// concurrently. A nil Budget is never used up.
//
// The invariant: n requests that all fail have at most the initial number, plus Share
// times n, plus a retry for each Every, as retries together.
type Budget struct {
	most float64

	// spent is set while the Budget isn't full: while the Budget is full, a request
	// writes no shared memory.
	spent atomic.Bool

	mu   sync.Mutex
	left float64   // guarded by mu
	at   time.Time // when left was right; guarded by mu
}

// New returns a Budget of a number of retries.
func New(most int) *Budget { return &Budget{most: float64(most), left: float64(most)} }

// Request notes a request, whatever its outcome.
func (b *Budget) Request() {
	if b == nil || !b.spent.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.giveLocked(Share)
}

// Take takes a retry, and reports whether a retry was left.
func (b *Budget) Take(now time.Time) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.at.IsZero() {
		b.giveLocked(float64(max(0, now.Sub(b.at))) / float64(Every))
	}
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	b.spent.Store(true)
	return true
}

func (b *Budget) giveLocked(n float64) {
	b.left = min(b.most, b.left+n)
	b.spent.Store(b.left < b.most)
}
