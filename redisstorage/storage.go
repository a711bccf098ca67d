// The storage as a Pipeline sees it. What runs on the server is scripts.go's,
// locks are lease.go's, pushes are watch.go's, shared failures are failure.go's.

// Package redisstorage keeps the tokens of requestforge in Redis, so that many
// processes share one login.
//
//	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs})
//	storage, err := redisstorage.New(client, redisstorage.Options{})
//	// …
//	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
//		Steps:   steps,
//		Storage: storage,
//	})
//
// It works with a single node, with Sentinel and with Cluster, where all keys
// of a pipeline are in one hash slot. Redis has to be 7.0 or later.
//
// # What it promises, and what Redis doesn't
//
// Each operation is one script on the server, and so atomic. Reads go to
// primaries: a replica that is asked refuses. A token and its mark are one
// key, evicted together.
//
// Redis replicates after it has answered. A failover can lose what was written
// last. A lost token is fetched again, a lost mark is written again by any
// process that knows it, and a lost lock can let two processes fetch at once.
//
// # Tokens are stored as they are
//
// Who can read the Redis can read the tokens, unless the Storage is wrapped in a
// [github.com/requestforge/requestforge/sealedstorage.Storage].
//
// # Permissions
//
// A user of Redis needs the commands EVALSHA, EVAL, HMGET, HSET, GET, SET,
// DEL, PTTL, PEXPIRE, PERSIST, PUBLISH, SUBSCRIBE, PING and ROLE, and for
// Options.Namespace "rf" the keys ~rf:* and the channels &rf:*. Without EVAL
// or EVALSHA nothing works. Without SUBSCRIBE revocations aren't pushed, and
// without ROLE a client of a replica isn't noticed until it is used.
package redisstorage

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/requestforge/requestforge"
)

// Options are the choices of a Storage. The zero value is a good one.
type Options struct {
	// Namespace is what each key and channel in Redis begins with, before
	// a colon. It has no braces, which would have a meaning in Cluster.
	// "" means "rf".
	Namespace string

	// LeaseTTL is how long a lock outlives a process that dies without a
	// word: that long the others wait for it at most. A process that
	// lives renews its lease three times as often. At least 100 ms; zero
	// means 10 s.
	LeaseTTL time.Duration
}

// Storage is a [requestforge.Storage] that also is a [requestforge.Locker], a
// [requestforge.Watcher] and a [requestforge.FailureStorage]. It is safe for
// concurrent use, and any number of them may share a client and a Redis.
//
// Each call returns when its context ends. What go-redis is doing then goes on
// until its own timeouts; set ContextTimeoutEnabled in its options and it ends
// with the context's deadline, too.
type Storage struct {
	client    redis.UniversalClient
	namespace string
	leaseTTL  time.Duration
}

var (
	_ requestforge.Storage        = (*Storage)(nil)
	_ requestforge.Locker         = (*Storage)(nil)
	_ requestforge.Watcher        = (*Storage)(nil)
	_ requestforge.FailureStorage = (*Storage)(nil)
)

const (
	defaultNamespace = "rf"
	defaultLeaseTTL  = 10 * time.Second
	minLeaseTTL      = 100 * time.Millisecond

	// roleTimeout bounds what New waits for Redis.
	roleTimeout = 500 * time.Millisecond

	// maxStamp is requestforge's: Lua has only floating-point numbers.
	maxStamp = 1<<53 - 1

	// minLife is the shortest that a key lives once it was written, so
	// that whoever races with a Save of an old record sees it.
	minLife = time.Minute
	// maxLife stands for ever. Expiry times beyond it would overflow.
	maxLife = 100 * 365 * 24 * time.Hour
)

// New returns a Storage on client, which stays the caller's to close. The error
// joins every mistake.
//
// A client that reads from replicas is one, because a revoked token would be
// used again until they have caught up. So is a [redis.Ring]: its processes
// don't agree on which shard has a key while one of them can't be reached, so
// that two hold one lock, and revoked tokens come back with the shard.
//
// A client of a single node or of Sentinel is asked once for its server's
// role, to find one that was pointed at a replica. That takes half a second at
// most. A Redis that can't be reached is no error: it may be back later.
func New(client redis.UniversalClient, opts Options) (*Storage, error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("requestforge: redisstorage: "+format, args...))
	}
	if opts.Namespace == "" {
		opts.Namespace = defaultNamespace
	}
	if strings.ContainsAny(opts.Namespace, "{}") {
		bad("Options.Namespace %q has a brace, which Redis Cluster would take for a hash tag", opts.Namespace)
	}
	switch {
	case opts.LeaseTTL == 0:
		opts.LeaseTTL = defaultLeaseTTL
	case opts.LeaseTTL < minLeaseTTL:
		bad("Options.LeaseTTL is %v; it has to be %v at least, or 0 for %v", opts.LeaseTTL, minLeaseTTL, defaultLeaseTTL)
	}
	if v := reflect.ValueOf(client); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		bad("the client is nil")
	} else if err := checkClient(client); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &Storage{client: client, namespace: opts.Namespace, leaseTTL: opts.LeaseTTL}, nil
}

