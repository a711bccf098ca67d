// What a subject's bad day, or bad will, costs the others: nothing.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
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

// "Given is asked when a step that depends on it is fetched." A child that lives in the
// storage (after an eviction, a restart, or fetched by a peer) is loaded, not fetched: a
// request without a given token gets it.
func TestGivenTokenIsNotNeededForALoad(t *testing.T) {
	var o office
	cfg := o.exchange()
	cfg.Storage = rf.NewMemoryStorage()
	p, peer := pipeline(t, cfg), pipeline(t, cfg)
	ann := as(t.Context(), "ann")
	made := tokenAs(t, p, with(ann, "x"))
	got, err := peer.Token(ann)
	require.NoError(t, err, "the token is a load away")
	require.Equal(t, made, got.AccessToken)
}

// pushy is a storage that pushes what Revoke and Delete change.
type pushy struct {
	*faulty
	mu  sync.Mutex
	fns []func(string, error)
}

func (w *pushy) Watch(_ []string, changed func(string, error)) func() {
	w.mu.Lock()
	i := len(w.fns)
	w.fns = append(w.fns, changed)
	w.mu.Unlock()
	changed("", nil)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fns[i] = nil
	}
}

func (w *pushy) push(key string) {
	w.mu.Lock()
	fns := append([]func(string, error){}, w.fns...)
	w.mu.Unlock()
	for _, f := range fns {
		if f != nil {
			f(key, nil)
		}
	}
}

// After Close "revocations by other processes then take up to half a minute to be seen",
// a subject's, too, where the storage pushed before.
func TestSubjectsRevocationIsSeenAfterClose(t *testing.T) {
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
		require.NoError(t, p.Close())
		peerCfg := cfg
		peer, err := rf.NewPipeline(peerCfg)
		require.NoError(t, err)
		defer peer.Close()
		require.NoError(t, peer.Forget(ann))
		time.Sleep(time.Minute)
		require.Equal(t, "backend ann-2<user ann-2<app-1", tokenAs(t, p, ann), "the session was ended a minute ago")
	})
}

// A push whose look fails, because the storage hiccups, isn't lost: half a minute later at
// the latest the subject's logout in another process is seen.
func TestPushWhoseLookFailsIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.chain()
		var down atomic.Bool
		shared := rf.NewMemoryStorage()
		w := &pushy{faulty: &faulty{MemoryStorage: shared, before: func(op string) error {
			if op == "Load" && down.Load() {
				return errDisk
			}
			return nil
		}}}
		cfg.Storage, cfg.KeyPrefix = w, "x"
		p := pipeline(t, cfg)
		peerCfg := cfg
		peerCfg.Storage = shared
		peer := pipeline(t, peerCfg)
		ann := as(t.Context(), "ann")
		require.Equal(t, "backend ann-1<user ann-1<app-1", tokenAs(t, p, ann))
		time.Sleep(time.Second)
		require.NoError(t, peer.Forget(ann))
		down.Store(true)
		for _, key := range rf.StorageKeys(p)[1:] {
			w.push(key + rf.SubjectKey("ann"))
		}
		time.Sleep(time.Second)
		down.Store(false)
		time.Sleep(2 * time.Minute)
		require.Equal(t, "backend ann-2<user ann-2<app-1", tokenAs(t, p, ann), "the session was ended two minutes ago")
	})
}

