// The exchange of an HTTPFetcher: the request goes out, over redirects within bounds,
// and a token or an AuthError comes back.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/requestforge/requestforge/internal/deadconn"
	"github.com/requestforge/requestforge/internal/loginjar"
	"github.com/requestforge/requestforge/internal/match"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

const maxRedirects = 10

var (
	errRedirectAway = errors.New("redirect to another origin not followed, since the credentials would go there too")
	errRedirectOpen = errors.New("redirect not followed, since it leads over plain http to another machine or to a proxy")
	errRedirects    = fmt.Errorf("stopped after %d redirects", maxRedirects)
)

// Fetch gets a token with a single request. An error is always an [*AuthError].
func (f *HTTPFetcher) Fetch(ctx context.Context, in Input) (*Token, error) {
	if err := f.Validate(); err != nil {
		return nil, &AuthError{Unsent: true, Err: err}
	}
	ans, err := f.send(ctx, in)
	if err != nil {
		return nil, err
	}
	defer roundtrip.Discard(ans.resp)
	ans.read()
	if err := f.refused(ans); err != nil {
		err.own = len(in.Parents) > 0 && !f.carries(in)
		return nil, err
	}
	return f.token(ans, in)
}

// carries reports whether the request carries a parent's credential, which an auth server
// could refuse. A URL that URLFrom made from an earlier answer is a target and no credential:
// then a 401 refuses the step's own credentials, which are sent once.
func (f *HTTPFetcher) carries(in Input) bool {
	if len(f.HeaderFrom) > 0 || f.BodyFrom != nil || f.Prepare != nil {
		return true
	}
	for _, tok := range in.Parents {
		if tok.cookies() != nil {
			return true
		}
	}
	return false
}

// send sends the request. The caller closes the answer.
func (f *HTTPFetcher) send(ctx context.Context, in Input) (*answer, error) {
	client, err := f.client(ctx)
	if err != nil {
		return nil, &AuthError{Unsent: true, Temporary: true, Err: fmt.Errorf("%s: %w", f.asked(), err)}
	}
	req, err := f.request(ctx, in, client)
	if err != nil {
		return nil, &AuthError{Unsent: true, Err: fmt.Errorf("%s: %w", f.asked(), err)}
	}
	at := f.shownURL(req.URL)
	var led course
	req.Close = req.Close || deadconn.Left(ctx)
	answered := deadconn.Begin(ctx)
	led.jar, led.credentials = f.jar(in), credentials(req.Header)
	resp, err := f.httpClient(ctx, &led).Do(req)
	answered()
	if err != nil {
		// The URL in err may be the target of a redirect: the server's words.
		err = redact.CauseAt(err, func(string) string { return at })
		if led.last != nil && led.last.URL.Hostname() != req.URL.Hostname() {
			err = redact.Without(err, led.last.URL.Hostname()) // the name in errors of net and crypto/tls
		}
		if resp == nil && led.last != nil { // a resp with an error belongs to a redirect not followed, and its body is closed
			err = fmt.Errorf("%w: %w", errAfterRedirect, err)
		}
		return nil, classify(resp, nil, time.Now(), err)
	}
	what := req.Method + " " + at
	if led.last != nil {
		what += afterRedirect(req, led.last)
	}
	return &answer{resp: resp, at: time.Now(), what: what, stay: led.stay, jar: led.jar}, nil
}

// jar returns a jar for the request and its answer, with the cookies of the tokens that the
// fetch uses; nil if the cookies aren't needed.
func (f *HTTPFetcher) jar(in Input) *loginjar.Jar {
	if !f.Cookies && !in.cookies || f.hasJar() {
		return nil
	}
	return loginjar.New(in.jars()...)
}

// hasJar reports whether the cookies are kept in a Jar of the program's own.
func (f *HTTPFetcher) hasJar() bool { return f != nil && f.Client != nil && f.Client.Jar != nil }

// taking is a transport that gives the cookies of each answer to a jar. http.Client would do
// so, too, but doesn't pass the server's clock to its Jar.
type taking struct {
	http.RoundTripper
	jar *loginjar.Jar
}

func (t taking) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(req)
	if err == nil && resp != nil {
		t.jar.Take(req.URL, resp)
	}
	return resp, err
}

// sendOnly is a jar that ignores SetCookies, since taking passes the answers to the jar.
type sendOnly struct{ *loginjar.Jar }

func (sendOnly) SetCookies(*url.URL, []*http.Cookie) {}

// course is the state of a request's cookies and redirects in a client.
type course struct {
	jar         *loginjar.Jar // nil: as in Client
	credentials http.Header   // of the first request
	last        *http.Request // the last request after a redirect; nil: no redirect
	stay        error         // the reason why the last redirect wasn't followed, though its answer is read
}

// credentials returns the headers of h that http.Client sends to the first host only.
func credentials(h http.Header) http.Header {
	kept := http.Header{}
	for name, values := range h {
		switch http.CanonicalHeaderKey(name) {
		case "Authorization", "Proxy-Authorization", "Cookie":
			kept[name] = slices.Clone(values)
		}
	}
	return kept
}

// bring copies the credentials of the first request to a request that a redirect leads to
// another host, whose origin the program allows: without the credentials an auth server would
// refuse the request.
func (c *course) bring(req *http.Request, via []*http.Request) {
	elsewhere := func(r *http.Request) bool { return r.URL.Host != via[0].URL.Host }
	if !elsewhere(req) && !slices.ContainsFunc(via, elsewhere) {
		return // http.Client keeps the credentials, except a cookie that an answer has replaced
	}
	for name, values := range c.credentials {
		if _, ok := req.Header[name]; !ok {
			req.Header[name] = slices.Clone(values)
		}
	}
}

// httpClient returns a client that follows redirects only within the origins of URL and
// Origins, since the credentials would go along, and only if the body is kept, since an auth
// server would take a request without the body for another request. Any other redirect is an
// error, or an answer if the token may be in its header. The client has f.Client's values;
// f.Client itself belongs to the user and isn't modified.
func (f *HTTPFetcher) httpClient(ctx context.Context, led *course) *http.Client {
	var client http.Client
	if f.Client != nil {
		client = *f.Client
	}
	client.Transport = deadconn.Transport(ctx, client.Transport)
	if led.jar != nil {
		client.Jar = sendOnly{led.jar}
		client.Transport = taking{client.Transport, led.jar}
	}
	ask := client.CheckRedirect
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		err := f.checkRedirect(req, via)
		if err == nil {
			led.bring(req, via)
		}
		if ask != nil {
			if err := ask(req, via); err != nil {
				return err
			}
		}
		if err != nil {
			if f.TokenHeader == "" && f.TokenCookie == "" && f.Read == nil && f.Classify == nil {
				return err
			}
			led.stay = err
			return http.ErrUseLastResponse
		}
		led.last = req
		return nil
	}
	return &client
}

// checkRedirect returns the reason why a redirect isn't followed. The target is text from the
// server, so the error doesn't quote the target.
func (f *HTTPFetcher) checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case !match.Same(req.URL, via[0].URL) && !f.among(req.URL):
		return errRedirectAway
	case f.checkSend(req) != nil:
		return errRedirectOpen
	case hasBody(via[0]) && !hasBody(req):
		return fmt.Errorf("redirect not followed, since it turns the %s into a %s without its body: URL must be where the server takes the %s", via[0].Method, req.Method, via[0].Method)
	case len(via) >= maxRedirects:
		return errRedirects
	}
	return nil
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }
