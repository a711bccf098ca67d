package requestforge_test

import (
	"context"
	"errors"
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

type userKey struct{}

// as is a request's context, of a user as the program's middleware has verified.
func as(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}

func userOf(ctx context.Context) (string, error) {
	user, _ := ctx.Value(userKey{}).(string)
	return user, nil
}

type givenKey struct{}

// with is a context whose user has brought a token.
func with(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, givenKey{}, &rf.Token{AccessToken: token})
}

func givenOf(ctx context.Context) (*rf.Token, error) {
	tok, _ := ctx.Value(givenKey{}).(*rf.Token)
	return tok, nil
}

// office is an auth server of many users: app for all, user and backend for each.
type office struct {
	mu     sync.Mutex
	count  map[string]int // by step and subject
	refuse func(step, subject string, in rf.Input) error
}

func (o *office) fetch(step string) rf.FetcherFunc {
	return func(ctx context.Context, in rf.Input) (*rf.Token, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.count == nil {
			o.count = make(map[string]int)
		}
		name := step
		if in.Subject != "" {
			name += " " + in.Subject
		}
		o.count[name]++
		n := o.count[name]
		if o.refuse != nil {
			if err := o.refuse(step, in.Subject, in); err != nil {
				return nil, err
			}
		}
		made := ""
		for _, p := range []string{"app", "user", "given"} {
			if tok := in.Parents[p]; tok != nil {
				made += "<" + tok.AccessToken
			}
		}
		if len(name) > 100 {
			name = name[:10] // no server takes a token as long
		}
		return &rf.Token{AccessToken: fmt.Sprintf("%s-%d%s", name, n, made), Expiry: time.Now().Add(time.Hour)}, nil
	}
}

func (o *office) fetches(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count[name]
}

// chain is app -> user -> backend, of which app is shared.
func (o *office) chain() rf.PipelineConfig {
	return rf.PipelineConfig{Subject: userOf, Steps: []rf.Step{
		{Name: "app", Fetcher: o.fetch("app"), Identity: "app"},
		{Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: o.fetch("user"), Identity: "user"},
		{Name: "backend", DependsOn: []string{"user"}, Fetcher: o.fetch("backend"), Identity: "backend"},
	}}
}

// exchange is given, app -> user -> backend.
func (o *office) exchange() rf.PipelineConfig {
	return rf.PipelineConfig{Subject: userOf, Steps: []rf.Step{
		{Name: "given", Given: givenOf},
		{Name: "app", Fetcher: o.fetch("app"), Identity: "app"},
		{Name: "user", DependsOn: []string{"app", "given"}, Fetcher: o.fetch("user"), Identity: "user"},
	}}
}

// getAs sends a request of a user's, and returns the status.
func getAs(t *testing.T, client *http.Client, user, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(as(t.Context(), user), "GET", "https://api.example.com"+path, nil)
	require.NoError(t, err)
	resp, err := client.Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	return resp.StatusCode
}

func tokenAs(t *testing.T, src rf.TokenSource, ctx context.Context) string {
	t.Helper()
	tok, err := src.Token(ctx)
	require.NoError(t, err)
	return tok.AccessToken
}

func TestSubjectsHaveTokensOfTheirOwn(t *testing.T) {
	var o office
	p := pipeline(t, o.chain())
	for range 3 {
		for _, user := range []string{"ann", "bob", "eve"} {
			require.Equal(t, "backend "+user+"-1<user "+user+"-1<app-1", tokenAs(t, p, as(t.Context(), user)))
			require.Equal(t, "user "+user+"-1<app-1", tokenAs(t, p.Source("user"), as(t.Context(), user)))
			require.Equal(t, "app-1", tokenAs(t, p.Source("app"), t.Context()))
		}
	}
	require.Equal(t, 1, o.fetches("app"))
}

