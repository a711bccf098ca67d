package requestforge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// roundTrip is a function that is a RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// reply is an answer of a transport without a network. It reads and closes the
// request's body, as a transport does.
func reply(req *http.Request, status int, header ...string) *http.Response {
	if req.Body != nil {
		io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Request: req, Body: io.NopCloser(strings.NewReader("answer")), ContentLength: 6}
}

// api takes the tokens that good says.
func api(good func(token string) bool) roundTrip {
	return func(req *http.Request) (*http.Response, error) {
		if good(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")) {
			return reply(req, 200), nil
		}
		return reply(req, 401, "WWW-Authenticate", `Bearer error="invalid_token"`), nil
	}
}

func get(t testing.TB, rt http.RoundTripper, url string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	require.NoError(t, err)
	resp, err := rt.RoundTrip(req)
	require.NoError(t, err)
	return resp
}

const host = "https://api.example.com"

func static(token string) rf.TokenSource { return rf.StaticToken(&rf.Token{AccessToken: token}) }

func TestAuthHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		tok    rf.Token
		header string
		want   string
	}{
		"bearer":           {rf.Token{AccessToken: "t"}, "", "Authorization: Bearer t"},
		"another type":     {rf.Token{AccessToken: "t", TokenType: "Signed"}, "", "Authorization: Signed t"},
		"an API key":       {rf.Token{AccessToken: "t", TokenType: "ApiKey"}, "x-api-key", "X-Api-Key: t"},
		"usual spelling":   {rf.Token{AccessToken: "t", TokenType: "bearer"}, "Authorization", "Authorization: Bearer t"},
		"its own spelling": {rf.Token{AccessToken: "t"}, "authorization", "Authorization: Bearer t"},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			rt := &rf.AuthTransport{Source: rf.StaticToken(&c.tok), Attach: inHeader(c.header), Origins: []string{host},
				Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					for k, v := range req.Header {
						got += k + ": " + strings.Join(v, ",")
					}
					return reply(req, 200), nil
				})}
			get(t, rt, host+"/")
			require.Equal(t, c.want, got)
		})
	}
}

