// How long a failure lasts, and for whom.

package requestforge_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// sharing is a storage that shares failures.
type sharing struct {
	*rf.MemoryStorage
	mu    *sync.Mutex
	fails map[string]rf.Failure
	until map[string]time.Time
}

func (s sharing) SaveFailure(_ context.Context, key string, f rf.Failure) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[key], s.until[key] = f, time.Now().Add(f.Left)
	return nil
}

func (s sharing) LoadFailure(_ context.Context, key string) (rf.Failure, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fails[key]
	if f.Left = time.Until(s.until[key]); f.Left <= 0 {
		return rf.Failure{}, nil
	}
	return f, nil
}

// Refresh asks now, whoever has failed before.
func TestPipelineRefreshAsksThoughAFailureIsShared(t *testing.T) {
	for _, what := range []string{"token", "refresh", "own refresh"} {
		t.Run(what, func(t *testing.T) {
			var sent atomic.Int32
			rt := roundTrip(func(req *http.Request) (*http.Response, error) {
				if sent.Add(1) == 1 {
					resp := reply(req, 400, "Content-Type", "application/json")
					resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(`{"error":"invalid_grant"}`)), -1
					return resp, nil
				}
				resp := reply(req, 200, "Content-Type", "application/json")
				resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(`{"access_token":"x"}`)), -1
				return resp, nil
			})
			steps := []rf.Step{{Name: "user", Fetcher: &rf.HTTPFetcher{URL: "https://auth.example.com/user", Client: &http.Client{Transport: rt}, Form: url.Values{"username": {"ann"}, "password": {"pw"}}}}}
			storage := sharing{rf.NewMemoryStorage(), new(sync.Mutex), map[string]rf.Failure{}, map[string]time.Time{}}
			cfg := rf.PipelineConfig{Storage: storage, KeyPrefix: "x", Steps: steps, CoolDown: time.Hour, MaxCoolDown: time.Hour}
			p, peer := pipeline(t, cfg), pipeline(t, cfg)
			_, err := p.Token(t.Context())
			require.Error(t, err)
			require.Eventually(t, func() bool {
				f, _ := storage.LoadFailure(t.Context(), rf.StorageKeys(p)[0])
				return f.Left > 0
			}, time.Minute, time.Millisecond)
			switch what {
			case "token":
				_, err = peer.Token(t.Context())
				require.Error(t, err)
				return
			case "refresh":
				_, err = peer.Refresh(t.Context())
			default:
				_, err = p.Refresh(t.Context())
			}
			require.NoError(t, err)
		})
	}
}

// A step that cools down isn't asked sooner because its parent fails for a moment.
func TestPipelineInheritedFailureShortensNoCoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		l.failing("user", func(int) error {
			return &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true, RetryAfter: 4 * time.Minute}
		})
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("app"), l.step("user", "app")}, FetchRetries: -1, MaxCoolDown: 4 * time.Minute})
		_, err := p.Token(t.Context())
		require.Error(t, err)
		require.Equal(t, 1, l.fetches("user"))
		l.failing("app", func(int) error { return &rf.AuthError{StatusCode: 503} })
		_, err = p.Refresh(t.Context())
		require.Error(t, err)
		l.failing("app", nil)
		require.Equal(t, 1, l.fetches("user"))
		time.Sleep(2 * time.Second)
		_, err = p.Token(t.Context())
		require.Error(t, err)
		require.Equal(t, 1, l.fetches("user"), "asked before its cool-down was over")
	})
}

// A failure that other steps have inherited ends with the parent's.
func TestPipelineInheritedFailureEndsWithTheParents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		l.failing("app", func(int) error { return &rf.AuthError{StatusCode: 400, Permanent: true} })
		p := pipeline(t, rf.PipelineConfig{Leaf: "a", MaxCoolDown: time.Hour, Steps: []rf.Step{l.step("app"), l.step("a", "app"), l.step("b", "app")}})
		_, err := p.Source("b").Token(t.Context())
		require.Error(t, err)
		l.failing("app", nil)
		_, err = p.Refresh(t.Context())
		require.NoError(t, err)
		_, err = p.Source("app").Token(t.Context())
		require.NoError(t, err)
		_, err = p.Source("b").Token(t.Context())
		require.NoError(t, err)
	})
}
