// What code that isn't the pipeline's can do to it by hanging, crashing or keeping
// things: hooks, loggers, fetchers, the storage's calls and leases.

package requestforge_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// A hook gets what is left of the flight's time and is left behind then. Callers
// get their result, and the next flight isn't held up.
func TestPipelineHookThatHangsEndsWithTheFlight(t *testing.T) {
	for name, c := range map[string]struct {
		timeout, takes, want time.Duration
	}{
		"what is left of FetchTimeout": {5 * time.Second, 2 * time.Second, 5 * time.Second},
		"nothing is left":              {5 * time.Second, time.Hour, 6 * time.Second},
		"a short FetchTimeout":         {50 * time.Millisecond, 0, 50 * time.Millisecond},
		"FetchTimeout is no bound":     {-1, time.Second, 31 * time.Second},
	} {
		for _, fail := range []bool{true, false} {
			if !fail && c.takes == time.Hour {
				continue
			}
			t.Run(fmt.Sprintf("%s, %v", name, fail), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					hang := make(chan struct{})
					defer close(hang)
					var ended atomic.Int32
					hook := func(ctx context.Context) { <-ctx.Done(); ended.Add(1); <-hang }
					refused := &rf.AuthError{StatusCode: 400, Permanent: true}
					var good atomic.Bool
					good.Store(!fail)
					step := rf.Step{
						Name: "user",
						Fetcher: rf.FetcherFunc(func(ctx context.Context, _ rf.Input) (*rf.Token, error) {
							select {
							case <-time.After(c.takes):
							case <-ctx.Done():
								return nil, ctx.Err()
							}
							if !good.Load() {
								return nil, refused
							}
							return &rf.Token{AccessToken: "t", RefreshToken: "r"}, nil
						}),
						OnError:  func(ctx context.Context, _ error) { hook(ctx) },
						OnRotate: func(ctx context.Context, _ *rf.Token) { hook(ctx) },
					}
					storage := rf.NewMemoryStorage()
					p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}, Storage: storage, FetchTimeout: c.timeout, FetchRetries: -1, CoolDown: time.Second})
					begun := time.Now()
					_, err := p.Token(t.Context())
					require.Equal(t, fail, err != nil, "%v", err)
					require.Equal(t, c.want, time.Since(begun))
					synctest.Wait()
					require.EqualValues(t, 1, ended.Load(), "the hook's context ends")

					if c.takes == time.Hour {
						return
					}
					good.Store(true)
					time.Sleep(time.Hour)
					require.NoError(t, p.InvalidateStep(t.Context(), "user"))
					begun = time.Now()
					mustToken(t, p)
					require.LessOrEqual(t, time.Since(begun), c.want)
				})
			})
		}
	}
}

// While 16 hooks of a step hang, further ones are not called, and cost no time.
func TestPipelineHooksThatHangDontPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		hang := make(chan struct{})
		p := pipeline(t, rf.PipelineConfig{FetchTimeout: time.Second, Steps: []rf.Step{{
			Name:    "user",
			Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) { return nil, &rf.AuthError{StatusCode: 400} }),
			OnError: func(context.Context, error) { calls.Add(1); <-hang },
		}}})
		for range 20 {
			p.Token(t.Context())
			time.Sleep(time.Hour)
		}
		require.EqualValues(t, 16, calls.Load())
		begun := time.Now()
		p.Token(t.Context())
		require.Zero(t, time.Since(begun))
		close(hang)
		time.Sleep(time.Hour)
		p.Token(t.Context())
		require.EqualValues(t, 17, calls.Load(), "called again once those have returned")
	})
}

// A hook may keep its context, and may start what goes on after the hook.
func TestPipelineHooksContextGoesOnAfterTheHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{}
		s := r.step()
		var kept context.Context
		s.OnRotate = func(ctx context.Context, _ *rf.Token) { kept = ctx }
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{s}, FetchTimeout: time.Minute})
		mustToken(t, p)
		time.Sleep(time.Hour)
		require.NoError(t, kept.Err())
	})
}

