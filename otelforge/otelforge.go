// The package's configuration: where the telemetry goes. The counters are in counters.go,
// the fetches in fetcher.go.

// Package otelforge reports to OpenTelemetry how a requestforge pipeline works: the
// pipeline's counters, each request for a token with duration, kind of failure and span,
// and how an AuthTransport handles refused requests.
//
//	telemetry, err := otelforge.New(otelforge.Config{Pipeline: "shop"})
//	// …
//	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
//		Steps: telemetry.Steps(steps),
//	})
//	// …
//	registration, err := telemetry.Register(pipeline)
//	// …
//	defer registration.Unregister()
//	// …
//	transport, err := requestforge.NewTransport(requestforge.Config{
//		Source:    pipeline,
//		AuthTrace: telemetry.AuthTrace(),
//	})
//
// The README lists the instruments. Names, units and attributes follow the OpenTelemetry
// semantic conventions. An attribute is the name of a pipeline or a step, a status, or one
// of a fixed set of words. Subjects, error messages and the contents of requests and
// responses never become attributes. In a pipeline of many subjects, Carry puts the fetches
// of shared steps into a trace.
//
// For the HTTP requests themselves, use
// go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp. Above requestforge,
// otelhttp makes one span a request; below requestforge, one span a send. Both may be used
// together: the README and the examples show which span is the parent of which. ResendCount
// adds the number of the send to the spans below.
package otelforge

import (
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/requestforge/requestforge"
)

// ScopeName is the name of the instrumentation scope of everything here.
const ScopeName = "github.com/requestforge/requestforge/otelforge"

// The attributes defined by this package. error.type and http.response.status_code come
// from the semantic conventions.
const (
	pipelineKey = attribute.Key("requestforge.pipeline")
	stepKey     = attribute.Key("requestforge.step")
	kindKey     = attribute.Key("requestforge.fetch.kind")
	replayKey   = attribute.Key("requestforge.replay.reason")
	gaveUpKey   = attribute.Key("requestforge.gave_up.reason")
)

// Config says where the telemetry goes. The zero value uses the global providers.
type Config struct {
	// Pipeline is the attribute requestforge.pipeline of every measurement and span. The
	// attribute tells the pipelines of a process apart, so use a name with few values, such
	// as the name of a service, and not the name of a user. "" leaves the attribute out,
	// which is enough for one pipeline. The counters of two pipelines with the same name
	// are added up.
	Pipeline string

	// MeterProvider takes the metrics. Nil means the global provider, even if the program
	// sets the global provider later.
	MeterProvider metric.MeterProvider

	// TracerProvider takes the spans. Nil means, as in otelhttp, the provider of the span
	// in the fetch's context, or the global provider if the context has no span.
	TracerProvider trace.TracerProvider

	// DisableSpans begins no spans. (A no-op TracerProvider isn't the same: otelhttp below
	// would use the no-op provider, too.)
	DisableSpans bool
}

// Telemetry is the instrumentation of one pipeline. A Telemetry is safe for concurrent use.
type Telemetry struct {
	cfg      Config
	attrs    []attribute.KeyValue // of everything
	meter    metric.Meter
	counters counters
	duration metric.Float64Histogram
	requests requests
}

// New returns a Telemetry with all instruments. An error means that the MeterProvider
// refused some of the instruments.
func New(cfg Config) (*Telemetry, error) {
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	t := &Telemetry{
		cfg:   cfg,
		meter: cfg.MeterProvider.Meter(ScopeName, metric.WithSchemaURL(semconv.SchemaURL)),
	}
	if cfg.Pipeline != "" {
		t.attrs = []attribute.KeyValue{pipelineKey.String(cfg.Pipeline)}
	}
	var errs [3]error
	t.counters, errs[0] = newCounters(t.meter)
	t.duration, errs[1] = newDuration(t.meter)
	t.requests, errs[2] = newRequests(t.meter)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return t, nil
}

// Register makes the counters of p.Stats observable, and the time until the token of each
// step expires. For a pipeline of many subjects, only shared steps have a time to expiry.
// The MeterProvider reads p when it collects; between collections Register costs nothing.
//
// Call Unregister on the registration when the program is done with p. Closing p doesn't
// unregister, and until then the MeterProvider keeps p in memory. Shutting the
// MeterProvider down also ends the registration.
func (t *Telemetry) Register(p *requestforge.Pipeline) (metric.Registration, error) {
	if p == nil {
		return nil, errors.New("requestforge: otelforge: Register: the pipeline is nil")
	}
	return t.counters.register(t.meter, t.attrs, p)
}

// Steps returns a copy of steps whose fetchers record, for each request for a token, the
// duration and a span "requestforge.fetch" followed by the name of the step. Call Steps
// once, as the last change to the steps. The argument isn't modified.
//
// Each try of a fetch is a request of its own. The request is recorded when the fetcher
// returns. A fetcher that ignores its context may return long after the pipeline stopped
// waiting. The span is a child of the span of the caller who set off the fetch, even if the
// caller's span ends first, and the parent of the spans that the fetcher begins.
//
// NewPipeline still checks a *requestforge.HTTPFetcher, also inside a custom fetcher type
// with a method Unwrap() requestforge.Fetcher. A printed step names a type of this package
// as the type of its fetcher. Processes that share failures through a storage must either
// all use Steps or all leave Steps out, or the failures aren't shared.
func (t *Telemetry) Steps(steps []requestforge.Step) []requestforge.Step {
	out := make([]requestforge.Step, len(steps))
	for i, step := range steps {
		step.Fetcher = t.instrument(step.Fetcher, step.Name, "login")
		step.Refresh = t.instrument(step.Refresh, step.Name, "refresh")
		out[i] = step
	}
	return out
}
