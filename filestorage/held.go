// Retries while another program has a file open.

package filestorage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// heldFor bounds the tries for a file that another program holds open. Each pause between
// tries is twice as long as the pause before, up to longestPause.
const (
	heldFor      = 2 * time.Second // as long as the go command tries
	firstPause   = 2 * time.Millisecond
	longestPause = 200 * time.Millisecond
)

// whileHeld calls f until the error of f is not in held, for up to heldFor or until ctx is
// done. On Windows, virus scanners, indexers and backups open each new file for a moment,
// and until then the file can't be replaced.
func whileHeld(ctx context.Context, f func() error, held ...error) error {
	end := time.Now().Add(heldFor)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := f()
		if err == nil || !slices.ContainsFunc(held, func(h error) bool { return errors.Is(err, h) }) {
			return err
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("%w; tried for %v, as another program may have the file open: end that program, or let it leave the directory out", err, heldFor)
		}
		select {
		case <-time.After(min(pause, left)):
		case <-ctx.Done():
			return fmt.Errorf("%w; another program may have the file open, and there was no time to try again: %w", err, context.Cause(ctx))
		}
	}
}
