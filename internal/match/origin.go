// Package match decides whether a URL lies at an allowed origin and whether a URL's
// path is in a set. The answers decide where a token goes, so a URL that can't be read
// without doubt never matches. URLs in their usual spelling, lower-case ASCII, cost no
// allocation.
//
// Origins are in origin.go, paths in path.go.
package match

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Origins is a set of origins: scheme, host and port. A nil *Origins is
// empty. It is safe for concurrent use.
type Origins struct {
	any    bool
	exact  map[origin]struct{}
	common []common // the exact origins in their most common spelling
	below  []origin // wildcards; the host is the text after the *, dot included
}

// ParseOrigins compiles specs. Every mistake is reported, joined, and named
// by its spec; user info and query in a spec aren't repeated in the error.
//
//   - "https://api.example.com" or "http://10.0.0.1:8080" is one origin. The
//     scheme is http or https; a missing or empty port is the scheme's own,
//     80 or 443; one slash may follow.
//   - "https://*.example.com" is every host below example.com, at any depth,
//     and not example.com itself. At least two labels must follow the
//     wildcard: "https://*.com" is a mistake. So is "https://*.co.uk", but
//     without a list of public suffixes it can't be told and is accepted.
//   - "https://[fe80::1%25eth0]" has a zone, as RFC 6874 writes it.
//   - "*" is every http and https URL with a host.
//
// Letters in scheme and host count in either case, and an IPv6 address in
// any spelling. A name with a dot at its end is another origin than the name
// without it: DNS takes them for one, servers and certificates may not. A
// name outside ASCII has to be written in punycode (xn--…), and a URL that
// spells such a name in Unicode doesn't match; nor does one with a
// number for a host that isn't a dotted IPv4 address (127.1, 0x7f000001),
// which resolvers read differently.
func ParseOrigins(specs []string) (*Origins, error) {
	o := &Origins{exact: make(map[origin]struct{})}
	var errs []error
	for _, spec := range specs {
		if spec == "*" {
			o.any = true
			continue
		}
		at, wild, fault := parseSpec(spec)
		switch {
		case fault != "":
			errs = append(errs, fmt.Errorf("%s: %s", quoteOrigin(spec), fault))
		case wild:
			o.below = append(o.below, at)
		default:
			o.exact[at] = struct{}{}
			if p, ok := at.common(); ok {
				o.common = append(o.common, p)
			}
		}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return o, nil
}

// Any reports whether "*" is among them.
func (o *Origins) Any() bool { return o != nil && o.any }

// Match reports whether u's origin is in the set. User info, path and query
// of u don't matter; a URL with Opaque set has no origin.
func (o *Origins) Match(u *url.URL) bool {
	if u == nil || u.Opaque != "" {
		return false
	}
	if o != nil && len(o.common) == 1 && o.common[0].is(u.Scheme, u.Host) {
		return true // the usual set, and a URL in the usual spelling
	}
	return o.MatchHost(u.Scheme, u.Host)
}

// MatchHost is Match with the host (and port) taken from a Host header.
func (o *Origins) MatchHost(scheme, hostport string) bool {
	if o == nil {
		return false
	}
	if o.usual(scheme, hostport) != nil {
		return true
	}
	at, fault := originOf(scheme, hostport)
	if fault != "" {
		return false
	}
	if o.any {
		return true
	}
	if _, ok := o.exact[at]; ok {
		return true
	}
	for _, w := range o.below {
		if at.https == w.https && at.port == w.port && strings.HasSuffix(at.host, w.host) && nameFault(at.host) == "" {
			return true
		}
	}
	return false
}

// Loopback is like the function Loopback, but doesn't examine u's host if u is at an
// origin of the set, in the usual spelling.
func (o *Origins) Loopback(u *url.URL) bool {
	if u != nil && u.Opaque == "" {
		if c := o.usual(u.Scheme, u.Host); c != nil {
			return c.loopback
		}
	}
	return Loopback(u)
}

// usual is the member of the set that is spelled so, or nil.
func (o *Origins) usual(scheme, hostport string) *common {
	if o == nil {
		return nil
	}
	for i := range o.common {
		if c := &o.common[i]; c.is(scheme, hostport) {
			return c
		}
	}
	return nil
}

// Same reports whether a and b have the same origin. A host outside ASCII equals only
// the same spelling: Same doesn't convert hosts to punycode.
func Same(a, b *url.URL) bool {
	if a == nil || b == nil || a.Opaque != "" || b.Opaque != "" {
		return false
	}
	x, fault := originOf(a.Scheme, a.Host)
	if fault != "" {
		return false
	}
	y, fault := originOf(b.Scheme, b.Host)
	return fault == "" && x == y
}

// Loopback reports whether the host of u, an http or https URL, is this machine by its
// spelling: localhost in lower case, an address in 127.0.0.0/8 in dotted form, ::1, or
// an address in 127.0.0.0/8 mapped to IPv6. A request to such a host never goes to a
// proxy of the environment: http.ProxyFromEnvironment excludes the same spellings, and
// sends LocalHost to the proxy. Names below localhost, localhost with a dot at its end,
// short forms (127.1) and zones are not loopback, since their target depends on the
// resolver.
func Loopback(u *url.URL) bool {
	if u == nil || u.Opaque != "" {
		return false
	}
	at, fault := originOf(u.Scheme, u.Host)
	return fault == "" && at.loopback() && (at.ip.IsValid() || strings.HasPrefix(u.Host, at.host))
}

// origin is an origin in a canonical spelling, comparable by ==.
type origin struct {
	https bool
	port  uint16     // never 0
	host  string     // ASCII letters in lower case; "" with an ip
	ip    netip.Addr // valid for a dotted IPv4 address and an IPv6 literal
}

func (o origin) loopback() bool {
	if o.ip.IsValid() {
		return o.ip.Zone() == "" && o.ip.IsLoopback()
	}
	return o.host == "localhost"
}

// common is an origin in the spelling of most requests. Comparing the letters saves
// parsing: an equal spelling is the same origin.
type common struct {
	scheme, host string
	loopback     bool
}

func (c *common) is(scheme, hostport string) bool {
	return c.host == hostport && c.scheme == scheme
}

// common returns o so spelled, or false if that reads as another origin.
func (o origin) common() (common, bool) {
	c := common{scheme: "http", host: o.host, loopback: o.loopback()}
	usual := uint16(80)
	if o.https {
		c.scheme, usual = "https", 443
	}
	switch {
	case o.ip.Is4():
		c.host = o.ip.String()
	case o.ip.IsValid():
		c.host = "[" + o.ip.String() + "]"
	}
	if o.port != usual {
		c.host += ":" + strconv.Itoa(int(o.port))
	}
	back, fault := originOf(c.scheme, c.host)
	return c, fault == "" && back == o
}

// originOf reads the origin of a URL, or returns the fault. originOf accepts any host
// that a resolver may be asked for, including number-like, Unicode and doubtful names;
// a host in a set also has to pass nameFault. The faults are constants, so that a
// mismatch costs no allocation either.
func originOf(scheme, hostport string) (at origin, fault string) {
	switch lower(scheme) {
	case "https":
		at.https, at.port = true, 443
	case "http":
		at.port = 80
	default:
		return origin{}, "the scheme must be http or https"
	}

	host, port := hostport, ""
	if strings.HasPrefix(hostport, "[") {
		end := strings.IndexByte(hostport, ']')
		if end < 0 {
			return origin{}, "the [ of the host has no ]"
		}
		host, port = hostport[:end+1], hostport[end+1:]
	} else if colon := strings.IndexByte(hostport, ':'); colon >= 0 {
		host, port = hostport[:colon], hostport[colon:]
		if strings.IndexByte(port[1:], ':') >= 0 {
			return origin{}, "more than one colon; an IPv6 address goes in brackets, as in [::1]"
		}
	}

	if port != "" && port != ":" {
		// Dialing reads leading zeros as we do: ":0443" is 443.
		n, ok := portNumber(port[1:])
		if port[0] != ':' || !ok {
			return origin{}, "the port must be a number from 1 to 65535"
		}
		at.port = n
	}

	switch {
	case host == "":
		return origin{}, "the host is empty"
	case host[0] == '[':
		ip, err := netip.ParseAddr(host[1 : len(host)-1])
		if err != nil || ip.Is4() || !plain(ip.Zone()) {
			return origin{}, "the brackets must hold an IPv6 address"
		}
		at.ip = ip
	case !plain(host):
		return origin{}, "the host has a character that no host name has"
	case dotted(host):
		ip, err := netip.ParseAddr(host)
		if err != nil {
			at.host = host // for nameFault to refuse
			break
		}
		at.ip = ip
	default:
		at.host = lower(host)
	}
	return at, ""
}

// parseSpec reads a spec. For a wildcard, the origin's host is the dot and the text
// behind the dot.
func parseSpec(spec string) (at origin, wild bool, fault string) {
	if spec == "" {
		return origin{}, false, `empty; write scheme://host, or "*" for any origin`
	}
	scheme, rest, ok := strings.Cut(spec, "://")
	if !ok {
		return origin{}, false, "no scheme; write https://host or http://host"
	}
	host := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		host = rest[:end]
		switch {
		case rest[end] == '?' || strings.HasPrefix(rest[end:], "/?"):
			return origin{}, false, "has a query; remove it, an origin ends with the host and port"
		case rest[end] == '#' || strings.HasPrefix(rest[end:], "/#"):
			return origin{}, false, "has a fragment; remove it, an origin ends with the host and port"
		case rest[end:] != "/":
			return origin{}, false, "has a path; remove it, an origin ends with the host and port"
		}
	}
	switch {
	case strings.Contains(host, "@"):
		return origin{}, false, "has user info; remove it, an origin begins with the host"
	case !ascii(host):
		return origin{}, false, "the host isn't ASCII; write it in punycode (xn--…)"
	}
	host, wild = strings.CutPrefix(host, "*.")
	if strings.Contains(host, "*") {
		return origin{}, false, "a wildcard can only be the whole first label, as in https://*.example.com"
	}
	if strings.HasPrefix(host, "[") {
		// In a URL's text a zone follows %25; url.Parse makes it %.
		addr, zone, ok := strings.Cut(host, "%")
		if ok {
			if zone, ok = strings.CutPrefix(zone, "25"); !ok {
				return origin{}, false, "a zone is written after %25, as in [fe80::1%25eth0]"
			}
			host = addr + "%" + zone
		}
	}
	at, fault = originOf(scheme, host)
	if fault == "" && !at.ip.IsValid() {
		fault = nameFault(at.host)
	}
	if fault == "" && wild {
		if strings.Count(strings.TrimSuffix(at.host, "."), ".") == 0 {
			fault = "at least two labels of a name must follow the wildcard, as in https://*.example.com"
		}
		at.host = "." + at.host
	}
	return at, wild, fault
}

