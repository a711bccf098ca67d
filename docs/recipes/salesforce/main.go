// Salesforce: the login says at which instance its token is good, and a later
// login may say another one.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/requestforge/requestforge"
)

func newClient(loginURL, secret string, base http.RoundTripper) (*http.Client, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name: "login",
		Fetcher: &requestforge.HTTPFetcher{
			URL:        loginURL + "/services/oauth2/token",
			ClientAuth: &requestforge.ClientAuth{ID: "shop", Secret: secret, InBody: true},
			Form:       map[string][]string{"grant_type": {"client_credentials"}},
			Client:     &http.Client{Transport: base},
		},
	}}})
	if err != nil {
		return nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    base,
		BaseURL: loginURL, // for what needs no token
		BaseURLFrom: func(tok *requestforge.Token) (string, error) {
			return tok.Value("instance_url"), nil
		},
		Origins: []string{"https://*.example.com"},
		Source:  tokens,
	})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport}, nil
}

func main() {
	srv := newServer()
	defer srv.Close()
	client, err := newClient(srv.URL, "made-up-secret", srv.Client().Transport)
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		resp, err := client.Get("/services/data/v60.0/limits")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status, "from", resp.Request.URL.Host)
		srv.Move("login", "https://shop--eu.example.com")
		srv.Revoke("login")
	}
}
