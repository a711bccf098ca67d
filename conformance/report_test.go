package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test binary a stand-in for net/http's, too: see fakes.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CONFORMANCE_FAKE"); dir != "" {
		os.Exit(fake(dir, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// fakes returns a runner of tests that behave as told, each a word for each
// round, the last of which stays: pass, fail, skip or crash.
func fakes(t *testing.T, tests map[string]string) runner {
	t.Helper()
	dir := t.TempDir()
	for name, rounds := range tests {
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "%"))
		if err := os.WriteFile(file, []byte(rounds), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "bin")
	// The race detector would wait for a second at each exit.
	text := fmt.Sprintf("#!/bin/sh\nGORACE=atexit_sleep_ms=0 CONFORMANCE_FAKE='%s' exec '%s' \"$@\"\n", dir, exe)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	// One process at a time keeps the rounds apart.
	return runner{config: &config{jobs: 1, run: ".", timeout: time.Minute}, bin: script, cwd: dir}
}

// fake answers as net/http's test binary does, for the one test asked for.
func fake(dir string, args []string) int {
	top, skip := "", ""
	for i, arg := range args {
		switch arg {
		case "-test.run":
			top = strings.Trim(args[i+1], "^$")
		case "-test.skip":
			skip = args[i+1]
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, top+"*"))
	code := 0
	for _, file := range files {
		name := strings.ReplaceAll(filepath.Base(file), "%", "/")
		if name != top && !strings.HasPrefix(name, top+"/") || subtestPattern(name) == skip {
			continue
		}
		text, _ := os.ReadFile(file)
		round, rest, more := strings.Cut(string(text), " ")
		if more {
			_ = os.WriteFile(file, []byte(rest), 0o644)
		}
		fmt.Printf("\x16=== RUN   %s\n", name)
		switch round {
		case "crash":
			fmt.Println("panic: boom")
			return 2
		case "fail":
			code = 1
		}
		fmt.Printf("\x16--- %s: %s (0.00s)\n", strings.ToUpper(round), name)
	}
	return code
}

func run1(r runner, names ...string) map[string]result { return r.runAll(names, 1) }

// allPass is the baseline in which these tests passed.
func allPass(names ...string) *baseline {
	b := &baseline{Status: make(map[string]string)}
	for _, name := range names {
		b.Status[name] = "PASS"
	}
	return b
}

func TestARegressionFailsThreeTimesAndPassesWithPassthrough(t *testing.T) {
	wrapped := fakes(t, map[string]string{
		"TestGood":     "pass",
		"TestBad":      "fail",
		"TestBad/h1":   "pass",
		"TestBad/h2":   "fail",
		"TestShaky":    "fail pass fail",
		"TestBroken":   "fail",
		"TestUnsteady": "fail",
		"TestExcluded": "fail",
		"TestShy":      "skip",
	})
	pass := fakes(t, map[string]string{"TestBad": "pass", "TestBad/h2": "fail pass", "TestBroken": "fail"})
	base := allPass("TestGood", "TestBad", "TestBad/h1", "TestBad/h2", "TestShaky", "TestBroken", "TestExcluded", "TestShy", "TestBad/h3")
	base.Unsteady = map[string]bool{"TestUnsteady": true}
	first := run1(wrapped, "TestGood", "TestBad", "TestShaky", "TestBroken", "TestUnsteady", "TestExcluded", "TestShy")

	rep := judge(wrapped, pass, base, first, list{"TestExcluded": "why"}, nil)
	for what, tt := range map[string]struct{ got, want []string }{
		"fail":        {rep.fail, []string{"TestBad/h2", "TestBroken", "TestExcluded", "TestUnsteady"}},
		"regressions": {rep.regressions, []string{"TestBad/h2"}},
		"unsure":      {rep.unsure, []string{"TestBroken"}},
		"flaky":       {rep.flaky, []string{"TestShaky"}},
		"excluded":    {rep.excluded, []string{"TestExcluded"}},
		"skipped":     {rep.skipped, []string{"TestShy"}},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s: got %q, want %q", what, tt.got, tt.want)
		}
	}
	if rep.notReached != 1 {
		t.Errorf("not reached: got %d, want TestBad/h3 alone", rep.notReached)
	}
	if rep.ok() {
		t.Error("ok with a regression")
	}
}

