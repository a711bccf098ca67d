// Workload identity federation: the platform keeps a short-lived token of the
// workload in a file. A security token service takes that and gives out a
// token of its cloud, with which the account's token is got.
package main

import (
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/requestforge/requestforge"
)

func newClient(baseURL, tokenFile string) (*http.Client, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name: "sts",
		Fetcher: &requestforge.HTTPFetcher{
			URL: baseURL + "/v1/token",
			// Read at each fetch, since the platform replaces the file.
			BodyFrom: func(requestforge.Input) (any, error) {
				b, err := os.ReadFile(tokenFile)
				return url.Values{
					"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
					"audience":           {"//iam.example.com/pools/made-up"},
					"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
					"subject_token":      {strings.TrimSpace(string(b))},
				}, err
			},
		},
	}, {
		Name:      "account",
		DependsOn: []string{"sts"},
		Fetcher: &requestforge.HTTPFetcher{
			URL:            baseURL + "/v1/accounts/shop:generateAccessToken",
			HeaderFrom:     map[string]string{"Authorization": "sts"},
			JSON:           map[string]any{"scope": []string{"storage"}},
			TokenField:     "accessToken",
			ExpiresAtField: "expireTime",
		},
	}}})
	if err != nil {
		return nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: baseURL, Source: tokens})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport}, nil
}

func main() {
	srv, tokenFile, stop := newServer()
	defer stop()
	client, err := newClient(srv.URL, tokenFile)
	if err != nil {
		log.Fatal(err)
	}
	for _, revoked := range []string{"account", "sts"} {
		resp, err := client.Get("/buckets")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
		srv.Revoke(revoked)
	}
}
