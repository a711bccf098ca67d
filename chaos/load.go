// The callers: what they send, how long they wait, and what they put down of
// what came back.

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/chaos/oracle"
)

// load sends the requests of a run.
type load struct {
	led     *ledger
	plan    *plan
	client  func() *client // as it is now
	origins []string
	foreign string
}

// order is one request before it is sent: all of it decided by the seed.
type order struct {
	method, url string
	body        []byte
	kind        oracle.BodyKind
	keyed       bool
	timed       bool          // it goes through the client with a Timeout
	leaves      time.Duration // when its caller gives up; 0: not before callTimeout
	unsized     bool          // the length of its body isn't told
}

func (l *load) order(id int) order {
	r := l.plan.coin(id, 0, 0)
	o := order{url: l.target(r), method: http.MethodGet, kind: oracle.NoBody, timed: r.IntN(2) == 0}
	switch n := r.IntN(100); {
	case n < 45:
	case n < 60:
		o.method, o.kind = http.MethodPost, oracle.GetBody
	case n < 75:
		o.method, o.kind = http.MethodPost, oracle.KeptBody
	case n < 83:
		o.method, o.kind = http.MethodPut, oracle.GetBody
	case n < 91:
		o.method, o.kind = http.MethodPut, oracle.KeptBody
	case n < 96:
		o.method, o.kind, o.keyed = http.MethodPost, oracle.KeptBody, true
	case n < 98:
		o.method, o.kind = http.MethodPost, oracle.LargeBody
	default:
		o.method = http.MethodDelete
	}
	if o.kind != oracle.NoBody {
		size := 1 + r.IntN(2048)
		if o.kind == oracle.LargeBody {
			size = 100<<10 + r.IntN(100<<10) // the stack keeps 64 KiB
		}
		o.body = make([]byte, size)
		for i := range o.body {
			o.body[i] = "abcdefgh"[r.IntN(8)]
		}
		o.unsized = o.kind != oracle.GetBody && r.IntN(3) == 0
	}
	if r.IntN(100) < 3 {
		o.leaves = time.Duration(1+r.IntN(40)) * time.Millisecond
	}
	return o
}

// target picks the URL: most are the API's, some are excluded or foreign, and
// some redirect to where the token may, or may not, follow.
func (l *load) target(r *rand.Rand) string {
	at := r.IntN(len(l.origins))
	home, other := l.origins[at], l.origins[(at+1+r.IntN(len(l.origins)-1))%len(l.origins)]
	item := strconv.Itoa(r.IntN(1000))
	redirect := func(from, to string) string {
		code := pick(r, 301, 302, 303, 307, 308)
		return fmt.Sprintf("%s?code=%d&to=%s", from, code, url.QueryEscape(to))
	}
	switch n := r.IntN(100); {
	case n < 72:
		return home + "/api/items/" + item
	case n < 79:
		return home + "/public/items/" + item
	case n < 84:
		return l.foreign + "/api/items/" + item
	case n < 89:
		return redirect(home+"/api/go", home+"/api/items/"+item)
	case n < 93:
		return redirect(home+"/api/go", other+"/landing/"+item)
	case n < 97:
		return redirect(home+"/api/go", l.foreign+"/landing/"+item)
	default: // there and back again, which is no way home for a token
		return redirect(home+"/api/go", redirect(other+"/landing/go", home+"/landing/"+item))
	}
}

// send sends one request and waits for what comes of it.
func (l *load) send(id int) {
	o := l.order(id)
	sum := sha256.Sum256(o.body)
	now := l.client()
	rec := &oracle.Request{ID: id, Process: now.number, Method: o.method, URL: o.url, Body: o.kind, Keyed: o.keyed, BodyHash: hex.EncodeToString(sum[:])}
	client, limit := now.http, callTimeout
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch {
	case o.leaves > 0:
		limit = o.leaves
		defer time.AfterFunc(limit, cancel).Stop()
	case o.timed:
		client = now.timed
	default:
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	l.led.note(func(run *oracle.Run, now time.Duration) {
		rec.Began, rec.Due = now, now+limit
		run.Requests = append(run.Requests, rec)
	})
	req, err := l.request(withCall(ctx, &call{req: rec}), o, rec)
	if err != nil {
		panic(err) // the orders are ours
	}
	resp, err := client.Do(req)
	failure := whatFailed(err)
	status := 0
	if err == nil {
		status = resp.StatusCode
		if failure, err = check(rec, resp); failure == oracle.BrokenBody && ctx.Err() != nil {
			failure = oracle.EndedContext
		}
	}
	l.led.note(func(_ *oracle.Run, now time.Duration) {
		rec.Ended, rec.Status, rec.Failure = now, status, failure
		if err != nil {
			rec.Err = err.Error()
		}
	})
}

func (l *load) request(ctx context.Context, o order, rec *oracle.Request) (*http.Request, error) {
	var body io.Reader
	if o.kind != oracle.NoBody {
		body = &callBody{l.led, rec, bytes.NewReader(o.body)}
	}
	req, err := http.NewRequestWithContext(ctx, o.method, o.url, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set(idHeader, strconv.Itoa(rec.ID))
	if o.keyed {
		req.Header.Set("Idempotency-Key", strconv.Itoa(rec.ID))
	}
	if body != nil && !o.unsized {
		req.ContentLength = int64(len(o.body))
	}
	if o.kind == oracle.GetBody {
		req.GetBody = func() (io.ReadCloser, error) {
			return &callBody{l.led, rec, bytes.NewReader(o.body)}, nil
		}
	}
	return req, nil
}

// whatFailed tells the errors of a call apart.
func whatFailed(err error) oracle.Failure {
	var auth *requestforge.AuthError
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return oracle.NoFailure
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &auth):
		return oracle.EndedContext
	case errors.As(err, &auth):
		return oracle.NoToken
	case errors.As(err, &timeout) && timeout.Timeout():
		return oracle.EndedContext
	}
	return oracle.BrokenNetwork
}

// check reads an answer to its end. One with a 200 has to be the request's own.
func check(rec *oracle.Request, resp *http.Response) (oracle.Failure, error) {
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return oracle.BrokenBody, err
	}
	if resp.StatusCode != http.StatusOK {
		return oracle.NoFailure, nil
	}
	line, _, _ := strings.Cut(string(text), "\n")
	hash := rec.BodyHash
	if method := resp.Request.Method; method != rec.Method {
		// A redirect has made it another request, without a body.
		sum := sha256.Sum256(nil)
		hash = hex.EncodeToString(sum[:])
	}
	if want := fmt.Sprintf("%d %s %s", rec.ID, resp.Request.Method, hash); line != want {
		return oracle.WrongBody, fmt.Errorf("the answer is %q, not %q", line, want)
	}
	return oracle.NoFailure, nil
}
