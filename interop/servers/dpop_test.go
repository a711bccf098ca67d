package servers_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/dpop"
	"github.com/requestforge/requestforge/interop/servers"
	"github.com/requestforge/requestforge/oauth2source"
	"github.com/requestforge/requestforge/sealedstorage"
)

func startDPoP(t *testing.T, accessTTL, nonceTTL time.Duration) *servers.DPoPServer {
	t.Helper()
	s, err := servers.StartDPoP(t.Context(), accessTTL, nonceTTL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// deviceLogin is the device flow with each send proven by key, as a command-line tool has it.
func deviceLogin(t *testing.T, s *servers.DPoPServer, key *dpop.Key, storage requestforge.Storage, prompts *int) *requestforge.Pipeline {
	t.Helper()
	cfg := oauth2source.Config{
		TokenURL:   s.TokenURL,
		ClientAuth: &requestforge.ClientAuth{ID: s.ClientID},
		Scopes:     s.Scopes,
		Client:     dpop.Client(key, nil),
	}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Storage: storage, KeyPrefix: "cli/" + key.Thumbprint(),
		Steps: []requestforge.Step{{
			Name:    "user",
			Timeout: 5 * time.Minute,
			Fetcher: oauth2source.DeviceCode(cfg, s.DeviceURL, func(ctx context.Context, code *oauth2.DeviceAuthResponse) error {
				*prompts++
				return s.Approve(ctx, code.UserCode)
			}),
			Refresh: oauth2source.Refresh(cfg),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pipeline.Close() })
	return pipeline
}

// dpopClient sends requests with the pipeline's tokens, proven by key.
func dpopClient(t *testing.T, s *servers.DPoPServer, key *dpop.Key, src requestforge.TokenSource) *http.Client {
	t.Helper()
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: s.Issuer, Source: src, Prepare: key.Prepare, Learn: key.Learn})
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: transport}
}

// A thousand requests while nonces change every two seconds and access tokens end after six:
// the caller sees no refusal, a nonce costs one send, and one login is enough, for the next
// run of the program, too.
func TestDPoPThousandRequestsWhileNoncesChange(t *testing.T) {
	t.Parallel()
	s := startDPoP(t, 6*time.Second, 2*time.Second)
	storage, err := sealedstorage.New(requestforge.NewMemoryStorage(), sealedstorage.Config{
		Keys: []sealedstorage.Key{{ID: "1", Secret: []byte(strings.Repeat("k", 32))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	prompts, requests := 0, 0
	for run := range 2 {
		key, err := dpop.StoredKey(t.Context(), storage, "cli/dpop")
		if err != nil {
			t.Fatal(err)
		}
		client := dpopClient(t, s, key, deviceLogin(t, s, key, storage, &prompts))
		for range 500 {
			resp, err := client.Get("/me?run=now")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("run %d, request %d: %s, %s", run, requests, resp.Status, resp.Header.Get("WWW-Authenticate"))
			}
			requests++
			time.Sleep(10 * time.Millisecond) // so that the nonces have the time to change
		}
	}
	seen, err := s.Seen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d prompts, %+v", prompts, seen)
	if prompts != 1 || seen.Answers["200"]["/me"] != requests {
		t.Errorf("%d prompts, %d good answers to %d requests", prompts, seen.Answers["200"]["/me"], requests)
	}
	// A run begins without a nonce, which costs a send, too. A nonce may become known by a good
	// answer before it is wanted.
	if wanted := seen.Wanted["/me"]; wanted > seen.Nonces+1 || wanted < 2 || seen.Nonces < 5 {
		t.Errorf("%d sends more for %d nonces", wanted, seen.Nonces)
	}
	if refreshes := seen.Answers["200"]["/token"] - 1; refreshes < 1 {
		t.Errorf("%d refreshes", refreshes)
	}
	for status, paths := range seen.Answers {
		if n := paths["/token"]; status != "200" && status != "400" && n > 0 { // 400 says that the login isn't approved yet
			t.Errorf("%d answers %s of the token endpoint", n, status)
		}
	}
}

// The server takes neither token without the key that the login was by.
func TestDPoPStolenTokensAreRefused(t *testing.T) {
	t.Parallel()
	s := startDPoP(t, time.Minute, time.Hour)
	key, thief, prompts := dpop.NewKey(), dpop.NewKey(), 0
	tok, err := deviceLogin(t, s, key, requestforge.NewMemoryStorage(), &prompts).Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if tok.Type() != "DPoP" || tok.RefreshToken == "" {
		t.Fatalf("type %s, %v", tok.Type(), tok)
	}
	bearer := &requestforge.AuthTransport{Attach: []requestforge.Place{{Header: "Authorization", Scheme: "Bearer"}}}
	bearer.Source, bearer.Origins = requestforge.StaticToken(tok), []string{s.Issuer}
	for name, c := range map[string]struct {
		client *http.Client
		want   int
	}{
		"its key":     {dpopClient(t, s, key, requestforge.StaticToken(tok)), http.StatusOK},
		"another key": {dpopClient(t, s, thief, requestforge.StaticToken(tok)), http.StatusUnauthorized},
		"as Bearer":   {&http.Client{Transport: bearer}, http.StatusUnauthorized},
	} {
		resp, err := c.client.Get(s.ResourceURL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		t.Logf("%s: %s, %s", name, resp.Status, resp.Header.Get("WWW-Authenticate"))
		if resp.StatusCode != c.want {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	for _, c := range []struct {
		name string
		key  *dpop.Key
		ok   bool
	}{{"another key", thief, false}, {"its key", key, true}} {
		refresh := oauth2source.Refresh(oauth2source.Config{
			TokenURL: s.TokenURL, ClientAuth: &requestforge.ClientAuth{ID: s.ClientID}, Client: dpop.Client(c.key, nil),
		})
		_, err := refresh.Fetch(t.Context(), requestforge.Input{Previous: tok})
		t.Logf("refresh by %s: %v", c.name, err)
		if (err == nil) != c.ok {
			t.Errorf("refresh by %s: %v", c.name, err)
		}
	}
}
