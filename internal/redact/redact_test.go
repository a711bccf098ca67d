package redact

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var urlTests = []struct{ raw, want string }{
	{"https://h/a/b", "https://h/a/b"},
	{"https://h", "https://h"},
	{"https://h:8443/", "https://h:8443/"},
	{"http://[::1]:80/x", "http://[::1]:80/x"},
	{"https://h/a%2Fb", "https://h/a%2Fb"},
	{"/users", "/users"},
	{"", ""},

	{"https://user:pass@h/x", "https://REDACTED@h/x"},
	{"https://sk_live_1@h/x", "https://REDACTED@h/x"},
	{"https://@h/x", "https://REDACTED@h/x"},
	{"//user:pass@h/x", "//REDACTED@h/x"},
	{"user@h/x", "REDACTED@h/x"},
	{"a@b@h", "REDACTED@h"},
	{"/users/@me", "/users/@me"},

	{"https://h/?a=1", "https://h/?a=REDACTED"},
	{"https://h/?a=1&b=2&a=3", "https://h/?a=REDACTED&b=REDACTED&a=REDACTED"},
	{"https://h/?a=b=c", "https://h/?a=REDACTED"},
	{"https://h/?a=", "https://h/?a=REDACTED"},
	{"https://h/?=1", "https://h/?=REDACTED"},
	{"https://h/?ticket", "https://h/?REDACTED"},
	{"https://h/?a=1&&b=2&", "https://h/?a=REDACTED&&b=REDACTED&"},
	{"https://h/?", "https://h/?"},
	{"https://h/?filter%5Bid%5D=7", "https://h/?filter%5Bid%5D=REDACTED"},
	{"?a=1", "?a=REDACTED"},

	{"https://h/?a=1;b=2", "https://h/?REDACTED"},
	{"https://h/?a=%zz&b=2", "https://h/?REDACTED"},
	{"https://h/?a=1%2", "https://h/?REDACTED"},
	{"https://h/?a b=1", "https://h/?REDACTED"},

	{"https://h/x#access_token=1", "https://h/x#REDACTED"},

	{"https:token", "https:REDACTED"},
	{"mailto:me@h?subject=1", "REDACTED?subject=REDACTED"},
	{"admin:secret@h", "REDACTED"},
	{"https://h:port", "REDACTED"},
}

func TestURLMasksUserInfoAndQueryValues(t *testing.T) {
	for _, tt := range urlTests {
		if got := Text(tt.raw); got != tt.want {
			t.Errorf("Text(%q) = %q, want %q", tt.raw, got, tt.want)
		}
		if again := Text(tt.want); again != tt.want {
			t.Errorf("Text(%q) = %q, want it unchanged", tt.want, again)
		}
	}
}

func TestURLMadeByHand(t *testing.T) {
	tests := []struct {
		u    *url.URL
		want string
	}{
		{nil, ""},
		{&url.URL{}, ""},
		{&url.URL{Scheme: "https", Host: "user:pass@h", Path: "/x"}, "https://REDACTED/x"},
		{&url.URL{Scheme: "https", Host: "h\nlevel=ERROR", Path: "/x"}, "https://REDACTED/x"},
		{&url.URL{Scheme: "https", Opaque: "//user:pass@h/x?k=v"}, "https:REDACTED"},
		{&url.URL{Opaque: "user:pass"}, "REDACTED"},
		{&url.URL{Scheme: "https", Host: "h", Path: "x"}, "https://h/x"},
		{&url.URL{Scheme: "https", Host: "h", RawQuery: "a=1\nb=2"}, "https://h?REDACTED"},
		{&url.URL{Scheme: "https", Host: "h", RawQuery: "a=1#b"}, "https://h?REDACTED"},
		{&url.URL{User: url.UserPassword("a", "b"), Path: "/x"}, "//REDACTED@/x"},
		{&url.URL{Scheme: "file", Path: "/x"}, "file:///x"},
	}
	for _, tt := range tests {
		if got := URL(tt.u); got != tt.want {
			t.Errorf("URL(%#v) = %q, want %q", tt.u, got, tt.want)
		}
	}
}

// wrapped hides the text of the error below, as a client library does, and
// keeps the error itself.
type wrapped struct {
	text string
	err  error
}

