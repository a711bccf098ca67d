// What the tests do with a wrapper that does nothing, which is what every
// other one is measured against.

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// baseline is the outcome with wraps/passthrough.
type baseline struct {
	Status   map[string]string  // test name -> PASS, FAIL or SKIP
	Fail     map[string]string  // leaf that fails each time -> message
	BareFail []string           // of these, what fails with no wrapper at all, too
	Unsteady map[string]bool    // failed at least once of three times, parents included
	Took     map[string]float64 // top-level test -> seconds
}

// ran counts the tests that were not skipped, parents included.
func (b *baseline) ran() int {
	n := 0
	for _, status := range b.Status {
		if status != "SKIP" {
			n++
		}
	}
	return n
}

// baseline measures it, or takes it from the cache.
func (s *suite) baseline() (*baseline, error) {
	file := filepath.Join(s.work, "baseline.json")
	b := new(baseline)
	if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, b) == nil {
		fmt.Printf("baseline (cached): %d tests, %d fail\n", b.ran(), len(b.Fail))
		return b, nil
	}

	start := time.Now()
	r := s.runner(s.passBin, nil)
	list, err := r.list()
	if err != nil {
		return nil, err
	}
	first := r.runAll(list, s.jobs)
	everything := func(string) bool { return true }
	stable, flaky := r.steady(first, everything)

	*b = baseline{
		Status:   make(map[string]string),
		Fail:     make(map[string]string),
		Unsteady: make(map[string]bool),
		Took:     make(map[string]float64),
	}
	for top, res := range first {
		for name, status := range res.Status {
			if status == "FAIL" && !stable[name] {
				status = "PASS"
			}
			b.Status[name] = status
		}
		b.Took[top] = res.Seconds
	}
	for name := range stable {
		b.Unsteady[name] = true
	}
	for _, name := range flaky {
		b.Unsteady[name] = true
	}
	fail := leaves(stable)
	for _, name := range fail {
		b.Fail[name] = first[topOf(name)].Message[name]
	}

	// What fails now is this machine's fault, or Go's, not the wrapping's.
	r.bare = true
	bare, _ := r.steady(r.runAll(tops(fail), s.jobs), everything)
	for _, name := range fail {
		if bare[name] {
			b.BareFail = append(b.BareFail, name)
		}
	}

	text, err := json.MarshalIndent(b, "", " ")
	if err != nil {
		return nil, err
	}
	fmt.Printf("baseline (%.0fs): %d tests, %d fail (%d of them without a wrapper, too), unsteady: %v\n",
		time.Since(start).Seconds(), b.ran(), len(b.Fail), len(b.BareFail), flaky)
	return b, os.WriteFile(file, text, 0o644)
}
