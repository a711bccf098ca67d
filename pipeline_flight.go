// How a step gets its token: one flight for all callers. pipeline_fetch.go does the work of
// a flight.

package requestforge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
)

// rounds is how often a flight starts over because its token was dead on arrival, joins how
// often a caller joins another flight.
const rounds, joins = 3, 16

// flights gets the tokens of the shared steps, or of a subject's steps, with at most one
// flight a step at a time. Immutable: each caller of a subject gets new flights over the
// subject's shared state.
type flights struct {
	graph    *graph
	ledger   *ledger
	up       *flights // of the shared steps; nil: the flights are those of the shared steps
	subject  string   // Input.Subject; "": nobody's
	subjects *subjects
	own      *subject // in subjects; nil: the flights are those of the shared steps
	records  *records
	shared   *shared
	asker    *asker
	hooks    *hooks
	revoker  *revoker
	coolDown time.Duration // PipelineConfig.CoolDown
	events   eventLog
	counters *counters
	carry    *carrier // nil: a fetch sees the values of its caller's context

	steps []flight.Flight[*held] // of ledger.own, in their order
	left  []leftBehind           // by step; a subject has one counter for all steps
}

// below returns the flights of a subject.
func (fs *flights) below(id string, s *subject) *flights {
	own := *fs
	own.up, own.subject, own.own, own.ledger, own.steps, own.carry = fs, id, s, &s.ledger, s.flights, nil
	own.left = []leftBehind{{&s.fetchers, &s.hooks, &s.givens}}
	own.events = fs.events.of(id)
	own.shared = fs.shared.below(&s.ledger, own.events)
	own.records = own.shared.records
	return &own
}

// of returns the flights of a step.
func (fs *flights) of(s *step) *flights {
	if fs.up != nil && !s.perSubject {
		return fs.up
	}
	return fs
}

// leftBehind counts functions of the program that ignore their context.
type leftBehind struct{ fetchers, hooks, givens *flight.Limit }

// newLeftBehind returns the counts of n steps.
func newLeftBehind(n int) (all []leftBehind) {
	for range n {
		all = append(all, leftBehind{fetchers: flight.NewLimit(maxHanging), hooks: flight.NewLimit(maxHanging)})
	}
	return all
}

// deaf returns the counters of a step, separate for each subject.
func (fs *flights) deaf(s *step) leftBehind {
	if fs.up != nil {
		return fs.left[0]
	}
	return fs.left[s.index]
}

// flight returns the flight of a step.
func (fs *flights) flight(s *step) *flight.Flight[*held] {
	if fs.up != nil {
		return &fs.steps[s.index-fs.graph.shared]
	}
	return &fs.steps[s.index]
}

// epochOf returns the epoch of the fetch of these flights in ctx, or without a fetch the
// present epoch.
func (fs *flights) epochOf(ctx context.Context) int {
	if m := markOf(ctx, func(l *ledger) bool { return l == fs.ledger }); m != nil {
		return int(m.epoch.Load())
	}
	return fs.ledger.now()
}

var errOwnPipeline = errors.New("the fetcher runs through the pipeline that it fetches for and would wait for itself; give it a client of its own, or the Source of a step that it depends on")

// demand is a caller's demand on a step.
type demand struct {
	floor stamps // a token above
	now   bool   // even if the step cools down
	wish  *wish  // the wish behind the demand; nil: the usual token will do
}

// get returns a live token of s. All callers who want a token of s share one fetch. A fetch
// of this pipeline may ask only for tokens of its own ancestors, so fetches that wait for
// each other along the graph always end.
func (fs *flights) get(ctx context.Context, s *step, d demand) (h *held, err error) {
	m := markOf(ctx, func(l *ledger) bool { return l.graph == fs.graph })
	if m != nil && (!slices.Contains(m.step.ancestors, s) || s.perSubject && m.ledger != fs.ledger) {
		return nil, &AuthError{Step: m.step.Name, Permanent: true, Err: errOwnPipeline}
	}
	if m == nil {
		return fs.of(s).join(ctx, s, d)
	}
	// No slot is held while waiting for a parent.
	m.slot.Load().Lend(ctx, func() { h, err = fs.of(s).join(ctx, s, d) })
	return h, err
}

