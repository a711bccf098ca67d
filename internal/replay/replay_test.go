package replay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"pgregory.net/rapid"
)

// source is a caller's body that counts its closes.
type source struct {
	io.Reader
	closes atomic.Int32
	err    error // what Close returns
}

func (s *source) Close() error {
	s.closes.Add(1)
	return s.err
}

func (s *source) wantCloses(t testing.TB, want int32) {
	t.Helper()
	if got := s.closes.Load(); got != want {
		t.Errorf("caller's body closed %d times, want %d", got, want)
	}
}

func text(s string) *source { return &source{Reader: strings.NewReader(s)} }

// blockingSource gives one byte a send on ready, and fails once closed, as a
// network connection does.
type blockingSource struct {
	source
	ready chan byte
	gone  chan struct{}
	once  sync.Once
}

func newBlockingSource() *blockingSource {
	return &blockingSource{ready: make(chan byte), gone: make(chan struct{})}
}

var errGone = errors.New("closed under the reader")

func (s *blockingSource) Read(p []byte) (int, error) {
	select {
	case c, ok := <-s.ready:
		if !ok {
			return 0, io.EOF
		}
		p[0] = c
		return 1, nil
	case <-s.gone:
		return 0, errGone
	}
}

func (s *blockingSource) Close() error {
	s.once.Do(func() { close(s.gone) })
	return s.source.Close()
}

func wantRead(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != want {
		t.Errorf("read %q, %v; want %q, nil", got, err, want)
	}
}

func readN(t testing.TB, r io.Reader, n int) {
	t.Helper()
	if _, err := io.ReadFull(r, make([]byte, n)); err != nil {
		t.Fatalf("read %d bytes: %v", n, err)
	}
}

func again(t testing.TB, b *Body) io.ReadCloser {
	t.Helper()
	r, ok := b.Again()
	if !ok {
		t.Fatal("Again failed")
	}
	return r
}

func wantNoMore(t testing.TB, b *Body) {
	t.Helper()
	if r, ok := b.Again(); ok || r != nil {
		t.Errorf("Again = %v, %v; want nil, false", r, ok)
	}
}

func TestUnusedBodyDoesNothing(t *testing.T) {
	var b Body
	if b.Used() {
		t.Error("a zero Body is used")
	}
	wantNoMore(t, &b)
	b.Finish()
}

func TestBodyIsReadAgainFromItsFirstByte(t *testing.T) {
	payload := strings.Repeat("0123456789", 3*chunkSize/10) // over several chunks
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"plain":                   func(r io.Reader) io.Reader { return r },
		"byte by byte":            iotest.OneByteReader,
		"last bytes with the EOF": iotest.DataErrReader,
	} {
		t.Run(name, func(t *testing.T) {
			src := &source{Reader: wrap(strings.NewReader(payload))}
			var b Body
			first := b.Begin(src, 64<<10)
			wantRead(t, first, payload)
			first.Close()
			src.wantCloses(t, 1) // nothing more to be had from it
			for range 3 {
				r := again(t, &b)
				wantRead(t, iotest.OneByteReader(r), payload)
				wantRead(t, r, "")
				r.Close()
			}
			b.Finish()
			src.wantCloses(t, 1)
		})
	}
}

func TestReplayGoesOnWhereTheSendBeforeItStopped(t *testing.T) {
	src := text("hello, world")
	var b Body
	first := b.Begin(src, 64)
	readN(t, first, 5)
	first.Close()
	src.wantCloses(t, 0)

	second := again(t, &b)
	readN(t, second, 9) // the kept five, and four more
	second.Close()
	third := again(t, &b)
	wantRead(t, third, "hello, world")
	third.Close()
	src.wantCloses(t, 1)
	b.Finish()
	src.wantCloses(t, 1)
}

// What an upload with "Expect: 100-continue" needs when it is refused.
func TestUnreadBodyIsReplayableWhateverTheBound(t *testing.T) {
	for _, max := range []int64{-1, 0, 4} {
		src := text("much longer than the bound")
		var b Body
		b.Begin(src, max).Close()
		second := again(t, &b)
		wantRead(t, second, "much longer than the bound")
		wantNoMore(t, &b)
		second.Close()
		b.Finish()
		src.wantCloses(t, 1)
	}
}

