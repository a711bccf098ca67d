package match

import (
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// originCases are asked of Match with scheme and host as they would stand in
// a url.URL, and seed FuzzOrigins.
var originCases = []struct {
	spec, scheme, host string
	want               bool
}{
	{"https://api.example.com", "https", "api.example.com", true},
	{"https://api.example.com", "HTTPS", "API.Example.COM", true},
	{"HTTPS://API.Example.COM", "https", "api.example.com", true},
	{"https://api.example.com/", "https", "api.example.com", true},
	{"https://api_1.x-y.example", "https", "api_1.x-y.example", true},
	{"https://xn--bcher-kva.example", "https", "xn--bcher-kva.example", true},
	{"http://intranet", "http", "intranet", true},
	{"https://api.example.com", "http", "api.example.com", false},
	{"https://api.example.com", "http", "api.example.com:443", false},
	{"https://api.example.com", "ws", "api.example.com", false},
	{"https://api.example.com", "", "api.example.com", false},
	{"https://api.example.com", "https ", "api.example.com", false},
	{"https://api.example.com", "httpſ", "api.example.com", false},  // a long s, whose upper case is S
	{"https://k.example.com", "https", "\u212a.example.com", false}, // the Kelvin sign, whose lower case is k

	// Foreign hosts.
	{"https://api.example.com", "https", "", false},
	{"https://api.example.com", "https", "example.com", false},
	{"https://api.example.com", "https", "v1.api.example.com", false},
	{"https://api.example.com", "https", "api.example.com.evil.test", false},
	{"https://api.example.com", "https", "evil-api.example.com", false},
	{"https://api.example.com", "https", "apixexample.com", false},
	{"https://api.example.com", "https", "evil.test/api.example.com", false},
	{"https://api.example.com", "https", "api.example.com/evil.test", false},
	{"https://api.example.com", "https", "api.example.com@evil.test", false},
	{"https://api.example.com", "https", "evil.test@api.example.com", false},
	{"https://api.example.com", "https", `evil.test\api.example.com`, false},
	{"https://api.example.com", "https", "api.example.com ", false},
	{"https://api.example.com", "https", "api.example.com\x00", false},
	{"https://api.example.com", "https", "api.example.com\r\n", false},
	{"https://api.example.com", "https", "api%2eexample.com", false},
	{"https://api.example.com", "https", "[api.example.com]", false},
	{"https://api.example.com", "https", "api。example.com", false}, // an ideographic full stop
	{"https://api.example.com", "https", "ａpi.example.com", false}, // a wide a
	{"https://xn--bcher-kva.example", "https", "bücher.example", false},

	// Ports.
	{"https://api.example.com", "https", "api.example.com:443", true},
	{"https://api.example.com", "https", "api.example.com:", true},
	{"https://api.example.com", "https", "api.example.com:0443", true},
	{"https://api.example.com:443", "https", "api.example.com", true},
	{"https://api.example.com:", "https", "api.example.com", true},
	{"http://api.example.com:80", "http", "api.example.com", true},
	{"https://api.example.com:8443", "https", "api.example.com:8443", true},
	{"https://api.example.com:65535", "https", "api.example.com:65535", true},
	{"https://api.example.com:80", "https", "api.example.com", false},
	{"https://api.example.com:8443", "https", "api.example.com", false},
	{"https://api.example.com", "https", "api.example.com:8443", false},
	{"https://api.example.com", "https", "api.example.com:65979", false}, // 443 modulo 65536
	{"https://api.example.com", "https", "api.example.com:000443", false},
	{"https://api.example.com", "https", "api.example.com:0", false},
	{"https://api.example.com", "https", "api.example.com:+443", false},
	{"https://api.example.com", "https", "api.example.com:443:443", false},
	{"https://api.example.com", "https", "api.example.com:443@evil.test", false},
	{"https://api.example.com", "https", "api.example.com:https", false},
	{"https://api.example.com", "https", "api.example.com:４４３", false},

	// A dot at the end is another origin.
	{"https://api.example.com", "https", "api.example.com.", false},
	{"https://api.example.com.", "https", "api.example.com.", true},
	{"https://api.example.com.", "https", "api.example.com", false},
	{"https://api.example.com", "https", "api.example.com..", false},

	// Wildcards.
	{"https://*.example.com", "https", "api.example.com", true},
	{"https://*.example.com", "https", "v1.api.EXAMPLE.com:443", true},
	{"https://*.example.com:8443", "https", "api.example.com:8443", true},
	{"https://*.example.com.", "https", "api.example.com.", true},
	{"https://*.example.com", "https", "example.com", false},
	{"https://*.example.com", "https", ".example.com", false},
	{"https://*.example.com", "https", "a..example.com", false},
	{"https://*.example.com", "https", "*.example.com", false},
	{"https://*.example.com", "https", "evilexample.com", false},
	{"https://*.example.com", "https", "api.example.com.", false},
	{"https://*.example.com", "https", "api.example.com.evil.test", false},
	{"https://*.example.com", "https", "api.example.com:8443", false},
	{"https://*.example.com", "http", "api.example.com", false},
	{"https://*.example.com", "http", "api.example.com:443", false},
	{"https://*.example.com", "https", "bücher.example.com", false},
	{"https://*.example.com", "https", "evil.test/.example.com", false},
	{"https://*.example.com", "https", `evil.test\.example.com`, false},
	{"https://*.example.com", "https", "evil.test#.example.com", false},
	{"https://*.example.com", "https", "evil.test?.example.com", false},
	{"https://*.example.com", "https", "evil.test@a.example.com", false},
	{"https://*.example.com", "https", "evil.test:443.example.com", false},
	{"https://*.example.com", "https", "evil.test／.example.com", false},
	{"https://*.example.com", "https", "[::1].example.com", false},

	// Addresses.
	{"http://10.0.0.1:8080", "http", "10.0.0.1:8080", true},
	{"http://10.0.0.1", "http", "10.1", false},
	{"http://10.0.0.1", "http", "010.0.0.1", false},
	{"http://10.0.0.1", "http", "10.0.0.1.", false},
	{"http://10.0.0.1", "http", "167772161", false},
	{"http://10.0.0.1", "http", "0xa000001", false},
	{"http://10.0.0.1", "http", "[::ffff:10.0.0.1]", false},
	{"http://[::1]", "http", "[::1]", true},
	{"http://[::1]:8080", "http", "[0:0:0:0:0:0:0:1]:8080", true},
	{"http://[2001:DB8:0:0::1]", "http", "[2001:db8::1]:80", true},
	{"http://[::ffff:10.0.0.1]", "http", "[::ffff:a00:1]", true},
	{"http://[::1]", "http", "::1", false},
	{"http://[::1]", "http", "[::1", false},
	{"http://[::1]", "http", "[::1]8080", false},
	{"http://[::1]", "http", "[::1]:x", false},
	{"http://[::1]", "http", "[::1].evil.test", false},
	{"http://[::1]", "http", "[[::1]]", false},
	{"http://[::1]", "http", "[]", false},
	{"http://[::1]", "http", "[10.0.0.1]", false},
	{"http://[fe80::1%25eth0]", "http", "[fe80:0::1%eth0]", true},
	{"http://[fe80::1%25eth0]", "http", "[fe80::1%eth1]", false},
	{"http://[fe80::1%25eth0]", "http", "[fe80::1%ETH0]", false},
	{"http://[fe80::1%25eth0]", "http", "[fe80::1]", false},
	{"http://[fe80::1]", "http", "[fe80::1%eth0]", false},
	{"http://[fe80::1]", "http", "[fe80::1%]", false},

	// Any.
	{"*", "https", "api.example.com:8443", true},
	{"*", "HTTP", "bücher.example", true},
	{"*", "http", "127.1", true},
	{"*", "http", "[fe80::1%eth0]", true},
	{"*", "ftp", "api.example.com", false},
	{"*", "", "api.example.com", false},
	{"*", "https", "", false},
	{"*", "https", ":443", false},
	{"*", "https", "api.example.com:0", false},
	{"*", "https", "a b", false},
	{"*", "https", "a@b", false},
	{"*", "https", "[::1", false},
	{"*", "https", "[fe80::1%a/b]", false},
}

func TestOriginMatches(t *testing.T) {
	for _, c := range originCases {
		t.Run(c.spec+" "+c.scheme+"://"+c.host, func(t *testing.T) {
			o, err := ParseOrigins([]string{"https://other.test", c.spec})
			require.NoError(t, err)
			assert.Equal(t, c.want, o.Match(&url.URL{Scheme: c.scheme, Host: c.host, Path: "/p"}), "Match")
			assert.Equal(t, c.want, o.MatchHost(c.scheme, c.host), "MatchHost")
			assert.False(t, o.Match(&url.URL{Scheme: c.scheme, Host: c.host, Opaque: "//x/y"}), "with Opaque")
		})
	}
}

func TestOriginOfParsedURL(t *testing.T) {
	o, err := ParseOrigins([]string{"https://api.example.com", "http://[fe80::1%25eth0]:8080"})
	require.NoError(t, err)
	for raw, want := range map[string]bool{
		"https://api.example.com/v1?q#f":            true,
		"https://user:pass@api.example.com/":        true,
		"https://api.example.com@evil.test/":        false,
		"http://[fe80::1%25eth0]:8080/":             true,
		"//api.example.com/":                        false,
		"/v1":                                       false,
		"https:api.example.com":                     false,
		"https:///api.example.com":                  false,
		"https://evil.test/https://api.example.com": false,
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		assert.Equal(t, want, o.Match(u), raw)
	}
	assert.False(t, o.Match(nil))
}

func TestEmptyOriginsMatchNothing(t *testing.T) {
	empty, err := ParseOrigins(nil)
	require.NoError(t, err)
	for _, o := range []*Origins{nil, empty, {}} {
		assert.False(t, o.Any())
		assert.False(t, o.Match(&url.URL{Scheme: "https", Host: "api.example.com"}))
		assert.False(t, o.MatchHost("https", "api.example.com"))
	}
}

func TestAnyIsTheStarOnly(t *testing.T) {
	for specs, want := range map[string]bool{"*": true, "https://h *": true, "https://*.example.com": false} {
		o, err := ParseOrigins(strings.Fields(specs))
		require.NoError(t, err)
		assert.Equal(t, want, o.Any(), specs)
	}
}

var badOrigins = []struct{ spec, reason string }{
	{"", "empty"},
	{" ", "no scheme"},
	{"api.example.com", "no scheme"},
	{"api.example.com:443", "no scheme"},
	{"//api.example.com", "no scheme"},
	{"https:api.example.com", "no scheme"},
	{"://api.example.com", "scheme must be"},
	{"ftp://api.example.com", "scheme must be"},
	{"*://api.example.com", "scheme must be"},
	{" https://api.example.com", "scheme must be"},
	{"https://", "host is empty"},
	{"https:///", "host is empty"},
	{"https://:443", "host is empty"},
	{"https://*.", "host is empty"},
	{"https://api.example.com/v1", "path"},
	{"https://api.example.com//", "path"},
	{"https://api.example.com?", "query"},
	{"https://api.example.com/?a=b", "query"},
	{"https://api.example.com#", "fragment"},
	{"https://api.example.com/#a", "fragment"},
	{"https://user@api.example.com", "user info"},
	{"https://api.example.com:x", "port"},
	{"https://api.example.com:0", "port"},
	{"https://api.example.com:65536", "port"},
	{"https://api.example.com:*", "wildcard"},
	{"https://::1", "brackets"},
	{"https://[::1", "no ]"},
	{"https://[::1]x", "port"},
	{"https://[1.2.3.4]", "IPv6"},
	{"https://[fe80::1%eth0]", "%25"},
	{"https://[fe80::1%25]", "IPv6"},
	{"https://[fe80::1%25a%2fb]", "IPv6"},
	{"https://api.example.com ", "character"},
	{"https://api.example.com\\", "character"},
	{"https://api,example.com", "character"},
	{"https://%61pi.example.com", "character"},
	{"https://api..example.com", "empty label"},
	{"https://.example.com", "empty label"},
	{"https://.", "empty label"},
	{"https://bücher.example", "punycode"},
	{"https://[fe80::1%25ü]", "ASCII"},
	{"https://127.1", "four decimal"},
	{"https://1.2.3.4.", "four decimal"},
	{"https://256.1.1.1", "four decimal"},
	{"https://0x7F000001", "four decimal"},
	{"https://a.0x", "four decimal"},
	{"https://*", "wildcard"},
	{"https://*.com", "two labels"},
	{"https://*.com.", "two labels"},
	{"https://*.1.2.3.4", "two labels"},
	{"https://*.[::1]", "two labels"},
	{"https://**.example.com", "wildcard"},
	{"https://*.*.example.com", "wildcard"},
	{"https://api.*.com", "wildcard"},
	{"https://a*.example.com", "wildcard"},
	{"**", "no scheme"},
}

func TestBadOriginsAreAllNamed(t *testing.T) {
	var all []string
	for _, c := range badOrigins {
		o, err := ParseOrigins([]string{"https://fine.test", c.spec})
		if assert.Error(t, err, c.spec) {
			assert.Contains(t, err.Error(), c.reason, c.spec)
		}
		assert.Nil(t, o)
		all = append(all, c.spec)
	}
	_, err := ParseOrigins(all)
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok)
	require.Len(t, joined.Unwrap(), len(all))
	for i, err := range joined.Unwrap() {
		if !strings.ContainsAny(all[i], "@?#") {
			assert.Contains(t, err.Error(), strconv.Quote(all[i]))
		}
	}
}

