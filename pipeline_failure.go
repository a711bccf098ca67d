// How long a failed fetch is remembered: one request per cool-down at the auth
// server, whatever the number of callers. The ledger (pipeline_ledger.go) keeps
// the failures.

package requestforge

import (
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/retryafter"
)

// maxRetryAfter is the longest that an auth server can make callers wait.
const maxRetryAfter = 5 * time.Minute

// blameEvery is how often the parents of a step are blamed in vain.
const blameEvery = 5 * time.Minute

var errPeer = errors.New("another process's fetch failed")

// reported is a peer's failure of a step as an error. The storage can hold anything:
// its words are checked like a server's answer.
func (f Failure) reported(step string) *AuthError {
	e := (&AuthError{Step: step, Err: errPeer}).withCode(f.Code)
	if f.StatusCode >= 100 && f.StatusCode <= 599 {
		e.StatusCode = f.StatusCode
	}
	e.Permanent = e.Permanent || f.Permanent
	return e
}

// failure is a failed fetch as callers get to know it. Immutable, but for its end.
type failure struct {
	err   *AuthError
	at    time.Time
	until time.Time    // nobody asks the auth server before
	ended *atomic.Bool // the step has worked since; shared by its failures in a row, and with the steps that have inherited one; nil: nobody inherits the failure
	gone  uint64       // the last logout before; a peer's: 0
	read  reading      // the changing secrets that failed; another one ends the cool-down

	// before are failures that go on, each with other given tokens.
	before []*failure
}

// maxBefore bounds the given tokens of one subject whose refusals are remembered at once.
const maxBefore = 8

// after notes the failure before f, which may be nil, if both are about given tokens.
func (f *failure) after(last *failure) *failure {
	if last != nil && f.err.given != "" && last.err.given != "" {
		alone := *last
		alone.before = nil
		before := slices.DeleteFunc(append(slices.Clone(last.before), &alone), func(b *failure) bool { return !b.lasts(f.at) || b.err.given == f.err.given })
		f.before = before[max(0, len(before)-maxBefore):]
	}
	return f
}

// of returns the failure, f or one before, of given tokens with a print, nil if there is
// none that lasts.
func (f *failure) of(given string, now time.Time) *failure {
	for _, g := range append(f.before[:len(f.before):len(f.before)], f) {
		if g.err.given == given && g.lasts(now) {
			return g
		}
	}
	return nil
}

// aboutGiven reports whether err may be the fault of a given token: a refusal, but neither a
// passing fault of the server's nor one of the client's registration or the request.
func aboutGiven(err *AuthError) bool {
	switch {
	case err.ParentRefused:
		return true
	case transient(err):
		return false
	}
	switch err.Code {
	case "":
		switch err.StatusCode {
		case 0, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
			return err.StatusCode > 0 || err.Permanent
		}
	case "invalid_grant", "invalid_request", "invalid_token", "access_denied", "expired_token", "insufficient_user_authentication",
		"interaction_required", "login_required", "consent_required", "account_selection_required":
		return true
	}
	return false
}

// lasts reports whether the cool-down of f, which may be nil, goes on.
func (f *failure) lasts(now time.Time) bool {
	return f != nil && now.Before(f.until) && (f.ended == nil || !f.ended.Load())
}

// again is the error for one more caller.
func (f *failure) again(now time.Time) *AuthError {
	err := *f.err
	err.RetryAfter = max(0, f.until.Sub(now))
	return &err
}

// coolDown returns how long the failure err is remembered, after a number of
// failures before in a row: first, doubled with each failure, up to most. A
// permanent failure gets most at once. The auth server can ask for more, and gets up
// to a quarter of that on top.
func coolDown(err *AuthError, before int, first, most time.Duration) time.Duration {
	wait := most
	if n := min(before, 32); !err.Permanent && first<<n>>n == first { // else it overflows
		wait = min(wait, first<<n)
	}
	return max(wait, min(retryafter.Spread(err.RetryAfter), maxRetryAfter))
}

