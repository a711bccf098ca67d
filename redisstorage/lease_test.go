package redisstorage_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// A busy machine can make a process lose its lease. Then another one will do: what
// is promised is that nobody else has the lock before its owner knows.
func TestALeaseIsRenewedWhileItIsHeld(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{LeaseTTL: 500 * time.Millisecond})
	lease, ok := tryLock(t, s)
	require.True(t, ok)
	eventually(t, "it is renewed again and again", func() bool {
		if other, ok := tryLock(t, s); ok {
			require.True(t, lost(lease), "somebody else has got the lock")
			lease = other
		}
		return calls(t, n, "pexpire") >= 6
	})
	gone := lost(lease)
	require.NoError(t, lease.Unlock(t.Context()))
	if !gone {
		require.Zero(t, n.Client().Exists(t.Context(), lockName).Val())
	}
}

func TestALockEndsWithItsProcess(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{LeaseTTL: time.Minute})
	// What a process that was killed leaves behind; it lasts until we have looked.
	require.NoError(t, n.Client().Set(t.Context(), lockName, "the late owner", time.Minute).Err())
	_, ok := tryLock(t, s)
	require.False(t, ok)
	require.NoError(t, n.Client().PExpire(t.Context(), lockName, 200*time.Millisecond).Err())
	eventually(t, "the lock is free", func() bool {
		lease, ok := tryLock(t, s)
		if ok {
			lease.Unlock(t.Context())
		}
		return ok
	})
}

// A lock that isn't one of ours holds nobody up for longer than one of ours, and isn't
// read: without an expiry, with one of a year, with a value of any size.
func TestALockWithoutExpiryIsTakenOver(t *testing.T) {
	for name, c := range map[string]struct {
		value  string
		expiry time.Duration
	}{
		"no expiry":   {"somebody", 0},
		"a year":      {"somebody", 365 * 24 * time.Hour},
		"a long name": {strings.Repeat("x", 1<<20), 0},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t)
			s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{LeaseTTL: 20 * time.Second})
			require.NoError(t, n.Client().Set(t.Context(), lockName, c.value, c.expiry).Err())
			_, ok := tryLock(t, s)
			require.False(t, ok, "an owner that lives may notice")
			left := n.Client().PTTL(t.Context(), lockName).Val()
			require.Positive(t, left)
			require.LessOrEqual(t, left, 2*time.Second)
			_, ok = tryLock(t, s)
			require.False(t, ok)
			require.LessOrEqual(t, n.Client().PTTL(t.Context(), lockName).Val(), left, "asking again doesn't put it off")
			require.NoError(t, n.Client().PExpire(t.Context(), lockName, time.Millisecond).Err())
			eventually(t, "the lock is free", func() bool {
				lease, ok := tryLock(t, s)
				if ok {
					require.NoError(t, lease.Unlock(t.Context()))
				}
				return ok
			})
		})
	}
}

// An owner whose lock has lost its expiry puts it right with its next renewal.
func TestALeaseWithoutExpiryIsRenewed(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{LeaseTTL: 500 * time.Millisecond})
	lease, ok := tryLock(t, s)
	require.True(t, ok)
	require.NoError(t, n.Client().Persist(t.Context(), lockName).Err())
	eventually(t, "it has an expiry again", func() bool {
		return lost(lease) || n.Client().PTTL(t.Context(), lockName).Val() > 0
	})
	require.NoError(t, lease.Unlock(t.Context()))
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

// locks is a Redis in a bubble of time: a hook that answers the scripts of locks,
// so that nothing is sent.
type locks struct {
	mu    sync.Mutex
	owner string
	until time.Time
	known map[string]bool // owners that have had the lock
	down  bool
}

func (l *locks) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l *locks) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

var errDown = errors.New("the server is down")

func (l *locks) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		args := cmd.Args() // evalsha, the script, 1, the lock, its owner and, but to unlock, the lease
		if l.down || len(args) < 5 {
			cmd.SetErr(errDown)
			return errDown
		}
		free := l.owner == "" || !time.Now().Before(l.until)
		owner := args[4].(string)
		var done int64
		switch {
		case len(args) == 5:
			if !free && l.owner == owner {
				l.owner, done = "", 1
			}
		case !free && l.owner == owner, free && !l.known[owner]:
			l.owner, l.until, done = owner, time.Now().Add(time.Duration(args[5].(int64))*time.Millisecond), 1
			l.known[owner] = true
		}
		cmd.(*redis.Cmd).SetVal(done)
		return nil
	}
}

func (l *locks) set(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
}

// inBubble runs a test with a lease of six seconds, in a time of its own.
func inBubble(t *testing.T, test func(t *testing.T, l *locks, s *redisstorage.Storage, lease requestforge.Lease)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &locks{known: make(map[string]bool)}
		client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1}) // go-redis looks up a name
		defer client.Close()
		client.AddHook(l)
		s := newStorage(t, client, redisstorage.Options{LeaseTTL: 6 * time.Second})
		lease, ok := tryLock(t, s)
		require.True(t, ok)
		test(t, l, s, lease)
	})
}

func TestALeaseLastsAsLongAsItIsHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *locks, s *redisstorage.Storage, lease requestforge.Lease) {
		for range 600 {
			time.Sleep(time.Second)
			_, ok := tryLock(t, s)
			require.False(t, ok)
			require.False(t, lost(lease))
		}
		require.NoError(t, lease.Unlock(t.Context()))
		next, ok := tryLock(t, s)
		require.True(t, ok)
		require.NoError(t, next.Unlock(t.Context()))
	})
}

func TestALeaseSurvivesAShortOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, l *locks, s *redisstorage.Storage, lease requestforge.Lease) {
		for range 10 {
			l.set(true)
			time.Sleep(3 * time.Second) // a renewal fails meanwhile
			l.set(false)
			time.Sleep(6 * time.Second) // it would have ended by now
			require.False(t, lost(lease))
		}
		require.NoError(t, lease.Unlock(t.Context()))
	})
}

func TestALeaseIsLostInALongOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, l *locks, s *redisstorage.Storage, lease requestforge.Lease) {
		l.set(true)
		begun := time.Now()
		<-lease.Done()
		require.Less(t, time.Since(begun), 6*time.Second, "others can have it by then")
		require.NoError(t, func() error { l.set(false); return lease.Unlock(t.Context()) }())
	})
}

// A writing connection tells when something is sent.
type writing struct {
	net.Conn
	sent chan<- struct{}
}

func (w writing) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	select {
	case w.sent <- struct{}{}:
	default:
	}
	return n, err
}

func TestALockThatNobodyWaitedForIsReleased(t *testing.T) {
	n := startNode(t)
	sent := make(chan struct{}, 1)
	client := redis.NewClient(&redis.Options{ // deaf to contexts, so that it goes on
		Addr: n.Addr, ReadTimeout: patience, MaxRetries: -1,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return writing{conn, sent}, err
		},
	})
	defer client.Close()
	s := newStorage(t, client, redisstorage.Options{LeaseTTL: time.Minute})
	lease, ok := tryLock(t, s)
	require.True(t, ok)
	require.NoError(t, lease.Unlock(t.Context()))
	require.Equal(t, 1, calls(t, n, "set"))

	n.Stop()
	select {
	case <-sent:
	default:
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-sent // the server has it, and doesn't answer
		cancel()
	}()
	_, ok, err := s.TryLock(ctx, "p:a")
	require.False(t, ok)
	require.ErrorIs(t, err, context.Canceled)
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
