// How the token of one step is got: joined, loaded, locked, fetched, saved.
// What makes it live is pipeline.go's.

package requestforge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/requestforge/requestforge/internal/flight"
)

const (
	// rounds is how often a flight starts over because what it fetched
	// was dead on arrival, and how often a caller joins another flight.
	rounds, joins = 3, 16

	// maxSkew is taken off a token's life for the time that a request
	// needs and for clocks that differ; never more than a tenth of it.
	maxSkew = 10 * time.Second

	// maxTryWait bounds the wait between two tries of one fetch; an auth
	// server that asks for more is asked again by a later flight.
	maxTryWait = 5 * time.Second

	// minKeep is how long a record without a refresh token outlives its
	// expiry: long enough for its mark to outlive every copy of it.
	minKeep = time.Hour
)

// want says which tokens will do. nil floors: any that is live.
type want struct {
	floor []uint64 // by step.index: the step's stamp has to be above
}

// metBy reports whether h and its whole lineage are new enough.
func (w want) metBy(s *step, h *held) bool {
	if w.floor == nil {
		return true
	}
	if h.stamp <= w.floor[s.index] {
		return false
	}
	for i, a := range s.ancestors {
		if h.lineage[i] <= w.floor[a.index] {
			return false
		}
	}
	return true
}

// above returns w with the further demand of a token of s above stamp.
func (st *state) above(w want, s *step, stamp uint64) want {
	floor := slices.Clone(w.floor)
	if floor == nil {
		floor = make([]uint64, len(st.steps))
	}
	floor[s.index] = max(floor[s.index], stamp)
	return want{floor}
}

// newer wants tokens of every step above those that exist now.
func (st *state) newer(ctx context.Context) want {
	steps := st.p.steps
	if entries, err := st.p.store.load(ctx, st.p.keys()...); err == nil {
		st.merge(ctx, steps, entries)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	w := want{make([]uint64, len(steps))}
	for i := range st.steps {
		w.floor[i] = st.steps[i].top
	}
	return w
}

// mark says in a context which fetches it runs under.
type fetchMark struct {
	state *state
	step  *step
	outer *fetchMark
}

type fetchKey struct{}

var errOwnPipeline = errors.New("the fetcher runs through the pipeline that it fetches for and would wait for itself; give it a client of its own")

// get returns a live token of s that meets w. The fetch that it may take is
// shared with everyone who wants one of s.
func (st *state) get(ctx context.Context, s *step, w want) (*held, error) {
	if outer, _ := ctx.Value(fetchKey{}).(*fetchMark); outer != nil {
		for m := outer; m != nil; m = m.outer {
			if m.state == st {
				return nil, &AuthError{Step: m.step.Name, Permanent: true, Err: errOwnPipeline}
			}
		}
	}
	return st.join(ctx, s, w)
}

func (st *state) join(ctx context.Context, s *step, w want) (*held, error) {
	for range joins {
		if h := st.current(s, w); h != nil {
			return h, nil
		}
		if err := st.cooling(s); err != nil {
			return nil, err
		}
		h, err := st.flights[s.index].Do(ctx, func(ctx context.Context) (*held, error) {
			return st.fly(ctx, s, w)
		})
		if err != nil {
			return nil, st.explain(ctx, s, err)
		}
		// The flight may have been under way before the demand, or
		// what it brought may have died since.
		if st.usable(s, h, w) {
			return h, nil
		}
	}
	return nil, &AuthError{Step: s.Name, Err: errChurn}
}

var (
	errChurn  = errors.New("each token that was fetched had been revoked by the time it arrived; try again")
	errForgot = errors.New("everything was forgotten while the token was being fetched")
)

// explain makes an error of a flight one of s.
func (st *state) explain(ctx context.Context, s *step, err error) error {
	var auth *AuthError
	if errors.As(err, &auth) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("requestforge: waiting for the token of step %q: %w", s.Name, err)
	}
	return &AuthError{Step: s.Name, Err: err}
}

