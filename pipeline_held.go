// A token in a pipeline, with a vector of stamps. One comparison of vectors says which
// tokens are live and which are new enough. pipeline_ledger.go gives stamps and raises
// marks.

package requestforge

import (
	"cmp"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/trial"
)

// stamps holds a number for each step of a graph, by step.index: the stamps of a token and
// its ancestors, or the marks of the steps, or a floor below a wanted token. A nil floor is
// zero everywhere.
type stamps []uint64

// maxSkew is taken off a token's life, for the time of a request and for differing clocks;
// at most a tenth of the life.
const maxSkew = 10 * time.Second

// servedOften is how many times a live token's being handed out is counted.
const servedOften = 16

// unrelated is a token's stamp for a step outside its ancestors. The number is above every
// mark.
const unrelated = math.MaxUint64

// above reports whether every stamp of v is above its mark or floor. Compared with marks,
// above says whether the token is live; compared with a floor, whether the token is new
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

// lineage returns the stamps of a token made from parents with the given stamps. An
// ancestor on several paths counts with its lowest stamp. The caller sets the token's own
// stamp. n is the number of steps.
func lineage(n int, parents ...stamps) stamps {
	v := slices.Repeat(stamps{unrelated}, n)
	for _, p := range parents { // a given token has no stamps
		for i, stamp := range p {
			v[i] = min(v[i], stamp)
		}
	}
	return v
}

// held is a token with its stamps and times. A held token is immutable once a ledger keeps
// the token, except for the atomic fields and the trial.
type held struct {
	// The fields of the hot path come first, to touch few lines of cache.
	tok     *Token
	checked atomic.Pointer[stamps] // marks of the ledger above at the last check

	// In Unix nanoseconds; 0: never. From renew on, the token is renewed in the background;
	// from end on, the token isn't handed out. edge is the earlier time, for the single
	// comparison of the hot path, or 1 if each use is recorded.
	edge int64

	handed atomic.Int32 // how often the live token was handed out, counted up to servedOften

	unsaved bool // the stamp is from this process, not from the storage
	loaded  bool // the token comes from the storage

	renew, end int64 // see edge
	until      int64 // end of the tokens made from the token, see Record.Until; in Unix nanoseconds, 0: no bound

	owner  owner
	step   *step
	stamps stamps
	issued time.Time

	nextRenewal atomic.Int64 // the earliest time of a renewal, in Unix nanoseconds
	takenAt     atomic.Int64 // when an auth server has taken the token, as a parent's, last; in Unix nanoseconds, 0: never

	used atomic.Int64 // time of the last use, if the step has an IdleLimit; in Unix nanoseconds

	rare atomic.Pointer[heldRare] // nil: the token needs no rare field; set under the ledger's mutex
}

// heldRare holds the fields of few tokens.
type heldRare struct {
	own      *trial.Trial // begun by a refusal; guarded by the ledger's mutex
	asParent *trial.Trial // begun by an auth server's refusal of a subject; guarded likewise

	asked map[string]string // see held.asked
}

// tried returns the fields with the trials of h. The caller holds the ledger's mutex.
func (h *held) tried() *heldRare {
	if h.rare.Load() == nil {
		h.rare.Store(new(heldRare))
	}
	return h.rare.Load()
}

// asked returns the demands of challenges that h was fetched with, beside the step's usual
// demands: see Record.Challenge. The map is never changed.
func (h *held) asked() map[string]string {
	if rare := h.rare.Load(); rare != nil {
		return rare.asked
	}
	return nil
}

// askFor sets asked of h, which no ledger keeps yet.
func (h *held) askFor(asked map[string]string) {
	if len(asked) > 0 {
		h.rare.Store(&heldRare{asked: asked})
	}
}

// heldInOne is a held token in one allocation, so that a live token of many users touches
// few lines of cache and few pages.
type heldInOne struct {
	held
	token Token
	prov  provenance
}

// ending is a token no longer needed.
type ending struct {
	*held
	live bool // the token was good until now, as far as known, so an auth server that doesn't know it is wrong
}

// owner is the ledger of a token.
type owner interface {
	// accepted is called once a token, when a server has accepted the token.
	accepted(*held)
	// try returns the trial of a refused token, or nil without a trial.
	try(h *held, now time.Time) *trial.Trial
	// triedInVain ends the trial of a token still refused.
	triedInVain(*held)
	// key identifies the subject.
	key() subjectKey
}

// of is the comparable identity of the subject.
func (h *held) of() any { return h.owner.key() }

// stepName is the user's name for the step.
func (h *held) stepName() string { return h.step.Name }

// ends is until as a time; zero: no bound.
func (h *held) ends() time.Time {
	if h.until == 0 {
		return time.Time{}
	}
	return time.Unix(0, h.until)
}

// bounded reports whether h ends together with the given token that h was made from.
func (h *held) bounded() bool {
	return h.until != 0 && h.tok.Expiry.UnixNano() >= h.until
}

// watchUse has each use of h recorded if its step has an IdleLimit, and each use of a token
// made from such tokens. A token loaded from a storage counts as used when issued: the uses
// by other processes are unknown.
func (h *held) watchUse() {
	if h.step.IdleLimit > 0 {
		h.used.Store(h.issued.UnixNano())
	}
	if h.step.IdleLimit > 0 || len(h.step.tended) > 0 {
		h.edge = 1
	}
}

// idleFor returns how long h hasn't been used; 0 if the step has no IdleLimit.
func (h *held) idleFor(now time.Time) time.Duration {
	if h.step.IdleLimit <= 0 {
		return 0
	}
	return time.Duration(now.UnixNano() - h.used.Load())
}

// idled reports whether the server may have ended the session of h for lack of use.
func (h *held) idled(now time.Time) bool {
	limit := h.step.IdleLimit
	return limit > 0 && h.idleFor(now) >= limit-min(maxSkew, limit/10)
}

// use records the coming use of h, which is fresh. It doesn't record every use, since
// callers on many cores would contend.
func (h *held) use(now time.Time) {
	if idle := h.idleFor(now); idle > h.step.IdleLimit/32 {
		h.used.Store(now.UnixNano())
	}
}

// stamp is the token's own.
func (h *held) stamp() uint64 { return h.stamps[h.step.index] }

// fresh reports whether h is unexpired, with the skew between clocks and the time of a
// request taken off, and whether its session hasn't been idle for too long.
func (h *held) fresh(now time.Time) bool {
	return (h.end == 0 || now.UnixNano() < h.end) && !h.idled(now)
}

// ahead reports whether a renewal is due, to the first caller only, until the next renewal
// is due.
func (h *held) ahead(now time.Time) bool {
	return h.renew != 0 && now.UnixNano() >= h.renew && h.turn(now)
}

// turn reports whether a renewal may begin, to the first caller only, until the next
// renewal may begin.
func (h *held) turn(now time.Time) bool {
	due := h.nextRenewal.Load()
	return now.UnixNano() >= due && h.nextRenewal.CompareAndSwap(due, cmp.Or(h.end, math.MaxInt64))
}

// handOut returns the token of h, which is live. It counts the call only while the count
// matters, since callers on many cores would contend for the counter for ever.
func (h *held) handOut() *Token {
	if h.handed.Load() < servedOften {
		h.handed.Add(1)
	}
	return h.tok
}

// accept records that a server has accepted the token.
func (h *held) accept() { h.owner.accepted(h) }

// accepted reports whether, to the knowledge of this process, a resource server has
// accepted the token. An auth server that has accepted the token as a parent's proves
// nothing about resource servers.
func (h *held) accepted() bool { return h.tok.prov.accepted.Load() }

// taken reports whether an auth server has taken the token as a parent's.
func (h *held) taken() bool { return h.takenAt.Load() != 0 }

// worked reports whether a server of either kind has ever accepted the token from this
// process. Whether a loaded token has worked for another process is unknown.
func (h *held) worked() bool { return h.taken() || h.accepted() }

// try and triedInVain are the owner's.
func (h *held) try(now time.Time) *trial.Trial { return h.owner.try(h, now) }
func (h *held) triedInVain()                   { h.owner.triedInVain(h) }

// anew returns the names of the parents' steps whose tokens differ from the parents of h.
func (h *held) anew(parents []*held) (names []string) {
	for _, p := range parents {
		if h.stamps[p.step.index] != p.stamp() {
			names = append(names, p.step.Name)
		}
	}
	return names
}

// same reports whether other, as loaded, is the token h, which may be nil. The ledger then
// keeps h, which knows whether a server has accepted the token.
func (h *held) same(other *held) bool {
	return h != nil && !h.unsaved && h.stamp() == other.stamp() && h.tok.AccessToken == other.tok.AccessToken
}
