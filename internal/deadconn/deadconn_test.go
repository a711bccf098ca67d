package deadconn_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge/internal/deadconn"
)

// A request has three quarters of the time that is left when it is sent; one that is
// answered has all of the time.
func TestBound(t *testing.T) {
	late := errors.New("late")
	reused := httptrace.GotConnInfo{Reused: true}
	for name, c := range map[string]struct {
		do    func(ctx context.Context, trace *httptrace.ClientTrace)
		after time.Duration // when the context ends
		cause error
	}{
		"nothing is sent":  {func(context.Context, *httptrace.ClientTrace) {}, 20 * time.Second, context.DeadlineExceeded},
		"a new connection": {func(_ context.Context, trace *httptrace.ClientTrace) { trace.GotConn(httptrace.GotConnInfo{}) }, 15 * time.Second, late},
		"no connection":    {func(_ context.Context, trace *httptrace.ClientTrace) { trace.GetConn("h:443") }, 15 * time.Second, late},
		"an old one":       {func(_ context.Context, trace *httptrace.ClientTrace) { trace.GotConn(reused) }, 15 * time.Second, late},
		"an old one, later": {func(_ context.Context, trace *httptrace.ClientTrace) {
			time.Sleep(12 * time.Second)
			trace.GotConn(reused)
		}, 18 * time.Second, late},
		"answered": {func(_ context.Context, trace *httptrace.ClientTrace) {
			trace.GotConn(reused)
			trace.GotFirstResponseByte()
		}, 20 * time.Second, context.DeadlineExceeded},
		"without hooks":           {func(ctx context.Context, _ *httptrace.ClientTrace) { deadconn.Begin(ctx) }, 15 * time.Second, late},
		"without hooks, answered": {func(ctx context.Context, _ *httptrace.ClientTrace) { deadconn.Begin(ctx)() }, 20 * time.Second, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				whole, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				ctx, stop := deadconn.Bound(whole, func(time.Duration) error { return late })
				defer stop()
				c.do(ctx, httptrace.ContextClientTrace(ctx))
				<-ctx.Done()
				if took := time.Since(begun); took != c.after || context.Cause(ctx) != c.cause {
					t.Errorf("ended after %v: %v", took, context.Cause(ctx))
				}
			})
		})
	}
}

func TestWithoutABound(t *testing.T) {
	ctx, stop := deadconn.Bound(t.Context(), nil)
	stop()
	if ctx != t.Context() {
		t.Error("without a deadline there is a bound")
	}
	deadconn.Begin(ctx)()
}

type conn struct {
	net.Conn
	closed int
}

func (c *conn) Close() error { c.closed++; return nil }

// Idle connections from before are closed; those made since, and those that others use,
// are not.
func TestLeaveClosesIdleConnections(t *testing.T) {
	ctx := deadconn.Leave(t.Context())
	trace := httptrace.ContextClientTrace(ctx)
	old, busy, own := new(conn), new(conn), new(conn)
	trace.GotConn(httptrace.GotConnInfo{Conn: old, Reused: true, WasIdle: true})
	trace.GotConn(httptrace.GotConnInfo{Conn: busy, Reused: true})
	trace.GotConn(httptrace.GotConnInfo{Reused: true, WasIdle: true}) // as a mock may say
	trace.GotConn(httptrace.GotConnInfo{Conn: own})
	trace.GotConn(httptrace.GotConnInfo{Conn: own, Reused: true, WasIdle: true})
	if old.closed != 1 || busy.closed != 0 || own.closed != 0 {
		t.Errorf("closed %d, %d and %d times", old.closed, busy.closed, own.closed)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestTransport(t *testing.T) {
	base := new(http.Transport)
	if deadconn.Transport(t.Context(), base) != http.RoundTripper(base) || deadconn.Transport(t.Context(), nil) != http.DefaultTransport {
		t.Error("another transport without need")
	}
	left := deadconn.Leave(t.Context())
	if got, ok := deadconn.Transport(left, base).(*http.Transport); !ok || got == base || !got.DisableKeepAlives || base.DisableKeepAlives {
		t.Errorf("got %+v, want a copy that keeps no connections", got)
	}
	for ctx, want := range map[context.Context]bool{t.Context(): false, left: true} {
		req, _ := http.NewRequestWithContext(ctx, "GET", "https://h/", nil)
		var got *http.Request
		deadconn.RoundTrip(roundTripper(func(r *http.Request) (*http.Response, error) { got = r; return nil, nil }), req)
		if got.Close != want || req.Close {
			t.Errorf("Close is %v, and %v for the caller", got.Close, req.Close)
		}
	}
}
