// The servers around the gateway: an auth server that exchanges tokens, and two backends,
// each of which takes tokens of its own audience and answers with the name of the user
// whom the token is of.

package main

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

const secret = "a-made-up-client-secret"

// lifetime is what the auth server says of each token. None expires in the story.
const lifetime = time.Hour

// realm is what the auth server knows of tokens, and what was counted there and at the
// backends.
type realm struct {
	auth     *httptest.Server
	backends map[string]*httptest.Server // by audience

	mu     sync.Mutex
	tokens map[string]*grant
	counts map[string]*count // by audience; those of backends as "at orders"
	stray  int               // users' own tokens that reached a backend
}

// grant is a token that was given out.
type grant struct {
	user, audience string
	from           []*grant // what it was made from, and dies with
	dead           bool
}

func (g *grant) live() bool {
	if g == nil || g.dead {
		return false
	}
	for _, p := range g.from {
		if !p.live() {
			return false
		}
	}
	return true
}

// count is how many requests were answered with a yes and with a no.
type count struct{ ok, refused int }

func (c *count) of(ok bool) bool {
	if ok {
		c.ok++
	} else {
		c.refused++
	}
	return ok
}

var audiences = []string{"orders", "invoices"}

func newRealm() *realm {
	r := &realm{tokens: map[string]*grant{}, counts: map[string]*count{}, backends: map[string]*httptest.Server{}}
	for _, audience := range []string{"app", "company", "session"} {
		r.counts[audience] = new(count)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", r.token)
	mux.HandleFunc("POST /introspect", r.introspect)
	mux.HandleFunc("POST /revoke", r.revoke)
	r.auth = httptest.NewServer(mux)
	for _, audience := range audiences {
		r.counts[audience], r.counts["at "+audience] = new(count), new(count)
		r.backends[audience] = httptest.NewServer(r.backend(audience))
	}
	return r
}

func (r *realm) close() {
	r.auth.Close()
	for _, srv := range r.backends {
		srv.Close()
	}
}

// issue makes a token. The caller holds r.mu.
func (r *realm) issue(g *grant) string {
	token := g.audience + "-" + rand.Text()
	r.tokens[token] = g
	return token
}

// login begins a session of a user's, who may have several, and returns its token.
func (r *realm) login(user string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.issue(&grant{user: user, audience: "session"})
}

// kill makes the tokens of an audience dead, those of all users or of one.
func (r *realm) kill(audience, user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.tokens {
		if g.audience == audience && (user == "" || g.user == user) {
			g.dead = true
		}
	}
}

// token is the token endpoint. The gateway says who it is by its id and secret, or, for
// the first exchange, by its own token.
func (r *realm) token(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bearer := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	app, audience := r.tokens[bearer], req.FormValue("audience")
	_, password, basic := req.BasicAuth()
	switch req.FormValue("grant_type") {
	case "client_credentials":
		if r.counts["app"].of(basic && password == secret) {
			answer(w, r.issue(&grant{audience: "app"}))
			return
		}
	case "urn:ietf:params:oauth:grant-type:token-exchange":
		c := r.counts[audience]
		subject := r.tokens[req.FormValue("subject_token")]
		made := &grant{audience: audience, from: []*grant{subject}}
		want := "company"
		if audience == "company" {
			want, made.from = "session", []*grant{subject, app}
			if app == nil || app.audience != "app" || !app.live() {
				c.refused++
				deny(w, http.StatusUnauthorized, "invalid_token")
				return
			}
		} else if password != secret {
			break
		}
		if c == nil || !c.of(subject != nil && subject.audience == want && subject.live()) {
			deny(w, http.StatusBadRequest, "invalid_request")
			return
		}
		made.user = subject.user
		answer(w, r.issue(made))
		return
	}
	deny(w, http.StatusUnauthorized, "invalid_client")
}

func answer(w http.ResponseWriter, token string) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"access_token": token, "token_type": "Bearer", "expires_in": int(lifetime.Seconds()),
		"issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
	})
}

func deny(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": code})
}

// introspect says whose session a token is of.
func (r *realm) introspect(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, password, _ := req.BasicAuth(); password != secret {
		deny(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	g := r.tokens[req.FormValue("token")]
	says := map[string]any{"active": false}
	if r.counts["session"].of(g != nil && g.audience == "session" && g.live()) {
		says = map[string]any{"active": true, "iss": r.auth.URL, "username": g.user, "exp": time.Now().Add(lifetime).Unix()}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(says)
}

// revoke ends a session, with all that was made from its token.
func (r *realm) revoke(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, password, _ := req.BasicAuth(); password != secret {
		deny(w, http.StatusUnauthorized, "invalid_client")
	} else if g := r.tokens[req.FormValue("token")]; g != nil {
		g.dead = true
	}
}

// backend answers with the name of the user whom the token is of.
func (r *realm) backend(audience string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		g := r.tokens[strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")]
		if g != nil && g.audience == "session" {
			r.stray++
		}
		if !r.counts["at "+audience].of(g != nil && g.audience == audience && g.live()) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, g.user)
	})
}

// seen returns a copy of what was counted.
func (r *realm) seen() map[string]count {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]count)
	for name, c := range r.counts {
		all[name] = *c
	}
	return all
}

func (r *realm) strays() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stray
}
