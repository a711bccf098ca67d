// Where a key is kept: as a record of the program's own Storage, beside the tokens.

package dpop

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
)

// storedPrefix begins the encoding of a key in a record, and has the version.
const storedPrefix = "dpop1:"

// tries bounds the rounds of StoredKey. A second round means that somebody has deleted the
// key meanwhile.
const tries = 4

// StoredKey returns the key that storage has under name, and makes and saves a key if there is
// none: each run and each process of a program gets the same key. If many processes make a key
// at once, one key wins, and all processes return the winner.
//
// name is a key of the storage, and no step's: for a pipeline with the KeyPrefix "shop" a name
// such as "shop/dpop", without a colon. Each name has a key. The key is as safe as the tokens:
// sealed in a storage of package sealedstorage, else readable to anybody who reads the storage.
// The key never expires, but a storage may drop the key after a year without a load.
//
// If the storage has lost the key, StoredKey makes a new key, and the tokens of the lost key
// are useless. With the key's Thumbprint in PipelineConfig.KeyPrefix the program doesn't find
// those tokens, and logs in without a refusal first. Processes that still hold the lost key go
// on with their own tokens.
//
// ctx bounds the calls of the storage. An error is the storage's, or says that the record under
// name holds no key. StoredKey then overwrites nothing, and no error shows the record.
func StoredKey(ctx context.Context, storage requestforge.Storage, name string) (*Key, error) {
	if v := reflect.ValueOf(storage); storage == nil || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, errors.New(prefix + "StoredKey: storage is nil; NewKey makes a key that isn't stored")
	}
	if name == "" {
		return nil, errors.New(prefix + "StoredKey: name is empty; it is the key of the storage to keep the key under, such as \"shop/dpop\"")
	}
	for range tries {
		entries, err := storage.Load(ctx, name)
		if err != nil {
			return nil, fmt.Errorf(prefix+"StoredKey: loading %q: %w", name, err)
		}
		if len(entries) != 1 {
			return nil, fmt.Errorf(prefix+"StoredKey: the storage returned %d entries for one key", len(entries))
		}
		if entries[0].Record != nil {
			return fromRecord(name, entries[0].Record)
		}
		record, err := newRecord(name)
		if err != nil {
			return nil, err
		}
		entry, err := storage.Save(ctx, name, record, entries[0].Version())
		if err != nil {
			return nil, fmt.Errorf(prefix+"StoredKey: saving %q: %w", name, err)
		}
		if entry.Record != nil { // ours, or of whoever was faster
			return fromRecord(name, entry.Record)
		}
	}
	return nil, fmt.Errorf(prefix+"StoredKey: %q is deleted again and again", name)
}

// newRecord returns the record of a new key.
func newRecord(name string) (r requestforge.Record, err error) {
	data, err := NewKey().MarshalBinary()
	if err != nil {
		return r, err
	}
	return requestforge.Record{
		Key:    name,
		Token:  &requestforge.Token{AccessToken: storedPrefix + base64.RawURLEncoding.EncodeToString(data)},
		Issued: time.Now(),
	}, nil
}

// fromRecord returns the key that newRecord has written down.
func fromRecord(name string, r *requestforge.Record) (*Key, error) {
	text, ok := "", r.Key == name && r.Token != nil
	if ok {
		text, ok = strings.CutPrefix(r.Token.AccessToken, storedPrefix)
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if ok && err == nil {
		if key, err := ParseKey(data); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf(prefix+"StoredKey: what is stored under %q is no key; choose another name, or delete it", name)
}
