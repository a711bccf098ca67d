package browser

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var update = flag.Bool("update", false, "write the screenshots of the README anew")

// chromium is the one browser of all tests, each of which has a tab of its own.
var chromium context.Context

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	path, err := browserPath()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Chromium doesn't sandbox what root runs. Its pages are this repository's own.
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.WSURLReadTimeout(time.Minute),
		chromedp.Flag("no-sandbox", os.Getuid() == 0), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("lang", "en-GB"))
	alloc, end := chromedp.NewExecAllocator(context.Background(), opts...)
	defer end()
	var cancel func()
	chromium, cancel = chromedp.NewContext(alloc)
	defer cancel()
	if err := chromedp.Do(chromium); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func browserPath() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("the tests need Chromium: apt-get install chromium")
}

// tab is a tab of the browser, and what it has loaded.
type tab struct {
	t        *testing.T
	ctx      context.Context
	expected bool // that requests fail

	mu       sync.Mutex
	requests []*network.Request
	faults   []string
}

type look struct {
	width, height int64
	dark, still   bool // still: with reduced motion
}

var (
	wide   = look{width: 1280, height: 900}
	narrow = look{width: 360, height: 740}
)

// open opens an address in a new tab. A test fails if the page has an error, or breaks its
// own policy.
func open(t *testing.T, url string, l look) *tab {
	t.Helper()
	b := blank(t, l)
	b.do(chromedp.Navigate(url))
	return b
}

func blank(t *testing.T, l look) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.faults) > 0 && !b.expected {
			t.Errorf("the browser complains: %q", b.faults)
		}
	})
	var stop func()
	b.ctx, stop = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(stop)
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	b.look(l)
	return b
}

// note keeps what the test has to know of.
func (b *tab) note(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, ev.Request)
	case *runtime.EventExceptionThrown:
		text := ev.ExceptionDetails.Text
		if e := ev.ExceptionDetails.Exception; e != nil {
			text += ": " + e.Description
		}
		b.faults = append(b.faults, text)
	case *log.EventEntryAdded:
		if ev.Entry.Level == log.EntryLevelError {
			b.faults = append(b.faults, ev.Entry.Text)
		}
	}
}

func (b *tab) look(l look) {
	b.t.Helper()
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "light"}, {Name: "prefers-reduced-motion", Value: "no-preference"}}
	if l.dark {
		features[0].Value = "dark"
	}
	if l.still {
		features[1].Value = "reduce"
	}
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.width, Height: l.height, DeviceScaleFactor: 1})
}

func call[P, R any](b *tab, cmd cdp.Command[P, R], params P) R {
	b.t.Helper()
	r, err := chromedp.Call(b.ctx, cmd, params)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns what a JavaScript expression says, awaited.
func eval[T any](b *tab, js string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](js, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", js, err)
	}
	return v
}

// see waits until a JavaScript expression is what is wanted.
func see[T comparable](b *tab, what, js string, want T) {
	b.t.Helper()
	var got T
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = eval[T](b, js); got == want {
			return
		}
	}
	b.t.Fatalf("%s: the page has %v, want %v", what, got, want)
}

// text is the expression of an element's text, "" if there is no such element.
func text(selector string) string {
	return fmt.Sprintf("document.querySelector(%q)?.textContent ?? ''", selector)
}
