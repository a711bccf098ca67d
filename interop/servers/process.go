// What the servers that are programs need to run as processes of their own.

package servers

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// setup is what installs the programs.
const setup = "make interop, or interop/setup.sh"

// folder is where the sources of this package are: scripts lie beside them.
func folder() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(file)
}

// lookPath is exec.LookPath with an error that says what to do.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w; it is installed by %s", err, setup)
	}
	return path, nil
}

// startProcess starts cmd, writes input to it and waits for a line of its
// output that ready accepts. It returns what ready made of the line, and how to
// end the process, which has to end by itself when its input does: so it ends
// too if this process dies. Without such a line the error has the last of what
// it printed.
func startProcess(ctx context.Context, cmd *exec.Cmd, input string, ready func(line string) (string, bool)) (found string, stop func() error, err error) {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close() // the process has its own, at whose end r ends
	if err != nil {
		r.Close()
		return "", nil, err
	}

	var printed tail
	foundc := make(chan string, 1)
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		defer cmd.Wait()
		defer r.Close()
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			if printed.add(lines.Text()) {
				if s, ok := ready(lines.Text()); ok {
					printed.end()
					foundc <- s
				}
			}
		}
		io.Copy(io.Discard, r) // what no Scanner takes for a line
	}()
	stop = func() error {
		stdin.Close()
		select {
		case <-exited:
			return nil
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			return fmt.Errorf("%s didn't end when its input did, and was killed", filepath.Base(cmd.Path))
		}
	}

	// If it is gone already, exited says so.
	io.WriteString(stdin, input)
	select {
	case found := <-foundc:
		return found, stop, nil
	case <-exited:
		err = fmt.Errorf("it ended: %v", cmd.ProcessState)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	stop()
	return "", nil, fmt.Errorf("%w; it printed:\n%s", err, printed.String())
}

// tail keeps the last lines of what a process prints, until it is ended.
type tail struct {
	mu    sync.Mutex
	lines []string
	ended bool
}

const tailLines = 20

// add reports whether t was still kept.
func (t *tail) add(line string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return false
	}
	if len(t.lines) == tailLines {
		t.lines = t.lines[1:]
	}
	t.lines = append(t.lines, line)
	return true
}

func (t *tail) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines, t.ended = nil, true
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}
