// What goes wrong between a pipeline's own parts: a load, a fetch or a hook
// that is under way while something else happens.

package requestforge_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// After a logout no refresh token from before it is spent: not one that was
// just being loaded, nor one that the storage failed to delete.
func TestPipelineForgottenRefreshTokenIsNeverSpent(t *testing.T) {
	t.Run("a load under way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &rotating{}
			var slow atomic.Bool // read by the looks now and then, too
			storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), load: func(e []rf.Entry) ([]rf.Entry, error) {
				if slow.Load() {
					time.Sleep(100 * time.Millisecond)
				}
				return e, nil
			}}
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: storage, RefreshAhead: -1})
			mustToken(t, p)
			time.Sleep(2 * time.Hour)
			slow.Store(true)
			time.AfterFunc(50*time.Millisecond, func() { p.Forget(context.Background()) })
			_, err := p.Token(t.Context())
			require.ErrorContains(t, err, "forgotten")
			mustToken(t, p)
			require.Zero(t, r.refreshs)
			require.Equal(t, 2, r.logins)
		})
	})
	t.Run("Delete fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &rotating{}
			storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
				if op == "Delete" {
					return errDisk
				}
				return nil
			}}
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: storage})
			mustToken(t, p)
			require.ErrorIs(t, p.Forget(t.Context()), errDisk)
			mustToken(t, p)
			require.Zero(t, r.refreshs)
			require.Equal(t, 2, r.logins)
		})
	})
}

// Whoever asks after a logout gets a new login, even if a fetch from before it
// is still under way; and of that one nothing stays, nor does it begin more.
func TestPipelineForgetEndsWhatIsUnderWayAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		var slow atomic.Bool
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), load: func(e []rf.Entry) ([]rf.Entry, error) {
			if slow.Load() {
				time.Sleep(100 * time.Millisecond)
			}
			return e, nil
		}}
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage})
		before := make(chan error)
		go func() { _, err := p.Token(t.Context()); before <- err }()
		time.Sleep(1500 * time.Millisecond) // app is being fetched
		require.NoError(t, p.Forget(t.Context()))
		after := make(chan string)
		go func() { after <- mustToken(t, p).AccessToken }()
		require.ErrorContains(t, <-before, "forgotten")
		require.Equal(t, "user-1", <-after)
		require.Equal(t, 2, l.fetches("device"), "the one before the logout counts for nothing")
		require.Equal(t, 2, l.fetches("app"))

		// A logout between a step's load and its parents' fetches: none of
		// them begins.
		require.NoError(t, p.Forget(t.Context()))
		slow.Store(true)
		time.AfterFunc(150*time.Millisecond, func() { p.Forget(context.Background()) })
		_, err := p.Token(t.Context())
		require.ErrorContains(t, err, "forgotten")
		synctest.Wait()
		require.Equal(t, 2, l.fetches("device"))
		entries, err := storage.Load(t.Context(), "requestforge:device", "requestforge:app", "requestforge:user")
		require.NoError(t, err)
		for _, e := range entries {
			require.Nil(t, e.Record)
		}
	})
}

// What a forgotten fetch saved is gone before the next one saves.
func TestPipelineForgottenFetchDeletesNothingNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		var p *rf.Pipeline
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage()}
		saves, deletes := 0, 0
		storage.before = func(op string) error {
			switch op {
			case "Save":
				if saves++; saves == 1 {
					time.Sleep(100 * time.Millisecond) // the logout comes first
				}
			case "Delete":
				if deletes++; deletes == 2 {
					time.Sleep(200 * time.Millisecond)
				}
			}
			return nil
		}
		l.takes = 10 * time.Millisecond
		p = pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage})
		time.AfterFunc(50*time.Millisecond, func() { p.Forget(context.Background()) })
		_, err := p.Token(t.Context())
		require.ErrorContains(t, err, "forgotten")
		mustToken(t, p)
		time.Sleep(time.Second)
		entries, err := storage.Load(t.Context(), "requestforge:user")
		require.NoError(t, err)
		require.NotNil(t, entries[0].Record)
		require.Equal(t, "user-2", entries[0].Record.Token.AccessToken)
	})
}

// Not even a storage that deletes nothing revives what came after a logout.
func TestPipelineForgottenFetchStaysDeadInABrokenStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{}
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
			switch op {
			case "Save":
				time.Sleep(100 * time.Millisecond)
			case "Delete":
				return errDisk
			}
			return nil
		}}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: storage})
		time.AfterFunc(50*time.Millisecond, func() { p.Forget(context.Background()) })
		_, err := p.Token(t.Context())
		require.ErrorContains(t, err, "forgotten")
		require.Equal(t, "access-2", mustToken(t, p).AccessToken)
		require.Equal(t, 2, r.logins)
	})
}

