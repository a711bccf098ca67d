// What an answer of the auth server means for the refresh token that was sent. The
// fetch (pipeline_fetch.go) decides what follows; the ledger keeps the doubts.

package requestforge

import (
	"errors"
	"net/http"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
)

// doubtFor is how long a refresh token is sent again by each fetch, once a fetch,
// after an outcome that leaves open whether the token was spent. What a server with
// reuse detection could end by that is lost already; a server with a grace period
// gives the new token again. Only when it stays open for longer does the same fetch
// log in from scratch, since that may need a person, and faults of the network pass.
const doubtFor = time.Minute

// fate is what became of a refresh token that was sent.
type fate int

const (
	// kept: the server has not heard of the token, or can't serve it now.
	kept fate = iota
	// open: the server may have taken the token and lost the answer, or somebody
	// between has answered: a firewall, a portal.
	open
	// useless: the server says no to the request, but not to the token. A login
	// may work; if that fails, the refresh token is as good as before.
	useless
	// spent: the server refuses the token, or a crash has lost its answer.
	spent
)

// fateOf returns what err, the outcome of a refresh, says of the refresh token.
func fateOf(err error) fate {
	auth, ok := errors.AsType[*AuthError](err)
	switch {
	case ok && auth.Unsent:
		return kept
	case crashed(err):
		return spent
	case !ok:
		return kept
	case condemns(auth):
		return spent
	case auth.Temporary, auth.ParentRefused:
		return kept // the refresh token wasn't looked at
	case auth.Code == "invalid_client":
		return kept // a login would fail as well
	case auth.read && !transient(auth):
		return useless
	case auth.page || ambiguous(err):
		return open
	}
	return fateByStatus(auth)
}

// fateByStatus is fateOf for an answer of which nothing but the status is known.
func fateByStatus(auth *AuthError) fate {
	switch status := auth.StatusCode; {
	case status == http.StatusBadRequest || status == http.StatusUnauthorized || auth.Permanent:
		return useless
	case 400 <= status && status <= 499 && !transient(auth):
		return open
	}
	return kept
}

// condemns reports whether an auth server refuses the refresh token itself (RFC
// 6749 §5.2; OpenID Connect Core §3.1.2.6 where the session has ended).
func condemns(auth *AuthError) bool {
	if auth.RefreshRefused || auth.ParentRefused {
		return auth.RefreshRefused
	}
	switch auth.Code {
	case "invalid_grant":
		return true
	case "invalid_token", "expired_token", "interaction_required", "login_required", "consent_required", "account_selection_required":
		return auth.StatusCode == http.StatusBadRequest || auth.StatusCode == http.StatusUnauthorized
	}
	return false
}

// doubt is about one refresh token of a step.
type doubt struct {
	stamp uint64    // of the token; 0: no doubt
	since time.Time // the first open outcome
}

// about notes an open outcome for the token with a stamp, and reports whether the
// doubt is older than doubtFor.
func (d *doubt) about(stamp uint64, now time.Time) bool {
	if d.stamp != stamp {
		*d = doubt{stamp, now}
	}
	return now.Sub(d.since) >= doubtFor
}

// crashed reports whether err is the crash of a fetcher.
func crashed(err error) bool {
	_, ok := errors.AsType[*flight.PanicError](err)
	return ok || errors.Is(err, flight.ErrGoexit)
}
