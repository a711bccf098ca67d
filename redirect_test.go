package requestforge_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// internet is a TLS and a plain server that answer for every host. A path
// "/go/<status>/<url>" redirects there, "/end" ends.
type internet struct {
	client *http.Transport
	mu     sync.Mutex
	seen   []string // "origin token" for each request
}

func newInternet(t *testing.T) *internet {
	n := &internet{}
	serve := func(scheme string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			token := "no"
			if strings.Contains(fmt.Sprint(r.Header, r.URL.RawQuery), "s3cret") {
				token = "token"
			}
			n.mu.Lock()
			n.seen = append(n.seen, scheme+"://"+r.Host+" "+token)
			n.mu.Unlock()
			rest, ok := strings.CutPrefix(r.URL.Path, "/go/")
			if !ok {
				return
			}
			code, to, _ := strings.Cut(rest, "/")
			status, _ := strconv.Atoi(code)
			if r.URL.RawQuery != "" { // as http.ServeMux does
				to += "?" + r.URL.RawQuery
			}
			w.Header().Set("Location", to)
			w.WriteHeader(status)
		}
	}
	secure, plain := httptest.NewTLSServer(serve("https")), httptest.NewServer(serve("http"))
	t.Cleanup(secure.Close)
	t.Cleanup(plain.Close)
	n.client = &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, network, secure.Listener.Addr().String())
		},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, plain.Listener.Addr().String())
		},
	}
	t.Cleanup(n.client.CloseIdleConnections)
	return n
}

// kindsOfPlaces are the kinds of places that a token can be in.
var kindsOfPlaces = map[string][]rf.Place{
	"nil":     nil,
	"bare":    {{Header: "Authorization", Bare: true}},
	"header":  {{Header: "X-Key"}},
	"query":   {{Query: "key"}},
	"cookie":  {{Cookie: "session"}},
	"several": {{Cookie: "session"}, {Query: "key"}, {Header: "Authorization", Scheme: "Token"}},
}

// Along redirects the token goes to the origin of the caller's own first
// request, if that is allowed, and never back to it after leaving. It makes no
// difference that others are allowed, too, nor in which place the token is, nor that the
// server repeats the query.
func TestRedirectsTakeTheTokenNowhereElse(t *testing.T) {
	n := newInternet(t)
	for kind, places := range kindsOfPlaces {
		redirectMatrix(t, n, kind, func(rt *rf.AuthTransport) { rt.Attach = places })
	}
	login := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		return reply(req, 200, "X-Token", "t-1", "Set-Cookie", "sid=s3cret; Path=/; Domain=example.com"), nil
	})}
	redirectMatrix(t, n, "cookies of the login", func(rt *rf.AuthTransport) {
		rt.Source = pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "web", Fetcher: &rf.HTTPFetcher{URL: host + "/login", TokenHeader: "X-Token", Cookies: true, Client: login}}}})
		rt.Attach = []rf.Place{}
	})
	redirectMatrix(t, n, "Prepare", func(rt *rf.AuthTransport) {
		rt.Attach = []rf.Place{}
		rt.Prepare = func(out *http.Request, tok *rf.Token) error {
			out.URL.RawQuery = "signature=" + tok.AccessToken
			return nil
		}
	})
}

func redirectMatrix(t *testing.T, n *internet, kind string, set func(*rf.AuthTransport)) {
	const first = "https://api.example.com"
	for _, origins := range [][]string{{first}, {first, "https://*.example.com", "https://api.example.com:8443", "https://evil.test", "http://api.example.com"}, {rf.AnyOrigin}} {
		rt := &rf.AuthTransport{Base: n.client, Source: static("s3cret"), Origins: origins, AllowPlaintext: true}
		set(rt)
		client := &http.Client{Transport: rt}
		for _, status := range []int{301, 302, 303, 307, 308} {
			for name, c := range map[string]struct {
				hops []string
				want []string
			}{
				"same origin":      {[]string{first}, []string{first + " token", first + " token"}},
				"its other names":  {[]string{"https://API.example.com:443"}, []string{first + " token", "https://API.example.com:443 token"}},
				"other port":       {[]string{first + ":8443"}, []string{first + " token", first + ":8443 no"}},
				"subdomain":        {[]string{"https://sub.api.example.com"}, []string{first + " token", "https://sub.api.example.com no"}},
				"other host":       {[]string{"https://evil.test"}, []string{first + " token", "https://evil.test no"}},
				"trailing dot":     {[]string{"https://api.example.com."}, []string{first + " token", "https://api.example.com. no"}},
				"user info":        {[]string{"https://api.example.com@evil.test"}, []string{first + " token", "https://evil.test no"}},
				"https to http":    {[]string{"http://api.example.com"}, []string{first + " token", "http://api.example.com no"}},
				"across and back":  {[]string{"https://evil.test", first}, []string{first + " token", "https://evil.test no", first + " no"}},
				"twice, then away": {[]string{first, "https://evil.test"}, []string{first + " token", first + " token", "https://evil.test no"}},
			} {
				for _, body := range []string{"", "body"} {
					path := "/end"
					for i := len(c.hops) - 1; i >= 0; i-- {
						path = fmt.Sprintf("/go/%d/%s%s", status, c.hops[i], path)
					}
					n.seen = nil
					var resp *http.Response
					var err error
					if body == "" {
						resp, err = client.Get(first + path)
					} else {
						resp, err = client.Post(first+path, "text/plain", strings.NewReader(body))
					}
					require.NoError(t, err)
					resp.Body.Close()
					require.Equal(t, c.want, n.seen, "%s, %v, %d, %s, body %q", kind, origins, status, name, body)
					require.NotContains(t, fmt.Sprint(resp.Request.Header, resp.Request.URL, resp.Header), "s3cret")
				}
			}
		}
	}
}

