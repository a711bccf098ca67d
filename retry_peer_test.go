package requestforge_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/requestforge/requestforge"
)

// Why there is a RetryTransport: go-retryablehttp knows well what to retry, and
// its RoundTripper pays for it. Each of its faults is shown by one piece of code
// that runs over both. It returns what it saw go wrong, "" if nothing did.
func TestRetryHasNoneOfThePeersFaults(t *testing.T) {
	const retries = 2
	type wrap func(base http.RoundTripper) http.RoundTripper
	peer := func(base http.RoundTripper) http.RoundTripper {
		c := retryablehttp.NewClient()
		c.HTTPClient = &http.Client{Transport: base}
		c.Logger = nil
		c.RetryMax = retries
		return &retryablehttp.RoundTripper{Client: c}
	}
	ours := func(base http.RoundTripper) http.RoundTripper {
		return &requestforge.RetryTransport{Base: base, Policy: requestforge.RetryPolicy{RetryMax: retries}}
	}

	for name, fault := range map[string]func(*testing.T, wrap) string{
		"buffers whole bodies": func(t *testing.T, over wrap) string {
			const size = 32 << 20
			rt := over(retryFunc(func(req *http.Request) (*http.Response, error) {
				if n, err := io.Copy(io.Discard, req.Body); n != size || err != nil {
					t.Errorf("%d bytes sent, %v; want %d", n, err, size)
				}
				req.Body.Close()
				return retryAnswer(200)(req)
			}))
			body := newRetryBody("")
			body.Reader = io.LimitReader(retryReader(func(p []byte) (int, error) { return len(p), nil }), size)
			req := newRetryRequest(t, "POST", body)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			resp, err := rt.RoundTrip(req)
			runtime.ReadMemStats(&after)
			wantRetryResponse(t, resp, err, 200)
			if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
				return fmt.Sprintf("%d bytes allocated for a body of %d", got, size)
			}
			return ""
		},
		"sends a POST twice": func(t *testing.T, over wrap) string {
			base := &retryBase{steps: []retryStep{retryAnswer(500), retryAnswer(200)}}
			resp, err := over(base).RoundTrip(newRetryRequest(t, "POST", strings.NewReader("pay")))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if len(base.sent) > 1 {
				return fmt.Sprintf("%d payments", len(base.sent))
			}
			return ""
		},
		"sleeps as long as the server likes": func(t *testing.T, over wrap) string {
			base := &retryBase{steps: []retryStep{retryAnswer(503, "Retry-After: 86400"), retryAnswer(200)}}
			start := time.Now()
			resp, err := over(base).RoundTrip(newRetryRequest(t, "GET", nil))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := time.Since(start); got != 0 {
				return fmt.Sprintf("slept %v", got)
			}
			return ""
		},
		"sleeps into the deadline": func(t *testing.T, over wrap) string {
			base := &retryBase{steps: []retryStep{retryAnswer(429, "Retry-After: 20")}}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			start := time.Now()
			resp, err := over(base).RoundTrip(newRetryRequest(t, "GET", nil).WithContext(ctx))
			if err != nil {
				return fmt.Sprintf("after %v: %v", time.Since(start), err)
			}
			wantRetryResponse(t, resp, err, 429)
			return ""
		},
		"loses the last response": func(t *testing.T, over wrap) string {
			base := &retryBase{steps: []retryStep{retryAnswer(503)}}
			resp, err := over(base).RoundTrip(newRetryRequest(t, "GET", nil))
			base.wantSends(t, retries+1)
			if err != nil {
				return err.Error()
			}
			wantRetryResponse(t, resp, err, 503)
			return ""
		},
		"follows redirects inside": func(t *testing.T, over wrap) string {
			base := &retryBase{steps: []retryStep{retryAnswer(302, "Location: http://elsewhere.test/"), retryAnswer(200)}}
			resp, err := over(base).RoundTrip(newRetryRequest(t, "GET", nil))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 302 {
				return fmt.Sprintf("went to %s without asking", base.sent[1].URL)
			}
			return ""
		},
		"closes the idle connections of a shared pool": func(t *testing.T, over wrap) string {
			base := &retryIdler{retryBase: retryBase{steps: []retryStep{retryFailure(errRetryDown)}}}
			if _, err := over(base).RoundTrip(newRetryRequest(t, "GET", nil)); err == nil {
				t.Fatal("no error")
			}
			if base.closed > 0 {
				return fmt.Sprintf("closed them %d times on giving up", base.closed)
			}
			return ""
		},
		"comes back at the very instant that all were told": func(t *testing.T, over wrap) string {
			base := &retryBase{steps: []retryStep{retryAnswer(429, "Retry-After: 5"), retryAnswer(200), retryAnswer(429, "Retry-After: 5"), retryAnswer(200)}}
			var waits []time.Duration
			for range 2 {
				start := time.Now()
				resp, err := over(base).RoundTrip(newRetryRequest(t, "GET", nil))
				wantRetryResponse(t, resp, err, 200)
				waits = append(waits, time.Since(start))
			}
			if waits[0] == waits[1] {
				return fmt.Sprintf("two callers after %v", waits)
			}
			return ""
		},
		"reads a date by a clock that isn't the server's": func(t *testing.T, over wrap) string {
			server := time.Now().Add(-time.Hour).UTC()
			base := &retryBase{steps: []retryStep{retryAnswer(503, "Date: "+server.Format(http.TimeFormat),
				"Retry-After: "+server.Add(20*time.Second).Format(http.TimeFormat)), retryAnswer(200)}}
			start := time.Now()
			resp, err := over(base).RoundTrip(newRetryRequest(t, "GET", nil))
			wantRetryResponse(t, resp, err, 200)
			if got := time.Since(start); got < 19*time.Second {
				return fmt.Sprintf("after %v, and the server had said 20s", got)
			}
			return ""
		},
		"doesn't wait at all if the server says 0": func(t *testing.T, over wrap) string {
			base := &retryBase{steps: []retryStep{retryAnswer(429, "Retry-After: 0"), retryAnswer(200)}}
			start := time.Now()
			resp, err := over(base).RoundTrip(newRetryRequest(t, "GET", nil))
			wantRetryResponse(t, resp, err, 200)
			if time.Since(start) == 0 {
				return "a busy loop"
			}
			return ""
		},
		"multiplies an outage": func(t *testing.T, over wrap) string {
			base := &retryBase{steps: []retryStep{retryAnswer(503)}}
			rt := over(base)
			for range 1000 {
				if resp, err := rt.RoundTrip(newRetryRequest(t, "GET", nil)); err == nil {
					resp.Body.Close()
				}
			}
			if got := len(base.sent); got > 1300 {
				return fmt.Sprintf("%d sends for 1,000 requests", got)
			}
			return ""
		},
		"sends TLS again and again to a server that speaks none": func(t *testing.T, over wrap) string {
			base := &retryBase{steps: []retryStep{retryFailure(tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"})}}
			if _, err := over(base).RoundTrip(newRetryRequest(t, "GET", nil)); err == nil {
				t.Fatal("no error")
			}
			if got := len(base.sent); got > 1 {
				return fmt.Sprintf("%d sends", got)
			}
			return ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if saw := fault(t, peer); saw == "" {
					t.Error("go-retryablehttp doesn't show this fault any more")
				} else {
					t.Log("go-retryablehttp:", saw)
				}
				if saw := fault(t, ours); saw != "" {
					t.Error("requestforge:", saw)
				}
			})
		})
	}
}
