// A token as a pipeline holds it: with a vector of stamps, and the one comparison
// that says which tokens are live and which are new enough. pipeline_ledger.go
// gives stamps and raises marks.

package requestforge

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// stamps holds one number for each step of a graph, by step.index: the stamps of a
// token and its ancestors, or the marks of the steps, or a floor that a wanted
// token has to be above. A nil floor is zero everywhere.
type stamps []uint64

// unrelated is a token's stamp for a step that is no ancestor. The number is above
// every mark.
const unrelated = math.MaxUint64

// above reports whether every stamp of v is above its mark or floor. With marks the
// question is whether the token is live, with a floor whether the token is new
// enough.
func (v stamps) above(floor stamps) bool {
	for i, f := range floor {
		if v[i] <= f {
			return false
		}
	}
	return true
}

// raised returns a copy of v, of length n, with at least stamp for s.
func (v stamps) raised(s *step, stamp uint64, n int) stamps {
	c := make(stamps, n)
	copy(c, v)
	c[s.index] = max(c[s.index], stamp)
	return c
}

// lineage returns the stamps of a token made from parents with these stamps. Where
// several paths meet in one ancestor, the lowest stamp counts. The token's own
// stamp is still to be set. n is the number of steps.
func lineage(n int, parents ...stamps) stamps {
	v := slices.Repeat(stamps{unrelated}, n)
	for _, p := range parents {
		for i, stamp := range p {
			v[i] = min(v[i], stamp)
		}
	}
	return v
}

// held is a token with the stamps and times that decide about its life. A held token
// is immutable once a ledger keeps it, but for the atomic fields.
type held struct {
	owner   owner
	step    *step
	tok     *Token
	stamps  stamps
	unsaved bool // the token's own stamp was given by this process, not by the storage
	issued  time.Time

	// In Unix nanoseconds; 0: never. From renew on the token is renewed in
	// the background; from end on the token isn't handed out; edge is the
	// earlier of the two, for the one comparison of the hot path.
	renew, end, edge int64

	nextRenewal atomic.Int64           // no renewal begins before this time, in Unix nanoseconds
	checked     atomic.Pointer[stamps] // marks of the ledger above at the last check
}

// owner is the ledger that a token belongs to.
type owner interface {
	// accepted is called once a token, when a server has accepted the token.
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

// same reports whether other, as loaded, is the token h, which may be nil. The
// ledger then keeps h, which knows whether a server has accepted the token.
func (h *held) same(other *held) bool {
	return h != nil && !h.unsaved && h.stamp() == other.stamp() && h.tok.AccessToken == other.tok.AccessToken
}
