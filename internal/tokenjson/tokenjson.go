// Package tokenjson reads a token out of a JSON response (RFC 6749 §5.1),
// also one whose members have other names or lie deeper than there. None of
// its errors shows anything of what the server sent.
package tokenjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The members of a standard response, read where Fields names no other.
const (
	DefaultToken     = "access_token"
	DefaultType      = "token_type"
	DefaultRefresh   = "refresh_token"
	DefaultExpiresIn = "expires_in"
	DefaultExpiresAt = "expires_at"
)

const (
	// maxDepth keeps what is read well within what encoding/json can
	// read again once a record is wrapped around it.
	maxDepth = 100

	// maxLifetime is as long as "for ever" needs to be. It keeps every
	// expiry within the years that JSON's and Go's times can hold.
	maxLifetime = 100 * 365 * 24 * time.Hour

	// Unix times from here on are milliseconds: as seconds they would lie
	// in the year 5138, as milliseconds they begin in 1973.
	minMillis = 1e11
)

// Fields names the members to read, each a path as in CheckPath. An empty
// one means the default.
type Fields struct{ Token, Type, Refresh, ExpiresIn, ExpiresAt string }

// Response is what was read. Expiry is zero if the server named none. Extra
// holds what else there was, without any copy of Token and Refresh.
type Response struct {
	Token, Type, Refresh string
	Expiry               time.Time
	Extra                map[string]any
}

// Parse reads body, which arrived at now. date is the server's clock at that
// time, zero if it isn't known: an absolute expiry is the server's reading of
// a clock, so what counts is how far it lies from the server's own now.
func Parse(body []byte, f Fields, now, date time.Time) (Response, error) {
	root, err := decode(body)
	if err != nil {
		return Response{}, err
	}
	var r Response
	token := path(f.Token, DefaultToken)
	if r.Token, err = text(root, token); err != nil {
		return Response{}, err
	}
	if r.Token == "" {
		if _, ok := lookup(root, token); ok {
			return Response{}, fmt.Errorf("field %q is empty", token)
		}
		return Response{}, fmt.Errorf("there is no field %q", token)
	}
	typ, refresh := path(f.Type, DefaultType), path(f.Refresh, DefaultRefresh)
	if r.Type, err = text(root, typ); err != nil {
		return Response{}, err
	}
	if r.Refresh, err = text(root, refresh); err != nil {
		return Response{}, err
	}
	in, at := path(f.ExpiresIn, DefaultExpiresIn), path(f.ExpiresAt, DefaultExpiresAt)
	v, _ := lookup(root, in)
	inLeft, inSet, err := relative(v)
	if err != nil {
		return Response{}, fmt.Errorf("field %q %w", in, err)
	}
	v, _ = lookup(root, at)
	atLeft, atSet, err := absolute(v, clock(now, date))
	if errors.Is(err, errUnreadable) && f.ExpiresAt == "" {
		// Nobody asked for it, and no standard says what it looks like.
		atSet, err = false, nil
	}
	if err != nil {
		return Response{}, fmt.Errorf("field %q %w", at, err)
	}
	if left := min(inLeft, atLeft); inSet || atSet {
		r.Expiry = now.Add(left).Round(0).UTC()
	}
	if obj, ok := root.(map[string]any); ok {
		for _, p := range []string{token, typ, refresh, in, at} {
			remove(obj, p)
		}
		scrub(obj, r.Token, r.Refresh)
		if len(obj) > 0 {
			r.Extra = obj
		}
	}
	return r, nil
}

// ErrorCode returns the "error" member of body (RFC 6749 §5.2), "" if there is
// none. It is the server's word: compare it, don't show it.
func ErrorCode(body []byte) string {
	root, err := decode(body)
	if err != nil {
		return ""
	}
	obj, _ := root.(map[string]any)
	code, _ := obj["error"].(string)
	return code
}

// CheckPath reports whether p can name a member: names and array indexes with
// a dot between them ("auth.client_token", "data.0.token"). What is left of a
// path is first looked for as one name, so that a last name may hold dots.
func CheckPath(p string) error {
	for seg := range strings.SplitSeq(p, ".") {
		if seg == "" {
			return errors.New("has an empty part")
		}
	}
	return nil
}

func path(p, def string) string {
	if p == "" {
		return def
	}
	return p
}

// lookup finds p below v.
func lookup(v any, p string) (any, bool) {
	for {
		name, rest, more := strings.Cut(p, ".")
		switch c := v.(type) {
		case map[string]any:
			if w, ok := c[p]; ok {
				return w, true
			}
			w, ok := c[name]
			if !ok || !more {
				return nil, false
			}
			v, p = w, rest
		case []any:
			i, ok := index(name, len(c))
			if !ok {
				return nil, false
			}
			if !more {
				return c[i], true
			}
			v, p = c[i], rest
		default:
			return nil, false
		}
	}
}

// index reads a decimal index below n. "+1" and "01" are none.
func index(s string, n int) (int, bool) {
	i, err := strconv.Atoi(s)
	return i, err == nil && 0 <= i && i < n && strconv.Itoa(i) == s
}

// remove deletes what lookup finds at p below v. An element of an array
// becomes null, so that its neighbours keep their places.
func remove(v any, p string) {
	for {
		name, rest, more := strings.Cut(p, ".")
		switch c := v.(type) {
		case map[string]any:
			if _, ok := c[p]; ok {
				delete(c, p)
				return
			}
			v, p = c[name], rest
		case []any:
			i, ok := index(name, len(c))
			if !ok {
				return
			}
			if !more {
				c[i] = nil
				return
			}
			v, p = c[i], rest
		default:
			return
		}
	}
}

