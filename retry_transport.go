// When a request is sent again, and how long to wait. How its body is read
// again is internal/replay's; what a refused token means is auth_transport.go's.

package requestforge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/requestforge/requestforge/internal/retryafter"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// RetryPolicy says which requests are sent again, how often, and after how
// long a wait. Its fields are those of go-retryablehttp's Client: its
// CheckRetry and Backoff values assign as they are.
//
// The zero value sends nothing again. A RetryPolicy must not be changed while
// it is in use; its functions may be called by several goroutines at once.
type RetryPolicy struct {
	// RetryMax is how often a request is sent again at most. Zero means
	// never, and then no other field has any effect. NewTransport refuses
	// a negative number; a RetryTransport takes it for zero.
	RetryMax int

	// RetryWaitMin is the shortest wait of the default Backoff. Zero means
	// 1 s, or RetryWaitMax if that is less; negative is an error.
	RetryWaitMin time.Duration

	// RetryWaitMax is the longest wait of the default Backoff, and the
	// longest that a server may ask for: a response whose Retry-After is
	// longer goes back to the caller at once. Zero means 30 s, or
	// RetryWaitMin if that is more; negative, or less than RetryWaitMin,
	// is an error.
	RetryWaitMax time.Duration

	// CheckRetry says whether the outcome of a send is worth another one.
	// Nil means DefaultCheckRetry. It is asked only when there may be
	// another send: RetryMax isn't used up, the context and Cancel of the
	// request are not over, its body can be had again, and its method is
	// safe to repeat (see RetryNonIdempotent). An error that it returns is
	// ignored: the caller gets the outcome of the last send, as it is.
	// It must not close the response's body.
	CheckRetry func(ctx context.Context, resp *http.Response, err error) (bool, error)

	// Backoff returns the wait before the next send, given RetryWaitMin
	// and RetryWaitMax, the number of the send that failed, from 0, and its
	// response, nil if there was an error. A negative wait means that the
	// request isn't sent again. Its result is not held to RetryWaitMax.
	// A Retry-After in the response comes first: then Backoff isn't asked.
	//
	// Nil means exponential with jitter: after the n-th send the wait lies
	// between RetryWaitMin·2ⁿ and twice that, but from RetryWaitMax on
	// between half of it and all of it.
	Backoff func(min, max time.Duration, attempt int, resp *http.Response) time.Duration

	// AttemptTimeout bounds each send, from its beginning to its response
	// header; reading the body may take any time. What the layers below do
	// for it, such as fetching a token, counts. A send that takes longer
	// ends with an error whose Timeout method returns true, and is retried
	// like any other error. Zero means no bound; negative is an error.
	AttemptTimeout time.Duration

	// RetryNonIdempotent makes any request be sent again whose outcome
	// CheckRetry finds worth it, even though the server may then have
	// done its work twice.
	//
	// Otherwise a request must be idempotent: by its method (GET, HEAD,
	// OPTIONS, TRACE, PUT, DELETE), or by an Idempotency-Key or
	// X-Idempotency-Key header, as http.Transport has it. Only a 429, or a
	// 503 with Retry-After, says that the server did nothing, and is
	// retried with any method.
	RetryNonIdempotent bool

	// MaxReplayBody bounds, in bytes, how much is kept of a request body
	// that has no GetBody. A request with a longer one is not sent again.
	// Zero means 64 KiB. Negative means that nothing is kept, so that only a
	// request is sent again whose body was not read at all.
	MaxReplayBody int64
}

// The defaults of RetryWaitMin and RetryWaitMax.
const (
	retryWaitMin = time.Second
	retryWaitMax = 30 * time.Second
)

// ExponentialBackoff returns the policy that sends a request again up to
// retries times, with waits that start at base, double each time, and end
// at limit; see RetryPolicy.Backoff for their jitter. Zero durations mean the
// defaults of RetryWaitMin and RetryWaitMax.
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

