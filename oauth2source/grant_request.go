// A request of a grant. golang.org/x/oauth2 makes the request and reads the answer; this
// file configures x/oauth2, and keeps the facts of the answer that x/oauth2 would lose.

package oauth2source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	josejson "github.com/go-jose/go-jose/v4/json"
	"github.com/requestforge/requestforge"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	maxResponse  = 1 << 20
	maxRedirects = 10
)

// post sends form to the token endpoint. post uses clientcredentials for every grant, since
// only clientcredentials of x/oauth2 lets the caller set any parameter, the grant type
// included.
func (g *Grant) post(ctx context.Context, in requestforge.Input, form url.Values) (*requestforge.Token, error) {
	if err := g.complete(ctx, in, form); err != nil {
		return nil, unsent(err)
	}
	client, err := g.client(ctx)
	if err != nil {
		return nil, unsent(err)
	}
	conf := clientcredentials.Config{
		ClientID:       client.ID,
		ClientSecret:   client.Secret,
		TokenURL:       g.cfg.TokenURL,
		EndpointParams: form,
		AuthStyle:      style(client),
	}
	w := g.wire(ctx, g.cfg.TokenURL)
	tok, err := fetch(conf.TokenSource(w.context()), append(slices.Clone(g.cfg.Extra), "scope", "id_token", "issued_token_type"))
	if err != nil {
		return nil, w.fail(err)
	}
	return tok, nil
}

// complete adds to form the parameters of every request.
func (g *Grant) complete(ctx context.Context, in requestforge.Input, form url.Values) error {
	for name, values := range g.cfg.Params {
		form[name] = append(form[name], values...)
	}
	addChallenge(form, in.Challenge)
	if a := g.cfg.ClientAssertion; a != nil {
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		return g.set(ctx, in, form, "client_assertion", a)
	}
	return nil
}

// style never returns AuthStyleAutoDetect, which after a refusal sends the same secret a
// second time. A client without a secret puts its id into the form (RFC 6749 §3.2.1).
func style(client requestforge.ClientAuth) oauth2.AuthStyle {
	if client.Secret == "" || client.InBody {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
}

// authenticate puts the client's id and secret into the place that style chooses, for
// requests that x/oauth2 doesn't make, or makes without a secret.
func authenticate(client requestforge.ClientAuth, header http.Header, form url.Values) {
	switch {
	case client.ID == "": // an assertion names the client, or the client stays unnamed
	case style(client) == oauth2.AuthStyleInHeader:
		auth := http.Request{Header: header}
		auth.SetBasicAuth(url.QueryEscape(client.ID), url.QueryEscape(client.Secret))
	default:
		form.Set("client_id", client.ID)
		if client.Secret != "" {
			form.Set("client_secret", client.Secret)
		}
	}
}

// wire is the transport of a single request, and remembers the last answer.
type wire struct {
	ctx    context.Context
	url    string // of the request
	base   http.RoundTripper
	plain  bool         // Config.AllowPlaintext
	dead   *atomic.Bool // Grant.dead
	client http.Client

	statusOnly bool // the status is the whole answer, unless the body is a page

	header http.Header // added to the request

	// Of the last send:
	sent   *http.Request
	status int         // 0: there was no answer
	answer http.Header // of the answer
	body   []byte      // of the answer, as far as it was read
}

// wire returns the transport of a request to url.
func (g *Grant) wire(ctx context.Context, url string) *wire {
	client := g.cfg.Client
	if client == nil {
		client, _ = ctx.Value(oauth2.HTTPClient).(*http.Client)
	}
	if client == nil {
		client = http.DefaultClient
	}
	w := &wire{ctx: ctx, url: url, base: client.Transport, plain: g.cfg.AllowPlaintext, dead: g.dead, client: *client, header: make(http.Header)}
	w.header.Set("Accept", "application/json")
	w.client.Transport = w
	w.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if ask := client.CheckRedirect; ask != nil {
			if err := ask(req, via); err != nil {
				return err
			}
		}
		switch {
		case !sameOrigin(req.URL, via[0].URL):
			// The server chose the target, so the error doesn't quote the target.
			return errors.New("redirect to another origin not followed, since the credentials would go there too")
		case req.Body == nil: // a grant's request always has a body
			return fmt.Errorf("redirect not followed, since it turns the %s into a %s without its body: the URL must be where the server takes the %s", via[0].Method, req.Method, via[0].Method)
		case len(via) >= maxRedirects:
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		}
		return nil
	}
	return w
}

// context returns a context that makes x/oauth2 send through w.
func (w *wire) context() context.Context {
	return context.WithValue(w.ctx, oauth2.HTTPClient, &w.client)
}

