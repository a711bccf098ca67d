package requestforge_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
)

const (
	fetchSecret = "s3cr3t-value"
	fetchStd    = `{"access_token":"a","token_type":"Bearer"}`
)

// fetchRT is a RoundTripper that is a function.
type fetchRT func(*http.Request) (*http.Response, error)

func (f fetchRT) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// fetchAnswer is a client whose every response is this one.
func fetchAnswer(status int, header http.Header, body string) *http.Client {
	return &http.Client{Transport: fetchRT(func(req *http.Request) (*http.Response, error) {
		if header == nil {
			header = http.Header{"Content-Type": {"application/json"}}
		}
		return &http.Response{
			StatusCode: status, Status: fmt.Sprint(status) + " " + fetchSecret, Header: header.Clone(),
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req,
		}, nil
	})}
}

// fetchPrints returns v as everybody may print it.
func fetchPrints(t *testing.T, v any) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10v", "%t"} {
		out[verb] = fmt.Sprintf(verb, v)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Errorf("json: %v", err)
	}
	out["json"] = string(text)
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v, slog.Group("g", "v", v))
	out["slog text"] = b.String()
	b.Reset()
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v, slog.Group("g", "v", v))
	out["slog JSON"] = b.String()
	return out
}

func TestNothingPrintsASecret(t *testing.T) {
	tok := requestforge.Token{
		AccessToken: "access-" + fetchSecret, TokenType: "DPoP", RefreshToken: "refresh-" + fetchSecret,
		Expiry: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), Extra: map[string]any{"id_token": fetchSecret, fetchSecret: nil},
	}
	auth := requestforge.ClientAuth{ID: "the-client", Secret: fetchSecret}
	header := http.Header{"X-Api-Key": {fetchSecret}}
	rawURL := "https://user:" + fetchSecret + "@auth.example/token?key=" + fetchSecret
	body := requestforge.HTTPFetcher{
		URL: rawURL, Header: header, Form: url.Values{"password": {fetchSecret}}, TokenField: "data.token", ClientAuth: &auth,
		HeaderFrom: map[string]string{"X": "app"}, Client: &http.Client{},
		BodyFrom: func(requestforge.Input) (any, error) { return nil, nil },
		Prepare:  func(*http.Request, requestforge.Input) error { return nil },
	}
	asHeader := requestforge.HTTPFetcher{
		URL: rawURL, Method: "PUT", Header: header, JSON: map[string]string{"password": fetchSecret}, TokenHeader: "X-Token", ClientAuth: &auth,
	}
	authErr := requestforge.AuthError{
		Step: "user", StatusCode: 401, Code: "invalid_client", RetryAfter: time.Minute,
		Err: fmt.Errorf("wrapped: %w", &url.Error{Op: "Post", URL: rawURL, Err: io.ErrUnexpectedEOF}),
	}
	for _, tt := range []struct {
		v, p any // a value, and a pointer to it
		want []string
	}{
		{tok, &tok, []string{"DPoP", "2030-01-02T03:04:05Z", "can be refreshed", "2 extra"}},
		{requestforge.Token{}, &requestforge.Token{}, []string{"empty", "never expires"}},
		{requestforge.Token{AccessToken: fetchSecret, TokenType: fetchSecret}, &requestforge.Token{AccessToken: "a", TokenType: "type of " + fetchSecret}, []string{"REDACTED"}},
		{auth, &auth, []string{"the-client", "HTTP Basic"}},
		{requestforge.ClientAuth{ID: "x", Secret: fetchSecret, InBody: true}, &requestforge.ClientAuth{ID: "x", Secret: fetchSecret, InBody: true}, []string{"in the body"}},
		{body, &body, []string{"POST", "auth.example/token", "data.token"}},
		{requestforge.HTTPFetcher{}, &requestforge.HTTPFetcher{}, []string{"access_token"}},
		{requestforge.HTTPFetcher{URL: ":" + fetchSecret}, &requestforge.HTTPFetcher{URL: ":" + fetchSecret}, []string{"REDACTED"}},
		{asHeader, &asHeader, []string{"PUT", "auth.example/token", "X-Token"}},
		{authErr, &authErr, []string{"user", "invalid_client", "401", "unexpected EOF", "1m0s"}},
		{
			requestforge.Input{Parents: map[string]*requestforge.Token{"app": &tok}, Previous: &tok},
			&requestforge.Input{Parents: map[string]*requestforge.Token{"app": &tok}, Previous: &tok},
			nil,
		},
	} {
		name := fmt.Sprintf("%T", tt.v)
		for how, v := range map[string]any{
			"value": tt.v, "pointer": tt.p,
			"in a struct":            struct{ V, P any }{tt.v, tt.p},
			"in a slice":             []any{tt.v, tt.p},
			"in a map":               map[string]any{"v": tt.v, "p": tt.p},
			"in a pointer to struct": &struct{ In struct{ V, P any } }{struct{ V, P any }{tt.v, tt.p}},
		} {
			for verb, text := range fetchPrints(t, v) {
				if strings.Contains(text, fetchSecret) || strings.Contains(text, fmt.Sprintf("%x", fetchSecret)) {
					t.Errorf("%s %s, %s: %s", name, how, verb, text)
				}
				if strings.Contains(text, "panic") || strings.Contains(text, "PANIC") {
					t.Errorf("%s %s, %s: %s", name, how, verb, text)
				}
			}
		}
		for _, v := range []any{tt.v, tt.p} {
			if _, ok := v.(slog.LogValuer); !ok && name != "requestforge.Input" {
				t.Errorf("%T is no slog.LogValuer", v)
			}
		}
		for verb, text := range fetchPrints(t, tt.p) {
			if _, ok := tt.v.(requestforge.Token); ok && verb == "json" && json.Unmarshal([]byte(text), &requestforge.Token{}) == nil {
				t.Error("a redacted token can be read back as if it were one")
			}
			for _, want := range tt.want {
				if !strings.Contains(text, want) {
					t.Errorf("%s %s: got %s, want %q in it", name, verb, text, want)
				}
			}
		}
	}
}

// A Step has a func, which no JSON can hold; it prints through its fetchers.
func TestStepPrintsNoSecretOfItsFetchers(t *testing.T) {
	step := requestforge.Step{
		Name:    "user",
		Fetcher: &requestforge.HTTPFetcher{URL: "https://auth.example/?key=" + fetchSecret, Form: url.Values{"password": {fetchSecret}}},
		Refresh: &requestforge.HTTPFetcher{JSON: fetchSecret},
	}
	for _, v := range []any{step, &step, []requestforge.Step{step}, map[string]*requestforge.Step{"s": &step}} {
		if text := fmt.Sprintf("%v %+v %#v", v, v, v); strings.Contains(text, fetchSecret) {
			t.Errorf("%T: %s", v, text)
		}
	}
}

func TestNilsPrint(t *testing.T) {
	for _, v := range []any{
		(*requestforge.Token)(nil), (*requestforge.ClientAuth)(nil), (*requestforge.HTTPFetcher)(nil), (*requestforge.AuthError)(nil),
	} {
		if got := fmt.Sprintf("%v", v); got != "<nil>" {
			t.Errorf("%T: got %s", v, got)
		}
		if got, err := json.Marshal(v); string(got) != "null" || err != nil {
			t.Errorf("%T: got %s, %v", v, got, err)
		}
	}
}

