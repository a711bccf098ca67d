// The contract of RoundTrippers that wrap another RoundTripper, as a test for any
// implementation. The fake transports and bodies are in roundtripper_fakes.go.

package authtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestRoundTripper checks that a RoundTripper which wraps another RoundTripper
// keeps the documented promises of net/http, and the undocumented promises that
// callers rely on:
//
//   - the request isn't modified, and its body is closed exactly once on every path
//   - RoundTrip returns a response or an error; an error from below is passed on
//     unchanged, and a response with any status is no error
//   - neither body is buffered, lengths and trailers arrive, and an upgraded
//     connection is still a connection
//   - the response's Request is the caller's request
//   - the context reaches the transport below, with its values, hooks and end
//   - the RoundTripper follows no redirect, and may be used by many goroutines at
//     once
//
// TestRoundTripper calls wrap once for each check, and expects a RoundTripper on
// top of next. Requests go to https://roundtripper.test and to servers on loopback.
// A RoundTripper may add to the request, or send the request more than once, as
// long as the caller doesn't notice and no send is delayed for seconds. Unwrap and
// CloseIdleConnections are checked if the RoundTripper has such methods. Run the
// test with the race detector.
//
// To test a layer that adds a header:
//
//	func TestMyTransport(t *testing.T) {
//		authtest.TestRoundTripper(t, func(next http.RoundTripper) http.RoundTripper {
//			return &MyTransport{Base: next}
//		})
//	}
func TestRoundTripper(t *testing.T, wrap func(next http.RoundTripper) http.RoundTripper) {
	for _, c := range roundTripperChecks {
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(wrap, 10*time.Second); err != nil {
				t.Errorf("%s: %v", c.promise, err)
			}
		})
	}
}

// roundTripperCheck is a promise, and a check that detects a breach of the promise.
type roundTripperCheck struct {
	name    string
	promise string
	check   func(*trial) error
}

// run checks the promise on a fresh RoundTripper. patience bounds the time for
// events that should happen at once.
func (c roundTripperCheck) run(wrap func(http.RoundTripper) http.RoundTripper, patience time.Duration) (err error) {
	x := &trial{wrap: wrap, patience: patience, over: make(chan struct{})}
	defer func() {
		close(x.over)
		for _, f := range slices.Backward(x.cleanups) {
			f()
		}
		if v := recover(); v != nil {
			err = fmt.Errorf("it panicked: %v", v)
		}
	}()
	return c.check(x)
}

// The order is the order of the list above, and shows which mistake to repair
// first.
var roundTripperChecks = []roundTripperCheck{
	{"RequestUnchanged", "the caller's request is left as it was", checkRequestUnchanged},
	{"NilHeader", "a request without a header map is no reason to panic, nor to give it one", checkNilHeader},
	{"NilURL", "a request without a URL is no reason to panic", checkNilURL},

	{"BodyClosed/Success", "the request's body is closed exactly once", checkClosedOnSuccess},
	{"BodyClosed/BaseError", "the request's body is closed exactly once when the transport fails", checkClosedOnBaseError},
	{"BodyClosed/BaseErrorMidway", "the request's body is closed exactly once when the transport fails while it reads it", checkClosedOnBaseErrorMidway},
	{"BodyClosed/ReaderError", "the request's body is closed exactly once when reading it fails", checkClosedOnReaderError},
	{"BodyClosed/EarlyAnswer", "the request's body is closed exactly once when the answer comes before it is read", checkClosedOnEarlyAnswer},
	{"BodyClosed/StillReading", "the request's body is closed exactly once when it is still being read after the answer", checkClosedWhileReading},
	{"BodyClosed/ContextDone", "the request's body is closed exactly once when the context is over from the start", checkClosedOnContextDone},

	{"ErrorAsItIs", "an error from below goes up as it is, without a response", checkErrorAsItIs},
	{"StatusIsNoError", "a response is a response, whatever its status", checkStatusIsNoError},
	{"AnswersClosed", "a request that is sent again has its whole body again, and the answer before is closed", checkAnswersClosed},
	{"RedirectNotFollowed", "redirects are left to http.Client", checkRedirectNotFollowed},
	{"ResponseRequest", "the response's Request is the caller's own", checkResponseRequest},

	{"ResponseUnread", "the response's body is left for the caller to read", checkResponseUnread},
	{"RequestStreamed", "the request's body is sent as it comes", checkRequestStreamed},
	{"RequestUnbuffered", "the request's body isn't buffered", checkRequestUnbuffered},
	{"BodyArrives", "the request's body arrives byte for byte, and its length is told where it is known", checkBodyArrives},
	{"RequestTrailer", "a request trailer that is set while the body is read arrives", checkRequestTrailer},
	{"ResponseTrailer", "a response trailer arrives", checkResponseTrailer},
	{"SwitchingProtocols", "the body of a 101 response is an io.ReadWriteCloser", checkSwitchingProtocols},

	{"ContextValues", "the context's values reach the transport below", checkContextValues},
	{"Trace", "httptrace hooks fire, also for 1xx responses", checkTrace},
	{"Cancel", "the end of the context reaches the transport below", checkCancel},
	{"Concurrent", "it may be used by many goroutines at once", checkConcurrent},
	{"Unwrap", "Unwrap leads to the transport below", checkUnwrap},
	{"CloseIdleConnections", "CloseIdleConnections reaches the transport below", checkCloseIdleConnections},
}

