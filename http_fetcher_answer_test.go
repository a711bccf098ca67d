package requestforge_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	rf "github.com/requestforge/requestforge"
)

// inMemory is a client whose requests h answers, with the Date of the moment.
func inMemory(h http.HandlerFunc) *http.Client {
	return &http.Client{Transport: fetchRT(func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			defer req.Body.Close()
		}
		if err := req.Context().Err(); err != nil {
			return nil, err
		}
		rec := httptest.NewRecorder()
		rec.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
		h(rec, req)
		resp := rec.Result()
		resp.Request = req
		return resp, nil
	})}
}

// answerJSON answers with v.
func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

type object = map[string]any

// unsigned is a JWT with an exp.
func unsigned(exp time.Time) string {
	return "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, exp.Unix())) + ".c2ln"
}

// A token that comes with its scheme isn't given another.
func TestTokenThatComesWithItsScheme(t *testing.T) {
	const url = "https://auth.example/"
	for name, tt := range map[string]struct {
		f      rf.HTTPFetcher
		header http.Header
		body   string
		want   string // Authorization
	}{
		"in JSON":                {rf.HTTPFetcher{TokenField: "token"}, nil, `{"token":"Bearer abc"}`, "Bearer abc"},
		"in a header":            {rf.HTTPFetcher{TokenHeader: "Authorization"}, http.Header{"Authorization": {"Bearer abc"}}, "", "Bearer abc"},
		"in lower case":          {rf.HTTPFetcher{TokenField: "token"}, nil, `{"token":"bearer  abc"}`, "Bearer abc"},
		"another one":            {rf.HTTPFetcher{TokenHeader: "authorization"}, http.Header{"Authorization": {"Vendor abc"}}, "", "Vendor abc"},
		"of the answer's type":   {rf.HTTPFetcher{}, nil, `{"access_token":"sso-key abc","token_type":"SSO-Key"}`, "sso-key abc"},
		"of our type":            {rf.HTTPFetcher{TokenType: "Device"}, nil, `{"access_token":"Device abc"}`, "Device abc"},
		"as the whole body":      {rf.HTTPFetcher{TokenField: "."}, nil, `"Bearer abc"`, "Bearer abc"},
		"of our type, the whole": {rf.HTTPFetcher{TokenField: ".", TokenType: "DPoP"}, nil, `"DPoP abc"`, "DPoP abc"},
		"by Read": {rf.HTTPFetcher{Read: func(rf.Input, *http.Response, []byte) (*rf.Token, error) {
			return &rf.Token{AccessToken: "Bearer abc"}, nil
		}}, nil, "", "Bearer abc"},
		"none, though two words": {rf.HTTPFetcher{TokenHeader: "X-Token"}, http.Header{"X-Token": {"user abc"}}, "", "Bearer user abc"},
	} {
		f := tt.f
		f.URL, f.Client = url, fetchAnswer(200, tt.header, tt.body)
		tok, err := f.Fetch(t.Context(), rf.Input{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := tok.Type() + " " + tok.AccessToken; got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestTimesInUsualLayoutsAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
		for _, layout := range []string{
			"2006-01-02T15:04:05UTC", "2006-01-02 15:04:05", "2006-01-02T15:04:05+0000",
			"2006-01-02T15:04:05", "2006-01-02 15:04:05 -0700", http.TimeFormat,
		} {
			f := rf.HTTPFetcher{URL: "https://auth.example", TokenField: "token", ExpiresAtField: "expires", Client: fetchAnswer(200, nil, fmt.Sprintf(`{"token":"a","expires":%q}`, at.Format(layout)))}
			tok, err := f.Fetch(t.Context(), rf.Input{})
			if err != nil || !tok.Expiry.Equal(at) {
				t.Errorf("%q: %v, %v", at.Format(layout), tok, err)
			}
		}
	})
}

// The expiry is that of the token that is used: expires_in may be that of another.
func TestExpiryIsThatOfTheTokenThatIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		short := func() string { return unsigned(time.Now().Add(5 * time.Minute)) }
		client := inMemory(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Token", short())
			http.SetCookie(w, &http.Cookie{Name: "sid", Value: short()})
			if r.URL.Path == "/text" {
				_, _ = io.WriteString(w, short())
				return
			}
			answerJSON(w, 200, object{"access_token": "opaque", "expires_in": 3600, "id_token": short()})
		})
		for name, tt := range map[string]struct {
			f    rf.HTTPFetcher
			want time.Duration
		}{
			"an id_token":       {rf.HTTPFetcher{URL: "https://auth.example/", TokenField: "id_token"}, 5 * time.Minute},
			"an opaque token":   {rf.HTTPFetcher{URL: "https://auth.example/"}, time.Hour},
			"in a header":       {rf.HTTPFetcher{URL: "https://auth.example/", TokenHeader: "X-Token"}, 5 * time.Minute},
			"in a cookie":       {rf.HTTPFetcher{URL: "https://auth.example/", TokenCookie: "sid"}, 5 * time.Minute},
			"as the whole body": {rf.HTTPFetcher{URL: "https://auth.example/text", TokenField: "."}, 5 * time.Minute},
		} {
			f := tt.f
			f.Client = client
			tok, err := f.Fetch(t.Context(), rf.Input{})
			if err != nil || time.Until(tok.Expiry).Round(time.Second) != tt.want {
				t.Errorf("%s: %v, %v, want %v", name, tok, err, tt.want)
			}
		}
	})
}

