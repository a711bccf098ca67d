package filestorage

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
)

// holds are the ways in which another program that has a file open gets in the way.
// Each begins when it is called and lasts for that time. tries is called by each try.
var holds = map[string]func(f *files, last time.Duration, tries func()){
	"rename":                func(f *files, last time.Duration, tries func()) { holdRename(f, errSharing, last, tries) },
	"rename, access denied": func(f *files, last time.Duration, tries func()) { holdRename(f, errDenied, last, tries) },
	"open": func(f *files, last time.Duration, tries func()) {
		end := time.Now().Add(last)
		f.open = func(path string, flag int, perm os.FileMode) (*os.File, error) {
			if flag&os.O_CREATE == 0 {
				if tries(); time.Now().Before(end) {
					return nil, &os.PathError{Op: "open", Path: path, Err: errSharing}
				}
			}
			return os.OpenFile(path, flag, perm)
		}
	},
	"create": func(f *files, last time.Duration, tries func()) {
		end := time.Now().Add(last)
		f.open = func(path string, flag int, perm os.FileMode) (*os.File, error) {
			if flag&os.O_CREATE != 0 {
				if tries(); time.Now().Before(end) {
					return nil, &os.PathError{Op: "open", Path: path, Err: errSharing}
				}
			}
			return os.OpenFile(path, flag, perm)
		}
	},
	"remove": func(f *files, last time.Duration, tries func()) {
		end := time.Now().Add(last)
		f.remove = func(path string) error {
			if tries(); time.Now().Before(end) {
				return &os.PathError{Op: "remove", Path: path, Err: errSharing}
			}
			return os.Remove(path)
		}
	},
	"lock": func(f *files, last time.Duration, tries func()) {
		end := time.Now().Add(last)
		f.flock = func(l *flock.Flock) (bool, error) {
			if tries(); time.Now().Before(end) {
				return false, &os.PathError{Op: "open", Path: l.Path(), Err: errSharing}
			}
			return l.TryLock()
		}
	},
}

func holdRename(f *files, err error, last time.Duration, tries func()) {
	end := time.Now().Add(last)
	f.rename = func(from, to string) error {
		if tries(); time.Now().Before(end) {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
		}
		return os.Rename(from, to)
	}
}

func saveToken(ctx context.Context, s *Storage, access string, seen uint64) error {
	_, err := s.Save(ctx, "k", requestforge.Record{Key: "k", Token: &requestforge.Token{AccessToken: access}}, seen)
	return err
}

// heldOpen runs test in a bubble, with a Storage that has a token "old" of stamp 1, for
// each way to be in the way.
func heldOpen(t *testing.T, last time.Duration, test func(t *testing.T, s *Storage, tries *[]time.Time)) {
	for name, hold := range holds {
		t.Run(name, func(t *testing.T) {
			dir := privateDir(t)
			synctest.Test(t, func(t *testing.T) {
				s, err := New(dir)
				require.NoError(t, err)
				require.NoError(t, saveToken(t.Context(), s, "old", 0))
				var tries []time.Time
				hold(&s.files, last, func() { tries = append(tries, time.Now()) })
				test(t, s, &tries)
			})
		})
	}
}

// requireOld checks that everything is as it was before a Save that failed.
func requireOld(t *testing.T, s *Storage) {
	t.Helper()
	s.files = osFiles
	entries, err := s.Load(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "old", entries[0].Record.Token.AccessToken)
	require.NoError(t, saveToken(t.Context(), s, "new", 1), "nothing is locked")
	require.NoFileExists(t, s.path(tempName))
}

func TestFileThatIsHeldOpenIsTriedAgain(t *testing.T) {
	heldOpen(t, 1900*time.Millisecond, func(t *testing.T, s *Storage, tries *[]time.Time) {
		require.NoError(t, saveToken(t.Context(), s, "new", 1))
		require.Greater(t, len(*tries), 8)
		entries, err := s.Load(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, "new", entries[0].Record.Token.AccessToken)
	})
}

func TestFileThatStaysOpenIsAnErrorThatSaysSo(t *testing.T) {
	heldOpen(t, time.Hour, func(t *testing.T, s *Storage, tries *[]time.Time) {
		start := time.Now()
		err := saveToken(t.Context(), s, "hunter2", 1)
		require.ErrorContains(t, err, s.dir)
		require.ErrorContains(t, err, "another program")
		require.ErrorContains(t, err, "2s")
		require.NotContains(t, err.Error(), "hunter2")
		require.True(t, errors.Is(err, errSharing) || errors.Is(err, errDenied))
		require.Equal(t, heldFor, time.Since(start))
		for i := 2; i < len(*tries)-2; i++ { // the last pause ends with the time
			require.GreaterOrEqual(t, (*tries)[i+1].Sub((*tries)[i]), (*tries)[i].Sub((*tries)[i-1]), "pauses grow")
		}
		require.Less(t, len(*tries), 30)
		requireOld(t, s)
	})
}

func TestContextEndsTheTriesOfAFileThatIsHeldOpen(t *testing.T) {
	heldOpen(t, time.Hour, func(t *testing.T, s *Storage, tries *[]time.Time) {
		enough := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, enough)
		defer cancel()
		start := time.Now()
		err := saveToken(ctx, s, "hunter2", 1)
		require.ErrorIs(t, err, enough)
		require.ErrorContains(t, err, "another program")
		require.True(t, errors.Is(err, errSharing) || errors.Is(err, errDenied))
		require.Equal(t, 300*time.Millisecond, time.Since(start))
		requireOld(t, s)
	})
}

// A disk that is full or a directory that is gone doesn't mend itself in 2 s.
func TestRenameThatFailsOtherwiseIsTriedOnce(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOENT, syscall.ENOSPC} {
		s, err := New(privateDir(t))
		require.NoError(t, err)
		require.NoError(t, saveToken(t.Context(), s, "old", 0))
		tries := 0
		s.files.rename = func(from, to string) error {
			tries++
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: fault}
		}
		require.ErrorIs(t, saveToken(t.Context(), s, "new", 1), fault)
		require.Equal(t, 1, tries)
		requireOld(t, s)
	}
}
