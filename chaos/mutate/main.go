// Command mutate shows that the chaos run can fail: it breaks requestforge in
// one way after the other, and checks that a run notices each.
//
//	go run ./mutate
//
// The sources are never touched: go build -overlay puts a changed copy of one
// file in the place of the original. A mutation whose code isn't there any
// more is an error, with its name, and so is one that no run notices. The exit
// status is 1 for the latter and 2 for whatever kept a run from being made.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/requestforge/requestforge/chaos/oracle"
)

// mutation is one way to break requestforge.
type mutation struct {
	name string
	file string // below the root module
	old  string // what is there, exactly once
	new  string
	want []string // rules: the run has to report one of them
}

var mutations = []mutation{{
	name: "no stamp compared: the late refusal of an old token kills the new one",
	file: "pipeline_ledger.go",
	old: `	switch {
	case h == nil || !l.live(h):
		return nil, nil
	case l.replacedLocked(h):`,
	new: `	if h != nil {
		h = l.entries[h.step.index].token
	}
	switch {
	case h == nil || !l.live(h):
		return nil, nil
	case false:`,
	want: []string{oracle.RuleTokens},
}, {
	name: "origin check off",
	file: "auth_transport.go",
	old:  `	if !r.origins.Match(u) || `,
	new:  `	if false && !r.origins.Match(u) || `,
	want: []string{oracle.RulePlace},
}, {
	name: "body closed twice",
	file: "internal/replay/replay.go",
	old: `	if through {
		return b.src.Close()
	}
`,
	new: `	if through {
		b.src.Close()
		return b.src.Close()
	}
`,
	want: []string{oracle.RuleBodies},
}, {
	name: "no bucket",
	file: "pipeline_ledger.go",
	old:  `	case !l.bucket.Take(now):`,
	new:  `	case !l.bucket.Take(now) && false:`,
	want: []string{oracle.RuleFetches},
}, {
	name: "POST retried",
	file: "retry_transport.go",
	old:  `	case "", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":`,
	new:  `	case "", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST":`,
	want: []string{oracle.RuleDuplicate},
}}

// errUnnoticed says that a run came to another end than it should have; what
// was wrong has been printed.
var errUnnoticed = errors.New("unnoticed")

func main() {
	seed := flag.String("seed", "1", "the seed of each run")
	last := flag.String("for", "10s", "how long each run takes")
	requests := flag.String("requests", "8000", "how many requests each run sends")
	flag.Parse()
	m := mutator{args: []string{"-seed", *seed, "-for", *last, "-requests", *requests}}
	switch err := m.all(); {
	case errors.Is(err, errUnnoticed):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(2)
	}
}

type mutator struct {
	args []string // of each run
	dir  string   // for binaries and changed copies
}

func (m *mutator) all() (err error) {
	if m.dir, err = os.MkdirTemp("", "chaos-mutate-"); err != nil {
		return err
	}
	defer os.RemoveAll(m.dir)
	// First all of the binaries: a mutation that is out of date shows at once.
	plain := filepath.Join(m.dir, "plain")
	if err := build(plain, ""); err != nil {
		return err
	}
	bins := make([]string, len(mutations))
	for i, mut := range mutations {
		if bins[i], err = m.build(i, mut); err != nil {
			return fmt.Errorf("%s: %w", mut.name, err)
		}
	}

	result := error(nil)
	out, failed, err := m.run(plain)
	switch {
	case err != nil:
		return err
	case failed:
		fmt.Printf("FAIL  no mutation: the run fails\n%s", out)
		result = errUnnoticed
	default:
		fmt.Println("ok    no mutation: the run passes")
	}
	for i, mut := range mutations {
		start := time.Now()
		out, failed, err := m.run(bins[i])
		if err != nil {
			return fmt.Errorf("%s: %w", mut.name, err)
		}
		if why := mut.judge(out, failed); why != "" {
			fmt.Printf("FAIL  %s: %s\n%s", mut.name, why, out)
			result = errUnnoticed
			continue
		}
		fmt.Printf("ok    %s: noticed after %.0f s: %s\n", mut.name, time.Since(start).Seconds(), verdict(out))
	}
	return result
}

// judge returns what is wrong with the run of a mutation; "": it was noticed.
func (mut *mutation) judge(out string, failed bool) string {
	if !failed {
		return "the run passes"
	}
	for _, rule := range mut.want {
		if strings.Contains(verdict(out), rule) {
			return ""
		}
	}
	return fmt.Sprintf("the run fails, but for other reasons than %q", mut.want)
}

// verdict is that line of a run's output.
func verdict(out string) string {
	for line := range strings.Lines(out) {
		if text, ok := strings.CutPrefix(line, "verdict"); ok {
			return strings.TrimSpace(text)
		}
	}
	return "no verdict"
}

// build makes the binary with a mutation.
func (m *mutator) build(i int, mut mutation) (bin string, err error) {
	root, err := filepath.Abs("..")
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, filepath.FromSlash(mut.file))
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	changed, err := mut.apply(string(text))
	if err != nil {
		return "", err
	}
	bin = filepath.Join(m.dir, fmt.Sprintf("mutant%d", i+1))
	if err := os.WriteFile(bin+".go", []byte(changed), 0o644); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: bin + ".go"}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(bin+".json", overlay, 0o644); err != nil {
		return "", err
	}
	return bin, build(bin, bin+".json")
}

// apply changes the text of the mutation's file.
func (mut *mutation) apply(text string) (string, error) {
	if n := strings.Count(text, mut.old); n != 1 {
		return "", fmt.Errorf("%s has %d times, and not once, the code to be changed; this mutation needs a new place:\n%s", mut.file, n, mut.old)
	}
	return strings.Replace(text, mut.old, mut.new, 1), nil
}

// build builds the command in the working directory.
func build(bin, overlay string) error {
	args := []string{"build", "-o", bin}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// run runs a binary and returns what it printed, and whether it found a
// violation.
func (m *mutator) run(bin string) (out string, failed bool, err error) {
	var b bytes.Buffer
	cmd := exec.Command(bin, m.args...)
	cmd.Stdout, cmd.Stderr = &b, &b
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return b.String(), true, nil
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, b.String())
	}
	return b.String(), false, err
}
