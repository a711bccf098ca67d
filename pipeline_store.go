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

// maxHanging is how many calls may hang in a storage that is deaf to its
// context before further ones aren't tried.
const maxHanging = 16

// store is a Storage behind those bounds.
type store struct {
	storage  Storage
	locker   Locker         // nil: the storage can't lock
	failures FailureStorage // nil: the storage shares no failures
	timeout  time.Duration
	shared   bool // with other pipelines, maybe
	events   eventLog

	down    atomic.Bool  // the last call failed
	hanging atomic.Int32 // calls that haven't returned
	errors  atomic.Uint64
}

// newStore returns a store over storage, which is shared unless it is the
// pipeline's own.
func newStore(storage Storage, timeout time.Duration, shared bool, events eventLog) *store {
	s := &store{storage: storage, timeout: timeout, shared: shared, events: events}
	s.locker, _ = unwrap.Find[Locker](storage)
	s.failures, _ = unwrap.Find[FailureStorage](storage)
	return s
}

var errHanging = errors.New("earlier calls still hang")

// bounded runs one call of the storage. If caller is over before the call is,
// that is no fault of the storage.
func bounded[T any](caller context.Context, s *store, op string, call func(context.Context) (T, error), late func(T, error)) (T, error) {
	var val T
	if caller.Err() != nil {
		return val, fmt.Errorf("requestforge: storage: %s: %w", op, context.Cause(caller))
	}
	if !s.shared {
		return call(caller) // the pipeline's own memory, which neither fails nor hangs
	}
	ctx, cancel := context.WithTimeoutCause(caller, s.timeout, fmt.Errorf("no answer within StorageTimeout (%v): %w", s.timeout, context.DeadlineExceeded))
	defer cancel()
	err := errHanging
	if s.hanging.Add(1) <= maxHanging {
		val, err = flight.Bounded(ctx, func(ctx context.Context) (T, error) {
			defer s.hanging.Add(-1)
			return call(ctx)
		}, late)
	} else {
		s.hanging.Add(-1)
	}
	if err == nil {
		if s.down.Load() && s.down.CompareAndSwap(true, false) {
			s.events.log(ctx, slog.LevelInfo, "the storage is back", nil)
		}
		return val, nil
	}
	// It may name the server, and how to log in there.
	err = fmt.Errorf("requestforge: storage: %s: %w", op, redact.Inner(err))
	if caller.Err() != nil {
		return val, err
	}
	s.errors.Add(1)
	if !s.down.Swap(true) {
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
		if r := e.Record; err == nil && (e.Mark > maxStamp || r != nil && (r.Token == nil || r.Key != key || r.Stamp == 0 || r.Stamp > maxStamp)) {
			err = errors.New("the entry that it returned is no record of the key")
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

func (s *store) delete(ctx context.Context, keys ...string) error {
	_, err := bounded(ctx, s, "Delete", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.storage.Delete(ctx, keys...)
	}, nil)
	return err
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

func (s *store) tryLock(ctx context.Context, key string) (Lease, bool, error) {
	lease, err := bounded(ctx, s, "TryLock", func(ctx context.Context) (Lease, error) {
		lease, ok, err := s.locker.TryLock(ctx, key)
		if err == nil && ok && lease == nil {
			err = errors.New("a lock without a lease")
		}
		if err != nil || !ok {
			return nil, err
		}
		return lease, nil
	}, func(lease Lease, err error) {
		if lease != nil {
			go s.unlock(context.WithoutCancel(ctx), lease) // nobody waits for it any more
		}
	})
	return lease, lease != nil, err
}

func (s *store) unlock(ctx context.Context, lease Lease) {
	bounded(context.WithoutCancel(ctx), s, "Unlock", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, lease.Unlock(ctx)
	}, nil)
}
