package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scratch is a repository of a root module, a submodule that requires the root, and one
// without releases.
func scratch(t *testing.T, change map[string]string) *repository {
	t.Helper()
	r := &repository{dir: filepath.Join(t.TempDir(), "r"), apart: []string{"tools"}, scratch: true}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	git(t, r, "init", "-q", "-b", "main")
	commit(t, r, map[string]string{
		"go.mod":       "module example.com/u/r\n\ngo 1.26.0\n",
		"r.go":         "package r\n\n// One is 1.\nfunc One() int { return 1 }\n",
		"sub/go.mod":   "module example.com/u/r/sub\n\ngo 1.26.0\n\nrequire example.com/u/r v0.0.0\n\nreplace example.com/u/r => ../\n",
		"sub/sub.go":   "package sub\n\nimport \"example.com/u/r\"\n\n// Two is 2.\nfunc Two() int { return r.One() + 1 }\n",
		"tools/go.mod": "module example.com/u/r/tools\n\ngo 1.26.0\n\nrequire example.com/u/r v0.0.0\n\nreplace example.com/u/r => ../\n",
		"tools/t.go":   "package main\n\nfunc main() {}\n",
	})
	commit(t, r, change)
	return r
}

func git(t *testing.T, r *repository, args ...string) string {
	t.Helper()
	out, err := r.git(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func commit(t *testing.T, r *repository, files map[string]string) {
	t.Helper()
	if len(files) == 0 {
		return
	}
	for name, content := range files {
		name = filepath.Join(r.dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git(t, r, "add", "-A")
	git(t, r, "commit", "-q", "-m", "change")
}

func TestReleaseIsTaggedInOrder(t *testing.T) {
	r := scratch(t, nil)
	var out strings.Builder
	if err := r.release(&out, "v0.1.0"); err != nil {
		t.Fatal(err)
	}
	if want := "git push origin HEAD v0.1.0 sub/v0.1.0\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("got %q, want %q at the end", out.String(), want)
	}
	if got := git(t, r, "tag", "--list"); got != "sub/v0.1.0\nv0.1.0\n" {
		t.Errorf("the tags are %q", got)
	}
	if mod := git(t, r, "show", "sub/v0.1.0:sub/go.mod"); !strings.Contains(mod, "require example.com/u/r v0.1.0") || !strings.Contains(mod, "replace example.com/u/r => ../") {
		t.Errorf("the submodule has\n%s", mod)
	}
	if mod := git(t, r, "show", "HEAD:tools/go.mod"); !strings.Contains(mod, "require example.com/u/r v0.1.0") {
		t.Errorf("the module without releases has\n%s", mod)
	}
	if subject := git(t, r, "log", "-1", "--format=%s"); subject != "release: v0.1.0\n" {
		t.Errorf("the commit is %q", subject)
	}
	if status := git(t, r, "status", "--porcelain"); status != "" {
		t.Errorf("changes are left: %s", status)
	}
}

func TestReleaseThatCannotBeIsRefused(t *testing.T) {
	const broken = "package sub\n\nimport \"example.com/u/r\"\n\n// Two is 2.\nfunc Two() int { return r.None() }\n"
	for name, c := range map[string]struct {
		version string
		change  map[string]string
		tag     string
		dirty   bool
		want    string
	}{
		"no version":      {version: "1.0", want: `"1.0" is no version`},
		"not canonical":   {version: "v1.0", want: `"v1.0" is no version`},
		"v2":              {version: "v2.0.0", want: "the major version is part of every module's path"},
		"dirty":           {version: "v0.1.0", dirty: true, want: "there are changes that aren't committed"},
		"the same again":  {version: "v0.1.0", tag: "v0.1.0", want: "example.com/u/r has a release v0.1.0"},
		"a submodule's":   {version: "v0.1.0", tag: "sub/v0.2.0", want: "example.com/u/r/sub has a release v0.2.0"},
		"one without":     {version: "v0.1.0", change: map[string]string{"sub/go.mod": "module example.com/u/r/sub\n\nrequire example.com/u/r/tools v0.0.0\n"}, want: "requires example.com/u/r/tools, which has no releases"},
		"in a circle":     {version: "v0.1.0", change: map[string]string{"go.mod": "module example.com/u/r\n\nrequire example.com/u/r/sub v0.0.0\n"}, want: "in a circle"},
		"breaks users":    {version: "v1.1.0", tag: "v1.0.0", change: map[string]string{"r.go": "package r\n"}, want: "example.com/u/r: One: removed"},
		"doesn't compile": {version: "v0.2.0", tag: "sub/v0.1.0", change: map[string]string{"sub/sub.go": broken}, want: "can't be compared with v0.1.0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := scratch(t, nil)
			if c.tag != "" {
				git(t, r, "tag", c.tag)
			}
			commit(t, r, c.change)
			if c.dirty {
				os.WriteFile(filepath.Join(r.dir, "new.go"), []byte("package r\n"), 0o644)
			}
			before := git(t, r, "tag", "--list")
			head, status := git(t, r, "rev-parse", "HEAD"), git(t, r, "status", "--porcelain")
			err := r.release(new(strings.Builder), c.version)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if after := git(t, r, "tag", "--list"); after != before {
				t.Errorf("there are tags %q", after)
			}
			if h, s := git(t, r, "rev-parse", "HEAD"), git(t, r, "status", "--porcelain"); h != head || s != status {
				t.Errorf("it leaves changes: %s%s", h, s)
			}
		})
	}
}

// Before v1 a change that breaks users is said, and no more.
func TestChangesOfTheAPIAreSaid(t *testing.T) {
	r := scratch(t, nil)
	git(t, r, "tag", "v0.1.0")
	commit(t, r, map[string]string{"r.go": "package r\n\n// Uno is 1.\nfunc Uno() int { return 1 }\n", "sub/sub.go": "package sub\n"})
	var out strings.Builder
	if err := r.release(&out, "v0.2.0"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"example.com/u/r since v0.1.0:", "One: removed", "Uno: added"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q isn't in\n%s", want, out.String())
		}
	}
}

// A stranger installs each module, and a newer root under an older submodule; what breaks
// that is noticed.
func TestCheckInstallsAsAStranger(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]string
		want   string // "": it works
	}{
		"as it is":        {},
		"doesn't compile": {map[string]string{"sub/sub.go": "package sub\n\nimport \"example.com/u/r\"\n\nvar _ = r.None\n"}, "a stranger can't use example.com/u/r/sub@v0.1.0"},
		"needs what is only in the repository": {map[string]string{
			"sub/go.mod":       "module example.com/u/r/sub\n\ngo 1.26.0\n\nrequire (\n\texample.com/u/r v0.0.0\n\texample.com/u/r/tools v0.1.0\n)\n\nreplace example.com/u/r => ../\n\nreplace example.com/u/r/tools => ../tools\n",
			"sub/sub.go":       "package sub\n\nimport _ \"example.com/u/r/tools/lib\"\n",
			"tools/lib/lib.go": "package lib\n",
		}, "requires example.com/u/r/tools, which has no releases"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := scratch(t, c.change)
			var out strings.Builder
			err := r.check(&out, "", t.TempDir())
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want == "" && !strings.HasSuffix(out.String(), "example.com/u/r@v0.1.1: go build works with the others at v0.1.0\n"):
				t.Errorf("it says\n%s", out.String())
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if tags := git(t, r, "tag", "--list"); tags != "" {
				t.Errorf("the repository has tags %q", tags)
			}
		})
	}
}

