// Many tenants: each with a URL and a secret of its own, and one client for all. Whose
// request it is, the context says.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/requestforge/requestforge"
)

// A tenant is what the program's own database knows of one.
type tenant struct{ url, secret string }

type tenantKey struct{}

func newClient(tenants map[string]tenant, base http.RoundTripper) (*http.Client, error) {
	origins := []string{"https://*.example.com"}
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Subject: func(ctx context.Context) (string, error) {
			name, _ := ctx.Value(tenantKey{}).(string)
			if _, ok := tenants[name]; !ok {
				return "", fmt.Errorf("there is no tenant %q", name)
			}
			return name, nil
		},
		Steps: []requestforge.Step{{
			Name: "login", PerSubject: true,
			Fetcher: &requestforge.HTTPFetcher{
				URLFrom: func(in requestforge.Input) (string, error) {
					return tenants[in.Subject].url + "/login", nil
				},
				Origins: origins,
				BodyFrom: func(in requestforge.Input) (any, error) {
					return map[string]string{"client": "shop", "secret": tenants[in.Subject].secret}, nil
				},
				Client: &http.Client{Transport: base},
			},
		}},
	})
	if err != nil {
		return nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    base,
		BaseURL: "https://tenant.example.com", // stands for each tenant's own
		BaseURLFrom: func(tok *requestforge.Token) (string, error) {
			return tok.Value("api_url"), nil
		},
		Origins: origins,
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
	client, err := newClient(srv.tenants, srv.Client().Transport)
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"acme", "globex", "acme"} {
		req, err := http.NewRequestWithContext(context.WithValue(context.Background(), tenantKey{}, name), "GET", "/orders", nil)
		if err != nil {
			log.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(name, resp.Status, "from", resp.Request.URL.Host)
		srv.revoke("acme.example.com")
	}
	_, err = client.Get("/orders")
	fmt.Println(err)
	fmt.Println("logins:", srv.logins())
}
