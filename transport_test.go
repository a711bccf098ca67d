package requestforge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
)

// sendFunc is the transport at the bottom of a stack under test.
type sendFunc func(*http.Request) (*http.Response, error)

func (f sendFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answer is a response as http.Transport would give it.
func answer(req *http.Request, status int, header http.Header) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{
		StatusCode: status,
		Status:     http.StatusText(status),
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Header:     header,
		Body:       http.NoBody,
		Request:    req,
	}
}

// secretTokens is a TokenSource whose token must never be seen. It is a
// struct, for what a fmt verb would show of it.
type secretTokens struct{ Value string }

func (s secretTokens) Token(context.Context) (*requestforge.Token, error) {
	return &requestforge.Token{AccessToken: s.Value}, nil
}
func (s secretTokens) Invalidate(context.Context, *requestforge.Token) error { return nil }

// countedBody counts its Closes.
type countedBody struct {
	io.Reader
	closes int
}

func (b *countedBody) Close() error { b.closes++; return nil }

// relative returns a request with a URL that http.NewRequest would refuse,
// or that the client package of an API made by hand.
func relative(u *url.URL) *http.Request {
	return &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}
}

func TestRelativeURLGoesBelowBaseURL(t *testing.T) {
	tests := []struct{ base, rel, want string }{
		{"https://h/v1", "/users", "https://h/v1/users"},
		{"https://h/v1", "users", "https://h/v1/users"},
		{"https://h/v1/", "/users", "https://h/v1/users"},
		{"https://h/v1/", "users", "https://h/v1/users"},
		{"https://h/v1//", "users", "https://h/v1/users"},
		{"https://h", "/users", "https://h/users"},
		{"https://h", "users", "https://h/users"},
		{"https://h/", "/users/", "https://h/users/"},
		{"HTTPS://h:8443/v1", "users", "https://h:8443/v1/users"},
		{"http://[::1]:80/v1", "users", "http://[::1]:80/v1/users"},
		{"http://[fe80::1%25lo]/v1", "users", "http://[fe80::1%25lo]/v1/users"},

		// Nothing to join: BaseURL as it was given.
		{"https://h/v1", "", "https://h/v1"},
		{"https://h/v1/", "", "https://h/v1/"},
		{"https://h/v1", "/", "https://h/v1/"},
		{"https://h/v1/", "/", "https://h/v1/"},
		{"https://h", "", "https://h"},
		{"https://h/v1", "?q=1", "https://h/v1?q=1"},
		{"https://h/a%2Fb/", "", "https://h/a%2Fb/"},

		// Query, fragment and escapes as they were written.
		{"https://h/v1", "/a?q=1&q=%20;", "https://h/v1/a?q=1&q=%20;"},
		{"https://h/v1", "/a?", "https://h/v1/a?"},
		{"https://h/v1", "/a#f", "https://h/v1/a#f"},
		{"https://h/v1", "/a%2Fb", "https://h/v1/a%2Fb"},
		{"https://h/v1", "%2Fa", "https://h/v1/%2Fa"},
		{"https://h/v1", "/%2F/a", "https://h/v1/%2F/a"},
		{"https://h/v%2F1", "/a b", "https://h/v%2F1/a%20b"},
		{"https://h/v%2F", "a", "https://h/v%2F/a"},
		{"https://h/v1", "/a!b'c*", "https://h/v1/a!b'c*"},
		{"https://h/ü", "/ü", "https://h/%C3%BC/%C3%BC"},
		{"https://h/v1", "/a//b", "https://h/v1/a//b"},
		{"https://h/v1", "*", "https://h/v1/%2A"},

		// Those that would like to be somewhere else.
		{"https://h", "@evil.example", "https://h/@evil.example"},
		{"https://h", "me@evil.example/", "https://h/me@evil.example/"},
		{"https://h", ".evil.example", "https://h/.evil.example"},
		{"https://h", "%40evil.example", "https://h/%40evil.example"},
		{"https://h", `\evil.example`, "https://h/%5Cevil.example"},
		{"https://h", `/\evil.example`, "https://h/%5Cevil.example"},
		{"https://h", "///evil.example/x", "https://h/evil.example/x"},
		{"https://h/v1", "////evil.example", "https://h/v1/evil.example"},
		{"https://h", ":8080/x", "https://h/:8080/x"},
		{"https://h/v1", "/../admin", "https://h/v1/../admin"},
		{"https://h/v1", "..", "https://h/v1/.."},
	}
	for _, tt := range tests {
		var sent *http.Request
		transport, err := requestforge.NewTransport(requestforge.Config{
			BaseURL: tt.base,
			Base: sendFunc(func(req *http.Request) (*http.Response, error) {
				sent = req
				return answer(req, 200, nil), nil
			}),
		})
		require.NoError(t, err)
		u, err := url.Parse(tt.rel)
		if err != nil { // a colon in the first segment
			u = &url.URL{Path: tt.rel}
		}
		before := *u
		req := relative(u)

		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Errorf("%q below %q: %v", tt.rel, tt.base, err)
			continue
		}
		if got := sent.URL.String(); got != tt.want {
			t.Errorf("%q below %q is %q, want %q", tt.rel, tt.base, got, tt.want)
		}
		if resp.Request != sent || req.URL != u || *u != before {
			t.Errorf("%q: want the response's request to be a copy with the URL, and the caller's request as it was", tt.rel)
		}
	}
}

