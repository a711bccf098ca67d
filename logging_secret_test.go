// What a log shows of URLs and of a server's words, and what not.

package requestforge_test

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
)

// rawServer answers each connection with what answer makes of the credential in the
// one request that it reads, and returns its URL.
func rawServer(t *testing.T, answer func(credential string) string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				io.Copy(io.Discard, req.Body)
				credential := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
				if _, password, ok := req.BasicAuth(); ok {
					credential = password
				}
				if cookie, err := req.Cookie("session"); err == nil {
					credential = cookie.Value
				}
				credential = cmp.Or(credential, req.Header.Get("X-Key"), req.URL.Query().Get("key"))
				io.WriteString(c, answer(credential))
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// echoes are answers that repeat the credential %[1]s where an answer can.
var echoes = map[string]string{
	"response":            "%[1]s\r\n\r\n",
	"version":             "HTTP/%[1]s 200 OK\r\n\r\n",
	"status code":         "HTTP/1.1 %[1]s OK\r\n\r\n",
	"status":              "HTTP/1.1 503 %[1]s\r\nContent-Length: 0\r\n\r\n",
	"status of success":   "HTTP/1.1 204 %[1]s\r\n\r\n",
	"line without colon":  "HTTP/1.1 200 OK\r\nX-Echo %[1]s\r\n\r\n",
	"line that begins so": "HTTP/1.1 200 OK\r\n %[1]s: x\r\n\r\n",
	"name of a header":    "HTTP/1.1 401 Unauthorized\r\n%[1]s \x00: x\r\n\r\n",
	"value of a header":   "HTTP/1.1 401 Unauthorized\r\nX-Echo: %[1]s\x00\r\n\r\n",
	"content length":      "HTTP/1.1 200 OK\r\nContent-Length: %[1]s\r\n\r\n",
	"content lengths":     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: %[1]s\r\n\r\n",
	"transfer encoding":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: %[1]s\r\n\r\n",
	"transfer encodings":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: %[1]s\r\n\r\n",
	"trailer":             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: %[1]s, Content-Length\r\n\r\n0\r\n\r\n",
	"trailer key":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Transfer-Encoding\r\n\r\n0\r\n%[1]s\r\n\r\n",
	"chunk":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%[1]s\r\n",
	"location":            "HTTP/1.1 307 x\r\nLocation: http://%[1]s.example/%[1]s?%[1]s=%[1]s#%[1]s\r\nContent-Length: 0\r\n\r\n",
	"path of a location":  "HTTP/1.1 307 x\r\nLocation: /%[1]s\r\nContent-Length: 0\r\n\r\n",
	"bad location":        "HTTP/1.1 307 x\r\nLocation: http://%[1]s:%[1]s/\r\nContent-Length: 0\r\n\r\n",
	"headers": "HTTP/1.1 403 Forbidden\r\nX-Request-Id: %[1]s\r\nServer: %[1]s/1.0\r\nVia: 1.1 %[1]s\r\nEtag: \"%[1]s\"\r\n" +
		"Content-Type: text/%[1]s; charset=%[1]s\r\nDate: %[1]s\r\nLast-Modified: %[1]s\r\nExpires: %[1]s\r\nAge: %[1]s\r\n" +
		"Cache-Control: %[1]s=%[1]s\r\nRetry-After: %[1]s\r\nAllow: %[1]s\r\nVary: %[1]s\r\nContent-Language: %[1]s\r\n" +
		"Content-Encoding: %[1]s\r\nContent-Range: bytes %[1]s/%[1]s\r\nAccept-Ranges: %[1]s\r\nConnection: %[1]s\r\n" +
		"User-Agent: %[1]s\r\nAccept: %[1]s\r\nTraceparent: 00-%[1]s-01\r\nX-Correlation-Id: %[1]s\r\nRatelimit-Limit: %[1]s\r\n" +
		"X-Ratelimit-Reset: %[1]s\r\nDeprecation: @%[1]s\r\nSunset: %[1]s\r\nOrigin: http://%[1]s\r\nReferer: /%[1]s\r\n" +
		"Content-Location: /%[1]s\r\nWww-Authenticate: Bearer realm=%[1]s, error=%[1]s\r\nSet-Cookie: %[1]s=%[1]s\r\n" +
		"X-%[1]s: %[1]s\r\nContent-Length: 0\r\n\r\n",
}

// An API that sends back what it was sent gets nothing of it into the log, in
// whatever part of its answer, well formed or not.
func TestLogRepeatsNothingThatTheAPISendsBack(t *testing.T) {
	for kind, places := range kindsOfPlaces {
		logRepeatsNothing(t, kind, places)
	}
}

func logRepeatsNothing(t *testing.T, kind string, places []requestforge.Place) {
	for _, token := range []string{"s3cret", "our-token", "0123456789abcdef0123456789abcdef", "eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl", "867530912345678"} {
		for name, echo := range echoes {
			if name == "headers" {
				// A name is shown, unless it looks like a secret.
				if len(token) < 8 || !strings.ContainsAny(token, "0123456789") {
					echo = strings.Replace(echo, "X-%[1]s: ", "X-Echo: ", 1)
				}
			}
			var out bytes.Buffer
			host := rawServer(t, func(credential string) string {
				if credential = strings.TrimPrefix(credential, "Token "); credential != token {
					t.Errorf("%s: the credential is %q", kind, credential)
				}
				return fmt.Sprintf(echo, credential)
			})
			transport, err := requestforge.NewTransport(requestforge.Config{
				BaseURL:    host,
				Source:     requestforge.StaticToken(&requestforge.Token{AccessToken: token}),
				Base:       &http.Transport{DisableKeepAlives: true},
				Logger:     slog.New(slog.NewJSONHandler(&out, nil)),
				LogHeaders: true,
				Attach:     places,
				AuthRetry:  requestforge.SimpleAuthRetry(0, 0),
			})
			require.NoError(t, err)
			if resp, err := (&http.Client{Transport: transport}).Get("/x"); err == nil {
				resp.Body.Close()
			}
			if out.Len() == 0 || strings.Contains(strings.ToLower(out.String()), token) {
				t.Errorf("%s, %s: the log is\n%s", kind, name, &out)
			}
		}
	}
}

// An auth server that sends back what it was sent gets nothing of it into an error.
func TestAuthErrorRepeatsNothingOfABrokenAnswer(t *testing.T) {
	const password = "s3cret-password"
	for name, echo := range echoes {
		if strings.Contains(name, "location") {
			continue // the fetchers' redirects have tests of their own
		}
		host := rawServer(t, func(credential string) string {
			require.Equal(t, password, credential)
			return fmt.Sprintf(echo, credential)
		})
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		for kind, fetcher := range map[string]requestforge.Fetcher{
			"body":   &requestforge.HTTPFetcher{URL: host, ClientAuth: &requestforge.ClientAuth{ID: "shop", Secret: password}, Client: client},
			"header": &requestforge.HTTPFetcher{URL: host, ClientAuth: &requestforge.ClientAuth{ID: "shop", Secret: password}, TokenHeader: "X-Token", Client: client},
		} {
			_, err := fetcher.Fetch(t.Context(), requestforge.Input{})
			require.Error(t, err, "%s: %s", kind, name)
			for _, verb := range []string{"%v", "%+v", "%#v"} {
				if text := fmt.Sprintf(verb, err); strings.Contains(text, password) {
					t.Errorf("%s: %s: %s", kind, name, text)
				}
			}
		}
	}
}

// botPath hides the key of an API that has it in the path.
var botPath = regexp.MustCompile(`/bot[^/]*`)

func TestLogURLHidesWhatItLeavesOut(t *testing.T) {
	hide := func(u *url.URL) string { return u.Scheme + "://" + u.Host + botPath.ReplaceAllString(u.Path, "/bot") }
	const raw = "https://bots.test/bot12345:S3CRETKEY/send?chat=S3CRETCHAT"
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"no URL":               {errors.New("refused"), "refused"},
		"a url.Error":          {&url.Error{Op: "Post", URL: raw, Err: io.EOF}, `Post "https://bots.test/bot/send": EOF`},
		"its text":             {fmt.Errorf("calling %s: refused", raw), "calling https://bots.test/bot/send: refused"},
		"another one":          {errors.New("see https://other.test/bot99:S3CRETKEY?x=S3CRETCHAT"), "see https://other.test/bot"},
		"the path":             {errors.New("no mock for /bot12345:S3CRETKEY/send"), "no mock for REDACTED"},
		"the path, quoted":     {errors.New(`no mock for "/bot12345:S3CRETKEY/send"`), `no mock for "REDACTED"`},
		"a segment":            {errors.New("bot12345:S3CRETKEY isn't known"), "REDACTED isn't known"},
		"a value of the query": {errors.New("chat S3CRETCHAT is closed"), "chat REDACTED is closed"},
		"wrapped by us":        {&requestforge.AuthError{Step: "user", Err: fmt.Errorf("POST %s: refused", raw)}, `requestforge: step "user": POST https://bots.test/bot/send: refused`},
	} {
		t.Run(name, func(t *testing.T) {
			logger, records := logged(t, slog.LevelInfo)
			transport, err := requestforge.NewTransport(requestforge.Config{
				Base:       sendFunc(func(*http.Request) (*http.Response, error) { return nil, tt.err }),
				Logger:     logger,
				LogURL:     hide,
				LogHeaders: true,
			})
			require.NoError(t, err)
			req, err := http.NewRequest(http.MethodPost, raw, nil)
			require.NoError(t, err)
			req.Header.Set("Referer", raw)
			_, err = transport.RoundTrip(req)
			require.Same(t, tt.err, err)
			got := records()[0]
			assert.Equal(t, "https://bots.test/bot/send", got["url"])
			assert.Equal(t, tt.want, got["error"])
			assert.Equal(t, map[string]any{"Referer": []any{"https://bots.test/bot/send"}}, got["request_header"])
		})
	}
}

