package masked_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge/internal/masked"
)

const secret = `pa"ss/word+<7>`

// request is one that carries secret everywhere.
func request(t testing.TB, secret string) *http.Request {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"shop"}, "client_secret": {secret}}
	req, err := http.NewRequest("POST", "https://auth.example.com/token", strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("User-Agent", "requestforge")
	return req
}

func answer(req *http.Request, status int, body string, header http.Header, known ...string) (string, http.Header) {
	got, h := masked.Answer(&http.Response{StatusCode: status, Header: header, Request: req}, []byte(body), known)
	return string(got), h
}

// What operators look for is there.
func TestAnswerShowsReasons(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		body, want string // "": as it is
	}{
		"Entra":                  {401, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value.","error_codes":[7000215],"timestamp":"2026-11-29 10:11:12Z"}`, ""},
		"GitHub with 200":        {200, `{"error":"bad_verification_code","error_description":"The code passed is incorrect or expired.","error_uri":"https://docs.github.com/apps/troubleshooting"}`, ""},
		"GitHub's form with 200": {200, `error=bad_verification_code&error_description=The+code+passed+is+incorrect+or+expired.`, ""},
		"a vendor":               {400, `{"errors":[{"field":"account_id","problem":"field account_id is required"}]}`, ""},
		"a WAF's page":           {403, "<html><head><title>403 Forbidden</title></head>\n<body><h1>Request blocked</h1>Support ID: 4711</body></html>", ""},
		"a text":                 {500, "upstream connect error or disconnect/reset before headers", ""},
		"empty":                  {400, "", ""},
		"problem+json":           {400, `{"type":"about:blank","title":"Bad Request","status":400,"detail":"scope is not allowed"}`, ""},
		"Slack":                  {200, `{"ok":false,"error":"invalid_auth"}`, ""},
		"a token, too":           {200, `{"error":"expired","access_token":"opaque","refresh_token": "another", "user":{"name":"Ann"}}`, `{"error":"expired","access_token":"REDACTED","refresh_token": "REDACTED", "user":{"name":"REDACTED"}}`},
		"half of JSON":           {400, `{"error":"server_error","access_token":"opaq`, `{"error":"server_error","access_token"REDACTED`},
		"the same, 200":          {200, `{"error":"server_error","access_token":"opaq`, `{"error":"server_error","access_token"REDACTED`},
		"escapes":                {400, "error_description=Not+pa%22ss%2Fword%2B%3C7%3E%2C+they+are+incorrect&x=1", "error_description=Not+REDACTED%2C+they+are+incorrect&x=1"},
		"a form":                 {200, "access_token=gho_opaque&scope=repo&error=none", "access_token=REDACTED&scope=REDACTED&error=none"},
		"words":                  {400, "The token: opaque. Session=abc; retry", "The token: REDACTED Session=REDACTED; retry"},
		"not UTF-8":              {400, "caf\xe9", "caf?"},
	} {
		t.Run(name, func(t *testing.T) {
			want := c.want
			if want == "" {
				want = c.body
			}
			got, _ := answer(request(t, secret), c.status, c.body, nil)
			require.Equal(t, want, got)
		})
	}
}

