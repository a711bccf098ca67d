// A shared step's fetch joins the trace of the caller who set off the fetch.

package otelforge

import (
	"context"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Carry is a function for [requestforge.PipelineConfig.Carry]. Carry returns to with the
// span context of from, so that the fetch of a step shared by all subjects joins the trace
// of the caller who set off the fetch:
//
//	requestforge.PipelineConfig{Subject: userOf, Carry: otelforge.Carry, …}
//
// Only the span context is carried: no values of from, no baggage, which may name a user,
// and not the span. Spans begun with the result are children of the caller's span and go to
// the TracerProvider of the caller's span, but code with the result can neither read nor
// change the caller's span. Without a valid span in from, Carry returns to. Carry is safe
// for concurrent use.
func Carry(from, to context.Context) context.Context {
	span := trace.SpanFromContext(from)
	sc := span.SpanContext()
	if !sc.IsValid() {
		return to
	}
	if sc.IsRemote() { // has no provider here, see start
		return trace.ContextWithRemoteSpanContext(to, sc)
	}
	return trace.ContextWithSpan(to, carried{sc: sc, provider: span.TracerProvider()})
}

// carried is a span that can only be a parent.
type carried struct {
	noop.Span
	sc       trace.SpanContext
	provider trace.TracerProvider
}

func (s carried) SpanContext() trace.SpanContext { return s.sc }

func (s carried) TracerProvider() trace.TracerProvider { return s.provider }
