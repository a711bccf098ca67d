// The step graph: which token is live, who fetches it, what an invalidation
// takes with it. The graph is built in pipeline_graph.go, a step's token is got
// in pipeline_fetch.go, what a refusal costs is pipeline_refusal.go's, and where
// tokens are kept is storage.go's.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
)

// TokenSource supplies the tokens of requests. A Pipeline is one.
//
// Rules for implementers:
//   - Both methods are safe for concurrent use.
//   - Token returns a token that is live now, or an error, never neither. The
//     token is shared: nobody changes it.
//   - Token is on the path of every request. It honours ctx while it waits.
//   - Invalidate is told the very token that was refused. A source whose
//     current token is another one by then must keep that: refusals of one
//     token arrive many times, and late. nil does nothing.
//   - A source that has no other token to give returns the same one again;
//     the refusal then goes back to the caller.
type TokenSource interface {
	Token(ctx context.Context) (*Token, error)
	Invalidate(ctx context.Context, rejected *Token) error
}

// Step is one call of a login.
type Step struct {
	// Name identifies the step in DependsOn, in errors, in logs and, with
	// PipelineConfig.KeyPrefix, in the storage. Required, unique.
	Name string

	// DependsOn names the steps whose tokens this one's fetch uses. They
	// arrive in Input.Parents.
	DependsOn []string

	// TTL bounds a token's life from the moment it was fetched. The
	// earlier of TTL and the token's own Expiry wins. Zero means no bound.
	TTL time.Duration

	// Fetcher gets a token from scratch. Required.
	Fetcher Fetcher

	// Refresh, if set, gets the next token while the previous one holds a
	// refresh token, which it finds in Input.Previous. If the auth server
	// answers with any 4xx but 408 and 429, or it stays open whether it
	// was reached, Fetcher is asked instead.
	// It needs a Storage that is a Locker, because a refresh token that is
	// used twice can cost the login.
	Refresh Fetcher

	// OnError is told each error of a fetch of this step, after the tries
	// within it are used up. It is part of the fetch: everyone who waits
	// for the token waits for it, too. A panic in it is ignored.
	OnError func(ctx context.Context, err error)

	// OnRotate is told a token whose refresh token is not the one before,
	// after it was saved and before anybody gets it, so that an
	// application can keep the refresh token itself. It runs like OnError.
	OnRotate func(ctx context.Context, tok *Token)
}

// PipelineConfig describes a Pipeline. The zero value of each field but Steps
// is a sensible choice.
type PipelineConfig struct {
	// Steps are the calls of the login, in any order. Exactly one of them,
	// the leaf, is nobody's parent: its token goes on requests.
	Steps []Step

	// Storage keeps the tokens. Nil means a MemoryStorage of its own.
	Storage Storage

	// KeyPrefix separates the pipelines that share a Storage: the key of a
	// step is KeyPrefix, a colon and the step's name. "" means
	// "requestforge". Two pipelines with one prefix share their tokens.
	KeyPrefix string

	// RefreshFrom names the step that a refusal of an accepted token takes
	// the blame to: it and all that was made from it are fetched again.
	// "" means the leaf alone.
	RefreshFrom string

	// FetchTimeout bounds one fetch of one step with all its tries,
	// whoever asked for it; a fetcher that is deaf to its context is left
	// behind. Zero means 30 s; negative means no bound, so a silent auth
	// server can hold every waiter until its own context ends.
	FetchTimeout time.Duration

	// FetchRetries is how often one fetch is tried again after a network
	// error, 408, 429, 5xx or an HTML page. Any other answer is final: a
	// wrong password is sent once. Zero means 2; negative means never.
	FetchRetries int

	// StorageTimeout bounds each call of Storage. Zero means 250 ms.
	StorageTimeout time.Duration

	// CoolDown is how long the first failure of a step is remembered:
	// until then everyone who asks gets it at once. It doubles with each
	// failure in a row up to MaxCoolDown, where permanent failures are
	// from the start. A Retry-After can make it longer, up to 5 min.
	// Zero means 1 s, and 30 s.
	CoolDown, MaxCoolDown time.Duration

	// RefreshAhead is the most by which a leaf token is renewed in the
	// background before it expires; never more than half its life. Zero
	// means 5 min; negative means never.
	RefreshAhead time.Duration

	// Logger is told of fetches, invalidations, failures and storage
	// outages. No secret is ever in a record. Nil means no logging.
	Logger *slog.Logger
}

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
	cfg   PipelineConfig
	steps []*step // in topological order, parents first
	leaf  *step
	from  *step // where the blame for a refused leaf begins
	store store
	state *state

	watcher *watcher // nil: the storage doesn't push
}

