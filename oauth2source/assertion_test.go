package oauth2source_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
)

type keys struct {
	rsa     *rsa.PrivateKey
	ed25519 ed25519.PrivateKey
	ecdsa   map[elliptic.Curve]*ecdsa.PrivateKey
}

// testKeys makes the keys of these tests, once.
var testKeys = sync.OnceValue(func() keys {
	k := keys{ecdsa: map[elliptic.Curve]*ecdsa.PrivateKey{}}
	var errs [2]error
	k.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	_, k.ed25519, errs[1] = ed25519.GenerateKey(rand.Reader)
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		k.ecdsa[curve] = key
		errs[0] = errors.Join(errs[0], err)
	}
	if err := errors.Join(errs[:]...); err != nil {
		panic(err)
	}
	return k
})

// remote is a key that shows its public half only, as one in an HSM does.
type remote struct{ key crypto.Signer }

func (r remote) Public() crypto.PublicKey { return r.key.Public() }

func (r remote) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return r.key.Sign(rand, digest, opts)
}

// verified returns the header and claims of a JWT that key has signed.
func verified(t *testing.T, text string, key crypto.PublicKey) (jose.Header, map[string]any) {
	t.Helper()
	tok, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := tok.Claims(key, &claims); err != nil {
		t.Fatalf("the signature is not the key's: %v", err)
	}
	return tok.Headers[0], claims
}

func TestJWTIsSignedByAnyKeyOfTheStandardLibrary(t *testing.T) {
	k := testKeys()
	for name, tt := range map[string]struct {
		key  crypto.Signer
		alg  string
		want string
	}{
		"RSA":          {k.rsa, "", "RS256"},
		"RSA with PSS": {k.rsa, "PS256", "PS256"},
		"remote RSA":   {remote{k.rsa}, "PS256", "PS256"},
		"P-256":        {k.ecdsa[elliptic.P256()], "", "ES256"},
		"P-384":        {k.ecdsa[elliptic.P384()], "", "ES384"},
		"P-521":        {remote{k.ecdsa[elliptic.P521()]}, "", "ES512"},
		"Ed25519":      {k.ed25519, "", "EdDSA"},
	} {
		t.Run(name, func(t *testing.T) {
			j := &oauth2source.JWT{Key: tt.key, Algorithm: tt.alg, KeyID: "key-1", Issuer: "i", Audience: "a"}
			text, err := j.Assert(t.Context(), requestforge.Input{})
			if err != nil {
				t.Fatal(err)
			}
			header, _ := verified(t, text, tt.key.Public())
			if header.Algorithm != tt.want || header.KeyID != "key-1" || header.ExtraHeaders["typ"] != "JWT" {
				t.Errorf("header: %+v, want %s", header, tt.want)
			}
			if tt.want == "PS256" {
				// RFC 7518 §3.5: the salt is as long as the hash, which
				// a verifier may insist on.
				signed, signature, _ := strings.Cut(text[strings.Index(text, ".")+1:], ".")
				sum := sha256.Sum256([]byte(text[:strings.Index(text, ".")+1] + signed))
				raw, err := base64.RawURLEncoding.DecodeString(signature)
				if err != nil {
					t.Fatal(err)
				}
				if err := rsa.VerifyPSS(&k.rsa.PublicKey, crypto.SHA256, sum[:], raw, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}); err != nil {
					t.Errorf("the salt: %v", err)
				}
			}
		})
	}
}

func TestJWTBearerSignsAFreshAssertionForEachFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newBubble(t)
		key := testKeys().ecdsa[elliptic.P256()]
		cfg := oauth2source.Config{TokenURL: server.url("/token"), ClientAuth: &requestforge.ClientAuth{ID: "client"}, Client: server.client()}
		claims := map[string]any{"scope": "mail", "act": map[string]any{"sub": "bot"}}
		for name, tt := range map[string]struct {
			jwt  oauth2source.JWT
			ago  time.Duration // of iat
			want map[string]any
		}{
			"by default": {oauth2source.JWT{Key: key}, 10 * time.Second, map[string]any{"iss": "client", "sub": "client", "aud": server.url("/token"), "life": 300.0}},
			"all said": {oauth2source.JWT{Key: key, Issuer: "service", Subject: "user", Audience: "https://issuer", Lifetime: time.Minute, Backdate: 30 * time.Second, Claims: claims},
				30 * time.Second, map[string]any{"iss": "service", "sub": "user", "aud": "https://issuer", "life": 60.0, "scope": "mail", "act": map[string]any{"sub": "bot"}}},
			"not backdated": {oauth2source.JWT{Key: key, Backdate: -1}, 0, map[string]any{"iss": "client", "sub": "client", "aud": server.url("/token"), "life": 300.0}},
		} {
			grant := oauth2source.JWTBearer(cfg, &tt.jwt)
			seen := map[string]bool{}
			for range 2 {
				time.Sleep(time.Hour)
				if _, err := grant.Fetch(t.Context(), requestforge.Input{}); err != nil {
					t.Fatal(err)
				}
				_, got := verified(t, server.last().Get("assertion"), key.Public())
				id, _ := got["jti"].(string)
				if len(id) < 20 || seen[id] {
					t.Errorf("%s: jti %q is short or was there before", name, id)
				}
				seen[id] = true
				if ago := float64(time.Now().Unix()) - got["iat"].(float64); ago != tt.ago.Seconds() {
					t.Errorf("%s: iat is %v s before now, want %v", name, ago, tt.ago)
				}
				got["life"] = got["exp"].(float64) - got["iat"].(float64)
				for _, n := range []string{"jti", "iat", "exp"} {
					delete(got, n)
				}
				if !reflect.DeepEqual(got, tt.want) {
					t.Errorf("%s: got %v, want %v", name, got, tt.want)
				}
			}
		}
		if len(claims) != 2 {
			t.Errorf("the caller's claims were changed: %v", claims)
		}
	})
}

