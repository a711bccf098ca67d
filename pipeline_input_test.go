// Bad input to a pipeline: configs, what fetchers bring, and contexts.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// mistaken is somebody's own Fetcher, with mistakes that it knows of.
type mistaken struct{ rf.FetcherFunc }

func (mistaken) Validate() error { return errors.New("TokenURL: empty") }

// plainStorage is a Storage and nothing else.
type plainStorage struct{ rf.Storage }

func TestPipelineConfigMistakesAreErrorsThatSayWhich(t *testing.T) {
	l := newLogin()
	one := func(change func(*rf.Step)) rf.PipelineConfig {
		s := l.step("user")
		change(&s)
		return rf.PipelineConfig{Steps: []rf.Step{s}}
	}
	with := func(change func(*rf.PipelineConfig)) rf.PipelineConfig {
		cfg := rf.PipelineConfig{Steps: l.chain()}
		change(&cfg)
		return cfg
	}
	header := func(step string) *rf.HTTPFetcher {
		return &rf.HTTPFetcher{URL: "https://auth.example.com", TokenHeader: "X-Token", HeaderFrom: map[string]string{"X-App": step}}
	}
	for name, c := range map[string]struct {
		cfg  rf.PipelineConfig
		want []string
	}{
		"zero":               {rf.PipelineConfig{}, []string{"Steps is empty"}},
		"a zero step":        {rf.PipelineConfig{Steps: make([]rf.Step, 1)}, []string{"Steps[0] has no Name", `step "" has no Fetcher`}},
		"an empty name":      {rf.PipelineConfig{Steps: []rf.Step{l.step("a"), l.step("", "a")}}, []string{"Steps[1] has no Name"}},
		"two of one name":    {rf.PipelineConfig{Steps: []rf.Step{l.step("a"), l.step("b", "a"), l.step("a", "b")}}, []string{`two steps are named "a"`}},
		"its own parent":     {rf.PipelineConfig{Steps: []rf.Step{l.step("a", "a")}}, []string{`in a cycle: "a" -> "a"`}},
		"a cycle of two":     {rf.PipelineConfig{Steps: []rf.Step{l.step("a", "b"), l.step("b", "a")}}, []string{`in a cycle: "a" -> "b" -> "a"`}},
		"a cycle of three":   {rf.PipelineConfig{Steps: []rf.Step{l.step("x", "a"), l.step("a", "b"), l.step("b", "c"), l.step("c", "a")}}, []string{`in a cycle: "a" -> "b" -> "c" -> "a"`}},
		"an unknown parent":  {rf.PipelineConfig{Steps: []rf.Step{l.step("a", "nobody")}}, []string{`"a" depends on "nobody"`}},
		"a parent twice":     {rf.PipelineConfig{Steps: []rf.Step{l.step("a"), l.step("b", "a", "a")}}, []string{`"b" depends on "a" twice`}},
		"no fetcher":         {one(func(s *rf.Step) { s.Fetcher = nil }), []string{`"user" has no Fetcher`}},
		"a nil fetcher":      {one(func(s *rf.Step) { s.Fetcher = (*rf.HTTPFetcher)(nil) }), []string{`"user" has no Fetcher`}},
		"a nil FetcherFunc":  {one(func(s *rf.Step) { s.Fetcher = rf.FetcherFunc(nil) }), []string{`"user" has no Fetcher`}},
		"a nil refresh":      {one(func(s *rf.Step) { s.Refresh = (*rf.HTTPFetcher)(nil) }), []string{`"user": Refresh is a nil *requestforge.HTTPFetcher`}},
		"an empty fetcher":   {one(func(s *rf.Step) { s.Fetcher = &rf.HTTPFetcher{} }), []string{`"user": Fetcher`, "URL"}},
		"an empty refresh":   {one(func(s *rf.Step) { s.Refresh = &rf.HTTPFetcher{TokenHeader: " "} }), []string{`"user": Refresh`, "URL", "TokenHeader"}},
		"a mistaken fetcher": {one(func(s *rf.Step) { s.Fetcher = mistaken{} }), []string{`"user": Fetcher: TokenURL: empty`}},
		"a mistaken refresh": {one(func(s *rf.Step) { s.Refresh = mistaken{} }), []string{`"user": Refresh: TokenURL: empty`}},
		"a negative TTL":     {one(func(s *rf.Step) { s.TTL = -time.Second }), []string{`"user": TTL is negative (-1s)`}},
		"a stranger's token": {one(func(s *rf.Step) { s.Fetcher = header("app") }), []string{`"user": Fetcher.HeaderFrom wants the token of "app"`}},
		"for a refresh, too": {one(func(s *rf.Step) { s.Refresh = header("app") }), []string{`"user": Refresh.HeaderFrom wants the token of "app"`}},
		"a Jar before Cookies": {rf.PipelineConfig{Steps: []rf.Step{
			{Name: "app", Fetcher: &rf.HTTPFetcher{URL: "https://auth.example.com", Client: rf.LoginClient("https://auth.example.com")}},
			{Name: "user", DependsOn: []string{"app"}, Fetcher: &rf.HTTPFetcher{URL: "https://auth.example.com", Cookies: true}},
		}}, []string{`"app": Client.Jar keeps the cookies that step "user"`, "leave the Jar out"}},
		"no lock": {rf.PipelineConfig{Storage: plainStorage{rf.NewMemoryStorage()}, Steps: []rf.Step{{Name: "user", Fetcher: l.step("").Fetcher, Refresh: l.step("").Fetcher}}},
			[]string{`"user" has a Refresh, which needs a Storage that is a Locker`, "plainStorage"}},
		"a nil storage":           {with(func(c *rf.PipelineConfig) { c.Storage = (*rf.MemoryStorage)(nil) }), []string{"Storage is a nil *requestforge.MemoryStorage"}},
		"an unknown RefreshFrom":  {with(func(c *rf.PipelineConfig) { c.RefreshFrom = "ap" }), []string{`RefreshFrom names "ap"`}},
		"an unknown Leaf":         {with(func(c *rf.PipelineConfig) { c.Leaf = "usr" }), []string{`PipelineConfig.Leaf names "usr", which is no step`}},
		"negative StorageTimeout": {with(func(c *rf.PipelineConfig) { c.StorageTimeout = -1 }), []string{"StorageTimeout is negative (-1ns)"}},
		"negative CoolDown":       {with(func(c *rf.PipelineConfig) { c.CoolDown = -1 }), []string{"PipelineConfig.CoolDown is negative"}},
		"negative MaxCoolDown":    {with(func(c *rf.PipelineConfig) { c.MaxCoolDown = -1 }), []string{"PipelineConfig.MaxCoolDown is negative"}},
		"MaxCoolDown too short":   {with(func(c *rf.PipelineConfig) { c.CoolDown, c.MaxCoolDown = time.Minute, time.Second }), []string{"MaxCoolDown (1s) is below CoolDown (1m0s)"}},
		"all of it": {rf.PipelineConfig{
			Steps:   []rf.Step{{Name: "a", DependsOn: []string{"b", "x"}, TTL: -1}, {Name: "b", DependsOn: []string{"a"}, Fetcher: l.step("").Fetcher}},
			Storage: (*rf.MemoryStorage)(nil), RefreshFrom: "nobody", StorageTimeout: -1,
		}, []string{"Storage is a nil", "StorageTimeout", `"a": TTL`, `"a" has no Fetcher`, `"a" depends on "x"`, `"a" -> "b" -> "a"`, `"nobody"`}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := rf.NewPipeline(c.cfg)
			require.Nil(t, p)
			require.Error(t, err)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			joined, ok := err.(interface{ Unwrap() []error })
			require.True(t, ok, "joined, however many")
			for _, err := range joined.Unwrap() {
				require.True(t, strings.HasPrefix(err.Error(), "requestforge: "), err.Error())
			}
			if name == "all of it" {
				require.Len(t, joined.Unwrap(), len(c.want), err.Error())
			}
		})
	}
}

