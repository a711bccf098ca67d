// The storage as a Pipeline sees it. The server's scripts are in scripts.go, locks in
// lease.go, pushes in watch.go, shared failures in failure.go.

// Package redisstorage keeps the tokens of requestforge in Redis, so that many processes
// share one login.
//
//	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs})
//	storage, err := redisstorage.New(client, redisstorage.Options{})
//	// …
//	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
//		Steps:   steps,
//		Storage: storage,
//	})
//
// The client may be for a single node, for Sentinel or for Cluster, where all keys of a
// pipeline are in one hash slot. Redis has to be 7.0 or later.
//
// # Guarantees, and the limits of Redis
//
// Each operation is one script on the server, and so atomic. Reads go to primaries: a
// replica refuses the scripts. A token and its mark are one key, evicted together.
//
// Redis replicates after answering, so a failover can lose the latest writes. A lost
// token is fetched again. A lost mark is written again by any process that knows the
// mark. A lost lock can let two processes fetch at once.
//
// # Expiry
//
// Each key has an expiry. A record whose Keep is zero, or whose token has no expiry, is
// dropped after 400 days without a Load. A mark or a tombstone without a record is
// dropped after 30 days at the earliest.
//
// So the keys of a departed subject disappear by themselves, locks and failures included.
// All keys of a pipeline are on one node of a Cluster, including the keys of all
// subjects: spread very many subjects over pipelines with a KeyPrefix each.
//
// A key from elsewhere, such as an old copy of the database, may lack an expiry. A lock
// without expiry, or with an expiry above an hour, is taken over after a tenth of
// Options.LeaseTTL. A failure without expiry is deleted. A value longer than the longest
// record (4 MiB) counts as missing and isn't read.
//
// # Tokens are not encrypted
//
// A client that can read the Redis can read the tokens, unless the Storage is wrapped in
// a [github.com/requestforge/requestforge/sealedstorage.Storage].
//
// # Permissions
//
// A user of Redis needs, for Options.Namespace "rf":
//
//	~rf:* &rf:* +eval +evalsha
//	+hmget +hset +hstrlen +get +set +strlen +del +pttl +pexpire +publish
//	+subscribe +unsubscribe +ping +role
//
// and for Cluster
//
//	+cluster|slots +command
//
// [New] names the missing permissions. Only ROLE and COMMAND can be left out: without
// ROLE, New doesn't notice a replica that takes writes, and without COMMAND, go-redis
// asks for COMMAND in vain.
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

// Options are the settings of a Storage. The zero value is a good choice.
type Options struct {
	// Namespace begins the name of each key and channel in Redis, before a colon. Braces
	// are a mistake, since Cluster gives braces a meaning. "" means "rf".
	Namespace string

	// LeaseTTL is how long the lock of a killed process keeps the other processes from
	// fetching. A living process renews its lease three times in LeaseTTL. LeaseTTL is
	// between 100 ms and an hour; zero means 10 s.
	LeaseTTL time.Duration
}

// Storage is a [requestforge.Storage], and also a [requestforge.Locker], a
// [requestforge.Watcher] and a [requestforge.FailureStorage]. A Storage is safe for
// concurrent use, and any number of Storages may share a client and a Redis.
//
// Each call returns when its context ends. The command of go-redis then goes on until
// go-redis's own timeouts, or until the context's deadline if ContextTimeoutEnabled is
// set in the options of go-redis.
type Storage struct {
	client    redis.UniversalClient
	namespace string
	leaseTTL  time.Duration
	hub       hub
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
	maxLeaseTTL      = time.Hour // lockScript's, too

	// maxStamp is requestforge's: Lua has only floating-point numbers.
	maxStamp = 1<<53 - 1

	// minLife is the shortest life of a key after a write, so that a process which races
	// with the Save of an old record sees the record.
	minLife = time.Minute
	// maxLife stands for ever. Longer lives would overflow as expiry times.
	maxLife = 100 * 365 * 24 * time.Hour
)

// New returns a Storage on client. The caller closes client. The error joins all
// mistakes.
//
// A client that reads from replicas is a mistake, because a replica may serve a revoked
// token until the replica has caught up. A [redis.Ring] is a mistake, too: while a shard
// can't be reached, the processes don't agree on the shard of a key. So two processes may
// hold one lock, and revoked tokens come back with the shard.
//
// New asks the server for its role and, in a script that changes nothing, for the
// permissions of the client's user. A replica, scripts without flags (Redis before 7.0)
// and a missing permission are mistakes, and the error names the commands. The check
// takes half a second at most. If Redis hasn't answered by then, New returns no error:
// Redis may be back later, and each call reports its own error.
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
	case opts.LeaseTTL < minLeaseTTL, opts.LeaseTTL > maxLeaseTTL:
		bad("Options.LeaseTTL is %v; it has to be %v at least and %v at most, or 0 for %v", opts.LeaseTTL, minLeaseTTL, maxLeaseTTL, defaultLeaseTTL)
	}
	if v := reflect.ValueOf(client); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		bad("the client is nil")
	} else if err := checkClient(client); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s := &Storage{client: client, namespace: opts.Namespace, leaseTTL: opts.LeaseTTL}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
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
			// The routing options come first, since they also set ReadOnly.
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
	}
	return nil
}

