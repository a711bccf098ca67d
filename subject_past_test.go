// What outlives a subject that is dropped from memory: the trouble it was in.

package requestforge_test

import (
	"context"
	"fmt"
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

func bearer(req *http.Request) string {
	return strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
}

// A late refusal of a dropped subject's old token takes the shared token from nobody.
func TestLateRefusalOfADroppedSubjectHarmsNobody(t *testing.T) {
	for _, drop := range []bool{false, true} {
		t.Run(fmt.Sprint("dropped: ", drop), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o office
				p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 4, Steps: []rf.Step{
					{Name: "app", Fetcher: o.fetch("app")},
					{Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: o.fetch("user")},
				}})
				ann, zoe, late := as(t.Context(), "ann"), as(t.Context(), "zoe"), make(chan struct{})
				first, zoes := tokenAs(t, p, ann), tokenAs(t, p, zoe)
				rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					switch {
					case req.URL.Path == "/slow" && rf.SendNumber(req.Context()) <= 1:
						<-late
						return reply(req, 401), nil
					case bearer(req) == first:
						return reply(req, 401), nil
					}
					return reply(req, 200), nil
				})}
				time.Sleep(time.Minute) // no token is young
				req, _ := http.NewRequestWithContext(ann, "POST", host+"/", struct{ *strings.Reader }{strings.NewReader("x")})
				once := &rf.AuthTransport{Source: p, Origins: []string{host}, MaxReplayBody: -1, Base: rt.Base}
				resp, err := once.RoundTrip(req) // ann's first token is refused; no replay is possible
				require.NoError(t, err)
				require.Equal(t, 401, resp.StatusCode)
				status := make(chan int, 1)
				go func() { status <- getAs(t, &http.Client{Transport: rt}, "ann", "/slow") }() // with her second token
				synctest.Wait()
				if drop {
					for i := range 500 { // others come; zoe is in use
						tokenAs(t, p, as(t.Context(), fmt.Sprint("u", i)))
						tokenAs(t, p, zoe)
					}
				} else {
					require.NoError(t, p.InvalidateStep(ann, "user"))
				}
				require.Equal(t, 200, getAs(t, &http.Client{Transport: rt}, "ann", "/")) // with her third token, made from app-1
				time.Sleep(time.Minute)
				close(late)
				require.Equal(t, 200, <-status)
				require.Equal(t, zoes, tokenAs(t, p, zoe), "zoe had nothing to do with it")
				require.Equal(t, 1, o.fetches("app"))
			})
		})
	}
}

// A subject whom the auth server refuses costs the shared step little, also if it is dropped
// between its requests.
func TestRefusedByTheAuthServerAndDroppedCostsLittle(t *testing.T) {
	for _, most := range []int{0, 1} { // 0 holds
		for name, storage := range map[string]rf.Storage{"own": nil, "another": rf.NewMemoryStorage()} {
			t.Run(fmt.Sprint(most, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var o office
					o.refuse = func(step, subject string, _ rf.Input) error {
						if step == "user" && subject == "eve" {
							return &rf.AuthError{StatusCode: 401}
						}
						return nil
					}
					cfg := o.chain()
					cfg.MaxSubjects, cfg.Storage = most, storage
					p := pipeline(t, cfg)
					for i := range 300 { // 50 minutes, less than a token's life
						tokenAs(t, p, as(t.Context(), fmt.Sprint(i))) // others come
						time.Sleep(time.Millisecond)
						_, err := p.Token(as(t.Context(), "eve"))
						require.Error(t, err)
						time.Sleep(10 * time.Second)
					}
					require.LessOrEqual(t, o.fetches("app"), 12)
				})
			})
		}
	}
}

// The bound of functions left behind is a subject's, however often that is dropped.
func TestDeafFetcherOfADroppedSubjectIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 1, FetchTimeout: time.Second, FetchRetries: -1, Steps: []rf.Step{
			{Name: "user", PerSubject: true, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
				if in.Subject == "ann" {
					time.Sleep(10 * time.Hour)
				}
				return &rf.Token{AccessToken: "of-" + in.Subject}, nil
			})}}})
		defer time.Sleep(11 * time.Hour)
		for i := range 300 {
			_, err := p.Token(as(t.Context(), "ann"))
			require.Error(t, err)
			_, err = p.Token(as(t.Context(), fmt.Sprint("bob", i)))
			require.NoError(t, err, "bob, after %d calls of ann's", i+1)
			time.Sleep(time.Minute)
		}
	})
}

func TestDeafHookOfADroppedSubjectIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		o.refuse = func(_, subject string, _ rf.Input) error {
			if subject == "ann" {
				return &rf.AuthError{StatusCode: 400}
			}
			return nil
		}
		p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 1, FetchTimeout: time.Second, FetchRetries: -1, Steps: []rf.Step{
			{Name: "user", PerSubject: true, Fetcher: o.fetch("user"), OnError: func(context.Context, error) { time.Sleep(100 * time.Hour) },
				Revoke: func(context.Context, rf.Input) error { return nil }}}})
		defer time.Sleep(110 * time.Hour)
		for i := range 300 {
			_, err := p.Token(as(t.Context(), "ann"))
			require.Error(t, err)
			bob := as(t.Context(), fmt.Sprint("bob", i))
			tokenAs(t, p, bob)
			require.NoError(t, p.Logout(bob), "bob's logout, after %d calls of ann's", i+1)
			time.Sleep(time.Minute)
		}
	})
}

func TestDeafGivenOfADroppedSubjectIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hanging atomic.Int32
		var o office
		p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 1, FetchTimeout: time.Second, FetchRetries: -1, Steps: []rf.Step{
			{Name: "given", Given: func(ctx context.Context) (*rf.Token, error) {
				if u, _ := userOf(ctx); u == "ann" {
					hanging.Add(1)
					defer hanging.Add(-1)
					time.Sleep(100 * time.Hour)
				}
				return &rf.Token{AccessToken: "g"}, nil
			}},
			{Name: "user", DependsOn: []string{"given"}, Fetcher: o.fetch("user")}}})
		defer time.Sleep(110 * time.Hour)
		for i := range 1000 {
			_, err := p.Token(as(t.Context(), "ann"))
			require.Error(t, err)
			tokenAs(t, p, as(t.Context(), fmt.Sprint("bob", i)))
			time.Sleep(time.Minute)
		}
		require.LessOrEqual(t, int(hanging.Load()), 16, "goroutines left behind")
	})
}

// Demands of challenges add up for a subject that is dropped under its request.
func TestChallengesOfADroppedSubjectAddUp(t *testing.T) {
	for _, drop := range []bool{false, true} {
		t.Run(fmt.Sprint("dropped: ", drop), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMint()
				m.takes = 0
				user := m.step("user")
				user.PerSubject = true
				p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 1, Steps: []rf.Step{m.login.step("app"), user}})
				rt := &rf.AuthTransport{Source: p.Source("user"), Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					if drop && req.URL.Path == "/a-b" { // others come while ann's request is under way
						tokenAs(t, p.Source("user"), as(t.Context(), "bob"))
					}
					for _, s := range strings.Split(req.URL.Path[1:], "-") {
						if !m.has(bearer(req), "scope", s) {
							return reply(req, 403, "WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+s+`"`), nil
						}
					}
					return reply(req, 200), nil
				})}
				require.Equal(t, 200, getAs(t, &http.Client{Transport: rt}, "ann", "/a"))
				require.Equal(t, 200, getAs(t, &http.Client{Transport: rt}, "ann", "/a-b"))
			})
		})
	}
}

// The same within one request.
func TestChallengesWithinARequestAddUpForADroppedSubject(t *testing.T) {
	for name, storage := range map[string]rf.Storage{"own": nil, "another": rf.NewMemoryStorage()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMint()
				m.takes = 0
				user := m.step("user")
				user.PerSubject = true
				p := overcrowded(t, rf.PipelineConfig{Subject: userOf, Storage: storage, Steps: []rf.Step{m.login.step("app"), user}})
				rt := &rf.AuthTransport{Source: p.Source("user"), Origins: []string{host}, Retry: rf.SimpleAuthRetry(6, 0), Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					for _, s := range []string{"a", "b"} {
						if !m.has(bearer(req), "scope", s) {
							return reply(req, 403, "WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+s+`"`), nil
						}
					}
					return reply(req, 200), nil
				})}
				require.Equal(t, 200, getAs(t, &http.Client{Transport: rt}, "ann", "/x"))
			})
		})
	}
}

// Neither refused users who never come again nor the number of users close the way to a shared
// token that the API takes.
func TestSharedTokenIsReplacedHoweverManyComeInTurn(t *testing.T) {
	for _, c := range []struct{ max, users, bads, rounds int }{{10, 40, 0, 12}, {10, 40, 2, 12}, {1, 150, 0, 6}, {4, 500, 0, 6}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o office
				cfg := o.chain()
				cfg.MaxSubjects = c.max
				p := pipeline(t, cfg)
				var ended atomic.Bool
				client := &http.Client{Transport: &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					if a := bearer(req); strings.Contains(a, "bad") || ended.Load() && strings.HasSuffix(a, "<app-1") {
						return reply(req, 401), nil
					}
					return reply(req, 200), nil
				})}}
				for i := range c.bads {
					getAs(t, client, fmt.Sprint("bad", i), "/")
				}
				refused, last := 0, 0
				for round := range c.rounds {
					ended.Store(round > 0)
					last = 0
					for i := range c.users {
						if getAs(t, client, fmt.Sprint("user", i), "/") != 200 {
							refused++
							last++
						}
						time.Sleep(200 * time.Millisecond)
					}
				}
				require.Zero(t, last, "refused in the last round; %d in all; %d fetches of app", refused, o.fetches("app"))
			})
		})
	}
}

