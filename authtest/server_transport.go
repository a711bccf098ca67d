// The in-process transport of a simulator, which needs no network and so works
// inside a testing/synctest bubble. The configuration is in server.go.

package authtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Transport returns a RoundTripper that serves requests in the process, for any
// host. The RoundTripper treats a request as http.Transport does: the body is read
// as the handler asks for data and closed once, an error or wrong length of the
// body is the request's error, and the context ends both the request and the
// response. Inside a testing/synctest bubble, the Transport uses the bubble's time.
//
// An API.Handler may flush. There are no upgrades, trailers or informational
// responses.
func (s *Simulator) Transport() http.RoundTripper { return (*localTransport)(s) }

type localTransport Simulator

func (t *localTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	s := (*Simulator)(t)
	if err := s.reachable(req); err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}

	// The handler doesn't get the caller's context values, as it wouldn't
	// over a network.
	ctx, cancel := context.WithCancelCause(context.Background())
	x := &localExchange{ctx: ctx, cancel: cancel, req: req, body: req.Body, header: make(http.Header), ready: make(chan struct{})}
	x.changed = sync.NewCond(&x.mu)
	in := x.incoming() // now, as the caller may change the request once RoundTrip returns
	x.stop = context.AfterFunc(req.Context(), func() { x.breakOff(req.Context().Err(), true) })
	go x.run(s, in)

	<-x.ready
	if x.resp == nil {
		return nil, x.err
	}
	return x.resp, nil
}

// reachable returns the error of a request that can't be sent.
func (s *Simulator) reachable(req *http.Request) error {
	switch {
	case req.URL == nil:
		return errors.New("authtest: nil Request.URL")
	case req.Header == nil:
		return errors.New("authtest: nil Request.Header")
	case req.URL.Host == "":
		return errors.New("authtest: no Host in request URL")
	case req.Context().Err() != nil:
		return req.Context().Err()
	}
	at, isStep := s.routes[req.URL.Path]
	if !isStep {
		return nil
	}
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	if !down {
		return nil
	}
	s.stepRequest(req, at, ask{refresh: at.refresh || at.renew})
	return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}

// localExchange is a request on the way to the handler and back: the handler's
// ResponseWriter and the caller's response body.
type localExchange struct {
	ctx    context.Context // the handler's
	cancel context.CancelCauseFunc
	req    *http.Request // the caller's; for the response, not to be looked at
	body   io.ReadCloser // the caller's; nil: no body
	head   bool          // the response has no body
	stop   func() bool   // lets go of the caller's context

	header http.Header // the handler's, until the header is committed

	closeBody sync.Once     // of the request
	ready     chan struct{} // closed with resp or err set

	mu        sync.Mutex
	changed   *sync.Cond     // on mu: a change of a field below
	committed *http.Response // fixed by WriteHeader
	buf       []byte         // written and not yet read
	done      bool           // nothing more will be written
	resp      *http.Response // handed out; fixed once ready is closed
	err       error          // why the exchange was broken off; the first reason
	closed    bool           // the caller has closed the response
}

const (
	localHandOut = 4 << 10 // buffered bytes from which a response is handed out unflushed, as net/http does
	localBuffer  = 1 << 20 // buffered bytes from which the handler waits for the reader
)

// incoming is the request as the handler sees it.
func (x *localExchange) incoming() *http.Request {
	in := x.req.Clone(x.ctx)
	in.Body = http.NoBody
	if x.body != nil && x.body != http.NoBody {
		in.Body = &localBody{x: x, left: x.req.ContentLength}
		if in.ContentLength == 0 {
			in.ContentLength = -1
		}
	}
	if in.Method == "" {
		in.Method = http.MethodGet
	}
	if in.Host == "" {
		in.Host = in.URL.Host
	}
	in.RequestURI = in.URL.RequestURI()
	in.RemoteAddr = "192.0.2.1:1234"
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/1.1", 1, 1
	in.GetBody, in.Response = nil, nil
	//lint:ignore SA1019 a server's request has none
	in.Cancel = nil
	x.head = in.Method == http.MethodHead
	return in
}

// run calls the handler.
func (x *localExchange) run(s *Simulator, in *http.Request) {
	returned := false
	defer func() {
		err := errors.New("authtest: the handler exited its goroutine")
		if v := recover(); v == http.ErrAbortHandler {
			err = io.ErrUnexpectedEOF
		} else if v != nil {
			err = fmt.Errorf("authtest: the handler panicked: %v", v)
		}
		if returned {
			x.closeRequest()
			x.finish()
		} else {
			x.breakOff(err, false)
		}
		x.cancel(context.Canceled)
	}()
	s.ServeHTTP(x, in)
	returned = true
}

