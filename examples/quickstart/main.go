// Quickstart logs in with two dependent calls and asks an API for a profile,
// twice: the second time with a token that was revoked meanwhile. The auth
// server and the API are simulated in this process, so that it runs offline.
package main

import (
	"fmt"
	"log"
	"net/http"
	"net/url"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

func main() {
	srv := authtest.NewServer(simulated)
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{
			{Name: "app", Fetcher: &requestforge.HTTPFetcher{
				URL:        srv.URL + "/v1/app/token",
				Form:       url.Values{"grant_type": {"client_credentials"}},
				ClientAuth: &requestforge.ClientAuth{ID: "shop", Secret: "made-up"},
			}},
			{Name: "user", DependsOn: []string{"app"}, Fetcher: &requestforge.HTTPFetcher{
				URL:        srv.URL + "/v1/user/token",
				HeaderFrom: map[string]string{"X-App-Token": "app"},
				JSON:       map[string]any{"username": "ann", "password": "made-up"},
			}},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: srv.URL + "/api",
		Source:  tokens,
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}

	for range 2 {
		resp, err := client.Get("/user/profile")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println("/user/profile:", resp.Status)
		srv.Revoke("user")
	}
	for name, step := range tokens.Stats().Steps {
		fmt.Println(name, "tokens fetched:", step.Fetches)
	}
}

// simulated is the login that a real auth server would have.
var simulated = authtest.Config{Steps: []authtest.Step{
	{Name: "app", Path: "/v1/app/token", ClientID: "shop", ClientSecret: "made-up", TTL: time.Hour},
	{Name: "user", Path: "/v1/user/token", Parents: map[string]string{"app": "X-App-Token"}, TTL: 30 * time.Minute},
}}
