package requestforge_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
)

// What an HTTPFetcher says of an answer, NewAuthError says, too.
func TestNewAuthErrorAgreesWithTheFetchers(t *testing.T) {
	for _, tt := range fetchFailures {
		if tt.status/100 == 2 && tt.code == "" {
			continue // only an HTTPFetcher knows what it can't read
		}
		t.Run(tt.name, func(t *testing.T) {
			const at = "https://auth.example/token?key=" + fetchSecret
			client := fetchAnswer(tt.status, tt.header, tt.body)
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			_, err := (&requestforge.HTTPFetcher{URL: at, Client: client}).Fetch(t.Context(), requestforge.Input{})
			want, _ := errors.AsType[*requestforge.AuthError](err)

			resp, err := client.Post(at, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			got := requestforge.NewAuthError(resp, body, nil)
			if got.StatusCode != want.StatusCode || got.Code != want.Code || got.Permanent != want.Permanent || got.RetryAfter != want.RetryAfter ||
				requestforge.Transient(got) != requestforge.Transient(want) || requestforge.Ambiguous(got) != requestforge.Ambiguous(want) {
				t.Errorf("got  %v, permanent %v\nwant %v, permanent %v", got, got.Permanent, want, want.Permanent)
			}
			if tt.status/100 != 2 && got.Error() != want.Error() {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			for how, text := range fetchPrints(t, got) {
				if strings.Contains(text, fetchSecret) {
					t.Errorf("%s shows the secret: %s", how, text)
				}
			}
		})
	}
}

func TestNewAuthErrorIsWhatItsArgumentsSay(t *testing.T) {
	first := &http.Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: "auth.example", Path: "/login", RawQuery: "key=" + fetchSecret}}
	second := &http.Request{URL: &url.URL{Scheme: "https", Host: "auth.example", Path: "/" + fetchSecret}, Response: &http.Response{Request: first}}
	answer := func(status int, req *http.Request, header ...string) *http.Response {
		resp := &http.Response{StatusCode: status, Status: fetchSecret, Header: http.Header{}, Request: req}
		for i := 0; i < len(header); i += 2 {
			resp.Header.Set(header[i], header[i+1])
		}
		return resp
	}
	refused := &url.Error{Op: "Post", URL: "https://u:" + fetchSecret + "@auth.example/token?key=" + fetchSecret, Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}
	redirect := &url.Error{Op: "Post", URL: "https://auth.example/" + fetchSecret, Err: errors.New("no further")}
	const at = "POST https://auth.example/login?key=REDACTED: "
	for name, tt := range map[string]struct {
		resp      *http.Response
		body      string
		err       error
		want      string // the text, without the prefix
		transient bool
	}{
		"nothing at all":             {want: "no token"},
		"the network":                {err: refused, want: `Post "https://REDACTED@auth.example/token?key=REDACTED": dial: connection refused`, transient: true},
		"the network, within":        {err: fmt.Errorf("the login page: %w", refused), want: `the login page: Post "https://REDACTED@auth.example/token?key=REDACTED": dial: connection refused`, transient: true},
		"the context":                {err: context.DeadlineExceeded, want: "context deadline exceeded", transient: true},
		"the caller left":            {err: context.Canceled, want: "context canceled"},
		"a certificate":              {err: &tls.CertificateVerificationError{Err: errors.New("expired")}, want: "tls: failed to verify certificate: expired"},
		"a body without an answer":   {body: `{"error":"invalid_grant"}`, want: "invalid_grant"},
		"a refusal":                  {resp: answer(400, first), body: `{"error":"invalid_grant","error_description":"` + fetchSecret + `"}`, want: "invalid_grant: " + at + "400 Bad Request"},
		"after redirects":            {resp: answer(403, second), body: fetchSecret, want: at + "after a redirect that made it a GET: 403 Forbidden"},
		"without a request":          {resp: answer(503, nil, "Retry-After", "7"), want: "503 Service Unavailable; next try in 7s", transient: true},
		"a request without a method": {resp: answer(404, &http.Request{URL: &url.URL{Scheme: "https", Host: "auth.example"}}), want: "GET https://auth.example: 404 Not Found"},
		"a request without a URL":    {resp: answer(404, &http.Request{}), want: "404 Not Found"},
		"a challenge":                {resp: answer(401, nil, "WWW-Authenticate", `Bearer error="invalid_token"`), want: "invalid_token: 401 Unauthorized"},
		"body before challenge":      {resp: answer(401, nil, "WWW-Authenticate", `Bearer error="invalid_token"`), body: `{"error":"invalid_client"}`, want: "invalid_client: 401 Unauthorized"},
		"a code of its own":          {resp: answer(400, nil), body: `{"error":"` + fetchSecret + `"}`, want: "400 Bad Request"},
		"a redirect not followed":    {resp: answer(302, first), err: redirect, want: `status 302 Found: Post "https://auth.example/login?key=REDACTED": no further`},
		"the same, within":           {resp: answer(302, first), err: fmt.Errorf("login: %w", redirect), want: `status 302 Found: login: Post "https://auth.example/login?key=REDACTED": no further`},
		"words of the program":       {resp: answer(200, first), body: `<html>` + fetchSecret, err: errors.New("the page has no form"), want: "status 200 OK: " + at + "the page has no form"},
		"the body in the words":      {resp: answer(200, first), body: " " + fetchSecret + "\n", err: errors.New("no token in " + fetchSecret), want: "status 200 OK: " + at + "no token in REDACTED"},
		"quoted":                     {resp: answer(200, first), err: fmt.Errorf("what is %q?", fetchSecret), want: "status 200 OK: " + at + `what is "REDACTED"?`},
		"our own words":              {resp: answer(200, first), err: errors.New(`requestforge: jwt: no claim "exp"`), want: "status 200 OK: " + at + `jwt: no claim "exp"`},
		"another pipeline's":         {err: &requestforge.AuthError{Step: "app", StatusCode: 503}, want: `step "app": status 503 Service Unavailable`, transient: true},
	} {
		t.Run(name, func(t *testing.T) {
			var body []byte
			if tt.body != "" {
				body = []byte(tt.body)
			}
			got := requestforge.NewAuthError(tt.resp, body, tt.err)
			if want := "requestforge: " + tt.want; got.Error() != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if requestforge.Transient(got) != tt.transient {
				t.Errorf("transient: got %v", !tt.transient)
			}
			if tt.err != nil && !errors.Is(got, tt.err) && errors.Unwrap(tt.err) != nil && !errors.Is(got, errors.Unwrap(tt.err)) {
				t.Errorf("%v doesn't lead to its cause any more", got)
			}
			for err := error(got); err != nil; err = errors.Unwrap(err) {
				for how, text := range fetchPrints(t, err) {
					if strings.Contains(text, fetchSecret) {
						t.Errorf("%T as %s shows the secret: %s", err, how, text)
					}
				}
			}
			if ue, ok := errors.AsType[*url.Error](got); ok && strings.Contains(ue.Error(), fetchSecret) {
				t.Errorf("the *url.Error shows the secret: %v", ue)
			}
		})
	}
	if _, ok := errors.AsType[*net.OpError](requestforge.NewAuthError(nil, nil, fmt.Errorf("x: %w", refused))); !ok {
		t.Error("the *net.OpError is lost")
	}
}