// trial is a run of a check.
type trial struct {
	wrap     func(http.RoundTripper) http.RoundTripper
	patience time.Duration
	over     chan struct{} // closed at the end, to release blocked fakes
	cleanups []func()
}

func (x *trial) cleanup(f func()) { x.cleanups = append(x.cleanups, f) }

// errHangs is the error of await after waiting for too long.
var errHangs = errors.New("it hangs")

func (x *trial) await(ch <-chan struct{}) error {
	timer := time.NewTimer(x.patience)
	defer timer.Stop()
	select {
	case <-ch:
		return nil
	case <-timer.C:
		return errHangs
	}
}

// result is the outcome of a RoundTrip.
type result struct {
	resp *http.Response
	err  error
}

// send wraps next and sends req through it.
func (x *trial) send(next http.RoundTripper, req *http.Request) (result, error) {
	rt := x.wrap(next)
	if rt == nil {
		return result{}, errors.New("wrap returned nil")
	}
	return x.roundTrip(rt, req)
}

// roundTrip calls rt, and checks the promises of every call: the call returns,
// doesn't panic, and returns a response or an error.
func (x *trial) roundTrip(rt http.RoundTripper, req *http.Request) (result, error) {
	var res result
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		res.resp, res.err = rt.RoundTrip(req)
	}()
	if err := x.await(done); err != nil {
		return result{}, fmt.Errorf("RoundTrip doesn't return: %w", err)
	}
	switch {
	case panicked != nil:
		return result{}, fmt.Errorf("RoundTrip panicked: %v", panicked)
	case res.resp == nil && res.err == nil:
		return result{}, errors.New("there is neither a response nor an error")
	case res.resp != nil && res.err != nil:
		return result{}, fmt.Errorf("there is both a response and an error: %v", res.err)
	case res.resp != nil && res.resp.Body == nil:
		return result{}, errors.New("the response's Body is nil")
	case res.resp != nil:
		x.cleanup(func() { res.resp.Body.Close() })
	}
	return res, nil
}

// answered is send for requests that ought to have an answer.
func (x *trial) answered(next http.RoundTripper, req *http.Request) (*http.Response, error) {
	res, err := x.send(next, req)
	if err != nil {
		return nil, err
	}
	if res.err != nil {
		return nil, fmt.Errorf("there is an error instead of the response: %w", res.err)
	}
	return res.resp, nil
}

// request makes a request that POSTs body, which may be nil.
func request(body io.Reader) *http.Request {
	req, err := http.NewRequest(http.MethodPost, "https://roundtripper.test/a/b?c=d", body)
	if err != nil {
		panic(err) // the arguments are right
	}
	return req
}

func checkRequestUnchanged(x *trial) error {
	for _, status := range []int{200, 401, 404} {
		body := newBody(x, "hello")
		req := request(nil)
		req.Body, req.ContentLength = body, 5
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("hello")), nil }
		req.Host = "other.test"
		req.Header = http.Header{"X-Many": {"a", "b"}, "x-odd-case": {"c"}, "User-Agent": {"contract"}}
		req.Trailer = http.Header{"X-Sum": {"0"}}
		req.TransferEncoding = []string{"identity"}
		same := snapshot(req)
		resp, err := x.answered(answering(status), req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if err := same(); err != nil {
			return err
		}
	}
	return nil
}

