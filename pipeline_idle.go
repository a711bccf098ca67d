// Sessions that end when nobody uses them: which tokens are not to be sent any more, and
// which to be renewed while what was made from them is in use.

package requestforge

import "time"

// tendAt is the part of Step.IdleLimit after which a token is renewed whose descendants are
// in use.
const tendAt = 2

// tend returns the tokens that h was made from whose sessions would end while h is in use,
// and that are to be renewed now. l is the ledger of h.
func (l *ledger) tend(h *held, now time.Time) (due []*held) {
	for _, a := range h.step.tended {
		of := l
		if !l.owns(a.index) {
			of = l.up
		}
		p := of.ready(a)
		if p != nil && p.tok.RefreshToken != "" && p.fresh(now) && p.idleFor(now) >= a.IdleLimit/tendAt && p.turn(now) {
			due = append(due, p)
		}
	}
	return due
}
