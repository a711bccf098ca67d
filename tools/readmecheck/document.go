// A Markdown file as goldmark reads it.

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
)

type document struct {
	file   string
	source []byte
	root   ast.Node
}

func readDocument(file string) (*document, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return &document{file, source, goldmark.New().Parser().Parse(text.NewReader(source))}, nil
}

// errorf is fmt.Errorf with the file and the line of an offset before it.
func (d *document) errorf(offset int, format string, args ...any) error {
	line := 1 + bytes.Count(d.source[:offset], []byte("\n"))
	return fmt.Errorf("%s:%d: %w", d.file, line, fmt.Errorf(format, args...))
}

// each calls f with every node of type T, in order.
func each[T ast.Node](d *document, f func(T)) {
	ast.Walk(d.root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := n.(T); ok && entering {
			f(t)
		}
		return ast.WalkContinue, nil
	})
}

// anchors returns the names that GitHub gives to the headings.
func (d *document) anchors() map[string]bool {
	names := make(map[string]bool)
	each(d, func(h *ast.Heading) {
		base := slug(plainText(h, d.source))
		name := base
		for i := 1; names[name]; i++ {
			name = fmt.Sprintf("%s-%d", base, i)
		}
		names[name] = true
	})
	return names
}

// slug is a heading in lower case with spaces as hyphens, and with nothing
// left of its punctuation but hyphens and underscores.
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-', r == '_', unicode.IsLetter(r), unicode.IsMark(r), unicode.IsNumber(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(heading))
}

// plainText returns what a reader sees of n.
func plainText(n ast.Node, source []byte) string {
	var b strings.Builder
	ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.Text:
			if entering {
				b.Write(n.Value(source))
			}
		case *ast.String:
			if entering {
				b.Write(n.Value)
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}
