// A storage that has its bad moments.

package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/chaos/oracle"
)

// badStorage is a MemoryStorage that fails or hangs while its mood says so.
type badStorage struct {
	*requestforge.MemoryStorage
	led  *ledger
	mood atomic.Value // string: "fails", "hangs", or anything else for well
}

func newBadStorage(led *ledger) *badStorage {
	return &badStorage{MemoryStorage: requestforge.NewMemoryStorage(), led: led}
}

var errStorage = errors.New("the storage is unwell")

// trouble is the error of a call, after as long as it takes.
func (s *badStorage) trouble(ctx context.Context) error {
	switch s.mood.Load() {
	case "fails":
		return errStorage
	case "hangs":
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// late notes a call that took long enough for the pipeline to have given it up: a busy
// machine has its moments, too.
func (s *badStorage) late(ctx context.Context, begun time.Time, save bool) {
	took := time.Since(begun)
	if took < storageTimeout/2 && ctx.Err() == nil {
		return
	}
	s.led.note(func(run *oracle.Run, now time.Duration) {
		run.Troubles = append(run.Troubles, oracle.Window{From: now - took, To: now})
		if save {
			run.SpoiltSaves = append(run.SpoiltSaves, now)
		}
	})
}

func (s *badStorage) Load(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
	if err := s.trouble(ctx); err != nil {
		return nil, err
	}
	defer s.late(ctx, time.Now(), false)
	return s.MemoryStorage.Load(ctx, keys...)
}

func (s *badStorage) Save(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
	if err := s.trouble(ctx); err != nil {
		s.led.note(func(run *oracle.Run, now time.Duration) { run.SpoiltSaves = append(run.SpoiltSaves, now) })
		return requestforge.Entry{}, err
	}
	defer s.late(ctx, time.Now(), true)
	return s.MemoryStorage.Save(ctx, key, r, seen)
}

func (s *badStorage) Revoke(ctx context.Context, key string, stamp uint64) error {
	if err := s.trouble(ctx); err != nil {
		return err
	}
	defer s.late(ctx, time.Now(), false)
	return s.MemoryStorage.Revoke(ctx, key, stamp)
}

func (s *badStorage) TryLock(ctx context.Context, key string) (requestforge.Lease, bool, error) {
	if err := s.trouble(ctx); err != nil {
		return nil, false, err
	}
	defer s.late(ctx, time.Now(), false)
	return s.MemoryStorage.TryLock(ctx, key)
}

func (s *badStorage) Delete(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
	defer s.late(ctx, time.Now(), false)
	return s.MemoryStorage.Delete(ctx, key, seen)
}
