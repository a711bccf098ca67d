// An API that asks for more than the token of a request could show.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// mint is an auth server that does as it is asked, and remembers of each token what that
// was.
type mint struct {
	*login

	mu    sync.Mutex
	asked map[string]map[string]string // Input.Challenge, by access token
	fail  func(in rf.Input) error
}

func newMint() *mint { return &mint{login: newLogin(), asked: map[string]map[string]string{}} }

// step is one of login that answers challenges.
func (m *mint) step(name string, parents ...string) rf.Step {
	return rf.Step{Name: name, DependsOn: parents, AnswersChallenges: true, Identity: name, Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
		return m.get(ctx, name, parents, in)
	})}
}

func (m *mint) get(ctx context.Context, name string, parents []string, in rf.Input) (*rf.Token, error) {
	if in.Subject != "" {
		name += "-of-" + in.Subject
	}
	if m.fail != nil {
		if err := m.fail(in); err != nil {
			m.login.fetch(ctx, name, parents, in) // counts, and takes its time
			return nil, err
		}
	}
	tok, err := m.login.fetch(ctx, name, parents, in)
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.asked[tok.AccessToken] = in.Challenge
	}
	return tok, err
}

// has reports whether a token was asked for with a word in a parameter.
func (m *mint) has(token, param, word string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(strings.Fields(m.asked[token][param]), word)
}

func (m *mint) of(token string) map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[token]
}

// scoped is an API whose paths /a, /b and so on want a scope of that name.
func (m *mint) scoped(seen func(token string)) roundTrip {
	return func(req *http.Request) (*http.Response, error) {
		token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
		if seen != nil {
			seen(token)
		}
		scope := strings.TrimPrefix(req.URL.Path, "/")
		if scope == "" || m.has(token, "scope", scope) {
			return reply(req, 200), nil
		}
		return reply(req, 403, "WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+scope+`"`), nil
	}
}

func challenges(p *rf.Pipeline, step string) int { return int(p.Stats().Steps[step].Challenges) }

func TestChallengeIsAnsweredAndTheRequestReplayed(t *testing.T) {
	for name, c := range map[string]struct {
		status    int
		challenge string
		want      map[string]string // Input.Challenge
	}{
		"scope": {403, `Bearer error="insufficient_scope", scope="read write", realm="x"`,
			map[string]string{"error": "insufficient_scope", "scope": "read write", "realm": "x"}},
		"scope, behind other challenges": {401, `Basic realm="y", Bearer error=insufficient_scope, scope=read`,
			map[string]string{"error": "insufficient_scope", "scope": "read"}},
		"step-up (RFC 9470)": {401, `Bearer error="insufficient_user_authentication", error_description="Log in", acr_values="mfa", max_age="5"`,
			map[string]string{"error": "insufficient_user_authentication", "acr_values": "mfa", "max_age": "5"}},
		"step-up with DPoP": {401, `DPoP error="insufficient_user_authentication", acr_values="mfa", algs="ES256"`,
			map[string]string{"error": "insufficient_user_authentication", "acr_values": "mfa", "algs": "ES256"}},
		"claims (Entra)": {401, `Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZX19fQ=="`,
			map[string]string{"error": "insufficient_claims", "claims": `{"access_token":{"nbf":{"essential":true}}}`}},
		"metadata (RFC 9728), and a resource of this API's": {403, `Bearer error="insufficient_scope", scope="a", resource_metadata="https://elsewhere.example.com/meta", resource="` + host + `/v1"`,
			map[string]string{"error": "insufficient_scope", "scope": "a", "resource_metadata": "https://elsewhere.example.com/meta", "resource": host + "/v1"}},
		"a resource of another API": {403, `Bearer error="insufficient_scope", scope="a", resource="https://bank.example.com/"`,
			map[string]string{"error": "insufficient_scope", "scope": "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMint()
			m.takes = 0
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.login.step("app"), m.step("user", "app")}})
			var sends []string
			rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				body, _ := io.ReadAll(req.Body)
				sends = append(sends, req.Header.Get("Authorization")+" "+string(body))
				if strings.HasSuffix(req.Header.Get("Authorization"), "user-1") {
					return reply(req, c.status, "WWW-Authenticate", c.challenge), nil
				}
				return reply(req, 200), nil
			})}
			for range 2 {
				req, err := http.NewRequest("POST", host, strings.NewReader("order"))
				require.NoError(t, err)
				resp, err := rt.RoundTrip(req)
				require.NoError(t, err)
				require.Equal(t, 200, resp.StatusCode)
			}
			require.Equal(t, []string{"Bearer user-1 order", "Bearer user-2 order", "Bearer user-2 order"}, sends)
			require.Nil(t, m.of("user-1"))
			require.Equal(t, c.want, m.of("user-2"))
			require.Equal(t, map[string]int{"app": 1, "user": 2}, m.all())
			require.Equal(t, 1, challenges(p, "user"))
			require.Zero(t, p.Stats().Invalidations)
		})
	}
}

