// The places that the values of a token go to.

package requestforge_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// rich is a source of a token with Extra, "t-0" and so on.
type rich struct{ numbered }

func (s *rich) Token(ctx context.Context) (*rf.Token, error) {
	tok, err := s.numbered.Token(ctx)
	if err == nil {
		n := strings.TrimPrefix(tok.AccessToken, "t-")
		tok.Extra = map[string]any{"csrf": "c-" + n, "data": map[string]any{"tenant": json.Number("7"), "list": []any{"x", true}}, "bad": "a\r\nb", "odd": "a;b c"}
	}
	return tok, err
}

func newRich() *rich { return &rich{numbered{name: "t"}} }

func sentBy(t *testing.T, rt *rf.AuthTransport, req *http.Request) (*http.Request, error) {
	var sent *http.Request
	rt.Origins = []string{host}
	if rt.Source == nil {
		rt.Source = newRich()
	}
	rt.Base = roundTrip(func(out *http.Request) (*http.Response, error) {
		sent = out
		return reply(out, 200), nil
	})
	before := req.Clone(t.Context())
	_, err := rt.RoundTrip(req)
	require.Equal(t, before.URL, req.URL, "the caller's own request")
	require.Equal(t, before.Header, req.Header, "the caller's own request")
	return sent, err
}

func TestPlaceIsWhereAValueGoes(t *testing.T) {
	for name, c := range map[string]struct {
		places []rf.Place
		want   map[string]string // "?" is the query
	}{
		"nil":                    {nil, map[string]string{"Authorization": "Bearer t-0"}},
		"bare":                   {[]rf.Place{{Header: "Authorization", Bare: true}}, map[string]string{"Authorization": "t-0"}},
		"a scheme":               {[]rf.Place{{Header: "Authorization", Scheme: "Token"}}, map[string]string{"Authorization": "Token t-0"}},
		"a scheme elsewhere":     {[]rf.Place{{Header: "X-Serverless-Authorization", Scheme: "Bearer"}}, map[string]string{"X-Serverless-Authorization": "Bearer t-0"}},
		"a header":               {[]rf.Place{{Header: "x-key"}}, map[string]string{"X-Key": "t-0"}},
		"a query parameter":      {[]rf.Place{{Query: "api key"}}, map[string]string{"?": "a=%7e&b&api+key=t-0"}},
		"a cookie":               {[]rf.Place{{Cookie: "session"}}, map[string]string{"Cookie": "mine=1; session=t-0"}},
		"a cookie of the caller": {[]rf.Place{{Cookie: "mine"}}, map[string]string{"Cookie": "mine=t-0"}},
		"a value":                {[]rf.Place{{Header: "X-Csrf", Value: "csrf"}}, map[string]string{"X-Csrf": "c-0"}},
		"a number":               {[]rf.Place{{Header: "X-Tenant", Value: "data.tenant"}}, map[string]string{"X-Tenant": "7"}},
		"one of a list":          {[]rf.Place{{Header: "X-A", Value: "data.list.0"}, {Header: "X-B", Value: "data.list.1"}}, map[string]string{"X-A": "x", "X-B": "true"}},
		"several":                {[]rf.Place{{Cookie: "session"}, {Header: "X-Csrf", Value: "csrf"}, {Query: "key", Text: "k&1"}}, map[string]string{"Cookie": "mine=1; session=t-0", "X-Csrf": "c-0", "?": "a=%7e&b&key=k%261"}},
	} {
		req, _ := http.NewRequest("GET", host+"/x?a=%7e&b", nil)
		req.Header.Set("Cookie", "mine=1")
		sent, err := sentBy(t, &rf.AuthTransport{Attach: c.places}, req)
		require.NoError(t, err, name)
		for where, want := range c.want {
			got := sent.Header.Get(where)
			if where == "?" {
				got = sent.URL.RawQuery
			}
			require.Equal(t, want, got, name)
		}
		if c.places != nil && c.want["Authorization"] == "" {
			require.Empty(t, sent.Header.Get("Authorization"), name)
		}
	}
}

// What can't be sent is an error that names the place, and nothing goes out.
func TestPlaceWithoutItsValueSendsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		place rf.Place
		want  []string
	}{
		"absent":                     {rf.Place{Header: "X-A", Value: "none"}, []string{`header "X-A"`, `"none"`}},
		"an object":                  {rf.Place{Query: "q", Value: "data"}, []string{`query parameter "q"`, `"data"`}},
		"control characters":         {rf.Place{Header: "X-A", Value: "bad"}, []string{`header "X-A"`, "control"}},
		"a semicolon in a cookie":    {rf.Place{Cookie: "c", Value: "odd"}, []string{`cookie "c"`, "semicolons"}},
		"control bytes in a cookie":  {rf.Place{Cookie: "c", Value: "bad"}, []string{`cookie "c"`}},
		"control bytes, and a query": {rf.Place{Query: "q", Value: "bad"}, nil}, // escaped
	} {
		req, _ := http.NewRequest("POST", host, strings.NewReader("body"))
		sent, err := sentBy(t, &rf.AuthTransport{Attach: []rf.Place{c.place}}, req)
		if c.want == nil {
			require.NoError(t, err, name)
			continue
		}
		require.Nil(t, sent, name)
		for _, want := range c.want {
			require.ErrorContains(t, err, want, name)
		}
		require.NotContains(t, err.Error(), "a;b", name)
	}
	p := pipeline(t, rf.PipelineConfig{Steps: newLogin().chain()})
	req, _ := http.NewRequest("GET", host, nil)
	_, err := sentBy(t, &rf.AuthTransport{Source: p, Attach: []rf.Place{{Header: "X-A", Value: "none"}}}, req)
	require.ErrorContains(t, err, `step "user"`)
}

