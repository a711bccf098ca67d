// Paths: exact paths and patterns. A path that servers or proxies on the way may read
// in two ways matches neither. Origins are in origin.go.

package match

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Paths is a set of exact paths and path patterns. A nil *Paths is empty. It
// is safe for concurrent use.
type Paths struct {
	exact    map[string]struct{}
	patterns []pattern
}

// ParsePaths compiles specs, each put below prefix. Every mistake is reported, joined,
// and named by its spec.
//
//   - "/health" is the exact path: "/health/" and "/Health" don't match.
//   - "/public/*" has any single segment in the place of *, except an empty segment.
//     "/public/*/" is the same with a slash at the end.
//   - "/docs/**" is every path below /docs/ at any depth, with or without a slash at the
//     end, but not "/docs" and "/docs/". ** can only come last.
//
// A * is a wildcard only as a whole segment; elsewhere a * is a mistake. Specs are
// decoded, as in url.URL.Path: "/a b", not "/a%20b". A percent sign in a spec is a
// mistake, and so is a spec that could never match because Match finds the path
// ambiguous.
//
// prefix is the path of a base URL, decoded too: "", "/v1" or "/v1/". A * in prefix
// stands for itself. "/" below "/v1" is "/v1/".
func ParsePaths(prefix string, specs []string) (*Paths, error) {
	p := &Paths{exact: make(map[string]struct{})}
	if len(specs) == 0 {
		return p, nil // nothing is put below prefix, which may be any
	}
	var errs []error
	prefix = strings.TrimSuffix(prefix, "/")
	if prefix != "" {
		if fault := pathFault(prefix); fault != "" {
			errs = append(errs, fmt.Errorf("base path %s: %s", quotePath(prefix), fault))
		} else if strings.HasSuffix(prefix, "/") {
			errs = append(errs, fmt.Errorf("base path %s: has an empty segment", quotePath(prefix+"/")))
		}
	}
	for _, spec := range specs {
		pat, fault := parsePattern(prefix, spec)
		switch {
		case fault != "":
			errs = append(errs, fmt.Errorf("%s: %s", quotePath(spec), fault))
		case pat.segments != nil:
			p.patterns = append(p.patterns, pat)
		default:
			p.exact[prefix+spec] = struct{}{}
		}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// Match reports whether u's decoded path is in the set. An empty path is
// "/". Letters count in their case. These are ambiguous and never match:
//
//   - an escaped slash, backslash or dot (%2f, %5c, %2e), a bad escape, and
//     a percent sign after decoding (%25), which a second decoding would
//     take for an escape
//   - dot segments, even though cleaning would remove them, and empty ones,
//     but for the one after a slash at the end
//   - a backslash, a semicolon (path parameters), a question mark or number
//     sign, escaped or not, control characters and invalid UTF-8
//   - a RawPath that isn't a spelling of Path, and any URL with Opaque set
func (p *Paths) Match(u *url.URL) bool {
	return p != nil && len(p.exact)+len(p.patterns) > 0 && p.match(u)
}

func (p *Paths) match(u *url.URL) bool {
	if u == nil || u.Opaque != "" {
		return false
	}
	if u.RawPath != "" && !spells(u.RawPath, u.Path) {
		return false
	}
	path := u.Path
	if path == "" {
		path = "/"
	}
	if pathFault(path) != "" {
		return false
	}
	if _, ok := p.exact[path]; ok {
		return true
	}
	for i := range p.patterns {
		if p.patterns[i].match(path) {
			return true
		}
	}
	return false
}

// pattern is a spec with a wildcard, cut at its slashes.
type pattern struct {
	segments []segment // never nil, without a ** at the end
	deep     bool      // there was a ** at the end
}

type segment struct {
	text string // "" only at the end, after a slash
	any  bool   // *
}

// match reports whether path, which pathFault has passed, fits.
func (pt *pattern) match(path string) bool {
	seg, rest, more := "", path[1:], true
	for _, want := range pt.segments {
		if !more {
			return false
		}
		seg, rest, more = strings.Cut(rest, "/")
		if want.any && seg == "" || !want.any && seg != want.text {
			return false
		}
	}
	if pt.deep {
		return more && rest != ""
	}
	return !more
}

// parsePattern reads spec, put below prefix; without a wildcard the
// pattern has no segments.
func parsePattern(prefix, spec string) (pattern, string) {
	if spec == "" {
		return pattern{}, "empty; write / for the root"
	}
	if fault := pathFault(spec); fault != "" {
		return pattern{}, fault
	}
	if !strings.Contains(spec, "*") {
		return pattern{}, ""
	}
	pat := pattern{segments: []segment{}}
	if prefix != "" {
		for text := range strings.SplitSeq(prefix[1:], "/") {
			pat.segments = append(pat.segments, segment{text: text})
		}
	}
	for text := range strings.SplitSeq(spec[1:], "/") {
		switch {
		case pat.deep:
			return pattern{}, "** can only be the last segment"
		case text == "**":
			pat.deep = true
		case text == "*":
			pat.segments = append(pat.segments, segment{any: true})
		case strings.Contains(text, "*"):
			return pattern{}, "a * must be a whole segment, as in /a/*/b"
		default:
			pat.segments = append(pat.segments, segment{text: text})
		}
	}
	return pat, ""
}

// pathFault says why a decoded path can't be trusted to mean the same path
// to everyone, or "". The faults are constants: a mismatch costs no
// allocation.
func pathFault(path string) string {
	if path == "" || path[0] != '/' {
		return "must begin with /"
	}
	if !utf8.ValidString(path) {
		return "isn't UTF-8"
	}
	for _, r := range path {
		switch {
		case r == '?':
			return "has a question mark; a path is matched without its query"
		case r == '#':
			return "has a number sign; a path is matched without its fragment"
		case r == '%':
			return "has a percent sign; write characters themselves, not their escapes"
		case r == ';':
			return "has a semicolon, which may begin path parameters"
		case r == '\\':
			return "has a backslash, which may count as a slash"
		case unicode.IsControl(r):
			return "has a control character"
		}
	}
	seg, rest, more := "", path[1:], true
	for more {
		seg, rest, more = strings.Cut(rest, "/")
		switch {
		case seg == "" && more:
			return "has an empty segment"
		case seg == "." || seg == "..":
			return "has a dot segment"
		}
	}
	return ""
}

// spells reports whether raw is path with some characters escaped, but no slash and no
// dot. Other forbidden characters are found in path.
func spells(raw, path string) bool {
	n := 0
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			if i+2 >= len(raw) {
				return false
			}
			hi, lo := hexValue(raw[i+1]), hexValue(raw[i+2])
			if hi > 15 || lo > 15 {
				return false
			}
			c = hi<<4 | lo
			i += 2
			if c == '/' || c == '.' {
				return false
			}
		}
		if n == len(path) || path[n] != c {
			return false
		}
		n++
	}
	return n == len(path)
}

// hexValue is more than 15 if c isn't a hexadecimal digit.
func hexValue(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// quotePath is strconv.Quote without parts that may be secret if the spec is a whole
// URL by mistake, or has a query.
func quotePath(spec string) string {
	if !strings.HasPrefix(spec, "/") || strings.HasPrefix(spec, "//") {
		return quoteOrigin(spec)
	}
	if cut := strings.IndexAny(spec, "?#"); cut >= 0 {
		spec = spec[:cut+1] + "REDACTED"
	}
	return strconv.Quote(spec)
}