// snapshot returns a function that reports which field of req has changed since,
// directly or behind a pointer.
func snapshot(req *http.Request) func() error {
	was := *req
	ctx, target := req.Context(), *req.URL
	header, trailer := req.Header.Clone(), req.Trailer.Clone()
	encoding := slices.Clone(req.TransferEncoding)
	identity := func(v reflect.Value) any {
		switch v.Kind() {
		case reflect.Map, reflect.Slice, reflect.Func, reflect.Pointer, reflect.Chan:
			return v.UnsafePointer()
		}
		return v.Interface()
	}
	return func() error {
		before, after := reflect.ValueOf(&was).Elem(), reflect.ValueOf(req).Elem()
		for i := range before.NumField() {
			f := before.Type().Field(i)
			if f.IsExported() && identity(before.Field(i)) != identity(after.Field(i)) {
				return fmt.Errorf("Request.%s is another than before", f.Name)
			}
		}
		switch {
		case req.Context() != ctx:
			return errors.New("the request's context is another than before")
		case *req.URL != target:
			return fmt.Errorf("the URL was %v and is %v", &target, req.URL)
		case !maps.EqualFunc(req.Header, header, slices.Equal):
			return errors.New("the header map has changed")
		case !maps.EqualFunc(req.Trailer, trailer, slices.Equal):
			return errors.New("the trailer map has changed")
		case !slices.Equal(req.TransferEncoding, encoding):
			return errors.New("Request.TransferEncoding has changed")
		}
		return nil
	}
}

func checkNilHeader(x *trial) error {
	req := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "https", Host: "roundtripper.test", Path: "/"}}
	if _, err := x.send(answering(200), req); err != nil {
		return err
	}
	if req.Header != nil {
		return errors.New("the request has a header map now")
	}
	return nil
}

func checkNilURL(x *trial) error {
	body := newBody(x, "hello")
	req := &http.Request{Method: http.MethodPost, Header: make(http.Header), Body: body}
	res, err := x.send(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		req.Body.Close()
		if req.URL == nil {
			return nil, errors.New("nil Request.URL")
		}
		return reply(req, 200, nil), nil
	}), req)
	if err != nil {
		return err
	}
	if req.URL != nil {
		return errors.New("the request has a URL now")
	}
	if res.err == nil {
		res.resp.Body.Close()
	}
	return body.closedOnce()
}

// closedAfter sends a request, closes the response if there is a response, and then
// checks the request's body.
func (x *trial) closedAfter(next http.RoundTripper, req *http.Request, body *trackedBody) (result, error) {
	req.Body = body
	res, err := x.send(next, req)
	if err != nil {
		return res, err
	}
	if res.resp != nil {
		io.Copy(io.Discard, res.resp.Body)
		res.resp.Body.Close()
	}
	return res, body.closedOnce()
}

func checkClosedOnSuccess(x *trial) error {
	for _, status := range []int{200, 401, 403, 404, 500, 503} {
		if _, err := x.closedAfter(answering(status), request(nil), newBody(x, "hello")); err != nil {
			return fmt.Errorf("after status %d: %w", status, err)
		}
	}
	return nil
}

func checkClosedOnBaseError(x *trial) error {
	_, err := x.closedAfter(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		req.Body.Close()
		return nil, errBase
	}), request(nil), newBody(x, "hello"))
	return err
}

func checkClosedOnBaseErrorMidway(x *trial) error {
	_, err := x.closedAfter(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		io.ReadFull(req.Body, make([]byte, 3))
		req.Body.Close()
		return nil, errBase
	}), request(nil), newBody(x, "hello"))
	return err
}

func checkClosedOnReaderError(x *trial) error {
	errReader := errors.New("the reader failed")
	body := newBody(x, "hello")
	body.end = errReader
	res, err := x.closedAfter(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		_, err := io.Copy(io.Discard, req.Body)
		req.Body.Close()
		if err != nil {
			return nil, err
		}
		return reply(req, 200, nil), nil
	}), request(nil), body)
	if err == nil && res.err != errReader {
		err = fmt.Errorf("the reader's error came out as %v", res.err)
	}
	return err
}

