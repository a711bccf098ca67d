// Command promises reads PROMISES.md and the records of a test run, and fails
// unless every test that is named there ran and passed:
//
//	promises PROMISES.md run.json...
//
// The records are the output of go test -json, any number of files: what
// one pass leaves out (an allocation test under the race detector) counts if
// another has run it. A test that failed in any of them has failed.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/mod/modfile"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: promises PROMISES.md run.json...")
		os.Exit(2)
	}
	n, err := check(os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%d promises, each with a test that ran and passed\n", n)
}

// check returns how many promises the file holds. Its error joins everything
// that is wrong.
func check(file string, runs []string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	promises, err := parse(string(text))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	seen := make(results)
	for _, name := range runs {
		if err := seen.readFile(name); err != nil {
			return 0, err
		}
	}

	var faults []error
	for _, p := range promises {
		pkg, err := importPath(filepath.Dir(file), p.dir)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s:%d: %w", file, p.line, err))
			continue
		}
		for _, test := range p.tests {
			if fault := seen.fault(pkg, test); fault != "" {
				faults = append(faults, fmt.Errorf("%s:%d: %s (%s) %s", file, p.line, test, p.dir, fault))
			}
		}
	}
	lines := map[int]bool{}
	for _, p := range promises {
		lines[p.line] = true
	}
	return len(lines), errors.Join(faults...)
}

// promise is what one line of PROMISES.md says of one package.
type promise struct {
	line  int
	tests []string
	dir   string // of the package, as written: slash-separated, from the root
}

// inPackage is a regular expression for tests of one package.
const inPackage = "`[^`]+`(?:, `[^`]+`)* \\(`[^`]+`\\)"

var (
	// promises_test.go in the root reads the same format.
	promiseLine = regexp.MustCompile("^- .+? — (" + inPackage + "(?:, " + inPackage + ")*)$")
	ofPackage   = regexp.MustCompile("((?:`[^`]+`,? )+)\\(`([^`]+)`\\)")
	quoted      = regexp.MustCompile("`([^`]+)`")

	// namesTest finds lines that look as if they were meant to be a
	// promise, so that none is passed over in silence.
	namesTest = regexp.MustCompile("^- |`(Test|Fuzz|Example)[^`]*`")
)

// parse returns the promises of a file, of which there must be at least one.
func parse(text string) ([]promise, error) {
	var promises []promise
	var faults []error
	for i, line := range strings.Split(text, "\n") {
		m := promiseLine.FindStringSubmatch(strings.TrimSuffix(line, "\r"))
		if m == nil {
			if namesTest.MatchString(line) {
				faults = append(faults, fmt.Errorf("line %d: not of the form \"- promise — `TestName`, … (`./dir`), …\": %s", i+1, line))
			}
			continue
		}
		for _, of := range ofPackage.FindAllStringSubmatch(m[1], -1) {
			p := promise{line: i + 1, dir: of[2]}
			for _, q := range quoted.FindAllStringSubmatch(of[1], -1) {
				p.tests = append(p.tests, q[1])
			}
			promises = append(promises, p)
		}
	}
	if len(promises) == 0 && len(faults) == 0 {
		faults = append(faults, errors.New("no promise in it"))
	}
	return promises, errors.Join(faults...)
}

// importPath returns the import path of the package in dir below root, which
// may belong to any module of the repository.
func importPath(root, dir string) (string, error) {
	if !filepath.IsLocal(dir) {
		return "", fmt.Errorf("%s is not a folder of this repository", dir)
	}
	at := filepath.Join(root, dir)
	if info, err := os.Stat(at); err != nil || !info.IsDir() {
		return "", fmt.Errorf("%s is not a folder of this repository", dir)
	}
	below := ""
	for {
		mod, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil {
			return strings.TrimSuffix(modfile.ModulePath(mod)+"/"+below, "/"), nil
		}
		if at == filepath.Clean(root) {
			return "", fmt.Errorf("%s belongs to no module", dir)
		}
		below = strings.TrimSuffix(filepath.Base(at)+"/"+below, "/")
		at = filepath.Dir(at)
	}
}

// results says how each test ended, over all the runs.
type results map[test]outcome

type test struct{ pkg, name string }

type outcome struct{ passed, failed, skipped bool }

func (r results) readFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.read(f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (r results) read(src io.Reader) error {
	for dec := json.NewDecoder(src); ; {
		var event struct{ Action, Package, Test string }
		switch err := dec.Decode(&event); {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("not the output of go test -json: %w", err)
		case event.Test == "":
			continue // about the package, or about a build
		}
		key := test{event.Package, event.Test}
		o := r[key]
		switch event.Action {
		case "pass":
			o.passed = true
		case "fail":
			o.failed = true
		case "skip":
			o.skipped = true
		}
		r[key] = o
	}
}

// fault says what is wrong with a test, "" if it has kept its promise. A test
// that passed because a part of it was skipped has proven only the rest. A fuzz
// target may skip: that is how it says that an input is none of its business.
func (r results) fault(pkg, name string) string {
	o := r[test{pkg, name}]
	switch {
	case o.failed:
		return "failed"
	case !o.passed && o.skipped:
		return "was skipped"
	case !o.passed:
		return "did not run"
	case strings.HasPrefix(name, "Fuzz"):
		return ""
	}
	for t, o := range r {
		if t.pkg == pkg && strings.HasPrefix(t.name, name+"/") && o.skipped && !o.passed {
			return "passed, but its part " + t.name + " was skipped"
		}
	}
	return ""
}
