package redact

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// RequestHeader returns the part of h, a request's header, that may be logged: every
// name, but only values that can't be secrets. at is the URL that h was sent to, and
// show formats a URL.
//
// Values that the caller has chosen and that authorize no access are shown unchanged:
// Content-Type, User-Agent, X-Request-Id and the like. Times, and URLs such as
// Referer's, are shown as in [ResponseHeader]. All values of any other header are
// replaced by a single Mask.
//
// The result shares no memory with h, so the result may be logged later; nil gives nil.
func RequestHeader(h http.Header, at *url.URL, show func(*url.URL) string) http.Header {
	return shownHeader(h, func(key, v string) (string, bool) {
		switch {
		case callers[key], described[key]:
			return v, true
		case key == "Referer", key == "Origin":
			if u, err := url.Parse(v); err == nil {
				return show(u), true
			}
			return Mask, true
		}
		return shape(key, v, at, show)
	})
}

// ResponseHeader is RequestHeader for the header of the response to a request that was
// sent to at.
//
// A server may echo any data of the request under any name, even the token, which this
// package doesn't know. So a header's name alone never makes a value visible.
// ResponseHeader shows only
//
//   - the known words of the value, if the header describes a message or its delivery,
//     such as Content-Type, Cache-Control and Server. A word outside of the vocabulary
//     is masked, and with such a word all numbers of the value; numbers of more than 13
//     digits are always masked.
//   - the time, if the value is a time
//   - the host and path of a URL, if they are the host and path of at
//   - the name of the scheme, if the value is a challenge
//
// X-Request-Id, Etag and all other headers with free text are replaced by a Mask each,
// and so is a name that looks like a secret.
func ResponseHeader(h http.Header, at *url.URL, show func(*url.URL) string) http.Header {
	out := shownHeader(h, func(key, v string) (string, bool) { return shape(key, v, at, show) })
	for name := range h {
		if oddName(name) {
			delete(out, name)
			out[Mask] = []string{Mask}
		}
	}
	return out
}

// oddName reports whether name has a part of eight characters or more with a digit.
func oddName(name string) bool {
	for part := range strings.SplitSeq(name, "-") {
		if len(part) >= secretLength && strings.ContainsAny(part, "0123456789") {
			return true
		}
	}
	return false
}

// shownHeader applies shown to the values of h; false means a single Mask for all
// values.
func shownHeader(h http.Header, shown func(key, v string) (string, bool)) http.Header {
	if h == nil {
		return nil
	}
	out := make(http.Header, len(h))
	for name, values := range h {
		key := http.CanonicalHeaderKey(name)
		list := make([]string, 0, len(values))
		for _, v := range values {
			s, ok := shown(key, v)
			if !ok {
				list = nil
				break
			}
			list = append(list, s)
		}
		if len(list) == 0 {
			list = []string{Mask}
		}
		out[name] = list
	}
	return out
}

// callers are the request headers that the caller chooses, besides described.
var callers = set("Traceparent", "User-Agent", "X-Correlation-Id", "X-Request-Id")

// described are the headers that describe a message or its delivery.
var described = set(
	"Accept", "Accept-Encoding", "Accept-Language", "Accept-Ranges", "Age", "Allow", "Cache-Control", "Connection",
	"Content-Encoding", "Content-Language", "Content-Length", "Content-Range", "Content-Type", "Deprecation", "Expires", "Range",
	"Ratelimit-Limit", "Ratelimit-Remaining", "Ratelimit-Reset", "Retry-After", "Server", "Transfer-Encoding", "Vary",
	"Via", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset",
)

// times are the headers whose value is, or may be, a time.
var times = set("Date", "Deprecation", "Expires", "If-Modified-Since", "If-Unmodified-Since", "Last-Modified", "Retry-After", "Sunset")

// shape returns the visible part of v, a value of the header key, or false if v must be
// hidden.
func shape(key, v string, at *url.URL, show func(*url.URL) string) (string, bool) {
	if times[key] {
		if t, err := http.ParseTime(v); err == nil {
			return t.In(time.UTC).Format(http.TimeFormat), true // in our words
		}
	}
	switch {
	case described[key]:
		return known(v, strings.HasSuffix(key, "Range")), true
	case key == "Location", key == "Content-Location", key == "Referer", key == "Origin":
		u, err := url.Parse(v)
		if err != nil {
			return Mask, true
		}
		return show(Target(u, at)), true
	case key == "Www-Authenticate", key == "Proxy-Authenticate":
		return challenge(v), true
	}
	return "", false
}

// known returns v with the words outside of the vocabulary masked. Numbers are shown
// only if no word is masked, since a number may be the part of a secret between two
// words.
func known(v string, isRange bool) string {
	digits := longestNumber
	if isRange {
		digits *= 3 // from, to, of
	}
	if masked, none := maskWords(v, digits); none {
		return masked
	}
	masked, _ := maskWords(v, 0)
	return severalMasks.ReplaceAllString(masked, Mask)
}

