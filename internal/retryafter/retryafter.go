// Package retryafter reads Retry-After (RFC 9110 §10.2.3).
package retryafter

import (
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// Parse returns how long the response asks to wait; never negative. A number of
// seconds too large for a Duration is the largest Duration, and a fraction of a second
// counts as a whole one. A date is read by the clock of the server: from the Date of
// the response (RFC 9110 §6.6.1), and only without a Date from now. A date in the past
// is 0. If there are several lines the first one counts. A missing value is not ok, nor
// is one that is neither a number of seconds in digits, without a sign, nor an HTTP date.
func Parse(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	lines := h["Retry-After"]
	if len(lines) == 0 {
		return 0, false
	}
	value := strings.Trim(lines[0], " \t")
	if wait, ok := number(value); ok {
		return wait, true
	}
	date, ok := parseDate(value)
	if !ok {
		return 0, false
	}
	if dates := h["Date"]; len(dates) > 0 {
		if server, ok := parseDate(strings.Trim(dates[0], " \t")); ok {
			now = server
		}
	}
	return max(0, date.Sub(now)), true // Sub stops at the largest Duration
}

// parseDate reads an HTTP date.
func parseDate(value string) (time.Time, bool) {
	date, err := http.ParseTime(value)
	if err != nil {
		return time.Time{}, false
	}
	// RFC 850's format lets time.Parse read any zone, and take an unknown zone for UTC.
	zone, _ := date.Zone()
	return date, zone == "UTC" || zone == "GMT"
}

// number reads a number of seconds, rounded up.
func number(value string) (time.Duration, bool) {
	whole, fraction, point := strings.Cut(value, ".")
	if whole == "" || point && fraction == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return 0, false
	}
	wait := seconds(whole)
	if strings.Trim(fraction, "0") != "" && wait <= math.MaxInt64-time.Second {
		wait += time.Second
	}
	return wait, true
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

// Spread returns a wait that is up to a quarter longer than asked, and never shorter:
// clients refused at the same moment must not all return at the same moment.
func Spread(asked time.Duration) time.Duration {
	if asked < 4 || asked > math.MaxInt64/2 {
		return asked
	}
	return asked + rand.N(asked/4)
}
