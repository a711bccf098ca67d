// Package httpname says which texts HTTP can carry, and where.
package httpname

import "strings"

// IsToken reports whether s is a token of RFC 9110 §5.6.2: a method, a header's
// name, an authentication scheme.
func IsToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// IsValue reports whether s can be a header's value (RFC 9110 §5.5). Bytes from
// 0x80 on are odd but legal.
func IsValue(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return IsControl(r) && r != '\t' })
}

// IsControl reports whether r is a control character of ASCII.
func IsControl(r rune) bool { return r < ' ' || r == 0x7f }
