package roundtrip_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge/internal/roundtrip"
)

// A body is read, so that its connection is free, and stays readable with the error
// that it ended with.
func TestReleaseReadsABody(t *testing.T) {
	broken := errors.New("broken")
	long := strings.Repeat("x", 100<<10)
	for name, c := range map[string]struct {
		body   io.Reader
		text   string
		length int64
		status int
		read   int
		closed int
		err    error
	}{
		"short":               {strings.NewReader("answer"), "answer", 6, 401, 6, 1, nil},
		"broken":              {io.MultiReader(strings.NewReader("answer"), iotest.ErrReader(broken)), "answer", 9, 401, 6, 1, broken},
		"of unknown length":   {strings.NewReader("answer"), "answer", -1, 401, 6, 1, nil},
		"of a wrong length":   {strings.NewReader("answer"), "answer", 0, 401, 6, 1, nil},
		"long":                {strings.NewReader(long), long, 100 << 10, 401, 0, 0, nil},
		"longer than known":   {strings.NewReader(long), long, -1, 401, 64 << 10, 0, nil},
		"of another protocol": {strings.NewReader("answer"), "answer", 6, 101, 0, 0, nil},
	} {
		b := &body{Reader: c.body}
		resp := &http.Response{StatusCode: c.status, Body: b, ContentLength: c.length}
		roundtrip.Release(req(t.Context(), nil), resp)
		if b.closed != c.closed || b.read != c.read {
			t.Errorf("%s: closed %d times after %d bytes", name, b.closed, b.read)
		}
		roundtrip.Release(req(t.Context(), nil), resp)
		text, err := io.ReadAll(resp.Body)
		if string(text) != c.text || !errors.Is(err, c.err) {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
		if resp.Body.Close(); b.closed != 1 {
			t.Errorf("%s: closed %d times in the end", name, b.closed)
		}
	}
	empty := new(http.Response)
	roundtrip.Release(req(t.Context(), nil), empty)
	if text, err := io.ReadAll(empty.Body); len(text) > 0 || err != nil {
		t.Errorf("no body: %q, %v", text, err)
	}
}

// drip gives a byte each 300 ms, and tells a Close during a Read.
type drip struct {
	left    int
	closed  int
	reading bool
	clash   bool
}

func (b *drip) Read(p []byte) (int, error) {
	b.reading = true
	time.Sleep(300 * time.Millisecond)
	b.reading = false
	if b.left == 0 {
		return 0, io.EOF
	}
	b.left--
	p[0] = 'x'
	return 1, nil
}

func (b *drip) Close() error {
	b.clash = b.clash || b.reading
	b.closed++
	return nil
}

// A slow body is left after a second: the rest is for whoever reads on.
func TestReleaseLeavesASlowBody(t *testing.T) {
	for name, through := range map[string]bool{"read to its end": true, "closed before": false} {
		synctest.Test(t, func(t *testing.T) {
			b := &drip{left: 10}
			resp := &http.Response{StatusCode: 503, Body: b, ContentLength: -1}
			begun := time.Now()
			roundtrip.Release(req(t.Context(), nil), resp)
			if took := time.Since(begun); took != time.Second {
				t.Errorf("%s: took %v", name, took)
			}
			if through {
				if text, err := io.ReadAll(resp.Body); len(text) != 10 || err != nil {
					t.Errorf("%s: %q, %v", name, text, err)
				}
			}
			resp.Body.Close()
			resp.Body.Close()
			if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: a closed body is read", name)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if b.closed != 1 || b.clash {
				t.Errorf("%s: closed %d times, during a Read: %v", name, b.closed, b.clash)
			}
		})
	}
}

// A caller who has given up waits for no body.
func TestReleaseEndsWithTheCallersInterest(t *testing.T) {
	over := make(chan struct{})
	close(over)
	for name, req := range map[string]*http.Request{"context": req(canceled(t), nil), "Cancel": req(t.Context(), over)} {
		synctest.Test(t, func(t *testing.T) {
			b := &drip{left: 10}
			resp := &http.Response{StatusCode: 503, Body: b, ContentLength: -1}
			begun := time.Now()
			roundtrip.Release(req, resp)
			if took := time.Since(begun); took != 0 {
				t.Errorf("%s: took %v", name, took)
			}
			resp.Body.Close()
			time.Sleep(time.Minute) // for a Read that may have begun
		})
	}
}

func TestDiscardDrainsALittleAndCloses(t *testing.T) {
	roundtrip.Discard(new(http.Response))
	for _, c := range []struct {
		size, length int64
		status       int
		read         int
	}{
		{100, 100, 503, 100}, {100, -1, 503, 100}, {0, 0, 503, 0},
		{1 << 20, -1, 503, 64 << 10},
		{1 << 20, 1 << 20, 503, 0}, // not worth it
		{100, 100, 101, 0},
	} {
		b := &body{Reader: bytes.NewReader(make([]byte, c.size))}
		roundtrip.Discard(&http.Response{StatusCode: c.status, Body: b, ContentLength: c.length})
		if b.read != c.read || b.closed != 1 {
			t.Errorf("%d bytes with Content-Length %d: %d read, closed %d times", c.size, c.length, b.read, b.closed)
		}
	}
}

// Nobody closes a body that isn't net/http's own while it is read.
func TestDiscardLeavesASlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &drip{left: 10}
		begun := time.Now()
		roundtrip.Discard(&http.Response{Body: b, ContentLength: -1})
		if took := time.Since(begun); took != 1200*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if b.closed != 1 || b.clash || b.left < 5 {
			t.Errorf("closed %d times, during a Read: %v; %d bytes left", b.closed, b.clash, b.left)
		}
	})
}

