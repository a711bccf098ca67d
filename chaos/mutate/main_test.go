package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The places of the mutations are looked for here too, so that a change of the
// package which moves one shows before make chaos does.
func TestEveryMutationHasItsPlace(t *testing.T) {
	all := slices.Clone(mutations)
	for _, mut := range testedMutations {
		all = append(all, mut.mutation)
	}
	for _, mut := range all {
		text, err := os.ReadFile("../../" + mut.file)
		if err != nil {
			t.Fatal(err)
		}
		changed, err := mut.apply(string(text))
		if err != nil {
			t.Errorf("%s: %v", mut.name, err)
		} else if changed == string(text) {
			t.Errorf("%s: changes nothing", mut.name)
		}
	}
}

func TestAMutationWithoutItsPlaceSaysSo(t *testing.T) {
	mut := mutation{name: "m", file: "f.go", old: "gone", new: "x"}
	for _, text := range []string{"", "gone gone"} {
		if _, err := mut.apply(text); err == nil || !strings.Contains(err.Error(), "f.go") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestARunIsJudgedByItsVerdict(t *testing.T) {
	mut := mutation{want: []string{"a rule"}}
	for _, c := range []struct {
		out    string
		failed bool
		ok     bool
	}{
		{"verdict    all invariants held\n", false, false},
		{"seed 1\nverdict    2 violations: a rule: 2\n", true, true},
		{"verdict    2 violations: another: 2\n\na rule\n", true, false},
		{"panic: a rule\n", true, false},
	} {
		if got := mut.judge(c.out, c.failed) == ""; got != c.ok {
			t.Errorf("%q: noticed %v, want %v", c.out, got, c.ok)
		}
	}
}
