// More of what one subject's bad day, or bad will, must not cost the others.

package requestforge_test

import (
	"context"
	"fmt"
	"log/slog"
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

// The user has two requests under way at once: a slow one to the path that is
// forbidden, and a quick one to another path. The quick one's answer comes before the
// replay's refusal, and proves nothing either: only the refused request's own replay could.
func TestQuickAcceptanceProvesNothingOfASlowRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		p := pipeline(t, o.chain())
		client := &http.Client{Transport: &rf.AuthTransport{Source: p, Origins: []string{"https://api.example.com"}, Base: fetchRT(func(r *http.Request) (*http.Response, error) {
			status := 200
			time.Sleep(10 * time.Millisecond)
			if strings.HasSuffix(r.URL.Path, "/forbidden") {
				time.Sleep(90 * time.Millisecond)
				status = 401
			}
			return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{}}, nil
		})}}
		get := func(user, path string) { getAs(t, client, user, path) }
		get("ann", "/fine")
		get("eve", "/fine")
		for range 60 { // less than a token's life
			{
				time.Sleep(13 * time.Second)
				get("eve", "/forbidden")
			}
			var wg sync.WaitGroup
			time.Sleep(13 * time.Second)
			wg.Go(func() { get("eve", "/forbidden") })
			time.Sleep(105 * time.Millisecond)
			get("eve", "/fine")
			wg.Wait()
			get("ann", "/fine")
		}
		require.LessOrEqual(t, o.fetches("backend ann"), 3, "ann, who was never refused")
	})
}

// As 08, but the step has a parent of the subject's own, too: mayBlameShared doesn't apply,
// and mayBlame takes the shared parent, which works for others, for a suspect each time.
func TestParentsOfBothKindsAreJudgedByTheirKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		o.refuse = func(step, subject string, _ rf.Input) error {
			if step == "backend" && subject == "eve" {
				return &rf.AuthError{StatusCode: 401}
			}
			return nil
		}
		cfg := o.chain()
		cfg.Steps[2].DependsOn = []string{"user", "app"}
		p := pipeline(t, cfg)
		for i := range 300 { // 50 minutes, less than a token's life
			tokenAs(t, p, as(t.Context(), fmt.Sprint(i))) // others come
			_, err := p.Token(as(t.Context(), "eve"))
			require.Error(t, err)
			time.Sleep(10 * time.Second)
		}
		require.LessOrEqual(t, o.fetches("app"), 12, "once in 5 minutes (blameEvery) at most")
	})
}

// A refusal of the client, or of the request as such, is no given token's fault: with a wrong
// client secret each request, with a token of its own, must not be one more failed login of
// the client.
func TestRefusalOfTheClientIsNotTheGivenTokensFault(t *testing.T) {
	for _, code := range []string{"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_target"} {
		synctest.Test(t, func(t *testing.T) {
			var o office
			o.refuse = func(step, _ string, in rf.Input) error {
				if step == "user" {
					return &rf.AuthError{StatusCode: 400, Code: code, Permanent: true}
				}
				return nil
			}
			p := pipeline(t, o.exchange())
			for i := range 50 {
				_, err := p.Token(with(as(t.Context(), "ann"), fmt.Sprint("request", i)))
				require.Error(t, err)
			}
			require.Equal(t, 1, o.fetches("user ann"), code)
		})
	}
}

// A request that finds a live token waits for nobody: not for a Given that hangs when the
// token is due for renewal (renewable is called on the request's path).
func TestGivenIsNotAskedOnThePathOfALiveToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		var hang atomic.Bool
		end := make(chan struct{})
		defer close(end)
		cfg := o.exchange()
		expiry := time.Now().Add(10 * time.Minute)
		cfg.Steps[0].Given = func(context.Context) (*rf.Token, error) {
			if hang.Load() {
				<-end
			}
			return &rf.Token{AccessToken: "x", Expiry: expiry}, nil
		}
		p := pipeline(t, cfg)
		ann := as(t.Context(), "ann")
		tokenAs(t, p, ann)
		hang.Store(true)
		time.Sleep(8 * time.Minute)
		begun := time.Now()
		tokenAs(t, p, ann)
		require.Zero(t, time.Since(begun))
	})
}

