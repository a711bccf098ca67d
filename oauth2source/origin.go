// Where a request may go. The root module has the same rules for its own
// fetchers; published modules use nothing internal of another module.

package oauth2source

import (
	"net/netip"
	"net/url"
	"strings"
)

// sameOrigin reports whether a and b, http or https URLs, have the same scheme,
// host and port. Two spellings of one host that differ by more than the case of
// ASCII letters are not the same.
func sameOrigin(a, b *url.URL) bool {
	x, y := origin(a), origin(b)
	return x != "" && x == y
}

// origin is u's scheme, host and port in one spelling, "" if u has none.
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

// lower is host in lower case. Only ASCII letters change: others have
// look-alikes. The zone of an IPv6 address, behind %, stays as it is.
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

// loopback reports whether the host of u is this machine by its spelling:
// localhost, or a loopback address without a zone.
func loopback(u *url.URL) bool {
	if lower(u.Hostname()) == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback()
}
