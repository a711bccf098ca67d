// Reading back what measure.go has written.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// A sampleFile is what was measured for one suite.
type sampleFile struct {
	suite suite
	cases []*sampledCase
}

// A sampledCase holds the samples of one case in the order of the rounds.
type sampledCase struct {
	name   string
	config map[string]string // where and with what they were taken
	impls  []string          // in the order of the file
	byKey  map[sampleKey][]float64
}

type sampleKey struct{ impl, unit string }

// values are those of one candidate, round by round. There may be none.
func (c *sampledCase) values(impl, unit string) []float64 {
	return c.byKey[sampleKey{impl, unit}]
}

// readSamples reads all files of samples that are in dir.
func readSamples(dir string) ([]sampleFile, error) {
	var files []sampleFile
	for _, s := range suites {
		path := filepath.Join(dir, "samples", s.file)
		f, err := readSampleFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f.suite = s
		files = append(files, f)
	}
	return files, nil
}

// implKey is before the name of the candidate in that of a sample.
const implKey = "/impl="

func readSampleFile(path string) (sampleFile, error) {
	var f sampleFile
	results, err := readResults(path)
	if err != nil {
		return f, err
	}
	for _, r := range results {
		name, impl, ok := strings.Cut(r.Name.String(), implKey)
		if !ok {
			return f, fmt.Errorf("%s: %s names no candidate", path, r.Name)
		}
		if viewOf(name) == nil {
			return f, fmt.Errorf("%s: there is no case %s", path, name)
		}
		f.add(name, impl, r)
	}
	return f, nil
}

func readResults(path string) ([]*benchfmt.Result, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var results []*benchfmt.Result
	r := benchfmt.NewReader(in, path)
	for r.Scan() {
		switch rec := r.Result().(type) {
		case *benchfmt.SyntaxError:
			return nil, rec
		case *benchfmt.Result:
			results = append(results, rec.Clone())
		}
	}
	return results, r.Err()
}

func (f *sampleFile) add(name, impl string, r *benchfmt.Result) {
	c := f.find(name)
	if c == nil {
		c = &sampledCase{name: name, config: make(map[string]string), byKey: make(map[sampleKey][]float64)}
		for _, k := range r.Config {
			c.config[k.Key] = string(k.Value)
		}
		f.cases = append(f.cases, c)
	}
	if len(c.values(impl, seconds)) == 0 {
		c.impls = append(c.impls, impl)
	}
	for _, v := range r.Values {
		key := sampleKey{impl, v.Unit}
		c.byKey[key] = append(c.byKey[key], v.Value)
	}
}

func (f *sampleFile) find(name string) *sampledCase {
	for _, c := range f.cases {
		if c.name == name {
			return c
		}
	}
	return nil
}

func findCase(all []sampleFile, name string) *sampledCase {
	for _, f := range all {
		if c := f.find(name); c != nil {
			return c
		}
	}
	return nil
}
