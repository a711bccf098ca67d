package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// login is a login of several steps without a network: each fetch takes a
// while, counts, and makes a token that names its parents.
type login struct {
	mu    sync.Mutex
	count map[string]int
	fail  map[string]func(n int) error // by step, before a token is made
	life  map[string]time.Duration     // lifetime of the step's tokens; 0: never
	takes time.Duration
}

func newLogin() *login {
	return &login{count: map[string]int{}, fail: map[string]func(int) error{}, life: map[string]time.Duration{}, takes: time.Second}
}

// step is a Step whose tokens read "name-1", "name-2" and so on.
func (l *login) step(name string, parents ...string) rf.Step {
	return rf.Step{Name: name, DependsOn: parents, Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
		return l.fetch(ctx, name, parents, in)
	})}
}

func (l *login) fetch(ctx context.Context, name string, parents []string, in rf.Input) (*rf.Token, error) {
	l.mu.Lock()
	l.count[name]++
	n, fail, life := l.count[name], l.fail[name], l.life[name]
	l.mu.Unlock()
	select {
	case <-time.After(l.takes):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	made := ""
	for _, p := range parents {
		if in.Parents[p] == nil {
			return nil, fmt.Errorf("no token of %q", p)
		}
		made += " " + in.Parents[p].AccessToken
	}
	if fail != nil {
		if err := fail(n); err != nil {
			return nil, err
		}
	}
	tok := &rf.Token{AccessToken: fmt.Sprintf("%s-%d", name, n), Extra: map[string]any{"from": made}}
	if life > 0 {
		tok.Expiry = time.Now().Add(life)
	}
	return tok, nil
}

func (l *login) fetches(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count[name]
}

func (l *login) failing(name string, f func(n int) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail[name] = f
}

func pipeline(t *testing.T, cfg rf.PipelineConfig) *rf.Pipeline {
	t.Helper()
	p, err := rf.NewPipeline(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

// chain is device -> app -> user.
func (l *login) chain() []rf.Step {
	return []rf.Step{l.step("device"), l.step("app", "device"), l.step("user", "app")}
}

// identified is steps that say who they log in as.
func identified(steps []rf.Step) []rf.Step {
	for i := range steps {
		steps[i].Identity = "ann"
	}
	return steps
}

func mustToken(t *testing.T, p *rf.Pipeline) *rf.Token {
	t.Helper()
	tok, err := p.Token(t.Context())
	require.NoError(t, err)
	return tok
}

func TestPipelineColdHerdFetchesEachStepOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		var wg sync.WaitGroup
		var good atomic.Int32
		for range 1000 {
			wg.Go(func() {
				if tok, err := p.Token(t.Context()); err == nil && tok.AccessToken == "user-1" {
					good.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1000, good.Load())
		for _, s := range []string{"device", "app", "user"} {
			require.Equal(t, 1, l.fetches(s), s)
		}
	})
}

func TestPipelineFailingServerIsAskedOncePerCoolDown(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		tries int
	}{
		"final":     {&rf.AuthError{StatusCode: 400, Code: "invalid_request"}, 1},
		"transient": {&rf.AuthError{StatusCode: 503}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLogin()
				l.failing("app", func(int) error { return c.err })
				p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), CoolDown: 10 * time.Second, MaxCoolDown: 15 * time.Second})
				var failedAt atomic.Int64
				herd := func() {
					var wg sync.WaitGroup
					for range 1000 {
						wg.Go(func() {
							_, err := p.Token(t.Context())
							var auth *rf.AuthError
							if !errors.As(err, &auth) || auth.Step != "app" || auth.RetryAfter != 10*time.Second {
								t.Errorf("got %v", err)
							}
							now := time.Now().UnixNano()
							if old := failedAt.Swap(now); old != 0 && old != now {
								t.Error("not all answered at the instant of the failure")
							}
						})
					}
					wg.Wait()
				}
				herd()
				require.Equal(t, c.tries, l.fetches("app"))
				time.Sleep(10*time.Second - 1)
				_, err := p.Token(t.Context())
				var auth *rf.AuthError
				require.ErrorAs(t, err, &auth)
				require.Equal(t, time.Duration(1), auth.RetryAfter, "says when a new try is due")
				require.Equal(t, c.tries, l.fetches("app"))

				time.Sleep(time.Nanosecond)
				_, err = p.Token(t.Context())
				require.ErrorAs(t, err, &auth)
				require.Equal(t, 15*time.Second, auth.RetryAfter, "doubles up to MaxCoolDown")
				require.Equal(t, 2*c.tries, l.fetches("app"))
				require.Equal(t, 1, l.fetches("device"))
				require.Equal(t, 0, l.fetches("user"))

				l.failing("app", nil)
				time.Sleep(15 * time.Second)
				require.Equal(t, "user-1", mustToken(t, p).AccessToken)
			})
		})
	}
}

func TestPipelineIndependentStepsAreFetchedInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{
			l.step("top", "a", "b", "c"), l.step("a", "root"), l.step("b", "root"), l.step("c"), l.step("root"),
		}})
		begun := time.Now()
		mustToken(t, p)
		require.Equal(t, 3*time.Second, time.Since(begun), "the critical path is root, a or b, top")
		require.Equal(t, 1, l.fetches("root"))
	})
}

func TestPipelineLiveLeafAsksNothingOfItsAncestors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.life["device"], l.life["app"], l.life["user"] = time.Minute, 2*time.Minute, time.Hour
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), RefreshAhead: -1})
		mustToken(t, p)
		time.Sleep(10 * time.Minute)
		require.Equal(t, "user-1", mustToken(t, p).AccessToken, "expired parents leave their child alone")
		require.Equal(t, 1, l.fetches("device"))
		require.NoError(t, p.InvalidateStep(t.Context(), "user"))
		tok := mustToken(t, p)
		require.Equal(t, "user-2", tok.AccessToken)
		require.Equal(t, " app-2", tok.Extra["from"])
		require.Equal(t, 2, l.fetches("device"))
	})
}

// A parent that was merely renewed leaves what was made from the old one
// alone.
func TestPipelineRenewedParentLeavesItsChildrenAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.life["root"] = time.Minute
		storage := rf.NewMemoryStorage()
		p := pipeline(t, rf.PipelineConfig{Storage: storage, Steps: []rf.Step{l.step("root"), l.step("leaf", "root")}})
		other := pipeline(t, rf.PipelineConfig{Storage: storage, Steps: []rf.Step{l.step("root")}})
		require.Equal(t, "leaf-1", mustToken(t, p).AccessToken)
		time.Sleep(time.Hour)
		require.Equal(t, "root-2", mustToken(t, other).AccessToken)
		require.Equal(t, "leaf-1", mustToken(t, p).AccessToken)
	})
}

func TestPipelineLateRefusalsOfOneTokenCostOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		old := mustToken(t, p)
		for i := range 200 {
			require.NoError(t, p.Invalidate(t.Context(), old))
			want := "user-2"
			got := mustToken(t, p)
			if i == 0 { // the first in a row: the leaf has the blame
				require.Equal(t, 1, l.fetches("app"))
			}
			require.Equal(t, want, got.AccessToken)
		}
		require.Equal(t, 2, l.fetches("user"))
	})
}

func TestPipelineInvalidationTakesWhatWasMadeFromTheToken(t *testing.T) {
	for _, c := range []struct{ step, want string }{
		{"user", "1 1 2"}, {"app", "1 2 2"}, {"device", "2 2 2"}, {"", "2 2 2"},
	} {
		t.Run(c.step, func(t *testing.T) {
			l := newLogin()
			l.takes = 0
			p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
			mustToken(t, p)
			if c.step == "" {
				require.NoError(t, p.InvalidateAll(t.Context()))
			} else {
				require.NoError(t, p.InvalidateStep(t.Context(), c.step))
			}
			mustToken(t, p)
			require.Equal(t, c.want, fmt.Sprint(l.fetches("device"), " ", l.fetches("app"), " ", l.fetches("user")))
		})
	}
}

func TestPipelineInvalidateUnknownStepSaysSo(t *testing.T) {
	p := pipeline(t, rf.PipelineConfig{Steps: newLogin().chain()})
	require.ErrorContains(t, p.InvalidateStep(t.Context(), "usr"), `"usr" is no step`)
}

