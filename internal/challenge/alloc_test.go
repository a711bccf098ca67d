//go:build !race

package challenge

import (
	"net/http"
	"testing"
)

func TestNoHeaderNoAllocations(t *testing.T) {
	h := http.Header{"Content-Type": {"application/json"}}
	n := testing.AllocsPerRun(100, func() {
		if BearerError(h) != "" || VerdictOf(h) != Refused || Parse(h) != nil {
			t.Error("there is no challenge")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
