// Why no token could be had, without secrets, and whether another try may help. pipeline.go
// and retry_transport.go try again.

package requestforge

import (
	"bytes"
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
	"github.com/requestforge/requestforge/internal/html"
	"github.com/requestforge/requestforge/internal/oauthcode"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/retryafter"
	"github.com/requestforge/requestforge/internal/tokenjson"
)

// AuthError says why no token could be had. [errors.As] finds an AuthError, and its cause,
// in the errors of an http.Client. Printed in any way, an AuthError shows nothing sent to,
// or received from, an auth server but the status and a registered error code; the URL in a
// cause is masked.
type AuthError struct {
	// Step is the failed step. Empty means that the error comes from a fetcher outside any
	// pipeline.
	Step string

	// Subject is the label of the token's subject, from PipelineConfig.SubjectLabel. Empty
	// means no label, or a shared step.
	Subject string

	// StatusCode is the status of the auth server's answer. Zero means no answer.
	StatusCode int

	// Code is the OAuth error code of the answer ("invalid_grant"). Only codes registered
	// for OAuth are taken over, so that a server can't put words, or secrets, into our
	// logs. Empty means no registered code.
	Code string

	// Permanent means that the same request can't succeed later: a password or a
	// configuration has to change first.
	Permanent bool

	// Temporary means that the same request may well succeed soon, whatever the status: the
	// pipeline tries again. A fetcher sets the field for an answer that means "not yet". A
	// 403 with Retry-After, or with an exhausted rate limit, is Temporary without the
	// fetcher's help. Permanent overrides Temporary.
	Temporary bool

	// RefreshRefused means that the auth server refused the refresh token: the pipeline
	// never sends the refresh token again, and logs in from scratch. OAuth's code
	// invalid_grant has the same effect.
	RefreshRefused bool

	// ParentRefused means that the auth server refused a parent's token: the pipeline
	// replaces the parents' tokens and tries again, once or, if another process saved the
	// new token, up to three times. A 401 or 403 without Permanent has the same effect,
	// unless the request of an HTTPFetcher carried nothing of a parent. A fetcher sets the
	// field if its protocol refuses a parent in another way.
	ParentRefused bool

	// Unsent means that the fetch failed before anything was sent to the auth server, so
	// that a refresh token in the request is not spent. A fetcher sets the field; without
	// Unsent, an error of the network leaves open whether the server has taken the token.
	Unsent bool

	// RetryAfter is how long to wait before the next try: the auth server's Retry-After, or
	// the rest of the step's cool-down. Zero means unknown.
	RetryAfter time.Duration

	// Err is the cause. Nil means that StatusCode and Code say everything.
	Err error

	page bool // an HTML page has answered, from an unknown sender
	own  bool // the request carried no part of a parent that could be refused
	read bool // the program or the pipeline has read the answer: it is a refusal

	given string // see givenTokens.print

	answer func() ([]byte, http.Header) // see Answer; nil: no answer
}

// NewAuthError returns the error of a failed fetch, for a [FetcherFunc] or a fetcher type
// of your own. The error classifies an answer as an [HTTPFetcher] would, so that the
// pipeline handles the failure in the same way:
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
// resp supplies StatusCode, RetryAfter, and the method and URL at the beginning of the
// text. These are of the first request; a note says if redirects followed, and if they
// changed the method. A nil resp means that the network failed: err alone decides whether a
// new try may help. NewAuthError neither reads nor closes resp.Body.
//
// body is the answer as far as it was read. NewAuthError keeps only the error code, of a
// JSON object or a form, and only if the code is registered for OAuth; without such a code,
// the code of a Bearer challenge in resp is taken. The code decides Permanent. A nil body
// has no code.
//
// err is the cause, which [errors.Is] and [errors.As] find in the result. Its text is
// masked: user information and query values of URLs, the target of a redirect if resp or a
// [LoginClient] says that err came after a redirect, all text in double quotes, text
// repeated from body (the whole body, or a word of eight characters or more with a digit),
// and the whole text of an *oauth2.RetrieveError. Any other quotation in err is shown. A
// text beginning with "requestforge: " counts as our own, and keeps its quotes. A nil err
// means that the status says everything.
//
// Every call returns a new AuthError, which the caller may change: set ParentRefused or
// Permanent where the protocol says so in its own way. NewAuthError may be called by
// several goroutines at once.
func NewAuthError(resp *http.Response, body []byte, err error) *AuthError {
	show := redact.Text
	if errors.Is(err, errAfterRedirect) {
		show = noURL
	}
	what := ""
	if req := firstRequest(resp); req != nil && req.URL != nil {
		at := redact.URL(req.URL)
		show = func(string) string { return at }
		what = cmp.Or(req.Method, http.MethodGet) + " " + at + afterRedirect(req, resp.Request) + ": "
	}
	err = redact.Answer(err, body, show)
	if err == nil && resp != nil {
		err = statusError(resp.StatusCode)
	}
	if _, named := errors.AsType[*url.Error](err); err != nil && what != "" && !named {
		err = fmt.Errorf("%s%w", what, err)
	}
	e := classify(resp, body, time.Now(), err)
	e.answer = answerOf(resp, body)
	return e
}