func TestSubjectThatIsMissingFailsBeforeAnythingIsSent(t *testing.T) {
	for name, c := range map[string]struct {
		subject func(context.Context) (string, error)
		says    string
	}{
		"empty":      {userOf, `PipelineConfig.Subject returned ""`},
		"error":      {func(context.Context) (string, error) { return "ann", errors.New("no session") }, "no session"},
		"panic":      {func(context.Context) (string, error) { panic("s3cret") }, "panic"},
		"empty user": {func(context.Context) (string, error) { return rf.SubjectID("https://issuer.example", ""), nil }, "last part"},
	} {
		t.Run(name, func(t *testing.T) {
			var o office
			sent := 0
			cfg := o.chain()
			cfg.Subject = c.subject
			p := pipeline(t, cfg)
			layer := &rf.AuthTransport{Source: p, Origins: []string{"https://api.example.com"}, Base: fetchRT(func(*http.Request) (*http.Response, error) {
				sent++
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			})}
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://api.example.com/", nil)
			require.NoError(t, err)
			_, err = layer.RoundTrip(req)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "s3cret")
			d := layer.Explain(req)
			require.False(t, d.Send)
			require.Equal(t, rf.ReasonSubject, d.Reason)
			require.ErrorContains(t, d.Err, c.says)
			for _, err := range []error{p.Forget(t.Context()), p.InvalidateAll(t.Context()), p.InvalidateStep(t.Context(), "user")} {
				require.ErrorContains(t, err, c.says)
			}
			_, err = p.Refresh(t.Context())
			require.ErrorContains(t, err, c.says)
			require.Zero(t, sent+o.fetches("app"))
			require.Zero(t, p.Stats().Subjects)
			// A shared step is nobody's.
			require.NoError(t, p.InvalidateStep(t.Context(), "app"))
			require.Equal(t, "app-1", tokenAs(t, p.Source("app"), t.Context()))
		})
	}
}

// A revoked app token condemns what was made from it for every subject, and is replaced once.
func TestSubjectsShareTheMarksOfSharedSteps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o office
		p := pipeline(t, o.chain())
		const users = 500
		for i := range users {
			tokenAs(t, p, as(t.Context(), fmt.Sprint(i)))
		}
		require.NoError(t, p.InvalidateStep(t.Context(), "app"))
		var wg sync.WaitGroup
		for i := range users {
			wg.Go(func() {
				user := fmt.Sprint(i)
				if got, want := tokenAs(t, p, as(t.Context(), user)), "backend "+user+"-2<user "+user+"-2<app-2"; got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 2, o.fetches("app"))
	})
}

func TestSubjectsTroubleIsNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		o.refuse = func(step, subject string, _ rf.Input) error {
			if step == "user" && subject == "eve" {
				return &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}
			}
			return nil
		}
		p := pipeline(t, o.chain())
		for range 5 {
			_, err := p.Token(as(t.Context(), "eve"))
			require.ErrorContains(t, err, "invalid_grant")
		}
		require.Equal(t, 1, o.fetches("user eve"))
		tokenAs(t, p, as(t.Context(), "ann"))
		require.Equal(t, rf.StatusCooling, p.State(as(t.Context(), "eve")).Steps[1].Status)
		require.Equal(t, rf.StatusLive, p.State(as(t.Context(), "ann")).Steps[1].Status)
		require.Equal(t, map[rf.Status]int{rf.StatusLive: 1, rf.StatusCooling: 1}, p.State(t.Context()).Steps[1].Subjects)
	})
}

// A user whose tokens are refused for ever costs nobody else a token, and the shared step a
// few fetches.
func TestSubjectWhoIsRefusedForEverHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		p := pipeline(t, o.chain())
		ann := as(t.Context(), "ann")
		first := tokenAs(t, p, ann)
		for range 3000 {
			eve := as(t.Context(), "eve")
			tok, err := p.Token(eve)
			require.NoError(t, err)
			require.NoError(t, p.Invalidate(eve, tok))
			time.Sleep(time.Second)
			if got := tokenAs(t, p, ann); got != first {
				require.Contains(t, got, "ann-2", "only the expiry renews it")
				break
			}
		}
		require.LessOrEqual(t, o.fetches("app"), 12)
	})
}

// Where the shared token is the culprit a subject's ladder finds that out, for everybody.
func TestSubjectsLadderCondemnsASharedTokenOnceThatIsProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		p := pipeline(t, o.chain())
		api := func(user string, bad string) int {
			client := &http.Client{Transport: &rf.AuthTransport{Source: p, Origins: []string{"https://api.example.com"}, Retry: rf.SimpleAuthRetry(5, 0), Base: fetchRT(func(r *http.Request) (*http.Response, error) {
				status := 200
				if strings.HasSuffix(r.Header.Get("Authorization"), bad) {
					status = 401
				}
				return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{}}, nil
			})}}
			return getAs(t, client, user, "/")
		}
		require.Equal(t, 200, api("ann", "none"))
		require.Equal(t, 200, api("bob", "none"))
		time.Sleep(time.Minute)
		require.Equal(t, 200, api("ann", "<app-1"))
		require.Equal(t, 2, o.fetches("app"))
		// Bob's tokens went with the app's, without a refusal of theirs.
		require.Equal(t, "backend bob-2<user bob-2<app-2", tokenAs(t, p, as(t.Context(), "bob")))
		require.Equal(t, 2, o.fetches("app"))
	})
}

