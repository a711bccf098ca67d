package roundtrip_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge/internal/roundtrip"
)

type transport struct{ idle int }

func (*transport) RoundTrip(*http.Request) (*http.Response, error) { return nil, nil }
func (t *transport) CloseIdleConnections()                         { t.idle++ }

func TestBaseLooksUpTheDefaultAtEachCall(t *testing.T) {
	own := new(transport)
	if roundtrip.Base(own) != http.RoundTripper(own) {
		t.Error("another transport than the one set")
	}
	before := http.DefaultTransport
	defer func() { http.DefaultTransport = before }()
	swapped := new(transport)
	http.DefaultTransport = swapped
	if roundtrip.Base(nil) != http.RoundTripper(swapped) {
		t.Error("a swapped http.DefaultTransport isn't heard")
	}
	roundtrip.CloseIdle(nil)
	roundtrip.CloseIdle(own)
	if swapped.idle != 1 || own.idle != 1 {
		t.Errorf("CloseIdleConnections reached them %d and %d times", swapped.idle, own.idle)
	}
	roundtrip.CloseIdle(roundTripperFunc(nil)) // has no idle connections
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// body counts what is done with it.
type body struct {
	io.Reader
	read, closed int
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.read += n
	return n, err
}

func (b *body) Close() error { b.closed++; return nil }

func TestCloseBody(t *testing.T) {
	roundtrip.CloseBody(nil)
	roundtrip.CloseBody(new(http.Request))
	b := new(body)
	roundtrip.CloseBody(&http.Request{Body: b})
	if b.closed != 1 {
		t.Errorf("closed %d times", b.closed)
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			ctx    context.Context
			within time.Duration // of ctx's end; 0: none
			after  time.Duration // of Cancel; 0: never
			wait   time.Duration
			want   error
			passes time.Duration
		}{
			"to the end":                  {t.Context(), 0, 0, time.Minute, nil, time.Minute},
			"no wait":                     {t.Context(), 0, 0, 0, nil, 0},
			"beyond the context's end":    {t.Context(), 10 * time.Second, 0, time.Minute, roundtrip.ErrNoTime, 0},
			"canceled by req.Cancel":      {t.Context(), 0, time.Second, time.Minute, context.Canceled, time.Second},
			"over before, without a wait": {canceled(t), 0, 0, 0, context.Canceled, 0},
			"over before, with a wait":    {canceled(t), 0, 0, time.Minute, context.Canceled, 0},
		} {
			ctx := c.ctx
			if c.within > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, c.within) // from now: the cases before took time
				defer cancel()
			}
			req, err := http.NewRequestWithContext(ctx, "GET", "https://h/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.after > 0 {
				done := make(chan struct{})
				//lint:ignore SA1019 http.Client sets it, too
				req.Cancel = done
				time.AfterFunc(c.after, func() { close(done) })
			}
			begun := time.Now()
			if got := roundtrip.Sleep(req, c.wait); !errors.Is(got, c.want) || time.Since(begun) != c.passes {
				t.Errorf("%s: %v after %v, want %v after %v", name, got, time.Since(begun), c.want, c.passes)
			}
			if name == "beyond the context's end" {
				continue
			}
			if over := c.want != nil; roundtrip.Over(req) != over || (roundtrip.Cause(req) != nil) != over {
				t.Errorf("%s: Over is %v, the cause %v", name, !over, roundtrip.Cause(req))
			}
		}
	})
}

// req is a request under ctx, with a Cancel.
func req(ctx context.Context, cancel <-chan struct{}) *http.Request {
	req, _ := http.NewRequestWithContext(ctx, "GET", "https://h/", nil)
	//lint:ignore SA1019 http.Client sets it, too
	req.Cancel = cancel
	return req
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// A context's own cause is the error.
func TestSleepEndsWithTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(stop) })
		req, _ := http.NewRequestWithContext(ctx, "GET", "https://h/", nil)
		if err := roundtrip.Sleep(req, time.Minute); err != stop || roundtrip.Cause(req) != stop {
			t.Errorf("%v, then %v", err, roundtrip.Cause(req))
		}
	})
}
