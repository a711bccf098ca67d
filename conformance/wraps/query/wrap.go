// Package wrapstack is the auth layer with its token in the query.
package wrapstack

import (
	"net/http"

	"github.com/requestforge/requestforge"
)

// Wrap puts the layer over next.
func Wrap(next http.RoundTripper) http.RoundTripper {
	return &requestforge.AuthTransport{
		Base:           next,
		Source:         requestforge.StaticToken(&requestforge.Token{AccessToken: "secret"}),
		Attach:         []requestforge.Place{{Query: "key"}},
		Origins:        []string{requestforge.AnyOrigin},
		AllowPlaintext: true,
	}
}
