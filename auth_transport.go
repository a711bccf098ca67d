// Which requests carry a token. auth_replay.go deals with refusals, and pipeline.go has the
// tokens.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/requestforge/requestforge/internal/match"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/proxied"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// AnyOrigin in Origins allows every https origin in the caller's own requests, and with
// AllowPlaintext every http origin. A redirect to another origin still goes without the
// token.
const AnyOrigin = "*"

// Conflict says what to do if the caller has set a place of the token, or user information
// in the URL. Cookies never conflict: the token's cookies replace cookies of the same name,
// and the remaining cookies stay.
type Conflict int

const (
	// KeepCaller sends the request unchanged, without a token and without replay: a
	// signature or an SDK's own credentials stay intact.
	KeepCaller Conflict = iota
	// ReplaceCaller replaces the caller's value by the token.
	ReplaceCaller
	// RejectCaller is an error from RoundTrip.
	RejectCaller
)

// AuthTransport puts a token on the requests that may carry one, and replays a request
// whose token was refused, with a new token. It is safe for concurrent use; its fields must
// not change after the first request.
//
// A server may not know a young token yet. So if a Pipeline's token is refused within 10 s
// of its birth, and no server has accepted the token, the layer sends the token again
// before replacing it. One of the token's requests is sent again 0.25 s and 0.75 s after
// the first refusal, and with Retry set also 1.75 s and 3 s after, while the remaining
// requests wait for the result. These sends count as replays, but are independent of Retry.
// Each request waits within its own context and Cancel; a request without the time for the
// next send gets the refusal, and leaves the token to the remaining requests. A request
// whose body can't be sent again doesn't wait; if no other request waits, the token is
// replaced. If the token is refused to the end, the layer waits for no other token until a
// server accepts a token.
type AuthTransport struct {
	// Base sends the requests. Nil means http.DefaultTransport, looked up
	// at each request.
	Base http.RoundTripper

	// Source supplies the tokens. Required.
	Source TokenSource

	// Attach lists the places of the token, and of values beside the token, on each
	// request. Nil means the header Authorization, with the token's type before the token.
	// Empty but not nil means no place: Prepare or cookies carry the token. Cookies that
	// belong to the token, see HTTPFetcher.Cookies, are sent according to their domains and
	// paths in any case. A response that is no refusal can set further cookies of the
	// token. A Jar of the http.Client gets those cookies, too, unless Config.BaseURLFrom
	// has moved the request to another origin: then only the token keeps the cookies, and
	// the response goes up without them.
	Attach []Place

	// Prepare changes the request before each send, including retries and replays, as the
	// last step of this layer: to sign the request, or to put the token where no Place can.
	// Prepare may change URL and Header, which are copies, and may replace Body; Prepare
	// then sets ContentLength and GetBody, and the old body is closed. A body that Prepare
	// reads, directly or through GetBody, is sent all the same, but must not be longer than
	// MaxReplayBody if the caller's request has no GetBody. An error or a panic ends the
	// request before the send, and so does a change to another origin. Prepare must not
	// keep out. Nil means that Attach suffices.
	Prepare func(out *http.Request, tok *Token) error

	// Learn sees the header of each response to a request that carried tok, before Refused:
	// to learn a nonce for later requests, or a new CSRF value. The body is not available.
	// The Request of the response is the caller's, without the token; its URL is the sent
	// URL if Config.BaseURLFrom has moved the request. True asks for one more send, with
	// the same token and prepared anew, if the body can be had again; the send counts as a
	// replay. Learn gets no further send of the request, through retries and replays, until
	// it has returned false for a response to the request, so an attempt in vain is made
	// once.
	Learn func(resp *http.Response, tok *Token) (again bool)

	// ExcludedPaths go without a token: exact paths ("/health"), "*" for one segment
	// ("/public/*") and, at the end, "**" for one or more segments ("/docs/**"). Patterns
	// match the decoded path. An ambiguous path (%2e%2e, //, a bad escape) is not excluded.
	ExcludedPaths []string

	// Origins lists the origins that may get the token: "https://api.example.com", with a
	// port unless the scheme implies the port, "https://*.example.com" for all subdomains,
	// or AnyOrigin. Required: without Origins every request is an error. Both the URL's
	// host and, if set, Request.Host must be in Origins.
	//
	// Along redirects, the token goes only to the origin of the caller's own first request,
	// and not back after leaving that origin.
	Origins []string

	// AllowPlaintext lets the token travel over plain http to hosts that aren't loopback.
	// Anyone on the way can then read the token.
	AllowPlaintext bool

	// OnConflict says what to do if the caller has set a place of the token, or user
	// information in the URL. The zero value keeps the caller's value.
	OnConflict Conflict

	// Retry says how often, and after which waits, a refused request is replayed with
	// another token; so is a challenged request, if a step answers challenges. Nil means
	// SimpleAuthRetry(1, 0).
	Retry AuthRetryStrategy

	// Refused reports whether a response means that the token is bad. It may read up to 64
	// KiB of the body, which the layer restores. It must not keep the response. The Request
	// of the response is the caller's, without the token. Nil means status 401, except for
	// challenges where another token of the same login would be no better:
	// insufficient_scope, insufficient_user_authentication (RFC 9470) and claims, see
	// [Step.AnswersChallenges], and the DPoP challenge use_dpop_nonce (RFC 9449), see
	// Learn.
	Refused func(*http.Response) bool

	// RefusedStatus lists further statuses that mean a bad token, such as 403 for some
	// APIs, with the exceptions of Refused. Each is from 400 to 599. Nil means no further
	// status. Only without Refused.
	RefusedStatus []int

	// MaxReplayBody bounds the copy of a body without GetBody that is kept for replays, in
	// bytes a request. A larger body is sent once. Zero means 64 KiB; negative means no
	// copy.
	MaxReplayBody int64

	// Trace observes the layer's decisions about each request. Nil means no trace.
	Trace *AuthTrace

	// Set by NewTransport.
	pathPrefix string   // before ExcludedPaths
	baseURL    *url.URL // the base of relative URLs; nil: relative URLs aren't supported
	moves      *mover   // Config.BaseURLFrom; nil: URLs stay as they are

	once  sync.Once
	rules rules
	err   error // from check
}

