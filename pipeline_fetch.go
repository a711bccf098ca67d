// The work of one flight: look, lock, ask, save. pipeline_flight.go makes one flight for
// all callers, pipeline_lease.go locks and saves, pipeline_call.go asks the auth server,
// and pipeline_ledger.go knows which tokens are live.

package requestforge

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/trial"
)

// fetch is the work of one flight.
type fetch struct {
	flights   *flights
	step      *step
	floor     stamps
	now       bool              // see demand
	wish      *wish             // see demand
	plain     bool              // nothing is asked for because of a challenge
	paid      bool              // see pay
	asked     map[string]string // because of challenges, when the auth server was asked last
	mark      *fetchMark        // in the fetch's context
	epoch     int               // of the fetch
	lease     *lease            // nil: no lease
	blind     bool              // the last look has failed: a peer may have sent the refresh token, or logged out
	started   time.Time
	begun     time.Time // when the auth server was asked last
	failing   *step     // the parent without a token; nil: no parent failed
	refused   refusedParents
	trial     *trial.Trial // of young parents; nil: no young parent was refused
	tried     time.Time    // when the trial began
	turn      *held        // a shared parent whose trial is this fetch's turn; nil: no turn
	fromPeer  bool         // the failure is another process's
	read      reading      // the changing secrets of the last try
	given     givenTokens  // from the request
	before    *held        // the newest token when the new token was saved; nil: no token was known
	refreshed bool         // the new token was got by Refresh
}

// fly is the flight of one step. The result is a token that is live on arrival, or an error
// for all waiting callers, which the ledger remembers.
func (fs *flights) fly(ctx context.Context, s *step, d demand) (*held, error) {
	fs.ledger.setFetching(s, true)
	defer fs.ledger.setFetching(s, false)
	outer, _ := ctx.Value(fetchKey{}).(*fetchMark)
	f := &fetch{flights: fs, started: time.Now(), step: s, floor: d.floor, now: d.now, wish: d.wish, epoch: fs.epochOf(ctx)}
	f.refused.since = f.started
	f.mark = &fetchMark{ledger: fs.ledger, step: s, outer: outer}
	f.mark.epoch.Store(int64(f.epoch))
	defer f.mark.over.Store(true)
	ctx = context.WithValue(ctx, fetchKey{}, f.mark)
	ctx = withSendCount(ctx, nil) // sends of a fetch are no sends of the caller's request
	defer f.unlock(ctx)
	defer f.pass()
	for range rounds {
		h, err := f.round(ctx)
		if err != nil {
			return nil, f.failed(ctx, err)
		}
		f.unlock(ctx)
		if fs.usable(h, d) {
			if d.wish != nil {
				fs.ledger.answered(h)
			}
			return h, nil
		}
		fs.events.log(ctx, slog.LevelInfo, "token dead on arrival", s, slog.Uint64("stamp", h.stamp()))
	}
	return nil, f.failed(ctx, &AuthError{Step: s.Name, Err: errChurn})
}

// round looks, locks, looks again, asks and saves, until a token is found.
func (f *fetch) round(ctx context.Context) (*held, error) {
	if h := f.look(ctx); h != nil {
		return h, nil
	}
	if err := stuck(f.step, f.flights.deaf(f.step).fetchers); err != nil {
		return nil, err
	}
	if h, err := f.lock(ctx); h != nil || err != nil {
		return h, err
	}
	f.pay(ctx)
	tok, parents, err := f.obtain(ctx)
	if err != nil {
		return nil, err
	}
	// Close ends no save: the token before may be spent.
	ctx = context.WithoutCancel(ctx)
	h, err := f.save(ctx, tok, parents)
	if err != nil {
		return nil, err
	}
	f.revokeRefused(ctx)
	return h, nil
}

