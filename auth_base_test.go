// Requests whose base URL comes from the login.

package requestforge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// instances is a source of tokens with the base URL of their instance in Extra. Each
// refusal gives the next.
type instances struct {
	mu    sync.Mutex
	all   []*rf.Token
	asked int
}

func newInstances(urls ...string) *instances {
	s := &instances{}
	for i, u := range urls {
		s.all = append(s.all, &rf.Token{AccessToken: fmt.Sprint("t-", i), Extra: map[string]any{"instance_url": u}})
	}
	return s
}

func (s *instances) Token(context.Context) (*rf.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.all[0], nil
}

func (s *instances) Invalidate(_ context.Context, tok *rf.Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if tok == s.all[0] && len(s.all) > 1 {
		s.all = s.all[1:]
	}
	return nil
}

// longToken is one that nothing holds by chance.
const longToken = "s3cret/to+ken="

func instanceURL(tok *rf.Token) (string, error) { return tok.Value("instance_url"), nil }

const (
	loginHost = "https://login.example.com"
	na1, na2  = "https://na1.my.example.com", "https://na2.my.example.com"
)

// wideWorld is a Base that says what came, "token URL", and answers by answer.
type wideWorld struct {
	mu     sync.Mutex
	got    []string
	answer func(req *http.Request, url string) *http.Response
}

