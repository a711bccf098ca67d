// The part of RESULTS.md that the README of the repository shows.

package main

import (
	"fmt"
	"strings"
)

// summary is that part. The charts are at the path given.
func summary(all []sampleFile, path string) string {
	var b strings.Builder
	b.WriteString(pictures(all, path))
	b.WriteString("\n| | measured | 95 % interval | goal |\n|---|---|---|---|\n")
	for _, g := range goals {
		if !g.headline {
			continue
		}
		if s, ok := g.judge(all); ok {
			fmt.Fprintf(&b, "| %s | %s | %s | %s, %s |\n", g.what, g.format(s.Center), g.interval(s), g.bounds(), g.verdict(s))
		}
	}
	return b.String()
}

// pictures shows each chart in the version for the reader's colours.
func pictures(all []sampleFile, path string) string {
	var b strings.Builder
	for _, c := range charts {
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
