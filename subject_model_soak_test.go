//go:build soak

package requestforge_test

import (
	"fmt"
	"testing"
)

// Three thousand interleavings, of which make test has a hundred.
func TestSubjectsAgreeWithTheirModelForLong(t *testing.T) {
	crowdLongest = 16
	for i := range 30 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			checkCrowd(t)
		})
	}
}
