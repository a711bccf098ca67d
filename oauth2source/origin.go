// The origins that a request may go to. The root module has the same rules for its own
// fetchers; a published module imports no internal package of another module.

package oauth2source

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// sameOrigin reports whether a and b, http or https URLs, have the same scheme, host and
// port. Hosts compare equal only if their spellings differ in nothing but the case of ASCII
// letters.
func sameOrigin(a, b *url.URL) bool {
	x, y := origin(a), origin(b)
	return x != "" && x == y
}

// origin returns u's scheme, host and port in a canonical spelling, or "" if u has no host
// or another scheme.
func origin(u *url.URL) string {
	port := u.Port()
	switch {
	case u.Opaque != "" || u.Hostname() == "":
		return ""
	case u.Scheme == "https" && port == "":
		port = "443"
	case u.Scheme == "http" && port == "":
		port = "80"
	case u.Scheme != "https" && u.Scheme != "http":
		return ""
	}
	return u.Scheme + "://" + lower(u.Hostname()) + " " + port // no host holds a blank
}

// lower returns host in lower case. Only ASCII letters change, since other letters have
// look-alikes. The zone of an IPv6 address, behind %, stays unchanged.
func lower(host string) string {
	if strings.Contains(host, "%") {
		return host
	}
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, host)
}

// loopback reports whether the spelling of u's host means this machine: localhost in lower
// case, or a loopback address without a zone. net/http sends LocalHost to a proxy of the
// environment.
func loopback(u *url.URL) bool {
	if u.Hostname() == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback()
}

// proxied reports whether base sends req through a proxy. proxied can see the proxy of an
// *http.Transport, also below layers with a method Unwrap.
func proxied(base http.RoundTripper, req *http.Request) bool {
	for range 100 { // an Unwrap may return its own receiver
		if t, ok := base.(*http.Transport); ok {
			if t == nil || t.Proxy == nil {
				return false
			}
			proxy, err := t.Proxy(req)
			return err == nil && proxy != nil
		}
		layer, ok := base.(interface{ Unwrap() http.RoundTripper })
		if !ok {
			break
		}
		base = layer.Unwrap()
	}
	return false
}
