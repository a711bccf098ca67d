package requestforge_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/requestforge/requestforge"
)

// An SDK that knows only http.DefaultTransport gets the layer there. What was there
// before sends for the layer, and for the logins: they must not wait for themselves.
func ExampleAuthTransport_default() {
	authURL, apiURL, stop := serveLogin()
	defer stop()

	before := http.DefaultTransport
	defer func() { http.DefaultTransport = before }()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{
		{Name: "user", Fetcher: &requestforge.HTTPFetcher{URL: authURL, Client: &http.Client{Transport: before}}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	http.DefaultTransport = &requestforge.AuthTransport{Base: before, Source: tokens, Origins: []string{apiURL}}

	resp, err := http.Get(apiURL) // somewhere within the SDK
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode)
	// Output: 200
}

func serveLogin() (authURL, apiURL string, stop func()) {
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"t"}`)
	}))
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t" {
			w.WriteHeader(401)
		}
	}))
	return auth.URL, api.URL, func() { auth.Close(); api.Close() }
}
