// The wiretap of programs that speak to more than one server.

package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// MainAlone is the main function of a program that starts its servers itself. If
// what run has seen isn't what should have happened, the exit status is 1.
func MainAlone(run func(ctx context.Context, out io.Writer) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	err := run(ctx, os.Stdout)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Tap is an http.RoundTripper that keeps and prints what is sent through it. It
// is safe for concurrent use.
type Tap struct {
	out  io.Writer
	name func(*http.Request) string

	mu   sync.Mutex // guards sent, and writes to out
	sent []string
}

// NewTap returns a Tap that prints to out. name says what a request is; it must
// leave the body alone.
func NewTap(out io.Writer, name func(*http.Request) string) *Tap {
	return &Tap{out: out, name: name}
}

// RoundTrip sends req by http.DefaultTransport.
func (t *Tap) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	name := t.name(req)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent = append(t.sent, fmt.Sprint(name, " ", resp.StatusCode))
	fmt.Fprintf(t.out, "    %-24s %s\n", name, resp.Status)
	return resp, nil
}

// Say prints a line of the story.
func (t *Tap) Say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, format+"\n", args...)
}

// Compare returns an error unless exactly want was sent, each as its name and
// status ("upload 202"). Then it forgets it, so that the next chapter begins
// with an empty page.
func (t *Tap) Compare(want ...string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Equal(t.sent, want) {
		return fmt.Errorf("sent over the wire:\n\t%s\nwant:\n\t%s", strings.Join(t.sent, "\n\t"), strings.Join(want, "\n\t"))
	}
	t.sent = nil
	return nil
}
