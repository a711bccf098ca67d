package requestforge_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every room of the root is on the map that a newcomer gets.
func TestMapNamesEveryRoom(t *testing.T) {
	rooms := mapOfRooms(t)
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") && !slices.Contains(rooms, f) {
			t.Errorf("CONTRIBUTING.md, Where things are: %s is not in the table", f)
		}
	}
}

// So is every package, and the map names nothing that is gone.
func TestMapNamesEveryPackage(t *testing.T) {
	rooms := mapOfRooms(t)
	if len(rooms) < 100 {
		t.Fatalf("only %d names on the map", len(rooms))
	}
	found := make(map[string]bool)
	for _, dir := range packages(t) {
		known := false
		for _, room := range rooms {
			if ok, err := path.Match(room, dir); err == nil && ok {
				known, found[room] = true, true
			}
		}
		if !known {
			t.Errorf("CONTRIBUTING.md, Where things are: package %s is in no table", dir)
		}
	}
	if _, err := os.Stat("tools"); err != nil {
		return // the module as it is published has no other modules in its folders
	}
	for _, room := range rooms {
		if _, err := os.Stat(room); err != nil && !found[room] {
			t.Errorf("CONTRIBUTING.md, Where things are: there is no %s", room)
		}
	}
}

// mapOfRooms returns the files and folders in the first columns of the tables.
func mapOfRooms(t *testing.T) (rooms []string) {
	t.Helper()
	doc, err := os.ReadFile("CONTRIBUTING.md")
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(doc), "## Where things are\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, quoted := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				rooms = append(rooms, quoted[1])
			}
		}
	}
	return rooms
}

// packages are the folders below the root that have Go files.
func packages(t *testing.T) (dirs []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(name, ".go"):
			if dir := filepath.ToSlash(filepath.Dir(name)); dir != "." {
				dirs = append(dirs, dir)
			}
		}
		return nil
	}))
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// The README is read in five minutes, and leads to everything else: each page of docs, and
// each module that can be installed.
func TestReadmeIsADoorway(t *testing.T) {
	doc, err := os.ReadFile("README.md")
	require.NoError(t, err)
	readme := string(doc)
	if n := strings.Count(readme, "\n"); n > 250 {
		t.Errorf("README.md has %d lines, want 250 at most", n)
	}
	pages, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	for _, page := range pages {
		if !strings.Contains(readme, "]("+filepath.ToSlash(page)) {
			t.Errorf("README.md has no link to %s", page)
		}
	}
	mod, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	needed := regexp.MustCompile(`(?s)require \((.*?)\)`).FindSubmatch(mod) // the first block: what the code needs
	require.NotNil(t, needed)
	for _, path := range regexp.MustCompile(`(?m)^\t(\S+) v`).FindAllStringSubmatch(string(needed[1]), -1) {
		names := strings.Split(path[1], "/") // xsync/v4, x/net
		if last := names[len(names)-2:]; !strings.Contains(readme, last[0]) && !strings.Contains(readme, last[1]) {
			t.Errorf("README.md doesn't name %s among what the root module needs", path[1])
		}
	}
	if n, said := strings.Count(string(needed[1]), " v"), map[int]string{3: "three", 4: "four", 5: "five", 6: "six"}; !strings.Contains(readme, "needs "+said[n]+" others") {
		t.Errorf("README.md doesn't say that the root module needs %d others", n)
	}
	makefile, err := os.ReadFile("Makefile")
	require.NoError(t, err)
	unpublished := regexp.MustCompile(`(?m)^UNPUBLISHED := (.+)$`).FindSubmatch(makefile)
	require.NotNil(t, unpublished)
	modules, err := filepath.Glob("*/go.mod")
	require.NoError(t, err)
	for _, mod := range modules {
		dir := filepath.Dir(mod)
		if slices.Contains(strings.Split(string(unpublished[1]), ","), dir) {
			continue
		}
		if !strings.Contains(readme, "go get github.com/requestforge/requestforge/"+dir+" ") {
			t.Errorf("README.md doesn't say how to install %s", dir)
		}
	}
}
