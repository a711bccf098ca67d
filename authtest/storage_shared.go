// Rules for concurrent callers: shared memory, concurrent writes to a key, and the
// end of a context.

package authtest

//lint:file-ignore ST1005 The messages begin with the name of the method called.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge"
)

func storageSavedIsCopied(ctx context.Context, s requestforge.Storage) error {
	want := storageRecords()["full record"]
	want.Key = "k"
	mine := storageRecords()["full record"]
	mine.Key = "k"
	before, err := mine.MarshalBinary()
	if err != nil {
		return err
	}
	if _, err := storageSave(ctx, s, mine, 0); err != nil {
		return err
	}
	if after, err := mine.MarshalBinary(); err != nil || !bytes.Equal(before, after) {
		return errors.New("Save changed the caller's token or lineage")
	}
	storageScribble(&mine)
	e, err := storageLoad(ctx, s, "k")
	if err != nil {
		return err
	}
	return storageDiff(e.Record, want)
}

func storageLoadedIsCopied(ctx context.Context, s requestforge.Storage) error {
	want := storageRecords()["full record"]
	want.Key = "k"
	saved, err := storageSave(ctx, s, want, 0)
	if err != nil {
		return err
	}
	want = storageRecords()["full record"]
	want.Key = "k"
	storageScribble(saved.Record)

	lost, err := s.Save(ctx, "k", storageToken("k", "late"), saved.Record.Stamp+1)
	if err != nil {
		return fmt.Errorf("Save: %w", err)
	}
	if err := storageDiff(lost.Record, want); err != nil {
		return fmt.Errorf("the entry of a Save was changed, and now a second Save returns that: %w", err)
	}
	storageScribble(lost.Record)

	for range 2 {
		entries, err := s.Load(ctx, "k", "k")
		if err != nil {
			return fmt.Errorf("Load: %w", err)
		}
		for _, e := range entries {
			if err := storageDiff(e.Record, want); err != nil {
				return fmt.Errorf("an entry returned before was changed, and now Load returns that: %w", err)
			}
			storageScribble(e.Record)
		}
	}
	return nil
}

// storageScribble changes everything reachable from r.
func storageScribble(r *requestforge.Record) {
	r.Token.AccessToken = "scribbled"
	r.Token.RefreshToken = "scribbled"
	if user, ok := r.Token.Extra["user"].(map[string]any); ok {
		user["id"] = "scribbled"
		if roles, ok := user["roles"].([]any); ok && len(roles) > 0 {
			roles[0] = "scribbled"
		}
	}
	for key := range r.Token.Extra {
		r.Token.Extra[key] = "scribbled"
	}
	for key := range r.Lineage {
		r.Lineage[key] = 999
	}
	r.Issued = time.Time{}
}

func storageConcurrentSaves(ctx context.Context, s requestforge.Storage) error {
	const rounds, savers = 20, 16
	var seen uint64
	for range rounds {
		entries := make([]requestforge.Entry, savers)
		errs := make([]error, savers)
		storageAtOnce(savers, func(i int) {
			entries[i], errs[i] = s.Save(ctx, "k", storageToken("k", fmt.Sprint("token ", i)), seen)
		})
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("Save: %w", err)
		}
		stored, err := storageLoad(ctx, s, "k")
		if err != nil {
			return err
		}
		for i, e := range entries {
			if err := storageSame(e, stored); err != nil {
				return fmt.Errorf("%d Saves with seen %d: number %d returned something else than is stored: %w", savers, seen, i, err)
			}
		}
		if stored.Record.Stamp <= seen {
			return fmt.Errorf("Save over stamp %d gave stamp %d", seen, stored.Record.Stamp)
		}
		seen = stored.Record.Stamp
	}
	return nil
}