func TestBodyAtTheBoundIsKeptAndBeyondItIsNot(t *testing.T) {
	for _, tt := range []struct {
		max  int64
		body string
		want bool
	}{
		{-1, "", true},
		{-1, "a", false},
		{0, "", true},
		{0, "a", false},
		{4, "abcd", true},
		{4, "abcde", false},
		{chunkSize, strings.Repeat("x", chunkSize), true},
		{chunkSize, strings.Repeat("x", chunkSize+1), false},
		{2 * chunkSize, strings.Repeat("x", 2*chunkSize), true},
	} {
		src := text(tt.body)
		var b Body
		r := b.Begin(src, tt.max)
		wantRead(t, r, tt.body)
		r.Close()
		if got := !b.Lost(); got != tt.want {
			t.Errorf("max %d, body of %d: replayable %v, want %v", tt.max, len(tt.body), got, tt.want)
		}
		if tt.want {
			second := again(t, &b)
			wantRead(t, second, tt.body)
			second.Close()
		} else {
			wantNoMore(t, &b)
		}
		b.Finish()
		src.wantCloses(t, 1)
	}
}

func TestOverflowInAReplayMakesTheBodyOneShot(t *testing.T) {
	src := text("abcdefgh")
	var b Body
	first := b.Begin(src, 6)
	readN(t, first, 4)
	second := again(t, &b)
	wantRead(t, second, "abcdefgh")
	wantNoMore(t, &b)
	second.Close()
	src.wantCloses(t, 1)
	b.Finish()
	src.wantCloses(t, 1)
}

func TestSeizedReaderGivesNothingAndClosesNothing(t *testing.T) {
	src := text("hello")
	var b Body
	first := b.Begin(src, 64)
	readN(t, first, 2)
	second := again(t, &b)
	if n, err := first.Read(make([]byte, 8)); n != 0 || err != errSeized {
		t.Errorf("seized reader: %d, %v; want 0, %v", n, err, errSeized)
	}
	first.Close()
	b.Finish()
	src.wantCloses(t, 0)
	wantRead(t, second, "hello")
	second.Close()
	src.wantCloses(t, 1)
}

func TestReadAfterCloseFails(t *testing.T) {
	var b Body
	r := b.Begin(text("hello"), 64)
	r.Close()
	if n, err := r.Read(make([]byte, 8)); n != 0 || err != errClosed {
		t.Errorf("closed reader: %d, %v; want 0, %v", n, err, errClosed)
	}
	b.Finish()
}

func TestEarlyAnswerLeavesTheTransportReading(t *testing.T) {
	src := text("hello, world")
	var b Body
	r := b.Begin(src, 64)
	readN(t, r, 5)
	b.Finish()
	if b.head != nil {
		t.Error("bytes are kept that nobody will read again")
	}
	src.wantCloses(t, 0)
	wantRead(t, r, ", world")
	if b.head != nil {
		t.Error("bytes are kept after Finish")
	}
	r.Close()
	src.wantCloses(t, 1)
	wantNoMore(t, &b)
}

func TestEarlyAnswerToAReplayLeavesItsKeptBytes(t *testing.T) {
	src := text("hello, world")
	var b Body
	readN(t, b.Begin(src, 64), 7)
	r := again(t, &b)
	readN(t, r, 3)
	b.Finish()
	wantRead(t, r, "lo, world")
	if b.head != nil {
		t.Error("bytes are kept that nobody will read again")
	}
	r.Close()
	src.wantCloses(t, 1)
}

func TestCloseAfterFinishPassesStraightThrough(t *testing.T) {
	want := errors.New("disk full")
	src := &source{Reader: strings.NewReader("hello"), err: want}
	var b Body
	r := b.Begin(src, 64)
	b.Finish()
	if err := r.Close(); err != want {
		t.Errorf("Close = %v, want %v", err, want)
	}
	if err := r.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	b.Finish()
	src.wantCloses(t, 1)
}

func TestBodyThatIsNeverSentIsClosedOnce(t *testing.T) {
	for _, closeFirst := range []bool{true, false} {
		src := text("hello")
		var b Body
		r := b.Begin(src, 64)
		if closeFirst {
			r.Close()
			b.Finish()
		} else {
			b.Finish()
			r.Close()
		}
		src.wantCloses(t, 1)
	}
}

