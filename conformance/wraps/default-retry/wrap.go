// Package wrapstack is the retry layer with its default policy, but for the
// waits, which are short so that the tests' own time limits don't decide.
// expected.txt explains each test that sees the difference.
package wrapstack

import (
	"net/http"
	"time"

	"github.com/requestforge/requestforge"
)

// Wrap puts the layer over next.
func Wrap(next http.RoundTripper) http.RoundTripper {
	return &requestforge.RetryTransport{
		Base:   next,
		Policy: requestforge.ExponentialBackoff(3, time.Millisecond, 4*time.Millisecond),
	}
}
