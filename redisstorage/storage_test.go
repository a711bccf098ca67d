package redisstorage_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/redisstorage"
	"github.com/requestforge/requestforge/redisstorage/internal/redistest"
)

func TestStorageKeepsTheRules(t *testing.T) {
	if addr := os.Getenv(sharedVariable); addr != "" {
		conform(t, newClient(t, "", addr))
		return
	}
	t.Parallel()
	t.Run("single node", func(t *testing.T) {
		conform(t, newClient(t, "", startNode(t).Addr))
	})
	t.Run("Sentinel", func(t *testing.T) {
		conform(t, newClient(t, redistest.Name, startSentinel(t).Addrs()...))
	})
	t.Run("Cluster", func(t *testing.T) {
		conform(t, newClient(t, "", startCluster(t).Addrs()...))
	})
}

func conform(t *testing.T, client redis.UniversalClient) {
	authtest.TestStorage(t, func(t *testing.T) requestforge.Storage {
		return newStorage(t, client, redisstorage.Options{Namespace: namespace(), LeaseTTL: time.Minute})
	})
}

func TestNewReportsEveryMistake(t *testing.T) {
	_, err := redisstorage.New(nil, redisstorage.Options{Namespace: "a{b", LeaseTTL: -time.Second})
	require.ErrorContains(t, err, "the client is nil")
	require.ErrorContains(t, err, "Namespace")
	require.ErrorContains(t, err, "LeaseTTL is -1s")

	var none *redis.Client
	_, err = redisstorage.New(none, redisstorage.Options{LeaseTTL: time.Millisecond})
	require.ErrorContains(t, err, "the client is nil")
	require.ErrorContains(t, err, "LeaseTTL is 1ms")
	_, err = redisstorage.New(none, redisstorage.Options{LeaseTTL: 61 * time.Minute})
	require.ErrorContains(t, err, "LeaseTTL is 1h1m0s")
}

