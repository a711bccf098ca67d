// Rotation lives with refresh tokens that can be used once (RFC 6749 §6,
// RFC 9700 §4.14.2), at a real server that it starts on loopback:
//
//	go run ./examples/rotation -server fosite
//
// The story has three chapters. A revoked access token is replaced with the
// refresh token. Then a thief uses a refresh token a second time, and it is
// seen what the server does to the family, the tokens that came of it. Last, a
// fleet shares one login and renews it again and again: no refresh token is
// sent twice. What goes over the wire is printed; if it isn't what it should
// be, the exit status is 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/filestorage"
	"github.com/requestforge/requestforge/interop/internal/demo"
	"github.com/requestforge/requestforge/interop/servers"
	"github.com/requestforge/requestforge/oauth2source"
)

const flow = "refresh-token rotation"

func main() { demo.Main(flow, run) }

// login is a pipeline at s, whose token requests client sends.
func login(s *servers.Server, client *http.Client, storage requestforge.Storage) (*requestforge.Pipeline, error) {
	return requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps:     demo.Steps(s, client),
		Storage:   storage,
		KeyPrefix: "rotation",

		// A token that isn't saved in time is one that the others don't
		// know, and its refresh token the only one that is any good.
		StorageTimeout: 10 * time.Second,
	})
}

