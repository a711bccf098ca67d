// Encryption at rest: any Storage, with the tokens in it sealed. What a
// Storage owes its callers is storage.go's.

package requestforge

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/format"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/redact"
)

// An EncryptionKey is one key of an [EncryptedStorage]. Printed, logged or
// encoded as JSON it shows its ID only.
type EncryptionKey struct {
	// ID names the key in every record that it has sealed. It is no
	// secret, and must never stand for other bytes than it once did: 1 to
	// 64 letters and digits of ASCII, and "-", "." and "_".
	ID string

	// Key is 32 bytes, for AES-256. They come from crypto/rand or a secret
	// manager, not from a password. NewEncryptedStorage keeps no
	// reference to them: the caller may overwrite them afterwards.
	Key []byte
}

// String returns the ID.
func (k EncryptionKey) String() string {
	id := k.ID
	if !isKeyID(id) {
		id = redact.Mask // perhaps the key itself, in the wrong field
	}
	return "EncryptionKey(" + id + ")"
}

// Format writes String, whatever the verb.
func (k EncryptionKey) Format(s fmt.State, verb rune) { format.Text(s, verb, k.String()) }

// MarshalJSON returns String as a JSON string.
func (k EncryptionKey) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// LogValue returns String.
func (k EncryptionKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// EncryptionConfig describes an [EncryptedStorage].
type EncryptionConfig struct {
	// Keys is the keyring. The first key seals, every key unseals. At
	// least one is required, and no ID twice. One key is good for 2^32
	// saves.
	Keys []EncryptionKey

	// Logger is told of each stored record that can't be unsealed, once,
	// with its key and stamp and the reason. Nil means no logging.
	Logger *slog.Logger
}

// An EncryptedStorage is a [Storage] that keeps tokens sealed in another one.
// [NewEncryptedStorage] returns it. It is a [Locker], a [Watcher] and a
// [FailureStorage] exactly if that other one is, so a type assertion, which
// is how a [Pipeline] finds out, gives the same answer with and without
// encryption. That is why it is an interface and not a struct.
//
// # What is sealed
//
// The whole token (access token, refresh token, type, expiry, Extra) is one
// value, sealed with AES-256-GCM under a random nonce. The storage key, the
// version of the format, the ID of the encryption key, and Key, Lineage,
// Issued and Keep of the record are bound to it: they can be read, but with
// others in their place nothing can be unsealed. The same goes for the expiry
// if Keep is positive, since the storage may drop the record by it; otherwise
// the storage doesn't learn the expiry.
//
// To the storage below, the sealed value is the AccessToken of an otherwise
// empty token. It holds bytes that no token may hold, so a pipeline that uses
// that storage without the keys takes it for damaged and never sends it.
// Sealing adds a third to the size, and a token that makes more than 3 MiB by
// then can't be saved. A [Failure] holds no secret and goes as it is.
//
// # What can't be unsealed
//
// A record that was changed in any way, comes from another step or prefix, was
// sealed with an unknown key, or was never sealed, is treated as if it weren't
// there: Load returns its mark alone, and the pipeline fetches. It isn't an
// error and fails no request; it is counted, and logged. Its place is not lost:
// Save replaces it for a caller who has seen no record, with the compare-and-set
// of the storage below, so that of many who do that one wins. Stamps rise
// above its stamp.
//
// # What isn't prevented
//
// Someone who can write to the storage can delete records and marks, set stamps
// and marks, and put an older sealed record of the same step back in place of a
// newer one: the stamp is given by the storage when it saves, after the sealing,
// so it isn't bound. What that can do is cost fetches, or bring back a token
// that was revoked here but that the server may still accept. It can't make a
// pipeline send a token that wasn't its own. And names of steps, times, sizes and
// how often a token is replaced can be seen.
//
// # Changing the key
//
// Each stage is done in every process before the next one begins:
//
//  1. Add the new key behind the old one. Everyone can read what it will seal.
//  2. Put the new key first. Tokens are sealed with it as they are replaced.
//  3. Take the old key out, when what it sealed has been replaced. What hasn't
//     been costs one login.
//
// So no login is lost, and processes at neighbouring stages share all tokens.
type EncryptedStorage interface {
	Storage

	// Unreadable returns how often so far a stored record was met that
	// couldn't be unsealed.
	Unreadable() uint64

	// Unwrap returns the Storage that holds what is sealed.
	Unwrap() Storage

	encrypted() // nobody else implements it, so it can grow
}

// NewEncryptedStorage returns an [EncryptedStorage] over s. The error joins
// every mistake in its arguments, and shows no key.
func NewEncryptedStorage(s Storage, cfg EncryptionConfig) (EncryptedStorage, error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("requestforge: "+format, args...))
	}
	if s == nil {
		bad("NewEncryptedStorage: the Storage is nil")
	} else if mistake.IsNil(s) {
		bad("NewEncryptedStorage: the Storage is a nil %T", s)
	}
	if len(cfg.Keys) == 0 {
		bad("EncryptionConfig.Keys is empty; it needs a key to seal with")
	}
	e := &encryptedStorage{Storage: s, keys: make(map[string]func() cipher.AEAD, len(cfg.Keys)), log: cfg.Logger}
	for i, k := range cfg.Keys {
		switch {
		case !isKeyID(k.ID):
			bad("EncryptionConfig.Keys[%d]: the ID (of %d bytes) is not 1 to 64 of a-z, A-Z, 0-9, '-', '.' and '_'", i, len(k.ID))
			continue
		case e.keys[k.ID] != nil:
			bad("EncryptionConfig.Keys[%d]: the ID %q is there twice; each key has its own", i, k.ID)
			continue
		}
		if i == 0 {
			e.first = k.ID
		}
		e.ids = append(e.ids, k.ID)
		aead, err := newAEAD(k.Key)
		if err != nil {
			bad("EncryptionConfig.Keys[%d] (%s): %w", i, k.ID, err)
		}
		e.keys[k.ID] = func() cipher.AEAD { return aead }
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return e.like(s), nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("the key has %d bytes, AES-256 takes 32", len(key))
	}
	if !slices.ContainsFunc(key, func(b byte) bool { return b != 0 }) {
		return nil, errors.New("the key is all zero; fill it from crypto/rand")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func isKeyID(id string) bool {
	return 0 < len(id) && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._", r))
	})
}

