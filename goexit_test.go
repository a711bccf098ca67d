// Functions of the program that panic, or end their goroutine, while a response is open.

package requestforge_test

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// closing is a body that counts how often bodies were closed.
type closing struct {
	io.Reader
	n *atomic.Int32
}

func (c closing) Close() error { c.n.Add(1); return nil }

// crashing is a source that does as it is told.
type crashing struct {
	n   atomic.Int32
	bad func(op string, n int32)
}

func (s *crashing) Token(context.Context) (*rf.Token, error) {
	n := s.n.Add(1)
	s.bad("token", n)
	return &rf.Token{AccessToken: strings.Repeat("x", int(n))}, nil
}

func (s *crashing) Invalidate(context.Context, *rf.Token) error {
	s.bad("invalidate", 0)
	return nil
}

func TestGoexitLeavesNoRefusalOpen(t *testing.T) {
	for name, f := range map[string]func(*rf.AuthTransport, *http.Request){
		"prepare": func(a *rf.AuthTransport, _ *http.Request) {
			n := 0
			a.Prepare = func(*http.Request, *rf.Token) error {
				if n++; n > 1 {
					runtime.Goexit()
				}
				return nil
			}
		},
		"getbody": func(a *rf.AuthTransport, r *http.Request) {
			r.GetBody = func() (io.ReadCloser, error) { runtime.Goexit(); return nil, nil }
		},
		"retry": func(a *rf.AuthTransport, r *http.Request) {
			a.Retry = func() rf.Schedule { runtime.Goexit(); return nil }
		},
		"refused": func(a *rf.AuthTransport, r *http.Request) {
			a.Refused = func(*http.Response) bool { runtime.Goexit(); return true }
		},
		"refused panics": func(a *rf.AuthTransport, r *http.Request) { a.Refused = func(*http.Response) bool { panic(1) } },
		"prepare panics": func(a *rf.AuthTransport, _ *http.Request) {
			n := 0
			a.Prepare = func(*http.Request, *rf.Token) error {
				if n++; n > 1 {
					panic(1)
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogin()
			l.takes = 0
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}})
			accept(t, p)
			var closed atomic.Int32
			opened := int32(0)
			a := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				if req.Body != nil {
					io.Copy(io.Discard, req.Body)
					req.Body.Close()
				}
				opened++
				return &http.Response{StatusCode: 401, Header: http.Header{}, Request: req, ContentLength: 1 << 20, Body: closing{strings.NewReader("x"), &closed}}, nil
			})}
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { recover() }()
				req, _ := http.NewRequest("POST", host, strings.NewReader("body"))
				f(a, req)
				a.RoundTrip(req)
			}()
			<-done
			require.Equal(t, opened, closed.Load())
		})
	}
}

func TestSourceThatCrashesLeavesNoRefusalOpen(t *testing.T) {
	for name, bad := range map[string]func(string, int32){
		"token panics": func(op string, n int32) {
			if n == 2 {
				panic(1)
			}
		},
		"token exits": func(op string, n int32) {
			if n == 2 {
				runtime.Goexit()
			}
		},
		"invalidate panics": func(op string, n int32) {
			if op == "invalidate" {
				panic(1)
			}
		},
		"invalidate exits": func(op string, n int32) {
			if op == "invalidate" {
				runtime.Goexit()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var closed, opened atomic.Int32
			a := &rf.AuthTransport{Source: &crashing{bad: bad}, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				opened.Add(1)
				return &http.Response{StatusCode: 401, Header: http.Header{}, Request: req, ContentLength: 1 << 20, Body: closing{strings.NewReader("x"), &closed}}, nil
			})}
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { recover() }()
				req, _ := http.NewRequest("GET", host, nil)
				resp, err := a.RoundTrip(req)
				if err == nil {
					resp.Body.Close()
				}
			}()
			<-done
			require.Equal(t, opened.Load(), closed.Load())
		})
	}
}

func TestRetryGoexitLeavesNoResponseOpen(t *testing.T) {
	for name, pol := range map[string]rf.RetryPolicy{
		"check":   {RetryMax: 1, CheckRetry: func(context.Context, *http.Response, error) (bool, error) { runtime.Goexit(); return true, nil }},
		"undone":  {RetryMax: 1, Undone: func(*http.Request, *http.Response, error) bool { runtime.Goexit(); return true }},
		"backoff": {RetryMax: 1, Backoff: func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { runtime.Goexit(); return 0 }},
		"getbody": {RetryMax: 1, RetryWaitMin: 1, RetryWaitMax: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var closed atomic.Int32
			opened := int32(0)
			a := &rf.RetryTransport{Policy: pol, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				opened++
				return &http.Response{StatusCode: 503, Header: http.Header{}, Request: req, ContentLength: 1 << 20, Body: closing{strings.NewReader("x"), &closed}}, nil
			})}
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { recover() }()
				req, _ := http.NewRequest("PUT", host, strings.NewReader("body"))
				if name == "getbody" {
					req.GetBody = func() (io.ReadCloser, error) { runtime.Goexit(); return nil, nil }
				}
				a.RoundTrip(req)
			}()
			<-done
			require.Equal(t, opened, closed.Load())
		})
	}
}
