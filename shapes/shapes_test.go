// Each row against its simulator: log in, call, revoke, call again, until it expires, and
// once more. What is counted, and said in docs/shapes.md, is counted here.

package shapes_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	rf "github.com/requestforge/requestforge"
)

// A program is one way to say a row: what its author writes.
type program struct {
	row   string // the shape's; with its name, if there are several
	shape string
	note  string // what the settings don't say by themselves
	login []rf.Step
	api   rf.Config

	// The calls that are made again after a revocation of what requests carry, after one
	// of everything, and after the session has expired. Nil: the last call; all that
	// aren't public; the same.
	again, all, late []string
	ahead            []string // made a little before the end, if it knows when that is; nil: as again
	knows            bool     // when the session ends: no request is refused for that
}

// world is where a program runs: the simulator, and a network that ends there whatever
// the host.
type world struct {
	*sim
	t      *testing.T
	server *http.Server
	net    *pipeNet
	wire   *http.Transport
}

func newWorld(t *testing.T, s *shape) *world {
	w := &world{sim: newSim(s), t: t, net: &pipeNet{accept: make(chan net.Conn), closed: make(chan struct{})}}
	w.server = &http.Server{Handler: w.sim, ErrorLog: log.New(io.Discard, "", 0)}
	go w.server.Serve(w.net)
	w.wire = &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("plain http")
		},
		DialTLSContext: w.net.dial, // the bytes are what matters, not how they are encrypted
	}
	t.Cleanup(func() {
		w.wire.CloseIdleConnections()
		w.server.Close()
	})
	return w
}

type worldKey struct{}

// internet is http.DefaultTransport, which programs and logins use where they name no
// other: the world of the request's context.
type internet struct{}

func (internet) RoundTrip(req *http.Request) (*http.Response, error) {
	w, ok := req.Context().Value(worldKey{}).(*world)
	if !ok {
		return nil, errors.New("a request from no world: the context has got lost")
	}
	return w.wire.RoundTrip(req)
}

func TestMain(m *testing.M) {
	http.DefaultTransport = internet{}
	os.Exit(m.Run())
}

// pipeNet is a network within a bubble.
type pipeNet struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipeNet) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeNet) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipeNet) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (p *pipeNet) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.accept <- far:
		return near, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Each row is logged in to, called, revoked, called again, and outlived, and its program
// sees no refusal and makes no call too many.
func TestShapes(t *testing.T) {
	for _, s := range shapes() {
		if s.impossible != "" {
			continue
		}
		for i, p := range programsOf(s) {
			name := s.row + " " + s.name
			if i > 0 {
				name += fmt.Sprintf(" (%d)", i+1)
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					for _, problem := range run(t, s, p) {
						t.Error(problem)
					}
				})
			})
		}
	}
}

// shapes are all rows, each with a simulator of its own.
func shapes() (out []shape) { return append(append(out, rowsA...), rowsB...) }

// programsOf are the programs that say the row.
func programsOf(s shape) (out []program) {
	for _, list := range [][]func() program{programsA, programsB} {
		for _, make := range list {
			if p := make(); p.row == s.row && (p.shape == "" || p.shape == s.name) {
				out = append(out, p)
			}
		}
	}
	return out
}

// visit is a program at work.
type visit struct {
	*world
	program
	ctx    context.Context
	client *http.Client
	phase  string

	noting   sync.Mutex
	problems []string
}

// run returns what went wrong.
func run(t *testing.T, s shape, p program) []string {
	w := newWorld(t, &s)
	ctx := context.WithValue(t.Context(), worldKey{}, w)
	pipeline, err := rf.NewPipeline(rf.PipelineConfig{Steps: p.login})
	if err != nil {
		return []string{err.Error()}
	}
	defer pipeline.Close()
	p.api.Source = pipeline
	transport, err := rf.NewTransport(p.api)
	if err != nil {
		return []string{err.Error()}
	}
	v := &visit{world: w, program: p, ctx: ctx, client: &http.Client{Transport: transport}}
	v.story()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, fault := range w.faults {
		v.problem("the simulator: %s", fault)
	}
	return v.problems
}

