// Secrets of a grant that change while the program runs. Each request reads the secrets
// once, and shows the secrets to the pipeline, which ends a cool-down when a secret has
// changed.

package oauth2source

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/requestforge/requestforge"
)

// AssertionFile is the token in a file that a platform mounts and replaces, such as the
// projected token of a Kubernetes service account. Use AssertionFile as
// Config.ClientAssertion (RFC 7523 §2.2), as the assertion of [JWTBearer], or as
// Exchange.Subject. Each request reads the file by [requestforge.SecretFile], with the
// errors of SecretFile. If the server refuses the token and the file then has another
// token, the grant asks the server again at once. A new token in the file also ends a
// cool-down.
//
// Only the contents of the file show whose token the file holds. So in a storage shared
// with others, a step needs a Step.Identity, unless the file authenticates a client that
// ClientAuth names.
func AssertionFile(path string) Assertion { return assertionFile(path) }

type assertionFile string

func (f assertionFile) Assert(ctx context.Context, in requestforge.Input) (string, error) {
	return prefixed(f.assert(ctx, in))
}

func (f assertionFile) assert(ctx context.Context, _ requestforge.Input) (string, error) {
	text, err := requestforge.SecretFile(string(f))(ctx)
	if err != nil {
		return "", fmt.Errorf("AssertionFile: %w", err)
	}
	return text, nil
}

func (f assertionFile) check() []error {
	if f == "" {
		return []error{errors.New("AssertionFile names no file")}
	}
	return nil
}

func (f assertionFile) now(ctx context.Context, w io.Writer) (Assertion, error) {
	text, err := f.assert(ctx, requestforge.Input{})
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(w, "%q", text)
	return assertionText(text), err
}

// assertionText is the contents of a file.
type assertionText string

func (t assertionText) Assert(context.Context, requestforge.Input) (string, error) {
	return string(t), nil
}

// changing is an Assertion whose secret may change. now reads the secret, writes to w a
// text that differs between secrets, and returns an Assertion with the secret fixed.
type changing interface {
	Assertion
	changes() bool
	now(ctx context.Context, w io.Writer) (Assertion, error)
}

func (f assertionFile) changes() bool { return true }

func (j *JWT) changes() bool { return j != nil && j.KeyFrom != nil }

// now returns a copy of j with the key of KeyFrom and the header for the key.
func (j *JWT) now(ctx context.Context, w io.Writer) (_ Assertion, err error) {
	key, header, err := j.askKey(ctx)
	if err != nil {
		return nil, fmt.Errorf("JWT.KeyFrom: %w", masked(err))
	}
	own := *j
	own.Key, own.KeyFrom, own.KeyID, own.Header = key, nil, "", maps.Clone(j.Header)
	if own.Header == nil {
		own.Header = make(map[string]any)
	}
	if j.KeyID != "" {
		own.Header["kid"] = j.KeyID
	}
	maps.Copy(own.Header, header)
	if kid, ok := own.Header["kid"]; ok {
		text, ok := kid.(string)
		if !ok {
			return nil, errors.New("JWT.KeyFrom: the kid of the header is no string")
		}
		own.KeyID = text
		delete(own.Header, "kid")
	}
	if errs := own.checkKey(); len(errs) > 0 {
		return nil, fmt.Errorf("JWT.KeyFrom: %w", errors.Join(errs...))
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("JWT.KeyFrom: %w", masked(err))
	}
	_, err = fmt.Fprintf(w, "%q %q", public, own.KeyID)
	return &own, err
}

// askKey calls KeyFrom. A panic is an error, without the value, which may hold a key.
func (j *JWT) askKey(ctx context.Context) (key crypto.Signer, header map[string]any, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %T", v)
		}
	}()
	return j.KeyFrom(ctx)
}

// readKey is the context key for the secrets read for a grant.
type readKey struct{ of *Grant }

// read holds the secrets that were read for a request.
type read struct {
	client     requestforge.ClientAuth
	clientErr  error
	assertions map[changing]assertionRead
}

// assertionRead is the result of reading the secret of an Assertion.
type assertionRead struct {
	Assertion
	err error
}

// ReadSecrets calls ClientAuth.SecretFrom and JWT.KeyFrom, and reads the file of an
// AssertionFile, for one Fetch; see [requestforge.SecretReader].
func (g *Grant) ReadSecrets(ctx context.Context, w io.Writer) (context.Context, error) {
	if g == nil || !g.changes() {
		return ctx, nil
	}
	r := &read{client: g.cfg.client(), assertions: make(map[changing]assertionRead)}
	var errs []error
	if r.client.SecretFrom != nil {
		r.client, r.clientErr = r.client.Current(ctx)
		errs = append(errs, r.clientErr)
		fmt.Fprintf(w, "%q", r.client.Secret)
	}
	for _, a := range g.changing {
		now, err := a.now(ctx, w)
		r.assertions[a] = assertionRead{now, err}
		errs = append(errs, err)
	}
	return context.WithValue(ctx, readKey{g}, r), errors.Join(errs...)
}

// changes reports whether a secret of g may change.
func (g *Grant) changes() bool { return g.cfg.client().SecretFrom != nil || len(g.changing) > 0 }

// reread reads the secrets again, for a later request of the same fetch.
func (g *Grant) reread(ctx context.Context) context.Context {
	ctx, _ = g.ReadSecrets(ctx, io.Discard) // the request reports the error
	return ctx
}

// client returns Config.ClientAuth with the secret that ReadSecrets has read into ctx, or
// else with the present secret.
func (g *Grant) client(ctx context.Context) (requestforge.ClientAuth, error) {
	r, ok := ctx.Value(readKey{g}).(*read)
	if !ok {
		r = new(read)
		r.client, r.clientErr = g.cfg.client().Current(ctx)
	}
	if r.clientErr != nil {
		return r.client, &unreadable{fmt.Errorf(prefix+"Config.%w", r.clientErr)}
	}
	return r.client, nil
}

// current returns a with the secret that ReadSecrets has read into ctx.
func (g *Grant) current(ctx context.Context, a Assertion) (Assertion, error) {
	c, ok := a.(changing)
	r, has := ctx.Value(readKey{g}).(*read)
	if !ok || !c.changes() || !has {
		return a, nil
	}
	now := r.assertions[c]
	return now.Assertion, now.err
}

// unreadable is the error for a secret that can't be read now: a temporary failure before
// sending.
type unreadable struct{ error }

func (e *unreadable) Unwrap() error { return e.error }
