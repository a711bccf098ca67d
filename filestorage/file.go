// How the file is read, replaced and locked.

package filestorage

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/requestforge/requestforge"
)

const (
	dataName = "requestforge-tokens"
	tempName = "requestforge-tokens.tmp"
	lockName = "requestforge-tokens.lock" // held while the file is changed
)

// stepLockName is the name of a step's lock. A key may hold anything, a file
// name may not.
func stepLockName(key string) string {
	return fmt.Sprintf("requestforge-step-%x.lock", sha256.Sum256([]byte(key)))
}

func (s *Storage) path(name string) string { return filepath.Join(s.dir, name) }

// table is the content of the file, by key.
type table map[string]item

// item is what is stored under a key. The zero item is what an unknown key has.
type item struct {
	record []byte // as Record.MarshalBinary has it, but for the stamp; nil: none
	stamp  uint64 // the record's; 0: none
	mark   uint64
	until  int64 // Unix seconds; from then on it may be dropped. 0: never
}

func (s *Storage) open(it item) (requestforge.Entry, error) {
	if it.record == nil {
		return requestforge.Entry{Mark: it.mark}, nil
	}
	r := new(requestforge.Record)
	if err := r.UnmarshalBinary(it.record); err != nil {
		return requestforge.Entry{}, fmt.Errorf("requestforge: filestorage: %s: %s", s.path(dataName), strings.TrimPrefix(err.Error(), "requestforge: "))
	}
	r.Stamp = it.stamp
	return requestforge.Entry{Record: r, Mark: it.mark}, nil
}

// until is the time from which r may be dropped, mark and all.
func until(r requestforge.Record) int64 {
	if r.Keep <= 0 || r.Token.Expiry.IsZero() {
		return 0
	}
	return max(1, r.Token.Expiry.Add(r.Keep).Unix()+1)
}

// prune drops what is of no use any more, so that the file doesn't grow with
// every account that the tool was ever used with.
func (t table) prune(now time.Time) {
	for key, it := range t {
		if it.until != 0 && it.until < now.Unix() {
			delete(t, key)
		}
	}
}

// The file is a line with its version and the SHA-256 of what follows, and then
// JSON. The sum tells damage, so that no call has to look into records that it
// isn't about. They stay in the encoding that is exact.
const (
	magic   = "requestforge tokens "
	version = "1 "

	maxFile = 16 << 20 // bytes
)

func header(body []byte) []byte {
	return fmt.Appendf(nil, "%s%s%x\n", magic, version, sha256.Sum256(body))
}

type fileWire struct {
	Entries []itemWire `json:"entries"` // by key
}

type itemWire struct {
	Key    []byte `json:"key"`
	Record []byte `json:"record"`
	Stamp  uint64 `json:"stamp"`
	Mark   uint64 `json:"mark"`
	Until  int64  `json:"until"`
}

// uselessError is that of a file which is ours but can't be used. The next
// write replaces it. It tells nothing of the content.
type uselessError struct{ path, why string }

func (e *uselessError) Error() string {
	return "requestforge: filestorage: " + e.path + " " + e.why + "; the next token saved will replace it"
}

func (t table) encode() ([]byte, error) {
	w := fileWire{Entries: make([]itemWire, 0, len(t))}
	for key, it := range t {
		w.Entries = append(w.Entries, itemWire{[]byte(key), it.record, it.stamp, it.mark, it.until})
	}
	slices.SortFunc(w.Entries, func(a, b itemWire) int { return bytes.Compare(a.Key, b.Key) })
	body, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	data := append(header(body), body...)
	if len(data) > maxFile {
		return nil, fmt.Errorf("all tokens together make more than %d MiB", maxFile>>20)
	}
	return data, nil
}

// decode reads what encode has written.
func decode(path string, data []byte) (table, error) {
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return nil, &uselessError{path, "doesn't begin like a file of tokens"}
	}
	if !bytes.HasPrefix(rest, []byte(version)) {
		return nil, fmt.Errorf("requestforge: filestorage: %s was written by a version of this package that isn't known here; remove it or update the program", path)
	}
	damaged := &uselessError{path, "is damaged"}
	_, body, _ := bytes.Cut(rest, []byte("\n"))
	if !bytes.HasPrefix(data, header(body)) {
		return nil, damaged
	}
	var w fileWire
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if dec.Decode(&w) != nil || dec.InputOffset() != int64(len(body)) {
		return nil, damaged
	}
	t := make(table, len(w.Entries))
	for _, e := range w.Entries {
		_, dup := t[string(e.Key)]
		if dup || e.Stamp > maxStamp || e.Mark > maxStamp || (e.Record == nil) != (e.Stamp == 0) {
			return nil, damaged
		}
		t[string(e.Key)] = item{e.Record, e.Stamp, e.Mark, e.Until}
	}
	return t, nil
}