func TestAuthExplainAndRoundTripAgree(t *testing.T) {
	redirected := func(urls ...string) *http.Request {
		var req *http.Request
		for _, u := range urls {
			next, err := http.NewRequest("GET", u, nil)
			require.NoError(t, err)
			if req != nil {
				next.Response = &http.Response{Request: req}
			}
			req = next
		}
		return req
	}
	with := func(url string, change func(*http.Request)) *http.Request {
		req := redirected(url)
		change(req)
		return req
	}
	type auth = rf.AuthTransport
	origins := []string{host, "http://plain.example.com", "http://localhost:8080", "https://*.wild.example.com"}
	for name, c := range map[string]struct {
		auth   *auth
		req    *http.Request
		reason rf.Reason
		err    string
	}{
		"yes":                    {&auth{}, redirected(host + "/users"), rf.ReasonSend, ""},
		"a subdomain":            {&auth{}, redirected("https://a.b.wild.example.com/"), rf.ReasonSend, ""},
		"loopback":               {&auth{}, redirected("http://localhost:8080/"), rf.ReasonSend, ""},
		"no URL":                 {&auth{}, &http.Request{}, rf.ReasonNoURL, ""},
		"no host":                {&auth{}, redirected("/users"), rf.ReasonNoURL, ""},
		"excluded":               {&auth{ExcludedPaths: []string{"/health"}}, redirected(host + "/health"), rf.ReasonExcludedPath, ""},
		"excluded by pattern":    {&auth{ExcludedPaths: []string{"/docs/**"}}, redirected(host + "/docs/a/b"), rf.ReasonExcludedPath, ""},
		"ambiguous":              {&auth{ExcludedPaths: []string{"/docs/**"}}, redirected(host + "/docs/%2e%2e/secret"), rf.ReasonSend, ""},
		"excluded beats caller":  {&auth{ExcludedPaths: []string{"/health"}, OnConflict: rf.RejectCaller}, with(host+"/health", func(r *http.Request) { r.Header.Set("Authorization", "x") }), rf.ReasonExcludedPath, ""},
		"caller's header":        {&auth{}, with(host+"/", func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 x") }), rf.ReasonConflict, ""},
		"caller's odd spelling":  {&auth{}, with(host+"/", func(r *http.Request) { r.Header["authorization"] = []string{"x"} }), rf.ReasonConflict, ""},
		"user info":              {&auth{}, redirected("https://u:p@api.example.com/"), rf.ReasonConflict, ""},
		"caller replaced":        {&auth{OnConflict: rf.ReplaceCaller}, with(host+"/", func(r *http.Request) { r.Header.Set("Authorization", "x") }), rf.ReasonSend, ""},
		"caller replaced abroad": {&auth{OnConflict: rf.ReplaceCaller}, with("https://evil.com/", func(r *http.Request) { r.Header.Set("Authorization", "x") }), rf.ReasonOrigin, ""},
		"caller rejected":        {&auth{OnConflict: rf.RejectCaller}, with(host+"/", func(r *http.Request) { r.Header.Set("Authorization", "x") }), rf.ReasonConflict, "set by its caller"},
		"foreign":                {&auth{}, redirected("https://evil.com/"), rf.ReasonOrigin, ""},
		"another port":           {&auth{}, redirected(host + ":8443/"), rf.ReasonOrigin, ""},
		"another scheme":         {&auth{}, redirected("http://api.example.com/"), rf.ReasonOrigin, ""},
		"Host header":            {&auth{}, with(host+"/", func(r *http.Request) { r.Host = "evil.com" }), rf.ReasonOrigin, ""},
		"opaque": {&auth{}, with(host+"/", func(r *http.Request) {
			r.URL = &url.URL{Scheme: "https", Host: "api.example.com", Opaque: "//evil.com/"}
		}), rf.ReasonOrigin, ""},
		"plaintext":               {&auth{}, redirected("http://plain.example.com/"), rf.ReasonPlaintext, "AllowPlaintext"},
		"plaintext allowed":       {&auth{AllowPlaintext: true}, redirected("http://plain.example.com/"), rf.ReasonSend, ""},
		"any origin":              {&auth{Origins: []string{rf.AnyOrigin}}, redirected("https://anything.example.org/"), rf.ReasonSend, ""},
		"any origin, plain":       {&auth{Origins: []string{rf.AnyOrigin}}, redirected("http://anything.example.org/"), rf.ReasonPlaintext, "AllowPlaintext"},
		"redirect, same origin":   {&auth{}, redirected(host+"/a", host+"/b"), rf.ReasonSend, ""},
		"redirect, allowed other": {&auth{}, redirected(host+"/a", "https://x.wild.example.com/"), rf.ReasonRedirect, ""},
		"redirect, any origin":    {&auth{Origins: []string{rf.AnyOrigin}}, redirected(host+"/a", "https://x.org/"), rf.ReasonRedirect, ""},
		"redirect, back again":    {&auth{}, redirected(host+"/a", "https://evil.com/", host+"/b"), rf.ReasonRedirect, ""},
		"no origins":              {&auth{Origins: []string{}}, redirected(host + "/"), rf.ReasonConfig, "Origins is empty"},
		"no source":               {&auth{Source: (*rf.Pipeline)(nil)}, redirected(host + "/"), rf.ReasonConfig, "Source is nil"},
		"a bad origin":            {&auth{Origins: []string{"api.example.com"}}, redirected(host + "/"), rf.ReasonConfig, "api.example.com"},
		"a bad pattern":           {&auth{ExcludedPaths: []string{"/a*b"}}, redirected(host + "/"), rf.ReasonConfig, "/a*b"},
		"a bad header":            {&auth{Attach: []rf.Place{{Header: "X Y"}}}, redirected(host + "/"), rf.ReasonConfig, "X Y"},
		"a bad OnConflict":        {&auth{OnConflict: 7}, redirected(host + "/"), rf.ReasonConfig, "OnConflict is 7"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked, sent, carried int
			c.auth.Base = roundTrip(func(req *http.Request) (*http.Response, error) {
				sent++
				if req.Header.Get("Authorization") == "Bearer s3cret" {
					carried++
				}
				return reply(req, 200), nil
			})
			if c.auth.Source == nil {
				c.auth.Source = sourceFunc(func(context.Context) (*rf.Token, error) {
					asked++
					return &rf.Token{AccessToken: "s3cret"}, nil
				})
			}
			if c.auth.Origins == nil {
				c.auth.Origins = origins
			}
			d := c.auth.Explain(c.req)
			require.Equal(t, c.reason, d.Reason)
			require.Equal(t, c.reason == rf.ReasonSend, d.Send)
			closes := 0
			c.req.Body = closeCounter{strings.NewReader("body"), &closes}
			_, err := c.auth.RoundTrip(c.req)
			if c.err != "" {
				require.ErrorContains(t, d.Err, c.err)
				require.ErrorContains(t, err, c.err)
				require.NotContains(t, err.Error(), "s3cret")
				require.Zero(t, sent)
			} else {
				require.NoError(t, d.Err)
				require.NoError(t, err)
				require.Equal(t, 1, sent)
			}
			require.Equal(t, 1, closes, "the body is closed exactly once")
			want := 0
			if d.Send {
				want = 1
			}
			require.Equal(t, want, asked, "a token is fetched only if it is sent")
			require.Equal(t, want, carried)
		})
	}
}

// sourceFunc is a TokenSource that ignores invalidations.
type sourceFunc func(context.Context) (*rf.Token, error)

func (f sourceFunc) Token(ctx context.Context) (*rf.Token, error) { return f(ctx) }
func (f sourceFunc) Invalidate(context.Context, *rf.Token) error  { return nil }

type closeCounter struct {
	io.Reader
	n *int
}

func (c closeCounter) Close() error { *c.n++; return nil }

func TestAuthFailsClosed(t *testing.T) {
	boom := &rf.AuthError{Step: "user", StatusCode: 400, Code: "invalid_grant", Permanent: true}
	for name, c := range map[string]struct {
		src  rf.TokenSource
		want string
	}{
		"source's error": {sourceFunc(func(context.Context) (*rf.Token, error) { return nil, boom }), "invalid_grant"},
		"nil, nil":       {sourceFunc(func(context.Context) (*rf.Token, error) { return nil, nil }), "neither a token nor an error"},
		"empty":          {sourceFunc(func(context.Context) (*rf.Token, error) { return &rf.Token{}, nil }), "empty"},
		"CR and LF":      {sourceFunc(func(context.Context) (*rf.Token, error) { return &rf.Token{AccessToken: "s3cret\r\nX: y"}, nil }), "control characters"},
		"type with a gap": {sourceFunc(func(context.Context) (*rf.Token, error) {
			return &rf.Token{AccessToken: "s3cret", TokenType: "a b"}, nil
		}), "token type"},
		"static, nil": {rf.StaticToken(nil), "StaticToken"},
		"far too long": {sourceFunc(func(context.Context) (*rf.Token, error) {
			return &rf.Token{AccessToken: strings.Repeat("s3cret", 20<<10)}, nil
		}), "more than 64 KiB"},
		"static, CR": {static("s3cret\r"), "control characters"},
	} {
		t.Run(name, func(t *testing.T) {
			rt := &rf.AuthTransport{Source: c.src, Origins: []string{host}, Base: roundTrip(func(*http.Request) (*http.Response, error) {
				t.Error("sent")
				return nil, errors.New("sent")
			})}
			closes := 0
			req, err := http.NewRequest("POST", host, closeCounter{strings.NewReader("x"), &closes})
			require.NoError(t, err)
			resp, err := rt.RoundTrip(req)
			require.Nil(t, resp)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "s3cret")
			require.Equal(t, 1, closes)
			if name == "source's error" {
				require.Equal(t, error(boom), err, "an error goes up as it is")
			}
		})
	}
}

