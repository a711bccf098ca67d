// A GitHub App: it signs an assertion of who it is, and gets with that a token for each of
// its installations.
package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log"
	"net/http"
	"strconv"
	"time"

	"github.com/requestforge/requestforge"
)

type installationKey struct{}

// installation is a context for requests as the app's installation of that number.
func installation(ctx context.Context, id int) context.Context {
	return context.WithValue(ctx, installationKey{}, strconv.Itoa(id))
}

func newClient(baseURL, appID string, key *rsa.PrivateKey) (*http.Client, *requestforge.Pipeline, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Subject: func(ctx context.Context) (string, error) {
			id, _ := ctx.Value(installationKey{}).(string)
			return id, nil
		},
		Steps: []requestforge.Step{{
			Name: "app", // one for all installations
			Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
				return assertion(appID, key, time.Now())
			}),
		}, {
			Name: "installation", DependsOn: []string{"app"}, PerSubject: true,
			Fetcher: &requestforge.HTTPFetcher{
				URL: baseURL, // whose origin the path is at
				URLFrom: func(in requestforge.Input) (string, error) {
					return baseURL + "/app/installations/" + in.Subject + "/access_tokens", nil
				},
				HeaderFrom:     map[string]string{"Authorization": "app"},
				TokenField:     "token",
				ExpiresAtField: "expires_at",
			},
		}},
	})
	if err != nil {
		return nil, nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: baseURL, Source: tokens})
	if err != nil {
		return nil, nil, err
	}
	return &http.Client{Transport: transport}, tokens, nil
}

// assertion is a JWT that is good for 9 minutes; GitHub takes none for more than 10.
func assertion(appID string, key *rsa.PrivateKey, now time.Time) (*requestforge.Token, error) {
	b64, end := base64.RawURLEncoding, now.Add(9*time.Minute)
	text := b64.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." +
		b64.EncodeToString(fmt.Appendf(nil, `{"iss":%q,"iat":%d,"exp":%d}`, appID, now.Add(-time.Minute).Unix(), end.Unix()))
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	return &requestforge.Token{AccessToken: text + "." + b64.EncodeToString(sig), Expiry: end}, err
}

func main() {
	srv := newServer(300)
	defer srv.Close()
	client, tokens, err := newClient(srv.URL, "12345", srv.key)
	if err != nil {
		log.Fatal(err)
	}
	for _, revoked := range []int{7, 8} {
		right := 0
		for id := 1; id <= 300; id++ {
			req, err := http.NewRequestWithContext(installation(context.Background(), id), "GET", "/installation/repositories", nil)
			if err != nil {
				log.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				log.Fatal(err)
			}
			resp.Body.Close()
			if resp.Header.Get("X-Of") == strconv.Itoa(id) {
				right++
			}
		}
		fmt.Println(right, "installations see their repositories")
		srv.revoke(revoked)
	}
	st := tokens.Stats().Steps
	fmt.Println("assertions signed:", st["app"].Fetches, "tokens fetched:", st["installation"].Fetches)
}
