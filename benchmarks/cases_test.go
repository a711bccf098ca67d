//go:build !race

// One run of each case, and its counts. The race detector, which no benchmark is built
// with, would make the run four times as dear, most of it in the peers' code.

package main

import (
	"bytes"
	"math"
	"testing"
	"time"
)

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
		{"CrowdHerd", subjects, "fetches", 1 + float64(tiny.callers)},
		{"CrowdHerd", ownSources, "fetches", 1 + float64(tiny.callers)},
		{"CrowdHerd", ownAzure, "fetches", float64(tiny.callers)},
		{"CrowdHerd", ownPipelines, "fetches", 2 * float64(tiny.callers)},
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