func TestAnExplainedDifferenceMustOccur(t *testing.T) {
	wrapped := fakes(t, map[string]string{
		"TestSent":      "fail",
		"TestSent/h1":   "fail",
		"TestNow":       "pass",
		"TestSometimes": "pass fail pass",
	})
	pass := fakes(t, map[string]string{"TestSent": "pass"})
	base := allPass("TestSent", "TestSent/h1", "TestNow", "TestSometimes")
	explained := list{"TestSent/h1": "why", "TestNow": "why", "TestSometimes": "why", "TestGone/h1": "why"}
	first := run1(wrapped, "TestSent", "TestNow", "TestSometimes")

	rep := judge(wrapped, pass, base, first, nil, explained)
	if want := []string{"TestSent/h1"}; !slices.Equal(rep.explained, want) {
		t.Errorf("explained: got %q, want %q", rep.explained, want)
	}
	if want := []string{"TestGone/h1", "TestNow"}; !slices.Equal(rep.stale, want) {
		t.Errorf("stale: got %q, want %q", rep.stale, want)
	}
	if len(rep.regressions) != 0 || rep.ok() {
		t.Errorf("regressions %q, ok %v; want none, and not ok", rep.regressions, rep.ok())
	}

	// A run of some of the tests says nothing of the others.
	wrapped.run = "TestSent"
	rep = judge(wrapped, pass, base, run1(wrapped, "TestSent"), nil, explained)
	if len(rep.stale) != 0 || !rep.ok() {
		t.Errorf("stale: got %q in a run of TestSent alone", rep.stale)
	}
}

func TestACrashedSubtestDoesNotHideItsSiblings(t *testing.T) {
	r := fakes(t, map[string]string{"TestA/h1": "crash", "TestA/h2": "fail", "TestA/h3": "pass"})
	got := run1(r, "TestA")["TestA"].Status
	if want := map[string]string{"TestA/h1": "FAIL", "TestA/h2": "FAIL", "TestA/h3": "PASS"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestListEntriesHaveReasons(t *testing.T) {
	for text, want := range map[string]string{
		"# note\n\nTestA\twhy\nTestB/h1\twhy not\n": "",
		"TestA\n":                  `line 1: "TestA" has no reason, after a tab`,
		"TestA \n":                 `line 1: "TestA" has no reason, after a tab`,
		"TestA why\n":              `line 1: "TestA why" has no reason, after a tab`,
		"TestA\twhy\nTestA\twhy\n": `line 2: "TestA" is there already`,
	} {
		_, err := parseList(text)
		if got := fmt.Sprint(err); got != want && (want != "" || err != nil) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestTheListsInThisRepositoryAreReadable(t *testing.T) {
	excluded, err := parseList(excludedList)
	if err != nil || len(excluded) == 0 {
		t.Errorf("excluded.txt: %d entries, %v", len(excluded), err)
	}
	files, err := filepath.Glob("wraps/*/expected.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no expected.txt: %v", err)
	}
	for _, file := range files {
		if l, err := readList(file); err != nil || len(l) == 0 {
			t.Errorf("%s: %d entries, %v", file, len(l), err)
		}
	}
}

func TestAnEntryCoversItsSubtests(t *testing.T) {
	l := list{"TestA/h1": "why"}
	for name, want := range map[string]string{
		"TestA": "", "TestA/h1": "TestA/h1", "TestA/h1/x/y": "TestA/h1", "TestA/h2": "", "TestA/h10": "",
	} {
		if got := l.covers(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