// A logout by a peer is seen within half a minute, also if a shared mark that doesn't
// concern the subject's token has risen while nobody asked for the token.
func TestSweepGoesOnAfterASharedMarkHasRisen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.chain()
		cfg.Steps = append(cfg.Steps, rf.Step{Name: "other", Fetcher: o.fetch("other")})
		cfg.Leaf, cfg.Storage = "backend", rf.NewMemoryStorage()
		p, peer := pipeline(t, cfg), pipeline(t, cfg)
		ann := as(t.Context(), "ann")
		_, err := p.Source("other").Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, "backend ann-1<user ann-1<app-1", tokenAs(t, p, ann))
		require.NoError(t, p.InvalidateStep(t.Context(), "other")) // says nothing of ann's token
		time.Sleep(2 * time.Minute)                                // ann is idle
		require.Equal(t, "backend ann-1<user ann-1<app-1", tokenAs(t, p, ann))
		require.NoError(t, peer.Forget(ann))
		for range 60 {
			time.Sleep(time.Second)
			_, err := p.Token(ann)
			require.NoError(t, err)
		}
		require.Equal(t, "backend ann-2<user ann-2<app-1", tokenAs(t, p, ann), "the session was ended a minute ago")
	})
}

// poisoned is a storage in which one key can't be loaded.
type poisoned struct {
	*rf.MemoryStorage
	key string
}

func (s *poisoned) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	for _, k := range keys {
		if strings.HasSuffix(k, s.key) {
			return nil, errDisk
		}
	}
	return s.MemoryStorage.Load(ctx, keys...)
}

// One subject whose entry can't be loaded (WRONGTYPE in Redis, a record that is too large)
// must not keep the process from hearing of the others' logouts.
func TestSubjectThatCannotBeLoadedBlindsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.chain()
		shared := rf.NewMemoryStorage()
		cfg.Storage = &poisoned{shared, rf.SubjectKey("eve")}
		p := pipeline(t, cfg)
		cfg.Storage = shared
		peer := pipeline(t, cfg)
		ann, eve := as(t.Context(), "ann"), as(t.Context(), "eve")
		tokenAs(t, p, ann)
		tokenAs(t, p, eve)
		require.NoError(t, peer.Forget(ann))
		time.Sleep(2 * time.Minute)
		require.Equal(t, "backend ann-2<user ann-2<app-1", tokenAs(t, p, ann), "the session was ended two minutes ago")
	})
}

// "Eviction loses nothing but a load or a fetch": a revocation that the storage doesn't know
// of yet must not be lost with the subject.
func TestEvictionKeepsARevocationThatIsNotStored(t *testing.T) {
	var o office
	cfg := o.chain()
	var down atomic.Bool
	cfg.MaxSubjects, cfg.Storage, cfg.KeyPrefix = 1, &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
		if op == "Revoke" && down.Load() {
			return errDisk
		}
		return nil
	}}, "x"
	p := pipeline(t, cfg)
	ann := as(t.Context(), "ann")
	tok, err := p.Token(ann)
	require.NoError(t, err)
	down.Store(true)
	require.Error(t, p.Invalidate(ann, tok)) // dead in this process, says the doc
	down.Store(false)
	for _, user := range []string{"bob", "eve"} {
		tokenAs(t, p, as(t.Context(), user))
	}
	require.NotEqual(t, tok.AccessToken, tokenAs(t, p, ann), "a token that a server has refused is handed out again")
}

// A user for whom one path of the API always answers 401 and another one 200 costs nobody
// else a token, however often. (Each turn "proves" that the shared token was bad: the
// refusals suspect app-n, the next acceptance of a token made from app-n+1 condemns app-n
// for everybody, and with it every other subject's tokens.)
func TestSubjectWhoIsRefusedNowAndThenHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.chain()
		p := pipeline(t, cfg)
		client := &http.Client{Transport: &rf.AuthTransport{Source: p, Origins: []string{"https://api.example.com"}, Base: fetchRT(func(r *http.Request) (*http.Response, error) {
			status := 200
			if strings.HasSuffix(r.URL.Path, "/forbidden") {
				status = 401
			}
			return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{}}, nil
		})}}
		get := func(user, path string) { getAs(t, client, user, path) }
		get("ann", "/fine")
		get("eve", "/fine")
		for range 75 { // 50 minutes, less than a token's life
			for range 4 {
				time.Sleep(10 * time.Second)
				get("eve", "/forbidden")
			}
			get("eve", "/fine")
			get("ann", "/fine")
		}
		require.LessOrEqual(t, o.fetches("backend ann"), 3, "ann, who was never refused")
		require.LessOrEqual(t, o.fetches("app"), 12, "the wait doubles, up to half an hour")
	})
}

