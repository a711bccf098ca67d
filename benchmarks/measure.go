// How a case is measured: in rounds, each of which runs every candidate once,
// in an order of its own. A machine that gets slower for a while then does so
// for all of them.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/perf/benchfmt"
)

// scale is how much is done.
type scale struct {
	rounds    int
	callers   int           // of a herd
	refusals  int           // in flight with one revoked token
	processes int           // that share a Redis
	users     int           // of one pipeline, at most
	body      int64         // bytes of a large one
	budget    time.Duration // how long a candidate of a timed case takes in one round; 0: ten iterations
}

// tiny is enough to see that everything works.
var tiny = scale{rounds: 1, callers: 50, refusals: 20, processes: 4, users: 2000, body: 4 << 20}

// A benchmark is one case: candidates that do the same thing.
type benchmark struct {
	// name is what all samples of the case have in common.
	name string

	// rounds is the most that is worth the time, where a round of waiting
	// takes long and the counts hardly differ. Zero means as many as asked.
	rounds int

	// timed says that a round is as many iterations as fit into the
	// budget. If not, it is one.
	timed bool

	// open prepares the case. What it starts ends with close.
	open func(ctx context.Context, s scale) (cands []candidate, close func(), err error)
}

// A candidate is one of those that are measured side by side.
type candidate struct {
	impl string

	// run does it n times, one after another or at once, and returns what
	// it counted. Time and memory are added by whoever calls it.
	run func(n int) (counts, error)
}

// counts are by unit, and of the whole run. Only cases that aren't timed have
// any.
type counts map[string]float64

// wall is how long a run took, if it isn't the time from the call of run to
// its return.
const wall = "wall-ns"

// A suite is a file of samples, and the cases in it.
type suite struct {
	file       string
	title      string
	benchmarks []benchmark
}

