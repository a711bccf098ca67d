// The times and durations of token responses: which notations are read, and how.

package tokenjson

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxLifetime is long enough to mean "for ever", and keeps every expiry within the
// years that JSON's and Go's times can hold.
const maxLifetime = 100 * 365 * 24 * time.Hour

// Unix times are told apart by size. From each bound on the unit is the next smaller
// one: as seconds 1e11 lies in the year 5138, as milliseconds in 1973.
const (
	minMillis = 1e11
	minMicros = 1e14
	minNanos  = 1e17
)

var (
	errUnreadable = errors.New("is not a time that can be read")
	errExpired    = errors.New("says that the token has already expired")
	errNegative   = errors.New(`says that the token has already expired: it is negative; if the server means never by that, add ",negative=never" to ExpiresInField`)
)

// A lifetime is where a lifetime is found, and how a number there is read.
type lifetime struct {
	path  string
	unit  time.Duration
	never bool // a negative number means that the token doesn't expire
}

// options are the options that may follow the path of a lifetime.
var options = map[string]func(*lifetime){
	"ms":             func(l *lifetime) { l.unit = time.Millisecond },
	"s":              func(l *lifetime) { l.unit = time.Second },
	"min":            func(l *lifetime) { l.unit = time.Minute },
	"negative=never": func(l *lifetime) { l.never = true },
}

// CheckLifetime is CheckPath for a lifetime's field, which may have options after its
// path, with commas before them: "ms", "s" and "min", the unit of a number, and
// "negative=never".
func CheckLifetime(field string) error {
	l, err := parseLifetime(field)
	if err != nil {
		return err
	}
	return CheckPath(l.path)
}

func parseLifetime(field string) (lifetime, error) {
	path, rest, more := strings.Cut(field, ",")
	l := lifetime{path: path, unit: time.Second}
	for more {
		var option string
		option, rest, more = strings.Cut(rest, ",")
		set, ok := options[option]
		if !ok {
			return l, fmt.Errorf(`has an option %q after the path, which is none of "ms", "s", "min" and "negative=never"`, option)
		}
		set(&l)
	}
	return l, nil
}

// read reads the lifetime v. Null, "" and 0 name no lifetime: servers whose tokens
// don't expire send such values, and x/oauth2 reads them in the same way. zero
// distinguishes 0 from a missing value.
func (l lifetime) read(v any) (left time.Duration, set, zero bool, err error) {
	n, set, err := number(v)
	if text, ok := v.(string); err != nil && ok {
		n, set, err = duration(strings.TrimSpace(text))
	} else if set {
		n *= l.unit.Seconds()
	}
	switch {
	case err != nil:
		return maxLifetime, false, false, errUnreadable
	case !set || n == 0, n < 0 && l.never:
		return maxLifetime, false, set && n == 0, nil
	case n < 0:
		return 0, false, false, errNegative
	}
	return seconds(n), true, false, nil
}

// duration reads a duration in words, as seconds: hours, minutes and seconds
// ("177:05:38"), days before them (.NET's "7.09:05:38"), ISO 8601 without years, months
// and weeks ("P1DT2H"), and Go's notation ("3600s", "1h30m").
func duration(s string) (n float64, set bool, err error) {
	if d, err := time.ParseDuration(s); err == nil {
		return d.Seconds(), true, nil // -1 s has the value of none
	}
	if iso, ok := strings.CutPrefix(s, "P"); ok {
		n = isoTime(iso)
	} else {
		n = clockTime(s)
	}
	if n == none {
		return 0, false, errUnreadable
	}
	return n, true, nil
}

// none is what the parts of a duration return that is none.
const none = -1

// clockTime reads hours, minutes and seconds, and days before a dot.
func clockTime(s string) float64 {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return none
	}
	days, hours, mostHours := 0., parts[0], float64(math.MaxInt32)
	if d, h, ok := strings.Cut(hours, "."); ok {
		days, hours, mostHours = digits(d, math.MaxInt32), h, 23
	}
	h, m, sec := digits(hours, mostHours), sixtieth(parts[1]), sixtieth(parts[2])
	if min(days, h, m, sec) == none || strings.Contains(parts[1], ".") {
		return none
	}
	return ((days*24+h)*60+m)*60 + sec
}

// isoTime reads the text behind the P.
func isoTime(s string) float64 {
	day, clock, withClock := strings.Cut(s, "T")
	n := 0.
	if day != "" {
		d, ok := strings.CutSuffix(day, "D")
		if n = digits(d, math.MaxInt32); !ok || n == none {
			return none
		}
	}
	if !withClock && day != "" {
		return n * 24 * 3600
	}
	// Go would also read signs, lower-case units and smaller units.
	if strings.Trim(clock, "0123456789.HMS") != "" {
		return none
	}
	d, err := time.ParseDuration(strings.ToLower(clock))
	if err != nil {
		return none
	}
	return n*24*3600 + d.Seconds()
}

// digits reads a number without a sign, up to most.
func digits(s string, most float64) float64 {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return none
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || n > most {
		return none
	}
	return n
}

// sixtieth reads two digits below 60, with or without a fraction.
func sixtieth(s string) float64 {
	whole, fraction, point := strings.Cut(s, ".")
	n := digits(whole, 59)
	if len(whole) != 2 || n < 0 || point && digits(fraction, math.MaxFloat64) == none {
		return none
	}
	if point {
		part, _ := strconv.ParseFloat("0."+fraction, 64) // digits, by now
		n += part
	}
	return n
}

