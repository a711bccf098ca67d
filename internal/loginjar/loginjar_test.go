package loginjar_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/requestforge/requestforge/internal/loginjar"
)

func parsed(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func set(t testing.TB, jar http.CookieJar, from string, lines ...string) {
	t.Helper()
	h := http.Header{"Set-Cookie": lines}
	jar.SetCookies(parsed(t, from), (&http.Response{Header: h}).Cookies())
}

func at(t testing.TB, jar http.CookieJar, to string) string {
	t.Helper()
	var all []string
	for _, c := range jar.Cookies(parsed(t, to)) {
		all = append(all, c.String())
	}
	return strings.Join(all, "; ")
}

func reread(t testing.TB, jar *loginjar.Jar) *loginjar.Jar {
	t.Helper()
	text, err := jar.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := loginjar.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if twice, _ := again.Encode(); !bytes.Equal(text, twice) {
		t.Errorf("%s was written again as %s", text, twice)
	}
	return again
}

// A jar sends what a browser would, also after it was written down and read, or copied.
func TestCookiesGoWhereTheirDomainAndPathSay(t *testing.T) {
	jar := loginjar.New()
	set(t, jar, "https://login.example.co.uk/sso/form", "host=1", "dom=2; Domain=example.co.uk; Path=/", "path=3; Path=/api", "sec=4; Secure; Path=/", `quoted="a b"; Path=/`)
	set(t, jar, "https://login.example.co.uk/", "suffix=x; Domain=co.uk", "other=x; Domain=example.com", "big="+strings.Repeat("x", 5000))
	if n := jar.Len(); n != 5 {
		t.Errorf("%d cookies", n)
	}
	for name, j := range map[string]*loginjar.Jar{"itself": jar, "read": reread(t, jar), "copied": loginjar.New(nil, jar), "both": loginjar.New(reread(t, jar))} {
		for to, want := range map[string]string{
			"https://login.example.co.uk/sso/x": `host=1; dom=2; sec=4; quoted="a b"`,
			"http://login.example.co.uk/":       `dom=2; quoted="a b"`,
			"https://api.example.co.uk/api/x":   "dom=2",
			"https://login.example.co.uk/api":   `path=3; dom=2; sec=4; quoted="a b"`,
			"https://evil.co.uk/":               "",
			"https://example.com/":              "",
			"ftp://login.example.co.uk/":        "",
		} {
			if got := at(t, j, to); got != want {
				t.Errorf("%s: to %s: %q, want %q", name, to, got, want)
			}
		}
	}
}

// A cookie that is set again takes the place of the first, and one that is ended, or whose
// time is over, goes.
func TestCookiesAreReplacedAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jar := loginjar.New()
		const home = "https://h.example/a/b"
		set(t, jar, home, "a=1; Max-Age=60", "b=1; Path=/a", "c=1; Domain=h.example", "d=1; Expires="+time.Now().Add(2*time.Minute).UTC().Format(http.TimeFormat))
		set(t, jar, home, "b=2", "c=; Max-Age=0")
		if got := at(t, jar, home); got != "a=1; b=2; d=1" || jar.Len() != 3 {
			t.Errorf("%q, %v", got, jar)
		}
		time.Sleep(90 * time.Second)
		if got := at(t, reread(t, loginjar.New(jar)), home); got != "b=2; d=1" {
			t.Errorf("%q", got)
		}
		set(t, jar, home, "d=; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "new=1; Max-Age=9223372036854775807")
		time.Sleep(24 * time.Hour)
		if got := at(t, reread(t, loginjar.New(jar)), home); got != "b=2; new=1" {
			t.Errorf("%q", got)
		}
	})
}

