package requestforge_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/requestforge/requestforge"
)

// The values of go-retryablehttp are values of a RetryPolicy.
var _ = []requestforge.RetryPolicy{
	{CheckRetry: retryablehttp.DefaultRetryPolicy, Backoff: retryablehttp.DefaultBackoff},
	{CheckRetry: retryablehttp.ErrorPropagatedRetryPolicy, Backoff: retryablehttp.LinearJitterBackoff},
	{CheckRetry: retryablehttp.NewClient().CheckRetry, Backoff: retryablehttp.RateLimitLinearJitterBackoff},
	{CheckRetry: requestforge.DefaultCheckRetry},
}

var errRetryDown = errors.New("connection refused")

// retryStep is what a retryBase does with one send.
type retryStep func(req *http.Request) (*http.Response, error)

// retryBase is a transport that takes one step a send, the last one again and
// again, and remembers what it was sent. It reads and closes request bodies
// as http.Transport does.
type retryBase struct {
	steps []retryStep

	mu     sync.Mutex
	sent   []*http.Request
	bodies []string
	at     []time.Time
}

func (b *retryBase) RoundTrip(req *http.Request) (*http.Response, error) {
	body := ""
	if req.Body != nil {
		data, err := io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, err
		}
		body = string(data)
	}
	b.mu.Lock()
	step := b.steps[min(len(b.sent), len(b.steps)-1)]
	b.sent = append(b.sent, req)
	b.bodies = append(b.bodies, body)
	b.at = append(b.at, time.Now())
	b.mu.Unlock()
	return step(req)
}

func (b *retryBase) wantSends(t testing.TB, want int) {
	t.Helper()
	if got := len(b.sent); got != want {
		t.Errorf("%d sends, want %d", got, want)
	}
}

// retryAnswer is a response with the header lines "Name: value".
func retryAnswer(status int, lines ...string) retryStep {
	return func(req *http.Request) (*http.Response, error) {
		h := http.Header{}
		for _, l := range lines {
			name, value, _ := strings.Cut(l, ": ")
			h.Add(name, value)
		}
		return &http.Response{
			StatusCode: status, Status: fmt.Sprint(status), Header: h, ContentLength: -1,
			Body:    io.NopCloser(strings.NewReader("the answer is " + fmt.Sprint(status))),
			Request: req,
		}, nil
	}
}

func retryFailure(err error) retryStep {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

// retryFast is a policy whose waits are short enough for a test without a
// bubble.
func retryFast(retries int) requestforge.RetryPolicy {
	return requestforge.ExponentialBackoff(retries, 1, 1)
}

func retryOver(base http.RoundTripper, p requestforge.RetryPolicy) *requestforge.RetryTransport {
	return &requestforge.RetryTransport{Base: base, Policy: p}
}

// retryBody is a caller's body without GetBody that counts its closes.
type retryBody struct {
	io.Reader
	closes atomic.Int32
}

func (b *retryBody) Close() error { b.closes.Add(1); return nil }

func (b *retryBody) wantClosedOnce(t testing.TB) {
	t.Helper()
	if got := b.closes.Load(); got != 1 {
		t.Errorf("request body closed %d times, want once", got)
	}
}

func newRetryBody(s string) *retryBody { return &retryBody{Reader: strings.NewReader(s)} }

func newRetryRequest(t testing.TB, method string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://api.test/things", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func wantRetryResponse(t testing.TB, resp *http.Response, err error, status int) {
	t.Helper()
	if err != nil || resp == nil {
		t.Fatalf("got %v, %v; want a response", resp, err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != status || err != nil || string(body) != fmt.Sprint("the answer is ", status) {
		t.Errorf("got %d with %q, %v; want %d with its whole body", resp.StatusCode, body, err, status)
	}
}

// retryAnyway is a CheckRetry without judgement.
func retryAnyway(context.Context, *http.Response, error) (bool, error) { return true, nil }

func TestRetrySendsAgainOnlyWhatIsSafe(t *testing.T) {
	const sends = 3 // with two retries
	down, busy, busyUntil := retryFailure(errRetryDown), retryAnswer(503), retryAnswer(503, "Retry-After: 0")
	key := func(name string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = []string{"k"} }
	}
	type P = requestforge.RetryPolicy
	for _, tt := range []struct {
		name   string
		method string
		step   retryStep
		policy P
		edit   func(*http.Request)
		want   int
	}{
		{name: "no method is GET", method: "", step: down, want: sends},
		{name: "GET down", method: "GET", step: down, want: sends},
		{name: "HEAD down", method: "HEAD", step: down, want: sends},
		{name: "OPTIONS 500", method: "OPTIONS", step: retryAnswer(500), want: sends},
		{name: "TRACE 502", method: "TRACE", step: retryAnswer(502), want: sends},
		{name: "PUT 503", method: "PUT", step: busy, want: sends},
		{name: "DELETE 504", method: "DELETE", step: retryAnswer(504), want: sends},
		{name: "POST down", method: "POST", step: down, want: 1},
		{name: "POST 500", method: "POST", step: retryAnswer(500), want: 1},
		{name: "PATCH 503", method: "PATCH", step: busy, want: 1},
		{name: "methods have case", method: "get", step: busy, want: 1},
		{name: "POST 429", method: "POST", step: retryAnswer(429), want: sends},
		{name: "POST 503 with Retry-After", method: "POST", step: busyUntil, want: sends},
		{name: "POST 503 with a Retry-After that says nothing", method: "POST", step: retryAnswer(503, "Retry-After: soon"), want: 1},
		{name: "POST 502 with Retry-After", method: "POST", step: retryAnswer(502, "Retry-After: 0"), want: 1},
		{name: "POST with key", method: "POST", step: down, edit: key("Idempotency-Key"), want: sends},
		{name: "POST with X- key", method: "POST", step: busy, edit: key("X-Idempotency-Key"), want: sends},
		{name: "POST, allowed", method: "POST", step: down, policy: P{RetryNonIdempotent: true}, want: sends},
		{name: "POST, CheckRetry alone", method: "POST", step: down, policy: P{CheckRetry: retryAnyway}, want: 1},
		{name: "GET 200", method: "GET", step: retryAnswer(200), want: 1},
		{name: "GET 404", method: "GET", step: retryAnswer(404), want: 1},
		{name: "GET 401", method: "GET", step: retryAnswer(401), want: 1},
		{name: "GET 501", method: "GET", step: retryAnswer(501), want: 1},
		{name: "GET 302", method: "GET", step: retryAnswer(302, "Location: /elsewhere"), want: 1},
		{name: "GET 202, CheckRetry says so", method: "GET", step: retryAnswer(202), policy: P{CheckRetry: retryAnyway}, want: sends},
		{name: "GET 503, CheckRetry says no", method: "GET", step: busy,
			policy: P{CheckRetry: func(context.Context, *http.Response, error) (bool, error) { return false, nil }}, want: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := &retryBase{steps: []retryStep{tt.step}}
				tt.policy.RetryMax = sends - 1
				req := newRetryRequest(t, tt.method, nil)
				req.Method = tt.method
				if tt.edit != nil {
					tt.edit(req)
				}
				resp, err := retryOver(base, tt.policy).RoundTrip(req)
				if (resp == nil) == (err == nil) {
					t.Errorf("got %v, %v; want one of them", resp, err)
				}
				base.wantSends(t, tt.want)
			})
		})
	}
}

func TestRetryEndsWithTheFirstGoodAnswer(t *testing.T) {
	base := &retryBase{steps: []retryStep{retryFailure(errRetryDown), retryAnswer(503), retryAnswer(200)}}
	resp, err := retryOver(base, retryFast(5)).RoundTrip(newRetryRequest(t, "GET", nil))
	wantRetryResponse(t, resp, err, 200)
	base.wantSends(t, 3)
}

func TestRetryReturnsTheLastResponseReadable(t *testing.T) {
	verdicts := map[string]func(context.Context, *http.Response, error) (bool, error){
		"default": nil,
		"with an error, no more": func(_ context.Context, resp *http.Response, _ error) (bool, error) {
			return resp.StatusCode != 500, errors.New("giving up")
		},
	}
	for name, check := range verdicts {
		t.Run(name, func(t *testing.T) {
			base := &retryBase{steps: []retryStep{retryAnswer(503), retryAnswer(502), retryAnswer(500)}}
			p := retryFast(2)
			p.CheckRetry = check
			req := newRetryRequest(t, "GET", nil)
			resp, err := retryOver(base, p).RoundTrip(req)
			wantRetryResponse(t, resp, err, 500)
			if resp.Request != req {
				t.Error("resp.Request is not the caller's own request")
			}
			base.wantSends(t, 3)
		})
	}
}

func TestRetryHandsErrorsUpAsTheyAre(t *testing.T) {
	for name, check := range map[string]func(context.Context, *http.Response, error) (bool, error){
		"default": nil,
		"CheckRetry returns its own": func(context.Context, *http.Response, error) (bool, error) {
			return false, errors.New("another error")
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := &retryBase{steps: []retryStep{retryAnswer(503), retryFailure(errRetryDown)}}
			p := retryFast(1)
			if check != nil {
				base.steps = base.steps[1:]
			}
			p.CheckRetry = check
			resp, err := retryOver(base, p).RoundTrip(newRetryRequest(t, "GET", nil))
			if resp != nil || err != errRetryDown {
				t.Errorf("got %v, %v; want the error from below, untouched", resp, err)
			}
		})
	}
}

// A base that breaks the rules doesn't make this layer break them.
func TestRetryNeverReturnsResponseAndError(t *testing.T) {
	lost := newRetryBody("nobody reads this")
	base := &retryBase{steps: []retryStep{func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: lost}, errRetryDown
	}}}
	p := retryFast(1)
	p.CheckRetry = func(context.Context, *http.Response, error) (bool, error) { return false, nil }
	resp, err := retryOver(base, p).RoundTrip(newRetryRequest(t, "GET", nil))
	if resp != nil || err != errRetryDown {
		t.Errorf("got %v, %v; want nil, %v", resp, err, errRetryDown)
	}
	lost.wantClosedOnce(t)

	base = &retryBase{steps: []retryStep{func(*http.Request) (*http.Response, error) { return nil, nil }}}
	if resp, err := retryOver(base, retryFast(1)).RoundTrip(newRetryRequest(t, "GET", nil)); resp != nil || err != nil {
		t.Errorf("got %v, %v; want nil, nil for http.Client to complain about", resp, err)
	}
	base.wantSends(t, 1)
}

func TestRetryAfterIsObeyedUpToRetryWaitMax(t *testing.T) {
	const most = 10 * time.Second
	in := func(d time.Duration) string {
		return "Retry-After: " + time.Now().Add(d).UTC().Format(http.TimeFormat)
	}
	for _, tt := range []struct {
		name   string
		status int
		header func() string
		wait   time.Duration // negative: not sent again
	}{
		{"seconds", 503, func() string { return "Retry-After: 7" }, 7 * time.Second},
		{"429", 429, func() string { return "Retry-After: 3" }, 3 * time.Second},
		{"502 too", 502, func() string { return "Retry-After: 3" }, 3 * time.Second},
		{"as long as RetryWaitMax", 503, func() string { return "Retry-After: 10" }, most},
		{"longer", 503, func() string { return "Retry-After: 11" }, -1},
		{"overflow", 429, func() string { return "Retry-After: 99999999999999999999" }, -1},
		{"date", 503, func() string { return in(5 * time.Second) }, 5 * time.Second},
		{"date in the past", 503, func() string { return in(-time.Hour) }, 500 * time.Millisecond},
		{"date too far", 503, func() string { return in(time.Hour) }, -1},
		{"zero", 429, func() string { return "Retry-After: 0" }, 500 * time.Millisecond},
		{"a fraction", 429, func() string { return "Retry-After: 1.5" }, 2 * time.Second},
		{"unreadable: Backoff", 503, func() string { return "Retry-After: whenever" }, time.Second},
		{"none: Backoff", 503, func() string { return "Server: test" }, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := &retryBase{steps: []retryStep{retryAnswer(tt.status, tt.header()), retryAnswer(200)}}
				start := time.Now()
				resp, err := retryOver(base, requestforge.RetryPolicy{
					RetryMax: 1, RetryWaitMin: 500 * time.Millisecond, RetryWaitMax: most,
					Backoff: func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return time.Second },
				}).RoundTrip(newRetryRequest(t, "GET", nil))
				want, wait := 200, tt.wait
				if tt.wait < 0 {
					want, wait = tt.status, 0
				}
				wantRetryResponse(t, resp, err, want)
				if got := time.Since(start); got < wait || got > wait+wait/4 {
					t.Errorf("took %v, want %v to a quarter more", got, wait)
				}
			})
		})
	}
}

