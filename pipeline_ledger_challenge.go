// A ledger's count of the cost of APIs' challenges. pipeline_ledger.go has the lock, and
// pipeline_wish.go the rules.

package requestforge

import "time"

// mayAnswer returns why no fetch of s may begin for the sake of w, after a challenge of the
// token with a stamp; or nil. A wish like the last failed wish is refused for as long as the
// failure is remembered.
func (l *ledger) mayAnswer(s *step, w *wish, stamp uint64, now time.Time) *unanswered {
	return at(l, s, func(e *entry) *unanswered {
		if h := e.token; h != nil && h.stamp() == stamp && w.askedInVain(h, now) {
			return &unanswered{&AuthError{Step: s.Name, Err: errAskedAlready}, w}
		}
		a := e.failed().challenged()
		if u := a.again(w, now); u != nil {
			return u
		}
		if !a.affordable(now) {
			return &unanswered{&AuthError{Step: s.Name, Err: errAnsweredTooOften}, w}
		}
		return nil
	})
}

// payAnswer notes that an auth server is asked for the sake of a wish, by the flight of s
// that mayAnswer has let begin.
func (l *ledger) payAnswer(s *step, now time.Time) {
	at(l, s, func(e *entry) struct{} {
		e.failed().challenged().take(now) // new answers, if everything was forgotten meanwhile
		return struct{}{}
	})
}

// unanswered notes that a fetch of s for the sake of w has failed. It returns how long the
// failure is remembered.
func (l *ledger) unanswered(s *step, w *wish, err *AuthError, now time.Time) time.Duration {
	return at(l, s, func(e *entry) time.Duration {
		a := e.answers()
		if a == nil { // everything was forgotten meanwhile
			return 0
		}
		return a.failed(w, err, l.graph.coolDown, l.graph.maxCoolDown, now)
	})
}

// answered notes that a fetch for the sake of a wish has brought h.
func (l *ledger) answered(h *held) {
	at(l, h.step, func(e *entry) struct{} { e.answers().over(); return struct{}{} })
}

// refundAnswer gives back the cost of a fetch of s, since the API was content with the
// token.
func (l *ledger) refundAnswer(s *step) {
	at(l, s, func(e *entry) struct{} {
		if a := e.answers(); a != nil {
			a.unproven.Give(1)
		}
		return struct{}{}
	})
}
