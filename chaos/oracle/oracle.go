// The invariants. Each is a method that reads the ledgers and reports what
// should not be there. history.go prints a request's ledger.

package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The rules that a run can break.
const (
	RuleUnauthorized = "a 401 that a live token would have avoided"
	RuleUnserved     = "an error for want of a token that could be had"
	RuleUnexplained  = "an error that no fault explains"
	RuleStale        = "a token that was known to be dead was sent"
	RulePlace        = "a token at a wrong place"
	RuleBudget       = "more sends than the budget"
	RuleDuplicate    = "a non-idempotent request delivered again"
	RuleFetches      = "more fetches than the revocations explain"
	RuleTokens       = "more new tokens than the revocations explain"
	RuleStuck        = "a caller stuck"
	RuleBodies       = "a body not closed once"
	RuleIntegrity    = "a body or an answer that is not the request's own"
	RuleFamilies     = "a refresh token spent twice"
	RuleLogout       = "a token from before a logout sent after it"
	RuleIdentity     = "a token of another identity"
	RuleRefresh      = "a refresh token sent again, or after a newer one"
	RuleTakeover     = "a login for a secret that was rotated"
	RuleRetries      = "more retries than the budget of all requests"
	RuleHeld         = "a connection held while its request waits"
	RuleNumber       = "a send that says another number"
	RuleGoroutines   = "goroutines left"
	RuleLedger       = "ledgers that contradict each other"
)

// Reasons why a 401 that reached a caller is counted apart.
const (
	ApartRefusing = "the API refused every token"
	ApartBucket   = "the pipeline's bucket was empty"
	ApartAuth     = "the auth server could not serve"
	ApartLogout   = "everything was forgotten meanwhile"
	ApartOneShot  = "the body could not be sent again"
	ApartReading  = "the body was still being read"
	ApartAgain    = "revoked again before each replay arrived"
	ApartGone     = "its caller had given up, or no time left"
	ApartYoung    = "its caller had no time to wait for a young token"
)

// Violation is one breach of a rule.
type Violation struct {
	Rule string
	ID   int // of the request; 0: none
	Also int // another request that explains it; 0: none
	Text string
}

// Verdict is what Judge finds.
type Verdict struct {
	Violations []Violation
	Apart      map[string]int // 401s that reached callers, by their reason
	Statuses   map[int]int    // what callers got; 0: an error
	Failures   map[Failure]int

	Fetches                 int           // that were granted or refused
	Spoilt                  int           // fetches that a fault spoilt
	Tokens                  int           // of the last step that were granted
	Allowance               string        // how the following two come about
	MostFetches, MostTokens int           // the bounds
	Sends                   int           // by the stack
	Resends                 int           // by net/http itself, of requests that are safe to repeat
	Retries                 int           // sends after a failure
	Waits, Held             int           // waits of at least LongWait between two sends, and those during which a connection was held
	Slowest                 time.Duration // the longest call
	Overtime                time.Duration // the longest that a caller took beyond its context
	Duplicate               int           // deliveries after a 401, 429 or 503 with Retry-After that repeated no work

	run    *Run
	hops   map[key]*hop
	byID   map[int]*Request
	notes  map[int][]Note
	grant  map[string]*AuthCall   // by the label of what was granted
	shown  map[string][]*AuthCall // by refresh token: the calls that brought it
	charge []charge
	newer  map[int][]*Send // by process: the first send of each token that is newer than those before
}

type key struct{ id, hop int }

// hop is all that is known of one Hop.
type hop struct {
	*Hop
	req    *Request
	sends  []*Send
	visits map[int][]*Visit // by Send.N
}

// Judge reads the ledgers of a run that is over.
func Judge(run *Run) *Verdict {
	v := &Verdict{
		Apart:    make(map[string]int),
		Statuses: make(map[int]int),
		Failures: make(map[Failure]int),
		run:      run,
		hops:     make(map[key]*hop),
		byID:     make(map[int]*Request),
		notes:    make(map[int][]Note),
		newer:    make(map[int][]*Send),
	}
	v.index()
	v.callers()
	for _, h := range v.inOrder() {
		v.answer(h)
		v.budget(h)
		v.duplicates(h)
		v.integrity(h)
		v.numbers(h)
	}
	v.places()
	v.stale()
	v.fetches()
	v.processes()
	v.logouts()
	v.identities()
	v.refreshes()
	v.takeovers()
	v.retries()
	v.connections()
	v.bodies()
	v.leftovers()
	return v
}

func (v *Verdict) report(rule string, id int, format string, args ...any) {
	v.Violations = append(v.Violations, Violation{Rule: rule, ID: id, Text: fmt.Sprintf(format, args...)})
}

