// What the errors of an oauth2.TokenSource become: none has anything left in
// it of what the auth server wrote.

package oauth2source

import (
	"errors"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/internal/challenge"
	"github.com/requestforge/requestforge/internal/oauthcode"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/retryafter"
	"golang.org/x/oauth2"
)

// translate returns an *oauth2.RetrieveError as an *AuthError, and any other
// error masked. Of a RetrieveError stay the status, a registered code, from
// the body or else the challenge, and Retry-After: its text quotes the server's
// body, and its fields hold the body and the request with the credentials, so
// it isn't in the chain either.
func translate(err error) error {
	refusal, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return redact.Cause(err)
	}
	e := &requestforge.AuthError{}
	codes := []string{refusal.ErrorCode}
	if refusal.Response != nil {
		e.StatusCode = refusal.Response.StatusCode
		e.RetryAfter, _ = retryafter.Parse(refusal.Response.Header, time.Now())
		codes = append(codes, challenge.BearerError(refusal.Response.Header))
	}
	for _, code := range codes {
		if permanent, ok := oauthcode.Registered(code); ok {
			e.Code, e.Permanent = code, permanent
			break
		}
	}
	return e
}
