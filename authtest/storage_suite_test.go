package authtest

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
)

func TestStorageSuitePassesMemoryStorage(t *testing.T) {
	TestStorage(t, func(t *testing.T) requestforge.Storage { return requestforge.NewMemoryStorage() })
}

func TestStorageSuiteNeedsNoLocker(t *testing.T) {
	type plain struct{ requestforge.Storage }
	TestStorage(t, func(t *testing.T) requestforge.Storage { return plain{requestforge.NewMemoryStorage()} })
}

// storageWrapper hides what a storage can do but for its Unwrap.
type storageWrapper struct{ requestforge.Storage }

func (w storageWrapper) Unwrap() requestforge.Storage { return w.Storage }

func TestStorageSuiteChecksTheLockerThatAStorageWraps(t *testing.T) {
	locks := 0
	TestStorage(t, func(t *testing.T) requestforge.Storage {
		m := &storageMutant{MemoryStorage: requestforge.NewMemoryStorage()}
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			if t.Name() == "TestStorageSuiteChecksTheLockerThatAStorageWraps/LockAgain" {
				locks++ // one call after another
			}
			return m.MemoryStorage.TryLock(ctx, key)
		}
		return storageWrapper{storageWrapper{m}}
	})
	if locks == 0 {
		t.Error("the rules of a Locker weren't checked")
	}
}

// storageMutant is a MemoryStorage with one fault: the function that is set.
type storageMutant struct {
	*requestforge.MemoryStorage
	load   func(ctx context.Context, keys ...string) ([]requestforge.Entry, error)
	save   func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error)
	revoke func(ctx context.Context, key string, stamp uint64) error
	delete func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error)
	lock   func(ctx context.Context, key string) (requestforge.Lease, bool, error)
	watch  func(keys []string, changed func(string, error)) (stop func())
	tells  func(c storageChange, tell func(key string)) // what a watch is told of a change
	next   requestforge.Storage

	watchers storageWatchers
}

func (m *storageMutant) Unwrap() requestforge.Storage { return m.next }

func (m *storageMutant) Load(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
	if m.load != nil {
		return m.load(ctx, keys...)
	}
	return m.MemoryStorage.Load(ctx, keys...)
}

func (m *storageMutant) Save(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
	if m.save != nil {
		return m.save(ctx, key, r, seen)
	}
	return m.MemoryStorage.Save(ctx, key, r, seen)
}

func (m *storageMutant) Revoke(ctx context.Context, key string, stamp uint64) error {
	defer m.tell(key, m.now(key))
	if m.revoke != nil {
		return m.revoke(ctx, key, stamp)
	}
	return m.MemoryStorage.Revoke(ctx, key, stamp)
}

func (m *storageMutant) Delete(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
	defer m.tell(key, m.now(key))
	if m.delete != nil {
		return m.delete(ctx, key, seen)
	}
	return m.MemoryStorage.Delete(ctx, key, seen)
}

func (m *storageMutant) TryLock(ctx context.Context, key string) (requestforge.Lease, bool, error) {
	if m.lock != nil {
		return m.lock(ctx, key)
	}
	return m.MemoryStorage.TryLock(ctx, key)
}

// storageWatchers are who watches a storageMutant.
type storageWatchers struct {
	mu    sync.Mutex // guards calls
	calls map[*func(string, error)][]string
}

func (m *storageMutant) Watch(keys []string, changed func(string, error)) (stop func()) {
	if m.watch != nil {
		return m.watch(keys, changed)
	}
	return m.listen(keys, changed)
}

func (m *storageMutant) listen(keys []string, changed func(string, error)) (stop func()) {
	id := &changed
	m.watchers.mu.Lock()
	defer m.watchers.mu.Unlock()
	if m.watchers.calls == nil {
		m.watchers.calls = make(map[*func(string, error)][]string)
	}
	m.watchers.calls[id] = slices.Clone(keys)
	changed("", nil)
	return func() {
		m.watchers.mu.Lock()
		defer m.watchers.mu.Unlock()
		delete(m.watchers.calls, id)
	}
}

// storageChange is a change of key, as one watch sees it.
type storageChange struct {
	watched, key string
	deleted      bool
}

// exact reports whether the watched key itself has changed.
func (c storageChange) exact() bool { return c.key == c.watched }

// subject reports whether it is the key of one of its subjects.
func (c storageChange) subject() bool { return strings.HasPrefix(c.key, c.watched+"/") }

// tell tells who watches key that it has changed since before.
func (m *storageMutant) tell(key string, before requestforge.Entry) {
	now := m.now(key)
	if now.Mark <= before.Mark && now.Gone <= before.Gone {
		return
	}
	m.watchers.mu.Lock()
	defer m.watchers.mu.Unlock()
	for changed, keys := range m.watchers.calls {
		for _, watched := range keys {
			c := storageChange{watched, key, now.Gone > before.Gone}
			tell := func(key string) { (*changed)(key, nil) }
			if m.tells != nil {
				m.tells(c, tell)
			} else if c.exact() || c.subject() {
				tell(key)
			}
		}
	}
}

// now returns what is stored under key, whatever the fault.
func (m *storageMutant) now(key string) requestforge.Entry {
	entries, err := m.MemoryStorage.Load(context.Background(), key)
	if err != nil {
		panic(err)
	}
	return entries[0]
}

// saving makes change the fault: something happens to records on their way in.
func (m *storageMutant) saving(change func(r *requestforge.Record)) {
	m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
		if r.Token != nil {
			tok := *r.Token
			tok.Extra = maps.Clone(tok.Extra)
			r.Token = &tok
		}
		change(&r)
		return m.MemoryStorage.Save(ctx, key, r, seen)
	}
}

// loading makes change the fault: something happens to entries on their way out.
func (m *storageMutant) loading(change func(key string, e *requestforge.Entry)) {
	m.load = func(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
		entries, err := m.MemoryStorage.Load(ctx, keys...)
		for i := range entries {
			change(keys[i], &entries[i])
		}
		return entries, err
	}
}

