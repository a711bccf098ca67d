// Where net/http's tests make a client, and how that becomes a wrapped one.

package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// rewriteStats counts what was changed, by rule.
type rewriteStats map[string]int

func (s rewriteStats) String() string {
	var rules []string
	for _, rule := range slices.Sorted(maps.Keys(s)) {
		rules = append(rules, fmt.Sprintf("%s %d", rule, s[rule]))
	}
	return strings.Join(rules, ", ")
}

// rewriteTests writes a changed copy of each _test.go in src to dst where a
// rule applies, and returns original path -> copy. The rules, all syntactic:
//
//	assert   E.Transport.(*Transport)  -> wrapBare(E.Transport).(*Transport)
//	lit      &Client{Transport: E}     -> &Client{Transport: wrapRT(E)}; without Transport, wrapRT(nil)
//	client   ts.Client()               -> wrapClient(ts.Client())
//	assign   E.Transport = F           -> E.Transport = wrapRT(F), and in F wrapBare(E.Transport)
//	call     E.RoundTrip(r)            -> wrapRT(E).RoundTrip(r), not inside a RoundTrip method
//	server   newClientServerTest       -> wraps cst.c.Transport before it returns; cst.tr stays bare
//
// They name what hooks/ defines.
func rewriteTests(src, dst string, stats rewriteStats) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(src, "*_test.go"))
	if err != nil {
		return nil, err
	}
	replace := make(map[string]string)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		out, err := rewriteFile(name, text, stats)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(out, text) {
			continue
		}
		to := filepath.Join(dst, filepath.Base(name))
		if err := os.WriteFile(to, out, 0o644); err != nil {
			return nil, err
		}
		replace[name] = to
	}
	if stats["server"] != 1 {
		return nil, fmt.Errorf("newClientServerTest not found in %s: this Go version needs new rewrite rules", src)
	}
	return replace, nil
}

// edit is a text to insert. Closing ones end an expression.
type edit struct {
	at   int // offset
	ends bool
	seq  int // order of visits: outer expressions come before inner ones
	text string
}

func rewriteFile(name string, text []byte, stats rewriteStats) ([]byte, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var edits []edit
	add := func(at token.Pos, text string, ends bool) {
		edits = append(edits, edit{fset.Position(at).Offset, ends, len(edits), text})
	}
	around := func(n ast.Node, fn string) {
		add(n.Pos(), fn+"(", false)
		add(n.End(), ")", true)
	}
	inFunc := ""
	assigned := make(map[ast.Expr]bool) // E.Transport on the right of an assign
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			inFunc = n.Name.Name
			if n.Recv == nil && inFunc == "newClientServerTest" && n.Body != nil {
				ret := n.Body.List[len(n.Body.List)-1]
				add(ret.Pos(), "cst.c.Transport = wrapRT(cst.tr)\n\t", false)
				stats["server"]++
			}
		case *ast.TypeAssertExpr:
			if star, ok := n.Type.(*ast.StarExpr); ok && isName(star.X, "Transport") && isTransportField(n.X) {
				around(n.X, "wrapBare")
				stats["assert"]++
			}
		case *ast.CompositeLit:
			if n.Type == nil || !isName(n.Type, "Client") {
				break
			}
			stats["lit"]++
			i := slices.IndexFunc(n.Elts, func(e ast.Expr) bool {
				kv, ok := e.(*ast.KeyValueExpr)
				return ok && isName(kv.Key, "Transport")
			})
			switch {
			case i >= 0:
				around(n.Elts[i].(*ast.KeyValueExpr).Value, "wrapRT")
			case len(n.Elts) > 0:
				add(n.Lbrace+1, "Transport: wrapRT(nil), ", false)
			default:
				add(n.Lbrace+1, "Transport: wrapRT(nil)", false)
			}
		case *ast.AssignStmt:
			for i, l := range n.Lhs {
				if !isTransportField(l) || len(n.Rhs) != len(n.Lhs) || n.Tok != token.ASSIGN {
					continue
				}
				around(n.Rhs[i], "wrapRT")
				stats["assign"]++
				ast.Inspect(n.Rhs[i], func(m ast.Node) bool {
					if e, ok := m.(ast.Expr); ok && isTransportField(e) {
						assigned[e] = true
					}
					return true
				})
			}
		case *ast.SelectorExpr:
			if assigned[n] {
				around(n, "wrapBare")
			}
		case *ast.CallExpr:
			s, ok := n.Fun.(*ast.SelectorExpr)
			switch {
			case !ok:
			case s.Sel.Name == "Client" && len(n.Args) == 0 && inFunc != "newClientServerTest":
				around(n, "wrapClient")
				stats["client"]++
			case s.Sel.Name == "RoundTrip" && len(n.Args) == 1 && inFunc != "RoundTrip":
				around(s.X, "wrapRT")
				stats["call"]++
			}
		}
		return true
	})
	if len(edits) == 0 {
		return text, nil
	}

	// At one offset: closings first, inner before outer; then openings, outer
	// before inner.
	slices.SortFunc(edits, func(a, b edit) int {
		switch {
		case a.at != b.at:
			return a.at - b.at
		case a.ends != b.ends && a.ends:
			return -1
		case a.ends != b.ends:
			return 1
		case a.ends:
			return b.seq - a.seq
		}
		return a.seq - b.seq
	})
	var out bytes.Buffer
	last := 0
	for _, e := range edits {
		out.Write(text[last:e.at])
		out.WriteString(e.text)
		last = e.at
	}
	out.Write(text[last:])
	return out.Bytes(), nil
}

// isName reports whether e is name or http.name.
func isName(e ast.Expr, name string) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == name
	case *ast.SelectorExpr:
		x, ok := e.X.(*ast.Ident)
		return ok && x.Name == "http" && e.Sel.Name == name
	}
	return false
}

// isTransportField reports whether e is X.Transport with X a value, not the
// package.
func isTransportField(e ast.Expr) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != "Transport" {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return !ok || x.Name != "http"
}
