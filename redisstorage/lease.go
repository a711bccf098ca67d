// One fetch across processes: a lock that is a key with an expiry, put off as
// long as its owner lives.

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

// TryLock implements [requestforge.Locker]. The lease is renewed in the
// background until Unlock, or until it is lost; see [Options].LeaseTTL.
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
		// The server may have given a lease that nobody has. It would
		// be in everyone's way until it expires.
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
	owner   string // of this lease alone

	ctx    context.Context // ends with Unlock or the loss
	cancel context.CancelFunc
	done   chan struct{} // closed with the loss

	mu       sync.Mutex
	until    time.Time // the lock is sure to be ours before it; guarded by mu
	lost     bool      // done is closed; guarded by mu
	released bool      // guarded by mu
}

// sure is how long after a renewal was sent the lock is certainly still ours.
// The server counts its time from when it got the renewal, which is later, but
// by another clock: hence a tenth less.
func (l *lease) sure() time.Duration { return l.storage.leaseTTL / 10 * 9 }

// Done returns a channel that is closed before anybody else can hold the lock.
// It looks at the clock, too: in a process that was stopped, the goroutine that
// waits for the end of the lease may be the last to run.
func (l *lease) Done() <-chan struct{} {
	l.left()
	return l.done
}

// left returns for how long the lock is sure to be ours. If that is over, the
// lease is lost.
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
			next = every / 10 // and perhaps it comes back in time
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

// Unlock implements [requestforge.Lease]. A lock that it fails to release
// isn't renewed any more, and so ends with its lease.
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

// abandon releases a lock that this process may hold without knowing. It does
// so twice: a server that was stopped answers its connections in any order, so
// the first may have come before what it was to undo. By the time it was
// answered that had arrived, too.
func (l *lease) abandon() {
	l.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), l.storage.leaseTTL)
	defer cancel()
	for range 2 {
		if _, err := l.run(ctx, unlockScript); err != nil {
			return // it expires
		}
	}
}

// run runs a script of locks. It returns no earlier than go-redis does.
func (l *lease) run(ctx context.Context, script *redis.Script, args ...any) (bool, error) {
	reply, err := script.Run(ctx, l.storage.client, []string{l.name}, append([]any{l.owner}, args...)...).Int64()
	l.storage.learn(ctx, err)
	return reply == 1, err
}
