// Package challenge reads WWW-Authenticate (RFC 9110 §11.6.1).
package challenge

import (
	"net/http"
	"strings"
)

// Challenge is a challenge of a response.
type Challenge struct {
	Scheme  string            // as sent; compare with strings.EqualFold
	Token68 string            // "" if the challenge has parameters
	Params  map[string]string // names in lower case, values unquoted; nil without parameters
}

// The bounds on the cost of a response. A server that sends more isn't asking for an
// answer.
const (
	maxChallenges = 64
	maxParams     = 64        // of a challenge
	maxBytes      = 128 << 10 // of a response; a Kerberos ticket has up to 64 KiB
)

// Parse returns the first 64 challenges in h, each with the first 64 parameters, as far
// as they can be read and within the first 128 KiB. Malformed text ends its header
// line, but not the lines after; a challenge keeps the parameters before the malformed
// text. If a challenge repeats a parameter, the first value counts.
func Parse(h http.Header) []Challenge {
	var list []Challenge
	walk(h, func(e element) bool {
		if e.first() {
			list = append(list, Challenge{Scheme: e.scheme, Token68: e.token68})
			return true
		}
		list[len(list)-1].setParam(e.name, e.value)
		return true
	})
	return list
}

// BearerError returns the error parameter of the first Bearer challenge with an error.
// A response may have several challenges with different errors.
func BearerError(h http.Header) (code string) {
	bearers(h, func(b bearer) bool {
		code = b.code
		return code == ""
	})
	return code
}

// Verdict is the meaning of a response's challenges for the token that was sent.
type Verdict int

const (
	// Refused means that no challenge speaks for the token.
	Refused Verdict = iota

	// OtherClaims means that the API asks for a token with other claims: a Bearer
	// challenge has a claims parameter (OpenID Connect, Microsoft's
	// insufficient_claims) and no invalid_token. The server leaves open whether the
	// token is good.
	OtherClaims

	// NoNonce means that the server wants a proof of possession with the nonce in the
	// response: use_dpop_nonce (RFC 9449 §9). The server didn't examine the token.
	NoNonce

	// Insufficient means that the token is good but not enough for the
	// request: insufficient_scope (RFC 6750) or
	// insufficient_user_authentication (RFC 9470).
	Insufficient
)

// VerdictOf reads the Bearer and DPoP challenges of h; both have the same parameters
// (RFC 9449 §7.1). If the challenges differ, the Verdict that is best for the token
// counts.
func VerdictOf(h http.Header) Verdict {
	v := Refused
	bearers(h, func(b bearer) bool {
		switch {
		case b.code == "insufficient_scope", b.code == "insufficient_user_authentication":
			v = Insufficient
		case b.code == "use_dpop_nonce":
			v = NoNonce
		case b.claims && b.code != "invalid_token" && v == Refused:
			v = OtherClaims
		}
		return v != Insufficient
	})
	return v
}

// bearer is the part of a challenge that VerdictOf and BearerError need.
type bearer struct {
	code   string
	claims bool
}

// bearers calls f for each Bearer and DPoP challenge, until f returns false.
// Nothing is allocated, but for a code with escapes.
func bearers(h http.Header, f func(bearer) bool) {
	var b bearer
	open, coded, claimed := false, false, false // of the present challenge
	more := true
	walk(h, func(e element) bool {
		switch {
		case e.first():
			if open {
				more = f(b)
			}
			b, coded, claimed = bearer{}, false, false
			open = strings.EqualFold(e.scheme, "Bearer") || strings.EqualFold(e.scheme, "DPoP")
		case !open:
		case !coded && strings.EqualFold(e.name, "error"):
			b.code, coded = unquote(e.value), true
		case !claimed && strings.EqualFold(e.name, "claims"):
			b.claims, claimed = e.value != `""`, true
		}
		return more
	})
	if open && more {
		f(b)
	}
}

// element is a challenge, or a parameter of the last challenge.
type element struct {
	scheme, token68 string // of a challenge
	name, value     string // of a parameter, with the value as sent
}

func (e *element) first() bool { return e.scheme != "" }

