// State that the layers share about one request of the caller, without any change to the
// request. Replaying a body lives in internal/replay.

package requestforge

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/requestforge/requestforge/internal/deadconn"
	"github.com/requestforge/requestforge/internal/replay"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// exchange is one RoundTrip of the caller across all layers of this package. The outermost
// layer that needs an exchange allocates one and passes it to the next layer by a direct
// call (see layer). A layer above a foreign RoundTripper puts its sendCount into the
// context instead, and only if the layers below have to know the count.
//
// An exchange keeps three promises. All layers together stay within one budget of sends. A
// body is kept once, however many layers may send the body again. The log record can say
// what happened below. All three fit in the one allocation that copying the request costs
// anyway.
//
// Every request pays for the size of an exchange: with the fields beside the request, the
// exchange fills the size class after that of a request alone. Fields that few requests
// need are in rare.
type exchange struct {
	// out is the first copy of the request that is sent. The copy is part of the exchange
	// to save an allocation (see request).
	out http.Request

	// value is the value of the token's header in out, also to save an allocation. No other
	// request shares the array, so a transport that writes into a header's values harms out
	// only.
	value [1]string

	// caller is the request as the outermost layer got the request, without any credential
	// of ours. Functions of the program see caller.
	caller *http.Request

	// auth is the outermost layer that has put a token on the request.
	auth layer

	*rare // nil: the request needs no field of rare
}

// rare holds the fields that only some requests need: requests that are logged, refused,
// sent again, or whose body can't be had again.
type rare struct {
	sendCount

	// up is the sendCount of a layer above a foreign RoundTripper, or nil.
	up *sendCount

	// kept keeps the caller's body if the body can't be had again through GetBody. It is
	// unused (see replay.Body.Used) until a layer begins to keep the body, and nil for any
	// other request.
	kept *replay.Body

	// bound is how much of such a body a layer above wants kept, in bytes. 0: no layer
	// above sends again; negative: keep nothing.
	bound int64

	// states are what layers remember of the caller's request. A state spans all attempts
	// of the layers above, which keeps the send budget additive.
	states []*layerState

	// moved is where the last send went; nil if the layers above know that URL.
	moved *movement

	// jarAt is where the last send went, if its token has cookies; else nil.
	jarAt *url.URL

	// tries counts the sends that repeated a token only seconds old. The bound holds for
	// all young tokens of one request together, since servers change their minds.
	tries int

	// note is the auth layer's note for the log; nil if there is no note.
	note *authNote
}

// layerState is the memory of one layer about one request of the caller.
type layerState struct {
	layer layer
	state any // the layer's own; nil: no state yet
}

// newExchange begins an exchange for req at the outermost layer.
func newExchange(req *http.Request) *exchange {
	up := sendCountFrom(req.Context())
	if up != nil || oneShot(req) {
		return newLargeExchange(req, up)
	}
	return &exchange{caller: req}
}

// newLargeExchange begins an exchange with its rare fields, in one allocation.
func newLargeExchange(req *http.Request, up *sendCount) *exchange {
	if !oneShot(req) {
		all := new(struct {
			exchange
			rest rare
		})
		all.rest.up = up
		all.exchange.rare, all.caller = &all.rest, req
		return &all.exchange
	}
	all := new(struct {
		exchange
		rest rare
		body replay.Body
	})
	all.rest.up, all.rest.kept = up, &all.body
	all.exchange.rare, all.caller = &all.rest, req
	return &all.exchange
}

// rest returns the rare fields of x, and allocates them if necessary.
func (x *exchange) rest() *rare {
	if x.rare == nil {
		x.rare = new(rare)
	}
	return x.rare
}

// above is the sendCount of a layer above a foreign RoundTripper, or nil.
func (x *exchange) above() *sendCount {
	if x.rare == nil {
		return nil
	}
	return x.up
}

// tried is rare.tries.
func (x *exchange) tried() int {
	if x.rare == nil {
		return 0
	}
	return x.tries
}

// body is where the caller's body is kept; nil if no layer needs the body. x may be nil.
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

// wantKept says how much of the body a layer wants kept. The first layer decides.
func (x *exchange) wantKept(n int64) {
	if x.rare != nil && x.bound == 0 {
		x.bound = n
	}
}

// move returns a movement by l for the next send.
func (x *exchange) move(l layer) *movement {
	if x.rare == nil {
		all := new(struct {
			rest rare
			m    movement
		})
		x.rare, all.rest.moved = &all.rest, &all.m
	} else {
		x.moved = &movement{up: x.moved}
	}
	x.moved.by = l
	return x.moved
}

// unmoved undoes the moves of the last send by l and the layers below l.
func (x *exchange) unmoved(l layer) {
	for m := x.movement(); m != nil; m = m.up {
		if m.by == l {
			x.moved = m.up
			return
		}
	}
}

