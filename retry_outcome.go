// The meaning of a send's outcome: whether another send can help, whether the server has
// done anything, and when the server wants to be asked again.

package requestforge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/requestforge/requestforge/internal/retryafter"
)

// DefaultCheckRetry is the CheckRetry of a policy without one:
// retryablehttp.ErrorPropagatedRetryPolicy, which finds 429, most 5xx and most
// errors worth another send, with three differences. 408, 421 and 425 are worth
// another send, and 505, 506, 510 and 511 are not, since they would come again.
// The errors may be an http.RoundTripper's own, not wrapped in a *url.Error. Errors of
// a request that can't be sent at all, such as a request without a URL, are known.
func DefaultCheckRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if err == nil {
		switch resp.StatusCode {
		case http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusTooEarly:
			return ctx.Err() == nil, ctx.Err()
		case http.StatusHTTPVersionNotSupported, http.StatusVariantAlsoNegotiates, http.StatusNotExtended, http.StatusNetworkAuthenticationRequired:
			return false, nil
		}
		return retryablehttp.ErrorPropagatedRetryPolicy(ctx, resp, nil)
	}
	if hopeless(err) {
		return false, err
	}
	// The policy looks for errors without hope only in what http.Client
	// returns. Only the question is wrapped.
	ask, ok := err.(*url.Error)
	if !ok {
		ask = &url.Error{Op: "RoundTrip", Err: err}
	}
	retry, why := retryablehttp.ErrorPropagatedRetryPolicy(ctx, nil, ask)
	if why == ask {
		why = err
	}
	return retry, why
}

// hopeless reports whether err says that another send can only end the same way: the
// server can't prove its name or speaks no common TLS, or the request can't be sent.
func hopeless(err error) bool {
	return certificateError(err) || tlsError(err) || malformed(err)
}

// tlsError reports whether err comes from a server that speaks no TLS, or has ended the
// handshake with an alert.
func tlsError(err error) bool {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	// net/http replaces a RecordHeaderError by ErrSchemeMismatch.
	if errors.Is(err, http.ErrSchemeMismatch) {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && (op.Op == "remote error" || op.Op == "local error") // crypto/tls' names for alerts
}

// malformed reports whether err is http.Transport's error for a request that the
// transport can't send. Such errors have no type.
func malformed(err error) bool {
	text := err.Error()
	for _, s := range [...]string{
		"http: nil Request.URL",
		"http: nil Request.Header",
		"http: no Host in request URL",
		"http: Request.Write on Request with no Host or URL set",
		"http: invalid Host header",
		"http: Request.ContentLength=", // with nil Body
		"http: ContentLength=",         // with a Body of another length
		"http: request body larger than specified content length",
		"http2: request body larger than specified content length",
		"net/http: invalid method",
		"net/http: invalid header",
		"net/http: invalid trailer",
		"net/http: can't write control character in Request.URL",
		"net/url: invalid control character in URL",
		"unsupported protocol scheme",
		"invalid request :path",
	} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// certificateError reports whether err says that the server can't prove its name.
func certificateError(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok
}

// final reports whether there must not be another send after err, whatever the policy
// says.
func final(err error) bool {
	if j, ok := errors.AsType[judge](err); ok {
		if retry, _ := j.RetryVerdict(); !retry {
			return true
		}
	}
	return hopeless(err) || canceled(err)
}

// canceled reports whether err says that the caller took the request back. After the
// deprecated CancelRequest of http.Transport neither the context nor Cancel of the
// request shows the cancellation. The error has no type.
func canceled(err error) bool {
	return strings.Contains(err.Error(), "net/http: request canceled")
}

// judge is an error that knows whether another send may help, and after which wait; 0
// for an unknown wait.
type judge interface {
	error
	RetryVerdict() (retry bool, after time.Duration)
}

// undone reports whether the outcome of a send says that the server did nothing, and
// is ready to see the request again.
func undone(resp *http.Response, err error) bool {
	if err != nil {
		return unsent(err)
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusMisdirectedRequest, http.StatusTooEarly:
		return true
	case http.StatusForbidden, http.StatusServiceUnavailable:
		_, ok := retryafter.Parse(resp.Header, time.Now())
		return ok
	}
	return false
}

// unsent reports whether err is from before the request was written: there was no token
// for it, or no connection.
func unsent(err error) bool {
	if _, ok := errors.AsType[*AuthError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "dial" || op.Op == "proxyconnect" || op.Op == "socks connect") {
		return true
	}
	return strings.Contains(err.Error(), "net/http: TLS handshake timeout") // has no type
}

// idempotent reports whether sending req twice does no more than sending it
// once, by the same signs as http.Transport; RFC 9110 adds PUT and DELETE.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case "", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	_, key := req.Header["Idempotency-Key"]
	_, xkey := req.Header["X-Idempotency-Key"]
	return key || xkey
}

// asked returns the wait that the server, or the layer below, asks for.
func asked(resp *http.Response, err error) (time.Duration, bool) {
	if err == nil {
		return retryafter.Parse(resp.Header, time.Now())
	}
	if j, ok := errors.AsType[judge](err); ok {
		_, after := j.RetryVerdict()
		return after, after > 0
	}
	return 0, false
}