// scrub removes every other copy of the secrets below v.
func scrub(v any, secrets ...string) {
	secret := func(v any) bool {
		s, ok := v.(string)
		if !ok || s == "" {
			return false
		}
		for _, secret := range secrets {
			if s == secret {
				return true
			}
		}
		return false
	}
	switch c := v.(type) {
	case map[string]any:
		for k, w := range c {
			if secret(k) || secret(w) {
				delete(c, k)
				continue
			}
			scrub(w, secrets...)
		}
	case []any:
		for i, w := range c {
			if secret(w) {
				c[i] = nil
				continue
			}
			scrub(w, secrets...)
		}
	}
}

// text returns the string at p, "" if there is none or it is null.
func text(root any, p string) (string, error) {
	v, _ := lookup(root, p)
	switch s := v.(type) {
	case nil:
		return "", nil
	case string:
		return s, nil
	}
	return "", fmt.Errorf("field %q is not a string", p)
}

var (
	errUnreadable = errors.New("is not a time that can be read")
	errExpired    = errors.New("says that the token has already expired")
)

// relative reads a lifetime in seconds. Null, "" and 0 name none: servers
// whose tokens don't expire say so, and x/oauth2 reads it so too.
func relative(v any) (left time.Duration, set bool, err error) {
	n, set, err := number(v)
	switch {
	case err != nil:
		return maxLifetime, false, err
	case !set || n == 0:
		return maxLifetime, false, nil
	case n < 0:
		return 0, false, errExpired
	}
	return seconds(n), true, nil
}

// absolute reads a time, RFC 3339 or Unix, as what is left until then. Null,
// "", 0 and the zero time name none.
func absolute(v any, now time.Time) (left time.Duration, set bool, err error) {
	if s, ok := v.(string); ok {
		if t, err := time.Parse(time.RFC3339, strings.TrimSpace(s)); err == nil {
			switch left := t.Sub(now); { // saturates
			case t.IsZero():
				return maxLifetime, false, nil
			case left <= 0:
				return 0, false, errExpired
			default:
				return min(left, maxLifetime), true, nil
			}
		}
	}
	n, set, err := number(v)
	if err != nil || !set || n == 0 {
		return maxLifetime, false, err
	}
	if n >= minMillis {
		n /= 1e3
	}
	// The whole seconds are subtracted as such: a float64 holds today's
	// Unix time to less than a microsecond, but not to a nanosecond.
	n -= float64(now.Unix())
	n -= float64(now.Nanosecond()) / 1e9
	if n <= 0 {
		return 0, false, errExpired
	}
	return seconds(n), true, nil
}

// seconds is n seconds, n > 0, at most maxLifetime.
func seconds(n float64) time.Duration {
	if n >= maxLifetime.Seconds() {
		return maxLifetime
	}
	// Not 0, which is no time left: it may be all of it below 1 ns.
	return max(time.Duration(n*float64(time.Second)), 1)
}

// number reads a JSON number or a string that holds one; set is false for
// null and "". What is too large for a float64 is infinite. NaN and the like
// are no JSON.
func number(v any) (n float64, set bool, err error) {
	var s string
	switch v := v.(type) {
	case nil:
		return 0, false, nil
	case json.Number:
		s = v.String()
	case string:
		s = strings.TrimSpace(v)
		if s == "" {
			return 0, false, nil
		}
		if s[0] != '-' && (s[0] < '0' || s[0] > '9') || !json.Valid([]byte(s)) {
			return 0, false, errUnreadable
		}
	default:
		return 0, false, errUnreadable
	}
	n, err = strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(n, 0) {
		return 0, false, errUnreadable
	}
	return n, true, nil
}

// clock is the server's now. Its Date has whole seconds, so what is nearer
// than that is taken for our own clock, which is finer.
func clock(now, date time.Time) time.Time {
	if date.IsZero() || now.Sub(date).Abs() <= time.Second {
		return now
	}
	return date
}

// decode reads the one object or array that body must be.
func decode(body []byte) (any, error) {
	switch {
	case bytes.HasPrefix(body, []byte("\xfe\xff")), bytes.HasPrefix(body, []byte("\xff\xfe")),
		len(body) > 1 && (body[0] == 0) != (body[1] == 0):
		return nil, errors.New("the text is UTF-16, not UTF-8")
	case !utf8.Valid(body):
		return nil, errors.New("the text is not UTF-8")
	}
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, errors.New("the body is empty")
	}
	// The whole of it first, trailing garbage included. encoding/json's
	// own words may quote the body, so only the place is told.
	var raw json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, fmt.Errorf("the body is not JSON: byte %d of %d", syntax.Offset, len(body))
		}
		return nil, errors.New("the body is not JSON")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	root, err := value(dec, 1)
	if err != nil {
		return nil, err
	}
	switch root.(type) {
	case map[string]any, []any:
		return root, nil
	}
	return nil, errors.New("the body is neither a JSON object nor an array")
}

// value reads the next value token by token rather than in one Decode, which
// would let the last of two members with the same name win silently: RFC 6749
// §3.2 forbids the second, and two parsers could see two different tokens.
func value(dec *json.Decoder, depth int) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, errors.New("the body is not JSON")
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("the body is nested more than %d deep", maxDepth)
	}
	if delim == '[' {
		arr := []any{}
		for dec.More() {
			v, err := value(dec, depth+1)
			if err != nil {
				return nil, err
			}
			arr = append(arr, v)
		}
		_, err = dec.Token()
		return arr, err
	}
	obj := map[string]any{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, errors.New("the body is not JSON")
		}
		name, _ := tok.(string)
		if _, dup := obj[name]; dup {
			return nil, errors.New("an object in the body has the same name twice")
		}
		if obj[name], err = value(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err = dec.Token()
	return obj, err
}
