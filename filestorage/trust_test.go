//go:build linux || darwin

package filestorage_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/filestorage"
)

func init() {
	children["full disk"] = childFullDisk
	children["read-only"] = childReadOnly
}

// nobody is a user ID that isn't ours.
const nobody = 65534

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	return info.Mode().Perm()
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	s, dir := fresh(t)
	save(t, s, record("k", "a"), 0)
	_, _, err := s.TryLock(t.Context(), "k")
	require.NoError(t, err)
	require.EqualValues(t, 0o700, mode(t, dir))
	require.EqualValues(t, 0o700, mode(t, filepath.Dir(dir)))
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 3)
	for _, f := range files {
		require.EqualValues(t, 0o600, mode(t, filepath.Join(dir, f.Name())), f.Name())
	}
}

func TestFileOpenToOthersIsNotReadAndIsReplaced(t *testing.T) {
	for _, perm := range []os.FileMode{0o644, 0o640, 0o604, 0o620, 0o602, 0o610} {
		s, dir := fresh(t)
		_, logins := run(t, s)
		require.Equal(t, 1, logins)
		require.NoError(t, os.Chmod(data(dir), perm))
		_, err := s.Load(t.Context(), "k")
		require.ErrorContains(t, err, data(dir))
		require.ErrorContains(t, err, fmt.Sprintf("%04o", perm))
		_, logins = run(t, s)
		require.Equal(t, 1, logins, "what may be known to others is not used")
		require.EqualValues(t, 0o600, mode(t, data(dir)))
		_, logins = run(t, s)
		require.Equal(t, 0, logins)
	}
}

func TestDirectoryThatOthersWriteToIsRefused(t *testing.T) {
	for _, perm := range []os.FileMode{0o770, 0o702, 0o777, 0o777 | os.ModeSticky} {
		s, dir := fresh(t)
		save(t, s, record("k", "a"), 0)
		require.NoError(t, os.Chmod(dir, perm))
		_, err := filestorage.New(dir)
		require.ErrorContains(t, err, dir)
		requireRefused(t, s, dir, "other users can write")
		_, _, err = s.TryLock(t.Context(), "k")
		require.ErrorContains(t, err, dir)
		require.NoError(t, os.Chmod(dir, 0o755))
		require.NotNil(t, load(t, open(t, dir), "k").Record, "to see that there is a directory does no harm")
	}
}

// Who can write to a directory above can put another one in the place of ours, at any
// time, and read what is saved there.
func TestDirectoryThatOthersCanExchangeIsRefused(t *testing.T) {
	above := func(t *testing.T, perm os.FileMode) (path string) {
		path = filepath.Join(private(t), "above")
		require.NoError(t, os.Mkdir(path, 0o700))
		require.NoError(t, os.Chmod(path, perm))
		t.Cleanup(func() { os.Chmod(path, 0o700) })
		return path
	}
	link := func(t *testing.T, to, from string) string {
		require.NoError(t, os.Symlink(to, from))
		return from
	}
	for name, test := range map[string]struct {
		make    func(t *testing.T) (above, dir string)
		refused bool
	}{
		"parent, for all": {func(t *testing.T) (string, string) {
			a := above(t, 0o777)
			return a, filepath.Join(a, "tokens")
		}, true},
		"parent, for a group": {func(t *testing.T) (string, string) {
			a := above(t, 0o770)
			return a, filepath.Join(a, "tokens")
		}, true},
		"further above": {func(t *testing.T) (string, string) {
			a := above(t, 0o702)
			return a, filepath.Join(a, "not", "there", "tokens")
		}, true},
		"sticky": {func(t *testing.T) (string, string) {
			a := above(t, 0o777|os.ModeSticky)
			return a, filepath.Join(a, "tokens")
		}, false},
		"to be read by all": {func(t *testing.T) (string, string) {
			a := above(t, 0o755)
			return a, filepath.Join(a, "tokens")
		}, false},
		"a link lies there": {func(t *testing.T) (string, string) {
			a := above(t, 0o777)
			return a, link(t, private(t), filepath.Join(a, "tokens"))
		}, true},
		"a link leads there": {func(t *testing.T) (string, string) {
			a := above(t, 0o777)
			return a, filepath.Join(link(t, a, filepath.Join(private(t), "link")), "tokens")
		}, true},
		"a relative link leads there": {func(t *testing.T) (string, string) {
			a := above(t, 0o777)
			return a, filepath.Join(link(t, "../"+filepath.Base(filepath.Dir(a))+"/above", filepath.Join(filepath.Dir(a), "link")), "tokens")
		}, true},
		"a link on the way lies there": {func(t *testing.T) (string, string) {
			a := above(t, 0o777)
			second := link(t, private(t), filepath.Join(a, "second"))
			return a, filepath.Join(link(t, second, filepath.Join(private(t), "first")), "tokens")
		}, true},
		"a relative path": {func(t *testing.T) (string, string) {
			a := above(t, 0o777)
			t.Chdir(a)
			return a, "tokens"
		}, true},
		"a relative path upwards": {func(t *testing.T) (string, string) {
			a := above(t, 0o777)
			require.NoError(t, os.Mkdir(filepath.Join(a, "work"), 0o700))
			t.Chdir(filepath.Join(a, "work"))
			return a, filepath.Join("..", "tokens")
		}, true},
		"a relative path to a safe place": {func(t *testing.T) (string, string) {
			a := above(t, 0o755)
			t.Chdir(a)
			return a, "tokens"
		}, false},
		"a safe one below": {func(t *testing.T) (string, string) {
			a := above(t, 0o777)
			require.NoError(t, os.Mkdir(filepath.Join(a, "safe"), 0o700))
			return a, filepath.Join(a, "safe", "tokens")
		}, true},
		"set group ID is not sticky": {func(t *testing.T) (string, string) {
			a := above(t, 0o770|os.ModeSetgid)
			return a, filepath.Join(a, "tokens")
		}, true},
		"sticky, and a link of ours": {func(t *testing.T) (string, string) {
			a := above(t, 0o777|os.ModeSticky)
			return a, link(t, private(t), filepath.Join(a, "tokens"))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			above, dir := test.make(t)
			_, err := filestorage.New(dir)
			if !test.refused {
				save(t, open(t, dir), record("k", "a"), 0)
				return
			}
			require.ErrorContains(t, err, above)
			require.ErrorContains(t, err, "chmod go-w")

			// It may become so while the tool runs, too.
			require.NoError(t, os.Chmod(above, 0o700))
			s := open(t, dir)
			require.NoError(t, os.Chmod(above, 0o777))
			requireRefused(t, s, above, "other users can write")
			_, _, err = s.TryLock(t.Context(), "k")
			require.ErrorContains(t, err, above)
			require.NoFileExists(t, data(dir))
		})
	}
}