func (st *state) usable(s *step, h *held, w want) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return h.fresh(time.Now()) && st.live(s, h) && w.metBy(s, h)
}

// ahead renews the leaf's token h in the background. The callers keep h.
func (st *state) ahead(ctx context.Context, h *held, now time.Time) {
	due := h.next.Load()
	if now.UnixNano() < due || !h.next.CompareAndSwap(due, h.hard) {
		return
	}
	leaf := st.p.leaf
	begun := st.flights[leaf.index].Start(ctx, func(ctx context.Context) (*held, error) {
		if err := st.cooling(leaf); err != nil {
			h.next.Store(time.Now().Add(max(time.Second, err.RetryAfter)).UnixNano())
			return nil, err
		}
		st.stats[leaf.index].ahead.Add(1)
		n, err := st.fly(ctx, leaf, st.above(want{}, leaf, h.stamp))
		if err != nil {
			wait := st.p.cfg.CoolDown
			if auth := st.cooling(leaf); auth != nil {
				wait = max(wait, auth.RetryAfter)
			}
			h.next.Store(time.Now().Add(wait).UnixNano())
		}
		return n, err
	})
	if !begun { // another flight is under way, and may fail
		h.next.Store(now.Add(time.Second).UnixNano())
	}
}

// fly is the flight of one step: it brings a token that is live on arrival,
// or an error that everyone who waits gets and that is remembered.
func (st *state) fly(ctx context.Context, s *step, w want) (*held, error) {
	outer, _ := ctx.Value(fetchKey{}).(*fetchMark)
	ctx = context.WithValue(ctx, fetchKey{}, &fetchMark{st, s, outer})
	f := &fetch{state: st, step: s, want: w, begun: time.Now()}
	st.mu.Lock()
	f.born = st.epoch
	st.mu.Unlock()
	for range rounds {
		h, err := f.round(ctx)
		if err != nil {
			return nil, f.failed(ctx, err)
		}
		if st.usable(s, h, w) {
			return h, nil
		}
		st.log(ctx, slog.LevelInfo, "token dead on arrival", s, slog.Uint64("stamp", h.stamp))
	}
	return nil, &AuthError{Step: s.Name, Err: errChurn}
}

// fetch is one flight's work.
type fetch struct {
	*state
	step       *step
	want       want
	born       int // the epoch that it began in
	begun      time.Time
	lease      Lease // nil: none
	failing    *step // the parent that had no token; nil: it is not a parent's fault
	blamed     bool  // the parents have been blamed once
	remembered bool  // the failure is another process's
	suspects   []suspect
}

// suspect is a parent token that the auth server refused.
type suspect struct {
	step  *step
	stamp uint64
}

// round loads, locks, loads again, fetches and saves, and stops at the first
// of them that brings a token.
func (f *fetch) round(ctx context.Context) (*held, error) {
	if h := f.look(ctx); h != nil {
		return h, nil
	}
	h, unlock, err := f.lock(ctx)
	defer unlock()
	if h != nil || err != nil {
		return h, err
	}

	tok, parents, err := f.obtain(ctx)
	if err != nil {
		return nil, err
	}
	h, err = f.save(ctx, tok, parents)
	if err != nil {
		return nil, err
	}
	f.condemn(ctx)
	return h, nil
}

// look loads the step and its ancestors and returns what will do.
func (f *fetch) look(ctx context.Context) *held {
	if h := f.current(f.step, f.want); h != nil {
		return h
	}
	entries, err := f.p.store.load(ctx, f.step.keys...)
	if err != nil {
		return nil
	}
	f.merge(ctx, append([]*step{f.step}, f.step.ancestors...), entries)
	h := f.current(f.step, f.want)
	if h != nil {
		f.stats[f.step.index].loads.Add(1)
		f.log(ctx, slog.LevelDebug, "token loaded", f.step, slog.Uint64("stamp", h.stamp))
	}
	return h
}

