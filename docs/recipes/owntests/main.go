// A program that logs in, made so that it can be tested: where the server is
// and what sends the requests are arguments.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"

	"github.com/requestforge/requestforge"
)

// Shop is a client of the shop's API.
type Shop struct{ client *http.Client }

// NewShop makes a Shop of the server at baseURL. A nil base means
// http.DefaultTransport.
func NewShop(baseURL, password string, base http.RoundTripper) (*Shop, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name: "user",
		Fetcher: &requestforge.HTTPFetcher{
			URL:        baseURL + "/login",
			JSON:       map[string]any{"user": "ann", "password": password},
			TokenField: "token",
			Client:     &http.Client{Transport: base},
		},
	}}})
	if err != nil {
		return nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: baseURL, Base: base, Source: tokens})
	if err != nil {
		return nil, err
	}
	return &Shop{client: &http.Client{Transport: transport}}, nil
}

// Orders returns the number of open orders.
func (s *Shop) Orders(ctx context.Context) (n int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/orders", nil)
	if err != nil {
		return 0, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("orders: %s", resp.Status)
	}
	return n, json.NewDecoder(resp.Body).Decode(&n)
}

func main() {
	srv := newServer()
	defer srv.Close()
	shop, err := NewShop(srv.URL, "made-up", nil)
	if err != nil {
		log.Fatal(err)
	}
	n, err := shop.Orders(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, "orders")
}