func TestRetryBeginsNoWaitThatOutlastsTheContext(t *testing.T) {
	for _, tt := range []struct {
		name     string
		step     retryStep
		deadline time.Duration
		sends    int
	}{
		{"Retry-After beyond the deadline", retryAnswer(503, "Retry-After: 5"), 4 * time.Second, 1},
		{"Retry-After at the deadline", retryAnswer(503, "Retry-After: 5"), 5 * time.Second, 1},
		{"Retry-After before the deadline", retryAnswer(503, "Retry-After: 5"), 6 * time.Second, 2},
		{"Backoff beyond the deadline", retryAnswer(503), time.Second, 1},
		{"an error", retryFailure(errRetryDown), time.Second, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := &retryBase{steps: []retryStep{tt.step}}
				ctx, cancel := context.WithTimeout(t.Context(), tt.deadline)
				defer cancel()
				start := time.Now()
				resp, err := retryOver(base, requestforge.ExponentialBackoff(1, 2*time.Second, 0)).
					RoundTrip(newRetryRequest(t, "GET", nil).WithContext(ctx))
				if err == nil {
					wantRetryResponse(t, resp, err, 503)
				} else if err != errRetryDown {
					t.Errorf("error %v, want %v", err, errRetryDown)
				}
				base.wantSends(t, tt.sends)
				if got := time.Since(start); tt.sends == 1 && got != 0 {
					t.Errorf("came back after %v, want at once", got)
				}
			})
		})
	}
}

func TestRetryWaitEndsWithTheCallersInterest(t *testing.T) {
	for _, how := range []string{"context", "Cancel"} {
		for _, step := range []retryStep{retryAnswer(503), retryFailure(errRetryDown)} {
			synctest.Test(t, func(t *testing.T) {
				base := &retryBase{steps: []retryStep{step}}
				req := newRetryRequest(t, "GET", nil)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start := time.Now()
				if how == "context" {
					req = req.WithContext(ctx)
					time.AfterFunc(time.Second, cancel)
				} else {
					stop := make(chan struct{})
					//lint:ignore SA1019 http.Client sets it
					req.Cancel = stop
					time.AfterFunc(time.Second, func() { close(stop) })
				}
				resp, err := retryOver(base, requestforge.ExponentialBackoff(3, 10*time.Second, 0)).RoundTrip(req)
				if resp != nil || !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v, %v, want the cause", how, resp, err)
				}
				if got := time.Since(start); got != time.Second {
					t.Errorf("%s: came back after %v, want 1s", how, got)
				}
				base.wantSends(t, 1)
			})
		}
	}
}

func TestRetryIsOverOnceTheCallersInterestIs(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := make(chan struct{})
	for name, req := range map[string]*http.Request{
		"context": newRetryRequest(t, "GET", nil).WithContext(ctx),
		//lint:ignore SA1019 http.Client sets it
		"Cancel": func() *http.Request { r := newRetryRequest(t, "GET", nil); r.Cancel = stop; return r }(),
	} {
		base := &retryBase{steps: []retryStep{func(*http.Request) (*http.Response, error) {
			if name == "context" {
				cancel()
			} else {
				close(stop)
			}
			return nil, errRetryDown
		}}}
		p := retryFast(3)
		p.CheckRetry = func(context.Context, *http.Response, error) (bool, error) {
			t.Errorf("%s: CheckRetry was asked, though nothing may follow", name)
			return true, nil
		}
		if _, err := retryOver(base, p).RoundTrip(req); err != errRetryDown {
			t.Errorf("%s: error %v, want %v", name, err, errRetryDown)
		}
		base.wantSends(t, 1)
	}
}

func TestRetryBacksOffWithinItsBounds(t *testing.T) {
	const sec = time.Second
	for _, tt := range []struct {
		policy requestforge.RetryPolicy
		want   [][2]time.Duration // the range of each wait
	}{
		{requestforge.ExponentialBackoff(6, 1*sec, 10*sec),
			[][2]time.Duration{{1 * sec, 2 * sec}, {2 * sec, 4 * sec}, {4 * sec, 8 * sec}, {5 * sec, 10 * sec}, {5 * sec, 10 * sec}, {5 * sec, 10 * sec}}},
		{requestforge.RetryPolicy{RetryMax: 6}, // 1 s, 30 s
			[][2]time.Duration{{1 * sec, 2 * sec}, {2 * sec, 4 * sec}, {4 * sec, 8 * sec}, {8 * sec, 16 * sec}, {15 * sec, 30 * sec}, {15 * sec, 30 * sec}}},
		{requestforge.ExponentialBackoff(2, 3*sec, 3*sec), [][2]time.Duration{{3 * sec, 3 * sec}, {3 * sec, 3 * sec}}},
		{requestforge.RetryPolicy{RetryMax: 1, RetryWaitMin: 60 * sec}, [][2]time.Duration{{60 * sec, 60 * sec}}},
		{requestforge.RetryPolicy{RetryMax: 1, RetryWaitMax: sec / 2}, [][2]time.Duration{{sec / 2, sec / 2}}},
		{requestforge.ExponentialBackoff(1, 1<<62, 1<<62+5), [][2]time.Duration{{1 << 62, 1<<62 + 5}}},
	} {
		var jitter bool
		var first time.Duration
		for i := range 30 {
			synctest.Test(t, func(t *testing.T) {
				base := &retryBase{steps: []retryStep{retryFailure(errRetryDown)}}
				if tt.want[0][0] == 1<<62 {
					// Beyond what the clock can show: only the arithmetic counts.
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					retryOver(base, tt.policy).RoundTrip(newRetryRequest(t, "GET", nil).WithContext(ctx))
					base.wantSends(t, 1)
					return
				}
				retryOver(base, tt.policy).RoundTrip(newRetryRequest(t, "GET", nil))
				base.wantSends(t, len(tt.want)+1)
				for n, want := range tt.want {
					got := base.at[n+1].Sub(base.at[n])
					if got < want[0] || got > want[1] {
						t.Errorf("wait %d is %v, want between %v and %v", n, got, want[0], want[1])
					}
				}
				if got := base.at[1].Sub(base.at[0]); i == 0 {
					first = got
				} else if got != first {
					jitter = true
				}
			})
		}
		if want := tt.want[0][0] != tt.want[0][1] && tt.want[0][0] != 1<<62; jitter != want {
			t.Errorf("%+v: jitter %v, want %v", tt.want, jitter, want)
		}
	}
}

func TestRetryAsksBackoffForEachWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &retryBase{steps: []retryStep{retryAnswer(500), retryFailure(errRetryDown), retryAnswer(502)}}
		var asked []string
		resp, err := retryOver(base, requestforge.RetryPolicy{
			RetryMax: 9, RetryWaitMin: 2, RetryWaitMax: 5,
			Backoff: func(lo, hi time.Duration, attempt int, resp *http.Response) time.Duration {
				status := 0
				if resp != nil {
					status = resp.StatusCode
				}
				asked = append(asked, fmt.Sprint(int64(lo), int64(hi), attempt, status))
				return time.Minute - time.Duration(attempt)*30*time.Second - time.Duration(attempt/2) // 1m, 30s, stop
			},
		}).RoundTrip(newRetryRequest(t, "GET", nil))
		wantRetryResponse(t, resp, err, 502)
		if got, want := strings.Join(asked, "; "), "2 5 0 500; 2 5 1 0; 2 5 2 502"; got != want {
			t.Errorf("Backoff was asked %q, want %q", got, want)
		}
		if got := []time.Duration{base.at[1].Sub(base.at[0]), base.at[2].Sub(base.at[1])}; got[0] != time.Minute || got[1] != 30*time.Second {
			t.Errorf("waits %v, want [1m 30s]: as Backoff says, beyond RetryWaitMax too", got)
		}
	})
}

// retryVerdict is an error that knows what may follow it, as AuthError does.
type retryVerdict struct {
	retry bool
	after time.Duration
}

func (retryVerdict) Error() string                         { return "no token" }
func (v retryVerdict) RetryVerdict() (bool, time.Duration) { return v.retry, v.after }

func TestRetryAsksTheErrorForItsVerdict(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want time.Duration // negative: not sent again
	}{
		{"permanent", retryVerdict{false, 0}, -1},
		{"permanent, wrapped", fmt.Errorf("step: %w", retryVerdict{false, time.Second}), -1},
		{"in three seconds", retryVerdict{true, 3 * time.Second}, 3 * time.Second},
		{"in three seconds, wrapped", fmt.Errorf("step: %w", retryVerdict{true, 3 * time.Second}), 3 * time.Second},
		{"too late", retryVerdict{true, time.Hour}, -1},
		{"no idea when", retryVerdict{true, 0}, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := &retryBase{steps: []retryStep{retryFailure(tt.err), retryAnswer(200)}}
				start := time.Now()
				resp, err := retryOver(base, requestforge.RetryPolicy{
					RetryMax: 1, CheckRetry: retryAnyway,
					Backoff: func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return time.Minute },
				}).RoundTrip(newRetryRequest(t, "GET", nil))
				if tt.want < 0 {
					if err != tt.err {
						t.Errorf("error %v, want %v as it is", err, tt.err)
					}
					base.wantSends(t, 1)
					return
				}
				wantRetryResponse(t, resp, err, 200)
				if got := time.Since(start); got < tt.want || got > tt.want+tt.want/4 {
					t.Errorf("took %v, want %v to a quarter more", got, tt.want)
				}
			})
		})
	}
}

func TestRetryNeverRepeatsACertificateError(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it reports the handshake
	server.StartTLS()
	defer server.Close()
	real := &http.Transport{} // doesn't know the test server's CA
	defer real.CloseIdleConnections()

	for name, base := range map[string]http.RoundTripper{
		"from a handshake":  real,
		"wrapped":           &retryBase{steps: []retryStep{retryFailure(fmt.Errorf("proxy: %w", x509.UnknownAuthorityError{}))}},
		"wrong host":        &retryBase{steps: []retryStep{retryFailure(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"})}},
		"outdated":          &retryBase{steps: []retryStep{retryFailure(x509.CertificateInvalidError{Reason: x509.Expired})}},
		"an old-style root": &retryBase{steps: []retryStep{retryFailure(&url.Error{Op: "Get", Err: x509.UnknownAuthorityError{}})}},
	} {
		for _, check := range []func(context.Context, *http.Response, error) (bool, error){nil, retryAnyway} {
			sends := 0
			counted := retryFunc(func(req *http.Request) (*http.Response, error) {
				sends++
				return base.RoundTrip(req)
			})
			req := newRetryRequest(t, "GET", nil)
			req.URL, _ = url.Parse(server.URL)
			p := retryFast(2)
			p.CheckRetry = check
			if _, err := retryOver(counted, p).RoundTrip(req); err == nil || sends != 1 {
				t.Errorf("%s: %d sends, error %v; want 1 and an error", name, sends, err)
			}
		}
	}
}

type retryFunc func(*http.Request) (*http.Response, error)

func (f retryFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// Over the real http.Transport, because its errors have no types.
func TestRetryDoesNotRepeatWhatCannotBeSent(t *testing.T) {
	real := &http.Transport{}
	for name, edit := range map[string]func(*http.Request){
		"nil URL":            func(r *http.Request) { r.URL = nil },
		"nil Header":         func(r *http.Request) { r.Header = nil },
		"no host":            func(r *http.Request) { r.URL.Host = "" },
		"unsupported scheme": func(r *http.Request) { r.URL.Scheme = "gopher" },
		"invalid header":     func(r *http.Request) { r.Header["Bad\n"] = []string{"v"} },
		"invalid trailer":    func(r *http.Request) { r.Trailer = http.Header{"Bad\n": {"v"}} },
		"invalid method": func(r *http.Request) {
			r.Method, r.Header = "G ET", http.Header{"Idempotency-Key": {"k"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			sends := 0
			var below error
			base := retryFunc(func(req *http.Request) (*http.Response, error) {
				sends++
				resp, err := real.RoundTrip(req)
				below = err
				return resp, err
			})
			body := newRetryBody("hello")
			req := newRetryRequest(t, "PUT", body)
			edit(req)
			resp, err := retryOver(base, retryFast(2)).RoundTrip(req)
			if resp != nil || err == nil || err != below || sends != 1 {
				t.Errorf("%d sends, %v, %v; want 1 and the error from below, %v", sends, resp, err, below)
			}
			body.wantClosedOnce(t)
		})
	}
}

func TestDefaultCheckRetryReturnsTheErrorItWasAskedAbout(t *testing.T) {
	cert := x509.UnknownAuthorityError{}
	for _, err := range []error{
		errors.New("http: nil Request.URL"),
		errors.New("unsupported protocol scheme"),
		&url.Error{Op: "Get", URL: "u", Err: errors.New("stopped after 10 redirects")},
		fmt.Errorf("net/http: invalid header field name: %w", cert),
		&tls.CertificateVerificationError{Err: cert},
		&url.Error{Op: "Get", URL: "u", Err: &tls.CertificateVerificationError{Err: cert}},
	} {
		if retry, got := requestforge.DefaultCheckRetry(t.Context(), nil, err); retry || got != err {
			t.Errorf("DefaultCheckRetry(%v) = %v, %v; want false and the same error", err, retry, got)
		}
	}
	if retry, got := requestforge.DefaultCheckRetry(t.Context(), nil, errRetryDown); !retry || got != nil {
		t.Errorf("DefaultCheckRetry(%v) = %v, %v; want true, nil", errRetryDown, retry, got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if retry, got := requestforge.DefaultCheckRetry(ctx, nil, errRetryDown); retry || got != context.Canceled {
		t.Errorf("after cancel: %v, %v; want false, %v", retry, got, context.Canceled)
	}
}

func TestRetryBodies(t *testing.T) {
	const payload = "0123456789"
	for _, tt := range []struct {
		name   string
		limit  int64 // MaxReplayBody
		method string
		step   retryStep
		want   []string // bodies that reach the base
	}{
		{"kept", 0, "PUT", retryAnswer(503), []string{payload, payload, payload}},
		{"kept after an error", 0, "PUT", retryFailure(errRetryDown), []string{payload, payload, payload}},
		{"POST 429", 0, "POST", retryAnswer(429), []string{payload, payload, payload}},
		{"exactly the bound", 10, "PUT", retryAnswer(503), []string{payload, payload, payload}},
		{"beyond the bound", 9, "PUT", retryAnswer(503), []string{payload}},
		{"nothing kept", -1, "PUT", retryAnswer(503), []string{payload}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := &retryBase{steps: []retryStep{tt.step}}
				p := requestforge.ExponentialBackoff(2, time.Second, 0)
				p.MaxReplayBody = tt.limit
				body := newRetryBody(payload)
				req := newRetryRequest(t, tt.method, body)
				start := time.Now()
				resp, err := retryOver(base, p).RoundTrip(req)
				if err == nil && resp.Request != req {
					t.Error("resp.Request is not the caller's own request")
				}
				if got, want := fmt.Sprint(base.bodies), fmt.Sprint(tt.want); got != want {
					t.Errorf("sent %s, want %s", got, want)
				}
				if len(tt.want) == 1 && time.Since(start) != 0 {
					t.Error("waited, though the body can't be sent again")
				}
				body.wantClosedOnce(t)
			})
		})
	}
}

func TestRetryKeepsTheBodyThroughALayerInBetween(t *testing.T) {
	base := &retryBase{steps: []retryStep{retryAnswer(503), retryAnswer(200)}}
	body := newRetryBody("hello")
	resp, err := retryOver(&requestforge.LoggingTransport{Base: base}, retryFast(1)).RoundTrip(newRetryRequest(t, "PUT", body))
	wantRetryResponse(t, resp, err, 200)
	if got := fmt.Sprint(base.bodies); got != "[hello hello]" {
		t.Errorf("sent %s, want the body twice", got)
	}
	body.wantClosedOnce(t)
}

func TestRetrySendsAGetBodyUnwrapped(t *testing.T) {
	req := newRetryRequest(t, "PUT", strings.NewReader("hello"))
	original, made := req.Body, []*retryBody(nil)
	req.GetBody = func() (io.ReadCloser, error) {
		made = append(made, newRetryBody("hello"))
		return made[len(made)-1], nil
	}
	base := &retryBase{steps: []retryStep{retryAnswer(503)}}
	resp, err := retryOver(base, retryFast(2)).RoundTrip(req)
	wantRetryResponse(t, resp, err, 503)
	if base.sent[0] != req || base.sent[0].Body != original {
		t.Error("the first send isn't the caller's request as it is")
	}
	if len(made) != 2 || base.sent[1].Body != made[0] || base.sent[2].Body != made[1] {
		t.Errorf("GetBody was called %d times, want once for each retry, its body sent as it is", len(made))
	}
	for _, b := range made {
		b.wantClosedOnce(t)
	}
}

func TestRetryEndsWhenGetBodyFails(t *testing.T) {
	req := newRetryRequest(t, "PUT", strings.NewReader("hello"))
	req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("file is gone") }
	base := &retryBase{steps: []retryStep{retryAnswer(503)}}
	resp, err := retryOver(base, retryFast(2)).RoundTrip(req)
	wantRetryResponse(t, resp, err, 503)
	base.wantSends(t, 1)
}

func TestRetryEndsWhenTheBodyFails(t *testing.T) {
	broken := errors.New("disk error")
	body := &retryBody{Reader: io.MultiReader(strings.NewReader("hel"), iotest.ErrReader(broken))}
	base := &retryBase{steps: []retryStep{retryAnswer(200)}}
	resp, err := retryOver(base, retryFast(2)).RoundTrip(newRetryRequest(t, "PUT", body))
	if resp != nil || err != broken {
		t.Errorf("got %v, %v; want %v", resp, err, broken)
	}
	body.wantClosedOnce(t)
}

// The base answers while it is still reading the body, and goes on to read.
func TestRetryAfterAnEarlyAnswer(t *testing.T) {
	for _, tt := range []struct {
		name  string
		read  int  // bytes read before the answer
		stuck bool // a Read is in progress then, and after the wait
		sends int
	}{
		{"nothing read", 0, false, 2},
		{"partly read", 4, false, 2},
		{"in the middle of a read", 4, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				more := make(chan struct{})
				body := &retryBody{Reader: io.MultiReader(strings.NewReader("0123"), retryReader(func(p []byte) (int, error) {
					if tt.stuck {
						<-more
					}
					return copy(p, "4567"), io.EOF
				}))}
				sends := 0
				var old io.ReadCloser
				base := retryFunc(func(req *http.Request) (*http.Response, error) {
					if sends++; sends == 1 {
						old = req.Body
						io.ReadFull(old, make([]byte, tt.read))
						if tt.stuck {
							go func() {
								io.Copy(io.Discard, old)
								old.Close()
							}()
						}
						return retryAnswer(503)(req)
					}
					if n, err := old.Read(make([]byte, 1)); n != 0 || err == nil {
						t.Errorf("the first send still reads the body: %d, %v", n, err)
					}
					old.Close()
					got, _ := io.ReadAll(req.Body)
					req.Body.Close()
					if string(got) != "01234567" {
						t.Errorf("sent again: %q, want the whole body", got)
					}
					return retryAnswer(200)(req)
				})
				resp, err := retryOver(base, requestforge.ExponentialBackoff(1, time.Second, 0)).RoundTrip(newRetryRequest(t, "PUT", body))
				wantRetryResponse(t, resp, err, map[int]int{1: 503, 2: 200}[tt.sends])
				if sends != tt.sends {
					t.Errorf("%d sends, want %d", sends, tt.sends)
				}
				close(more)
				synctest.Wait()
				body.wantClosedOnce(t)
			})
		})
	}
}

type retryReader func([]byte) (int, error)

func (f retryReader) Read(p []byte) (int, error) { return f(p) }

func TestRetryLeavesTheRequestAsItWas(t *testing.T) {
	base := &retryBase{steps: []retryStep{retryAnswer(503)}}
	body := newRetryBody("hello")
	req := newRetryRequest(t, "PUT", body)
	req.Header.Set("X-Test", "1")
	before, header := *req, req.Header.Clone()
	p := retryFast(2)
	p.AttemptTimeout = time.Hour
	resp, err := retryOver(base, p).RoundTrip(req)
	wantRetryResponse(t, resp, err, 503)
	if req.Body != before.Body || req.URL != before.URL || req.GetBody != nil || req.Context() != before.Context() || fmt.Sprint(req.Header) != fmt.Sprint(header) {
		t.Errorf("the request has changed: %+v, want %+v", req, before)
	}
	for i, sent := range base.sent {
		for _, other := range base.sent[:i] {
			if sent == other {
				t.Error("two sends share one request, which the transport may still be using")
			}
		}
	}
}

func TestRetryPolicyMistakesFailEachRequest(t *testing.T) {
	base := &retryBase{steps: []retryStep{retryAnswer(200)}}
	for _, tt := range []struct {
		policy requestforge.RetryPolicy
		want   []string
	}{
		{requestforge.RetryPolicy{RetryWaitMin: -1}, []string{"RetryWaitMin is -1ns"}},
		{requestforge.RetryPolicy{RetryWaitMax: -time.Second}, []string{"RetryWaitMax is -1s"}},
		{requestforge.RetryPolicy{AttemptTimeout: -time.Minute}, []string{"AttemptTimeout is -1m0s"}},
		{requestforge.RetryPolicy{RetryWaitMin: 3 * time.Second, RetryWaitMax: 2 * time.Second}, []string{"RetryWaitMin, 3s, is more than RetryWaitMax, 2s"}},
		{requestforge.RetryPolicy{RetryWaitMin: -1, AttemptTimeout: -1}, []string{"RetryWaitMin", "AttemptTimeout"}},
	} {
		tt.policy.RetryMax = 1
		body := newRetryBody("hello")
		resp, err := retryOver(base, tt.policy).RoundTrip(newRetryRequest(t, "PUT", body))
		if resp != nil || err == nil {
			t.Fatalf("%+v: got %v, %v; want an error", tt.policy, resp, err)
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q doesn't say %q", err, want)
			}
		}
		body.wantClosedOnce(t)
	}
	base.wantSends(t, 0)
}

func TestRetryWithoutRetriesPassesStraightThrough(t *testing.T) {
	for _, p := range []requestforge.RetryPolicy{{}, {RetryMax: -1}, {RetryWaitMin: -1}} {
		base := &retryBase{steps: []retryStep{retryAnswer(503)}}
		req := newRetryRequest(t, "PUT", newRetryBody("hello"))
		resp, err := retryOver(base, p).RoundTrip(req)
		wantRetryResponse(t, resp, err, 503)
		if len(base.sent) != 1 || base.sent[0] != req {
			t.Errorf("%d sends, want the caller's own request once", len(base.sent))
		}
	}
}

