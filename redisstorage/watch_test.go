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
	t.Run("single node", func(t *testing.T) { pushed(t, "", startNode(t).Addr) })
	t.Run("Sentinel", func(t *testing.T) { pushed(t, redistest.Name, startSentinel(t).Addrs()...) })
	t.Run("Cluster", func(t *testing.T) { pushed(t, "", startCluster(t).Addrs()...) })
}

func pushed(t *testing.T, master string, addrs ...string) {
	here := newStorage(t, newClient(t, master, addrs...), redisstorage.Options{})
	there := newStorage(t, newClient(t, master, addrs...), redisstorage.Options{})
	changes := watch(t, there, "p:a", "p:b", "q:c")
	// It crosses no process, but the server is another one.
	var longest time.Duration
	push := func(key string, revoke func() error) {
		t.Helper()
		begun := time.Now()
		require.NoError(t, revoke())
		require.Equal(t, key, next(t, changes))
		longest = max(longest, time.Since(begun))
	}
	ctx := t.Context()
	push("p:a", func() error { return here.Revoke(ctx, "p:a", 3) })
	push("q:c", func() error { return here.Revoke(ctx, "q:c", 1) })
	// These tell nothing.
	require.NoError(t, here.Revoke(ctx, "p:a", 3))
	require.NoError(t, here.Revoke(ctx, "p:a", 2))
	require.NoError(t, here.Revoke(ctx, "p:b", 0))
	require.NoError(t, here.Revoke(ctx, "p:unwatched", 9))
	require.NoError(t, here.Revoke(ctx, "r:a", 9))
	require.NoError(t, here.Delete(ctx, "p:b", "p:nobody"))
	save(t, here, record("p:b", "x"))
	push("p:b", func() error { return here.Delete(ctx, "p:b") })
	t.Logf("the slowest push took %v", longest)
}

func TestWatchBeginsAnewAfterALoss(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	changes := watch(t, s, "p:a")
	n.Kill()
	require.NoError(t, n.Restart())
	require.Equal(t, "", next(t, changes))
	require.NoError(t, s.Revoke(t.Context(), "p:a", 1))
	require.Equal(t, "p:a", next(t, changes))

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