// renaming makes change the fault: something happens to keys.
func (m *storageMutant) renaming(change func(key string) string) {
	m.load = func(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
		keys = slices.Clone(keys)
		for i := range keys {
			keys[i] = change(keys[i])
		}
		return m.MemoryStorage.Load(ctx, keys...)
	}
	m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
		return m.MemoryStorage.Save(ctx, change(key), r, m.version(change(key)))
	}
	m.revoke = func(ctx context.Context, key string, stamp uint64) error {
		return m.MemoryStorage.Revoke(ctx, change(key), stamp)
	}
}

// returning makes change the fault: something happens to the entries that any call
// returns.
func (m *storageMutant) returning(change func(e *requestforge.Entry)) {
	m.loading(func(_ string, e *requestforge.Entry) { change(e) })
	m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
		e, err := m.MemoryStorage.Save(ctx, key, r, seen)
		change(&e)
		return e, err
	}
	m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
		e, err := m.MemoryStorage.Delete(ctx, key, seen)
		change(&e)
		return e, err
	}
}

// deleting makes change the fault: Delete takes something else for what the caller
// has seen.
func (m *storageMutant) deleting(change func(now requestforge.Entry, seen uint64) uint64) {
	m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
		return m.MemoryStorage.Delete(ctx, key, change(m.now(key), seen))
	}
}

// swapping makes change the fault: Save takes something else for what the caller has
// seen.
func (m *storageMutant) swapping(change func(now requestforge.Entry, r requestforge.Record, seen uint64) uint64) {
	m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
		return m.MemoryStorage.Save(ctx, key, r, change(m.now(key), r, seen))
	}
}

// version returns the version stored under key.
func (m *storageMutant) version(key string) uint64 { return m.now(key).Version() }

// storageFakeLease is a lease of a faulty lock.
type storageFakeLease struct {
	done   chan struct{}
	unlock func(ctx context.Context) error
}

func (l storageFakeLease) Done() <-chan struct{}            { return l.done }
func (l storageFakeLease) Unlock(ctx context.Context) error { return l.unlock(ctx) }

var errStorageMutant = errors.New("mutant")

