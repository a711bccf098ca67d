package slowhash

import (
	"fmt"
	"testing"
)

func TestPrint(t *testing.T) {
	begun := 0
	count := func() { begun++ }
	a, b := Print([]byte("a"), count), Print([]byte("b"), count)
	if again := Print([]byte("a"), count); len(a) != 4 || a == b || again != a {
		t.Errorf("prints %q and %q, then %q", a, b, again)
	}
	if begun != 3 {
		t.Errorf("%d of 3 calls said that they have begun", begun)
	}
}

func TestPrintRemembersABoundedNumber(t *testing.T) {
	mu.Lock()
	for i := range most {
		known[[32]byte{1, byte(i), byte(i >> 8)}] = fmt.Sprint(i)
	}
	mu.Unlock()
	Print([]byte("one more"), func() {})
	mu.Lock()
	defer mu.Unlock()
	if len(known) > most {
		t.Errorf("%d prints are remembered, want %d at most", len(known), most)
	}
}