// A context kept from a finished fetch works like any other.
func TestPipelineContextKeptFromAFetchWorksLikeAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		var kept []context.Context
		var p *rf.Pipeline
		steps := l.chain()
		for i := range steps {
			inner := steps[i].Fetcher
			steps[i].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
				kept = append(kept, context.WithoutCancel(ctx))
				return inner.Fetch(ctx, in)
			})
		}
		p = pipeline(t, rf.PipelineConfig{Steps: steps, RefreshAhead: -1})
		mustToken(t, p)
		require.Len(t, kept, 3)
		for _, ctx := range append([]context.Context(nil), kept...) {
			require.NoError(t, p.Forget(t.Context())) // so that the context's epoch is over, too
			_, err := p.Token(ctx)
			require.NoError(t, err)
			require.NoError(t, p.InvalidateAll(ctx))
			_, err = p.Refresh(ctx)
			require.NoError(t, err)
		}
	})
}

// A fetcher that was left behind may use the pipeline: nobody waits for it.
func TestPipelineContextOfAFetcherLeftBehindWorksLikeAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *rf.Pipeline
		var calls atomic.Int32
		late := make(chan error, 1)
		p = pipeline(t, rf.PipelineConfig{FetchTimeout: time.Second, Steps: []rf.Step{{Name: "user", Fetcher: rf.FetcherFunc(func(ctx context.Context, _ rf.Input) (*rf.Token, error) {
			if calls.Add(1) == 1 {
				time.Sleep(time.Minute)
				_, err := p.Token(context.WithoutCancel(ctx))
				late <- err
			}
			return &rf.Token{AccessToken: "t"}, nil
		})}}})
		_, err := p.Token(t.Context())
		require.ErrorContains(t, err, "FetchTimeout")
		require.NoError(t, <-late)
	})
}

// A logger that panics costs nobody anything, wherever it is called.
func TestPipelineLoggerThatPanicsEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen sync.Map
		log := slog.New(handlerFunc(func(r slog.Record) {
			seen.Store(strings.TrimPrefix(r.Message, "requestforge: "), true)
			panic("disk full")
		}))
		l := newLogin()
		storage := &watching{faulty: faulty{MemoryStorage: rf.NewMemoryStorage()}, watch: func(_ []string, changed func(string, error)) func() {
			changed("", errDisk)
			return func() {}
		}}
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage, Logger: log})
		mustToken(t, p)
		require.NoError(t, storage.MemoryStorage.Revoke(t.Context(), "requestforge:user", 1))
		time.Sleep(time.Minute)
		mustToken(t, p)
		require.NoError(t, p.InvalidateAll(t.Context()))
		require.NoError(t, p.Forget(t.Context()))
		mustToken(t, p)
		for _, msg := range []string{"token fetched", "token invalidated by another process", "no pushes from the storage; looking now and then", "everything forgotten"} {
			_, ok := seen.Load(msg)
			require.True(t, ok, msg)
		}
		require.NoError(t, p.Close())
	})
}

// A logger that hangs costs a second, and then nothing until it returns.
func TestPipelineLoggerThatHangsCostsASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var records atomic.Int32
		hang := make(chan struct{})
		log := slog.New(handlerFunc(func(r slog.Record) { records.Add(1); <-hang }))
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: rf.NewMemoryStorage(), Logger: log})
		begun := time.Now()
		mustToken(t, p)
		require.NoError(t, p.InvalidateAll(t.Context()))
		require.NoError(t, p.Forget(t.Context()))
		mustToken(t, p)
		require.Equal(t, time.Second, time.Since(begun))
		require.EqualValues(t, 1, records.Load())
		close(hang)
		synctest.Wait()
		require.NoError(t, p.InvalidateAll(t.Context()))
		require.Greater(t, records.Load(), int32(1), "it is told again")
	})
}

// troubled is a storage whose calls and leases go wrong.
type troubled struct {
	*rf.MemoryStorage
	before func(op string) error // a hang, or an error
	done   func() <-chan struct{}
}

func (s *troubled) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	if err := s.before("Load"); err != nil {
		return nil, err
	}
	return s.MemoryStorage.Load(context.WithoutCancel(ctx), keys...)
}

func (s *troubled) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	if err := s.before("Save"); err != nil {
		return rf.Entry{}, err
	}
	return s.MemoryStorage.Save(context.WithoutCancel(ctx), key, r, seen)
}

