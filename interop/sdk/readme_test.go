// The table of the README, made from what the SDKs' files say and the tests
// check. "go test ./sdk -run README -update" writes it.

package sdk_test

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

var update = flag.Bool("update", false, "write the table of README.md")

func TestREADMEHasTheTable(t *testing.T) {
	const begin, end = "<!-- sdks: made by readme_test.go -->\n", "<!-- /sdks -->"
	file, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(file), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("README.md has no %s … %s", strings.TrimSpace(begin), end)
	}
	want := before + begin + "\n" + table(t) + "\n" + end + after
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(file) != want {
		t.Error("the table of README.md is not what the SDKs' files say; run go test ./sdk -run README -update")
	}
}

// table has a row for each SDK, with its version from go.mod. A test binary
// doesn't know its modules, so debug.ReadBuildInfo is of no use here.
func table(t *testing.T) string {
	data, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	versions := make(map[string]string)
	for _, m := range mod.Require {
		versions[m.Mod.Path] = m.Mod.Version
	}

	var b strings.Builder
	b.WriteString("| SDK | Version | Option | Sets Authorization itself | Tries on a 503 | Insists on | How to combine |\n")
	b.WriteString("|---|---|---|---|---|---|---|\n")
	for _, s := range slices.SortedFunc(slices.Values(sdks), func(a, b *sdk) int {
		return cmp.Compare(strings.ToLower(a.name), strings.ToLower(b.name))
	}) {
		version := versions[s.module]
		if version == "" {
			t.Errorf("%s: no module %s in go.mod", s.name, s.module)
		}
		fmt.Fprintf(&b, "| [%s](%s) | %s | `%s` | %s | %d | %s | %s |\n",
			s.name, s.file, version, s.option, string(s.auth)+s.where, s.tries, cmp.Or(s.https, "–"), s.how)
	}
	return b.String()
}
