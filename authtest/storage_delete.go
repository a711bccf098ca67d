// Rules for logouts: which data a Delete removes, and which writes a tombstone
// rejects.

package authtest

//lint:file-ignore ST1005 The messages begin with the name of the method called.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/requestforge/requestforge"
)

func storageDelete(ctx context.Context, s requestforge.Storage) error {
	for i, key := range []string{"kept", "deleted", "marked and kept", "marked and deleted"} {
		for seen := range uint64(i + 1) {
			if _, err := storageSave(ctx, s, storageToken(key, key), seen); err != nil {
				return err
			}
		}
	}
	for _, key := range []string{"marked and kept", "marked and deleted"} {
		if err := s.Revoke(ctx, key, 9); err != nil {
			return fmt.Errorf("Revoke: %w", err)
		}
	}
	for _, test := range []struct {
		key  string
		seen uint64
		want requestforge.Entry
	}{
		{"deleted", 2, requestforge.Entry{Gone: 3}},
		{"marked and deleted", 4, requestforge.Entry{Mark: 9, Gone: 10}},
		{"unknown", 0, requestforge.Entry{Gone: 1}},
	} {
		e, err := storageBury(ctx, s, test.key, test.seen)
		if err != nil {
			return err
		}
		if err := storageSame(e, test.want); err != nil {
			return fmt.Errorf("Delete of key %q with seen %d: it returned %w", test.key, test.seen, err)
		}
		if err := storageStored(ctx, s, test.key, test.want); err != nil {
			return fmt.Errorf("after Delete of key %q with seen %d: %w", test.key, test.seen, err)
		}
	}
	for i, key := range []string{"kept", "marked and kept"} {
		e, err := storageLoad(ctx, s, key)
		if err != nil {
			return err
		}
		if storageAccess(e) != key || e.Mark != uint64(9*i) || e.Gone != 0 {
			return fmt.Errorf("Delete of other keys changed key %q to %v", key, e)
		}
	}
	return nil
}

func storageDeleteSeen(ctx context.Context, s requestforge.Storage) error {
	first, err := storageSave(ctx, s, storageToken("k", "first"), 0)
	if err != nil {
		return err
	}
	want, err := storageSave(ctx, s, storageToken("k", "second"), first.Record.Stamp)
	if err != nil {
		return err
	}
	refused := func(seens ...uint64) error {
		for _, seen := range seens {
			e, err := s.Delete(ctx, "k", seen)
			if err != nil {
				return fmt.Errorf("Delete: %w", err)
			}
			if err := storageSame(e, want); err != nil {
				return fmt.Errorf("Delete with seen %d over version %d returned not what is stored: %w", seen, want.Version(), err)
			}
			if err := storageStored(ctx, s, "k", want); err != nil {
				return fmt.Errorf("Delete with seen %d over version %d changed what is stored: %w", seen, want.Version(), err)
			}
		}
		return nil
	}
	if err := refused(0, first.Record.Stamp, want.Record.Stamp+1, 1<<53-2); err != nil {
		return err
	}
	if want, err = storageBury(ctx, s, "k", want.Record.Stamp); err != nil {
		return err
	}
	// A Delete over a tombstone that the caller hasn't seen changes nothing; a
	// Delete by a caller who has seen the tombstone is a further logout.
	if err := refused(0, first.Record.Stamp, want.Gone-1, want.Gone+1, 1<<53-2); err != nil {
		return err
	}
	e, err := storageBury(ctx, s, "k", want.Gone)
	if err != nil {
		return err
	}
	if e.Gone != want.Gone+1 {
		return fmt.Errorf("Delete that has seen tombstone %d set tombstone %d, want %d", want.Gone, e.Gone, want.Gone+1)
	}
	return nil
}

func storageSaveAfterDelete(ctx context.Context, s requestforge.Storage) error {
	for _, before := range []int{0, 1, 3} { // records before the logout
		key := fmt.Sprint("after ", before)
		var seen uint64
		for range before {
			e, err := storageSave(ctx, s, storageToken(key, "old"), seen)
			if err != nil {
				return err
			}
			seen = e.Record.Stamp
		}
		want, err := storageBury(ctx, s, key, seen)
		if err != nil {
			return err
		}
		for late := range want.Gone {
			r := storageToken(key, "late")
			r.Stamp = 99 // however high a floor may be
			e, err := s.Save(ctx, key, r, late)
			if err != nil {
				return fmt.Errorf("Save: %w", err)
			}
			if err := storageSame(e, want); err != nil {
				return fmt.Errorf("Save with seen %d over tombstone %d returned %w", late, want.Gone, err)
			}
			if err := storageStored(ctx, s, key, want); err != nil {
				return fmt.Errorf("Save with seen %d over tombstone %d left %w", late, want.Gone, err)
			}
		}
		if _, err := storageSave(ctx, s, storageToken(key, "new"), want.Gone); err != nil {
			return fmt.Errorf("a login after the logout: %w", err)
		}
	}
	return nil
}

func storageLateDelete(ctx context.Context, s requestforge.Storage) error {
	old, err := storageSave(ctx, s, storageToken("k", "old"), 0)
	if err != nil {
		return err
	}
	gone, err := storageBury(ctx, s, "k", old.Record.Stamp)
	if err != nil {
		return err
	}
	want, err := storageSave(ctx, s, storageToken("k", "new"), gone.Gone)
	if err != nil {
		return err
	}
	for name, seen := range map[string]uint64{"nothing": 0, "the old record": old.Record.Stamp, "the tombstone": gone.Gone} {
		e, err := s.Delete(ctx, "k", seen)
		if err != nil {
			return fmt.Errorf("Delete: %w", err)
		}
		if err := storageSame(e, want); err != nil {
			return fmt.Errorf("a late Delete that has seen %s returned %w", name, err)
		}
		if err := storageStored(ctx, s, "k", want); err != nil {
			return fmt.Errorf("after a late Delete that has seen %s: %w", name, err)
		}
	}
	return nil
}

