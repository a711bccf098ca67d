// The auth server: authtest's simulator, with a ledger of what it was asked
// and a book in which the resource servers look tokens up.

package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/chaos/oracle"
)

// How long tokens live. That of the first step has no end.
const (
	appTTL  = 25 * time.Second
	userTTL = 15 * time.Second
)

// lookUp is the path of the simulator's API. Only the resource servers ask
// there, in the process: is this token good?
const lookUp = "/look-up"

type authServer struct {
	sim    *authtest.Simulator
	led    *ledger
	srv    *httptest.Server
	client *http.Client // of the pipeline
	cancel context.CancelFunc
}

func newAuthServer(led *ledger, clock time.Duration) *authServer {
	sim := authtest.NewSimulator(authtest.Config{
		Cascade:     true,
		ClockOffset: clock,
		Steps: []authtest.Step{{
			Name: "device", ClientID: "chaos", ClientSecret: "client-secret-of-chaos",
		}, {
			Name: "app", Parents: map[string]string{"device": "X-Device-Token"},
			JSON: map[string]any{"app": "chaos"}, TTL: appTTL,
		}, {
			Name: "user", Parents: map[string]string{"app": "Authorization"},
			JSON: map[string]any{"user": "somebody", "password": "password-of-somebody"}, TTL: userTTL,
			Expiry: authtest.ExpiresAtRFC3339, RefreshTokens: true, Rotate: true,
		}},
		API: authtest.API{
			Prefix:  lookUp,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }),
		},
	})
	a := &authServer{sim: sim, led: led, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(context.Background())
	a.srv = httptest.NewUnstartedServer(a)
	a.srv.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	a.srv.Config.ErrorLog = quiet
	a.srv.Start()
	sim.URL = a.srv.URL
	return a
}

func (a *authServer) close() {
	a.cancel()
	a.client.CloseIdleConnections()
	a.srv.Close()
}

// steps returns the pipeline's steps, which reach the server over the network.
func (a *authServer) steps() []requestforge.Step {
	steps := a.sim.Steps()
	for i := range steps {
		steps[i].Fetcher.(*requestforge.BodyFetcher).Client = a.client
		if r, ok := steps[i].Refresh.(*requestforge.BodyFetcher); ok {
			r.Client = a.client
		}
	}
	return steps
}

// ServeHTTP is the simulator with a ledger.
func (a *authServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &oracle.AuthCall{Step: strings.TrimPrefix(r.URL.Path, "/"), Outcome: oracle.Spoilt}
	a.led.note(func(run *oracle.Run, now time.Duration) {
		c.Began = now
		run.AuthCalls = append(run.AuthCalls, c)
	})
	rec := &answer{ResponseWriter: w, status: http.StatusOK}
	whole := false
	defer func() { // the simulator panics to break a connection
		a.led.note(func(_ *oracle.Run, now time.Duration) {
			c.Ended = now
			if !whole {
				return
			}
			c.Status = rec.status
			if s, err := time.ParseDuration(w.Header().Get("Retry-After") + "s"); err == nil {
				c.RetryAfter = s
			}
			switch json := strings.HasPrefix(w.Header().Get("Content-Type"), "application/json"); {
			case rec.status == http.StatusOK && json:
				c.Outcome = oracle.Granted
			case rec.status >= 400 && rec.status < 500 && rec.status != http.StatusTooManyRequests:
				c.Outcome = oracle.Refused
			}
		})
	}()
	a.sim.ServeHTTP(rec, r)
	whole = true
}

// live reports whether the book has a token as good.
func (a *authServer) live(authorization string) bool {
	r := httptest.NewRequest(http.MethodGet, lookUp, nil)
	r.Header.Set("Authorization", authorization)
	w := &bookAnswer{header: make(http.Header)}
	a.sim.ServeHTTP(w, r)
	return w.status == http.StatusNoContent
}

// answer remembers the status.
type answer struct {
	http.ResponseWriter
	status int
}

func (w *answer) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// bookAnswer is an answer of which only the status matters.
type bookAnswer struct {
	header http.Header
	status int
}

func (w *bookAnswer) Header() http.Header         { return w.header }
func (w *bookAnswer) Write(p []byte) (int, error) { return len(p), nil }
func (w *bookAnswer) WriteHeader(status int)      { w.status = status }
