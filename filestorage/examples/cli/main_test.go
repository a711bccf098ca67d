package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The demo runs the test binary as the tool.
func TestMain(m *testing.M) {
	for _, arg := range os.Args {
		if arg == "-server" {
			main()
			return
		}
	}
	os.Exit(m.Run())
}

func TestLoginLastsFromRunToRunUntilLogout(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700)) // whatever the umask
	t.Setenv("TMPDIR", dir)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else each run under -race takes a second to end
	var out bytes.Buffer
	require.NoError(t, demo(t.Context(), &out), out.String())
	require.True(t, strings.HasSuffix(out.String(), "one password, and nothing left at the server\n"), out.String())
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	require.Empty(t, left, "it cleans up")
}

// inProcess is a transport to a server in this process, so that its time can be
// synctest's.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result(), nil
}

// tester runs the tool's commands in this process.
type tester struct {
	api *api
	dir string
}

func newTester(t *testing.T) *tester {
	return &tester{newAPI(), filepath.Join(t.TempDir(), "tokens")}
}

// run returns what the command says, and how many requests it has sent.
func (c *tester) run(t *testing.T, command string) (string, int, error) {
	t.Helper()
	before, _ := c.api.seen()
	var out bytes.Buffer
	err := tool(t.Context(), strings.NewReader("burrow\n"), &out, &http.Client{Transport: inProcess{c.api}}, "https://api.test", c.dir, command)
	after, _ := c.api.seen()
	return out.String(), after - before, err
}

func TestStatusAsksNobodyWhateverTheFileHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t)
		said, n, err := c.run(t, "status")
		require.NoError(t, err)
		require.Equal(t, "not logged in\n", said)
		require.Zero(t, n)

		_, n, err = c.run(t, "login")
		require.NoError(t, err)
		require.Equal(t, 2, n)
		end := time.Now().Add(8 * time.Hour).Format(time.DateTime)
		said, n, err = c.run(t, "status")
		require.NoError(t, err)
		require.Equal(t, "logged in as gopher until "+end+", or longer if used\n", said)
		require.Zero(t, n)

		time.Sleep(9 * time.Hour)
		for range 2 { // status takes nothing from the next command
			said, n, err = c.run(t, "status")
			require.NoError(t, err)
			require.Equal(t, "logged in as gopher until "+end+"; the next command that needs it tries to renew it\n", said)
			require.Zero(t, n)
		}
		said, n, err = c.run(t, "whoami")
		require.NoError(t, err)
		require.Equal(t, "hello gopher\n", said)
		require.Equal(t, 3, n, "the session and the API's token, renewed, and the call")
	})
}

// A server that can't be reached keeps the session; this machine has forgotten the tokens.
func TestLogoutWithoutTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t)
		_, _, err := c.run(t, "login")
		require.NoError(t, err)
		api := c.api
		c.api = newAPI()
		c.api.mux = http.ServeMux{}
		c.api.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		_, _, err = c.run(t, "logout")
		require.ErrorContains(t, err, "logged out here, but the server may not know: ")
		_, sessions := api.seen()
		require.Equal(t, 1, sessions)
		c.api = api
		said, n, err := c.run(t, "status")
		require.NoError(t, err)
		require.Equal(t, "not logged in\n", said)
		require.Zero(t, n)
	})
}

func TestLoginEndsTheSessionFromBefore(t *testing.T) {
	c := newTester(t)
	for range 3 {
		_, _, err := c.run(t, "login")
		require.NoError(t, err)
		_, sessions := c.api.seen()
		require.Equal(t, 1, sessions)
	}
	require.Equal(t, 3, c.api.logins)
}

func TestUnknownCommandIsAnError(t *testing.T) {
	_, n, err := newTester(t).run(t, "log-out")
	require.ErrorContains(t, err, `there is no command "log-out"`)
	require.Zero(t, n)
}
