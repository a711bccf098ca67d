// A large body, which a layer may keep for another try, or not.

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
)

var bodyCases = suite{
	file:  "body.txt",
	title: "A large body",
	benchmarks: []benchmark{
		{name: "LargeBody/getbody=yes", open: largeBody(true)},
		{name: "LargeBody/getbody=no", open: largeBody(false)},
	},
}

func largeBody(getBody bool) func(context.Context, scale) ([]candidate, func(), error) {
	return func(ctx context.Context, sc scale) ([]candidate, func(), error) {
		auth := newAuthServer(0)
		arrived := make(chan int64, 1)
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body) // an error shows in n
			arrived <- n
		}))
		base := &http.Transport{}
		closeAll := func() {
			base.CloseIdleConnections()
			api.Close()
			auth.Close()
		}
		var cands []candidate
		for _, impl := range []string{bare, xoauth2, retryable, assembled, failsafe, authLayer, stack} {
			send, err := peers[impl].build(setting{base: base, origin: api.URL, auth: auth})
			if err != nil {
				closeAll()
				return nil, nil, err
			}
			op := func() error {
				req, err := http.NewRequestWithContext(ctx, http.MethodPut, api.URL+"/v1/backup", nil)
				if err != nil {
					return err
				}
				req.ContentLength = sc.body
				body := func() io.ReadCloser { return io.NopCloser(io.LimitReader(zeros{}, sc.body)) }
				req.Body = body()
				if getBody {
					req.GetBody = func() (io.ReadCloser, error) { return body(), nil }
				}
				if err := send.must(req); err != nil {
					return err
				}
				if n := <-arrived; n != sc.body {
					return fmt.Errorf("%d bytes arrived, want %d", n, sc.body)
				}
				return nil
			}
			// The first run fetches the token, and opens the connection.
			if err := op(); err != nil {
				closeAll()
				return nil, nil, fmt.Errorf("%s: %w", impl, err)
			}
			cands = append(cands, candidate{impl: impl, run: inSeries(op)})
		}
		return cands, closeAll, nil
	}
}

// zeros is a body without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