// Whatever a hook does is none of the callers' business.
func TestPipelineHookThatCrashesCostsNobodyTheToken(t *testing.T) {
	for name, crash := range map[string]func(){
		"panic":  func() { panic("s3cret") },
		"goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			r := &rotating{}
			s := r.step()
			s.OnRotate = func(context.Context, *rf.Token) { crash() }
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{s}})
			require.Equal(t, "access-1", mustToken(t, p).AccessToken)

			bad := &rf.AuthError{StatusCode: 400, Code: "invalid_scope", Permanent: true}
			p = pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{
				Name:    "user",
				Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) { return nil, bad }),
				OnError: func(context.Context, error) { crash() },
			}}})
			_, err := p.Token(t.Context())
			require.ErrorContains(t, err, "invalid_scope")
		})
	}
}

// A lock is let go even if what runs under it crashes, as a logger can.
func TestPipelineCrashUnderALockLetsItGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage()}
		storage.lock = func() (rf.Lease, bool, error) {
			// What a peer brought just before it let the lock go.
			const key = "requestforge:user"
			_, err := storage.MemoryStorage.Save(t.Context(), key, rf.Record{Key: key, Token: &rf.Token{AccessToken: "peer's"}}, 0)
			require.NoError(t, err)
			storage.lock = nil
			return storage.TryLock(t.Context(), key)
		}
		var crashed atomic.Bool
		log := slog.New(handlerFunc(func(r slog.Record) {
			if r.Message == "requestforge: token loaded" && crashed.CompareAndSwap(false, true) {
				panic("disk full")
			}
		}))
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage, Logger: log})
		require.Equal(t, "peer's", mustToken(t, p).AccessToken)
		require.True(t, crashed.Load())
		require.NoError(t, p.InvalidateStep(t.Context(), "user"))
		begun := time.Now()
		require.Equal(t, "user-1", mustToken(t, p).AccessToken)
		require.Equal(t, l.takes, time.Since(begun), "no wait for a lock that nobody holds")
	})
}

// handlerFunc is a slog.Handler that sees every record.
type handlerFunc func(slog.Record)

func (h handlerFunc) Enabled(context.Context, slog.Level) bool      { return true }
func (h handlerFunc) Handle(_ context.Context, r slog.Record) error { h(r); return nil }
func (h handlerFunc) WithAttrs([]slog.Attr) slog.Handler            { return h }
func (h handlerFunc) WithGroup(string) slog.Handler                 { return h }

// A peer can save a token that was dead before it arrived. The older one that
// requests go on with can still be refused.
func TestPipelineDeadNewerTokenDoesNotShieldAnOlderOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		storage := rf.NewMemoryStorage()
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("app"), l.step("user", "app")}, Storage: storage})
		mustToken(t, p)
		require.NoError(t, p.InvalidateStep(t.Context(), "app"))
		live := mustToken(t, p)
		accept(t, p)
		const key = "requestforge:user"
		late, err := storage.Save(t.Context(), key, rf.Record{Key: key, Token: &rf.Token{AccessToken: "late"}, Lineage: map[string]uint64{"requestforge:app": 1}}, 2)
		require.NoError(t, err)
		require.Equal(t, "late", late.Record.Token.AccessToken)
		time.Sleep(time.Minute) // p has looked
		require.Same(t, live, mustToken(t, p))
		require.NoError(t, p.Invalidate(t.Context(), live))
		require.Equal(t, "user-3", mustToken(t, p).AccessToken)
	})
}

// A storage that lost a time, or writes zero for it, revives nothing.
func TestPipelineStoredExpiryLongAgoIsExpired(t *testing.T) {
	for _, at := range []time.Time{
		time.Unix(0, 0), time.Unix(-1, 0), time.Unix(1, 0),
		time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC), time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1500, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-5000, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		for _, issued := range []time.Time{{}, at, time.Unix(0, 0), time.Now(), time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)} {
			l := newLogin()
			l.takes = 0
			storage := rf.NewMemoryStorage()
			const key = "requestforge:user"
			_, err := storage.Save(t.Context(), key, rf.Record{Key: key, Issued: issued, Token: &rf.Token{AccessToken: "stored", Expiry: at}}, 0)
			require.NoError(t, err)
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage})
			require.Equal(t, "user-1", mustToken(t, p).AccessToken, "%v %v", at, issued)
		}
	}
}