// storageMutants are faults, with the rule of the suite that has to find
// each. A call that hangs does so until release is closed; the race detector
// must find nothing in them, so that it is the suite that does.
var storageMutants = []struct {
	rule, fault string
	apply       func(m *storageMutant, release <-chan struct{})
}{
	{"MissingKey", "an unknown key is an error", func(m *storageMutant, _ <-chan struct{}) {
		m.load = func(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
			entries, err := m.MemoryStorage.Load(ctx, keys...)
			if slices.Contains(entries, requestforge.Entry{}) {
				err = errStorageMutant
			}
			return entries, err
		}
	}},
	{"MissingKey", "an unknown key is an empty record", func(m *storageMutant, _ <-chan struct{}) {
		m.loading(func(_ string, e *requestforge.Entry) {
			if e.Record == nil {
				e.Record = &requestforge.Record{Token: &requestforge.Token{}}
			}
		})
	}},
	{"MissingKey", "Load of no key is an error", func(m *storageMutant, _ <-chan struct{}) {
		m.load = func(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
			if len(keys) == 0 {
				return nil, errStorageMutant
			}
			return m.MemoryStorage.Load(ctx, keys...)
		}
	}},

	{"RoundTrip", "the key is lost", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) { r.Key = "" })
	}},
	{"RoundTrip", "the refresh token is lost", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) { r.Token.RefreshToken = "" })
	}},
	{"RoundTrip", "the refresh token is lost in Load only", func(m *storageMutant, _ <-chan struct{}) {
		m.loading(func(_ string, e *requestforge.Entry) {
			if e.Record != nil {
				e.Record.Token.RefreshToken = ""
			}
		})
	}},
	{"RoundTrip", "every token is a Bearer token", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) { r.Token.TokenType = "Bearer" })
	}},
	{"RoundTrip", "tokens are trimmed", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) { r.Token.AccessToken = strings.TrimSpace(r.Token.AccessToken) })
	}},
	{"RoundTrip", "tokens are made UTF-8", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) { r.Token.AccessToken = strings.ToValidUTF8(r.Token.AccessToken, "\ufffd") })
	}},
	{"RoundTrip", "tokens are cut", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) {
			r.Token.AccessToken = r.Token.AccessToken[:min(len(r.Token.AccessToken), 4000)]
		})
	}},
	{"RoundTrip", "no expiry is the epoch", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) {
			if r.Token.Expiry.IsZero() {
				r.Token.Expiry = time.Unix(0, 0)
			}
		})
	}},
	{"RoundTrip", "the epoch is no expiry", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) {
			if r.Token.Expiry.Unix() == 0 {
				r.Token.Expiry = time.Time{}
			}
		})
	}},
	{"RoundTrip", "times are cut to microseconds", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) { r.Issued = r.Issued.Truncate(time.Microsecond) })
	}},
	{"RoundTrip", "times lose their zone", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) {
			r.Token.Expiry, _ = time.Parse(time.DateTime, r.Token.Expiry.Format(time.DateTime))
		})
	}},
	{"RoundTrip", "the lineage is lost", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) { r.Lineage = nil })
	}},
	{"RoundTrip", "Until is lost", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) { r.Until = time.Time{} })
	}},
	{"RoundTrip", "Keep is rounded to seconds", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) { r.Keep = r.Keep.Truncate(time.Second) })
	}},
	{"RoundTrip", "Extra is lost", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) { r.Token.Extra = nil })
	}},
	{"RoundTrip", "Extra is decoded without UseNumber", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) {
			data, err := json.Marshal(r.Token.Extra)
			if err != nil {
				panic(err)
			}
			var extra map[string]any
			if json.Unmarshal(data, &extra) == nil { // not so for 1E+400
				r.Token.Extra = extra
			}
		})
	}},
	{"RoundTrip", "null is dropped from Extra", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) {
			maps.DeleteFunc(r.Token.Extra, func(_ string, v any) bool { return v == nil })
		})
	}},
	{"RoundTrip", "Load returns another stamp than Save", func(m *storageMutant, _ <-chan struct{}) {
		m.loading(func(_ string, e *requestforge.Entry) {
			if e.Record != nil {
				e.Record.Stamp++
			}
		})
	}},

	{"Replace", "without a new refresh token the old one stays", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			if old := m.now(key).Record; old != nil && r.Token.RefreshToken == "" {
				tok := *r.Token
				tok.RefreshToken = old.Token.RefreshToken
				r.Token = &tok
			}
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
	}},

	{"ExpiredStays", "expired records are dropped", func(m *storageMutant, _ <-chan struct{}) {
		m.loading(func(_ string, e *requestforge.Entry) {
			if e.Record != nil && !e.Record.Token.Expiry.IsZero() && e.Record.Token.Expiry.Before(time.Now()) {
				*e = requestforge.Entry{}
			}
		})
	}},
	{"ExpiredStays", "Keep 0 is taken for no time at all", func(m *storageMutant, _ <-chan struct{}) {
		m.loading(func(_ string, e *requestforge.Entry) {
			if r := e.Record; r != nil && !r.Token.Expiry.IsZero() && r.Token.Expiry.Add(r.Keep).Before(time.Now()) {
				*e = requestforge.Entry{}
			}
		})
	}},
	{"ExpiredStays", "the mark of an expired record is lost", func(m *storageMutant, _ <-chan struct{}) {
		m.loading(func(_ string, e *requestforge.Entry) {
			if e.Record != nil && e.Record.Token.Expiry.Before(time.Now()) {
				e.Mark = 0
			}
		})
	}},

	{"Order", "entries come in the order of sorted keys", func(m *storageMutant, _ <-chan struct{}) {
		m.load = func(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
			return m.MemoryStorage.Load(ctx, slices.Sorted(slices.Values(keys))...)
		}
	}},
	{"Order", "unknown keys are left out", func(m *storageMutant, _ <-chan struct{}) {
		m.load = func(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
			entries, err := m.MemoryStorage.Load(ctx, keys...)
			return slices.DeleteFunc(entries, func(e requestforge.Entry) bool { return e == requestforge.Entry{} }), err
		}
	}},
	{"Order", "a key named twice is answered once", func(m *storageMutant, _ <-chan struct{}) {
		m.load = func(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
			return m.MemoryStorage.Load(ctx, slices.Compact(slices.Clone(keys))...)
		}
	}},
	{"Order", "of a key named twice the second is empty", func(m *storageMutant, _ <-chan struct{}) {
		m.load = func(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
			entries, err := m.MemoryStorage.Load(ctx, keys...)
			for i := range entries {
				if slices.Contains(keys[:i], keys[i]) {
					entries[i] = requestforge.Entry{}
				}
			}
			return entries, err
		}
	}},

	{"OddKeys", "keys are lower case", func(m *storageMutant, _ <-chan struct{}) { m.renaming(strings.ToLower) }},
	{"OddKeys", "keys are trimmed", func(m *storageMutant, _ <-chan struct{}) { m.renaming(strings.TrimSpace) }},
	{"OddKeys", "keys are cut", func(m *storageMutant, _ <-chan struct{}) {
		m.renaming(func(key string) string { return key[:min(len(key), 255)] })
	}},
	{"OddKeys", "records and marks share a name space", func(m *storageMutant, _ <-chan struct{}) {
		m.revoke = func(ctx context.Context, key string, stamp uint64) error {
			r := storageToken("", "mark")
			r.Stamp = stamp
			_, err := m.MemoryStorage.Save(ctx, key+":mark", r, m.version(key+":mark"))
			return errors.Join(err, m.MemoryStorage.Revoke(ctx, key, stamp))
		}
	}},
	{"OddKeys", "Delete takes keys for prefixes", func(m *storageMutant, _ <-chan struct{}) {
		var mu sync.Mutex
		var known []string
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			mu.Lock()
			defer mu.Unlock()
			known = append(known, key)
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			mu.Lock()
			defer mu.Unlock()
			for _, other := range known {
				if other != key && strings.HasPrefix(other, key) {
					m.MemoryStorage.Delete(ctx, other, m.version(other))
				}
			}
			return m.MemoryStorage.Delete(ctx, key, seen)
		}
	}},
	{"OddKeys", "records and tombstones share a name space", func(m *storageMutant, _ <-chan struct{}) {
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			m.MemoryStorage.Delete(ctx, key+":gone", m.version(key+":gone"))
			return m.MemoryStorage.Delete(ctx, key, seen)
		}
	}},

	{"Seen", "seen is ignored", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, _ uint64) (requestforge.Entry, error) {
			return m.MemoryStorage.Save(ctx, key, r, m.version(key))
		}
	}},
	{"Seen", "seen 0 is taken for any", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			if seen == 0 {
				seen = m.version(key)
			}
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
	}},
	{"Seen", "a newer seen is taken for good", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			return m.MemoryStorage.Save(ctx, key, r, min(seen, m.version(key)))
		}
	}},
	{"Seen", "who was too slow gets an error", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			if m.version(key) != seen {
				return requestforge.Entry{}, errStorageMutant
			}
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
	}},
	{"Seen", "who was too slow gets his own record", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			e, err := m.MemoryStorage.Save(ctx, key, r, seen)
			if err == nil {
				r.Stamp = e.Record.Stamp
				e.Record = &r
			}
			return e, err
		}
	}},
	{"Seen", "Save returns no mark", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			e, err := m.MemoryStorage.Save(ctx, key, r, seen)
			e.Mark = 0
			return e, err
		}
	}},

	{"StampsRise", "the floor is ignored", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) { r.Stamp = 0 })
	}},
	{"StampsRise", "the mark is ignored", func(m *storageMutant, _ <-chan struct{}) {
		marks := &storageMarks{}
		m.revoke = func(_ context.Context, key string, stamp uint64) error {
			marks.set(key, max(marks.get(key), stamp))
			return nil
		}
		m.loading(func(key string, e *requestforge.Entry) { e.Mark = marks.get(key) })
	}},
	{"StampsRise", "stamps go through a float32", func(m *storageMutant, _ <-chan struct{}) {
		m.loading(func(_ string, e *requestforge.Entry) {
			if e.Record != nil {
				e.Record.Stamp = uint64(float32(e.Record.Stamp))
			}
		})
	}},

	{"MarksNeverFall", "the last Revoke wins", func(m *storageMutant, _ <-chan struct{}) {
		marks := &storageMarks{}
		m.revoke = func(ctx context.Context, key string, stamp uint64) error {
			marks.set(key, stamp)
			return m.MemoryStorage.Revoke(ctx, key, stamp)
		}
		m.loading(func(key string, e *requestforge.Entry) { e.Mark = marks.get(key) })
	}},
	{"MarksNeverFall", "Save forgets the mark", func(m *storageMutant, _ <-chan struct{}) {
		marks := &storageMarks{}
		m.revoke = func(ctx context.Context, key string, stamp uint64) error {
			marks.set(key, max(marks.get(key), stamp))
			return m.MemoryStorage.Revoke(ctx, key, stamp)
		}
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			marks.set(key, 0)
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
		m.loading(func(key string, e *requestforge.Entry) { e.Mark = marks.get(key) })
	}},

	{"RevokeUnknownKey", "Revoke needs a record", func(m *storageMutant, _ <-chan struct{}) {
		m.revoke = func(ctx context.Context, key string, stamp uint64) error {
			if m.now(key).Record == nil {
				return nil
			}
			return m.MemoryStorage.Revoke(ctx, key, stamp)
		}
	}},
	{"RevokeUnknownKey", "without a record there is no mark", func(m *storageMutant, _ <-chan struct{}) {
		m.loading(func(_ string, e *requestforge.Entry) {
			if e.Record == nil {
				e.Mark = 0
			}
		})
	}},

	{"RevokeKeepsRecord", "revoked records are dropped", func(m *storageMutant, _ <-chan struct{}) {
		m.loading(func(_ string, e *requestforge.Entry) {
			if e.Record != nil && e.Record.Stamp <= e.Mark {
				e.Record = nil
			}
		})
	}},
	{"RevokeKeepsRecord", "revoked refresh tokens are dropped", func(m *storageMutant, _ <-chan struct{}) {
		m.loading(func(_ string, e *requestforge.Entry) {
			if e.Record != nil && e.Record.Stamp <= e.Mark {
				e.Record.Token.RefreshToken = ""
			}
		})
	}},
	{"RevokeKeepsRecord", "Revoke is for every key", func(m *storageMutant, _ <-chan struct{}) {
		m.revoke = func(ctx context.Context, key string, stamp uint64) error {
			return errors.Join(m.MemoryStorage.Revoke(ctx, "k", stamp), m.MemoryStorage.Revoke(ctx, "other", stamp))
		}
	}},

	{"UnknownKeyTakesAnySeen", "a Save over nothing has to have seen nothing", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			if now := m.now(key); now.Version() == 0 && seen != 0 {
				return now, nil
			}
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
	}},
	{"UnknownKeyTakesAnySeen", "a Delete over nothing has to have seen nothing", func(m *storageMutant, _ <-chan struct{}) {
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			if now := m.now(key); now.Version() == 0 && seen != 0 && seen < 1<<53-1 {
				return now, nil
			}
			return m.MemoryStorage.Delete(ctx, key, seen)
		}
	}},
	{"UnknownKeyTakesAnySeen", "a Delete over nothing sets no tombstone above what was seen", func(m *storageMutant, _ <-chan struct{}) {
		m.deleting(func(now requestforge.Entry, seen uint64) uint64 {
			if now.Version() == 0 && seen < 1<<53-1 {
				return 0
			}
			return seen
		})
	}},

	{"Delete", "the record stays", func(m *storageMutant, _ <-chan struct{}) {
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			now := m.now(key)
			if now.Version() != seen || now.Record == nil {
				return m.MemoryStorage.Delete(ctx, key, seen)
			}
			return requestforge.Entry{Mark: now.Mark, Gone: max(seen, now.Mark, now.Gone) + 1}, nil
		}
	}},
	{"Delete", "no tombstone is set where there is no record", func(m *storageMutant, _ <-chan struct{}) {
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			if now := m.now(key); now == (requestforge.Entry{}) {
				return now, nil
			}
			return m.MemoryStorage.Delete(ctx, key, seen)
		}
	}},
	{"Delete", "the mark is lost", func(m *storageMutant, _ <-chan struct{}) {
		m.returning(func(e *requestforge.Entry) {
			if e.Record == nil && e.Gone != 0 {
				e.Mark = 0
			}
		})
	}},
	{"Delete", "the tombstone may be below the mark", func(m *storageMutant, _ <-chan struct{}) {
		m.returning(func(e *requestforge.Entry) {
			if e.Gone == e.Mark+1 && e.Mark == 9 {
				e.Gone = 5
			}
		})
	}},
	{"Delete", "other records are deleted, too", func(m *storageMutant, _ <-chan struct{}) {
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			m.MemoryStorage.Delete(ctx, "kept", m.version("kept"))
			return m.MemoryStorage.Delete(ctx, key, seen)
		}
	}},

	{"DeleteSeen", "seen is ignored", func(m *storageMutant, _ <-chan struct{}) {
		m.deleting(func(now requestforge.Entry, _ uint64) uint64 { return now.Version() })
	}},
	{"DeleteSeen", "seen 0 is taken for any", func(m *storageMutant, _ <-chan struct{}) {
		m.deleting(func(now requestforge.Entry, seen uint64) uint64 {
			if seen == 0 {
				return now.Version()
			}
			return seen
		})
	}},
	{"DeleteSeen", "a newer seen is taken for good", func(m *storageMutant, _ <-chan struct{}) {
		m.deleting(func(now requestforge.Entry, seen uint64) uint64 {
			if now.Version() == 0 {
				return seen
			}
			return min(seen, now.Version())
		})
	}},
	{"DeleteSeen", "over a tombstone any seen will do", func(m *storageMutant, _ <-chan struct{}) {
		m.deleting(func(now requestforge.Entry, seen uint64) uint64 {
			if now.Record == nil && now.Gone != 0 {
				return now.Gone
			}
			return seen
		})
	}},
	{"DeleteSeen", "over a tombstone Delete does nothing", func(m *storageMutant, _ <-chan struct{}) {
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			if now := m.now(key); now.Record == nil && now.Gone != 0 && now.Gone < 1<<53-1 {
				return now, nil
			}
			return m.MemoryStorage.Delete(ctx, key, seen)
		}
	}},
	{"DeleteSeen", "who was too slow gets an error", func(m *storageMutant, _ <-chan struct{}) {
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			if v := m.version(key); v != 0 && v != seen {
				return requestforge.Entry{}, errStorageMutant
			}
			return m.MemoryStorage.Delete(ctx, key, seen)
		}
	}},
	{"DeleteSeen", "who was too slow gets an entry without the record", func(m *storageMutant, _ <-chan struct{}) {
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			e, err := m.MemoryStorage.Delete(ctx, key, seen)
			e.Record = nil
			return e, err
		}
	}},

	{"SaveAfterDelete", "where no record is stored any seen will do", func(m *storageMutant, _ <-chan struct{}) {
		m.swapping(func(now requestforge.Entry, _ requestforge.Record, seen uint64) uint64 {
			if now.Record == nil {
				return now.Version()
			}
			return seen
		})
	}},
	{"SaveAfterDelete", "where no record is stored a first one is", func(m *storageMutant, _ <-chan struct{}) {
		m.swapping(func(now requestforge.Entry, _ requestforge.Record, seen uint64) uint64 {
			if now.Record == nil && seen == 0 {
				return now.Version()
			}
			return seen
		})
	}},
	{"SaveAfterDelete", "a floor above the tombstone is taken for having seen it", func(m *storageMutant, _ <-chan struct{}) {
		m.swapping(func(now requestforge.Entry, r requestforge.Record, seen uint64) uint64 {
			if now.Record == nil && r.Stamp >= now.Gone {
				return now.Version()
			}
			return seen
		})
	}},
	{"SaveAfterDelete", "after a logout nobody logs in again", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			if now := m.now(key); now.Gone != 0 {
				return now, nil
			}
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
	}},

	{"LateDelete", "the tombstone will do for seen", func(m *storageMutant, _ <-chan struct{}) {
		m.deleting(func(now requestforge.Entry, seen uint64) uint64 {
			if now.Gone != 0 && seen == now.Gone {
				return now.Version()
			}
			return seen
		})
	}},
	{"LateDelete", "a record from before the tombstone will do for seen", func(m *storageMutant, _ <-chan struct{}) {
		m.deleting(func(now requestforge.Entry, seen uint64) uint64 {
			if now.Record != nil && seen < now.Gone {
				return now.Version()
			}
			return seen
		})
	}},

	{"TombstonesNeverFall", "a record takes the place of the tombstone", func(m *storageMutant, _ <-chan struct{}) {
		m.returning(func(e *requestforge.Entry) {
			if e.Record != nil {
				e.Gone = 0
			}
		})
	}},
	{"TombstonesNeverFall", "Revoke removes the tombstone", func(m *storageMutant, _ <-chan struct{}) {
		gone := &storageMarks{}
		m.revoke = func(ctx context.Context, key string, stamp uint64) error {
			gone.raise(key, m.now(key).Gone) // those that were removed
			return m.MemoryStorage.Revoke(ctx, key, stamp)
		}
		m.loading(func(key string, e *requestforge.Entry) {
			if e.Gone <= gone.get(key) {
				e.Gone = 0
			}
		})
	}},
	{"TombstonesNeverFall", "a stamp only has to be above the mark", func(m *storageMutant, _ <-chan struct{}) {
		m.returning(func(e *requestforge.Entry) {
			if e.Record != nil && e.Gone != 0 && e.Record.Stamp == e.Gone+1 {
				e.Record.Stamp = e.Mark + 1
			}
		})
	}},

	{"TombstoneOutlivesRecords", "the tombstone goes with the record beside it", func(m *storageMutant, _ <-chan struct{}) {
		m.loading(func(_ string, e *requestforge.Entry) {
			if storageUseless(*e) {
				*e = requestforge.Entry{}
			}
		})
	}},
	{"TombstoneOutlivesRecords", "the tombstone lives as long as the record that it ended", func(m *storageMutant, _ <-chan struct{}) {
		dropped := map[string]bool{}
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			dropped[key] = storageUseless(m.now(key))
			return m.MemoryStorage.Delete(ctx, key, seen)
		}
		m.loading(func(key string, e *requestforge.Entry) {
			if dropped[key] {
				*e = requestforge.Entry{}
			}
		})
	}},

	{"ManyDeletes", "of Deletes at once one is heeded", func(m *storageMutant, _ <-chan struct{}) {
		var mu sync.Mutex
		var deleting string
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			mu.Lock()
			busy := deleting != "" && deleting != key
			if !busy {
				deleting = key
			}
			mu.Unlock()
			if busy {
				return requestforge.Entry{Gone: seen + 1}, nil
			}
			time.Sleep(time.Millisecond)
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				deleting = ""
			}()
			return m.MemoryStorage.Delete(ctx, key, seen)
		}
	}},

	{"BadInput", "a record without a token is no error", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			if r.Token == nil {
				return m.now(key), nil
			}
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
	}},
	{"BadInput", "a floor above 2^53 wraps", func(m *storageMutant, _ <-chan struct{}) {
		m.saving(func(r *requestforge.Record) {
			if r.Stamp == math.MaxUint64 {
				r.Stamp = 0
			}
		})
	}},
	{"BadInput", "a mark above 2^53 is cut", func(m *storageMutant, _ <-chan struct{}) {
		m.revoke = func(ctx context.Context, key string, stamp uint64) error {
			return m.MemoryStorage.Revoke(ctx, key, min(stamp, 1<<53-1))
		}
	}},
	{"BadInput", "what a Delete has seen is cut at 2^53", func(m *storageMutant, _ <-chan struct{}) {
		m.deleting(func(now requestforge.Entry, seen uint64) uint64 {
			if now.Version() == 0 {
				return min(seen, 1<<53-2)
			}
			return seen
		})
	}},
	{"BadInput", "a tombstone that would be above 2^53 isn't set", func(m *storageMutant, _ <-chan struct{}) {
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			e, err := m.MemoryStorage.Delete(ctx, key, seen)
			if err != nil {
				return m.now(key), nil
			}
			return e, nil
		}
	}},
	{"BadInput", "what fails has deleted the record", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			e, err := m.MemoryStorage.Save(ctx, key, r, seen)
			if err != nil {
				m.MemoryStorage.Delete(ctx, key, m.version(key))
			}
			return e, err
		}
	}},

	{"SavedIsCopied", "the caller's record is kept", func(m *storageMutant, _ <-chan struct{}) {
		var kept requestforge.Record
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			e, err := m.MemoryStorage.Save(ctx, key, r, seen)
			kept = r
			kept.Stamp = e.Record.Stamp
			return e, err
		}
		m.loading(func(_ string, e *requestforge.Entry) { e.Record = &kept })
	}},
	{"SavedIsCopied", "only the top of Extra is copied", func(m *storageMutant, _ <-chan struct{}) {
		var extra map[string]any
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			extra = maps.Clone(r.Token.Extra)
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
		m.loading(func(_ string, e *requestforge.Entry) { e.Record.Token.Extra = maps.Clone(extra) })
	}},
	{"SavedIsCopied", "Save changes the caller's token", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			e, err := m.MemoryStorage.Save(ctx, key, r, seen)
			r.Token.RefreshToken = ""
			return e, err
		}
	}},

	{"LoadedIsCopied", "every Load returns the same record", func(m *storageMutant, _ <-chan struct{}) {
		var kept *requestforge.Record
		m.loading(func(_ string, e *requestforge.Entry) {
			if kept == nil {
				kept = e.Record
			}
			e.Record = kept
		})
	}},
	{"LoadedIsCopied", "the entries of one Load share their record", func(m *storageMutant, _ <-chan struct{}) {
		m.load = func(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
			entries, err := m.MemoryStorage.Load(ctx, keys...)
			for i := range entries {
				entries[i] = entries[slices.Index(keys, keys[i])]
			}
			return entries, err
		}
	}},
	{"LoadedIsCopied", "Save keeps what it returns", func(m *storageMutant, _ <-chan struct{}) {
		var kept *requestforge.Record
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			e, err := m.MemoryStorage.Save(ctx, key, r, seen)
			if kept == nil {
				kept = e.Record
			}
			e.Record = kept
			return e, err
		}
	}},

	{"ConcurrentSaves", "Save looks first and stores later", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			if m.version(key) != seen {
				return m.now(key), nil
			}
			time.Sleep(time.Millisecond) // in the bubble's time: everybody has looked
			for {
				e, err := m.MemoryStorage.Save(ctx, key, r, m.version(key))
				if err != nil || storageAccess(e) == r.Token.AccessToken {
					return e, err
				}
			}
		}
	}},

	{"ConcurrentDeletes", "Delete looks first and deletes later", func(m *storageMutant, _ <-chan struct{}) {
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			if v := m.version(key); v != 0 && v != seen {
				return m.now(key), nil
			}
			time.Sleep(time.Millisecond)
			for {
				e, err := m.MemoryStorage.Delete(ctx, key, m.version(key))
				if err != nil || e.Record == nil {
					return e, err
				}
			}
		}
	}},
	{"ConcurrentDeletes", "Save looks first and stores later, over a tombstone", func(m *storageMutant, _ <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			now := m.now(key)
			if now.Version() != 0 && now.Version() != seen {
				return now, nil
			}
			time.Sleep(time.Millisecond)
			if e := m.now(key); e.Record == nil {
				seen = e.Version()
			}
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
	}},

	{"ConcurrentRevokes", "Revoke looks first and stores later", func(m *storageMutant, _ <-chan struct{}) {
		marks := &storageMarks{}
		m.revoke = func(ctx context.Context, key string, stamp uint64) error {
			mark := marks.get(key)
			time.Sleep(time.Millisecond)
			marks.set(key, max(mark, stamp))
			return m.MemoryStorage.Revoke(ctx, key, stamp)
		}
		m.loading(func(key string, e *requestforge.Entry) { e.Mark = marks.get(key) })
	}},
	{"ConcurrentRevokes", "Save looks at the mark first and stores later", func(m *storageMutant, _ <-chan struct{}) {
		marks := &storageMarks{}
		m.revoke = func(_ context.Context, key string, stamp uint64) error {
			marks.raise(key, stamp)
			time.Sleep(time.Millisecond)
			return nil
		}
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			r.Stamp = max(r.Stamp, marks.get(key))
			time.Sleep(time.Millisecond)
			e, err := m.MemoryStorage.Save(ctx, key, r, seen)
			e.Mark = marks.get(key)
			return e, err
		}
		m.loading(func(key string, e *requestforge.Entry) { e.Mark = marks.get(key) })
	}},

	{"DoneContext", "Load hangs", func(m *storageMutant, release <-chan struct{}) {
		m.load = func(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
			if ctx.Err() != nil {
				<-release
			}
			return m.MemoryStorage.Load(ctx, keys...)
		}
	}},
	{"DoneContext", "Save hangs", func(m *storageMutant, release <-chan struct{}) {
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			if ctx.Err() != nil {
				<-release
			}
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
	}},
	{"DoneContext", "Delete hangs", func(m *storageMutant, release <-chan struct{}) {
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			if ctx.Err() != nil {
				<-release
			}
			return m.MemoryStorage.Delete(ctx, key, seen)
		}
	}},
	{"DoneContext", "Load answers with nothing", func(m *storageMutant, _ <-chan struct{}) {
		m.load = func(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
			if ctx.Err() != nil {
				return nil, nil
			}
			return m.MemoryStorage.Load(ctx, keys...)
		}
	}},

	{"Unwrap", "keys get a prefix", func(m *storageMutant, _ <-chan struct{}) {
		m.next = m.MemoryStorage
		m.revoke = func(ctx context.Context, key string, stamp uint64) error {
			return m.MemoryStorage.Revoke(ctx, "prefix:"+key, stamp)
		}
	}},
	{"Unwrap", "keys get a prefix in Delete", func(m *storageMutant, _ <-chan struct{}) {
		m.next = m.MemoryStorage
		m.delete = func(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
			return m.MemoryStorage.Delete(ctx, "prefix:"+key, seen)
		}
	}},

	{"LockExclusive", "everybody gets the lock", func(m *storageMutant, _ <-chan struct{}) {
		m.lock = func(context.Context, string) (requestforge.Lease, bool, error) {
			return storageFakeLease{unlock: func(context.Context) error { return nil }}, true, nil
		}
	}},
	{"LockExclusive", "nobody gets the lock", func(m *storageMutant, _ <-chan struct{}) {
		m.lock = func(context.Context, string) (requestforge.Lease, bool, error) { return nil, false, nil }
	}},
	{"LockExclusive", "TryLock looks first and locks later", func(m *storageMutant, _ <-chan struct{}) {
		var mu sync.Mutex
		locked := false
		set := func(on bool) {
			mu.Lock()
			defer mu.Unlock()
			locked = on
		}
		m.lock = func(context.Context, string) (requestforge.Lease, bool, error) {
			mu.Lock()
			free := !locked
			mu.Unlock()
			if !free {
				return nil, false, nil
			}
			time.Sleep(time.Millisecond)
			set(true)
			return storageFakeLease{unlock: func(context.Context) error { set(false); return nil }}, true, nil
		}
	}},
	{"LockExclusive", "TryLock waits for the holder", func(m *storageMutant, release <-chan struct{}) {
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			lease, ok, err := m.MemoryStorage.TryLock(ctx, key)
			if !ok {
				<-release
			}
			return lease, ok, err
		}
	}},
	{"LockExclusive", "who doesn't get the lock gets a lease", func(m *storageMutant, _ <-chan struct{}) {
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			lease, ok, err := m.MemoryStorage.TryLock(ctx, key)
			if !ok {
				lease = storageFakeLease{}
			}
			return lease, ok, err
		}
	}},

	{"LockAgain", "Unlock does nothing", func(m *storageMutant, _ <-chan struct{}) {
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			_, ok, err := m.MemoryStorage.TryLock(ctx, key)
			if !ok {
				return nil, false, err
			}
			return storageFakeLease{unlock: func(context.Context) error { return nil }}, ok, err
		}
	}},

	{"LockOwner", "Unlock releases whoever holds the lock", func(m *storageMutant, _ <-chan struct{}) {
		var mu sync.Mutex
		var holder requestforge.Lease
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			mu.Lock()
			defer mu.Unlock()
			lease, ok, err := m.MemoryStorage.TryLock(ctx, key)
			if !ok {
				return nil, false, err
			}
			holder = lease
			return storageFakeLease{unlock: func(ctx context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				return holder.Unlock(ctx)
			}}, true, nil
		}
	}},
	{"LockOwner", "a further Unlock is an error", func(m *storageMutant, _ <-chan struct{}) {
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			lease, ok, err := m.MemoryStorage.TryLock(ctx, key)
			if !ok {
				return nil, false, err
			}
			var unlocked bool
			return storageFakeLease{unlock: func(ctx context.Context) error {
				if unlocked {
					return errStorageMutant
				}
				unlocked = true
				return lease.Unlock(ctx)
			}}, true, nil
		}
	}},

	{"LockKeys", "there is one lock for all keys", func(m *storageMutant, _ <-chan struct{}) {
		m.lock = func(ctx context.Context, _ string) (requestforge.Lease, bool, error) {
			return m.MemoryStorage.TryLock(ctx, "all")
		}
	}},
	{"LockKeys", "a lock is an entry under its key", func(m *storageMutant, _ <-chan struct{}) {
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			m.MemoryStorage.Revoke(ctx, key, 1)
			return m.MemoryStorage.TryLock(ctx, key)
		}
	}},
	{"LockKeys", "Save releases the lock", func(m *storageMutant, _ <-chan struct{}) {
		leases := map[string]requestforge.Lease{}
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			lease, ok, err := m.MemoryStorage.TryLock(ctx, key)
			leases[key] = lease
			return lease, ok, err
		}
		m.save = func(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
			leases[key].Unlock(ctx)
			return m.MemoryStorage.Save(ctx, key, r, seen)
		}
	}},

	{"LockDone", "Done is closed from the start", func(m *storageMutant, _ <-chan struct{}) {
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			lease, ok, err := m.MemoryStorage.TryLock(ctx, key)
			if !ok {
				return nil, false, err
			}
			done := make(chan struct{})
			close(done)
			return storageFakeLease{done: done, unlock: lease.Unlock}, true, nil
		}
	}},
	{"LockDone", "the lease ends with the context of TryLock", func(m *storageMutant, _ <-chan struct{}) {
		var last func()
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			if last != nil {
				last()
			}
			lease, ok, err := m.MemoryStorage.TryLock(ctx, key)
			last = func() {
				if ctx.Err() != nil {
					lease.Unlock(ctx)
				}
			}
			return lease, ok, err
		}
	}},

	{"LockDoneContext", "TryLock hangs", func(m *storageMutant, release <-chan struct{}) {
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			if ctx.Err() != nil {
				<-release
			}
			return m.MemoryStorage.TryLock(ctx, key)
		}
	}},
	{"LockDoneContext", "TryLock returns true and an error", func(m *storageMutant, _ <-chan struct{}) {
		m.lock = func(ctx context.Context, key string) (requestforge.Lease, bool, error) {
			lease, _, _ := m.MemoryStorage.TryLock(context.WithoutCancel(ctx), key)
			return lease, true, ctx.Err()
		}
	}},

	{"Watch", "nobody is told that it has begun", func(m *storageMutant, _ <-chan struct{}) {
		m.watch = func([]string, func(string, error)) func() { return func() {} }
	}},
	{"Watch", "there is no stop", func(m *storageMutant, _ <-chan struct{}) {
		m.watch = func(keys []string, changed func(string, error)) func() {
			m.listen(keys, changed)
			return nil
		}
	}},
	{"Watch", "the second stop hangs", func(m *storageMutant, release <-chan struct{}) {
		m.watch = func(keys []string, changed func(string, error)) func() {
			stop, stopped := m.listen(keys, changed), false
			return func() {
				if stopped {
					<-release
				}
				stopped = true
				stop()
			}
		}
	}},
	{"Watch", "only the first key is watched", func(m *storageMutant, _ <-chan struct{}) {
		m.watch = func(keys []string, changed func(string, error)) func() { return m.listen(keys[:1], changed) }
	}},
	{"Watch", "a mark that rises is not told", func(m *storageMutant, _ <-chan struct{}) {
		m.tells = func(c storageChange, tell func(string)) {
			if c.deleted && c.exact() {
				tell(c.key)
			}
		}
	}},
	{"Watch", "a Delete is not told", func(m *storageMutant, _ <-chan struct{}) {
		m.tells = func(c storageChange, tell func(string)) {
			if !c.deleted && c.exact() {
				tell(c.key)
			}
		}
	}},

	{"WatchSubjects", "keys are told by their exact name alone", func(m *storageMutant, _ <-chan struct{}) {
		m.tells = func(c storageChange, tell func(string)) {
			if c.exact() {
				tell(c.key)
			}
		}
	}},
	{"WatchSubjects", "a subject's key is told as its step's", func(m *storageMutant, _ <-chan struct{}) {
		m.tells = func(c storageChange, tell func(string)) {
			if c.exact() || c.subject() {
				tell(c.watched)
			}
		}
	}},
	{"WatchSubjects", "a subject's key is told, but no step's", func(m *storageMutant, _ <-chan struct{}) {
		m.tells = func(c storageChange, tell func(string)) {
			if c.subject() {
				tell(c.key)
			}
		}
	}},
	{"WatchSubjects", "a subject's name ends at its next slash", func(m *storageMutant, _ <-chan struct{}) {
		m.tells = func(c storageChange, tell func(string)) {
			if c.exact() || c.subject() && strings.Count(c.key, "/") == 1 {
				tell(c.key)
			}
		}
	}},
	{"WatchSubjects", "the logout of a subject is not told", func(m *storageMutant, _ <-chan struct{}) {
		m.tells = func(c storageChange, tell func(string)) {
			if c.exact() || c.subject() && !c.deleted {
				tell(c.key)
			}
		}
	}},
}

