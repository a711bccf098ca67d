package requestforge_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
)

func TestAuthErrorText(t *testing.T) {
	for want, e := range map[string]*requestforge.AuthError{
		`requestforge: no token`:                                                       {},
		`requestforge: step "user": invalid_grant`:                                     {Step: "user", Code: "invalid_grant"},
		`requestforge: step "user": invalid_client: status 401 Unauthorized`:           {Step: "user", Code: "invalid_client", StatusCode: 401},
		`requestforge: status 499`:                                                     {StatusCode: 499},
		`requestforge: step "user": status 503 Service Unavailable; next try in 1m30s`: {Step: "user", StatusCode: 503, RetryAfter: 90 * time.Second},
		`requestforge: step "a\nb": boom; next try in 1ms`:                             {Step: "a\nb", Err: errors.New("boom"), RetryAfter: time.Millisecond},
		`requestforge: status 401 Unauthorized: boom`:                                  {StatusCode: 401, Err: errors.New("boom")},
		`requestforge: step "user": step "inner": boom`:                                {Step: "user", Err: &requestforge.AuthError{Step: "inner", Err: errors.New("boom")}},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestAuthErrorVerdict(t *testing.T) {
	for name, tt := range map[string]struct {
		e     requestforge.AuthError
		retry bool
		after time.Duration
	}{
		"unknown":   {retry: true},
		"after":     {e: requestforge.AuthError{RetryAfter: time.Minute}, retry: true, after: time.Minute},
		"negative":  {e: requestforge.AuthError{RetryAfter: -1}, retry: true},
		"permanent": {e: requestforge.AuthError{Permanent: true, RetryAfter: time.Minute}},
	} {
		if retry, after := tt.e.RetryVerdict(); retry != tt.retry || after != tt.after {
			t.Errorf("%s: got %v, %v", name, retry, after)
		}
	}
}

func TestAuthErrorAndItsCauseAreFoundThroughTheClientsError(t *testing.T) {
	cause := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	err := error(&url.Error{Op: "Get", URL: "https://api.example", Err: &requestforge.AuthError{Step: "user", Err: fmt.Errorf("x: %w", cause)}})
	if ae, ok := errors.AsType[*requestforge.AuthError](err); !ok || ae.Step != "user" {
		t.Error("no AuthError")
	}
	if op, ok := errors.AsType[*net.OpError](err); !ok || op != cause || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error("no cause")
	}
	for cause, want := range map[error]bool{
		nil: false, errors.New("x"): false, context.Canceled: false, context.DeadlineExceeded: true, os.ErrDeadlineExceeded: true,
		&url.Error{Err: fmt.Errorf("x: %w", context.DeadlineExceeded)}: true,
	} {
		if err := (&url.Error{Err: &requestforge.AuthError{Err: cause}}); err.Timeout() != want {
			t.Errorf("%v: timeout %v", cause, !want)
		}
	}
}

func TestWhichFailuresAreWorthAnotherTry(t *testing.T) {
	type op = net.OpError
	for _, tt := range []struct {
		err                  error
		transient, ambiguous bool
	}{
		{err: nil},
		{err: errors.New("a custom fetcher's own")},
		{err: fmt.Errorf("file: %w", &fs.PathError{Op: "open", Path: "x", Err: syscall.ENOENT})},
		{err: &url.Error{Op: "Post", Err: errors.New("unsupported protocol scheme")}},
		{err: &op{Op: "remote error", Err: errors.New("tls: bad certificate")}},
		{err: context.Canceled, ambiguous: true},
		{err: &url.Error{Op: "Post", Err: context.Canceled}, ambiguous: true},
		{err: context.DeadlineExceeded, transient: true, ambiguous: true},
		{err: io.EOF, transient: true, ambiguous: true},
		{err: fmt.Errorf("x: %w", io.ErrUnexpectedEOF), transient: true, ambiguous: true},
		{err: syscall.ECONNRESET, transient: true, ambiguous: true},
		{err: &op{Op: "read", Err: syscall.ECONNRESET}, transient: true, ambiguous: true},
		{err: &url.Error{Op: "Post", Err: &op{Op: "write", Err: syscall.EPIPE}}, transient: true, ambiguous: true},
		{err: &op{Op: "dial", Err: syscall.ECONNREFUSED}, transient: true},
		{err: &op{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}, transient: true},
		{err: &op{Op: "proxyconnect", Err: errors.New("x")}, transient: true},
		{err: &net.DNSError{IsTimeout: true}, transient: true, ambiguous: true},
		{err: errors.New("http2: client connection lost"), transient: true, ambiguous: true},
		{err: &requestforge.AuthError{StatusCode: 503}, transient: true},
		{err: fmt.Errorf("x: %w", &requestforge.AuthError{StatusCode: 503}), transient: true},
		{err: &requestforge.AuthError{StatusCode: 503, Permanent: true}},
		{err: &requestforge.AuthError{StatusCode: 401}},
		{err: &requestforge.AuthError{Err: io.EOF}, transient: true, ambiguous: true},
		{err: &requestforge.AuthError{Permanent: true, Err: io.EOF}, ambiguous: true},
		// A fetcher that wraps the error of another one, and one that says so.
		{err: &requestforge.AuthError{Err: fmt.Errorf("x: %w", &requestforge.AuthError{Err: io.EOF})}, transient: true, ambiguous: true},
		{err: &requestforge.AuthError{Unsent: true, Err: io.EOF}, transient: true},
		// The client's own login failed, so nothing was sent with it.
		{err: &requestforge.AuthError{Err: &url.Error{Err: &requestforge.AuthError{StatusCode: 504}}}, transient: true},
		{err: &requestforge.AuthError{Err: &url.Error{Err: &requestforge.AuthError{StatusCode: 400, Permanent: true}}}},
	} {
		if got := requestforge.Transient(tt.err); got != tt.transient {
			t.Errorf("%v: transient %v", tt.err, got)
		}
		if got := requestforge.Ambiguous(tt.err); got != tt.ambiguous {
			t.Errorf("%v: ambiguous %v", tt.err, got)
		}
	}
}

// fetchRawServer answers each connection with text, as it is, and closes it.
func fetchRawServer(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, text)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "http://" + l.Addr().String()
}

