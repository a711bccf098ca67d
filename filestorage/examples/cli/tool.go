// The tool: what a real one's main would call.

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/filestorage"
)

const user = "gopher"

// tool runs one command, at a server that it asks by client.
func tool(ctx context.Context, in io.Reader, out io.Writer, client *http.Client, server, dir, command string) error {
	if dir == "" {
		var err error
		if dir, err = filestorage.DefaultPath("requestforge-example"); err != nil {
			return err
		}
	}
	store, err := filestorage.New(dir)
	if err != nil {
		return err
	}
	password := ""
	switch command {
	case "login":
		fmt.Fprintf(out, "password of %s: ", user)
		password, err = bufio.NewReader(in).ReadString('\n')
		if password = strings.TrimSpace(password); password == "" {
			return fmt.Errorf("no password was given: %w", err)
		}
	case "status":
		client = &http.Client{Transport: nobody{}}
	}
	tokens, err := newPipeline(server, password, store, client)
	if err != nil {
		return err
	}
	defer tokens.Close()

	switch command {
	case "login":
		return login(ctx, out, tokens)
	case "whoami":
		return whoami(ctx, out, client, server, tokens)
	case "status":
		return status(ctx, out, tokens)
	case "logout":
		return logout(ctx, out, tokens)
	}
	return fmt.Errorf("there is no command %q; there are login, whoami, status and logout", command)
}

// newPipeline has two steps, the user's session and the token that the API gives out for a
// session. Only the command login knows the password. Other commands use what store
// has: the tokens, and the session's refresh token.
func newPipeline(server, password string, store requestforge.Storage, client *http.Client) (*requestforge.Pipeline, error) {
	var login requestforge.Fetcher = requestforge.FetcherFunc(loggedOut)
	if password != "" {
		login = &requestforge.HTTPFetcher{
			URL:    server + "/login",
			JSON:   map[string]string{"user": user, "password": password},
			Client: client,
		}
	}
	return requestforge.NewPipeline(requestforge.PipelineConfig{
		Storage:        store,
		KeyPrefix:      "cli",
		StorageTimeout: 5 * time.Second, // a laptop's disk may be asleep
		Steps: []requestforge.Step{{
			Name:     "session",
			Identity: user + " at " + server, // whoever fetches it: another server gets none of its tokens
			Fetcher:  login,
			Refresh: &requestforge.HTTPFetcher{
				URL: server + "/renew",
				BodyFrom: func(in requestforge.Input) (any, error) {
					return map[string]string{"refresh_token": in.Previous.RefreshToken}, nil
				},
				Client: client,
			},
			Revoke: func(ctx context.Context, in requestforge.Input) error {
				return endSession(ctx, client, server, in.Previous)
			},
		}, {
			Name:      "api",
			DependsOn: []string{"session"},
			Fetcher: &requestforge.HTTPFetcher{
				URL:        server + "/token",
				HeaderFrom: map[string]string{"X-Session": "session"},
				Client:     client,
			},
		}},
	})
}

var errLoggedOut = errors.New("not logged in: run the command login")

// loggedOut is the Fetcher of a command that has no password.
func loggedOut(context.Context, requestforge.Input) (*requestforge.Token, error) {
	return nil, &requestforge.AuthError{Permanent: true, Unsent: true, Err: errLoggedOut}
}

// endSession is the logout at the server, which ends the API's tokens, too.
func endSession(ctx context.Context, client *http.Client, server string, session *requestforge.Token) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, server+"/session", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Session", session.AccessToken)
	resp, err := client.Do(req)
	if err != nil {
		return requestforge.NewAuthError(nil, nil, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return requestforge.NewAuthError(resp, nil, nil)
	}
	return nil
}

// login ends a session from before, and fetches the tokens now, so that a wrong password
// is an error of this command.
func login(ctx context.Context, out io.Writer, tokens *requestforge.Pipeline) error {
	if err := logout(ctx, io.Discard, tokens); err != nil {
		return err
	}
	if _, err := tokens.Token(ctx); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "logged in")
	return err
}

// whoami is a call of the API, which knows nothing of logins.
func whoami(ctx context.Context, out io.Writer, client *http.Client, server string, tokens *requestforge.Pipeline) error {
	authed := &http.Client{Transport: &requestforge.AuthTransport{Base: client.Transport, Source: tokens, Origins: []string{server}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/whoami", nil)
	if err != nil {
		return err
	}
	resp, err := authed.Do(req)
	if errors.Is(err, errLoggedOut) {
		return errLoggedOut
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the API answered %s", resp.Status)
	}
	name, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "hello %s\n", name)
	return err
}

// status says what the file knows. Token loads the session's token from the file; the
// client of status lets no request out, so that without a token Token fails.
func status(ctx context.Context, out io.Writer, tokens *requestforge.Pipeline) error {
	_, _ = tokens.Source("session").Token(ctx)
	said := "not logged in"
	for _, step := range tokens.State(ctx).Steps {
		switch live := step.Status == requestforge.StatusLive || step.Status == requestforge.StatusAhead; {
		case step.Name != "session":
		case live:
			said = fmt.Sprintf("logged in as %s until %s, or longer if used", user, step.Expiry.Format(time.DateTime))
		case !step.Expiry.IsZero():
			said = fmt.Sprintf("logged in as %s until %s; the next command that needs it tries to renew it", user, step.Expiry.Format(time.DateTime))
		}
	}
	_, err := fmt.Fprintln(out, said)
	return err
}

// nobody is the transport of status, which asks nobody.
type nobody struct{}

func (nobody) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("status asks nobody")
}

// logout ends the session here and at the server. Even if the server can't be reached,
// this machine has forgotten the tokens.
func logout(ctx context.Context, out io.Writer, tokens *requestforge.Pipeline) error {
	if err := tokens.Logout(ctx); err != nil {
		return fmt.Errorf("logged out here, but the server may not know: %w", err)
	}
	_, err := fmt.Fprintln(out, "logged out")
	return err
}
