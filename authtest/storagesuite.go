// The rules of requestforge.Storage as tests that anyone can run on their own
// implementation. The rules themselves are written at requestforge.Storage.

package authtest

//lint:file-ignore ST1005 The messages begin with the name of the method called.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/internal/unwrap"
)

// TestStorage checks that a storage keeps the rules written at
// [requestforge.Storage], each in a subtest that names the rule and says what
// was seen instead. The rules of [requestforge.Locker] are checked too if a
// Pipeline would find a Locker in the storage: by type assertion on the storage
// and on what its method Unwrap() Storage returns. Run TestStorage under the race
// detector.
//
// newStorage is called once to look for a Locker, and then once a
// subtest. It returns a storage in which none of the keys of an earlier one
// are left, and cleans up through t.Cleanup:
//
//	func TestMyStorage(t *testing.T) {
//		authtest.TestStorage(t, func(t *testing.T) requestforge.Storage {
//			return mystorage.New(t.TempDir())
//		})
//	}
//
// It takes as long as the storage does: some thousand calls, and half a
// minute more for each call that hangs. A lease has to last that long as well.
func TestStorage(t *testing.T, newStorage func(t *testing.T) requestforge.Storage) {
	_, locker := unwrap.Find[requestforge.Locker](newStorage(t))
	for _, rule := range storageRules {
		if rule.locker && !locker {
			continue
		}
		t.Run(rule.name, func(t *testing.T) {
			if err := rule.run(t.Context(), newStorage(t)); err != nil {
				t.Errorf("broken rule: %s\n%v", rule.text, err)
			}
		})
	}
}

// storageHang is how long one rule may take before it is taken to hang.
const storageHang = 30 * time.Second

// storageRule is one rule, and a check that returns how s breaks it.
type storageRule struct {
	name   string
	text   string
	locker bool // only if there is a requestforge.Locker
	check  func(ctx context.Context, s requestforge.Storage) error
}

// run is check, but for a storage that doesn't heed ctx either.
func (rule storageRule) run(ctx context.Context, s requestforge.Storage) error {
	ctx, cancel := context.WithTimeout(ctx, storageHang)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- rule.check(ctx, s) }()
	select {
	case err := <-result:
		return err
	case <-time.After(storageHang + time.Second):
		return errors.New("a call hangs, past the end of its context too")
	}
}

var storageRules = []storageRule{
	{
		name:  "MissingKey",
		text:  "an unknown key is a zero Entry and no error",
		check: storageMissingKey,
	},
	{
		name:  "RoundTrip",
		text:  "a record comes back as it was saved, in every field except Stamp",
		check: storageRoundTrip,
	},
	{
		name:  "Replace",
		text:  "a record leaves nothing of the record before it",
		check: storageReplace,
	},
	{
		name:  "ExpiredStays",
		text:  "an expired record stays, its refresh token may still be of use",
		check: storageExpiredStays,
	},
	{
		name:  "Order",
		text:  "Load returns exactly one entry a key, in the order of keys",
		check: storageOrder,
	},
	{
		name:  "OddKeys",
		text:  "any key works, and no key stands for another",
		check: storageOddKeys,
	},
	{
		name:  "Seen",
		text:  "Save stores only if the stored stamp is the one seen, and returns what is stored then",
		check: storageSeen,
	},
	{
		name:  "StampsRise",
		text:  "the stamp given is max(stored, mark, floor) + 1",
		check: storageStampsRise,
	},
	{
		name:  "MarksNeverFall",
		text:  "a mark never falls, and Save leaves it alone",
		check: storageMarksNeverFall,
	},
	{
		name:  "RevokeUnknownKey",
		text:  "Revoke of an unknown key sets its mark",
		check: storageRevokeUnknownKey,
	},
	{
		name:  "RevokeKeepsRecord",
		text:  "Revoke removes and changes nothing but the mark",
		check: storageRevokeKeepsRecord,
	},
	{
		name:  "Delete",
		text:  "Delete removes records and marks of its keys, and nothing else",
		check: storageDelete,
	},
	{
		name:  "SaveAfterDelete",
		text:  "a record deleted meanwhile is not brought back by a Save that has seen it",
		check: storageSaveAfterDelete,
	},
	{
		name:  "BadInput",
		text:  "a record without a token, or a stamp of 2^53 or above, is an error that changes nothing",
		check: storageBadInput,
	},
	{
		name:  "SavedIsCopied",
		text:  "what the caller does with a record after Save doesn't change what is stored, nor does Save change it",
		check: storageSavedIsCopied,
	},
	{
		name:  "LoadedIsCopied",
		text:  "what the caller does with an entry it was given doesn't change what is stored",
		check: storageLoadedIsCopied,
	},
	{
		name:  "ConcurrentSaves",
		text:  "of many Saves with the same seen one stores its record, and all return that one",
		check: storageConcurrentSaves,
	},
	{
		name:  "ConcurrentRevokes",
		text:  "a stamp is above every mark set before, and no mark is lost, however Save and Revoke interleave",
		check: storageConcurrentRevokes,
	},
	{
		name:  "DoneContext",
		text:  "a call whose context is done fails or answers, but doesn't hang",
		check: storageDoneContext,
	},
	{
		name:  "Unwrap",
		text:  "a storage with a method Unwrap() Storage passes keys on unchanged",
		check: storageUnwrap,
	},
	{
		name:   "LockExclusive",
		text:   "one lease of a key is held at a time; TryLock says false and returns no lease meanwhile",
		locker: true,
		check:  storageLockExclusive,
	},
	{
		name:   "LockAgain",
		text:   "a lock is free again after Unlock",
		locker: true,
		check:  storageLockAgain,
	},
	{
		name:   "LockOwner",
		text:   "Unlock releases the lock of its own lease only, once",
		locker: true,
		check:  storageLockOwner,
	},
	{
		name:   "LockKeys",
		text:   "a lock keeps nobody from other keys, nor from what is stored under its own",
		locker: true,
		check:  storageLockKeys,
	},
	{
		name:   "LockDone",
		text:   "Done stays open while the lock is held",
		locker: true,
		check:  storageLockDone,
	},
	{
		name:   "LockDoneContext",
		text:   "TryLock whose context is done fails or answers, but doesn't hang",
		locker: true,
		check:  storageLockDoneContext,
	},
}

