// Where the values of a token go on a request.

package requestforge

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/requestforge/requestforge/internal/cookieline"
	"github.com/requestforge/requestforge/internal/format"
	"github.com/requestforge/requestforge/internal/httpname"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/rawquery"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/tokenjson"
)

// A Place says where a value goes on each request that carries the token:
//
//	key := os.Getenv("KEY")
//	if key == "" {
//		return errors.New("KEY is not set") // Text: "" would mean the access token
//	}
//	// ...
//	Attach: []requestforge.Place{
//		{Header: "X-Session"},                 // the access token
//		{Cookie: "XSRF-TOKEN", Value: "csrf"}, // a value of the token's Extra
//		{Query: "api-key", Text: key},         // the program's own
//	}
//
// Exactly one of Header, Query and Cookie is set. A value that doesn't fit its place, or
// that the token lacks, is an error of the request, and nothing is sent. Every layer and
// proxy below sees a query value, and so do foreign logs: prefer a header if the API takes
// a header. A Place prints without its Text, and so do the layers, except inside an
// unexported field of a struct, where fmt calls no methods.
type Place struct {
	// Header, Query and Cookie are the name of a header, of a query parameter, or of a
	// cookie. Headers that net/http writes (Host, Content-Length, Transfer-Encoding,
	// Trailer), headers of the connection (Connection, Keep-Alive, Proxy-Connection, TE,
	// Upgrade), and the header Cookie, which has a field here, are mistakes.
	Header, Query, Cookie string

	// Value selects the value: "" for the access token, else the path of a value in the
	// token's Extra, as in [Token.Value].
	Value string

	// Text is a constant of the program in place of Value. "" means no constant; if Value
	// is "" as well, the access token goes to the place. A program therefore has to check a
	// constant from its environment.
	Text string

	// Scheme precedes a header's value, with a blank between. "" means the token's type in
	// Authorization, and no scheme in any other header.
	Scheme string

	// Bare means no scheme in Authorization.
	Bare bool
}

// name names the place without its value.
func (p Place) name() string {
	switch {
	case p.Header != "":
		return fmt.Sprintf("header %q", p.Header)
	case p.Query != "":
		return fmt.Sprintf("query parameter %q", p.Query)
	}
	return fmt.Sprintf("cookie %q", p.Cookie)
}

// String describes the Place and the kind of its value, without its Text.
func (p Place) String() string {
	what := "the access token"
	switch {
	case p.Text != "":
		what = redact.Mask
	case p.Value != "":
		what = fmt.Sprintf("%q of the token's Extra", p.Value)
	}
	return "Place(" + p.name() + ": " + what + ")"
}

// Format prints String for every verb.
func (p Place) Format(f fmt.State, verb rune) { format.Text(f, verb, p.String()) }

// MarshalJSON returns String as a JSON string.
func (p Place) MarshalJSON() ([]byte, error) { return json.Marshal(p.String()) }

// MarshalText returns String, for XML and the like.
func (p Place) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// GobEncode is an error: gob would write secrets that can be read back.
func (p Place) GobEncode() ([]byte, error) { return nil, format.ErrGob }

// LogValue returns String.
func (p Place) LogValue() slog.Value { return slog.StringValue(p.String()) }

// check returns the mistakes in the fields.
func (p Place) check() []error {
	set := 0
	for _, name := range []string{p.Header, p.Query, p.Cookie} {
		if name != "" {
			set++
		}
	}
	switch set {
	case 0:
		return []error{errors.New("names neither Header nor Query nor Cookie")}
	case 1:
		return slices.DeleteFunc([]error{p.checkName(), p.checkValue(), p.checkScheme()}, func(err error) bool { return err == nil })
	}
	return []error{errors.New("names several of Header, Query and Cookie; make a Place of each")}
}

// checkName returns the mistake in the name.
func (p Place) checkName() error {
	switch p.spelling() {
	case "":
	case "Host", "Content-Length", "Transfer-Encoding", "Trailer",
		"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Upgrade":
		return errors.New("is one that net/http writes itself, or leaves out over HTTP/2, so that the value would never be sent; name another one")
	case "Cookie":
		return errors.New("would hide the cookies of the caller and of a Jar; use Place.Cookie")
	default:
		if !httpname.IsToken(p.Header) {
			return errors.New("is not a header name")
		}
	}
	if p.Cookie != "" && cookieline.Check(p.Cookie, "") != nil {
		return errors.New("is not a cookie name")
	}
	return nil
}

// checkValue returns the mistake in Value and Text.
func (p Place) checkValue() error {
	switch {
	case p.Value != "" && p.Text != "":
		return errors.New("has both Value and Text; make a Place of each, or leave one out")
	case p.Value != "":
		if err := tokenjson.CheckPath(p.Value); err != nil {
			return fmt.Errorf("Value %q %w", p.Value, err)
		}
	case p.Text != "":
		if err := p.fits(p.Text); err != nil {
			return fmt.Errorf("Text: %w", err)
		}
	}
	return nil
}