// merge takes over what the storage holds. A mark that the storage has lost
// is written back.
func (st *state) merge(ctx context.Context, steps []*step, entries []Entry) {
	type lost struct {
		key  string
		mark uint64
	}
	var losses []lost
	garbage := map[*step]error{}
	now := time.Now()
	st.mu.Lock()
	for i, s := range steps {
		e, ss := entries[i], &st.steps[s.index]
		if e.Mark <= maxStamp {
			st.raise(s, e.Mark)
		}
		if e.Mark < ss.mark {
			losses = append(losses, lost{s.key, ss.mark})
		}
		ss.seen = 0
		if e.Record == nil {
			continue
		}
		ss.seen = e.Record.Stamp
		if c := ss.cur; c != nil && c.stamp == e.Record.Stamp && !c.unsaved {
			continue // the same; ours knows whether it was accepted
		}
		h, err := st.fromRecord(s, e.Record, now)
		if err != nil {
			garbage[s] = err
			continue
		}
		st.put(s, h)
	}
	st.mu.Unlock()
	for s, err := range garbage {
		st.counts.badRecords.Add(1)
		st.log(ctx, slog.LevelWarn, "stored record ignored", s, slog.Any("reason", err))
	}
	for _, l := range losses {
		st.p.store.revoke(ctx, l.key, l.mark)
	}
}

// fromRecord makes a token of a record, or says why it is none of s's.
func (st *state) fromRecord(s *step, r *Record, now time.Time) (*held, error) {
	if r.Key != s.key {
		return nil, errors.New("it was saved under another key")
	}
	if r.Stamp == 0 || r.Stamp > maxStamp {
		return nil, errors.New("its stamp is out of range")
	}
	if err := r.Token.validate(); err != nil {
		return nil, err
	}
	if len(r.Lineage) != len(s.ancestors) {
		return nil, errors.New("it was made by another graph of steps")
	}
	lineage := make([]uint64, len(s.ancestors))
	for i, a := range s.ancestors {
		stamp, ok := r.Lineage[a.key]
		if !ok {
			return nil, errors.New("it was made by another graph of steps")
		}
		lineage[i] = stamp
	}
	tok := *r.Token
	issued := r.Issued
	if issued.After(now) && !tok.Expiry.IsZero() {
		// Written by a clock ahead of ours, which put the expiry as
		// far ahead.
		tok.Expiry = tok.Expiry.Add(now.Sub(issued))
		issued = now
	}
	h := st.hold(s, tok, issued, lineage)
	h.stamp = r.Stamp
	h.tok.prov.accepted.Store(true) // by whoever saved it, or so we assume
	return h, nil
}

// hold makes tok ready to be handed out.
func (st *state) hold(s *step, tok Token, issued time.Time, lineage []uint64) *held {
	tok.prov = newProvenance(&tok)
	h := &held{tok: &tok, issued: issued, lineage: lineage}
	tok.prov.state, tok.prov.step, tok.prov.held = st, s, h
	// Beyond that, Unix nanoseconds overflow; it is never for our ends.
	if tok.Expiry.IsZero() || tok.Expiry.Year() > 2200 {
		return h
	}
	life := tok.Expiry.Sub(issued)
	h.hard = tok.Expiry.Add(-min(maxSkew, life/10)).UnixNano()
	if cap := st.p.cfg.RefreshAhead; cap > 0 && life > 0 {
		window := min(life/2, cap)
		window -= rand.N(window/4 + 1) // so that replicas don't all come at once
		h.soft = min(h.hard, tok.Expiry.Add(-window).UnixNano())
	}
	return h
}