// What a JSON body says of a token in a header, or a cookie, counts.
func TestExpiryBesideATokenInAHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := inMemory(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Subject-Token", "tok")
			http.SetCookie(w, &http.Cookie{Name: "other", Value: "x"})
			http.SetCookie(w, &http.Cookie{Name: "sid", Value: "tok", MaxAge: 3600})
			answerJSON(w, 201, object{"token": object{"expires_at": time.Now().Add(30 * time.Minute).UTC().Format("2006-01-02T15:04:05.000000Z"), "catalog": "c", "copy": "tok"}, "refresh_token": "r"})
		})
		for _, f := range []*rf.HTTPFetcher{
			{URL: "https://auth.example/", TokenHeader: "X-Subject-Token", ExpiresAtField: "token.expires_at", Client: client},
			{URL: "https://auth.example/", TokenCookie: "sid", ExpiresAtField: "token.expires_at", Client: client},
		} {
			tok, err := f.Fetch(t.Context(), rf.Input{})
			if err != nil {
				t.Fatal(err)
			}
			if tok.AccessToken != "tok" || tok.RefreshToken != "r" || time.Until(tok.Expiry) != 30*time.Minute || !reflect.DeepEqual(tok.Extra, object{"token": object{"catalog": "c"}}) {
				t.Errorf("%v: got %v, %v", f, tok, tok.Extra)
			}
		}
	})
}

func TestTokenInACookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			set  []string // Set-Cookie
			want string
			life time.Duration // 0: without end
			fail string
		}{
			"one":                {set: []string{"sid=a; Path=/; HttpOnly"}, want: "a"},
			"the last of two":    {set: []string{"sid=a; Path=/x", "sid=b"}, want: "b"},
			"beside others":      {set: []string{"SID=x", "sid=a", "sid2=y"}, want: "a"},
			"in quotes":          {set: []string{`sid="a"`}, want: "a"},
			"with a Max-Age":     {set: []string{"sid=a; Max-Age=60"}, want: "a", life: time.Minute},
			"with Expires":       {set: []string{"sid=a; Expires=" + time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}, want: "a", life: time.Hour},
			"none":               {fail: `sets no cookie "sid"`},
			"taken back":         {set: []string{"sid=a; Max-Age=0"}, fail: `sets no cookie "sid"`},
			"taken back by date": {set: []string{"sid=a; Expires=Thu, 01 Jan 1970 00:00:00 GMT"}, fail: `sets no cookie "sid"`},
			"empty":              {set: []string{"sid="}, fail: `sets no cookie "sid"`},
		} {
			f := rf.HTTPFetcher{URL: "https://auth.example/", TokenCookie: "sid", Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
				for _, s := range tt.set {
					w.Header().Add("Set-Cookie", s)
				}
			})}
			tok, err := f.Fetch(t.Context(), rf.Input{})
			if tt.fail != "" {
				fetchFailed(t, tok, err, tt.fail)
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			life := time.Duration(0)
			if !tok.Expiry.IsZero() {
				life = time.Until(tok.Expiry).Round(time.Second)
			}
			if tok.AccessToken != tt.want || life != tt.life {
				t.Errorf("%s: got %q for %v", name, tok.AccessToken, life)
			}
		}
	})
}

// A web login answers the right password with a redirect, and has the session in its
// header; the redirect isn't followed where that would drop the body or leave the origin.
func TestTokenInTheHeaderOfARedirect(t *testing.T) {
	for location, ok := range map[string]bool{"/home": true, "https://app.example.com/": true, "http://auth.example/": true, "https://h/%zz": false} {
		client := inMemory(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if string(body) == "password=right" {
				http.SetCookie(w, &http.Cookie{Name: "sid", Value: "s"})
				w.Header().Set("X-Token", "s")
			}
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
		})
		for _, f := range []rf.HTTPFetcher{{TokenCookie: "sid"}, {TokenHeader: "X-Token"}, {Read: func(_ rf.Input, resp *http.Response, _ []byte) (*rf.Token, error) {
			for _, c := range resp.Cookies() {
				return &rf.Token{AccessToken: c.Value}, nil
			}
			return nil, errors.New("no cookie")
		}}} {
			f.URL, f.Client = "https://auth.example/login", client
			f.Form = map[string][]string{"password": {"right"}}
			if tok, err := f.Fetch(t.Context(), rf.Input{}); (err == nil) != ok || ok && tok.AccessToken != "s" {
				t.Errorf("%s: %v: %v, %v", location, f, tok, err)
			}
			f.Form = map[string][]string{"password": {"wrong"}}
			tok, err := f.Fetch(t.Context(), rf.Input{})
			ae := fetchFailed(t, tok, err, "")
			if rf.Transient(err) || ok && ae.StatusCode != http.StatusFound || strings.Contains(err.Error(), "app.example.com") || strings.Contains(err.Error(), "/home") {
				t.Errorf("%s: %v", location, err)
			}
		}
	}
}

