// The header that the token goes into, and who gets to see the token there.

package requestforge_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// A header that the caller has set is found in any spelling, also in the one that the
// configuration has.
func TestAuthCallersHeaderIsFoundInAnySpelling(t *testing.T) {
	for _, c := range []struct{ header, callers string }{
		{"X-API-Key", "X-API-Key"}, {"X-API-Key", "X-Api-Key"}, {"X-API-Key", "x-aPI-kEY"},
		{"", "authorization"}, {"", "AuthOrization"}, {"", "AUTHORIZATION"}, {"x-token", "X-TOKEN"},
	} {
		name := c.header
		if name == "" {
			name = "Authorization"
		}
		for mode, want := range map[rf.Conflict]string{rf.KeepCaller: "callers", rf.ReplaceCaller: "ours", rf.RejectCaller: ""} {
			var got []string
			rt := &rf.AuthTransport{Source: static("ours"), Attach: inHeader(c.header), Origins: []string{host}, OnConflict: mode, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				for k, v := range req.Header {
					if strings.EqualFold(k, name) {
						got = append(got, v...)
					}
				}
				return reply(req, 200), nil
			})}
			req, _ := http.NewRequest("GET", host, nil)
			req.Header[c.callers] = []string{"callers"}
			req.Header["X-Other"] = []string{"other"}
			_, err := rt.RoundTrip(req)
			if want == "" {
				require.Error(t, err)
				continue
			}
			require.NoError(t, err)
			require.Len(t, got, 1, "%q, the caller's %q", c.header, c.callers)
			require.Contains(t, got[0], want)
			require.Equal(t, []string{"callers"}, req.Header[c.callers], "the caller's own request")
		}
	}
}

// Names that net/http never sends, or that would hide something else.
func TestAuthHeadersThatCantCarryAToken(t *testing.T) {
	for _, name := range []string{"Host", "content-length", "Transfer-Encoding", "TRAILER", "Cookie"} {
		_, err := rf.NewTransport(rf.Config{BaseURL: host, Attach: inHeader(name), Source: static("t")})
		require.ErrorContains(t, err, fmt.Sprintf("header %q", name))
		rt := &rf.AuthTransport{Source: static("t"), Origins: []string{host}, Attach: inHeader(name), Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			t.Errorf("%s: sent", name)
			return reply(req, 200), nil
		})}
		req, _ := http.NewRequest("GET", host, nil)
		_, err = rt.RoundTrip(req)
		require.ErrorContains(t, err, fmt.Sprintf("header %q", name))
	}
}

// A transport below that writes into header values, which it may not do, spoils no other
// request: neither a later one nor one at the same time, nor a replay.
func TestAuthBaseThatWritesIntoAHeaderSpoilsNoOtherRequest(t *testing.T) {
	for _, name := range []string{"", "X-Token"} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var sent []string
			rt := &rf.AuthTransport{Source: pipeline(t, rf.PipelineConfig{Steps: newLogin().chain()}), Attach: inHeader(name), Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				for _, values := range req.Header {
					sent = append(sent, values...)
					for i := range values {
						values[i] = "***"
					}
				}
				return reply(req, []int{200, 401}[len(sent)%2]), nil
			})}
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					req, _ := http.NewRequestWithContext(t.Context(), "GET", host, nil)
					rt.RoundTrip(req)
				})
			}
			all.Wait()
			require.False(t, slices.Contains(sent, "***"), "%q", sent)
		})
	}
}

// What judges an answer is given the caller's request, not the one with the token.
func TestAuthRefusedSeesTheCallersRequest(t *testing.T) {
	var seen []*http.Request
	rt := &rf.AuthTransport{Source: static("s3cret"), Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) { return reply(req, 403), nil }),
		Refused: func(resp *http.Response) bool {
			seen = append(seen, resp.Request)
			return resp.StatusCode == 403
		}}
	req, _ := http.NewRequest("GET", host, nil)
	_, err := rt.RoundTrip(req)
	require.NoError(t, err)
	require.NotEmpty(t, seen)
	for _, r := range seen {
		require.Same(t, req, r)
	}
}

