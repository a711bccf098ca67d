// Package requestforge makes an [http.Client] authenticate itself, also when
// a token takes several calls that depend on each other.
//
// A request goes in without a token and comes out authenticated. The tokens
// are fetched when they are first needed, shared by all callers, renewed
// before they expire, and replaced when a server refuses one.
//
//	http.Client ─► LoggingTransport ─► RetryTransport ─► AuthTransport ─► http.DefaultTransport
//	                                                         │ Token, Invalidate
//	                                                         ▼
//	                                                     TokenSource ◄── Pipeline: device ─► app ─► user
//	                                                                        │  a Fetcher for each step
//	                                                                        ▼
//	                                                                     Storage
//
// Each layer is an [http.RoundTripper] that works alone, over any other one.
// [NewTransport] builds the usual stack, with a base URL, from one [Config]:
//
//	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
//		Steps: []requestforge.Step{
//			{Name: "app", Fetcher: &requestforge.BodyFetcher{
//				URL:  "https://auth.example.com/app",
//				JSON: map[string]any{"key": appKey},
//			}},
//			{Name: "user", DependsOn: []string{"app"}, Fetcher: &requestforge.BodyFetcher{
//				URL:        "https://auth.example.com/login",
//				HeaderFrom: map[string]string{"Authorization": "app"},
//				JSON:       map[string]any{"user": user, "password": password},
//			}},
//		},
//	})
//	if err != nil {
//		return err
//	}
//	transport, err := requestforge.NewTransport(requestforge.Config{
//		BaseURL: "https://api.example.com/v1",
//		Tokens:  tokens,
//		Retry:   requestforge.RetryPolicy{RetryMax: 3},
//		Logger:  slog.Default(),
//	})
//	if err != nil {
//		return err
//	}
//	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
//	resp, err := client.Get("/users") // https://api.example.com/v1/users
//
// Three words are used for three things: a token is refreshed, a request is
// replayed after a server refused its token, and it is retried after a
// failure.
//
// # Where a token goes
//
// Only to the origins that are named, or to that of the base URL; over plain
// http only to this machine; and along a redirect never to another origin
// than that of the caller's own first request. [Transport.Explain] says why a
// request would, or would not, carry the token.
//
// # What can be relied on
//
// The caller's request is never changed and its body is closed exactly once.
// A response comes back or an error, never both, and a 401 or 503 is a
// response. Errors from below come back as they are. No token, password or
// client secret, and nothing an auth server sent in a body, is in any error,
// log record or printed value of this package; what a program writes into a
// URL's path is its own affair.
//
// # Where to read on
//
// [Config] and [Transport] put it together; [LoggingTransport] is the
// outermost layer. [AuthTransport] decides which requests carry a token and
// what happens when one is refused, [Pipeline] which token is live and who
// fetches it, [BodyFetcher] and [HeaderFetcher] how one step turns an
// exchange into a token, [Storage] where tokens live, and [RetryTransport]
// when a request is sent again.
package requestforge

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/requestforge/requestforge/internal/match"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// Config describes a Transport: a base URL and the usual stack of layers.
// The zero Config is a bare http.DefaultTransport. A Config holds no state
// and may be copied; it prints and logs itself without secrets.
//
// The fields from AuthRetry to MaxReplayBody shape the auth layer and are of
// no use without Tokens, but NewTransport checks them all the same: a
// program may leave Tokens out in a test and keep the rest.
type Config struct {
	// Base sends the requests when all layers are done with them. Nil
	// means http.DefaultTransport, looked up at each request.
	Base http.RoundTripper

	// BaseURL is put before request URLs that have neither scheme nor
	// host: below "https://h/v1", both "/users" and "users" are
	// "https://h/v1/users". It is an absolute http or https URL without
	// user info, query and fragment. Empty means that URLs stay as they
	// are.
	//
	// Exactly one slash joins the two, so that no relative URL can change
	// the host; one that tries ("//evil.example/x") is an error. The rest
	// of it is sent as it is written: escapes stay, dot segments aren't
	// resolved. A URL with an empty path is BaseURL itself, with or
	// without its slash at the end.
	//
	// http.Client doesn't know the host of a relative URL, so its Jar has
	// no cookies for such a request, and an Authorization, Cookie or Host
	// that the caller set stays behind at the first redirect.
	BaseURL string

	// Tokens supplies the tokens: a *Pipeline, or another TokenSource.
	// Nil means no auth layer.
	Tokens TokenSource

	// AuthRetry says how often, and after which delay, a request is
	// replayed whose token was refused. Nil means SimpleAuthRetry(1, 0):
	// once, at once.
	AuthRetry AuthRetryStrategy

	// Refused reports whether a response means that the token was no
	// good. Nil means that a 401 does, unless it says insufficient_scope.
	// It must not close the body; see AuthTransport for how much of it
	// may be read.
	Refused func(*http.Response) bool

	// ExcludedPaths go without a token: exact paths ("/health") and
	// patterns ("/public/*" for one segment, "/docs/**" for any number),
	// all below the path of BaseURL if there is one. Nil means none.
	ExcludedPaths []string

	// Origins is where the token may go: "https://api.example.com",
	// "https://*.example.com" for its subdomains, or AnyOrigin. Empty
	// means the origin of BaseURL; with neither, NewTransport fails. If
	// it isn't empty, the origin of BaseURL has to be named like any
	// other.
	Origins []string

	// AllowPlaintext lets the token travel over plain http to hosts other
	// than this machine, for anyone on the way to read.
	AllowPlaintext bool

	// Header carries the token. Empty means Authorization, with the
	// token's type before it; in any other header the token stands bare.
	Header string

	// CallerHeader says what happens if the caller has set that header.
	// The zero value, KeepCaller, sends the request as the caller made
	// it.
	CallerHeader CallerHeader

	// MaxReplayBody bounds, in bytes, what is kept of a request body that
	// has no GetBody, so that the request can be sent again; a longer one
	// is sent once. It counts for replays and, unless Retry has a bound
	// of its own, for retries. Zero means 64 KiB; negative means that
	// nothing is kept.
	MaxReplayBody int64

	// Retry says which requests are sent again after a failure, and when.
	// With a RetryMax of zero there is no retry layer, and an
	// AttemptTimeout has no effect.
	Retry RetryPolicy

	// Logger gets one record for each request. Nil means no logging layer.
	Logger *slog.Logger

	// LogHeaders adds the headers of request and response to the record;
	// see LoggingTransport for what is shown of them.
	LogHeaders bool
}