// The cookie may be that of a redirect before the answer.
func TestCookieOfAnEarlierRedirect(t *testing.T) {
	f := rf.HTTPFetcher{URL: "https://auth.example/a", Method: "GET", TokenCookie: "sid", Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/a":
			http.SetCookie(w, &http.Cookie{Name: "sid", Value: "first"})
			http.Redirect(w, r, "/b", http.StatusFound)
		case "/b":
			http.SetCookie(w, &http.Cookie{Name: "sid", Value: "second"})
			http.Redirect(w, r, "/c", http.StatusFound)
		}
	})}
	if tok, err := f.Fetch(t.Context(), rf.Input{}); err != nil || tok.AccessToken != "second" {
		t.Errorf("%v, %v", tok, err)
	}
}

func TestTokenIsTheWholeBody(t *testing.T) {
	for _, tt := range []struct{ contentType, body, want, fail string }{
		{"text/plain", "abc\n", "abc", ""},
		{"text/html", "abc", "abc", ""}, // what many a framework calls a text
		{"application/json", `"abc"`, "abc", ""},
		{"", "0123456789", "0123456789", ""},
		{"text/html", "<html>wrong password", "", "HTML page"},
		{"text/plain", "Wrong user or password", "", "several words"},
		{"text/plain", "Token expired", "", "several words"},
		{"text/plain", "Basic failure", "", "several words"},
		{"application/json", `"token invalid"`, "", "several words"},
		{"text/plain", "", "", "empty"},
		{"application/json", `{"error":"invalid_grant"}`, "", "invalid_grant"},
		{"application/json", "null", "", "no string"},
		{"text/plain", strings.Repeat("x", 1<<20+1), "", "larger than 1 MiB"},
		{"text/plain", strings.Repeat("x", 1<<19), "", "more than 64 KiB"},
	} {
		f := rf.HTTPFetcher{URL: "https://auth.example/", TokenField: ".", Client: fetchAnswer(200, http.Header{"Content-Type": {tt.contentType}}, tt.body)}
		tok, err := f.Fetch(t.Context(), rf.Input{})
		if tt.fail != "" {
			fetchFailed(t, tok, err, tt.fail)
		} else if err != nil || tok.AccessToken != tt.want {
			t.Errorf("%.20q: %v, %v", tt.body, tok, err)
		}
	}
}

func TestKeptHeaders(t *testing.T) {
	header := http.Header{"X-Token": {"t"}, "X-Csrf": {"c"}, "Location": {"/sessions/1"}, "X-Two": {"a", "b"}}
	f := rf.HTTPFetcher{
		URL: "https://auth.example/", TokenHeader: "X-Token", KeepHeaders: []string{"x-csrf", "Location", "X-Two", "X-None"},
		Client: fetchAnswer(201, header, `{"x-csrf":"of the body","tenant":"acme"}`),
	}
	tok, err := f.Fetch(t.Context(), rf.Input{})
	if err != nil {
		t.Fatal(err)
	}
	want := object{"x-csrf": "c", "Location": "/sessions/1", "X-Two": []any{"a", "b"}, "tenant": "acme"}
	if !reflect.DeepEqual(tok.Extra, want) || tok.Value("x-csrf") != "c" || tok.Value("X-Two.1") != "b" {
		t.Errorf("got %v", tok.Extra)
	}
}

// Extra is JSON wherever a token is stored, and so a header of other bytes isn't kept in it.
func TestKeptHeaderThatIsNotUTF8(t *testing.T) {
	f := rf.HTTPFetcher{URL: "https://auth.example/", KeepHeaders: []string{"X-Name"}, Client: fetchAnswer(200, http.Header{"X-Name": {"M\xfcller"}}, fetchStd)}
	tok, err := f.Fetch(t.Context(), rf.Input{})
	fetchFailed(t, tok, err, `the header "X-Name", which KeepHeaders names, is not UTF-8`)
}

// Blanks around a token are trimmed, wherever the token is, and Extra has no copy of what
// is left, nor of what is left without its scheme.
func TestTokenWithBlanksAround(t *testing.T) {
	read := func(rf.Input, *http.Response, []byte) (*rf.Token, error) {
		return &rf.Token{AccessToken: " abc\n"}, nil
	}
	for name, tt := range map[string]struct {
		f      rf.HTTPFetcher
		header http.Header
		body   string
	}{
		"a field":     {rf.HTTPFetcher{}, nil, `{"access_token":" abc\r\n","copy":"abc","other":"abc\n"}`},
		"with a type": {rf.HTTPFetcher{}, nil, `{"access_token":"Bearer abc ","copy":"abc"}`},
		"the whole":   {rf.HTTPFetcher{TokenField: "."}, nil, " abc\n"},
		"a string":    {rf.HTTPFetcher{TokenField: "."}, nil, `" abc\n"`},
		"a header":    {rf.HTTPFetcher{TokenHeader: "Authorization"}, http.Header{"Authorization": {"Bearer abc"}}, `{"copy":"abc"}`},
		"Read's":      {rf.HTTPFetcher{Read: read}, nil, ""},
	} {
		f := tt.f
		f.URL, f.Client = "https://auth.example/", fetchAnswer(200, tt.header, tt.body)
		tok, err := f.Fetch(t.Context(), rf.Input{})
		if err != nil || tok.AccessToken != "abc" || tok.Type() != "Bearer" || len(tok.Extra) > 0 {
			t.Errorf("%s: %v, %v, Extra %v", name, tok, err, tok.Extra)
		}
	}
}

