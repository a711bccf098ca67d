package challenge

import (
	"encoding/base64"
	"fmt"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

const caeClaims = `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`

var askedCases = []struct {
	name  string
	lines []string
	want  params
}{
	{"no header", nil, nil},
	{"a refusal", []string{`Bearer error="invalid_token", scope="read"`}, nil},
	{"another scheme", []string{`Basic error="insufficient_scope", scope="read"`}, nil},
	{"scope", []string{`Bearer error="insufficient_scope", scope="read  write read"`}, params{"error": "insufficient_scope", "scope": "read write"}},
	{"no scope in it", []string{`Bearer error="insufficient_scope"`}, nil},
	{"nothing but odd scopes", []string{"Bearer error=\"insufficient_scope\", scope=\"\\\"a é\""}, nil},
	{"odd scopes beside good ones", []string{"Bearer error=\"insufficient_scope\", scope=\"a\tb good x\\\\y\""}, params{"error": "insufficient_scope", "scope": "good"}},
	{"step-up (RFC 9470)", []string{`Bearer error="insufficient_user_authentication", error_description="Log in again", acr_values="mfa phr", max_age="5"`},
		params{"error": "insufficient_user_authentication", "acr_values": "mfa phr", "max_age": "5"}},
	{"step-up for DPoP", []string{`DPoP error="insufficient_user_authentication", max_age=05`}, params{"error": "insufficient_user_authentication", "max_age": "5"}},
	{"step-up that says not which", []string{`Bearer error="insufficient_user_authentication"`}, nil},
	{"max_age that is none", []string{`Bearer error="insufficient_user_authentication", max_age="-1"`}, nil},
	{"max_age beyond a life", []string{`Bearer error="insufficient_user_authentication", max_age="9999999999"`}, nil},
	{"claims (Microsoft)", []string{`Bearer realm="", authorization_uri="https://login.test/authorize", error="insufficient_claims", claims="` + base64.StdEncoding.EncodeToString([]byte(caeClaims)) + `"`},
		params{"error": "insufficient_claims", "authorization_uri": "https://login.test/authorize", "claims": caeClaims}},
	{"claims in base64url", []string{`Bearer claims="` + base64.RawURLEncoding.EncodeToString([]byte(`{"a":"???>>>"}`)) + `"`}, params{"claims": `{"a":"???>>>"}`}},
	{"claims as they are", []string{`Bearer claims="{\"b\": 1.0, \"a\": null}"`}, params{"claims": `{"a":null,"b":1.0}`}},
	{"claims that are no object", []string{`Bearer claims="` + base64.StdEncoding.EncodeToString([]byte(`["a"]`)) + `"`}, nil},
	{"claims that are null", []string{`Bearer claims="bnVsbA=="`}, nil},
	{"claims with more behind", []string{`Bearer claims="` + base64.StdEncoding.EncodeToString([]byte(`{}{}`)) + `"`}, nil},
	{"claims that are no base64", []string{`Bearer claims="%%%"`}, nil},
	{"claims that are too long", []string{`Bearer claims="` + base64.StdEncoding.EncodeToString([]byte(`{"a":"`+strings.Repeat("x", 5000)+`"}`)) + `"`}, nil},
	{"protected resource metadata (RFC 9728)", []string{`Bearer error="insufficient_scope", scope="a", resource_metadata="https://api.test/.well-known/oauth-protected-resource"`},
		params{"error": "insufficient_scope", "scope": "a", "resource_metadata": "https://api.test/.well-known/oauth-protected-resource"}},
	{"URLs that lead nowhere", []string{`Bearer error="insufficient_scope", scope="a", resource_metadata="javascript:x", resource="//x"`}, params{"error": "insufficient_scope", "scope": "a"}},
	{"URLs with a secret or a fragment", []string{`Bearer error="insufficient_scope", scope="a", resource_metadata="https://u:p@x/", resource="https://x/#y"`}, params{"error": "insufficient_scope", "scope": "a"}},
	{"of several", []string{`Bearer error="insufficient_scope", scope="a", realm="1"`, `Basic realm="x", Bearer error="insufficient_scope", scope="b a", realm="2"`, `Bearer claims="{\"c\":1}"`},
		params{"error": "insufficient_scope", "scope": "a b", "realm": "1", "claims": `{"c":1}`}},
	{"others that are odd", []string{"Bearer error=\"insufficient_scope\", scope=a, realm=\"é\", x=\"a\tb\", y=\"\", z=\"" + strings.Repeat("z", 2000) + "\""}, params{"error": "insufficient_scope", "scope": "a"}},
}

func TestAskedIsWhatALoginCanAskFor(t *testing.T) {
	for _, c := range askedCases {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, Asked(header(c.lines...))) })
	}
}