// walk calls f for each element that Parse may return, until f returns false.
func walk(h http.Header, f func(element) bool) {
	challenges, left := 0, maxBytes
	for _, line := range h["Www-Authenticate"] {
		if len(line) > left {
			// Drop the element that the limit cuts.
			line = line[:strings.LastIndexByte(line[:left], ',')+1]
			left = 0
		}
		left -= len(line)
		if !walkLine(line, &challenges, f) || left <= 0 {
			return
		}
	}
}

// walkLine walks through a line, and returns false if f did. The grammar has commas
// between challenges and also between the parameters of a challenge: an element that
// begins with a token and "=" is a parameter, and any other element a new challenge.
func walkLine(s string, challenges *int, f func(element) bool) bool {
	params := -1 // parameters that the last challenge may still have; -1: no parameter may follow
	for {
		s = strings.TrimLeft(s, " \t,")
		if c, rest, ok := cutChallenge(s); ok {
			if *challenges++; *challenges > maxChallenges {
				return true
			}
			if !f(c) {
				return false
			}
			params = maxParams
			if c.token68 != "" {
				params = -1
			}
			if s = rest; s == "" || s[0] == ',' {
				continue
			}
		}
		p, rest, ok := cutParam(s)
		if !ok || params < 0 {
			return true // the end, or malformed
		}
		if params > 0 && !f(p) {
			return false
		}
		params = max(0, params-1)
		s = rest
	}
}

// cutChallenge returns the challenge at the beginning of s without parameters: a
// token68 must be the only text before the next comma.
func cutChallenge(s string) (c element, rest string, ok bool) {
	scheme, behind := cutToken(s)
	if scheme == "" || strings.HasPrefix(skipSpace(behind), "=") {
		return c, s, false
	}
	end, alone := cutEnd(behind)
	if !alone && end == behind {
		return c, s, false
	}
	c.scheme = scheme
	// A token68 can have the look of a parameter without a value ("abc="), but
	// only the former may end here.
	if token68, behind := cutToken68(end); token68 != "" {
		if behind, alone := cutEnd(behind); alone {
			c.token68 = token68
			return c, behind, true
		}
	}
	return c, end, true
}

// cutParam returns the parameter at the beginning of s, and the rest up to the comma
// behind the parameter.
func cutParam(s string) (p element, rest string, ok bool) {
	name, rest := cutToken(s)
	value, ok := strings.CutPrefix(skipSpace(rest), "=")
	if !ok || name == "" {
		return p, s, false
	}
	value, rest, ok = cutValue(skipSpace(value))
	if !ok {
		return p, s, false
	}
	rest, ok = cutEnd(rest)
	return element{name: name, value: value}, rest, ok
}

func (c *Challenge) setParam(name, value string) {
	name = strings.ToLower(name)
	if _, ok := c.Params[name]; ok {
		return
	}
	if c.Params == nil {
		c.Params = make(map[string]string)
	}
	c.Params[name] = unquote(value)
}

// cutEnd cuts the comma that ends an element, or finds the end of the line.
func cutEnd(s string) (rest string, ok bool) {
	s = skipSpace(s)
	return s, s == "" || s[0] == ','
}

func skipSpace(s string) string { return strings.TrimLeft(s, " \t") }

// cutToken returns the token at the beginning of s, perhaps an empty token.
func cutToken(s string) (token, rest string) {
	n := 0
	for n < len(s) && (alphanumeric(s[n]) || strings.IndexByte("!#$%&'*+-.^_`|~", s[n]) >= 0) {
		n++
	}
	return s[:n], s[n:]
}

// cutToken68 returns the token68 at the beginning of s, perhaps an empty token68.
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

// cutValue returns the token or the quoted string, quotes included, at the beginning of
// s.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutToken(s)
		return value, rest, value != ""
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[:i+1], s[i+1:], true
		case c == '\\':
			if i++; i == len(s) || control(s[i]) {
				return "", "", false
			}
		case control(c):
			return "", "", false
		}
	}
	return "", "", false
}

// unquote returns the text of a value from cutValue.
func unquote(value string) string {
	if !strings.HasPrefix(value, `"`) {
		return value
	}
	value = value[1 : len(value)-1]
	if strings.IndexByte(value, '\\') < 0 {
		return value
	}
	var b strings.Builder
	b.Grow(len(value))
	for i := 0; i < len(value); i++ {
		if value[i] == '\\' {
			i++
		}
		b.WriteByte(value[i])
	}
	return b.String()
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// control reports whether c can't be in a quoted string, not even escaped.
func control(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }
