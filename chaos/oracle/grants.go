// Whose a token is: the auth server's ledger says to which process each was granted, and
// what each process has sent says where it went.

package oracle

import (
	"slices"
	"strings"
	"time"
)

// grants sorts the auth server's ledger by token.
func (v *Verdict) grants() {
	v.grant, v.shown = make(map[string]*AuthCall), make(map[string][]*AuthCall)
	slices.SortStableFunc(v.run.AuthCalls, func(a, b *AuthCall) int { return int(a.Began - b.Began) })
	for _, c := range v.run.AuthCalls {
		for _, label := range c.Gave {
			v.grant[label] = c
		}
		for _, label := range c.Brought {
			if isRefresh(label) {
				v.shown[label] = append(v.shown[label], c)
			}
		}
	}
}

func isRefresh(label string) bool { return strings.Contains(label, "-refresh-") }

// use is a token that a process has sent.
type use struct {
	token   string
	process int
	id      int           // of the request; 0: a call of the auth server
	began   time.Duration // of the request or call
	sent    time.Duration
}

// uses returns what the processes have sent.
func (v *Verdict) uses() []use {
	var all []use
	for _, s := range v.run.Sends {
		if r := v.byID[s.ID]; r != nil && s.Token != "" {
			all = append(all, use{s.Token, s.Process, s.ID, r.Began, s.Began})
		}
	}
	for _, c := range v.run.AuthCalls {
		for _, label := range c.Brought {
			all = append(all, use{label, c.Process, 0, c.Sent, c.Sent})
		}
	}
	return all
}

// identities checks that no process has sent a token that was granted to another
// identity, or to nobody.
func (v *Verdict) identities() {
	for _, u := range v.uses() {
		g := v.grant[u.token]
		switch {
		case g == nil:
			v.report(RuleLedger, u.id, "%s was sent at %v, and granted to nobody", u.token, u.sent)
		case v.identity(g.Process) != v.identity(u.process):
			v.report(RuleIdentity, u.id, "%s was granted to %q, and sent by process %d of %q at %v", u.token, v.identity(g.Process), u.process, v.identity(u.process), u.sent)
		}
	}
}

// refreshes checks each refresh token that was sent more than once, or after a newer
// one: only an open outcome allows the former. What the storage failed to save, and a
// refusal, another process can't know.
func (v *Verdict) refreshes() {
	open := 0 // sends again after an open outcome
	for label, calls := range v.shown {
		for i, c := range calls {
			for _, before := range calls[:i] {
				stranger := before.Process != c.Process
				unsaved := stranger && v.lost(before)
				switch {
				case before.Left == 0 || before.Left > c.Sent:
					v.report(RuleRefresh, 0, "%s was sent at %v, and another time before that was over", label, c.Sent)
				case stranger && before.Outcome == Refused: // nothing in the storage says so
				case before.Heard && before.Outcome != Spoilt && !unsaved:
					v.report(RuleRefresh, 0, "%s was sent at %v, and had been %s at %v", label, c.Sent, before.Outcome, before.Left)
				default:
					open++
				}
			}
			if g := v.newerRefresh(label, c); g != nil {
				v.report(RuleRefresh, 0, "%s was sent at %v, and a newer one had been granted at %v", label, c.Sent, g.Left)
			}
		}
	}
	if v.run.FamiliesKilled > open {
		v.report(RuleFamilies, 0, "%d times, %d of them after an outcome that was open", v.run.FamiliesKilled, open)
	}
}

// newerRefresh returns the call that had granted the identity a newer refresh token than
// the one which c brings, as the process of c had to know; nil: none.
func (v *Verdict) newerRefresh(label string, c *AuthCall) *AuthCall {
	for _, g := range v.run.AuthCalls {
		if v.identity(g.Process) != v.identity(c.Process) || !g.Heard || g.Outcome != Granted || g.Left >= c.Sent {
			continue
		}
		old := v.grant[label]
		stranger := g.Process != c.Process || old != nil && old.Process != c.Process
		if stranger && v.lost(g) || v.gone(g) {
			continue // nothing says which of the two is newer
		}
		if slices.ContainsFunc(g.Gave, func(l string) bool { return isRefresh(l) && ordinal(l) > ordinal(label) }) {
			return g
		}
	}
	return nil
}

// lost reports whether the storage may have failed to save what a call has granted.
func (v *Verdict) lost(c *AuthCall) bool {
	return slices.ContainsFunc(v.run.SpoiltSaves, func(at time.Duration) bool {
		return at >= c.Ended && at <= c.Left+v.run.Slack
	})
}

// gone reports whether what a call has granted may have come to nothing by a logout.
func (v *Verdict) gone(c *AuthCall) bool {
	return slices.ContainsFunc(v.run.Logouts, func(l Logout) bool {
		late := l.To + v.run.Slack // else the call's fetch has looked at the storage after the logout
		if !l.Told || v.troubled(l.To, c.Sent) {
			late = l.To + heard
		}
		return l.Identity == v.identity(c.Process) && l.From <= c.Left+v.run.Slack && late >= c.Sent
	})
}

