package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// fixture is a package of five files: a, b and c are a cycle with one mutual
// pair, d is referred to by all and refers to none, e is alone.
var fixture = map[string]string{
	"go.mod": "module example.com/house\n\ngo 1.26\n",
	"a.go": `package house

import "sync"

type A struct {
	mu   sync.Mutex
	next *B
}

func (a *A) lockTwice() {
	a.mu.Lock()
	a.mu.Unlock()
	func() { a.mu.Lock() }()
	var local sync.Mutex
	local.Lock()
}

func (a *A) Fetch() {
	a.next.field = d
	C()
}
`,
	"b.go": `package house

import "sync"

type B struct {
	*sync.RWMutex
	field int
}

func (b *B) look(a *A) {
	a.mu.Lock()
	b.RLock()
	defer b.RUnlock()
}
`,
	"c.go": `package house

type wrapper[T any] struct {
	*B
	value T
}

func (w *wrapper[T]) take() { w.Lock() }

func C() {}
`,
	"d.go": `package house

import "sync"

var (
	d  int
	mu sync.RWMutex
)
`,
	"e.go": `package house

func (e empty) complex(ch chan int) int { // 1
	for range ch { // 2
		if e.a && e.b || e.c { // 5
			return 1
		}
	}
	switch d := 1; d {
	case 1, 2: // 6
	default:
	}
	func() {
		select {
		case <-ch: // 7
		default:
		}
	}()
	return 0
}

type empty struct{ a, b, c bool }
`,
	"x_test.go": "package house\n\nfunc (e empty) test(a A) {}\n",
}

func loadFixture(t *testing.T) *pkg {
	t.Helper()
	dir := t.TempDir()
	for name, text := range fixture {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	p, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFixture(t *testing.T) {
	p := loadFixture(t)
	refs := p.references()
	if got, want := refs.mutual(), [][2]string{{"a.go", "b.go"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("mutual pairs: got %v, want %v", got, want)
	}
	if got, want := refs.largestCycle(), []string{"a.go", "b.go", "c.go"}; !slices.Equal(got, want) {
		t.Errorf("largest cycle: got %v, want %v", got, want)
	}
	if got := (graph{"a": {"b": true}, "b": nil}).largestCycle(); got != nil {
		t.Errorf("a cycle where there is none: %v", got)
	}
	var mutexes []string
	for _, m := range p.mutexes() {
		mutexes = append(mutexes, m.String())
	}
	if want := []string{
		"A.mu: 2 functions in 2 files: a.go (1), b.go (1)",
		"B.RWMutex: 2 functions in 2 files: b.go (1), c.go (1)",
		"mu: 0 functions in 0 files",
	}; !slices.Equal(mutexes, want) {
		t.Errorf("mutexes: got %q, want %q", mutexes, want)
	}
	if got, want := p.complexFunctions(6), []function{{"empty.complex", "e.go", 7}}; !slices.Equal(got, want) {
		t.Errorf("complex functions: got %v, want %v", got, want)
	}
	if got := p.complexFunctions(7); got != nil {
		t.Errorf("functions above complexity 7: got %v, want none", got)
	}
}

func TestReportFailsAboveALimitOnly(t *testing.T) {
	p := loadFixture(t)
	for _, tt := range []struct {
		lim    limits
		faults int
	}{
		{limits{-1, -1, -1, -1}, 0},
		{limits{1, 3, 2, 7}, 0},
		{limits{0, 3, 2, 7}, 1},
		{limits{1, 2, 2, 7}, 1},
		{limits{1, 3, 1, 7}, 2}, // two mutexes
		{limits{1, 3, 2, 6}, 1},
		{limits{0, 0, 0, 0}, 5},
	} {
		var out strings.Builder
		if faults := report(&out, p, tt.lim); len(faults) != tt.faults {
			t.Errorf("%+v: got %q, want %d faults", tt.lim, faults, tt.faults)
		}
		for _, want := range []string{"example.com/house: 5 files, ", "mutual pairs: 1\n  a.go <-> b.go\n", "largest cycle: 3 of 5 files\n", "A.mu: "} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%+v: no %q in\n%s", tt.lim, want, out.String())
			}
		}
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	if _, err := load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "go list") {
		t.Errorf("got %v, want an error of go list", err)
	}
}