// pauseAhead is how long a renewal ahead waits after f: until the cool-down is over, and
// for least; but a second if a new secret can end the cool-down before its time.
func (f *failure) pauseAhead(least time.Duration) time.Duration {
	if f.read.of != nil {
		return time.Second
	}
	return max(least, time.Until(f.until))
}

// failures holds the failures of one step.
type failures struct {
	cur   *failure  // of the last fetch; nil: the last fetch didn't fail
	inRow int       // with no success in between
	last  *failure  // stays after a success, for State; nil: no failure so far
	crash bool      // the last fetch crashed, and was forgiven
	vain  time.Time // when newer tokens of the parents changed nothing; zero: the parents work

	answers *answers          // to challenges; nil: no API has asked for more
	asked   map[string]string // because of challenges, for the token of a subject since dropped

	suspicions suspicions // of shared parents, by a subject's auth server

	// waited is set once young parents were waited for in vain, until the
	// auth server has taken some.
	waited bool
}

// telling reports whether the failures, if there are any, matter for the next fetch.
func (f *failures) telling() bool {
	return f != nil && (f.cur != nil || f.answers != nil || len(f.asked) > 0 || f.suspicions.wait > 0 || !f.vain.IsZero() || f.waited || f.crash)
}

// add remembers one more failure in a row.
func (f *failures) add(n *failure) {
	f.inRow++
	n.follow(f.cur)
	f.cur, f.last = n, n
}

// forgive notes a crash, unless the fetch before crashed, too. A bug that shows now
// and then must not keep callers waiting; one that shows each time must not send a
// password for each caller.
func (f *failures) forgive(n *failure) bool {
	if f.crash {
		return false
	}
	f.crash, f.last = true, n
	return true
}

// replace remembers n instead of the failure before. If n ends later by slack at
// most, n is that same failure, and not one more in a row.
func (f *failures) replace(n *failure, slack time.Duration) {
	if f.cur == nil || n.until.Sub(f.cur.until) > slack {
		f.inRow++
	}
	n.follow(f.cur)
	f.cur, f.last = n, n
}

// follow lets f, not published yet, end together with last, the same step's failure before.
func (f *failure) follow(last *failure) {
	if last != nil && last.err.Step == f.err.Step && last.ended != nil && !last.ended.Load() {
		f.ended = last.ended
	}
}

// over ends the failures, if there are any, of the step after a success, also for the steps
// that have inherited the last.
func (f *failures) over(step string) {
	if f == nil {
		return
	}
	if f.cur != nil && f.cur.err.Step == step && f.cur.ended != nil {
		f.cur.ended.Store(true)
	}
	f.cur, f.inRow, f.crash = nil, 0, false
}

// inherit takes over f, a failure of a parent, unless the step's own lasts longer.
func (f *failures) inherit(of *failure) {
	if f.last = of; f.cur == nil || f.cur.until.Before(of.until) {
		f.cur = of
	}
}

// mayBlame reports whether parents are under suspicion. If newer parents changed
// nothing a while ago, only a parent that has worked since is a suspect: else a
// wrong password would be sent twice in each flight. After blameEvery blame again,
// since a parent revoked before its first use would block the step until the
// parent expires.
// A parent that another process has saved in the meantime has worked for nobody, as far as
// known: else two processes would replace each other's parents in turn.
func (f *failures) mayBlame(parents []*held, now time.Time) bool {
	return f == nil || now.Sub(f.vain) >= blameEvery || slices.ContainsFunc(parents, (*held).worked)
}

// mayWait reports whether the auth server may not know one of the parents yet.
func (f *failures) mayWait(parents []*held, now time.Time) bool {
	return (f == nil || !f.waited) && slices.ContainsFunc(parents, func(h *held) bool { return h.young(now) && !h.taken() })
}
