package oauth2_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/interop/internal/demo"
	"github.com/requestforge/requestforge/interop/servers"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// each runs test on each server of the flow that is fit, with a Wire to it.
func each(t *testing.T, flow string, fit func(*servers.Server) bool, test func(t *testing.T, s *servers.Server, wire *demo.Wire)) {
	ran := 0
	for _, name := range demo.Servers(flow) {
		s, err := servers.Start(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if fit(s) {
			ran++
			t.Run(name, func(t *testing.T) { test(t, s, demo.NewWire(io.Discard, s)) })
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if ran == 0 {
		t.Error("no server is fit")
	}
}

func all(*servers.Server) bool { return true }

func hasPasswords(s *servers.Server) bool { return s.Username != "" }

func pipeline(t *testing.T, step requestforge.Step) *requestforge.Pipeline {
	t.Helper()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{step}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tokens.Close() })
	return tokens
}

// through returns the context by which x/oauth2 sends through wire.
func through(ctx context.Context, wire *demo.Wire) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, wire.Client())
}

func compare(t *testing.T, wire *demo.Wire, want ...string) {
	t.Helper()
	if err := wire.Compare(want); err != nil {
		t.Error(err)
	}
}

// sdk is a client as SDKs are: it makes its own oauth2.Transport, over the
// transport that it is given, from the token source that it is given.
type sdk struct {
	client *http.Client
	url    string
}

func newSDK(url string, base http.RoundTripper, source oauth2.TokenSource) *sdk {
	return &sdk{&http.Client{Transport: &oauth2.Transport{Source: source, Base: base}}, url}
}

// status makes a call and returns the status of the answer.
func (s *sdk) status(t *testing.T) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestPipelineIsTheSourceOfAnSDK(t *testing.T) {
	each(t, "client credentials", all, func(t *testing.T, s *servers.Server, wire *demo.Wire) {
		tokens := pipeline(t, requestforge.Step{Name: "app", Fetcher: oauth2source.ClientCredentials(oauth2source.Config{
			TokenURL: s.TokenURL, ClientAuth: &requestforge.ClientAuth{ID: s.ClientID, Secret: s.ClientSecret}, Scopes: s.Scopes, Client: wire.Client(),
		})})
		sdk := newSDK(s.ResourceURL, wire, oauth2source.TokenSource(t.Context(), tokens))
		for range 2 {
			if got := sdk.status(t); got != http.StatusOK {
				t.Errorf("the SDK got %d", got)
			}
		}
		revoke(t, s, wire, tokens)
		if got := sdk.status(t); got == http.StatusOK {
			t.Error("the SDK got 200 with a revoked token")
		}
		// x/oauth2 tells nobody. Someone who knows has to.
		if err := tokens.InvalidateStep(t.Context(), "app"); err != nil {
			t.Fatal(err)
		}
		if got := sdk.status(t); got != http.StatusOK {
			t.Errorf("the SDK got %d after the invalidation", got)
		}
		compare(t, wire, "client_credentials ok", "resource ok", "resource ok", "revocation ok",
			"resource refused", "client_credentials ok", "resource ok")
	})
}

// An SDK that insists on a source of its own, but takes a transport, too, gets
// ours below its: ReplaceCaller puts the token in the place of the SDK's.
func TestTransportBelowAnSDKReplacesARevokedToken(t *testing.T) {
	each(t, "client credentials", all, func(t *testing.T, s *servers.Server, wire *demo.Wire) {
		tokens := pipeline(t, requestforge.Step{Name: "app", Fetcher: oauth2source.ClientCredentials(oauth2source.Config{
			TokenURL: s.TokenURL, ClientAuth: &requestforge.ClientAuth{ID: s.ClientID, Secret: s.ClientSecret}, Scopes: s.Scopes, Client: wire.Client(),
		})})
		transport, err := requestforge.NewTransport(requestforge.Config{
			Base: wire, BaseURL: s.ResourceURL, Source: tokens, Refused: s.Refused,
			OnConflict: requestforge.ReplaceCaller,
		})
		if err != nil {
			t.Fatal(err)
		}
		sdk := newSDK(s.ResourceURL, transport, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "unused"}))
		if got := sdk.status(t); got != http.StatusOK {
			t.Errorf("the SDK got %d", got)
		}
		revoke(t, s, wire, tokens)
		if got := sdk.status(t); got != http.StatusOK {
			t.Errorf("the SDK got %d after the revocation", got)
		}
		compare(t, wire, "client_credentials ok", "resource ok", "revocation ok",
			"resource refused", "client_credentials ok", "resource ok")
	})
}

