package requestforge_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// webLogin is a login with cookies: a page that begins a session and shows a CSRF value,
// a form that logs the session in, and an API that takes cookie and value together, and
// renews the cookie with each answer.
type webLogin struct {
	mu      sync.Mutex
	n       int
	pre     string // the session that a page has begun
	session string // that is logged in
	refused int
}

func (l *webLogin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := func(name string) string {
		c, err := r.Cookie(name)
		if err != nil {
			return ""
		}
		return c.Value
	}
	switch r.URL.Path {
	case "/login":
		l.n++
		l.pre = fmt.Sprint("pre", l.n)
		http.SetCookie(w, &http.Cookie{Name: "pre", Value: l.pre, Path: "/"})
		http.SetCookie(w, &http.Cookie{Name: "elsewhere", Value: "x", Path: "/other"})
		fmt.Fprintf(w, `{"csrf": "csrf-%s"}`, l.pre)
	case "/session":
		if got("pre") != l.pre || r.Header.Get("X-Csrf") != "csrf-"+l.pre {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		l.session = fmt.Sprint("s", l.n)
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: l.session, Path: "/", HttpOnly: true})
		http.SetCookie(w, &http.Cookie{Name: "route", Value: "node1", Path: "/"})
		w.Header().Set("Location", "/home")
		w.WriteHeader(http.StatusSeeOther)
	default:
		if l.session == "" || got("sid") != l.session || got("route") != "node1" || got("pre") != l.pre || got("elsewhere") != "" {
			l.refused++
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		l.session += "+"
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: l.session, Path: "/"})
		_, _ = w.Write([]byte(got("sid")))
	}
}

func webSteps(url string, client *http.Client) []rf.Step {
	return []rf.Step{
		{Name: "page", Fetcher: &rf.HTTPFetcher{URL: url + "/login", Method: "GET", TokenField: "csrf", Client: client}},
		{Name: "session", DependsOn: []string{"page"}, Identity: "ann", Fetcher: &rf.HTTPFetcher{
			URL: url + "/session", Form: map[string][]string{"user": {"ann"}, "password": {"made-up"}}, HeaderFrom: map[string]string{"X-Csrf": "page"},
			TokenCookie: "sid", Cookies: true, Client: client,
		}},
	}
}

// Cookies of a login belong to its token, from its first call on: they go on each
// request, what the API answers renews them, and another process finds them.
func TestCookiesOfALoginBelongToItsToken(t *testing.T) {
	login := new(webLogin)
	srv := httptest.NewServer(login)
	defer srv.Close()
	storage := rf.NewMemoryStorage()
	process := func() (*http.Client, *rf.Pipeline) {
		p := pipeline(t, rf.PipelineConfig{Steps: webSteps(srv.URL, nil), Storage: storage})
		tr, err := rf.NewTransport(rf.Config{BaseURL: srv.URL, Source: p, Attach: []rf.Place{{Cookie: "sid"}}})
		if err != nil {
			t.Fatal(err)
		}
		return &http.Client{Transport: tr}, p
	}
	get := func(c *http.Client, want string) {
		t.Helper()
		resp, err := c.Get("/api")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body := make([]byte, 20)
		n, _ := resp.Body.Read(body)
		if resp.StatusCode != 200 || string(body[:n]) != want {
			t.Errorf("%d %s, want %s", resp.StatusCode, body[:n], want)
		}
	}
	one, p := process()
	get(one, "s1")
	get(one, "s1+") // renewed
	get(one, "s1++")
	login.mu.Lock()
	login.session = "s1" // as it was stored
	login.mu.Unlock()
	two, _ := process()
	get(two, "s1")
	if login.n != 1 || login.refused != 0 {
		t.Errorf("%d logins, %d refusals", login.n, login.refused)
	}
	tok, err := p.Token(t.Context())
	if err != nil || strings.Contains(fmt.Sprintf("%v %+v %#v", tok, tok, *tok), "node1") {
		t.Errorf("%v, %v", tok, err)
	}
	// A login anew begins with no cookie of the one before.
	if err := p.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	get(one, "s2")
	if login.n != 2 {
		t.Errorf("%d logins", login.n)
	}
}

