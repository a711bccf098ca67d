// The API's checks: the paths behind the auth server, and the refusals that a test
// can hold back. The configuration is in server.go.

package authtest

import (
	"bytes"
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

// Echo is the API's answer, as JSON, unless the API has a Handler.
type Echo struct {
	// Request is the number of the request among all requests to the API, including
	// refused requests; the first is 1.
	Request int `json:"request"`

	Method string `json:"method"`
	Path   string `json:"path"`

	// Token names the accepted token without revealing the token: "user-3" for the
	// third token of step user. Token is "" on an open path.
	Token string `json:"token"`

	// BodyBytes and BodySHA256 (in hexadecimal) describe the request's body.
	BodyBytes  int64  `json:"body_bytes"`
	BodySHA256 string `json:"body_sha256"`
}

// serveAPI answers a request to the API.
func (s *Simulator) serveAPI(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, s.cfg.API.Prefix) {
		s.countPath(r)
		http.NotFound(w, r)
		return
	}
	n, fault := s.apiRequest(r)
	fault.serve(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ans, gate := s.judge(r, s.readAPI(w, r))
		switch ans.outcome {
		case Accepted:
			maps.Copy(w.Header(), ans.header)
			s.serveResource(w, r, n, ans.token)
		default:
			// The token was judged when the request arrived; only the answer is
			// held back.
			if gate != nil && gate.wait(r.Context()) != nil {
				panic(http.ErrAbortHandler)
			}
			ans.write(w, r)
		}
	}))
}

// readAPI reads the body of a request if a place is in the body, and restores the
// body.
func (s *Simulator) readAPI(w http.ResponseWriter, r *http.Request) ask {
	if s.open(r) || !slices.ContainsFunc(s.wants, func(p *place) bool { return p.Field != "" }) {
		return ask{}
	}
	a, body := readFields(w, r)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return a
}

// open reports whether the request's path needs no token.
func (s *Simulator) open(r *http.Request) bool {
	return slices.Contains(s.cfg.API.Open, r.URL.Path)
}

// judge checks the request's token and records the outcome. For a refusal, judge
// also returns the gate that holds refusals, if any.
func (s *Simulator) judge(r *http.Request, a ask) (*answer, *Gate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ans := s.inspect(r, a, time.Now())
	s.stats.API.add(ans.outcome)
	s.log(r, nil, false, ans.outcome, ans.token, ans.reason)
	if ans.outcome == Refused {
		return ans, s.gate
	}
	return ans, nil
}

func (s *Simulator) inspect(r *http.Request, a ask, now time.Time) *answer {
	api := s.cfg.API
	if s.open(r) {
		return &answer{outcome: Accepted}
	}
	if a.refused != nil {
		return a.refused
	}
	got, fl := s.present(r, s.wants, a.fields, now)
	t := got.first
	if fl == nil {
		if why := s.checkSignature(r, t); why != "" {
			fl = &flaw{reason: why, status: http.StatusUnauthorized, step: t.step}
		}
	}
	if fl == nil && s.refuseAll {
		fl = &flaw{reason: "every token is refused", status: http.StatusUnauthorized, step: t.step}
	}
	if fl != nil {
		ans := fl.answer("Bearer")
		ans.handler = api.Refused
		return ans
	}
	if slices.Contains(api.InsufficientScope, r.URL.Path) {
		ans := refuse(http.StatusForbidden, "insufficient_scope", "no token is good enough here")
		ans.outcome, ans.token = Forbidden, t
		ans.header.Set("WWW-Authenticate", t.step.TokenType+` realm="authtest", error="insufficient_scope", scope="more"`)
		return ans
	}
	ans := &answer{outcome: Accepted, token: t, header: make(http.Header)}
	for st, t := range got.tokens {
		for name, v := range st.Values {
			if v.Rotate > 0 {
				ans.giveOut(r, v, s.renew(t, name))
			}
		}
	}
	return ans
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

// HoldRefusals makes the API hold back its refusals from now on: the API judges a token
// when the request arrives, and the answer waits at the gate. So a test can have many
// requests in flight with the same revoked token, and release their refusals late and
// one by one.
//
// If refusals are already held, HoldRefusals returns the same gate.
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

	mu      sync.Mutex      // guards the fields below
	open    bool            // nothing is held any more
	held    []chan struct{} // a channel for each request, oldest first; closing a channel releases the request
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

// Release releases the n refusals that have been held longest, and returns how many
// refusals were released. Later refusals are still held.
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

// Open releases every refusal, and ends the holding.
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

// wait blocks until the gate releases the refusal, or the request's context ends.
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
