// Who may see the page.

package forgez

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Loopback reports whether a request comes from the same machine, straight from a browser or
// a tool: over a connection from a loopback address, for a local host name (localhost,
// *.localhost or a loopback address, with any port), and without a proxy. The check of the
// host name keeps out web pages by DNS rebinding.
//
// A local proxy is recognized by a header such as Forwarded, Via or X-Forwarded-For. A proxy
// without such headers, and with a local name in Host, looks like a browser: don't route the
// page through such a proxy. Requests through ssh -L and kubectl port-forward count as local.
func Loopback(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback() && thisMachine(r.Host) && !proxied(r.Header)
}

// thisMachine reports whether host, with or without a port, is a local name.
func thisMachine(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// proxied reports whether a proxy says that it passed the request on.
func proxied(h http.Header) bool {
	for name := range h {
		switch name {
		case "Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip":
			return true
		}
		if strings.HasPrefix(name, "X-Forwarded") || strings.HasPrefix(name, "X-Original-") || strings.HasPrefix(name, "X-Envoy-") {
			return true
		}
	}
	return false
}

// foreign reports whether a page of another origin has the browser send the request. A
// click on a link doesn't count: a runbook may link to the page, and only the viewer sees
// the target.
func foreign(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return true
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	link := r.URL.RawQuery == "" && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	return !link
}
