// The storage and the locks within one process. The rules are in storage.go, the compact form
// of a record is in storage_memory_record.go.

package requestforge

import (
	"context"
	"maps"
	"math"
	"sync"
	"time"
)

// A MemoryStorage is a [Storage] and [Locker] within one process. The zero value is ready to
// use. A MemoryStorage must not be copied after first use.
//
// A token comes back the same as from a shared Storage: as [Record.UnmarshalBinary] decodes
// the output of [Record.MarshalBinary]. A record takes 350 bytes at most, including a key of
// 80 bytes, besides the strings of its token, which are shared with the caller. Each ancestor
// beyond the first takes 32 bytes more; Extra and cookies take the size of their encoding and
// 150 bytes. If the context is done when a call begins, the call returns an error and does
// nothing.
//
// From time to time, calls that change entries drop the entries that a [Storage] may drop:
// records whose Keep is over, and tombstones and marks without a record after 30 days or
// more. So if the number of useful keys doesn't fall, a MemoryStorage holds at most twice the
// useful keys and a few more. A record whose Keep is zero stays until Delete.
type MemoryStorage struct {
	mu sync.Mutex // guards the maps; no code of the caller runs under mu

	entries map[string]*memoryEntry // made lazily; an entry is replaced, never changed, so an entry may be read without mu
	leases  map[string]*memoryLease // made lazily; held leases only

	due  int // changes of entries before the next sweep
	most int // largest number of entries since the map was made
}

// memorySweep is the smallest number of changes between two sweeps.
const memorySweep = 64

// memoryAfterlife is how long a tombstone, and a mark without a record, is kept at least.
const memoryAfterlife = 30 * 24 * time.Hour

type memoryEntry struct {
	// record returns the record; nil without a record. record is a function because fmt
	// prints a function as an address, whatever the verb and the value around the function.
	record func() memoryRecord

	stamp uint64 // of the record; 0: no record
	mark  uint64
	past  *memoryPast // nil if there was no logout, and there is a record
}

// memoryPast is the state of an entry from before its record, or of an entry without a
// record.
type memoryPast struct {
	gone  uint64 // the tombstone; 0: no tombstone
	until int64  // Unix seconds; from then on the entry may be dropped as soon as its record may
}

// gone is the tombstone.
func (e *memoryEntry) gone() uint64 {
	if e.past == nil {
		return 0
	}
	return e.past.gone
}

// useless is from when on the entry may be dropped, in Unix seconds.
func (e *memoryEntry) useless() int64 {
	until := int64(math.MinInt64)
	if e.past != nil {
		until = e.past.until
	}
	if e.record != nil {
		until = max(until, e.record().useless())
	}
	return until
}

// has reports whether a caller who has seen the version seen may change e.
func (e *memoryEntry) has(seen uint64) bool {
	if e.stamp != 0 {
		return e.stamp == seen
	}
	return e.gone() == 0 || e.gone() == seen
}

// afterlife returns the rest of e without its record, kept for as long as the record, or a
// refresh token in the record, may be of use somewhere.
func (e *memoryEntry) afterlife(gone uint64) *memoryPast {
	life, until := memoryAfterlife, int64(math.MinInt64)
	if e.past != nil {
		until = e.past.until
	}
	if e.record != nil {
		r := e.record()
		life = max(life, r.keep)
		if end := r.useless(); end != math.MaxInt64 {
			until = max(until, end)
		}
	}
	return &memoryPast{gone, max(until, time.Now().Add(life).Unix())}
}

// NewMemoryStorage returns an empty MemoryStorage.
func NewMemoryStorage() *MemoryStorage { return &MemoryStorage{} }

// inOneProcess marks a MemoryStorage, and types that embed a MemoryStorage, as storages that
// no other process can use.
func (m *MemoryStorage) inOneProcess() {}

