// How many ways lead through a function.

package main

import (
	"cmp"
	"go/ast"
	"go/token"
	"slices"
)

// function is a function with its cyclomatic complexity.
type function struct {
	name, file string
	complexity int
}

// complexFunctions returns the functions with a complexity above limit, the
// highest first.
func (p *pkg) complexFunctions(limit int) (list []function) {
	for _, f := range p.files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				if n := complexity(fn); n > limit {
					list = append(list, function{functionName(fn), p.file(fn.Pos()), n})
				}
			}
		}
	}
	slices.SortStableFunc(list, func(a, b function) int { return cmp.Compare(b.complexity, a.complexity) })
	return list
}

// complexity is 1, plus 1 for each if, for, case, clause of a select, && and
// || in fn and in the function literals of fn. A default adds nothing.
func complexity(fn *ast.FuncDecl) int {
	n := 1
	ast.Inspect(fn, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			n++
		case *ast.CaseClause:
			if node.List != nil {
				n++
			}
		case *ast.CommClause:
			if node.Comm != nil {
				n++
			}
		case *ast.BinaryExpr:
			if node.Op == token.LAND || node.Op == token.LOR {
				n++
			}
		}
		return true
	})
	return n
}

// functionName is fn as F, T.F or (*T).F.
func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	typ := fn.Recv.List[0].Type
	star, pointer := typ.(*ast.StarExpr)
	if pointer {
		typ = star.X
	}
	switch t := typ.(type) { // of a generic type
	case *ast.IndexExpr:
		typ = t.X
	case *ast.IndexListExpr:
		typ = t.X
	}
	name := "?"
	if id, ok := typ.(*ast.Ident); ok {
		name = id.Name
	}
	if pointer {
		name = "(*" + name + ")"
	}
	return name + "." + fn.Name.Name
}