func TestAuthRefusedRequestIsReplayedWithANewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		revoked := ""
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: api(func(tok string) bool { return tok != revoked })}
		require.Equal(t, 200, get(t, rt, host).StatusCode)
		revoked = "user-1"
		req, _ := http.NewRequest("GET", host, nil)
		resp, err := rt.RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.Same(t, req, resp.Request, "no token leaves with a response")
		require.Empty(t, req.Header)
		require.Equal(t, 2, l.fetches("user"))
		require.Equal(t, 1, l.fetches("app"), "an accepted token that is refused was revoked: the leaf alone goes")
	})
}

func TestAuthRefusalGoesBackReadable(t *testing.T) {
	for name, change := range map[string]func(rt *rf.AuthTransport, req *http.Request){
		"no other token": func(rt *rf.AuthTransport, req *http.Request) { rt.Source = static("bad") },
		"no replay left": func(rt *rf.AuthTransport, req *http.Request) {},
		"replay off":     func(rt *rf.AuthTransport, req *http.Request) { rt.Retry = rf.SimpleAuthRetry(0, 0) },
		"a nil schedule": func(rt *rf.AuthTransport, req *http.Request) { rt.Retry = func() rf.Schedule { return nil } },
		"body one-shot":  func(rt *rf.AuthTransport, req *http.Request) { rt.MaxReplayBody = -1; req.GetBody = nil },
		"GetBody fails": func(rt *rf.AuthTransport, req *http.Request) {
			req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("no") }
		},
		"body too large": func(rt *rf.AuthTransport, req *http.Request) { rt.MaxReplayBody = 3; req.GetBody = nil },
		"source fails":   func(rt *rf.AuthTransport, req *http.Request) { rt.Source = &failsLater{} },
		"bad next token": func(rt *rf.AuthTransport, req *http.Request) {
			rt.Source = &failsLater{next: &rf.Token{AccessToken: "a\nb"}}
		},
		"caller leaves": func(rt *rf.AuthTransport, req *http.Request) {
			rt.Retry = rf.SimpleAuthRetry(1, time.Hour)
			ctx, cancel := context.WithTimeout(req.Context(), time.Minute)
			t.Cleanup(cancel)
			*req = *req.WithContext(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLogin()
				l.takes = 0
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}})
				rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: api(func(string) bool { return false })}
				req, _ := http.NewRequestWithContext(t.Context(), "POST", host, strings.NewReader("body"))
				closes := 0
				req.Body = closeCounter{req.Body, &closes}
				change(rt, req)
				resp, err := rt.RoundTrip(req)
				require.NoError(t, err)
				require.Equal(t, 401, resp.StatusCode)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, "answer", string(body))
				require.Same(t, req, resp.Request)
				require.Equal(t, 1, closes)
				if rt.Source == rf.TokenSource(p) {
					mustToken(t, p)
					require.Greater(t, l.fetches("user"), 1, "the token is invalidated all the same")
				}
			})
		})
	}
}

