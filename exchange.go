// One caller's request on its way through our own layers: what they share
// without a word in the request itself. Replaying a body lives in
// internal/replay.

package requestforge

import (
	"context"
	"net/http"
	"sync/atomic"

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

type tallyKey struct{}

// withTally lets the layers below a foreign RoundTripper count into t.
func withTally(ctx context.Context, t *tally) context.Context {
	return context.WithValue(ctx, tallyKey{}, t)
}

func tallyFrom(ctx context.Context) *tally {
	t, _ := ctx.Value(tallyKey{}).(*tally)
	return t
}

// forward sends req to base, with x if base is a layer of ours.
func forward(base http.RoundTripper, x *exchange, req *http.Request) (*http.Response, error) {
	if l, ok := base.(layer); ok {
		return l.roundTrip(x, req)
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
