package flight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestManyCallersShareOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Flight[int]
		var calls, got atomic.Int32
		for range 1000 {
			go func() {
				v, err := f.Do(t.Context(), func(context.Context) (int, error) {
					calls.Add(1)
					time.Sleep(time.Second)
					return 7, nil
				})
				if err == nil && v == 7 {
					got.Add(1)
				}
			}()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualValues(t, 1, calls.Load())
		require.EqualValues(t, 1000, got.Load())
	})
}

func TestCallerLeavesAndCallGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Flight[string]
		type key struct{}
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "kept"))
		begun := time.Now()
		go func() { time.Sleep(time.Second); cancel(why) }()
		_, err := f.Do(ctx, func(ctx context.Context) (string, error) {
			time.Sleep(time.Minute)
			require.NoError(t, ctx.Err(), "the call has the leader's cancellation")
			return ctx.Value(key{}).(string), nil
		})
		require.Equal(t, why, err)
		require.Equal(t, time.Second, time.Since(begun))
		v, err := f.Do(t.Context(), func(context.Context) (string, error) { return "", errors.New("a second call") })
		require.NoError(t, err)
		require.Equal(t, "kept", v)
	})
}

func TestContextThatIsOverBeginsNothing(t *testing.T) {
	var f Flight[int]
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := f.Do(ctx, func(context.Context) (int, error) { t.Error("called"); return 0, nil })
	require.ErrorIs(t, err, context.Canceled)
}

func TestPanicAndGoexitAreErrorsForAll(t *testing.T) {
	for name, c := range map[string]struct {
		fn   func(context.Context) (int, error)
		want string
	}{
		"panic":   {func(context.Context) (int, error) { panic("s3cret") }, "panic with a value of type string"},
		"runtime": {func(context.Context) (int, error) { return []int{}[len(t.Name())], nil }, "out of range"},
		"nil":     {func(context.Context) (int, error) { panic(nil) }, "nil"},
		"goexit":  {func(context.Context) (int, error) { runtime.Goexit(); return 0, nil }, "Goexit"},
	} {
		t.Run(name, func(t *testing.T) {
			var f Flight[int]
			_, err := f.Do(t.Context(), c.fn)
			require.ErrorContains(t, err, c.want)
			for _, verb := range []string{"%v", "%+v", "%#v", "%q", "%s"} {
				require.NotContains(t, fmt.Sprintf(verb, err), "s3cret")
			}
			text, err := json.Marshal([]error{err})
			require.NoError(t, err)
			require.NotContains(t, string(text), "s3cret")
			v, err := f.Do(t.Context(), func(context.Context) (int, error) { return 1, nil })
			require.NoError(t, err, "the next call works")
			require.Equal(t, 1, v)

			_, err = Bounded(t.Context(), nil, c.fn, nil)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestBoundedLeavesTheDeafAndTakesCareOfWhatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		late := make(chan int, 1)
		begun := time.Now()
		_, err := Bounded(ctx, nil, func(context.Context) (int, error) {
			time.Sleep(time.Hour)
			return 9, nil
		}, func(v int, err error) { late <- v })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begun))
		require.Equal(t, 9, <-late)
	})
}

func TestStartWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Flight[int]
		sleep := func(context.Context) (int, error) { time.Sleep(time.Second); return 3, nil }
		begun := time.Now()
		require.True(t, f.Start(t.Context(), sleep))
		require.False(t, f.Start(t.Context(), sleep))
		require.Zero(t, time.Since(begun))
		v, err := f.Do(t.Context(), sleep)
		require.NoError(t, err)
		require.Equal(t, 3, v)
		require.Equal(t, time.Second, time.Since(begun))
	})
}

// Hooks of the caller's request must not fire for the fetch: neither those
// of net/http nor those that package net calls.
func TestDetachDropsTraceHooks(t *testing.T) {
	fired := func(what string) { t.Errorf("%s fired", what) }
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GetConn:      func(string) { fired("GetConn") },
		DNSStart:     func(httptrace.DNSStartInfo) { fired("DNSStart") },
		ConnectStart: func(string, string) { fired("ConnectStart") },
	})
	type key struct{}
	ctx = Detach(context.WithValue(ctx, key{}, 1))
	require.Equal(t, 1, ctx.Value(key{}))
	require.Nil(t, httptrace.ContextClientTrace(ctx))

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	go http.Serve(ln, http.NotFoundHandler())
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	url := "http://" + strings.Replace(ln.Addr().String(), "127.0.0.1", "localhost", 1)
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	require.NoError(t, err)
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	resp.Body.Close()

	// A trace that the call sets itself works.
	got := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GetConn: func(string) { got++ }})
	resp, err = tr.RoundTrip(req.WithContext(ctx))
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 1, got)
}

// Close ends a call that nobody waits for, at once or when its last caller leaves,
// and nobody gets the result of such a call.
func TestCloseEndsWhatNobodyWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended, begun atomic.Int32
		slow := func(ctx context.Context) (int, error) {
			n := int(begun.Add(1))
			select {
			case <-ctx.Done():
				require.ErrorIs(t, context.Cause(ctx), ErrClosed)
				ended.Add(1)
				time.Sleep(time.Second) // it takes a while to hear
				return 0, ctx.Err()
			case <-time.After(time.Minute):
				return n, nil
			}
		}
		var idle, f Flight[int]
		require.True(t, idle.Start(t.Context(), slow))
		idle.Close()
		require.False(t, idle.Start(t.Context(), slow))
		synctest.Wait()
		require.EqualValues(t, 1, ended.Load())

		one, leave := context.WithCancel(t.Context())
		go f.Do(one, slow)
		two := make(chan int)
		go func() { v, _ := f.Do(t.Context(), slow); two <- v }()
		synctest.Wait()
		f.Close()
		f.Close()
		leave()
		require.Equal(t, 2, <-two, "it has a caller still")
		require.EqualValues(t, 1, ended.Load())

		one, leave = context.WithCancel(t.Context())
		go f.Do(one, slow)
		synctest.Wait()
		leave()
		synctest.Wait()
		require.EqualValues(t, 2, ended.Load())
		v, err := f.Do(t.Context(), slow) // while the ended one still runs
		require.NoError(t, err)
		require.Equal(t, 4, v)
		require.False(t, f.Start(t.Context(), slow), "nothing begins by itself any more")
	})
}

func TestContextKeptFromACallDoesntEnd(t *testing.T) {
	var f Flight[context.Context]
	kept, err := f.Do(t.Context(), func(ctx context.Context) (context.Context, error) { return ctx, nil })
	require.NoError(t, err)
	f.Close()
	require.NoError(t, kept.Err())
}

// A Limit counts only what was left behind, and lets it go when it returns.
func TestLimitCountsWhatIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimit(2)
		hang := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		call := func() error {
			_, err := Bounded(ctx, l, func(context.Context) (int, error) { <-hang; return 0, nil }, nil)
			return err
		}
		require.ErrorIs(t, call(), context.DeadlineExceeded)
		require.False(t, l.Full())
		require.ErrorIs(t, call(), context.DeadlineExceeded)
		require.True(t, l.Full())
		require.Equal(t, ErrFull, call())
		close(hang)
		synctest.Wait()
		require.False(t, l.Full())
		_, err := Bounded(t.Context(), l, func(context.Context) (int, error) { panic("s3cret") }, nil)
		require.Error(t, err)
		require.False(t, l.Full())
	})
}
