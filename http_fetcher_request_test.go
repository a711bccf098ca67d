package requestforge_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	rf "github.com/requestforge/requestforge"
)

// seenURLs is a client that answers with a token, and notes where requests went.
func seenURLs(seen *[]string) *http.Client {
	return inMemory(func(w http.ResponseWriter, r *http.Request) {
		*seen = append(*seen, r.URL.String())
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
			return
		}
		answerJSON(w, 200, object{"access_token": "a"})
	})
}

// Where a step's request goes may be an earlier step's answer, but for the origins that
// the program names.
func TestURLFromAnEarlierAnswer(t *testing.T) {
	boom := errors.New("boom")
	for name, tt := range map[string]struct {
		url     string
		origins []string
		said    string
		err     error
		want    string // where it went
		fail    string
	}{
		"another host":           {origins: []string{"https://*.example.com"}, said: "https://eu1.example.com/t?a=b", want: "https://eu1.example.com/t?a=b"},
		"one of two":             {origins: []string{"https://a.test", "https://b.test:8443"}, said: "https://b.test:8443/t", want: "https://b.test:8443/t"},
		"relative":               {url: "https://bmc.test/redfish/v1/", said: "SessionService/Sessions", want: "https://bmc.test/redfish/v1/SessionService/Sessions"},
		"a path":                 {url: "https://bmc.test/redfish/v1/", said: "/sessions", want: "https://bmc.test/sessions"},
		"the origin of URL":      {url: "https://bmc.test/", said: "https://bmc.test/sessions", want: "https://bmc.test/sessions"},
		"URL beside Origins":     {url: "https://bmc.test/", origins: []string{"https://other.test"}, said: "https://bmc.test/x", want: "https://bmc.test/x"},
		"this machine":           {origins: []string{"http://127.0.0.1:8080"}, said: "http://127.0.0.1:8080/t", want: "http://127.0.0.1:8080/t"},
		"outside":                {origins: []string{"https://*.example.com"}, said: "https://example.com.evil.test/" + fetchSecret, fail: "none of Origins"},
		"outside the URL":        {url: "https://bmc.test/", said: "https://evil.test/", fail: "none of Origins"},
		"another host, relative": {url: "https://bmc.test/", said: "//evil.test/", fail: "none of Origins"},
		"another scheme":         {url: "https://bmc.test/", said: "http://bmc.test/", fail: "none of Origins"},
		"plain http":             {origins: []string{"http://a.test"}, said: "http://a.test/", fail: "plain http"},
		"a user":                 {origins: []string{"https://a.test"}, said: "https://u:" + fetchSecret + "@a.test/", fail: "a user in it"},
		"relative to nothing":    {origins: []string{"https://a.test"}, said: "/x", fail: "without a host"},
		"no URL":                 {url: "https://bmc.test/", said: "", fail: "returned no URL"},
		"no sense":               {url: "https://bmc.test/", said: "https://h:" + fetchSecret, fail: "doesn't parse"},
		"an error":               {url: "https://bmc.test/", err: boom, fail: "URLFrom: boom"},
		"javascript":             {url: "https://bmc.test/", said: "javascript:alert(1)", fail: "URLFrom returned"},
	} {
		t.Run(name, func(t *testing.T) {
			var seen []string
			f := rf.HTTPFetcher{URL: tt.url, Origins: tt.origins, Client: seenURLs(&seen), URLFrom: func(in rf.Input) (string, error) {
				return in.Parents["discovery"].Value("url"), tt.err
			}}
			if err := f.Validate(); err != nil {
				t.Fatal(err)
			}
			tok, err := f.Fetch(t.Context(), rf.Input{Parents: map[string]*rf.Token{"discovery": {AccessToken: "-", Extra: object{"url": tt.said}}}})
			if tt.fail == "" {
				if err != nil || strings.Join(seen, " ") != tt.want {
					t.Errorf("went to %q, %v, want %q", seen, err, tt.want)
				}
				return
			}
			ae := fetchFailed(t, tok, err, tt.fail)
			if len(seen) > 0 || !ae.Unsent || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("sent to %q, unsent %v", seen, ae.Unsent)
			}
			if strings.Contains(err.Error(), "evil") {
				t.Errorf("the error has the answer's words: %v", err)
			}
		})
	}
}

