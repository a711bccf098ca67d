// Package challenge reads WWW-Authenticate (RFC 9110 §11.6.1).
package challenge

import "net/http"

// Challenge is one challenge of a response.
type Challenge struct {
	Scheme  string            // as sent; compare with strings.EqualFold
	Token68 string            // "" if it has parameters
	Params  map[string]string // names in lower case, values unquoted
}

// Parse returns the challenges in h, as far as they can be read.
func Parse(h http.Header) []Challenge { return nil }

// BearerError returns the error parameter of the first Bearer challenge that has one.
func BearerError(h http.Header) string { return "" }
