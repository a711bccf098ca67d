// The helpers of the checks: calls whose errors name the broken rule, and
// comparisons.

package authtest

//lint:file-ignore ST1005 The messages begin with the name of the method called.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/requestforge/requestforge"
)

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

// storageSave saves r under r.Key, and returns an error unless r was stored.
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

// storageBury deletes key, and returns an error unless key was deleted.
func storageBury(ctx context.Context, s requestforge.Storage, key string, seen uint64) (requestforge.Entry, error) {
	e, err := s.Delete(ctx, key, seen)
	if err != nil {
		return e, fmt.Errorf("Delete of key %q: %w", key, err)
	}
	if e.Record != nil || e.Gone <= seen {
		return e, fmt.Errorf("Delete of key %q with the right seen, %d, set no tombstone: it returned %v", key, seen, e)
	}
	return e, nil
}

// storageAtOnce runs n calls of f as close together as possible.
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
	if got.Gone != want.Gone {
		return fmt.Errorf("tombstone %d, want %d", got.Gone, want.Gone)
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

// storageStored returns the differences between the entry under key and want.
func storageStored(ctx context.Context, s requestforge.Storage, key string, want requestforge.Entry) error {
	e, err := storageLoad(ctx, s, key)
	if err != nil {
		return err
	}
	return storageSame(e, want)
}

// storageDiff returns the differences between got and want, apart from Stamp. The
// tokens are the suite's own, so errors may show the tokens.
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
	field("Until", got.Until.Equal(want.Until), got.Until, want.Until)
	field("Challenge", maps.Equal(got.Challenge, want.Challenge), got.Challenge, want.Challenge)
	field("Keep", got.Keep == want.Keep, got.Keep, want.Keep)

	// Values in Extra may come back as other Go types, but must be the same JSON. A
	// nil map equals an empty map.
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
