package tokenjson_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/requestforge/requestforge/internal/tokenjson"
)

// until reads an answer with one field and returns what is left of the token's life.
func until(t *testing.T, f tokenjson.Fields, value any) (left time.Duration, err error) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"access_token": "a", "v": value})
	if err != nil {
		t.Fatal(err)
	}
	r, err := tokenjson.Parse(text, f, tokenjson.Clock{Now: now})
	if err != nil || r.Expiry.IsZero() {
		return 0, err
	}
	return r.Expiry.Sub(now), nil
}

func TestLifetimes(t *testing.T) {
	for _, tt := range []struct {
		field string
		value any
		want  time.Duration // 0: none; -1: an error
	}{
		{"v", 90, 90 * time.Second}, {"v", "90", 90 * time.Second}, {"v", "86399", 86399 * time.Second},
		{"v,s", 90, 90 * time.Second}, {"v,ms", 90, 90 * time.Millisecond}, {"v,min", "30", 30 * time.Minute}, {"v,min", 0.5, 30 * time.Second},
		{"v", -1, -1}, {"v", "-1", -1}, {"v", "-3600s", -1}, {"v,negative=never", -1, 0}, {"v,negative=never", "-1s", 0}, {"v,negative=never", "-2s", 0}, {"v", "-1s", -1}, {"v,min,negative=never", "-1", 0}, {"v,negative=never", 60, time.Minute},
		// Hours, minutes and seconds, never days, hours and minutes.
		{"v", "177:05:38", 177*time.Hour + 5*time.Minute + 38*time.Second}, {"v", "0:00:30", 30 * time.Second}, {"v", "00:30:00.5", 30*time.Minute + 500*time.Millisecond},
		{"v", "1.02:03:04", 26*time.Hour + 3*time.Minute + 4*time.Second}, {"v", "10.00:00:00", 240 * time.Hour}, {"v", "0:00:00", 0},
		{"v,ms", "0:00:30", 30 * time.Second},
		{"v", "05:38", -1}, {"v", "1:5:38", -1}, {"v", "1:60:00", -1}, {"v", "1:00:60", -1}, {"v", "-1:00:00", -1}, {"v", "1.24:00:00", -1}, {"v", ":00:00", -1}, {"v", "1:00.5:00", -1}, {"v", "1:00:00:00", -1},
		{"v", "3600s", time.Hour}, {"v", "1h30m", 90 * time.Minute}, {"v", "1500ms", 1500 * time.Millisecond}, {"v", "1 h", -1}, {"v", "1d", -1},
		{"v", "PT1H30M", 90 * time.Minute}, {"v", "P1DT2H", 26 * time.Hour}, {"v", "P7D", 7 * 24 * time.Hour}, {"v", "PT0.5S", 500 * time.Millisecond}, {"v", "PT0S", 0},
		{"v", "P", -1}, {"v", "PT", -1}, {"v", "P1DT", -1}, {"v", "P1M", -1}, {"v", "P1Y", -1}, {"v", "P1W", -1}, {"v", "PT-5S", -1}, {"v", "PT1h", -1},
		{"v", "9999999999:00:00", -1}, {"v", "2000000000:00:00", century}, {"v", "in an hour", -1}, {"v", true, -1}, {"v", []int{1}, -1},
	} {
		got, err := until(t, tokenjson.Fields{ExpiresIn: tt.field}, tt.value)
		if (err != nil) != (tt.want < 0) || err == nil && got != tt.want {
			t.Errorf("%s: %v: got %v, %v, want %v", tt.field, tt.value, got, err, tt.want)
		}
	}
	for field, want := range map[string]bool{
		"v": true, "a.b,ms": true, "v,min,negative=never": true, "v,": false, "v,minutes": false, "v,never": false, "v, ms": false, ",ms": false, "a..b,ms": false, "v,MS": false,
	} {
		if err := tokenjson.CheckLifetime(field); (err == nil) != want {
			t.Errorf("%q: %v", field, err)
		}
	}
}