// layouts are the notations of a time beside the notations of HTTP. A time without a
// zone is UTC. Go reads a fraction of a second in any layout.
var layouts = []string{
	time.RFC3339,
	"2006-01-02T15:04:05Z0700",
	"2006-01-02T15:04:05",
	"2006-01-02T15:04:05 UTC",
	"2006-01-02T15:04:05UTC",
	"2006-01-02T15:04:05GMT",
	"2006-01-02 15:04:05Z07:00",
	"2006-01-02 15:04:05Z0700",
	"2006-01-02 15:04:05 Z07:00",
	"2006-01-02 15:04:05 Z0700",
	"2006-01-02 15:04:05 -0700 UTC", // of Go's Time.String
	"2006-01-02 15:04:05 UTC",
	"2006-01-02 15:04:05 GMT",
	"2006-01-02 15:04:05",
	"2006-01-02T15:04Z07:00",
	"2006-01-02T15:04",
	"2006-01-02 15:04",
	"20060102T150405Z0700",
	"2006-01-02T15:04:05Z07",
	"2006-01-02 15:04:05Z07",
	time.RFC1123Z,
	"Mon, 02 Jan 2006 15:04:05 UTC",
}

// point reads a time in words.
func point(s string) (time.Time, bool) {
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	// RFC 850's format lets time.Parse take an unknown zone for UTC.
	t, err := http.ParseTime(s)
	if zone, _ := t.Zone(); err != nil || zone != "UTC" && zone != "GMT" {
		return time.Time{}, false
	}
	return t, true
}

// dotNet returns the milliseconds since 1970 in a time of ASP.NET,
// "/Date(1772370000000)/". An offset behind the milliseconds matters only for display.
// dotNet returns any other v unchanged.
func dotNet(v any) any {
	s, _ := v.(string)
	s, begins := strings.CutPrefix(s, "/Date(")
	s, ends := strings.CutSuffix(s, ")/")
	if !begins || !ends {
		return v
	}
	if i := strings.LastIndexAny(s, "+-"); i > 0 {
		s = s[:i]
	}
	return s
}

// absolute reads a time, in words or Unix, as the duration until the time. Null, "", 0
// and the zero time name no time.
func absolute(v any, now time.Time) (left time.Duration, set bool, err error) {
	if s, ok := v.(string); ok {
		if t, ok := point(strings.TrimSpace(s)); ok {
			switch left := t.Sub(now); { // saturates
			case t.IsZero():
				return maxLifetime, false, nil
			case left <= 0:
				return 0, false, errExpired
			default:
				return min(left, maxLifetime), true, nil
			}
		}
	}
	n, set, err := number(dotNet(v))
	if err != nil || !set || n == 0 {
		return maxLifetime, false, err
	}
	switch {
	case n >= minNanos:
		n /= 1e9
	case n >= minMicros:
		n /= 1e6
	case n >= minMillis:
		n /= 1e3
	}
	// The whole seconds are subtracted as such: a float64 holds today's
	// Unix time to less than a microsecond, but not to a nanosecond.
	n -= float64(now.Unix())
	n -= float64(now.Nanosecond()) / 1e9
	if n <= 0 {
		return 0, false, errExpired
	}
	return seconds(n), true, nil
}

// seconds is n seconds, n > 0, at most maxLifetime.
func seconds(n float64) time.Duration {
	if n >= maxLifetime.Seconds() {
		return maxLifetime
	}
	// Not 0, which would mean no time left: the duration may be below 1 ns.
	return max(time.Duration(n*float64(time.Second)), 1)
}

// number reads a JSON number or a string with a number; set is false for null and "". A
// number too large for a float64 is infinite. NaN and the like aren't JSON.
func number(v any) (n float64, set bool, err error) {
	var s string
	switch v := v.(type) {
	case nil:
		return 0, false, nil
	case json.Number:
		s = v.String()
	case string:
		s = strings.TrimSpace(v)
		if s == "" {
			return 0, false, nil
		}
		if s[0] != '-' && (s[0] < '0' || s[0] > '9') || !json.Valid([]byte(s)) {
			return 0, false, errUnreadable
		}
	default:
		return 0, false, errUnreadable
	}
	n, err = strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(n, 0) {
		return 0, false, errUnreadable
	}
	return n, true, nil
}

// clock returns the server's now. Date has whole seconds, so for a smaller difference
// the local clock is used, which is finer.
func clock(now, date time.Time) time.Time {
	if date.IsZero() || now.Sub(date).Abs() <= time.Second {
		return now
	}
	return date
}

// exp returns the remaining life of a token that is a JWT, by its exp (RFC 7519
// §4.1.4). exp doesn't check the signature: a forger of exp could forge the token, too.
// An exp in the past, or an exp that is no number, is ignored: a clock may be wrong,
// and the login must not fail because of the clock.
func exp(token string, now time.Time) (left time.Duration, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0, false
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return 0, false
	}
	var claims struct {
		Exp json.Number `json:"exp"`
	}
	if json.Unmarshal(text, &claims) != nil || claims.Exp == "" {
		return 0, false
	}
	left, ok, err = absolute(claims.Exp, now)
	return left, ok && err == nil
}
