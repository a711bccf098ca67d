// The troubles, one after another.

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

// trouble is a cause, and how the cause ends; nil: by itself.
type trouble struct {
	what       string
	begin, end func()
}

// slow delays some steps, as long as no trouble is on, so that the page shows fetches.
func slow(shop, tenants *world) {
	shop.srv.Fail("orders", authtest.Fault{Delay: 1200 * time.Millisecond})
	shop.srv.Fail("user", authtest.Fault{Delay: 800 * time.Millisecond})
	tenants.srv.Fail("files", authtest.Fault{Delay: 300 * time.Millisecond})
}

// troubles returns the troubles in order.
func troubles(shop, tenants *world) []trouble {
	slow(shop, tenants)
	fails := func(w *world, step string, f authtest.Fault) func() {
		return func() {
			w.srv.Fail(step, f)
			w.lose(step)
		}
	}
	works := func(w *world, step string) func() {
		return func() {
			w.srv.Fail(step)
			slow(shop, tenants)
		}
	}
	return []trouble{
		{"shop: the user token is revoked", func() { shop.lose("user") }, nil},
		{"tenants: five tenants are suspended: 07, 14, 21, 35 and 42", func() { tenants.suspend(7, 14, 21, 35, 42) }, nil},
		{"shop: the auth server takes 4 s for a region token", fails(shop, "region", authtest.Fault{Delay: 4 * time.Second}), works(shop, "region")},
		{"shop: the client secret is wrong", fails(shop, "app", authtest.Fault{Status: http.StatusUnauthorized, Body: `{"error":"invalid_client"}`}), works(shop, "app")},
		{"tenants: the app token is revoked, and with it every tenant's", func() { tenants.lose("app") }, nil},
		{"shop: the auth server is down", func() { shop.srv.Down(true); shop.lose("user") }, func() { shop.srv.Down(false) }},
		{"tenants: the suspended tenants are back", func() { tenants.suspend() }, nil},
		{"shop: too many logins, the auth server asks to wait for 5 s", fails(shop, "user", authtest.Fault{Status: http.StatusTooManyRequests, RetryAfter: 5 * time.Second}), works(shop, "user")},
		{"shop: a proxy answers with a page in place of the auth server", fails(shop, "region", authtest.Fault{Status: http.StatusBadGateway, HTML: true}), works(shop, "region")},
		{"tenants: the files tokens expire", func() { tenants.srv.Expire("files") }, nil},
	}
}

// makeTrouble begins a trouble every so often, and ends the one before, over and over.
func makeTrouble(ctx context.Context, out io.Writer, every time.Duration, all []trouble) {
	next := time.NewTicker(every)
	defer next.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		if end := all[(i+len(all)-1)%len(all)].end; i > 0 && end != nil {
			end()
		}
		t := all[i%len(all)]
		fmt.Fprintf(out, "%s  %s\n", time.Now().Format(time.TimeOnly), t.what)
		t.begin()
	}
}