// run tells the story of s and returns what was wrong.
func run(ctx context.Context, out io.Writer, s *servers.Server) error {
	return errors.Join(revoked(ctx, out, s), stolen(ctx, out, s), fleet(ctx, out, s))
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

// revoked is the first chapter.
func revoked(ctx context.Context, out io.Writer, s *servers.Server) error {
	wire := demo.NewWire(out, s)
	tokens, err := login(s, wire.Client(), requestforge.NewMemoryStorage())
	if err != nil {
		return err
	}
	defer tokens.Close()
	client, err := caller(s, wire, tokens)
	if err != nil {
		return err
	}
	renewal := []string{"refresh_token ok"}
	if s.RevokesRefresh {
		renewal = append([]string{"refresh_token refused"}, demo.Logins(s)...)
	}
	id, secret := demo.Owner(s)
	return demo.Story{
		Server:       s,
		Wire:         wire,
		Tokens:       tokens,
		Client:       client,
		ClientID:     id,
		ClientSecret: secret,
		Login:        demo.Logins(s),
		Renewal:      renewal,
	}.Tell(ctx)
}

// stolen is the second chapter.
func stolen(ctx context.Context, out io.Writer, s *servers.Server) error {
	wire := demo.NewWire(out, s)
	tokens, err := login(s, wire.Client(), requestforge.NewMemoryStorage())
	if err != nil {
		return err
	}
	defer tokens.Close()
	client, err := caller(s, wire, tokens)
	if err != nil {
		return err
	}
	wire.Say("\nThere is another login, and it is renewed, which spends its first refresh token.")
	if err := demo.Get(ctx, client, s.ResourceURL); err != nil {
		return err
	}
	first, err := tokens.Token(ctx)
	if err != nil {
		return err
	}
	second, err := tokens.Refresh(ctx) // every step
	if err != nil {
		return err
	}
	want := append(demo.Logins(s), "resource ok")
	if s.Username == "" {
		want = append(want, "client_credentials ok")
	}
	want = append(want, "refresh_token ok")

	wire.Say("A thief sends the first refresh token once more.")
	id, secret := demo.Owner(s)
	thief := oauth2source.Refresh(oauth2source.Config{
		TokenURL:   s.TokenURL,
		ClientAuth: &requestforge.ClientAuth{ID: id, Secret: secret},
		Client:     wire.Client(),
	})
	if _, err := thief.Fetch(ctx, requestforge.Input{Previous: first}); err == nil {
		return fmt.Errorf("%s took a refresh token twice", s.Name)
	}
	want = append(want, "refresh_token refused")

	wire.Say("Is the second access token still good?")
	bare, err := caller(s, wire, requestforge.StaticToken(second))
	if err != nil {
		return err
	}
	err = demo.Get(ctx, bare, s.ResourceURL)
	if s.KillsFamily {
		if err == nil {
			return fmt.Errorf("%s still takes the second access token", s.Name)
		}
		wire.Say("No. And the second refresh token?")
		if _, err := thief.Fetch(ctx, requestforge.Input{Previous: second}); err == nil {
			return fmt.Errorf("%s still takes the second refresh token", s.Name)
		}
		wire.Say("No: the family is dead. The caller asks, and there is a new login.")
		want = append(want, "resource refused", "refresh_token refused", "resource refused", "refresh_token refused")
		want = append(want, demo.Logins(s)...)
	} else {
		if err != nil {
			return fmt.Errorf("the second access token: %w", err)
		}
		want = append(want, "resource ok")
		wire.Say("Yes: only the refresh token that was used twice is dead. The caller asks, and knows nothing of it.")
	}
	if err := demo.Get(ctx, client, s.ResourceURL); err != nil {
		return err
	}
	return wire.Compare(append(want, "resource ok"))
}

const (
	members  = 4  // of the fleet
	renewals = 10 // by each of them
)

// fleet is the third chapter: members of a fleet that know nothing of each
// other but the directory where their tokens are. The test does the same with
// processes.
func fleet(ctx context.Context, out io.Writer, s *servers.Server) error {
	fmt.Fprintf(out, "\nA fleet of %d shares a login and renews it, %d times each. (What goes over the wire is left out.)\n", members, renewals)
	dir, err := os.MkdirTemp("", "rotation-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	wire := demo.NewWire(io.Discard, s)
	var fleet [members]*requestforge.Pipeline
	for i := range fleet {
		storage, err := filestorage.New(dir)
		if err != nil {
			return err
		}
		if fleet[i], err = login(s, wire.Client(), storage); err != nil {
			return err
		}
		defer fleet[i].Close()
	}
	var wg sync.WaitGroup
	var errs [members]error
	for i, tokens := range fleet {
		wg.Go(func() { errs[i] = renewOften(ctx, tokens) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	used, err := inspect(s, wire.Sent())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "There was one login. %d refresh tokens were used, each of them once, and each came of the one before.\n", used)

	for _, tokens := range fleet {
		client, err := caller(s, wire, tokens)
		if err != nil {
			return err
		}
		if err := demo.Get(ctx, client, s.ResourceURL); err != nil {
			return err
		}
	}
	if _, err := inspect(s, wire.Sent()); err != nil {
		return err
	}
	fmt.Fprintln(out, "The family lives: each member has asked for the resource and got it.")
	return nil
}

// renewOften is what each member does. Every other time it takes its token for
// revoked, so that the others lose it, too.
func renewOften(ctx context.Context, tokens *requestforge.Pipeline) error {
	for i := range renewals {
		if i%2 == 1 {
			if err := tokens.InvalidateStep(ctx, "user"); err != nil {
				return err
			}
			if _, err := tokens.Token(ctx); err != nil {
				return err
			}
		} else if _, err := tokens.Refresh(ctx); err != nil {
			return err
		}
	}
	return nil
}

// inspect looks for what would have killed the family. It returns how many
// refresh tokens were used, and an error unless there was exactly one login and
// each refresh token used was the one that the server had given out last.
func inspect(s *servers.Server, sent []demo.Sent) (used int, err error) {
	last := "" // refresh token given out
	for _, r := range sent {
		switch {
		case r.Spent != "" && (r.Refused || r.Spent != last):
			return used, fmt.Errorf("%s: a refresh token was used a second time", s.Name)
		case r.Spent != "":
			used++
		case r.Got != "" && last != "":
			return used, fmt.Errorf("%s: there was a second login", s.Name)
		}
		if r.Got != "" {
			last = r.Got
		}
	}
	if used == 0 {
		return 0, fmt.Errorf("%s: no refresh token was used", s.Name)
	}
	return used, nil
}
