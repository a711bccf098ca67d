// The calls of a Storage. Reading, replacing and locking the file is file.go's, the locks
// of steps are lease.go's.

// Package filestorage keeps the tokens of a [requestforge.Pipeline] in a file, so that the
// second run of a command-line tool needs no login:
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
//		Steps:     steps,
//		Storage:   store,
//		KeyPrefix: "mytool",
//	})
//
// Any number of processes may use the file at once. The processes share one login, and no
// two processes spend the same refresh token. A Forget in one process is a logout in all
// processes: within 30 s the other processes drop the tokens in their memory. The tool of
// examples/cli has login, status and logout.
//
// Each write waits for the disk. Where a write can take longer than a quarter of a second,
// raise StorageTimeout, or the pipeline goes on without the Storage.
package filestorage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/requestforge/requestforge"
)

// A Storage is a [requestforge.Storage] and a [requestforge.Locker] in a directory of its
// own. Make a Storage with [New]. Any number of goroutines and processes may use a Storage
// at once. Between calls, only leases hold a file open.
//
// # Files in the directory
//
// All records, marks and tombstones are in one file, requestforge-tokens. A write replaces
// the whole file by a rename, after the new content has reached the disk. So a killed
// process or a power failure leaves the file either from before or from after the write,
// and perhaps a temporary file, which the next write removes. The other files are empty:
// the lock of the file, and a lock for each step whose lease is held. The lock file of a
// killed process stays until the next lease of the step.
//
// A write drops expired entries: a record when its Keep is over, and a tombstone after 30
// days or after the Keep of the deleted record, whichever is longer. A mark without a
// record stays for 30 days, too.
//
// # Few users
//
// Each write rewrites all tokens, so a Storage is for the tokens of a tool and its
// accounts, not for all users of a server. Save, Revoke and Delete return an error instead
// of adding a key to 1,000 keys that may not be dropped, or growing the file above 16 MiB.
// For many users use package redisstorage.
//
// # Read access
//
// The directory has mode 0700 and the files have mode 0600. The file holds tokens in the
// clear, as the files of most tools do. Wrap the Storage in a
// [github.com/requestforge/requestforge/sealedstorage.Storage] to protect the tokens from a
// person with access to the disk or a backup. The key then has to come from elsewhere.
//
// On Unix, a Storage refuses an unsafe place, as ssh does for its keys. New and each call
// return an error that names the remedy for
//
//   - a directory that belongs to another user, or that other users can write to;
//   - a directory below a directory that other users can write to, unless the upper
//     directory is sticky, as /tmp is;
//   - a directory below a directory of another user, except root;
//   - a file that belongs to another user, or a symbolic link, a directory or a device under
//     the name of the file.
//
// A file that other users can read or write is not read, and neither is a damaged file:
// Load fails, and the next write replaces the file, which costs a login. A file of a newer
// version of this package is left alone.
//
// Group members count as other users. Where the platform opens a volume to a group at each
// mount, as Kubernetes does, see [Options].
//
// # Locks
//
// A lease of TryLock lasts until Unlock or until the process ends. If the process is
// killed, the operating system releases the lock. Most file systems have locks; some
// network file systems only pretend to.
//
// Where the file system reports that locks are unsupported, TryLock returns an error, so
// that no two processes spend the same refresh token. Tokens are kept all the same. If two
// processes change the file in the same moment, the later write may undo the earlier write.
//
// # Windows
//
// The files have the permissions that the directory passes on. A file that another program
// has open can't be replaced, and virus scanners and backups open files for a moment. A
// call tries again, with growing pauses, for up to 2 s or until its context is done; in a
// pipeline, the context lasts for StorageTimeout. Then the call returns an error that says
// so, and the old file stays.
type Storage struct {
	dir string

	// turn is held during a change of the file, so that only one goroutine at a time
	// contends with other processes for the lock.
	turn chan struct{}

	// shut holds the permission bits that make a file or a directory unsafe.
	shut os.FileMode

	files files
}

