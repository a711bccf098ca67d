package oauth2source_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
)

// A service that calls an API in its own name (RFC 6749 §4.4).
func ExampleClientCredentials() {
	cfg := oauth2source.Config{
		TokenURL:   issuer.URL + "/token",
		ClientAuth: &requestforge.ClientAuth{ID: "billing", Secret: "s3cret"},
		Scopes:     []string{"invoices:read"},
	}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{Name: "app", Fetcher: oauth2source.ClientCredentials(cfg)}},
	})
	if err != nil {
		log.Fatal(err)
	}

	client := &http.Client{Transport: &requestforge.AuthTransport{
		Source:  pipeline,
		Origins: []string{whoami.URL},
	}}
	show(client.Get(whoami.URL))
	// Output: 200 OK: Bearer client_credentials:billing
}

// A user whose password the program knows (RFC 6749 §4.3).
func ExamplePassword() {
	cfg := oauth2source.Config{TokenURL: issuer.URL + "/token", ClientAuth: &requestforge.ClientAuth{ID: "cli"}}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name:    "user",
			Fetcher: oauth2source.Password(cfg, "gopher", "correct horse"),
		}},
	})
	if err != nil {
		log.Fatal(err)
	}

	showToken(pipeline.Token(context.Background()))
	// Output: password:gopher
}

// The password is sent once; afterwards refresh tokens do (RFC 6749 §6).
func ExampleRefresh() {
	cfg := oauth2source.Config{TokenURL: issuer.URL + "/token", ClientAuth: &requestforge.ClientAuth{ID: "cli"}}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name:    "user",
			Fetcher: oauth2source.Password(cfg, "gopher", "correct horse"),
			Refresh: oauth2source.Refresh(cfg),
		}},
	})
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	showToken(pipeline.Token(ctx))
	showToken(pipeline.Refresh(ctx))
	// Output:
	// password:gopher
	// refresh_token:refresh-of-gopher
}

// The end of a login, at the server, too (RFC 7009).
func ExampleRevoke() {
	cfg := oauth2source.Config{TokenURL: issuer.URL + "/token", ClientAuth: &requestforge.ClientAuth{ID: "cli"}}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name:    "user",
			Fetcher: oauth2source.Password(cfg, "gopher", "correct horse"),
			Refresh: oauth2source.Refresh(cfg),
			Revoke:  oauth2source.Revoke(cfg, issuer.URL+"/revoke"),
		}},
	})
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	showToken(pipeline.Token(ctx))
	if err := pipeline.Logout(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// password:gopher
	// the server revokes the refresh_token refresh-of-gopher
	// the server revokes the access_token password:gopher
}

// A service account that signs for the user it acts for (RFC 7523 §2.1).
func ExampleJWTBearer() {
	// A real one comes from a file, by x509.ParsePKCS8PrivateKey say, or
	// stays in a key service.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	cfg := oauth2source.Config{TokenURL: issuer.URL + "/token"}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name: "user",
			Fetcher: oauth2source.JWTBearer(cfg, &oauth2source.JWT{
				Key:     key,
				KeyID:   "2026-01",
				Issuer:  "robot@example.com",
				Subject: "gopher@example.com",
			}),
		}},
	})
	if err != nil {
		log.Fatal(err)
	}

	showToken(pipeline.Token(context.Background()))
	// Output: jwt-bearer:a signed JWT
}

// A client that authenticates by a key instead of a secret, private_key_jwt
// (RFC 7523 §2.2).
func ExampleConfig_clientAssertion() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	cfg := oauth2source.Config{
		TokenURL:        issuer.URL + "/token",
		ClientAuth:      &requestforge.ClientAuth{ID: "billing"},
		ClientAssertion: &oauth2source.JWT{Key: key, KeyID: "2026-01"},
	}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{Name: "app", Fetcher: oauth2source.ClientCredentials(cfg)}},
	})
	if err != nil {
		log.Fatal(err)
	}

	showToken(pipeline.Token(context.Background()))
	// Output: client_credentials:billing, by a signed JWT
}