// Load implements [Storage].
func (m *MemoryStorage) Load(ctx context.Context, keys ...string) ([]Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found := make([]*memoryEntry, len(keys))
	m.mu.Lock()
	for i, key := range keys {
		found[i] = m.entries[key]
	}
	m.mu.Unlock()

	entries := make([]Entry, len(keys))
	for i, e := range found {
		var err error
		if entries[i], err = e.open(keys[i]); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// Save implements [Storage].
func (m *MemoryStorage) Save(ctx context.Context, key string, r Record, seen uint64) (Entry, error) {
	if err := ctx.Err(); err != nil {
		return Entry{}, err
	}
	kept, err := newMemoryRecord(key, r)
	if err != nil {
		return Entry{}, err
	}
	e, err := m.swap(key, kept, r.Stamp, seen)
	if err != nil {
		return Entry{}, err
	}
	return e.open(key)
}

// swap is the atomic part of Save.
func (m *MemoryStorage) swap(key string, kept memoryRecord, floor, seen uint64) (*memoryEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.entry(key)
	if !old.has(seen) {
		return &old, nil
	}
	top := max(old.stamp, old.mark, old.gone(), floor)
	if top >= maxStamp {
		return nil, errRecordStamp
	}
	e := &memoryEntry{record: func() memoryRecord { return kept }, stamp: top + 1, mark: old.mark}
	if old.gone() != 0 {
		e.past = old.past
	}
	m.put(key, e)
	return e, nil
}

// Revoke implements [Storage].
func (m *MemoryStorage) Revoke(ctx context.Context, key string, stamp uint64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if stamp > maxStamp {
		return errRecordStamp
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entry(key)
	if stamp <= e.mark {
		return nil
	}
	e.mark = stamp
	if e.record == nil {
		e.past = e.afterlife(e.gone())
	}
	m.put(key, &e)
	return nil
}

// Delete implements [Storage].
func (m *MemoryStorage) Delete(ctx context.Context, key string, seen uint64) (Entry, error) {
	if err := ctx.Err(); err != nil {
		return Entry{}, err
	}
	e, err := m.bury(key, seen)
	if err != nil {
		return Entry{}, err
	}
	return e.open(key)
}

// bury is the atomic part of Delete.
func (m *MemoryStorage) bury(key string, seen uint64) (*memoryEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.entry(key)
	if !old.has(seen) {
		return &old, nil
	}
	top := max(seen, old.mark, old.gone())
	if top >= maxStamp {
		return nil, errRecordStamp
	}
	e := &memoryEntry{mark: old.mark, past: old.afterlife(top + 1)}
	m.put(key, e)
	return e, nil
}

// drop forgets keys: records, marks and tombstones. A lock stays.
func (m *MemoryStorage) drop(keys ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		delete(m.entries, key)
		m.changed()
	}
}

// TryLock implements [Locker]. The lease lasts until Unlock.
func (m *MemoryStorage) TryLock(ctx context.Context, key string) (Lease, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[key] != nil {
		return nil, false, nil
	}
	if m.leases == nil {
		m.leases = make(map[string]*memoryLease)
	}
	l := &memoryLease{storage: m, key: key}
	m.leases[key] = l
	return l, true, nil
}

// entry returns the entry of key, or the zero entry. The caller holds m.mu.
func (m *MemoryStorage) entry(key string) memoryEntry {
	if e := m.entries[key]; e != nil {
		return *e
	}
	return memoryEntry{}
}

// put needs m.mu.
func (m *MemoryStorage) put(key string, e *memoryEntry) {
	m.changed()
	if m.entries == nil {
		m.entries = make(map[string]*memoryEntry)
	}
	m.entries[key] = e
	m.most = max(m.most, len(m.entries))
}

// changed counts a change of an entry. changed sweeps after as many changes as the sweep
// before left entries. So a change costs a look at two entries, on average, and the number of
// entries is at most twice the number of useful entries. The caller holds m.mu.
func (m *MemoryStorage) changed() {
	m.due--
	if m.due >= 0 {
		return
	}
	now := time.Now().Unix()
	for key, e := range m.entries {
		if e.useless() < now {
			delete(m.entries, key)
		}
	}
	// A map of Go's never gives memory back.
	if n := len(m.entries); n < m.most/2 {
		entries := make(map[string]*memoryEntry, n)
		maps.Copy(entries, m.entries)
		m.entries, m.most = entries, n
	}
	m.due = max(memorySweep, len(m.entries))
}

// open returns a copy of e, the entry under key. e may be nil.
func (e *memoryEntry) open(key string) (Entry, error) {
	if e == nil {
		return Entry{}, nil
	}
	if e.record == nil {
		return Entry{Mark: e.mark, Gone: e.gone()}, nil
	}
	r, err := e.record().record(key, e.stamp)
	if err != nil {
		return Entry{}, err
	}
	return Entry{Record: r, Mark: e.mark, Gone: e.gone()}, nil
}

type memoryLease struct {
	storage *MemoryStorage
	key     string
}

// Done returns nil: nothing but Unlock ends the lease.
func (l *memoryLease) Done() <-chan struct{} { return nil }

// Unlock ignores its context: Unlock never waits, and a lease left locked would never end.
func (l *memoryLease) Unlock(context.Context) error {
	m := l.storage
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[l.key] == l {
		delete(m.leases, l.key)
	}
	return nil
}