// The reasons that only a Transport has for sending no token.
const (
	// ReasonNoTokens: there is no auth layer.
	ReasonNoTokens Reason = "no token source is configured"
	// ReasonRelativeURL: the URL can't be put below BaseURL. Err says why,
	// and RoundTrip returns the same.
	ReasonRelativeURL Reason = "the URL can't be put below the base URL"
)

// Transport is an [http.RoundTripper] made of a base URL and the layers of
// its Config, outermost first: logging, retry, auth. NewTransport makes one.
// It is safe for concurrent use and must not be copied.
type Transport struct {
	base   *url.URL // nil: URLs stay as they are
	dir    string   // base.Path without the slashes at its end
	rawDir string   // dir as it is escaped in base

	top  next           // the outermost layer
	auth *AuthTransport // the one in the stack; nil: none
}

// NewTransport builds the stack that cfg describes. Every mistake in cfg is
// reported, all of them joined, each by the name of its field.
func NewTransport(cfg Config) (*Transport, error) {
	var mistakes mistake.List
	report := func(format string, args ...any) { mistakes.Addf("Config."+format, args...) }
	if mistake.IsNil(cfg.Base) {
		report("Base: a nil %T; leave it out for http.DefaultTransport", cfg.Base)
	}
	base, faults := parseBaseURL(cfg.BaseURL)
	for _, fault := range faults {
		report("BaseURL %s", fault)
	}
	t := &Transport{base: base}
	if base != nil {
		escaped := base.EscapedPath()
		t.rawDir = strings.TrimRight(escaped, "/")
		t.dir = base.Path[:len(base.Path)-(len(escaped)-len(t.rawDir))]
	}
	auth := cfg.authLayer(base, t.dir, report)
	mistake.Each(auth.check(), func(text string) { report("%s", text) })
	mistake.Each(cfg.Retry.check(), func(text string) { report("Retry.%s", text) })
	if err := mistakes.Err(); err != nil {
		return nil, err
	}

	top := cfg.Base
	if cfg.Tokens != nil {
		t.auth, top = auth, auth
	}
	if cfg.Retry.RetryMax > 0 {
		policy := cfg.Retry
		policy.MaxReplayBody = cmp.Or(policy.MaxReplayBody, cfg.MaxReplayBody)
		top = &RetryTransport{Base: top, Policy: policy}
	}
	if cfg.Logger != nil {
		top = &LoggingTransport{Base: top, Logger: cfg.Logger, Headers: cfg.LogHeaders}
	}
	t.top = nextOf(top)
	return t, nil
}

