// Revocations, pushed to the other processes by pub/sub.

package redisstorage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// pingEvery is how often a silent connection is tried. A dead connection
	// is noticed after twice as long.
	pingEvery = 2 * time.Second

	// A lost connection is replaced after minPause, and after twice as long with
	// each failure, but within maxPause.
	minPause = time.Second
	maxPause = 30 * time.Second

	// maxSubscribe bounds the channels in a command.
	maxSubscribe = 1000
)

var errSilent = errors.New("the connection is silent")

// Watch implements [requestforge.Watcher]. All watches of a Storage share one connection,
// which lasts until the last watch stops. All keys of a pipeline, including the keys of
// its subjects, share one channel.
func (s *Storage) Watch(keys []string, changed func(key string, err error)) (stop func()) {
	w := &watch{keys: make(map[string]string, len(keys)), changed: changed, fresh: true}
	for _, key := range keys {
		w.keys[key] = s.channel(key)
	}
	s.hub.add(s, w)
	return func() { s.hub.remove(w) }
}

// watch is a call of Watch.
type watch struct {
	keys    map[string]string // with the channel of each
	changed func(key string, err error)
	fresh   bool // changed has not yet been called for the subscription of all channels; guarded by hub.mu
}

// hub is the subscription that the watches of a Storage share.
//
// The invariant: a listening goroutine exists if and only if a watch exists. The
// goroutine soon listens to exactly the channels of the watches. No callback runs under
// mu.
type hub struct {
	mu      sync.Mutex
	watches map[string]map[*watch]struct{} // by channel; made lazily; no inner map is empty
	cancel  context.CancelFunc             // ends the goroutine; nil: no goroutine
	line    *line                          // the connection; nil: no connection
}

// line is a connection for pushes.
type line struct {
	wake  chan struct{}   // the watches have changed; buffer of 1
	asked map[string]bool // channels; true once the server has confirmed the subscription; guarded by hub.mu
	heard atomic.Int64    // how many messages of any kind have come
}

func (h *hub) add(s *Storage, w *watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(w.keys) == 0 {
		return
	}
	if h.watches == nil {
		h.watches = make(map[string]map[*watch]struct{})
	}
	for _, channel := range w.keys {
		if h.watches[channel] == nil {
			h.watches[channel] = make(map[*watch]struct{}, 1)
		}
		h.watches[channel][w] = struct{}{}
	}
	if h.cancel == nil {
		ctx, cancel := context.WithCancel(context.Background())
		h.cancel = cancel
		go s.listen(ctx)
	}
	h.wakeLocked()
}

func (h *hub) remove(w *watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, channel := range w.keys {
		delete(h.watches[channel], w)
		if len(h.watches[channel]) == 0 {
			delete(h.watches, channel)
		}
	}
	if len(h.watches) == 0 && h.cancel != nil {
		h.cancel()
		h.cancel, h.line = nil, nil
	}
	h.wakeLocked()
}

func (h *hub) wakeLocked() {
	if h.line == nil {
		return
	}
	select {
	case h.line.wake <- struct{}{}:
	default:
	}
}

// connect notes a new connection, unless ctx is over.
func (h *hub) connect(ctx context.Context) *line {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &line{wake: make(chan struct{}, 1), asked: make(map[string]bool)}
	if ctx.Err() == nil {
		h.line = l
	}
	return l
}

// differ returns the channels to subscribe l to and to unsubscribe l from, and notes the
// channels as asked for. The watches in late began after the server had confirmed their
// channels, so no confirmation will reach the watches in late.
func (h *hub) differ(l *line) (more, less []string, late []*watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for channel, watches := range h.watches {
		if _, asked := l.asked[channel]; !asked {
			l.asked[channel] = false
			more = append(more, channel)
		}
		for w := range watches {
			if w.fresh && l.serves(w) {
				w.fresh = false
				late = append(late, w)
			}
		}
	}
	for channel := range l.asked {
		if h.watches[channel] == nil {
			delete(l.asked, channel)
			less = append(less, channel)
		}
	}
	return more, less, late
}

