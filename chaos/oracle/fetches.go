// What the auth server may have been asked for, and how often.

package oracle

import (
	"fmt"
	"slices"
	"time"
)

// allowance is what explains fetches.
type allowance struct {
	steps      int // of the login
	down       int // steps below revocations
	revs       int // revocations
	logins     int // from scratch
	ends       int // tokens that end by themselves
	refusedAll int // invalidations that an API can cause which refuses everything
	spoilt     int // fetches
	saves      int // that the storage failed
}

func (a allowance) fetches() int {
	return 3*a.down + 3*a.steps*a.logins + 3*a.ends + a.steps*a.refusedAll + a.spoilt + a.saves
}

func (a allowance) tokens() int {
	return a.revs + a.logins + a.ends + a.refusedAll + a.spoilt + a.saves
}

func (a allowance) String() string {
	return fmt.Sprintf("3 x %d steps below %d revocations, 3 x %d of %d logins, 3 x %d tokens that end by themselves, "+
		"%d x %d invalidations while an API refuses everything, %d spoilt fetches, %d spoilt saves",
		a.down, a.revs, a.steps, a.logins, a.ends, a.steps, a.refusedAll, a.spoilt, a.saves)
}

// asked is what the auth server was asked for.
type asked struct{ fetches, tokens, spoilt int }

// asked counts the calls that are counted.
func (v *Verdict) asked(counts func(c *AuthCall) bool) (n asked) {
	leaf := v.run.Steps[len(v.run.Steps)-1]
	for _, c := range v.run.AuthCalls {
		switch {
		case !counts(c):
			continue
		case c.Outcome == Spoilt:
			n.spoilt++
			continue
		case c.Outcome == Granted && c.Step == leaf:
			n.tokens++
		}
		n.fetches++
	}
	return n
}

// explained returns what explains fetches in a span of time, but for the logins.
func (v *Verdict) explained(in Window) allowance {
	a := allowance{steps: len(v.run.Steps)}
	for _, rev := range v.run.Revocations {
		if rev.At >= in.From && rev.At <= in.To {
			a.revs++
			a.down += len(v.run.Steps) - slices.Index(v.run.Steps, rev.Step)
		}
	}
	for _, w := range v.run.Refusals {
		if w.From <= in.To && w.To >= in.From {
			a.refusedAll += v.run.BucketSize + 1 + int((w.To-w.From)/v.run.BucketEvery)
		}
	}
	for _, every := range v.run.RenewEvery {
		a.ends += int((in.To - in.From) / every)
	}
	for _, at := range v.run.SpoiltSaves {
		if at >= in.From && at <= in.To {
			a.saves++
		}
	}
	return a
}

// fetches checks what the revocations have cost the auth server: in all no
// more than three times the steps below them, and no more than one new token
// of the last step for each. A refusal that comes late, for a token that was
// replaced long since, is no reason for either. The same holds for each process.
func (v *Verdict) fetches() {
	all := v.asked(func(*AuthCall) bool { return true })
	a := v.explained(Window{0, v.run.Took})
	a.logins, a.spoilt = len(v.run.Logouts)+len(v.run.Processes), all.spoilt
	v.Fetches, v.Tokens, v.Spoilt = all.fetches, all.tokens, all.spoilt
	v.MostFetches, v.MostTokens, v.Allowance = a.fetches(), a.tokens(), a.String()
	v.within("", all, a)
	for i, p := range v.run.Processes {
		n := v.asked(func(c *AuthCall) bool { return c.Process == i })
		in := Window{p.Began - v.run.Slack, max(p.Began, v.lastOf(i))}
		a := v.explained(in)
		a.logins, a.spoilt = 1, n.spoilt
		for _, l := range v.run.Logouts {
			if l.Identity == p.Identity && l.From <= in.To && l.To+heard >= in.From {
				a.logins++
			}
		}
		v.within(fmt.Sprintf(" by process %d", i), n, a)
	}
}

func (v *Verdict) within(whose string, n asked, a allowance) {
	leaf := v.run.Steps[len(v.run.Steps)-1]
	if n.fetches > a.fetches() {
		v.report(RuleFetches, 0, "%d%s; allowed are %d: %s", n.fetches, whose, a.fetches(), a)
	}
	if n.tokens > a.tokens() {
		v.report(RuleTokens, 0, "%d of step %s%s; allowed are %d: one for each of these, not three: %s", n.tokens, leaf, whose, a.tokens(), a)
	}
}

// lastOf returns when a process was last seen at work.
func (v *Verdict) lastOf(process int) time.Duration {
	last := time.Duration(0)
	for _, r := range v.run.Requests {
		if r.Process == process {
			last = max(last, r.Ended)
		}
	}
	for _, c := range v.run.AuthCalls {
		if c.Process == process {
			last = max(last, c.Ended)
		}
	}
	return last
}