// authLayer returns the auth layer that c describes, above paths below dir. If
// there are no Tokens, the layer is good for a check of the other fields only.
func (c *Config) authLayer(base *url.URL, dir string, report func(string, ...any)) *AuthTransport {
	auth := &AuthTransport{
		Base:           c.Base,
		Source:         c.Tokens,
		Header:         c.Header,
		ExcludedPaths:  slices.Clone(c.ExcludedPaths),
		Origins:        slices.Clone(c.Origins),
		AllowPlaintext: c.AllowPlaintext,
		CallerHeader:   c.CallerHeader,
		Retry:          c.AuthRetry,
		Refused:        c.Refused,
		MaxReplayBody:  c.MaxReplayBody,
		pathPrefix:     dir,
	}
	if len(auth.Origins) == 0 {
		auth.Origins = c.originsFrom(base, report)
	}
	switch {
	case mistake.IsNil(c.Tokens):
		report("Tokens: a nil %T; was the error of its constructor looked at?", c.Tokens)
	case c.Tokens != nil && base != nil && base.Scheme == "http" && !c.AllowPlaintext && !match.Loopback(base):
		report("BaseURL %q: the token would travel over plain http for anyone to read; use https, or set AllowPlaintext", redact.URL(base))
	}
	if c.Tokens == nil || mistake.IsNil(c.Tokens) {
		auth.Source = StaticToken(nil)
	}
	return auth
}

// originsFrom returns the origin of base for a Config that names none. Where there
// is no such origin it reports that, and returns any that passes a check.
func (c *Config) originsFrom(base *url.URL, report func(string, ...any)) []string {
	if base == nil {
		if c.Tokens != nil && c.BaseURL == "" {
			report(`Origins: none, and no BaseURL to take one from: say where the token may go, as in Origins: []string{"https://api.example.com"}`)
		}
		return []string{AnyOrigin}
	}
	origin := (&url.URL{Scheme: base.Scheme, Host: base.Host}).String()
	if _, err := match.ParseOrigins([]string{origin}); err != nil {
		report("BaseURL: as an origin for the token, %v", err)
		return []string{AnyOrigin}
	}
	return []string{origin}
}

// RoundTrip puts the request's URL below BaseURL if it is relative, and sends
// the request through the layers. Other URLs, a nil one included, go down as
// they are.
//
// For a relative URL, the Request of the response is a shallow copy of req
// with the URL that was asked for, and a Location in the response is made
// absolute: http.Client would take it relative to req.URL, and the path of
// BaseURL would be put before it a second time. The copy costs two
// allocations; a URL that isn't relative costs none.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(nil, req)
}

func (t *Transport) roundTrip(x *exchange, req *http.Request) (*http.Response, error) {
	out, err := t.resolve(req)
	if err != nil {
		roundtrip.CloseBody(req)
		return nil, err
	}
	resp, err := t.top.forward(x, out)
	if resp != nil {
		resp.Request = out
		if out != req {
			absoluteLocation(resp)
		}
	}
	return resp, err
}

// Explain says whether RoundTrip would put the token on req, and why, as
// AuthTransport.Explain does for the URL that req's is resolved to. Nothing
// is sent and no token is fetched.
func (t *Transport) Explain(req *http.Request) Decision {
	out, err := t.resolve(req)
	switch {
	case err != nil:
		return Decision{Reason: ReasonRelativeURL, Err: err}
	case t.auth == nil:
		return Decision{Reason: ReasonNoTokens}
	}
	return t.auth.Explain(out)
}

// Unwrap returns the outermost layer.
func (t *Transport) Unwrap() http.RoundTripper { return roundtrip.Base(t.top.base) }

// CloseIdleConnections closes the idle connections of Base.
func (t *Transport) CloseIdleConnections() { roundtrip.CloseIdle(t.top.base) }

// resolved is a copy of a request and its URL in one allocation.
type resolved struct {
	req http.Request
	url url.URL
}

