// Package proxied says whether a transport sends a request through a proxy. Over
// plain http the proxy can read the request, wherever the request is going.
package proxied

import (
	"net/http"

	"github.com/requestforge/requestforge/internal/roundtrip"
	"github.com/requestforge/requestforge/internal/unwrap"
)

// By reports whether base sends req through a proxy, as far as base shows: an
// *http.Transport, or one below layers with a method Unwrap() http.RoundTripper. A
// nil base is http.DefaultTransport. Of any other transport nothing is known, and
// By returns false; so it does if the Proxy function fails, since req is then not
// sent.
func By(base http.RoundTripper, req *http.Request) bool {
	t, ok := unwrap.Find[*http.Transport](roundtrip.Base(base))
	if !ok || t == nil || t.Proxy == nil {
		return false
	}
	proxy, err := t.Proxy(req)
	return err == nil && proxy != nil
}