// A failure after URLFrom shows of the URL no more than the origin.
func TestURLFromIsNotShown(t *testing.T) {
	f := rf.HTTPFetcher{Origins: []string{"https://a.test"}, Client: fetchAnswer(500, nil, ""), URLFrom: func(rf.Input) (string, error) { return "https://a.test/" + fetchSecret, nil }}
	tok, err := f.Fetch(t.Context(), rf.Input{})
	fetchFailed(t, tok, err, "POST https://a.test/...: 500")
	if text := f.String(); !strings.Contains(text, "an earlier answer") {
		t.Error(text)
	}
}

// What a function says of a failure, and what it makes of an earlier answer, shows none of
// that answer: functions quote what they were given.
func TestErrorsOfFunctionsShowNoAnswer(t *testing.T) {
	in := rf.Input{Parents: map[string]*rf.Token{"d": {AccessToken: "a", Extra: object{"v": fetchSecret}}}}
	bad := func(in rf.Input) error { _, err := strconv.Atoi(in.Parents["d"].Value("v")); return err }
	for want, f := range map[string]rf.HTTPFetcher{
		"URLFrom: strconv.Atoi":  {URLFrom: func(in rf.Input) (string, error) { return "", bad(in) }},
		"BodyFrom: strconv.Atoi": {BodyFrom: func(in rf.Input) (any, error) { return "", bad(in) }},
		"Prepare: strconv.Atoi":  {Prepare: func(_ *http.Request, in rf.Input) error { return bad(in) }},
		"POST https://auth.example/...: 500": {Client: fetchAnswer(500, nil, ""), Prepare: func(r *http.Request, in rf.Input) error {
			r.URL.Path = "/" + in.Parents["d"].Value("v")
			return nil
		}},
		"no such host": {Method: "GET", Origins: []string{"https://*.example.com"}, Client: &http.Client{Transport: fetchRT(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "auth.example" {
				return &http.Response{StatusCode: 302, Header: http.Header{"Location": {"https://" + fetchSecret + ".example.com/"}}, Body: http.NoBody, Request: r}, nil
			}
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: r.URL.Host}}
		})}},
	} {
		f.URL = "https://auth.example/token"
		tok, err := f.Fetch(t.Context(), in)
		fetchFailed(t, tok, err, want)
	}
}

