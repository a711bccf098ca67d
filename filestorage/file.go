// How the file is read, replaced and locked. The locks of steps are lease.go's.

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

func (s *Storage) path(name string) string { return filepath.Join(s.dir, name) }

// table is the content of the file, by key.
type table map[string]item

// item is the entry of a key. The zero item is the entry of an unknown key.
type item struct {
	record    []byte // as Record.MarshalBinary writes the record, except for the stamp; nil: no record
	stamp     uint64 // of the record; 0: no record
	mark      uint64
	until     int64  // Unix seconds; from then on the record, or a mark without a record, may be dropped. 0: never
	gone      uint64 // the tombstone; 0: no tombstone
	goneUntil int64  // Unix seconds; from then on the tombstone may be dropped. 0: no tombstone
}

// has reports whether a caller who has seen the version seen may change the item.
func (it item) has(seen uint64) bool {
	if it.record != nil {
		return it.stamp == seen
	}
	return it.gone == 0 || it.gone == seen
}

// useless reports whether the whole item may be dropped. If a record was saved after a
// tombstone and the tombstone outlives the record, the record stays until the tombstone
// goes, so that stamps go on rising.
func (it item) useless(now int64) bool {
	if it.until == 0 && (it.record != nil || it.gone == 0) {
		return false
	}
	return max(it.until, it.goneUntil) < now
}

func (s *Storage) open(it item) (requestforge.Entry, error) {
	if it.record == nil {
		return requestforge.Entry{Mark: it.mark, Gone: it.gone}, nil
	}
	r := new(requestforge.Record)
	if err := r.UnmarshalBinary(it.record); err != nil {
		return requestforge.Entry{}, fmt.Errorf("requestforge: filestorage: %s: %s", s.path(dataName), strings.TrimPrefix(err.Error(), "requestforge: "))
	}
	r.Stamp = it.stamp
	return requestforge.Entry{Record: r, Mark: it.mark, Gone: it.gone}, nil
}

// until is the time from which r may be dropped, mark and all.
func until(r requestforge.Record) int64 {
	if r.Keep <= 0 || r.Token.Expiry.IsZero() {
		return 0
	}
	return max(1, r.Token.Expiry.Add(r.Keep).Unix()+1)
}

// tombstoneLife is how long a tombstone, and a mark without a record, is kept at least.
const tombstoneLife = 30 * 24 * time.Hour

func markUntil(now time.Time) int64 { return now.Add(tombstoneLife).Unix() + 1 }

// goneUntil is the time until which a tombstone in the place of the item is kept: as
// long as a refresh token from before may be of use.
func goneUntil(it item, now time.Time) int64 {
	life := tombstoneLife
	var r requestforge.Record
	// The Keep of an unreadable record is in until.
	if it.record != nil && r.UnmarshalBinary(it.record) == nil {
		life = max(life, r.Keep)
	}
	return max(1, it.until, it.goneUntil, now.Add(life).Unix()+1)
}

// maxKeys is how many keys there may be. Each write is of all of them.
const maxKeys = 1000

// add puts an item in and drops useless items. A new key beyond maxKeys is an error.
func (t table) add(path, key string, it item, now time.Time) error {
	t.prune(now)
	if _, known := t[key]; !known && len(t) >= maxKeys {
		return fmt.Errorf("requestforge: filestorage: %s has %d keys, and no room for another: a file is for the tokens of few users; keep those of many in Redis, with the package redisstorage, or in directories of their own", path, len(t))
	}
	t[key] = it
	return nil
}

// prune drops useless items, so that the file doesn't grow with every account that the
// tool was ever used with.
func (t table) prune(now time.Time) {
	for key, it := range t {
		if it.useless(now.Unix()) {
			delete(t, key)
		}
	}
}

// The file is a line with the version and the SHA-256 of the rest, and then JSON. The
// checksum reveals damage, so that a call decodes only the records that the call asks for.
// Records stay as Record.MarshalBinary writes them, without any loss.
//
// Version 1 has no tombstones. The next write replaces a file of version 1. A program that
// knows only version 1 leaves a file of version 2, tombstones included, unchanged.
const (
	magic      = "requestforge tokens "
	version    = "2 "
	oldVersion = "1 "

	maxFile = 16 << 20 // bytes
)

func header(version string, body []byte) []byte {
	return fmt.Appendf(nil, "%s%s%x\n", magic, version, sha256.Sum256(body))
}

type fileWire struct {
	Entries []itemWire `json:"entries"` // by key
}

type itemWire struct {
	Key       []byte `json:"key"`
	Record    []byte `json:"record"`
	Stamp     uint64 `json:"stamp"`
	Mark      uint64 `json:"mark"`
	Until     int64  `json:"until"`
	Gone      uint64 `json:"gone"`
	GoneUntil int64  `json:"gone_until"`
}