func TestErrorsDoNotRepeatSecrets(t *testing.T) {
	for _, spec := range []string{
		"https://user:hush@api.example.com",
		"https://user:hush@api.example.com/p",
		"https://user:hu/hush@api.example.com",
		"https://user:hu?hush@api.example.com",
		"https://user:hu#hush@api.example.com",
		"https://user:hush@hush@api.example.com",
		"user:hush@api.example.com",
		"//user:hush@api.example.com",
		"ftp://user:hush@api.example.com",
		"https://api.example.com?key=hush",
		"https://api.example.com/p?key=hush",
		"https://api.example.com#hush",
	} {
		_, err := ParseOrigins([]string{spec})
		require.Error(t, err, spec)
		assert.NotContains(t, err.Error(), "hush", spec)
		assert.Contains(t, err.Error(), "api.example.com", spec)

		_, err = ParsePaths(spec, []string{spec, "/p?key=hush"})
		require.Error(t, err, spec)
		assert.NotContains(t, err.Error(), "hush", spec)
	}
}

func TestSameOrigin(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"https://h/a", "https://h/b?c#d", true},
		{"https://h", "HTTPS://user:pass@H:443", true},
		{"http://h:", "http://h:80", true},
		{"http://[::1]:80", "http://[0::0:1]", true},
		{"http://bücher.example/a", "http://bücher.EXAMPLE/b", true},
		{"http://127.1", "http://127.1", true},
		{"https://h", "http://h", false},
		{"https://h", "https://h:444", false},
		{"https://h", "https://h.", false},
		{"https://h", "https://a.h", false},
		{"http://bücher.example", "http://xn--bcher-kva.example", false},
		{"http://127.1", "http://127.0.0.1", false},
		{"http://[::ffff:127.0.0.1]", "http://127.0.0.1", false},
		{"http://[fe80::1%25a]", "http://[fe80::1%25b]", false},
		{"/a", "/a", false},
		{"//h/a", "//h/a", false},
		{"https:///a", "https:///a", false},
		{"https:h", "https:h", false},
		{"ftp://h", "ftp://h", false},
	} {
		a, err := url.Parse(c.a)
		require.NoError(t, err)
		b, err := url.Parse(c.b)
		require.NoError(t, err)
		assert.Equal(t, c.want, Same(a, b), "%s %s", c.a, c.b)
		assert.Equal(t, c.want, Same(b, a), "%s %s", c.b, c.a)
	}
	u := &url.URL{Scheme: "https", Host: "h"}
	assert.False(t, Same(nil, nil))
	assert.False(t, Same(u, nil))
	assert.False(t, Same(nil, u))
	opaque := &url.URL{Scheme: "https", Host: "h", Opaque: "//h/"}
	assert.False(t, Same(u, opaque))
	assert.False(t, Same(opaque, u))
}

