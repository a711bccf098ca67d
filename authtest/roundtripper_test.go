package authtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// headerTransport is a layer as it should be.
type headerTransport struct{ base http.RoundTripper }

func (t *headerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	if req.Header == nil {
		out.Header = make(http.Header)
	}
	out.Trailer = req.Trailer // its values come while the body is read
	out.Header.Set("X-Added", "1")
	resp, err := t.base.RoundTrip(out)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

func (t *headerTransport) Unwrap() http.RoundTripper { return t.base }

func (t *headerTransport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// againTransport is a layer as it should be that sends a request again.
type againTransport struct{ base http.RoundTripper }

func (t *againTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if err != nil || req.GetBody == nil || resp.StatusCode != 401 && resp.StatusCode != 503 {
		return resp, err
	}
	body, err := req.GetBody()
	if err != nil {
		return resp, nil
	}
	resp.Body.Close()
	out := req.Clone(req.Context())
	out.Body = body
	if resp, err = t.base.RoundTrip(out); resp != nil {
		resp.Request = req
	}
	return resp, err
}

func TestRoundTripperPassesGoodLayers(t *testing.T) {
	good := map[string]func(http.RoundTripper) http.RoundTripper{
		"nothing":    func(next http.RoundTripper) http.RoundTripper { return next },
		"a function": func(next http.RoundTripper) http.RoundTripper { return roundTripperFunc(next.RoundTrip) },
		"header":     func(next http.RoundTripper) http.RoundTripper { return &headerTransport{next} },
		"again":      func(next http.RoundTripper) http.RoundTripper { return &againTransport{next} },
		"two layers": func(next http.RoundTripper) http.RoundTripper { return &headerTransport{&headerTransport{next}} },
	}
	for name, wrap := range good {
		t.Run(name, func(t *testing.T) { TestRoundTripper(t, wrap) })
	}
}

// around is a wrapper made of a function.
func around(f func(next http.RoundTripper, req *http.Request) (*http.Response, error)) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTripperFunc(func(req *http.Request) (*http.Response, error) { return f(next, req) })
	}
}

// onRequest is a wrapper that does something to a copy of the request.
func onRequest(change func(out *http.Request)) func(http.RoundTripper) http.RoundTripper {
	return around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		out := req.WithContext(req.Context())
		change(out)
		resp, err := next.RoundTrip(out)
		if resp != nil {
			resp.Request = req
		}
		return resp, err
	})
}

// onResponse is a wrapper that does something to the response.
func onResponse(change func(req *http.Request, resp *http.Response) (*http.Response, error)) func(http.RoundTripper) http.RoundTripper {
	return around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err != nil {
			return resp, err
		}
		return change(req, resp)
	})
}

// slurp reads a request's whole body.
func slurp(req *http.Request) []byte {
	if req.Body == nil {
		return nil
	}
	b, _ := io.ReadAll(req.Body)
	return b
}

// closer is a body with a Close of its own.
type closer struct {
	io.Reader
	close func() error
}

func (c closer) Close() error { return c.close() }

func unwrapTo(rt http.RoundTripper) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper { return &unwrapper{next, rt} }
}

type unwrapper struct {
	http.RoundTripper
	to http.RoundTripper
}

func (u *unwrapper) Unwrap() http.RoundTripper { return u.to }
func (u *unwrapper) CloseIdleConnections()     {}