func (v *visit) problem(format string, args ...any) {
	v.noting.Lock()
	defer v.noting.Unlock()
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

// story is what happens to each program.
func (v *visit) story() {
	var every, secret, last []string
	for _, c := range v.sim.shape.calls {
		if c.renewal {
			continue
		}
		every = append(every, c.name)
		if !c.public {
			secret = append(secret, c.name)
		}
		if c.to == v.sim.shape.api.state {
			last = []string{c.name}
		}
	}
	v.again, v.all = or(v.again, last), or(v.all, secret)
	v.late = or(v.late, v.all)

	v.begin("a cold start")
	v.requests()
	v.requests()
	v.expect(every, 0)

	for i := range max(2, len(v.sim.shape.api.refusals)) {
		v.begin(fmt.Sprintf("revocation %d", i+1))
		v.setRefusal(i)
		v.revoke(false)
		v.requests()
		v.expect(v.again, 1)
	}

	if len(v.sim.shape.api.renews) == 0 { // else each request needs what the one before has brought
		v.begin("a revocation under load")
		v.setRefusal(0)
		v.revoke(false)
		var all sync.WaitGroup
		for range crowd {
			all.Go(v.requests)
		}
		all.Wait()
		v.expectAtLeast(v.again)
	}

	v.begin("a revocation of everything")
	v.revoke(true)
	v.requests()
	v.expect(v.all, 1)

	life := v.sim.shape.life
	if life > 0 && v.knows {
		v.begin("just before the end of the session")
		time.Sleep(life - time.Minute)
		v.requests()
		synctest.Wait() // a renewal in the background
		allowed := 0
		for _, c := range v.sim.shape.calls {
			if c.spends || c.single {
				allowed = 1 // a request that was sent with the old token meanwhile
			}
		}
		v.expect(or(v.ahead, v.again), 0, allowed)
	}
	if life > 0 {
		v.begin("the end of the session")
		time.Sleep(life + time.Second)
		v.requests()
		if v.knows {
			v.expect(v.late, 0)
		} else {
			v.expect(v.late, 0, 1)
		}
	}

	v.begin("a login that is refused")
	v.setDeny(true)
	v.revoke(true)
	before := len(v.denials())
	v.call(v.sim.shape.api.requests[0], false)
	v.call(v.sim.shape.api.requests[0], false)
	if denied := v.denials()[before:]; len(denied) == 0 || len(denied) > len(v.sim.shape.calls)*(1+v.api.Retry.RetryMax) {
		v.problem("%s: logins that were refused: %v", v.phase, denied)
	}
	v.setDeny(false)
	time.Sleep(time.Hour) // the cool-down
	v.begin("a login after that")
	v.requests()
}

func or(a, b []string) []string {
	if a != nil {
		return a
	}
	return b
}

// requests makes each request of the row once, and wants the answer of each.
func (v *visit) requests() {
	for _, r := range v.sim.shape.api.requests {
		v.call(r, true)
	}
}

func (v *visit) call(r request, wanted bool) {
	req, err := http.NewRequestWithContext(v.ctx, r.method, r.path, strings.NewReader(r.body))
	if err != nil {
		v.t.Fatal(err)
	}
	if r.body == "" {
		req.Body, req.GetBody, req.ContentLength = nil, nil, 0
	}
	if r.ctype != "" {
		req.Header.Set("Content-Type", r.ctype)
	}
	resp, err := v.client.Do(req)
	if err != nil {
		if wanted {
			v.problem("%s: %s %s: %v", v.phase, r.method, r.path, err)
		}
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	want := r.other
	if want == "" {
		want = v.sim.shape.api.ok
	}
	if want == "" {
		want = okay
	}
	got := resp.StatusCode == 200 && string(body) == want
	if err != nil || got != wanted {
		v.problem("%s: %s %s: %d %s, %v", v.phase, r.method, r.path, resp.StatusCode, body, err)
	}
}

// begin starts to count. It takes as long as a one-time password is good.
func (v *visit) begin(phase string) {
	time.Sleep(30 * time.Second)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.phase = phase
	v.before, v.refusedBefore = maps.Clone(v.answered), v.refused
}

// crowd is how many callers find out together.
const crowd = 5

// expectAtLeast is expect for several callers: one of them or more was refused.
func (v *visit) expectAtLeast(calls []string) {
	var refused []int
	for n := range crowd * len(v.sim.shape.api.requests) {
		refused = append(refused, n+1)
	}
	v.expect(calls, refused...)
}

// expect wants that each of the calls was answered once since begin, no other was, and so
// many requests were refused.
func (v *visit) expect(calls []string, refused ...int) {
	synctest.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	want := make(map[string]int)
	for _, name := range calls {
		want[name]++
	}
	for _, c := range v.sim.shape.calls {
		if got := v.answered[c.name] - v.before[c.name]; got != want[c.name] {
			v.problem("%s: %d of the call %q, want %d", v.phase, got, c.name, want[c.name])
		}
	}
	if got := v.refused - v.refusedBefore; !slices.Contains(refused, got) {
		v.problem("%s: %d requests were refused, want %v", v.phase, got, refused)
	}
}