// index sorts the ledgers by request and hop.
func (v *Verdict) index() {
	for _, r := range v.run.Requests {
		v.byID[r.ID] = r
	}
	for _, h := range v.run.Hops {
		v.hops[key{h.ID, h.Hop}] = &hop{Hop: h, req: v.byID[h.ID], visits: make(map[int][]*Visit)}
	}
	for _, s := range v.run.Sends {
		if h := v.hops[key{s.ID, s.Hop}]; h != nil && h.req != nil && h.req.Process == s.Process {
			h.sends = append(h.sends, s)
		} else {
			v.report(RuleLedger, s.ID, "send %d of hop %d belongs to no call of its process", s.N, s.Hop)
		}
	}
	for _, h := range v.hops {
		slices.SortFunc(h.sends, func(a, b *Send) int { return a.N - b.N })
	}
	for _, s := range v.run.Visits {
		h := v.hops[key{s.ID, s.Hop}]
		if h == nil || s.N < 1 || s.N > len(h.sends) {
			v.report(RuleLedger, s.ID, "%s has seen send %d of hop %d, which nobody sent", s.Origin, s.N, s.Hop)
			continue
		}
		h.visits[s.N] = append(h.visits[s.N], s)
	}
	for _, n := range v.run.Notes {
		v.notes[n.ID] = append(v.notes[n.ID], n)
	}
	for _, s := range slices.SortedFunc(slices.Values(v.run.Sends), func(a, b *Send) int { return cmp.Compare(a.Began, b.Began) }) {
		of := v.newer[s.Process]
		if n := len(of); s.Token != "" && (n == 0 || ordinal(s.Token) > ordinal(of[n-1].Token)) {
			v.newer[s.Process] = append(of, s)
		}
	}
	v.Sends = len(v.run.Sends)
	v.charges()
	v.grants()
}

func (v *Verdict) inOrder() []*hop {
	all := make([]*hop, 0, len(v.hops))
	for _, h := range v.hops {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *hop) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Hop.Hop, b.Hop.Hop))
	})
	return all
}

// visit returns what the server has seen of a send; nil: nothing.
func (h *hop) visit(n int) *Visit {
	if seen := h.visits[n]; len(seen) > 0 {
		return seen[len(seen)-1]
	}
	return nil
}

// callers checks that everyone came back in time, and with a reason.
func (v *Verdict) callers() {
	for _, r := range v.run.Requests {
		if r.Ended == 0 {
			v.report(RuleStuck, r.ID, "it never came back; its context ended at %v", r.Due)
			continue
		}
		v.Slowest = max(v.Slowest, r.Ended-r.Began)
		v.Overtime = max(v.Overtime, r.Ended-r.Due)
		if over := r.Ended - r.Due; over > v.run.Grace {
			v.report(RuleStuck, r.ID, "it came back %v after its context had ended", over)
		}
		v.Statuses[r.Status]++
		if r.Failure != NoFailure {
			v.Failures[r.Failure]++
		}
		switch r.Failure {
		case NoToken:
			forgotten := strings.Contains(r.Err, "everything was forgotten") && v.loggedOut(r.Process, r.Began, r.Ended)
			if !forgotten && !v.authTrouble(r.Process, r.Began, r.Ended) {
				v.report(RuleUnserved, r.ID, "%s", r.Err)
			}
		case EndedContext:
			if r.Ended+v.run.Slack < r.Due && !v.inherited(r) {
				v.report(RuleUnexplained, r.ID, "%v before its context ended: %s", r.Due-r.Ended, r.Err)
			}
		case BrokenNetwork, BrokenBody:
			if !v.wasReset(r) && r.Ended+v.run.Slack < r.Due {
				v.report(RuleUnexplained, r.ID, "%s", r.Err)
			}
		case WrongBody:
			v.report(RuleIntegrity, r.ID, "%s", r.Err)
		}
	}
}

// inherited reports whether net/http may have given r a connection on which it was just
// ending another caller's request: then both end with the other's context. The stack
// has no part in that, and hands the error on.
func (v *Verdict) inherited(r *Request) bool {
	for n := 1; ; n++ {
		h := v.hops[key{r.ID, n}]
		if h == nil {
			return false
		}
		for _, s := range h.sends {
			if s.Status != 0 || s.Ended == 0 || len(h.visits[s.N]) > 0 {
				continue
			}
			if slices.ContainsFunc(v.run.Sends, func(o *Send) bool {
				caller := v.byID[o.ID]
				return o.ID != s.ID && o.Process == s.Process && o.Origin == s.Origin && o.Status == 0 && o.Ended != 0 &&
					o.Ended <= s.Ended && o.Ended+v.run.Slack >= s.Began && caller != nil && caller.Failure == EndedContext && caller.Ended+v.run.Slack >= caller.Due
			}) {
				return true
			}
		}
	}
}

