// A ledger's side of fetches: failures and refresh tokens. pipeline_ledger.go has the lock.

package requestforge

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/trial"
)

// cooling returns the failure of s while the step cools down, else nil.
func (l *ledger) cooling(s *step, now time.Time) *failure {
	return at(l, s, func(e *entry) *failure { return e.cooling(now) })
}

// fail remembers err, the outcome of a fetch of s that began in epoch, with the secrets in
// read. It returns the failure and the number of failures in a row. If everything was
// forgotten since, fail changes nothing and returns nil.
func (l *ledger) fail(s *step, err *AuthError, read reading, epoch int, now time.Time) (cur *failure, inRow int) {
	cur = at(l, s, func(e *entry) *failure {
		if l.epoch != epoch {
			return nil
		}
		f := e.failed()
		wait := coolDown(err, f.inRow, l.graph.coolDown, l.graph.maxCoolDown)
		f.add((&failure{err: err, at: now, until: now.Add(wait), gone: e.gone, read: read, ended: new(atomic.Bool)}).after(f.cur))
		inRow = f.inRow
		return f.cur
	})
	return cur, inRow
}

// forgive notes the crash err of a fetcher for State alone, once: the step then
// doesn't cool down. It returns false for the second crash in a row.
func (l *ledger) forgive(s *step, err *AuthError, now time.Time) bool {
	return at(l, s, func(e *entry) bool { return e.failed().forgive(&failure{err: err, at: now, until: now}) })
}

// failWith remembers a peer's failure of s. The storage may return a failure saved by this
// process itself, with an end later by up to slack.
func (l *ledger) failWith(s *step, f *failure, slack time.Duration) {
	at(l, s, func(e *entry) struct{} { e.failed().replace(f, slack); return struct{}{} })
}

// inherit makes f, a lasting failure of a parent, the failure of s, unless that lasts longer:
// callers need no flight until the failure ends. nil changes nothing.
func (l *ledger) inherit(s *step, f *failure) {
	if f != nil {
		at(l, s, func(e *entry) struct{} { e.failed().inherit(f); return struct{}{} })
	}
}

// mayBlame reports whether the parents may be blamed for a refusal by the auth
// server of s.
func (l *ledger) mayBlame(s *step, parents []*held, now time.Time) bool {
	return at(l, s, func(e *entry) bool { return e.failures.mayBlame(parents, now) })
}

// suspectParents reports whether the auth server of s, a subject's step, may be asked with
// newer tokens than the refused shared tokens; see suspicions. again says that the fetch has
// suspected them before, so that this is no further suspicion.
func (l *ledger) suspectParents(s *step, parents []*held, again bool, now time.Time) bool {
	return at(l, s, func(e *entry) bool {
		v, steps := make(stamps, len(l.graph.steps)), []*step(nil)
		for _, h := range parents {
			v[h.step.index], steps = h.stamp(), append(steps, h.step)
		}
		f := e.failed()
		if !again && !f.suspicions.may(now) || !l.up.suspect(v, steps, now) {
			return false
		}
		if !again {
			f.suspicions.begin(now)
		}
		return true
	})
}

// mayWait reports whether the auth server of s, which has refused the parents, may
// not know one of them yet.
func (l *ledger) mayWait(s *step, parents []*held, now time.Time) bool {
	return at(l, s, func(e *entry) bool { return e.failures.mayWait(parents, now) })
}

// parentsWork notes that the auth server of s has taken the parents' tokens.
func (l *ledger) parentsWork(s *step) {
	at(l, s, func(e *entry) struct{} {
		if e.failures != nil {
			e.failures.vain, e.failures.waited, e.failures.suspicions = time.Time{}, false, suspicions{}
		}
		return struct{}{}
	})
}

// blamedInVain notes that newer tokens of the parents of s changed nothing.
func (l *ledger) blamedInVain(s *step, now time.Time) {
	at(l, s, func(e *entry) struct{} { e.failed().vain = now; return struct{}{} })
}

// asParent returns the trial of h, a shared token that the auth server of a subject's step
// may not know yet. All subjects share the trial.
func (l *ledger) asParent(h *held, now time.Time) *trial.Trial {
	return at(l, h.step, func(*entry) *trial.Trial {
		t := h.tried()
		if t.asParent == nil {
			t.asParent = trial.New(now)
		}
		return t.asParent
	})
}

// has reports whether a kept token has the text or the refresh token of h.
func (l *ledger) has(h *held) bool {
	return locked(l, func() bool {
		return slices.ContainsFunc(l.entries, func(e entry) bool {
			t := e.token
			return t != nil && (t.tok.AccessToken == h.tok.AccessToken || t.tok.RefreshToken != "" && t.tok.RefreshToken == h.tok.RefreshToken)
		})
	})
}

// waitedInVain notes that the auth server of s still refused young parents later.
func (l *ledger) waitedInVain(s *step) {
	at(l, s, func(e *entry) struct{} { e.failed().waited = true; return struct{}{} })
}

// refreshable returns the newest token of s if its refresh token may be sent,
// else nil.
func (l *ledger) refreshable(s *step) *held {
	return at(l, s, func(e *entry) *held {
		if !e.refreshable() {
			return nil
		}
		return e.token
	})
}

// spend notes that the refresh token of h must not be sent again.
func (l *ledger) spend(h *held) {
	at(l, h.step, func(e *entry) struct{} {
		e.spend(h.stamp())
		e.spentSum = h.refreshSum()
		return struct{}{}
	})
}

// asked returns what the fetch of the newest token of s was asked for because of challenges.
func (l *ledger) asked(s *step) map[string]string { return at(l, s, (*entry).asked) }

// spentRefresh reports whether h has the refresh token that was spent last.
func (l *ledger) spentRefresh(h *held) bool {
	return at(l, h.step, func(e *entry) bool { return e.spentSum != 0 && e.spentSum == h.refreshSum() })
}

// doubtAbout notes a doubt whether the refresh token of h was spent, and reports whether the
// doubt has lasted for so long that a login is due.
func (l *ledger) doubtAbout(h *held, now time.Time) bool {
	return at(l, h.step, func(e *entry) bool { return e.doubtAbout(h.stamp(), now) })
}

// owes reports whether a tombstone of s isn't in the storage yet.
func (l *ledger) owes(s *step) bool {
	_, due := l.tombstone(s)
	return due
}

// owing reports whether dropping l would lose a tombstone, a mark or a refresh token that
// isn't in the storage yet. alone says that no refresh token ever gets there.
func (l *ledger) owing(alone bool) bool {
	return locked(l, func() bool {
		return slices.ContainsFunc(l.entries, func(e entry) bool {
			return (e.due || e.untold) && !alone || e.token != nil && e.token.tok.RefreshToken != "" && e.token.stamp() > e.spent && (alone || e.token.unsaved)
		})
	})
}
