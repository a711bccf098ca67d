// What becomes of a refused token that is only seconds old.

package requestforge_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// youngAPI is a login of one step and an API that knows its tokens after lag.
func youngAPI(t *testing.T, lag time.Duration) (*login, *lagging, *rf.AuthTransport) {
	l := newLogin()
	l.takes = 0
	a := &lagging{lag: lag, born: map[string]time.Time{}}
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{a.fetcher(l, "user")}})
	return l, a, &rf.AuthTransport{Source: p, Origins: []string{host}, Base: a, Retry: rf.SimpleAuthRetry(1, 0)}
}

func TestAuthTokenThatTheAPIDoesntKnowYetIsSentAgain(t *testing.T) {
	for name, c := range map[string]struct {
		lag, took time.Duration
		retry     rf.AuthRetryStrategy
	}{
		"half a second":  {500 * time.Millisecond, 750 * time.Millisecond, nil},
		"two seconds":    {2 * time.Second, 3 * time.Second, rf.ExponentialAuthRetry(5, time.Second, 8*time.Second)},
		"without replay": {time.Millisecond, 250 * time.Millisecond, rf.SimpleAuthRetry(0, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, _, rt := youngAPI(t, c.lag)
				rt.Retry = c.retry
				begun := time.Now()
				require.Equal(t, 200, get(t, rt, host).StatusCode)
				require.Equal(t, c.took, time.Since(begun))
				require.Equal(t, 1, l.fetches("user"))
			})
		})
	}
}

// One of a thousand callers tries, and the others wait for what that one finds.
func TestAuthYoungTokenIsTriedByOneCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, rt := youngAPI(t, 500*time.Millisecond)
		var wg sync.WaitGroup
		var served atomic.Int32
		for range 1000 {
			wg.Go(func() {
				req, _ := http.NewRequestWithContext(t.Context(), "GET", host, nil)
				if resp, err := rt.RoundTrip(req); err == nil && resp.StatusCode == 200 {
					served.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1000, served.Load())
		require.Equal(t, 1, l.fetches("user"))
		require.Equal(t, 2001, a.sends, "two each, and one in vain")
	})
}

// If the caller that tries leaves, or its answer proves nothing, another one does.
func TestAuthYoungTokenIsTriedByTheNextCaller(t *testing.T) {
	for name, brk := range map[string]func(n int) bool{
		"it leaves":        func(int) bool { return false },
		"it gets an error": func(n int) bool { return n == 3 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, a, rt := youngAPI(t, 1500*time.Millisecond)
				var sends atomic.Int32
				rt.Base = roundTrip(func(req *http.Request) (*http.Response, error) {
					if brk(int(sends.Add(1))) {
						return reply(req, 503), nil
					}
					return a.RoundTrip(req)
				})
				mustToken(t, rt.Source.(*rf.Pipeline))
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				var wg sync.WaitGroup
				wg.Go(func() {
					req, _ := http.NewRequestWithContext(ctx, "GET", host, nil)
					rt.RoundTrip(req)
				})
				time.Sleep(time.Millisecond)
				wg.Go(func() { require.Equal(t, 200, get(t, rt, host).StatusCode) })
				wg.Wait()
				require.Equal(t, 1, l.fetches("user"))
			})
		})
	}
}

// A refusal that arrives after another request was accepted says nothing if it was
// sent before.
func TestAuthLateRefusalOfAYoungTokenIsNoRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, rt := youngAPI(t, 100*time.Millisecond)
		rt.Base = roundTrip(func(req *http.Request) (*http.Response, error) {
			resp, err := a.RoundTrip(req)
			if req.Header.Get("Slow") != "" && resp.StatusCode == 401 {
				time.Sleep(time.Second)
			}
			return resp, err
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", host, nil)
			req.Header.Set("Slow", "1")
			resp, err := rt.RoundTrip(req)
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
		})
		time.Sleep(200 * time.Millisecond)
		require.Equal(t, 200, get(t, rt, host).StatusCode)
		wg.Wait()
		require.Equal(t, 1, l.fetches("user"))
	})
}