// look loads the step and its ancestors and returns a usable token, or nil.
func (f *fetch) look(ctx context.Context) *held {
	fs := f.flights
	d := demand{floor: f.floor, wish: f.wish}
	if h := fs.current(f.step, d); h != nil {
		return h
	}
	news, err := fs.shared.pull(ctx, append([]*step{f.step}, f.step.ancestors...)...)
	f.blind = err != nil
	if f.blind {
		return nil
	}
	if news.from == f.epoch {
		f.epoch = news.to // nothing was sent yet, so the login comes after the logout
		f.mark.epoch.Store(int64(f.epoch))
	}
	fs.ledger.saw(f.step, news.version)
	h := fs.current(f.step, d)
	if h != nil {
		fs.counters.steps[f.step.index].loads.Add(1)
		fs.events.log(ctx, slog.LevelDebug, "token loaded", f.step, slog.Uint64("stamp", h.stamp()))
	}
	return h
}

// obtain asks the auth server: with the previous refresh token if sending that token is
// allowed, else from scratch. Only its own refusal ends a refresh token, and a failed login
// uses up no refresh token.
func (f *fetch) obtain(ctx context.Context) (*Token, []*held, error) {
	prev := f.refreshable()
	if prev == nil || !f.wish.byRefresh() {
		return f.login(ctx)
	}
	fs := f.flights
	tok, parents, err := f.refresh(ctx, prev)
	if err == nil || f.failing != nil {
		return tok, parents, err
	}
	if err == errNotOurs || f.wish != nil && refusesWish(err) { // not the refresh token
		return f.login(ctx)
	}
	switch fateOf(err) {
	case open:
		if !fs.ledger.doubtAbout(prev, time.Now()) {
			return nil, nil, err
		}
	case kept:
		return nil, nil, err
	case spent:
		fs.ledger.spend(prev)
		if crashed(err) {
			return nil, nil, err
		}
	}
	fs.events.log(ctx, slog.LevelInfo, "refresh token of no use; logging in from scratch", f.step, slog.Any("error", err))
	return f.login(ctx)
}

// refresh asks with the refresh token of prev.
func (f *fetch) refresh(ctx context.Context, prev *held) (*Token, []*held, error) {
	tok, parents, err := f.request(ctx, f.step.Refresh, prev)
	if f.refreshed = err == nil; f.refreshed {
		f.flights.counters.steps[f.step.index].refreshes.Add(1)
		if tok.RefreshToken != prev.tok.RefreshToken {
			f.flights.ledger.spend(prev) // even if a logout of another step keeps tok from being used
		}
	}
	return tok, parents, err
}

// login asks from scratch.
func (f *fetch) login(ctx context.Context) (*Token, []*held, error) {
	return f.request(ctx, f.step.Fetcher, nil)
}

// request is call. If the auth server refuses a request that includes an earlier challenge,
// request calls again as if the step had never been challenged. The API may challenge
// again, and the step must not fail for ever meanwhile.
func (f *fetch) request(ctx context.Context, fetcher Fetcher, prev *held) (*Token, []*held, error) {
	tok, parents, err := f.call(ctx, fetcher, prev)
	if err == nil || f.wish != nil || len(f.asked) == 0 || f.failing != nil || !refusesWish(err) {
		return tok, parents, err
	}
	f.flights.events.log(ctx, slog.LevelWarn, "what an API has asked for is refused; asking without", f.step, slog.Any("error", err))
	f.plain = true
	return f.call(ctx, fetcher, prev)
}

// pay records in the ledger, once a flight, a request to the auth server on behalf of a
// wish.
func (f *fetch) pay(ctx context.Context) {
	if f.wish == nil || f.paid {
		return
	}
	f.paid = true
	f.wish.charged.Store(true)
	f.flights.ledger.payAnswer(f.step, time.Now())
	f.flights.counters.steps[f.step.index].challenges.Add(1)
	f.flights.events.log(ctx, slog.LevelInfo, "an API asks for more than the token could show", f.step, slog.String("challenge", f.wish.names()))
}

