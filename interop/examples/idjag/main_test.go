package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/requestforge/requestforge/interop/internal/demo"
	"github.com/requestforge/requestforge/interop/servers"
)

func TestIDJAGTakesEachUserToTheNextServer(t *testing.T) {
	for _, name := range demo.Servers(flow) {
		t.Run(name, func(t *testing.T) {
			idp, next := start(t, name)
			var out bytes.Buffer
			if err := tell(t.Context(), &out, idp, next); err != nil {
				t.Errorf("%v\n%s", err, out.String())
			}

			idp, next = start(t, name)
			idle := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer idle.Close()
			next.RevokeURL = idle.URL
			if err := tell(t.Context(), io.Discard, idp, next); err == nil {
				t.Error("no token was revoked, and the program found nothing wrong")
			}
		})
	}
}

// start starts an identity provider, and a server that takes its ID-JAGs.
func start(t *testing.T, name string) (idp, next *servers.Server) {
	t.Helper()
	closed := func(s *servers.Server, err error) *servers.Server {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	idp = closed(servers.Start(t.Context(), name))
	return idp, closed(idp.Users.StartNext(t.Context()))
}