func TestFailingReaderMakesTheBodyOneShot(t *testing.T) {
	want := errors.New("pipe broken")
	src := &source{Reader: io.MultiReader(strings.NewReader("hel"), iotest.ErrReader(want))}
	var b Body
	r := b.Begin(src, 64)
	got, err := io.ReadAll(r)
	if string(got) != "hel" || err != want {
		t.Errorf("read %q, %v; want %q, %v", got, err, "hel", want)
	}
	wantNoMore(t, &b)
	r.Close()
	src.wantCloses(t, 1)
	b.Finish()
	src.wantCloses(t, 1)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestReaderWithImpossibleCountIsPassedOnAndOneShot(t *testing.T) {
	for _, n := range []int{-1, 9} {
		src := &source{Reader: readerFunc(func([]byte) (int, error) { return n, nil })}
		var b Body
		r := b.Begin(src, 64)
		if got, err := r.Read(make([]byte, 8)); got != n || err != nil {
			t.Errorf("Read = %d, %v; want %d, nil", got, err, n)
		}
		wantNoMore(t, &b)
		r.Close()
		b.Finish()
		src.wantCloses(t, 1)
	}
}

func TestReaderThatReturnsNothingIsPassedOn(t *testing.T) {
	calls := 0
	src := &source{Reader: readerFunc(func(p []byte) (int, error) {
		if calls++; calls < 3 {
			return 0, nil
		}
		return copy(p, "x"), io.EOF
	})}
	var b Body
	r := b.Begin(src, 64)
	for range 2 {
		if n, err := r.Read(make([]byte, 8)); n != 0 || err != nil {
			t.Errorf("Read = %d, %v; want 0, nil", n, err)
		}
	}
	wantRead(t, r, "x")
	r.Close()
	r = again(t, &b)
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("empty Read = %d, %v; want 0, nil", n, err)
	}
	wantRead(t, r, "x")
	if calls != 3 {
		t.Errorf("caller's body read %d times, want 3: not again after EOF", calls)
	}
	b.Finish()
	r.Close()
	src.wantCloses(t, 1)
}

func TestCloseDuringReadReachesTheCallersBody(t *testing.T) {
	for _, finished := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			src := newBlockingSource()
			var b Body
			r := b.Begin(src, 64)
			done := make(chan error)
			go func() {
				_, err := io.ReadAll(r)
				done <- err
			}()
			src.ready <- 'a'
			synctest.Wait() // now it waits for the second byte
			if finished {
				b.Finish()
			}
			r.Close()
			if err := <-done; err != errGone {
				t.Errorf("blocked Read ended with %v, want %v", err, errGone)
			}
			wantNoMore(t, &b)
			b.Finish()
			src.wantCloses(t, 1)
		})
	}
}

func TestBlockedReadHoldsNoLockAndOnlyDefersAReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newBlockingSource()
		var b Body
		first := b.Begin(src, 64)
		done := make(chan struct{})
		go func() {
			defer close(done)
			readN(t, first, 2)
		}()
		src.ready <- 'a'
		synctest.Wait()
		wantNoMore(t, &b) // would wait for ever on a lock held by Read
		if b.Lost() {
			t.Error("a Read in progress made the body lost")
		}
		src.ready <- 'b'
		<-done
		second := again(t, &b)
		close(src.ready)
		wantRead(t, second, "ab")
		second.Close()
		b.Finish()
		src.wantCloses(t, 1)
	})
}

func TestReadersAreOnlyReadClosers(t *testing.T) {
	var b Body
	first := b.Begin(text(""), 1)
	second := again(t, &b)
	for _, r := range []io.ReadCloser{first, second} {
		switch r.(type) {
		case io.WriterTo, io.Seeker, io.ByteReader:
			t.Errorf("%T promises more than an io.ReadCloser", r)
		}
	}
}

func TestChunksGoBackEmpty(t *testing.T) {
	var b Body
	r := b.Begin(text(strings.Repeat("secret", 2000)), 1<<20)
	io.Copy(io.Discard, r)
	r.Close()
	var held []*chunk
	for c := b.head; c != nil; c = c.next {
		held = append(held, c)
	}
	if len(held) < 2 {
		t.Fatalf("%d chunks kept, want several", len(held))
	}
	b.Finish()
	for _, c := range held {
		if *c != (chunk{}) {
			t.Fatal("a chunk went back to the pool with bytes in it")
		}
	}
	if b.head != nil || b.tail != nil || b.size != 0 {
		t.Error("chunks are still reachable after they went back")
	}
}

