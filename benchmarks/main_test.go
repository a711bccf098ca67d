package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// The run fails by itself if a candidate doesn't send the token, or if an
// answer doesn't arrive. Only counts that don't depend on time are looked at.
func TestEveryCaseDoesWhatItMeasures(t *testing.T) {
	dir := t.TempDir()
	begun := time.Now()
	var out bytes.Buffer
	if err := command(t.Context(), []string{"-quick", "-out", dir}, &out, t.Output()); err != nil {
		t.Fatal(err)
	}
	all, err := readSamples(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range views {
		if findCase(all, v.name) == nil {
			t.Errorf("%s was not measured", v.name)
		}
	}
	for _, g := range goals {
		if _, ok := g.judge(all); !ok {
			t.Errorf("%q: nothing was measured for it", g.what)
		}
	}
	for _, c := range charts {
		for _, p := range c.panels {
			if bars := p.bars(all, themes[0]); len(bars) != len(p.impls) {
				t.Errorf("%q: %d bars, want %d", p.title, len(bars), len(p.impls))
			}
		}
	}

	refusals := float64(tiny.refusals)
	for _, want := range []struct {
		name, impl, unit string
		count            float64
	}{
		{"ColdHerd/steps=1", stack, "fetches", 1},
		{"ColdHerd/steps=1", authLayer, "fetches", 1},
		{"ColdHerd/steps=3", stack, "fetches", 3},
		{"LateRefusals", stack, "refetches", 1},
		{"LateRefusals", stack, "ok-answers", refusals},
		{"LateRefusals", openstack, "refetches", 1},
		{"LateRefusals", openstack, "ok-answers", refusals},
		{"LateRefusals", oras, "refetches", refusals},
		{"LateRefusals", azure, "refetches", refusals},
		{"LateRefusals", xoauth2, "refetches", 0},
		{"LateRefusals", xoauth2, "ok-answers", 0},
		{"Deadline/server=500ms", stack, "fetches", 1},
		{"ColdLogin/shape=chain", stack, "fetches", 3},
		{"ColdLogin/shape=diamond", stack, "fetches", 4},
		{"ColdLogin/shape=diamond", xoauth2, "fetches", 4},
		{"ColdProcesses", shared, "fetches", 3},
		{"ColdProcesses", alone, "fetches", 3 * float64(tiny.processes)},
	} {
		got := findCase(all, want.name).values(want.impl, want.unit)
		if len(got) != 1 || got[0] != want.count {
			t.Errorf("%s, %s: got %v %s, want %v", want.name, want.impl, got, want.unit, want.count)
		}
	}
	// A fetch that fails is three tries. The next one comes after a cool-down of
	// a second, which doubles each time, so that it is a matter of time how many
	// there are.
	most := 3 * (1 + math.Floor(math.Log2(1+time.Since(begun).Seconds())))
	if got := findCase(all, "FailingAuthServer/waves=3").values(authLayer, "fetches")[0]; got < 1 || got > most {
		t.Errorf("a failing auth server was asked %v times by %d callers, three times each; at most %v fit", got, tiny.callers, most)
	}
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
	if !bytes.Contains(read(t, "../README.md"), []byte(summary(all, "benchmarks/charts"))) {
		t.Error("what ../README.md shows isn't what follows from the samples: go run . -render -summary")
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
