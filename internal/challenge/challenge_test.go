package challenge

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/http"
	"regexp"
	"runtime"
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
	assert.Empty(t, BearerError(header(line, line, "Bearer error=e")))

	// The 64th keeps its parameters.
	got = Parse(header(strings.Repeat("Basic, ", 63) + "Bearer error=e, x=y, Basic, z=1"))
	assert.Len(t, got, 64)
	assert.Equal(t, params{"error": "e", "x": "y"}, got[63].Params)
}

// A server that sends a hundred thousand parameters, or as many challenges, gets no
// memory for them.
func TestWhatOneResponseCostsIsBounded(t *testing.T) {
	many := func(sep string, n int) string {
		var b strings.Builder
		b.WriteString("Bearer x=1")
		for i := range n {
			fmt.Fprintf(&b, "%sa%d=1", sep, i)
		}
		return b.String()
	}
	for name, lines := range map[string][]string{
		"parameters":             {many(",", 1e5)},
		"challenges":             {many(", Bearer ", 1e5)},
		"lines":                  slices.Repeat([]string{"Bearer error=invalid_token"}, 1e5),
		"a long value":           {`Bearer error="` + strings.Repeat(`\a`, 1<<20) + `"`},
		"a long token":           {"Bearer " + strings.Repeat("a", 1<<20)},
		"a long scheme":          {strings.Repeat("a", 1<<20)},
		"commas":                 {strings.Repeat(",", 1<<20)},
		"parameters of all":      {strings.Repeat(many(",", 100)+", ", 100)},
		"escaped values":         {"Bearer " + strings.Repeat(`a="\a\b", `, 1e6)},
		"as much as is read":     {"Bearer x=1" + strings.Repeat(",a=1", 32<<10-3)},
		"many lines of a letter": slices.Repeat([]string{"a"}, 1e5),
	} {
		h := header(lines...)
		// The least of several: the runtime's own goroutines allocate, too, now and then.
		costs := func(f func()) uint64 {
			least := uint64(math.MaxUint64)
			for range 5 {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				f()
				runtime.ReadMemStats(&after)
				least = min(least, after.TotalAlloc-before.TotalAlloc)
			}
			return least
		}
		if got := costs(func() { VerdictOf(h) }); got > 1<<10 {
			t.Errorf("%s: VerdictOf allocates %d bytes", name, got)
		}
		if got := costs(func() { BearerError(h) }); got > maxBytes {
			t.Errorf("%s: BearerError allocates %d bytes", name, got)
		}
		if got := costs(func() { Parse(h) }); got > 8*maxBytes {
			t.Errorf("%s: Parse allocates %d bytes", name, got)
		}
	}
}

func TestChallengeIsReadWithinItsBounds(t *testing.T) {
	filler := strings.Repeat("x", maxBytes)
	for name, tt := range map[string]struct {
		lines []string
		want  []Challenge
	}{
		"cut within a value":  {[]string{"Bearer a=b, error=" + filler}, []Challenge{{Scheme: "Bearer", Params: params{"a": "b"}}}},
		"cut within a quote":  {[]string{`Bearer a=b, error="x,` + filler + `"`}, []Challenge{{Scheme: "Bearer", Params: params{"a": "b"}}}},
		"cut within a scheme": {[]string{"Bearer a=b, " + filler}, []Challenge{{Scheme: "Bearer", Params: params{"a": "b"}}}},
		"nothing after that":  {[]string{"Bearer a=" + filler, "Basic"}, nil},
		"a second line that fits": {[]string{"Negotiate " + filler[:64<<10], "Basic a=b"},
			[]Challenge{{Scheme: "Negotiate", Token68: filler[:64<<10]}, {Scheme: "Basic", Params: params{"a": "b"}}}},
		"a second line that doesn't": {[]string{"Negotiate " + filler[:100<<10], "Basic a=b, c=" + filler[:50<<10]},
			[]Challenge{{Scheme: "Negotiate", Token68: filler[:100<<10]}, {Scheme: "Basic", Params: params{"a": "b"}}}},
	} {
		assert.Equal(t, tt.want, Parse(header(tt.lines...)), name)
	}
	last := Parse(header("Bearer " + strings.Repeat("a=1, ", 63) + "error=e, y=z"))[0].Params
	assert.Equal(t, params{"a": "1", "error": "e"}, last)
}

