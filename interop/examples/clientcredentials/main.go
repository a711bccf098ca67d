// Clientcredentials gets a token with a client's id and secret (RFC 6749
// §4.4), at a real server that it starts on loopback:
//
//	go run ./examples/clientcredentials -server zitadel
//
// Then the token is revoked at the server, behind the caller's back. What goes
// over the wire is printed; if it isn't what it should be, the exit status is 1.
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

const flow = "client credentials"

func main() { demo.Main(flow, run) }

// run logs in at s and returns what was wrong.
func run(ctx context.Context, out io.Writer, s *servers.Server) error {
	wire := demo.NewWire(out, s)
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name: "app",
			Fetcher: oauth2source.ClientCredentials(oauth2source.Config{
				TokenURL:   s.TokenURL,
				ClientAuth: &requestforge.ClientAuth{ID: s.ClientID, Secret: s.ClientSecret},
				Scopes:     s.Scopes,
				Client:     wire.Client(),
			}),
		}},
	})
	if err != nil {
		return err
	}
	defer tokens.Close()
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    wire,
		BaseURL: s.ResourceURL,
		Source:  tokens,
		Refused: s.Refused, // zitadel's is a 403
	})
	if err != nil {
		return err
	}
	return demo.Story{
		Server:       s,
		Wire:         wire,
		Tokens:       tokens,
		Client:       &http.Client{Transport: transport},
		ClientID:     s.ClientID,
		ClientSecret: s.ClientSecret,
		Login:        []string{"client_credentials ok"},
		Renewal:      []string{"client_credentials ok"},
	}.Tell(ctx)
}