// lock keeps other processes from fetching, if the storage can. It returns a
// token if a peer brings one meanwhile. If the storage is of no help, the
// flight goes on without a lease.
func (f *fetch) lock(ctx context.Context) (h *held, unlock func(), err error) {
	unlock = func() {}
	locker, ok := f.p.cfg.Storage.(Locker)
	if !ok {
		return nil, unlock, f.told(ctx)
	}
	// A peer takes one fetch of this step, and of each ancestor before.
	var patience <-chan time.Time
	if t := f.p.cfg.FetchTimeout; t > 0 {
		timer := time.NewTimer(t * time.Duration(1+len(f.step.levels)))
		defer timer.Stop()
		patience = timer.C
	}
	pause := 20 * time.Millisecond
	for {
		lease, got, err := f.p.store.tryLock(ctx, locker, f.step.key)
		if err != nil {
			return nil, unlock, nil
		}
		if got {
			f.lease = lease
			unlock = func() {
				f.lease = nil
				f.p.store.unlock(ctx, lease)
			}
			// What the peer before us brought.
			if h = f.look(ctx); h == nil {
				err = f.told(ctx)
			}
			return h, unlock, err
		}
		f.stats[f.step.index].lockWaits.Add(1)
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-patience:
			f.log(ctx, slog.LevelWarn, "a peer holds the lock of the step for too long; going on without", f.step)
			return nil, unlock, nil
		}
		pause = min(2*pause, 250*time.Millisecond)
		if h = f.look(ctx); h != nil {
			return h, unlock, nil
		}
		if err = f.told(ctx); err != nil {
			return nil, unlock, err
		}
	}
}

// leased reports whether no other process can be at this step now.
func (f *fetch) leased() bool {
	if f.lease == nil {
		return false
	}
	select {
	case <-f.lease.Done():
		return false
	default:
		return true
	}
}

// obtain asks the auth server: with the previous refresh token if there is
// one that may be spent, else from scratch.
func (f *fetch) obtain(ctx context.Context) (*Token, []*held, error) {
	s := f.step
	if prev := f.refreshable(); prev != nil {
		tok, parents, err := f.call(ctx, s.Refresh, prev)
		if err == nil {
			f.stats[s.index].refreshes.Add(1)
			return tok, parents, nil
		}
		if !f.dismisses(err) {
			return nil, nil, err
		}
		f.mu.Lock()
		f.steps[s.index].spent = prev.stamp
		f.mu.Unlock()
		f.log(ctx, slog.LevelInfo, "refresh token of no use; logging in from scratch", s, slog.Any("error", err))
	}
	return f.call(ctx, s.Fetcher, nil)
}

// refreshable returns the newest token if its refresh token may be spent.
func (f *fetch) refreshable() *held {
	if f.step.Refresh == nil || !f.leased() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ss := &f.steps[f.step.index]
	if ss.cur == nil || ss.cur.tok.RefreshToken == "" || ss.cur.stamp == ss.spent {
		return nil
	}
	return ss.cur
}

// dismisses reports whether after err the refresh token must not be sent
// again: it was refused, or it may have been spent without our seeing the
// answer.
func (f *fetch) dismisses(err error) bool {
	var auth *AuthError
	if f.failing != nil || !errors.As(err, &auth) {
		return false
	}
	if code := auth.StatusCode; code >= 400 && code < 500 && code != 408 && code != 429 {
		return true
	}
	return auth.Permanent || ambiguous(err)
}

// call runs one fetcher with the parents' tokens. If the auth server refuses
// it, the parents it carried are replaced and it is run once more.
func (f *fetch) call(ctx context.Context, fetcher Fetcher, prev *held) (*Token, []*held, error) {
	for {
		parents, err := f.parents(ctx)
		if err != nil {
			return nil, nil, err
		}
		in := Input{Parents: make(map[string]*Token, len(parents))}
		for i, p := range f.step.parents {
			in.Parents[p.Name] = parents[i].tok
		}
		if prev != nil {
			in.Previous = prev.tok
		}
		tok, err := f.tries(ctx, fetcher, in)
		if err == nil {
			f.trust(parents)
			return tok, parents, nil
		}
		if !f.blame(ctx, parents, err) {
			return nil, nil, err
		}
	}
}

