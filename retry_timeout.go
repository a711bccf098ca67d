// The bound on a single send, RetryPolicy.AttemptTimeout.

package requestforge

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// attemptTimeout is the error of a send that took longer than AttemptTimeout.
type attemptTimeout struct{ limit time.Duration }

func (e *attemptTimeout) Error() string {
	return fmt.Sprintf("requestforge: no response within AttemptTimeout, %v", e.limit)
}

// Timeout and Temporary make it a net.Error, as the timeouts of net/http are.
func (*attemptTimeout) Timeout() bool   { return true }
func (*attemptTimeout) Temporary() bool { return true }

// Is says so to errors.Is, too.
func (*attemptTimeout) Is(err error) bool { return err == context.DeadlineExceeded }

// forwardWithin is forward with d as the time for the response header.
func forwardWithin(d time.Duration, base *next, x *exchange, req *http.Request) (*http.Response, error) {
	// Not a context with a timeout: that would go on to bound the body.
	ctx, cancel := context.WithCancelCause(req.Context())
	expired := &attemptTimeout{d}
	timer := time.AfterFunc(d, func() { cancel(expired) })

	resp, err := base.forward(x, req.WithContext(ctx))

	if !timer.Stop() {
		cancel(expired) // the timer's own call of it may be yet to come
	}
	switch {
	case context.Cause(ctx) == expired: // the caller's context didn't end before
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
		return nil, expired
	case err != nil || resp == nil:
		cancel(nil)
	default:
		holdUntilRead(resp, cancel)
	}
	return resp, err
}

// holdUntilRead keeps a send's context alive until its response's body is
// read or closed.
func holdUntilRead(resp *http.Response, cancel context.CancelCauseFunc) {
	switch conn, ok := resp.Body.(io.ReadWriteCloser); {
	case resp.Body == nil || resp.Body == http.NoBody:
		cancel(nil)
	case ok:
		resp.Body = heldConn{conn, cancel}
	default:
		resp.Body = heldBody{resp.Body, cancel}
	}
}

// heldBody is the body of a response.
type heldBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.cancel(nil)
	}
	return n, err
}

// Unwrap returns the body below.
func (b heldBody) Unwrap() io.ReadCloser { return b.ReadCloser }

func (b heldBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// heldConn is the body of a 101 response, a connection that is the caller's
// now. It doesn't end when its peer is through with writing.
type heldConn struct {
	io.ReadWriteCloser
	cancel context.CancelCauseFunc
}

func (c heldConn) Close() error {
	err := c.ReadWriteCloser.Close()
	c.cancel(nil)
	return err
}

// CloseWrite is what net/http's own body of a 101 response has besides.
func (c heldConn) CloseWrite() error {
	if cw, ok := c.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return fmt.Errorf("requestforge: CloseWrite: %w", http.ErrNotSupported)
}
