//go:build !race

package match

import (
	"net/url"
	"testing"
)

func TestNoAllocations(t *testing.T) {
	o, err := ParseOrigins([]string{"https://api.example.com", "https://*.example.com:8443", "http://10.0.0.1", "http://[::1]:8080"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePaths("/v1", []string{"/health", "/u/*/avatar", "/docs/**"})
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{
		"https://api.example.com/v1/health",
		"https://a.b.example.com:8443/v1/u/7/avatar",
		"https://evil.test/v1/docs/a/b/c",
		"https://evil.test:8443/../%2e%2e/a",
		"http://10.0.0.1/v1/docs/caf%C3%A9",
		"http://127.0.0.1:80",
		"http://[::1]:8080/v1/docs/a%20b",
		"http://localhost/v1/docs/..",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		v := *u
		for name, f := range map[string]func(){
			"Origins.Match":     func() { o.Match(u) },
			"Origins.MatchHost": func() { o.MatchHost(u.Scheme, u.Host) },
			"Same":              func() { Same(u, &v) },
			"Loopback":          func() { Loopback(u) },
			"Paths.Match":       func() { p.Match(u) },
		} {
			if n := testing.AllocsPerRun(100, f); n != 0 {
				t.Errorf("%s of %s: %v allocations", name, raw, n)
			}
		}
	}
}
