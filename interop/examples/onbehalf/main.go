// Onbehalf trades each user's own token for one of the same user (RFC 8693), for many
// users of one pipeline, at a real server that it starts on loopback:
//
//	go run ./examples/onbehalf -server zitadel
//
// The application's own token, by which it acts for them, is shared. Tokens are revoked at
// the server, a user is locked out, and one comes with a token that has expired: nobody
// else notices. What goes over the wire is printed; if it isn't what it should be, or if
// anybody gets somebody else's answer, the exit status is 1.
package main

import (
	"context"
	"io"
	"net/http"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/interop/internal/demo"
	"github.com/requestforge/requestforge/interop/servers"
	"github.com/requestforge/requestforge/oauth2source"
)

const flow = "token exchange for many users"

func main() { demo.Main(flow, run) }

// newPipeline is what an application writes: whose tokens a request wants, the token that
// it came with, and what becomes of that.
func newPipeline(s *servers.Server, client *http.Client) (*requestforge.Pipeline, error) {
	cfg := oauth2source.Config{
		TokenURL:   s.TokenURL,
		ClientAuth: &requestforge.ClientAuth{ID: s.ClientID, Secret: s.ClientSecret},
		Scopes:     s.Scopes,
		Client:     client,
	}
	return requestforge.NewPipeline(requestforge.PipelineConfig{
		Subject: demo.SubjectOf, // requestforge.SubjectID(issuer, user), as verified
		Steps: []requestforge.Step{
			{Name: "app", Fetcher: oauth2source.ClientCredentials(cfg)}, // everybody's
			{Name: "inbound", Given: demo.Given},
			{Name: "user", DependsOn: []string{"app", "inbound"}, Fetcher: oauth2source.TokenExchange(cfg, oauth2source.Exchange{
				Subject:       oauth2source.FromStep("inbound"),
				Actor:         oauth2source.FromStep("app"),
				RequestedType: oauth2source.AccessTokenType,
			})},
		},
	})
}

// run lets users come, and returns what was wrong.
func run(ctx context.Context, out io.Writer, s *servers.Server) error {
	tap := demo.NewGrantTap(out, s.ResourceURL)
	tokens, err := newPipeline(s, &http.Client{Transport: tap})
	if err != nil {
		return err
	}
	defer tokens.Close()
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    tap,
		BaseURL: s.ResourceURL,
		Source:  tokens,
		Refused: s.Refused,
	})
	if err != nil {
		return err
	}
	return demo.Crowd{
		Home:     s,
		Resource: s,
		Tap:      tap,
		Tokens:   tokens,
		Client:   &http.Client{Transport: transport},
		Own:      func(access, _ string) string { return access },
		Shared:   []string{"client_credentials 200"},
		Login:    []string{"token-exchange 200"},
		Renewal:  []string{"token-exchange 200"},
		// The server doesn't say which of the two tokens it refuses. The app's is looked
		// into once, and then no more for a while.
		Denied: []string{"token-exchange 400", "client_credentials 200", "token-exchange 400"},
	}.Tell(ctx)
}
