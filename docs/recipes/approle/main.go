// Vault's AppRole: a login gives out a lease, which is renewed with the token
// itself until it can't be any more, and a dead token is refused with 403.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/requestforge/requestforge"
)

func newClient(baseURL, roleID, secretID string, base http.RoundTripper) (*http.Client, error) {
	login := &requestforge.HTTPFetcher{
		URL:            baseURL + "/v1/auth/approle/login",
		JSON:           map[string]any{"role_id": roleID, "secret_id": secretID},
		TokenField:     "auth.client_token",
		RefreshField:   "auth.client_token",
		ExpiresInField: "auth.lease_duration",
		Client:         &http.Client{Transport: base},
	}
	renew := *login
	renew.URL, renew.JSON = baseURL+"/v1/auth/token/renew-self", nil
	renew.Prepare = func(req *http.Request, in requestforge.Input) error {
		req.Header.Set("X-Vault-Token", in.Previous.RefreshToken)
		return nil
	}
	renew.Classify = func(resp *http.Response, _ []byte) *requestforge.AuthError {
		if resp.StatusCode == http.StatusForbidden {
			return &requestforge.AuthError{RefreshRefused: true} // it takes another login
		}
		return nil
	}
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{Name: "approle", Fetcher: login, Refresh: &renew}},
	})
	if err != nil {
		return nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL:       baseURL,
		Base:          base,
		Source:        tokens,
		Attach:        []requestforge.Place{{Header: "X-Vault-Token"}},
		RefusedStatus: []int{http.StatusForbidden},
	})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport}, nil
}

func main() {
	vault := newServer()
	defer vault.Close()
	client, err := newClient(vault.URL, "made-up-role", "made-up-secret", http.DefaultTransport)
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		resp, err := client.Get("/v1/secret/data/app")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
		vault.Revoke("approle")
	}
}