// challenge returns Input.Challenge for a call about to begin, and notes its parameters.
func (f *fetch) challenge() (all map[string]string) {
	f.asked = nil
	if !f.step.AnswersChallenges || f.plain {
		return nil
	}
	all, f.asked = f.wish.over(f.flights.ledger.asked(f.step))
	return all
}

// unanswered records err, the failure of a fetch on behalf of a wish, in the ledger, and
// returns the callers' error. The step doesn't cool down.
func (f *fetch) unanswered(ctx context.Context, auth *AuthError) error {
	fs, err := f.flights, *auth
	err.RetryAfter = fs.ledger.unanswered(f.step, f.wish, auth, time.Now())
	fs.events.log(ctx, slog.LevelWarn, "challenge not answered; the token stays", f.step, slog.Duration("for", err.RetryAfter), slog.Any("error", auth))
	return &unanswered{&err, f.wish}
}

// refreshable returns the newest token if its refresh token may be sent: under the lease,
// and according to the last answer of the storage.
func (f *fetch) refreshable() *held {
	if f.step.Refresh == nil || !f.leased() || f.blind {
		return nil
	}
	return f.flights.ledger.refreshable(f.step)
}

var errNotOurs = errors.New("the refresh token isn't this process's to send any more")

// may returns why nothing must be sent now, or nil. prev is the token whose refresh token
// would be sent, or nil. parents were fresh at the beginning, and may have ended in a wait
// for a slot or for the next try.
func (f *fetch) may(prev *held, parents []*held) error {
	if f.flights.ledger.now() != f.epoch {
		return errForgot
	}
	if now := time.Now(); slices.ContainsFunc(parents, func(h *held) bool { return !h.fresh(now) }) {
		return errParentEnded
	}
	if prev != nil && f.refreshable() != prev {
		return errNotOurs // the lease is lost, or a newer token exists
	}
	return nil
}

// call runs a fetcher with the parents' tokens. If the auth server refuses a parent's
// token, call replaces the parents' tokens and runs the fetcher once more.
func (f *fetch) call(ctx context.Context, fetcher Fetcher, prev *held) (*Token, []*held, error) {
	waited := false // a parent's token ended before the first try
	for {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		parents, err := f.parents(ctx)
		if err != nil {
			return nil, nil, err
		}
		in := f.input(parents, prev)
		asking := ctx
		if prev != nil && f.step.timeout > 0 {
			// Close waits for a refresh until FetchTimeout: the answer may have the only
			// refresh token that is left.
			asking = context.WithoutCancel(ctx)
		}
		f.begun = time.Now()
		fresh := slices.DeleteFunc(slices.Clone(parents), func(h *held) bool { return !h.fresh(f.begun) })
		var tok *Token
		tok, f.read, err = f.flights.asker.ask(asking, f.step, fetcher, in, f.flights.deaf(f.step).fetchers, func() error { return f.may(prev, fresh) })
		if err == errParentEnded {
			if !waited {
				waited = true
				continue
			}
			err = &AuthError{Step: f.step.Name, Unsent: true, Err: errParentEnded}
		}
		if err == nil {
			for _, h := range parents {
				h.takenAt.Store(time.Now().UnixNano())
			}
			f.pass()
			f.flights.ledger.parentsWork(f.step)
			return tok, parents, nil
		}
		if !f.awaitParents(ctx, fetched(parents), err, prev) && !f.replaceParents(ctx, fetched(parents), err, prev) {
			return nil, nil, err
		}
	}
}

// until is the latest end of a token made from parents; zero: no bound.
func until(parents []*held) (t time.Time) {
	for _, h := range parents {
		t = earlier(t, h.ends())
	}
	return t
}

// input is what the fetcher gets.
func (f *fetch) input(parents []*held, prev *held) Input {
	in := Input{Parents: make(map[string]*Token, len(parents)), Subject: f.flights.subject, Challenge: f.challenge(), cookies: f.step.cookies, until: until(parents)}
	for i, p := range f.step.parents {
		in.Parents[p.Name] = parents[i].tok
	}
	if prev != nil {
		in.Previous, in.anew = prev.tok, prev.anew(fetched(parents))
	}
	if newest := f.flights.ledger.newest(f.step); newest != nil {
		in.newest, in.ttl = newest.tok, f.step.ended(newest) || newest.bounded()
	}
	return in
}

