// The places of values in a request, and the checks that the right value is in the
// right place and in no other place. The configuration is in server.go.

package authtest

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Place is where a request brings a value. Exactly one of Header, Query, Cookie and
// Field is set. The value has to be there once. A token or Value in any other
// header, cookie or query parameter makes the request be refused.
type Place struct {
	// Header, Query and Cookie name a request header, a parameter of the
	// URL's query and a cookie. Field is a field of the request's body: of
	// a JSON object, where it has to be a string, or of a form.
	Header, Query, Cookie, Field string

	// Step is the step whose token or Value is wanted. "" means the leaf in an API;
	// a place of a step has to name a step, unless the place has a Text.
	Step string

	// Value names an element of the step's Values, which is wanted in place of the
	// step's token. All tokens and Values of a step in the same request have to
	// come from the same login.
	Value string

	// Text is wanted in place of a value from a login: a secret that the client has
	// from the start, such as an API key.
	Text string `json:"-"`

	// Scheme stands before the value of a header, in any case. "" means the step's
	// token type in Authorization, or Bearer before a Text, and no scheme in any
	// other header.
	Scheme string

	// Bare means that Authorization has the value without a scheme.
	Bare bool
}

// String describes the place and the wanted value. A Text is never printed.
func (p Place) String() string {
	what := "the token"
	switch {
	case p.Text != "":
		what = "a text"
	case p.Value != "":
		what = "value " + p.Value
	}
	if p.Step != "" {
		what += " of step " + p.Step
	}
	return what + " in " + p.where()
}

// GoString returns String.
func (p Place) GoString() string { return p.String() }

// where names the place, as refusals do.
func (p Place) where() string {
	switch {
	case p.Header != "":
		return "header " + http.CanonicalHeaderKey(p.Header)
	case p.Query != "":
		return "query parameter " + p.Query
	case p.Cookie != "":
		return "cookie " + p.Cookie
	}
	return "field " + p.Field
}

// Value is a value that a login gives out beside the token, such as a CSRF value or
// the ID of a key. Each login and each refresh has a new random value. Exactly one
// of Field, Header and Cookie names the value's place in the response; Field is a
// path like Step.TokenField.
type Value struct {
	Field, Header, Cookie string

	// Rotate makes each response of the API to a request with a live token bring
	// the next value, in the same header or cookie. The newest values are valid, as
	// many as Rotate says: 1 allows only sequential requests, a higher number
	// allows for some concurrent requests. 0 means that the value stays.
	Rotate int
}

// place is a Place with its defaults filled in.
type place struct {
	Place
	step   *step  // nil: a Text
	scheme string // before the value of a header
}

// brought holds the tokens that a request brought to its places.
type brought struct {
	places []*place
	tokens map[*step]*token
	first  *token // of the first place that isn't a Text
}

// flaw is why a request isn't good enough.
type flaw struct {
	reason string // "": a token is missing
	status int
	step   *step // whose token is wrong; nil: of no step
}

func unauthorized(p *place, reason string) *flaw {
	return &flaw{reason: reason, status: http.StatusUnauthorized, step: p.step}
}

func malformed(p *place, reason string) *flaw {
	return &flaw{reason: reason, status: http.StatusBadRequest, step: p.step}
}

// answer returns the client's answer for the flaw. The challenge has scheme, or the
// type of the step's tokens.
func (f *flaw) answer(scheme string) *answer {
	if f.step != nil {
		scheme = f.step.TokenType
	}
	return refuseToken(f.status, scheme, f.reason)
}

