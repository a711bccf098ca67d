// Which failures are a wrapper's own: the lists of those that aren't, the
// verdict, and its words.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// list is a file of tests and reasons: excluded.txt, or a wrapper's
// expected.txt.
type list map[string]string

// readList reads a file that need not exist.
func readList(file string) (list, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := parseList(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return l, nil
}

// parseList reads lines of a test, a tab and a reason; # begins a comment.
func parseList(text string) (list, error) {
	l := make(list)
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, _ := strings.Cut(line, "\t")
		if strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("line %d: %q has no reason, after a tab", n, name)
		}
		if _, ok := l[name]; ok {
			return nil, fmt.Errorf("line %d: %q is there already", n, name)
		}
		l[name] = reason
	}
	return l, nil
}

// covers returns the entry for name or for a test that it is a subtest of, or "".
func (l list) covers(name string) string {
	for {
		if _, ok := l[name]; ok {
			return name
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return ""
		}
		name = name[:i]
	}
}

// report is the verdict on one wrapper. Its names are leaves.
type report struct {
	fail        []string // fails each time
	regressions []string // of these, what is the wrapper's fault
	excluded    []string // excluded.txt covers it
	explained   []string // the wrapper's expected.txt covers it
	unsure      []string // fails with passthrough now, too
	flaky       []string // fails now and then, parents included
	skipped     []string // skipped, but not with passthrough
	stale       []string // entries of expected.txt that explain nothing any more
	notReached  int      // a parent or sibling ended the test before
	reasons     list     // of explained and excluded
}

func (rep *report) ok() bool { return len(rep.regressions) == 0 && len(rep.stale) == 0 }

// judge says which failures in first are the wrapper's own. A regression
// failed three times of three, passed in the baseline, and passthrough does
// not fail it three times of three right after.
func judge(wrapped, pass runner, base *baseline, first map[string]result, excluded, explained list) *report {
	rep := &report{reasons: make(list)}
	maps.Copy(rep.reasons, excluded)
	maps.Copy(rep.reasons, explained)
	needsProof := func(name string) bool {
		return !base.Unsteady[name] && rep.reasons.covers(name) == ""
	}
	stable, flaky := wrapped.steady(first, needsProof)
	rep.fail, rep.flaky = leaves(stable), flaky

	for name := range stable {
		if base.Unsteady[name] {
			delete(stable, name)
		}
	}
	fresh := leaves(stable)
	// The baseline has to hold now, under today's load.
	doubtful := slices.DeleteFunc(slices.Clone(fresh), func(name string) bool { return !needsProof(name) })
	now, _ := pass.steady(pass.runAll(tops(doubtful), pass.jobs), needsProof)
	for _, name := range fresh {
		switch {
		case explained.covers(name) != "":
			rep.explained = append(rep.explained, name)
		case excluded.covers(name) != "":
			rep.excluded = append(rep.excluded, name)
		case now[name]:
			rep.unsure = append(rep.unsure, name)
		default:
			rep.regressions = append(rep.regressions, name)
		}
	}
	rep.stale = staleEntries(wrapped, first, explained)

	for name, status := range base.Status {
		if status != "PASS" {
			continue
		}
		switch first[topOf(name)].Status[name] {
		case "":
			rep.notReached++
		case "SKIP":
			rep.skipped = append(rep.skipped, name)
		}
	}
	slices.Sort(rep.skipped)
	return rep
}

// staleEntries returns the entries of expected.txt whose tests pass three
// times of three, or don't exist though every test was to run.
func staleEntries(r runner, first map[string]result, explained list) []string {
	failed := func(entry string, res result) bool {
		for name := range res.failed() {
			if (list{entry: ""}).covers(name) != "" {
				return true
			}
		}
		return false
	}
	var pass, stale []string
	for entry := range explained {
		res, ran := first[topOf(entry)]
		switch {
		case failed(entry, res):
		case !ran || res.Status[strings.TrimSuffix(entry, "[exit]")] == "":
			if r.complete() {
				stale = append(stale, entry)
			}
		default:
			pass = append(pass, entry)
		}
	}
	rounds := r.twice(tops(pass))
	for _, entry := range pass {
		if !failed(entry, rounds[0][topOf(entry)]) && !failed(entry, rounds[1][topOf(entry)]) {
			stale = append(stale, entry)
		}
	}
	slices.Sort(stale)
	return stale
}

func (rep *report) print(base *baseline, first map[string]result, verbose bool) {
	count := make(map[string]int)
	wrapped := 0
	for _, res := range first {
		if res.Wrapped {
			wrapped++
		}
		for _, status := range res.Status {
			count[status]++
		}
	}
	fmt.Printf("%d pass, %d fail (first run, parents counted), %d skip; %d top-level tests, %d of them with a wrapped client\n",
		count["PASS"], count["FAIL"], count["SKIP"], len(first), wrapped)
	fmt.Printf("%d fail each time (leaves; excluded and explained ones ran once), %d flaky, %d not reached because a parent or sibling ended the test\n",
		len(rep.fail), len(rep.flaky), rep.notReached)
	for _, name := range rep.flaky {
		fmt.Printf("  flaky: %s\n", name)
	}
	for _, name := range rep.unsure {
		fmt.Printf("  fails with passthrough now, too: %s\n", name)
	}
	for _, name := range rep.skipped {
		fmt.Printf("  skipped, but runs with passthrough: %s\n", name)
	}
	for _, name := range rep.excluded {
		fmt.Printf("  excluded: %s (%s)\n", name, rep.reasons[rep.reasons.covers(name)])
	}
	for _, name := range rep.explained {
		fmt.Printf("  explained: %s (%s)\n", name, rep.reasons[rep.reasons.covers(name)])
	}
	for _, name := range rep.stale {
		fmt.Printf("  NO LONGER DIFFERS, take it out of expected.txt: %s\n", name)
	}
	if len(rep.regressions) > 0 {
		fmt.Printf("REGRESSIONS: %d in %d top-level tests\n", len(rep.regressions), len(tops(rep.regressions)))
	}
	for _, name := range rep.regressions {
		res := first[topOf(name)]
		fmt.Printf("  %s\n      %s\n", name, strconv.QuoteToGraphic(res.Message[name]))
		if verbose {
			fmt.Println(res.Output)
		}
	}
}
