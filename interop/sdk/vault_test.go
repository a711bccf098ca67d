// vault/api has a header of its own for the token, and Vault a status of its
// own for one that is no good.

package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"

	vault "github.com/hashicorp/vault/api"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// Vault says 403 for a token that was revoked, as it does for a path that the
// token isn't good for; its body tells which.
func Example_vault() {
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API: authtest.API{
			Wants:   []authtest.Place{{Header: "X-Vault-Token"}},
			Handler: vaultAPI.api(&shelf{value: "It works."}),
			Refused: http.HandlerFunc(refuseVault),
		},
	})
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	config := vault.DefaultConfig()
	if config.Error != nil {
		log.Fatal(config.Error)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    config.HttpClient.Transport, // with the TLS and the proxy of its environment
		Source:  tokens,
		Origins: []string{srv.URL},
		Attach:  []requestforge.Place{{Header: "X-Vault-Token"}},
		Refused: vaultRefused,
		Retry:   requestforge.RetryPolicy{RetryMax: 3},
	})
	if err != nil {
		log.Fatal(err)
	}
	config.Address = srv.URL
	config.HttpClient.Transport = transport
	config.MaxRetries = 0
	client, err := vault.NewClient(config)
	if err != nil {
		log.Fatal(err)
	}
	client.ClearToken() // of the environment

	for range 2 {
		secret, err := client.KVv2("secret").Get(context.Background(), "value")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(secret.Data["text"])
		srv.Revoke("user")
	}
	// Output:
	// It works.
	// It works.
}

// vaultRefused reports whether Vault says that the token is no good.
func vaultRefused(resp *http.Response) bool {
	if resp.StatusCode != http.StatusForbidden {
		return false
	}
	var answer struct{ Errors []string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return false
	}
	for _, e := range answer.Errors {
		if strings.Contains(e, "invalid token") {
			return true
		}
	}
	return false
}

// refuseVault answers in Vault's way to a token that is no good.
func refuseVault(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	io.WriteString(w, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`)
}

func TestVault(t *testing.T) { check(t, vaultAPI) }

var vaultAPI = register(sdk{
	name:   "hashicorp/vault/api",
	module: "github.com/hashicorp/vault/api",
	option: "Config.HttpClient",
	auth:   sometimes,
	tries:  3,
	https: "an `*http.Transport`: `SetMaxIdleConnections`, `MaxIdleConnections`, `SetDisableKeepAlives`, `DisableKeepAlives` and, after `SetOutputCurlString(true)`, every request panic; " +
		"`ReadEnvironment`, `ConfigureTLS` and `unix://` addresses are errors",
	how: "Our `Base` is the transport of `DefaultConfig().HttpClient`, which ours then replaces; what needs an `*http.Transport` goes before that. " +
		"`Attach: []requestforge.Place{{Header: \"X-Vault-Token\"}}`. `ClearToken` or `ReplaceCaller`, for it takes `VAULT_TOKEN` from its environment. " +
		"`MaxRetries` of 0 leaves retries to us. " +
		"Vault refuses with 403: `Refused` has to look for \"invalid token\" in the body.",

	header: "X-Vault-Token",
	api: func(s *shelf) http.Handler {
		mux := http.NewServeMux()
		metadata := map[string]any{"version": 1, "created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": false, "custom_metadata": nil}
		mux.HandleFunc("GET /v1/secret/data/value", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{
				"data":     map[string]any{"text": s.get()},
				"metadata": metadata,
			}})
		})
		mux.HandleFunc("PUT /v1/secret/data/value", func(w http.ResponseWriter, r *http.Request) {
			var secret struct{ Data struct{ Text string } }
			if err := json.NewDecoder(r.Body).Decode(&secret); err != nil {
				http.Error(w, `{"errors":["no secret"]}`, http.StatusBadRequest)
				return
			}
			s.put(secret.Data.Text)
			written := map[string]any{"text_is": etag(secret.Data.Text)}
			for name, value := range metadata {
				written[name] = value
			}
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(map[string]any{"data": written})
		})
		return mux
	},

	open: func(t *testing.T, c conn) client {
		api := newVault(t, c)
		return client{
			read: func(ctx context.Context) (string, error) {
				secret, err := api.KVv2("secret").Get(ctx, "value")
				if err != nil {
					return "", err
				}
				text, _ := secret.Data["text"].(string)
				return text, nil
			},
			write: func(ctx context.Context, value string) (string, error) {
				secret, err := api.KVv2("secret").Put(ctx, "value", map[string]any{"text": value})
				if err != nil {
					return "", err
				}
				// Vault answers with metadata only.
				if got := secret.Raw.Data["text_is"]; got != etag(value) {
					return "", fmt.Errorf("stored as %v, want %s", got, etag(value))
				}
				return value, nil
			},
		}
	},
})

