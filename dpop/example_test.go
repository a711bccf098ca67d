package dpop_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/url"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/dpop"
)

// The login and each request are proven by one key, which is kept beside the tokens. Whoever
// has stolen the token alone gets nothing for it.
func Example() {
	srv := startSim() // an auth server and an API that want proofs
	defer srv.Close()
	srv.tokenNonce, srv.apiNonce = "n-1", "n-2" // and nonces in them

	storage := requestforge.NewMemoryStorage() // or one of redisstorage, filestorage, sealedstorage
	key, err := dpop.StoredKey(context.Background(), storage, "shop/dpop")
	if err != nil {
		log.Fatal(err)
	}
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Storage:   storage,
		KeyPrefix: "shop/" + key.Thumbprint(), // a token is of use with its own key only
		Steps: []requestforge.Step{{Name: "app", Fetcher: &requestforge.HTTPFetcher{
			URL:        srv.URL + "/token",
			Form:       url.Values{"grant_type": {"client_credentials"}},
			ClientAuth: &requestforge.ClientAuth{ID: "shop", Secret: "made-up"},
			Client:     dpop.Client(key, nil),
		}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: srv.URL,
		Source:  tokens,
		Prepare: key.Prepare,
		Learn:   key.Learn,
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport}

	resp, err := client.Get("/api/orders")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println("with the key:", resp.Status)

	tok, err := tokens.Token(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	req, err := http.NewRequest("GET", srv.URL+"/api/orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Authorization", "DPoP "+tok.AccessToken)
	resp, err = http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println("without:", resp.Status)
	// Output:
	// with the key: 200 OK
	// without: 401 Unauthorized
}

// A key for each user, by the context of the request, as PipelineConfig.Subject has it.
func ExampleKeys() {
	type user struct{}
	keys := map[string]*dpop.Key{"ann": dpop.NewKey(), "bob": dpop.NewKey()} // a program loads them by StoredKey
	byUser := dpop.Keys(func(ctx context.Context) (*dpop.Key, error) {
		name, _ := ctx.Value(user{}).(string)
		if keys[name] == nil {
			return nil, fmt.Errorf("there is no key of this user")
		}
		return keys[name], nil
	})

	login := byUser.Client(nil)                                                 // HTTPFetcher.Client of the users' step
	config := requestforge.Config{Prepare: byUser.Prepare, Learn: byUser.Learn} // and Source, BaseURL

	out, err := http.NewRequestWithContext(context.WithValue(context.Background(), user{}, "ann"), "GET", "https://api.example.com/orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	out.Header.Set("Authorization", "DPoP t-1")
	fmt.Println(config.Prepare(out, nil), out.Header.Get("DPoP") != "")
	_, err = login.Get("https://auth.example.com/token")
	fmt.Println(err)
	// Output:
	// <nil> true
	// Get "https://auth.example.com/token": requestforge: dpop: Keys: there is no key of this user
}
