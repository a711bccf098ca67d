// Revocations, pushed to the other processes by pub/sub.

package redisstorage

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// pingEvery is how often a silent connection is tried. One that is
	// dead is noticed after twice as long.
	pingEvery = 2 * time.Second
)

var errSilent = errors.New("the connection is silent")

// Watch implements [requestforge.Watcher]. It returns an error as soon as the
// connection is lost, since messages are lost with it. A call then begins with
// changed(""), once the server has confirmed that it sends messages.
func (s *Storage) Watch(ctx context.Context, keys []string, changed func(key string)) error {
	watched := make(map[string]bool, len(keys))
	var channels []string
	seen := make(map[string]bool, 1)
	for _, key := range keys {
		watched[key] = true
		if c := s.channel(key); !seen[c] {
			seen[c] = true
			channels = append(channels, c)
		}
	}
	if len(channels) == 0 {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	err := s.listen(ctx, channels, func(key string) {
		if key == "" || watched[key] {
			changed(key)
		}
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.learn(ctx, err)
	return named("watch", keys, err)
}

// listen calls changed with what comes over channels, and with "" when the
// last of them has begun. It returns when the connection is lost or ctx ends.
func (s *Storage) listen(ctx context.Context, channels []string, changed func(key string)) error {
	// Receiving heeds no context, so that the connection is closed instead.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sub := s.client.Subscribe(ctx) // nothing yet, and so no connection
	stop := context.AfterFunc(ctx, func() { sub.Close() })
	defer func() {
		if stop() {
			sub.Close()
		}
	}()

	var heard atomic.Int64 // how many messages of any kind have come
	go func() {
		tick := time.NewTicker(pingEvery)
		defer tick.Stop()
		for last := int64(-1); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			now := heard.Load()
			if now == last || sub.Ping(ctx) != nil {
				cancel(errSilent)
				return
			}
			last = now
		}
	}()

	err := func() error {
		if _, err := await(ctx, func() (any, error) { return nil, sub.Subscribe(ctx, channels...) }); err != nil {
			return err
		}
		waiting := len(channels)
		for {
			msg, err := sub.Receive(ctx)
			if err != nil {
				return err
			}
			heard.Add(1)
			switch msg := msg.(type) {
			case *redis.Subscription:
				if waiting--; waiting == 0 {
					changed("")
				}
			case *redis.Message:
				changed(msg.Payload)
			}
		}
	}()
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}
