package redisstorage_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sure is a job whose calls of the storage have all the time they may need on
// a busy machine, for tests that count fetches exactly.
func sure(addrs ...string) job {
	return job{Redis: addrs, StorageTimeout: patience, LeaseTTL: patience}
}

// brief is j with a lease that ends soon after its owner.
func brief(j job) job {
	j.LeaseTTL = time.Second
	return j
}

func TestAnOwnerOfTheLockThatIsKilledCostsOneFetch(t *testing.T) {
	t.Parallel()
	j := sure(startNode(t).Addr)
	auth := startAuth(t, j)
	j.Auth = auth.URL
	victim := brief(j)
	victim.DieInFetch = true
	workers := startWorkers(t, j, j, victim)
	others, v := workers[:2], workers[2]
	begin(t, others, phase{Requests: 1})
	require.Zero(t, end(t, others).Failed)
	before := fetched(auth)

	// It is alone at work, and so it gets the lock.
	require.Equal(t, 1, auth.Revoke("user"))
	v.begin(t, phase{Requests: 1})
	v.died(t)
	require.Equal(t, before, fetched(auth))
	begin(t, others, phase{Requests: 3})
	r := end(t, others)
	require.Zero(t, r.Failed, "%q", r.Errors)
	require.Equal(t, 1, fetched(auth)-before)
}

func TestAnOwnerOfTheLockThatIsStoppedPastItsLeaseFetchesNothing(t *testing.T) {
	t.Parallel()
	j := sure(startNode(t).Addr)
	j.Rotate = true
	auth := startAuth(t, j)
	j.Auth = auth.URL
	victim := brief(j)
	workers := startWorkers(t, j, j)
	begin(t, workers, phase{Requests: 1})
	require.Zero(t, end(t, workers).Failed)
	victim.StopWithLock = true
	v := startWorkers(t, victim)[0]
	before := fetched(auth)

	require.Equal(t, 1, auth.Revoke("user"))
	v.begin(t, phase{Requests: 1})
	v.stopped(t)
	begin(t, workers, phase{Requests: 3})
	r := end(t, workers)
	require.Zero(t, r.Failed, "%q", r.Errors)

	require.NoError(t, v.cmd.Process.Signal(syscall.SIGCONT))
	r, alive := v.end()
	require.True(t, alive)
	require.False(t, r.Unaware, "it took its lease to be good")
	require.Zero(t, r.Failed, "%q", r.Errors)
	require.Equal(t, 1, fetched(auth)-before)
	require.Zero(t, auth.Stats().FamiliesKilled)
}

func TestAnOwnerKilledAfterARotationCostsOneLogin(t *testing.T) {
	t.Parallel()
	j := sure(startNode(t).Addr)
	j.Rotate = true
	auth := startAuth(t, j)
	j.Auth = auth.URL
	victim := brief(j)
	victim.DieAfterRefresh = true
	workers := startWorkers(t, j, j, victim)
	others, v := workers[:2], workers[2]
	// It logs in, and then is alone to refresh.
	v.begin(t, phase{Requests: 1})
	_, alive := v.end()
	require.True(t, alive)
	require.Equal(t, 1, auth.Revoke("user"))
	v.begin(t, phase{Requests: 1})
	v.died(t)
	before := auth.Stats().Steps["user"]
	require.Equal(t, 1, before.Fetches.OK)
	require.Equal(t, 1, before.Refreshes.OK)

	begin(t, others, phase{Requests: 3})
	r := end(t, others)
	require.Zero(t, r.Failed, "%q", r.Errors)
	require.Equal(t, 1, auth.Stats().Steps["user"].Fetches.OK-before.Fetches.OK)
}
