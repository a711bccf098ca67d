// Package loginjar keeps the cookies of a login: an http.CookieJar that can be encoded,
// since a login by cookies has to survive the process like a token.
package loginjar

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/requestforge/requestforge/internal/format"
)

const (
	// maxCookies bounds the cookies of a Jar. Beyond maxCookies, expired cookies are
	// dropped first, and then the cookies that were neither set nor sent for longest.
	// Browsers promise 50 cookies for each domain (RFC 6265 §6.1).
	maxCookies = 100

	// maxCookie is the longest name and value together, in bytes, that browsers promise
	// to keep. A longer cookie is left out.
	maxCookie = 4096

	// maxAge is the longest life of a cookie with Max-Age (RFC 6265bis). A longer life
	// could overflow.
	maxAge = 400 * 24 * time.Hour
)

// ticks orders the events of cookies, over all jars.
var ticks atomic.Int64

// A Jar is an http.CookieJar for the cookies of a login. A Jar is safe for concurrent
// use. The zero Jar is not ready: make a Jar with New. A Jar prints without cookies.
//
// net/http/cookiejar, with the public suffixes of golang.org/x/net, decides which
// cookies a request carries. A Jar also remembers the cookies taken, because a
// cookiejar can't list its cookies. The list includes expired cookies, since the expiry
// of a cookie in a later jar may have to remove the cookie of an earlier jar.
type Jar struct {
	jar  *cookiejar.Jar
	born int64 // in ticks

	mu   sync.Mutex // guards kept
	kept []cookie   // each identity once, oldest first
}

// cookie is a Set-Cookie that a jar has taken. The fields are exported for the
// encoding. Fields whose bytes a server chooses are no strings, since encoding/json
// would replace bytes that aren't UTF-8.
type cookie struct {
	URL     string `json:"url"` // the URL that set the cookie, without the path
	Path    []byte `json:"path"`
	Domain  string `json:"domain,omitempty"` // "": of the URL's host alone
	Name    string `json:"name"`
	Value   []byte `json:"value"`
	Quoted  bool   `json:"quoted,omitempty"`
	Expires int64  `json:"expires,omitempty"` // Unix milliseconds; 0: never
	Secure  bool   `json:"secure,omitempty"`

	// In ticks, 0 after decoding. A copy has the ticks of the original.
	set, used int64
}

// ended reports whether c ends before now.
func (c *cookie) ended(now time.Time) bool { return c.Expires != 0 && now.UnixMilli() >= c.Expires }

// New returns a jar with the cookies of the given jars; a given jar may be nil. If two
// jars have the same cookie, the later jar's cookie counts; if the cookie has expired
// in the later jar, the copy lacks the cookie.
func New(from ...*Jar) *Jar {
	j := &Jar{jar: empty(), born: ticks.Add(1)}
	for _, other := range from {
		for _, c := range other.all() {
			j.take(c)
		}
	}
	return j
}

func empty() *cookiejar.Jar {
	jar, _ := cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List}) // never fails
	return jar
}

// all returns the cookies of j, expired cookies included. j may be nil.
func (j *Jar) all() []cookie {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.kept)
}

// CaughtUp returns a copy of j with the changes to the cookies of other since j was
// made, except for cookies that j itself has taken since. other may be nil.
func (j *Jar) CaughtUp(other *Jar) *Jar {
	both := New(j)
	for _, c := range other.all() {
		if c.set > j.born && !j.setSince(&c, j.born) {
			both.take(c)
		}
	}
	return both
}

// setSince reports whether j has taken the cookie since the time.
func (j *Jar) setSince(c *cookie, since int64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.kept, func(d cookie) bool { return d.set > since && d.same(c) })
}

// Cookies returns the cookies for a request to u.
func (j *Jar) Cookies(u *url.URL) []*http.Cookie {
	sent := j.jar.Cookies(u)
	if len(sent) == 0 {
		return sent
	}
	now := ticks.Add(1)
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.kept {
		if c := &j.kept[i]; slices.ContainsFunc(sent, func(s *http.Cookie) bool { return s.Name == c.Name && s.Value == string(c.Value) }) {
			c.used = now
		}
	}
	return sent
}