// Without Cookies the login's cookies are nobody's, and neither fetches nor requests
// carry any.
func TestCookiesAreIgnoredUnlessAskedFor(t *testing.T) {
	login := new(webLogin)
	srv := httptest.NewServer(login)
	defer srv.Close()
	steps := webSteps(srv.URL, nil)
	steps[1].Fetcher.(*rf.HTTPFetcher).Cookies = false
	p := pipeline(t, rf.PipelineConfig{Steps: steps})
	if tok, err := p.Token(t.Context()); err == nil {
		t.Errorf("%v: a cookie went along", tok)
	}
}

// Each token has cookies of its own: what the API renews for one changes no other, and a
// token that is handed on keeps those of its login.
func TestCookiesOfTokens(t *testing.T) {
	client := inMemory(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" {
			http.SetCookie(w, &http.Cookie{Name: "sid", Value: "1", Path: "/"})
		}
		answerJSON(w, 200, object{"access_token": "a", "refresh_token": "r", "seen": r.Header.Get("Cookie")})
	})
	login := rf.HTTPFetcher{URL: "https://h.example/login", Cookies: true, Client: client}
	tok, err := login.Fetch(t.Context(), rf.Input{})
	if err != nil {
		t.Fatal(err)
	}
	refresh := login
	refresh.URL = "https://h.example/refresh"
	next, err := refresh.Fetch(t.Context(), rf.Input{Previous: tok})
	if err != nil || next.Value("seen") != "sid=1" || !strings.Contains(next.String(), "1 cookies") {
		t.Errorf("a refresh: %v, %v, %v", next, next.Extra, err)
	}
	other := login
	other.URL = "https://other.example/x"
	elsewhere, err := other.Fetch(t.Context(), rf.Input{Parents: map[string]*rf.Token{"login": tok}})
	if err != nil || elsewhere.Value("seen") != "" {
		t.Errorf("to another host: %q, %v", elsewhere.Value("seen"), err)
	}
	jar := rf.LoginClient("https://h.example").Jar
	with := login
	with.Client = &http.Client{Transport: client.Transport, Jar: jar}
	if err := with.Validate(); err == nil || !strings.Contains(err.Error(), "Client.Jar") {
		t.Error(err)
	}
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{
		{Name: "login", Fetcher: &login},
		{Name: "config", DependsOn: []string{"login"}, Fetcher: &rf.HTTPFetcher{URL: "https://h.example/config", Client: client, Read: func(in rf.Input, _ *http.Response, _ []byte) (*rf.Token, error) {
			return &rf.Token{AccessToken: in.Parents["login"].AccessToken}, nil
		}}},
	}})
	if handed, err := p.Token(t.Context()); err != nil || !strings.Contains(handed.String(), "1 cookies") {
		t.Errorf("handed on: %v, %v", handed, err)
	}
}

// A server that sets ever more cookies that soon end pushes no session out of a token.
func TestCookiesThatEndPushNoSessionOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, refused, logins := 0, 0, 0
		client := inMemory(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/login" {
				logins++
				http.SetCookie(w, &http.Cookie{Name: "sid", Value: "1", Path: "/"})
				answerJSON(w, 200, object{"access_token": "a"})
				return
			}
			if c, err := r.Cookie("sid"); err != nil || c.Value != "1" {
				refused++
				w.WriteHeader(401)
				return
			}
			n++
			http.SetCookie(w, &http.Cookie{Name: fmt.Sprint("nonce.", n), Value: "x", Path: "/", MaxAge: 1})
		})
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "s", Fetcher: &rf.HTTPFetcher{URL: "https://h.example/login", Cookies: true, Client: client}}}})
		rt := &rf.AuthTransport{Source: p, Origins: []string{"https://h.example"}, Base: client.Transport}
		for range 120 {
			time.Sleep(time.Minute)
			get(t, rt, "https://h.example/api")
		}
		if refused > 0 || logins > 1 {
			t.Errorf("%d refusals, %d logins", refused, logins)
		}
	})
}