func TestTimes(t *testing.T) {
	at := now.Truncate(time.Second).Add(time.Hour)
	east := at.In(time.FixedZone("", 5*3600+1800))
	for _, value := range []any{
		at.Format(time.RFC3339), east.Format(time.RFC3339), at.Format("2006-01-02T15:04:05.000000Z"),
		at.Format("2006-01-02T15:04:05UTC"), at.Format("2006-01-02 15:04:05"), at.Format("2006-01-02T15:04:05+0000"), east.Format("2006-01-02T15:04:05-0700"),
		at.Format("2006-01-02T15:04:05"), at.Format("2006-01-02T15:04:05.000"), east.Format("2006-01-02 15:04:05 -0700"), east.Format("2006-01-02 15:04:05 -07:00"),
		at.Format("2006-01-02 15:04:05.000000Z"), at.Format("2006-01-02 15:04:05 UTC"), at.Format("2006-01-02 15:04:05 GMT"), at.Format("2006-01-02 15:04:05+00"), at.String(),
		at.Format("20060102T150405Z"), at.Format(http.TimeFormat), at.Format(time.RFC850), at.Format(time.ANSIC), east.Format(time.RFC1123Z), " " + at.Format(time.RFC3339) + " ",
		at.Truncate(time.Minute).Format("2006-01-02T15:04Z07:00"), at.Format("2006-01-02 15:04"), fmt.Sprintf("/Date(%d)/", at.UnixMilli()), fmt.Sprintf("/Date(%d+0100)/", at.UnixMilli()),
		at.Unix(), fmt.Sprint(at.Unix()), at.UnixMilli(), fmt.Sprint(at.UnixMilli()), at.UnixMicro(), fmt.Sprint(at.UnixMicro()), at.UnixNano(), fmt.Sprint(at.UnixNano()),
	} {
		got, err := until(t, tokenjson.Fields{ExpiresAt: "v"}, value)
		if want := at.Sub(now); err != nil || (got-want).Abs() > time.Microsecond {
			t.Errorf("%v: %v, %v, want %v", value, got, err, want)
		}
	}
	for _, value := range []any{
		"2026-03-01", "13:00:00", "03/01/2026 13:00:00", "2026-03-01T13:00:00 PST", "Sunday, 01-Mar-26 13:00:00 PST", "2026-13-01T13:00:00Z", "soon", true, "/Date(x)/", "/Date(1772370000000", "/Date()",
	} {
		if got, err := until(t, tokenjson.Fields{ExpiresAt: "v"}, value); err == nil {
			t.Errorf("%v: read as %v from now", value, got)
		}
	}
}

// jwt is an unsigned token.
func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "."
}

// What is used is the token that was read, and so the earliest of all ends counts.
func TestExpOfAJWT(t *testing.T) {
	in := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	for name, tt := range map[string]struct {
		token, more string
		off         time.Duration // the server's clock against ours
		want        time.Duration // 0: none
	}{
		"alone":                 {token: jwt(`{"exp":` + in(5*time.Minute) + `}`), want: 5 * time.Minute},
		"earlier":               {token: jwt(`{"exp":` + in(5*time.Minute) + `}`), more: `,"expires_in":3600`, want: 5 * time.Minute},
		"later":                 {token: jwt(`{"exp":` + in(5*time.Hour) + `}`), more: `,"expires_in":3600`, want: time.Hour},
		"by the server's clock": {token: jwt(`{"exp":` + in(5*time.Minute) + `}`), off: -10 * time.Minute, want: 15 * time.Minute},
		"past":                  {token: jwt(`{"exp":` + in(-time.Minute) + `}`)},
		"none":                  {token: jwt(`{}`)},
		"no number":             {token: jwt(`{"exp":"soon"}`)},
		"no object":             {token: jwt(`[1]`)},
		"no JSON":               {token: jwt(`{`)},
		"no JWT":                {token: "a.!.c"},
		"one dot":               {token: "a." + jwt(`{"exp":`+in(time.Minute)+`}`)},
	} {
		c := tokenjson.Clock{Now: now}
		if tt.off != 0 {
			c.Date = now.Add(tt.off)
		}
		r, err := tokenjson.Parse([]byte(`{"access_token":"`+tt.token+`"`+tt.more+`}`), tokenjson.Fields{}, c)
		left := r.Expiry.Sub(now)
		if r.Expiry.IsZero() {
			left = 0
		}
		if err != nil || (left-tt.want).Abs() > time.Second {
			t.Errorf("%s: %v, %v, want %v", name, left, err, tt.want)
		}
	}
}

