// A request's ledger in lines, for whoever has to find out what went wrong.

package oracle

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// History returns all that is known of a request, in the order of time.
func (v *Verdict) History(id int) []string {
	type line struct {
		at   time.Duration
		text string
	}
	var lines []line
	add := func(at time.Duration, format string, args ...any) {
		lines = append(lines, line{at, fmt.Sprintf(format, args...)})
	}
	if r := v.byID[id]; r != nil {
		add(r.Began, "call    by process %d, %s %s, body %s, context until %v", r.Process, r.Method, r.URL, r.Body, r.Due.Round(time.Millisecond))
		if r.Ended != 0 {
			add(r.Ended, "result  %d %s %s", r.Status, r.Failure, r.Err)
		}
	}
	for _, n := range v.notes[id] {
		add(n.At, "note    %s", n.Kind)
	}
	for n := 1; v.hops[key{id, n}] != nil; n++ {
		h := v.hops[key{id, n}]
		add(h.Began, "hop %d   begins", n)
		if h.Ended != 0 {
			add(h.Ended, "hop %d   ends with %d", n, h.Status)
		}
		for _, s := range h.sends {
			add(s.Began, "send    %d.%d to %s%s with %q", n, s.N, s.Origin, s.Path, s.Token)
			if s.Ended != 0 {
				add(s.Ended, "answer  %d.%d is %d", n, s.N, s.Status)
			}
			for _, seen := range h.visits[s.N] {
				add(seen.At, "server  %d.%d at %s: tokens %q, live %v: %s", n, s.N, seen.Origin, seen.Tokens, seen.Live, seen.outcome())
			}
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.at - b.at) })
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = fmt.Sprintf("%12v %s", l.at.Round(time.Microsecond), strings.TrimSpace(l.text))
	}
	return out
}

// outcome says what a server made of a request.
func (s *Visit) outcome() string {
	text := fmt.Sprintf("status %d", s.Status)
	if s.Status == 0 {
		text = "no answer"
	}
	if s.Refusing {
		text += " (refusing everything)"
	}
	if s.Ran {
		text += ", work done"
	}
	if s.Reset {
		text += ", connection reset"
	}
	return text
}
