// How the tests are run, and what their output says. Each top-level test has
// a process of its own: a panic, a hang or a leaked goroutine is charged to
// the test that caused it, and TestMain looks for leaks after each.

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// neverRun are tests that run cmd/go on the standard library's sources and
// touch no client.
var neverRun = regexp.MustCompile(`^(TestOmitHTTP2|TestOmitHTTP2Vet|TestCmdGoNoHTTPServer)$`)

// result is what the process, or processes, of one top-level test said.
type result struct {
	Status  map[string]string // test name -> PASS, FAIL or SKIP
	Message map[string]string // failing test -> its first telling lines
	Wrapped bool              // a wrapper was built
	Seconds float64
	Output  string
}

func (r result) failed() map[string]bool {
	failed := make(map[string]bool)
	for name, status := range r.Status {
		if status == "FAIL" {
			failed[name] = true
		}
	}
	return failed
}

// runner runs one test binary.
type runner struct {
	*config
	bin     string
	cwd     string
	bare    bool               // no client is wrapped
	seconds map[string]float64 // what each test took in the baseline; nil while that is measured
}

func (s *suite) runner(bin string, seconds map[string]float64) runner {
	return runner{config: s.config, bin: bin, cwd: s.cwd(), seconds: seconds}
}

// limit is how long one process may run: a test that takes four times its
// baseline and some seconds more hangs.
func (r runner) limit(top string) time.Duration {
	if r.seconds == nil {
		return 5 * r.timeout
	}
	return r.timeout + time.Duration(4*r.seconds[top]*float64(time.Second))
}

// env is the environment without proxies, which would get the tests' requests.
func (r runner) env() []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool {
		name, _, _ := strings.Cut(strings.ToLower(s), "=")
		return strings.HasSuffix(name, "_proxy")
	})
	if r.bare {
		env = append(env, "CONFORMANCE_WRAP=off")
	}
	return env
}

// list returns the top-level tests to run.
func (r runner) list() ([]string, error) {
	pattern, _, _ := strings.Cut(r.run, "/")
	cmd := exec.Command(r.bin, "-test.list", pattern)
	cmd.Dir, cmd.Env = r.cwd, r.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s -test.list: %w\n%s", r.bin, err, out)
	}
	var tops []string
	for _, name := range strings.Fields(string(out)) {
		if !strings.HasPrefix(name, "Benchmark") && !neverRun.MatchString(name) {
			tops = append(tops, name)
		}
	}
	if len(tops) == 0 {
		return nil, fmt.Errorf("no test matches %q", r.run)
	}
	return tops, nil
}

// runAll runs the tests, jobs at once. A test that runs for long mostly
// waits, and then another may start beside it.
func (r runner) runAll(tops []string, jobs int) map[string]result {
	const long = 2 * time.Second
	results := make(map[string]result, len(tops))
	var mu sync.Mutex
	var wg sync.WaitGroup
	busy := make(chan bool, jobs)
	all := make(chan bool, 8*jobs)
	for _, top := range tops {
		busy <- true
		all <- true
		wg.Go(func() {
			free := sync.OnceFunc(func() { <-busy })
			timer := time.AfterFunc(long, free)
			res := r.runTop(top)
			timer.Stop()
			free()
			<-all
			mu.Lock()
			results[top] = res
			mu.Unlock()
		})
	}
	wg.Wait()
	return results
}

// runTop runs a top-level test. A subtest that panics or hangs is left out of
// a further run, so that its siblings are reached.
func (r runner) runTop(top string) result {
	const most = 8 // further runs
	start := time.Now()
	all, crashed := r.runOne(top, nil)
	var skip []string
	for range most {
		if crashed == "" || crashed == top {
			break
		}
		skip = append(skip, subtestPattern(crashed))
		var res result
		res, crashed = r.runOne(top, skip)
		for name, status := range res.Status {
			if all.Status[name] == "FAIL" {
				continue
			}
			all.Status[name] = status
			if msg := res.Message[name]; msg != "" {
				all.Message[name] = msg
			}
		}
		all.Output += res.Output
	}
	all.Seconds = time.Since(start).Seconds()
	return all
}