// wasReset reports whether a server has reset a connection of r, or never got
// to see one of its sends.
func (v *Verdict) wasReset(r *Request) bool {
	for n := 1; ; n++ {
		h := v.hops[key{r.ID, n}]
		if h == nil {
			return false
		}
		for _, s := range h.sends {
			if seen := h.visit(s.N); seen == nil || seen.Reset {
				return true
			}
		}
	}
}

// answer checks that a hop ended with its last send's answer, and that this
// is no refusal which could have been avoided.
func (v *Verdict) answer(h *hop) {
	if h.Status == 0 || len(h.sends) == 0 {
		return
	}
	last := h.sends[len(h.sends)-1]
	if last.Status != h.Status {
		v.report(RuleLedger, h.ID, "hop %d ended with %d, its last send with %d", h.Hop.Hop, h.Status, last.Status)
	}
	if h.Status != 401 {
		return
	}
	reason, why := v.excuse(h, last)
	if reason == "" {
		v.report(RuleUnauthorized, h.ID, "%s", why)
		return
	}
	v.Apart[reason]++
}

// excuse returns the reason why a refusal had to reach its caller, or "" and
// why it hadn't.
func (v *Verdict) excuse(h *hop, last *Send) (reason, why string) {
	seen := h.visit(last.N)
	switch {
	case seen == nil:
		return "", "no server has seen the send that it ended with"
	case last.Token == "":
		return "", "it went without a token"
	case seen.Refusing:
		return ApartRefusing, ""
	case seen.Live:
		return "", "a live token was refused"
	}
	for _, n := range v.notes[h.ID] {
		if n.Kind == Spared && n.At >= last.Began && n.At <= h.Ended {
			if due := v.outstanding(h.req.Process, n.At); due < v.run.BucketSize {
				return "", fmt.Sprintf("the pipeline said that its bucket is empty, but only %d of its %d drops were in use", due, v.run.BucketSize)
			}
			if newer := v.newest(h.req.Process, last.Ended); ordinal(newer) > ordinal(last.Token) {
				return "", fmt.Sprintf("%s was spared, although the pipeline had %s already", last.Token, newer)
			}
			return ApartBucket, ""
		}
	}
	if v.loggedOut(h.req.Process, h.sends[0].Began, h.Ended) {
		return ApartLogout, ""
	}
	var refused []string
	for _, s := range h.sends {
		if s.Status == 401 {
			refused = append(refused, s.Token)
		}
	}
	if len(refused)-h.waits() > v.run.AuthReplays {
		if slices.Sort(refused); len(slices.Compact(refused)) <= v.run.AuthReplays {
			return "", "a token was replayed that the same request had seen refused"
		}
		return ApartAgain, ""
	}
	switch {
	case h.req.Body == LargeBody:
		return ApartOneShot, ""
	case h.req.LastRead >= last.Ended && h.req.Body == KeptBody:
		return ApartReading, ""
	case h.req.Due <= h.Ended+v.run.Slack: // what is left is too short for another wait
		return ApartGone, ""
	case v.tooYoung(h, last):
		return ApartYoung, ""
	case v.authTrouble(h.req.Process, last.Ended, h.Ended):
		return ApartAuth, ""
	}
	return "", fmt.Sprintf("%s was dead, the auth server well, and the request could have been sent again", last.Token)
}

// ordinal is the number in a token's label: the auth server counts.
func ordinal(label string) int {
	n, _ := strconv.Atoi(label[strings.LastIndexByte(label, '-')+1:])
	return n
}

// charge is a drop that an invalidation has taken from the bucket.
type charge struct {
	process int
	at      time.Duration
	repaid  time.Duration // when a replay was accepted; 0: never
}

// charges pairs the invalidations of each request with the replay that proved
// them right, if there was one.
func (v *Verdict) charges() {
	for id, notes := range v.notes {
		if id == 0 {
			continue
		}
		var sends []*Send
		for n := 1; v.hops[key{id, n}] != nil; n++ {
			sends = append(sends, v.hops[key{id, n}].sends...)
		}
		for _, note := range notes {
			if note.Kind != Invalidated {
				continue
			}
			c := charge{process: v.byID[id].Process, at: note.At}
			for _, s := range sends {
				if s.Began < note.At || s.Status == 401 {
					continue
				}
				if s.Status > 0 && s.Status < 400 {
					c.repaid = s.Ended
				}
				break
			}
			v.charge = append(v.charge, c)
		}
	}
}

