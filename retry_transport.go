// When a request is sent again, and how long to wait.

package requestforge

import (
	"context"
	"net/http"
	"time"
)

// RetryPolicy says when to send again.
type RetryPolicy struct {
	RetryMax                   int
	RetryWaitMin, RetryWaitMax time.Duration
	CheckRetry                 func(context.Context, *http.Response, error) (bool, error)
	Backoff                    func(min, max time.Duration, attempt int, resp *http.Response) time.Duration
	AttemptTimeout             time.Duration
	RetryNonIdempotent         bool
	MaxReplayBody              int64
}

// RetryTransport sends requests again.
type RetryTransport struct {
	Base   http.RoundTripper
	Policy RetryPolicy
}

func ExponentialBackoff(retries int, base, limit time.Duration) RetryPolicy { return RetryPolicy{} }

func DefaultCheckRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	return false, nil
}

func (t *RetryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(nil, req)
}
func (t *RetryTransport) roundTrip(x *exchange, req *http.Request) (*http.Response, error) {
	return forward(baseOr(t.Base), x, req)
}
func (t *RetryTransport) Unwrap() http.RoundTripper { return baseOr(t.Base) }
func (t *RetryTransport) CloseIdleConnections()     { closeIdle(baseOr(t.Base)) }
