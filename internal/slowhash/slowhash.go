// Package slowhash makes a short public print of a secret: too short to be reversed,
// and too slow to try many guesses.
package slowhash

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"sync"
)

const (
	rounds = 200_000
	most   = 4096 // remembered prints
)

var (
	mu    sync.Mutex
	known = map[[sha256.Size]byte]string{} // guarded by mu
)

// Print returns 16 bits of a slow hash of secret, as hexadecimal digits. Equal secrets
// have equal prints, in every process. Print works on a single secret at a time and
// remembers the results, so that an outage noticed by many callers at once costs a
// single CPU, and each secret is hashed once. Print calls begun when the secret's turn
// has come; from then on Print needs a tenth of a second of a CPU.
func Print(secret []byte, begun func()) string {
	id := sha256.Sum256(secret)
	mu.Lock()
	defer mu.Unlock()
	begun()
	if p, ok := known[id]; ok {
		return p
	}
	sum, err := pbkdf2.Key(sha256.New, string(secret), []byte("requestforge"), rounds, sha256.Size)
	if err != nil {
		return "" // only for other parameters, under FIPS rules
	}
	if len(known) >= most {
		clear(known)
	}
	known[id] = hex.EncodeToString(sum[:2])
	return known[id]
}