// A user whom the auth server refuses with 401 for ever (an account that was disabled) costs
// the shared step a few fetches, and not one every half minute. (The shared token has worked
// for others, so that failures.mayBlame takes it for a suspect each time.)
func TestSubjectWhomTheAuthServerRefusesCostsTheSharedStepLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		o.refuse = func(step, subject string, _ rf.Input) error {
			if step == "user" && subject == "eve" {
				return &rf.AuthError{StatusCode: 401}
			}
			return nil
		}
		p := pipeline(t, o.chain())
		for i := range 300 { // 50 minutes, less than a token's life
			tokenAs(t, p, as(t.Context(), fmt.Sprint(i))) // others come
			_, err := p.Token(as(t.Context(), "eve"))
			require.Error(t, err)
			time.Sleep(10 * time.Second)
		}
		require.LessOrEqual(t, o.fetches("app"), 12, "once in 5 minutes (blameEvery) at most")
	})
}

// "A refusal by the auth server [of a given token is] the error of the request at once",
// also where the exchange carries a shared token, too (RFC 8693 with an actor token, or a
// client that authenticates by its own token). Bad given tokens cost the shared step nothing.
func TestGivenTokenThatIsRefusedIsNotTheSharedTokensFault(t *testing.T) {
	for _, c := range []*rf.AuthError{{StatusCode: 401}, {StatusCode: 403}} {
		synctest.Test(t, func(t *testing.T) {
			var o office
			o.refuse = func(step, _ string, in rf.Input) error {
				if g := in.Parents["given"]; g != nil && g.AccessToken[0] == 'b' {
					return c
				}
				return nil
			}
			p := pipeline(t, o.exchange())
			begun := time.Now()
			_, err := p.Token(with(as(t.Context(), "eve"), "bad"))
			require.Error(t, err)
			took, sends := time.Since(begun), o.fetches("user eve")
			for i := range 100 {
				tokenAs(t, p, with(as(t.Context(), fmt.Sprint(i)), "good"))
				_, err := p.Token(with(as(t.Context(), "eve"), fmt.Sprint("bad", i)))
				require.Error(t, err)
				time.Sleep(10 * time.Second)
			}
			require.Less(t, took, time.Second, "at once")
			require.LessOrEqual(t, sends, 2)
			require.LessOrEqual(t, o.fetches("app"), 12, "one user's bad tokens have the shared token fetched again and again")
		})
	}
}

// A failure that isn't a refusal (429 with Retry-After, 503, a network error) is the
// server's, and not the given token's: the subject's next request waits for the end of the
// cool-down, whatever token it brings (each request has another one behind many gateways).
func TestCoolDownOfAnExchangeHoldsForEachGivenToken(t *testing.T) {
	for _, failure := range []*rf.AuthError{{StatusCode: 429, RetryAfter: 2 * time.Minute}, {StatusCode: 503, RetryAfter: 2 * time.Minute}, {StatusCode: 500}} {
		synctest.Test(t, func(t *testing.T) {
			var o office
			o.refuse = func(step, _ string, in rf.Input) error {
				if step == "user" {
					return failure
				}
				return nil
			}
			cfg := o.exchange()
			cfg.FetchRetries = -1
			p := pipeline(t, cfg)
			for i := range 50 {
				_, err := p.Token(with(as(t.Context(), "ann"), fmt.Sprint("request", i)))
				require.Error(t, err)
			}
			require.Equal(t, 1, o.fetches("user ann"), "one request a cool-down (%d)", failure.StatusCode)
		})
	}
}