// storageUseless reports whether the record of e may be dropped.
func storageUseless(e requestforge.Entry) bool {
	r := e.Record
	return r != nil && r.Keep > 0 && !r.Token.Expiry.IsZero() && r.Token.Expiry.Add(r.Keep).Before(time.Now())
}

// storageMarks are marks kept beside those of the MemoryStorage.
type storageMarks struct {
	mu    sync.Mutex // guards marks
	marks map[string]uint64
}

func (m *storageMarks) get(key string) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.marks[key]
}

func (m *storageMarks) set(key string, mark uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.marks == nil {
		m.marks = make(map[string]uint64)
	}
	m.marks[key] = mark
}

func (m *storageMarks) raise(key string, mark uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.marks == nil {
		m.marks = make(map[string]uint64)
	}
	m.marks[key] = max(m.marks[key], mark)
}

func TestStorageSuiteFindsEachFault(t *testing.T) {
	found := map[string]bool{}
	for _, mutant := range storageMutants {
		t.Run(mutant.rule+"/"+mutant.fault, func(t *testing.T) {
			i := slices.IndexFunc(storageRules, func(r storageRule) bool { return r.name == mutant.rule })
			if i < 0 {
				t.Fatalf("no rule is called %q", mutant.rule)
			}
			// In a bubble, so that calls that hang take no time.
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				defer close(release)
				s := &storageMutant{MemoryStorage: requestforge.NewMemoryStorage()}
				mutant.apply(s, release)
				if storageRules[i].run(t.Context(), s) == nil {
					t.Errorf("the suite doesn't notice that %s", mutant.fault)
				}
			})
		})
		found[mutant.rule] = true
	}
	for _, rule := range storageRules {
		if !found[rule.name] {
			t.Errorf("no fault shows that rule %s finds any", rule.name)
		}
	}
}

// What makes the mutants sound: without a fault, the same wrapper passes.
func TestStorageSuitePassesMutantWithoutFault(t *testing.T) {
	TestStorage(t, func(t *testing.T) requestforge.Storage {
		return &storageMutant{MemoryStorage: requestforge.NewMemoryStorage()}
	})
}
