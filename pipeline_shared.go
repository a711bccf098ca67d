// What processes that share a storage tell each other beside the tokens:
// revocations, while a token still looks live here, and failures.

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
	"time"
	"weak"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/redact"
)

// recheckEvery is the most that another process's revocation takes to be seen
// here without a push; the last third is jitter.
const recheckEvery = 30 * time.Second

// recheck looks into the storage now and then, for as long as the leaf's
// token is live, off the path of requests. A pipeline that nobody holds any
// more stops it.
func (st *state) recheck() {
	if !st.p.store.shared || !st.rechecking.CompareAndSwap(false, true) {
		return
	}
	held := weak.Make(st)
	var look func()
	look = func() {
		st := held.Value()
		if st == nil {
			return
		}
		if h := st.leaf.Load(); h == nil || !h.fresh(time.Now()) {
			st.rechecking.Store(false)
			if st.leaf.Load() != h { // replaced meanwhile
				st.recheck()
			}
			return
		}
		st.reload(context.Background(), nil)
		time.AfterFunc(recheckWait(), look)
	}
	time.AfterFunc(recheckWait(), look)
}

func recheckWait() time.Duration {
	return recheckEvery - rand.N(recheckEvery/3) - time.Second // for the look itself
}

// reload takes over what the storage knows of every step. For deleted see pull.
func (st *state) reload(ctx context.Context, deleted map[string]bool) {
	before := st.leaf.Load()
	if _, err := st.pull(ctx, st.p.steps, deleted); err != nil {
		return
	}
	if before != nil && st.leaf.Load() == nil {
		st.log(ctx, slog.LevelInfo, "token invalidated by another process", st.p.leaf, slog.Uint64("stamp", before.stamp))
	}
}

// watcher listens to a storage that pushes, until it is stopped.
type watcher struct {
	stop context.CancelFunc
	done chan struct{}
}

// watch starts a watcher for st.
func (st *state) watch(w Watcher) *watcher {
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
				return struct{}{}, w.Watch(ctx, st.p.keys(), note)
			}, nil)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				err = errors.New("it ended")
			}
			st.p.store.errors.Add(1)
			st.log(ctx, slog.LevelWarn, "no pushes from the storage; looking now and then", nil, slog.Any("error", redact.Words(err)))
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
			st.reload(ctx, keys)
		}
	})
	done := make(chan struct{})
	go func() { both.Wait(); close(done) }()
	return &watcher{stop, done}
}

var errPeer = errors.New("another process's fetch failed")

// told returns a failure that another process has left for this step, and
// remembers it.
func (f *fetch) told(ctx context.Context) error {
	shared, ok := f.p.cfg.Storage.(FailureStorage)
	if !ok {
		return nil
	}
	s := f.step
	peer, err := f.p.store.loadFailure(ctx, shared, s.key)
	if err != nil || peer.Left <= 0 || peer.Fingerprint != s.fingerprint() {
		return nil
	}
	now := time.Now()
	fail := &failure{
		err:   &AuthError{Step: s.Name, StatusCode: peer.StatusCode, Code: peer.Code, Permanent: peer.Permanent, Err: errPeer},
		until: now.Add(min(peer.Left, max(maxRetryAfter, f.p.cfg.MaxCoolDown))),
	}
	f.mu.Lock()
	ss := &f.steps[s.index]
	// The one remembered here, which the storage remembers for as much
	// longer as a call of it takes, is not one more in a row.
	if old := ss.failure; old == nil || fail.until.Sub(old.until) > f.p.cfg.StorageTimeout {
		ss.fails++
	}
	ss.failure = fail
	f.mu.Unlock()
	f.log(ctx, slog.LevelWarn, "step cools down with another process", s, slog.Duration("for", peer.Left))
	f.remembered = true
	return fail.again(now)
}

// tell leaves a failure for the other processes.
func (f *fetch) tell(ctx context.Context, auth *AuthError, wait time.Duration) {
	if shared, ok := f.p.cfg.Storage.(FailureStorage); ok {
		f.p.store.saveFailure(ctx, shared, f.step.key, Failure{
			Fingerprint: f.step.fingerprint(),
			StatusCode:  auth.StatusCode, Code: auth.Code, Permanent: auth.Permanent,
			Left: wait,
		})
	}
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