// Origins say where redirects and Prepare may lead, too.
func TestOriginsBindRedirectsAndPrepare(t *testing.T) {
	for name, tt := range map[string]struct {
		origins []string
		to      string
		n       int // requests
		fail    string
	}{
		"within":            {nil, "https://auth.example/x", 2, ""},
		"another origin":    {nil, "https://id.example.com/", 1, "redirect to another origin"},
		"one of Origins":    {[]string{"https://*.example.com"}, "https://id.example.com/", 2, ""},
		"none of Origins":   {[]string{"https://*.example.com"}, "https://example.net/", 1, "redirect to another origin"},
		"plain http":        {[]string{"http://id.example.com"}, "http://id.example.com/", 1, "plain http"},
		"back to the first": {[]string{"https://*.example.com"}, "https://id.example.com/?to=https://auth.example/", 3, ""},
	} {
		var seen []string
		f := rf.HTTPFetcher{URL: "https://auth.example/?to=" + url.QueryEscape(tt.to), Method: "GET", Origins: tt.origins, Client: seenURLs(&seen)}
		tok, err := f.Fetch(t.Context(), rf.Input{})
		if tt.fail != "" {
			fetchFailed(t, tok, err, tt.fail)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(seen) != tt.n {
			t.Errorf("%s: %q", name, seen)
		}
	}
	for to, ok := range map[string]bool{"https://id.example.com/": true, "https://auth.example/y": true, "https://example.net/": false} {
		var seen []string
		f := rf.HTTPFetcher{URL: "https://auth.example/", Origins: []string{"https://*.example.com"}, Client: seenURLs(&seen), Prepare: func(req *http.Request, _ rf.Input) (err error) {
			req.URL, err = url.Parse(to)
			return err
		}}
		tok, err := f.Fetch(t.Context(), rf.Input{})
		if ok != (err == nil) || ok != (len(seen) == 1) {
			t.Errorf("Prepare to %s: %v, %v, %q", to, tok, err, seen)
		}
	}
}

// A redirect to one of Origins has the credentials of the request, which the program's own
// CheckRedirect can still take away.
func TestRedirectWithinOriginsKeepsTheCredentials(t *testing.T) {
	in := rf.Input{Parents: map[string]*rf.Token{"app": {AccessToken: "t"}}}
	for name, tt := range map[string]struct {
		f     rf.HTTPFetcher
		to    string
		check func(*http.Request, []*http.Request) error
		want  string // at the last request
	}{
		"a client":            {f: rf.HTTPFetcher{ClientAuth: &rf.ClientAuth{ID: "id", Secret: "s3cret"}}, to: "https://eu.example.com/t", want: "Basic aWQ6czNjcmV0"},
		"HeaderFrom":          {f: rf.HTTPFetcher{HeaderFrom: map[string]string{"Authorization": "app"}}, to: "https://eu.example.com/t", want: "Bearer t"},
		"Header":              {f: rf.HTTPFetcher{Header: http.Header{"Authorization": {"Vendor x"}}}, to: "https://eu.example.com/t", want: "Vendor x"},
		"Prepare":             {f: rf.HTTPFetcher{Prepare: func(r *http.Request, _ rf.Input) error { r.Header.Set("Authorization", "Signed x"); return nil }}, to: "https://eu.example.com/t", want: "Signed x"},
		"a cookie":            {f: rf.HTTPFetcher{Header: http.Header{"Authorization": {"Vendor x"}, "Cookie": {"a=b"}}}, to: "https://eu.example.com/t", want: "Vendor x, a=b"},
		"twice":               {f: rf.HTTPFetcher{HeaderFrom: map[string]string{"Authorization": "app"}}, to: "https://eu.example.com/?to=https://us.example.com/", want: "Bearer t"},
		"and back":            {f: rf.HTTPFetcher{HeaderFrom: map[string]string{"Authorization": "app"}}, to: "https://eu.example.com/?to=https://login.example.com/", want: "Bearer t"},
		"none":                {to: "https://eu.example.com/t", want: ""},
		"taken by the client": {f: rf.HTTPFetcher{HeaderFrom: map[string]string{"Authorization": "app"}}, to: "https://eu.example.com/t", check: func(r *http.Request, _ []*http.Request) error { r.Header.Del("Authorization"); return nil }, want: ""},
	} {
		var got string
		f := tt.f
		f.URL, f.Method, f.Origins = "https://login.example.com/?to="+url.QueryEscape(tt.to), "GET", []string{"https://*.example.com"}
		f.Client = inMemory(func(w http.ResponseWriter, r *http.Request) {
			if to := r.URL.Query().Get("to"); to != "" {
				http.Redirect(w, r, to, http.StatusTemporaryRedirect)
				return
			}
			got = strings.Trim(r.Header.Get("Authorization")+", "+r.Header.Get("Cookie"), ", ")
			answerJSON(w, 200, object{"access_token": "a"})
		})
		f.Client.CheckRedirect = tt.check
		if _, err := f.Fetch(t.Context(), in); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tt.want)
		}
	}
}

