// From the samples to RESULTS.md. Nothing here measures anything or looks at
// a clock, so that the same samples make the same page.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// render writes RESULTS.md and the charts.
func render(all []sampleFile, dir string) error {
	if err := drawCharts(all, filepath.Join(dir, "charts")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "RESULTS.md"), []byte(results(all)), 0o644)
}

// labels are what the pages call the candidates.
var labels = map[string]string{
	bare:          "bare transport",
	copied:        "(a copy of the request)",
	recorded:      "(a log record)",
	xoauth2:       "x/oauth2",
	retryable:     "go-retryablehttp",
	assembled:     "slog + go-retryablehttp + x/oauth2",
	cloud:         "cloud.google.com/go/auth",
	failsafe:      "failsafe-go + x/oauth2",
	azure:         "azcore",
	smithy:        "smithy-go",
	openstack:     "gophercloud",
	oras:          "oras-go",
	authLayer:     "requestforge, auth alone",
	stack:         "requestforge, whole stack",
	stackUnlogged: "requestforge, without a logger",
	shared:        "requestforge, sharing a Redis",
	alone:         "requestforge, each on its own",
	oneIdentity:   "(requestforge, one identity)",
	subjects:      "requestforge, `Subject`",
	lookup:        "(a map, read only)",
	look:          "(one look at a byte)",
	ownPipelines:  "requestforge, a pipeline a user",
	ownSources:    "x/oauth2, a source a user",
	ownAzure:      "azidentity, a credential a user",
}

// A view is what is shown of a case.
type view struct {
	name   string
	text   string // what happens in it
	peer   string // to whom times are compared
	counts []column
	cpu    bool // processor time is shown, too
}

type column struct{ head, unit string }

var (
	memory    = []column{{"allocations", allocations}, {"bytes", bytesUsed}}
	fetches   = []column{{"fetches", "fetches"}}
	heaped    = []column{{"bytes held a user", "user-bytes"}, {"goroutines", "goroutines"}}
	peaks     = []column{{"fetches", "fetches"}, {"at once", "at-once"}}
	refetches = []column{{"fetches", "refetches"}, {"good answers", "ok-answers"}}
)

var views = []view{
	{name: liveOff + "serial", peer: xoauth2, counts: memory, cpu: true,
		text: "Logging off; the response is made in the process; one caller."},
	{name: liveOff + "parallel", peer: xoauth2, counts: memory, cpu: true,
		text: "The same, with a caller on each core."},
	{name: liveJSON + "serial", peer: assembled, counts: memory, cpu: true,
		text: "One JSON record a request, written nowhere; one caller."},
	{name: liveJSON + "parallel", peer: assembled, counts: memory, cpu: true,
		text: "The same, with a caller on each core."},
	{name: liveLoopback + "serial", peer: bare, counts: memory, cpu: true,
		text: "Logging off, over a kept-alive connection to a server on loopback; one caller. CPU time and memory include the server's."},
	{name: liveLoopback + "parallel", peer: bare, counts: memory, cpu: true,
		text: "The same, with a caller on each core."},
	{name: "ColdHerd/steps=1", peer: xoauth2, counts: fetches,
		text: "1,000 callers at once, no token yet, an auth server that takes 20 ms."},
	{name: "ColdHerd/steps=3", peer: xoauth2, counts: fetches,
		text: "The same, with a login of three steps that need each other."},
	{name: "FailingAuthServer/waves=3", peer: xoauth2, counts: fetches,
		text: "An auth server that answers 503 after 1 ms, and three waves of 1,000 callers. The time is that of the three waves, with the pauses between the tries of a fetch."},
	{name: "LateRefusals", counts: refetches,
		text: "200 requests in flight with one token, which is revoked; their refusals arrive one by one."},
	{name: "Deadline/server=500ms", counts: fetches,
		text: "A caller with a deadline of 50 ms, while another one's fetch takes 500 ms: when it returns."},
	{name: "LargeBody/getbody=yes", peer: bare, counts: memory[1:],
		text: "A PUT of 64 MiB to a server on loopback, with `GetBody`. Memory includes the server's."},
	{name: "LargeBody/getbody=no", peer: bare, counts: memory[1:],
		text: "The same, without `GetBody`."},
	{name: "ColdLogin/shape=chain", peer: xoauth2, counts: fetches,
		text: fmt.Sprintf("Three steps, each of which needs the one before and takes the auth server %d ms. The sum is %d ms, and so is the critical path.", stepTime.Milliseconds(), chainSum.Milliseconds())},
	{name: "ColdLogin/shape=diamond", peer: xoauth2, counts: fetches,
		text: fmt.Sprintf("Four steps, the two in the middle independent of each other. The sum is %d ms, the critical path %d ms.", diamondSum.Milliseconds(), criticalPath.Milliseconds())},
	{name: "ColdProcesses", peer: alone, counts: fetches,
		text: "50 processes that all need the tokens of a login of three steps, 20 ms each. They sit on the cores that are named above, so that waiting for each other costs more than it would elsewhere."},
}

