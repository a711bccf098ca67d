// What requestforge wants to reach, and whether it does. A goal is met if the
// whole 95 % interval of what was measured is within its bounds.

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/perf/benchmath"
)

// A goal is about one candidate of one case, in a unit of its samples.
type goal struct {
	what       string // in words
	name, impl string
	unit       string

	// of is what is bounded.
	of   quantity
	peer string // whom it is compared with; "" for value

	least, most float64
	stretch     bool // to be approached; missing it is no failure
	headline    bool // it is in docs/numbers.md
	front       bool // and in the README of the repository
}

type quantity int

const (
	value  quantity = iota
	ratio           // to the peer's, of the same round
	excess          // over the peer's, of the same round
)

const (
	seconds     = "sec/op" // what benchfmt makes of ns/op
	cpuSeconds  = "cpu-sec/op"
	allocations = "allocs/op"
	bytesUsed   = "B/op"
)

const (
	liveOff      = "LiveToken/logging=off/wire=inprocess/callers="
	liveJSON     = "LiveToken/logging=json/wire=inprocess/callers="
	liveLoopback = "LiveToken/logging=off/wire=loopback/callers="
)

var goals = []goal{
	{what: "whole stack, logging off: time, to x/oauth2 alone", name: liveOff + "serial", impl: stack, peer: xoauth2,
		unit: seconds, of: ratio, most: 0.65, headline: true, front: true},
	{what: "the same, callers on all cores", name: liveOff + "parallel", impl: stack, peer: xoauth2,
		unit: seconds, of: ratio, most: 0.65},
	{what: "whole stack, logging off: time, to slog + go-retryablehttp + x/oauth2", name: liveOff + "serial", impl: stack, peer: assembled,
		unit: seconds, of: ratio, most: 0.35, headline: true, front: true},
	{what: "the same, callers on all cores", name: liveOff + "parallel", impl: stack, peer: assembled,
		unit: seconds, of: ratio, most: 0.35},
	{what: "whole stack, logging off: allocations over the bare transport", name: liveOff + "serial", impl: stack, peer: bare,
		unit: allocations, of: excess, most: 3, headline: true, front: true},
	{what: "auth layer alone: time, to x/oauth2", name: liveOff + "serial", impl: authLayer, peer: xoauth2,
		unit: seconds, of: ratio, most: 0.50, stretch: true},
	{what: "whole stack, a JSON record a request: time, to slog + go-retryablehttp + x/oauth2 with one", name: liveJSON + "serial", impl: stack, peer: assembled,
		unit: seconds, of: ratio, most: 0.60, stretch: true, headline: true},
	{what: "the same, callers on all cores", name: liveJSON + "parallel", impl: stack, peer: assembled,
		unit: seconds, of: ratio, most: 0.60, stretch: true},
	{what: "whole stack over loopback: time, to the bare transport", name: liveLoopback + "serial", impl: stack, peer: bare,
		unit: seconds, of: ratio, least: 0.95, most: 1.05, headline: true, front: true},
	{what: "the same, callers on all cores", name: liveLoopback + "parallel", impl: stack, peer: bare,
		unit: seconds, of: ratio, least: 0.95, most: 1.05},
	{what: "1,000 callers, no token: fetches", name: "ColdHerd/steps=1", impl: stack,
		unit: "fetches", most: 1, headline: true, front: true},
	{what: "the same, a login of three steps", name: "ColdHerd/steps=3", impl: stack,
		unit: "fetches", most: 3},
	{what: "3 × 1,000 callers, failing auth server: fetches", name: "FailingAuthServer/waves=3", impl: authLayer,
		unit: "fetches", most: 3, headline: true},
	{what: "200 late refusals of one token: fetches", name: "LateRefusals", impl: stack,
		unit: "refetches", most: 1, headline: true, front: true},
	{what: "the same: callers with a good answer", name: "LateRefusals", impl: stack,
		unit: "ok-answers", least: 200, most: 200},
	{what: "a deadline of 50 ms, auth server slower: time", name: "Deadline/server=500ms", impl: stack,
		unit: seconds, most: 0.060, headline: true},
	{what: "64 MiB body with GetBody: bytes allocated over the bare transport", name: "LargeBody/getbody=yes", impl: stack, peer: bare,
		unit: bytesUsed, of: excess, least: math.Inf(-1), most: 64 << 10},
	{what: "64 MiB body without GetBody: bytes allocated over the bare transport", name: "LargeBody/getbody=no", impl: stack, peer: bare,
		unit: bytesUsed, of: excess, least: math.Inf(-1), most: 256 << 10, headline: true},
	{what: "cold login, three steps in a row: time, at most 1.1 × the critical path", name: "ColdLogin/shape=chain", impl: stack,
		unit: seconds, most: 1.1 * criticalPath.Seconds()},
	{what: "cold login, a diamond of four steps: time, at most 1.1 × the critical path", name: "ColdLogin/shape=diamond", impl: stack,
		unit: seconds, most: 1.1 * criticalPath.Seconds(), headline: true},
	{what: "50 cold processes with one Redis, a login of three steps: fetches", name: "ColdProcesses", impl: shared,
		unit: "fetches", most: 3, headline: true},
	{what: "1,000 users at once, no token, a shared step and one of each: fetches", name: "CrowdHerd", impl: subjects,
		unit: "fetches", most: 1001},
	{what: "a user with a token of 300 bytes: bytes held", name: "CrowdMemory", impl: subjects,
		unit: "user-bytes", most: 1500},
}