// Two stale tokens of one subject in turn (two devices) are each refused once a cool-down.
func TestGivenTokensThatAreRefusedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		o.refuse = func(step, _ string, in rf.Input) error {
			if step == "user" {
				return &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}
			}
			return nil
		}
		p := pipeline(t, o.exchange())
		for i := range 50 {
			_, err := p.Token(with(as(t.Context(), "ann"), fmt.Sprint("device", i%2)))
			require.Error(t, err)
		}
		require.LessOrEqual(t, o.fetches("user ann"), 4)
	})
}

// A token that a given token bounds gains nothing by a renewal with the same given token:
// none is made.
func TestRenewalAheadWithTheSameGivenTokenIsPointless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		p := pipeline(t, o.exchange())
		ctx := context.WithValue(as(t.Context(), "ann"), givenKey{}, &rf.Token{AccessToken: "x", Expiry: time.Now().Add(10 * time.Minute)})
		for range 588 { // until 12 s before the end
			tokenAs(t, p, ctx)
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, o.fetches("user ann"), 2)
	})
}

// "[A given token] bounds the life of what is made from it": of what is made in two legs
// (ID-JAG), too. The backend's token must not outlive the user's own by an hour.
func TestGivenTokenBoundsTheSecondLeg(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.exchange()
		cfg.Steps = append(cfg.Steps, rf.Step{Name: "backend", DependsOn: []string{"user"}, Fetcher: o.fetch("backend")})
		p := pipeline(t, cfg)
		end := time.Now().Add(10 * time.Minute)
		tok, err := p.Token(context.WithValue(as(t.Context(), "ann"), givenKey{}, &rf.Token{AccessToken: "x", Expiry: end}))
		require.NoError(t, err)
		require.False(t, tok.Expiry.After(end), "%v after the user's own token", tok.Expiry.Sub(end))
	})
}

// A shared step's records have no subject, and SubjectLabel isn't asked for the label of "".
func TestSharedStepHasNoLabel(t *testing.T) {
	var o office
	var logged strings.Builder
	cfg := o.chain()
	cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	cfg.SubjectLabel = func(s string) string {
		if s == "" {
			t.Error("the label of nobody")
		}
		return "user:" + s
	}
	p := pipeline(t, cfg)
	tokenAs(t, p, as(t.Context(), "ann"))
	for _, line := range strings.Split(strings.TrimSpace(logged.String()), "\n") {
		require.Equal(t, !strings.Contains(line, "step=app"), strings.Contains(line, "subject=user:ann"), line)
		require.False(t, strings.Contains(line, "step=app") && strings.Contains(line, "subject="), line)
	}
}

// One subject's OnRotate that hangs (a lock on a row) keeps nobody else's refresh token from
// the program.
func TestHookThatHangsForOneSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		var told atomic.Int32
		n := 0
		cfg := rf.PipelineConfig{Subject: userOf, FetchTimeout: 2 * time.Second, RefreshAhead: -1, Steps: []rf.Step{{Name: "user", PerSubject: true,
			Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
				n++
				return &rf.Token{AccessToken: fmt.Sprint(in.Subject, n), RefreshToken: fmt.Sprint("r", n), Expiry: time.Now().Add(10 * time.Second)}, nil
			}),
			Refresh: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				return nil, &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Err: errors.New("no")}
			}),
			OnRotate: func(ctx context.Context, tok *rf.Token) {
				if user, _ := userOf(ctx); user == "eve" {
					<-hang
				}
				told.Add(1)
			}}}}
		p := pipeline(t, cfg)
		for range 20 {
			_, _ = p.Token(as(t.Context(), "eve"))
			time.Sleep(11 * time.Second)
		}
		tokenAs(t, p, as(t.Context(), "ann"))
		require.EqualValues(t, 1, told.Load(), "ann's refresh token was not told of")
	})
}