// A refusal changes none of a token's cookies: the server may not know the session yet,
// and the cookies are those of it. An answer that Learn has the request sent again for
// does, be it a refusal.
func TestCookiesAreNotChangedByARefusal(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		set    string
		learn  bool
		want   string
	}{
		"ended":         {401, "sid=; Path=/; Max-Age=0", false, "sid=1"},
		"set":           {401, "sid=anonymous; Path=/", false, "sid=1"},
		"another, 403":  {403, "also=x; Path=/", false, "sid=1"},
		"after a Learn": {403, "csrf=x; Path=/", true, "sid=1; csrf=x"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logins := 0
				var sent []string
				client := inMemory(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/login" {
						logins++
						http.SetCookie(w, &http.Cookie{Name: "sid", Value: fmt.Sprint(logins), Path: "/"})
						answerJSON(w, 200, object{"access_token": fmt.Sprint("a", logins)})
						return
					}
					if sent = append(sent, r.Header.Get("Cookie")); len(sent) == 1 {
						w.Header().Set("Set-Cookie", c.set)
						w.WriteHeader(c.status)
					}
				})
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "s", Fetcher: &rf.HTTPFetcher{URL: "https://h.example/login", Cookies: true, Client: client}}}})
				rt := &rf.AuthTransport{Source: p, Origins: []string{"https://h.example"}, Base: client.Transport, RefusedStatus: []int{403}}
				if c.learn {
					rt.Learn = func(resp *http.Response, _ *rf.Token) bool { return resp.StatusCode == 403 }
				}
				get(t, rt, "https://h.example/api")
				require.Equal(t, []string{"sid=1", c.want}, sent)
				require.Equal(t, 1, logins)
			})
		})
	}
}

// A refresh sends the cookies of the token before, as the API has renewed them, but those
// of a parent's new login rather than those of the session before.
func TestRefreshSendsTheNewestCookies(t *testing.T) {
	for _, c := range []struct {
		life int // of the login, in seconds
		want string
	}{{900, "sid=2"}, {90000, "sid=renewed"}} {
		for name, storage := range map[string]*rf.MemoryStorage{"in one process": nil, "in two": rf.NewMemoryStorage()} {
			t.Run(fmt.Sprint(name, c.life), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					logins := 0
					var seen string
					client := inMemory(func(w http.ResponseWriter, r *http.Request) {
						switch r.URL.Path {
						case "/login":
							logins++
							http.SetCookie(w, &http.Cookie{Name: "sid", Value: fmt.Sprint(logins), Path: "/"})
							answerJSON(w, 200, object{"access_token": fmt.Sprint("l", logins), "expires_in": c.life})
						case "/user":
							http.SetCookie(w, &http.Cookie{Name: "sid", Value: "renewed", Path: "/"})
							fallthrough
						default:
							seen = r.Header.Get("Cookie")
							answerJSON(w, 200, object{"access_token": "u" + seen, "refresh_token": "r", "expires_in": 1000})
						}
					})
					user := rf.HTTPFetcher{URL: "https://h.example/user", Client: client, Cookies: true}
					refresh := user
					refresh.URL = "https://h.example/refresh"
					cfg := rf.PipelineConfig{RefreshAhead: -1, Steps: []rf.Step{
						{Name: "login", Fetcher: &rf.HTTPFetcher{URL: "https://h.example/login", Client: client}},
						{Name: "user", DependsOn: []string{"login"}, Fetcher: &user, Refresh: &refresh},
					}}
					if storage != nil {
						cfg.Storage = storage
					}
					p := pipeline(t, cfg)
					mustToken(t, p)
					time.Sleep(time.Hour)
					if storage != nil {
						p = pipeline(t, cfg)
					}
					mustToken(t, p)
					require.Equal(t, c.want, seen)
				})
			})
		}
	}
}

