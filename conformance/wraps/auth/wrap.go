// Package wrapstack is the auth layer alone.
package wrapstack

import (
	"net/http"

	"github.com/requestforge/requestforge"
)

// Wrap puts the layer over next.
func Wrap(next http.RoundTripper) http.RoundTripper {
	return &requestforge.AuthTransport{
		Base:   next,
		Source: requestforge.StaticToken(&requestforge.Token{AccessToken: "secret"}),
		// Not Authorization, which is the subject of some tests.
		Attach:         []requestforge.Place{{Header: "X-Api-Key"}},
		Origins:        []string{requestforge.AnyOrigin},
		AllowPlaintext: true,
	}
}