// What can't be sent again waits for nothing: neither for the schedule nor for
// a token.
func TestAuthRefusedOneShotGoesBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		src := sourceFunc(func(context.Context) (*rf.Token, error) {
			asked++
			return &rf.Token{AccessToken: fmt.Sprint(asked)}, nil
		})
		for _, keep := range []int64{-1, 3} {
			asked = 0
			rt := &rf.AuthTransport{Source: src, Origins: []string{host}, Retry: rf.SimpleAuthRetry(3, time.Minute), MaxReplayBody: keep, Base: api(func(string) bool { return false })}
			req, _ := http.NewRequest("POST", host, io.NopCloser(strings.NewReader("body")))
			begun := time.Now()
			resp, err := rt.RoundTrip(req)
			require.NoError(t, err)
			require.Equal(t, 401, resp.StatusCode)
			require.Zero(t, time.Since(begun))
			require.Equal(t, 1, asked)
		}
	})
}

// failsLater has one token and then an error, or next.
type failsLater struct {
	n    atomic.Int32
	next *rf.Token
}

func (f *failsLater) Token(context.Context) (*rf.Token, error) {
	if f.n.Add(1) == 1 {
		return &rf.Token{AccessToken: "one"}, nil
	}
	if f.next != nil {
		return f.next, nil
	}
	return nil, errors.New("auth server down")
}
func (f *failsLater) Invalidate(context.Context, *rf.Token) error { return nil }

func TestAuthReplaysAsOftenAsTheStrategySays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			retry rf.AuthRetryStrategy
			sends int
			waits func(time.Duration) bool
		}{
			"default":     {nil, 2, func(d time.Duration) bool { return d == 0 }},
			"none":        {rf.SimpleAuthRetry(0, time.Second), 1, func(d time.Duration) bool { return d == 0 }},
			"negative":    {rf.SimpleAuthRetry(-1, time.Second), 1, func(d time.Duration) bool { return d == 0 }},
			"three":       {rf.SimpleAuthRetry(3, time.Second), 4, func(d time.Duration) bool { return d == 3*time.Second }},
			"exponential": {rf.ExponentialAuthRetry(3, time.Second, 3*time.Second), 4, func(d time.Duration) bool { return d >= 3*time.Second && d <= 9*time.Second+time.Second/2 }},
			"backoff/v4":  {func() rf.Schedule { return &backoff.StopBackOff{} }, 1, func(d time.Duration) bool { return d == 0 }},
		} {
			n, sends := 0, 0
			src := sourceFunc(func(context.Context) (*rf.Token, error) { n++; return &rf.Token{AccessToken: fmt.Sprint(n)}, nil })
			rt := &rf.AuthTransport{Source: src, Origins: []string{host}, Retry: c.retry, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				sends++
				return reply(req, 401), nil
			})}
			begun := time.Now()
			require.Equal(t, 401, get(t, rt, host).StatusCode)
			require.Equal(t, c.sends, sends, name)
			require.True(t, c.waits(time.Since(begun)), "%s: waited %v", name, time.Since(begun))
		}
	})
}