func TestRelativeURLThatNamesAHostIsAnError(t *testing.T) {
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: "https://h/v1",
		Base: sendFunc(func(req *http.Request) (*http.Response, error) {
			t.Errorf("sent to %s", req.URL)
			return answer(req, 200, nil), nil
		}),
	})
	require.NoError(t, err)
	for _, u := range []*url.URL{
		{Host: "evil.example", Path: "/x"},
		{Host: "h", Path: "/x"},
		{User: url.UserPassword("me", "hunter2"), Path: "/x"},
		{User: url.UserPassword("me", "hunter2"), Host: "evil.example", RawQuery: "k=hunter2"},
		{Opaque: "//evil.example/hunter2"},
		{Opaque: "evil.example"},
	} {
		body := &countedBody{Reader: strings.NewReader("x")}
		req := relative(u)
		req.Body = body
		resp, err := transport.RoundTrip(req)
		if resp != nil || err == nil {
			t.Fatalf("%#v: got %v, %v; want an error", u, resp, err)
		}
		assert.ErrorContains(t, err, "requestforge: relative URL")
		assert.NotContains(t, err.Error(), "hunter2")
		assert.Equal(t, 1, body.closes, "closes of the body")

		got := transport.Explain(req)
		assert.Equal(t, requestforge.Decision{Reason: requestforge.ReasonRelativeURL, Err: err}, got)
	}
}

func FuzzRelativeURLKeepsTheHost(f *testing.F) {
	for _, s := range []string{"/users", "", "//evil.example/x", "@evil.example", `\\evil.example`, ".evil.example", "/%2e%2e/x", "?a=b", "///x", "%2Fa", "/a%2Fb/", "*", ":80", "/\x00"} {
		f.Add(s, s, s)
	}
	var sent *http.Request
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: "https://api.example/v%2F1/",
		Base: sendFunc(func(req *http.Request) (*http.Response, error) {
			sent = req
			return answer(req, 200, nil), nil
		}),
	})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, raw, path, rawPath string) {
		urls := []*url.URL{{Path: path, RawPath: rawPath}, {Path: path, RawQuery: raw}}
		if u, err := url.Parse(raw); err == nil && u.Scheme == "" {
			urls = append(urls, u)
		}
		for _, u := range urls {
			if _, err := transport.RoundTrip(relative(u)); err != nil {
				if u.Host == "" && u.User == nil && u.Opaque == "" {
					t.Errorf("%#v: %v", u, err)
				}
				continue
			}
			got := sent.URL
			if got.Scheme != "https" || got.Host != "api.example" || got.User != nil || got.RawQuery != u.RawQuery {
				t.Errorf("%#v went to %#v", u, got)
			}
			escaped := got.EscapedPath()
			if !strings.HasPrefix(escaped, "/v%2F1/") || u.Path != "" && strings.HasPrefix(escaped, "/v%2F1//") {
				t.Errorf("%#v has the path %q", u, escaped)
			}
			if want := strings.TrimLeft(u.EscapedPath(), "/"); !strings.HasSuffix(escaped, "/"+want) {
				t.Errorf("%#v has the path %q, want it to end in %q", u, escaped, want)
			}
		}
	})
}

