package proxied_test

import (
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/requestforge/requestforge/internal/proxied"
)

type layer struct{ http.RoundTripper }

func (l layer) Unwrap() http.RoundTripper { return l.RoundTripper }

type opaque struct{ http.RoundTripper }

func TestBy(t *testing.T) {
	proxy := &url.URL{Scheme: "http", Host: "proxy.test"}
	all := &http.Transport{Proxy: http.ProxyURL(proxy)}
	for name, c := range map[string]struct {
		base http.RoundTripper
		want bool
	}{
		"a proxy for all":    {all, true},
		"below layers":       {layer{layer{all}}, true},
		"out of sight":       {opaque{all}, false},
		"no proxy":           {&http.Transport{}, false},
		"none for this host": {&http.Transport{Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }}, false},
		"a mistake":          {&http.Transport{Proxy: func(*http.Request) (*url.URL, error) { return proxy, errors.New("no") }}, false},
		"the default":        {nil, false},
		"a nil transport":    {(*http.Transport)(nil), false},
	} {
		req := &http.Request{URL: &url.URL{Scheme: "http", Host: "localhost"}}
		if got := proxied.By(c.base, req); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
