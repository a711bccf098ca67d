// How a request body is sent several times. The transports decide when to send again.

// Package replay lets a request body of any size be sent more than once, with a bound
// on the buffered bytes.
package replay

import (
	"errors"
	"io"
	"sync"
)

var (
	errClosed = errors.New("requestforge: read of a request body after Close")
	errSpent  = errors.New("requestforge: the request body can't be sent again: too much of it has been read, or it is being read")
	errSeized = errors.New("requestforge: read of a request body that is being sent again")
)

// Body keeps the bytes read of a request body, up to a bound, so that the body can be
// read again from its first byte.
//
// The invariant: until the body is lost, the kept bytes are exactly the bytes that src
// has returned so far. So a reader for another send yields the kept bytes and then goes
// on with src where the previous reader stopped. No bytes have to be read ahead, and an
// upload that was refused before the first byte can be replayed whatever its size. When
// the invariant breaks (the bound is passed, src fails, or src is closed before its
// end), the body is lost: the present send goes on, but no further send is possible.
//
// At most one reader is current. The zero value is an unused Body; a Body must not be
// copied after Begin. Several goroutines may call the methods of a Body and of its
// readers: a transport may still be reading when RoundTrip has returned.
type Body struct {
	src io.ReadCloser // nil until Begin, never changed after
	max int64         // bytes

	// mu is never held while src is read or closed: either may block for
	// as long as the caller of the request likes.
	mu       sync.Mutex
	cur      *reader // the newest reader; earlier readers were seized
	reading  bool    // src.Read is running, on behalf of cur
	eof      bool    // src has said io.EOF, and is not read again
	closed   bool    // src.Close has been called
	lost     bool    // the invariant is broken; nothing is kept
	finished bool    // there will be no further send

	// The kept bytes are written and read under mu only, so giving the chunks back to
	// the pool needs no count of users.
	head, tail *chunk
	size       int64 // bytes kept

	first reader // the reader of the first send, here to cost no allocation
}

// chunk is a piece of the kept bytes. A list of small chunks never holds more memory
// than the bound allows, and grows without copying.
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

// Used reports whether Begin was called; false for a nil Body.
func (b *Body) Used() bool { return b != nil && b.src != nil }

// Lost reports whether Again will always fail, so that waiting before Again would be
// useless.
func (b *Body) Lost() bool {
	if !b.Used() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lost || b.finished
}

// Kept returns the number of kept bytes, and whether the kept bytes are the whole body.
func (b *Body) Kept() (n int64, whole bool) {
	if !b.Used() {
		return 0, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size, b.eof && !b.lost
}

// Again returns a reader for the next send, from the body's first byte, or false if no
// reader is possible. The previous reader is seized: it gives no more bytes, and its
// Close does nothing.
//
// While src is being read for the earlier send, Again returns false too, but the body
// isn't lost.
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

// Rewound is Again as http.Request.GetBody has it.
func (b *Body) Rewound() (io.ReadCloser, error) {
	body, ok := b.Again()
	if !ok {
		return nil, errSpent
	}
	return body, nil
}

// Finish announces that no further send will follow. If the transport has closed the
// current reader before src's end, Finish closes src. Otherwise the transport is still
// reading, or yet to close the reader, and the reader's Close closes src. On an unused
// Body, Finish does nothing.
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

// keep adds p, just read from src, to the kept bytes.
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

// reader reads a Body for a send.
type reader struct {
	b *Body

	// Guarded by b.mu.
	closed bool
	off    int64  // bytes read; beyond b.size once the kept bytes are given back
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
		// The count is invalid for a Reader. Return the count, as src would without a
		// Body.
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

// Close implements io.Closer. Close closes src unless a later send may go on reading
// src; then Finish, or the later send, closes src.
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