func TestReadReadsWhatNoFieldCan(t *testing.T) {
	const answer = `<response><result><sessionid>s1</sessionid><timeout>2199-01-01T00:00:00+02:00</timeout></result></response>`
	extra := object{"own": "x"}
	f := rf.HTTPFetcher{
		URL: "https://auth.example/xml", TokenType: "Session", KeepHeaders: []string{"X-Server"},
		Client: fetchAnswer(200, http.Header{"Content-Type": {"text/xml"}, "X-Server": {"n1"}}, answer),
		Read: func(in rf.Input, resp *http.Response, body []byte) (*rf.Token, error) {
			again, err := io.ReadAll(resp.Body)
			if err != nil || string(again) != string(body) {
				return nil, fmt.Errorf("the body of resp is %q", again)
			}
			var v struct {
				Session string    `xml:"result>sessionid"`
				Until   time.Time `xml:"result>timeout"`
			}
			if err := xml.Unmarshal(body, &v); err != nil {
				return nil, err
			}
			return &rf.Token{AccessToken: v.Session, Expiry: v.Until, Extra: extra}, nil
		},
	}
	tok, err := f.Fetch(t.Context(), rf.Input{})
	if err != nil || tok.AccessToken != "s1" || tok.Type() != "Session" || tok.Expiry.IsZero() || tok.Value("X-Server") != "n1" || tok.Value("own") != "x" {
		t.Fatalf("got %v, %v", tok, err)
	}
	if len(extra) != 1 {
		t.Error("the function's own map was changed")
	}
	secret := errors.New(`strconv.Atoi: parsing "` + fetchSecret + `": invalid syntax`)
	for name, tt := range map[string]struct {
		read      func(rf.Input, *http.Response, []byte) (*rf.Token, error)
		want      string
		transient bool
	}{
		"nothing":        {func(rf.Input, *http.Response, []byte) (*rf.Token, error) { return nil, nil }, "Read returned no token", false},
		"an empty token": {func(rf.Input, *http.Response, []byte) (*rf.Token, error) { return &rf.Token{}, nil }, "the access token is empty", false},
		"an error":       {func(rf.Input, *http.Response, []byte) (*rf.Token, error) { return nil, secret }, "Read: strconv.Atoi", false},
		"a word of the body": {func(_ rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
			return nil, fmt.Errorf("odd: %s", body)
		}, "Read: odd: ", false},
		"an error around one": {func(rf.Input, *http.Response, []byte) (*rf.Token, error) {
			return nil, fmt.Errorf("session: %w", &rf.AuthError{Temporary: true})
		}, "session: ", true},
		"an error that isn't": {func(rf.Input, *http.Response, []byte) (*rf.Token, error) { return nil, &rf.AuthError{Temporary: true} }, "200", true},
	} {
		f := f
		f.Read, f.Client = tt.read, fetchAnswer(200, nil, "<x>"+fetchSecret+"</x>")
		tok, err := f.Fetch(t.Context(), rf.Input{})
		fetchFailed(t, tok, err, tt.want)
		if rf.Transient(err) != tt.transient {
			t.Errorf("%s: transient %v: %v", name, rf.Transient(err), err)
		}
	}
}

// refusedInItsOwnWay is how a server may say that a parent's token isn't good any more.
var refusedInItsOwnWay = map[string]http.HandlerFunc{
	"200 ok:false": func(w http.ResponseWriter, r *http.Request) {
		answerJSON(w, 200, object{"ok": false, "error": "token_revoked"})
	},
	"400":       func(w http.ResponseWriter, r *http.Request) { answerJSON(w, 400, object{"error": "session_expired"}) },
	"400 OAuth": func(w http.ResponseWriter, r *http.Request) { answerJSON(w, 400, object{"error": "invalid_grant"}) },
	"419":       func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(419) },
	"440":       func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(440) },
	"498":       func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(498) },
	"401":       func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) },
}

// A parent that a server refuses in its own way is replaced if Classify says so.
func TestParentRefusedInTheServersOwnWay(t *testing.T) {
	for name, refuse := range refusedInItsOwnWay {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logins, live := 0, ""
				client := inMemory(func(w http.ResponseWriter, r *http.Request) {
					switch {
					case r.URL.Path == "/app":
						logins++
						live = fmt.Sprint("app-", logins)
						answerJSON(w, 200, object{"access_token": live, "expires_in": 30 * 24 * 3600})
					case r.Header.Get("X-App") != live:
						refuse(w, r)
					default:
						answerJSON(w, 200, object{"ok": true, "access_token": "user", "expires_in": 600})
					}
				})
				p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Steps: []rf.Step{
					{Name: "app", Fetcher: &rf.HTTPFetcher{URL: "https://auth.example/app", Client: client}},
					{Name: "user", DependsOn: []string{"app"}, Fetcher: &rf.HTTPFetcher{
						URL: "https://auth.example/user", HeaderFrom: map[string]string{"X-App": "app"}, Client: client,
						Classify: func(resp *http.Response, body []byte) *rf.AuthError {
							var v struct{ OK *bool }
							_ = json.Unmarshal(body, &v)
							refused := v.OK != nil && !*v.OK
							switch resp.StatusCode {
							case 400, 419, 440, 498:
								refused = true
							}
							if !refused {
								return nil
							}
							return &rf.AuthError{ParentRefused: true}
						},
					}},
				}})
				if _, err := p.Token(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				live = "revoked"
				if tok, err := p.Token(t.Context()); err != nil || logins != 2 {
					t.Errorf("%v, %v after %d logins of the app", tok, err, logins)
				}
			})
		})
	}
}

