//go:build soak

package requestforge_test

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
)

// Three thousand interleavings, of which make test has a hundred: the same ones each time,
// so that a change is to blame for what they find. Others are drawn by
//
//	go test -run TestSubjectsAgreeWithTheirModelOften -rapid.checks=10000
func TestSubjectsAgreeWithTheirModelForLong(t *testing.T) {
	crowdLongest = 16
	for name, value := range map[string]string{"rapid.checks": "3000", "rapid.seed": "1"} {
		f := flag.Lookup(name)
		before := f.Value.String()
		require.NoError(t, f.Value.Set(value))
		defer f.Value.Set(before)
	}
	checkCrowd(t)
}