func TestClientAssertionIsPrivateKeyJWT(t *testing.T) {
	e := newEndpoint(t, nil)
	key := testKeys().rsa
	cfg := oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "client"}, ClientAssertion: &oauth2source.JWT{Key: key, KeyID: "k"}}
	for range 2 {
		if _, err := oauth2source.ClientCredentials(cfg).Fetch(t.Context(), requestforge.Input{}); err != nil {
			t.Fatal(err)
		}
		form, auth := e.last()
		_, claims := verified(t, form.Get("client_assertion"), key.Public())
		if claims["iss"] != "client" || claims["sub"] != "client" || claims["aud"] != e.URL || claims["jti"] == "" {
			t.Errorf("claims: %v", claims)
		}
		if auth != "" || form.Has("client_secret") || form.Get("client_id") != "client" ||
			form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
			t.Errorf("%v, Authorization %q", form, auth)
		}
	}
	if e.forms[0].Get("client_assertion") == e.forms[1].Get("client_assertion") {
		t.Error("one assertion was sent twice")
	}
}

// The assertion of a client says who that is: some servers take no client_id beside it.
func TestClientAssertionDoesWithoutAnID(t *testing.T) {
	e := newEndpoint(t, nil)
	key := testKeys().rsa
	grant := func(issuer string) *oauth2source.Grant {
		return oauth2source.ClientCredentials(oauth2source.Config{TokenURL: e.URL, ClientAssertion: &oauth2source.JWT{Key: key, Issuer: issuer}})
	}
	if _, err := grant("app-1").Fetch(t.Context(), requestforge.Input{}); err != nil {
		t.Fatal(err)
	}
	form, _ := e.last()
	if _, claims := verified(t, form.Get("client_assertion"), key.Public()); claims["iss"] != "app-1" || form.Has("client_id") {
		t.Errorf("%v, claims %v", form, claims)
	}
	if a, b := grant("app-1").Identity(), grant("app-2").Identity(); a == "" || a == b {
		t.Errorf("the identities of two clients are %q and %q", a, b)
	}
	f := oauth2source.AssertionFunc(func(context.Context, requestforge.Input) (string, error) { return "x", nil })
	if id := oauth2source.ClientCredentials(oauth2source.Config{TokenURL: e.URL, ClientAssertion: f}).Identity(); id != "" {
		t.Errorf("whoever a function names is %q", id)
	}
	if err := grant("").Validate(); err == nil || !strings.Contains(err.Error(), "Issuer is missing") {
		t.Errorf("nobody: %v", err)
	}
}

// A certificate is named by its thumbprint.
func TestJWTHeader(t *testing.T) {
	key := testKeys().rsa
	j := &oauth2source.JWT{Key: key, Issuer: "i", Audience: "a", Algorithm: "PS256", Header: map[string]any{"x5t#S256": "thumb", "typ": "other"}}
	text, err := j.Assert(t.Context(), requestforge.Input{})
	if err != nil {
		t.Fatal(err)
	}
	header, _ := verified(t, text, key.Public())
	if header.ExtraHeaders["x5t#S256"] != "thumb" || header.ExtraHeaders["typ"] != "other" || header.KeyID != "" {
		t.Errorf("header: %+v", header)
	}
}