func storageMissingKey(ctx context.Context, s requestforge.Storage) error {
	entries, err := s.Load(ctx, "nobody", "knows")
	if err != nil {
		return fmt.Errorf("Load: %w", err)
	}
	if len(entries) != 2 || entries[0] != (requestforge.Entry{}) || entries[1] != (requestforge.Entry{}) {
		return fmt.Errorf("Load of two unknown keys returned %v, want two zero entries", entries)
	}
	if entries, err = s.Load(ctx); err != nil || len(entries) != 0 {
		return fmt.Errorf("Load of no key returned %v, %v; want nothing", entries, err)
	}
	return nil
}

func storageRoundTrip(ctx context.Context, s requestforge.Storage) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(storageRecords())) {
		r := storageRecords()[name]
		want := storageRecords()[name] // r's token is in reach of Save
		r.Key, want.Key = name, name
		saved, err := s.Save(ctx, r.Key, r, 0)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: Save: %w", name, err))
			continue
		}
		if err := storageDiff(saved.Record, want); err != nil {
			errs = append(errs, fmt.Errorf("%s: returned by Save: %w", name, err))
		}
		loaded, err := storageLoad(ctx, s, r.Key)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		if err := storageDiff(loaded.Record, want); err != nil {
			errs = append(errs, fmt.Errorf("%s: returned by Load: %w", name, err))
		} else if saved.Record != nil && loaded.Record.Stamp != saved.Record.Stamp {
			errs = append(errs, fmt.Errorf("%s: Save gave stamp %d, Load says %d", name, saved.Record.Stamp, loaded.Record.Stamp))
		}
	}
	return errors.Join(errs...)
}