// rules are derived from an AuthTransport's fields. Immutable.
type rules struct {
	base    next
	origins *match.Origins
	paths   *match.Paths
	attach  attachment
	looks   bool // at each response, see looked
	keep    int64
	retry   AuthRetryStrategy
	refuser refuser
	ready   readySource // the source, if a readySource

	answerer answerer // the source, if an answerer
}

var (
	errPlaintext = mistake.Final(errors.New("requestforge: the token would travel over plain http to a host that is not loopback, or through a proxy; use https, or set AllowPlaintext"))
	errNoOrigins = errors.New("Origins is empty: say where the token may go, for example \"https://api.example.com\"")
	errMoved     = mistake.Final(errors.New("requestforge: Prepare has moved the request to another origin; not sent"))
	errLeft      = errors.New("requestforge: the redirect leads to another base URL than that of the token")
	errExited    = errors.New("requestforge: a function of the program has ended its goroutine")
	errNoSource  = errors.New("Source is nil")
)

// subjectSource is a source with tokens of subjects.
type subjectSource interface {
	// missing returns why ctx lacks a subject; nil if no subject is missing.
	missing(ctx context.Context) error
}

// Explain says why req would, or would not, carry the token. RoundTrip decides by the same
// function. Nothing is fetched or sent. For a token of a subject, Explain asks the
// request's context for the subject; RoundTrip does so while getting the token.
func (t *AuthTransport) Explain(req *http.Request) Decision {
	t.once.Do(t.prepare)
	if t.err != nil {
		return Decision{Reason: ReasonConfig, Err: t.err}
	}
	reason, err := t.decide(&t.rules, req)
	d := t.rules.decision(req, reason, err)
	if whose, _ := t.Source.(subjectSource); d.Send && whose != nil {
		if err := whose.missing(req.Context()); err != nil {
			d = Decision{Reason: ReasonSubject, Err: err}
		}
	}
	return d
}

