// Package redact removes secrets from printed and logged texts: URLs, the errors that
// quote URLs, and headers. When in doubt, redact masks.
package redact

import (
	"net/url"
	"strings"
)

// Mask replaces a hidden value.
const Mask = "REDACTED"

// URL returns u as text that may be logged. User info, the value of every query
// parameter and the fragment are masked; scheme, host, path and the names of the
// parameters stay. A parameter without "=" is masked too, since the parameter may be a
// value as well as a name. A query that isn't well formed is masked completely, and so
// is an opaque URL. The path is shown unchanged: a secret in a path can't be told from
// any other segment.
//
// A nil u gives "". A URL without secrets costs one allocation.
func URL(u *url.URL) string {
	if u == nil {
		return ""
	}
	var b strings.Builder
	if u.Opaque != "" {
		// An opaque URL may hold any text, including "//user:password@host", and the
		// scheme may be the user of a "user:password@host".
		if u.Scheme == "http" || u.Scheme == "https" {
			b.WriteString(u.Scheme)
			b.WriteByte(':')
		}
		b.WriteString(Mask)
		writeQuery(&b, u)
		return b.String()
	}

	path := u.EscapedPath()
	n := len(u.Scheme) + len("://") + len(u.Host) + len(path)
	if u.User != nil {
		n += len(Mask) + len("@")
	}
	if u.RawQuery != "" || u.ForceQuery {
		n += len("?") + len(u.RawQuery) + (strings.Count(u.RawQuery, "&")+1)*len(Mask)
	}
	if u.Fragment != "" {
		n += len("#") + len(Mask)
	}
	b.Grow(n)

	if u.Scheme != "" {
		b.WriteString(u.Scheme)
		b.WriteByte(':')
	}
	if u.Scheme != "" || u.Host != "" || u.User != nil {
		if u.Host != "" || u.User != nil || strings.HasPrefix(path, "/") {
			b.WriteString("//")
		}
		if u.User != nil {
			b.WriteString(Mask)
			b.WriteByte('@')
		}
		if plainHost(u.Host) {
			b.WriteString(u.Host)
		} else {
			b.WriteString(Mask)
		}
		if path != "" && path[0] != '/' && u.Host != "" {
			b.WriteByte('/')
		}
	} else if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, "@") {
		// "user@host/path", the scheme forgotten.
		b.WriteString(Mask)
		path = path[strings.LastIndexByte(first, '@'):]
	}
	b.WriteString(path)
	writeQuery(&b, u)
	if u.Fragment != "" {
		b.WriteByte('#')
		b.WriteString(Mask)
	}
	return b.String()
}

// Text is URL for a URL in text form. A URL that can't be parsed is masked as a whole,
// since its parts can't be told apart.
func Text(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return Mask
	}
	return URL(u)
}

func writeQuery(b *strings.Builder, u *url.URL) {
	if u.RawQuery == "" {
		if u.ForceQuery {
			b.WriteByte('?')
		}
		return
	}
	b.WriteByte('?')
	if !plainQuery(u.RawQuery) {
		b.WriteString(Mask)
		return
	}
	rest, more := u.RawQuery, true
	for more {
		var pair string
		pair, rest, more = strings.Cut(rest, "&")
		if name, _, ok := strings.Cut(pair, "="); ok {
			b.WriteString(name)
			b.WriteByte('=')
		}
		if pair != "" {
			b.WriteString(Mask)
		}
		if more {
			b.WriteByte('&')
		}
	}
}

// plainQuery reports whether all readers split q into the same parameters:
// url.ParseQuery refuses ";" and bad escapes, and other parsers don't.
func plainQuery(q string) bool {
	for i := 0; i < len(q); i++ {
		switch c := q[i]; {
		case c <= ' ', c >= 0x7f, c == ';', c == '#':
			return false
		case c == '%':
			if i+2 >= len(q) || !isHex(q[i+1]) || !isHex(q[i+2]) {
				return false
			}
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// plainHost reports whether host is no more than a host and a port. A URL
// that was put together by hand can hold user info, a path or a line break
// there.
func plainHost(host string) bool {
	for i := 0; i < len(host); i++ {
		switch c := host[i]; c {
		case '@', '/', '?', '#', '"', '\\', '<', '>', 0x7f:
			return false
		default:
			if c <= ' ' {
				return false
			}
		}
	}
	return true
}