// Another token of the same login would be no better: not with a scope that is
// missing, not where a stronger login is asked for (RFC 9470), not where other
// claims are, and not where a proof of possession lacks the server's nonce (RFC 9449).
func TestAuthChallengeThatMeansSomethingElseIsNoRefusal(t *testing.T) {
	for _, challenge := range []string{
		`Bearer error="insufficient_scope", scope="push"`,
		`Basic realm="x, Bearer error=\"invalid_token\"", Bearer realm=a, error=insufficient_scope`,
		`Bearer error="insufficient_user_authentication", acr_values="mfa", max_age="5"`,
		`DPoP error="insufficient_user_authentication", algs="ES256"`,
		`DPoP error="use_dpop_nonce", error_description="the server wants its nonce in the proof"`,
		`Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="`,
		`Bearer claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ==", authorization_uri="https://login.example/authorize"`,
		`Basic realm=x, Bearer error="invalid_token", Bearer error="insufficient_claims", claims="eyJub25jZSI6bnVsbH0="`,
	} {
		t.Run(challenge, func(t *testing.T) {
			sends := 0
			l := newLogin()
			l.takes = 0
			p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
			rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				sends++
				return reply(req, 401, "WWW-Authenticate", challenge), nil
			})}
			for range 3 {
				require.Equal(t, 401, get(t, rt, host).StatusCode)
			}
			require.Equal(t, 3, sends)
			require.Equal(t, 1, l.fetches("app"))
			require.Equal(t, 1, l.fetches("user"))
			require.Zero(t, p.Stats().Invalidations)
		})
	}
}

// A server that calls the token invalid is believed, claims or not.
func TestAuthInvalidTokenWithClaimsIsARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		first, err := p.Token(t.Context())
		require.NoError(t, err)
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Authorization") == "Bearer "+first.AccessToken {
				return reply(req, 401, "WWW-Authenticate", `Bearer error="invalid_token", claims="e30="`), nil
			}
			return reply(req, 200), nil
		})}
		require.Equal(t, 200, get(t, rt, host).StatusCode)
	})
}

// Some servers say 403 without a challenge for a revoked token.
func TestAuthRefusedPredicateMayReadTheBody(t *testing.T) {
	big := strings.Repeat("x", 100<<10)
	var seen int
	refused := func(resp *http.Response) bool {
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		seen = len(b)
		return resp.StatusCode == 403 && bytes.HasPrefix(b, []byte("revoked"))
	}
	for _, c := range []struct {
		body, want  string
		seen, sends int
	}{
		{"revoked", "fine", 4, 2}, {"no rights", "no rights", 9, 1}, {"", "", 0, 1}, {big, big, 64 << 10, 1},
	} {
		sends := 0
		n := 0
		src := sourceFunc(func(context.Context) (*rf.Token, error) { n++; return &rf.Token{AccessToken: fmt.Sprint(n)}, nil })
		rt := &rf.AuthTransport{Source: src, Origins: []string{host}, Refused: refused, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			sends++
			resp := reply(req, 403)
			body := c.body
			if sends == 2 {
				body = "fine"
			}
			resp.Body = io.NopCloser(strings.NewReader(body))
			return resp, nil
		})}
		resp := get(t, rt, host)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, c.want, string(b))
		require.Equal(t, c.sends, sends)
		require.Equal(t, c.seen, seen)
	}
}

