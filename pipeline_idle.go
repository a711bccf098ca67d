// Sessions that end for lack of use: tokens that must not be sent any more, and tokens to be
// renewed while their descendants are in use.

package requestforge

import "time"

// tendAt is the part of Step.IdleLimit after which a token is renewed whose descendants are
// in use.
const tendAt = 2

// tend returns the ancestors of h that are to be renewed now, since their sessions would end
// while h is in use. l is the ledger of h.
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