// decided tells of a decision about req. x may be nil.
func (t *AuthTransport) decided(x *exchange, r *rules, req *http.Request, reason Reason, err error) {
	noted := reason != ReasonSend && x.noted(req)
	if !noted && !t.Trace.decides() {
		return
	}
	d := r.decision(req, reason, err)
	t.Trace.decided(x.original(req), d)
	if noted {
		x.note(req, &authNote{auth: d.text()})
	}
}

// decision is the answer of Explain for req.
func (r *rules) decision(req *http.Request, reason Reason, err error) Decision {
	d := Decision{Send: reason == ReasonSend, Reason: reason, Err: err}
	if reason == ReasonConflict {
		d.Place = r.attach.conflict(req)
	}
	return d
}

// decide is the only function that decides which requests carry a token.
func (t *AuthTransport) decide(r *rules, req *http.Request) (Reason, error) {
	u := req.URL
	if leadsNowhere(u) {
		return ReasonNoURL, nil
	}
	if r.paths.Match(u) {
		return ReasonExcludedPath, nil
	}
	if t.OnConflict != ReplaceCaller {
		if place := r.attach.conflict(req); place != "" {
			return ReasonConflict, t.conflictError(place)
		}
	}
	moves := t.moves.holds(u) // only the token says where to, and whether the move is allowed
	if !moves && !r.origins.Match(u) || !r.hostMatches(req) {
		return ReasonOrigin, nil
	}
	if req.Response != nil && t.leftOrigin(req, moves) {
		return ReasonRedirect, nil
	}
	if !moves && t.inTheClear(r, req, u) {
		return ReasonPlaintext, errPlaintext
	}
	return ReasonSend, nil
}

// inTheClear reports whether a token on req would be for anyone to read on the way to u.
func (t *AuthTransport) inTheClear(r *rules, req *http.Request, u *url.URL) bool {
	return u.Scheme != "https" && !t.AllowPlaintext && (!r.origins.Loopback(u) || proxied.By(t.Base, req))
}

// conflictError returns RoundTrip's error for a request with the caller's own value at
// place, or nil if the request is sent.
func (t *AuthTransport) conflictError(place string) error {
	if t.OnConflict != RejectCaller {
		return nil
	}
	return mistake.Final(fmt.Errorf("requestforge: %s is set by its caller (OnConflict is RejectCaller)", place))
}

// leadsNowhere reports whether a request with the URL u can't be sent.
func leadsNowhere(u *url.URL) bool {
	return u == nil || u.Host == "" && u.Opaque == ""
}

// hostMatches reports whether the Host that req names beside its URL, if set, may get the
// token.
func (r *rules) hostMatches(req *http.Request) bool {
	return req.Host == "" || req.Host == req.URL.Host || r.origins.MatchHost(req.URL.Scheme, req.Host)
}

// leftOrigin reports whether any hop from the caller's own request to req went to another
// origin than the first. The target of a moving req isn't known yet. Only a faulty chain,
// such as a request tied to its own response, has maxHops hops.
func (t *AuthTransport) leftOrigin(req *http.Request, moves bool) bool {
	const maxHops = 1000
	hop := req
	for n := 0; hop.Response != nil; n++ {
		before := hop.Response.Request
		if before == nil || n == maxHops || !(moves && n == 0) && !match.Same(t.absolute(before.URL), t.absolute(hop.URL)) {
			return true
		}
		hop = before
	}
	return false
}

// absolute returns u, or for a relative URL the base URL: a layer above the Transport has
// put the caller's own request into the response.
func (t *AuthTransport) absolute(u *url.URL) *url.URL {
	if t.baseURL != nil && u != nil && u.Scheme == "" && u.Host == "" {
		return t.baseURL
	}
	return u
}

