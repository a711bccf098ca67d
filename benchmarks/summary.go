// The parts of RESULTS.md that docs/numbers.md and the README of the repository show.

package main

import (
	"fmt"
	"strings"
)

// summary is what docs/numbers.md shows: all charts, and the goals that say most. The
// charts are at the path given.
func summary(all []sampleFile, path string) string {
	return pictures(all, path, charts) + "\n" + table(all, func(g goal) bool { return g.headline })
}

// front is what README.md shows: the first chart, and a few goals.
func front(all []sampleFile, path string) string {
	return pictures(all, path, charts[:1]) + "\n" + table(all, func(g goal) bool { return g.front })
}

// table says of some goals what was measured.
func table(all []sampleFile, of func(goal) bool) string {
	var b strings.Builder
	b.WriteString("| | measured | 95 % interval | goal |\n|---|---|---|---|\n")
	for _, g := range goals {
		if !of(g) {
			continue
		}
		if s, ok := g.judge(all); ok {
			fmt.Fprintf(&b, "| %s | %s | %s | %s, %s |\n", g.what, g.format(s.Center), g.interval(s), g.bounds(), g.verdict(s))
		}
	}
	return b.String()
}

// pictures shows each chart in the version for the reader's colours.
func pictures(all []sampleFile, path string, list []chart) string {
	var b strings.Builder
	for _, c := range list {
		if len(c.shown(all, themes[0])) == 0 {
			continue
		}
		fmt.Fprintf(&b, `<picture>
  <source media="(prefers-color-scheme: dark)" srcset="%[1]s/%[2]s-dark.svg">
  <img alt="%[3]s" src="%[1]s/%[2]s-light.svg">
</picture>
`, path, c.file, c.title)
	}
	return b.String()
}
