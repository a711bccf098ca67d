// The cookies of a login, which belong to its token.

package requestforge

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge/internal/loginjar"
)

func jarWith(t *testing.T, from string, pairs ...string) *loginjar.Jar {
	jar := loginjar.New()
	u, err := url.Parse(from)
	require.NoError(t, err)
	jar.SetCookies(u, (&http.Response{Header: http.Header{"Set-Cookie": pairs}}).Cookies())
	return jar
}

// A record keeps them, bytes and all; a token without cookies is written as ever.
func TestTokenCookiesAreStoredWithTheToken(t *testing.T) {
	tok := &Token{AccessToken: "a", jar: jarWith(t, "https://login.example.com/", "sid=hunter2; Path=/", `q="a b"; Domain=example.com`)}
	text, err := Record{Key: "k", Token: tok, Stamp: 1}.MarshalBinary()
	require.NoError(t, err)
	var back Record
	require.NoError(t, back.UnmarshalBinary(text))
	u, _ := url.Parse("https://login.example.com/x")
	require.Equal(t, tok.jar.Cookies(u), back.Token.jar.Cookies(u))
	require.Len(t, back.Token.jar.Cookies(u), 2)
	again, err := back.MarshalBinary()
	require.NoError(t, err)
	require.Equal(t, string(text), string(again))

	text, err = Record{Key: "k", Token: &Token{AccessToken: "a"}, Stamp: 1}.MarshalBinary()
	require.NoError(t, err)
	require.NotContains(t, string(text), "cookies")
	require.NoError(t, back.UnmarshalBinary(text))
	require.Nil(t, back.Token.jar)

	damaged := strings.Replace(string(text), `"extra":null`, `"extra":null,"cookies":{"hunter2":1}`, 1)
	err = back.UnmarshalBinary([]byte(damaged))
	require.ErrorIs(t, err, errRecordDamaged)
}

func TestTokenPrintsNoCookie(t *testing.T) {
	tok := &Token{AccessToken: "a", jar: jarWith(t, "https://login.example.com/", "sid=hunter2; Path=/")}
	var out bytes.Buffer
	for _, v := range []any{tok, *tok, Record{Token: tok}, []*Token{tok}, Input{Previous: tok, Parents: map[string]*Token{"x": tok}}} {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %d\n", v, v, v, v, v, v)
		_ = json.NewEncoder(&out).Encode(v)
		_ = xml.NewEncoder(&out).Encode(v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("", "v", v)
	}
	require.NotContains(t, out.String(), "hunter2")
	require.Contains(t, out.String(), "1 cookies")
}

// No two tokens share what an API renews; a refresh that sets no cookies leaves them.
func TestTokenCookiesAreATokensOwn(t *testing.T) {
	s := &step{}
	raw := &Token{AccessToken: "a", jar: jarWith(t, "https://h.example/", "sid=1")}
	one, err := mint(s, raw, Input{})
	require.NoError(t, err)
	two, err := mint(s, raw, Input{})
	require.NoError(t, err)
	three, err := mint(s, &Token{AccessToken: "b"}, Input{Previous: one})
	require.NoError(t, err)
	u, _ := url.Parse("https://h.example/")
	one.jar.SetCookies(u, []*http.Cookie{{Name: "sid", Value: "renewed"}})
	for tok, want := range map[*Token]string{raw: "sid=1", one: "sid=renewed", two: "sid=1", three: "sid=1"} {
		require.Equal(t, want, tok.jar.Cookies(u)[0].String())
	}
	none, err := mint(s, &Token{AccessToken: "b"}, Input{})
	require.NoError(t, err)
	require.Nil(t, none.jar)
}

// A send has the cookies of its token, as far as their domains and paths say so, beside
// those of the caller; an answer renews them.
func TestTokenCookiesAreOnEachSend(t *testing.T) {
	login := "https://login.example.com/"
	old := &Token{AccessToken: "t-0", jar: jarWith(t, login, "sid=old; Domain=example.com", "host=x", "deep=x; Domain=example.com; Path=/deep", `q="a b"; Domain=example.com`)}
	next := &Token{AccessToken: "t-1", jar: jarWith(t, login, "sid=new; Domain=example.com")}
	src := &cookieSource{all: []*Token{old, next}}
	var got []string
	answers := []func(h http.Header) int{
		func(h http.Header) int {
			h.Add("Set-Cookie", "sid=renewed; Domain=example.com; Path=/")
			h.Add("Set-Cookie", "api=1")
			return 200
		},
		func(h http.Header) int { return 200 },
		func(h http.Header) int { return 401 },
		func(h http.Header) int { return 200 },
	}
	rt := &AuthTransport{Source: src, Attach: []Place{{Cookie: "sid"}, {Header: "X-Token"}}, Origins: []string{"https://api.example.com", "https://other.example"},
		Base: cookieBase(func(req *http.Request) (*http.Response, error) {
			got = append(got, req.URL.Path+" "+req.Header.Get("X-Token")+" "+strings.Join(req.Header["Cookie"], "|"))
			h := make(http.Header)
			status := answers[0](h)
			answers = answers[1:]
			return &http.Response{StatusCode: status, Header: h, Body: http.NoBody}, nil
		})}
	for _, to := range []string{"https://api.example.com/", "https://api.example.com/deep/x", "https://other.example/"} {
		req, _ := http.NewRequest("GET", to, nil)
		odd := "cookie" // as a map that was filled by hand may have it
		req.Header[odd] = []string{"mine=1; sid=mine"}
		resp, err := rt.RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, []string{"mine=1; sid=mine"}, req.Header[odd])
	}
	require.Equal(t, []string{
		`/ t-0 mine=1; sid=old; q="a b"`,
		`/deep/x t-0 mine=1; deep=x; sid=renewed; q="a b"; api=1`,
		`/ t-0 mine=1; sid=t-0`,
		`/ t-1 mine=1; sid=t-1`,
	}, got)
	u, _ := url.Parse("https://api.example.com/")
	require.Len(t, next.jar.Cookies(u), 1, "nothing of the old token's")
}

type cookieBase func(*http.Request) (*http.Response, error)

func (f cookieBase) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// cookieSource gives out its tokens one after another, the next for each refusal.
type cookieSource struct{ all []*Token }

func (s *cookieSource) Token(context.Context) (*Token, error) { return s.all[0], nil }

func (s *cookieSource) Invalidate(context.Context, *Token) error {
	s.all = s.all[1:]
	return nil
}