// DefaultCheckRetry is the CheckRetry of a policy that names none:
// retryablehttp.ErrorPropagatedRetryPolicy, which finds 429, any 5xx but 501,
// and most errors worth another send. Unlike that function it is made for the
// errors of an http.RoundTripper, which are not wrapped in a *url.Error, and
// it knows those for a request that can't be sent at all, such as one without
// a URL.
func DefaultCheckRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if err == nil {
		return retryablehttp.ErrorPropagatedRetryPolicy(ctx, resp, nil)
	}
	if malformed(err) {
		return false, err
	}
	// The policy looks for errors without hope only in what http.Client
	// returns. Only the question is wrapped.
	ask, ok := err.(*url.Error)
	if !ok {
		ask = &url.Error{Op: "RoundTrip", Err: err}
	}
	retry, why := retryablehttp.ErrorPropagatedRetryPolicy(ctx, nil, ask)
	if why == ask {
		why = err
	}
	return retry, why
}

// malformed reports whether err is http.Transport's for a request that it
// can't send, and go-retryablehttp doesn't know. They have no type.
func malformed(err error) bool {
	text := err.Error()
	for _, s := range [...]string{
		"http: nil Request.URL",
		"http: nil Request.Header",
		"http: no Host in request URL",
		"net/http: invalid method",
		"net/http: invalid trailer",
	} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// RetryTransport is an http.RoundTripper that sends a request again when that
// is safe and may help. It hands back the outcome of the last send as it is:
// the response, whatever its status and with its body unread, or the error.
//
// A send is followed by another only if Policy allows it, the body can be
// sent again, and the wait ends before the request's context does. The
// context, or Cancel, ending during a wait ends the wait: what the last send
// gave goes back at once, and ctx.Err says the rest. Over http.Transport the
// body of such a response can't be read any more.
//
// Whatever Policy says, these are final: a certificate error, the error of
// http.Transport for a request that its caller canceled, and an error with a
// method RetryVerdict() (bool, time.Duration), as AuthError has it, that
// returns false. One that returns true and a positive duration is treated
// like a Retry-After.
//
// Redirects, cookies and idle connections are left alone, and of a request
// body at most MaxReplayBody bytes are kept. A RetryTransport is safe for
// concurrent use and must not be changed after its first use.
type RetryTransport struct {
	// Base sends the requests. Nil means http.DefaultTransport, looked up
	// at each request.
	Base http.RoundTripper

	// Policy is what to send again. The zero value means nothing. One with
	// a negative duration, or with a RetryWaitMin above its RetryWaitMax,
	// makes each request fail with an error that says so.
	Policy RetryPolicy

	once sync.Once
	base next
	err  error // of Policy
}

// RoundTrip implements http.RoundTripper.
func (t *RetryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(nil, req)
}

// Unwrap returns the transport below.
func (t *RetryTransport) Unwrap() http.RoundTripper { return roundtrip.Base(t.Base) }

// CloseIdleConnections passes the call on to the transport below, for
// http.Client.CloseIdleConnections; nothing else here does it.
func (t *RetryTransport) CloseIdleConnections() { roundtrip.CloseIdle(t.Base) }

func (t *RetryTransport) roundTrip(x *exchange, req *http.Request) (*http.Response, error) {
	t.once.Do(t.prepare)
	if t.Policy.RetryMax <= 0 {
		return t.base.forward(x, req)
	}
	if t.err != nil {
		roundtrip.CloseBody(req)
		return nil, t.err
	}
	own := x == nil
	if own {
		if t.base.layer() == nil && !oneShot(req) {
			// Nothing to keep, nobody to share it with: no allocation.
			return t.send(nil, req)
		}
		x = newExchange(req)
	}
	x.wantKept(keepBound(t.Policy.MaxReplayBody))
	resp, err := t.send(x, req)
	if own {
		x.body().Finish()
	}
	return resp, err
}

// prepare looks at the fields, once.
func (t *RetryTransport) prepare() {
	t.base = nextOf(t.Base)
	t.err = t.Policy.check()
}

// send sends req until the policy has enough.
func (t *RetryTransport) send(x *exchange, req *http.Request) (*http.Response, error) {
	resp, err := t.attempt(x, req, req)
	if err == nil && resp != nil && resp.StatusCode/100 == 2 && t.Policy.CheckRetry == nil {
		return resp, nil // as DefaultCheckRetry would say, at once
	}
	return t.resend(x, req, resp, err)
}

// resend sends req again, after a send that gave resp or err, until the policy
// has enough.
func (t *RetryTransport) resend(x *exchange, req *http.Request, resp *http.Response, err error) (*http.Response, error) {
	ctx := req.Context()
	run := retryRun{RetryPolicy: &t.Policy}
	for ; ; run.sent++ {
		if resp == nil && err == nil {
			return nil, nil // http.Client has words for that
		}
		wait, ok := run.next(x, req, resp, err)
		if !ok || !roundtrip.Sleep(req, wait) {
			return resp, err
		}
		if t.base.layer() == nil && sendCountFrom(ctx) == nil {
			// An auth layer further below must know that this isn't
			// the first send: it replays on that one only.
			var count *sendCount
			if x != nil {
				count = &x.sendCount
			} else {
				count = &sendCount{begun: true}
			}
			ctx = withSendCount(ctx, count)
		}
		out, ok := again(ctx, x, req)
		if !ok {
			return resp, err
		}
		if resp != nil {
			roundtrip.Discard(resp)
		}
		resp, err = t.attempt(x, req, out)
	}
}

// attempt sends out, which stands for req, once, and counts it.
func (t *RetryTransport) attempt(x *exchange, req, out *http.Request) (resp *http.Response, err error) {
	if x != nil {
		x.sent()
	} else if up := sendCountFrom(out.Context()); up != nil {
		up.sends.Add(1)
	}
	if d := t.Policy.AttemptTimeout; d > 0 {
		resp, err = forwardWithin(d, &t.base, x, out)
	} else {
		resp, err = t.base.forward(x, out)
	}
	if resp == nil {
		return nil, err
	}
	if err != nil {
		// Never both, not even over a base that does so.
		if resp.Body != nil {
			resp.Body.Close()
		}
		return nil, err
	}
	if resp.Request != req {
		resp.Request = req // the caller's view of it
	}
	return resp, nil
}

// again returns a copy of req to send once more, with ctx and with its body
// from the first byte, or false if that can't be had.
func again(ctx context.Context, x *exchange, req *http.Request) (*http.Request, bool) {
	var ok bool
	out := req.WithContext(ctx)
	out.Body, ok = x.again(req)
	return out, ok
}

// retryRun is one request on its way through a policy.
type retryRun struct {
	*RetryPolicy
	sent int                         // sends that were followed by another
	pace *backoff.ExponentialBackOff // the default Backoff, made when first asked
}

// next decides what follows the send that gave resp or err: another one after
// a wait, or none.
func (r *retryRun) next(x *exchange, req *http.Request, resp *http.Response, err error) (wait time.Duration, ok bool) {
	if r.sent >= r.RetryMax || roundtrip.Over(req) || x.lost(req) {
		return 0, false
	}
	if !r.RetryNonIdempotent && !idempotent(req) && !undone(resp) {
		return 0, false
	}
	if err != nil && final(err) {
		return 0, false
	}
	check := r.CheckRetry
	if check == nil {
		check = DefaultCheckRetry
	}
	if again, _ := check(req.Context(), resp, err); !again {
		return 0, false
	}
	return r.wait(resp, err)
}

// wait returns the wait before another send, or false if that would be too long.
func (r *retryRun) wait(resp *http.Response, err error) (time.Duration, bool) {
	lo, hi := r.waits()
	if wait, ok := asked(resp, err); ok {
		return wait, wait <= hi
	}
	if r.Backoff != nil {
		wait := r.Backoff(lo, hi, r.sent, resp)
		return wait, wait >= 0
	}
	if r.pace == nil {
		r.pace = newPace(lo, hi)
	}
	return min(max(r.pace.NextBackOff(), lo), hi), true
}

// newPace returns the default backoff. Its intervals are the middles of the
// ranges that RetryPolicy.Backoff promises, and its jitter, a third of the
// middle either way, gives the whole ranges.
func newPace(lo, hi time.Duration) *backoff.ExponentialBackOff {
	first, last := hi-hi/4, hi-hi/4
	if lo < hi/2 {
		first = lo + lo/2
	}
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(first),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(1.0/3),
		backoff.WithMaxInterval(last),
		backoff.WithMaxElapsedTime(0),
	)
}

