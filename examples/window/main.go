// Window opens the page of package forgez over two busy pipelines, whose servers get into
// all kinds of trouble:
//
//	go run ./examples/window
//
// The program prints the address, and opens a browser if standard output is a terminal. Each
// trouble is printed below the address, to compare the page with the cause. Watch the steps
// die, wait, cool down and come back, and look for a tenant by a label such as tenant-07.
// Servers and clients run in one process (package authtest). In the order of reading:
//
//  1. run serves the page, in three lines, as a program of your own would.
//  2. newShop and newTenants (pipelines.go) are two logins: one with a diamond in the graph,
//     one with tokens of each tenant's own.
//  3. troubles (troubles.go) is the list of what goes wrong.
//
// -for bounds the time, -every sets the time between troubles, and -listen the address. The
// program ends by interrupt.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/forgez"
)

// options are the flags.
type options struct {
	listen string
	every  time.Duration // between troubles
	open   func(url string)
}

// run serves the page until ctx ends.
func run(ctx context.Context, out io.Writer, opts options) error {
	shop, err := newShop()
	if err != nil {
		return err
	}
	defer shop.close()
	tenants, err := newTenants()
	if err != nil {
		return err
	}
	defer tenants.close()

	l, err := net.Listen("tcp", opts.listen)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/debug/tokens", &forgez.Page{Pipelines: map[string]*requestforge.Pipeline{"shop": shop.tokens, "tenants": tenants.tokens}})
	srv := &http.Server{Handler: mux}
	defer srv.Close()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()

	url := fmt.Sprintf("http://%s/debug/tokens", l.Addr())
	fmt.Fprintf(out, "%s\n\n", url)
	opts.open(url)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for _, w := range []*world{shop, tenants} {
		for i := range 3 {
			wg.Go(func() { w.visit(ctx, i) })
		}
	}
	wg.Go(func() { makeTrouble(ctx, out, opts.every, troubles(shop, tenants)) })
	select {
	case err = <-served:
		stop()
	case <-ctx.Done():
	}
	wg.Wait()
	return err
}

// openBrowser opens the page if possible. The address is printed anyway.
func openBrowser(url string) {
	name, args := "xdg-open", []string{url}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", url}
	}
	if cmd := exec.Command(name, args...); cmd.Start() == nil {
		go cmd.Wait()
	}
}

// isTerminal reports whether f is a terminal.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where to serve the page; port 0: any free one")
	every := flag.Duration("every", 6*time.Second, "time between troubles")
	length := flag.Duration("for", 0, "how long to run; 0: until interrupted")
	open := flag.Bool("open", isTerminal(os.Stdout), "open a browser")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *length > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, *length)
		defer cancel()
	}
	opts := options{listen: *listen, every: *every, open: func(string) {}}
	if *open {
		opts.open = openBrowser
	}
	if err := run(ctx, os.Stdout, opts); err != nil {
		fmt.Fprintln(os.Stderr, "window:", err)
		os.Exit(1)
	}
}
