// Package tokenjson reads a token out of a JSON response (RFC 6749 §5.1), also if the
// members have other names or lie deeper. The errors quote nothing of the response.
package tokenjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The members of a standard response, used where Fields has no name.
const (
	DefaultToken     = "access_token"
	DefaultType      = "token_type"
	DefaultRefresh   = "refresh_token"
	DefaultExpiresIn = "expires_in"
	DefaultExpiresAt = "expires_at"
)

// maxDepth keeps the values well within the depth that encoding/json can read again
// inside a record.
const maxDepth = 100

// Fields names the members to read, each a path as in CheckPath, ExpiresIn with options
// as in CheckLifetime. An empty one means the default.
type Fields struct{ Token, Type, Refresh, ExpiresIn, ExpiresAt string }

// Response is the parsed response. Expiry is zero if the server gave no expiry, and
// Zero means that the server gave a lifetime of 0. Extra holds the further members,
// without any copy of Token and Refresh.
type Response struct {
	Token, Type, Refresh string
	Expiry               time.Time
	Zero                 bool
	Extra                map[string]any
}

// Clock is the time of a response's arrival, by the local clock (Now) and by the
// server's clock (Date, or zero if unknown). An absolute expiry follows the server's
// clock, so the lifetime is the difference to the server's own now.
type Clock struct{ Now, Date time.Time }

// Parse reads body, which has the token in a field. If the token is a JWT, exp counts,
// too.
func Parse(body []byte, f Fields, c Clock) (Response, error) {
	root, err := decode(body)
	if err != nil {
		return Response{}, err
	}
	token := path(f.Token, DefaultToken)
	value, err := text(root, token)
	if err != nil {
		return Response{}, err
	}
	if value = strings.Trim(value, Blanks); value == "" {
		if _, ok := lookup(root, token); ok {
			return Response{}, fmt.Errorf("field %q is empty", token)
		}
		return Response{}, fmt.Errorf("there is no field %q", token)
	}
	f.Token = token
	return read(root, value, f, c, false)
}

// Beside reads the facts in body about a token that is elsewhere in the response.
// Beside ignores a body that isn't JSON, and an unreadable field that Fields doesn't
// name, since the body may have another subject.
func Beside(body []byte, token string, f Fields, c Clock) (Response, error) {
	root, err := decode(body)
	if err != nil {
		root = nil
	}
	f.Token = ""
	return read(root, token, f, c, true)
}

// Whole reads a body that is itself the token, as a text or as a JSON string.
func Whole(body []byte, c Clock) (Response, error) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	token := string(body)
	switch {
	case token == "":
		return Response{}, errors.New("the body is empty")
	case !utf8.ValidString(token):
		return Response{}, errors.New("the text is not UTF-8")
	case body[0] == '"':
		if json.Unmarshal(body, &token) != nil {
			return Response{}, errors.New("the body begins like a JSON string, and is none")
		}
		if token = strings.TrimSpace(token); token == "" {
			return Response{}, errors.New("the body is an empty JSON string")
		}
	case body[0] == '{', body[0] == '[', token == "null", token == "true", token == "false":
		return Response{}, errors.New("the body is JSON, but no string")
	}
	return read(nil, token, Fields{}, c, false)
}

// read reads the facts in root about a token, which is at f.Token unless f.Token is
// empty. A nil root has no facts. If lenient, unreadable fields that f doesn't name
// stay in Extra.
func read(root any, value string, f Fields, c Clock, lenient bool) (r Response, err error) {
	value = strings.Trim(value, Blanks)
	r.Token = value
	typ, refresh := path(f.Type, DefaultType), path(f.Refresh, DefaultRefresh)
	if r.Type, err = text(root, typ); err != nil {
		if !lenient || f.Type != "" {
			return Response{}, err
		}
		typ = ""
	}
	if r.Refresh, err = text(root, refresh); err != nil {
		if !lenient || f.Refresh != "" {
			return Response{}, err
		}
		refresh = ""
	}
	end, err := ending(root, f, c, lenient)
	if err != nil {
		return Response{}, err
	}
	if own, ok := exp(value, clock(c.Now, c.Date)); ok {
		end.left, end.set = min(end.left, own), true
	}
	if r.Zero = end.zero; end.set {
		r.Expiry = c.Now.Add(end.left).Round(0).UTC()
	}
	if obj, ok := root.(map[string]any); ok {
		for _, p := range []string{f.Token, typ, refresh, end.in, end.at} {
			if p != "" {
				remove(obj, p)
			}
		}
		scrub(obj, r.Token, r.Refresh)
		if len(obj) > 0 {
			r.Extra = obj
		}
	}
	return r, nil
}