// A token that was being made from a parent when that was revoked is never
// handed out.
func TestPipelineTokenDeadOnArrivalIsNotHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		go func() {
			time.Sleep(2*time.Second + time.Second/2) // while user-1 is made from app-1
			p.InvalidateStep(context.Background(), "app")
		}()
		tok := mustToken(t, p)
		require.Equal(t, "user-2", tok.AccessToken)
		require.Equal(t, " app-2", tok.Extra["from"])
		require.Equal(t, 1, l.fetches("device"))
	})
}

func TestPipelineGivesUpWhenEachTokenIsDeadOnArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		var p *rf.Pipeline
		steps := l.chain()
		user := steps[2].Fetcher
		steps[2].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			p.InvalidateStep(ctx, "device")
			return user.Fetch(ctx, in)
		})
		p = pipeline(t, rf.PipelineConfig{Steps: steps})
		_, err := p.Token(t.Context())
		var auth *rf.AuthError
		require.ErrorAs(t, err, &auth)
		require.False(t, auth.Permanent)
		require.Equal(t, "user", auth.Step)
		require.Equal(t, 3, l.fetches("user"))
	})
}

// Where several paths meet in an ancestor, the older token counts: revoking it
// kills what came over either path.
func TestPipelineLineageIsTheLowestWherePathsMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.life["root"] = time.Minute
		storage := rf.NewMemoryStorage()
		steps := []rf.Step{l.step("root"), l.step("a", "root"), l.step("b", "root"), l.step("leaf", "a", "b")}
		onlyA := pipeline(t, rf.PipelineConfig{Storage: storage, Steps: steps[:2]})
		mustToken(t, onlyA) // a-1 from root-1
		time.Sleep(time.Hour)
		p := pipeline(t, rf.PipelineConfig{Storage: storage, Steps: steps, RefreshFrom: "root"})
		first := mustToken(t, p)
		require.Equal(t, " a-1 b-1", first.Extra["from"])
		require.Equal(t, 2, l.fetches("root"), "b-1 is from root-2")

		// A refusal that blames root has the stamp of root-1. It kills
		// the leaf and a-1, but not b-1.
		require.NoError(t, storage.Revoke(t.Context(), "requestforge:root", 1))
		require.NoError(t, p.InvalidateStep(t.Context(), "leaf"))
		next := mustToken(t, p)
		require.Equal(t, " a-2 b-1", next.Extra["from"])
	})
}

func TestPipelineRefreshAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.life["user"] = time.Hour
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), CoolDown: time.Second})
		issued := time.Now().Add(3 * time.Second)
		mustToken(t, p)
		time.Sleep(time.Until(issued.Add(time.Hour - 5*time.Minute - time.Nanosecond)))
		mustToken(t, p)
		synctest.Wait()
		require.Equal(t, 1, l.fetches("user"), "before the window")

		// In the window, with a failing server: nobody notices, and the
		// server is asked now and then.
		l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 400} })
		for range 240 {
			time.Sleep(time.Second)
			begun := time.Now()
			require.Equal(t, "user-1", mustToken(t, p).AccessToken)
			require.Zero(t, time.Since(begun))
		}
		time.Sleep(3 * time.Second) // for a fetch that the last of them has begun
		n := l.fetches("user")
		require.Greater(t, n, 3)
		require.Less(t, n, 20, "failures are spaced")

		l.failing("user", nil)
		time.Sleep(30 * time.Second)
		require.Equal(t, "user-1", mustToken(t, p).AccessToken)
		time.Sleep(time.Second)
		synctest.Wait()
		require.NotEqual(t, "user-1", mustToken(t, p).AccessToken, "renewed in the background")
		require.Equal(t, 1, l.fetches("app"))
		require.Equal(t, n+1, l.fetches("user"))
	})
}

func TestPipelineShortLivedTokenIsCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, life := range []time.Duration{20 * time.Second, time.Second} {
			l := newLogin()
			l.takes = 0
			l.life["only"] = life
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("only")}, RefreshAhead: -1})
			mustToken(t, p)
			time.Sleep(life * 8 / 10)
			mustToken(t, p)
			require.Equal(t, 1, l.fetches("only"), "cached for most of its life")
			time.Sleep(life*2/10 - 1)
			mustToken(t, p)
			require.Equal(t, 2, l.fetches("only"), "but not to the very end")
		}
	})
}

