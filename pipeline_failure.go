// How long a failed fetch is remembered: one request per cool-down at the auth
// server, whatever the number of callers. The ledger (pipeline_ledger.go) keeps
// the failures.

package requestforge

import (
	"slices"
	"time"
)

// maxRetryAfter is the longest that an auth server can make callers wait.
const maxRetryAfter = 5 * time.Minute

// blameEvery is how often the parents of a step are blamed in vain.
const blameEvery = 5 * time.Minute

// failure is a failed fetch as callers get to know it. Immutable.
type failure struct {
	err   *AuthError
	at    time.Time
	until time.Time // nobody asks the auth server before
}

// lasts reports whether the cool-down of f, which may be nil, goes on.
func (f *failure) lasts(now time.Time) bool { return f != nil && now.Before(f.until) }

// again is the error for one more caller.
func (f *failure) again(now time.Time) *AuthError {
	err := *f.err
	err.RetryAfter = max(0, f.until.Sub(now))
	return &err
}

// coolDown returns how long the failure err is remembered, after a number of
// failures before in a row: first, doubled with each failure, up to most. A
// permanent failure gets most at once. The auth server can ask for more.
func coolDown(err *AuthError, before int, first, most time.Duration) time.Duration {
	wait := most
	if n := min(before, 32); !err.Permanent && first<<n>>n == first { // else it overflows
		wait = min(wait, first<<n)
	}
	return max(wait, min(err.RetryAfter, maxRetryAfter))
}

// failures holds the failures of one step.
type failures struct {
	cur   *failure  // of the last fetch; nil: the last fetch didn't fail
	inRow int       // with no success in between
	last  *failure  // stays after a success, for State; nil: no failure so far
	vain  time.Time // when newer tokens of the parents changed nothing; zero: the parents work
}

// add remembers one more failure in a row.
func (f *failures) add(n *failure) {
	f.inRow++
	f.cur, f.last = n, n
}

// replace remembers n instead of the failure before. If n ends later by slack at
// most, n is that same failure, and not one more in a row.
func (f *failures) replace(n *failure, slack time.Duration) {
	if f.cur == nil || n.until.Sub(f.cur.until) > slack {
		f.inRow++
	}
	f.cur, f.last = n, n
}

// over ends the failures, after a success. A failure that other steps have
// inherited ends at the same time, and so is past.
func (f *failures) over() { f.cur, f.inRow = nil, 0 }

// mayBlame reports whether parents are under suspicion. If newer parents changed
// nothing a while ago, only a parent that has worked since is a suspect: else a
// wrong password would be sent twice in each flight. After blameEvery blame again,
// since a parent revoked before its first use would block the step until the
// parent expires.
func (f *failures) mayBlame(parents []*held, now time.Time) bool {
	return now.Sub(f.vain) >= blameEvery || slices.ContainsFunc(parents, (*held).accepted)
}
