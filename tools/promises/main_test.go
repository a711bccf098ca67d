package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write makes a file below dir and returns its name.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	name = filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

// repository makes a root module with a package sub, and a module of its own
// in other.
func repository(t *testing.T, promises string) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	write(t, dir, "go.mod", "module example.com/root\n")
	write(t, dir, "sub/sub_test.go", "package sub\n")
	write(t, dir, "other/go.mod", "module example.com/root/other\n")
	write(t, dir, "other/deep/deep_test.go", "package deep\n")
	return dir, write(t, dir, "PROMISES.md", promises)
}

const raceRun = `{"Action":"build-output","ImportPath":"example.com/root","Output":"# warning\n"}
{"Action":"start","Package":"example.com/root"}
{"Action":"run","Package":"example.com/root","Test":"TestGood"}
{"Action":"pass","Package":"example.com/root","Test":"TestGood/with_a_part"}
{"Action":"pass","Package":"example.com/root","Test":"TestGood"}
{"Action":"fail","Package":"example.com/root","Test":"TestBad"}
{"Action":"skip","Package":"example.com/root","Test":"TestSkipped"}
{"Action":"skip","Package":"example.com/root","Test":"TestHalf/windows"}
{"Action":"pass","Package":"example.com/root","Test":"TestHalf"}
{"Action":"run","Package":"example.com/root","Test":"TestHung"}
{"Action":"skip","Package":"example.com/root","Test":"TestAllocs"}
{"Action":"pass","Package":"example.com/root","Test":"TestTornDown"}
{"Action":"pass","Package":"example.com/root"}
{"Action":"skip","Package":"example.com/root/sub","Test":"FuzzSub/seed#0"}
{"Action":"pass","Package":"example.com/root/sub","Test":"FuzzSub"}
{"Action":"pass","Package":"example.com/root/other/deep","Test":"ExampleDeep"}
`

const plainRun = `{"Action":"pass","Package":"example.com/root","Test":"TestAllocs"}
{"Action":"fail","Package":"example.com/root","Test":"TestTornDown"}
`

func TestKeptPromises(t *testing.T) {
	dir, file := repository(t, "# Promises\n\nProse about `go test`.\n\n"+
		"- It is good — `TestGood` (`.`)\n"+
		"- A part — of it — is, too — `TestGood/with_a_part` (`.`)\n"+
		"- Two tests, two runs — `TestGood`, `TestAllocs` (`.`)\n"+
		"- A fuzz target's seeds — `FuzzSub` (`./sub`)\n"+
		"- An example of another module — `ExampleDeep` (`./other/deep`)\n"+
		"- Tests of two packages — `TestGood`, `TestAllocs` (`.`), `FuzzSub` (`./sub`)\n")
	n, err := check(file, []string{write(t, dir, "race.json", raceRun), write(t, dir, "plain.json", plainRun)})
	if n != 6 || err != nil {
		t.Errorf("check = %d, %v; want 6, nil", n, err)
	}
}

func TestBrokenPromises(t *testing.T) {
	for name, tt := range map[string]struct{ promises, want string }{
		"failed":               {"- It — `TestBad` (`.`)", "PROMISES.md:1: TestBad (.) failed"},
		"failed in one run":    {"- It — `TestTornDown` (`.`)", "TestTornDown (.) failed"},
		"skipped":              {"- It — `TestSkipped` (`.`)", "TestSkipped (.) was skipped"},
		"part skipped":         {"- It — `TestHalf` (`.`)", "its part TestHalf/windows was skipped"},
		"never ended":          {"- It — `TestHung` (`.`)", "TestHung (.) did not run"},
		"no such test":         {"- It — `TestNone` (`.`)", "TestNone (.) did not run"},
		"one of two":           {"- It — `TestGood`, `TestNone` (`.`)", "TestNone (.) did not run"},
		"of the first package": {"- It — `TestBad` (`.`), `FuzzSub` (`./sub`)", "TestBad (.) failed"},
		"of the last package":  {"- It — `TestGood` (`.`), `TestGood` (`./sub`)", "TestGood (./sub) did not run"},
		"in another package":   {"- It — `TestGood` (`./sub`)", "TestGood (./sub) did not run"},
		"no such package":      {"- It — `TestGood` (`./none`)", "./none is not a folder"},
		"a file":               {"- It — `TestGood` (`./go.mod`)", "./go.mod is not a folder"},
		"outside":              {"- It — `TestGood` (`../sub`)", "../sub is not a folder"},
		"without a package":    {"- It — `TestGood`", "line 1: not of the form"},
		"without a test":       {"- It is so.", "line 1: not of the form"},
		"in a table":           {"| It | `TestGood` |", "line 1: not of the form"},
		"on a second line":     {"- It\n  — `TestGood` (`.`)", "line 2: not of the form"},
		"under another bullet": {"* It — `TestGood` (`.`)", "line 1: not of the form"},
		"no promise":           {"# Promises\n", "no promise in it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, file := repository(t, tt.promises)
			_, err := check(file, []string{write(t, dir, "race.json", raceRun), write(t, dir, "plain.json", plainRun)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestEveryBrokenPromiseIsNamed(t *testing.T) {
	dir, file := repository(t, "- One — `TestBad` (`.`)\n- Two — `TestNone` (`.`)\n- Three — `TestGood` (`.`)\n")
	_, err := check(file, []string{write(t, dir, "race.json", raceRun)})
	for _, want := range []string{"PROMISES.md:1: TestBad", "PROMISES.md:2: TestNone"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestUnreadableRun(t *testing.T) {
	dir, file := repository(t, "- It — `TestGood` (`.`)\n")
	for name, run := range map[string]string{
		"missing": filepath.Join(dir, "none.json"),
		"garbage": write(t, dir, "garbage.json", "ok  \texample.com/root\t0.1s\n"),
		"cut off": write(t, dir, "short.json", raceRun[:len(raceRun)-20]),
	} {
		if _, err := check(file, []string{run}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
