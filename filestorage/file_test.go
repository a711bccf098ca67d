package filestorage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// withoutLocks returns a Storage in dir, on a file system whose locks are an error.
func withoutLocks(t *testing.T, dir string, err error) *Storage {
	t.Helper()
	s, newErr := New(dir)
	require.NoError(t, newErr)
	s.files.flock = func(*flock.Flock) (bool, error) { return false, &os.PathError{Op: "flock", Path: "x", Err: err} }
	return s
}

func privateDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	return dir
}

// Without locks the second run of a tool needs no login either, and the log says
// what is missing.
func TestFileSystemWithoutLocksKeepsTokens(t *testing.T) {
	for _, missing := range []error{syscall.ENOSYS, syscall.ENOTSUP, syscall.EOPNOTSUPP, errNoLocks} {
		t.Run(missing.Error(), func(t *testing.T) {
			dir := privateDir(t)
			var logins atomic.Int32
			var log bytes.Buffer
			for range 2 {
				p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
					KeyPrefix:      "test",
					Storage:        withoutLocks(t, dir, missing),
					StorageTimeout: time.Minute, // the machine may be busy
					Logger:         slog.New(slog.NewTextHandler(&log, nil)),
					Steps: []requestforge.Step{{Name: "user", Identity: "test", Fetcher: requestforge.FetcherFunc(
						func(context.Context, requestforge.Input) (*requestforge.Token, error) {
							return &requestforge.Token{AccessToken: fmt.Sprint("t", logins.Add(1)), Expiry: time.Now().Add(time.Hour)}, nil
						})}},
				})
				require.NoError(t, err)
				tok, err := p.Token(t.Context())
				require.NoError(t, err)
				require.Equal(t, "t1", tok.AccessToken)
				p.Close()
			}
			require.EqualValues(t, 1, logins.Load())
			require.Contains(t, log.String(), "the file system has no locks: "+(&os.PathError{Op: "flock", Path: "x", Err: missing}).Error())
		})
	}
}

// Other errors of a lock are no sign that there are none.
func TestLockThatFailsIsAnError(t *testing.T) {
	dir := privateDir(t)
	s := withoutLocks(t, dir, syscall.EIO)
	_, err := s.Save(t.Context(), "k", requestforge.Record{Key: "k", Token: &requestforge.Token{AccessToken: "a"}}, 0)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, lockName)
	require.NoFileExists(t, filepath.Join(dir, dataName))
}

// hiding is a Storage that is nothing else.
type hiding struct{ requestforge.Storage }

func TestStorageWithoutLocksKeepsTheRulesWithinAProcess(t *testing.T) {
	authtest.TestStorage(t, func(t *testing.T) requestforge.Storage {
		return hiding{withoutLocks(t, privateDir(t), syscall.ENOSYS)}
	})
}

// Processes that can't exclude each other leave a whole file, and nothing half-written.
func TestWritersWithoutLocksLeaveAWholeFile(t *testing.T) {
	dir := privateDir(t)
	half := filepath.Join(dir, tempName+"-1")
	require.NoError(t, os.WriteFile(half, []byte("hunter2"), 0o600))
	other := filepath.Join(dir, tempName+"-2")
	require.NoError(t, os.WriteFile(other, []byte("hunter2"), 0o600))
	old := time.Now().Add(-2 * tempLife)
	require.NoError(t, os.Chtimes(half, old, old))

	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		s := withoutLocks(t, dir, syscall.ENOSYS)
		wg.Go(func() {
			key := fmt.Sprint("k", i)
			for n := range 25 {
				entries, err := s.Load(t.Context(), key)
				if err == nil {
					_, err = s.Save(t.Context(), key, requestforge.Record{Key: key, Token: &requestforge.Token{AccessToken: fmt.Sprint(n)}}, entries[0].Version())
				}
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	require.ElementsMatch(t, []string{dataName, filepath.Base(other)}, names, "another process may be writing to the younger one")
}

func FuzzDecode(f *testing.F) {
	r := requestforge.Record{Key: "k\xff", Token: &requestforge.Token{AccessToken: "a", RefreshToken: "\x00"}}
	data, err := r.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	whole, err := table{"k\xff": {data, 3, 2, 9, 0, 0}, "": {mark: 1}, "l": {data, 3, 4, 0, 2, 9}, "m": {gone: 5, goneUntil: 1}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := bytes.Cut(whole, []byte("\n"))
	f.Add(body, true)
	for _, s := range []string{"", "{}", `{"entries":null}`, `{"ENTRIES":[{}]}`, `{"entries":[{"key":null,"until":-1}]} `, `{"entries":[{"key":null,"gone":1,"gone_until":-1}]}`} {
		f.Add([]byte(s), true)
	}
	f.Add(whole, false)
	for _, s := range []string{"", magic, magic + version, magic + oldVersion, magic + "3 ", string(header(version, nil)), string(header(oldVersion, []byte("a")))} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, sum bool) {
		if sum {
			data = append(header(version, data), data...)
		}
		first, err := decode("path", data)
		if err != nil {
			if !strings.Contains(err.Error(), "path") {
				t.Fatalf("%v names no path", err)
			}
			return
		}
		encoded, err := first.encode()
		if err != nil {
			t.Fatal(err)
		}
		second, err := decode("path", encoded)
		if err != nil || !reflect.DeepEqual(first, second) {
			t.Fatalf("%q became %q, %v", data, encoded, err)
		}
		again, err := second.encode()
		if err != nil || !bytes.Equal(encoded, again) {
			t.Fatalf("%q is encoded as %q and as %q, %v", data, encoded, again, err)
		}
	})
}

// Whatever is written can be read: the bound of both sides is the same.
func TestFileIsBounded(t *testing.T) {
	tokens := table{"k": {record: make([]byte, 13<<20), stamp: 1}}
	if data, err := tokens.encode(); err == nil {
		t.Errorf("a file of %d bytes", len(data))
	}
}
