// Secrets in files that somebody else replaces.

package requestforge_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// What can't be a secret is an error that says why, names the file and nothing in it.
func TestSecretFileSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	dangling := filepath.Join(dir, "dangling")
	require.NoError(t, os.Symlink(filepath.Join(dir, "gone"), dangling))
	for name, c := range map[string]struct{ path, want string }{
		"no name":         {"", "no name"},
		"missing":         {filepath.Join(dir, "missing"), "no such file"},
		"a dangling link": {dangling, "no such file"},
		"empty":           {put("empty", ""), "is empty"},
		"blank":           {put("blank", " \n\t\r\n"), "is empty"},
		"a directory":     {dir, "is a directory"},
		"a pipe":          {pipe, "no regular file"},
		"too large":       {put("large", strings.Repeat("s3cret", 20_000)), "larger than 64 KiB"},
		"endless":         {"/dev/zero", "no regular file"},
		"no text":         {put("binary", "s3cret\xff\xfe"), "no text in UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			secret, err := rf.SecretFile(c.path)(t.Context())
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, c.path)
			require.NotContains(t, err.Error(), "s3cret")
			require.Empty(t, secret)

			auth := rf.ClientAuth{ID: "id", SecretFrom: rf.SecretFile(c.path)}
			_, err = auth.Current(t.Context())
			require.ErrorContains(t, err, "ClientAuth.SecretFrom: ")
			require.ErrorContains(t, err, c.want)
		})
	}
	for _, text := range []string{"s3cret", "s3cret\n", "\ufeffs3cret\r\n", " s3cret "} {
		secret, err := rf.SecretFile(put("good", text))(t.Context())
		require.NoError(t, err)
		require.Equal(t, "s3cret", secret)
	}
	most := strings.Repeat("x", 64<<10)
	secret, err := rf.SecretFile(put("most", most))(t.Context())
	require.NoError(t, err)
	require.Equal(t, most, secret)
}

// projected is a file as Kubernetes projects it: a link to "..data/token", where "..data"
// is a link to a directory of its own for each version.
type projected struct {
	t       *testing.T
	dir     string
	version int
}

func (p *projected) path() string { return filepath.Join(p.dir, "token") }

func (p *projected) set(secret string) {
	p.t.Helper()
	p.version++
	data, old := fmt.Sprint("..version-", p.version), fmt.Sprint("..version-", p.version-1)
	require.NoError(p.t, os.Mkdir(filepath.Join(p.dir, data), 0o700))
	require.NoError(p.t, os.WriteFile(filepath.Join(p.dir, data, "token"), []byte(secret+"\n"), 0o600))
	require.NoError(p.t, os.Symlink(data, filepath.Join(p.dir, "..new")))
	require.NoError(p.t, os.Rename(filepath.Join(p.dir, "..new"), filepath.Join(p.dir, "..data")))
	if p.version == 1 {
		require.NoError(p.t, os.Symlink("..data/token", p.path()))
	}
	require.NoError(p.t, os.RemoveAll(filepath.Join(p.dir, old)))
}

// A file that Kubernetes replaces while many read it is whole for each of them, and never
// older than what was there when the read began.
func TestSecretFileIsReplacedByKubernetes(t *testing.T) {
	p := &projected{t: t, dir: t.TempDir()}
	p.set("secret-1")
	read := rf.SecretFile(p.path())
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			last := 0
			for {
				secret, err := read(t.Context())
				var n int
				if _, bad := fmt.Sscanf(secret, "secret-%d", &n); err != nil || bad != nil || n < last {
					t.Errorf("%q after version %d: %v", secret, last, err)
					return
				}
				last = n
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := 2; i <= 300; i++ {
		p.set(fmt.Sprint("secret-", i))
		secret, err := read(t.Context())
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("secret-", i), secret)
	}
	close(stop)
	all.Wait()
}

// Whatever becomes of a secret's file, the last good token goes on being served, and the
// first fetch after the file is there again works.
func TestLastGoodTokenOutlivesItsSecretsFile(t *testing.T) {
	file := &projected{t: t, dir: t.TempDir()}
	file.set("right")
	server := &picky{secret: "right", life: 3600}
	step := server.step("app", &vault{})
	step.Fetcher.(*rf.HTTPFetcher).ClientAuth.SecretFrom = rf.SecretFile(file.path())
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}, FetchRetries: -1})
	mustToken(t, p)
	require.NoError(t, os.Remove(filepath.Join(file.dir, "..data")))
	require.Equal(t, "t1", mustToken(t, p).AccessToken)
	require.NoError(t, p.InvalidateStep(t.Context(), "app"))
	for range 3 {
		_, err := p.Token(t.Context())
		require.ErrorContains(t, err, `step "app"`)
		require.ErrorContains(t, err, "ClientAuth.SecretFrom: ")
	}
	asked, _ := server.state()
	require.Equal(t, 1, asked)
	file.set("right")
	require.Equal(t, "t2", mustToken(t, p).AccessToken)
}
