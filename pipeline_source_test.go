// Any step's token as a source of its own, and pipelines with several leaves.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// fork is root -> app -> user, and root -> audit: two leaves, and ancestors that they
// share and don't.
func (l *login) fork() []rf.Step {
	return []rf.Step{l.step("root"), l.step("app", "root"), l.step("user", "app"), l.step("audit", "root")}
}

func tokenOf(t testing.TB, src rf.TokenSource) string {
	t.Helper()
	tok, err := src.Token(t.Context())
	require.NoError(t, err)
	return tok.AccessToken
}

// refuse has a source's current token refused, and returns what the next one costs.
func (l *login) refuse(t testing.TB, src rf.TokenSource) string {
	t.Helper()
	before := l.counts()
	tok, err := src.Token(t.Context())
	require.NoError(t, err)
	require.NoError(t, src.Invalidate(t.Context(), tok))
	tokenOf(t, src)
	var fetched []string
	for _, name := range []string{"root", "app", "user", "audit"} {
		for range l.counts()[name] - before[name] {
			fetched = append(fetched, name)
		}
	}
	return strings.Join(fetched, " ")
}

func (l *login) counts() map[string]int {
	all := map[string]int{}
	for _, name := range []string{"root", "app", "user", "audit"} {
		all[name] = l.fetches(name)
	}
	return all
}

func TestSourceServesEveryStepAndSharesItsFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.fork()})
		var wg sync.WaitGroup
		for _, name := range []string{"user", "audit", "app", "root"} {
			for range 100 {
				wg.Go(func() { require.Equal(t, name+"-1", tokenOf(t, p.Source(name))) })
			}
		}
		wg.Wait()
		require.Equal(t, map[string]int{"root": 1, "app": 1, "user": 1, "audit": 1}, l.counts())
		require.Equal(t, p.Source("app"), p.Source("app"))
		require.Equal(t, `Source("app")`, fmt.Sprintf("%+v", p.Source("app")))
	})
}

// A name that is no step's is found where a transport is made, else with the first token.
func TestSourceOfNoStepSaysSo(t *testing.T) {
	l := newLogin()
	p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
	for name, c := range map[string]struct {
		src  rf.TokenSource
		want string
	}{
		"a typing mistake": {p.Source("usr"), `"usr" is no step of the pipeline; its steps are "device", "app", "user"`},
		"no name":          {p.Source(""), `"" is no step`},
		"no pipeline":      {new(rf.Pipeline).Source("user"), "not made by NewPipeline"},
		"a zero pipeline":  {new(rf.Pipeline), "not made by NewPipeline"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, whole := c.src.(*rf.Pipeline); !whole {
				tok, err := c.src.Token(t.Context())
				require.Nil(t, tok)
				require.ErrorContains(t, err, c.want)
				require.NoError(t, c.src.Invalidate(t.Context(), &rf.Token{AccessToken: "x"}))
				err = rf.Use(t.Context(), c.src, func(context.Context, *rf.Token) error { t.Error("called"); return nil })
				require.ErrorContains(t, err, c.want)
			}
			requireUnusable(t, c.src, c.want)
		})
	}
}

// requireUnusable checks that no transport is made of src, nor sends anything.
func requireUnusable(t *testing.T, src rf.TokenSource, want string) {
	t.Helper()
	_, err := rf.NewTransport(rf.Config{BaseURL: host, Source: src})
	require.ErrorContains(t, err, want)
	require.ErrorContains(t, err, "Config.Source: ")
	rt := &rf.AuthTransport{Source: src, Origins: []string{host}, Base: roundTrip(func(*http.Request) (*http.Response, error) {
		t.Error("sent")
		return nil, nil
	})}
	req, err := http.NewRequestWithContext(t.Context(), "GET", host, nil)
	require.NoError(t, err)
	require.Equal(t, rf.ReasonConfig, rt.Explain(req).Reason)
	_, err = rt.RoundTrip(req)
	require.ErrorContains(t, err, want)
	require.ErrorContains(t, err, "requestforge: AuthTransport: Source: ")
}

