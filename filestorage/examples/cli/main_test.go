package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The demo runs the test binary as the tool.
func TestMain(m *testing.M) {
	for _, arg := range os.Args {
		if arg == "-server" {
			main()
			return
		}
	}
	os.Exit(m.Run())
}

func TestSecondRunNeedsNoLogin(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	require.NoError(t, demo(t.Context(), &out))
	require.Contains(t, out.String(), "run 1: the tool says \"hello gopher: fetched 2 tokens, loaded 0\", the auth server saw 2 fetches")
	require.Contains(t, out.String(), "run 2: the tool says \"hello gopher: fetched 0 tokens, loaded 1\", the auth server saw 0 fetches")
	require.True(t, strings.HasSuffix(out.String(), "the second run needed no login\n"))
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	require.Empty(t, left, "it cleans up")
}
