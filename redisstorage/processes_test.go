package redisstorage_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sure is a job whose calls of the storage have all the time they may need on
// a busy machine, for tests that count fetches exactly.
func sure(addrs ...string) job {
	return job{Redis: addrs, StorageTimeout: patience, LeaseTTL: patience}
}

const replicas = 50

func TestFiftyColdProcessesFetchEachStepOnce(t *testing.T) {
	n := startNode(t)
	j := sure(n.Addr)
	auth := startAuth(t, j)
	j.Auth = auth.URL
	workers := startWorkers(t, crew(replicas, j)...)

	begin(t, workers, phase{Requests: 1})
	r := end(t, workers)
	tally(t, r, fetched(auth), 2, 0)
	stats := auth.Stats()
	require.Equal(t, 1, stats.Steps["app"].Fetches.Attempted)
	require.Equal(t, 1, stats.Steps["user"].Fetches.Attempted)
	require.Equal(t, replicas, stats.API.OK)

	t.Run("and a revoked token once more", func(t *testing.T) {
		require.Equal(t, 1, auth.Revoke("user"))
		begin(t, workers, phase{Requests: 20})
		r := end(t, workers)
		after := auth.Stats()
		tally(t, r, fetched(auth)-2, 1, 0)
		require.Equal(t, 20*replicas, r.Requests)
		require.Zero(t, r.Refused)
		require.Equal(t, 1, after.Steps["app"].Fetches.Attempted)
		require.Equal(t, 2, after.Steps["user"].Fetches.Attempted)
	})

	t.Run("and an API that refuses for ever costs little", func(t *testing.T) {
		auth.RefuseAll(true)
		before, begun := fetched(auth), time.Now()
		begin(t, workers, phase{Requests: 20})
		r := end(t, workers)
		require.Equal(t, r.Requests, r.Refused, "the answer goes back to the caller")
		// Each process can invalidate three times, and once more each
		// 10 s; an invalidation costs a fetch of each step at most.
		const steps = 2
		bound := steps * replicas * (3 + int(time.Since(begun)/(10*time.Second)))
		fetches := fetched(auth) - before
		t.Logf("%d requests, all refused, %d fetches (at most %d)", r.Requests, fetches, bound)
		require.LessOrEqual(t, fetches, bound)
	})
}

// nightly is set by make nightly, for what takes long.
func nightly() bool { return os.Getenv("REQUESTFORGE_NIGHTLY") != "" }

func TestRotatedRefreshTokensAreNeverUsedTwice(t *testing.T) {
	n := startNode(t)
	j := sure(n.Addr)
	j.Life, j.Rotate = 2*time.Second, true
	auth := startAuth(t, j)
	j.Auth = auth.URL
	workers := startWorkers(t, crew(8, j)...)

	run := 15 * time.Second
	if nightly() {
		run = time.Minute
	}
	const pause = 50 * time.Millisecond
	begin(t, workers, phase{Requests: int(run / pause), Pause: pause})
	r := end(t, workers)
	stats := auth.Stats()
	t.Logf("%d refreshes, %d logins, %d families killed", stats.Steps["user"].Refreshes.OK, stats.Steps["user"].Fetches.OK, stats.FamiliesKilled)
	require.Zero(t, stats.FamiliesKilled)
	require.Zero(t, r.Failed, "%q", r.Errors)
	require.Equal(t, 1, stats.Steps["user"].Fetches.OK, "logins from scratch")
	require.Greater(t, stats.Steps["user"].Refreshes.OK, int(run/j.Life)/2)
}

func TestAnOwnerKilledAfterARotationCostsOneLogin(t *testing.T) {
	n := startNode(t)
	j := job{Redis: []string{n.Addr}, StorageTimeout: patience, LeaseTTL: time.Second, Life: 2 * time.Second, Rotate: true}
	auth := startAuth(t, j)
	j.Auth = auth.URL
	victim := j
	victim.DieAfterRefresh = true
	workers := startWorkers(t, append(crew(4, j), victim)...)
	// It logs in, and then is alone to refresh.
	v, others := workers[4], workers[:4]
	v.begin(t, phase{Requests: 100, Pause: 50 * time.Millisecond})
	v.died(t)
	before := auth.Stats().Steps["user"]
	require.Equal(t, 1, before.Fetches.OK)
	require.Equal(t, 1, before.Refreshes.OK)

	begin(t, others, phase{Requests: 250, Pause: 10 * time.Millisecond})
	r := end(t, others)
	after := auth.Stats()
	t.Logf("%d requests, %d failed, %d logins more, worst latency %v", r.Requests, r.Failed, after.Steps["user"].Fetches.OK-before.Fetches.OK, r.Worst)
	require.Zero(t, r.Failed, "%q", r.Errors)
	require.LessOrEqual(t, after.Steps["user"].Fetches.OK-before.Fetches.OK, 1)
}

// A fault run: four processes, each 300 requests in about nine seconds, with
// tokens that live for two, so that they are fetched all the time.
const (
	faultWorkers  = 4
	faultRequests = 300
	faultPause    = 30 * time.Millisecond
	faultLife     = 2 * time.Second
)

