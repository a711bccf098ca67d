package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The fleet of processes is made of this binary.
func TestMain(m *testing.M) {
	if job := os.Getenv(replicaVariable); job != "" {
		if err := replica(job, os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString("replica: " + err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestResultsAndChartsFollowFromTheSamples(t *testing.T) {
	all, err := readSamples(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(suites) {
		t.Fatalf("there are samples of %d suites, want all %d", len(all), len(suites))
	}
	dir := t.TempDir()
	if err := render(all, dir); err != nil {
		t.Fatal(err)
	}
	drawn := append(glob(t, dir, "charts/*"), "RESULTS.md")
	if kept := append(glob(t, ".", "charts/*"), "RESULTS.md"); strings.Join(kept, " ") != strings.Join(drawn, " ") {
		t.Fatalf("drawn are %q, kept %q", drawn, kept)
	}
	for _, name := range drawn {
		if !bytes.Equal(read(t, filepath.Join(dir, name)), read(t, name)) {
			t.Errorf("%s isn't what follows from the samples: go run . -render", name)
		}
	}
}

func TestREADMEOfTheRepositoryShowsTheSummary(t *testing.T) {
	all, err := readSamples(".")
	if err != nil {
		t.Fatal(err)
	}
	for page, want := range map[string]string{
		"../README.md":       front(all, "benchmarks/charts"),
		"../docs/numbers.md": summary(all, "../benchmarks/charts"),
	} {
		if !bytes.Contains(read(t, page), []byte(want)) {
			t.Errorf("what %s shows isn't what follows from the samples: go run . -render -summary", page)
		}
	}
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if list[i], err = filepath.Rel(dir, list[i]); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestCasesThatAreNotAskedForKeepTheirSamples(t *testing.T) {
	dir := t.TempDir()
	run := func(cases string) []byte {
		t.Helper()
		if err := command(t.Context(), []string{"-quick", "-out", dir, "-cases", cases}, t.Output(), t.Output()); err != nil {
			t.Fatal(err)
		}
		return read(t, filepath.Join(dir, "samples", herdCases.file))
	}
	first := run("^ColdHerd/steps=3$")
	second := run("^ColdHerd/steps=1$")
	lines := func(text []byte) (list []string) {
		for l := range strings.Lines(string(text)) {
			if strings.HasPrefix(l, "BenchmarkColdHerd/steps=3/") {
				list = append(list, l)
			}
		}
		return list
	}
	if got, want := lines(second), lines(first); len(want) != 2 || strings.Join(got, "") != strings.Join(want, "") {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := bytes.Count(second, []byte("BenchmarkColdHerd/steps=1/")); n != 7 {
		t.Errorf("%d new samples, want 7", n)
	}
}

func TestACaseThatDoesNotExistIsAnError(t *testing.T) {
	err := command(context.Background(), []string{"-quick", "-cases", "^NoSuchCase$"}, t.Output(), t.Output())
	if err == nil || !strings.Contains(err.Error(), "no case") {
		t.Errorf("got %v", err)
	}
}

// made is a case in which x and y were measured.
func made(x, y []float64) []sampleFile {
	c := &sampledCase{name: "Case", impls: []string{"x", "y"}, byKey: map[sampleKey][]float64{
		{"x", seconds}: x, {"y", seconds}: y,
	}}
	return []sampleFile{{cases: []*sampledCase{c}}}
}

func TestARatioIsTakenWithinARound(t *testing.T) {
	// The machine is fast and slow by turns; x takes half of y's time.
	var x, y []float64
	for i := range 20 {
		slow := float64(1 + i*7%20)
		x, y = append(x, slow), append(y, 2*slow)
	}
	summarize(x) // which leaves the order as it is
	s, ok := goal{name: "Case", impl: "x", peer: "y", unit: seconds, of: ratio}.judge(made(x, y))
	if !ok || s.Center != 0.5 || s.Lo != 0.5 || s.Hi != 0.5 {
		t.Errorf("got %v, %v", s, ok)
	}
	s, ok = goal{name: "Case", impl: "x", peer: "y", unit: seconds, of: excess}.judge(made(x, y))
	if !ok || s.Center != -10.5 {
		t.Errorf("got %v, %v", s, ok)
	}
}

func TestAGoalIsMetByTheWholeInterval(t *testing.T) {
	var x []float64
	for i := range 20 {
		x = append(x, 1+float64(i)/100) // the median's interval is 1.05 to 1.14
	}
	all := made(x, nil)
	for _, c := range []struct {
		least, most float64
		met         bool
	}{
		{0, 1.2, true},
		{0, 1.15, true},
		{0, 1.11, false},
		{1, 1.15, true},
		{1.09, 1.15, false},
	} {
		g := goal{name: "Case", impl: "x", unit: seconds, least: c.least, most: c.most}
		s, ok := g.judge(all)
		if !ok || g.met(s) != c.met {
			t.Errorf("%v to %v: met %v, want %v; measured %v", c.least, c.most, g.met(s), c.met, s)
		}
	}
	few := goal{name: "Case", impl: "x", unit: seconds, most: 2}
	if s, _ := few.judge(made(x[:5], nil)); few.met(s) {
		t.Error("met with five rounds")
	}
	if _, ok := few.judge(made(nil, nil)); ok {
		t.Error("judged without samples")
	}
}

func TestValuesHaveThreeDigits(t *testing.T) {
	for _, c := range []struct {
		value      float64
		unit, want string
	}{
		{1.5, seconds, "1.50 s"},
		{0.0504, seconds, "50.4 ms"},
		{123e-6, seconds, "123 µs"},
		{812.3e-9, seconds, "812 ns"},
		{960, bytesUsed, "960 B"},
		{83.2 * 1024, bytesUsed, "83.2 KiB"},
		{158 << 20, bytesUsed, "158 MiB"},
		{-20 << 10, bytesUsed, "−20.0 KiB"},
		{3, allocations, "3"},
		{3000, "fetches", "3000"},
	} {
		if got := formatValue(c.value, c.unit); got != c.want {
			t.Errorf("%v %s: got %q, want %q", c.value, c.unit, got, c.want)
		}
	}
}

// A stretch goal that is missed, and one that nothing was measured for, don't
// fail a run.
func TestOnlyFirmGoalsThatWereMeasuredAreMissed(t *testing.T) {
	var x, y []float64
	for range 10 {
		x, y = append(x, 3), append(y, 1)
	}
	c := &sampledCase{name: liveOff + "serial", impls: []string{stack, xoauth2, authLayer}, byKey: map[sampleKey][]float64{
		{stack, seconds}: x, {xoauth2, seconds}: y, {authLayer, seconds}: x,
	}}
	got := missed([]sampleFile{{cases: []*sampledCase{c}}})
	if len(got) != 1 || got[0] != goals[0].what {
		t.Errorf("got %q, want %q", got, goals[0].what)
	}
}
