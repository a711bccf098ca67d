// otelhttp above requestforge, below, and both: which span is whose child, what
// the servers are told of it, and what a span must not hold.

package otelforge_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/otelforge"
)

// placement is where otelhttp is, and whether Steps is used.
type placement struct {
	name         string
	above, below bool
	steps        bool
}

var placements = []placement{
	{"above", true, false, false},
	{"below", false, true, false},
	{"above and below", true, true, false},
	{"steps alone", false, false, true},
	{"below, with steps", false, true, true},
	{"above and below, with steps", true, true, true},
}

// client returns a client of sim in which otelhttp is where p says.
func (p placement) client(t *testing.T, tr *tracing, sim *authtest.Simulator, base http.RoundTripper) *http.Client {
	t.Helper()
	if p.below {
		base = tr.http(base)
	}
	steps := through(base, sim.Steps())
	if p.steps {
		telemetry, err := otelforge.New(otelforge.Config{MeterProvider: newMetrics(), TracerProvider: tr})
		if err != nil {
			t.Fatal(err)
		}
		steps = telemetry.Steps(steps)
	}
	var rt http.RoundTripper = transport(t, sim, base, pipeline(t, steps))
	if p.above {
		rt = tr.http(rt)
	}
	return &http.Client{Transport: rt}
}

// The first request logs in with two dependent calls; then the user token is
// revoked, and the second request is refused, fetches a new one and is
// replayed. All of it is in the caller's trace.
func TestOneTraceShowsRequestFetchesRefusalAndReplay(t *testing.T) {
	want := map[string]string{
		"above": `
			job
			  HTTP GET /orders 200
			  HTTP GET /orders 200`,
		"below": `
			job
			  HTTP POST /app 200
			  HTTP POST /user 200
			  HTTP GET /orders 200
			  HTTP GET /orders 401 error.type=401
			  HTTP POST /user 200
			  HTTP GET /orders 200`,
		"above and below": `
			job
			  HTTP GET /orders 200
			    HTTP POST /app 200
			    HTTP POST /user 200
			    HTTP GET /orders 200
			  HTTP GET /orders 200
			    HTTP GET /orders 401 error.type=401
			    HTTP POST /user 200
			    HTTP GET /orders 200`,
		"steps alone": `
			job
			  requestforge.fetch app
			  requestforge.fetch user
			  requestforge.fetch user`,
		"below, with steps": `
			job
			  requestforge.fetch app
			    HTTP POST /app 200
			  requestforge.fetch user
			    HTTP POST /user 200
			  HTTP GET /orders 200
			  HTTP GET /orders 401 error.type=401
			  requestforge.fetch user
			    HTTP POST /user 200
			  HTTP GET /orders 200`,
		"above and below, with steps": `
			job
			  HTTP GET /orders 200
			    requestforge.fetch app
			      HTTP POST /app 200
			    requestforge.fetch user
			      HTTP POST /user 200
			    HTTP GET /orders 200
			  HTTP GET /orders 200
			    HTTP GET /orders 401 error.type=401
			    requestforge.fetch user
			      HTTP POST /user 200
			    HTTP GET /orders 200`,
	}
	for _, p := range placements {
		t.Run(p.name, func(t *testing.T) {
			var seen arrivals
			sim := authtest.NewSimulator(twoSteps)
			listen(t, sim, seen.wrap)
			tr := newTracing()
			client := p.client(t, tr, sim, nil)

			ctx, job := tr.begin(t.Context(), "job")
			for range 2 {
				if status := get(t, ctx, client, "/orders"); status != 200 {
					t.Errorf("got %d", status)
				}
				sim.Revoke("user")
			}
			job.End()

			expectTree(t, tr, want[p.name])
			for _, s := range tr.spans.Started() {
				if s.SpanContext().TraceID() != job.SpanContext().TraceID() {
					t.Errorf("%s is in a trace of its own", s.Name())
				}
			}
			checkPropagation(t, p, tr, seen.list)
			checkNoSecrets(t, tr, seen.list)
		})
	}
}

// checkPropagation compares what arrived with the spans of HTTP: the header
// that a request carried names the span nearest above it.
func checkPropagation(t *testing.T, p placement, tr *tracing, seen []arrival) {
	t.Helper()
	if len(seen) != 6 {
		t.Fatalf("%d requests arrived, want 6", len(seen))
	}
	carried := map[string]bool{} // "path traceparent"
	for _, s := range tr.spans.Started() {
		if s.SpanKind() == trace.SpanKindClient {
			u, err := url.Parse(attr(s.Attributes(), "url.full").AsString())
			if err != nil {
				t.Fatal(err)
			}
			carried[u.Path+" 00-"+s.SpanContext().TraceID().String()+"-"+s.SpanContext().SpanID().String()+"-01"] = true
		}
	}
	told := map[string]bool{}
	for _, a := range seen {
		switch {
		case !p.below && (!p.above || a.path != "/orders"):
			if len(a.traceparent) > 0 {
				t.Errorf("%s carried %q without otelhttp", a.path, a.traceparent)
			}
		case len(a.traceparent) != 1 || !carried[a.path+" "+a.traceparent[0]]:
			t.Errorf("%s carried %q, none of its spans", a.path, a.traceparent)
		default:
			told[a.traceparent[0]] = true
		}
	}
	if p.below && len(told) != len(seen) {
		t.Errorf("%d requests carried %d spans", len(seen), len(told))
	}
	if p.above && !p.below && len(told) != 2 {
		t.Errorf("three sends for two requests carried %d spans, want 2: a replay has the header of its request", len(told))
	}
}

// checkNoSecrets looks for everything that a header carried, and for what came
// in a body.
func checkNoSecrets(t *testing.T, tr *tracing, seen []arrival) {
	t.Helper()
	all, secrets := tr.everything(), []string{clientSecret}
	for _, a := range seen {
		secrets = append(secrets, a.secrets...)
	}
	if len(secrets) < 6 {
		t.Fatalf("%d secrets were seen, too few to be looked for", len(secrets))
	}
	for _, s := range secrets {
		if strings.Contains(all, s) {
			t.Errorf("a secret is in the spans")
		}
	}
}

// Whoever waits for a fetch that another caller set off has no span of it; nor
// does it belong to that caller, who may leave.
func TestFetchIsInTheTraceOfWhoSetItOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(twoSteps)
		tr := newTracing()
		client := placement{below: true, steps: true}.client(t, tr, sim, sim.Transport())
		sim.Fail("user", authtest.Fault{Delay: time.Second})

		firstCtx, first := tr.begin(t.Context(), "first")
		hasty, leave := context.WithCancel(firstCtx)
		gone := make(chan error)
		go func() {
			req, _ := http.NewRequestWithContext(hasty, "GET", "/orders", nil)
			_, err := client.Do(req)
			first.End()
			gone <- err
		}()
		synctest.Wait() // until the auth server has the request
		secondCtx, second := tr.begin(t.Context(), "second")
		answered := make(chan int)
		go func() {
			defer second.End()
			answered <- get(t, secondCtx, client, "/invoices")
		}()
		synctest.Wait()
		leave()
		if err := <-gone; err == nil {
			t.Error("the first caller left and got an answer")
		}
		if status := <-answered; status != 200 {
			t.Errorf("got %d", status)
		}
		synctest.Wait()

		expectTree(t, tr, `
			first
			  requestforge.fetch app
			    HTTP POST /app 200
			  requestforge.fetch user
			    HTTP POST /user 200
			second
			  HTTP GET /invoices 200`)
	})
}

