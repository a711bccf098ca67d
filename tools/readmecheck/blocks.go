// Go blocks, held against the sources that they name.

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/yuin/goldmark/ast"
)

var marker = regexp.MustCompile(`^<!-- from: ([^#\s]+)(?:#(\S+))? -->$`)

// checkBlocks returns how many Go blocks there are.
func checkBlocks(d *document, write bool) (int, error) {
	var faults []error
	fail := func(offset int, format string, args ...any) {
		faults = append(faults, d.errorf(offset, format, args...))
	}

	used := make(map[ast.Node]bool) // the markers that have a block
	blocks := 0
	type edit struct {
		start, stop int
		text        string
	}
	var edits []edit
	each(d, func(block *ast.FencedCodeBlock) {
		at := block.Pos()
		switch strings.ToLower(string(block.Language(d.source))) {
		case "go", "golang":
			blocks++
		case "":
			fail(at, "a code block without a language, which might be Go; say text if it is none")
			return
		default:
			return
		}
		if block.Parent().Kind() != ast.KindDocument {
			fail(at, "a Go block inside of a list or a quotation, where its text can't be told from its surroundings")
			return
		}
		above, ok := block.PreviousSibling().(*ast.HTMLBlock)
		m := marker.FindStringSubmatch(htmlText(d, above))
		if !ok || m == nil {
			fail(at, "a Go block without \"<!-- from: file.go#Name -->\" right above it")
			return
		}
		used[above] = true

		file := filepath.Join(filepath.Dir(d.file), filepath.FromSlash(m[1]))
		want, err := extract(file, m[2])
		if err != nil {
			fail(at, "%w", err)
			return
		}
		start, stop := content(d, block)
		if normalize(string(d.source[start:stop])) == want {
			return
		}
		if write {
			edits = append(edits, edit{start, stop, want})
		} else {
			fail(at, "the Go block isn't as in its source any more: %s; make readme writes it anew", m[0])
		}
	})
	each(d, func(html *ast.HTMLBlock) {
		if text := htmlText(d, html); strings.HasPrefix(text, "<!-- from:") && !used[html] {
			fail(html.Pos(), "%s has no Go block right below it, or is misspelt", text)
		}
	})

	if len(edits) > 0 && len(faults) == 0 {
		var out bytes.Buffer
		end := 0
		for _, e := range edits {
			out.Write(d.source[end:e.start])
			out.WriteString(e.text)
			end = e.stop
		}
		out.Write(d.source[end:])
		faults = append(faults, os.WriteFile(d.file, out.Bytes(), 0o666))
	}
	return blocks, errors.Join(faults...)
}

// content returns where the text between the two fences starts and stops.
func content(d *document, block *ast.FencedCodeBlock) (start, stop int) {
	if lines := block.Lines(); lines.Len() > 0 {
		return lines.At(0).Start, lines.At(lines.Len() - 1).Stop
	}
	start = len(d.source)
	if i := bytes.IndexByte(d.source[block.Pos():], '\n'); i >= 0 {
		start = block.Pos() + i + 1
	}
	return start, start
}

func htmlText(d *document, html *ast.HTMLBlock) string {
	if html == nil {
		return ""
	}
	return strings.TrimSpace(string(html.Lines().Value(d.source)))
}
