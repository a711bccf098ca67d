package tokenjson_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/requestforge/requestforge/internal/tokenjson"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 500, time.UTC)

const century = 100 * 365 * 24 * time.Hour

var good = []struct {
	name, body string
	fields     tokenjson.Fields
	want       tokenjson.Response // Expiry is left to left
	left       time.Duration      // until the expiry; 0: none
}{
	{
		name: "a standard response",
		body: `{"access_token":"a","token_type":"Bearer","refresh_token":"r","expires_in":3600}`,
		want: tokenjson.Response{Token: "a", Type: "Bearer", Refresh: "r"}, left: time.Hour,
	},
	{name: "a token alone", body: `{"access_token":"a"}`, want: tokenjson.Response{Token: "a"}},
	{name: "white space around", body: " \n{\"access_token\":\"a\"}\r\n ", want: tokenjson.Response{Token: "a"}},
	{name: "a byte order mark", body: "\xef\xbb\xbf{\"access_token\":\"a\"}", want: tokenjson.Response{Token: "a"}},
	{
		name: "null is missing", body: `{"access_token":"a","token_type":null,"refresh_token":null,"expires_in":null,"expires_at":null}`,
		want: tokenjson.Response{Token: "a"},
	},
	{
		name: "paths of names", body: `{"auth":{"client_token":"a","kind":"DPoP","more":{"r":"r"}},"life":{"in":60}}`,
		fields: tokenjson.Fields{Token: "auth.client_token", Type: "auth.kind", Refresh: "auth.more.r", ExpiresIn: "life.in"},
		want: tokenjson.Response{Token: "a", Type: "DPoP", Refresh: "r", Extra: map[string]any{
			"auth": map[string]any{"more": map[string]any{}}, "life": map[string]any{},
		}},
		left: time.Minute,
	},
	{
		name: "a path through an array", body: `{"data":[{"token":"a","id":7},{"token":"b"}]}`,
		fields: tokenjson.Fields{Token: "data.0.token"},
		want: tokenjson.Response{Token: "a", Extra: map[string]any{
			"data": []any{map[string]any{"id": json.Number("7")}, map[string]any{"token": "b"}},
		}},
	},
	{
		name: "an element of an array keeps the places of the others", body: `{"tokens":["x","a","y"]}`,
		fields: tokenjson.Fields{Token: "tokens.1"},
		want:   tokenjson.Response{Token: "a", Extra: map[string]any{"tokens": []any{"x", nil, "y"}}},
	},
	{name: "an array at the top", body: `[{"token":"a"}]`, fields: tokenjson.Fields{Token: "0.token"}, want: tokenjson.Response{Token: "a"}},
	{
		name: "an index may be a name", body: `{"data":{"0":"a"}}`, fields: tokenjson.Fields{Token: "data.0"},
		want: tokenjson.Response{Token: "a", Extra: map[string]any{"data": map[string]any{}}},
	},
	{
		name: "a name with dots wins", body: `{"auth.token":"a","auth":{"token":"b"}}`, fields: tokenjson.Fields{Token: "auth.token"},
		want: tokenjson.Response{Token: "a", Extra: map[string]any{"auth": map[string]any{"token": "b"}}},
	},
	{
		name: "a last name with dots", body: `{"auth":{"client.token":"a"}}`, fields: tokenjson.Fields{Token: "auth.client.token"},
		want: tokenjson.Response{Token: "a", Extra: map[string]any{"auth": map[string]any{}}},
	},
	{
		name: "extra values are exact", body: `{"access_token":"a","n":9007199254740993,"f":1.10,"s":"x","b":true,"z":null,"l":[1]}`,
		want: tokenjson.Response{Token: "a", Extra: map[string]any{
			"n": json.Number("9007199254740993"), "f": json.Number("1.10"), "s": "x", "b": true, "z": nil, "l": []any{json.Number("1")},
		}},
	},
	{
		name: "no further copy of a secret", body: `{"access_token":"aa","refresh_token":"rr","old":{"t":"aa","keep":"x"},"l":["rr","y",["aa"]],"aa":1}`,
		want: tokenjson.Response{Token: "aa", Refresh: "rr", Extra: map[string]any{
			"old": map[string]any{"keep": "x"}, "l": []any{nil, "y", []any{nil}},
		}},
	},

	{name: "lifetime as a string", body: `{"access_token":"a","expires_in":" 60 "}`, want: tokenjson.Response{Token: "a"}, left: time.Minute},
	{name: "lifetime as a float", body: `{"access_token":"a","expires_in":1.5}`, want: tokenjson.Response{Token: "a"}, left: 1500 * time.Millisecond},
	{name: "lifetime as a float in a string", body: `{"access_token":"a","expires_in":"6e1"}`, want: tokenjson.Response{Token: "a"}, left: time.Minute},
	{name: "lifetime zero is none", body: `{"access_token":"a","expires_in":0}`, want: tokenjson.Response{Token: "a", Zero: true}},
	{name: "lifetime empty is none", body: `{"access_token":"a","expires_in":""}`, want: tokenjson.Response{Token: "a"}},
	{name: "lifetime beyond a century", body: `{"access_token":"a","expires_in":1e11}`, want: tokenjson.Response{Token: "a"}, left: century},
	{name: "lifetime beyond a float64", body: `{"access_token":"a","expires_in":1e999}`, want: tokenjson.Response{Token: "a"}, left: century},
	{name: "lifetime below a nanosecond", body: `{"access_token":"a","expires_in":1e-12}`, want: tokenjson.Response{Token: "a"}, left: 1},

	{name: "RFC 3339", body: `{"access_token":"a","expires_at":"2026-03-01T14:00:00.0000005+01:00"}`, want: tokenjson.Response{Token: "a"}, left: time.Hour},
	{name: "RFC 3339 far away", body: `{"access_token":"a","expires_at":"9999-12-31T23:59:59Z"}`, want: tokenjson.Response{Token: "a"}, left: century},
	{name: "Go's zero time is none", body: `{"access_token":"a","expires_at":"0001-01-01T00:00:00Z"}`, want: tokenjson.Response{Token: "a"}},
	{name: "Unix zero is none", body: `{"access_token":"a","expires_at":0}`, want: tokenjson.Response{Token: "a"}},
	{name: "nobody asked for an odd expires_at", body: `{"access_token":"a","expires_at":"tomorrow"}`, want: tokenjson.Response{Token: "a"}},
	{
		name: "a field of another name", body: `{"access_token":"a","until":"2026-03-01T13:00:00.0000005Z"}`,
		fields: tokenjson.Fields{ExpiresAt: "until"}, want: tokenjson.Response{Token: "a"}, left: time.Hour,
	},
	{
		name: "the earlier wins: lifetime", body: `{"access_token":"a","expires_in":60,"expires_at":"2026-03-01T14:00:00Z"}`,
		want: tokenjson.Response{Token: "a"}, left: time.Minute,
	},
	{
		name: "the earlier wins: time", body: `{"access_token":"a","expires_in":7200,"expires_at":"2026-03-01T13:00:00.0000005Z"}`,
		want: tokenjson.Response{Token: "a"}, left: time.Hour,
	},
}

