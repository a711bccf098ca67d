package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/exp/apidiff"
	"golang.org/x/mod/semver"
	"golang.org/x/tools/go/packages"
)

// compare prints how the exported API of each module differs from that of its last
// release. Within a major version from v1 on, an incompatible change is an error.
func (r *repository) compare(out io.Writer, modules []goModule, version string) error {
	var broken []string
	for _, m := range modules {
		last, err := r.last(m.folder)
		if err != nil {
			return err
		}
		if last == "" {
			fmt.Fprintf(out, "%s: no tag of an earlier release, so nothing to compare the API with\n", m.path)
			continue
		}
		report, err := r.report(m, last)
		if err != nil {
			return fmt.Errorf("the API of %s can't be compared with %s: %w", m.path, last, err)
		}
		fmt.Fprintf(out, "%s since %s:\n", m.path, last)
		if err := report.Text(out); err != nil {
			return err
		}
		for _, c := range report.Changes {
			if !c.Compatible && semver.Major(last) == semver.Major(version) && semver.Major(version) != "v0" {
				broken = append(broken, m.path+": "+c.Message)
			}
		}
	}
	if len(broken) > 0 {
		return fmt.Errorf("changes that break users need another major version:\n\t%s", strings.Join(broken, "\n\t"))
	}
	return nil
}

// report compares m with its last version, in a worktree of that one.
func (r *repository) report(m goModule, last string) (apidiff.Report, error) {
	scratch, err := os.MkdirTemp("", "release-api")
	if err != nil {
		return apidiff.Report{}, err
	}
	defer os.RemoveAll(scratch)
	before := filepath.Join(scratch, "before")
	if _, err := r.git("worktree", "add", "-q", "--detach", before, m.tag(last)); err != nil {
		return apidiff.Report{}, err
	}
	defer r.git("worktree", "remove", "--force", before)
	old, err := exported(m.path, filepath.Join(before, m.folder))
	if err != nil {
		return apidiff.Report{}, err
	}
	now, err := exported(m.path, filepath.Join(r.dir, m.folder))
	if err != nil {
		return apidiff.Report{}, err
	}
	return apidiff.ModuleChanges(old, now), nil
}

// exported is the exported API of the module in dir.
func exported(path, dir string) (*apidiff.Module, error) {
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedTypes | packages.NeedImports | packages.NeedDeps | packages.NeedModule, Dir: dir, Env: append(os.Environ(), "GOWORK=off"),
	}, "./...")
	if err != nil {
		return nil, err
	}
	m := &apidiff.Module{Path: path}
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			return nil, p.Errors[0]
		}
		if p.Name != "main" && !strings.Contains(p.PkgPath+"/", "/internal/") {
			m.Packages = append(m.Packages, p.Types)
		}
	}
	return m, nil
}
