// The bodies and transports that roundtripper.go checks with.

package authtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

var errBase = errors.New("the transport below failed")

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// reply is a response to req, with "answer" for a body.
func reply(req *http.Request, status int, header http.Header) *http.Response {
	if header == nil {
		header = make(http.Header)
	}
	return &http.Response{
		Status:     fmt.Sprintf("%d %s", status, http.StatusText(status)),
		StatusCode: status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        header.Clone(),
		Body:          io.NopCloser(strings.NewReader("answer")),
		ContentLength: int64(len("answer")),
		Request:       req,
	}
}

// answering is a transport that reads the request like a real transport and answers
// with status.
func answering(status int) http.RoundTripper {
	return roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		defer closeRequestBody(req)
		if err := context.Cause(req.Context()); err != nil {
			return nil, err
		}
		if req.Body != nil {
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return nil, err
			}
		}
		return reply(req, status, nil), nil
	})
}

func closeRequestBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// idleBase is a transport that only counts CloseIdleConnections.
type idleBase struct{ closed atomic.Int32 }

func (b *idleBase) CloseIdleConnections() { b.closed.Add(1) }
func (b *idleBase) RoundTrip(req *http.Request) (*http.Response, error) {
	closeRequestBody(req)
	return nil, errBase
}

// trackedBody is a body that counts its Closes. As with any reader, two goroutines
// must not read a trackedBody at once.
type trackedBody struct {
	x      *trial
	r      io.Reader
	end    error  // in place of io.EOF
	atEOF  func() // called before the end is reported
	closes atomic.Int32
	first  chan struct{} // closed by the first Close
}

func newBody(x *trial, content string) *trackedBody {
	return &trackedBody{x: x, r: strings.NewReader(content), end: io.EOF, first: make(chan struct{})}
}

func (b *trackedBody) Read(p []byte) (int, error) {
	if b.closes.Load() > 0 {
		return 0, errors.New("read after close")
	}
	n, err := b.r.Read(p)
	if err == io.EOF {
		err = b.end
		if b.atEOF != nil {
			b.atEOF()
		}
	}
	return n, err
}

func (b *trackedBody) Close() error {
	if b.closes.Add(1) == 1 {
		close(b.first)
	}
	return nil
}

// closed waits until the body is closed: a transport may close the body after
// RoundTrip has returned.
func (b *trackedBody) closed() error {
	if b.x.await(b.first) != nil {
		return errors.New("it was never closed")
	}
	return nil
}

func (b *trackedBody) closedOnce() error {
	if err := b.closed(); err != nil {
		return err
	}
	if n := b.closes.Load(); n != 1 {
		return fmt.Errorf("it was closed %d times", n)
	}
	return nil
}

// lockstepBody has chunks that may each be read only after the reader at the far
// end has asked for the chunk; taken counts the chunks asked for.
type lockstepBody struct {
	chunks []string
	reads  atomic.Int32
	taken  atomic.Int32
	early  atomic.Bool // a chunk was read too soon
}

func (b *lockstepBody) Read(p []byte) (int, error) {
	n := b.reads.Add(1)
	if n > b.taken.Load() {
		b.early.Store(true)
	}
	if int(n) > len(b.chunks) {
		return 0, io.EOF
	}
	return copy(p, b.chunks[n-1]), nil
}

func (b *lockstepBody) Close() error { return nil }

// meteredBody is size zero bytes of which no more than ahead may be read
// before they have arrived at the far end.
type meteredBody struct {
	size, ahead int64
	read        int64
	arrived     *atomic.Int64
	tooFar      atomic.Int64 // how many bytes were read too soon, at most
}

func (b *meteredBody) Read(p []byte) (int, error) {
	if b.read == b.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), b.size-b.read, 32<<10)
	clear(p[:n])
	b.read += n
	if lead := b.read - b.arrived.Load(); lead > b.ahead && lead > b.tooFar.Load() {
		b.tooFar.Store(lead)
	}
	return int(n), nil
}

func (b *meteredBody) Close() error { return nil }
