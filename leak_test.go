// Nothing stays behind: no goroutine, no open body. And what processes tell
// each other through a storage arrives, with a push or without.

package requestforge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
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

// bodies counts how often each of many bodies is closed.
type bodies struct {
	mu  sync.Mutex
	all []*body
}

type body struct {
	io.Reader
	what   string
	closes atomic.Int32
}

func (b *body) Close() error { b.closes.Add(1); return nil }

func (b *bodies) open(r io.Reader, what string) *body {
	n := &body{Reader: r, what: what}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, n)
	return n
}

// wrong describes the bodies that weren't closed exactly once.
func (b *bodies) wrong() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var wrong []string
	for _, n := range b.all {
		if c := n.closes.Load(); c != 1 {
			wrong = append(wrong, fmt.Sprintf("%s: closed %d times", n.what, c))
		}
	}
	return wrong
}

// onlyReader hides how a body could be had again.
type onlyReader struct{ io.Reader }

// The short form, with the race detector; numbers_test.go has the long one.
func TestNothingStaysBehindInAShortRun(t *testing.T) { nothingStaysBehind(t, 1600) }

// nothingStaysBehind sends requests in a bubble of time, which doesn't end while a
// goroutine is left in it.
func nothingStaysBehind(t *testing.T, requests int) {
	synctest.Test(t, func(t *testing.T) { testNothingStaysBehind(t, requests) })
}