func TestPlaceMistakesAreErrors(t *testing.T) {
	for want, places := range map[string][]rf.Place{
		"Attach is empty":      {},
		"neither":              {{}},
		"several of":           {{Header: "X", Query: "x"}},
		"not a header name":    {{Header: "X Y"}},
		"not a cookie name":    {{Cookie: "a b"}},
		"Place.Cookie":         {{Header: "cookie"}},
		"net/http writes":      {{Header: "Host"}},
		"keep-alive":           {{Header: "keep-alive"}},
		"Connection":           {{Header: "Connection"}},
		"Proxy-Connection":     {{Header: "Proxy-Connection"}},
		`"TE": is`:             {{Header: "TE"}},
		"over HTTP/2":          {{Header: "Upgrade"}},
		"both Value and Text":  {{Header: "X", Value: "a", Text: "b"}},
		"empty part":           {{Header: "X", Value: "a..b"}},
		"Scheme":               {{Query: "x", Scheme: "Bearer"}},
		`Scheme "a b"`:         {{Header: "X", Scheme: "a b"}},
		"Bare":                 {{Header: "X", Bare: true}},
		"Bare is for":          {{Header: "Authorization", Bare: true, Scheme: "X"}},
		"there twice":          {{Header: "X-Key"}, {Header: "x-key", Value: "a"}},
		"Text: a header can't": {{Header: "X", Text: "a\nb"}},
		"Text: no cookie can":  {{Cookie: "x", Text: "a;b"}},
	} {
		_, err := rf.NewTransport(rf.Config{BaseURL: host, Source: static("t"), Attach: places})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "Attach")
	}
}

// The caller's own value in any of the places is a conflict, but for cookies.
func TestPlaceConflicts(t *testing.T) {
	set := map[string]func(req *http.Request){
		`header "X-Key"`:        func(req *http.Request) { req.Header["x-KEY"] = []string{"mine"} },
		`query parameter "key"`: func(req *http.Request) { req.URL.RawQuery = "a=1&%6bey=mine" },
	}
	for name, change := range set {
		for mode, reason := range map[rf.Conflict]rf.Reason{rf.KeepCaller: rf.ReasonConflict, rf.RejectCaller: rf.ReasonConflict, rf.ReplaceCaller: rf.ReasonSend} {
			rt := &rf.AuthTransport{Attach: []rf.Place{{Cookie: "mine"}, {Header: "X-Key"}, {Query: "key"}}, OnConflict: mode, Origins: []string{host}, Source: newRich()}
			req, _ := http.NewRequest("GET", host, nil)
			change(req)
			req.Header.Set("Cookie", "mine=1; other=2")
			d := rt.Explain(req)
			require.Equal(t, reason, d.Reason)
			if reason == rf.ReasonConflict {
				require.Equal(t, name, d.Place)
			}
			sent, err := sentBy(t, &rf.AuthTransport{Attach: rt.Attach, OnConflict: mode}, req)
			switch mode {
			case rf.RejectCaller:
				require.Error(t, err)
			case rf.KeepCaller:
				require.NoError(t, err)
				require.Equal(t, req.URL, sent.URL)
				require.Equal(t, "mine=1; other=2", sent.Header.Get("Cookie"))
			case rf.ReplaceCaller:
				require.NotContains(t, fmt.Sprint(sent.Header, sent.URL.RawQuery), "mine]")
				require.NotContains(t, sent.URL.RawQuery, "mine")
				require.Equal(t, "other=2; mine=t-0", sent.Header.Get("Cookie"))
			}
		}
	}
}

// A cookie beside those of the caller's Jar: neither is lost, on replays neither.
func TestPlaceCookieBesideAJar(t *testing.T) {
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Cookie"))
		http.SetCookie(w, &http.Cookie{Name: "theirs", Value: "1"})
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "servers"}) // ours takes its place
		if !strings.Contains(r.Header.Get("Cookie"), "session=t-1") {
			w.WriteHeader(401)
		}
	}))
	defer srv.Close()
	jar, _ := cookiejar.New(nil)
	tr, err := rf.NewTransport(rf.Config{BaseURL: srv.URL, Source: newRich(), Attach: []rf.Place{{Cookie: "session"}}})
	require.NoError(t, err)
	client := &http.Client{Transport: tr, Jar: tr.Jar(jar)}
	for range 2 {
		resp, err := client.Get("/x")
		wantStatus(t, resp, err, 200)
	}
	require.Equal(t, []string{"session=t-0", "session=t-1", "theirs=1; session=t-1"}, got)
}

// csrfLogin is an API with a session in a cookie, and a CSRF value that belongs to it.
type csrfLogin struct {
	n       int
	session string
}

func (l *csrfLogin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/csrf" {
		l.n++
		l.session = fmt.Sprint("s-", l.n)
		http.SetCookie(w, &http.Cookie{Name: "SESSION", Value: l.session, Path: "/"})
		w.Header().Set("X-CSRF-Token", "csrf-of-"+l.session)
		return
	}
	c, err := r.Cookie("SESSION")
	if err != nil || c.Value != l.session || r.Header.Get("X-CSRF-Token") != "csrf-of-"+l.session {
		w.Header().Set("X-CSRF-Token", "Required")
		w.WriteHeader(403)
	}
}

