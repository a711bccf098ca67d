// Which requests carry a token, and what happens when one is refused. Where
// the tokens come from is pipeline.go's.

package requestforge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"

	"github.com/requestforge/requestforge/internal/httpname"
	"github.com/requestforge/requestforge/internal/match"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/refund"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// AnyOrigin in Origins allows every https origin that the caller itself
// names, and plain http ones as far as AllowPlaintext does. A redirect to
// another origin still goes without the token.
const AnyOrigin = "*"

// CallerHeader says what to do if the caller has set the token's header, or
// user information in the URL, itself.
type CallerHeader int

const (
	// KeepCaller sends the request as it is, without a token and without
	// replay: a signature or an SDK's own credentials stay intact.
	KeepCaller CallerHeader = iota
	// ReplaceCaller puts the token in place of the caller's header.
	ReplaceCaller
	// RejectCaller is an error from RoundTrip.
	RejectCaller
)

// AuthTransport puts a token on the requests that may carry one, and replays
// a request whose token was refused with a new one. It is safe for
// concurrent use; its fields must not change after the first request.
type AuthTransport struct {
	// Base sends the requests. Nil means http.DefaultTransport, looked up
	// at each request.
	Base http.RoundTripper

	// Source supplies the tokens. Required.
	Source TokenSource

	// Header is the header that carries the token. "" means
	// Authorization, with the token's type before it; any other header
	// gets the bare token.
	Header string

	// ExcludedPaths go without a token: exact paths ("/health"), "*" for
	// one segment ("/public/*") and, at the end, "**" for one or more
	// ("/docs/**"). They are matched on the decoded path. A path that
	// can be read in two ways (%2e%2e, //, a bad escape) is not excluded.
	ExcludedPaths []string

	// Origins are where the token may go: "https://api.example.com",
	// with a port if it isn't the scheme's own, "https://*.example.com"
	// for all subdomains, or AnyOrigin. Required: without, every request
	// is an error. Both the URL's host and, if set, Request.Host must be
	// among them.
	//
	// Along redirects the token goes to no origin but that of the
	// caller's own first request, and not back to it after leaving.
	Origins []string

	// AllowPlaintext lets the token travel over plain http to hosts that
	// aren't loopback, where anyone on the way can read it.
	AllowPlaintext bool

	// CallerHeader says what to do if the caller has set Header, or user
	// information in the URL, itself. The zero value keeps it.
	CallerHeader CallerHeader

	// Retry says how often, and after which waits, a refused request is
	// replayed. Nil means SimpleAuthRetry(1, 0).
	Retry AuthRetryStrategy

	// Refused reports whether a response means that the token is bad. It
	// may read up to 64 KiB of the body, which is put back, and must not
	// keep the response. Nil means 401, unless a Bearer challenge says
	// insufficient_scope: another token would have no more scope.
	Refused func(*http.Response) bool

	// MaxReplayBody is how much of a body without GetBody is kept for a
	// replay, in bytes a request. A body that is larger is sent once. Zero
	// means 64 KiB; negative means to keep nothing.
	MaxReplayBody int64

	pathPrefix string // before ExcludedPaths; set by NewTransport

	once  sync.Once
	rules rules
	err   error // from check
}

// rules is what is derived from an AuthTransport's fields. Immutable.
type rules struct {
	base    next
	origins *match.Origins
	paths   *match.Paths
	header  spellings
	keep    int64
	retry   AuthRetryStrategy
}

// Reason says why a request would, or would not, carry the token.
type Reason string

// The reasons.
const (
	ReasonSend         Reason = "the request carries the token"
	ReasonNoSource     Reason = "there is no source of tokens"
	ReasonNoURL        Reason = "the request has no URL, or one without a host; the transport below has its own error for it"
	ReasonExcludedPath Reason = "the path is excluded"
	ReasonCallerHeader Reason = "the caller has set the header or user information itself"
	ReasonOrigin       Reason = "the origin is not among Origins"
	ReasonRedirect     Reason = "a redirect has left the origin of the caller's own request"
	ReasonPlaintext    Reason = "the token would travel over plain http"
	ReasonConfig       Reason = "the transport is configured wrongly"
)

// Decision is the answer of Explain.
type Decision struct {
	// Send reports whether the request carries the token.
	Send bool
	// Reason is why, or why not.
	Reason Reason
	// Err is the error that RoundTrip returns instead of sending the
	// request, or nil if it is sent.
	Err error
}

var (
	errPlaintext = mistake.Final(errors.New("requestforge: the token would travel over plain http to a host that is not loopback; use https, or set AllowPlaintext"))
	errCaller    = mistake.Final(errors.New("requestforge: the request has the token's header, or user information in its URL, set by its caller (CallerHeader is RejectCaller)"))
	errNoOrigins = errors.New("Origins is empty: say where the token may go, for example \"https://api.example.com\"")
	errNoSource  = errors.New("Source is nil")
)

