// Readiness and metrics of a service that logs in: what a platform's probes ask for, and
// what its monitoring reads.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/requestforge/requestforge"
)

// ready is for the readiness probe: is there a token for the next request? A live token costs
// nothing, the first probe logs in, and while a failed step cools down a probe gets the
// remembered failure, so that probes ask the auth server no more often than requests do.
// The liveness probe asks for no token: a restart mends no auth server.
func ready(tokens *requestforge.Pipeline) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, err := tokens.Token(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable) // no secret is in it
			return
		}
		fmt.Fprintln(w, "ready")
	}
}

// status is for people.
func status(tokens *requestforge.Pipeline) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, tokens.State(r.Context())) }
}

// metrics are in the text format of Prometheus. OpenTelemetry's are module otelforge's.
func metrics(tokens *requestforge.Pipeline) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		stats := tokens.Stats()
		for _, step := range tokens.State(r.Context()).Steps {
			n := stats.Steps[step.Name]
			fmt.Fprintf(w, "token_fetches_total{step=%q} %d\n", step.Name, n.Fetches)
			fmt.Fprintf(w, "token_failures_total{step=%q} %d\n", step.Name, n.Failures)
			if !step.Expiry.IsZero() {
				fmt.Fprintf(w, "token_expiry_timestamp_seconds{step=%q} %d\n", step.Name, step.Expiry.Unix())
			}
		}
		fmt.Fprintf(w, "token_invalidations_total %d\n", stats.Invalidations)
		fmt.Fprintf(w, "token_storage_errors_total %d\n", stats.StorageErrors)
	}
}

func routes(tokens *requestforge.Pipeline) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", ready(tokens))
	mux.HandleFunc("/statusz", status(tokens)) // for the company's own network
	mux.HandleFunc("/metrics", metrics(tokens))
	return mux
}

func main() {
	srv := newServer()
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: srv.URL, Source: tokens})
	if err != nil {
		log.Fatal(err)
	}
	client, service := &http.Client{Transport: transport}, routes(tokens)
	probe := func(when string) {
		w := httptest.NewRecorder()
		service.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		fmt.Println(when+":", w.Code)
	}

	call := func(when string) {
		resp, err := client.Get("/orders")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(when+":", resp.Status)
	}

	probe("at the start")
	srv.Revoke("user")
	call("a request whose token was revoked")
	srv.Down(true)
	probe("the auth server is down, and the token lives")
	srv.Revoke("user")
	call("the token is revoked, too")
	probe("the next probe")
	srv.Down(false)
	if _, err := tokens.Refresh(context.Background()); err != nil { // or a second later, by itself
		log.Fatal(err)
	}
	probe("the auth server is back")
}