func TestNewRefusesClientsThatDontReadFromPrimaries(t *testing.T) {
	n := startNode(t)
	replica := startNode(t, "--replicaof", strings.Replace(n.Addr, ":", " ", 1))
	s := startSentinel(t)
	for name, c := range map[string]struct {
		client redis.UniversalClient
		want   string
	}{
		"Cluster, read only": {
			redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{n.Addr}, ReadOnly: true}), "ReadOnly"},
		"Cluster, by latency": {
			redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{n.Addr}, RouteByLatency: true}), "RouteByLatency"},
		"Cluster, randomly": {
			redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{n.Addr}, RouteRandomly: true}), "RouteRandomly"},
		"Sentinel, randomly": {
			redis.NewFailoverClusterClient(&redis.FailoverOptions{MasterName: redistest.Name, SentinelAddrs: s.Addrs(), RouteRandomly: true}), "RouteRandomly"},
		"Sentinel as a Cluster, replicas only": {
			redis.NewFailoverClusterClient(&redis.FailoverOptions{MasterName: redistest.Name, SentinelAddrs: s.Addrs(), ReplicaOnly: true}), "ReplicaOnly"},
		"Sentinel, replicas only": {
			redis.NewFailoverClient(&redis.FailoverOptions{MasterName: redistest.Name, SentinelAddrs: s.Addrs(), ReplicaOnly: true}), "a replica"},
		"a replica": {
			redis.NewClient(&redis.Options{Addr: replica.Addr}), "a replica"},
		"Ring": {
			redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": n.Addr}}), "Ring"},
	} {
		t.Run(name, func(t *testing.T) {
			defer c.client.Close()
			// A server that is asked for its role and doesn't answer at
			// once is taken to be down, which is no mistake.
			var err error
			eventually(t, "it is refused", func() bool {
				_, err = redisstorage.New(c.client, redisstorage.Options{})
				return err != nil
			})
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestNewWorksWhileRedisIsDown(t *testing.T) {
	n := startNode(t)
	n.Kill()
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	require.NoError(t, n.Restart())
	save(t, s, record("p:a", "x"))
}

// A replica that was promoted to nothing yet, or a client that hides what it
// is: the scripts themselves don't run there.
func TestReplicasRefuseReads(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	save(t, s, record("p:a", "x"))
	other := startNode(t)
	require.NoError(t, n.Client().Do(t.Context(), "REPLICAOF", "127.0.0.1", strings.TrimPrefix(other.Addr, "127.0.0.1:")).Err())
	_, err := s.Load(within(t, patience), "p:a")
	require.ErrorContains(t, err, "the server is a replica")
}

func TestAPipelineIsInOneSlot(t *testing.T) {
	n := startNode(t, "--cluster-enabled", "yes")
	slotOf := func(prefix string, steps ...string) []int64 {
		t.Helper()
		var slots []int64
		for _, step := range steps {
			for _, kind := range []string{"token", "lock", "failure"} {
				name := "rf:" + kind + ":{" + prefix + "}:" + step
				slots = append(slots, n.Client().ClusterKeySlot(t.Context(), name).Val())
			}
		}
		return slots
	}
	for _, prefix := range []string{"requestforge", "a:b", "%", "a%7Bb%7D%25"} {
		slots := slotOf(prefix, "device", "app", "user%7B1%7D")
		for _, s := range slots {
			require.Equal(t, slots[0], s, prefix)
		}
	}
}

func TestNamesInRedis(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	other := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{Namespace: "other"})
	for key, want := range map[string]string{
		"requestforge:user": "rf:token:{requestforge}:user",
		"a:b:user":          "rf:token:{a:b}:user",
		":user":             "rf:token:{%}:user",
		"user":              "rf:token:{user}",
		"user:":             "rf:token:{user}:",
		"":                  "rf:token:{%}",
		"a{b}%:user":        "rf:token:{a%7Bb%7D%25}:user",

		// Of subjects: in the slot of the step.
		"a:b:user@1/AbC": "rf:token:{a:b}:user@1/AbC",
		"a/b:user/AbC":   "rf:token:{a/b}:user/AbC",
		"user/AbC/x":     "rf:token:{user}/AbC/x",
		"/AbC":           "rf:token:{%}/AbC",
	} {
		save(t, s, record(key, "x"))
		require.Equal(t, int64(1), n.Client().Exists(t.Context(), want).Val(), key)
		require.Equal(t, requestforge.Entry{}, load(t, other, key))
	}
	lease, _, err := s.TryLock(t.Context(), "p:a")
	require.NoError(t, err)
	defer lease.Unlock(t.Context())
	require.NoError(t, s.SaveFailure(t.Context(), "p:a", requestforge.Failure{Left: time.Minute}))
	require.Equal(t, int64(2), n.Client().Exists(t.Context(), "rf:lock:{p}:a", "rf:failure:{p}:a").Val())
}

func TestALoadTakesOneRoundTrip(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	load(t, s, "p:a") // the script is there from now on
	before := calls(t, n, "evalsha")
	_, err := s.Load(t.Context(), "p:a", "p:b", "p:c", "p:a")
	require.NoError(t, err)
	require.Equal(t, before+1, calls(t, n, "evalsha"))
}

// Hundreds of subjects are loaded at once, in one round trip for each pipeline's slot.
func TestALoadOfManySubjectsTakesOneRoundTripASlot(t *testing.T) {
	n := startNode(t)
	client := newClient(t, "", n.Addr)
	s := newStorage(t, client, redisstorage.Options{})
	load(t, s, "p:a") // the script is there from now on
	many := func(prefixes ...string) (keys []string) {
		for i := range 500 {
			keys = append(keys, fmt.Sprintf("%s:user@1/subject-%d", prefixes[i%len(prefixes)], i))
		}
		return keys
	}
	for slots, keys := range map[int][]string{1: many("p"), 3: many("p", "q", "r")} {
		for i, key := range keys {
			if i%2 == 0 {
				save(t, s, record(key, "token of "+key))
			} else if i%3 == 0 {
				require.NoError(t, s.Revoke(t.Context(), key, uint64(i)))
			}
		}
		before := calls(t, n, "evalsha")
		entries, err := s.Load(t.Context(), keys...)
		require.NoError(t, err)
		require.Equal(t, before+slots, calls(t, n, "evalsha"))
		require.Len(t, entries, len(keys))
		for i, key := range keys {
			switch {
			case i%2 == 0:
				require.Equal(t, "token of "+key, entries[i].Record.Token.AccessToken)
			case i%3 == 0:
				require.Equal(t, requestforge.Entry{Mark: uint64(i)}, entries[i])
			default:
				require.Equal(t, requestforge.Entry{}, entries[i])
			}
		}
	}

	// An error doesn't name them all.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Load(ctx, many("p")...)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, `"p:user@1/subject-0"`)
	require.ErrorContains(t, err, "and 495 more")
	require.Less(t, len(err.Error()), 300)
}

// Nobody tells Redis that a subject is gone. Whatever there is of one has an expiry, and
// what is done for others doesn't put it off.
func TestKeysOfSubjectsWhoAreGoneExpire(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{LeaseTTL: time.Minute})
	ctx, now := t.Context(), time.Now()
	app := record("p:app@1", "app")
	save(t, s, app)
	user := func(name string, keep time.Duration) requestforge.Record {
		r := record("p:user@2/"+name, "x")
		r.Token.Expiry, r.Issued, r.Keep, r.Lineage = now.Add(time.Hour), now, keep, map[string]uint64{app.Key: 1}
		return r
	}
	var lease requestforge.Lease
	want := map[string]time.Duration{"token:{p}:app@1": idleLife}
	for name, test := range map[string]struct {
		kind   string
		change func(key string)
		lives  time.Duration
	}{
		"record":    {"token", func(key string) { save(t, s, user("record", time.Hour)) }, 2 * time.Hour},
		"unknown":   {"token", func(key string) { save(t, s, user("unknown", 0)) }, idleLife},
		"revoked":   {"token", func(key string) { save(t, s, user("revoked", time.Hour)); s.Revoke(ctx, key, 1) }, 2 * time.Hour},
		"mark":      {"token", func(key string) { s.Revoke(ctx, key, 7) }, lostLife},
		"tombstone": {"token", func(key string) { save(t, s, user("tombstone", time.Hour)); remove(t, s, key) }, lostLife},
		"failure":   {"failure", func(key string) { s.SaveFailure(ctx, key, requestforge.Failure{StatusCode: 400, Left: time.Hour}) }, time.Hour},
		"lock":      {"lock", func(key string) { lease, _, _ = s.TryLock(ctx, key) }, time.Minute}, // nobody unlocks
	} {
		test.change("p:user@2/" + name)
		want[test.kind+":{p}:user@2/"+name] = test.lives
	}
	// The life of others goes on.
	for i := range 10 {
		_, err := s.Load(ctx, "p:app@1", "p:user@2/record", "p:user@2/revoked", "p:user@2/mark", "p:user@2/tombstone")
		require.NoError(t, err)
		save(t, s, user(fmt.Sprint(i), 100*time.Hour))
		want[fmt.Sprint("token:{p}:user@2/", i)] = 101 * time.Hour
		save(t, s, app)
	}
	names, err := n.Client().Keys(ctx, "*").Result()
	require.NoError(t, err)
	require.Len(t, names, len(want))
	for _, name := range names {
		left := n.Client().PTTL(ctx, name).Val()
		require.InDelta(t, want[strings.TrimPrefix(name, "rf:")].Seconds(), left.Seconds(), 60, name)
		require.Positive(t, left, name)
	}
	require.NoError(t, lease.Unlock(ctx))
}

// idleLife is how long a key lives that nobody looks at, if nobody knows how long it is
// of use, and lostLife how long one lives of which something was lost.
const (
	idleLife = 400 * 24 * time.Hour
	lostLife = 30 * 24 * time.Hour
)

// ttl returns how long the token of a key still has. It always has an expiry.
func ttl(t *testing.T, n *redistest.Node, key string) time.Duration {
	t.Helper()
	left, err := n.Client().PTTL(t.Context(), "rf:token:{p}:"+key).Result()
	require.NoError(t, err)
	require.NotEqual(t, time.Duration(-2), left, "there is no key")
	require.Positive(t, left, "the key has no expiry")
	return left
}

func TestAKeyOutlivesWhatItsMarkCondemns(t *testing.T) {
	const hour = time.Hour
	now := time.Now()
	expiring := func(key string, life, keep time.Duration, parents ...string) requestforge.Record {
		r := record("p:"+key, "x")
		r.Token.Expiry, r.Issued, r.Keep = now.Add(life), now, keep
		r.Lineage = make(map[string]uint64)
		for _, p := range parents {
			r.Lineage["p:"+p] = 1
		}
		return r
	}
	about := func(t *testing.T, want, got time.Duration) {
		t.Helper()
		require.InDelta(t, want.Seconds(), got.Seconds(), 60)
	}
	start := func(t *testing.T) (*redistest.Node, *redisstorage.Storage) {
		n := startNode(t)
		return n, newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	}
	t.Run("expiry and Keep", func(t *testing.T) {
		n, s := start(t)
		save(t, s, expiring("a", hour, 2*hour))
		about(t, 3*hour, ttl(t, n, "a"))
	})
	t.Run("Keep 0 is until replaced", func(t *testing.T) {
		n, s := start(t)
		save(t, s, expiring("a", hour, 0))
		about(t, idleLife, ttl(t, n, "a"))
	})
	t.Run("no expiry", func(t *testing.T) {
		n, s := start(t)
		r := record("p:a", "x")
		r.Keep = hour
		save(t, s, r)
		about(t, idleLife, ttl(t, n, "a"))
	})
	t.Run("an expiry beyond all calendars", func(t *testing.T) {
		n, s := start(t)
		save(t, s, expiring("a", 250*365*24*hour, 1<<63-1))
		about(t, idleLife, ttl(t, n, "a"))
	})
	t.Run("expired long ago", func(t *testing.T) {
		n, s := start(t)
		r := expiring("a", -1000*hour, hour)
		r.Issued = now.Add(-1001 * hour)
		save(t, s, r)
		require.NotNil(t, load(t, s, "p:a").Record)
		require.Positive(t, ttl(t, n, "a"))
	})
	t.Run("written by a clock five minutes off", func(t *testing.T) {
		for _, off := range []time.Duration{-5 * time.Minute, 5 * time.Minute} {
			n, s := start(t)
			r := expiring("a", 10*time.Minute, hour)
			r.Token.Expiry, r.Issued = r.Token.Expiry.Add(off), r.Issued.Add(off)
			save(t, s, r)
			require.GreaterOrEqual(t, ttl(t, n, "a"), hour+10*time.Minute-time.Minute, off)
		}
	})
	t.Run("a shorter token keeps the longer expiry", func(t *testing.T) {
		n, s := start(t)
		save(t, s, expiring("a", 10*hour, hour))
		save(t, s, expiring("a", hour, hour))
		about(t, 11*hour, ttl(t, n, "a"))
	})
	t.Run("a longer token puts it off", func(t *testing.T) {
		n, s := start(t)
		save(t, s, expiring("a", hour, hour))
		save(t, s, expiring("a", 10*hour, hour))
		about(t, 11*hour, ttl(t, n, "a"))
	})
	t.Run("a child puts its ancestors' off", func(t *testing.T) {
		n, s := start(t)
		save(t, s, expiring("a", hour, hour))
		save(t, s, expiring("b", hour, hour, "a"))
		save(t, s, expiring("c", 24*hour, hour, "a", "b", "missing"))
		about(t, 24*hour, ttl(t, n, "a"))
		about(t, 24*hour, ttl(t, n, "b"))
		about(t, 25*hour, ttl(t, n, "c"))
		forever := record("p:d", "x")
		forever.Lineage = map[string]uint64{"p:a": 1, "elsewhere:e": 1}
		save(t, s, forever)
		about(t, idleLife, ttl(t, n, "a"))
	})
	t.Run("a tombstone stays for 30 days", func(t *testing.T) {
		n, s := start(t)
		save(t, s, expiring("a", hour, hour))
		remove(t, s, "p:a")
		about(t, lostLife, ttl(t, n, "a"))
		save(t, s, expiring("a", hour, hour))
		about(t, lostLife, ttl(t, n, "a"))
		remove(t, s, "p:b")
		about(t, lostLife, ttl(t, n, "b"))
	})
	t.Run("and for the Keep of the record that it ended", func(t *testing.T) {
		n, s := start(t)
		save(t, s, expiring("a", hour, 3*lostLife))
		require.NoError(t, n.Client().PExpire(t.Context(), "rf:token:{p}:a", hour).Err()) // it has expired long ago
		remove(t, s, "p:a")
		about(t, 3*lostLife, ttl(t, n, "a"))
	})
	t.Run("and for as long as there is a record", func(t *testing.T) {
		n, s := start(t)
		gone := remove(t, s, "p:a").Gone
		save(t, s, expiring("a", 2*lostLife, hour))
		about(t, 2*lostLife+hour, ttl(t, n, "a"))
		require.Equal(t, gone, load(t, s, "p:a").Gone)
	})
	t.Run("of a record of unknown use: 30 days", func(t *testing.T) {
		n, s := start(t)
		save(t, s, record("p:a", "x"))
		remove(t, s, "p:a")
		about(t, lostLife, ttl(t, n, "a"))
		load(t, s, "p:a")
		about(t, lostLife, ttl(t, n, "a"))
	})
	t.Run("Revoke leaves it", func(t *testing.T) {
		n, s := start(t)
		save(t, s, expiring("a", hour, hour))
		require.NoError(t, s.Revoke(t.Context(), "p:a", 1))
		about(t, 2*hour, ttl(t, n, "a"))
	})
	t.Run("a mark alone stays for a while", func(t *testing.T) {
		n, s := start(t)
		require.NoError(t, s.Revoke(t.Context(), "p:a", 7))
		about(t, lostLife, ttl(t, n, "a"))
		save(t, s, expiring("a", hour, hour))
		about(t, lostLife, ttl(t, n, "a"))
		save(t, s, expiring("a", 2*lostLife, hour))
		about(t, 2*lostLife+hour, ttl(t, n, "a"))
	})
	t.Run("what was lost comes back to stay for a while", func(t *testing.T) {
		n, s := start(t)
		r := expiring("a", hour, hour)
		r.Stamp = 7
		save(t, s, r)
		about(t, lostLife, ttl(t, n, "a"))
	})
	t.Run("of unknown use: as long as somebody looks", func(t *testing.T) {
		n, s := start(t)
		save(t, s, expiring("a", hour, 0))
		require.NoError(t, n.Client().PExpire(t.Context(), "rf:token:{p}:a", 48*hour).Err())
		load(t, s, "p:a")
		about(t, idleLife, ttl(t, n, "a"))
		save(t, s, expiring("a", hour, hour))
		about(t, idleLife, ttl(t, n, "a"))
	})
	t.Run("of known use: looking changes nothing", func(t *testing.T) {
		n, s := start(t)
		save(t, s, expiring("a", hour, hour))
		load(t, s, "p:a")
		about(t, 2*hour, ttl(t, n, "a"))
	})
	t.Run("a key whose expiry somebody has taken away gets one", func(t *testing.T) {
		for name, call := range map[string]func(s *redisstorage.Storage) error{
			"Load": func(s *redisstorage.Storage) error { _, err := s.Load(t.Context(), "p:a"); return err },
			"Save": func(s *redisstorage.Storage) error {
				_, err := s.Save(t.Context(), "p:a", expiring("a", hour, hour), 1)
				return err
			},
			"Revoke": func(s *redisstorage.Storage) error { return s.Revoke(t.Context(), "p:a", 1) },
		} {
			n, s := start(t)
			save(t, s, expiring("a", hour, hour))
			require.NoError(t, n.Client().Persist(t.Context(), "rf:token:{p}:a").Err())
			require.NoError(t, call(s), name)
			about(t, idleLife, ttl(t, n, "a"))
		}
	})
}

func TestAnExpiredKeyTakesItsMarkAlong(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	save(t, s, record("p:a", "x"))
	require.NoError(t, s.Revoke(t.Context(), "p:a", 1))
	require.NoError(t, n.Client().PExpire(t.Context(), "rf:token:{p}:a", time.Millisecond).Err())
	eventually(t, "the key is gone", func() bool { return load(t, s, "p:a") == (requestforge.Entry{}) })
}

func TestEvictionTakesTokenAndMarkTogether(t *testing.T) {
	n := startNode(t, "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	save(t, s, record("p:a", "x"))
	require.NoError(t, s.Revoke(t.Context(), "p:a", 1))
	filler := strings.Repeat("x", 10_000)
	for i := range 100_000 {
		require.NoError(t, n.Client().Set(t.Context(), "filler"+strings.Repeat("y", i%100)+time.Now().String(), filler, 0).Err())
		if i%50 != 0 {
			continue
		}
		exists := n.Client().Exists(t.Context(), "rf:token:{p}:a").Val() == 1
		// Loading is using, so that it is looked at only when gone.
		if !exists {
			require.Equal(t, requestforge.Entry{}, load(t, s, "p:a"))
			save(t, s, record("p:a", "again"))
			return
		}
	}
	t.Fatal("the key was never evicted")
}

func TestAFullMemoryIsAnErrorButRevocationsGetThrough(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	save(t, s, record("p:a", "x"))
	require.NoError(t, n.Client().ConfigSet(t.Context(), "maxmemory", "1").Err())
	_, err := s.Save(t.Context(), "p:a", record("p:a", "y"), 1)
	require.ErrorContains(t, err, "memory is used up")
	require.NoError(t, s.Revoke(t.Context(), "p:a", 1))
	e := load(t, s, "p:a")
	require.Equal(t, uint64(1), e.Mark)
	require.Equal(t, "x", e.Record.Token.AccessToken)
	remove(t, s, "p:a")
}

func TestScriptsComeBackAfterAFlush(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	for range 2 {
		save(t, s, record("p:a", "x"))
		require.NoError(t, s.Revoke(t.Context(), "p:a", 1))
		lease, ok, err := s.TryLock(t.Context(), "p:a")
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, n.Client().ScriptFlush(t.Context()).Err())
		require.NoError(t, lease.Unlock(t.Context()))
		remove(t, s, "p:a")
		require.NoError(t, n.Client().ScriptFlush(t.Context()).Err())
	}
}

func TestStampsRiseAfterEverythingWasLost(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	save(t, s, record("p:a", "x"))
	require.NoError(t, n.Client().FlushAll(t.Context()).Err())
	require.Equal(t, requestforge.Entry{}, load(t, s, "p:a"))
	r := record("p:a", "y")
	r.Stamp = 41
	require.Equal(t, uint64(42), save(t, s, r).Record.Stamp)
}

// Lua would write 1e+14 for it.
func TestLargeStampsAreExact(t *testing.T) {
	s := newStorage(t, newClient(t, "", startNode(t).Addr), redisstorage.Options{})
	r := record("p:a", "x")
	r.Stamp = 1<<53 - 3
	require.Equal(t, uint64(1<<53-2), save(t, s, r).Record.Stamp)
	require.NoError(t, s.Revoke(t.Context(), "p:a", 1<<53-2))
	require.Equal(t, uint64(1<<53-2), load(t, s, "p:a").Mark)
	require.Equal(t, uint64(1<<53-1), save(t, s, record("p:a", "y")).Record.Stamp)
	_, err := s.Save(t.Context(), "p:a", record("p:a", "z"), 1<<53-1)
	require.ErrorContains(t, err, "2^53")
	require.Equal(t, "y", load(t, s, "p:a").Record.Token.AccessToken)
}

func TestSomethingElseUnderOurKey(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	save(t, s, record("p:a", "x"))
	require.NoError(t, n.Client().Set(t.Context(), "rf:token:{p}:b", "somebody's", 0).Err())
	require.NoError(t, n.Client().RPush(t.Context(), "rf:failure:{p}:b", "somebody's").Err())
	require.NoError(t, n.Client().RPush(t.Context(), "rf:lock:{p}:b", "somebody's").Err())

	entries, err := s.Load(t.Context(), "p:b", "p:a", "p:b")
	require.NoError(t, err, "one bad key is not to spoil the others")
	require.Nil(t, entries[0].Record)
	require.NotNil(t, entries[1].Record)

	_, saveErr := s.Save(t.Context(), "p:b", record("p:b", "top secret"), 0)
	revokeErr := s.Revoke(t.Context(), "p:b", 1)
	_, _, lockErr := s.TryLock(t.Context(), "p:b")
	for _, err := range []error{saveErr, revokeErr, lockErr} {
		require.ErrorContains(t, err, `"p:b"`)
		require.ErrorContains(t, err, "something else is stored under the key")
		require.NotContains(t, err.Error(), "secret")
		require.NotContains(t, err.Error(), "somebody")
	}
	require.Positive(t, n.Client().PTTL(t.Context(), "rf:lock:{p}:b").Val(), "what is no lock locks nobody out for ever")
	f, err := s.LoadFailure(t.Context(), "p:b")
	require.NoError(t, err)
	require.Zero(t, f)
}

func TestGarbageIsAMissAndIsReplaced(t *testing.T) {
	const name = "rf:token:{p}:a"
	for _, c := range []struct {
		title    string
		field    string
		value    string
		wantMark uint64
	}{
		{"record", "r", "rf1:{nonsense", 5},
		{"record of another version", "r", "rf9:{}", 5},
		{"empty record", "r", "", 5},
		{"stamp", "s", "one", 5},
		{"stamp in hexadecimal", "s", "0x10", 5},
		{"stamp with a sign", "s", "+7", 5},
		{"negative stamp", "s", "-7", 5},
		{"fraction", "s", "7.5", 5},
		{"stamp beyond 2^53", "s", "9007199254740992", 5},
		{"zero stamp", "s", "0", 5},
		{"mark", "m", "five", 0},
		{"empty mark", "m", "", 0},
		{"mark beyond 2^53", "m", "9007199254740993", 0},
		{"tombstone", "g", "seven", 0},
		{"empty tombstone", "g", "", 0},
		{"tombstone beyond 2^53", "g", "9007199254740993", 0},
	} {
		t.Run(c.title, func(t *testing.T) {
			n := startNode(t)
			s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
			for range 7 {
				save(t, s, record("p:a", "old"))
			}
			require.NoError(t, s.Revoke(t.Context(), "p:a", 5))
			require.NoError(t, n.Client().HSet(t.Context(), name, c.field, c.value).Err())
			require.Equal(t, requestforge.Entry{Mark: c.wantMark}, load(t, s, "p:a"))

			e := save(t, s, record("p:a", "new"))
			require.Equal(t, c.wantMark, e.Mark)
			require.Greater(t, e.Record.Stamp, c.wantMark)
			e = load(t, s, "p:a")
			require.Equal(t, "new", e.Record.Token.AccessToken)
			require.NoError(t, s.Revoke(t.Context(), "p:a", e.Record.Stamp))
			require.Equal(t, e.Record.Stamp, load(t, s, "p:a").Mark)
		})
	}
}

// A record that can't be read counts as missing, whatever a Save has seen; unless
// that is from before a logout.
func TestGarbageInPlaceOfTheRecordSeen(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	seen := save(t, s, record("p:a", "old")).Record.Stamp
	save(t, s, record("p:a", "newer"))
	require.NoError(t, n.Client().HSet(t.Context(), "rf:token:{p}:a", "r", "garbage").Err())
	e, err := s.Save(t.Context(), "p:a", record("p:a", "mine"), seen)
	require.NoError(t, err)
	require.Equal(t, "mine", e.Record.Token.AccessToken)

	gone := remove(t, s, "p:a").Gone
	save(t, s, record("p:a", "newer"))
	require.NoError(t, n.Client().HSet(t.Context(), "rf:token:{p}:a", "r", "garbage").Err())
	old, err := s.Save(t.Context(), "p:a", record("p:a", "from before"), seen)
	require.NoError(t, err)
	require.Equal(t, requestforge.Entry{Gone: gone}, old)
	old, err = s.Delete(t.Context(), "p:a", gone)
	require.NoError(t, err)
	require.Greater(t, old.Gone, gone)
	require.Nil(t, old.Record)
	require.Equal(t, old, load(t, s, "p:a"))
}

func TestCallsEndWithTheirContext(t *testing.T) {
	n := startNode(t)
	// As go-redis is by default: deaf to contexts.
	client := redis.NewClient(&redis.Options{Addr: n.Addr})
	defer client.Close()
	s := newStorage(t, client, redisstorage.Options{})
	save(t, s, record("p:a", "x"))
	lease, _, err := s.TryLock(t.Context(), "p:lock")
	require.NoError(t, err)
	n.Stop()
	defer n.Resume()
	bye := errors.New("bye")
	for name, call := range map[string]func(ctx context.Context) error{
		"Load":        func(ctx context.Context) error { _, err := s.Load(ctx, "p:a"); return err },
		"Save":        func(ctx context.Context) error { _, err := s.Save(ctx, "p:a", record("p:a", "y"), 1); return err },
		"Revoke":      func(ctx context.Context) error { return s.Revoke(ctx, "p:a", 1) },
		"Delete":      func(ctx context.Context) error { _, err := s.Delete(ctx, "p:a", 1); return err },
		"TryLock":     func(ctx context.Context) error { _, _, err := s.TryLock(ctx, "p:a"); return err },
		"Unlock":      lease.Unlock,
		"LoadFailure": func(ctx context.Context) error { _, err := s.LoadFailure(ctx, "p:a"); return err },
		"SaveFailure": func(ctx context.Context) error { return s.SaveFailure(ctx, "p:a", requestforge.Failure{Left: 1}) },
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Millisecond, func() { cancel(bye) })
		require.ErrorIs(t, call(ctx), bye, name) // go-redis has an error of its own, much later
	}
}

