// Which requests are sent again whatever their method, and which never.

package requestforge_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// A POST is sent again only after an outcome that says that nothing was done.
func TestRetryPostsAgainWhatWasNotDone(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
	say403 := func(req *http.Request, resp *http.Response, err error) bool {
		return err == nil && resp.StatusCode == 403
	}
	saysNo := func(*http.Request, *http.Response, error) bool { return false }
	for name, c := range map[string]struct {
		first  retryStep
		undone func(*http.Request, *http.Response, error) bool
		sends  int
	}{
		"429":                         {retryAnswer(429), nil, 2},
		"503":                         {retryAnswer(503), nil, 1},
		"503, Retry-After":            {retryAnswer(503, "Retry-After: 1"), nil, 2},
		"421":                         {retryAnswer(421), nil, 2},
		"425":                         {retryAnswer(425), nil, 2},
		"408":                         {retryAnswer(408), nil, 1},
		"500":                         {retryAnswer(500), nil, 1},
		"403, Retry-After":            {retryAnswer(403, "Retry-After: 1"), nil, 1},
		"403":                         {retryAnswer(403), nil, 1},
		"403, the policy knows":       {retryAnswer(403), say403, 2},
		"403, the policy says no":     {retryAnswer(403, "Retry-After: 1"), saysNo, 1},
		"429, the policy says no":     {retryAnswer(429), saysNo, 2},
		"500, the policy knows":       {retryAnswer(500), say403, 1},
		"a dial":                      {retryFailure(fmt.Errorf("up: %w", dial)), nil, 2},
		"a name":                      {retryFailure(&net.DNSError{Err: "no such host"}), nil, 2},
		"a proxy's dial":              {retryFailure(&net.OpError{Op: "proxyconnect", Err: dial}), nil, 2},
		"a handshake that takes long": {retryFailure(errors.New("net/http: TLS handshake timeout")), nil, 2},
		"no token":                    {retryFailure(&rf.AuthError{StatusCode: 503}), nil, 2},
		"a read":                      {retryFailure(&net.OpError{Op: "read", Err: errors.New("reset")}), nil, 1},
		"a broken answer":             {retryFailure(io.ErrUnexpectedEOF), nil, 1},
		"a broken answer, the policy knows": {retryFailure(io.ErrUnexpectedEOF), func(req *http.Request, resp *http.Response, err error) bool {
			return req.Method == "POST" && resp == nil && errors.Is(err, io.ErrUnexpectedEOF)
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := &retryBase{steps: []retryStep{c.first, retryAnswer(201)}}
				rt := retryOver(base, rf.RetryPolicy{RetryMax: 2, Undone: c.undone})
				resp, err := rt.RoundTrip(newRetryRequest(t, "POST", strings.NewReader("pay")))
				base.wantSends(t, c.sends)
				if c.sends == 2 {
					wantRetryResponse(t, resp, err, 201)
					require.Equal(t, []string{"pay", "pay"}, base.bodies)
				}
			})
		})
	}
}

// A policy may look into the body, and decide either way: the caller can still read it.
func TestRetryShowsAPolicyTheBodyAndTheCallersRequest(t *testing.T) {
	const quota = "rateLimitExceeded"
	for _, text := range []string{quota, "forbidden"} {
		var seen []*http.Request
		answer := func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 403, Body: io.NopCloser(strings.NewReader(text)), Header: http.Header{}, Request: req}, nil
		}
		read := func(resp *http.Response) bool {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			seen = append(seen, resp.Request)
			return string(b) == quota
		}
		base := &retryBase{steps: []retryStep{answer}}
		policy := rf.RetryPolicy{
			RetryMax:   1,
			Undone:     func(_ *http.Request, resp *http.Response, _ error) bool { return read(resp) },
			CheckRetry: func(_ context.Context, resp *http.Response, _ error) (bool, error) { return read(resp), nil },
			Backoff: func(_, _ time.Duration, _ int, resp *http.Response) time.Duration {
				read(resp)
				return 0
			},
		}
		// The order in which a layer below the auth layer is given its requests.
		auth := &rf.AuthTransport{Base: retryOver(base, policy), Source: static("s3cret"), Origins: []string{host}}
		req, _ := http.NewRequest("POST", host, nil)
		resp, err := auth.RoundTrip(req)
		require.NoError(t, err)
		body, _ := io.ReadAll(resp.Body)
		require.Equal(t, text, string(body))
		base.wantSends(t, map[string]int{quota: 2, "forbidden": 1}[text])
		require.NotEmpty(t, seen)
		for _, r := range seen {
			require.Same(t, req, r, "a policy sees the caller's request, without the token")
		}
	}
}

