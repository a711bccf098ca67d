// Command rooms measures how much the files of a package depend on each other:
//
//	rooms [-max-mutual N] [-max-cycle N] [-max-lockers N] [-max-complexity N] DIR
//
// For the package in DIR, without its tests, rooms prints the number of files
// and lines, the pairs of files that refer to each other, the largest cycle of
// such references, the files that lock each mutex, and the functions with a
// cyclomatic complexity above 15. A flag sets a limit; rooms fails if the
// package exceeds a limit.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// complexFrom is the cyclomatic complexity above which functions are listed
// without -max-complexity.
const complexFrom = 15

func main() {
	lim := limits{}
	flag.IntVar(&lim.mutual, "max-mutual", -1, "fail if more than `N` pairs of files refer to each other; negative: any number will do")
	flag.IntVar(&lim.cycle, "max-cycle", -1, "fail if a cycle of references holds more than `N` files; negative: any number will do")
	flag.IntVar(&lim.lockers, "max-lockers", -1, "fail if a mutex is locked in more than `N` files; negative: any number will do")
	flag.IntVar(&lim.complexity, "max-complexity", -1, "fail if a function has a cyclomatic complexity above `N`, and list these functions instead of those above 15; negative: any number will do")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: rooms [flags] DIR")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	p, err := load(flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if faults := report(os.Stdout, p, lim); len(faults) > 0 {
		for _, fault := range faults {
			fmt.Fprintf(os.Stderr, "%s: %s\n", flag.Arg(0), fault)
		}
		os.Exit(1)
	}
}

// limits are what the flags say. A negative limit means none.
type limits struct{ mutual, cycle, lockers, complexity int }

// report writes the measurements of p to w and returns the limits that p
// exceeds.
func report(w io.Writer, p *pkg, lim limits) (faults []string) {
	refs := p.references()
	pairs := refs.mutual()
	cycle := refs.largestCycle()
	above := lim.complexity
	if above < 0 {
		above = complexFrom
	}
	complex := p.complexFunctions(above)

	fmt.Fprintf(w, "%s: %d files, %d lines\n", p.types.Path(), len(p.files), p.lines())
	fmt.Fprintf(w, "\nmutual pairs: %d\n", len(pairs))
	for _, pair := range pairs {
		fmt.Fprintf(w, "  %s <-> %s\n", pair[0], pair[1])
	}
	fmt.Fprintf(w, "\nlargest cycle: %d of %d files\n", len(cycle), len(p.files))
	if len(cycle) > 0 {
		fmt.Fprintf(w, "  %s\n", strings.Join(cycle, " "))
	}
	fmt.Fprint(w, "\nmutexes:\n")
	for _, m := range p.mutexes() {
		fmt.Fprintf(w, "  %s\n", m)
	}
	fmt.Fprintf(w, "\nfunctions above complexity %d: %d\n", above, len(complex))
	for _, f := range complex {
		fmt.Fprintf(w, "  %3d %s (%s)\n", f.complexity, f.name, f.file)
	}

	if lim.mutual >= 0 && len(pairs) > lim.mutual {
		faults = append(faults, fmt.Sprintf("%d pairs of files refer to each other, and %d may", len(pairs), lim.mutual))
	}
	if lim.cycle >= 0 && len(cycle) > lim.cycle {
		faults = append(faults, fmt.Sprintf("the largest cycle holds %d files, and %d may be in one", len(cycle), lim.cycle))
	}
	for _, m := range p.mutexes() {
		if lim.lockers >= 0 && len(m.lockers) > lim.lockers {
			faults = append(faults, fmt.Sprintf("%s is locked in %d files, and may be in %d", m.name, len(m.lockers), lim.lockers))
		}
	}
	if lim.complexity >= 0 && len(complex) > 0 {
		faults = append(faults, fmt.Sprintf("%d functions have a complexity above %d", len(complex), lim.complexity))
	}
	return faults
}
