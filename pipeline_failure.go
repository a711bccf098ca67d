// The memory for failures: one request per cool-down at the auth server,
// whatever the number of callers.

package requestforge

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
)

// maxRetryAfter is the longest that an auth server can make us wait.
const maxRetryAfter = 5 * time.Minute

// failure is what is left of a fetch that failed. Immutable.
type failure struct {
	err   *AuthError
	until time.Time // nobody asks the auth server before
}

// again is the error for one more caller.
func (f *failure) again(now time.Time) *AuthError {
	err := *f.err
	err.RetryAfter = max(0, f.until.Sub(now))
	return &err
}

// cooling returns the failure of s that is still remembered, or nil.
func (st *state) cooling(s *step) *AuthError {
	st.mu.Lock()
	defer st.mu.Unlock()
	f := st.steps[s.index].failure
	if f == nil {
		return nil
	}
	now := time.Now()
	if !now.Before(f.until) {
		return nil
	}
	return f.again(now)
}

// failed remembers err, tells the step's hook and returns what the callers
// get.
func (f *fetch) failed(ctx context.Context, err error) error {
	s := f.step
	auth, named := err.(*AuthError) // by try
	if !named {
		auth = f.name(err)
	}
	if errors.Is(err, errForgot) {
		return auth
	}
	if f.remembered {
		return err
	}
	if f.failing != nil {
		return f.inherit(err)
	}
	f.stats[s.index].failures.Add(1)
	if s.OnError != nil {
		hook(func() { s.OnError(ctx, auth) })
	}
	var crash *flight.PanicError
	if errors.As(err, &crash) || errors.Is(err, flight.ErrGoexit) {
		return auth // a bug, not a bad day: the next call tries at once
	}

	cfg := &f.p.cfg
	f.mu.Lock()
	ss := &f.steps[s.index]
	wait := cfg.MaxCoolDown
	if n := min(ss.fails, 32); !auth.Permanent && cfg.CoolDown<<n>>n == cfg.CoolDown {
		wait = min(wait, cfg.CoolDown<<n)
	}
	ss.fails++
	wait = max(wait, min(auth.RetryAfter, maxRetryAfter))
	now := time.Now()
	fail, fails := &failure{auth, now.Add(wait)}, ss.fails
	ss.failure = fail
	f.mu.Unlock()
	f.log(ctx, slog.LevelError, "step cools down", s, slog.Duration("for", wait), slog.Int("failures", fails), slog.Any("error", auth))
	f.tell(ctx, auth, wait)
	return fail.again(now)
}

// inherit makes a parent's failure the step's own, so that until the parent
// is due again callers fail without a flight.
func (f *fetch) inherit(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fail := f.steps[f.failing.index].failure; fail != nil && time.Now().Before(fail.until) {
		f.steps[f.step.index].failure = fail
	}
	return err
}

// worked forgets the failures of s. What others have inherited from it is due
// at the same time, and so is past. The caller holds mu.
func (st *state) worked(s *step) {
	st.steps[s.index].failure = nil
	st.steps[s.index].fails = 0
}