// storageRecords returns records that are easy to get wrong, by what is odd
// about them.
func storageRecords() map[string]requestforge.Record {
	return map[string]requestforge.Record{
		"full record": {
			Token: &requestforge.Token{
				AccessToken:  "access-1",
				TokenType:    "Bearer",
				RefreshToken: "refresh-1",
				Expiry:       time.Date(2199, 12, 31, 23, 59, 59, 123456789, time.FixedZone("", 5*3600+1800)),
				Extra: map[string]any{
					"scope": "read <write> & \u2028 é 世界",
					"user": map[string]any{
						"id":    json.Number("9007199254740993"),
						"roles": []any{"admin", nil, true, map[string]any{}},
					},
				},
			},
			Lineage: map[string]uint64{"pre:device": 1, "pre:app": 1<<53 - 1},
			Issued:  time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC),
			Keep:    30*24*time.Hour + 1,
		},
		"nothing but an access token": {
			Token: &requestforge.Token{AccessToken: "a"},
		},
		"odd token type": {
			Token: &requestforge.Token{AccessToken: "a", TokenType: `MAC "é" ,;=`},
		},
		"bytes that aren't UTF-8": {
			Token: &requestforge.Token{AccessToken: "\xff\x00\xc3(\r\n", TokenType: "\xfe", RefreshToken: "\x80\ufffd"},
		},
		"spaces around": {
			Token: &requestforge.Token{AccessToken: " a\t", TokenType: " ", RefreshToken: "\n"},
		},
		"long token": {
			Token: &requestforge.Token{AccessToken: strings.Repeat("0123456789abcdef", 4096)},
		},
		"years of five digits and none": {
			Token:  &requestforge.Token{AccessToken: "a", Expiry: time.Date(12026, 1, 2, 3, 4, 5, 6, time.UTC)},
			Issued: time.Date(-3, 1, 2, 3, 4, 5, 6, time.UTC),
		},
		"the epoch is not zero": {
			Token:  &requestforge.Token{AccessToken: "a", Expiry: time.Unix(0, 0)},
			Issued: time.Unix(0, 1),
		},
		"numbers": {
			Token: &requestforge.Token{AccessToken: "a", Extra: map[string]any{
				"above 2^53":    json.Number("9007199254740993"),
				"above 2^64":    json.Number("123456789012345678901234567890"),
				"fraction":      json.Number("0.10"),
				"beyond floats": json.Number("1E+400"),
				"int":           42,
				"int64":         int64(math.MaxInt64),
				"uint64":        uint64(math.MaxUint64),
				"float64":       1.5,
			}},
		},
		"empty maps": {
			Token:   &requestforge.Token{AccessToken: "a", Extra: map[string]any{}},
			Lineage: map[string]uint64{},
		},
		"odd names": {
			Token: &requestforge.Token{AccessToken: "a", Extra: map[string]any{
				"":                nil,
				"a.b/c$d~1":       "",
				"AccessToken":     "not this",
				"é \u0000 \u2029": []any{},
			}},
			Lineage: map[string]uint64{"": 1, "a.b/c$d é": 2},
		},
	}
}

func storageReplace(ctx context.Context, s requestforge.Storage) error {
	full := storageRecords()["full record"]
	bare := storageRecords()["nothing but an access token"]
	full.Key, bare.Key = "k", "k"
	first, err := storageSave(ctx, s, full, 0)
	if err != nil {
		return err
	}
	if _, err := storageSave(ctx, s, bare, first.Record.Stamp); err != nil {
		return err
	}
	e, err := storageLoad(ctx, s, "k")
	if err != nil {
		return err
	}
	if err := storageDiff(e.Record, bare); err != nil {
		return fmt.Errorf("a bare record saved over a full one: %w", err)
	}
	return nil
}

func storageExpiredStays(ctx context.Context, s requestforge.Storage) error {
	var errs []error
	for name, keep := range map[string]time.Duration{"Keep 0": 0, "Keep 30 days": 30 * 24 * time.Hour} {
		r := storageToken(name, "old")
		r.Token.RefreshToken = "still good"
		r.Token.Expiry = time.Now().Add(-time.Hour)
		r.Keep = keep
		if _, err := storageSave(ctx, s, r, 0); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := s.Revoke(ctx, r.Key, 1); err != nil {
			errs = append(errs, fmt.Errorf("Revoke: %w", err))
		}
		e, err := storageLoad(ctx, s, r.Key)
		if err == nil {
			err = storageDiff(e.Record, r)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("a record that expired an hour ago, %s: %w", name, err))
		} else if e.Mark != 1 {
			errs = append(errs, fmt.Errorf("a record that expired an hour ago, %s: mark %d, want 1", name, e.Mark))
		}
	}
	return errors.Join(errs...)
}