// classify returns an AuthError with err as its cause, and with the status, the error code
// and the Retry-After of an answer. at is the time of the answer; resp and body may be nil.
func classify(resp *http.Response, body []byte, at time.Time, err error) *AuthError {
	e := (&AuthError{Err: err}).withCode(tokenjson.ErrorCode(body))
	if resp == nil {
		// A client that authenticates itself had no token for the request.
		_, noToken := errors.AsType[*AuthError](err)
		e.Unsent = noToken && !errors.Is(err, errAfterRedirect)
	} else {
		e.StatusCode = resp.StatusCode
		e.page = isPage(resp.Header, body)
		e.withCode(challenge.BearerError(resp.Header))
		var asked, limited bool
		if e.RetryAfter, asked = retryafter.Parse(resp.Header, at); !asked {
			e.RetryAfter, limited = retryafter.Limit(resp.Header, at)
		}
		e.Temporary = resp.StatusCode == http.StatusForbidden && (asked || limited) && !e.Permanent
	}
	return e
}

func mediaType(h http.Header) string {
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(t))
}

// isPage reports whether an answer is an HTML page: by its beginning, or by an HTML label
// and any tag at the beginning. JSON, plain text and an empty body are no page, whatever
// their label, since many frameworks label every answer as HTML. A "<" alone doesn't make
// XML a page.
func isPage(h http.Header, body []byte) bool {
	switch mediaType(h) {
	case "text/html", "application/xhtml+xml":
		if bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), " \t\r\n\f"), []byte("<")) {
			return true
		}
	}
	return html.Begins(body)
}

// firstRequest is the request whose redirects led to resp; nil if resp has no request.
func firstRequest(resp *http.Response) *http.Request {
	var first *http.Request
	for resp != nil && resp.Request != nil {
		first = resp.Request
		resp = first.Response
	}
	return first
}

// afterRedirect describes the redirects between the first request and the last, if any: the
// answer to a GET isn't an answer to the POST before the redirect.
func afterRedirect(first, last *http.Request) string {
	switch {
	case first == last:
		return ""
	case cmp.Or(first.Method, http.MethodGet) != cmp.Or(last.Method, http.MethodGet):
		return ": after a redirect that made it a " + cmp.Or(last.Method, http.MethodGet)
	}
	return ": " + errAfterRedirect.Error()
}

// noURL hides the target of a redirect, host included, since a server can put a secret
// anywhere in a URL.
func noURL(string) string { return redact.Mask }

