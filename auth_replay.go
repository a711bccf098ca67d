// What follows from a refusal: the layer tells the source, and sends the request again.
// auth_refused.go decides which answers refuse a token, auth_young.go how long to wait for
// a young token, and auth_challenge.go what follows if a good token isn't enough.

package requestforge

import (
	"context"
	"maps"
	"net/http"
	"time"

	"github.com/requestforge/requestforge/internal/match"
	"github.com/requestforge/requestforge/internal/refund"
	"github.com/requestforge/requestforge/internal/roundtrip"
	"github.com/requestforge/requestforge/internal/trial"
)

// A sending describes the first send of a request.
type sending struct {
	tok   *Token
	known bool // a server had accepted tok before
	own   bool // the exchange is the layer's own
}

// answered records the verdict of resp, an unusual answer, on the token. It replays the
// request if the token was refused, or if the source can answer an API that asks for more.
func (t *AuthTransport) answered(x *exchange, r *rules, req *http.Request, first sending, resp *http.Response) (*http.Response, error) {
	tok := first.tok
	var asked map[string]string
	if !t.refused(x, r, tok, resp) {
		keepCookies(x, tok, resp)
		if asked = t.asked(x, r, req, tok, resp); asked == nil {
			return resp, nil
		}
	}
	if !first.own || !x.retrying() {
		return t.replay(x, r, req, first, resp, asked)
	}
	// The retry layer above a foreign layer can't know our sends.
	if asked == nil && (first.known || !tok.taken()) { // else the token was accepted meanwhile
		roundtrip.Guard(&resp, func() { t.tell(req.Context(), tok) })
	}
	if asked == nil {
		t.gaveUp(x, req, GaveUpInfo{Reason: GaveUpRetrying})
	}
	return resp, nil
}

// refused reports whether resp means that tok is bad, and traces a refusal.
func (t *AuthTransport) refused(x *exchange, r *rules, tok *Token, resp *http.Response) bool {
	if !r.refuser.refused(tok, resp) {
		return false
	}
	t.Trace.refused(x.caller, resp)
	return true
}

// replayed counts and traces a send of out, after the first send of the request.
func (t *AuthTransport) replayed(x *exchange, r *rules, out *http.Request, why ReplayReason) {
	x.replayed(&r.base)
	t.Trace.replayed(x.caller, why, SendNumber(out.Context()))
}

// gaveUp tells why the refusal of req goes back to the caller. Without a reason there was
// no refusal.
func (t *AuthTransport) gaveUp(x *exchange, req *http.Request, why GaveUpInfo) {
	if why.Reason == "" {
		return
	}
	x.note(req, &authNote{auth: noteSent.auth, gaveUp: &why})
	t.Trace.gaveUp(x.caller, why)
}

// tell tells the source about the refusal of tok. An error of Invalidate comes from the
// source's storage and doesn't affect the request.
func (t *AuthTransport) tell(ctx context.Context, tok *Token) {
	_ = t.Source.Invalidate(ctx, tok)
}

// replay sends req again for as long as its token is refused: with the same token if a
// server may not know the token yet, else, after telling the source, with another token, by
// the schedule. asked is set if the token was challenged instead of refused; the next send
// then has a token with an answer. replay returns the last response; or the error of a
// replay, which has cost the response before; or the cause if the caller gives up
// meanwhile.
//
// While a request waits, for a token or for a time, its response holds no connection, since
// the login may need the connection.
func (t *AuthTransport) replay(x *exchange, r *rules, req *http.Request, first sending, resp *http.Response, asked map[string]string) (last *http.Response, err error) {
	roundtrip.Guard(&resp, func() { last, err = t.replayAll(x, r, req, first, &resp, asked) })
	return last, err
}

// replayAll is replay. open is the response at hand, nil in between.
func (t *AuthTransport) replayAll(x *exchange, r *rules, req *http.Request, first sending, open **http.Response, asked map[string]string) (*http.Response, error) {
	var toRefund, answered refund.Refund
	defer toRefund.Over()
	defer answered.Over()
	ctx := refund.With(req.Context(), &toRefund)
	p := patience{known: first.known, most: trial.Longest}
	if t.Retry == nil { // the caller is used to an answer at once
		p.most = trial.Short
	}
	defer p.leave()
	for tok := first.tok; ; {
		over := roundtrip.Over(req)
		resp := *open
		roundtrip.Release(req, resp)
		var why GaveUpInfo
		next, again := t.afterChallenge(x, r, req, tok, asked, &answered), ReplayChallenge
		if asked == nil {
			next, why = t.afterRefusal(ctx, x, r, req, tok, tok != first.tok, &p)
			again = replayReason(tok, next)
		} else {
			p.leave() // the token of the last try was accepted
		}
		if cause := roundtrip.Cause(req); cause != nil && !over {
			roundtrip.Discard(resp)
			return nil, cause
		}
		if next == nil {
			t.gaveUp(x, req, why)
			return resp, nil
		}
		known := next.taken()
		out, lost, err := t.redress(x, r, req, next)
		if err == nil && lost != "" {
			t.unsent(ctx, x, req, tok, next, asked, lost)
			return resp, nil
		}
		roundtrip.Discard(resp)
		*open = nil
		if err != nil {
			return nil, err
		}
		p.known = known
		t.replayed(x, r, out, again)
		answer, err := t.send(x, r, out, req, next)
		if err != nil || answer == nil {
			return nil, err
		}
		answer.Request = x.caller
		var done bool
		if asked, done = t.settled(x, r, req, next, answer, &toRefund, &answered); done {
			return answer, nil
		}
		tok, *open = next, answer
	}
}

