// Jwtbearer trades an assertion that it signs itself for a token (RFC 7523
// §2.1), at a real server that it starts on loopback:
//
//	go run ./examples/jwtbearer -server zitadel
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

const flow = "JWT bearer"

func main() { demo.Main(flow, run) }

// run logs in at s and returns what was wrong.
func run(ctx context.Context, out io.Writer, s *servers.Server) error {
	wire := demo.NewWire(out, s)
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name: "service",
			Fetcher: oauth2source.JWTBearer(oauth2source.Config{
				TokenURL: s.TokenURL,
				// The assertion says who it is about. Who sends it is
				// for the client to say, where the server asks.
				ClientAuth: &requestforge.ClientAuth{ID: s.ClientID, Secret: s.ClientSecret},
				Scopes:     s.Scopes,
				Client:     wire.Client(),
			}, &oauth2source.JWT{
				Key:      s.Key,
				KeyID:    s.KeyID,
				Issuer:   s.Subject,
				Audience: s.Audience, // zitadel wants its issuer here, fosite its token endpoint
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
		ClientID:     s.ClientID,
		ClientSecret: s.ClientSecret,
		Login:        []string{"jwt-bearer ok"},
		Renewal:      []string{"jwt-bearer ok"}, // a new assertion: fosite takes none twice
	}.Tell(ctx)
}
