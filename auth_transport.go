// Which requests carry a token, and what happens when one is refused.

package requestforge

import (
	"net/http"
	"time"
)

// AnyOrigin in Origins allows every https origin that the caller itself names.
const AnyOrigin = "*"

// CallerHeader says what to do with a token header that the caller has set.
type CallerHeader int

// The choices.
const (
	KeepCaller CallerHeader = iota
	ReplaceCaller
	RejectCaller
)

// AuthTransport puts a token on requests.
type AuthTransport struct {
	Base           http.RoundTripper
	Source         TokenSource
	Header         string
	ExcludedPaths  []string
	Origins        []string
	AllowPlaintext bool
	CallerHeader   CallerHeader
	Retry          AuthRetryStrategy
	Refused        func(*http.Response) bool
	MaxReplayBody  int64

	pathPrefix string // the path that ExcludedPaths are below; set by NewTransport
}

// Reason says why a request would, or would not, carry the token.
type Reason string

// Decision is the answer of Explain.
type Decision struct {
	Send   bool
	Reason Reason
	Err    error
}

// Schedule says how long to wait before the next try; negative: stop.
type Schedule interface{ NextBackOff() time.Duration }

// AuthRetryStrategy makes one Schedule a request.
type AuthRetryStrategy func() Schedule

func SimpleAuthRetry(retries int, delay time.Duration) AuthRetryStrategy { return nil }
func ExponentialAuthRetry(retries int, base, limit time.Duration) AuthRetryStrategy {
	return nil
}
func StaticToken(tok *Token) TokenSource { return nil }

func (t *AuthTransport) Explain(req *http.Request) Decision { return Decision{} }
func (t *AuthTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(nil, req)
}
func (t *AuthTransport) roundTrip(x *exchange, req *http.Request) (*http.Response, error) {
	return baseOr(t.Base).RoundTrip(req)
}
func (t *AuthTransport) Unwrap() http.RoundTripper { return baseOr(t.Base) }
func (t *AuthTransport) CloseIdleConnections()     { closeIdle(baseOr(t.Base)) }
