package otelforge_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/otelforge"
)

// Everything at once: metrics of the pipeline, a span for each request of the
// application, each fetch of a token and each send. The second request meets a
// token that was revoked.
func Example() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	steps := srv.Steps()
	metrics, traces := newMetrics(), newTracing() // providers of the SDK

	// Below: a span for each send, to the API and to the auth server, with its number.
	sends := otelhttp.NewTransport(otelforge.ResendCount(http.DefaultTransport))
	for _, step := range steps {
		step.Fetcher.(*requestforge.HTTPFetcher).Client = &http.Client{Transport: sends}
	}

	telemetry, err := otelforge.New(otelforge.Config{
		Pipeline:      "shop",
		MeterProvider: metrics, // without it, the global one
	})
	if err != nil {
		log.Fatal(err)
	}
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps: telemetry.Steps(steps), // a span and a duration for each fetch
	})
	if err != nil {
		log.Fatal(err)
	}
	registration, err := telemetry.Register(tokens) // the counters
	if err != nil {
		log.Fatal(err)
	}
	defer registration.Unregister()
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:      sends,
		BaseURL:   srv.URL,
		Source:    tokens,
		AuthTrace: telemetry.AuthTrace(), // refusals and replays
	})
	if err != nil {
		log.Fatal(err)
	}

	// Above: a span for each request of the application.
	client := &http.Client{Transport: otelhttp.NewTransport(transport)}

	ctx, job := traces.begin(context.Background(), "job")
	ask(ctx, client, "/orders")
	srv.Revoke("user")
	ask(ctx, client, "/orders")
	job.End()
	fmt.Print(traces.tree())
	// Output:
	// job
	//   HTTP GET /orders 200
	//     requestforge.fetch app
	//       HTTP POST /app 200
	//     requestforge.fetch user
	//       HTTP POST /user 200
	//     HTTP GET /orders 200
	//   HTTP GET /orders 200
	//     HTTP GET /orders 401 error.type=401
	//     requestforge.fetch user
	//       HTTP POST /user 200
	//     HTTP GET /orders 200 resend_count=1
}

// otelhttp above requestforge: one span a request, whatever it takes.
func Example_otelhttpAbove() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: srv.URL, Source: tokens})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: otelhttp.NewTransport(transport)}

	traces := newTracing()
	ctx, job := traces.begin(context.Background(), "job")
	ask(ctx, client, "/orders")
	srv.Revoke("user")
	ask(ctx, client, "/orders")
	job.End()
	fmt.Print(traces.tree())
	// Output:
	// job
	//   HTTP GET /orders 200
	//   HTTP GET /orders 200
}

// otelhttp below requestforge: one span a send, the refused one and those for
// tokens included.
func Example_otelhttpBelow() {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	sends := otelhttp.NewTransport(http.DefaultTransport)
	steps := srv.Steps()
	for _, step := range steps {
		step.Fetcher.(*requestforge.HTTPFetcher).Client = &http.Client{Transport: sends}
	}
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: steps})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{Base: sends, BaseURL: srv.URL, Source: tokens})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport}

	traces := newTracing()
	ctx, job := traces.begin(context.Background(), "job")
	ask(ctx, client, "/orders")
	srv.Revoke("user")
	ask(ctx, client, "/orders")
	job.End()
	fmt.Print(traces.tree())
	// Output:
	// job
	//   HTTP POST /app 200
	//   HTTP POST /user 200
	//   HTTP GET /orders 200
	//   HTTP GET /orders 401 error.type=401
	//   HTTP POST /user 200
	//   HTTP GET /orders 200
}

func ask(ctx context.Context, client *http.Client, path string) {
	req, err := http.NewRequestWithContext(ctx, "GET", path, nil)
	if err != nil {
		log.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		log.Fatal(err)
	}
}