func TestExchangeKnowsASignedJWTForOne(t *testing.T) {
	e := newEndpoint(t, nil)
	key := testKeys().ed25519
	cfg := oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "client"}}
	_, err := oauth2source.TokenExchange(cfg, oauth2source.Exchange{
		Subject: oauth2source.FromStep("app"),
		Actor:   &oauth2source.JWT{Key: key},
	}).Fetch(t.Context(), requestforge.Input{Parents: map[string]*requestforge.Token{"app": bearer("app")}})
	if err != nil {
		t.Fatal(err)
	}
	form, _ := e.last()
	if _, claims := verified(t, form.Get("actor_token"), key.Public()); claims["sub"] != "client" || form.Get("actor_token_type") != oauth2source.JWTType {
		t.Errorf("%v, claims %v", form, claims)
	}
}

func TestJWTMistakesAreErrors(t *testing.T) {
	k := testKeys()
	good := oauth2source.JWT{Key: k.ed25519, Issuer: "i", Audience: "a"}
	for name, tt := range map[string]struct {
		change func(*oauth2source.JWT)
		want   string
	}{
		"no key":             {func(j *oauth2source.JWT) { j.Key = nil }, "Key is missing"},
		"nil RSA key":        {func(j *oauth2source.JWT) { j.Key = (*rsa.PrivateKey)(nil) }, "Key is missing"},
		"zero RSA key":       {func(j *oauth2source.JWT) { j.Key = new(rsa.PrivateKey) }, "Key is missing"},
		"nil ECDSA key":      {func(j *oauth2source.JWT) { j.Key = (*ecdsa.PrivateKey)(nil) }, "Key is missing"},
		"zero ECDSA key":     {func(j *oauth2source.JWT) { j.Key = new(ecdsa.PrivateKey) }, "no algorithm for a *ecdsa.PrivateKey"},
		"short Ed25519 key":  {func(j *oauth2source.JWT) { j.Key = ed25519.PrivateKey{1} }, "Key is missing"},
		"curve without name": {func(j *oauth2source.JWT) { j.Key = k.ecdsa[elliptic.P224()] }, "no algorithm for a *ecdsa.PrivateKey"},
		"another key's":      {func(j *oauth2source.JWT) { j.Algorithm = "RS256" }, `Algorithm "RS256" is none of the key's`},
		"none":               {func(j *oauth2source.JWT) { j.Algorithm = "none" }, `Algorithm "none" is none of the key's`},
		"no issuer":          {func(j *oauth2source.JWT) { j.Issuer = "" }, "Issuer is missing"},
		"no audience":        {func(j *oauth2source.JWT) { j.Audience = "" }, "Audience is missing"},
		"negative":           {func(j *oauth2source.JWT) { j.Lifetime = -1 }, "Lifetime is negative"},
		"a claim of ours":    {func(j *oauth2source.JWT) { j.Claims = map[string]any{"exp": 1} }, `Claims has "exp"`},
		"a header of ours":   {func(j *oauth2source.JWT) { j.Header = map[string]any{"alg": "none"} }, `Header has "alg", which Algorithm says`},
		"a header of KeyID":  {func(j *oauth2source.JWT) { j.Header = map[string]any{"kid": "1"} }, `Header has "kid", which KeyID says`},
		"a header, no JSON":  {func(j *oauth2source.JWT) { j.Header = map[string]any{"f": func() {}} }, "Header can't be marshalled"},
		"no JSON":            {func(j *oauth2source.JWT) { j.Claims = map[string]any{"f": func() {}} }, "Claims can't be marshalled"},
	} {
		j := good
		tt.change(&j)
		if text, err := j.Assert(t.Context(), requestforge.Input{}); text != "" || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %q, %v; want %q", name, text, err, tt.want)
		}
	}
}

// A key service that can't be reached has spent no refresh token.
func TestAssertionThatFailsSpendsNoRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newBubble(t)
		server.token = `{"access_token":"a","refresh_token":"r","expires_in":3600}`
		down := false
		cfg := oauth2source.Config{TokenURL: server.url("/token"), ClientAuth: &requestforge.ClientAuth{ID: "client"}, Client: server.client(),
			ClientAssertion: oauth2source.AssertionFunc(func(context.Context, requestforge.Input) (string, error) {
				if down {
					return "", io.ErrUnexpectedEOF
				}
				return "signed", nil
			})}
		p := newPipeline(t, requestforge.Step{Name: "app", Fetcher: oauth2source.ClientCredentials(cfg), Refresh: oauth2source.Refresh(cfg)})
		if _, err := p.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		down = true
		if _, err := p.Refresh(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("got %v, want the key service's error", err)
		}
		down = false
		time.Sleep(time.Minute)
		if _, err := p.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if form := server.last(); form.Get("refresh_token") != "r" {
			t.Errorf("after the failure the server was asked with %v, want the refresh token", form)
		}
	})
}
