// What the tests and examples share: a login of two steps, spans as a tree, and
// metrics by their names.

package otelforge_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// twoSteps is a login whose second call needs the token of the first.
var twoSteps = authtest.Config{Steps: []authtest.Step{
	{Name: "app", ClientID: "shop", ClientSecret: clientSecret, TTL: time.Hour},
	{Name: "user", Parents: map[string]string{"app": "X-App-Token"}, TTL: 30 * time.Minute},
}}

const clientSecret = "hunter2"

// listen serves sim on loopback behind wrap.
func listen(t *testing.T, sim *authtest.Simulator, wrap func(http.Handler) http.Handler) {
	srv := httptest.NewServer(wrap(sim))
	t.Cleanup(srv.Close)
	sim.URL = srv.URL
}

// through makes the fetchers of authtest's steps use rt.
func through(rt http.RoundTripper, steps []requestforge.Step) []requestforge.Step {
	for _, s := range steps {
		for _, f := range []requestforge.Fetcher{s.Fetcher, s.Refresh} {
			if f, ok := f.(*requestforge.HTTPFetcher); ok {
				f.Client = &http.Client{Transport: rt}
			}
		}
	}
	return steps
}

// tracing is a TracerProvider that keeps every span.
type tracing struct {
	*sdktrace.TracerProvider
	spans *tracetest.SpanRecorder
}

func newTracing() *tracing {
	spans := tracetest.NewSpanRecorder()
	return &tracing{sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)), spans}
}

// begin starts a span as an application would.
func (tr *tracing) begin(ctx context.Context, name string) (context.Context, trace.Span) {
	return tr.Tracer("test").Start(ctx, name)
}

// http puts otelhttp over rt.
func (tr *tracing) http(rt http.RoundTripper) http.RoundTripper {
	return otelhttp.NewTransport(rt,
		otelhttp.WithTracerProvider(tr),
		otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithMeterProvider(sdkmetric.NewMeterProvider()),
	)
}

// tree is every span below its parent, in the order in which they began. A
// span of HTTP has its path and status beside its name, a failed one what went
// wrong, and a resend its count; one that hasn't ended is marked.
func (tr *tracing) tree() string {
	var b strings.Builder
	var list func(parent trace.SpanID, indent string)
	list = func(parent trace.SpanID, indent string) {
		for _, s := range tr.spans.Started() {
			if s.Parent().SpanID() != parent {
				continue
			}
			b.WriteString(indent + s.Name())
			if u, err := url.Parse(attr(s.Attributes(), "url.full").AsString()); err == nil {
				b.WriteString(strings.TrimRight(" "+u.Path, " "))
			}
			if status := attr(s.Attributes(), "http.response.status_code"); status.Type() != attribute.EMPTY {
				b.WriteString(" " + status.String())
			}
			if failure := attr(s.Attributes(), "error.type"); failure.Type() != attribute.EMPTY {
				b.WriteString(" error.type=" + failure.String())
			}
			if n := attr(s.Attributes(), "http.request.resend_count"); n.Type() != attribute.EMPTY {
				b.WriteString(" resend_count=" + n.String())
			}
			if s.EndTime().IsZero() {
				b.WriteString(" (not ended)")
			}
			b.WriteByte('\n')
			list(s.SpanContext().SpanID(), indent+"  ")
		}
	}
	list(trace.SpanID{}, "")
	return b.String()
}

// attr returns a zero Value if there is none.
func attr(attrs []attribute.KeyValue, key attribute.Key) attribute.Value {
	for _, kv := range attrs {
		if kv.Key == key {
			return kv.Value
		}
	}
	return attribute.Value{}
}

// expectTree compares tr's spans with want, which is indented as the code is.
func expectTree(t *testing.T, tr *tracing, want string) {
	t.Helper()
	lines := strings.Split(strings.Trim(want, "\n\t"), "\n")
	margin := ""
	if first := strings.Split(strings.Trim(want, "\n"), "\n")[0]; first != "" {
		margin = first[:len(first)-len(strings.TrimLeft(first, "\t"))]
	}
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], margin)
	}
	if got, want := tr.tree(), strings.Join(lines, "\n")+"\n"; got != want {
		t.Errorf("the spans are\n%s\nwant\n%s", got, want)
	}
}

// everything is all that an exporter would get to see of the spans.
func (tr *tracing) everything() string {
	var b strings.Builder
	for _, s := range tracetest.SpanStubsFromReadOnlySpans(tr.spans.Ended()) {
		fmt.Fprintf(&b, "%+v\n", s)
		for _, kv := range s.Attributes {
			fmt.Fprintf(&b, "%s=%s\n", kv.Key, kv.Value.String())
		}
	}
	return b.String()
}

// metrics is a MeterProvider that is read when a test wants to.
type metrics struct {
	*sdkmetric.MeterProvider
	reader *sdkmetric.ManualReader
}

func newMetrics() *metrics {
	reader := sdkmetric.NewManualReader()
	return &metrics{sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), reader}
}

// collect returns what there is, by name.
func (m *metrics) collect(t *testing.T) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := m.reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	byName := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		for _, metric := range scope.Metrics {
			byName[metric.Name] = metric
		}
	}
	return byName
}

// transport returns requestforge's usual stack for sim, with below as what
// sends.
func transport(t *testing.T, sim *authtest.Simulator, below http.RoundTripper, tokens requestforge.TokenSource) *requestforge.Transport {
	t.Helper()
	rt, err := requestforge.NewTransport(requestforge.Config{Base: below, BaseURL: sim.URL, Source: tokens})
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

func pipeline(t *testing.T, steps []requestforge.Step) *requestforge.Pipeline {
	t.Helper()
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: steps})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// get asks for path, reads the answer and returns its status.
func get(t *testing.T, ctx context.Context, client *http.Client, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// arrivals are the requests that a server got.
type arrivals struct {
	mu   sync.Mutex
	list []arrival
}

type arrival struct {
	path        string
	traceparent []string
	secrets     []string
}

func (a *arrivals) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := arrival{path: r.URL.Path, traceparent: r.Header["Traceparent"]}
		for _, name := range []string{"Authorization", "X-App-Token"} {
			if _, value, ok := strings.Cut(r.Header.Get(name), " "); ok {
				seen.secrets = append(seen.secrets, value)
			} else if value := r.Header.Get(name); value != "" {
				seen.secrets = append(seen.secrets, value)
			}
		}
		a.mu.Lock()
		a.list = append(a.list, seen)
		a.mu.Unlock()
		h.ServeHTTP(w, r)
	})
}