// The value of a step's token goes into a header by its path; the whole is first looked
// for as a step's name.
func TestHeaderFromAValueOfAToken(t *testing.T) {
	in := rf.Input{Parents: map[string]*rf.Token{
		"app":     {AccessToken: "token", TokenType: "DPoP", Extra: object{"tenant": "acme", "n": 7, "data": object{"id": "x", "a.b": "dots"}, "typed": "Basic abc", "crlf": "a\r\nX: y", "object": object{}}},
		"app.two": {AccessToken: "second", Extra: object{"tenant": "other"}},
		"vendor":  {AccessToken: "user abc", TokenType: "Vendor"},
		"none":    {},
	}}
	for from, want := range map[string]string{
		"app": "token", "app.tenant": "acme", "app.n": "7", "app.data.id": "x", "app.data.a.b": "dots", "app.two": "second", "app.two.tenant": "other",
		"app.missing": "!has no value", "app.object": "!has no value", "app.crlf": "!control characters", "app.": `!no token of step "app."`, "who": `!no token of step "who"`, "who.tenant": `!no token of step "who.tenant"`, "none.tenant": "!access token is empty",
	} {
		var got http.Header
		f := rf.HTTPFetcher{URL: "https://auth.example/", HeaderFrom: map[string]string{"X-From": from}, Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
			got = r.Header
			answerJSON(w, 200, object{"access_token": "a"})
		})}
		tok, err := f.Fetch(t.Context(), in)
		if fail, ok := strings.CutPrefix(want, "!"); ok {
			if ae := fetchFailed(t, tok, err, fail); !ae.Unsent || got != nil {
				t.Errorf("%s: sent", from)
			}
		} else if err != nil || got.Get("X-From") != want {
			t.Errorf("%s: %q, %v, want %q", from, got.Get("X-From"), err, want)
		}
	}
	for from, want := range map[string]string{"app": "DPoP token", "app.tenant": "DPoP acme", "app.typed": "Basic abc", "app.two": "Bearer second", "vendor": "Vendor user abc"} {
		var got string
		f := rf.HTTPFetcher{URL: "https://auth.example/", HeaderFrom: map[string]string{"authorization": from}, Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
			got = r.Header.Get("Authorization")
			answerJSON(w, 200, object{"access_token": "a"})
		})}
		if _, err := f.Fetch(t.Context(), in); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", from, got, err, want)
		}
	}
	// NewPipeline knows which step is meant, one that isn't in DependsOn included.
	f := func(from string) rf.Fetcher {
		return &rf.HTTPFetcher{URL: "https://auth.example/", HeaderFrom: map[string]string{"X-From": from}}
	}
	for from, ok := range map[string]bool{"app": true, "app.tenant": true, "v1.app": true, "v1.app.tenant": true, "ap": false, "v1": false, "v1.tenant": false, "app.other": false, "app.other.tenant": false} {
		_, err := rf.NewPipeline(rf.PipelineConfig{Steps: []rf.Step{{Name: "app", Fetcher: loginFetcher()}, {Name: "v1.app", Fetcher: loginFetcher()}, {Name: "app.other", Fetcher: loginFetcher()}, {Name: "user", DependsOn: []string{"app", "v1.app"}, Fetcher: f(from)}}})
		if (err == nil) != ok {
			t.Errorf("%s: %v", from, err)
		}
	}
}

func loginFetcher() rf.Fetcher { return &rf.HTTPFetcher{URL: "https://auth.example/"} }

// A value of JSON is JSON, whatever its type, and its secrets are no part of the identity;
// as bytes or as a form a body is BodyFrom's and Form's only.
func TestJSONIsAlwaysJSON(t *testing.T) {
	for name, tt := range map[string]struct {
		value func(password string) any
		want  string
	}{
		"bytes":   {func(p string) any { return []byte(`{"user":"u","password":"` + p + `"}`) }, `{"user":"u","password":"a"}`},
		"raw":     {func(p string) any { return json.RawMessage(`{"user":"u","password":"` + p + `"}`) }, `{"user":"u","password":"a"}`},
		"values":  {func(p string) any { return url.Values{"user": {"u"}, "password": {p}} }, `{"password":["a"],"user":["u"]}`},
		"strings": {func(p string) any { return map[string]string{"user": "u", "pass": p} }, `{"pass":"a","user":"u"}`},
	} {
		var body, contentType string
		f := rf.HTTPFetcher{URL: "https://auth.example/", JSON: tt.value("a"), Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			body, contentType = string(b), r.Header.Get("Content-Type")
			answerJSON(w, 200, object{"access_token": "a"})
		})}
		if _, err := f.Fetch(t.Context(), rf.Input{}); err != nil || body != tt.want || contentType != "application/json" {
			t.Errorf("%s: %s as %q, %v", name, body, contentType, err)
		}
		rotated := rf.HTTPFetcher{URL: f.URL, JSON: tt.value("b")}
		if id := f.Identity(); id == "" || id != rotated.Identity() || !strings.Contains(id, `"u"`) {
			t.Errorf("%s: %s, and %s with a rotated password", name, id, rotated.Identity())
		}
	}
}

// What BodyFrom returns as bytes goes as it is.
func TestBodyFromBytes(t *testing.T) {
	var body, contentType string
	f := rf.HTTPFetcher{URL: "https://auth.example/", Header: http.Header{"Content-Type": {"text/xml"}}, BodyFrom: func(rf.Input) (any, error) { return []byte("<login/>"), nil }, Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body, contentType = string(b), r.Header.Get("Content-Type")
		answerJSON(w, 200, object{"access_token": "a"})
	})}
	if _, err := f.Fetch(t.Context(), rf.Input{}); err != nil || body != "<login/>" || contentType != "text/xml" {
		t.Errorf("%q as %q, %v", body, contentType, err)
	}
	f.ClientAuth = &rf.ClientAuth{ID: "c", InBody: true}
	tok, err := f.Fetch(t.Context(), rf.Input{})
	fetchFailed(t, tok, err, "ClientAuth.InBody")
}

