// How long requests wait before they are sent again, and how many may be.

package requestforge_test

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// Fifty callers who are told the same come back at different times, none earlier.
func TestRetryAfterIsSpreadUpwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var mu sync.Mutex
		seen := map[string]bool{}
		waits := map[time.Duration]bool{}
		rt := retryOver(roundTrip(func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			if !seen[req.URL.Path] {
				seen[req.URL.Path] = true
				return retryAnswer(429, "Retry-After: 5")(req)
			}
			waits[time.Since(begun)] = true
			return retryAnswer(200)(req)
		}), rf.RetryPolicy{RetryMax: 1})
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				resp, err := rt.RoundTrip(newRetryRequestTo(t, "http://api.test/"+string(rune('A'+i))))
				wantRetryResponse(t, resp, err, 200)
			})
		}
		all.Wait()
		require.Greater(t, len(waits), 10)
		for wait := range waits {
			require.GreaterOrEqual(t, wait, 5*time.Second)
			require.LessOrEqual(t, wait, 5*time.Second*5/4)
		}
	})
}

// A caller with time for the wait, and little more, isn't kept waiting for more.
func TestRetryAfterIsSpreadWithinTheDeadline(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			base := &retryBase{steps: []retryStep{retryAnswer(429, "Retry-After: 8"), retryAnswer(200)}}
			ctx, cancel := context.WithTimeout(t.Context(), 8100*time.Millisecond)
			defer cancel()
			resp, err := retryOver(base, rf.RetryPolicy{RetryMax: 1}).RoundTrip(newRetryRequest(t, "GET", nil).WithContext(ctx))
			wantRetryResponse(t, resp, err, 200)
		})
	}
}

func TestRetryAfterDateIsReadByTheServersClock(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, 0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			server := time.Now().Add(off).UTC()
			base := &retryBase{steps: []retryStep{retryAnswer(503, "Date: "+server.Format(http.TimeFormat),
				"Retry-After: "+server.Add(5*time.Second).Format(http.TimeFormat)), retryAnswer(200)}}
			begun := time.Now()
			resp, err := retryOver(base, rf.RetryPolicy{RetryMax: 1}).RoundTrip(newRetryRequest(t, "GET", nil))
			wantRetryResponse(t, resp, err, 200)
			require.InDelta(t, 5.6, time.Since(begun).Seconds(), 0.7)
		})
	}
}

// An API that is down, and 1,000 callers a second for a minute: at most a fifth more
// requests than without retries, in each second after the first. When the API is back,
// so are the retries.
func TestRetryBudgetBoundsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		sends, down := 0, true
		rt := retryOver(roundTrip(func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			sends++
			if down {
				return retryAnswer(503)(req)
			}
			return retryAnswer(200)(req)
		}), rf.RetryPolicy{RetryMax: 3})
		send := func() int {
			resp, err := rt.RoundTrip(newRetryRequest(t, "GET", nil))
			if err != nil {
				return 0 // only if the test has failed already
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			return resp.StatusCode
		}
		var all sync.WaitGroup
		requests := 0
		for range 20 {
			for range 1000 {
				requests++
				all.Go(func() { send() })
			}
			time.Sleep(time.Second)
			mu.Lock()
			require.LessOrEqual(t, sends, requests*6/5, "%d requests", requests)
			mu.Unlock()
		}
		all.Wait()
		require.Greater(t, sends, requests*21/20, "some are sent again")

		mu.Lock()
		down = false
		mu.Unlock()
		for range 1000 {
			send()
		}
		mu.Lock()
		sends, down = 0, true
		mu.Unlock()
		for range 20 {
			send()
		}
		require.Equal(t, 80, sends, "one caller alone notices nothing")
	})
}

// One request after the other, each allowed three retries: a budget for the whole.
func TestRetryBudgetBoundsARow(t *testing.T) {
	for budget, most := range map[int]int{0: 450, 10: 350, -1: 1200} {
		synctest.Test(t, func(t *testing.T) {
			base := &retryBase{steps: []retryStep{retryAnswer(503)}}
			rt := retryOver(base, rf.RetryPolicy{RetryMax: 3, Budget: budget})
			for range 300 {
				resp, err := rt.RoundTrip(newRetryRequest(t, "GET", nil))
				wantRetryResponse(t, resp, err, 503)
			}
			require.LessOrEqual(t, len(base.sent), most)
			require.GreaterOrEqual(t, len(base.sent), most*3/4)
		})
	}
}

// Only a bound on each send is wanted, and no retries.
func TestRetryAttemptTimeoutWithoutRetries(t *testing.T) {
	hangs := roundTrip(func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, context.Cause(req.Context())
	})
	policy := rf.RetryPolicy{AttemptTimeout: time.Second}
	synctest.Test(t, func(t *testing.T) {
		stack, err := rf.NewTransport(rf.Config{Base: hangs, Retry: policy})
		require.NoError(t, err)
		for _, rt := range []http.RoundTripper{stack, retryOver(hangs, policy)} {
			begun := time.Now()
			_, err := rt.RoundTrip(newRetryRequest(t, "GET", nil))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, time.Second, time.Since(begun))
		}
	})
}