func (w *wideWorld) RoundTrip(req *http.Request) (*http.Response, error) {
	url := req.URL.String()
	w.mu.Lock()
	w.got = append(w.got, strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")+" "+url)
	w.mu.Unlock()
	if req.Host != "" && req.Host != req.URL.Host {
		return nil, fmt.Errorf("Host %s for %s", req.Host, url)
	}
	if w.answer != nil {
		if resp := w.answer(req, url); resp != nil {
			return resp, nil
		}
	}
	return reply(req, 200), nil
}

func movedOver(t *testing.T, w *wideWorld, src rf.TokenSource, change ...func(*rf.Config)) *rf.Transport {
	t.Helper()
	cfg := rf.Config{Base: w, BaseURL: loginHost + "/services", Source: src, Origins: []string{"https://*.my.example.com"}, BaseURLFrom: instanceURL, ExcludedPaths: []string{"/health"}}
	for _, c := range change {
		c(&cfg)
	}
	tr, err := rf.NewTransport(cfg)
	require.NoError(t, err)
	return tr
}

// A URL below BaseURL goes to the same path below the token's base, whether it was
// relative or absolute, and every other URL where it says.
func TestBaseURLFromMovesWhatIsBelowBaseURL(t *testing.T) {
	for _, c := range []struct{ base, token, url, want string }{
		{"/services", "", "/users", na1 + "/users"},
		{"/services", "/", "users?q=1#f", na1 + "/users?q=1#f"},
		{"/services", "/data/v2/", "/users", na1 + "/data/v2/users"},
		{"/services/", "/data", "", na1 + "/data"},
		{"/services", "/services", "/a%2Fb/%7e", na1 + "/services/a%2Fb/%7e"},
		{"/ser%2Fvices", "/da%2Fta", "/a b", na1 + "/da%2Fta/a%20b"},
		{"/services", "/da%2Fta", "/a", na1 + "/da%2Fta/a"},
		{"/ser%2Fvices", "/data", "/a", na1 + "/data/a"},
		{"", "/data", "/users", na1 + "/data/users"},
		{"", "", "", na1},
		{"/services", "/data", loginHost + "/services/users?q=%7e", na1 + "/data/users?q=%7e"},
		{"/services", "/data", loginHost + "/services", na1 + "/data"},
		{"/services", "/data", loginHost + "/services/", na1 + "/data/"},
		{"/services", "/data", "https://LOGIN.example.com:443/services/x", na1 + "/data/x"},
		{"/services", "/data", loginHost + "/services/%2e%2e/x", na1 + "/data/%2e%2e/x"},
		// These aren't below.
		{"/services", "/data", na2 + "/services/x", na2 + "/services/x"},
		{"/services", "/data", loginHost + "/servicesX", ""},
		{"/services", "/data", loginHost + "/services%2Fx", ""},
		{"/services", "/data", loginHost + "/other", ""},
		{"/services", "/data", loginHost + ":8443/services/x", ""},
		{"/services", "/data", "http://login.example.com/services/x", ""},
	} {
		w := &wideWorld{}
		tr := movedOver(t, w, newInstances(na1+c.token), func(cfg *rf.Config) {
			cfg.BaseURL = loginHost + c.base
			cfg.Retry.RetryMax = len(c.url) % 2 // a layer more, or none
		})
		req, err := http.NewRequest("GET", c.url, nil)
		require.NoError(t, err)
		before := *req.URL
		d := tr.Explain(req)
		resp, err := tr.RoundTrip(req)
		wantStatus(t, resp, err, 200)
		if c.want == "" {
			require.Equal(t, []string{" " + c.url}, w.got)
			require.Equal(t, rf.ReasonOrigin, d.Reason)
			continue
		}
		require.Equal(t, []string{"t-0 " + c.want}, w.got, "%+v", c)
		require.Equal(t, c.want, resp.Request.URL.String())
		require.Empty(t, resp.Request.Header)
		require.True(t, d.Send)
		require.Equal(t, before, *req.URL)
	}
}

// A replay goes where its new token is good, and so does what is retried. The base is
// asked for once a token.
func TestBaseURLFromReplaysGoToTheNewInstance(t *testing.T) {
	w := &wideWorld{answer: func(req *http.Request, url string) *http.Response {
		if strings.HasPrefix(url, na1) {
			return reply(req, 401)
		}
		return nil
	}}
	asked := 0
	tr := movedOver(t, w, newInstances(na1+"/a", na2+"/b"), func(cfg *rf.Config) {
		cfg.BaseURLFrom = func(tok *rf.Token) (string, error) { asked++; return instanceURL(tok) }
		cfg.Retry = rf.RetryPolicy{RetryMax: 2, RetryWaitMin: 1, RetryWaitMax: 1}
	})
	for range 2 {
		req, _ := http.NewRequest("POST", loginHost+"/services/x", io.MultiReader(strings.NewReader("body")))
		resp, err := tr.RoundTrip(req)
		wantStatus(t, resp, err, 200)
		require.Equal(t, na2+"/b/x", resp.Request.URL.String())
		require.Equal(t, loginHost+"/services/x", req.URL.String())
	}
	fails := 1
	w.answer = func(req *http.Request, url string) *http.Response {
		if fails--; fails >= 0 {
			return reply(req, 503)
		}
		return nil
	}
	require.Equal(t, na2+"/b/y", get(t, tr, "/y").Request.URL.String())
	require.Equal(t, []string{"t-0 " + na1 + "/a/x", "t-1 " + na2 + "/b/x", "t-1 " + na2 + "/b/x", "t-1 " + na2 + "/b/y", "t-1 " + na2 + "/b/y"}, w.got)
	require.Equal(t, 2, asked)
}

// Where a token isn't good, and what is no base URL, is an error that says so, shows no
// secret and sends nothing; on a replay, too.
func TestBaseURLFromThatIsNoPlaceForTheTokenSendsNothing(t *testing.T) {
	returns := func(text string) func(*rf.Token) (string, error) {
		return func(*rf.Token) (string, error) { return text, nil }
	}
	for name, c := range map[string]struct {
		from func(*rf.Token) (string, error)
		want string
	}{
		"another origin":   {returns("https://evil.example/x"), `"https://evil.example"`},
		"a look-alike":     {returns("https://na1.my.example.com.evil.example"), "evil.example"},
		"BaseURL itself":   {returns(loginHost), "among Origins"},
		"plain http":       {returns("http://na1.my.example.com"), "among Origins"},
		"nothing":          {returns(""), "no URL"},
		"relative":         {returns("na1.my.example.com"), "https://"},
		"another scheme":   {returns("ftp://na1.my.example.com"), "scheme"},
		"no host":          {returns("https:///x"), "no host"},
		"user information": {returns("https://u:hunter2@na1.my.example.com"), "user info"},
		"a query":          {returns(na1 + "?k=hunter2"), "query"},
		"a fragment":       {returns(na1 + "#hunter2"), "fragment"},
		"garbage":          {returns("https://na1.my.example.com\r\nX: hunter2"), "can't be read"},
		"a bad escape":     {returns("https://na1.my.example.com/%zz"), "can't be read"},
		"the token":        {returns(na1 + "/" + longToken), "token itself"},
		"it escaped":       {returns(na1 + "/" + url.PathEscape(longToken)), "token itself"},
		"it in a query":    {returns(na1 + "?k=" + url.QueryEscape(longToken)), "token itself"},
		"it escaped twice": {returns(na1 + "/" + url.PathEscape(url.PathEscape(longToken))), "token itself"},
		"a refresh token":  {returns(na1 + "/r3fresh%2Ftoken"), "token itself"},
		"too long":         {returns(na1 + strings.Repeat("/x", 2000)), "2048"},
		"an error":         {func(*rf.Token) (string, error) { return "", errors.New("no instance") }, "no instance"},
		"a panic":          {func(*rf.Token) (string, error) { panic("hunter2") }, "panic"},
		"an error's panic": {func(*rf.Token) (string, error) { return strings.Repeat("x", -1), nil }, "panic"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &wideWorld{}
			src := newInstances(na1)
			src.all[0].AccessToken, src.all[0].RefreshToken = longToken, "r3fresh/token"
			tr := movedOver(t, w, src, func(cfg *rf.Config) {
				cfg.BaseURLFrom = c.from
				cfg.Retry = rf.RetryPolicy{RetryMax: 2, RetryWaitMin: 1, RetryWaitMax: 1}
			})
			body := newRetryBody("body")
			req, _ := http.NewRequest("POST", "/x", body)
			resp, err := tr.RoundTrip(req)
			require.Nil(t, resp)
			require.ErrorContains(t, err, "BaseURLFrom")
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "hunter2")
			require.NotContains(t, err.Error(), "3")
			require.Empty(t, w.got)
			body.wantClosedOnce(t)
		})
	}
	w := &wideWorld{answer: func(req *http.Request, _ string) *http.Response { return reply(req, 401) }}
	tr := movedOver(t, w, newInstances(na1, "https://evil.example"))
	req, _ := http.NewRequest("GET", "/x", nil)
	_, err := tr.RoundTrip(req)
	require.ErrorContains(t, err, `"https://evil.example"`)
	require.Equal(t, []string{"t-0 " + na1 + "/x"}, w.got)

	w = &wideWorld{}
	tr = movedOver(t, w, newInstances("http://na1.my.example.com"), func(cfg *rf.Config) { cfg.Origins = []string{rf.AnyOrigin} })
	_, err = tr.RoundTrip(req)
	require.ErrorContains(t, err, "plain http")
	require.Empty(t, w.got)
}