type encryptedStorage struct {
	Storage
	first string   // ID of the key that seals
	ids   []string // as configured

	// The keys are functions because those print as an address, whatever
	// the verb and whatever they are in.
	keys map[string]func() cipher.AEAD

	log        *slog.Logger
	unreadable atomic.Uint64

	mu     sync.Mutex        // guards logged
	logged map[string]uint64 // stamp of the unreadable record logged last, by key; made lazily
}

// like returns e with those of the optional interfaces that s has. They are
// embedded as they are: nothing in them is to be sealed.
func (e *encryptedStorage) like(s Storage) EncryptedStorage {
	l, locker := s.(Locker)
	w, watcher := s.(Watcher)
	f, failures := s.(FailureStorage)
	switch {
	case locker && watcher && failures:
		return struct {
			*encryptedStorage
			Locker
			Watcher
			FailureStorage
		}{e, l, w, f}
	case locker && watcher:
		return struct {
			*encryptedStorage
			Locker
			Watcher
		}{e, l, w}
	case locker && failures:
		return struct {
			*encryptedStorage
			Locker
			FailureStorage
		}{e, l, f}
	case watcher && failures:
		return struct {
			*encryptedStorage
			Watcher
			FailureStorage
		}{e, w, f}
	case locker:
		return struct {
			*encryptedStorage
			Locker
		}{e, l}
	case watcher:
		return struct {
			*encryptedStorage
			Watcher
		}{e, w}
	case failures:
		return struct {
			*encryptedStorage
			FailureStorage
		}{e, f}
	}
	return e
}

// Load implements [Storage].
func (e *encryptedStorage) Load(ctx context.Context, keys ...string) ([]Entry, error) {
	entries, err := e.Storage.Load(ctx, keys...)
	if err != nil {
		return nil, err
	}
	if len(entries) != len(keys) {
		return nil, fmt.Errorf("requestforge: encrypted storage: %d entries for %d keys", len(entries), len(keys))
	}
	for i, key := range keys {
		entries[i].Record = e.open(ctx, key, entries[i].Record)
	}
	return entries, nil
}

// maxReplaces is how many records in a row that can't be unsealed one Save
// replaces. A second one means that others write with keys that we don't
// have, at this very moment.
const maxReplaces = 4

var (
	errOvertaken = errors.New("requestforge: encrypted storage: others keep saving records that can't be unsealed here; are the keyrings the same?")
	errAltered   = errors.New("requestforge: encrypted storage: the storage below doesn't return what it was given")
)

// Save implements [Storage]. A caller whose seen is 0 has seen no record. If
// there is one that can't be unsealed, that is what he saw, and the storage
// below is told its stamp, so that the save can win.
func (e *encryptedStorage) Save(ctx context.Context, key string, r Record, seen uint64) (Entry, error) {
	sealed, err := e.seal(key, r)
	if err != nil {
		return Entry{}, err
	}
	below := seen
	for range 1 + maxReplaces {
		entry, err := e.Storage.Save(ctx, key, sealed, below)
		if err != nil {
			return Entry{}, err
		}
		stored := entry.Record
		entry.Record = e.open(ctx, key, stored)
		if entry.Record != nil || seen != 0 {
			return entry, nil // without a record if that is beyond us: what was seen is gone
		}
		below = 0
		if stored != nil {
			if stored.Token != nil && stored.Token.AccessToken == sealed.Token.AccessToken {
				return Entry{}, errAltered
			}
			below = stored.Stamp
		}
	}
	return Entry{}, errOvertaken
}

func (e *encryptedStorage) Unreadable() uint64 { return e.unreadable.Load() }
func (e *encryptedStorage) Unwrap() Storage    { return e.Storage }
func (e *encryptedStorage) encrypted()         {}