// A storage that answers Save with a record of no use costs nobody the token
// that was fetched, nor its refresh token.
func TestPipelineUselessAnswerOfSaveIsGoneAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{}
		storage := &saving{MemoryStorage: rf.NewMemoryStorage(), change: func(e *rf.Entry) {
			e.Record.Lineage = map[string]uint64{"requestforge:other": 1}
			e.Record.Token.AccessToken = "x"
		}}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: storage, RefreshAhead: -1})
		require.Equal(t, "access-1", mustToken(t, p).AccessToken)
		require.NotZero(t, p.Stats().BadRecords)
		time.Sleep(2 * time.Hour)
		require.Equal(t, "access-2", mustToken(t, p).AccessToken)
		require.Equal(t, 1, r.logins)
		require.Zero(t, r.reused)
	})
}

// saving is a storage that changes what Save returns.
type saving struct {
	*rf.MemoryStorage
	change func(*rf.Entry)
}

func (s *saving) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	e, err := s.MemoryStorage.Save(ctx, key, r, seen)
	if err == nil {
		s.change(&e)
	}
	return e, err
}

// A wrapper may tell its pipeline of a refusal in its own time, while the
// request that took the drop gives it back.
func TestPipelineInvalidateInTheBackgroundRacesWithNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		var wg sync.WaitGroup
		rt := &rf.AuthTransport{Source: &deferring{p: p, wg: &wg}, Origins: []string{host}, Retry: rf.SimpleAuthRetry(2, 0), Base: api(func(tok string) bool { return strings.HasPrefix(tok, "other") })}
		for range 10 {
			get(t, rt, host)
		}
		wg.Wait()
	})
}

// deferring has p's token and, after each refusal, one of its own.
type deferring struct {
	p     *rf.Pipeline
	wg    *sync.WaitGroup
	other bool
}

func (d *deferring) Token(ctx context.Context) (*rf.Token, error) {
	if d.other = !d.other; d.other {
		return d.p.Token(ctx)
	}
	return &rf.Token{AccessToken: "other"}, nil
}

func (d *deferring) Invalidate(ctx context.Context, tok *rf.Token) error {
	d.wg.Go(func() { d.p.Invalidate(ctx, tok) })
	return nil
}

// A caller that gives up is no outage of the storage.
func TestPipelineCallersContextIsNoOutageOfTheStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		var slow atomic.Bool
		var calls atomic.Int32
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(string) error {
			calls.Add(1)
			if slow.Load() {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}}
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage, RefreshAhead: -1})
		mustToken(t, p)
		ctx, cancel := context.WithCancel(t.Context())
		slow.Store(true)
		time.AfterFunc(50*time.Millisecond, cancel)
		require.ErrorIs(t, p.InvalidateStep(ctx, "user"), context.Canceled)
		synctest.Wait()
		before := calls.Load()
		require.ErrorIs(t, p.InvalidateAll(ctx), context.Canceled)
		synctest.Wait()
		require.Equal(t, before, calls.Load(), "a context that is over starts nothing")
		require.Zero(t, p.Stats().StorageErrors)
		require.Equal(t, "user-2", mustToken(t, p).AccessToken, "this process knows all the same")
	})
}

// InvalidateStep says so each time that the storage may not know, not only
// the first time.
func TestPipelineInvalidateStepSaysSoUntilTheStorageKnows(t *testing.T) {
	l := newLogin()
	l.takes = 0
	down := true
	storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
		if down && op == "Revoke" {
			return errDisk
		}
		return nil
	}}
	p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage})
	mustToken(t, p)
	for range 3 {
		require.ErrorIs(t, p.InvalidateStep(t.Context(), "app"), errDisk)
	}
	down = false
	require.NoError(t, p.InvalidateStep(t.Context(), "app"))
	entries, err := storage.Load(t.Context(), "requestforge:app")
	require.NoError(t, err)
	require.EqualValues(t, 1, entries[0].Mark)
	require.EqualValues(t, 1, p.Stats().Invalidations)
}