func TestOAuth2ClientCredentialsAreAStep(t *testing.T) {
	each(t, "client credentials", all, func(t *testing.T, s *servers.Server, wire *demo.Wire) {
		conf := clientcredentials.Config{
			ClientID:     s.ClientID,
			ClientSecret: s.ClientSecret,
			TokenURL:     s.TokenURL,
			Scopes:       s.Scopes,
			AuthStyle:    oauth2.AuthStyleInHeader,
		}
		tokens := pipeline(t, requestforge.Step{
			Name: "app",
			Fetcher: oauth2source.FetcherFrom(func(ctx context.Context, _ requestforge.Input) (oauth2.TokenSource, error) {
				return conf.TokenSource(through(ctx, wire)), nil
			}),
		})
		replaces(t, s, wire, tokens, []string{"client_credentials ok"}, []string{"client_credentials ok"})
	})
}

func TestOAuth2PasswordAndRefreshAreAStep(t *testing.T) {
	each(t, "refresh-token rotation", hasPasswords, func(t *testing.T, s *servers.Server, wire *demo.Wire) {
		conf := oauth2.Config{
			ClientID:     s.ClientID,
			ClientSecret: s.ClientSecret,
			Endpoint:     oauth2.Endpoint{TokenURL: s.TokenURL, AuthStyle: oauth2.AuthStyleInHeader},
			Scopes:       slices.Concat(s.Scopes, s.RefreshScopes),
		}
		tokens := pipeline(t, requestforge.Step{
			Name: "user",
			Fetcher: oauth2source.FetcherFrom(func(ctx context.Context, _ requestforge.Input) (oauth2.TokenSource, error) {
				tok, err := conf.PasswordCredentialsToken(through(ctx, wire), s.Username, s.Password)
				return oauth2.StaticTokenSource(tok), err
			}),
			Refresh: oauth2source.FetcherFrom(func(ctx context.Context, in requestforge.Input) (oauth2.TokenSource, error) {
				return conf.TokenSource(through(ctx, wire), &oauth2.Token{RefreshToken: in.Previous.RefreshToken}), nil
			}),
		})
		renewal := []string{"refresh_token ok"}
		if s.RevokesRefresh {
			renewal = []string{"refresh_token refused", "password ok"}
		}
		replaces(t, s, wire, tokens, []string{"password ok"}, renewal)

		// A thief's reuse, too, looks to the caller like nothing.
		first, err := tokens.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tokens.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := conf.TokenSource(through(t.Context(), wire), &oauth2.Token{RefreshToken: first.RefreshToken}).Token(); err == nil {
			t.Error("a refresh token was taken twice")
		}
		want := []string{"refresh_token ok", "refresh_token refused"}
		if s.KillsFamily {
			want = append(want, "resource refused", "refresh_token refused", "password ok")
		}
		if err := demo.Get(t.Context(), client(t, s, wire, tokens), s.ResourceURL); err != nil {
			t.Error(err)
		}
		compare(t, wire, append(want, "resource ok")...)
	})
}

// replaces checks that a revoked token is replaced, unseen by the caller.
func replaces(t *testing.T, s *servers.Server, wire *demo.Wire, tokens *requestforge.Pipeline, login, renewal []string) {
	t.Helper()
	if err := (demo.Story{
		Server: s, Wire: wire, Tokens: tokens, Client: client(t, s, wire, tokens),
		ClientID: s.ClientID, ClientSecret: s.ClientSecret,
		Login: login, Renewal: renewal,
	}).Tell(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, s *servers.Server, wire *demo.Wire, tokens requestforge.TokenSource) *http.Client {
	t.Helper()
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base: wire, BaseURL: s.ResourceURL, Source: tokens, Refused: s.Refused,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: transport}
}

// revoke has the server revoke the token that the pipeline holds.
func revoke(t *testing.T, s *servers.Server, wire *demo.Wire, tokens *requestforge.Pipeline) {
	t.Helper()
	tok, err := tokens.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := wire.Revoke(t.Context(), s.ClientID, s.ClientSecret, tok.AccessToken); err != nil {
		t.Fatal(err)
	}
}
