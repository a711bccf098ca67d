//go:build soak

package requestforge_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// 100,000 subjects with tokens of 300 bytes are at most 150 MB, and a tenth of that where
// MaxSubjects says so, however many have come.
func TestAHundredThousandSubjectsMemory(t *testing.T) {
	const n, most = 100_000, 10_000
	all := heapOf(t, n, n)
	bounded := heapOf(t, n, most)
	t.Logf("%d bytes a subject, %d with MaxSubjects", all/n, bounded/most)
	require.LessOrEqual(t, all, int64(n*1500))
	require.LessOrEqual(t, bounded, int64(most*1500))
}
