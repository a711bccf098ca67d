// The pipeline's public methods, and the path of a request that finds a live token.
// pipeline_graph.go has the graph, pipeline_ledger.go the live tokens, and
// pipeline_fetch.go gets tokens.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/slot"
	"github.com/requestforge/requestforge/internal/unwrap"
)

// Pipeline gets, shares and invalidates the tokens of a login that takes several dependent
// calls. A program makes a Pipeline with [NewPipeline], gives the Pipeline to a transport
// as its Source (see [Config] and [AuthTransport]), and closes the Pipeline at the end. Few
// programs call [Pipeline.Token]. [Pipeline.Logout] ends the session, [Pipeline.State] and
// [Pipeline.Stats] say how the pipeline is doing, and [Pipeline.Source] serves the token of
// any step.
//
// A Pipeline is safe for concurrent use and must not be copied.
//
// # Live tokens
//
// A token is live until it expires, or until it or a token that it was made from is
// invalidated. Each step counts its tokens with stamps. Invalidation raises a mark, and
// every stamp up to the mark is dead, along with all tokens made from it, even tokens still
// being made. So invalidation is idempotent and commutes: a thousand callers whose refusals
// of one token arrive late and one by one cause one fetch, and the refusal of an older token
// never harms a newer token. A token that merely expires leaves the tokens made from it
// alone. Marks are as this process knows them; another process's invalidation shows at the
// next load from the storage, or at a refusal. docs/design.md explains stamps, lineage and
// marks.
//
// # Subjects
//
// With PipelineConfig.Subject, each subject has separate tokens, marks, failures, refusals
// and renewals for the subject's own steps. Methods with a context act for the context's
// subject and on the subject's own steps. Shared steps belong to no subject: only
// InvalidateStep by name touches them, and the invalidation holds for all subjects. A
// subject whose tokens are refused again and again gets a token made from a newer shared
// token; the older shared token dies when a server has accepted a token made from the newer
// shared token, not before.
type Pipeline struct {
	graph    *graph
	ledger   *ledger  // of the shared steps
	flights  *flights // of the shared steps
	shared   *shared  // of the shared steps
	sweeper  *sweeper
	subjects *subjects // nil: one identity
	whose    func(ctx context.Context) (string, error)
	events   eventLog
	counters *counters
	watcher  *watcher // nil: the storage doesn't push
}

// NewPipeline checks cfg and returns its Pipeline. The error joins all mistakes: a name
// that is empty or used twice, an unknown parent, a cycle, an unknown Leaf, a missing
// Fetcher, a fetcher with mistakes, a negative duration. Nothing is fetched or loaded.
func NewPipeline(cfg PipelineConfig) (*Pipeline, error) {
	var mistakes mistake.List
	var own *MemoryStorage
	if cfg.Storage == nil {
		own = NewMemoryStorage()
		cfg.Storage = own
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
		ledger:   newLedger(g),
		whose:    cfg.Subject,
		events:   newEventLog(cfg.Logger, cfg.SubjectLabel),
		counters: &counters{steps: make([]stepCounters, len(g.steps))},
	}
	if cfg.Subject != nil {
		p.subjects = newSubjects(g, p.ledger, cfg.MaxSubjects, own, p.counters, p.events.labelOf)
	}
	records := &records{graph: g, owner: p.ledger, ahead: cfg.RefreshAhead}
	p.shared = &shared{
		graph: g, ledger: p.ledger, records: records, events: p.events, counters: p.counters,
		store: newStore(cfg.Storage, cfg.StorageTimeout, own == nil, p.events),
	}
	p.sweeper = &sweeper{shared: p.shared, subjects: p.subjects}
	p.shared.news = p.sweeper.recheck
	p.flights = &flights{
		graph: g, ledger: p.ledger, subjects: p.subjects, records: records, shared: p.shared, events: p.events, counters: p.counters,
		asker:    &asker{retries: cfg.FetchRetries, answers: cfg.KeepAnswers, slots: slot.New(cfg.MaxFetches), events: p.events, counters: p.counters, dead: make([]atomic.Bool, len(g.steps))},
		hooks:    &hooks{events: p.events},
		revoker:  &revoker{grace: cfg.RevokeReplaced, counters: p.counters},
		coolDown: cfg.CoolDown,
		steps:    make([]flight.Flight[*held], g.shared),
		left:     newLeftBehind(g.shared),
	}
	// With slots of its own: a silent revocation endpoint must hold up no login.
	p.flights.revoker.asker = &asker{retries: cfg.FetchRetries, slots: slot.New(cfg.MaxFetches)}
	if cfg.Subject != nil {
		p.flights.carry = &carrier{cfg.Carry}
	}
	if w, ok := unwrap.Find[Watcher](cfg.Storage); ok {
		p.watcher = p.sweeper.watch(w)
		// For programs that drop the pipeline without Close.
		runtime.AddCleanup(p, func(w *watcher) { w.end() }, p.watcher)
	}
	return p, nil
}

