// An API that wants a key of the program's own in the query, and the session
// of a login in a cookie.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/requestforge/requestforge"
)

func newClient(baseURL, key, password string) (*http.Client, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name: "login",
		Fetcher: &requestforge.HTTPFetcher{
			URL:        baseURL + "/login",
			JSON:       map[string]any{"user": "ann", "password": password},
			TokenField: "data.sid",
		},
	}}})
	if err != nil {
		return nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: baseURL,
		Source:  tokens,
		Attach:  []requestforge.Place{{Query: "api_key", Text: key}, {Cookie: "sid"}},
	})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport}, nil
}

func main() {
	srv := newServer()
	defer srv.Close()
	client, err := newClient(srv.URL, "made-up-key", "made-up-password")
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		resp, err := client.Get("/devices?page=2")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
		srv.Revoke("login") // the next request is refused, and replayed
	}
	fmt.Println(srv.Stats().Steps["login"].Fetches.OK, "logins")
}
