// Subjects that come back after they were dropped in trouble.

package requestforge_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// remote hides that the storage is of one process.
type remote struct {
	m    *rf.MemoryStorage
	load func(keys []string)
}

func (r *remote) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	e, err := r.m.Load(ctx, keys...)
	if r.load != nil {
		r.load(keys)
	}
	return e, err
}
func (r *remote) Save(ctx context.Context, k string, rec rf.Record, seen uint64) (rf.Entry, error) {
	return r.m.Save(ctx, k, rec, seen)
}
func (r *remote) Revoke(ctx context.Context, k string, st uint64) error {
	return r.m.Revoke(ctx, k, st)
}
func (r *remote) Delete(ctx context.Context, k string, seen uint64) (rf.Entry, error) {
	return r.m.Delete(ctx, k, seen)
}

// A look that is under way when a subject is dropped brings none of its tokens back: a
// logout that comes meanwhile holds.
func TestLookUnderWayBringsNothingBack(t *testing.T) {
	for _, trouble := range []bool{false, true} {
		t.Run(fmt.Sprint("trouble ", trouble), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o office
				mem := rf.NewMemoryStorage()
				var slow atomic.Bool
				var blocked atomic.Int32
				r := &remote{m: mem, load: func(keys []string) {
					if slow.Load() && strings.Contains(fmt.Sprint(keys), "") && len(keys) == 2 {
						blocked.Add(1)
						time.Sleep(50 * time.Millisecond)
					}
				}}
				cfg := o.chain()
				cfg.MaxSubjects, cfg.Storage, cfg.KeyPrefix = 1, r, "x"
				p := pipeline(t, cfg)
				cfg2 := o.chain()
				cfg2.Storage, cfg2.KeyPrefix = &remote{m: mem}, "x"
				q := pipeline(t, cfg2)
				ann := as(t.Context(), "ann")
				tok, err := p.Token(ann)
				require.NoError(t, err)
				if trouble {
					require.NoError(t, p.Invalidate(ann, tok))
				}
				old := tokenAs(t, p, ann)
				slow.Store(true)
				for blocked.Load() == 0 {
					time.Sleep(time.Millisecond)
				}
				slow.Store(false)
				tokenAs(t, p, as(t.Context(), "bob")) // ann is dropped
				time.Sleep(time.Second)
				require.EqualValues(t, 1, p.Stats().Subjects)
				require.NoError(t, q.Forget(ann)) // at another process
				time.Sleep(10 * time.Minute)
				require.NotEqual(t, old, tokenAs(t, p, ann), "logged out ten minutes ago")
			})
		})
	}
}

// Nor does a refusal in nobody's context.
func TestRefusalByNobodysContextBringsNothingBack(t *testing.T) {
	for _, trouble := range []bool{false, true} {
		t.Run(fmt.Sprint("trouble ", trouble), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o office
				mem := rf.NewMemoryStorage()
				cfg := o.chain()
				cfg.MaxSubjects, cfg.Storage, cfg.KeyPrefix = 1, &remote{m: mem}, "x"
				cfg.RefreshFrom = "user"
				p := pipeline(t, cfg)
				cfg2 := o.chain()
				cfg2.RefreshFrom = "user"
				cfg2.Storage, cfg2.KeyPrefix = &remote{m: mem}, "x"
				q := pipeline(t, cfg2)
				ann := as(t.Context(), "ann")
				tok, err := p.Token(ann)
				require.NoError(t, err)
				if trouble {
					require.NoError(t, p.Invalidate(ann, tok))
				}
				tok, err = p.Token(ann)
				require.NoError(t, err)
				tokenAs(t, p, as(t.Context(), "bob")) // ann is dropped
				tok2, err := q.Refresh(ann)
				require.NoError(t, err)
				require.NoError(t, p.Invalidate(t.Context(), tok)) // late
				require.NoError(t, q.Forget(ann))                  // at another process
				time.Sleep(10 * time.Minute)
				require.NotEqual(t, tok2.AccessToken, tokenAs(t, p, ann), "logged out ten minutes ago")
			})
		})
	}
}

type remotePushy struct {
	remote
	changed atomic.Value
}

func (r *remotePushy) Watch(_ []string, changed func(string, error)) func() {
	r.changed.Store(changed)
	changed("", nil)
	return func() {}
}