func TestTokenType(t *testing.T) {
	for typ, want := range map[string]string{
		"": "Bearer", "bearer": "Bearer", "BEARER": "Bearer", "mac": "MAC", "Mac": "MAC", "basic": "Basic", "DPoP": "DPoP", "token": "token",
	} {
		if got := (&requestforge.Token{TokenType: typ}).Type(); got != want {
			t.Errorf("%q: got %q, want %q", typ, got, want)
		}
	}
}

func TestTokenThatCantBeSentIsRefused(t *testing.T) {
	for _, tok := range []*requestforge.Token{
		{AccessToken: "a"}, {AccessToken: "a.b-c_d~e+f/g==", TokenType: "DPoP"}, {AccessToken: "caf\xc3\xa9\xff", TokenType: "bearer"},
	} {
		if err := requestforge.Validate(tok); err != nil {
			t.Errorf("%q: %v", tok.AccessToken, err)
		}
	}
	for _, tok := range []*requestforge.Token{
		nil, {}, {TokenType: "Bearer"},
		{AccessToken: fetchSecret + "\r\nX-Evil: 1"}, {AccessToken: fetchSecret + "\n"}, {AccessToken: fetchSecret + "\x00"},
		{AccessToken: fetchSecret + "\x7f"}, {AccessToken: fetchSecret + "\t"},
		{AccessToken: "a", TokenType: fetchSecret + "\r\n"}, {AccessToken: "a", TokenType: fetchSecret + " x"}, {AccessToken: "a", TokenType: "caf\xc3\xa9" + fetchSecret},
	} {
		err := requestforge.Validate(tok)
		if err == nil || strings.Contains(err.Error(), fetchSecret) {
			t.Errorf("%v: got %v, want an error without the value", tok, err)
		}
	}
}

// fetchSeen is a request as it arrived.
type fetchSeen struct {
	method, query, body string
	header              http.Header
}

func fetchServer(t *testing.T, answer http.HandlerFunc) (*httptest.Server, *fetchSeen) {
	t.Helper()
	seen := new(fetchSeen)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*seen = fetchSeen{method: r.Method, query: r.URL.RawQuery, body: string(body), header: r.Header}
		answer(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv, seen
}

func fetchJSON(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, body)
	}
}

func TestRequestIsWhatTheFieldsSay(t *testing.T) {
	srv, seen := fetchServer(t, fetchJSON(fetchStd))
	in := requestforge.Input{
		Parents: map[string]*requestforge.Token{
			"app":    {AccessToken: "app-token", TokenType: "bearer"},
			"device": {AccessToken: "device-token", TokenType: "DPoP"},
		},
		Previous: &requestforge.Token{RefreshToken: "old-refresh"},
	}
	const form, asJSON = "application/x-www-form-urlencoded", "application/json"
	basic := func(id, secret string) string {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(id, secret)
		return r.Header.Get("Authorization")
	}
	for name, tt := range map[string]struct {
		f           requestforge.HTTPFetcher
		method      string
		body        string
		contentType string
		header      map[string]string
	}{
		"nothing":              {method: "POST", header: map[string]string{"Accept": "application/json", "Authorization": ""}},
		"a method":             {f: requestforge.HTTPFetcher{Method: "PUT", Form: url.Values{"a": {"b"}}}, method: "PUT", body: "a=b", contentType: form},
		"GET":                  {f: requestforge.HTTPFetcher{Method: "GET"}, method: "GET"},
		"JSON":                 {f: requestforge.HTTPFetcher{JSON: map[string]any{"a": 1}}, method: "POST", body: `{"a":1}`, contentType: asJSON},
		"a form":               {f: requestforge.HTTPFetcher{Form: url.Values{"a": {"b c"}}}, method: "POST", body: "a=b+c", contentType: form},
		"an empty form":        {f: requestforge.HTTPFetcher{Form: url.Values{}}, method: "POST", contentType: form},
		"a body from nothing":  {f: requestforge.HTTPFetcher{BodyFrom: func(requestforge.Input) (any, error) { return nil, nil }}, method: "POST"},
		"a form from the last": {f: requestforge.HTTPFetcher{BodyFrom: func(in requestforge.Input) (any, error) { return url.Values{"r": {in.Previous.RefreshToken}}, nil }}, method: "POST", body: "r=old-refresh", contentType: form},
		"JSON from a parent":   {f: requestforge.HTTPFetcher{BodyFrom: func(in requestforge.Input) (any, error) { return []string{in.Parents["app"].AccessToken}, nil }}, method: "POST", body: `["app-token"]`, contentType: asJSON},
		"headers of one's own": {
			f:      requestforge.HTTPFetcher{Header: http.Header{"accept": {"application/vnd.x+json"}, "Content-Type": {"application/vnd.y+json"}, "X-Key": {"k"}}, JSON: 1},
			method: "POST", body: "1", contentType: "application/vnd.y+json", header: map[string]string{"Accept": "application/vnd.x+json", "X-Key": "k"},
		},
		"tokens in headers": {
			f:      requestforge.HTTPFetcher{HeaderFrom: map[string]string{"authorization": "app", "X-Device": "device"}, JSON: map[string]any{"extra": true}},
			method: "POST", body: `{"extra":true}`, contentType: asJSON, header: map[string]string{"Authorization": "Bearer app-token", "X-Device": "device-token"},
		},
		"a token of another type": {
			f:      requestforge.HTTPFetcher{HeaderFrom: map[string]string{"Authorization": "device"}},
			method: "POST", header: map[string]string{"Authorization": "DPoP device-token"},
		},
		"a token instead of a header": {
			f:      requestforge.HTTPFetcher{Header: http.Header{"x-device": {"old"}, "X-Device": {"older"}}, HeaderFrom: map[string]string{"X-DEVICE": "device"}},
			method: "POST", header: map[string]string{"X-Device": "device-token"},
		},
		"HTTP Basic": {
			f:      requestforge.HTTPFetcher{ClientAuth: &requestforge.ClientAuth{ID: "id:1", Secret: "p w%"}, Form: url.Values{"a": {"b"}}},
			method: "POST", body: "a=b", contentType: form, header: map[string]string{"Authorization": basic("id%3A1", "p+w%25")},
		},
		"client in the form": {
			f:      requestforge.HTTPFetcher{ClientAuth: &requestforge.ClientAuth{ID: "id", Secret: "s&t", InBody: true}, Form: url.Values{"a": {"b"}}},
			method: "POST", body: "a=b&client_id=id&client_secret=s%26t", contentType: form, header: map[string]string{"Authorization": ""},
		},
		"client as the form": {
			f:      requestforge.HTTPFetcher{ClientAuth: &requestforge.ClientAuth{ID: "id", Secret: "s", InBody: true}},
			method: "POST", body: "client_id=id&client_secret=s", contentType: form,
		},
		"a public client": {
			f:      requestforge.HTTPFetcher{ClientAuth: &requestforge.ClientAuth{ID: "id", InBody: true}, JSON: struct{}{}},
			method: "POST", body: `{"client_id":"id"}`, contentType: asJSON,
		},
		"client in the JSON": {
			f:      requestforge.HTTPFetcher{ClientAuth: &requestforge.ClientAuth{ID: "id", Secret: "s", InBody: true}, JSON: map[string]any{"n": json.Number("9007199254740993")}},
			method: "POST", body: `{"client_id":"id","client_secret":"s","n":9007199254740993}`, contentType: asJSON,
		},
	} {
		t.Run(name, func(t *testing.T) {
			tt.f.URL = srv.URL + "/token"
			before := tt.f.Header.Clone()
			formBefore := tt.f.Form.Encode()
			tok, err := tt.f.Fetch(t.Context(), in)
			if err != nil || tok.AccessToken != "a" {
				t.Fatalf("got %v, %v", tok, err)
			}
			if seen.method != tt.method || seen.body != tt.body || seen.header.Get("Content-Type") != tt.contentType {
				t.Errorf("got %s %q (%s), want %s %q (%s)", seen.method, seen.body, seen.header.Get("Content-Type"), tt.method, tt.body, tt.contentType)
			}
			for k, want := range tt.header {
				if got := seen.header.Values(k); strings.Join(got, "|") != want {
					t.Errorf("%s: got %q, want %q", k, got, want)
				}
			}
			if !reflect.DeepEqual(tt.f.Header, before) || tt.f.Form.Encode() != formBefore {
				t.Error("the fetcher's own fields were changed")
			}
		})
	}
}