// A challenge that names nothing to ask for can't be answered, and nor can one to a token
// that is none of a step that answers.
func TestChallengeWithoutAnAnswerGoesBack(t *testing.T) {
	const scope = `Bearer error="insufficient_scope", scope="a"`
	m := newMint()
	m.takes = 0
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("app"), m.login.step("user", "app")}})
	plain := pipeline(t, rf.PipelineConfig{Steps: m.chain()})
	for name, c := range map[string]struct {
		src       rf.TokenSource
		challenge string
	}{
		"no step answers":         {plain, scope},
		"not a pipeline's":        {static("t"), scope},
		"behind another source":   {sourceFunc(p.Token), scope},
		"names no scope":          {p, `Bearer error="insufficient_scope"`},
		"names nothing":           {p, `Bearer error="insufficient_user_authentication"`},
		"only another's resource": {p, `Bearer error="insufficient_scope", resource="https://bank.example.com"`},
		"claims that are none":    {p, `Bearer error="insufficient_claims", claims="bm9uZQ=="`},
		"no claims":               {p, `Basic error="insufficient_scope", scope="a"`},
	} {
		t.Run(name, func(t *testing.T) {
			sends := 0
			rt := &rf.AuthTransport{Source: c.src, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				sends++
				return reply(req, 403, "WWW-Authenticate", c.challenge), nil
			})}
			for range 3 {
				resp := get(t, rt, host)
				require.Equal(t, 403, resp.StatusCode)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, "answer", string(body))
			}
			require.Equal(t, 3, sends)
			require.Zero(t, challenges(p, "app"))
		})
	}
}

func TestChallengeLeavesTheOldTokenInUseUntilTheNewOneIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMint()
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("user")}})
		var last atomic.Value
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: m.scoped(func(token string) { last.Store(token) })}
		get(t, rt, host)
		var done sync.WaitGroup
		done.Go(func() { assert.Equal(t, 200, get(t, rt, host+"/a").StatusCode) })
		time.Sleep(time.Second / 2) // the fetch takes one
		begun := time.Now()
		require.Equal(t, 200, get(t, rt, host).StatusCode)
		require.Equal(t, "user-1", last.Load())
		require.Zero(t, time.Since(begun))
		done.Wait()
		get(t, rt, host)
		require.Equal(t, "user-2", last.Load())
	})
}

// A thousand callers who are challenged, at once or late, cost one fetch; two kinds of
// challenges two.
func TestChallengedHerdCostsOneFetch(t *testing.T) {
	for _, paths := range [][]string{{"/a"}, {"/a", "/b"}} {
		synctest.Test(t, func(t *testing.T) {
			m := newMint()
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.login.step("app"), m.step("user", "app")}})
			mustToken(t, p)
			slow := m.scoped(nil)
			rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Retry: rf.SimpleAuthRetry(2, 0), Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				resp, err := slow(req)
				if resp.StatusCode == 403 && req.Header.Get("X-Late") != "" {
					time.Sleep(10 * time.Second)
				}
				return resp, err
			})}
			var wg sync.WaitGroup
			var good atomic.Int32
			for i := range 1000 {
				wg.Go(func() {
					req, _ := http.NewRequest("GET", host+paths[i%len(paths)], nil)
					if i%4 > 1 {
						req.Header.Set("X-Late", "yes")
					}
					if resp, err := rt.RoundTrip(req); err == nil && resp.StatusCode == 200 {
						good.Add(1)
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, 1000, good.Load())
			require.Equal(t, map[string]int{"app": 1, "user": 1 + len(paths)}, m.all())
			require.Equal(t, len(paths), challenges(p, "user"))
		})
	}
}