// step is a Step in its graph. Immutable, but for what is derived once.
type step struct {
	Step
	index     int     // in Pipeline.steps
	key       string  // in the storage
	parents   []*step // as DependsOn has them
	ancestors []*step // each once, in topological order
	keys      []string
	// levels are the ancestors by their distance, the step itself first.
	levels [][]*step

	printOnce sync.Once
	print     string // see fingerprint
}

// state is all that changes in a Pipeline, for one subject.
type state struct {
	p *Pipeline

	// leaf is the token that requests carry. It is replaced and cleared
	// under mu, together with what made it live or dead, and read on
	// every request without.
	leaf atomic.Pointer[held]

	mu     sync.Mutex
	steps  []stepState // by step.index; guarded by mu
	bucket bucket      // guarded by mu
	futile int         // refusals in a row of tokens that nothing ever accepted; guarded by mu
	epoch  int         // how often everything was forgotten; guarded by mu

	flights []flight.Flight[*held] // by step.index
	stats   []stepCounters         // by step.index
	counts  counters

	rechecking atomic.Bool // see recheck
}

// stepState is what this process knows of one step.
type stepState struct {
	mark    uint64    // low-water mark; never falls
	top     uint64    // highest stamp ever seen
	seen    uint64    // stamp of the record in the storage, when last looked
	cur     *held     // the newest token known, live or not; nil: none
	spent   uint64    // refresh tokens up to this stamp must not be sent again
	failure *failure  // the last fetch failed; nil: it didn't
	fails   int       // failures in a row
	futile  time.Time // when blaming the parents changed nothing
}

// held is a token with what decides about its life. Immutable but for next and
// calm.
type held struct {
	tok     *Token
	stamp   uint64
	lineage []uint64 // by the position in step.ancestors
	unsaved bool     // the stamp is this process's own
	issued  time.Time

	// In Unix nanoseconds; 0: never. From soft on the token is renewed in
	// the background, from hard on it isn't handed out.
	soft, hard int64
	next       atomic.Int64 // no renewal begins before it

	// calm says that the token needs no look at the wall clock, see inTime.
	calm atomic.Bool
}

// provenance is where a token came from, and what is ready-made for putting
// it on a request.
type provenance struct {
	state *state // nil: not from a pipeline
	step  *step
	held  *held

	// accepted is set once a server has taken the token: from then on a
	// refusal means that it was revoked.
	accepted atomic.Bool

	typ           string   // the TokenType that these were made with
	authorization []string // the value of Authorization
	bare          []string // the value of any other header
}

func newProvenance(tok *Token) *provenance {
	return &provenance{
		typ:           tok.TokenType,
		authorization: []string{tok.Type() + " " + tok.AccessToken},
		bare:          []string{tok.AccessToken},
	}
}

// fresh reports whether h is unexpired, with the skew between clocks and the
// time that a request needs taken off.
func (h *held) fresh(now time.Time) bool {
	return h.hard == 0 || now.UnixNano() < h.hard
}

// live reports whether every stamp in h's lineage is above its mark. The
// caller holds mu.
func (st *state) live(s *step, h *held) bool {
	if h.stamp <= st.steps[s.index].mark {
		return false
	}
	for i, a := range s.ancestors {
		if h.lineage[i] <= st.steps[a.index].mark {
			return false
		}
	}
	return true
}

// raise lifts the mark of s to stamp, and with it kills what was made from
// the tokens below. It reports whether that changed anything. The caller
// holds mu.
func (st *state) raise(s *step, stamp uint64) bool {
	ss := &st.steps[s.index]
	if stamp <= ss.mark {
		return false
	}
	ss.mark = stamp
	ss.top = max(ss.top, stamp)
	if h := st.leaf.Load(); h != nil && !st.live(st.p.leaf, h) {
		st.leaf.Store(nil)
	}
	return true
}

