//go:build !race

package replay

import (
	"io"
	"strings"
	"testing"
)

type nopSource struct{ strings.Reader }

func (*nopSource) Close() error { return nil }

func TestFirstSendOfASmallBodyAllocatesNothing(t *testing.T) {
	const payload = "a small body"
	src := new(nopSource)
	b := new(Body) // in production a field of the exchange
	buf := make([]byte, 512)
	got := testing.AllocsPerRun(100, func() {
		src.Reset(payload)
		*b = Body{}
		r := b.Begin(src, 64<<10)
		for {
			if _, err := r.Read(buf); err == io.EOF {
				break
			}
		}
		r.Close()
		b.Finish()
	})
	if got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}