func TestSharedStepSeesNoCallersValues(t *testing.T) {
	type traceKey struct{}
	for _, carry := range []bool{false, true} {
		var seen, traced any
		cfg := rf.PipelineConfig{Subject: userOf, Steps: []rf.Step{
			{Name: "app", Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
				seen, traced = ctx.Value(userKey{}), ctx.Value(traceKey{})
				return &rf.Token{AccessToken: "a" + in.Subject}, nil
			})},
			{Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
				return &rf.Token{AccessToken: in.Subject + ctx.Value(userKey{}).(string)}, nil
			})},
		}}
		if carry {
			cfg.Carry = func(from, to context.Context) context.Context {
				return context.WithValue(to, traceKey{}, from.Value(traceKey{}))
			}
		}
		p := pipeline(t, cfg)
		ctx := context.WithValue(as(t.Context(), "ann"), traceKey{}, "trace")
		require.Equal(t, "annann", tokenAs(t, p, ctx))
		require.Nil(t, seen)
		require.Equal(t, map[bool]any{true: "trace", false: nil}[carry], traced)
	}
}

func TestGivenTokenIsExchangedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		p := pipeline(t, o.exchange())
		ann := as(t.Context(), "ann")
		require.Equal(t, "user ann-1<app-1<x", tokenAs(t, p, with(ann, "x")))
		require.Equal(t, "user ann-1<app-1<x", tokenAs(t, p, with(ann, "newer")), "the child lives")
		require.Equal(t, "user ann-1<app-1<x", tokenAs(t, p, ann), "nothing is given while the child lives")
		require.Equal(t, "y", tokenAs(t, p.Source("given"), with(ann, "y")))
		time.Sleep(2 * time.Hour)
		require.Equal(t, "user ann-2<app-2<y", tokenAs(t, p, with(ann, "y")))
		require.NoError(t, p.InvalidateStep(ann, "given"))
		require.Equal(t, "user ann-3<app-2<z", tokenAs(t, p, with(ann, "z")))
	})
}

func TestGivenTokenBoundsWhatIsMadeFromIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		p := pipeline(t, o.exchange())
		end := time.Now().Add(10 * time.Minute)
		ctx := context.WithValue(as(t.Context(), "ann"), givenKey{}, &rf.Token{AccessToken: "x", Expiry: end})
		tok, err := p.Token(ctx)
		require.NoError(t, err)
		require.True(t, tok.Expiry.Equal(end), "%v", tok.Expiry)
	})
}

// So it is where another process makes the second leg from the first one's stored token.
func TestGivenTokenBoundsWhatAnotherProcessMakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.exchange()
		cfg.Steps = append(cfg.Steps, rf.Step{Name: "backend", DependsOn: []string{"user"}, Fetcher: o.fetch("backend")})
		cfg.Storage = rf.NewMemoryStorage()
		p, peer := pipeline(t, cfg), pipeline(t, cfg)
		ann, end := as(t.Context(), "ann"), time.Now().Add(10*time.Minute)
		tokenAs(t, p.Source("user"), context.WithValue(ann, givenKey{}, &rf.Token{AccessToken: "x", Expiry: end}))
		tok, err := peer.Token(ann)
		require.NoError(t, err)
		require.Equal(t, 1, o.fetches("user ann"), "loaded")
		require.True(t, tok.Expiry.Equal(end), "%v", tok.Expiry)
	})
}

func TestGivenTokenThatIsNoGood(t *testing.T) {
	for name, c := range map[string]struct {
		given func(context.Context) (*rf.Token, error)
		says  string
	}{
		"missing": {givenOf, "no token"},
		"expired": {func(context.Context) (*rf.Token, error) {
			return &rf.Token{AccessToken: "s3cret", Expiry: time.Now().Add(-time.Second)}, nil
		}, "expired"},
		"empty": {func(context.Context) (*rf.Token, error) { return &rf.Token{}, nil }, "empty"},
		"error": {func(context.Context) (*rf.Token, error) { return nil, errors.New("no cookie") }, "no cookie"},
		"panic": {func(context.Context) (*rf.Token, error) { panic("s3cret") }, "panic"},
	} {
		t.Run(name, func(t *testing.T) {
			var o office
			cfg := o.exchange()
			cfg.Steps[0].Given = c.given
			p := pipeline(t, cfg)
			for range 3 {
				for _, src := range []rf.TokenSource{p, p.Source("given")} {
					_, err := src.Token(as(t.Context(), "ann"))
					require.ErrorContains(t, err, `"given"`)
					require.ErrorContains(t, err, c.says)
					require.NotContains(t, err.Error(), "s3cret")
				}
			}
			require.Zero(t, o.fetches("app")+o.fetches("user ann"), "nothing is fetched for it")
			require.Equal(t, rf.StatusNone, p.State(as(t.Context(), "ann")).Steps[1].Status, "and nothing cools down")
		})
	}
}

