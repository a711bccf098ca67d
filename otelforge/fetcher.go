// A request for a token as a measurement and a span. A fetcher that records still shows
// NewPipeline the fetcher inside.

package otelforge

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/requestforge/requestforge"
)

const (
	durationName        = "requestforge.fetch.duration"
	durationUnit        = "s"
	durationDescription = "Duration of requests for a token, each try of a fetch."
)

// newDuration has the buckets of http.client.request.duration in the semantic conventions,
// so that both histograms can be compared.
func newDuration(m metric.Meter) (metric.Float64Histogram, error) {
	return m.Float64Histogram(durationName, metric.WithUnit(durationUnit), metric.WithDescription(durationDescription),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10))
}

// instrument returns f with a recorder around f. A nil fetcher stays nil, for NewPipeline
// to find.
func (t *Telemetry) instrument(f requestforge.Fetcher, step, kind string) requestforge.Fetcher {
	if f == nil || isNil(f) {
		return f
	}
	r := &recorder{
		Telemetry: t,
		span:      "requestforge.fetch " + step,
		attrs:     append(slices.Clip(t.attrs), stepKey.String(step), kindKey.String(kind)),
	}
	if f, ok := f.(*requestforge.HTTPFetcher); ok {
		return httpFetcher{f, r}
	}
	return fetcher{f, r}
}

func isNil(f requestforge.Fetcher) bool {
	switch v := reflect.ValueOf(f); v.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan:
		return v.IsNil()
	}
	return false
}

// httpFetcher embeds the HTTPFetcher and so has all its methods: the methods that hide
// secrets from printing, and the methods by which NewPipeline finds mistakes.
type httpFetcher struct {
	*requestforge.HTTPFetcher
	recorder *recorder
}

func (f httpFetcher) Fetch(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
	return f.recorder.record(ctx, in, f.HTTPFetcher)
}

// fetcher wraps any Fetcher except an HTTPFetcher.
type fetcher struct {
	inner    requestforge.Fetcher
	recorder *recorder
}

func (f fetcher) Fetch(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
	return f.recorder.record(ctx, in, f.inner)
}

// Unwrap returns the fetcher inside. NewPipeline checks that fetcher, and reads from it
// whose tokens the fetcher brings.
func (f fetcher) Unwrap() requestforge.Fetcher { return f.inner }

// Format prints the type of the fetcher inside, whose fields may be secrets.
func (f fetcher) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "%T", f.inner) }

// recorder records the fetches of one Fetcher of one step.
type recorder struct {
	*Telemetry
	span  string
	attrs []attribute.KeyValue
}

// record runs f and returns the result of f. A panic or a Goexit is recorded and passes
// through.
func (r *recorder) record(ctx context.Context, in requestforge.Input, f requestforge.Fetcher) (tok *requestforge.Token, err error) {
	begun := time.Now()
	ctx, span := r.start(ctx)
	outcome := []attribute.KeyValue{semconv.ErrorTypeKey.String("panic")}
	defer func() {
		span.SetAttributes(outcome...)
		if len(outcome) > 0 {
			span.SetStatus(codes.Error, "")
		}
		r.duration.Record(ctx, time.Since(begun).Seconds(), metric.WithAttributes(append(slices.Clip(r.attrs), outcome...)...))
		span.End()
	}()
	tok, err = f.Fetch(ctx, in)
	outcome = outcomeOf(tok, err)
	return tok, err
}

// start begins a span unless spans are disabled.
func (r *recorder) start(ctx context.Context) (context.Context, trace.Span) {
	if r.cfg.DisableSpans {
		return ctx, noop.Span{}
	}
	provider := r.cfg.TracerProvider
	if provider == nil {
		provider = otel.GetTracerProvider()
		// The span of another process has no provider here.
		if outer := trace.SpanFromContext(ctx); outer.SpanContext().IsValid() && !outer.SpanContext().IsRemote() {
			provider = outer.TracerProvider()
		}
	}
	tracer := provider.Tracer(ScopeName, trace.WithSchemaURL(semconv.SchemaURL))
	return tracer.Start(ctx, r.span, trace.WithAttributes(r.attrs...))
}

// outcomeOf returns the attributes of a failure, or nil for a token.
func outcomeOf(tok *requestforge.Token, err error) []attribute.KeyValue {
	if err == nil {
		if tok == nil || tok.AccessToken == "" || !tok.Expiry.IsZero() && !tok.Expiry.After(time.Now()) {
			// By the rules of a Fetcher such a token is an error.
			return []attribute.KeyValue{semconv.ErrorTypeKey.String("invalid_token_response")}
		}
		return nil
	}
	status := 0
	typ := ""
	if auth, ok := errors.AsType[*requestforge.AuthError](err); ok && auth.Step == "" { // an AuthError with a step comes from another pipeline
		if 100 <= auth.StatusCode && auth.StatusCode <= 599 {
			status = auth.StatusCode
		}
		if registered(auth.Code) {
			typ = auth.Code
		}
	}
	if typ == "" {
		typ = errorType(status, err)
	}
	attrs := []attribute.KeyValue{semconv.ErrorTypeKey.String(typ)}
	if status != 0 {
		attrs = append(attrs, semconv.HTTPResponseStatusCode(status))
	}
	return attrs
}

// registered reports whether code is registered for OAuth. NewAuthError takes over
// registered codes only, but a fetcher that makes an AuthError itself may put anything into
// Code.
func registered(code string) bool {
	body, err := json.Marshal(map[string]string{"error": code})
	return err == nil && code != "" && requestforge.NewAuthError(nil, body, nil).Code == code
}

// errorType returns a word of a fixed set, or the status. The semantic conventions have no
// words for network failures, so errorType uses the words of .NET's HTTP client.
func errorType(status int, err error) string {
	if status >= 400 {
		return strconv.Itoa(status)
	}
	if t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && t.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	if errors.Is(err, context.Canceled) {
		return "canceled"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "name_resolution_error"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "secure_connection_error"
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return "secure_connection_error"
	}
	if _, ok := errors.AsType[*net.OpError](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "connection_error"
	}
	if status != 0 {
		return "invalid_token_response"
	}
	return "_OTHER"
}
