// What the command takes and in which order it works. build.go makes the test
// binary, run.go runs it, report.go judges.

// Command conformance runs the standard library's own net/http tests with
// every client's RoundTripper wrapped by a package wrapstack, and reports
// what passes with a trivial wrapper but not with this one.
//
//	go run . WRAPDIR... [-j N] [-strict] [-refresh] [-v] [go test flags]
//
// See README.md for what a WRAPDIR is, and run.sh for an exit status that
// tells regressions (1) from a harness that could not do its work (2).
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

func main() {
	switch err := run(os.Args[1:]); {
	case errors.Is(err, errDiffers):
		os.Exit(1)
	case errors.Is(err, flag.ErrHelp):
		fmt.Println("usage: conformance WRAPDIR... [-j N] [-strict] [-refresh] [-v]\n" +
			"\t[go test flags: -short -race -run RE -skip RE -count N -timeout D -tags T ...]")
	case err != nil:
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	}
}

// errDiffers says that a wrapper doesn't behave as it should; what differs
// has been printed.
var errDiffers = errors.New("differs from net/http")

// config is what the command line asks for.
type config struct {
	wrapdirs []string // absolute
	jobs     int      // processes at once
	strict   bool     // charge what excluded.txt lists, too
	refresh  bool     // measure the baseline anew
	verbose  bool     // print the output of regressions

	// For go test, and for the test binary.
	buildFlags, testFlags []string
	run, skip             string

	timeout time.Duration // of one test, beyond what its baseline needs; see runner.limit
}

// complete reports whether every test is to run.
func (c *config) complete() bool { return c.run == "." && c.skip == "" && len(c.testFlags) == 0 }

func run(args []string) error {
	cfg, err := parseArgs(args)
	if err != nil {
		return err
	}
	s, err := prepare(cfg)
	if err != nil {
		return err
	}
	base, err := s.baseline()
	if err != nil {
		return err
	}
	differs := false
	for _, dir := range cfg.wrapdirs {
		ok, err := s.compare(dir, base)
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		differs = differs || !ok
	}
	if differs {
		return errDiffers
	}
	return nil
}

// compare runs the tests with the wrapper in dir and prints how that differs
// from the baseline. It reports whether all is as it should be.
func (s *suite) compare(dir string, base *baseline) (bool, error) {
	began := time.Now()
	bin, err := s.wrapped(dir)
	if err != nil {
		return false, err
	}
	wrapped, pass := s.runner(bin, base.Took), s.runner(s.passBin, base.Took)
	tops, err := wrapped.list()
	if err != nil {
		return false, err
	}
	excluded, err := parseList(excludedList)
	if err != nil {
		return false, fmt.Errorf("excluded.txt: %w", err)
	}
	if s.strict {
		excluded = nil
	}
	explained, err := readList(filepath.Join(dir, "expected.txt"))
	if err != nil {
		return false, err
	}

	start := time.Now()
	first := wrapped.runAll(tops, s.jobs)
	took := time.Since(start)
	rep := judge(wrapped, pass, base, first, excluded, explained)
	rep.print(base, first, s.verbose)
	fmt.Printf("wrapped run %.0fs, everything %.0fs, -j %d\n", took.Seconds(), time.Since(began).Seconds(), s.jobs)
	fmt.Printf("%s: tests=%d baseline_fail=%d wrapped_fail=%d regressions=%d excluded=%d explained=%d stale=%d\n",
		filepath.Base(dir), base.ran(), len(base.Fail), len(rep.fail), len(rep.regressions), len(rep.excluded), len(rep.explained), len(rep.stale))
	return rep.ok(), nil
}

// parseArgs sorts the arguments into directories, flags of ours and flags of
// go test, which is why it can't be package flag alone: that would have to
// know all of the latter.
func parseArgs(args []string) (*config, error) {
	cfg := &config{jobs: min(2, runtime.NumCPU()), timeout: 6 * time.Second, run: "."}
	race, limited := false, false
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") {
			dir, err := filepath.Abs(arg)
			if err != nil {
				return nil, err
			}
			if _, err := os.Stat(dir); err != nil {
				return nil, err
			}
			cfg.wrapdirs = append(cfg.wrapdirs, dir)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch name {
		case "h", "help":
			return nil, flag.ErrHelp
		case "strict":
			cfg.strict = true
			continue
		case "refresh":
			cfg.refresh = true
			continue
		case "v":
			cfg.verbose = true
			continue
		case "race", "msan", "asan", "cover", "a", "trimpath", "work", "x":
			race = race || name == "race"
			cfg.buildFlags = append(cfg.buildFlags, arg)
			continue
		case "short", "failfast", "fullpath":
			cfg.testFlags = append(cfg.testFlags, "-test."+name)
			continue
		}
		if !given {
			if i++; i == len(args) {
				return nil, fmt.Errorf("-%s needs a value", name)
			}
			value = args[i]
		}
		var err error
		switch name {
		case "j":
			if cfg.jobs, err = strconv.Atoi(value); err == nil && cfg.jobs < 1 {
				err = errors.New("less than 1")
			}
		case "run":
			cfg.run = value
		case "skip":
			cfg.skip = value
		case "timeout":
			cfg.timeout, err = time.ParseDuration(value)
			limited = true
		case "tags", "gcflags", "ldflags", "coverpkg", "covermode", "p", "pgo":
			cfg.buildFlags = append(cfg.buildFlags, "-"+name+"="+value)
		default: // -count, -cpu, -parallel, -shuffle ...
			cfg.testFlags = append(cfg.testFlags, "-test."+name+"="+value)
		}
		if err != nil {
			return nil, fmt.Errorf("-%s %s: %w", name, value, err)
		}
	}
	if len(cfg.wrapdirs) == 0 {
		return nil, flag.ErrHelp
	}
	if race && !limited {
		cfg.timeout *= 3
	}
	return cfg, nil
}