// A renewal in the background is in the trace of the request that set it off,
// which doesn't wait for it: the span outlives its parent.
func TestRenewalOutlivesTheSpanThatSetItOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(twoSteps)
		tr := newTracing()
		client := placement{above: true, below: true, steps: true}.client(t, tr, sim, sim.Transport())
		if status := get(t, t.Context(), client, "/orders"); status != 200 {
			t.Fatalf("got %d", status)
		}
		time.Sleep(29 * time.Minute) // of the 30 that a token lives
		sim.Fail("user", authtest.Fault{Delay: time.Second})
		before := len(tr.spans.Started())

		ctx, job := tr.begin(t.Context(), "job")
		begun := time.Now()
		if status := get(t, ctx, client, "/orders"); status != 200 || time.Since(begun) > 0 {
			t.Errorf("got %d after %v, want 200 at once", status, time.Since(begun))
		}
		job.End()
		time.Sleep(2 * time.Second)

		var request, renewal sdktrace.ReadOnlySpan
		for _, s := range tr.spans.Started()[before:] {
			switch {
			case s.Parent().SpanID() == job.SpanContext().SpanID():
				request = s
			case s.Name() == "requestforge.fetch user":
				renewal = s
			}
		}
		if request == nil || renewal == nil || renewal.Parent().SpanID() != request.SpanContext().SpanID() {
			t.Fatalf("the spans are\n%s\nwant a fetch of user below the request of job", tr.tree())
		}
		if late := renewal.EndTime().Sub(request.EndTime()); late != time.Second {
			t.Errorf("the renewal ended %v after the request, want 1 s", late)
		}
	})
}

// A body arrives whole at each send, whether or not net/http can get it again,
// and the caller's own is closed once.
func TestBodiesAreReplayedThroughOtelhttp(t *testing.T) {
	const order = "two coffees, please"
	for _, p := range placements {
		for _, rewindable := range []bool{true, false} {
			name := p.name + ", one-shot"
			if rewindable {
				name = p.name + ", with GetBody"
			}
			t.Run(name, func(t *testing.T) {
				var seen arrivals
				sim := authtest.NewSimulator(twoSteps)
				listen(t, sim, seen.wrap)
				client := p.client(t, newTracing(), sim, nil)
				get(t, t.Context(), client, "/orders")
				sim.Revoke("user")
				seen.list = nil

				body := &closeCounter{Reader: strings.NewReader(order)}
				req, err := http.NewRequestWithContext(t.Context(), "POST", sim.URL+"/orders", body)
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = int64(len(order))
				if rewindable {
					req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(order)), nil }
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				var echo authtest.Echo
				if err := json.NewDecoder(resp.Body).Decode(&echo); err != nil {
					t.Fatal(err)
				}
				if echo.BodyBytes != int64(len(order)) || echo.Token != "user-2" || len(seen.list) != 3 {
					t.Errorf("%d bytes arrived with %s after %d requests, want %d with user-2 after 3", echo.BodyBytes, echo.Token, len(seen.list), len(order))
				}
				if n := body.closed.Load(); n != 1 {
					t.Errorf("the body was closed %d times", n)
				}
			})
		}
	}
}

type closeCounter struct {
	io.Reader
	closed atomic.Int32
}

func (c *closeCounter) Close() error { c.closed.Add(1); return nil }

