// Connections that are dead but not closed.

package oauth2source_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
)

// frozenNet is a net in a synctest bubble. What goes through a frozen connection is
// swallowed, and nobody is told.
type frozenNet struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	conns []*frozenConn
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

func (f *frozenNet) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	f.accept <- far
	c := &frozenConn{Conn: near}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
	return c, nil
}

func (f *frozenNet) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.frozen.Store(true)
	}
}

type frozenConn struct {
	net.Conn
	frozen atomic.Bool
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
	if c.frozen.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// A grant's login has a second try within FetchTimeout, and the try after one without an
// answer leaves the connection, also one of HTTP/2 on which other requests wait. A
// refresh is sent once a fetch; the next fetch's leaves the connection.
func TestGrantLeavesADeadConnection(t *testing.T) {
	for name, c := range map[string]struct{ h2, refresh bool }{
		"HTTP/1.1":              {false, false},
		"HTTP/2":                {true, false},
		"a refresh, HTTP/1.1":   {false, true},
		"a refresh over HTTP/2": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &frozenNet{accept: make(chan net.Conn), closed: make(chan struct{})}
				var grants []string
				waiting, release := make(chan struct{}), make(chan struct{})
				srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/wait" {
						close(waiting)
						<-release
						return
					}
					grants = append(grants, r.FormValue("grant_type"))
					w.Header().Set("Content-Type", "application/json")
					io.WriteString(w, `{"access_token":"token","refresh_token":"refresh","expires_in":3600}`)
				}))
				srv.Listener.Close()
				srv.Listener = f
				srv.EnableHTTP2 = c.h2
				srv.Config.ErrorLog = log.New(io.Discard, "", 0)
				srv.StartTLS()
				defer srv.Close()
				base := &http.Transport{TLSClientConfig: srv.Client().Transport.(*http.Transport).TLSClientConfig, DialContext: f.dial, ForceAttemptHTTP2: c.h2}
				defer base.CloseIdleConnections()
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					req, _ := http.NewRequestWithContext(ctx, "GET", "https://127.0.0.1/wait", nil)
					base.RoundTrip(req)
				}()
				<-waiting

				cfg := oauth2source.Config{TokenURL: "https://127.0.0.1/token", ClientAuth: &requestforge.ClientAuth{ID: "app"}, Client: &http.Client{Transport: base}}
				step := requestforge.Step{Name: "user", Fetcher: oauth2source.ClientCredentials(cfg)}
				if c.refresh {
					step.Refresh = oauth2source.Refresh(cfg)
				}
				p, err := requestforge.NewPipeline(requestforge.PipelineConfig{FetchTimeout: 20 * time.Second, FetchRetries: 1, RefreshAhead: -1, Steps: []requestforge.Step{step}})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				if _, err := p.Token(t.Context()); err != nil {
					t.Fatal(err)
				}
				grants = nil
				f.freeze()
				p.InvalidateStep(t.Context(), "user")
				begun := time.Now()
				_, err = p.Token(t.Context())
				if took := time.Since(begun); (err == nil) == c.refresh || took > 20*time.Second || !c.refresh && took > 16*time.Second {
					t.Errorf("after %v: %v", took, err)
				}
				want := []string{"client_credentials"}
				if c.refresh {
					want = []string{"refresh_token"}
					time.Sleep(2 * time.Second) // the cool-down
				}
				if _, err = p.Token(t.Context()); err != nil || !slices.Equal(grants, want) {
					t.Errorf("%v by %q, want %q", err, grants, want)
				}
				cancel()
				close(release)
				synctest.Wait()
			})
		})
	}
}
