// How net/http's test binary comes to hold a wrapper. What is changed in the
// tests for that is rewrite.go's.

package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The sources are embedded because a baseline that another version of them
// has measured doesn't count: see key.
//
//go:embed *.go hooks wraps/passthrough
var sources embed.FS

//go:embed excluded.txt
var excludedList string

const modulePath = "github.com/requestforge/requestforge/conformance"

// suite is net/http's tests, ready to be built with a wrapper.
type suite struct {
	*config
	goroot  string            // of the Go command
	work    string            // the cache for this Go, these flags and this harness
	replace map[string]string // test file in goroot -> its changed copy
	passBin string            // the test binary with wraps/passthrough
}

// prepare changes the tests and builds them with the passthrough wrapper.
func prepare(cfg *config) (*suite, error) {
	s := &suite{config: cfg}
	out, err := output("", "go", "env", "GOROOT", "GOVERSION")
	if err != nil {
		return nil, err
	}
	goroot, version, _ := strings.Cut(strings.TrimSpace(out), "\n")
	s.goroot = goroot
	cache := os.Getenv("CONFORMANCE_CACHE")
	if cache == "" {
		if cache, err = os.UserCacheDir(); err != nil {
			return nil, fmt.Errorf("%w; set CONFORMANCE_CACHE", err)
		}
		cache = filepath.Join(cache, "requestforge-conformance")
	}
	key, err := s.key(version)
	if err != nil {
		return nil, err
	}
	s.work = filepath.Join(cache, key)
	if s.refresh {
		if err := os.RemoveAll(s.work); err != nil {
			return nil, err
		}
	}

	if err := s.copySource(); err != nil {
		return nil, err
	}
	if err := s.rewrite(version); err != nil {
		return nil, err
	}
	return s, s.buildPassthrough()
}

// key names the cache: what a baseline depends on.
func (s *suite) key(version string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q %q %q %v\n", version, s.goroot, s.buildFlags, s.testFlags, s.run, s.skip, s.timeout)
	err := fs.WalkDir(sources, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := sources.ReadFile(path)
		fmt.Fprintf(h, "%q %q\n", path, text)
		return err
	})
	return fmt.Sprintf("%s-%x", version, h.Sum(nil)[:6]), err
}

// cwd is a copy of net/http, the working directory that its tests expect.
func (s *suite) cwd() string { return filepath.Join(s.work, "src", "net", "http") }

func (s *suite) copySource() error {
	if _, err := os.Stat(s.cwd()); err == nil {
		return nil
	}
	half := filepath.Join(s.work, "copying") // an interrupted copy has another name
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	if err := os.CopyFS(half, os.DirFS(filepath.Join(s.goroot, "src", "net", "http"))); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.cwd()), 0o755); err != nil {
		return err
	}
	return os.Rename(half, s.cwd())
}

func (s *suite) rewrite(version string) error {
	src := filepath.Join(s.goroot, "src", "net", "http")
	dst := filepath.Join(s.work, "rewritten")
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	stats := make(rewriteStats)
	var err error
	if s.replace, err = rewriteTests(src, dst, stats); err != nil {
		return err
	}
	fmt.Printf("%s net/http, %d test files changed: %s\n", version, len(s.replace), stats)

	hook, err := sources.ReadFile("hooks/in_package.go.txt")
	if err != nil {
		return err
	}
	to := filepath.Join(dst, "conformance_in_test.go")
	s.replace[filepath.Join(src, "conformance_in_test.go")] = to
	return os.WriteFile(to, hook, 0o644)
}

// buildPassthrough builds wraps/passthrough as a module of its own, so that
// the baseline depends on nobody's go.mod.
func (s *suite) buildPassthrough() error {
	dir := filepath.Join(s.work, "passthrough")
	s.passBin = filepath.Join(dir, "http.test")
	if _, err := os.Stat(s.passBin); err == nil {
		return nil
	}
	module := filepath.Join(dir, "module")
	if err := os.MkdirAll(module, 0o755); err != nil {
		return err
	}
	text, err := sources.ReadFile("wraps/passthrough/wrap.go")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(module, "wrap.go"), text, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte("module wrap.test/passthrough\n\ngo 1.26\n"), 0o644); err != nil {
		return err
	}
	return s.build(module, dir, s.passBin)
}

// wrapped returns the test binary with the wrapper in dir.
func (s *suite) wrapped(dir string) (string, error) {
	to := filepath.Join(s.work, fmt.Sprintf("wrapped-%x", sha256.Sum256([]byte(dir)))[:20])
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", err
	}
	bin := filepath.Join(to, "http.test")
	return bin, s.build(dir, to, bin)
}

// build compiles net/http's tests with the module around wrapdir as the main
// module, because an external test of a standard package may import packages
// of the main module, and because so its go.mod (require, replace) says where
// the wrapper's imports come from. It writes to dir only: go gets copies of
// go.mod and go.sum.
func (s *suite) build(wrapdir, dir, bin string) error {
	gomod, err := output(wrapdir, "go", "env", "GOMOD")
	if err != nil {
		return err
	}
	gomod = strings.TrimSpace(gomod)
	if gomod == "" || gomod == os.DevNull {
		return fmt.Errorf("%s is in no module", wrapdir)
	}
	modfile := filepath.Join(dir, "wrap.mod")
	module, err := os.ReadFile(gomod)
	if err != nil {
		return err
	}
	if err := os.WriteFile(modfile, module, 0o644); err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(filepath.Dir(gomod), "go.sum"))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "wrap.sum"), sums, 0o644); err != nil {
		return err
	}
	if !bytes.HasPrefix(module, []byte("module "+modulePath+"\n")) {
		// Somebody else's may be incomplete; ours isn't.
		if _, err := output(wrapdir, "go", "mod", "tidy", "-modfile="+modfile); err != nil {
			fmt.Fprintf(os.Stderr, "conformance: %v\n(going on with go.mod as it is)\n", err)
		}
	}

	path, err := output(wrapdir, "go", "list", "-modfile="+modfile, ".")
	if err != nil {
		return err
	}
	path = strings.TrimSpace(path)
	hook, err := sources.ReadFile("hooks/external.go.txt")
	if err != nil {
		return err
	}
	external := filepath.Join(dir, "conformance_x_test.go")
	if err := os.WriteFile(external, bytes.ReplaceAll(hook, []byte("WRAPSTACK_IMPORT"), []byte(path)), 0o644); err != nil {
		return err
	}
	replace := maps.Clone(s.replace)
	replace[filepath.Join(s.goroot, "src", "net", "http", "conformance_x_test.go")] = external
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, text, 0o644); err != nil {
		return err
	}

	start := time.Now()
	args := []string{"test", "-c", "-vet=off", "-modfile=" + modfile, "-overlay=" + overlay, "-o", bin}
	if _, err := output(wrapdir, "go", slices.Concat(args, s.buildFlags, []string{"net/http"})...); err != nil {
		return err
	}
	fmt.Printf("built net/http's tests with %s in %.0fs\n", path, time.Since(start).Seconds())
	return nil
}

// output runs a command in dir and returns what it prints. Its error holds
// what was printed for errors.
func output(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -mod=mod"))
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return string(out), nil
}
