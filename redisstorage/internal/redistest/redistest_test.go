package redistest_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge/redisstorage/internal/redistest"
)

func TestMain(m *testing.M) {
	logging.Disable()
	m.Run()
}

func TestNodeComesBackOnTheSameAddress(t *testing.T) {
	n, err := redistest.Start(t.TempDir())
	require.NoError(t, err)
	defer n.Close()
	addr := n.Addr
	ctx := t.Context()
	require.NoError(t, n.Client().Set(ctx, "k", "v", 0).Err())

	n.Kill()
	require.Error(t, n.Client().Ping(ctx).Err())
	require.NoError(t, n.Restart())
	require.Equal(t, addr, n.Addr)
	require.ErrorIs(t, n.Client().Get(ctx, "k").Err(), redis.Nil, "nothing was to be kept")

	n.Stop()
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	require.Error(t, n.Client().Ping(short).Err())
	n.Resume()
	require.NoError(t, n.Client().Ping(ctx).Err())
}

func TestSentinelFailsOver(t *testing.T) {
	s, err := redistest.StartSentinel(t.TempDir())
	require.NoError(t, err)
	defer s.Close()
	client := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: redistest.Name, SentinelAddrs: s.Addrs()})
	defer client.Close()
	require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())
	s.Primary.Kill()
	require.Eventually(t, func() bool {
		return client.Set(t.Context(), "k", "v", 0).Err() == nil
	}, time.Minute, 50*time.Millisecond)
}

func TestClusterFailsOverAndMovesASlot(t *testing.T) {
	c, err := redistest.StartCluster(t.TempDir())
	require.NoError(t, err)
	defer c.Close()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs(), ClusterStateReloadInterval: time.Second})
	defer client.Close()
	ctx := t.Context()
	require.NoError(t, client.Set(ctx, "k", "v", 0).Err())
	slot, err := c.Slot(ctx, "k")
	require.NoError(t, err)
	owner, err := c.Owner(ctx, 0, slot)
	require.NoError(t, err)

	to := (owner + 1) % 3
	require.NoError(t, c.Move(ctx, slot, owner, to))
	got, err := c.Nodes[to].Client().Get(ctx, "k").Result()
	require.NoError(t, err)
	require.Equal(t, "v", got)

	c.Nodes[to].Kill()
	require.Eventually(t, func() bool {
		return client.Get(ctx, "k").Val() == "v"
	}, time.Minute, 50*time.Millisecond)
}

// Servers that can't start are an error, with nothing left running.
func TestServersThatCannotStartAreAnError(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	_, err := redistest.StartCluster(nowhere)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = redistest.StartSentinel(nowhere)
	require.ErrorIs(t, err, os.ErrNotExist)
}