// put makes h the newest token of s, unless a newer one is known. Of two with
// one stamp, which a storage that has lost its stamps can give out, the one
// that was heard of last is in the storage. The caller holds mu.
func (st *state) put(s *step, h *held) {
	ss := &st.steps[s.index]
	ss.top = max(ss.top, h.stamp)
	for i, a := range s.ancestors {
		as := &st.steps[a.index]
		as.top = max(as.top, h.lineage[i])
	}
	if c := ss.cur; c != nil && c.stamp > h.stamp {
		return
	}
	ss.cur = h
	if s == st.p.leaf && st.live(s, h) {
		st.leaf.Store(h)
		st.recheck()
	}
}

// current returns the token of s if it is live and w is met, else nil.
func (st *state) current(s *step, w want) *held {
	st.mu.Lock()
	defer st.mu.Unlock()
	h := st.steps[s.index].cur
	if h == nil || !h.fresh(time.Now()) || !st.live(s, h) || !w.metBy(s, h) {
		return nil
	}
	return h
}

// NewPipeline checks cfg and returns its Pipeline. The error joins every
// mistake: a name that is empty or used twice, an unknown parent, a cycle,
// more than one leaf, a missing Fetcher, a fetcher with mistakes of its own,
// a negative duration. Nothing is fetched or loaded.
func NewPipeline(cfg PipelineConfig) (*Pipeline, error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("requestforge: "+format, args...))
	}
	cfg.Steps = slices.Clone(cfg.Steps)
	if cfg.KeyPrefix == "" {
		cfg.KeyPrefix = "requestforge"
	}
	shared := cfg.Storage != nil
	if !shared {
		cfg.Storage = NewMemoryStorage()
	} else if isNilPointer(cfg.Storage) {
		bad("PipelineConfig.Storage is a nil %T; leave it out for a store in memory", cfg.Storage)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
		neg   bool // a negative value has a meaning
	}{
		{"FetchTimeout", &cfg.FetchTimeout, 30 * time.Second, true},
		{"StorageTimeout", &cfg.StorageTimeout, 250 * time.Millisecond, false},
		{"CoolDown", &cfg.CoolDown, time.Second, false},
		{"MaxCoolDown", &cfg.MaxCoolDown, max(30*time.Second, cfg.CoolDown), false},
		{"RefreshAhead", &cfg.RefreshAhead, 5 * time.Minute, true},
	} {
		if *d.value == 0 {
			*d.value = d.zero
		}
		if *d.value < 0 && !d.neg {
			bad("PipelineConfig.%s is negative (%v); use 0 for the default of %v", d.name, *d.value, d.zero)
		}
	}
	if cfg.MaxCoolDown < cfg.CoolDown {
		bad("PipelineConfig.MaxCoolDown (%v) is below CoolDown (%v)", cfg.MaxCoolDown, cfg.CoolDown)
	}
	if cfg.FetchRetries == 0 {
		cfg.FetchRetries = 2
	}

	p := &Pipeline{cfg: cfg}
	p.store = store{Storage: cfg.Storage, timeout: cfg.StorageTimeout, shared: shared, log: cfg.Logger}
	p.graph(bad)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	p.state = p.newState()
	if w, ok := cfg.Storage.(Watcher); ok {
		p.watcher = p.state.watch(w)
	}
	return p, nil
}

func (p *Pipeline) newState() *state {
	st := &state{
		p:       p,
		steps:   make([]stepState, len(p.steps)),
		flights: make([]flight.Flight[*held], len(p.steps)),
		stats:   make([]stepCounters, len(p.steps)),
	}
	st.bucket.fill()
	return st
}

// Token returns the leaf's live token, and fetches what that takes. The token
// is shared and must not be changed.
//
// While the token is live this takes no lock, touches no storage and
// allocates nothing, whatever the number of callers; ten times a second one of
// them reads the clock and sets a timer. Otherwise one fetch a step serves
// everyone who asks. It belongs to none of them: when ctx ends Token returns
// its cause and the fetch goes on. An error is an *AuthError that names the
// step, or wraps ctx's cause. Called from inside a fetch of this very
// pipeline, where it would wait for itself, it says so.
func (p *Pipeline) Token(ctx context.Context) (*Token, error) {
	if tok := p.ready(ctx); tok != nil {
		return tok, nil
	}
	h, err := p.state.get(ctx, p.leaf, want{})
	if err != nil {
		return nil, err
	}
	return h.tok, nil
}