func (l *csrfLogin) pipeline(t *testing.T, url string) *rf.Pipeline {
	return pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "csrf", Fetcher: &rf.HTTPFetcher{
		URL: url + "/csrf", Method: "GET", Header: http.Header{"X-Csrf-Token": {"Fetch"}}, TokenHeader: "X-CSRF-Token", Cookies: true,
	}}}})
}

// A CSRF value and the session cookie that it belongs to are replaced together: each send,
// replays too, has the cookies of now, beside those of a Jar.
func TestPlaceCSRFValueGoesWithItsCookie(t *testing.T) {
	login := &csrfLogin{}
	srv := httptest.NewServer(login)
	defer srv.Close()
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar, Transport: &rf.AuthTransport{
		Source: login.pipeline(t, srv.URL), Origins: []string{srv.URL}, Attach: []rf.Place{{Header: "X-CSRF-Token"}},
		Refused: func(r *http.Response) bool { return r.StatusCode == 403 && r.Header.Get("X-CSRF-Token") == "Required" },
	}}
	for i := range 4 {
		if i == 2 {
			login.session = "expired"
		}
		resp, err := client.Post(srv.URL+"/api", "text/plain", strings.NewReader("x"))
		wantStatus(t, resp, err, 200)
	}
	require.Equal(t, 2, login.n)
}

// A token whose cookies are all of it needs no place; a token without any is an error then.
func TestPlaceNowhereButInTheCookies(t *testing.T) {
	cookie := "sid=s-1; Path=/"
	login := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		resp := reply(req, 200, "X-Token", "t-1")
		if cookie != "" {
			resp.Header.Set("Set-Cookie", cookie)
		}
		return resp, nil
	})}
	for _, want := range []string{"sid=s-1", ""} {
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "web", Fetcher: &rf.HTTPFetcher{URL: host + "/login", TokenHeader: "X-Token", Cookies: true, Client: login}}}})
		for _, src := range []rf.TokenSource{p, p.Source("web")} {
			req, _ := http.NewRequest("GET", host, nil)
			sent, err := sentBy(t, &rf.AuthTransport{Source: src, Attach: []rf.Place{}}, req)
			if want == "" {
				require.ErrorContains(t, err, `step "web" has no cookies`)
				require.Nil(t, sent)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, http.Header{"Cookie": {want}}, sent.Header)
		}
		cookie = ""
	}
}

// A query value that a Location sends back goes no further, within and across origins.
func TestPlaceQueryIsTakenOutOfALocation(t *testing.T) {
	var elsewhere []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { elsewhere = append(elsewhere, r.URL.RawQuery) }))
	defer other.Close()
	mux := http.NewServeMux()
	var here []string
	mux.HandleFunc("/dir/", func(w http.ResponseWriter, r *http.Request) { here = append(here, r.URL.RawQuery) })
	mux.HandleFunc("/out", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/?"+r.URL.RawQuery, http.StatusFound)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	tr, err := rf.NewTransport(rf.Config{BaseURL: srv.URL, Source: static("s3cret"), Attach: []rf.Place{{Query: "key"}}})
	require.NoError(t, err)
	client := &http.Client{Transport: tr}
	for _, path := range []string{"/dir?a=1", "/out?a=%7e"} {
		resp, err := client.Get(path)
		wantStatus(t, resp, err, 200)
		require.NotContains(t, fmt.Sprint(resp.Request.URL, resp.Request.Header), "s3cret")
	}
	require.Equal(t, []string{"a=1&key=s3cret"}, here, "once")
	require.Equal(t, []string{"a=%7e"}, elsewhere)
}

// Other headers of an answer repeat URLs, too; and a URL may be a parameter of another.
func TestPlaceQueryIsTakenOutOfAllURLsOfAnAnswer(t *testing.T) {
	rt := &rf.AuthTransport{Source: static("s3cr&t"), Origins: []string{host}, Attach: []rf.Place{{Query: "key"}}, OnConflict: rf.ReplaceCaller,
		Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			require.Equal(t, "a=1&key=s3cr%26t", req.URL.RawQuery)
			return reply(req, 302, "Location", "/login?next=%2Fx%3Fkey%3Ds3cr%2526t&key=s3cr%26t", "Content-Location", "/x?key=s3cr%26t&a=1",
				"Link", `</x?page=2&key=s3cr%26t>; rel="next"`, "Link", "</y>; rel=last"), nil
		})}
	resp := get(t, rt, host+"/x?key=mine&a=1")
	require.Equal(t, http.Header{"Location": {"/login?next=%2Fx"}, "Content-Location": {"/x?a=1"}, "Link": {`</x?page=2>; rel="next"`, "</y>; rel=last"}}, resp.Header)
	require.Equal(t, host+"/x?key=mine&a=1", resp.Request.URL.String())
}

// A server may put the URL that it was asked for anywhere into a Location; one that was all
// query leads to the same page.
func TestPlaceQueryIsTakenOutOfALocationHoweverItIsThere(t *testing.T) {
	for location, want := range map[string]string{
		"https://sso.example/login?next=%252Fx%253Fkey%253Ds3cret": "https://sso.example/login?next=%252Fx",
		"https://sso.example/login?/x%3Fkey%3Ds3cret":              "https://sso.example/login?%2Fx",
		"https://sso.example/login/%2Fx%3Fkey%3Ds3cret":            "https://sso.example/login/%2Fx",
		"https://sso.example/x?a=1;key=s3cret":                     "https://sso.example/x?a=1",
		"?key=s3cret":                                              "?",
	} {
		rt := &rf.AuthTransport{Source: static("s3cret"), Origins: []string{host}, Attach: []rf.Place{{Query: "key"}},
			Base: roundTrip(func(req *http.Request) (*http.Response, error) { return reply(req, 302, "Location", location), nil })}
		require.Equal(t, want, get(t, rt, host+"/x").Header.Get("Location"))
	}
}

