// What the errors of an oauth2.TokenSource become: none has anything left in
// it of what the auth server wrote.

package oauth2source

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/retryafter"
	"golang.org/x/oauth2"
)

// translate returns an *oauth2.RetrieveError as an *AuthError, and any other
// error masked. Of a RetrieveError stay the status, a registered code and
// Retry-After: its text quotes the server's body, and its fields hold the body
// and the request with the credentials, so it isn't in the chain either.
func translate(err error) error {
	refusal, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return mask(err)
	}
	e := &requestforge.AuthError{}
	if permanent, ok := tokenErrors[refusal.ErrorCode]; ok {
		e.Code, e.Permanent = refusal.ErrorCode, permanent
	}
	if refusal.Response != nil {
		e.StatusCode = refusal.Response.StatusCode
		e.RetryAfter, _ = retryafter.Parse(refusal.Response.Header, time.Now())
	}
	return e
}

// tokenErrors are the error codes that are registered for a token endpoint.
// True means that the same request is refused the next time too.
var tokenErrors = map[string]bool{
	// RFC 6749 §5.2
	"invalid_request":        true,
	"invalid_client":         true,
	"invalid_grant":          true,
	"unauthorized_client":    true,
	"unsupported_grant_type": true,
	"invalid_scope":          true,
	// RFC 8628 §3.5
	"access_denied":         true,
	"expired_token":         true,
	"authorization_pending": false,
	"slow_down":             false,
	// RFC 8707 §2, RFC 9396 §5
	"invalid_target":                true,
	"invalid_authorization_details": true,
	// RFC 9449 §5: the next proof is another one.
	"invalid_dpop_proof": false,
	"use_dpop_nonce":     false,
	// Meant for redirects, and used here all the same.
	"server_error":            false,
	"temporarily_unavailable": false,
}

// mask returns err with a text in which URLs and whatever is quoted are
// masked: net/http, url and json quote what came over the wire. errors.Is and
// errors.As still find what is below.
func mask(err error) error {
	if ue, ok := err.(*url.Error); ok {
		return &url.Error{Op: ue.Op, URL: maskURL(ue.URL), Err: mask(ue.Err)}
	}
	text := redact.Error(err)
	if !strings.HasPrefix(text, "requestforge: ") { // a pipeline below, which names its step
		text = quoted.ReplaceAllLiteralString(text, `"`+redact.Mask+`"`)
	}
	if text == err.Error() {
		return err
	}
	return &masked{text, err}
}

var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

func maskURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return redact.Mask
	}
	return redact.URL(u)
}

// masked is err with another text. It has no Unwrap, for whoever prints the
// links of a chain one by one would get to the first text again.
type masked struct {
	text string
	err  error
}

func (e *masked) Error() string    { return e.text }
func (e *masked) GoString() string { return e.text } // %#v would print the fields of err

func (e *masked) Is(target error) bool { return errors.Is(e.err, target) }

func (e *masked) As(target any) bool {
	if !errors.As(e.err, target) {
		return false
	}
	if ue, ok := target.(**url.Error); ok {
		*ue = mask(*ue).(*url.Error)
	}
	return true
}