func TestOtherURLsGoDownUntouched(t *testing.T) {
	parse := func(raw string) *url.URL {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		return u
	}
	for _, base := range []string{"", "https://h/v1"} {
		var sent *http.Request
		transport, err := requestforge.NewTransport(requestforge.Config{
			BaseURL: base,
			Base: sendFunc(func(req *http.Request) (*http.Response, error) {
				sent = req
				return answer(req, 302, http.Header{"Location": {"next"}}), nil
			}),
		})
		require.NoError(t, err)
		urls := []*url.URL{nil, parse("https://other.example/x"), parse("ftp://other.example/x"), parse("mailto:me@h"), parse("https:///x")}
		if base == "" {
			urls = append(urls, parse("/users"), parse("//h/users"), &url.URL{Opaque: "x"})
		}
		for _, u := range urls {
			req := relative(u)
			resp, err := transport.RoundTrip(req)
			require.NoError(t, err)
			if sent != req || resp.Request != req {
				t.Errorf("BaseURL %q: %v was copied", base, u)
			}
			assert.Equal(t, "next", resp.Header.Get("Location"))
		}
	}
}

func TestRelativeURLCopiesNothingButTheRequest(t *testing.T) {
	var sent *http.Request
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: "https://h/v1",
		Base: sendFunc(func(req *http.Request) (*http.Response, error) {
			sent = req
			return answer(req, 200, nil), nil
		}),
	})
	require.NoError(t, err)
	type key struct{}
	ctx := context.WithValue(context.Background(), key{}, "kept")
	body := &countedBody{Reader: strings.NewReader("x")}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/users", body)
	require.NoError(t, err)
	req.Host = "virtual.example"
	req.Header["X-Shared"] = []string{"1"}

	_, err = transport.RoundTrip(req)
	require.NoError(t, err)
	assert.Equal(t, "virtual.example", sent.Host, "the caller's Host")
	assert.Equal(t, "kept", sent.Context().Value(key{}))
	assert.Same(t, body, sent.Body)
	sent.Header["X-Shared"] = []string{"2"}
	assert.Equal(t, "2", req.Header.Get("X-Shared"), "the header map is the caller's")
	assert.Equal(t, 0, body.closes, "closes: the layers' business")
}

func TestErrorFromBelowComesBackAsItIs(t *testing.T) {
	want := errors.New("no route")
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: "https://h",
		Logger:  slog.New(slog.DiscardHandler),
		Base:    sendFunc(func(*http.Request) (*http.Response, error) { return nil, want }),
	})
	require.NoError(t, err)
	resp, err := transport.RoundTrip(relative(&url.URL{Path: "/x"}))
	if resp != nil || err != want {
		t.Errorf("got %v, %v; want nil and the very error", resp, err)
	}
}

func TestClientFollowsRedirectsBelowBaseURL(t *testing.T) {
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("to"); to != "" {
			w.Header().Set("Location", strings.ReplaceAll(to, "SERVER", server.Listener.Addr().String()))
			w.WriteHeader(http.StatusFound)
			return
		}
		fmt.Fprint(w, r.URL)
	}))
	defer server.Close()
	transport, err := requestforge.NewTransport(requestforge.Config{Base: server.Client().Transport, BaseURL: server.URL + "/v1"})
	require.NoError(t, err)
	client := &http.Client{Transport: transport}

	for to, want := range map[string]string{
		"next":                               "/v1/a/next",
		"next/":                              "/v1/a/next/",
		"../next":                            "/v1/next",
		"/v1/next":                           "/v1/next",
		"/next":                              "/next",
		"http://SERVER/v1/next":              "/v1/next",
		"//SERVER/v1/next":                   "/v1/next",
		"?q=1":                               "/v1/a/start?q=1",
		"/v1/a%2Fb":                          "/v1/a%2Fb",
		"more?to=" + url.QueryEscape("last"): "/v1/a/last",
	} {
		resp, err := client.Get("/a/start?to=" + url.QueryEscape(to))
		if err != nil {
			t.Errorf("Location %q: %v", to, err)
			continue
		}
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		if string(got) != want {
			t.Errorf("Location %q leads to %s, want %s", to, got, want)
		}
		if !resp.Request.URL.IsAbs() || resp.Request.URL.RequestURI() != want {
			t.Errorf("Location %q: the response's request is for %s, want %s", to, resp.Request.URL, want)
		}
	}

	// Its own error, not ours.
	_, err = client.Get("/a/start?to=" + url.QueryEscape("http://bad host/"))
	assert.ErrorContains(t, err, "failed to parse Location header")

	// Of a response that is no redirect the Location is absolute as well.
	resp, err := transport.RoundTrip(relative(&url.URL{Path: "a/start", RawQuery: "to=next"}))
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, server.URL+"/v1/a/next", resp.Header.Get("Location"))
}

