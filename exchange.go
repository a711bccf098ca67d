// One caller's request on its way through our own layers: what they share
// without a word in the request itself. Replaying a body lives in
// internal/replay.

package requestforge

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/replay"
)

// exchange is one RoundTrip of the caller as our layers see it together. The
// outermost layer that needs one allocates it and hands it to the layer
// below by a direct call (see layer); a layer that sits above a foreign
// RoundTripper puts its tally into the context instead, but only where the
// layers below must know it.
//
// It exists for three promises: the sends of all layers together stay within
// one budget, one body is kept once however many layers may send it again,
// and the log record can say what happened below, all of it in the one
// allocation that copying the request costs anyway.
//
// Every request pays for its size: what most don't need is in more.
type exchange struct {
	tally

	// out is the first copy of the request that is sent, here so that
	// it needs no allocation of its own (see request).
	out http.Request

	*more // nil: none of it is needed
}

// more is what an exchange needs only for some requests.
type more struct {
	// up is the tally of a layer above a foreign RoundTripper, or nil.
	up *tally

	// kept keeps the caller's body if it can't be had again through
	// GetBody; unused (see replay.Body.Used) until a layer begins it. Nil
	// for a request that has no such body.
	kept *replay.Body

	// bound is how much of such a body a layer above wants kept, in bytes.
	// 0: no layer above sends again; negative: keep nothing.
	bound int64

	// schedule is asked after each refusal, nil until the first one. It
	// belongs to the caller's request, not to one attempt of the retry
	// layer, which is what keeps the send budget additive.
	schedule Schedule
}

// tally counts what one exchange did. The fields are atomic because a
// foreign layer between ours may run several sends at once.
type tally struct {
	attempts atomic.Int32 // sends that the retry layer asked for
	replays  atomic.Int32 // sends after a refusal
}

// newExchange begins one for req at the outermost of the layers that share it.
func newExchange(req *http.Request) *exchange {
	up := tallyFrom(req.Context())
	if up != nil || oneShot(req) {
		return newLargeExchange(req, up)
	}
	return new(exchange)
}

// newLargeExchange begins one with the rest of it.
func newLargeExchange(req *http.Request, up *tally) *exchange {
	if !oneShot(req) {
		return &exchange{more: &more{up: up}}
	}
	all := new(struct {
		exchange
		rest more
		body replay.Body
	})
	all.rest = more{up: up, kept: &all.body}
	all.exchange.more = &all.rest
	return &all.exchange
}

// above is the tally of a layer above a foreign RoundTripper, or nil.
func (x *exchange) above() *tally {
	if x.more == nil {
		return nil
	}
	return x.up
}

// body is where the caller's body is kept, nil if it needn't be. x may be nil.
func (x *exchange) body() *replay.Body {
	if x == nil || x.more == nil {
		return nil
	}
	return x.kept
}

// keep is how much of the body a layer above wants kept, see more.bound.
func (x *exchange) keep() int64 {
	if x.more == nil {
		return 0
	}
	return x.bound
}

// wantKept says how much of the body a layer wants kept, unless one above it
// has already.
func (x *exchange) wantKept(n int64) {
	if x.more != nil && x.bound == 0 {
		x.bound = n
	}
}

// nextReplay is how long to wait before the next replay, by the schedule that
// begin makes for the first one; negative: no more.
func (x *exchange) nextReplay(begin AuthRetryStrategy) time.Duration {
	if x.more == nil {
		x.more = new(more)
	}
	if x.schedule == nil {
		if x.schedule = begin(); x.schedule == nil {
			return -1
		}
	}
	return x.schedule.NextBackOff()
}

// sent counts a send of the retry layer.
func (x *exchange) sent() {
	x.attempts.Add(1)
	if up := x.above(); up != nil {
		up.attempts.Add(1)
	}
}

// replayed counts a send after a refusal.
func (x *exchange) replayed() {
	x.replays.Add(1)
	if up := x.above(); up != nil {
		up.replays.Add(1)
	}
}

// retrying reports whether a retry layer above a foreign RoundTripper sends
// for the second time or later.
func (x *exchange) retrying() bool {
	up := x.above()
	return up != nil && up.attempts.Load() > 1
}

// request returns a shallow copy of req: the first time x's own, then fresh
// ones, because after an early answer the transport may still be reading the
// one before. What is sent has a header or a body, whatever req has: by that
// the copy is known to be in use.
func (x *exchange) request(req *http.Request) *http.Request {
	out := &x.out
	if out.Header != nil || out.Body != nil {
		out = new(http.Request)
	}
	*out = *req
	return out
}

// oneShot reports whether req has a body that can't be had again.
func oneShot(req *http.Request) bool {
	return req.Body != nil && req.Body != http.NoBody && req.GetBody == nil
}

