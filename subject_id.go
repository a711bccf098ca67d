// Names of subjects: IDs of several parts, names in memory, and names in a storage.

package requestforge

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// SubjectID returns an ID for [PipelineConfig.Subject] made of several parts, the user
// last:
//
//	requestforge.SubjectID(issuer, tenant, user)
//
// The length of each part precedes the part, so that two different lists of parts never
// have the same ID. Parts may hold any bytes. An ID with an empty last part fails each
// request for its tokens: a missing claim must not turn many users into one subject.
func SubjectID(parts ...string) string {
	var b strings.Builder
	n := 0
	for _, p := range parts {
		n += len(p) + 8
	}
	b.Grow(n)
	for _, p := range parts {
		var digits [20]byte
		b.Write(strconv.AppendInt(digits[:0], int64(len(p)), 10))
		b.WriteByte(':')
		b.WriteString(p)
	}
	return b.String()
}

// anonymous reports whether id comes from SubjectID with an empty last part.
func anonymous(id string) bool {
	if !strings.HasSuffix(id, "0:") {
		return false
	}
	for id != "0:" {
		digits, rest, ok := strings.Cut(id, ":")
		n, err := strconv.Atoi(digits)
		if !ok || err != nil || n < 0 || n >= len(rest) || digits != strconv.Itoa(n) {
			return false
		}
		id = rest[n:]
	}
	return true
}

// subjectKey stands for a subject in storage keys. The zero key is nobody's.
type subjectKey [20]byte

// keyOf returns the key of a subject. Two IDs never have the same key, as far as anyone can
// construct, and a key reveals an ID only to a guess.
func keyOf(id string) (k subjectKey) {
	h := sha256.New()
	fmt.Fprintf(h, "requestforge subject %d:", len(id))
	h.Write([]byte(id))
	copy(k[:], h.Sum(nil))
	return k
}

// suffix is the end of a subject's storage keys.
func (k subjectKey) suffix() string {
	if k == (subjectKey{}) {
		return ""
	}
	return "/" + base64.RawURLEncoding.EncodeToString(k[:])
}

// keyIn returns the subject of a storage key; false: the key belongs to a shared step.
func keyIn(storageKey string) (k subjectKey, ok bool) {
	i := strings.LastIndexByte(storageKey, '/')
	if i < strings.LastIndexByte(storageKey, ':') {
		return k, false
	}
	n, err := base64.RawURLEncoding.Decode(k[:], []byte(storageKey[i+1:]))
	return k, err == nil && n == len(k)
}

// maxKept bounds the length of an ID in memory. A longer ID is kept as a hash with more
// bytes than any unhashed ID, so the two never collide.
const maxKept = 127

// nameOf returns the name of a subject in memory.
func nameOf(id string) string {
	if len(id) <= maxKept {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	text := hex.EncodeToString(sum[:])
	return text + text
}
