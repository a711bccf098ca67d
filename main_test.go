package requestforge_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain has rapid draw the same histories in each run, so that a run fails only if the code
// has changed. make soak draws longer histories, and make nightly draws at random, as rapid
// does with -rapid.checks. The race detector sees a quarter: with it, a step is six times as
// dear.
func TestMain(m *testing.M) {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" || f.Name == "rapid.seed" })
	if !set {
		flag.Set("rapid.checks", histories)
		flag.Set("rapid.seed", "1")
	}
	os.Exit(m.Run())
}
