package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// A proxy is a module proxy of files, as in "go help goproxy".
type proxy struct{ dir string }

// add puts the version of m into the proxy that the tag in r says.
func (p *proxy) add(r *repository, m goModule, version string) error {
	path, v, err := escaped(m.path, version)
	if err != nil {
		return err
	}
	dir := filepath.Join(p.dir, path, "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tag := m.tag(version)
	mod, err := r.git("show", tag+":"+strings.TrimLeft(m.folder+"/go.mod", "/"))
	if err != nil {
		return err
	}
	at, err := r.git("log", "-1", "--format=%cI", tag)
	if err != nil {
		return err
	}
	info, _ := json.Marshal(map[string]string{"Version": version, "Time": strings.TrimSpace(at)})
	for name, content := range map[string]string{v + ".mod": mod, v + ".info": string(info)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	list, err := os.OpenFile(filepath.Join(dir, "list"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	fmt.Fprintln(list, version)
	if err := list.Close(); err != nil {
		return err
	}
	archive, err := os.Create(filepath.Join(dir, v+".zip"))
	if err != nil {
		return err
	}
	defer archive.Close()
	if err := zip.CreateFromVCS(archive, module.Version{Path: m.path, Version: version}, r.dir, tag, m.folder); err != nil {
		return fmt.Errorf("%s: %w", tag, err)
	}
	return archive.Close()
}

// A stranger has a module of his own, and an empty module cache: where the cache has the
// root module at a version, go get takes the root for what is asked for at that version
// (golang.org/issue/61237).
type stranger struct {
	scratch string
	proxy   *proxy
	n       int // modules so far
}

// builds gets modules in these versions into a new module, and builds a program that
// imports every package of theirs.
func (s *stranger) builds(modules []goModule, versions map[string]string) error {
	cached, err := command("", nil, "go", "env", "GOMODCACHE", "GOPROXY")
	if err != nil {
		return err
	}
	cache, others, _ := strings.Cut(strings.TrimSpace(cached), "\n")
	var ours []string
	for _, m := range modules {
		ours = append(ours, m.path)
	}
	s.n++
	env := []string{
		"GOWORK=off", "GOFLAGS=-mod=mod -modcacherw", "GOMODCACHE=" + filepath.Join(s.scratch, fmt.Sprint("mod", s.n)), "GOPRIVATE=", "GONOPROXY=none",
		"GOPROXY=file://" + s.proxy.dir + ",file://" + filepath.Join(cache, "cache", "download") + "," + others,
		"GONOSUMDB=" + root(ours[0]),
	}
	dir := filepath.Join(s.scratch, fmt.Sprint("stranger", s.n))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	run := func(args ...string) (string, error) { return command(dir, env, "go", args...) }
	if _, err := run("mod", "init", "example.com/stranger"); err != nil {
		return err
	}
	get := []string{"get"}
	for _, path := range ours {
		get = append(get, path+"@"+versions[path])
	}
	if _, err := run(get...); err != nil {
		return err
	}
	var program strings.Builder
	program.WriteString("package main\n\nimport (\n")
	for _, path := range ours {
		// Those of other modules below are listed with them.
		listed, err := run("list", "-f", `{{if and .GoFiles (ne .Name "main")}}{{with .Module}}{{.Path}}{{end}} {{.ImportPath}}{{end}}`, path+"/...")
		if err != nil {
			return err
		}
		for line := range strings.Lines(listed) {
			of, pkg, _ := strings.Cut(strings.TrimSpace(line), " ")
			if of == path && !strings.Contains(pkg+"/", "/internal/") {
				fmt.Fprintf(&program, "\t_ %q\n", pkg)
			}
		}
	}
	program.WriteString(")\n\nfunc main() {}\n")
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program.String()), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{{"build", "-o", os.DevNull, "."}, {"vet", "."}} {
		if _, err := run(args...); err != nil {
			return err
		}
	}
	for _, path := range ours {
		got, err := run("list", "-m", "-f", "{{.Version}}", path)
		if err != nil {
			return err
		}
		if got = strings.TrimSpace(got); got != versions[path] {
			return fmt.Errorf("%s is %s in the stranger's go.mod, not %s", path, got, versions[path])
		}
	}
	return nil
}

// root is the repository of a module: example.com/user/repository.
func root(path string) string {
	parts := strings.SplitN(path, "/", 4)
	return strings.Join(parts[:min(3, len(parts))], "/")
}
