// What goes to OpenTelemetry, and where. The counters are counters.go's, the
// fetches fetcher.go's.

// Package otelforge tells OpenTelemetry what a pipeline of requestforge does:
// its counters, and each request for a token with its duration, its kind of
// failure and a span.
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
//
// The README lists the instruments. Names, units and attributes follow the
// OpenTelemetry semantic conventions. An attribute is the name of a pipeline or
// a step, a status, or one of a fixed set of words; no message of an error
// and nothing that was sent or received is ever one.
//
// What happens to the HTTP requests themselves is the business of
// go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp. It goes above
// requestforge, for one span a request, or below, for one span a send, or
// both; the README and the examples show which span is whose child.
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

// The attributes of our own. The others are error.type and
// http.response.status_code, as in the semantic conventions.
const (
	pipelineKey = attribute.Key("requestforge.pipeline")
	stepKey     = attribute.Key("requestforge.step")
	kindKey     = attribute.Key("requestforge.fetch.kind")
)

// Config says where telemetry goes. The zero value sends it to the global
// providers.
type Config struct {
	// Pipeline is the attribute requestforge.pipeline of everything that
	// is recorded. It tells the pipelines of a process apart, so it is one
	// of few, such as the name of a service; the name of a user is not. ""
	// leaves the attribute out, which will do for one pipeline. The
	// counters of two with the same name are added up.
	Pipeline string

	// MeterProvider takes the metrics. Nil means the global one, even if
	// that is set later.
	MeterProvider metric.MeterProvider

	// TracerProvider takes the spans. Nil means that of the span in the
	// fetch's context, as in otelhttp, or if there is none the global one.
	TracerProvider trace.TracerProvider

	// DisableSpans begins no spans. (A TracerProvider that does nothing
	// isn't the same: otelhttp below would take it over.)
	DisableSpans bool
}

// Telemetry is the instrumentation of one pipeline. It is safe for concurrent
// use.
type Telemetry struct {
	cfg      Config
	attrs    []attribute.KeyValue // of everything
	meter    metric.Meter
	counters counters
	duration metric.Float64Histogram
}

// New returns a Telemetry with all its instruments. An error means that the
// MeterProvider refused some of them.
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
	var errs [2]error
	t.counters, errs[0] = newCounters(t.meter)
	t.duration, errs[1] = newDuration(t.meter)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return t, nil
}

// Register makes the counters of p, those of its Stats method, observable:
// they are read when the MeterProvider collects, and cost nothing otherwise.
//
// The caller unregisters what it registered, when it is done with p; closing p
// doesn't, and until then the MeterProvider holds on to p. Shutting the
// MeterProvider down ends it, too.
func (t *Telemetry) Register(p *requestforge.Pipeline) (metric.Registration, error) {
	if p == nil {
		return nil, errors.New("requestforge: otelforge: Register: the pipeline is nil")
	}
	return t.counters.register(t.meter, t.attrs, p.Stats)
}

// Steps returns steps whose fetchers record, for each request for a token, its
// duration and a span "requestforge.fetch" with the name of the step. The
// argument stays as it is. Call it last, with steps that are otherwise
// complete, and once.
//
// Each try of a fetch is a request of its own. It is recorded when the fetcher
// returns, which for one that is deaf to its context may be long after the
// pipeline has left it behind. The span is a child of the span of the caller
// who set off the fetch, even if that ends before; it is the parent of the spans
// that the fetcher begins.
//
// A *requestforge.BodyFetcher or *requestforge.HeaderFetcher is checked by
// NewPipeline as ever. One inside a fetcher type of your own is checked only
// when it fetches. A step prints the name of a type here for its fetcher's. And
// processes that share their failures through a storage do so only if all or
// none of them use Steps.
func (t *Telemetry) Steps(steps []requestforge.Step) []requestforge.Step {
	out := make([]requestforge.Step, len(steps))
	for i, step := range steps {
		step.Fetcher = t.instrument(step.Fetcher, step.Name, "login")
		step.Refresh = t.instrument(step.Refresh, step.Name, "refresh")
		out[i] = step
	}
	return out
}
