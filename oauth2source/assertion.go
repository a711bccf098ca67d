// What a client shows to an auth server beside its form: tokens of earlier
// steps, and JWTs that it signs itself.

package oauth2source

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/requestforge/requestforge"
)

// Assertion brings the token that proves something to an auth server: who the
// client is, or on whose behalf it asks. It is asked once for each request.
// Its errors are logged and must not hold secrets.
type Assertion interface {
	Assert(ctx context.Context, in requestforge.Input) (string, error)
}

// AssertionFunc is a function that is an Assertion: for a token in a file, an
// id_token in the Extra of a parent's token, or one that a service signs.
type AssertionFunc func(ctx context.Context, in requestforge.Input) (string, error)

// Assert calls f.
func (f AssertionFunc) Assert(ctx context.Context, in requestforge.Input) (string, error) {
	return f(ctx, in)
}

func (f AssertionFunc) check() []error {
	if f == nil {
		return []error{errors.New("the AssertionFunc is nil")}
	}
	return nil
}

// FromStep is the access token of the named step, which must be in DependsOn.
func FromStep(name string) Assertion { return fromStep(name) }

type fromStep string

func (s fromStep) Assert(ctx context.Context, in requestforge.Input) (string, error) {
	return prefixed(s.assert(ctx, in))
}

func (s fromStep) assert(_ context.Context, in requestforge.Input) (string, error) {
	tok := in.Parents[string(s)]
	if tok == nil {
		return "", fmt.Errorf("there is no token of step %q; is it in DependsOn?", string(s))
	}
	return tok.AccessToken, nil
}

func (s fromStep) check() []error {
	if s == "" {
		return []error{errors.New("FromStep names no step")}
	}
	return nil
}

// JWT is an Assertion that is signed anew each time, with a fresh iat, exp and
// jti, by go-jose. It must not be changed after its first use. Printed, it
// shows neither key nor claims of its own.
type JWT struct {
	// Key signs. An *rsa.PrivateKey, *ecdsa.PrivateKey or
	// ed25519.PrivateKey is one, and so is a key in an HSM or a cloud's key
	// service through its crypto.Signer. It is required.
	Key crypto.Signer

	// KeyID is the kid of the header, by which the server finds the public
	// key. Empty means that there is none.
	KeyID string

	// Algorithm is the alg of the header. Empty means the one that fits the
	// key: RS256, ES256, ES384, ES512 or EdDSA.
	Algorithm string

	// Issuer is the iss claim. Empty means Config.ClientID.
	Issuer string

	// Subject is the sub claim, whom the token is about. Empty means the
	// issuer.
	Subject string

	// Audience is the aud claim, for whom the JWT is. Empty means
	// Config.TokenURL; some servers want their issuer URL instead.
	Audience string

	// Lifetime is the time from iat to exp. Zero means 5 min, negative is a
	// mistake.
	Lifetime time.Duration

	// Claims are further claims, as encoding/json has them. Those above,
	// iat, exp and jti are a mistake here.
	Claims map[string]any
}

const defaultLifetime = 5 * time.Minute

// Assert signs a new JWT. Outside of a grant, Issuer and Audience have no
// default.
func (j *JWT) Assert(ctx context.Context, in requestforge.Input) (string, error) {
	return prefixed(j.assert(ctx, in))
}

func (j *JWT) assert(context.Context, requestforge.Input) (string, error) {
	if errs := j.check(); len(errs) > 0 {
		return "", errors.Join(errs...)
	}
	signer, err := j.signer()
	if err != nil {
		return "", err
	}
	now := time.Now()
	claims := maps.Clone(j.Claims)
	if claims == nil {
		claims = make(map[string]any)
	}
	maps.Copy(claims, map[string]any{
		"iss": j.Issuer,
		"sub": j.subject(),
		"aud": j.Audience,
		"iat": now.Unix(),
		"exp": now.Add(j.lifetime()).Unix(),
		"jti": rand.Text(),
	})
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("the JWT can't be signed: %w", masked(err))
	}
	return text, nil
}