func checkClosedOnEarlyAnswer(x *trial) error {
	for _, status := range []int{200, 401, 413} {
		_, err := x.closedAfter(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
			req.Body.Close()
			return reply(req, status, nil), nil
		}), request(nil), newBody(x, strings.Repeat("hello", 50_000)))
		if err != nil {
			return fmt.Errorf("after status %d: %w", status, err)
		}
	}
	return nil
}

func checkClosedWhileReading(x *trial) error {
	for _, status := range []int{200, 401, 413} {
		var readers sync.WaitGroup
		body := newBody(x, strings.Repeat("hello", 50_000))
		_, err := x.closedAfter(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
			in := req.Body
			io.ReadFull(in, make([]byte, 3))
			readers.Go(func() {
				io.Copy(io.Discard, in)
				in.Close()
			})
			return reply(req, status, nil), nil
		}), request(nil), body)
		readers.Wait() // the readers may close the body again
		if err == nil {
			err = body.closedOnce()
		}
		if err != nil {
			return fmt.Errorf("after status %d: %w", status, err)
		}
	}
	return nil
}

func checkClosedOnContextDone(x *trial) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	res, err := x.closedAfter(answering(200), request(nil).WithContext(ctx), newBody(x, "hello"))
	if err == nil && !errors.Is(res.err, context.Canceled) {
		err = fmt.Errorf("the error is %v, and not context.Canceled", res.err)
	}
	return err
}

func checkErrorAsItIs(x *trial) error {
	for _, want := range []error{errBase, io.ErrUnexpectedEOF, &net.OpError{Op: "dial", Err: errBase}} {
		res, err := x.send(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
			req.Body.Close()
			return nil, want
		}), request(strings.NewReader("hello")))
		if err != nil {
			return err
		}
		if res.err != want {
			return fmt.Errorf("%#v came out as %#v", want, res.err)
		}
	}
	return nil
}

func checkStatusIsNoError(x *trial) error {
	for _, status := range []int{202, 400, 401, 403, 404, 500, 503, 599} {
		resp, err := x.answered(answering(status), request(strings.NewReader("hello")))
		if err != nil {
			return fmt.Errorf("status %d: %w", status, err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != status || err != nil || string(b) != "answer" {
			return fmt.Errorf("status %d came out as %d, its body as %q, %v", status, resp.StatusCode, b, err)
		}
	}
	return nil
}

func checkAnswersClosed(x *trial) error {
	for status, header := range map[int]http.Header{
		401: {"Www-Authenticate": {`Bearer error="invalid_token"`}},
		429: {"Retry-After": {"0"}},
		503: {"Retry-After": {"0"}},
	} {
		if err := checkAnswersClosedAfter(x, status, header); err != nil {
			return fmt.Errorf("status %d: %w", status, err)
		}
	}
	return nil
}

func checkAnswersClosedAfter(x *trial, status int, header http.Header) error {
	var mu sync.Mutex
	var answers []*trackedBody
	var bodies []string
	resp, err := x.answered(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		b, err := io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		resp := reply(req, 200, nil)
		if len(answers) == 0 {
			resp = reply(req, status, header)
		}
		answer := newBody(x, "answer")
		resp.Body = answer
		answers, bodies = append(answers, answer), append(bodies, string(b))
		return resp, nil
	}), request(strings.NewReader("hello")))
	if err != nil {
		return err
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(b) != "answer" {
		return fmt.Errorf("the last answer's body is %q, %v", b, err)
	}
	mu.Lock()
	defer mu.Unlock()
	for i, answer := range answers {
		if err := answer.closed(); err != nil {
			return fmt.Errorf("the body of answer %d of %d: %w", i+1, len(answers), err)
		}
		if bodies[i] != "hello" {
			return fmt.Errorf("send %d of %d had the body %q", i+1, len(answers), bodies[i])
		}
	}
	return nil
}

func checkRedirectNotFollowed(x *trial) error {
	for _, status := range []int{301, 302, 303, 307, 308} {
		var sends atomic.Int32
		resp, err := x.answered(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
			closeRequestBody(req)
			sends.Add(1)
			return reply(req, status, http.Header{"Location": {"https://roundtripper.test/elsewhere"}}), nil
		}), request(nil))
		if err != nil {
			return err
		}
		if resp.StatusCode != status || sends.Load() != 1 || resp.Header.Get("Location") != "https://roundtripper.test/elsewhere" {
			return fmt.Errorf("a %d came out as %d after %d sends", status, resp.StatusCode, sends.Load())
		}
	}
	return nil
}

