// Connections that are dead but not closed: what a login does about them.

package requestforge_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
)

// frozenNet is a net whose connections can be frozen: what goes through them from then
// on is swallowed, and nobody is told. New ones work. It serves in a synctest bubble.
type frozenNet struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	conns []*frozenConn
}

func newFrozenNet() *frozenNet {
	return &frozenNet{accept: make(chan net.Conn), closed: make(chan struct{})}
}

func (f *frozenNet) Accept() (net.Conn, error) {
	select {
	case c := <-f.accept:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

func (f *frozenNet) Close() error   { f.once.Do(func() { close(f.closed) }); return nil }
func (f *frozenNet) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (f *frozenNet) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case f.accept <- far:
	case <-f.closed:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c := &frozenConn{Conn: near}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
	return c, nil
}

// freeze freezes the connections of now, and returns them.
func (f *frozenNet) freeze() []*frozenConn {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.frozen.Store(true)
	}
	return f.conns
}

// open is how many connections are not closed.
func (f *frozenNet) open() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		if !c.closed.Load() {
			n++
		}
	}
	return n
}

type frozenConn struct {
	net.Conn
	frozen, closed atomic.Bool
}

func (c *frozenConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.frozen.Load() {
			return n, err
		}
	}
}

func (c *frozenConn) Write(p []byte) (int, error) {
	if c.frozen.Load() && !c.closed.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *frozenConn) Close() error { c.closed.Store(true); return c.Conn.Close() }

// deadServer serves handler in the bubble, over TLS.
func deadServer(t *testing.T, h2 bool, handler http.HandlerFunc) (*frozenNet, *http.Transport) {
	f := newFrozenNet()
	srv := httptest.NewUnstartedServer(handler)
	srv.Listener.Close()
	srv.Listener = f
	srv.EnableHTTP2 = h2
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	base := &http.Transport{TLSClientConfig: srv.Client().Transport.(*http.Transport).TLSClientConfig, DialContext: f.dial, ForceAttemptHTTP2: h2, MaxIdleConnsPerHost: 10}
	t.Cleanup(func() {
		base.CloseIdleConnections()
		srv.CloseClientConnections()
		srv.Close()
	})
	return f, base
}

// hiding is a layer of somebody else's, which hides the transport below.
type hiding struct{ base http.RoundTripper }

func (w hiding) RoundTrip(req *http.Request) (*http.Response, error) { return w.base.RoundTrip(req) }

// The connections to the auth server have died without a word since the last login, be
// they idle or with other requests that wait on them.
func TestLoginSurvivesDeadConnections(t *testing.T) {
	type fetcher = func(url string, client *http.Client) requestforge.Fetcher
	body := func(url string, client *http.Client) requestforge.Fetcher {
		return &requestforge.HTTPFetcher{URL: url + "/token", JSON: map[string]any{"u": "ann"}, Client: client}
	}
	for name, c := range map[string]struct {
		fetcher fetcher
		layer   bool // somebody else's, above net/http
		busy    bool // other requests wait on the dead connection
	}{
		"a fetcher":                {fetcher: body},
		"a fetcher, busy":          {fetcher: body, busy: true},
		"a fetcher, below a layer": {fetcher: body, layer: true},
		"a header": {fetcher: func(url string, client *http.Client) requestforge.Fetcher {
			return &requestforge.HTTPFetcher{URL: url + "/token", TokenHeader: "X-Token", Client: client}
		}},
		"a LoginClient": {fetcher: func(url string, _ *http.Client) requestforge.Fetcher {
			return requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
				client := requestforge.LoginClient(url)
				for range 2 {
					req, _ := http.NewRequestWithContext(ctx, "POST", url+"/token", nil)
					resp, err := client.Do(req)
					if err != nil {
						return nil, requestforge.NewAuthError(resp, nil, err)
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				return &requestforge.Token{AccessToken: "a"}, nil
			})
		}},
		"a function": {fetcher: func(url string, client *http.Client) requestforge.Fetcher {
			return requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
				for range 2 {
					req, _ := http.NewRequestWithContext(ctx, "POST", url+"/token", nil)
					resp, err := client.Do(req)
					if err != nil {
						return nil, err
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				return &requestforge.Token{AccessToken: "a"}, nil
			})
		}},
	} {
		for proto, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
			t.Run(name+"/"+proto, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { loginSurvives(t, h2, c.layer, c.busy, c.fetcher) })
			})
		}
	}
}

