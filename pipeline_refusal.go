// What a resource server's refusal costs: who is to blame, and how much
// blaming is affordable.

package requestforge

import (
	"context"
	"log/slog"
	"sync"
	"time"
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
	st := p.state
	st.mu.Lock()
	doubtful := st.doubt(rejected)
	st.mu.Unlock()
	if doubtful != nil {
		// An error leaves us with what we know.
		_, _ = st.pull(ctx, []*step{doubtful}, nil)
	}
	st.mu.Lock()
	suspects, spared := st.convict(rejected)
	st.mu.Unlock()
	if b := billFrom(ctx); b != nil && suspects != nil {
		b.add(st)
	}
	if spared != nil {
		st.counts.spared.Add(1)
		st.log(ctx, slog.LevelWarn, "refused too often; the token stays for now", spared)
	}
	var first error
	for _, sus := range suspects {
		st.log(ctx, slog.LevelInfo, "token invalidated", sus.step, slog.Uint64("stamp", sus.stamp))
		if err := p.store.revoke(ctx, sus.step.key, sus.stamp); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// convict finds whom to blame for a refusal, and raises their marks; or it
// returns the step that is spared because there were too many. The caller
// holds mu.
func (st *state) convict(rejected *Token) (suspects []suspect, spared *step) {
	h := st.place(rejected)
	if h == nil {
		return nil, nil
	}
	s := h.tok.prov.step
	if st.over(s, h) {
		return nil, nil
	}
	if !st.bucket.take(time.Now()) {
		return nil, s
	}
	from := st.culprit(s)
	level := 0
	if !h.tok.prov.accepted.Load() {
		st.futile++
		level = min(st.futile, len(from.levels)-1)
	}
	for _, target := range from.levels[level] {
		stamp := h.stamp
		for i, a := range s.ancestors {
			if a == target {
				stamp = h.lineage[i]
			}
		}
		if st.raise(target, stamp) {
			suspects = append(suspects, suspect{target, stamp})
		}
	}
	st.counts.invalidations.Add(uint64(len(suspects)))
	return suspects, nil
}

// over reports whether h is dead, or replaced by a newer token, which is not to
// suffer for it. The caller holds mu.
func (st *state) over(s *step, h *held) bool {
	c := st.steps[s.index].cur
	return c != nil && c.stamp > h.stamp && st.live(s, c) || !st.live(s, h)
}

// doubt returns the step of the token if its refusal is going to blame an
// ancestor, and so the newer tokens of other processes, too. Where a peer has
// renewed a token, the server may have revoked the old one by that, before this
// process ever used it: the storage has to be asked first. The caller holds mu.
func (st *state) doubt(rejected *Token) *step {
	h := st.place(rejected)
	if h == nil || h.tok.prov.accepted.Load() {
		return nil
	}
	s := h.tok.prov.step
	if len(st.culprit(s).levels) == 1 || st.over(s, h) || st.bucket.empty(time.Now()) {
		return nil
	}
	return s
}

// culprit is the step that a refusal of s's tokens blames first.
func (st *state) culprit(s *step) *step {
	if s == st.p.leaf {
		return st.p.from
	}
	return s
}

// place returns what this pipeline knows of the token: by its provenance,
// else by its value if it is the current leaf's. The caller holds mu.
func (st *state) place(tok *Token) *held {
	if p := tok.prov; p != nil && p.state == st && p.held.tok.AccessToken == tok.AccessToken {
		return p.held
	}
	if h := st.steps[st.p.leaf.index].cur; h != nil && h.tok.AccessToken == tok.AccessToken {
		return h
	}
	return nil
}

// accept notes that a server has taken the token. It is called for every
// response, so it writes only once a token.
func (tok *Token) accept() {
	p := tok.prov
	if p == nil || p.accepted.Load() || !p.accepted.CompareAndSwap(false, true) || p.state == nil {
		return
	}
	p.state.mu.Lock()
	p.state.futile = 0
	p.state.mu.Unlock()
}

// The bucket holds this many drops, and gets one more each dropEvery.
const (
	bucketSize = 3
	dropEvery  = 10 * time.Second
)

// bucket bounds what futile refusals can cost.
type bucket struct {
	drops int
	since time.Time // when the drop that is on its way began to gather
}

func (b *bucket) fill() { b.drops = bucketSize }

// empty reports whether there is nothing to take.
func (b *bucket) empty(now time.Time) bool {
	if b.drops < bucketSize {
		if n := int(now.Sub(b.since) / dropEvery); n > 0 {
			b.drops = min(bucketSize, b.drops+n)
			b.since = b.since.Add(time.Duration(n) * dropEvery)
		}
	}
	return b.drops == 0
}

func (b *bucket) take(now time.Time) bool {
	if b.empty(now) {
		return false
	}
	if b.drops == bucketSize {
		b.since = now
	}
	b.drops--
	return true
}

func (b *bucket) give(n int) { b.drops = min(bucketSize, b.drops+n) }

// bill collects the drops that one request has taken, so that they can be
// given back when a replay shows that the refusals were real. It travels in
// the context, since other TokenSources may stand between.
type bill struct {
	mu    sync.Mutex // they may tell of a refusal in their own time; never held with a state's
	taken map[*state]int
}

type billKey struct{}

func withBill(ctx context.Context, b *bill) context.Context {
	return context.WithValue(ctx, billKey{}, b)
}

func billFrom(ctx context.Context) *bill {
	b, _ := ctx.Value(billKey{}).(*bill)
	return b
}

func (b *bill) add(st *state) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken == nil {
		b.taken = make(map[*state]int)
	}
	b.taken[st]++
}

// refund gives every drop back, each once.
func (b *bill) refund() {
	b.mu.Lock()
	taken := b.taken
	b.taken = nil
	b.mu.Unlock()
	for st, n := range taken {
		st.mu.Lock()
		st.bucket.give(n)
		st.mu.Unlock()
	}
}
