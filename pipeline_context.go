// The context of a fetch: it names the fetch, and has no caller's values if the token is
// for all subjects.

package requestforge

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/slot"
)

// fetchMark says in a context which fetches the context belongs to. A mark counts only
// while its fetch is under way: a context kept by a fetcher is like any other context.
type fetchMark struct {
	ledger *ledger
	step   *step
	slot   atomic.Pointer[slot.Slot] // of the try under way
	epoch  atomic.Int64              // of the fetch
	outer  *fetchMark
	over   atomic.Bool
}

type fetchKey struct{}

// markOf returns the mark of the innermost fetch that ctx runs under and with ours true, or
// nil. No outer fetch waits for a call begun in a fetch that is over.
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

// context returns a context that ends with ctx, and a function to be called in the end.
// Without a carrier the context is ctx.
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
