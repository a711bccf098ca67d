// A redis-server process. Sentinel and Cluster consist of several servers and have
// files of their own.

// Package redistest starts real Redis servers on free ports of loopback, and kills,
// stops and restarts the servers. A server ends with Close, or, on Linux, with the
// process that started the server, and not otherwise.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Install is the command that installs a missing redis-server.
const Install = "apt-get install -y redis-server"

// ready bounds the time for servers to start, or to agree. A busy machine needs some
// time; a machine that needs longer is broken.
const ready = 60 * time.Second

// Node is a server. The methods are for one goroutine at a time.
type Node struct {
	Addr string // host and port, the same after Restart

	dir  string
	args []string

	client *redis.Client

	mu   sync.Mutex
	proc *exec.Cmd     // guarded by mu
	gone chan struct{} // closed when proc has ended; guarded by mu
}

// Start starts a server that keeps no data on disk. args are further arguments for
// redis-server: "--maxmemory", "10mb". The directory must exist.
func Start(dir string, args ...string) (*Node, error) {
	return start(dir, func(n *Node, port int) error {
		n.args = inMemory(n, port, args...)
		return nil
	})
}

// inMemory returns the arguments of a server that keeps no data on disk.
func inMemory(n *Node, port int, args ...string) []string {
	return append([]string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", n.dir,
		"--save", "", "--appendonly", "no", "--daemonize", "no", "--repl-diskless-sync-delay", "0",
	}, args...)
}

// start starts a server that configure has prepared. Another process may take a port
// between finding and using the port, so start tries several ports.
func start(dir string, configure func(n *Node, port int) error) (*Node, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, fmt.Errorf("redistest: there is no redis-server; install it with: %s", Install)
	}
	var last error
	for range 5 {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		sub, err := os.MkdirTemp(dir, "redis-")
		if err != nil {
			return nil, err
		}
		n := &Node{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), dir: sub}
		if err := configure(n, port); err != nil {
			return nil, err
		}
		n.client = redis.NewClient(&redis.Options{Addr: n.Addr, MaxRetries: -1, Protocol: 2, ContextTimeoutEnabled: true, DialerRetries: 1})
		if last = n.Restart(); last == nil {
			return n, nil
		}
		n.Close()
	}
	return nil, last
}

// freePort returns a port without a listener, below the ports that the system gives to
// outgoing connections, so that the port is still free after the server was killed.
func freePort() (int, error) {
	for range 100 {
		port := 15000 + rand.IntN(15000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("redistest: no port is free")
}

// Restart starts the server again after Kill, and waits until the server answers.
func (n *Node) Restart() error {
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("redis-server", n.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() {
		cmd.Wait()
		close(gone)
	}()
	n.mu.Lock()
	n.proc, n.gone = cmd, gone
	n.mu.Unlock()
	err = until("the server answers", func(ctx context.Context) error {
		select {
		case <-gone:
			return fatal{fmt.Errorf("redis-server ended: %s", n.lastWords())}
		default:
			return n.client.Ping(ctx).Err()
		}
	})
	if err != nil {
		n.Kill()
	}
	return err
}

// lastWords is the end of the server's log.
func (n *Node) lastWords() string {
	text, _ := os.ReadFile(filepath.Join(n.dir, "log"))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}

// Kill ends the server without a warning, and waits until the process is gone.
func (n *Node) Kill() {
	n.signal(syscall.SIGKILL)
	n.mu.Lock()
	gone := n.gone
	n.mu.Unlock()
	if gone != nil {
		<-gone
	}
}

// Stop suspends the server: the server answers nothing, while the connections stay.
func (n *Node) Stop() { n.signal(syscall.SIGSTOP) }

// Resume lets a stopped server go on.
func (n *Node) Resume() { n.signal(syscall.SIGCONT) }

func (n *Node) signal(sig os.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc == nil {
		return
	}
	select {
	case <-n.gone:
	default:
		n.proc.Process.Signal(sig)
	}
}

// Client returns a client of this very server, to inspect and change the server. The
// client tries once.
func (n *Node) Client() *redis.Client { return n.client }

// Close ends the server.
func (n *Node) Close() error {
	n.Kill()
	return n.client.Close()
}

// fatal ends until at once.
type fatal struct{ error }

// until calls try until try succeeds.
func until(what string, try func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	for {
		once, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := try(once)
		cancel()
		if err == nil {
			return nil
		}
		var f fatal
		if errors.As(err, &f) || ctx.Err() != nil {
			return fmt.Errorf("redistest: waiting until %s: %w", what, err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// closeAll closes servers, and returns the errors.
func closeAll[C io.Closer](all []C) error {
	var errs []error
	for _, c := range all {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
