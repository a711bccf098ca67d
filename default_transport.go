// The meaning of a nil Base while http.DefaultTransport is a layer of this package. A layer
// must not send to itself.

package requestforge

import (
	"context"
	"errors"
	"net/http"

	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

var errOwnDefault = mistake.Final(errors.New("requestforge: http.DefaultTransport leads to a layer whose Base is nil, and so to itself; set the layer's Base to what http.DefaultTransport was before"))

// A lower is a layer of ours that can name its Base: nil for http.DefaultTransport.
type lower interface{ lower() http.RoundTripper }

// mostLayers is more layers than any program stacks.
const mostLayers = 64

// ownDefault reports whether http.DefaultTransport contains a layer with a nil Base.
func ownDefault() bool {
	rt := http.DefaultTransport
	for range mostLayers {
		switch l := rt.(type) {
		case *http.Transport, nil:
			return false
		case lower:
			if rt = l.lower(); rt == nil {
				return true
			}
		case interface{ Unwrap() http.RoundTripper }:
			rt = l.Unwrap()
		default:
			return false
		}
	}
	return true
}

type defaultKey struct{}

// enterDefault returns req for an http.DefaultTransport that isn't net/http's own, or an
// error if the layer that sends req is part of http.DefaultTransport. A RoundTripper that
// hides the transport below is caught by counting how often req arrives here.
func enterDefault(req *http.Request) (*http.Request, error) {
	times, _ := req.Context().Value(defaultKey{}).(int)
	if times >= mostLayers || ownDefault() {
		roundtrip.CloseBody(req)
		return nil, errOwnDefault
	}
	return req.WithContext(context.WithValue(req.Context(), defaultKey{}, times+1)), nil
}

// below is the transport below a layer with a Base; nil if that transport is the layer.
func below(base http.RoundTripper) http.RoundTripper {
	if base == nil && ownDefault() {
		return nil
	}
	return roundtrip.Base(base)
}

// closeIdle passes CloseIdleConnections on to the transport below.
func closeIdle(base http.RoundTripper) {
	if below(base) != nil {
		roundtrip.CloseIdle(base)
	}
}