// A redirect to the same page, by its query, is one.
func TestPlaceQueryAndARedirectToTheSamePage(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := r.Cookie("seen"); err != nil {
			http.SetCookie(w, &http.Cookie{Name: "seen", Value: "1"})
			w.Header().Set("Location", "?"+r.URL.RawQuery)
			w.WriteHeader(http.StatusFound)
		}
	}))
	defer srv.Close()
	tr, err := rf.NewTransport(rf.Config{BaseURL: srv.URL, Source: static("s3cret"), Attach: []rf.Place{{Query: "key"}}})
	require.NoError(t, err)
	for _, u := range []string{"/x", srv.URL + "/y", "/z?a=1"} {
		jar, _ := cookiejar.New(nil)
		resp, err := (&http.Client{Transport: tr, Jar: tr.Jar(jar)}).Get(u)
		wantStatus(t, resp, err, 200)
	}
}

// The query value is in the log of no layer, above or below.
func TestPlaceQueryIsMaskedInTheLog(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	base := roundTrip(func(req *http.Request) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "fail") {
			return nil, fmt.Errorf("Get %q: no route", req.URL)
		}
		return reply(req, 302, "Location", req.URL.String()), nil
	})
	tr, err := rf.NewTransport(rf.Config{BaseURL: host, Source: static("s3cret"), Attach: []rf.Place{{Query: "key"}, {Query: "api", Text: "s3cret-2"}},
		Base: &rf.LoggingTransport{Base: base, Logger: logger, Headers: true}, Logger: logger, LogHeaders: true})
	require.NoError(t, err)
	get(t, tr, "/x?a=1")
	req, _ := http.NewRequest("GET", "/fail", nil)
	_, err = tr.RoundTrip(req)
	require.Error(t, err)
	require.Equal(t, 4, strings.Count(out.String(), "\n"))
	require.NotContains(t, out.String(), "s3cret")

	// Nor if the caller's own query is shown.
	for name, fail := range map[string]func(req *http.Request) error{
		"url.Error": func(req *http.Request) error {
			return &url.Error{Op: "Get", URL: req.URL.String(), Err: errors.New("no route")}
		},
		"text": func(req *http.Request) error { return fmt.Errorf("GET %s giving up after 5 attempts", req.URL) },
	} {
		out.Reset()
		tr, err := rf.NewTransport(rf.Config{BaseURL: host, Source: static("s3cret"), Attach: []rf.Place{{Query: "key"}},
			Base:   roundTrip(func(req *http.Request) (*http.Response, error) { return nil, fail(req) }),
			Logger: logger, LogURL: func(u *url.URL) string { return u.String() }})
		require.NoError(t, err)
		req, _ := http.NewRequest("GET", "/x?page=2", nil)
		_, err = tr.RoundTrip(req)
		require.Error(t, err)
		require.NotContains(t, out.String(), "s3cret", name)
		require.Contains(t, out.String(), "/x?page=2", name)
	}
}

// A signature over method, path and date with the token as key; and a session id in the
// body. Both are made anew for each send.
func TestPrepareSignsEachSend(t *testing.T) {
	sign := func(key, method, path, date string) string {
		m := hmac.New(sha256.New, []byte(key))
		io.WriteString(m, method+path+date)
		return hex.EncodeToString(m.Sum(nil))
	}
	var bodies []string
	base := roundTrip(func(req *http.Request) (*http.Response, error) {
		body, _ := io.ReadAll(req.Body)
		bodies = append(bodies, string(body))
		if req.ContentLength != int64(len(body)) || req.Header.Get("X-Signature") != sign("t-1", req.Method, req.URL.Path, req.Header.Get("Date")) {
			return reply(req, 401), nil
		}
		return reply(req, 200), nil
	})
	closes := 0
	rt := &rf.AuthTransport{Base: base, Source: newRich(), Origins: []string{host}, Attach: []rf.Place{}, Prepare: func(out *http.Request, tok *rf.Token) error {
		text := fmt.Sprintf(`{"session":%q}`, tok.AccessToken)
		out.Body, out.ContentLength = closeCounter{strings.NewReader(text), &closes}, int64(len(text))
		out.Header.Set("Date", "now")
		out.Header["X-Other"][0] = "changed"
		out.Header.Set("X-Signature", sign(tok.AccessToken, out.Method, out.URL.Path, "now"))
		return nil
	}}
	callers := newRetryBody("{}")
	req, _ := http.NewRequest("POST", host+"/pay", callers)
	req.Header.Set("X-Other", "1")
	resp, err := rt.RoundTrip(req)
	wantStatus(t, resp, err, 200)
	require.Equal(t, []string{`{"session":"t-0"}`, `{"session":"t-1"}`}, bodies)
	require.Equal(t, "1", req.Header.Get("X-Other"))
	require.Equal(t, 2, closes)
	callers.wantClosedOnce(t)
}

// oddBody is of a type that can't be compared.
type oddBody struct {
	io.Reader
	unused []int
}

func (oddBody) Close() error { return nil }

