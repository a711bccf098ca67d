// Package challenge reads WWW-Authenticate (RFC 9110 §11.6.1).
package challenge

import (
	"net/http"
	"strings"
)

// Challenge is one challenge of a response.
type Challenge struct {
	Scheme  string            // as sent; compare with strings.EqualFold
	Token68 string            // "" if it has parameters
	Params  map[string]string // names in lower case, values unquoted; nil if there are none
}

// maxChallenges bounds what one response can cost: a server that sends more
// wants something else than an answer.
const maxChallenges = 64

// Parse returns the first 64 challenges in h, as far as they can be read.
// What is malformed ends its header line, not the ones after it; a challenge
// keeps the parameters before it. Of parameters with the same name in one
// challenge the first one counts.
func Parse(h http.Header) []Challenge {
	var list []Challenge
	for _, line := range h["Www-Authenticate"] {
		list = parseLine(list, line)
	}
	return list
}

// BearerError returns the error parameter of the first Bearer challenge that
// has one. A response may have several with different errors: to ask for a
// certain one, use HasBearerError.
func BearerError(h http.Header) string {
	for _, c := range Parse(h) {
		if code := c.bearerError(); code != "" {
			return code
		}
	}
	return ""
}

// HasBearerError reports whether any Bearer challenge has code, in this very
// spelling, as its error parameter. An empty code is no error.
func HasBearerError(h http.Header, code string) bool {
	for _, c := range Parse(h) {
		if code != "" && c.bearerError() == code {
			return true
		}
	}
	return false
}

func (c *Challenge) bearerError() string {
	if !strings.EqualFold(c.Scheme, "Bearer") {
		return ""
	}
	return c.Params["error"]
}

// parseLine appends the challenges of one line. The grammar has commas
// between challenges and also between the parameters of one: an element that
// begins with a token and "=" is a parameter, any other a new challenge.
func parseLine(list []Challenge, line string) []Challenge {
	s := line
	open := false // the last challenge may have parameters
	for {
		s = strings.TrimLeft(s, " \t,")
		name, rest := cutToken(s)
		if name == "" {
			return list // the end, or malformed
		}

		if !strings.HasPrefix(skipSpace(rest), "=") {
			end, alone := cutEnd(rest)
			if !alone && end == rest || len(list) == maxChallenges {
				return list
			}
			list = append(list, Challenge{Scheme: name})
			open = true
			if alone {
				s = end
				continue
			}
			// A token68 can have the look of a parameter without a
			// value ("abc="), but only the former may end here.
			token68, behind := cutToken68(end)
			if s, alone = cutEnd(behind); alone && token68 != "" {
				list[len(list)-1].Token68 = token68
				open = false
				continue
			}
			name, rest = cutToken(end)
		}

		value, ok := strings.CutPrefix(skipSpace(rest), "=")
		if !ok || !open || name == "" {
			return list
		}
		value, rest, ok = cutValue(skipSpace(value))
		if !ok {
			return list
		}
		if s, ok = cutEnd(rest); !ok {
			return list
		}
		list[len(list)-1].setParam(name, value)
	}
}

func (c *Challenge) setParam(name, value string) {
	name = strings.ToLower(name)
	if _, ok := c.Params[name]; ok {
		return
	}
	if c.Params == nil {
		c.Params = make(map[string]string)
	}
	c.Params[name] = value
}

// cutEnd cuts the comma that ends an element, or finds the end of the line.
func cutEnd(s string) (rest string, ok bool) {
	s = skipSpace(s)
	return s, s == "" || s[0] == ','
}

func skipSpace(s string) string { return strings.TrimLeft(s, " \t") }

// cutToken returns the token that s begins with, maybe an empty one.
func cutToken(s string) (token, rest string) {
	n := 0
	for n < len(s) && (alphanumeric(s[n]) || strings.IndexByte("!#$%&'*+-.^_`|~", s[n]) >= 0) {
		n++
	}
	return s[:n], s[n:]
}

// cutToken68 returns the token68 that s begins with, maybe an empty one.
func cutToken68(s string) (token68, rest string) {
	n := 0
	for n < len(s) && (alphanumeric(s[n]) || strings.IndexByte("-._~+/", s[n]) >= 0) {
		n++
	}
	for n > 0 && n < len(s) && s[n] == '=' {
		n++
	}
	return s[:n], s[n:]
}

// cutValue returns the token or, unquoted, the quoted string that s begins
// with.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutToken(s)
		return value, rest, value != ""
	}
	s = s[1:]
	var unquoted strings.Builder // what comes before start
	start := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			unquoted.WriteString(s[start:i])
			return unquoted.String(), s[i+1:], true
		case c == '\\':
			unquoted.WriteString(s[start:i])
			i++
			start = i
			if i == len(s) || control(s[i]) {
				return "", "", false
			}
		case control(c):
			return "", "", false
		}
	}
	return "", "", false
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// control reports whether c can't be in a quoted string, not even escaped.
func control(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }
