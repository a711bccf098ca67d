// The part of a Go file that a marker names.

package main

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// extract returns the part of a Go file that name means, normalized.
func extract(file, name string) (string, error) {
	if err := compiled(file); err != nil {
		return "", err
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if name == "" {
		return normalize(string(src)), nil
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return "", err
	}

	var found []string
	for _, decl := range f.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && funcName(fn) == name && fn.Body != nil {
			found = append(found, body(fset, f, fn, src))
		}
	}
	regions, err := regions(fset, f, src)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	found = append(found, regions[name]...)
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%s has no function and no region %s", file, name)
	case 1:
		return normalize(found[0]), nil
	}
	return "", fmt.Errorf("%s has more than one %s", file, name)
}

// compiled returns an error if go vet ./... would not look at the file.
func compiled(file string) error {
	if !strings.HasSuffix(file, ".go") || !filepath.IsLocal(file) {
		return fmt.Errorf("%s is not a Go file of this repository", file)
	}
	dir, name := filepath.Split(file)
	for part := range strings.SplitSeq(filepath.ToSlash(dir), "/") {
		if part == "testdata" || strings.HasPrefix(part, "_") || strings.HasPrefix(part, ".") {
			return fmt.Errorf("%s is never compiled: it is below %s", file, part)
		}
	}
	switch ok, err := build.Default.MatchFile(dir, name); {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("%s is not compiled here: its name or its build constraint excludes it", file)
	}
	return nil
}

// funcName is the function's name, with its receiver's type before a method's.
func funcName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	recv := fn.Recv.List[0].Type
	for {
		switch t := recv.(type) {
		case *ast.StarExpr:
			recv = t.X
		case *ast.IndexExpr:
			recv = t.X
		case *ast.IndexListExpr:
			recv = t.X
		case *ast.Ident:
			return t.Name + "." + fn.Name.Name
		default:
			return fn.Name.Name
		}
	}
}

var outputComment = regexp.MustCompile(`(?i)^//\s*(unordered )?output:`) // as in go/doc

// body returns what stands between the braces of fn, without the comment that
// closes an example.
func body(fset *token.FileSet, f *ast.File, fn *ast.FuncDecl, src []byte) string {
	from, to := fn.Body.Lbrace+1, fn.Body.Rbrace
	for _, c := range f.Comments {
		if from < c.Pos() && c.End() < to && outputComment.MatchString(c.List[0].Text) && !followed(fn, c) {
			to = c.Pos()
		}
	}
	return string(src[fset.Position(from).Offset:fset.Position(to).Offset])
}

// followed reports whether a statement of fn comes after c.
func followed(fn *ast.FuncDecl, c *ast.CommentGroup) bool {
	list := fn.Body.List
	return len(list) > 0 && list[len(list)-1].End() > c.Pos()
}

var regionComment = regexp.MustCompile(`^// readme:(start|end) (\S+)$`)

// regions returns the text of each region by its name. Only comments count, so
// a string may hold what looks like a marker.
func regions(fset *token.FileSet, f *ast.File, src []byte) (map[string][]string, error) {
	found := make(map[string][]string)
	open := make(map[string]int) // name -> offset of the line after the start
	for _, group := range f.Comments {
		for _, c := range group.List {
			m := regionComment.FindStringSubmatch(c.Text)
			if m == nil {
				continue
			}
			name, at := m[2], fset.Position(c.Pos())
			start, isOpen := open[name]
			switch {
			case m[1] == "start" && isOpen:
				return nil, fmt.Errorf("line %d: region %s starts within itself", at.Line, name)
			case m[1] == "start":
				open[name] = fset.Position(c.End()).Offset
			case !isOpen:
				return nil, fmt.Errorf("line %d: region %s ends before it starts", at.Line, name)
			default:
				found[name] = append(found[name], string(src[start:at.Offset]))
				delete(open, name)
			}
		}
	}
	for name := range open {
		return nil, fmt.Errorf("region %s doesn't end", name)
	}
	return found, nil
}

// normalize returns code as gofmt would have it at the left margin, without
// region markers and without blank lines around it. What can't stand alone,
// half a literal say, is only moved to the margin.
func normalize(code string) string {
	lines := strings.Split(strings.ReplaceAll(code, "\r\n", "\n"), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return regionComment.MatchString(strings.TrimSpace(line))
	})
	margin := -1
	for _, line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		if indent := len(line) - len(strings.TrimLeft(line, "\t ")); margin < 0 || indent < margin {
			margin = indent
		}
	}
	for i, line := range lines {
		lines[i] = strings.TrimRight(line[min(max(margin, 0), len(line)):], " \t")
	}
	code = strings.Trim(strings.Join(lines, "\n"), "\n")
	if formatted, err := format.Source([]byte(code)); err == nil {
		code = strings.Trim(string(formatted), "\n")
	}
	if code == "" {
		return ""
	}
	return code + "\n"
}
