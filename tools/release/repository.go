package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// A repository is a checkout.
type repository struct {
	dir     string
	apart   []string // folders whose modules have no releases
	scratch bool     // of our own making: it may have no git user
}

// A goModule is a module of the repository.
type goModule struct {
	folder string // "": the root
	path   string
	file   *modfile.File
}

// tag is the tag of a version: redisstorage/v0.1.0.
func (m goModule) tag(version string) string {
	if m.folder == "" {
		return version
	}
	return m.folder + "/" + version
}

// command runs a command and returns what it prints. An error has the last lines of what it
// said.
func command(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)+said.String()), "\n")
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.Join(lines[max(0, len(lines)-10):], "\n"))
	}
	return string(out), nil
}

func (r *repository) git(args ...string) (string, error) {
	all := []string{"-c", "safe.directory=*"}
	if r.scratch {
		all = append(all, "-c", "user.name=release", "-c", "user.email=release@example.com", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")
	}
	return command(r.dir, nil, "git", append(all, args...)...)
}

// ready reports why there can be no release of this version.
func (r *repository) ready(version string) error {
	switch {
	case !semver.IsValid(version) || semver.Canonical(version) != version:
		return fmt.Errorf("%q is no version; use one like v0.1.0", version)
	case semver.Compare(semver.Major(version), "v1") > 0:
		return fmt.Errorf("%s: from v2 on the major version is part of every module's path; change the paths first", version)
	}
	changes, err := r.git("status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" {
		return fmt.Errorf("there are changes that aren't committed:\n%s", changes)
	}
	modules, err := r.modules()
	if err != nil {
		return err
	}
	for _, m := range modules {
		last, err := r.last(m.folder)
		if err != nil {
			return err
		}
		if last != "" && semver.Compare(version, last) <= 0 {
			return fmt.Errorf("%s has a release %s; use a later version than that", m.path, last)
		}
	}
	return nil
}

// last is the last version of the module of a folder, "" if it has none.
func (r *repository) last(folder string) (string, error) {
	return r.latest(folder, func(string) bool { return true })
}

// before is the last version of m before another one, "" if it has none.
func (r *repository) before(m goModule, version string) (string, error) {
	return r.latest(m.folder, func(v string) bool { return semver.Compare(v, version) < 0 })
}

// latest is the latest version of the module of a folder among those that may be, or "".
func (r *repository) latest(folder string, may func(version string) bool) (string, error) {
	tags, err := r.git("tag", "--list")
	if err != nil {
		return "", err
	}
	last := ""
	for tag := range strings.FieldsSeq(tags) {
		version, ok := strings.CutPrefix(tag, strings.TrimLeft(folder+"/", "/"))
		if ok && semver.IsValid(version) && may(version) && (last == "" || semver.Compare(version, last) > 0) {
			last = version
		}
	}
	return last, nil
}

// undo deletes tags and what has changed since the commit head, at which nothing was left
// to commit.
func (r *repository) undo(head string, tags []string) error {
	var errs []error
	for _, tag := range tags {
		_, err := r.git("tag", "-d", tag)
		errs = append(errs, err)
	}
	_, err := r.git("reset", "-q", "--hard", head)
	return errors.Join(append(errs, err)...)
}

// modules returns the modules with releases, each after those that it requires.
func (r *repository) modules() ([]goModule, error) {
	all, err := r.all()
	if err != nil {
		return nil, err
	}
	return ordered(slices.DeleteFunc(all, func(m goModule) bool {
		return slices.ContainsFunc(r.apart, func(a string) bool { return m.folder == a || strings.HasPrefix(m.folder, a+"/") })
	}))
}

// all returns every module of the repository.
func (r *repository) all() ([]goModule, error) {
	listed, err := r.git("ls-files", "go.mod", "*/go.mod")
	if err != nil {
		return nil, err
	}
	var all []goModule
	for file := range strings.FieldsSeq(listed) {
		folder := strings.TrimSuffix(strings.TrimSuffix(file, "go.mod"), "/")
		if strings.Contains("/"+folder+"/", "/testdata/") {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(r.dir, file))
		if err != nil {
			return nil, err
		}
		f, err := modfile.Parse(file, raw, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, goModule{folder: folder, path: f.Module.Mod.Path, file: f})
	}
	slices.SortFunc(all, func(a, b goModule) int { return cmp.Compare(a.folder, b.folder) })
	return all, nil
}

// ordered puts each module after those that it requires.
func ordered(all []goModule) (sorted []goModule, err error) {
	done := map[string]bool{}
	for len(sorted) < len(all) {
		before := len(sorted)
		for _, m := range all {
			waits := slices.ContainsFunc(m.file.Require, func(req *modfile.Require) bool {
				return !done[req.Mod.Path] && slices.ContainsFunc(all, func(o goModule) bool { return o.path == req.Mod.Path })
			})
			if !done[m.path] && !waits {
				done[m.path] = true
				sorted = append(sorted, m)
			}
		}
		if len(sorted) == before {
			return nil, errors.New("modules require each other in a circle")
		}
	}
	if len(sorted) == 0 || sorted[0].folder != "" {
		return nil, errors.New("the root module requires a module of the repository")
	}
	return sorted, nil
}

// require makes every module require those with releases at this version. One without
// releases does, too, since what else it requires may need that version.
func (r *repository) require(modules []goModule, version string) error {
	all, err := r.all()
	if err != nil {
		return err
	}
	for _, m := range all {
		released := slices.ContainsFunc(modules, func(o goModule) bool { return o.path == m.path })
		for _, req := range m.file.Require {
			path := req.Mod.Path
			if slices.ContainsFunc(modules, func(o goModule) bool { return o.path == path }) {
				if err := m.file.AddRequire(path, version); err != nil {
					return err
				}
			} else if released && slices.ContainsFunc(all, func(o goModule) bool { return o.path == path }) {
				return fmt.Errorf("%s requires %s, which has no releases", m.path, path)
			}
		}
		raw, err := m.file.Format()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.dir, m.folder, "go.mod"), raw, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// commit commits what require has changed, if anything.
func (r *repository) commit(version string) error {
	changes, err := r.git("status", "--porcelain")
	if err != nil || changes == "" {
		return err
	}
	_, err = r.git("commit", "-q", "-a", "-m", "release: "+version)
	return err
}

// escaped is how a path or a version appears in a proxy.
func escaped(path, version string) (string, string, error) {
	p, err1 := module.EscapePath(path)
	v, err2 := module.EscapeVersion(version)
	return p, v, errors.Join(err1, err2)
}