func TestPipelineConfigThatIsUnusualButRight(t *testing.T) {
	l := newLogin()
	l.takes = 0
	for name, cfg := range map[string]rf.PipelineConfig{
		"negatives with a meaning":    {Steps: l.chain(), FetchTimeout: -1, FetchRetries: -1, RefreshAhead: -1},
		"CoolDown alone":              {Steps: l.chain(), CoolDown: time.Hour},
		"children first":              {Steps: []rf.Step{l.step("user", "app"), l.step("app")}},
		"odd names":                   {Steps: []rf.Step{l.step("a:b/c %\"\xff"), l.step("日本", "a:b/c %\"\xff")}},
		"a storage that doesn't lock": {Steps: identified(l.chain()), Storage: plainStorage{rf.NewMemoryStorage()}, KeyPrefix: "test"},
		"RefreshFrom the leaf":        {Steps: l.chain(), RefreshFrom: "user"},
		"Leaf the leaf":               {Steps: l.chain(), Leaf: "user"},
		"Leaf a parent":               {Steps: l.chain(), Leaf: "app"},
		"Leaf one of two":             {Steps: []rf.Step{l.step("user"), l.step("audit")}, Leaf: "user"},
	} {
		t.Run(name, func(t *testing.T) { mustToken(t, pipeline(t, cfg)) })
	}
}

