// Which tokens a ledger kills after the refusal of a token, and which refused tokens it
// waits for. pipeline_ledger.go has the lock, and pipeline_blame.go the cost of blame.

package requestforge

import (
	"slices"
	"time"

	"github.com/requestforge/requestforge/internal/trial"
)

// findLocked returns the held token of tok: by its origin, else by its value if tok
// is the newest token of s, which may be nil. nil means that tok is a stranger's.
func (l *ledger) findLocked(s *step, tok *Token) *held {
	h, ours := tok.origin().(*held)
	if ours = ours && h.owner == owner(l) && h.tok.AccessToken == tok.AccessToken; ours {
		s = h.step
	}
	if s == nil {
		return nil
	}
	// A save whose answer was lost gives one token two stamps. The refusal
	// counts for the newer stamp, or the token would live on.
	if !l.owns(s.index) {
		return nil
	}
	if t := l.entry(s.index).token; t != nil && t.tok.AccessToken == tok.AccessToken {
		return t
	}
	if ours {
		return h
	}
	return nil
}

// newestLocked is newest for a step of l or of the ledger above.
func (l *ledger) newestLocked(s *step) *held {
	if l.owns(s.index) {
		return l.entry(s.index).token
	}
	return l.up.newest(s)
}

// replacedLocked reports whether a newer token of the step is live. A newer token
// must not suffer for the refusal of h.
func (l *ledger) replacedLocked(h *held) bool {
	return l.replacesLocked(h.step, h.stamp())
}

// replacesLocked reports whether the token of s is live and has a stamp above stamp.
func (l *ledger) replacesLocked(s *step, stamp uint64) bool {
	t := l.entry(s.index).token
	return t != nil && t.stamp() > stamp && l.live(t)
}

// suspectsLocked returns the steps at a distance from the step blamed first for a refusal of
// h: the step of h or RefreshFrom, or the ancestor whose own token h hands on. Beyond the
// last distance the last steps stay.
func (l *ledger) suspectsLocked(h *held, distance int) []*step {
	first := l.graph.blamed(h.step)
	if s := l.makerLocked(h); s != h.step && !slices.Contains(s.ancestors, first) {
		first = s
	}
	return first.levels[min(distance, len(first.levels)-1)]
}

// makerLocked returns the furthest ancestor of the step of h with the same access token, in
// Extra or as its own, if each step in between hands on its parent's token; else the step.
func (l *ledger) makerLocked(h *held) *step {
	s := h.step
	for {
		i := slices.IndexFunc(s.parents, func(p *step) bool {
			if p.Given != nil {
				return false // a given token can't be fetched anew
			}
			t := l.newestLocked(p)
			return t != nil && t.tok.hands(h.tok)
		})
		if i < 0 {
			return s
		}
		s = s.parents[i]
	}
}

// tryLocked returns the trial of h, which was refused, or nil if there is nothing
// to wait for: h was accepted or waited for, or is dead or old.
func (l *ledger) tryLocked(h *held, now time.Time) *trial.Trial {
	dead := !l.live(h) || l.replacedLocked(h)
	t := h.tried()
	if t.own == nil && !dead && l.entry(h.step.index).refusals.patient(h, now) {
		t.own = trial.New(now)
	}
	if t.own != nil && dead {
		t.own.End()
	}
	if t.own == nil || t.own.Over() {
		return nil
	}
	return t.own
}

// doubt returns the step of a refused token if the storage is to be asked first.
func (l *ledger) doubt(s *step, rejected *Token, reports bool, now time.Time) *step {
	return locked(l, func() *step { return l.doubtLocked(s, rejected, reports, now) })
}

// refuse kills the tokens to blame for the refusal of a token, see refuseLocked.
func (l *ledger) refuse(s *step, rejected *Token, now time.Time) (of *held, blamed []blame, any bool) {
	locked(l, func() struct{} {
		of, blamed, any = l.refuseLocked(s, rejected, now)
		return struct{}{}
	})
	return of, blamed, any
}