func storageOrder(ctx context.Context, s requestforge.Storage) error {
	for i, key := range []string{"a", "b", "c"} {
		if _, err := storageSave(ctx, s, storageToken(key, "token of "+key), 0); err != nil {
			return err
		}
		if err := s.Revoke(ctx, key, uint64(10+i)); err != nil {
			return fmt.Errorf("Revoke: %w", err)
		}
	}
	marks := map[string]uint64{"a": 10, "b": 11, "c": 12}
	for _, keys := range [][]string{
		{"c", "a", "b"},
		{"b", "missing", "a"},
		{"a", "a"},
		{"missing", "c", "missing", "c", "b", "c"},
	} {
		entries, err := s.Load(ctx, keys...)
		if err != nil {
			return fmt.Errorf("Load%q: %w", keys, err)
		}
		if len(entries) != len(keys) {
			return fmt.Errorf("Load%q returned %d entries, want %d", keys, len(entries), len(keys))
		}
		for i, key := range keys {
			want := "no token"
			if marks[key] != 0 {
				want = "token of " + key
			}
			if got := storageAccess(entries[i]); got != want || entries[i].Mark != marks[key] {
				return fmt.Errorf("Load%q: entry %d is %q with mark %d, want %q with mark %d",
					keys, i, got, entries[i].Mark, want, marks[key])
			}
		}
	}
	return nil
}

func storageOddKeys(ctx context.Context, s requestforge.Storage) error {
	long := strings.Repeat("0123456789abcdef", 32)
	keys := []string{
		"k", "K", "k ", " k", "kk", "k:", "k:k", "k:mark", "k:stamp", "k:record", "k:lock", "k.json", "k*", "k?", "[k]",
		"a:b{c}/é %20", "a:b{c}/é  ", "a%3Ab", "a:b", "é", "e\u0301", "../k", "/k", "a/b", `a\b`, "a\nb", "'; --", `"`, "$k", ".", "..",
		long, long[:511], long + "x",
	}
	for i, key := range keys {
		if _, err := storageSave(ctx, s, storageToken(key, "token of "+key), 0); err != nil {
			return err
		}
		if err := s.Revoke(ctx, key, uint64(100+i)); err != nil {
			return fmt.Errorf("Revoke of key %q: %w", key, err)
		}
	}
	check := func(deleted string) error {
		entries, err := s.Load(ctx, keys...)
		if err != nil {
			return fmt.Errorf("Load: %w", err)
		}
		if len(entries) != len(keys) {
			return fmt.Errorf("Load returned %d entries for %d keys", len(entries), len(keys))
		}
		for i, key := range keys {
			want, mark := "token of "+key, uint64(100+i)
			if key == deleted {
				want, mark = "no token", 0
			}
			if got := storageAccess(entries[i]); got != want || entries[i].Mark != mark {
				return fmt.Errorf("under key %q there is %q with mark %d, want %q with mark %d", key, got, entries[i].Mark, want, mark)
			}
		}
		return nil
	}
	if err := check("none"); err != nil {
		return err
	}
	if err := s.Delete(ctx, "k"); err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	if err := check("k"); err != nil {
		return fmt.Errorf("after Delete of key %q: %w", "k", err)
	}
	return nil
}

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

func storageDelete(ctx context.Context, s requestforge.Storage) error {
	keys := []string{"a", "b", "c", "d"}
	for _, key := range keys {
		if _, err := storageSave(ctx, s, storageToken(key, key), 0); err != nil {
			return err
		}
		if err := s.Revoke(ctx, key, 9); err != nil {
			return fmt.Errorf("Revoke: %w", err)
		}
	}
	if err := s.Delete(ctx); err != nil {
		return fmt.Errorf("Delete of no key: %w", err)
	}
	if err := s.Delete(ctx, "a", "unknown", "c"); err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	if err := s.Delete(ctx, "a"); err != nil {
		return fmt.Errorf("Delete of a key deleted before: %w", err)
	}
	entries, err := s.Load(ctx, keys...)
	if err != nil {
		return fmt.Errorf("Load: %w", err)
	}
	if len(entries) != len(keys) {
		return fmt.Errorf("Load returned %d entries for %d keys", len(entries), len(keys))
	}
	for i, deleted := range []bool{true, false, true, false} {
		if e := entries[i]; deleted && e != (requestforge.Entry{}) {
			return fmt.Errorf("after Delete key %q is %v, want the zero Entry", keys[i], e)
		} else if !deleted && (storageAccess(e) != keys[i] || e.Mark != 9) {
			return fmt.Errorf("Delete of other keys changed key %q to %v", keys[i], e)
		}
	}
	e, err := storageSave(ctx, s, storageToken("a", "new"), 0)
	if err != nil {
		return err
	}
	if e.Record.Stamp != 1 || e.Mark != 0 {
		return fmt.Errorf("the first Save after Delete gave stamp %d and mark %d, want 1 and 0", e.Record.Stamp, e.Mark)
	}
	return nil
}