// RoundTrip reads the whole answer, so that a broken answer, or a page in place of JSON, is
// an error of the transport: x/oauth2 would only make text of either. The device
// authorization request of x/oauth2 has no context and never closes the body; RoundTrip
// adds both.
func (w *wire) RoundTrip(req *http.Request) (_ *http.Response, err error) {
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	defer context.AfterFunc(req.Context(), func() { cancel(context.Cause(req.Context())) })()
	out := req.Clone(ctx)
	maps.Copy(out.Header, w.header)
	base := w.base
	if base == nil {
		base = http.DefaultTransport
	}
	w.sent, w.status, w.answer, w.body = out, 0, nil, nil
	if out.URL.Scheme == "http" && !w.plain && (!loopback(out.URL) || proxied(base, out)) {
		// A redirect within the origin may spell the host in another way.
		return nil, errInTheClear
	}
	if w.dead.Swap(false) {
		base, out.Close = fresh(base), true
	}
	defer func() {
		if err != nil && ctx.Err() != nil {
			w.dead.Store(true)
		}
	}()
	resp, err := base.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if resp == nil {
		return nil, errors.New("the transport returned neither a response nor an error")
	}
	if resp.Body == nil { // a mock's
		resp.Body = http.NoBody
	}
	defer resp.Body.Close()
	w.status, w.answer = resp.StatusCode, resp.Header
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	w.body = body
	if err := w.check(resp, err); err != nil {
		return nil, err
	}
	whole := *resp
	whole.Body = io.NopCloser(bytes.NewReader(body))
	return &whole, nil
}

// check returns an error for an answer that can't be used, whatever the status. broken is
// the error with which the body ended.
func (w *wire) check(resp *http.Response, broken error) error {
	ok := resp.StatusCode/100 == 2
	switch {
	case ok && w.statusOnly && isHTML(resp.Header, w.body):
		return errPage
	case w.statusOnly:
		return nil
	case broken != nil:
		return fmt.Errorf("the response broke off: %w", broken)
	case len(w.body) > maxResponse:
		return errors.New("the response is larger than 1 MiB")
	case ok && isHTML(resp.Header, w.body):
		return errPage
	case ok && namesTwice(w.body):
		return errors.New("an object in the response has the same name twice")
	}
	return nil
}

// fresh returns base without the existing connections. A request without an answer may have
// used a connection that is dead but not closed, and Request.Close alone doesn't leave a
// connection of HTTP/2. fresh returns a layer that isn't an *http.Transport unchanged; the
// context of a pipeline makes net/http close idle connections below such a layer, too.
func fresh(base http.RoundTripper) http.RoundTripper {
	if t, ok := base.(*http.Transport); ok && t != nil {
		t = t.Clone()
		t.DisableKeepAlives = true
		return t
	}
	return base
}

// fail is err, from x/oauth2 by way of translate, as an AuthError about the
// request: a *url.Error may name the target of a redirect instead.
func (w *wire) fail(err error) *requestforge.AuthError {
	if refusal, ok := err.(*requestforge.AuthError); ok {
		refusal.Err = errors.New("POST " + maskedURL(w.url))
		return refusal
	}
	at, _ := url.Parse(w.url) // Validate has parsed the URL before
	req := &http.Request{Method: http.MethodPost, URL: at}
	if w.sent != nil {
		// For AuthError.Answer, which masks what was sent.
		req = w.sent.WithContext(w.ctx)
		req.Method, req.URL, req.Response = http.MethodPost, at, nil
	}
	return requestforge.NewAuthError(&http.Response{StatusCode: w.status, Header: w.answer, Request: req}, w.body, err)
}

// errInTheClear is the error for a request that could be read on the way, because of a
// redirect or a proxy of the environment.
var errInTheClear = errors.New("not sent over plain http to another machine or to a proxy: use https or set AllowPlaintext")

// errPage is the error for an HTML page in place of JSON, from a portal, or from a login
// form that refuses a password with a page. errPage doesn't count as a network error, since
// the password must not be sent again.
var errPage = errors.New("the response is an HTML page")

// namesTwice reports whether body is JSON with a repeated name in an object, which RFC 6749
// §3.2 forbids. x/oauth2 takes the last member, a proxy perhaps the first. At the top
// level, names that differ only by case count as repeated, since x/oauth2 ignores case
// there.
func namesTwice(body []byte) bool {
	if !json.Valid(body) {
		return false
	}
	dec := josejson.NewDecoder(bytes.NewReader(body))
	dec.SetNumberType(josejson.UnmarshalJSONNumber) // a number too large for a float64 doesn't matter here
	var all any
	if dec.Decode(&all) != nil { // the decoder refuses valid JSON only for a repeated name
		return true
	}
	top, _ := all.(map[string]any)
	folded := make(map[string]bool, len(top))
	for name := range top {
		folded[strings.ToLower(name)] = true
	}
	return len(folded) < len(top)
}

// isHTML reports whether an answer is an HTML page: if the body begins like a page,
// whatever the Content-Type, or if the Content-Type is HTML and the body begins with any
// tag. JSON, plain text, an empty body and XML are no pages, whatever the Content-Type.
func isHTML(header http.Header, body []byte) bool {
	t, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(t)) {
	case "text/html", "application/xhtml+xml":
		if bytes.HasPrefix(bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))), []byte("<")) {
			return true
		}
	}
	return page.Match(body)
}

// page matches the beginning of an HTML page, after a byte order mark, white space,
// comments and XML's <?…?>.
var page = regexp.MustCompile(`^(?:\x{FEFF})?(?:\s|(?s:<!--.*?-->|<\?.*?\?>))*(?i:<!doctype html|<html|<head|<body)(?:[\s/>]|$)`)
