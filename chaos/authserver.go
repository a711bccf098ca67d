// The auth server: authtest's simulator, with a ledger of what it was asked
// and a book in which the resource servers look tokens up.

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	sim     *authtest.Simulator
	led     *ledger
	srv     *httptest.Server
	client  *http.Client // of the pipelines
	sent    atomic.Int64 // calls
	rotated atomic.Int64 // how often the client's secret was
	calls   sync.Map     // *oracle.AuthCall by number, from when they are sent until they arrive
	cancel  context.CancelFunc

	listed map[*oracle.AuthCall]bool // those that are in the ledger; guarded by led.mu
}

func newAuthServer(led *ledger, clock time.Duration) *authServer {
	sim := authtest.NewSimulator(authtest.Config{
		Cascade:     true,
		ClockOffset: clock,
		Steps: []authtest.Step{{
			Name: "device", ClientID: clientID, ClientSecret: secretOf(0),
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
	a := &authServer{sim: sim, led: led, listed: make(map[*oracle.AuthCall]bool), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
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

// clientID and secretOf are the client's credentials. The simulator knows the first
// secret. The server takes each secret that there has been, as long as there are
// processes that have it.
const clientID = "chaos"

func secretOf(n int64) string {
	if n == 0 {
		return "client-secret-of-chaos"
	}
	return fmt.Sprintf("client-secret-of-chaos-%d", n)
}

// rotate gives the client another secret, for the processes that begin from now on.
func (a *authServer) rotate() { a.rotated.Add(1) }

// accept puts the simulator's secret into the place of another one that is good.
func (a *authServer) accept(r *http.Request) {
	id, secret, ok := r.BasicAuth()
	for n := int64(1); ok && n <= a.rotated.Load(); n++ {
		if secret == secretOf(n) {
			r.SetBasicAuth(id, secretOf(0))
		}
	}
}

// callHeader numbers the calls. The pipelines don't know of the header.
const callHeader = "X-Chaos-Call"

// noProcess is the number of a process that isn't the run's and has nothing to ask.
const noProcess = -1

// steps returns the steps of a process's pipeline, which reach the server at a URL over
// a transport.
func (a *authServer) steps(process int, url string, over http.RoundTripper) []requestforge.Step {
	client := &http.Client{Transport: &marking{a, process, over}}
	a.sim.URL = url
	steps := a.sim.Steps()
	for i := range steps {
		f := steps[i].Fetcher.(*requestforge.HTTPFetcher)
		f.Client = client
		if f.ClientAuth != nil {
			f.ClientAuth.Secret = secretOf(a.rotated.Load())
		}
		if r, ok := steps[i].Refresh.(*requestforge.HTTPFetcher); ok {
			r.Client = client
		}
	}
	return steps
}

// marking puts down what a process sees of its calls, and sets callHeader.
type marking struct {
	auth    *authServer
	process int
	base    http.RoundTripper
}

func (t *marking) RoundTrip(req *http.Request) (*http.Response, error) {
	c := &oracle.AuthCall{Process: t.process, Outcome: oracle.Spoilt}
	out := req.Clone(req.Context())
	out.Header.Set(callHeader, t.auth.begin(c))
	resp, err := t.base.RoundTrip(out)
	if err != nil {
		t.auth.led.note(func(run *oracle.Run, now time.Duration) {
			c.Left = now
			if !t.auth.listed[c] { // the server has not seen the call yet, and may never
				c.Step, c.Began, c.Ended = strings.TrimPrefix(req.URL.Path, "/"), now, now
				t.auth.list(run, c)
			}
		})
		return nil, err
	}
	resp.Body = &authAnswer{resp.Body, t.auth.led, c}
	return resp, nil
}

// authAnswer notes when a client has read an answer, or leaves it.
type authAnswer struct {
	io.ReadCloser
	led  *ledger
	call *oracle.AuthCall
}

func (b *authAnswer) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.left(err == io.EOF)
	}
	return n, err
}

func (b *authAnswer) Close() error {
	b.left(false)
	return b.ReadCloser.Close()
}

func (b *authAnswer) left(heard bool) {
	b.led.note(func(_ *oracle.Run, now time.Duration) {
		if b.call.Left == 0 {
			b.call.Left, b.call.Heard = now, heard
		}
	})
}

// list puts a call into the ledger, once.
func (a *authServer) list(run *oracle.Run, c *oracle.AuthCall) {
	if !a.listed[c] {
		a.listed[c] = true
		run.AuthCalls = append(run.AuthCalls, c)
	}
}

// begin notes that a call is sent, and returns its number.
func (a *authServer) begin(c *oracle.AuthCall) string {
	n := a.sent.Add(1)
	a.led.note(func(_ *oracle.Run, now time.Duration) { c.Sent = now })
	a.calls.Store(n, c)
	return strconv.FormatInt(n, 10)
}

// call returns the call that a request is.
func (a *authServer) call(r *http.Request) *oracle.AuthCall {
	n, _ := strconv.ParseInt(r.Header.Get(callHeader), 10, 64)
	if c, ok := a.calls.LoadAndDelete(n); ok {
		return c.(*oracle.AuthCall)
	}
	return &oracle.AuthCall{Process: noProcess, Outcome: oracle.Spoilt}
}

// ServeHTTP is the simulator with a ledger.
func (a *authServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := a.call(r)
	a.accept(r)
	brought, refresh := tokensIn(r), false
	if body, err := io.ReadAll(r.Body); err == nil {
		refresh = bytes.Contains(body, []byte("refresh_token"))
		brought = append(brought, labels(string(body))...)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	a.led.note(func(run *oracle.Run, now time.Duration) {
		c.Step, c.Began, c.Refresh, c.Brought = strings.TrimPrefix(r.URL.Path, "/"), now, refresh, brought
		a.list(run, c)
	})
	rec := &answer{ResponseWriter: w, status: http.StatusOK}
	whole := false
	defer func() { // the simulator panics to break a connection
		a.led.note(func(_ *oracle.Run, now time.Duration) {
			c.Ended = now
			if !whole {
				return
			}
			c.Status, c.Gave = rec.status, labels(rec.text.String())
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

// answer remembers the status and the body.
type answer struct {
	http.ResponseWriter
	status int
	text   bytes.Buffer
}

func (w *answer) Write(p []byte) (int, error) {
	w.text.Write(p)
	return w.ResponseWriter.Write(p)
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
