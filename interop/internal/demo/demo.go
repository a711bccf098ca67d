// How a program of the examples is run, and the story that most of them tell.
// What goes over the wire meanwhile is wire.go's.

// Package demo is what the programs in examples have in common: they start a
// server, log in, have a token revoked, and compare what went over the wire
// with what should have.
package demo

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/interop/servers"
)

// Servers returns the names of the servers that the flow is run on.
func Servers(flow string) []string {
	for _, f := range servers.Flows {
		if f.Name == flow {
			return f.Servers
		}
	}
	return nil
}

// Main is the main function of the flow's program. It starts the server that
// the flag -server names and runs run with it. If what run has seen isn't what
// should have happened, the exit status is 1.
func Main(flow string, run func(ctx context.Context, out io.Writer, s *servers.Server) error) {
	names := Servers(flow)
	if len(names) == 0 {
		fmt.Fprintf(os.Stderr, "no server has the flow %q\n", flow)
		os.Exit(1)
	}
	name := flag.String("server", names[0], "the auth server: "+strings.Join(names, ", "))
	flag.Parse()
	if !slices.Contains(names, *name) {
		fmt.Fprintf(os.Stderr, "-server is one of %s\n", strings.Join(names, ", "))
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	err := func() error {
		defer cancel()
		s, err := servers.Start(ctx, *name)
		if err != nil {
			return err
		}
		defer s.Close()
		return run(ctx, os.Stdout, s)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Story is a login whose token is revoked.
type Story struct {
	Server *servers.Server
	Wire   *Wire
	Tokens *requestforge.Pipeline
	Client *http.Client // sends through Wire, with Tokens

	// ClientID and ClientSecret are those of the client that the token was
	// issued to, which alone may revoke it.
	ClientID, ClientSecret string

	// Login is what the first token should take, and Renewal the next one,
	// as Wire has it ("client_credentials ok").
	Login, Renewal []string
}

// Tell calls the resource, has the token revoked and calls the resource again.
// The error is nil if both calls succeeded, and if exactly the following went
// over the wire: the login and the first call; the revocation; the second call,
// which was refused; a renewal, and the second call once more.
func (s Story) Tell(ctx context.Context) error {
	s.Wire.Say("The caller asks for %s.", s.Server.ResourceURL)
	if err := Get(ctx, s.Client, s.Server.ResourceURL); err != nil {
		return err
	}
	tok, err := s.Tokens.Token(ctx)
	if err != nil {
		return err
	}
	s.Wire.Say("The token is revoked at the server (RFC 7009). The caller isn't told, and asks again.")
	if err := s.Wire.Revoke(ctx, s.ClientID, s.ClientSecret, tok.AccessToken); err != nil {
		return err
	}
	if err := Get(ctx, s.Client, s.Server.ResourceURL); err != nil {
		return err
	}
	return s.Wire.Compare(slices.Concat(
		s.Login, []string{"resource ok", "revocation ok", "resource refused"},
		s.Renewal, []string{"resource ok"}))
}

// Get is what a caller does who knows nothing of tokens. An answer other than
// 200 is an error.
func Get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the caller got %s", resp.Status)
	}
	return nil
}
