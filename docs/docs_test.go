// Package docs has no code. Its tests run what the pages show, and write it there.
package docs

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the pages show of runs")

// show compares what a page shows between "<!-- begin name -->" and "<!-- end name -->"
// with what a run has given, or writes it there.
func show(t *testing.T, page, name, want string) {
	t.Helper()
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no %s … %s", page, strings.TrimSpace(begin), end)
	}
	want = "\n" + strings.TrimSpace(want) + "\n\n"
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("%s, %s: isn't what a run gives; go test ./docs -update writes it anew\ngot:\n%s\nwant:\n%s", page, name, got, want)
	}
	if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
