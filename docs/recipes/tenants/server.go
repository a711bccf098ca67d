package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
)

// server is the hosts of all tenants, each with a secret and tokens of its own.
type server struct {
	*httptest.Server // its Client reaches it as *.example.com
	tenants          map[string]tenant

	mu     sync.Mutex
	tokens map[string]string // the host that a live token is of
	given  map[string]int    // by host
}

func newServer() *server {
	s := &server{
		tenants: map[string]tenant{
			"acme":   {"https://acme.example.com", "made-up-1"},
			"globex": {"https://globex.example.com", "made-up-2"},
		},
		tokens: map[string]string{}, given: map[string]int{},
	}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	return s
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path != "/login" {
		if token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); s.tokens[token] != r.Host {
			w.WriteHeader(http.StatusUnauthorized)
		}
		return
	}
	var body struct{ Client, Secret string }
	name, _, _ := strings.Cut(r.Host, ".")
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Client != "shop" || body.Secret != s.tenants[name].secret {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	token := rand.Text()
	s.tokens[token] = r.Host
	s.given[name]++
	fmt.Fprintf(w, `{"access_token": %q, "expires_in": 3600, "api_url": "https://%s"}`, token, r.Host)
}

// revoke ends all tokens of a host.
func (s *server) revoke(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token, of := range s.tokens {
		if of == host {
			delete(s.tokens, token)
		}
	}
}

func (s *server) logins() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.given
}
