// What is seen of an auth layer's decisions about a request: by the functions of an
// AuthTrace, and by a LoggingTransport above. The decisions are auth_transport.go's and
// auth_replay.go's.

package requestforge

import (
	"net/http"

	"github.com/requestforge/requestforge/internal/redact"
)

// AuthTrace is a set of functions that an [AuthTransport] calls while it deals with a
// request, in the manner of [net/http/httptrace.ClientTrace]: for metrics, and to find out
// why a request went without a token or came back with a refusal.
//
//	trace := &requestforge.AuthTrace{
//		GaveUp: func(req *http.Request, info requestforge.GaveUpInfo) {
//			gaveUps.WithLabelValues(string(info.Reason)).Inc()
//		},
//	}
//
// Each function may be nil. Functions are called by the goroutine that sends the request,
// which waits for them, and by several goroutines at once for several requests. A panic
// in a function is ignored. req is the caller's request, without any token: functions must
// neither change nor send req, nor read req.Body.
type AuthTrace struct {
	// Decided is called for each request that comes to the layer, before a token is
	// asked for. Decision is what [AuthTransport.Explain] says, but for the subject, which
	// is asked for later.
	Decided func(req *http.Request, d Decision)

	// Refused is called for each response that means that the token was bad.
	Refused func(req *http.Request, info RefusedInfo)

	// Replayed is called before each further send of a request by the layer.
	Replayed func(req *http.Request, info ReplayedInfo)

	// GaveUp is called if a refusal goes back to the caller, or to the layer above.
	GaveUp func(req *http.Request, info GaveUpInfo)
}

// RefusedInfo says what refused a token.
type RefusedInfo struct {
	// StatusCode is the response's.
	StatusCode int
}

// ReplayedInfo says why a request is sent again.
type ReplayedInfo struct {
	// Reason is what led to the send.
	Reason ReplayReason
	// SendNumber is the number of the send, as in [SendNumber]: 2 or more.
	SendNumber int
}

// ReplayReason is why an [AuthTransport] sends a request again.
type ReplayReason string

// The reasons for a replay.
const (
	ReplayRefused   ReplayReason = "token refused"    // with another token
	ReplayYoung     ReplayReason = "token young"      // with the same token, which the server may not have known yet
	ReplayChallenge ReplayReason = "challenge"        // with a token that answers a challenge
	ReplayLearned   ReplayReason = "response learned" // with the same token, as Learn wanted
)

// GaveUpInfo says why a refusal went back to the caller.
type GaveUpInfo struct {
	// Reason is why there was no further replay.
	Reason GaveUpReason
	// Err is the source's error, for GaveUpNoToken; else nil. errors.As finds the
	// *AuthError of a Pipeline in Err.
	Err error
}

// GaveUpReason is why an [AuthTransport] sends a refused request no more.
type GaveUpReason string

// The reasons to give up.
const (
	GaveUpNoNewerToken GaveUpReason = "no newer token"                 // the source has the refused token only
	GaveUpNoToken      GaveUpReason = "no token"                       // the source failed; Err says why
	GaveUpBody         GaveUpReason = "body can't be sent again"       // no GetBody, and longer than MaxReplayBody
	GaveUpBudget       GaveUpReason = "no replays left"                // Retry allows no further one
	GaveUpTime         GaveUpReason = "no time to wait for the server" // which may not know a young token yet
	GaveUpBaseURL      GaveUpReason = "newer token has another origin" // after a redirect, with Config.BaseURLFrom
	GaveUpRetrying     GaveUpReason = "left to the retry layer above"  // a foreign layer is between
)

// traced calls f, a call of one of the functions of an AuthTrace.
func traced(f func()) {
	defer func() { _ = recover() }()
	f()
}

// decides reports whether decided calls a function.
func (t *AuthTrace) decides() bool { return t != nil && t.Decided != nil }

func (t *AuthTrace) decided(req *http.Request, d Decision) {
	if t.decides() {
		traced(func() { t.Decided(req, d) })
	}
}

func (t *AuthTrace) refused(req *http.Request, resp *http.Response) {
	if t != nil && t.Refused != nil {
		traced(func() { t.Refused(req, RefusedInfo{StatusCode: resp.StatusCode}) })
	}
}

func (t *AuthTrace) replayed(req *http.Request, why ReplayReason, send int) {
	if t != nil && t.Replayed != nil {
		traced(func() { t.Replayed(req, ReplayedInfo{Reason: why, SendNumber: send}) })
	}
}

func (t *AuthTrace) gaveUp(req *http.Request, why GaveUpInfo) {
	if t != nil && t.GaveUp != nil {
		traced(func() { t.GaveUp(req, why) })
	}
}

// authNote is what the log says of the last send of a request. Immutable.
type authNote struct {
	auth      string      // noteSent's, noteNoToken's, or why the request carried no token
	gaveUp    *GaveUpInfo // nil: the layer hasn't given up
	challenge string      // what became of the last challenge that a source could answer; "": there was none
}

// The notes of most requests need no allocation.
var (
	noteSent    = &authNote{auth: "sent"}
	noteNoToken = &authNote{auth: "no token"}
	noteLeft    = &authNote{auth: string(ReasonRedirect)} // to another base URL than the token's
)

// text is why, for a log.
func (why *GaveUpInfo) text(shown redact.Record) string {
	if why.Err != nil {
		return shown.Error(why.Err)
	}
	return string(why.Reason)
}
