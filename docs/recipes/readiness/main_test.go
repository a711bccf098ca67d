package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

func Example() {
	main()
	// Output:
	// at the start: 200
	// a request whose token was revoked: 200 OK
	// the auth server is down, and the token lives: 200
	// the token is revoked, too: 401 Unauthorized
	// the next probe: 503
	// the auth server is back: 200
}

// get asks the service for a page.
func get(service http.Handler, path string) (int, string) {
	w := httptest.NewRecorder()
	service.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Body.String()
}

// A probe a second for an hour, in which the auth server is down: the auth server is asked
// no more often than the cool-downs allow.
func TestProbesSpareTheAuthServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(simulated)
		tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: sim.Steps()})
		if err != nil {
			t.Fatal(err)
		}
		defer tokens.Close()
		service := routes(tokens)
		sim.Down(true)
		for range 3600 {
			if code, text := get(service, "/readyz"); code != http.StatusServiceUnavailable || strings.Contains(text, "made-up") {
				t.Fatalf("got %d, %q", code, text)
			}
			time.Sleep(time.Second)
		}
		if n := sim.Stats().Steps["app"].Fetches.Attempted; n < 100 || n > 400 { // three tries, then 30 s of nothing
			t.Errorf("%d requests to the auth server", n)
		}
		sim.Down(false)
		time.Sleep(30 * time.Second)
		if code, text := get(service, "/readyz"); code != http.StatusOK || text != "ready\n" {
			t.Errorf("the auth server is back: got %d, %q", code, text)
		}
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(simulated)
		tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: sim.Steps()})
		if err != nil {
			t.Fatal(err)
		}
		defer tokens.Close()
		service := routes(tokens)
		get(service, "/readyz")
		_, got := get(service, "/metrics")
		want := `token_fetches_total{step="app"} 1
token_failures_total{step="app"} 0
token_expiry_timestamp_seconds{step="app"} 946688400
token_fetches_total{step="user"} 1
token_failures_total{step="user"} 0
token_expiry_timestamp_seconds{step="user"} 946685700
token_invalidations_total 0
token_storage_errors_total 0
`
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if _, got = get(service, "/statusz"); !strings.HasPrefix(got, `"app" live, expires 2000-01-01T01:00:00Z`) {
			t.Errorf("got %s", got)
		}
	})
}
