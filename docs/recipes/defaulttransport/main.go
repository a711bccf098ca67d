// An SDK that knows nothing but http.DefaultTransport: the layer takes its
// place, and whoever sends to another origin sends as before.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/requestforge/requestforge"
)

// authenticate makes every request to apiURL of this program authenticated.
func authenticate(loginURL, apiURL, secret string) error {
	before := http.DefaultTransport
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name: "app",
		Fetcher: &requestforge.HTTPFetcher{
			URL:        loginURL,
			ClientAuth: &requestforge.ClientAuth{ID: "shop", Secret: secret},
			Form:       map[string][]string{"grant_type": {"client_credentials"}},
			// A login must not wait for itself.
			Client: &http.Client{Transport: before},
		},
	}}})
	if err != nil {
		return err
	}
	http.DefaultTransport = &requestforge.AuthTransport{Base: before, Source: tokens, Origins: []string{apiURL}}
	return nil
}

func main() {
	srv := newServer()
	defer srv.Close()
	if err := authenticate(srv.URL+"/oauth/token", srv.URL, "made-up"); err != nil {
		log.Fatal(err)
	}
	sdk := SDK{BaseURL: srv.URL}
	for range 2 {
		if err := sdk.Ping(); err != nil {
			log.Fatal(err)
		}
		fmt.Println("pong")
		srv.Revoke("app")
	}
}
