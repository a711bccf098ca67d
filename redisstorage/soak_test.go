//go:build soak

// Fleets of many processes, in real time: make soak. What each of these shows is
// shown on a small scale in fleet_test.go's neighbours, for make test.

package redisstorage_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge/redisstorage/internal/redistest"
)

const replicas = 50

// tally prints a run and checks it: no request failed, and no more fetches
// than bound. The API answers at once, so that all of the latency was added.
func tally(t *testing.T, r report, fetches, bound int) {
	t.Helper()
	t.Logf("%d requests, %d failed, %d fetches (at most %d), worst latency added %v, %d calls of the storage failed, %d leases lost",
		r.Requests, r.Failed, fetches, bound, r.Worst.Round(time.Millisecond), r.Trouble, r.Lost)
	require.Zero(t, r.Failed, "%q", r.Errors)
	require.LessOrEqual(t, fetches, bound)
}

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

// A process looks for itself now and then, too. Here it can't.
func TestAnInvalidationIsPushedToTheOtherProcesses(t *testing.T) {
	n := startNode(t)
	j := sure(n.Addr)
	auth := startAuth(t, j)
	j.Auth = auth.URL
	workers := startWorkers(t, crew(4, j)...)
	begin(t, workers, phase{Requests: 1})
	require.Equal(t, map[string]int{"user-1": 4}, end(t, workers).Tokens)

	here, there := workers[:1], workers[1:]
	begin(t, there, phase{Deaf: true})
	end(t, there)
	begin(t, here, phase{Invalidate: "user"})
	end(t, here)
	begun := time.Now()
	for used := 0; used != len(there); {
		require.Less(t, time.Since(begun), patience, "nothing was pushed")
		begin(t, there, phase{Requests: 1})
		used = end(t, there).Tokens["user-2"]
	}
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

// unsure is a job with the StorageTimeout that pipelines have.
func unsure(addrs ...string) job { return job{Redis: addrs, LeaseTTL: time.Second} }

// A fault is what happens to a fleet.
type fault struct {
	vary    func(i int, j *job)     // makes jobs different; nil: all are the same
	victims []func(j *job)          // workers more, what happens to each when it has got the lock
	alone   bool                    // what they share is of no use to all
	happen  func(victims []*worker) // while the fleet is at work; may be nil
	until   func() bool             // so long the fleet stays at work; may be nil
}

func (f fault) run(t *testing.T, j job) {
	t.Helper()
	j.Life = faultLife
	auth := startAuth(t, j)
	j.Auth = auth.URL
	jobs := crew(faultWorkers+len(f.victims), j)
	for i := range jobs {
		if f.vary != nil {
			f.vary(i, &jobs[i])
		}
		if i >= faultWorkers {
			jobs[i].LeaseTTL = time.Second
			f.victims[i-faultWorkers](&jobs[i])
		}
	}
	workers := startWorkers(t, jobs...)
	workers, victims := workers[:faultWorkers], workers[faultWorkers:]
	begun := time.Now()
	var reports []report
	work := func(p phase, meanwhile func()) {
		begin(t, workers, p)
		meanwhile()
		reports = append(reports, end(t, workers))
	}
	for i, v := range victims {
		// The others rest, so that it is the one to renew the token, and
		// then they find the lock taken.
		work(phase{Requests: faultRequests / 10, Pause: faultPause}, func() {})
		v.begin(t, phase{Requests: faultRequests, Pause: faultPause})
		if jobs[faultWorkers+i].StopWithLock {
			v.stopped(t)
		} else {
			v.died(t)
		}
	}
	work(phase{Requests: faultRequests, Pause: faultPause}, func() {
		if f.happen != nil {
			f.happen(victims)
		}
	})
	for f.until != nil && !f.until() {
		require.Less(t, time.Since(begun), 4*patience, "it never came to that")
		work(phase{Requests: faultRequests / 10, Pause: faultPause}, func() {})
	}
	for i, v := range victims {
		if jobs[faultWorkers+i].StopWithLock {
			r, alive := v.end()
			require.True(t, alive)
			reports = append(reports, r)
		}
	}
	r := sum(reports...)
	require.GreaterOrEqual(t, r.Requests, 1000)

	// A token is renewed at half its life by one of them, or by each if it
	// is alone. A call of the storage that failed can make one of them
	// fetch for itself, and so can a lease that was lost, and a victim. And
	// each may have to log in anew, in two steps.
	lives := 2*int(time.Since(begun)/faultLife) + 2
	if f.alone {
		lives *= faultWorkers
	}
	bound := lives + 2*faultWorkers + 2*len(victims) + int(r.Trouble+r.Lost)
	tally(t, r, fetched(auth), bound)
	require.False(t, r.Unaware, "a process that was stopped past its lease took it to be good")
	if r.Lost <= uint64(len(victims)) { // none but theirs
		require.Zero(t, auth.Stats().FamiliesKilled)
	}
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
	}, until: func() bool { // it is used again
		return len(n.Client().Keys(t.Context(), "rf:token:*").Val()) > 0
	}}.run(t, unsure(n.Addr))
}

