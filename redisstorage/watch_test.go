package redisstorage_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/requestforge/requestforge/redisstorage"
	"github.com/requestforge/requestforge/redisstorage/internal/redistest"
)

// watch calls Watch as a pipeline does, again and again, and returns what it
// tells.
func watch(t *testing.T, s *redisstorage.Storage, keys ...string) <-chan string {
	t.Helper()
	changes := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			s.Watch(ctx, keys, func(key string) { changes <- key })
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	require.Equal(t, "", next(t, changes), "it begins with everything")
	return changes
}

func next(t *testing.T, changes <-chan string) string {
	t.Helper()
	select {
	case key := <-changes:
		return key
	case <-time.After(patience):
		t.Fatal("nothing was pushed")
		return ""
	}
}

func TestRevocationsArePushed(t *testing.T) {
	t.Parallel()
	t.Run("single node", func(t *testing.T) { pushed(t, "", startNode(t).Addr) })
	t.Run("Sentinel", func(t *testing.T) { pushed(t, redistest.Name, startSentinel(t).Addrs()...) })
	t.Run("Cluster", func(t *testing.T) { pushed(t, "", startCluster(t).Addrs()...) })
}

func pushed(t *testing.T, master string, addrs ...string) {
	here := newStorage(t, newClient(t, master, addrs...), redisstorage.Options{})
	there := newStorage(t, newClient(t, master, addrs...), redisstorage.Options{})
	changes := watch(t, there, "p:a", "p:b", "q:c")
	// A watcher that was held up for seconds begins anew: what it has missed
	// is pushed again.
	push := func(key string, change func() error) {
		t.Helper()
		for got := ""; got == ""; {
			require.NoError(t, change())
			if got = next(t, changes); got != "" {
				require.Equal(t, key, got)
			}
		}
	}
	ctx := t.Context()
	marks := map[string]uint64{"p:a": 3}
	revoke := func(key string) func() error {
		return func() error {
			marks[key]++
			return here.Revoke(ctx, key, marks[key])
		}
	}
	push("p:a", revoke("p:a"))
	push("q:c", revoke("q:c"))
	// These tell nothing.
	require.NoError(t, here.Revoke(ctx, "p:a", marks["p:a"]))
	require.NoError(t, here.Revoke(ctx, "p:a", marks["p:a"]-1))
	require.NoError(t, here.Revoke(ctx, "p:b", 0))
	require.NoError(t, here.Revoke(ctx, "p:unwatched", 9))
	require.NoError(t, here.Revoke(ctx, "r:a", 9))
	require.NoError(t, here.Delete(ctx, "p:b", "p:nobody"))
	push("p:b", func() error {
		save(t, here, record("p:b", "x"))
		return here.Delete(ctx, "p:b")
	})
}

func TestWatchBeginsAnewAfterALoss(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	changes := watch(t, s, "p:a")
	n.Kill()
	require.NoError(t, n.Restart())
	require.Equal(t, "", next(t, changes))
	mark := uint64(0)
	for got := ""; got == ""; got = next(t, changes) { // once more if it began anew once more
		mark++
		require.NoError(t, s.Revoke(t.Context(), "p:a", mark))
	}

	// A server that is silent, with its connections up.
	n.Stop()
	err := make(chan error, 1)
	go func() { err <- s.Watch(t.Context(), []string{"p:a"}, func(string) {}) }()
	require.Error(t, <-err)
	n.Resume()
	require.Equal(t, "", next(t, changes))
}

func TestWatchReturnsWithItsContext(t *testing.T) {
	n := startNode(t)
	client := newClient(t, "", n.Addr)
	s := newStorage(t, client, redisstorage.Options{})
	before := goleak.IgnoreCurrent()
	for _, keys := range [][]string{{"p:a"}, nil} {
		ctx, cancel := context.WithCancel(t.Context())
		if keys == nil {
			cancel()
		}
		err := s.Watch(ctx, keys, func(string) { cancel() })
		require.ErrorIs(t, err, context.Canceled)
		cancel()
	}
	client.Close()
	goleak.VerifyNone(t, before)
}

func TestWatchSaysWhatFailed(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	n.Kill()
	require.ErrorContains(t, s.Watch(t.Context(), []string{"p:a"}, func(string) {}), `redisstorage: watch ["p:a"]`)
}