func testNothingStaysBehind(t *testing.T, requests int) {
	var opened bodies
	var now atomic.Int64 // the number of the request, for names
	chance := func(percent int) bool { return rand.N(100) < percent }

	server := roundTrip(func(req *http.Request) (*http.Response, error) {
		done := func() {
			if req.Body != nil {
				if chance(80) {
					io.Copy(io.Discard, req.Body)
				}
				req.Body.Close()
			}
		}
		if req.Body != nil && chance(10) {
			go func() { runtime.Gosched(); done() }() // an early answer: the body is still being read
		} else {
			done()
		}
		if chance(5) {
			<-req.Context().Done()
			return nil, context.Cause(req.Context())
		}
		if chance(10) {
			return nil, io.ErrUnexpectedEOF
		}
		status := []int{200, 200, 200, 204, 404, 401, 401, 403, 429, 500, 503}[rand.N(11)]
		resp := reply(&http.Request{}, status)
		resp.Request = req
		if chance(30) {
			resp.Header.Set("Retry-After", "0")
		}
		text := strings.Repeat("x", rand.N(3)*40_000)
		resp.Body, resp.ContentLength = opened.open(strings.NewReader(text), fmt.Sprintf("response %d with %d", now.Load(), status)), int64(len(text))
		if chance(20) {
			resp.ContentLength = -1
		}
		return resp, nil
	})
	fetch := func(name string) rf.Fetcher {
		return rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			switch {
			case chance(4):
				panic("a bug")
			case chance(4):
				runtime.Goexit()
			case chance(4):
				<-ctx.Done()
				return nil, context.Cause(ctx)
			case chance(4):
				time.Sleep(30 * time.Millisecond) // deaf to ctx
			case chance(8):
				return nil, &rf.AuthError{StatusCode: []int{400, 401, 403, 500, 503}[rand.N(5)]}
			}
			return &rf.Token{AccessToken: fmt.Sprintf("%s-%d", name, now.Load()), RefreshToken: "r", Expiry: time.Now().Add(time.Duration(rand.N(100)) * time.Millisecond)}, nil
		})
	}
	storage := &watching{faulty: faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(string) error {
		switch {
		case chance(3):
			return errDisk
		case chance(2):
			panic("a bug")
		case chance(2):
			time.Sleep(15 * time.Millisecond)
		}
		return nil
	}}, watch: func(_ []string, changed func(string, error)) func() {
		ctx, stop := context.WithCancel(context.Background())
		go func() {
			for ctx.Err() == nil {
				if changed("requestforge:user", nil); chance(10) {
					changed("", errDisk)
				}
				select {
				case <-time.After(time.Millisecond):
				case <-ctx.Done():
				}
			}
		}()
		return stop
	}}
	cfg := rf.PipelineConfig{
		Steps: []rf.Step{
			{Name: "app", Fetcher: fetch("app")},
			{Name: "user", DependsOn: []string{"app"}, Fetcher: fetch("user"), Refresh: fetch("user"),
				OnError: func(context.Context, error) { panic("a bug") }, OnRotate: func(context.Context, *rf.Token) { runtime.Goexit() }},
		},
		Storage: storage, FetchTimeout: 20 * time.Millisecond, FetchRetries: -1, StorageTimeout: 10 * time.Millisecond,
		CoolDown: time.Millisecond, MaxCoolDown: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	var clients []*http.Client
	var pipelines []*rf.Pipeline
	for range 2 {
		p, err := rf.NewPipeline(cfg)
		require.NoError(t, err)
		pipelines = append(pipelines, p)
		whole, err := rf.NewTransport(rf.Config{
			Base: server, Source: p, Origins: []string{host}, AuthRetry: rf.SimpleAuthRetry(2, time.Microsecond), MaxReplayBody: 1000,
			Retry:  rf.RetryPolicy{RetryMax: 2, RetryWaitMin: 1, RetryWaitMax: time.Millisecond, AttemptTimeout: 50 * time.Millisecond},
			Logger: cfg.Logger,
		})
		require.NoError(t, err)
		// Once more, with foreign layers in between.
		auth := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: server, Refused: func(resp *http.Response) bool {
			io.CopyN(io.Discard, resp.Body, 10)
			return resp.StatusCode == 401 || resp.StatusCode == 403
		}}
		apart := &rf.LoggingTransport{Logger: cfg.Logger, Base: roundTrip((&rf.RetryTransport{
			Policy: rf.RetryPolicy{RetryMax: 2, RetryWaitMin: 1, RetryWaitMax: 1}, Base: roundTrip(auth.RoundTrip),
		}).RoundTrip)}
		for _, rt := range []http.RoundTripper{whole, apart} {
			clients = append(clients, &http.Client{Transport: rt, Timeout: 200 * time.Millisecond})
		}
	}

	var wg sync.WaitGroup
	var served atomic.Int32
	const callers = 16
	for w := range callers {
		wg.Go(func() {
			for i := range requests / callers {
				n := now.Add(1)
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.N(100))*time.Millisecond)
				var sent io.Reader
				method := http.MethodGet
				if chance(60) {
					method = []string{"POST", "PUT"}[rand.N(2)]
					sent = opened.open(onlyReader{strings.NewReader(strings.Repeat("b", rand.N(3000)))}, fmt.Sprintf("request %d", n))
				}
				req, err := http.NewRequestWithContext(ctx, method, host, sent)
				if err != nil {
					panic(err)
				}
				if resp, err := clients[(w+i)%len(clients)].Do(req); err == nil {
					served.Add(1)
					if chance(50) {
						io.Copy(io.Discard, resp.Body)
					}
					resp.Body.Close()
				}
				switch p := pipelines[w%2]; rand.N(60) {
				case 0:
					p.InvalidateAll(ctx)
				case 1:
					p.Refresh(ctx)
				case 2:
					p.Forget(ctx)
				case 3:
					p.InvalidateStep(ctx, "app")
				}
				cancel()
			}
		})
	}
	wg.Wait()
	for _, p := range pipelines {
		require.NoError(t, p.Close())
	}
	time.Sleep(time.Minute) // all timeouts are over
	synctest.Wait()
	require.Empty(t, opened.wrong())
	t.Logf("%d of %d requests got an answer; %d bodies", served.Load(), now.Load(), len(opened.all))
	require.Greater(t, int(served.Load()), requests/20, "a run in which little works shows little")
}

// pushing is a storage that processes share and that pushes, unless it is told
// not to.
type pushing struct {
	*rf.MemoryStorage
	mu       sync.Mutex
	silent   bool
	watchers map[int]func(string, error)
	n        int
}