// A given token that the auth server refuses is an error at once; another one of the same
// subject needn't wait for the end of the cool-down.
func TestGivenTokenThatIsRefused(t *testing.T) {
	for _, refusal := range []*rf.AuthError{
		{StatusCode: 400, Code: "invalid_grant", Permanent: true},
		{StatusCode: 401},
		{StatusCode: 401, Code: "invalid_token"},
		{StatusCode: 403, ParentRefused: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			var o office
			o.refuse = func(step, _ string, in rf.Input) error {
				if g := in.Parents["given"]; g != nil && strings.HasPrefix(g.AccessToken, "bad") {
					return refusal
				}
				return nil
			}
			cfg := o.exchange()
			cfg.Steps = append(cfg.Steps[:1:1], rf.Step{Name: "user", DependsOn: []string{"given"}, Fetcher: o.fetch("user")}, rf.Step{Name: "backend", DependsOn: []string{"user"}, Fetcher: o.fetch("backend")})
			p := pipeline(t, cfg)
			ann, begun := as(t.Context(), "ann"), time.Now()
			for range 3 {
				_, err := p.Token(with(ann, "bad"))
				auth, ok := errors.AsType[*rf.AuthError](err)
				require.True(t, ok)
				require.Equal(t, "user", auth.Step)
				require.Equal(t, refusal.StatusCode, auth.StatusCode)
			}
			require.Equal(t, 1, o.fetches("user ann"))
			require.Zero(t, time.Since(begun), "at once")
			require.Equal(t, "backend ann-1<user ann-2<good", tokenAs(t, p, with(ann, "good")))
			require.Zero(t, time.Since(begun))
		})
	}
}

// One flight for two requests of one subject: who joined it isn't refused for the other's
// given token.
func TestGivenTokenOfAnotherRequestIsNoReasonToFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.exchange()
		cfg.Steps[2].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			time.Sleep(time.Second)
			if in.Parents["given"].AccessToken == "bad" {
				return nil, &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}
			}
			return &rf.Token{AccessToken: "good"}, nil
		})
		p := pipeline(t, cfg)
		ann := as(t.Context(), "ann")
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := p.Token(with(ann, "bad"))
			if err == nil {
				t.Error("the bad one worked")
			}
		})
		synctest.Wait()
		require.Equal(t, "good", tokenAs(t, p, with(ann, "good")))
		wg.Wait()
	})
}

func TestSubjectIDsDoNotCollide(t *testing.T) {
	lists := [][]string{{}, {""}, {"", ""}, {"a"}, {"a", ""}, {"", "a"}, {"a|b", "c"}, {"a", "b|c"}, {"a-b", "c"}, {"a", "b-c"}, {"1:a"}, {"1:", "a"}, {"a1:b"}, {"a", "b"}, {"ab"}, {"1:a1:b"}, {"\x00"}, {"\x00", "\x00"}}
	seen := map[string]string{}
	for _, l := range lists {
		id := rf.SubjectID(l...)
		if other, ok := seen[id]; ok {
			t.Errorf("%q and %s have one ID", l, other)
		}
		seen[id] = fmt.Sprintf("%q", l)
	}
}

func FuzzSubjectID(f *testing.F) {
	f.Add("a|b", "c", "a", "b|c")
	f.Add("", "a", "a", "")
	f.Add("1:a", "b", "", "1:a1:b")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		if (rf.SubjectID(a, b) == rf.SubjectID(c, d)) != (a == c && b == d) {
			t.Errorf("%q %q and %q %q", a, b, c, d)
		}
		if rf.SubjectID(a) == rf.SubjectID(c, d) || rf.SubjectID(a, b) == rf.SubjectID(c) {
			t.Errorf("one part and two have one ID: %q %q %q %q", a, b, c, d)
		}
		if x, y := rf.SubjectKey(a), rf.SubjectKey(b); (x == y) != (a == b) || len(x) != 28 || strings.ContainsAny(x, ":@ ") || len(b) > 3 && strings.Contains(x, b) {
			t.Errorf("keys of %q and %q: %s, %s", a, b, x, y)
		}
		if (rf.SubjectName(a) == rf.SubjectName(b)) != (a == b) {
			t.Errorf("%q and %q are one in memory", a, b)
		}
	})
}

