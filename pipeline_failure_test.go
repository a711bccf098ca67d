// What is remembered of a failure, and who is blamed for a step's.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// failsFor is the cool-down that p's Token reports.
func failsFor(t *testing.T, p *rf.Pipeline) time.Duration {
	t.Helper()
	_, err := p.Token(t.Context())
	var auth *rf.AuthError
	require.ErrorAs(t, err, &auth)
	return auth.RetryAfter
}

// An auth server can ask for a longer cool-down, within reason.
func TestPipelineRetryAfterIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 429, RetryAfter: 24 * time.Hour} })
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}})
		require.Equal(t, 5*time.Minute, failsFor(t, p))
		require.Equal(t, 1, l.fetches("user"))
	})
}

// An auth server says when to come back, as a number or as a date by its own clock.
// Fifty processes that are told so at one moment come back then or later, not all at
// one moment; and none is in a loop when the moment has passed.
func TestPipelineRetryAfterOfATokenEndpoint(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		value func(now time.Time) string // of Retry-After
		least time.Duration
	}{
		"seconds":          {func(time.Time) string { return "4" }, 4 * time.Second},
		"decimals":         {func(time.Time) string { return "3.2" }, 4 * time.Second},
		"a date":           {func(now time.Time) string { return now.Add(4 * time.Second).Format(http.TimeFormat) }, 4 * time.Second},
		"for the ledger":   {func(time.Time) string { return "60" }, time.Minute},
		"a far date":       {func(now time.Time) string { return now.Add(time.Minute).Format(http.TimeFormat) }, time.Minute},
		"zero":             {func(time.Time) string { return "0" }, 100 * time.Millisecond},
		"a date long past": {func(now time.Time) string { return now.Add(-time.Hour).Format(http.TimeFormat) }, 100 * time.Millisecond},
	} {
		for _, off := range []time.Duration{0, time.Hour, -time.Hour} {
			t.Run(fmt.Sprintf("%s, the server's clock is %v ahead", name, off), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					begun, waits := time.Now(), map[time.Duration]bool{}
					for range 50 {
						sent := 0
						client := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
							if sent++; sent > 1 {
								waits[time.Since(begun)] = true
								resp := reply(req, 200, "Content-Type", "application/json")
								resp.Body = io.NopCloser(strings.NewReader(`{"access_token":"a"}`))
								return resp, nil
							}
							now := time.Now().Add(off).UTC()
							return reply(req, 503, "Date", now.Format(http.TimeFormat), "Retry-After", c.value(now)), nil
						})}
						p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "user", Fetcher: &rf.HTTPFetcher{URL: "https://auth.example.com/", Client: client}}}})
						begun = time.Now()
						if _, err := p.Token(t.Context()); err != nil {
							var auth *rf.AuthError
							require.ErrorAs(t, err, &auth)
							require.Equal(t, 1, sent)
							time.Sleep(auth.RetryAfter)
							mustToken(t, p)
						}
						require.Equal(t, 2, sent)
					}
					for wait := range waits {
						if wait < c.least || wait > 2*max(c.least, time.Second) {
							t.Errorf("sent again after %v, asked for %v", wait, c.least)
						}
					}
					require.Greater(t, len(waits), 40, "at how many moments fifty processes came back")
				})
			})
		}
	}
}

// A success ends a row of failures.
func TestPipelineCoolDownStartsOverAfterASuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		bad := func(int) error { return &rf.AuthError{StatusCode: 400} }
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}})
		for range 2 {
			l.failing("user", bad)
			for _, want := range []time.Duration{1, 2, 4} {
				require.Equal(t, want*time.Second, failsFor(t, p))
				time.Sleep(want * time.Second)
			}
			l.failing("user", nil)
			mustToken(t, p)
			require.NoError(t, p.InvalidateStep(t.Context(), "user"))
		}
	})
}

// While a parent cools down its children's callers fail at once, without a
// look into the storage or at the lock.
func TestPipelineParentsFailureIsRememberedForItsChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.failing("device", func(int) error { return &rf.AuthError{StatusCode: 400} })
		var calls atomic.Int32
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(string) error { calls.Add(1); return nil }}
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage, CoolDown: time.Minute, MaxCoolDown: time.Minute})
		require.Equal(t, time.Minute, failsFor(t, p))
		for range 59 {
			time.Sleep(time.Second)
			synctest.Wait() // for a look in the background, which hears of logouts
			before := calls.Load()
			failsFor(t, p)
			require.Equal(t, before, calls.Load())
		}
		l.failing("device", nil)
		time.Sleep(time.Second)
		mustToken(t, p)
	})
}

// A refresh token isn't sent a second time once the lock is lost, though the
// server asked for it.
func TestPipelineLeaseLostBetweenTriesEndsTheRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := make(chan struct{})
		r := &rotating{refuse: func(int) error {
			close(lost)
			return &rf.AuthError{StatusCode: 503}
		}}
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage()}
		storage.lock = func() (rf.Lease, bool, error) {
			l, ok, err := storage.MemoryStorage.TryLock(context.Background(), "requestforge:user")
			return &losing{l, lost}, ok, err
		}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: storage, RefreshAhead: -1})
		mustToken(t, p)
		time.Sleep(2 * time.Hour)
		failsFor(t, p)
		require.Equal(t, 1, r.refreshs)
	})
}

// losing is a lease that can be lost.
type losing struct {
	rf.Lease
	lost chan struct{}
}

func (l *losing) Done() <-chan struct{} { return l.lost }