// A token that stays refused costs 3 s. Its successors cost none, until one was
// accepted.
func TestAuthYoungTokenIsWaitedForInVainOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		sends, good := 0, ""
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Retry: rf.SimpleAuthRetry(2, 0), Base: api(func(tok string) bool { sends++; return tok == good })}
		took := func() time.Duration {
			begun := time.Now()
			get(t, rt, host)
			return time.Since(begun)
		}
		require.Equal(t, 3*time.Second, took())
		require.Equal(t, 7, sends, "five with the first token, one with each other")
		require.Equal(t, "1 2 3", fmt.Sprint(l.fetches("device"), " ", l.fetches("app"), " ", l.fetches("user")))
		require.Zero(t, took())
		time.Sleep(time.Minute)
		good = mustToken(t, p).AccessToken
		require.Zero(t, took(), "accepted")
		good = "none"
		require.Equal(t, 3*time.Second, took(), "revoked; its successor is waited for")
	})
}

// Who can't wait comes back at once; who has little time within that time.
func TestAuthYoungTokenIsWaitedForWithinTheCallersMeans(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(req *http.Request) *http.Request
		took    time.Duration
		fetches int // with the next token
		cause   error
	}{
		"a body that can't be sent again": {func(req *http.Request) *http.Request {
			req.Body = io.NopCloser(strings.NewReader(strings.Repeat("x", 100<<10)))
			return req
		}, 0, 2, nil},
		"a deadline too near": {func(req *http.Request) *http.Request {
			ctx, cancel := context.WithTimeout(req.Context(), 400*time.Millisecond)
			t.Cleanup(cancel)
			return req.WithContext(ctx)
		}, 250 * time.Millisecond, 1, nil},
		"Cancel": {func(req *http.Request) *http.Request {
			left := make(chan struct{})
			time.AfterFunc(400*time.Millisecond, func() { close(left) })
			//lint:ignore SA1019 http.Client sets it, too
			req.Cancel = left
			return req
		}, 400 * time.Millisecond, 1, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, _, rt := youngAPI(t, 2*time.Second)
				req, _ := http.NewRequestWithContext(t.Context(), "POST", host, nil)
				begun := time.Now()
				resp, err := rt.RoundTrip(c.change(req))
				require.ErrorIs(t, err, c.cause)
				if c.cause == nil {
					require.Equal(t, 401, resp.StatusCode)
					body, err := io.ReadAll(resp.Body)
					require.NoError(t, err)
					require.Equal(t, "answer", string(body))
				}
				require.Equal(t, c.took, time.Since(begun))
				mustToken(t, rt.Source.(*rf.Pipeline))
				require.Equal(t, c.fetches, l.fetches("user"))
			})
		})
	}
}

// Callers without time don't keep a bad token: after 3 s the next one replaces it.
func TestAuthYoungTokenIsReplacedByCallersWithoutTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, rt := youngAPI(t, time.Hour)
		send := func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "GET", host, nil)
			rt.RoundTrip(req)
		}
		for begun := time.Now(); time.Since(begun) < 2900*time.Millisecond; {
			send()
			time.Sleep(100 * time.Millisecond)
		}
		require.Equal(t, 1, l.fetches("user"))
		send()
		require.Equal(t, 2, l.fetches("user"))
	})
}

// The sends are counted, in the log record and for the layers above.
func TestAuthYoungTokensSendsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, rt := youngAPI(t, 500*time.Millisecond)
		var log bytes.Buffer
		lt := &rf.LoggingTransport{Base: rt, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		require.Equal(t, 200, get(t, lt, host).StatusCode)
		require.Contains(t, log.String(), "replayed=2")
	})
}

// A token that another process has saved a moment ago is as young.
func TestAuthYoungTokenOfAPeerIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		a := &lagging{lag: 500 * time.Millisecond, born: map[string]time.Time{}}
		storage := rf.NewMemoryStorage()
		cfg := rf.PipelineConfig{Storage: storage, Steps: []rf.Step{a.fetcher(l, "app"), a.fetcher(l, "user", "app")}}
		a.lag = 0
		mustToken(t, pipeline(t, cfg))
		a.lag = 500 * time.Millisecond
		require.Equal(t, 200, get(t, &rf.AuthTransport{Source: pipeline(t, cfg), Origins: []string{host}, Base: a}, host).StatusCode)
		require.Equal(t, "1 1", fmt.Sprint(l.fetches("app"), " ", l.fetches("user")))
	})
}
