// Logout ends a login at the server, too (RFC 7009). The program starts a real server on
// loopback:
//
//	go run ./examples/logout -server fosite
//
// The caller asks for a resource and logs out. Then somebody who has kept
// copies of the tokens tries both, and the caller asks once more, which takes a
// new login. What goes over the wire is printed; the exit status is 1 if a request is
// missing or one too many.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/interop/internal/demo"
	"github.com/requestforge/requestforge/interop/servers"
	"github.com/requestforge/requestforge/oauth2source"
)

const flow = "logout"

func main() { demo.Main(flow, run) }

// login returns a pipeline at s with a revocation for each step. client sends the requests
// of the steps.
func login(s *servers.Server, client *http.Client) (*requestforge.Pipeline, error) {
	steps := demo.Steps(s, client)
	for i := range steps {
		id, secret := s.ClientID, s.ClientSecret
		if steps[i].Name == "user" {
			id, secret = demo.Owner(s)
		}
		steps[i].Revoke = oauth2source.Revoke(oauth2source.Config{
			ClientAuth: &requestforge.ClientAuth{ID: id, Secret: secret},
			Client:     client,
		}, s.RevokeURL)
	}
	return requestforge.NewPipeline(requestforge.PipelineConfig{Steps: steps})
}

// caller returns a client that sends through wire, with tokens.
func caller(s *servers.Server, wire *demo.Wire, tokens requestforge.TokenSource) (*http.Client, error) {
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    wire,
		BaseURL: s.ResourceURL,
		Source:  tokens,
		Refused: s.Refused,
	})
	return &http.Client{Transport: transport}, err
}

// introspect asks s whether a token is active (RFC 7662).
func introspect(ctx context.Context, client *http.Client, s *servers.Server, token string) (active bool, err error) {
	form := url.Values{"token": {token}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.IntrospectURL, strings.NewReader(form.Encode()))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(s.ClientID), url.QueryEscape(s.ClientSecret))
	resp, err := client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var answer struct{ Active *bool }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Active == nil {
		return false, fmt.Errorf("introspection says nothing: %s, %v", resp.Status, err)
	}
	return *answer.Active, nil
}

// run tells the story of s and returns what was wrong.
func run(ctx context.Context, out io.Writer, s *servers.Server) error {
	wire := demo.NewWire(out, s)
	tokens, err := login(s, wire.Client())
	if err != nil {
		return err
	}
	defer tokens.Close()
	client, err := caller(s, wire, tokens)
	if err != nil {
		return err
	}
	wire.Say("The caller asks for %s.", s.ResourceURL)
	if err := demo.Get(ctx, client, s.ResourceURL); err != nil {
		return err
	}
	kept, err := tokens.Token(ctx)
	if err != nil {
		return err
	}
	want := append(demo.Logins(s), "resource ok")

	wire.Say("The caller logs out.")
	if err := tokens.Logout(ctx); err != nil {
		return err
	}
	want = append(want, "revocation of refresh_token ok", "revocation of access_token ok")
	if s.Username == "" { // the app's token, of which the user's was made
		want = append(want, "revocation of access_token ok")
	}

	wire.Say("Somebody has kept a copy of the access token.")
	thief, err := caller(s, wire, requestforge.StaticToken(kept))
	if err != nil {
		return err
	}
	if err := demo.Get(ctx, thief, s.ResourceURL); err == nil {
		return fmt.Errorf("%s still takes the access token", s.Name)
	}
	wire.Say("No use. And of the refresh token?")
	id, secret := demo.Owner(s)
	refresh := oauth2source.Refresh(oauth2source.Config{
		TokenURL:   s.TokenURL,
		ClientAuth: &requestforge.ClientAuth{ID: id, Secret: secret},
		Client:     wire.Client(),
	})
	if _, err := refresh.Fetch(ctx, requestforge.Input{Previous: kept}); err == nil {
		return fmt.Errorf("%s still takes the refresh token", s.Name)
	}
	want = append(want, "resource refused", "refresh_token refused")

	if s.IntrospectURL != "" {
		wire.Say("No use either. What does introspection say of both?")
		for _, token := range []string{kept.AccessToken, kept.RefreshToken} {
			switch active, err := introspect(ctx, wire.Client(), s, token); {
			case err != nil:
				return err
			case active:
				return fmt.Errorf("%s says that a revoked token is active", s.Name)
			}
			want = append(want, "/token/introspection ok")
		}
	}

	wire.Say("No use. The caller logs out again, which costs nothing, and asks again, which takes a login.")
	if err := tokens.Logout(ctx); err != nil {
		return err
	}
	if err := demo.Get(ctx, client, s.ResourceURL); err != nil {
		return err
	}
	return wire.Compare(append(append(want, demo.Logins(s)...), "resource ok"))
}
