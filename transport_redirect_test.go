// What http.Client does with relative URLs over a Transport: as with absolute ones.

package requestforge_test

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// No Referer on the way from https to http, where anyone could read it; else the whole
// URL, whether it was asked for by a relative or an absolute one.
func TestRedirectRefererIsThatOfTheWholeURL(t *testing.T) {
	var referer []string
	hit := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { referer = append(referer, r.Referer()) })
	plain := httptest.NewServer(hit)
	defer plain.Close()
	mux := http.NewServeMux()
	api := httptest.NewTLSServer(mux)
	defer api.Close()
	mux.Handle("/v1/", hit)
	mux.HandleFunc("/v1/out", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain.URL, http.StatusFound) })
	mux.HandleFunc("/v1/in", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/v1/there", http.StatusFound) })
	for name, above := range map[string]func(http.RoundTripper) http.RoundTripper{
		"alone":         func(rt http.RoundTripper) http.RoundTripper { return rt },
		"below a layer": func(rt http.RoundTripper) http.RoundTripper { return retryOver(rt, retryFast(1)) },
	} {
		tr, err := rf.NewTransport(rf.Config{Base: api.Client().Transport, BaseURL: api.URL + "/v1", Source: static("t")})
		require.NoError(t, err)
		client := &http.Client{Transport: above(tr)}
		for _, c := range []struct{ path, explicit, want string }{
			{"out?key=s3cret", "", ""},
			{"out?key=s3cret", "/page?key=s3cret", ""},
			{"in?key=1", "", api.URL + "/v1/in?key=1"},
			{"in", "https://else.example/", "https://else.example/"},
		} {
			for _, prefix := range []string{"", "/", api.URL + "/v1/"} {
				referer = nil
				req, _ := http.NewRequest("GET", prefix+c.path, nil)
				if c.explicit != "" {
					req.Header.Set("Referer", c.explicit)
				}
				resp, err := client.Do(req)
				require.NoError(t, err)
				resp.Body.Close()
				require.Equal(t, []string{c.want}, referer, "%s, %q%s", name, prefix, c.path)
			}
		}
	}
}

// A redirect to a URL without a host leads to this machine, and takes nothing along that
// the caller has set.
func TestRedirectToNoHostTakesNothingAlong(t *testing.T) {
	for _, location := range []string{"http://:8080/steal", "//:8080/steal", "http://\u00ad:8080/steal", "http://.:8080/steal", "http://\u3002:8080/steal", "http://", "http:///steal", "http:steal", "https:?x"} {
		var got []string
		sends := 0
		tr, err := rf.NewTransport(rf.Config{BaseURL: "http://api.example.com", AllowPlaintext: true, Source: static("t"),
			Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				if sends++; sends == 1 {
					return reply(req, 302, "Location", location), nil
				}
				for name, values := range req.Header {
					if name != "Referer" {
						got = append(got, values...)
					}
				}
				return reply(req, 200), nil
			})})
		require.NoError(t, err)
		req, _ := http.NewRequest("GET", "/x", nil)
		req.Header.Set("Authorization", "Basic the-callers-own")
		req.Header.Set("Cookie", "session=the-callers-own")
		(&http.Client{Transport: tr}).Do(req)
		require.Empty(t, got, location)
	}
}

// A layer above puts the caller's relative URL into the response: a redirect within the
// origin takes the token along all the same.
func TestRedirectBelowALayerAboveABaseURL(t *testing.T) {
	for name, above := range map[string]func(http.RoundTripper) http.RoundTripper{
		"alone":   func(rt http.RoundTripper) http.RoundTripper { return rt },
		"retry":   func(rt http.RoundTripper) http.RoundTripper { return retryOver(rt, retryFast(1)) },
		"logging": func(rt http.RoundTripper) http.RoundTripper { return &rf.LoggingTransport{Base: rt} },
	} {
		var got []string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = append(got, r.URL.Path+" "+r.Header.Get("Authorization"))
			switch r.URL.Path {
			case "/v1/a":
				http.Redirect(w, r, "/v1/b", http.StatusFound)
			case "/v1/b":
				http.Redirect(w, r, strings.Replace("http://"+r.Host, "127.0.0.1", "localhost", 1)+"/v1/c", http.StatusFound)
			}
		}))
		tr, err := rf.NewTransport(rf.Config{BaseURL: srv.URL + "/v1", Source: static("t"), Origins: []string{rf.AnyOrigin}})
		require.NoError(t, err)
		resp, err := (&http.Client{Transport: above(tr)}).Get("/a")
		require.NoError(t, err)
		resp.Body.Close()
		srv.Close()
		require.Equal(t, "[/v1/a Bearer t /v1/b Bearer t /v1/c ]", fmt.Sprint(got), name)
	}
}

// The cookies of an API come back, whether it is asked by relative or absolute URLs.
func TestRedirectJarKnowsRelativeURLs(t *testing.T) {
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("session")
		if err != nil {
			c = new(http.Cookie)
		}
		got = append(got, c.Value)
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "abc", Path: "/v1"})
	}))
	defer srv.Close()
	tr, err := rf.NewTransport(rf.Config{BaseURL: srv.URL + "/v1", Source: static("t")})
	require.NoError(t, err)
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Transport: tr, Jar: tr.Jar(jar)}
	for _, u := range []string{"/x", "y", srv.URL + "/v1/z", srv.URL + "/v2"} {
		resp, err := client.Get(u)
		require.NoError(t, err)
		resp.Body.Close()
	}
	require.Equal(t, []string{"", "abc", "abc", ""}, got)
	_, err = client.Get("//evil.example/x")
	require.Error(t, err)
	require.Nil(t, tr.Jar(nil))

	tr, err = rf.NewTransport(rf.Config{})
	require.NoError(t, err)
	require.Equal(t, http.CookieJar(jar), tr.Jar(jar))
	u, _ := url.Parse("/x")
	require.Empty(t, tr.Jar(jar).Cookies(u))
}
