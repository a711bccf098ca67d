package match

import (
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pathCases are asked of Match with a URL parsed from path, and seed
// FuzzPaths.
var pathCases = []struct {
	prefix, spec, path string
	want               bool
}{
	// Exact.
	{"", "/health", "/health", true},
	{"", "/health", "/health?a=/b#c", true},
	{"", "/health", "/h%65alth", true},
	{"", "/health", "/health/", false},
	{"", "/health/", "/health/", true},
	{"", "/health/", "/health", false},
	{"", "/health", "/Health", false},
	{"", "/health", "/healthy", false},
	{"", "/health", "/health/x", false},
	{"", "/health", "/x/health", false},
	{"", "/health", "", false},
	{"", "/", "", true},
	{"", "/", "/", true},
	{"", "/a b", "/a%20b", true},
	{"", "/café", "/caf%C3%A9", true},
	{"", "/café", "/café", true},
	{"", "/café", "/cafe\u0301", false},
	{"", "/~a!$&'()+,=:@b", "/%7ea!$&'()+,=:@b", true},
	{"", "/a+b", "/a%2Bb", true},
	{"", "/a.b", "/a.b", true},
	{"", "/...", "/...", true},

	// One segment.
	{"", "/public/*", "/public/a", true},
	{"", "/public/*", "/public/a%20b", true},
	{"", "/public/*", "/public/%2A", true},
	{"", "/public/*", "/public", false},
	{"", "/public/*", "/public/", false},
	{"", "/public/*", "/public/a/", false},
	{"", "/public/*", "/public/a/b", false},
	{"", "/public/*", "/Public/a", false},
	{"", "/public/*/", "/public/a/", true},
	{"", "/public/*/", "/public/a", false},
	{"", "/public/*/", "/public//", false},
	{"", "/*", "/a", true},
	{"", "/*", "/", false},
	{"", "/*", "", false},
	{"", "/u/*/avatar", "/u/7/avatar", true},
	{"", "/u/*/avatar", "/u/avatar", false},
	{"", "/u/*/avatar", "/u/7/8/avatar", false},
	{"", "/u/*/avatar", "/u//avatar", false},
	{"", "/*/*", "/a/b", true},

	// Any depth.
	{"", "/docs/**", "/docs/a", true},
	{"", "/docs/**", "/docs/a/b/c", true},
	{"", "/docs/**", "/docs/a/", true},
	{"", "/docs/**", "/docs", false},
	{"", "/docs/**", "/docs/", false},
	{"", "/docs/**", "/docsx/a", false},
	{"", "/docs/**", "/x/docs/a", false},
	{"", "/docs/*/**", "/docs/a/b", true},
	{"", "/docs/*/**", "/docs/a", false},
	{"", "/docs/*/**", "/docs/a/", false},
	{"", "/**", "/a", true},
	{"", "/**", "/", false},

	// Below a base path.
	{"/v1", "/health", "/v1/health", true},
	{"/v1/", "/health", "/v1/health", true},
	{"/", "/health", "/health", true},
	{"/v1", "/health", "/health", false},
	{"/v1", "/health", "/v1health", false},
	{"/v1", "/health", "/v2/health", false},
	{"/v1", "/", "/v1/", true},
	{"/v1", "/", "/v1", false},
	{"/v1", "/**", "/v1/a", true},
	{"/v1", "/**", "/v1", false},
	{"/v1", "/**", "/v10/a", false},
	{"/a b/c", "/*", "/a%20b/c/d", true},
	{"/*", "/x/*", "/*/x/y", true},
	{"/*", "/x/*", "/v1/x/y", false},

	// Ambiguous.
	{"", "/health", "//health", false},
	{"", "/health", "/./health", false},
	{"", "/health", "/x/../health", false},
	{"", "/health", "/health;v=1", false},
	{"", "/health", "/health%00", false},
	{"", "/docs/**", "/docs/../admin", false},
	{"", "/docs/**", "/docs/..", false},
	{"", "/docs/**", "/docs/a/.", false},
	{"", "/docs/**", "/docs/%2e%2e/admin", false},
	{"", "/docs/**", "/docs/%2E./admin", false},
	{"", "/docs/**", "/docs/a%2eb", false},
	{"", "/docs/**", "/docs/..%2fadmin", false},
	{"", "/docs/**", "/docs/a%2Fb", false},
	{"", "/docs/**", "/docs%2fa", false},
	{"", "/docs/**", "/docs/..%5cadmin", false},
	{"", "/docs/**", "/docs/a%5Cb", false},
	{"", "/docs/**", `/docs/..\admin`, false},
	{"", "/docs/**", "/docs/%252e%252e/admin", false},
	{"", "/docs/**", "/docs/a%25b", false},
	{"", "/docs/**", "/docs/%c0%ae%c0%ae/admin", false},
	{"", "/docs/**", "/docs/a%ff", false},
	{"", "/docs/**", "/docs//a", false},
	{"", "/docs/**", "/docs/a//b", false},
	{"", "/docs/**", "/docs/a//", false},
	{"", "/docs/**", "/docs/..;/admin", false},
	{"", "/docs/**", "/docs/..%3b/admin", false},
	{"", "/docs/**", "/docs/a%3Bb", false},
	{"", "/docs/**", "/docs/..%3fa", false},
	{"", "/docs/**", "/docs/a%23b", false},
	{"", "/docs/**", "/docs/a%0d%0ab", false},
	{"", "/docs/**", "/docs/a%7f", false},
	{"", "/docs/**", "/docs/a%C2%85", false},
}

func TestPathMatches(t *testing.T) {
	for _, c := range pathCases {
		t.Run(c.prefix+" "+c.spec+" "+c.path, func(t *testing.T) {
			p, err := ParsePaths(c.prefix, []string{"/other", "/other/*", c.spec})
			require.NoError(t, err)
			u, err := url.Parse("https://h" + c.path)
			require.NoError(t, err)
			assert.Equal(t, c.want, p.Match(u))
			u.Opaque = "//h/"
			assert.False(t, p.Match(u), "with Opaque")
		})
	}
}

func TestPathOfHandmadeURL(t *testing.T) {
	p, err := ParsePaths("", []string{"/", "/health", "/docs/**", "/a b"})
	require.NoError(t, err)
	for _, c := range []struct {
		path, raw string
		want      bool
	}{
		{"/health", "/health", true},
		{"/health", "/%68ealth", true},
		{"/health", "/healt%68", true},
		{"/a b", "/a b", true},
		{"/health", "/admin", false},
		{"/health", "/healt", false},
		{"/health", "/health/", false},
		{"/health", "/%68ealth%", false},
		{"/health", "/healt%6", false},
		{"/health", "/healt%6g", false},
		{"/health", "/healt%g8", false},
		{"/health", "%2fhealth", false},
		{"/docs/a.b", "/docs/a%2eb", false},
		{"/docs/a/b", "/docs/a%2fb", false},
		{"/docs/a%2fb", "", false},
		{"", "/", false},
		{"health", "", false},
		{"*", "", false},
		{"docs/a", "", false},
		{`\docs/a`, "", false},
	} {
		assert.Equal(t, c.want, p.Match(&url.URL{Scheme: "https", Host: "h", Path: c.path, RawPath: c.raw}), "%q %q", c.path, c.raw)
	}
	assert.False(t, p.Match(nil))
}

func TestEmptyPathsMatchNothing(t *testing.T) {
	empty, err := ParsePaths("//what;ever", nil)
	require.NoError(t, err, "a base path matters only to specs")
	for _, p := range []*Paths{nil, empty, {}} {
		assert.False(t, p.Match(&url.URL{Scheme: "https", Host: "h"}))
		assert.False(t, p.Match(&url.URL{Scheme: "https", Host: "h", Path: "/"}))
	}
}

var badPaths = []struct{ spec, reason string }{
	{"", "empty"},
	{"health", "must begin with /"},
	{"*", "must begin with /"},
	{"**", "must begin with /"},
	{" /health", "must begin with /"},
	{"https://h/health", "must begin with /"},
	{"//", "empty segment"},
	{"//health", "empty segment"},
	{"/a//b", "empty segment"},
	{"/a//", "empty segment"},
	{"/.", "dot segment"},
	{"/..", "dot segment"},
	{"/a/./b", "dot segment"},
	{"/a/../b", "dot segment"},
	{"/a/../", "dot segment"},
	{"/a?b=c", "question mark"},
	{"/a#b", "number sign"},
	{"/a%20b", "percent sign"},
	{"/a%2fb", "percent sign"},
	{"/a%", "percent sign"},
	{"/a%zz", "percent sign"},
	{"/a;b", "semicolon"},
	{`/a\b`, "backslash"},
	{"/a\x00", "control character"},
	{"/a\n", "control character"},
	{"/a\x7f", "control character"},
	{"/a\xff", "UTF-8"},
	{"/a*", "whole segment"},
	{"/*a", "whole segment"},
	{"/a*b", "whole segment"},
	{"/a/b**", "whole segment"},
	{"/***", "whole segment"},
	{"/**/a", "last segment"},
	{"/**/", "last segment"},
	{"/**/**", "last segment"},
}

func TestBadPathsAreAllNamed(t *testing.T) {
	var all []string
	for _, c := range badPaths {
		p, err := ParsePaths("/v1", []string{"/fine", c.spec})
		if assert.Error(t, err, c.spec) {
			assert.Contains(t, err.Error(), c.reason, c.spec)
		}
		assert.Nil(t, p)
		all = append(all, c.spec)
	}
	_, err := ParsePaths("/v1//", all)
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok)
	errs := joined.Unwrap()
	require.Len(t, errs, 1+len(all))
	assert.Contains(t, errs[0].Error(), "base path")
	for i, err := range errs[1:] {
		if !strings.ContainsAny(all[i], "?#") {
			assert.Contains(t, err.Error(), strconv.Quote(all[i]))
		}
	}
}

