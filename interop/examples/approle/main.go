// Approle logs in as a service does at Vault, with a role's id and a secret id,
// and reads and writes secrets with Vault's own client:
//
//	go run ./examples/approle
//
// Vault is simulated in this process: it is too dear to build here. Its answers
// are what its documentation says: the token is in auth.client_token, travels in
// X-Vault-Token, and if it is revoked the answer is a 403 that names an invalid
// token. A 403 without these words is a policy's, which no other token changes.
// What came of it is printed; if it isn't what it should be, the exit status
// is 1.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/interop/internal/demo"
)

func main() { demo.MainAlone(run) }

// The role that logs in.
const (
	roleID   = "8a5f1f0c-made-up"
	secretID = "f2c9b7d4-made-up"
)

// run logs in at a simulated Vault and returns what was wrong.
func run(ctx context.Context, out io.Writer) error {
	srv := authtest.NewServer(simulated())
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{Name: "approle", Fetcher: &requestforge.HTTPFetcher{
			URL:            srv.URL + "/v1/auth/approle/login",
			JSON:           map[string]any{"role_id": roleID, "secret_id": secretID},
			TokenField:     "auth.client_token",
			ExpiresInField: "auth.lease_duration",
		}}},
	})
	if err != nil {
		return err
	}
	defer tokens.Close()
	client, err := vault(srv.URL, tokens)
	if err != nil {
		return err
	}

	fmt.Fprintln(out, "The service writes a secret.")
	if _, err := client.KVv2("secret").Put(ctx, "app", map[string]any{"color": "green"}); err != nil {
		return err
	}
	fmt.Fprintln(out, "The token is revoked. The service isn't told, and reads the secret.")
	srv.Revoke("approle")
	secret, err := client.KVv2("secret").Get(ctx, "app")
	if err != nil {
		return err
	}
	if secret.Data["color"] != "green" {
		return errors.New("it isn't the secret that was written")
	}
	fmt.Fprintln(out, "It reads one that it has no policy for. That stays so with any token, and none is fetched.")
	_, err = client.KVv2("secret").Get(ctx, "forbidden")
	var refusal *api.ResponseError
	if !errors.As(err, &refusal) || refusal.StatusCode != http.StatusForbidden || !slices.Equal(refusal.Errors, []string{permissionDenied}) {
		return fmt.Errorf("a policy's refusal became %w", err)
	}

	stats := srv.Stats()
	login, calls := stats.Steps["approle"].Fetches, stats.API
	fmt.Fprintf(out, "Logins: %d. Requests: %d, %d of them refused for their token.\n", login.OK, calls.Attempted, calls.Refused)
	if login.Attempted != 2 || login.OK != 2 || calls.Attempted != 4 || calls.Refused != 1 {
		return errors.New("that should be 2 logins and 4 requests, 1 of them refused")
	}
	return nil
}

// vault returns Vault's own client, whose requests get their token from tokens.
func vault(url string, tokens requestforge.TokenSource) (*api.Client, error) {
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: url,
		Source:  tokens,
		Attach:  []requestforge.Place{{Header: api.AuthHeaderName}}, // X-Vault-Token
		Refused: invalidToken,
	})
	if err != nil {
		return nil, err
	}
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		return nil, cfg.Error
	}
	cfg.Address = url
	cfg.HttpClient = &http.Client{Transport: transport}
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	client.ClearToken() // one in VAULT_TOKEN would be sent instead of ours
	return client, nil
}

// What Vault says with a 403: both if the token is no good.
const (
	permissionDenied = "permission denied"
	badToken         = "invalid token"
)

// invalidToken is the Refused of Vault.
func invalidToken(resp *http.Response) bool {
	if resp.StatusCode != http.StatusForbidden {
		return false
	}
	var answer struct {
		Errors []string `json:"errors"`
	}
	return json.NewDecoder(resp.Body).Decode(&answer) == nil && slices.Contains(answer.Errors, badToken)
}

// simulated is a Vault with one role and one secret.
func simulated() authtest.Config {
	return authtest.Config{
		Steps: []authtest.Step{{
			Name:        "approle",
			Path:        "/v1/auth/approle/login",
			Method:      http.MethodPost,
			JSON:        map[string]any{"role_id": roleID, "secret_id": secretID},
			TokenField:  "auth.client_token",
			TypeField:   "auth.token_type",
			ExpiryField: "auth.lease_duration",
			TTL:         time.Hour,
		}},
		API: authtest.API{
			Prefix:  "/v1/secret/",
			Wants:   []authtest.Place{{Header: api.AuthHeaderName}},
			Handler: &secrets{},
			Refused: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				forbid(w, badToken, permissionDenied)
			}),
		},
	}
}

// secrets is one secret of Vault's key-value engine, below /v1/secret/data/app.
type secrets struct {
	mu    sync.Mutex
	saved json.RawMessage
}

func (s *secrets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/secret/data/app" {
		forbid(w, permissionDenied)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	metadata := map[string]any{"version": 1, "created_time": "2026-01-02T03:04:05Z", "deletion_time": "", "destroyed": false}
	var answer any
	switch r.Method {
	case http.MethodPut, http.MethodPost:
		var sent struct {
			Data json.RawMessage `json:"data"`
		}
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.saved = sent.Data
		answer = metadata
	default:
		answer = map[string]any{"data": s.saved, "metadata": metadata}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"data": answer})
}

// forbid is how Vault refuses.
func forbid(w http.ResponseWriter, reasons ...string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	json.NewEncoder(w).Encode(map[string]any{"errors": reasons})
}