func TestLocationIsRewrittenInACopyOfTheHeader(t *testing.T) {
	shared := http.Header{"Location": {"next"}}
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: "https://h/v1",
		Base: sendFunc(func(req *http.Request) (*http.Response, error) {
			return answer(req, 302, shared), nil
		}),
	})
	require.NoError(t, err)
	resp, err := transport.RoundTrip(relative(&url.URL{Path: "a/b"}))
	require.NoError(t, err)
	assert.Equal(t, "https://h/v1/a/next", resp.Header.Get("Location"))
	assert.Equal(t, "next", shared.Get("Location"))
}

// http.Client takes "" for the host of a relative URL, and every host with a
// dot at its end for one below it.
func TestRedirectTakesNoCallerHeaderToAnotherHost(t *testing.T) {
	for _, to := range []string{
		"https://evil.example/x",
		"https://evil.example./x",
		"https://evil.example.:8443/x",
		"https://evil.example../x",
		"https://evil.example%E3%80%82/x",
		"https://evil.example\u3002/x",
		"https://evil.example\uff0e/x",
		"https://evil.example\uff61/x",
		"https://evil.example.\u00ad/x",
		"https://evil.example.\ufe00/x",
		"//evil.example./x",
		"https://./x",
	} {
		var hops []*http.Request
		transport, err := requestforge.NewTransport(requestforge.Config{
			BaseURL: "https://h/v1",
			Base: sendFunc(func(req *http.Request) (*http.Response, error) {
				hops = append(hops, req)
				if len(hops) > 1 {
					return answer(req, 200, nil), nil
				}
				return answer(req, 302, http.Header{"Location": {to}}), nil
			}),
		})
		require.NoError(t, err)
		req, err := http.NewRequest(http.MethodGet, "/start", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer hunter2")
		req.Header.Set("Cookie", "session=hunter2")
		resp, err := (&http.Client{Transport: transport}).Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Len(t, hops, 2)
		if strings.Contains(fmt.Sprint(hops[1].Header), "hunter2") && hops[1].URL.Host != "." {
			t.Errorf("Location %q: the caller's headers go to %q", to, hops[1].URL.Host)
		}
	}
}

func TestNewTransportReportsEveryMistake(t *testing.T) {
	tokens := secretTokens{"hunter2"}
	tests := []struct {
		name string
		cfg  requestforge.Config
		want []string // one line each, in part
	}{
		{"unparsable BaseURL", requestforge.Config{BaseURL: "https://h:port/hunter2"}, []string{"Config.BaseURL can't be read: parse"}},
		{"password in an unparsable BaseURL", requestforge.Config{BaseURL: "https://me:hunter2/x@h"}, []string{"Config.BaseURL can't be read: parse"}},
		{"relative BaseURL", requestforge.Config{BaseURL: "/v1"}, []string{`Config.BaseURL "/v1": it is relative`}},
		{"host only", requestforge.Config{BaseURL: "api.example.com/v1"}, []string{`Config.BaseURL "api.example.com/v1": it is relative`}},
		{"host and port only", requestforge.Config{BaseURL: "localhost:8080"}, []string{"Config.BaseURL", "its scheme must be https or http"}},
		{"no scheme, but a user", requestforge.Config{BaseURL: "hunter2@api.example.com"}, []string{`Config.BaseURL "REDACTED@api.example.com": it is relative`}},
		{"no scheme, but a password", requestforge.Config{BaseURL: "me:hunter2@api.example.com"}, []string{`Config.BaseURL "REDACTED": its scheme must be`}},
		{"opaque", requestforge.Config{BaseURL: "https:h/v1"}, []string{`Config.BaseURL "https:REDACTED": two slashes`}},
		{"no host", requestforge.Config{BaseURL: "https:///v1"}, []string{"Config.BaseURL", "no host"}},
		{"port only", requestforge.Config{BaseURL: "https://:8443/v1"}, []string{"Config.BaseURL", "no host"}},
		{"other scheme", requestforge.Config{BaseURL: "ftp://h/"}, []string{`Config.BaseURL "ftp://h/": its scheme must be`}},
		{"user info", requestforge.Config{BaseURL: "https://me:hunter2@h/v1"}, []string{`Config.BaseURL "https://REDACTED@h/v1": remove the user info`}},
		{"query", requestforge.Config{BaseURL: "https://h/v1?key=hunter2"}, []string{`Config.BaseURL "https://h/v1?key=REDACTED": remove the query`}},
		{"empty query", requestforge.Config{BaseURL: "https://h/v1?"}, []string{"Config.BaseURL", "remove the query"}},
		{"fragment", requestforge.Config{BaseURL: "https://h/v1#hunter2"}, []string{`Config.BaseURL "https://h/v1#REDACTED": remove the fragment`}},
		{"empty fragment", requestforge.Config{BaseURL: "https://h/v1#"}, []string{"Config.BaseURL", "remove the fragment"}},
		{"several at once", requestforge.Config{BaseURL: "ftp://me:hunter2@h?key=hunter2#hunter2", Source: tokens},
			[]string{"its scheme must be", "remove the user info", "remove the query", "remove the fragment"}},

		{"plain http", requestforge.Config{BaseURL: "http://h/v1", Source: tokens}, []string{`Config.BaseURL "http://h/v1": the token would travel over plain http`}},
		{"no origin", requestforge.Config{Source: tokens}, []string{"Config.Origins: none, and no BaseURL"}},
		{"host that isn't ASCII", requestforge.Config{BaseURL: "https://bücher.example", Source: tokens}, []string{"Config.BaseURL: as an origin"}},
		{"origin", requestforge.Config{Origins: []string{"example.com", "https://me:hunter2@h"}, Source: tokens}, []string{"Config.Origins", "Config.Origins"}},
		{"excluded path", requestforge.Config{Origins: []string{"*"}, ExcludedPaths: []string{"health", "/a**"}, Source: tokens}, []string{"Config.ExcludedPaths", "Config.ExcludedPaths"}},
		{"header name", requestforge.Config{Origins: []string{"*"}, Attach: []requestforge.Place{{Header: "X Key"}}, Source: tokens}, []string{`Config.Attach[0], header "X Key"`}},
		{"caller's header", requestforge.Config{Origins: []string{"*"}, OnConflict: 7, Source: tokens}, []string{"Config.OnConflict"}},
		{"nil pipeline", requestforge.Config{Origins: []string{"*"}, Source: (*requestforge.Pipeline)(nil)}, []string{"Config.Source: a nil *requestforge.Pipeline"}},
		{"nil base", requestforge.Config{Base: (*http.Transport)(nil)}, []string{"Config.Base: a nil *http.Transport"}},
		{"negative wait", requestforge.Config{Retry: requestforge.RetryPolicy{RetryWaitMin: -time.Second}}, []string{"Config.Retry.RetryWaitMin"}},
		{"checked without tokens", requestforge.Config{Attach: []requestforge.Place{{Header: "X Key"}}, ExcludedPaths: []string{"health"}}, []string{"Config.Attach[0]", "Config.ExcludedPaths"}},

		{"all of it", requestforge.Config{
			Base:          (*http.Transport)(nil),
			BaseURL:       "/v1",
			Source:        (*requestforge.Pipeline)(nil),
			Attach:        []requestforge.Place{{Header: "X Key"}},
			OnConflict:    -1,
			Origins:       []string{"example.com"},
			ExcludedPaths: []string{"health"},
			Retry:         requestforge.RetryPolicy{AttemptTimeout: -1, RetryWaitMin: -1},
		}, []string{"Config.Base:", "Config.BaseURL", "Config.Source", "Config.Attach[0]", "Config.OnConflict", "Config.Origins", "Config.ExcludedPaths",
			"Config.Retry.RetryWaitMin", "Config.Retry.AttemptTimeout"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			transport, err := requestforge.NewTransport(tt.cfg)
			if transport != nil || err == nil {
				t.Fatalf("got %v, %v; want an error", transport, err)
			}
			for _, want := range tt.want {
				assert.ErrorContains(t, err, want)
			}
			lines := strings.Split(err.Error(), "\n")
			for _, line := range lines {
				assert.True(t, strings.HasPrefix(line, "requestforge: Config."), "line %q", line)
			}
			slices.Sort(lines)
			assert.Len(t, slices.Compact(lines), len(lines), "each mistake once")
			if !strings.Contains(tt.cfg.BaseURL, "/hunter2") {
				assert.NotContains(t, err.Error(), "hunter2")
			}
		})
	}
}

func TestNewTransportReportsAMistakeOnce(t *testing.T) {
	for name, cfg := range map[string]requestforge.Config{
		"no origin":   {Source: secretTokens{}},
		"bad BaseURL": {Source: secretTokens{}, BaseURL: "/v1"},
		"nil tokens":  {Source: (*requestforge.Pipeline)(nil), Origins: []string{"*"}},
		"bad host":    {Source: secretTokens{}, BaseURL: "https://bücher.example"},
	} {
		_, err := requestforge.NewTransport(cfg)
		require.Error(t, err, name)
		assert.NotContains(t, err.Error(), "\n", name)
	}
}

func TestNewTransportAccepts(t *testing.T) {
	tokens := secretTokens{"hunter2"}
	for name, cfg := range map[string]requestforge.Config{
		"nothing":                     {},
		"only a logger":               {Logger: slog.New(slog.DiscardHandler)},
		"a token at BaseURL's origin": {Source: tokens, BaseURL: "https://api.example.com:8443/v1"},
		"an IPv6 zone":                {Source: tokens, BaseURL: "https://[fe80::1%25lo]/v1"},
		"a token at named origins":    {Source: tokens, Origins: []string{"https://*.example.com", requestforge.AnyOrigin}},
		"plain http to this machine":  {Source: tokens, BaseURL: "http://127.0.0.1:8080"},
		"plain http, asked for":       {Source: tokens, BaseURL: "http://api.internal", AllowPlaintext: true},
		"plain http without a token":  {BaseURL: "http://api.internal"},
		"auth options without tokens": {AuthRetry: requestforge.SimpleAuthRetry(2, 0), ExcludedPaths: []string{"/health"}, Attach: []requestforge.Place{{Header: "X-Api-Key"}}},
	} {
		if _, err := requestforge.NewTransport(cfg); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExplainWithoutTokens(t *testing.T) {
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: "https://h"})
	require.NoError(t, err)
	got := transport.Explain(relative(&url.URL{Path: "/x"}))
	assert.Equal(t, requestforge.Decision{Reason: requestforge.ReasonNoTokens}, got)
}

func TestExplainIsForTheResolvedURL(t *testing.T) {
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL:       "https://h/v1",
		Source:        secretTokens{"hunter2"},
		ExcludedPaths: []string{"/health"},
	})
	require.NoError(t, err)
	assert.True(t, transport.Explain(relative(&url.URL{Path: "users"})).Send, "relative")
	assert.False(t, transport.Explain(relative(&url.URL{Path: "health"})).Send, "excluded below the base path")
	assert.True(t, transport.Explain(relative(&url.URL{Scheme: "https", Host: "h", Path: "/v1/users"})).Send, "absolute, at the base's origin")
	assert.False(t, transport.Explain(relative(&url.URL{Scheme: "https", Host: "other.example", Path: "/v1/users"})).Send, "absolute, elsewhere")
	for _, path := range []string{"users", "health"} {
		whole := relative(&url.URL{Scheme: "https", Host: "h", Path: "/v1/" + path})
		assert.Equal(t, transport.Explain(whole), transport.Explain(relative(&url.URL{Path: path})))
	}
}

