package requestforge_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every room of the root is on the map that a newcomer gets.
func TestMapNamesEveryRoom(t *testing.T) {
	doc, err := os.ReadFile("CONTRIBUTING.md")
	require.NoError(t, err)
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") && !strings.Contains(string(doc), "`"+f+"`") {
			t.Errorf("CONTRIBUTING.md, Where things are: %s is not in the table", f)
		}
	}
}