func TestParse(t *testing.T) {
	for _, tt := range good {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tokenjson.Parse([]byte(tt.body), tt.fields, tokenjson.Clock{Now: now})
			if err != nil {
				t.Fatal(err)
			}
			if tt.left != 0 {
				tt.want.Expiry = now.Add(tt.left)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// A float64 holds no nanoseconds of a Unix time.
func TestUnixTimes(t *testing.T) {
	for name, value := range map[string]string{
		"seconds": `1772370000`, "string": `"1772370000"`, "float": `1772370000.0`, "exponent": `1.77237e9`, "milliseconds": `1772370000000`,
		"milliseconds in a string": `"1772370000000"`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tokenjson.Parse([]byte(`{"access_token":"a","expires_at":`+value+`}`), tokenjson.Fields{}, tokenjson.Clock{Now: now})
			want := time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC)
			if err != nil || got.Expiry.Sub(want).Abs() > time.Microsecond {
				t.Errorf("got %v, %v, want %v", got.Expiry, err, want)
			}
		})
	}
}

func TestAbsoluteExpiryIsReadByTheServersClock(t *testing.T) {
	const body = `{"access_token":"a","expires_at":"2026-03-01T13:00:00Z"}` // an hour from now
	for name, tt := range map[string]struct {
		off  time.Duration // the server's clock against ours
		left time.Duration
	}{
		"no date":              {off: -now.Sub(time.Time{}), left: time.Hour - 500},
		"within a second":      {off: -time.Second, left: time.Hour - 500},
		"ten minutes behind":   {off: -10 * time.Minute, left: 70*time.Minute - 500},
		"ten minutes ahead":    {off: 10 * time.Minute, left: 50*time.Minute - 500},
		"two hours behind":     {off: -2 * time.Hour, left: 3*time.Hour - 500},
		"just beyond a second": {off: -1001 * time.Millisecond, left: time.Hour + 1001*time.Millisecond - 500},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tokenjson.Parse([]byte(body), tokenjson.Fields{}, tokenjson.Clock{Now: now, Date: now.Add(tt.off)})
			if name == "no date" {
				got, err = tokenjson.Parse([]byte(body), tokenjson.Fields{}, tokenjson.Clock{Now: now})
			}
			if want := now.Add(tt.left); err != nil || !got.Expiry.Equal(want) {
				t.Errorf("got %v, %v, want %v", got.Expiry, err, want)
			}
		})
	}
	if _, err := tokenjson.Parse([]byte(body), tokenjson.Fields{}, tokenjson.Clock{Now: now, Date: now.Add(2 * time.Hour)}); err == nil {
		t.Error("expired by the server's clock, taken all the same")
	}
}