func TestPipelineWithSeveralLeavesNeedsALeaf(t *testing.T) {
	l := newLogin()
	l.takes = 0
	p := pipeline(t, rf.PipelineConfig{Steps: l.fork()})
	const want = `2 steps that are nobody's parents, "audit" and "user": name the one to use in PipelineConfig.Leaf, or take Pipeline.Source of one`
	for name, f := range map[string]func(context.Context) (*rf.Token, error){"Token": p.Token, "Refresh": p.Refresh} {
		tok, err := f(t.Context())
		require.Nil(t, tok, name)
		for _, part := range strings.Split(want, `"audit" and "user"`) {
			require.ErrorContains(t, err, part, name)
		}
	}
	requireUnusable(t, p, "nobody's parents")
	require.NoError(t, p.Invalidate(t.Context(), &rf.Token{AccessToken: "x"}))
	require.NoError(t, p.Invalidate(t.Context(), nil))
	require.Equal(t, map[string]int{"root": 0, "app": 0, "user": 0, "audit": 0}, l.counts())

	require.Equal(t, "user-1", tokenOf(t, p.Source("user")))
	require.Equal(t, "audit-1", tokenOf(t, p.Source("audit")))
	require.NoError(t, p.Invalidate(t.Context(), must(p.Source("audit").Token(t.Context()))), "whose it is, is known")
	require.Equal(t, "audit-2", tokenOf(t, p.Source("audit")))

	for _, leaf := range []string{"user", "audit", "app"} {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.fork(), Leaf: leaf})
		_, err := rf.NewTransport(rf.Config{BaseURL: host, Source: p})
		require.NoError(t, err)
		require.Equal(t, leaf+"-1", mustToken(t, p).AccessToken)
		tok, err := p.Refresh(t.Context())
		require.NoError(t, err)
		require.Equal(t, leaf+"-2", tok.AccessToken)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The ladder begins at the step whose token was refused. One step's refusals and
// acceptances don't count for another.
func TestSourceLadderIsItsSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.fork()})
		user, app, audit := p.Source("user"), p.Source("app"), p.Source("audit")
		require.Equal(t, "root app user user", l.refuse(t, user))
		require.Equal(t, "audit audit", l.refuse(t, audit), "the first of audit's")
		require.Equal(t, "app user", l.refuse(t, user))
		require.NoError(t, rf.Use(t.Context(), audit, func(context.Context, *rf.Token) error { return nil }))
		require.Equal(t, "root app user", l.refuse(t, user), "what audit's server accepts says nothing of user's")
		require.Equal(t, "audit audit", l.refuse(t, audit), "accepted; and dead with root")
		time.Sleep(time.Minute)
		require.Equal(t, "app", l.refuse(t, app), "the step itself first")
		require.Equal(t, "root app", l.refuse(t, app))
	})
}

// That an auth server takes a step's token, with the fetch of another step, says nothing of
// the API that refuses the same token: the blame climbs, and a young token is waited for.
func TestSourceTokenThatServesAsAParentIsNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.fork()})
		app, user := p.Source("app"), p.Source("user")
		call := func() int { // with a user's token beside, made from the app's
			rt := &rf.AuthTransport{Source: app, Origins: []string{host}, Base: api(func(tok string) bool {
				tokenOf(t, user)
				return tok == fmt.Sprintf("app-%d", l.fetches("app")) && l.fetches("root") > 1
			})}
			return get(t, rt, host).StatusCode
		}
		tokenOf(t, user)
		time.Sleep(time.Minute)
		require.Equal(t, 401, call(), "the second app token is no better")
		require.Equal(t, 200, call(), "root's was to blame")
		require.Equal(t, 2, l.fetches("root"))
	})
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.fork()})
		tokenOf(t, p.Source("user"))
		begun := time.Now()
		rt := &rf.AuthTransport{Source: p.Source("app"), Origins: []string{host}, Base: api(func(string) bool { return time.Since(begun) > time.Second/2 })}
		require.Equal(t, 200, get(t, rt, host).StatusCode)
		require.Equal(t, 1, l.fetches("app"))
	})
}

// Too many refusals of one step's tokens leave those of others alone.
func TestSourceRefusalsAreBoundedByStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user"), l.step("audit")}})
		for range 3 {
			require.Equal(t, "user", strings.Fields(l.refuse(t, p.Source("user")))[0])
		}
		require.Empty(t, l.refuse(t, p.Source("user")), "one too many")
		require.EqualValues(t, 1, p.Stats().RefusalsIgnored)
		require.Equal(t, "audit audit", l.refuse(t, p.Source("audit")))
		require.EqualValues(t, 1, p.Stats().RefusalsIgnored)
	})
}

