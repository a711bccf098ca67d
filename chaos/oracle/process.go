// Whose ledger entries concern whom. Each process has a bucket and a memory of its own;
// tokens, and a fetch that others wait for, are shared by the processes of one identity.
// The auth server and its revocations concern everybody.

package oracle

import (
	"cmp"
	"slices"
	"time"
)

// heard is how long a process may take to hear what another one has put into the
// storage: the storage of a run pushes nothing, and is looked at each half minute.
const heard = 31 * time.Second

// process returns a process by its number; nil: there is none.
func (v *Verdict) process(n int) *Process {
	if n < 0 || n >= len(v.run.Processes) {
		return nil
	}
	return v.run.Processes[n]
}

// identity returns who a process logs in as; "": there is no such process.
func (v *Verdict) identity(process int) string {
	if p := v.process(process); p != nil {
		return p.Identity
	}
	return ""
}

// processes checks what each process counts by itself, and that nobody else has asked
// for tokens or sent requests.
func (v *Verdict) processes() {
	spared := make(map[int]uint64)
	for _, n := range v.run.Notes {
		if r := v.byID[n.ID]; r != nil && r.Process != n.Process {
			v.report(RuleLedger, n.ID, "process %d says what it did for a request of process %d", n.Process, r.Process)
		}
		if n.Kind == Spared {
			spared[n.Process]++
		}
	}
	for i, p := range v.run.Processes {
		if spared[i] != p.Spared {
			v.report(RuleLedger, 0, "the pipeline of process %d counts %d refusals that it spared, its log has %d", i, p.Spared, spared[i])
		}
	}
	for _, r := range v.run.Requests {
		if v.process(r.Process) == nil {
			v.report(RuleLedger, r.ID, "there is no process %d", r.Process)
		}
	}
	for _, c := range v.run.AuthCalls {
		if v.process(c.Process) == nil {
			v.report(RuleLedger, 0, "a call for step %s at %v came from no process of the run", c.Step, c.Began)
		}
	}
}

// newest returns the newest token that a process had sent before a moment.
func (v *Verdict) newest(process int, before time.Duration) string {
	of := v.newer[process]
	i, _ := slices.BinarySearchFunc(of, before, func(s *Send, t time.Duration) int { return cmp.Compare(s.Began, t) })
	if i == 0 {
		return ""
	}
	return of[i-1].Token
}

// shortTry is the least time that a fetch gives its server in one try.
const shortTry = 150 * time.Millisecond

// late reports whether a call may have been granted, or refused, too late for its fetch: the client
// gave it up, or had the answer when little of the fetch's time can have been left.
func (v *Verdict) late(c *AuthCall) bool {
	took := c.Left - c.Sent
	return c.Outcome != Spoilt && (!c.Heard && took >= shortTry || took >= v.run.Slack)
}

// authTrouble reports whether the auth server gave a process a reason to have no token
// between from and to: a call that was spoilt, or answered too late, or one that was refused
// because of more revocations than one blame of a parent can mend. What is remembered
// of such a call counts, too. The calls of other processes count if those log in as the
// same: only one of them fetches, and the others wait.
func (v *Verdict) authTrouble(process int, from, to time.Duration) bool {
	slack := v.run.Slack
	for _, c := range v.run.AuthCalls {
		late, begun := v.late(c), c.Began
		if late {
			begun = c.Sent
		}
		if v.identity(c.Process) != v.identity(process) || begun > to+slack || c.Outcome == Granted && !late {
			continue
		}
		if c.Ended != 0 && max(c.Ended, c.Left)+max(v.run.Memory, c.RetryAfter)+slack < from {
			continue
		}
		if c.Outcome == Spoilt || late || v.revocations(c.Began-2*slack, to) >= 2 {
			return true
		}
	}
	return v.revocations(from-slack, to) >= 3 // dead on arrival in each round
}

func (v *Verdict) revocations(from, to time.Duration) int {
	n := 0
	for _, r := range v.run.Revocations {
		if r.At >= from && r.At <= to {
			n++
		}
	}
	return n
}

// death is when the refusal of a token had been dealt with, and by which request.
type death struct {
	since   time.Duration
	id      int
	process int
}