// check reports every mistake in t's fields, joined, each beginning with the
// field's name.
func (t *AuthTransport) check() error {
	_, err := t.compile()
	return err
}

func (t *AuthTransport) compile() (rules, error) {
	var errs []error
	r := rules{base: nextOf(t.Base), keep: keepBound(t.MaxReplayBody), retry: t.Retry, refuser: refuser{t.Refused, t.RefusedStatus}}
	if t.Source == nil || mistake.IsNil(t.Source) {
		errs = append(errs, errNoSource)
	} else if s, ok := t.Source.(interface{ check() error }); ok {
		mistake.Each(s.check(), func(text string) { errs = append(errs, errors.New("Source: "+text)) })
	}
	r.ready, _ = t.Source.(readySource)
	r.answerer, _ = t.Source.(answerer)
	attach, mistakes := newAttachment(t.Source, t.Attach, t.Prepare, t.OnConflict == ReplaceCaller)
	errs = append(errs, mistakes...)
	r.attach = attach
	r.looks = t.Learn != nil || t.moves != nil || attach.addsQuery()
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
	errs = append(errs, r.refuser.check()...)
	if t.OnConflict < KeepCaller || t.OnConflict > RejectCaller {
		errs = append(errs, fmt.Errorf("OnConflict is %d; use KeepCaller, ReplaceCaller or RejectCaller", t.OnConflict))
	}
	if r.retry == nil {
		r.retry = SimpleAuthRetry(1, 0)
	}
	return r, errors.Join(errs...)
}

// prepare compiles the rules, on first use.
func (t *AuthTransport) prepare() {
	var err error
	if t.rules, err = t.compile(); err != nil {
		t.err = mistake.Final(fmt.Errorf("requestforge: AuthTransport: %w", err))
	}
}

// RoundTrip sends req with a token if Explain says so, else unchanged. Without a token,
// RoundTrip returns the source's error and sends nothing. If the response means that the
// token is bad, not just too young, RoundTrip tells the source and replays the request with
// another token, as often as Retry says. Without another token, or if the body can't be
// sent again, RoundTrip returns the refusal with its body readable. If the response asks
// for more than the token could show, and a step answers (see [Step.AnswersChallenges]),
// RoundTrip replays the request with the step's new token; else it returns the response. If
// the caller gives up during a wait, the error is the cause.
func (t *AuthTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(nil, req)
}

func (t *AuthTransport) roundTrip(x *exchange, req *http.Request) (*http.Response, error) {
	t.once.Do(t.prepare)
	if t.err != nil {
		roundtrip.CloseBody(req)
		return nil, t.err
	}
	r := &t.rules
	reason, err := t.decide(r, req)
	if reason != ReasonSend || t.Trace != nil {
		t.decided(x, r, req, reason, err)
	}
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
	if x.auth == nil {
		x.auth = t
	}
	out, tok, err := t.withToken(x, r, req)
	if tok == nil {
		return t.withoutToken(x, r, out, req, err)
	}
	x.noteSent(req)
	known := tok.taken()
	resp, err := t.send(x, r, out, req, tok)
	if err == nil && resp != nil {
		if r.refuser.usual(tok, resp) {
			keepCookies(x, tok, resp)
		} else {
			resp.Request = x.caller
			resp, err = t.answered(x, r, req, sending{tok, known, own}, resp)
		}
	}
	if err != nil || resp == nil {
		return nil, err // for neither, http.Client has words
	}
	t.hideCookies(x, resp)
	resp.Request = x.seen(req, nil)
	return resp, nil
}

