package redisstorage_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge/redisstorage"
)

// sharedVariable tells a process that runs a test of this package which Redis
// it shares with others.
const sharedVariable = "REQUESTFORGE_TEST_SHARED_REDIS"

// together runs one test of this package in several processes at once, on one
// Redis, and returns what each of them printed.
func together(t *testing.T, processes int, test, addr string) [][]byte {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	outs := make([]bytes.Buffer, processes)
	cmds := make([]*exec.Cmd, processes)
	for i := range cmds {
		cmds[i] = exec.Command(self, "-test.run=^"+test+"$", "-test.count=1")
		cmds[i].Env = append(os.Environ(), sharedVariable+"="+addr)
		cmds[i].Stdout, cmds[i].Stderr = &outs[i], &outs[i]
		require.NoError(t, cmds[i].Start())
	}
	said := make([][]byte, processes)
	for i, cmd := range cmds {
		err := cmd.Wait()
		said[i] = outs[i].Bytes()
		require.NoError(t, err, "%s", said[i])
		require.NotContains(t, string(said[i]), "no tests to run")
	}
	return said
}

func TestManyProcessesKeepTheRules(t *testing.T) {
	t.Parallel()
	together(t, 3, "TestStorageKeepsTheRules", startNode(t).Addr)
}

// Of all processes that save over what they have all seen one wins, and the
// stamps that are given out are each given once.
func TestManyProcessesOnOneKeyHaveOneWinnerEach(t *testing.T) {
	const key, calls, processes = "p:step", 200, 4
	if addr := os.Getenv(sharedVariable); addr != "" {
		s := newStorage(t, newClient(t, "", addr), redisstorage.Options{LeaseTTL: time.Minute})
		for i := range calls {
			entries, err := s.Load(t.Context(), key)
			require.NoError(t, err)
			var seen uint64
			if r := entries[0].Record; r != nil {
				seen = r.Stamp
			}
			if i%7 == 6 {
				require.NoError(t, s.Revoke(t.Context(), key, seen))
				continue
			}
			mine := fmt.Sprintf("%d of %d", i, os.Getpid())
			saved, err := s.Save(t.Context(), key, record(key, mine), seen)
			require.NoError(t, err)
			require.NotNil(t, saved.Record)
			require.Greater(t, saved.Record.Stamp, seen)
			if saved.Record.Token.AccessToken == mine {
				fmt.Println("won", saved.Record.Stamp)
			}
		}
		return
	}
	won := map[string]int{}
	for _, said := range together(t, processes, t.Name(), startNode(t).Addr) {
		for lines := bufio.NewScanner(bytes.NewReader(said)); lines.Scan(); {
			if stamp, ok := strings.CutPrefix(lines.Text(), "won "); ok {
				won[stamp]++
			}
		}
	}
	require.Greater(t, len(won), calls/2, "somebody wins each round")
	for stamp, n := range won {
		require.Equal(t, 1, n, "stamp %s was given out more than once", stamp)
	}
}