// A parent that the auth server refuses with 401 or 403 is invalidated once
// its successor has worked: for every process. If that is refused as well, it
// wasn't the parent, and nothing is invalidated.
func TestPipelineRefusedParentIsInvalidatedOnceAnotherHasWorked(t *testing.T) {
	for _, status := range []int{401, 403} {
		synctest.Test(t, func(t *testing.T) {
			l := newLogin()
			l.life["user"] = time.Hour
			refused := map[string]bool{"app-1": true}
			steps := l.chain()
			user := steps[2].Fetcher
			steps[2].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
				if refused[in.Parents["app"].AccessToken] {
					return nil, &rf.AuthError{StatusCode: status}
				}
				return user.Fetch(ctx, in)
			})
			storage := rf.NewMemoryStorage()
			p := pipeline(t, rf.PipelineConfig{Steps: steps, Storage: storage, RefreshAhead: -1})
			mark := func() uint64 {
				entries, err := storage.Load(t.Context(), "requestforge:app")
				require.NoError(t, err)
				return entries[0].Mark
			}
			require.Equal(t, " app-2", mustToken(t, p).Extra["from"])
			require.EqualValues(t, 1, mark())
			require.EqualValues(t, 1, p.Stats().Invalidations)

			refused["app-2"], refused["app-3"] = true, true
			time.Sleep(2 * time.Hour)
			failsFor(t, p)
			require.Equal(t, 3, l.fetches("app"))
			require.EqualValues(t, 1, mark(), "a bad day of the auth server")
			require.EqualValues(t, 1, p.Stats().Invalidations)
		})
	}
}

// Refresh joins a fetch that is under way, but doesn't take what it brings for
// new if it was made from what was there before.
func TestPipelineRefreshIsNotServedByAnEarlierFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		go p.Token(context.Background())
		time.Sleep(2*time.Second + time.Second/2) // user-1 is being made from app-1
		tok, err := p.Refresh(t.Context())
		require.NoError(t, err)
		require.Equal(t, " app-2", tok.Extra["from"])
		require.Equal(t, 2, l.fetches("device"))
	})
}

// A logout forgets failures, too: the next login may be somebody else's.
func TestPipelineForgetWhileCoolingDownTriesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.failing("user", func(int) error { return errors.New("wrong password") })
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}})
		failsFor(t, p)
		l.failing("user", nil)
		require.NoError(t, p.Forget(t.Context()))
		mustToken(t, p)
	})
}

// A failure that processes share is one from before the logout, too: whether the
// process that logged out had it, or a peer that has not heard of the logout yet.
func TestPipelineForgetEndsSharedFailures(t *testing.T) {
	for name, c := range map[string]struct {
		takes time.Duration // of the fetch that fails
		peer  bool          // a peer's
	}{"its own": {}, "a peer's": {peer: true}, "a peer's that is under way": {5 * time.Second, true}, "its own that is under way": {5 * time.Second, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLogin()
				l.takes = c.takes
				l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true} })
				cfg := rf.PipelineConfig{Storage: newShared(), KeyPrefix: "test", Steps: identified([]rf.Step{l.step("user")})}
				here := pipeline(t, cfg)
				failing := here
				if c.peer {
					failing = pipeline(t, cfg)
				}
				go failing.Token(t.Context())
				synctest.Wait()
				require.NoError(t, here.Forget(t.Context()))
				time.Sleep(c.takes)
				synctest.Wait()
				_, err := here.Token(t.Context())
				require.Error(t, err)
				require.Equal(t, 2, l.fetches("user"), "the failure is from before the logout")
				other := pipeline(t, cfg)
				_, err = other.Token(t.Context())
				require.ErrorContains(t, err, "another process's fetch failed")
				require.Equal(t, 2, l.fetches("user"), "the failure is from after the logout")
			})
		})
	}
}

// A parent's token with which the auth server has given out another one was
// accepted: a refusal of it is a revocation, and no parent's fault.
func TestPipelineTokenThatMadeAnotherWasAccepted(t *testing.T) {
	l := newLogin()
	l.takes = 0
	steps := l.chain()
	var app *rf.Token
	user := steps[2].Fetcher
	steps[2].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
		app = in.Parents["app"]
		return user.Fetch(ctx, in)
	})
	p := pipeline(t, rf.PipelineConfig{Steps: steps})
	mustToken(t, p)
	require.NoError(t, p.Invalidate(t.Context(), app))
	require.Equal(t, " app-2", mustToken(t, p).Extra["from"])
	require.Equal(t, 1, l.fetches("device"))
}

// Even a crash, which nobody remembers, is no reason to begin a renewal with
// each request.
func TestPipelineCrashAheadOfExpiryIsSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		l.life["user"] = time.Hour
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}})
		mustToken(t, p)
		l.failing("user", func(int) error { panic("a bug") })
		time.Sleep(58 * time.Minute)
		for range 1000 {
			require.Equal(t, "user-1", mustToken(t, p).AccessToken)
			synctest.Wait()
		}
		require.Equal(t, 2, l.fetches("user"))
		time.Sleep(time.Second)
		mustToken(t, p)
		synctest.Wait()
		require.Equal(t, 3, l.fetches("user"))
	})
}

// A lock that comes too late for its flight is let go, not held for ever.
func TestPipelineLockThatComesLateIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage()}
		storage.lock = func() (rf.Lease, bool, error) {
			time.Sleep(300 * time.Millisecond)
			return storage.MemoryStorage.TryLock(context.Background(), "requestforge:user")
		}
		mustToken(t, pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage}))
		synctest.Wait()
		_, free, err := storage.MemoryStorage.TryLock(t.Context(), "requestforge:user")
		require.NoError(t, err)
		require.True(t, free)
	})
}
