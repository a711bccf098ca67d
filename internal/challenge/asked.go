package challenge

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// The bounds on the kept parameters of a response's challenges, which are sent to an
// auth server and stored.
const (
	maxAsked  = 16      // parameters
	maxWords  = 64      // scopes, or acr_values
	maxValue  = 4 << 10 // bytes of a value
	maxOthers = 1 << 10 // bytes of a value unknown to this package
)

// Asked returns the parameters of the Bearer and DPoP challenges in h that ask for more
// than the token could show, see VerdictOf. The parameters are keyed by name. The
// scopes of several challenges are combined; of any other name the first value counts.
// Asked returns nil if no parameter is Lasting, since then no login could answer the
// challenges.
//
//   - scope and acr_values are words with a blank between, each once, without words that
//     are no scope-token of RFC 6749 §3.3.
//   - max_age is a number of seconds.
//   - claims is the text of a JSON object, whether sent as JSON or in base64.
//   - resource and resource_metadata are absolute http or https URLs.
//   - Other parameters have values of printable ASCII, without the prose for people
//     (error_description, error_uri).
//
// Asked leaves out parameters of any other form, and values longer than 4 KiB (1 KiB
// for unknown names). The result has 16 parameters at most.
func Asked(h http.Header) map[string]string {
	asked := make(map[string]string)
	for _, c := range Parse(h) {
		if !c.asksForMore() {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(c.Params)) {
			value, ok := clean(name, c.Params[name])
			before, known := asked[name]
			switch {
			case !ok:
			case name == "scope" && known:
				asked[name] = words(before + " " + value)
			case !known && (lasting(name) || len(asked) < maxAsked-len(lastingNames)):
				asked[name] = value
			}
		}
	}
	if len(Lasting(asked)) == 0 {
		return nil
	}
	return asked
}

// asksForMore reports whether c, alone, would have another verdict than Refused.
func (c Challenge) asksForMore() bool {
	if !strings.EqualFold(c.Scheme, "Bearer") && !strings.EqualFold(c.Scheme, "DPoP") {
		return false
	}
	switch c.Params["error"] {
	case "insufficient_scope", "insufficient_user_authentication":
		return true
	case "invalid_token":
		return false
	}
	return c.Params["claims"] != ""
}

// lastingNames are the parameters that a login can send to an auth server, and a later
// login again.
var lastingNames = []string{"acr_values", "claims", "max_age", "resource", "scope"}

func lasting(name string) bool { return slices.Contains(lastingNames, name) }

// Lasting returns the parameters of asked, from Asked or from a store, that a later
// login can ask for again: scope, acr_values, max_age, claims and resource, each in the
// form of Asked. The result is a new map, or nil without parameters.
func Lasting(asked map[string]string) (kept map[string]string) {
	for _, name := range lastingNames {
		if value, ok := clean(name, asked[name]); ok {
			if kept == nil {
				kept = make(map[string]string)
			}
			kept[name] = value
		}
	}
	return kept
}

// Merge returns the parameters that answer a later challenge and all earlier
// challenges: the scopes of all, the shorter max_age, the members of all claims, where
// the later member replaces a different earlier member; and the later acr_values and
// resource. Both maps have to be results of Lasting or Merge, and so is the result.
// Where there would be too many values, the later values stay. Merge modifies neither
// map.
func Merge(before, later map[string]string) map[string]string {
	if len(before) == 0 {
		return maps.Clone(later)
	}
	all := maps.Clone(before)
	for name, value := range later {
		old, known := before[name]
		switch {
		case !known:
		case name == "scope":
			value = words(old + " " + value)
		case name == "max_age" && seconds(old) < seconds(value):
			value = old
		case name == "claims":
			value = mergeClaims(old, value)
		}
		all[name] = value
	}
	return all
}

// Covers reports whether a login that has asked for asked needs no new login for
// wanted.
func Covers(asked, wanted map[string]string) bool {
	return maps.Equal(Merge(asked, wanted), asked) || len(wanted) == 0
}

// clean returns the value of a parameter in the form of Asked, and whether the value is
// usable.
func clean(name, value string) (string, bool) {
	switch name {
	case "scope", "acr_values":
		value = words(value)
		return value, value != ""
	case "max_age":
		n := seconds(value)
		return strconv.Itoa(n), n >= 0
	case "claims":
		return claims(value)
	case "resource", "resource_metadata":
		return value, absolute(value)
	case "error_description", "error_uri":
		return "", false
	}
	odd := strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' })
	return value, value != "" && len(value) <= maxOthers && !odd
}

// words returns the words in s that are scope-tokens, each once, or the last of too
// many words.
func words(s string) string {
	all := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' })
	var kept []string
	seen, size := make(map[string]bool), 0
	for _, w := range all {
		if !seen[w] && word(w) {
			seen[w] = true
			kept = append(kept, w)
			size += len(w) + 1
		}
	}
	for len(kept) > maxWords || size > maxValue {
		size -= len(kept[0]) + 1
		kept = kept[1:]
	}
	return strings.Join(kept, " ")
}

// word reports whether w is a scope-token.
func word(w string) bool {
	return !strings.ContainsFunc(w, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r > '~' })
}

// seconds returns a number of seconds, or -1 if s is no possible age of a login.
func seconds(s string) int {
	if s == "" || len(s) > 9 || strings.Trim(s, "0123456789") != "" {
		return -1
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// absolute reports whether s is an absolute URL of http or https, without a fragment (RFC
// 8707 §2).
func absolute(s string) bool {
	if len(s) > maxValue || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.Fragment == ""
}

// claims returns the JSON object in s, as JSON or as base64 in a spelling that servers
// use.
func claims(s string) (string, bool) {
	text := []byte(s)
	if !strings.HasPrefix(strings.TrimLeft(s, " \t"), "{") {
		var err error
		s = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(s), "=")
		if text, err = base64.RawStdEncoding.DecodeString(s); err != nil {
			return "", false
		}
	}
	object, err := object(text)
	if err != nil {
		return "", false
	}
	return written(object)
}

var errObject = errors.New("not a JSON object")

// object reads a JSON object that ends with the text.
func object(text []byte) (o map[string]any, err error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&o); err != nil || o == nil {
		return nil, errObject
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errObject
	}
	return o, nil
}

// written returns the canonical text of o, unless the text is too long.
func written(o map[string]any) (string, bool) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(o); err != nil || b.Len() > maxValue+1 {
		return "", false
	}
	return strings.TrimSuffix(b.String(), "\n"), true
}

// mergeClaims returns the members of both, with the later member where the two differ;
// or only the later claims if both together are too long.
func mergeClaims(before, later string) string {
	a, err1 := object([]byte(before))
	b, err2 := object([]byte(later))
	if err1 != nil || err2 != nil {
		return later
	}
	if all, ok := written(merged(a, b)); ok {
		return all
	}
	return later
}

func merged(before, later map[string]any) map[string]any {
	all := maps.Clone(before)
	for name, v := range later {
		object, ok := v.(map[string]any)
		old, was := before[name].(map[string]any)
		if ok && was {
			v = merged(old, object)
		}
		all[name] = v
	}
	return all
}