func TestBadBasePathIsNamed(t *testing.T) {
	for _, prefix := range []string{"v1", "//", "//v1", "/v1//", "/a//b", "/a/../b", "/a%20b", "/a;b", "/a?b"} {
		_, err := ParsePaths(prefix, []string{"/health", "/docs/**"})
		if assert.Error(t, err, prefix) {
			assert.Contains(t, err.Error(), "base path", prefix)
		}
	}
}

// FuzzPaths checks the parser and Match against the rule as saysPath has it,
// which goes by net/url, path.Clean and regular expressions.
func FuzzPaths(f *testing.F) {
	for _, c := range pathCases {
		u, err := url.Parse("https://h" + c.path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c.prefix, c.spec, u.Path, u.RawPath)
	}
	for _, c := range badPaths {
		f.Add("", c.spec, "/a/b", "")
	}
	f.Fuzz(func(t *testing.T, prefix, spec, decoded, raw string) {
		p, err := ParsePaths(prefix, []string{spec})
		if err != nil {
			if p != nil {
				t.Fatal("paths and an error")
			}
			return
		}

		// What the spec itself spells matches, escaped or not.
		fill := strings.NewReplacer("/**", "/x/y", "/*", "/z")
		own := &url.URL{Scheme: "https", Host: "h", Path: strings.TrimSuffix(prefix, "/") + fill.Replace(spec)}
		if !p.Match(own) {
			t.Errorf("%q below %q doesn't match %q", spec, prefix, own.Path)
		}
		if parsed, err := url.Parse(own.String()); err != nil || !p.Match(parsed) {
			t.Errorf("%q below %q doesn't match %s: %v", spec, prefix, own, err)
		}

		u := &url.URL{Scheme: "https", Host: "h", Path: decoded, RawPath: raw}
		if got, want := p.Match(u), saysPath(prefix, spec, u); got != want {
			t.Errorf("%q below %q: Match(%q, %q) = %v, want %v", spec, prefix, decoded, raw, got, want)
		}

		// The same for what a URL's text makes of it.
		if u, err := url.Parse("https://h/" + strings.TrimPrefix(raw, "/")); err == nil {
			if got, want := p.Match(u), saysPath(prefix, spec, u); got != want {
				t.Errorf("%q below %q: Match(%s) = %v, want %v", spec, prefix, u, got, want)
			}
		}
	})
}