// Token returns a live token of the leaf: the step in PipelineConfig.Leaf, or the only step
// that is no other step's parent. If necessary, Token fetches first. For the tokens of
// further steps use Source. The token is shared and must not be changed. With
// PipelineConfig.Subject, and unless the leaf is shared, the token belongs to ctx's
// subject.
//
// While the token is live, Token takes no lock, touches no storage and allocates nothing,
// whatever the number of callers. Otherwise one fetch a step serves all callers. The fetch
// belongs to no caller: when ctx ends, Token returns ctx's cause and the fetch continues.
// An error is an *AuthError with the name of the step, or wraps ctx's cause. Inside a fetch
// of the same pipeline, where Token would wait for itself, Token returns an error that says
// so. If several steps could be the leaf and Leaf is "", the error names them and nothing
// is fetched. Neither is anything fetched if ctx lacks a necessary subject.
func (p *Pipeline) Token(ctx context.Context) (*Token, error) {
	if tok := p.ready(ctx); tok != nil {
		return tok, nil
	}
	return p.fetched(ctx, p.graph.leaf)
}

// fetched returns a token of s, which may be nil, if no token is at hand.
func (p *Pipeline) fetched(ctx context.Context, s *step) (*Token, error) {
	if s == nil {
		return nil, p.graph.noLeaf
	}
	fs, leave, err := p.flightsFor(ctx, s)
	if err != nil {
		return nil, err
	}
	defer leave()
	if s.Given != nil {
		return given(ctx, s, fs.deaf(s).givens)
	}
	h, err := fs.get(ctx, s, demand{})
	if err != nil {
		return nil, err
	}
	return h.tok, nil
}

// ready returns the token for Token if the token is at hand; else nil.
func (p *Pipeline) ready(ctx context.Context) *Token {
	if p.graph.leaf == nil {
		return nil
	}
	return p.live(ctx, p.graph.leaf)
}

// live is the hot path: the token of s if live. It reads the clock each time, since a
// process that was stopped or suspended must not hand out a token that has expired
// meanwhile.
func (p *Pipeline) live(ctx context.Context, s *step) *Token {
	if s.perSubject {
		return p.liveFor(ctx, s)
	}
	h := p.ledger.ready(s)
	if h == nil {
		return nil
	}
	if h.edge == 0 || time.Now().UnixNano() < h.edge {
		return h.handOut()
	}
	return p.atEdge(ctx, p.ledger, h, func() (*flights, func()) { return p.flights, func() {} })
}

// atEdge is live for a token of l that is due for renewal, has expired, or whose use has to
// be recorded. of returns the token's flights and a function that releases them; nil: the
// flights are gone.
func (p *Pipeline) atEdge(ctx context.Context, l *ledger, h *held, of func() (*flights, func())) *Token {
	now := time.Now()
	if !h.fresh(now) {
		return nil
	}
	h.use(now)
	due := l.tend(h, now)
	if h.ahead(now) {
		due = append(due, h)
	}
	if len(due) > 0 {
		if fs, leave := of(); fs != nil {
			defer leave()
			for _, h := range due {
				fs.of(h.step).ahead(ctx, h)
			}
		}
	}
	return h.handOut()
}

var (
	errNobody    = errors.New("PipelineConfig.Subject returned \"\": the context is nobody's; put the user that the request was verified to be from into the request's context")
	errAnonymous = errors.New("PipelineConfig.Subject returned an ID of SubjectID whose last part, the user, is empty")
)

// subject returns the subject of ctx. Another try can't help after an error.
func (p *Pipeline) subject(ctx context.Context) (string, error) {
	id, err := p.asked(ctx)
	switch {
	case err != nil:
		err = redact.Inner(err)
	case id == "":
		err = errNobody
	case anonymous(id):
		err = errAnonymous
	default:
		return id, nil
	}
	return "", mistake.Final(fmt.Errorf("requestforge: no subject: %w", err))
}

