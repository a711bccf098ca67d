// Package wrapstack is the whole stack with the options on that wrap a
// response's body, or bound what is kept of a request's.
package wrapstack

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/requestforge/requestforge"
)

// Wrap puts the stack over next.
func Wrap(next http.RoundTripper) http.RoundTripper {
	return &requestforge.LoggingTransport{
		Base: &requestforge.RetryTransport{
			Base: &requestforge.AuthTransport{
				Base:   next,
				Source: requestforge.StaticToken(&requestforge.Token{AccessToken: "secret"}),
				// Not Authorization, which is the subject of some tests.
				Attach:         []requestforge.Place{{Header: "X-Api-Key"}},
				Origins:        []string{requestforge.AnyOrigin},
				AllowPlaintext: true,
				Refused:        peeks,
				MaxReplayBody:  16,
			},
			Policy: requestforge.RetryPolicy{
				RetryMax:       3,
				CheckRetry:     never,
				AttemptTimeout: time.Minute,
				MaxReplayBody:  32,
			},
		},
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
		Headers: true,
	}
}

// never lets the retry layer do all it does for a request, and send it once.
func never(context.Context, *http.Response, error) (bool, error) { return false, nil }

// peeks reads some of the body of every error response, and refuses none.
func peeks(resp *http.Response) bool {
	if resp.StatusCode >= 400 {
		// An error of the body is for whoever reads it next.
		_, _ = io.ReadFull(resp.Body, make([]byte, 8))
	}
	return false
}
