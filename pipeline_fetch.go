// How the token of one step is got: joined, loaded, locked, fetched, saved, one
// flight for everyone. Its dealings with the storage are pipeline_record.go's,
// those with the auth server pipeline_call.go's; what makes a token live is
// pipeline.go's.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// rounds is how often a flight starts over because what it fetched was dead on
// arrival, joins how often a caller joins another flight.
const rounds, joins = 3, 16

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
	st.pull(ctx, st.p.steps, nil) // without it, what is known here has to do
	st.mu.Lock()
	defer st.mu.Unlock()
	w := want{make([]uint64, len(st.steps))}
	for i := range st.steps {
		w.floor[i] = st.steps[i].top
	}
	return w
}

// mark says in a context which fetches it runs under.
type fetchMark struct {
	state *state
	step  *step
	born  int // the state's epoch that it began in
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

// born returns the epoch that ctx belongs to: that of the flight that it is
// in, else the current one.
func (st *state) born(ctx context.Context) int {
	outer, _ := ctx.Value(fetchKey{}).(*fetchMark)
	for m := outer; m != nil; m = m.outer {
		if m.state == st {
			return m.born
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.epoch
}

// forgotten reports whether everything was forgotten since the epoch.
func (st *state) forgotten(born int) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.epoch != born
}

func (st *state) join(ctx context.Context, s *step, w want) (*held, error) {
	born := st.born(ctx)
	for range joins {
		if h := st.current(s, w); h != nil {
			return h, nil
		}
		if err := st.cooling(s); err != nil {
			st.stats[s.index].failedFast.Add(1)
			return nil, err
		}
		h, err := st.flights[s.index].Do(ctx, func(ctx context.Context) (*held, error) {
			return st.fly(ctx, s, w)
		})
		if errors.Is(err, errForgot) && !st.forgotten(born) {
			continue // the flight was from before, we are not
		}
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
	f := &fetch{state: st, step: s, want: w, born: st.born(ctx)}
	ctx = context.WithValue(ctx, fetchKey{}, &fetchMark{st, s, f.born, outer})
	ctx = withTally(ctx, nil) // what is sent from here on is no part of anyone's request
	defer f.unlock(ctx)
	for range rounds {
		h, err := f.round(ctx)
		if err != nil {
			// Before the lock goes, so that the next process to get it
			// finds the failure.
			return nil, f.failed(ctx, err)
		}
		f.unlock(ctx)
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
	born       int   // the epoch that it belongs to
	lease      Lease // nil: none
	failing    *step // the parent that had no token; nil: it is not a parent's fault
	blamed     bool  // the parents have been blamed once
	remembered bool  // the failure is another process's
	suspects   []suspect
}

// round loads, locks, loads again, fetches and saves, and stops at the first
// of them that brings a token.
func (f *fetch) round(ctx context.Context) (*held, error) {
	if h := f.look(ctx); h != nil {
		return h, nil
	}
	if h, err := f.lock(ctx); h != nil || err != nil {
		return h, err
	}
	if f.forgotten(f.born) {
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
	f.condemn(ctx)
	return h, nil
}