// A body of net/http that hangs is closed, and with that its connection.
func TestDiscardEndsAConnectionThatHangs(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		gone := make(chan struct{})
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			close(gone)
		}))
		srv.EnableHTTP2 = proto == "HTTP/2.0"
		srv.StartTLS()
		resp, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Proto != proto {
			t.Errorf("%s instead of %s", resp.Proto, proto)
		}
		roundtrip.Discard(resp)
		<-gone
		srv.Close()
	}
}

// A body that was too slow for Release, or that a function was shown, ends with its
// connection as well. So it does for who closes it while it is read.
func TestASlowBodyEndsWithItsConnection(t *testing.T) {
	show := func(resp *http.Response) {
		roundtrip.Show(resp, func(resp *http.Response) { io.ReadFull(resp.Body, make([]byte, 3)) })
	}
	release := func(resp *http.Response) { roundtrip.Release(req(context.Background(), nil), resp) }
	for name, end := range map[string]func(resp *http.Response){
		"released":                 func(resp *http.Response) { release(resp); roundtrip.Discard(resp) },
		"shown":                    func(resp *http.Response) { show(resp); roundtrip.Discard(resp) },
		"shown, released":          func(resp *http.Response) { show(resp); release(resp); roundtrip.Discard(resp) },
		"released, shown":          func(resp *http.Response) { release(resp); show(resp); roundtrip.Discard(resp) },
		"released, closed in Read": func(resp *http.Response) { release(resp); go io.Copy(io.Discard, resp.Body); resp.Body.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gone := make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "begun")
				w.(http.Flusher).Flush()
				<-r.Context().Done()
				close(gone)
			}))
			defer srv.Close()
			resp, err := srv.Client().Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			end(resp)
			<-gone
		})
	}
}

// A body that hangs for good holds nobody up for long, and is closed when it gives in.
func TestDiscardLeavesABodyThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		begun := time.Now()
		roundtrip.Discard(&http.Response{Body: io.NopCloser(r), ContentLength: -1})
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		w.Close()
	})
}

type panics struct{}

func (panics) Read([]byte) (int, error) { panic("a bug") }
func (panics) Close() error             { return nil }

type lies struct{ panics }

func (lies) Read(p []byte) (int, error) { return len(p) + 1, nil }

type empty struct{ panics }

func (empty) Read(p []byte) (int, error) { return 0, nil }

// What a body of somebody else's does wrong ends nothing in a goroutine of ours.
func TestABodyThatPanicsIsAnError(t *testing.T) {
	for _, body := range []io.ReadCloser{panics{}, lies{}, empty{}} {
		resp := &http.Response{Body: body, ContentLength: -1}
		roundtrip.Release(req(t.Context(), nil), resp)
		if text, err := io.ReadAll(resp.Body); len(text) > 0 || err == nil {
			t.Errorf("%T: %q, %v", body, text, err)
		}
		roundtrip.Discard(&http.Response{Body: body, ContentLength: -1})
	}
}

// What a function reads of a body is there again for the next one, and for the caller.
func TestShowPutsBackWhatIsRead(t *testing.T) {
	broken := errors.New("broken")
	long := strings.Repeat("0123456789", 20<<10)
	for name, c := range map[string]struct {
		body io.Reader
		all  string // that the caller reads
		seen int    // bytes that a function can read
		err  error
	}{
		"short":  {strings.NewReader("answer"), "answer", 6, nil},
		"broken": {io.MultiReader(strings.NewReader("answer"), iotest.ErrReader(broken)), "answer", 6, broken},
		"long":   {strings.NewReader(long), long, 64 << 10, nil},
	} {
		b := &body{Reader: c.body}
		resp := &http.Response{StatusCode: 403, Body: b}
		for _, part := range []int64{3, 0, 1 << 30} {
			roundtrip.Show(resp, func(r *http.Response) {
				text, _ := io.ReadAll(io.LimitReader(r.Body, part))
				if want := c.all[:min(int(part), c.seen)]; string(text) != want {
					t.Errorf("%s: a function reads %d bytes", name, len(text))
				}
				r.Body.Close()
				r.Body = http.NoBody // as functions do that have read all
			})
		}
		roundtrip.Release(req(t.Context(), nil), resp)
		text, err := io.ReadAll(resp.Body)
		if string(text) != c.all || !errors.Is(err, c.err) {
			t.Errorf("%s: the caller reads %d bytes, %v", name, len(text), err)
		}
		if resp.Body.Close(); b.closed != 1 {
			t.Errorf("%s: closed %d times", name, b.closed)
		}
	}
	for name, resp := range map[string]*http.Response{
		"none":             {},
		"another protocol": {StatusCode: 101, Body: &body{Reader: strings.NewReader("frames")}},
	} {
		before := resp.Body
		roundtrip.Show(resp, func(r *http.Response) {
			if text, err := io.ReadAll(r.Body); len(text) > 0 || err != nil {
				t.Errorf("%s: %q, %v", name, text, err)
			}
		})
		if resp.Body != before {
			t.Errorf("%s: another body", name)
		}
	}
}

func TestShowClosesTheBodyIfTheFunctionPanics(t *testing.T) {
	b := &body{Reader: strings.NewReader("answer")}
	defer func() {
		if recover() != "a bug" || b.closed != 1 {
			t.Errorf("closed %d times", b.closed)
		}
	}()
	roundtrip.Show(&http.Response{Body: b}, func(*http.Response) { panic("a bug") })
}
