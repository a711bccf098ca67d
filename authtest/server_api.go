// What the API accepts: the paths behind the auth server, and the refusals
// that a test can hold back. server.go is the front.

package authtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Echo is what the API answers with, as JSON, unless it has a Handler.
type Echo struct {
	// Request is the number of this request among those to the API,
	// refused ones included; the first is 1.
	Request int `json:"request"`

	Method string `json:"method"`
	Path   string `json:"path"`

	// Token names the token that was accepted without giving it away:
	// "user-3" for the third one of step user. It is "" on an open path.
	Token string `json:"token"`

	// BodyBytes and BodySHA256 (in hexadecimal) are what came in the
	// request's body.
	BodyBytes  int64  `json:"body_bytes"`
	BodySHA256 string `json:"body_sha256"`
}

// serveAPI answers a request that isn't for a step.
func (s *Simulator) serveAPI(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, s.cfg.API.Prefix) {
		s.countPath(r)
		http.NotFound(w, r)
		return
	}
	n, fault := s.apiRequest(r)
	fault.serve(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ans, gate := s.judge(r)
		switch ans.outcome {
		case Accepted:
			s.serveResource(w, r, n, ans.token)
		default:
			// The token was judged when the request came; what is
			// held back is the answer.
			if gate != nil && gate.wait(r.Context()) != nil {
				panic(http.ErrAbortHandler)
			}
			if ans.handler != nil {
				ans.handler.ServeHTTP(w, r)
				return
			}
			maps.Copy(w.Header(), ans.header)
			writeJSON(w, ans.status, ans.body)
		}
	}))
}

// judge looks at the request's token, and takes note of the outcome. It
// returns the gate that a refusal has to pass, if there is one.
func (s *Simulator) judge(r *http.Request) (*answer, *Gate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ans := s.inspect(r, time.Now())
	s.stats.API.add(ans.outcome)
	s.log(r, nil, false, ans.outcome, ans.token, ans.reason)
	if ans.outcome == Refused {
		return ans, s.gate
	}
	return ans, nil
}

func (s *Simulator) inspect(r *http.Request, now time.Time) *answer {
	api := s.cfg.API
	if slices.Contains(api.Open, r.URL.Path) {
		return &answer{outcome: Accepted}
	}
	header := api.Header
	if header == "" {
		header = "Authorization"
	}
	t, reason, status := s.present(r, header, s.leaf, now)
	if t != nil && s.refuseAll {
		t, reason = nil, "every token is refused"
	}
	if t == nil {
		ans := refuseToken(status, s.leaf.TokenType, reason)
		ans.handler = api.Refused
		return ans
	}
	if slices.Contains(api.InsufficientScope, r.URL.Path) {
		ans := refuse(http.StatusForbidden, "insufficient_scope", "no token is good enough here")
		ans.outcome, ans.token = Forbidden, t
		ans.header.Set("WWW-Authenticate", s.leaf.TokenType+` realm="authtest", error="insufficient_scope", scope="more"`)
		return ans
	}
	return &answer{outcome: Accepted, token: t}
}

// serveResource is the API proper.
func (s *Simulator) serveResource(w http.ResponseWriter, r *http.Request, n int, t *token) {
	if h := s.cfg.API.Handler; h != nil {
		h.ServeHTTP(w, r)
		return
	}
	sum := sha256.New()
	size, err := io.Copy(sum, r.Body)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, oauthError{Error: "invalid_request", Description: "the body can't be read"})
		return
	}
	echo := Echo{Request: n, Method: r.Method, Path: r.URL.Path, BodyBytes: size, BodySHA256: hex.EncodeToString(sum.Sum(nil))}
	if t != nil {
		echo.Token = t.label
	}
	writeJSON(w, http.StatusOK, echo)
}

// HoldRefusals makes the API hold its refusals back from now on: a token is
// judged when its request arrives, and the answer waits at the gate. That is
// how a test has many requests in flight with one revoked token, and lets
// their refusals come late and one by one.
//
// While refusals are held already, the same gate is returned.
func (s *Simulator) HoldRefusals() *Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate == nil {
		s.gate = &Gate{sim: s}
	}
	return s.gate
}

// Gate is where refusals are held; see Simulator.HoldRefusals.
type Gate struct {
	sim *Simulator

	mu      sync.Mutex      // guards what follows
	open    bool            // nothing is held any more
	held    []chan struct{} // one for each request, oldest first; closed to let it go
	arrived chan struct{}   // closed when held grows; made by Await
}

// Held returns how many refusals are being held.
func (g *Gate) Held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.held)
}

// Await returns once n refusals or more are held, or with the context's error.
func (g *Gate) Await(ctx context.Context, n int) error {
	for {
		g.mu.Lock()
		if len(g.held) >= n {
			g.mu.Unlock()
			return nil
		}
		if g.arrived == nil {
			g.arrived = make(chan struct{})
		}
		arrived := g.arrived
		g.mu.Unlock()
		select {
		case <-arrived:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Release lets the n refusals go that have been held longest, and returns how
// many there were. Those that arrive later are held as before.
func (g *Gate) Release(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n = max(0, min(n, len(g.held)))
	for _, ch := range g.held[:n] {
		close(ch)
	}
	g.held = g.held[n:]
	return n
}

// Open lets every refusal go, and no later one is held.
func (g *Gate) Open() {
	g.sim.mu.Lock()
	if g.sim.gate == g {
		g.sim.gate = nil
	}
	g.sim.mu.Unlock()

	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = true
	for _, ch := range g.held {
		close(ch)
	}
	g.held = nil
}

// wait holds the caller until it is released, or its request's context ends.
func (g *Gate) wait(ctx context.Context) error {
	g.mu.Lock()
	if g.open {
		g.mu.Unlock()
		return nil
	}
	ch := make(chan struct{})
	g.held = append(g.held, ch)
	if g.arrived != nil {
		close(g.arrived)
		g.arrived = nil
	}
	g.mu.Unlock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		g.mu.Lock()
		defer g.mu.Unlock()
		g.held = slices.DeleteFunc(g.held, func(c chan struct{}) bool { return c == ch })
		return ctx.Err()
	}
}
