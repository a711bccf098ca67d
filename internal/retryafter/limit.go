// The headers of a rate limit, which no RFC has fixed yet.

package retryafter

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// limits are the names of the headers with the remainder of a rate limit, and with the
// time of the reset.
var limits = []struct{ remaining, reset string }{
	{"X-Ratelimit-Remaining", "X-Ratelimit-Reset"},
	{"X-Rate-Limit-Remaining", "X-Rate-Limit-Reset"},
	{"Ratelimit-Remaining", "Ratelimit-Reset"},
}

// aTime is the number from which on a reset is a Unix time, and no number of seconds.
const aTime = 1e9

// Limit reports whether the response says that a rate limit is used up: 0 in a header
// X-RateLimit-Remaining, X-Rate-Limit-Remaining or RateLimit-Remaining, or r=0 or
// remaining=0 in RateLimit. wait is how long until the limit begins anew, 0 if that
// isn't known: seconds, or a Unix time, which is read by our clock, now.
func Limit(h http.Header, now time.Time) (wait time.Duration, usedUp bool) {
	for _, l := range limits {
		if zero(h.Get(l.remaining)) {
			return reset(h.Get(l.reset), now), true
		}
	}
	for _, line := range h["Ratelimit"] {
		var t string
		used := false
		for part := range strings.FieldsFuncSeq(line, func(r rune) bool { return r == ';' || r == ',' }) {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch name {
			case "r", "remaining":
				used = used || zero(value)
			case "t", "reset":
				t = value
			}
		}
		if used {
			return reset(t, now), true
		}
	}
	return 0, false
}

func zero(value string) bool {
	n, err := strconv.Atoi(strings.TrimSpace(value))
	return err == nil && n == 0
}

func reset(value string, now time.Time) time.Duration {
	n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if n >= aTime {
		n = math.Ceil(n - float64(now.UnixNano())/1e9)
	}
	if err != nil || !(n > 0 && n < math.MaxInt64/1e9) {
		return 0
	}
	return time.Duration(n * float64(time.Second))
}
