// Command release makes a release of the repository that it is in:
//
//	release [-check] [-unpublished FOLDER,...] VERSION
//
// Each module with releases gets the version: its go.mod requires the others at that
// version, a commit holds what changed, and each module gets an annotated tag, in an order
// in which a module comes after all that it requires. Nothing is pushed; the last lines say
// what to push.
//
// With -check all of that happens in a scratch clone of what is committed. There the tags
// become a module proxy, and a stranger's module gets every module from it and is built: at
// that version, and the root at that version under the others of the release before.
// Without a version the next one is checked.
//
// From the second release on, the exported API of each module is compared with that of the
// release before. From v1 on, an incompatible change needs another major version.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/semver"
)

func main() {
	check := flag.Bool("check", false, "only see whether a release would work, in a scratch clone")
	unpublished := flag.String("unpublished", "", "the `FOLDERS`, with commas between them, whose modules have no releases")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: release [-check] [-unpublished FOLDER,...] VERSION")
		flag.PrintDefaults()
	}
	flag.Parse()
	version := flag.Arg(0)
	if flag.NArg() > 1 || version == "" && !*check {
		flag.Usage()
		os.Exit(2)
	}
	var apart []string
	if *unpublished != "" {
		apart = strings.Split(*unpublished, ",")
	}
	if err := run(os.Stdout, version, apart, *check); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, version string, apart []string, check bool) error {
	top, err := command("", nil, "git", "-c", "safe.directory=*", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	r := &repository{dir: strings.TrimSpace(top), apart: apart}
	if !check {
		return r.release(out, version)
	}
	scratch, err := os.MkdirTemp("", "release-check")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	return r.check(out, version, scratch)
}

// release makes the release. After an error the repository is as it was before.
func (r *repository) release(out io.Writer, version string) (err error) {
	if err := r.ready(version); err != nil {
		return err
	}
	modules, err := r.modules()
	if err != nil {
		return err
	}
	if err := r.compare(out, modules, version); err != nil {
		return err
	}
	head, err := r.git("rev-parse", "HEAD")
	if err != nil {
		return err
	}
	var tags []string
	defer func() {
		if err != nil {
			err = errors.Join(err, r.undo(strings.TrimSpace(head), tags))
		}
	}()
	if err := r.require(modules, version); err != nil {
		return err
	}
	if err := r.commit(version); err != nil {
		return err
	}
	for _, m := range modules {
		tag := m.tag(version)
		if _, err := r.git("tag", "-a", tag, "-m", tag); err != nil {
			return err
		}
		tags = append(tags, tag)
	}
	fmt.Fprintf(out, "%s is ready. To publish it:\n\n\tgit push origin HEAD %s\n", version, strings.Join(tags, " "))
	return nil
}

// check tries the release in a clone, below scratch. "" means the next version.
func (r *repository) check(out io.Writer, version, scratch string) error {
	clone := &repository{dir: filepath.Join(scratch, "clone"), apart: r.apart, scratch: true}
	// The checkout may be another user's, as a mounted one is. What git clone starts at the
	// other end takes no -c.
	config := filepath.Join(scratch, "gitconfig")
	if err := os.WriteFile(config, []byte("[safe]\n\tdirectory = *\n"), 0o600); err != nil {
		return err
	}
	if _, err := command("", []string{"GIT_CONFIG_GLOBAL=" + config}, "git", "clone", "-q", "file://"+r.dir, clone.dir); err != nil {
		return err
	}
	if version == "" {
		last, err := clone.last("")
		if err != nil {
			return err
		}
		version = next(last)
	}
	var said strings.Builder
	if err := clone.release(&said, version); err != nil {
		return err
	}
	out.Write([]byte(said.String()[:strings.Index(said.String(), version+" is ready")])) // nobody is to push that
	modules, err := clone.modules()
	if err != nil {
		return err
	}
	p := &proxy{dir: filepath.Join(scratch, "proxy")}
	for _, m := range modules {
		if err := p.add(clone, m, version); err != nil {
			return err
		}
	}
	s := &stranger{scratch: scratch, proxy: p}
	for _, m := range modules {
		if err := s.builds([]goModule{m}, map[string]string{m.path: version}); err != nil {
			return fmt.Errorf("a stranger can't use %s@%s: %w", m.path, version, err)
		}
		fmt.Fprintf(out, "%s@%s: go get and go build work\n", m.path, version)
	}

	return clone.mixed(out, s, modules, version)
}

// mixed tries the newer of two releases of the root with older releases of the other
// modules. The two are the release at hand and the release before. Without one before, the
// newer one is made up, with the same code, and only the choice of versions is tried.
func (r *repository) mixed(out io.Writer, s *stranger, modules []goModule, version string) error {
	root := modules[0]
	used, versions := []goModule{root}, map[string]string{root.path: version}
	older := ""
	for _, m := range modules[1:] {
		last, err := r.before(m, version)
		if err != nil {
			return err
		}
		if last == "" {
			continue
		}
		if err := s.proxy.add(r, m, last); err != nil {
			return err
		}
		used, versions[m.path], older = append(used, m), last, cmp.Or(older, last)
	}
	if last, err := r.before(root, version); err != nil {
		return err
	} else if last != "" { // what the others require
		if err := s.proxy.add(r, root, last); err != nil {
			return err
		}
	}
	if older == "" {
		newer := next(version)
		if _, err := r.git("commit", "-q", "--allow-empty", "-m", newer); err != nil {
			return err
		}
		if _, err := r.git("tag", root.tag(newer)); err != nil {
			return err
		}
		if err := s.proxy.add(r, root, newer); err != nil {
			return err
		}
		for _, m := range modules {
			versions[m.path] = version
		}
		used, older, versions[root.path] = modules, version, newer
	}
	if err := s.builds(used, versions); err != nil {
		err = fmt.Errorf("a stranger can't use %s@%s with the others at %s: %w", root.path, versions[root.path], older, err)
		if semver.Major(version) == "v0" && semver.MajorMinor(version) != semver.MajorMinor(older) {
			fmt.Fprintf(out, "%v\nBefore v1 that is no error in a new minor version.\n", err)
			return nil
		}
		return err
	}
	fmt.Fprintf(out, "%s@%s: go build works with the others at %s\n", root.path, versions[root.path], older)
	return nil
}

// next is the next patch of a version, v0.1.0 for none.
func next(version string) string {
	if version == "" {
		return "v0.1.0"
	}
	core := strings.TrimSuffix(semver.Canonical(version), semver.Prerelease(version))
	if semver.Prerelease(version) != "" {
		return core
	}
	i := strings.LastIndexByte(core, '.')
	patch := 0
	fmt.Sscan(core[i+1:], &patch)
	return fmt.Sprintf("%s.%d", core[:i], patch+1)
}