// Calls of changed "end soon after stop was called": one that comes a little after Close must
// not make the pipeline believe that the storage pushes.
func TestPushAfterCloseChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.chain()
		w := &pushy{faulty: &faulty{MemoryStorage: rf.NewMemoryStorage()}}
		cfg.Storage, cfg.KeyPrefix = w, "x"
		p, err := rf.NewPipeline(cfg)
		require.NoError(t, err)
		ann := as(t.Context(), "ann")
		require.Equal(t, "backend ann-1<user ann-1<app-1", tokenAs(t, p, ann))
		time.Sleep(time.Second)
		changed := w.fns[0]
		require.NoError(t, p.Close())
		changed("", nil) // it was under way
		peer, err := rf.NewPipeline(cfg)
		require.NoError(t, err)
		defer peer.Close()
		require.NoError(t, peer.Forget(ann))
		time.Sleep(time.Minute)
		require.Equal(t, "backend ann-2<user ann-2<app-1", tokenAs(t, p, ann), "the session was ended a minute ago")
	})
}

type poisonedPushy struct {
	*pushy
	poison *poisoned
	keys   atomic.Int64
}

func (s *poisonedPushy) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	s.keys.Add(int64(len(keys)))
	return s.poison.Load(ctx, keys...)
}

// One entry that can't be loaded doesn't have all subjects loaded again every 5 seconds, for
// ever: what has failed is tried again, and nothing else.
func TestEntryThatCannotBeLoadedCostsFewLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.chain()
		mem := rf.NewMemoryStorage()
		s := &poisonedPushy{pushy: &pushy{faulty: &faulty{MemoryStorage: mem}}, poison: &poisoned{mem, rf.SubjectKey("eve")}}
		cfg.Storage, cfg.KeyPrefix = s, "x"
		p := pipeline(t, cfg)
		tokenAs(t, p, as(t.Context(), "eve"))
		const users = 200
		for i := range users {
			tokenAs(t, p, as(t.Context(), fmt.Sprint(i)))
		}
		time.Sleep(time.Second)
		s.keys.Store(0)
		s.push("") // it listens again: all are looked at, once
		time.Sleep(10 * time.Minute)
		require.LessOrEqual(t, int(s.keys.Load()), 10*2*users, "keys loaded for 400 entries, of which 2 are bad")
	})
}

// An auth server that hands the same token out without saying when it ends: the end that a
// given token has put on it isn't the server's word (Input.knownEnd), and doesn't bound what
// a newer given token brings.
func TestEndByAGivenTokenIsNoWordOfTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.exchange()
		cfg.Steps[2].Fetcher = rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) { return &rf.Token{AccessToken: "same"}, nil })
		p := pipeline(t, cfg)
		ann := as(t.Context(), "ann")
		ending := func(d time.Duration) context.Context {
			return context.WithValue(ann, givenKey{}, &rf.Token{AccessToken: d.String(), Expiry: time.Now().Add(d)})
		}
		tokenAs(t, p, ending(10*time.Minute))
		require.NoError(t, p.InvalidateStep(ann, "given"))
		end := time.Now().Add(time.Hour)
		tok, err := p.Token(ending(time.Hour))
		require.NoError(t, err)
		require.True(t, tok.Expiry.Equal(end), "%v too early", end.Sub(tok.Expiry))
	})
}

