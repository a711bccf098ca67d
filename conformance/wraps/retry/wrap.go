// Package wrapstack is the retry layer alone, which sends nothing again.
package wrapstack

import (
	"context"
	"net/http"

	"github.com/requestforge/requestforge"
)

// Wrap puts the layer over next.
func Wrap(next http.RoundTripper) http.RoundTripper {
	return &requestforge.RetryTransport{
		Base:   next,
		Policy: requestforge.RetryPolicy{RetryMax: 3, CheckRetry: never},
	}
}

// never lets the retry layer do all it does for a request, and send it once.
func never(context.Context, *http.Response, error) (bool, error) { return false, nil }
