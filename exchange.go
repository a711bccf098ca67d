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
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// exchange is one RoundTrip of the caller as our layers see it together. The
// outermost layer that needs one allocates it and hands it to the layer
// below by a direct call (see layer); a layer that sits above a foreign
// RoundTripper puts its sendCount into the context instead, but only where the
// layers below must know it.
//
// It exists for three promises: the sends of all layers together stay within
// one budget, one body is kept once however many layers may send it again,
// and the log record can say what happened below, all of it in the one
// allocation that copying the request costs anyway.
//
// Every request pays for its size: what most don't need is in rare.
type exchange struct {
	sendCount

	// out is the first copy of the request that is sent, here so that
	// it needs no allocation of its own (see request).
	out http.Request

	*rare // nil: none of it is needed
}

// rare is what an exchange needs only for some requests.
type rare struct {
	// up is the sendCount of a layer above a foreign RoundTripper, or nil.
	up *sendCount

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

// sendCount counts what one exchange did. Most fields are atomic because a
// foreign layer between ours may run several sends at once.
type sendCount struct {
	// begun is set for the first send of the retry layer that has the exchange
	// in hand, before any layer below can read it. An atomic write would wait
	// for all that was written before to reach the cache, the exchange itself
	// first of all, and double what the retry layer costs.
	begun bool

	sends   atomic.Int32 // that retry layers asked for, without the one that begun stands for
	replays atomic.Int32 // sends after a refusal
}

// attempts is how many sends the retry layers asked for.
func (c *sendCount) attempts() int32 {
	n := c.sends.Load()
	if c.begun {
		n++
	}
	return n
}

// newExchange begins one for req at the outermost of the layers that share it.
func newExchange(req *http.Request) *exchange {
	up := sendCountFrom(req.Context())
	if up != nil || oneShot(req) {
		return newLargeExchange(req, up)
	}
	return new(exchange)
}

// newLargeExchange begins one with the rest of it.
func newLargeExchange(req *http.Request, up *sendCount) *exchange {
	if !oneShot(req) {
		return &exchange{rare: &rare{up: up}}
	}
	all := new(struct {
		exchange
		rest rare
		body replay.Body
	})
	all.rest = rare{up: up, kept: &all.body}
	all.exchange.rare = &all.rest
	return &all.exchange
}

// above is the sendCount of a layer above a foreign RoundTripper, or nil.
func (x *exchange) above() *sendCount {
	if x.rare == nil {
		return nil
	}
	return x.up
}

// body is where the caller's body is kept, nil if it needn't be. x may be nil.
func (x *exchange) body() *replay.Body {
	if x == nil || x.rare == nil {
		return nil
	}
	return x.kept
}

// keep is how much of the body a layer above wants kept, see rare.bound.
func (x *exchange) keep() int64 {
	if x.rare == nil {
		return 0
	}
	return x.bound
}

// wantKept says how much of the body a layer wants kept, unless one above it
// has already.
func (x *exchange) wantKept(n int64) {
	if x.rare != nil && x.bound == 0 {
		x.bound = n
	}
}

// nextReplay is how long to wait before the next replay, by the schedule that
// begin makes for the first one; negative: no more.
func (x *exchange) nextReplay(begin AuthRetryStrategy) time.Duration {
	if x.rare == nil {
		x.rare = new(rare)
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
	if !x.begun {
		x.begun = true
	} else {
		x.sends.Add(1)
	}
	if up := x.above(); up != nil {
		up.sends.Add(1)
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
	return up != nil && up.attempts() > 1
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

type sendCountKey struct{}

// withSendCount lets the layers below a foreign RoundTripper count into t.
func withSendCount(ctx context.Context, t *sendCount) context.Context {
	return context.WithValue(ctx, sendCountKey{}, t)
}

func sendCountFrom(ctx context.Context) *sendCount {
	t, _ := ctx.Value(sendCountKey{}).(*sendCount)
	return t
}

// next is the transport below a layer, looked at once instead of at each
// request. The zero value is http.DefaultTransport.
type next struct {
	base http.RoundTripper // nil: http.DefaultTransport, looked up at each request
	ours layer             // base, if it is a layer of ours
}

func nextOf(base http.RoundTripper) next {
	ours, _ := base.(layer)
	return next{base, ours}
}

// layer is the layer below, or nil if that is none of ours.
func (n *next) layer() layer {
	if n.base != nil {
		return n.ours
	}
	ours, _ := http.DefaultTransport.(layer)
	return ours
}

// forward sends req on, with x if it goes to a layer of ours.
func (n *next) forward(x *exchange, req *http.Request) (*http.Response, error) {
	if ours := n.layer(); ours != nil {
		return ours.roundTrip(x, req)
	}
	return leave(roundtrip.Base(n.base), x, req)
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
