package filestorage_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/filestorage"
	"github.com/requestforge/requestforge/sealedstorage"
)

// The test binary runs itself as the other processes: with childEnv set it is
// the child of that name, in the directory that dirEnv names.
const (
	childEnv = "FILESTORAGE_TEST_CHILD"
	dirEnv   = "FILESTORAGE_TEST_DIR"
)

// children return what went wrong.
var children = map[string]func(dir string) error{
	"hammer": childHammer,
	"hold":   childHold,
	"save":   childSave,
}

func TestMain(m *testing.M) {
	child := children[os.Getenv(childEnv)]
	if child == nil {
		os.Exit(m.Run())
	}
	if err := child(os.Getenv(dirEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process starts the named child. It is killed when the test ends.
type process struct {
	*exec.Cmd
	lines  *bufio.Scanner // of its output
	errors bytes.Buffer
}

func start(t *testing.T, child, dir string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	p := &process{Cmd: exec.Command(exe, args...)}
	p.Env = append(os.Environ(), childEnv+"="+child, dirEnv+"="+dir)
	p.Stderr = &p.errors
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	// Kept open: a child that reads it waits until it is killed.
	_, err = p.StdinPipe()
	require.NoError(t, err)
	p.lines = bufio.NewScanner(out)
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
	})
	return p
}

func (p *process) line(t *testing.T) string {
	t.Helper()
	require.True(t, p.lines.Scan(), "the child ended: %s", &p.errors)
	return p.lines.Text()
}

// rest waits for the child's end and returns what else it wrote.
func (p *process) rest(t *testing.T) []string {
	t.Helper()
	var lines []string
	for p.lines.Scan() {
		lines = append(lines, p.lines.Text())
	}
	require.NoError(t, p.Wait(), "%s\n%s", strings.Join(lines, "\n"), &p.errors)
	return lines
}

func open(t *testing.T, dir string) *filestorage.Storage {
	t.Helper()
	s, err := filestorage.New(dir)
	require.NoError(t, err)
	return s
}

// private returns an empty directory that nobody else can write to, whatever the umask.
func private(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	return dir
}

func fresh(t *testing.T) (s *filestorage.Storage, dir string) {
	t.Helper()
	dir = filepath.Join(private(t), "cache", "tool", "tokens")
	return open(t, dir), dir
}

func data(dir string) string { return filepath.Join(dir, "requestforge-tokens") }

func record(key, access string) requestforge.Record {
	return requestforge.Record{Key: key, Token: &requestforge.Token{AccessToken: access}}
}

func load(t *testing.T, s requestforge.Storage, key string) requestforge.Entry {
	t.Helper()
	entries, err := s.Load(t.Context(), key)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	return entries[0]
}

func save(t *testing.T, s requestforge.Storage, r requestforge.Record, seen uint64) requestforge.Entry {
	t.Helper()
	e, err := s.Save(t.Context(), r.Key, r, seen)
	require.NoError(t, err)
	require.NotNil(t, e.Record)
	return e
}

func remove(t *testing.T, s requestforge.Storage, key string, seen uint64) requestforge.Entry {
	t.Helper()
	e, err := s.Delete(t.Context(), key, seen)
	require.NoError(t, err)
	require.Nil(t, e.Record)
	return e
}

func stamp(e requestforge.Entry) uint64 {
	if e.Record == nil {
		return 0
	}
	return e.Record.Stamp
}

// prefixed keeps one user of a directory from the keys of others.
type prefixed struct {
	*filestorage.Storage
	prefix string
	used   sync.Map // the keys that there may be something under
}

func (p *prefixed) key(key string) string {
	p.used.Store(p.prefix+key, nil)
	return p.prefix + key
}

func (p *prefixed) keys(keys []string) []string {
	own := make([]string, len(keys))
	for i, key := range keys {
		own[i] = p.key(key)
	}
	return own
}

// clean removes all records that are p's, so that the file stays small.
func (p *prefixed) clean() (err error) {
	ctx := context.Background()
	p.used.Range(func(key, _ any) bool {
		var entries []requestforge.Entry
		entries, err = p.Storage.Load(ctx, key.(string))
		if err != nil {
			return false
		}
		if entries[0].Record != nil && entries[0].Version() < 1<<53-1 {
			_, err = p.Storage.Delete(ctx, key.(string), entries[0].Version())
		}
		return err == nil
	})
	return err
}

func (p *prefixed) Load(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
	return p.Storage.Load(ctx, p.keys(keys)...)
}

func (p *prefixed) Save(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
	return p.Storage.Save(ctx, p.key(key), r, seen)
}

func (p *prefixed) Revoke(ctx context.Context, key string, stamp uint64) error {
	return p.Storage.Revoke(ctx, p.key(key), stamp)
}

func (p *prefixed) Delete(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
	return p.Storage.Delete(ctx, p.key(key), seen)
}

func (p *prefixed) TryLock(ctx context.Context, key string) (requestforge.Lease, bool, error) {
	return p.Storage.TryLock(ctx, p.key(key))
}

func TestStorageKeepsTheRules(t *testing.T) {
	var n int
	authtest.TestStorage(t, func(t *testing.T) requestforge.Storage {
		if dir := os.Getenv(dirEnv); dir != "" { // among others, for TestManyProcessesKeepTheRules
			n++
			p := &prefixed{Storage: open(t, dir), prefix: fmt.Sprintf("%d/%d/", os.Getpid(), n)}
			t.Cleanup(func() { require.NoError(t, p.clean()) })
			return p
		}
		s, _ := fresh(t)
		return s
	})
}

func TestSealedStorageOverAFileKeepsTheRules(t *testing.T) {
	authtest.TestStorage(t, func(t *testing.T) requestforge.Storage {
		s, _ := fresh(t)
		return encrypted(t, s)
	})
}

func encrypted(t *testing.T, s requestforge.Storage) requestforge.Storage {
	t.Helper()
	e, err := sealedstorage.New(s, sealedstorage.Config{
		Keys: []sealedstorage.Key{{ID: "k", Secret: []byte("0123456789abcdef0123456789abcdef")}},
	})
	require.NoError(t, err)
	return e
}

// childHammer saves, revokes, deletes and locks the same key as others do, and
// prints what it achieved.
func childHammer(dir string) error {
	s, err := filestorage.New(dir)
	if err != nil {
		return err
	}
	const key, calls = "k", 40
	ctx := context.Background()
	var last requestforge.Entry
	var revoked uint64 // by this process
	for i := range calls {
		entries, err := s.Load(ctx, key)
		if err != nil {
			return err
		}
		e := entries[0]
		if e.Version() < last.Version() || e.Mark < last.Mark || e.Mark < revoked || e.Gone < last.Gone {
			return fmt.Errorf("version, mark and tombstone went from %d, %d and %d down to %d, %d and %d",
				last.Version(), last.Mark, last.Gone, e.Version(), e.Mark, e.Gone)
		}
		last = e
		if i%5 == 4 {
			revoked = e.Version()
			if err := s.Revoke(ctx, key, revoked); err != nil {
				return err
			}
			fmt.Println("revoked", revoked, 0)
			continue
		}
		mine := fmt.Sprintf("token %d of %d", i, os.Getpid())
		var now requestforge.Entry
		var won bool
		if i%5 == 2 {
			now, err = s.Delete(ctx, key, e.Version())
			// Another Delete with the same seen would leave the same, so
			// that the winner can't be told.
		} else {
			now, err = s.Save(ctx, key, record(key, mine), e.Version())
			won = err == nil && now.Record != nil && now.Record.Token.AccessToken == mine
		}
		if err != nil {
			return err
		}
		if now.Version() <= e.Version() || now.Version() <= revoked && now.Record != nil {
			return fmt.Errorf("a call over version %d and mark %d returned %v", e.Version(), revoked, now)
		}
		if won {
			fmt.Println("won", e.Version(), now.Version())
		} else {
			fmt.Println("saw", 0, now.Version())
		}

		lease, ok, err := s.TryLock(ctx, key)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		inside := filepath.Join(dir, "inside")
		f, err := os.OpenFile(inside, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("two hold the lock: %w", err)
		}
		f.Close()
		if err := os.Remove(inside); err != nil {
			return err
		}
		if err := lease.Unlock(ctx); err != nil {
			return err
		}
		fmt.Println("locked", 0, 0)
	}
	return nil
}

func TestManyProcessesOnOneKeyHaveOneWinnerEach(t *testing.T) {
	s, dir := fresh(t)
	var all []*process
	for range 4 {
		all = append(all, start(t, "hammer", dir))
	}
	winners, given := map[uint64]bool{}, map[uint64]bool{}
	var highest, mark uint64
	var locked int
	for _, p := range all {
		for _, line := range p.rest(t) {
			var what string
			var a, b uint64
			_, err := fmt.Sscan(line, &what, &a, &b)
			require.NoError(t, err, line)
			switch what {
			case "won":
				require.False(t, winners[a], "two Saves that had seen %d won", a)
				require.False(t, given[b], "stamp %d was given twice", b)
				winners[a], given[b] = true, true
				highest = max(highest, b)
			case "saw":
				highest = max(highest, b)
			case "revoked":
				mark = max(mark, a)
			case "locked":
				locked++
			}
		}
	}
	e := load(t, s, "k")
	require.Equal(t, highest, e.Version())
	require.Equal(t, mark, e.Mark)
	require.NotZero(t, e.Gone)
	require.LessOrEqual(t, e.Gone, highest)
	require.NotEmpty(t, winners)
	require.NotZero(t, locked)
}

// childHold holds a lock until it is killed.
func childHold(dir string) error {
	s, err := filestorage.New(dir)
	if err != nil {
		return err
	}
	lease, ok, err := s.TryLock(context.Background(), "k")
	if err != nil || !ok {
		return fmt.Errorf("TryLock: %t, %v", ok, err)
	}
	fmt.Println("held")
	os.Stdin.Read(make([]byte, 1))
	return lease.Unlock(context.Background())
}

func TestLockEndsWithItsProcess(t *testing.T) {
	s, dir := fresh(t)
	holder := start(t, "hold", dir)
	require.Equal(t, "held", holder.line(t))
	_, ok, err := s.TryLock(t.Context(), "k")
	require.NoError(t, err)
	require.False(t, ok, "another process holds it")
	save(t, s, record("k", "meanwhile"), 0)

	require.NoError(t, holder.Process.Kill())
	require.Error(t, holder.Wait())
	lease, ok, err := s.TryLock(t.Context(), "k")
	require.NoError(t, err)
	require.True(t, ok, "its holder is dead")
	require.NoError(t, lease.Unlock(t.Context()))
}

func TestLockExcludesOtherStoragesOfThisProcess(t *testing.T) {
	s, dir := fresh(t)
	lease, ok, err := s.TryLock(t.Context(), "k")
	require.NoError(t, err)
	require.True(t, ok)
	_, ok, err = open(t, dir).TryLock(t.Context(), "k")
	require.NoError(t, err)
	require.False(t, ok)
	require.NoError(t, lease.Unlock(t.Context()))
	_, ok, err = open(t, dir).TryLock(t.Context(), "k")
	require.NoError(t, err)
	require.True(t, ok)
}

func TestAnyKeyHasALockOfItsOwn(t *testing.T) {
	s, dir := fresh(t)
	keys := []string{"", "k", "K", "../k", "/k", "a/b", "a\x00b", ".", "..", "*", "\xff", strings.Repeat("k", 1000), strings.Repeat("k", 1001)}
	leases := make([]requestforge.Lease, len(keys))
	for i, key := range keys {
		lease, ok, err := s.TryLock(t.Context(), key)
		require.NoError(t, err, "%q", key)
		require.True(t, ok, "%q", key)
		leases[i] = lease
	}
	for _, key := range keys {
		_, ok, err := s.TryLock(t.Context(), key)
		require.NoError(t, err, "%q", key)
		require.False(t, ok, "%q", key)
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, len(keys))
	for _, lease := range leases {
		require.NoError(t, lease.Unlock(t.Context()))
	}
}

// bulk makes records so large that most of a save is writing.
var bulk = strings.Repeat("0123456789abcdef", 1<<11)

// childSave saves until it is killed.
func childSave(dir string) error {
	s, err := filestorage.New(dir)
	if err != nil {
		return err
	}
	entries, err := s.Load(context.Background(), "k")
	if err != nil {
		return err
	}
	for seen := stamp(entries[0]); ; {
		e, err := s.Save(context.Background(), "k", record("k", fmt.Sprint(seen, bulk)), seen)
		if err != nil {
			return err
		}
		seen = stamp(e)
		fmt.Println(seen)
	}
}

func TestAKilledProcessLeavesAWholeFile(t *testing.T) {
	s, dir := fresh(t)
	for round := range 12 {
		p := start(t, "save", dir)
		var saved uint64
		for range 1 + round%4 {
			_, err := fmt.Sscan(p.line(t), &saved)
			require.NoError(t, err)
		}
		require.NoError(t, p.Process.Kill())
		require.Error(t, p.Wait())

		e := load(t, s, "k")
		require.GreaterOrEqual(t, stamp(e), saved, "what Save returned is there")
		require.True(t, strings.HasSuffix(e.Record.Token.AccessToken, bulk), "whole")
		next := save(t, s, record("k", "next"+bulk), stamp(e))
		require.Greater(t, stamp(next), stamp(e))
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 2, "the file and its lock: what was left half-written is gone")
}

// run is one run of a tool: it returns the token it got and how many logins
// that took.
func run(t *testing.T, s requestforge.Storage) (token string, logins int) {
	t.Helper()
	var n atomic.Int32
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		KeyPrefix:      "test",
		Storage:        s,
		StorageTimeout: time.Minute, // the machine may be busy
		Steps: []requestforge.Step{{Name: "user", Identity: "test", Fetcher: requestforge.FetcherFunc(
			func(context.Context, requestforge.Input) (*requestforge.Token, error) {
				n.Add(1)
				return &requestforge.Token{
					AccessToken: "hunter2-access~", RefreshToken: "hunter2-refresh~",
					Expiry: time.Now().Add(time.Hour), Extra: map[string]any{"id": "hunter2-extra~"},
				}, nil
			})}},
	})
	require.NoError(t, err)
	tok, err := p.Token(t.Context())
	require.NoError(t, err)
	return tok.AccessToken, int(n.Load())
}

