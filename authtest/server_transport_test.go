package authtest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

// openAPI is a simulator whose API is h, for everyone.
func openAPI(h http.HandlerFunc) *authtest.Simulator {
	cfg := oneStep(nil)
	cfg.API = authtest.API{Open: []string{"/api"}, Handler: h}
	return authtest.NewSimulator(cfg)
}

// countedBody counts how often it is closed.
type countedBody struct {
	io.Reader
	closes atomic.Int32
}

func (b *countedBody) Close() error { b.closes.Add(1); return nil }

func post(t *testing.T, ctx context.Context, sim *authtest.Simulator, body io.Reader, length int64) (*http.Response, *countedBody, error) {
	t.Helper()
	b := &countedBody{Reader: body}
	req, err := http.NewRequestWithContext(ctx, "POST", sim.URL+"/api", b)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = length
	resp, err := sim.Transport().RoundTrip(req)
	if err == nil && resp.Request != req {
		t.Error("the response's Request is another")
	}
	return resp, b, err
}

func drain(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }

func TestTransportClosesTheRequestBodyOnce(t *testing.T) {
	errReader := errors.New("the reader failed")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name   string
		ctx    context.Context
		h      http.HandlerFunc
		body   io.Reader
		length int64
		want   func(error) bool
	}{
		{"read", t.Context(), drain, strings.NewReader("hello"), 5, nil},
		{"unknown length", t.Context(), drain, strings.NewReader("hello"), -1, nil},
		{"unread", t.Context(), func(http.ResponseWriter, *http.Request) {}, strings.NewReader("hello"), 5, nil},
		{"closed by the handler", t.Context(), func(w http.ResponseWriter, r *http.Request) { r.Body.Close() }, strings.NewReader("hello"), 5, nil},
		{"too short", t.Context(), drain, strings.NewReader("hell"), 5, func(err error) bool { return strings.Contains(err.Error(), "ContentLength=5") }},
		{"too long", t.Context(), drain, strings.NewReader("hello!"), 5, func(err error) bool { return strings.Contains(err.Error(), "ContentLength=5") }},
		{"broken", t.Context(), drain, io.MultiReader(strings.NewReader("he"), failing{errReader}), 5, func(err error) bool { return err == errReader }},
		{"context over", canceled, drain, strings.NewReader("hello"), 5, func(err error) bool { return err == context.Canceled }},
		{"aborted", t.Context(), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, strings.NewReader("hello"), 5,
			func(err error) bool { return err == io.ErrUnexpectedEOF }},
		{"panic", t.Context(), func(http.ResponseWriter, *http.Request) { panic("oh") }, strings.NewReader("hello"), 5,
			func(err error) bool { return strings.Contains(err.Error(), "handler panicked: oh") }},
		{"Goexit", t.Context(), func(http.ResponseWriter, *http.Request) { runtime.Goexit() }, strings.NewReader("hello"), 5,
			func(err error) bool { return strings.Contains(err.Error(), "handler exited") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				resp, body, err := post(t, c.ctx, openAPI(c.h), c.body, c.length)
				if err != nil && (c.want == nil || resp != nil || !c.want(err)) || err == nil && c.want != nil {
					t.Errorf("got %v, %v", resp, err)
				}
				if err == nil {
					resp.Body.Close()
				}
				synctest.Wait()
				if n := body.closes.Load(); n != 1 {
					t.Errorf("the body was closed %d times", n)
				}
			})
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestTransportRefusesBrokenRequests(t *testing.T) {
	sim := openAPI(drain)
	for want, change := range map[string]func(*http.Request){
		"nil Request.URL":    func(r *http.Request) { r.URL = nil },
		"nil Request.Header": func(r *http.Request) { r.Header = nil },
		"no Host":            func(r *http.Request) { r.URL.Host = "" },
	} {
		body := &countedBody{Reader: strings.NewReader("x")}
		req, _ := http.NewRequest("POST", sim.URL+"/api", body)
		change(req)
		resp, err := sim.Transport().RoundTrip(req)
		if err == nil || resp != nil || !strings.Contains(err.Error(), want) || body.closes.Load() != 1 {
			t.Errorf("%s: got %v, %v, closed %d times", want, resp, err, body.closes.Load())
		}
	}
}

func TestTransportShowsTheHandlerAServersRequest(t *testing.T) {
	type key struct{}
	var got *http.Request
	sim := openAPI(func(w http.ResponseWriter, r *http.Request) {
		got = r
		if r.Context().Value(key{}) != nil {
			t.Error("the client's context values cross the network")
		}
	})
	req, _ := http.NewRequestWithContext(context.WithValue(t.Context(), key{}, 1), "", "https://other.test/api?a=b", nil)
	resp, err := sim.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got.Method != "GET" || got.Host != "other.test" || got.RequestURI != "/api?a=b" || got.Body == nil || got.RemoteAddr == "" || got.ContentLength != 0 {
		t.Errorf("the handler got %+v", got)
	}
}

func TestTransportResponses(t *testing.T) {
	for _, c := range []struct {
		name, method string
		h            http.HandlerFunc
		status       int
		length       int64
		kind, body   string
	}{
		{"nothing", "GET", func(http.ResponseWriter, *http.Request) {}, 200, 0, "", ""},
		{"text", "GET", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }, 200, 5, "text/plain; charset=utf-8", "hello"},
		{"status", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(103)
			w.WriteHeader(404)
			w.WriteHeader(500)
		}, 404, 0, "", ""},
		{"own length", "HEAD", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "a/b")
			w.Header().Set("Content-Length", "7")
			io.WriteString(w, "1234567")
		}, 200, 7, "a/b", ""},
		{"no content", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(204)
			if _, err := io.WriteString(w, "x"); err != http.ErrBodyNotAllowed {
				t.Errorf("error is %v", err)
			}
		}, 204, 0, "", ""},
		{"late header", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.Header().Set("Content-Type", "late")
		}, 200, 0, "", ""},
		{"large", "GET", func(w http.ResponseWriter, r *http.Request) {
			for range 3 << 10 {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<10)); err != nil {
					t.Error(err)
				}
			}
		}, 200, -1, "text/plain; charset=utf-8", strings.Repeat("x", 3<<20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			sim := openAPI(c.h)
			req, _ := http.NewRequestWithContext(t.Context(), c.method, sim.URL+"/api", nil)
			resp, err := sim.Transport().RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil || string(b) != c.body || resp.StatusCode != c.status || resp.ContentLength != c.length || resp.Header.Get("Content-Type") != c.kind || resp.Header.Get("Date") == "" {
				t.Errorf("got %+v with %d bytes, %v", resp, len(b), err)
			}
		})
	}
}

func TestTransportStreamsWhatIsFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := openAPI(func(w http.ResponseWriter, r *http.Request) {
			for _, s := range []string{"one ", "two "} {
				io.WriteString(w, s)
				w.(http.Flusher).Flush()
				select {
				case <-time.After(time.Hour):
				case <-r.Context().Done():
					return
				}
			}
		})
		start := time.Now()
		resp, _, err := post(t, t.Context(), sim, strings.NewReader(""), -1)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		n, err := resp.Body.Read(buf)
		if string(buf[:n]) != "one " || err != nil || time.Since(start) != 0 {
			t.Errorf("read %q, %v after %v", buf[:n], err, time.Since(start))
		}
		b, err := io.ReadAll(resp.Body)
		if string(b) != "two " || err != nil || time.Since(start) != 2*time.Hour {
			t.Errorf("read %q, %v after %v", b, err, time.Since(start))
		}
		resp.Body.Close()

		// A client that leaves ends the handler's context.
		if resp, _, err = post(t, t.Context(), sim, strings.NewReader(""), -1); err != nil {
			t.Fatal(err)
		}
		start = time.Now()
		resp.Body.Close()
		synctest.Wait()
		if _, err := resp.Body.Read(buf); err == nil {
			t.Error("a closed body can be read")
		}
		if time.Since(start) != 0 {
			t.Error("the handler went on")
		}
	})
}

func TestTransportHandlerWaitsForASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written atomic.Int64
		failed := make(chan error, 1)
		sim := openAPI(func(w http.ResponseWriter, r *http.Request) {
			for {
				n, err := w.Write(make([]byte, 64<<10))
				written.Add(int64(n))
				if err != nil {
					failed <- err
					return
				}
			}
		})
		resp, _, err := post(t, t.Context(), sim, strings.NewReader(""), -1)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := written.Load(); n > 2<<20 {
			t.Errorf("%d bytes are buffered", n)
		}
		resp.Body.Close()
		if err := <-failed; err == nil {
			t.Error("the handler can write to nobody")
		}
	})
}

func TestTransportContextEndsTheResponseToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := openAPI(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
		ctx, cancel := context.WithCancel(t.Context())
		resp, _, err := post(t, ctx, sim, strings.NewReader("x"), 1)
		if err != nil {
			t.Fatal(err)
		}
		// A layer that cancels its context as it returns breaks the body,
		// small as it is.
		cancel()
		synctest.Wait()
		if b, err := io.ReadAll(resp.Body); err != context.Canceled || len(b) > 0 {
			t.Errorf("read %q, %v", b, err)
		}
		resp.Body.Close()

		// A handler that is deaf to its context keeps nobody.
		wake := make(chan struct{})
		sim = openAPI(func(http.ResponseWriter, *http.Request) { <-wake })
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, _, err := post(t, ctx, sim, strings.NewReader("x"), 1); err != context.DeadlineExceeded {
			t.Errorf("error is %v", err)
		}
		close(wake)
	})
}

// Two hundred requests are in flight with one revoked token, inside a bubble.
func TestTransportHoldsRefusalsInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(threeSteps())
		s := login(t, sim)
		sim.Revoke("user")
		gate := sim.HoldRefusals()
		var refused atomic.Int32
		for range 200 {
			go func() {
				r, err := try(t.Context(), sim, "POST", "/api", "body", "Authorization: Bearer "+s.user)
				if err != nil {
					t.Error(err)
				}
				if r.status == 401 {
					refused.Add(1)
				}
			}()
		}
		synctest.Wait()
		if got := gate.Held(); got != 200 {
			t.Fatalf("%d are held", got)
		}
		for i := range 200 {
			gate.Release(1)
			synctest.Wait()
			if got := refused.Load(); got != int32(i+1) {
				t.Fatalf("after %d releases %d are refused", i+1, got)
			}
		}
	})
}
