// Rules for stamps and marks, and for the version that a Save must have seen.

package authtest

//lint:file-ignore ST1005 The messages begin with the name of the method called.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/requestforge/requestforge"
)

func storageSeen(ctx context.Context, s requestforge.Storage) error {
	first, err := storageSave(ctx, s, storageToken("k", "first"), 0)
	if err != nil {
		return err
	}
	second, err := storageSave(ctx, s, storageToken("k", "second"), first.Record.Stamp)
	if err != nil {
		return err
	}
	if err := s.Revoke(ctx, "k", first.Record.Stamp); err != nil {
		return fmt.Errorf("Revoke: %w", err)
	}
	want := requestforge.Entry{Record: second.Record, Mark: first.Record.Stamp}
	for _, seen := range []uint64{0, first.Record.Stamp, second.Record.Stamp + 1, 1<<53 - 1} {
		e, err := s.Save(ctx, "k", storageToken("k", "late"), seen)
		if err != nil {
			return fmt.Errorf("Save: %w", err)
		}
		if err := storageSame(e, want); err != nil {
			return fmt.Errorf("Save with seen %d over stamp %d returned not what is stored: %w", seen, second.Record.Stamp, err)
		}
		if e, err = storageLoad(ctx, s, "k"); err != nil {
			return err
		}
		if err := storageSame(e, want); err != nil {
			return fmt.Errorf("Save with seen %d over stamp %d changed what is stored: %w", seen, second.Record.Stamp, err)
		}
	}
	return nil
}

func storageStampsRise(ctx context.Context, s requestforge.Storage) error {
	var stored uint64
	for i, step := range []struct{ revoke, floor, want uint64 }{
		{want: 1},
		{want: 2},
		{floor: 1, want: 3},
		{floor: 3, want: 4},
		{floor: 10, want: 11},
		{revoke: 11, want: 12},
		{revoke: 20, want: 21},
		{revoke: 15, want: 22},
		{revoke: 30, floor: 25, want: 31},
		{revoke: 35, floor: 40, want: 41},
		{floor: 1 << 52, want: 1<<52 + 1},
		{revoke: 1<<53 - 2, want: 1<<53 - 1},
	} {
		if step.revoke != 0 {
			if err := s.Revoke(ctx, "k", step.revoke); err != nil {
				return fmt.Errorf("Revoke: %w", err)
			}
		}
		r := storageToken("k", fmt.Sprint("token ", i))
		r.Stamp = step.floor
		e, err := storageSave(ctx, s, r, stored)
		if err != nil {
			return err
		}
		if e.Record.Stamp != step.want {
			return fmt.Errorf("stored stamp %d, mark %d, floor %d: Save gave stamp %d, want %d",
				stored, e.Mark, step.floor, e.Record.Stamp, step.want)
		}
		if e, err = storageLoad(ctx, s, "k"); err != nil {
			return err
		}
		if e.Record == nil || e.Record.Stamp != step.want {
			return fmt.Errorf("Save gave stamp %d, Load returned %v", step.want, e)
		}
		stored = step.want
	}
	return nil
}

func storageMarksNeverFall(ctx context.Context, s requestforge.Storage) error {
	var stored uint64
	for i, step := range []struct{ revoke, want uint64 }{{5, 5}, {3, 5}, {5, 5}, {0, 5}, {7, 7}, {6, 7}} {
		if err := s.Revoke(ctx, "k", step.revoke); err != nil {
			return fmt.Errorf("Revoke: %w", err)
		}
		e, err := storageLoad(ctx, s, "k")
		if err != nil {
			return err
		}
		if e.Mark != step.want {
			return fmt.Errorf("after Revoke of %d the mark is %d, want %d", step.revoke, e.Mark, step.want)
		}
		e, err = storageSave(ctx, s, storageToken("k", fmt.Sprint("token ", i)), stored)
		if err != nil {
			return err
		}
		stored = e.Record.Stamp
		if e.Mark != step.want {
			return fmt.Errorf("Save returned mark %d, want %d", e.Mark, step.want)
		}
		if e, err = storageLoad(ctx, s, "k"); err != nil {
			return err
		}
		if e.Mark != step.want {
			return fmt.Errorf("after Save the mark is %d, want %d", e.Mark, step.want)
		}
	}
	return nil
}

func storageRevokeUnknownKey(ctx context.Context, s requestforge.Storage) error {
	if err := s.Revoke(ctx, "k", 7); err != nil {
		return fmt.Errorf("Revoke: %w", err)
	}
	e, err := storageLoad(ctx, s, "k")
	if err != nil {
		return err
	}
	if e.Record != nil || e.Mark != 7 {
		return fmt.Errorf("after Revoke of 7 the entry is %v, want mark 7 and no record", e)
	}
	if e, err = storageSave(ctx, s, storageToken("k", "first"), 0); err != nil {
		return err
	}
	if e.Record.Stamp != 8 || e.Mark != 7 {
		return fmt.Errorf("the first Save over mark 7 gave stamp %d and mark %d, want 8 and 7", e.Record.Stamp, e.Mark)
	}
	return nil
}

