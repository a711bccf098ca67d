// Package wrapstack is the logging layer alone.
package wrapstack

import (
	"io"
	"log/slog"
	"net/http"

	"github.com/requestforge/requestforge"
)

// Wrap puts the layer over next.
func Wrap(next http.RoundTripper) http.RoundTripper {
	return &requestforge.LoggingTransport{
		Base:    next,
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
		Headers: true,
	}
}