// RefreshFrom takes the blame for what was made from it, and for nothing else.
func TestSourceRefreshFromIsBlamedForItsDescendants(t *testing.T) {
	for from, want := range map[string]string{
		"":      "user user, audit audit, app",
		"app":   "app app user user, audit audit, app",
		"root":  "root app app user user, root audit audit, root app app",
		"audit": "user user, audit audit, app",
	} {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.fork(), RefreshFrom: from})
		tokenOf(t, p.Source("root"))
		if from == "" || from == "audit" {
			tokenOf(t, p.Source("app"))
		}
		got := []string{l.refuse(t, p.Source("user")), l.refuse(t, p.Source("audit")), l.refuse(t, p.Source("app"))}
		require.Equal(t, want, strings.Join(got, ", "), from)
	}
}

// Two credentials on one request, of two steps of one pipeline. Each layer replays by its
// own schedule, the inner one is blamed first, and whichever was revoked is replaced.
func TestSourceTwoLayersOverOnePipeline(t *testing.T) {
	for name, c := range map[string]struct {
		outer, inner string
		revoke       []string
		checked      bool   // the auth server looks at the parent's token
		most         string // fetches
	}{
		"nothing":                          {"app", "user", nil, true, "map[app:1 audit:0 root:1 user:1]"},
		"the inner one":                    {"app", "user", []string{"user"}, true, "map[app:1 audit:0 root:1 user:2]"},
		"the outer one, its parent":        {"app", "user", []string{"app"}, true, "map[app:2 audit:0 root:1 user:2]"},
		"the outer one, not looked at":     {"app", "user", []string{"app"}, false, "map[app:2 audit:0 root:1 user:3]"},
		"both":                             {"app", "user", []string{"app", "user"}, true, "map[app:2 audit:0 root:1 user:2]"},
		"the inner one, the outer's child": {"user", "app", []string{"app"}, true, "map[app:2 audit:0 root:1 user:1]"},
		"the outer one, its child":         {"user", "app", []string{"user"}, true, "map[app:2 audit:0 root:1 user:2]"},
		"siblings, the inner one":          {"user", "audit", []string{"audit"}, true, "map[app:1 audit:2 root:1 user:1]"},
		"siblings, the outer one":          {"user", "audit", []string{"user"}, true, "map[app:1 audit:2 root:1 user:2]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLogin()
				l.takes = 0
				live := map[string]string{}
				var mu sync.Mutex
				steps := l.fork()
				for i, s := range steps {
					next := s.Fetcher
					steps[i].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
						mu.Lock()
						defer mu.Unlock()
						for parent, tok := range in.Parents {
							if c.checked && live[parent] != tok.AccessToken {
								return nil, &rf.AuthError{StatusCode: 401, Code: "invalid_token", Err: errors.New("refused")}
							}
						}
						tok, err := next.Fetch(ctx, in)
						if err == nil {
							live[s.Name] = tok.AccessToken
						}
						return tok, err
					})
				}
				p := pipeline(t, rf.PipelineConfig{Steps: steps})
				base := roundTrip(func(req *http.Request) (*http.Response, error) {
					mu.Lock()
					defer mu.Unlock()
					if req.Header.Get("X-Outer") == live[c.outer] && req.Header.Get("X-Inner") == live[c.inner] {
						return reply(req, 200), nil
					}
					return reply(req, 401), nil
				})
				inner := &rf.AuthTransport{Base: base, Attach: []rf.Place{{Header: "X-Inner"}}, Source: p.Source(c.inner), Origins: []string{host}}
				outer := &rf.AuthTransport{Base: inner, Attach: []rf.Place{{Header: "X-Outer"}}, Source: p.Source(c.outer), Origins: []string{host}}
				require.Equal(t, 200, get(t, outer, host).StatusCode)
				time.Sleep(time.Minute)
				mu.Lock()
				for _, name := range c.revoke {
					live[name] = "revoked"
				}
				mu.Unlock()
				require.Equal(t, 200, get(t, outer, host).StatusCode)
				require.Equal(t, c.most, fmt.Sprint(l.counts()))
			})
		})
	}
}