// SetCookies takes the cookies that a response from u sets, as far as u may set the
// cookies, and drops the cookies that the response ends. Expiry times are read by the
// local clock; see Take.
func (j *Jar) SetCookies(u *url.URL, cookies []*http.Cookie) { j.setCookies(u, cookies, time.Time{}) }

// Take takes the cookies of resp, a response from u, as SetCookies does. Ends are read by
// the server's clock, as far as the response has a Date.
func (j *Jar) Take(u *url.URL, resp *http.Response) {
	if cookies := resp.Cookies(); len(cookies) > 0 {
		j.setCookies(u, cookies, Date(resp))
	}
}

// Date is when resp was sent by the server's clock; zero: unknown.
func Date(resp *http.Response) time.Time {
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return date
}

func (j *Jar) setCookies(u *url.URL, cookies []*http.Cookie, date time.Time) {
	if u == nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return
	}
	now := time.Now()
	for _, c := range cookies {
		set := of(u, c)
		if end := End(c, now, date); !end.IsZero() {
			set.Expires = max(long, end.UnixMilli())
		}
		if set.ended(now) && !j.setSince(&set, -1) {
			continue // there is no cookie to end
		}
		set.set = ticks.Add(1)
		j.take(set)
	}
}

// of returns the cookie for c if a response from u sets c, without the expiry.
func of(u *url.URL, c *http.Cookie) cookie {
	return cookie{
		URL:    (&url.URL{Scheme: u.Scheme, Host: u.Host}).String(), // escapes text outside ASCII
		Path:   []byte(pathOf(u, c)),
		Domain: c.Domain,
		Name:   c.Name,
		Value:  []byte(c.Value),
		Quoted: c.Quoted,
		Secure: c.Secure,
	}
}

// long is an expiry in the distant past.
const long = 1

// End returns the expiry of c by the local clock, if c arrived at now. date is the time
// of sending by the server's clock, which Expires follows, too; zero if unknown. A zero
// result means never.
func End(c *http.Cookie, now, date time.Time) time.Time {
	switch {
	case c.MaxAge < 0:
		return time.UnixMilli(long)
	case c.MaxAge > 0:
		return now.Add(time.Duration(min(int64(c.MaxAge), int64(maxAge/time.Second))) * time.Second)
	case !c.Expires.IsZero() && !date.IsZero():
		return now.Add(c.Expires.Sub(date))
	}
	return c.Expires
}

// Same reports whether d, set by a response from v, replaces c, set by a response from
// u.
func Same(u *url.URL, c *http.Cookie, v *url.URL, d *http.Cookie) bool {
	one, two := of(u, c), of(v, d)
	return one.same(&two)
}

// pathOf returns the path of c (RFC 6265 §5.1.4 and 5.2.4).
func pathOf(u *url.URL, c *http.Cookie) string {
	if strings.HasPrefix(c.Path, "/") {
		return c.Path
	}
	if i := strings.LastIndexByte(u.Path, '/'); i > 0 && u.Path[0] == '/' {
		return u.Path[:i]
	}
	return "/"
}

// same reports whether d takes the place of c.
func (c *cookie) same(d *cookie) bool {
	return c.Name == d.Name && string(c.Path) == string(d.Path) && c.domain() == d.domain()
}

func (c *cookie) domain() string {
	if d := strings.ToLower(strings.TrimPrefix(c.Domain, ".")); d != "" {
		return d
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return ""
	}
	return strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
}

