// Command readmecheck keeps the Markdown files true. It fails unless every Go
// block in them is text of a Go file that is compiled, and every relative link
// leads somewhere:
//
//	readmecheck [-w] README.md...
//
// It runs in the root of the repository. A Go block names its source in a
// comment right above it, the file relative to the Markdown file:
//
//	<!-- from: example_test.go#Example_twoStep -->
//
// After the # comes a function or Type.Method, whose body is meant without the
// closing Output comment of an example, or a region, which begins with a line
// "// readme:start name" in the source and ends with "// readme:end name".
// Without a # the whole file is meant. How far the text is indented doesn't
// matter. With -w the blocks are written anew from their sources.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	write := flag.Bool("w", false, "write the blocks anew from their sources")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: readmecheck [-w] file.md...")
		os.Exit(2)
	}
	blocks, err := check(flag.Args(), *write)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%d Markdown files, %d Go blocks as in their sources, every relative link leads somewhere\n", flag.NArg(), blocks)
}

// check returns how many Go blocks the files hold. Its error joins everything
// that is wrong.
func check(files []string, write bool) (int, error) {
	var faults []error
	blocks := 0
	for _, file := range files {
		doc, err := readDocument(file)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		n, err := checkBlocks(doc, write)
		blocks += n
		faults = append(faults, err, checkLinks(doc))
	}
	return blocks, errors.Join(faults...)
}