// current returns the token of s if usable for d, else nil.
func (fs *flights) current(s *step, d demand) *held {
	if h := fs.ledger.current(s, d.floor, time.Now()); h != nil && d.wish.metBy(h) {
		return h
	}
	return nil
}

// usable reports whether h, the result of a flight, satisfies d.
func (fs *flights) usable(h *held, d demand) bool {
	return fs.ledger.usable(h, d.floor, time.Now()) && d.wish.metBy(h)
}

// catchUp looks at the storage for a subject that has come back after it was dropped: the
// storage may have news, of a logout or of a login by a peer, that end a cool-down. One of
// many callers looks.
func (fs *flights) catchUp(ctx context.Context) {
	if !fs.ledger.recalled.CompareAndSwap(true, false) || !fs.shared.store.shared {
		return
	}
	if _, err := fs.shared.pull(ctx, fs.ledger.own()...); err != nil {
		fs.ledger.recalled.Store(true) // for the next caller
		fs.shared.news(fs.ledger)
	}
}

// join is get without a look at who asks.
func (fs *flights) join(ctx context.Context, s *step, d demand) (*held, error) {
	fs.catchUp(ctx)
	epoch := fs.epochOf(ctx)
	for n := 0; n < joins; {
		if h := fs.current(s, d); h != nil {
			return h, nil
		}
		if err := fs.cooling(ctx, s, d); err != nil {
			return nil, err
		}
		var own atomic.Bool // the flight is the caller's own, and used the caller's given tokens
		h, err := fs.flight(s).Do(ctx, func(ctx context.Context) (*held, error) {
			own.Store(true)
			return fs.flyUnlessCooling(ctx, s, d)
		})
		switch {
		case errors.Is(err, errForgot) && fs.ledger.now() == epoch:
			n++
			continue // the flight was from before, the caller is not
		case err != nil && !own.Load() && ctx.Err() == nil:
			// Every such flight belonged to another request, so the loop ends.
			better, mine := fs.better(ctx, s, d, err)
			if better {
				continue
			}
			return nil, cmp.Or(mine, explain(ctx, s, err))
		case err != nil:
			return nil, explain(ctx, s, err)
		}
		// The flight may have begun before the demand, or its token may have died since.
		if fs.usable(h, d) {
			return h, nil
		}
		n++
	}
	return nil, &AuthError{Step: s.Name, Subject: fs.events.about, Err: errChurn}
}

// cooling returns the failure of s while the step cools down. It returns nil if the caller
// insists on a fetch, brings a given token that hasn't failed yet, or if the failed secret
// has changed.
func (fs *flights) cooling(ctx context.Context, s *step, d demand) error {
	if d.now {
		return nil
	}
	f, now := fs.ledger.cooling(s, time.Now()), time.Now()
	if f == nil {
		return nil
	}
	if f.err.given != "" {
		brought, err := brought(ctx, fs.graph.step(f.err.Step), fs.deaf(s).givens)
		if err != nil {
			return err
		}
		if f = f.of(brought.print(), now); f == nil {
			return nil
		}
	}
	if fs.renewed(ctx, f) {
		return nil
	}
	fs.counters.steps[s.index].failedFast.Add(1)
	return f.again(now)
}

// renewed reports whether a secret has changed since the failed try of f.
func (fs *flights) renewed(ctx context.Context, f *failure) bool {
	if f.read.of == nil {
		return false
	}
	own := fs.of(fs.graph.step(f.err.Step))
	now, ok := f.read.of.glance(ctx, f.at, func(ctx context.Context) reading {
		ctx, stop := own.carry.context(ctx)
		defer stop()
		return f.read.of.bounded(ctx, own.deaf(own.graph.step(f.err.Step)).fetchers)
	})
	return ok && now.renewedSince(f.read)
}

// better reports whether a failed flight of s may succeed for ctx: because the flight
// failed for lack of a good given token and ctx brings another, or because the flight
// failed on behalf of another wish. mine is the error if ctx brings no given token.
func (fs *flights) better(ctx context.Context, s *step, d demand, err error) (better bool, mine error) {
	if !d.wish.concernedBy(err) {
		return true, nil
	}
	if errors.Is(err, errGiven) {
		for _, g := range s.givens {
			if _, mine := given(ctx, g, fs.deaf(s).givens); mine != nil {
				return false, mine
			}
		}
		return true, nil
	}
	auth, ok := errors.AsType[*AuthError](err)
	if !ok || auth.given == "" {
		return false, nil
	}
	brought, mine := brought(ctx, fs.graph.step(auth.Step), fs.deaf(s).givens)
	return mine == nil && brought.print() != auth.given, mine
}

