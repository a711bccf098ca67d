package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository has a root module, two published modules, one of them below the
// other, and an unpublished one.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{
		"go.mod":             "module example.com/root\n",
		"root.go":            "package root\n\nimport _ \"example.com/root/internal/x\"\n",
		"storage/go.mod":     "module example.com/root/storage\n",
		"storage/s.go":       "package storage\n\nimport _ \"example.com/root\"\n",
		"storage/sub/go.mod": "module example.com/root/storage/sub\n",
		"storage/sub/sub.go": "package sub\n\nimport _ \"example.com/root/storage/sub/internal/y\"\n",
		"bench/go.mod":       "module example.com/root/bench\n",
		"bench/b.go":         "package bench\n\nimport _ \"example.com/root/internal/x\"\n",
		"examples/main.go":   "package main\n\nimport _ \"example.com/root/internal/x\"\n",
	}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		name = filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestPublishedModulesMayImportAllButTheRootsInternal(t *testing.T) {
	modules, err := check(repository(t, nil), []string{"bench"})
	if want := []string{"storage", "storage/sub"}; err != nil || !slices.Equal(modules, want) {
		t.Errorf("got %v, %v, want %v", modules, err, want)
	}
}

func TestImportsOfTheRootsInternalAreFound(t *testing.T) {
	const bad = "import (\n\t\"fmt\"\n\tx \"example.com/root/internal/x\"\n)\n"
	for name, tt := range map[string]struct {
		files       map[string]string
		unpublished []string
		want        []string // in the error
	}{
		"a package":         {map[string]string{"storage/deep/d.go": "package deep\n\n" + bad}, []string{"bench"}, []string{filepath.FromSlash("storage/deep/d.go:5:2"), "imports example.com/root/internal/x"}},
		"of a package":      {map[string]string{"storage/1.go": "package storage\n\nimport \"example.com/root/authtest/internal\"\n"}, []string{"bench"}, []string{"imports example.com/root/authtest/internal"}},
		"of a neighbour":    {map[string]string{"storage/sub/1.go": "package sub\n\nimport \"example.com/root/storage/internal/y\"\n"}, []string{"bench"}, []string{"imports example.com/root/storage/internal/y"}},
		"a test":            {map[string]string{"storage/s_test.go": "package storage\n\n" + bad}, []string{"bench"}, []string{"s_test.go"}},
		"for another OS":    {map[string]string{"storage/s_plan9.go": "//go:build plan9\n\npackage storage\n\n" + bad}, []string{"bench"}, []string{"s_plan9.go"}},
		"a new module":      {nil, nil, []string{"b.go"}},
		"two":               {map[string]string{"storage/1.go": "package storage\n" + bad, "storage/2.go": "package storage\n" + bad}, []string{"bench"}, []string{"1.go", "2.go"}},
		"no Go":             {map[string]string{"storage/1.go": "nonsense"}, []string{"bench"}, []string{"1.go"}},
		"a name left over":  {nil, []string{"bench", "benches"}, []string{"-unpublished benches"}},
		"no module at all":  {map[string]string{"storage/go.mod": ""}, []string{"bench", "storage"}, []string{"no published module"}},
		"nothing published": {nil, []string{"bench", "storage", "root"}, []string{"-unpublished root"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := check(repository(t, tt.files), tt.unpublished)
			for _, want := range tt.want {
				if !strings.Contains(fmt.Sprint(err), want) {
					t.Errorf("got %v, want an error with %q", err, want)
				}
			}
		})
	}
}

func TestFoldersThatTheGoCommandIgnoresAreIgnored(t *testing.T) {
	const bad = "package x\n\nimport _ \"example.com/root/internal/x\"\n"
	root := repository(t, map[string]string{
		"storage/testdata/x.go": bad, ".cache/go.mod": "module cache\n", ".cache/x.go": bad, "storage/_old/x.go": bad,
	})
	if _, err := check(root, []string{"bench"}); err != nil {
		t.Error(err)
	}
}