// checkScheme returns the mistake in Scheme and Bare.
func (p Place) checkScheme() error {
	switch {
	case p.Scheme != "" && p.Header == "":
		return fmt.Errorf("Scheme %q is for headers; leave it out", p.Scheme)
	case p.Scheme != "" && !httpname.IsToken(p.Scheme):
		return fmt.Errorf("Scheme %q is not one word of letters, digits and -._~ and the like", p.Scheme)
	case p.Bare && (p.spelling() != "Authorization" || p.Scheme != ""):
		return errors.New("Bare is for Authorization without a Scheme; leave it out")
	}
	return nil
}

// spelling is the canonical name of a header, "" for other places.
func (p Place) spelling() spelling {
	if p.Header == "" {
		return ""
	}
	return spelling(http.CanonicalHeaderKey(p.Header))
}

// fits reports why value doesn't fit the place, without showing the value.
func (p Place) fits(value string) error {
	switch {
	case p.Header != "" && !httpname.IsValue(value):
		return errors.New("a header can't hold it: it has control characters")
	case p.Cookie != "":
		return cookieline.Check(p.Cookie, value)
	}
	return nil
}

// taken reports whether the caller has set the place. A cookie can't be told from a
// Jar's.
func (p Place) taken(req *http.Request) bool {
	switch {
	case p.Header != "":
		return p.spelling().in(req.Header)
	case p.Query != "":
		return rawquery.Has(req.URL.RawQuery, p.Query)
	}
	return false
}

// value returns the value of tok for the place.
func (p *Place) value(tok *Token) (string, error) {
	value := tok.AccessToken
	switch {
	case p.Text != "":
		value = p.Text
	case p.Value != "":
		if value = tok.Value(p.Value); value == "" {
			return "", fmt.Errorf("the token%s has no value %q in its Extra", tok.ofStep(), p.Value)
		}
		if len(value) > maxAccessToken {
			return "", fmt.Errorf("the value %q of the token%s has more than %d KiB, which no server takes with a request", p.Value, tok.ofStep(), maxAccessToken>>10)
		}
	}
	if err := p.fits(value); err != nil {
		return "", fmt.Errorf("the value of the token%s: %w", tok.ofStep(), err)
	}
	scheme := p.scheme(tok)
	switch {
	case scheme == "":
		return value, nil
	case p.Value == "" && p.Text == "" && scheme == tok.Type():
		return tok.headerValue(false) // ready-made
	}
	return scheme + " " + value, nil
}

// scheme is the scheme before a value.
func (p *Place) scheme(tok *Token) string {
	if p.Header == "Authorization" && p.Scheme == "" && !p.Bare {
		return tok.Type()
	}
	return p.Scheme
}

// put puts the value of tok onto out, which owns its header. With replace, put removes the
// caller's value. values makes the slice for a header's value.
func (p *Place) put(out *http.Request, tok *Token, replace bool, values func(string) []string) error {
	value, err := p.value(tok)
	if err != nil {
		return mistake.Final(fmt.Errorf("requestforge: %s: %w", p.name(), err))
	}
	switch {
	case p.Header != "":
		name := spelling(p.Header) // canonical, see newAttachment
		if replace {
			name.remove(out.Header)
		}
		out.Header[p.Header] = values(value)
	case p.Query != "":
		u := *out.URL
		if replace {
			u.RawQuery = rawquery.Remove(u.RawQuery, p.Query)
		}
		u.RawQuery = rawquery.Add(u.RawQuery, p.Query, value)
		out.URL = &u
	default:
		putCookies(out.Header, values, cookieline.Cookie{Name: p.Cookie, Pair: p.Cookie + "=" + value})
	}
	return nil
}

// putCookies puts cookies into h, beside cookies of other names.
func putCookies(h http.Header, values func(string) []string, cookies ...cookieline.Cookie) {
	lines, odd := h["Cookie"], false
	for name, values := range h {
		if len(name) == len("Cookie") && name != "Cookie" && strings.EqualFold(name, "Cookie") {
			lines, odd = append(slices.Clip(lines), values...), true
		}
	}
	if odd {
		spelling("Cookie").remove(h)
	}
	if line := cookieline.Put(lines, cookies...); line != "" {
		h["Cookie"] = values(line)
	}
}

// A spelling is the canonical name of a header.
type spelling string

// in reports whether h has a value of the header in any spelling: a map filled by hand may
// have any spelling.
func (s spelling) in(h http.Header) bool {
	for name, values := range h {
		if len(name) == len(s) && len(values) > 0 && strings.EqualFold(name, string(s)) {
			return true
		}
	}
	return false
}

// put returns a copy of h with value as the only value of the header. The values are
// shared. Without replace, h must not have the header, see in.
func (s spelling) put(h http.Header, value []string, replace bool) http.Header {
	if h == nil {
		return http.Header{string(s): value}
	}
	c := maps.Clone(h)
	if replace {
		s.remove(c)
	}
	c[string(s)] = value
	return c
}

// remove deletes the header from h in any spelling.
func (s spelling) remove(h http.Header) {
	maps.DeleteFunc(h, func(name string, _ []string) bool {
		return len(name) == len(s) && strings.EqualFold(name, string(s))
	})
}