func TestFaultRedisIsSilentForFiveSeconds(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	fault{happen: func([]*worker) {
		after(2 * time.Second)
		n.Stop()
		after(5 * time.Second)
		n.Resume()
	}}.run(t, unsure(n.Addr))
}

func TestFaultEverythingIsFlushed(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	fault{happen: func([]*worker) {
		for range 3 {
			after(2 * time.Second)
			require.NoError(t, n.Client().FlushAll(t.Context()).Err())
		}
	}}.run(t, unsure(n.Addr))
}

func TestFaultTheOwnerOfTheLockIsKilled(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	die := func(j *job) { j.DieInFetch = true }
	fault{victims: []func(*job){die, die}}.run(t, sure(n.Addr))
}

func TestFaultTheOwnerOfTheLockIsStoppedPastItsLease(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	j := sure(n.Addr)
	j.Rotate = true
	fault{
		victims: []func(*job){func(j *job) { j.StopWithLock = true }},
		happen: func(victims []*worker) {
			after(3 * time.Second)
			require.NoError(t, victims[0].cmd.Process.Signal(syscall.SIGCONT))
		},
	}.run(t, j)
}

func TestFaultClocksAreFiveMinutesOff(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	clocks := []time.Duration{5 * time.Minute, 0, -5 * time.Minute, 0}
	fault{
		alone: true, // what a clock behind has written looks expired to the others
		vary:  func(i int, j *job) { j.Clock = clocks[i] },
	}.run(t, unsure(n.Addr))
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
	}}.run(t, unsure(proxy.Listen))
}

func TestFaultSentinelsPrimaryIsKilled(t *testing.T) {
	t.Parallel()
	s := startSentinel(t)
	j := unsure(s.Addrs()...)
	j.Master = redistest.Name
	fault{happen: func([]*worker) {
		after(2 * time.Second)
		s.Primary.Kill()
	}, until: func() bool {
		return calls(t, s.Replica, "evalsha") > 0 && primary(t, s.Replica)
	}}.run(t, j)
}

func TestFaultClustersPrimaryIsKilledAndASlotMoved(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	slot, err := c.Slot(t.Context(), "{requestforge}")
	require.NoError(t, err)
	owner, err := c.Owner(t.Context(), 0, slot)
	require.NoError(t, err)
	to := (owner + 1) % 3
	heir := c.Nodes[3+to]
	fault{happen: func([]*worker) {
		after(time.Second)
		require.NoError(t, c.Move(t.Context(), slot, owner, to))
		after(time.Second)
		c.Nodes[to].Kill()
	}, until: func() bool {
		return calls(t, heir, "evalsha") > 0 && primary(t, heir)
	}}.run(t, unsure(c.Addrs()...))
}