// What carries no token goes to BaseURL, and no token is fetched for it.
func TestBaseURLFromLeavesWhatCarriesNoTokenAtBaseURL(t *testing.T) {
	w, src := &wideWorld{}, newInstances(na1)
	tr := movedOver(t, w, src)
	require.Equal(t, loginHost+"/services/health", get(t, tr, "/health").Request.URL.String())
	req, _ := http.NewRequest("GET", loginHost+"/services/x", nil)
	req.Header.Set("Authorization", "mine")
	require.Equal(t, rf.ReasonConflict, tr.Explain(req).Reason)
	resp, err := tr.RoundTrip(req)
	wantStatus(t, resp, err, 200)
	require.Equal(t, []string{" " + loginHost + "/services/health", "mine " + loginHost + "/services/x"}, w.got)
	require.Zero(t, src.asked)
}

// Redirects are judged by the URL that was sent: the token stays within the instance.
func TestBaseURLFromRedirects(t *testing.T) {
	for name, c := range map[string]struct {
		location string
		status   int
		want     []string // after the first
	}{
		"relative":                 {"/data/y", 302, []string{"t-0 " + na1 + "/data/y"}},
		"relative to the page":     {"y?a=1", 302, []string{"t-0 " + na1 + "/data/y?a=1"}},
		"absolute":                 {na1 + "/elsewhere", 307, []string{"t-0 " + na1 + "/elsewhere"}},
		"without a scheme":         {"//na1.my.example.com/z", 308, []string{"t-0 " + na1 + "/z"}},
		"to BaseURL":               {loginHost + "/services/y", 302, []string{"t-0 " + na1 + "/data/y"}},
		"beside BaseURL":           {loginHost + "/other", 302, []string{" " + loginHost + "/other"}},
		"to another instance":      {na2 + "/data/y", 302, []string{" " + na2 + "/data/y"}},
		"away":                     {"https://evil.example/", 302, []string{" https://evil.example/"}},
		"to another and back":      {na2 + "/back", 302, []string{" " + na2 + "/back", " " + na1 + "/data/y"}},
		"to another, then BaseURL": {na2 + "/base", 302, []string{" " + na2 + "/base", " " + loginHost + "/services/y"}},
		"an excluded path":         {loginHost + "/services/health", 302, []string{" " + loginHost + "/services/health"}},
	} {
		for kind, first := range map[string]string{"relative": "/x", "absolute": loginHost + "/services/x"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				w := &wideWorld{answer: func(req *http.Request, url string) *http.Response {
					switch {
					case url == na1+"/data/x":
						return reply(req, c.status, "Location", c.location)
					case strings.HasSuffix(url, "/back"):
						return reply(req, 302, "Location", na1+"/data/y")
					case strings.HasSuffix(url, "/base"):
						return reply(req, 302, "Location", loginHost+"/services/y")
					}
					return nil
				}}
				src := newInstances(na1 + "/data")
				resp, err := (&http.Client{Transport: movedOver(t, w, src)}).Get(first)
				wantStatus(t, resp, err, 200)
				require.Equal(t, append([]string{"t-0 " + na1 + "/data/x"}, c.want...), w.got)
				_, last, _ := strings.Cut(c.want[len(c.want)-1], " ")
				require.Equal(t, last, resp.Request.URL.String())
			})
		}
	}
}