func TestRetryAttemptTimeout(t *testing.T) {
	// hang answers only when its request's context is over, like a server
	// that never answers.
	hang := func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, context.Cause(req.Context())
	}
	slow := errors.New("slow down")
	with := func(retries int) requestforge.RetryPolicy {
		return requestforge.RetryPolicy{RetryMax: retries, RetryWaitMin: time.Second, RetryWaitMax: time.Second, AttemptTimeout: 2 * time.Second}
	}

	t.Run("is retried if idempotent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			base := &retryBase{steps: []retryStep{hang, retryAnswer(200)}}
			resp, err := retryOver(base, with(1)).RoundTrip(newRetryRequest(t, "GET", nil))
			wantRetryResponse(t, resp, err, 200)
			if got := base.at[1].Sub(base.at[0]); got != 3*time.Second {
				t.Errorf("sent again after %v, want 3s", got)
			}
		})
	})
	t.Run("is not retried otherwise", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			base := &retryBase{steps: []retryStep{hang}}
			_, err := retryOver(base, with(3)).RoundTrip(newRetryRequest(t, "POST", nil))
			base.wantSends(t, 1)
			var ne net.Error
			if !errors.As(err, &ne) || !ne.Timeout() || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
				t.Errorf("error %v is no timeout", err)
			}
			if !strings.Contains(err.Error(), "AttemptTimeout, 2s") {
				t.Errorf("error %q doesn't name AttemptTimeout and its value", err)
			}
		})
	})
	t.Run("yields to the caller's context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, slow)
			defer cancel()
			base := &retryBase{steps: []retryStep{hang}}
			_, err := retryOver(base, with(3)).RoundTrip(newRetryRequest(t, "GET", nil).WithContext(ctx))
			if err != slow {
				t.Errorf("error %v, want %v as it came", err, slow)
			}
			base.wantSends(t, 1)
		})
	})
	t.Run("is the inner one's of two", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			outer, inner := with(1), with(1)
			outer.AttemptTimeout = time.Second
			base := &retryBase{steps: []retryStep{hang}}
			foreign := retryFunc(retryOver(base, inner).RoundTrip)
			_, err := retryOver(foreign, outer).RoundTrip(newRetryRequest(t, "GET", nil))
			if err == nil || !strings.Contains(err.Error(), "AttemptTimeout, 1s") {
				t.Errorf("error %v, want the outer timeout, which came first", err)
			}
		})
	})
	t.Run("does not bound the body", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var sent context.Context
			base := retryFunc(func(req *http.Request) (*http.Response, error) {
				sent = req.Context()
				return &http.Response{StatusCode: 200, Body: io.NopCloser(io.MultiReader(
					retryReader(func(p []byte) (int, error) {
						time.Sleep(time.Hour)
						return copy(p, "slow"), io.EOF
					}),
					retryReader(func(p []byte) (int, error) { return 0, io.EOF }),
				))}, nil
			})
			resp, err := retryOver(base, with(1)).RoundTrip(newRetryRequest(t, "GET", nil))
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 8)
			if n, err := resp.Body.Read(buf); string(buf[:n]) != "slow" || err != nil {
				t.Errorf("read %q, %v; want %q", buf[:n], err, "slow")
			}
			if sent.Err() != nil {
				t.Error("the send's context is over while its body is read")
			}
			if _, err := resp.Body.Read(buf); err != io.EOF {
				t.Errorf("read to %v, want EOF", err)
			}
			if sent.Err() == nil {
				t.Error("the send's context lives on after EOF")
			}
		})
	})
	t.Run("lets go of the context when the body is closed", func(t *testing.T) {
		for name, body := range map[string]io.ReadCloser{
			"body": io.NopCloser(strings.NewReader("unread")), "no body": http.NoBody, "nil": nil,
		} {
			var sent context.Context
			base := retryFunc(func(req *http.Request) (*http.Response, error) {
				sent = req.Context()
				return &http.Response{StatusCode: 200, Body: body}, nil
			})
			resp, err := retryOver(base, with(1)).RoundTrip(newRetryRequest(t, "GET", nil))
			if err != nil {
				t.Fatal(err)
			}
			if body == http.NoBody && resp.Body != http.NoBody {
				t.Error("NoBody is not what it was")
			}
			if resp.Body != nil {
				resp.Body.Close()
			}
			if sent.Err() == nil {
				t.Errorf("%s: the send's context lives on", name)
			}
		}
	})
	t.Run("takes a response that comes too late back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			late := newRetryBody("too late")
			base := retryFunc(func(req *http.Request) (*http.Response, error) {
				time.Sleep(3 * time.Second) // deaf to its context
				return &http.Response{StatusCode: 200, Body: late}, nil
			})
			resp, err := retryOver(base, with(1)).RoundTrip(newRetryRequest(t, "POST", nil))
			if resp != nil || err == nil || !strings.Contains(err.Error(), "AttemptTimeout") {
				t.Errorf("got %v, %v; want the timeout", resp, err)
			}
			late.wantClosedOnce(t)
		})
	})
}

func TestRetryAttemptTimeoutLeavesAnUpgradedConnectionUsable(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(conn, rw)
	}))
	defer server.Close()
	base := &http.Transport{}
	defer base.CloseIdleConnections()

	p := retryFast(1)
	p.AttemptTimeout = time.Hour
	req := newRetryRequest(t, "GET", nil)
	req.URL, _ = url.Parse(server.URL)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := retryOver(base, p).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatalf("body of a 101 is a %T, want an io.ReadWriteCloser", resp.Body)
	}
	io.WriteString(conn, "hello")
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Errorf("CloseWrite: %v", err)
	}
	if got, err := io.ReadAll(conn); string(got) != "hello" || err != nil {
		t.Errorf("echo %q, %v; want hello", got, err)
	}
}

// retryLong is a response body that counts what is read of it.
type retryLong struct {
	length, read int
	stall        chan struct{} // if not nil, Read blocks until Close
	closed       atomic.Bool
}

func (b *retryLong) Read(p []byte) (int, error) {
	if b.stall != nil {
		<-b.stall
		return 0, errors.New("closed")
	}
	n := min(len(p), b.length-b.read)
	if b.read += n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (b *retryLong) Close() error {
	b.closed.Store(true)
	return nil
}

func TestRetryDrainsWithinABound(t *testing.T) {
	for _, tt := range []struct {
		name   string
		body   *retryLong
		length int64 // Content-Length
		read   int   // at most
		took   time.Duration
	}{
		{"short", &retryLong{length: 1000}, 1000, 1000, 0},
		{"long", &retryLong{length: 64 << 20}, -1, 64 << 10, 0},
		{"long, and says so", &retryLong{length: 64 << 20}, 64 << 20, 0, 0},
		{"stalled", &retryLong{stall: make(chan struct{})}, -1, 0, 1500 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.body.stall != nil {
					tt.body.stall = make(chan struct{}) // of this bubble
					time.AfterFunc(1500*time.Millisecond, func() { close(tt.body.stall) })
				}
				start := time.Now()
				base := &retryBase{steps: []retryStep{func(*http.Request) (*http.Response, error) {
					return &http.Response{StatusCode: 503, ContentLength: tt.length, Body: tt.body}, nil
				}, retryAnswer(200)}}
				resp, err := retryOver(base, requestforge.RetryPolicy{RetryMax: 1, Backoff: func(time.Duration, time.Duration, int, *http.Response) time.Duration { return 0 }}).RoundTrip(newRetryRequest(t, "GET", nil))
				wantRetryResponse(t, resp, err, 200)
				if !tt.body.closed.Load() {
					t.Error("the first response was not closed")
				}
				if tt.body.read > tt.read || tt.read == tt.body.length && tt.body.read != tt.read {
					t.Errorf("%d bytes drained, want %d", tt.body.read, tt.read)
				}
				if got := time.Since(start); got != tt.took {
					t.Errorf("took %v, want %v", got, tt.took)
				}
			})
		})
	}
}

func TestRetryReusesTheConnection(t *testing.T) {
	var sends atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sends.Add(1) < 3 {
			w.WriteHeader(503)
		}
		w.Write(bytes.Repeat([]byte("x"), 5000))
	}))
	defer server.Close()
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	conns := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if !i.Reused {
			conns++
		}
	}})
	req, _ := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
	resp, err := retryOver(base, retryFast(2)).RoundTrip(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v, %v; want 200", resp, err)
	}
	resp.Body.Close()
	if conns != 1 || sends.Load() != 3 {
		t.Errorf("%d sends over %d connections, want 3 over 1", sends.Load(), conns)
	}
}