// item returns the item of w, and false if no write can have left w.
func (w itemWire) item() (it item, ok bool) {
	switch {
	case w.Stamp > maxStamp || w.Mark > maxStamp || w.Gone > maxStamp,
		(w.Record == nil) != (w.Stamp == 0),
		w.Record != nil && w.Stamp <= w.Gone,
		w.Until < 0 || w.GoneUntil < 0 || (w.Gone == 0) != (w.GoneUntil == 0):
		return item{}, false
	}
	return item{w.Record, w.Stamp, w.Mark, w.Until, w.Gone, w.GoneUntil}, true
}

// A uselessError means that the file belongs to this package but is damaged. The next write
// replaces the file. The error quotes nothing of the content.
type uselessError struct{ path, why string }

func (e *uselessError) Error() string {
	return "requestforge: filestorage: " + e.path + " " + e.why + "; the next token saved will replace it"
}

func (t table) encode() ([]byte, error) {
	w := fileWire{Entries: make([]itemWire, 0, len(t))}
	for key, it := range t {
		w.Entries = append(w.Entries, itemWire{[]byte(key), it.record, it.stamp, it.mark, it.until, it.gone, it.goneUntil})
	}
	slices.SortFunc(w.Entries, func(a, b itemWire) int { return bytes.Compare(a.Key, b.Key) })
	body, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	data := append(header(version, body), body...)
	if len(data) > maxFile {
		return nil, fmt.Errorf("all tokens together make more than %d MiB", maxFile>>20)
	}
	return data, nil
}

// decode reads the output of encode.
func decode(path string, data []byte) (table, error) {
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return nil, &uselessError{path, "doesn't begin like a file of tokens"}
	}
	v := version
	if bytes.HasPrefix(rest, []byte(oldVersion)) {
		v = oldVersion
	}
	if !bytes.HasPrefix(rest, []byte(v)) {
		return nil, fmt.Errorf("requestforge: filestorage: %s was written by a version of this package that isn't known here; remove it or update the program", path)
	}
	damaged := &uselessError{path, "is damaged"}
	_, body, _ := bytes.Cut(rest, []byte("\n"))
	if !bytes.HasPrefix(data, header(v, body)) {
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
		it, ok := e.item()
		if _, dup := t[string(e.Key)]; dup || !ok {
			return nil, damaged
		}
		t[string(e.Key)] = it
	}
	return t, nil
}

// load returns the content of the file.
func (s *Storage) load(ctx context.Context) (table, error) {
	if err := s.checkDir(); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if readersBlockRename {
		lock, err := s.lockFile(ctx)
		if err != nil {
			return nil, err
		}
		defer lock.unlock()
	}
	return s.read(ctx)
}

// openFile is os.OpenFile with mode 0600: only the owner of the file may read and write the
// file.
func (s *Storage) openFile(ctx context.Context, path string, flag int) (f *os.File, err error) {
	err = whileHeld(ctx, func() error {
		f, err = s.files.open(path, flag, 0o600)
		return err
	}, errSharing)
	return f, err
}

// read is load for a directory that has been checked.
func (s *Storage) read(ctx context.Context) (table, error) {
	path := s.path(dataName)
	f, err := s.openFile(ctx, path, os.O_RDONLY|openFlags)
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
	if perm := othersMay(info, s.shut); perm != 0 {
		return nil, &uselessError{path, fmt.Sprintf("is open to other users (mode %04o%s)", info.Mode().Perm(), groupHint(perm))}
	}
	if info.Size() > maxFile {
		return nil, &uselessError{path, fmt.Sprintf("is larger than %d MiB", maxFile>>20)}
	}
	data, err := io.ReadAll(f) // no longer than info.Size: a file in place never grows
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
	if err := s.checkAbove(); err != nil {
		return err
	}
	info, err := os.Stat(s.dir)
	if err != nil {
		return wrap(err)
	}
	switch {
	case !info.IsDir():
		return fmt.Errorf("requestforge: filestorage: %s is not a directory", s.dir)
	case !ownedByUs(info):
		return fmt.Errorf("requestforge: filestorage: the directory %s belongs to another user; use one of your own", s.dir)
	case othersMay(info, s.shut&0o022) != 0:
		return fmt.Errorf("requestforge: filestorage: other users can write to the directory %s (mode %s), so what is in it can't be trusted; use one of its own, or chmod %s", s.dir, s.modeOf(info), s.chmod())
	}
	return nil
}

// modeOf describes the mode of a directory that other users can write to.
func (s *Storage) modeOf(info fs.FileInfo) string {
	return fmt.Sprintf("%04o%s", info.Mode().Perm(), groupHint(othersMay(info, s.shut&0o022)))
}

// chmod returns the mode change that makes a directory safe.
func (s *Storage) chmod() string {
	if s.shut&0o020 == 0 {
		return "o-w"
	}
	return "go-w"
}

// groupHint names the field that allows perm, the excess permission bits, if all of perm
// are group bits.
func groupHint(perm fs.FileMode) string {
	if perm&0o007 != 0 {
		return ""
	}
	return "; if the platform opens it to a group, see Options.InsecureAllowGroup"
}

