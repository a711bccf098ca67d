// The wait for a refused token that is only seconds old: a server may not know the token
// yet. auth_transport.go acts on all other refusals.

package requestforge

import (
	"net/http"
	"time"

	"github.com/requestforge/requestforge/internal/roundtrip"
	"github.com/requestforge/requestforge/internal/trial"
)

// A verdict is what is to be done about a refused token.
type verdict int

const (
	replaceToken verdict = iota // tell the source and take another token
	resendToken                 // send the same token again
	keepToken                   // nothing: another caller finds out, or has
)

// patience is one request's part in the trials of its tokens. The zero value is
// ready; leave must be called in the end.
type patience struct {
	known bool          // a server had accepted the token before the last send
	most  time.Duration // after which no try follows
	trial *trial.Trial  // in which the request has the turn; nil: no turn
	why   GaveUpReason  // of the verdict keepToken
}

// leave gives the turn, if the request has it, to the next caller.
func (p *patience) leave() {
	if p.trial != nil {
		p.trial.Pass()
		p.trial.Leave()
		p.trial = nil
	}
}

// judge returns the verdict on tok, which was refused, and waits until the verdict is due.
//
// A token accepted after this request was sent is good. A young token that was never
// accepted is sent again a few times, by one of its requests; the other requests wait for
// the outcome. A request without time for the trial leaves the token to the next request.
// A request that can't be sent again does the same if another request waits; else the
// token is replaced.
func (p *patience) judge(x *exchange, req *http.Request, tok *Token) verdict {
	o := tok.origin()
	if o == nil {
		return replaceToken
	}
	for {
		now := time.Now()
		t := p.trialOf(x, tok, o, now)
		if t == nil {
			p.leave()
			return p.settled(x, req, tok)
		}
		wait := p.next(x, t, now)
		if wait < 0 && p.trial != nil {
			o.triedInVain()
			p.leave()
			return replaceToken
		}
		if lost := x.lost(req); lost || !roundtrip.TimeFor(req, wait) {
			p.leave()
			if lost && t.Idle() {
				return replaceToken
			}
			return p.keep(lost)
		}
		if p.trial == nil {
			t.Enter()
			if !p.queue(t, req, now) {
				return replaceToken
			}
			continue // the wait has changed meanwhile
		}
		t.Sleep(req.Context(), roundtrip.Cancel(req), wait)
		if !t.Over() && !roundtrip.Over(req) {
			x.rest().tries++
			return resendToken
		}
	}
}

// trialOf returns the trial of tok, nil if the request has no part in a trial. A request
// with as many tries of its tokens as one request may have begins no other trial.
func (p *patience) trialOf(x *exchange, tok *Token, o origin, now time.Time) *trial.Trial {
	if tok.taken() || p.trial == nil && x.tried() >= trial.Tries {
		return nil
	}
	return o.try(now)
}

// next returns how long to wait before the request's next try; negative: the last one is past.
func (p *patience) next(x *exchange, t *trial.Trial, now time.Time) time.Duration {
	if x.tried() >= trial.Tries {
		return -1
	}
	return t.Next(now, p.most)
}

// settled is the verdict on a token that isn't waited for, or not any more.
func (p *patience) settled(x *exchange, req *http.Request, tok *Token) verdict {
	switch {
	case p.known || !tok.taken():
		return replaceToken
	case x.lost(req) || roundtrip.Over(req):
		return p.keep(x.lost(req))
	}
	return resendToken
}

// keep is the verdict on a token that the request can't be sent with again: since the body
// is lost, or for want of time.
func (p *patience) keep(lost bool) verdict {
	p.why = GaveUpTime
	if lost {
		p.why = GaveUpBody
	}
	return keepToken
}

// queue waits for the turn or the end of the trial. It returns false if the caller with the
// turn takes too long: the caller's send may hang.
func (p *patience) queue(t *trial.Trial, req *http.Request, now time.Time) bool {
	if t.Turn(req.Context(), roundtrip.Cancel(req), youngFor) {
		p.trial = t
		return true
	}
	t.Leave()
	return t.Over() || roundtrip.Over(req) || time.Since(now) < youngFor
}
