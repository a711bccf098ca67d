package redisstorage_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge/redisstorage/internal/redistest"
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
	tally(t, r, fetched(auth), 2)
	stats := auth.Stats()
	require.Equal(t, 1, stats.Steps["app"].Fetches.Attempted)
	require.Equal(t, 1, stats.Steps["user"].Fetches.Attempted)
	require.Equal(t, replicas, stats.API.OK)

	t.Run("and a revoked token once more", func(t *testing.T) {
		require.Equal(t, 1, auth.Revoke("user"))
		begin(t, workers, phase{Requests: 20})
		r := end(t, workers)
		after := auth.Stats()
		tally(t, r, fetched(auth)-2, 1)
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

func TestRotatedRefreshTokensAreNeverUsedTwice(t *testing.T) {
	n := startNode(t)
	j := sure(n.Addr)
	j.Life, j.Rotate = 2*time.Second, true
	auth := startAuth(t, j)
	j.Auth = auth.URL
	workers := startWorkers(t, crew(8, j)...)

	const run, pause = time.Minute, 50 * time.Millisecond
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

// An invalidation is seen at once where it is pushed, and otherwise when a
// process looks again, which is after 19 s at the earliest.
func TestAnInvalidationIsPushedToTheOtherProcesses(t *testing.T) {
	n := startNode(t)
	j := sure(n.Addr)
	auth := startAuth(t, j)
	j.Auth = auth.URL
	workers := startWorkers(t, crew(4, j)...)
	begin(t, workers, phase{Requests: 1})
	require.Equal(t, map[string]int{"user-1": 4}, end(t, workers).Tokens)

	workers[0].begin(t, phase{Invalidate: "user"})
	_, alive := workers[0].end()
	require.True(t, alive)
	begun := time.Now()
	require.Eventually(t, func() bool {
		begin(t, workers[1:], phase{Requests: 1})
		return end(t, workers[1:]).Tokens["user-2"] == 3
	}, 15*time.Second, time.Millisecond)
	t.Logf("after %v nobody used the token any more", time.Since(begun))
	require.Zero(t, auth.Stats().API.Refused)
}

// A wrong secret in many processes is one request a cool-down. They are fewer
// than fifty because each works hard for the fingerprint of its configuration.
func TestAFailureIsSharedByAllProcesses(t *testing.T) {
	n := startNode(t)
	j := sure(n.Addr)
	j.Secret = "wrong"
	auth := startAuth(t, j)
	j.Auth = auth.URL
	workers := startWorkers(t, crew(replicas, j)...)
	begun := time.Now()
	begin(t, workers, phase{Requests: 3})
	r := end(t, workers)
	require.Equal(t, r.Requests, r.Failed)
	require.Zero(t, r.Refused, "without a token no request goes out")
	bound := 1 + int(time.Since(begun)/(30*time.Second))
	t.Logf("%d requests, %d fetches (at most %d)", r.Requests, fetched(auth), bound)
	require.LessOrEqual(t, fetched(auth), bound)

	right := j
	right.Secret = ""
	fixed := startWorkers(t, right)
	begin(t, fixed, phase{Requests: 1})
	require.Zero(t, end(t, fixed).Failed, "with another secret it is another matter")
}

// A fault run: four processes, each 300 requests in about nine seconds, with
// tokens that live for two, so that they are fetched all the time.
const (
	faultWorkers  = 4
	faultRequests = 300
	faultPause    = 30 * time.Millisecond
	faultLife     = 2 * time.Second
)

// A fault is what happens to a fleet.
type fault struct {
	vary   func(i int, j *job)     // makes jobs different; nil: all are the same
	deaths int                     // how many workers more there are, who are going to die
	alone  bool                    // what they share is of no use to all
	happen func(workers []*worker) // while they are at work; may be nil
}

func (f fault) run(t *testing.T, j job) {
	t.Helper()
	j.Life, j.LeaseTTL = faultLife, time.Second
	auth := startAuth(t, j)
	j.Auth = auth.URL
	jobs := crew(faultWorkers+f.deaths, j)
	for i := range jobs {
		if f.vary != nil {
			f.vary(i, &jobs[i])
		}
	}
	workers := startWorkers(t, jobs...)
	begun := time.Now()
	begin(t, workers, phase{Requests: faultRequests, Pause: faultPause})
	if f.happen != nil {
		f.happen(workers)
	}
	for _, w := range workers[faultWorkers:] {
		w.died(t)
	}
	r := end(t, workers[:faultWorkers])
	require.GreaterOrEqual(t, r.Requests, 1000)

	// A token is renewed at half its life by one of them, or by each if it
	// is alone. A call of the storage that failed can make one of them
	// fetch for itself, and so can a death. And each may have to log in
	// anew, in two steps.
	lives := 2*int(time.Since(begun)/faultLife) + 2
	if f.alone {
		lives *= faultWorkers
	}
	bound := lives + 2*faultWorkers + 2*f.deaths + int(r.Trouble)
	tally(t, r, fetched(auth), bound)
	require.Zero(t, auth.Stats().FamiliesKilled)
	require.False(t, r.Unaware, "a process that was stopped past its lease took it to be good")
}

// after waits for a moment in a fault run, so that the fleet is at work.
func after(d time.Duration) { <-time.After(d) }

func TestFaultRedisIsKilledAndRestarted(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	fault{happen: func([]*worker) {
		after(2 * time.Second)
		n.Kill()
		after(2 * time.Second)
		require.NoError(t, n.Restart())
	}}.run(t, job{Redis: []string{n.Addr}})
	require.NotEmpty(t, n.Client().Keys(t.Context(), "rf:token:*").Val(), "it is not used again")
}

func TestFaultRedisIsSilentForFiveSeconds(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	fault{happen: func([]*worker) {
		after(2 * time.Second)
		n.Stop()
		after(5 * time.Second)
		n.Resume()
	}}.run(t, job{Redis: []string{n.Addr}})
}

func TestFaultEverythingIsFlushed(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	fault{happen: func([]*worker) {
		for range 3 {
			after(2 * time.Second)
			require.NoError(t, n.Client().FlushAll(t.Context()).Err())
		}
	}}.run(t, job{Redis: []string{n.Addr}})
}

func TestFaultTheOwnerOfTheLockIsKilled(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	fault{
		deaths: 2,
		vary:   func(i int, j *job) { j.DieInFetch = i >= faultWorkers },
	}.run(t, job{Redis: []string{n.Addr}})
}

func TestFaultTheOwnerOfTheLockIsStoppedPastItsLease(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	fault{
		vary: func(i int, j *job) { j.StopWithLock = i == 0 },
		happen: func(workers []*worker) {
			workers[0].stopped(t)
			after(3 * time.Second)
			require.NoError(t, workers[0].cmd.Process.Signal(syscall.SIGCONT))
		},
	}.run(t, job{Redis: []string{n.Addr}, Rotate: true})
}

func TestFaultClocksAreFiveMinutesOff(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	clocks := []time.Duration{5 * time.Minute, 0, -5 * time.Minute, 0}
	fault{
		alone: true, // what a clock behind has written looks expired to the others
		vary:  func(i int, j *job) { j.Clock = clocks[i] },
	}.run(t, job{Redis: []string{n.Addr}})
}

func TestFaultTheNetworkIsSlowAndCut(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	proxy := startProxy(t, n.Addr)
	fault{happen: func([]*worker) {
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
	}}.run(t, job{Redis: []string{proxy.Listen}})
}

func TestFaultSentinelsPrimaryIsKilled(t *testing.T) {
	t.Parallel()
	s := startSentinel(t)
	fault{happen: func([]*worker) {
		after(2 * time.Second)
		s.Primary.Kill()
	}}.run(t, job{Master: redistest.Name, Redis: s.Addrs()})
	require.Positive(t, calls(t, s.Replica, "evalsha"), "nobody uses the new primary")
	require.Contains(t, s.Replica.Client().Info(t.Context(), "replication").Val(), "role:master")
}

func TestFaultClustersPrimaryIsKilledAndASlotMoved(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	slot, err := c.Slot(t.Context(), "{requestforge}")
	require.NoError(t, err)
	owner, err := c.Owner(t.Context(), 0, slot)
	require.NoError(t, err)
	to := (owner + 1) % 3
	fault{happen: func([]*worker) {
		after(time.Second)
		require.NoError(t, c.Move(t.Context(), slot, owner, to))
		after(time.Second)
		c.Nodes[to].Kill()
	}}.run(t, job{Redis: c.Addrs()})
	heir := c.Nodes[3+to]
	require.Positive(t, calls(t, heir, "evalsha"), "nobody uses the new primary")
	require.Contains(t, heir.Client().Info(t.Context(), "replication").Val(), "role:master")
}
