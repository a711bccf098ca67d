// The layer that sends a request again. retry_outcome.go judges outcomes, internal/replay
// reads bodies again, and auth_transport.go deals with refused tokens.

package requestforge

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/requestforge/requestforge/internal/deadconn"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/retryafter"
	"github.com/requestforge/requestforge/internal/retrybudget"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// RetryTransport is an http.RoundTripper that sends a request again if sending again is
// safe and may help. It returns the outcome of the last send unchanged: the response,
// whatever its status and with its body unread, or the error.
//
// Another send needs the permission of Policy, a body that can be sent again, and a wait
// that ends before the request's context. While a request waits, its last response holds no
// connection: up to 64 KiB of the body are read into memory. If the context ends during a
// wait, the error is the context's cause.
//
// Final, whatever Policy says, are a certificate error, TLS spoken to a server without TLS,
// a TLS alert, a request that can't be sent unchanged (wrong ContentLength, malformed
// header or URL), the error of http.Transport for a request canceled by its caller, and an
// error whose method RetryVerdict() (bool, time.Duration), like AuthError's, returns false.
// A RetryVerdict of true with a positive duration counts as a Retry-After.
//
// A layer above that sends a request several times, like an AuthTransport after a refusal,
// gets RetryMax retries for all sends together; below a foreign RoundTripper, only the
// first send gets retries.
//
// Redirects, cookies and idle connections are left alone, and at most MaxReplayBody bytes
// of a request body are kept. A RetryTransport is safe for concurrent use and must not be
// changed after its first use.
type RetryTransport struct {
	// Base sends the requests. Nil means http.DefaultTransport, looked up
	// at each request.
	Base http.RoundTripper

	// Policy decides what to send again. The zero value sends nothing again. With a
	// negative duration, or a RetryWaitMin above RetryWaitMax, each request fails with an
	// error that says so.
	Policy RetryPolicy

	once   sync.Once
	base   next
	budget *retrybudget.Budget
	err    error // of Policy
}

// RoundTrip implements http.RoundTripper.
func (t *RetryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(nil, req)
}

// Unwrap returns the transport below.
func (t *RetryTransport) Unwrap() http.RoundTripper { return below(t.Base) }

// WrappedRoundTripper is Unwrap under the name for k8s.io/client-go.
func (t *RetryTransport) WrappedRoundTripper() http.RoundTripper { return t.Unwrap() }

func (t *RetryTransport) lower() http.RoundTripper { return t.Base }

// CloseIdleConnections closes the idle connections of the transport below, for
// http.Client.CloseIdleConnections.
func (t *RetryTransport) CloseIdleConnections() { closeIdle(t.Base) }

func (t *RetryTransport) roundTrip(x *exchange, req *http.Request) (*http.Response, error) {
	t.once.Do(t.prepare)
	if t.Policy.passive() {
		return t.base.forward(x, req)
	}
	if t.err != nil {
		roundtrip.CloseBody(req)
		return nil, t.err
	}
	t.budget.Request()
	own := x == nil
	if own && (t.base.layer() != nil || oneShot(req)) {
		x = newExchange(req) // else there is nothing to keep or share
	}
	if x != nil && x.rare == nil && t.Policy.AttemptTimeout <= 0 {
		return t.plain(x, req)
	}
	if own {
		defer finish(x)
	}
	if x != nil && t.Policy.RetryMax > 0 {
		x.wantKept(keepBound(t.Policy.MaxReplayBody))
	}
	// Asked before the layers below can have replayed anything.
	once := t.Policy.RetryMax <= 0 || x.replayedAbove(req)
	resp, err := t.attempt(x, req, req)
	if once || t.enough(resp, err) {
		return resp, err
	}
	return t.resend(x, req, resp, err)
}