func TestBearerError(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"no header", nil, ""},
		{"no error", []string{`Bearer realm="x"`}, ""},
		{"empty error", []string{`Bearer error=""`}, ""},
		{"of another scheme", []string{`Digest error="invalid_token", Basic error=e`}, ""},
		{"of DPoP", []string{`DPoP algs="ES256", error="invalid_token"`}, "invalid_token"},
		{"as token68", []string{`Bearer error=`}, ""},
		{"in a value", []string{`Bearer realm="Bearer error=insufficient_scope"`}, ""},
		{"one", []string{`bearer realm="x", ERROR="insufficient_scope"`}, "insufficient_scope"},
		{"behind others", []string{"Negotiate", `Basic realm="x, y", Bearer, Bearer error=invalid_token`}, "invalid_token"},
		{"several", []string{`Bearer error=invalid_token, Bearer error=insufficient_scope`, `Bearer error=x`}, "invalid_token"},
		{"the first of a name", []string{`Bearer error="", error=x`}, ""},
		{"escaped", []string{`Bearer error="\i\nvalid_toke\n"`}, "invalid_token"},
		{"before the malformed", []string{`Bearer error="insufficient_scope", scope="a`}, "insufficient_scope"},
	} {
		assert.Equal(t, c.want, BearerError(header(c.lines...)), c.name)
	}
}

func TestVerdictOf(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  Verdict
	}{
		{"no header", nil, Refused},
		{"no error", []string{`Bearer realm="x"`}, Refused},
		{"another error", []string{`Bearer error="invalid_token"`}, Refused},
		{"scope", []string{`Bearer error="insufficient_scope"`}, Insufficient},
		{"step-up (RFC 9470)", []string{`Bearer error="insufficient_user_authentication", acr_values="mfa", max_age=5`}, Insufficient},
		{"step-up for DPoP", []string{`DPoP error="insufficient_user_authentication"`}, Insufficient},
		{"a nonce for DPoP (RFC 9449)", []string{`DPoP error="use_dpop_nonce", error_description="nonce wanted"`}, NoNonce},
		{"a nonce beside another scheme", []string{`Bearer error="invalid_token"`, `DPoP error=use_dpop_nonce`}, NoNonce},
		{"a nonce and claims", []string{`Bearer claims="e30="`, `DPoP error=use_dpop_nonce`, `Bearer claims="e30="`}, NoNonce},
		{"a nonce and a scope", []string{`DPoP error=use_dpop_nonce`, `Bearer error=insufficient_scope`}, Insufficient},
		{"in another case", []string{`Bearer error="INSUFFICIENT_SCOPE"`}, Refused},
		{"of another scheme", []string{`Basic error="insufficient_scope", claims="e30="`}, Refused},
		{"in a value", []string{`Bearer realm="Bearer error=insufficient_scope, claims=x"`}, Refused},
		{"any of several", []string{`Bearer error=invalid_token, Bearer error=insufficient_scope`, `Bearer error=x`}, Insufficient},
		{"claims (Microsoft)", []string{`Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="`}, OtherClaims},
		{"claims without an error", []string{`Bearer claims="e30="`}, OtherClaims},
		{"claims before the error", []string{`Bearer claims="e30=", error="insufficient_claims"`}, OtherClaims},
		{"no claims in it", []string{`Bearer error="insufficient_claims"`}, Refused},
		{"empty claims", []string{`Bearer error="insufficient_claims", claims=""`}, Refused},
		{"claims for a bad token", []string{`Bearer error="invalid_token", claims="e30="`}, Refused},
		{"claims and a scope", []string{`Bearer claims="e30=", Bearer error="insufficient_scope"`}, Insufficient},
		{"a scope and claims", []string{`Bearer error="insufficient_scope"`, `Bearer claims="e30="`}, Insufficient},
	} {
		assert.Equal(t, c.want, VerdictOf(header(c.lines...)), c.name)
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
		var code string
		verdict := Refused
		for _, c := range got {
			if !strings.EqualFold(c.Scheme, "Bearer") && !strings.EqualFold(c.Scheme, "DPoP") {
				continue
			}
			code = cmp.Or(code, c.Params["error"])
			switch e := c.Params["error"]; {
			case e == "insufficient_scope" || e == "insufficient_user_authentication":
				verdict = Insufficient
			case e == "use_dpop_nonce":
				verdict = max(verdict, NoNonce)
			case c.Params["claims"] != "" && e != "invalid_token":
				verdict = max(verdict, OtherClaims)
			}
		}
		assert.Equal(t, code, BearerError(h))
		assert.Equal(t, verdict, VerdictOf(h))
	})
}