// A status that means "not yet" at this server is tried again if Classify says so.
func TestStatusThatMeansNotYet(t *testing.T) {
	for _, status := range []int{404, 410, 425, 503, 200} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				f := &rf.HTTPFetcher{
					URL: "https://auth.example/identity/token", Method: "GET", Header: http.Header{"Metadata": {"true"}},
					Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
						if n++; n == 1 {
							answerJSON(w, status, object{"state": "pending"})
							return
						}
						answerJSON(w, 200, object{"access_token": "a", "expires_in": "86399"})
					}),
					Classify: func(resp *http.Response, body []byte) *rf.AuthError {
						if s := resp.StatusCode; s == 404 || s == 410 || strings.Contains(string(body), "pending") {
							return &rf.AuthError{Temporary: true}
						}
						return nil
					},
				}
				p := pipeline(t, rf.PipelineConfig{FetchRetries: 3, Steps: []rf.Step{{Name: "s", Fetcher: f}}})
				if _, err := p.Token(t.Context()); err != nil || n != 2 {
					t.Errorf("%v after %d requests", err, n)
				}
				f.Classify = nil
				n = 0
				if _, err := p.Refresh(t.Context()); (err == nil) != (status == 425 || status == 503) {
					t.Errorf("without Classify: %v after %d requests", err, n)
				}
			})
		})
	}
}

func TestClassifyIsCompletedFromTheAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		header http.Header
		body   string
		said   *rf.AuthError
		want   rf.AuthError // without Err
		text   string
	}{
		"nothing of it":     {status: 401, body: `{"error":"invalid_client"}`, want: rf.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true}, text: "401 Unauthorized"},
		"an empty one":      {status: 200, body: `{"error":"invalid_grant"}`, said: &rf.AuthError{}, want: rf.AuthError{StatusCode: 200, Code: "invalid_grant", Permanent: true}, text: "200 OK"},
		"a verdict":         {status: 400, body: `{"error":"invalid_grant"}`, said: &rf.AuthError{Temporary: true}, want: rf.AuthError{StatusCode: 400, Code: "invalid_grant", Temporary: true}, text: "400"},
		"a cause":           {status: 200, said: &rf.AuthError{Permanent: true, Err: errors.New("wrong password")}, want: rf.AuthError{StatusCode: 200, Permanent: true}, text: "wrong password"},
		"a secret cause":    {status: 200, body: "pass " + fetchSecret, said: &rf.AuthError{Err: errors.New("it said: pass " + fetchSecret)}, want: rf.AuthError{StatusCode: 200}, text: "it said: "},
		"a code":            {status: 200, said: &rf.AuthError{Code: "access_denied"}, want: rf.AuthError{StatusCode: 200, Code: "access_denied", Permanent: true}},
		"a code nobody has": {status: 200, said: &rf.AuthError{Code: fetchSecret}, want: rf.AuthError{StatusCode: 200}},
		"a wait":            {status: 200, header: http.Header{"Retry-After": {"7"}}, said: &rf.AuthError{Temporary: true}, want: rf.AuthError{StatusCode: 200, Temporary: true, RetryAfter: 7 * time.Second}},
		"a step":            {status: 200, said: &rf.AuthError{Step: "other", Unsent: true}, want: rf.AuthError{StatusCode: 200}},
	} {
		f := rf.HTTPFetcher{URL: "https://auth.example/", Client: fetchAnswer(tt.status, tt.header, tt.body), Classify: func(resp *http.Response, body []byte) *rf.AuthError {
			if again, err := io.ReadAll(resp.Body); err != nil || string(again) != string(body) || string(body) != tt.body {
				t.Errorf("%s: the bodies are %q and %q", name, body, again)
			}
			return tt.said
		}}
		tok, err := f.Fetch(t.Context(), rf.Input{})
		got := *fetchFailed(t, tok, err, tt.text)
		got.Err = nil
		if plainly(got) != plainly(tt.want) {
			t.Errorf("%s: got %+v, want %+v", name, plainly(got), plainly(tt.want))
		}
	}
}

// plainly is an AuthError that prints its fields.
func plainly(e rf.AuthError) any {
	type bare struct {
		Step                                                        string
		Status                                                      int
		Code                                                        string
		Temporary, Permanent, ParentRefused, RefreshRefused, Unsent bool
		RetryAfter                                                  time.Duration
	}
	return bare{e.Step, e.StatusCode, e.Code, e.Temporary, e.Permanent, e.ParentRefused, e.RefreshRefused, e.Unsent, e.RetryAfter}
}