// Copies are apart; the later of two jars counts.
func TestCopiesAreApart(t *testing.T) {
	one, two := loginjar.New(), loginjar.New()
	set(t, one, "https://h.example/", "a=1", "b=1")
	set(t, two, "https://h.example/", "a=2")
	both := loginjar.New(one, two)
	set(t, both, "https://h.example/", "b=3")
	for jar, want := range map[*loginjar.Jar]string{one: "a=1; b=1", two: "a=2", both: "a=2; b=3"} {
		if got := at(t, jar, "https://h.example/"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A server that sets ever more cookies makes no jar larger than its bound.
func TestJarIsBounded(t *testing.T) {
	jar := loginjar.New()
	for i := range 1000 {
		set(t, jar, fmt.Sprintf("https://h%d.example/", i%3), fmt.Sprintf("c%d=%d", i, i))
	}
	if n := jar.Len(); n != 100 {
		t.Errorf("%d cookies", n)
	}
	if got := at(t, jar, "https://h0.example/"); strings.Contains(got, "c0=0") || !strings.Contains(got, "c999=999") {
		t.Errorf("sent: %q", got)
	}
	reread(t, jar)
}

// What goes first has ended, and then what was of no use for longest: never the session.
func TestJarKeepsWhatIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jar := loginjar.New()
		set(t, jar, "https://h.example/", "sid=1", "rare=1; Path=/rare")
		for i := range 300 {
			set(t, jar, "https://h.example/", fmt.Sprintf("nonce%d=x; Max-Age=1", i))
			time.Sleep(time.Minute)
		}
		if got := at(t, loginjar.New(jar), "https://h.example/rare"); got != "rare=1; sid=1" {
			t.Errorf("beside those that have ended: %q", got)
		}
		for i := range 300 {
			set(t, jar, "https://h.example/", fmt.Sprintf("c%d=x; Path=/elsewhere", i))
			jar = loginjar.New(jar)
			if got := at(t, jar, "https://h.example/"); got != "sid=1" {
				t.Fatalf("after %d others: %q", i, got)
			}
		}
		if got := at(t, jar, "https://h.example/rare"); got != "sid=1" || jar.Len() != 100 {
			t.Errorf("%q, %v", got, jar)
		}
	})
}

// Nobody but a host of its domain changes or ends a cookie, also in a copy, be the cookie
// of the same name and value as one of their own.
func TestOtherHostsChangeNoCookie(t *testing.T) {
	for _, line := range []string{"sid=; Path=/; Domain=auth.example; Max-Age=0", "sid=1; Path=/; Domain=auth.example", "sid=2; Path=/; Domain=auth.example"} {
		jar := loginjar.New()
		set(t, jar, "https://auth.example/", "sid=1; Path=/")
		set(t, jar, "https://api.other/", "sid=1; Path=/", line)
		for name, j := range map[string]*loginjar.Jar{"itself": jar, "read": reread(t, jar), "copied": loginjar.New(jar)} {
			if got := at(t, j, "https://auth.example/"); got != "sid=1" {
				t.Errorf("after %s, %s: %q", line, name, got)
			}
		}
	}
}

// A cookie that has ended in the later of two jars doesn't come back from the earlier one.
func TestEndedCookiesStayEnded(t *testing.T) {
	parent := loginjar.New()
	set(t, parent, "https://h.example/", "pre=1", "sid=1")
	child := loginjar.New(parent)
	set(t, child, "https://h.example/", "pre=; Max-Age=0", "unknown=; Max-Age=0")
	for name, j := range map[string]*loginjar.Jar{"itself": child, "copied": loginjar.New(child), "read": reread(t, child)} {
		if got := at(t, loginjar.New(parent, j), "https://h.example/"); got != "sid=1" || j.Len() != 1 {
			t.Errorf("%s: %q, %v", name, got, j)
		}
	}
}

// A copy catches up with what the original is told meanwhile, unless it knows better.
func TestCopiesCatchUp(t *testing.T) {
	const home = "https://h.example/"
	jar := loginjar.New()
	set(t, jar, home, "a=1", "b=1", "c=1", "d=1")
	c := loginjar.New(jar)
	set(t, c, home, "b=new", "c=; Max-Age=0")
	set(t, jar, home, "a=2", "b=2", "c=2", "d=; Max-Age=0", "e=2")
	if got := at(t, c.CaughtUp(jar).CaughtUp(nil), home); got != "a=2; b=new; e=2" {
		t.Errorf("%q", got)
	}
	if got := at(t, c, home); got != "a=1; b=new; d=1" {
		t.Errorf("itself: %q", got)
	}
}