func newVault(t *testing.T, c conn) *vault.Client {
	config := vault.DefaultConfig()
	if config.Error != nil {
		t.Fatal(config.Error)
	}
	config.Address = c.url
	config.HttpClient.Transport = c.http.Transport
	if !c.retries {
		config.MaxRetries = 0
	}
	api, err := vault.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	api.SetToken(c.credential)
	return api
}

// Vault's 403 for a revoked token leads to a replay, and its 403 for a path
// that the token isn't good for goes back, with the token left alone.
func TestVaultTellsARevokedTokenFromADeniedPath(t *testing.T) {
	denied := http.NewServeMux()
	denied.Handle("/", vaultAPI.api(&shelf{value: "a"}))
	denied.HandleFunc("/v1/secret/data/denied", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`)
	})
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API:   authtest.API{Wants: []authtest.Place{{Header: "X-Vault-Token"}}, Handler: denied, Refused: http.HandlerFunc(refuseVault)},
	})
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		t.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    srv.Client().Transport,
		Source:  tokens,
		Origins: []string{srv.URL},
		Attach:  []requestforge.Place{{Header: "X-Vault-Token"}},
		Refused: vaultRefused,
	})
	if err != nil {
		t.Fatal(err)
	}
	api := newVault(t, conn{url: srv.URL, http: &http.Client{Transport: transport}})
	kv := api.KVv2("secret")
	ctx := t.Context()
	requests := func() int { return srv.Stats().API.Attempted }

	if _, err := kv.Get(ctx, "value"); err != nil {
		t.Fatal(err)
	}
	srv.Revoke("user")
	before := requests()
	if _, err := kv.Put(ctx, "value", map[string]any{"text": "b"}); err != nil {
		t.Fatal(err)
	}
	if got := requests() - before; got != 2 {
		t.Errorf("%d requests after the revocation, want 2", got)
	}

	before = requests()
	_, err = kv.Get(ctx, "denied")
	var failure *vault.ResponseError
	if !errors.As(err, &failure) || failure.StatusCode != http.StatusForbidden || len(failure.Errors) != 1 {
		t.Errorf("got %v, want the 403 with its body", err)
	}
	if got := requests() - before; got != 1 {
		t.Errorf("%d requests for a denied path, want 1", got)
	}
	if got := srv.Stats().Steps["user"].Fetches.Attempted; got != 2 {
		t.Errorf("%d user tokens were asked for, want 2", got)
	}
}

// What the table says of a transport that isn't an *http.Transport.
func TestVaultMethodsThatNeedAnHTTPTransport(t *testing.T) {
	api := newVault(t, conn{url: "http://127.0.0.1", http: &http.Client{Transport: &requestforge.AuthTransport{}}})
	for name, call := range map[string]func(){
		"SetMaxIdleConnections": func() { api.SetMaxIdleConnections(1) },
		"MaxIdleConnections":    func() { api.MaxIdleConnections() },
		"SetDisableKeepAlives":  func() { api.SetDisableKeepAlives(true) },
		"DisableKeepAlives":     func() { api.DisableKeepAlives() },
		"SetOutputCurlString": func() {
			api.SetOutputCurlString(true)
			api.Logical().ReadWithContext(t.Context(), "secret/data/value")
		},
	} {
		if !panicked(call) {
			t.Errorf("%s doesn't panic; the table says it does", name)
		}
	}

	config := vault.DefaultConfig()
	config.HttpClient.Transport = &requestforge.AuthTransport{}
	if err := config.ConfigureTLS(&vault.TLSConfig{Insecure: true}); err == nil {
		t.Error("ConfigureTLS takes any transport; the table says it doesn't")
	}
	if err := config.ReadEnvironment(); err == nil {
		t.Error("ReadEnvironment takes any transport; the table says it doesn't")
	}
	config.Address = "unix:///run/vault.sock"
	if _, err := vault.NewClient(config); err == nil {
		t.Error("an address of unix:// takes any transport; the table says it doesn't")
	}
}

func panicked(call func()) (did bool) {
	defer func() { did = recover() != nil }()
	call()
	return false
}
