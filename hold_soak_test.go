//go:build soak

package requestforge_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	rf "github.com/requestforge/requestforge"
)

// 2,000 users share 64 connections to an API that has its login beside it, and all of
// their tokens are revoked at once: all are served again within 10 s, since a refusal
// holds no connection while its request waits for a login.
func TestTwoThousandUsersAreServedAgainOverFewConnections(t *testing.T) {
	const users, conns = 2000, 64
	var mu sync.Mutex
	live, logins := map[string]bool{}, 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/login" {
			logins++
			token := fmt.Sprint("token-", logins)
			live[token] = true
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"access_token":%q,"expires_in":3600}`, token)
			return
		}
		if !live[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")] {
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, strings.Repeat("x", 20<<10))
		}
	}))
	defer srv.Close()
	base := &http.Transport{MaxConnsPerHost: conns, MaxIdleConnsPerHost: conns}
	defer base.CloseIdleConnections()
	clients := make([]*http.Client, users)
	for i := range clients {
		p, err := rf.NewPipeline(rf.PipelineConfig{Steps: []rf.Step{{
			Name: "user", Fetcher: &rf.HTTPFetcher{URL: srv.URL + "/login", JSON: i, Client: &http.Client{Transport: base}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		tr, err := rf.NewTransport(rf.Config{Base: base, BaseURL: srv.URL, Source: p})
		if err != nil {
			t.Fatal(err)
		}
		clients[i] = &http.Client{Transport: tr}
	}
	serve := func(most time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), most)
		defer cancel()
		var all sync.WaitGroup
		for _, c := range clients {
			all.Go(func() {
				req, _ := http.NewRequestWithContext(ctx, "GET", "/orders", nil)
				resp, err := c.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("%s", resp.Status)
				}
			})
		}
		all.Wait()
	}
	serve(time.Minute)
	mu.Lock()
	clear(live)
	mu.Unlock()
	begun := time.Now()
	serve(10 * time.Second)
	t.Logf("%d users were served again after %v", users, time.Since(begun))
	if logins != 2*users {
		t.Errorf("%d logins, want %d", logins, 2*users)
	}
}