// Each kind of body arrives whole with the token that works.
func TestAuthReplayedBodyIsWhole(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Authorization") != "Bearer 2" {
			w.WriteHeader(401)
			return
		}
		w.Write(body)
	}))
	defer srv.Close()
	small, large := strings.Repeat("s", 1000), strings.Repeat("l", 64<<10)
	for name, body := range map[string]io.Reader{
		"GetBody": strings.NewReader(small), "plain": struct{ io.Reader }{strings.NewReader(small)},
		"plain, 64 KiB": struct{ io.Reader }{strings.NewReader(large)}, "one byte at a time": &oneByte{strings.NewReader(small)},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			src := sourceFunc(func(context.Context) (*rf.Token, error) { n++; return &rf.Token{AccessToken: fmt.Sprint(n)}, nil })
			client := &http.Client{Transport: &rf.AuthTransport{Source: src, Origins: []string{srv.URL}}}
			resp, err := client.Post(srv.URL, "text/plain", body)
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			if name == "plain, 64 KiB" {
				require.Equal(t, large, string(got))
			} else {
				require.Equal(t, small, string(got))
			}
		})
	}
}

type oneByte struct{ r io.Reader }

func (o *oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

// An upload that waits for 100-continue and is refused has sent nothing: it
// can be replayed whatever its size.
func TestAuthRefusedExpectContinueIsReplayedWhateverItsSize(t *testing.T) {
	const size = 8 << 20
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer 2" {
			w.WriteHeader(401)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	}))
	defer srv.Close()
	n := 0
	src := sourceFunc(func(context.Context) (*rf.Token, error) { n++; return &rf.Token{AccessToken: fmt.Sprint(n)}, nil })
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.ExpectContinueTimeout = time.Minute
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: &rf.AuthTransport{Source: src, Origins: []string{srv.URL}, Base: base}}
	req, err := http.NewRequest("PUT", srv.URL, io.LimitReader(zeros{}, size))
	require.NoError(t, err)
	req.Header.Set("Expect", "100-continue")
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	got, _ := io.ReadAll(resp.Body)
	require.Equal(t, fmt.Sprint(size), string(got))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// 200 requests are in flight with one revoked token, and their refusals come
// one by one: one fetch, 200 answers.
func TestAuthLateRefusalsCostOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		mustToken(t, p)
		var late atomic.Int32
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Authorization") == "Bearer user-1" {
				time.Sleep(time.Duration(late.Add(1)) * 100 * time.Millisecond)
				return reply(req, 401), nil
			}
			return reply(req, 200), nil
		})}
		accept(t, p)
		var wg sync.WaitGroup
		var served atomic.Int32
		for range 200 {
			wg.Go(func() {
				req, _ := http.NewRequestWithContext(t.Context(), "GET", host, nil)
				if resp, err := rt.RoundTrip(req); err == nil && resp.StatusCode == 200 {
					served.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 200, served.Load())
		require.Equal(t, 2, l.fetches("user"))
		require.Equal(t, 1, l.fetches("app"))
	})
}

// accept lets a server take p's current token once.
func accept(t testing.TB, p *rf.Pipeline) {
	get(t, &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
		return reply(req, 200), nil
	})}, host)
}

// 50 genuine revocations within a second, between requests: each is proven by
// a replay, so the bucket never runs dry.
func TestAuthGenuineRevocationsAreAllServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		good := ""
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: api(func(tok string) bool { return tok == good })}
		for i := range 50 {
			good = fmt.Sprintf("user-%d", i+1)
			require.Equal(t, 200, get(t, rt, host).StatusCode)
			time.Sleep(20 * time.Millisecond)
		}
		require.Equal(t, 50, l.fetches("user"))
		require.Equal(t, 1, l.fetches("app"))
		require.Zero(t, p.Stats().RefusalsIgnored)
	})
}

// An API that refuses everything for ever costs the auth server a handful.
func TestAuthRefusingForEverIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: api(func(string) bool { return false })}
		for range 500 {
			require.Equal(t, 401, get(t, rt, host).StatusCode)
		}
		const depth = 3
		total := l.fetches("device") + l.fetches("app") + l.fetches("user")
		require.LessOrEqual(t, total, 2*depth+8)
		t.Logf("%d fetches for 500 requests", total)
	})
}

// The drops that a request has taken come back once its replay was accepted,
// through a TokenSource of the application's own, too.
func TestAuthAcceptedReplayCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		good := ""
		rt := &rf.AuthTransport{Source: wrapped{p}, Retry: rf.SimpleAuthRetry(2, 0), Origins: []string{host}, Base: api(func(tok string) bool { return tok == good })}
		for i := range 20 {
			good = fmt.Sprintf("user-%d", 2*i+3) // two refusals before each
			require.Equal(t, 200, get(t, rt, host).StatusCode, i)
		}
		require.Zero(t, p.Stats().RefusalsIgnored)
	})
}