// A redirect of a foreign first request into an allowed origin stays without a
// token: that server chose where it goes.
func TestRedirectFromAForeignOriginBringsNoToken(t *testing.T) {
	n := newInternet(t)
	client := &http.Client{Transport: &rf.AuthTransport{Base: n.client, Source: static("s3cret"), Origins: []string{host}}}
	resp, err := client.Get("https://evil.test/go/302/" + host + "/end")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, []string{"https://evil.test no", host + " no"}, n.seen)
}

// Spellings of an address that lead elsewhere, or may.
func TestOddAddressesGetNoToken(t *testing.T) {
	n := newInternet(t)
	client := &http.Client{Transport: &rf.AuthTransport{Base: n.client, Source: static("s3cret"), Origins: []string{host}}}
	for _, c := range []struct {
		url, host string
		token     bool
	}{
		{host + "/", "", true},
		{"https://API.EXAMPLE.COM/", "", true},
		{host + ":443/", "", true},
		{host + ":0443/", "", true},
		{host + "/", "api.example.com", true},
		{host + "/", "evil.test", false},
		{host + "/", "api.example.com:8443", false},
		{host + "./", "", false},
		{host + ":80/", "", false},
		{"https://api.example.com.evil.test/", "", false},
		{"https://evil.test/https://api.example.com/", "", false},
		{"https://evil.test#@api.example.com/", "", false},
		{"https://evil.test?@api.example.com/", "", false},
		{"https://api.example.com@evil.test/", "", false},
		{"https://[::1%25lo]/", "", false},
		{"https://\u0430pi.example.com/", "", false}, // a Cyrillic a
		{"https://ap\u0131.example.com/", "", false}, // a dotless i
	} {
		n.seen = nil
		req, err := http.NewRequest("GET", c.url, nil)
		require.NoError(t, err, c.url)
		if c.host != "" {
			req.Host = c.host
		}
		resp, err := client.Do(req)
		require.NoError(t, err, c.url)
		resp.Body.Close()
		require.Len(t, n.seen, 1)
		require.Equal(t, c.token, strings.HasSuffix(n.seen[0], " token"), "%s, Host %q: %v", c.url, c.host, n.seen)
	}
}

// A proxy gets its own credentials and never the token, in a CONNECT for https
// and in the request itself for http.
func TestProxyAuthorizationIsLeftAlone(t *testing.T) {
	type seen struct{ method, proxy, token string }
	var got []seen
	target := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, seen{r.Method, r.Header.Get("Proxy-Authorization"), r.Header.Get("Authorization")})
	}))
	defer target.Close()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, seen{r.Method, r.Header.Get("Proxy-Authorization"), r.Header.Get("Authorization")})
		if r.Method != "CONNECT" {
			return
		}
		up, err := net.Dial("tcp", target.Listener.Addr().String())
		if err != nil {
			w.WriteHeader(502)
			return
		}
		defer up.Close()
		down, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		go io.Copy(up, down)
		io.Copy(down, up)
	}))
	defer proxy.Close()
	base := &http.Transport{
		Proxy: func(req *http.Request) (*url.URL, error) {
			return url.Parse("http://user:pass@" + proxy.Listener.Addr().String())
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: &rf.AuthTransport{Base: base, Source: static("s3cret"), Origins: []string{host}}}
	resp, err := client.Get(host)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, []seen{{"CONNECT", "Basic dXNlcjpwYXNz", ""}, {"GET", "", "Bearer s3cret"}}, got)
}