func checkResponseRequest(x *trial) error {
	for _, status := range []int{200, 302, 401, 500} {
		req := request(nil)
		resp, err := x.answered(answering(status), req)
		if err != nil {
			return err
		}
		if resp.Request != req {
			return fmt.Errorf("with status %d it is another", status)
		}
	}
	return nil
}

func checkResponseUnread(x *trial) error {
	body := &lockstepBody{chunks: []string{"first ", "second ", "third"}}
	resp, err := x.answered(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		closeRequestBody(req)
		resp := reply(req, 200, nil)
		resp.Body = body
		return resp, nil
	}), request(nil))
	if err != nil {
		return err
	}
	if n := body.reads.Load(); n > 0 {
		return errors.New("it was read before RoundTrip returned")
	}
	// A chunk comes when the one before has been read by the caller.
	var got strings.Builder
	buf := make([]byte, 64)
	for range body.chunks {
		body.taken.Add(1)
		n, err := resp.Body.Read(buf)
		if err != nil && err != io.EOF {
			return err
		}
		got.Write(buf[:n])
	}
	if early := body.early.Load(); early || got.String() != "first second third" {
		return fmt.Errorf("the caller had %q when the next chunk was asked for", got.String())
	}
	return nil
}

func checkRequestStreamed(x *trial) error {
	body := &lockstepBody{chunks: []string{"first ", "second ", "third"}}
	req := request(nil)
	req.Body, req.ContentLength = body, -1
	var got strings.Builder
	_, err := x.answered(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		defer req.Body.Close()
		buf := make([]byte, 64)
		for {
			body.taken.Add(1)
			n, err := req.Body.Read(buf)
			got.Write(buf[:n])
			if err == io.EOF {
				return reply(req, 200, nil), nil
			}
			if err != nil {
				return nil, err
			}
		}
	}), req)
	if err != nil {
		return err
	}
	if body.early.Load() {
		return errors.New("it was read before the transport below asked for it")
	}
	if got.String() != "first second third" {
		return fmt.Errorf("it arrived as %q", got.String())
	}
	return nil
}

func checkRequestUnbuffered(x *trial) error {
	const size, ahead = 8 << 20, 1 << 20
	var arrived atomic.Int64
	body := &meteredBody{size: size, ahead: ahead, arrived: &arrived}
	req := request(nil)
	req.Body, req.ContentLength = body, size
	_, err := x.answered(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		defer req.Body.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := req.Body.Read(buf)
			arrived.Add(int64(n))
			if err == io.EOF {
				return reply(req, 200, nil), nil
			}
			if err != nil {
				return nil, err
			}
		}
	}), req)
	if err != nil {
		return err
	}
	if n := body.tooFar.Load(); n > 0 {
		return fmt.Errorf("it was read up to %d bytes ahead of the transport below", n)
	}
	if n := arrived.Load(); n != size {
		return fmt.Errorf("%d bytes of %d arrived", n, size)
	}
	return nil
}

