// The pipeline's public methods, and the path of a request that finds a live
// token. The graph is pipeline_graph.go's, which token is live
// pipeline_ledger.go's, and how a token is got pipeline_fetch.go's.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/unwrap"
)

// Pipeline gets, keeps and invalidates the tokens of a graph of steps. It is
// safe for concurrent use and must not be copied.
//
// # Which token is live
//
// Everything about invalidation rests on one idea: stamps, lineage and
// low-water marks.
//
//   - Each token saved for a step gets a stamp, strictly increasing per step,
//     given by the storage when it saves. Stamps are counters, not clocks.
//   - A token remembers its lineage: its own stamp and the stamps of every
//     ancestor token that it was made from; where several paths meet, the
//     lowest.
//   - Each step has a low-water mark. Invalidating a token raises the mark of
//     its step to the token's stamp. A mark never falls.
//   - A token is live if it is unexpired and every stamp in its lineage is
//     above the mark of its step.
//
// So an invalidation is idempotent and commutes with any other: a thousand
// callers whose refusals of one token arrive late and one by one cause one
// fetch. A newer token can't be harmed by an older one's refusal. What was
// made from a dead token is dead without being looked for, even if it was
// still being made at the time. And a token that merely expired leaves what
// was made from it alone.
//
// Marks are as this process knows them; another process's invalidation is
// seen at the next load from the storage, or at a refusal.
type Pipeline struct {
	graph    *graph
	ledger   *ledger
	flights  *flights
	shared   *shared
	events   eventLog
	counters *counters
	watcher  *watcher // nil: the storage doesn't push
}

// NewPipeline checks cfg and returns its Pipeline. The error joins every
// mistake: a name that is empty or used twice, an unknown parent, a cycle,
// more than one leaf, a missing Fetcher, a fetcher with mistakes of its own,
// a negative duration. Nothing is fetched or loaded.
func NewPipeline(cfg PipelineConfig) (*Pipeline, error) {
	var mistakes mistake.List
	inherited := cfg.Storage != nil
	if !inherited {
		cfg.Storage = NewMemoryStorage()
	} else if mistake.IsNil(cfg.Storage) {
		mistakes.Addf("PipelineConfig.Storage is a nil %T; leave it out for a store in memory", cfg.Storage)
	}
	cfg = cfg.withDefaults(mistakes.Addf)
	g := newGraph(&cfg, mistakes.Addf)
	if err := mistakes.Err(); err != nil {
		return nil, err
	}

	p := &Pipeline{
		graph:    g,
		ledger:   newLedger(g, nil, cfg.CoolDown, cfg.MaxCoolDown),
		events:   eventLog{cfg.Logger},
		counters: &counters{steps: make([]stepCounters, len(g.steps))},
	}
	records := &records{graph: g, owner: p.ledger, ahead: cfg.RefreshAhead}
	p.shared = &shared{
		graph: g, ledger: p.ledger, records: records, events: p.events, counters: p.counters,
		store: newStore(cfg.Storage, cfg.StorageTimeout, inherited, p.events),
	}
	p.flights = &flights{
		graph: g, ledger: p.ledger, records: records, shared: p.shared, events: p.events, counters: p.counters,
		asker:        &asker{timeout: cfg.FetchTimeout, retries: cfg.FetchRetries, events: p.events, counters: p.counters},
		fetchTimeout: cfg.FetchTimeout, coolDown: cfg.CoolDown,
		steps: make([]flight.Flight[*held], len(g.steps)),
	}
	if w, ok := unwrap.Find[Watcher](cfg.Storage); ok {
		p.watcher = p.shared.watch(w)
	}
	return p, nil
}

// Token returns the leaf's live token, and fetches what that takes. The token
// is shared and must not be changed.
//
// While the token is live this takes no lock, touches no storage and
// allocates nothing, whatever the number of callers. Otherwise one fetch a
// step serves everyone who asks. The fetch belongs to no caller: when ctx ends
// Token returns its cause and the fetch goes on. An error is an *AuthError that
// names the step, or wraps ctx's cause. Called from inside a fetch of this very
// pipeline, where it would wait for itself, it says so.
func (p *Pipeline) Token(ctx context.Context) (*Token, error) {
	if tok := p.ready(ctx); tok != nil {
		return tok, nil
	}
	h, err := p.flights.get(ctx, p.graph.leaf, nil)
	if err != nil {
		return nil, err
	}
	return h.tok, nil
}

