// Two credentials on each request, and a signature: the gateway wants a token
// of its own, and the API a signature whose key is the session's token.
package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/requestforge/requestforge"
)

func newClient(baseURL, secret, password string) (*http.Client, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name: "gate",
		Fetcher: &requestforge.HTTPFetcher{
			URL:        baseURL + "/gate/token",
			ClientAuth: &requestforge.ClientAuth{ID: "shop", Secret: secret},
		},
	}, {
		Name: "session",
		Fetcher: &requestforge.HTTPFetcher{
			URL:        baseURL + "/session",
			JSON:       map[string]any{"user": "ann", "password": password},
			TokenField: "signing_key",
		},
	}}})
	if err != nil {
		return nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: baseURL,
		Source:  tokens.Source("gate"),
		Attach:  []requestforge.Place{{Header: "X-Gate-Token"}},
		// Below, so that it signs what the gateway's layer has put on.
		Base: &requestforge.AuthTransport{
			Source:  tokens.Source("session"),
			Origins: []string{baseURL},
			Attach:  []requestforge.Place{{Header: "X-Key-Id", Value: "key_id"}},
			Prepare: sign,
		},
	})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport}, nil
}

// sign is called for each send, so that a replay has a nonce of its own.
func sign(out *http.Request, tok *requestforge.Token) error {
	date, nonce := time.Now().UTC().Format(http.TimeFormat), rand.Text()
	mac := hmac.New(sha256.New, []byte(tok.AccessToken))
	fmt.Fprintf(mac, "%s\n%s\n%s\n%s", out.Method, out.URL.RequestURI(), date, nonce)
	out.Header.Set("Date", date)
	out.Header.Set("X-Nonce", nonce)
	out.Header.Set("X-Signature", hex.EncodeToString(mac.Sum(nil)))
	return nil
}

func main() {
	srv := newServer()
	defer srv.Close()
	client, err := newClient(srv.URL, "made-up-secret", "made-up-password")
	if err != nil {
		log.Fatal(err)
	}
	for _, revoked := range []string{"gate", "session", "session"} {
		resp, err := client.Get("/orders?page=2")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
		srv.Revoke(revoked)
	}
}
