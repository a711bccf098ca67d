// How a step gets its token: one flight for all callers, which looks, locks, asks
// and saves. pipeline_lease.go has the lock and the save, pipeline_call.go the
// auth server; pipeline_ledger.go says what is live.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
)

// rounds is how often a flight starts over because its token was dead on arrival,
// joins how often a caller joins another flight.
const rounds, joins = 3, 16

// flights gets the tokens of the steps, with at most one flight a step at a time.
type flights struct {
	graph        *graph
	ledger       *ledger
	records      *records
	shared       *shared
	asker        *asker
	fetchTimeout time.Duration // PipelineConfig.FetchTimeout
	coolDown     time.Duration // PipelineConfig.CoolDown
	events       eventLog
	counters     *counters

	steps []flight.Flight[*held] // by step.index
}

// fetchMark says in a context which fetches the context belongs to.
type fetchMark struct {
	flights *flights
	step    *step
	epoch   int // that the fetch began in
	outer   *fetchMark
}

type fetchKey struct{}

// markOf returns the mark of the innermost fetch of these flights that ctx runs
// under, or nil.
func (fs *flights) markOf(ctx context.Context) *fetchMark {
	m, _ := ctx.Value(fetchKey{}).(*fetchMark)
	for m != nil && m.flights != fs {
		m = m.outer
	}
	return m
}

// epochOf returns the epoch of the fetch that ctx belongs to, else the present
// epoch.
func (fs *flights) epochOf(ctx context.Context) int {
	if m := fs.markOf(ctx); m != nil {
		return m.epoch
	}
	return fs.ledger.now()
}

var errOwnPipeline = errors.New("the fetcher runs through the pipeline that it fetches for and would wait for itself; give it a client of its own")

// get returns a live token of s above floor. If that takes a fetch, all callers who
// want a token of s share the fetch.
func (fs *flights) get(ctx context.Context, s *step, floor stamps) (*held, error) {
	if m := fs.markOf(ctx); m != nil {
		return nil, &AuthError{Step: m.step.Name, Permanent: true, Err: errOwnPipeline}
	}
	return fs.join(ctx, s, floor)
}

func (fs *flights) join(ctx context.Context, s *step, floor stamps) (*held, error) {
	epoch := fs.epochOf(ctx)
	for range joins {
		if h := fs.ledger.current(s, floor, time.Now()); h != nil {
			return h, nil
		}
		if err := fs.ledger.cooling(s, time.Now()); err != nil {
			fs.counters.steps[s.index].failedFast.Add(1)
			return nil, err
		}
		h, err := fs.steps[s.index].Do(ctx, func(ctx context.Context) (*held, error) {
			return fs.fly(ctx, s, floor)
		})
		if errors.Is(err, errForgot) && fs.ledger.now() == epoch {
			continue // the flight was from before, the caller is not
		}
		if err != nil {
			return nil, explain(ctx, s, err)
		}
		// The flight may have begun before the demand, or its token may
		// have died since.
		if fs.ledger.usable(h, floor, time.Now()) {
			return h, nil
		}
	}
	return nil, &AuthError{Step: s.Name, Err: errChurn}
}

var errChurn = errors.New("each token that was fetched had been revoked by the time it arrived; try again")

// explain makes an error of a flight one of s.
func explain(ctx context.Context, s *step, err error) error {
	if _, ok := errors.AsType[*AuthError](err); ok {
		return err
	}
	if ctx.Err() != nil {
		return &waitError{s.Name, err}
	}
	return &AuthError{Step: s.Name, Err: err}
}

// waitError is a caller's context that ended before there was a token.
type waitError struct {
	step  string
	cause error
}

func (e *waitError) Error() string {
	return fmt.Sprintf("requestforge: waiting for the token of step %q: %v", e.step, e.cause)
}

func (e *waitError) Unwrap() error { return e.cause }

// Timeout tells url.Error, which asks only the error directly below it.
func (e *waitError) Timeout() bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](e.cause)
	return ok && t.Timeout()
}

