// How a token becomes a sealed value and back. storage.go handles the records that
// can't be unsealed.

package sealedstorage

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/requestforge/requestforge"
)

// A sealed value is a header, then the nonce, ciphertext and tag of AES-GCM over
// the token's encoding. The header is sealedPrefix, one byte with the length of
// the key's ID, and the ID. sealedPrefix has the format's version, and a zero
// byte, which no token may have.
const sealedPrefix = "rfs1\x00"

// keyring is the keys of a Storage, immutable.
type keyring struct {
	first string   // the ID of the key that seals
	ids   []string // in the order of Config.Keys

	// aeads has a function for each ID because fmt prints a function as an
	// address, whatever the verb and the value around the function.
	aeads map[string]func() cipher.AEAD
}

// newKeyring reports mistakes in keys to bad.
func newKeyring(keys []Key, bad func(format string, args ...any)) *keyring {
	if len(keys) == 0 {
		bad("Config.Keys is empty; a key is needed to seal with")
	}
	ring := &keyring{aeads: make(map[string]func() cipher.AEAD, len(keys))}
	for i, k := range keys {
		switch {
		case !isKeyID(k.ID):
			bad("Config.Keys[%d]: the ID (of %d bytes) is not 1 to 64 of a-z, A-Z, 0-9, '-', '.' and '_'", i, len(k.ID))
			continue
		case ring.aeads[k.ID] != nil:
			bad("Config.Keys[%d]: the ID %q is there twice; each key has its own", i, k.ID)
			continue
		}
		if i == 0 {
			ring.first = k.ID
		}
		ring.ids = append(ring.ids, k.ID)
		aead, err := newAEAD(k.Secret)
		if err != nil {
			bad("Config.Keys[%d] (%s): %w", i, k.ID, err)
		}
		ring.aeads[k.ID] = func() cipher.AEAD { return aead }
	}
	return ring
}

func newAEAD(secret []byte) (cipher.AEAD, error) {
	if len(secret) != 32 {
		return nil, fmt.Errorf("Secret has %d bytes, AES-256 takes 32", len(secret))
	}
	if !slices.ContainsFunc(secret, func(b byte) bool { return b != 0 }) {
		return nil, errors.New("Secret is all zero; fill it from crypto/rand")
	}
	block, err := aes.NewCipher(secret)
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

// seal returns the record that the wrapped Storage saves for r.
func (ring *keyring) seal(key string, r requestforge.Record) (requestforge.Record, error) {
	// A record's encoding keeps every byte of the token. The other fields of r stay
	// readable, so the encoded record leaves them out. The challenge is sealed,
	// too: an API's challenge may describe the user, and decides the parameters of
	// the next fetch.
	plain, err := requestforge.Record{Token: r.Token, Challenge: r.Challenge}.MarshalBinary()
	if err != nil {
		return requestforge.Record{}, err
	}
	tok := new(requestforge.Token)
	if r.Keep > 0 {
		tok.Expiry = r.Token.Expiry
	}
	r.Token, r.Challenge = tok, nil
	header := append([]byte(sealedPrefix), byte(len(ring.first)))
	header = append(header, ring.first...)
	bound := boundTo(header, key, &r)
	tok.AccessToken = string(ring.aeads[ring.first]().Seal(header, nil, plain, bound))
	return r, nil
}

var (
	errNotSealed = errors.New("the record isn't sealed")
	errUnsealed  = errors.New("the sealed value, or a field bound to it, isn't what was sealed with the key")
)

// unseal returns the record that was passed to seal. An error tells nothing of the
// token.
func (ring *keyring) unseal(key string, sealed *requestforge.Record) (*requestforge.Record, error) {
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
	aead := ring.aeads[id]
	if aead == nil {
		return nil, fmt.Errorf("the record was sealed with key %q, which isn't in the keyring", id)
	}
	plain, err := aead().Open(nil, nil, value[end:], boundTo(value[:end], key, sealed))
	if err != nil {
		return nil, errUnsealed
	}
	var opened requestforge.Record
	if err := opened.UnmarshalBinary(plain); err != nil {
		return nil, err
	}
	r := *sealed
	r.Token, r.Challenge = opened.Token, opened.Challenge
	return &r, nil
}

// boundTo returns the additional data of AES-GCM: header, key and the bound fields
// of r. Each part has a fixed length or begins with its length, so two different
// lists of parts never make the same bytes. A storage may return an empty Lineage
// for nil and a time in another zone, so neither difference shows in the result.
func boundTo(header []byte, key string, r *requestforge.Record) []byte {
	b := appendPart(nil, string(header))
	b = appendPart(b, key)
	b = appendPart(b, r.Key)
	for _, t := range []time.Time{r.Token.Expiry, r.Issued, r.Until} {
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