// stale checks that no token goes out any more long after a refusal of it was
// dealt with. A refusal that was spared, or that came of an API which refuses
// everything, says nothing about the token.
func (v *Verdict) stale() {
	type life struct {
		process int
		token   string
	}
	own := make(map[life]death)       // the tokens that a process knows to be dead
	first := make(map[string][]death) // and those of all processes, by the token
	for _, h := range v.hops {
		for i, s := range h.sends {
			seen := h.visit(s.N)
			if s.Status != 401 || seen == nil || seen.Live || seen.Refusing {
				continue
			}
			dealt := h.Ended
			for _, next := range h.sends[i+1:] {
				if next.Token != s.Token { // else the token may be too young to be known
					dealt = next.Began
					break
				}
			}
			spared := slices.ContainsFunc(v.notes[s.ID], func(n Note) bool {
				return n.Kind == Spared && n.At >= s.Ended && (dealt == 0 || n.At <= dealt)
			})
			if dealt == 0 || spared {
				continue
			}
			if dealt == h.Ended && !v.invalidated(s, dealt) && ordinal(v.newest(s.Process, dealt)) <= ordinal(s.Token) {
				dealt += youngLasts // by others of the process than the caller, who didn't wait
			}
			d := death{dealt, s.ID, s.Process}
			if dealt <= h.Ended { // else the process may end before it has found out
				first[s.Token] = append(first[s.Token], d)
			}
			if old, ok := own[life{s.Process, s.Token}]; !ok || dealt < old.since {
				own[life{s.Process, s.Token}] = d
			}
		}
	}
	for _, h := range v.hops {
		for i, s := range h.sends {
			if s.Token == "" || i > 0 && h.sends[i-1].Token == s.Token && h.sends[i-1].Status == 401 {
				continue // a try of a token that may be too young, for all who wait
			}
			d, ok := own[life{s.Process, s.Token}]
			if !ok || s.Began <= d.since+v.run.Slack {
				n := slices.IndexFunc(first[s.Token], func(d death) bool { return d.process != s.Process && v.mustKnow(s, d) })
				if n < 0 {
					continue
				}
				d = first[s.Token][n]
			}
			v.report(RuleStale, s.ID, "%s was sent %v after its refusal had been dealt with, in request %d of process %d", s.Token, s.Began-d.since, d.id, d.process)
			v.Violations[len(v.Violations)-1].Also = d.id
		}
	}
}

// youngLasts is how long a token that is seconds old may be tried before it is dealt
// with, and youngTimes when, after its first refusal.
const youngLasts = 3 * time.Second

var youngTimes = [youngTries]time.Duration{250 * time.Millisecond, 750 * time.Millisecond, 1750 * time.Millisecond, youngLasts}

// tooYoung reports whether the token that a hop ended with was still being waited for,
// and the next try later than the hop's caller could wait.
func (v *Verdict) tooYoung(h *hop, last *Send) bool {
	refused := last.Ended
	for _, s := range v.run.Sends {
		if s.Process != last.Process || s.Token != last.Token || s.Ended == 0 || s.Ended > last.Ended {
			continue
		}
		if s.Status > 0 && s.Status < 400 {
			return false // a server knew the token
		}
		if s.Status == 401 {
			refused = min(refused, s.Ended)
		}
	}
	for _, after := range youngTimes {
		if next := refused + after; next > last.Ended {
			return next >= h.req.Due
		}
	}
	return false
}

// invalidated reports whether the refusal of a send has invalidated a token, before a
// moment.
func (v *Verdict) invalidated(s *Send, before time.Duration) bool {
	return slices.ContainsFunc(v.notes[s.ID], func(n Note) bool {
		return n.Kind == Invalidated && n.At >= s.Ended && n.At <= before
	})
}

// mustKnow reports whether the process of s has to know what another process has learnt
// of a token: after half a minute, and at once if that was before the process began,
// unless the storage may not have been told.
func (v *Verdict) mustKnow(s *Send, d death) bool {
	p, slack := v.process(s.Process), v.run.Slack
	if p == nil || s.Began > d.since+heard {
		return true
	}
	return p.Began > d.since+slack && !slices.ContainsFunc(v.run.Troubles, func(w Window) bool {
		return w.From <= p.Began+slack && d.since <= w.To+slack
	})
}