func TestLoopback(t *testing.T) {
	proxied := withProxy(t)
	for host, want := range map[string]bool{
		"localhost":              true,
		"localhost:":             true,
		"LocalHost:8080":         false,
		"LOCALHOST":              false,
		"127.0.0.1":              true,
		"127.255.0.9:80":         true,
		"[::1]":                  true,
		"[0:0:0:0:0:0:0:1]:8080": true,
		"[::ffff:127.0.0.1]":     true,
		"[::FFFF:7f00:1]":        true,
		"":                       false,
		"localhost.":             false,
		"LocalHost.":             false,
		"localhost.evil.com":     false,
		"a.localhost":            false,
		"notlocalhost":           false,
		"localhost.localdomain":  false,
		"localhost@evil.test":    false,
		"localhost:x":            false,
		"ⅼocalhost":              false,
		"loca\u212ahost":         false,
		"127.1":                  false,
		"0x7f.1":                 false,
		"127.0.0.1.":             false,
		"127.0.0.01":             false,
		"127.0.0.1.evil.com":     false,
		"0177.0.0.1":             false,
		"2130706433":             false,
		"0x7f000001":             false,
		"0.0.0.0":                false,
		"128.0.0.1":              false,
		"10.0.0.1":               false,
		"[::]":                   false,
		"[::2]":                  false,
		"[::1%lo]":               false,
		"[::127.0.0.1]":          false,
		"[::ffff:128.0.0.1]":     false,
		"[127.0.0.1]":            false,
		"::1":                    false,
	} {
		u := &url.URL{Scheme: "http", Host: host}
		assert.Equal(t, want, Loopback(u), "%q", host)
		assert.False(t, want && proxied(u), "%q goes to a proxy", host)
		// Known beforehand, if it is one of the set, and no other rule.
		set, _ := ParseOrigins([]string{"http://other.test", "http://" + host})
		assert.Equal(t, want, set.Loopback(u), "%q in the set", host)
		u.Opaque = "//" + host
		assert.False(t, set.Loopback(u), "%q, opaque", host)
	}
	assert.False(t, Loopback(nil))
	set, _ := ParseOrigins([]string{"http://localhost"})
	assert.False(t, set.Loopback(nil))
	assert.False(t, Loopback(&url.URL{Host: "localhost"}))
	assert.False(t, Loopback(&url.URL{Scheme: "http", Host: "localhost", Opaque: "//localhost/"}))
}