// Whatever carries a secret, and however the server repeats it.
func TestAnswerMasksWhatWasSent(t *testing.T) {
	requests := map[string]func(t *testing.T) *http.Request{
		"form": func(t *testing.T) *http.Request { return request(t, secret) },
		"JSON": func(t *testing.T) *http.Request {
			raw, _ := json.Marshal(map[string]any{"user": map[string]any{"pin": []string{secret}}})
			req, _ := http.NewRequest("POST", "https://h/", bytes.NewReader(raw))
			return req
		},
		"text": func(t *testing.T) *http.Request {
			req, _ := http.NewRequest("POST", "https://h/", strings.NewReader(secret))
			return req
		},
		"query": func(t *testing.T) *http.Request {
			req, _ := http.NewRequest("GET", "https://h/?key="+url.QueryEscape(secret), nil)
			return req
		},
		"user": func(t *testing.T) *http.Request {
			req, _ := http.NewRequest("GET", "https://h/", nil)
			req.URL.User = url.UserPassword("a", secret)
			return req
		},
		"Basic": func(t *testing.T) *http.Request {
			req, _ := http.NewRequest("GET", "https://h/", nil)
			req.SetBasicAuth("shop", url.QueryEscape(secret))
			return req
		},
		"header": func(t *testing.T) *http.Request {
			req, _ := http.NewRequest("GET", "https://h/", nil)
			req.Header.Set("X-Key", secret)
			return req
		},
		"scheme": func(t *testing.T) *http.Request {
			req, _ := http.NewRequest("GET", "https://h/", nil)
			req.Header.Set("Authorization", "Bearer "+secret)
			return req
		},
		"before a redirect": func(t *testing.T) *http.Request {
			req, _ := http.NewRequest("GET", "https://h/next", nil)
			req.Response = &http.Response{Request: request(t, secret)}
			return req
		},
		"nothing, but it is known": func(t *testing.T) *http.Request { req, _ := http.NewRequest("GET", "https://h/", nil); return req },
	}
	for name, make := range requests {
		for how, repeated := range repetitions(secret) {
			for _, body := range []string{"wrong: " + repeated + "!", `{"error":"wrong","message":"is ` + strings.ReplaceAll(repeated, `"`, `\"`) + `"}`, "<p>" + repeated + "</p>"} {
				var known []string
				if strings.HasPrefix(name, "nothing") {
					known = []string{secret}
				}
				for _, status := range []int{200, 400} {
					got, h := answer(make(t), status, body, http.Header{"X-Echo": {repeated}}, known...)
					require.NotContains(t, got, repeated, "%s, %s", name, how)
					require.NotContains(t, h.Get("X-Echo"), repeated, "%s, %s", name, how)
					require.NotContains(t, html.UnescapeString(got), secret, "%s, %s", name, how)
				}
			}
		}
	}
}

// repetitions are the spellings in which a server may repeat a text.
func repetitions(text string) map[string]string {
	quoted, _ := json.Marshal(text)
	points, percents, entities, back := "", "", "", ""
	for _, b := range []byte(text) {
		points += fmt.Sprintf(`\u%04x`, b)
		percents += fmt.Sprintf("%%%02x", b)
		entities += fmt.Sprintf("&#x%x;", b)
		back += `\` + string(rune(b))
	}
	return map[string]string{
		"as it is": text, "JSON": strings.Trim(string(quoted), `"`), "HTML": html.EscapeString(text), "query": url.QueryEscape(text), "path": url.PathEscape(text),
		"upper case": strings.ToUpper(text), "code points": points, "percent": percents, "entities": entities,
		"base64": base64.StdEncoding.EncodeToString([]byte(text)), "base64url": base64.RawURLEncoding.EncodeToString([]byte(text)), "hex": hex.EncodeToString([]byte(text)),
	}
}

func TestAnswerMasksWhatLooksLikeAToken(t *testing.T) {
	got, _ := answer(request(t, secret), 400, "wrong: "+secret+"!", nil)
	require.Equal(t, "wrong: REDACTED!", got, "no more than the secret is masked")
	req := request(t, "sk-live-4242abcd")
	for body, want := range map[string]string{
		"no such session 9f8a7b6c5d4e3f2a1b0c": "no such session REDACTED",
		"key sk-live-4242... is wrong":         "key REDACTED... is wrong",
		"at 2026-11-29T10:11:12.123Z":          "at 2026-11-29T10:11:12.123Z",
		"id 12345678901234567890":              "id 12345678901234567890",
		"InvalidClientCredentialsException":    "InvalidClientCredentialsException",
	} {
		got, _ := answer(req, 400, body, nil)
		require.Equal(t, want, got)
	}
	// A short text is masked as a word only.
	short := request(t, "abc")
	got, _ = answer(short, 400, "abc, abcd, ABC", nil)
	require.Equal(t, "REDACTED, abcd, REDACTED", got)

	// So is a plain word, which may be a part of an error code.
	plain := request(t, "shop")
	got, _ = answer(plain, 400, `invalid_shop: Shop "shop" of shopkeeper, pw=shop`, nil)
	require.Equal(t, `invalid_shop: REDACTED "REDACTED" of shopkeeper, pw=REDACTED`, got)
	got, _ = answer(plain, 400, "invalid_shop", nil, "Shop", "shop7x")
	require.Equal(t, "invalid_shop", got)

	// A short value has spellings that are short as well.
	short, _ = http.NewRequest("POST", "https://h/", strings.NewReader(`{"v":1,"w":"ab"}`))
	got, _ = answer(short, 400, "line 31 of 2031, MQ of MQTT, 6162", nil)
	require.Equal(t, "line REDACTED of 2031, REDACTED of MQTT, REDACTED", got)

	// Escapes that are no UTF-8 don't shift what is masked.
	for n := range 40 {
		got, _ = answer(req, 400, "error="+strings.Repeat("%ff", n)+"sk-live-4242abcd&x=1", nil)
		require.NotContains(t, got, "abcd")
		require.Contains(t, got, "REDACTED&x=1")
	}
	got, _ = answer(req, 400, "at 2026-11-29Tabcdefghijk1", nil)
	require.Equal(t, "at REDACTED", got, "a date alone makes no time of a word")

	_, h := answer(req, 401, "", http.Header{
		"Set-Cookie": {"sid=1"}, "X-Auth-Token": {"t"}, "Www-Authenticate": {`Bearer error="invalid_token", nonce="9f8a7b6c5d4e3f2a1b0c"`}, "Server": {"nginx"}, "X-Sk-Live-4242abcd": {"1"},
	})
	require.Equal(t, http.Header{
		"Set-Cookie": {"REDACTED"}, "X-Auth-Token": {"REDACTED"}, "Www-Authenticate": {`Bearer error="invalid_token", nonce="REDACTED"`}, "Server": {"nginx"}, "REDACTED": {"1"},
	}, h)
}

