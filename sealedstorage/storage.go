// The Storage: what is saved, loaded, counted and printed. How a token is sealed
// is keyring.go's.

// Package sealedstorage encrypts the tokens of requestforge at rest, in any
// Storage.
//
//	storage, err := sealedstorage.New(next, sealedstorage.Config{
//		Keys: []sealedstorage.Key{{ID: "2026-02", Secret: secret}}, // 32 bytes
//	})
//	// …
//	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
//		Steps:   steps,
//		Storage: storage,
//	})
//
// The pipeline needs nothing else. The locks, pushes and shared failures of next
// work as they do without encryption.
package sealedstorage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/internal/format"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/redact"
)

// Config describes a [Storage].
type Config struct {
	// Keys is the keyring. The first key seals, every key unseals. At
	// least one key is required, and no two keys have the same ID.
	Keys []Key

	// Logger receives a warning about each stored record that can't be
	// unsealed, once a record, with the storage key, the stamp and the
	// reason. Nil means no logging.
	Logger *slog.Logger
}

// A Key is an encryption key. Printed, logged or encoded as JSON, a Key shows only
// its ID.
type Key struct {
	// ID names the key in every record that the key has sealed. The ID is not
	// secret. An ID must never be used again with another Secret. An ID has 1 to 64
	// ASCII letters and digits, "-", "." and "_".
	ID string

	// Secret is 32 bytes, for AES-256, from crypto/rand or a secret
	// manager; a password won't do. New keeps no reference to Secret: the
	// caller may overwrite the bytes afterwards. One Secret is good for
	// 2^32 saves.
	Secret []byte
}

// String returns the ID.
func (k Key) String() string {
	id := k.ID
	if !isKeyID(id) {
		id = redact.Mask // perhaps the secret, in the wrong field
	}
	return "sealedstorage.Key(" + id + ")"
}

// Format writes String, whatever the verb.
func (k Key) Format(s fmt.State, verb rune) { format.Text(s, verb, k.String()) }

// MarshalJSON returns String as a JSON string.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// MarshalText returns String, for XML and the like.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// GobEncode returns an error: gob would encode the secret.
func (k Key) GobEncode() ([]byte, error) { return nil, format.ErrGob }

// LogValue returns String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// A Storage is a [requestforge.Storage] that seals each token before another
// Storage, the wrapped one, saves the token, and unseals each token that the
// wrapped Storage loads. [New] makes a Storage. All methods may be called
// concurrently.
//
// Storage keys pass unchanged. So Unwrap lets a [requestforge.Pipeline] use the
// wrapped Storage itself where that is a [requestforge.Locker], a
// [requestforge.Watcher] or a [requestforge.FailureStorage]: keys, locks and
// failures hold no secret. Pipelines with and without encryption, over one
// wrapped Storage, exclude each other.
//
// # Changing the key
//
// Finish each stage in every process before the next stage begins:
//
//  1. Add the new key behind the old key. Every process can now unseal what
//     the new key will seal.
//  2. Move the new key to the front. The new key seals each token that replaces
//     an older one.
//  3. Remove the old key, once all tokens have been replaced. Each token that
//     hasn't been costs one login.
//
// No login is lost on the way, and processes at neighbouring stages share all
// tokens.
//
// # What is sealed
//
// The whole token (access token, refresh token, type, expiry, Extra) is sealed as
// one value, by AES-256-GCM with a random nonce. The record's other fields stay
// readable, but the sealed value is bound to Key, Lineage, Issued, Until and Keep, to
// the storage key, the format's version and the ID of the encryption key: a change
// of any of them makes the record impossible to unseal. With a positive Keep the
// expiry stays readable and bound too, since the wrapped Storage may drop the
// record by expiry; otherwise the wrapped Storage never learns the expiry.
//
// The wrapped Storage gets a token with nothing but an AccessToken, which is
// the sealed value. The value has bytes that no token may have, so a pipeline
// that uses the wrapped Storage without the keys takes the record for damaged and
// never sends the value. Sealing adds a third to the size, so a token whose
// encoding exceeds 3 MiB can't be saved.
//
// # What can't be unsealed
//
// A record that was changed, moved from another step or prefix, sealed with an
// unknown key, or never sealed counts as missing. Load returns mark and tombstone
// alone, and the pipeline fetches a token. No request fails; Unreadable counts the
// record, and Config.Logger gets a warning. Save replaces the record and Delete
// removes the record, for a caller who has seen anything since the last logout, by
// the wrapped Storage's own compare-and-set, so of many concurrent callers one wins.
// Stamps keep rising above the replaced record's stamp.
//
// # What isn't prevented
//
// An attacker who can write to the wrapped Storage can delete records, marks and
// tombstones, and change stamps, marks and tombstones. The attacker can also put an
// older sealed record of the same step back in place of a newer one: the wrapped
// Storage gives out the stamp after sealing, so the stamp isn't bound. The damage is
// extra fetches, or the return of a token that was revoked here or of a session that
// was logged out here, as long as the server still accepts the token. No attack makes
// a pipeline send a token that wasn't the pipeline's own.
//
// An attacker who can read the wrapped Storage sees the names of steps, times,
// sizes, and how often a token is replaced.
type Storage struct {
	next requestforge.Storage
	keys *keyring
	log  *slog.Logger // nil: no logging

	unreadable atomic.Uint64

	mu     sync.Mutex        // guards logged
	logged map[string]uint64 // by key, the stamp of the unreadable record logged last; made lazily
}

var _ requestforge.Storage = (*Storage)(nil)