// A login between two hops takes no token to where the new one is good, since that is
// another origin than the first hop's.
func TestBaseURLFromRedirectDuringALogin(t *testing.T) {
	src := newInstances(na1, na2)
	w := &wideWorld{answer: func(req *http.Request, url string) *http.Response {
		if url == na1+"/x" {
			src.Invalidate(t.Context(), src.all[0])
			return reply(req, 302, "Location", loginHost+"/services/y")
		}
		return nil
	}}
	resp, err := (&http.Client{Transport: movedOver(t, w, src)}).Get("/x")
	wantStatus(t, resp, err, 200)
	require.Equal(t, []string{"t-0 " + na1 + "/x", " " + loginHost + "/services/y"}, w.got)
	require.Equal(t, loginHost+"/services/y", resp.Request.URL.String())

	// A refusal after the redirect finds a token for another instance: it goes back.
	src = newInstances(na1, na2)
	w = &wideWorld{answer: func(req *http.Request, url string) *http.Response {
		if url == na1+"/x" {
			return reply(req, 302, "Location", loginHost+"/services/y")
		}
		return reply(req, 401)
	}}
	resp, err = (&http.Client{Transport: movedOver(t, w, src)}).Get("/x")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "401 answer", fmt.Sprint(resp.StatusCode, " ", string(body)))
	require.Equal(t, []string{"t-0 " + na1 + "/x", "t-0 " + na1 + "/y"}, w.got)
	require.Equal(t, na1+"/y", resp.Request.URL.String())
}