// A body that Prepare only looks at goes out as it was, with the way to have it again; one
// that it replaces takes that way along, and what is left of the old one is never sent.
func TestPrepareAndTheBody(t *testing.T) {
	own := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("again")), nil }
	replaced := io.NopCloser(strings.NewReader("new"))
	for name, c := range map[string]struct {
		prepare func(out *http.Request)
		body    io.ReadCloser // nil: the caller's
		again   string        // what GetBody gives; "": there is none
	}{
		"doesn't look":  {func(out *http.Request) {}, nil, "body"},
		"replaces":      {func(out *http.Request) { out.Body, out.ContentLength = replaced, 3 }, replaced, ""},
		"replaces both": {func(out *http.Request) { out.Body, out.GetBody = replaced, own }, replaced, "again"},
		"takes away":    {func(out *http.Request) { out.Body, out.ContentLength = nil, 0 }, http.NoBody, ""},
		"empties":       {func(out *http.Request) { out.Body, out.ContentLength, out.GetBody = http.NoBody, 0, nil }, http.NoBody, ""},
		"no header":     {func(out *http.Request) { out.Header = nil }, nil, "body"},
	} {
		req, _ := http.NewRequest("POST", host, strings.NewReader("body"))
		callers := oddBody{strings.NewReader("body"), []int{1}}
		req.Body = callers
		rt := &rf.AuthTransport{Source: static("t"), Origins: []string{host}, Prepare: func(out *http.Request, _ *rf.Token) error { c.prepare(out); return nil },
			Base: roundTrip(func(out *http.Request) (*http.Response, error) {
				switch {
				case c.body == nil:
					odd, ok := out.Body.(oddBody)
					require.True(t, ok && odd.Reader == callers.Reader, name)
				case c.body == http.NoBody:
					require.True(t, out.Body == nil || out.Body == http.NoBody, name)
				default:
					require.True(t, out.Body == c.body, name)
				}
				require.NotNil(t, out.Header)
				require.Equal(t, c.again != "", out.GetBody != nil, name)
				if c.again != "" {
					b, err := out.GetBody()
					require.NoError(t, err)
					text, _ := io.ReadAll(b)
					require.Equal(t, c.again, string(text), name)
				}
				return reply(out, 200), nil
			})}
		resp, err := rt.RoundTrip(req)
		wantStatus(t, resp, err, 200)
	}
}

// A body that Prepare reads, in whatever way, is sent from its first byte all the same, and
// closed once; one that can't be had again is an error, and nothing is sent.
func TestPrepareReadsTheBody(t *testing.T) {
	reads := map[string]func(out *http.Request) (string, error){
		"GetBody": func(out *http.Request) (string, error) {
			b, err := out.GetBody()
			if err != nil {
				return "", err
			}
			defer b.Close()
			text, err := io.ReadAll(b)
			return string(text), err
		},
		"Body": func(out *http.Request) (string, error) {
			text, err := io.ReadAll(out.Body)
			out.Body.Close()
			return string(text), err
		},
	}
	for how, read := range reads {
		for name, c := range map[string]struct {
			size, keep int64
			getBody    bool
			sends      int
		}{
			"GetBody":  {200_000, 0, true, 2},
			"kept":     {4, 0, false, 2},
			"too long": {200_000, 0, false, 0},
			"not kept": {4, -1, false, 0},
		} {
			if how == "GetBody" && c.keep < 0 {
				continue // there is none
			}
			want, sends := strings.Repeat("x", int(c.size)), 0
			body := newRetryBody(want)
			req, _ := http.NewRequest("POST", host, body)
			if c.getBody {
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(want)), nil }
			}
			rt := &rf.AuthTransport{Source: newRich(), Origins: []string{host}, MaxReplayBody: c.keep,
				Prepare: func(out *http.Request, _ *rf.Token) error {
					text, err := read(out)
					require.Equal(t, want, text)
					return err
				},
				Base: roundTrip(func(out *http.Request) (*http.Response, error) {
					text, err := io.ReadAll(out.Body)
					require.NoError(t, err)
					require.Equal(t, want, string(text))
					if sends++; sends == 1 {
						return reply(out, 401), nil
					}
					return reply(out, 200), nil
				})}
			resp, err := rt.RoundTrip(req)
			require.Equal(t, c.sends, sends, "%s, %s: %v", how, name, err)
			if c.sends == 0 {
				require.ErrorContains(t, err, "MaxReplayBody")
			} else {
				wantStatus(t, resp, err, 200)
			}
			body.wantClosedOnce(t)
		}
	}
}

// Prepare is called for each send: for retries, and for what another layer has put on.
func TestPrepareIsCalledForEachSend(t *testing.T) {
	n, fails := 0, 2
	rt := retryOver(&rf.AuthTransport{
		Source: static("outer"), Origins: []string{host}, Attach: []rf.Place{{Header: "X-Gate"}},
		Base: &rf.AuthTransport{Source: static("inner"), Origins: []string{host},
			Prepare: func(out *http.Request, tok *rf.Token) error {
				n++
				out.Header.Set("X-Signed", fmt.Sprint(n, tok.AccessToken, out.Header.Get("X-Gate"), out.Header.Get("Authorization")))
				return nil
			},
			Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				require.Equal(t, fmt.Sprint(n, "inner", "outer", "Bearer inner"), req.Header.Get("X-Signed"))
				if fails--; fails >= 0 {
					return reply(req, 503), nil
				}
				return reply(req, 200), nil
			})}}, retryFast(3))
	require.Equal(t, 200, get(t, rt, host).StatusCode)
	require.Equal(t, 3, n)
}