func TestKeptMemoryStaysWithinTheBound(t *testing.T) {
	const max = 64 << 10
	src := &source{Reader: io.LimitReader(zeros{}, 64<<20)}
	var b Body
	r := b.Begin(src, max)
	buf := make([]byte, 1000)
	for {
		n, err := r.Read(buf)
		held := int64(0)
		for c := b.head; c != nil; c = c.next {
			held += chunkSize
		}
		if held > max+chunkSize {
			t.Fatalf("%d bytes kept, bound %d", held, max)
		}
		if n == 0 && err == io.EOF {
			break
		}
	}
	if b.head != nil {
		t.Error("bytes are kept of a body that is lost")
	}
	r.Close()
	b.Finish()
	src.wantCloses(t, 1)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// The layer asks for replays and finishes while the transport reads and
// closes; -race and the checks below are the judges.
func TestTransportAndLayerAtTheSameTime(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789abcdef"), 1024)
	for i := range 200 {
		src := &source{Reader: iotest.HalfReader(bytes.NewReader(payload))}
		var b Body
		var transports sync.WaitGroup
		send := func(r io.ReadCloser, seed uint64) {
			transports.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), seed))
				defer r.Close()
				buf := make([]byte, 700)
				at := 0
				for stop := rnd.IntN(2 * len(payload)); at < stop; {
					n, err := r.Read(buf)
					if !bytes.Equal(buf[:n], payload[at:at+n]) {
						t.Errorf("send %d got wrong bytes at %d", seed, at)
						return
					}
					if at += n; err != nil {
						if err == io.EOF && at != len(payload) {
							t.Errorf("send %d ended at %d of %d bytes", seed, at, len(payload))
						}
						return
					}
				}
			})
		}
		send(b.Begin(src, int64(len(payload))), 0)
		for n := uint64(1); n < 4; n++ {
			runtime.Gosched()
			if r, ok := b.Again(); ok {
				send(r, n)
			}
		}
		if i%2 == 0 {
			runtime.Gosched()
			b.Finish()
		}
		transports.Wait()
		b.Finish()
		src.wantCloses(t, 1)
	}
}

// model is what a Body should do, as plainly as it can be said: it never
// forgets a byte, and only counts.
type model struct {
	total, max int
	pos        int // bytes that src has given
	eof        bool
	closed     bool
	lost       bool
	finished   bool

	cur       int // index of the current reader
	at        int // its position
	curClosed bool
}

// scripted gives data in pieces as the test asks, then EOF or fail.
type scripted struct {
	source
	data     []byte
	pos      int
	piece    int
	together bool  // the last bytes come with the EOF
	fail     error // instead of EOF
}

var errScripted = errors.New("scripted failure")

func (s *scripted) Read(p []byte) (int, error) {
	if s.pos == len(s.data) {
		return 0, s.end()
	}
	n := copy(p[:min(len(p), s.piece)], s.data[s.pos:])
	s.pos += n
	if s.together && s.pos == len(s.data) {
		return n, s.end()
	}
	return n, nil
}

func (s *scripted) end() error {
	if s.fail != nil {
		return s.fail
	}
	return io.EOF
}

