// Device logs in as a program without a browser does (RFC 8628), at a real
// server that it starts on loopback:
//
//	go run ./examples/device -server oidc-provider
//
// The person who enters the code is played by a browser of a few lines. A
// refresh needs no person. Then the token is revoked at the server, behind the
// caller's back, and if that takes the refresh token along, the person is asked
// once more. What goes over the wire is printed; if it isn't what it should be,
// the exit status is 1.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/interop/internal/demo"
	"github.com/requestforge/requestforge/interop/servers"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
)

const flow = "device"

func main() { demo.Main(flow, run) }

// run logs in at s and returns what was wrong.
func run(ctx context.Context, out io.Writer, s *servers.Server) error {
	wire := demo.NewWire(out, s)
	cfg := oauth2source.Config{
		TokenURL:   s.TokenURL,
		ClientAuth: &requestforge.ClientAuth{ID: s.ClientID, Secret: s.ClientSecret},
		Scopes:     s.RefreshScopes,
		Client:     wire.Client(),
	}
	asked := 0
	prompt := func(ctx context.Context, code *oauth2.DeviceAuthResponse) error {
		asked++
		wire.Say("Please open %s and enter %s.", code.VerificationURI, code.UserCode)
		return s.Approve(ctx, code.UserCode)
	}
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name:    "user",
			Timeout: 15 * time.Minute, // people take their time
			Fetcher: oauth2source.DeviceCode(cfg, s.DeviceURL, prompt),
			Refresh: oauth2source.Refresh(cfg),
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
	client := &http.Client{Transport: transport}

	device, err := url.Parse(s.DeviceURL)
	if err != nil {
		return err
	}
	login := []string{device.Path + " ok", "device_code ok"}
	wire.Say("At its start the program asks for a token, while the person is there, and refreshes it later.")
	if _, err := tokens.Token(ctx); err != nil {
		return err
	}
	if _, err := tokens.Refresh(ctx); err != nil {
		return err
	}
	if err := wire.Compare(slices.Concat(login, []string{"refresh_token ok"})); err != nil {
		return err
	}
	renewal, people := []string{"refresh_token ok"}, 1
	if s.RevokesRefresh {
		renewal, people = slices.Concat([]string{"refresh_token refused"}, login), 2
	}
	err = demo.Story{
		Server:       s,
		Wire:         wire,
		Tokens:       tokens,
		Client:       client,
		ClientID:     s.ClientID,
		ClientSecret: s.ClientSecret,
		Renewal:      renewal,
	}.Tell(ctx)
	if err == nil && asked != people {
		err = fmt.Errorf("a person was asked %d times, not %d", asked, people)
	}
	return err
}
