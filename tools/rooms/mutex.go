// Which files lock which mutex.

package main

import (
	"fmt"
	"go/ast"
	"go/types"
	"maps"
	"slices"
	"strings"
)

// mutex is a sync.Mutex or sync.RWMutex of the package, with the functions
// that lock the mutex.
type mutex struct {
	name    string                            // of the struct and the field, or of the variable
	lockers map[string]map[*ast.FuncDecl]bool // by file
}

func (m *mutex) String() string {
	functions := 0
	var files []string
	for _, file := range slices.Sorted(maps.Keys(m.lockers)) {
		functions += len(m.lockers[file])
		files = append(files, fmt.Sprintf("%s (%d)", file, len(m.lockers[file])))
	}
	return strings.TrimSuffix(fmt.Sprintf("%s: %d functions in %d files: %s",
		m.name, functions, len(files), strings.Join(files, ", ")), ": ")
}

// mutexes returns the mutexes in structs and in package-level variables,
// sorted by name.
func (p *pkg) mutexes() []*mutex {
	found := make(map[types.Object]*mutex)
	for _, f := range p.files {
		var owner string
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				owner = n.Name.Name
			case *ast.FuncDecl:
				owner = functionName(n)
			case *ast.ValueSpec:
				for _, id := range n.Names {
					if v := p.info.Defs[id]; v != nil && v.Parent() == p.types.Scope() {
						owner = id.Name
						if isMutex(v.Type()) {
							found[v] = &mutex{name: id.Name}
						}
					}
				}
			case *ast.StructType:
				for _, field := range n.Fields.List {
					for _, id := range fieldNames(field) {
						if v := p.info.Defs[id]; v != nil && isMutex(v.Type()) {
							found[v] = &mutex{name: owner + "." + id.Name}
						}
					}
				}
			}
			return true
		})
	}
	for _, f := range p.files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				m := found[p.locked(call)]
				if m == nil {
					return true
				}
				if m.lockers == nil {
					m.lockers = make(map[string]map[*ast.FuncDecl]bool)
				}
				file := p.file(fn.Pos())
				if m.lockers[file] == nil {
					m.lockers[file] = make(map[*ast.FuncDecl]bool)
				}
				m.lockers[file][fn] = true
				return true
			})
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b *mutex) int { return strings.Compare(a.name, b.name) })
}

// locked returns the field or variable that call locks, nil if call locks no
// mutex.
func (p *pkg) locked(call *ast.CallExpr) types.Object {
	lock, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	switch lock.Sel.Name {
	case "Lock", "RLock", "TryLock", "TryRLock":
	default:
		return nil
	}
	sel := p.info.Selections[lock]
	if sel == nil || sel.Kind() != types.MethodVal {
		return nil
	}
	if path := sel.Index(); len(path) > 1 { // by way of embedded fields
		var field *types.Var
		typ := sel.Recv()
		for _, i := range path[:len(path)-1] {
			s, ok := deref(typ).Underlying().(*types.Struct)
			if !ok {
				return nil
			}
			field = s.Field(i)
			typ = field.Type()
		}
		return field.Origin()
	}
	switch x := ast.Unparen(lock.X).(type) {
	case *ast.SelectorExpr:
		if v, ok := p.info.Uses[x.Sel].(*types.Var); ok {
			return v.Origin()
		}
	case *ast.Ident:
		return p.info.Uses[x]
	}
	return nil
}

// fieldNames returns the identifiers that define fields. An embedded field is
// defined by the identifier of the type.
func fieldNames(f *ast.Field) []*ast.Ident {
	if len(f.Names) > 0 {
		return f.Names
	}
	typ := f.Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	switch t := typ.(type) {
	case *ast.SelectorExpr:
		return []*ast.Ident{t.Sel}
	case *ast.Ident:
		return []*ast.Ident{t}
	}
	return nil
}

func isMutex(t types.Type) bool {
	named, ok := deref(t).(*types.Named)
	if !ok || named.Obj().Pkg() == nil || named.Obj().Pkg().Path() != "sync" {
		return false
	}
	return named.Obj().Name() == "Mutex" || named.Obj().Name() == "RWMutex"
}

func deref(t types.Type) types.Type {
	t = types.Unalias(t)
	if p, ok := t.(*types.Pointer); ok {
		return types.Unalias(p.Elem())
	}
	return t
}