// As long as bounds that mean "never" in other packages.
func TestPipelineLongestDurationsAreNoShortOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 5 * time.Minute
		storage := &watching{faulty: faulty{MemoryStorage: rf.NewMemoryStorage()}}
		const longest = time.Duration(math.MaxInt64)
		cfg := rf.PipelineConfig{Storage: storage, FetchTimeout: longest, StorageTimeout: longest, CoolDown: longest, MaxCoolDown: longest, RefreshAhead: longest}
		cfg.Steps = []rf.Step{l.step("user")}
		cfg.Steps[0].TTL = longest
		var wg sync.WaitGroup
		for range 3 {
			p := pipeline(t, cfg)
			wg.Go(func() {
				if tok, err := p.Token(t.Context()); err != nil || tok.AccessToken != "user-1" {
					t.Errorf("%v %v", tok, err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, l.fetches("user"), "a peer is waited for")

		l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 400} })
		p := pipeline(t, rf.PipelineConfig{Steps: cfg.Steps, CoolDown: longest, MaxCoolDown: longest})
		_, err := p.Token(t.Context())
		var auth *rf.AuthError
		require.ErrorAs(t, err, &auth)
		require.Equal(t, longest, auth.RetryAfter)
	})
}

// watching is a storage that pushes: nothing, unless watch says otherwise.
type watching struct {
	faulty
	watch func(keys []string, changed func(string, error)) (stop func())
}

func (w *watching) Watch(keys []string, changed func(string, error)) (stop func()) {
	if w.watch != nil {
		return w.watch(keys, changed)
	}
	return func() {}
}

// A Watch that crashes, hangs or returns nothing to stop it costs the pushes, and
// nothing else.
func TestPipelineWatchThatCrashesCostsThePushes(t *testing.T) {
	for name, watch := range map[string]func([]string, func(string, error)) func(){
		"panic":  func([]string, func(string, error)) func() { panic("s3cret") },
		"exit":   func([]string, func(string, error)) func() { runtime.Goexit(); return nil },
		"hang":   func([]string, func(string, error)) func() { time.Sleep(time.Hour); return func() {} },
		"no end": func([]string, func(string, error)) func() { return nil },
		"panic at the end": func([]string, func(string, error)) func() {
			return func() { panic("s3cret") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storage := &watching{faulty: faulty{MemoryStorage: rf.NewMemoryStorage()}, watch: watch}
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{newLogin().step("user")}, Storage: storage})
				old := mustToken(t, p)
				require.NoError(t, storage.MemoryStorage.Revoke(t.Context(), "requestforge:user", 1))
				time.Sleep(30 * time.Second)
				synctest.Wait()
				require.NotEqual(t, old.AccessToken, mustToken(t, p).AccessToken, "it looks now and then")
				wants := uint64(1)
				if strings.Contains(name, "end") {
					wants = 0
				}
				require.Equal(t, wants, p.Stats().StorageErrors)
				require.NoError(t, p.Close())
				if name == "hang" {
					time.Sleep(time.Hour)
				}
			})
		})
	}
}

// A push that tells of a peer's logout and comes late kills nothing newer.
func TestPipelineLatePushOfALogoutKillsNothingNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 10 * time.Millisecond
		pushes := make(chan func(string, error), 1)
		var slow atomic.Bool
		storage := &watching{faulty: faulty{MemoryStorage: rf.NewMemoryStorage(), load: func(e []rf.Entry) ([]rf.Entry, error) {
			if slow.CompareAndSwap(true, false) {
				time.Sleep(100 * time.Millisecond)
			}
			return e, nil
		}}, watch: func(_ []string, changed func(string, error)) func() {
			pushes <- changed
			return func() {}
		}}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage})
		old := mustToken(t, p)
		push := <-pushes
		logout := func() {
			entries, err := storage.MemoryStorage.Load(t.Context(), "requestforge:user")
			require.NoError(t, err)
			_, err = storage.Delete(t.Context(), "requestforge:user", entries[0].Version())
			require.NoError(t, err)
		}
		logout()
		slow.Store(true)
		push("requestforge:user", nil)
		time.Sleep(50 * time.Millisecond) // the look has seen the tombstone
		require.NoError(t, p.Invalidate(t.Context(), old))
		require.Equal(t, "user-2", mustToken(t, p).AccessToken)
		time.Sleep(time.Second)
		require.Equal(t, "user-2", mustToken(t, p).AccessToken)
		require.Equal(t, 2, l.fetches("user"))

		logout()
		push("requestforge:user", nil)
		time.Sleep(time.Second)
		require.Equal(t, "user-3", mustToken(t, p).AccessToken, "a peer's logout is one here, too")
	})
}

