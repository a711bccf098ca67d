// Package cookieline puts cookies into a request's Cookie header, beside the existing
// cookies.
package cookieline

import (
	"errors"
	"net/http"
	"strings"
)

// Check returns an error unless value is a valid cookie value (RFC 6265 §4.1.1). The
// error quotes no part of value.
func Check(name, value string) error {
	c := http.Cookie{Name: name, Value: value}
	if c.Valid() != nil || strings.ContainsAny(value, " ,") { // which net/http would put into quotes
		return errors.New("no cookie can hold it: it has blanks, commas, semicolons, quotes, backslashes or other characters")
	}
	return nil
}

// A Cookie is a name, and the cookie as in the header: name=value.
type Cookie struct{ Name, Pair string }

// Put returns the line of a Cookie header with cookies in place of the cookies with the
// same names in lines. All further cookies stay as written.
func Put(lines []string, cookies ...Cookie) string {
	if len(lines) == 0 && len(cookies) == 1 { // the usual case
		return cookies[0].Pair
	}
	var b strings.Builder
	size := 0
	for _, line := range lines {
		size += len(line) + len("; ")
	}
	for i := range cookies {
		size += len(cookies[i].Pair) + len("; ")
	}
	b.Grow(size)
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ";") {
			if part = strings.TrimSpace(part); part != "" && !named(part, cookies) {
				join(&b, part)
			}
		}
	}
	for i := range cookies {
		join(&b, cookies[i].Pair)
	}
	return b.String()
}

// join writes a further cookie to b.
func join(b *strings.Builder, pair string) {
	if b.Len() > 0 {
		b.WriteString("; ")
	}
	b.WriteString(pair)
}

// named reports whether part, a piece of a line, has the name of any of the cookies.
func named(part string, cookies []Cookie) bool {
	name, _, _ := strings.Cut(part, "=")
	name = strings.TrimSpace(name)
	for i := range cookies {
		if cookies[i].Name == name {
			return true
		}
	}
	return false
}