func TestTransportStack(t *testing.T) {
	base := &http.Transport{}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    base,
		BaseURL: "https://h",
		Source:  secretTokens{"hunter2"},
		Retry:   requestforge.RetryPolicy{RetryMax: 1},
		Logger:  slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	var got []string
	var layer http.RoundTripper = transport
	for {
		got = append(got, fmt.Sprintf("%T", layer))
		wrapper, ok := layer.(interface{ Unwrap() http.RoundTripper })
		if !ok {
			break
		}
		layer = wrapper.Unwrap()
	}
	assert.Equal(t, []string{
		"*requestforge.Transport", "*requestforge.LoggingTransport", "*requestforge.RetryTransport", "*requestforge.AuthTransport", "*http.Transport",
	}, got)
	assert.Same(t, base, layer)

	bare, err := requestforge.NewTransport(requestforge.Config{})
	require.NoError(t, err)
	assert.Equal(t, http.DefaultTransport, bare.Unwrap())
}

// idleCloser counts CloseIdleConnections.
type idleCloser struct {
	sendFunc
	calls int
}

func (c *idleCloser) CloseIdleConnections() { c.calls++ }

func TestCloseIdleConnectionsReachesBase(t *testing.T) {
	base := &idleCloser{}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    base,
		BaseURL: "https://h",
		Source:  secretTokens{},
		Retry:   requestforge.RetryPolicy{RetryMax: 1},
		Logger:  slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	(&http.Client{Transport: transport}).CloseIdleConnections()
	assert.Equal(t, 1, base.calls)
}

