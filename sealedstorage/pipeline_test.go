package sealedstorage_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// login is a login of several steps without a network. The tokens of a step read
// "name-1", "name-2" and so on, and each fetch takes a second.
type login struct {
	mu    sync.Mutex
	count map[string]int
	busy  int
	most  int   // the most fetches that were under way at once
	err   error // of each fetch, if set
}

func newLogin() *login { return &login{count: map[string]int{}} }

func (l *login) step(name string, parents ...string) rf.Step {
	return rf.Step{Name: name, DependsOn: parents, Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
		l.mu.Lock()
		l.count[name]++
		l.busy++
		l.most = max(l.most, l.busy)
		n := l.count[name]
		l.mu.Unlock()
		time.Sleep(time.Second)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.busy--
		if l.err != nil {
			return nil, l.err
		}
		return &rf.Token{AccessToken: fmt.Sprintf("%s-%d", name, n)}, nil
	})}
}

// chain is device -> app -> user.
func (l *login) chain() []rf.Step {
	return []rf.Step{l.step("device"), l.step("app", "device"), l.step("user", "app")}
}

func (l *login) fetches(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count[name]
}

func pipeline(t *testing.T, cfg rf.PipelineConfig) *rf.Pipeline {
	t.Helper()
	p, err := rf.NewPipeline(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func mustToken(t *testing.T, p *rf.Pipeline) *rf.Token {
	t.Helper()
	tok, err := p.Token(t.Context())
	require.NoError(t, err)
	return tok
}

// What a Storage may offer beside its own methods. Each counts its calls.
type (
	locking  struct{ locker *countingLocker }
	watching struct{ used *uses }
	sharing  struct{ used *uses }
)

func (l locking) TryLock(ctx context.Context, key string) (rf.Lease, bool, error) {
	return l.locker.TryLock(ctx, key)
}

func (w watching) Watch([]string, func(string, error)) (stop func()) {
	w.used.watches.Add(1)
	return func() {}
}

func (s sharing) LoadFailure(context.Context, string) (rf.Failure, error) {
	s.used.loads.Add(1)
	return rf.Failure{}, nil
}

func (s sharing) SaveFailure(context.Context, string, rf.Failure) error {
	s.used.saves.Add(1)
	return nil
}

// offers returns a storage for each set of optional interfaces.
func offers(used *uses) []rf.Storage {
	s := hiding{rf.NewMemoryStorage()}
	l, w, f := locking{&countingLocker{rf.NewMemoryStorage(), used}}, watching{used}, sharing{used}
	return []rf.Storage{
		s,
		struct {
			hiding
			locking
		}{s, l},
		struct {
			hiding
			watching
		}{s, w},
		struct {
			hiding
			sharing
		}{s, f},
		struct {
			hiding
			locking
			watching
		}{hiding: s, locking: l, watching: w},
		struct {
			hiding
			locking
			sharing
		}{hiding: s, locking: l, sharing: f},
		struct {
			hiding
			watching
			sharing
		}{hiding: s, watching: w, sharing: f},
		struct {
			hiding
			locking
			watching
			sharing
		}{s, l, w, f},
	}
}

func TestPipelineUsesWhatTheWrappedStorageOffersAndNothingElse(t *testing.T) {
	for i := range offers(new(uses)) {
		synctest.Test(t, func(t *testing.T) {
			used := new(uses)
			below := offers(used)[i]
			_, locker := below.(rf.Locker)
			_, watcher := below.(rf.Watcher)
			_, failures := below.(rf.FailureStorage)
			e := seal(t, below, "new")
			require.Equal(t, below, e.Unwrap())

			l := newLogin()
			l.err = &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}
			p := pipeline(t, rf.PipelineConfig{Steps: identified([]rf.Step{l.step("user")}), KeyPrefix: "test", Storage: e})
			_, err := p.Token(t.Context())
			require.ErrorContains(t, err, "invalid_grant")
			synctest.Wait()
			require.Equal(t, locker, used.locks.Load() > 0, "Locker over %T", below)
			require.Equal(t, watcher, used.watches.Load() > 0, "Watcher over %T", below)
			require.Equal(t, failures, used.loads.Load() > 0, "LoadFailure over %T", below)
			require.Equal(t, failures, used.saves.Load() > 0, "SaveFailure over %T", below)

			// A step with a Refresh takes a Locker.
			step := l.step("user")
			step.Refresh = step.Fetcher
			p, err = rf.NewPipeline(rf.PipelineConfig{Steps: identified([]rf.Step{step}), KeyPrefix: "test", Storage: e})
			if !locker {
				require.ErrorContains(t, err, "Locker")
				return
			}
			require.NoError(t, err)
			require.NoError(t, p.Close())
		})
	}
}

func TestLockThroughTheSealExcludesOneWithoutIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := rf.NewMemoryStorage()
		l := newLogin()
		sealed := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: seal(t, below, "a")})
		plain := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: below})

		lease, ok, err := below.TryLock(t.Context(), "requestforge:user")
		require.NoError(t, err)
		require.True(t, ok)
		var both sync.WaitGroup
		both.Go(func() { mustToken(t, sealed) })
		time.Sleep(10 * time.Second)
		require.Zero(t, l.fetches("user"), "the sealed pipeline waits for the lock")
		both.Go(func() { mustToken(t, plain) })
		require.NoError(t, lease.Unlock(t.Context()))
		both.Wait()
		require.Equal(t, 2, l.fetches("user"), "neither can use the other's token")
		require.Equal(t, 1, l.most, "one after the other")
	})
}

