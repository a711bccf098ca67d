// What an API's challenge asks of a step, which tokens answer the challenge, and what answers
// may cost. Which step answers is pipeline_challenge.go's.

package requestforge

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/bucket"
	"github.com/requestforge/requestforge/internal/challenge"
)

// ErrNeedsPerson is what a Fetcher returns, wrapped, if only a person can do what an API's
// challenge asks for: approve on a phone, or log in again in a browser. The challenge goes
// back to the caller as the response, and the token that the step has stays alive. For the
// length of PipelineConfig.CoolDown an equal challenge goes back at once; after that the
// Fetcher is asked again, since the person may have come.
var ErrNeedsPerson = errors.New("requestforge: the login needs a person")

// wish is what a challenge asks of a step. A nil wish is none: any token will do.
type wish struct {
	asked   map[string]string // the parameters, see Input.Challenge
	lasting map[string]string // what of them a later login asks for again; never empty
	charged atomic.Bool       // a fetch for the sake of this wish was paid for
}

func newWish(asked map[string]string) *wish {
	return &wish{asked: asked, lasting: challenge.Lasting(asked)}
}

// after returns the wish of a step whose ledger may not know h, the challenged token, any more:
// what the fetch of h asked for is asked for again.
func (w *wish) after(h *held) *wish {
	all, lasting := w.over(h.asked())
	return &wish{asked: all, lasting: lasting}
}

// metBy reports whether the fetch of h asked for everything in the wish. Whether the auth
// server has done as asked only the API can say.
func (w *wish) metBy(h *held) bool { return w == nil || challenge.Covers(h.asked(), w.lasting) }

// askedInVain reports whether another fetch is pointless: h, the challenged token, is young,
// its fetch asked for everything in the wish, and the wish has no max_age and no claims, which
// a later login could meet. The user lacks a right, say, and no other token has more rights.
func (w *wish) askedInVain(h *held, now time.Time) bool {
	return w.metBy(h) && w.lasting["max_age"] == "" && w.lasting["claims"] == "" && now.Sub(h.issued) < askAgainAfter
}

// askAgainAfter is when what was asked for in vain is asked for again: the user may have got
// the right since.
const askAgainAfter = 5 * time.Minute

// concernedBy reports whether err, the error of another caller's flight, is an answer to the
// wish. The failure of another wish is not.
func (w *wish) concernedBy(err error) bool {
	u, ok := errors.AsType[*unanswered](err)
	return !ok || w != nil && maps.Equal(u.wish.lasting, w.lasting)
}

// byRefresh reports whether a refresh token may do for the wish. A refresh token can neither
// widen its scope (RFC 6749 §6) nor make the login younger or stronger (RFC 9470): for both
// the Fetcher is asked. An auth server that is asked for claims says whether a refresh will do.
func (w *wish) byRefresh() bool {
	return w == nil || len(w.lasting) == 1 && w.lasting["claims"] != ""
}

// over returns Input.Challenge of a fetch, and the lasting part of the same. before is what
// the fetch of the step's newest token asked for, which is asked for again.
func (w *wish) over(before map[string]string) (all, lasting map[string]string) {
	if w == nil {
		return maps.Clone(before), before
	}
	lasting = challenge.Merge(before, w.lasting)
	all = maps.Clone(w.asked)
	maps.Copy(all, lasting)
	return all, lasting
}

// names is what a log may say of the wish: its values are an API's words.
func (w *wish) names() string { return strings.Join(slices.Sorted(maps.Keys(w.lasting)), " ") }

// unanswered is the failure of a fetch for the sake of a wish. The step has not failed: its
// token is as good as before.
type unanswered struct {
	err  *AuthError
	wish *wish
}

func (e *unanswered) Error() string { return e.err.Error() }

func (e *unanswered) Unwrap() error { return e.err }

var errAskedAlready = errors.New("the token was asked for that already, a moment ago")

var errAnsweredTooOften = errors.New("challenges have cost too many fetches lately; the token stays for now")

// refusesWish reports whether err may mean that the auth server, or the fetcher, can't do
// what a challenge asks for, and could do less.
func refusesWish(err error) bool {
	if errors.Is(err, ErrNeedsPerson) {
		return true
	}
	auth, ok := errors.AsType[*AuthError](err)
	if !ok || auth.ParentRefused || auth.RefreshRefused {
		return false
	}
	switch auth.Code {
	case "invalid_scope", "invalid_target", "insufficient_user_authentication", "interaction_required",
		"login_required", "consent_required", "account_selection_required":
		return true
	}
	return false
}

// answers are what the challenges of one step have cost, and the last fetch in vain. The
// buckets have the size of those of refusals, and are apart from them: an API that challenges
// for ever must not keep revoked tokens from being replaced.
type answers struct {
	unproven, all bucket.Bucket

	last   *unanswered // nil: the last fetch for a challenge has brought a token
	until  time.Time   // last holds until then
	inVain int         // failures in a row
}

// challenged returns the answers beside f, made anew if there are none.
func (f *failures) challenged() *answers {
	if f.answers == nil {
		f.answers = &answers{unproven: bucket.Full(unprovenSize, unprovenEvery), all: bucket.Full(allSize, allEvery)}
	}
	return f.answers
}

// affordable reports whether there may be one fetch more.
func (a *answers) affordable(now time.Time) bool { return !a.unproven.Empty(now) && !a.all.Empty(now) }

// take takes what one fetch costs.
func (a *answers) take(now time.Time) {
	a.unproven.Take(now)
	a.all.Take(now)
}

// failed notes that a fetch for the sake of w has failed, and returns how long that is
// remembered.
func (a *answers) failed(w *wish, err *AuthError, first, most time.Duration, now time.Time) time.Duration {
	wait := coolDown(err, a.inVain, first, most)
	if errors.Is(err, ErrNeedsPerson) { // the person may be there any moment
		wait = first
		a.unproven.Give(1)
	}
	a.last, a.until = &unanswered{err, w}, now.Add(wait)
	a.inVain++
	return wait
}

// again returns the failure of the last wish for one more caller, if w is an equal one and
// the failure is still remembered; else nil.
func (a *answers) again(w *wish, now time.Time) *unanswered {
	if a.last == nil || !now.Before(a.until) || !maps.Equal(a.last.wish.lasting, w.lasting) {
		return nil
	}
	err := *a.last.err
	err.RetryAfter = a.until.Sub(now)
	return &unanswered{&err, w}
}

// over ends the failures: a fetch has brought a token.
func (a *answers) over() {
	if a != nil {
		a.last, a.inVain = nil, 0
	}
}