func (w wrapped) Error() string { return w.text }
func (w wrapped) Unwrap() error { return w.err }

func TestErrorMasksEveryURL(t *testing.T) {
	get := func(raw string) error { return &url.Error{Op: "Get", URL: raw, Err: errors.New("EOF")} }
	parse := func(raw string) (*url.URL, error) { return url.Parse(raw) } // these are wrong on purpose
	_, badPort := parse("https://me:hunter2/x@h/?k=hunter2")
	_, badEscape := parse("https://h/%hu?k=hunter2")
	_, ctl := parse("https://h/\x7f?k=hunter2")
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"nil", nil, ""},
		{"no URL", errors.New(`step "user": invalid_client`), `step "user": invalid_client`},
		{"nothing to mask", get("https://h/x"), `Get "https://h/x": EOF`},
		{"query", get("https://h/?k=hunter2"), `Get "https://h/?k=REDACTED": EOF`},
		{"user info", get("https://me:hunter2@h/"), `Get "https://REDACTED@h/": EOF`},
		{"relative", get("/x?k=hunter2"), `Get "/x?k=REDACTED": EOF`},
		{"wrapped", fmt.Errorf("a: %w", fmt.Errorf("b: %w", get("/x?k=hunter2"))), `a: b: Get "/x?k=REDACTED": EOF`},
		{"joined", errors.Join(get("/x?k=hunter2"), get("/y?k=hunter2")), "Get \"/x?k=REDACTED\": EOF\nGet \"/y?k=REDACTED\": EOF"},
		{"two wrapped at once", fmt.Errorf("%w, then %w", get("/x?k=hunter2"), get("/y?k=hunter2")), `Get "/x?k=REDACTED": EOF, then Get "/y?k=REDACTED": EOF`},
		{"nested", &url.Error{Op: "Get", URL: "/x?k=hunter2", Err: get("/y?k=hunter2")}, `Get "/x?k=REDACTED": Get "/y?k=REDACTED": EOF`},
		{"beginning of another", errors.Join(get("/x?k=hun"), get("/x?k=hunter2")), "Get \"/x?k=REDACTED\": EOF\nGet \"/x?k=REDACTED\": EOF"},
		{"with quotes and blanks", get(`https://h/?k="hunter2 hunter2"`), `Get "https://h/?REDACTED": EOF`},
		{"text of a wrapper", wrapped{"calling /x?k=hunter2 failed", get("/x?k=hunter2")}, "calling /x?k=REDACTED failed"},
		{"only in a text", errors.New("dial https://me:hunter2@h/x?k=hunter2: refused"), "dial https://REDACTED@h/x?k=REDACTED: refused"},
		{"only in a quoted text", errors.New(`dial "https://h/?k=\"hunter2 hunter2\"": refused`), `dial "https://h/?REDACTED": refused`},
		{"in the midst of a quoted text", errors.New(`said "see https://h/?k=hunter2, please"`), `said "see https://h/?k=REDACTED, please"`},
		{"two in a text", errors.New("https://h/?k=hunter2 (was http://h/?k=hunter2)"), "https://h/?k=REDACTED (was http://h/?k=REDACTED)"},
		{"no host", errors.New(`unknown "://"`), `unknown "REDACTED"`},
		{"unparsable", get("https://h/%zz?k=hunter2"), `Get "REDACTED": EOF`},
		{"password in the reason", badPort, `parse "REDACTED": invalid port "REDACTED" after host`},
		{"escape in the reason", badEscape, `parse "REDACTED": invalid URL escape "REDACTED"`},
		{"control character", ctl, `parse "REDACTED": net/url: invalid control character in URL`},
		{"Location that http.Client can't parse", fmt.Errorf("failed to parse Location header %q: %v", "https://me:hunter2/x@h", badPort),
			`failed to parse Location header "REDACTED": parse "REDACTED": invalid port "REDACTED" after host`},
		{"no URL in it", &url.Error{Op: "Get", Err: errors.New("nil URL")}, `Get "": nil URL`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Error(tt.err)
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if strings.Contains(got, "hunter2") {
				t.Errorf("the secret is in it: %s", got)
			}
		})
	}
}