func TestSecondRunNeedsNoLogin(t *testing.T) {
	_, dir := fresh(t)
	for i, want := range []int{1, 0, 0} {
		token, logins := run(t, open(t, dir))
		require.Equal(t, "hunter2-access~", token)
		require.Equal(t, want, logins, "run %d", i+1)
	}
}

func TestEncryptedFileShowsNoSecret(t *testing.T) {
	_, dir := fresh(t)
	_, logins := run(t, encrypted(t, open(t, dir)))
	require.Equal(t, 1, logins)
	_, logins = run(t, encrypted(t, open(t, dir)))
	require.Equal(t, 0, logins)

	// Whatever file it may be in, and however often it was encoded.
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	var dump []byte
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(dir, f.Name()))
		require.NoError(t, err)
		dump = append(dump, content...)
	}
	require.True(t, inside(dump, "test:user"), "the search finds what is there")
	for _, secret := range []string{"hunter2-access~", "hunter2-refresh~", "hunter2-extra~", "hunter2"} {
		require.False(t, inside(dump, secret), secret)
	}
}

// inside reports whether s is in dump, or in anything there that decodes from
// base64, to any depth.
func inside(dump []byte, s string) bool {
	if bytes.Contains(dump, []byte(s)) {
		return true
	}
	for _, word := range bytes.FieldsFunc(dump, func(r rune) bool { return strings.ContainsRune(`"{}[]:,`+"\n ", r) }) {
		if inner, err := base64.StdEncoding.DecodeString(string(word)); err == nil && len(inner) > 0 && inside(inner, s) {
			return true
		}
	}
	return false
}

