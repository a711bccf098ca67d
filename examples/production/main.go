// Production is a complete client for production, and a bad day in its life:
//
//	go run ./examples/production
//
// The client gets an app token with a client id and secret, and with the app
// token and a password a user token, which the API takes. Both servers run in
// this process (package authtest), and all trouble happens here. In the source
// look at:
//
//  1. setup, which an application writes. The rest of the program only makes
//     trouble and watches.
//  2. run, the day, an act at a time. The callers (callers.go) never look at a
//     token.
//  3. story.go, which prints the log records of the pipeline and of the
//     requests below the title of each act, in a few words, and the servers'
//     counters at the end of the act.
//  4. verdict, which compares the servers' counters with the expected ones.
//     If a counter is off, the exit status is 1.
//
// See the story fail. A report (report.go) then names the failed step, the
// state of all steps and the setting to change:
//
//	-break client    the auth server has revoked the client's secret
//	-break auth      the auth server is down, and stays down
//	-break storage   the storage that the replicas of a service share is down;
//	                 the requests go on, and the report says at what price
//	-replay=false    a refused request isn't sent again with a new token
//
// See the log records with -v, as JSON on standard error. The records hold no
// token and no password.
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
	"strings"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// setup makes the client. In production getenv is os.Getenv, storage is module
// redisstorage's, alert calls the person on duty, and replays is 1.
func setup(getenv func(string) string, storage requestforge.Storage, logger *slog.Logger, alert func(context.Context, error), replays int) (*http.Client, *requestforge.Pipeline, error) {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{{
			Name: "app_token",
			TTL:  time.Hour,
			Fetcher: &requestforge.HTTPFetcher{
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
			Fetcher: &requestforge.HTTPFetcher{
				URL:        getenv("AUTH_URL") + "/v1/user/token",
				HeaderFrom: map[string]string{"X-App-Token": "app_token"},
				JSON:       map[string]string{"username": getenv("USERNAME"), "password": getenv("PASSWORD")},
			},
			OnError: alert,
		}},
		Storage:     storage,
		KeyPrefix:   "myapp",
		RefreshFrom: "user_token",
		KeepAnswers: true, // for the report alone: no error and no record shows an answer
		Logger:      logger,
	})
	if err != nil {
		return nil, nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL:       getenv("API_URL"),
		Source:        tokens,
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

// trouble is what goes wrong beside the story.
type trouble struct {
	broken  string // client, auth or storage; "": nothing
	replays int    // of a refused request
}

// run tells the story to out. The error says how the story went wrong.
func run(out io.Writer, raw slog.Handler, of trouble) error {
	var leaks atomic.Int64
	srv, env := serve(&leaks)
	defer srv.Close()
	s := &story{out: out, srv: srv}
	alert := func(context.Context, error) {
		if of.broken == "client" || of.broken == "auth" {
			s.line("OnError", "somebody is called")
			return
		}
		s.line("OnError", "somebody is called, and starts the auth server again")
		srv.Down(false)
	}
	var storage requestforge.Storage = requestforge.NewMemoryStorage()
	switch of.broken {
	case "client":
		env["CLIENT_SECRET"] = "a-made-up-secret-of-last-year"
	case "auth":
		srv.Down(true)
	case "storage":
		storage = deadStorage{}
	}
	logger := slog.New(slog.NewMultiHandler(s, raw))
	client, tokens, err := setup(func(name string) string { return env[name] }, storage, logger, alert, of.replays)
	if err != nil {
		return err
	}
	c := &crowd{client: client}

	for _, act := range []struct {
		title string
		do    func()
	}{
		{"A health check comes first. Its path is excluded: no token, no login", func() {
			c.get("/health")
		}},
		{fmt.Sprintf("%d callers at once, and there is no token yet", callers), func() {
			c.all("/user/profile", 1)
		}},
		{fmt.Sprintf("%d requests more, one login for all of them", callers*many), func() {
			c.all("/user/profile", many)
		}},
		{fmt.Sprintf("The user token is revoked while %d requests carry it", callers), func() {
			srv.Revoke("user_token")
			c.together(srv, "/user/profile")
		}},
		{"The app token is revoked, and with it what was made from it", func() {
			srv.Revoke("app_token")
			c.together(srv, "/user/profile")
		}},
		{"The auth server goes down. The token in use is as good as before", func() {
			srv.Down(true)
			c.get("/health")
			c.all("/user/profile", many)
		}},
		{fmt.Sprintf("Still down, and the application drops its user token. %d requests wait", callers), func() {
			if err := tokens.InvalidateStep(context.Background(), "user_token"); err != nil {
				s.line("pipeline", strings.ReplaceAll(err.Error(), "\n", "; ")) // it is dead here all the same; other processes may not know
			}
			c.all("/user/profile", 1)
		}},
	} {
		s.act(act.title)
		if act.do(); c.failed.Load() > 0 {
			break
		}
	}

	s.summary(c)
	off := verdict(srv.Stats(), c, leaks.Load())
	if n := c.failed.Load(); n > 0 {
		off = fmt.Errorf("%d of %d requests have failed, and the story ended early", n, c.asked.Load())
	}
	if first := c.first.Load(); off != nil || of.broken != "" {
		fmt.Fprintln(out)
		report(out, client.Transport.(*requestforge.Transport), tokens, first)
	}
	return off
}

// serve starts the auth server and the API, and returns both with the
// environment of an application. The API counts the tokens that come on the
// excluded path in leaks.
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
	broken := flag.String("break", "", "what is broken beside the story: client, auth or storage")
	verbose := flag.Bool("v", false, "write the log records to standard error, too, as JSON")
	flag.Parse()
	of, raw := trouble{*broken, 1}, slog.Handler(slog.DiscardHandler)
	switch of.broken {
	case "", "client", "auth", "storage":
	default:
		fmt.Fprintln(os.Stderr, "production: -break is client, auth or storage")
		os.Exit(2)
	}
	if !*replay {
		of.replays = 0
	}
	if *verbose {
		raw = slog.NewJSONHandler(os.Stderr, nil)
	}
	if err := run(os.Stdout, raw, of); err != nil {
		fmt.Fprintf(os.Stderr, "production: this is off:\n%v\n", err)
		os.Exit(1)
	}
}