// A prefix or a name that holds a colon takes nobody else's key.
func TestPipelineKeysDoNotCollide(t *testing.T) {
	l := newLogin()
	l.takes = 0
	storage := rf.NewMemoryStorage()
	for i, c := range []struct{ prefix, name string }{{"a:b", "c"}, {"a", "b:c"}, {"a", "b%3Ac"}, {"a:b:c", "c"}} {
		tok := mustToken(t, pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step(c.name)}, Storage: storage, KeyPrefix: c.prefix}))
		require.NotContains(t, tok.Extra, "stolen", i)
		require.Equal(t, c.name+"-1", strings.Replace(tok.AccessToken, "-2", "-1", 1))
	}
	require.Equal(t, 2, l.fetches("c"), `"a:b" + "c" is not "a:b:c" + "c"`)
	require.Equal(t, 1, l.fetches("b:c"))
}

func TestPipelineStepsChangedAfterwardsHaveNoEffect(t *testing.T) {
	l := newLogin()
	l.takes = 0
	steps := l.chain()
	steps[2].DependsOn = []string{"app"} // l's fetcher looks at its own
	p := pipeline(t, rf.PipelineConfig{Steps: steps})
	steps[0].Fetcher, steps[1].Name, steps[2].DependsOn[0] = nil, "other", "device"
	steps[2] = rf.Step{}
	require.Equal(t, " app-1", mustToken(t, p).Extra["from"])
	require.NoError(t, p.InvalidateStep(t.Context(), "app"))
	require.Equal(t, " app-2", mustToken(t, p).Extra["from"])
}

// What can't be a token is an error that names the step and shows nothing of
// it. It is fetched once and never sent.
func TestPipelineWhatIsNoTokenIsNeverSent(t *testing.T) {
	type cyclic map[string]any
	endless := cyclic{}
	endless["self"] = endless
	for name, c := range map[string]struct {
		tok  *rf.Token
		want string
	}{
		"nil":                 {nil, "there is no token"},
		"empty":               {&rf.Token{RefreshToken: "s3cret"}, "empty"},
		"CR and LF":           {&rf.Token{AccessToken: "s3cret\r\nX-Evil: 1"}, "control characters"},
		"NUL":                 {&rf.Token{AccessToken: "s3cret\x00"}, "control characters"},
		"a type of two words": {&rf.Token{AccessToken: "s3cret", TokenType: "s3cret s3cret"}, "token type"},
		"expired":             {&rf.Token{AccessToken: "s3cret", Expiry: time.Now().Add(-time.Second)}, "expired already"},
		"long expired":        {&rf.Token{AccessToken: "s3cret", Expiry: time.Unix(0, 0)}, "expired already"},
		"a func in Extra":     {&rf.Token{AccessToken: "s3cret", Extra: map[string]any{"s3cret": func() {}}}, "Extra can't be written as JSON"},
		"an endless Extra":    {&rf.Token{AccessToken: "s3cret", Extra: map[string]any{"s3cret": endless}}, "Extra can't be written as JSON"},
		"Extra that fails":    {&rf.Token{AccessToken: "s3cret", Extra: map[string]any{"a": failsToMarshal{}}}, "Extra can't be written as JSON"},
		"Extra that crashes":  {&rf.Token{AccessToken: "s3cret", Extra: map[string]any{"a": crashesToMarshal{}}}, "panic with a value of type string"},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "user", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				n++
				return c.tok, nil
			})}}})
			client := &http.Client{Transport: &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(*http.Request) (*http.Response, error) {
				t.Error("sent")
				return nil, errors.New("sent")
			})}}
			_, err := client.Get(host)
			var auth *rf.AuthError
			require.ErrorAs(t, err, &auth)
			require.Equal(t, "user", auth.Step)
			require.ErrorContains(t, err, `step "user"`)
			require.ErrorContains(t, err, c.want)
			require.Equal(t, 1, n, "one attempt")
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
				require.NotContains(t, fmt.Sprintf(verb, err), "s3cret")
			}
		})
	}
}

