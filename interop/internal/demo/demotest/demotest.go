// Package demotest is the test that each program of the examples has.
package demotest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/requestforge/requestforge/interop/internal/demo"
	"github.com/requestforge/requestforge/interop/servers"
)

// Run runs run on each server of the flow, and once more with a revocation
// endpoint that does nothing, which run has to notice.
func Run(t *testing.T, flow string, run func(ctx context.Context, out io.Writer, s *servers.Server) error) {
	names := demo.Servers(flow)
	if len(names) == 0 {
		t.Fatalf("no server has the flow %q", flow)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			s, err := servers.Start(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			var out bytes.Buffer
			if err := run(t.Context(), &out, s); err != nil {
				t.Errorf("%v\n%s", err, out.String())
			}

			idle := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer idle.Close()
			s.RevokeURL = idle.URL
			if err := run(t.Context(), io.Discard, s); err == nil {
				t.Error("no token was revoked, and the program found nothing wrong")
			}
		})
	}
}
