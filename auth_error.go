// Why no token could be had, in words that hold no secret, and whether it is
// worth another try. Who tries again is pipeline.go's and
// retry_transport.go's.

package requestforge

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/requestforge/requestforge/internal/challenge"
	"github.com/requestforge/requestforge/internal/format"
	"github.com/requestforge/requestforge/internal/oauthcode"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/retryafter"
	"github.com/requestforge/requestforge/internal/tokenjson"
)

// AuthError says why no token could be had. It is found with [errors.As] in
// what an http.Client returns, as is the cause below it. However it is
// printed, it shows nothing that was sent to, or came from, an auth server
// but the status and a registered error code; the URL in a cause is masked.
type AuthError struct {
	// Step is the step that failed. Empty means that the error comes from
	// a fetcher outside any pipeline.
	Step string

	// StatusCode is the auth server's answer. Zero means that there was
	// none.
	StatusCode int

	// Code is the OAuth error code of the answer ("invalid_grant"). Only
	// codes registered for OAuth get here, so that a server can't put
	// words, or a secret it was told, into our logs. Empty means that there
	// was none of these.
	Code string

	// Permanent means that the same request can't succeed later: somebody
	// has to change something, a password or a configuration, first.
	Permanent bool

	// ParentRefused means that it was a parent's token that the auth server
	// refused: the pipeline replaces the parents' tokens and tries once
	// more. It takes a 401 or 403 that isn't Permanent for that anyway; a
	// fetcher sets the field where its protocol says so in another way.
	ParentRefused bool

	// Unsent means that the fetch failed before anything was sent to the
	// auth server, so that a refresh token in the request is not spent. A
	// fetcher sets the field; without it, an error of the network leaves
	// open whether the server has taken the token.
	Unsent bool

	// RetryAfter is how long to wait before the next try: what the auth
	// server asked for, or what is left of the step's cool-down. Zero means
	// that nothing is known.
	RetryAfter time.Duration

	// Err is the cause. Nil means that StatusCode and Code say it all.
	Err error
}

// NewAuthError returns the error of a fetch that failed, for a [FetcherFunc] or
// a fetcher type of your own. It says of an answer what a [BodyFetcher] would
// say, so that the pipeline handles the failure in the same way:
//
//	resp, err := client.Do(req)
//	if err != nil {
//		return nil, requestforge.NewAuthError(resp, nil, err)
//	}
//	defer resp.Body.Close()
//	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
//	if err != nil || resp.StatusCode != http.StatusOK {
//		return nil, requestforge.NewAuthError(resp, body, err)
//	}
//
// From resp come StatusCode, RetryAfter, and the method and URL that the text
// begins with: those of the first request, before any redirect. A nil resp
// means that the network failed: err alone says whether a new try may help.
// NewAuthError neither reads nor closes resp.Body.
//
// Of body, as far as it was read, only the error code of a JSON object is kept,
// and only if the code is registered for OAuth; without one there, the code of
// a Bearer challenge in resp is taken. The code decides Permanent. A nil body
// has no code.
//
// err is the cause, which [errors.Is] and [errors.As] find in the result. Its
// text is masked: user information and query values of URLs, the target of a
// redirect if resp or a [LoginClient] says that err came after a redirect, all
// that stands in double quotes, what the text repeats of body (all, or a word of
// eight characters or more with a digit), and the whole text of an
// *oauth2.RetrieveError. Whatever else err quotes is shown. A text that
// begins with "requestforge: " is taken for our own, and its quotes stay. A nil
// err means that the status says it all.
//
// Every call returns a new AuthError, which the caller may change: set
// ParentRefused or Permanent where the protocol says so in its own way.
// NewAuthError may be called by several goroutines at once.
func NewAuthError(resp *http.Response, body []byte, err error) *AuthError {
	show := redact.Text
	if errors.Is(err, errAfterRedirect) {
		show = hostOnly
	}
	what := ""
	if req := firstRequest(resp); req != nil && req.URL != nil {
		at := redact.URL(req.URL)
		show = func(string) string { return at }
		what = cmp.Or(req.Method, http.MethodGet) + " " + at + ": "
	}
	err = redact.Answer(err, body, show)
	if err == nil && resp != nil {
		err = statusError(resp.StatusCode)
	}
	if _, named := errors.AsType[*url.Error](err); err != nil && what != "" && !named {
		err = fmt.Errorf("%s%w", what, err)
	}
	return classify(resp, body, time.Now(), err)
}

// classify returns err as the cause of an AuthError that has the status, the
// error code and the Retry-After of an answer. at is when the answer came; resp
// and body may be nil.
func classify(resp *http.Response, body []byte, at time.Time, err error) *AuthError {
	e := (&AuthError{Err: err}).withCode(tokenjson.ErrorCode(body))
	if resp == nil {
		// A client that authenticates itself had no token for the request.
		_, noToken := errors.AsType[*AuthError](err)
		e.Unsent = noToken && !errors.Is(err, errAfterRedirect)
	} else {
		e.StatusCode = resp.StatusCode
		e.withCode(challenge.BearerError(resp.Header))
		e.RetryAfter, _ = retryafter.Parse(resp.Header, at)
	}
	return e
}

// firstRequest is the request whose redirects led to resp, nil if resp has
// none.
func firstRequest(resp *http.Response) *http.Request {
	var first *http.Request
	for resp != nil && resp.Request != nil {
		first = resp.Request
		resp = first.Response
	}
	return first
}

// hostOnly is the URL raw without all that a server puts into the target of a
// redirect.
func hostOnly(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return redact.Mask
	}
	return redact.URL(&url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/" + redact.Mask})
}

