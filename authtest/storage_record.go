// Rules for records and keys: each record comes back unchanged, and only under its
// key.

package authtest

//lint:file-ignore ST1005 The messages begin with the name of the method called.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
)

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

// storageRecords returns records that a storage may easily get wrong, by their
// peculiarity.
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
			Until:   time.Date(2031, 3, 4, 5, 6, 7, 8, time.UTC),
			Keep:    30*24*time.Hour + 1,

			Challenge: map[string]string{"scope": "read pay", "claims": `{"access_token":null}`},
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
	gone := map[string]uint64{"deleted": 1}
	if _, err := storageBury(ctx, s, "deleted", 0); err != nil {
		return err
	}
	for _, keys := range [][]string{
		{"c", "a", "b"},
		{"b", "missing", "a"},
		{"a", "a"},
		{"missing", "c", "missing", "c", "b", "c"},
		{"deleted", "a", "missing", "deleted"},
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
			if got := storageAccess(entries[i]); got != want || entries[i].Mark != marks[key] || entries[i].Gone != gone[key] {
				return fmt.Errorf("Load%q: entry %d is %q with mark %d and tombstone %d, want %q with mark %d and tombstone %d",
					keys, i, got, entries[i].Mark, entries[i].Gone, want, marks[key], gone[key])
			}
		}
	}
	return nil
}

func storageOddKeys(ctx context.Context, s requestforge.Storage) error {
	long := strings.Repeat("0123456789abcdef", 32)
	keys := []string{
		"k", "K", "k ", " k", "kk", "k:", "k:k", "k:mark", "k:stamp", "k:record", "k:gone", "k:lock", "k.json", "k*", "k?", "[k]",
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
			want, mark, gone := "token of "+key, uint64(100+i), uint64(0)
			if key == deleted {
				want, gone = "no token", mark+1
			}
			if got := storageAccess(entries[i]); got != want || entries[i].Mark != mark || entries[i].Gone != gone {
				return fmt.Errorf("under key %q there is %q with mark %d and tombstone %d, want %q with mark %d and tombstone %d",
					key, got, entries[i].Mark, entries[i].Gone, want, mark, gone)
			}
		}
		return nil
	}
	if err := check("none"); err != nil {
		return err
	}
	if _, err := storageBury(ctx, s, "k", 1); err != nil {
		return err
	}
	if err := check("k"); err != nil {
		return fmt.Errorf("after Delete of key %q: %w", "k", err)
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
	if _, err := storageBury(ctx, s, "k", 8); err != nil {
		return err
	}
	if e, err = storageLoad(ctx, next, "k"); err != nil {
		return fmt.Errorf("of what Unwrap returns: %w", err)
	}
	if e.Gone != 9 {
		return fmt.Errorf("after Delete with seen 8 what Unwrap returns has tombstone %d for the same key, want 9", e.Gone)
	}
	return nil
}
