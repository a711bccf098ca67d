// The mistakes in the fields of an HTTPFetcher, by name, and the targets that a request may
// not go to. Values that may be secrets are not shown.

package requestforge

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/requestforge/requestforge/internal/httpname"
	"github.com/requestforge/requestforge/internal/match"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/proxied"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/tokenjson"
)

// Validate returns all mistakes in the fields, joined. NewPipeline calls Validate, and so
// does Fetch before sending.
func (f *HTTPFetcher) Validate() error {
	if f == nil {
		return errors.New("nil *HTTPFetcher")
	}
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	f.checkWhere(add)
	if !httpname.IsToken(f.method()) {
		add("Method %q is none", f.Method)
	}
	if f.TokenType != "" && !httpname.IsToken(f.TokenType) {
		add("TokenType %q can't go into an Authorization header", f.TokenType)
	}
	f.checkBody(add)
	f.checkRead(add)
	authorization := f.checkHeader(add)
	authorization = append(authorization, f.checkHeaderFrom(add)...)
	if f.ClientAuth != nil {
		f.ClientAuth.check(add)
		if !f.ClientAuth.InBody {
			authorization = append(authorization, "ClientAuth")
		}
	}
	if len(authorization) > 1 {
		add("%s both set the Authorization header", strings.Join(authorization, " and "))
	}
	return mistake.In("HTTPFetcher", errs)
}

// checkWhere reports mistakes in the fields for the request's target.
func (f *HTTPFetcher) checkWhere(add func(string, ...any)) {
	switch u, err := url.Parse(f.URL); {
	case f.URL == "" && f.URLFrom == nil:
		add("URL is missing")
	case f.URL == "" && len(f.Origins) == 0:
		add("URLFrom alone needs Origins: where may an answer lead the login?")
	case f.URL == "":
	case err != nil:
		add("URL doesn't parse") // the reason may quote a password
	default:
		if err := checkURL(u, f.AllowPlaintext); err != nil {
			add("%w", err)
		}
	}
	if f.Origins != nil && len(f.Origins) == 0 {
		add("Origins is empty, but not nil; leave it nil for the origin of URL")
	}
	if slices.Contains(f.Origins, AnyOrigin) {
		add("Origins: %q would let an answer take the login anywhere; name the origins", AnyOrigin)
	} else if _, err := match.ParseOrigins(f.Origins); err != nil {
		add("Origins: %w", err)
	}
}

// checkRead reports mistakes in the fields for reading the answer.
func (f *HTTPFetcher) checkRead(add func(string, ...any)) {
	places := setFields(add, []fieldPath{
		{"TokenField", f.TokenField, checkToken}, {"TokenHeader", f.TokenHeader, checkTokenHeader}, {"TokenCookie", f.TokenCookie, checkName},
	})
	fields := setFields(add, []fieldPath{
		{"TypeField", f.TypeField, tokenjson.CheckPath}, {"RefreshField", f.RefreshField, tokenjson.CheckPath},
		{"ExpiresInField", f.ExpiresInField, tokenjson.CheckLifetime}, {"ExpiresAtField", f.ExpiresAtField, checkTime},
	})
	if len(places) > 1 {
		add("%s are both set: the token is in one place", strings.Join(places, " and "))
	}
	if all := append(places, fields...); f.Read != nil && len(all) > 0 {
		add("%s is set beside Read, which reads all of the answer", strings.Join(all, " and "))
	}
	if f.TokenField == wholeBody && len(fields) > 0 {
		add("%s is set, but TokenField %q takes the whole body for the token", strings.Join(fields, " and "), wholeBody)
	}
	if f.Method == http.MethodHead && f.TokenHeader == "" && f.TokenCookie == "" && f.Read == nil {
		add("Method HEAD: an answer without a body has no token in it; where is TokenHeader or TokenCookie?")
	}
	if f.Cookies && f.Client != nil && f.Client.Jar != nil {
		add("Cookies and Client.Jar are both set: the cookies of a login are its token's alone")
	}
	f.checkKept(add)
}

// fieldPath is a field with the place of a value, empty if unset.
type fieldPath struct {
	field, value string
	check        func(string) error
}

