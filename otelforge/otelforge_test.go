// What is recorded of a pipeline, and that being recorded changes nothing of
// it.

package otelforge_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
	"go.opentelemetry.io/otel/trace"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/otelforge"
)

func newTelemetry(t *testing.T, cfg otelforge.Config) *otelforge.Telemetry {
	t.Helper()
	telemetry, err := otelforge.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return telemetry
}

// count is the value of a counter with these attributes, -1 if there is none.
func count(m metricdata.Metrics, attrs ...attribute.KeyValue) int64 {
	want := attribute.NewSet(attrs...)
	sum, _ := m.Data.(metricdata.Sum[int64])
	for _, p := range sum.DataPoints {
		if p.Attributes.Equals(&want) {
			return p.Value
		}
	}
	return -1
}

const ours = "requestforge.fetch.duration"

// durations are the points of a histogram.
func durations(t *testing.T, m *metrics, name string) []metricdata.HistogramDataPoint[float64] {
	t.Helper()
	histogram, ok := m.collect(t)[name].Data.(metricdata.Histogram[float64])
	if !ok {
		t.Fatalf("there is no histogram %s", name)
	}
	return histogram.DataPoints
}

func TestCountersShowTheStatsOfTheirPipeline(t *testing.T) {
	sim, m := authtest.NewSimulator(twoSteps), newMetrics()
	tokens := pipeline(t, sim.Steps())
	registration, err := newTelemetry(t, otelforge.Config{Pipeline: "shop", MeterProvider: m}).Register(tokens)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: transport(t, sim, sim.Transport(), tokens)}
	for range 2 {
		get(t, t.Context(), client, "/orders")
		sim.Revoke("user")
	}

	shop := attribute.String("requestforge.pipeline", "shop")
	got := m.collect(t)
	for _, tt := range []struct {
		name string
		step string // "": of the pipeline
		want int64
	}{
		{"requestforge.fetch.sent", "app", 1},
		{"requestforge.fetch.sent", "user", 2},
		{"requestforge.fetch.failed", "user", 0},
		{"requestforge.token.invalidated", "", 1},
		{"requestforge.refusal.ignored", "", 0},
	} {
		attrs := []attribute.KeyValue{shop}
		if tt.step != "" {
			attrs = append(attrs, attribute.String("requestforge.step", tt.step))
		}
		if n := count(got[tt.name], attrs...); n != tt.want {
			t.Errorf("%s of %q is %d, want %d", tt.name, tt.step, n, tt.want)
		}
		if sum, _ := got[tt.name].Data.(metricdata.Sum[int64]); !sum.IsMonotonic {
			t.Errorf("%s is no counter", tt.name)
		}
	}

	if err := registration.Unregister(); err != nil {
		t.Fatal(err)
	}
	if got := m.collect(t); len(got) > 0 {
		t.Errorf("%d metrics are left after Unregister", len(got))
	}
}