// Explain says why req would, or would not, carry the token. RoundTrip decides
// by the same function. Nothing is fetched or sent.
func (t *AuthTransport) Explain(req *http.Request) Decision {
	r, err := t.setup()
	if err != nil {
		return Decision{Reason: ReasonConfig, Err: err}
	}
	reason, err := t.decide(r, req)
	return Decision{Send: reason == ReasonSend, Reason: reason, Err: err}
}

// decide is the one place that says which requests carry a token.
func (t *AuthTransport) decide(r *rules, req *http.Request) (Reason, error) {
	u := req.URL
	if u == nil || u.Host == "" && u.Opaque == "" {
		return ReasonNoURL, nil
	}
	if r.paths.Match(u) {
		return ReasonExcludedPath, nil
	}
	if t.CallerHeader != ReplaceCaller && (u.User != nil || r.header.in(req.Header)) {
		if t.CallerHeader == RejectCaller {
			return ReasonCallerHeader, errCaller
		}
		return ReasonCallerHeader, nil
	}
	if !r.origins.Match(u) || !r.hostMatches(req) {
		return ReasonOrigin, nil
	}
	if leftOrigin(req) {
		return ReasonRedirect, nil
	}
	if u.Scheme != "https" && !t.AllowPlaintext && !r.origins.Loopback(u) {
		return ReasonPlaintext, errPlaintext
	}
	return ReasonSend, nil
}

// hostMatches reports whether the Host that req names beside its URL, if any, is
// one that may get the token.
func (r *rules) hostMatches(req *http.Request) bool {
	return req.Host == "" || req.Host == req.URL.Host || r.origins.MatchHost(req.URL.Scheme, req.Host)
}

// leftOrigin reports whether any hop on the way from the caller's own request
// to req went to another origin than the first. Nothing but a mistake has as
// many hops as maxHops: a request that was tied to its own response.
func leftOrigin(req *http.Request) bool {
	const maxHops = 1000
	hop := req
	for n := 0; hop.Response != nil; n++ {
		before := hop.Response.Request
		if before == nil || n == maxHops || !match.Same(before.URL, hop.URL) {
			return true
		}
		hop = before
	}
	return false
}

// check reports every mistake in t's fields, joined, each beginning with the
// field's name.
func (t *AuthTransport) check() error {
	_, err := t.compile()
	return err
}

func (t *AuthTransport) compile() (rules, error) {
	var errs []error
	r := rules{base: nextOf(t.Base), header: spell(cmp.Or(t.Header, "Authorization")), keep: keepBound(t.MaxReplayBody), retry: t.Retry}
	if t.Source == nil || mistake.IsNil(t.Source) {
		errs = append(errs, errNoSource)
	}
	if t.Header != "" && !httpname.IsToken(t.Header) {
		errs = append(errs, fmt.Errorf("Header %q is not a header name", t.Header))
	}
	if len(t.Origins) == 0 {
		errs = append(errs, errNoOrigins)
	}
	var err error
	if r.origins, err = match.ParseOrigins(t.Origins); err != nil {
		mistake.Each(err, func(text string) { errs = append(errs, errors.New("Origins: "+text)) })
	}
	if r.paths, err = match.ParsePaths(t.pathPrefix, t.ExcludedPaths); err != nil {
		mistake.Each(err, func(text string) { errs = append(errs, errors.New("ExcludedPaths: "+text)) })
	}
	if t.CallerHeader < KeepCaller || t.CallerHeader > RejectCaller {
		errs = append(errs, fmt.Errorf("CallerHeader is %d; use KeepCaller, ReplaceCaller or RejectCaller", t.CallerHeader))
	}
	if r.retry == nil {
		r.retry = SimpleAuthRetry(1, 0)
	}
	return r, errors.Join(errs...)
}

// setup compiles the rules on first use.
func (t *AuthTransport) setup() (*rules, error) {
	t.once.Do(func() {
		var err error
		if t.rules, err = t.compile(); err != nil {
			t.err = mistake.Final(fmt.Errorf("requestforge: AuthTransport: %w", err))
		}
	})
	return &t.rules, t.err
}

// RoundTrip sends req with a token, if Explain says so, else as it is. Without
// a token it fails: its error is then the source's, and nothing was sent. If
// the response means that the token is bad, the source is told, and the
// request is replayed with another token as often as Retry says; if there is
// none, or the body can't be sent again, the refusal is returned with its
// body readable.
func (t *AuthTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(nil, req)
}

