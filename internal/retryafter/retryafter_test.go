package retryafter

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

var now = time.Date(1994, time.November, 6, 8, 49, 7, 0, time.UTC)

var cases = []struct {
	value string
	want  time.Duration
	ok    bool
}{
	{"0", 0, true},
	{"120", 2 * time.Minute, true},
	{" \t120\t ", 2 * time.Minute, true},
	{"0000000000000000000000000000120", 2 * time.Minute, true},
	{"9223372036", 9223372036 * time.Second, true},
	{"9223372037", math.MaxInt64, true},
	{"9223372036854775807", math.MaxInt64, true},
	{"18446744073709551617", math.MaxInt64, true}, // 1 modulo 2^64
	{"99999999999999999999", math.MaxInt64, true},

	{"Sun, 06 Nov 1994 08:49:37 GMT", 30 * time.Second, true},
	{" Sun, 06 Nov 1994 08:49:37 GMT ", 30 * time.Second, true},
	{"Sunday, 06-Nov-94 08:49:37 GMT", 30 * time.Second, true},
	{"Sun Nov  6 08:49:37 1994", 30 * time.Second, true},
	{"Sun, 06 Nov 1994 08:49:07 GMT", 0, true},
	{"Sun, 06 Nov 1994 08:49:06 GMT", 0, true},
	{"Mon, 01 Jan 0001 00:00:00 GMT", 0, true},
	{"Fri, 31 Dec 9999 23:59:59 GMT", math.MaxInt64, true},

	{"", 0, false},
	{" ", 0, false},
	{"-1", 0, false},
	{"-0", 0, false},
	{"+1", 0, false},
	{"1.5", 2 * time.Second, true},
	{"0.0000000001", time.Second, true},
	{"1.000", time.Second, true},
	{"18446744073709551617.5", math.MaxInt64, true},
	{".5", 0, false},
	{"5.", 0, false},
	{"1.5.5", 0, false},
	{"-1.5", 0, false},
	{"1,5", 0, false},
	{"1e3", 0, false},
	{"0x10", 0, false},
	{"1_000", 0, false},
	{"1 0", 0, false},
	{"5, 10", 0, false},
	{"5s", 0, false},
	{"５", 0, false},
	{"\u00a05", 0, false},
	{"soon", 0, false},
	{"Sun, 06 Nov 1994 08:49:37 EST", 0, false},
	{"Sun, 06 Nov 1994 08:49:37 +0000", 0, false},
	{"Sunday, 06-Nov-94 08:49:37 EST", 0, false},
	{"Sunday, 06-Nov-94 08:49:37 GMT+3", 0, false},
	{"Sun, 31 Feb 1994 08:49:37 GMT", 0, false},
	{"1994-11-06T08:49:37Z", 0, false},
}

func TestParse(t *testing.T) {
	for _, c := range cases {
		got, ok := Parse(http.Header{"Retry-After": {c.value}}, now)
		assert.Equal(t, c.want, got, "%q", c.value)
		assert.Equal(t, c.ok, ok, "%q", c.value)
	}
}

// The server's date says what the server's clock is.
func TestDateIsReadByTheServersClock(t *testing.T) {
	for date, want := range map[string]time.Duration{
		"Sun, 06 Nov 1994 08:49:27 GMT":   10 * time.Second,
		" Sunday, 06-Nov-94 08:49:27 GMT": 10 * time.Second,
		"Sun, 06 Nov 1994 08:49:38 GMT":   0,
		"Sun, 06 Nov 1994 10:49:27 EST":   30 * time.Second, // no date: by our clock
		"soon":                            30 * time.Second,
		"":                                30 * time.Second,
	} {
		got, ok := Parse(http.Header{"Retry-After": {"Sun, 06 Nov 1994 08:49:37 GMT"}, "Date": {date}}, now)
		assert.Equal(t, want, got, "%q", date)
		assert.True(t, ok)
	}
}

func TestNoHeaderIsNotOK(t *testing.T) {
	for _, h := range []http.Header{nil, {}, {"Retry-After": nil}} {
		got, ok := Parse(h, now)
		assert.Zero(t, got)
		assert.False(t, ok)
	}
}

func TestFirstLineCounts(t *testing.T) {
	got, ok := Parse(http.Header{"Retry-After": {"5", "10"}}, now)
	assert.Equal(t, 5*time.Second, got)
	assert.True(t, ok)

	_, ok = Parse(http.Header{"Retry-After": {"soon", "10"}}, now)
	assert.False(t, ok)
}

func TestDateIsSeenFromAnyZone(t *testing.T) {
	there := now.In(time.FixedZone("there", 5*60*60)).Add(500 * time.Millisecond)
	got, ok := Parse(http.Header{"Retry-After": {"Sun, 06 Nov 1994 08:49:37 GMT"}}, there)
	assert.Equal(t, 29500*time.Millisecond, got)
	assert.True(t, ok)
}

func TestSpreadIsUpwardsOnly(t *testing.T) {
	for _, asked := range []time.Duration{0, 1, 3, 5 * time.Second, time.Hour, math.MaxInt64} {
		seen := map[time.Duration]bool{}
		for range 100 {
			got := Spread(asked)
			seen[got] = true
			if got < asked || got-asked > asked/4 {
				t.Errorf("%v of %v", got, asked)
			}
		}
		if len(seen) < 50 && asked >= 4 && asked < math.MaxInt64 {
			t.Errorf("%v: only %d different waits", asked, len(seen))
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range cases {
		f.Add(c.value, uint32(120), now.Unix())
	}
	f.Fuzz(func(t *testing.T, value string, secs uint32, at int64) {
		at %= 1 << 37 // years of at most four digits and some beyond
		now := time.Unix(at, 0)
		got, ok := Parse(http.Header{"Retry-After": {value}}, now)
		if got < 0 || !ok && got != 0 {
			t.Errorf("Parse(%q) = %v, %v", value, got, ok)
		}
		if trimmed := strings.Trim(value, " \t"); ok && got != 0 && !strings.ContainsAny(trimmed, ":") {
			n, err := strconv.ParseUint(trimmed, 10, 64)
			if want := time.Duration(n) * time.Second; err == nil && n <= 9223372036 && got != want {
				t.Errorf("Parse(%q) = %v, want %v", value, got, want)
			}
		}

		// What we ask for ourselves is what we get.
		want := time.Duration(secs) * time.Second
		for _, value := range []string{strconv.FormatUint(uint64(secs), 10), now.Add(want).UTC().Format(http.TimeFormat)} {
			if year := now.Add(want).UTC().Year(); year < 0 || year > 9999 {
				continue
			}
			if got, ok := Parse(http.Header{"Retry-After": {value}}, now); !ok || got != want {
				t.Errorf("Parse(%q) at %v = %v, %v; want %v", value, now, got, ok, want)
			}
		}
	})
}