var (
	doubtfulEscape = regexp.MustCompile(`(?i)%(?:2f|5c|2e|25|3b|3f|23|7f|[01][0-9a-f]|c2%[89][0-9a-f])`)
	doubtfulByte   = regexp.MustCompile(`[\\;%?#\x{0}-\x{1f}\x{7f}-\x{9f}]`)
)

// saysPath is the rule over again: a path is clear if net/url would send it
// as it is, cleaning changes nothing, and nothing doubtful is in it; a clear
// one is held against a regular expression made from prefix and spec.
func saysPath(prefix, spec string, u *url.URL) bool {
	sent := u.EscapedPath()
	if u.RawPath != "" {
		if plain, err := url.PathUnescape(u.RawPath); err != nil || plain != u.Path {
			return false
		}
		sent = u.RawPath
	}
	if sent == "" {
		sent = "/"
	}
	decoded, err := url.PathUnescape(sent)
	if err != nil || !utf8.ValidString(decoded) || doubtfulEscape.MatchString(sent) || doubtfulByte.MatchString(decoded) {
		return false
	}
	clean := path.Clean(decoded)
	if strings.HasSuffix(decoded, "/") && clean != "/" {
		clean += "/"
	}
	if !strings.HasPrefix(decoded, "/") || clean != decoded {
		return false
	}
	rule := regexp.QuoteMeta(spec)
	rule = strings.ReplaceAll(rule, `\*\*`, `[^/].*`)
	rule = strings.ReplaceAll(rule, `\*`, `[^/]+`)
	return regexp.MustCompile(`(?s)^` + regexp.QuoteMeta(strings.TrimSuffix(prefix, "/")) + rule + `$`).MatchString(decoded)
}