// parents returns a live token of each parent, and fetches missing tokens in parallel.
func (f *fetch) parents(ctx context.Context) ([]*held, error) {
	got := make([]*held, len(f.step.parents))
	errs := make([]error, len(got))
	for i, p := range f.step.parents {
		if p.Given != nil {
			if got[i], errs[i] = f.given.take(ctx, p, f.flights.deaf(f.step).givens); errs[i] != nil {
				return nil, errs[i] // before another parent costs a fetch
			}
		}
	}
	floor := f.flights.ledger.wanted(f.floor)
	var wg sync.WaitGroup
	for i, p := range f.step.parents {
		fs := f.flights.of(p)
		if p.Given != nil {
			continue
		}
		if got[i] = fs.ledger.current(p, floor, time.Now()); got[i] != nil {
			continue
		}
		d := demand{floor: floor, now: f.now && fs == f.flights} // no subject ends the cool-down of a shared step
		wg.Go(func() { got[i], errs[i] = fs.join(ctx, p, d) })
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

// awaitParents waits if the auth server may not know a parent's token yet. It reports
// whether the fetch is to be repeated with the same parents.
func (f *fetch) awaitParents(ctx context.Context, parents []*held, err error, prev *held) bool {
	fs, now := f.flights, time.Now()
	if refused, _ := refusesParent(err, prev != nil); !refused || len(f.given.taken) > 0 {
		return false // a refused given token is an error at once
	}
	if prev != nil && (!f.leased() || f.refused.times > 0) {
		return false // with one parent after the other refused, it's the refresh token
	}
	if h := f.youngShared(parents, now); h != nil {
		return f.awaitShared(ctx, h, err)
	}
	if fs.ledger.mayWait(f.step, parents, now) {
		if f.trial == nil {
			f.trial, f.tried = trial.New(now), now
			fs.events.log(ctx, slog.LevelInfo, "refused by the auth server, which may not know the tokens it carried yet; waiting", f.step)
		}
		wait, left := f.trial.Next(now, trial.Longest), f.step.timeout-now.Sub(f.tried)
		if wait >= 0 && (f.step.timeout <= 0 || wait < left) && pause(ctx, wait, err) {
			return fs.ledger.now() == f.epoch
		}
	}
	if f.trial != nil {
		fs.ledger.waitedInVain(f.step)
	}
	return false
}

// youngShared returns a shared parent of a subject's fetch that no auth server may know
// yet, or nil.
func (f *fetch) youngShared(parents []*held, now time.Time) *held {
	for _, h := range parents {
		if f.flights.of(h.step) != f.flights && h.young(now) && !h.taken() {
			return h
		}
	}
	return nil
}

// awaitShared is awaitParents for a shared parent. One subject tries on behalf of all; the
// remaining subjects wait for the result.
func (f *fetch) awaitShared(ctx context.Context, h *held, err error) bool {
	fs, now := f.flights, time.Now()
	t := fs.up.ledger.asParent(h, now)
	f.pass() // each try is another subject's turn: a subject may be refused for reasons of its own
	if !t.Turn(ctx, nil, trial.Longest) {
		return h.taken() && fs.ledger.now() == f.epoch
	}
	if f.turn = h; f.tried.IsZero() {
		f.tried = now
		fs.events.log(ctx, slog.LevelInfo, "refused by the auth server, which may not know the tokens it carried yet; waiting", f.step)
	}
	if h.taken() {
		f.pass()
		return fs.ledger.now() == f.epoch
	}
	wait, left := t.Next(time.Now(), trial.Longest), f.step.timeout-time.Since(f.tried)
	if wait >= 0 && (f.step.timeout <= 0 || wait < left) && pause(ctx, wait, err) {
		return fs.ledger.now() == f.epoch
	}
	if wait < 0 {
		t.End() // in vain
	}
	f.pass()
	return false
}

// pass gives the turn in a trial, if the fetch has the turn, to another fetch.
func (f *fetch) pass() {
	if h := f.turn; h != nil {
		f.turn = nil
		t := f.flights.up.ledger.asParent(h, time.Now())
		if h.taken() {
			t.End()
		}
		t.Pass()
	}
}

// replaceParents reports whether err means that the auth server refused a parent's token,
// and has the flight want newer tokens.
func (f *fetch) replaceParents(ctx context.Context, parents []*held, err error, prev *held) bool {
	refused, certain := refusesParent(err, prev != nil)
	if len(parents) == 0 || !refused {
		return false
	}
	fs := f.flights
	suspects := f.refused.replace(fs, f.step, parents, certain)
	for _, h := range suspects {
		f.floor = f.floor.raised(h.step, h.stamp(), len(fs.graph.steps))
	}
	if len(suspects) > 0 {
		auth, _ := errors.AsType[*AuthError](err)
		fs.events.log(ctx, slog.LevelInfo, "refused by the auth server; replacing the tokens it carried", f.step, slog.Int("status", auth.StatusCode))
	}
	return len(suspects) > 0
}

// unasked reports whether err says nothing about the auth server.
func unasked(err error) bool {
	return slices.ContainsFunc([]error{errStuck, flight.ErrFull, errNoSlot, errGiven, errParentEnded}, func(e error) bool { return errors.Is(err, e) })
}

// failed records err, tells the step's hook, and returns the callers' error.
func (f *fetch) failed(ctx context.Context, err error) error {
	s, fs := f.step, f.flights
	auth, ok := err.(*AuthError) // of the asker
	if !ok {
		auth = inStep(s, err)
	}
	if f.failing == nil {
		if auth.Subject = fs.events.about; aboutGiven(auth) {
			auth.given = f.given.print()
		}
	}
	if errors.Is(err, errForgot) {
		return auth
	}
	forgot := func() error { // the failure is older than the logout
		e := inStep(s, errForgot)
		e.Subject = auth.Subject
		return e
	}
	if unasked(err) || context.Cause(ctx) == flight.ErrClosed {
		return auth
	}
	if f.fromPeer {
		return err
	}
	if f.failing != nil {
		fs.ledger.inherit(s, fs.of(f.failing).ledger.cooling(f.failing, time.Now()))
		return err
	}
	if fs.ledger.now() != f.epoch {
		return forgot()
	}
	fs.counters.steps[s.index].failures.Add(1)
	if s.OnError != nil {
		fs.hooks.call(ctx, s, fs.deaf(s).hooks, f.begun, "OnError", func(ctx context.Context) { s.OnError(ctx, auth) })
	}
	return f.remember(ctx, auth, forgot)
}

// remember records err in the ledger and returns the callers' error: forgot's error if
// everything was forgotten meanwhile.
func (f *fetch) remember(ctx context.Context, auth *AuthError, forgot func() error) error {
	s, fs := f.step, f.flights
	if f.wish != nil {
		return f.unanswered(ctx, auth)
	}
	if crashed(auth) && fs.ledger.forgive(s, auth, time.Now()) {
		return auth // a bug, not a bad day: the next call tries at once
	}
	fail, inRow := fs.ledger.fail(s, auth, f.read, f.epoch, time.Now())
	if fail == nil {
		return forgot()
	}
	fs.shared.news(fs.ledger)
	fs.events.log(ctx, slog.LevelError, "step cools down", s, slog.Duration("for", fail.until.Sub(fail.at)), slog.Int("failures", inRow), slog.Any("error", auth))
	// Before the unlock, so that the next holder of the lock finds the failure.
	lease := f.lease
	f.lease = nil
	fs.shared.shareFailure(ctx, s, fail, func() {
		if lease != nil {
			fs.shared.store.unlock(ctx, lease)
		}
	})
	return fail.again(fail.at)
}