// Whoever comes back hears first what the storage knows: a cool-down may be over.
func TestCoolDownOfADroppedSubjectEndsWithALoginElsewhere(t *testing.T) {
	for _, push := range []bool{false, true} {
		for _, drop := range []bool{false, true} {
			t.Run(fmt.Sprint("push ", push, " drop ", drop), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var o office
					var bad atomic.Bool
					bad.Store(true)
					o.refuse = func(step, subject string, _ rf.Input) error {
						if step == "user" && subject == "ann" && bad.Load() {
							return &rf.AuthError{StatusCode: 400, Code: "invalid_grant"}
						}
						return nil
					}
					mem := rf.NewMemoryStorage()
					cfg := o.chain()
					pushy := &remotePushy{remote: remote{m: mem}}
					cfg.KeyPrefix = "x"
					cfg.MaxSubjects, cfg.MaxCoolDown, cfg.Storage = 1, time.Hour, &pushy.remote
					cfg.CoolDown = time.Hour
					if push {
						cfg.Storage = pushy
					}
					p := pipeline(t, cfg)
					cfg2 := o.chain()
					cfg2.Storage, cfg2.KeyPrefix = &remote{m: mem}, "x"
					q := pipeline(t, cfg2)
					ann := as(t.Context(), "ann")
					_, err := p.Token(ann)
					require.Error(t, err)
					if drop {
						tokenAs(t, p, as(t.Context(), "bob"))
						time.Sleep(2 * time.Minute)
					}
					bad.Store(false)
					require.NoError(t, q.Forget(ann))
					tokenAs(t, q, ann)
					if push {
						pushy.changed.Load().(func(string, error))("", nil)
					}
					time.Sleep(2 * time.Minute)
					if drop {
						_, _ = p.Token(ann) // recalled
					}
					time.Sleep(2 * time.Minute)
					tokenAs(t, p, ann)
				})
			})
		}
	}
}

// Late refusals of replaced tokens cost nothing, also of a subject dropped in trouble.
func TestLateRefusalsAfterADropInTroubleCostNothing(t *testing.T) {
	for _, drop := range []bool{false, true} {
		t.Run(fmt.Sprint("drop ", drop), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o office
				cfg := o.chain()
				cfg.MaxSubjects, cfg.Storage = 1, rf.NewMemoryStorage()
				p := pipeline(t, cfg)
				ann := as(t.Context(), "ann")
				var olds []*rf.Token
				first, err := p.Token(ann)
				require.NoError(t, err)
				require.NoError(t, p.Invalidate(ann, first)) // trouble
				for range 4 {
					tok, err := p.Refresh(ann)
					require.NoError(t, err)
					olds = append(olds, tok)
				}
				time.Sleep(time.Minute) // all is affordable again
				now, err := p.Refresh(ann)
				require.NoError(t, err)
				for i := range olds {
					if drop {
						tokenAs(t, p, as(t.Context(), "bob"))
					}
					require.NoError(t, p.Invalidate(ann, olds[i]))
				}
				require.Zero(t, p.Stats().RefusalsIgnored)
				require.Equal(t, now.AccessToken, tokenAs(t, p, ann))
				require.NoError(t, p.Invalidate(ann, now))
				require.NotEqual(t, now.AccessToken, tokenAs(t, p, ann), "the true refusal")
			})
		})
	}
}

