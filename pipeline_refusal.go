// The costs of a resource server's refusal. pipeline_blame.go decides who is to blame, and
// how much blame is affordable.

package requestforge

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/requestforge/requestforge/internal/refund"
)

// Invalidate handles the refusal of a token by a resource server: it invalidates the blamed
// token and all tokens made from the blamed token. AuthTransport and [Use] call Invalidate;
// few programs need to.
//
// The first refusal blames the token, or RefreshFrom's token if the refused token was made
// from it. Each further refusal in a row, of a token of the same step, blames the ancestors
// one distance further up, unless the storage has a newer token, which then explains the
// refusal. A row ends when a server accepts a token of the step, as reported by
// AuthTransport and Use. For a step without such reports, a token counts as accepted a
// minute after its birth, or after 16 hand-outs. The latter is a guess, allowed 8 times at
// once and once more each minute. A step that passes its parent's own token on blames the
// parent first.
//
// A token already dead or replaced costs nothing more, however often it is refused, and nil
// does nothing. The token may be any step's. A token from elsewhere is compared by value
// with the current token of Token. Invalidate doesn't consider that a server may not know a
// young token yet; AuthTransport does.
//
// Invalidations have two bounds for each step whose tokens are refused: three at once and
// one more every 10 s, not counting refusals proven right by an accepted replay; and 80 at
// once and one more each second, proven or not. Beyond the bounds the token stays. A server
// that refuses everything, or takes each token once, thus costs the auth server little.
//
// Invalidate continues when ctx ends. An error means that the storage may not know of the
// invalidation; this process does.
func (p *Pipeline) Invalidate(ctx context.Context, rejected *Token) error {
	return p.refused(ctx, p.graph.leaf, rejected)
}

// refused is Invalidate for the source of a step, which is nil without a step.
func (p *Pipeline) refused(ctx context.Context, s *step, rejected *Token) error {
	if rejected == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	own := p.ledgerOf(rejected)
	if own == p.ledger || own == nil && s != nil && !s.perSubject {
		return p.refusedBy(ctx, p.shared, s, rejected)
	}
	fs, leave := p.concerned(ctx, own)
	defer func() { refund.Hold(ctx, leave) }()
	events := p.events
	if fs != nil {
		events = fs.events
	}
	h, _ := rejected.origin().(*held)
	if own != nil && fs != nil && (fs.ledger != own || own.newest(h.step) == nil) && p.replaced(ctx, fs, own, h) {
		return nil
	}
	var errs [2]error
	if own != nil {
		errs[0] = p.refusedBy(ctx, p.shared.below(own, events), s, rejected)
	}
	if fs != nil && fs.ledger != own {
		errs[1] = p.refusedBy(ctx, fs.shared, s, rejected)
		p.succeed(ctx, fs, own, h)
	}
	return cmp.Or(errs[:]...)
}

// concerned returns the flights of ctx's subject, for the refusal of a token of own, nil for
// a token from elsewhere. They are nil if own is another subject's, or if a token from
// elsewhere can't be of a subject in memory. A subject dropped from memory is entered anew,
// to keep what the refusal teaches. The subject stays in memory until leave is called.
func (p *Pipeline) concerned(ctx context.Context, own *ledger) (fs *flights, leave func()) {
	sub, id := p.keptFor(ctx)
	switch {
	case own != nil && id != "" && own.whose == keyOf(id):
		return p.flightsIn(id, p.subjects.enter(id))
	case own == nil && sub != nil:
		if fs, leave := p.flightsKept(id, sub); fs != nil {
			return fs, leave
		}
	}
	return nil, func() {}
}

// replaced reports whether h, of own, whose subject was dropped since, was replaced by a live
// token, here or in the storage. A newer token must not suffer for the refusal of h.
func (p *Pipeline) replaced(ctx context.Context, fs *flights, own *ledger, h *held) bool {
	if own.topOf(h.step) > h.stamp() && own.newest(h.step) == nil {
		return true
	}
	stored := p.subjects.own == nil
	if stored {
		_, _ = fs.shared.pull(ctx, h.step) // after an error, the knowledge of this process must suffice
	}
	return fs.ledger.replaces(h, stored)
}

// succeed makes the ledger of fs, of a subject entered anew, the heir of the subject's ledger
// that was dropped before, after the refusal of a token.
func (p *Pipeline) succeed(ctx context.Context, fs *flights, before *ledger, h *held) {
	if before == nil {
		return
	}
	if fs.ledger.succeed(before, p.subjects.own == nil) {
		refund.Charge(ctx, func() {
			fs.ledger.refund(h)
			fs.ledger.prove(h.step, nil)
		})
	}
	fs.shared.news(fs.ledger)
}

// ledgerOf returns the ledger of p with the token, or nil.
func (p *Pipeline) ledgerOf(tok *Token) *ledger {
	h, _ := tok.origin().(*held)
	if h == nil {
		return nil
	}
	if l, _ := h.owner.(*ledger); l != nil && l.graph == p.graph {
		return l
	}
	return nil
}

func (p *Pipeline) refusedBy(ctx context.Context, sh *shared, s *step, rejected *Token) error {
	// A pipeline's own storage holds nothing of a dropped subject, and must not get anything.
	stored := p.subjects == nil || p.subjects.own == nil || !sh.ledger.dropped.Load()
	if doubted := sh.ledger.doubt(s, rejected, refund.Due(ctx), time.Now()); doubted != nil && stored {
		// After an error, the knowledge of this process must suffice.
		_, _ = sh.pull(ctx, doubted)
	}
	of, blamed, any := sh.ledger.refuse(s, rejected, time.Now())
	suspected := slices.DeleteFunc(slices.Clone(blamed), func(b blame) bool { return sh.ledger.owns(b.step.index) })
	blamed = slices.DeleteFunc(blamed, func(b blame) bool { return !sh.ledger.owns(b.step.index) })
	switch {
	case any:
		refund.Charge(ctx, func() {
			sh.ledger.refund(of)
			if len(suspected) > 0 {
				sh.ledger.prove(of.step, suspected)
			}
		})
	case of != nil:
		p.counters.refusalsIgnored.Add(1)
		sh.events.log(ctx, slog.LevelWarn, "refused too often; the token stays for now", of.step)
	}
	if !stored {
		return nil
	}
	var first error
	for _, b := range blamed {
		if err := sh.revoke(ctx, b); err != nil && first == nil {
			first = err
		}
	}
	return first
}