// movedBelow takes over a move by a layer of ours below a foreign RoundTripper. back is the
// request of the response.
func (x *exchange) movedBelow(back *http.Request) {
	m := x.movement()
	for m != nil && m.by == nil {
		m = m.up // an earlier send's
		x.moved = m
	}
	if below := movementOf(back); below != nil {
		x.rest().moved = &movement{url: below.url, up: m}
	}
}

// movement is where the last send went; nil if the layers above know that URL.
func (x *exchange) movement() *movement {
	if x.rare == nil {
		return nil
	}
	return x.moved
}

// seen returns the request for a response that goes up to the layers above: req, or a copy
// with the URL that was sent, if the URLs differ. back is the request in the response from
// below. The copy has no query value of ours. x may be nil.
func (x *exchange) seen(req, back *http.Request) *http.Request {
	var m *movement
	if x != nil {
		m = x.movement()
	} else {
		m = movementOf(back)
	}
	if m == nil {
		return req
	}
	return m.seen(req)
}

// of returns the state of a layer.
func (x *exchange) of(l layer) *layerState {
	rest := x.rest()
	for _, state := range rest.states {
		if state.layer == l {
			return state
		}
	}
	state := &layerState{layer: l}
	rest.states = append(rest.states, state)
	return state
}

// note leaves n for the log of req. x may be nil.
func (x *exchange) note(req *http.Request, n *authNote) {
	if x != nil && x.rare == nil {
		return // no layer above writes a log
	}
	var up *sendCount
	var before *authNote
	if x != nil {
		up, before = x.up, x.rare.note
	} else {
		up = sendCountFrom(req.Context())
	}
	if before != nil && before.challenge != "" && n.challenge == "" {
		n = &authNote{n.auth, n.gaveUp, before.challenge}
	}
	if x != nil {
		x.rare.note = n
	}
	if up != nil {
		up.note.Store(n)
	}
}

// noted reports whether a layer above may write what is noted of req. x may be nil.
func (x *exchange) noted(req *http.Request) bool {
	if x == nil {
		return sendCountFrom(req.Context()) != nil
	}
	return x.rare != nil
}

// noteSent notes that the request carries its token. Without a log above, noteSent does
// nothing.
func (x *exchange) noteSent(req *http.Request) {
	if x.rare != nil {
		x.note(req, noteSent)
	}
}

// noteChallenge notes the result of a challenge for the log.
func (x *exchange) noteChallenge(req *http.Request, what string) {
	x.rest()
	x.note(req, &authNote{auth: noteSent.auth, challenge: what})
}

// original is the request as functions of the program may see the request. x may be nil.
func (x *exchange) original(req *http.Request) *http.Request {
	if x == nil {
		return req
	}
	return x.caller
}

// sent counts a send of the retry layer, if a layer above reads the count.
func (x *exchange) sent() {
	if x.rare != nil {
		x.rare.count()
	}
}

func (r *rare) count() {
	if !r.begun {
		r.begun = true
	} else {
		r.sends.Add(1)
	}
	if r.up != nil {
		r.up.sends.Add(1)
	}
}

// replayed counts a send over base after a refusal.
func (x *exchange) replayed(base *next) {
	rest, foreign := x.rest(), base.layer() == nil
	rest.replays.Add(1)
	if foreign {
		rest.again.Store(true)
	}
	if rest.up != nil {
		rest.up.replays.Add(1)
		if foreign {
			rest.up.again.Store(true)
		}
	}
}

// retrying reports whether a retry layer above a foreign RoundTripper sends
// for the second time or later.
func (x *exchange) retrying() bool {
	up := x.above()
	return up != nil && up.attempts() > 1
}

// replayedAbove reports whether a layer above a foreign RoundTripper sends the request
// again. Such a layer can't know what the layers below did for the first send. x may be
// nil.
func (x *exchange) replayedAbove(req *http.Request) bool {
	var up *sendCount
	if x != nil {
		up = x.above()
	} else {
		up = sendCountFrom(req.Context())
	}
	return up != nil && up.again.Load()
}

// resent returns a copy of req for one more send over base. The context names the number of
// the send, and takes the counts of layers below a foreign RoundTripper.
func (x *exchange) resent(req *http.Request, base *next) *http.Request {
	rest, ctx := x.rest(), req.Context()
	before := rest.resends.Add(1)
	if rest.up != nil {
		before = rest.up.resends.Add(1)
	}
	above, _ := ctx.Value(sendNumberKey{}).(int)
	ctx = context.WithValue(ctx, sendNumberKey{}, max(above, int(before))+1)
	if base.layer() == nil && sendCountFrom(ctx) == nil {
		ctx = withSendCount(ctx, &rest.sendCount)
	}
	return req.WithContext(ctx)
}

// unsent takes back the count of a send that never happened for lack of a token.
func (x *exchange) unsent() {
	rest := x.rest()
	rest.resends.Add(-1)
	if rest.up != nil {
		rest.up.resends.Add(-1)
	}
}