// confirm notes that l listens to channel, and returns the watches of channel that l now
// serves completely.
func (h *hub) confirm(l *line, channel string) (served []*watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, asked := l.asked[channel]; !asked {
		return nil
	}
	l.asked[channel] = true
	for w := range h.watches[channel] {
		if l.serves(w) {
			w.fresh = false
			served = append(served, w)
		}
	}
	return served
}

// serves reports whether l listens to all channels of w. The caller holds hub.mu.
func (l *line) serves(w *watch) bool {
	for _, channel := range w.keys {
		if !l.asked[channel] {
			return false
		}
	}
	return true
}

// concerned returns the watches of key, if channel is the channel of key: the watches
// that name key itself, and the watches that name the part of key before a slash.
func (h *hub) concerned(channel, key string) (watches []*watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watches[channel] {
		if w.concerns(channel, key) {
			watches = append(watches, w)
		}
	}
	return watches
}

// concerns goes through the keys of w, not through the slashes of key, which any client
// may have written.
func (w *watch) concerns(channel, key string) bool {
	if w.keys[key] == channel {
		return true
	}
	for watched, of := range w.keys {
		if of == channel && ofSubject(key, watched) {
			return true
		}
	}
	return false
}

// all returns every watch.
func (h *hub) all() map[*watch]struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make(map[*watch]struct{})
	for _, watches := range h.watches {
		maps.Copy(all, watches)
	}
	return all
}

// listen listens for the watches, reconnecting after each loss, until ctx ends.
func (s *Storage) listen(ctx context.Context) {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		begun := time.Now()
		err := s.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		s.learn(ctx, err)
		for w := range s.hub.all() {
			w.changed("", named("watch", slices.Sorted(maps.Keys(w.keys)), err))
		}
		if time.Since(begun) > time.Minute {
			pause = minPause
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return
		}
	}
}

// listenOnce listens over one connection, until the connection is lost or ctx ends.
func (s *Storage) listenOnce(ctx context.Context) error {
	// Receive heeds no context, so the end of ctx closes the connection.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sub := s.client.Subscribe(ctx) // nothing yet, and so no connection
	stop := context.AfterFunc(ctx, func() { sub.Close() })
	defer func() {
		if stop() {
			sub.Close()
		}
	}()
	l := s.hub.connect(ctx)
	if err := s.follow(ctx, sub, l); err != nil {
		return err
	}
	go s.attend(ctx, cancel, sub, l)
	for {
		msg, err := sub.Receive(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		if err != nil {
			return err
		}
		l.heard.Add(1)
		switch msg := msg.(type) {
		case *redis.Subscription:
			if msg.Kind != "subscribe" {
				continue
			}
			for _, w := range s.hub.confirm(l, msg.Channel) {
				w.changed("", nil)
			}
		case *redis.Message:
			for _, w := range s.hub.concerned(msg.Channel, msg.Payload) {
				w.changed(msg.Payload, nil)
			}
		}
	}
}

// attend keeps l subscribed to the channels of the watches, and closes a connection that
// stays silent in spite of pings, until ctx ends.
func (s *Storage) attend(ctx context.Context, cancel context.CancelCauseFunc, sub *redis.PubSub, l *line) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for last := int64(-1); ; {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
			if err := s.follow(ctx, sub, l); err != nil {
				cancel(err)
				return
			}
		case <-tick.C:
			now := l.heard.Load()
			if now == last || sub.Ping(ctx) != nil {
				cancel(errSilent)
				return
			}
			last = now
		}
	}
}

// follow subscribes l to exactly the channels of the watches.
func (s *Storage) follow(ctx context.Context, sub *redis.PubSub, l *line) error {
	more, less, late := s.hub.differ(l)
	for _, w := range late {
		w.changed("", nil)
	}
	_, err := await(ctx, func() (struct{}, error) {
		for channels := range slices.Chunk(more, maxSubscribe) {
			if err := sub.Subscribe(ctx, channels...); err != nil {
				return struct{}{}, err
			}
		}
		for channels := range slices.Chunk(less, maxSubscribe) {
			if err := sub.Unsubscribe(ctx, channels...); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	return err
}