// A refresh token that a server refuses in its own way is never sent again, and one that
// it says nothing about is.
func TestRefreshRefusedInTheServersOwnWay(t *testing.T) {
	for name, tt := range map[string]struct {
		said              *rf.AuthError
		refreshes, logins int // in all
	}{
		"refused":                 {&rf.AuthError{RefreshRefused: true}, 1, 2},
		"with the parent's token": {&rf.AuthError{RefreshRefused: true, ParentRefused: true}, 1, 2},
		"for good":                {&rf.AuthError{Permanent: true}, 1, 2}, // not the token, but the request
		"without a verdict":       {&rf.AuthError{Err: errors.New("the session is over")}, 1, 2},
		"temporary":               {&rf.AuthError{Temporary: true}, 2, 1}, // tried again, with success
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refreshes, logins := 0, 0
				login := rf.HTTPFetcher{URL: "https://auth.example/login", ExpiresInField: "in", Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/refresh":
						if refreshes++; refreshes == 1 {
							answerJSON(w, 200, object{"ok": false})
							return
						}
					case "/login":
						logins++
					}
					answerJSON(w, 200, object{"access_token": fmt.Sprint("a", refreshes, logins), "refresh_token": fmt.Sprint("r", refreshes, logins), "in": 600})
				})}
				refresh := login // a copy with some fields changed
				refresh.URL = "https://auth.example/refresh"
				refresh.BodyFrom = func(in rf.Input) (any, error) { return object{"refresh": in.Previous.RefreshToken}, nil }
				refresh.Classify = func(_ *http.Response, body []byte) *rf.AuthError {
					if strings.Contains(string(body), "false") {
						return tt.said
					}
					return nil
				}
				p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Storage: rf.NewMemoryStorage(), Steps: []rf.Step{
					{Name: "app", Fetcher: &rf.HTTPFetcher{URL: "https://auth.example/app", Client: login.Client}},
					{Name: "user", DependsOn: []string{"app"}, Fetcher: &login, Refresh: &refresh},
				}})
				for range 2 {
					if _, err := p.Token(t.Context()); err != nil {
						t.Fatal(err)
					}
					time.Sleep(11 * time.Minute)
				}
				if refreshes != tt.refreshes || logins != tt.logins {
					t.Errorf("%d refreshes and %d logins", refreshes, logins)
				}
			})
		})
	}
}

// What the answer to a refresh leaves out of Extra stays, and so do the refresh token and
// the cookies, over a storage, too.
func TestRefreshKeepsWhatItsAnswerLeavesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		login := rf.HTTPFetcher{URL: "https://auth.example/login", TokenField: "data.token", KeepHeaders: []string{"X-Csrf"}, Cookies: true, Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/refresh" {
				if c, err := r.Cookie("sid"); err != nil || c.Value != "s" {
					t.Errorf("the refresh has the cookies %v", r.Cookies())
				}
				n++
				answerJSON(w, 200, object{"data": object{"token": fmt.Sprint("a", n), "region": fmt.Sprint(n)}, "expires_in": 600, "gone": nil})
				return
			}
			w.Header().Set("X-Csrf", "c")
			http.SetCookie(w, &http.Cookie{Name: "sid", Value: "s"})
			answerJSON(w, 200, object{"data": object{"token": "a", "tenant": "acme", "region": "0"}, "refresh_token": "r", "expires_in": 600, "instance_url": "https://eu1.example.com", "list": []int{1, 2}, "gone": "x"})
		})}
		refresh := login
		refresh.URL = "https://auth.example/refresh"
		storage := rf.NewMemoryStorage()
		process := func() *rf.Pipeline {
			return pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Storage: storage, Steps: []rf.Step{{Name: "user", Fetcher: &login, Refresh: &refresh}}})
		}
		if _, err := process().Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		for round := 1; round <= 2; round++ {
			time.Sleep(11 * time.Minute)
			tok, err := process().Token(t.Context())
			if err != nil || n != round {
				t.Fatal(err, n)
			}
			want := object{
				"data": object{"tenant": "acme", "region": fmt.Sprint(round)}, "instance_url": "https://eu1.example.com", "X-Csrf": "c", "gone": nil,
				"list": []any{json.Number("1"), json.Number("2")},
			}
			if tok.RefreshToken != "r" || !reflect.DeepEqual(tok.Extra, want) {
				t.Errorf("after %d refreshes: %v", round, tok.Extra)
			}
		}
	})
}

// A login from scratch is another session: nothing of the one before stays.
func TestLoginKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "user", TTL: time.Minute, Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			n++
			return &rf.Token{AccessToken: fmt.Sprint(n), Extra: object{fmt.Sprint("of", n): "x"}}, nil
		})}}})
		for i := 1; i <= 2; i++ {
			tok, err := p.Token(t.Context())
			if err != nil || len(tok.Extra) != 1 || tok.Value(fmt.Sprint("of", i)) != "x" {
				t.Errorf("%v, %v", tok, err)
			}
			time.Sleep(time.Hour)
		}
	})
}

