//go:build !race

package requestforge_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
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
	for name, src := range map[string]rf.TokenSource{"the pipeline": p, "its leaf": p.Source("user"), "a parent": p.Source("app")} {
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			if _, err := src.Token(ctx); err != nil {
				t.Fatal(err)
			}
		}), name)
	}
}

// Use costs what its function does.
func TestAllocUse(t *testing.T) {
	src, ctx := livePipeline(t, nil).Source("app"), t.Context()
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if err := rf.Use(ctx, src, func(context.Context, *rf.Token) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}))
}

// A request that may carry no token costs the auth layer nothing, where no log asks why.
func TestAllocAuthTransportWithoutToken(t *testing.T) {
	base := roundTrip(func(req *http.Request) (*http.Response, error) { return done, nil })
	for name, rt := range map[string]*rf.AuthTransport{
		"excluded": {Source: static("t"), Origins: []string{host}, ExcludedPaths: []string{"/x"}, Base: base},
		"origin":   {Source: static("t"), Origins: []string{"https://elsewhere.example.com"}, Base: base},
	} {
		req, err := http.NewRequest("GET", host+"/x", nil)
		require.NoError(t, err)
		require.Zero(t, allocs(t, rt, req), name)
	}
}

var done = &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}

// Over the bare transport: 3 for the auth layer, 4 with a body that is kept, and none
// for a retry layer and a logging layer that is off.
func TestAllocAuthTransport(t *testing.T) {
	sealed, err := sealedstorage.New(rf.NewMemoryStorage(), sealedstorage.Config{Keys: []sealedstorage.Key{{ID: "1", Secret: []byte(strings.Repeat("k", 32))}}})
	require.NoError(t, err)
	for name, storage := range map[string]rf.Storage{"its own memory": nil, "shared memory": rf.NewMemoryStorage(), "sealed": sealed} {
		t.Run(name, func(t *testing.T) { allocAuthTransport(t, livePipeline(t, storage)) })
	}
}

func TestAllocAuthTransportOverASource(t *testing.T) {
	allocAuthTransport(t, livePipeline(t, nil).Source("app"))
}

func allocAuthTransport(t *testing.T, p rf.TokenSource) {
	for name, req := range requests(t) {
		t.Run(name, func(t *testing.T) {
			bare, most := allocs(t, &sink{}, req), 3.0
			if name == "plain reader" {
				most = 4 // the GetBody over what is kept
			}
			auth := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: &sink{}}
			require.LessOrEqual(t, allocs(t, auth, req)-bare, most, "auth")
			retry := &rf.RetryTransport{Base: auth, Policy: rf.RetryPolicy{RetryMax: 3}}
			require.LessOrEqual(t, allocs(t, retry, req)-bare, most, "retry over auth")
			logging := &rf.LoggingTransport{Base: retry}
			require.LessOrEqual(t, allocs(t, logging, req)-bare, most, "logging, off, over retry over auth")
			req := req.Clone(t.Context())
			cancel := make(chan struct{})
			//lint:ignore SA1019 http.Client sets it
			req.Cancel = cancel // as http.Client sets it for its Timeout
			require.LessOrEqual(t, allocs(t, logging, req)-bare, most, "with a Cancel")
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

// A server may send 9 MiB of parameters: net/http takes 10 MiB of headers.
func TestAuthChallengeCostsNoMoreThanItsSize(t *testing.T) {
	var b strings.Builder
	b.WriteString("Bearer x=1")
	for i := 0; b.Len() < 9<<20; i++ {
		fmt.Fprintf(&b, ",a%s=1", strconv.FormatInt(int64(i), 36))
	}
	synctest.Test(t, func(t *testing.T) {
		for _, status := range []int{401, 403} {
			rt := &rf.AuthTransport{Source: rf.StaticToken(&rf.Token{AccessToken: "t"}), Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				return reply(req, status, "WWW-Authenticate", b.String()), nil
			})}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			get(t, rt, host)
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
				t.Errorf("a %d with a challenge of %d bytes costs %d bytes", status, b.Len(), got)
			}
		}
	})
}