// maskWords masks the unknown words of v, and numbers of more than digits digits. none
// is true if nothing was masked.
func maskWords(v string, digits int) (masked string, none bool) {
	var b strings.Builder
	none = true
	for v != "" {
		if i := strings.IndexFunc(v, isWord); i != 0 {
			if i < 0 {
				i = len(v)
			}
			b.WriteString(v[:i])
			v = v[i:]
			continue
		}
		i := strings.IndexFunc(v, func(r rune) bool { return !isWord(r) })
		if i < 0 {
			i = len(v)
		}
		word := v[:i]
		v = v[i:]
		if isNumber(word) {
			digits -= len(word)
			if digits >= 0 && !isLong(word) {
				b.WriteString(word)
				continue
			}
		} else if vocabulary[strings.ToLower(word)] || isLanguage(word) {
			b.WriteString(word)
			continue
		}
		none = false
		b.WriteString(Mask)
	}
	return b.String(), none
}

const separators = ` ,;=/*.+@()"`

var severalMasks = regexp.MustCompile(Mask + `(?:[` + separators + `]+` + Mask + `)+`)

// isWord reports whether r belongs to a word. Every character but the separators does,
// so that an unknown character makes an unknown word.
func isWord(r rune) bool { return !strings.ContainsRune(separators, r) }

// longestNumber has the digits of a time in milliseconds.
const longestNumber = 13

// isNumber reports whether word is a number, or the two ends of a range.
func isNumber(word string) bool {
	return strings.Trim(word, "0123456789-") == "" && strings.Count(word, "-") <= 1
}

// isLong reports whether a number of word has more digits than a time in milliseconds.
func isLong(word string) bool {
	from, to, _ := strings.Cut(word, "-")
	return max(len(from), len(to)) > longestNumber
}

// isLanguage reports whether word is a language with a country: "en-US".
func isLanguage(word string) bool {
	lang, country, _ := strings.Cut(word, "-")
	return len(lang) == 2 && letters(lang) && (country == "" || len(country) == 2 && letters(country))
}

func letters(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// vocabulary has the visible words, in lower case.
var vocabulary = set(strings.Fields(`
	get head post put patch delete options trace connect
	gzip x-gzip deflate br zstd compress identity chunked trailers q
	close keep-alive upgrade
	no-cache no-store no-transform must-revalidate proxy-revalidate must-understand private public immutable
	max-age s-maxage stale-while-revalidate stale-if-error max-stale min-fresh only-if-cached
	bytes none true w
	application audio font image message model multipart text video
	json xml html xhtml plain csv css javascript ecmascript yaml x-yaml cbor msgpack x-msgpack protobuf x-protobuf
	grpc grpc-web proto wasm pdf zip x-tar ndjson x-ndjson jsonl event-stream octet-stream form-data mixed related
	alternative byteranges x-www-form-urlencoded problem hal ld geo merge-patch json-patch json-seq schema jose jwt
	scim atom rss soap vnd api png jpeg gif webp svg avif x-icon
	charset utf-8 us-ascii iso-8859-1 boundary profile version
	nginx openresty apache cloudflare envoy istio-envoy caddy iis microsoft-iis microsoft-httpapi kestrel awselb
	amazons3 cloudfront gunicorn uvicorn hypercorn werkzeug cowboy varnish haproxy traefik litespeed jetty tomcat
	apache-coyote google gws gse http https
	accept accept-encoding accept-language authorization cookie origin referer user-agent range prefer
	access-control-request-headers access-control-request-method x-requested-with
`)...)

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// Target returns u, a URL that a server has sent in answer to a request to at, as an
// absolute URL without any text that the server can have invented: a host or path other
// than the host or path of at is masked, and so are user info, query and fragment. A
// slash at the end of the path makes no difference.
func Target(u, at *url.URL) *url.URL {
	if at == nil {
		at = new(url.URL)
	}
	user := u.User // ResolveReference would use the user of at
	u = at.ResolveReference(u)
	out := &url.URL{Scheme: "https", Host: Mask, Path: "/" + Mask}
	if strings.EqualFold(u.Scheme, "http") {
		out.Scheme = "http"
	}
	if u.Host != "" && strings.EqualFold(u.Host, at.Host) {
		out.Host = at.Host
	}
	if path := withoutSlash(u); u.Opaque == "" && (path == "" || path == withoutSlash(at)) {
		out.Path, out.RawPath = u.Path, u.RawPath
	}
	if u.RawQuery != "" {
		out.RawQuery = Mask
		if u.RawQuery == at.RawQuery {
			out.RawQuery = u.RawQuery
		}
	}
	if user != nil {
		out.User = url.User(Mask)
	}
	if u.Fragment != "" {
		out.Fragment = Mask
	}
	return out
}

func withoutSlash(u *url.URL) string { return strings.TrimSuffix(u.EscapedPath(), "/") }

// schemes are the authentication schemes whose name may be shown. Anything
// else where a scheme should stand may as well be a secret.
var schemes = []string{"Basic", "Bearer", "Digest", "DPoP", "GNAP", "HOBA", "Mutual", "Negotiate", "NTLM"}

// challenge returns the first scheme of a challenge, with the rest masked: parameters
// can hold nonces and tickets.
func challenge(v string) string {
	scheme, params, _ := strings.Cut(v, " ")
	i := slices.IndexFunc(schemes, func(s string) bool { return strings.EqualFold(s, scheme) })
	switch {
	case i < 0:
		return Mask
	case params == "":
		return schemes[i]
	}
	return schemes[i] + " " + Mask
}