// setFields reports the mistakes in paths, and returns the names of the fields that are set.
func setFields(add func(string, ...any), paths []fieldPath) (names []string) {
	for _, p := range paths {
		if p.value == "" {
			continue
		}
		names = append(names, p.field)
		if err := p.check(p.value); err != nil {
			add("%s %q %w", p.field, p.value, err)
		}
	}
	return names
}

// checkToken reports why there can't be a token at a path.
func checkToken(path string) error {
	if path == wholeBody {
		return nil
	}
	return tokenjson.CheckPath(path)
}

// checkTokenHeader reports why a header can't have the token.
func checkTokenHeader(name string) error {
	if strings.EqualFold(name, "Set-Cookie") {
		return errors.New("holds cookies: TokenCookie names the one that is the token")
	}
	return checkName(name)
}

// checkTime reports why there can't be a time at a path.
func checkTime(path string) error {
	if _, option, ok := strings.Cut(path, ","); ok && tokenjson.CheckLifetime(path) == nil && tokenjson.CheckLifetime("x,"+option) == nil {
		return errors.New("has options, which are ExpiresInField's: a time's unit shows in its size")
	}
	return tokenjson.CheckPath(path)
}

// ignored returns the reason why net/http doesn't send a request header of this name, or nil.
func ignored(name string) error {
	switch http.CanonicalHeaderKey(name) {
	case "Host":
		return errors.New("isn't sent by net/http, which takes Host from the URL; Prepare can set req.Host")
	case "Content-Length", "Transfer-Encoding", "Trailer":
		return errors.New("isn't sent by net/http, which says itself how long the body is")
	}
	return nil
}

// checkKept reports mistakes in KeepHeaders.
func (f *HTTPFetcher) checkKept(add func(string, ...any)) {
	for _, name := range f.KeepHeaders {
		switch err := checkName(name); {
		case err != nil:
			add("KeepHeaders %q %w", name, err)
		case strings.EqualFold(name, "Set-Cookie"):
			add("KeepHeaders %q: a cookie is TokenCookie's", name)
		case strings.EqualFold(name, f.TokenHeader):
			add("KeepHeaders %q is TokenHeader, and needs no second copy", name)
		}
	}
}

// checkName returns an error for an invalid name of a header or a cookie.
func checkName(name string) error {
	if !httpname.IsToken(name) {
		return errors.New("is no name of a header or a cookie")
	}
	return nil
}

// checkBody reports several fields for the request's body.
func (f *HTTPFetcher) checkBody(add func(string, ...any)) {
	var bodies []string
	for _, b := range []struct {
		name string
		set  bool
	}{{"JSON", f.JSON != nil}, {"Form", f.Form != nil}, {"BodyFrom", f.BodyFrom != nil}} {
		if b.set {
			bodies = append(bodies, b.name)
		}
	}
	if len(bodies) > 1 {
		add("%s are both set: a request has one body", strings.Join(bodies, " and "))
	}
	if text, ok := f.JSON.([]byte); ok && !json.Valid(text) {
		add("JSON holds bytes that are no JSON; BodyFrom sends bytes as they are")
	}
	if text, ok := f.JSON.(json.RawMessage); ok && !json.Valid(text) {
		add("JSON holds a json.RawMessage that is no JSON; BodyFrom sends bytes as they are")
	}
	if f.ClientAuth != nil && f.ClientAuth.InBody {
		bodies = append(bodies, "ClientAuth.InBody")
	}
	if m := f.method(); (m == http.MethodGet || m == http.MethodHead) && len(bodies) > 0 {
		add("%s is set: a %s request has no body", strings.Join(bodies, " and "), m)
	}
}

// checkHeader reports mistakes in Header, and returns which field sets
// Authorization.
func (f *HTTPFetcher) checkHeader(add func(string, ...any)) (authorization []string) {
	for _, name := range slices.Sorted(maps.Keys(f.Header)) {
		if !httpname.IsToken(name) {
			add("Header %q is no header name", name)
		}
		if err := ignored(name); err != nil {
			add("Header %q %w", name, err)
		}
		if slices.ContainsFunc(f.Header[name], func(v string) bool { return !httpname.IsValue(v) }) {
			add("Header %q: a value holds control characters", name)
		}
		if strings.EqualFold(name, "Authorization") {
			authorization = append(authorization, "Header")
		}
	}
	return authorization
}

