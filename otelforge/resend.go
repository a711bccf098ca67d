// Which send of a request a span of otelhttp is.

package otelforge

import (
	"net/http"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/requestforge/requestforge"
)

// ResendCount returns a transport that records on otelhttp's spans which send of a request
// each span is. Put the transport below otelhttp, and otelhttp below requestforge:
//
//	sends := otelhttp.NewTransport(otelforge.ResendCount(nil))
//	transport, err := requestforge.NewTransport(requestforge.Config{Base: sends, …})
//
// The attribute is http.request.resend_count of the semantic conventions: 1 for the first
// retry or replay, and one more for each further send. The first send has no attribute.
// Only a span in the request's context that is recorded and of kind client gets the
// attribute, so a request that otelhttp's filters leave out changes no span around the
// request.
//
// base sends the requests; nil means http.DefaultTransport, looked up at each request. The
// transport is safe for concurrent use if base is.
func ResendCount(base http.RoundTripper) http.RoundTripper { return &resendCount{base} }

type resendCount struct{ base http.RoundTripper }

func (t *resendCount) RoundTrip(req *http.Request) (*http.Response, error) {
	if n := requestforge.SendNumber(req.Context()); n > 1 {
		if span := trace.SpanFromContext(req.Context()); ofClient(span) {
			span.SetAttributes(semconv.HTTPRequestResendCount(n - 1))
		}
	}
	return t.Unwrap().RoundTrip(req)
}

// ofClient reports whether span is recorded and of kind client. A span without a SpanKind
// method isn't from the SDK; ofClient takes such a span for a client's.
func ofClient(span trace.Span) bool {
	if !span.IsRecording() {
		return false
	}
	s, ok := span.(interface{ SpanKind() trace.SpanKind })
	return !ok || s.SpanKind() == trace.SpanKindClient
}

// Unwrap returns the transport below.
func (t *resendCount) Unwrap() http.RoundTripper {
	if t.base == nil {
		return http.DefaultTransport
	}
	return t.base
}

// CloseIdleConnections closes the idle connections of the transport below.
func (t *resendCount) CloseIdleConnections() {
	if c, ok := t.Unwrap().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