func (s *troubled) Revoke(ctx context.Context, key string, stamp uint64) error {
	if err := s.before("Revoke"); err != nil {
		return err
	}
	return s.MemoryStorage.Revoke(context.WithoutCancel(ctx), key, stamp)
}

func (s *troubled) TryLock(ctx context.Context, key string) (rf.Lease, bool, error) {
	if err := s.before("TryLock"); err != nil {
		return nil, false, err
	}
	lease, ok, err := s.MemoryStorage.TryLock(context.WithoutCancel(ctx), key)
	if lease == nil {
		return nil, ok, err
	}
	return &troubledLease{lease, s}, ok, err
}

type troubledLease struct {
	rf.Lease
	s *troubled
}

func (l *troubledLease) Done() <-chan struct{} {
	if l.s.done != nil {
		return l.s.done()
	}
	return l.Lease.Done()
}

func (l *troubledLease) Unlock(ctx context.Context) error {
	if err := l.s.before("Unlock"); err != nil {
		return err
	}
	return l.Lease.Unlock(context.WithoutCancel(ctx))
}

// A lease is given back while other calls of the storage hang, and at the latest
// when the storage answers again.
func TestPipelineLeaseIsGivenBackAfterTheStorageHung(t *testing.T) {
	for _, c := range []struct {
		name string
		hang func(op string) bool
		late func() error // what a call that hung comes to; nil: it works
	}{
		{name: "others hang", hang: func(op string) bool { return op != "Unlock" && op != "TryLock" }},
		{name: "all hang", hang: func(string) bool { return true }},
		{name: "all hang and fail", hang: func(string) bool { return true }, late: func() error { return errDisk }},
		{name: "Unlock panics", hang: func(op string) bool { return op == "Unlock" }, late: func() error { panic("s3cret") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var on atomic.Bool
				hang := make(chan struct{})
				storage := &troubled{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
					if on.Load() && c.hang(op) {
						<-hang
						if c.late != nil {
							return c.late()
						}
					}
					return nil
				}}
				slow := make(chan struct{})
				p := pipeline(t, rf.PipelineConfig{FetchTimeout: -1, Storage: storage, Steps: []rf.Step{{Name: "user", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
					<-slow
					return &rf.Token{AccessToken: "t"}, nil
				})}}})
				go p.Token(context.Background())
				synctest.Wait() // the flight has the lock
				on.Store(true)
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() { p.InvalidateStep(context.Background(), "user") })
				}
				wg.Wait()
				close(slow)
				time.Sleep(time.Minute)
				on.Store(false)
				close(hang)
				synctest.Wait()
				require.NoError(t, p.InvalidateStep(t.Context(), "user")) // the storage answers
				synctest.Wait()
				lease, ok, err := storage.MemoryStorage.TryLock(t.Context(), "requestforge:user")
				require.NoError(t, err)
				require.True(t, ok, "nobody holds the lock any more")
				require.NoError(t, lease.Unlock(t.Context()))
			})
		})
	}
}

// The calls that the pipeline leaves behind have a bound, after which it makes no more
// of them: an Unlock is made all the same, since a lock that stays holds up everybody.
func TestPipelineLeaseIsGivenBackBesideTheMostCallsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var on atomic.Bool
		var hung atomic.Int32
		hang, slow := make(chan struct{}), make(chan struct{})
		storage := &troubled{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
			if on.Load() && op != "Unlock" {
				hung.Add(1)
				<-hang
			}
			return nil
		}}
		answer := func(context.Context, rf.Input) (*rf.Token, error) { return &rf.Token{AccessToken: "t"}, nil }
		user := rf.Step{Name: "user", Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			<-slow
			return answer(ctx, in)
		})}
		const most = 16
		var steps []rf.Step // each is looked for by a call of its own
		for i := range most {
			steps = append(steps, rf.Step{Name: fmt.Sprint("other-", i), Fetcher: rf.FetcherFunc(answer)})
			user.DependsOn = append(user.DependsOn, steps[i].Name)
		}
		p := pipeline(t, rf.PipelineConfig{FetchTimeout: -1, Storage: storage, Steps: append(steps, user)})
		ctx, leave := context.WithCancel(t.Context())
		go p.Token(ctx)
		synctest.Wait() // the flight has the lock
		on.Store(true)
		var wg sync.WaitGroup
		for _, s := range steps {
			wg.Go(func() { p.InvalidateStep(t.Context(), s.Name) })
		}
		wg.Wait()
		require.GreaterOrEqual(t, hung.Load(), int32(most))
		before := hung.Load()
		p.InvalidateAll(t.Context())
		require.Equal(t, before, hung.Load(), "no call is made any more")
		leave()
		close(slow)
		time.Sleep(time.Minute)
		_, ok, _ := storage.MemoryStorage.TryLock(t.Context(), "requestforge:user")
		require.True(t, ok, "nobody holds the lock any more")
		close(hang)
	})
}