func TestSubjectsIDIsNowhere(t *testing.T) {
	var logged strings.Builder
	for _, id := range []string{"ann@example.com", strings.Repeat("x", 1<<20)} {
		var o office
		storage := rf.NewMemoryStorage()
		cfg := o.chain()
		cfg.Storage, cfg.Logger = storage, slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.refuse = func(step, _ string, in rf.Input) error {
			if step == "backend" && o.count["backend "+id] > 1 {
				return &rf.AuthError{StatusCode: 500}
			}
			return nil
		}
		p := pipeline(t, cfg)
		ctx := as(t.Context(), id)
		tokenAs(t, p, ctx)
		require.NoError(t, p.InvalidateAll(ctx))
		_, err := p.Token(ctx)
		require.Error(t, err)
		for _, text := range []string{err.Error(), logged.String(), fmt.Sprint(p), fmt.Sprint(p.State(ctx)), fmt.Sprint(p.Stats()), strings.Join(rf.StoredKeys(storage), " ")} {
			require.NotContains(t, text, id[:15])
		}
	}
}

func TestSubjectLabelIsWhatLogsSay(t *testing.T) {
	var o office
	var logged strings.Builder
	cfg := o.chain()
	cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	cfg.SubjectLabel = func(s string) string { return "label-" + s[:1] }
	p := pipeline(t, cfg)
	tokenAs(t, p, as(t.Context(), "ann"))
	require.NotContains(t, logged.String(), "ann")
	for _, line := range strings.Split(strings.TrimSpace(logged.String()), "\n") {
		require.Equal(t, !strings.Contains(line, "step=app"), strings.Contains(line, "subject=label-a"), line)
	}
	o.refuse = func(step, _ string, _ rf.Input) error { return &rf.AuthError{StatusCode: 400, Permanent: true} }
	require.NoError(t, p.InvalidateStep(as(t.Context(), "ann"), "user"))
	for range 2 {
		_, err := p.Token(as(t.Context(), "ann"))
		auth, ok := errors.AsType[*rf.AuthError](err)
		require.True(t, ok)
		require.Equal(t, "label-a", auth.Subject)
		require.ErrorContains(t, err, `step "user" of "label-a"`)
	}
}

// A subject's Refresh asks its own server in a cool-down, but not that of a shared step.
func TestSubjectsRefreshKeepsTheCoolDownOfASharedStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		o.refuse = func(step, _ string, _ rf.Input) error {
			if step == "app" {
				return &rf.AuthError{StatusCode: 400, Permanent: true}
			}
			return nil
		}
		p := pipeline(t, o.chain())
		for i := range 10 {
			_, err := p.Refresh(as(t.Context(), fmt.Sprint(i)))
			require.ErrorContains(t, err, `step "app"`)
		}
		require.Equal(t, 1, o.fetches("app"))
	})
}

// Whoever is in use stays, however many others come, and however fast.
func TestSubjectInUseStays(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 50, 200} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			logins := map[string]int{}
			p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxSubjects: most + 1, Steps: []rf.Step{{Name: "user", PerSubject: true, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
				logins[in.Subject]++
				return &rf.Token{AccessToken: in.Subject}, nil
			})}}})
			for i := range 10 * most {
				for _, user := range []string{"busy", fmt.Sprint(i)} {
					_, err := p.Token(as(t.Context(), user))
					require.NoError(t, err)
				}
			}
			require.Equal(t, 1, logins["busy"])
		})
	}
}

func TestSubjectsBeyondTheMaximumAreDropped(t *testing.T) {
	for _, stored := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var o office
			cfg := o.chain()
			cfg.MaxSubjects = 3
			if stored {
				cfg.Storage = rf.NewMemoryStorage()
			}
			p := pipeline(t, cfg)
			use := func(users ...string) {
				for _, u := range users {
					tokenAs(t, p, as(t.Context(), u))
				}
			}
			use("a", "b", "c", "a", "d") // b is the one idle longest
			require.EqualValues(t, 3, p.Stats().Subjects)
			require.EqualValues(t, 1, p.Stats().Evicted)
			use("a", "c", "d")
			require.Equal(t, 3, o.fetches("user a")+o.fetches("user c")+o.fetches("user d"))
			use("b")
			require.Equal(t, map[bool]int{false: 2, true: 1}[stored], o.fetches("user b"), "a fetch, or a load")
		})
	}
}