// The log has the URL that was sent, and so has every layer above, of this package or not.
func TestBaseURLFromIsSeenAbove(t *testing.T) {
	var out strings.Builder
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	w := &wideWorld{answer: func(req *http.Request, url string) *http.Response {
		if strings.Contains(url, "/x?") {
			return reply(req, 302, "Location", "y")
		}
		return nil
	}}
	tr := movedOver(t, w, newInstances(na1+"/data"), func(cfg *rf.Config) {
		cfg.Logger, cfg.LogHeaders = logger, true
		cfg.Attach = []rf.Place{{Header: "Authorization"}, {Query: "k", Text: "v"}}
		cfg.Retry = rf.RetryPolicy{RetryMax: 2}
	})
	foreign := roundTrip(func(req *http.Request) (*http.Response, error) { return tr.RoundTrip(req.Clone(req.Context())) })
	retry := rf.RetryPolicy{RetryMax: 1}
	other := &rf.AuthTransport{Source: static("other"), Origins: []string{loginHost}, Attach: []rf.Place{{Header: "X-Other"}, {Query: "other"}}, Base: foreign}
	for name, layers := range map[string]http.RoundTripper{
		"none":                 tr,
		"ours":                 &rf.LoggingTransport{Base: &rf.RetryTransport{Base: tr, Policy: retry}, Logger: logger},
		"foreign":              foreign,
		"logging over foreign": &rf.LoggingTransport{Base: foreign, Logger: logger},
		"retry over foreign":   &rf.RetryTransport{Base: foreign, Policy: retry},
		"both over foreign":    &rf.LoggingTransport{Base: &rf.RetryTransport{Base: foreign, Policy: retry}, Logger: logger},
		"foreign over that":    roundTrip((&rf.LoggingTransport{Base: foreign, Logger: logger}).RoundTrip),
		"auth over foreign":    &rf.RetryTransport{Base: other, Policy: retry},
		"auth over ours":       &rf.AuthTransport{Source: static("other"), Origins: []string{loginHost}, Attach: []rf.Place{{Header: "X-Other"}}, Base: tr},
	} {
		for _, first := range []string{"/x", loginHost + "/services/x"} {
			if first == "/x" && strings.HasPrefix(name, "auth") {
				continue // has no origin
			}
			w.got = nil
			resp, err := (&http.Client{Transport: layers}).Get(first)
			wantStatus(t, resp, err, 200)
			for i, page := range []string{"x", "y"} {
				got := strings.Replace(w.got[i], "other=other&", "", 1)
				require.Equal(t, "t-0 "+na1+"/data/"+page+"?k=v", got, "%s, %s: %v", name, first, w.got)
			}
			require.Len(t, w.got, 2)
			require.Equal(t, na1+"/data/y", resp.Request.URL.String(), name)
			require.Empty(t, resp.Request.Header["X-Other"])
		}
		require.NotContains(t, out.String(), loginHost)
		for line := range strings.Lines(out.String()) {
			var record struct{ URL string }
			require.NoError(t, json.Unmarshal([]byte(line), &record))
			require.True(t, strings.HasPrefix(record.URL, na1+"/"), "%s: %s", name, line)
		}
		out.Reset()
	}
}

// Two layers: what the inner one signs is what is sent.
func TestBaseURLFromOverAnotherAuthLayer(t *testing.T) {
	w := &wideWorld{}
	inner := &rf.AuthTransport{Base: w, Source: static("inner"), Origins: []string{"https://*.my.example.com"}, Attach: []rf.Place{{Header: "Authorization"}, {Query: "sig", Text: "s"}},
		Prepare: func(out *http.Request, _ *rf.Token) error { out.Header.Set("X-Path", out.URL.Path); return nil }}
	tr := movedOver(t, w, newInstances(na1+"/data"), func(cfg *rf.Config) {
		cfg.Base, cfg.Attach = inner, []rf.Place{{Header: "X-Outer"}}
	})
	require.Equal(t, na1+"/data/x", get(t, tr, "/x").Request.URL.String())
	require.Equal(t, []string{"inner " + na1 + "/data/x?sig=s"}, w.got)
}

// A Transport that moves what another one has moved, and one that doesn't: what was sent is
// what is seen above, without the outer one's query value.
func TestBaseURLFromOverAnotherTransport(t *testing.T) {
	for name, c := range map[string]struct{ base, sent string }{
		"moves": {na1, "https://i.other.example"}, "stays": {"https://other.example", na1},
	} {
		t.Run(name, func(t *testing.T) {
			w := &wideWorld{answer: func(req *http.Request, url string) *http.Response {
				if strings.Contains(url, "/x") {
					return reply(req, 302, "Location", "y")
				}
				return nil
			}}
			inner, err := rf.NewTransport(rf.Config{Base: w, BaseURL: c.base, Source: newInstances("https://i.other.example"),
				Origins: []string{"https://*.other.example", "https://*.my.example.com"}, BaseURLFrom: instanceURL, Attach: []rf.Place{{Header: "X-Inner"}}})
			require.NoError(t, err)
			tr := movedOver(t, w, newInstances(na1), func(cfg *rf.Config) {
				cfg.Base, cfg.Attach = inner, []rf.Place{{Header: "Authorization"}, {Query: "k", Text: "v"}}
			})
			req, _ := http.NewRequest("GET", "/x", nil)
			resp, err := tr.RoundTrip(req)
			wantStatus(t, resp, err, 302)
			require.Equal(t, []string{"t-0 " + c.sent + "/x?k=v"}, w.got)
			require.Equal(t, c.sent+"/x", resp.Request.URL.String())
			require.Equal(t, c.sent+"/y", resp.Header.Get("Location"))
		})
	}
}