// An Unlock that fails is tried again by itself, also if nobody needs the storage.
func TestPipelineUnlockThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		storage := &troubled{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
			if op == "Unlock" && tries.Add(1) < 5 {
				return errDisk
			}
			return nil
		}}
		p := pipeline(t, rf.PipelineConfig{Storage: storage, Steps: []rf.Step{{Name: "user", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			return nil, &rf.AuthError{StatusCode: 400}
		})}}})
		_, err := p.Token(t.Context())
		require.Error(t, err)
		time.Sleep(time.Minute)
		require.EqualValues(t, 5, tries.Load())
		_, ok, _ := storage.MemoryStorage.TryLock(t.Context(), "requestforge:user")
		require.True(t, ok)
	})
}

// A lease that comes too late for its flight is given back.
func TestPipelineLateLeaseIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &troubled{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
			if op == "TryLock" {
				time.Sleep(time.Minute)
			}
			return nil
		}}
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage})
		mustToken(t, p)
		time.Sleep(2 * time.Minute)
		_, ok, _ := storage.MemoryStorage.TryLock(t.Context(), "requestforge:user")
		require.True(t, ok)
	})
}

// A lease whose Done crashes or hangs is none: the lock is given back, and requests
// are served. nil is a lock that can't be lost.
func TestPipelineLeaseWhoseDoneCrashesIsGoneAround(t *testing.T) {
	hang := make(chan struct{})
	for name, c := range map[string]struct {
		done   func() <-chan struct{}
		leased bool
	}{
		"panic":  {func() <-chan struct{} { panic("s3cret") }, false},
		"hang":   {func() <-chan struct{} { <-hang; return nil }, false},
		"nil":    {func() <-chan struct{} { return nil }, true},
		"closed": {func() <-chan struct{} { c := make(chan struct{}); close(c); return c }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hang = make(chan struct{})
				defer close(hang)
				r := &rotating{}
				storage := &troubled{MemoryStorage: rf.NewMemoryStorage(), before: func(string) error { return nil }, done: c.done}
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: storage, RefreshAhead: -1})
				mustToken(t, p)
				time.Sleep(2 * time.Hour)
				mustToken(t, p)
				require.Equal(t, c.leased, r.refreshs == 1, "a refresh token is spent under a lease only")
				_, ok, _ := storage.MemoryStorage.TryLock(t.Context(), "requestforge:user")
				require.True(t, ok)
			})
		})
	}
}

// An outage is two records, one when it begins and one when it is over, however
// many calls are under way and however late they end.
func TestPipelineOutageIsLoggedOnceEachWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var fails, backs atomic.Int32
		log := slog.New(handlerFunc(func(r slog.Record) {
			switch {
			case strings.Contains(r.Message, "the storage fails"):
				fails.Add(1)
			case strings.Contains(r.Message, "the storage is back"):
				backs.Add(1)
			}
		}))
		begun := time.Now()
		var n atomic.Int32
		storage := &troubled{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
			sick := time.Since(begun) < 4*time.Second
			time.Sleep(time.Duration(n.Add(1)%7) * 10 * time.Millisecond) // they overtake each other
			if sick {
				return errDisk
			}
			return nil
		}}
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage, Logger: log})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for time.Since(begun) < 8*time.Second {
					p.InvalidateStep(context.Background(), "user")
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, fails.Load())
		require.EqualValues(t, 1, backs.Load())
	})
}

