// Command mutate shows that the chaos run and the tests can fail: it breaks
// requestforge in one way after the other, and checks that tests or a run notice each.
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
	"slices"
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
	name: "whose token: the key doesn't say",
	file: "pipeline_identity.go",
	old:  "	return key + \"@\" + hex.EncodeToString(h.Sum(nil)[:10])\n",
	new:  "	_ = hex.EncodeToString\n	return key\n",
	want: []string{oracle.RuleIdentity},
}, {
	name: "whose token: a rotated secret makes it somebody else's",
	file: "pipeline_identity.go",
	old:  "	return said\n",
	new:  "	var w bytes.Buffer\n	if d, ok := f.(Fingerprinter); ok {\n		d.Fingerprint(&w)\n	}\n	return said + w.String()\n",
	want: []string{oracle.RuleTakeover},
}, {
	name: "no stamp compared: the late refusal of an old token kills the new one",
	file: "pipeline_ledger_blame.go",
	old: `	switch {
	case h == nil || !l.live(h):
		return nil, nil, false
	case l.replacedLocked(h):`,
	new: `	if h != nil {
		h = l.entry(h.step.index).token
	}
	switch {
	case h == nil || !l.live(h):
		return nil, nil, false
	case false:`,
	want: []string{oracle.RuleTokens},
}, {
	name: "origin check off",
	file: "auth_transport.go",
	old:  `	if !moves && !r.origins.Match(u) || `,
	new:  `	if !moves && false || `,
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
	name: "a request that waits holds its connection",
	file: "internal/roundtrip/body.go",
	old:  "	if resp.Body == nil {\n		resp.Body = http.NoBody\n	}\n	switch resp.Body.(type) {\n	case *inMemory,",
	new:  "	if resp.Body == nil {\n		resp.Body = http.NoBody\n	}\n	if resp.Body != nil {\n		return\n	}\n	switch resp.Body.(type) {\n	case *inMemory,",
	want: []string{oracle.RuleHeld},
}, {
	name: "no retry budget",
	file: "retry_transport.go",
	old:  " || !t.budget.Take(time.Now()) {",
	new:  " || !t.budget.Take(time.Now()) && false {",
	want: []string{oracle.RuleRetries},
}, {
	name: "sends have no number",
	file: "exchange.go",
	old:  "	ctx = context.WithValue(ctx, sendNumberKey{}, max(above, int(before))+1)\n",
	new:  "	_, _ = above, before\n",
	want: []string{oracle.RuleNumber},
}, {
	name: "POST retried",
	file: "retry_outcome.go",
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
	only := flag.String("only", "", "do those whose name has this text; empty: all")
	flag.Parse()
	mutations = slices.DeleteFunc(mutations, func(mut mutation) bool { return !strings.Contains(mut.name, *only) })
	testedMutations = slices.DeleteFunc(testedMutations, func(mut tested) bool { return !strings.Contains(mut.name, *only) })
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
	for i, mut := range testedMutations {
		start := time.Now()
		wrong, err := m.notice(i, mut)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", mut.name, err)
		case wrong != "":
			fmt.Printf("FAIL  %s: %s\n", mut.name, wrong)
			result = errUnnoticed
		default:
			fmt.Printf("ok    %s: noticed after %.0f s\n", mut.name, time.Since(start).Seconds())
		}
	}
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
	name := fmt.Sprintf("mutant%d", i+1)
	overlay, err := m.overlay(name, mut)
	if err != nil {
		return "", err
	}
	bin = filepath.Join(m.dir, name)
	return bin, build(bin, overlay)
}

// overlay writes a changed copy of a mutation's file, and what go build has to be told
// of it.
func (m *mutator) overlay(name string, mut mutation) (path string, err error) {
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
	path = filepath.Join(m.dir, name)
	if err := os.WriteFile(path+".go", []byte(changed), 0o644); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: path + ".go"}})
	if err != nil {
		return "", err
	}
	return path + ".json", os.WriteFile(path+".json", overlay, 0o644)
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
