//go:build !race

package requestforge_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// A base URL from the login costs two allocations at most, whatever layers there are.
func TestAllocBaseURLFrom(t *testing.T) {
	for name, token := range map[string]string{"the same path": "/services", "another path": "/data/v2"} {
		p := livePipeline(t, nil)
		for _, url := range []string{"/users?page=2", loginHost + "/services/users?page=2"} {
			req, err := http.NewRequest("GET", url, nil)
			require.NoError(t, err)
			req.Header.Set("Accept", "application/json")
			for layers, retry := range map[string]rf.RetryPolicy{"auth": {}, "retry over auth": {RetryMax: 3}} {
				cfg := rf.Config{Base: &sink{}, BaseURL: loginHost + "/services", Source: p, Origins: []string{loginHost, na1}, Retry: retry}
				plain, err := rf.NewTransport(cfg)
				require.NoError(t, err)
				asked := 0
				cfg.BaseURLFrom = func(*rf.Token) (string, error) { asked++; return na1 + token, nil }
				moved, err := rf.NewTransport(cfg)
				require.NoError(t, err)
				require.LessOrEqual(t, allocs(t, moved, req)-allocs(t, plain, req), 2.0, "%s, %s, %s", name, url, layers)
				require.Equal(t, 1, asked)
			}
		}
	}
}