var bad = []struct {
	name, body string
	fields     tokenjson.Fields
	want       string // in the error
}{
	{name: "nothing", body: "", want: "empty"},
	{name: "white space", body: " \n", want: "empty"},
	{name: "a mark alone", body: "\xef\xbb\xbf", want: "empty"},
	{name: "no JSON", body: "SECRET", want: "not JSON: byte 1 of 6"},
	{name: "cut off", body: `{"access_token":"SECRET`, want: "not JSON"},
	{name: "trailing garbage", body: `{"access_token":"SECRET"} SECRET`, want: "not JSON"},
	{name: "two values", body: `{"access_token":"SECRET"}{}`, want: "not JSON"},
	{name: "a trailing comma", body: `{"access_token":"SECRET",}`, want: "not JSON"},
	{name: "a string", body: `"SECRET"`, want: "neither a JSON object nor an array"},
	{name: "null", body: `null`, want: "neither a JSON object nor an array"},
	{name: "UTF-16 with a mark", body: "\xff\xfe{\x00}\x00", want: "UTF-16"},
	{name: "UTF-16 big endian with a mark", body: "\xfe\xff\x00{\x00}", want: "UTF-16"},
	{name: "UTF-16", body: "{\x00\"\x00", want: "UTF-16"},
	{name: "Latin-1", body: "{\"access_token\":\"SECRET\xe9\"}", want: "not UTF-8"},
	{name: "the same name twice", body: `{"access_token":"SECRET","access_token":"a"}`, want: "same name twice"},
	{name: "the same name twice, deeper", body: `{"access_token":"a","x":[{"SECRET":1,"SECRET":1}]}`, want: "same name twice"},
	{name: "the same name twice, escaped", body: `{"access_token":"SECRET","acces\u0073_token":"a"}`, want: "same name twice"},
	{name: "too deep", body: `{"access_token":"a","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}", want: "deep"},
	{name: "far too deep", body: strings.Repeat("[", 1e6), want: "not JSON"},
	{name: "no token", body: `{"SECRET":"SECRET"}`, want: `no field "access_token"`},
	{name: "no token where it should be", body: `{"auth":{"SECRET":"SECRET"}}`, fields: tokenjson.Fields{Token: "auth.token"}, want: `no field "auth.token"`},
	{name: "a path through a string", body: `{"auth":"SECRET"}`, fields: tokenjson.Fields{Token: "auth.token"}, want: `no field "auth.token"`},
	{name: "an index too large", body: `{"data":["SECRET"]}`, fields: tokenjson.Fields{Token: "data.1"}, want: `no field "data.1"`},
	{name: "a negative index", body: `{"data":["SECRET"]}`, fields: tokenjson.Fields{Token: "data.-1"}, want: `no field "data.-1"`},
	{name: "an odd index", body: `{"data":["SECRET"]}`, fields: tokenjson.Fields{Token: "data.00"}, want: `no field "data.00"`},
	{name: "an empty token", body: `{"access_token":""}`, want: `field "access_token" is empty`},
	{name: "a null token", body: `{"access_token":null}`, want: `field "access_token" is empty`},
	{name: "a token that is a number", body: `{"access_token":5}`, want: `field "access_token" is not a string`},
	{name: "a token that is an object", body: `{"access_token":{"SECRET":1}}`, want: `field "access_token" is not a string`},
	{name: "an odd type", body: `{"access_token":"SECRET","token_type":["SECRET"]}`, want: `field "token_type" is not a string`},
	{name: "an odd refresh token", body: `{"access_token":"SECRET","refresh_token":true}`, want: `field "refresh_token" is not a string`},
	{name: "a negative lifetime", body: `{"access_token":"SECRET","expires_in":-1}`, want: `field "expires_in" says that the token has already expired`},
	{name: "an endlessly negative lifetime", body: `{"access_token":"SECRET","expires_in":-1e999}`, want: "already expired"},
	{name: "NaN", body: `{"access_token":"SECRET","expires_in":"NaN"}`, want: `field "expires_in" is not a time`},
	{name: "Inf", body: `{"access_token":"SECRET","expires_in":"Inf"}`, want: "is not a time"},
	{name: "hexadecimal", body: `{"access_token":"SECRET","expires_in":"0x10p1"}`, want: "is not a time"},
	{name: "a word", body: `{"access_token":"SECRET","expires_in":"SECRET"}`, want: "is not a time"},
	{name: "a lifetime that is true", body: `{"access_token":"SECRET","expires_in":true}`, want: "is not a time"},
	{name: "the past", body: `{"access_token":"SECRET","expires_at":"2026-03-01T11:59:59Z"}`, want: `field "expires_at" says that the token has already expired`},
	{name: "the Unix past", body: `{"access_token":"SECRET","expires_at":1000000000}`, want: "already expired"},
	{name: "now", body: `{"access_token":"SECRET","expires_at":"2026-03-01T12:00:00.0000005Z"}`, want: "already expired"},
	{
		name: "an odd time that was asked for", body: `{"access_token":"SECRET","expires_at":"SECRET"}`,
		fields: tokenjson.Fields{ExpiresAt: "expires_at"}, want: `field "expires_at" is not a time`,
	},
}

func TestParseErrorsSayWhatIsWrongAndNothingOfTheBody(t *testing.T) {
	for _, tt := range bad {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tokenjson.Parse([]byte(tt.body), tt.fields, tokenjson.Clock{Now: now})
			if err == nil {
				t.Fatalf("got %+v, want an error", got)
			}
			if text := err.Error(); !strings.Contains(text, tt.want) || strings.Contains(text, "SECRET") {
				t.Errorf("got %q, want one with %q", text, tt.want)
			}
			if !reflect.DeepEqual(got, tokenjson.Response{}) {
				t.Errorf("got %+v beside an error", got)
			}
		})
	}
}

func TestErrorCode(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":"invalid_grant","error_description":"x"}`: "invalid_grant",
		"\xef\xbb\xbf" + `{"error":"invalid_grant"}`:        "invalid_grant",
		`{"error":{"code":401}}`:                            "",
		`{"error":null}`:                                    "",
		`{}`:                                                "",
		`[]`:                                                "",
		`<html>`:                                            "",
		"error=invalid_grant&error_description=x\n": "invalid_grant",
		"an error=invalid_grant":                    "",
		"<a href=?a=b&error=invalid_grant&c>":       "",
		``:                                          "",
	} {
		if got := tokenjson.ErrorCode([]byte(body)); got != want {
			t.Errorf("%s: got %q, want %q", body, got, want)
		}
	}
}