func TestPrepareComesLastAndCanSign(t *testing.T) {
	srv, seen := fetchServer(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Token", "t") })
	f := &requestforge.HTTPFetcher{
		URL: srv.URL, TokenHeader: "x-token", JSON: map[string]int{"a": 1}, HeaderFrom: map[string]string{"X-App": "app"},
		Prepare: func(req *http.Request, in requestforge.Input) error {
			body, err := req.GetBody()
			if err != nil {
				return err
			}
			text, err := io.ReadAll(body)
			req.Header.Set("X-Signature", req.Header.Get("X-App")+" over "+string(text)+" for "+in.Parents["app"].AccessToken)
			req.URL.RawQuery = "signed=1"
			return err
		},
	}
	tok, err := f.Fetch(t.Context(), requestforge.Input{Parents: map[string]*requestforge.Token{"app": {AccessToken: "p"}}})
	if err != nil || tok.AccessToken != "t" {
		t.Fatalf("got %v, %v", tok, err)
	}
	if got, want := seen.header.Get("X-Signature"), `p over {"a":1} for p`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if seen.body != `{"a":1}` || seen.query != "signed=1" {
		t.Errorf("sent %q to ?%s", seen.body, seen.query)
	}
}

// The URL is what an earlier step has found.
func TestPrepareThatSetsTheURLSetsTheHost(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(req *http.Request)
		want    string // Host
	}{
		"another URL":          {func(req *http.Request) { req.URL, _ = url.Parse("http://127.0.0.1:1/t") }, "127.0.0.1:1"},
		"another host":         {func(req *http.Request) { req.URL.Host = "other.test" }, "other.test"},
		"with a Host":          {func(req *http.Request) { req.URL.Host, req.Host = "other.test", "virtual.test" }, "virtual.test"},
		"a Host alone":         {func(req *http.Request) { req.Host = "virtual.test" }, "virtual.test"},
		"the same, an odd one": {func(req *http.Request) { req.URL.Path = "/x" }, "placeholder.test"},
	} {
		var got string
		f := &requestforge.HTTPFetcher{URL: "https://placeholder.test:/x", Client: &http.Client{Transport: fetchRT(func(req *http.Request) (*http.Response, error) {
			if got = req.Host; got == "" {
				got = req.URL.Host
			}
			return fetchAnswer(200, nil, fetchStd).Transport.RoundTrip(req)
		})}, Prepare: func(req *http.Request, _ requestforge.Input) error { c.prepare(req); return nil }}
		if _, err := f.Fetch(t.Context(), requestforge.Input{}); err != nil || got != c.want {
			t.Errorf("%s: Host %q, %v; want %q", name, got, err, c.want)
		}
	}
}

func TestFetchThatCantBeginSaysWhy(t *testing.T) {
	boom := errors.New("boom")
	in := requestforge.Input{Parents: map[string]*requestforge.Token{"bad": {AccessToken: fetchSecret + "\n"}, "null": nil}}
	sent := &http.Client{Transport: fetchRT(func(*http.Request) (*http.Response, error) {
		t.Error("a request was sent")
		return nil, boom
	})}
	for name, tt := range map[string]struct {
		f    requestforge.HTTPFetcher
		want string
		is   error
	}{
		"a parent that isn't there": {f: requestforge.HTTPFetcher{HeaderFrom: map[string]string{"X-App": "app"}}, want: `HeaderFrom "X-App": there is no token of step "app"`},
		"a nil parent":              {f: requestforge.HTTPFetcher{HeaderFrom: map[string]string{"X-App": "null"}}, want: `step "null": there is no token`},
		"a parent with CR LF":       {f: requestforge.HTTPFetcher{HeaderFrom: map[string]string{"X-App": "bad"}}, want: `step "bad": the access token holds control characters`},
		"BodyFrom fails":            {f: requestforge.HTTPFetcher{BodyFrom: func(requestforge.Input) (any, error) { return nil, boom }}, want: "BodyFrom: boom", is: boom},
		"Prepare fails":             {f: requestforge.HTTPFetcher{Prepare: func(*http.Request, requestforge.Input) error { return boom }}, want: "Prepare: boom", is: boom},
		"Prepare fails to call": {f: requestforge.HTTPFetcher{Prepare: func(*http.Request, requestforge.Input) error {
			return fmt.Errorf("signer: %w", &url.Error{Op: "Get", URL: "https://kms.example/?key=" + fetchSecret, Err: boom})
		}}, want: "Prepare: signer: ", is: boom},
		"Prepare goes plaintext": {f: requestforge.HTTPFetcher{Prepare: func(req *http.Request, _ requestforge.Input) error { req.URL.Scheme = "http"; return nil }}, want: "plain http"},
		"Prepare drops the URL":  {f: requestforge.HTTPFetcher{Prepare: func(req *http.Request, _ requestforge.Input) error { req.URL = nil; return nil }}, want: "removed the URL"},
		"no JSON":                {f: requestforge.HTTPFetcher{JSON: func() {}}, want: "can't be marshalled"},
		"no number":              {f: requestforge.HTTPFetcher{JSON: json.Number(fetchSecret)}, want: "can't be marshalled"},
		"no object":              {f: requestforge.HTTPFetcher{JSON: []string{fetchSecret}, ClientAuth: &requestforge.ClientAuth{ID: "x", InBody: true}}, want: "not an object"},
		"null is no object":      {f: requestforge.HTTPFetcher{JSON: json.RawMessage("null"), ClientAuth: &requestforge.ClientAuth{ID: "x", InBody: true}}, want: "not an object"},
		"nil":                    {want: "URL is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "nil" {
				tt.f.URL = "https://auth.example/token?key=" + fetchSecret
			}
			tt.f.Client = sent
			tok, err := tt.f.Fetch(t.Context(), in)
			fetchFailed(t, tok, err, tt.want)
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("the cause is gone from %v", err)
			}
			if requestforge.Transient(err) || requestforge.Ambiguous(err) {
				t.Error("nothing was sent: want one attempt, without doubt")
			}
		})
	}
}