// Options are optional settings of a Storage. The method New makes the Storage:
//
//	store, err := filestorage.Options{InsecureAllowGroup: true}.New("/data/tokens")
//
// The function [New] uses the zero Options.
type Options struct {
	// InsecureAllowGroup keeps tokens where the platform opens a volume to a group at each
	// mount, as Kubernetes does for a pod with an fsGroup: files get mode 0660 and
	// directories 2770. Without InsecureAllowGroup, a Storage refuses such files and
	// directories. Use a directory below the mount point, since the directory has to belong
	// to the program's own user.
	//
	// With InsecureAllowGroup, every member of the group of the file, of the directory or
	// of a directory above can read the tokens, or replace the tokens and so change the
	// user that the program logs in as. So the group should have no other member. A
	// directory that all users can write to, and a file that all users can read, are still
	// refused.
	//
	// False means that group members count as other users. On Windows there are no such
	// bits, and the field has no effect.
	InsecureAllowGroup bool
}

// files are the file operations of the operating system, replaced in tests.
type files struct {
	open   func(path string, flag int, perm os.FileMode) (*os.File, error)
	remove func(path string) error
	rename func(from, to string) error
	flock  func(*flock.Flock) (bool, error)
}

var osFiles = files{os.OpenFile, os.Remove, os.Rename, (*flock.Flock).TryLock}

// DefaultPath returns a directory for the tokens of the program app, for use with [New]:
// the directory "tokens" in the directory app of [os.UserCacheDir].
//
// DefaultPath uses the cache and not the configuration, because tokens can be fetched
// again, and because most backups leave caches out and caches don't follow a user to other
// machines.
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

// New returns the Storage in dir, which should hold no other files. New returns an error if
// dir is empty, or if dir exists but is not a directory or can't be trusted (see
// [Storage]).
//
// New creates no files, and succeeds even if dir can't be written to: a program that can't
// keep its tokens can still work, and each call returns the error. The first call that has
// to write creates dir and its missing parents.
func New(dir string) (*Storage, error) { return Options{}.New(dir) }

// New is like the function [New], with these Options.
func (o Options) New(dir string) (*Storage, error) {
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
	s := &Storage{dir: abs, turn: make(chan struct{}, 1), shut: 0o077, files: osFiles}
	if o.InsecureAllowGroup {
		s.shut = 0o007
	}
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
		if !now.has(seen) {
			return false, nil
		}
		top := max(now.stamp, now.mark, now.gone, r.Stamp)
		if top >= maxStamp {
			return false, errStamp
		}
		now.record, now.stamp, now.until = data, top+1, until(r)
		return true, t.add(s.path(dataName), key, now, time.Now())
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
		at := time.Now()
		it.mark = stamp
		if it.record == nil {
			it.until = markUntil(at)
		}
		return true, t.add(s.path(dataName), key, it, at)
	})
}

// Delete implements [requestforge.Storage]. Delete also removes the temporary files of
// killed processes. Delete records the logout even if the file has no record under the key,
// since other processes may still hold tokens that the file has lost.
func (s *Storage) Delete(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
	var now item
	err := s.update(ctx, func(t table) (bool, error) {
		now = t[key]
		if !now.has(seen) {
			return false, nil
		}
		top := max(seen, now.mark, now.gone)
		if top >= maxStamp {
			return false, errStamp
		}
		at := time.Now()
		now = item{mark: now.mark, gone: top + 1, goneUntil: goneUntil(now, at)}
		return true, t.add(s.path(dataName), key, now, at)
	})
	if err != nil {
		return requestforge.Entry{}, err
	}
	return s.open(now)
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
	l, err := s.tryStepLock(ctx, stepLockName(key))
	if l == nil || err != nil {
		return nil, false, err
	}
	return &lease{lock: l, remove: s.files.remove}, true, nil
}