func TestLinksInACircleAreAnError(t *testing.T) {
	path := filepath.Join(private(t), "link")
	require.NoError(t, os.Symlink(path, path))
	_, err := filestorage.New(filepath.Join(path, "tokens"))
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "symbolic links")
}

func TestWhatBelongsToAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		_, err := filestorage.New("/")
		require.ErrorContains(t, err, "another user")
		return
	}
	s, dir := fresh(t)
	save(t, s, record("k", "a"), 0)
	require.NoError(t, os.Chown(data(dir), nobody, nobody))
	before, err := os.ReadFile(data(dir))
	require.NoError(t, err)
	requireRefused(t, s, data(dir), "another user")
	after, err := os.ReadFile(data(dir))
	require.NoError(t, err)
	require.Equal(t, before, after)

	require.NoError(t, os.Chown(dir, nobody, nobody))
	_, err = filestorage.New(dir)
	require.ErrorContains(t, err, "another user")
	requireRefused(t, s, dir, "another user")

	require.NoError(t, os.Chown(dir, 0, 0))
	require.NoError(t, os.Chown(filepath.Dir(dir), nobody, nobody))
	_, err = filestorage.New(dir)
	require.ErrorContains(t, err, filepath.Dir(dir)+", on the way to")
	requireRefused(t, s, filepath.Dir(dir), "another user")

	// Stickiness keeps others from our entries, not from their own.
	sticky := private(t)
	require.NoError(t, os.Chmod(sticky, 0o777|os.ModeSticky))
	link, made := filepath.Join(sticky, "link"), filepath.Join(sticky, "made")
	require.NoError(t, os.Symlink(private(t), link))
	require.NoError(t, os.Mkdir(made, 0o700))
	for _, entry := range []string{link, made} {
		require.NoError(t, os.Lchown(entry, nobody, nobody))
		_, err = filestorage.New(filepath.Join(entry, "tokens"))
		require.ErrorContains(t, err, entry+", on the way to")
		require.ErrorContains(t, err, "another user")
	}
}