func TestDamagedFileIsAnErrorWithoutContentAndIsReplaced(t *testing.T) {
	// A file with the right sum.
	whole := func(body string) string {
		return fmt.Sprintf("requestforge tokens 2 %x\n%s", sha256.Sum256([]byte(body)), body)
	}
	const item = `{"key":"aw==","record":null,"stamp":0,"mark":4711,"until":0}`
	good := whole(`{"entries":[` + item + `]}`)
	flipped := []byte(good)
	flipped[len(flipped)/2] ^= 1
	for name, content := range map[string]string{
		"empty":            "",
		"text":             "hunter2 was here\n",
		"zeros":            strings.Repeat("\x00", 100),
		"header only":      good[:strings.Index(good, "\n")+1],
		"no line":          good[:40],
		"cut":              good[:len(good)-1],
		"a bit":            string(flipped),
		"trailing text":    good + "hunter2",
		"other digits":     strings.Replace(good, "4711", "4712", 1),
		"JSON and text":    whole(`{"entries":[` + item + `]}hunter2`),
		"no JSON":          whole("hunter2"),
		"unknown field":    whole(`{"hunter2":1}`),
		"a key twice":      whole(`{"entries":[` + item + `,` + item + `]}`),
		"record, no stamp": whole(`{"entries":[{"key":"aw==","record":"aHVudGVyMg==","stamp":0}]}`),
		"stamp, no record": whole(`{"entries":[{"key":"aw==","record":null,"stamp":4711}]}`),
		"stamp of 2^53":    whole(`{"entries":[{"key":"aw==","record":"aHVudGVyMg==","stamp":9007199254740992}]}`),
		"mark of 2^53":     whole(`{"entries":[{"key":"aw==","mark":9007199254740992}]}`),
		"negative mark":    whole(`{"entries":[{"key":"aw==","mark":-4711}]}`),
		"gone is 2^53":     whole(`{"entries":[{"key":"aw==","gone":9007199254740992,"gone_until":1}]}`),
		"gone, no end":     whole(`{"entries":[{"key":"aw==","gone":4711}]}`),
		"end, not gone":    whole(`{"entries":[{"key":"aw==","gone_until":4711}]}`),
		"gone and stamp":   whole(`{"entries":[{"key":"aw==","record":"aHVudGVyMg==","stamp":4711,"gone":4711,"gone_until":1}]}`),
		"too large":        "",
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := fresh(t)
			spoil := func() {
				require.NoError(t, os.MkdirAll(dir, 0o700))
				require.NoError(t, os.WriteFile(data(dir), []byte(content), 0o600))
				if name == "too large" {
					require.NoError(t, os.Truncate(data(dir), 16<<20+1))
				}
			}
			spoil()
			_, err := s.Load(t.Context(), "k")
			require.ErrorContains(t, err, data(dir))
			if name == "too large" {
				require.ErrorContains(t, err, "larger than 16 MiB")
			}
			for _, secret := range []string{"hunter2", "4711", "aHVudGVyMg"} {
				// A folder of a test has a random number in its name.
				require.NotContains(t, strings.ReplaceAll(err.Error(), dir, "DIR"), secret)
			}
			token, logins := run(t, s)
			require.Equal(t, "hunter2-access~", token, "the request is served")
			require.Equal(t, 1, logins)
			_, logins = run(t, s)
			require.Equal(t, 0, logins, "the file was replaced")

			spoil()
			require.NoError(t, s.Revoke(t.Context(), "k", 3))
			require.EqualValues(t, 3, load(t, s, "k").Mark)

			spoil()
			require.Equal(t, requestforge.Entry{Gone: 8}, remove(t, s, "k", 7))
			content, err := os.ReadFile(data(dir))
			require.NoError(t, err)
			require.NotContains(t, string(content), "hunter2", "a logout leaves nothing, garbage included")
		})
	}
}

