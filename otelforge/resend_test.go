package otelforge_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/otelforge"
)

// answers is a transport without a network: one of statuses for each request, in turn.
func answers(statuses ...int) http.RoundTripper {
	var n atomic.Int32
	return roundTrip(func(req *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		w.WriteHeader(statuses[min(int(n.Add(1)), len(statuses))-1])
		resp := w.Result()
		resp.Request = req
		return resp, nil
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// resends is the count of each span that has begun, "-" without one.
func resends(tr *tracing) string {
	var counts []string
	for _, s := range tr.spans.Started() {
		v := attr(s.Attributes(), "http.request.resend_count")
		if v.Type() == attribute.EMPTY {
			counts = append(counts, "-")
			continue
		}
		counts = append(counts, v.String())
	}
	return strings.Join(counts, " ")
}

// renewed is a source that has another token after each refusal.
type renewed struct{ n atomic.Int32 }

func (s *renewed) Token(context.Context) (*requestforge.Token, error) {
	return &requestforge.Token{AccessToken: fmt.Sprint("token", s.n.Load())}, nil
}

func (s *renewed) Invalidate(context.Context, *requestforge.Token) error {
	s.n.Add(1)
	return nil
}

func TestSpansBelowSayWhichSendTheyAre(t *testing.T) {
	retry := requestforge.RetryPolicy{RetryMax: 3, RetryWaitMin: time.Second, RetryWaitMax: time.Second}
	for name, tt := range map[string]struct {
		statuses []int
		foreign  bool // a layer that isn't ours between requestforge and otelhttp
		want     string
	}{
		"once":                 {[]int{200}, false, "-"},
		"retried":              {[]int{503, 503, 200}, false, "- 1 2"},
		"replayed":             {[]int{401, 200}, false, "- 1"},
		"retried and replayed": {[]int{503, 401, 200}, false, "- 1 2"},
		"replayed and retried": {[]int{401, 503, 200}, false, "- 1 2"},
		"below another layer":  {[]int{503, 401, 200}, true, "- 1 2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTracing()
				base := tr.http(otelforge.ResendCount(answers(tt.statuses...)))
				if tt.foreign {
					base = roundTrip(base.RoundTrip)
				}
				rt, err := requestforge.NewTransport(requestforge.Config{
					Base: base, BaseURL: "https://api.example.com", Source: &renewed{}, Retry: retry,
				})
				if err != nil {
					t.Fatal(err)
				}
				client := &http.Client{Transport: rt}
				for range 2 { // the second request begins anew
					if status := get(t, t.Context(), client, "/orders"); status != 200 {
						t.Errorf("got %d", status)
					}
				}
				if got, want := resends(tr), tt.want+" -"; got != want {
					t.Errorf("the counts are %s, want %s", got, want)
				}
			})
		})
	}
}

// A fetch that a retry sets off is no resend of that request.
func TestFetchDuringAResendIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracing()
		src := &asks{client: &http.Client{Transport: tr.http(otelforge.ResendCount(answers(200)))}}
		rt, err := requestforge.NewTransport(requestforge.Config{
			Base:    tr.http(otelforge.ResendCount(answers(503, 200))),
			BaseURL: "https://api.example.com",
			Source:  pipeline(t, []requestforge.Step{{Name: "user", TTL: time.Nanosecond, Fetcher: requestforge.FetcherFunc(src.fetch)}}),
			Retry:   requestforge.RetryPolicy{RetryMax: 1, RetryWaitMin: time.Second, RetryWaitMax: time.Second},
		})
		if err != nil {
			t.Fatal(err)
		}
		get(t, t.Context(), &http.Client{Transport: rt}, "/orders")
		if got := resends(tr); got != "- - - 1" {
			t.Errorf("the counts are %s, want - - - 1", got)
		}
	})
}

// Above requestforge there is one span for all sends; and a span that isn't a
// client's isn't one of a send.
func TestSpansThatAreNoSendsHaveNoCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracing()
		base := otelhttp.NewTransport(otelforge.ResendCount(answers(503, 200)),
			otelhttp.WithTracerProvider(tr), otelhttp.WithFilter(func(*http.Request) bool { return false }))
		rt, err := requestforge.NewTransport(requestforge.Config{
			Base: base, Retry: requestforge.RetryPolicy{RetryMax: 1, RetryWaitMin: time.Second, RetryWaitMax: time.Second},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, job := tr.begin(t.Context(), "job")
		get(t, ctx, &http.Client{Transport: rt}, "https://api.example.com/orders")
		job.End()
		if got := resends(tr); got != "-" {
			t.Errorf("the counts are %s, want -", got)
		}
	})
}

// Whoever has no SDK, or samples a trace out, has no span to note anything on.
func TestResendCountWithoutASpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, err := requestforge.NewTransport(requestforge.Config{
			Base:  otelforge.ResendCount(answers(503, 200)),
			Retry: requestforge.RetryPolicy{RetryMax: 1, RetryWaitMin: time.Second, RetryWaitMax: time.Second},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx := trace.ContextWithRemoteSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}}))
		if status := get(t, ctx, &http.Client{Transport: rt}, "https://api.example.com/orders"); status != 200 {
			t.Errorf("got %d", status)
		}
	})
}

func TestResendCountIsALayerLikeOthers(t *testing.T) {
	idle := 0
	base := &closes{answers(200), &idle}
	rt := otelforge.ResendCount(base)
	(&http.Client{Transport: rt}).CloseIdleConnections()
	if idle != 1 {
		t.Error("CloseIdleConnections doesn't reach the transport below")
	}
	if got := rt.(interface{ Unwrap() http.RoundTripper }).Unwrap(); got != base {
		t.Errorf("Unwrap returns %v", got)
	}
	before := http.DefaultTransport
	defer func() { http.DefaultTransport = before }()
	http.DefaultTransport = answers(204)
	if status := get(t, t.Context(), &http.Client{Transport: otelforge.ResendCount(nil)}, "https://api.example.com/"); status != 204 {
		t.Errorf("without a base: got %d", status)
	}
}

type closes struct {
	http.RoundTripper
	n *int
}

func (c *closes) CloseIdleConnections() { *c.n++ }

// asks is a step whose tokens each take a request.
type asks struct{ client *http.Client }

func (a *asks) fetch(ctx context.Context, _ requestforge.Input) (*requestforge.Token, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", "https://auth.example.com/", nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	return &requestforge.Token{AccessToken: "t"}, nil
}