func TestLogURLIsAskedForEveryURL(t *testing.T) {
	logger, records := logged(t, slog.LevelInfo)
	layer := &requestforge.LoggingTransport{
		Logger:  logger,
		Headers: true,
		URL: func(u *url.URL) string {
			text := "<" + u.String() + ">"
			*u = url.URL{} // a copy
			return text
		},
		Base: sendFunc(func(req *http.Request) (*http.Response, error) {
			assert.Equal(t, "https://me:s3cret@h/x?k=s3cret", req.URL.String())
			return answer(req, 302, http.Header{"Location": {"/x?k=s3cret#top"}, "Content-Location": {"https://other/s3cret"}}), nil
		}),
	}
	req, err := http.NewRequest(http.MethodGet, "https://me:s3cret@h/x?k=s3cret", nil)
	require.NoError(t, err)
	_, err = layer.RoundTrip(req)
	require.NoError(t, err)
	got := records()[0]
	assert.Equal(t, "<https://me:s3cret@h/x?k=s3cret>", got["url"]) // what the program wants to be shown
	assert.Equal(t, map[string]any{
		"Location":         []any{"<https://h/x?k=s3cret#REDACTED>"},
		"Content-Location": []any{"<https://REDACTED/REDACTED>"},
	}, got["response_header"])
}

