// What a resource server's refusal costs. Who is to blame for it, and how much
// blaming is affordable, is the ledger's to say (pipeline_ledger.go).

package requestforge

import (
	"context"
	"log/slog"
	"time"

	"github.com/requestforge/requestforge/internal/refund"
)

// Invalidate is told that a resource server refused the token, and makes it
// dead, with the token that it blames for it.
//
// A token that some server has accepted before was revoked: it goes alone, or
// RefreshFrom's with all that was made from it. One that nothing ever
// accepted was bad from the start: the n-th such refusal in a row blames the
// ancestors at distance n, unless the storage has a newer token, which then
// explains the refusal. A token that is dead or replaced already costs
// nothing more, however often it is refused, and nil does nothing. A token
// that isn't this pipeline's is compared with the current one by value.
//
// Invalidations are bounded: three at once and one more every 10 s, not
// counting those that a replay has proven right. Beyond that the token stays,
// so a server that refuses everything for ever costs the auth server little.
//
// Invalidate goes on when ctx ends. An error means that the storage may not
// know of it; this process does.
func (p *Pipeline) Invalidate(ctx context.Context, rejected *Token) error {
	if rejected == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if s := p.ledger.doubt(rejected, time.Now()); s != nil {
		// After an error, what this process knows has to do.
		_, _ = p.shared.pull(ctx, []*step{s}, nil)
	}
	blamed, ignored := p.ledger.refuse(rejected, time.Now())
	if ignored != nil {
		p.counters.refusalsIgnored.Add(1)
		p.events.log(ctx, slog.LevelWarn, "refused too often; the token stays for now", ignored)
	}
	if blamed != nil {
		refund.Charge(ctx, p.ledger.refund)
	}
	var first error
	for _, b := range blamed {
		if err := p.shared.revoke(ctx, b); err != nil && first == nil {
			first = err
		}
	}
	return first
}
