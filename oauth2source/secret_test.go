// Secrets, keys and files that change while a grant is in use.

package oauth2source_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
)

// changing is a client whose secret, whatever that is, has a version: 0 can't be read.
type changing struct {
	version atomic.Int64
	dir     string
	keys    [4]crypto.Signer
}

func newChanging(t *testing.T) *changing {
	k := testKeys()
	return &changing{dir: t.TempDir(), keys: [4]crypto.Signer{1: k.ecdsa[elliptic.P256()], 2: k.ecdsa[elliptic.P384()], 3: k.ecdsa[elliptic.P521()]}}
}

func (c *changing) file() string { return filepath.Join(c.dir, "token") }

// set changes everything to a version.
func (c *changing) set(t *testing.T, version int64) {
	c.version.Store(version)
	if version == 0 {
		if err := os.Remove(c.file()); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		return
	}
	next := filepath.Join(c.dir, "next")
	if err := errors.Join(os.WriteFile(next, fmt.Appendf(nil, "s3cret-%d\n", version), 0o600), os.Rename(next, c.file())); err != nil {
		t.Error(err)
	}
}

func (c *changing) secret(context.Context) (string, error) {
	if v := c.version.Load(); v > 0 {
		return fmt.Sprint("s3cret-", v), nil
	}
	return "", errors.New("no such file: the vault is sealed")
}

func (c *changing) key(context.Context) (crypto.Signer, map[string]any, error) {
	if v := c.version.Load(); v > 0 {
		return c.keys[v], map[string]any{"kid": fmt.Sprint("s3cret-", v), "x5t#S256": "thumbprint"}, nil
	}
	return nil, nil, errors.New("no such file: the HSM is away")
}

// shown is the version that a request shows, by what it carries.
func shown(t *testing.T, form url.Values, authorization string) string {
	for _, name := range []string{"client_secret", "client_assertion", "assertion", "subject_token"} {
		text := form.Get(name)
		if strings.Count(text, ".") == 2 {
			tok, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512})
			if err != nil {
				t.Error(err)
				return ""
			}
			if tok.Headers[0].ExtraHeaders["x5t#S256"] != "thumbprint" || tok.Headers[0].ExtraHeaders["typ"] != "JWT" {
				t.Errorf("header: %v", tok.Headers[0])
			}
			text = tok.Headers[0].KeyID
		}
		if text != "" {
			return text
		}
	}
	_, secret, _ := parseBasic(authorization)
	return secret
}