// unsent handles a refused, or challenged, request that can't be sent again with next.
func (t *AuthTransport) unsent(ctx context.Context, x *exchange, req *http.Request, tok, next *Token, asked map[string]string, lost GaveUpReason) {
	if next == tok && !tok.taken() {
		t.tell(ctx, tok)
	}
	if asked == nil {
		t.gaveUp(x, req, GaveUpInfo{Reason: lost})
	}
}

// replayReason is why a request is sent again with next, after a refusal of tok.
func replayReason(tok, next *Token) ReplayReason {
	if next == tok {
		return ReplayYoung
	}
	return ReplayRefused
}

// settled reports whether resp, of a replay with tok, goes back to the caller. Else asked
// has the parameters of a challenge, or is nil if tok was refused. A good resp pays back
// the costs: it proves that the refusals before were real, or that the answer to a
// challenge was enough.
func (t *AuthTransport) settled(x *exchange, r *rules, req *http.Request, tok *Token, resp *http.Response, toRefund, answered *refund.Refund) (asked map[string]string, done bool) {
	if t.refused(x, r, tok, resp) {
		return nil, false
	}
	keepCookies(x, tok, resp)
	if accepts(resp) {
		toRefund.Pay()
	}
	if resp.StatusCode < 400 {
		answered.Pay()
	}
	asked = t.asked(x, r, req, tok, resp)
	return asked, asked == nil
}

// redress returns a copy of req for another send with tok; or the reason for no copy, or an
// error.
func (t *AuthTransport) redress(x *exchange, r *rules, req *http.Request, tok *Token) (out *http.Request, lost GaveUpReason, err error) {
	out = x.resent(req, &r.base)
	if !x.rewind(out, req) {
		return nil, GaveUpBody, nil
	}
	before := x.movement()
	switch err := t.dress(x, r, out, req, tok, func(value string) []string { return []string{value} }); err {
	case nil:
		return out, "", nil
	case errLeft:
		x.rest().moved = before // the origin of the response that goes back
		roundtrip.CloseBody(out)
		return nil, GaveUpBaseURL, nil
	default:
		return nil, "", err
	}
}

// send sends out, a copy of req that carries tok.
func (t *AuthTransport) send(x *exchange, r *rules, out, req *http.Request, tok *Token) (*http.Response, error) {
	resp, err := r.base.forward(x, out)
	if err == nil && resp != nil && (r.looks || tok.jar != nil || x.auth != layer(t)) {
		return t.looked(x, r, out, req, tok, resp)
	}
	return resp, err
}

// looked processes each response to a request that carried tok: it removes a query value
// that the server has sent back, and calls Learn, which may ask for one more send with the
// same token.
func (t *AuthTransport) looked(x *exchange, r *rules, out, req *http.Request, tok *Token, resp *http.Response) (*http.Response, error) {
	resp.Request = x.caller
	if tok.jar != nil {
		x.rest().jarAt = out.URL
	} else if x.rare != nil {
		x.jarAt = nil
	}
	if x.rare != nil && x.moved != nil {
		absoluteLocation(resp, &x.moved.url)
	}
	unquery(resp, out.URL, x.caller.URL) // also the query values of a layer above
	if t.Learn == nil {
		return resp, nil
	}
	if !learn(t.Learn, resp, x.seen(x.caller, nil), tok) {
		lessonHelped(x, t)
		return resp, nil
	}
	if x.retrying() || !newLesson(x, t) || x.lost(req) || roundtrip.Over(req) {
		return resp, nil
	}
	return t.sendAgain(x, r, req, tok, resp)
}

