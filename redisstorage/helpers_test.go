package redisstorage_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/redisstorage"
	"github.com/requestforge/requestforge/redisstorage/internal/redistest"
)

// patience is how long a test waits for what should be there at once: only a
// hang takes as long.
const patience = 30 * time.Second

func startNode(t testing.TB, args ...string) *redistest.Node {
	t.Helper()
	n, err := redistest.Start(t.TempDir(), args...)
	require.NoError(t, err)
	t.Cleanup(func() { n.Close() })
	return n
}

func startSentinel(t testing.TB) *redistest.Sentinel {
	t.Helper()
	s, err := redistest.StartSentinel(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func startCluster(t testing.TB) *redistest.Cluster {
	t.Helper()
	c, err := redistest.StartCluster(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// newClient returns a client as applications make it. A master name is for
// Sentinel; without one several addresses are a Cluster's.
func newClient(t testing.TB, master string, addrs ...string) redis.UniversalClient {
	t.Helper()
	c := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, MasterName: master, ContextTimeoutEnabled: true})
	t.Cleanup(func() { c.Close() })
	return c
}

func newStorage(t testing.TB, client redis.UniversalClient, opts redisstorage.Options) *redisstorage.Storage {
	t.Helper()
	s, err := redisstorage.New(client, opts)
	require.NoError(t, err)
	return s
}

var namespaces atomic.Int64

// namespace returns one that nobody else uses.
func namespace() string { return fmt.Sprintf("test%d-%d", os.Getpid(), namespaces.Add(1)) }

func record(key, access string) requestforge.Record {
	return requestforge.Record{Key: key, Token: &requestforge.Token{AccessToken: access}}
}

// save saves a record over what is there, and expects that to work.
func save(t testing.TB, s requestforge.Storage, r requestforge.Record) requestforge.Entry {
	t.Helper()
	e, err := s.Save(t.Context(), r.Key, r, load(t, s, r.Key).Version())
	require.NoError(t, err)
	require.NotNil(t, e.Record)
	require.Equal(t, r.Token.AccessToken, e.Record.Token.AccessToken)
	return e
}

// remove deletes what is there, and expects that to work.
func remove(t testing.TB, s requestforge.Storage, key string) requestforge.Entry {
	t.Helper()
	e, err := s.Delete(t.Context(), key, load(t, s, key).Version())
	require.NoError(t, err)
	require.Nil(t, e.Record)
	require.NotZero(t, e.Gone)
	return e
}

func load(t testing.TB, s requestforge.Storage, key string) requestforge.Entry {
	t.Helper()
	entries, err := s.Load(t.Context(), key)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	return entries[0]
}

// prefixOf returns a pipeline's key up to the colon that ends its prefix.
func prefixOf(key string) string { return key[:strings.LastIndexByte(key, ':')+1] }

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, 10*time.Millisecond, what)
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// calls returns how often a server has run a command.
func calls(t testing.TB, n *redistest.Node, command string) int {
	t.Helper()
	stats, err := n.Client().Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	_, rest, _ := strings.Cut(stats, "cmdstat_"+command+":calls=")
	rest, _, _ = strings.Cut(rest, ",")
	count, _ := strconv.Atoi(rest)
	return count
}

// primary reports whether a server is one.
func primary(t testing.TB, n *redistest.Node) bool {
	t.Helper()
	return strings.Contains(n.Client().Info(t.Context(), "replication").Val(), "role:master")
}
