package format_test

import (
	"fmt"
	"testing"

	"github.com/requestforge/requestforge/internal/format"
)

type secret struct{ value string }

func (secret) Format(s fmt.State, verb rune) { format.Text(s, verb, `secret "x"`) }

func TestTextIsTheSameForEveryVerb(t *testing.T) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%10v"} {
		if got := fmt.Sprintf(verb, secret{"hidden"}); got != `secret "x"` {
			t.Errorf("%s: %s", verb, got)
		}
	}
	if got := fmt.Sprintf("%q", secret{"hidden"}); got != `"secret \"x\""` {
		t.Errorf("%%q: %s", got)
	}
}