func checkAgainstModel(t *rapid.T) {
	data := rapid.SliceOfN(rapid.Byte(), 0, 3*chunkSize).Draw(t, "data")
	src := &scripted{
		data:     data,
		piece:    rapid.SampledFrom([]int{0, 1, 7, 1000, 5000}).Draw(t, "piece"),
		together: rapid.Bool().Draw(t, "together"),
	}
	if rapid.Bool().Draw(t, "fails") {
		src.fail = errScripted
	}
	m := model{total: len(data), max: rapid.SampledFrom([]int{-1, 0, 1, 100, chunkSize, 3 * chunkSize}).Draw(t, "max")}
	var b Body
	readers := []io.ReadCloser{b.Begin(src, int64(m.max))}

	pick := func(t *rapid.T) int { return rapid.IntRange(0, len(readers)-1).Draw(t, "reader") }
	t.Repeat(map[string]func(*rapid.T){
		"read": func(t *rapid.T) {
			i := pick(t)
			p := make([]byte, rapid.SampledFrom([]int{0, 1, 50, 3000, 20000}).Draw(t, "len"))
			n, err := readers[i].Read(p)
			var want error
			switch {
			case i != m.cur:
				want = errSeized
			case m.curClosed:
				want = errClosed
			case m.at < m.pos && !m.lost:
				if n == 0 && len(p) > 0 {
					t.Fatal("nothing read of kept bytes")
				}
			case m.eof:
				want = io.EOF
			default: // from src
				if src.pos != m.pos+n {
					t.Fatalf("src gave %d bytes, the reader %d", src.pos-m.pos, n)
				}
				m.pos += n
				if m.pos == m.total && (n == 0 || src.together) {
					want = src.end()
				}
				m.eof = m.eof || want == io.EOF
				if m.pos > max(m.max, 0) && n > 0 || want != nil && want != io.EOF {
					m.lost = true
				}
			}
			if err != want {
				t.Fatalf("Read = %d, %v; want error %v", n, err, want)
			}
			if n > 0 {
				if !bytes.Equal(p[:n], data[m.at:m.at+n]) {
					t.Fatalf("wrong bytes at %d", m.at)
				}
				m.at += n
			}
		},
		"close": func(t *rapid.T) {
			i := pick(t)
			readers[i].Close()
			if i == m.cur && !m.curClosed {
				m.curClosed = true
				if m.eof || m.lost || m.finished {
					m.closed = true
				}
			}
		},
		"again": func(t *rapid.T) {
			r, ok := b.Again()
			if want := !m.lost && !m.finished; ok != want {
				t.Fatalf("Again = %v, want %v", ok, want)
			}
			if ok {
				readers = append(readers, r)
				m.cur, m.at, m.curClosed = len(readers)-1, 0, false
			}
		},
		"finish": func(t *rapid.T) {
			b.Finish()
			m.finished = true
			m.closed = m.closed || m.curClosed
		},
		"": func(t *rapid.T) {
			want := int32(0)
			if m.closed {
				want = 1
			}
			if got := src.closes.Load(); got != want {
				t.Fatalf("caller's body closed %d times, want %d", got, want)
			}
			if got, want := b.Lost(), m.lost || m.finished; got != want {
				t.Fatalf("Lost = %v, want %v", got, want)
			}
			if b.size > int64(max(m.max, 0)) {
				t.Fatalf("%d bytes kept, bound %d", b.size, m.max)
			}
			if b.lost && b.head != nil && (m.curClosed || m.at >= m.pos) {
				t.Fatal("bytes are kept of a body that is lost")
			}
		},
	})
	readers[m.cur].Close()
	b.Finish()
	if got := src.closes.Load(); got != 1 {
		t.Fatalf("in the end the caller's body was closed %d times", got)
	}
	if b.head != nil {
		t.Fatal("in the end bytes are still kept")
	}
}

func TestAnySequenceAgreesWithTheModel(t *testing.T) { rapid.Check(t, checkAgainstModel) }

func FuzzReplay(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkAgainstModel)) }

func ExampleBody() {
	body := io.NopCloser(strings.NewReader("hello"))

	var b Body
	first := b.Begin(body, 1024)
	io.CopyN(io.Discard, first, 2) // the server refuses early
	first.Close()

	if second, ok := b.Again(); ok {
		whole, _ := io.ReadAll(second)
		second.Close()
		fmt.Printf("%s\n", whole)
	}
	b.Finish()
	// Output: hello
}

func TestKeptSaysHowLongABodyIs(t *testing.T) {
	var b Body
	if n, whole := b.Kept(); n != 0 || whole {
		t.Errorf("unused: %d, %v", n, whole)
	}
	r := b.Begin(io.NopCloser(strings.NewReader("abc")), 10)
	r.Read(make([]byte, 2))
	if n, whole := b.Kept(); n != 2 || whole {
		t.Errorf("begun: %d, %v", n, whole)
	}
	io.ReadAll(r)
	if n, whole := b.Kept(); n != 3 || !whole {
		t.Errorf("read: %d, %v", n, whole)
	}
}