// New returns a [Storage] that wraps next. The error joins every mistake in the
// arguments, and shows no key.
func New(next requestforge.Storage, cfg Config) (*Storage, error) {
	var mistakes mistake.List
	bad := func(format string, args ...any) {
		mistakes.Addf("sealedstorage: New: "+format, args...)
	}
	if next == nil {
		bad("the wrapped Storage is nil")
	} else if mistake.IsNil(next) {
		bad("the wrapped Storage is a nil %T", next)
	}
	keys := newKeyring(cfg.Keys, bad)
	if err := mistakes.Err(); err != nil {
		return nil, err
	}
	return &Storage{next: next, keys: keys, log: cfg.Logger}, nil
}

// Load implements [requestforge.Storage].
func (s *Storage) Load(ctx context.Context, keys ...string) ([]requestforge.Entry, error) {
	entries, err := s.next.Load(ctx, keys...)
	if err != nil {
		return nil, err
	}
	if len(entries) != len(keys) {
		return nil, fmt.Errorf("requestforge: sealedstorage: Load: the wrapped Storage returned %d entries for %d keys", len(entries), len(keys))
	}
	for i, key := range keys {
		entries[i].Record = s.open(ctx, key, entries[i].Record)
	}
	return entries, nil
}

// maxReplaces bounds how many unreadable records in a row a Save or Delete
// replaces. A second unreadable record means that other processes save with unknown
// keys right now.
const maxReplaces = 4

var (
	errOvertaken = errors.New("requestforge: sealedstorage: other processes keep saving records that can't be unsealed here; are the keyrings the same?")
	errAltered   = errors.New("requestforge: sealedstorage: Save: the wrapped Storage doesn't return what was saved")
)

// Save implements [requestforge.Storage].
func (s *Storage) Save(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
	sealed, err := s.keys.seal(key, r)
	if err != nil {
		return requestforge.Entry{}, err
	}
	return s.replace(ctx, key, seen, sealed.Token, func(seen uint64) (requestforge.Entry, error) {
		return s.next.Save(ctx, key, sealed, seen)
	})
}

// Delete implements [requestforge.Storage].
func (s *Storage) Delete(ctx context.Context, key string, seen uint64) (requestforge.Entry, error) {
	return s.replace(ctx, key, seen, nil, func(seen uint64) (requestforge.Entry, error) {
		return s.next.Delete(ctx, key, seen)
	})
}

// replace runs call, a compare-and-set of the wrapped Storage that saves the token
// mine, or no token, and unseals the entry that call returns.
//
// To a caller, an unreadable record is a missing record. So if an unreadable record
// keeps call from changing the entry, replace calls again with the stamp of that
// record as seen; unless the version that the caller has seen is from before the
// last logout.
func (s *Storage) replace(ctx context.Context, key string, seen uint64, mine *requestforge.Token, call func(seen uint64) (requestforge.Entry, error)) (requestforge.Entry, error) {
	next := seen
	for range 1 + maxReplaces {
		entry, err := call(next)
		if err != nil {
			return requestforge.Entry{}, err
		}
		stored := entry.Record
		entry.Record = s.open(ctx, key, stored)
		if stored == nil || entry.Record != nil || seen < entry.Gone {
			return entry, nil
		}
		if mine != nil && stored.Token != nil && stored.Token.AccessToken == mine.AccessToken {
			return requestforge.Entry{}, errAltered
		}
		next = stored.Stamp
	}
	return requestforge.Entry{}, errOvertaken
}

// Revoke implements [requestforge.Storage].
func (s *Storage) Revoke(ctx context.Context, key string, stamp uint64) error {
	return s.next.Revoke(ctx, key, stamp)
}

// Unwrap returns the wrapped Storage, in which all tokens are sealed.
func (s *Storage) Unwrap() requestforge.Storage { return s.next }

// Unreadable returns how many times a stored record couldn't be unsealed. A record
// counts each time the record is loaded.
func (s *Storage) Unreadable() uint64 { return s.unreadable.Load() }

// String describes s without its keys.
func (s *Storage) String() string {
	return fmt.Sprintf("sealedstorage.Storage(%T, keys %s)", s.next, strings.Join(s.keys.ids, " "))
}

// Format writes String, whatever the verb.
func (s *Storage) Format(f fmt.State, verb rune) { format.Text(f, verb, s.String()) }

// MarshalJSON returns String as a JSON string.
func (s *Storage) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalText returns String, for XML and the like.
func (s *Storage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// GobEncode returns an error: gob would encode the secrets.
func (s *Storage) GobEncode() ([]byte, error) { return nil, format.ErrGob }

// LogValue returns String.
func (s *Storage) LogValue() slog.Value { return slog.StringValue(s.String()) }

// open returns the unsealed record, or nil if sealed is nil or unreadable.
func (s *Storage) open(ctx context.Context, key string, sealed *requestforge.Record) *requestforge.Record {
	if sealed == nil {
		return nil
	}
	r, err := s.keys.unseal(key, sealed)
	if err == nil {
		return r
	}
	s.unreadable.Add(1)
	if s.log != nil && s.firstSight(key, sealed.Stamp) {
		s.log.LogAttrs(ctx, slog.LevelWarn, "requestforge: sealedstorage: stored record can't be unsealed; going on as if it were missing",
			slog.String("key", key), slog.Uint64("stamp", sealed.Stamp), slog.String("reason", err.Error()))
	}
	return nil
}

// firstSight reports whether the unreadable record hasn't been logged yet. A
// pipeline loads the same record many times while another process holds the lock.
func (s *Storage) firstSight(key string, stamp uint64) bool {
	const most = 1024 // keys; with more, a record may be logged more than once
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.logged[key]; ok && old == stamp {
		return false
	}
	if s.logged == nil || len(s.logged) >= most {
		s.logged = make(map[string]uint64)
	}
	s.logged[key] = stamp
	return true
}