func TestFileOfAnotherVersionIsLeftAlone(t *testing.T) {
	s, dir := fresh(t)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	const content = "requestforge tokens 3 hunter2"
	require.NoError(t, os.WriteFile(data(dir), []byte(content), 0o600))
	requireRefused(t, s, data(dir), "version")
	_, logins := run(t, s)
	require.Equal(t, 1, logins, "and the request is served")
	got, err := os.ReadFile(data(dir))
	require.NoError(t, err)
	require.Equal(t, content, string(got))
}

// The tokens of version 1 stay, so that an update of the tool is no logout; and a
// program of that version doesn't get to drop tombstones.
func TestFileWithoutTombstonesIsReadAndReplaced(t *testing.T) {
	s, dir := fresh(t)
	r, err := record("k", "old").MarshalBinary()
	require.NoError(t, err)
	body := `{"entries":[{"key":"aw==","record":"` + base64.StdEncoding.EncodeToString(r) + `","stamp":3,"mark":2,"until":0}]}`
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(data(dir), fmt.Appendf(nil, "requestforge tokens 1 %x\n%s", sha256.Sum256([]byte(body)), body), 0o600))
	e := load(t, s, "k")
	require.Equal(t, "old", e.Record.Token.AccessToken)
	require.EqualValues(t, 3, e.Version())
	require.EqualValues(t, 2, e.Mark)

	require.Equal(t, requestforge.Entry{Mark: 2, Gone: 4}, remove(t, s, "k", 3))
	content, err := os.ReadFile(data(dir))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(content), "requestforge tokens 2 "))
	require.Equal(t, requestforge.Entry{Mark: 2, Gone: 4}, load(t, s, "k"))
}