// plain sends req where there is nothing to keep, to count or to bound.
func (t *RetryTransport) plain(x *exchange, req *http.Request) (*http.Response, error) {
	resp, err := t.base.forward(x, req)
	if !t.enough(resp, err) {
		resp, err = restored(x, req, resp, err)
		return t.resend(x, req, resp, err)
	}
	if seen := x.seen(req, resp.Request); resp.Request != seen {
		resp.Request = seen
	}
	return resp, nil
}

// finish declares the last send done, whatever has ended the request.
func finish(x *exchange) { x.body().Finish() }

// prepare looks at the fields, once.
func (t *RetryTransport) prepare() {
	t.base = nextOf(t.Base)
	policy := t.Policy
	policy.RetryMax = max(0, policy.RetryMax)
	t.err = policy.check()
	t.budget = policy.budget()
}

// enough reports whether the policy has enough, as DefaultCheckRetry would say
// at once.
func (t *RetryTransport) enough(resp *http.Response, err error) bool {
	return err == nil && resp != nil && resp.StatusCode/100 == 2 && t.Policy.CheckRetry == nil && t.Policy.Undone == nil
}

// resend sends req again, after a send with the outcome resp or err, until the policy has
// enough.
func (t *RetryTransport) resend(x *exchange, req *http.Request, resp *http.Response, err error) (*http.Response, error) {
	if x == nil {
		x = newExchange(req)
	}
	x.rest().begun = true
	for run := t.run(x); resp != nil || err != nil; run.sent++ { // for neither, http.Client has words
		wait, ok := run.next(x, req, resp, err)
		if !ok || !roundtrip.TimeFor(req, wait) || !t.budget.Take(time.Now()) {
			return resp, err
		}
		if cause := hold(req, resp, wait); cause != nil {
			return nil, cause
		}
		out, ok := t.again(x, req, resp, err)
		if !ok {
			return resp, err
		}
		if resp != nil {
			roundtrip.Discard(resp)
		}
		resp, err = t.attempt(x, req, out)
	}
	return nil, nil
}

// run returns the progress of x through the policy.
func (t *RetryTransport) run(x *exchange) *retryRun {
	st := x.of(t)
	run, _ := st.state.(*retryRun)
	if run == nil {
		run = &retryRun{RetryPolicy: &t.Policy}
		st.state = run
	}
	return run
}

// hold waits. Meanwhile resp, which may be nil, holds no connection; releasing the
// connection is part of the wait, which is known to end in time. If the wait is cut short,
// resp is dropped.
func hold(req *http.Request, resp *http.Response, wait time.Duration) (cause error) {
	if resp != nil && wait > 0 {
		begun := time.Now()
		roundtrip.Release(req, resp)
		wait -= time.Since(begun)
	}
	if cause = roundtrip.Sleep(req, wait); cause != nil && resp != nil {
		roundtrip.Discard(resp)
	}
	return cause
}

// again returns a copy of req for another send, after a send with the outcome resp or err,
// with its body from the first byte; or false without the body. A GetBody that doesn't
// return leaves resp closed.
func (t *RetryTransport) again(x *exchange, req *http.Request, resp *http.Response, err error) (out *http.Request, ok bool) {
	if _, ok := errors.AsType[*AuthError](err); ok {
		x.unsent()
	}
	out = x.resent(req, &t.base)
	if _, ok := err.(*attemptTimeout); ok {
		// Not over the same connection, which may be dead.
		out = out.WithContext(deadconn.Leave(out.Context()))
		out.Close = true
	}
	roundtrip.Guard(&resp, func() { ok = x.rewind(out, req) })
	return out, ok
}

// attempt sends out, which stands for req, once, and counts the send.
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
	return restored(x, req, resp, err)
}

// restored gives resp the caller's view of its request. Exactly one of the results is nil,
// even over a base that returns both.
func restored(x *exchange, req *http.Request, resp *http.Response, err error) (*http.Response, error) {
	if err != nil || resp == nil {
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
		return nil, err
	}
	if seen := x.seen(req, resp.Request); resp.Request != seen {
		resp.Request = seen
	}
	return resp, nil
}