func newPushing() *pushing {
	return &pushing{MemoryStorage: rf.NewMemoryStorage(), watchers: map[int]func(string, error){}}
}

func (s *pushing) push(keys ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, changed := range s.watchers {
		for _, key := range keys {
			if !s.silent {
				changed(key, nil)
			}
		}
	}
}

func (s *pushing) Revoke(ctx context.Context, key string, stamp uint64) error {
	defer s.push(key)
	return s.MemoryStorage.Revoke(ctx, key, stamp)
}

func (s *pushing) Delete(ctx context.Context, key string, seen uint64) (rf.Entry, error) {
	defer s.push(key)
	return s.MemoryStorage.Delete(ctx, key, seen)
}

func (s *pushing) Watch(_ []string, changed func(string, error)) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	n := s.n
	s.watchers[n] = changed
	changed("", nil)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, n)
	}
}

func (s *pushing) watched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watchers)
}

// What one process revokes is dead in the others: within a second where the
// storage pushes, within half a minute where it doesn't, and in neither case
// does a request wait for it.
func TestPipelineRevocationReachesOtherProcesses(t *testing.T) {
	for name, c := range map[string]struct {
		storage rf.Storage
		within  time.Duration
	}{
		"pushed":       {newPushing(), time.Second},
		"push lost":    {func() rf.Storage { s := newPushing(); s.silent = true; return s }(), 30 * time.Second},
		"never pushed": {plainStorage{rf.NewMemoryStorage()}, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLogin()
				l.takes = 0
				cfg := rf.PipelineConfig{Steps: identified(l.chain()), Storage: c.storage, KeyPrefix: "test"}
				here, there := pipeline(t, cfg), pipeline(t, cfg)
				for i, do := range []func(context.Context) error{
					func(ctx context.Context) error { return here.InvalidateStep(ctx, "device") },
					here.InvalidateAll,
					func(ctx context.Context) error { return here.Invalidate(ctx, mustToken(t, here)) },
				} {
					mustToken(t, here)
					old := mustToken(t, there)
					require.Equal(t, old.AccessToken, mustToken(t, here).AccessToken, "shared")
					time.Sleep(7 * time.Second)
					require.NoError(t, do(t.Context()))
					time.Sleep(c.within)
					synctest.Wait()
					next := mustToken(t, there)
					require.NotEqual(t, old.AccessToken, next.AccessToken, i)
					require.Equal(t, next.AccessToken, mustToken(t, here).AccessToken)
				}
			})
		})
	}
}

// A logout is pushed, too. That something is gone without anyone having
// deleted it is a loss, and costs no login.
func TestPipelineLogoutReachesOtherProcessesAndALossDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		storage := newPushing()
		cfg := rf.PipelineConfig{Steps: l.chain(), Storage: storage}
		here, there := pipeline(t, cfg), pipeline(t, cfg)
		old := mustToken(t, there)
		mustToken(t, here)
		synctest.Wait()
		storage.MemoryStorage = rf.NewMemoryStorage()
		storage.push("")
		time.Sleep(time.Minute)
		require.Same(t, old, mustToken(t, there))

		require.NoError(t, here.Forget(t.Context()))
		time.Sleep(time.Second)
		require.NotEqual(t, old.AccessToken, mustToken(t, there).AccessToken)
		require.Equal(t, 2, l.fetches("device"))
	})
}

// Close ends what listens, may be called again, and leaves a pipeline that works and
// still looks now and then.
func TestPipelineCloseEndsWhatWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		storage := newPushing()
		cfg := rf.PipelineConfig{Steps: l.chain(), Storage: storage}
		here, there := pipeline(t, cfg), pipeline(t, cfg)
		require.Equal(t, 2, storage.watched())
		for range 3 {
			require.NoError(t, there.Close())
		}
		require.Equal(t, 1, storage.watched())
		old := mustToken(t, there)
		mustToken(t, here)
		require.NoError(t, here.InvalidateAll(t.Context()))
		time.Sleep(30 * time.Second)
		require.NotEqual(t, old.AccessToken, mustToken(t, there).AccessToken)
	})
}