// withProxy sets a proxy for the whole process, and returns whether net/http sends
// a request through the proxy. net/http reads the environment once.
func withProxy(t testing.TB) func(*url.URL) bool {
	for _, name := range []string{"HTTP_PROXY", "http_proxy"} {
		t.Setenv(name, "http://proxy.test:3128")
	}
	for _, name := range []string{"NO_PROXY", "no_proxy", "REQUEST_METHOD"} {
		t.Setenv(name, "")
	}
	proxied := func(u *url.URL) bool {
		proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u})
		return proxy != nil || err != nil
	}
	if !proxied(&url.URL{Scheme: "http", Host: "host.test"}) {
		t.Fatal("no request goes to the proxy")
	}
	return proxied
}

// FuzzOrigins checks the parser and Match against the rule as saysOrigin has
// it, which goes by net/url and regular expressions.
func FuzzOrigins(f *testing.F) {
	for _, c := range originCases {
		f.Add(c.spec, c.scheme, c.host)
	}
	for _, c := range badOrigins {
		f.Add(c.spec, "https", "api.example.com")
	}
	proxied := withProxy(f)
	f.Fuzz(func(t *testing.T, spec, scheme, host string) {
		o, err := ParseOrigins([]string{spec})
		if err != nil {
			if o != nil {
				t.Fatal("origins and an error")
			}
			return
		}

		// What the spec itself spells matches.
		if own, err := url.Parse(strings.Replace(spec, "://*.", "://a.b.", 1)); spec != "*" && (err != nil || !o.Match(own)) {
			t.Errorf("%q doesn't match itself: %v", spec, err)
		}

		u := &url.URL{Scheme: scheme, Host: host}
		got := o.Match(u)
		if got != o.MatchHost(scheme, host) {
			t.Errorf("Match and MatchHost differ")
		}
		if want := saysOrigin(spec, scheme, host); got != want {
			t.Errorf("%q: Match(%q, %q) = %v, want %v", spec, scheme, host, got, want)
		}
		if got && !Same(u, u) {
			t.Errorf("%q, %q isn't the same as itself", scheme, host)
		}
		if Loopback(u) && !loopbackHost.MatchString(host) {
			t.Errorf("%q is loopback", host)
		}
		if Loopback(u) && proxied(&url.URL{Scheme: "http", Host: host}) {
			t.Errorf("%q is loopback and goes to a proxy", host)
		}
		if Loopback(u) != o.Loopback(u) {
			t.Errorf("%q, %q is loopback only to the set or only without", scheme, host)
		}
	})
}