// What Prepare does wrong is an error, and nothing is sent.
func TestPrepareMistakesSendNothing(t *testing.T) {
	for name, prepare := range map[string]func(out *http.Request, tok *rf.Token) error{
		"fails":        func(*http.Request, *rf.Token) error { return errors.New("no key") },
		"another host": func(out *http.Request, _ *rf.Token) error { out.URL.Host = "evil.example"; return nil },
		"plain http":   func(out *http.Request, _ *rf.Token) error { out.URL.Scheme = "http"; return nil },
		"a Host":       func(out *http.Request, _ *rf.Token) error { out.Host = "evil.example"; return nil },
		"panics":       func(*http.Request, *rf.Token) error { panic("a s3cret") },
		"no URL":       func(out *http.Request, _ *rf.Token) error { out.URL = nil; return nil },
	} {
		body := newRetryBody("body")
		req, _ := http.NewRequest("POST", host, body)
		sent, err := sentBy(t, &rf.AuthTransport{Prepare: prepare}, req)
		require.ErrorContains(t, err, "Prepare", name)
		require.NotContains(t, err.Error(), "s3cret")
		require.Nil(t, sent, name)
		body.wantClosedOnce(t)
	}
}

// Learn hears of each response, and may have the request sent once more.
func TestLearnKeepsANonce(t *testing.T) {
	nonce, sends := "", 0
	rt := &rf.AuthTransport{Source: newRich(), Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
		sends++
		if body, _ := io.ReadAll(req.Body); string(body) != "body" {
			t.Errorf("body %q", body)
		}
		if req.Header.Get("X-Nonce") != "n1" {
			return reply(req, 400, "X-Next", "n1"), nil
		}
		return reply(req, 200, "X-Next", "n2"), nil
	}),
		Prepare: func(out *http.Request, _ *rf.Token) error { out.Header.Set("X-Nonce", nonce); return nil },
		Learn: func(resp *http.Response, tok *rf.Token) bool {
			if body, _ := io.ReadAll(resp.Body); len(body) > 0 || resp.Request.Header.Get("Authorization") != "" || tok.AccessToken != "t-0" {
				t.Errorf("Learn sees %q and %v", body, resp.Request.Header)
			}
			nonce = resp.Header.Get("X-Next")
			return resp.StatusCode == 400
		}}
	req, _ := http.NewRequest("POST", host, strings.NewReader("body"))
	resp, err := rt.RoundTrip(req)
	wantStatus(t, resp, err, 200)
	require.Equal(t, 2, sends)
	require.Equal(t, "n2", nonce)

	sends = 0
	rt = &rf.AuthTransport{Source: newRich(), Origins: []string{host}, Learn: func(*http.Response, *rf.Token) bool { return true },
		Base: roundTrip(func(req *http.Request) (*http.Response, error) { sends++; return reply(req, 200), nil })}
	require.Equal(t, 200, get(t, rt, host).StatusCode)
	require.Equal(t, 2, sends, "once a request, whatever Learn says")
}

// A CSRF value that each response may replace.
func TestLearnKeepsACSRFValue(t *testing.T) {
	csrf, next := "", 0
	rt := &rf.AuthTransport{Source: newRich(), Origins: []string{host}, Attach: []rf.Place{{Cookie: "sid"}},
		Prepare: func(out *http.Request, tok *rf.Token) error {
			out.Header.Set("X-Csrf", cmp.Or(csrf, tok.Value("csrf")))
			return nil
		},
		Learn: func(resp *http.Response, _ *rf.Token) bool {
			csrf = cmp.Or(resp.Header.Get("X-Csrf-Next"), csrf)
			return false
		},
		Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			if want := map[bool]string{true: "c-0", false: fmt.Sprint("n-", next)}[next == 0]; req.Header.Get("X-Csrf") != want {
				return reply(req, 403), nil
			}
			next++
			return reply(req, 200, "X-Csrf-Next", fmt.Sprint("n-", next)), nil
		})}
	for range 3 {
		require.Equal(t, 200, get(t, rt, host).StatusCode)
	}
}

// What Learn has sent again is told to it again, and counts as a replay: a refusal after it
// is replayed as any other. If it panics the answer is closed.
func TestLearnBeforeARefusal(t *testing.T) {
	var told []string
	closed := 0
	rt := &rf.AuthTransport{Source: newRich(), Origins: []string{host},
		Learn: func(resp *http.Response, tok *rf.Token) bool {
			told = append(told, fmt.Sprint(tok.AccessToken, " ", resp.StatusCode))
			if len(told) == 5 {
				panic("a bug")
			}
			return resp.StatusCode == 401
		},
		Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			status := 401
			if req.Header.Get("Authorization") == "Bearer t-1" {
				status = 200
			}
			resp := reply(req, status)
			resp.Body = closeCounter{resp.Body, &closed}
			return resp, nil
		})}
	require.Equal(t, 200, get(t, rt, host).StatusCode)
	require.Equal(t, []string{"t-0 401", "t-0 401", "t-1 200"}, told)
	require.Equal(t, 2, closed)
	get(t, rt, host)
	require.PanicsWithValue(t, "a bug", func() { get(t, rt, host) })
	require.Equal(t, 3, closed)
}

// Once a request is once for all tries of a RetryTransport, with a foreign layer between, too.
func TestLearnIsHeededOnceARequest(t *testing.T) {
	sends := 0
	auth := &rf.AuthTransport{Source: static("t"), Origins: []string{host}, Learn: func(*http.Response, *rf.Token) bool { return true },
		Base: roundTrip(func(req *http.Request) (*http.Response, error) { sends++; return reply(req, 503), nil })}
	for name, below := range map[string]http.RoundTripper{"ours": auth, "foreign": roundTrip(auth.RoundTrip)} {
		sends = 0
		get(t, retryOver(below, retryFast(3)), host)
		require.Equal(t, 5, sends, name)
	}
}