// checkClient returns an error if client is known not to ask primaries only.
func checkClient(client redis.UniversalClient) error {
	switch c := client.(type) {
	case *redis.ClusterClient:
		o := c.Options()
		for _, option := range []struct {
			set  bool
			name string
		}{
			// The routing ones first: they set ReadOnly, too.
			{o.RouteByLatency, "RouteByLatency"},
			{o.RouteRandomly, "RouteRandomly"},
			{o.ReadOnly, "ReadOnly (or ReplicaOnly)"},
		} {
			if option.set {
				return fmt.Errorf("requestforge: redisstorage: the client has %s set and reads from replicas, where a revoked token lives on until they have caught up; use a client of its own, without that option", option.name)
			}
		}
	case *redis.Ring:
		return errors.New("requestforge: redisstorage: the client is a Ring, whose shards have no failover and hold different tokens while one can't be reached; use a single node, Sentinel or Cluster")
	case *redis.AutoPipeliner:
		return errors.New("requestforge: redisstorage: the client is an AutoPipeliner, which hides what it reads from; use the client that it was made from")
	case *redis.Client:
		// A FailoverClient doesn't tell its options, so the server is asked.
		ctx, cancel := context.WithTimeout(context.Background(), roleTimeout)
		defer cancel()
		reply, err := await(ctx, func() ([]any, error) { return c.Do(ctx, "ROLE").Slice() })
		if err == nil && len(reply) > 0 && reply[0] == "slave" {
			return errors.New("requestforge: redisstorage: the client talks to a replica, where a revoked token lives on until it has caught up; use a client that talks to the primary, without ReplicaOnly")
		}
	}
	return nil
}

// Load implements [requestforge.Storage]. All keys of a pipeline take one round
// trip. What can't be read as an entry counts as none.
func (s *Storage) Load(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
	entries := make([]requestforge.Entry, len(keys))
	for _, group := range s.bySlot(keys) {
		reply, err := s.run(ctx, loadScript, "load", group.keys, group.names)
		if err != nil {
			return nil, err
		}
		found, ok := reply.([]any)
		if !ok || len(found) != len(group.keys) {
			return nil, s.odd("load", group.keys)
		}
		for i, fields := range found {
			f, ok := fields.([]any)
			if !ok || len(f) != 3 {
				return nil, s.odd("load", group.keys[i:i+1])
			}
			entries[group.at[i]] = readFields(f).entry()
		}
	}
	return entries, nil
}

// Save implements [requestforge.Storage]. A stored record that can't be read
// counts as missing.
func (s *Storage) Save(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
	data, err := r.MarshalBinary()
	if err != nil {
		return requestforge.Entry{}, err
	}
	own, others := lives(r, time.Now())
	names := []string{s.tokenName(key)}
	for ancestor := range r.Lineage {
		if ancestor != key && sameSlot(ancestor, key) {
			names = append(names, s.tokenName(ancestor))
		}
	}
	expected := seen
	// Once more for each unreadable record that somebody puts in the way.
	for range 3 {
		reply, err := s.run(ctx, saveScript, "save", []string{key}, names, expected, r.Stamp, own, others, data)
		if err != nil {
			return requestforge.Entry{}, err
		}
		f, ok := reply.([]any)
		if !ok || len(f) != 4 {
			return requestforge.Entry{}, s.odd("save", []string{key})
		}
		stored := readFields(f[1:])
		switch f[0] {
		case saveStored:
			stored.record = data
			return stored.entry(), nil
		case saveFull:
			return requestforge.Entry{}, fmt.Errorf("requestforge: redisstorage: save %q: the next stamp is not below 2^53", key)
		case saveSeenOther:
			e := stored.entry()
			if e.Record != nil || seen != 0 || stored.stamp == expected {
				return e, nil
			}
			expected = stored.stamp
		default:
			return requestforge.Entry{}, s.odd("save", []string{key})
		}
	}
	return requestforge.Entry{}, fmt.Errorf("requestforge: redisstorage: save %q: what is stored there can't be read, and changes all the time", key)
}

// Revoke implements [requestforge.Storage], and tells those who watch.
func (s *Storage) Revoke(ctx context.Context, key string, stamp uint64) error {
	if stamp > maxStamp {
		return fmt.Errorf("requestforge: redisstorage: revoke %q: the stamp is not below 2^53", key)
	}
	_, err := s.run(ctx, revokeScript, "revoke", []string{key}, []string{s.tokenName(key)}, stamp, s.channel(key), key)
	return err
}

