package requestforge_test

import (
	"io"
	"log/slog"
	"net/http"
	"testing"

	rf "github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// Every layer, the whole stack and other orders keep the contract of a
// RoundTripper. A new layer joins with one line.
func TestLayersKeepTheRoundTripperContract(t *testing.T) {
	auth := func(next http.RoundTripper) http.RoundTripper {
		return &rf.AuthTransport{Base: next, Source: static("t"), Origins: []string{rf.AnyOrigin}, AllowPlaintext: true}
	}
	retry := func(next http.RoundTripper) http.RoundTripper {
		return &rf.RetryTransport{Base: next, Policy: rf.ExponentialBackoff(2, 1, 1)}
	}
	logging := func(next http.RoundTripper) http.RoundTripper {
		return &rf.LoggingTransport{Base: next, Logger: slog.New(slog.NewJSONHandler(io.Discard, nil)), Headers: true}
	}
	for name, wrap := range map[string]func(http.RoundTripper) http.RoundTripper{
		"auth":                 auth,
		"retry":                retry,
		"logging":              logging,
		"logging, retry, auth": func(next http.RoundTripper) http.RoundTripper { return logging(retry(auth(next))) },
		"auth, logging, retry": func(next http.RoundTripper) http.RoundTripper { return auth(logging(retry(next))) },
		"retry, foreign, auth": func(next http.RoundTripper) http.RoundTripper { return retry(foreign{auth(next)}) },
		"the stack of a Config": func(next http.RoundTripper) http.RoundTripper {
			rt, err := rf.NewTransport(rf.Config{
				Base: next, Source: static("t"), Origins: []string{rf.AnyOrigin}, AllowPlaintext: true,
				Retry: rf.ExponentialBackoff(2, 1, 1), Logger: slog.New(slog.NewJSONHandler(io.Discard, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			return rt
		},
	} {
		t.Run(name, func(t *testing.T) { authtest.TestRoundTripper(t, wrap) })
	}
}

// foreign is a layer that isn't ours.
type foreign struct{ next http.RoundTripper }

func (f foreign) RoundTrip(req *http.Request) (*http.Response, error) { return f.next.RoundTrip(req) }
func (f foreign) Unwrap() http.RoundTripper                           { return f.next }
func (f foreign) CloseIdleConnections() {
	f.next.(interface{ CloseIdleConnections() }).CloseIdleConnections()
}
