// Package unwrap finds out what a value can do, or the values that it wraps.
package unwrap

import "github.com/requestforge/requestforge/internal/mistake"

// maxDepth bounds the search in a chain that never ends, such as a wrapper
// whose Unwrap returns the wrapper itself.
const maxDepth = 100

// Find returns the first I in the chain that begins with s and continues with
// what the method Unwrap() S of each link returns. The chain ends with the first
// link that has no such method, is nil or holds a nil pointer.
func Find[I, S any](s S) (I, bool) {
	for range maxDepth {
		if found, ok := any(s).(I); ok {
			return found, true
		}
		wrapper, ok := any(s).(interface{ Unwrap() S })
		if !ok || mistake.IsNil(s) {
			break
		}
		s = wrapper.Unwrap()
	}
	var none I
	return none, false
}