// Delete implements [requestforge.Storage], and tells those who watch.
func (s *Storage) Delete(ctx context.Context, keys ...string) error {
	for _, group := range s.bySlot(keys) {
		args := []any{s.channel(group.keys[0])}
		for _, key := range group.keys {
			args = append(args, key)
		}
		if _, err := s.run(ctx, deleteScript, "delete", group.keys, group.names, args...); err != nil {
			return err
		}
	}
	return nil
}

// lives returns for how many milliseconds from now a record is of use, and for
// how many its token can be; 0 is for ever. Clocks differ, so that these are
// measured by the writer's alone.
func lives(r requestforge.Record, now time.Time) (record, token int64) {
	if r.Token.Expiry.IsZero() {
		return 0, 0
	}
	// The record may be older than this call, or was written by another
	// clock. Too long does no harm.
	life := r.Token.Expiry.Sub(now)
	if !r.Issued.IsZero() {
		life = max(life, r.Token.Expiry.Sub(r.Issued))
	}
	token = millis(life)
	if r.Keep > 0 && token != 0 {
		record = millis(max(life, 0) + min(r.Keep, maxLife))
	}
	return record, token
}

func millis(d time.Duration) int64 {
	if d >= maxLife {
		return 0
	}
	return int64((max(d, minLife) + time.Millisecond - 1) / time.Millisecond)
}

// fields are those of a token's hash, as far as they can be read.
type fields struct {
	record      []byte
	stamp, mark uint64
}

func readFields(f []any) fields {
	record, _ := f[0].(string)
	stamp, okStamp := readStamp(f[1])
	mark, okMark := readStamp(f[2])
	if !okMark {
		// Without its mark a record is not to be trusted.
		return fields{stamp: stamp}
	}
	if !okStamp || stamp == 0 {
		return fields{mark: mark}
	}
	return fields{record: []byte(record), stamp: stamp, mark: mark}
}

// readStamp reads a stamp or mark as the scripts do. A missing one is 0.
func readStamp(v any) (uint64, bool) {
	if v == nil {
		return 0, true
	}
	text, _ := v.(string)
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil && text[0] != '+' && n <= maxStamp
}

func (f fields) entry() requestforge.Entry {
	e := requestforge.Entry{Mark: f.mark}
	r := new(requestforge.Record)
	if len(f.record) > 0 && r.UnmarshalBinary(f.record) == nil {
		// The one inside is the floor that Save was called with.
		r.Stamp = f.stamp
		e.Record = r
	}
	return e
}

// run runs a script on the names of keys.
func (s *Storage) run(ctx context.Context, script *redis.Script, op string, keys, names []string, args ...any) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, named(op, keys, err)
	}
	reply, err := await(ctx, func() (any, error) {
		reply, err := script.Run(ctx, s.client, names, args...).Result()
		if errors.Is(err, redis.Nil) {
			return nil, nil
		}
		s.learn(ctx, err)
		return reply, err
	})
	if err != nil {
		return nil, named(op, keys, err)
	}
	return reply, nil
}

// learn makes the client of a Cluster ask who is primary now, if err may mean
// that the one it knew is gone. By itself it would ask in a minute.
func (s *Storage) learn(ctx context.Context, err error) {
	var server redis.Error
	if c, ok := s.client.(*redis.ClusterClient); ok && err != nil && !errors.As(err, &server) {
		c.ReloadState(ctx)
	}
}

// await returns what call does, or the context's error if that is over first.
// go-redis looks at a context while it waits for a connection, and at its
// deadline if told to, but at nothing while it waits for an answer.
func await[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type result struct {
		val T
		err error
	}
	done := make(chan result, 1)
	go func() {
		val, err := call()
		done <- result{val, err}
	}()
	select {
	case r := <-done:
		return r.val, r.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

// named says in an error what failed. Of what the server said only the first
// word stays, its code: the rest can quote the arguments, and so a token.
func named(op string, keys []string, err error) error {
	what := fmt.Sprintf("requestforge: redisstorage: %s %q", op, keys)
	var server redis.Error
	if !errors.As(err, &server) {
		return fmt.Errorf("%s: %w", what, err)
	}
	code, _, _ := strings.Cut(server.Error(), " ")
	if hint := hints[code]; hint != "" {
		return fmt.Errorf("%s: Redis says %s: %s", what, code, hint)
	}
	return fmt.Errorf("%s: Redis says %.40q", what, code)
}

var hints = map[string]string{
	"WRONGTYPE": "something else is stored under the key",
	"READONLY":  "the server is a replica",
	"OOM":       "its memory is used up",
	"NOPERM":    "its user lacks a permission; the package documentation has the list",
	"NOAUTH":    "the client has no password",
	"WRONGPASS": "the client's password is wrong",
	"LOADING":   "it is still starting",
}

// odd is the error for an answer that our scripts don't give.
func (s *Storage) odd(op string, keys []string) error {
	return fmt.Errorf("requestforge: redisstorage: %s %q: Redis gave an answer of an unknown kind", op, keys)
}