func storageConcurrentDeletes(ctx context.Context, s requestforge.Storage) error {
	const rounds, callers = 20, 16
	var before requestforge.Entry
	for round := range rounds {
		entries := make([]requestforge.Entry, callers)
		errs := make([]error, callers)
		storageAtOnce(callers, func(i int) {
			if (i+round)%2 == 0 { // alternate the caller that starts first
				entries[i], errs[i] = s.Delete(ctx, "k", before.Version())
			} else {
				entries[i], errs[i] = s.Save(ctx, "k", storageToken("k", fmt.Sprint("token ", i)), before.Version())
			}
		})
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("Save or Delete: %w", err)
		}
		stored, err := storageLoad(ctx, s, "k")
		if err != nil {
			return err
		}
		for i, e := range entries {
			if err := storageSame(e, stored); err != nil {
				return fmt.Errorf("%d Saves and Deletes with seen %d: number %d returned something else than is stored: %w", callers, before.Version(), i, err)
			}
		}
		if stored.Version() != before.Version()+1 {
			return fmt.Errorf("%d Saves and Deletes with seen %d left version %d: %d of them were heeded",
				callers, before.Version(), stored.Version(), stored.Version()-before.Version())
		}
		before = stored
	}
	return nil
}

func storageConcurrentRevokes(ctx context.Context, s requestforge.Storage) error {
	const callers, rounds = 8, 25
	var (
		marked atomic.Uint64 // the highest mark set by a finished Revoke
		stamps sync.Map      // the stamps given out
	)
	caller := func(i int) error {
		var last requestforge.Entry // as loaded before
		for round := range rounds {
			mark := marked.Load()
			e, err := storageLoad(ctx, s, "k")
			if err != nil {
				return err
			}
			stamp, lastStamp := storageStamp(e), storageStamp(last)
			switch {
			case e.Mark < mark:
				return fmt.Errorf("Load returned mark %d, after a Revoke of %d had returned", e.Mark, mark)
			case e.Mark < last.Mark || stamp < lastStamp:
				return fmt.Errorf("mark and stamp went from %d and %d down to %d and %d", last.Mark, lastStamp, e.Mark, stamp)
			case stamp > lastStamp && stamp <= last.Mark:
				return fmt.Errorf("stamp %d was given when the mark was %d already", stamp, last.Mark)
			}
			last = e

			if i%2 == 0 {
				mark := stamp + 1 + uint64(i)
				if err := s.Revoke(ctx, "k", mark); err != nil {
					return fmt.Errorf("Revoke: %w", err)
				}
				for old := marked.Load(); old < mark && !marked.CompareAndSwap(old, mark); old = marked.Load() {
				}
				continue
			}
			mark = marked.Load()
			mine := fmt.Sprintf("token %d of %d", round, i)
			if e, err = s.Save(ctx, "k", storageToken("k", mine), stamp); err != nil {
				return fmt.Errorf("Save: %w", err)
			}
			if storageAccess(e) != mine {
				continue // Another caller was faster.
			}
			if storageStamp(e) <= mark {
				return fmt.Errorf("Save gave stamp %d, after a Revoke of %d had returned", storageStamp(e), mark)
			}
			if _, dup := stamps.LoadOrStore(storageStamp(e), true); dup {
				return fmt.Errorf("two Saves were given stamp %d", storageStamp(e))
			}
		}
		return nil
	}
	errs := make([]error, callers)
	storageAtOnce(callers, func(i int) { errs[i] = caller(i) })
	if err := errors.Join(errs...); err != nil {
		return err
	}
	e, err := storageLoad(ctx, s, "k")
	if err != nil {
		return err
	}
	if e.Mark != marked.Load() {
		return fmt.Errorf("the mark is %d in the end, but the highest stamp revoked was %d", e.Mark, marked.Load())
	}
	return nil
}

func storageDoneContext(ctx context.Context, s requestforge.Storage) error {
	saved, err := storageSave(ctx, s, storageToken("k", "first"), 0)
	if err != nil {
		return err
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	// Whatever they answer. A hang is found by run.
	if entries, err := s.Load(done, "k", "unknown"); err == nil && len(entries) != 2 {
		return fmt.Errorf("Load returned %d entries for two keys, and no error", len(entries))
	}
	if e, err := s.Save(done, "k", storageToken("k", "second"), saved.Record.Stamp); err == nil && storageAccess(e) != "second" {
		return fmt.Errorf("Save returned %v, and no error", e)
	}
	s.Revoke(done, "k", 1)
	s.Delete(done, "unknown", 0)
	s.Delete(done, "k", 1<<52)
	e, err := storageLoad(ctx, s, "k")
	if err != nil {
		return err
	}
	if e.Record == nil {
		return errors.New("after them the record is gone")
	}
	return nil
}
