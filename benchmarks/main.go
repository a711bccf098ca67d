// The command: which cases to run, and what to do with what they measure.
// How is in measure.go, what in the file of each case, and the rest follows
// from the samples, in render.go.

// Benchmarks measures requestforge side by side with its peers, in one process
// and one run, and writes what it finds to samples, to RESULTS.md and to
// charts. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"time"
)

func main() {
	if job := os.Getenv(replicaVariable); job != "" {
		if err := replica(job, os.Stdin, os.Stdout); err != nil {
			log.Fatal("replica: ", err)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := command(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatal("benchmarks: ", err)
	}
}

// gcPercent is the garbage collector's setting during the measurements, unless
// GOGC is set. The peers with all that they link hold 3 MB in this process,
// some eight times of what one of them needs, and by default each candidate
// would have all of it marked for every 3 MB that it allocates. With this it
// pays about what it would in a program of its own.
const gcPercent = 800

func command(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	flags.SetOutput(progress)
	rounds := flags.Int("rounds", 20, "how often each candidate is measured")
	cases := flags.String("cases", "", "a `regexp`: only the cases whose name it matches; the samples of others stay")
	quick := flags.Bool("quick", false, "one round of a few iterations and callers, to see that everything works; keeps nothing unless -out is given")
	dir := flags.String("out", ".", "the `directory` of samples, charts and RESULTS.md")
	draw := flags.Bool("render", false, "measure nothing, and draw charts and RESULTS.md from the samples that are there")
	check := flags.Bool("check", false, "fail if a goal that isn't a stretch goal is missed")
	fragment := flags.Bool("summary", false, "print the parts of RESULTS.md that README.md and docs/numbers.md of the repository show")
	if err := flags.Parse(args); err != nil {
		return err
	}
	only, err := regexp.Compile(*cases)
	if err != nil {
		return err
	}
	if *quick && *dir == "." {
		if *dir, err = os.MkdirTemp("", "benchmarks-"); err != nil {
			return err
		}
		defer os.RemoveAll(*dir)
	}
	if !*draw {
		if os.Getenv("GOGC") == "" {
			debug.SetGCPercent(gcPercent)
		}
		s := scale{rounds: *rounds, callers: 1000, refusals: 200, processes: 50, users: manyUsers, body: 64 << 20, budget: 150 * time.Millisecond}
		if *quick {
			s = tiny
		}
		if err := measure(ctx, s, only, *dir, progress); err != nil {
			return err
		}
	}
	found, err := readSamples(*dir)
	if err != nil {
		return err
	}
	if err := render(found, *dir); err != nil {
		return err
	}
	text := verdicts(found)
	if *fragment {
		text = "README.md:\n\n" + front(found, "benchmarks/charts") + "\ndocs/numbers.md:\n\n" + summary(found, "../benchmarks/charts")
	}
	if _, err := io.WriteString(out, text); err != nil {
		return err
	}
	if missed := missed(found); *check && len(missed) > 0 {
		return fmt.Errorf("missed: %q", missed)
	}
	return nil
}
