// What a connection that is held, or dead, does to the requests that need one.

package requestforge_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// oneServer is an API with its login beside it, and takes the token that was fetched
// last only if that is the n-th or later.
func oneServer(t *testing.T, n int32, refusal http.HandlerFunc) (url string, logins *atomic.Int32) {
	logins = new(atomic.Int32)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/login" {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"access_token":"t%d","expires_in":3600}`, logins.Add(1))
			return
		}
		if logins.Load() < n || r.Header.Get("Authorization") != fmt.Sprint("Bearer t", logins.Load()) {
			refusal(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, logins
}

func write(status, size int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, strings.Repeat("x", size))
	}
}

// With one connection for the API and the login beside it, a refused request gets its
// new token and its answer, whatever the refusal's body.
func TestHoldRefusalLeavesTheConnectionToTheLogin(t *testing.T) {
	for name, refusal := range map[string]http.HandlerFunc{
		"empty":  write(401, 0),
		"short":  write(401, 20),
		"60 KiB": write(401, 60<<10),
		"chunked": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(401)
			w.(http.Flusher).Flush()
			io.WriteString(w, "more")
		},
	} {
		for method, body := range map[string]func() io.Reader{
			"GET":  func() io.Reader { return nil },
			"POST": func() io.Reader { return io.MultiReader(strings.NewReader("pay")) },
		} {
			t.Run(name+"/"+method, func(t *testing.T) {
				t.Parallel()
				url, logins := oneServer(t, 2, refusal)
				base := &http.Transport{MaxConnsPerHost: 1}
				defer base.CloseIdleConnections()
				p := pipeline(t, rf.PipelineConfig{FetchTimeout: time.Minute, Steps: []rf.Step{{
					Name: "user", Fetcher: &rf.HTTPFetcher{URL: url + "/login", Client: &http.Client{Transport: base}},
				}}})
				tr, err := rf.NewTransport(rf.Config{Base: base, BaseURL: url, Source: p})
				require.NoError(t, err)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				req, _ := http.NewRequestWithContext(ctx, method, "/orders", body())
				resp, err := (&http.Client{Transport: tr}).Do(req)
				require.NoError(t, err, "half of FetchTimeout wasn't enough: the refusal held the connection")
				resp.Body.Close()
				require.Equal(t, 200, resp.StatusCode)
				require.EqualValues(t, 2, logins.Load())
			})
		}
	}
}

// A request that waits for its retry leaves the only connection to others.
func TestHoldWaitForARetryDelaysNobodyElse(t *testing.T) {
	waits := make(chan struct{})
	var sends atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" && sends.Add(1) == 1 {
			write(503, 10<<10)(w, r)
		}
	}))
	defer srv.Close()
	base := &http.Transport{MaxConnsPerHost: 1}
	defer base.CloseIdleConnections()
	rt := retryOver(base, rf.RetryPolicy{RetryMax: 1, Backoff: func(time.Duration, time.Duration, int, *http.Response) time.Duration {
		close(waits)
		return time.Hour
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		_, err := rt.RoundTrip(newRetryRequestTo(t, srv.URL+"/busy").WithContext(ctx))
		require.ErrorIs(t, err, context.Canceled, "the cause, and no answer of before the wait")
	})
	<-waits
	resp, err := rt.RoundTrip(newRetryRequestTo(t, srv.URL+"/other"))
	wantStatus(t, resp, err, 200)
	cancel()
	all.Wait()
}

// A body that never ends keeps its connection from no next send: neither where it has
// waited unread, nor where a function of the program has read some of it.
func TestHoldBodyThatHangsLeavesTheConnectionToTheNextSend(t *testing.T) {
	read := func(resp *http.Response) { io.ReadFull(resp.Body, make([]byte, 3)) }
	auth := func(base http.RoundTripper) *rf.AuthTransport {
		return &rf.AuthTransport{Base: base, Source: &numbered{}, Origins: []string{rf.AnyOrigin}}
	}
	for name, c := range map[string]struct {
		status int
		over   func(base http.RoundTripper) http.RoundTripper
	}{
		"refused": {401, func(base http.RoundTripper) http.RoundTripper { return auth(base) }},
		"refused, read": {401, func(base http.RoundTripper) http.RoundTripper {
			a := auth(base)
			a.Refused = func(resp *http.Response) bool { read(resp); return resp.StatusCode == 401 }
			return a
		}},
		"refused, below a timeout": {401, func(base http.RoundTripper) http.RoundTripper {
			return auth(retryOver(base, rf.RetryPolicy{AttemptTimeout: time.Minute}))
		}},
		"down": {503, func(base http.RoundTripper) http.RoundTripper { return retryOver(base, retryFast(1)) }},
		"down, read": {503, func(base http.RoundTripper) http.RoundTripper {
			p := retryFast(1)
			p.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
				if err == nil {
					read(resp)
				}
				return rf.DefaultCheckRetry(ctx, resp, err)
			}
			return retryOver(base, p)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sends atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if sends.Add(1) == 1 {
					w.WriteHeader(c.status)
					io.WriteString(w, "begun")
					w.(http.Flusher).Flush()
					<-r.Context().Done()
				}
			}))
			defer srv.Close()
			base := &http.Transport{MaxConnsPerHost: 1}
			defer base.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
			resp, err := c.over(base).RoundTrip(req)
			wantStatus(t, resp, err, 200)
		})
	}
}

func wantStatus(t *testing.T, resp *http.Response, err error, status int) {
	t.Helper()
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, status, resp.StatusCode)
}

// A connection that is dead but not closed costs a request one AttemptTimeout: the
// second send goes over another one.
func TestHoldDeadConnectionIsLeftAfterAnAttemptTimeout(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		for layers, over := range map[string]func(base http.RoundTripper, p rf.RetryPolicy) http.RoundTripper{
			"retry": func(base http.RoundTripper, p rf.RetryPolicy) http.RoundTripper { return retryOver(base, p) },
			"the stack": func(base http.RoundTripper, p rf.RetryPolicy) http.RoundTripper {
				tr, err := rf.NewTransport(rf.Config{Base: base, BaseURL: "https://api.example.com", Source: static("t"), Retry: p})
				require.NoError(t, err)
				return tr
			},
			"a foreign layer below": func(base http.RoundTripper, p rf.RetryPolicy) http.RoundTripper { return retryOver(hiding{base}, p) },
		} {
			t.Run(name+"/"+layers, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net, base := deadServer(t, h2, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
					rt := over(base, rf.RetryPolicy{RetryMax: 1, RetryWaitMin: 1, RetryWaitMax: 1, AttemptTimeout: 10 * time.Second})
					for _, most := range []time.Duration{time.Second, 11 * time.Second} {
						begun := time.Now()
						req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://api.example.com/", nil)
						resp, err := rt.RoundTrip(req)
						require.NoError(t, err)
						text, err := io.ReadAll(resp.Body)
						require.NoError(t, err)
						resp.Body.Close()
						require.Equal(t, name, string(text))
						require.Less(t, time.Since(begun), most)
						net.freeze()
					}
				})
			})
		}
	}
}
