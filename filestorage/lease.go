// The locks of steps. The file of a lock goes with the lease.

package filestorage

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"sync"

	"github.com/gofrs/flock"
)

// stepLockName is the name of a step's lock. A key may hold anything, a file
// name may not.
func stepLockName(key string) string {
	return fmt.Sprintf("requestforge-step-%x.lock", sha256.Sum256([]byte(key)))
}

// maxReplaced bounds how often the file may disappear while being locked. On a file system
// without lasting inodes the file would seem to disappear each time.
const maxReplaced = 100

// tryStepLock is tryFlock for a lock whose file goes with the lease.
//
// Between the open and the lock of the file, the last holder may have removed the file. A
// lock on a removed file excludes no later process, so only a lock on the file now in place
// counts.
func (s *Storage) tryStepLock(ctx context.Context, name string) (*flock.Flock, error) {
	for range maxReplaced {
		l, err := s.tryFlock(ctx, name)
		if lacksLocks(err) {
			_ = s.files.remove(s.path(name)) // a file that can't be locked has no use
		}
		if l == nil || err != nil {
			return nil, err
		}
		if inPlace(l) {
			return l, nil
		}
		if err := l.Unlock(); err != nil {
			return nil, wrap(err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("requestforge: filestorage: lock %s: the file is another one each time; use a directory elsewhere", s.path(name))
}

// inPlace reports whether the locked file is the file that other processes would open.
func inPlace(l *flock.Flock) bool {
	held, err := l.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(l.Path())
	return err == nil && os.SameFile(held, there)
}

// lease is the lock of a step.
//
// The invariant: only the holder of the lock on the file in place removes the file. So the
// number of lock files is at most the number of held leases plus the leases of killed
// processes.
type lease struct {
	mu     sync.Mutex // held by one Unlock at a time
	lock   *flock.Flock
	remove func(path string) error
}

// Done returns nil: nothing but Unlock ends the lease while we live.
func (*lease) Done() <-chan struct{} { return nil }

// Unlock ignores its context, since Unlock never waits.
func (l *lease) Unlock(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lock.Locked() {
		return nil
	}
	// Windows removes no open file. If another process has opened the file since the
	// unlock, the removal fails, so no process holds the lock of a removed file.
	if !readersBlockRename && inPlace(l.lock) {
		_ = l.remove(l.lock.Path()) // or the file stays, as a free lock
	}
	if err := l.lock.Unlock(); err != nil {
		return wrap(err)
	}
	if readersBlockRename {
		_ = l.remove(l.lock.Path())
	}
	return nil
}