// Where Learn was content in between, a nonce may have changed again: after a failure that is
// waited out, and after a refusal that takes a login.
func TestLearnIsHeededAgainOnceItHasHelped(t *testing.T) {
	src := &refusals{}
	for name, c := range map[string]struct {
		answers []string // "nonce" is what Learn has the request sent again for
		want    int
		sends   int
	}{
		"a failure between":    {[]string{"nonce", "503", "nonce", "503", "nonce", "200"}, 200, 6},
		"a refusal between":    {[]string{"nonce", "401", "nonce", "200"}, 200, 4},
		"nothing between":      {[]string{"nonce", "nonce", "200"}, 400, 2},
		"nothing, and retried": {[]string{"503", "nonce", "nonce", "200"}, 400, 3},
	} {
		sends := 0
		auth := &rf.AuthTransport{Source: src, Origins: []string{host},
			Learn: func(resp *http.Response, _ *rf.Token) bool { return resp.StatusCode == 400 },
			Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				sends++
				status, err := strconv.Atoi(c.answers[sends-1])
				if err != nil {
					status = 400
				}
				return reply(req, status), nil
			})}
		require.Equal(t, c.want, get(t, retryOver(auth, retryFast(3)), host).StatusCode, name)
		require.Equal(t, c.sends, sends, name)
	}
}

// refusals is a source with a new token after each refusal.
type refusals struct{ n atomic.Int64 }

func (r *refusals) Token(context.Context) (*rf.Token, error) {
	return &rf.Token{AccessToken: fmt.Sprint("t-", r.n.Load())}, nil
}

func (r *refusals) Invalidate(context.Context, *rf.Token) error { r.n.Add(1); return nil }

// A GetBody that panics closes the answer, whoever has asked for the body.
func TestLearnWithAGetBodyThatPanics(t *testing.T) {
	for _, again := range []bool{false, true} {
		closed := 0
		rt := &rf.AuthTransport{Source: newRich(), Origins: []string{host}, Learn: func(*http.Response, *rf.Token) bool { return again },
			Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				resp := reply(req, 401)
				resp.Body = closeCounter{resp.Body, &closed}
				return resp, nil
			})}
		req, _ := http.NewRequest("POST", host, strings.NewReader("body"))
		req.GetBody = func() (io.ReadCloser, error) { panic("x") }
		require.PanicsWithValue(t, "x", func() { _, _ = rt.RoundTrip(req) })
		require.Equal(t, 1, closed, again)
	}
}

// Functions of the inner of two layers see no query value of the outer one.
func TestPlaceQueryIsNotSeenByAnInnerLayer(t *testing.T) {
	for name, attach := range map[string][]rf.Place{"query": {{Query: "in"}}, "header": nil} {
		saw := 0
		see := func(resp *http.Response) {
			saw++
			require.NotContains(t, fmt.Sprint(resp.Header, resp.Request.URL, resp.Request.Header), "0uter", name)
		}
		inner := &rf.AuthTransport{Source: static("1nner"), Origins: []string{host}, Attach: attach,
			Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				return reply(req, 302, "Location", req.URL.String()), nil
			}),
			Learn:   func(resp *http.Response, _ *rf.Token) bool { see(resp); return false },
			Refused: func(resp *http.Response) bool { see(resp); return false }}
		get(t, &rf.AuthTransport{Source: static("0uter"), Origins: []string{host}, Attach: []rf.Place{{Query: "out"}}, Base: inner}, host+"/x")
		inner.Learn = nil
		require.Equal(t, 2, saw)
	}
}

