// Package roundtrip has the small duties of every http.RoundTripper that wraps another
// RoundTripper.
package roundtrip

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Base returns the transport below a layer: base, or http.DefaultTransport if base is
// nil, looked up at each call so that a program may replace http.DefaultTransport.
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

// Guard calls f, and closes the body of *open, which may be nil, if f doesn't return: if a
// function of the program panics or calls runtime.Goexit.
func Guard(open **http.Response, f func()) {
	returned := false
	defer func() {
		if resp := *open; !returned && resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
	}()
	f()
	returned = true
}

// Cancel returns req.Cancel. Cancel is deprecated for callers, but http.Client sets
// Cancel for its Timeout, and net/http's own transports honour Cancel.
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

// TimeFor reports whether a wait would end before the caller gives the request up.
func TimeFor(req *http.Request, wait time.Duration) bool {
	end, ok := req.Context().Deadline()
	return !Over(req) && (!ok || time.Until(end) > max(0, wait))
}

// ErrNoTime is the error of a wait that would outlast the caller's context.
var ErrNoTime = errors.New("requestforge: the wait would outlast the context")

// errCanceled is the error for a closed Cancel channel, which carries no error.
var errCanceled = fmt.Errorf("requestforge: the caller took the request back: %w", context.Canceled)

// Cause returns the reason why the caller has given the request up, or nil.
func Cause(req *http.Request) error {
	ctx := req.Context()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if Over(req) {
		return errCanceled
	}
	return nil
}

// Sleep waits for wait. If the wait would outlast the caller's context, Sleep returns
// ErrNoTime at once. If the caller gives the request up before the end of the wait,
// Sleep returns the Cause.
func Sleep(req *http.Request, wait time.Duration) error {
	if cause := Cause(req); cause != nil {
		return cause
	}
	if !TimeFor(req, wait) {
		return ErrNoTime
	}
	if wait <= 0 {
		return nil
	}
	ctx := req.Context()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-Cancel(req):
	}
	return Cause(req)
}
