// Base URLs: which URLs are valid, and how paths are joined to a base. auth_base.go moves
// requests from one base to another.

package requestforge

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/requestforge/requestforge/internal/match"
	"github.com/requestforge/requestforge/internal/redact"
)

// baseURL is a URL with paths of requests below.
type baseURL struct {
	*url.URL
	dir    string // Path without trailing slashes
	rawDir string // dir with its escapes
}

// knownBase is a base URL that was computed before, with the function and the token that it
// was computed from.
type knownBase struct {
	by, of any
	base   *baseURL
	next   *knownBase // further bases of the same token
}

// maxKnownBases bounds how many bases are known for one token.
const maxKnownBases = 8

// find returns the base that by computed from of; nil if unknown. k may be nil.
func (k *knownBase) find(by, of any) *baseURL {
	for ; k != nil; k = k.next {
		if k.by == by && k.of == of {
			return k.base
		}
	}
	return nil
}

// and returns k plus the base that by computed from of. k may be nil.
func (k *knownBase) and(by, of any, base *baseURL) *knownBase {
	n := 1
	for other := k; other != nil; other = other.next {
		if n++; n > maxKnownBases || other.of != of {
			k = nil
			break
		}
	}
	return &knownBase{by, of, base, k}
}

// parseBaseURL parses raw as a base URL. It returns nil for "", or a list of all faults.
func parseBaseURL(raw string) (b *baseURL, faults []string) {
	if raw == "" {
		return nil, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, []string{"can't be read: " + redact.Error(err)}
	}
	fault := func(text string) { faults = append(faults, fmt.Sprintf("%q: %s", redact.URL(u), text)) }
	switch {
	case u.Scheme == "":
		fault("it is relative; begin it with https:// and a host")
	case u.Scheme != "https" && u.Scheme != "http":
		fault("its scheme must be https or http; begin it with https:// and a host")
	case u.Opaque != "":
		fault("two slashes must follow the scheme")
	case u.Hostname() == "":
		fault("it has no host")
	}
	if u.User != nil {
		fault("remove the user info, which would go out with every request; a TokenSource can supply it")
	}
	if u.RawQuery != "" || u.ForceQuery {
		fault("remove the query, which has no place before a path")
	}
	if strings.Contains(raw, "#") {
		fault("remove the fragment, which is never sent")
	}
	if faults != nil {
		return nil, faults
	}
	b = &baseURL{URL: u}
	escaped := u.EscapedPath()
	b.rawDir = strings.TrimRight(escaped, "/")
	b.dir = u.Path[:len(u.Path)-(len(escaped)-len(b.rawDir))]
	return b, nil
}

// join puts the path of u, a relative URL, below the base, with exactly one slash between.
func (b *baseURL) join(u *url.URL) (path, raw string) {
	if u.Path == "" {
		return b.Path, b.RawPath
	}
	if u.RawPath == "" && b.RawPath == "" {
		return b.dir + "/" + strings.TrimLeft(u.Path, "/"), ""
	}
	// Slashes are counted where they are escaped: a %2F belongs to a
	// segment and doesn't join anything.
	escaped := u.EscapedPath()
	trimmed := strings.TrimLeft(escaped, "/")
	return b.dir + "/" + u.Path[len(escaped)-len(trimmed):], b.rawDir + "/" + trimmed
}

// holds reports whether u, an absolute URL, is the base or a URL below.
func (b *baseURL) holds(u *url.URL) bool {
	if u.Opaque != "" || (u.Host != b.Host || u.Scheme != b.Scheme) && !match.Same(u, b.URL) {
		return false
	}
	path, dir := u.Path, b.dir
	if u.RawPath != "" || b.RawPath != "" {
		path, dir = u.EscapedPath(), b.rawDir
	}
	return strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

// move returns the path below b that corresponds to the path of u below from.
func (b *baseURL) move(u *url.URL, from *baseURL) (path, raw string) {
	switch {
	case u.Path == from.Path && u.RawPath == from.RawPath:
		return b.Path, b.RawPath
	case u.RawPath == "" && from.RawPath == "" && b.RawPath == "":
		if b.dir == from.dir {
			return u.Path, ""
		}
		return b.dir + u.Path[len(from.dir):], ""
	}
	rest := u.EscapedPath()[len(from.rawDir):]
	plain, _ := url.PathUnescape(rest) // EscapedPath is a valid encoding
	return b.dir + plain, b.rawDir + rest
}