func (t *AuthTransport) roundTrip(x *exchange, req *http.Request) (*http.Response, error) {
	r, err := t.setup()
	if err != nil {
		roundtrip.CloseBody(req)
		return nil, err
	}
	reason, err := t.decide(r, req)
	if err != nil {
		roundtrip.CloseBody(req)
		return nil, err
	}
	if reason != ReasonSend {
		return r.base.forward(x, req)
	}

	own := x == nil
	if own {
		x = newExchange(req)
		if kept := x.body(); kept != nil {
			defer kept.Finish()
		}
	}
	// The body is begun before there is a token: if there is none, a layer
	// above may still send the request later.
	out := x.request(req)
	out.Body = x.begin(req, max(r.keep, x.keep()))
	tok, err := token(t.Source, req)
	if err != nil {
		roundtrip.CloseBody(out)
		return nil, err
	}
	value, err := headerValue(tok, &r.header)
	if err != nil {
		roundtrip.CloseBody(out)
		return nil, err
	}
	out.Header = r.header.put(req.Header, value, t.CallerHeader == ReplaceCaller)
	resp, err := r.base.forward(x, out)
	if err == nil && resp != nil && refused(t.Refused, tok, resp) {
		if own && x.retrying() {
			// A foreign layer stands between us and the retry layer
			// above, which can't know what we send.
			t.tell(req.Context(), tok)
		} else {
			resp, err = t.replay(x, r, req, tok, resp)
		}
	}
	if err != nil || resp == nil {
		return nil, err // for neither, http.Client has words
	}
	resp.Request = req
	return resp, nil
}

// tell tells the source that tok was refused. An error of Invalidate is its
// storage's, which has no say in what becomes of this request.
func (t *AuthTransport) tell(ctx context.Context, tok *Token) {
	_ = t.Source.Invalidate(ctx, tok)
}

// replay tells the source that tok was refused and sends req again with other
// tokens, for as long as one is refused, there is another, and the schedule
// allows. What it returns is the last response that there was, unread; or the
// error of a replay, which has cost the response before.
func (t *AuthTransport) replay(x *exchange, r *rules, req *http.Request, tok *Token, resp *http.Response) (*http.Response, error) {
	var owed refund.Refund
	ctx := refund.With(req.Context(), &owed)
	for {
		// Even if this request can't be replayed: others carry the token.
		t.tell(ctx, tok)
		if x.lost(req) {
			return resp, nil
		}
		next, value := t.another(x, r, req, tok)
		if next == nil {
			return resp, nil
		}
		body, ok := x.again(req)
		if !ok {
			return resp, nil
		}
		out := new(http.Request)
		*out = *req
		out.Header = r.header.put(req.Header, value, t.CallerHeader == ReplaceCaller)
		out.Body = body
		roundtrip.Discard(resp)
		x.replayed()
		var err error
		if resp, err = r.base.forward(x, out); err != nil || resp == nil {
			return nil, err
		}
		if tok = next; !refused(t.Refused, tok, resp) {
			if accepts(resp) {
				owed.Pay()
			}
			return resp, nil
		}
	}
}

// another waits as the schedule says and returns a token that is not tok, with
// its header value; nil if there is to be no replay.
func (t *AuthTransport) another(x *exchange, r *rules, req *http.Request, tok *Token) (*Token, []string) {
	wait := x.nextReplay(r.retry)
	if wait < 0 || !roundtrip.Sleep(req, wait) {
		return nil, nil
	}
	next, err := token(t.Source, req)
	if err != nil || next.AccessToken == tok.AccessToken && next.Type() == tok.Type() {
		return nil, nil
	}
	value, err := headerValue(next, &r.header)
	if err != nil || roundtrip.Over(req) {
		return nil, nil
	}
	return next, value
}

// headerValue is what the header has to hold. It is ready-made on tokens of
// ours, if they are as we made them.
func headerValue(tok *Token, header *spellings) ([]string, error) {
	p := tok.prov
	if p == nil || p.bare[0] != tok.AccessToken || p.typ != tok.TokenType {
		var err error
		if p, err = proven(tok); err != nil {
			return nil, err
		}
	}
	if header[0] == "Authorization" {
		return p.authorization, nil
	}
	return p.bare, nil
}

// proven is the provenance of a token that isn't ours, or was changed.
func proven(tok *Token) (*provenance, error) {
	if err := tok.validate(); err != nil {
		return nil, mistake.Final(fmt.Errorf("requestforge: the token can't be sent: %w", err))
	}
	return newProvenance(tok), nil
}

// spellings are those of a header's name that a map filled by hand may hold.
// Looking for these three is a good deal cheaper than a walk over the map.
type spellings [3]string

func spell(name string) spellings {
	name = http.CanonicalHeaderKey(name)
	return spellings{name, strings.ToLower(name), strings.ToUpper(name)}
}

// in reports whether h has a value under one of the spellings.
func (s *spellings) in(h http.Header) bool {
	for _, name := range s {
		if len(h[name]) > 0 {
			return true
		}
	}
	return false
}

// put returns a copy of h in which value is the only one of the header. The
// values are shared. Without replace h has none, see in.
func (s *spellings) put(h http.Header, value []string, replace bool) http.Header {
	c := maps.Clone(h)
	if c == nil {
		c = make(http.Header, 1)
	}
	if replace {
		for _, name := range s[1:] {
			delete(c, name)
		}
	}
	c[s[0]] = value
	return c
}

// Unwrap returns the transport below.
func (t *AuthTransport) Unwrap() http.RoundTripper { return roundtrip.Base(t.Base) }

// CloseIdleConnections passes the call on to the transport below.
func (t *AuthTransport) CloseIdleConnections() { roundtrip.CloseIdle(t.Base) }