// Expires is by the server's clock.
func TestEndsAreByTheServersClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, skew := range []time.Duration{-5 * time.Hour, 0, 5 * time.Hour} {
			date := time.Now().Add(skew).UTC()
			line := "sid=1; Expires=" + date.Add(time.Hour).Format(http.TimeFormat)
			jar := loginjar.New()
			jar.Take(parsed(t, "https://h.example/"), &http.Response{Header: http.Header{"Set-Cookie": {line}, "Date": {date.Format(http.TimeFormat)}}})
			time.Sleep(59 * time.Minute)
			if got := at(t, jar, "https://h.example/"); got != "sid=1" {
				t.Errorf("%v: ended early: %q", skew, got)
			}
			time.Sleep(2 * time.Minute)
			if got := at(t, jar, "https://h.example/"); got != "" || jar.Len() != 0 {
				t.Errorf("%v: doesn't end: %q", skew, got)
			}
		}
	})
}

func TestDamagedCookiesAreAnError(t *testing.T) {
	for _, text := range []string{"", "null,", "{}", `[{"url":1}]`, `[{"path":"hunter2!"}]`, "[" + strings.Repeat("{},", 100) + "{}]"} {
		if jar, err := loginjar.Decode([]byte(text)); err == nil || jar != nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, %v", text, jar, err)
		}
	}
	for _, text := range []string{"null", "[]", `[{}]`, `[{"url":"%zz"}]`, `[{"url":"file:///etc","path":"Lw==","name":"a"}]`} {
		if jar, err := loginjar.Decode([]byte(text)); err != nil || jar.Len() != 0 {
			t.Errorf("%q: %v, %v", text, jar, err)
		}
	}
}

func TestJarPrintsNoCookie(t *testing.T) {
	jar := loginjar.New()
	set(t, jar, "https://h.example/", "name=hunter2")
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %s %q %x", jar, jar, jar, jar, jar, jar)
	json.NewEncoder(&out).Encode(jar)
	if err := gob.NewEncoder(&out).Encode(jar); err == nil {
		t.Error("gob writes a jar")
	}
	if strings.Contains(out.String(), "hunter2") || !strings.Contains(out.String(), "1 cookies") {
		t.Error(out.String())
	}
}

func TestJarIsSafeForManyGoroutines(t *testing.T) {
	jar := loginjar.New()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 50 {
				set(t, jar, "https://h.example/", fmt.Sprintf("c%d=%d", i, n))
				at(t, jar, "https://h.example/")
				reread(t, loginjar.New(jar))
			}
		})
	}
	wg.Wait()
	if jar.Len() != 8 {
		t.Errorf("%v", jar)
	}
}

// A jar agrees with a cookiejar, whatever a server sets, also after it was written down.
func FuzzJar(f *testing.F) {
	f.Add("https://a.b.example.co.uk/x/y", "n=v; Domain=example.co.uk; Path=/x", "m=\"w w\"; Secure", "n=; Max-Age=0")
	f.Add("http://127.0.0.1:80/", "a=b; Domain=127.0.0.1", "a=b; Expires=Thu, 01 Jan 2100 00:00:00 GMT", "c=d; Path=x")
	f.Add("http://[::1]", "a=b; Domain=.", "é=b", "a=b; Path=/\xff")
	f.Fuzz(func(t *testing.T, from, one, two, three string) {
		u, err := url.Parse(from)
		if err != nil || u.Host == "" || len(one)+len(two)+len(three)+len(from) > 3000 { // no response comes from no host
			t.Skip()
		}
		want, _ := cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List})
		got := loginjar.New()
		for _, line := range []string{one, two, three} {
			cookies := (&http.Response{Header: http.Header{"Set-Cookie": {line}}}).Cookies()
			want.SetCookies(u, cookies)
			got.SetCookies(u, cookies)
		}
		again := reread(t, loginjar.New(got))
		up, down := *u, *u
		up.Host = "www." + u.Host
		down.Path += "/deeper"
		for _, to := range []*url.URL{u, &up, &down, {Scheme: "https", Host: u.Host, Path: "/"}, {Scheme: "https", Host: "example.co.uk", Path: "/x"}} {
			a, b, c := fmt.Sprint(want.Cookies(to)), fmt.Sprint(got.Cookies(to)), fmt.Sprint(again.Cookies(to))
			if a != b || a != c {
				t.Errorf("to %v: cookiejar has %s, the jar %s, and read again %s", to, a, b, c)
			}
		}
	})
}