// The auth server knows a new app token a second after it gave it out. One user, who is
// disabled, must not end the trial of that token for all others: they are served, whoever
// came first, and the app token is fetched once.
func TestTrialOfASharedTokenIsNotOneSubjectsToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		born := map[string]time.Time{}
		o.refuse = func(step, subject string, in rf.Input) error {
			if step != "user" {
				return nil
			}
			app := in.Parents["app"].AccessToken
			if born[app].IsZero() {
				born[app] = time.Now()
			}
			if subject == "eve" || time.Since(born[app]) < time.Second {
				return &rf.AuthError{StatusCode: 401}
			}
			return nil
		}
		p := pipeline(t, o.chain())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = p.Token(as(t.Context(), "eve")) })
		synctest.Wait()
		begun := time.Now()
		for i := range 20 {
			wg.Go(func() {
				if _, err := p.Token(as(t.Context(), fmt.Sprint(i))); err != nil {
					t.Errorf("%d after %v: %v", i, time.Since(begun), err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begun); took > 4*time.Second {
			t.Errorf("served after %v", took)
		}
		if o.fetches("app") > 2 {
			t.Errorf("app was fetched %d times", o.fetches("app"))
		}
	})
}

// One subject's Given that hangs (a body that doesn't come) keeps no other subject from its
// own: the calls left behind are counted by subject, as fetchers and hooks are.
func TestGivenThatHangsForOneSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		end := make(chan struct{})
		defer close(end)
		cfg := o.exchange()
		cfg.Steps[0].Given = func(ctx context.Context) (*rf.Token, error) {
			if user, _ := userOf(ctx); user == "eve" {
				<-end
			}
			return &rf.Token{AccessToken: "x"}, nil
		}
		p := pipeline(t, cfg)
		var wg sync.WaitGroup
		for range 400 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(as(t.Context(), "eve"), time.Second)
				defer cancel()
				_, _ = p.Source("given").Token(ctx)
			})
		}
		wg.Wait()
		_, err := p.Token(as(t.Context(), "ann"))
		require.NoError(t, err)
	})
}

// A request that was sent with ann's token is not sent again with bob's, if the Subject func
// changes its mind meanwhile (a session that another request has switched): one request, one
// subject. The refusal goes up.
func TestReplayGoesOnWithNobodyElsesToken(t *testing.T) {
	var o office
	var switched atomic.Bool
	cfg := o.chain()
	cfg.Subject = func(context.Context) (string, error) {
		if switched.Load() {
			return "bob", nil
		}
		return "ann", nil
	}
	p := pipeline(t, cfg)
	var sent []string
	client := &http.Client{Transport: &rf.AuthTransport{Source: p, Origins: []string{"https://api.example.com"}, Base: fetchRT(func(r *http.Request) (*http.Response, error) {
		sent = append(sent, r.Header.Get("Authorization"))
		switched.Store(true)
		return &http.Response{StatusCode: 401, Body: http.NoBody, Header: http.Header{}}, nil
	})}}
	tokenAs(t, p, t.Context()) // not young any more
	resp, err := client.Get("https://api.example.com/")
	require.NoError(t, err)
	resp.Body.Close()
	for _, s := range sent {
		require.False(t, strings.Contains(s, "bob"), "%q", sent)
	}
}

// "SubjectLabel makes of a subject what log records [...] may say of it": those of a refusal,
// too, or nobody can tell whose token was invalidated.
func TestRefusalsAreLoggedWithTheLabel(t *testing.T) {
	var o office
	var logged strings.Builder
	cfg := o.chain()
	cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	cfg.SubjectLabel = func(s string) string { return "user:" + s }
	p := pipeline(t, cfg)
	ann := as(t.Context(), "ann")
	tok, err := p.Token(ann)
	require.NoError(t, err)
	logged.Reset()
	require.NoError(t, p.Invalidate(ann, tok))
	require.Contains(t, logged.String(), "token invalidated")
	require.Contains(t, logged.String(), "subject=user:ann")
}

// An auth server that restarts refuses everybody for 20 s, and has then forgotten the app
// token that it gave out meanwhile, which it says (invalid_token): everybody is served within
// a minute, as one identity is. The brake after a blame in vain isn't for what is certain of
// a token that nobody has used with success.
func TestAuthServerThatRestartsIsNoLongOutage(t *testing.T) {
	for _, subjects := range []bool{false, true} {
		t.Run(fmt.Sprint(subjects), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun, n := time.Now(), 0
				born := map[string]time.Time{}
				var sent atomic.Int32
				steps := []rf.Step{
					{Name: "app", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
						n++
						name := fmt.Sprint("app-", n)
						born[name] = time.Now()
						return &rf.Token{AccessToken: name, Expiry: time.Now().Add(time.Hour)}, nil
					})},
					{Name: "user", DependsOn: []string{"app"}, PerSubject: subjects, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
						sent.Add(1)
						switch up := begun.Add(20 * time.Second); {
						case time.Now().Before(up):
							return nil, &rf.AuthError{StatusCode: 401}
						case born[in.Parents["app"].AccessToken].Before(up):
							return nil, &rf.AuthError{StatusCode: 401, Code: "invalid_token"}
						}
						return &rf.Token{AccessToken: in.Subject + "u"}, nil
					})},
				}
				cfg := rf.PipelineConfig{Steps: steps}
				if subjects {
					cfg.Subject = userOf
				}
				p := pipeline(t, cfg)
				served := map[string]time.Duration{}
				for range 6 * 60 {
					for _, user := range []string{"ann", "bob"} {
						if _, err := p.Token(as(t.Context(), user)); err == nil && served[user] == 0 {
							served[user] = time.Since(begun)
						}
					}
					time.Sleep(time.Second)
				}
				for _, user := range []string{"ann", "bob"} {
					require.NotZero(t, served[user])
					require.LessOrEqual(t, served[user], 80*time.Second, user)
				}
			})
		})
	}
}

