package redisstorage_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/redisstorage"
)

const lockName = "rf:lock:{p}:a"

func tryLock(t *testing.T, s requestforge.Locker) (requestforge.Lease, bool) {
	t.Helper()
	lease, ok, err := s.TryLock(t.Context(), "p:a")
	require.NoError(t, err)
	return lease, ok
}

func lost(lease requestforge.Lease) bool {
	select {
	case <-lease.Done():
		return true
	default:
		return false
	}
}

func TestALeaseIsRenewedWhileItIsHeld(t *testing.T) {
	n := startNode(t)
	const leaseTTL = 500 * time.Millisecond
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{LeaseTTL: leaseTTL})
	lease, ok := tryLock(t, s)
	require.True(t, ok)
	for end := time.Now().Add(4 * leaseTTL); time.Now().Before(end) && !lost(lease); time.Sleep(leaseTTL / 10) {
		_, ok := tryLock(t, s)
		require.False(t, ok && !lost(lease), "somebody else has got the lock")
	}
	require.False(t, lost(lease))
	require.NoError(t, lease.Unlock(t.Context()))
	require.Zero(t, n.Client().Exists(t.Context(), lockName).Val())
}

func TestALockEndsWithItsProcess(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{LeaseTTL: 200 * time.Millisecond})
	// What a process that was killed leaves behind.
	require.NoError(t, n.Client().Set(t.Context(), lockName, "the late owner", 200*time.Millisecond).Err())
	_, ok := tryLock(t, s)
	require.False(t, ok)
	eventually(t, "the lock is free", func() bool {
		lease, ok := tryLock(t, s)
		if ok {
			lease.Unlock(t.Context())
		}
		return ok
	})
}

func TestALeaseIsLostBeforeOthersCanHaveIt(t *testing.T) {
	n := startNode(t)
	client := newClient(t, "", n.Addr)
	s := newStorage(t, client, redisstorage.Options{LeaseTTL: time.Second})
	lease, ok := tryLock(t, s)
	require.True(t, ok)
	require.NoError(t, client.Close()) // no renewal from now on
	eventually(t, "the lock is free", func() bool {
		if n.Client().Exists(t.Context(), lockName).Val() != 0 {
			return false
		}
		require.True(t, lost(lease), "the lock is free, and its owner doesn't know")
		return true
	})
}

func TestALeaseThatSomebodyHasTakenIsLostAndLeftAlone(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{LeaseTTL: 300 * time.Millisecond})
	lease, ok := tryLock(t, s)
	require.True(t, ok)
	require.NoError(t, n.Client().Set(t.Context(), lockName, "another owner", 0).Err())
	<-lease.Done()
	require.NoError(t, lease.Unlock(t.Context()))
	require.NoError(t, lease.Unlock(t.Context()))
	require.Equal(t, "another owner", n.Client().Get(t.Context(), lockName).Val())
}

func TestALeaseSurvivesAShortOutage(t *testing.T) {
	t.Parallel()
	proxy := startProxy(t, startNode(t).Addr)
	const leaseTTL = 6 * time.Second
	client := redis.NewClient(&redis.Options{Addr: proxy.Listen, MaxRetries: -1, DialerRetries: 1}) // fails at once
	defer client.Close()
	s := newStorage(t, client, redisstorage.Options{LeaseTTL: leaseTTL})
	lease, ok := tryLock(t, s)
	require.True(t, ok)
	proxy.Stop()
	outage := time.NewTimer(leaseTTL / 2) // a renewal fails meanwhile
	<-outage.C
	require.NoError(t, proxy.Start())
	select {
	case <-lease.Done():
		t.Fatal("the lease was lost")
	case <-time.After(leaseTTL): // it would have ended by now
	}
	require.NoError(t, lease.Unlock(t.Context()))
}

func TestALockThatNobodyWaitedForIsReleased(t *testing.T) {
	n := startNode(t)
	client := redis.NewClient(&redis.Options{Addr: n.Addr}) // deaf to contexts, so that it goes on
	defer client.Close()
	s := newStorage(t, client, redisstorage.Options{LeaseTTL: time.Minute})
	lease, ok := tryLock(t, s)
	require.True(t, ok)
	require.NoError(t, lease.Unlock(t.Context()))
	require.Equal(t, 1, calls(t, n, "set"))

	n.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, ok, err := s.TryLock(ctx, "p:a")
	require.False(t, ok)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	n.Resume()
	eventually(t, "the server has given the lock", func() bool { return calls(t, n, "set") == 2 })
	eventually(t, "it is free again, long before its lease ends", func() bool {
		return n.Client().Exists(t.Context(), lockName).Val() == 0
	})
}

func TestLeasesLeaveNoGoroutines(t *testing.T) {
	n := startNode(t)
	client := newClient(t, "", n.Addr)
	s := newStorage(t, client, redisstorage.Options{LeaseTTL: 300 * time.Millisecond})
	before := goleak.IgnoreCurrent()
	unlocked, ok := tryLock(t, s)
	require.True(t, ok)
	require.NoError(t, unlocked.Unlock(t.Context()))
	stolen, ok := tryLock(t, s)
	require.True(t, ok)
	require.NoError(t, n.Client().FlushAll(t.Context()).Err())
	<-stolen.Done()
	starved, ok := tryLock(t, s)
	require.True(t, ok)
	n.Kill()
	<-starved.Done()
	client.Close()
	goleak.VerifyNone(t, before)
}