func storageRevokeKeepsRecord(ctx context.Context, s requestforge.Storage) error {
	r := storageRecords()["full record"]
	r.Key = "k"
	saved, err := storageSave(ctx, s, r, 0)
	if err != nil {
		return err
	}
	if _, err := storageSave(ctx, s, storageToken("other", "other"), 0); err != nil {
		return err
	}
	for _, stamp := range []uint64{saved.Record.Stamp, saved.Record.Stamp + 5} {
		if err := s.Revoke(ctx, "k", stamp); err != nil {
			return fmt.Errorf("Revoke: %w", err)
		}
		e, err := storageLoad(ctx, s, "k")
		if err != nil {
			return err
		}
		if err := storageSame(e, requestforge.Entry{Record: saved.Record, Mark: stamp}); err != nil {
			return fmt.Errorf("after Revoke of %d: %w", stamp, err)
		}
	}
	if e, err := storageLoad(ctx, s, "other"); err != nil || storageAccess(e) != "other" || e.Mark != 0 {
		return fmt.Errorf("Revoke of key %q changed key %q: %v, %v", "k", "other", e, err)
	}
	return nil
}

func storageUnknownKeyTakesAnySeen(ctx context.Context, s requestforge.Storage) error {
	for _, seen := range []uint64{0, 1, 41, 1<<53 - 2} {
		for _, marked := range []bool{false, true} {
			name := fmt.Sprintf("%d %t", seen, marked)
			saved, deleted := "saved "+name, "deleted "+name
			mark := uint64(0)
			if marked {
				mark = 7
				for _, key := range []string{saved, deleted} {
					if err := s.Revoke(ctx, key, mark); err != nil {
						return fmt.Errorf("Revoke: %w", err)
					}
				}
			}
			r := storageToken(saved, "first")
			r.Stamp = 3
			e, err := storageSave(ctx, s, r, seen)
			if err != nil {
				return err
			}
			if want := max(mark, 3) + 1; e.Record.Stamp != want || e.Mark != mark || e.Gone != 0 {
				return fmt.Errorf("Save with seen %d and floor 3 over mark %d returned %v, want stamp %d and no tombstone", seen, mark, e, want)
			}
			if e, err = storageBury(ctx, s, deleted, seen); err != nil {
				return err
			}
			if want := (requestforge.Entry{Mark: mark, Gone: max(seen, mark) + 1}); e != want {
				return fmt.Errorf("Delete with seen %d over mark %d returned %v, want %v", seen, mark, e, want)
			}
		}
	}
	return nil
}

func storageBadInput(ctx context.Context, s requestforge.Storage) error {
	saved, err := storageSave(ctx, s, storageToken("k", "good"), 0)
	if err != nil {
		return err
	}
	stamp := saved.Record.Stamp
	with := func(change func(r *requestforge.Record)) requestforge.Record {
		r := storageToken("k", "bad")
		change(&r)
		return r
	}
	// Keys at the end of the range of stamps, and their entries.
	ends := map[string]requestforge.Entry{"k": saved, "unknown": {}}
	top := storageToken("top stamp", "top")
	top.Stamp = 1<<53 - 2
	if ends["top stamp"], err = storageSave(ctx, s, top, 0); err != nil {
		return err
	}
	ends["top mark"] = requestforge.Entry{Mark: 1<<53 - 1}
	if err := errors.Join(s.Revoke(ctx, "top mark", 1<<53-1), s.Revoke(ctx, "top tombstone", 1<<53-2)); err != nil {
		return fmt.Errorf("Revoke: %w", err)
	}
	if ends["top tombstone"], err = storageBury(ctx, s, "top tombstone", 0); err != nil {
		return err
	}
	remove := func(key string, seen uint64) func() error {
		return func() error { _, err := s.Delete(ctx, key, seen); return err }
	}
	calls := map[string]func() error{
		"Revoke of 2^53":               func() error { return s.Revoke(ctx, "k", 1<<53) },
		"Revoke of 2^64-1":             func() error { return s.Revoke(ctx, "k", math.MaxUint64) },
		"Revoke, unknown key":          func() error { return s.Revoke(ctx, "unknown", 1<<53) },
		"Delete, unknown key, 2^53-1":  remove("unknown", 1<<53-1),
		"Delete, unknown key, 2^53":    remove("unknown", 1<<53),
		"Delete, unknown key, 2^64-1":  remove("unknown", math.MaxUint64),
		"Delete over stamp 2^53-1":     remove("top stamp", 1<<53-1),
		"Delete over tombstone 2^53-1": remove("top tombstone", 1<<53-1),
		"Delete over mark 2^53-1":      remove("top mark", 0),
		"Save over tombstone 2^53-1": func() error {
			_, err := s.Save(ctx, "top tombstone", storageToken("top tombstone", "bad"), 1<<53-1)
			return err
		},
	}
	for name, r := range map[string]requestforge.Record{
		"Save without a token":            with(func(r *requestforge.Record) { r.Token = nil }),
		"Save with a floor of 2^53-1":     with(func(r *requestforge.Record) { r.Stamp = 1<<53 - 1 }),
		"Save with a floor of 2^53":       with(func(r *requestforge.Record) { r.Stamp = 1 << 53 }),
		"Save with a floor of 2^64-1":     with(func(r *requestforge.Record) { r.Stamp = math.MaxUint64 }),
		"Save with 2^53 in the lineage":   with(func(r *requestforge.Record) { r.Lineage = map[string]uint64{"a": 1 << 53} }),
		"Save with 2^64-1 in the lineage": with(func(r *requestforge.Record) { r.Lineage = map[string]uint64{"a": math.MaxUint64} }),
	} {
		calls[name] = func() error { _, err := s.Save(ctx, "k", r, stamp); return err }
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		if calls[name]() == nil {
			errs = append(errs, fmt.Errorf("%s is no error", name))
		}
		for key, want := range ends {
			if err := storageStored(ctx, s, key, want); err != nil {
				errs = append(errs, fmt.Errorf("after %s key %q: %w", name, key, err))
			}
		}
	}
	return errors.Join(errs...)
}
