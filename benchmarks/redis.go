// Fifty processes of one service, which all start at once.

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/redisstorage"
)

var redisCases = suite{
	file:       "redis.txt",
	title:      "Many processes",
	benchmarks: []benchmark{{name: "ColdProcesses", open: coldProcesses}},
}

// The candidates of this case: the same stack, with and without a storage that
// the processes share.
const (
	shared = "stack+redis"
	alone  = "stack+nothing"
)

// replicaVariable is in the environment of a process that is to be one of
// many; it holds a replicaJob.
const replicaVariable = "REQUESTFORGE_BENCHMARK_REPLICA"

type replicaJob struct {
	Redis string // the server's socket
	Auth  string // the URL of the auth server
}

func coldProcesses(ctx context.Context, s scale) ([]candidate, func(), error) {
	dir, err := os.MkdirTemp("", "redis-")
	if err != nil {
		return nil, nil, err
	}
	auth := newAuthServer(herdLatency)
	ctx, cancel := context.WithCancel(ctx)
	var started []*exec.Cmd
	closeAll := func() {
		cancel() // which kills them
		for _, cmd := range started {
			cmd.Wait()
		}
		auth.Close()
		os.RemoveAll(dir)
	}
	server, socket, err := startRedis(ctx, dir)
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	started = append(started, server)
	fleet := make([]*process, s.processes)
	for i := range fleet {
		if fleet[i], err = startReplica(ctx, replicaJob{Redis: socket, Auth: auth.URL}); err != nil {
			closeAll()
			return nil, nil, err
		}
		started = append(started, fleet[i].cmd)
	}
	for _, p := range fleet {
		if err := p.wait(); err != nil { // until it has started
			closeAll()
			return nil, nil, err
		}
	}
	round := 0
	run := func(impl string) candidate {
		return candidate{impl: impl, run: func(int) (counts, error) {
			round++
			order := "alone"
			if impl == shared {
				order = fmt.Sprintf("round-%d", round)
			}
			before := auth.fetches.Load()
			start := time.Now()
			for _, p := range fleet {
				if _, err := fmt.Fprintln(p.in, order); err != nil {
					return nil, err
				}
			}
			for _, p := range fleet {
				if err := p.wait(); err != nil {
					return nil, err
				}
			}
			return counts{wall: float64(time.Since(start)), "fetches": float64(auth.fetches.Load() - before)}, nil
		}}
	}
	return []candidate{run(shared), run(alone)}, closeAll, nil
}

// startRedis starts a server that listens on a socket in dir, and on no port.
func startRedis(ctx context.Context, dir string) (*exec.Cmd, string, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, "", errors.New("there is no redis-server: install it with apt-get install redis-server")
	}
	socket := filepath.Join(dir, "redis.sock")
	cmd := exec.CommandContext(ctx, "redis-server", "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--appendonly", "no")
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	client := newRedisClient(socket)
	defer client.Close()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := client.Ping(ctx).Err()
		if err == nil {
			return cmd, socket, nil
		}
		if ctx.Err() != nil || time.Since(start) > time.Minute {
			cmd.Process.Kill()
			cmd.Wait()
			return nil, "", fmt.Errorf("redis-server doesn't answer: %w", err)
		}
	}
}

func newRedisClient(socket string) *redis.Client {
	return redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
}

// A process is one of the fleet. It says a line when it is done with what it
// was told: "ok", or what went wrong.
type process struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func startReplica(ctx context.Context, job replicaJob) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), replicaVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd, in, bufio.NewReader(out)}, cmd.Start()
}

func (p *process) wait() error {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("a process ended: %w", err)
	}
	if line = strings.TrimSpace(line); line != "ok" {
		return errors.New(line)
	}
	return nil
}

// replica is what such a process does. For each line that it reads it logs in
// from scratch and sends a request, with the key prefix that the line names,
// or "alone".
func replica(text string, in io.Reader, out io.Writer) error {
	var job replicaJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		return err
	}
	client := newRedisClient(job.Redis)
	defer client.Close()
	storage, err := redisstorage.New(client, redisstorage.Options{})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ok")
	for orders := bufio.NewScanner(in); orders.Scan(); {
		if err := coldStart(job, storage, orders.Text()); err != nil {
			fmt.Fprintln(out, err)
			continue
		}
		fmt.Fprintln(out, "ok")
	}
	return nil
}

func coldStart(job replicaJob, storage requestforge.Storage, order string) error {
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	auth := &authServer{URL: job.Auth, Client: &http.Client{Transport: base}}
	cfg := requestforge.PipelineConfig{
		Steps: steps(auth, chain([]string{"device", "app", "user"})...),
		// A machine with a core for each process wouldn't need so much.
		StorageTimeout: 10 * time.Second,
	}
	if order != "alone" {
		cfg.Storage, cfg.KeyPrefix = storage, order
	}
	p, err := requestforge.NewPipeline(cfg)
	if err != nil {
		return err
	}
	defer p.Close()
	t, err := requestforge.NewTransport(requestforge.Config{Base: guarded{auth}, Source: p, Origins: []string{origin}})
	if err != nil {
		return err
	}
	return client(t.RoundTrip).must(newRequest(context.Background(), origin))
}