// Load implements [requestforge.Storage]. All keys of a pipeline, including the keys of
// its subjects, take one round trip. An unreadable entry counts as missing.
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
			if !ok || len(f) != fieldCount {
				return nil, s.odd("load", group.keys[i:i+1])
			}
			entries[group.at[i]] = readFields(f).entry()
		}
	}
	return entries, nil
}

// Save implements [requestforge.Storage]. An unreadable stored record counts as missing.
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
	stored, err := s.change(ctx, saveScript, "save", key, names, seen, r.Stamp, own, others, data, max(r.Keep, 0).Milliseconds())
	if stored.changed {
		stored.record = data
	}
	return stored.entry(), err
}

// Revoke implements [requestforge.Storage], and tells the watches of key.
func (s *Storage) Revoke(ctx context.Context, key string, stamp uint64) error {
	if stamp > maxStamp {
		return fmt.Errorf("requestforge: redisstorage: revoke %q: the stamp is not below 2^53", key)
	}
	_, err := s.run(ctx, revokeScript, "revoke", []string{key}, []string{s.tokenName(key)}, stamp, s.channel(key), key)
	return err
}

// Delete implements [requestforge.Storage], and tells the watches of key. An unreadable
// stored record counts as missing.
func (s *Storage) Delete(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
	stored, err := s.change(ctx, deleteScript, "delete", key, []string{s.tokenName(key)}, seen, s.channel(key), key)
	return stored.entry(), err
}

// change runs saveScript or deleteScript for a caller who has seen the version seen.
func (s *Storage) change(ctx context.Context, script *redis.Script, op, key string, names []string, seen uint64, args ...any) (fields, error) {
	expected := seen
	// Try again for each unreadable record that another client puts in the way.
	for range 3 {
		reply, err := s.run(ctx, script, op, []string{key}, names, append([]any{expected}, args...)...)
		if err != nil {
			return fields{}, err
		}
		f, ok := reply.([]any)
		if !ok || len(f) != 1+fieldCount {
			return fields{}, s.odd(op, []string{key})
		}
		stored := readFields(f[1:])
		switch f[0] {
		case changed:
			stored.changed = true
			return stored, nil
		case full:
			return fields{}, fmt.Errorf("requestforge: redisstorage: %s %q: the next stamp is not below 2^53", op, key)
		case seenOther:
			e := stored.entry()
			if e.Record != nil || e.Gone != 0 && e.Gone != seen || stored.stamp == expected {
				return stored, nil
			}
			expected = stored.stamp
		default:
			return fields{}, s.odd(op, []string{key})
		}
	}
	return fields{}, fmt.Errorf("requestforge: redisstorage: %s %q: what is stored there can't be read, and changes all the time", op, key)
}

// lives returns the useful lives of a record and of its token, in milliseconds from now;
// 0 is for ever. Clocks differ between processes, so only the writer's clock counts.
func lives(r requestforge.Record, now time.Time) (record, token int64) {
	if r.Token.Expiry.IsZero() {
		return 0, 0
	}
	// The record may be older than this call, or come from a process with another clock.
	// A life that is too long does no harm.
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

// fields are the readable fields of a token's hash.
type fields struct {
	record            []byte
	stamp, mark, gone uint64
	changed           bool // by the call that returned the fields
}

// fieldCount is how many fields the scripts return.
const fieldCount = 4

func readFields(f []any) fields {
	record, _ := f[0].(string)
	stamp, okStamp := readStamp(f[1])
	mark, okMark := readStamp(f[2])
	gone, okGone := readStamp(f[3])
	if !okMark || !okGone {
		// A record without mark and tombstone can't be trusted.
		return fields{stamp: stamp}
	}
	if !okStamp || stamp == 0 {
		return fields{mark: mark, gone: gone}
	}
	return fields{record: []byte(record), stamp: stamp, mark: mark, gone: gone}
}

// readStamp reads a stamp or mark as the scripts do. A missing value is 0.
func readStamp(v any) (uint64, bool) {
	if v == nil {
		return 0, true
	}
	text, _ := v.(string)
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil && text[0] != '+' && n <= maxStamp
}

func (f fields) entry() requestforge.Entry {
	e := requestforge.Entry{Mark: f.mark, Gone: f.gone}
	r := new(requestforge.Record)
	if len(f.record) > 0 && r.UnmarshalBinary(f.record) == nil {
		// The stamp in the encoding is the floor that Save was called with.
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

// learn makes a Cluster client ask for the primaries again, if err may mean that a
// primary is gone. Without learn the client would ask within a minute.
func (s *Storage) learn(ctx context.Context, err error) {
	var server redis.Error
	if c, ok := s.client.(*redis.ClusterClient); ok && err != nil && !errors.As(err, &server) {
		c.ReloadState(ctx)
	}
}

// await returns the result of call, or the error of ctx if ctx ends first. go-redis heeds
// a context while waiting for a connection, and the deadline if told to, but ignores the
// context while waiting for an answer.
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

// odd returns the error for an answer that the scripts of this package never give.
func (s *Storage) odd(op string, keys []string) error {
	return fmt.Errorf("requestforge: redisstorage: %s %s: Redis gave an answer of an unknown kind", op, list(keys))
}