func TestErrorsDontShowWhatTheServerQuotes(t *testing.T) {
	n := startNode(t, "--rename-command", "EVALSHA", "", "--rename-command", "EVAL", "")
	n.Kill() // or New says it
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	require.NoError(t, n.Restart())
	_, err := s.Save(t.Context(), "p:a", record("p:a", "x"), 0)
	require.ErrorContains(t, err, `save ["p:a"]: Redis says "ERR": it doesn't know a command`)
	require.NotContains(t, err.Error(), "rf1:")
}

func TestFailuresAreShared(t *testing.T) {
	n := startNode(t)
	s := newStorage(t, newClient(t, "", n.Addr), redisstorage.Options{})
	ctx := t.Context()
	f, err := s.LoadFailure(ctx, "p:a")
	require.NoError(t, err)
	require.Zero(t, f)

	want := requestforge.Failure{Fingerprint: "f", StatusCode: 401, Code: "invalid_client", Permanent: true, Left: time.Minute}
	require.NoError(t, s.SaveFailure(ctx, "p:a", want))
	f, err = s.LoadFailure(ctx, "p:a")
	require.NoError(t, err)
	require.LessOrEqual(t, f.Left, time.Minute)
	require.Greater(t, f.Left, time.Minute/2)
	f.Left = want.Left
	require.Equal(t, want, f)
	require.Equal(t, requestforge.Entry{}, load(t, s, "p:a"))

	require.NoError(t, s.SaveFailure(ctx, "p:a", requestforge.Failure{}))
	f, err = s.LoadFailure(ctx, "p:a")
	require.NoError(t, err)
	require.Zero(t, f)

	want.Left = time.Nanosecond // as short as Redis can
	require.NoError(t, s.SaveFailure(ctx, "p:a", want))
	eventually(t, "it is forgotten", func() bool {
		f, err := s.LoadFailure(ctx, "p:a")
		return err == nil && f == requestforge.Failure{}
	})

	// A failure without expiry isn't one of ours, and goes.
	require.NoError(t, n.Client().Set(ctx, "rf:failure:{p}:a", `{"fingerprint":"f"}`, 0).Err())
	f, err = s.LoadFailure(ctx, "p:a")
	require.NoError(t, err)
	require.Zero(t, f)
	require.Zero(t, n.Client().Exists(ctx, "rf:failure:{p}:a").Val())

	// The longest that there is has an expiry, too.
	want.Left = math.MaxInt64
	require.NoError(t, s.SaveFailure(ctx, "p:a", want))
	require.Positive(t, n.Client().PTTL(ctx, "rf:failure:{p}:a").Val())
	f, err = s.LoadFailure(ctx, "p:a")
	require.NoError(t, err)
	require.Greater(t, f.Left, 365*24*time.Hour)
	require.NoError(t, n.Client().Do(ctx, "PEXPIRE", "rf:failure:{p}:a", int64(1)<<52).Err())
	f, err = s.LoadFailure(ctx, "p:a")
	require.NoError(t, err)
	require.Greater(t, f.Left, 365*24*time.Hour)

	require.NoError(t, n.Client().Set(ctx, "rf:failure:{p}:a", `nonsense`, time.Minute).Err())
	f, err = s.LoadFailure(ctx, "p:a")
	require.NoError(t, err)
	require.Zero(t, f)
}
