// The client's id and secret for an auth server, and the two ways to send both. The request
// is in http_fetcher_request.go.

package requestforge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/format"
	"github.com/requestforge/requestforge/internal/httpname"
	"github.com/requestforge/requestforge/internal/redact"
)

// ClientAuth is a client's id and secret (RFC 6749 §2.3.1). A printed ClientAuth shows only
// the id.
type ClientAuth struct {
	// ID must not be empty. Secret may be, for a public client.
	ID, Secret string

	// SecretFrom returns a secret that changes while the program runs, instead of Secret:
	// [SecretFile], or a function that asks a vault. A pipeline calls SecretFrom once for
	// each try of a fetch. After a refusal the pipeline calls SecretFrom once more, and asks
	// the auth server again at once if the secret has changed. While the step cools down,
	// callers call SecretFrom, too, for two seconds at most: a new secret ends the cool-down.
	// A slow SecretFrom isn't called for each caller: after the first calls, two calls are
	// separated by fifty times the duration of a call, 30 s at most.
	//
	// Several goroutines may call SecretFrom at once. SecretFrom should return when ctx ends.
	// The secret belongs to the client, and must not depend on the subject of the token. An
	// error, a panic, "", and a secret of more than 64 KiB are temporary failures: nothing is
	// sent, the pipeline tries again, and keeps serving the last good token. Text in double
	// quotes in the error is masked. Nil means Secret.
	SecretFrom func(ctx context.Context) (string, error)

	// InBody puts id and secret into the form or JSON object of the request, as client_id and
	// client_secret. False means HTTP Basic, which every OAuth server has to offer.
	InBody bool
}

// maxSecret bounds a secret from a file or a function of the program.
const maxSecret = 64 << 10

// Current calls SecretFrom and returns a copy of c with the result as Secret, and without
// SecretFrom. If SecretFrom is nil, Current returns c. A Fetcher of your own calls Current
// for each fetch, as HTTPFetcher does. The error names SecretFrom; what stands in double
// quotes in its text is masked.
func (c ClientAuth) Current(ctx context.Context) (now ClientAuth, err error) {
	if c.SecretFrom == nil {
		return c, nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = &flight.PanicError{Value: v, Stack: debug.Stack()}
		}
		if err != nil {
			now, err = ClientAuth{}, fmt.Errorf("ClientAuth.SecretFrom: %w", redact.Cause(err))
		}
	}()
	secret, err := c.SecretFrom(ctx)
	switch {
	case err != nil:
		return ClientAuth{}, err
	case secret == "":
		return ClientAuth{}, errors.New("there is no secret: it returned an empty text")
	case len(secret) > maxSecret:
		return ClientAuth{}, errors.New("the secret is larger than 64 KiB")
	}
	c.Secret, c.SecretFrom = secret, nil
	return c, nil
}

// check reports mistakes in the fields.
func (c *ClientAuth) check(add func(string, ...any)) {
	if c.ID == "" {
		add("ClientAuth.ID is missing")
	}
	if strings.ContainsFunc(c.ID, httpname.IsControl) {
		add("ClientAuth.ID holds control characters")
	}
	if c.Secret != "" && c.SecretFrom != nil {
		add("ClientAuth.Secret and ClientAuth.SecretFrom are both set: a client has one secret")
	}
}

// String returns c without the secret.
func (c ClientAuth) String() string {
	if c.InBody {
		return fmt.Sprintf("ClientAuth(%q in the body)", c.ID)
	}
	return fmt.Sprintf("ClientAuth(%q as HTTP Basic)", c.ID)
}

// Format prints String for every verb.
func (c ClientAuth) Format(s fmt.State, verb rune) { format.Text(s, verb, c.String()) }

// MarshalJSON returns String as a JSON string.
func (c ClientAuth) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// MarshalText returns String, for XML and the like.
func (c ClientAuth) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// GobEncode returns an error: gob would encode the secrets.
func (c ClientAuth) GobEncode() ([]byte, error) { return nil, format.ErrGob }

// LogValue returns String.
func (c ClientAuth) LogValue() slog.Value { return slog.StringValue(c.String()) }

// fill returns form with id and secret.
func (a *ClientAuth) fill(form url.Values) url.Values {
	full := maps.Clone(form)
	if full == nil {
		full = url.Values{}
	}
	full.Set("client_id", a.ID)
	if a.Secret != "" {
		full.Set("client_secret", a.Secret)
	}
	return full
}

// join adds id and secret to a JSON object.
func (a *ClientAuth) join(object []byte) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil || members == nil {
		return nil, errors.New("ClientAuth.InBody: the JSON body is not an object")
	}
	values := map[string]string{"client_id": a.ID}
	if a.Secret != "" {
		values["client_secret"] = a.Secret
	}
	for name, value := range values {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		members[name] = text
	}
	return json.Marshal(members)
}
