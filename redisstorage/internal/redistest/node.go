// One redis-server process. Sentinel and Cluster are made of several, in files
// of their own.

// Package redistest starts real Redis servers on free ports of loopback, and
// kills, stops and restarts them. What it starts ends with Close, or with the
// process on Linux, and nothing else does.
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

// Install is the line that installs what is missing.
const Install = "apt-get install -y redis-server"

// ready is how long servers may take to start, or to agree. A machine that is
// busy takes a while; one that takes longer than this is broken.
const ready = 60 * time.Second

// Node is one server. Its methods are for one goroutine at a time.
type Node struct {
	Addr string // host and port, the same after Restart

	dir  string
	args []string

	client *redis.Client

	mu   sync.Mutex
	proc *exec.Cmd     // guarded by mu
	gone chan struct{} // closed when proc has ended; guarded by mu
}

// Start starts a server that keeps nothing on disk. Args are further ones for
// redis-server: "--maxmemory", "10mb". The directory must exist.
func Start(dir string, args ...string) (*Node, error) {
	return start(dir, func(n *Node, port int) error {
		n.args = append([]string{
			"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", n.dir,
			"--save", "", "--appendonly", "no", "--daemonize", "no", "--repl-diskless-sync-delay", "0",
		}, args...)
		return nil
	})
}

// start starts a server that configure has prepared. Somebody else may take a
// port between finding it and using it, so that it tries some.
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

// freePort returns a port that nobody listens on. It is below those that the
// system gives to outgoing connections, so that it is still free after the
// server was killed.
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

// Restart starts the server that Kill has ended, and waits until it answers.
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

// Kill ends the server without a warning, and waits until it is gone.
func (n *Node) Kill() {
	n.signal(syscall.SIGKILL)
	n.mu.Lock()
	gone := n.gone
	n.mu.Unlock()
	if gone != nil {
		<-gone
	}
}

// Stop stops the server: it answers nothing, while its connections stay.
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

// Client returns a client of this very server, for looking and changing things
// there. It tries once.
func (n *Node) Client() *redis.Client { return n.client }

// Close ends the server.
func (n *Node) Close() error {
	n.Kill()
	return n.client.Close()
}

// fatal ends until at once.
type fatal struct{ error }

// until calls try until it works.
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
