//go:build !race

package requestforge_test

import (
	"log/slog"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
)

// allocations of one RoundTrip over a base that allocates nothing.
func allocations(t *testing.T, cfg requestforge.Config, req *http.Request) float64 {
	resp := answer(req, 200, nil)
	cfg.Base = sendFunc(func(*http.Request) (*http.Response, error) { return resp, nil })
	transport, err := requestforge.NewTransport(cfg)
	require.NoError(t, err)
	return testing.AllocsPerRun(100, func() {
		if _, err := transport.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
	})
}

// liveToken is a source that allocates nothing.
var liveToken = requestforge.StaticToken(&requestforge.Token{AccessToken: "hunter2"})

func TestLogAllocations(t *testing.T) {
	for _, raw := range []string{
		"https://api.example.com/v1/users",
		"https://api.example.com/v1/users?page=2&per_page=50",
	} {
		req, err := http.NewRequest(http.MethodGet, raw, nil)
		require.NoError(t, err)
		cfg := requestforge.Config{Source: liveToken, Origins: []string{"https://api.example.com"}}
		bare := allocations(t, cfg, req)

		cfg.Logger = slog.New(slog.DiscardHandler)
		if got := allocations(t, cfg, req) - bare; got != 0 {
			t.Errorf("%s: logging off costs %v allocations, want 0", raw, got)
		}
		cfg.Logger = slog.New(enabledDiscard{})
		if got := allocations(t, cfg, req) - bare; got > 4 {
			t.Errorf("%s: logging costs %v allocations, want at most 4", raw, got)
		} else {
			t.Logf("%s: logging costs %v allocations", raw, got)
		}
	}
}

func TestBaseURLAllocations(t *testing.T) {
	cfg := requestforge.Config{BaseURL: "https://api.example.com/v1"}
	for _, tt := range []struct {
		raw  string
		want float64
	}{
		{"https://api.example.com/v1/users?page=2", 0},
		{"/users?page=2", 2}, // the request with its URL, and the path
		{"", 1},
	} {
		u, err := url.Parse(tt.raw)
		require.NoError(t, err)
		if got := allocations(t, cfg, relative(u)); got > tt.want {
			t.Errorf("%q: %v allocations, want at most %v", tt.raw, got, tt.want)
		}
	}
}
