// Package match decides whether a URL lies at an allowed origin and whether
// its path is one of a set, without allocating.
package match

import "net/url"

// Origins is a set of origins that may receive something.
type Origins struct{}

// ParseOrigins compiles "https://h", "https://h:8443", "https://*.h" and "*".
// Every mistake is reported, joined.
func ParseOrigins(specs []string) (*Origins, error) { return &Origins{}, nil }

// Any reports whether "*" is among them.
func (o *Origins) Any() bool { return false }

// Match reports whether u's origin is in the set.
func (o *Origins) Match(u *url.URL) bool { return false }

// MatchHost is Match with the host (and port) taken from a Host header.
func (o *Origins) MatchHost(scheme, hostport string) bool { return false }

// Same reports whether a and b have the same origin.
func Same(a, b *url.URL) bool { return false }

// Loopback reports whether the host of u is this machine by its spelling:
// localhost, 127.0.0.0/8 or ::1.
func Loopback(u *url.URL) bool { return false }

// Paths is a set of exact paths and path patterns.
type Paths struct{}

// ParsePaths compiles them, each put below prefix. Every mistake is
// reported, joined.
func ParsePaths(prefix string, specs []string) (*Paths, error) { return &Paths{}, nil }

// Match reports whether u's decoded and cleaned path is in the set. An
// ambiguous path never is.
func (p *Paths) Match(u *url.URL) bool { return false }
