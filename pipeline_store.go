// The storage as the pipeline uses it: each call bounded, trouble logged once
// an outage and counted, never in a request's way.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/unwrap"
)

// opUnlock is the only call made even while other calls hang.
const opUnlock = "Unlock"

// store is a Storage behind those bounds.
type store struct {
	storage  Storage
	locker   Locker         // nil: the storage can't lock
	failures FailureStorage // nil: the storage shares no failures
	timeout  time.Duration
	shared   bool // with other pipelines, maybe
	events   eventLog

	// outage is odd while the storage is down, and counts the changes. Only a call
	// begun after a change can bring the next change: a late answer says nothing
	// about now.
	outage  atomic.Uint64
	hanging *flight.Limit // calls left behind
	errors  atomic.Uint64
	leases  leases // to be given back
}

// newStore returns a store over storage, which is shared unless it is the
// pipeline's own.
func newStore(storage Storage, timeout time.Duration, shared bool, events eventLog) *store {
	s := &store{storage: storage, timeout: timeout, shared: shared, events: events, hanging: flight.NewLimit(maxHanging)}
	s.leases.hanging = flight.NewLimit(maxHanging)
	s.locker, _ = unwrap.Find[Locker](storage)
	s.failures, _ = unwrap.Find[FailureStorage](storage)
	return s
}

// patience is for calls of the storage that have no context.
func (s *store) patience() time.Duration { return min(s.timeout, time.Minute) }

// bounded runs one call of the storage. A caller who leaves before the end of the call is no
// fault of the storage.
func bounded[T any](caller context.Context, s *store, op string, call func(context.Context) (T, error), late func(T, error)) (T, error) {
	if caller.Err() != nil {
		var zero T
		return zero, fmt.Errorf("requestforge: storage: %s: %w", op, context.Cause(caller))
	}
	if !s.shared {
		return call(caller) // the pipeline's own memory, which neither fails nor hangs
	}
	ctx, cancel := context.WithTimeoutCause(caller, s.timeout, fmt.Errorf("no answer within StorageTimeout (%v): %w", s.timeout, context.DeadlineExceeded))
	defer cancel()
	limit, begun := s.hanging, s.outage.Load()
	if op == opUnlock {
		limit = s.leases.hanging
	}
	val, err := flight.Bounded(ctx, limit, call, late)
	if err == nil {
		if begun%2 == 1 && s.outage.CompareAndSwap(begun, begun+1) {
			s.events.log(ctx, slog.LevelInfo, "the storage is back", nil)
		}
		if op != opUnlock {
			s.giveBack(ctx)
		}
		return val, nil
	}
	// It may name the server, and how to log in there.
	err = fmt.Errorf("requestforge: storage: %s: %w", op, redact.Inner(err))
	if caller.Err() != nil {
		return val, err
	}
	s.errors.Add(1)
	if begun%2 == 0 && s.outage.CompareAndSwap(begun, begun+1) {
		s.events.log(ctx, slog.LevelWarn, "the storage fails; going on without", nil, slog.Any("error", err))
	}
	return val, err
}

func (s *store) load(ctx context.Context, keys ...string) ([]Entry, error) {
	return bounded(ctx, s, "Load", func(ctx context.Context) ([]Entry, error) {
		entries, err := s.storage.Load(ctx, keys...)
		if err == nil && len(entries) != len(keys) {
			err = fmt.Errorf("%d entries for %d keys", len(entries), len(keys))
		}
		return entries, err
	}, nil)
}

func (s *store) save(ctx context.Context, key string, r Record, seen uint64) (Entry, error) {
	return bounded(ctx, s, "Save", func(ctx context.Context) (Entry, error) {
		e, err := s.storage.Save(ctx, key, r, seen)
		if err == nil && !e.valid(key) {
			err = errors.New("the entry that it returned is none of the key")
		}
		return e, err
	}, nil)
}

func (s *store) revoke(ctx context.Context, key string, stamp uint64) error {
	_, err := bounded(ctx, s, "Revoke", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.storage.Revoke(ctx, key, stamp)
	}, nil)
	return err
}

func (s *store) delete(ctx context.Context, key string, seen uint64) (Entry, error) {
	return bounded(ctx, s, "Delete", func(ctx context.Context) (Entry, error) {
		e, err := s.storage.Delete(ctx, key, seen)
		if err == nil && !e.valid(key) {
			err = errors.New("the entry that it returned is none of the key")
		}
		return e, err
	}, nil)
}

// valid reports whether a storage can have e under key.
func (e Entry) valid(key string) bool {
	if e.Mark > maxStamp || e.Gone > maxStamp {
		return false
	}
	r := e.Record
	return r == nil || r.Token != nil && r.Key == key && r.Stamp > 0 && r.Stamp <= maxStamp
}

func (s *store) loadFailure(ctx context.Context, key string) (Failure, error) {
	return bounded(ctx, s, "LoadFailure", func(ctx context.Context) (Failure, error) {
		return s.failures.LoadFailure(ctx, key)
	}, nil)
}

func (s *store) saveFailure(ctx context.Context, key string, f Failure) {
	bounded(ctx, s, "SaveFailure", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.failures.SaveFailure(ctx, key, f)
	}, nil)
}

// tryLock locks key if nobody holds the lock. A lock whose lease doesn't work, because Done
// panics or hangs, is unlocked, and tryLock returns an error.
func (s *store) tryLock(ctx context.Context, key string) (*lease, error) {
	got, err := bounded(ctx, s, "TryLock", func(ctx context.Context) (Lease, error) {
		got, ok, err := s.locker.TryLock(ctx, key)
		if err == nil && ok && got == nil {
			err = errors.New("a lock without a lease")
		}
		if err != nil || !ok {
			return nil, err
		}
		return got, nil
	}, func(got Lease, err error) {
		if got != nil {
			go s.unlock(ctx, &lease{Lease: got}) // nobody waits for the lease any more
		}
	})
	if got == nil {
		return nil, err
	}
	done, err := bounded(ctx, s, "Done", func(context.Context) (<-chan struct{}, error) { return got.Done(), nil }, nil)
	l := &lease{got, done}
	if err != nil {
		s.unlock(ctx, l)
		return nil, err
	}
	return l, nil
}

// unlock gives l back, and waits at most StorageTimeout for that. If the storage
// fails, l is given back a little later, or as soon as a call of the storage works.
func (s *store) unlock(ctx context.Context, l *lease) {
	s.tryUnlock(ctx, &unreleased{lease: l})
}

func (s *store) tryUnlock(ctx context.Context, o *unreleased) {
	_, err := bounded(context.WithoutCancel(ctx), s, opUnlock, func(ctx context.Context) (_ struct{}, err error) {
		err = errors.New("a panic")
		defer func() { // maybe long after the flight has left
			if err != nil {
				s.unlockLater(ctx, o)
			}
		}()
		err = o.Unlock(ctx)
		return struct{}{}, err
	}, nil)
	if errors.Is(err, flight.ErrFull) {
		s.unlockLater(ctx, o)
	}
}

// unlockLater remembers o for a later try.
func (s *store) unlockLater(ctx context.Context, o *unreleased) {
	if wait := s.leases.add(o); wait > 0 {
		time.AfterFunc(wait, func() { s.giveBack(ctx) })
	}
}

// giveBack tries the leases kept for a later try once more.
func (s *store) giveBack(ctx context.Context) {
	for _, o := range s.leases.take() {
		go s.tryUnlock(ctx, o)
	}
}
