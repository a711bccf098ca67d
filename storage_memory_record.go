// The compact form of a record in a MemoryStorage, for programs with 100,000 users and as
// many records.

package requestforge

import (
	"math"
	"slices"
	"time"
)

// A memoryRecord is a [Record] without the stamp, in 90 bytes and 32 more for each ancestor,
// besides its strings.
//
// The invariant: a memoryRecord holds no data that other code can change, and makes the
// Record that UnmarshalBinary would decode from the output of MarshalBinary. Strings are
// shared with the caller. All values except strings and numbers are encoded.
//
// The fields are in the clear, so a memoryRecord must be out of reach of fmt and of other
// code that looks at unexported fields: see memoryEntry.
type memoryRecord struct {
	access, refresh string

	// lineage is a list, since a map takes 300 bytes for a single ancestor.
	lineage *memoryAncestor

	// rest is the encoding of a Record with the values that no other field can hold: Extra,
	// cookies, an unusual type, another key, a challenge. nil: no such value.
	rest *[]byte

	expiry, issued, until             int64 // Unix seconds
	expiryNsec, issuedNsec, untilNsec int32 // noInstant: the zero Time
	keep                              time.Duration

	typ       uint8 // the index of the token type in memoryTypes, if rest is nil
	otherKey  bool  // Key is in rest, since Key isn't the key that the record is saved under
	noLineage bool  // Lineage is nil, not empty
}

type memoryAncestor struct {
	key   string
	stamp uint64
	next  *memoryAncestor
}

const noInstant = -1

// memoryTypes are the token types that servers give in practice.
var memoryTypes = [...]string{"", "Bearer", "bearer", "BEARER", "Basic", "basic", "MAC", "mac", "DPoP", "N_A"}

// newMemoryRecord returns the compact form of r under key. newMemoryRecord fails if
// MarshalBinary would.
func newMemoryRecord(key string, r Record) (memoryRecord, error) {
	if r.Token == nil {
		return memoryRecord{}, errRecordToken
	}
	if r.Stamp > maxStamp {
		return memoryRecord{}, errRecordStamp
	}
	tok := r.Token
	m := memoryRecord{
		access:    tok.AccessToken,
		refresh:   tok.RefreshToken,
		keep:      r.Keep,
		otherKey:  r.Key != key,
		noLineage: r.Lineage == nil,
	}
	m.expiry, m.expiryNsec = newMemoryInstant(tok.Expiry)
	m.issued, m.issuedNsec = newMemoryInstant(r.Issued)
	m.until, m.untilNsec = newMemoryInstant(r.Until)
	size := 512 + 2*(len(key)+len(m.access)+len(m.refresh))
	for ancestor, stamp := range r.Lineage {
		if stamp > maxStamp {
			return memoryRecord{}, errRecordStamp
		}
		m.lineage = &memoryAncestor{ancestor, stamp, m.lineage}
		size += 64 + 2*len(ancestor)
	}
	typ := slices.Index(memoryTypes[:], tok.TokenType)
	if typ < 0 || tok.Extra != nil || tok.jar != nil || m.otherKey || len(r.Challenge) > 0 {
		left := Record{Token: &Token{TokenType: tok.TokenType, Extra: tok.Extra, jar: tok.jar}, Challenge: r.Challenge}
		if m.otherKey {
			left.Key = r.Key
		}
		rest, err := left.MarshalBinary()
		if err != nil {
			return memoryRecord{}, err
		}
		m.rest = &rest
		size += len(rest)
	} else {
		m.typ = uint8(typ)
	}
	// size is an upper bound: the encoding has four bytes for three bytes of a string.
	if size > maxRecordSize {
		if _, err := r.MarshalBinary(); err != nil {
			return memoryRecord{}, err
		}
	}
	return m, nil
}

// record returns a Record of m, saved under key, with a stamp.
func (m memoryRecord) record(key string, stamp uint64) (*Record, error) {
	r := new(Record)
	if m.rest != nil {
		if err := r.UnmarshalBinary(*m.rest); err != nil {
			return nil, err
		}
	} else {
		r.Token = &Token{TokenType: memoryTypes[m.typ]}
	}
	if !m.otherKey {
		r.Key = key
	}
	r.Token.AccessToken, r.Token.RefreshToken = m.access, m.refresh
	r.Token.Expiry = memoryInstant(m.expiry, m.expiryNsec)
	r.Issued = memoryInstant(m.issued, m.issuedNsec)
	r.Until = memoryInstant(m.until, m.untilNsec)
	r.Keep, r.Stamp = m.keep, stamp
	if !m.noLineage {
		r.Lineage = make(map[string]uint64)
	}
	for a := m.lineage; a != nil; a = a.next {
		r.Lineage[a.key] = a.stamp
	}
	return r, nil
}

// useless is from when on the record may be dropped, in Unix seconds.
func (m memoryRecord) useless() int64 {
	if m.keep <= 0 || m.expiryNsec == noInstant {
		return math.MaxInt64
	}
	keep := int64(m.keep/time.Second) + 2 // both have a fraction
	if m.expiry > math.MaxInt64-keep {
		return math.MaxInt64
	}
	return m.expiry + keep
}

func newMemoryInstant(t time.Time) (sec int64, nsec int32) {
	if t.IsZero() {
		return 0, noInstant
	}
	return t.Unix(), int32(t.Nanosecond())
}

func memoryInstant(sec int64, nsec int32) time.Time {
	if nsec == noInstant {
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}