func TestPipelineTTLAndExpiryTheEarlierWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ ttl, life, want time.Duration }{
			{time.Minute, time.Hour, time.Minute}, {time.Hour, time.Minute, time.Minute},
			{0, time.Minute, time.Minute}, {time.Minute, 0, time.Minute}, {0, 0, 0},
		} {
			l := newLogin()
			l.life["only"] = c.life
			s := l.step("only")
			s.TTL = c.ttl
			tok := mustToken(t, pipeline(t, rf.PipelineConfig{Steps: []rf.Step{s}}))
			if c.want == 0 {
				require.True(t, tok.Expiry.IsZero())
			} else {
				require.WithinDuration(t, time.Now().Add(c.want), tok.Expiry, 0)
			}
		}
	})
}

func TestPipelineWrongPasswordIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, err := range []error{
			&rf.AuthError{StatusCode: 401}, &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true},
			errors.New("wrong password"),
		} {
			l := newLogin()
			l.failing("only", func(int) error { return err })
			_, got := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("only")}}).Token(t.Context())
			var auth *rf.AuthError
			require.ErrorAs(t, got, &auth)
			require.Equal(t, "only", auth.Step)
			require.Equal(t, 1, l.fetches("only"))
		}
	})
}

func TestPipelineTransientFailureIsTriedAgainInTheFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		l.failing("only", func(n int) error {
			if n == 1 {
				return &rf.AuthError{StatusCode: 429, RetryAfter: 3 * time.Second}
			}
			return nil
		})
		begun := time.Now()
		require.Equal(t, "only-2", mustToken(t, pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("only")}})).AccessToken)
		require.GreaterOrEqual(t, time.Since(begun), 3*time.Second, "Retry-After is obeyed")
		require.Less(t, time.Since(begun), 3750*time.Millisecond)

		l = newLogin()
		l.takes = 0
		l.failing("only", func(n int) error { return &rf.AuthError{StatusCode: 503, RetryAfter: time.Minute} })
		_, err := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("only")}}).Token(t.Context())
		var auth *rf.AuthError
		require.ErrorAs(t, err, &auth)
		require.GreaterOrEqual(t, auth.RetryAfter, time.Minute, "too long for a flight: remembered instead")
		require.Less(t, auth.RetryAfter, 75*time.Second)
		require.Equal(t, 1, l.fetches("only"))
	})
}

func TestPipelineCallerLeavesAndTheFetchGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begun := time.Now()
		_, err := p.Token(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 50*time.Millisecond, time.Since(begun))
		require.Equal(t, "user-1", mustToken(t, p).AccessToken)
		require.Equal(t, 3*time.Second, time.Since(begun))
	})
}

func TestPipelineContextThatIsOverStartsNothing(t *testing.T) {
	l := newLogin()
	p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Token(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, l.fetches("device"))
}

func TestPipelineSilentServerEndsAtFetchTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		p := pipeline(t, rf.PipelineConfig{FetchTimeout: 7 * time.Second, Steps: []rf.Step{{Name: "deaf", Fetcher: rf.FetcherFunc(
			func(context.Context, rf.Input) (*rf.Token, error) { <-hang; return nil, errors.New("late") })}}})
		begun := time.Now()
		_, err := p.Token(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "FetchTimeout (7s)")
		require.Equal(t, 7*time.Second, time.Since(begun))
	})
}

func TestPipelineCrashInAFetcherIsAnErrorAndTheNextCallWorks(t *testing.T) {
	for name, crash := range map[string]func(){
		"panic":  func() { panic("s3cret") },
		"goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogin()
			l.takes = 0
			l.failing("app", func(n int) error {
				if n == 1 {
					crash()
				}
				return nil
			})
			p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
			_, err := p.Token(t.Context())
			var auth *rf.AuthError
			require.ErrorAs(t, err, &auth)
			require.Equal(t, "app", auth.Step)
			require.NotContains(t, err.Error(), "s3cret")
			require.Equal(t, "user-1", mustToken(t, p).AccessToken, "no cool-down")
		})
	}
}