// idempotent reports whether sending req twice does no more than sending it
// once, by the same signs as http.Transport; RFC 9110 adds PUT and DELETE.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case "", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	_, key := req.Header["Idempotency-Key"]
	_, xkey := req.Header["X-Idempotency-Key"]
	return key || xkey
}

// undone reports whether resp says that the server did nothing, and is ready
// to see the request again.
func undone(resp *http.Response) bool {
	if resp == nil {
		return false
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return true
	case http.StatusServiceUnavailable:
		_, ok := retryafter.Parse(resp.Header, time.Now())
		return ok
	}
	return false
}

// judge is an error that knows whether another send may help, and how long
// until then; 0 if it doesn't know.
type judge interface {
	error
	RetryVerdict() (retry bool, after time.Duration)
}

// final reports whether there must not be another send after err.
func final(err error) bool {
	if j, ok := errors.AsType[judge](err); ok {
		if retry, _ := j.RetryVerdict(); !retry {
			return true
		}
	}
	return certificateError(err) || canceled(err)
}

// canceled reports whether err says that the caller took the request back,
// also where neither its context nor its Cancel shows that: after the deprecated
// CancelRequest of http.Transport. The error has no type.
func canceled(err error) bool {
	return strings.Contains(err.Error(), "net/http: request canceled")
}

