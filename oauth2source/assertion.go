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

// Assertion returns a token that proves to an auth server who the client is, or on whose
// behalf the client asks. Assert is called once for each request. Errors are logged and
// must not hold secrets.
type Assertion interface {
	Assert(ctx context.Context, in requestforge.Input) (string, error)
}

// AssertionFunc is an Assertion made from a function: for an id_token in the Extra of a
// parent's token, or for a token that a service signs. For a token in a file use
// [AssertionFile].
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

// JWT is an Assertion that go-jose signs anew for each request, with a fresh iat, exp and
// jti. A JWT must not be changed after its first use. A printed JWT shows no key, Header or
// Claims.
type JWT struct {
	// Key signs: an *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey, or the
	// crypto.Signer of a key in an HSM or a cloud's key service. Key or KeyFrom is
	// required.
	Key crypto.Signer

	// KeyFrom returns a key that changes while the program runs, instead of Key, and header
	// members that belong to the key, such as kid, or the thumbprint of the key's
	// certificate as "x5t#S256". The header takes precedence over KeyID and Header. A grant
	// calls KeyFrom for each request and treats the key like a secret of
	// [requestforge.ClientAuth].SecretFrom: if the server refuses a key and KeyFrom then
	// returns another key, the grant asks again at once; a new key ends a cool-down; an
	// error, a panic or a key that can't sign is a temporary failure before sending.
	// Several goroutines may call KeyFrom at once. Nil means Key.
	KeyFrom func(ctx context.Context) (key crypto.Signer, header map[string]any, err error)

	// KeyID is the kid of the header, by which the server finds the public key. Empty means
	// no kid.
	KeyID string

	// Header holds further members of the header, as values for encoding/json: the
	// thumbprint of a certificate as "x5t#S256", say, or a typ in place of JWT. alg and kid
	// are a mistake in Header. Nil means no further members.
	Header map[string]any

	// Algorithm is the alg of the header. Empty means the algorithm of the key's type:
	// RS256, ES256, ES384, ES512 or EdDSA.
	Algorithm string

	// Issuer is the iss claim. Empty means Config.ClientAuth.ID.
	Issuer string

	// Subject is the sub claim, the user or client that the token is about. Empty means the
	// issuer.
	Subject string

	// Audience is the aud claim, the server that the JWT is for. Empty means
	// Config.TokenURL; some servers want their issuer URL instead.
	Audience string

	// Lifetime is the time from iat to exp. Zero means 5 min. A negative Lifetime is a
	// mistake, and so is a Lifetime no longer than Backdate.
	Lifetime time.Duration

	// Backdate is how far iat lies before the signature, so that a server whose clock is
	// slow doesn't see a JWT from the future. Zero means 10 s, negative means no
	// backdating.
	Backdate time.Duration

	// Claims are further claims, as values for encoding/json. The claims of the fields
	// above, iat, exp and jti are a mistake in Claims.
	Claims map[string]any
}

const (
	defaultLifetime = 5 * time.Minute
	defaultBackdate = 10 * time.Second
)

// Assert signs a new JWT. Outside of a grant, Issuer and Audience have no
// default.
func (j *JWT) Assert(ctx context.Context, in requestforge.Input) (string, error) {
	return prefixed(j.assert(ctx, in))
}

func (j *JWT) assert(ctx context.Context, in requestforge.Input) (string, error) {
	if errs := j.check(); len(errs) > 0 {
		return "", errors.Join(errs...)
	}
	if j.changes() {
		own, err := j.now(ctx, io.Discard)
		if err != nil {
			return "", err
		}
		return own.(*JWT).assert(ctx, in)
	}
	signer, err := j.signer()
	if err != nil {
		return "", err
	}
	issued := time.Now().Add(-j.backdate())
	claims := maps.Clone(j.Claims)
	if claims == nil {
		claims = make(map[string]any)
	}
	maps.Copy(claims, map[string]any{
		"iss": j.Issuer,
		"sub": j.subject(),
		"aud": j.Audience,
		"iat": issued.Unix(),
		"exp": issued.Add(j.lifetime()).Unix(),
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
	for name, value := range j.Header {
		opts.WithHeader(jose.HeaderKey(name), value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	return signer, masked(err)
}

// pss gives RSASSA-PSS the salt length of RFC 7518 §3.5, since cryptosigner leaves the salt
// length to the key.
type pss struct{ crypto.Signer }

func (s pss) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if o, ok := opts.(*rsa.PSSOptions); ok {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: o.Hash}
	}
	return s.Signer.Sign(rand, digest, opts)
}

// within returns a copy of j with the defaults from the Config.
func (j *JWT) within(cfg *Config) *JWT {
	out := *j
	if out.Issuer == "" {
		out.Issuer = cfg.client().ID
	}
	if out.Audience == "" {
		out.Audience = cfg.TokenURL
	}
	return &out
}

// check returns the mistakes in the fields.
func (j *JWT) check() (errs []error) {
	if j == nil {
		return []error{errors.New("nil *JWT")}
	}
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf("JWT: "+format, args...)) }
	switch {
	case j.KeyFrom != nil && j.Key != nil:
		add("Key and KeyFrom are both set: one of them signs")
	case j.KeyFrom == nil:
		for _, err := range j.checkKey() {
			add("%w", err)
		}
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
	if j.Lifetime >= 0 && j.backdate() >= j.lifetime() {
		add("the Lifetime of %v is over when the JWT is signed, %v after iat: set a shorter Backdate or a longer Lifetime", j.lifetime(), j.backdate())
	}
	for _, name := range []string{"iss", "sub", "aud", "iat", "exp", "jti"} {
		if _, ok := j.Claims[name]; ok {
			add("Claims has %q, which the JWT sets itself", name)
		}
	}
	for name, field := range map[string]string{"alg": "Algorithm", "kid": "KeyID"} {
		if _, ok := j.Header[name]; ok {
			add("Header has %q, which %s says", name, field)
		}
	}
	if _, err := json.Marshal(j.Header); err != nil {
		add("Header can't be marshalled: %w", masked(err))
	}
	if _, err := json.Marshal(j.Claims); err != nil {
		add("Claims can't be marshalled: %w", masked(err))
	}
	return errs
}

// checkKey returns the mistakes in Key.
func (j *JWT) checkKey() []error {
	if !usable(j.Key) {
		return []error{errors.New("Key is missing or empty")}
	}
	if _, err := j.signer(); err != nil {
		return []error{err}
	}
	return nil
}

// usable reports whether key has a public half to ask for: an empty key of the standard
// library panics.
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

func (j *JWT) backdate() time.Duration {
	if j.Backdate == 0 {
		return defaultBackdate
	}
	return max(j.Backdate, 0)
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

// MarshalText returns String, for XML and the like.
func (j JWT) MarshalText() ([]byte, error) { return []byte(j.String()), nil }

// GobEncode returns an error: gob would encode the secrets.
func (j JWT) GobEncode() ([]byte, error) { return nil, errGob }

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
func (g *Grant) set(ctx context.Context, in requestforge.Input, form url.Values, name string, a Assertion) error {
	a, err := g.current(ctx, a)
	if err != nil {
		return &unreadable{failed(name, err)}
	}
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