// ahead renews h in the background, if that is due. The callers keep h.
func (fs *flights) ahead(ctx context.Context, h *held, now time.Time) {
	due := h.nextRenewal.Load()
	if now.UnixNano() < due || !h.nextRenewal.CompareAndSwap(due, h.end) {
		return
	}
	s := h.step
	begun := fs.steps[s.index].Start(ctx, func(ctx context.Context) (*held, error) {
		if err := fs.ledger.cooling(s, time.Now()); err != nil {
			h.nextRenewal.Store(time.Now().Add(max(time.Second, err.RetryAfter)).UnixNano())
			return nil, err
		}
		fs.counters.steps[s.index].ahead.Add(1)
		n, err := fs.fly(ctx, s, stamps(nil).raised(s, h.stamp(), len(fs.graph.steps)))
		if err != nil {
			wait := fs.coolDown
			if auth := fs.ledger.cooling(s, time.Now()); auth != nil {
				wait = max(wait, auth.RetryAfter)
			}
			h.nextRenewal.Store(time.Now().Add(wait).UnixNano())
		}
		return n, err
	})
	if !begun { // another flight is under way, and may fail
		h.nextRenewal.Store(now.Add(time.Second).UnixNano())
	}
}

// fly is the flight of one step. It brings a token that is live on arrival, or an
// error that all waiting callers get and the ledger remembers.
func (fs *flights) fly(ctx context.Context, s *step, floor stamps) (*held, error) {
	fs.ledger.setFetching(s, true)
	defer fs.ledger.setFetching(s, false)
	outer, _ := ctx.Value(fetchKey{}).(*fetchMark)
	f := &fetch{flights: fs, step: s, floor: floor, epoch: fs.epochOf(ctx)}
	ctx = context.WithValue(ctx, fetchKey{}, &fetchMark{fs, s, f.epoch, outer})
	ctx = withSendCount(ctx, nil) // sends of a fetch are no sends of the caller's request
	defer f.unlock(ctx)
	for range rounds {
		h, err := f.round(ctx)
		if err != nil {
			// Before the lock goes, so that the next process to get it
			// finds the failure.
			return nil, f.failed(ctx, err)
		}
		f.unlock(ctx)
		if fs.ledger.usable(h, floor, time.Now()) {
			return h, nil
		}
		fs.events.log(ctx, slog.LevelInfo, "token dead on arrival", s, slog.Uint64("stamp", h.stamp()))
	}
	return nil, &AuthError{Step: s.Name, Err: errChurn}
}

// fetch is one flight's work.
type fetch struct {
	flights  *flights
	step     *step
	floor    stamps
	epoch    int     // that the fetch belongs to
	lease    Lease   // nil: none
	failing  *step   // the parent that had no token; nil: no parent failed
	blamed   bool    // the parents have been blamed once
	refused  []blame // parents' tokens that the auth server refused
	fromPeer bool    // the failure is another process's
}

// round looks, locks, looks again, asks and saves, up to the first of these that
// brings a token.
func (f *fetch) round(ctx context.Context) (*held, error) {
	if h := f.look(ctx); h != nil {
		return h, nil
	}
	if h, err := f.lock(ctx); h != nil || err != nil {
		return h, err
	}
	if f.flights.ledger.now() != f.epoch {
		return nil, errForgot
	}
	tok, parents, err := f.obtain(ctx)
	if err != nil {
		return nil, err
	}
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
	if h := fs.ledger.current(f.step, f.floor, time.Now()); h != nil {
		return h
	}
	entries, err := fs.shared.pull(ctx, append([]*step{f.step}, f.step.ancestors...), nil)
	if err != nil {
		return nil
	}
	var stored uint64
	if r := entries[0].Record; r != nil {
		stored = r.Stamp
	}
	fs.ledger.saw(f.step, stored)
	h := fs.ledger.current(f.step, f.floor, time.Now())
	if h != nil {
		fs.counters.steps[f.step.index].loads.Add(1)
		fs.events.log(ctx, slog.LevelDebug, "token loaded", f.step, slog.Uint64("stamp", h.stamp()))
	}
	return h
}

// obtain asks the auth server: with the previous refresh token if that may be
// spent, else from scratch.
func (f *fetch) obtain(ctx context.Context) (*Token, []*held, error) {
	s, fs := f.step, f.flights
	if prev := f.refreshable(); prev != nil {
		tok, parents, err := f.call(ctx, s.Refresh, prev)
		if err == nil {
			fs.counters.steps[s.index].refreshes.Add(1)
			return tok, parents, nil
		}
		if f.failing != nil || !endsRefreshToken(err) {
			return nil, nil, err
		}
		fs.ledger.spend(prev)
		fs.events.log(ctx, slog.LevelInfo, "refresh token of no use; logging in from scratch", s, slog.Any("error", err))
	}
	return f.call(ctx, s.Fetcher, nil)
}

