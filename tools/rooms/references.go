// Which file refers to which.

package main

import (
	"go/ast"
	"go/types"
	"maps"
	"slices"
)

// graph has, for each file, the set of files that the file refers to.
type graph map[string]map[string]bool

// references returns the graph of p. File a refers to file b if an identifier
// in a resolves to a package-level object, a method or a struct field declared
// in b.
func (p *pkg) references() graph {
	g := make(graph)
	for _, f := range p.files {
		from := p.file(f.FileStart)
		g[from] = make(map[string]bool)
		ast.Inspect(f, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			obj := p.info.Uses[id]
			if obj == nil || obj.Pkg() != p.types {
				return true
			}
			if _, isImport := obj.(*types.PkgName); isImport {
				return true
			}
			// Methods and fields have no parent; the parent of a local
			// variable is the scope of a function.
			if parent := obj.Parent(); parent != nil && parent != p.types.Scope() {
				return true
			}
			if to := p.file(obj.Pos()); to != from {
				g[from][to] = true
			}
			return true
		})
	}
	return g
}

// mutual returns the pairs of files that refer to each other, sorted.
func (g graph) mutual() (pairs [][2]string) {
	for _, a := range slices.Sorted(maps.Keys(g)) {
		for _, b := range slices.Sorted(maps.Keys(g[a])) {
			if a < b && g[b][a] {
				pairs = append(pairs, [2]string{a, b})
			}
		}
	}
	return pairs
}

// largestCycle returns the files of the largest strongly connected component,
// sorted, and nil if no file is part of a cycle.
func (g graph) largestCycle() (largest []string) {
	reach := make(map[string]map[string]bool, len(g))
	for from := range g {
		reach[from] = g.reachable(from)
	}
	for _, a := range slices.Sorted(maps.Keys(g)) {
		var cycle []string
		for b := range reach[a] {
			if reach[b][a] {
				cycle = append(cycle, b)
			}
		}
		if len(cycle) > len(largest) {
			largest = cycle
		}
	}
	slices.Sort(largest)
	return largest
}

// reachable returns the files at the end of any chain of references that
// begins in from: from too if from is part of a cycle.
func (g graph) reachable(from string) map[string]bool {
	seen := make(map[string]bool)
	for todo := []string{from}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for to := range g[next] {
			if !seen[to] {
				seen[to] = true
				todo = append(todo, to)
			}
		}
	}
	return seen
}
