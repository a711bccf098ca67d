package roundtrip

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds on reading an unwanted body: at most most bytes, for at most longest. A
// longer or slower body costs more than its connection is worth.
const (
	most    = 64 << 10
	longest = time.Second
)

var errBody = errors.New("requestforge: the response's body can't be read: its Read panics or counts wrongly")

// Release reads the body of an answer that has to wait, and may still go to the caller,
// so that the answer's connection can serve other requests meanwhile. The body stays
// readable, with the error that ended the reading. Release takes a second at most, and
// less if the caller gives req up. If a body is longer than 64 KiB or slower, the rest
// stays unread for the reader of the body. Release leaves a body alone that is known to
// be longer, and a connection that has switched to another protocol. A nil body becomes
// an empty body.
func Release(req *http.Request, resp *http.Response) {
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	switch resp.Body.(type) {
	case *inMemory, *slow:
		return
	}
	if resp.Body == http.NoBody || resp.ContentLength > most || resp.StatusCode == http.StatusSwitchingProtocols {
		return
	}
	r := begin(resp.Body, true)
	if !r.wait(req.Context().Done(), Cancel(req)) {
		resp.Body = &slow{reading: r}
		return
	}
	if r.err == nil { // more than most
		resp.Body = &again{src: r.src, kept: r.kept}
		return
	}
	end := r.err
	if end == io.EOF {
		end = nil
	}
	resp.Body = &inMemory{*bytes.NewReader(r.kept), end}
}

// Discard drains and closes the body of an unwanted response, so that the connection
// can serve again. A long or slow body isn't drained: a new connection costs less.
// Discard takes two seconds at most, and a second for a body of net/http. A body that
// was too slow for Release is closed at once.
func Discard(resp *http.Response) {
	if resp.Body == nil || resp.Body == http.NoBody {
		return
	}
	switch b := resp.Body.(type) {
	case *inMemory, *slow:
		b.Close()
		return
	}
	if resp.ContentLength > most || resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body.Close()
		return
	}
	r := begin(resp.Body, false)
	if !r.wait(nil, nil) {
		r.close()
		r.wait(nil, nil) // for a Read that is about to end
	}
	r.close()
}

// reading is a body that a goroutine reads in advance.
//
// The invariant: at any time one goroutine uses src, and src is closed once. Until done
// is closed the reading's own goroutine uses src, then the owner of the reading. Only a
// body of net/http, which allows concurrent Close, is closed during a Read.
type reading struct {
	src  io.ReadCloser
	keep bool          // keep the bytes read
	done chan struct{} // closed once the goroutine is through with src

	mu     sync.Mutex
	kept   []byte // guarded by mu until done is closed
	read   int    // bytes; guarded by mu
	err    error  // that src ended with, before src was closed; guarded by mu
	stop   bool   // nothing more is wanted; guarded by mu
	leave  bool   // the goroutine has to close src; guarded by mu
	closed bool   // src is; guarded by mu
}

func begin(src io.ReadCloser, keep bool) *reading {
	r := &reading{src: src, keep: keep, done: make(chan struct{})}
	go r.run()
	return r
}

// run reads src until src has ended, or enough is read.
func (r *reading) run() {
	defer close(r.done)
	buf := make([]byte, 4<<10)
	for empty := 0; ; {
		room := r.room()
		if room == 0 {
			break
		}
		n, err := readSafely(r.src, buf[:min(room, len(buf))])
		if empty++; n > 0 {
			empty = 0
		}
		if err == nil && empty == 100 {
			err = io.ErrNoProgress
		}
		r.took(buf[:n], err)
	}
	r.mu.Lock()
	mine := (r.err != nil || r.leave) && !r.closed
	r.closed = r.closed || mine
	r.mu.Unlock()
	if mine {
		r.src.Close()
	}
}

// room returns how many bytes more are wanted.
func (r *reading) room() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop || r.err != nil {
		return 0
	}
	return most - r.read
}

// took notes the result of a read of src.
func (r *reading) took(p []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keep {
		r.kept = append(r.kept, p...)
	}
	r.read += len(p)
	r.err = err
}

// readSafely reads src, and turns a panic or an invalid count into an error, since the
// goroutine has no caller to handle either.
func readSafely(src io.Reader, p []byte) (n int, err error) {
	defer func() {
		if recover() != nil || n < 0 || n > len(p) {
			n, err = 0, errBody
		}
	}()
	return src.Read(p)
}