// nameFault returns the reason why host, in lower case, may mean different hosts to
// different readers. A dot at the end is fine.
func nameFault(host string) string {
	if !ascii(host) {
		return "the host isn't ASCII; write it in punycode (xn--…)"
	}
	host = strings.TrimSuffix(host, ".")
	rest, more := host, true
	var label string
	for more {
		label, rest, more = strings.Cut(rest, ".")
		if label == "" {
			return "the host has an empty label"
		}
	}
	// As in browsers, a name whose last label is a number is an address, and dotted
	// decimal is the only clear spelling of an address.
	hex, ok := strings.CutPrefix(label, "0x")
	if ok && strings.Trim(hex, "0123456789abcdef") == "" || strings.Trim(label, "0123456789") == "" {
		return "the host is a number; write an IPv4 address as four decimal numbers, as in 127.0.0.1"
	}
	return ""
}

// dotted reports whether s has the look of an IPv4 address: digits and dots.
func dotted(s string) bool { return strings.Trim(s, "0123456789.") == "" }

// plain reports whether s has only what host names and zones are made of:
// ASCII letters, digits, - _ and dots, and anything outside ASCII.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c >= 0x80:
		default:
			return false
		}
	}
	return true
}

// portNumber reads a port, of at most five digits.
func portNumber(s string) (port uint16, ok bool) {
	if len(s) > 5 {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int(s[i]-'0')
	}
	return uint16(n), 1 <= n && n <= 65535
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// lower is strings.ToLower for ASCII letters only: Unicode has non-ASCII letters whose
// lower case is ASCII, such as the Kelvin sign.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// quoteOrigin is strconv.Quote without the parts of a URL that may be secret.
func quoteOrigin(spec string) string {
	if at := strings.LastIndexByte(spec, '@'); at >= 0 {
		scheme, _, ok := strings.Cut(spec[:at], "://")
		if ok {
			scheme += "://"
		} else {
			scheme = ""
		}
		spec = scheme + "REDACTED" + spec[at:]
	}
	if cut := strings.IndexAny(spec, "?#"); cut >= 0 {
		spec = spec[:cut+1] + "REDACTED"
	}
	return strconv.Quote(spec)
}
