package requestforge_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/requestforge/requestforge"
)

// net/http sends http://LocalHost, and any other spelling but those of
// match.Loopback, to the proxy of the environment. Whoever thinks that they stay on
// this machine sends passwords and tokens there in the clear.
func TestOnlyWhatNetHTTPKeepsFromAProxyIsThisMachine(t *testing.T) {
	form := url.Values{"password": {fetchSecret}}
	never := &http.Client{Transport: fetchRT(func(req *http.Request) (*http.Response, error) {
		t.Errorf("sent to %s", req.URL)
		return nil, http.ErrHandlerTimeout
	})}
	for _, host := range []string{"LocalHost", "LOCALHOST:1", "localhost.", "a.localhost", "127.1", "0x7f.1", "2130706433", "[::1%25lo]"} {
		at := "http://" + host + "/x"
		tok, err := (&requestforge.HTTPFetcher{URL: at, Form: form, Client: never}).Fetch(t.Context(), requestforge.Input{})
		want := "plain http to another machine"
		if strings.EqualFold(host[:4], "loca") && !strings.HasSuffix(host, ".") {
			want = "localhost in lower case"
		}
		if ae := fetchFailed(t, tok, err, want); !ae.Unsent {
			t.Errorf("%s: %v, want it unsent", host, err)
		}
		prepared := &requestforge.HTTPFetcher{URL: "https://auth.example", TokenHeader: "X", Client: never, Prepare: func(req *http.Request, _ requestforge.Input) (err error) {
			req.URL, err = url.Parse(at)
			return err
		}}
		tok, err = prepared.Fetch(t.Context(), requestforge.Input{})
		fetchFailed(t, tok, err, "Prepare")

		if _, err := requestforge.NewTransport(requestforge.Config{BaseURL: at, Source: requestforge.StaticToken(&requestforge.Token{AccessToken: "a"})}); err == nil {
			t.Errorf("%s: a BaseURL for a token", host)
		}
		req, _ := http.NewRequest("GET", at, nil)
		auth := &requestforge.AuthTransport{Source: requestforge.StaticToken(&requestforge.Token{AccessToken: "a"}), Origins: []string{requestforge.AnyOrigin}, Base: never.Transport}
		if _, err := auth.RoundTrip(req); err == nil || !strings.Contains(err.Error(), "plain http") {
			t.Errorf("%s: the token's request: %v", host, err)
		}
	}
}

// A proxy for all hosts, loopback included, reads what is sent over plain http.
func TestPlainHTTPThroughAProxyCarriesNoSecret(t *testing.T) {
	var got atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Add(1)
		fetchJSON(fetchStd)(w, r)
	}))
	defer proxy.Close()
	to, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	base := &http.Transport{Proxy: http.ProxyURL(to)}
	defer base.CloseIdleConnections()
	f := &requestforge.HTTPFetcher{URL: "http://localhost:1/token", Form: url.Values{"password": {fetchSecret}}, Client: &http.Client{Transport: base}}
	tok, err := f.Fetch(t.Context(), requestforge.Input{})
	if ae := fetchFailed(t, tok, err, "plain http through a proxy"); !ae.Unsent {
		t.Errorf("got %v, want it unsent", err)
	}

	before := http.DefaultTransport
	http.DefaultTransport = base
	defer func() { http.DefaultTransport = before }()
	if resp, err := requestforge.LoginClient("http://localhost:1").Get("http://localhost:1/"); err == nil || !strings.Contains(err.Error(), "proxy") {
		t.Errorf("LoginClient: %v, %v", resp, err)
	}
	if n := got.Load(); n != 0 {
		t.Errorf("the proxy had %d requests", n)
	}
	f.AllowPlaintext = true
	if _, err := f.Fetch(t.Context(), requestforge.Input{}); err != nil || got.Load() != 1 {
		t.Errorf("allowed: %v, %d requests", err, got.Load())
	}
}

// Two spellings of one origin are not both this machine.
func TestRedirectToAnotherSpellingOfLocalhostIsNotFollowed(t *testing.T) {
	var sent []string
	client := &http.Client{Transport: fetchRT(func(req *http.Request) (*http.Response, error) {
		sent = append(sent, req.URL.Host)
		return fetchAnswer(307, http.Header{"Location": {"http://LocalHost:1/" + fetchSecret}}, "").Transport.RoundTrip(req)
	})}
	f := &requestforge.HTTPFetcher{URL: "http://localhost:1/token", Form: url.Values{"password": {fetchSecret}}, Client: client}
	tok, err := f.Fetch(context.Background(), requestforge.Input{})
	fetchFailed(t, tok, err, "redirect not followed")
	if len(sent) != 1 {
		t.Errorf("sent to %q", sent)
	}
}