// missingFor returns why ctx has no subject although a token of s is one's.
func (p *Pipeline) missingFor(ctx context.Context, s *step) error {
	if s == nil || !s.perSubject {
		return nil
	}
	_, err := p.subject(ctx)
	return err
}

// missing says so of Token.
func (p *Pipeline) missing(ctx context.Context) error { return p.missingFor(ctx, p.graph.leaf) }

// asked returns the result of PipelineConfig.Subject.
func (p *Pipeline) asked(ctx context.Context) (id string, err error) {
	defer func() {
		if v := recover(); v != nil {
			id, err = "", &flight.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return p.whose(ctx)
}

// keptFor returns ctx's subject in memory, or nil, and the ID.
func (p *Pipeline) keptFor(ctx context.Context) (sub *subject, id string) {
	if p.subjects == nil {
		return nil, ""
	}
	id, err := p.asked(ctx)
	if err != nil || id == "" {
		return nil, ""
	}
	return p.subjects.get(nameOf(id)), id
}

// liveFor is live for a step of each subject's own. A subject with an invalid ID has
// nothing in memory.
func (p *Pipeline) liveFor(ctx context.Context, s *step) *Token {
	sub, id := p.keptFor(ctx)
	if sub == nil || s.Given != nil {
		return nil
	}
	h := sub.ledger.ready(s)
	if h == nil {
		return nil
	}
	p.subjects.use(sub)
	if h.edge == 0 || time.Now().UnixNano() < h.edge {
		return h.handOut()
	}
	return p.atEdge(ctx, &sub.ledger, h, func() (*flights, func()) { return p.flightsKept(id, sub) })
}

// flightsKept returns the flights of a subject, who stays in memory until leave is called;
// nil if the subject was dropped a moment ago.
func (p *Pipeline) flightsKept(id string, sub *subject) (fs *flights, leave func()) {
	if !p.subjects.pin(sub) {
		return nil, nil
	}
	return p.flightsIn(id, sub)
}

// flightsIn returns the flights of a subject that was entered, or pinned, and how to leave.
func (p *Pipeline) flightsIn(id string, sub *subject) (fs *flights, leave func()) {
	leave = func() { p.subjects.leave(sub) }
	defer func() {
		if fs == nil { // SubjectLabel has ended the goroutine
			leave()
		}
	}()
	fs = p.flights.below(id, sub)
	return fs, leave
}

// flightsFor returns the flights of a step for ctx's subject, who stays in memory until
// leave is called.
func (p *Pipeline) flightsFor(ctx context.Context, s *step) (fs *flights, leave func(), err error) {
	if !s.perSubject {
		return p.flights, func() {}, nil
	}
	return p.flightsOf(ctx)
}

// flightsOf returns the flights of ctx's subject, who stays in memory until leave is
// called.
func (p *Pipeline) flightsOf(ctx context.Context) (fs *flights, leave func(), err error) {
	id, err := p.subject(ctx)
	if err != nil {
		return nil, nil, err
	}
	fs, leave = p.flightsIn(id, p.subjects.enter(id))
	return fs, leave, nil
}

// Refresh fetches newer tokens for the step of Token and all its ancestors, and returns the
// new token of the step. The old tokens stay live until then, and also if Refresh fails.
// Refresh asks the auth server even while a step cools down after a failure. Concurrent
// calls may share fetches. For a subject, only the subject's own steps get newer tokens.
func (p *Pipeline) Refresh(ctx context.Context) (*Token, error) {
	s := p.graph.leaf
	if s == nil || s.Given != nil {
		return p.fetched(ctx, s)
	}
	fs, leave, err := p.flightsFor(ctx, s)
	if err != nil {
		return nil, err
	}
	defer leave()
	// After an error, the knowledge of this process must suffice.
	_, _ = fs.shared.pull(ctx, fs.ledger.own()...)
	h, err := fs.get(ctx, s, demand{floor: fs.ledger.tops(), now: true})
	if err != nil {
		return nil, err
	}
	return h.tok, nil
}

// InvalidateStep invalidates the current token of the named step and all tokens made from
// that token: for this process at once, for processes with the same storage as soon as they
// learn of the invalidation. InvalidateStep loads first, so that a token stored by another
// process is invalidated, too. An error means that the storage may not know; if the load
// failed, a token that only the storage has stays valid, as after a restart, or for a subject
// dropped from memory. Call InvalidateStep again then.
//
// A step of each subject's own is invalidated for ctx's subject. A shared step is
// invalidated for all subjects, with the tokens made from it. A given step has no token
// here; only the tokens made from its token are invalidated.
func (p *Pipeline) InvalidateStep(ctx context.Context, name string) error {
	s := p.graph.step(name)
	if s == nil {
		return fmt.Errorf("requestforge: InvalidateStep: %q is no step of this pipeline", name)
	}
	return p.invalidate(ctx, func(t *step) bool { return t == s || slices.Contains(t.givens, s) })
}

// InvalidateAll is InvalidateStep for every step; with PipelineConfig.Subject for every
// step of ctx's subject.
func (p *Pipeline) InvalidateAll(ctx context.Context) error {
	return p.invalidate(ctx, func(s *step) bool { return s.perSubject == (p.subjects != nil) })
}

func (p *Pipeline) invalidate(ctx context.Context, which func(*step) bool) error {
	steps := slices.DeleteFunc(slices.Clone(p.graph.steps), func(s *step) bool { return !which(s) })
	if len(steps) == 0 {
		return nil
	}
	fs, leave, err := p.flightsFor(ctx, steps[0])
	if err != nil {
		return err
	}
	defer leave()
	_, err = fs.shared.pull(ctx, steps...)
	if err == errForgot {
		err = nil // and so nothing is left to invalidate
	}
	errs := []error{err}
	for _, s := range steps {
		b, raised := fs.ledger.revokeAll(s)
		switch {
		case raised:
			errs = append(errs, fs.shared.revoke(ctx, b))
		case b.stamp > 0: // known here is not yet known there
			errs = append(errs, fs.shared.mark(ctx, s, b.stamp))
		}
	}
	return errors.Join(errs...)
}

// Forget is a local logout: nothing of the pipeline stays in this process or in the
// storage, not even refresh tokens. A tombstone in the storage makes all other processes
// forget, too: at once if the storage pushes, else within 30 s. Refreshes under way in
// other processes come to nothing. So do fetches under way here, and their callers get an
// error that says so. The next Token logs in from scratch. The auth server isn't told; use
// Logout to end the session there.
//
// Forget continues when ctx ends. An error means that this process has forgotten and other
// processes may not know yet; a later look at the storage writes the tombstone, unless this
// process has logged in by then.
//
// With PipelineConfig.Subject, Forget logs ctx's subject out; the shared steps stay.
func (p *Pipeline) Forget(ctx context.Context) error {
	fs, leave, err := p.flights, func() {}, error(nil)
	if p.subjects != nil {
		if fs, leave, err = p.flightsOf(ctx); err != nil {
			return err
		}
	}
	defer leave()
	fs.ledger.forget(time.Now())
	fs.events.log(ctx, slog.LevelInfo, "everything forgotten", nil)
	_, err = fs.shared.forget(context.WithoutCancel(ctx))
	return err
}

// Stats returns the counters as they are now.
func (p *Pipeline) Stats() Stats {
	s := p.counters.snapshot(p.graph.steps)
	s.StorageErrors = p.shared.store.errors.Load()
	s.Subjects = uint64(p.subjects.len())
	return s
}

// Close ends the pipeline's work in the background: the subscription to a storage that is a
// Watcher, and fetches without waiting callers, by ending their context. A fetch with
// waiting callers continues until the last caller has left. A save under way completes, and
// a refresh under way continues for FetchTimeout, since its answer may hold the only
// refresh token left. Close doesn't wait for fetches. Tokens that wait for
// PipelineConfig.RevokeReplaced end at the server; call Logout before Close to revoke them.
//
// Token works after Close, without renewals ahead of expiry; revocations by other processes
// then show within half a minute. Close may be called more than once and by many
// goroutines. An error means that the storage continues to listen. An unreachable pipeline
// stops listening without Close, some time later. The caller closes the storage, after the
// pipeline.
func (p *Pipeline) Close() error {
	p.flights.revoker.close()
	p.subjects.close()
	flight.CloseAll(p.flights.steps)
	if p.watcher == nil {
		return nil
	}
	select {
	case <-p.watcher.end():
		return nil
	case <-time.After(4 * p.shared.store.patience()):
		return errors.New("requestforge: Close: the storage goes on watching although it was told to stop")
	}
}