func TestRequestHeaderShowsWhatTheCallerHasChosen(t *testing.T) {
	in := http.Header{
		"Accept":          {"application/json", "text/plain"},
		"content-type":    {"multipart/form-data; boundary=x"},
		"User-Agent":      {"shop/1.2"},
		"X-Request-Id":    {"order-4711"},
		"Authorization":   {"Bearer hunter2"},
		"Cookie":          {"a=hunter2", "b=hunter2"},
		"X-Api-Key":       {"hunter2"},
		"X-Hunter":        nil,
		"If-None-Match":   {`"hunter2"`},
		"Referer":         {"/x?k=hunter2"},
		"Origin":          {"https://h"},
		"Location":        {"https://hunter2/hunter2"},
		"Accept-Encoding": nil,
	}
	want := http.Header{
		"Accept":          {"application/json", "text/plain"},
		"content-type":    {"multipart/form-data; boundary=x"},
		"User-Agent":      {"shop/1.2"},
		"X-Request-Id":    {"order-4711"},
		"Authorization":   {Mask},
		"Cookie":          {Mask},
		"X-Api-Key":       {Mask},
		"X-Hunter":        {Mask},
		"If-None-Match":   {Mask},
		"Referer":         {"/x?k=REDACTED"},
		"Origin":          {"https://h"},
		"Location":        {"https://REDACTED/REDACTED"},
		"Accept-Encoding": {Mask},
	}
	got := RequestHeader(in, nil, URL)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	got["Accept"][0] = "changed"
	if in["Accept"][0] != "application/json" {
		t.Error("the copy shares values with the header")
	}
	if got := RequestHeader(nil, nil, URL); got != nil {
		t.Errorf("RequestHeader(nil) = %v, want nil", got)
	}
}