// What another send can only repeat is sent once, whatever the policy says.
func TestRetrySendsNothingTwiceThatCantBeSent(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	defer srv.Close()
	plain := "https://" + srv.Listener.Addr().String()
	for name, make := range map[string]func() *http.Request{
		"TLS to a plain port": func() *http.Request { return newRetryRequestTo(t, plain) },
		"a scheme":            func() *http.Request { return newRetryRequestTo(t, "gopher://api.test/") },
		"a header": func() *http.Request {
			r := newRetryRequestTo(t, srv.URL)
			r.Header["X"] = []string{"a\nb"}
			return r
		},
		"a header's name": func() *http.Request {
			r := newRetryRequestTo(t, srv.URL)
			r.Header["X y"] = []string{"a"}
			return r
		},
		"a length that is too long": func() *http.Request {
			r := newRetryRequestTo(t, srv.URL)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("abc")), 5
			return r
		},
		"a length that is too short": func() *http.Request {
			r := newRetryRequestTo(t, srv.URL)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("abc")), 2
			return r
		},
		"a length without a body": func() *http.Request {
			r := newRetryRequestTo(t, srv.URL)
			r.ContentLength = 5
			return r
		},
		"a control character in the URL": func() *http.Request {
			r := newRetryRequestTo(t, srv.URL)
			r.URL.Opaque = "//h/a\x01b"
			return r
		},
		"a method": func() *http.Request {
			r := newRetryRequestTo(t, srv.URL)
			r.Method = "G T"
			return r
		},
		"no host": func() *http.Request {
			r := newRetryRequestTo(t, srv.URL)
			r.URL.Host = ""
			return r
		},
	} {
		for policy, check := range map[string]func(context.Context, *http.Response, error) (bool, error){
			"none":                       nil,
			"DefaultCheckRetry":          rf.DefaultCheckRetry,
			"retryablehttp.DefaultRetry": retryablehttp.DefaultRetryPolicy,
			"always":                     func(context.Context, *http.Response, error) (bool, error) { return true, nil },
		} {
			t.Run(name+"/"+policy, func(t *testing.T) {
				var sends atomic.Int32
				tr := &http.Transport{}
				defer tr.CloseIdleConnections()
				p := retryFast(3)
				p.CheckRetry, p.RetryNonIdempotent = check, true
				rt := retryOver(retryFunc(func(req *http.Request) (*http.Response, error) {
					sends.Add(1)
					return tr.RoundTrip(req)
				}), p)
				resp, err := rt.RoundTrip(make())
				if err == nil && strings.HasPrefix(name, "a length that is too short") {
					resp.Body.Close() // the server was faster
				} else {
					require.Error(t, err)
				}
				require.EqualValues(t, 1, sends.Load(), "%v", err)
			})
		}
	}
}

func newRetryRequestTo(t *testing.T, url string) *http.Request {
	r, err := http.NewRequestWithContext(t.Context(), "PUT", url, nil)
	require.NoError(t, err)
	return r
}

// A server that ends the handshake with an alert won't do otherwise the next time.
func TestRetrySendsNothingTwiceAfterATLSAlert(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	var dials atomic.Int32
	base := srv.Client().Transport.(*http.Transport).Clone()
	defer base.CloseIdleConnections()
	base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	_, err := retryOver(base, retryFast(3)).RoundTrip(newRetryRequestTo(t, srv.URL))
	require.ErrorContains(t, err, "tls: ")
	require.EqualValues(t, 1, dials.Load())
}

// A policy made for http.Client finds what it looks for.
func TestRetryGivesAPolicyTheErrorThatItExpects(t *testing.T) {
	base := &retryBase{steps: []retryStep{retryFailure(errRetryDown)}}
	var got error
	p := retryFast(3)
	p.CheckRetry = func(_ context.Context, _ *http.Response, err error) (bool, error) { got = err; return false, nil }
	req := newRetryRequestTo(t, "https://ann:s3cret@api.test/?key=s3cret")
	_, err := retryOver(base, p).RoundTrip(req)
	require.Equal(t, errRetryDown, err, "as it is")
	var wrapped *url.Error
	require.ErrorAs(t, got, &wrapped)
	require.ErrorIs(t, got, errRetryDown)
	require.Equal(t, "PUT", wrapped.Op)
	require.NotContains(t, got.Error(), "s3cret")
}