// No more than 4 KiB are kept, and no half of a secret at a cut.
func TestAnswerIsBounded(t *testing.T) {
	req := request(t, "canarycanarycanary")
	got, _ := answer(req, 400, strings.Repeat("é ", 1<<20), nil)
	require.LessOrEqual(t, len(got), masked.MaxBody)
	require.True(t, utf8.ValidString(got))
	for _, cut := range []int{0, 1, 6, 17} {
		filler := strings.Repeat("canarycanarycanary ", (64<<10)/19-2)
		body := filler + strings.Repeat(".", max(0, 64<<10-len(filler)-cut)) + "canarycanarycanary"
		got, _ := answer(req, 400, body, nil)
		require.NotContains(t, got, "canary")
	}
	// A request of very many texts hides everything.
	many := make([]int, 5000)
	for i := range many {
		many[i] = 1_000_000 + i
	}
	raw, _ := json.Marshal(many)
	big, _ := http.NewRequest("POST", "https://h/", bytes.NewReader(raw))
	got, _ = answer(big, 400, "anything", nil)
	require.Equal(t, "REDACTED", got)
}

// The request stays as it was, its body too.
func TestAnswerLeavesTheRequestAlone(t *testing.T) {
	req := request(t, secret)
	before := req.Header.Clone()
	h := http.Header{"X-Key": {"a"}}
	_, shown := answer(req, 400, "no", h)
	shown.Set("X-Key", "changed")
	require.Equal(t, before, req.Header)
	require.Equal(t, "a", h.Get("X-Key"))
	raw, err := io.ReadAll(req.Body)
	require.NoError(t, err)
	require.Contains(t, string(raw), "client_secret")
	_, nilHeader := answer(req, 400, "", nil)
	require.Nil(t, nilHeader)
}

func FuzzAnswer(f *testing.F) {
	f.Add("hunter2hunter2", `{"error":"no","message":"SECRET"}`, 400)
	f.Add(secret, `<p>SECRET</p>`, 403)
	f.Add("a b&c=d", `x=SECRET&y=1`, 200)
	f.Add("\\u0061\"", `{"a":["SECRET",{"b":"\u0061SECRET"}], "c": `, 200)
	f.Fuzz(func(t *testing.T, secret, body string, status int) {
		if secret = strings.TrimSpace(secret); len(secret) < 4 || !strings.ContainsAny(secret, "0123456789\"<") || strings.Contains(secret, "\x00") || !utf8.ValidString(secret) || strings.Contains("redacted", strings.ToLower(secret)) {
			return
		}
		req := request(t, secret)
		for _, repeated := range repetitions(secret) {
			got, _ := answer(req, status, strings.ReplaceAll(body, "SECRET", repeated), nil)
			if len(got) > masked.MaxBody || !utf8.ValidString(got) {
				t.Fatalf("%d bytes, or no UTF-8", len(got))
			}
			if strings.Contains(strings.ReplaceAll(got, "REDACTED", "\x00"), secret) {
				t.Fatalf("%q shows %q", got, secret)
			}
		}
	})
}