// pushing is a MemoryStorage that pushes revocations to one watcher.
type pushing struct {
	*rf.MemoryStorage
	pushes chan string
}

func (p *pushing) Revoke(ctx context.Context, key string, stamp uint64) error {
	err := p.MemoryStorage.Revoke(ctx, key, stamp)
	p.pushes <- key
	return err
}

func (p *pushing) Watch(keys []string, changed func(string, error)) (stop func()) {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		for {
			select {
			case key := <-p.pushes:
				if slices.ContainsFunc(keys, func(step string) bool { return key == step || strings.HasPrefix(key, step+"/") }) {
					changed(key, nil)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return stop
}

func TestRevocationIsPushedThroughTheSeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		below := &pushing{rf.NewMemoryStorage(), make(chan string, 100)}
		there := pipeline(t, rf.PipelineConfig{Steps: identified(l.chain()), KeyPrefix: "test", Storage: seal(t, below, "a")})
		here := pipeline(t, rf.PipelineConfig{Steps: identified(l.chain()), KeyPrefix: "test", Storage: seal(t, hiding{below}, "a")}) // doesn't watch
		old := mustToken(t, there)
		require.Equal(t, old.AccessToken, mustToken(t, here).AccessToken)
		require.NoError(t, here.InvalidateStep(t.Context(), "device"))
		time.Sleep(time.Second)
		synctest.Wait()
		require.NotEqual(t, old.AccessToken, mustToken(t, there).AccessToken)
	})
}

// remembering is a MemoryStorage that shares the failure of one step.
type remembering struct {
	*rf.MemoryStorage
	mu      sync.Mutex
	failure rf.Failure
	until   time.Time
}

func (r *remembering) LoadFailure(context.Context, string) (rf.Failure, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.failure
	if f.Left = time.Until(r.until); f.Left <= 0 {
		return rf.Failure{}, nil
	}
	return f, nil
}

func (r *remembering) SaveFailure(_ context.Context, _ string, f rf.Failure) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failure, r.until = f, time.Now().Add(f.Left)
	return nil
}

func TestFailureIsSharedThroughTheSeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.err = &rf.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true}
		below := &remembering{MemoryStorage: rf.NewMemoryStorage()}
		for range 2 { // each costs a slow hash
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: seal(t, below, "a")})
			_, err := p.Token(t.Context())
			require.ErrorContains(t, err, "invalid_client")
		}
		require.Equal(t, 1, l.fetches("user"))
	})
}

// session is a login of one step, whose auth server kills the session when a
// refresh token is used twice.
type session struct {
	mu        sync.Mutex
	n         int
	refresh   string // the one that is good
	logins    int
	refreshes int
	reused    int
}

func (l *session) issue() *rf.Token {
	l.n++
	l.refresh = fmt.Sprint("refresh-", l.n)
	return &rf.Token{AccessToken: fmt.Sprint("access-", l.n), RefreshToken: l.refresh, Expiry: time.Now().Add(time.Hour)}
}

func (l *session) pipeline(t *testing.T, s rf.Storage) *rf.Pipeline {
	return pipeline(t, rf.PipelineConfig{Storage: s, RefreshAhead: -1, Steps: []rf.Step{{
		Name: "user",
		Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.logins++
			return l.issue(), nil
		}),
		Refresh: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if in.Previous.RefreshToken != l.refresh {
				l.reused++
				return nil, &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}
			}
			l.refreshes++
			return l.issue(), nil
		}),
	}}})
}

func TestStorageRotationLosesNoLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := rf.NewMemoryStorage()
		l := new(session)
		hours := 0
		// Two processes live at once, at neighbouring stages, for as long
		// as it takes both to need new tokens.
		live := func(one, two []string) {
			a, b := l.pipeline(t, seal(t, below, one...)), l.pipeline(t, seal(t, below, two...))
			for range 4 {
				first, second := mustToken(t, a), mustToken(t, b)
				require.Equal(t, first.AccessToken, second.AccessToken, "%v and %v share a token", one, two)
				a, b = b, a
				time.Sleep(time.Hour)
				hours++
			}
		}
		keys := []string{"k1", "k2", "k3"}
		live([]string{"k1"}, []string{"k1"})
		for i, before := range keys[:2] {
			after := keys[i+1]
			live([]string{before}, []string{before, after})
			live([]string{before, after}, []string{before, after})
			live([]string{before, after}, []string{after, before})
			live([]string{after, before}, []string{after, before})
			live([]string{after, before}, []string{after})
			live([]string{after}, []string{after})
		}
		require.Equal(t, 1, l.logins)
		require.Equal(t, hours-1, l.refreshes, "one a lifetime, for both processes")
		require.Zero(t, l.reused)
	})
}

func TestStorageUnderAPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := &changing{MemoryStorage: rf.NewMemoryStorage()}
		l := newLogin()
		process := func(ids ...string) *rf.Pipeline {
			return pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: seal(t, below, ids...)})
		}
		fetches := func() []int { return []int{l.fetches("device"), l.fetches("app"), l.fetches("user")} }

		first := process("a")
		require.Equal(t, "user-1", mustToken(t, first).AccessToken)
		require.Equal(t, "user-1", mustToken(t, process("a")).AccessToken)
		require.Equal(t, []int{1, 1, 1}, fetches(), "the second process loads")

		require.NoError(t, first.InvalidateStep(t.Context(), "app"))
		require.Equal(t, "user-2", mustToken(t, process("a")).AccessToken)
		require.Equal(t, []int{1, 2, 2}, fetches(), "marks work as ever")

		// One byte of every record is damaged, for good.
		for _, key := range []string{"requestforge:device", "requestforge:app", "requestforge:user"} {
			r := *load(t, below, key).Record
			data := []byte(r.Token.AccessToken)
			data[len(data)-1] ^= 1
			r.Token.AccessToken = string(data)
			_, err := below.Save(t.Context(), key, r, r.Stamp)
			require.NoError(t, err)
		}
		damaged := process("a")
		require.Equal(t, "user-3", mustToken(t, damaged).AccessToken)
		require.Equal(t, []int{2, 3, 3}, fetches())
		require.Zero(t, damaged.Stats().StorageErrors, "a miss, not a failure")
		require.Equal(t, "user-3", mustToken(t, process("a")).AccessToken)
		require.Equal(t, []int{2, 3, 3}, fetches(), "what was damaged has been replaced")

		// Every key is lost; then there are two fleets with nothing in common.
		require.Equal(t, "user-4", mustToken(t, process("b")).AccessToken)
		require.Equal(t, "user-4", mustToken(t, process("b")).AccessToken)
		require.Equal(t, "user-5", mustToken(t, process("a")).AccessToken)
		require.Equal(t, []int{4, 5, 5}, fetches(), "each costs one login, and none waits for another")
	})
}

// A process that was given no keys must not send what it finds.
func TestStorageWithoutTheKeysIsNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := rf.NewMemoryStorage()
		l := newLogin()
		sealing := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: seal(t, below, "a")})
		require.Equal(t, "user-1", mustToken(t, sealing).AccessToken)
		plain := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: below})
		require.Equal(t, "user-2", mustToken(t, plain).AccessToken)
		require.NotZero(t, plain.Stats().BadRecords)
		again := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: seal(t, below, "a")})
		require.Equal(t, "user-3", mustToken(t, again).AccessToken)
	})
}

// identified is steps that say who they log in as.
func identified(steps []rf.Step) []rf.Step {
	for i := range steps {
		steps[i].Identity = "ann"
	}
	return steps
}