// runFault has a fleet at work while fault happens, which begins after a
// while. Jobs are the same but for what vary changes. Deaths is how many
// workers at the end of the list are going to die.
func runFault(t *testing.T, j job, vary func(i int, j *job), deaths int, fault func(workers []*worker)) {
	t.Helper()
	j.Life = faultLife
	if j.LeaseTTL == 0 {
		j.LeaseTTL = time.Second
	}
	auth := startAuth(t, j)
	j.Auth = auth.URL
	jobs := crew(faultWorkers+deaths, j)
	for i := range jobs {
		if vary != nil {
			vary(i, &jobs[i])
		}
	}
	workers := startWorkers(t, jobs...)
	begun := time.Now()
	begin(t, workers, phase{Requests: faultRequests, Pause: faultPause})
	if fault != nil {
		fault(workers)
	}
	for _, w := range workers[faultWorkers:] {
		w.died(t)
	}
	r := end(t, workers[:faultWorkers])
	require.GreaterOrEqual(t, r.Requests, 1000)
	// At the worst each process is alone all the time, and renews its
	// token at half its life; a lost lock, a fetch whose process died and
	// what is under way at both ends make it two more.
	bound := len(workers) * (2*int(time.Since(begun)/faultLife) + 2 + 2)
	tally(t, r, fetched(auth), bound, 0)
	require.Zero(t, auth.Stats().FamiliesKilled)
}

// after waits for a moment in a fault run, so that the fleet is at work.
func after(d time.Duration) { <-time.After(d) }

func TestFaultRedisIsKilledAndRestarted(t *testing.T) {
	n := startNode(t)
	runFault(t, job{Redis: []string{n.Addr}}, nil, 0, func([]*worker) {
		after(2 * time.Second)
		n.Kill()
		after(2 * time.Second)
		require.NoError(t, n.Restart())
	})
	// And it is used again.
	require.NotEmpty(t, n.Client().Keys(t.Context(), "rf:token:*").Val())
}

func TestFaultRedisIsSilentForFiveSeconds(t *testing.T) {
	n := startNode(t)
	runFault(t, job{Redis: []string{n.Addr}}, nil, 0, func([]*worker) {
		after(2 * time.Second)
		n.Stop()
		after(5 * time.Second)
		n.Resume()
	})
}

func TestFaultEverythingIsFlushed(t *testing.T) {
	n := startNode(t)
	runFault(t, job{Redis: []string{n.Addr}}, nil, 0, func([]*worker) {
		for range 3 {
			after(2 * time.Second)
			require.NoError(t, n.Client().FlushAll(t.Context()).Err())
		}
	})
}

func TestFaultTheOwnerOfTheLockIsKilled(t *testing.T) {
	n := startNode(t)
	runFault(t, job{Redis: []string{n.Addr}}, func(i int, j *job) { j.DieInFetch = i >= faultWorkers }, 2, nil)
}

func TestFaultTheOwnerOfTheLockIsStoppedPastItsLease(t *testing.T) {
	n := startNode(t)
	runFault(t, job{Redis: []string{n.Addr}, Rotate: true}, func(i int, j *job) { j.StopWithLock = i == 0 }, 0, func(workers []*worker) {
		workers[0].stopped(t)
		after(3 * time.Second)
		require.NoError(t, workers[0].cmd.Process.Signal(sigcont))
	})
}

func TestFaultClocksAreFiveMinutesOff(t *testing.T) {
	n := startNode(t)
	clocks := []time.Duration{5 * time.Minute, 0, -5 * time.Minute, 0}
	runFault(t, job{Redis: []string{n.Addr}}, func(i int, j *job) { j.Clock = clocks[i] }, 0, nil)
}

func TestFaultTheNetworkIsSlowAndCut(t *testing.T) {
	n := startNode(t)
	proxy := startProxy(t, n.Addr)
	runFault(t, job{Redis: []string{proxy.Listen}}, nil, 0, func([]*worker) {
		after(time.Second)
		slow(t, proxy, 100*time.Millisecond)
		after(2 * time.Second)
		for range 10 { // connections are cut, and new ones refused for a moment
			proxy.Stop()
			after(100 * time.Millisecond)
			require.NoError(t, proxy.Start())
			after(100 * time.Millisecond)
		}
		slow(t, proxy, 400*time.Millisecond) // more than a call may take
	})
}

func TestFaultSentinelsPrimaryIsKilled(t *testing.T) {
	s := startSentinel(t)
	runFault(t, job{Master: "primary", Redis: s.Addrs()}, nil, 0, func([]*worker) {
		after(2 * time.Second)
		s.Primary.Kill()
	})
	eventually(t, "the replica is used instead", func() bool {
		return len(s.Replica.Client().Keys(t.Context(), "rf:token:*").Val()) > 0
	})
}

func TestFaultClustersPrimaryIsKilledAndASlotMoved(t *testing.T) {
	c := startCluster(t)
	slot, err := c.Slot(t.Context(), "{requestforge}")
	require.NoError(t, err)
	owner, err := c.Owner(t.Context(), 0, slot)
	require.NoError(t, err)
	to := (owner + 1) % 3
	runFault(t, job{Redis: c.Addrs()}, nil, 0, func([]*worker) {
		after(time.Second)
		require.NoError(t, c.Move(t.Context(), slot, owner, to))
		after(time.Second)
		c.Nodes[to].Kill()
	})
	heir := fmt.Sprint(c.Nodes[3+to].Client().Keys(t.Context(), "rf:token:*").Val())
	require.Contains(t, heir, "rf:token:{requestforge}:user")
}
