// How errors are translated for callers, so that no error shows text that the auth server
// wrote, or a secret of a URL.

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

// translate returns an *oauth2.RetrieveError as an *AuthError, and any other error masked.
// The AuthError keeps the RetrieveError's status, Retry-After and a registered code, from
// the body or else from the challenge. The text of a RetrieveError quotes the server's
// body, and its fields hold the body and the request with the credentials, so the
// RetrieveError isn't in the error chain either.
func translate(err error) error {
	refusal, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return masked(err)
	}
	refused := requestforge.NewAuthError(refusal.Response, refusal.Body, nil)
	if refused.Code == "" && refusal.ErrorCode != "" {
		// A source of the application's own may know the code from elsewhere.
		body, _ := json.Marshal(map[string]string{"error": refusal.ErrorCode}) // a map of strings always marshals
		if known := requestforge.NewAuthError(refusal.Response, body, nil); known.Code != "" {
			return known
		}
	}
	return refused
}

// masked returns err as NewAuthError masks a cause: without the secrets of URLs, and
// without quoted text.
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