// withToken returns the first copy of req for sending, and its token, or nil if the copy
// must go without a token. After an error the body is closed.
func (t *AuthTransport) withToken(x *exchange, r *rules, req *http.Request) (out *http.Request, tok *Token, err error) {
	// The body is begun before a token is at hand: without a token, a layer above may still
	// send the request later.
	out = x.request(req)
	x.begin(out, req, max(r.keep, x.keep()))
	if r.ready != nil {
		tok = r.ready.ready(req.Context())
	}
	if tok == nil {
		if tok, err = t.fetch(req, out); err != nil {
			return nil, nil, err
		}
	}
	if value, ok := r.attach.single(tok); ok && t.moves == nil { // the usual case, for speed
		out.Header = r.attach.header.put(req.Header, x.values(value), r.attach.replace)
		return out, tok, nil
	}
	switch err := t.dress(x, r, out, req, tok, x.values); err {
	case nil:
		return out, tok, nil
	case errLeft:
		return out, nil, nil
	default:
		return nil, nil, err
	}
}

// withoutToken sends out, a copy of req without a token, unless err is set.
func (t *AuthTransport) withoutToken(x *exchange, r *rules, out, req *http.Request, err error) (*http.Response, error) {
	if err != nil {
		x.note(req, noteNoToken)
		return nil, err
	}
	x.note(req, noteLeft)
	if x.auth == layer(t) {
		x.auth = nil
	}
	resp, err := r.base.forward(x, out)
	if resp != nil {
		resp.Request = x.seen(req, nil)
	}
	return resp, err
}

// dress puts tok onto out, a copy of req, and moves out to the token's base. After an error
// out's body is closed, except for errLeft, which leaves out unchanged.
func (t *AuthTransport) dress(x *exchange, r *rules, out, req *http.Request, tok *Token, values func(string) []string) error {
	if t.moves != nil {
		if err := t.move(x, r, out, req, tok); err != nil {
			return err
		}
	}
	to := out.URL
	if err := r.attach.put(out, req, tok, values); err != nil {
		return err
	}
	if t.Prepare == nil || out.URL != nil && match.Same(out.URL, to) && r.origins.Match(out.URL) && r.hostMatches(out) {
		return nil
	}
	roundtrip.CloseBody(out)
	return errMoved
}

// move sets the URL of out to the place where tok is valid, if req is a moving request. The
// rules that depend on the token are checked here.
func (t *AuthTransport) move(x *exchange, r *rules, out, req *http.Request, tok *Token) error {
	x.unmoved(t)
	if !t.moves.holds(req.URL) {
		return nil
	}
	m := x.move(t)
	err := errExited
	defer func() {
		if err == errExited { // runtime.Goexit
			roundtrip.CloseBody(out)
		}
	}()
	err = t.moves.move(req.URL, tok, &m.url)
	if err == nil && req.Response != nil && !match.Same(t.absolute(req.Response.Request.URL), &m.url) {
		x.unmoved(t)
		return errLeft
	}
	if err == nil {
		out.URL = &m.url
		if namesItsHost(req) {
			out.Host = ""
		}
		err = t.mayCarry(r, out)
	}
	if err != nil {
		x.unmoved(t)
		roundtrip.CloseBody(out)
	}
	return err
}

// mayCarry returns why out, which was moved, may carry no token.
func (t *AuthTransport) mayCarry(r *rules, out *http.Request) error {
	switch {
	case !r.origins.Match(out.URL):
		return baseError(fmt.Errorf("the origin %q is not among Origins", redact.URL(&url.URL{Scheme: out.URL.Scheme, Host: out.URL.Host})))
	case t.inTheClear(r, out, out.URL):
		return baseError(errPlaintext)
	}
	return nil
}

// namesItsHost reports whether the Host of req is the host of its URL.
func namesItsHost(req *http.Request) bool {
	return req.Host == req.URL.Host || match.Same(&url.URL{Scheme: req.URL.Scheme, Host: req.Host}, req.URL)
}

// Unwrap returns the transport below.
func (t *AuthTransport) Unwrap() http.RoundTripper { return below(t.Base) }

// WrappedRoundTripper is Unwrap under the name for k8s.io/client-go.
func (t *AuthTransport) WrappedRoundTripper() http.RoundTripper { return t.Unwrap() }

func (t *AuthTransport) lower() http.RoundTripper { return t.Base }

// CloseIdleConnections passes the call on to the transport below.
func (t *AuthTransport) CloseIdleConnections() { closeIdle(t.Base) }
