package redisstorage_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge/redisstorage/internal/redistest"
)

func TestColdPipelinesFetchEachStepOnce(t *testing.T) {
	t.Parallel()
	const many = 8
	f := startFleet(t, crew(many, sure(startNode(t).Addr))...)
	require.Zero(t, f.do(phase{Requests: 1}).Failed)
	stats := f.auth.Stats()
	require.Equal(t, 1, stats.Steps["app"].Fetches.Attempted)
	require.Equal(t, 1, stats.Steps["user"].Fetches.Attempted)
	require.Equal(t, many, stats.API.OK)

	for range 5 {
		require.Equal(t, 1, f.replace(), "a revoked token costs one fetch more")
	}
	require.Equal(t, 1, f.auth.Stats().Steps["app"].Fetches.Attempted)

	f.auth.RefuseAll(true)
	before, begun := fetched(f.auth), time.Now()
	r := f.do(phase{Requests: 20})
	require.Equal(t, r.Requests, r.Refused, "the answer goes back to the caller")
	// Each can invalidate three times, and once more each 10 s, which costs
	// a fetch of each step at most.
	require.LessOrEqual(t, fetched(f.auth)-before, 2*many*(3+int(time.Since(begun)/(10*time.Second))))
}

func TestPipelinesUseARotatedRefreshTokenOnce(t *testing.T) {
	t.Parallel()
	j := sure(startNode(t).Addr)
	j.Rotate = true
	f := startFleet(t, crew(4, j)...)
	require.Zero(t, f.do(phase{Requests: 1}).Failed)
	const rounds = 20
	for range rounds {
		require.Equal(t, 1, f.replace())
	}
	stats := f.auth.Stats()
	require.Zero(t, stats.FamiliesKilled)
	require.Equal(t, 1, stats.Steps["user"].Fetches.Attempted, "logins from scratch")
	require.Equal(t, rounds, stats.Steps["user"].Refreshes.Attempted)
}

// A pipeline looks for itself now and then, too. Here it can't.
func TestAPushedInvalidationIsTheEndOfTheToken(t *testing.T) {
	t.Parallel()
	f := startFleet(t, crew(2, sure(startNode(t).Addr))...)
	require.Equal(t, map[string]int{"user-1": 2}, f.do(phase{Requests: 1}).Tokens)
	here, there := f.members[0], f.members[1]
	_, err := there.do(phase{Deaf: true})
	require.NoError(t, err)
	_, err = here.do(phase{Invalidate: "user"})
	require.NoError(t, err)
	eventually(t, "the token is gone there, too", func() bool {
		r, err := there.do(phase{Requests: 1})
		return err == nil && r.Tokens["user-2"] == 1
	})
	require.Zero(t, f.auth.Stats().API.Refused)
}

func TestPipelinesShareAFailure(t *testing.T) {
	t.Parallel()
	j := sure(startNode(t).Addr)
	wrong := j
	wrong.Secret = "wrong"
	begun := time.Now()
	f := startFleet(t, crew(3, wrong)...)
	r := f.do(phase{Requests: 3})
	require.Equal(t, r.Requests, r.Failed)
	require.Zero(t, r.Refused, "without a token no request goes out")
	// It is tried anew after each cool-down.
	require.LessOrEqual(t, fetched(f.auth), 1+int(time.Since(begun)/(30*time.Second)))

	j.Auth = f.auth.URL
	right, err := newMember(j)
	require.NoError(t, err)
	t.Cleanup(right.close)
	r, err = right.do(phase{Requests: 1})
	require.NoError(t, err)
	require.Zero(t, r.Failed, "with another secret it is another matter")
}

// pair are two pipelines that have logged in. Their calls of the storage may
// take no longer than those of pipelines do.
func pair(t *testing.T, j job) *fleet {
	t.Helper()
	j.LeaseTTL = time.Second
	f := startFleet(t, j, j)
	f.share()
	return f
}

