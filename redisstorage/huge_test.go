package redisstorage_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/redisstorage"
)

// allocated returns how many bytes call allocates.
func allocated(call func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// What is longer than it can be isn't fetched, counts as missing, and is replaced.
// (Not parallel: it counts what the process allocates.)
func TestHugeValuesAreNotRead(t *testing.T) {
	const most = 16 << 20
	huge := strings.Repeat("1", 64<<20)
	for field, want := range map[string]requestforge.Entry{
		"r": {Mark: 1},
		"s": {Mark: 1},
		"m": {},
	} {
		t.Run(field, func(t *testing.T) {
			n := startNode(t)
			s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
			save(t, s, record("p:a", "old"))
			require.NoError(t, s.Revoke(t.Context(), "p:a", 1))
			require.NoError(t, n.Client().HSet(t.Context(), "rf:token:{p}:a", field, huge).Err())
			require.Less(t, allocated(func() { require.Equal(t, want, load(t, s, "p:a")) }), uint64(most))
			require.Less(t, allocated(func() {
				_, err := s.Save(t.Context(), "p:a", record("p:a", "mine"), 7)
				require.NoError(t, err)
				require.NoError(t, s.Revoke(t.Context(), "p:a", 1))
				require.Equal(t, "new", save(t, s, record("p:a", "new")).Record.Token.AccessToken)
			}), uint64(most))
			require.Equal(t, "new", load(t, s, "p:a").Record.Token.AccessToken)
		})
	}
	t.Run("failure", func(t *testing.T) {
		n := startNode(t)
		s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
		require.NoError(t, n.Client().Set(t.Context(), "rf:failure:{p}:a", huge, time.Minute).Err())
		require.Less(t, allocated(func() {
			f, err := s.LoadFailure(t.Context(), "p:a")
			require.NoError(t, err)
			require.Zero(t, f)
		}), uint64(most))
	})
	t.Run("lock", func(t *testing.T) {
		n := startNode(t)
		s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
		require.NoError(t, n.Client().Set(t.Context(), lockName, huge, time.Minute).Err())
		require.Less(t, allocated(func() {
			_, ok := tryLock(t, s)
			require.False(t, ok)
		}), uint64(most))
	})
}

// The largest record that can be is read.
func TestTheLargestRecordIsRead(t *testing.T) {
	s := newStorage(t, newClient(t, "", startNode(t).Addr), redisstorage.Options{})
	r := record("p:a", strings.Repeat("x", 3<<20-200))
	data, err := r.MarshalBinary()
	require.NoError(t, err)
	require.Greater(t, len(data), 4<<20-1000)
	require.Equal(t, r.Token.AccessToken, save(t, s, r).Record.Token.AccessToken)
	require.Equal(t, r.Token.AccessToken, load(t, s, "p:a").Record.Token.AccessToken)
}