func TestPipelinesOfOneNameAreAddedUp(t *testing.T) {
	sim, m := authtest.NewSimulator(twoSteps), newMetrics()
	telemetry := newTelemetry(t, otelforge.Config{MeterProvider: m})
	for range 2 {
		tokens := pipeline(t, sim.Steps())
		if _, err := telemetry.Register(tokens); err != nil {
			t.Fatal(err)
		}
		if _, err := tokens.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(m.collect(t)["requestforge.fetch.sent"], attribute.String("requestforge.step", "app")); n != 2 {
		t.Errorf("two pipelines sent %d requests for a token of app, want 2", n)
	}
}

func TestRegisterNilIsAnError(t *testing.T) {
	if _, err := newTelemetry(t, otelforge.Config{MeterProvider: newMetrics()}).Register(nil); err == nil {
		t.Error("no error")
	}
}

// setGlobals sets the global providers. That can be done once a process, and
// what was begun before goes there, too.
var setGlobals = sync.OnceValues(func() (*metrics, *tracing) {
	m, tr := newMetrics(), newTracing()
	otel.SetMeterProvider(m)
	otel.SetTracerProvider(tr)
	return m, tr
})

// The providers of an application are often set after its clients are made.
func TestZeroConfigMeansTheGlobalProvidersEvenIfSetLater(t *testing.T) {
	sim := authtest.NewSimulator(twoSteps)
	telemetry := newTelemetry(t, otelforge.Config{})
	tokens := pipeline(t, telemetry.Steps(sim.Steps()))
	registration, err := telemetry.Register(tokens)
	if err != nil {
		t.Fatal(err)
	}
	m, tr := setGlobals()
	before := len(tr.spans.Ended())

	if _, err := tokens.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(m.collect(t)["requestforge.fetch.sent"], attribute.String("requestforge.step", "app")); n != 1 {
		t.Errorf("the counter is %d, want 1", n)
	}
	if points := durations(t, m, ours); len(points) != 2 {
		t.Errorf("%d durations, want one a step", len(points))
	}
	if n := len(tr.spans.Ended()) - before; n != 2 {
		t.Errorf("%d spans, want one a step", n)
	}
	if err := registration.Unregister(); err != nil {
		t.Fatal(err)
	}
	if n := count(m.collect(t)["requestforge.fetch.sent"], attribute.String("requestforge.step", "app")); n != -1 {
		t.Errorf("the counter is %d after Unregister, want none", n)
	}
}

// Without a provider of its own it takes that of the span around it, as
// otelhttp does. The span of another process has none.
func TestSpansGoToTheProviderOfTheSpanAround(t *testing.T) {
	sim, tr := authtest.NewSimulator(twoSteps), newTracing()
	telemetry := newTelemetry(t, otelforge.Config{MeterProvider: newMetrics()})
	ctx, job := tr.begin(t.Context(), "job")
	if _, err := pipeline(t, telemetry.Steps(sim.Steps())).Token(ctx); err != nil {
		t.Fatal(err)
	}
	job.End()
	expectTree(t, tr, `
		job
		  requestforge.fetch app
		  requestforge.fetch user`)

	_, global := setGlobals()
	before := len(global.spans.Ended())
	remote := trace.ContextWithRemoteSpanContext(t.Context(), job.SpanContext())
	if _, err := pipeline(t, telemetry.Steps(sim.Steps())).Token(remote); err != nil {
		t.Fatal(err)
	}
	spans := global.spans.Ended()[before:]
	if len(spans) != 2 {
		t.Errorf("%d spans went to the global provider, want one a step", len(spans))
	}
	for _, s := range spans {
		if s.Parent().SpanID() != job.SpanContext().SpanID() {
			t.Errorf("%s isn't a child of the remote span", s.Name())
		}
	}
}

func TestDisableSpansLeavesThoseOfOtelhttpBelow(t *testing.T) {
	sim, tr, m := authtest.NewSimulator(twoSteps), newTracing(), newMetrics()
	telemetry := newTelemetry(t, otelforge.Config{MeterProvider: m, TracerProvider: tr, DisableSpans: true})
	tokens := pipeline(t, telemetry.Steps(through(tr.http(sim.Transport()), sim.Steps())))
	ctx, job := tr.begin(t.Context(), "job")
	if _, err := tokens.Token(ctx); err != nil {
		t.Fatal(err)
	}
	job.End()
	expectTree(t, tr, `
		job
		  HTTP POST /app 200
		  HTTP POST /user 200`)
	if points := durations(t, m, ours); len(points) != 2 {
		t.Errorf("%d durations, want one a step", len(points))
	}
}

// Each try counts, from when it begins to when the fetcher returns.
func TestEachRequestForATokenIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, m := authtest.NewSimulator(authtest.Config{Steps: []authtest.Step{
			{Name: "user", TTL: time.Minute, RefreshTokens: true},
		}}), newMetrics()
		sim.Fail("user", authtest.Fault{Times: 2, Status: 503, Delay: 2 * time.Second}, authtest.Fault{Times: 1, Delay: 3 * time.Second})
		telemetry := newTelemetry(t, otelforge.Config{Pipeline: "shop", MeterProvider: m})
		tokens := pipeline(t, telemetry.Steps(sim.Steps()))
		for range 2 { // the second one has a refresh token
			if _, err := tokens.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}

		got := map[string]string{}
		for _, p := range durations(t, m, ours) {
			got[p.Attributes.Encoded(attribute.DefaultEncoder())] = fmt.Sprintf("%d in %v s", p.Count, p.Sum)
		}
		const common = "requestforge.pipeline=shop,requestforge.step=user"
		want := map[string]string{
			"requestforge.fetch.kind=login," + common:                                              "1 in 3 s",
			"requestforge.fetch.kind=refresh," + common:                                            "1 in 0 s",
			"error.type=503,http.response.status_code=503,requestforge.fetch.kind=login," + common: "2 in 4 s",
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// The words that error.type can have, and which failures they are for.
func TestErrorTypeIsOneOfFewWords(t *testing.T) {
	broken := httptest.NewUnstartedServer(http.NotFoundHandler())
	broken.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	broken.StartTLS()
	defer broken.Close()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	ask := func(ctx context.Context, url string) error {
		_, err := (&requestforge.HTTPFetcher{URL: url, Client: &http.Client{Transport: &http.Transport{}}}).Fetch(ctx, requestforge.Input{})
		return err
	}
	auth := func(status int, code string) *requestforge.AuthError {
		return &requestforge.AuthError{StatusCode: status, Code: code, Err: errors.New("s3cret")}
	}
	_, words, _ := strings.Cut(read(t, "README.md"), "| `error.type` | ")
	words, _, _ = strings.Cut(words, "\n")
	for _, tt := range []struct {
		name   string
		tok    *requestforge.Token
		err    error
		want   string
		status int64 // 0: no attribute
	}{
		{"an OAuth code", nil, auth(400, "invalid_grant"), "invalid_grant", 400},
		{"a code in a 200", nil, auth(200, "slow_down"), "slow_down", 200},
		{"a status", nil, auth(503, ""), "503", 503},
		{"a code that isn't registered", nil, auth(403, "s3cret"), "403", 403},
		{"a status that is none", nil, auth(1234567, ""), "_OTHER", 0},
		{"a wrapped one", nil, fmt.Errorf("s3cret: %w", auth(401, "invalid_token")), "invalid_token", 401},
		{"another pipeline's", nil, &requestforge.AuthError{Step: "s3cret", StatusCode: 401, Code: "invalid_client"}, "_OTHER", 0},
		{"a page instead of a token", nil, auth(200, ""), "invalid_token_response", 200},
		{"a timeout", nil, &requestforge.AuthError{Err: os.ErrDeadlineExceeded}, "timeout", 0},
		{"a timeout in the body", nil, &requestforge.AuthError{StatusCode: 200, Err: os.ErrDeadlineExceeded}, "timeout", 200},
		{"a deadline", nil, context.DeadlineExceeded, "timeout", 0},
		{"a cancelation", nil, ask(canceled, broken.URL), "canceled", 0},
		{"no such host", nil, &requestforge.AuthError{Err: &net.DNSError{IsNotFound: true, Name: "s3cret"}}, "name_resolution_error", 0},
		{"nobody there", nil, ask(t.Context(), "http://127.0.0.1:1"), "connection_error", 0},
		{"a connection that broke", nil, &requestforge.AuthError{Err: io.ErrUnexpectedEOF}, "connection_error", 0},
		{"a certificate", nil, ask(t.Context(), broken.URL), "secure_connection_error", 0},
		{"a TLS alert", nil, &net.OpError{Op: "remote error", Err: tls.AlertError(40)}, "secure_connection_error", 0},
		{"anything else", nil, errors.New("s3cret"), "_OTHER", 0},
		{"neither token nor error", nil, nil, "invalid_token_response", 0},
		{"an empty token", &requestforge.Token{}, nil, "invalid_token_response", 0},
		{"an expired token", &requestforge.Token{AccessToken: "s3cret", Expiry: time.Unix(1, 0)}, nil, "invalid_token_response", 0},
		{"a token", &requestforge.Token{AccessToken: "s3cret"}, nil, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want != "" && tt.want != strconv.FormatInt(tt.status, 10) && !registered(tt.want) && !strings.Contains(words, "`"+tt.want+"`") {
				t.Errorf("README.md doesn't have %s among %s", tt.want, words)
			}
			m, tr := newMetrics(), newTracing()
			steps := newTelemetry(t, otelforge.Config{MeterProvider: m, TracerProvider: tr}).Steps([]requestforge.Step{{
				Name: "user",
				Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
					return tt.tok, tt.err
				}),
			}})
			if tok, err := steps[0].Fetcher.Fetch(t.Context(), requestforge.Input{}); tok != tt.tok || err != tt.err {
				t.Errorf("the fetcher returns %v, %v through Steps", tok, err)
			}
			points := durations(t, m, ours)
			if len(points) != 1 {
				t.Fatalf("%d sets of attributes, want 1", len(points))
			}
			span := tr.spans.Ended()[0]
			for where, attrs := range map[string][]attribute.KeyValue{
				"the histogram": points[0].Attributes.ToSlice(),
				"the span":      span.Attributes(),
			} {
				if got := attr(attrs, "error.type").AsString(); got != tt.want {
					t.Errorf("error.type of %s is %q, want %q", where, got, tt.want)
				}
				if got := attr(attrs, "http.response.status_code").AsInt64(); got != tt.status {
					t.Errorf("the status of %s is %d, want %d", where, got, tt.status)
				}
			}
			if failed := span.Status().Code.String() == "Error"; failed != (tt.want != "") {
				t.Errorf("the span's status is %v", span.Status())
			}
			if all := tr.everything() + fmt.Sprintf("%+v", points); strings.Contains(all, "s3cret") {
				t.Errorf("what the error or the token holds is recorded:\n%s", all)
			}
		})
	}
}