type failsToMarshal struct{}

func (failsToMarshal) MarshalJSON() ([]byte, error) { return nil, errors.New("s3cret") }

type crashesToMarshal struct{}

func (crashesToMarshal) MarshalJSON() ([]byte, error) { panic("s3cret") }

// A caller whose context ends leaves at that instant, whatever it waits for,
// and what it waited for goes on. One that is over before starts nothing; one
// that ends afterwards changes nothing.
func TestPipelineContextEndsEachWait(t *testing.T) {
	why := errors.New("why")
	for name, arrange := range map[string]func(l *login, storage *rf.MemoryStorage){
		"the fetch": func(l *login, _ *rf.MemoryStorage) { l.takes = 5 * time.Second },
		"a peer's lock": func(_ *login, storage *rf.MemoryStorage) {
			lease, ok, err := storage.TryLock(context.Background(), "requestforge:user")
			if err != nil || !ok {
				panic("not locked")
			}
			time.AfterFunc(5*time.Second, func() { lease.Unlock(context.Background()) })
		},
		"a second try": func(l *login, _ *rf.MemoryStorage) {
			l.failing("user", func(n int) error {
				if n == 1 {
					return &rf.AuthError{StatusCode: 503, RetryAfter: 4 * time.Second}
				}
				return nil
			})
		},
		"a parent": func(l *login, _ *rf.MemoryStorage) {
			l.failing("app", func(int) error { time.Sleep(5 * time.Second); return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, after := range []time.Duration{0, 2 * time.Second, time.Minute} {
				synctest.Test(t, func(t *testing.T) {
					l := newLogin()
					l.takes = 100 * time.Millisecond
					storage := rf.NewMemoryStorage()
					arrange(l, storage)
					p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("app"), l.step("user", "app")}, Storage: storage})
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					if after == 0 {
						cancel(why)
					} else {
						time.AfterFunc(after, func() { cancel(why) })
					}
					begun := time.Now()
					tok, err := p.Token(ctx)
					if after == time.Minute {
						require.NoError(t, err)
						require.NotNil(t, tok)
						time.Sleep(time.Minute)
						require.Same(t, tok, mustToken(t, p))
						return
					}
					require.Nil(t, tok)
					require.ErrorIs(t, err, why)
					require.ErrorContains(t, err, `step "user"`)
					require.Equal(t, after, time.Since(begun))
					time.Sleep(30 * time.Second)
					if after == 0 {
						require.Zero(t, l.fetches("app"))
						require.Zero(t, l.fetches("user"))
						return
					}
					n := l.fetches("user")
					require.NotZero(t, n)
					mustToken(t, p)
					require.Equal(t, n, l.fetches("user"), "it went on without its caller")
				})
			}
		})
	}
}

// The wait before a replay ends with the context, whose cause is the error. One that
// would outlast a deadline isn't begun, and the refusal goes back.
func TestAuthContextEndsTheWaitBeforeAReplay(t *testing.T) {
	for name, c := range map[string]struct {
		ctx   func(context.Context) (context.Context, context.CancelFunc)
		takes time.Duration
		sends int
		err   error
	}{
		"cancelled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, time.Second, 1, context.Canceled},
		"a deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, 0, 1, nil},
		"a later deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		}, 3 * time.Second, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, sends := 0, 0
				src := sourceFunc(func(context.Context) (*rf.Token, error) { n++; return &rf.Token{AccessToken: fmt.Sprint(n)}, nil })
				rt := &rf.AuthTransport{Source: src, Origins: []string{host}, Retry: rf.SimpleAuthRetry(1, 3*time.Second), Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					sends++
					return reply(req, 401), nil
				})}
				ctx, cancel := c.ctx(t.Context())
				defer cancel()
				req, err := http.NewRequestWithContext(ctx, "GET", host, nil)
				require.NoError(t, err)
				begun := time.Now()
				resp, err := rt.RoundTrip(req)
				require.ErrorIs(t, err, c.err)
				if c.err == nil {
					require.Equal(t, 401, resp.StatusCode)
				}
				require.Equal(t, c.takes, time.Since(begun))
				require.Equal(t, c.sends, sends)
			})
		})
	}
}
