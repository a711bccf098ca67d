// What follows if an API asks for more than the token of a request could show: the source
// is asked for a token that can, and the request is sent again. Which answers ask for more
// is internal/challenge's, and which step answers pipeline_challenge.go's.

package requestforge

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/requestforge/requestforge/internal/challenge"
	"github.com/requestforge/requestforge/internal/match"
	"github.com/requestforge/requestforge/internal/refund"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// asked returns the parameters of resp's challenges, if they ask for more than tok, which
// was not refused, could show, and the source has an answer; else nil.
func (t *AuthTransport) asked(x *exchange, r *rules, req *http.Request, tok *Token, resp *http.Response) map[string]string {
	if r.answerer == nil || resp.StatusCode < 400 || challenged(resp) == challenge.Refused || !r.answerer.answers(tok) {
		return nil
	}
	asked := challenge.Asked(resp.Header)
	sent := req.URL
	if m := x.movement(); m != nil {
		sent = &m.url
	}
	if to, err := url.Parse(asked["resource"]); err != nil || !match.Same(to, sent) {
		delete(asked, "resource") // a token for another API isn't this one's to ask for
	}
	if len(challenge.Lasting(asked)) == 0 {
		return nil
	}
	return asked
}

var (
	errOutOfReplays = errors.New("the request has had its replays")
	errSame         = errors.New("the source has no other token")
	errNoBody       = errors.New("the body can't be sent again; the next request has the new token")
)

// afterChallenge returns the token to send req with again, after a challenge of tok with the
// parameters asked; nil if there is to be no replay. What the challenge costs the source is
// charged to toRefund.
func (t *AuthTransport) afterChallenge(x *exchange, r *rules, req *http.Request, tok *Token, asked map[string]string, toRefund *refund.Refund) *Token {
	if asked == nil {
		return nil
	}
	next, err := t.answer(x, r, req, tok, asked, toRefund)
	if err != nil {
		x.noteChallenge(req, "not answered: "+err.Error())
		return nil
	}
	x.noteChallenge(req, "answered")
	return next
}

func (t *AuthTransport) answer(x *exchange, r *rules, req *http.Request, tok *Token, asked map[string]string, toRefund *refund.Refund) (*Token, error) {
	wait := nextReplay(x, t, r.retry)
	if wait < 0 {
		return nil, errOutOfReplays
	}
	// Even if this request can't be replayed: others carry the token.
	next, err := untilCancel(req, func(ctx context.Context) (*Token, error) {
		return r.answerer.answer(refund.With(ctx, toRefund), tok, asked)
	})
	switch {
	case err != nil:
		return nil, err
	case x.lost(req):
		return nil, errNoBody
	case !tok.replacedBy(next):
		return nil, errSame
	}
	return next, roundtrip.Sleep(req, wait)
}
