// Package requestforge makes an [http.Client] authenticate itself, even if the login takes
// several calls that depend on each other.
//
// A request goes in without a token and comes out authenticated. Tokens are fetched at
// first use, shared by all callers, renewed before they expire, and replaced when a server
// refuses them.
//
//	http.Client ─► LoggingTransport ─► RetryTransport ─► AuthTransport ─► http.DefaultTransport
//	                                                         │ Token, Invalidate
//	                                                         ▼
//	                                                     TokenSource ◄── Pipeline: device ─► app ─► user
//	                                                                        │  a Fetcher for each step
//	                                                                        ▼
//	                                                                     Storage
//
// Each layer is an [http.RoundTripper] that works alone, over any RoundTripper.
// [NewTransport] builds the usual stack, with a base URL, from a [Config]:
//
//	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
//		Steps: []requestforge.Step{
//			{Name: "app", Fetcher: &requestforge.HTTPFetcher{
//				URL:  "https://auth.example.com/app",
//				JSON: map[string]any{"key": appKey},
//			}},
//			{Name: "user", DependsOn: []string{"app"}, Fetcher: &requestforge.HTTPFetcher{
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
//		Source:  tokens,
//		Retry:   requestforge.RetryPolicy{RetryMax: 3},
//		Logger:  slog.Default(),
//	})
//	if err != nil {
//		return err
//	}
//	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
//	resp, err := client.Get("/users") // https://api.example.com/v1/users
//
// A token is refreshed. A request is replayed after a server refused its token, and retried
// after a failure.
//
// # The login
//
// A [Pipeline] runs the login. Its [Step] values name their parents and have a [Fetcher]:
// [HTTPFetcher] for an HTTP request described as data, the package oauth2source for OAuth,
// [FetcherFunc] for anything else. [PipelineConfig.Subject] serves many users with one
// Pipeline. A [Storage] shares tokens between processes. [Pipeline.Logout] ends the session.
//
// # The requests
//
// [Config] and [Transport] put the layers together. [AuthTransport] puts tokens on requests
// and replays refused requests, [RetryTransport] sends failed requests again, and
// [LoggingTransport] writes a record of each request. [Use] and [Pipeline.Source] serve
// protocols other than HTTP, and tokens of other steps.
//
// # Where tokens go
//
// A token goes only to the named origins, or to the origin of the base URL; over plain http
// only to this machine; and along a redirect only to the origin of the caller's own first
// request. [Transport.Explain] says why a request would, or would not, carry the token.
//
// # Guarantees
//
// The caller's request is never changed, and its body is closed exactly once. The result is
// a response or an error, never both, and a 401 or 503 is a response. Errors from below come
// back unchanged. No token, password or client secret, and nothing from an auth server's
// body, is in any error, log record or printed value of this package. The path of a URL is
// shown as the program wrote the path.
//
// # When something is wrong
//
// [AuthError] says which step failed, and [AuthError.Answer] what the server said.
// [Pipeline.State] and [Pipeline.Stats] describe the steps, the attributes auth and gave_up
// of a log record explain a request, and the package forgez shows all steps on a page.
package requestforge

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/requestforge/requestforge/internal/match"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// Config describes a Transport: a base URL and the usual stack of layers. The zero Config
// is a bare http.DefaultTransport. A Config holds no state and may be copied; it prints and
// logs itself without secrets.
//
// The fields from AuthRetry to MaxReplayBody shape the auth layer. NewTransport checks
// these fields even without Source: a test may leave out Source and keep the rest.
type Config struct {
	// Base sends the requests when all layers are done with them. Nil
	// means http.DefaultTransport, looked up at each request.
	Base http.RoundTripper

	// BaseURL is the base of request URLs without scheme and host: below "https://h/v1",
	// both "/users" and "users" are "https://h/v1/users". BaseURL is an absolute http or
	// https URL without user info, query and fragment. Empty means that URLs stay
	// unchanged.
	//
	// Exactly one slash joins base and path, so that no relative URL can change the host; a
	// URL that tries ("//evil.example/x") is an error. The path is sent as written: escapes
	// stay, dot segments aren't resolved. A URL with an empty path is BaseURL, with or
	// without its trailing slash.
	//
	// http.Client doesn't know the host of a relative URL. Its Jar therefore has no cookies
	// for such a request, unless the Jar comes from Transport.Jar, and the caller's
	// Authorization, Cookie and Host stay behind at the first redirect.
	BaseURL string

	// BaseURLFrom returns the base URL of a token, for an API whose address comes with the
	// login, such as an instance URL in Extra. Each request below BaseURL with the token
	// then goes to the same path below the token's base URL, whether the request's URL was
	// relative or absolute. A replay goes to the base of its new token. Nil means BaseURL
	// for all tokens.
	//
	// BaseURL stays required. The layers above, ExcludedPaths and Explain use BaseURL, and
	// requests without a token go there. Its own origin needn't be among Origins, but the
	// origin of each token's base URL must be. Otherwise, or if BaseURLFrom fails, panics
	// or returns an invalid base URL, the request is an error and nothing is sent. The
	// Request of a response has the sent URL, without credentials: redirects are judged by
	// that URL, and the log shows it. A Jar sees the URL of the request.
	//
	// BaseURLFrom is called by several goroutines at once, once for each token of a
	// Pipeline; it must not wait.
	BaseURLFrom func(tok *Token) (string, error)

	// Source supplies the tokens: a *Pipeline, or another TokenSource.
	// Nil means no auth layer.
	Source TokenSource

	// AuthRetry says how often, and after which delay, a refused request is replayed; so is
	// a challenged request, if a step answers challenges. Nil means SimpleAuthRetry(1, 0):
	// once, at once.
	AuthRetry AuthRetryStrategy

	// Refused reports whether a response means a bad token. Nil means status 401, unless
	// its challenge asks for more than another token of the same login would have. Refused
	// must not close the body; see AuthTransport for how much of the body it may read.
	Refused func(*http.Response) bool

	// RefusedStatus lists further statuses that mean a bad token, such as 403 for some
	// APIs. Only without Refused; see AuthTransport.
	RefusedStatus []int

	// ExcludedPaths go without a token: exact paths ("/health") and patterns ("/public/*"
	// for one segment, "/docs/**" for any number), all below the path of BaseURL if set.
	// Nil means none.
	ExcludedPaths []string

	// Origins lists the origins that may get the token: "https://api.example.com",
	// "https://*.example.com" for its subdomains, or AnyOrigin. Empty means the origin of
	// BaseURL; without BaseURL, NewTransport fails. If Origins isn't empty, it must include
	// the origin of BaseURL to allow it, unless BaseURLFrom says where requests go.
	Origins []string

	// AllowPlaintext lets the token travel over plain http to other hosts than this
	// machine. Anyone on the way can then read the token.
	AllowPlaintext bool

	// Attach, Prepare and Learn put the token on requests, and learn from responses; see
	// AuthTransport. Nil Attach means Authorization, with the token's type before the
	// token.
	Attach  []Place
	Prepare func(out *http.Request, tok *Token) error
	Learn   func(resp *http.Response, tok *Token) (again bool)

	// OnConflict says what happens if the caller has set a place of the token. The zero
	// value, KeepCaller, sends the request unchanged.
	OnConflict Conflict

	// AuthTrace observes the auth layer's decisions about each request:
	// AuthTransport.Trace. Nil means no trace.
	AuthTrace *AuthTrace

	// MaxReplayBody bounds, in bytes, the copy of a request body without GetBody that is
	// kept to send the request again; a longer body is sent once. The bound holds for
	// replays and, unless Retry has a bound, for retries. Zero means 64 KiB; negative means
	// no copy.
	MaxReplayBody int64

	// Retry says which requests are sent again after a failure, and when.
	// With a RetryMax of zero, only an AttemptTimeout has an effect.
	Retry RetryPolicy

	// Logger gets a record for each request. Nil means no logging layer.
	Logger *slog.Logger

	// LogHeaders adds the headers of request and response to the record; see
	// LoggingTransport for the values shown.
	LogHeaders bool

	// LogURL is how the record shows a URL: LoggingTransport.URL. Nil masks
	// user info, query values and fragment, but not the path.
	LogURL func(*url.URL) string
}