// mount returns a directory as a platform leaves it that opens a volume to a group at
// each mount: "volume", with "tokens" in it, and the file that a run has left there.
func mount(t *testing.T, top, dir, file os.FileMode) (path string) {
	t.Helper()
	volume := filepath.Join(private(t), "volume")
	path = filepath.Join(volume, "tokens")
	_, logins := run(t, open(t, path))
	require.Equal(t, 1, logins)
	require.NoError(t, os.Chmod(data(path), file))
	require.NoError(t, os.Chmod(data(path)+".lock", file))
	require.NoError(t, os.Chmod(path, dir))
	require.NoError(t, os.Chmod(volume, top))
	t.Cleanup(func() { os.Chmod(volume, 0o700) })
	return path
}

func TestWhatIsOpenToAGroupCanBeAllowed(t *testing.T) {
	dir := mount(t, 0o770|os.ModeSetgid, 0o770|os.ModeSetgid, 0o660)
	_, err := filestorage.New(dir)
	require.ErrorContains(t, err, "Options.InsecureAllowGroup")
	require.ErrorContains(t, err, "chmod go-w")

	s, err := filestorage.Options{InsecureAllowGroup: true}.New(dir)
	require.NoError(t, err)
	_, logins := run(t, s)
	require.Equal(t, 0, logins, "the token of the run before the mount")
	_, ok, err := s.TryLock(t.Context(), "k")
	require.NoError(t, err)
	require.True(t, ok)
	save(t, s, record("k", "a"), 0)
	require.EqualValues(t, 0o600, mode(t, data(dir)), "the group gets nothing from us")
}

func TestWhatIsOpenToAGroupIsRefusedUnlessAllowed(t *testing.T) {
	for _, modes := range [][3]os.FileMode{
		{0o770, 0o700, 0o600},
		{0o700, 0o770, 0o600},
	} {
		_, err := filestorage.New(mount(t, modes[0], modes[1], modes[2]))
		require.ErrorContains(t, err, "Options.InsecureAllowGroup", "%o", modes)
	}
	s := open(t, mount(t, 0o700, 0o700, 0o660))
	_, err := s.Load(t.Context(), "k")
	require.ErrorContains(t, err, "mode 0660")
	require.ErrorContains(t, err, "Options.InsecureAllowGroup")
}

func TestWhatIsOpenToAllIsNeverAllowed(t *testing.T) {
	o := filestorage.Options{InsecureAllowGroup: true}
	for _, modes := range [][2]os.FileMode{{0o772, 0o770}, {0o777, 0o770}, {0o770, 0o772}, {0o770, 0o777}} {
		_, err := o.New(mount(t, modes[0], modes[1], 0o660))
		require.ErrorContains(t, err, "chmod o-w", "%o", modes)
		require.NotContains(t, err.Error(), "InsecureAllowGroup")
	}
	for _, perm := range []os.FileMode{0o664, 0o662, 0o661, 0o606} {
		dir := mount(t, 0o770, 0o770, perm)
		s, err := o.New(dir)
		require.NoError(t, err)
		_, err = s.Load(t.Context(), "k")
		require.ErrorContains(t, err, data(dir))
		require.NotContains(t, err.Error(), "InsecureAllowGroup")
		_, logins := run(t, s)
		require.Equal(t, 1, logins, "what may be known to others is not used")
	}
}

func TestWhatIsNoFileIsRefusedAndLeftAlone(t *testing.T) {
	for name, test := range map[string]struct {
		make func(t *testing.T, path string)
		kind os.FileMode
	}{
		"symlink": {func(t *testing.T, path string) {
			target := filepath.Join(t.TempDir(), "target")
			require.NoError(t, os.WriteFile(target, []byte("requestforge tokens 1\n{}"), 0o600))
			require.NoError(t, os.Symlink(target, path))
		}, os.ModeSymlink},
		"dangling symlink": {func(t *testing.T, path string) {
			require.NoError(t, os.Symlink("nowhere", path))
		}, os.ModeSymlink},
		"pipe":      {func(t *testing.T, path string) { require.NoError(t, syscall.Mkfifo(path, 0o600)) }, os.ModeNamedPipe},
		"directory": {func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) }, os.ModeDir},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := fresh(t)
			require.NoError(t, os.MkdirAll(dir, 0o700))
			test.make(t, data(dir))
			requireRefused(t, s, data(dir), "not a regular file")
			_, logins := run(t, s)
			require.Equal(t, 1, logins, "the request is served")
			info, err := os.Lstat(data(dir))
			require.NoError(t, err)
			require.Equal(t, test.kind, info.Mode().Type())
		})
	}
}

// A directory may be elsewhere, as a cache on another disk is.
func TestDirectoryMayBeASymlink(t *testing.T) {
	link := filepath.Join(private(t), "link")
	real := private(t)
	require.NoError(t, os.Symlink(real, link))
	save(t, open(t, link), record("k", "a"), 0)
	require.FileExists(t, data(real))
}