func storageSaveAfterDelete(ctx context.Context, s requestforge.Storage) error {
	saved, err := storageSave(ctx, s, storageToken("k", "old"), 0)
	if err != nil {
		return err
	}
	if err := s.Delete(ctx, "k"); err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	e, err := s.Save(ctx, "k", storageToken("k", "late"), saved.Record.Stamp)
	if err != nil {
		return fmt.Errorf("Save: %w", err)
	}
	if e != (requestforge.Entry{}) {
		return fmt.Errorf("Save with seen %d after Delete returned %v, want the zero Entry", saved.Record.Stamp, e)
	}
	if e, err = storageLoad(ctx, s, "k"); err != nil {
		return err
	}
	if e != (requestforge.Entry{}) {
		return fmt.Errorf("Save with seen %d after Delete left %v, want the zero Entry", saved.Record.Stamp, e)
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
	calls := map[string]func() error{
		"Revoke of 2^53":      func() error { return s.Revoke(ctx, "k", 1<<53) },
		"Revoke of 2^64-1":    func() error { return s.Revoke(ctx, "k", math.MaxUint64) },
		"Revoke, unknown key": func() error { return s.Revoke(ctx, "unknown", 1<<53) },
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
		e, err := storageLoad(ctx, s, "k")
		if err == nil {
			err = storageSame(e, saved)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("after %s: %w", name, err))
		}
	}
	if e, err := storageLoad(ctx, s, "unknown"); err != nil || e != (requestforge.Entry{}) {
		errs = append(errs, fmt.Errorf("after Revoke of 2^53 an unknown key is %v, %v; want the zero Entry", e, err))
	}
	return errors.Join(errs...)
}

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

// storageScribble changes all that can be reached from r.
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

func storageConcurrentRevokes(ctx context.Context, s requestforge.Storage) error {
	const callers, rounds = 8, 25
	var (
		marked atomic.Uint64 // the highest mark that a finished Revoke has set
		stamps sync.Map      // those given
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
				continue // Somebody was faster.
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
	s.Delete(done, "unknown")
	e, err := storageLoad(ctx, s, "k")
	if err != nil {
		return err
	}
	if e.Record == nil {
		return errors.New("after them the record is gone")
	}
	return nil
}

func storageUnwrap(ctx context.Context, s requestforge.Storage) error {
	wrapper, ok := s.(interface{ Unwrap() requestforge.Storage })
	if !ok {
		return nil
	}
	next := wrapper.Unwrap()
	if next == nil {
		return nil
	}
	if err := s.Revoke(ctx, "k", 7); err != nil {
		return fmt.Errorf("Revoke: %w", err)
	}
	e, err := storageLoad(ctx, next, "k")
	if err != nil {
		return fmt.Errorf("of what Unwrap returns: %w", err)
	}
	if e.Mark != 7 {
		return fmt.Errorf("after Revoke of 7 what Unwrap returns has mark %d for the same key", e.Mark)
	}
	return nil
}

func storageLockExclusive(ctx context.Context, s requestforge.Storage) error {
	const rounds, callers = 20, 16
	for range rounds {
		leases := make([]requestforge.Lease, callers)
		locked := make([]bool, callers)
		errs := make([]error, callers)
		storageAtOnce(callers, func(i int) {
			leases[i], locked[i], errs[i] = storageLocker(s).TryLock(ctx, "k")
		})
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("TryLock: %w", err)
		}
		var held []requestforge.Lease
		for i, lease := range leases {
			if locked[i] != (lease != nil) {
				return fmt.Errorf("TryLock returned lease %v and %t", lease, locked[i])
			}
			if locked[i] {
				held = append(held, lease)
			}
		}
		if len(held) != 1 {
			return fmt.Errorf("of %d TryLocks of one free key %d returned a lease, want 1", callers, len(held))
		}
		if err := held[0].Unlock(ctx); err != nil {
			return fmt.Errorf("Unlock: %w", err)
		}
	}
	return nil
}

func storageLockAgain(ctx context.Context, s requestforge.Storage) error {
	for range 3 {
		lease, err := storageLock(ctx, s, "k")
		if err != nil {
			return err
		}
		if err := lease.Unlock(ctx); err != nil {
			return fmt.Errorf("Unlock: %w", err)
		}
	}
	return nil
}