// refreshable returns the newest token if the refresh token in it may be spent.
func (f *fetch) refreshable() *held {
	if f.step.Refresh == nil || !f.leased() {
		return nil
	}
	return f.flights.ledger.refreshable(f.step)
}

// call runs one fetcher with the parents' tokens. If the auth server refuses
// a parent's token, the parents are replaced and the fetcher is run once more.
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
		tok, err := f.flights.asker.ask(ctx, f.step, fetcher, in, f.leased)
		if err == nil {
			for _, h := range parents {
				h.tok.prov.accepted.Store(true)
			}
			f.flights.ledger.blamedInVain(f.step, time.Time{})
			return tok, parents, nil
		}
		if !f.replaceParents(ctx, parents, err) {
			return nil, nil, err
		}
	}
}

// parents returns a live token of each parent. Parents without one are fetched at
// the same time.
func (f *fetch) parents(ctx context.Context) ([]*held, error) {
	got := make([]*held, len(f.step.parents))
	errs := make([]error, len(got))
	var wg sync.WaitGroup
	for i, p := range f.step.parents {
		if got[i] = f.flights.ledger.current(p, f.floor, time.Now()); got[i] != nil {
			continue
		}
		wg.Go(func() { got[i], errs[i] = f.flights.join(ctx, p, f.floor) })
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

// replaceParents reports whether err means that the auth server refused a
// parent's token, and makes the flight want newer ones. The refused tokens are
// revoked when the step has worked with newer ones (see revokeRefused), not before:
// a good token must not die of an auth server's bad day.
func (f *fetch) replaceParents(ctx context.Context, parents []*held, err error) bool {
	refused, certain := refusesParent(err)
	if len(parents) == 0 || !refused {
		return false
	}
	fs := f.flights
	if f.blamed {
		fs.ledger.blamedInVain(f.step, time.Now())
		return false
	}
	if !certain && !fs.ledger.mayBlame(f.step, parents, time.Now()) {
		return false
	}
	f.blamed = true
	for _, h := range parents {
		f.refused = append(f.refused, blame{h.step, h.stamp()})
		f.floor = f.floor.raised(h.step, h.stamp(), len(fs.graph.steps))
	}
	auth, _ := errors.AsType[*AuthError](err)
	fs.events.log(ctx, slog.LevelInfo, "refused by the auth server; replacing the tokens it carried", f.step, slog.Int("status", auth.StatusCode))
	return true
}

// revokeRefused invalidates the refused parents, now that newer parents have worked.
func (f *fetch) revokeRefused(ctx context.Context) {
	for _, b := range f.refused {
		if f.flights.ledger.revoke(b.step, b.stamp) {
			// An error is the storage's, and counted there.
			_ = f.flights.shared.revoke(ctx, b)
		}
	}
	f.refused = nil
}

// failed remembers err, tells the step's hook and returns what the callers
// get.
func (f *fetch) failed(ctx context.Context, err error) error {
	s, fs := f.step, f.flights
	auth, ok := err.(*AuthError) // of the asker
	if !ok {
		auth = inStep(s, err)
	}
	if errors.Is(err, errForgot) {
		return auth
	}
	if f.fromPeer {
		return err
	}
	if f.failing != nil {
		fs.ledger.inherit(s, f.failing, time.Now())
		return err
	}
	fs.counters.steps[s.index].failures.Add(1)
	if s.OnError != nil {
		hook(func() { s.OnError(ctx, auth) })
	}
	if _, ok := errors.AsType[*flight.PanicError](err); ok || errors.Is(err, flight.ErrGoexit) {
		fs.ledger.crashed(s, auth, time.Now())
		return auth // a bug, not a bad day: the next call tries at once
	}
	fail, inRow := fs.ledger.fail(s, auth, time.Now())
	fs.events.log(ctx, slog.LevelError, "step cools down", s, slog.Duration("for", fail.until.Sub(fail.at)), slog.Int("failures", inRow), slog.Any("error", auth))
	fs.shared.shareFailure(ctx, s, fail)
	return fail.again(fail.at)
}