// present looks for the wanted value of each place. The caller holds s.mu.
func (s *Simulator) present(r *http.Request, places []*place, fields map[string]any, now time.Time) (brought, *flaw) {
	got := brought{places: places, tokens: make(map[*step]*token)}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return got, &flaw{reason: "the query can't be read", status: http.StatusBadRequest}
	}
	values := make([]string, len(places))
	for i, p := range places {
		var fl *flaw
		if values[i], fl = p.read(r, query, fields); fl != nil {
			return got, fl
		}
		if p.step == nil && values[i] != p.Text {
			return got, unauthorized(p, p.where()+" is wrong")
		}
	}
	// The token identifies the login of the request, or, if the token isn't sent,
	// the first of the step's values.
	for _, byToken := range []bool{true, false} {
		for i, p := range places {
			if p.step == nil || byToken != (p.Value == "") || got.tokens[p.step] != nil {
				continue
			}
			t, why := s.login(p, values[i], now)
			if t == nil {
				return got, unauthorized(p, why)
			}
			if why := s.misplaced(r, t); why != "" {
				return got, unauthorized(p, why)
			}
			got.tokens[p.step] = t
		}
	}
	for i, p := range places {
		if p.step == nil {
			continue
		}
		t := got.tokens[p.step]
		if got.first == nil {
			got.first = t
		}
		if why := s.mismatch(p, t, values[i]); why != "" {
			return got, unauthorized(p, why)
		}
	}
	if why := got.stray(r, query); why != "" {
		return got, &flaw{reason: why, status: http.StatusBadRequest}
	}
	return got, nil
}

// read returns the value in the place.
func (p *place) read(r *http.Request, query url.Values, fields map[string]any) (string, *flaw) {
	var values []string
	switch {
	case p.Header != "":
		values = r.Header.Values(p.Header)
	case p.Query != "":
		values = query[p.Query]
	case p.Cookie != "":
		for _, c := range r.CookiesNamed(p.Cookie) {
			values = append(values, c.Value)
		}
	default:
		if v, ok := fields[p.Field].(string); ok {
			values = []string{v}
		} else if fields[p.Field] != nil {
			return "", malformed(p, p.where()+" isn't a string")
		}
	}
	if len(values) > 1 {
		return "", malformed(p, "more than one "+p.where())
	}
	value := ""
	if len(values) == 1 {
		value = values[0]
	}
	if p.scheme != "" {
		scheme, rest, _ := strings.Cut(value, " ")
		if !strings.EqualFold(scheme, p.scheme) {
			// Another scheme counts as a missing token (RFC 6750 §3.1).
			return "", p.missing()
		}
		return rest, nil
	}
	switch {
	case value == "":
		return "", p.missing()
	case p.Header != "" && strings.Contains(value, " ") && p.step != nil:
		return "", unauthorized(p, p.where()+" has a scheme, or more than one value")
	}
	return value, nil
}

func (p *place) missing() *flaw {
	switch {
	case p.step != nil && p.Value == "":
		return unauthorized(p, "")
	case p.scheme != "":
		return unauthorized(p, p.where()+" is missing, or of another scheme")
	}
	return unauthorized(p, p.where()+" is missing")
}

// login returns the live token that value in p belongs to, or the reason why there
// is none. The caller holds s.mu.
func (s *Simulator) login(p *place, value string, now time.Time) (*token, string) {
	t := s.tokens[value]
	if p.Value != "" {
		t = s.values[valueKey{p.step, p.Value, value}]
	}
	switch {
	case t == nil && p.Value != "":
		return nil, "not a value " + p.Value + " of step " + p.step.Name
	case t == nil || t.step != p.step || t.refresh:
		return nil, "not a token of step " + p.step.Name
	}
	if why := s.dead(t, now); why != "" {
		return nil, why
	}
	return t, ""
}

// valueKey is the key for finding a Value.
type valueKey struct {
	step  *step
	name  string
	value string
}

// mismatch returns the reason why value isn't the value that p wants of the login
// t. The caller holds s.mu.
func (s *Simulator) mismatch(p *place, t *token, value string) string {
	if p.Value == "" {
		if value != t.value {
			return p.where() + " isn't of the same login as " + t.label
		}
		return ""
	}
	switch {
	case slices.Contains(t.values[p.Value], value):
		return ""
	case s.values[valueKey{p.step, p.Value, value}] == t:
		return p.where() + " is an older value " + p.Value + " of " + t.label + ", which was replaced"
	case s.values[valueKey{p.step, p.Value, value}] != nil:
		return p.where() + " isn't of the same login as " + t.label
	}
	return p.where() + " isn't value " + p.Value + " of " + t.label
}