// asked returns the wait that the server, or the layer below, asks for.
func asked(resp *http.Response, err error) (time.Duration, bool) {
	if err == nil {
		return retryafter.Parse(resp.Header, time.Now())
	}
	if j, ok := errors.AsType[judge](err); ok {
		_, after := j.RetryVerdict()
		return after, after > 0
	}
	return 0, false
}

// certificateError reports whether err says that the server isn't who it
// should be.
func certificateError(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok
}

// attemptTimeout is the error of a send that took longer than AttemptTimeout.
type attemptTimeout struct{ limit time.Duration }

func (e *attemptTimeout) Error() string {
	return fmt.Sprintf("requestforge: no response within AttemptTimeout, %v", e.limit)
}

// Timeout and Temporary make it a net.Error, as the timeouts of net/http are.
func (*attemptTimeout) Timeout() bool   { return true }
func (*attemptTimeout) Temporary() bool { return true }

// Is says so to errors.Is, too.
func (*attemptTimeout) Is(err error) bool { return err == context.DeadlineExceeded }

// forwardWithin is forward with d as the time for the response header.
func forwardWithin(d time.Duration, base *next, x *exchange, req *http.Request) (*http.Response, error) {
	// Not a context with a timeout: that would go on to bound the body.
	ctx, cancel := context.WithCancelCause(req.Context())
	expired := &attemptTimeout{d}
	timer := time.AfterFunc(d, func() { cancel(expired) })

	resp, err := base.forward(x, req.WithContext(ctx))

	if !timer.Stop() {
		cancel(expired) // the timer's own call of it may be yet to come
	}
	switch {
	case context.Cause(ctx) == expired: // the caller's context didn't end before
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
		return nil, expired
	case err != nil || resp == nil:
		cancel(nil)
	default:
		holdUntilRead(resp, cancel)
	}
	return resp, err
}

// holdUntilRead keeps a send's context alive until its response's body is
// read or closed.
func holdUntilRead(resp *http.Response, cancel context.CancelCauseFunc) {
	switch conn, ok := resp.Body.(io.ReadWriteCloser); {
	case resp.Body == nil || resp.Body == http.NoBody:
		cancel(nil)
	case ok:
		resp.Body = heldConn{conn, cancel}
	default:
		resp.Body = heldBody{resp.Body, cancel}
	}
}

// heldBody is the body of a response.
type heldBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.cancel(nil)
	}
	return n, err
}

func (b heldBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// heldConn is the body of a 101 response, a connection that is the caller's
// now. It doesn't end when its peer is through with writing.
type heldConn struct {
	io.ReadWriteCloser
	cancel context.CancelCauseFunc
}

func (c heldConn) Close() error {
	err := c.ReadWriteCloser.Close()
	c.cancel(nil)
	return err
}

// CloseWrite is what net/http's own body of a 101 response has besides.
func (c heldConn) CloseWrite() error {
	if cw, ok := c.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return fmt.Errorf("requestforge: CloseWrite: %w", http.ErrNotSupported)
}