// The app's token is traded for one that another service takes (RFC 8693).
func ExampleTokenExchange() {
	cfg := oauth2source.Config{TokenURL: issuer.URL + "/token", ClientAuth: &requestforge.ClientAuth{ID: "billing", Secret: "s3cret"}}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{
			{Name: "app", Fetcher: oauth2source.ClientCredentials(cfg)},
			{Name: "orders", DependsOn: []string{"app"}, Fetcher: oauth2source.TokenExchange(cfg, oauth2source.Exchange{
				Subject:  oauth2source.FromStep("app"),
				Audience: []string{"orders"},
			})},
		},
	})
	if err != nil {
		log.Fatal(err)
	}

	showToken(pipeline.Token(context.Background()))
	// Output: token-exchange:client_credentials:billing for orders
}

// A command-line tool whose user logs in with a browser somewhere else
// (RFC 8628).
func ExampleDeviceCode() {
	cfg := oauth2source.Config{TokenURL: issuer.URL + "/token", ClientAuth: &requestforge.ClientAuth{ID: "cli"}}
	prompt := func(_ context.Context, code *oauth2.DeviceAuthResponse) error {
		_, err := fmt.Printf("Enter %s at %s\n", code.UserCode, code.VerificationURI)
		return err
	}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name:    "user",
			Timeout: 15 * time.Minute, // for a person; the default is 30 s
			Fetcher: oauth2source.DeviceCode(cfg, issuer.URL+"/device", prompt),
			Refresh: oauth2source.Refresh(cfg), // so that nobody is asked again
		}},
	})
	if err != nil {
		log.Fatal(err)
	}

	showToken(pipeline.Token(context.Background()))
	// Output:
	// Enter WDJB-MJHT at https://example.com/device
	// device_code:gopher
}

// The projected token of a Kubernetes service account proves who the client is. The
// platform replaces the file before the token in it expires; each login reads the file.
func ExampleAssertionFile() {
	file, remove := projectedToken() // /var/run/secrets/tokens/auth, say
	defer remove()
	cfg := oauth2source.Config{
		TokenURL:        issuer.URL + "/token",
		ClientAuth:      &requestforge.ClientAuth{ID: "billing"},
		ClientAssertion: oauth2source.AssertionFile(file),
	}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{Name: "app", Fetcher: oauth2source.ClientCredentials(cfg)}},
	})
	if err != nil {
		log.Fatal(err)
	}

	showToken(pipeline.Token(context.Background()))
	// Output: client_credentials:billing, by a signed JWT
}

// projectedToken is a file as a platform mounts one, and what removes it.
func projectedToken() (file string, remove func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	file = filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte("made.up.jwt\n"), 0o600); err != nil {
		log.Fatal(err)
	}
	return file, func() { os.RemoveAll(dir) }
}

func showToken(tok *requestforge.Token, err error) {
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tok.AccessToken)
}

// issuer is the auth server of these examples. Its tokens say what they were
// given out for.
var issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	client, _, basic := r.BasicAuth()
	if !basic {
		client = r.FormValue("client_id")
	}
	if strings.Count(r.FormValue("client_assertion"), ".") == 2 {
		client += ", by a signed JWT"
	}
	grant := r.FormValue("grant_type")
	grant = grant[strings.LastIndex(grant, ":")+1:]
	token := map[string]string{
		"client_credentials": client,
		"password":           r.FormValue("username"),
		"refresh_token":      r.FormValue("refresh_token"),
		"token-exchange":     r.FormValue("subject_token") + " for " + r.FormValue("audience"),
		"device_code":        "gopher",
	}[grant]
	if grant == "jwt-bearer" && strings.Count(r.FormValue("assertion"), ".") == 2 {
		token = "a signed JWT"
	}
	if r.URL.Path == "/revoke" {
		fmt.Println("the server revokes the", r.FormValue("token_type_hint"), r.FormValue("token"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/device" {
		fmt.Fprint(w, `{"device_code": "d", "user_code": "WDJB-MJHT", "verification_uri": "https://example.com/device", "expires_in": 900, "interval": 1}`)
		return
	}
	fmt.Fprintf(w, `{"access_token": %q, "refresh_token": "refresh-of-gopher", "expires_in": 3600}`, grant+":"+token)
}))
