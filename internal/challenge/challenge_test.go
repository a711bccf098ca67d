package challenge

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func header(lines ...string) http.Header { return http.Header{"Www-Authenticate": lines} }

type params = map[string]string

var parseCases = []struct {
	name  string
	lines []string
	want  []Challenge
}{
	{"no header", nil, nil},
	{"empty", []string{""}, nil},
	{"empty elements only", []string{" , ,\t,"}, nil},
	{"scheme alone", []string{"Negotiate"}, []Challenge{{Scheme: "Negotiate"}}},
	{"scheme and space", []string{" Negotiate "}, []Challenge{{Scheme: "Negotiate"}}},
	{"scheme as sent", []string{"bEARER"}, []Challenge{{Scheme: "bEARER"}}},
	{"quoted string", []string{`Bearer realm="a, b=c"`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "a, b=c"}}}},
	{"token value", []string{`Bearer error=invalid_token`}, []Challenge{{Scheme: "Bearer", Params: params{"error": "invalid_token"}}}},
	{"empty quoted string", []string{`Bearer realm=""`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": ""}}}},
	{"quoted pairs", []string{`Bearer realm="a\"b\\c\d", error="e"`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": `a"b\cd`, "error": "e"}}}},
	{"a pair at each end", []string{`Bearer realm="\"\""`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": `""`}}}},
	{"tab and beyond ASCII", []string{"Bearer realm=\"a\tb\xe9ü\""}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "a\tb\xe9ü"}}}},
	{"names in any case", []string{`Bearer ERROR="E", Error_Description=D`}, []Challenge{{Scheme: "Bearer", Params: params{"error": "E", "error_description": "D"}}}},
	{"the first of a name", []string{`Bearer error=a, Error=b`}, []Challenge{{Scheme: "Bearer", Params: params{"error": "a"}}}},
	{"space around = and commas", []string{"Bearer  realm = \"x\"\t,\terror\t=\te ,x=y"}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "x", "error": "e", "x": "y"}}}},
	{"empty elements", []string{`, Bearer , ,realm=x,, ,Basic,`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "x"}}, {Scheme: "Basic"}}},

	{"token68", []string{"Negotiate YII-._~+/09=="}, []Challenge{{Scheme: "Negotiate", Token68: "YII-._~+/09=="}}},
	{"token68 without =", []string{"NTLM abc"}, []Challenge{{Scheme: "NTLM", Token68: "abc"}}},
	{"token68 with one =", []string{"NTLM abc= , Basic realm=x"}, []Challenge{{Scheme: "NTLM", Token68: "abc="}, {Scheme: "Basic", Params: params{"realm": "x"}}}},
	{"not a token68", []string{"NTLM a=b"}, []Challenge{{Scheme: "NTLM", Params: params{"a": "b"}}}},
	{"= alone is no token68", []string{"NTLM =="}, nil},

	{"several in a line (RFC 9110)", []string{`Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\""`}, []Challenge{
		{Scheme: "Basic", Params: params{"realm": "simple"}},
		{Scheme: "Newauth", Params: params{"realm": "apps", "type": "1", "title": `Login to "apps"`}},
	}},
	{"without parameters between", []string{`Negotiate, NTLM, Bearer error=e, Negotiate abc, Basic`}, []Challenge{
		{Scheme: "Negotiate"}, {Scheme: "NTLM"}, {Scheme: "Bearer", Params: params{"error": "e"}}, {Scheme: "Negotiate", Token68: "abc"}, {Scheme: "Basic"},
	}},
	{"several lines", []string{`Basic realm="x"`, "", `Bearer error=e`}, []Challenge{
		{Scheme: "Basic", Params: params{"realm": "x"}}, {Scheme: "Bearer", Params: params{"error": "e"}},
	}},

	{"unclosed quote", []string{`Bearer error=e, realm="x`, `Basic`}, []Challenge{{Scheme: "Bearer", Params: params{"error": "e"}}, {Scheme: "Basic"}}},
	{"unfinished pair", []string{`Bearer error=e, realm="x\`}, []Challenge{{Scheme: "Bearer", Params: params{"error": "e"}}}},
	{"quote closed by a pair", []string{`Bearer realm="x\"`}, []Challenge{{Scheme: "Bearer"}}},
	{"control in a quote", []string{"Bearer error=e, realm=\"a\x00b\", x=y"}, []Challenge{{Scheme: "Bearer", Params: params{"error": "e"}}}},
	{"control in a pair", []string{"Bearer error=e, realm=\"a\\\nb\", x=y"}, []Challenge{{Scheme: "Bearer", Params: params{"error": "e"}}}},
	{"no comma between", []string{`Bearer realm="x" error=e`}, []Challenge{{Scheme: "Bearer"}}},
	{"no comma after", []string{`Bearer a=b, realm="x"y, error=e`}, []Challenge{{Scheme: "Bearer", Params: params{"a": "b"}}}},
	{"two words", []string{`Bearer a b, Basic`}, []Challenge{{Scheme: "Bearer"}}},
	{"no value", []string{`Bearer a=b, realm=, error=e`}, []Challenge{{Scheme: "Bearer", Params: params{"a": "b"}}}},
	{"value not a token", []string{`Bearer a=b, scope=x/y, error=e`}, []Challenge{{Scheme: "Bearer", Params: params{"a": "b"}}}},
	{"parameter after token68", []string{`Foo abc=, error=e`}, []Challenge{{Scheme: "Foo", Token68: "abc="}}},
	{"parameter without a scheme", []string{`error=e, Bearer`, `error = e`, `Basic`}, []Challenge{{Scheme: "Basic"}}},
	{"scheme not a token", []string{`Basic, Bea/rer error=e`}, []Challenge{{Scheme: "Basic"}}},
	{"quote behind the scheme", []string{`Bearer"x"`}, nil},
	{"junk", []string{`Bearer @`, "\x00", `"`, `\`, `(Basic)`}, []Challenge{{Scheme: "Bearer"}}},
}

func TestParse(t *testing.T) {
	for _, c := range parseCases {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, Parse(header(c.lines...)))
		})
	}
	assert.Nil(t, Parse(nil))
}

func TestAtMost64Challenges(t *testing.T) {
	line := strings.Repeat("Basic, ", 40)
	got := Parse(header(line, line+"Bearer error=e", "Bearer error=e"))
	assert.Len(t, got, 64)
	assert.False(t, HasBearerError(header(line, line, "Bearer error=e"), "e"))

	// The 64th keeps its parameters.
	got = Parse(header(strings.Repeat("Basic, ", 63) + "Bearer error=e, x=y, Basic, z=1"))
	assert.Len(t, got, 64)
	assert.Equal(t, params{"error": "e", "x": "y"}, got[63].Params)
}

func TestBearerErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		first string
		all   []string
	}{
		{"no header", nil, "", nil},
		{"no error", []string{`Bearer realm="x"`}, "", nil},
		{"empty error", []string{`Bearer error=""`}, "", nil},
		{"of another scheme", []string{`DPoP error="invalid_token", Basic error=e`}, "", nil},
		{"as token68", []string{`Bearer error=`}, "", nil},
		{"in a value", []string{`Bearer realm="Bearer error=insufficient_scope"`}, "", nil},
		{"one", []string{`bearer realm="x", ERROR="insufficient_scope"`}, "insufficient_scope", []string{"insufficient_scope"}},
		{"behind others", []string{"Negotiate", `Basic realm="x, y", Bearer, Bearer error=invalid_token`}, "invalid_token", []string{"invalid_token"}},
		{"several", []string{`Bearer error=invalid_token, Bearer error=insufficient_scope`, `Bearer error=x`}, "invalid_token", []string{"invalid_token", "insufficient_scope", "x"}},
		{"before the malformed", []string{`Bearer error="insufficient_scope", scope="a`}, "insufficient_scope", []string{"insufficient_scope"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := header(c.lines...)
			assert.Equal(t, c.first, BearerError(h))
			for _, code := range []string{"invalid_token", "insufficient_scope", "x", "", "INVALID_TOKEN"} {
				assert.Equal(t, slices.Contains(c.all, code), HasBearerError(h, code), code)
			}
		})
	}
}

// FuzzParse splits its input at line feeds. What can be read is valid, and
// survives being written and read again.
func FuzzParse(f *testing.F) {
	for _, c := range parseCases {
		f.Add(strings.Join(c.lines, "\n"))
	}
	token := regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	token68 := regexp.MustCompile(`^[-._~+/0-9A-Za-z]+=*$`)
	f.Fuzz(func(t *testing.T, in string) {
		h := header(strings.Split(in, "\n")...)
		got := Parse(h)
		if len(got) > maxChallenges {
			t.Fatalf("%d challenges", len(got))
		}
		written := ""
		for _, c := range got {
			if !token.MatchString(c.Scheme) {
				t.Errorf("scheme %q", c.Scheme)
			}
			if c.Token68 != "" && (!token68.MatchString(c.Token68) || c.Params != nil) {
				t.Errorf("token68 %q with %q", c.Token68, c.Params)
			}
			written += ", " + c.Scheme + " " + c.Token68
			comma := ""
			for _, name := range slices.Sorted(maps.Keys(c.Params)) {
				if !token.MatchString(name) || name != strings.ToLower(name) {
					t.Errorf("parameter %q", name)
				}
				written += fmt.Sprintf(`%s%s="%s"`, comma, name, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(c.Params[name]))
				comma = ", "
			}
		}
		assert.Equal(t, got, Parse(header(written)), written)
		if code := BearerError(h); code != "" && !HasBearerError(h, code) {
			t.Errorf("BearerError is %q, HasBearerError is false", code)
		}
	})
}