// ready is the hot path: the leaf's token if it is live.
func (p *Pipeline) ready(ctx context.Context) *Token {
	st := p.state
	h := st.leaf.Load()
	if h == nil {
		return nil
	}
	if h.hard == 0 || h.calm.Load() {
		return h.tok
	}
	return st.inTime(ctx, h)
}

// wallEvery is how often the hot path reads the wall clock, which tokens
// expire by. To read any clock costs more than all the rest of that path.
const wallEvery = 100 * time.Millisecond

// inTime is ready with a look at the wall clock: it returns h's token unless
// that has expired, and sees to its renewal. If both are far enough away, the
// clock isn't read again for wallEvery. The invariant: a token is calm only
// while a timer is going to end that, and it begins so early that the timer
// may be late by as much again before a request could notice.
func (st *state) inTime(ctx context.Context, h *held) *Token {
	now := time.Now()
	if !h.fresh(now) {
		return nil
	}
	edge := h.hard
	if h.soft != 0 {
		edge = h.soft
	}
	switch left := time.Duration(edge - now.UnixNano()); {
	case left <= 0:
		st.ahead(ctx, h, now)
	case left > 2*wallEvery && h.calm.CompareAndSwap(false, true):
		time.AfterFunc(wallEvery, func() { h.calm.Store(false) })
	}
	return h.tok
}

// Refresh fetches newer tokens for every step and returns the leaf's. Until
// then, and if it fails, the old ones stay live. Called again while it runs,
// it may share the fetches.
func (p *Pipeline) Refresh(ctx context.Context) (*Token, error) {
	h, err := p.state.get(ctx, p.leaf, p.state.newer(ctx))
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
	for _, s := range p.steps {
		if s.Name == name {
			return p.state.invalidateSteps(ctx, s)
		}
	}
	return fmt.Errorf("requestforge: InvalidateStep: %q is no step of this pipeline", name)
}

// InvalidateAll is InvalidateStep for every step.
func (p *Pipeline) InvalidateAll(ctx context.Context) error {
	return p.state.invalidateSteps(ctx, p.steps...)
}

func (st *state) invalidateSteps(ctx context.Context, steps ...*step) error {
	_, err := st.pull(ctx, steps, nil)
	if err == errForgot {
		err = nil // and so nothing is left to invalidate
	}
	errs := []error{err}
	for _, s := range steps {
		st.mu.Lock()
		stamp := st.steps[s.index].top
		raised := st.raise(s, stamp)
		st.mu.Unlock()
		if raised {
			st.counts.invalidations.Add(1)
			st.log(ctx, slog.LevelInfo, "token invalidated", s, slog.Uint64("stamp", stamp))
		}
		if stamp > 0 { // known here is not yet known there
			errs = append(errs, st.p.store.revoke(ctx, s.key, stamp))
		}
	}
	return errors.Join(errs...)
}

// Forget is a logout: nothing of the pipeline stays in this process or in the
// storage, refresh tokens included, and a fetch under way comes to nothing.
// The next Token logs in from scratch. The auth server is not told.
func (p *Pipeline) Forget(ctx context.Context) error {
	st := p.state
	st.mu.Lock()
	st.epoch++
	st.futile = 0
	st.leaf.Store(nil)
	for i := range st.steps {
		ss := &st.steps[i]
		// The marks and stamps stay: they hold no secret, and they keep a
		// token that is on its way back from anywhere from being live.
		st.steps[i] = stepState{mark: ss.top, top: ss.top, spent: ss.top}
	}
	st.mu.Unlock()
	st.log(ctx, slog.LevelInfo, "everything forgotten", nil)
	return p.store.delete(context.WithoutCancel(ctx), p.keys()...)
}

func (p *Pipeline) keys() []string {
	keys := make([]string, len(p.steps))
	for i, s := range p.steps {
		keys[i] = s.key
	}
	return keys
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
	case <-time.After(4 * min(p.cfg.StorageTimeout, time.Minute)):
		return errors.New("requestforge: Close: the storage's Watch goes on although its context has ended")
	}
}

// log writes a record about s; nil: about the pipeline.
func (st *state) log(ctx context.Context, level slog.Level, msg string, s *step, attrs ...slog.Attr) {
	l := st.p.cfg.Logger
	if l == nil || !l.Enabled(ctx, level) {
		return
	}
	if s != nil {
		attrs = slices.Insert(attrs, 0, slog.String("step", s.Name))
	}
	l.LogAttrs(ctx, level, "requestforge: "+msg, attrs...)
}
