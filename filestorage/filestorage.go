// What each call does to the file. How the file is read, replaced and locked
// is file.go's.

// Package filestorage keeps the tokens of a [requestforge.Pipeline] in a file,
// so that a command-line tool's second run needs no login:
//
//	dir, err := filestorage.DefaultPath("mytool")
//	if err != nil {
//		return err
//	}
//	store, err := filestorage.New(dir)
//	if err != nil {
//		return err
//	}
//	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
//		Steps:   steps,
//		Storage: store,
//	})
//
// Any number of processes may use it at once. They share one login, and no
// two of them spend the same refresh token. Each write waits for the disk; where
// that can take longer than a quarter of a second, raise StorageTimeout, lest
// the pipeline goes on without.
package filestorage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
)

// A Storage is a [requestforge.Storage] and a [requestforge.Locker] in a
// directory of its own. [New] makes one. It may be used concurrently, and by
// many processes at once; it holds nothing open between calls, except the lock
// of each lease.
//
// # What is in the directory
//
// All records and marks are in one file, requestforge-tokens. It is replaced as
// a whole, by a rename, after what is new has reached the disk: whenever a
// process is killed or the machine goes down, the file is one that was in place
// before or the one after. What was being written stays behind then, and goes
// with the next write. The other files are empty and only there to be locked;
// they are never removed. A record whose Keep is over is dropped when another
// one is saved.
//
// # Who can read it
//
// The directory is made with mode 0700 and the files with 0600. They hold tokens
// in the clear, as those of most tools do. Wrap the Storage in a
// [github.com/requestforge/requestforge/sealedstorage.Storage] to keep the tokens
// from whoever gets at the disk or a backup; the key then has to come from
// elsewhere.
//
// As ssh does with its keys, on Unix, a Storage doesn't touch what it can't
// trust: a directory that belongs to another user or that others can write
// to, and, under the name of the file, something of another user's, a symbolic
// link, a directory or a device. That is an error of each call, which says what
// to do. A file that others can read or write is not read either, nor is one
// whose content isn't what a Storage writes: Load fails, and the next write
// puts a new file in its place, so the price is one login. The file of a newer
// version of this package is left alone.
//
// # Locks
//
// A lease of TryLock lasts until Unlock or the end of its process, however that
// ends: the operating system releases the lock. Locks need a file system that
// has them. Most do, but some network file systems only pretend to.
//
// On Windows, the permissions are those that the directory passes on.
type Storage struct {
	dir string

	// turn is taken by whoever changes the file, so that of one process
	// only one at a time contends for the lock with others.
	turn chan struct{}
}

// DefaultPath returns a directory for the tokens of the named program, for
// [New]: "tokens" below the program's own in [os.UserCacheDir].
//
// It is the cache and not the configuration, because tokens can be fetched
// again, and because caches are left out of most backups and don't follow a
// user to other machines.
func DefaultPath(app string) (string, error) {
	if app == "" || app == "." || app == ".." || strings.ContainsAny(app, "/\\\x00") {
		return "", fmt.Errorf("requestforge: filestorage: DefaultPath: %q is not the name of a program; it becomes a directory's", app)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("requestforge: filestorage: DefaultPath: %w", err)
	}
	return filepath.Join(cache, app, "tokens"), nil
}

// New returns the Storage in dir, which should hold nothing else. It is an
// error if dir is empty, or is there already but isn't a directory, or not one
// that can be trusted (see [Storage]).
//
// New creates nothing and succeeds if dir can't be written to: a program that
// can't keep its tokens can work without, and each call will tell. The first
// call that has something to keep creates dir, and what is missing above.
func New(dir string) (*Storage, error) {
	if dir == "" {
		return nil, errors.New("requestforge: filestorage: New: the path is empty; see DefaultPath")
	}
	if strings.ContainsRune(dir, 0) {
		return nil, fmt.Errorf("requestforge: filestorage: New: the path %q has a zero byte in it", dir)
	}
	abs, err := filepath.Abs(dir) // the working directory may change
	if err != nil {
		return nil, fmt.Errorf("requestforge: filestorage: New: %w", err)
	}
	s := &Storage{dir: abs, turn: make(chan struct{}, 1)}
	if err := s.checkDir(); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		return nil, err
	}
	return s, nil
}

// maxStamp is the highest stamp and the highest mark, as for every Storage.
const maxStamp = 1<<53 - 1

var errStamp = errors.New("requestforge: filestorage: a stamp is not below 2^53")

// Load implements [requestforge.Storage].
func (s *Storage) Load(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, err := s.load(ctx)
	if err != nil {
		return nil, err
	}
	entries := make([]requestforge.Entry, len(keys))
	for i, key := range keys {
		if entries[i], err = s.open(t[key]); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// Save implements [requestforge.Storage].
func (s *Storage) Save(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
	data, err := r.MarshalBinary()
	if err != nil {
		return requestforge.Entry{}, err
	}
	var now item
	err = s.update(ctx, func(t table) (bool, error) {
		now = t[key]
		if now.stamp != seen {
			return false, nil
		}
		top := max(now.stamp, now.mark, r.Stamp)
		if top >= maxStamp {
			return false, errStamp
		}
		now = item{record: data, stamp: top + 1, mark: now.mark, until: until(r)}
		t.prune(time.Now())
		t[key] = now
		return true, nil
	})
	if err != nil {
		return requestforge.Entry{}, err
	}
	return s.open(now)
}

// Revoke implements [requestforge.Storage].
func (s *Storage) Revoke(ctx context.Context, key string, stamp uint64) error {
	if stamp > maxStamp {
		return errStamp
	}
	return s.update(ctx, func(t table) (bool, error) {
		it := t[key]
		if stamp <= it.mark {
			return false, nil
		}
		it.mark = stamp
		t[key] = it
		return true, nil
	})
}

// Delete implements [requestforge.Storage]. What a killed process has left
// half-written goes, too.
func (s *Storage) Delete(ctx context.Context, keys ...string) error {
	if err := s.checkDir(); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return s.update(ctx, func(t table) (bool, error) {
		before := len(t)
		for _, key := range keys {
			delete(t, key)
		}
		return len(t) < before, nil
	})
}

// TryLock implements [requestforge.Locker]. The lease lasts until Unlock or
// the end of the process.
func (s *Storage) TryLock(ctx context.Context, key string) (requestforge.Lease, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	if err := s.makeDir(); err != nil {
		return nil, false, err
	}
	l, err := s.tryFlock(stepLockName(key))
	if l == nil || err != nil {
		return nil, false, err
	}
	return lease{l}, true, nil
}