// childFullDisk can't write files of more than 16 KiB, for a while.
func childFullDisk(dir string) error {
	s, err := filestorage.New(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	signal.Ignore(syscall.SIGXFSZ)
	if _, err := s.Save(ctx, "k", record("k", "small"), 0); err != nil {
		return err
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	limit := was
	limit.Cur = 16 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	_, err = s.Save(ctx, "k", record("k", "large"+bulk), 1)
	if err == nil {
		return fmt.Errorf("Save beyond the limit is no error")
	}
	if !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "0123456789") {
		return fmt.Errorf("Save beyond the limit: %w", err)
	}
	entries, err := s.Load(ctx, "k")
	if err != nil || entries[0].Record.Token.AccessToken != "small" || stamp(entries[0]) != 1 {
		return fmt.Errorf("afterwards there is %v, %v", entries, err)
	}
	if _, err := os.Stat(data(dir) + ".tmp"); !os.IsNotExist(err) {
		return fmt.Errorf("what was half-written is there: %v", err)
	}
	if err := s.Revoke(ctx, "k", 1); err != nil {
		return fmt.Errorf("what is small still fits: %w", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	e, err := s.Save(ctx, "k", record("k", "large"+bulk), 1)
	if err != nil || stamp(e) != 2 || e.Mark != 1 {
		return fmt.Errorf("with room again: %v, %v", e, err)
	}
	return nil
}

func TestFullDiskLeavesTheFileAsItWas(t *testing.T) {
	_, dir := fresh(t)
	start(t, "full disk", dir).rest(t)
}

// childReadOnly can read the directory, but not write to it.
func childReadOnly(dir string) error {
	if os.Geteuid() == 0 { // to whom modes mean nothing
		if err := syscall.Setgid(nobody); err != nil {
			return err
		}
		if err := syscall.Setuid(nobody); err != nil {
			return err
		}
	}
	s, err := filestorage.New(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	entries, err := s.Load(ctx, "k")
	if err != nil || entries[0].Record == nil {
		return fmt.Errorf("Load: %v, %v", entries, err)
	}
	_, saveErr := s.Save(ctx, "k", record("k", "hunter2"), 1)
	_, _, lockErr := s.TryLock(ctx, "other")
	_, deleteErr := s.Delete(ctx, "k", 1)
	for _, err := range []error{saveErr, s.Revoke(ctx, "k", 1), deleteErr, lockErr} {
		if err == nil || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "hunter2") {
			return fmt.Errorf("want an error that names %s, got %v", dir, err)
		}
	}
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		KeyPrefix: "test",
		Storage:   s,
		Steps: []requestforge.Step{{Name: "user", Identity: "test", Fetcher: requestforge.FetcherFunc(
			func(context.Context, requestforge.Input) (*requestforge.Token, error) {
				return &requestforge.Token{AccessToken: "fetched"}, nil
			})}},
	})
	if err != nil {
		return err
	}
	if tok, err := p.Token(ctx); err != nil || tok.AccessToken != "fetched" {
		return fmt.Errorf("the pipeline returned %v, %v", tok, err)
	}
	closed, err := filestorage.New(filepath.Join(dir, "closed", "tokens"))
	if err != nil {
		return fmt.Errorf("New where nothing can be seen: %w", err)
	}
	if _, err := closed.Load(ctx, "k"); err == nil || !strings.Contains(err.Error(), "closed") {
		return fmt.Errorf("Load where nothing can be seen: %v", err)
	}
	missing, err := filestorage.New(filepath.Join(dir, "missing"))
	if err != nil {
		return fmt.Errorf("New where nothing can be made: %w", err)
	}
	if _, err := missing.Save(ctx, "k", record("k", "hunter2"), 0); err == nil || !strings.Contains(err.Error(), "missing") {
		return fmt.Errorf("Save where nothing can be made: %v", err)
	}
	return nil
}

func TestReadOnlyDirectoryIsReadAndFailsNoRequest(t *testing.T) {
	s, dir := fresh(t)
	save(t, s, record("k", "a"), 0)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "closed"), 0))
	if os.Geteuid() == 0 {
		require.NoError(t, os.Remove(data(dir)+".lock"))
		for _, path := range []string{dir, data(dir)} {
			require.NoError(t, os.Chown(path, nobody, nobody))
		}
		for up := filepath.Dir(dir); up != filepath.Clean(os.TempDir()); up = filepath.Dir(up) {
			require.NoError(t, os.Chmod(up, 0o755))
		}
	}
	require.NoError(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { os.Chmod(dir, 0o700) })
	start(t, "read-only", dir).rest(t)
}
