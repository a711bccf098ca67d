// Package bucket bounds how often something may happen, with a way to take a
// charge back.
package bucket

import "time"

// Bucket holds drops. A caller may take a drop while the bucket isn't empty, and a new
// drop gathers each interval until the bucket is full. Unlike x/time/rate's Limiter, a
// Bucket takes back drops that turned out not to have been due.
//
// A Bucket is not safe for concurrent use: its owner's lock guards the Bucket.
type Bucket struct {
	size  int
	every time.Duration
	drops int
	since time.Time // when the next drop began to gather
}

// Full returns a full bucket of size drops, which gathers a drop in each interval
// every.
func Full(size int, every time.Duration) Bucket {
	return Bucket{size: size, every: every, drops: size}
}

// Empty reports whether there is no drop to take.
func (b *Bucket) Empty(now time.Time) bool {
	if b.drops < b.size {
		if n := int(now.Sub(b.since) / b.every); n > 0 {
			b.drops = min(b.size, b.drops+n)
			b.since = b.since.Add(time.Duration(n) * b.every)
		}
	}
	return b.drops == 0
}

// Take takes a drop, and reports whether there was a drop.
func (b *Bucket) Take(now time.Time) bool {
	if b.Empty(now) {
		return false
	}
	if b.drops == b.size {
		b.since = now
	}
	b.drops--
	return true
}

// Give puts n drops back.
func (b *Bucket) Give(n int) { b.drops = min(b.size, b.drops+n) }
