package filestorage_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/filestorage"
)

// account is the auth server of a tool. It refuses a refresh token that has been used
// before.
type account struct {
	logins, refreshes, reused atomic.Int32

	issued atomic.Int32
	used   atomic.Int32 // the newest refresh token that was used
}

func (a *account) issue() *requestforge.Token {
	n := a.issued.Add(1)
	return &requestforge.Token{
		AccessToken:  fmt.Sprintf("hunter2-access-%d~", n),
		RefreshToken: fmt.Sprintf("hunter2-refresh-%d~", n),
		Expiry:       time.Now().Add(time.Hour),
	}
}

// A tool is a process of the tool, with the directory open on its own.
type tool struct {
	*requestforge.Pipeline
	storage *filestorage.Storage
	takes   time.Duration // for each request to the auth server
}

func (a *account) tool(t *testing.T, dir string) *tool {
	t.Helper()
	p := &tool{storage: open(t, dir)}
	login := func(context.Context, requestforge.Input) (*requestforge.Token, error) {
		a.logins.Add(1)
		time.Sleep(p.takes)
		return a.issue(), nil
	}
	refresh := func(_ context.Context, in requestforge.Input) (*requestforge.Token, error) {
		a.refreshes.Add(1)
		var n int32
		if _, err := fmt.Sscanf(in.Previous.RefreshToken, "hunter2-refresh-%d~", &n); err != nil {
			return nil, err
		}
		if n <= a.used.Swap(n) {
			a.reused.Add(1)
		}
		time.Sleep(p.takes)
		return a.issue(), nil
	}
	var err error
	p.Pipeline, err = requestforge.NewPipeline(requestforge.PipelineConfig{
		KeyPrefix: "tool",
		Storage:   p.storage,
		Steps: []requestforge.Step{{
			Name: "user", Identity: "test",
			Fetcher: requestforge.FetcherFunc(login),
			Refresh: requestforge.FetcherFunc(refresh),
		}},
		RefreshAhead: -1,
	})
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

func (p *tool) token(t *testing.T) string {
	t.Helper()
	tok, err := p.Token(t.Context())
	require.NoError(t, err)
	return tok.AccessToken
}

// requireTombstone fails unless the tombstone is all that is left in the directory.
func requireTombstone(t *testing.T, p *tool, dir string) {
	t.Helper()
	e := load(t, p.storage, keyOf(t, "tool"))
	require.Nil(t, e.Record)
	require.NotZero(t, e.Gone)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(dir, f.Name()))
		require.NoError(t, err)
		require.False(t, inside(content, "hunter2"), f.Name())
	}
}

// The other process, which has been running for two hours, has a token in memory, in
// use or not, or one that has expired. It logs in anew within 30 s, or when it needs a
// token, and spends no refresh token from before the logout.
func TestLogoutIsOneInAProcessThatRanOn(t *testing.T) {
	for name, last := range map[string]time.Duration{
		"it holds a live token":   0,
		"its token has expired":   2 * time.Hour,
		"it is about to refresh":  time.Hour - time.Second,
		"it has slept for 3 days": 72 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := new(account)
				_, dir := fresh(t)
				long := a.tool(t, dir)
				for end := time.Now().Add(2 * time.Hour); time.Now().Before(end); time.Sleep(7 * time.Second) {
					long.token(t)
				}
				old := long.token(t)
				time.Sleep(last)
				refreshes := a.refreshes.Load()
				require.NotZero(t, refreshes)

				require.NoError(t, a.tool(t, dir).Forget(t.Context()))
				requireTombstone(t, long, dir)
				time.Sleep(30 * time.Second)
				require.NotEqual(t, old, long.token(t))
				require.EqualValues(t, 2, a.logins.Load())
				require.Equal(t, refreshes, a.refreshes.Load())
				require.Zero(t, a.reused.Load())

				// The next run of the tool finds the new login.
				require.Equal(t, long.token(t), a.tool(t, dir).token(t))
			})
		})
	}
}

// Whatever the other process is in the middle of comes to nothing: its caller gets an
// error that says so, and the file nothing of what the auth server has answered.
func TestLogoutEndsWhatAnotherProcessIsInTheMiddleOf(t *testing.T) {
	for name, begin := range map[string]func(t *testing.T, p *tool){
		"a refresh": func(t *testing.T, p *tool) {
			p.token(t)
			time.Sleep(2 * time.Hour)
		},
		"its first login": func(*testing.T, *tool) {},
		"a login after an earlier logout": func(t *testing.T, p *tool) {
			p.token(t)
			require.NoError(t, p.Forget(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := new(account)
				_, dir := fresh(t)
				long, short := a.tool(t, dir), a.tool(t, dir)
				begin(t, long)
				logins := a.logins.Load()
				long.takes = 10 * time.Second
				result := make(chan error, 1)
				go func() {
					_, err := long.Token(t.Context())
					result <- err
				}()
				time.Sleep(5 * time.Second)
				require.NoError(t, short.Forget(t.Context()))
				require.ErrorContains(t, <-result, "forgotten")
				time.Sleep(time.Minute)
				requireTombstone(t, long, dir)

				done := a.logins.Load()
				require.LessOrEqual(t, done, logins+1)
				require.Equal(t, long.token(t), short.token(t))
				require.Equal(t, done+1, a.logins.Load())
				require.Zero(t, a.reused.Load())
			})
		})
	}
}

// A logout needs nothing in memory, and one too many does no harm: the login that comes
// after is one for every process.
func TestLogoutOfASecondProcessEndsWhatIsThereNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(account)
		_, dir := fresh(t)
		long := a.tool(t, dir)
		long.token(t)
		for range 3 {
			require.NoError(t, a.tool(t, dir).Forget(t.Context()))
			require.NoError(t, a.tool(t, dir).Forget(t.Context()), "twice is as good as once")
			requireTombstone(t, long, dir)
			next := a.tool(t, dir).token(t)
			time.Sleep(30 * time.Second)
			require.Equal(t, next, long.token(t))
		}
		require.EqualValues(t, 4, a.logins.Load())
		require.Zero(t, a.refreshes.Load())
	})
}

// keyOf returns the key of the step user for the identity "test", as a pipeline makes it.
func keyOf(t *testing.T, prefix string) string {
	t.Helper()
	s := &recorder{MemoryStorage: requestforge.NewMemoryStorage()}
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{Storage: s, KeyPrefix: prefix, Steps: []requestforge.Step{{
		Name: "user", Identity: "test", Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
			return &requestforge.Token{AccessToken: "t"}, nil
		}),
	}}})
	require.NoError(t, err)
	_, err = p.Token(t.Context())
	require.NoError(t, err)
	return s.key
}

// recorder remembers the key that was saved last.
type recorder struct {
	*requestforge.MemoryStorage
	key string
}

func (s *recorder) Save(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
	s.key = key
	return s.MemoryStorage.Save(ctx, key, r, seen)
}