// A Subject func that says ann first and bob at the second call of one request (a session
// that was replaced meanwhile) harms nobody: the renewal of ann's token is ann's.
func TestSubjectThatChangesWithinARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		var second atomic.Bool // the next call but one says bob
		var calls atomic.Int32
		cfg := o.chain()
		cfg.Subject = func(ctx context.Context) (string, error) {
			if second.Load() && calls.Add(1) == 2 {
				return "bob", nil
			}
			return userOf(ctx)
		}
		p := pipeline(t, cfg)
		ann, bob := as(t.Context(), "ann"), as(t.Context(), "bob")
		for range 5 { // ann's stamps are higher than bob's
			tokenAs(t, p, ann)
			require.NoError(t, p.InvalidateAll(ann))
		}
		tokenAs(t, p, ann)
		tokenAs(t, p, bob)
		before := o.fetches("backend bob")
		time.Sleep(58 * time.Minute) // due for renewal
		second.Store(true)
		tokenAs(t, p, ann)
		second.Store(false)
		synctest.Wait()
		require.Nil(t, p.State(bob).Steps[2].LastError, "bob has asked for nothing")
		require.LessOrEqual(t, o.fetches("backend bob"), before+1)
	})
}

// A subject that is dropped between the look for its token and the renewal of that: the
// stamps of a store of the pipeline's own begin anew, so the old token's stamp is no floor for
// the new ones. (Here the Subject func stands for another goroutine at that moment.)
func TestSubjectDroppedBeforeItsRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		var p *rf.Pipeline
		var armed atomic.Bool
		var calls atomic.Int32
		cfg := o.chain()
		cfg.MaxSubjects = 1
		cfg.Subject = func(ctx context.Context) (string, error) {
			if armed.Load() && calls.Add(1) == 2 {
				armed.Store(false)
				_, _ = p.Token(as(context.Background(), "bob")) // ann is dropped
			}
			return userOf(ctx)
		}
		p = pipeline(t, cfg)
		ann := as(t.Context(), "ann")
		for range 5 {
			tokenAs(t, p, ann)
			require.NoError(t, p.InvalidateAll(ann))
		}
		tokenAs(t, p, ann)
		before := o.fetches("backend ann")
		time.Sleep(58 * time.Minute)
		armed.Store(true)
		tokenAs(t, p, ann)
		synctest.Wait()
		require.Nil(t, p.State(ann).Steps[2].LastError)
		require.Equal(t, before+1, o.fetches("backend ann"))
	})
}

// "MaxFetches is how many requests to auth servers may be under way at once", and "while 16
// of a step still run, a fetch of that step fails at once": so fetchers that are deaf to
// their context can't pile up without a bound, whatever the number of subjects.
func TestDeafFetchersOfManySubjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		end := make(chan struct{})
		defer close(end)
		p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: 10, MaxFetches: 4, FetchRetries: -1, FetchTimeout: time.Second, Steps: []rf.Step{
			{Name: "user", PerSubject: true, Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				n := now.Add(1)
				defer now.Add(-1)
				most.Store(max(most.Load(), n))
				<-end
				return nil, nil
			})},
		}})
		for i := range 1000 {
			_, err := p.Token(as(t.Context(), fmt.Sprint(i)))
			require.Error(t, err)
		}
		require.LessOrEqual(t, int(most.Load()), 256+4, "fetchers that run at once")
	})
}

// A cookie jar of the program's in the Client of a per-subject step is one for all users: the
// auth server takes bob's login for ann's session. NewPipeline should refuse it, as it does
// for Cookies (or the fetch must not use the jar).
func TestJarOfAllSubjectsIsAMistake(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := r.FormValue("user")
		if c, err := r.Cookie("sso"); err == nil {
			who = c.Value // single sign-on: the session says who it is
		}
		http.SetCookie(w, &http.Cookie{Name: "sso", Value: who})
		fmt.Fprintf(w, `{"access_token":%q}`, "token of "+who)
	}))
	defer srv.Close()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	p, err := rf.NewPipeline(rf.PipelineConfig{Subject: userOf, Steps: []rf.Step{{Name: "user", PerSubject: true, Fetcher: &rf.HTTPFetcher{
		URL: srv.URL, AllowPlaintext: true, Client: &http.Client{Jar: jar},
		BodyFrom: func(in rf.Input) (any, error) { return url.Values{"user": {in.Subject}}, nil },
	}}}})
	if err != nil {
		require.ErrorContains(t, err, "Jar")
		return
	}
	require.Equal(t, "token of ann", tokenAs(t, p, as(t.Context(), "ann")))
	require.Equal(t, "token of bob", tokenAs(t, p, as(t.Context(), "bob")))
}

