package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/interop/internal/demo"
)

func TestWebSocketDialSurvivesARevokedToken(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// login starts an auth server and a server that takes its tokens.
func login(t *testing.T, h func(*authtest.Server) http.Handler) (*authtest.Server, *requestforge.Pipeline, *httptest.Server) {
	t.Helper()
	auth, tokens, err := demo.NewLogin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(auth.Close)
	srv := httptest.NewTLSServer(h(auth))
	t.Cleanup(srv.Close)
	return auth, tokens, srv
}

// A library that takes an http.Client needs no more than one with our transport.
func TestWebSocketDialThroughAnHTTPClient(t *testing.T) {
	auth, tokens, srv := login(t, echo)
	httpClient := &http.Client{Transport: &requestforge.AuthTransport{
		Base:    srv.Client().Transport,
		Source:  tokens,
		Origins: []string{srv.URL},
	}}
	for range 2 {
		conn, _, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{HTTPClient: httpClient})
		if err != nil {
			t.Fatal(err)
		}
		if err := talk(t.Context(), conn); err != nil {
			t.Error(err)
		}
		if auth.Stats().Steps["user"].Fetches.OK == 1 {
			auth.Revoke("user")
		}
	}
	if err := demo.Compare(auth, 2, 1); err != nil {
		t.Error(err)
	}
}

func TestWebSocketOtherErrorsCostNoToken(t *testing.T) {
	for _, code := range []int{http.StatusOK, http.StatusForbidden, http.StatusServiceUnavailable} {
		dials := 0
		auth, tokens, srv := login(t, func(*authtest.Server) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { dials++; w.WriteHeader(code) })
		})
		conn, err := dial(t.Context(), tokens, srv.URL, websocket.DialOptions{HTTPClient: srv.Client()})
		if err == nil || conn != nil || errors.Is(err, requestforge.ErrRefused) {
			t.Errorf("%d: got %v, %v", code, conn, err)
		}
		if dials != 1 {
			t.Errorf("%d: %d dials", code, dials)
		}
		if err := demo.Compare(auth, 1, 0); err != nil {
			t.Errorf("%d: %v", code, err)
		}
	}
}

func TestWebSocketRefusalWithoutAnotherTokenSaysBoth(t *testing.T) {
	auth, tokens, srv := login(t, echo)
	if _, err := tokens.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	auth.Revoke("user")
	auth.Fail("user", authtest.Fault{Status: http.StatusBadRequest})
	conn, err := dial(t.Context(), tokens, srv.URL, websocket.DialOptions{HTTPClient: srv.Client()})
	if conn != nil || !errors.Is(err, requestforge.ErrRefused) {
		t.Errorf("got %v, %v", conn, err)
	}
	if reason, ok := errors.AsType[*requestforge.AuthError](err); !ok || reason.Step != "user" {
		t.Errorf("%v doesn't say why", err)
	}
}