// A logout ends what waits for RevokeReplaced, though others came meanwhile.
func TestLogoutOfADroppedSubjectEndsWhatWaits(t *testing.T) {
	for name, c := range map[string]struct {
		storage rf.Storage
		want    []string
	}{"another": {rf.NewMemoryStorage(), []string{"user ann-1", "user ann-2"}}, "own": {nil, []string{"user ann-1", "user ann-2"}}} {
		for _, drop := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", dropped: ", drop), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var o office
					var mu sync.Mutex
					var revoked []string
					p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 1, Storage: c.storage, RevokeReplaced: time.Hour, Steps: []rf.Step{
						{Name: "user", Identity: "u", PerSubject: true, Fetcher: o.fetch("user"), Revoke: func(_ context.Context, in rf.Input) error {
							mu.Lock()
							defer mu.Unlock()
							revoked = append(revoked, in.Previous.AccessToken)
							return nil
						}}}})
					ann := as(t.Context(), "ann")
					tokenAs(t, p, ann)
					_, err := p.Refresh(ann) // a login from scratch
					require.NoError(t, err)
					if drop {
						tokenAs(t, p, as(t.Context(), "bob"))
					}
					require.NoError(t, p.Logout(ann))
					require.NoError(t, p.Close())
					time.Sleep(2 * time.Hour)
					mu.Lock()
					defer mu.Unlock()
					require.ElementsMatch(t, c.want, revoked)
				})
			})
		}
	}
}

// A revocation of a replaced token leaves nothing in the pipeline's own storage.
func TestRevocationOfTheReplacedLeavesNothingBehind(t *testing.T) {
	for _, revoke := range []time.Duration{0, 2 * time.Hour} { // 0 holds
		t.Run(revoke.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				heap := func() int {
					runtime.GC()
					runtime.GC()
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					return int(m.HeapAlloc / 1000)
				}
				var n atomic.Int64
				long := strings.Repeat("x", 2000)
				p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 10, RevokeReplaced: revoke, Steps: []rf.Step{
					{Name: "user", PerSubject: true, IdleLimit: time.Hour, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
						return &rf.Token{AccessToken: long + in.Subject}, nil
					})},
					{Name: "backend", DependsOn: []string{"user"}, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
						return &rf.Token{AccessToken: fmt.Sprint(in.Subject, n.Add(1))}, nil
					}), Revoke: func(context.Context, rf.Input) error { return nil }}}})
				before := heap()
				for round := range 3 {
					for i := range 1000 {
						ctx := as(t.Context(), fmt.Sprint(round, " ", i))
						tokenAs(t, p, ctx)
						require.NoError(t, p.InvalidateStep(ctx, "backend"))
						tokenAs(t, p, ctx)
					}
					time.Sleep(3 * time.Hour)
				}
				require.Less(t, heap()-before, 1000, "KB")
			})
		})
	}
}

// Subjects of another pipeline that a fetch for a challenge invalidates stay no longer than
// the request.
func TestInvalidateInAnAnswerPinsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		inner := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 2, Steps: []rf.Step{{Name: "in", PerSubject: true, Fetcher: o.fetch("in")}}})
		var scopes sync.Map
		outer := pipeline(t, rf.PipelineConfig{Subject: userOf, Steps: []rf.Step{{Name: "user", PerSubject: true, AnswersChallenges: true, Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			tok, err := inner.Token(ctx)
			if err == nil && in.Challenge != nil {
				_ = inner.Invalidate(ctx, tok)
				tok, err = inner.Token(ctx)
			}
			if err != nil {
				return nil, err
			}
			scopes.Store("user<"+tok.AccessToken, in.Challenge["scope"])
			return &rf.Token{AccessToken: "user<" + tok.AccessToken}, nil
		})}}})
		rt := &rf.AuthTransport{Source: outer, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			if s, _ := scopes.Load(bearer(req)); s != "a" {
				return reply(req, 403, "WWW-Authenticate", `Bearer error="insufficient_scope", scope="a"`), nil
			}
			return reply(req, 200), nil
		})}
		for i := range 50 {
			require.Equal(t, 200, getAs(t, &http.Client{Transport: rt}, fmt.Sprint("u", i), "/"))
		}
		for i := range 1000 {
			tokenAs(t, inner, as(t.Context(), fmt.Sprint("v", i)))
		}
		require.LessOrEqual(t, inner.Stats().Subjects, uint64(2))
	})
}