// Calls that take their time are no calls that hang.
func TestPipelineManyCallsAtOnceAreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &troubled{MemoryStorage: rf.NewMemoryStorage(), before: func(string) error { time.Sleep(100 * time.Millisecond); return nil }}
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage})
		mustToken(t, p)
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if err := p.InvalidateStep(context.Background(), "user"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Zero(t, p.Stats().StorageErrors)
	})
}

// While 16 fetchers of a step that are deaf to their context still run, no other one
// begins, and callers hear why at once. They get a token as soon as one returns.
func TestPipelineDeafFetchersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, begun atomic.Int32
		hang := make(chan struct{})
		var hooks atomic.Int32
		l := newLogin()
		l.takes = 0
		user := l.step("user", "app")
		p := pipeline(t, rf.PipelineConfig{FetchTimeout: time.Second, Steps: []rf.Step{{Name: "app", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			begun.Add(1)
			running.Add(1)
			defer running.Add(-1)
			<-hang
			return &rf.Token{AccessToken: "app"}, nil
		}), OnError: func(context.Context, error) { hooks.Add(1) }}, user}})
		for range 20 {
			p.Token(t.Context())
			time.Sleep(time.Hour)
		}
		require.EqualValues(t, 16, running.Load())
		require.EqualValues(t, 16, hooks.Load())
		for range 100 {
			at := time.Now()
			_, err := p.Token(t.Context())
			var auth *rf.AuthError
			require.ErrorAs(t, err, &auth)
			require.Equal(t, "app", auth.Step)
			require.ErrorContains(t, err, "still run")
			require.True(t, auth.Unsent)
			require.Zero(t, time.Since(at))
		}
		close(hang)
		synctest.Wait()
		mustToken(t, p) // at once
		require.EqualValues(t, 17, begun.Load())
	})
}

// Close ends a fetch that nobody waits for, and what it waits for; not one that has
// callers, until the last of them leaves. Token works afterwards, without a cool-down.
func TestPipelineCloseEndsFetchesThatNobodyWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended, hooks atomic.Int32
		slow := atomic.Bool{}
		slow.Store(true)
		fetch := func(ctx context.Context, _ rf.Input) (*rf.Token, error) {
			if !slow.Load() {
				return &rf.Token{AccessToken: "t"}, nil
			}
			select {
			case <-ctx.Done():
				ended.Add(1)
				return nil, ctx.Err()
			case <-time.After(time.Minute):
				return &rf.Token{AccessToken: "slow"}, nil
			}
		}
		step := func(name string, parents ...string) rf.Step {
			return rf.Step{Name: name, DependsOn: parents, Fetcher: rf.FetcherFunc(fetch), OnError: func(context.Context, error) { hooks.Add(1) }}
		}
		p := pipeline(t, rf.PipelineConfig{FetchTimeout: time.Hour, Storage: rf.NewMemoryStorage(), Steps: []rf.Step{step("app"), step("user", "app")}})
		leave := func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := p.Token(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}

		leave(t.Context())
		require.Zero(t, ended.Load())
		waiting := make(chan error, 1)
		stay, goAway := context.WithCancel(t.Context())
		go func() { _, err := p.Token(stay); waiting <- err }()
		synctest.Wait()
		require.NoError(t, p.Close())
		synctest.Wait()
		require.Zero(t, ended.Load(), "it has a caller")
		goAway()
		require.ErrorIs(t, <-waiting, context.Canceled)
		synctest.Wait()
		require.EqualValues(t, 1, ended.Load(), "the last caller has left")

		slow.Store(false)
		require.Equal(t, "t", mustToken(t, p).AccessToken, "no cool-down")
		require.NoError(t, p.Close())
		require.Zero(t, hooks.Load(), "the end of a fetch is no failure")

		slow.Store(true)
		require.NoError(t, p.InvalidateAll(t.Context()))
		leave(t.Context())
		synctest.Wait()
		require.EqualValues(t, 2, ended.Load())
		go func() { slow.Store(false) }()
		synctest.Wait()
		mustToken(t, p)
	})
}