// retryRun is the progress of one request through a policy.
type retryRun struct {
	*RetryPolicy
	sent int                         // sends followed by another send
	pace *backoff.ExponentialBackOff // the default Backoff, made when first asked
}

// next decides what follows a send with the outcome resp or err: another send after a wait,
// or no further send.
func (r *retryRun) next(x *exchange, req *http.Request, resp *http.Response, err error) (wait time.Duration, ok bool) {
	if r.sent >= r.RetryMax || roundtrip.Over(req) || x.lost(req) || x.unsendable(req) || err != nil && final(err) {
		return 0, false
	}
	asks := &asking{x.caller, resp, err}
	said := r.Undone != nil && asks.undone(r.Undone)
	if !r.RetryNonIdempotent && !said && !undone(resp, err) && !idempotent(req) {
		return 0, false
	}
	if !asks.worth(r.RetryPolicy, said) {
		return 0, false
	}
	return r.wait(asks)
}

// wait returns the wait before another send, or false if the wait would be too long.
func (r *retryRun) wait(asks *asking) (time.Duration, bool) {
	lo, hi := r.waits()
	if wait, ok := asked(asks.resp, asks.err); ok {
		return spread(asks.req.Context(), max(wait, lo)), wait <= hi
	}
	if r.Backoff != nil {
		wait := asks.backoff(r.Backoff, lo, hi, r.sent)
		return wait, wait >= 0
	}
	if r.pace == nil {
		r.pace = newPace(lo, hi)
	}
	return min(max(r.pace.NextBackOff(), lo), hi), true
}

// An asking is the outcome of a send, for the functions of a policy.
type asking struct {
	req  *http.Request // the caller's
	resp *http.Response
	err  error
}

// show calls f with the response.
func (a *asking) show(f func(resp *http.Response, err error)) {
	if a.err != nil {
		f(nil, a.err)
		return
	}
	below := a.resp.Request
	a.resp.Request = a.req
	defer func() { a.resp.Request = below }()
	roundtrip.Show(a.resp, func(resp *http.Response) { f(resp, nil) })
}

func (a *asking) undone(ask func(*http.Request, *http.Response, error) bool) (yes bool) {
	a.show(func(resp *http.Response, err error) { yes = ask(a.req, resp, err) })
	return yes
}

// worth reports whether another send may help. If the policy's Undone has said that the
// server did nothing, a policy without a CheckRetry needs no further reason.
func (a *asking) worth(p *RetryPolicy, said bool) (yes bool) {
	if p.CheckRetry == nil {
		yes, _ = DefaultCheckRetry(a.req.Context(), a.resp, a.err)
		return yes || said
	}
	a.show(func(resp *http.Response, err error) {
		if _, ok := err.(*url.Error); err != nil && !ok {
			// Policies made for http.Client look for hopeless errors only in a *url.Error.
			err = &url.Error{Op: a.req.Method, URL: redact.URL(a.req.URL), Err: err}
		}
		yes, _ = p.CheckRetry(a.req.Context(), resp, err)
	})
	return yes
}

func (a *asking) backoff(ask func(min, max time.Duration, attempt int, resp *http.Response) time.Duration, lo, hi time.Duration, attempt int) (wait time.Duration) {
	a.show(func(resp *http.Response, _ error) { wait = ask(lo, hi, attempt, resp) })
	return wait
}

// spread is retryafter.Spread, within the time that ctx leaves.
func spread(ctx context.Context, asked time.Duration) time.Duration {
	wait := retryafter.Spread(asked)
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, max(asked, asked+(time.Until(end)-asked)/2))
	}
	return wait
}

// newPace returns the default backoff. Its intervals are the middles of the ranges in
// RetryPolicy.Backoff; a jitter of a third of the middle either way covers the whole
// ranges.
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