// breakOff ends the exchange with an error, unless the exchange has ended. Data
// written before can still be read, but not after the end of the caller's context.
func (x *localExchange) breakOff(err error, drop bool) {
	x.mu.Lock()
	if drop {
		x.buf = nil
	}
	if x.err == nil && (drop || !x.done) {
		x.err = err
		if x.resp == nil {
			close(x.ready)
		}
	}
	x.done = true
	x.changed.Broadcast()
	x.mu.Unlock()
	x.cancel(err)
	x.closeRequest()
}

func (x *localExchange) closeRequest() {
	if x.body != nil {
		x.closeBody.Do(func() { x.body.Close() })
	}
}

// finish ends the response.
func (x *localExchange) finish() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done {
		return
	}
	x.done = true
	x.commit(http.StatusOK)
	if x.resp == nil && x.committed.ContentLength < 0 {
		x.committed.ContentLength = int64(len(x.buf))
	}
	x.handOut()
	x.changed.Broadcast()
}

// commit fixes status and header. The caller holds x.mu.
func (x *localExchange) commit(status int) {
	if x.committed != nil {
		return
	}
	resp := &http.Response{
		Status:     fmt.Sprintf("%03d %s", status, http.StatusText(status)),
		StatusCode: status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        x.header.Clone(),
		Body:          (*localResponseBody)(x),
		ContentLength: -1,
		Request:       x.req,
	}
	if n, err := strconv.ParseInt(x.header.Get("Content-Length"), 10, 64); err == nil {
		resp.ContentLength = n
	}
	if x.header.Get("Date") == "" {
		resp.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	x.committed = resp
}

// handOut lets RoundTrip return. The caller holds x.mu.
func (x *localExchange) handOut() {
	if x.resp == nil && x.err == nil {
		x.resp = x.committed
		close(x.ready)
	}
}

// Header implements http.ResponseWriter.
func (x *localExchange) Header() http.Header { return x.header }

// WriteHeader implements http.ResponseWriter.
func (x *localExchange) WriteHeader(status int) {
	if status < 200 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.commit(status)
}

// Write implements http.ResponseWriter.
func (x *localExchange) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.committed == nil && x.header.Get("Content-Type") == "" {
		x.header.Set("Content-Type", http.DetectContentType(p))
	}
	x.commit(http.StatusOK)
	if x.head {
		return len(p), nil
	}
	if code := x.committed.StatusCode; code == http.StatusNoContent || code == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	for len(x.buf) >= localBuffer && x.err == nil && !x.closed {
		x.changed.Wait()
	}
	if x.err != nil {
		return 0, x.err
	}
	if x.closed {
		return 0, io.ErrClosedPipe
	}
	x.buf = append(x.buf, p...)
	if len(x.buf) > localHandOut {
		x.handOut()
	}
	x.changed.Broadcast()
	return len(p), nil
}

// Flush implements http.Flusher.
func (x *localExchange) Flush() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.commit(http.StatusOK)
	x.handOut()
}

// localBody is the request's body as the handler sees it.
type localBody struct {
	x    *localExchange
	left int64 // the rest of the request's ContentLength; 0 or less from the start: unknown
	read int64
	err  error
}

func (b *localBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if err := context.Cause(b.x.ctx); err != nil {
		return 0, err
	}
	n, err := b.x.body.Read(p)
	b.read += int64(n)
	known := b.left > 0
	switch {
	case known && b.read > b.left, known && err == io.EOF && b.read < b.left:
		err = fmt.Errorf("authtest: ContentLength=%d with a body of another length", b.left)
		b.x.breakOff(err, false)
	case err != nil && err != io.EOF:
		b.x.breakOff(err, false)
	}
	b.err = err
	return n, err
}

// Close does nothing: the caller's body is closed when the exchange ends.
func (b *localBody) Close() error { return nil }

// localResponseBody is the response's body as the caller sees it.
type localResponseBody localExchange

func (b *localResponseBody) Read(p []byte) (int, error) {
	x := (*localExchange)(b)
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		switch {
		case x.closed:
			return 0, errors.New("authtest: read on a closed response body")
		case len(x.buf) > 0:
			n := copy(p, x.buf)
			x.buf = x.buf[n:]
			x.changed.Broadcast()
			return n, nil
		case x.err != nil:
			return 0, x.err
		case x.done:
			x.stop()
			return 0, io.EOF
		}
		x.changed.Wait()
	}
}

func (b *localResponseBody) Close() error {
	x := (*localExchange)(b)
	x.mu.Lock()
	x.closed = true
	x.changed.Broadcast()
	x.mu.Unlock()
	x.stop()
	// As on a closed connection. A handler that is done doesn't notice.
	x.cancel(context.Canceled)
	return nil
}
