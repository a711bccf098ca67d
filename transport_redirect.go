// Redirects, Referer and cookies for relative URLs: http.Client doesn't know their scheme
// and host.

package requestforge

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"unicode"
)

// absoluteLocation makes the Location of resp, which answers a request to base,
// absolute. A Location that can't be parsed is left to http.Client's own error.
func absoluteLocation(resp *http.Response, base *url.URL) {
	loc := resp.Header.Get("Location")
	if loc == "" {
		return
	}
	ref, err := url.Parse(loc)
	if err != nil {
		return
	}
	host := undotted(ref.Host)
	if ref.IsAbs() && host == "" {
		ref.Opaque, host = "", noHost
	}
	if ref.IsAbs() && host == ref.Host {
		return
	}
	ref.Host = host
	// The map may be someone else's too, such as a cache's.
	resp.Header = maps.Clone(resp.Header)
	resp.Header["Location"] = []string{base.ResolveReference(ref).String()}
}

// A resolver returns a request as it goes out, with an absolute URL.
type resolver func(*http.Request) (*http.Request, error)

// noHost is never the name of a host (RFC 6761 §6.4), for a URL that leads nowhere.
const noHost = "invalid"

// undotted returns host without a dot at the end of its name, and with a name.
//
// http.Client copies the caller's Authorization and Cookie headers to a redirect's host if
// the host of the first URL equals the redirect's host, or is its end after a dot. The host
// of a relative URL is "", so every name with a dot at its end would get the headers, and
// so would an empty name, which leads to this machine. The dot may be a dot of Unicode, and
// characters dropped by IDNA may follow the dot or be the whole name; a name that ends in a
// letter or digit is left alone.
func undotted(host string) string {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i:], ']') < 0 {
		name, port = host[:i], host[i:]
	}
	trimmed := strings.TrimRightFunc(name, func(r rune) bool {
		return r == '.' || r >= 0x80 && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	switch {
	case host == "":
		return ""
	case name == "":
		return "localhost" + port // where net/http would have gone
	case trimmed == "":
		return noHost + port
	case !strings.ContainsAny(name[len(trimmed):], ".\u3002\uff0e\uff61"):
		return host
	}
	return trimmed + port
}

// refer returns req, which follows a redirect, with the Referer that http.Client would have
// set for an absolute URL: the whole URL, but no Referer on the way from https to http,
// where anyone can read.
func refer(req *http.Request, resolve resolver) *http.Request {
	before := req.Response.Request
	referer := req.Header["Referer"]
	if len(referer) == 0 || before == nil || before.URL == nil {
		return req
	}
	from := before.URL
	if from.Scheme == "" { // a layer above has put the caller's request there
		resolved, err := resolve(before)
		if err != nil {
			return req
		}
		from = resolved.URL
	}
	var whole []string
	if from.Scheme != "https" || req.URL.Scheme != "http" {
		page := *from
		page.User, page.Fragment, page.RawFragment = nil, "", ""
		text := page.String()
		if strings.Contains(referer[0], "://") || !strings.HasSuffix(text, strings.TrimLeft(referer[0], "/")) {
			return req // the caller's own
		}
		whole = []string{text}
	}
	out := req.WithContext(req.Context())
	out.Header = maps.Clone(req.Header)
	delete(out.Header, "Referer")
	if whole != nil {
		out.Header["Referer"] = whole
	}
	return out
}

// relativeJar resolves relative URLs.
type relativeJar struct {
	resolve resolver
	jar     http.CookieJar
}

func (j *relativeJar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	if u, ok := j.absolute(u); ok {
		j.jar.SetCookies(u, cookies)
	}
}

func (j *relativeJar) Cookies(u *url.URL) []*http.Cookie {
	if u, ok := j.absolute(u); ok {
		return j.jar.Cookies(u)
	}
	return nil
}

// absolute returns u as a request would resolve it, false after an error.
func (j *relativeJar) absolute(u *url.URL) (*url.URL, bool) {
	req, err := j.resolve(&http.Request{URL: u})
	if err != nil {
		return nil, false
	}
	return req.URL, true
}
