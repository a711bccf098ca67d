// Relative links.

package main

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/yuin/goldmark/ast"
)

// checkLinks looks at every link and image of Markdown, not at raw HTML.
func checkLinks(d *document) error {
	var faults []error
	check := func(n ast.Node, destination []byte) {
		if err := follow(d, string(destination)); err != nil {
			faults = append(faults, d.errorf(n.Pos(), "link to %s: %w", destination, err))
		}
	}
	each(d, func(n *ast.Link) { check(n, n.Destination) })
	each(d, func(n *ast.Image) { check(n, n.Destination) })
	return errors.Join(faults...)
}

// follow returns an error if a relative link leads nowhere. A path that
// begins with a slash is meant from the root of the repository, as on GitHub.
func follow(d *document, link string) error {
	u, err := url.Parse(link)
	if err != nil {
		return err
	}
	if u.IsAbs() || u.Host != "" {
		return nil // of another site, which may be down while we are right
	}
	target := d
	if u.Path != "" {
		name := filepath.Join(filepath.Dir(d.file), filepath.FromSlash(u.Path))
		if strings.HasPrefix(u.Path, "/") {
			name = filepath.Join(".", filepath.FromSlash(u.Path))
		}
		if !filepath.IsLocal(name) {
			return errors.New("leaves the repository")
		}
		if _, err := os.Stat(name); err != nil {
			return errors.New("no such file or folder")
		}
		if !strings.EqualFold(filepath.Ext(name), ".md") {
			return nil // a line of a file, perhaps
		}
		if target, err = readDocument(name); err != nil {
			return err
		}
	}
	if u.Fragment != "" && !target.anchors()[u.Fragment] {
		return errors.New("no such heading")
	}
	return nil
}