// wait waits for the end of the reading, at most until a channel is closed, and reports
// whether the reading has ended. Otherwise the reading stops.
func (r *reading) wait(done, canceled <-chan struct{}) bool {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-r.done:
		return true
	case <-timer.C:
	case <-done:
	case <-canceled:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop = true
	return false
}

// close closes src, or lets the goroutine that still reads src close src.
func (r *reading) close() error {
	r.mu.Lock()
	if r.closed || r.leave {
		r.mu.Unlock()
		return nil
	}
	select {
	case <-r.done:
	default:
		if !ofNetHTTP(r.src) {
			r.leave, r.stop = true, true
			r.mu.Unlock()
			return nil
		}
	}
	r.closed = true
	r.mu.Unlock()
	return r.src.Close()
}

// ofNetHTTP reports whether body comes from net/http, so that Close ends a Read that
// hangs.
func ofNetHTTP(body io.ReadCloser) bool {
	for {
		w, ok := body.(interface{ Unwrap() io.ReadCloser })
		if !ok {
			break
		}
		body = w.Unwrap()
	}
	t := reflect.TypeOf(body)
	if t == nil {
		return false
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.PkgPath() {
	case "net/http", "net/http/internal/http2", "golang.org/x/net/http2":
		return true
	}
	return false
}

// slow is a body that wasn't read to its end in time. Close may be called while Read
// hangs, as with a body of net/http.
type slow struct {
	*reading
	gone atomic.Bool // Close was called
}

// Unwrap returns the body below.
func (b *slow) Unwrap() io.ReadCloser { return b.src }

func (b *slow) Read(p []byte) (int, error) {
	if b.gone.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	for {
		through := false
		select {
		case <-b.done:
			through = true
		default:
		}
		b.mu.Lock()
		n, err := copy(p, b.kept), b.err
		b.kept = b.kept[n:]
		b.mu.Unlock()
		switch {
		case n > 0:
			return n, nil
		case err != nil:
			return 0, err
		case through:
			return b.src.Read(p)
		}
		<-b.done
	}
}

func (b *slow) Close() error {
	b.gone.Store(true)
	return b.close()
}

// inMemory is a body that was read already, and the error that ended the reading.
type inMemory struct {
	bytes.Reader
	err error
}

func (b *inMemory) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF && b.err != nil {
		err = b.err
	}
	return n, err
}

func (b *inMemory) WriteTo(w io.Writer) (int64, error) {
	n, err := b.Reader.WriteTo(w)
	if err == nil {
		err = b.err
	}
	return n, err
}

func (*inMemory) Close() error { return nil }

// Show passes resp to a function of the program, which may read up to 64 KiB of the
// body; Show puts the read bytes back. The function gets an empty body in place of a
// nil body, and in place of a connection that has switched to another protocol. If the
// function panics, the body is closed.
func Show(resp *http.Response, to func(*http.Response)) {
	shown, body := *resp, new(again)
	shown.Body = http.NoBody
	if resp.Body != nil && resp.Body != http.NoBody && resp.StatusCode != http.StatusSwitchingProtocols {
		var ok bool
		if body, ok = resp.Body.(*again); !ok {
			body = &again{src: resp.Body}
		}
		body.shown = true
		shown.Body = body
	}
	returned := false
	defer func() {
		body.at, body.shown = 0, false
		if !returned && resp.Body != nil {
			resp.Body.Close()
		}
	}()
	to(&shown)
	returned = true
	if len(body.kept) > 0 || body.err != nil {
		resp.Body = body
	}
}

// again is a body of which the beginning is kept, to be read again.
type again struct {
	src   io.ReadCloser
	kept  []byte
	at    int   // in kept
	err   error // the error that ended src
	shown bool  // to a function, which gets no more than is kept and closes nothing
}

func (b *again) Read(p []byte) (int, error) {
	if b.at < len(b.kept) {
		n := copy(p, b.kept[b.at:])
		b.at += n
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	if !b.shown {
		return b.src.Read(p)
	}
	room := most - len(b.kept)
	if room <= 0 {
		return 0, io.EOF
	}
	n, err := b.src.Read(p[:min(len(p), room)])
	if n < 0 || n > room {
		n, err = 0, errBody
	}
	b.kept, b.err = append(b.kept, p[:n]...), err
	b.at = len(b.kept)
	return n, err
}

// Unwrap returns the body below.
func (b *again) Unwrap() io.ReadCloser { return b.src }

func (b *again) Close() error {
	if b.shown {
		return nil
	}
	return b.src.Close()
}