// doubtLocked returns the step of a refused token if the refusal would revoke an ancestor,
// and so the newer tokens of peers. A peer's renewal may have made the server revoke the
// old token. So the storage has to be asked first: a newer token explains the refusal, and
// no ancestor is to blame.
//
// reports says that the program reports acceptances, too.
func (l *ledger) doubtLocked(s *step, rejected *Token, reports bool, now time.Time) *step {
	h := l.findLocked(s, rejected)
	if h == nil {
		return nil
	}
	r := &l.entry(h.step.index).refusals
	r.reported = r.reported || reports
	if !l.live(h) || l.replacedLocked(h) || !r.affordable(now) {
		return nil
	}
	if l.suspectsLocked(h, r.distance(h, now))[0] == h.step {
		return nil
	}
	return h.step
}

// refuseLocked finds the tokens to blame for the refusal of a token, and kills them.
// of is the token, nil if the refusal changes nothing. After too many refusals of its
// step refuseLocked blames no token. Blamed tokens of the ledger above are only suspected,
// see prove.
func (l *ledger) refuseLocked(s *step, rejected *Token, now time.Time) (of *held, blamed []blame, any bool) {
	h := l.findLocked(s, rejected)
	switch {
	case h == nil || !l.live(h):
		return nil, nil, false
	case l.replacedLocked(h):
		// The mark costs nothing, and the refused token stays dead even if a
		// storage that has lost its stamps gives the stamp out again.
		l.raiseLocked(h.step, h.stamp())
		return nil, nil, false
	}
	distance, ok := l.entry(h.step.index).refusals.climb(h, now)
	if !ok {
		return h, nil, false
	}
	suspects := l.suspectsLocked(h, distance)
	if !l.suspectLocked(h, suspects, now) {
		suspects = []*step{h.step}
	}
	for _, s := range suspects {
		if stamp := h.stamps[s.index]; l.raiseLocked(s, stamp) {
			blamed = append(blamed, blame{s, stamp})
		}
	}
	return h, blamed, true
}

// suspectLocked reports whether a refusal of h, a subject's token, may be blamed on the
// shared steps among suspects: not too often, and not by more subjects than are affordable.
// No other subject loses a token by a suspicion.
func (l *ledger) suspectLocked(h *held, suspects []*step, now time.Time) bool {
	if l.up == nil || !slices.ContainsFunc(suspects, func(s *step) bool { return !l.owns(s.index) }) {
		return true
	}
	r := &l.entry(h.step.index).refusals
	r.fill()
	if !r.suspicions.may(now) || !l.up.suspect(h.stamps, suspects, now) {
		return false
	}
	r.suspicions.begin(now)
	return true
}

// try returns the trial of h, see tryLocked.
func (l *ledger) try(h *held, now time.Time) *trial.Trial {
	return at(l, h.step, func(*entry) *trial.Trial { return l.tryLocked(h, now) })
}

// triedInVain ends the trial of h. No other token of the step is waited for until a
// server has accepted a token.
func (l *ledger) triedInVain(h *held) {
	at(l, h.step, func(e *entry) struct{} {
		e.refusals.vain = e.refusals.vain || !h.accepted()
		h.tried().own.End()
		return struct{}{}
	})
}

// refund gives back the cost of a refusal of h proven by a replay.
func (l *ledger) refund(h *held) {
	at(l, h.step, func(e *entry) struct{} { e.refusals.refund(); return struct{}{} })
}

// accepted notes that a server has accepted h, which ends a row of refusals.
func (l *ledger) accepted(h *held) {
	at(l, h.step, func(e *entry) struct{} {
		e.refusals.accepted()
		if rare := h.rare.Load(); rare != nil && rare.own != nil {
			rare.own.End()
		}
		return struct{}{}
	})
}

// prove kills, for all subjects, the shared tokens suspected after the refusal of a token of
// s: the very request has worked with newer tokens.
func (l *ledger) prove(s *step, suspected []blame) {
	for _, b := range suspected {
		at(l.up, b.step, func(e *entry) struct{} {
			if l.up.raiseLocked(b.step, b.stamp) {
				e.refusals.refund()
			}
			return struct{}{}
		})
	}
	at(l, s, func(e *entry) struct{} {
		e.refusals.fill()
		e.refusals.suspicions = suspicions{}
		return struct{}{}
	})
}
