// Package wrapstack is the whole stack over a pipeline of two steps whose
// tokens live for a second or two, so that each test begins without one and a
// long one sees them expire.
package wrapstack

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge"
)

// Wrap puts the stack over next.
func Wrap(next http.RoundTripper) http.RoundTripper {
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: []requestforge.Step{
			{Name: "app", Fetcher: counter("app"), TTL: 2 * time.Second},
			{Name: "user", Fetcher: counter("user"), TTL: time.Second, DependsOn: []string{"app"}},
		},
	})
	if err != nil {
		panic(err)
	}
	return &requestforge.LoggingTransport{
		Base: &requestforge.RetryTransport{
			Base: &requestforge.AuthTransport{
				Base:   next,
				Source: tokens,
				// Not Authorization, which is the subject of some tests.
				Attach:         []requestforge.Place{{Header: "X-Api-Key"}},
				Origins:        []string{requestforge.AnyOrigin},
				AllowPlaintext: true,
				// The 401s of the tests aren't about our token.
				Refused: func(*http.Response) bool { return false },
			},
			Policy: requestforge.RetryPolicy{RetryMax: 3, CheckRetry: never},
		},
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
		Headers: true,
	}
}

// counter fetches a new token each time.
func counter(step string) requestforge.Fetcher {
	var n atomic.Int64
	return requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
		return &requestforge.Token{AccessToken: fmt.Sprintf("%s-%d", step, n.Add(1))}, nil
	})
}

// never lets the retry layer do all it does for a request, and send it once.
func never(context.Context, *http.Response, error) (bool, error) { return false, nil }