func TestCheckPath(t *testing.T) {
	for _, p := range []string{"a", "a.b", "data.0.token", "a b", "ä"} {
		if err := tokenjson.CheckPath(p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	for _, p := range []string{"", ".", ".a", "a.", "a..b"} {
		if tokenjson.CheckPath(p) == nil {
			t.Errorf("%q: want an error", p)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range good {
		f.Add(tt.body, tt.fields.Token, tt.fields.ExpiresIn, tt.fields.ExpiresAt)
	}
	for _, tt := range bad {
		if len(tt.body) > 1<<10 {
			continue // its mutations would take all the time
		}
		f.Add(tt.body, tt.fields.Token, tt.fields.ExpiresIn, tt.fields.ExpiresAt)
	}
	f.Fuzz(func(t *testing.T, body, token, in, at string) {
		r, err := tokenjson.Parse([]byte(body), tokenjson.Fields{Token: token, ExpiresIn: in, ExpiresAt: at}, tokenjson.Clock{Now: now})
		if err != nil {
			return
		}
		if r.Token == "" {
			t.Error("an empty token")
		}
		if !r.Expiry.IsZero() && (!r.Expiry.After(now) || r.Expiry.After(now.Add(century))) {
			t.Errorf("an expiry of %v", r.Expiry)
		}
		// What is extra can be stored and read again.
		text, err := json.Marshal(r.Extra)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Token) > 8 && has(r.Extra, r.Token) || len(r.Refresh) > 8 && has(r.Extra, r.Refresh) {
			t.Errorf("a secret in %s", text)
		}
	})
}

// has reports whether s is a name or a string anywhere in v.
func has(v any, s string) bool {
	switch v := v.(type) {
	case string:
		return v == s
	case map[string]any:
		for k, w := range v {
			if k == s || has(w, s) {
				return true
			}
		}
	case []any:
		for _, w := range v {
			if has(w, s) {
				return true
			}
		}
	}
	return false
}

// A path finds what was put at its place, whatever the names are.
func FuzzFieldPath(f *testing.F) {
	f.Add("auth", "client_token", "x")
	f.Add("data", "0", "")
	f.Add("a.b", "c", "c")
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, outer, inner, other string) {
		path := outer + "." + inner
		if outer == "" || outer == "none" || inner == "" || strings.Contains(outer, ".") || other == path || other == inner {
			t.Skip()
		}
		body, err := json.Marshal(map[string]any{outer: map[string]any{inner: "the token", other: "another"}})
		if err != nil {
			t.Fatal(err)
		}
		if strings.ToValidUTF8(path, "") != path || strings.ToValidUTF8(other, "") != other {
			t.Skip() // json.Marshal replaces what isn't UTF-8
		}
		r, err := tokenjson.Parse(body, tokenjson.Fields{Token: path, ExpiresIn: "none", ExpiresAt: "none", Refresh: "none", Type: "none"}, tokenjson.Clock{Now: now})
		if err != nil || r.Token != "the token" {
			t.Errorf("%s: %q: got %q, %v", body, path, r.Token, err)
		}
	})
}
