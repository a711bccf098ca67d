// Who is blamed for a refusal, and what an API that refuses costs.

package requestforge_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// A program that speaks to a database or a broker has no AuthTransport that could
// tell of an acceptance.
func TestPipelineRevocationsOutsideHTTPCostTheLeafAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		for range 4 {
			for range 100 {
				mustToken(t, p)
				time.Sleep(time.Second)
			}
			tok := mustToken(t, p)
			require.NoError(t, p.Invalidate(t.Context(), tok))
			require.NotEqual(t, tok.AccessToken, mustToken(t, p).AccessToken)
		}
		require.Equal(t, "1 1 5", fmt.Sprint(l.fetches("device"), " ", l.fetches("app"), " ", l.fetches("user")))
		require.Zero(t, p.Stats().RefusalsIgnored)
	})
}

// A test, or a busy program, uses a token often in little time.
func TestPipelineTokensThatWereHandedOutOftenWereAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		for range 4 {
			for range 100 {
				mustToken(t, p)
			}
			tok := mustToken(t, p)
			require.NoError(t, p.Invalidate(t.Context(), tok))
			require.NotEqual(t, tok.AccessToken, mustToken(t, p).AccessToken)
		}
		require.Equal(t, "1 1 5", fmt.Sprint(l.fetches("device"), " ", l.fetches("app"), " ", l.fetches("user")))
		require.Zero(t, p.Stats().RefusalsIgnored)
	})
}

// A thousand callers at once can all be given a token that no server takes, since
// an ancestor was revoked. The blame reaches the ancestor all the same.
func TestPipelineTokensThatWereHandedOutOftenAreDoubtedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		for range 20 {
			tok := mustToken(t, p)
			for range 100 {
				mustToken(t, p)
			}
			for range 100 {
				require.NoError(t, p.Invalidate(t.Context(), tok))
			}
		}
		require.Equal(t, 2, l.fetches("device"))
		require.LessOrEqual(t, l.fetches("user"), 11)
	})
}

// AuthTransport tells of acceptances, so that a token handed out often and never
// accepted is under suspicion, even if nothing was accepted so far.
func TestAuthTokensThatWereHandedOutOftenWereNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: status(func() int { return 401 }), Retry: rf.SimpleAuthRetry(0, 0)}
		for _, want := range []string{"1 1 2", "1 2 3", "2 3 4"} {
			for range 100 {
				mustToken(t, p)
			}
			get(t, rt, host)
			mustToken(t, p)
			require.Equal(t, want, fmt.Sprint(l.fetches("device"), " ", l.fetches("app"), " ", l.fetches("user")))
		}
	})
}

// Some leaves don't log in, but pass on what a parent got.
func TestPipelineLeafThatHandsOnItsParentsTokenBlamesTheParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		steps := l.chain()
		steps[2].Fetcher = rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
			return &rf.Token{AccessToken: in.Parents["app"].AccessToken}, nil
		})
		p := pipeline(t, rf.PipelineConfig{Steps: steps})
		revoked := ""
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: api(func(tok string) bool { return tok != revoked })}
		require.Equal(t, 200, get(t, rt, host).StatusCode)
		revoked = "app-1"
		require.Equal(t, 200, get(t, rt, host).StatusCode)
		require.Equal(t, "1 2", fmt.Sprint(l.fetches("device"), " ", l.fetches("app")))
	})
}

// Each refusal is proven by a replay, so the first bucket never runs dry. The
// second one does.
func TestAuthAPIThatTakesEachTokenOnceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}})
		used := map[string]bool{}
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: api(func(tok string) bool {
			defer func() { used[tok] = true }()
			return !used[tok]
		})}
		for range 2000 {
			get(t, rt, host)
			time.Sleep(5 * time.Millisecond)
		}
		require.LessOrEqual(t, l.fetches("user"), 100)
		require.NotZero(t, p.Stats().RefusalsIgnored)
	})
}

// lagging is an API that knows a token only some time after its birth.
type lagging struct {
	lag time.Duration

	mu    sync.Mutex
	born  map[string]time.Time
	sends int
}

func (a *lagging) fetcher(l *login, name string, parents ...string) rf.Step {
	s := l.step(name, parents...)
	next := s.Fetcher
	s.Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
		for _, p := range parents {
			if !a.knows(in.Parents[p].AccessToken) {
				l.fetch(ctx, name+" in vain", nil, in)
				return nil, &rf.AuthError{StatusCode: 401, Code: "invalid_token"}
			}
		}
		tok, err := next.Fetch(ctx, in)
		if err == nil {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.born[tok.AccessToken] = time.Now()
		}
		return tok, err
	})
	return s
}

func (a *lagging) knows(token string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ok := a.born[strings.TrimPrefix(token, "Bearer ")]
	return ok && time.Since(at) >= a.lag
}

func (a *lagging) RoundTrip(req *http.Request) (*http.Response, error) {
	a.mu.Lock()
	a.sends++
	a.mu.Unlock()
	if a.knows(req.Header.Get("Authorization")) {
		return reply(req, 200), nil
	}
	return reply(req, 401), nil
}

// With three steps and every server late, each token is fetched once.
func TestPipelineParentThatTheNextServerDoesntKnowYetIsWaitedFor(t *testing.T) {
	for _, lag := range []time.Duration{200 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			l := newLogin()
			l.takes = 0
			a := &lagging{lag: lag, born: map[string]time.Time{}}
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{a.fetcher(l, "device"), a.fetcher(l, "app", "device"), a.fetcher(l, "user", "app")}})
			rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: a, Retry: rf.SimpleAuthRetry(1, 0)}
			for range 4 {
				require.Equal(t, 200, get(t, rt, host).StatusCode)
			}
			require.Equal(t, "1 1 1", fmt.Sprint(l.fetches("device"), " ", l.fetches("app"), " ", l.fetches("user")))
			require.Zero(t, p.Stats().Steps["user"].Failures)
		})
	}
}

// A parent that stays refused is replaced after 3 s, and its successors at once,
// until the step has worked again.
func TestPipelineYoungParentIsWaitedForInVainOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		refused := map[string]bool{"app-1": true, "app-2": true}
		steps := l.chain()
		user := steps[2].Fetcher
		steps[2].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			if refused[in.Parents["app"].AccessToken] {
				l.fetch(ctx, "refused", nil, in)
				return nil, &rf.AuthError{StatusCode: 401}
			}
			return user.Fetch(ctx, in)
		})
		p := pipeline(t, rf.PipelineConfig{Steps: steps})
		begun := time.Now()
		_, err := p.Token(t.Context())
		require.Error(t, err)
		require.Equal(t, 3*time.Second, time.Since(begun))
		require.Equal(t, 2, l.fetches("app"))
		require.Equal(t, 6, l.fetches("refused"), "five with the first, one with the second")
	})
}

// The waits count against the flight's time.
func TestPipelineYoungParentIsWaitedForWithinFetchTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		steps := l.chain()
		steps[1].Fetcher = rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			return nil, &rf.AuthError{StatusCode: 401}
		})
		p := pipeline(t, rf.PipelineConfig{Steps: steps, FetchTimeout: time.Second})
		begun := time.Now()
		_, err := p.Token(t.Context())
		require.Error(t, err)
		require.Equal(t, 750*time.Millisecond, time.Since(begun))
	})
}
