// Production is a complete client for production, and a bad day in its life:
//
//	go run ./examples/production
//
// An app token is got with a client id and secret, a user token with that and
// a password, and the API takes the user token. Both servers run in this
// process (package authtest), and so does what goes wrong. What to look at:
//
//  1. setup is what an application writes. The rest of the program only makes
//     trouble and watches.
//  2. run is the day, an act at a time. Its callers (callers.go) never look at
//     a token.
//  3. What is printed below the title of an act are the log records of the
//     pipeline and of the requests, put in a few words by story.go, and last
//     what the servers counted meanwhile.
//  4. verdict compares the servers' counters with what should have happened.
//     If anything is off, it says what, and the exit status is 1.
//
// See the story fail with -replay=false: a refused request then isn't sent
// again with a new token. See the log records themselves with -v, as JSON on
// standard error; there is no token in them, and no password.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// setup makes the client. In production getenv is os.Getenv, alert calls
// somebody, and replays is 1.
func setup(getenv func(string) string, logger *slog.Logger, alert func(context.Context, error), replays int) (*http.Client, *requestforge.Pipeline, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name: "app_token",
			TTL:  time.Hour,
			Fetcher: &requestforge.BodyFetcher{
				URL: getenv("AUTH_URL") + "/v1/app/token",
				ClientAuth: &requestforge.ClientAuth{
					ID: getenv("CLIENT_ID"), Secret: getenv("CLIENT_SECRET"), InBody: true,
				},
			},
			OnError: alert,
		}, {
			Name:      "user_token",
			DependsOn: []string{"app_token"},
			TTL:       30 * time.Minute,
			Fetcher: &requestforge.BodyFetcher{
				URL:        getenv("AUTH_URL") + "/v1/user/token",
				HeaderFrom: map[string]string{"X-App-Token": "app_token"},
				JSON:       map[string]string{"username": getenv("USERNAME"), "password": getenv("PASSWORD")},
			},
			OnError: alert,
		}},
		KeyPrefix:   "myapp",
		RefreshFrom: "user_token",
		Logger:      logger,
	})
	if err != nil {
		return nil, nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL:       getenv("API_URL"),
		Tokens:        tokens,
		ExcludedPaths: []string{"/health"},
		AuthRetry:     requestforge.SimpleAuthRetry(replays, 500*time.Millisecond),
		Retry:         requestforge.ExponentialBackoff(3, time.Second, time.Minute),
		Logger:        logger,
		LogHeaders:    true,
	})
	if err != nil {
		return nil, nil, err
	}
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}, tokens, nil
}

// run tells the story to out and returns what is wrong with it.
func run(out io.Writer, raw slog.Handler, replays int) error {
	var leaks atomic.Int64
	srv, env := serve(&leaks)
	defer srv.Close()
	s := &story{out: out, srv: srv}
	alert := func(context.Context, error) {
		s.line("OnError", "somebody is called, and starts the auth server again")
		srv.Down(false)
	}
	logger := slog.New(slog.NewMultiHandler(s, raw))
	client, tokens, err := setup(func(name string) string { return env[name] }, logger, alert, replays)
	if err != nil {
		return err
	}
	c := &crowd{client: client}

	s.act("A health check comes first. Its path is excluded: no token, no login")
	c.get("/health")

	s.act("%d callers at once, and there is no token yet", callers)
	c.all("/user/profile", 1)

	s.act("%d requests more, one login for all of them", callers*many)
	c.all("/user/profile", many)

	s.act("The user token is revoked while %d requests carry it", callers)
	srv.Revoke("user_token")
	c.together(srv, "/user/profile")

	s.act("The app token is revoked, and with it what was made from it")
	srv.Revoke("app_token")
	c.together(srv, "/user/profile")

	s.act("The auth server goes down. The token in use is as good as before")
	srv.Down(true)
	c.get("/health")
	c.all("/user/profile", many)

	s.act("Still down, and the application drops its user token. %d requests wait", callers)
	if err := tokens.InvalidateStep(context.Background(), "user_token"); err != nil {
		s.line("pipeline", err.Error()) // it is dead here all the same; other processes may not know
	}
	c.all("/user/profile", 1)

	s.summary(c)
	return verdict(srv.Stats(), c, leaks.Load())
}

// serve starts the auth server and the API, and returns them with the
// environment of an application that uses them. An API that gets a token on
// its excluded path takes note of it.
func serve(leaks *atomic.Int64) (*authtest.Server, map[string]string) {
	env := map[string]string{
		"CLIENT_ID": "myapp", "CLIENT_SECRET": "a-made-up-client-secret",
		"USERNAME": "user@example.com", "PASSWORD": "a-made-up-password",
	}
	srv := authtest.NewServer(authtest.Config{
		Steps: []authtest.Step{{
			Name: "app_token", Path: "/v1/app/token", TTL: 24 * time.Hour,
			ClientID: env["CLIENT_ID"], ClientSecret: env["CLIENT_SECRET"], ClientAuth: authtest.BodyClientAuth,
		}, {
			Name: "user_token", Path: "/v1/user/token", TTL: 24 * time.Hour,
			Parents: map[string]string{"app_token": "X-App-Token"},
			JSON:    map[string]any{"username": env["USERNAME"], "password": env["PASSWORD"]},
		}},
		Cascade: true,
		API: authtest.API{
			Open: []string{"/health"},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/health" && r.Header.Get("Authorization") != "" {
					leaks.Add(1)
				}
				w.Header().Set("Set-Cookie", "session=a-made-up-session")
				io.WriteString(w, "{}\n")
			}),
		},
	})
	env["AUTH_URL"], env["API_URL"] = srv.URL, srv.URL
	return srv, env
}

// verdict returns what is off, an error for each figure.
func verdict(st authtest.Stats, c *crowd, leaks int64) error {
	var off []error
	expect := func(what string, got, want int) {
		if got != want {
			off = append(off, fmt.Errorf("%s: %d, not %d", what, got, want))
		}
	}
	app, user, asked := st.Steps["app_token"].Fetches, st.Steps["user_token"].Fetches, int(c.asked.Load())
	expect("refusals seen by the callers", int(c.refused.Load()), 0)
	expect("failures seen by the callers", int(c.failed.Load()), 0)
	expect("tokens sent to the excluded path", int(leaks), 0)
	expect("requests served by the API", st.API.OK, asked)
	expect("requests refused by the API", st.API.Refused, 2*callers)
	expect("requests that reached the API", st.API.Attempted, asked+2*callers)
	expect("replays", c.replayed(st), 2*callers)
	expect("app tokens granted", app.OK, 2) // at first, and after it was revoked
	expect("requests for an app token", app.Attempted, 2)
	expect("user tokens granted", user.OK, 4) // at first, and after it was lost in three ways
	expect("requests for a user token refused", user.Refused, 1)
	expect("requests for a user token while the auth server was down", user.Failed, 3)
	return errors.Join(off...)
}

func main() {
	replay := flag.Bool("replay", true, "send a refused request again with a new token; without it the story fails")
	verbose := flag.Bool("v", false, "write the log records to standard error, too, as JSON")
	flag.Parse()
	replays, raw := 1, slog.Handler(slog.DiscardHandler)
	if !*replay {
		replays = 0
	}
	if *verbose {
		raw = slog.NewJSONHandler(os.Stderr, nil)
	}
	if err := run(os.Stdout, raw, replays); err != nil {
		fmt.Fprintf(os.Stderr, "production: this is off:\n%v\n", err)
		os.Exit(1)
	}
}