// begin returns the body for the first send of req. One that can't be had
// again is kept as it streams past, up to keep bytes; a body with GetBody goes
// out as it is, so that net/http still knows it, and so does every body if
// keep is negative.
func (x *exchange) begin(req *http.Request, keep int64) io.ReadCloser {
	kept := x.body()
	if keep < 0 || kept == nil || kept.Used() || !oneShot(req) {
		return req.Body
	}
	return kept.Begin(req.Body, keep)
}

// keepBound is the bound that a MaxReplayBody field means.
func keepBound(n int64) int64 {
	if n == 0 {
		return 64 << 10
	}
	return n
}

// lost reports whether req's body can't be had again whatever is tried, so that
// a wait before would be in vain. x may be nil.
func (x *exchange) lost(req *http.Request) bool {
	return oneShot(req) && (x == nil || x.body().Lost())
}

// again returns a body for one more send of req, or false if there is none. x
// may be nil.
func (x *exchange) again(req *http.Request) (io.ReadCloser, bool) {
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return req.Body, true
	case x.body().Used():
		return x.body().Again()
	case req.GetBody != nil:
		body, err := req.GetBody()
		return body, err == nil
	}
	return nil, false
}

// layer is a RoundTripper of ours: one that takes the exchange of the layer
// above instead of beginning its own. x may be nil.
type layer interface {
	roundTrip(x *exchange, req *http.Request) (*http.Response, error)
}

type tallyKey struct{}

// withTally lets the layers below a foreign RoundTripper count into t.
func withTally(ctx context.Context, t *tally) context.Context {
	return context.WithValue(ctx, tallyKey{}, t)
}

func tallyFrom(ctx context.Context) *tally {
	t, _ := ctx.Value(tallyKey{}).(*tally)
	return t
}

// below is the transport under a layer, looked at once instead of at each
// request. The zero value is http.DefaultTransport.
type below struct {
	base http.RoundTripper // nil: see baseOr
	ours layer             // base, if it is a layer of ours
}

func under(base http.RoundTripper) below {
	ours, _ := base.(layer)
	return below{base, ours}
}

// layer is the layer below, or nil if that is none of ours.
func (b *below) layer() layer {
	if b.base != nil {
		return b.ours
	}
	ours, _ := http.DefaultTransport.(layer)
	return ours
}

// forward sends req on, with x if it goes to a layer of ours.
func (b *below) forward(x *exchange, req *http.Request) (*http.Response, error) {
	if ours := b.layer(); ours != nil {
		return ours.roundTrip(x, req)
	}
	return leave(baseOr(b.base), x, req)
}

// leave sends req to base, where our layers end. It begins a body that one of
// them wants kept and none has begun.
func leave(base http.RoundTripper, x *exchange, req *http.Request) (*http.Response, error) {
	if kept := x.body(); kept != nil && x.keep() > 0 && !kept.Used() && oneShot(req) {
		out := x.request(req)
		out.Body = x.begin(req, x.keep())
		req = out
	}
	return base.RoundTrip(req)
}

// baseOr is the transport below a layer: http.DefaultTransport if none is
// set, looked up at each request so that a program that swaps it is heard.
func baseOr(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		return http.DefaultTransport
	}
	return base
}

// closeIdle passes CloseIdleConnections on, as http.Client does.
func closeIdle(base http.RoundTripper) {
	if c, ok := base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// closeBody closes the body of a request that is not going to be sent.
func closeBody(req *http.Request) {
	if req != nil && req.Body != nil {
		req.Body.Close()
	}
}

// discard drains and closes the body of a response that nobody is going to
// see, so that its connection can serve again. A long or slow body isn't
// worth that: a new connection costs less.
func discard(resp *http.Response) {
	const (
		most    = 64 << 10 // bytes
		longest = time.Second
	)
	if resp.Body == nil {
		return
	}
	if resp.ContentLength <= most {
		late := time.AfterFunc(longest, func() { resp.Body.Close() })
		io.CopyN(io.Discard, resp.Body, most)
		late.Stop()
	}
	resp.Body.Close()
}

// cancelOf is req.Cancel. It is deprecated for callers, but http.Client sets it
// for its Timeout, and net/http's own transports honour it.
func cancelOf(req *http.Request) <-chan struct{} {
	//lint:ignore SA1019 see above
	return req.Cancel
}

// over reports whether the caller has given the request up.
func over(req *http.Request) bool {
	select {
	case <-cancelOf(req):
		return true
	default:
		return req.Context().Err() != nil
	}
}

// sleep waits, and reports whether the caller is still interested then. A
// wait that would outlast the caller's context isn't begun.
func sleep(req *http.Request, wait time.Duration) bool {
	if wait > 0 {
		ctx := req.Context()
		if end, ok := ctx.Deadline(); ok && time.Until(end) <= wait {
			return false
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-cancelOf(req):
		}
	}
	return !over(req)
}