func TestRecordOfAnotherVersionIsLeftAlone(t *testing.T) {
	s, dir := fresh(t)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	body := `{"entries":[{"key":"aw==","record":"` + base64.StdEncoding.EncodeToString([]byte("rf9:hunter2")) + `","stamp":1}]}`
	content := fmt.Sprintf("requestforge tokens 2 %x\n%s", sha256.Sum256([]byte(body)), body)
	require.NoError(t, os.WriteFile(data(dir), []byte(content), 0o600))
	_, loadErr := s.Load(t.Context(), "k")
	_, saveErr := s.Save(t.Context(), "k", record("k", "a"), 0)
	for _, err := range []error{loadErr, saveErr} {
		require.ErrorContains(t, err, data(dir))
		require.ErrorContains(t, err, "version")
		require.NotContains(t, err.Error(), "hunter2")
	}
	require.Equal(t, requestforge.Entry{}, load(t, s, "other"), "other keys are none of its business")
	require.Equal(t, requestforge.Entry{Gone: 2}, remove(t, s, "k", 1), "a logout ends it unread")
}

// requireRefused checks that every call but TryLock is an error that names
// path and says why, without anything of a token.
func requireRefused(t *testing.T, s requestforge.Storage, path, why string) {
	t.Helper()
	ctx := t.Context()
	_, loadErr := s.Load(ctx, "k")
	_, saveErr := s.Save(ctx, "k", record("k", "hunter2"), 0)
	_, deleteErr := s.Delete(ctx, "k", 0)
	for _, err := range []error{loadErr, saveErr, s.Revoke(ctx, "k", 1), deleteErr} {
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, why)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestExpiredRecordsAreDroppedAfterKeep(t *testing.T) {
	s, _ := fresh(t)
	put := func(key string, expiry time.Time, keep time.Duration) {
		r := record(key, key)
		r.Token.Expiry, r.Keep = expiry, keep
		e, err := s.Save(t.Context(), key, r, 0)
		require.NoError(t, err)
		require.NotNil(t, e.Record, "not dropped by its own save")
		require.NoError(t, s.Revoke(t.Context(), key, 1))
	}
	past := time.Now().Add(-time.Hour)
	put("past", past, 30*time.Minute)
	put("long past", time.Unix(-2, 0), time.Second) // 0 is no time
	put("kept", past, 2*time.Hour)
	put("forever", past, 0)
	put("no expiry", time.Time{}, time.Second)
	put("live", time.Now().Add(time.Hour), time.Second)
	save(t, s, record("k", "k"), 0)
	for _, key := range []string{"past", "long past"} {
		require.Equal(t, requestforge.Entry{}, load(t, s, key), "%s: mark and record are gone", key)
	}
	for _, key := range []string{"kept", "forever", "no expiry", "live"} {
		e := load(t, s, key)
		require.NotNil(t, e.Record, key)
		require.EqualValues(t, 1, e.Mark, key)
	}
}

// A tombstone is kept as long as a refresh token from before the logout may be of use
// to somebody, and no longer: the file doesn't grow with every account.
func TestTombstonesAreDroppedAfterTheirLife(t *testing.T) {
	const day = 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		s, dir := fresh(t)
		put := func(key string, expiry, keep time.Duration, seen uint64) requestforge.Entry {
			r := record(key, key)
			r.Token.Expiry, r.Keep = time.Now().Add(expiry), keep
			return save(t, s, r, seen)
		}
		remove(t, s, "nothing", 5)
		remove(t, s, "short", put("short", time.Hour, day, 0).Version())
		remove(t, s, "long", put("long", -10*day, 60*day, 0).Version())
		remove(t, s, "far", put("far", 80*day, 10*day, 0).Version())
		remove(t, s, "useless", put("useless", -time.Hour, time.Second, 0).Version())
		remove(t, s, "twice", put("twice", -time.Hour, 60*day, 0).Version())
		put("later", -time.Hour, time.Second, remove(t, s, "later", 0).Version())
		put("live", 100*day, day, remove(t, s, "live", 0).Version())
		gone := load(t, s, "twice").Gone

		lives := map[string]int{
			"nothing": 30, "short": 30, "useless": 30, "later": 30,
			"long": 60, "twice": 60, "far": 90, "live": 101,
		}
		for at := range 103 {
			put("prunes", -time.Hour, 0, load(t, s, "prunes").Version())
			content, err := os.ReadFile(data(dir))
			require.NoError(t, err)
			for key, life := range lives {
				if at == life {
					continue // some seconds more or less
				}
				kept := at < life
				require.Equal(t, kept, load(t, s, key).Gone != 0, "%s after %d days", key, at)
				require.Equal(t, kept, inside(content, key), "%s after %d days", key, at)
			}
			if at == 1 { // a second logout doesn't shorten what is left of the first
				gone = remove(t, s, "twice", gone).Gone
			}
			time.Sleep(day)
		}
	})
}

