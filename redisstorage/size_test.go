package redisstorage_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/redisstorage"
)

// What docs/storage.md says of the size of Redis: a subject with a token of 300 bytes takes
// some 1.2 KB of its memory, keys and expiries included.
func TestSizeOfASubject(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	client := newClient(t, "", node.Addr)
	type user struct{}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Subject: func(ctx context.Context) (string, error) {
			name, _ := ctx.Value(user{}).(string)
			return name, nil
		},
		Steps: []requestforge.Step{{
			Name: "user", PerSubject: true, Identity: "shop",
			Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
				return &requestforge.Token{AccessToken: strings.Repeat("x", 300), Expiry: time.Now().Add(time.Hour)}, nil
			}),
		}},
		Storage:        newStorage(t, client, redisstorage.Options{}),
		StorageTimeout: patience,
		KeyPrefix:      "shop",
	})
	require.NoError(t, err)
	defer pipeline.Close()

	const users = 500
	used := func() int64 { return memory(t, client) }
	login := func(n int) {
		for i := range n {
			_, err := pipeline.Token(context.WithValue(t.Context(), user{}, fmt.Sprint("user-", n, "-", i)))
			require.NoError(t, err)
		}
	}
	login(10) // for the scripts and the connections
	before := used()
	login(users)
	keys, err := client.DBSize(t.Context()).Result()
	require.NoError(t, err)
	require.GreaterOrEqual(t, keys, int64(users))
	each := (used() - before) / users
	t.Logf("%d bytes a subject", each)
	require.Greater(t, each, int64(300))
	require.Less(t, each, int64(1600))
}

// memory is what Redis has in use, in bytes.
func memory(t *testing.T, client redis.UniversalClient) (bytes int64) {
	t.Helper()
	info, err := client.Info(t.Context(), "memory").Result()
	require.NoError(t, err)
	_, rest, ok := strings.Cut(info, "used_memory:")
	require.True(t, ok)
	_, err = fmt.Sscan(rest, &bytes)
	require.NoError(t, err)
	return bytes
}
