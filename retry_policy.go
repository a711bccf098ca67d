// Which requests are sent again, how often, and after which wait, as a program configures.
// retry_outcome.go judges outcomes.

package requestforge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/requestforge/requestforge/internal/retrybudget"
)

// RetryPolicy says which requests are sent again, how often, and after which wait. Its
// fields have the names and types of go-retryablehttp's Client, so CheckRetry and Backoff
// values fit unchanged.
//
// The zero value sends nothing again. A RetryPolicy must not be changed while in use; its
// functions may be called by several goroutines at once.
type RetryPolicy struct {
	// RetryMax bounds how often a request is sent again. Zero means never, and then only
	// AttemptTimeout of the remaining fields has an effect. NewTransport refuses a negative
	// number; a RetryTransport treats a negative number as zero.
	RetryMax int

	// Budget bounds the retries of all requests of a RetryTransport together, while a
	// server is down: Budget at once, then one for each ten requests, and one each 30 s.
	// Without Budget left, the outcome of the last send goes back to the caller. Zero means
	// 80, enough for any single caller; negative means no bound.
	Budget int

	// RetryWaitMin is the shortest wait of the default Backoff, and of a Retry-After. Zero
	// means 1 s, or RetryWaitMax if shorter; negative is an error.
	RetryWaitMin time.Duration

	// RetryWaitMax is the longest wait of the default Backoff, and the longest Retry-After:
	// a response with a longer Retry-After goes back to the caller at once. Zero means 30
	// s, or RetryWaitMin if longer; negative, or less than RetryWaitMin, is an error.
	RetryWaitMax time.Duration

	// CheckRetry says whether the outcome of a send is worth another send. Nil means
	// DefaultCheckRetry plus the outcomes of Undone, such as a 403. CheckRetry is called
	// only if another send is possible: RetryMax isn't used up, the context and Cancel of
	// the request are not over, its body can be had again, its method is safe to repeat
	// (see RetryNonIdempotent), and the error isn't hopeless (see RetryTransport).
	//
	// The error is a *url.Error, as http.Client returns errors, and the Request of the
	// response is the caller's. CheckRetry may read up to 64 KiB of the response's body,
	// which the layer restores, and must not keep the response. An error of CheckRetry is
	// ignored: the caller gets the outcome of the last send unchanged.
	CheckRetry func(ctx context.Context, resp *http.Response, err error) (bool, error)

	// Undone says which outcomes mean that the server has done nothing, so that a request
	// is sent again whatever its method. Undone adds to the default outcomes: a 429, a 403
	// or 503 with Retry-After, a 421, a 425, and an error before the request was written
	// (of the dial, the name lookup, the TLS handshake, or the fetch of the token). The
	// default CheckRetry sends all of these again except the 403, which needs Undone or a
	// CheckRetry. req is the caller's, and resp is as for CheckRetry; nil after an error.
	// Nil means only the default.
	Undone func(req *http.Request, resp *http.Response, err error) bool

	// Backoff returns the wait before the next send. It gets RetryWaitMin and RetryWaitMax,
	// the number of the failed send, from 0, and the response as CheckRetry gets the
	// response, nil after an error. A negative wait means no further send. RetryWaitMax
	// doesn't bound the result.
	//
	// A Retry-After in the response has precedence: then Backoff isn't called. The wait is
	// the server's, RetryWaitMin at least, plus up to a quarter, so that callers don't all
	// come back at one instant. A date is read relative to the Date of the response.
	//
	// Nil means exponential with jitter: after the n-th send the wait lies between
	// RetryWaitMin·2ⁿ and twice that time, but from RetryWaitMax on between half of
	// RetryWaitMax and RetryWaitMax.
	Backoff func(min, max time.Duration, attempt int, resp *http.Response) time.Duration

	// AttemptTimeout bounds each send, from the beginning to the response header; reading
	// the body may take any time. Work of the layers below, such as fetching a token,
	// counts. A longer send ends with an error whose Timeout method returns true, and is
	// retried like any error, over a new connection, since the old connection may be dead.
	// Zero means no bound; negative is an error.
	AttemptTimeout time.Duration

	// RetryNonIdempotent allows sending any request again whose outcome CheckRetry finds
	// worth another send, even though the server may then have done its work twice.
	//
	// Otherwise a request must be idempotent: by its method (GET, HEAD, OPTIONS, TRACE,
	// PUT, DELETE), or by an Idempotency-Key or X-Idempotency-Key header, as for
	// http.Transport. Any other request is sent again only if the server did nothing: see
	// Undone.
	RetryNonIdempotent bool

	// MaxReplayBody bounds, in bytes, the copy of a request body without GetBody. A request
	// with a longer body is not sent again. Zero means 64 KiB. Negative means no copy, so
	// that a request is sent again only if its body was not read at all.
	MaxReplayBody int64
}

// The defaults of RetryWaitMin and RetryWaitMax.
const (
	retryWaitMin = time.Second
	retryWaitMax = 30 * time.Second
)

// retryBudget is the default of Budget.
const retryBudget = 80

// ExponentialBackoff returns a policy with up to retries retries, after waits that start at
// base, double each time, and end at limit; see RetryPolicy.Backoff for the jitter. Zero
// durations mean the defaults of RetryWaitMin and RetryWaitMax.
func ExponentialBackoff(retries int, base, limit time.Duration) RetryPolicy {
	return RetryPolicy{RetryMax: retries, RetryWaitMin: base, RetryWaitMax: limit}
}

// check returns all mistakes in p, joined.
func (p *RetryPolicy) check() error {
	var errs []error
	if p.RetryMax < 0 {
		errs = append(errs, fmt.Errorf("requestforge: RetryMax is %d: use 0 for no retries", p.RetryMax))
	}
	if p.RetryWaitMin < 0 {
		errs = append(errs, fmt.Errorf("requestforge: RetryWaitMin is %v: use 0 for the default, or 1ns for no wait", p.RetryWaitMin))
	}
	if p.RetryWaitMax < 0 {
		errs = append(errs, fmt.Errorf("requestforge: RetryWaitMax is %v: use 0 for the default", p.RetryWaitMax))
	}
	if p.RetryWaitMax > 0 && p.RetryWaitMin > p.RetryWaitMax {
		errs = append(errs, fmt.Errorf("requestforge: RetryWaitMin, %v, is more than RetryWaitMax, %v: swap them, or leave one at 0", p.RetryWaitMin, p.RetryWaitMax))
	}
	if p.AttemptTimeout < 0 {
		errs = append(errs, fmt.Errorf("requestforge: AttemptTimeout is %v: use 0 for none", p.AttemptTimeout))
	}
	return errors.Join(errs...)
}

// passive reports whether p changes nothing.
func (p *RetryPolicy) passive() bool { return p.RetryMax <= 0 && p.AttemptTimeout == 0 }

// budget returns a new Budget, nil for no bound.
func (p *RetryPolicy) budget() *retrybudget.Budget {
	if p.Budget < 0 {
		return nil
	}
	return retrybudget.New(cmp.Or(p.Budget, retryBudget))
}

// waits returns RetryWaitMin and RetryWaitMax with their defaults.
func (p *RetryPolicy) waits() (lo, hi time.Duration) {
	lo, hi = p.RetryWaitMin, p.RetryWaitMax
	switch {
	case lo == 0 && hi == 0:
		return retryWaitMin, retryWaitMax
	case lo == 0:
		return min(retryWaitMin, hi), hi
	case hi == 0:
		return lo, max(retryWaitMax, lo)
	}
	return lo, hi
}
