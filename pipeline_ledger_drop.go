// The ledger of a subject that is dropped from memory: what of it is worth remembering, and
// what another ledger of the same subject takes over. pipeline_ledger.go has the lock, and
// pipeline_subject.go drops subjects.

package requestforge

import "slices"

// troubled reports whether l knows of trouble: refusals, failures, and refresh tokens that must
// not be sent again although the storage has them.
func (l *ledger) troubled() bool {
	return locked(l, func() bool {
		return slices.ContainsFunc(l.entries, func(e entry) bool {
			spent := e.spentSum != 0 && (e.token == nil || e.token.unsaved || e.token.refreshSum() == e.spentSum)
			return e.refusals.row > 0 || e.refusals.buckets != nil || e.doubt != nil || e.failures.telling() || spent
		})
	})
}

// strip drops the tokens of l, and keeps everything else: a token may come back from the
// storage, if that still has the token. What was begun before changes nothing any more.
func (l *ledger) strip() {
	locked(l, func() struct{} {
		l.epoch++
		for _, s := range l.own() {
			l.entry(s.index).strip()
			l.servedOf(s).Store(nil)
		}
		return struct{}{}
	})
}

// replaces reports whether l has a live token in place of h, of another ledger of the same
// subject. stamps says that the stamps of both are of one storage; else any other token is
// newer.
func (l *ledger) replaces(h *held, stamps bool) bool {
	return at(l, h.step, func(e *entry) bool {
		t := e.token
		return t != nil && l.live(t) && t.tok.AccessToken != h.tok.AccessToken && (!stamps || t.stamp() > h.stamp())
	})
}

// succeed makes l, of the same subject as before, which was dropped from memory, the heir of
// what refusals have taught: suspicions, rows and buckets, and with marks also the marks,
// which some storage may not know. It reports whether l has taken over buckets. Without
// marks, the storage has begun the stamps anew.
func (l *ledger) succeed(before *ledger, marks bool) (charged bool) {
	old, entries := before.legacy()
	return locked(l, func() bool {
		for _, s := range l.graph.steps {
			if mark := old[s.index]; mark > 0 && (marks || !l.owns(s.index)) {
				l.raiseLocked(s, mark)
			}
		}
		for i, s := range l.own() {
			e, b := &l.entries[i], &entries[i]
			if e.untold = e.untold || marks && b.untold; marks && b.spentSum != 0 {
				e.spend(b.spent)
				e.spentSum = b.spentSum
			}
			if e.token == nil || marks && !l.replacesLocked(s, b.top) {
				charged = e.refusals.succeed(b.refusals) || charged
			}
		}
		return charged
	})
}

// legacy returns the marks and copies of the entries of l.
func (l *ledger) legacy() (marks stamps, entries []entry) {
	entries = locked(l, func() []entry {
		marks = *l.marks.Load()
		copies := slices.Clone(l.entries)
		for i := range copies {
			if r := &copies[i].refusals; r.buckets != nil {
				r.buckets = new(*r.buckets)
			}
		}
		return copies
	})
	return marks, entries
}
