// The server that the tool is run at.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// api is an auth server and the API it guards.
type api struct {
	mux http.ServeMux

	mu       sync.Mutex
	logins   int
	requests int
	sessions map[string]bool // by the number that its tokens end with
}

func newAPI() *api {
	a := &api{sessions: map[string]bool{}}
	a.mux.HandleFunc("POST /login", a.login)
	a.mux.HandleFunc("POST /renew", a.renew)
	a.mux.HandleFunc("POST /token", a.within("X-Session", "session-", func(w http.ResponseWriter, n string) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"api-%s","expires_in":3600}`, n)
	}))
	a.mux.HandleFunc("GET /whoami", a.within("Authorization", "Bearer api-", func(w http.ResponseWriter, _ string) {
		io.WriteString(w, user)
	}))
	a.mux.HandleFunc("DELETE /session", a.within("X-Session", "session-", func(w http.ResponseWriter, n string) {
		delete(a.sessions, n)
		w.WriteHeader(http.StatusNoContent)
	}))
	return a
}

// ServeHTTP answers one request at a time.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests++
	a.mux.ServeHTTP(w, r)
}

// seen returns how many requests there were, and how many sessions there are.
func (a *api) seen() (requests, sessions int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests, len(a.sessions)
}

// within answers requests whose header has a token of a session.
func (a *api) within(header, prefix string, answer func(w http.ResponseWriter, n string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, ok := strings.CutPrefix(r.Header.Get(header), prefix)
		if !ok || !a.sessions[n] {
			http.Error(w, "refused", http.StatusUnauthorized)
			return
		}
		answer(w, n)
	}
}

func (a *api) login(w http.ResponseWriter, r *http.Request) {
	var who struct{ User, Password string }
	if err := json.NewDecoder(r.Body).Decode(&who); err != nil || who.User != user || who.Password != "burrow" {
		http.Error(w, "refused", http.StatusUnauthorized)
		return
	}
	a.logins++
	n := fmt.Sprint(a.logins)
	a.sessions[n] = true
	grant(w, n)
}

func (a *api) renew(w http.ResponseWriter, r *http.Request) {
	var old struct {
		Token string `json:"refresh_token"`
	}
	err := json.NewDecoder(r.Body).Decode(&old)
	n, ok := strings.CutPrefix(old.Token, "refresh-")
	if err != nil || !ok || !a.sessions[n] {
		http.Error(w, "refused", http.StatusUnauthorized)
		return
	}
	grant(w, n)
}

func grant(w http.ResponseWriter, n string) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":"session-%s","refresh_token":"refresh-%s","expires_in":28800}`, n, n)
}