// A source is kept fresh while it is used, and nobody waits for that. One that isn't
// used costs nothing, though another leaf of the pipeline is.
func TestSourceIsRenewedAheadWhileItIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		for _, name := range []string{"app", "user", "audit"} {
			l.life[name] = time.Hour
		}
		p := pipeline(t, rf.PipelineConfig{Steps: l.fork()})
		for _, name := range []string{"audit", "user", "app"} {
			tokenOf(t, p.Source(name))
		}
		audit := p.Source("audit")
		for range 10 * 60 {
			time.Sleep(time.Minute)
			begun := time.Now()
			tokenOf(t, audit)
			require.Zero(t, time.Since(begun), "nobody waits")
		}
		synctest.Wait()
		require.Equal(t, 1, l.fetches("user"))
		require.Equal(t, 1, l.fetches("app"))
		require.InDelta(t, 11, l.fetches("audit"), 1)
		require.EqualValues(t, l.fetches("audit")-1, p.Stats().Steps["audit"].RefreshAhead)

		// A step that is another's parent, too, and was renewed for its own sake.
		app := p.Source("app")
		tokenOf(t, app)
		for range 2 * 60 {
			time.Sleep(time.Minute)
			tokenOf(t, app)
		}
		require.EqualValues(t, 2, p.Stats().Steps["app"].RefreshAhead)
		require.Equal(t, 1, l.fetches("user"))
	})
}

// A token of a source is handed out to the skew before its expiry, and not at it.
func TestSourceTokenIsHandedOutToTheSkewAndNotAtIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		l.life["app"] = time.Hour
		p := pipeline(t, rf.PipelineConfig{Steps: l.fork(), RefreshAhead: -1})
		tokenOf(t, p.Source("app"))
		time.Sleep(time.Hour - 10*time.Second - 1)
		require.Equal(t, "app-1", tokenOf(t, p.Source("app")))
		time.Sleep(time.Nanosecond)
		require.Equal(t, "app-2", tokenOf(t, p.Source("app")))
	})
}

// What another process revokes is seen within 30 s for every source in use, not only
// for a leaf, and also if the source was made after its token had come.
func TestSourceSeesWhatOtherProcessesRevoke(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLogin()
			l.takes = 0
			l.life["user"] = time.Minute
			storage := rf.NewMemoryStorage()
			cfg := rf.PipelineConfig{Steps: l.fork(), Storage: storage, RefreshAhead: -1}
			p, peer := pipeline(t, cfg), pipeline(t, cfg)
			tokenOf(t, p.Source("user"))
			if late {
				time.Sleep(time.Hour) // what user needed is over
			}
			app := p.Source("app")
			require.Equal(t, "app-1", tokenOf(t, app))
			require.NoError(t, peer.InvalidateStep(t.Context(), "app"))
			time.Sleep(30 * time.Second)
			require.Equal(t, "app-2", tokenOf(t, app))

			require.NoError(t, peer.Forget(t.Context()))
			time.Sleep(30 * time.Second)
			require.Equal(t, "app-3", tokenOf(t, app))
			require.Equal(t, 2, l.fetches("root"), "all is forgotten")
		})
	}
}

// Forget leaves no source its token.
func TestSourceForgetsWithThePipeline(t *testing.T) {
	l := newLogin()
	l.takes = 0
	p := pipeline(t, rf.PipelineConfig{Steps: l.fork()})
	for _, name := range []string{"root", "app", "user", "audit"} {
		tokenOf(t, p.Source(name))
	}
	require.NoError(t, p.Forget(t.Context()))
	for _, s := range p.State(t.Context()).Steps {
		require.Equal(t, rf.StatusNone, s.Status, s.Name)
	}
	for _, name := range []string{"audit", "user", "app", "root"} {
		require.Equal(t, name+"-2", tokenOf(t, p.Source(name)))
	}
}

// The record of a step that is somebody's parent has no end of its own, whatever Leaf
// says; that of each leaf has one.
func TestSourceRecordsOfEachLeafEnd(t *testing.T) {
	l := newLogin()
	l.takes = 0
	storage := &seen{Storage: rf.NewMemoryStorage(), keep: map[string]time.Duration{}}
	p := pipeline(t, rf.PipelineConfig{Steps: identified(l.fork()), Storage: storage, KeyPrefix: "test", Leaf: "app"})
	for _, name := range []string{"root", "app", "user", "audit"} {
		tokenOf(t, p.Source(name))
		require.Equal(t, name == "user" || name == "audit", storage.keep[name+"-1"] > 0, name)
	}
}

// seen notes how long records are to be kept.
type seen struct {
	rf.Storage
	keep map[string]time.Duration
}

func (s *seen) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	s.keep[r.Token.AccessToken] = r.Keep
	return s.Storage.Save(ctx, key, r, seen)
}

