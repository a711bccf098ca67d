// Package roundtrip has the small duties of every http.RoundTripper that stands
// above another one.
package roundtrip

import (
	"io"
	"net/http"
	"time"
)

// Base returns the transport below a layer: http.DefaultTransport if none is
// set, looked up at each call so that a program that swaps it is heard.
func Base(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		return http.DefaultTransport
	}
	return base
}

// CloseIdle passes CloseIdleConnections on to the transport below, as
// http.Client does.
func CloseIdle(base http.RoundTripper) {
	if c, ok := Base(base).(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// CloseBody closes the body of a request that is not going to be sent.
func CloseBody(req *http.Request) {
	if req != nil && req.Body != nil {
		req.Body.Close()
	}
}

// Discard drains and closes the body of a response that nobody is going to see,
// so that its connection can serve again. A long or slow body isn't worth that: a
// new connection costs less.
func Discard(resp *http.Response) {
	const (
		most    = 64 << 10 // bytes
		longest = time.Second
	)
	if resp.Body == nil {
		return
	}
	if resp.ContentLength <= most {
		late := time.AfterFunc(longest, func() { resp.Body.Close() })
		io.CopyN(io.Discard, resp.Body, most)
		late.Stop()
	}
	resp.Body.Close()
}

// Cancel returns req.Cancel. It is deprecated for callers, but http.Client sets
// it for its Timeout, and net/http's own transports honour it.
func Cancel(req *http.Request) <-chan struct{} {
	//lint:ignore SA1019 see above
	return req.Cancel
}

// Over reports whether the caller has given the request up.
func Over(req *http.Request) bool {
	select {
	case <-Cancel(req):
		return true
	default:
		return req.Context().Err() != nil
	}
}

// Sleep waits, and reports whether the caller is still interested then. A wait
// that would outlast the caller's context isn't begun.
func Sleep(req *http.Request, wait time.Duration) bool {
	if wait > 0 {
		ctx := req.Context()
		if end, ok := ctx.Deadline(); ok && time.Until(end) <= wait {
			return false
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-Cancel(req):
		}
	}
	return !Over(req)
}