// String describes e without its keys.
func (e *encryptedStorage) String() string {
	return fmt.Sprintf("EncryptedStorage(%T, keys %s)", e.Storage, strings.Join(e.ids, " "))
}

// Format writes String, whatever the verb.
func (e *encryptedStorage) Format(s fmt.State, verb rune) { format.Text(s, verb, e.String()) }

// MarshalJSON returns String as a JSON string.
func (e *encryptedStorage) MarshalJSON() ([]byte, error) { return json.Marshal(e.String()) }

// LogValue returns String.
func (e *encryptedStorage) LogValue() slog.Value { return slog.StringValue(e.String()) }

// open returns the record that sealed holds, or nil if that can't be told.
func (e *encryptedStorage) open(ctx context.Context, key string, sealed *Record) *Record {
	if sealed == nil {
		return nil
	}
	r, err := e.unseal(key, sealed)
	if err == nil {
		return r
	}
	e.unreadable.Add(1)
	if e.log != nil && e.news(key, sealed.Stamp) {
		e.log.LogAttrs(ctx, slog.LevelWarn, "requestforge: stored record can't be unsealed; going on as if it weren't there",
			slog.String("key", key), slog.Uint64("stamp", sealed.Stamp), slog.String("reason", err.Error()))
	}
	return nil
}

// news reports whether the record hasn't been logged yet. A record is looked
// at again and again while a peer holds the lock.
func (e *encryptedStorage) news(key string, stamp uint64) bool {
	const most = 1024 // keys; beyond, some records are logged once more
	e.mu.Lock()
	defer e.mu.Unlock()
	if old, ok := e.logged[key]; ok && old == stamp {
		return false
	}
	if e.logged == nil || len(e.logged) >= most {
		e.logged = make(map[string]uint64)
	}
	e.logged[key] = stamp
	return true
}

// A sealed value is a header and what AES-GCM makes of the token's encoding:
// nonce, ciphertext and tag. The header is sealedPrefix, which is its version,
// a byte that counts those of the key's ID, and the ID. The zero byte keeps it
// from ever passing for a token.
const sealedPrefix = "rfs1\x00"

var (
	errNotSealed = errors.New("it isn't sealed")
	errUnsealed  = errors.New("it, or what is bound to it, isn't what was sealed with that key")
)

// seal returns the record that the storage below gets for r.
func (e *encryptedStorage) seal(key string, r Record) (Record, error) {
	// The encoding of a record is the one that is exact. What else is in
	// r travels in the clear.
	plain, err := Record{Token: r.Token}.MarshalBinary()
	if err != nil {
		return Record{}, err
	}
	tok := new(Token)
	if r.Keep > 0 {
		tok.Expiry = r.Token.Expiry
	}
	r.Token = tok
	header := append([]byte(sealedPrefix), byte(len(e.first)))
	header = append(header, e.first...)
	bound := boundTo(header, key, &r)
	tok.AccessToken = string(e.keys[e.first]().Seal(header, nil, plain, bound))
	return r, nil
}

// unseal returns what seal was given. Its errors tell nothing of the content.
func (e *encryptedStorage) unseal(key string, sealed *Record) (*Record, error) {
	if sealed.Token == nil {
		return nil, errNotSealed
	}
	value := []byte(sealed.Token.AccessToken)
	at := len(sealedPrefix)
	if len(value) <= at || string(value[:at]) != sealedPrefix {
		return nil, errNotSealed
	}
	end := at + 1 + int(value[at])
	if len(value) < end {
		return nil, errNotSealed
	}
	id := string(value[at+1 : end])
	if !isKeyID(id) {
		return nil, errNotSealed
	}
	aead := e.keys[id]
	if aead == nil {
		return nil, fmt.Errorf("it was sealed with key %q, which isn't in the keyring", id)
	}
	plain, err := aead().Open(nil, nil, value[end:], boundTo(value[:end], key, sealed))
	if err != nil {
		return nil, errUnsealed
	}
	var opened Record
	if err := opened.UnmarshalBinary(plain); err != nil {
		return nil, err
	}
	r := *sealed
	r.Token = opened.Token
	return &r, nil
}

// boundTo returns what a sealed token can't do without: GCM's additional data.
// Each part begins with its length or has a fixed one, so that no two lists of
// parts are the same bytes. The maps and times in it may come from any storage:
// an empty lineage is as good as none, and times count as instants.
func boundTo(header []byte, key string, r *Record) []byte {
	b := appendPart(nil, string(header))
	b = appendPart(b, key)
	b = appendPart(b, r.Key)
	for _, t := range []time.Time{r.Token.Expiry, r.Issued} {
		b = binary.BigEndian.AppendUint64(b, uint64(t.Unix()))
		b = binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(r.Keep))
	b = binary.BigEndian.AppendUint64(b, uint64(len(r.Lineage)))
	for _, ancestor := range slices.Sorted(maps.Keys(r.Lineage)) {
		b = appendPart(b, ancestor)
		b = binary.BigEndian.AppendUint64(b, r.Lineage[ancestor])
	}
	return b
}

func appendPart(b []byte, part string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
	return append(b, part...)
}