func TestNetworkFailuresKeepTheirCauseAndShowNothing(t *testing.T) {
	quiet := log.New(io.Discard, "", 0)
	abort := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	h1 := httptest.NewUnstartedServer(abort)
	h1.Config.ErrorLog = quiet
	h1.Start()
	t.Cleanup(h1.Close)
	h2 := httptest.NewUnstartedServer(abort)
	h2.EnableHTTP2 = true
	h2.Config.ErrorLog = quiet
	h2.StartTLS()
	t.Cleanup(h2.Close)
	gone := httptest.NewServer(abort)
	gone.Close()
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/token" {
			panic(http.ErrAbortHandler)
		}
		http.Redirect(w, r, "/end/"+fetchSecret, http.StatusTemporaryRedirect)
	}))
	moved.Config.ErrorLog = quiet
	t.Cleanup(moved.Close)
	opError := func(err error) bool { _, ok := errors.AsType[*net.OpError](err); return ok }

	for name, tt := range map[string]struct {
		url                  string
		client               *http.Client
		want                 string
		cause                func(error) bool
		transient, ambiguous bool
	}{
		"nobody listens":        {url: gone.URL, want: "connection refused", cause: opError, transient: true},
		"closed without answer": {url: h1.URL, want: "EOF", cause: func(err error) bool { return errors.Is(err, io.EOF) }, transient: true, ambiguous: true},
		"a stream reset":        {url: h2.URL, client: h2.Client(), want: "stream error", transient: true, ambiguous: true},
		"an unknown authority":  {url: h2.URL, want: "certificate"},
		"http for https":        {url: strings.Replace(h1.URL, "http:", "https:", 1), want: "HTTP"},
		"closed after redirect": {url: moved.URL, want: "after a redirect", cause: func(err error) bool { return errors.Is(err, io.EOF) }, transient: true, ambiguous: true},
		"no HTTP at all":        {url: fetchRawServer(t, fetchSecret+"\r\n\r\n"), want: `malformed HTTP response "REDACTED"`, transient: true, ambiguous: true},
		"a header that is none": {url: fetchRawServer(t, "HTTP/1.1 200 OK\r\n"+fetchSecret+"\r\n\r\n"), want: "malformed MIME header", transient: true, ambiguous: true},
		"a status that is none": {url: fetchRawServer(t, "HTTP/1.1 "+fetchSecret+" OK\r\n\r\n"), want: "malformed HTTP status", transient: true, ambiguous: true},
		"cut off":               {url: fetchRawServer(t, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"+fetchStd), want: "broke off", cause: func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }, transient: true, ambiguous: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := &requestforge.HTTPFetcher{URL: tt.url + "/token?key=" + fetchSecret, Form: url.Values{"password": {fetchSecret}}, Client: tt.client}
			tok, err := f.Fetch(t.Context(), requestforge.Input{})
			fetchFailed(t, tok, err, tt.want)
			if tt.cause != nil && !tt.cause(err) {
				t.Errorf("the cause is gone from %v", err)
			}
			if got := requestforge.Transient(err); got != tt.transient {
				t.Errorf("transient: got %v for %v", got, err)
			}
			if got := requestforge.Ambiguous(err); got != tt.ambiguous {
				t.Errorf("ambiguous: got %v for %v", got, err)
			}
		})
	}
}