// What Base makes of a request goes up with no response, be that request moved or not.
func TestBaseURLFromShowsNoRequestOfBase(t *testing.T) {
	base := roundTrip(func(req *http.Request) (*http.Response, error) {
		c := req.Clone(req.Context())
		c.Header.Set("X-Api-Key", "hunter2")
		return reply(c, 200), nil
	})
	for _, from := range []func(*rf.Token) (string, error){nil, instanceURL} {
		tr, err := rf.NewTransport(rf.Config{Base: base, BaseURL: loginHost + "/services", Source: newInstances(na1), BaseURLFrom: from,
			Origins: []string{loginHost, "https://*.my.example.com"}, ExcludedPaths: []string{"/health"}})
		require.NoError(t, err)
		for _, u := range []string{"/x", "/health", loginHost + "/services/health"} {
			require.Empty(t, get(t, tr, u).Request.Header, u)
		}
	}
}

// A short token may be part of a base URL by chance.
func TestBaseURLFromMayHoldAShortToken(t *testing.T) {
	for token, base := range map[string]string{"42": "https://na42.my.example.com", "s": na1, "8443": "https://na1.my.example.com:8443"} {
		src := newInstances(base)
		src.all[0].AccessToken = token
		w := &wideWorld{}
		get(t, movedOver(t, w, src, func(c *rf.Config) {
			c.Origins = []string{"https://*.my.example.com", "https://*.my.example.com:8443"}
		}), "/x")
		require.Equal(t, []string{token + " " + base + "/x"}, w.got)
	}
}

// Each Transport over one source asks once a token.
func TestBaseURLFromIsAskedOnceByEachTransport(t *testing.T) {
	asked := 0
	src := rf.StaticToken(&rf.Token{AccessToken: "t-0", Extra: map[string]any{"instance_url": na1}})
	var all []*rf.Transport
	for range 3 {
		all = append(all, movedOver(t, &wideWorld{}, src, func(c *rf.Config) {
			c.BaseURLFrom = func(tok *rf.Token) (string, error) { asked++; return instanceURL(tok) }
		}))
	}
	for range 5 {
		for _, tr := range all {
			get(t, tr, "/x")
		}
	}
	require.Equal(t, 3, asked)
}

// A BaseURLFrom that ends its goroutine, as t.FailNow does, leaves the body closed.
func TestBaseURLFromThatExitsClosesTheBody(t *testing.T) {
	body := newRetryBody("body")
	tr := movedOver(t, &wideWorld{}, newInstances(na1), func(c *rf.Config) {
		c.BaseURLFrom = func(*rf.Token) (string, error) { runtime.Goexit(); return "", nil }
	})
	req, _ := http.NewRequest("POST", "/x", body)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = tr.RoundTrip(req)
	}()
	<-done
	body.wantClosedOnce(t)
}

// A Jar of the client knows the request's own URL, and its cookies go where that moves.
func TestBaseURLFromBesideAJar(t *testing.T) {
	var cookies []string
	w := &wideWorld{answer: func(req *http.Request, _ string) *http.Response {
		cookies = append(cookies, req.Header.Get("Cookie"))
		return reply(req, 200, "Set-Cookie", "c=1")
	}}
	tr := movedOver(t, w, newInstances(na1))
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Transport: tr, Jar: tr.Jar(jar)}
	for range 2 {
		resp, err := client.Get("/x")
		wantStatus(t, resp, err, 200)
	}
	require.Equal(t, []string{"", "c=1"}, cookies)
}