// logouts checks that nothing goes out any more that was asked for before a logout. In
// the process of the logout it holds for all that begins after it. Another process
// looks at the storage each half minute, and before it sends a refresh token.
func (v *Verdict) logouts() {
	for _, u := range v.uses() {
		g := v.grant[u.token]
		if g == nil {
			continue
		}
		for _, l := range v.run.Logouts {
			if l.Identity != v.identity(g.Process) || g.Sent >= l.From {
				continue
			}
			end := l.To
			switch {
			case l.Process == u.process:
			case !l.Told:
				continue
			case isRefresh(u.token) && !v.troubled(l.To, u.sent):
				end += v.run.Slack
			default:
				end += heard
			}
			if u.began > end {
				v.report(RuleLogout, u.id, "%s, which was asked for at %v, was sent at %v by process %d, after the logout at %v by process %d", u.token, g.Sent, u.sent, u.process, l.From, l.Process)
				break
			}
		}
	}
}

// troubled reports whether the storage failed or hung between two times.
func (v *Verdict) troubled(from, to time.Duration) bool {
	return slices.ContainsFunc(v.run.Troubles, func(w Window) bool { return w.From <= to+v.run.Slack && w.To+v.run.Slack >= from })
}

// settled is how long before a restart something must have been for the old process to
// have dealt with it.
const settled = 4 * time.Second

// takeovers checks that a restart with another secret of the same client costs no login:
// the new process does not begin at the first step, unless the token of that has come
// to harm.
func (v *Verdict) takeovers() {
	for i, p := range v.run.Processes {
		if !p.Rotated {
			continue
		}
		n := slices.IndexFunc(v.run.AuthCalls, func(c *AuthCall) bool { return c.Process == i && c.Step == v.run.Steps[0] })
		if n < 0 {
			continue
		}
		c := v.run.AuthCalls[n]
		if why := v.harm(p, c); !why {
			v.report(RuleTakeover, 0, "process %d, which began at %v, logged in at %v", i, p.Began, c.Sent)
		}
	}
}

// harm reports whether a process, before a call, may have lost what the one before it
// had: by revocations, an API that refuses everything, a logout, or a storage that
// failed.
func (v *Verdict) harm(p *Process, c *AuthCall) bool {
	var last *AuthCall // the login that the process takes over
	for _, g := range v.run.AuthCalls {
		if g.Step == c.Step && g.Outcome == Granted && g.Heard && g.Left < c.Sent && v.identity(g.Process) == p.Identity {
			last = g
		}
	}
	if last == nil {
		return true
	}
	recent := max(last.Sent-v.run.Slack, p.Began-settled)
	forgotten := slices.ContainsFunc(v.run.Logouts, func(l Logout) bool {
		return l.Identity == p.Identity && l.From >= last.Sent && l.From <= c.Sent
	})
	if forgotten || v.gone(last) || v.revocations(recent, c.Sent) > 0 || v.troubled(p.Began, c.Sent) {
		return true
	}
	return slices.ContainsFunc(v.run.Refusals, func(w Window) bool { return w.To >= recent && w.From <= c.Sent }) ||
		slices.ContainsFunc(v.run.SpoiltSaves, func(at time.Duration) bool { return at >= last.Ended && at <= c.Sent })
}

// hears returns when a process must have heard of a logout at the latest. It looks at
// the storage each half minute, before it asks for a token, and when it begins.
func (v *Verdict) hears(process int, l Logout) time.Duration {
	end := l.To + v.run.Slack
	switch {
	case l.Process == process:
		return end
	case !l.Told:
		return l.To + heard
	case v.beganAfter(process, l):
		return end
	}
	leaf := v.run.Steps[len(v.run.Steps)-1]
	for _, c := range v.run.AuthCalls {
		if c.Process == process && c.Step == leaf && c.Sent > end && !v.troubled(c.Sent, c.Sent) {
			return min(c.Sent+v.run.Slack, l.To+heard)
		}
	}
	return l.To + heard
}

// beganAfter reports whether a process began after a logout and found the storage well,
// which says that everything is gone, when it first asked for a token.
func (v *Verdict) beganAfter(process int, l Logout) bool {
	began := v.process(process).Began
	if began <= l.To {
		return false
	}
	asked := began
	if n := slices.IndexFunc(v.run.AuthCalls, func(c *AuthCall) bool { return c.Process == process }); n >= 0 {
		asked = max(began, v.run.AuthCalls[n].Sent)
	}
	return !v.troubled(began, asked)
}

// loggedOut reports whether a fetch of a process between from and to may have come to
// nothing by a logout: by one of the same identity, until the process must have heard of
// it.
func (v *Verdict) loggedOut(process int, from, to time.Duration) bool {
	return slices.ContainsFunc(v.run.Logouts, func(l Logout) bool {
		return v.process(process) != nil && l.Identity == v.identity(process) &&
			l.From-v.run.Slack <= to && from <= v.hears(process, l)
	})
}
