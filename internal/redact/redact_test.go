package redact

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
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

func TestHeaderShowsOnlyHarmlessValues(t *testing.T) {
	in := http.Header{
		"Accept":           {"application/json", "text/plain"},
		"content-type":     {"application/json"},
		"Authorization":    {"Bearer hunter2"},
		"Cookie":           {"a=hunter2", "b=hunter2"},
		"X-Api-Key":        {"hunter2"},
		"X-Hunter":         nil,
		"Location":         {"https://me:hunter2@h/x?code=hunter2#hunter2"},
		"Referer":          {"/x?k=hunter2"},
		"Www-Authenticate": {`bearer error="hunter2"`, "Negotiate hunter2", "Negotiate", "hunter2"},
	}
	want := http.Header{
		"Accept":           {"application/json", "text/plain"},
		"content-type":     {"application/json"},
		"Authorization":    {Mask},
		"Cookie":           {Mask},
		"X-Api-Key":        {Mask},
		"X-Hunter":         {Mask},
		"Location":         {"https://REDACTED@h/x?code=REDACTED#REDACTED"},
		"Referer":          {"/x?k=REDACTED"},
		"Www-Authenticate": {"Bearer REDACTED", "Negotiate REDACTED", "Negotiate", Mask},
	}
	got := Header(in)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	got["Accept"][0] = "changed"
	if in["Accept"][0] != "application/json" {
		t.Error("the copy shares values with the header")
	}
	if got := Header(nil); got != nil {
		t.Errorf("Header(nil) = %v, want nil", got)
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