// registered reports whether the error says code, which is registered for OAuth
// then.
func registered(code string) bool {
	return requestforge.NewAuthError(nil, []byte(`{"error":"`+code+`"}`), nil).Code == code && code != ""
}

func TestCrashOfAFetcherIsRecordedAndPasses(t *testing.T) {
	for name, crash := range map[string]func(){
		"panic":  func() { panic("s3cret") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			m, tr := newMetrics(), newTracing()
			steps := newTelemetry(t, otelforge.Config{MeterProvider: m, TracerProvider: tr}).Steps([]requestforge.Step{{
				Name: "user",
				Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
					crash()
					return nil, nil
				}),
			}})
			var returned bool
			var recovered any
			var wg sync.WaitGroup
			wg.Go(func() {
				defer func() { recovered = recover() }()
				steps[0].Fetcher.Fetch(t.Context(), requestforge.Input{})
				returned = true
			})
			wg.Wait()
			if returned || (recovered != nil) != (name == "panic") {
				t.Errorf("returned %v, recovered %v", returned, recovered)
			}
			expectTree(t, tr, `
				requestforge.fetch user error.type=panic`)
			if points := durations(t, m, ours); attr(points[0].Attributes.ToSlice(), "error.type").AsString() != "panic" {
				t.Errorf("got %v, want error.type=panic", points[0].Attributes)
			}
		})
	}
}