// The reasons of a Transport, in addition, for sending no token.
const (
	// ReasonNoTokens: there is no auth layer.
	ReasonNoTokens Reason = "no token source is configured"
	// ReasonRelativeURL: the URL can't be put below BaseURL. Err says why,
	// and RoundTrip returns the same.
	ReasonRelativeURL Reason = "the URL can't be put below the base URL"
)

// Transport is an [http.RoundTripper] made of a base URL and the layers of a Config,
// outermost first: logging, retry, auth. Make a Transport with NewTransport. It is safe for
// concurrent use and must not be copied.
type Transport struct {
	base *baseURL       // nil: URLs stay as they are
	top  next           // the outermost layer
	auth *AuthTransport // in the stack; nil: no auth layer
}

// NewTransport builds the stack for cfg. The error joins all mistakes in cfg, each with the
// name of its field.
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
	auth := cfg.authLayer(base, report)
	mistake.Each(auth.check(), func(text string) { report("%s", text) })
	mistake.Each(cfg.Retry.check(), func(text string) { report("Retry.%s", text) })
	if err := mistakes.Err(); err != nil {
		return nil, err
	}

	top := cfg.Base
	if cfg.Source != nil {
		t.auth, top = auth, auth
	}
	if !cfg.Retry.passive() {
		policy := cfg.Retry
		policy.MaxReplayBody = cmp.Or(policy.MaxReplayBody, cfg.MaxReplayBody)
		top = &RetryTransport{Base: top, Policy: policy}
	}
	if cfg.Logger != nil {
		top = &LoggingTransport{Base: top, Logger: cfg.Logger, Headers: cfg.LogHeaders, URL: cfg.LogURL}
	}
	t.top = nextOf(top)
	return t, nil
}

