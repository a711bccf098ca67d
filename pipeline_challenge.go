// Tokens for an API that asks for more than the token of a request could show: which step
// gets a token, and how the steps after that step follow. pipeline_wish.go keeps the
// demands of challenges, and auth_challenge.go replays requests.

package requestforge

import (
	"context"
	"errors"

	"github.com/requestforge/requestforge/internal/refund"
)

// answers reports whether a step gets another token if an API asks for more than tok could
// show.
func (p *Pipeline) answers(tok *Token) bool {
	h, _ := tok.origin().(*held)
	return h != nil && h.step.answering != nil && p.ledgerOf(tok) != nil
}

var errOther = errors.New("requestforge: the token's subject is another one than the context's")

// answer returns a token in place of tok, a token of p that an API has challenged and that
// answers is true of. It asks the step that answers, unless the step already has a newer
// token than tok or its ancestor, fetched with as many demands. The steps in between make
// their tokens anew. The old token is served until the new token is there, and if no new
// token comes. If a fetch was due, a refund in ctx takes back the cost of the fetch.
//
// If tok's subject was dropped from memory meanwhile, what tok was asked for is asked for
// again, and the storage knows tok, unless it is the pipeline's own: that has begun the
// stamps anew, and any token is newer.
func (p *Pipeline) answer(ctx context.Context, tok *Token, asked map[string]string) (*Token, error) {
	h := tok.origin().(*held)
	s, a, n, own := h.step, h.step.answering, len(p.graph.steps), p.ledgerOf(tok)
	fs, leave, err := p.flightsFor(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { refund.Hold(ctx, leave) }()
	if own.whose != fs.ledger.whose {
		return nil, errOther
	}
	above := h.stamps[a.index]
	if own != fs.ledger && a.perSubject && p.subjects.own != nil {
		above = 0
	}
	w := newWish(asked)
	if h.step == a && fs.ledger.newest(a) == nil {
		w = w.after(h)
	}
	got, err := fs.get(ctx, a, demand{floor: stamps(nil).raised(a, above, n), wish: w})
	if w.charged.Load() {
		refund.Charge(ctx, func() { fs.ledger.refundAnswer(a) })
	}
	if err == nil && s != a {
		got, err = fs.get(ctx, s, demand{floor: stamps(nil).raised(a, got.stamp()-1, n)})
	}
	if err != nil {
		return nil, err
	}
	return got.handOut(), nil
}
