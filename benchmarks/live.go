// The case that matters most: a token is there and good, and a request goes
// out with it.

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
)

var liveCases = suite{
	file:  "live.txt",
	title: "A request with a live token",
	benchmarks: []benchmark{
		live("off", "inprocess", "serial", silent),
		live("off", "inprocess", "parallel", silent),
		live("json", "inprocess", "serial", verbose),
		live("json", "inprocess", "parallel", verbose),
		live("off", "loopback", "serial", silent),
		live("off", "loopback", "parallel", silent),
	},
}

// quietPeers are measured with logging off, loggingPeers with one record a
// request; those below https only where the API is.
var (
	quietPeers = []string{bare, copied, xoauth2, retryable, assembled, cloud, failsafe, azure, authLayer, stack, stackUnlogged}
	httpsPeers = []string{smithy}
	logPeers   = []string{bare, copied, recorded, assembled, stack}
)

func live(log, where, callers string, logger func() *slog.Logger) benchmark {
	return benchmark{
		name:  fmt.Sprintf("LiveToken/logging=%s/wire=%s/callers=%s", log, where, callers),
		timed: true,
		open: func(ctx context.Context, _ scale) ([]candidate, func(), error) {
			auth := newAuthServer(0)
			s := setting{base: inProcess{}, origin: origin, auth: auth, logger: logger()}
			closeAll := auth.Close
			impls := quietPeers
			switch {
			case log == "json":
				impls = logPeers
			case where == "inprocess":
				impls = append(impls[:len(impls):len(impls)], httpsPeers...)
			}
			if where == "loopback" {
				api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					io.WriteString(w, answer)
				}))
				base := &http.Transport{MaxIdleConnsPerHost: 100}
				s.base, s.origin = base, api.URL
				closeAll = func() {
					base.CloseIdleConnections()
					api.Close()
					auth.Close()
				}
			}
			cands, err := livePeers(ctx, s, impls, callers == "parallel")
			if err != nil {
				closeAll()
				return nil, nil, err
			}
			return cands, closeAll, nil
		},
	}
}

func livePeers(ctx context.Context, s setting, impls []string, parallel bool) ([]candidate, error) {
	token, _, err := s.auth.fetch(ctx, "token", "")
	if err != nil {
		return nil, err
	}
	var cands []candidate
	for _, impl := range impls {
		w := &wire{RoundTripper: s.base}
		own := s
		own.base = w
		p := peers[impl]
		send, err := p.build(own)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", impl, err)
		}
		newReq := func() *http.Request {
			req := newRequest(ctx, s.origin)
			if p.withoutAuth {
				req.Header.Set("Authorization", "Bearer "+token)
			}
			return req
		}
		if err := prove(w, send, newReq(), s.auth); err != nil {
			return nil, fmt.Errorf("%s: %w", impl, err)
		}
		newOp := func() func() error {
			req := newReq()
			return func() error { return send.must(req) }
		}
		c := candidate{impl: impl}
		if parallel {
			c.run = inParallel(newOp)
		} else {
			c.run = inSeries(newOp())
		}
		cands = append(cands, c)
	}
	return cands, nil
}

// prove sends a request, and fails unless it arrives once and with a token. On
// this occasion the token is fetched.
func prove(w *wire, send client, req *http.Request, auth *authServer) error {
	sent, good := 0, 0
	w.see = func(req *http.Request) {
		sent++
		if auth.takes(req) {
			good++
		}
	}
	defer func() { w.see = nil }()
	if err := send.must(req); err != nil {
		return err
	}
	if sent != 1 || good != 1 {
		return fmt.Errorf("sent %d requests, %d of them with a token, want 1", sent, good)
	}
	return nil
}
