//go:build !race

package requestforge

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// subjectRecord is the record of a user's token of 300 bytes with a refresh token, made from
// the token of an application. Records share the key of their ancestor, as in a pipeline,
// and no other string.
func subjectRecord(i int) Record {
	return Record{
		Key: fmt.Sprintf("requestforge:user@0123456789abcdef0123/%027d-thirteen more", i), // 80 bytes
		Token: &Token{
			AccessToken:  fmt.Sprintf("%0304d", i), // a size class, as is 64
			RefreshToken: fmt.Sprintf("%064d", i),
			TokenType:    strings.Clone("Bearer"),
			Expiry:       time.Now().Add(time.Hour),
		},
		Lineage: map[string]uint64{"requestforge:app@0123456789abcdef0123": 7},
		Issued:  time.Now(),
	}
}

// heapBytes is what is in use by now.
func heapBytes() uint64 {
	var m runtime.MemStats
	runtime.GC() // twice, for what a finalizer or a pool has kept
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// What a MemoryStorage takes of memory for many users is bounded, the key of the
// record and that of its ancestor included.
func TestAllocMemoryStorageBytesAKey(t *testing.T) {
	// The load of a map goes up and down with each doubling of what is in it.
	for _, n := range []int{50_000, 60_000} {
		s := NewMemoryStorage()
		save := func(i int) {
			r := subjectRecord(i)
			_, err := s.Save(t.Context(), r.Key, r, 0)
			require.NoError(t, err)
		}
		save(0)
		before := heapBytes()
		for i := range n {
			save(i + 1)
		}
		tokens := 304 + 64
		bytes := (float64(heapBytes()) - float64(before)) / float64(n)
		t.Logf("%.0f bytes a key, %.0f of them beside the token", bytes, bytes-float64(tokens))
		require.Less(t, bytes, float64(tokens+350))
		require.Greater(t, bytes, float64(tokens))

		// Users who are dropped leave nothing, and soon no room in the map either.
		const stay = 1000
		for i := stay; i < n; i++ {
			s.drop(subjectRecord(i + 1).Key)
		}
		for i := range 2 + stay {
			require.NoError(t, s.Revoke(t.Context(), subjectRecord(1).Key, uint64(i+1)))
		}
		left := float64(heapBytes()) - float64(before)
		require.Less(t, left, float64(stay*(tokens+350)))
		runtime.KeepAlive(s)
	}
}

func BenchmarkMemoryStorage(b *testing.B) {
	s := NewMemoryStorage()
	r := subjectRecord(0)
	b.Run("Save", func(b *testing.B) {
		b.ReportAllocs()
		var seen uint64
		for b.Loop() {
			e, err := s.Save(b.Context(), r.Key, r, seen)
			if err != nil {
				b.Fatal(err)
			}
			seen = e.Version()
		}
	})
	b.Run("Load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Load(b.Context(), r.Key); err != nil {
				b.Fatal(err)
			}
		}
	})
}
