//go:build race

package requestforge_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain has the race detector see a quarter of what rapid draws: with it, a step is six
// times as dear. numbers_test.go has them all, without it.
func TestMain(m *testing.M) {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" })
	if !set {
		flag.Set("rapid.checks", "25")
	}
	os.Exit(m.Run())
}