// stray names a place where the request has a token or a Value that doesn't belong
// there: a client may send a token in two places, which RFC 6750 §2 forbids, or
// leave a token in the place that an older version used.
func (b brought) stray(r *http.Request, query url.Values) string {
	seen := func(text string) bool {
		for _, t := range b.tokens {
			if strings.Contains(text, t.value) {
				return true
			}
			for _, values := range t.values {
				if strings.Contains(text, values[0]) {
					return true
				}
			}
		}
		return false
	}
	wanted := func(at Place) bool {
		return slices.ContainsFunc(b.places, func(p *place) bool { return p.at() == at })
	}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if name != "Cookie" && !wanted(Place{Header: name}) && slices.ContainsFunc(r.Header[name], seen) {
			return "a token or value in header " + name + ", where none is wanted"
		}
	}
	for _, c := range r.Cookies() {
		if !wanted(Place{Cookie: c.Name}) && seen(c.Value) {
			return "a token or value in a cookie where none is wanted"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !wanted(Place{Query: name}) && slices.ContainsFunc(query[name], seen) {
			return "a token or value in a query parameter where none is wanted"
		}
	}
	return ""
}

// at returns the place without the wanted value.
func (p Place) at() Place {
	return Place{Header: http.CanonicalHeaderKey(p.Header), Query: p.Query, Cookie: p.Cookie, Field: p.Field}
}

// authorization reports whether the place is the header of that name.
func (p Place) authorization() bool { return http.CanonicalHeaderKey(p.Header) == "Authorization" }

// check returns the mistakes in the place itself.
func (p Place) check() error {
	set := 0
	for _, name := range []string{p.Header, p.Query, p.Cookie, p.Field} {
		if name != "" {
			set++
		}
		if strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' }) {
			return fmt.Errorf("a place with the name %q", name)
		}
	}
	switch {
	case set != 1:
		return fmt.Errorf("a place needs exactly one of Header, Query, Cookie and Field")
	case http.CanonicalHeaderKey(p.Header) == "Cookie":
		return fmt.Errorf("a place in header Cookie; set Cookie to the cookie's name")
	case p.Text != "" && (p.Value != "" || p.Step != ""):
		return fmt.Errorf("%s: Text stands alone, without Value and Step", p.where())
	case p.Scheme != "" && p.Header == "":
		return fmt.Errorf("%s: Scheme needs a Header", p.where())
	case strings.Trim(p.Scheme, tokenChars) != "":
		return fmt.Errorf("%s: Scheme %q is none", p.where(), p.Scheme)
	case p.Bare && !p.authorization():
		return fmt.Errorf("%s: Bare is for Authorization; other headers have no scheme without it", p.where())
	case p.Bare && p.Scheme != "":
		return fmt.Errorf("%s: both Scheme and Bare are set", p.where())
	}
	return nil
}

// compilePlaces resolves the places of a step, or with st == nil of the API.
func (s *Simulator) compilePlaces(wants []Place, st *step) (out []*place, errs []error) {
	taken := make(map[Place]bool)
	for _, conf := range wants {
		if err := conf.check(); err != nil {
			errs = append(errs, err)
			continue
		}
		p := &place{Place: conf, scheme: conf.Scheme}
		if taken[conf.at()] {
			errs = append(errs, fmt.Errorf("two values share the %s", conf.where()))
		}
		taken[conf.at()] = true
		if conf.Text == "" {
			p.step = s.steps[conf.Step]
			if st == nil && conf.Step == "" {
				p.step = s.leaf
			}
			switch {
			case st != nil && conf.Step == "":
				errs = append(errs, fmt.Errorf("%s: Step or Text is missing", conf.where()))
				continue
			case p.step == nil && conf.Step == "":
				errs = append(errs, fmt.Errorf("%s: Step is missing, as there is more than one leaf", conf.where()))
				continue
			case p.step == nil: // compileGraph reports a place of a step
				if st == nil {
					errs = append(errs, fmt.Errorf("%s: no step %q", conf.where(), conf.Step))
				}
				continue
			}
			if _, ok := p.step.Values[conf.Value]; conf.Value != "" && !ok {
				errs = append(errs, fmt.Errorf("%s: step %q has no value %q", conf.where(), p.step.Name, conf.Value))
			}
		}
		if conf.authorization() && conf.Scheme == "" && !conf.Bare {
			p.scheme = "Bearer"
			if p.step != nil {
				p.scheme = p.step.TokenType
			}
		}
		out = append(out, p)
	}
	return out, errs
}