// A mark without a record goes with the tombstones.
func TestMarksWithoutARecordAreDroppedAfterAMonth(t *testing.T) {
	const day = 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s, _ := fresh(t)
		put := func(key string) {
			require.NoError(t, s.Revoke(t.Context(), key, load(t, s, key).Mark+1))
		}
		put("mark")
		remove(t, s, "tombstone", 0)
		save(t, s, record("record", "x"), 0)
		put("record")
		put("saved later")
		save(t, s, record("saved later", "x"), 0)
		time.Sleep(20 * day)
		put("tombstone")
		for _, step := range []struct {
			at     time.Duration // from the begin
			marked []string
		}{
			{30*day - time.Minute, []string{"mark", "tombstone", "record", "saved later"}},
			{30*day + time.Minute, []string{"tombstone", "record", "saved later"}},
			{50*day - time.Minute, []string{"tombstone", "record", "saved later"}},
			{50*day + time.Minute, []string{"record", "saved later"}},
			{400 * day, []string{"record", "saved later"}},
		} {
			time.Sleep(time.Until(begin.Add(step.at)))
			put("prunes")
			for _, key := range []string{"mark", "tombstone", "record", "saved later"} {
				require.Equal(t, slices.Contains(step.marked, key), load(t, s, key).Mark != 0, "%s after %v", key, step.at)
			}
		}
	})
}

