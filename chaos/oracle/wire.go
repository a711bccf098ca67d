// What the requests of a process cost its servers together: retries, and connections.

package oracle

import (
	"cmp"
	"slices"
	"time"
)

// A process has a number of retries at once. Each request brings a share of one more, and
// time another one, up to that number.
const (
	retryShare = 0.1
	retryEvery = 30 * time.Second
)

// retries checks that the requests of a process are not sent again more often, all
// together, than its budget allows.
func (v *Verdict) retries() {
	type event struct {
		at    time.Duration
		retry bool
	}
	of := make([][]event, len(v.run.Processes))
	for _, h := range v.hops {
		if h.req == nil || v.process(h.req.Process) == nil {
			continue
		}
		n := h.req.Process
		of[n] = append(of[n], event{h.Began, false})
		for i, s := range h.sends[min(1, len(h.sends)):] {
			if before := h.sends[i]; before.Status != 401 && s.N == before.N+1 {
				of[n] = append(of[n], event{before.Ended, true})
				v.Retries++
			}
		}
	}
	for n, events := range of {
		slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
		most := float64(v.run.RetryBudget)
		left, last := most, time.Duration(0)
		soon, ahead := 0, 0 // events that may have been before this one, and the requests among them that come later
		for i, e := range events {
			left = min(most, left+float64(e.at-last)/float64(retryEvery))
			last = e.at
			if !e.retry {
				left = min(most, left+retryShare)
				if i < soon {
					ahead--
				}
				continue
			}
			for soon = max(soon, i); soon < len(events) && events[soon].at <= e.at+v.run.Slack; soon++ {
				if !events[soon].retry {
					ahead++
				}
			}
			left--
			if left < -1-retryShare*float64(ahead) {
				v.report(RuleRetries, 0, "process %d had no retry left at %v, and sent a request again", n, e.at)
				break
			}
		}
	}
}

// LongWait is the wait between two sends of a request from which on it counts whether
// a connection is held meanwhile.
const LongWait = 50 * time.Millisecond

// numbers checks that each send of a hop says which one it is. A try that ended for want
// of a token, and was made again, counts.
func (v *Verdict) numbers(h *hop) {
	last := 0
	for _, s := range h.sends {
		unsent := s.Number - s.N
		switch {
		case unsent == 0:
		case unsent > 0 && unsent <= v.run.RetryMax && s.Number > last &&
			(v.authTrouble(s.Process, h.Began, s.Began) || v.loggedOut(s.Process, h.Began, s.Began)):
		default:
			v.report(RuleNumber, h.ID, "send %d of hop %d says that it is number %d", s.N, h.Hop.Hop, s.Number)
		}
		last = s.Number
	}
}

// readWithin is how long an answer may be read before a wait, and fewWaits the number
// below which the rule of most of them isn't applied.
const (
	readWithin = time.Second
	fewWaits   = 20
)

// connections checks that a request which waits, for a token or for its next try, lets
// go of the connection of the answer that it has: within a second for each, and for most
// of them at once. The answers of the run are short, and come in one piece.
func (v *Verdict) connections() {
	for _, h := range v.inOrder() {
		for i, s := range h.sends[:max(0, len(h.sends)-1)] {
			wait := h.sends[i+1].Began - s.Ended
			if !s.Opened || wait < LongWait {
				continue
			}
			v.Waits++
			held := wait
			if s.Freed != 0 {
				held = s.Freed - s.Ended
			}
			if held > wait/2 {
				v.Held++
			}
			if held > readWithin+v.run.Slack {
				v.report(RuleHeld, h.ID, "send %d of hop %d was answered at %v, and its connection held for %v", s.N, h.Hop.Hop, s.Ended, held)
			}
		}
	}
	if v.Waits >= fewWaits && 2*v.Held > v.Waits {
		v.report(RuleHeld, 0, "during %d of %d waits between two sends of a request", v.Held, v.Waits)
	}
}
