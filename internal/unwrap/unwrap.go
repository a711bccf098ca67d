// Package unwrap searches a value, and the values wrapped by the value, for an
// interface.
package unwrap

import (
	"iter"

	"github.com/requestforge/requestforge/internal/mistake"
)

// maxDepth bounds the search in an endless chain, for example of a wrapper whose
// Unwrap returns the wrapper.
const maxDepth = 100

// Find returns the first I in a chain: s, the result of the method Unwrap() S of s,
// the result of the same method of the result, and so on. The chain ends at a link
// without the method, at nil and at a nil pointer.
func Find[I, S any](s S) (I, bool) {
	for found := range All[I](s) {
		return found, true
	}
	var none I
	return none, false
}

// All returns each I in the chain, the outermost first.
func All[I, S any](s S) iter.Seq[I] {
	return func(yield func(I) bool) {
		for range maxDepth {
			if found, ok := any(s).(I); ok && !yield(found) {
				return
			}
			wrapper, ok := any(s).(interface{ Unwrap() S })
			if !ok || mistake.IsNil(s) {
				return
			}
			s = wrapper.Unwrap()
		}
	}
}