var (
	loopbackHost = regexp.MustCompile(`^(?:localhost|127(?:\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?$`)
	anyHost      = regexp.MustCompile(`^(?:[-_.A-Za-z0-9]|[^\x00-\x7f])+$`)
	clearName    = regexp.MustCompile(`^(?:[-_A-Za-z0-9]+\.)*[-_A-Za-z0-9]+\.?$`)
	numberLike   = regexp.MustCompile(`(?:^|\.)(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?$`)
	wholePort    = regexp.MustCompile(`^0{0,4}[1-9][0-9]*$`)
)

// saysOrigin is the rule over again: spec, which has been parsed, and the
// URL are brought to one spelling of host and port, and compared.
func saysOrigin(spec, scheme, host string) bool {
	scheme = asciiLower(scheme)
	if scheme != "http" && scheme != "https" {
		return false
	}
	gotHost, gotPort, name, ok := spelling(scheme, host)
	if !ok || spec == "*" {
		return ok
	}
	su, err := url.Parse(strings.Replace(spec, "://*.", "://", 1))
	if err != nil {
		return false
	}
	wantHost, wantPort, _, ok := spelling(su.Scheme, su.Host)
	if !ok || su.Scheme != scheme || wantPort != gotPort {
		return false
	}
	if !strings.Contains(spec, "://*.") {
		return gotHost == wantHost
	}
	return name && clearName.MatchString(gotHost) && strings.HasSuffix(gotHost, "."+wantHost)
}

func spelling(scheme, hostport string) (host, port string, name, ok bool) {
	// net/url splits at the last colon that digits follow, and has no
	// word on whether the rest is a host.
	u := &url.URL{Host: hostport}
	host, port = u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || len(port) > 5 || !wholePort.MatchString(port) {
		return "", "", false, false
	}
	port = strconv.FormatUint(n, 10)
	if strings.HasPrefix(hostport, "[") {
		ip, err := netip.ParseAddr(host)
		if err != nil || !strings.Contains(host, ":") || strings.ContainsAny(host, "[]") || ip.Zone() != "" && !anyHost.MatchString(ip.Zone()) {
			return "", "", false, false
		}
		return "[" + ip.String() + "]", port, false, true
	}
	if !anyHost.MatchString(strings.ToValidUTF8(host, "\ufffd")) {
		return "", "", false, false
	}
	return asciiLower(host), port, !numberLike.MatchString(host), true
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}
