// What processes that share a storage tell each other: tokens, revocations (also
// while a token still looks live here) and failures. pipeline_store.go bounds the
// calls of the storage.

package requestforge

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/redact"
)

// recheckEvery is the most that another process's revocation takes to be seen
// here without a push; the last third is jitter.
const recheckEvery = 30 * time.Second

var errForgot = errors.New("everything was forgotten while the token was being fetched")

// shared keeps a ledger in step with the storage.
type shared struct {
	graph    *graph
	ledger   *ledger
	records  *records
	store    *store
	events   eventLog
	counters *counters

	rechecking atomic.Bool // see recheck
}

// pull loads the records and marks of steps and takes them over, unless everything
// is forgotten meanwhile. A mark that the storage has lost is written back. A key
// in deleted was deleted by some process. If the key is still empty, that was a
// logout, and the step's tokens die here, too.
func (sh *shared) pull(ctx context.Context, steps []*step, deleted map[string]bool) ([]Entry, error) {
	keys := make([]string, len(steps))
	for i, s := range steps {
		keys[i] = s.key
	}
	begun := sh.ledger.beginLoad()
	entries, err := sh.store.load(ctx, keys...)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	found := make([]finding, len(steps))
	for i, s := range steps {
		found[i] = sh.find(ctx, s, entries[i], now)
		found[i].gone = deleted[s.key] && entries[i].Record == nil && entries[i].Mark == 0
	}
	lost, ok := sh.ledger.takeOver(begun, found)
	if !ok {
		return nil, errForgot
	}
	for _, l := range lost {
		// store counts the error, and the next load finds the mark missing
		// again.
		_ = sh.store.revoke(ctx, l.step.key, l.mark)
	}
	sh.recheck()
	return entries, nil
}

// find reads the entry of a step.
func (sh *shared) find(ctx context.Context, s *step, e Entry, now time.Time) finding {
	f := finding{step: s}
	if e.Mark <= maxStamp {
		f.mark = e.Mark
	}
	if e.Record == nil {
		return f
	}
	var err error
	if f.tok, err = sh.records.read(s, e.Record, now); err != nil {
		sh.ignored(ctx, s, err)
	}
	return f
}

// ignored counts and logs a stored record that can't be used.
func (sh *shared) ignored(ctx context.Context, s *step, reason error) {
	sh.counters.badRecords.Add(1)
	sh.events.log(ctx, slog.LevelWarn, "stored record ignored", s, slog.Any("reason", reason))
}

// revoke tells the storage of a mark that the ledger has raised.
func (sh *shared) revoke(ctx context.Context, b blame) error {
	sh.counters.invalidations.Add(1)
	sh.events.log(ctx, slog.LevelInfo, "token invalidated", b.step, slog.Uint64("stamp", b.stamp))
	return sh.store.revoke(ctx, b.step.key, b.stamp)
}

// recheck begins to load all steps now and then, off the path of requests, for as
// long as the leaf's token is live. The timer doesn't keep a dropped pipeline
// alive, and stops then.
func (sh *shared) recheck() {
	if !sh.store.shared || sh.ledger.ready(sh.graph.leaf) == nil || !sh.rechecking.CompareAndSwap(false, true) {
		return
	}
	held := weak.Make(sh)
	var look func()
	look = func() {
		sh := held.Value()
		if sh == nil {
			return
		}
		if h := sh.ledger.ready(sh.graph.leaf); h == nil || !h.fresh(time.Now()) {
			sh.rechecking.Store(false)
			if sh.ledger.ready(sh.graph.leaf) != h { // replaced meanwhile
				sh.recheck()
			}
			return
		}
		sh.reload(context.Background(), nil)
		time.AfterFunc(recheckWait(), look)
	}
	time.AfterFunc(recheckWait(), look)
}

func recheckWait() time.Duration {
	return recheckEvery - rand.N(recheckEvery/3) - time.Second // for the look itself
}

// reload takes over what the storage knows of every step. For deleted see pull.
func (sh *shared) reload(ctx context.Context, deleted map[string]bool) {
	leaf := sh.graph.leaf
	before := sh.ledger.ready(leaf)
	if _, err := sh.pull(ctx, sh.graph.steps, deleted); err != nil {
		return
	}
	if before != nil && sh.ledger.ready(leaf) == nil {
		sh.events.log(ctx, slog.LevelInfo, "token invalidated by another process", leaf, slog.Uint64("stamp", before.stamp()))
	}
}

