// Package retryafter reads Retry-After (RFC 9110 §10.2.3).
package retryafter

import (
	"net/http"
	"time"
)

// Parse returns how long the response asks to wait, as seen at now. A value
// too large for a Duration is the largest Duration; a date in the past is 0.
func Parse(h http.Header, now time.Time) (time.Duration, bool) { return 0, false }