func (s *Storage) makeDir() error {
	if err := s.checkAbove(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return wrap(err)
	}
	return s.checkDir()
}

// update reads the file, calls change with the content, and replaces the file if change
// returns true. Meanwhile no other process changes the file.
func (s *Storage) update(ctx context.Context, change func(table) (bool, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.makeDir(); err != nil {
		return err
	}
	lock, err := s.lockFile(ctx)
	if err != nil {
		return err
	}
	defer lock.unlock()
	if err := s.removeTemps(ctx, lock.flock != nil); err != nil {
		return err
	}
	t, err := s.read(ctx)
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
	return s.write(ctx, t, lock.flock != nil)
}

// tempLife is longer than any write takes.
const tempLife = time.Minute

// removeTemps removes the temporary files of killed processes. Under the lock every
// temporary file is left over: no living process writes without the lock.
func (s *Storage) removeTemps(ctx context.Context, locked bool) error {
	if locked {
		remove := func() error { return s.files.remove(s.path(tempName)) }
		if err := whileHeld(ctx, remove, errSharing); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return wrap(err)
		}
		return nil
	}
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return wrap(err)
	}
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), tempName+"-") {
			continue
		}
		// Another process may remove or rename the file meanwhile.
		if info, err := f.Info(); err == nil && time.Since(info.ModTime()) > tempLife {
			os.Remove(s.path(f.Name()))
		}
	}
	return nil
}

// createTemp creates the temporary file that will replace the file. Without the lock
// several processes may write at the same time, so each process has a temporary file of its
// own.
func (s *Storage) createTemp(ctx context.Context, locked bool) (*os.File, error) {
	if locked {
		return s.openFile(ctx, s.path(tempName), os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	}
	return os.CreateTemp(s.dir, tempName+"-*") // of mode 0600
}

// write replaces the file. After an error the old file stays. The directory isn't
// synced: a sync would make each save twice as slow, and without one a power failure can
// undo a whole save, which costs a login.
func (s *Storage) write(ctx context.Context, t table, locked bool) error {
	data, err := t.encode()
	if err != nil {
		return wrap(err)
	}
	f, err := s.createTemp(ctx, locked)
	if err != nil {
		return wrap(err)
	}
	temp := f.Name()
	_, err = f.Write(data)
	err = cmp.Or(err, f.Sync(), f.Close())
	if err == nil {
		rename := func() error { return s.files.rename(temp, s.path(dataName)) }
		err = whileHeld(ctx, rename, errSharing, errDenied)
	}
	if err != nil {
		s.files.remove(temp)
		return wrap(err)
	}
	return nil
}

// fileLock is the right to change the file.
type fileLock struct {
	storage *Storage
	flock   *flock.Flock // nil: the file system has no locks
}

func (l fileLock) unlock() {
	if l.flock != nil {
		l.flock.Unlock()
	}
	<-l.storage.turn
}

// lockFile waits until no other process changes the file. The wait is short unless a
// process was stopped in the middle of a change; the context bounds a long wait.
//
// Where the file system has no locks, lockFile goes on without a lock, as the go command
// does with its caches. The file stays whole, since a rename puts the file in place. If two
// processes change the file at once, the later write may undo the earlier write, which
// costs a login. Keeping no tokens at all would cost a login in each run.
func (s *Storage) lockFile(ctx context.Context) (lock fileLock, err error) {
	timeout := func() error {
		return fmt.Errorf("requestforge: filestorage: waiting for the lock %s: %w", s.path(lockName), context.Cause(ctx))
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return fileLock{}, timeout()
	}
	for {
		l, err := s.tryFlock(ctx, lockName)
		if l != nil || lacksLocks(err) {
			return fileLock{s, l}, nil
		}
		if err != nil {
			<-s.turn
			return fileLock{}, err
		}
		select {
		case <-time.After(time.Millisecond + rand.N(time.Millisecond)):
		case <-ctx.Done():
			<-s.turn
			return fileLock{}, timeout()
		}
	}
}

// tryFlock locks the named file, or returns nil if the file is locked.
//
// gofrs/flock can try the operating system's lock without waiting, on every system that Go
// supports. The lockedfile package of the go command can only wait. The lock ends with the
// process, and also excludes other locks of the same process.
func (s *Storage) tryFlock(ctx context.Context, name string) (*flock.Flock, error) {
	l := flock.New(s.path(name), flock.SetPermissions(0o600))
	var ok bool
	err := whileHeld(ctx, func() (err error) {
		ok, err = s.files.flock(l)
		return err
	}, errSharing)
	if lacksLocks(err) {
		return nil, fmt.Errorf("requestforge: filestorage: lock %s: the file system has no locks: %w; use a directory elsewhere", l.Path(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("requestforge: filestorage: lock %s: %w", l.Path(), err)
	}
	if !ok {
		return nil, nil
	}
	return l, nil
}

// lacksLocks reports whether err means that the file system, or the operating system, has
// no locks.
func lacksLocks(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, errNoLocks)
}