// A mock that leaves the body out is none that panics.
func TestAuthBodyThatIsLeftOutIsEmpty(t *testing.T) {
	for _, status := range []int{200, 401, 403, 503} {
		rt := &rf.AuthTransport{Source: &numbered{name: "t"}, Origins: []string{host}, Retry: rf.SimpleAuthRetry(1, 0),
			Base: retryOver(roundTrip(func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Header: http.Header{}}, nil
			}), retryFast(1)),
			Refused: func(resp *http.Response) bool {
				n, err := resp.Body.Read(make([]byte, 1))
				require.Zero(t, n)
				require.Error(t, err)
				return status == 403
			}}
		resp, err := (&http.Client{Transport: rt}).Get(host)
		require.NoError(t, err)
		require.Equal(t, status, resp.StatusCode)
	}
}

// A proxy that the transport below sends through can read plain http, wherever it goes.
func TestAuthPlainHTTPThroughAProxyCarriesNoToken(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the proxy was told %q", r.Header.Get("Authorization"))
	}))
	defer proxy.Close()
	at, _ := url.Parse(proxy.URL)
	base := &http.Transport{Proxy: http.ProxyURL(at)}
	defer base.CloseIdleConnections()
	for _, below := range []http.RoundTripper{base, retryOver(base, retryFast(1))} {
		rt := &rf.AuthTransport{Base: below, Source: static("s3cret"), Origins: []string{"http://127.0.0.1:1"}}
		req, _ := http.NewRequest("GET", "http://127.0.0.1:1/", nil)
		require.Equal(t, rf.ReasonPlaintext, rt.Explain(req).Reason)
		_, err := rt.RoundTrip(req)
		require.ErrorContains(t, err, "proxy")
	}
}

// A request that a source sends for a token is none of the sends of the request that
// needs the token.
func TestAuthSourceSendsForItself(t *testing.T) {
	var numbers []int
	src := sourceFunc(func(ctx context.Context) (*rf.Token, error) {
		numbers = append(numbers, rf.SendNumber(ctx))
		return &rf.Token{AccessToken: fmt.Sprint(len(numbers))}, nil
	})
	base := &retryBase{steps: []retryStep{retryAnswer(503), retryAnswer(401), retryAnswer(200)}}
	rt := retryOver(&rf.AuthTransport{Base: base, Source: src, Origins: []string{host}}, retryFast(2))
	req, _ := http.NewRequest("GET", host, nil)
	resp, err := rt.RoundTrip(req)
	wantStatus(t, resp, err, 200)
	require.Equal(t, []int{1, 1, 1}, numbers)
	for i, sent := range base.sent {
		require.Equal(t, i+1, rf.SendNumber(sent.Context()))
	}
}

// A try for which there was no token is no send.
func TestAuthTryWithoutATokenIsNoSend(t *testing.T) {
	asked := 0
	src := sourceFunc(func(ctx context.Context) (*rf.Token, error) {
		if asked++; asked <= 2 {
			return nil, &rf.AuthError{StatusCode: 503}
		}
		return &rf.Token{AccessToken: fmt.Sprint(asked)}, nil
	})
	base := &retryBase{steps: []retryStep{retryAnswer(503), retryAnswer(401), retryAnswer(200)}}
	rt := retryOver(&rf.AuthTransport{Base: base, Source: src, Origins: []string{host}}, retryFast(3))
	req, _ := http.NewRequest("GET", host, nil)
	resp, err := rt.RoundTrip(req)
	wantStatus(t, resp, err, 200)
	for i, sent := range base.sent {
		require.Equal(t, i+1, rf.SendNumber(sent.Context()))
	}
}

// inHeader is Attach for a token in one header.
func inHeader(name string) []rf.Place {
	if name == "" {
		return nil
	}
	return []rf.Place{{Header: name}}
}
