// Command imports fails if a published module imports an internal package of the
// root module, or of another module of the repository:
//
//	imports [-unpublished FOLDER,...] ROOT
//
// Every folder below ROOT with a go.mod is a published module, unless
// -unpublished names the folder or a parent. Published modules have separate
// releases: a program may combine an old release of a module with a new root,
// where the internal package has changed or is gone, and the program doesn't
// build. Imports of test files count, too.
package main

import (
	"errors"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/modfile"
)

func main() {
	unpublished := flag.String("unpublished", "", "the `FOLDERS`, with commas between them, whose modules have no releases")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: imports [-unpublished FOLDER,...] ROOT")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	var apart []string
	if *unpublished != "" {
		apart = strings.Split(*unpublished, ",")
	}
	modules, err := check(flag.Arg(0), apart)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("no internal package of the root in %s\n", strings.Join(modules, ", "))
}

// check returns the folders of the published modules below root. The error
// joins the imports that break the rule.
func check(root string, unpublished []string) (modules []string, err error) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	repository := modfile.ModulePath(mod)

	var faults []error
	for _, folder := range unpublished {
		// A folder that is renamed must not leave its old name behind.
		if _, err := os.Stat(filepath.Join(root, folder, "go.mod")); err != nil {
			faults = append(faults, fmt.Errorf("-unpublished %s: %w", folder, err))
		}
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() || path == root {
			return nil
		}
		folder, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		folder = filepath.ToSlash(folder)
		if skipped(d.Name()) || slices.Contains(unpublished, folder) {
			return fs.SkipDir
		}
		mod, err := os.ReadFile(filepath.Join(path, "go.mod"))
		if err != nil {
			return nil // no module
		}
		modules = append(modules, folder)
		found, err := importing(path, repository, modfile.ModulePath(mod))
		faults = append(faults, found...)
		return err
	})
	if err == nil && len(modules) == 0 {
		err = errors.New("there is no published module; is this the root?")
	}
	return modules, errors.Join(append(faults, err)...)
}

// importing returns an error for each import, in the Go files of the module own
// in dir, of an internal package of another module of the repository.
func importing(dir, repository, own string) (faults []error, err error) {
	fset := token.NewFileSet()
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && (skipped(d.Name()) || isModule(path)):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			if at, err := strconv.Unquote(spec.Path.Value); err == nil && below(at, repository) && !below(at, own) && strings.Contains(at+"/", "/internal/") {
				faults = append(faults, fmt.Errorf("%s: imports %s, which another release may not have: make public what users need too, or copy a few lines", fset.Position(spec.Pos()), at))
			}
		}
		return nil
	})
	return faults, err
}

// below reports whether the import path belongs to a package of module.
func below(path, module string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// skipped reports whether the go command ignores a folder of this name.
func skipped(name string) bool {
	return name == "testdata" || name == "vendor" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
}