func TestResponseHeaderShowsNothingThatAServerCanSendBack(t *testing.T) {
	at, err := url.Parse("https://h:8443/users/me?page=2")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, value, want string }{
		{"Content-Type", "application/json", "application/json"},
		{"content-type", "text/html; charset=UTF-8", "text/html; charset=UTF-8"},
		{"Content-Type", "application/vnd.api+json", "application/vnd.api+json"},
		{"Content-Type", "application/vnd.acme.v2+json", "application/vnd.REDACTED+json"},
		{"Content-Type", `multipart/form-data; boundary="hunter2 hunter2"`, `multipart/form-data; boundary="REDACTED"`},
		{"Content-Type", "hunter2", Mask},
		{"Content-Type", "text/hunter2/123456/json", "text/REDACTED/json"},
		{"Content-Type", "text/\x00\xff", "text/REDACTED"},
		{"Content-Length", "1048576", "1048576"},
		{"Content-Length", "867530912345867530912345", Mask},
		{"Content-Range", "bytes 0-1073741823/2147483648", "bytes 0-1073741823/2147483648"},
		{"Content-Range", "bytes 0-1/hunter2", "bytes REDACTED"},
		{"Content-Range", "bytes 0-1/86753091234567", "bytes REDACTED"},
		{"Content-Encoding", "gzip", "gzip"},
		{"Content-Language", "de, en-US", "de, en-US"},
		{"Content-Language", "hunter2-x", Mask},
		{"Cache-Control", "private, max-age=60, stale-while-revalidate=30", "private, max-age=60, stale-while-revalidate=30"},
		{"Cache-Control", `private="X-Hunter2", max-age=123456`, `private="REDACTED", max-age=REDACTED`},
		{"Allow", "GET, HEAD", "GET, HEAD"},
		{"Vary", "Accept-Encoding, Authorization", "Accept-Encoding, Authorization"},
		{"Vary", "X-hunter2", Mask},
		{"Server", "nginx/1.25.3", "nginx/1.25.3"},
		{"Server", "hunter2/1.0 (123456)", "REDACTED)"},
		{"Via", "1.1 varnish, 1.1 google", "1.1 varnish, 1.1 google"},
		{"Via", "1.1 hunter2", Mask},
		{"Via", "4111 1111 1111 1111", Mask},
		{"Age", "12", "12"},
		{"Retry-After", "3", "3"},
		{"Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT"},
		{"Date", "Wednesday, 21-Oct-15 07:28:00 HUN", "Wed, 21 Oct 2015 07:28:00 GMT"},
		{"Date", "hunter2", Mask},
		{"Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT"},
		{"Expires", "-1", "-1"},
		{"Deprecation", "@1688169599", "@1688169599"},
		{"Ratelimit-Limit", "100, 100;w=60", "100, 100;w=60"},
		{"X-Ratelimit-Reset", "1688169599000", "1688169599000"},
		{"X-Ratelimit-Reset", "soon", Mask},
		{"X-Request-Id", "hunter2", Mask},
		{"X-Request-Id", "2f1d4e3c-0000-4000-8000-000000000000", Mask},
		{"X-Correlation-Id", "hunter2", Mask},
		{"Traceparent", "00-hunter2-01", Mask},
		{"User-Agent", "hunter2", Mask},
		{"Etag", `"hunter2"`, Mask},
		{"Set-Cookie", "s=hunter2", Mask},
		{"Json", "json", Mask},
		{"Location", "/users/me/", "https://h:8443/users/me/"},
		{"Location", "http://h:8443/users/me?page=2", "http://h:8443/users/me?page=REDACTED"},
		{"Location", "https://h:8443/", "https://h:8443/"},
		{"Location", "https://h:8443/hunter2", "https://h:8443/REDACTED"},
		{"Location", "https://H:8443/?hunter2=1#hunter2", "https://h:8443/?REDACTED#REDACTED"},
		{"Location", "https://hunter2.example/users/me", "https://REDACTED/users/me"},
		{"Location", "https://h:123456/", "https://REDACTED/"},
		{"Location", "https://hunter2@h:8443/", "https://REDACTED@h:8443/"},
		{"Location", "hunter2://h:8443/", "https://h:8443/"},
		{"Location", "hunter2:hunter2", "https://REDACTED/REDACTED"},
		{"Location", "https://hunter2:hunter2", Mask},
		{"Content-Location", "//hunter2/x", "https://REDACTED/REDACTED"},
		{"Referer", "/hunter2", "https://h:8443/REDACTED"},
		{"Www-Authenticate", `bearer error="hunter2"`, "Bearer REDACTED"},
		{"Www-Authenticate", "Negotiate hunter2", "Negotiate REDACTED"},
		{"Www-Authenticate", "Negotiate", "Negotiate"},
		{"Proxy-Authenticate", "hunter2", Mask},
	} {
		got := ResponseHeader(http.Header{tt.name: {tt.value, tt.value}}, at, URL)[tt.name]
		if want := []string{tt.want, tt.want}; !reflect.DeepEqual(got, want) && !(tt.want == Mask && reflect.DeepEqual(got, want[:1])) {
			t.Errorf("%s: %s is %q, want %q", tt.name, tt.value, got, tt.want)
		}
	}
	odd := http.Header{"X-Hunter2hunter2": {"1"}, "0123abcd-0000": nil, "X-B3-Traceid": {"1"}, "X-Amz-Id-2": {"1"}}
	if got, want := ResponseHeader(odd, at, URL), (http.Header{Mask: {Mask}, "X-B3-Traceid": {Mask}, "X-Amz-Id-2": {Mask}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := ResponseHeader(nil, at, URL); got != nil {
		t.Errorf("ResponseHeader(nil) = %v, want nil", got)
	}
}

// FuzzResponseHeader looks for a secret in the middle of a value.
func FuzzResponseHeader(f *testing.F) {
	f.Add("text/", "; charset=utf-8")
	f.Add("1.1 ", "")
	f.Add("https://h/", "@h?k=1")
	f.Add("Bearer ", ", max-age=1")
	f.Add("", "-json")
	at := &url.URL{Scheme: "https", Host: "h", Path: "/x"}
	f.Fuzz(func(t *testing.T, before, after string) {
		h := http.Header{}
		for _, name := range slices.Concat(slices.Collect(maps.Keys(described)), slices.Collect(maps.Keys(times)), []string{"Location", "Www-Authenticate", "Etag"}) {
			h[name] = []string{before + secret + after, secret}
		}
		for name, values := range ResponseHeader(h, at, URL) {
			if strings.Contains(strings.Join(values, ","), secret) {
				t.Errorf("%s: %q is %q", name, h[name], values)
			}
		}
	})
}

// The texts of net/http and its neighbours that repeat what a server has sent.
func TestErrorsRepeatNoneOfAServersWords(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New(`malformed HTTP response "hunter2"`), `malformed HTTP response "REDACTED"`},
		{errors.New(`malformed HTTP version "HTTP/hunter2"`), `malformed HTTP version "REDACTED"`},
		{errors.New(`malformed HTTP status code "hunter2"`), `malformed HTTP status code "REDACTED"`},
		{textproto.ProtocolError("malformed MIME header line: X-Echo hunter2 \"x\"\nhunter2"), "malformed MIME header line: REDACTED"},
		{textproto.ProtocolError(`malformed MIME header line: "X-Echo hunter2"`), `malformed MIME header line: "REDACTED"`},
		{textproto.ProtocolError(`malformed MIME header initial line: "hunter2"`), `malformed MIME header initial line: "REDACTED"`},
		{textproto.ProtocolError("malformed MIME header initial line: hunter2"), "malformed MIME header initial line: REDACTED"},
		{textproto.ProtocolError(`malformed MIME header: missing colon: "hunter2 \"hunter2"`), `malformed MIME header: missing colon: "REDACTED"`},
		{errors.New(`bad Content-Length "hunter2"`), `bad Content-Length "REDACTED"`},
		{errors.New(`invalid empty Content-Length "hunter2"`), `invalid empty Content-Length "REDACTED"`},
		{errors.New(`http: message cannot contain multiple Content-Length headers; got ["1" "hunter2"]`), `http: message cannot contain multiple Content-Length headers; got "REDACTED"`},
		{errors.New(`unsupported transfer encoding: "hunter2"`), `unsupported transfer encoding: "REDACTED"`},
		{errors.New(`too many transfer encodings: ["chunked" "hunter2"]`), `too many transfer encodings: "REDACTED"`},
		{errors.New(`bad trailer key "hunter2"`), `bad trailer key "REDACTED"`},
		{errors.New(`failed to parse Location header "hunter2 hunter2": x`), `failed to parse Location header "REDACTED": x`},
		{errors.New(`http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR, debug="hunter2"`),
			`http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR, debug="REDACTED"`},
		{errors.New(`stream error: stream ID 1; PROTOCOL_ERROR; invalid header field name "hunter2"`), `stream error: stream ID 1; PROTOCOL_ERROR; invalid header field name "REDACTED"`},
		{errors.New(`invalid pseudo-header ":hunter2"`), `invalid pseudo-header "REDACTED"`},
		{errors.New(`tls: server selected unadvertised ALPN protocol ("hunter2")`), `tls: server selected unadvertised ALPN protocol ("REDACTED")`},
	} {
		for _, wrap := range []func(error) error{
			func(err error) error { return err },
			func(err error) error { return fmt.Errorf("net/http: HTTP/1.x transport connection broken: %w", err) },
			func(err error) error { return fmt.Errorf(`requestforge: step "user": POST https://h/: %w`, err) },
		} {
			err, want := wrap(tt.err), wrap(errors.New(tt.want)).Error()
			record := RecordOf(&http.Request{URL: &url.URL{Scheme: "https", Host: "h", Path: "/"}}, nil)
			for name, got := range map[string]string{
				"Error": Error(err), "Cause": Cause(err).Error(), "Words": Words(err).Error(), "Record": record.Error(err),
			} {
				if got != want {
					t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
				}
			}
		}
	}
}

