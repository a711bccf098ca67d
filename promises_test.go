// PROMISES.md and SOAK.md against the source. That each test there also ran and passed is
// for tools/promises to say, once all of them have run.

package requestforge_test

import (
	"errors"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestPromisesHaveTests(t *testing.T) {
	t.Parallel()
	tests := make(map[string]map[string]bool) // dir -> names, read once
	for _, page := range []string{"PROMISES.md", "SOAK.md"} {
		promisesHaveTests(t, page, tests)
	}
}

func promisesHaveTests(t *testing.T, page string, tests map[string]map[string]bool) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	// As in tools/promises, which refuses lines of another form.
	ofPackage := regexp.MustCompile("((?:`[^`]+`,? )+)\\(`([^`]+)`\\)")
	quoted := regexp.MustCompile("`([^`]+)`")
	var promises [][]string
	for _, line := range regexp.MustCompile("(?m)^- .+? — (`.*)$").FindAllStringSubmatch(string(text), -1) {
		promises = append(promises, ofPackage.FindAllStringSubmatch(line[1], -1)...)
	}
	if len(promises) == 0 {
		t.Fatalf("%s holds no promise", page)
	}

	// The module as it is published has no other modules in its folders.
	_, err = os.Stat("tools")
	published := errors.Is(err, fs.ErrNotExist)

	for _, p := range promises {
		dir := p[2]
		if _, err := os.Stat(dir); published && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if tests[dir] == nil {
			tests[dir] = testsIn(t, dir)
		}
		for _, q := range quoted.FindAllStringSubmatch(p[1], -1) {
			name, _, _ := strings.Cut(q[1], "/") // a subtest has no name in the source
			if !tests[dir][name] {
				t.Errorf("%s names %s, which %s doesn't have", page, name, dir)
			}
		}
	}
}

// testsIn returns the names of the functions in dir's test files that go test
// would run, whatever their build constraints.
func testsIn(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, file := range files {
		f, err := parser.ParseFile(gotoken.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Recv != nil {
				continue
			}
			for _, prefix := range []string{"Test", "Fuzz", "Example"} {
				if strings.HasPrefix(fn.Name.Name, prefix) {
					names[fn.Name.Name] = true
				}
			}
		}
	}
	return names
}