// fetchFailed checks an error, and that no secret is anywhere in it.
func fetchFailed(t *testing.T, tok *requestforge.Token, err error, want string) *requestforge.AuthError {
	t.Helper()
	ae, ok := errors.AsType[*requestforge.AuthError](err)
	if tok != nil || !ok {
		t.Fatalf("got %v, %v, want an AuthError", tok, err)
	}
	if !strings.HasPrefix(err.Error(), "requestforge: ") || !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want %q in it", err, want)
	}
	for verb, text := range fetchPrints(t, err) {
		if strings.Contains(text, fetchSecret) {
			t.Errorf("%s: %s", verb, text)
		}
	}
	// Nor for those who log the whole chain, or the *url.Error in it.
	var walk func(err error)
	walk = func(err error) {
		if err == nil {
			return
		}
		if strings.Contains(err.Error(), fetchSecret) || strings.Contains(fmt.Sprintf("%+v", err), fetchSecret) {
			t.Errorf("in the chain: %T: %v", err, err)
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			walk(e.Unwrap())
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				walk(err)
			}
		}
	}
	walk(err)
	if ue, ok := errors.AsType[*url.Error](err); ok && strings.Contains(fmt.Sprintf("%#v %v", ue, ue), fetchSecret) {
		t.Errorf("errors.As finds %v", ue)
	}
	return ae
}

func TestNilFetcherIsAnErrorNotAPanic(t *testing.T) {
	tok, err := (*requestforge.HTTPFetcher)(nil).Fetch(t.Context(), requestforge.Input{})
	fetchFailed(t, tok, err, "nil *HTTPFetcher")
	if got := requestforge.Parents((*requestforge.HTTPFetcher)(nil)); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestCheckNamesEveryMistake(t *testing.T) {
	type fetcher = requestforge.HTTPFetcher
	const https = "https://auth.example/token"
	for name, tt := range map[string]struct {
		f    requestforge.Checker
		want []string // none: nothing is wrong
	}{
		"fine":                 {f: &fetcher{URL: https}},
		"fine, loopback":       {f: &fetcher{URL: "http://127.0.0.1:1/token"}},
		"fine, plaintext":      {f: &fetcher{URL: "http://auth.example/token", AllowPlaintext: true}},
		"fine header":          {f: &fetcher{URL: https, TokenHeader: "X-Token", Method: "HEAD"}},
		"fine with everything": {f: &fetcher{URL: https, Header: http.Header{"X": {"a\tb", "\xff"}}, JSON: 1, HeaderFrom: map[string]string{"Authorization": "a"}, TokenField: "a.b", ClientAuth: &requestforge.ClientAuth{ID: "x", InBody: true}, TokenType: "DPoP"}},
		"nil":                  {f: (*fetcher)(nil), want: []string{"nil *HTTPFetcher"}},
		"no URL":               {f: &fetcher{}, want: []string{"HTTPFetcher: URL is missing"}},
		"a relative URL":       {f: &fetcher{URL: "/token?x=" + fetchSecret}, want: []string{"URL", "absolute"}},
		"no host":              {f: &fetcher{URL: "https:///token"}, want: []string{"absolute"}},
		"another scheme":       {f: &fetcher{URL: "ftp://h/"}, want: []string{"absolute"}},
		"no sense":             {f: &fetcher{URL: "https://h:" + fetchSecret + "/"}, want: []string{"URL doesn't parse"}},
		"plain http":           {f: &fetcher{URL: "http://u:" + fetchSecret + "@auth.example/token"}, want: []string{"plain http", "AllowPlaintext"}},
		"a method":             {f: &fetcher{URL: https, Method: "P OST"}, want: []string{`Method "P OST"`}},
		"HEAD":                 {f: &fetcher{URL: https, Method: "HEAD"}, want: []string{"HEAD"}},
		"two bodies":           {f: &fetcher{URL: https, JSON: 1, Form: url.Values{}}, want: []string{"JSON and Form"}},
		"three bodies":         {f: &fetcher{URL: https, JSON: 1, Form: url.Values{}, BodyFrom: func(requestforge.Input) (any, error) { return nil, nil }}, want: []string{"JSON and Form and BodyFrom"}},
		"GET with a body":      {f: &fetcher{URL: https, Method: "GET", Form: url.Values{}}, want: []string{"Form", "GET"}},
		"GET with a client":    {f: &fetcher{URL: https, Method: "GET", ClientAuth: &requestforge.ClientAuth{ID: "x", InBody: true}}, want: []string{"ClientAuth.InBody", "GET"}},
		"a header name":        {f: &fetcher{URL: https, Header: http.Header{"X Y": {"a"}, "": nil}}, want: []string{`Header "X Y"`, `Header ""`}},
		"a header value":       {f: &fetcher{URL: https, Header: http.Header{"X-Key": {fetchSecret + "\r\nX: 1"}}}, want: []string{`Header "X-Key"`}},
		"HeaderFrom":           {f: &fetcher{URL: https, HeaderFrom: map[string]string{"X\n": "a", "Y": "", "z": "a", "Z": "b"}}, want: []string{`HeaderFrom "X\n"`, `HeaderFrom "Y"`, `HeaderFrom "Z" is there twice`}},
		"two authorizations":   {f: &fetcher{URL: https, Header: http.Header{"authorization": {fetchSecret}}, HeaderFrom: map[string]string{"Authorization": "a"}, ClientAuth: &requestforge.ClientAuth{ID: "x"}}, want: []string{"Header and HeaderFrom and ClientAuth"}},
		"no client":            {f: &fetcher{URL: https, ClientAuth: &requestforge.ClientAuth{Secret: fetchSecret}}, want: []string{"ClientAuth.ID"}},
		"paths":                {f: &fetcher{URL: https, TokenField: "a..b", TypeField: ".", RefreshField: ".a", ExpiresInField: "a.", ExpiresAtField: ".."}, want: []string{`TokenField "a..b"`, `TypeField "."`, `RefreshField ".a"`, `ExpiresInField "a."`, `ExpiresAtField ".."`}},
		"a type":               {f: &fetcher{URL: https, TokenType: "two words"}, want: []string{`TokenType "two words"`}},
		"two places":           {f: &fetcher{URL: https, TokenHeader: "X", TokenField: "a"}, want: []string{"TokenField and TokenHeader"}},
		"a token header":       {f: &fetcher{URL: https, TokenHeader: "X:"}, want: []string{`TokenHeader "X:"`}},
		"all at once":          {f: &fetcher{Method: " ", JSON: 1, Form: url.Values{}, TokenHeader: " "}, want: []string{"URL", "Method", "JSON and Form", "TokenHeader"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := requestforge.Check(tt.f)
			if len(tt.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("want an error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), fetchSecret) {
				t.Errorf("got %v", err)
			}
		})
	}
	f := &fetcher{HeaderFrom: map[string]string{"A": "user", "B": "app", "C": "user"}}
	if got, want := requestforge.Parents(f), []string{"app", "user"}; !reflect.DeepEqual(got, want) {
		t.Errorf("parents: got %v, want %v", got, want)
	}
}

func TestHTTPFetcherReadsEveryField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &requestforge.HTTPFetcher{
			URL: "https://auth.example/token", TokenField: "auth.client_token", TypeField: "auth.kind", RefreshField: "auth.renew",
			ExpiresInField: "auth.ttl", ExpiresAtField: "auth.until", TokenType: "unused",
			Client: fetchAnswer(200, nil, `{"auth":{"client_token":"a","kind":"dpop","renew":"r","ttl":"60","until":"2199-01-01T00:00:00Z"},"n":9007199254740993}`),
		}
		got, err := f.Fetch(t.Context(), requestforge.Input{})
		want := &requestforge.Token{
			AccessToken: "a", TokenType: "dpop", RefreshToken: "r", Expiry: time.Now().Add(time.Minute).Round(0).UTC(),
			Extra: map[string]any{"auth": map[string]any{}, "n": json.Number("9007199254740993")},
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v %v, %v", got, got.Extra, err)
		}
	})
}

