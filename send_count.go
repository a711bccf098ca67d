// How often a request was sent, and the number of each send. Layers share the counts
// directly, or through a context past a foreign layer. For the remaining shared state see
// exchange.go.

package requestforge

import (
	"context"
	"sync/atomic"
)

// sendCount counts the sends of one exchange. Most fields are atomic because a foreign
// layer between layers of ours may run several sends at once.
type sendCount struct {
	// begun is set for the first send of the outermost retry layer, before any layer below
	// can read the field. An atomic write would wait until all earlier writes have reached
	// the cache, first of all the exchange.
	begun bool

	sends   atomic.Int32 // sends of retry layers, without the send counted by begun
	replays atomic.Int32 // sends after a refusal
	resends atomic.Int32 // sends after the first, whatever for
	again   atomic.Bool  // a layer above a foreign RoundTripper replays the request

	note atomic.Pointer[authNote] // of an auth layer below a foreign RoundTripper
}

// attempts is how many sends the retry layers asked for.
func (c *sendCount) attempts() int32 {
	n := c.sends.Load()
	if c.begun {
		n++
	}
	return n
}

type (
	sendCountKey  struct{}
	sendNumberKey struct{}
)

// SendNumber returns the number of a send: 1 for the first send of a request, and more for
// each retry and replay. Call SendNumber with the request's context in a transport below a
// [RetryTransport] or an [AuthTransport]. For any other context the number is 1. A foreign
// layer between two layers of this package hides the sends of the lower layer from the
// upper layer; the number is then the upper layer's.
func SendNumber(ctx context.Context) int {
	n, _ := ctx.Value(sendNumberKey{}).(int)
	return max(1, n)
}

// withSendCount lets the layers below a foreign RoundTripper count into t.
func withSendCount(ctx context.Context, t *sendCount) context.Context {
	return context.WithValue(ctx, sendCountKey{}, t)
}

func sendCountFrom(ctx context.Context) *sendCount {
	t, _ := ctx.Value(sendCountKey{}).(*sendCount)
	return t
}

// withoutSends returns ctx for a fetch that the request of ctx has started: the sends of
// the fetch are counted separately.
func withoutSends(ctx context.Context) context.Context {
	if ctx.Value(sendNumberKey{}) != nil {
		ctx = context.WithValue(ctx, sendNumberKey{}, nil)
	}
	if sendCountFrom(ctx) != nil {
		ctx = context.WithValue(ctx, sendCountKey{}, nil)
	}
	return ctx
}