func TestBaseURLFromMistakes(t *testing.T) {
	_, err := rf.NewTransport(rf.Config{BaseURLFrom: instanceURL, Source: static("t"), Origins: []string{na1}})
	require.ErrorContains(t, err, "Config.BaseURLFrom: there is no BaseURL")
	tr, err := rf.NewTransport(rf.Config{Base: &wideWorld{}, BaseURL: "http://login.example.com", BaseURLFrom: instanceURL, Source: newInstances(na1), Origins: []string{na1}})
	require.NoError(t, err, "no token goes to BaseURL")
	require.Equal(t, na1+"/x", get(t, tr, "/x").Request.URL.String())
	require.Contains(t, fmt.Sprint(rf.Config{BaseURLFrom: instanceURL}), "BaseURLFrom")
}

// What an instance sets for the session of a login is the token's alone: a Jar would take
// it for a cookie of BaseURL's host, and send it there, and to the next instance. Of
// BaseURL's own host the Jar hears as ever.
func TestBaseURLFromKeepsTheCookiesOfALogin(t *testing.T) {
	logins := 0
	login := inMemory(func(w http.ResponseWriter, r *http.Request) {
		at := []string{na1, na2, loginHost}[logins]
		logins++
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: "login", Domain: "my.example.com", Path: "/"})
		answerJSON(w, 200, object{"access_token": "tok3n", "instance_url": at})
	})
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "login", Fetcher: &rf.HTTPFetcher{URL: "https://auth.my.example.com/login", Cookies: true, Client: login}}}})
	var na1Got []string
	w := &wideWorld{answer: func(req *http.Request, url string) *http.Response {
		c := req.Header.Get("Cookie")
		if !strings.HasPrefix(url, na1) {
			if strings.Contains(c, "na1") {
				t.Errorf("%s gets %s", url, c)
			}
			return reply(req, 200, "Set-Cookie", "base=1; Path=/")
		}
		na1Got = append(na1Got, c)
		resp := reply(req, 200, "Set-Cookie", "sid=na1-renewed; Path=/")
		resp.Header.Add("Set-Cookie", "role=na1-admin; Path=/")
		return resp
	}}
	tr := movedOver(t, w, p, func(c *rf.Config) { c.Origins = append(c.Origins, loginHost) })
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client := &http.Client{Transport: tr, Jar: tr.Jar(jar)}
	for _, path := range []string{"/x", "/health", "/x"} {
		resp, err := client.Get(path)
		wantStatus(t, resp, err, 200)
		require.Equal(t, path == "/health", len(resp.Header["Set-Cookie"]) > 0, path)
	}
	require.Equal(t, "sid=login", na1Got[0])
	require.Contains(t, na1Got[1], "role=na1-admin")
	for range 2 {
		require.NoError(t, p.Forget(t.Context()))
		resp, err := client.Get("/x") // another login, at na2, and at BaseURL's host
		wantStatus(t, resp, err, 200)
	}
	base, err := url.Parse(loginHost)
	require.NoError(t, err)
	require.Len(t, jar.Cookies(base), 1)
}

// A nonce belongs to the server that gave it: Learn is told where the request went, and
// nothing of ours that went along.
func TestLearnSeesWhereTheRequestWent(t *testing.T) {
	seen := []string{}
	w := &wideWorld{}
	tr, err := rf.NewTransport(rf.Config{
		Base: w, BaseURL: loginHost + "/services", Source: newInstances(na1, na2), Origins: []string{"https://*.my.example.com"}, BaseURLFrom: instanceURL,
		Attach:  []rf.Place{{Header: "Authorization"}, {Query: "key", Text: "k"}},
		Prepare: func(out *http.Request, _ *rf.Token) error { seen = append(seen, "to "+out.URL.Host); return nil },
		Learn: func(resp *http.Response, tok *rf.Token) bool {
			seen = append(seen, "from "+resp.Request.URL.String())
			require.Empty(t, resp.Request.Header)
			return false
		},
	})
	require.NoError(t, err)
	w.answer = func(req *http.Request, _ string) *http.Response {
		if req.URL.Host == strings.TrimPrefix(na1, "https://") {
			return reply(req, 401)
		}
		return reply(req, 200)
	}
	require.Equal(t, 200, get(t, tr, "/orders?page=2").StatusCode)
	require.Equal(t, []string{
		"to na1.my.example.com", "from https://na1.my.example.com/orders?page=2",
		"to na2.my.example.com", "from https://na2.my.example.com/orders?page=2",
	}, seen)
}
