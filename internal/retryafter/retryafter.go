// Package retryafter reads Retry-After (RFC 9110 §10.2.3).
package retryafter

import (
	"math"
	"net/http"
	"strings"
	"time"
)

// Parse returns how long the response asks to wait, as seen at now; never
// negative. A number of seconds too large for a Duration is the largest
// Duration, a date in the past is 0. If there are several lines the first
// one counts. A missing value is not ok, nor is one that is neither a whole
// number of seconds without a sign nor an HTTP date.
func Parse(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	lines := h["Retry-After"]
	if len(lines) == 0 {
		return 0, false
	}
	value := strings.Trim(lines[0], " \t")
	if value == "" {
		return 0, false
	}
	if strings.Trim(value, "0123456789") == "" {
		return seconds(value), true
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	// Of the three formats, RFC 850's lets time.Parse read any zone, and
	// take those that it doesn't know for UTC.
	if zone, _ := date.Zone(); zone != "UTC" && zone != "GMT" {
		return 0, false
	}
	return max(0, date.Sub(now)), true // Sub stops at the largest Duration
}

// seconds reads digits, however many.
func seconds(digits string) time.Duration {
	const most = math.MaxInt64 / int64(time.Second)
	var n int64
	for _, c := range []byte(digits) {
		n = 10*n + int64(c-'0')
		if n > most {
			return math.MaxInt64
		}
	}
	return time.Duration(n) * time.Second
}