func TestRetryStatuses(t *testing.T) {
	for status, want := range map[int]int{408: 2, 421: 2, 425: 2, 429: 2, 500: 2, 502: 2, 503: 2, 504: 2,
		200: 1, 404: 1, 501: 1, 505: 1, 506: 1, 510: 1, 511: 1} {
		base := &retryBase{steps: []retryStep{retryAnswer(status)}}
		retryOver(base, retryFast(1)).RoundTrip(newRetryRequest(t, "GET", nil))
		if got := len(base.sent); got != want {
			t.Errorf("%d: %d sends, want %d", status, got, want)
		}
	}
}

// Functions of the program that panic leave no body open.
func TestRetryFunctionsThatPanicLeaveNoBodyOpen(t *testing.T) {
	boom := func() { panic("a bug") }
	for name, change := range map[string]func(p *rf.RetryPolicy, a *rf.AuthTransport){
		"CheckRetry": func(p *rf.RetryPolicy, _ *rf.AuthTransport) {
			p.CheckRetry = func(context.Context, *http.Response, error) (bool, error) { boom(); return false, nil }
		},
		"Undone": func(p *rf.RetryPolicy, _ *rf.AuthTransport) {
			p.Undone = func(*http.Request, *http.Response, error) bool { boom(); return false }
		},
		"Backoff": func(p *rf.RetryPolicy, _ *rf.AuthTransport) {
			p.Backoff = func(time.Duration, time.Duration, int, *http.Response) time.Duration { boom(); return 0 }
		},
		"Refused": func(_ *rf.RetryPolicy, a *rf.AuthTransport) {
			a.Refused = func(*http.Response) bool { boom(); return false }
		},
		"Retry": func(_ *rf.RetryPolicy, a *rf.AuthTransport) {
			a.Refused = func(*http.Response) bool { return true }
			a.Retry = func() rf.Schedule { boom(); return nil }
		},
		"GetBody": func(*rf.RetryPolicy, *rf.AuthTransport) {},
		"Source": func(_ *rf.RetryPolicy, a *rf.AuthTransport) {
			a.Source = sourceFunc(func(context.Context) (*rf.Token, error) { boom(); return nil, nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			answer := newRetryBody("answer")
			base := retryFunc(func(req *http.Request) (*http.Response, error) {
				io.Copy(io.Discard, req.Body)
				req.Body.Close()
				return &http.Response{StatusCode: 503, Header: http.Header{}, Body: answer, Request: req}, nil
			})
			policy := retryFast(2)
			auth := &rf.AuthTransport{Base: base, Source: static("t"), Origins: []string{host}}
			change(&policy, auth)
			body := newRetryBody("body")
			req, _ := http.NewRequest("PUT", host, body)
			if name == "GetBody" {
				req.GetBody = func() (io.ReadCloser, error) { boom(); return nil, nil }
			}
			func() {
				defer func() { require.Equal(t, "a bug", recover()) }()
				retryOver(auth, policy).RoundTrip(req)
			}()
			body.wantClosedOnce(t)
			if name != "Source" {
				answer.wantClosedOnce(t)
			}
		})
	}
}

// A Refused that panics over the answer of a replay leaves no body open, and closes none
// twice.
func TestAuthRefusedThatPanicsOverAReplayClosesTheBodyOnce(t *testing.T) {
	var answers []*retryBody
	rt := &rf.AuthTransport{Source: &numbered{name: "t"}, Origins: []string{host}, Base: retryFunc(func(req *http.Request) (*http.Response, error) {
		answers = append(answers, newRetryBody("answer"))
		return &http.Response{StatusCode: 401, Header: http.Header{}, Body: answers[len(answers)-1], Request: req}, nil
	}), Refused: func(*http.Response) bool {
		if len(answers) > 1 {
			panic("a bug")
		}
		return true
	}}
	req, _ := http.NewRequest("GET", host, nil)
	require.PanicsWithValue(t, "a bug", func() { rt.RoundTrip(req) })
	require.Len(t, answers, 2)
	for _, body := range answers {
		body.wantClosedOnce(t)
	}
}
