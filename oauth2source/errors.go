// What errors become before anybody sees them: nothing is left that the auth
// server wrote, and no secret of a URL.

package oauth2source

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/requestforge/requestforge"
	"golang.org/x/oauth2"
)

// prefix begins the text of each error that a caller gets from this package
// directly.
const prefix = "requestforge: oauth2source: "

// translate returns an *oauth2.RetrieveError as an *AuthError, and any other
// error masked. Of a RetrieveError stay the status, a registered code, from
// the body or else the challenge, and Retry-After: the text quotes the server's
// body, and the fields hold the body and the request with the credentials, so
// the RetrieveError isn't in the chain either.
func translate(err error) error {
	refusal, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return masked(err)
	}
	body := refusal.Body
	if refusal.ErrorCode != "" {
		body = codeBody(refusal.ErrorCode) // x/oauth2 reads forms, too
	}
	return requestforge.NewAuthError(refusal.Response, body, nil)
}

// codeBody is the body of an answer with an OAuth error code.
func codeBody(code string) []byte {
	body, _ := json.Marshal(map[string]string{"error": code}) // a map of strings always marshals
	return body
}

// masked returns err with the text that NewAuthError gives a cause: without the
// secrets of URLs, and without quoted text.
func masked(err error) error { return requestforge.NewAuthError(nil, nil, err).Err }

// failed returns the error of the application's own code, a prompt or an
// Assertion say, with the secrets of URLs masked. Quoted text stays.
func failed(what string, err error) error {
	return masked(fmt.Errorf(prefix+"%s: %w", what, err))
}

// maskedURL is raw with the secrets masked, as NewAuthError masks the URL of a
// *url.Error.
func maskedURL(raw string) string {
	ue, _ := errors.AsType[*url.Error](masked(&url.Error{URL: raw, Err: errors.ErrUnsupported}))
	return ue.URL
}
