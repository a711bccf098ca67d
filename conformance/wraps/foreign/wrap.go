// Package wrapstack is the whole stack with a RoundTripper of somebody else's
// between its layers, which then can't tell each other anything directly.
package wrapstack

import (
	"context"
	"io"
	"log/slog"
	"net/http"

	"github.com/requestforge/requestforge"
)

// foreign is the least that a RoundTripper can be.
type foreign struct{ next http.RoundTripper }

func (f *foreign) RoundTrip(req *http.Request) (*http.Response, error) { return f.next.RoundTrip(req) }

func (f *foreign) CloseIdleConnections() {
	if c, ok := f.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Wrap puts the stack over next.
func Wrap(next http.RoundTripper) http.RoundTripper {
	return &requestforge.LoggingTransport{
		Base: &foreign{&requestforge.RetryTransport{
			Base: &foreign{&requestforge.AuthTransport{
				Base:   &foreign{next},
				Source: requestforge.StaticToken(&requestforge.Token{AccessToken: "secret"}),
				// Not Authorization, which is the subject of some tests.
				Attach:         []requestforge.Place{{Header: "X-Api-Key"}},
				Origins:        []string{requestforge.AnyOrigin},
				AllowPlaintext: true,
			}},
			Policy: requestforge.RetryPolicy{RetryMax: 3, CheckRetry: never},
		}},
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
		Headers: true,
	}
}

// never lets the retry layer do all it does for a request, and send it once.
func never(context.Context, *http.Response, error) (bool, error) { return false, nil }