func TestARedisThatIsKilledFailsNoRequest(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	f := pair(t, job{Redis: []string{n.Addr}})
	n.Kill()
	f.replace()
	require.NoError(t, n.Restart())
	f.share()
}

func TestARedisThatIsSilentFailsNoRequest(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	f := pair(t, job{Redis: []string{n.Addr}})
	n.Stop()
	f.replace()
	n.Resume()
	f.share()
}

func TestARedisThatIsFlushedFailsNoRequest(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	f := startFleet(t, crew(3, sure(n.Addr))...)
	require.Zero(t, f.do(phase{Requests: 1}).Failed)
	for range 3 {
		before := fetched(f.auth)
		require.NoError(t, n.Client().FlushAll(t.Context()).Err())
		require.Zero(t, f.do(phase{Requests: 1}).Failed)
		require.Equal(t, before, fetched(f.auth), "who has a token needs no Redis")
		require.Equal(t, 1, f.replace())
	}
}

func TestClocksFiveMinutesOffFailNoRequest(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, life time.Duration) *fleet {
		jobs := crew(3, sure(startNode(t).Addr))
		for i, clock := range []time.Duration{5 * time.Minute, 0, -5 * time.Minute} {
			jobs[i].Life, jobs[i].Clock = life, clock
		}
		f := startFleet(t, jobs...)
		r := f.do(phase{Requests: 1})
		require.Zero(t, r.Failed, "%q", r.Errors)
		return f
	}
	t.Run("tokens that live longer", func(t *testing.T) {
		f := start(t, time.Hour)
		for range 10 {
			require.Equal(t, 1, f.replace())
		}
	})
	t.Run("tokens that don't", func(t *testing.T) {
		f := start(t, time.Minute)
		for i := range 12 {
			before := fetched(f.auth)
			_, err := f.members[i%3].do(phase{Invalidate: "user"})
			require.NoError(t, err)
			r := f.do(phase{Requests: 3})
			require.Zero(t, r.Failed, "%q", r.Errors)
			// What a clock behind has written looks expired to the others.
			require.LessOrEqual(t, fetched(f.auth)-before, 3)
		}
	})
}

func TestANetworkThatIsSlowAndCutFailsNoRequest(t *testing.T) {
	t.Parallel()
	proxy := startProxy(t, startNode(t).Addr)
	f := pair(t, job{Redis: []string{proxy.Listen}})
	proxy.Stop()
	f.replace()
	require.NoError(t, proxy.Start())
	f.share()
	slow(t, proxy, 100*time.Millisecond)
	f.replace()
	slow(t, proxy, 400*time.Millisecond) // more than a call may take
	f.replace()
}

func TestAFailoverOfSentinelFailsNoRequest(t *testing.T) {
	t.Parallel()
	s := startSentinel(t)
	f := pair(t, job{Master: redistest.Name, Redis: s.Addrs()})
	s.Primary.Kill()
	f.replace()
	eventually(t, "the replica is the primary", func() bool { return primary(t, s.Replica) })
	f.share()
	require.Positive(t, calls(t, s.Replica, "evalsha"), "nobody uses the new primary")
}

func TestAFailoverOfClusterAndASlotThatMovesFailNoRequest(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	slot, err := c.Slot(t.Context(), "{requestforge}")
	require.NoError(t, err)
	owner, err := c.Owner(t.Context(), 0, slot)
	require.NoError(t, err)
	to := (owner + 1) % 3
	f := pair(t, job{Redis: c.Addrs()})
	require.NoError(t, c.Move(t.Context(), slot, owner, to))
	f.share()
	c.Nodes[to].Kill()
	f.replace()
	heir := c.Nodes[3+to]
	eventually(t, "the replica is a primary", func() bool { return primary(t, heir) })
	f.share()
	require.Positive(t, calls(t, heir, "evalsha"), "nobody uses the new primary")
}