// What a transport quotes is a server's; what the package quotes, a step's name.
func TestRecordsErrorQuotesNothingButOurs(t *testing.T) {
	record := RecordOf(&http.Request{URL: &url.URL{Scheme: "https", Host: "h", Path: "/"}}, nil)
	for in, want := range map[string]string{
		`said "hunter2"`: `said "REDACTED"`,
		`requestforge: step "user": invalid_grant`:         `requestforge: step "user": invalid_grant`,
		`shop: requestforge: step "user": "refused"`:       `shop: requestforge: step "user": "refused"`,
		"requestforge: step \"user\": x\nsaid \"hunter2\"": "requestforge: step \"user\": x\nsaid \"REDACTED\"",
		`said "requestforge: hunter2", "hunter2"`:          `said "REDACTED", "REDACTED"`,
	} {
		if got := record.Error(errors.New(in)); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", in, got, want)
		}
	}
	err := &url.Error{Op: "Get", URL: "https://h/?k=hunter2", Err: errors.New(`odd "hunter2"`)}
	if got, want := record.Error(err), `Get "https://h/?k=REDACTED": odd "REDACTED"`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

const secret = "hunter2hunter2"

// FuzzURL looks for a secret that was placed in the user info or in a query
// value, by hand and by text.
func FuzzURL(f *testing.F) {
	for _, tt := range urlTests {
		u, err := url.Parse(tt.raw)
		if err != nil {
			continue
		}
		f.Add(u.Scheme, u.Host, u.Path, "k", "", "", u.RawQuery)
	}
	f.Add("https", "h", "/x", "k", "a&b", ";%zz", "a=1&b")
	f.Add("", "h@h", "//x", "k[]", "=", " ", "&&&")
	f.Fuzz(func(t *testing.T, scheme, host, path, key, before, after, query string) {
		for _, s := range []string{scheme, host, path, key, query} {
			if strings.Contains(s, secret) {
				t.Skip()
			}
		}
		// Before and after stay within the value: nothing in them begins
		// a parameter whose name would be the secret.
		value := before + secret + after
		raw := query + "&" + key + "=" + strings.NewReplacer("&", "", "=", "").Replace(value)
		escaped := query + "&" + url.QueryEscape(key) + "=" + url.QueryEscape(value)
		bare := query + "&" + secret

		for _, u := range []*url.URL{
			{Scheme: scheme, Host: host, Path: path, RawQuery: raw},
			{Scheme: scheme, Host: host, Path: path, RawQuery: escaped},
			{Scheme: scheme, Host: host, Path: path, RawQuery: bare},
			{Scheme: scheme, Host: host, Path: path, User: url.User(value)},
			{Scheme: scheme, Host: host, Path: path, User: url.UserPassword(key, value), RawQuery: raw},
			{Scheme: scheme, Host: secret + "@" + host, Path: path},
			{Scheme: scheme, Host: host, Path: path, Fragment: value},
			{Scheme: scheme, Opaque: value, RawQuery: escaped},
		} {
			if got := URL(u); strings.Contains(got, secret) {
				t.Errorf("URL(%#v) = %q", u, got)
			}
			raw := u.String()
			if back, err := url.Parse(raw); err == nil && (u.Opaque != "" || back.RawQuery != u.RawQuery || strings.Contains(back.Scheme+back.Host+back.Path, secret)) {
				continue // the text says something else than u did
			}
			err := fmt.Errorf("wrapped: %w", &url.Error{Op: "Get", URL: raw, Err: errors.New("EOF")})
			if got := Error(err); strings.Contains(got, secret) {
				t.Errorf("Error(%q) = %q", err, got)
			}
		}
	})
}