// A flight keeps its subject in memory, and so does a refresh token that is nowhere else.
func TestSubjectThatCannotBeDroppedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		go1 := make(chan struct{})
		var fetches atomic.Int32
		cfg := rf.PipelineConfig{Subject: userOf, MaxSubjects: 1, Steps: []rf.Step{{Name: "user", PerSubject: true, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
			fetches.Add(1)
			if in.Subject == "slow" {
				<-go1
			}
			return &rf.Token{AccessToken: in.Subject, RefreshToken: map[bool]string{true: "r"}[in.Subject == "keep"]}, nil
		}), Refresh: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) { return nil, errors.New("no") })}}}
		p := pipeline(t, cfg)
		ctx, cancel := context.WithCancel(as(t.Context(), "slow"))
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = p.Token(ctx) })
		synctest.Wait()
		cancel() // nobody waits for the flight
		wg.Wait()
		tokenAs(t, p, as(t.Context(), "keep"))
		for i := range 10 {
			tokenAs(t, p, as(t.Context(), fmt.Sprint(i)))
		}
		close(go1)
		synctest.Wait()
		require.Equal(t, "slow", tokenAs(t, p, as(t.Context(), "slow")))
		require.Equal(t, "keep", tokenAs(t, p, as(t.Context(), "keep")))
		require.EqualValues(t, 12, fetches.Load())
	})
}

func TestSubjectsForgetIsTheirOwn(t *testing.T) {
	var o office
	cfg := o.chain()
	cfg.Storage = rf.NewMemoryStorage()
	p, peer := pipeline(t, cfg), pipeline(t, cfg)
	ann, bob := as(t.Context(), "ann"), as(t.Context(), "bob")
	for _, p := range []*rf.Pipeline{p, peer} {
		tokenAs(t, p, ann)
		tokenAs(t, p, bob)
	}
	require.NoError(t, p.Forget(ann))
	require.Equal(t, "backend ann-2<user ann-2<app-1", tokenAs(t, p, ann))
	require.Equal(t, "backend bob-1<user bob-1<app-1", tokenAs(t, p, bob))
	require.NoError(t, peer.InvalidateStep(ann, "user")) // looks, and hears of it
	require.Equal(t, "backend ann-3<user ann-3<app-1", tokenAs(t, peer, ann))
	_, err := p.Refresh(bob)
	require.NoError(t, err)
	require.Equal(t, "backend bob-2<user bob-2<app-1", tokenAs(t, p, bob))
}

// A refusal of a token whose subject was dropped meanwhile counts for the subject that was
// made anew.
func TestSubjectsRefusalReachesWhoWasMadeAnew(t *testing.T) {
	var o office
	cfg := o.chain()
	cfg.MaxSubjects, cfg.Storage = 1, rf.NewMemoryStorage()
	p := pipeline(t, cfg)
	ann := as(t.Context(), "ann")
	tok, err := p.Token(ann)
	require.NoError(t, err)
	tokenAs(t, p, as(t.Context(), "bob"))
	require.Equal(t, tok.AccessToken, tokenAs(t, p, ann), "loaded")
	require.NoError(t, p.Invalidate(ann, tok))
	require.NotEqual(t, tok.AccessToken, tokenAs(t, p, ann))
	// And nobody else's context matters.
	bobs, err := p.Token(as(t.Context(), "bob"))
	require.NoError(t, err)
	require.NoError(t, p.Invalidate(ann, bobs))
	require.NotEqual(t, bobs.AccessToken, tokenAs(t, p, as(t.Context(), "bob")))
}

func TestMaxFetchesBoundsRequestsAndNothingElse(t *testing.T) {
	for _, c := range []struct{ max, most int }{{1, 1}, {3, 3}, {-1, 200}, {0, 200}} {
		synctest.Test(t, func(t *testing.T) {
			var now, most atomic.Int32
			fetch := rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
				n := now.Add(1)
				defer now.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(10 * time.Millisecond)
				return &rf.Token{AccessToken: in.Subject + "x"}, nil
			})
			p := pipeline(t, rf.PipelineConfig{Subject: userOf, MaxFetches: c.max, Steps: []rf.Step{
				{Name: "app", Fetcher: fetch}, {Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: fetch},
			}})
			var wg sync.WaitGroup
			for i := range 200 {
				wg.Go(func() {
					if got := tokenAs(t, p, as(t.Context(), fmt.Sprint(i))); got != fmt.Sprint(i, "x") {
						t.Errorf("%d got %s", i, got)
					}
				})
			}
			wg.Wait()
			require.LessOrEqual(t, int(most.Load()), c.most)
			require.Greater(t, int(most.Load()), c.most/2)
		})
	}
}