// parents returns a live token of each parent; those that have to be fetched
// are, at the same time.
func (f *fetch) parents(ctx context.Context) ([]*held, error) {
	got := make([]*held, len(f.step.parents))
	errs := make([]error, len(got))
	var wg sync.WaitGroup
	for i, p := range f.step.parents {
		if got[i] = f.current(p, f.want); got[i] != nil {
			continue
		}
		wg.Go(func() { got[i], errs[i] = f.join(ctx, p, f.want) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			f.failing = f.step.parents[i]
			return nil, err
		}
	}
	return got, nil
}

// blame reports whether err means that the auth server refused a parent's
// token, and makes the flight want newer ones. Those refused are condemned
// when the step has worked with others (see condemn), not before: a token
// that is still good must not die of an auth server's bad day.
func (f *fetch) blame(ctx context.Context, parents []*held, err error) bool {
	var auth *AuthError
	if len(parents) == 0 || !errors.As(err, &auth) ||
		auth.StatusCode != 401 && auth.StatusCode != 403 || auth.Permanent {
		return false
	}
	f.mu.Lock()
	ss := &f.steps[f.step.index]
	if f.blamed {
		ss.blamed = true
		f.mu.Unlock()
		return false
	}
	// If newer parents changed nothing last time, only a parent that has
	// worked since is under suspicion: else a wrong password would be
	// sent twice in each flight.
	futile := ss.blamed && !slices.ContainsFunc(parents, func(h *held) bool { return h.tok.prov.accepted.Load() })
	f.mu.Unlock()
	if futile {
		return false
	}
	f.blamed = true
	for i, p := range f.step.parents {
		f.suspects = append(f.suspects, suspect{p, parents[i].stamp})
		f.want = f.above(f.want, p, parents[i].stamp)
	}
	f.log(ctx, slog.LevelInfo, "refused by the auth server; replacing the tokens it carried", f.step, slog.Int("status", auth.StatusCode))
	return true
}

// condemn invalidates the refused parents, now that newer ones have worked.
func (f *fetch) condemn(ctx context.Context) {
	for _, sus := range f.suspects {
		f.mu.Lock()
		raised := f.raise(sus.step, sus.stamp)
		f.mu.Unlock()
		if raised {
			f.counts.invalidations.Add(1)
			f.log(ctx, slog.LevelInfo, "token invalidated", sus.step, slog.Uint64("stamp", sus.stamp))
			f.p.store.revoke(ctx, sus.step.key, sus.stamp)
		}
	}
	f.suspects = nil
}

// trust notes that the auth server has taken the parents' tokens.
func (f *fetch) trust(parents []*held) {
	for _, h := range parents {
		h.tok.prov.accepted.Store(true)
	}
	f.mu.Lock()
	f.steps[f.step.index].blamed = false
	f.mu.Unlock()
}

// tries runs fetcher until it brings a token, its error is final, or the
// tries or the time are used up.
func (f *fetch) tries(ctx context.Context, fetcher Fetcher, in Input) (*Token, error) {
	if t := f.p.cfg.FetchTimeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t, &fetchTimeout{t})
		defer cancel()
	}
	waits := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(200*time.Millisecond),
		backoff.WithMaxInterval(maxTryWait),
		backoff.WithMaxElapsedTime(0),
	)
	for try := 0; ; try++ {
		tok, err := f.try(ctx, fetcher, in, try)
		if err == nil {
			return tok, nil
		}
		if ctx.Err() != nil || try >= f.p.cfg.FetchRetries || !transient(err) {
			return nil, err
		}
		if in.Previous != nil && (ambiguous(err) || !f.leased()) {
			return nil, err
		}
		wait := waits.NextBackOff()
		var auth *AuthError
		if errors.As(err, &auth) {
			wait = max(wait, auth.RetryAfter)
		}
		if end, ok := ctx.Deadline(); wait > maxTryWait || ok && time.Until(end) <= wait {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// fetchTimeout is the cause of a fetch that took too long.
type fetchTimeout struct{ after time.Duration }

func (e *fetchTimeout) Error() string {
	return fmt.Sprintf("no token within FetchTimeout (%v)", e.after)
}
func (e *fetchTimeout) Timeout() bool   { return true }
func (e *fetchTimeout) Temporary() bool { return true }
func (e *fetchTimeout) Is(target error) bool {
	return target == context.DeadlineExceeded
}

// try runs fetcher once and checks what it brings.
func (f *fetch) try(ctx context.Context, fetcher Fetcher, in Input, n int) (*Token, error) {
	s, begun := f.step, time.Now()
	f.stats[s.index].fetches.Add(1)
	tok, err := flight.Bounded(ctx, func(ctx context.Context) (*Token, error) {
		return fetcher.Fetch(ctx, in)
	}, nil)
	if err == nil {
		tok, err = f.mint(tok, in, begun)
	}
	attrs := []slog.Attr{slog.Int("try", n+1), slog.Duration("took", time.Since(begun))}
	if err != nil {
		err = f.name(err)
		var p *flight.PanicError
		if errors.As(err, &p) {
			attrs = append(attrs, slog.String("stack", string(p.Stack)))
		}
		f.log(ctx, slog.LevelWarn, "fetch failed", s, append(attrs, slog.Any("error", err))...)
		return nil, err
	}
	if !tok.Expiry.IsZero() {
		attrs = append(attrs, slog.Time("expiry", tok.Expiry))
	}
	f.log(ctx, slog.LevelInfo, "token fetched", s, attrs...)
	return tok, nil
}

// name makes err an *AuthError of this step.
func (f *fetch) name(err error) *AuthError {
	named := &AuthError{Step: f.step.Name, Err: err}
	var auth *AuthError
	if errors.As(err, &auth) {
		named.Permanent, named.RetryAfter = auth.Permanent, auth.RetryAfter
		if auth.Step == "" { // else another pipeline's: not this step's answer
			named.StatusCode, named.Code = auth.StatusCode, auth.Code
			if err == error(auth) {
				named.Err = auth.Err
			}
		}
	}
	return named
}

// mint checks a fetcher's token and gives it its expiry.
func (f *fetch) mint(raw *Token, in Input, begun time.Time) (*Token, error) {
	if err := raw.validate(); err != nil {
		return nil, err
	}
	tok := *raw // the fetcher may hand out one token many times
	tok.prov = nil
	if ttl := f.step.TTL; ttl > 0 {
		if end := time.Now().Add(ttl); tok.Expiry.IsZero() || end.Before(tok.Expiry) {
			tok.Expiry = end
		}
	}
	tok.Expiry = tok.Expiry.Round(0) // wall clock only, as in a record
	if !tok.Expiry.IsZero() && !tok.Expiry.After(time.Now()) {
		return nil, errors.New("the fetched token is expired already")
	}
	if tok.RefreshToken == "" && in.Previous != nil {
		tok.RefreshToken = in.Previous.RefreshToken // RFC 6749 §6: the old one stays
	}
	var err error
	if tok.Extra, err = canonicalExtra(tok.Extra); err != nil {
		return nil, err
	}
	return &tok, nil
}

// save puts the new token into the storage, and into this process.
func (f *fetch) save(ctx context.Context, tok *Token, parents []*held) (*held, error) {
	s, now := f.step, time.Now()
	h := f.hold(s, *tok, now, f.lineage(parents))
	r := Record{Key: s.key, Token: h.tok, Issued: now.Round(0), Lineage: make(map[string]uint64, len(s.ancestors))}
	for i, a := range s.ancestors {
		r.Lineage[a.key] = h.lineage[i]
	}
	if tok.RefreshToken == "" {
		r.Keep = max(minKeep, tok.Expiry.Sub(now))
	}
	f.mu.Lock()
	if f.born != f.epoch {
		f.mu.Unlock()
		return nil, errForgot
	}
	ss := &f.steps[s.index]
	r.Stamp = max(ss.top, ss.mark)
	seen, prev := ss.seen, ss.cur
	f.mu.Unlock()

	entry, err := f.p.store.save(ctx, s.key, r, seen)
	if err == nil && entry.Record == nil {
		// What was seen is gone from the storage, ours isn't there yet.
		entry, err = f.p.store.save(ctx, s.key, r, 0)
	}
	if err == nil && entry.Record == nil {
		err = errors.New("not saved")
	}
	if err == nil && !sameToken(entry.Record, h) {
		return f.adopt(entry, now) // somebody was faster; theirs is everyone's
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		// For this process only. It can cost one fetch more, when the
		// storage comes back with another token of that stamp; it
		// can't revive a dead one.
		h.stamp, h.unsaved = max(ss.top, ss.mark)+1, true
	} else {
		f.raise(s, entry.Mark)
		h.stamp, ss.seen = entry.Record.Stamp, entry.Record.Stamp
	}
	if s.OnRotate != nil && tok.RefreshToken != "" && (prev == nil || prev.tok.RefreshToken != tok.RefreshToken) {
		f.mu.Unlock()
		hook(func() { s.OnRotate(ctx, h.tok) })
		f.mu.Lock()
	}
	if f.born != f.epoch {
		go f.p.store.delete(context.WithoutCancel(ctx), s.key)
		return nil, errForgot
	}
	f.put(s, h)
	f.worked(s)
	return h, nil
}

// adopt takes the token that another process has saved meanwhile.
func (f *fetch) adopt(entry Entry, now time.Time) (*held, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.step
	f.raise(s, entry.Mark)
	h, err := f.fromRecord(s, entry.Record, now)
	if err != nil {
		f.counts.badRecords.Add(1)
		return nil, fmt.Errorf("another process saved a record that is of no use: %w", err)
	}
	if f.born != f.epoch {
		return nil, errForgot
	}
	f.steps[s.index].seen = h.stamp
	f.put(s, h)
	f.worked(s)
	return h, nil
}

func sameToken(r *Record, h *held) bool {
	return r.Token.AccessToken == h.tok.AccessToken && r.Token.RefreshToken == h.tok.RefreshToken && r.Issued.Equal(h.issued)
}

// lineage is that of a token made from parents: the lowest stamp where
// several paths meet.
func (f *fetch) lineage(parents []*held) []uint64 {
	lowest := make(map[*step]uint64, len(f.step.ancestors))
	note := func(s *step, stamp uint64) {
		if old, ok := lowest[s]; !ok || stamp < old {
			lowest[s] = stamp
		}
	}
	for i, p := range f.step.parents {
		note(p, parents[i].stamp)
		for j, a := range p.ancestors {
			note(a, parents[i].lineage[j])
		}
	}
	stamps := make([]uint64, len(f.step.ancestors))
	for i, a := range f.step.ancestors {
		stamps[i] = lowest[a]
	}
	return stamps
}

// hook calls an application's function; a panic in it is none of our
// callers' business.
func hook(f func()) {
	defer func() { _ = recover() }()
	f()
}

// canonicalExtra gives extra the form that it has after a storage, so that a
// token is the same wherever it comes from: JSON's values, numbers exact.
func canonicalExtra(extra map[string]any) (map[string]any, error) {
	if len(extra) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(extra)
	if err != nil {
		return nil, fmt.Errorf("the token's Extra can't be written as JSON: %T", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var same map[string]any
	if err := dec.Decode(&same); err != nil {
		return nil, fmt.Errorf("the token's Extra can't be read back from JSON: %T", err)
	}
	return same, nil
}