func TestPipelineFetcherThroughItsOwnPipelineIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		var p *rf.Pipeline
		steps := l.chain()
		steps[1].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			return p.Token(ctx)
		})
		p = pipeline(t, rf.PipelineConfig{Steps: steps})
		_, err := p.Token(t.Context())
		require.ErrorContains(t, err, "would wait for itself")
		var auth *rf.AuthError
		require.ErrorAs(t, err, &auth)
		require.Equal(t, "app", auth.Step)

		// Behind another pipeline's fetch as well.
		outer := l.step("outer")
		outer.Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) { return p.Token(ctx) })
		q := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{outer}})
		steps[1].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) { return q.Token(ctx) })
		p = pipeline(t, rf.PipelineConfig{Steps: steps})
		_, err = q.Token(t.Context())
		require.ErrorContains(t, err, "would wait for itself")
	})
}

func TestPipelineStepRefusedByTheAuthServerBlamesItsParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.life["user"] = time.Hour
		refused := map[string]bool{}
		steps := l.chain()
		user := steps[2].Fetcher
		steps[2].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			if refused[in.Parents["app"].AccessToken] {
				l.fetch(ctx, "user", nil, in)
				return nil, &rf.AuthError{StatusCode: 401}
			}
			return user.Fetch(ctx, in)
		})
		p := pipeline(t, rf.PipelineConfig{Steps: steps, RefreshAhead: -1})
		mustToken(t, p)
		refused["app-1"] = true
		time.Sleep(time.Hour)
		require.Equal(t, " app-2", mustToken(t, p).Extra["from"])
		require.Equal(t, 1, l.fetches("device"))
		require.Equal(t, 3, l.fetches("user"), "refused once, tried once more")

		// With every parent refused it ends after that, and the flights
		// of the next minutes don't blame again.
		for i := range 10 {
			refused[fmt.Sprintf("app-%d", i)] = true
		}
		time.Sleep(time.Hour)
		_, err := p.Token(t.Context())
		var auth *rf.AuthError
		require.ErrorAs(t, err, &auth)
		require.Equal(t, 401, auth.StatusCode)
		require.Equal(t, 8, l.fetches("user"), "refused, and the young parent waited for in three more tries")
		require.Equal(t, 3, l.fetches("app"))
		time.Sleep(time.Minute)
		p.Token(t.Context())
		require.Equal(t, 9, l.fetches("user"))
		require.Equal(t, 3, l.fetches("app"))

		// But not for ever: the next parent may be a good one.
		clear(refused)
		refused["app-3"] = true
		time.Sleep(5 * time.Minute)
		require.Equal(t, " app-4", mustToken(t, p).Extra["from"])
	})
}

// Two parents in a row are revoked before the step has worked with either.
func TestPipelineParentRevokedBeforeItEverWorkedIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		refused := map[string]bool{"app-1": true, "app-2": true}
		steps := l.chain()
		user := steps[2].Fetcher
		steps[2].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			if refused[in.Parents["app"].AccessToken] {
				return nil, &rf.AuthError{StatusCode: 401, Code: "invalid_token"}
			}
			return user.Fetch(ctx, in)
		})
		p := pipeline(t, rf.PipelineConfig{Steps: steps})
		_, err := p.Token(t.Context())
		require.Error(t, err, "the parent is replaced once in a flight")
		time.Sleep(time.Minute)
		require.Equal(t, " app-3", mustToken(t, p).Extra["from"])
		require.Equal(t, 1, l.fetches("device"))
	})
}

// RFC 8693 refuses a subject token with 400 and invalid_request, which doesn't
// look like it.
func TestPipelineParentRefusedBlamesTheParentWhateverTheStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, refusal := range map[string]rf.AuthError{
			"400":              {StatusCode: 400, Code: "invalid_request", ParentRefused: true},
			"permanent":        {StatusCode: 400, Code: "invalid_grant", Permanent: true, ParentRefused: true},
			"without a status": {ParentRefused: true},
		} {
			l := newLogin()
			l.takes = 0
			steps := l.chain()
			user := steps[2].Fetcher
			steps[2].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
				if in.Parents["app"].AccessToken == "app-1" {
					return nil, &refusal
				}
				return user.Fetch(ctx, in)
			})
			require.Equal(t, " app-2", mustToken(t, pipeline(t, rf.PipelineConfig{Steps: steps})).Extra["from"], name)
			require.Equal(t, 1, l.fetches("device"), name)
		}
	})
}