// What a release has changed before an error is undone.
func TestReleaseThatFailsMidwayLeavesNothing(t *testing.T) {
	r := scratch(t, nil)
	head := git(t, r, "rev-parse", "HEAD")
	git(t, r, "tag", "sub/v0.1.0/in/the/way") // no tag sub/v0.1.0 may be beside it
	if err := r.release(new(strings.Builder), "v0.1.0"); err == nil || !strings.Contains(err.Error(), "sub/v0.1.0") {
		t.Fatalf("got %v", err)
	}
	if got := git(t, r, "tag", "--list"); got != "sub/v0.1.0/in/the/way\n" {
		t.Errorf("the tags are %q", got)
	}
	if h, s := git(t, r, "rev-parse", "HEAD"), git(t, r, "status", "--porcelain"); h != head || s != "" {
		t.Errorf("it leaves changes: %s%s", h, s)
	}
}

// The root's coming release is tried with the others of the release before.
func TestCheckTriesTheRootUnderOlderModules(t *testing.T) {
	gone := map[string]string{
		"r.go":       "package r\n\n// Uno is 1.\nfunc Uno() int { return 1 }\n",
		"sub/sub.go": "package sub\n\nimport \"example.com/u/r\"\n\n// Two is 2.\nfunc Two() int { return r.Uno() + 1 }\n",
	}
	for name, c := range map[string]struct {
		version   string
		change    map[string]string
		want, err string
	}{
		"as it was":          {"", map[string]string{"r.go": "package r\n\n// One is 1.\nfunc One() int { return 2 - 1 }\n"}, "example.com/u/r@v0.1.1: go build works with the others at v0.1.0\n", ""},
		"a patch that tears": {"", gone, "", "a stranger can't use example.com/u/r@v0.1.1 with the others at v0.1.0"},
		"a minor before v1":  {"v0.2.0", gone, "Before v1 that is no error in a new minor version.\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := scratch(t, nil)
			if err := r.release(new(strings.Builder), "v0.1.0"); err != nil {
				t.Fatal(err)
			}
			commit(t, r, c.change)
			var out strings.Builder
			err := r.check(&out, c.version, t.TempDir())
			if c.err == "" && (err != nil || !strings.HasSuffix(out.String(), c.want)) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got %v, and it says\n%s", err, out.String())
			}
		})
	}
}

// A module that sorts first is tagged after those that it requires.
func TestModulesComeAfterWhatTheyRequire(t *testing.T) {
	r := scratch(t, map[string]string{
		"early/go.mod": "module example.com/u/r/early\n\ngo 1.26.0\n\nrequire (\n\texample.com/u/r v0.0.0\n\texample.com/u/r/sub v0.0.0\n)\n",
		"early/e.go":   "package early\n",
	})
	modules, err := r.modules()
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range modules {
		order = append(order, m.tag("v1"))
	}
	if got, want := strings.Join(order, " "), "v1 sub/v1 early/v1"; got != want {
		t.Errorf("the order is %s, want %s", got, want)
	}
}

func TestNext(t *testing.T) {
	for version, want := range map[string]string{"": "v0.1.0", "v0.1.0": "v0.1.1", "v1.2.9": "v1.2.10", "v1.0.0-rc.1": "v1.0.0"} {
		if got := next(version); got != want {
			t.Errorf("next(%q) is %s, want %s", version, got, want)
		}
	}
}
