// Rules of requestforge.Watcher.

package authtest

//lint:file-ignore ST1005 The messages begin with the name of the method called.

import (
	"context"
	"fmt"
	"sync"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/internal/unwrap"
)

func storageWatch(ctx context.Context, s requestforge.Storage) error {
	h, err := storageListen(ctx, s, "p:a@1", "p:b@2", "q:c")
	if err != nil {
		return err
	}
	defer h.stop()
	for _, key := range []string{"p:a@1", "q:c", "p:a@1", "p:b@2"} {
		if err := h.tells(ctx, s, key); err != nil {
			return err
		}
	}
	h.stop()
	return nil
}

func storageWatchSubjects(ctx context.Context, s requestforge.Storage) error {
	h, err := storageListen(ctx, s, "p:a@1", "q:c")
	if err != nil {
		return err
	}
	defer h.stop()
	// Another caller's watch of a single subject.
	one, err := storageListen(ctx, s, "p:a@1/AbCdEfGhIjKlMnOpQrStUvWx_-0")
	if err != nil {
		return err
	}
	defer one.stop()
	for _, key := range []string{"p:a@1/AbCdEfGhIjKlMnOpQrStUvWx_-0", "q:c/x", "p:a@1/x/y", "p:a@1"} {
		if err := h.tells(ctx, s, key); err != nil {
			return err
		}
	}
	return one.tells(ctx, s, "p:a@1/AbCdEfGhIjKlMnOpQrStUvWx_-0")
}

// storageHeard holds the keys that a Watch has reported.
type storageHeard struct {
	stop func()

	mu   sync.Mutex // guards keys
	keys []string
	wake chan struct{} // buffer of 1; receives after an append to keys
}

// storageListen begins a watch, and returns once the watch listens.
func storageListen(ctx context.Context, s requestforge.Storage, keys ...string) (*storageHeard, error) {
	h := &storageHeard{wake: make(chan struct{}, 1)}
	w, _ := unwrap.Find[requestforge.Watcher](s)
	h.stop = w.Watch(keys, func(key string, err error) {
		if err != nil {
			return // the watch will begin to listen again
		}
		h.mu.Lock()
		h.keys = append(h.keys, key)
		h.mu.Unlock()
		select {
		case h.wake <- struct{}{}:
		default:
		}
	})
	if h.stop == nil {
		return nil, fmt.Errorf("Watch of %q returned no stop", keys)
	}
	for {
		switch key, ok := h.next(ctx); {
		case !ok:
			h.stop()
			return nil, fmt.Errorf("Watch of %q never called changed with \"\", which says that it has begun to listen", keys)
		case key == "":
			return h, nil
		}
	}
}

// next returns the key that was reported next, and false at the end of ctx.
func (h *storageHeard) next(ctx context.Context) (key string, ok bool) {
	for {
		h.mu.Lock()
		if len(h.keys) > 0 {
			key, h.keys = h.keys[0], h.keys[1:]
			h.mu.Unlock()
			return key, true
		}
		h.mu.Unlock()
		select {
		case <-h.wake:
		case <-ctx.Done():
			return "", false
		}
	}
}

// tells reports whether the watch reports key when the mark of key rises, and when
// the record is deleted. Further reports don't matter.
func (h *storageHeard) tells(ctx context.Context, s requestforge.Storage, key string) error {
	err := h.told(ctx, key, "its mark rose", func() error {
		e, err := storageLoad(ctx, s, key)
		if err != nil {
			return err
		}
		if err := s.Revoke(ctx, key, e.Mark+1); err != nil {
			return fmt.Errorf("Revoke of key %q: %w", key, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return h.told(ctx, key, "its record was deleted", func() error {
		e, err := storageLoad(ctx, s, key)
		if err != nil {
			return err
		}
		if e, err = storageSave(ctx, s, storageToken(key, "token"), e.Version()); err != nil {
			return err
		}
		_, err = storageBury(ctx, s, key, e.Version())
		return err
	})
}

// told makes a change of key until key is reported, repeating the change whenever
// the watch may have missed the change.
func (h *storageHeard) told(ctx context.Context, key, what string, change func() error) error {
	h.mu.Lock()
	h.keys = nil // of changes before
	h.mu.Unlock()
	for got := ""; got != key; {
		if got == "" {
			if err := change(); err != nil {
				return err
			}
		}
		var ok bool
		if got, ok = h.next(ctx); !ok {
			return fmt.Errorf("Watch never called changed with %q after %s", key, what)
		}
	}
	return nil
}
