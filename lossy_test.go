package requestforge_test

import (
	"context"
	"fmt"
	"sync"

	rf "github.com/requestforge/requestforge"
)

// lossy is a storage that can lose what is under a key, mark and tombstone too, as a
// flushed or evicting one does. Locks stay.
type lossy struct {
	*rf.MemoryStorage
	mu   sync.Mutex
	lost map[string]int // how often, by key
}

func newLossy() *lossy { return &lossy{MemoryStorage: rf.NewMemoryStorage(), lost: map[string]int{}} }

func (s *lossy) lose(keys ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		s.lost[key]++
	}
}

// at is where the present content of key is.
func (s *lossy) at(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%s#%d", key, s.lost[key])
}

func (s *lossy) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	there := make([]string, len(keys))
	for i, key := range keys {
		there[i] = s.at(key)
	}
	return s.MemoryStorage.Load(ctx, there...)
}

func (s *lossy) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	return s.MemoryStorage.Save(ctx, s.at(key), r, seen)
}

func (s *lossy) Revoke(ctx context.Context, key string, stamp uint64) error {
	return s.MemoryStorage.Revoke(ctx, s.at(key), stamp)
}

func (s *lossy) Delete(ctx context.Context, key string, seen uint64) (rf.Entry, error) {
	return s.MemoryStorage.Delete(ctx, s.at(key), seen)
}
