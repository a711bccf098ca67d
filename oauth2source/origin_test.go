package oauth2source

import (
	"net/http"
	"net/url"
	"testing"
)

func parsed(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestSameOrigin(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"https://h/a", "https://h/b?c#d", true},
		{"https://h", "HTTPS://user:pass@H:443", true},
		{"http://h:", "http://h:80", true},
		{"http://[::1]:80", "http://[::1]", true},
		{"http://bücher.example/a", "http://bücher.EXAMPLE/b", true},
		{"https://h", "http://h", false},
		{"https://h", "http://h:443", false},
		{"https://h", "https://h:444", false},
		{"https://h", "https://h.", false},
		{"https://h", "https://a.h", false},
		{"https://h", "https://h@evil.test", false},
		{"https://host", "https://ho\u017ft", false}, // a letter that folds to s
		{"http://bücher.example", "http://xn--bcher-kva.example", false},
		{"http://127.1", "http://127.0.0.1", false},
		{"http://[::ffff:127.0.0.1]", "http://127.0.0.1", false},
		{"http://[fe80::1%25a]", "http://[fe80::1%25b]", false},
		{"http://[fe80::1%25a]", "http://[fe80::1%25A]", false},
		{"/a", "/a", false},
		{"//h/a", "//h/a", false},
		{"https:///a", "https:///a", false},
		{"https:h", "https:h", false},
		{"ftp://h", "ftp://h", false},
	} {
		a, b := parsed(t, tt.a), parsed(t, tt.b)
		if sameOrigin(a, b) != tt.want || sameOrigin(b, a) != tt.want {
			t.Errorf("%s, %s: got %v", tt.a, tt.b, !tt.want)
		}
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:8080": true, "LocalHost:8080": false, "LOCALHOST": false, "127.0.0.1": true, "127.255.0.9:80": true,
		"[::1]": true, "[0:0:0:0:0:0:0:1]:8080": true, "[::ffff:127.0.0.1]": true,
		"": false, "localhost.": false, "a.localhost": false, "localhost.evil.com": false, "localhost@evil.test": false,
		"localho\u017ft": false, "127.1": false, "0x7f.1": false, "127.0.0.01": false, "2130706433": false, "0x7f000001": false, "0.0.0.0": false,
		"10.0.0.1": false, "[::]": false, "[::1%25lo]": false, "[fe80::1]": false,
	} {
		if got := loopback(parsed(t, "http://"+host+"/")); got != want {
			t.Errorf("%s: got %v", host, got)
		}
	}
}

type layer struct{ http.RoundTripper }

func (l layer) Unwrap() http.RoundTripper { return l.RoundTripper }

type circle struct{ http.RoundTripper }

func (c circle) Unwrap() http.RoundTripper { return c }

func TestProxied(t *testing.T) {
	all := &http.Transport{Proxy: http.ProxyURL(parsed(t, "http://proxy.test"))}
	for name, c := range map[string]struct {
		base http.RoundTripper
		want bool
	}{
		"a proxy for all": {all, true},
		"below layers":    {layer{layer{all}}, true},
		"no proxy":        {&http.Transport{}, false},
		"not by itself":   {http.DefaultTransport, false},
		"a circle":        {circle{}, false},
		"nil":             {nil, false},
	} {
		if got := proxied(c.base, &http.Request{URL: parsed(t, "http://localhost/")}); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