// Whether the auth server knows a young shared token yet is found out once, not by each
// subject: an auth server that refuses everybody isn't sent each user's login 6 times.
func TestTrialOfAYoungSharedTokenIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		o.refuse = func(step, _ string, _ rf.Input) error {
			if step == "user" {
				return &rf.AuthError{StatusCode: 401}
			}
			return nil
		}
		p := pipeline(t, o.chain())
		var wg sync.WaitGroup
		const users = 200
		for i := range users {
			wg.Go(func() {
				if _, err := p.Token(as(t.Context(), fmt.Sprint(i))); err == nil {
					t.Error("no error")
				}
			})
		}
		wg.Wait()
		sends := 0
		for i := range users {
			sends += o.fetches("user " + fmt.Sprint(i))
		}
		if sends > 2*users+20 {
			t.Errorf("%d requests of %d users", sends, users)
		}
	})
}

// One spurious 401 in one user's exchange (the server's, or a user who was disabled for a
// second) must not condemn the shared token, and with it the tokens of all others, only
// because the next try of that exchange, with a newer shared token, worked.
func TestSpuriousRefusalOfOneSubjectsExchangeHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		refuse := false
		o.refuse = func(step, subject string, _ rf.Input) error {
			if step == "user" && subject == "eve" && refuse {
				refuse = false
				return &rf.AuthError{StatusCode: 401}
			}
			return nil
		}
		p := pipeline(t, o.chain())
		for i := range 50 {
			tokenAs(t, p, as(t.Context(), fmt.Sprint(i)))
		}
		time.Sleep(time.Minute)
		for range 20 {
			refuse = true
			tokenAs(t, p, as(t.Context(), "eve"))
			require.NoError(t, p.InvalidateStep(as(t.Context(), "eve"), "user"))
			for i := range 50 {
				tokenAs(t, p, as(t.Context(), fmt.Sprint(i)))
			}
			time.Sleep(30 * time.Second)
		}
		require.LessOrEqual(t, o.fetches("user 7"), 3, "a user who was never refused")
	})
}

// A Carry that returns from instead of to must not give the shared step the values of one
// user's context: "no user gets into a token that serves all". What isn't made from to carries
// nothing.
func TestCarryThatReturnsFromCarriesNothing(t *testing.T) {
	var seen any
	cfg := rf.PipelineConfig{Subject: userOf, Carry: func(from, _ context.Context) context.Context { return from }, Steps: []rf.Step{
		{Name: "app", Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			seen = ctx.Value(userKey{})
			return &rf.Token{AccessToken: "a"}, nil
		})},
		{Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			return &rf.Token{AccessToken: in.Subject}, nil
		})},
	}}
	p := pipeline(t, cfg)
	tokenAs(t, p, as(t.Context(), "ann"))
	require.Nil(t, seen)
}

// A Given that hangs, deaf to its context, leaves a bounded number of goroutines behind, as
// fetchers, hooks and storages do.
func TestGivenThatHangsPilesUpToABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		var now atomic.Int32
		end := make(chan struct{})
		defer close(end)
		cfg := o.exchange()
		cfg.Steps[0].Given = func(context.Context) (*rf.Token, error) {
			now.Add(1)
			defer now.Add(-1)
			<-end
			return nil, nil
		}
		p := pipeline(t, cfg)
		for range 10 {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(as(t.Context(), "ann"), time.Second)
					defer cancel()
					_, _ = p.Token(ctx)
				})
			}
			wg.Wait()
		}
		require.LessOrEqual(t, int(now.Load()), 100+16, "goroutines left behind by callers who are gone")
	})
}
