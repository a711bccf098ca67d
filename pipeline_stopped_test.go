//go:build unix

package requestforge_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// stoppedVariable makes a process of this test's binary the one that is stopped.
const stoppedVariable = "REQUESTFORGE_TEST_STOPPED"

// A process that was stopped (a frozen container, a suspended laptop, SIGSTOP)
// hands out no token that has expired meanwhile.
func TestPipelineStoppedProcessHandsOutNothingExpired(t *testing.T) {
	if os.Getenv(stoppedVariable) != "" {
		askForEver(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestPipelineStoppedProcessHandsOutNothingExpired$")
	cmd.Env = append(os.Environ(), stoppedVariable+"=1")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()

	lines := bufio.NewScanner(out)
	for range 3 {
		// The process says when its token expires, and is stopped until then.
		require.True(t, lines.Scan(), "the process has ended")
		var expiry int64
		_, err := fmt.Sscanf(lines.Text(), "expires %d", &expiry)
		require.NoError(t, err, lines.Text())
		require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
		time.Sleep(time.Until(time.Unix(0, expiry)))
		require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
		_, err = fmt.Fprintln(in, "go on")
		require.NoError(t, err)
		require.True(t, lines.Scan(), "the process has ended")
		require.Equal(t, "nothing expired", lines.Text())
	}
}

// askForEver asks for tokens without a pause, says when each new one expires, and
// whether it got an expired one. It ends with its standard input.
func askForEver(t *testing.T) {
	p := pipeline(t, rf.PipelineConfig{
		RefreshAhead: -1,
		Steps: []rf.Step{{Name: "user", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			return &rf.Token{AccessToken: fmt.Sprint(time.Now().UnixNano()), Expiry: time.Now().Add(time.Second)}, nil
		})}},
	})
	goOn := bufio.NewScanner(os.Stdin)
	for {
		tok, err := p.Token(t.Context())
		require.NoError(t, err)
		fmt.Println("expires", tok.Expiry.UnixNano())
		for first := tok; tok == first; {
			before := time.Now()
			if tok, err = p.Token(t.Context()); err != nil || !before.Before(tok.Expiry) {
				fmt.Println("at", before, "came", tok, err)
				return
			}
		}
		if !goOn.Scan() {
			return
		}
		fmt.Println("nothing expired")
	}
}