// What the API renews while a refresh is under way is not lost with the token before.
func TestCookieRenewedDuringARefreshIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, k := 0, 0
		gate := make(chan struct{})
		client := inMemory(func(w http.ResponseWriter, r *http.Request) {
			if n++; n == 1 {
				http.SetCookie(w, &http.Cookie{Name: "sid", Value: "v0", Path: "/"})
			} else {
				<-gate
			}
			answerJSON(w, 200, object{"access_token": fmt.Sprint("a", n), "refresh_token": "r", "expires_in": 600})
		})
		f := &rf.HTTPFetcher{URL: "https://h.example/login", Cookies: true, Client: client}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "login", Fetcher: f, Refresh: f}}})
		var got []string
		rt := &rf.AuthTransport{Source: p, Origins: []string{"https://h.example"}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			got = append(got, req.Header.Get("Authorization")+" "+req.Header.Get("Cookie"))
			k++
			return reply(req, 200, "Set-Cookie", fmt.Sprintf("sid=v%d; Path=/", k)), nil
		})}
		get(t, rt, "https://h.example/api")
		time.Sleep(560 * time.Second)
		get(t, rt, "https://h.example/api") // begins the refresh
		synctest.Wait()
		get(t, rt, "https://h.example/api") // renews the cookie meanwhile
		close(gate)
		synctest.Wait()
		get(t, rt, "https://h.example/api")
		require.Equal(t, []string{"Bearer a1 sid=v0", "Bearer a1 sid=v1", "Bearer a1 sid=v2", "Bearer a2 sid=v3"}, got)
	})
}

// A cookie that a refresh ends comes back neither from the token before, nor from a parent.
func TestCookieThatARefreshEndsStaysEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := inMemory(func(w http.ResponseWriter, r *http.Request) {
			life := 600
			switch r.URL.Path {
			case "/login":
				life = 90000
				http.SetCookie(w, &http.Cookie{Name: "pre", Value: "1", Path: "/"})
			case "/refresh":
				http.SetCookie(w, &http.Cookie{Name: "pre", Path: "/", MaxAge: -1})
			}
			answerJSON(w, 200, object{"access_token": "a" + r.URL.Path, "refresh_token": "r", "expires_in": life, "seen": r.Header.Get("Cookie")})
		})
		user := rf.HTTPFetcher{URL: "https://h.example/user", Cookies: true, Client: client}
		refresh := user
		refresh.URL = "https://h.example/refresh"
		p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Steps: []rf.Step{
			{Name: "login", Fetcher: &rf.HTTPFetcher{URL: "https://h.example/login", Client: client}},
			{Name: "user", DependsOn: []string{"login"}, Fetcher: &user, Refresh: &refresh},
		}})
		for _, want := range []string{"pre=1", "pre=1", "", ""} {
			tok := mustToken(t, p)
			require.Equal(t, want, tok.Value("seen"))
			if want == "" {
				require.NotContains(t, tok.String(), "cookies")
			}
			time.Sleep(11 * time.Minute)
		}
	})
}

// A token that a version without Cookies has stored is none of a version with them.
func TestCookiesSwitchedOnOverAStorage(t *testing.T) {
	client := inMemory(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" {
			http.SetCookie(w, &http.Cookie{Name: "sid", Value: "1", Path: "/"})
		}
		answerJSON(w, 200, object{"access_token": "a", "seen": r.Header.Get("Cookie")})
	})
	for _, identity := range []string{"", "ann"} {
		storage := rf.NewMemoryStorage()
		for _, cookies := range []bool{false, true} {
			p := pipeline(t, rf.PipelineConfig{Storage: storage, Steps: []rf.Step{
				{Name: "login", Identity: identity, Fetcher: &rf.HTTPFetcher{URL: "https://h.example/login", Client: client}},
				{Name: "user", Identity: identity, DependsOn: []string{"login"}, Fetcher: &rf.HTTPFetcher{URL: "https://h.example/user", Client: client, Cookies: cookies}},
			}})
			tok := mustToken(t, p)
			if want := map[bool]string{true: "sid=1"}[cookies]; tok.Value("seen") != want || strings.Contains(tok.String(), "1 cookies") != cookies {
				t.Errorf("identity %q, Cookies %v: %q, %v", identity, cookies, tok.Value("seen"), tok)
			}
		}
	}
}

// The cookies of a login's first call get to a step with Cookies through a function that
// knows nothing of them.
func TestCookiesGoThroughAFunction(t *testing.T) {
	var seen string
	client := inMemory(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/user" {
			seen = r.Header.Get("Cookie")
		} else {
			http.SetCookie(w, &http.Cookie{Name: r.URL.Path[1:], Value: "1", Path: "/"})
		}
		answerJSON(w, 200, object{"access_token": "a" + r.URL.Path})
	})
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{
		{Name: "page", Fetcher: &rf.HTTPFetcher{URL: "https://h.example/page", Client: client}},
		{Name: "other", Fetcher: &rf.HTTPFetcher{URL: "https://h.example/other", Client: client}},
		{Name: "solve", DependsOn: []string{"page", "other"}, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
			return &rf.Token{AccessToken: "solved"}, nil
		})},
		{Name: "user", DependsOn: []string{"solve"}, Fetcher: &rf.HTTPFetcher{URL: "https://h.example/user", Client: client, Cookies: true}},
	}})
	mustToken(t, p)
	require.Equal(t, "other=1; page=1", seen)
}