func storageLockOwner(ctx context.Context, s requestforge.Storage) error {
	first, err := storageLock(ctx, s, "k")
	if err != nil {
		return err
	}
	if err := first.Unlock(ctx); err != nil {
		return fmt.Errorf("Unlock: %w", err)
	}
	second, err := storageLock(ctx, s, "k")
	if err != nil {
		return err
	}
	if err := first.Unlock(ctx); err != nil {
		return fmt.Errorf("a further Unlock: %w", err)
	}
	if _, ok, err := storageLocker(s).TryLock(ctx, "k"); err != nil || ok {
		return fmt.Errorf("a further Unlock of the first lease released the second one: TryLock returned %t, %v", ok, err)
	}
	if err := second.Unlock(ctx); err != nil {
		return fmt.Errorf("Unlock: %w", err)
	}
	return nil
}

func storageLockKeys(ctx context.Context, s requestforge.Storage) error {
	lease, err := storageLock(ctx, s, "k")
	if err != nil {
		return err
	}
	other, err := storageLock(ctx, s, "k2")
	if err != nil {
		return fmt.Errorf("while key %q is locked: %w", "k", err)
	}
	if e, err := storageLoad(ctx, s, "k"); err != nil || e != (requestforge.Entry{}) {
		return fmt.Errorf("locked and never saved, the entry is %v, %v; want the zero Entry", e, err)
	}
	e, err := storageSave(ctx, s, storageToken("k", "token"), 0)
	if err != nil {
		return fmt.Errorf("while its key is locked: %w", err)
	}
	if err := s.Revoke(ctx, "k", e.Record.Stamp); err != nil {
		return fmt.Errorf("Revoke: %w", err)
	}
	if err := other.Unlock(ctx); err != nil {
		return fmt.Errorf("Unlock: %w", err)
	}
	if _, ok, err := storageLocker(s).TryLock(ctx, "k"); err != nil || ok {
		return fmt.Errorf("Save, Revoke or the Unlock of another key released the lock: TryLock returned %t, %v", ok, err)
	}
	if err := lease.Unlock(ctx); err != nil {
		return fmt.Errorf("Unlock: %w", err)
	}
	if e, err = storageLoad(ctx, s, "k"); err != nil || storageAccess(e) != "token" || e.Mark != 1 {
		return fmt.Errorf("after Unlock the entry is %v, %v; want what was saved while the key was locked", e, err)
	}
	return nil
}

func storageLockDone(ctx context.Context, s requestforge.Storage) error {
	// A context of its own: what TryLock was called with may end.
	callCtx, cancel := context.WithCancel(ctx)
	lease, err := storageLock(callCtx, s, "k")
	cancel()
	if err != nil {
		return err
	}
	if _, ok, err := storageLocker(s).TryLock(ctx, "k"); err != nil || ok {
		return fmt.Errorf("the lock was released when the context of its TryLock ended: TryLock returned %t, %v", ok, err)
	}
	select {
	case <-lease.Done():
		return errors.New("Done is closed, though the lock is held")
	default:
	}
	if err := lease.Unlock(ctx); err != nil {
		return fmt.Errorf("Unlock: %w", err)
	}
	return nil
}

func storageLockDoneContext(ctx context.Context, s requestforge.Storage) error {
	done, cancel := context.WithCancel(ctx)
	cancel()
	lease, ok, err := storageLocker(s).TryLock(done, "k")
	if ok != (lease != nil) || ok && err != nil {
		return fmt.Errorf("TryLock returned lease %v, %t and %v", lease, ok, err)
	}
	if ok {
		lease.Unlock(done) // Free or not, but it must not hang.
	}
	return nil
}

// storageToken returns a small record.
func storageToken(key, access string) requestforge.Record {
	return requestforge.Record{Key: key, Token: &requestforge.Token{AccessToken: access}}
}

// storageAccess returns the access token in e.
func storageAccess(e requestforge.Entry) string {
	if e.Record == nil || e.Record.Token == nil {
		return "no token"
	}
	return e.Record.Token.AccessToken
}

// storageStamp returns the stamp in e.
func storageStamp(e requestforge.Entry) uint64 {
	if e.Record == nil {
		return 0
	}
	return e.Record.Stamp
}