// Whatever a grant's secret is: one that is refused is sent once until there is another
// one, which is sent at once if that came while the request was under way, and at the next
// call otherwise; one that can't be read is a passing fault, and nothing is sent.
func TestChangingSecretsOfGrants(t *testing.T) {
	for name, make := range map[string]func(cfg oauth2source.Config, c *changing) *oauth2source.Grant{
		"SecretFrom": func(cfg oauth2source.Config, c *changing) *oauth2source.Grant {
			cfg.ClientAuth = &requestforge.ClientAuth{ID: "client", SecretFrom: c.secret}
			return oauth2source.ClientCredentials(cfg)
		},
		"SecretFrom in the form": func(cfg oauth2source.Config, c *changing) *oauth2source.Grant {
			cfg.ClientAuth = &requestforge.ClientAuth{ID: "client", SecretFrom: c.secret, InBody: true}
			return oauth2source.Password(cfg, "ann", "made-up")
		},
		"SecretFile": func(cfg oauth2source.Config, c *changing) *oauth2source.Grant {
			cfg.ClientAuth = &requestforge.ClientAuth{ID: "client", SecretFrom: requestforge.SecretFile(c.file())}
			return oauth2source.ClientCredentials(cfg)
		},
		"AssertionFile of a client": func(cfg oauth2source.Config, c *changing) *oauth2source.Grant {
			cfg.ClientAssertion = oauth2source.AssertionFile(c.file())
			return oauth2source.ClientCredentials(cfg)
		},
		"AssertionFile that is traded": func(cfg oauth2source.Config, c *changing) *oauth2source.Grant {
			return oauth2source.JWTBearer(cfg, oauth2source.AssertionFile(c.file()))
		},
		"AssertionFile that is exchanged": func(cfg oauth2source.Config, c *changing) *oauth2source.Grant {
			return oauth2source.TokenExchange(cfg, oauth2source.Exchange{Subject: oauth2source.AssertionFile(c.file())})
		},
		"KeyFrom of a client": func(cfg oauth2source.Config, c *changing) *oauth2source.Grant {
			cfg.ClientAssertion = &oauth2source.JWT{KeyFrom: c.key}
			return oauth2source.ClientCredentials(cfg)
		},
		"KeyFrom of an assertion": func(cfg oauth2source.Config, c *changing) *oauth2source.Grant {
			return oauth2source.JWTBearer(cfg, &oauth2source.JWT{KeyFrom: c.key})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChanging(t)
			var right atomic.Int64
			during := func() {}
			var e *endpoint
			e = newEndpoint(t, func(n int, form url.Values) (int, string) {
				version := shown(t, form, e.header[n-1].Get("Authorization"))
				during()
				if version != fmt.Sprint("s3cret-", right.Load()) {
					return 401, `{"error":"invalid_client"}`
				}
				return 200, fmt.Sprintf(`{"access_token":"token-%d","token_type":"bearer","expires_in":3600}`, n)
			})
			grant := make(oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "client"}}, c)
			p, err := requestforge.NewPipeline(requestforge.PipelineConfig{FetchRetries: -1, Steps: []requestforge.Step{{Name: "app", Fetcher: grant}}})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			fails := func(times int, want string) {
				t.Helper()
				for range times {
					_, err := p.Token(t.Context())
					auth, ok := errors.AsType[*requestforge.AuthError](err)
					if !ok || auth.Permanent == auth.Unsent || !strings.Contains(err.Error(), want) || strings.Contains(fmt.Sprintf("%+v", err), "s3cret") {
						t.Fatalf("got %v, want %s", err, want)
					}
				}
			}
			asked := func(want int) {
				t.Helper()
				if n := e.requests(); n != want {
					t.Fatalf("%d requests, want %d", n, want)
				}
			}
			works := func() {
				t.Helper()
				if _, err := p.Token(t.Context()); err != nil {
					t.Fatal(err)
				}
			}

			right.Store(2)
			fails(5, "no such file")
			asked(0)
			if _, err := grant.Fetch(t.Context(), requestforge.Input{}); err == nil || !strings.Contains(err.Error(), "no such file") {
				t.Errorf("outside of a pipeline: %v", err)
			}
			c.set(t, 1)
			fails(5, "invalid_client")
			asked(1)
			c.set(t, 2)
			works()
			asked(2)

			// Rotated while the request is under way.
			if err := p.InvalidateStep(t.Context(), "app"); err != nil {
				t.Fatal(err)
			}
			during = func() { right.Store(3); c.set(t, 3) }
			works()
			asked(4)

			// Gone: the last good token goes on being served.
			c.set(t, 0)
			works()
			asked(4)
		})
	}
}

// A person who approves a login isn't asked again because the client's secret was rotated
// meanwhile.
func TestDeviceCodePollsWithTheSecretOfTheMoment(t *testing.T) {
	c := newChanging(t)
	c.set(t, 1)
	var e *endpoint
	e = newEndpoint(t, func(n int, form url.Values) (int, string) {
		version := shown(t, form, e.header[n-1].Get("Authorization"))
		if version != fmt.Sprint("s3cret-", c.version.Load()) {
			return 401, `{"error":"invalid_client"}`
		}
		c.set(t, 2)
		if form.Get("grant_type") == "" {
			return 200, `{"device_code":"d","user_code":"u","verification_uri":"https://example.com","interval":1,"expires_in":600}`
		}
		return 200, `{"access_token":"t","token_type":"bearer"}`
	})
	prompts := 0
	grant := oauth2source.DeviceCode(oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "client", SecretFrom: c.secret}}, e.URL,
		func(context.Context, *oauth2.DeviceAuthResponse) error { prompts++; return nil })
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	if _, err := grant.Fetch(ctx, requestforge.Input{}); err != nil || prompts != 1 {
		t.Errorf("%v after %d prompts", err, prompts)
	}
}