// The end of a cookie is by the server's clock, for the token in the cookie as for those
// that are kept, and none overflows.
func TestCookieEnds(t *testing.T) {
	const never = 0
	for _, c := range []struct {
		line string // with %s for the time in an hour
		skew time.Duration
		life time.Duration
	}{
		{"Expires=%s", -5 * time.Hour, time.Hour},
		{"Expires=%s", 5 * time.Hour, time.Hour},
		{"Max-Age=60; Expires=%s", 5 * time.Hour, time.Minute},
		{"Max-Age=31536000", 0, 365 * 24 * time.Hour},
		{"Max-Age=9999999999", 0, 400 * 24 * time.Hour},
		{"Max-Age=9223372036854775807", 0, 400 * 24 * time.Hour},
		{"Path=/", 5 * time.Hour, never},
	} {
		synctest.Test(t, func(t *testing.T) {
			date := time.Now().Add(c.skew).UTC()
			f := &rf.HTTPFetcher{URL: "https://h.example/", TokenCookie: "sid", Cookies: true, Client: inMemory(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", date.Format(http.TimeFormat))
				w.Header().Set("Set-Cookie", "sid=a; "+strings.Replace(c.line, "%s", date.Add(time.Hour).Format(http.TimeFormat), 1))
			})}
			tok, err := f.Fetch(t.Context(), rf.Input{})
			require.NoError(t, err, c.line)
			require.Contains(t, tok.String(), "1 cookies", c.line)
			if c.life == never {
				require.True(t, tok.Expiry.IsZero(), c.line)
			} else {
				require.WithinDuration(t, time.Now().Add(c.life), tok.Expiry, time.Second, c.line)
				time.Sleep(c.life + time.Second)
				require.NotContains(t, tok.String(), "cookies", c.line)
			}
		})
	}
}

// What an answer takes back is the cookie of that domain and path, by Max-Age or by any
// Expires that is over by the server's clock.
func TestTokenCookieTakenBack(t *testing.T) {
	ago := "; Expires=" + time.Now().Add(-365*24*time.Hour).UTC().Format(http.TimeFormat)
	for name, c := range map[string]struct {
		lines []string
		want  string // "": none
	}{
		"of another path":      {[]string{"sid=new; Path=/", "sid=; Path=/old; Max-Age=0"}, "new"},
		"of the default path":  {[]string{"sid=new", "sid=; Path=/; Max-Age=0"}, "new"},
		"of another domain":    {[]string{"sid=new; Path=/", "sid=; Path=/; Domain=example.com; Max-Age=0"}, "new"},
		"the same, in full":    {[]string{"sid=new; Path=/", "sid=; Path=/; Domain=.auth.example.com; Max-Age=0"}, ""},
		"the same":             {[]string{"sid=new", "sid=; Path=/a; Max-Age=0"}, ""},
		"the later of two":     {[]string{"sid=old; Path=/", "sid=new; Path=/x", "sid=; Path=/x; Max-Age=0"}, "old"},
		"set once more":        {[]string{"sid=; Max-Age=0", "sid=new"}, "new"},
		"last year":            {[]string{"sid=deleted" + ago}, ""},
		"Max-Age goes first":   {[]string{"sid=new; Max-Age=60" + ago}, "new"},
		"a second ago, by far": {[]string{"sid=new; Expires=Thu, 01 Jan 1970 00:00:01 GMT"}, ""},
	} {
		f := &rf.HTTPFetcher{URL: "https://auth.example.com/a/b", TokenCookie: "sid", Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Set-Cookie"] = c.lines
		})}
		tok, err := f.Fetch(t.Context(), rf.Input{})
		if c.want == "" {
			require.ErrorContains(t, err, "sets no cookie", name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.want, tok.AccessToken, name)
	}
}
