// docs/shapes.md is written from what the programs are, so that it says what is tested.

package shapes_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	rf "github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
)

var update = flag.Bool("update", false, "write docs/shapes.md")

const page = "../docs/shapes.md"

// how a program is said.
type how struct {
	login, api []string // settings that are set, URLs left out
	functions  []string // settings that are functions of the program's own
}

func (h how) String() string {
	if len(h.functions) > 0 {
		return strings.Join(h.functions, ", ")
	}
	return "none"
}

// ready is a Fetcher that a constructor has made: the program has no function in it.
var ready = reflect.TypeFor[*oauth2source.Grant]()

// describe finds what of a program is set, and which of that are functions.
func describe(p program) (h how) {
	for _, s := range p.login {
		h.login = h.of("", reflect.ValueOf(s), h.login, "Name", "DependsOn")
	}
	h.api = h.of("", reflect.ValueOf(p.api), h.api, "BaseURL")
	return h
}

// of adds the settings below v to list. It finds a function wherever it is.
func (h *how) of(name string, v reflect.Value, list []string, without ...string) []string {
	add := func(name string) {
		if name != "" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	switch {
	case !v.IsValid() || v.IsZero():
		return list
	case v.Type() == ready:
		grant, _, _ := strings.Cut(fmt.Sprint(v.Interface()), "(")
		add("oauth2source." + grant)
		return list
	}
	switch v.Kind() {
	case reflect.Func:
		if v.Type() == reflect.TypeFor[rf.FetcherFunc]() {
			name = "FetcherFunc"
		}
		add(name)
		if !slices.Contains(h.functions, name) {
			h.functions = append(h.functions, name)
		}
	case reflect.Interface, reflect.Pointer:
		if client, ok := v.Interface().(*http.Client); ok {
			add(name)
			if client.CheckRedirect != nil {
				h.functions = append(h.functions, name+".CheckRedirect")
			}
			return list
		}
		return h.of(name, v.Elem(), list, without...)
	case reflect.Struct:
		inner := name
		switch v.Type() {
		case reflect.TypeFor[rf.ClientAuth](), reflect.TypeFor[rf.RetryPolicy]():
			add(name) // and what is in it
		default:
			inner = ""
		}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if slices.Contains(without, f.Name) || f.Name == "URL" || f.Name == "Method" {
				continue
			}
			field := f.Name
			if inner != "" {
				field = inner
			}
			list = h.of(field, v.Field(i), list)
		}
	case reflect.Slice, reflect.Array:
		add(name)
		for i := range v.Len() {
			h.of(name, v.Index(i), nil)
		}
	case reflect.Map:
		add(name)
		for _, k := range v.MapKeys() {
			h.of(name, v.MapIndex(k), nil)
		}
	default:
		add(name)
	}
	return list
}

// count says how many rows need no function, some, or can't be said.
type count struct{ rows, fields, functions, not int }

// judge counts the rows of a table, each by what the most difficult of its servers needs.
func judge(rows []shape) (c count) {
	verdicts := make(map[string]int)
	for _, s := range rows {
		v := 2
		for _, p := range programsOf(s) {
			if s.impossible != "" {
				break
			}
			if len(describe(p).functions) == 0 {
				v = 0
			} else {
				v = min(v, 1)
			}
		}
		verdicts[s.row] = max(verdicts[s.row], v)
	}
	for _, v := range verdicts {
		c.rows++
		switch v {
		case 0:
			c.fields++
		case 1:
			c.functions++
		default:
			c.not++
		}
	}
	return c
}

// How far the settings reach: at least 50 of the 63 logins need no function, 62 can be
// said, and all of the 27 clients.
func TestShapesAreEnough(t *testing.T) {
	if len(rowsA) == 0 || judge(rowsA).rows != 63 || judge(rowsB).rows != 27 {
		t.Fatalf("%d and %d rows, want 63 and 27", judge(rowsA).rows, judge(rowsB).rows)
	}
	a, b := judge(rowsA), judge(rowsB)
	if a.fields < 50 || a.fields+a.functions < 60 || b.not > 0 {
		t.Errorf("A: %+v, B: %+v", a, b)
	}
	for _, s := range shapes() {
		if len(programsOf(s)) == 0 {
			t.Errorf("%s %s: no program", s.row, s.name)
		}
	}
}