// An API that challenges for ever, with the same or with another challenge each time, costs
// as little as one that refuses for ever, and doesn't keep a revoked token from being
// replaced. Challenges that were answered well cost nothing.
func TestChallengingForEverIsBounded(t *testing.T) {
	for name, scope := range map[string]func(n int) string{
		"the same":          func(int) string { return "a" },
		"another each time": func(n int) string { return fmt.Sprint("scope-", n) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMint()
				m.takes = 0
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("user")}})
				sends, revoked := 0, ""
				rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					sends++
					switch {
					case req.URL.Path == "" && req.Header.Get("Authorization") == revoked:
						return reply(req, 401), nil
					case req.URL.Path == "":
						return reply(req, 200), nil
					}
					return reply(req, 403, "WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+scope(sends)+`"`), nil
				})}
				for range 500 {
					require.Equal(t, 403, get(t, rt, host+"/never").StatusCode)
					time.Sleep(20 * time.Millisecond)
				}
				require.LessOrEqual(t, m.fetches("user"), 1+3+1)
				require.LessOrEqual(t, sends, 500+4)
				if name == "the same" { // which was asked for once
					require.Equal(t, 2, m.fetches("user"))
					time.Sleep(5 * time.Minute)
					get(t, rt, host+"/never")
					require.Equal(t, 3, m.fetches("user"))
				} else {
					require.NotZero(t, p.Stats().RefusalsIgnored)
				}
				get(t, rt, host)
				revoked = "Bearer " + mustToken(t, p).AccessToken
				require.Equal(t, 200, get(t, rt, host).StatusCode)
			})
		})
	}
	t.Run("answered well", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMint()
			m.takes = 0
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("user")}})
			rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: m.scoped(nil)}
			for n := range 40 {
				require.Equal(t, 200, get(t, rt, fmt.Sprint(host, "/s", n)).StatusCode)
			}
		})
	})
}

// What was asked for adds up, whoever asks next: a renewal, another process, one after a
// restart. A logout ends it.
func TestChallengesAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMint()
		m.takes, m.life["user"] = 0, time.Hour
		store := rf.NewMemoryStorage()
		open := func() (*rf.Pipeline, *rf.AuthTransport) {
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("user")}, Storage: store, KeyPrefix: "test"})
			return p, &rf.AuthTransport{Source: p, Origins: []string{host}, Base: m.scoped(nil)}
		}
		p, rt := open()
		q, peer := open()
		mustToken(t, q)
		for _, path := range []string{"/a", "/b", "/a"} {
			require.Equal(t, 200, get(t, rt, host+path).StatusCode)
		}
		require.Equal(t, map[string]string{"error": "insufficient_scope", "scope": "a b"}, m.of("user-3"))

		// The peer has the first token, and finds the last one in the storage.
		require.Equal(t, 200, get(t, peer, host+"/b").StatusCode)
		require.Equal(t, 3, m.fetches("user"))
		require.Zero(t, challenges(q, "user"))
		require.Equal(t, 200, get(t, peer, host+"/c").StatusCode)
		require.Equal(t, "a b c", m.of("user-4")["scope"])

		_, renewed := open()
		time.Sleep(2 * time.Hour)
		for _, path := range []string{"/a", "/b", "/c"} {
			require.Equal(t, 200, get(t, renewed, host+path).StatusCode)
		}
		require.Equal(t, map[string]string{"scope": "a b c"}, m.of("user-5"))
		require.Equal(t, 5, m.fetches("user"))

		_, err := p.Refresh(t.Context()) // which looks at the storage first
		require.NoError(t, err)
		require.Equal(t, map[string]string{"scope": "a b c"}, m.of("user-6"))
		require.NoError(t, p.Forget(t.Context()))
		require.Nil(t, m.of(mustToken(t, p).AccessToken))
	})
}

// An auth server that refuses later on what it has granted before, doesn't keep the step from
// getting a token.
func TestChallengeFromBeforeThatIsRefusedIsForgotten(t *testing.T) {
	for name, refusal := range map[string]error{
		"invalid_scope":  rf.NewAuthError(&http.Response{StatusCode: 400}, []byte(`{"error":"invalid_scope"}`), nil),
		"needs a person": fmt.Errorf("mfa: %w", rf.ErrNeedsPerson),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMint()
				m.takes, m.life["user"] = 0, time.Hour
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("user")}})
				rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: m.scoped(nil)}
				require.Equal(t, 200, get(t, rt, host+"/a").StatusCode)
				m.fail = func(in rf.Input) error {
					if in.Challenge != nil {
						return refusal
					}
					return nil
				}
				time.Sleep(2 * time.Hour)
				require.Equal(t, 200, get(t, rt, host).StatusCode)
				require.Equal(t, 4, m.fetches("user")) // two before; with, and without
				require.Zero(t, p.Stats().Steps["user"].Failures)
				require.Equal(t, 403, get(t, rt, host+"/a").StatusCode)
			})
		})
	}
}

// Where a person is needed, or the auth server says no, the challenge goes back, readable; the
// old token serves, and the step doesn't cool down. An equal challenge goes back at once for
// a while.
func TestChallengeThatNeedsAPersonGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMint()
		m.takes = 0
		person := false
		m.fail = func(in rf.Input) error {
			if in.Challenge != nil && !person {
				return fmt.Errorf("an approval on the phone: %w", rf.ErrNeedsPerson)
			}
			return nil
		}
		var told []error
		step := m.step("user")
		step.OnError = func(_ context.Context, err error) { told = append(told, err) }
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}, CoolDown: 2 * time.Second})
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: m.scoped(nil)}
		before := mustToken(t, p)
		for range 5 {
			resp := get(t, rt, host+"/a")
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, "403 answer", fmt.Sprint(resp.StatusCode, " ", string(body)))
			require.Same(t, before, mustToken(t, p))
		}
		require.Equal(t, 1, challenges(p, "user"))
		require.Len(t, told, 1)
		require.ErrorIs(t, told[0], rf.ErrNeedsPerson)
		require.Equal(t, rf.StatusLive, p.State(t.Context()).Steps[0].Status)

		// What another request needs meanwhile is no matter of the person's.
		require.NoError(t, p.InvalidateStep(t.Context(), "user"))
		require.Equal(t, 200, get(t, rt, host).StatusCode)

		person = true
		require.Equal(t, 403, get(t, rt, host+"/a").StatusCode)
		time.Sleep(2 * time.Second)
		require.Equal(t, 200, get(t, rt, host+"/a").StatusCode)
	})
}

// Who needs any token, and joins a fetch for the sake of a challenge that then fails, gets one;
// and so does who is challenged otherwise.
func TestChallengeThatFailsIsNoConcernOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMint()
		m.life["user"] = time.Hour
		m.fail = func(in rf.Input) error {
			if slices.Contains(strings.Fields(in.Challenge["scope"]), "a") {
				return rf.ErrNeedsPerson
			}
			return nil
		}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("user")}, RefreshAhead: -1})
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: m.scoped(nil)}
		mustToken(t, p)
		time.Sleep(time.Hour - 10*time.Second - time.Second/2) // the token ends while the fetch is under way
		var wg sync.WaitGroup
		wg.Go(func() { assert.Equal(t, 403, get(t, rt, host+"/a").StatusCode) })
		wg.Go(func() { assert.Equal(t, 200, get(t, rt, host+"/b").StatusCode) })
		time.Sleep(time.Second * 3 / 4)
		require.Equal(t, "user-", mustToken(t, p).AccessToken[:5])
		wg.Wait()
	})
}

// Of the token's step and its ancestors the nearest that answers is asked, and the steps in
// between follow.
func TestChallengeIsAnsweredByTheNearestStepThatDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMint()
		p := pipeline(t, rf.PipelineConfig{Leaf: "orders", Steps: []rf.Step{
			m.step("device"), m.step("app", "device"), m.login.step("user", "app"), m.login.step("orders", "user"), m.login.step("bills", "user"),
		}})
		inherits := func(token, scope string) bool { // a step's own token, or that of an ancestor
			return m.has("app-2", "scope", scope) && !strings.HasSuffix(token, "-1")
		}
		base := roundTrip(func(req *http.Request) (*http.Response, error) {
			if inherits(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "), "a") {
				return reply(req, 200), nil
			}
			return reply(req, 403, "WWW-Authenticate", `Bearer error="insufficient_scope", scope="a"`), nil
		})
		for _, step := range []string{"orders", "bills", "user"} {
			_, err := p.Source(step).Token(t.Context())
			require.NoError(t, err)
		}
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: base}
		bills := &rf.AuthTransport{Source: p.Source("bills"), Origins: []string{host}, Base: base}
		require.Equal(t, 200, get(t, rt, host).StatusCode)
		require.Equal(t, map[string]int{"device": 1, "app": 2, "user": 2, "orders": 2, "bills": 1}, m.all())
		require.Nil(t, m.of("device-1"))
		require.Equal(t, "bills-1", tokenOf(t, p.Source("bills"))) // nobody has asked for more there

		// What was asked for there already, isn't again.
		require.Equal(t, 200, get(t, bills, host).StatusCode)
		require.Equal(t, map[string]int{"device": 1, "app": 2, "user": 2, "orders": 2, "bills": 2}, m.all())
		require.Equal(t, 1, challenges(p, "app"))
	})
}

// One subject's challenge is that subject's, and no reason to replace what all share.
func TestChallengeToOneSubjectConcernsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMint()
		user, login := m.step("user", "app"), m.login.step("login", "app")
		user.PerSubject, login.PerSubject = true, true
		p := pipeline(t, rf.PipelineConfig{Subject: userOf, Leaf: "user", Steps: []rf.Step{m.step("app"), user, login}})
		client := &http.Client{Transport: &rf.AuthTransport{Source: p, Origins: []string{host}, Base: m.scoped(nil)}}
		for _, who := range []string{"ann", "bob"} {
			require.Equal(t, 200, getAs(t, client, who, ""))
		}
		require.Equal(t, 200, getAs(t, client, "ann", "/a"))
		require.Equal(t, map[string]int{"app": 1, "user-of-ann": 2, "user-of-bob": 1}, m.all())
		require.Equal(t, "user-of-bob-1", tokenAs(t, p, as(t.Context(), "bob")))

		// Without an own step that answers, the shared one doesn't, unless the challenged token is
		// the shared one.
		own := &http.Client{Transport: &rf.AuthTransport{Source: p.Source("login"), Origins: []string{host}, Base: m.scoped(nil)}}
		require.Equal(t, 403, getAs(t, own, "ann", "/a"))
		require.Equal(t, 1, m.fetches("app"))
		shared := &http.Client{Transport: &rf.AuthTransport{Source: p.Source("app"), Origins: []string{host}, Base: m.scoped(nil)}}
		require.Equal(t, 200, getAs(t, shared, "ann", "/a"))
		require.Equal(t, 2, m.fetches("app"))
	})
}

// Claims may do with a refresh; more scope or a stronger login is for the Fetcher, and so
// are claims that the auth server doesn't grant to a refresh. The refresh token is as good
// as before.
func TestChallengeIsForTheFetcherUnlessARefreshWillDo(t *testing.T) {
	for name, c := range map[string]struct {
		challenge string
		refuse    string // by the refresh
		want      string // how the tokens came about
	}{
		"claims":                   {`Bearer error="insufficient_claims", claims="e30="`, "", "login refresh{}"},
		"claims that need more":    {`Bearer error="insufficient_claims", claims="e30="`, "interaction_required", "login refresh{} login{}"},
		"scope":                    {`Bearer error="insufficient_scope", scope="a"`, "", "login logina"},
		"claims and a login":       {`Bearer error="insufficient_user_authentication", max_age=5, claims="e30="`, "", "login login{}5"},
		"claims, a refresh failed": {`Bearer error="insufficient_claims", claims="e30="`, "temporarily_unavailable", "login refresh{}"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				how, n := []string{}, 0
				fetch := func(name, refuse string) rf.FetcherFunc {
					return func(_ context.Context, in rf.Input) (*rf.Token, error) {
						how = append(how, name+in.Challenge["claims"]+in.Challenge["scope"]+in.Challenge["max_age"])
						if refuse != "" {
							status := 400
							if refuse == "temporarily_unavailable" {
								status = 503
							}
							return nil, rf.NewAuthError(&http.Response{StatusCode: status}, []byte(`{"error":"`+refuse+`"}`), nil)
						}
						n++
						return &rf.Token{AccessToken: fmt.Sprint("t-", n), RefreshToken: "r", Expiry: time.Now().Add(time.Hour)}, nil
					}
				}
				p := pipeline(t, rf.PipelineConfig{FetchRetries: -1, Steps: []rf.Step{{Name: "user", AnswersChallenges: true, Fetcher: fetch("login", ""), Refresh: fetch("refresh", c.refuse)}}})
				rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					if req.Header.Get("Authorization") == "Bearer t-1" {
						return reply(req, 401, "WWW-Authenticate", c.challenge), nil
					}
					return reply(req, 200), nil
				})}
				get(t, rt, host)
				require.Equal(t, c.want, strings.Join(how, " "))
				how = nil
				_, err := p.Refresh(t.Context())
				if c.refuse != "temporarily_unavailable" {
					require.NoError(t, err)
				}
				require.Equal(t, "refresh", how[0][:7])
			})
		})
	}
}

// The sends for a nonce, for challenges, after refusals and the retries hold the one budget,
// in every order of the layers.
func TestChallengesAreAnsweredWithinTheBudgetOfSends(t *testing.T) {
	t.Parallel()
	challengesWithinTheBudget(t, 23)
}

// challengesWithinTheBudget tries each stride-th of all mixes of five answers.
func challengesWithinTheBudget(t *testing.T, stride int) {
	const retries, replays = 2, 2
	type wrap func(http.RoundTripper) http.RoundTripper
	retry := wrap(func(rt http.RoundTripper) http.RoundTripper { return retryOver(rt, retryFast(retries)) })
	foreign := wrap(func(rt http.RoundTripper) http.RoundTripper { return hiding{rt} })
	for _, order := range []string{"retry, auth", "auth, retry", "retry, foreign, auth"} {
		t.Run(order, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMint()
				m.takes = 0
				most := 0
				for mix := 0; mix < 5*5*5*5*5; mix += stride {
					time.Sleep(time.Minute) // for the buckets
					p, err := rf.NewPipeline(rf.PipelineConfig{Steps: []rf.Step{m.step("user")}})
					require.NoError(t, err)
					auth := wrap(func(rt http.RoundTripper) http.RoundTripper {
						return &rf.AuthTransport{Source: p, Origins: []string{host}, Base: rt, Retry: rf.SimpleAuthRetry(replays, 0), Learn: func(resp *http.Response, _ *rf.Token) bool {
							return resp.Header.Get("X-Nonce") != ""
						}}
					})
					mustToken(t, p)
					sends, nonces := 0, 0
					var rt http.RoundTripper = roundTrip(func(req *http.Request) (*http.Response, error) {
						n := mix
						for range sends % 5 {
							n /= 5
						}
						sends++
						switch n % 5 {
						case 0:
							return reply(req, 403, "WWW-Authenticate", fmt.Sprintf(`Bearer error="insufficient_scope", scope="s%d"`, sends)), nil
						case 1:
							return reply(req, 503), nil
						case 2:
							return reply(req, 401), nil
						case 3:
							nonces++
							return reply(req, 401, "X-Nonce", "n"), nil
						}
						reply(req, 0)
						return nil, io.ErrUnexpectedEOF
					})
					for _, name := range slices.Backward(strings.Split(order, ", ")) {
						rt = map[string]wrap{"retry": retry, "auth": auth, "foreign": foreign}[name](rt)
					}
					time.Sleep(11 * time.Second) // no token is young
					req, _ := http.NewRequest("PUT", host, strings.NewReader("body"))
					if resp, err := rt.RoundTrip(req); err == nil {
						resp.Body.Close()
					}
					most = max(most, sends)
					// Four are tries of tokens that are seconds old. A nonce costs a send more,
					// and again once that send has helped.
					if budget := 1 + retries + replays + 4; sends-nonces > budget || sends > 2*budget {
						t.Fatalf("%d sends with %d nonces for mix %d", sends, nonces, mix)
					}
				}
				t.Log("at most", most)
			})
		})
	}
}

// A request that can't be sent again gets its challenge back, readable, and leaves the new
// token to the next one; and one whose caller leaves doesn't end the fetch.
func TestChallengeToARequestThatCantBeReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMint()
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("user")}})
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, MaxReplayBody: -1, Base: m.scoped(nil)}
		post := func() *http.Response {
			req, err := http.NewRequest("POST", host+"/a", io.NopCloser(strings.NewReader("once")))
			require.NoError(t, err)
			resp, err := rt.RoundTrip(req)
			require.NoError(t, err)
			return resp
		}
		resp := post()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "403 answer", fmt.Sprint(resp.StatusCode, " ", string(body)))
		require.Equal(t, 200, post().StatusCode)

		gone := errors.New("gone")
		ctx, leave := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second/2, func() { leave(gone) })
		req, err := http.NewRequestWithContext(ctx, "GET", host+"/b", nil)
		require.NoError(t, err)
		_, err = rt.RoundTrip(req)
		require.ErrorIs(t, err, gone)
		time.Sleep(time.Second)
		require.Equal(t, 200, get(t, rt, host+"/b").StatusCode)
		require.Equal(t, 2, challenges(p, "user"))
	})
}

// The request's record, and the pipeline's, say what became of a challenge, and nothing of
// what was in it.
func TestChallengeIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { challengeIsLogged(t) })
}

func challengeIsLogged(t *testing.T) {
	logger, records := logged(t, slog.LevelInfo)
	own, events := logged(t, slog.LevelInfo)
	m := newMint()
	m.takes = 0
	m.fail = func(in rf.Input) error {
		if in.Challenge["acr_values"] != "" {
			return rf.ErrNeedsPerson
		}
		return nil
	}
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("user")}, Logger: own})
	scoped := m.scoped(nil)
	rt, err := rf.NewTransport(rf.Config{BaseURL: host, Source: p, Logger: logger, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.URL.Path == "/mfa" {
			return reply(req, 401, "WWW-Authenticate", `Bearer error="insufficient_user_authentication", acr_values="confidential"`), nil
		}
		return scoped(req)
	})})
	require.NoError(t, err)
	client := &http.Client{Transport: rt}
	for _, path := range []string{"/", "/confidential", "/mfa", "/mfa"} {
		resp, err := client.Get(path)
		require.NoError(t, err)
		resp.Body.Close()
	}
	var got []any
	for _, r := range records() {
		got = append(got, r["challenge"])
	}
	require.Equal(t, []any{nil, "answered",
		`not answered: requestforge: step "user": the login needs a person; next try in 1s`,
		`not answered: requestforge: step "user": the login needs a person; next try in 1s`}, got)
	asked := []any{}
	for _, r := range events() {
		if r["challenge"] != nil {
			asked = append(asked, r["challenge"])
		}
		require.NotContains(t, fmt.Sprint(r), "confidential")
	}
	require.Equal(t, []any{"scope", "acr_values"}, asked)
}

// keyStorage knows the key of the last Save.
type keyStorage struct {
	*rf.MemoryStorage
	saved string
}

func (s *keyStorage) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	s.saved = key
	return s.MemoryStorage.Save(ctx, key, r, seen)
}

// A record of what was asked for is stored with the token, and whatever else is in a storage
// is asked for by nobody.
func TestChallengeInAStoredRecordIsChecked(t *testing.T) {
	m := newMint()
	m.takes = 0
	store := &keyStorage{MemoryStorage: rf.NewMemoryStorage()}
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("user")}, Storage: store, KeyPrefix: "test"})
	rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: m.scoped(nil)}
	require.Equal(t, 200, get(t, rt, host+"/a").StatusCode)
	key := store.saved
	entries, err := store.Load(t.Context(), key)
	require.NoError(t, err)
	r := *entries[0].Record
	require.Equal(t, map[string]string{"scope": "a"}, r.Challenge)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", r, r, r), "scope")

	r.Challenge = map[string]string{"scope": "a \"b\" c", "max_age": "soon", "claims": "[]", "realm": "x"}
	_, err = store.Save(t.Context(), key, r, entries[0].Record.Stamp)
	require.NoError(t, err)
	q := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("user")}, Storage: store, KeyPrefix: "test"})
	_, err = q.Refresh(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"scope": "a c"}, maps.Clone(m.of("user-3")))
}

func TestChallengeMistakesAreErrorsOfTheConstructor(t *testing.T) {
	_, err := rf.NewPipeline(rf.PipelineConfig{Subject: userOf, Steps: []rf.Step{
		{Name: "given", Given: givenOf, AnswersChallenges: true},
		{Name: "user", DependsOn: []string{"given"}, Fetcher: rf.FetcherFunc(nil)},
	}})
	require.ErrorContains(t, err, `step "given" has both Given and AnswersChallenges`)
}

// all are the fetches of each step that there were.
func (m *mint) all() map[string]int {
	m.login.mu.Lock()
	defer m.login.mu.Unlock()
	return maps.Clone(m.login.count)
}
