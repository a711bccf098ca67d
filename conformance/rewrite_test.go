package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRewriteWrapsEveryClient(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"client literal", `c := &http.Client{Transport: tr, Jar: jar}`, `c := &http.Client{Transport: wrapRT(tr), Jar: jar}`},
		{"client literal inside net/http", `c := &Client{Transport: tr}`, `c := &Client{Transport: wrapRT(tr)}`},
		{"client literal without a transport", `c := http.Client{Jar: jar}`, `c := http.Client{Transport: wrapRT(nil), Jar: jar}`},
		{"empty client literal", `c := &Client{}`, `c := &Client{Transport: wrapRT(nil)}`},
		{"another type's literal", `c := &Server{Transport: tr}`, `c := &Server{Transport: tr}`},
		{"another package's client", `c := &rpc.Client{}`, `c := &rpc.Client{}`},
		{"literal in a literal", `c := &Client{Transport: &rt{c: &Client{}}}`, `c := &Client{Transport: wrapRT(&rt{c: &Client{Transport: wrapRT(nil)}})}`},
		{"server's client", `ts.Client().Get(u)`, `wrapClient(ts.Client()).Get(u)`},
		{"method with arguments", `ts.Client(1)`, `ts.Client(1)`},
		{"assignment", `c.Transport = tr`, `c.Transport = wrapRT(tr)`},
		{"assignment that keeps the old one", `c.Transport = &rt{c.Transport}`, `c.Transport = wrapRT(&rt{wrapBare(c.Transport)})`},
		{"two assignments at once", `c.Transport, n = tr, 1`, `c.Transport, n = wrapRT(tr), 1`},
		{"package's type", `var tr http.Transport`, `var tr http.Transport`},
		{"type assertion", `tr := c.Transport.(*http.Transport)`, `tr := wrapBare(c.Transport).(*http.Transport)`},
		{"type assertion on a server's client", `tr := ts.Client().Transport.(*Transport)`, `tr := wrapBare(wrapClient(ts.Client()).Transport).(*Transport)`},
		{"other type assertion", `tr := c.Transport.(fancy)`, `tr := c.Transport.(fancy)`},
		{"direct call", `tr.RoundTrip(req)`, `wrapRT(tr).RoundTrip(req)`},
		{"direct call in a condition", `if _, err := c.tr.RoundTrip(req); err != nil {}`, `if _, err := wrapRT(c.tr).RoundTrip(req); err != nil {}`},
	}
	const head, tail = "package http_test\n\nfunc TestX(t *T) {\n\t", "\n}\n"
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := rewriteFile("x_test.go", []byte(head+tt.in+tail), make(rewriteStats))
			if err != nil {
				t.Fatal(err)
			}
			if want := head + tt.want + tail; string(got) != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// A RoundTripper that a test defines is below the wrapper, not above another.
func TestRewriteLeavesRoundTripMethodsAlone(t *testing.T) {
	const in = "package http\n\nfunc (r *rt) RoundTrip(q *Request) (*Response, error) { return r.next.RoundTrip(q) }\n"
	got, err := rewriteFile("x_test.go", []byte(in), make(rewriteStats))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != in {
		t.Errorf("got\n%s", got)
	}
}

func TestRewriteFitsThisGo(t *testing.T) {
	goroot, err := output("", "go", "env", "GOROOT")
	if err != nil {
		t.Fatal(err)
	}
	stats := make(rewriteStats)
	replace, err := rewriteTests(filepath.Join(strings.TrimSpace(goroot), "src", "net", "http"), t.TempDir(), stats)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range []string{"server", "assert", "assign", "call", "client", "lit"} {
		if stats[rule] == 0 {
			t.Errorf("the rule %q applies nowhere: %v", rule, stats)
		}
	}
	for original, file := range replace {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.ParseFile(token.NewFileSet(), original, text, parser.SkipObjectResolution); err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(text), "wrap") {
			t.Errorf("%s wraps nothing", file)
		}
	}
}

func TestRewriteRefusesTestsThatItDoesNotKnow(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "x_test.go"), []byte("package http\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := rewriteTests(src, t.TempDir(), make(rewriteStats)); err == nil {
		t.Error("no error without newClientServerTest")
	}
}
