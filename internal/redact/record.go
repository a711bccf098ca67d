package redact

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Record is a request as shown in a log. If the request's URL comes from a server, by a
// redirect, only the parts that equal the first request's URL are shown.
type Record struct {
	req   *http.Request
	show  func(*url.URL) string // nil: URL
	first *url.URL              // of the request that was redirected; nil without a redirect
}

// RecordOf returns the Record of req. show, unless nil, is the program's own function
// for showing a URL: show gets a copy of the URL, and the parts that show hides appear
// nowhere. If show panics, the URL isn't shown.
func RecordOf(req *http.Request, show func(*url.URL) string) Record {
	r := Record{req: req, show: show}
	for from := req.Response; from != nil && from.Request != nil; from = from.Request.Response {
		r.first = from.Request.URL
	}
	return r
}

// URL returns the request's own URL. Without a show and a redirect, URL costs one
// allocation.
func (r Record) URL() string {
	if r.first != nil && r.req.URL != nil {
		return r.shown(Target(r.req.URL, r.first))
	}
	return r.shown(r.req.URL)
}

func (r Record) shown(u *url.URL) string {
	if r.show == nil || u == nil {
		return URL(u)
	}
	return guarded(r.show, *u)
}

func guarded(show func(*url.URL) string, u url.URL) (text string) {
	defer func() {
		if recover() != nil {
			text = Mask
		}
	}()
	return show(&u)
}

// RequestHeader is [RequestHeader] of the request.
func (r Record) RequestHeader() http.Header {
	show := r.shown
	if r.first != nil { // Referer may be a server's word, too
		show = func(u *url.URL) string { return r.shown(Target(u, r.first)) }
	}
	return RequestHeader(r.req.Header, r.at(), show)
}

// ResponseHeader is [ResponseHeader] of h.
func (r Record) ResponseHeader(h http.Header) http.Header {
	return ResponseHeader(h, r.at(), r.shown)
}

// at returns the URL that the caller has chosen.
func (r Record) at() *url.URL {
	if r.first != nil {
		return r.first
	}
	return r.req.URL
}

// Error is [Error] for the error that the request ended with. Quoted text of other
// packages is masked, too, since a transport quotes a server's bytes. The parts of the
// request's URL that URL hides are masked, too.
func (r Record) Error(err error) string {
	if r.show == nil && r.first == nil {
		return withoutQuotes(errorText(err, Text, written), err, Text)
	}
	shown := r.URL()
	show := func(raw string) string {
		u, err := url.Parse(raw)
		switch {
		case err != nil:
			return Mask
		case r.req.URL != nil && raw == r.req.URL.String():
			return shown
		}
		return r.shown(ownQuery(u, r.req.URL))
	}
	parts := hidden(r.req.URL, shown)
	// Before the quotes, since a path may contain a quote.
	text := without(errorText(err, show, show), parts)
	return without(withoutQuotes(text, err, show), parts)
}

// ownQuery returns u with the query values masked that own lacks: a layer below may
// have put a secret into the query.
func ownQuery(u, own *url.URL) *url.URL {
	if own == nil {
		own = new(url.URL)
	}
	if u.RawQuery == "" || u.RawQuery == own.RawQuery {
		return u
	}
	known := strings.Split(own.RawQuery, "&")
	pairs := strings.Split(u.RawQuery, "&")
	for i, pair := range pairs {
		if slices.Contains(known, pair) {
			continue
		}
		pairs[i] = Mask
		if name, _, ok := strings.Cut(pair, "="); ok {
			pairs[i] = name + "=" + Mask
		}
	}
	masked := *u
	masked.RawQuery = strings.Join(pairs, "&")
	return &masked
}

func without(text string, parts []string) string {
	for _, s := range parts {
		text = strings.ReplaceAll(text, s, Mask)
	}
	return text
}

// withoutQuotes masks the quoted texts in text, except after the package's own name in
// the same line, where steps and fields are quoted. The URLs of *url.Error values in
// err's tree stay as show has masked them.
func withoutQuotes(text string, err error, show func(raw string) string) string {
	urls := appendURLs(nil, err)
	own := false
	return eachQuoted(text, func(s string) string {
		if own || slices.ContainsFunc(urls, func(raw string) bool { return s == show(raw) }) {
			return s // masked already
		}
		return Mask
	}, func(s string) string {
		line := s[strings.LastIndexByte(s, '\n')+1:]
		own = own && line == s || strings.Contains(line, ownName)
		return s
	})
}

// hidden returns the parts of u that shown lacks, longest first: the path, the host,
// and the segments and values that are long enough to be told from other text.
func hidden(u *url.URL, shown string) []string {
	if u == nil {
		return nil
	}
	parts := []string{u.Opaque, u.EscapedPath(), u.Path, u.Host, u.Hostname(), u.RawQuery, u.Fragment, u.EscapedFragment()}
	parts = append(parts, strings.Split(u.EscapedPath(), "/")...)
	parts = append(parts, strings.Split(u.Path, "/")...)
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		_, value, named := strings.Cut(pair, "=")
		if !named {
			value = pair
		}
		plain, _ := url.QueryUnescape(value)
		parts = append(parts, value, plain)
	}
	if u.User != nil {
		password, _ := u.User.Password()
		parts = append(parts, u.User.Username(), password, u.User.String())
	}
	for _, s := range parts {
		parts = append(parts, quoted(s))
	}
	parts = slices.DeleteFunc(parts, func(s string) bool {
		return len(s) < shortBody || strings.Contains(shown, s)
	})
	slices.SortFunc(parts, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(parts)
}