func init() {
	for _, name := range []string{"CrowdToken", "CrowdRequest"} {
		for _, of := range []struct {
			users     int
			who, text string
		}{{1, "all", "one user"}, {1000, "all", "1,000 users"}, {manyUsers, "few", "100 among 100,000 users"}, {manyUsers, "all", "100,000 users"}} {
			for cores := 1; cores <= 2; cores++ {
				what := "a live token"
				if name == "CrowdRequest" {
					what = "a request"
				}
				goals = append(goals, goal{what: fmt.Sprintf("%s of %s, GOMAXPROCS %d: time over that of one identity", what, of.text, cores),
					name: crowdName(name, of.users, of.who, cores), impl: subjects, peer: oneIdentity,
					unit: seconds, of: excess, least: math.Inf(-1), most: 100e-9})
			}
		}
	}
}

// judge returns what the samples say about g. It is false if there are none.
func (g goal) judge(all []sampleFile) (s benchmath.Summary, ok bool) {
	c := findCase(all, g.name)
	if c == nil {
		return s, false
	}
	own, peer := c.values(g.impl, g.unit), c.values(g.peer, g.unit)
	switch {
	case len(own) == 0 || g.of != value && len(peer) == 0:
		return s, false
	case g.of == ratio:
		return c.ratio(g.impl, g.peer, g.unit), true
	case g.of == excess:
		return summarize(pairs(own, peer, func(a, b float64) float64 { return a - b })), true
	}
	return summarize(own), true
}

// ratio is that of two candidates' values, each of the same round.
func (c *sampledCase) ratio(impl, peer, unit string) benchmath.Summary {
	return summarize(pairs(c.values(impl, unit), c.values(peer, unit), func(a, b float64) float64 { return a / b }))
}

// pairs applies f to what two candidates did in the same round.
func pairs(a, b []float64, f func(a, b float64) float64) []float64 {
	n := min(len(a), len(b))
	made := make([]float64, n)
	for i := range made {
		made[i] = f(a[i], b[i])
	}
	return made
}

// summarize returns the median and its 95 % interval. Nothing is assumed of
// the distribution.
func summarize(values []float64) benchmath.Summary {
	values = slices.Clone(values) // NewSample sorts them, and their order is that of the rounds
	return benchmath.AssumeNothing.Summary(benchmath.NewSample(values, &benchmath.DefaultThresholds), 0.95)
}

// met reports whether the interval is within the bounds. With less than six
// rounds there is no interval, and no goal is met.
func (g goal) met(s benchmath.Summary) bool {
	return s.Lo >= g.least && s.Hi <= g.most && !math.IsInf(s.Hi, 0) && !math.IsInf(s.Lo, 0)
}

func (g goal) verdict(s benchmath.Summary) string {
	switch {
	case g.met(s):
		return "met"
	case g.stretch:
		return "not met (stretch)"
	}
	return "not met"
}

// bounds is the goal as text.
func (g goal) bounds() string {
	most := g.format(g.most)
	switch {
	case g.least == g.most:
		return most
	case g.least > 0:
		return g.format(g.least) + " to " + most
	}
	return "≤ " + most
}

// format formats a value of what g bounds.
func (g goal) format(v float64) string {
	if g.of == ratio {
		return formatRatio(v)
	}
	return formatValue(v, g.unit)
}

func formatRatio(v float64) string { return fmt.Sprintf("%.2f", v) }

// missed are the goals that should have been met and aren't.
func missed(all []sampleFile) []string {
	var list []string
	for _, g := range goals {
		if s, ok := g.judge(all); ok && !g.stretch && !g.met(s) {
			list = append(list, g.what)
		}
	}
	return list
}

// verdicts is a table of the goals.
func verdicts(all []sampleFile) string {
	var b strings.Builder
	b.WriteString("| goal | | measured | 95 % interval | |\n|---|---|---|---|---|\n")
	for _, g := range goals {
		if s, ok := g.judge(all); ok {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", g.what, g.bounds(), g.format(s.Center), g.interval(s), g.verdict(s))
		}
	}
	return b.String()
}

func (g goal) interval(s benchmath.Summary) string {
	return interval(s, g.format)
}

func interval(s benchmath.Summary, format func(float64) string) string {
	lo, hi := format(s.Lo), format(s.Hi)
	switch {
	case math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0):
		return "too few rounds"
	case lo == hi:
		return lo
	}
	return lo + " to " + hi
}

// formatValue formats a value with its unit, with three digits.
func formatValue(v float64, unit string) string {
	switch unit {
	case seconds, cpuSeconds:
		return formatTime(v)
	case bytesUsed:
		sign := ""
		if v < 0 {
			sign, v = "−", -v
		}
		switch {
		case v >= 1<<20:
			return fmt.Sprintf("%s%s MiB", sign, digits(v/(1<<20)))
		case v >= 10<<10:
			return fmt.Sprintf("%s%s KiB", sign, digits(v/(1<<10)))
		}
		return fmt.Sprintf("%s%.0f B", sign, v)
	}
	return fmt.Sprintf("%g", v)
}

func formatTime(v float64) string {
	if v < 0 {
		return "−" + formatTime(-v)
	}
	switch d := time.Duration(v * float64(time.Second)); {
	case d >= time.Second:
		return digits(v) + " s"
	case d >= time.Millisecond:
		return digits(v*1e3) + " ms"
	case d >= time.Microsecond:
		return digits(v*1e6) + " µs"
	}
	return digits(v*1e9) + " ns"
}

// digits formats a positive number with three significant digits, or all that
// are before the point.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