// A caller who comes while a fetch that Close has ended still runs gets one of its own.
func TestPipelineTokenAfterCloseWaitsForTheFetchThatItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		l := newLogin()
		l.takes = 0
		storage := &troubled{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error { time.Sleep(50 * time.Millisecond); return nil }}
		p := pipeline(t, rf.PipelineConfig{Storage: storage, Steps: []rf.Step{{Name: "user", Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			if calls.Add(1) == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return &rf.Token{AccessToken: "t"}, nil
		})}}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Token(ctx)
		require.Error(t, err)
		require.NoError(t, p.Close())
		mustToken(t, p)
		require.EqualValues(t, 2, calls.Load())
	})
}

// Close ends no refresh: the server may have taken the refresh token already.
func TestPipelineCloseLetsARefreshFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{}
		step := r.step()
		refresh := step.Refresh
		step.Refresh = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			tok, err := refresh.Fetch(ctx, in)
			select {
			case <-time.After(5 * time.Second): // the answer is on its way
				return tok, err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		p := pipeline(t, rf.PipelineConfig{Storage: rf.NewMemoryStorage(), Steps: []rf.Step{step}, RefreshAhead: -1})
		mustToken(t, p)
		time.Sleep(2 * time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Token(ctx)
		require.Error(t, err)
		require.NoError(t, p.Close())
		time.Sleep(time.Minute)
		mustToken(t, p)
		require.Equal(t, 1, r.logins)
		require.Equal(t, 1, r.refreshs)
	})
}

// Close ends no save: the refresh token before may be spent, and the new one is all
// that is left.
func TestPipelineCloseLetsASaveFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		saving := make(chan struct{}, 1)
		storage := &troubled{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
			if op == "Save" {
				saving <- struct{}{}
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}}
		r := &rotating{}
		p := pipeline(t, rf.PipelineConfig{Storage: storage, Steps: []rf.Step{r.step()}})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-saving; cancel(); p.Close() }()
		_, err := p.Token(ctx)
		require.ErrorIs(t, err, context.Canceled)
		time.Sleep(time.Second)
		entries, err := storage.MemoryStorage.Load(t.Context(), "requestforge:user")
		require.NoError(t, err)
		require.NotNil(t, entries[0].Record)
		mustToken(t, p)
		require.Equal(t, 1, r.logins)
	})
}

// panicking is an error that can't be asked what it is.
type panicking struct{}

func (panicking) Error() string { panic("a bug") }

// voiceless is a storage whose errors are panicking, in calls and pushes.
type voiceless struct {
	*rf.MemoryStorage
	pushed func(string, error)
}

func (s *voiceless) Load(context.Context, ...string) ([]rf.Entry, error) { return nil, panicking{} }
func (s *voiceless) Save(context.Context, string, rf.Record, uint64) (rf.Entry, error) {
	return rf.Entry{}, panicking{}
}
func (s *voiceless) Delete(context.Context, string, uint64) (rf.Entry, error) {
	return rf.Entry{}, panicking{}
}
func (s *voiceless) TryLock(context.Context, string) (rf.Lease, bool, error) {
	return silentLease{}, true, nil
}
func (s *voiceless) Watch(_ []string, changed func(string, error)) func() {
	s.pushed = changed
	return func() {}
}

type silentLease struct{}

func (silentLease) Done() <-chan struct{}        { return nil }
func (silentLease) Unlock(context.Context) error { return panicking{} }

// In the background nobody would catch the panic.
func TestPipelineErrorThatPanicsEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &voiceless{MemoryStorage: rf.NewMemoryStorage()}
		p := pipeline(t, rf.PipelineConfig{Storage: storage, KeyPrefix: "app", Steps: []rf.Step{{
			Name: "user", Identity: "ann", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				return &rf.Token{AccessToken: "t"}, nil
			}),
		}}})
		_, err := p.Token(t.Context())
		require.NoError(t, err)
		for range 10 {
			storage.pushed("", panicking{})
			storage.pushed("", nil)
			time.Sleep(time.Minute)
		}
		require.ErrorContains(t, p.Forget(t.Context()), "which panics")
		time.Sleep(time.Hour)
		_, err = p.Token(t.Context())
		require.NoError(t, err)
	})
}