// What can't be an assertion, or a key, is named, and is a passing fault.
func TestAssertionFilesAndKeysThatCantBeUsed(t *testing.T) {
	e := newEndpoint(t, nil)
	dir := t.TempDir()
	put := func(text string) string {
		path := filepath.Join(dir, fmt.Sprint(len(text)))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := func(key crypto.Signer, header map[string]any, err error) *oauth2source.JWT {
		return &oauth2source.JWT{KeyFrom: func(context.Context) (crypto.Signer, map[string]any, error) { return key, header, err }}
	}
	good := testKeys().ed25519
	for name, tt := range map[string]struct {
		assertion oauth2source.Assertion
		want      string
	}{
		"missing":        {oauth2source.AssertionFile(filepath.Join(dir, "missing")), "AssertionFile: stat " + dir + "/missing: no such file"},
		"empty":          {oauth2source.AssertionFile(put("")), "is empty"},
		"a directory":    {oauth2source.AssertionFile(dir), "is a directory"},
		"too large":      {oauth2source.AssertionFile(put(strings.Repeat("s3cret", 20_000))), "larger than 64 KiB"},
		"no key":         {key(nil, nil, nil), "JWT.KeyFrom: Key is missing or empty"},
		"an error":       {key(nil, nil, errors.New(`the HSM says "s3cret"`)), "JWT.KeyFrom: the HSM says"},
		"no algorithm":   {key(testKeys().ecdsa[elliptic.P224()], nil, nil), "JWT.KeyFrom: Key: there is no algorithm"},
		"an odd kid":     {key(good, map[string]any{"kid": 7}, nil), "JWT.KeyFrom: the kid of the header is no string"},
		"a panic":        {&oauth2source.JWT{KeyFrom: func(context.Context) (crypto.Signer, map[string]any, error) { panic("s3cret") }}, "JWT.KeyFrom: panic"},
		"another signer": {&oauth2source.JWT{Algorithm: "ES256", KeyFrom: key(good, nil, nil).KeyFrom}, `JWT.KeyFrom: Algorithm "ES256" is none of the key's`},
	} {
		t.Run(name, func(t *testing.T) {
			grant := oauth2source.ClientCredentials(oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "client"}, ClientAssertion: tt.assertion})
			if err := grant.Validate(); err != nil {
				t.Fatal(err)
			}
			_, err := grant.Fetch(t.Context(), requestforge.Input{})
			auth, ok := errors.AsType[*requestforge.AuthError](err)
			if !ok || !auth.Unsent || !auth.Temporary || auth.Permanent {
				t.Errorf("%#v is no passing fault", err)
			}
			for _, part := range []string{"client_assertion: ", tt.want} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, want %s", err, part)
				}
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), "s3cret") {
				t.Errorf("%v shows a secret", err)
			}
		})
	}
	if n := e.requests(); n > 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestChangingSecretsThatAreMistakes(t *testing.T) {
	from := func(context.Context) (string, error) { return "s", nil }
	key := func(context.Context) (crypto.Signer, map[string]any, error) { return testKeys().ed25519, nil, nil }
	cfg := oauth2source.Config{TokenURL: "https://auth.example.com", ClientAuth: &requestforge.ClientAuth{ID: "client"}}
	for want, change := range map[string]func(cfg *oauth2source.Config){
		"Secret and SecretFrom are both set": func(cfg *oauth2source.Config) {
			cfg.ClientAuth = &requestforge.ClientAuth{ID: "client", Secret: "s", SecretFrom: from}
		},
		"a client authenticates in one way": func(cfg *oauth2source.Config) {
			cfg.ClientAuth = &requestforge.ClientAuth{ID: "client", SecretFrom: from}
			cfg.ClientAssertion = oauth2source.AssertionFile("token")
		},
		"AssertionFile names no file": func(cfg *oauth2source.Config) { cfg.ClientAssertion = oauth2source.AssertionFile("") },
		"Key and KeyFrom are both set": func(cfg *oauth2source.Config) {
			cfg.ClientAssertion = &oauth2source.JWT{Key: testKeys().ed25519, KeyFrom: key}
		},
		"the Lifetime of 10s is over when the JWT is signed": func(cfg *oauth2source.Config) {
			cfg.ClientAssertion = &oauth2source.JWT{KeyFrom: key, Lifetime: 10 * time.Second}
		},
		"the Lifetime of 5m0s is over": func(cfg *oauth2source.Config) {
			cfg.ClientAssertion = &oauth2source.JWT{KeyFrom: key, Backdate: time.Hour}
		},
	} {
		cfg := cfg
		change(&cfg)
		if err := oauth2source.ClientCredentials(cfg).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// KeyFrom's header goes over the one of the JWT, and each call has the key of its moment.
func TestJWTSignsWithTheKeyOfTheMoment(t *testing.T) {
	c := newChanging(t)
	j := &oauth2source.JWT{KeyFrom: c.key, KeyID: "of the JWT", Header: map[string]any{"x5t#S256": "of the JWT", "typ": "JWT"}, Issuer: "i", Audience: "a"}
	for version := int64(1); version < 4; version++ {
		c.set(t, version)
		text, err := j.Assert(t.Context(), requestforge.Input{})
		if err != nil {
			t.Fatal(err)
		}
		header, _ := verified(t, text, c.keys[version].Public())
		if header.KeyID != fmt.Sprint("s3cret-", version) || header.ExtraHeaders["x5t#S256"] != "thumbprint" {
			t.Errorf("header: %+v", header)
		}
	}
	bare := *j
	bare.KeyFrom = func(context.Context) (crypto.Signer, map[string]any, error) { return c.keys[1], nil, nil }
	text, err := bare.Assert(t.Context(), requestforge.Input{})
	if err != nil {
		t.Fatal(err)
	}
	if header, _ := verified(t, text, c.keys[1].Public()); header.KeyID != "of the JWT" || header.ExtraHeaders["x5t#S256"] != "of the JWT" {
		t.Errorf("header: %+v", header)
	}
	if j.KeyID != "of the JWT" || j.Header["x5t#S256"] != "of the JWT" {
		t.Errorf("the program's JWT was changed: %v", j.Header)
	}
}

// A secret that changes is no part of whose the tokens are; whose a file's token is nobody
// knows, unless the client's id says so.
func TestIdentityOfChangingSecrets(t *testing.T) {
	c := newChanging(t)
	cfg := oauth2source.Config{TokenURL: "https://auth.example.com", ClientAuth: &requestforge.ClientAuth{ID: "client", Secret: "s"}}
	static := oauth2source.ClientCredentials(cfg)
	cfg.ClientAuth = &requestforge.ClientAuth{ID: "client", SecretFrom: c.secret}
	if g := oauth2source.ClientCredentials(cfg); g.Identity() != static.Identity() || g.Identity() == "" {
		t.Error("a secret that changes makes another identity")
	} else if !strings.Contains(g.String(), "HTTP Basic") {
		t.Errorf("%v doesn't say how the client authenticates", g)
	}
	cfg.ClientAuth, cfg.ClientAssertion = &requestforge.ClientAuth{ID: "client"}, oauth2source.AssertionFile("token")
	if g := oauth2source.ClientCredentials(cfg); g.Identity() != static.Identity() {
		t.Error("how a client authenticates makes another identity")
	}
	cfg.ClientAuth = nil
	if g := oauth2source.ClientCredentials(cfg); g.Identity() != "" {
		t.Error("a client that only a file knows has an identity")
	}
	if g := oauth2source.JWTBearer(oauth2source.Config{TokenURL: cfg.TokenURL}, oauth2source.AssertionFile("token")); g.Identity() != "" {
		t.Error("whoever a file's token is about has an identity")
	}
}

// parseBasic returns the id and the secret of an Authorization header.
func parseBasic(authorization string) (id, secret string, ok bool) {
	r := http.Request{Header: http.Header{"Authorization": {authorization}}}
	return r.BasicAuth()
}

// A token is revoked with the secret of the moment, read once for both of its tokens.
func TestRevokeWithTheSecretOfTheMoment(t *testing.T) {
	c := newChanging(t)
	var e *endpoint
	var reads int
	e = newEndpoint(t, func(n int, form url.Values) (int, string) {
		if version := shown(t, form, e.header[n-1].Get("Authorization")); version != fmt.Sprint("s3cret-", c.version.Load()) {
			return 401, `{"error":"invalid_client"}`
		}
		return 200, ""
	})
	from := func(ctx context.Context) (string, error) { reads++; return c.secret(ctx) }
	for name, cfg := range map[string]oauth2source.Config{
		"SecretFrom":    {ClientAuth: &requestforge.ClientAuth{ID: "client", SecretFrom: from}},
		"AssertionFile": {ClientAuth: &requestforge.ClientAuth{ID: "client"}, ClientAssertion: oauth2source.AssertionFile(c.file())},
	} {
		revoke := oauth2source.Revoke(cfg, e.URL)
		in := requestforge.Input{Previous: &requestforge.Token{AccessToken: "a", RefreshToken: "r"}}
		c.set(t, 0)
		err := revoke(t.Context(), in)
		if auth, ok := errors.AsType[*requestforge.AuthError](err); !ok || !auth.Unsent || !auth.Temporary || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("%s: got %v", name, err)
		}
		for version := int64(1); version < 3; version++ {
			c.set(t, version)
			if err := revoke(t.Context(), in); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if reads != 3 {
		t.Errorf("SecretFrom was called %d times for 3 revocations", reads)
	}
}