func checkBodyArrives(x *trial) error {
	type arrival struct {
		length  int64
		chunked bool
		sum     [sha256.Size]byte
	}
	arrivals := make(chan arrival, 1)
	base, target := x.server(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		arrivals <- arrival{r.ContentLength, len(r.TransferEncoding) > 0, sha256.Sum256(b)}
	})
	rt := x.wrap(base)
	large := bytes.Repeat([]byte("0123456789abcdef\x00\xff\r\n"), 15_000)
	for _, c := range []struct {
		name    string
		body    []byte
		prepare func(req *http.Request)
		length  int64
	}{
		{"with GetBody and a length", large, func(*http.Request) {}, int64(len(large))},
		{"without GetBody", large, func(r *http.Request) { r.GetBody = nil }, int64(len(large))},
		{"without a length", large, func(r *http.Request) { r.ContentLength = -1 }, -1},
		{"with length 0 for unknown", large, func(r *http.Request) { r.ContentLength = 0 }, -1},
		{"with neither", large, func(r *http.Request) { r.GetBody, r.ContentLength = nil, -1 }, -1},
		{"small", []byte("x"), func(*http.Request) {}, 1},
		{"small, unknown, with neither", []byte("x"), func(r *http.Request) { r.GetBody, r.ContentLength = nil, -1 }, -1},
		{"NoBody", nil, func(r *http.Request) { r.Body, r.ContentLength, r.GetBody = http.NoBody, 0, nil }, 0},
		{"nil", nil, func(r *http.Request) { r.Body, r.ContentLength, r.GetBody = nil, 0, nil }, 0},
	} {
		req, err := http.NewRequest(http.MethodPost, target, bytes.NewReader(c.body))
		if err != nil {
			return err
		}
		c.prepare(req)
		res, err := x.roundTrip(rt, req)
		if err == nil {
			err = res.err
		}
		if err != nil {
			return fmt.Errorf("body %s: %w", c.name, err)
		}
		res.resp.Body.Close()
		if res.resp.StatusCode != http.StatusOK {
			return fmt.Errorf("body %s: status %d", c.name, res.resp.StatusCode)
		}
		got := <-arrivals
		if got.sum != sha256.Sum256(c.body) {
			return fmt.Errorf("body %s: other bytes arrived", c.name)
		}
		if got.length != c.length || got.chunked != (c.length < 0) {
			return fmt.Errorf("body %s: the length told is %d, want %d", c.name, got.length, c.length)
		}
	}
	return nil
}

func checkRequestTrailer(x *trial) error {
	got := make(chan string, 1)
	base, target := x.server(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		got <- r.Trailer.Get("X-Sum")
	})
	req, err := http.NewRequest(http.MethodPost, target, nil)
	if err != nil {
		return err
	}
	body := newBody(x, "hello")
	body.atEOF = func() { req.Trailer.Set("X-Sum", "5d41") }
	req.Body, req.ContentLength = body, -1
	req.Trailer = http.Header{"X-Sum": nil}
	if _, err := x.answered(base, req); err != nil {
		return err
	}
	if v := <-got; v != "5d41" {
		return fmt.Errorf("it arrived as %q", v)
	}
	return nil
}

func checkResponseTrailer(x *trial) error {
	base, target := x.server(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "hello")
		w.Header().Set("X-Sum", "5d41")
	})
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	resp, err := x.answered(base, req)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if v := resp.Trailer.Get("X-Sum"); v != "5d41" {
		return fmt.Errorf("it arrived as %q", v)
	}
	return nil
}

func checkSwitchingProtocols(x *trial) error {
	near, far := net.Pipe()
	x.cleanup(func() { near.Close(); far.Close() })
	go io.Copy(far, far)
	req := request(nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := x.answered(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		closeRequestBody(req)
		resp := reply(req, http.StatusSwitchingProtocols, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}})
		resp.Body = near
		return resp, nil
	}), req)
	if err != nil {
		return err
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		return fmt.Errorf("it is a %T", resp.Body)
	}
	near.SetDeadline(time.Now().Add(x.patience))
	buf := make([]byte, 4)
	if _, err := conn.Write([]byte("ping")); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "ping" {
		return fmt.Errorf("the echo is %q, %v", buf, err)
	}
	return nil
}

type contextKey struct{}

func checkContextValues(x *trial) error {
	req := request(nil)
	req = req.WithContext(context.WithValue(req.Context(), contextKey{}, "value"))
	var got any
	_, err := x.answered(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		closeRequestBody(req)
		got = req.Context().Value(contextKey{})
		return reply(req, 200, nil), nil
	}), req)
	if err == nil && got != "value" {
		err = fmt.Errorf("one arrived as %v", got)
	}
	return err
}

