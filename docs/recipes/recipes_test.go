package recipes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecipesAreShort counts the lines of code of each client, and sees that
// each recipe is run by a test and shown by the README.
func TestRecipesAreShort(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	mains, err := filepath.Glob("*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatalf("no recipes: %v", err)
	}
	for _, file := range mains {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, client, _ := strings.Cut(string(code), "\n)\n") // the imports
		client, _, ok := strings.Cut(client, "\nfunc main() {")
		if !ok {
			t.Errorf("%s has no main", file)
		}
		n := 0
		for line := range strings.Lines(client) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
				n++
			}
		}
		if n >= 60 {
			t.Errorf("%s: %d lines of client code, want less than 60", file, n)
		}
		test, err := os.ReadFile(filepath.Join(filepath.Dir(file), "main_test.go"))
		if err != nil || !strings.Contains(string(test), "// Output:") {
			t.Errorf("%s isn't run by an Example with an output: %v", file, err)
		}
		if !strings.Contains(string(readme), "<!-- from: "+filepath.ToSlash(filepath.Dir(file))+"/") {
			t.Errorf("the README shows nothing of %s", file)
		}
	}
}
