// Package rawquery changes single parameters of a URL's query, and leaves all other
// bytes unchanged, for a caller's signature over the query, or for a server with its
// own rules for queries.
package rawquery

import (
	"net/url"
	"slices"
	"strings"
)

// Has reports whether query has a parameter with the name, in any escaping.
func Has(query, name string) bool {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if called(pair, name) {
			return true
		}
	}
	return false
}

// called reports whether a parameter as it is written has the name, escaped or not.
func called(pair, name string) bool {
	n, _, _ := strings.Cut(pair, "=")
	return n == name || unescape(n) == name
}

// Add returns query with a further parameter at the end.
func Add(query, name, value string) string {
	if query != "" {
		return query + "&" + url.QueryEscape(name) + "=" + url.QueryEscape(value)
	}
	return url.QueryEscape(name) + "=" + url.QueryEscape(value)
}

// Remove returns query without the parameters of the name.
func Remove(query, name string) string {
	if !Has(query, name) {
		return query
	}
	var kept []string
	for pair := range pairs(query) {
		if !called(pair, name) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

// A Param is a parameter of a query, not escaped.
type Param struct{ Name, Value string }

// Added returns the parameters of query that before lacks.
func Added(query, before string) []Param {
	old := make(map[Param]bool)
	for pair := range pairs(before) {
		name, value := split(pair)
		old[Param{name, value}] = true
	}
	var added []Param
	for pair := range pairs(query) {
		name, value := split(pair)
		if p := (Param{name, value}); !old[p] {
			added = append(added, p)
		}
	}
	return added
}

// maxNested bounds the nesting of URLs within the parameters of other URLs.
const maxNested = 4

// Strip returns a URL without params in the query, in the values of other parameters
// and in the segments of the path, in any depth of escaping: the parameter with the
// page after the login is itself a URL. A URL that was all query becomes "?", which
// leads to the same page as before, and not "", which leads nowhere.
func Strip(link string, params []Param) string { return strip(link, params, maxNested) }

func strip(link string, params []Param, deep int) string {
	if deep == 0 {
		return link
	}
	front, fragment, hash := strings.Cut(link, "#")
	head, query, ok := strings.Cut(front, "?")
	head = stripPath(head, params, deep)
	query, changed := stripQuery(query, params, deep)
	if ok && (query != "" || !changed || head == "") {
		head += "?" + query
	}
	if hash {
		if strings.Contains(fragment, "?") {
			fragment = strip(fragment, params, deep-1)
		}
		head += "#" + fragment
	}
	return head
}

// stripPath is Strip for a path.
func stripPath(path string, params []Param, deep int) string {
	if !strings.ContainsAny(path, "%;") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segment = stripMatrix(segment, params)
		if plain, err := url.PathUnescape(segment); err == nil && plain != segment {
			if inner := stripInner(plain, params, deep-1); inner != plain {
				segment = url.PathEscape(inner)
			}
		}
		segments[i] = segment
	}
	return strings.Join(segments, "/")
}

// stripMatrix returns text without the params that a semicolon precedes or follows.
func stripMatrix(text string, params []Param) string {
	if !strings.Contains(text, ";") {
		return text
	}
	return strings.Join(slices.DeleteFunc(strings.Split(text, ";"), func(part string) bool { return is(part, params) }), ";")
}

// stripInner is Strip for unescaped text: a URL, a query alone, or another escaped
// level of either.
func stripInner(text string, params []Param, deep int) string {
	if strings.Contains(text, "?") || deep == 0 {
		return strip(text, params, deep)
	}
	text, _ = stripQuery(text, params, deep)
	return text
}

// stripQuery is Strip for a query.
func stripQuery(query string, params []Param, deep int) (_ string, changed bool) {
	var kept []string
	for pair := range pairs(query) {
		clean := pair
		if !is(pair, params) {
			clean = stripPair(pair, params, deep-1)
		}
		switch {
		case clean == pair && !is(pair, params):
		case clean == "" || is(clean, params):
			changed = true
			continue
		default:
			changed = true
		}
		kept = append(kept, clean)
	}
	if !changed {
		return query, false
	}
	return strings.Join(kept, "&"), true
}

// stripPair is Strip for a parameter: value, name, or the whole parameter may be a URL.
func stripPair(pair string, params []Param, deep int) string {
	pair = stripMatrix(pair, params)
	name, value, ok := strings.Cut(pair, "=")
	if ok {
		plain := unescape(value)
		if inner := stripInner(plain, params, deep); inner != plain {
			return name + "=" + url.QueryEscape(inner)
		}
		value = "=" + value
	}
	if strings.Contains(pair, "?") {
		return strip(pair, params, deep)
	}
	if plain := unescape(name); plain != name {
		if inner := stripInner(plain, params, deep); inner != plain {
			return url.QueryEscape(inner) + value
		}
	}
	return pair
}

// is reports whether pair, a parameter as written, is in params.
func is(pair string, params []Param) bool {
	name, value := split(pair)
	return slices.Contains(params, Param{name, value})
}

// StripLinks is Strip for the URLs in a Link header (RFC 8288).
func StripLinks(links string, params []Param) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(links, "<")
		link, after, closed := strings.Cut(rest, ">")
		if !ok || !closed {
			b.WriteString(links)
			return b.String()
		}
		b.WriteString(before + "<" + Strip(link, params) + ">")
		links = after
	}
}

// pairs are the parameters as they are written.
func pairs(query string) func(func(string) bool) {
	if query == "" {
		return func(func(string) bool) {}
	}
	return strings.SplitSeq(query, "&")
}

// split returns name and value of a parameter. Text that can't be unescaped is returned
// unchanged.
func split(pair string) (name, value string) {
	name, value, _ = strings.Cut(pair, "=")
	return unescape(name), unescape(value)
}

func unescape(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}
