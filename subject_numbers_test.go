package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// desk is an auth server that takes a while for each token, and counts.
type desk struct {
	takes            time.Duration
	app, users       atomic.Int64
	underWay, atOnce atomic.Int64 // at once: the most that were under way
}

func (d *desk) fetch(count *atomic.Int64) rf.FetcherFunc {
	return func(ctx context.Context, in rf.Input) (*rf.Token, error) {
		serial := count.Add(1)
		n := d.underWay.Add(1)
		defer d.underWay.Add(-1)
		for most := d.atOnce.Load(); n > most && !d.atOnce.CompareAndSwap(most, n); most = d.atOnce.Load() {
		}
		select {
		case <-time.After(d.takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return &rf.Token{AccessToken: fmt.Sprintf("%s-%d", in.Subject, serial), Expiry: time.Now().Add(time.Hour)}, nil
	}
}

// config is app -> user, of which app is shared.
func (d *desk) config(most int) rf.PipelineConfig {
	return rf.PipelineConfig{Subject: userOf, MaxSubjects: most, Steps: []rf.Step{
		{Name: "app", Fetcher: d.fetch(&d.app)},
		{Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: d.fetch(&d.users)},
	}}
}

// The short form, with the race detector; numbers_test.go has the long one.
func TestAThousandSubjectsThatAreColdAtOnce(t *testing.T) { coldAtOnce(t, 1000) }

// coldAtOnce lets n subjects without a token come at once. The auth server takes 100 ms
// and has 256 requests at a time, so that the last of 10,000 are served after four
// seconds. Every tenth caller leaves at a deadline of his own, and not later; what is
// fetched for him is kept.
func coldAtOnce(t *testing.T, n int) {
	synctest.Test(t, func(t *testing.T) {
		const most = 256
		d := desk{takes: 100 * time.Millisecond}
		p := pipeline(t, d.config(n))
		begin := time.Now()
		var served, late atomic.Int64
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				user, ctx := fmt.Sprint(i), t.Context()
				deadline := 10 * time.Second
				if i%10 == 0 {
					deadline = time.Duration(i/10+1) * time.Millisecond // up to a second
				}
				ctx, cancel := context.WithTimeout(ctx, deadline)
				defer cancel()
				tok, err := p.Token(as(ctx, user))
				switch {
				case err == nil && strings.HasPrefix(tok.AccessToken, user+"-"):
					served.Add(1)
				case i%10 == 0 && errors.Is(err, context.DeadlineExceeded) && time.Since(begin) == deadline:
					late.Add(1)
				default:
					t.Errorf("%s: %v after %v", user, err, time.Since(begin))
				}
				if took := time.Since(begin); took > 5*time.Second {
					t.Errorf("%s was served after %v", user, took)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, n, served.Load()+late.Load())
		require.GreaterOrEqual(t, served.Load(), int64(n*9/10))
		require.Positive(t, late.Load())
		synctest.Wait()
		require.EqualValues(t, 1, d.app.Load())
		require.EqualValues(t, n, d.users.Load())
		require.EqualValues(t, most, d.atOnce.Load())
		// Who left has a token now.
		for i := 0; i < n; i += 10 {
			tokenAs(t, p, as(t.Context(), fmt.Sprint(i)))
		}
		require.EqualValues(t, n, d.users.Load())
	})
}

// The short form, with the race detector; numbers_test.go has the long one.
func TestFourHundredSubjectsThatAreRevokedAtOnce(t *testing.T) { revokedAtOnce(t, 400) }

// revokedAtOnce revokes the tokens of n subjects at once, while each has two requests
// under way: one fetch each, the shared token stays, and nobody sees a refusal.
func revokedAtOnce(t *testing.T, n int) {
	synctest.Test(t, func(t *testing.T) {
		d := desk{takes: 100 * time.Millisecond}
		p := pipeline(t, d.config(n))
		api := roundTrip(func(req *http.Request) (*http.Response, error) {
			time.Sleep(10 * time.Millisecond)
			user, _ := userOf(req.Context())
			var serial int64
			if _, err := fmt.Sscanf(req.Header.Get("Authorization"), "Bearer "+user+"-%d", &serial); err != nil {
				t.Errorf("%s came with another's token", user)
			}
			status := http.StatusOK
			if serial <= int64(n) {
				status = http.StatusUnauthorized
			}
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
		})
		for i := range n {
			d.takes = 0
			tokenAs(t, p, as(t.Context(), fmt.Sprint(i)))
		}
		d.takes = 100 * time.Millisecond
		layer := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: api}
		time.Sleep(time.Minute) // the tokens are no longer young
		var served atomic.Int64
		var wg sync.WaitGroup
		for i := range 2 * n {
			wg.Go(func() {
				req, err := http.NewRequestWithContext(as(t.Context(), fmt.Sprint(i%n)), "GET", host+"/v1/users", nil)
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := layer.RoundTrip(req)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%d: %v, %v", i, resp, err)
					return
				}
				served.Add(1)
			})
		}
		wg.Wait()
		require.EqualValues(t, 2*n, served.Load())
		require.EqualValues(t, 1, d.app.Load())
		require.EqualValues(t, 2*n, d.users.Load())
		require.EqualValues(t, 256, d.atOnce.Load())
	})
}

// liveHeap is what is left of the heap after a collection.
func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// heapOf returns how many bytes of heap a pipeline holds once subjects have come, one after
// another, at most most of them at a time.
func heapOf(t *testing.T, subjects, most int) int64 {
	end := time.Now().Add(time.Hour)
	begin, goroutines := liveHeap(), runtime.NumGoroutine()
	p, err := rf.NewPipeline(rf.PipelineConfig{Subject: userOf, MaxSubjects: most, Steps: []rf.Step{
		{Name: "app", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			return &rf.Token{AccessToken: "app", Expiry: end}, nil
		})},
		{Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
			return &rf.Token{AccessToken: fmt.Sprintf("%0300s", in.Subject), Expiry: end}, nil
		})},
	}})
	require.NoError(t, err)
	for i := range subjects {
		tok, err := p.Token(as(t.Context(), strconv.Itoa(i)))
		require.NoError(t, err)
		require.Len(t, tok.AccessToken, 300)
	}
	held := liveHeap() - begin
	require.EqualValues(t, min(subjects, most), p.Stats().Subjects)
	require.EqualValues(t, max(0, subjects-most), p.Stats().Evicted)
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	return held
}