// Error returns the step, the code, the cause and when a new try is due, as
// far as they are known.
func (e *AuthError) Error() string {
	var parts []string
	switch {
	case e.Step != "" && e.Subject != "":
		parts = append(parts, fmt.Sprintf("step %q of %q", e.Step, e.Subject))
	case e.Step != "":
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

// Answer returns the auth server's answer, if [PipelineConfig.KeepAnswers] is set: at most
// 4 KiB of the body, and the header. Both are nil without KeepAnswers, without an answer,
// and for a failure of another process.
//
// Masked are the contents of the fetch's request, all tokens known to the pipeline,
// cookies, the values of fields whose names suggest tokens or passwords, and long words
// with digits. Of an answer with a status of success, only the fields with reasons are
// shown. The remaining text is a stranger's: show the text to an operator, and don't parse
// it. No other method, no record and no encoding of an AuthError contains any of the
// answer.
//
// The contents of the request are known for an HTTPFetcher and for oauth2source. For a
// fetcher of your own they are known if [NewAuthError] gets the response, and the request
// had the fetch's context and a GetBody.
//
// The results are the caller's.
func (e *AuthError) Answer() (body []byte, header http.Header) {
	if e == nil || e.answer == nil {
		return nil, nil
	}
	return e.answer()
}

// Timeout reports whether the cause is a timeout. [url.Error] asks only the error directly
// below, so without this method it wouldn't know.
func (e *AuthError) Timeout() bool {
	ne, ok := errors.AsType[net.Error](beyondURL(e.Err))
	return ok && ne.Timeout()
}

// RetryVerdict tells a retry layer whether sending the request again may help, and the
// minimum wait; zero leaves the wait to the layer.
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

// MarshalText returns Error, for XML and the like.
func (e AuthError) MarshalText() ([]byte, error) { return []byte(e.Error()), nil }

// LogValue returns Error.
func (e AuthError) LogValue() slog.Value { return slog.StringValue(e.Error()) }

// withCode takes over the server's error code if the code is registered.
func (e *AuthError) withCode(code string) *AuthError {
	if permanent, ok := oauthcode.Registered(code); ok && e.Code == "" {
		e.Code, e.Permanent = code, permanent
	}
	return e
}

// statusError is a status outside 2xx as the cause of an AuthError, in our words: the
// phrase on the wire is the server's.
type statusError int

func (e statusError) Error() string {
	return strings.TrimSpace(strconv.Itoa(int(e)) + " " + http.StatusText(int(e)))
}

var (
	// errHTML is a page where JSON should be: a proxy's, a load
	// balancer's, a captive portal's.
	errHTML = errors.New("the response is an HTML page")

	// errAfterRedirect marks a failure after the answer to the first request, which has
	// reached the server in any case.
	errAfterRedirect = errors.New("after a redirect")
)

// transient reports whether the same fetch may succeed if tried again soon. Every other
// failure gets one attempt: a wrong password sent twice may lock the account, a malformed
// token won't get better, and nothing is known about a custom fetcher's own errors. An HTML
// page with a 2xx status is an answer, too: many login forms refuse a password with a page.
func transient(err error) bool {
	ae, ok := errors.AsType[*AuthError](err)
	switch {
	case !ok:
		return network(err)
	case ae.Permanent, ae.ParentRefused, ae.RefreshRefused:
		return false
	case ae.Temporary, ae.StatusCode == http.StatusTooEarly, ae.StatusCode == http.StatusRequestTimeout, ae.StatusCode == http.StatusTooManyRequests, ae.StatusCode >= 500:
		return true
	}
	// The cause may be another AuthError, of a client that authenticates itself.
	return transient(ae.Err)
}

// ambiguous reports whether the server may have acted on the request although we lack the
// result. A refresh token in the request may be spent, and sending the refresh token again
// would look like theft.
func ambiguous(err error) bool {
	if ae, ok := errors.AsType[*AuthError](err); ok {
		switch status := ae.StatusCode; {
		case ae.Unsent, ae.Temporary, ae.ParentRefused, ae.RefreshRefused:
			return false
		case status == http.StatusBadGateway, status == http.StatusGatewayTimeout:
			return true // the gateway doesn't know either
		case 200 <= status && status <= 299:
			return ae.Code == "" && !ae.Permanent // the server accepts, with an unreadable answer
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
		// crypto/tls reports alerts there: a handshake without agreement.
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
		// Any errno is a net.Error, even for a missing file.
		_, errno := ne.(syscall.Errno)
		return !errno || ne.Timeout()
	}
	// net/http has no types for these errors.
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

// beyondURL returns the error inside the *url.Error in err's chain, or err without a
// *url.Error. A *url.Error is a net.Error whatever the error inside.
func beyondURL(err error) error {
	for {
		ue, ok := errors.AsType[*url.Error](err)
		if !ok {
			return err
		}
		err = ue.Err
	}
}