// authLayer returns the auth layer for c, with excluded paths below base. Without a Source,
// the layer only serves to check the remaining fields.
func (c *Config) authLayer(base *baseURL, report func(string, ...any)) *AuthTransport {
	auth := &AuthTransport{
		Base:           c.Base,
		Source:         c.Source,
		Attach:         slices.Clone(c.Attach),
		Prepare:        c.Prepare,
		Learn:          c.Learn,
		Trace:          c.AuthTrace,
		ExcludedPaths:  slices.Clone(c.ExcludedPaths),
		Origins:        slices.Clone(c.Origins),
		AllowPlaintext: c.AllowPlaintext,
		OnConflict:     c.OnConflict,
		Retry:          c.AuthRetry,
		Refused:        c.Refused,
		RefusedStatus:  slices.Clone(c.RefusedStatus),
		MaxReplayBody:  c.MaxReplayBody,
	}
	if base != nil {
		auth.pathPrefix, auth.baseURL = base.dir, base.URL
		if c.BaseURLFrom != nil {
			auth.moves = &mover{base: base, from: c.BaseURLFrom}
		}
	}
	if len(auth.Origins) == 0 {
		auth.Origins = c.originsFrom(base, report)
	}
	switch {
	case mistake.IsNil(c.Source):
		report("Source: a nil %T; was the error of its constructor looked at?", c.Source)
	case c.Source != nil && base != nil && c.BaseURLFrom == nil && base.Scheme == "http" && !c.AllowPlaintext && !match.Loopback(base.URL):
		report("BaseURL %q: the token would travel over plain http for anyone to read; use https, or set AllowPlaintext", redact.URL(base.URL))
	}
	if c.BaseURLFrom != nil && c.BaseURL == "" {
		report("BaseURLFrom: there is no BaseURL, below which requests are moved from; set one")
	}
	if c.Source == nil || mistake.IsNil(c.Source) {
		auth.Source = StaticToken(nil)
	}
	return auth
}

