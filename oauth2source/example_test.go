package oauth2source_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// A pipeline behind an oauth2.Transport, or behind any SDK that takes an
// oauth2.TokenSource.
func ExampleTokenSource() {
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{Name: "user", Fetcher: &requestforge.HTTPFetcher{
			URL:  auth.URL + "/login",
			JSON: map[string]any{"user": "gopher"},
		}}},
	})
	if err != nil {
		log.Fatal(err)
	}

	client := &http.Client{Transport: &oauth2.Transport{
		Source: oauth2source.TokenSource(context.Background(), pipeline),
	}}
	show(client.Get(whoami.URL))
	// Output: 200 OK: Bearer user-token
}

// The client credentials grant of x/oauth2 as the first of two steps.
func ExampleFetcherFrom() {
	conf := clientcredentials.Config{
		ClientID:     "client",
		ClientSecret: "secret",
		TokenURL:     auth.URL + "/token",
		AuthStyle:    oauth2.AuthStyleInHeader,
	}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{
			{Name: "app", Fetcher: oauth2source.FetcherFrom(func(ctx context.Context, _ requestforge.Input) (oauth2.TokenSource, error) {
				return conf.TokenSource(ctx), nil
			})},
			{Name: "user", DependsOn: []string{"app"}, Fetcher: &requestforge.HTTPFetcher{
				URL:        auth.URL + "/login",
				HeaderFrom: map[string]string{"Authorization": "app"},
			}},
		},
	})
	if err != nil {
		log.Fatal(err)
	}

	client := &http.Client{Transport: &requestforge.AuthTransport{
		Source:  pipeline,
		Origins: []string{whoami.URL},
	}}
	show(client.Get(whoami.URL))
	// Output: 200 OK: Bearer user-token
}

// A source that an SDK made, as a step. It has no refresh token and no
// context to offer; see the documentation of Fetcher for what follows.
func ExampleFetcher() {
	var fromSDK oauth2.TokenSource = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "sdk-token"})

	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{Name: "sdk", Fetcher: oauth2source.Fetcher(fromSDK)}},
	})
	if err != nil {
		log.Fatal(err)
	}

	client := &http.Client{Transport: &requestforge.AuthTransport{
		Source:  pipeline,
		Origins: []string{whoami.URL},
	}}
	show(client.Get(whoami.URL))
	// Output: 200 OK: Bearer sdk-token
}

// The servers of the examples. auth knows one token of each kind; whoami
// says which token it was sent.
var (
	auth = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		token := "app-token"
		if r.URL.Path == "/login" {
			token = "user-token"
		}
		fmt.Fprintf(w, `{"access_token": %q, "expires_in": 3600}`, token)
	}))
	whoami = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("Authorization"))
	}))
)

func show(resp *http.Response, err error) {
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", resp.Status, body)
}