// The Host is that of the URL which Prepare has set.
func TestPreparedURLReachesItsHost(t *testing.T) {
	var host string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host = r.Host
		answerJSON(w, 200, object{"access_token": "x"})
	}))
	defer srv.Close()
	f := &rf.HTTPFetcher{URL: "https://placeholder.test/x", Prepare: func(req *http.Request, in rf.Input) (err error) {
		req.URL, err = req.URL.Parse(in.Parents["discovery"].AccessToken)
		return err
	}}
	_, err := f.Fetch(context.Background(), rf.Input{Parents: map[string]*rf.Token{"discovery": {AccessToken: srv.URL + "/t"}}})
	if err != nil || host != strings.TrimPrefix(srv.URL, "http://") {
		t.Errorf("Host %q, %v", host, err)
	}
}

// What is wrong with the fields that say where the request goes and what is read.
func TestValidateOfPlaces(t *testing.T) {
	const https = "https://auth.example/token"
	from := func(rf.Input) (string, error) { return "", nil }
	read := func(rf.Input, *http.Response, []byte) (*rf.Token, error) { return nil, nil }
	for name, tt := range map[string]struct {
		f    rf.HTTPFetcher
		want string // "": nothing is wrong
	}{
		"URLFrom alone":        {rf.HTTPFetcher{URLFrom: from}, "URLFrom alone needs Origins"},
		"URLFrom and Origins":  {rf.HTTPFetcher{URLFrom: from, Origins: []string{"https://*.example.com"}}, ""},
		"URLFrom and URL":      {rf.HTTPFetcher{URLFrom: from, URL: https}, ""},
		"empty Origins":        {rf.HTTPFetcher{URL: https, Origins: []string{}}, "Origins is empty"},
		"any origin":           {rf.HTTPFetcher{URL: https, Origins: []string{"*"}}, `Origins: "*"`},
		"no origin":            {rf.HTTPFetcher{URL: https, Origins: []string{"example.com"}}, "Origins: "},
		"an empty origin":      {rf.HTTPFetcher{URL: https, Origins: []string{""}}, "Origins: "},
		"two places":           {rf.HTTPFetcher{URL: https, TokenField: "a", TokenCookie: "b"}, "TokenField and TokenCookie"},
		"three places":         {rf.HTTPFetcher{URL: https, TokenField: ".", TokenHeader: "a", TokenCookie: "b"}, "TokenField and TokenHeader and TokenCookie"},
		"a cookie":             {rf.HTTPFetcher{URL: https, TokenCookie: "a b"}, `TokenCookie "a b"`},
		"a cookie of HEAD":     {rf.HTTPFetcher{URL: https, Method: "HEAD", TokenCookie: "a"}, ""},
		"the whole body":       {rf.HTTPFetcher{URL: https, TokenField: "."}, ""},
		"more than all":        {rf.HTTPFetcher{URL: https, TokenField: ".", ExpiresInField: "a"}, `ExpiresInField is set, but TokenField "."`},
		"Read":                 {rf.HTTPFetcher{URL: https, Read: read, KeepHeaders: []string{"X"}, TokenType: "X"}, ""},
		"Read and a field":     {rf.HTTPFetcher{URL: https, Read: read, TokenField: "a", RefreshField: "b"}, "TokenField and RefreshField is set beside Read"},
		"an option":            {rf.HTTPFetcher{URL: https, ExpiresInField: "expires_in,negative=never"}, ""},
		"an odd option":        {rf.HTTPFetcher{URL: https, ExpiresInField: "expires_in,never"}, `ExpiresInField "expires_in,never" has an option "never"`},
		"no name of a host":    {rf.HTTPFetcher{URL: "https://:8443/token"}, "not an absolute"},
		"a port too large":     {rf.HTTPFetcher{URL: "https://auth.example:99999/token"}, "1 to 65535"},
		"a wildcard":           {rf.HTTPFetcher{URL: "https://*.auth.example/"}, "wildcards are for Origins"},
		"an option of a time":  {rf.HTTPFetcher{URL: https, ExpiresAtField: "exp,ms"}, "ExpiresInField's"},
		"Host":                 {rf.HTTPFetcher{URL: https, Header: http.Header{"host": {"x"}}}, `Header "host" isn't sent`},
		"Host of a token":      {rf.HTTPFetcher{URL: https, HeaderFrom: map[string]string{"Host": "app"}}, `HeaderFrom "Host" isn't sent`},
		"a length":             {rf.HTTPFetcher{URL: https, HeaderFrom: map[string]string{"Content-Length": "app"}}, "isn't sent"},
		"all cookies":          {rf.HTTPFetcher{URL: https, TokenHeader: "set-cookie"}, "TokenCookie"},
		"a broken client":      {rf.HTTPFetcher{URL: https, ClientAuth: &rf.ClientAuth{ID: "a\nb", Secret: "x"}}, "ClientAuth.ID holds control"},
		"bytes that are JSON":  {rf.HTTPFetcher{URL: https, JSON: []byte(`{}`)}, ""},
		"bytes of no JSON":     {rf.HTTPFetcher{URL: https, JSON: []byte("<login/>")}, "BodyFrom sends bytes as they are"},
		"a raw half":           {rf.HTTPFetcher{URL: https, JSON: json.RawMessage(`{`)}, "BodyFrom sends bytes as they are"},
		"a kept header":        {rf.HTTPFetcher{URL: https, KeepHeaders: []string{"X Y"}}, `KeepHeaders "X Y"`},
		"an empty kept header": {rf.HTTPFetcher{URL: https, KeepHeaders: []string{""}}, `KeepHeaders ""`},
		"kept cookies":         {rf.HTTPFetcher{URL: https, KeepHeaders: []string{"set-cookie"}}, "TokenCookie"},
		"the token's header":   {rf.HTTPFetcher{URL: https, TokenHeader: "X-Token", KeepHeaders: []string{"x-token"}}, "no second copy"},
	} {
		err := tt.f.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	for field, step := range map[string]rf.Step{"ExpireEarly": {ExpireEarly: -1}, "TTL": {TTL: -1}} {
		step.Name, step.Fetcher = "s", loginFetcher()
		if _, err := rf.NewPipeline(rf.PipelineConfig{Steps: []rf.Step{step}}); err == nil || !strings.Contains(err.Error(), field+" is negative") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// A function that may put anybody in leaves the identity open; what only reads doesn't.
func TestIdentityOfFunctions(t *testing.T) {
	base := rf.HTTPFetcher{URL: "https://auth.example/token", Form: url.Values{"user": {"ann"}, "password": {fetchSecret}}}
	for name, tt := range map[string]struct {
		change func(f *rf.HTTPFetcher)
		known  bool
		same   bool // as without
	}{
		"nothing":  {func(*rf.HTTPFetcher) {}, true, true},
		"URLFrom":  {func(f *rf.HTTPFetcher) { f.URLFrom = func(rf.Input) (string, error) { return "", nil } }, false, false},
		"Classify": {func(f *rf.HTTPFetcher) { f.Classify = func(*http.Response, []byte) *rf.AuthError { return nil } }, true, true},
		"Read": {func(f *rf.HTTPFetcher) {
			f.Read = func(rf.Input, *http.Response, []byte) (*rf.Token, error) { return nil, nil }
		}, true, true},
		"TokenCookie": {func(f *rf.HTTPFetcher) { f.TokenCookie = "sid" }, true, false},
		"Origins":     {func(f *rf.HTTPFetcher) { f.Origins = []string{"https://x.test"} }, true, true},
		"defaults": {func(f *rf.HTTPFetcher) {
			f.Method, f.TokenType, f.TokenField, f.TypeField, f.RefreshField, f.ExpiresInField, f.ExpiresAtField = "POST", "Bearer", "access_token", "token_type", "refresh_token", "expires_in", "expires_at"
		}, true, true},
		"another field": {func(f *rf.HTTPFetcher) { f.TokenField = "jwt" }, true, false},
		"a secret":      {func(f *rf.HTTPFetcher) { f.Form = url.Values{"user": {"ann"}, "password": {"another"}} }, true, true},
	} {
		f := base
		tt.change(&f)
		got := f.Identity()
		if (got != "") != tt.known || (got == base.Identity()) != tt.same || strings.Contains(got, fetchSecret) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
