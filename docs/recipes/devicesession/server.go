package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
)

// server is a device with at most 16 sessions, which a restart of its own ends.
type server struct {
	*httptest.Server
	mu           sync.Mutex
	sessions     map[string]string // URL, by token
	logins, most int
}

const (
	maxSessions = 16
	root        = "/redfish/v1/"
	collection  = root + "SessionService/Sessions"
)

func newServer() *server {
	s := &server{sessions: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+collection, s.login)
	mux.HandleFunc("DELETE "+collection+"/{id}", s.logout)
	mux.HandleFunc("GET "+root+"Systems", func(w http.ResponseWriter, r *http.Request) {
		if s.sessions[r.Header.Get("X-Auth-Token")] == "" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	return s
}

func (s *server) login(w http.ResponseWriter, r *http.Request) {
	var who struct{ UserName, Password string }
	switch err := json.NewDecoder(r.Body).Decode(&who); {
	case err != nil || who.UserName != "admin" || who.Password != "made-up":
		w.WriteHeader(http.StatusUnauthorized)
	case len(s.sessions) == maxSessions:
		w.WriteHeader(http.StatusServiceUnavailable) // SessionLimitExceeded
	default:
		s.logins++
		token, url := fmt.Sprint("token-", s.logins), fmt.Sprint(collection, "/", s.logins)
		s.sessions[token] = url
		s.most = max(s.most, len(s.sessions))
		w.Header().Set("X-Auth-Token", token)
		w.Header().Set("Location", url)
		w.WriteHeader(http.StatusCreated)
	}
}

// logout ends the session of the URL, which is the token's own.
func (s *server) logout(w http.ResponseWriter, r *http.Request) {
	switch token := r.Header.Get("X-Auth-Token"); s.sessions[token] {
	case "":
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path:
		delete(s.sessions, token)
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}

// restart ends all sessions.
func (s *server) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
}