// watcher listens to a storage that pushes, until it is stopped.
type watcher struct {
	stop context.CancelFunc
	done chan struct{}
}

// watch starts a watcher.
func (sh *shared) watch(w Watcher) *watcher {
	ctx, stop := context.WithCancel(context.Background())
	var (
		mu      sync.Mutex
		changed = map[string]bool{} // guarded by mu
		wake    = make(chan struct{}, 1)
	)
	note := func(key string) {
		mu.Lock()
		changed[key] = true
		mu.Unlock()
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	var both sync.WaitGroup
	both.Go(func() {
		pause := time.Second
		for ctx.Err() == nil {
			begun := time.Now()
			// Bounded by nothing: it is for what a crash becomes.
			_, err := flight.Bounded(context.WithoutCancel(ctx), func(context.Context) (struct{}, error) {
				return struct{}{}, w.Watch(ctx, sh.graph.keys(), note)
			}, nil)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				err = errors.New("it ended")
			}
			sh.store.errors.Add(1)
			sh.events.log(ctx, slog.LevelWarn, "no pushes from the storage; looking now and then", nil, slog.Any("error", redact.Words(err)))
			if time.Since(begun) > time.Minute {
				pause = time.Second
			}
			select {
			case <-time.After(pause/2 + rand.N(pause)):
			case <-ctx.Done():
			}
			pause = min(2*pause, recheckEvery)
		}
	})
	both.Go(func() {
		for {
			select {
			case <-wake:
			case <-ctx.Done():
				return
			}
			mu.Lock()
			keys := changed
			changed = map[string]bool{}
			mu.Unlock()
			delete(keys, "") // something may have been missed; no sign of a logout
			sh.reload(ctx, keys)
		}
	})
	done := make(chan struct{})
	go func() { both.Wait(); close(done) }()
	return &watcher{stop, done}
}

var errPeer = errors.New("another process's fetch failed")

// peerFailure returns a failure that another process has left for s, and
// remembers it.
func (sh *shared) peerFailure(ctx context.Context, s *step) *AuthError {
	if sh.store.failures == nil {
		return nil
	}
	peer, err := sh.store.loadFailure(ctx, s.key)
	if err != nil || peer.Left <= 0 || peer.Fingerprint != s.fingerprint() {
		return nil
	}
	now := time.Now()
	fail := &failure{
		err:   &AuthError{Step: s.Name, StatusCode: peer.StatusCode, Code: peer.Code, Permanent: peer.Permanent, Err: errPeer},
		at:    now,
		until: now.Add(min(peer.Left, max(maxRetryAfter, sh.ledger.maxCoolDown))),
	}
	sh.ledger.failWith(s, fail, sh.store.timeout)
	sh.events.log(ctx, slog.LevelWarn, "step cools down with another process", s, slog.Duration("for", peer.Left))
	return fail.again(now)
}

// shareFailure leaves a failure of s for the other processes.
func (sh *shared) shareFailure(ctx context.Context, s *step, f *failure) {
	if sh.store.failures == nil {
		return
	}
	sh.store.saveFailure(ctx, s.key, Failure{
		Fingerprint: s.fingerprint(),
		StatusCode:  f.err.StatusCode, Code: f.err.Code, Permanent: f.err.Permanent,
		Left: f.until.Sub(f.at),
	})
}

// fingerprint stands for the step's configuration, secrets included, so that
// a failure is forgotten as soon as that changes. What can be learnt from it
// is bounded twice: each guess at a password costs a slow hash, and of that
// only 16 bits are left. One change in 65,536 goes unnoticed, for the length
// of a cool-down.
func (s *step) fingerprint() string {
	s.printOnce.Do(func() {
		config := fmt.Appendf(nil, "%q %q %v\n", s.Name, s.DependsOn, s.TTL)
		for _, f := range []Fetcher{s.Fetcher, s.Refresh} {
			config = fmt.Appendf(config, "%T ", f)
			if d, ok := f.(interface{ describe() []byte }); ok {
				config = append(config, d.describe()...)
			}
		}
		sum, err := pbkdf2.Key(sha256.New, string(config), []byte(s.key), 200_000, sha256.Size)
		if err == nil { // it fails for parameters that aren't these, under FIPS rules
			s.print = hex.EncodeToString(sum[:2])
		}
	})
	return s.print
}
