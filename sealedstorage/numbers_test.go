//go:build !race

package sealedstorage_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

func TestStorageNeverUsesANonceTwice(t *testing.T) {
	below := new(sink)
	e := seal(t, below, "k")
	const header, nonce = len("rfs1\x00") + 1 + len("k"), 12
	r := rf.Record{Key: "k", Token: &rf.Token{AccessToken: "a"}}
	seen := make(map[string]bool)
	for range 10_000 {
		_, err := e.Save(t.Context(), "k", r, 0)
		require.NoError(t, err)
		seen[below.stored.Token.AccessToken[header:header+nonce]] = true
	}
	require.Len(t, seen, 10_000)
}
