// A client for a login that a FetcherFunc makes of several requests: cookies are
// kept, and no request leaves the origins. The layers of a transport are
// transport.go's.

package requestforge

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"slices"

	"golang.org/x/net/publicsuffix"

	"github.com/requestforge/requestforge/internal/deadconn"
	"github.com/requestforge/requestforge/internal/match"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/proxied"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// LoginClient returns a client for the requests of a login, for a [FetcherFunc] that makes
// several requests:
//
//	Fetcher: requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
//		client := requestforge.LoginClient("https://login.example.com")
//		// get the login page, post its form, read the token; errors by NewAuthError
//	})
//
// Each client has a new cookie jar, so the next request continues the session that the first
// request began. Make a client for each fetch, so that the cookies of two logins never meet.
// The client sends through http.DefaultTransport, looked up at each request, and shares its
// connections.
//
// A request to any origin but the given origins fails before the client sends anything, and
// so does a request over plain http to another machine or to a proxy. A redirect to another
// origin is an error that doesn't quote Location, and so is the tenth redirect in a row.
// Within the origins, the rules of net/http decide which parts of a request follow a
// redirect: with status 307 or 308 the body, and all headers except credentials for another
// host.
//
// To read a code from Location, set CheckRedirect to a function that returns
// http.ErrUseLastResponse: a client with a CheckRedirect hands every redirect to the
// function, which then also limits the number of redirects.
//
// Origins are written as in [AuthTransport].Origins, without AnyOrigin. At least one origin
// is required. A mistake in an origin is the error of every request.
//
// The client has no Timeout; the context of the fetch ends its requests. Several goroutines
// may use the client at once. Set fields before the first request, and don't replace
// Transport, which enforces the origins.
func LoginClient(origins ...string) *http.Client {
	jar, _ := cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List}) // never fails
	client := &http.Client{Jar: jar}
	t := &loginTransport{client: client}
	t.origins, t.err = loginOrigins(origins)
	client.Transport = t
	return client
}

// loginOrigins compiles origins. Its error names every mistake.
func loginOrigins(specs []string) (*match.Origins, error) {
	var errs []error
	if len(specs) == 0 {
		errs = append(errs, errors.New("no origin is named, so that no request may be sent"))
	}
	if slices.Contains(specs, AnyOrigin) {
		errs = append(errs, fmt.Errorf("%q would let a redirect take the login anywhere; name the origins", AnyOrigin))
	}
	origins, err := match.ParseOrigins(specs)
	if err != nil {
		errs = append(errs, fmt.Errorf("origin %w", err))
	}
	if errs != nil {
		return nil, mistake.Final(fmt.Errorf("requestforge: LoginClient: %w", errors.Join(errs...)))
	}
	return origins, nil
}

// loginTransport sends requests to the given origins only.
type loginTransport struct {
	origins *match.Origins
	err     error        // in the origins
	client  *http.Client // the client with this transport
}

// RoundTrip implements http.RoundTripper.
func (t *loginTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.check(req); err != nil {
		roundtrip.CloseBody(req)
		return nil, err
	}
	resp, err := deadconn.RoundTrip(http.DefaultTransport, req)
	if err != nil {
		if first := firstOf(req); first != req {
			if req.URL.Host != first.URL.Host {
				err = redact.Without(err, req.URL.Hostname())
			}
			err = fmt.Errorf("%w: %w", errAfterRedirect, err)
		}
		return nil, err
	}
	if resp == nil {
		return nil, nil // http.Client returns an error about the transport
	}
	if t.client.CheckRedirect == nil {
		if err := t.checkRedirect(req, resp); err != nil {
			roundtrip.Discard(resp)
			return nil, err
		}
	}
	return resp, nil
}

// check reports why req may not be sent. The error names the URL of a first
// request only: a redirect's URL is the server's words.
func (t *loginTransport) check(req *http.Request) error {
	fault := ""
	switch {
	case t.err != nil:
		return t.err
	case req.URL == nil:
		return mistake.Final(errors.New("requestforge: LoginClient: the request has no URL"))
	case !t.origins.Match(req.URL), req.Host != "" && !t.origins.MatchHost(req.URL.Scheme, req.Host):
		fault = "not sent: the origin is none of those that the client was made for"
	case req.URL.Scheme != "https" && !match.Loopback(req.URL):
		fault = "not sent over plain http to another machine, where every secret can be read on the way"
	case req.URL.Scheme != "https" && proxied.By(nil, req):
		fault = "not sent over plain http to a proxy, which can read every secret"
	default:
		return nil
	}
	if req.Response == nil {
		return mistake.Final(fmt.Errorf("requestforge: LoginClient: %s://%s: %s", req.URL.Scheme, req.URL.Host, fault))
	}
	return mistake.Final(fmt.Errorf("requestforge: LoginClient: %w: %s", errAfterRedirect, fault))
}

// checkRedirect reports why http.Client may not follow resp. An error from
// http.Client itself, or from CheckRedirect, would quote Location.
func (t *loginTransport) checkRedirect(req *http.Request, resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil
	}
	location := resp.Header.Get("Location")
	if location == "" {
		return nil // an ordinary response
	}
	var fault error
	switch to, err := req.URL.Parse(location); {
	case err != nil:
		fault = errors.New("redirect to a Location that doesn't parse")
	case !t.origins.Match(to):
		fault = errRedirectAway
	case to.Scheme != "https" && !match.Loopback(to):
		fault = errors.New("redirect to plain http on another machine not followed")
	case sent(req) >= maxRedirects:
		fault = errRedirects
	default:
		return nil
	}
	fault = fmt.Errorf("%w: %w", statusError(resp.StatusCode), fault)
	if req.Response != nil {
		fault = fmt.Errorf("%w: %w", errAfterRedirect, fault)
	}
	return mistake.Final(fmt.Errorf("requestforge: LoginClient: %w", fault))
}

// firstOf returns the request whose redirects led to req.
func firstOf(req *http.Request) *http.Request {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return req
}

// sent returns the number of requests up to req, including redirects.
func sent(req *http.Request) (n int) {
	for n = 1; req.Response != nil && req.Response.Request != nil; n++ {
		req = req.Response.Request
	}
	return n
}

// CloseIdleConnections closes the idle connections of http.DefaultTransport,
// which the client shares with the program.
func (t *loginTransport) CloseIdleConnections() { roundtrip.CloseIdle(http.DefaultTransport) }

// Unwrap returns http.DefaultTransport.
func (t *loginTransport) Unwrap() http.RoundTripper { return http.DefaultTransport }
