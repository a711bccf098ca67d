package otelforge_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/otelforge"
)

// traced is a transport to the API of sim with an AuthTrace.
func traced(t *testing.T, sim *authtest.Simulator, tokens requestforge.TokenSource, trace *requestforge.AuthTrace) http.RoundTripper {
	t.Helper()
	rt, err := requestforge.NewTransport(requestforge.Config{Base: sim.Transport(), BaseURL: sim.URL, Source: tokens, AuthTrace: trace})
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// A token is revoked, then the login fails: what the auth layer did is counted, with
// reasons, and nothing of a request is in an attribute.
func TestAuthTraceCountsRefusalsReplaysAndWhatWasGivenUp(t *testing.T) {
	sim, m := authtest.NewSimulator(twoSteps), newMetrics()
	telemetry := newTelemetry(t, otelforge.Config{Pipeline: "shop", MeterProvider: m})
	rt := traced(t, sim, pipeline(t, sim.Steps()), telemetry.AuthTrace())
	ask := func(want int) {
		t.Helper()
		if got := get(t, t.Context(), &http.Client{Transport: rt}, "/orders?key=hunter2"); got != want {
			t.Fatalf("status %d, want %d", got, want)
		}
	}
	ask(200)
	sim.Revoke("user")
	ask(200)
	sim.Revoke("user")
	sim.Fail("user", authtest.Fault{Status: 400})
	ask(401)

	shop := attribute.String("requestforge.pipeline", "shop")
	got := m.collect(t)
	for _, tt := range []struct {
		name string
		attr attribute.KeyValue
		want int64
	}{
		{"requestforge.token.refused", attribute.Int("http.response.status_code", 401), 2},
		{"requestforge.request.replayed", attribute.String("requestforge.replay.reason", "token refused"), 1},
		{"requestforge.request.gave_up", attribute.String("requestforge.gave_up.reason", "no token"), 1},
	} {
		if n := count(got[tt.name], shop, tt.attr); n != tt.want {
			t.Errorf("%s is %d, want %d: %+v", tt.name, n, tt.want, got[tt.name].Data)
		}
	}
	if all := fmt.Sprint(got); strings.Contains(all, "hunter2") || strings.Contains(all, "orders") {
		t.Errorf("something of a request is in a metric: %s", all)
	}
}

// The gauge counts down, goes below zero, and has no value without a token.
func TestGaugeOfTheTimeToExpiryCountsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics()
		p := pipeline(t, []requestforge.Step{
			{Name: "app", Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
				return &requestforge.Token{AccessToken: "for ever"}, nil
			})},
			{Name: "user", DependsOn: []string{"app"}, TTL: time.Hour, Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
				return &requestforge.Token{AccessToken: "t"}, nil
			})},
		})
		if _, err := newTelemetry(t, otelforge.Config{MeterProvider: m}).Register(p); err != nil {
			t.Fatal(err)
		}
		expiry := func() map[string]float64 {
			values := map[string]float64{}
			gauge, _ := m.collect(t)["requestforge.token.time_to_expiry"].Data.(metricdata.Gauge[float64])
			for _, p := range gauge.DataPoints {
				step, _ := p.Attributes.Value("requestforge.step")
				values[step.AsString()] = p.Value
			}
			return values
		}
		check := func(want string) {
			t.Helper()
			if got := fmt.Sprint(expiry()); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		check("map[]")
		if _, err := p.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		check("map[user:3600]")
		time.Sleep(50 * time.Minute)
		check("map[user:600]")
		time.Sleep(20 * time.Minute)
		check("map[user:-600]")
	})
}
