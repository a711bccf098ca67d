// A token as a pipeline holds it: with stamps as a vector, and the one comparison
// that says which tokens are live, and which will do. Who gives stamps and raises
// marks is pipeline_ledger.go's.

package requestforge

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// stamps holds one stamp for each step of a graph, by step.index: those of a
// token and of the ancestors that the token was made from, or the marks of
// the steps, or a floor under the tokens that will do. A nil vector of marks
// or floors is zero everywhere.
type stamps []uint64

// unrelated is a token's stamp for a step that the token wasn't made from. It is
// above every mark.
const unrelated = math.MaxUint64

// above reports whether every stamp of v is above its mark or floor. It is the
// one answer to two questions: may the token be sent, for marks; will the token
// do, for floors.
func (v stamps) above(floor stamps) bool {
	for i, f := range floor {
		if v[i] <= f {
			return false
		}
	}
	return true
}

// raised returns a copy of v, of length n, in which the stamp of s is at least
// stamp.
func (v stamps) raised(s *step, stamp uint64, n int) stamps {
	c := make(stamps, n)
	copy(c, v)
	c[s.index] = max(c[s.index], stamp)
	return c
}

// lineage returns the stamps of a token that is made from tokens with the stamps
// of parents, but for the token's own: where several paths meet in one ancestor,
// the lowest. n is the number of steps.
func lineage(n int, parents ...stamps) stamps {
	v := slices.Repeat(stamps{unrelated}, n)
	for _, p := range parents {
		for i, stamp := range p {
			v[i] = min(v[i], stamp)
		}
	}
	return v
}

// held is a token with what decides about its life. Immutable once a ledger
// keeps it, but for the atomic fields.
type held struct {
	owner   owner
	step    *step
	tok     *Token
	stamps  stamps
	unsaved bool // the token's own stamp was given by this process, not by the storage
	issued  time.Time

	// In Unix nanoseconds; 0: never. From renew on the token is renewed in
	// the background, from end on it isn't handed out; from edge on, the
	// earlier of the two, the clock decides about either.
	renew, end, edge int64

	nextRenewal atomic.Int64           // no renewal begins before it, in Unix nanoseconds
	checked     atomic.Pointer[stamps] // marks of the ledger above that the token was found live by
}

// owner is the ledger that a token belongs to.
type owner interface {
	// accepted is told once a token that a server has accepted it.
	accepted()
}

// stamp is the token's own.
func (h *held) stamp() uint64 { return h.stamps[h.step.index] }

// fresh reports whether h is unexpired, with the skew between clocks and the
// time that a request needs taken off.
func (h *held) fresh(now time.Time) bool {
	return h.end == 0 || now.UnixNano() < h.end
}

// accept notes that a server has taken the token.
func (h *held) accept() { h.owner.accepted() }

// accepted reports whether a server has ever taken the token.
func (h *held) accepted() bool { return h.tok.prov.accepted.Load() }

// same reports whether h, which may be nil, is what other was loaded as. The
// ledger then keeps h, of which it knows whether a server has accepted it.
func (h *held) same(other *held) bool {
	return h != nil && !h.unsaved && h.stamp() == other.stamp() && h.tok.AccessToken == other.tok.AccessToken
}