// A file is rewritten as a whole, so there is an end to what it holds.
func TestAFileIsForFewUsers(t *testing.T) {
	s, dir := fresh(t)
	// A thousand writes would take their time.
	var entries []string
	for i := range 997 {
		key := base64.StdEncoding.EncodeToString(fmt.Append(nil, "p:user/", i))
		entries = append(entries, fmt.Sprintf(`{"key":%q,"record":null,"stamp":0,"mark":1,"until":0,"gone":0,"gone_until":0}`, key))
	}
	body := `{"entries":[` + strings.Join(entries, ",") + `]}`
	content := fmt.Sprintf("requestforge tokens 2 %x\n%s", sha256.Sum256([]byte(body)), body)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(data(dir), []byte(content), 0o600))

	dropped := record("p:expired", "x")
	dropped.Token.Expiry, dropped.Keep = time.Now().Add(-2*time.Hour), 3*time.Hour // not yet
	save(t, s, dropped, 0)
	save(t, s, record("p:user/1", "x"), 0)
	require.NoError(t, s.Revoke(t.Context(), "p:mark", 1))
	remove(t, s, "p:tombstone", 0)
	before, err := os.ReadFile(data(dir))
	require.NoError(t, err)
	_, saveErr := s.Save(t.Context(), "p:user/new", record("p:user/new", "hunter2"), 0)
	_, deleteErr := s.Delete(t.Context(), "p:user/new", 0)
	for _, err := range []error{saveErr, deleteErr, s.Revoke(t.Context(), "p:user/new", 1)} {
		require.ErrorContains(t, err, data(dir))
		require.ErrorContains(t, err, "1000 keys")
		require.ErrorContains(t, err, "redisstorage")
		require.NotContains(t, err.Error(), "hunter2")
	}
	after, err := os.ReadFile(data(dir))
	require.NoError(t, err)
	require.True(t, bytes.Equal(before, after))
	require.Equal(t, requestforge.Entry{}, load(t, s, "p:user/new"))

	// Those that are there go on.
	saved := save(t, s, record("p:user/1", "second"), 2)
	require.NoError(t, s.Revoke(t.Context(), "p:user/1", 2))
	remove(t, s, "p:user/1", saved.Version())

	// There is room as soon as something may be dropped.
	dropped.Keep = time.Minute
	save(t, s, dropped, 1)
	save(t, s, record("p:user/new", "x"), 0)
	require.Equal(t, requestforge.Entry{}, load(t, s, dropped.Key))
	_, err = s.Save(t.Context(), "p:user/more", record("p:user/more", "x"), 0)
	require.ErrorContains(t, err, "1000 keys")
}

// However many steps and users are locked, one after another, no files pile up; nor is
// there a moment in which two hold a lock because its file goes.
func TestFilesOfLocksGoWithTheirLeases(t *testing.T) {
	const keys, callers, leases = 3, 8, 200
	s, dir := fresh(t)
	other, err := filestorage.New(dir)
	require.NoError(t, err)
	var holders [keys]atomic.Int32
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			s := []*filestorage.Storage{s, other}[i%2]
			for n := 0; n < leases; {
				k := n % keys
				lease, ok, err := s.TryLock(t.Context(), fmt.Sprint("p:step/", k))
				if err != nil {
					t.Error(err)
					return
				}
				if !ok {
					runtime.Gosched()
					continue
				}
				if now := holders[k].Add(1); now != 1 {
					t.Errorf("%d hold a lock", now)
				}
				runtime.Gosched()
				holders[k].Add(-1)
				if err := errors.Join(lease.Unlock(t.Context()), lease.Unlock(t.Context())); err != nil {
					t.Error(err)
				}
				n++
			}
		})
	}
	wg.Wait()
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files)

	// Somebody has removed a file; the lease of it leaves the next one's alone.
	early, _, err := s.TryLock(t.Context(), "p:step")
	require.NoError(t, err)
	files, err = os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.NoError(t, os.Remove(filepath.Join(dir, files[0].Name())))
	late, ok, err := s.TryLock(t.Context(), "p:step")
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, early.Unlock(t.Context()))
	_, ok, err = s.TryLock(t.Context(), "p:step")
	require.NoError(t, err)
	require.False(t, ok)
	require.NoError(t, late.Unlock(t.Context()))
}