// mistaken is somebody's own Fetcher, with mistakes that it knows of.
type mistaken struct{ requestforge.FetcherFunc }

func (mistaken) Validate() error { return errors.New("TokenURL: empty") }

// NewPipeline says of steps that are recorded what it says of the steps
// themselves.
func TestStepsLeaveMistakesToNewPipeline(t *testing.T) {
	good := requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) { return nil, nil })
	for name, steps := range map[string][]requestforge.Step{
		"HTTPFetcher":     {{Name: "user", Fetcher: &requestforge.HTTPFetcher{URL: "http://auth.example.com", TokenField: "a..b"}}},
		"empty":           {{Name: "user", Fetcher: &requestforge.HTTPFetcher{}}},
		"Refresh":         {{Name: "user", Fetcher: good, Refresh: &requestforge.HTTPFetcher{}}},
		"HeaderFrom":      {{Name: "user", Fetcher: &requestforge.HTTPFetcher{URL: "https://auth.example.com", HeaderFrom: map[string]string{"X-App": "app"}}}},
		"HeaderFrom 2":    {{Name: "user", Fetcher: &requestforge.HTTPFetcher{URL: "https://auth.example.com", TokenHeader: "X", HeaderFrom: map[string]string{"X-App": "app"}}}},
		"a fetcher's own": {{Name: "user", Fetcher: mistaken{}}},
		"no fetcher":      {{Name: "user"}},
		"nil HTTPFetcher": {{Name: "user", Fetcher: (*requestforge.HTTPFetcher)(nil)}},
		"nil FetcherFunc": {{Name: "user", Fetcher: requestforge.FetcherFunc(nil)}},
		"nil Refresh":     {{Name: "user", Fetcher: good, Refresh: (*requestforge.HTTPFetcher)(nil)}},
		"no steps":        nil,
	} {
		_, want := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: steps})
		_, got := requestforge.NewPipeline(requestforge.PipelineConfig{
			Steps: newTelemetry(t, otelforge.Config{MeterProvider: newMetrics()}).Steps(steps),
		})
		if want == nil || got == nil || got.Error() != want.Error() {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestStepsReturnsACopy(t *testing.T) {
	steps := []requestforge.Step{{Name: "user", Fetcher: &requestforge.HTTPFetcher{URL: "https://auth.example.com"}, TTL: time.Hour}}
	before := slices.Clone(steps)
	got := newTelemetry(t, otelforge.Config{MeterProvider: newMetrics()}).Steps(steps)
	if !reflect.DeepEqual(steps, before) {
		t.Error("the argument was changed")
	}
	if got[0].Name != "user" || got[0].TTL != time.Hour || got[0].Refresh != nil {
		t.Errorf("got %v", got[0])
	}
}

func TestRecordedFetchersPrintNoSecret(t *testing.T) {
	const secret = "s3cret"
	steps := newTelemetry(t, otelforge.Config{MeterProvider: newMetrics()}).Steps([]requestforge.Step{
		{Name: "body", Fetcher: &requestforge.HTTPFetcher{URL: "https://auth.example.com", JSON: map[string]string{"password": secret}}},
		{Name: "header", Fetcher: &requestforge.HTTPFetcher{URL: "https://auth.example.com", Header: http.Header{"X-Key": {secret}}}},
		{Name: "own", Fetcher: ownFetcher{Password: secret}},
	})
	var printed strings.Builder
	log := slog.New(slog.NewJSONHandler(&printed, nil))
	text := slog.New(slog.NewTextHandler(&printed, nil))
	values := []any{steps}
	for _, s := range steps {
		values = append(values, s, s.Fetcher)
	}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
		if err := json.NewEncoder(&printed).Encode(v); err != nil {
			t.Error(err)
		}
		log.Info("value", "v", v)
		text.Info("value", "v", v)
	}
	if strings.Contains(printed.String(), secret) {
		t.Errorf("the secret is printed:\n%s", printed.String())
	}
	if own := fmt.Sprint(steps[2].Fetcher); own != "otelforge_test.ownFetcher" {
		t.Errorf("a fetcher of the application's own prints %q, want its type", own)
	}
}