// FuzzRecord looks for a secret that a program's function hides, in a path, a query or
// user info, in what a transport or a mock may say of the request.
func FuzzRecord(f *testing.F) {
	f.Add("bot1:", "", "/v1/", "/send", "k=1")
	f.Add("%", "% \"\n", "", "//x", "")
	f.Add("é/", "\\", "/", "?#", "a&b")
	f.Add("x", ",;)]", "/", "", "a=b=c")
	f.Fuzz(func(t *testing.T, before, after, dir, rest, query string) {
		if strings.Contains(dir+rest+query, secret) {
			t.Skip()
		}
		value := before + secret + after
		for _, u := range []*url.URL{
			{Scheme: "https", Host: "h.example", Path: "/" + dir + value + rest, RawQuery: query},
			{Scheme: "https", Host: "h.example", Path: "/" + dir, RawQuery: query + "&k=" + url.QueryEscape(value)},
			{Scheme: "https", Host: "h.example", Path: "/" + dir, User: url.UserPassword("me", value)},
		} {
			r := RecordOf(&http.Request{URL: u}, func(*url.URL) string { return "the API" })
			for _, err := range []error{
				&url.Error{Op: "Get", URL: u.String(), Err: errors.New("EOF")},
				fmt.Errorf("calling %s: refused", u),
				fmt.Errorf("calling %q: refused", u.String()),
				fmt.Errorf("no mock for %s", u.Path),
				fmt.Errorf("no mock for %s", u.EscapedPath()),
				fmt.Errorf("no mock for %s?%s!", u.Path, u.RawQuery),
				fmt.Errorf("no mock for %q", u.RequestURI()),
				fmt.Errorf("requestforge: no mock for %q", u.Path),
			} {
				if got := r.Error(err); strings.Contains(got, secret) {
					t.Errorf("Error(%q) = %q", err, got)
				}
			}
			if got := r.URL(); got != "the API" {
				t.Errorf("URL() = %q", got)
			}
		}
	})
}

