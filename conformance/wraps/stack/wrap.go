// Package wrapstack is the whole stack, logging -> retry -> auth -> next,
// with each layer at work but for second sends, which the tests count.
package wrapstack

import (
	"context"
	"io"
	"log/slog"
	"net/http"

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
			},
			Policy: requestforge.RetryPolicy{RetryMax: 3, CheckRetry: never},
		},
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
		Headers: true,
	}
}

// never lets the retry layer do all it does for a request, and send it once.
func never(context.Context, *http.Response, error) (bool, error) { return false, nil }
