package unwrap

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A shape is what is wrapped here, a namer what is looked for.
type (
	shape interface{ shape() }
	namer interface{ name() string }

	plain   struct{}
	named   string
	wrapper struct{ next shape }
	both    struct {
		wrapper
		named
	}
	foreign struct{} // wraps something else than a shape
	endless struct{ unwrapped *int }
)

func (plain) shape()    {}
func (named) shape()    {}
func (*wrapper) shape() {}
func (*both) shape()    {}
func (foreign) shape()  {}
func (endless) shape()  {}

func (n named) name() string         { return string(n) }
func (w *wrapper) Unwrap() shape     { return w.next }
func (foreign) Unwrap() namer        { return named("foreign") }
func (e endless) Unwrap() shape      { *e.unwrapped++; return e }
func wrap(next shape) shape          { return &wrapper{next} }
func wrapAs(n string, s shape) *both { return &both{wrapper{s}, named(n)} }

func TestFindReturnsTheFirstOfTheChain(t *testing.T) {
	for name, test := range map[string]struct {
		in   shape
		want string
	}{
		"the value itself":  {named("a"), "a"},
		"wrapped once":      {wrap(named("a")), "a"},
		"wrapped twice":     {wrap(wrap(named("a"))), "a"},
		"a wrapper's own":   {wrapAs("a", named("b")), "a"},
		"between two":       {wrap(wrapAs("a", named("b"))), "a"},
		"nil":               {nil, ""},
		"none":              {plain{}, ""},
		"none below":        {wrap(wrap(plain{})), ""},
		"nil below":         {wrap(nil), ""},
		"a nil pointer":     {(*wrapper)(nil), ""},
		"nil pointer below": {wrap((*wrapper)(nil)), ""},
		"another Unwrap":    {foreign{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			found, ok := Find[namer](test.in)
			require.Equal(t, test.want != "", ok)
			if ok {
				require.Equal(t, test.want, found.name())
			} else {
				require.Nil(t, found)
			}
		})
	}
}

func TestFindEndsInACycle(t *testing.T) {
	n := 0
	_, ok := Find[namer](shape(endless{&n}))
	require.False(t, ok)
	require.Equal(t, maxDepth, n)

	self := &wrapper{}
	self.next = self
	_, ok = Find[namer](shape(self))
	require.False(t, ok)
}
