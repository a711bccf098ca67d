// What the context of a fetch carries: which fetch it is, and no caller's values where the
// token is for all.

package requestforge

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/slot"
)

// fetchMark says in a context which fetches the context belongs to. A mark counts only
// while its fetch is under way: a context that a fetcher has kept is like any other.
type fetchMark struct {
	ledger *ledger
	step   *step
	slot   atomic.Pointer[slot.Slot] // of the try that is under way
	epoch  atomic.Int64              // that the fetch belongs to
	outer  *fetchMark
	over   atomic.Bool
}

type fetchKey struct{}

// markOf returns the mark of the innermost fetch that ctx runs under and of which ours
// is true, or nil. No fetch further out waits for what began in one that is over.
func markOf(ctx context.Context, ours func(*ledger) bool) *fetchMark {
	m, _ := ctx.Value(fetchKey{}).(*fetchMark)
	for ; m != nil && !m.over.Load(); m = m.outer {
		if ours(m.ledger) {
			return m
		}
	}
	return nil
}

// carrier makes the context of a shared step's fetch: without the values of the caller's,
// but for the marks of fetches and for what the program carries over.
type carrier struct {
	carry func(from, to context.Context) context.Context // PipelineConfig.Carry
}

// carryTime bounds a call of PipelineConfig.Carry. Afterwards nothing is carried over.
const carryTime = time.Second

// context returns a context that ends with ctx, and what to call in the end. Without a
// carrier it is ctx.
func (c *carrier) context(ctx context.Context) (context.Context, func()) {
	if c == nil {
		return ctx, func() {}
	}
	type carryKey struct{}
	to := context.Background()
	if c.carry != nil {
		bound, stop := context.WithTimeout(ctx, carryTime)
		defer stop()
		own := new(byte)
		got, err := flight.Bounded(bound, nil, func(context.Context) (context.Context, error) {
			return c.carry(ctx, context.WithValue(context.Background(), carryKey{}, own)), nil
		}, nil)
		// A panic, nil, and what isn't made from to, carry nothing over.
		if err == nil && got != nil && got.Value(carryKey{}) == own {
			to = got
		}
	}
	to, end := context.WithCancelCause(context.WithValue(to, fetchKey{}, ctx.Value(fetchKey{})))
	stop := context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
	return to, func() { stop(); end(nil) }
}