// A lifetime of 0 means never, but of a token that was there before it means now: a
// server that caches its tokens counts down.
func TestLifetimeOfZero(t *testing.T) {
	for _, scheme := range []string{"", "Bearer "} {
		synctest.Test(t, func(t *testing.T) {
			answers := []object{
				{"access_token": scheme + "a", "expires_in": 100},
				{"access_token": scheme + "a", "expires_in": 0},
				{"access_token": scheme + "b", "expires_in": 0},
			}
			n := 0
			p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Steps: []rf.Step{{Name: "s", Fetcher: &rf.HTTPFetcher{URL: "https://auth.example/", Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
				answerJSON(w, 200, answers[min(n, len(answers)-1)])
				n++
			})}}}})
			if tok, err := p.Token(t.Context()); err != nil || tok.AccessToken != "a" {
				t.Fatal(tok, err)
			}
			time.Sleep(95 * time.Second)
			if tok, err := p.Token(t.Context()); err != nil || tok.AccessToken != "b" || !tok.Expiry.IsZero() || n != 3 {
				t.Errorf("%q: %v, %v after %d requests", scheme, tok, err, n)
			}
		})
	}
}

// A server whose tokens don't end may say 0 each time, or nothing, and hand out the same
// token. The end that a TTL has set isn't the server's, be it of a program before.
func TestLifetimeOfZeroOfATokenWithoutAnEnd(t *testing.T) {
	for name, answer := range map[string]object{"0": {"access_token": "a", "expires_in": 0}, "nothing": {"access_token": "a"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storage, n := rf.NewMemoryStorage(), 0
				for _, ttl := range []time.Duration{0, time.Hour, 0} {
					p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Storage: storage, Steps: []rf.Step{{Name: "s", TTL: ttl, Fetcher: &rf.HTTPFetcher{URL: "https://auth.example/", Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
						n++
						answerJSON(w, 200, answer)
					})}}}})
					for range 3 {
						asked := n
						if tok, err := p.Refresh(t.Context()); err != nil || tok.AccessToken != "a" || tok.Expiry.IsZero() != (ttl == 0) || n != asked+1 {
							t.Errorf("a TTL of %v: %v, %v after %d requests", ttl, tok, err, n-asked)
						}
						time.Sleep(time.Minute)
						if tok, err := p.Refresh(t.Context()); err != nil || ttl > 0 && time.Until(tok.Expiry) != ttl {
							t.Errorf("a TTL of %v, a minute later: %v, %v", ttl, tok, err)
						}
						time.Sleep(2 * time.Hour)
					}
				}
			})
		})
	}
}

// An answer to a refresh isn't put in doubt: it may repeat the access token, with 0 or
// nothing about its life, and bring the only refresh token that is left.
func TestLifetimeOfZeroInAnAnswerToARefresh(t *testing.T) {
	for name, life := range map[string]object{"0": {"expires_in": 0}, "nothing": {}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				live, logins, refreshes, reused := "", 0, 0, 0
				login := rf.HTTPFetcher{URL: "https://auth.example/login", Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
					answer := object{"access_token": "a", "expires_in": 600}
					if r.URL.Path == "/refresh" {
						if r.FormValue("refresh_token") != live {
							reused++
						}
						answer = maps.Clone(life)
						answer["access_token"] = "a"
						refreshes++
					} else {
						logins++
					}
					live = fmt.Sprint("r", logins, refreshes)
					answer["refresh_token"] = live
					answerJSON(w, 200, answer)
				})}
				refresh := login
				refresh.URL = "https://auth.example/refresh"
				refresh.BodyFrom = func(in rf.Input) (any, error) {
					return url.Values{"refresh_token": {in.Previous.RefreshToken}}, nil
				}
				p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Storage: rf.NewMemoryStorage(), Steps: []rf.Step{{Name: "s", Fetcher: &login, Refresh: &refresh}}})
				for _, wait := range []time.Duration{0, 595 * time.Second, 4 * time.Second, time.Minute, time.Hour} {
					time.Sleep(wait)
					if tok, err := p.Token(t.Context()); err != nil || tok.RefreshToken != live {
						t.Errorf("after %v: %v, %v", wait, tok, err)
					}
				}
				if logins != 1 || refreshes == 0 || refreshes > 3 || reused > 0 {
					t.Errorf("%d logins, %d refreshes, %d with a token that was spent", logins, refreshes, reused)
				}
			})
		})
	}
}

// A server may say once when a token ends. The same token without a word doesn't become
// one for ever, nor one for as long as a TTL; nor is it refused for ever once its end is
// past.
func TestSameTokenKeepsItsExpiry(t *testing.T) {
	for _, ttl := range []time.Duration{0, 24 * time.Hour} {
		for name, answer := range map[string]object{"0": {"access_token": "a", "expires_in": 0}, "nothing": {"access_token": "a"}} {
			t.Run(fmt.Sprint(name, ttl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					end, n := time.Now().Add(time.Hour), 0
					p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Steps: []rf.Step{{Name: "s", TTL: ttl, Fetcher: &rf.HTTPFetcher{URL: "https://auth.example/", Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
						if n++; n == 1 {
							answerJSON(w, 200, object{"access_token": "a", "expires_in": 3600})
							return
						}
						answerJSON(w, 200, answer)
					})}}}})
					for range 2 {
						tok, err := p.Refresh(t.Context())
						if n > 1 && name == "0" {
							if err == nil {
								t.Errorf("%v, though the server says that it ends now", tok)
							}
						} else if err != nil || !tok.Expiry.Equal(end) {
							t.Errorf("%v, %v", tok, err)
						}
					}
					time.Sleep(time.Hour + 2*time.Minute)
					if tok, err := p.Token(t.Context()); err != nil || tok.Expiry.IsZero() != (ttl == 0) {
						t.Errorf("after its end: %v, %v", tok, err)
					}
				})
			})
		}
	}
}