// A stop that doesn't return is said, not waited for.
func TestPipelineCloseSaysThatWatchIsDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		storage := &watching{faulty: faulty{MemoryStorage: rf.NewMemoryStorage()}, watch: func([]string, func(string, error)) func() { return func() { <-hang } }}
		p, err := rf.NewPipeline(rf.PipelineConfig{Steps: newLogin().chain(), Storage: storage})
		require.NoError(t, err)
		begun := time.Now()
		require.ErrorContains(t, p.Close(), "goes on watching")
		require.Equal(t, time.Second, time.Since(begun))
		close(hang)
		require.NoError(t, p.Close())
	})
}

// Pushes set off a look at once, then a few looks a second, and the last push is
// heeded like the first: 30,000 in two seconds.
func TestPipelineLooksAFewTimesASecondHoweverManyPushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		storage := newPushing()
		var loads atomic.Int32
		counted := &countingLoads{storage, &loads}
		there := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: counted})
		here := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage})
		mustToken(t, there)
		time.Sleep(time.Second)
		before := loads.Load()
		storage.push("requestforge:user")
		synctest.Wait()
		require.Equal(t, before+1, loads.Load(), "at once")

		for range 2000 {
			for range 15 {
				storage.push("requestforge:user")
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		require.LessOrEqual(t, loads.Load()-before, int32(20))

		// The last of many, in the middle of a pause.
		old := mustToken(t, there)
		storage.push("requestforge:app")
		time.Sleep(time.Millisecond)
		require.NoError(t, here.InvalidateAll(t.Context()))
		time.Sleep(time.Second)
		synctest.Wait()
		require.NotEqual(t, old.AccessToken, mustToken(t, there).AccessToken)

		time.Sleep(time.Second)
		before = loads.Load()
		time.Sleep(10 * time.Second)
		require.Equal(t, before, loads.Load(), "nothing is pushed any more")
	})
}

// countingLoads counts what one process loads.
type countingLoads struct {
	*pushing
	loads *atomic.Int32
}

func (c *countingLoads) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	c.loads.Add(1)
	return c.pushing.Load(ctx, keys...)
}

// Pipelines over one storage need no goroutine each, and one that was dropped
// without Close stops listening.
func TestPipelinesThatWatchNeedNoGoroutinesAndCanBeDropped(t *testing.T) {
	storage := newPushing()
	l := newLogin()
	l.takes = 0
	before := runtime.NumGoroutine()
	var kept []*rf.Pipeline
	for i := range 300 {
		p, err := rf.NewPipeline(rf.PipelineConfig{Steps: l.chain(), Storage: storage, KeyPrefix: fmt.Sprint("tenant-", i)})
		require.NoError(t, err)
		kept = append(kept, p)
	}
	require.Equal(t, 300, storage.watched())
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+8 }, 10*time.Second, time.Millisecond)
	mustToken(t, kept[7])
	runtime.KeepAlive(kept)
	kept = nil
	require.Eventually(t, func() bool { runtime.GC(); return storage.watched() == 0 }, 10*time.Second, time.Millisecond)
}

// What keeps a storage from pushing is counted and logged, at most four times a
// second, and meanwhile the pipeline looks by itself.
func TestPipelineSaysThatNothingIsPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		var changed func(string, error)
		storage := &watching{faulty: faulty{MemoryStorage: rf.NewMemoryStorage()}, watch: func(_ []string, c func(string, error)) func() {
			changed = c
			return func() {}
		}}
		var log bytes.Buffer
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		mustToken(t, p)
		changed("", errDisk)
		synctest.Wait()
		require.Contains(t, log.String(), "no pushes from the storage")
		require.EqualValues(t, 1, p.Stats().StorageErrors)
		for range 1000 {
			changed("", errDisk)
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, p.Stats().StorageErrors, uint64(6))

		old := mustToken(t, p)
		require.NoError(t, storage.MemoryStorage.Revoke(t.Context(), "requestforge:app", 1))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.NotEqual(t, old.AccessToken, mustToken(t, p).AccessToken)
	})
}