// end holds the facts in a body about the end of a token.
type end struct {
	left      time.Duration // if set
	set, zero bool          // zero: the lifetime is 0
	in, at    string        // the paths that were read; "": no path
}

// ending reads the lifetime and the time of expiry below root, see read.
func ending(root any, f Fields, c Clock, lenient bool) (e end, err error) {
	life, err := parseLifetime(path(f.ExpiresIn, DefaultExpiresIn))
	if err != nil {
		return e, err
	}
	e.in, e.at = life.path, path(f.ExpiresAt, DefaultExpiresAt)
	v, _ := lookup(root, e.in)
	inLeft, inSet, zero, err := life.read(v)
	if err != nil {
		if !lenient || f.ExpiresIn != "" {
			return e, fmt.Errorf("field %q %w", e.in, err)
		}
		e.in, inLeft = "", maxLifetime
	}
	v, _ = lookup(root, e.at)
	atLeft, atSet, err := absolute(v, clock(c.Now, c.Date))
	switch {
	case err == nil:
	case f.ExpiresAt == "" && lenient:
		e.at, atLeft, atSet = "", maxLifetime, false
	case f.ExpiresAt == "" && errors.Is(err, errUnreadable):
		// The program didn't ask for the field, and no standard defines its format.
		atLeft, atSet = maxLifetime, false
	default:
		return e, fmt.Errorf("field %q %w", e.at, err)
	}
	e.left, e.set, e.zero = min(inLeft, atLeft), inSet || atSet, zero
	return e, nil
}

// ErrorCode returns the "error" member of body (RFC 6749 §5.2), or "". Some servers
// answer with a form instead of JSON. The code is text from the server: compare the
// code, but don't show the code.
func ErrorCode(body []byte) string {
	root, err := decode(body)
	if err != nil {
		text := strings.TrimSpace(string(body))
		if strings.ContainsAny(text, " \t\r\n<>") { // a page, or words
			return ""
		}
		form, _ := url.ParseQuery(text)
		return form.Get("error")
	}
	obj, _ := root.(map[string]any)
	code, _ := obj["error"].(string)
	return code
}

// CheckPath reports whether p can name a member: names and array indexes with a dot
// between them ("auth.client_token", "data.0.token"). At each level the rest of the
// path is tried as a single name first, so the last name may contain dots.
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

// Value returns the value at p below root as a text, or "" if there is no value, or an
// object or array.
func Value(root map[string]any, p string) string {
	v, _ := lookup(root, p)
	switch v := v.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return v.String()
	case float64, float32, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
		if text, err := json.Marshal(v); err == nil {
			return string(text)
		}
	}
	return ""
}

// index reads a decimal index below n. "+1" and "01" are no indexes.
func index(s string, n int) (int, bool) {
	i, err := strconv.Atoi(s)
	return i, err == nil && 0 <= i && i < n && strconv.Itoa(i) == s
}

// remove deletes the value that lookup finds at p below v. An element of an array
// becomes null, so that the other elements keep their places.
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
		s = strings.Trim(s, Blanks)
		for _, secret := range secrets {
			if s == secret && s != "" {
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

// Blanks stand around a token by mistake, as at the end of a file that was read, and are
// trimmed wherever the token is.
const Blanks = " \t\r\n"

// Scrub removes every copy of the secrets below extra.
func Scrub(extra map[string]any, secrets ...string) { scrub(extra, secrets...) }

// text returns the string at p, or "" for null or a missing string.
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

// decode reads body, a single object or array.
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
	// Check the whole body first, including trailing garbage. encoding/json's errors
	// may quote the body, so the error names only the offset.
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
