package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const source = `package x

import "fmt"

func Example_twoSteps() {
	// readme:start one
	fmt.Println("one")
	// readme:end one
	if true {
		// readme:start nested
		fmt.Println("// readme:start in a string")
		if false {
			fmt.Println()
		}
		// readme:end nested
	}
	// Output:
	// one
	// readme:start in a string
}

type T[P any] struct{}

func (t *T[P]) Do() { fmt.Println("done") }

func Do() { fmt.Println("do") }

var list = []string{
	// readme:start part
	"a",
	"b",
	// readme:end part
}
`

// inRepository makes the files in a directory of their own and goes there.
func inRepository(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGoodFiles(t *testing.T) {
	inRepository(t, map[string]string{
		"x_test.go":       source,
		"LICENSE":         "MIT",
		"sub/main.go":     "// Command sub.\npackage main\n\n// readme:start all\nfunc main() {}\n\n// readme:end all\n",
		"sub/README.md":   "# Sub\n\n[up](../README.md#the-picture-1)\n\n<!-- from: main.go -->\n```go\n// Command sub.\npackage main\n\nfunc main() {}\n```\n\n<!-- from: ../x_test.go#Do -->\n```go\nfmt.Println(\"do\")\n```\n",
		"docs/empty/x.md": "",
		"README.md": `# The name

See [the picture](#the-picture), [it again](#the-picture-1), [Größe & ` + "`Code`" + `](#größe--code_of-v2), [sub], [docs](docs/empty/),
[a line](x_test.go#L3), [from the root](/sub/main.go), [the web](https://example.com/none), [mail](mailto:a@example.com).

[sub]: ./sub/README.md

## The picture
## The picture
## Größe & ` + "`Code_of`" + ` v2!

<!-- from: x_test.go#one -->

` + "```go" + `
    fmt.Println("one")
` + "```" + `

<!-- from: x_test.go#nested -->
` + "```go" + `
fmt.Println("// readme:start in a string")
if false {
	fmt.Println()
}
` + "```" + `

<!-- from: x_test.go#T.Do -->
` + "```go" + `
fmt.Println("done")
` + "```" + `

<!-- from: x_test.go#part -->
` + "```go" + `
"a",
"b",
` + "```" + `

<!-- from: x_test.go#Example_twoSteps -->
` + "```go" + `
fmt.Println("one")
if true {
	fmt.Println("// readme:start in a string")
	if false {
		fmt.Println()
	}
}
` + "```" + `

` + "```sh" + `
go get example.com/x
` + "```" + `
`,
	})
	n, err := check([]string{"README.md", "sub/README.md", "docs/empty/x.md"}, false)
	if n != 7 || err != nil {
		t.Errorf("check = %d, %v; want 7, nil", n, err)
	}
}

func TestFaultyFiles(t *testing.T) {
	block := "```go\nfmt.Println(\"do\")\n```\n"
	for name, tt := range map[string]struct{ text, want string }{
		"no marker":             {"# A\n\n" + block, "README.md:3: a Go block without"},
		"text in between":       {"<!-- from: x_test.go#Do -->\n\nText.\n\n" + block, "README.md:5: a Go block without"},
		"golang":                {"```golang\nx\n```\n", "a Go block without"},
		"no language":           {"```\nfmt.Println(\"do\")\n```\n", "README.md:1: a code block without a language"},
		"in a list":             {"- <!-- from: x_test.go#Do -->\n  ```go\n  fmt.Println(\"do\")\n  ```\n", "inside of a list"},
		"differs":               {"<!-- from: x_test.go#Do -->\n```go\nfmt.Println(\"did\")\n```\n", "isn't as in its source any more: <!-- from: x_test.go#Do -->"},
		"empty":                 {"<!-- from: x_test.go#Do -->\n```go\n```\n", "isn't as in its source any more"},
		"an empty last line":    {"<!-- from: x_test.go#Do -->\n```go", "isn't as in its source any more"},
		"no such file":          {"<!-- from: none.go#Do -->\n" + block, "none.go"},
		"no such function":      {"<!-- from: x_test.go#Don -->\n" + block, "has no function and no region Don"},
		"a method by its name":  {"<!-- from: m.go#Do -->\n" + block, "has no function and no region Do"},
		"two of the name":       {"<!-- from: twice.go#Do -->\n" + block, "has more than one Do"},
		"not Go":                {"<!-- from: x.txt -->\n" + block, "not a Go file"},
		"outside":               {"<!-- from: ../x.go -->\n" + block, "not a Go file of this repository"},
		"in testdata":           {"<!-- from: testdata/x.go -->\n" + block, "is below testdata"},
		"build constraint":      {"<!-- from: ignored.go -->\n" + block, "is not compiled here"},
		"syntax error":          {"<!-- from: broken.go#Do -->\n" + block, "broken.go:1"},
		"region without end":    {"<!-- from: open.go#r -->\n" + block, "region r doesn't end"},
		"region without start":  {"<!-- from: closed.go#r -->\n" + block, "region r ends before it starts"},
		"region in itself":      {"<!-- from: nested.go#r -->\n" + block, "region r starts within itself"},
		"marker without block":  {"<!-- from: x_test.go#Do -->\n\nText.\n", "README.md:1: <!-- from: x_test.go#Do --> has no Go block"},
		"misspelt marker":       {"<!-- from: x_test.go Do -->\n\nText.\n", "is misspelt"},
		"dead link":             {"# A\n\n[x](none.md)\n", "README.md:3: link to none.md: no such file"},
		"dead image":            {"![x](none.png)\n", "link to none.png: no such file"},
		"dead reference":        {"[x]\n\n[x]: none.md\n", "link to none.md: no such file"},
		"dead heading":          {"# A\n\n[x](#b)\n", "link to #b: no such heading"},
		"dead heading of other": {"[x](other.md#b)\n", "link to other.md#b: no such heading"},
		"link out of here":      {"[x](../x.md)\n", "leaves the repository"},
		"bad link":              {"[x](%zz)\n", "invalid URL escape"},
	} {
		t.Run(name, func(t *testing.T) {
			inRepository(t, map[string]string{
				"README.md":     tt.text,
				"other.md":      "# A\n",
				"x_test.go":     source,
				"x.txt":         "fmt.Println(\"do\")\n",
				"testdata/x.go": "package x\n",
				"ignored.go":    "//go:build ignore\n\npackage x\n",
				"broken.go":     "package\n",
				"m.go":          "package x\n\nfunc (t *T) Do() {}\n",
				"twice.go":      "package x\n\nfunc Do() {}\n\n// readme:start Do\n\n// readme:end Do\n",
				"open.go":       "package x\n\n// readme:start r\n",
				"closed.go":     "package x\n\n// readme:end r\n",
				"nested.go":     "package x\n\n// readme:start r\n// readme:start r\n",
			})
			_, err := check([]string{"README.md"}, false)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestEveryFaultIsNamed(t *testing.T) {
	inRepository(t, map[string]string{
		"a.md": "[x](none.md)\n\n```go\n```\n",
		"b.md": "[x](gone.md)\n",
	})
	_, err := check([]string{"a.md", "missing.md", "b.md"}, false)
	for _, want := range []string{"none.md", "a.md:3", "missing.md", "gone.md"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestWrite(t *testing.T) {
	const before = "# A\n\n<!-- from: x_test.go#Do -->\n```go\nold\n```\n\nText.\n\n<!-- from: x_test.go#one -->\n```go\n```\nEnd.\n"
	const after = "# A\n\n<!-- from: x_test.go#Do -->\n```go\nfmt.Println(\"do\")\n```\n\nText.\n\n<!-- from: x_test.go#one -->\n```go\nfmt.Println(\"one\")\n```\nEnd.\n"
	inRepository(t, map[string]string{"README.md": before, "x_test.go": source})
	if n, err := check([]string{"README.md"}, true); n != 2 || err != nil {
		t.Fatalf("check = %d, %v; want 2, nil", n, err)
	}
	got, err := os.ReadFile("README.md")
	if err != nil || string(got) != after {
		t.Errorf("got %q, %v; want %q", got, err, after)
	}
	if _, err := check([]string{"README.md"}, false); err != nil {
		t.Error(err)
	}
}

func TestWriteLeavesFaultyFilesAlone(t *testing.T) {
	const text = "<!-- from: x_test.go#Do -->\n```go\nold\n```\n\n```go\nno marker\n```\n"
	inRepository(t, map[string]string{"README.md": text, "x_test.go": source})
	if _, err := check([]string{"README.md"}, true); err == nil {
		t.Error("no error")
	}
	if got, err := os.ReadFile("README.md"); err != nil || string(got) != text {
		t.Errorf("got %q, %v; want %q", got, err, text)
	}
}
