package otelforge_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/otelforge"
)

type userKey struct{}

func userOf(ctx context.Context) (string, error) {
	user, _ := ctx.Value(userKey{}).(string)
	return user, nil
}

// perSubject is a login of a shared step and one of each subject's. fetch is asked for
// both.
func perSubject(t *testing.T, telemetry *otelforge.Telemetry, fetch func(ctx context.Context, step string) error) *requestforge.Pipeline {
	t.Helper()
	fetcher := func(step string) requestforge.Fetcher {
		return requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
			if err := fetch(ctx, step); err != nil {
				return nil, err
			}
			return &requestforge.Token{AccessToken: "t-" + in.Subject}, nil
		})
	}
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: telemetry.Steps([]requestforge.Step{
			{Name: "app", Fetcher: fetcher("app")},
			{Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: fetcher("user")},
		}),
		Subject: userOf,
		Carry:   otelforge.Carry,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The shared fetch is in the caller's trace, and knows nothing else of the caller.
func TestCarryTakesTheSpanContextAndNothingElse(t *testing.T) {
	tr := newTracing()
	ctx, job := tr.begin(context.WithValue(t.Context(), userKey{}, "ann@example.com"), "job")
	job.SetAttributes(attribute.String("enduser.id", "ann@example.com"))
	member, err := baggage.NewMember("user", "ann")
	if err != nil {
		t.Fatal(err)
	}
	bag, err := baggage.New(member)
	if err != nil {
		t.Fatal(err)
	}
	ctx = baggage.ContextWithBaggage(ctx, bag)

	fetch := func(ctx context.Context, step string) error {
		if step != "app" {
			return nil
		}
		if user := ctx.Value(userKey{}); user != nil {
			t.Errorf("the shared fetch sees the user %v", user)
		}
		if n := baggage.FromContext(ctx).Len(); n > 0 {
			t.Errorf("the shared fetch sees %d members of the caller's baggage", n)
		}
		return nil
	}
	p := perSubject(t, newTelemetry(t, otelforge.Config{}), fetch)
	if _, err := p.Token(ctx); err != nil {
		t.Fatal(err)
	}
	job.End()
	expectTree(t, tr, `
		job
		  requestforge.fetch app
		  requestforge.fetch user
	`)
}

// Carry by itself: what it returns, and what can be done with that.
func TestCarry(t *testing.T) {
	tr := newTracing()
	key := "kept"
	to := context.WithValue(t.Context(), userKey{}, key)
	if got := otelforge.Carry(t.Context(), to); got != to {
		t.Error("without a span there is something to carry")
	}

	from, job := tr.begin(context.WithValue(t.Context(), userKey{}, "ann"), "job")
	got := otelforge.Carry(from, to)
	if user := got.Value(userKey{}); user != key {
		t.Errorf("the value is %v, want that of to", user)
	}
	span := trace.SpanFromContext(got)
	if !span.SpanContext().Equal(job.SpanContext()) {
		t.Errorf("got %v, want %v", span.SpanContext(), job.SpanContext())
	}
	if span == job || span.IsRecording() {
		t.Error("the caller's span itself got over")
	}
	span.SetAttributes(attribute.String("k", "v"))
	span.SetName("another")
	span.End()
	_, child := span.TracerProvider().Tracer("test").Start(got, "child")
	child.End()
	job.End()
	expectTree(t, tr, `
		job
		  child
	`)
	if all := tr.everything(); strings.Contains(all, "k=v") {
		t.Errorf("the caller's span was changed: %s", all)
	}

	remote := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, Remote: true})
	if got := trace.SpanContextFromContext(otelforge.Carry(trace.ContextWithSpanContext(t.Context(), remote), to)); !got.Equal(remote) {
		t.Errorf("got %+v, want %+v: a remote span stays one", got, remote)
	}
}

// Whatever happens, no subject is in an attribute, a name or a text of a span, or in a
// metric.
func TestNoSubjectIsInASpanOrMetric(t *testing.T) {
	tr, m := newTracing(), newMetrics()
	telemetry := newTelemetry(t, otelforge.Config{Pipeline: "shop", MeterProvider: m, TracerProvider: tr})
	failing := false
	p := perSubject(t, telemetry, func(ctx context.Context, step string) error {
		if failing && step == "user" {
			user, _ := userOf(ctx)
			return errors.New("no such user: " + user)
		}
		return nil
	})
	if _, err := telemetry.Register(p); err != nil {
		t.Fatal(err)
	}
	users := []string{"ann@example.com", "bob@example.com", requestforge.SubjectID("issuer.example.com", "eve")}
	for _, failing = range []bool{false, true} {
		for _, user := range users {
			ctx, job := tr.begin(context.WithValue(t.Context(), userKey{}, user), "job")
			if tok, err := p.Token(ctx); err != nil {
				t.Fatal(err)
			} else {
				p.Invalidate(ctx, tok)
			}
			if _, err := p.Refresh(ctx); (err != nil) != failing {
				t.Fatalf("failing %v: %v", failing, err)
			}
			if err := p.Forget(ctx); err != nil {
				t.Fatal(err)
			}
			if !failing {
				if _, err := p.Token(ctx); err != nil {
					t.Fatal(err)
				}
			}
			job.End()
		}
	}

	got := m.collect(t)
	metrics := fmt.Sprintf("%+v", got)
	for _, part := range append(users, "@example", "issuer.example", "eve", "ann", "bob") {
		if all := tr.everything(); strings.Contains(all, part) {
			t.Errorf("%q is in a span: %s", part, all)
		}
		if strings.Contains(metrics, part) {
			t.Errorf("%q is in a metric: %s", part, metrics)
		}
	}
	shop := attribute.String("requestforge.pipeline", "shop")
	if n := count(got["requestforge.subject.count"], shop); n != 3 {
		t.Errorf("%d subjects, want 3", n)
	}
	if n := count(got["requestforge.fetch.sent"], shop, attribute.String("requestforge.step", "app")); n != 1 {
		t.Errorf("%d fetches of the shared step, want 1: %s", n, metrics)
	}
}