func storageTombstonesNeverFall(ctx context.Context, s requestforge.Storage) error {
	var now requestforge.Entry
	for _, step := range []struct {
		call                string
		stamp               uint64 // the floor of a Save, the stamp of a Revoke
		version, mark, gone uint64 // afterwards
	}{
		{call: "Delete", version: 1, gone: 1},
		{call: "Delete", version: 2, gone: 2},
		{call: "Save", version: 3, gone: 2},
		{call: "Revoke", stamp: 1, version: 3, mark: 1, gone: 2},
		{call: "Save", version: 4, mark: 1, gone: 2},
		{call: "Save", stamp: 10, version: 11, mark: 1, gone: 2},
		{call: "Delete", version: 12, mark: 1, gone: 12},
		{call: "Revoke", stamp: 20, version: 12, mark: 20, gone: 12},
		{call: "Delete", version: 21, mark: 20, gone: 21},
		{call: "Revoke", stamp: 5, version: 21, mark: 20, gone: 21},
		{call: "Save", stamp: 3, version: 22, mark: 20, gone: 21},
		{call: "Save", version: 23, mark: 20, gone: 21},
		{call: "Revoke", stamp: 30, version: 23, mark: 30, gone: 21},
		{call: "Save", version: 31, mark: 30, gone: 21},
		{call: "Delete", version: 32, mark: 30, gone: 32},
	} {
		was := now
		check := func(how string, e requestforge.Entry) error {
			if e.Version() != step.version || e.Mark != step.mark || e.Gone != step.gone || (e.Record == nil) != (step.version == step.gone) {
				return fmt.Errorf("%s of %d over version %d, mark %d, tombstone %d: %s version %d, mark %d, tombstone %d; want %d, %d and %d",
					step.call, step.stamp, was.Version(), was.Mark, was.Gone, how, e.Version(), e.Mark, e.Gone, step.version, step.mark, step.gone)
			}
			return nil
		}
		var err error
		switch step.call {
		case "Save":
			r := storageToken("k", fmt.Sprint("token ", step.version))
			r.Stamp = step.stamp
			if now, err = storageSave(ctx, s, r, was.Version()); err == nil {
				err = check("it returned", now)
			}
		case "Delete":
			if now, err = storageBury(ctx, s, "k", was.Version()); err == nil {
				err = check("it returned", now)
			}
		case "Revoke":
			if err = s.Revoke(ctx, "k", step.stamp); err != nil {
				err = fmt.Errorf("Revoke: %w", err)
			}
		}
		if err != nil {
			return err
		}
		if now, err = storageLoad(ctx, s, "k"); err != nil {
			return err
		}
		if err := check("Load returned", now); err != nil {
			return err
		}
	}
	return nil
}

func storageTombstoneOutlivesRecords(ctx context.Context, s requestforge.Storage) error {
	useless := func(key string) requestforge.Record {
		r := storageToken(key, "useless")
		r.Token.Expiry, r.Keep = time.Now().Add(-time.Hour), time.Second
		return r
	}
	for _, later := range []bool{false, true} {
		key := fmt.Sprint("later ", later)
		var seen uint64
		if !later {
			e, err := s.Save(ctx, key, useless(key), 0)
			if err != nil {
				return fmt.Errorf("Save: %w", err)
			}
			seen = e.Version()
		}
		gone, err := storageBury(ctx, s, key, seen)
		if err != nil {
			return err
		}
		if later {
			if _, err := s.Save(ctx, key, useless(key), gone.Gone); err != nil {
				return fmt.Errorf("Save: %w", err)
			}
		}
		// Whether and when a storage drops the entry is up to the storage.
		if _, err := storageSave(ctx, s, storageToken("other "+key, "token"), 0); err != nil {
			return err
		}
		e, err := storageLoad(ctx, s, key)
		if err != nil {
			return err
		}
		if e.Record == nil && e.Gone != gone.Gone {
			return fmt.Errorf("a record that is of no use any more, later than the tombstone %t: it is gone, and the tombstone is %d, want %d", later, e.Gone, gone.Gone)
		}
	}
	return nil
}

func storageManyDeletes(ctx context.Context, s requestforge.Storage) error {
	const n = 32
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprint("k", i)
	}
	errs := make([]error, n)
	storageAtOnce(n, func(i int) { _, errs[i] = storageSave(ctx, s, storageToken(keys[i], "token"), 0) })
	if err := errors.Join(errs...); err != nil {
		return err
	}
	storageAtOnce(n, func(i int) {
		if i%4 == 0 {
			return
		}
		_, errs[i] = storageBury(ctx, s, keys[i], 1)
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	entries, err := s.Load(ctx, keys...)
	if err != nil {
		return fmt.Errorf("Load: %w", err)
	}
	if len(entries) != n {
		return fmt.Errorf("Load returned %d entries for %d keys", len(entries), n)
	}
	for i, e := range entries {
		if deleted := i%4 != 0; (e.Record == nil) != deleted || (e.Gone == 2) != deleted || e.Mark != 0 {
			return fmt.Errorf("after Deletes of many keys at once key %q, deleted %t, is %v", keys[i], deleted, e)
		}
	}
	return nil
}