// A fetcher that asks for its parent's token itself holds no slot meanwhile.
func TestMaxFetchesDoesNotCountWhoWaitsForAParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		var p *rf.Pipeline
		cfg := o.chain()
		cfg.MaxFetches = 1
		cfg.Steps = append(cfg.Steps[:1:1], rf.Step{Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			if o.fetches("app") == 1 {
				if err := p.InvalidateStep(context.WithoutCancel(ctx), "app"); err != nil {
					return nil, err
				}
			}
			tok, err := p.Source("app").Token(ctx)
			if err != nil {
				return nil, err
			}
			return &rf.Token{AccessToken: in.Subject + " with " + tok.AccessToken}, nil
		})})
		p = pipeline(t, cfg)
		begun := time.Now()
		require.Equal(t, "ann with app-2", tokenAs(t, p, as(t.Context(), "ann")))
		require.Zero(t, time.Since(begun))
	})
}

func TestSubjectMistakes(t *testing.T) {
	var o office
	app := rf.Step{Name: "app", Fetcher: o.fetch("app")}
	for name, c := range map[string]struct {
		cfg  rf.PipelineConfig
		says string
	}{
		"per subject, but whose":  {rf.PipelineConfig{Steps: []rf.Step{{Name: "user", PerSubject: true, Fetcher: o.fetch("user")}}}, "Subject is not set"},
		"given, but whose":        {rf.PipelineConfig{Steps: []rf.Step{{Name: "given", Given: givenOf}, {Name: "user", DependsOn: []string{"given"}, Fetcher: o.fetch("user")}}}, "Subject is not set"},
		"subject for nothing":     {rf.PipelineConfig{Subject: userOf, Steps: []rf.Step{app}}, "all steps are shared"},
		"both":                    {rf.PipelineConfig{Subject: userOf, Steps: []rf.Step{{Name: "given", Given: givenOf, Fetcher: o.fetch("x")}, {Name: "user", DependsOn: []string{"given"}, Fetcher: o.fetch("user")}}}, "both Given and Fetcher"},
		"neither":                 {rf.PipelineConfig{Subject: userOf, Steps: []rf.Step{{Name: "user", PerSubject: true}}}, "no Fetcher"},
		"given after another":     {rf.PipelineConfig{Subject: userOf, Steps: []rf.Step{app, {Name: "given", DependsOn: []string{"app"}, Given: givenOf}}}, "both Given and DependsOn"},
		"only given":              {rf.PipelineConfig{Subject: userOf, Steps: []rf.Step{{Name: "given", Given: givenOf}}}, "every token is given"},
		"blame the given":         {rf.PipelineConfig{Subject: userOf, RefreshFrom: "given", Steps: []rf.Step{{Name: "given", Given: givenOf}, {Name: "user", DependsOn: []string{"given"}, Fetcher: o.fetch("user")}}}, "RefreshFrom"},
		"maximum without subject": {rf.PipelineConfig{MaxSubjects: 5, Steps: []rf.Step{app}}, "MaxSubjects is set without Subject"},
		"negative maximum":        {rf.PipelineConfig{Subject: userOf, MaxSubjects: -5, Steps: []rf.Step{{Name: "user", PerSubject: true, Fetcher: o.fetch("user")}}}, "MaxSubjects is negative"},
		"carry without subject":   {rf.PipelineConfig{Carry: func(_, to context.Context) context.Context { return to }, Steps: []rf.Step{app}}, "Carry is set without Subject"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rf.NewPipeline(c.cfg)
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestCarryThatFailsCarriesNothing(t *testing.T) {
	var over chan struct{}
	for name, carry := range map[string]func(from, to context.Context) context.Context{
		"nil":   func(_, _ context.Context) context.Context { return nil },
		"panic": func(_, _ context.Context) context.Context { panic("s3cret") },
		"hangs": func(_, to context.Context) context.Context { <-over; return to },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o office
				cfg := o.chain()
				cfg.Carry = carry
				over = make(chan struct{})
				defer close(over)
				tokenAs(t, pipeline(t, cfg), as(t.Context(), "ann"))
			})
		})
	}
}

// Close ends a shared step's fetch that nobody waits for, and that is no failure.
func TestCloseEndsTheFetchOfASharedStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.chain()
		ended := make(chan error, 1)
		cfg.Steps[0].Fetcher = rf.FetcherFunc(func(ctx context.Context, _ rf.Input) (*rf.Token, error) {
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return nil, ctx.Err()
		})
		p := pipeline(t, cfg)
		ctx, cancel := context.WithTimeout(as(t.Context(), "ann"), time.Second)
		defer cancel()
		_, err := p.Token(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, p.Close())
		synctest.Wait()
		require.ErrorContains(t, <-ended, "closed")
		require.Equal(t, rf.StatusNone, p.State(t.Context()).Steps[0].Status)
	})
}

func TestGivenThatHangsHoldsNobodyForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.exchange()
		end := make(chan struct{})
		defer close(end)
		cfg.Steps[0].Given = func(context.Context) (*rf.Token, error) { <-end; return nil, nil }
		p := pipeline(t, cfg)
		ctx, cancel := context.WithTimeout(as(t.Context(), "ann"), time.Second)
		defer cancel()
		_, err := p.Token(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		begun := time.Now()
		_, err = p.Token(as(t.Context(), "ann"))
		require.ErrorContains(t, err, "FetchTimeout")
		require.LessOrEqual(t, time.Since(begun), time.Minute, "for what is left of the other flight, and for its own")
	})
}

// Many requests with bad tokens, or none, and one with a good one, all at once; also where the
// given token is used one step further up.
func TestGivenTokenThatIsGoodIsServedAmongManyThatAreNot(t *testing.T) {
	t.Parallel()
	for _, others := range []string{"missing", "bad", "each bad in its way"} {
		for _, legs := range []int{1, 2} {
			t.Run(fmt.Sprint(others, " ", legs), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var o office
					o.refuse = func(step, _ string, in rf.Input) error {
						if g := in.Parents["given"]; g != nil && strings.HasPrefix(g.AccessToken, "bad") {
							return &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}
						}
						return nil
					}
					cfg := o.exchange()
					if legs == 2 {
						cfg.Steps = append(cfg.Steps, rf.Step{Name: "backend", DependsOn: []string{"user"}, Fetcher: o.fetch("backend")})
					}
					p := pipeline(t, cfg)
					ann := as(t.Context(), "ann")
					var wg sync.WaitGroup
					for i := range 300 {
						wg.Go(func() {
							ctx := ann
							switch {
							case i == 250:
								ctx = with(ann, "good")
							case others == "bad":
								ctx = with(ann, "bad")
							case others != "missing":
								ctx = with(ann, fmt.Sprint("bad", i))
							}
							if _, err := p.Token(ctx); i == 250 && err != nil {
								t.Errorf("a good one: %v", err)
							}
						})
					}
					wg.Wait()
					if others == "bad" {
						require.LessOrEqual(t, o.fetches("user ann"), 2)
					}
				})
			})
		}
	}
}

// A refusal for a subject that was dropped puts nothing into a store that keeps nothing of it.
func TestSubjectThatWasDroppedLeavesNothing(t *testing.T) {
	var o office
	cfg := o.chain()
	cfg.MaxSubjects = 10
	p := pipeline(t, cfg)
	for i := range 300 {
		tok, err := p.Token(as(t.Context(), fmt.Sprint(i)))
		require.NoError(t, err)
		for j := i + 1; j < i+12; j++ {
			tokenAs(t, p, as(t.Context(), fmt.Sprint("other", j)))
		}
		require.NoError(t, p.Invalidate(as(t.Context(), "nobody"), tok))
	}
	require.LessOrEqual(t, len(rf.OwnKeys(p)), 21, "two a subject, and the shared one")
}

// Subjects come and go faster than they are fetched for, from many goroutines.
func TestSubjectsDroppedAndMadeAnewAllTheTime(t *testing.T) {
	t.Parallel()
	cfg := rf.PipelineConfig{Subject: userOf, MaxSubjects: 2, Steps: []rf.Step{{Name: "user", PerSubject: true, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
		return &rf.Token{AccessToken: in.Subject}, nil
	})}}}
	p := pipeline(t, cfg)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				user := fmt.Sprint((i + g) % 7)
				ctx := as(t.Context(), user)
				tok, err := p.Token(ctx)
				if err != nil && strings.Contains(err.Error(), "forgotten") {
					continue // a Forget, meanwhile
				}
				if err != nil || tok.AccessToken != user {
					t.Errorf("%s got %v, %v", user, tok, err)
					return
				}
				switch i % 5 {
				case 1:
					_ = p.Invalidate(ctx, tok)
				case 2:
					_ = p.Forget(ctx)
				case 3:
					_, _ = p.Refresh(ctx)
				}
			}
		})
	}
	wg.Wait()
	tokenAs(t, p, as(t.Context(), "last"))
	require.LessOrEqual(t, p.Stats().Subjects, uint64(2))
	require.LessOrEqual(t, len(rf.OwnKeys(p)), 2)
}