type ownFetcher struct{ Password string }

func (ownFetcher) Fetch(context.Context, requestforge.Input) (*requestforge.Token, error) {
	return nil, errors.New("no")
}

// Processes forget a failure that they share as soon as a secret changes: the
// pipeline sees what a fetcher sends through Steps.
func TestStepsShareFailuresUntilASecretChanges(t *testing.T) {
	shared := &sharedFailures{MemoryStorage: requestforge.NewMemoryStorage(), kept: map[string]requestforge.Failure{}}
	sim := authtest.NewSimulator(twoSteps)
	sim.Fail("app", authtest.Fault{Status: 400, Body: `{"error": "invalid_client"}`})
	ask := func(secret string) int {
		steps := sim.Steps()
		steps[0].Fetcher.(*requestforge.HTTPFetcher).ClientAuth.Secret = secret
		p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
			Steps:   newTelemetry(t, otelforge.Config{MeterProvider: newMetrics()}).Steps(steps),
			Storage: shared,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Token(t.Context()); err == nil {
			t.Fatal("got a token from a server that gives none")
		}
		return sim.Stats().Paths["/app"]
	}
	for i, tt := range []struct {
		secret string
		want   int
	}{{"wrong", 1}, {"wrong", 1}, {"wrong again", 2}} {
		if n := ask(tt.secret); n != tt.want {
			t.Errorf("process %d: the auth server was asked %d times in all, want %d", i+1, n, tt.want)
		}
	}
}

// sharedFailures is a FailureStorage.
type sharedFailures struct {
	*requestforge.MemoryStorage
	mu   sync.Mutex
	kept map[string]requestforge.Failure
}

func (s *sharedFailures) LoadFailure(_ context.Context, key string) (requestforge.Failure, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[key], nil
}

func (s *sharedFailures) SaveFailure(_ context.Context, key string, f requestforge.Failure) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[key] = f
	return nil
}

