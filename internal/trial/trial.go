// Package trial finds out, once for all callers, whether a server that doesn't
// know a token yet knows the token a little later.
package trial

import (
	"context"
	"sync"
	"time"
)

// Longest is the time from a trial's begin to its last try; Short is the same for a
// caller in a hurry.
const (
	Longest = 3 * time.Second
	Short   = 750 * time.Millisecond
)

// tries are the times of the tries after the begin: the waits double, up to
// Longest.
var tries = [...]time.Duration{250 * time.Millisecond, Short, 1750 * time.Millisecond, Longest}

// Tries is how many tries a trial has.
const Tries = len(tries)

// A Trial is the trial of a token. At any time at most one caller has the turn, and
// tries; the other callers wait for the result. A caller with the turn either ends the
// trial or passes the turn on.
type Trial struct {
	begun time.Time
	turn  chan struct{} // holds an element while a caller has the turn
	over  chan struct{} // closed by End
	end   sync.Once

	mu      sync.Mutex
	callers int // callers that wait or have the turn; guarded by mu
}

// New begins a trial.
func New(now time.Time) *Trial {
	return &Trial{begun: now, turn: make(chan struct{}, 1), over: make(chan struct{})}
}

// Next returns the wait before the caller's next try, if the caller's last try is most
// after the begin; negative: the last try is past.
func (t *Trial) Next(now time.Time, most time.Duration) time.Duration {
	passed := now.Sub(t.begun)
	for _, at := range tries {
		if at > passed && at <= most {
			return at - passed
		}
	}
	return -1
}

// Enter counts the caller among the callers of the trial.
func (t *Trial) Enter() { t.count(1) }

// Leave takes back an Enter.
func (t *Trial) Leave() { t.count(-1) }

func (t *Trial) count(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.callers += n
}

// Idle reports whether the trial concerns no caller.
func (t *Trial) Idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.callers == 0
}

// Turn waits for the turn, and reports whether the caller has the turn. Otherwise the
// trial is over, ctx or cancel has ended, or most has passed.
func (t *Trial) Turn(ctx context.Context, cancel <-chan struct{}, most time.Duration) bool {
	if t.Over() {
		return false
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case t.turn <- struct{}{}:
		return true
	case <-t.over:
	case <-ctx.Done():
	case <-cancel:
	case <-timer.C:
	}
	return false
}

// Pass passes the caller's turn to the next caller.
func (t *Trial) Pass() { <-t.turn }

// Sleep waits before a try, and returns early if the trial is over or ctx or cancel has
// ended.
func (t *Trial) Sleep(ctx context.Context, cancel <-chan struct{}, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.over:
	case <-ctx.Done():
	case <-cancel:
	}
}

// End ends the trial for all callers. Further calls do nothing.
func (t *Trial) End() { t.end.Do(func() { close(t.over) }) }

// Over reports whether the trial has ended.
func (t *Trial) Over() bool {
	select {
	case <-t.over:
		return true
	default:
		return false
	}
}