// Wherever otelhttp is, the caller's request stays as it was, and no token
// leaves with the response.
func TestCallersRequestStaysAsItWasAroundOtelhttp(t *testing.T) {
	for _, p := range placements {
		t.Run(p.name, func(t *testing.T) {
			sim := authtest.NewSimulator(twoSteps)
			client := p.client(t, newTracing(), sim, sim.Transport())
			req, err := http.NewRequestWithContext(t.Context(), "GET", sim.URL+"/orders", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if len(req.Header) > 0 {
				t.Errorf("the caller's request has a header: %v", req.Header)
			}
			if resp.Request.URL.String() != req.URL.String() || resp.Request.Header.Get("Authorization") != "" {
				t.Errorf("the response's request goes to %v, or has the token", resp.Request.URL)
			}
			// otelhttp above sends a copy, which then is what the
			// response is for.
			if _, copied := resp.Request.Header["Traceparent"]; copied != p.above {
				t.Errorf("the response's request has a traceparent: %v, want %v", copied, p.above)
			}
		})
	}
}

// A token doesn't follow a redirect to another origin, and doesn't come back,
// although the requests in the chain of responses are otelhttp's copies.
func TestRedirectsTakeTheTokenNowhereElseThroughOtelhttp(t *testing.T) {
	for _, p := range placements {
		t.Run(p.name, func(t *testing.T) {
			var home string
			abroad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "" {
					t.Error("the token went to another origin")
				}
				http.Redirect(w, r, home+"/back", http.StatusFound)
			}))
			defer abroad.Close()
			conf := twoSteps
			conf.API.Open = []string{"/back"}
			conf.API.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/leave":
					http.Redirect(w, r, abroad.URL, http.StatusFound)
				case "/back":
					if r.Header.Get("Authorization") != "" {
						t.Error("the token came back from another origin")
					}
				}
			})
			sim := authtest.NewSimulator(conf)
			listen(t, sim, func(h http.Handler) http.Handler { return h })
			home = sim.URL
			client := p.client(t, newTracing(), sim, nil)
			if status := get(t, t.Context(), client, sim.URL+"/leave"); status != 200 {
				t.Errorf("got %d", status)
			}
		})
	}
}

// otelhttp above puts the text of an error into its span. That of an AuthError
// is made for it.
func TestFailedLoginLeavesNoSecretInASpan(t *testing.T) {
	for _, p := range placements {
		t.Run(p.name, func(t *testing.T) {
			sim := authtest.NewSimulator(twoSteps)
			tr := newTracing()
			client := p.client(t, tr, sim, sim.Transport())
			sim.Fail("user", authtest.Fault{Status: 400, Body: `{"error": "invalid_grant", "error_description": "s3cret"}`})
			resp, err := client.Get("/orders")
			if err == nil {
				resp.Body.Close()
				t.Fatalf("got %s without a login", resp.Status)
			}
			all := tr.everything()
			if all == "" {
				t.Error("there are no spans")
			}
			for _, secret := range []string{"s3cret", clientSecret, "app-1-"} {
				if strings.Contains(all, secret) {
					t.Errorf("%q is in a span:\n%s", secret, all)
				}
			}
			if p.steps && !strings.Contains(tr.tree(), "requestforge.fetch user 400 error.type=invalid_grant\n") {
				t.Errorf("the spans are\n%s\nwant invalid_grant at the fetch of user", tr.tree())
			}
		})
	}
}

// What the README says one has to know of otelhttp. Where this fails, a newer
// one has become better.
func TestWhatTheReadmeSaysOfOtelhttp(t *testing.T) {
	var rt http.RoundTripper = otelhttp.NewTransport(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return nil, err
		}
		if got := req.Trailer.Get("Checksum"); got != "" {
			t.Errorf("otelhttp's copy has the trailer %q, set while the body was read", got)
		}
		return &http.Response{StatusCode: 204, Body: http.NoBody, Request: req}, nil
	}))
	if _, ok := rt.(interface{ CloseIdleConnections() }); ok {
		t.Error("otelhttp passes CloseIdleConnections on")
	}
	if _, ok := rt.(interface{ Unwrap() http.RoundTripper }); ok {
		t.Error("otelhttp has an Unwrap")
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://api.example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Trailer = http.Header{"Checksum": nil}
	req.Body = io.NopCloser(readerFunc(func([]byte) (int, error) {
		req.Trailer.Set("Checksum", "abc")
		return 0, io.EOF
	}))
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if req.Trailer.Get("Checksum") == "" {
		t.Error("the body wasn't read")
	}
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
