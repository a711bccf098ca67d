package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
)

// server gives out tokens with the scopes that were asked for, and has an API that wants a
// scope for each call, and for payouts a token of a login with a code.
type server struct {
	*httptest.Server

	mu     sync.Mutex
	logins []string // as printed
	live   string   // the last token
	scopes []string // that it has
	strong bool     // its login had a code
}

func newServer() *server {
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	return s
}

// wanted are the scopes of the API's calls.
var wanted = map[string]string{"GET /orders": "orders.read", "POST /orders": "orders.write", "POST /payouts": "payouts", "DELETE /users": "admin"}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/token" {
		s.login(w, r)
		return
	}
	scope := wanted[r.Method+" "+r.URL.Path]
	switch {
	case s.live == "" || r.Header.Get("Authorization") != "Bearer "+s.live:
		refuse(w, http.StatusUnauthorized, `error="invalid_token"`)
	case scope == "payouts" && !s.strong:
		refuse(w, http.StatusUnauthorized, `error="insufficient_user_authentication", acr_values="mfa", scope="payouts"`)
	case !slices.Contains(s.scopes, scope):
		refuse(w, http.StatusForbidden, fmt.Sprintf("error=%q, scope=%q", "insufficient_scope", scope))
	}
}

func (s *server) login(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("password") != "made-up-password" {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error": "invalid_grant"}`)
		return
	}
	s.scopes, s.strong = strings.Fields(r.FormValue("scope")), r.FormValue("code") == "123456"
	login := strings.Join(s.scopes, " ")
	if s.strong {
		login += ", with a code"
	}
	s.logins = append(s.logins, login)
	s.live = fmt.Sprint("token-", len(s.logins))
	fmt.Fprintf(w, `{"access_token": %q, "expires_in": 3600}`, s.live)
}

// revoke ends the last token.
func (s *server) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = ""
}

func refuse(w http.ResponseWriter, status int, challenge string) {
	w.Header().Set("WWW-Authenticate", "Bearer "+challenge)
	w.WriteHeader(status)
}
