// The client under test, and what is seen of it from above and from below.

package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/chaos/oracle"
)

// What the client is set up with. The oracle is told the same numbers.
const (
	retryMax     = 2
	authReplays  = 2
	fetchTimeout = time.Second
	coolDown     = 50 * time.Millisecond

	storageTimeout = 50 * time.Millisecond
	maxCoolDown    = 400 * time.Millisecond
	callTimeout    = 5 * time.Second
	retryBudget    = 80
	maxConns       = 8 // to each server, for 64 callers
)

// client is the whole stack as an application has it.
type client struct {
	number int    // of its process
	who    string // the identity of its steps
	tokens *requestforge.Pipeline
	http   *http.Client // calls end with their context
	timed  *http.Client // calls end with the client's Timeout
}

// newPipeline is what one process of an application has, for one identity.
func newPipeline(steps []requestforge.Step, store requestforge.Storage, who string, logger *slog.Logger) (*requestforge.Pipeline, error) {
	for i := range steps {
		steps[i].Identity = who
	}
	return requestforge.NewPipeline(requestforge.PipelineConfig{
		Steps:          steps,
		Storage:        store,
		KeyPrefix:      "chaos",
		FetchTimeout:   fetchTimeout,
		StorageTimeout: storageTimeout,
		CoolDown:       coolDown,
		MaxCoolDown:    maxCoolDown,
		Logger:         logger,
	})
}

func newClient(led *ledger, auth *authServer, store requestforge.Storage, origins []string, who string, number int) (*client, error) {
	logger := slog.New(notes{led, number})
	base := &http.Transport{MaxIdleConnsPerHost: maxConns, MaxConnsPerHost: maxConns}
	steps := auth.steps(number, auth.srv.URL, auth.client.Transport)
	if number%2 == 1 { // API and auth server are one host, with the same few connections
		steps = auth.steps(number, origins[0], base)
	}
	tokens, err := newPipeline(steps, store, who, logger)
	if err != nil {
		return nil, err
	}
	retry := requestforge.ExponentialBackoff(retryMax, 5*time.Millisecond, 2*time.Second)
	retry.Budget = retryBudget
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:          &wire{led: led, process: number, base: base},
		Source:        tokens,
		Origins:       origins,
		ExcludedPaths: []string{"/public/**"},
		AuthRetry:     requestforge.SimpleAuthRetry(authReplays, 0),
		Retry:         retry,
		Logger:        logger,
		LogHeaders:    true,
	})
	if err != nil {
		return nil, err
	}
	top := &hops{led, transport}
	return &client{number, who, tokens, &http.Client{Transport: top}, &http.Client{Transport: top, Timeout: callTimeout}}, nil
}

// hops stands between http.Client and the stack, and writes down each RoundTrip.
type hops struct {
	led *ledger
	*requestforge.Transport
}

func (t *hops) RoundTrip(req *http.Request) (*http.Response, error) {
	c := callFrom(req.Context())
	c.hop++
	c.n = 0
	h := &oracle.Hop{ID: c.req.ID, Hop: c.hop}
	t.led.note(func(run *oracle.Run, now time.Duration) {
		h.Began = now
		run.Hops = append(run.Hops, h)
	})
	resp, err := t.Transport.RoundTrip(t.counted(c.req, req))
	if resp != nil {
		resp.Request = req
	}
	t.led.note(func(_ *oracle.Run, now time.Duration) {
		h.Ended = now
		if err == nil {
			h.Status = resp.StatusCode
		}
	})
	return resp, err
}

// counted returns req with bodies whose closes are counted.
func (t *hops) counted(rec *oracle.Request, req *http.Request) *http.Request {
	if req.Body == nil || req.Body == http.NoBody {
		return req
	}
	out := req.WithContext(req.Context())
	out.Body = t.body(rec, req.Body)
	if get := req.GetBody; get != nil {
		out.GetBody = func() (io.ReadCloser, error) {
			body, err := get()
			if err != nil {
				return nil, err
			}
			return t.body(rec, body), nil
		}
	}
	return out
}

// wire stands between the stack and net/http. It numbers the sends, counts the
// bodies of responses that are opened and closed, and sees when they let go of their
// connections.
type wire struct {
	led     *ledger
	process int
	base    *http.Transport
}

func (t *wire) CloseIdleConnections() { t.base.CloseIdleConnections() }

func (t *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	c := callFrom(req.Context())
	c.n++
	s := &oracle.Send{ID: c.req.ID, Hop: c.hop, N: c.n, Number: requestforge.SendNumber(req.Context()), Process: t.process, Origin: "http://" + req.URL.Host, Path: req.URL.Path, Token: label(req.Header.Get("Authorization"))}
	out := req.WithContext(req.Context())
	out.Header = req.Header.Clone()
	out.Header.Set(sendHeader, fmt.Sprintf("%d.%d", s.Hop, s.N))
	t.led.note(func(run *oracle.Run, now time.Duration) {
		s.Began = now
		run.Sends = append(run.Sends, s)
	})
	resp, err := t.base.RoundTrip(out)
	t.led.note(func(_ *oracle.Run, now time.Duration) {
		s.Ended = now
		if err == nil {
			s.Status, s.Opened = resp.StatusCode, true
			if resp.Body == http.NoBody {
				s.Freed = now
			}
		}
	})
	if err == nil {
		resp.Body = &answerBody{resp.Body, t.led, s}
	}
	return resp, err
}

// answerBody counts the closes of a response's body, and notes when it is over.
type answerBody struct {
	io.ReadCloser
	led  *ledger
	send *oracle.Send
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.led.note(b.over)
	}
	return n, err
}

func (b *answerBody) Close() error {
	b.led.note(func(run *oracle.Run, now time.Duration) {
		b.send.Closes++
		b.over(run, now)
	})
	return b.ReadCloser.Close()
}

func (b *answerBody) over(_ *oracle.Run, now time.Duration) {
	if b.send.Freed == 0 {
		b.send.Freed = now
	}
}

// callBody is a caller's request body. It puts down when it was read.
type callBody struct {
	led  *ledger
	req  *oracle.Request
	text io.Reader
}

func (b *callBody) Read(p []byte) (int, error) {
	n, err := b.text.Read(p)
	b.led.note(func(_ *oracle.Run, now time.Duration) { b.req.LastRead = now })
	return n, err
}

func (b *callBody) Close() error { return nil }

// stackBody is a body that the stack was given. It counts the closes: not
// those of http.Client, which closes a body once more before it follows a
// redirect.
type stackBody struct {
	io.ReadCloser
	led *ledger
	req *oracle.Request
	nth int // in req.Closes
}

func (t *hops) body(req *oracle.Request, body io.ReadCloser) *stackBody {
	b := &stackBody{ReadCloser: body, led: t.led, req: req}
	t.led.note(func(*oracle.Run, time.Duration) {
		b.nth = len(req.Closes)
		req.Closes = append(req.Closes, 0)
	})
	return b
}

func (b *stackBody) Close() error {
	b.led.note(func(*oracle.Run, time.Duration) { b.req.Closes[b.nth]++ })
	return b.ReadCloser.Close()
}