// storageLoad loads one key.
func storageLoad(ctx context.Context, s requestforge.Storage, key string) (requestforge.Entry, error) {
	entries, err := s.Load(ctx, key)
	if err != nil {
		return requestforge.Entry{}, fmt.Errorf("Load of key %q: %w", key, err)
	}
	if len(entries) != 1 {
		return requestforge.Entry{}, fmt.Errorf("Load of one key returned %d entries", len(entries))
	}
	if r := entries[0].Record; r != nil && r.Token == nil {
		return requestforge.Entry{}, fmt.Errorf("Load of key %q returned a record without a token", key)
	}
	return entries[0], nil
}

// storageSave saves r under its key, and expects that to work.
func storageSave(ctx context.Context, s requestforge.Storage, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
	e, err := s.Save(ctx, r.Key, r, seen)
	if err != nil {
		return e, fmt.Errorf("Save of key %q: %w", r.Key, err)
	}
	if storageAccess(e) != r.Token.AccessToken {
		return e, fmt.Errorf("Save of key %q with the right seen, %d, stored nothing: it returned %v", r.Key, seen, e)
	}
	return e, nil
}

// storageLocker returns the Locker that a Pipeline would find.
func storageLocker(s requestforge.Storage) requestforge.Locker {
	l, _ := unwrap.Find[requestforge.Locker](s)
	return l
}

// storageLock locks a key that is free.
func storageLock(ctx context.Context, s requestforge.Storage, key string) (requestforge.Lease, error) {
	lease, ok, err := storageLocker(s).TryLock(ctx, key)
	if err != nil || !ok || lease == nil {
		return nil, fmt.Errorf("TryLock of key %q, which is free, returned lease %v, %t and %v", key, lease, ok, err)
	}
	return lease, nil
}

// storageAtOnce runs n calls of f as close together as it can.
func storageAtOnce(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// storageSame says how got differs from want.
func storageSame(got, want requestforge.Entry) error {
	if got.Mark != want.Mark {
		return fmt.Errorf("mark %d, want %d", got.Mark, want.Mark)
	}
	if got.Record == nil || want.Record == nil {
		if got.Record != want.Record {
			return fmt.Errorf("record %v, want %v", got.Record, want.Record)
		}
		return nil
	}
	if got.Record.Stamp != want.Record.Stamp {
		return fmt.Errorf("stamp %d, want %d", got.Record.Stamp, want.Record.Stamp)
	}
	return storageDiff(got.Record, *want.Record)
}

// storageDiff says in which fields got differs from want, apart from Stamp.
// The tokens are the suite's own, so it may show them.
func storageDiff(got *requestforge.Record, want requestforge.Record) error {
	if got == nil || got.Token == nil {
		return errors.New("no record, or one without a token")
	}
	var errs []error
	field := func(name string, same bool, got, want any) {
		if !same {
			errs = append(errs, fmt.Errorf("%s is %.200q, want %.200q", name, fmt.Sprint(got), fmt.Sprint(want)))
		}
	}
	instant := func(name string, got, want time.Time) {
		field(name, got.Equal(want) && got.IsZero() == want.IsZero(), got, want)
	}
	g, w := got.Token, want.Token
	field("Key", got.Key == want.Key, got.Key, want.Key)
	field("Token.AccessToken", g.AccessToken == w.AccessToken, g.AccessToken, w.AccessToken)
	field("Token.TokenType", g.TokenType == w.TokenType, g.TokenType, w.TokenType)
	field("Token.RefreshToken", g.RefreshToken == w.RefreshToken, g.RefreshToken, w.RefreshToken)
	instant("Token.Expiry", g.Expiry, w.Expiry)
	field("Lineage", maps.Equal(got.Lineage, want.Lineage), got.Lineage, want.Lineage)
	instant("Issued", got.Issued, want.Issued)
	field("Keep", got.Keep == want.Keep, got.Keep, want.Keep)

	// Values in Extra may come back as other Go types, but must be the
	// same JSON. A nil map and an empty one are as good as each other.
	if len(g.Extra) != 0 || len(w.Extra) != 0 {
		gotJSON, err := json.Marshal(g.Extra)
		if err != nil {
			errs = append(errs, errors.New("Token.Extra is not JSON any more"))
		}
		wantJSON, err := json.Marshal(w.Extra)
		if err != nil {
			errs = append(errs, err)
		}
		field("Token.Extra", bytes.Equal(gotJSON, wantJSON), string(gotJSON), string(wantJSON))
	}
	return errors.Join(errs...)
}