var errChurn = errors.New("each token that was fetched had been revoked by the time it arrived; try again")

// explain turns an error of a flight into an error of s.
func explain(ctx context.Context, s *step, err error) error {
	if _, ok := errors.AsType[*AuthError](err); ok {
		return err
	}
	if ctx.Err() != nil {
		return &waitError{s.Name, err}
	}
	return &AuthError{Step: s.Name, Err: err}
}

// waitError reports a caller's context that ended before a token arrived.
type waitError struct {
	step  string
	cause error
}

func (e *waitError) Error() string {
	return fmt.Sprintf("requestforge: waiting for the token of step %q: %v", e.step, e.cause)
}

func (e *waitError) Unwrap() error { return e.cause }

// Timeout informs url.Error, which asks only the error directly below.
func (e *waitError) Timeout() bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](e.cause)
	return ok && t.Timeout()
}

// boundedPause is the time between two looks for a given token, brought by a request, that
// lives longer.
const boundedPause = 10 * time.Second

// renewable reports whether a token in the place of h, which ends with a given token, would
// end later.
func (fs *flights) renewable(ctx context.Context, h *held) bool {
	brought, err := brought(ctx, h.step, fs.deaf(h.step).givens)
	end := nanoseconds(until(brought.taken))
	return err == nil && len(brought.taken) > 0 && (end == 0 || end > h.until)
}

// ahead renews h in the background. The callers keep h.
func (fs *flights) ahead(ctx context.Context, h *held) {
	s := h.step
	begun := fs.flight(s).Start(ctx, func(ctx context.Context) (*held, error) {
		if h.bounded() && !fs.renewable(ctx, h) {
			h.nextRenewal.Store(time.Now().Add(boundedPause).UnixNano())
			return h, nil
		}
		if f := fs.ledger.cooling(s, time.Now()); f != nil && !fs.renewed(ctx, f) {
			h.nextRenewal.Store(time.Now().Add(f.pauseAhead(time.Second)).UnixNano())
			return nil, f.again(time.Now())
		}
		fs.counters.steps[s.index].ahead.Add(1)
		ctx, stop := fs.carry.context(ctx)
		defer stop()
		n, err := fs.fly(ctx, s, demand{floor: stamps(nil).raised(s, h.stamp(), len(fs.graph.steps))})
		if err != nil {
			wait := fs.coolDown
			if f := fs.ledger.cooling(s, time.Now()); f != nil {
				wait = f.pauseAhead(wait)
			}
			h.nextRenewal.Store(time.Now().Add(wait).UnixNano())
		}
		return n, err
	})
	if !begun { // another flight is under way, and may fail
		h.nextRenewal.Store(time.Now().Add(time.Second).UnixNano())
	}
}

// flyUnlessCooling is fly for a caller who may have checked the cool-down before an earlier
// flight failed. A cool-down allows exactly one request.
func (fs *flights) flyUnlessCooling(ctx context.Context, s *step, d demand) (*held, error) {
	if err := fs.cooling(ctx, s, d); err != nil {
		return nil, err
	}
	if err := fs.mayAnswer(ctx, s, d); err != nil {
		return nil, err
	}
	ctx, stop := fs.carry.context(ctx)
	defer stop()
	return fs.fly(ctx, s, d)
}

// mayAnswer is called before a flight of s begins. It returns why the flight must not begin
// on behalf of d's wish, if d has a wish. A token at hand costs nothing.
func (fs *flights) mayAnswer(ctx context.Context, s *step, d demand) error {
	if d.wish == nil || fs.current(s, d) != nil {
		return nil
	}
	if u := fs.ledger.mayAnswer(s, d.wish, d.floor[s.index], time.Now()); u != nil {
		if u.err.Err == errAnsweredTooOften {
			fs.counters.refusalsIgnored.Add(1)
			fs.events.log(ctx, slog.LevelWarn, "challenged too often; the token stays for now", s)
		}
		return u
	}
	return nil
}
