// Idjag takes many users of one pipeline from the identity provider where they have logged
// in to the authorization server of another company, in the two legs of
// draft-ietf-oauth-identity-assertion-authz-grant. Both are real, and started on loopback:
//
//	go run ./examples/idjag -server zitadel
//
// The user's ID token is exchanged at the provider for an ID-JAG (RFC 8693), and that is
// the assertion for a token of the other server (RFC 7523). Tokens are revoked there, a
// user is locked out at the provider, and one comes with a token that has expired: nobody
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

const flow = "ID-JAG for many users"

func main() { demo.Main(flow, run) }

// newPipeline is what an application writes: whose tokens a request wants, the ID token
// that it came with, and the two legs.
func newPipeline(idp, next *servers.Server, client *http.Client) (*requestforge.Pipeline, error) {
	return requestforge.NewPipeline(requestforge.PipelineConfig{
		Subject: demo.SubjectOf, // requestforge.SubjectID(issuer, user), as verified
		Steps: []requestforge.Step{{
			Name: "inbound", Given: demo.Given,
		}, {
			Name: "idjag", DependsOn: []string{"inbound"},
			Fetcher: oauth2source.TokenExchange(oauth2source.Config{
				TokenURL:   idp.TokenURL,
				ClientAuth: &requestforge.ClientAuth{ID: idp.ClientID, Secret: idp.ClientSecret},
				Scopes:     next.Scopes,
				Client:     client,
			}, oauth2source.Exchange{
				Subject:       oauth2source.FromStep("inbound"),
				SubjectType:   oauth2source.IDTokenType,
				RequestedType: oauth2source.IDJAGType,
				Audience:      []string{next.Issuer},
			}),
		}, {
			Name: "user", DependsOn: []string{"idjag"},
			Fetcher: oauth2source.JWTBearer(oauth2source.Config{
				TokenURL:   next.TokenURL,
				ClientAuth: &requestforge.ClientAuth{ID: next.ClientID, Secret: next.ClientSecret},
				Scopes:     next.Scopes,
				Client:     client,
			}, oauth2source.FromStep("idjag")),
		}},
	})
}

// run starts the other server and returns what was wrong.
func run(ctx context.Context, out io.Writer, idp *servers.Server) error {
	next, err := idp.Users.StartNext(ctx)
	if err != nil {
		return err
	}
	defer next.Close()
	return tell(ctx, out, idp, next)
}

// tell lets users come, and returns what was wrong.
func tell(ctx context.Context, out io.Writer, idp, next *servers.Server) error {
	tap := demo.NewGrantTap(out, next.ResourceURL)
	tokens, err := newPipeline(idp, next, &http.Client{Transport: tap})
	if err != nil {
		return err
	}
	defer tokens.Close()
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    tap,
		BaseURL: next.ResourceURL,
		Source:  tokens,
		Refused: next.Refused,
	})
	if err != nil {
		return err
	}
	return demo.Crowd{
		Home:     idp,
		Resource: next,
		Tap:      tap,
		Tokens:   tokens,
		Client:   &http.Client{Transport: transport},
		Own:      func(_, id string) string { return id },
		Login:    []string{"token-exchange 200", "jwt-bearer 200"},
		Renewal:  []string{"jwt-bearer 200"}, // the ID-JAG is as good as before
		Denied:   []string{"token-exchange 400"},
	}.Tell(ctx)
}