// Demands add up for the child of the step that answers, too.
func TestChallengesOfAChildAddUpForADroppedSubject(t *testing.T) {
	for _, drop := range []bool{false, true} {
		t.Run(fmt.Sprint("drop ", drop), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMint()
				m.takes = 0
				user := m.step("user")
				user.PerSubject = true
				scopes := map[string]string{}
				back := rf.Step{Name: "back", DependsOn: []string{"user"}, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
					a := in.Parents["user"].AccessToken
					scopes["b<"+a] = a
					return &rf.Token{AccessToken: "b<" + a}, nil
				})}
				p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 1, Steps: []rf.Step{m.login.step("app"), user, back}})
				rt := &rf.AuthTransport{Source: p.Source("back"), Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					if drop && req.URL.Path == "/a-b" {
						tokenAs(t, p.Source("back"), as(t.Context(), "bob"))
					}
					for _, s := range strings.Split(req.URL.Path[1:], "-") {
						if !m.has(scopes[bearer(req)], "scope", s) {
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

// A step that works ends all its failures in a row for those who have inherited one.
func TestPipelineFailuresInARowEndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		cfg := rf.PipelineConfig{FetchRetries: -1, Steps: []rf.Step{
			{Name: "login", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				switch n++; n {
				case 1:
					return nil, &rf.AuthError{StatusCode: 429, RetryAfter: 4 * time.Minute}
				case 2:
					return nil, &rf.AuthError{StatusCode: 503}
				}
				return &rf.Token{AccessToken: "t"}, nil
			})},
			{Name: "api", DependsOn: []string{"login"}, Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				return &rf.Token{AccessToken: "a"}, nil
			})}}}
		p := pipeline(t, cfg)
		_, err := p.Token(t.Context())
		require.Error(t, err)
		_, err = p.Refresh(t.Context())
		require.Error(t, err)
		time.Sleep(30 * time.Second)
		_, err = p.Source("login").Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, 3, n)
		_, err = p.Token(t.Context())
		require.NoError(t, err, "login works")
	})
}

// A refresh token that a peer's login has got again is as good as any.
func TestRefreshTokenGivenAgainToAPeerIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := rf.NewMemoryStorage()
		suspended, logins, refreshes := false, 0, map[string]int{}
		replica := func(name string) *rf.Pipeline {
			return pipeline(t, rf.PipelineConfig{Storage: mem, FetchRetries: -1, Steps: []rf.Step{{Name: "user", Identity: "u",
				Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
					if suspended || name == "a" && logins > 0 {
						return nil, &rf.AuthError{StatusCode: 503}
					}
					logins++
					return &rf.Token{AccessToken: fmt.Sprint("login-", logins), RefreshToken: "R", Expiry: time.Now().Add(time.Hour)}, nil
				}),
				Refresh: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
					if suspended {
						return nil, &rf.AuthError{StatusCode: 400, Code: "invalid_grant"}
					}
					refreshes[name]++
					return &rf.Token{AccessToken: fmt.Sprint("refreshed-", refreshes), Expiry: time.Now().Add(time.Hour)}, nil
				})}}})
		}
		a, b := replica("a"), replica("b")
		tokenAs(t, a, t.Context())
		time.Sleep(2 * time.Hour)
		suspended = true
		_, err := a.Token(t.Context())
		require.Error(t, err)
		suspended = false
		time.Sleep(10 * time.Minute)
		require.NoError(t, b.Forget(t.Context()))
		tokenAs(t, b, t.Context()) // a login, which gives R again
		time.Sleep(30 * time.Second)
		tokenAs(t, a, t.Context())
		time.Sleep(2 * time.Hour)
		tokenAs(t, a, t.Context())
		require.Equal(t, 1, refreshes["a"])
	})
}

// Whoever comes back is looked after, though nothing pushes.
func TestSubjectThatComesBackIsLookedAfter(t *testing.T) {
	for _, drop := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var o office
			var bad atomic.Bool
			bad.Store(true)
			o.refuse = func(step, subject string, _ rf.Input) error {
				if step == "user" && subject == "ann" && bad.Load() {
					return &rf.AuthError{StatusCode: 400, Code: "invalid_grant"}
				}
				return nil
			}
			mem := rf.NewMemoryStorage()
			cfg := o.chain()
			cfg.KeyPrefix, cfg.CoolDown, cfg.MaxCoolDown, cfg.MaxSubjects, cfg.Storage = "x", 5*time.Hour, 5*time.Hour, 1, &remote{m: mem}
			p := pipeline(t, cfg)
			cfg2 := o.chain()
			cfg2.Storage, cfg2.KeyPrefix = &remote{m: mem}, "x"
			q := pipeline(t, cfg2)
			ann := as(t.Context(), "ann")
			_, err := p.Token(ann)
			require.Error(t, err)
			if drop {
				tokenAs(t, p, as(t.Context(), "bob"))
			}
			time.Sleep(2 * time.Hour)
			bad.Store(false)
			require.NoError(t, q.Forget(ann))
			tokenAs(t, q, ann)
			for range 20 {
				time.Sleep(time.Minute)
				if _, err = p.Token(ann); err == nil {
					break
				}
			}
			require.NoError(t, err, "dropped: %v", drop)
		})
	}
}