func init() {
	for _, of := range []struct{ name, text string }{
		{"CrowdToken", "A live token, asked for by its user's context"},
		{"CrowdRequest", "A whole request with a live token, logging off, the response made in the process"},
	} {
		for _, who := range []struct {
			users     int
			who, text string
		}{
			{1, "all", "of one user"},
			{1000, "all", "of 1,000 users, who come in any order"},
			{manyUsers, "few", "of 100 users, who come in any order, among 100,000 with a live token"},
			{manyUsers, "all", "of 100,000 users, who come in any order; a matter of the machine's memory, as one look at a byte of each user's own shows"},
		} {
			for cores := 1; cores <= 2; cores++ {
				views = append(views, view{name: crowdName(of.name, who.users, who.who, cores), peer: oneIdentity, counts: memory, cpu: true,
					text: fmt.Sprintf("%s, %s. GOMAXPROCS is %d, with a caller on each.", of.text, who.text, cores)})
			}
		}
	}
	views = append(views,
		view{name: "CrowdMemory", counts: heaped, text: "1,000 users with a live token of 300 bytes each: what is held of the heap. The time is that of all logins in the process, one after another."},
		view{name: "CrowdHerd", peer: ownPipelines, counts: peaks, text: "1,000 users without a token at once, an auth server in the process that takes 20 ms, and a login of two steps, the application's and the user's; azidentity has no first one."})
}

// viewOf returns the view of a case, or nil.
func viewOf(name string) *view {
	for i := range views {
		if views[i].name == name {
			return &views[i]
		}
	}
	return nil
}

// results is RESULTS.md.
func results(all []sampleFile) string {
	var b strings.Builder
	b.WriteString("# Results\n\nWritten by `go run .` from the files in [samples](samples); [README.md](README.md) says how they are measured.\n")
	b.WriteString("Medians and their 95 % intervals; a ratio is taken in each round and then summarised.\n\n")
	fmt.Fprintf(&b, "## In short\n\n%s\n", summary(all, "charts"))
	fmt.Fprintf(&b, "## Goals\n\nA goal is met if the whole interval is within its bounds.\n\n%s\n", verdicts(all))
	for _, f := range all {
		fmt.Fprintf(&b, "## %s\n\n", f.suite.title)
		said := ""
		for _, c := range f.cases {
			if o := c.origin(); o != said {
				fmt.Fprintf(&b, "%s\n\n", o)
				said = o
			}
			viewOf(c.name).write(&b, c)
		}
	}
	b.WriteString("## Versions\n\n")
	for _, m := range moduleList(all) {
		fmt.Fprintf(&b, "- %s\n", m)
	}
	return b.String()
}

// origin says where the samples are from.
func (c *sampledCase) origin() string {
	return fmt.Sprintf("%d rounds, %s, %s, %s cores of %s, %s/%s.", len(c.values(c.impls[0], seconds)), c.config["date"],
		c.config["go"], c.config["gomaxprocs"], c.config["cpu"], c.config["goos"], c.config["goarch"])
}

func moduleList(all []sampleFile) []string {
	var list []string
	for _, f := range all {
		for _, c := range f.cases {
			for m := range strings.FieldsSeq(c.config["modules"]) {
				path, version, _ := strings.Cut(m, "@")
				list = append(list, path+" "+version)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// write writes the table of a case.
func (v *view) write(b *strings.Builder, c *sampledCase) {
	fmt.Fprintf(b, "### %s\n\n%s\n\n", v.name, v.text)
	b.WriteString("| | time | 95 % interval |")
	rule := "|---|---|---|"
	if v.peer != "" {
		fmt.Fprintf(b, " to %s | 95 %% interval |", labels[v.peer])
		rule += "---|---|"
	}
	if v.cpu {
		fmt.Fprintf(b, " CPU time to %s |", labels[v.peer])
		rule += "---|"
	}
	for _, col := range v.counts {
		fmt.Fprintf(b, " %s |", col.head)
		rule += "---|"
	}
	fmt.Fprintf(b, "\n%s\n", rule)
	for _, impl := range c.impls {
		times := c.values(impl, seconds)
		s := summarize(times)
		fmt.Fprintf(b, "| %s | %s | %s |", labels[impl], formatTime(s.Center), interval(s, formatTime))
		if v.peer != "" {
			r := c.ratio(impl, v.peer, seconds)
			fmt.Fprintf(b, " %s | %s |", formatRatio(r.Center), interval(r, formatRatio))
		}
		if v.cpu && len(c.values(impl, cpuSeconds)) > 0 {
			r := c.ratio(impl, v.peer, cpuSeconds)
			fmt.Fprintf(b, " %s (%s) |", formatRatio(r.Center), interval(r, formatRatio))
		} else if v.cpu {
			b.WriteString(" |")
		}
		for _, col := range v.counts {
			fmt.Fprintf(b, " %s |", formatRange(c.values(impl, col.unit), col.unit))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

// formatRange is the median of counts and, where they differ, their interval.
func formatRange(values []float64, unit string) string {
	format := func(v float64) string { return formatValue(v, unit) }
	s := summarize(values)
	text := format(s.Center)
	if len(values) > 1 && unit != bytesUsed && unit != allocations {
		if i := interval(s, format); i != text {
			text += " (" + i + ")"
		}
	}
	return text
}