// A connection that can't be made for the second request says nothing about
// the first.
func TestDialFailureAfterARedirectIsAmbiguous(t *testing.T) {
	client := &http.Client{Transport: fetchRT(func(req *http.Request) (*http.Response, error) {
		if req.URL.Path != "/start" {
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}
		return fetchAnswer(302, http.Header{"Location": {"/end"}}, "").Transport.RoundTrip(req)
	})}
	tok, err := (&requestforge.HTTPFetcher{URL: "https://auth.example/start", Client: client}).Fetch(t.Context(), requestforge.Input{})
	fetchFailed(t, tok, err, "after a redirect")
	if !requestforge.Transient(err) || !requestforge.Ambiguous(err) {
		t.Errorf("got transient %v, ambiguous %v", requestforge.Transient(err), requestforge.Ambiguous(err))
	}
}

func TestSilentServerEndsWithTheContext(t *testing.T) {
	silent := fetchRT(func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, req.Context().Err()
	})
	for name, tt := range map[string]struct {
		timeout   time.Duration // of the client
		cancel    bool
		is        error
		transient bool
	}{
		"deadline":             {is: context.DeadlineExceeded, transient: true},
		"the client's timeout": {timeout: 10 * time.Second, is: context.DeadlineExceeded, transient: true},
		"canceled":             {cancel: true, is: context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				want := 30 * time.Second
				if tt.timeout != 0 {
					want = tt.timeout
				}
				if tt.cancel {
					want = time.Second
					time.AfterFunc(want, cancel)
				}
				start := time.Now()
				f := &requestforge.HTTPFetcher{URL: "https://auth.example/?key=" + fetchSecret, Client: &http.Client{Transport: silent, Timeout: tt.timeout}}
				tok, err := f.Fetch(ctx, requestforge.Input{})
				ae := fetchFailed(t, tok, err, "")
				if took := time.Since(start); took != want || !errors.Is(err, tt.is) {
					t.Errorf("got %v after %v", err, took)
				}
				if requestforge.Transient(err) != tt.transient || !requestforge.Ambiguous(err) || ae.Timeout() != tt.transient {
					t.Errorf("got transient %v, ambiguous %v, timeout %v", requestforge.Transient(err), requestforge.Ambiguous(err), ae.Timeout())
				}
			})
		})
	}
}

// What a client's own pipeline says is no server's words.
func TestStepNamesOfAClientsOwnPipelineStayReadable(t *testing.T) {
	inner := &requestforge.AuthError{Step: "app", Code: "invalid_client", Permanent: true}
	f := &requestforge.HTTPFetcher{URL: "https://auth.example", Client: &http.Client{Transport: fetchRT(func(*http.Request) (*http.Response, error) { return nil, inner })}}
	tok, err := f.Fetch(t.Context(), requestforge.Input{})
	fetchFailed(t, tok, err, `step "app": invalid_client`)
	if requestforge.Transient(err) {
		t.Error("a permanent failure below is worth no other try")
	}
}
