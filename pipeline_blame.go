// Who is to blame for the refusal of a token, how much blaming is affordable, and
// which refused token a server may not know yet. The ledger (pipeline_ledger.go)
// keeps the state, and kills the tokens.

package requestforge

import (
	"math"
	"time"

	"github.com/requestforge/requestforge/internal/bucket"
)

const (
	// Refusals may invalidate tokens unprovenSize times at once, and once
	// more each unprovenEvery. An accepted replay gives back the cost of its
	// request's refusals.
	unprovenSize  = 3
	unprovenEvery = 10 * time.Second

	// Refusals may invalidate tokens allSize times at once, and once more
	// each allEvery, proven or not: an API that takes each token once must
	// not cost a login a request.
	allSize  = 80
	allEvery = time.Second

	// servedLong is how long a token has to serve to count as accepted where
	// the program doesn't report acceptances.
	servedLong = time.Minute

	// A live token handed out servedOften times counts as accepted there, too.
	// The calls prove nothing if all callers ask at once, so guesses are
	// bounded: guessSize at once, one more each guessEvery.
	guessSize  = 8
	guessEvery = time.Minute

	// youngFor is how long after its birth a token may be unknown to a
	// server that hears of tokens from other servers.
	youngFor = 10 * time.Second
)

// A blame is a step whose tokens up to a stamp were found to be bad.
type blame struct {
	step  *step
	stamp uint64
}

// refusals holds the consequences of resource servers' refusals of one step's tokens.
// Refusals and acceptances of one step say nothing of other steps: the tokens may be for
// different servers, or be on one request together.
type refusals struct {
	*buckets // nil: full

	row      int32 // refusals since the last acceptance of a token of the step
	reported bool  // the program reports acceptances
	vain     bool  // a young token was waited for in vain, and no token accepted since
}

// buckets bound the cost of refusals.
type buckets struct {
	unproven, all, guesses bucket.Bucket
	suspected              uint64 // of a shared step: the suspicion of tokens up to this stamp is paid

	suspicions suspicions // of a subject's step
}

// suspicions count how often a subject suspects shared tokens. A call that an API always
// refuses, or an account that an auth server always refuses, must cost the shared step
// little; but where a server has forgotten a shared token, a suspicion is the way back. So
// the wait between two suspicions doubles, until a suspicion proves right.
type suspicions struct {
	next time.Time // no suspicion before
	wait time.Duration
}

const leastSuspicion, mostSuspicion = 10 * time.Second, 30 * time.Minute

// may reports whether a suspicion may begin now.
func (s *suspicions) may(now time.Time) bool { return !now.Before(s.next) }

// begin notes a suspicion.
func (s *suspicions) begin(now time.Time) {
	s.wait = min(max(leastSuspicion, 2*s.wait), mostSuspicion)
	s.next = now.Add(s.wait)
}

// fill makes full buckets unless there are buckets.
func (r *refusals) fill() {
	if r.buckets == nil {
		r.buckets = &buckets{
			unproven: bucket.Full(unprovenSize, unprovenEvery),
			all:      bucket.Full(allSize, allEvery),
			guesses:  bucket.Full(guessSize, guessEvery),
		}
	}
}

// affordable reports whether a further refusal may invalidate tokens.
func (r *refusals) affordable(now time.Time) bool {
	return r.buckets == nil || !r.unproven.Empty(now) && !r.all.Empty(now)
}

// take takes the cost of one refusal, if affordable.
func (r *refusals) take(now time.Time) bool {
	r.fill()
	return r.affordable(now) && r.unproven.Take(now) && r.all.Take(now)
}

// refund gives back the cost of a refusal proven by a replay.
func (r *refusals) refund() {
	if r.buckets != nil {
		r.unproven.Give(1)
	}
}

// accepted notes that a server has accepted a token, which ends a row of refusals.
func (r *refusals) accepted() { r.row, r.reported, r.vain = 0, true, false }

// distance returns how far from its step the next refusal, of h, is blamed.
func (r *refusals) distance(h *held, now time.Time) int {
	if h.accepted() || !r.reported && now.Sub(h.issued) >= servedLong || r.guess(h, now) {
		return 0
	}
	return int(r.row)
}

// guess reports whether h counts as accepted only because h was handed out often.
func (r *refusals) guess(h *held, now time.Time) bool {
	return !r.reported && h.handed.Load() >= servedOften && (r.buckets == nil || !r.guesses.Empty(now))
}

// succeed takes over before, a copy, of the same step of the same subject. It reports whether r has
// taken over buckets.
func (r *refusals) succeed(before refusals) (charged bool) {
	r.row, r.reported, r.vain = max(r.row, before.row), r.reported || before.reported, r.vain || before.vain
	if charged = r.buckets == nil && before.buckets != nil; charged {
		r.buckets = before.buckets
	}
	return charged
}

// climb counts the refusal of h and returns its distance; false if there were too many
// refusals. If h counts as accepted, the refusal before was right.
func (r *refusals) climb(h *held, now time.Time) (int, bool) {
	d := r.distance(h, now)
	r.fill()
	if r.guess(h, now) && r.guesses.Take(now) {
		r.refund()
	}
	if !r.take(now) {
		return 0, false
	}
	r.row = int32(min(d+1, math.MaxInt32))
	return d, true
}

// patient reports whether a server that refused h may not know h yet. After one token
// waited for in vain, the answer is no until a server accepts a token: the fault must be
// elsewhere.
func (r *refusals) patient(h *held, now time.Time) bool { return !r.vain && h.young(now) }

// young reports whether h is seconds old, and no resource server is known to have
// accepted the token.
func (h *held) young(now time.Time) bool {
	return !h.accepted() && now.Sub(h.issued) < youngFor
}
