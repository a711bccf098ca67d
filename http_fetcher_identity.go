// The identity that an HTTPFetcher logs in with, and the fingerprint of its configuration,
// for a pipeline.

package requestforge

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/requestforge/requestforge/internal/identity"
	"github.com/requestforge/requestforge/internal/tokenjson"
)

// Identity names the owner of the token, see [Identifier]: URL, method, header, body, client
// and HeaderFrom, without values that look like secrets by the names of their fields. With
// URLFrom, BodyFrom or Prepare, which may choose any owner, Identity returns "".
func (f *HTTPFetcher) Identity() string {
	if f == nil {
		return ""
	}
	body, ok := identity.JSON(f.json())
	if !ok || f.URLFrom != nil || f.BodyFrom != nil || f.Prepare != nil {
		return ""
	}
	client := ""
	if f.ClientAuth != nil {
		client = f.ClientAuth.ID
	}
	text, ok := identity.Of(identity.URL(f.URL), f.method(), identity.Header(f.Header), body, identity.Values(f.Form), cmp.Or(f.TokenType, "Bearer"), client, f.HeaderFrom, f.read(), f.KeepHeaders, f.Cookies)
	if !ok {
		return ""
	}
	return text
}

// read returns the places of the token's parts in the answer. An explicit default gives the
// same places as an empty field.
func (f *HTTPFetcher) read() []string {
	return []string{
		cmp.Or(f.TokenField, tokenjson.DefaultToken), f.TokenHeader, f.TokenCookie, cmp.Or(f.TypeField, tokenjson.DefaultType),
		cmp.Or(f.RefreshField, tokenjson.DefaultRefresh), cmp.Or(f.ExpiresInField, tokenjson.DefaultExpiresIn), cmp.Or(f.ExpiresAtField, tokenjson.DefaultExpiresAt),
	}
}

// clientKey is the context key for the secret of a client, read for a Fetch.
type clientKey struct{ of *ClientAuth }

// clientRead is the result of reading the secret.
type clientRead struct {
	client ClientAuth
	err    error
}

// ReadSecrets calls ClientAuth.SecretFrom, if set, for one Fetch; see [SecretReader].
func (f *HTTPFetcher) ReadSecrets(ctx context.Context, w io.Writer) (context.Context, error) {
	if f == nil || f.ClientAuth == nil || f.ClientAuth.SecretFrom == nil {
		return ctx, nil
	}
	client, err := f.ClientAuth.Current(ctx)
	if err == nil {
		_, err = fmt.Fprintf(w, "%q", client.Secret)
	}
	return context.WithValue(ctx, clientKey{f.ClientAuth}, &clientRead{client, err}), err
}

// client returns ClientAuth with the secret that ReadSecrets has read into ctx, or else with
// the present secret; nil without ClientAuth.
func (f *HTTPFetcher) client(ctx context.Context) (*ClientAuth, error) {
	if f.ClientAuth == nil {
		return nil, nil
	}
	if read, ok := ctx.Value(clientKey{f.ClientAuth}).(*clientRead); ok {
		return &read.client, read.err
	}
	client, err := f.ClientAuth.Current(ctx)
	return &client, err
}

// Fingerprint writes the configuration, except functions, to w, secrets included; see
// [Fingerprinter]. ReadSecrets writes a secret of ClientAuth.SecretFrom.
func (f *HTTPFetcher) Fingerprint(w io.Writer) {
	if f == nil {
		return
	}
	var id, secret string
	var inBody bool
	if a := f.ClientAuth; a != nil {
		id, secret, inBody = a.ID, a.Secret, a.InBody
	}
	text, err := json.Marshal([]any{f.URL, f.Method, f.Header, f.json(), f.Form, f.TokenType, id, secret, inBody, f.HeaderFrom, f.read(), f.Origins, f.KeepHeaders, f.Cookies})
	if err != nil {
		text = []byte(f.URL) // the fetch fails for the same reason
	}
	_, _ = w.Write(text) // a hash's Write doesn't fail
}
