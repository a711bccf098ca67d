// Package deadconn handles connections that are dead without being closed: a firewall
// has forgotten the connection, a peer has lost power, packets are swallowed. A request
// on a dead connection waits for an answer until its time is over, and the next request
// on the same HTTP/2 connection has the same end. Code that may send again uses two
// functions: Bound leaves time for another try, and Leave keeps the next try from the
// same connection.
package deadconn

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/requestforge/requestforge/internal/roundtrip"
)

type (
	watchKey struct{}
	leaveKey struct{}
)

// Bound returns a context that ends with cause if a request under the context is not
// answered within three quarters of the time that ctx has left when the request is
// sent. A slow server has three quarters of the time; after a dead connection, or a
// dead server behind a load balancer, the last quarter is left for another try. A
// response that has begun has all of the time. Each request has its own bound: a login
// of many requests, with a person to wait for in between, may take longer.
//
// Bound sees requests by their httptrace hooks, which net/http's transports call, and
// by Begin. Without a deadline in ctx there is no bound. stop releases the resources of
// Bound.
func Bound(ctx context.Context, cause func(after time.Duration) error) (bounded context.Context, stop func()) {
	end, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{end: end, over: func(after time.Duration) { cancel(cause(after)) }}
	ctx = context.WithValue(ctx, watchKey{}, w)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:              func(string) { w.sent() },
		GotConn:              func(httptrace.GotConnInfo) { w.sent() },
		GotFirstResponseByte: w.answered,
	})
	return ctx, func() {
		w.answered()
		cancel(nil)
	}
}

// Begin reports a request sent under ctx, for transports that call no hooks. The caller
// calls answered when the request has a response or has failed.
func Begin(ctx context.Context) (answered func()) {
	w, _ := ctx.Value(watchKey{}).(*watch)
	if w == nil {
		return func() {}
	}
	w.sent()
	return w.answered
}

// watch is the bound of the request that was sent last.
type watch struct {
	end  time.Time
	over func(after time.Duration)

	mu    sync.Mutex
	timer *time.Timer // guarded by mu; nil: no request waits for an answer
}

func (w *watch) sent() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	left := time.Until(w.end)
	after := left - left/4
	w.timer = time.AfterFunc(after, func() { w.over(after) })
}

func (w *watch) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// Leave returns a context for requests that must not use an existing connection.
// RoundTrip and Transport send such requests on new connections. For requests that
// other code sends through net/http, each idle connection is closed when net/http picks
// the connection, before anything is written, and net/http picks another. An HTTP/2
// connection on which other requests wait stays open, since closing the connection
// would end the other requests.
func Leave(ctx context.Context) context.Context {
	var (
		mu  sync.Mutex
		own = make(map[net.Conn]bool) // guarded by mu: the connections made since
	)
	ctx = context.WithValue(ctx, leaveKey{}, true)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		mu.Lock()
		old := info.Reused && !own[info.Conn]
		if !info.Reused {
			own[info.Conn] = true
		}
		mu.Unlock()
		if old && info.WasIdle && info.Conn != nil {
			info.Conn.Close()
			if multiplexed(info.Conn) {
				time.Sleep(noticed)
			}
		}
	}})
}

// noticed is the time for HTTP/2's reading goroutine to notice that its connection is
// closed. Only then net/http tries a request again on another connection; before, the
// request fails.
const noticed = 20 * time.Millisecond

func multiplexed(conn net.Conn) bool {
	c, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	return ok && c.ConnectionState().NegotiatedProtocol == "h2"
}

// Left reports whether a request under ctx must leave the connections from before.
func Left(ctx context.Context) bool { return ctx.Value(leaveKey{}) != nil }

// Transport returns the transport for requests under ctx: base, or
// http.DefaultTransport if base is nil. If ctx comes from Leave and base is an
// *http.Transport, Transport returns a copy without connections, which closes each new
// connection after its request: neither Request.Close nor CloseIdleConnections makes
// net/http leave a shared HTTP/2 connection.
func Transport(ctx context.Context, base http.RoundTripper) http.RoundTripper {
	base = roundtrip.Base(base)
	if t, ok := base.(*http.Transport); ok && t != nil && Left(ctx) {
		t = t.Clone()
		t.DisableKeepAlives = true
		return t
	}
	return base
}

// RoundTrip sends req through Transport. If req must not use an existing connection,
// RoundTrip sets Close in a copy of req, which transports of other kinds may honour.
func RoundTrip(base http.RoundTripper, req *http.Request) (*http.Response, error) {
	if Left(req.Context()) {
		left := *req // a RoundTripper changes no request
		left.Close = true
		req = &left
	}
	return Transport(req.Context(), base).RoundTrip(req)
}
