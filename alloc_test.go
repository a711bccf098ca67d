//go:build !race

package requestforge_test

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/sealedstorage"
)

// sink is a transport that reads the body and answers the same each time.
type sink struct{ resp http.Response }

func (s *sink) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		var buf [512]byte
		for {
			if _, err := req.Body.Read(buf[:]); err != nil {
				break
			}
		}
		req.Body.Close()
	}
	s.resp = http.Response{StatusCode: 200, Body: http.NoBody}
	return &s.resp, nil
}

// rewinder is a body that starts over after each end.
type rewinder struct{ strings.Reader }

func (r *rewinder) Close() error { r.Seek(0, io.SeekStart); return nil }

func requests(t testing.TB) map[string]*http.Request {
	text := strings.Repeat("b", 2000)
	body := func() *rewinder {
		r := &rewinder{}
		r.Reset(text)
		return r
	}
	made := map[string]*http.Request{}
	for name, url := range map[string]string{"GET": host + "/v1/users?page=2", "GetBody": host + "/v1/users", "plain reader": host + "/v1/users"} {
		req, err := http.NewRequest("GET", url, nil)
		require.NoError(t, err)
		req.Header.Set("Accept", "application/json")
		req.Header.Set("User-Agent", "test/1.0")
		if name != "GET" {
			req.Method = "POST"
			req.Body, req.ContentLength = body(), 2000
			req.Header.Set("Content-Type", "application/json")
		}
		if name == "GetBody" {
			b := req.Body
			req.GetBody = func() (io.ReadCloser, error) { return b, nil }
		}
		made[name] = req
	}
	return made
}

func livePipeline(t testing.TB, storage rf.Storage) *rf.Pipeline {
	l := newLogin()
	l.takes = 0
	l.life["user"] = time.Hour
	p, err := rf.NewPipeline(rf.PipelineConfig{Steps: l.chain(), Storage: storage})
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	_, err = p.Token(context.Background())
	require.NoError(t, err)
	return p
}

func allocs(t testing.TB, rt http.RoundTripper, req *http.Request) float64 {
	send := func() {
		resp, err := rt.RoundTrip(req)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
	}
	send()
	return testing.AllocsPerRun(1000, send)
}

func TestAllocPipelineTokenLive(t *testing.T) {
	p := livePipeline(t, nil)
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := p.Token(ctx); err != nil {
			t.Fatal(err)
		}
	}))
}

// Over the bare transport: 3 for the auth layer, whatever the body, and none
// for a retry layer and a logging layer that is off.
func TestAllocAuthTransport(t *testing.T) {
	sealed, err := sealedstorage.New(rf.NewMemoryStorage(), sealedstorage.Config{Keys: []sealedstorage.Key{{ID: "1", Secret: []byte(strings.Repeat("k", 32))}}})
	require.NoError(t, err)
	for name, storage := range map[string]rf.Storage{"its own memory": nil, "shared memory": rf.NewMemoryStorage(), "sealed": sealed} {
		t.Run(name, func(t *testing.T) { allocAuthTransport(t, livePipeline(t, storage)) })
	}
}

func allocAuthTransport(t *testing.T, p *rf.Pipeline) {
	for name, req := range requests(t) {
		t.Run(name, func(t *testing.T) {
			bare := allocs(t, &sink{}, req)
			auth := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: &sink{}}
			require.LessOrEqual(t, allocs(t, auth, req)-bare, 3.0, "auth")
			retry := &rf.RetryTransport{Base: auth, Policy: rf.RetryPolicy{RetryMax: 3}}
			require.LessOrEqual(t, allocs(t, retry, req)-bare, 3.0, "retry over auth")
			logging := &rf.LoggingTransport{Base: retry}
			require.LessOrEqual(t, allocs(t, logging, req)-bare, 3.0, "logging, off, over retry over auth")
			req := req.Clone(t.Context())
			cancel := make(chan struct{})
			//lint:ignore SA1019 http.Client sets it
			req.Cancel = cancel // as http.Client sets it for its Timeout
			require.LessOrEqual(t, allocs(t, logging, req)-bare, 3.0, "with a Cancel")
		})
	}
}

func TestAllocLargeBodyIsNotBuffered(t *testing.T) {
	const size = 64 << 20
	p := livePipeline(t, nil)
	rt := &rf.RetryTransport{Policy: rf.RetryPolicy{RetryMax: 3}, Base: &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
		n, err := io.Copy(io.Discard, req.Body)
		req.Body.Close()
		if n != size || err != nil {
			t.Error(n, err)
		}
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})}}
	req, err := http.NewRequest("POST", host, io.LimitReader(zeros{}, size))
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = rt.RoundTrip(req)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}
