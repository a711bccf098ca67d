// One fetch across processes: a lock is a key with an expiry, which a living owner keeps
// postponing.

package redisstorage

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/requestforge/requestforge"
)

// TryLock implements [requestforge.Locker]. The lease is renewed in the background until
// Unlock or until the lock is lost; see [Options].LeaseTTL.
func (s *Storage) TryLock(ctx context.Context, key string) (requestforge.Lease, bool, error) {
	const op = "lock"
	if err := ctx.Err(); err != nil {
		return nil, false, named(op, []string{key}, err)
	}
	l := &lease{storage: s, name: s.lockName(key), key: key, owner: rand.Text(), done: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())

	type result struct {
		got bool
		err error
	}
	begun := time.Now()
	answer := make(chan result) // unbuffered: taken, or not
	go func() {
		got, err := l.run(ctx, lockScript, s.leaseTTL.Milliseconds())
		select {
		case answer <- result{got, err}:
			var refused redis.Error
			if err == nil || errors.As(err, &refused) {
				return
			}
		case <-ctx.Done():
		}
		// The server may have given the lock to this call after the caller left. Until
		// the lock expires no process could fetch.
		l.abandon()
	}()
	select {
	case r := <-answer:
		if r.err != nil {
			l.cancel()
			return nil, false, named(op, []string{key}, r.err)
		}
		if !r.got {
			l.cancel()
			return nil, false, nil
		}
		l.until = begun.Add(l.sure())
		go l.keep()
		return l, true, nil
	case <-ctx.Done():
		return nil, false, named(op, []string{key}, context.Cause(ctx))
	}
}

// lease is a lock that this process holds.
type lease struct {
	storage *Storage
	name    string // in Redis
	key     string
	owner   string // unique to this lease

	ctx    context.Context // ends with Unlock or the loss
	cancel context.CancelFunc
	done   chan struct{} // closed with the loss

	mu       sync.Mutex
	until    time.Time // until then this lease surely has the lock; guarded by mu
	lost     bool      // done is closed; guarded by mu
	released bool      // guarded by mu
}

// sure returns how long after sending a renewal this lease surely has the lock. The
// server counts from the arrival of the renewal, which is later, but with another clock;
// hence a tenth less than the TTL.
func (l *lease) sure() time.Duration { return l.storage.leaseTTL / 10 * 9 }

// Done returns a channel that is closed before another process can hold the lock. Done
// also checks the clock: in a process that was stopped, the goroutine that waits for the
// end of the lease may be the last to run.
func (l *lease) Done() <-chan struct{} {
	l.left()
	return l.done
}

// left returns how long this lease surely has the lock. If no time is left, the lease is
// lost.
func (l *lease) left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := time.Until(l.until)
	if left <= 0 && !l.released {
		l.lose()
	}
	return left
}

// lose needs l.mu.
func (l *lease) lose() {
	if !l.lost {
		l.lost = true
		close(l.done)
		l.cancel()
	}
}

// keep renews the lease until it is released or lost.
func (l *lease) keep() {
	every := l.storage.leaseTTL / 3
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-timer.C:
		}
		left := l.left()
		if left <= 0 {
			return
		}
		begun := time.Now()
		ctx, cancel := context.WithTimeout(l.ctx, min(left, every))
		held, err := await(ctx, func() (bool, error) {
			return l.run(ctx, renewScript, l.storage.leaseTTL.Milliseconds())
		})
		cancel()
		next := every
		l.mu.Lock()
		switch {
		case err != nil:
			next = every / 10 // maybe the server comes back in time
		case held:
			l.until = begun.Add(l.sure())
		case !l.released:
			l.lose()
		}
		left = time.Until(l.until)
		l.mu.Unlock()
		timer.Reset(min(next, max(left, 0)))
	}
}

// Unlock implements [requestforge.Lease]. If the release fails, the lock expires within
// Options.LeaseTTL, since nothing renews the lock any more.
func (l *lease) Unlock(ctx context.Context) error {
	l.cancel()
	l.mu.Lock()
	released := l.released
	l.released = true
	l.mu.Unlock()
	if released {
		return nil
	}
	_, err := await(ctx, func() (bool, error) { return l.run(ctx, unlockScript) })
	if err != nil {
		return named("unlock", []string{l.key}, err)
	}
	return nil
}

// abandon releases a lock that this process may hold without knowing. A server that was
// stopped reads its connections in any order, so the first release may run before the
// TryLock. So abandon sends a second release after the answer to the first, when the
// TryLock has surely arrived.
func (l *lease) abandon() {
	l.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), l.storage.leaseTTL)
	defer cancel()
	for range 2 {
		if _, err := l.run(ctx, unlockScript); err != nil {
			return // the lock expires
		}
	}
}

// run runs a script of locks. run returns only after go-redis returns.
func (l *lease) run(ctx context.Context, script *redis.Script, args ...any) (bool, error) {
	reply, err := script.Run(ctx, l.storage.client, []string{l.name}, append([]any{l.owner}, args...)...).Int64()
	l.storage.learn(ctx, err)
	return reply == 1, err
}