func TestLogURLThatPanicsCostsNobodyTheRequest(t *testing.T) {
	logger, records := logged(t, slog.LevelInfo)
	var failure error
	layer := &requestforge.LoggingTransport{
		Logger:  logger,
		Headers: true,
		URL:     func(u *url.URL) string { panic(u.String()) },
		Base: sendFunc(func(req *http.Request) (*http.Response, error) {
			if failure != nil {
				return nil, failure
			}
			return answer(req, 302, http.Header{"Location": {"/"}}), nil
		}),
	}
	for _, failure = range []error{nil, &url.Error{Op: "Get", URL: "https://h/s3cret", Err: io.EOF}} {
		req, err := http.NewRequest(http.MethodGet, "https://h/s3cret", nil)
		require.NoError(t, err)
		resp, err := layer.RoundTrip(req)
		require.Equal(t, failure, err)
		require.Equal(t, failure == nil, resp != nil)
	}
	got := records()
	require.Len(t, got, 2)
	assert.Equal(t, "REDACTED", got[0]["url"])
	assert.Equal(t, map[string]any{"Location": []any{"REDACTED"}}, got[0]["response_header"])
	assert.Equal(t, "REDACTED", got[1]["url"])
	assert.Equal(t, `Get "REDACTED": EOF`, got[1]["error"])
}

// After a redirect the URL is a server's word, and the Referer of the second one, too.
func TestLogShowsOfARedirectsURLWhatTheCallerHasSaid(t *testing.T) {
	logger, records := logged(t, slog.LevelInfo)
	layer := &requestforge.LoggingTransport{
		Logger:  logger,
		Headers: true,
		Base: sendFunc(func(req *http.Request) (*http.Response, error) {
			switch req.URL.Path {
			case "/users":
				return answer(req, 302, http.Header{"Location": {"/users/"}}), nil
			case "/users/":
				return answer(req, 302, http.Header{"Location": {"/s3cret?s3cret=1"}}), nil
			case "/s3cret":
				return answer(req, 302, http.Header{"Location": {"https://s3cret.example/"}}), nil
			}
			return nil, errors.New("dial tcp: lookup s3cret.example: no such host")
		}),
	}
	_, err := (&http.Client{Transport: layer}).Get("https://h/users")
	require.Error(t, err)
	var urls, referers []any
	got := records()
	for _, record := range got {
		urls = append(urls, record["url"])
		referers = append(referers, record["request_header"].(map[string]any)["Referer"])
	}
	assert.Equal(t, []any{"https://h/users", "https://h/users/", "https://h/REDACTED?REDACTED", "https://REDACTED/"}, urls)
	assert.Equal(t, "dial tcp: lookup REDACTED: no such host", got[3]["error"])
	assert.Equal(t, []any{nil, []any{"https://h/users"}, []any{"https://h/users/"}, []any{"https://h/REDACTED?REDACTED"}}, referers)
	assert.NotContains(t, fmt.Sprint(got), "s3cret")
}

// A server that can't be asked to be silent: an ordinary answer still says what it is.
func TestLogStillSaysWhatAnAnswerIs(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
		w.Header().Set("Retry-After", "3")
		w.Header().Set("Server", "nginx/1.25.3")
		w.WriteHeader(429)
	}))
	defer srv.Close()
	logger, records := logged(t, slog.LevelInfo)
	resp, err := (&http.Client{Transport: &requestforge.LoggingTransport{Logger: logger, Headers: true}}).Get(srv.URL)
	require.NoError(t, err)
	resp.Body.Close()
	header := records()[0]["response_header"].(map[string]any)
	assert.Equal(t, []any{"application/problem+json; charset=utf-8"}, header["Content-Type"])
	assert.Equal(t, []any{"3"}, header["Retry-After"])
	assert.Equal(t, []any{"nginx/1.25.3"}, header["Server"])
	assert.Equal(t, []any{resp.Header.Get("Date")}, header["Date"])
}