// A token that was replaced, before its subject was dropped, and is refused late costs nothing.
func TestLateRefusalOfAReplacedTokenOfADroppedSubjectCostsNothing(t *testing.T) {
	for _, drop := range []bool{false, true} {
		t.Run(fmt.Sprint("dropped: ", drop), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o office
				cfg := o.chain()
				cfg.MaxSubjects, cfg.Storage = 1, rf.NewMemoryStorage()
				p := pipeline(t, cfg)
				ann := as(t.Context(), "ann")
				others := func() {
					if drop {
						tokenAs(t, p, as(t.Context(), "bob"))
					}
				}
				old, err := p.Token(ann)
				require.NoError(t, err)
				others()
				require.NoError(t, p.InvalidateStep(ann, "backend"))
				tokenAs(t, p, ann)
				others()
				require.NoError(t, p.Invalidate(ann, old)) // replaced long ago
				now, err := p.Token(ann)
				require.NoError(t, err)
				require.NoError(t, p.Invalidate(ann, now)) // the first refusal of a row
				tokenAs(t, p, ann)
				require.Equal(t, 1, o.fetches("user ann"), "the first refusal blames the token alone")
			})
		})
	}
}

// A refused user takes nobody's place.
func TestSubjectsInUseStayBesideARefusedOne(t *testing.T) {
	for _, eve := range []bool{false, true} {
		for _, most := range []int{2, 8} {
			t.Run(fmt.Sprint(most, ", refused user: ", eve), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var o office
					cfg := o.chain()
					cfg.MaxSubjects = most
					client := &http.Client{Transport: &rf.AuthTransport{Source: pipeline(t, cfg), Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
						if strings.Contains(bearer(req), "eve") {
							return reply(req, 401), nil
						}
						return reply(req, 200), nil
					})}}
					if eve {
						getAs(t, client, "eve", "/") // once
					}
					for i := range 30 {
						for j := range most - 1 {
							require.Equal(t, 200, getAs(t, client, fmt.Sprint("regular", j), "/"))
						}
						getAs(t, client, fmt.Sprint("new", i), "/")
					}
					require.Equal(t, 1, o.fetches("backend regular0"))
				})
			})
		}
	}
}

// A SubjectLabel that ends its goroutine keeps nobody in memory.
func TestSubjectLabelThatExitsPinsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 2, SubjectLabel: func(s string) string {
			if strings.HasPrefix(s, "bad") {
				runtime.Goexit()
			}
			return ""
		}, Steps: []rf.Step{{Name: "user", PerSubject: true, Fetcher: o.fetch("user")}}})
		for i := range 50 {
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = p.Token(as(t.Context(), fmt.Sprint("bad", i))) })
			wg.Wait()
		}
		for i := range 500 {
			tokenAs(t, p, as(t.Context(), fmt.Sprint("v", i)))
		}
		require.LessOrEqual(t, p.Stats().Subjects, uint64(2))
	})
}

// Revoke spares the current token where a server gives a token again.
func TestRevokeSparesTheCurrentTokenOfADroppedSubject(t *testing.T) {
	for _, drop := range []bool{false, true} {
		t.Run(fmt.Sprint("dropped: ", drop), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int32
				var revoked []string
				p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 1, Storage: rf.NewMemoryStorage(), RevokeReplaced: time.Minute, Steps: []rf.Step{
					{Name: "user", Identity: "u", PerSubject: true, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
						if in.Subject != "ann" {
							return &rf.Token{AccessToken: "bob"}, nil
						}
						return &rf.Token{AccessToken: fmt.Sprint("session-", n.Add(1)%2)}, nil // two seats
					}), Revoke: func(_ context.Context, in rf.Input) error {
						revoked = append(revoked, in.Previous.AccessToken)
						return nil
					}}}})
				ann := as(t.Context(), "ann")
				tokenAs(t, p, ann)
				p.Refresh(ann)
				if drop {
					tokenAs(t, p, as(t.Context(), "bob"))
				}
				time.Sleep(30 * time.Second)
				p.Refresh(ann)
				time.Sleep(31 * time.Second)
				require.NotContains(t, revoked, tokenAs(t, p, ann))
			})
		})
	}
}