// outstanding returns how many drops may have been missing from a process's bucket.
func (v *Verdict) outstanding(process int, at time.Duration) int {
	oldest := at - time.Duration(v.run.BucketSize)*v.run.BucketEvery - v.run.Slack
	n := 0
	for _, c := range v.charge {
		if c.process == process && c.at >= oldest && c.at <= at+v.run.Slack && (c.repaid == 0 || c.repaid >= at-v.run.Slack) {
			n++
		}
	}
	return n
}

// youngTries is how often a token that is seconds old is sent again after its
// refusal, beside the replays: the server may not know the token yet.
const youngTries = 4

// waits counts the sends of a token right after its own refusal, as far as
// youngTries allows them.
func (h *hop) waits() int {
	n, tries := 0, map[string]int{}
	for i, s := range h.sends[1:] {
		before := h.sends[i]
		if before.Status == 401 && before.Token == s.Token && tries[s.Token] < youngTries {
			tries[s.Token]++
			n++
		}
	}
	return n
}

// budget checks how often a hop was sent.
func (v *Verdict) budget(h *hop) {
	budget := v.run.RetryMax + 1 + v.run.AuthReplays
	if len(h.sends) > budget {
		budget += h.waits()
	}
	if len(h.sends) > budget {
		v.report(RuleBudget, h.ID, "hop %d was sent %d times; the budget is %d", h.Hop.Hop, len(h.sends), budget)
	}
	for n, seen := range h.visits {
		if len(seen) == 1 {
			continue
		}
		if !h.idempotent(seen[0].Method) {
			v.report(RuleDuplicate, h.ID, "send %d of hop %d, a %s, arrived %d times", n, h.Hop.Hop, seen[0].Method, len(seen))
		}
		v.Resends += len(seen) - 1
	}
}

func (h *hop) idempotent(method string) bool { return method != "POST" || h.req.Keyed }

// duplicates checks that a request which must not be done twice was sent again
// only where the server had said that it did nothing.
func (v *Verdict) duplicates(h *hop) {
	ran := 0
	for _, s := range h.sends {
		seen := h.visit(s.N)
		if seen == nil || h.idempotent(seen.Method) {
			continue
		}
		if seen.Ran {
			ran++
		}
		if s.N == len(h.sends) {
			continue
		}
		if seen.Status == 401 || seen.Again {
			v.Duplicate++
			continue
		}
		v.report(RuleDuplicate, h.ID, "hop %d, a %s, was sent again after %s", h.Hop.Hop, seen.Method, seen.outcome())
	}
	if ran > 1 {
		v.report(RuleDuplicate, h.ID, "hop %d was done %d times", h.Hop.Hop, ran)
	}
}

// integrity checks that what a server has worked with is what the caller sent.
func (v *Verdict) integrity(h *hop) {
	for _, all := range h.visits {
		for _, seen := range all {
			if seen.Ran && seen.Method == h.req.Method && seen.BodyHash != h.req.BodyHash {
				v.report(RuleIntegrity, h.ID, "%s has worked with another body", seen.Origin)
			}
		}
	}
}

// places checks where tokens have come to, by a statement of the rule of its
// own: the leaf's token, at one of the origins, below /api/.
func (v *Verdict) places() {
	leaf := v.run.Steps[len(v.run.Steps)-1] + "-"
	for _, seen := range v.run.Visits {
		allowed := slices.Contains(v.run.Origins, seen.Origin) && strings.HasPrefix(seen.Path, "/api/")
		for _, label := range seen.Tokens {
			if !allowed || !strings.HasPrefix(label, leaf) || strings.Contains(label, "refresh") {
				v.report(RulePlace, seen.ID, "%s came to %s%s", label, seen.Origin, seen.Path)
			}
		}
		if len(seen.Tokens) > 1 {
			v.report(RulePlace, seen.ID, "%d tokens came at once to %s%s", len(seen.Tokens), seen.Origin, seen.Path)
		}
	}
}

// bodies checks that every body was closed: a request's exactly once where the
// stack stands between it and net/http, which itself may close one twice when a
// connection breaks.
func (v *Verdict) bodies() {
	for _, r := range v.run.Requests {
		for i, n := range r.Closes {
			if n == 0 || n > 1 && r.Body != GetBody {
				v.report(RuleBodies, r.ID, "request body %d was closed %d times", i+1, n)
			}
		}
	}
	for _, s := range v.run.Sends {
		if s.Opened && s.Closes == 0 {
			v.report(RuleBodies, s.ID, "the response of send %d of hop %d was never closed", s.N, s.Hop)
		}
	}
}

// leftovers checks the counters of the whole run.
func (v *Verdict) leftovers() {
	if v.run.Leaked != "" {
		v.report(RuleGoroutines, 0, "%s", v.run.Leaked)
	}
}