// measure runs the cases whose name matches, and writes their samples. A file
// is written once all of its cases are done; those that don't match keep what
// is there.
func measure(ctx context.Context, s scale, only *regexp.Regexp, dir string, progress io.Writer) error {
	dir = filepath.Join(dir, "samples")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	matched := false
	for _, suite := range suites {
		path := filepath.Join(dir, suite.file)
		old, err := readResults(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		var file bytes.Buffer
		w := benchfmt.NewWriter(&file)
		fresh := false
		for _, b := range suite.benchmarks {
			if !only.MatchString(b.name) {
				for _, r := range old {
					if strings.HasPrefix(r.Name.String(), b.name+implKey) {
						if err := w.Write(r); err != nil {
							return err
						}
					}
				}
				continue
			}
			fresh = true
			start := time.Now()
			if err := b.measure(ctx, s, w); err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
			fmt.Fprintf(progress, "%s: %.1f s\n", b.name, time.Since(start).Seconds())
		}
		if !fresh {
			continue
		}
		matched = true
		if err := os.WriteFile(path, file.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if !matched {
		return errors.New("no case has such a name")
	}
	return nil
}

func (b benchmark) measure(ctx context.Context, s scale, w *benchfmt.Writer) error {
	cands, close, err := b.open(ctx, s)
	if err != nil {
		return err
	}
	defer close()

	iterations := make([]int, len(cands))
	for i, c := range cands {
		iterations[i] = 1
		if b.timed {
			if iterations[i], err = calibrate(c, s.budget/partsOfRound); err != nil {
				return fmt.Errorf("%s: %w", c.impl, err)
			}
		}
	}
	rounds := s.rounds
	if b.rounds > 0 {
		rounds = min(rounds, b.rounds)
	}
	parts := 1
	if b.timed {
		parts = partsOfRound
	}
	config := fileConfig()
	order := rand.New(rand.NewPCG(1, 2)) // the same in each run
	for range rounds {
		samples := make([]sample, len(cands))
		for range parts {
			for _, i := range order.Perm(len(cands)) {
				if err := ctx.Err(); err != nil {
					return err
				}
				if !b.timed {
					runtime.GC() // of what the one before has left
				}
				if err := samples[i].add(cands[i], iterations[i]); err != nil {
					return fmt.Errorf("%s: %w", cands[i].impl, err)
				}
			}
		}
		for i, c := range cands {
			err := w.Write(&benchfmt.Result{
				Config: config,
				Name:   benchfmt.Name(b.name + implKey + c.impl),
				Iters:  samples[i].iterations,
				Values: samples[i].values(),
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// partsOfRound is how often the candidates take turns within a round of a timed
// case. What slows a machine down for a few milliseconds then hits several of
// them.
const partsOfRound = 20

// calibrate returns how many iterations take about as long as budget.
func calibrate(c candidate, budget time.Duration) (int, error) {
	if budget == 0 {
		return 10, nil
	}
	for n := 1; ; n *= 4 {
		// The fastest of some, since a pause of the machine isn't c's.
		took := time.Duration(math.MaxInt64)
		for range 5 {
			start := time.Now()
			if _, err := c.run(n); err != nil {
				return 0, err
			}
			took = min(took, time.Since(start))
		}
		if took >= budget/8 {
			return max(1, int(float64(n)*float64(budget)/float64(took))), nil
		}
	}
}

// A sample is what one candidate did in one round.
type sample struct {
	iterations    int
	took          float64 // in ns
	cpu           time.Duration
	counted       counts
	bytes, allocs uint64
}

// add runs c. In a timed case the garbage collector comes when it likes, as in a
// program; a collection before each run would spare those that allocate less
// than what makes it come.
func (s *sample) add(c candidate, n int) error {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	busy, _ := cpuTime()
	start := time.Now()
	counted, err := c.run(n)
	took := float64(time.Since(start))
	busyAfter, _ := cpuTime()
	runtime.ReadMemStats(&after)
	if err != nil {
		return err
	}
	if own, ok := counted[wall]; ok {
		took = own
		delete(counted, wall)
	}
	s.iterations += n
	s.took += took
	s.cpu += busyAfter - busy
	s.bytes += after.TotalAlloc - before.TotalAlloc
	s.allocs += after.Mallocs - before.Mallocs
	s.counted = counted
	return nil
}

// values are in the units of package testing, and rounded down as there: a few
// allocations of a run are always the runtime's own.
func (s *sample) values() []benchfmt.Value {
	n := uint64(s.iterations)
	values := []benchfmt.Value{
		{Value: s.took / float64(n), Unit: "ns/op"},
		{Value: float64(s.bytes / n), Unit: "B/op"},
		{Value: float64(s.allocs / n), Unit: "allocs/op"},
	}
	if _, ok := cpuTime(); ok {
		values = append(values, benchfmt.Value{Value: s.cpu.Seconds() / float64(n), Unit: cpuSeconds})
	}
	for _, unit := range slices.Sorted(maps.Keys(s.counted)) {
		values = append(values, benchfmt.Value{Value: s.counted[unit], Unit: unit})
	}
	return values
}

// inSeries is a run of n calls of op, one after another.
func inSeries(op func() error) func(n int) (counts, error) {
	return func(n int) (counts, error) {
		for range n {
			if err := op(); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
}

// inParallel is a run of n calls, by as many goroutines as can run at once,
// each with an op of its own.
func inParallel(newOp func() func() error) func(n int) (counts, error) {
	workers := runtime.GOMAXPROCS(0)
	ops := make([]func() error, workers)
	for i := range ops {
		ops[i] = newOp()
	}
	return func(n int) (counts, error) {
		errs := make([]error, workers)
		var wg sync.WaitGroup
		for i, op := range ops {
			share := n / workers
			if i < n%workers {
				share++
			}
			wg.Go(func() {
				for range share {
					if errs[i] = op(); errs[i] != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		return nil, errors.Join(errs...)
	}
}

// fileConfig says where and with what the samples are taken.
func fileConfig() []benchfmt.Config {
	var config []benchfmt.Config
	add := func(key, value string) {
		config = append(config, benchfmt.Config{Key: key, Value: []byte(value), File: true})
	}
	add("goos", runtime.GOOS)
	add("goarch", runtime.GOARCH)
	add("cpu", cpuModel())
	add("gomaxprocs", fmt.Sprint(runtime.GOMAXPROCS(0)))
	add("go", runtime.Version())
	add("date", time.Now().UTC().Format(time.DateOnly))
	add("modules", strings.Join(moduleVersions(), " "))
	return config
}

// cpuModel is the name of the processor, as far as the system tells.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	m := regexp.MustCompile(`(?m)^model name\s*:\s*(.*)$`).FindSubmatch(text)
	if m == nil {
		return "unknown"
	}
	return string(m[1])
}

// peerModules are those that the samples depend on.
var peerModules = []string{
	"cloud.google.com/go/auth",
	"github.com/Azure/azure-sdk-for-go/sdk/azcore",
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity",
	"github.com/aws/smithy-go",
	"github.com/failsafe-go/failsafe-go",
	"github.com/gophercloud/gophercloud/v2",
	"github.com/hashicorp/go-retryablehttp",
	"golang.org/x/oauth2",
	"oras.land/oras-go/v2",
}

func moduleVersions() []string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	var versions []string
	for _, m := range info.Deps {
		if slices.Contains(peerModules, m.Path) {
			versions = append(versions, m.Path+"@"+m.Version)
		}
	}
	return versions
}
