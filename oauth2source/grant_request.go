// One request of a grant. golang.org/x/oauth2 makes it and reads the answer;
// here is what it needs to be told, and what it would lose.

package oauth2source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/requestforge/requestforge"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	maxResponse  = 1 << 20
	maxRedirects = 10
)

// post sends form to the token endpoint. It is clientcredentials that does for
// every grant: it alone of x/oauth2 takes any parameter, the grant type
// included.
func (g *Grant) post(ctx context.Context, in requestforge.Input, form url.Values) (*requestforge.Token, error) {
	if err := g.complete(ctx, in, form); err != nil {
		return nil, unsent(err)
	}
	conf := clientcredentials.Config{
		ClientID:       g.cfg.ClientID,
		ClientSecret:   g.cfg.ClientSecret,
		TokenURL:       g.cfg.TokenURL,
		EndpointParams: form,
		AuthStyle:      g.cfg.style(),
	}
	w := g.cfg.wire(ctx, g.cfg.TokenURL)
	tok, err := fetch(conf.TokenSource(w.context()), append(slices.Clone(g.cfg.Extra), "scope", "id_token", "issued_token_type"))
	if err != nil {
		return nil, w.fail(err)
	}
	return tok, nil
}

// complete adds to form what every request has.
func (g *Grant) complete(ctx context.Context, in requestforge.Input, form url.Values) error {
	for name, values := range g.cfg.Params {
		form[name] = append(form[name], values...)
	}
	if a := g.cfg.ClientAssertion; a != nil {
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		return set(ctx, in, form, "client_assertion", a)
	}
	return nil
}

// style never is AuthStyleAutoDetect, which after a refusal sends the same
// secret a second time. A client without a secret puts its id into the form
// (RFC 6749 §3.2.1).
func (c *Config) style() oauth2.AuthStyle {
	if c.ClientSecret == "" || c.InParams {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
}

// wire is the transport of one request, and remembers how that went.
type wire struct {
	ctx    context.Context
	url    string // of the request
	base   http.RoundTripper
	client http.Client
	header http.Header // added to the request
	status int         // of the last answer; 0: none
	body   []byte      // of the last answer, as far as it was read
}

// wire returns the transport of a request to url.
func (c *Config) wire(ctx context.Context, url string) *wire {
	client := c.Client
	if client == nil {
		client, _ = ctx.Value(oauth2.HTTPClient).(*http.Client)
	}
	if client == nil {
		client = http.DefaultClient
	}
	w := &wire{ctx: ctx, url: url, base: client.Transport, client: *client, header: make(http.Header)}
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
			// Which one are the server's words, and so not said.
			return errors.New("redirect to another origin not followed, since the credentials would go there too")
		case len(via) >= maxRedirects:
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		}
		return nil
	}
	return w
}

// context is what makes x/oauth2 send through w.
func (w *wire) context() context.Context {
	return context.WithValue(w.ctx, oauth2.HTTPClient, &w.client)
}

// RoundTrip reads the whole answer, so that one which breaks off is an error
// of the network. x/oauth2 makes text of that, and of a page where JSON should
// be; and its device authorization request has no context, its body no Close.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	defer context.AfterFunc(req.Context(), func() { cancel(context.Cause(req.Context())) })()
	out := req.Clone(ctx)
	maps.Copy(out.Header, w.header)
	base := w.base
	if base == nil {
		base = http.DefaultTransport
	}
	w.status, w.body = 0, nil
	resp, err := base.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	w.status = resp.StatusCode
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	w.body = body
	switch {
	case err != nil:
		return nil, fmt.Errorf("the response broke off: %w", err)
	case len(body) > maxResponse:
		return nil, errors.New("the response is larger than 1 MiB")
	case resp.StatusCode/100 == 2 && isHTML(resp.Header, body):
		return nil, pageError{}
	}
	whole := *resp
	whole.Body = io.NopCloser(bytes.NewReader(body))
	return &whole, nil
}

// fail is err, from x/oauth2 by way of translate, as an AuthError about the
// request: a *url.Error may name the target of a redirect instead.
func (w *wire) fail(err error) *requestforge.AuthError {
	if refusal, ok := err.(*requestforge.AuthError); ok {
		refusal.Err = errors.New("POST " + maskedURL(w.url))
		return refusal
	}
	at, _ := url.Parse(w.url) // Validate has seen that it parses
	resp := &http.Response{StatusCode: w.status, Request: &http.Request{Method: http.MethodPost, URL: at}}
	return requestforge.NewAuthError(resp, w.body, err)
}

// pageError is an HTML page where JSON should be: a proxy's, a captive
// portal's. It passes, and so is a net.Error, which is tried again.
type pageError struct{}

func (pageError) Error() string   { return "the response is an HTML page" }
func (pageError) Timeout() bool   { return false }
func (pageError) Temporary() bool { return true }

// isHTML reports whether body is a page, whatever it calls itself: no JSON
// begins with '<'.
func isHTML(header http.Header, body []byte) bool {
	t, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(t)) {
	case "text/html", "application/xhtml+xml":
		return true
	}
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	return bytes.HasPrefix(bytes.TrimSpace(body), []byte("<"))
}
