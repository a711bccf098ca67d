// Where tokens live. What makes one live or dead is pipeline.go's.

package requestforge

import (
	"context"
	"time"
)

// Record is a token as a Storage keeps it.
type Record struct {
	// Key is the storage key that the record was saved under. A record
	// that comes back under another key is a miss, not a token.
	Key string

	Token   *Token
	Stamp   uint64
	Lineage map[string]uint64
	Issued  time.Time
	Keep    time.Duration
}

// Entry is what a Storage holds under one key.
type Entry struct {
	Record *Record
	Mark   uint64
}

// Storage keeps the newest token of each step, and its low-water mark.
type Storage interface {
	Load(ctx context.Context, keys ...string) ([]Entry, error)
	Save(ctx context.Context, key string, r Record, seen uint64) (Entry, error)
	Revoke(ctx context.Context, key string, stamp uint64) error
	Delete(ctx context.Context, keys ...string) error
}

// Locker is a Storage that can keep other processes from fetching.
type Locker interface {
	TryLock(ctx context.Context, key string) (Lease, bool, error)
}

// Lease is a lock that is held.
type Lease interface {
	Done() <-chan struct{}
	Unlock(ctx context.Context) error
}

// MemoryStorage is a Storage in this process.
type MemoryStorage struct{}

// NewMemoryStorage returns an empty one.
func NewMemoryStorage() *MemoryStorage { return &MemoryStorage{} }

func (m *MemoryStorage) Load(ctx context.Context, keys ...string) ([]Entry, error) {
	return make([]Entry, len(keys)), nil
}
func (m *MemoryStorage) Save(ctx context.Context, key string, r Record, seen uint64) (Entry, error) {
	return Entry{Record: &r}, nil
}
func (m *MemoryStorage) Revoke(ctx context.Context, key string, stamp uint64) error { return nil }
func (m *MemoryStorage) Delete(ctx context.Context, keys ...string) error           { return nil }
func (m *MemoryStorage) TryLock(ctx context.Context, key string) (Lease, bool, error) {
	return nil, false, nil
}