func TestTokenTypeStandsInForOneTheServerLeavesOut(t *testing.T) {
	for body, want := range map[string]string{
		`{"access_token":"a"}`:                       "DPoP",
		`{"access_token":"a","token_type":""}`:       "DPoP",
		`{"access_token":"a","token_type":"bearer"}`: "bearer",
	} {
		f := &requestforge.HTTPFetcher{URL: "https://auth.example", TokenType: "DPoP", Client: fetchAnswer(200, nil, body)}
		tok, err := f.Fetch(t.Context(), requestforge.Input{})
		if err != nil || tok.TokenType != want {
			t.Errorf("%s: got %v, %v", body, tok, err)
		}
	}
}

func TestExpiryFollowsTheServersDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().Round(0)
		served := now.Add(-3 * time.Hour) // the server's clock is behind
		f := &requestforge.HTTPFetcher{URL: "https://auth.example", Client: fetchAnswer(200,
			http.Header{"Date": {served.UTC().Format(http.TimeFormat)}},
			`{"access_token":"a","expires_at":`+fmt.Sprint(served.Add(time.Hour).Unix())+`}`)}
		tok, err := f.Fetch(t.Context(), requestforge.Input{})
		if err != nil || !tok.Expiry.Equal(now.Add(time.Hour)) {
			t.Errorf("got %v, %v, want %v", tok, err, now.Add(time.Hour))
		}
	})
}

func TestAnswersTheHTTPFetcherTakes(t *testing.T) {
	big := `{"access_token":"a","pad":"` + strings.Repeat("x", 1<<20-len(`{"access_token":"a","pad":""}`)) + `"}`
	for name, tt := range map[string]struct {
		status      int
		contentType []string
		body        string
	}{
		"JSON":              {200, []string{"application/json"}, fetchStd},
		"JSON with charset": {200, []string{"Application/JSON; charset=UTF-8"}, fetchStd},
		"an odd parameter":  {200, []string{"application/json; charset"}, fetchStd},
		"text/json":         {200, []string{"text/json"}, fetchStd},
		"+json":             {200, []string{"application/vnd.x+json"}, fetchStd},
		"text":              {200, []string{"text/plain; charset=utf-8"}, fetchStd},
		"no type":           {200, nil, fetchStd},
		"a page's type":     {200, []string{"text/html; charset=utf-8"}, fetchStd},
		"a script's type":   {200, []string{"text/javascript"}, fetchStd},
		"bytes":             {200, []string{"application/octet-stream"}, "\xef\xbb\xbf" + fetchStd},
		"an odd type":       {200, []string{fetchSecret}, fetchStd},
		"201":               {201, []string{"application/json"}, fetchStd},
		"a mark":            {200, []string{"application/json"}, "\xef\xbb\xbf" + fetchStd},
		"1 MiB":             {200, []string{"application/json"}, big},
	} {
		t.Run(name, func(t *testing.T) {
			f := &requestforge.HTTPFetcher{URL: "https://auth.example", Client: fetchAnswer(tt.status, http.Header{"Content-Type": tt.contentType}, tt.body)}
			tok, err := f.Fetch(t.Context(), requestforge.Input{})
			if err != nil || tok.AccessToken != "a" {
				t.Errorf("got %v, %v", tok, err)
			}
		})
	}
}