// originsFrom returns the origin of base for a Config without Origins. Without such an
// origin it reports a mistake, and returns an origin that passes the check.
func (c *Config) originsFrom(base *baseURL, report func(string, ...any)) []string {
	if base == nil {
		if c.Source != nil && c.BaseURL == "" {
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

// RoundTrip sends the request through the layers, after joining a relative URL to BaseURL.
// Absolute URLs, and a nil URL, stay unchanged.
//
// For a relative URL, the Request of the response is a shallow copy of req with the
// absolute URL (with BaseURLFrom, the sent URL). A Location in the response becomes
// absolute, too: http.Client would resolve a relative Location against req.URL and add the
// path of BaseURL twice. The copy costs two allocations; absolute URLs cost no copy.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(nil, req)
}

func (t *Transport) roundTrip(x *exchange, req *http.Request) (*http.Response, error) {
	if t.base == nil {
		resp, err := t.top.forward(x, req)
		if resp != nil && resp.Request != req {
			resp.Request = t.seen(req, req, resp.Request)
		}
		return resp, err
	}
	out, err := t.resolve(req)
	if err != nil {
		roundtrip.CloseBody(req)
		return nil, err
	}
	sent := out
	if req.Response != nil {
		sent = refer(out, t.resolve)
	}
	resp, err := t.top.forward(x, sent)
	if resp != nil {
		resp.Request = t.seen(out, sent, resp.Request)
		if out != req {
			absoluteLocation(resp, resp.Request.URL)
		}
	}
	return resp, err
}

// seen is the request for a response to out. sent is the request that went down, back the
// request that came back; the result is out unless a layer moved the request.
func (t *Transport) seen(out, sent, back *http.Request) *http.Request {
	switch {
	case back == sent || movementOf(back) == nil:
		return out
	case out == sent:
		return back
	}
	moved := out.WithContext(back.Context()) // with the caller's Referer
	moved.URL = back.URL
	return moved
}

// Explain says whether RoundTrip would put the token on req, and why: AuthTransport.Explain
// for the resolved URL. Nothing is sent and no token is fetched. BaseURLFrom needs a token,
// so Explain assumes a token with a valid base.
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

// Jar returns jar for an [http.Client] over t: requests with relative URLs use the cookies
// of the URLs below BaseURL.
//
//	client := &http.Client{Transport: transport, Jar: transport.Jar(jar)}
//
// Without a BaseURL, Jar returns jar.
func (t *Transport) Jar(jar http.CookieJar) http.CookieJar {
	if t.base == nil || jar == nil {
		return jar
	}
	return &relativeJar{t.resolve, jar}
}

// Unwrap returns the outermost layer.
func (t *Transport) Unwrap() http.RoundTripper { return below(t.top.base) }

// WrappedRoundTripper is Unwrap under the name for k8s.io/client-go.
func (t *Transport) WrappedRoundTripper() http.RoundTripper { return t.Unwrap() }

func (t *Transport) lower() http.RoundTripper { return t.top.base }

// CloseIdleConnections closes the idle connections of Base.
func (t *Transport) CloseIdleConnections() { closeIdle(t.top.base) }

// resolved is a copy of a request and its URL in a single allocation.
type resolved struct {
	req http.Request
	url url.URL
}

// resolve returns req, or for a relative URL a shallow copy with the URL below the base.
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
	r.url.Path, r.url.RawPath = t.base.join(u)
	r.req.URL = &r.url
	return &r.req, nil
}

// Format writes the set fields of c, for every verb. Fields that may hold a secret appear
// as their type, and URLs are masked.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprint(f, c.text())
}

// LogValue returns the text of Format.
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
	add(c.BaseURLFrom != nil, "BaseURLFrom", "%T", c.BaseURLFrom)
	add(c.Source != nil, "Source", "%T", c.Source)
	add(c.AuthRetry != nil, "AuthRetry", "%T", c.AuthRetry)
	add(c.Refused != nil, "Refused", "%T", c.Refused)
	add(c.RefusedStatus != nil, "RefusedStatus", "%d", c.RefusedStatus)
	add(c.ExcludedPaths != nil, "ExcludedPaths", "%q", c.ExcludedPaths)
	add(c.Origins != nil, "Origins", "%q", origins)
	add(c.AllowPlaintext, "AllowPlaintext", "true")
	add(c.Attach != nil, "Attach", "%v", c.Attach)
	add(c.Prepare != nil, "Prepare", "%T", c.Prepare)
	add(c.Learn != nil, "Learn", "%T", c.Learn)
	add(c.OnConflict != 0, "OnConflict", "%d", c.OnConflict)
	add(c.MaxReplayBody != 0, "MaxReplayBody", "%d", c.MaxReplayBody)
	add(c.Retry.RetryMax != 0, "Retry.RetryMax", "%d", c.Retry.RetryMax)
	add(c.Logger != nil, "Logger", "%T", c.Logger)
	add(c.LogHeaders, "LogHeaders", "true")
	add(c.LogURL != nil, "LogURL", "%T", c.LogURL)
	return "requestforge.Config{" + b.String() + "}"
}