// Error returns the step, the code, the cause and when a new try is due, as
// far as they are known.
func (e *AuthError) Error() string {
	var parts []string
	if e.Step != "" {
		parts = append(parts, fmt.Sprintf("step %q", e.Step))
	}
	if e.Code != "" {
		parts = append(parts, e.Code)
	}
	var cause string
	if e.Err != nil {
		cause = strings.ReplaceAll(redact.Error(e.Err), "requestforge: ", "")
	}
	if _, said := errors.AsType[statusError](e.Err); e.StatusCode != 0 && !said {
		parts = append(parts, "status "+statusError(e.StatusCode).Error())
	}
	if cause != "" {
		parts = append(parts, cause)
	}
	if len(parts) == 0 {
		parts = append(parts, "no token")
	}
	text := "requestforge: " + strings.Join(parts, ": ")
	if e.RetryAfter > 0 {
		text += "; next try in " + e.RetryAfter.Round(time.Millisecond).String()
	}
	return text
}

// Unwrap returns e.Err.
func (e *AuthError) Unwrap() error { return e.Err }

// Timeout reports whether the cause is a timeout. Through it [url.Error],
// which asks only the error directly below it, knows too.
func (e *AuthError) Timeout() bool {
	ne, ok := errors.AsType[net.Error](beyondURL(e.Err))
	return ok && ne.Timeout()
}

// RetryVerdict tells a retry layer whether sending the request again may
// help, and how long to wait at least; zero leaves that to the layer.
func (e *AuthError) RetryVerdict() (retry bool, after time.Duration) {
	if e.Permanent {
		return false, 0
	}
	return true, max(e.RetryAfter, 0)
}

// Format prints Error for every verb.
func (e AuthError) Format(s fmt.State, verb rune) { format.Text(s, verb, e.Error()) }

// MarshalJSON returns Error as a JSON string.
func (e AuthError) MarshalJSON() ([]byte, error) { return json.Marshal(e.Error()) }

// LogValue returns Error.
func (e AuthError) LogValue() slog.Value { return slog.StringValue(e.Error()) }

// withCode takes over the server's error code if it is a registered one.
func (e *AuthError) withCode(code string) *AuthError {
	if permanent, ok := oauthcode.Registered(code); ok && e.Code == "" {
		e.Code, e.Permanent = code, permanent
	}
	return e
}

// statusError is a status that isn't 2xx as the cause of an AuthError, in our
// words: the phrase on the wire is the server's.
type statusError int

func (e statusError) Error() string {
	return strings.TrimSpace(strconv.Itoa(int(e)) + " " + http.StatusText(int(e)))
}

var (
	// errHTML is a page where JSON should be: a proxy's, a load
	// balancer's, a captive portal's.
	errHTML = errors.New("the response is an HTML page")

	// errAfterRedirect marks a failure after the first request was
	// answered: it has reached the server, whatever happened then.
	errAfterRedirect = errors.New("after a redirect")
)

// transient reports whether the same fetch may succeed if it is tried again
// soon. Every other failure gets one attempt: a wrong password sent twice may
// lock the account, a malformed token won't get better, and of a custom
// fetcher's own errors nothing is known.
func transient(err error) bool {
	ae, ok := errors.AsType[*AuthError](err)
	switch {
	case !ok:
		return errors.Is(err, errHTML) || network(err)
	case ae.Permanent:
		return false
	case ae.StatusCode == http.StatusRequestTimeout, ae.StatusCode == http.StatusTooManyRequests, ae.StatusCode >= 500:
		return true
	}
	// The cause may be another AuthError: that of a client that
	// authenticates itself.
	return transient(ae.Err)
}

// ambiguous reports whether the server may have acted on the request without
// our having what it gave out. A refresh token sent with it may be spent, and
// sending it once more would look like theft.
func ambiguous(err error) bool {
	if ae, ok := errors.AsType[*AuthError](err); ok {
		switch status := ae.StatusCode; {
		case ae.Unsent:
			return false
		case status == http.StatusBadGateway, status == http.StatusGatewayTimeout:
			return true // the gateway doesn't know either
		case 200 <= status && status <= 299:
			return ae.Code == "" // it says yes; we can't read what
		case status != 0:
			return false
		}
		err = ae.Err
	}
	if !network(err) && !errors.Is(err, context.Canceled) {
		return errors.Is(err, errHTML)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "dial" || op.Op == "proxyconnect") {
		return errors.Is(err, errAfterRedirect)
	}
	return true
}

// network reports whether err came from the network rather than from
// either end's mind.
func network(err error) bool {
	err = beyondURL(err)
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		// crypto/tls puts its alerts there: a handshake that the two
		// ends don't agree on.
		return op.Op != "remote error" && op.Op != "local error"
	}
	for _, target := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.ECONNABORTED, syscall.EPIPE,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	if ne, ok := errors.AsType[net.Error](err); ok {
		// Any errno is one, a missing file's too.
		_, errno := ne.(syscall.Errno)
		return !errno || ne.Timeout()
	}
	// net/http has no types for these.
	for _, prefix := range []string{
		"http2: ", "stream error: ", "connection error: ",
		"http: server closed idle connection", "net/http: HTTP/1.x transport connection broken",
	} {
		if strings.HasPrefix(err.Error(), prefix) {
			return true
		}
	}
	return false
}

// beyondURL returns what a *url.Error in err's chain wraps, else err: a
// *url.Error is a net.Error whatever it wraps.
func beyondURL(err error) error {
	for {
		ue, ok := errors.AsType[*url.Error](err)
		if !ok {
			return err
		}
		err = ue.Err
	}
}