// fetchFailures is what a server may answer instead of a token.
var fetchFailures = []struct {
	name                 string
	status               int
	header               http.Header // nil: of JSON
	body                 string
	want                 string
	code                 string
	permanent            bool
	after                time.Duration
	transient, ambiguous bool
}{
	{name: "400 invalid_grant", status: 400, body: `{"error":"invalid_grant","error_description":"` + fetchSecret + `"}`, want: "invalid_grant: POST", code: "invalid_grant", permanent: true},
	{name: "401 invalid_client", status: 401, body: `{"error":"invalid_client"}`, want: "401 Unauthorized", code: "invalid_client", permanent: true},
	{name: "400 invalid_request", status: 400, body: `{"error":"invalid_request"}`, code: "invalid_request", permanent: true},
	{name: "400 unauthorized_client", status: 400, body: `{"error":"unauthorized_client"}`, code: "unauthorized_client", permanent: true},
	{name: "400 unsupported_grant_type", status: 400, body: `{"error":"unsupported_grant_type"}`, code: "unsupported_grant_type", permanent: true},
	{name: "400 invalid_scope", status: 400, body: `{"error":"invalid_scope"}`, code: "invalid_scope", permanent: true},
	{name: "400 access_denied", status: 400, body: `{"error":"access_denied"}`, code: "access_denied", permanent: true},
	{name: "400 expired_token", status: 400, body: `{"error":"expired_token"}`, code: "expired_token", permanent: true},
	{name: "400 invalid_target", status: 400, body: `{"error":"invalid_target"}`, code: "invalid_target", permanent: true},
	{name: "400 unsupported_token_type", status: 400, body: `{"error":"unsupported_token_type"}`, code: "unsupported_token_type", permanent: true},
	{name: "400 login_required", status: 400, body: `{"error":"login_required"}`, code: "login_required", permanent: true},
	{name: "400 authorization_pending", status: 400, body: `{"error":"authorization_pending"}`, code: "authorization_pending"},
	{name: "400 slow_down", status: 400, body: `{"error":"slow_down"}`, code: "slow_down"},
	{name: "400 use_dpop_nonce", status: 400, body: `{"error":"use_dpop_nonce"}`, code: "use_dpop_nonce"},
	{name: "401 invalid_token", status: 401, body: `{"error":"invalid_token"}`, code: "invalid_token"},
	{name: "a code in the challenge", status: 401, header: http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}, body: "", code: "invalid_token"},
	{name: "503 temporarily_unavailable", status: 503, body: `{"error":"temporarily_unavailable"}`, code: "temporarily_unavailable", transient: true},
	{name: "500 with a permanent code", status: 500, body: `{"error":"invalid_grant"}`, code: "invalid_grant", permanent: true},
	{name: "a code nobody registered", status: 400, body: `{"error":"` + fetchSecret + `"}`, want: "400 Bad Request"},
	{name: "a code that is an object", status: 401, body: `{"error":{"code":401,"message":"` + fetchSecret + `"}}`},
	{name: "no JSON", status: 401, body: fetchSecret},
	{name: "401", status: 401, want: "401 Unauthorized"},
	{name: "403", status: 403},
	{name: "403 HTML", status: 403, header: http.Header{"Content-Type": {"text/html"}}, body: "<html>" + fetchSecret},
	{name: "404", status: 404},
	{name: "an unknown status", status: 499, want: "499"},
	{name: "304", status: 304, want: "304"},
	{name: "a redirect to nowhere", status: 302, want: "302 Found"},
	{name: "408", status: 408, transient: true},
	{name: "429", status: 429, header: http.Header{"Retry-After": {"30"}}, body: fetchSecret, want: "next try in 30s", after: 30 * time.Second, transient: true},
	{name: "500", status: 500, transient: true},
	{name: "501", status: 501, transient: true},
	{name: "502", status: 502, transient: true, ambiguous: true},
	{name: "503", status: 503, header: http.Header{"Retry-After": {"7"}}, after: 7 * time.Second, transient: true},
	{name: "504", status: 504, transient: true, ambiguous: true},

	{name: "HTML", status: 200, header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}, body: "\xef\xbb\xbf\n<div>" + fetchSecret, want: "HTML page", ambiguous: true},
	{name: "a text that is called HTML", status: 200, header: http.Header{"Content-Type": {"text/html"}}, body: fetchStd + fetchSecret, want: "not JSON", ambiguous: true},
	{name: "nothing that is called HTML", status: 200, header: http.Header{"Content-Type": {"text/html"}}, want: "the body is empty", ambiguous: true},
	{name: "XHTML", status: 200, header: http.Header{"Content-Type": {"application/xhtml+xml"}}, body: "<p>" + fetchSecret, want: "HTML page", ambiguous: true},
	{name: "HTML by another name", status: 200, body: "\xef\xbb\xbf \n<!DOCTYPE html>" + fetchSecret, want: "HTML page", ambiguous: true},
	{name: "HTML after comments", status: 200, body: "<!-- a --><?xml version='1.0'?>\n<hTML lang=en>" + fetchSecret, want: "HTML page", ambiguous: true},
	{name: "XML", status: 200, body: "<?xml version='1.0'?><html:token>" + fetchSecret, want: "not JSON", ambiguous: true},
	{name: "a less-than sign", status: 200, body: "<" + fetchSecret, want: "not JSON", ambiguous: true},
	{name: "a form", status: 200, header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, body: "access_token=" + fetchSecret, want: "not JSON", ambiguous: true},
	{name: "425", status: 425, transient: true},
	{name: "403 with Retry-After", status: 403, header: http.Header{"Retry-After": {"30"}}, after: 30 * time.Second, transient: true},
	{name: "403 with a rate limit that is used up", status: 403, header: http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"60"}}, after: time.Minute, transient: true},
	{name: "403 with a rate limit", status: 403, header: http.Header{"X-Ratelimit-Remaining": {"5"}}},
	{name: "403 with a rate limit, and a code that is final", status: 403, header: http.Header{"X-Ratelimit-Remaining": {"0"}}, body: `{"error":"access_denied"}`, code: "access_denied", permanent: true},
	{name: "no content", status: 204, want: "the body is empty", ambiguous: true},
	{name: "cut off", status: 200, body: `{"access_token":"` + fetchSecret, want: "not JSON", ambiguous: true},
	{name: "garbage after it", status: 200, body: fetchStd + fetchSecret, want: "not JSON", ambiguous: true},
	{name: "UTF-16", status: 200, body: "\xff\xfe{\x00", want: "UTF-16", ambiguous: true},
	{name: "no token", status: 200, body: `{"` + fetchSecret + `":1}`, want: `no field "access_token"`, ambiguous: true},
	{name: "an empty token", status: 200, body: `{"access_token":"","x":"` + fetchSecret + `"}`, want: "empty", ambiguous: true},
	{name: "a number", status: 200, body: `{"access_token":5}`, want: "not a string", ambiguous: true},
	{name: "far too long", status: 200, body: `{"access_token":"` + fetchSecret + strings.Repeat("x", 64<<10) + `"}`, want: "more than 64 KiB", ambiguous: true},
	{name: "CR LF", status: 200, body: `{"access_token":"` + fetchSecret + `\r\nX: y"}`, want: "control characters", ambiguous: true},
	{name: "CR LF in the type", status: 200, body: `{"access_token":"a","token_type":"` + fetchSecret + `\r\n"}`, want: "token type", ambiguous: true},
	{name: "expired", status: 200, body: `{"access_token":"` + fetchSecret + `","expires_in":-5}`, want: "already expired", ambiguous: true},
	{name: "a refusal with 200", status: 200, body: `{"error":"expired_token","x":"` + fetchSecret + `"}`, want: "expired_token: status 200 OK", code: "expired_token", permanent: true},
	{name: "too large", status: 200, body: `{"access_token":"` + fetchSecret + `","pad":"` + strings.Repeat("x", 1<<20) + `"}`, want: "larger than 1 MiB", ambiguous: true},
	{name: "one byte too large", status: 200, body: fetchStd + strings.Repeat(" ", 1<<20+1-len(fetchStd)), want: "larger than 1 MiB", ambiguous: true},
}

func TestFailedAnswersAreClearAuthErrors(t *testing.T) {
	for _, tt := range fetchFailures {
		t.Run(tt.name, func(t *testing.T) {
			f := &requestforge.HTTPFetcher{
				URL:  "https://auth.example/token?key=" + fetchSecret,
				Form: url.Values{"password": {fetchSecret}}, Client: fetchAnswer(tt.status, tt.header, tt.body),
			}
			tok, err := f.Fetch(t.Context(), requestforge.Input{})
			ae := fetchFailed(t, tok, err, tt.want)
			if ae.StatusCode != tt.status || ae.Code != tt.code || ae.Permanent != tt.permanent || ae.RetryAfter != tt.after {
				t.Errorf("got %d %q permanent %v after %v", ae.StatusCode, ae.Code, ae.Permanent, ae.RetryAfter)
			}
			if got := requestforge.Transient(err); got != tt.transient {
				t.Errorf("transient: got %v", got)
			}
			if got := requestforge.Ambiguous(err); got != tt.ambiguous {
				t.Errorf("ambiguous: got %v", got)
			}
			if retry, after := ae.RetryVerdict(); retry == tt.permanent || after != tt.after {
				t.Errorf("verdict: got %v, %v", retry, after)
			}
		})
	}
}

// A login form refuses a wrong password with its own page and 200. Each try counts
// towards the lock of the account.
func TestWrongPasswordAnsweredByAPageIsSentOnce(t *testing.T) {
	for name, header := range map[string]http.Header{
		"by its type": {"Content-Type": {"text/html;charset=UTF-8"}}, "by its beginning": {}, "as JSON": {"Content-Type": {"application/json"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			sent := 0
			page := fetchAnswer(200, header, "\n<!-- login -->\n<HTML><body>Wrong user name or password</body></html>")
			client := &http.Client{Transport: fetchRT(func(req *http.Request) (*http.Response, error) {
				sent++
				return page.Transport.RoundTrip(req)
			})}
			for _, f := range []requestforge.Fetcher{
				&requestforge.HTTPFetcher{URL: "https://auth.example/", JSON: map[string]string{"password": fetchSecret}, Client: client},
				&requestforge.HTTPFetcher{URL: "https://auth.example/", TokenHeader: "X-Token", JSON: map[string]string{"password": fetchSecret}, Client: client},
			} {
				p, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{Name: "login", Fetcher: f}}})
				if err != nil {
					t.Fatal(err)
				}
				sent = 0
				for range 2 { // the second within the cool-down
					if tok, err := p.Token(t.Context()); err == nil || sent != 1 {
						t.Errorf("%s: %v, %v, the password was sent %d times, want once", name, tok, err, sent)
					}
				}
				p.Close()
			}
		})
	}
}

