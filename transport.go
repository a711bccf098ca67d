// Package requestforge makes any http.Client authenticate itself when a token
// takes several dependent calls.
package requestforge

import (
	"log/slog"
	"net/http"
)

// Config describes the usual stack of transports.
type Config struct {
	Base           http.RoundTripper
	BaseURL        string
	Tokens         TokenSource
	AuthRetry      AuthRetryStrategy
	Refused        func(*http.Response) bool
	ExcludedPaths  []string
	Origins        []string
	AllowPlaintext bool
	Header         string
	CallerHeader   CallerHeader
	MaxReplayBody  int64
	Retry          RetryPolicy
	Logger         *slog.Logger
	LogHeaders     bool
}

// Transport is a base URL and the stack.
type Transport struct{}

func NewTransport(cfg Config) (*Transport, error) { return &Transport{}, nil }

func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) { return nil, nil }

// LoggingTransport writes one log record a request.
type LoggingTransport struct {
	Base    http.RoundTripper
	Logger  *slog.Logger
	Headers bool
}

func (t *LoggingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(nil, req)
}
func (t *LoggingTransport) roundTrip(x *exchange, req *http.Request) (*http.Response, error) {
	return forward(baseOr(t.Base), x, req)
}