func (j *JWT) signer() (jose.Signer, error) {
	key := cryptosigner.Opaque(pss{j.Key})
	alg := jose.SignatureAlgorithm(j.Algorithm)
	switch algs := key.Algs(); {
	case len(algs) == 0:
		return nil, fmt.Errorf("Key: there is no algorithm for a %T", j.Key)
	case alg == "":
		alg = algs[0]
	case !slices.Contains(algs, alg):
		return nil, fmt.Errorf("Algorithm %q is none of the key's, which are %q", alg, algs)
	}
	opts := new(jose.SignerOptions).WithType("JWT")
	if j.KeyID != "" {
		opts.WithHeader("kid", j.KeyID)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	return signer, masked(err)
}

// pss gives RSASSA-PSS the salt length that RFC 7518 §3.5 wants, which
// cryptosigner leaves to the key.
type pss struct{ crypto.Signer }

func (s pss) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if o, ok := opts.(*rsa.PSSOptions); ok {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: o.Hash}
	}
	return s.Signer.Sign(rand, digest, opts)
}

// within returns a copy of j with what it has from the Config.
func (j *JWT) within(cfg *Config) *JWT {
	out := *j
	if out.Issuer == "" {
		out.Issuer = cfg.ClientID
	}
	if out.Audience == "" {
		out.Audience = cfg.TokenURL
	}
	return &out
}

// check returns what is wrong with the fields.
func (j *JWT) check() (errs []error) {
	if j == nil {
		return []error{errors.New("nil *JWT")}
	}
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf("JWT: "+format, args...)) }
	if !usable(j.Key) {
		add("Key is missing or empty")
	} else if _, err := j.signer(); err != nil {
		add("%w", err)
	}
	if j.Issuer == "" {
		add("Issuer is missing")
	}
	if j.Audience == "" {
		add("Audience is missing")
	}
	if j.Lifetime < 0 {
		add("Lifetime is negative (%v); use 0 for the default of %v", j.Lifetime, defaultLifetime)
	}
	for _, name := range []string{"iss", "sub", "aud", "iat", "exp", "jti"} {
		if _, ok := j.Claims[name]; ok {
			add("Claims has %q, which the JWT sets itself", name)
		}
	}
	if _, err := json.Marshal(j.Claims); err != nil {
		add("Claims can't be marshalled: %w", masked(err))
	}
	return errs
}

// usable reports whether key can be asked for its public half: the keys of
// the standard library panic if there is none.
func usable(key crypto.Signer) bool {
	switch k := key.(type) {
	case nil:
		return false
	case *rsa.PrivateKey:
		return k != nil && k.N != nil
	case ed25519.PrivateKey:
		return len(k) == ed25519.PrivateKeySize
	}
	v := reflect.ValueOf(key)
	return v.Kind() != reflect.Pointer || !v.IsNil()
}

func (j *JWT) subject() string {
	if j.Subject == "" {
		return j.Issuer
	}
	return j.Subject
}

func (j *JWT) lifetime() time.Duration {
	if j.Lifetime == 0 {
		return defaultLifetime
	}
	return j.Lifetime
}

// String names j's key, issuer, subject and audience.
func (j JWT) String() string {
	return fmt.Sprintf("JWT(key %q, issuer %q, subject %q, audience %q)", j.KeyID, j.Issuer, j.Subject, maskedURL(j.Audience))
}

// Format prints String for every verb.
func (j JWT) Format(s fmt.State, verb rune) { format(s, verb, j.String()) }

// MarshalJSON returns String as a JSON string.
func (j JWT) MarshalJSON() ([]byte, error) { return json.Marshal(j.String()) }

// LogValue returns String.
func (j JWT) LogValue() slog.Value { return slog.StringValue(j.String()) }

// prefixed puts the prefix before err.
func prefixed(text string, err error) (string, error) {
	if err != nil {
		err = fmt.Errorf(prefix+"%w", err)
	}
	return text, err
}

// set puts the token of a into the form.
func set(ctx context.Context, in requestforge.Input, form url.Values, name string, a Assertion) error {
	assert := a.Assert
	if own, ok := a.(interface {
		assert(ctx context.Context, in requestforge.Input) (string, error)
	}); ok {
		assert = own.assert
	}
	text, err := assert(ctx, in)
	if err != nil {
		return failed(name, err)
	}
	if text == "" {
		return fmt.Errorf("%s: it is empty", name)
	}
	form.Set(name, text)
	return nil
}