func TestTokenFromAHeader(t *testing.T) {
	html := http.Header{"Content-Type": {"text/html"}}
	page := html.Clone()
	page.Set("X-Token", "t")
	for name, tt := range map[string]struct {
		status    int
		header    http.Header
		body      string
		tok, fail string
		transient bool
	}{
		"one":              {status: 200, header: http.Header{"X-Token": {"t"}}, tok: "t"},
		"taken as it is":   {status: 204, header: http.Header{"X-Token": {"user t"}}, tok: "user t"},
		"whatever is sent": {status: 299, header: page, body: "<html>", tok: "t"},
		"none":             {status: 200, header: http.Header{"X": {fetchSecret}}, body: fetchSecret, fail: `no header "x-token"`},
		"an empty one":     {status: 200, header: http.Header{"X-Token": {""}}, fail: `no header "x-token"`},
		"two":              {status: 200, header: http.Header{"X-Token": {fetchSecret, "t"}}, fail: `2 headers "x-token"`},
		"a page":           {status: 200, header: html, body: "<p>" + fetchSecret, fail: "HTML page"},
		"control":          {status: 200, header: http.Header{"X-Token": {fetchSecret + "\x01"}}, fail: "control characters"},
		"refused":          {status: 401, header: http.Header{"X-Token": {fetchSecret}}, body: `{"error":"invalid_client"}`, fail: "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &requestforge.HTTPFetcher{URL: "https://auth.example/", TokenHeader: "x-token", TokenType: "DPoP", Client: fetchAnswer(tt.status, tt.header, tt.body)}
			tok, err := f.Fetch(t.Context(), requestforge.Input{})
			if tt.fail != "" {
				ae := fetchFailed(t, tok, err, tt.fail)
				if ae.StatusCode != tt.status || requestforge.Transient(err) != tt.transient {
					t.Errorf("got status %d, transient %v", ae.StatusCode, requestforge.Transient(err))
				}
				return
			}
			if want := (&requestforge.Token{AccessToken: tt.tok, TokenType: "DPoP"}); err != nil || !reflect.DeepEqual(tok, want) {
				t.Errorf("got %v, %v", tok, err)
			}
		})
	}
}

// fetchBody counts closes, and never ends by itself.
type fetchBody struct {
	read   func(p []byte) (int, error)
	n      atomic.Int64
	closed atomic.Int32
}

func (b *fetchBody) Read(p []byte) (int, error) {
	n, err := b.read(p)
	b.n.Add(int64(n))
	return n, err
}
func (b *fetchBody) Close() error { b.closed.Add(1); return nil }

func TestBodiesAreBoundedAndClosedOnce(t *testing.T) {
	endless := func(p []byte) (int, error) { return len(p), nil }
	fail := func(p []byte) (int, error) { return 0, io.ErrUnexpectedEOF }
	for name, tt := range map[string]struct {
		read   func([]byte) (int, error)
		status int
		header bool
		field  string
		ok     bool
		most   int64
	}{
		"endless token":             {read: endless, status: 200, most: 1<<20 + 1 + 64<<10},
		"endless refusal":           {read: endless, status: 500, most: 128<<10 + 1},
		"endless beside a header":   {read: endless, status: 200, header: true, ok: true, most: 1<<20 + 1 + 64<<10},
		"endless, with a field":     {read: endless, status: 200, header: true, field: "in", most: 1<<20 + 1 + 64<<10},
		"broken token":              {read: fail, status: 200},
		"broken refusal":            {read: fail, status: 401},
		"broken, but with a header": {read: fail, status: 200, header: true}, // the end and the refresh token may be lost
	} {
		t.Run(name, func(t *testing.T) {
			body := &fetchBody{read: tt.read}
			client := &http.Client{Transport: fetchRT(func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: tt.status, Header: http.Header{"X-Token": {"t"}}, Body: body, ContentLength: -1, Request: req}, nil
			})}
			var f requestforge.Fetcher = &requestforge.HTTPFetcher{URL: "https://auth.example", Client: client}
			if tt.header {
				f = &requestforge.HTTPFetcher{URL: "https://auth.example", TokenHeader: "X-Token", ExpiresInField: tt.field, Client: client}
			}
			tok, err := f.Fetch(t.Context(), requestforge.Input{})
			if (err == nil) != tt.ok {
				t.Errorf("got %v, %v", tok, err)
			}
			if strings.HasPrefix(name, "broken") && tt.status == 200 && (!requestforge.Transient(err) || !requestforge.Ambiguous(err)) {
				t.Errorf("a broken response is worth another try: %v", err)
			}
			if n := body.closed.Load(); n != 1 {
				t.Errorf("closed %d times", n)
			}
			// io.CopyN reads through a buffer of its own.
			if n := body.n.Load(); n > tt.most+1<<10 {
				t.Errorf("read %d bytes, want at most %d", n, tt.most)
			}
		})
	}
}

func TestAZippedResponseIsBoundedByWhatItUnpacksTo(t *testing.T) {
	srv, _ := fetchServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, fetchStd+strings.Repeat(" ", 4<<20))
		z.Close()
	})
	tok, err := (&requestforge.HTTPFetcher{URL: srv.URL}).Fetch(t.Context(), requestforge.Input{})
	fetchFailed(t, tok, err, "larger than 1 MiB")
}