func TestWholeBody(t *testing.T) {
	for body, want := range map[string]string{
		"abc": "abc", " abc\r\n": "abc", `"abc"`: "abc", "\"abc\"\n": "abc", "\xef\xbb\xbfabc": "abc", `"a\u002db"`: "a-b", "12345": "12345", "-1x": "-1x", `" abc "`: "abc",
		"": "", " \n": "", `""`: "", "null": "", "true": "", "false": "", `{"a":1}`: "", `["a"]`: "", `"abc`: "", `"a" "b"`: "", "caf\xe9": "", "{": "",
	} {
		r, err := tokenjson.Whole([]byte(body), tokenjson.Clock{Now: now})
		if (err == nil) != (want != "") || r.Token != want {
			t.Errorf("%q: got %q, %v, want %q", body, r.Token, err, want)
		}
		if err != nil && len(body) > 4 && strings.Contains(err.Error(), body) {
			t.Errorf("%q: the error quotes it: %v", body, err)
		}
	}
	if r, err := tokenjson.Whole([]byte(jwt(`{"exp":`+fmt.Sprint(now.Add(time.Hour).Unix())+`}`)), tokenjson.Clock{Now: now}); err != nil || r.Expiry.IsZero() {
		t.Errorf("%v, %v", r.Expiry, err)
	}
}

// A body beside a token that is elsewhere may be anything.
func TestBeside(t *testing.T) {
	for body, want := range map[string]tokenjson.Response{
		"": {}, "<html>": {}, "\xff": {}, `"text"`: {}, `{}`: {},
		`{"access_token":"x","refresh_token":"r","expires_in":60,"tenant":"t","copy":"tok"}`: {
			Refresh: "r", Expiry: now.Add(time.Minute), Extra: map[string]any{"access_token": "x", "tenant": "t"},
		},
	} {
		got, err := tokenjson.Beside([]byte(body), "tok", tokenjson.Fields{}, tokenjson.Clock{Now: now})
		want.Token = "tok"
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("%q: got %+v, %v", body, got, err)
		}
	}
	// What nobody has named may mean something else, what the program names may not.
	for body, field := range map[string]tokenjson.Fields{
		`{"expires_in":"soon"}`: {ExpiresIn: "expires_in"}, `{"expires_in":-5}`: {ExpiresIn: "expires_in"},
		`{"expires_at":-1}`: {ExpiresAt: "expires_at"}, `{"expires_at":[1]}`: {ExpiresAt: "expires_at"}, `{"expires_at":"2001-01-01T00:00:00Z"}`: {ExpiresAt: "expires_at"},
		`{"refresh_token":{"id":"1"}}`: {Refresh: "refresh_token"}, `{"refresh_token":false}`: {Refresh: "refresh_token"}, `{"token_type":5}`: {Type: "token_type"},
	} {
		if _, err := tokenjson.Beside([]byte(body), "tok", field, tokenjson.Clock{Now: now}); err == nil {
			t.Errorf("%s: no error, though the field is named", body)
		}
		got, err := tokenjson.Beside([]byte(body), "tok", tokenjson.Fields{}, tokenjson.Clock{Now: now})
		if err != nil || got.Type != "" || got.Refresh != "" || !got.Expiry.IsZero() || len(got.Extra) != 1 {
			t.Errorf("%s: got %+v, %v, though nobody asked for it", body, got, err)
		}
		body = strings.Replace(body, "{", `{"expires_in":60,"x":1,`, 1)
		if strings.Count(body, "expires_in") == 1 {
			if got, err := tokenjson.Beside([]byte(body), "tok", tokenjson.Fields{}, tokenjson.Clock{Now: now}); err != nil || !got.Expiry.Equal(now.Add(time.Minute)) {
				t.Errorf("%s: got %+v, %v", body, got, err)
			}
		}
	}
}

func FuzzExpiry(f *testing.F) {
	for _, s := range []string{"60", "-1", "177:05:38", "1.02:03:04", "PT1H", "P1DT2H", "3600s", "2026-03-01T13:00:00Z", "2026-03-01 13:00:00", "1772370000000", "1e999", "Sunday, 01-Mar-26 13:00:00 GMT", "/Date(1772370000000+0000)/"} {
		f.Add(s, "v")
		f.Add(s, "v,ms,negative=never")
	}
	f.Fuzz(func(t *testing.T, value, field string) {
		for _, fields := range []tokenjson.Fields{{ExpiresIn: field}, {ExpiresAt: "v"}} {
			if fields.ExpiresIn != "" && tokenjson.CheckLifetime(field) != nil {
				continue
			}
			text, err := json.Marshal(map[string]any{"access_token": "a", "v": value})
			if err != nil {
				t.Skip()
			}
			r, err := tokenjson.Parse(text, fields, tokenjson.Clock{Now: now})
			if err == nil && !r.Expiry.IsZero() && (!r.Expiry.After(now) || r.Expiry.Sub(now) > century) {
				t.Errorf("%q in %+v: expires %v from now", value, fields, r.Expiry.Sub(now))
			}
			if err != nil && len(value) > 8 && strings.Contains(err.Error(), value) {
				t.Errorf("the error quotes %q: %v", value, err)
			}
		}
	})
}
