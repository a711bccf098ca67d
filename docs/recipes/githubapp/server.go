package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// server is what the app has to do with of GitHub's API.
type server struct {
	*httptest.Server
	key *rsa.PrivateKey // the app's, of which it knows the public half

	mu     sync.Mutex
	tokens map[string]string // the installation that a live token is of
}

func newServer(installations int) *server {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		log.Fatal(err)
	}
	s := &server{key: key, tokens: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /app/installations/{id}/access_tokens", func(w http.ResponseWriter, r *http.Request) {
		if !s.knows(bearer(r)) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		id := r.PathValue("id")
		if n, err := strconv.Atoi(id); err != nil || n < 1 || n > installations {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		token := "ghs_" + rand.Text()
		s.tokens[token] = id
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"token": %q, "expires_at": %q}`, token, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	})
	mux.HandleFunc("GET /installation/repositories", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		id := s.tokens[bearer(r)]
		if id == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-Of", id)
	})
	s.Server = httptest.NewServer(mux)
	return s
}

func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

// knows reports whether a JWT is the app's, and of now.
func (s *server) knows(jwt string) bool {
	i := strings.LastIndexByte(jwt, '.')
	if i < 0 {
		return false
	}
	sum := sha256.Sum256([]byte(jwt[:i]))
	sig, err := base64.RawURLEncoding.DecodeString(jwt[i+1:])
	if err != nil || rsa.VerifyPKCS1v15(&s.key.PublicKey, crypto.SHA256, sum[:], sig) != nil {
		return false
	}
	_, payload, _ := strings.Cut(jwt[:i], ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	var claims struct {
		Iss      string
		Iat, Exp int64
	}
	now := time.Now().Unix()
	return err == nil && json.Unmarshal(text, &claims) == nil && claims.Iss == "12345" &&
		claims.Iat <= now && now < claims.Exp && claims.Exp-claims.Iat <= int64((10*time.Minute).Seconds())
}

// revoke ends the tokens of an installation.
func (s *server) revoke(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token, of := range s.tokens {
		if of == strconv.Itoa(id) {
			delete(s.tokens, token)
		}
	}
}
