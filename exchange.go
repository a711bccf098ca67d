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
type exchange struct {
	tally

	// out is the first copy of the request that is sent, here so that
	// it needs no allocation of its own. Replays use fresh ones: the
	// transport may still be reading this one after an early answer.
	out http.Request

	// body keeps the caller's body if it can't be had again through
	// GetBody; unused (see replay.Body.Used) until a layer begins it.
	body replay.Body

	// keep is how much of the body a layer above wants kept, in bytes.
	// 0: no layer above sends again; negative: keep nothing, see
	// replay.Body.Begin for what that still allows.
	keep int64

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

// layer is a RoundTripper of ours: one that takes the exchange of the layer
// above instead of beginning its own. x may be nil.
type layer interface {
	roundTrip(x *exchange, req *http.Request) (*http.Response, error)
}

// add counts what o has counted.
func (t *tally) add(o *tally) {
	t.attempts.Add(o.attempts.Load())
	t.replays.Add(o.replays.Load())
}

// begin returns what to send for req so that its body can be sent again: x.out
// with x.body begun, or req itself if there is GetBody, no body, or a body
// that is begun already.
func (x *exchange) begin(req *http.Request, limit int64) *http.Request {
	if !oneShot(req) || x.body.Used() {
		return req
	}
	x.out = *req
	x.out.Body = x.body.Begin(req.Body, limit)
	return &x.out
}

// oneShot reports whether req has a body that net/http can't send again.
func oneShot(req *http.Request) bool {
	return req.Body != nil && req.Body != http.NoBody && req.GetBody == nil
}

// keepBound is the bound that a MaxReplayBody field means.
func keepBound(n int64) int64 {
	if n == 0 {
		return 64 << 10
	}
	return n
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

// forward sends req to base, with x if base is a layer of ours. Where our
// layers end, it begins a body that one of them wants kept and none has begun.
func forward(base http.RoundTripper, x *exchange, req *http.Request) (*http.Response, error) {
	if l, ok := base.(layer); ok {
		return l.roundTrip(x, req)
	}
	if x != nil && x.keep != 0 {
		req = x.begin(req, x.keep)
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
