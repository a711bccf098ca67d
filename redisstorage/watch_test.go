package redisstorage_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/requestforge/requestforge/redisstorage"
	"github.com/requestforge/requestforge/redisstorage/internal/redistest"
)

// watch begins to watch, and returns what is told, once that has begun.
func watch(t *testing.T, s *redisstorage.Storage, keys ...string) <-chan string {
	t.Helper()
	changes := make(chan string, 100_000)
	stop := s.Watch(keys, func(key string, err error) {
		if err == nil {
			changes <- key
		}
	})
	t.Cleanup(stop)
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
	push("p:a/AbC_-", revoke("p:a/AbC_-"))
	push("q:c/x/y", revoke("q:c/x/y"))
	// These tell nothing.
	require.NoError(t, here.Revoke(ctx, "p:a", marks["p:a"]))
	require.NoError(t, here.Revoke(ctx, "p:a", marks["p:a"]-1))
	require.NoError(t, here.Revoke(ctx, "p:b", 0))
	for _, key := range []string{"p:unwatched", "p:unwatched/AbC", "p:ab", "p:ab/AbC", "p:a/", "p:a/b:c", "p", "p/a"} {
		require.NoError(t, here.Revoke(ctx, key, 9))
	}
	require.NoError(t, here.Revoke(ctx, "r:a", 9))
	push("p:b", func() error {
		save(t, here, record("p:b", "x"))
		remove(t, here, "p:b")
		return nil
	})
	push("p:b/AbC", func() error {
		save(t, here, record("p:b/AbC", "x"))
		remove(t, here, "p:b/AbC")
		return nil
	})
}

// However many subjects a pipeline has, it listens for its steps alone.
func TestWatchOfAStepHearsOfAllItsSubjects(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	here := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	there := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	keys := []string{"colonless/x", "colonless/x/y", "with/slash/x"}
	for i := range 10_000 {
		keys = append(keys, fmt.Sprint("p:user@1/subject-", i))
	}
	changes := watch(t, there, "p:user@1", "colonless", "with/slash")
	require.Equal(t, 3, channels(t, n), "one a prefix")
	missing := make(map[string]bool, len(keys))
	for _, key := range keys {
		missing[key] = true
	}
	mark := uint64(0)
	for got := ""; len(missing) > 0; {
		if got == "" { // it has begun anew, and may have missed some
			mark++
			for _, key := range keys {
				require.NoError(t, here.Revoke(t.Context(), key, mark))
			}
		}
		got = next(t, changes)
		delete(missing, got)
	}
	require.Equal(t, 3, channels(t, n))
	require.Equal(t, 1, pushConnections(t, n))
}

func TestWatchBeginsAnewAfterALoss(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	changes := watch(t, s, "p:a")
	errs := make(chan error, 100_000)
	t.Cleanup(s.Watch([]string{"p:b", "q:c"}, func(_ string, err error) {
		if err != nil {
			errs <- err
		}
	}))
	n.Kill()
	require.ErrorContains(t, <-errs, `redisstorage: watch ["p:b" "q:c"]`)
	require.NoError(t, n.Restart())
	require.Equal(t, "", next(t, changes))
	mark := uint64(0)
	for got := ""; got == ""; got = next(t, changes) { // once more if it began anew once more
		mark++
		require.NoError(t, s.Revoke(t.Context(), "p:a", mark))
	}

	// A server that is silent, with its connections up.
	for len(errs) > 0 {
		<-errs
	}
	n.Stop()
	require.ErrorContains(t, <-errs, "silent")
	n.Resume()
	require.Equal(t, "", next(t, changes))
}

// pushConnections returns how many connections of a server are for pushes.
func pushConnections(t testing.TB, n *redistest.Node) int {
	t.Helper()
	list, err := n.Client().Do(t.Context(), "CLIENT", "LIST", "TYPE", "pubsub").Text()
	require.NoError(t, err)
	return strings.Count(list, "\n")
}

// channels returns to how many channels of a server anybody listens.
func channels(t testing.TB, n *redistest.Node) int {
	t.Helper()
	return len(n.Client().PubSubChannels(t.Context(), "*").Val())
}

// All that watch over one Storage share a connection and two goroutines, come and go
// as they like, and hear of what they watch and of nothing else.
func TestWatchesShareAConnection(t *testing.T) {
	n := startNode(t)
	client := newClient(t, "", n.Addr)
	s := newStorage(t, client, redisstorage.Options{})
	before := goleak.IgnoreCurrent()
	const many = 2500 // more than one SUBSCRIBE names
	var mu sync.Mutex
	heard := make(map[string][]string) // by who
	var stops []func()
	join := func(who, prefix string) {
		stops = append(stops, s.Watch([]string{prefix + ":a", prefix + ":b"}, func(key string, err error) {
			mu.Lock()
			defer mu.Unlock()
			heard[who] = append(heard[who], key)
		}))
	}
	of := func(who string) []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.DeleteFunc(slices.Clone(heard[who]), func(key string) bool { return key == "" })
	}
	began := func(who string) {
		t.Helper()
		eventually(t, who+" hears that it began", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(heard[who], "")
		})
	}
	for i := range many {
		join(fmt.Sprint(i), fmt.Sprint("tenant-", i))
	}
	for i := range many {
		began(fmt.Sprint(i))
	}
	require.Equal(t, 1, pushConnections(t, n))
	require.Equal(t, many, channels(t, n))
	require.LessOrEqual(t, runtime.NumGoroutine(), 50)
	join("second", "tenant-7")
	join("new", "late")
	began("second")
	began("new")
	require.Equal(t, many+1, channels(t, n))

	require.NoError(t, s.Revoke(t.Context(), "tenant-7:b", 1))
	require.NoError(t, s.Revoke(t.Context(), "late:a", 1))
	// Who writes on a channel speaks for no other one.
	require.NoError(t, n.Client().Publish(t.Context(), "rf:revoked:{tenant-8}", "tenant-9:a").Err())
	require.NoError(t, n.Client().Publish(t.Context(), "rf:revoked:{tenant-8}", "tenant-8:b").Err())
	eventually(t, "all have heard", func() bool { return len(of("new")) > 0 && len(of("8")) > 0 })
	require.Equal(t, []string{"tenant-7:b"}, of("7"))
	require.Equal(t, []string{"tenant-7:b"}, of("second"))
	require.Equal(t, []string{"late:a"}, of("new"))
	require.Equal(t, []string{"tenant-8:b"}, of("8"))
	require.Empty(t, of("9"))

	for _, stop := range stops[:many] {
		stop()
		stop()
	}
	eventually(t, "channels of nobody's are left", func() bool { return channels(t, n) == 2 })
	require.NoError(t, s.Revoke(t.Context(), "tenant-7:b", 2))
	eventually(t, "who stays still hears", func() bool { return len(of("second")) == 2 })
	require.Equal(t, []string{"tenant-7:b"}, of("7"))
	for _, stop := range stops {
		stop()
	}
	eventually(t, "the connection is given back", func() bool { return pushConnections(t, n) == 0 })
	join("again", "late")
	began("again")
	stops[len(stops)-1]()
	s.Watch(nil, func(string, error) {})()
	client.Close()
	goleak.VerifyNone(t, before)
}