// A function in a program is found wherever it is.
func TestFunctionsAreFound(t *testing.T) {
	f := func(*http.Request, rf.Input) error { return nil }
	for name, tt := range map[string]struct {
		p    program
		want string
	}{
		"none":           {program{login: []rf.Step{{Fetcher: &rf.HTTPFetcher{JSON: m{"a": "b"}}}}}, "none"},
		"in the fetcher": {program{login: []rf.Step{{Fetcher: &rf.HTTPFetcher{Prepare: f}}}}, "Prepare"},
		"in the refresh": {program{login: []rf.Step{{Refresh: &rf.HTTPFetcher{Prepare: f}}}}, "Prepare"},
		"the fetcher":    {program{login: []rf.Step{{Fetcher: rf.FetcherFunc(nil)}, {Fetcher: rf.FetcherFunc(nothingFetched)}}}, "FetcherFunc"},
		"on requests":    {program{api: rf.Config{Refused: vaultRefused, Retry: rf.RetryPolicy{RetryMax: 1}}}, "Refused"},
		"in a redirect":  {program{login: []rf.Step{{Fetcher: &rf.HTTPFetcher{Client: &http.Client{CheckRedirect: lastResponse}}}}}, "Client.CheckRedirect"},
		"in a policy":    {program{api: rf.Config{Retry: rf.RetryPolicy{Undone: func(*http.Request, *http.Response, error) bool { return false }}}}, "Retry"},
	} {
		if got := describe(tt.p).String(); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// The page says what the programs are.
func TestShapesPage(t *testing.T) {
	want := report()
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/shapes.md isn't what the programs are; go test -C shapes -run ShapesPage . -update writes it anew")
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	a, b := judge(rowsA), judge(rowsB)
	for _, figure := range []string{
		fmt.Sprintf("%d of 63 need no function", a.fields),
		fmt.Sprintf("%d of 63 can be said", a.fields+a.functions),
		fmt.Sprintf("%d of 27 Go clients", b.fields+b.functions),
	} {
		if !strings.Contains(strings.Join(strings.Fields(string(readme)), " "), figure) {
			t.Errorf("README.md doesn't say %q", figure)
		}
	}
}

func report() string {
	var b strings.Builder
	a, c := judge(rowsA), judge(rowsB)
	fmt.Fprintf(&b, `# Login shapes

How the logins of 63 providers, from a public catalog, and of 27 public Go clients of appliances and services are said with this
package. The facts are as of August 2026; no login was tried at a vendor. Each line is a program that the tests in
[shapes](../shapes) run against a simulator: a server that takes what the provider's facts say, each value in its place, and refuses
everything else. The program logs in, calls, has its session revoked, calls again, outlives it, and never sees a refusal.
The page is written by these tests (%s).

| | logins | no function of the program's own | with functions | not at all |
|---|---|---|---|---|
| A, providers | %d | %d | %d | %d |
| B, Go clients | %d | %d | %d | %d |

A row with several lines has a server that is said to behave in several ways, or a program that does more than it must; it counts by
the most difficult of its servers. A grant of oauth2source is no function of the program's own. URLs, methods and step names are
left out below.
`, "`go test -C shapes -run ShapesPage . -update`", a.rows, a.fields, a.functions, a.not, c.rows, c.fields, c.functions, c.not)
	for _, table := range []struct {
		title string
		rows  []shape
	}{{"## A. Providers", rowsA}, {"## B. Go clients", rowsB}} {
		fmt.Fprintf(&b, "\n%s\n\n| row | login | functions | of the login | of the requests | |\n|---|---|---|---|---|---|\n", table.title)
		for _, s := range table.rows {
			if s.impossible != "" {
				line(&b, s.row, s.name, "**not at all**", "", "", s.impossible)
				continue
			}
			for _, p := range programsOf(s) {
				h := describe(p)
				functions := "none"
				if len(h.functions) > 0 {
					functions = code(h.functions)
				}
				line(&b, s.row, s.name, functions, code(h.login), code(h.api), p.note)
			}
		}
	}
	return b.String()
}

// line writes a line of a table.
func line(b *strings.Builder, cells ...string) {
	for _, cell := range cells {
		if b.WriteString("|"); cell != "" {
			b.WriteString(" " + cell)
		}
		b.WriteString(" ")
	}
	b.WriteString("|\n")
}

func code(names []string) string {
	var out []string
	for _, n := range names {
		out = append(out, "`"+n+"`")
	}
	return strings.Join(out, " ")
}