func TestPlacePrintsWithoutItsText(t *testing.T) {
	const secret = "hunter2"
	place := rf.Place{Header: "X-Key", Text: secret}
	var out bytes.Buffer
	for _, v := range []any{place, &place, []rf.Place{place}, rf.Config{Attach: []rf.Place{place}}, &rf.AuthTransport{Attach: []rf.Place{place}}} {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %d\n", v, v, v, v, v, v)
		_ = json.NewEncoder(&out).Encode(v)
		_ = xml.NewEncoder(&out).Encode(v)
		_ = gob.NewEncoder(&out).Encode(v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("", "v", v)
	}
	require.NotContains(t, out.String(), secret)
	require.Contains(t, out.String(), "X-Key")
}

// Nor does a layer print a Text, once it was used, in an http.Client or in other layers.
func TestPlaceTextIsNotPrintedByALayer(t *testing.T) {
	base := roundTrip(func(req *http.Request) (*http.Response, error) { return reply(req, 200), nil })
	attach := []rf.Place{{Header: "Authorization"}, {Header: "X-Key", Text: "hunter2"}}
	auth := &rf.AuthTransport{Source: static("t"), Origins: []string{host}, Attach: attach, Base: base}
	tr, err := rf.NewTransport(rf.Config{BaseURL: host, Source: static("t"), Attach: attach, Base: base, Retry: retryFast(1), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	logging := &rf.LoggingTransport{Base: retryOver(auth, retryFast(1)), Logger: slog.New(slog.DiscardHandler)}
	for range 2 {
		for _, v := range []any{auth, tr, logging, logging.Base, &http.Client{Transport: auth}, http.Client{Transport: logging}, struct{ RT http.RoundTripper }{tr}, []any{auth}} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
				text := fmt.Sprintf(verb, v)
				require.NotContains(t, text, "hunter2", "%T by %s", v, verb)
				require.NotContains(t, text, "68756e74657232", "%T by %s", v, verb)
			}
			var out bytes.Buffer
			slog.New(slog.NewTextHandler(&out, nil)).Info("", "v", v)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("", "v", v)
			require.NotContains(t, out.String(), "hunter2", "%T", v)
		}
		get(t, auth, host)
		get(t, tr, "/x")
		get(t, logging, host)
	}
	require.Contains(t, fmt.Sprint(logging), `*requestforge.LoggingTransport > *requestforge.RetryTransport > *requestforge.AuthTransport[`)
	var none *rf.AuthTransport
	require.Equal(t, "*requestforge.RetryTransport > http.DefaultTransport", fmt.Sprint(&rf.RetryTransport{}))
	require.Equal(t, "*requestforge.RetryTransport > *requestforge.AuthTransport", fmt.Sprint(&rf.RetryTransport{Base: none}))
	require.Equal(t, "*requestforge.AuthTransport", fmt.Sprint(none))
}

// What a token lacks shows on a replay, too: the request ends there, and so it does if a
// Prepare fails by then. The answer before is closed, and the body once.
func TestPlaceWithoutItsValueEndsAReplay(t *testing.T) {
	for name, rt := range map[string]*rf.AuthTransport{
		"no value": {Attach: []rf.Place{{Header: "X-A", Value: "only"}}},
		"Prepare": {Prepare: func(_ *http.Request, tok *rf.Token) error {
			return map[string]error{"t-1": errors.New("no key")}[tok.AccessToken]
		}},
	} {
		src, closed := newRich(), 0
		rt.Source = sourceOf{src, func(tok *rf.Token) {
			if tok.AccessToken == "t-0" {
				tok.Extra["only"] = "here"
			}
		}}
		rt.Origins = []string{host}
		sends := 0
		rt.Base = roundTrip(func(req *http.Request) (*http.Response, error) {
			sends++
			resp := reply(req, 401)
			resp.Body = closeCounter{resp.Body, &closed}
			return resp, nil
		})
		body := newRetryBody("body")
		req, _ := http.NewRequest("POST", host, body)
		resp, err := rt.RoundTrip(req)
		require.Nil(t, resp, name)
		require.Error(t, err, name)
		require.Equal(t, 1, sends)
		require.Equal(t, 1, closed)
		body.wantClosedOnce(t)
	}
}

// sourceOf changes the tokens of a source.
type sourceOf struct {
	*rich
	change func(*rf.Token)
}

func (s sourceOf) Token(ctx context.Context) (*rf.Token, error) {
	tok, err := s.rich.Token(ctx)
	if err == nil {
		s.change(tok)
	}
	return tok, err
}

// Whatever a token holds comes over the wire as it is, in one place, or is an error that
// doesn't show it, and nothing is sent.
func FuzzPlace(f *testing.F) {
	for _, value := range []string{"t", "a b", "a\r\nX: y", "a;b=c", `"q"`, "a&b=c#d", "%zz+", "é\xff", " a ", "\x00", ",", "a\tb"} {
		f.Add(value, "k", "mine=1&k2=%7e", "mine=1; k2")
	}
	f.Fuzz(func(t *testing.T, value, name, query, cookies string) {
		for kind, place := range map[string]rf.Place{"header": {Header: "X-" + name, Value: "v"}, "scheme": {Header: "X-" + name, Value: "v", Scheme: "S"}, "query": {Query: name, Value: "v"}, "cookie": {Cookie: name, Value: "v"}} {
			var wire bytes.Buffer
			sent := false
			rt := &rf.AuthTransport{Source: rf.StaticToken(&rf.Token{AccessToken: "t", Extra: map[string]any{"v": value}}), Origins: []string{host}, Attach: []rf.Place{place},
				Base: roundTrip(func(out *http.Request) (*http.Response, error) {
					sent = true
					return reply(out, 200), out.Write(&wire)
				})}
			req, err := http.NewRequest("GET", host, nil)
			require.NoError(t, err)
			req.URL.RawQuery = query
			req.Header["Cookie"] = []string{cookies}
			if d := rt.Explain(req); !d.Send {
				continue // a name that can't be, or the caller's
			}
			if _, err := rt.RoundTrip(req); err != nil {
				if sent {
					continue // net/http has its own mind about the caller's query and cookies
				}
				if len(value) > 20 {
					require.NotContains(t, err.Error(), value)
				}
				continue
			}
			got, err := http.ReadRequest(bufio.NewReader(&wire))
			if err != nil {
				continue // the caller's query
			}
			for header, values := range got.Header {
				if !strings.EqualFold(header, "X-"+name) && header != "Cookie" && header != "User-Agent" {
					t.Fatalf("%s: a header %q: %q", kind, header, values)
				}
			}
			found, want := []string{}, value
			switch kind {
			case "header":
				found, want = got.Header.Values("X-"+name), strings.Trim(value, " \t")
			case "scheme":
				found, want = got.Header.Values("X-"+name), strings.Trim("S "+value, " \t")
			case "query":
				for pair := range strings.SplitSeq(got.URL.RawQuery, "&") {
					if n, v, _ := strings.Cut(pair, "="); unescaped(n) == name {
						found = append(found, unescaped(v))
					}
				}
			case "cookie":
				for _, c := range got.CookiesNamed(name) {
					found = append(found, c.Value)
				}
			}
			require.Equal(t, []string{want}, found, kind)
		}
	})
}

func unescaped(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}