// resolve returns req itself, or if its URL is relative a shallow copy with
// the URL below the base.
func (t *Transport) resolve(req *http.Request) (*http.Request, error) {
	u := req.URL
	if t.base == nil || u == nil || u.Scheme != "" {
		return req, nil
	}
	switch {
	case u.Host != "" || u.User != nil:
		return nil, fmt.Errorf("requestforge: relative URL %q: it names a host, which is BaseURL's to name; add a scheme, or one slash only before the path", redact.URL(u))
	case u.Opaque != "":
		return nil, errors.New("requestforge: relative URL: Opaque is set, so it can't be put below BaseURL; use Path and RawPath, or add a scheme")
	}
	r := &resolved{req: *req, url: *u}
	r.url.Scheme, r.url.Host, r.url.OmitHost = t.base.Scheme, t.base.Host, false
	r.url.Path, r.url.RawPath = t.join(u)
	r.req.URL = &r.url
	return &r.req, nil
}

// join puts the path of u below the base, joined by exactly one slash.
func (t *Transport) join(u *url.URL) (path, raw string) {
	if u.Path == "" {
		return t.base.Path, t.base.RawPath
	}
	if u.RawPath == "" && t.base.RawPath == "" {
		return t.dir + "/" + strings.TrimLeft(u.Path, "/"), ""
	}
	// Slashes are counted where they are escaped: a %2F belongs to a
	// segment and doesn't join anything.
	escaped := u.EscapedPath()
	trimmed := strings.TrimLeft(escaped, "/")
	return t.dir + "/" + u.Path[len(escaped)-len(trimmed):], t.rawDir + "/" + trimmed
}

// absoluteLocation makes the Location of the response to a resolved request
// absolute. One that can't be parsed is left to http.Client's own error.
func absoluteLocation(resp *http.Response) {
	loc := resp.Header.Get("Location")
	if loc == "" {
		return
	}
	ref, err := url.Parse(loc)
	if err != nil {
		return
	}
	host := undotted(ref.Host)
	if ref.IsAbs() && host == ref.Host {
		return
	}
	ref.Host = host
	// The map may be someone else's too, such as a cache's.
	resp.Header = maps.Clone(resp.Header)
	resp.Header["Location"] = []string{resp.Request.URL.ResolveReference(ref).String()}
}

// undotted returns host without a dot at the end of its name.
//
// http.Client copies the caller's Authorization and Cookie headers to a
// redirect's host if that ends in "." + the host of the first URL. In a
// relative URL that is "", and every name with a dot at its end would get
// them. The dot may be one of Unicode's, and characters that IDNA drops may
// follow it; a name that ends in a letter or digit is left alone.
func undotted(host string) string {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i:], ']') < 0 {
		name, port = host[:i], host[i:]
	}
	trimmed := strings.TrimRightFunc(name, func(r rune) bool {
		return r == '.' || r >= 0x80 && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	if trimmed == "" || !strings.ContainsAny(name[len(trimmed):], ".\u3002\uff0e\uff61") {
		return host
	}
	return trimmed + port
}

// parseBaseURL returns the URL in raw, nil for "", or everything that keeps it
// from being a base URL.
func parseBaseURL(raw string) (u *url.URL, faults []string) {
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
	return u, nil
}

// Format writes what is set in c, for every verb. What may hold a secret is
// shown as its type, and URLs are masked.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprint(f, c.text())
}

// LogValue is the text that c formats to.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.text()) }

func (c Config) text() string {
	var b strings.Builder
	add := func(set bool, name, format string, args ...any) {
		if !set {
			return
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, name+": "+format, args...)
	}
	origins := slices.Clone(c.Origins)
	for i, o := range origins {
		if o != AnyOrigin {
			origins[i] = redact.Text(o)
		}
	}
	add(c.Base != nil, "Base", "%T", c.Base)
	add(c.BaseURL != "", "BaseURL", "%q", redact.Text(c.BaseURL))
	add(c.Tokens != nil, "Tokens", "%T", c.Tokens)
	add(c.AuthRetry != nil, "AuthRetry", "%T", c.AuthRetry)
	add(c.Refused != nil, "Refused", "%T", c.Refused)
	add(c.ExcludedPaths != nil, "ExcludedPaths", "%q", c.ExcludedPaths)
	add(c.Origins != nil, "Origins", "%q", origins)
	add(c.AllowPlaintext, "AllowPlaintext", "true")
	add(c.Header != "", "Header", "%q", c.Header)
	add(c.CallerHeader != 0, "CallerHeader", "%d", c.CallerHeader)
	add(c.MaxReplayBody != 0, "MaxReplayBody", "%d", c.MaxReplayBody)
	add(c.Retry.RetryMax != 0, "Retry.RetryMax", "%d", c.Retry.RetryMax)
	add(c.Logger != nil, "Logger", "%T", c.Logger)
	add(c.LogHeaders, "LogHeaders", "true")
	return "requestforge.Config{" + b.String() + "}"
}
