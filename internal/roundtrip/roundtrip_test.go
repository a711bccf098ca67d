package roundtrip_test

import (
	"bytes"
	"context"
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

func TestDiscardDrainsALittleAndCloses(t *testing.T) {
	roundtrip.Discard(new(http.Response))
	for _, c := range []struct {
		size, length int64
		read         int
	}{
		{100, 100, 100}, {100, -1, 100}, {0, 0, 0},
		{1 << 20, -1, 64 << 10},
		{1 << 20, 1 << 20, 0}, // not worth it
	} {
		b := &body{Reader: bytes.NewReader(make([]byte, c.size))}
		roundtrip.Discard(&http.Response{Body: b, ContentLength: c.length})
		if b.read != c.read || b.closed != 1 {
			t.Errorf("%d bytes with Content-Length %d: %d read, closed %d times", c.size, c.length, b.read, b.closed)
		}
	}
}

func TestDiscardLeavesASlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		defer w.Close()
		begun := time.Now()
		roundtrip.Discard(&http.Response{Body: r, ContentLength: -1})
		if took := time.Since(begun); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for name, c := range map[string]struct {
			ctx    context.Context
			after  time.Duration // of Cancel; 0: never
			wait   time.Duration
			want   bool
			passes time.Duration
		}{
			"to the end":                  {t.Context(), 0, time.Minute, true, time.Minute},
			"no wait":                     {t.Context(), 0, 0, true, 0},
			"beyond the context's end":    {soon, 0, time.Minute, false, 0},
			"canceled by req.Cancel":      {t.Context(), time.Second, time.Minute, false, time.Second},
			"over before, without a wait": {canceled(t), 0, 0, false, 0},
			"over before, with a wait":    {canceled(t), 0, time.Minute, false, 0},
		} {
			req, err := http.NewRequestWithContext(c.ctx, "GET", "https://h/", nil)
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
			if got := roundtrip.Sleep(req, c.wait); got != c.want || time.Since(begun) != c.passes {
				t.Errorf("%s: %v after %v, want %v after %v", name, got, time.Since(begun), c.want, c.passes)
			}
			if roundtrip.Over(req) == c.want && name != "beyond the context's end" {
				t.Errorf("%s: Over is %v", name, !c.want)
			}
		}
	})
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