// ready is the hot path: the leaf's token if it is live. It reads the clock each
// time: a process that was stopped or suspended must not hand out a token that
// has expired meanwhile.
func (p *Pipeline) ready(ctx context.Context) *Token {
	h := p.ledger.ready(p.graph.leaf)
	if h == nil {
		return nil
	}
	if h.edge == 0 || time.Now().UnixNano() < h.edge {
		return h.tok
	}
	return p.atEdge(ctx, h)
}

// atEdge is ready for a token that is due for renewal, or has expired.
func (p *Pipeline) atEdge(ctx context.Context, h *held) *Token {
	now := time.Now()
	if !h.fresh(now) {
		return nil
	}
	p.flights.ahead(ctx, h, now)
	return h.tok
}

// Refresh fetches newer tokens for every step and returns the leaf's. Until
// then, and if it fails, the old ones stay live. Called again while it runs,
// it may share the fetches.
func (p *Pipeline) Refresh(ctx context.Context) (*Token, error) {
	// After an error, what this process knows has to do.
	_, _ = p.shared.pull(ctx, p.graph.steps, nil)
	h, err := p.flights.get(ctx, p.graph.leaf, p.ledger.tops())
	if err != nil {
		return nil, err
	}
	return h.tok, nil
}

// InvalidateStep makes the current token of the named step, and all that was
// made from it, dead: for this process at once, for others that share the
// storage as they learn of it. It loads first, so that a token which another
// process put there goes, too. An error means that the storage may not know.
func (p *Pipeline) InvalidateStep(ctx context.Context, name string) error {
	s := p.graph.step(name)
	if s == nil {
		return fmt.Errorf("requestforge: InvalidateStep: %q is no step of this pipeline", name)
	}
	return p.invalidate(ctx, s)
}

// InvalidateAll is InvalidateStep for every step.
func (p *Pipeline) InvalidateAll(ctx context.Context) error {
	return p.invalidate(ctx, p.graph.steps...)
}

func (p *Pipeline) invalidate(ctx context.Context, steps ...*step) error {
	_, err := p.shared.pull(ctx, steps, nil)
	if err == errForgot {
		err = nil // and so nothing is left to invalidate
	}
	errs := []error{err}
	for _, s := range steps {
		b, raised := p.ledger.revokeAll(s)
		switch {
		case raised:
			errs = append(errs, p.shared.revoke(ctx, b))
		case b.stamp > 0: // known here is not yet known there
			errs = append(errs, p.shared.store.revoke(ctx, s.key, b.stamp))
		}
	}
	return errors.Join(errs...)
}

// Forget is a logout: nothing of the pipeline stays in this process or in the
// storage, refresh tokens included, and a fetch under way comes to nothing.
// The next Token logs in from scratch. The auth server is not told.
func (p *Pipeline) Forget(ctx context.Context) error {
	p.ledger.forget()
	p.events.log(ctx, slog.LevelInfo, "everything forgotten", nil)
	return p.shared.store.delete(context.WithoutCancel(ctx), p.graph.keys()...)
}

// Stats returns the counters as they are now.
func (p *Pipeline) Stats() Stats {
	s := p.counters.snapshot(p.graph.steps)
	s.StorageErrors = p.shared.store.errors.Load()
	return s
}

// Close ends what the pipeline has running in the background, which is nothing
// unless its storage is a Watcher. Token works afterwards, too; revocations by
// other processes then take up to half a minute to be seen. Close may be
// called more than once. The storage is the caller's to close, afterwards.
func (p *Pipeline) Close() error {
	if p.watcher == nil {
		return nil
	}
	p.watcher.stop()
	select {
	case <-p.watcher.done:
		return nil
	case <-time.After(4 * min(p.shared.store.timeout, time.Minute)):
		return errors.New("requestforge: Close: the storage's Watch goes on although its context has ended")
	}
}