type wrapped struct{ rf.TokenSource }

// http.Client sets Cancel for its Timeout: a wait for a token ends with it.
func TestAuthWaitForATokenHonoursCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 20 * time.Second
		for _, src := range []rf.TokenSource{
			pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}}),
			sourceFunc(func(ctx context.Context) (*rf.Token, error) { <-ctx.Done(); return nil, ctx.Err() }),
		} {
			rt := &rf.AuthTransport{Source: src, Origins: []string{host}, Base: api(func(string) bool { return true })}
			req, _ := http.NewRequest("GET", host, nil)
			cancel := make(chan struct{})
			//lint:ignore SA1019 http.Client sets it
			req.Cancel = cancel
			begun := time.Now()
			time.AfterFunc(time.Second, func() { close(cancel) })
			_, err := rt.RoundTrip(req)
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, time.Second, time.Since(begun))
		}
		time.Sleep(time.Minute)
	})
}

func TestAuthNilHeaderIsNoPanic(t *testing.T) {
	rt := &rf.AuthTransport{Source: static("t"), Origins: []string{host}, Base: api(func(tok string) bool { return tok == "t" })}
	u, _ := url.Parse(host)
	resp, err := rt.RoundTrip(&http.Request{URL: u})
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
}

func TestAuthErrorFromBelowGoesUpAsItIs(t *testing.T) {
	rt := &rf.AuthTransport{Source: static("t"), Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
		return nil, io.ErrUnexpectedEOF
	})}
	req, _ := http.NewRequest("GET", host, nil)
	_, err := rt.RoundTrip(req)
	require.Equal(t, io.ErrUnexpectedEOF, err)
}

// A request whose token can't be had yet is sent later by a retry layer above,
// with its body whole; one that can't be mended is not tried again.
func TestAuthErrorsUnderARetryLayer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		src := sourceFunc(func(context.Context) (*rf.Token, error) {
			if asked++; asked == 1 {
				return nil, &rf.AuthError{StatusCode: 503, RetryAfter: 3 * time.Second}
			}
			return &rf.Token{AccessToken: "t"}, nil
		})
		var got string
		auth := &rf.AuthTransport{Source: src, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			b, _ := io.ReadAll(req.Body)
			got = string(b)
			req.Body.Close()
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})}
		rt := &rf.RetryTransport{Base: auth, Policy: rf.RetryPolicy{RetryMax: 3}}
		closes := 0
		req, _ := http.NewRequest("PUT", host, closeCounter{strings.NewReader("body"), &closes})
		begun := time.Now()
		_, err := rt.RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, "body", got)
		require.Equal(t, 1, closes)
		require.GreaterOrEqual(t, time.Since(begun), 3*time.Second, "when a new try is due")

		begun = time.Now()
		for name, auth := range map[string]*rf.AuthTransport{
			"config":    {Source: src},
			"plaintext": {Source: src, Origins: []string{"http://api.example.com"}},
			"nil, nil":  {Source: sourceFunc(func(context.Context) (*rf.Token, error) { return nil, nil }), Origins: []string{rf.AnyOrigin}, AllowPlaintext: true},
			"CR":        {Source: sourceFunc(func(context.Context) (*rf.Token, error) { return &rf.Token{AccessToken: "a\r"}, nil }), Origins: []string{rf.AnyOrigin}, AllowPlaintext: true},
			"static":    {Source: rf.StaticToken(nil), Origins: []string{rf.AnyOrigin}, AllowPlaintext: true},
			"permanent": {Source: sourceFunc(func(context.Context) (*rf.Token, error) { return nil, &rf.AuthError{Permanent: true} }), Origins: []string{rf.AnyOrigin}, AllowPlaintext: true},
		} {
			req, _ := http.NewRequest("GET", "http://api.example.com/", nil)
			_, err := (&rf.RetryTransport{Base: auth, Policy: rf.RetryPolicy{RetryMax: 3}}).RoundTrip(req)
			require.Error(t, err, name)
			require.Zero(t, time.Since(begun), name)
		}
	})
}