func TestConfigIsTakenAsItWas(t *testing.T) {
	cfg := requestforge.Config{Origins: []string{"https://h"}, ExcludedPaths: []string{"/health"}, Source: secretTokens{"hunter2"}}
	transport, err := requestforge.NewTransport(cfg)
	require.NoError(t, err)
	cfg.Origins[0], cfg.ExcludedPaths[0] = "https://evil.example", "/users"
	req := relative(&url.URL{Scheme: "https", Host: "h", Path: "/users"})
	assert.True(t, transport.Explain(req).Send)
}

func TestConfigShowsNoSecret(t *testing.T) {
	const secret = "hunter2"
	for _, baseURL := range []string{
		"https://me:hunter2@h/v1",
		"https://h/v1?key=hunter2#hunter2",
		"https://me:hunter2/%zz@h",
		"me:hunter2@h",
		"hunter2@h",
	} {
		cfg := requestforge.Config{
			Base:    loggedIn{Key: secret},
			BaseURL: baseURL,
			Source:  secretTokens{secret},
			Origins: []string{"https://me:hunter2@h", "*"},
			Logger:  slog.New(slog.DiscardHandler),
		}
		var out bytes.Buffer
		for _, v := range []any{cfg, &cfg, []requestforge.Config{cfg}, struct{ C requestforge.Config }{cfg}} {
			fmt.Fprintf(&out, "%v %+v %#v %s %q %d\n", v, v, v, v, v, v)
			if b, err := json.Marshal(v); err == nil {
				out.Write(b)
			} else {
				fmt.Fprintln(&out, err)
			}
			slog.New(slog.NewTextHandler(&out, nil)).Info("", "v", v)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("", "v", v)
		}
		cfg.BaseURL, cfg.Origins = "https://h/v1", nil
		transport, err := requestforge.NewTransport(cfg)
		require.NoError(t, err)
		fmt.Fprintf(&out, "%v %+v %#v\n", transport, transport, transport)
		slog.New(slog.NewTextHandler(&out, nil)).Info("", "v", transport)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("", "v", transport)
		if strings.Contains(out.String(), secret) {
			t.Errorf("BaseURL %q: the secret is in\n%s", baseURL, &out)
		}
	}

	got := fmt.Sprint(requestforge.Config{BaseURL: "https://h/v1?k=1", Source: secretTokens{}, Retry: requestforge.RetryPolicy{RetryMax: 3}})
	want := `requestforge.Config{BaseURL: "https://h/v1?k=REDACTED", Source: requestforge_test.secretTokens, Retry.RetryMax: 3}`
	assert.Equal(t, want, got)
}

// loggedIn is a RoundTripper with a secret of its own.
type loggedIn struct{ Key string }

func (loggedIn) RoundTrip(req *http.Request) (*http.Response, error) {
	return answer(req, 200, nil), nil
}
