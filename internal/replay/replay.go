// How one request body is sent several times. Who sends it again, and why,
// is the transports' business.

// Package replay lets a request body be sent more than once without
// buffering more of it than a bound, whatever its size.
package replay

import (
	"errors"
	"io"
	"sync"
)

var (
	errClosed = errors.New("requestforge: read of a request body after Close")
	errSeized = errors.New("requestforge: read of a request body that is being sent again")
)

// Body keeps what is read of a request body, up to a bound, so that it can
// be read again from its first byte.
//
// The invariant: until the body is lost, the bytes kept are exactly the
// bytes that src has given so far. A reader for another send therefore
// yields the kept bytes and then goes on with src where its predecessor
// stopped; nothing has to be read ahead, and an upload that was refused
// before its first byte is replayable whatever its size. Once the invariant
// breaks (the bound is passed, src fails, or src is closed before its end)
// the body is lost: this send goes on, and there is no other.
//
// At most one reader is current. The zero value is an unused Body; it must
// not be copied after Begin. Its methods, and those of its readers, may be
// called from several goroutines: a transport may still be reading when its
// RoundTrip has returned.
type Body struct {
	src io.ReadCloser // nil until Begin, never changed after
	max int64         // bytes

	// mu is never held while src is read or closed: either may block for
	// as long as the caller of the request likes.
	mu       sync.Mutex
	cur      *reader // the newest reader; its predecessors were seized
	reading  bool    // src.Read is running, on behalf of cur
	eof      bool    // src has said io.EOF, and is not read again
	closed   bool    // src.Close has been called
	lost     bool    // the invariant is broken; nothing is kept
	finished bool    // there will be no further send

	// The kept bytes. They are written and read under mu only, so giving
	// the chunks back to the pool needs no other count of who uses them.
	head, tail *chunk
	size       int64 // bytes kept

	first reader // the reader of the first send, here to cost no allocation
}

// chunk is a piece of the kept bytes. A list of small ones never holds more
// memory than the bound allows, and never copies what it holds to grow.
type chunk struct {
	next *chunk
	data [chunkSize]byte
}

const chunkSize = 4096 - 8 // with next, 4 KiB

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// Begin takes over src, which is closed exactly once from now on. It returns
// the reader for the first send. limit is the bound in bytes; 0 or less keeps
// nothing, which leaves only a body replayable of which nothing was read.
//
// Begin may be called once. A body that is not going to be sent after all is
// disposed of by closing the reader and calling Finish, in any order.
func (b *Body) Begin(src io.ReadCloser, limit int64) io.ReadCloser {
	b.src, b.max = src, max(limit, 0)
	b.first.b = b
	b.cur = &b.first
	return b.cur
}

// Used reports whether Begin was called; on a nil Body it wasn't.
func (b *Body) Used() bool { return b != nil && b.src != nil }

// Lost reports whether Again will fail whenever it is called, so that a wait
// before it would be in vain.
func (b *Body) Lost() bool {
	if !b.Used() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lost || b.finished
}

// Again returns a reader for the next send, from the body's first byte, or
// false if that can't be had. The reader before it is seized: it gives no
// more bytes, and its Close does nothing.
//
// While src is being read for the earlier send, Again returns false too. That
// alone doesn't make the body lost.
func (b *Body) Again() (io.ReadCloser, bool) {
	if !b.Used() {
		return nil, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost || b.finished || b.reading {
		return nil, false
	}
	b.cur = &reader{b: b, at: b.head}
	return b.cur, true
}

// Finish says that there will be no further send. It closes src if the
// transport has closed the current reader before src's end; otherwise the
// transport is still reading, or yet to close it, and its Close closes src.
// On a Body that isn't used it does nothing.
func (b *Body) Finish() {
	if !b.Used() {
		return
	}
	b.mu.Lock()
	if b.finished {
		b.mu.Unlock()
		return
	}
	b.finished = true
	b.settle()
	parked := b.cur.closed && b.claimClose()
	b.mu.Unlock()
	if parked {
		b.src.Close()
	}
}

// claimClose reports whether the caller has to close src, once mu is free.
func (b *Body) claimClose() bool {
	if b.closed {
		return false
	}
	b.closed = true
	if !b.eof {
		b.lose()
	}
	return true
}

// keep adds to the kept bytes what src has just given.
func (b *Body) keep(p []byte) {
	if b.lost || b.finished {
		return
	}
	if b.size+int64(len(p)) > b.max {
		b.lose()
		return
	}
	for len(p) > 0 {
		at := int(b.size % chunkSize)
		if at == 0 {
			c := chunks.Get().(*chunk)
			if b.tail == nil {
				b.head = c
			} else {
				b.tail.next = c
			}
			b.tail = c
		}
		n := copy(b.tail.data[at:], p)
		b.size += int64(n)
		p = p[n:]
	}
}

// lose gives the body up for any further send. A reader that is still in the
// kept bytes goes on with them: see settle.
func (b *Body) lose() {
	b.lost = true
	b.settle()
}

// settle returns the chunks to the pool once nobody can ask for them: there
// will be no further send, and the current reader is through with them.
func (b *Body) settle() {
	if !b.lost && !b.finished || !b.cur.closed && b.cur.off < b.size {
		return
	}
	for c := b.head; c != nil; {
		next := c.next
		*c = chunk{} // somebody's request body
		chunks.Put(c)
		c = next
	}
	b.head, b.tail, b.size = nil, nil, 0
}

// reader reads a Body for one send.
type reader struct {
	b *Body

	// Guarded by b.mu.
	closed bool
	off    int64  // bytes read; beyond b.size once those are given back
	at     *chunk // holds the byte at off, while off < b.size
}

// Read implements io.Reader. Errors of the caller's body go up as they are.
func (r *reader) Read(p []byte) (int, error) {
	b := r.b
	b.mu.Lock()
	switch {
	case r != b.cur:
		b.mu.Unlock()
		return 0, errSeized
	case r.closed:
		b.mu.Unlock()
		return 0, errClosed
	case r.off < b.size:
		n := r.readKept(p)
		b.settle()
		b.mu.Unlock()
		return n, nil
	case b.eof:
		b.mu.Unlock()
		return 0, io.EOF
	}
	b.reading = true
	b.mu.Unlock()

	n, err := b.src.Read(p)

	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	if n < 0 || n > len(p) {
		// Not a count that a Reader may return. Whoever reads would
		// have to deal with it without us too.
		b.lose()
		return n, err
	}
	b.keep(p[:n])
	r.off += int64(n)
	switch {
	case err == io.EOF:
		b.eof = true
	case err != nil:
		b.lose()
	}
	return n, err
}

// readKept copies kept bytes to p. The memory is the caller's and the copy
// short, so mu may be held.
func (r *reader) readKept(p []byte) int {
	p = p[:min(int64(len(p)), r.b.size-r.off)]
	n := copy(p, r.at.data[r.off%chunkSize:])
	r.off += int64(n)
	if n > 0 && r.off%chunkSize == 0 {
		r.at = r.at.next
	}
	return n
}

// Close implements io.Closer. It closes src unless a later send may go on
// reading it; then Finish, or that send, does.
func (r *reader) Close() error {
	b := r.b
	b.mu.Lock()
	if r != b.cur || r.closed {
		b.mu.Unlock()
		return nil
	}
	r.closed = true
	parked := !b.reading && !b.eof && !b.lost && !b.finished
	through := !parked && b.claimClose()
	b.settle()
	b.mu.Unlock()
	if through {
		return b.src.Close()
	}
	return nil
}
