//go:build !race

package requestforge_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/requestforge/requestforge"
)

// retryFixed is a base that reads bodies and answers without allocating.
type retryFixed struct {
	resp http.Response
	buf  [512]byte
}

func (b *retryFixed) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		for {
			if _, err := req.Body.Read(b.buf[:]); err == io.EOF {
				break
			}
		}
		req.Body.Close()
	}
	b.resp.Request = req
	return &b.resp, nil
}

type retryFixedBody struct{ strings.Reader }

func (*retryFixedBody) Close() error { return nil }

func TestRetryCostsNothingUntilItRetries(t *testing.T) {
	const payload = "a small body"
	body := new(retryFixedBody)
	get := newRetryRequest(t, "GET", nil)
	put := newRetryRequest(t, "PUT", nil)
	put.Body, put.ContentLength = body, int64(len(payload))
	withGetBody := put.Clone(put.Context())
	withGetBody.GetBody = func() (io.ReadCloser, error) { return body, nil }

	foreign := &retryFixed{resp: http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}}
	ours := &requestforge.LoggingTransport{Base: foreign}
	for _, tt := range []struct {
		name string
		base http.RoundTripper
		req  *http.Request
		want float64
	}{
		{"GET", foreign, get, 0},
		{"GetBody", foreign, withGetBody, 0},
		{"plain reader", foreign, put, 2}, // the copy of the request with what is kept of the body, and GetBody
		// Over a layer of ours: the exchange, which the auth layer would
		// else allocate for its own copy of the request.
		{"GET over a layer", ours, get, 1},
		{"GetBody over a layer", ours, withGetBody, 1},
		{"plain reader over a layer", ours, put, 2},
	} {
		rt := retryOver(tt.base, requestforge.RetryPolicy{RetryMax: 3})
		got := testing.AllocsPerRun(100, func() {
			body.Reset(payload)
			if _, err := rt.RoundTrip(tt.req); err != nil {
				t.Fatal(err)
			}
		})
		if got != tt.want {
			t.Errorf("%s: %v allocations, want %v", tt.name, got, tt.want)
		}
	}
}