// The README has a row for each instrument, as the SDK sees it: name, kind,
// unit, attributes and description.
func TestReadmeListsTheInstruments(t *testing.T) {
	sim, m := authtest.NewSimulator(twoSteps), newMetrics()
	telemetry := newTelemetry(t, otelforge.Config{Pipeline: "shop", MeterProvider: m})
	tokens := pipeline(t, telemetry.Steps(sim.Steps()))
	if _, err := telemetry.Register(tokens); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	trace := telemetry.AuthTrace()
	get(t, t.Context(), &http.Client{Transport: traced(t, sim, tokens, trace)}, "/orders")
	sim.Revoke("user")
	get(t, t.Context(), &http.Client{Transport: traced(t, sim, tokens, trace)}, "/orders") // replayed
	sim.Fail("user", authtest.Fault{Status: 400})
	sim.Revoke("user")
	get(t, t.Context(), &http.Client{Transport: traced(t, sim, tokens, trace)}, "/orders") // given up
	tokens.Refresh(t.Context())                                                            // for the attributes of a failure

	var instruments []string
	all := map[string]bool{}
	for _, metric := range m.collect(t) {
		keys := map[string]bool{}
		note := func(set attribute.Set) {
			for _, kv := range set.ToSlice() {
				keys["`"+string(kv.Key)+"`"] = true
			}
		}
		kind := ""
		switch data := metric.Data.(type) {
		case metricdata.Sum[int64]:
			kind = "counter"
			if !data.IsMonotonic {
				kind = "up-down counter"
			}
			for _, p := range data.DataPoints {
				note(p.Attributes)
			}
		case metricdata.Gauge[float64]:
			kind = "gauge"
			for _, p := range data.DataPoints {
				note(p.Attributes)
			}
		case metricdata.Histogram[float64]:
			kind = "histogram"
			for _, p := range data.DataPoints {
				note(p.Attributes)
			}
		}
		maps.Copy(all, keys)
		instruments = append(instruments, fmt.Sprintf("| `%s` | %s | `%s` | %s | %s |", metric.Name, kind, metric.Unit,
			strings.Join(slices.Sorted(maps.Keys(keys)), ", "), metric.Description))
	}
	readme := read(t, "README.md")
	got := regexp.MustCompile("(?m)^\\| `[^`]*` \\| (counter|up-down counter|gauge|histogram) .*$").FindAllString(readme, -1)
	slices.Sort(instruments)
	slices.Sort(got)
	if !slices.Equal(got, instruments) {
		t.Errorf("README.md has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(instruments, "\n"))
	}
	_, tree, _ := strings.Cut(readme, "```text\n")
	tree, _, _ = strings.Cut(tree, "```")
	output := "\t// Output:\n\t// " + strings.ReplaceAll(strings.TrimSpace(tree), "\n", "\n\t// ") + "\n}\n"
	if !strings.Contains(read(t, "example_test.go"), output) {
		t.Errorf("README.md has a trace that is not the output of an example:\n%s", tree)
	}
	for key := range all {
		if !strings.Contains(readme, "\n| "+key+" | ") {
			t.Errorf("README.md doesn't say what the values of %s are", key)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A collection while fetches go on, for the race detector.
func TestCollectionAndFetchesDontDisturbEachOther(t *testing.T) {
	sim, m := authtest.NewSimulator(twoSteps), newMetrics()
	telemetry := newTelemetry(t, otelforge.Config{MeterProvider: m, TracerProvider: newTracing()})
	tokens := pipeline(t, telemetry.Steps(sim.Steps()))
	registration, err := telemetry.Register(tokens)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				tokens.Refresh(t.Context())
				m.collect(t)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(registration.Unregister(), m.Shutdown(t.Context())); err != nil {
		t.Error(err)
	}
}

// The buckets are those of http.client.request.duration in the semantic
// conventions.
func TestDurationHasTheBucketsOfTheConventions(t *testing.T) {
	sim, m := authtest.NewSimulator(twoSteps), newMetrics()
	steps := newTelemetry(t, otelforge.Config{MeterProvider: m}).Steps(sim.Steps())
	if _, err := pipeline(t, steps).Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	conventions := newMetrics()
	theirs, err := httpconv.NewClientRequestDuration(conventions.Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	theirs.Record(t.Context(), 1, httpconv.RequestMethodGet, "auth.example.com", 443)
	want := durations(t, conventions, "http.client.request.duration")[0].Bounds
	if got := durations(t, m, ours)[0].Bounds; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