// subtestPattern is the -test.skip that leaves out name alone.
func subtestPattern(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

// runOne runs one process. crashed is the deepest test that was running when
// the process died, or "".
func (r runner) runOne(top string, skip []string) (res result, crashed string) {
	limit := r.limit(top)
	ctx, cancel := context.WithTimeout(context.Background(), limit+10*time.Second)
	defer cancel()
	pattern := "^" + top + "$"
	if _, rest, ok := strings.Cut(r.run, "/"); ok {
		pattern += "/" + rest
	}
	args := append([]string{"-test.v=test2json", "-test.run", pattern, "-test.timeout", limit.String()}, r.testFlags...)
	if r.skip != "" {
		skip = append([]string{r.skip}, skip...)
	}
	if len(skip) > 0 {
		args = append(args, "-test.skip", strings.Join(skip, "|"))
	}
	cmd := exec.CommandContext(ctx, r.bin, args...)
	cmd.Dir, cmd.Env = r.cwd, r.env()
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return parse(top, out.String(), err)
}

var (
	resultLine = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(`)
	framing    = regexp.MustCompile(`^=== (RUN|PAUSE|CONT|NAME)\s+(\S*)`)
	testLog    = regexp.MustCompile(`^\s*\w+\.go:\d+: `)
	crashLine  = regexp.MustCompile(`^(panic: |fatal error: |Too many goroutines running|WARNING: DATA RACE|\d+ instances of:)`)
)

// parse reads the output of a test binary with -test.v=test2json, which marks
// the lines of package testing with a 0x16. A process that failed without a
// failing test (its goroutines leaked, say) is the failing test "top[exit]".
func parse(top, out string, exit error) (res result, crashed string) {
	res = result{Status: map[string]string{}, Message: map[string]string{}, Output: out}
	logs := make(map[string][]string)
	var running []string
	current, crash := top, ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if _, said, ok := strings.Cut(line, "\x16"); ok {
			line = said
			if m := resultLine.FindStringSubmatch(line); m != nil {
				status, name := m[1], m[2]
				if res.Status[name] != "FAIL" { // with -count, the worst counts
					res.Status[name] = status
				}
				running = slices.DeleteFunc(running, func(s string) bool { return s == name })
				current = name
				continue
			}
			if m := framing.FindStringSubmatch(line); m != nil {
				if m[1] == "RUN" {
					running = append(running, m[2])
				}
				if m[2] != "" {
					current = m[2]
				}
				continue
			}
		}
		switch {
		case line == "conformance: wrapped":
			res.Wrapped = true
		case crashLine.MatchString(line):
			if crash == "" {
				crash = line
			}
		case testLog.MatchString(line) && !strings.Contains(line, "server log: "):
			logs[current] = append(logs[current], strings.TrimSpace(line))
		}
	}
	for _, name := range running {
		res.Status[name] = "FAIL"
		if len(name) > len(crashed) {
			crashed = name
		}
	}
	panicked := strings.HasPrefix(crash, "panic: ")
	failed := res.failed()
	if crashed == "" && panicked {
		// A panic marks its test as failed before it ends the process.
		for name := range failed {
			if len(name) > len(crashed) {
				crashed = name
			}
		}
	}
	if exit != nil && len(failed) == 0 {
		res.Status[top+"[exit]"] = "FAIL"
		res.Message[top+"[exit]"] = strings.TrimSpace(crash + " (" + exit.Error() + ")")
	}
	const most = 400 // bytes of a message
	for name := range failed {
		msg := strings.Join(logs[name][:min(3, len(logs[name]))], " | ")
		if msg == "" || panicked {
			msg = strings.TrimSpace(msg + " " + crash)
		}
		if len(msg) > most {
			msg = msg[:most] + "..."
		}
		res.Message[name] = msg
	}
	return res, crashed
}

// topOf is the top-level test that name belongs to.
func topOf(name string) string {
	top, _, _ := strings.Cut(strings.TrimSuffix(name, "[exit]"), "/")
	return top
}

// leaves returns the names that have no subtest among them, sorted.
func leaves(names map[string]bool) []string {
	var out []string
	for name := range names {
		leaf := true
		for other := range names {
			if strings.HasPrefix(other, name+"/") {
				leaf = false
				break
			}
		}
		if leaf {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// tops returns the top-level tests of names, each once.
func tops(names []string) []string {
	var out []string
	for _, name := range names {
		if top := topOf(name); !slices.Contains(out, top) {
			out = append(out, top)
		}
	}
	slices.Sort(out)
	return out
}

// twice runs the tests two more times, both rounds at once: most of what
// fails does so by waiting.
func (r runner) twice(tops []string) [2]map[string]result {
	var rounds [2]map[string]result
	var wg sync.WaitGroup
	for i := range rounds {
		wg.Go(func() { rounds[i] = r.runAll(tops, max(1, r.jobs/2)) })
	}
	wg.Wait()
	return rounds
}

// steady runs the failing tests of first twice more. stable is what failed
// each time, flaky what did not. A top-level test none of whose failures
// needs proof is not run again.
func (r runner) steady(first map[string]result, needsProof func(name string) bool) (stable map[string]bool, flaky []string) {
	stable = make(map[string]bool)
	var fresh []string
	for _, res := range first {
		failed := res.failed()
		for name := range failed {
			stable[name] = true
		}
		for _, name := range leaves(failed) {
			if needsProof(name) {
				fresh = append(fresh, name)
			}
		}
	}
	for _, round := range r.twice(tops(fresh)) {
		for top, res := range round {
			failed := res.failed()
			for name := range first[top].failed() {
				if stable[name] && !failed[name] {
					delete(stable, name)
					flaky = append(flaky, name)
				}
			}
		}
	}
	slices.Sort(flaky)
	return stable, flaky
}
