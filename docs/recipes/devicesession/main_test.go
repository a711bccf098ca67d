package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/requestforge/requestforge"
)

func Example() {
	main()
	// Output: 101 logins, 1 session at once, 0 left
}

// The seventeenth program that never logs out is one too many.
func TestDeviceCountsSessions(t *testing.T) {
	srv := newServer()
	defer srv.Close()
	login := func() (*requestforge.Pipeline, error) {
		_, tokens, err := newClient(srv.URL, "made-up")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tokens.Close() })
		_, err = tokens.Token(t.Context())
		return tokens, err
	}
	var last *requestforge.Pipeline
	for range maxSessions {
		var err error
		if last, err = login(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := login(); err == nil {
		t.Error("the device let one in that it has no room for")
	}
	if err := last.Logout(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := login(); err != nil {
		t.Errorf("after a logout: %v", err)
	}
}

// Wherever the device says that the session is, its token goes to the device alone.
func TestTokenGoesToTheDeviceAlone(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the token went elsewhere") }))
	defer elsewhere.Close()
	for _, location := range []string{"", elsewhere.URL + "/1", "//" + elsewhere.Listener.Addr().String() + "/1"} {
		tok := &requestforge.Token{AccessToken: "token-1", Extra: map[string]any{"Location": location}}
		if err := endSession(context.Background(), "http://127.0.0.1:1", tok); err == nil {
			t.Errorf("%s: no error", location)
		}
	}
}