// FuzzError looks for the password of a URL in what url.Parse says about it.
func FuzzError(f *testing.F) {
	f.Add("https://me:", "@h/x")
	f.Add("https://me:", "/@h/x")
	f.Add("https://me:%", "%zz@h")
	f.Add("https://me:\" ", "\"\n@h")
	f.Add("://me:", "@h")
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before+after, secret) {
			t.Skip()
		}
		_, err := url.Parse(before + secret + after)
		if err == nil {
			t.Skip()
		}
		for _, err := range []error{err, fmt.Errorf("a %w b", err), errors.Join(errors.New(`"`), err)} {
			if got := Error(err); strings.Contains(got, secret) {
				t.Errorf("Error(%q) = %q", err, got)
			}
		}
	})
}

func TestCausePrintsNothingButItsText(t *testing.T) {
	err := Cause(fmt.Errorf("malformed header %q", "s3cret"))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t", "%e"} {
		if got := fmt.Sprintf(verb, err); strings.Contains(got, "s3cret") || !strings.Contains(got, "malformed header") {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

type mine struct{ secret string }

func (m *mine) Error() string { panic(m.secret) }

func TestAnErrorThatPanicsHasNoText(t *testing.T) {
	for name, err := range map[string]error{
		"plain":   &mine{"s3cret"},
		"nil":     (*mine)(nil),
		"wrapped": &url.Error{Op: "Get", URL: "https://x.example/?q=s3cret", Err: &mine{"s3cret"}},
	} {
		for _, masked := range []error{Words(err), Inner(err), Cause(err)} {
			for _, text := range []string{masked.Error(), fmt.Sprintf("%+v", masked), fmt.Sprintf("%#v", masked)} {
				if strings.Contains(text, "s3cret") {
					t.Errorf("%s: %s", name, text)
				}
			}
			if !strings.Contains(masked.Error(), "mine, which panics") {
				t.Errorf("%s: %s", name, masked)
			}
		}
	}
}

func TestInnerLeavesOutThePackagesName(t *testing.T) {
	cause := errors.New("full")
	err := Inner(fmt.Errorf("requestforge: filestorage: %w", errors.Join(cause, errors.New("requestforge: record: damaged"))))
	if got, want := err.Error(), "filestorage: full\nrecord: damaged"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	if got := Inner(cause); got != cause {
		t.Errorf("got %v, want the error as it is", got)
	}
}

func TestCauseShowsAMaskedURLWithinQuotes(t *testing.T) {
	ue := &url.Error{Op: "Get", URL: "https://me:s3cret@h/x?k=s3cret", Err: errors.New(`odd "s3cret"`)}
	err := Cause(fmt.Errorf("login: %w", ue))
	if got, want := err.Error(), `login: Get "https://REDACTED@h/x?k=REDACTED": odd "REDACTED"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	err = Answer(fmt.Errorf("login %q: %w", "s3cret", ue), []byte(" odd \n"), func(string) string { return "https://h" })
	if got, want := err.Error(), `login "REDACTED": Get "https://h": odd "REDACTED"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := Answer(errors.New("number 867530912345.5 of user7 in the page"), []byte(`{"page":867530912345.5,"user7":"number"}`), Text).Error(); got != "number REDACTED of user7 in the page" {
		t.Errorf("got %s", got)
	}
	if got := Answer(errors.New("it said: no such user ann"), []byte("\tno such user ann\n"), Text).Error(); got != "it said: REDACTED" {
		t.Errorf("got %s", got)
	}
}