// A failure after a redirect has the redirect's target in net/http's error.
func TestNewAuthErrorShowsNoRedirectOfALoginClient(t *testing.T) {
	n := newLoginNet(t)
	n.location["https://auth.example/start"] = "/" + fetchSecret
	n.err["https://auth.example/"+fetchSecret] = &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	resp, err := requestforge.LoginClient("https://auth.example").Get("https://auth.example/start")
	got := requestforge.NewAuthError(resp, nil, err)
	if want := `requestforge: Get "REDACTED": after a redirect: dial: connection refused`; got.Error() != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !requestforge.Transient(got) || !requestforge.Ambiguous(got) {
		t.Error("it may pass, and the server may have acted")
	}
}

// Where an origin is a wildcard, a redirect's host may be what the server was told.
func TestAuthErrorShowsNoHostOfARedirect(t *testing.T) {
	const host = fetchSecret + ".auth.example"
	n := newLoginNet(t)
	n.location["https://a.auth.example/start"] = "https://" + host + "/"
	n.err["https://"+host+"/"] = &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
	resp, err := requestforge.LoginClient("https://*.auth.example").Get("https://a.auth.example/start")
	p, _ := requestforge.NewPipeline(requestforge.PipelineConfig{FetchRetries: -1, Steps: []requestforge.Step{{Name: "raw", Fetcher: requestforge.FetcherFunc(
		func(context.Context, requestforge.Input) (*requestforge.Token, error) { return nil, err })}}})
	_, raw := p.Token(t.Context())
	for name, got := range map[string]error{"NewAuthError": requestforge.NewAuthError(resp, nil, err), "a raw error": raw} {
		if got == nil || strings.Contains(got.Error(), fetchSecret) || !strings.Contains(got.Error(), "no such host") {
			t.Errorf("%s: %v", name, got)
		}
		if _, ok := errors.AsType[*net.DNSError](got); !ok {
			t.Errorf("%s: the cause is gone", name)
		}
	}
}

// NewAuthError leaves the response to its caller.
func TestNewAuthErrorDoesNotTouchTheBody(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusTooManyRequests)
		io.WriteString(w, "to be read")
	}))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if after := requestforge.NewAuthError(resp, nil, nil).RetryAfter; after < 58*time.Minute || after > time.Hour {
		t.Errorf("RetryAfter %v, want an hour", after)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "to be read" {
		t.Errorf("got %q, %v", body, err)
	}
}

// namedStorage is a Storage of another module, whose errors begin with our name.
type namedStorage struct{ requestforge.Storage }

func (namedStorage) Load(context.Context, ...string) ([]requestforge.Entry, error) {
	return nil, errors.New("requestforge: redisstorage: load: refused")
}

func TestErrorsOfOtherModulesDontRepeatTheName(t *testing.T) {
	var log bytes.Buffer
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Storage:   namedStorage{requestforge.NewMemoryStorage()},
		KeyPrefix: "test",
		Logger:    slog.New(slog.NewTextHandler(&log, nil)),
		Steps: []requestforge.Step{{Name: "app", Identity: "test", Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
			return nil, fmt.Errorf("sdk: %w", errors.New("requestforge: oauth2source: no source"))
		})}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Token(t.Context())
	if want := `requestforge: step "app": sdk: oauth2source: no source`; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if want := `"requestforge: storage: Load: redisstorage: load: refused"`; !strings.Contains(log.String(), want) {
		t.Errorf("no %s in %s", want, log.String())
	}
}