// load returns what is in the file.
func (s *Storage) load(ctx context.Context) (table, error) {
	if err := s.checkDir(); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if readersBlockRename {
		unlock, err := s.lockFile(ctx)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	return s.read()
}

// read is load in a directory that was checked.
func (s *Storage) read() (table, error) {
	path := s.path(dataName)
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		if info, lerr := os.Lstat(path); lerr == nil && !info.Mode().IsRegular() {
			return nil, errIrregular(path, info)
		}
		return nil, wrap(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, wrap(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errIrregular(path, info)
	}
	if !ownedByUs(info) {
		return nil, fmt.Errorf("requestforge: filestorage: %s belongs to another user; remove it", path)
	}
	if perm := othersMay(info, 0o077); perm != 0 {
		return nil, &uselessError{path, fmt.Sprintf("is open to other users (mode %04o)", info.Mode().Perm())}
	}
	if info.Size() > maxFile {
		return nil, &uselessError{path, fmt.Sprintf("is larger than %d MiB", maxFile>>20)}
	}
	data, err := io.ReadAll(f) // no longer than its size: what is in place never grows
	if err != nil {
		return nil, wrap(err)
	}
	return decode(path, data)
}

func errIrregular(path string, info fs.FileInfo) error {
	return fmt.Errorf("requestforge: filestorage: %s is not a regular file (mode %v); remove it", path, info.Mode())
}

func wrap(err error) error { return fmt.Errorf("requestforge: filestorage: %w", err) }

// checkDir returns why the directory can't be used.
func (s *Storage) checkDir() error {
	info, err := os.Stat(s.dir)
	if err != nil {
		return wrap(err)
	}
	switch {
	case !info.IsDir():
		return fmt.Errorf("requestforge: filestorage: %s is not a directory", s.dir)
	case !ownedByUs(info):
		return fmt.Errorf("requestforge: filestorage: the directory %s belongs to another user; use one of your own", s.dir)
	case othersMay(info, 0o022) != 0:
		return fmt.Errorf("requestforge: filestorage: other users can write to the directory %s (mode %04o), so what is in it can't be trusted; use one of its own, or chmod go-w", s.dir, info.Mode().Perm())
	}
	return nil
}

func (s *Storage) makeDir() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return wrap(err)
	}
	return s.checkDir()
}

// update reads the file, lets change have its way with it and, if that says
// that it has changed something, replaces the file; all while no other process
// does the same.
func (s *Storage) update(ctx context.Context, change func(table) (bool, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.makeDir(); err != nil {
		return err
	}
	unlock, err := s.lockFile(ctx)
	if err != nil {
		return err
	}
	defer unlock()

	// Left by a process that was killed: whoever is alive has no lock.
	if err := os.Remove(s.path(tempName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return wrap(err)
	}
	t, err := s.read()
	var useless *uselessError
	if err != nil && !errors.As(err, &useless) {
		return err
	}
	if t == nil {
		t = table{}
	}
	changed, err := change(t)
	if err != nil || !changed && useless == nil {
		return err
	}
	return s.write(t)
}

// write replaces the file. Whatever goes wrong, the old one stays. The directory
// isn't synced: what a power failure can undo that way is a whole save, which
// costs a login, and it would make each one twice as slow.
func (s *Storage) write(t table) error {
	data, err := t.encode()
	if err != nil {
		return wrap(err)
	}
	temp := s.path(tempName)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return wrap(err)
	}
	_, err = f.Write(data)
	err = cmp.Or(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, s.path(dataName))
	}
	if err != nil {
		os.Remove(temp)
		return wrap(err)
	}
	return nil
}

// lockFile waits until no other process changes the file. That takes a moment
// only, unless a process was stopped in the middle: hence the context.
func (s *Storage) lockFile(ctx context.Context) (unlock func(), err error) {
	timeout := func() error {
		return fmt.Errorf("requestforge: filestorage: waiting for the lock %s: %w", s.path(lockName), context.Cause(ctx))
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, timeout()
	}
	for {
		l, err := s.tryFlock(lockName)
		if err != nil {
			<-s.turn
			return nil, err
		}
		if l != nil {
			return func() {
				l.Unlock()
				<-s.turn
			}, nil
		}
		select {
		case <-time.After(time.Millisecond + rand.N(time.Millisecond)):
		case <-ctx.Done():
			<-s.turn
			return nil, timeout()
		}
	}
}

// tryFlock locks the named file, or returns nil if somebody holds it.
//
// gofrs/flock, because it has a lock that doesn't wait on every system that Go
// has, and the system's own: one that ends with its process, and excludes
// those of the same process. The lockedfile of the go command only waits.
func (s *Storage) tryFlock(name string) (*flock.Flock, error) {
	l := flock.New(s.path(name), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("requestforge: filestorage: lock %s: %w", l.Path(), err)
	}
	if !ok {
		return nil, nil
	}
	return l, nil
}

// lease is the lock of a step.
type lease struct{ lock *flock.Flock }

// Done returns nil: nothing but Unlock ends the lease while we live.
func (lease) Done() <-chan struct{} { return nil }

// Unlock pays no heed to its context: it has nothing to wait for.
func (l lease) Unlock(context.Context) error {
	if err := l.lock.Unlock(); err != nil {
		return wrap(err)
	}
	return nil
}
