package redisstorage_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge/authtest"
)

// worker is an operating-system process that shares a storage with others.
type worker struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *json.Decoder
}

// startWorkers starts a process for each job, and waits until all are ready.
func startWorkers(t *testing.T, jobs ...job) []*worker {
	t.Helper()
	workers := make([]*worker, len(jobs))
	for i, j := range jobs {
		text, err := json.Marshal(j)
		require.NoError(t, err)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), jobVariable+"="+string(text))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		workers[i] = &worker{cmd, in, json.NewDecoder(bufio.NewReader(out))}
		t.Cleanup(func() {
			in.Close()
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
	for _, w := range workers {
		var r report
		require.NoError(t, w.answers.Decode(&r), "the worker didn't start")
	}
	return workers
}

// crew is n times the same job.
func crew(n int, j job) []job {
	jobs := make([]job, n)
	for i := range jobs {
		jobs[i] = j
	}
	return jobs
}

// begin gives w a phase; end returns what came of it, and false if w died.
func (w *worker) begin(t *testing.T, p phase) {
	t.Helper()
	require.NoError(t, json.NewEncoder(w.in).Encode(p))
}

func (w *worker) end() (report, bool) {
	var r report
	err := w.answers.Decode(&r)
	return r, err == nil
}

// begin gives all of them a phase.
func begin(t *testing.T, workers []*worker, p phase) {
	t.Helper()
	for _, w := range workers {
		w.begin(t, p)
	}
}

// end waits for all of them, which have to live, and adds up what they say.
func end(t *testing.T, workers []*worker) report {
	t.Helper()
	reports := make([]report, len(workers))
	alive := make([]bool, len(workers))
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { reports[i], alive[i] = w.end() })
	}
	wg.Wait()
	for i, ok := range alive {
		require.True(t, ok, "worker %d died", i)
	}
	return sum(reports...)
}

// died waits until w is dead.
func (w *worker) died(t *testing.T) {
	t.Helper()
	_, alive := w.end()
	require.False(t, alive, "the worker was to die")
}

// stopped waits until w has been stopped.
func (w *worker) stopped(t *testing.T) {
	t.Helper()
	eventually(t, "the worker is stopped", func() bool {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(w.cmd.Process.Pid, &status, syscall.WUNTRACED|syscall.WNOHANG, nil)
		return err == nil && pid == w.cmd.Process.Pid && status.Stopped()
	})
}

func startAuth(t *testing.T, j job) *authtest.Server {
	t.Helper()
	s := authtest.NewServer(loginSteps(j.Life, j.Rotate))
	t.Cleanup(s.Close)
	return s
}

// fetched is how often the auth server was asked for a token.
func fetched(s *authtest.Server) (n int) {
	for _, step := range s.Stats().Steps {
		n += step.Fetches.Attempted + step.Refreshes.Attempted
	}
	return n
}

// fleet is some members in this process.
type fleet struct {
	t       *testing.T
	auth    *authtest.Server
	members []*member
}

// startFleet starts a member for each job, which all are told to log in at one
// auth server.
func startFleet(t *testing.T, jobs ...job) *fleet {
	t.Helper()
	f := &fleet{t: t, auth: startAuth(t, jobs[0])}
	for _, j := range jobs {
		j.Auth = f.auth.URL
		m, err := newMember(j)
		require.NoError(t, err)
		t.Cleanup(m.close)
		f.members = append(f.members, m)
	}
	return f
}

// do has all of them do p at once.
func (f *fleet) do(p phase) report {
	f.t.Helper()
	reports := make([]report, len(f.members))
	errs := make([]error, len(f.members))
	var wg sync.WaitGroup
	for i, m := range f.members {
		wg.Go(func() { reports[i], errs[i] = m.do(p) })
	}
	wg.Wait()
	require.NoError(f.t, errors.Join(errs...))
	return sum(reports...)
}

// replace has the token revoked and all of them send requests, none of which may
// fail. It returns how often the auth server was asked for a token.
func (f *fleet) replace() int {
	f.t.Helper()
	before := fetched(f.auth)
	f.auth.Revoke("user")
	r := f.do(phase{Requests: 3})
	require.Zero(f.t, r.Failed, "%q", r.Errors)
	return fetched(f.auth) - before
}

// share waits until the storage is of use to all of them: a revoked token costs
// one fetch.
func (f *fleet) share() {
	f.t.Helper()
	for begun := time.Now(); f.replace() != 1; {
		require.Less(f.t, time.Since(begun), patience, "they don't share their tokens")
	}
}