func TestRoundTripperFindsFaults(t *testing.T) {
	mutants := []struct {
		check string // the promise that is broken
		fault string
		want  string // part of the check's error
		wrap  func(http.RoundTripper) http.RoundTripper
	}{
		{"RequestUnchanged", "sets a header on the caller's request", "the header map has changed", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			if req.Header != nil {
				req.Header.Set("Authorization", "x")
			}
			return next.RoundTrip(req)
		})},
		{"RequestUnchanged", "appends to a header of a shallow copy", "the header map has changed", onRequest(func(out *http.Request) {
			for k, v := range out.Header {
				out.Header[k] = append(v, "x")
			}
		})},
		{"RequestUnchanged", "changes the URL of a shallow copy", "the URL was", onRequest(func(out *http.Request) { out.URL.Path = "/other" })},
		{"RequestUnchanged", "puts its own body on the caller's request", "Request.Body is another", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			if body := req.Body; body != nil {
				req.Body = closer{body, body.Close}
			}
			return next.RoundTrip(req)
		})},
		{"RequestUnchanged", "takes GetBody away", "Request.GetBody is another", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			req.GetBody = nil
			return next.RoundTrip(req)
		})},
		{"RequestUnchanged", "replaces the host", "Request.Host is another", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			req.Host = "x.test"
			return next.RoundTrip(req)
		})},
		{"RequestUnchanged", "changes the trailer of a shallow copy", "the trailer map has changed", onRequest(func(out *http.Request) {
			if out.Trailer != nil {
				out.Trailer.Set("X-Sum", "other")
			}
		})},
		{"NilHeader", "sets a header without looking", "RoundTrip panicked", onRequest(func(out *http.Request) { out.Header.Set("X-Added", "1") })},
		{"NilHeader", "gives the caller a header map", "the request has a header map now", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			if req.Header == nil {
				req.Header = make(http.Header)
			}
			return next.RoundTrip(req)
		})},
		{"NilURL", "looks at the host", "RoundTrip panicked", onRequest(func(out *http.Request) { _ = out.URL.Host })},
		{"NilURL", "refuses it and forgets the body", "it was never closed", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			if req.URL == nil {
				return nil, errors.New("no URL")
			}
			return next.RoundTrip(req)
		})},

		{"BodyClosed/Success", "closes the body itself, too", "it was closed 2 times", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			closeRequestBody(req)
			return resp, err
		})},
		{"BodyClosed/Success", "hides Close", "it was never closed", onRequest(func(out *http.Request) {
			if out.Body != nil {
				out.Body = io.NopCloser(out.Body)
			}
		})},
		{"BodyClosed/BaseError", "closes the body again on an error", "it was closed 2 times", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if err != nil {
				closeRequestBody(req)
			}
			return resp, err
		})},
		{"BodyClosed/BaseErrorMidway", "closes its copy of the body only at the end", "it was never closed", onRequest(closeAtEOF)},
		{"BodyClosed/EarlyAnswer", "closes its copy of the body only at the end", "it was never closed", onRequest(closeAtEOF)},
		{"BodyClosed/StillReading", "closes the body on a refusal while it is being read", "it was closed 2 times", onResponse(func(req *http.Request, resp *http.Response) (*http.Response, error) {
			if resp.StatusCode == 401 {
				closeRequestBody(req)
			}
			return resp, nil
		})},
		{"BodyClosed/ReaderError", "forgets the body when reading it fails", "it was never closed", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			out := req.WithContext(req.Context())
			out.Body = io.NopCloser(req.Body)
			resp, err := next.RoundTrip(out)
			if err == nil {
				req.Body.Close()
			}
			return resp, err
		})},
		{"BodyClosed/ReaderError", "has an error of its own", "the reader's error came out as", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			b, err := io.ReadAll(req.Body)
			req.Body.Close()
			if err != nil {
				return nil, errors.New("bad body")
			}
			out := req.WithContext(req.Context())
			out.Body = io.NopCloser(bytes.NewReader(b))
			return next.RoundTrip(out)
		})},
		{"BodyClosed/ContextDone", "returns early and forgets the body", "it was never closed", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			if err := req.Context().Err(); err != nil {
				return nil, err
			}
			return next.RoundTrip(req)
		})},
		{"BodyClosed/ContextDone", "sends without the context", "not context.Canceled", onRequest(func(out *http.Request) { *out = *out.WithContext(context.Background()) })},

		{"ErrorAsItIs", "wraps errors", "came out as", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if err != nil {
				err = fmt.Errorf("wrapped: %w", err)
			}
			return resp, err
		})},
		{"ErrorAsItIs", "swallows errors", "neither a response nor an error", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			resp, _ := next.RoundTrip(req)
			return resp, nil
		})},
		{"ErrorAsItIs", "makes a response of an error", "came out as <nil>", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if err != nil {
				return reply(req, 502, nil), nil
			}
			return resp, err
		})},
		{"StatusIsNoError", "makes an error of a 401", "an error instead of the response", onResponse(func(req *http.Request, resp *http.Response) (*http.Response, error) {
			if resp.StatusCode == 401 {
				resp.Body.Close()
				return nil, errors.New("unauthorized")
			}
			return resp, nil
		})},
		{"StatusIsNoError", "returns both on a 500", "both a response and an error", onResponse(func(req *http.Request, resp *http.Response) (*http.Response, error) {
			if resp.StatusCode >= 500 {
				return resp, errors.New("server error")
			}
			return resp, nil
		})},
		{"StatusIsNoError", "drains refusals", "its body as \"\"", onResponse(func(req *http.Request, resp *http.Response) (*http.Response, error) {
			if resp.StatusCode == 403 {
				io.Copy(io.Discard, resp.Body)
			}
			return resp, nil
		})},
		{"AnswersClosed", "leaks the answer before", "it was never closed", sendAgain(func(*http.Response) {}, true)},
		{"AnswersClosed", "sends the spent body", "had the body", sendAgain(func(resp *http.Response) { resp.Body.Close() }, false)},
		{"RedirectNotFollowed", "follows", "both a response and an error", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			c := http.Client{Transport: next}
			return c.Do(req)
		})},
		{"ResponseRequest", "lets its own request out", "it is another", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			return next.RoundTrip(req.Clone(req.Context()))
		})},

		{"ResponseUnread", "buffers the response", "before RoundTrip returned", onResponse(func(req *http.Request, resp *http.Response) (*http.Response, error) {
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			resp.Body = io.NopCloser(bytes.NewReader(b))
			return resp, err
		})},
		{"ResponseUnread", "reads ahead as the caller reads", "when the next chunk was asked for", onResponse(func(req *http.Request, resp *http.Response) (*http.Response, error) {
			body := resp.Body
			all := sync.OnceValue(func() io.Reader {
				b, _ := io.ReadAll(body)
				return bytes.NewReader(b)
			})
			resp.Body = closer{readerFunc(func(p []byte) (int, error) { return all().Read(p) }), body.Close}
			return resp, nil
		})},
		{"RequestStreamed", "buffers the request", "read before the transport below asked", onRequest(buffer)},
		{"RequestUnbuffered", "buffers the request", "ahead of the transport below", onRequest(buffer)},
		{"BodyArrives", "cuts the body at 64 KiB", "other bytes arrived", onRequest(func(out *http.Request) {
			if out.Body != nil {
				out.Body, out.ContentLength = closer{io.LimitReader(out.Body, 64<<10), out.Body.Close}, -1
			}
		})},
		{"BodyArrives", "hides NoBody and so its length", "body NoBody: the length told is -1", onRequest(func(out *http.Request) {
			if out.Body != nil {
				out.Body, out.GetBody = closer{out.Body, out.Body.Close}, nil
			}
		})},
		{"BodyArrives", "forgets the length", "the length told is -1", onRequest(func(out *http.Request) {
			if out.Body != nil {
				out.ContentLength = -1
			}
		})},
		{"RequestTrailer", "clones the trailer", "it arrived as", onRequest(func(out *http.Request) { out.Trailer = out.Trailer.Clone() })},
		{"ResponseTrailer", "makes a response of its own", "it arrived as", onResponse(func(req *http.Request, resp *http.Response) (*http.Response, error) {
			return &http.Response{Status: resp.Status, StatusCode: resp.StatusCode, Header: resp.Header, Body: resp.Body, ContentLength: resp.ContentLength, Request: req}, nil
		})},
		{"SwitchingProtocols", "wraps every response body", "it is a authtest.closer", onResponse(func(req *http.Request, resp *http.Response) (*http.Response, error) {
			resp.Body = closer{resp.Body, resp.Body.Close}
			return resp, nil
		})},
		{"ContextValues", "sends without the context", "arrived as <nil>", onRequest(func(out *http.Request) { *out = *out.WithContext(context.Background()) })},
		{"Trace", "sends without the context", "GotConn didn't", onRequest(func(out *http.Request) { *out = *out.WithContext(context.Background()) })},
		{"Cancel", "detaches the context", "it hangs", onRequest(func(out *http.Request) { *out = *out.WithContext(context.WithoutCancel(out.Context())) })},
		{"Cancel", "has an error of its own", "not context.Canceled", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if err != nil {
				err = errors.New("failed")
			}
			return resp, err
		})},
		{"Concurrent", "keeps its state in the transport", "the answer to", func(next http.RoundTripper) http.RoundTripper {
			var once sync.Once
			var out *http.Request
			return roundTripperFunc(func(req *http.Request) (*http.Response, error) {
				once.Do(func() { out = req.Clone(req.Context()) })
				again := req.Clone(req.Context())
				again.URL = out.URL
				return next.RoundTrip(again)
			})
		}},
		{"Concurrent", "panics", "RoundTrip panicked", around(func(http.RoundTripper, *http.Request) (*http.Response, error) { panic("oh") })},
		{"Concurrent", "returns nothing", "neither", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			closeRequestBody(req)
			return nil, nil
		})},
		{"Unwrap", "leads elsewhere", "it leads to a", unwrapTo(http.DefaultTransport)},
		{"Unwrap", "leads in a circle", "it leads nowhere", func(next http.RoundTripper) http.RoundTripper {
			u := &unwrapper{RoundTripper: next}
			u.to = u
			return u
		}},
		{"CloseIdleConnections", "keeps it to itself", "it doesn't", unwrapTo(http.DefaultTransport)},

		{"RequestUnchanged", "returns no RoundTripper", "wrap returned nil", func(http.RoundTripper) http.RoundTripper { return nil }},
		{"Unwrap", "panics in wrap", "it panicked: oh", func(http.RoundTripper) http.RoundTripper { panic("oh") }},
		{"RequestUnchanged", "returns neither", "neither", around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) { return nil, nil })},
		{"RequestUnchanged", "has a response without a body", "Body is nil", onResponse(func(req *http.Request, resp *http.Response) (*http.Response, error) {
			resp.Body = nil
			return resp, nil
		})},
	}

	checks := make(map[string]roundTripperCheck)
	unproven := make(map[string]bool)
	for _, c := range roundTripperChecks {
		checks[c.name] = c
		unproven[c.name] = true
	}
	for _, m := range mutants {
		t.Run(m.check+"/"+m.fault, func(t *testing.T) {
			delete(unproven, m.check)
			patience := time.Minute
			if strings.HasPrefix(m.want, "it was never closed") || strings.HasPrefix(m.want, "it hangs") {
				patience = 100 * time.Millisecond // it will run out, however long
			}
			err := checks[m.check].run(m.wrap, patience)
			if err == nil {
				t.Fatal("not found")
			}
			if !strings.Contains(err.Error(), m.want) {
				t.Errorf("found as %q, want %q", err, m.want)
			}
		})
	}
	for name := range unproven {
		t.Errorf("check %s has no mutant", name)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// closeAtEOF closes the body when it has been read, and not before.
func closeAtEOF(out *http.Request) {
	if out.Body == nil {
		return
	}
	body := out.Body
	out.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
		n, err := body.Read(p)
		if err != nil {
			body.Close()
		}
		return n, err
	}))
}

func buffer(out *http.Request) {
	b := slurp(out)
	out.Body.Close()
	out.Body = io.NopCloser(bytes.NewReader(b))
}

// sendAgain is a wrapper that sends a refused request once more.
func sendAgain(finish func(*http.Response), fresh bool) func(http.RoundTripper) http.RoundTripper {
	return around(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err != nil || resp.StatusCode != 401 {
			return resp, err
		}
		finish(resp)
		out := req.Clone(req.Context())
		if fresh {
			out.Body, _ = req.GetBody()
		} else {
			out.Body = io.NopCloser(strings.NewReader(""))
		}
		if resp, err = next.RoundTrip(out); resp != nil {
			resp.Request = req
		}
		return resp, err
	})
}