// A token of a parent, or a value of a parent's Extra, ends with the parent's token, and
// the parent is blamed for its refusal.
func TestTokenThatIsHandedOn(t *testing.T) {
	for name, read := range map[string]func(rf.Input, *http.Response, []byte) (*rf.Token, error){
		"the token": func(in rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
			return &rf.Token{AccessToken: in.Parents["login"].AccessToken, Extra: object{"config": string(body)}}, nil
		},
		"a number": func(in rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
			return &rf.Token{AccessToken: in.Parents["login"].Value("n")}, nil
		},
		"with its scheme": func(in rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
			return &rf.Token{AccessToken: in.Parents["login"].Value("typed")}, nil
		},
		"a value of it": func(in rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
			return &rf.Token{AccessToken: in.Parents["login"].Value("data.session"), Expiry: time.Now().Add(24 * time.Hour)}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logins, configs := 0, 0
				client := inMemory(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/config" {
						configs++
						answerJSON(w, 200, object{"n": configs})
						return
					}
					logins++
					answerJSON(w, 200, object{"access_token": fmt.Sprint("t", logins), "data": object{"session": fmt.Sprint("s", logins)}, "n": 1000 + logins, "typed": fmt.Sprint("Bearer y", logins), "expires_in": 600})
				})
				p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Steps: []rf.Step{
					{Name: "login", Fetcher: &rf.HTTPFetcher{URL: "https://auth.example/login", Client: client}},
					{Name: "session", DependsOn: []string{"login"}, Fetcher: &rf.HTTPFetcher{URL: "https://auth.example/config", Method: "GET", HeaderFrom: map[string]string{"Authorization": "login"}, Client: client, Read: read}},
				}})
				tok, err := p.Token(t.Context())
				if err != nil || time.Until(tok.Expiry) != 10*time.Minute {
					t.Fatalf("%v, %v: want the parent's end", tok, err)
				}
				if err := p.Invalidate(t.Context(), tok); err != nil {
					t.Fatal(err)
				}
				next, err := p.Token(t.Context())
				if err != nil || logins != 2 || next.AccessToken == tok.AccessToken {
					t.Errorf("%v, %v after %d logins: the refusal blames the parent", next, err, logins)
				}
			})
		})
	}
}

func TestExpireEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct{ early, life, ttl, want time.Duration }{
			"a minute":             {time.Minute, time.Hour, 0, 59 * time.Minute},
			"never more than half": {time.Hour, 10 * time.Minute, 0, 5 * time.Minute},
			"of the TTL":           {time.Minute, time.Hour, 30 * time.Minute, 29 * time.Minute},
			"without an end":       {time.Minute, 0, 0, 0},
		} {
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "s", ExpireEarly: tt.early, TTL: tt.ttl, Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				tok := &rf.Token{AccessToken: "a"}
				if tt.life > 0 {
					tok.Expiry = time.Now().Add(tt.life)
				}
				return tok, nil
			})}}})
			tok, err := p.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := time.Duration(0)
			if !tok.Expiry.IsZero() {
				got = time.Until(tok.Expiry)
			}
			if got != tt.want {
				t.Errorf("%s: %v left, want %v", name, got, tt.want)
			}
		}
	})
}

func TestStepTimeout(t *testing.T) {
	for name, tt := range map[string]struct{ all, step, want time.Duration }{
		"longer":   {time.Second, time.Minute, time.Minute},
		"shorter":  {time.Minute, time.Second, time.Second},
		"no bound": {time.Second, -1, time.Hour},
		"none":     {time.Second, 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				p := pipeline(t, rf.PipelineConfig{FetchTimeout: tt.all, FetchRetries: -1, Steps: []rf.Step{
					{Name: "quick", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) { return &rf.Token{AccessToken: "a"}, nil })},
					{Name: "person", DependsOn: []string{"quick"}, Timeout: tt.step, Fetcher: rf.FetcherFunc(func(ctx context.Context, _ rf.Input) (*rf.Token, error) {
						select {
						case <-time.After(time.Hour):
							return &rf.Token{AccessToken: "a"}, nil
						case <-ctx.Done():
							return nil, context.Cause(ctx)
						}
					})},
				}})
				_, err := p.Token(t.Context())
				if took := time.Since(begun); took != tt.want || (err == nil) != (tt.want == time.Hour) {
					t.Errorf("%v after %v, want %v", err, took, tt.want)
				}
				if named := err != nil && strings.Contains(err.Error(), "Step.Timeout"); named != (tt.step > 0) {
					t.Errorf("the error names Step.Timeout: %v: %v", named, err)
				}
			})
		})
	}
}