func TestACallWaitsForAStoppedProcessNoLongerThanItsContext(t *testing.T) {
	s, dir := fresh(t)
	save(t, s, record("k", "first"), 0)
	path := data(dir) + ".lock"
	stopped := flock.New(path)
	ok, err := stopped.TryLock()
	require.NoError(t, err)
	require.True(t, ok)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	errs := make(chan error, 4)
	for range cap(errs) { // the lock has one who waits for it, and who wait for their turn
		go func() {
			_, err := s.Save(ctx, "k", record("k", "second"), 1)
			errs <- err
		}()
	}
	for range cap(errs) {
		err := <-errs
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, path)
	}
	lease, ok, err := s.TryLock(t.Context(), "k")
	require.NoError(t, err)
	require.True(t, ok, "the locks of steps are others")
	require.NoError(t, lease.Unlock(t.Context()))

	require.NoError(t, stopped.Unlock())
	require.Equal(t, "second", save(t, s, record("k", "second"), 1).Record.Token.AccessToken)
}

func TestADirectoryThatIsRemovedComesBack(t *testing.T) {
	s, dir := fresh(t)
	save(t, s, record("k", "first"), 0)
	lease, _, err := s.TryLock(t.Context(), "k")
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(dir))
	require.Equal(t, requestforge.Entry{}, load(t, s, "k"))
	require.NoDirExists(t, dir, "there is nothing to keep")
	require.NoError(t, lease.Unlock(t.Context()))
	require.EqualValues(t, 1, save(t, s, record("k", "second"), 7).Version(), "whatever was seen is lost")
	require.Equal(t, "second", load(t, open(t, dir), "k").Record.Token.AccessToken)

	require.NoError(t, os.RemoveAll(dir))
	require.Equal(t, requestforge.Entry{Gone: 2}, remove(t, s, "k", 1), "others may hold what is lost")
	require.Equal(t, requestforge.Entry{Gone: 2}, load(t, open(t, dir), "k"))
}

func TestNewSaysWhatIsWrongWithThePath(t *testing.T) {
	dir := private(t)
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, test := range map[string]struct{ path, want string }{
		"empty":        {"", "empty"},
		"zero byte":    {dir + "\x00", "zero byte"},
		"a file":       {file, file + " is not a directory"},
		"below a file": {filepath.Join(file, "tokens"), file},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := filestorage.New(test.path)
			require.Nil(t, s)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestNewTouchesNothing(t *testing.T) {
	s, dir := fresh(t)
	require.Equal(t, requestforge.Entry{}, load(t, s, "k"))
	require.NoDirExists(t, filepath.Dir(dir))
}

func TestARelativePathIsTakenAtOnce(t *testing.T) {
	dir := private(t)
	t.Chdir(dir)
	s := open(t, "tokens")
	t.Chdir(t.TempDir())
	save(t, s, record("k", "a"), 0)
	require.FileExists(t, data(filepath.Join(dir, "tokens")))
}

func TestDefaultPathIsInTheUsersCache(t *testing.T) {
	home := t.TempDir()
	for _, env := range []string{"HOME", "XDG_CACHE_HOME", "LocalAppData"} {
		t.Setenv(env, home)
	}
	path, err := filestorage.DefaultPath("my-tool")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(path, home))
	require.True(t, strings.HasSuffix(path, filepath.Join("my-tool", "tokens")))
	for _, app := range []string{"", ".", "..", "a/b", `a\b`, "../a", "a\x00"} {
		_, err := filestorage.DefaultPath(app)
		require.ErrorContains(t, err, "name of a program", "%q", app)
	}
	for _, env := range []string{"HOME", "XDG_CACHE_HOME", "LocalAppData"} {
		t.Setenv(env, "")
	}
	_, err = filestorage.DefaultPath("my-tool")
	require.Error(t, err)
}