// sendAgain sends req once more, with the same token, in place of resp; resp is returned
// if the body can't be had.
func (t *AuthTransport) sendAgain(x *exchange, r *rules, req *http.Request, tok *Token, resp *http.Response) (*http.Response, error) {
	keepCookies(x, tok, resp) // a lesson, even if the answer refuses
	var out *http.Request
	var lost GaveUpReason
	var err error
	roundtrip.Guard(&resp, func() { out, lost, err = t.redress(x, r, req, tok) })
	if err == nil && lost != "" {
		return resp, nil
	}
	roundtrip.Discard(resp)
	if err != nil {
		return nil, err
	}
	t.replayed(x, r, out, ReplayLearned)
	return t.send(x, r, out, req, tok)
}

// keepCookies adds the cookies of resp, which is no refusal, to tok's login. A refusal
// removes no cookies: the server may not know a young token yet, whose cookies are good.
func keepCookies(x *exchange, tok *Token, resp *http.Response) {
	if tok.jar != nil && x.rare != nil && x.jarAt != nil {
		tok.jar.Take(x.jarAt, resp)
	}
}

// hideCookies removes a login's cookies from resp if they belong to another origin than the
// caller knows: a Jar of the caller would store them for the base URL.
func (t *AuthTransport) hideCookies(x *exchange, resp *http.Response) {
	if t.moves == nil || x.rare == nil || x.moved == nil || x.jarAt == nil || len(resp.Header["Set-Cookie"]) == 0 || match.Same(&x.moved.url, t.moves.base.URL) {
		return
	}
	resp.Header = maps.Clone(resp.Header) // the map may be someone else's too
	delete(resp.Header, "Set-Cookie")
}

// learn tells a Learn of resp, an answer to asked. If Learn panics, resp is closed.
func learn(ask func(*http.Response, *Token) bool, resp *http.Response, asked *http.Request, tok *Token) (again bool) {
	shown := *resp
	shown.Body, shown.Request = http.NoBody, asked
	returned := false
	defer func() {
		if !returned && resp.Body != nil {
			resp.Body.Close()
		}
	}()
	again = ask(&shown, tok)
	returned = true
	return again
}

// afterRefusal returns the token for another send of req, after a refusal of tok; or nil
// and the reason against a replay. replaced says whether tok has replaced another token.
func (t *AuthTransport) afterRefusal(ctx context.Context, x *exchange, r *rules, req *http.Request, tok *Token, replaced bool, p *patience) (*Token, GaveUpInfo) {
	if x.auth != layer(t) && (replaced || x.of(t).state != nil) {
		return t.afterAnother(ctx, x, r, req, tok)
	}
	switch p.judge(x, req, tok) {
	case keepToken:
		return nil, GaveUpInfo{Reason: p.why}
	case resendToken:
		return tok, GaveUpInfo{}
	}
	// Even if this request can't be replayed: the token is on further requests.
	t.tell(ctx, tok)
	if x.lost(req) {
		return nil, GaveUpInfo{Reason: GaveUpBody}
	}
	return t.another(req, tok, nextReplay(x, t, r.retry))
}

// afterAnother is afterRefusal for a token that has replaced a refused token before this
// send, also for a send by a layer above. With a second token from a layer above on the
// request, that token may be the bad one. After the last replay the layer above has its
// turn, and the token stays.
func (t *AuthTransport) afterAnother(ctx context.Context, x *exchange, r *rules, req *http.Request, tok *Token) (*Token, GaveUpInfo) {
	wait := nextReplay(x, t, r.retry)
	switch {
	case wait < 0:
		return nil, GaveUpInfo{Reason: GaveUpBudget}
	case x.lost(req):
		return nil, GaveUpInfo{Reason: GaveUpBody}
	}
	t.tell(ctx, tok)
	return t.another(req, tok, wait)
}

// fetch returns a token of the source for req. Without a token, for whatever reason, out
// isn't sent.
func (t *AuthTransport) fetch(req, out *http.Request) (tok *Token, err error) {
	defer func() {
		if tok == nil {
			roundtrip.CloseBody(out)
		}
	}()
	return token(t.Source, req)
}

// another waits as scheduled and returns a token different from tok; or nil and the reason
// against a replay.
func (t *AuthTransport) another(req *http.Request, tok *Token, wait time.Duration) (*Token, GaveUpInfo) {
	if wait < 0 {
		return nil, GaveUpInfo{Reason: GaveUpBudget}
	}
	if roundtrip.Sleep(req, wait) != nil {
		return nil, GaveUpInfo{Reason: GaveUpTime}
	}
	next, err := token(t.Source, req)
	switch {
	case err != nil:
		return nil, GaveUpInfo{Reason: GaveUpNoToken, Err: err}
	case !tok.replacedBy(next):
		return nil, GaveUpInfo{Reason: GaveUpNoNewerToken}
	case roundtrip.Over(req):
		return nil, GaveUpInfo{Reason: GaveUpTime}
	}
	return next, GaveUpInfo{}
}
