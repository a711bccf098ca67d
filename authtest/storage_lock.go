// Rules of requestforge.Locker.

package authtest

//lint:file-ignore ST1005 The messages begin with the name of the method called.

import (
	"context"
	"errors"
	"fmt"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/internal/unwrap"
)

func storageLockExclusive(ctx context.Context, s requestforge.Storage) error {
	const rounds, callers = 20, 16
	for range rounds {
		leases := make([]requestforge.Lease, callers)
		locked := make([]bool, callers)
		errs := make([]error, callers)
		storageAtOnce(callers, func(i int) {
			leases[i], locked[i], errs[i] = storageLocker(s).TryLock(ctx, "k")
		})
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("TryLock: %w", err)
		}
		var held []requestforge.Lease
		for i, lease := range leases {
			if locked[i] != (lease != nil) {
				return fmt.Errorf("TryLock returned lease %v and %t", lease, locked[i])
			}
			if locked[i] {
				held = append(held, lease)
			}
		}
		if len(held) != 1 {
			return fmt.Errorf("of %d TryLocks of one free key %d returned a lease, want 1", callers, len(held))
		}
		if err := held[0].Unlock(ctx); err != nil {
			return fmt.Errorf("Unlock: %w", err)
		}
	}
	return nil
}

func storageLockAgain(ctx context.Context, s requestforge.Storage) error {
	for range 3 {
		lease, err := storageLock(ctx, s, "k")
		if err != nil {
			return err
		}
		if err := lease.Unlock(ctx); err != nil {
			return fmt.Errorf("Unlock: %w", err)
		}
	}
	return nil
}

func storageLockOwner(ctx context.Context, s requestforge.Storage) error {
	first, err := storageLock(ctx, s, "k")
	if err != nil {
		return err
	}
	if err := first.Unlock(ctx); err != nil {
		return fmt.Errorf("Unlock: %w", err)
	}
	second, err := storageLock(ctx, s, "k")
	if err != nil {
		return err
	}
	if err := first.Unlock(ctx); err != nil {
		return fmt.Errorf("a further Unlock: %w", err)
	}
	if _, ok, err := storageLocker(s).TryLock(ctx, "k"); err != nil || ok {
		return fmt.Errorf("a further Unlock of the first lease released the second one: TryLock returned %t, %v", ok, err)
	}
	if err := second.Unlock(ctx); err != nil {
		return fmt.Errorf("Unlock: %w", err)
	}
	return nil
}

func storageLockKeys(ctx context.Context, s requestforge.Storage) error {
	lease, err := storageLock(ctx, s, "k")
	if err != nil {
		return err
	}
	other, err := storageLock(ctx, s, "k2")
	if err != nil {
		return fmt.Errorf("while key %q is locked: %w", "k", err)
	}
	if e, err := storageLoad(ctx, s, "k"); err != nil || e != (requestforge.Entry{}) {
		return fmt.Errorf("locked and never saved, the entry is %v, %v; want the zero Entry", e, err)
	}
	e, err := storageSave(ctx, s, storageToken("k", "token"), 0)
	if err != nil {
		return fmt.Errorf("while its key is locked: %w", err)
	}
	if err := s.Revoke(ctx, "k", e.Record.Stamp); err != nil {
		return fmt.Errorf("Revoke: %w", err)
	}
	if err := other.Unlock(ctx); err != nil {
		return fmt.Errorf("Unlock: %w", err)
	}
	if _, ok, err := storageLocker(s).TryLock(ctx, "k"); err != nil || ok {
		return fmt.Errorf("Save, Revoke or the Unlock of another key released the lock: TryLock returned %t, %v", ok, err)
	}
	if err := lease.Unlock(ctx); err != nil {
		return fmt.Errorf("Unlock: %w", err)
	}
	if e, err = storageLoad(ctx, s, "k"); err != nil || storageAccess(e) != "token" || e.Mark != 1 {
		return fmt.Errorf("after Unlock the entry is %v, %v; want what was saved while the key was locked", e, err)
	}
	return nil
}

func storageLockDone(ctx context.Context, s requestforge.Storage) error {
	// Use a separate context, since the context of TryLock may end.
	callCtx, cancel := context.WithCancel(ctx)
	lease, err := storageLock(callCtx, s, "k")
	cancel()
	if err != nil {
		return err
	}
	if _, ok, err := storageLocker(s).TryLock(ctx, "k"); err != nil || ok {
		return fmt.Errorf("the lock was released when the context of its TryLock ended: TryLock returned %t, %v", ok, err)
	}
	select {
	case <-lease.Done():
		return errors.New("Done is closed, though the lock is held")
	default:
	}
	if err := lease.Unlock(ctx); err != nil {
		return fmt.Errorf("Unlock: %w", err)
	}
	return nil
}

func storageLockDoneContext(ctx context.Context, s requestforge.Storage) error {
	done, cancel := context.WithCancel(ctx)
	cancel()
	lease, ok, err := storageLocker(s).TryLock(done, "k")
	if ok != (lease != nil) || ok && err != nil {
		return fmt.Errorf("TryLock returned lease %v, %t and %v", lease, ok, err)
	}
	if ok {
		lease.Unlock(done) // The lock may be free or not, but Unlock must not hang.
	}
	return nil
}

// storageLocker returns the Locker that a Pipeline would find.
func storageLocker(s requestforge.Storage) requestforge.Locker {
	l, _ := unwrap.Find[requestforge.Locker](s)
	return l
}

// storageLock locks a free key.
func storageLock(ctx context.Context, s requestforge.Storage, key string) (requestforge.Lease, error) {
	lease, ok, err := storageLocker(s).TryLock(ctx, key)
	if err != nil || !ok || lease == nil {
		return nil, fmt.Errorf("TryLock of key %q, which is free, returned lease %v, %t and %v", key, lease, ok, err)
	}
	return lease, nil
}