// What a mock may answer: no body, no header, no request, nothing at all.
func TestFetchersTakeTheBareAnswersOfMocks(t *testing.T) {
	for name, resp := range map[string]*http.Response{
		"200":      {StatusCode: 200},
		"401":      {StatusCode: 401},
		"302":      {StatusCode: 302, Header: http.Header{"Location": {"https://auth.example/x"}}},
		"a length": {StatusCode: 200, ContentLength: 5},
		"nothing":  nil,
	} {
		client := &http.Client{Transport: fetchRT(func(*http.Request) (*http.Response, error) {
			if resp == nil {
				return nil, nil
			}
			r := *resp
			return &r, nil
		})}
		for _, f := range []requestforge.Fetcher{
			&requestforge.HTTPFetcher{URL: "https://auth.example/", Client: client},
			&requestforge.HTTPFetcher{URL: "https://auth.example/", TokenHeader: "X", Client: client},
		} {
			if tok, err := f.Fetch(t.Context(), requestforge.Input{}); err == nil {
				t.Errorf("%s: %v", name, tok)
			}
		}
		before := http.DefaultTransport
		http.DefaultTransport = client.Transport
		got, err := requestforge.LoginClient("https://auth.example").Get("https://auth.example/")
		http.DefaultTransport = before
		if (err == nil) != (name == "200" || name == "401") {
			t.Errorf("%s: %v, %v from a LoginClient", name, got, err)
		}
		_ = requestforge.NewAuthError(resp, nil, nil).Error()
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	for name, status := range map[string]int{"after a failure": 500, "after a token in a header": 200} {
		t.Run(name, func(t *testing.T) {
			var conns atomic.Int32
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Token", "t")
				w.WriteHeader(status)
				io.WriteString(w, strings.Repeat("x", 8<<10))
			}))
			srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					conns.Add(1)
				}
			}
			srv.Start()
			defer srv.Close()
			f := &requestforge.HTTPFetcher{URL: srv.URL, TokenHeader: "X-Token", Client: srv.Client()}
			for range 3 {
				if _, err := f.Fetch(t.Context(), requestforge.Input{}); (err == nil) != (status == 200) {
					t.Fatal(err)
				}
			}
			if n := conns.Load(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

// The transport keeps its word that a body ends with the request's context.
func TestDrippingServerEndsAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var body *fetchBody
		client := &http.Client{Transport: fetchRT(func(req *http.Request) (*http.Response, error) {
			body = &fetchBody{read: func(p []byte) (int, error) {
				select {
				case <-req.Context().Done():
					return 0, req.Context().Err()
				case <-time.After(time.Second):
					p[0] = ' '
					return 1, nil
				}
			}}
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: body, ContentLength: -1, Request: req}, nil
		})}
		ctx, cancel := context.WithTimeout(t.Context(), 30500*time.Millisecond)
		defer cancel()
		start := time.Now()
		tok, err := (&requestforge.HTTPFetcher{URL: "https://auth.example", Client: client}).Fetch(ctx, requestforge.Input{})
		ae := fetchFailed(t, tok, err, "broke off")
		if took := time.Since(start); took != 30500*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if !errors.Is(err, context.DeadlineExceeded) || !ae.Timeout() || ae.StatusCode != 200 {
			t.Errorf("got %v, timeout %v, status %d", err, ae.Timeout(), ae.StatusCode)
		}
		if body.closed.Load() != 1 {
			t.Error("the body was not closed")
		}
	})
}

func TestNilClientIsTheDefaultTransportOfTheMoment(t *testing.T) {
	srv, seen := fetchServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "x", Path: "/"})
		fetchJSON(fetchStd)(w, r)
	})
	f := &requestforge.HTTPFetcher{URL: srv.URL}
	for range 2 {
		if _, err := f.Fetch(t.Context(), requestforge.Input{}); err != nil {
			t.Fatal(err)
		}
		if c := seen.header.Get("Cookie"); c != "" {
			t.Errorf("a cookie went along: %s", c)
		}
	}
	old := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = old })
	http.DefaultTransport = fetchAnswer(200, nil, `{"access_token":"swapped"}`).Transport
	if tok, err := f.Fetch(t.Context(), requestforge.Input{}); err != nil || tok.AccessToken != "swapped" {
		t.Errorf("got %v, %v", tok, err)
	}
}

func TestClientIsUsedAndNotChanged(t *testing.T) {
	srv, seen := fetchServer(t, fetchJSON(fetchStd))
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	jar.SetCookies(u, []*http.Cookie{{Name: "c", Value: "1"}})
	client := &http.Client{Jar: jar, Timeout: time.Minute}
	if _, err := (&requestforge.HTTPFetcher{URL: srv.URL, Client: client}).Fetch(t.Context(), requestforge.Input{}); err != nil {
		t.Fatal(err)
	}
	if seen.header.Get("Cookie") != "c=1" {
		t.Error("its jar was not used")
	}
	if client.CheckRedirect != nil || client.Transport != nil || client.Jar != jar || client.Timeout != time.Minute {
		t.Errorf("it was changed: %+v", client)
	}
}

func TestRedirectsNeverLeaveTheOrigin(t *testing.T) {
	var stolen atomic.Int32
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { stolen.Add(1) }))
	t.Cleanup(other.Close)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { stolen.Add(1) }))
	t.Cleanup(plain.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for name, target := range map[string]string{"another origin": other.URL, "plain http": plain.URL} {
			t.Run(fmt.Sprint(status, " to ", name), func(t *testing.T) {
				srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					http.Redirect(w, r, target+"/"+fetchSecret+"?key="+fetchSecret, status)
				}))
				defer srv.Close()
				asked := 0
				client := other.Client() // trusts both: they share httptest's certificate
				client.CheckRedirect = func(*http.Request, []*http.Request) error { asked++; return nil }
				f := &requestforge.HTTPFetcher{
					URL: srv.URL, Form: url.Values{"password": {fetchSecret}}, Client: client,
					ClientAuth: &requestforge.ClientAuth{ID: "id", Secret: fetchSecret},
				}
				tok, err := f.Fetch(t.Context(), requestforge.Input{})
				ae := fetchFailed(t, tok, err, "redirect to another origin not followed")
				if strings.Contains(err.Error(), target) {
					t.Errorf("the error says where the server pointed: %v", err)
				}
				if ae.StatusCode != status || ae.Permanent || requestforge.Transient(err) || asked != 1 {
					t.Errorf("got status %d, permanent %v, transient %v, asked %d", ae.StatusCode, ae.Permanent, requestforge.Transient(err), asked)
				}
			})
		}
	}
	if n := stolen.Load(); n != 0 {
		t.Errorf("%d requests left the origin", n)
	}
}

func TestRedirectsWithinTheOriginAreFollowed(t *testing.T) {
	loops := 0
	srv, seen := fetchServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/end":
			fetchJSON(fetchStd)(w, r)
		case r.URL.Path == "/loop":
			loops++
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
		default:
			http.Redirect(w, r, "/end", http.StatusTemporaryRedirect)
		}
	})
	f := &requestforge.HTTPFetcher{URL: srv.URL + "/start", Form: url.Values{"a": {"b"}}, ClientAuth: &requestforge.ClientAuth{ID: "id", Secret: "s"}}
	if tok, err := f.Fetch(t.Context(), requestforge.Input{}); err != nil || tok.AccessToken != "a" {
		t.Fatalf("got %v, %v", tok, err)
	}
	if _, _, ok := (&http.Request{Header: seen.header}).BasicAuth(); !ok || seen.method != "POST" || seen.body != "a=b" {
		t.Errorf("got %s %q", seen.method, seen.body)
	}

	tok, err := (&requestforge.HTTPFetcher{URL: srv.URL + "/loop"}).Fetch(t.Context(), requestforge.Input{})
	fetchFailed(t, tok, err, "stopped after 10 redirects")
	if loops != 10 {
		t.Errorf("%d requests in the loop", loops)
	}

	no := errors.New("no redirects here")
	f.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return no }}
	tok, err = f.Fetch(t.Context(), requestforge.Input{})
	fetchFailed(t, tok, err, "no redirects here")
	if !errors.Is(err, no) {
		t.Errorf("the cause is gone from %v", err)
	}

	f.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	tok, err = f.Fetch(t.Context(), requestforge.Input{})
	fetchFailed(t, tok, err, "307 Temporary Redirect")
}

func TestALocationThatDoesntParseIsNotShown(t *testing.T) {
	f := &requestforge.HTTPFetcher{URL: "https://auth.example", Client: fetchAnswer(302, http.Header{"Location": {"https://h/%zz?key=" + fetchSecret}}, "")}
	tok, err := f.Fetch(t.Context(), requestforge.Input{})
	fetchFailed(t, tok, err, "Location")
}