// A child may outlive its parent's expiry by far, and its parent's mark has
// to outlive the child: else a process that comes later takes it for live.
func TestPipelineMarkOfAParentOutlivesItsChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.life["app"] = time.Minute
		storage := &dropping{newLossy()}
		steps := []rf.Step{l.step("app"), l.step("user", "app")}
		p := pipeline(t, rf.PipelineConfig{Steps: steps, Storage: storage})
		mustToken(t, p)
		require.NoError(t, p.InvalidateStep(t.Context(), "app"))
		time.Sleep(1000 * time.Hour)
		require.Equal(t, "user-2", mustToken(t, pipeline(t, rf.PipelineConfig{Steps: steps, Storage: storage})).AccessToken)
	})
}

// dropping is a storage that drops what it may.
type dropping struct{ *lossy }

func (d *dropping) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	entries, err := d.lossy.Load(ctx, keys...)
	for i, e := range entries {
		if r := e.Record; r != nil && r.Keep > 0 && !r.Token.Expiry.IsZero() && time.Since(r.Token.Expiry) > r.Keep {
			d.lose(keys[i])
			entries[i] = rf.Entry{}
		}
	}
	return entries, err
}

// The sends of a fetch are none of the request that happens to wait for it.
func TestPipelineFetchDoesNotCountAsSendsOfTheRequest(t *testing.T) {
	sends := 0
	auth := roundTrip(func(req *http.Request) (*http.Response, error) {
		if sends++; sends == 1 {
			return reply(req, 503, "Retry-After", "0"), nil
		}
		resp := reply(req, 200, "X-Token", "t")
		return resp, nil
	})
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "user", Fetcher: &rf.HTTPFetcher{
		URL: "https://auth.example.com", TokenHeader: "X-Token",
		Client: &http.Client{Transport: &rf.RetryTransport{Base: auth, Policy: rf.RetryPolicy{RetryMax: 3, RetryWaitMin: 1, RetryWaitMax: 1}}},
	}}}})
	var attempts int64
	log := slog.New(handlerFunc(func(r slog.Record) {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "attempts" {
				attempts = a.Value.Int64()
			}
			return true
		})
	}))
	rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: api(func(string) bool { return true })}
	get(t, &rf.LoggingTransport{Logger: log, Base: roundTrip(rt.RoundTrip)}, host)
	require.Equal(t, 2, sends)
	require.EqualValues(t, 1, attempts)
}

// The renewal ahead of expiry asks whether there is a failure; that is no
// caller who got it.
func TestPipelineFailedFastCountsCallersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.life["user"] = time.Hour
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}})
		mustToken(t, p)
		l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 400} })
		time.Sleep(59 * time.Minute)
		for range 10 {
			mustToken(t, p)
			time.Sleep(time.Second)
		}
		require.NotZero(t, p.Stats().Steps["user"].Failures)
		require.Zero(t, p.Stats().Steps["user"].FailedFast)
	})
}

// A transport that breaks its contract gets http.Client's words for it.
func TestAuthNoResponseAndNoErrorIsNoPanic(t *testing.T) {
	for _, after := range []int{0, 1} {
		n := 0
		src := sourceFunc(func(context.Context) (*rf.Token, error) { n++; return &rf.Token{AccessToken: fmt.Sprint(n)}, nil })
		sends := 0
		client := &http.Client{Transport: &rf.AuthTransport{Source: src, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			if sends++; sends <= after {
				return reply(req, 401), nil
			}
			return nil, nil
		})}}
		_, err := client.Get(host)
		require.ErrorContains(t, err, "nil *Response with a nil error")
	}
}

// A caller can tie a request to its own response.
func TestAuthRedirectsInACircleEnd(t *testing.T) {
	req, err := http.NewRequest("GET", host, nil)
	require.NoError(t, err)
	req.Response = &http.Response{Request: req}
	d := (&rf.AuthTransport{Source: static("t"), Origins: []string{host}}).Explain(req)
	require.Equal(t, rf.ReasonRedirect, d.Reason)
}

// A storage that has lost everything can give a stamp twice. What it holds is
// everyone's all the same.
func TestPipelineStampGivenTwiceIsNotTheSameToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		storage := newLossy()
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage})
		mustToken(t, p)
		storage.lose("requestforge:user")
		peer := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage})
		require.Equal(t, "user-2", mustToken(t, peer).AccessToken)
		time.Sleep(time.Minute) // p has looked
		require.Equal(t, "user-2", mustToken(t, p).AccessToken)
		require.Equal(t, 2, l.fetches("user"))
	})
}