// remembering is a storage that keeps failures.
type remembering struct {
	*rf.MemoryStorage
	mu       sync.Mutex
	failures map[string]rf.Failure
	until    map[string]time.Time
	late     time.Duration // how long a call takes to arrive
}

func (s *remembering) LoadFailure(ctx context.Context, key string) (rf.Failure, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.failures[key]
	if f.Left = time.Until(s.until[key]); f.Left <= 0 {
		return rf.Failure{}, nil
	}
	return f, nil
}

func (s *remembering) SaveFailure(ctx context.Context, key string, f rf.Failure) error {
	time.Sleep(s.late)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures[key], s.until[key] = f, time.Now().Add(f.Left)
	return nil
}

func newRemembering() *remembering {
	return &remembering{MemoryStorage: rf.NewMemoryStorage(), failures: map[string]rf.Failure{}, until: map[string]time.Time{}}
}

// A wrong secret in many processes is one request a cool-down, in all. With
// another secret it counts for nothing.
func TestPipelineWrongSecretInManyProcessesIsOneRequestACoolDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		server := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			asked.Add(1)
			_, secret, _ := req.BasicAuth()
			status, text := 401, `{"error":"invalid_client"}`
			if secret == "right" {
				status, text = 200, `{"access_token":"t"}`
			}
			resp := reply(req, status, "Content-Type", "application/json")
			resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
			return resp, nil
		})}
		storage := newRemembering()
		storage.late = 100 * time.Millisecond
		config := func(secret string) rf.PipelineConfig {
			return rf.PipelineConfig{Storage: storage, Steps: []rf.Step{{Name: "user", Fetcher: &rf.HTTPFetcher{
				URL: "https://auth.example.com", Client: server, ClientAuth: &rf.ClientAuth{ID: "id", Secret: secret},
			}}}}
		}
		var processes []*rf.Pipeline
		for range 10 { // each costs a slow hash, see Failure.Fingerprint
			processes = append(processes, pipeline(t, config("wrong")))
		}
		const coolDown = 30 * time.Second
		begun := time.Now()
		for time.Since(begun) < 4*coolDown-10*time.Second { // the last one is still remembered
			var wg sync.WaitGroup
			for _, p := range processes {
				wg.Go(func() {
					_, err := p.Token(t.Context())
					var auth *rf.AuthError
					if !errors.As(err, &auth) || auth.Step != "user" || auth.StatusCode != 401 || auth.Code != "invalid_client" || !auth.Permanent {
						t.Errorf("got %v", err)
					}
				})
			}
			wg.Wait()
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, asked.Load(), 1+int32(time.Since(begun)/coolDown))
		require.GreaterOrEqual(t, asked.Load(), int32(4), "and one it is")

		before := asked.Load()
		require.Equal(t, "t", mustToken(t, pipeline(t, config("right"))).AccessToken)
		require.Equal(t, before+1, asked.Load())
	})
}

// A storage that takes a moment remembers a failure a moment longer than the
// process that had it. That is the same failure, not one more in a row.
func TestPipelineOwnFailureFromTheStorageCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 400} })
		storage := newRemembering()
		storage.late = 50 * time.Millisecond
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage, CoolDown: time.Second, MaxCoolDown: time.Hour})
		for i, want := range []time.Duration{1, 2, 4, 8, 16} {
			for l.fetches("user") == i { // as soon as there is another try
				p.Token(t.Context())
				time.Sleep(10 * time.Millisecond)
			}
			_, err := p.Token(t.Context())
			var auth *rf.AuthError
			require.ErrorAs(t, err, &auth)
			require.InDelta(t, want*time.Second, auth.RetryAfter, float64(100*time.Millisecond))
		}
	})
}
