// Tokenexchange gets a token for an application and trades it for one of a user
// (RFC 8693), at a real server that it starts on loopback:
//
//	go run ./examples/tokenexchange -server zitadel
//
// Then the user's token is revoked at the server, behind the caller's back.
// What goes over the wire is printed; if it isn't what it should be, the exit
// status is 1.
package main

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/interop/internal/demo"
	"github.com/requestforge/requestforge/interop/servers"
	"github.com/requestforge/requestforge/oauth2source"
)

const flow = "token exchange"

func main() { demo.Main(flow, run) }

// run logs in at s and returns what was wrong.
func run(ctx context.Context, out io.Writer, s *servers.Server) error {
	wire := demo.NewWire(out, s)
	params := url.Values{}
	for name, value := range s.Exchange.Params {
		params.Set(name, value)
	}
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name: "app",
			Fetcher: oauth2source.ClientCredentials(oauth2source.Config{
				TokenURL:   s.TokenURL,
				ClientAuth: &requestforge.ClientAuth{ID: s.ClientID, Secret: s.ClientSecret},
				Scopes:     s.Scopes,
				Client:     wire.Client(),
			}),
		}, {
			Name:      "user",
			DependsOn: []string{"app"},
			Fetcher: oauth2source.TokenExchange(oauth2source.Config{
				TokenURL:   s.TokenURL,
				ClientAuth: &requestforge.ClientAuth{ID: s.Exchange.ClientID, Secret: s.Exchange.ClientSecret},
				Scopes:     s.Exchange.Scopes,
				Params:     params,
				Client:     wire.Client(),
			}, oauth2source.Exchange{
				Subject:     oauth2source.FromStep("app"),
				SubjectType: s.Exchange.SubjectTokenType,
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
		Refused: s.Refused,
	})
	if err != nil {
		return err
	}
	return demo.Story{
		Server:       s,
		Wire:         wire,
		Tokens:       tokens,
		Client:       &http.Client{Transport: transport},
		ClientID:     s.Exchange.ClientID,
		ClientSecret: s.Exchange.ClientSecret,
		Login:        []string{"client_credentials ok", "token-exchange ok"},
		Renewal:      []string{"token-exchange ok"}, // the app's token is as good as before
	}.Tell(ctx)
}