func loginSurvives(t *testing.T, h2, layer, busy bool, fetcher func(url string, client *http.Client) requestforge.Fetcher) {
	const url = "https://127.0.0.1"
	var logins atomic.Int32
	var waiting sync.WaitGroup
	release := make(chan struct{})
	f, base := deadServer(t, h2, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/wait" {
			waiting.Done()
			<-release
			return
		}
		w.Header().Set("X-Token", "a")
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"t%d"}`, logins.Add(1))
	})
	before := http.DefaultTransport
	http.DefaultTransport = base
	defer func() { http.DefaultTransport = before }()
	client := &http.Client{Transport: base}
	if layer {
		client.Transport = hiding{base}
	}

	// Three at once, for as many connections of HTTP/1.1.
	ctx, cancel := context.WithCancel(t.Context())
	var users sync.WaitGroup
	waiting.Add(3)
	for range 3 {
		users.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "GET", url+"/wait", nil)
			if resp, err := base.RoundTrip(req); err == nil {
				resp.Body.Close()
			}
		})
	}
	waiting.Wait()
	if !busy {
		close(release)
		users.Wait()
	}
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{FetchTimeout: 20 * time.Second, FetchRetries: 1,
		Steps: []requestforge.Step{{Name: "user", Fetcher: fetcher(url, client)}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	dead := len(f.freeze())
	if err := p.InvalidateStep(t.Context(), "user"); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	_, err = p.Token(t.Context())
	if took := time.Since(begun); err != nil || took > 16*time.Second {
		t.Errorf("after %v, with %d dead connections: %v", took, dead, err)
	}
	cancel()
	if busy {
		close(release)
	}
	users.Wait()
	p.Close()
	synctest.Wait()
	base.CloseIdleConnections()
	time.Sleep(10 * time.Second) // both ends write an alert, for which a pipe has no room
	if n := f.open(); n > 0 {
		t.Errorf("%d connections are left open", n)
	}
}

// Behind a load balancer a new connection can lead to a server that is gone.
func TestLoginSurvivesANewConnectionThatIsDead(t *testing.T) {
	for proto, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		for _, handshake := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/handshake=%v", proto, handshake), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, base := deadServer(t, h2, fetchJSON(fetchStd))
					var dials atomic.Int32
					dial := base.DialContext
					base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
						c, err := dial(ctx, network, addr)
						if dials.Add(1) == 1 && !handshake {
							f.freeze()
						}
						return c, err
					}
					client := &http.Client{Transport: fetchRT(func(req *http.Request) (*http.Response, error) {
						first := dials.Load() == 0
						return base.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
							GotConn: func(httptrace.GotConnInfo) {
								if first {
									f.freeze()
								}
							},
						})))
					})}
					p, err := requestforge.NewPipeline(requestforge.PipelineConfig{FetchTimeout: 20 * time.Second, FetchRetries: 1, Steps: []requestforge.Step{
						{Name: "user", Fetcher: &requestforge.HTTPFetcher{URL: "https://127.0.0.1/token", Client: client}}}})
					if err != nil {
						t.Fatal(err)
					}
					defer p.Close()
					begun := time.Now()
					if _, err := p.Token(t.Context()); err != nil || time.Since(begun) > 16*time.Second || dials.Load() != 2 {
						t.Errorf("after %v and %d connections: %v", time.Since(begun), dials.Load(), err)
					}
				})
			})
		}
	}
}

// The steps of a login share a dead connection of HTTP/2; one of them finds out for all.
func TestStepsOfALoginLeaveADeadConnectionTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, base := deadServer(t, true, fetchJSON(fetchStd))
		step := func(name string, parents ...string) requestforge.Step {
			return requestforge.Step{Name: name, DependsOn: parents, Fetcher: &requestforge.HTTPFetcher{URL: "https://127.0.0.1/" + name, Client: &http.Client{Transport: base}}}
		}
		p, err := requestforge.NewPipeline(requestforge.PipelineConfig{FetchTimeout: 20 * time.Second,
			Steps: []requestforge.Step{step("device"), step("app", "device"), step("user", "app")}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if _, err := p.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.freeze()
		if err := p.InvalidateAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, err := p.Token(t.Context()); err != nil || time.Since(begun) > 16*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}

// A server that takes 70 % of FetchTimeout for its answer is asked once, over a new
// connection and over one that was there before. A fetch of many requests has all of the time, as long as each is answered.
func TestSlowAuthServerIsAskedOnce(t *testing.T) {
	for name, c := range map[string]struct {
		takes    time.Duration // for each answer, of 20 s
		warm     bool          // the connection was used before
		requests int
		mock     bool // a transport without connections
	}{
		"a new connection":              {takes: 14 * time.Second, requests: 1},
		"one from before":               {takes: 14 * time.Second, warm: true, requests: 1},
		"a mock":                        {takes: 14 * time.Second, requests: 1, mock: true},
		"many requests of one function": {takes: 3 * time.Second, warm: true, requests: 6},
	} {
		for proto, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
			t.Run(name+"/"+proto, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					takes, asked := time.Duration(0), 0
					handler := func(w http.ResponseWriter, r *http.Request) {
						asked++
						time.Sleep(takes)
						fetchJSON(fetchStd)(w, r)
					}
					_, base := deadServer(t, h2, handler)
					client := &http.Client{Transport: base}
					if c.mock {
						client.Transport = fetchRT(func(req *http.Request) (*http.Response, error) {
							asked++
							select {
							case <-time.After(takes):
								return fetchAnswer(200, nil, fetchStd).Transport.RoundTrip(req)
							case <-req.Context().Done():
								return nil, req.Context().Err()
							}
						})
					}
					one := &requestforge.HTTPFetcher{URL: "https://127.0.0.1/token", Client: client}
					p, err := requestforge.NewPipeline(requestforge.PipelineConfig{FetchTimeout: 20 * time.Second, Steps: []requestforge.Step{{Name: "user",
						Fetcher: requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (tok *requestforge.Token, err error) {
							for range c.requests {
								if tok, err = one.Fetch(ctx, in); err != nil {
									return nil, err
								}
							}
							return tok, nil
						})}}})
					if err != nil {
						t.Fatal(err)
					}
					defer p.Close()
					if c.warm {
						if _, err := one.Fetch(t.Context(), requestforge.Input{}); err != nil {
							t.Fatal(err)
						}
					}
					takes, asked = c.takes, 0
					if _, err := p.Token(t.Context()); err != nil || asked != c.requests {
						t.Errorf("asked %d times, %v", asked, err)
					}
				})
			})
		}
	}
}

// What is sent again is never under way twice, and a try that had no answer is followed
// by one on another connection, which Close asks a mock for. A refresh token is sent once
// a fetch, and has all of the time; the next fetch's leaves the connection.
func TestTryWithoutAnAnswerIsOverBeforeTheNext(t *testing.T) {
	for name, refresh := range map[string]bool{"a login": false, "a refresh": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				silent, at := false, []string{}
				var underWay atomic.Int32
				begun := time.Now()
				client := &http.Client{Transport: fetchRT(func(req *http.Request) (*http.Response, error) {
					if n := underWay.Add(1); n > 1 {
						t.Errorf("%d requests at once", n)
					}
					defer underWay.Add(-1)
					at = append(at, fmt.Sprintf("%v close=%v", time.Since(begun).Truncate(time.Second), req.Close))
					if silent {
						silent = false
						<-req.Context().Done()
						return nil, req.Context().Err()
					}
					return fetchAnswer(200, nil, `{"access_token":"a","refresh_token":"r","expires_in":3600}`).Transport.RoundTrip(req)
				})}
				step := requestforge.Step{Name: "user", Fetcher: &requestforge.HTTPFetcher{URL: "https://auth.example/login", Client: client}}
				if refresh {
					step.Refresh = &requestforge.HTTPFetcher{URL: "https://auth.example/refresh", Client: client}
				}
				p, err := requestforge.NewPipeline(requestforge.PipelineConfig{FetchTimeout: 20 * time.Second, RefreshAhead: -1, Steps: []requestforge.Step{step}})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				if _, err := p.Token(t.Context()); err != nil {
					t.Fatal(err)
				}
				silent, at, begun = true, nil, time.Now()
				if err := p.InvalidateStep(t.Context(), "user"); err != nil {
					t.Fatal(err)
				}
				_, err = p.Token(t.Context())
				want := "[0s close=false 15s close=true]"
				if refresh {
					if err == nil || time.Since(begun) != 20*time.Second {
						t.Errorf("the refresh ends after %v: %v", time.Since(begun), err)
					}
					time.Sleep(10 * time.Second)
					_, err = p.Token(t.Context())
					want = "[0s close=false 30s close=true]"
				}
				if err != nil || fmt.Sprint(at) != want {
					t.Errorf("sent at %v, %v; want %v", at, err, want)
				}
				at = nil
				time.Sleep(time.Minute)
				if err := p.InvalidateStep(t.Context(), "user"); err != nil {
					t.Fatal(err)
				}
				if _, err := p.Token(t.Context()); err != nil || len(at) != 1 || strings.Contains(at[0], "true") {
					t.Errorf("afterwards: %v, %v", at, err)
				}
			})
		})
	}
}

// What README says of HTTP/2: a transport that pings closes a dead connection, and then
// each request on it fails instead of waiting for its own end.
func TestHTTP2PingsEndADeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, base := deadServer(t, true, func(w http.ResponseWriter, r *http.Request) {})
		base.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second}
		for _, dead := range []bool{false, true, false} {
			if dead {
				f.freeze()
			}
			begun := time.Now()
			req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://127.0.0.1/", nil)
			resp, err := base.RoundTrip(req)
			if err == nil {
				resp.Body.Close()
			}
			if (err != nil) != dead || time.Since(begun) > 20*time.Second {
				t.Errorf("dead: %v, after %v: %v", dead, time.Since(begun), err)
			}
		}
	})
}