// As 38, at the API: it refuses everybody for a minute, and has then forgotten the app tokens
// from before. Everybody is served within a few minutes, as one identity is, and not after
// half an hour (suspectEvery).
func TestAPIThatRestartsIsNoLongOutage(t *testing.T) {
	for _, subjects := range []bool{false, true} {
		t.Run(fmt.Sprint(subjects), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o office
				var mu sync.Mutex
				born := map[string]time.Time{}
				begun := time.Now()
				cfg := o.chain()
				if !subjects {
					cfg.Subject, cfg.Steps[1].PerSubject = nil, false
				}
				o.refuse = func(step, _ string, in rf.Input) error {
					if step == "app" {
						mu.Lock()
						defer mu.Unlock()
						born[fmt.Sprint("app-", o.count["app"])] = time.Now()
					}
					return nil
				}
				p := pipeline(t, cfg)
				client := &http.Client{Transport: &rf.AuthTransport{Source: p, Origins: []string{"https://api.example.com"}, Base: fetchRT(func(r *http.Request) (*http.Response, error) {
					auth := r.Header.Get("Authorization")
					app := auth[strings.LastIndexByte(auth, '<')+1:]
					down, up := begun.Add(10*time.Second), begun.Add(70*time.Second)
					mu.Lock()
					defer mu.Unlock()
					status := 200
					if now := time.Now(); now.After(down) && (now.Before(up) || born[app].Before(up)) {
						status = 401
					}
					return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{}}, nil
				})}}
				served := map[string]time.Duration{}
				for range 45 * 60 / 2 {
					for _, user := range []string{"ann", "bob", "eve"} {
						req, err := http.NewRequestWithContext(as(t.Context(), user), "GET", "https://api.example.com/", nil)
						require.NoError(t, err)
						resp, err := client.Do(req)
						require.NoError(t, err)
						resp.Body.Close()
						if resp.StatusCode == 200 && time.Since(begun) > 70*time.Second && served[user] == 0 {
							served[user] = time.Since(begun)
						}
					}
					time.Sleep(2 * time.Second)
				}
				for _, user := range []string{"ann", "bob", "eve"} {
					require.NotZero(t, served[user])
					require.LessOrEqual(t, served[user], 5*time.Minute, user)
				}
			})
		})
	}
}

// Forget: every other process forgets "within 30 s". A step whose Source nobody had asked for
// (user, below the leaf) isn't looked at once the leaf has expired, and the first use of its
// Source, minutes after the logout, hands out a token from before it. Same with one identity.
func TestFirstUseOfASourceHearsOfALogoutLongAgo(t *testing.T) {
	for _, one := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var o office
			cfg := o.chain()
			cfg.Storage, cfg.KeyPrefix = rf.NewMemoryStorage(), "x"
			cfg.Steps[2].TTL = time.Minute // the leaf ends first
			if one {
				cfg.Subject, cfg.Steps[1].PerSubject = nil, false
			}
			p, peer := pipeline(t, cfg), pipeline(t, cfg)
			ann := as(t.Context(), "ann")
			tokenAs(t, p, ann)
			tokenAs(t, peer, ann)       // loads backend, and user with it
			time.Sleep(2 * time.Minute) // the leaf has expired
			require.NoError(t, p.Forget(ann))
			time.Sleep(2 * time.Minute)
			old := "user ann-1<app-1"
			if one {
				old = "user-1<app-1"
			}
			require.NotEqual(t, old, tokenAs(t, peer.Source("user"), ann), "two minutes after the logout")
		})
	}
}