func TestAskedIsBounded(t *testing.T) {
	var scopes, others strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&scopes, "scope-%d ", i)
		fmt.Fprintf(&others, ", other%d=x", i)
	}
	got := Asked(header(`Bearer error="insufficient_scope", scope="` + scopes.String() + `"` + others.String()))
	assert.LessOrEqual(t, len(got), maxAsked)
	assert.Len(t, strings.Fields(got["scope"]), maxWords)
	long := strings.Repeat("s", 3000)
	got = Asked(header(`Bearer error="insufficient_scope", scope="` + long + "1 " + long + `2"`))
	assert.Equal(t, long+"2", got["scope"])
}

func TestMergeAsksForAll(t *testing.T) {
	for _, c := range []struct {
		name                string
		before, later, want params
		covered             bool // what came later is asked for already
	}{
		{"nothing before", nil, params{"scope": "a"}, params{"scope": "a"}, false},
		{"scopes", params{"scope": "a b"}, params{"scope": "c a"}, params{"scope": "a b c"}, false},
		{"scopes asked for", params{"scope": "a b"}, params{"scope": "b"}, params{"scope": "a b"}, true},
		{"a shorter max_age", params{"max_age": "60"}, params{"max_age": "5"}, params{"max_age": "5"}, false},
		{"a longer max_age", params{"max_age": "60"}, params{"max_age": "3600"}, params{"max_age": "60"}, true},
		{"another acr", params{"acr_values": "mfa"}, params{"acr_values": "phr"}, params{"acr_values": "phr"}, false},
		{"beside each other", params{"scope": "a", "acr_values": "mfa"}, params{"claims": "{}"}, params{"scope": "a", "acr_values": "mfa", "claims": "{}"}, false},
		{"claims", params{"claims": `{"t":{"a":1,"b":1}}`}, params{"claims": `{"t":{"b":2,"c":3}}`}, params{"claims": `{"t":{"a":1,"b":2,"c":3}}`}, false},
		{"claims asked for", params{"claims": `{"t":{"a":1,"b":1},"u":0}`}, params{"claims": `{"t":{"b":1}}`}, params{"claims": `{"t":{"a":1,"b":1},"u":0}`}, true},
		{"claims in place of each other", params{"claims": `{"t":{"a":1}}`}, params{"claims": `{"t":null}`}, params{"claims": `{"t":null}`}, false},
		{"more claims than are sent", params{"claims": `{"a":"` + strings.Repeat("x", 4000) + `"}`}, params{"claims": `{"b":"` + strings.Repeat("x", 4000) + `"}`}, params{"claims": `{"b":"` + strings.Repeat("x", 4000) + `"}`}, false},
		{"nothing later", params{"scope": "a"}, nil, params{"scope": "a"}, true},
		{"nothing at all", nil, nil, nil, true},
	} {
		before, later := maps.Clone(c.before), maps.Clone(c.later)
		assert.Equal(t, c.want, Merge(c.before, c.later), c.name)
		assert.Equal(t, c.covered, Covers(c.before, c.later), c.name)
		assert.Equal(t, before, c.before, c.name)
		assert.Equal(t, later, c.later, c.name)
	}
}

// FuzzAsked takes two responses as FuzzParse takes one. What they ask for is bounded, has
// one spelling, and is covered once it is asked for.
func FuzzAsked(f *testing.F) {
	for i, c := range askedCases {
		f.Add(strings.Join(c.lines, "\n"), strings.Join(askedCases[(i+5)%len(askedCases)].lines, "\n"))
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		a, b := Lasting(Asked(header(strings.Split(first, "\n")...))), Lasting(Asked(header(strings.Split(second, "\n")...)))
		assert.Equal(t, a, Lasting(a))
		all := Merge(a, b)
		assert.Equal(t, all, Lasting(all))
		assert.True(t, Covers(all, b))
		for name, value := range all {
			if !lasting(name) || value == "" || len(value) > maxValue || !utf8.ValidString(value) {
				t.Errorf("%s: %q", name, value)
			}
		}
		if len(Asked(header(first))) > maxAsked {
			t.Error("too many")
		}
	})
}