// A fetcher may send what it sends through the source of a step that its own depends on,
// also if that step's token is gone by then. Any other step of the pipeline could wait
// for the fetcher, and is an error at once.
func TestSourceOfAnAncestorServesAFetcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		var p *rf.Pipeline
		asked, revoked := "", false
		steps := l.fork()
		steps[2].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			if !revoked {
				revoked = true
				if err := p.InvalidateStep(ctx, "root"); err != nil {
					return nil, err
				}
			}
			tok, err := p.Source(asked).Token(ctx)
			if err != nil {
				return nil, err
			}
			return &rf.Token{AccessToken: "with " + tok.AccessToken}, nil
		})
		for want, names := range map[bool][]string{true: {"app", "root"}, false: {"audit", "user"}} {
			for _, asked = range names {
				p, revoked = pipeline(t, rf.PipelineConfig{Steps: steps}), false
				tok, err := p.Source("user").Token(t.Context())
				if want {
					require.NoError(t, err)
					require.Equal(t, fmt.Sprintf("with %s-%d", asked, l.fetches(asked)), tok.AccessToken)
				} else {
					require.ErrorContains(t, err, "would wait for itself")
				}
			}
		}
	})
}

// A refused token that is no token of the pipeline is compared with the source's own.
func TestSourceKnowsItsTokenByValue(t *testing.T) {
	l := newLogin()
	l.takes = 0
	p := pipeline(t, rf.PipelineConfig{Steps: l.fork()})
	app, user := p.Source("app"), p.Source("user")
	tokenOf(t, user)
	require.NoError(t, user.Invalidate(t.Context(), &rf.Token{AccessToken: "app-1"}))
	require.Equal(t, "app-1", tokenOf(t, app), "not user's")
	require.NoError(t, app.Invalidate(t.Context(), &rf.Token{AccessToken: "app-1"}))
	require.Equal(t, "app-2", tokenOf(t, app))
	require.Equal(t, "user-2", tokenOf(t, user), "made from the old one")
}

// Several credentials on each request, of steps that may be made from each other, and in any
// order: whichever is revoked, every one of many requests at once is served, and the root of
// them all has no blame.
func TestSourceManyLayersServeEveryRequestWhicheverIsRevoked(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{ // the inner one first
		{"app", "user"}, {"user", "app"}, {"user", "audit"}, {"audit", "app"},
		{"app", "user", "audit"}, {"audit", "user", "app"}, {"user", "app", "audit"},
	} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLogin()
				l.takes = 50 * time.Millisecond
				var mu sync.Mutex
				live := map[string]string{}
				p := pipeline(t, rf.PipelineConfig{Steps: l.checked(&mu, live)})
				var rt http.RoundTripper = roundTrip(func(req *http.Request) (*http.Response, error) {
					mu.Lock()
					defer mu.Unlock()
					for _, name := range order {
						if req.Header.Get("X-"+name) != live[name] {
							return reply(req, 401), nil
						}
					}
					return reply(req, 200), nil
				})
				for _, name := range order {
					rt = &rf.AuthTransport{Base: rt, Attach: []rf.Place{{Header: "X-" + name}}, Source: p.Source(name), Origins: []string{host}}
				}
				for round := range 30 {
					mu.Lock()
					live[order[round%len(order)]] = "revoked"
					mu.Unlock()
					var wg sync.WaitGroup
					var served atomic.Int32
					for range 50 {
						wg.Go(func() {
							if get(t, rt, host).StatusCode == 200 {
								served.Add(1)
							}
						})
					}
					wg.Wait()
					require.EqualValues(t, 50, served.Load(), round)
					time.Sleep(20 * time.Second)
				}
				require.Equal(t, 1, l.fetches("root"))
			})
		})
	}
}

// checked is fork, with auth servers that take only the live tokens of parents.
func (l *login) checked(mu *sync.Mutex, live map[string]string) []rf.Step {
	steps := l.fork()
	for i, s := range steps {
		next := s.Fetcher
		steps[i].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			tok, err := next.Fetch(ctx, in)
			mu.Lock()
			defer mu.Unlock()
			for parent, tok := range in.Parents {
				if live[parent] != tok.AccessToken {
					return nil, &rf.AuthError{StatusCode: 401, Code: "invalid_token", Err: errors.New("refused")}
				}
			}
			if err == nil {
				live[s.Name] = tok.AccessToken
			}
			return tok, err
		})
	}
	return steps
}