// Uploads without GetBody to a server that often refuses early, from many
// goroutines at once, through a real transport.
func TestRetryUploadsThroughHTTPTransport(t *testing.T) {
	payload := strings.Repeat("0123456789abcdef", 2000) // 32 KB, within the bound
	var n atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%3 != 0 {
			w.WriteHeader(429) // before the body is read
			return
		}
		got, err := io.ReadAll(r.Body)
		if err != nil || string(got) != payload {
			w.WriteHeader(400)
		}
	}))
	defer server.Close()
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: retryOver(base, retryFast(50))}

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				body := newRetryBody(payload)
				req, _ := http.NewRequestWithContext(t.Context(), "PUT", server.URL, body)
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					continue
				}
				resp.Body.Close()
				if resp.StatusCode != 200 && resp.StatusCode != 429 {
					t.Errorf("status %d: the server didn't get the body as it is", resp.StatusCode)
				}
			}
		})
	}
	wg.Wait()
}

// An upload of any size that the server refuses before its first byte is sent
// again whole.
func TestRetryExpectContinueWhateverTheSize(t *testing.T) {
	const size = 8 << 20
	var sends atomic.Int32
	var got atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sends.Add(1) == 1 {
			w.WriteHeader(429)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		got.Store(n)
	}))
	defer server.Close()
	base := &http.Transport{ExpectContinueTimeout: time.Minute}
	defer base.CloseIdleConnections()

	body := &retryBody{Reader: io.LimitReader(retryReader(func(p []byte) (int, error) { return len(p), nil }), size)}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", server.URL, body)
	req.Header.Set("Expect", "100-continue")
	resp, err := retryOver(base, retryFast(1)).RoundTrip(req)
	if err != nil || resp.StatusCode != 200 || got.Load() != size {
		t.Fatalf("got %v, %v with %d bytes at the server; want 200 with %d", resp, err, got.Load(), size)
	}
	resp.Body.Close()
	body.wantClosedOnce(t)
}

func TestRetryHonoursClientTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &retryBase{steps: []retryStep{retryAnswer(503)}}
		client := &http.Client{Transport: retryOver(base, requestforge.ExponentialBackoff(9, time.Minute, time.Minute)), Timeout: 90 * time.Second}
		resp, err := client.Get("http://api.test/")
		wantRetryResponse(t, resp, err, 503)
		base.wantSends(t, 2)
	})
}

func TestRetryReachesTheTransportBelow(t *testing.T) {
	base := &retryIdler{}
	rt := retryOver(base, requestforge.RetryPolicy{})
	if rt.Unwrap() != base {
		t.Error("Unwrap isn't the base")
	}
	(&http.Client{Transport: rt}).CloseIdleConnections()
	if base.closed != 1 {
		t.Errorf("CloseIdleConnections reached the base %d times, want once", base.closed)
	}

	var zero requestforge.RetryTransport
	old := http.DefaultTransport
	defer func() { http.DefaultTransport = old }()
	swapped := &retryBase{steps: []retryStep{retryAnswer(200)}}
	http.DefaultTransport = swapped
	resp, err := zero.RoundTrip(newRetryRequest(t, "GET", nil))
	wantRetryResponse(t, resp, err, 200)
	swapped.wantSends(t, 1)
}

// retryIdler counts calls of CloseIdleConnections.
type retryIdler struct {
	retryBase
	closed int
}

func (b *retryIdler) CloseIdleConnections() { b.closed++ }

// What it takes to read an answer that has to wait is part of the wait: neither is
// another send too late, nor does a caller who gives up then get another error, or later.
func TestRetryWaitBeginsWithTheBody(t *testing.T) {
	gone := errors.New("gone")
	for name, c := range map[string]struct {
		giveUp func(*http.Request) *http.Request // nil: never
		took   time.Duration
		err    error
	}{
		"to the end": {took: 2 * time.Second},
		"context": {func(req *http.Request) *http.Request {
			ctx, cancel := context.WithCancelCause(req.Context())
			time.AfterFunc(time.Second/2, func() { cancel(gone) })
			return req.WithContext(ctx)
		}, time.Second / 2, gone},
		"Cancel": {func(req *http.Request) *http.Request {
			stop := make(chan struct{})
			//lint:ignore SA1019 http.Client sets it
			req.Cancel = stop
			time.AfterFunc(time.Second/2, func() { close(stop) })
			return req
		}, time.Second / 2, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hangs, end := io.Pipe()
				defer end.Close()
				sends := 0
				base := retryFunc(func(req *http.Request) (*http.Response, error) {
					if sends++; sends == 2 {
						return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
					}
					return &http.Response{StatusCode: 503, Header: http.Header{}, Body: hangs, ContentLength: -1}, nil
				})
				ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
				defer cancel()
				req := newRetryRequest(t, "GET", nil).WithContext(ctx)
				if c.giveUp != nil {
					req = c.giveUp(req)
				}
				policy := retryFast(1)
				policy.Backoff = func(time.Duration, time.Duration, int, *http.Response) time.Duration { return 2 * time.Second }
				begun := time.Now()
				resp, err := retryOver(base, policy).RoundTrip(req)
				if !errors.Is(err, c.err) || (resp == nil) != (c.err != nil) {
					t.Errorf("%v, %v, want %v", resp, err, c.err)
				}
				if took := time.Since(begun); took != c.took {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// The default transport of the moment may be one of our layers, which then
// belongs to the same exchange: it replays on a later send, too.
func TestRetryOverADefaultTransportOfOurs(t *testing.T) {
	old := http.DefaultTransport
	defer func() { http.DefaultTransport = old }()
	http.DefaultTransport = &retryBase{steps: []retryStep{retryAnswer(200)}}
	rt := &requestforge.RetryTransport{Policy: requestforge.ExponentialBackoff(1, 1, 1)}
	resp, err := rt.RoundTrip(newRetryRequest(t, "GET", nil))
	wantRetryResponse(t, resp, err, 200)

	tokens := 0
	base := &retryBase{steps: []retryStep{retryAnswer(503), retryAnswer(401), retryAnswer(200)}}
	http.DefaultTransport = &requestforge.AuthTransport{
		Base:    base,
		Origins: []string{requestforge.AnyOrigin}, AllowPlaintext: true,
		Source: sourceFunc(func(context.Context) (*requestforge.Token, error) {
			tokens++
			return &requestforge.Token{AccessToken: fmt.Sprint("token-", tokens)}, nil
		}),
	}
	resp, err = rt.RoundTrip(newRetryRequest(t, "GET", nil))
	wantRetryResponse(t, resp, err, 200)
	base.wantSends(t, 3)
}