// checkHeaderFrom is checkHeader for HeaderFrom.
func (f *HTTPFetcher) checkHeaderFrom(add func(string, ...any)) (authorization []string) {
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(f.HeaderFrom)) {
		if !httpname.IsToken(name) {
			add("HeaderFrom %q is no header name", name)
		}
		if err := ignored(name); err != nil {
			add("HeaderFrom %q %w", name, err)
		}
		if f.HeaderFrom[name] == "" {
			add("HeaderFrom %q names no step", name)
		}
		key := http.CanonicalHeaderKey(name)
		if seen[key] {
			add("HeaderFrom %q is there twice, in different case", key)
		}
		seen[key] = true
	}
	if seen["Authorization"] {
		authorization = append(authorization, "HeaderFrom")
	}
	return authorization
}

// goodPort reports whether port is empty or a valid port number.
func goodPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// checkURL reports why nothing may be sent to u.
func checkURL(u *url.URL, plaintext bool) error {
	switch {
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return fmt.Errorf("URL %q is not an absolute http or https URL", redact.URL(u))
	case strings.Contains(u.Host, "*"):
		return fmt.Errorf("URL %q has a wildcard for a host: a request goes to one host; wildcards are for Origins", redact.URL(u))
	case !goodPort(u.Port()):
		return fmt.Errorf("URL %q: the port isn't one from 1 to 65535", redact.URL(u))
	case u.Scheme == "http" && !plaintext && strings.EqualFold(u.Hostname(), "localhost") && !match.Loopback(u):
		return fmt.Errorf("URL %q: write localhost in lower case: in any other spelling net/http sends it to a proxy", redact.URL(u))
	case u.Scheme == "http" && !plaintext && !match.Loopback(u):
		return fmt.Errorf("URL %q is plain http to another machine, where every secret can be read on the way: use https or set AllowPlaintext", redact.URL(u))
	}
	return nil
}

// checkSend reports why nothing may be sent as req. checkURL knows the spelling of
// the URL only; the client may have a proxy for all hosts.
func (f *HTTPFetcher) checkSend(req *http.Request) error {
	if err := checkURL(req.URL, f.AllowPlaintext); err != nil {
		return err
	}
	var base http.RoundTripper
	if f.Client != nil {
		base = f.Client.Transport
	}
	if req.URL.Scheme == "http" && !f.AllowPlaintext && proxied.By(base, req) {
		return fmt.Errorf("URL %q is plain http through a proxy, which can read every secret: use https, a Client without a proxy for this host, or set AllowPlaintext", redact.URL(req.URL))
	}
	return nil
}

// among reports whether the fields let the request go to the origin of u.
func (f *HTTPFetcher) among(u *url.URL) bool {
	if own, err := url.Parse(f.URL); err == nil && f.URL != "" && match.Same(own, u) {
		return true
	}
	origins, err := match.ParseOrigins(f.Origins)
	return err == nil && origins.Match(u)
}

// parents returns the steps whose tokens the request carries by HeaderFrom, as far as known
// can tell.
func (f *HTTPFetcher) parents(known func(step string) bool) []string {
	if f == nil {
		return nil
	}
	var steps []string
	for _, from := range f.HeaderFrom {
		step, _ := fromStep(from, known)
		steps = append(steps, step)
	}
	slices.Sort(steps)
	return slices.Compact(steps)
}

// fromStep splits a value of HeaderFrom: the name of a step, or the name of a step, a dot and
// the path of a value in the step's token. The longest name of a step counts.
func fromStep(from string, known func(step string) bool) (step, path string) {
	for end := len(from); end > 0; end = strings.LastIndexByte(from[:end], '.') {
		path := strings.TrimPrefix(from[end:], ".")
		if known(from[:end]) && (path != "" || end == len(from)) {
			return from[:end], path
		}
	}
	return from, ""
}