// rewind sets the body of out, which stands for req, back to the first byte. It reports
// whether the body can be had.
func (x *exchange) rewind(out, req *http.Request) (ok bool) {
	out.Body, ok = x.again(req)
	if x.body().Used() {
		out.GetBody = x.body().Rewound
	}
	return ok
}

// request returns a shallow copy of req: first the copy in x, then newly allocated copies,
// because after an early answer the transport may still read the copy before. Every copy
// that is sent has a header or a body, so a copy in use is recognized by either.
func (x *exchange) request(req *http.Request) *http.Request {
	out := &x.out
	if out.Header != nil || out.Body != nil {
		out = new(http.Request)
	}
	*out = *req
	return out
}

// values returns a header's values: the array in x for the first request that is sent, a
// new slice for a later request.
func (x *exchange) values(value string) []string {
	if x.value[0] != "" {
		return []string{value}
	}
	x.value[0] = value
	return x.value[:]
}

// oneShot reports whether the body of req can't be had again.
func oneShot(req *http.Request) bool {
	return req.Body != nil && req.Body != http.NoBody && req.GetBody == nil
}

// begin gives out, which stands for req, the body for the first send of req. A body without
// GetBody is kept while streaming, up to keep bytes, and gets a GetBody over the kept
// bytes, since net/http itself repeats requests that never left. A body with GetBody stays
// as received, so that net/http still recognizes its type; so does every body if keep is
// negative.
func (x *exchange) begin(out, req *http.Request, keep int64) {
	kept := x.body()
	if kept == nil || keep < 0 || kept.Used() || !oneShot(req) {
		return
	}
	out.Body, out.GetBody = kept.Begin(req.Body, keep), kept.Rewound
}

// keepBound is the bound in bytes for a MaxReplayBody field.
func keepBound(n int64) int64 {
	if n == 0 {
		return 64 << 10
	}
	return n
}

// lost reports whether req's body can't be had again under any circumstances, so that
// waiting for another send would be in vain. x may be nil.
func (x *exchange) lost(req *http.Request) bool {
	if x.body().Used() {
		return x.body().Lost()
	}
	return oneShot(req)
}

// unsendable reports whether req, which was sent once, can't be sent unchanged. The error
// of net/http may come too late: the closed connection then causes an error that looks like
// an error of the network.
func (x *exchange) unsendable(req *http.Request) bool {
	if req.URL != nil && strings.ContainsFunc(req.URL.RequestURI(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return true
	}
	if req.ContentLength <= 0 {
		return false
	}
	n, whole := x.body().Kept()
	return req.Body == nil || n > req.ContentLength || whole && n < req.ContentLength
}

// again returns a body for one more send of req, or false if the body can't be had. x may
// be nil.
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

// layer is a RoundTripper of ours that takes the exchange of the layer above instead of
// beginning an exchange. x may be nil.
type layer interface {
	roundTrip(x *exchange, req *http.Request) (*http.Response, error)
}

// next is the transport below a layer, looked at once instead of at each
// request. The zero value is http.DefaultTransport.
type next struct {
	base http.RoundTripper // nil: http.DefaultTransport, looked up at each request
	ours layer             // base, if base is a layer of ours
}

func nextOf(base http.RoundTripper) next {
	ours, _ := base.(layer)
	return next{base, ours}
}

// layer is the layer below, or nil if the transport below is foreign.
func (n *next) layer() layer {
	if n.base != nil {
		return n.ours
	}
	ours, _ := http.DefaultTransport.(layer)
	return ours
}

// forward sends req on, together with x if the next transport is a layer of ours.
func (n *next) forward(x *exchange, req *http.Request) (*http.Response, error) {
	if n.ours != nil {
		return n.ours.roundTrip(x, req)
	}
	return n.leave(x, req)
}

// leave sends req to the transport below the last layer of ours, unless
// http.DefaultTransport is a layer of ours. If a layer wants the body kept and no layer has
// begun to keep the body, leave begins.
func (n *next) leave(x *exchange, req *http.Request) (*http.Response, error) {
	if n.base == nil {
		if _, usual := http.DefaultTransport.(*http.Transport); !usual {
			out, err := enterDefault(req)
			if err != nil {
				return nil, err
			}
			if ours := n.layer(); ours != nil {
				return ours.roundTrip(x, req)
			}
			req = out
		}
	}
	if kept := x.body(); kept != nil && x.keep() > 0 && !kept.Used() && oneShot(req) {
		out := x.request(req)
		x.begin(out, req, x.keep())
		req = out
	}
	if req.Close && deadconn.Left(req.Context()) {
		return deadconn.RoundTrip(n.base, req)
	}
	resp, err := roundtrip.Base(n.base).RoundTrip(req)
	if x != nil && resp != nil {
		x.movedBelow(resp.Request)
	}
	return resp, err
}