func checkTrace(x *trial) error {
	base, target := x.server(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})
	var mu sync.Mutex
	var fired []string
	note := func(hook string) {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(fired, hook) {
			fired = append(fired, hook)
		}
	}
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { note("GotConn") },
		WroteHeaders: func() { note("WroteHeaders") },
		WroteRequest: func(httptrace.WroteRequestInfo) { note("WroteRequest") },
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			if status == http.StatusEarlyHints && header.Get("Link") == "</style.css>" {
				note("Got1xxResponse")
			}
			return nil
		},
		GotFirstResponseByte: func() { note("GotFirstResponseByte") },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	resp, err := x.answered(base, req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the response has status %d", resp.StatusCode)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, hook := range []string{"GotConn", "WroteHeaders", "WroteRequest", "Got1xxResponse", "GotFirstResponseByte"} {
		if !slices.Contains(fired, hook) {
			return fmt.Errorf("%s didn't", hook)
		}
	}
	return nil
}

func checkCancel(x *trial) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	reached := make(chan struct{})
	rt := x.wrap(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		defer closeRequestBody(req)
		cancel() // the caller's, while the request is on its way
		select {
		case <-req.Context().Done():
			close(reached)
			return nil, req.Context().Err()
		case <-x.over:
			return nil, errBase
		}
	}))
	res, err := x.roundTrip(rt, request(strings.NewReader("hello")).WithContext(ctx))
	if err != nil {
		return err
	}
	if err := x.await(reached); err != nil {
		return errors.New("it doesn't")
	}
	if !errors.Is(res.err, context.Canceled) {
		return fmt.Errorf("the error is %v, and not context.Canceled", res.err)
	}
	return nil
}

func checkConcurrent(x *trial) error {
	rt := x.wrap(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		b, err := io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, err
		}
		resp := reply(req, 200, nil)
		resp.Body = io.NopCloser(strings.NewReader(req.URL.Path + " " + string(b)))
		return resp, nil
	}))
	// All requests share a header map, which must not be changed: the race detector
	// reports a change.
	header := http.Header{"X-Shared": {"a"}}
	errs := make(chan error, 1)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 8 {
				path, body := fmt.Sprintf("/%d/%d", i, j), fmt.Sprintf("body %d %d", i, j)
				req := request(strings.NewReader(body))
				req.URL.Path = path
				req.Header = header
				err := func() error {
					res, err := x.roundTripHere(rt, req)
					if err != nil {
						return err
					}
					defer res.Body.Close()
					b, err := io.ReadAll(res.Body)
					if want := path + " " + body; err != nil || string(b) != want {
						return fmt.Errorf("the answer to %q is %q, %v", want, b, err)
					}
					return nil
				}()
				if err != nil {
					select {
					case errs <- err:
					default:
					}
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	if err := x.await(done); err != nil {
		return err
	}
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// roundTripHere calls rt in this goroutine.
func (x *trial) roundTripHere(rt http.RoundTripper, req *http.Request) (resp *http.Response, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("RoundTrip panicked: %v", v)
		}
	}()
	resp, err = rt.RoundTrip(req)
	if err == nil && resp == nil {
		err = errors.New("there is neither a response nor an error")
	}
	return resp, err
}

func checkUnwrap(x *trial) error {
	base := &idleBase{}
	rt := x.wrap(base)
	if _, ok := rt.(interface{ Unwrap() http.RoundTripper }); !ok {
		return nil
	}
	for range 100 { // deeper than any stack
		u, ok := rt.(interface{ Unwrap() http.RoundTripper })
		if !ok {
			return fmt.Errorf("it leads to a %T", rt)
		}
		if rt = u.Unwrap(); rt == http.RoundTripper(base) {
			return nil
		}
	}
	return errors.New("it leads nowhere")
}

func checkCloseIdleConnections(x *trial) error {
	base := &idleBase{}
	c, ok := x.wrap(base).(interface{ CloseIdleConnections() })
	if !ok {
		return nil
	}
	c.CloseIdleConnections()
	if base.closed.Load() == 0 {
		return errors.New("it doesn't")
	}
	return nil
}

// server starts a server for a check, and returns a transport that only this check
// uses, so that no connection is left over.
func (x *trial) server(h http.HandlerFunc) (base http.RoundTripper, target string) {
	srv := httptest.NewServer(h)
	tr := &http.Transport{}
	x.cleanup(func() {
		tr.CloseIdleConnections()
		srv.CloseClientConnections()
		srv.Close()
	})
	return tr, srv.URL + "/a/b"
}
