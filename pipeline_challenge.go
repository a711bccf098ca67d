// Tokens for an API that asks for more than the token of a request could show: which step
// gets one, and how the steps after it follow. What such a challenge asks for is
// pipeline_wish.go's, and which requests are replayed auth_challenge.go's.

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

var errDropped = errors.New("requestforge: the token's subject was dropped from memory, or is another one than the context's")

// answer returns a token in the place of tok, one of p that answers is true of, which an
// API has challenged. It asks the step that answers, unless a newer token of that step than
// the one that tok is, or was made from, was asked for as much already; and has the steps
// in between make their tokens anew. Until the new token is there, and if there is none,
// the old one is served. Where a fetch was due, a refund in ctx takes back what it has cost.
func (p *Pipeline) answer(ctx context.Context, tok *Token, asked map[string]string) (*Token, error) {
	h := tok.origin().(*held)
	s, a, n := h.step, h.step.answering, len(p.graph.steps)
	fs, leave, err := p.flightsFor(ctx, s)
	if err != nil {
		return nil, err
	}
	defer leave()
	if h.owner != owner(fs.ledger) {
		return nil, errDropped
	}
	w := newWish(asked)
	got, err := fs.get(ctx, a, demand{floor: stamps(nil).raised(a, h.stamps[a.index], n), wish: w})
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