// take takes c, if c.URL may set the cookie.
func (j *Jar) take(c cookie) {
	u, err := url.Parse(c.URL)
	if err != nil || len(c.Name)+len(c.Value) > maxCookie || len(c.Path) > maxCookie || len(c.Domain) > maxCookie {
		return
	}
	u.Path = string(c.Path)
	set := &http.Cookie{Name: c.Name, Value: string(c.Value), Quoted: c.Quoted, Domain: c.Domain, Path: string(c.Path), Secure: c.Secure}
	if !maySet(u, set) {
		return
	}
	if c.Expires != 0 {
		set.Expires = time.UnixMilli(c.Expires)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.jar.SetCookies(u, []*http.Cookie{set})
	before := slices.IndexFunc(j.kept, func(d cookie) bool { return d.same(&c) })
	if before >= 0 && j.kept[before].ended(time.Now()) { // c is a new cookie, and so comes last
		j.kept = slices.Delete(j.kept, before, before+1)
		before = -1
	}
	if before < 0 {
		j.kept = append(j.kept, c)
	} else {
		j.kept[before] = c
	}
	if len(j.kept) > maxCookies {
		j.makeRoom()
	}
}

// maySet reports whether a response from u may set c, which has no expiry. The jar
// itself can't tell, since the jar may have a cookie of the same name and value from
// elsewhere.
func maySet(u *url.URL, c *http.Cookie) bool {
	jar := empty()
	jar.SetCookies(u, []*http.Cookie{c})
	shown := *u
	shown.Scheme = "https" // or a secure cookie isn't shown
	return len(jar.Cookies(&shown)) > 0
}

// makeRoom drops the expired cookies, or else the least used cookie.
func (j *Jar) makeRoom() {
	now, all := time.Now(), len(j.kept)
	j.kept = slices.DeleteFunc(j.kept, func(c cookie) bool { return c.ended(now) })
	if len(j.kept) < all {
		return
	}
	least := 0
	for i := range j.kept {
		if c, d := &j.kept[i], &j.kept[least]; max(c.set, c.used) < max(d.set, d.used) {
			least = i
		}
	}
	old := j.kept[least]
	j.kept = slices.Delete(j.kept, least, least+1)
	j.drop(old)
}

// drop takes c out of the cookiejar.
func (j *Jar) drop(c cookie) {
	if u, err := url.Parse(c.URL); err == nil {
		j.jar.SetCookies(u, []*http.Cookie{{Name: c.Name, Domain: c.Domain, Path: string(c.Path), MaxAge: -1}})
	}
}

// Len returns the number of cookies that haven't expired. A nil jar has no cookies.
func (j *Jar) Len() int {
	n, now := 0, time.Now()
	for _, c := range j.all() {
		if !c.ended(now) {
			n++
		}
	}
	return n
}

// Blank reports whether the jar has no cookies, not even expired cookies. A nil jar is
// blank.
func (j *Jar) Blank() bool { return len(j.all()) == 0 }

// Encode returns the cookies of the jar, secrets included. Two jars that took the same
// cookies in the same order at the same time have the same encoding.
func (j *Jar) Encode() ([]byte, error) {
	all, now := j.all(), time.Now()
	for i := range all {
		if all[i].ended(now) {
			all[i].Value = nil
		}
	}
	return json.Marshal(all)
}

var errDamaged = errors.New("requestforge: the cookies of a token are damaged")

// Decode returns the jar that was encoded as data. The error quotes nothing of data.
func Decode(data []byte) (*Jar, error) {
	var all []cookie
	if json.Unmarshal(data, &all) != nil || len(all) > maxCookies {
		return nil, errDamaged
	}
	j := New()
	for _, c := range all {
		j.take(c)
	}
	return j, nil
}

// String says how many cookies there are.
func (j *Jar) String() string { return "Jar(" + strconv.Itoa(j.Len()) + " cookies)" }

// Format prints String for every verb.
func (j *Jar) Format(f fmt.State, verb rune) { format.Text(f, verb, j.String()) }

// MarshalJSON returns String as a JSON string. Encode is the encoding.
func (j *Jar) MarshalJSON() ([]byte, error) { return json.Marshal(j.String()) }

// MarshalText returns String.
func (j *Jar) MarshalText() ([]byte, error) { return []byte(j.String()), nil }

// GobEncode returns an error: gob would encode the cookies.
func (j *Jar) GobEncode() ([]byte, error) { return nil, format.ErrGob }