func TestPipelinePermanentCodeBlamesNoParent(t *testing.T) {
	l := newLogin()
	l.takes = 0
	l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true} })
	p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
	_, err := p.Token(t.Context())
	require.Error(t, err)
	require.Equal(t, 1, l.fetches("user"))
	require.Equal(t, 1, l.fetches("app"))
}

func TestPipelineRefreshFetchesEveryStepAndKeepsTheOldIfThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		mustToken(t, p)
		tok, err := p.Refresh(t.Context())
		require.NoError(t, err)
		require.Equal(t, "user-2", tok.AccessToken)
		require.Equal(t, " app-2", tok.Extra["from"])
		require.Equal(t, 2, l.fetches("device"))

		l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 400} })
		_, err = p.Refresh(t.Context())
		require.Error(t, err)
		require.Equal(t, "user-2", mustToken(t, p).AccessToken)
	})
}

func TestPipelineForgetLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		storage := rf.NewMemoryStorage()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage})
		mustToken(t, p)
		require.NoError(t, p.Forget(t.Context()))
		entries, err := storage.Load(t.Context(), "requestforge:device", "requestforge:app", "requestforge:user")
		require.NoError(t, err)
		require.Equal(t, []rf.Entry{{Gone: 2}, {Gone: 2}, {Gone: 2}}, entries, "the tombstones")
		require.Equal(t, "user-2", mustToken(t, p).AccessToken)
		require.Equal(t, 2, l.fetches("device"))

		// A fetch under way comes to nothing.
		require.NoError(t, p.InvalidateStep(t.Context(), "user"))
		go func() { time.Sleep(time.Second / 2); p.Forget(context.Background()) }()
		_, err = p.Token(t.Context())
		require.ErrorContains(t, err, "forgotten")
		synctest.Wait()
		entries, _ = storage.Load(t.Context(), "requestforge:user")
		require.Nil(t, entries[0].Record)
		require.Equal(t, "user-4", mustToken(t, p).AccessToken)
	})
}

func TestPipelineRefreshFromTakesTheBlameThere(t *testing.T) {
	l := newLogin()
	l.takes = 0
	storage := rf.NewMemoryStorage()
	mustToken(t, pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage}))
	p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage, RefreshFrom: "app"})
	old := mustToken(t, p) // loaded, so it was accepted
	require.NoError(t, p.Invalidate(t.Context(), old))
	mustToken(t, p)
	require.Equal(t, "1 2 2", fmt.Sprint(l.fetches("device"), " ", l.fetches("app"), " ", l.fetches("user")))
}

func TestPipelineBlameClimbsWhileNothingIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		counts := func() string {
			return fmt.Sprint(l.fetches("device"), " ", l.fetches("app"), " ", l.fetches("user"))
		}
		for _, want := range []string{"1 1 2", "1 2 3", "2 3 4", "2 3 4", "2 3 4"} {
			require.NoError(t, p.Invalidate(t.Context(), mustToken(t, p)))
			mustToken(t, p)
			require.Equal(t, want, counts())
		}
		require.EqualValues(t, 2, p.Stats().RefusalsIgnored)
		time.Sleep(10 * time.Second) // one drop more
		require.NoError(t, p.Invalidate(t.Context(), mustToken(t, p)))
		mustToken(t, p)
		require.Equal(t, "3 4 5", counts())
	})
}

func TestPipelineInvalidateOfAStrangerDoesNothing(t *testing.T) {
	l := newLogin()
	l.takes = 0
	p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
	cur := mustToken(t, p)
	require.NoError(t, p.Invalidate(t.Context(), nil))
	require.NoError(t, p.Invalidate(t.Context(), &rf.Token{AccessToken: "other"}))
	require.Same(t, cur, mustToken(t, p))
	require.NoError(t, p.Invalidate(t.Context(), &rf.Token{AccessToken: cur.AccessToken}), "by value")
	require.NotSame(t, cur, mustToken(t, p))
}

func TestPipelineKeyPrefixSeparates(t *testing.T) {
	l := newLogin()
	l.takes = 0
	storage := rf.NewMemoryStorage()
	for _, prefix := range []string{"a", "b", "a"} {
		mustToken(t, pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage, KeyPrefix: prefix}))
	}
	require.Equal(t, 2, l.fetches("user"))
}
