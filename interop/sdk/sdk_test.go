// What every SDK is put through. The SDK itself, its API and its example are in
// a file of its own, which registers an sdk here; readme_test.go makes the table
// of the README from them.

package sdk_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// sdk is one SDK: how to use it, an API for it, and what is known of it.
type sdk struct {
	file   string // where it is described; filled in by register
	name   string // as people call it
	module string // its module path; the version is that of go.mod
	option string // the SDK's own option for a client or transport, as code

	// api plays the SDK's API, as far as a client's read and write go. It is
	// asked only what a live token, or whatever the SDK sent if there is
	// none of ours, has been accepted for.
	api func(*shelf) http.Handler

	// refuse answers where a token is refused. Nil means 401 with a Bearer
	// challenge and a JSON object.
	refuse http.Handler

	// open makes a client that sends through c.http.
	open func(t *testing.T, c conn) client

	// header is the header that the API wants the token in. "" means
	// Authorization.
	header string

	// reads and writes are how many requests one read and one write take.
	// Zero means 1.
	reads, writes int

	// body is how many bytes a write has. Zero means 256 KiB. An SDK whose
	// requests have no GetBody has to stay below keep.
	body int

	// keep is Config.MaxReplayBody.
	keep int64

	// posts is whether even a read is a POST, so that our layer retries it
	// with RetryNonIdempotent only.
	posts bool

	// tls is whether the API is spoken to over https.
	tls bool

	// hides is whether the SDK's errors lose what the transport returned, so
	// that errors.As finds no AuthError in them.
	hides bool

	auth  auth   // whether it sets the header itself
	where string // for the table: added to auth
	tries int    // how often it sends a read, by default, that is answered with a 503
	https string // for the table: what insists on https, or on an *http.Transport; "" means nothing does
	how   string // for the table: how to combine it with requestforge; Markdown
}

// auth is when an SDK sets the Authorization header.
type auth string

const (
	never     auth = "never"
	sometimes auth = "with credentials" // if conn.credential isn't ""
	always    auth = "always"
)

// conn is what an SDK's client is made with.
type conn struct {
	url  string       // the API's, without a slash at the end
	http *http.Client // for SDKs that take a transport: http.Transport

	// credential is the SDK's own secret. "" means that it has to do
	// without, and one that can't (always) is never asked to.
	credential string

	// retries is whether the SDK's own retries are on, as they are by
	// default. False means that it sends a request once.
	retries bool

	log io.Writer // where the SDK's own log goes, with as much as it has
}

// client is an SDK at work. Both return what the SDK decoded from the API's
// answer: the value on the shelf.
type client struct {
	read  func(ctx context.Context) (string, error)
	write func(ctx context.Context, value string) (string, error)
}

// sdks are all of them, in the order of the files.
var sdks []*sdk

func register(s sdk) *sdk {
	_, file, _, _ := runtime.Caller(1)
	s.file = filepath.Base(file)
	s.reads, s.writes = max(s.reads, 1), max(s.writes, 1)
	if s.body == 0 {
		s.body = 256 << 10
	}
	if s.header == "" {
		s.header = "Authorization"
	}
	sdks = append(sdks, &s)
	return &s
}

// login is what a token takes: an app token, which is good for a user token.
var login = []authtest.Step{
	{Name: "app", ClientID: "shop", ClientSecret: clientSecret, TTL: time.Hour},
	{Name: "user", Parents: map[string]string{"app": "X-App-Token"}, TTL: 15 * time.Minute},
}

const (
	clientSecret = "the-secret-of-the-shop"
	credential   = "the-credential-of-the-sdk"
)

// check puts an SDK through everything.
func check(t *testing.T, s *sdk) {
	t.Run("reads and writes while its token is revoked", func(t *testing.T) {
		if s.auth == always {
			revoked(t, s, credential, requestforge.ReplaceCaller)
			return
		}
		revoked(t, s, "", requestforge.KeepCaller)
	})
	t.Run("gets the refusal if every token is refused", func(t *testing.T) { refusedForEver(t, s) })
	t.Run("gets the reason if there is no token", func(t *testing.T) { noToken(t, s) })
	t.Run("tries as often as the table says", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { retries(t, s) })
	})
	if s.auth != sometimes && s.auth != always {
		return
	}
	t.Run("keeps its own header with KeepCaller", func(t *testing.T) { keep(t, s) })
	if s.auth == sometimes { // else this was the first of all
		t.Run("has it replaced with ReplaceCaller", func(t *testing.T) {
			revoked(t, s, credential, requestforge.ReplaceCaller)
		})
	}
	t.Run("is stopped with RejectCaller", func(t *testing.T) { reject(t, s) })
}

// revoked reads and writes, and before each of these but the first the token is
// revoked; then once more in the middle of a write. The SDK notices nothing.
func revoked(t *testing.T, s *sdk, credential string, caller requestforge.Conflict) {
	w := newWorld(t, s, requestforge.Config{OnConflict: caller})
	c := w.open(t, credential, false)
	ctx := t.Context()

	read := func(want string) {
		t.Helper()
		got, err := c.read(ctx)
		if err != nil || got != want {
			t.Fatalf("read %s, %v; want %s", brief(got), err, brief(want))
		}
	}
	write := func(value string) {
		t.Helper()
		got, err := c.write(ctx, value)
		if err != nil || got != value {
			t.Fatalf("write decoded %s, %v; want %s", brief(got), err, brief(value))
		}
		if got := w.shelf.get(); got != value {
			t.Fatalf("the API has %s, want %s", brief(got), brief(value))
		}
	}

	read("what was there before")
	w.revoke()
	first := text("first", s.body)
	write(first)
	w.revoke()
	read(first)
	second := text("second", s.body)
	w.api.refuseMidway(s.body/2, w.revoke)
	write(second)
	read(second)

	// The API's side: three refusals, each of them followed by the same
	// request, whole, with another token.
	requests := w.api.requests()
	want := 3*s.reads + 2*s.writes + 3
	if len(requests) != want {
		t.Errorf("%d requests arrived, want %d", len(requests), want)
	}
	if !token.MatchString(requests[0].auth) {
		t.Errorf("secrets looks for %s, which isn't what tokens look like", token)
	}
	var refused int
	var midway bool
	for i, r := range requests {
		if !r.refused {
			continue
		}
		refused++
		if i+1 == len(requests) {
			t.Fatalf("%s was refused, and not replayed", r)
		}
		again := requests[i+1]
		if again.refused || again.method != r.method || again.uri != r.uri {
			t.Errorf("%s was refused, and followed by %s", r, again)
		}
		if again.auth == r.auth {
			t.Errorf("%s was replayed with the same token", r)
		}
		if r.midway {
			midway = true
			if !bytes.HasPrefix(again.body, r.body) || len(again.body) < s.body {
				t.Errorf("%s was refused after %d bytes of its body, and replayed with %d", r, len(r.body), len(again.body))
			}
		} else if !bytes.Equal(again.body, r.body) {
			t.Errorf("%s was refused after a body of %d bytes, and replayed with %d, or others", r, len(r.body), len(again.body))
		}
	}
	if refused != 3 || !midway {
		t.Errorf("%d refusals, the last in the middle of a body: %t; want 3, true", refused, midway)
	}
	if got := w.sim.Stats().API.Attempted; got != len(requests) {
		t.Errorf("the server counts %d requests to the API, and %d have been looked at", got, len(requests))
	}
	w.fetches(t, 1, 4)

	// The SDK's side, and the network's.
	if got := w.above.sent(); got != want-3 {
		t.Errorf("the SDK sent %d requests, want %d", got, want-3)
	}
	if got := w.above.refusals(); got != 0 {
		t.Errorf("the SDK saw %d refusals", got)
	}
	if got := w.below.sent(); got != want {
		t.Errorf("%d requests were sent, want %d", got, want)
	}
	w.closed(t)
}

// refusedForEver has an API that takes no token at all. The SDK gets what the
// API said. The first token is so young that it is tried for 0.75 s; then the
// auth server is asked for another token of the last step, and that is all.
func refusedForEver(t *testing.T, s *sdk) {
	w := newWorld(t, s, requestforge.Config{OnConflict: requestforge.ReplaceCaller})
	w.sim.RefuseAll(true)
	c := w.open(t, s.needed(), false)
	if got, err := c.read(t.Context()); err == nil {
		t.Errorf("read %s, want an error", brief(got))
	} else {
		w.secrets(t, err)
	}
	if sent, arrived := w.above.sent(), w.below.sent(); sent != 1 || arrived != 1+youngTries+1 {
		t.Errorf("the SDK sent %d requests, and %d arrived; want 1, tried %d times and replayed once", sent, arrived, youngTries)
	}
	if got := w.above.refusals(); got != 1 {
		t.Errorf("the SDK saw %d refusals, want 1", got)
	}
	w.fetches(t, 1, 2)
	w.closed(t)
}

// youngTries is how often a token is sent again that a server may not know yet,
// without AuthRetry.
const youngTries = 2

// noToken has an auth server that knows no such client. Nothing is sent, and the
// SDK's error says which step failed.
func noToken(t *testing.T, s *sdk) {
	w := newWorld(t, s, requestforge.Config{OnConflict: requestforge.ReplaceCaller})
	w.sim.Fail("app", authtest.Fault{Status: http.StatusUnauthorized, Body: `{"error":"invalid_client"}`})
	c := w.open(t, s.needed(), false)
	got, err := c.write(t.Context(), text("lost", s.body))
	if err == nil {
		t.Fatalf("write decoded %s, want an error", brief(got))
	}
	w.secrets(t, err)
	var failure *requestforge.AuthError
	switch found := errors.As(err, &failure); {
	case found == s.hides:
		t.Errorf("errors.As finds an AuthError: %t, want %t, in %T: %v", found, !s.hides, err, err)
	case found && (failure.Step != "app" || failure.Code != "invalid_client"):
		t.Errorf("got step %q, code %q: %v", failure.Step, failure.Code, failure)
	case !found && !strings.Contains(err.Error(), `step "app"`):
		t.Errorf("the error doesn't name the step: %v", err)
	}
	if got := w.below.sent(); got != 0 {
		t.Errorf("%d requests were sent without a token", got)
	}
	w.closed(t)
}

// retries has an API that is down. By default the SDK tries as often as the
// table says, and each of its tries is retried by our layer: the two multiply.
// With the SDK's own retries off, ours are the only ones.
func retries(t *testing.T, s *sdk) {
	for _, test := range []struct {
		name      string
		sdk       bool // its own retries
		ours      int
		sent      int // by the SDK
		delivered int
	}{
		{"the SDK alone", true, 0, s.tries, s.tries},
		{"both", true, 1, s.tries, 2 * s.tries},
		{"ours alone", false, 2, 1, 3},
	} {
		w := newSimulation(t, s, requestforge.Config{
			OnConflict: requestforge.ReplaceCaller,
			Retry:      requestforge.RetryPolicy{RetryMax: test.ours, RetryNonIdempotent: s.posts},
		})
		w.sim.FailAPI(authtest.Fault{Status: http.StatusServiceUnavailable})
		c := w.open(t, s.needed(), test.sdk)
		if got, err := c.read(t.Context()); err == nil {
			t.Errorf("%s: read %s, want an error", test.name, brief(got))
		} else {
			w.secrets(t, err)
		}
		if sent, arrived := w.above.sent(), w.sim.Stats().API.Attempted; sent != test.sent || arrived != test.delivered {
			t.Errorf("%s: the SDK sent %d requests, and %d arrived; want %d and %d", test.name, sent, arrived, test.sent, test.delivered)
		}
		w.closed(t)
	}
}

// keep leaves the SDK's credentials alone. The API, which doesn't know them,
// gets them as they were made; that is the SDK's affair, so there is no replay
// and no token is fetched.
func keep(t *testing.T, s *sdk) {
	w := newWorld(t, s, requestforge.Config{})
	c := w.open(t, credential, false)
	if got, err := c.read(t.Context()); err == nil {
		t.Errorf("read %s, want an error", brief(got))
	} else {
		w.secrets(t, err)
	}
	requests := w.api.requests()
	if len(requests) != 1 || !requests[0].refused {
		t.Fatalf("got %v, want one refusal", requests)
	}
	if made := w.above.headers(); len(made) != 1 || made[0] == "" || made[0] != requests[0].auth {
		t.Error("the SDK's header didn't arrive as it was made")
	}
	w.fetches(t, 0, 0)
	w.closed(t)
}

// reject takes credentials in a request for a mistake.
func reject(t *testing.T, s *sdk) {
	w := newWorld(t, s, requestforge.Config{OnConflict: requestforge.RejectCaller})
	c := w.open(t, credential, false)
	if got, err := c.read(t.Context()); err == nil {
		t.Errorf("read %s, want an error", brief(got))
	} else {
		w.secrets(t, err)
	}
	if got := w.below.sent(); got != 0 {
		t.Errorf("%d requests were sent", got)
	}
	w.fetches(t, 0, 0)
	w.closed(t)
}

// needed is the credential that the SDK can't do without.
func (s *sdk) needed() string {
	if s.auth == always {
		return credential
	}
	return ""
}

// world is an auth server with the SDK's API, and what is watched of it.
type world struct {
	s     *sdk
	sim   *authtest.Simulator
	api   *api
	shelf *shelf
	above *watch   // between the SDK and our transport
	below *watch   // between our transport and the network
	log   *journal // our layers' and the SDK's, with all they have
}

// newWorld listens on loopback.
func newWorld(t *testing.T, s *sdk, cfg requestforge.Config) *world {
	w := &world{s: s}
	srv := authtest.NewServer(w.server())
	t.Cleanup(srv.Close)
	w.connect(t, srv.Simulator, cfg)
	t.Cleanup(srv.Client().CloseIdleConnections)
	return w
}

// newSimulation does without a listener, for a synctest bubble.
func newSimulation(t *testing.T, s *sdk, cfg requestforge.Config) *world {
	w := &world{s: s}
	w.connect(t, authtest.NewSimulator(w.server()), cfg)
	return w
}

// server makes the API, and describes the server.
func (w *world) server() authtest.Config {
	w.shelf = &shelf{value: "what was there before"}
	w.api = &api{header: w.s.header, accept: w.s.api(w.shelf), refuse: w.s.refuse}
	if w.api.refuse == nil {
		w.api.refuse = http.HandlerFunc(unauthorized)
	}
	wants := []authtest.Place{{Header: cmp.Or(w.s.header, "Authorization")}}
	return authtest.Config{
		Steps: login,
		API:   authtest.API{Wants: wants, Handler: http.HandlerFunc(w.api.accepted), Refused: http.HandlerFunc(w.api.refused)},
		TLS:   w.s.tls,
	}
}

// connect makes the client: ours, over the one that reaches sim.
func (w *world) connect(t *testing.T, sim *authtest.Simulator, cfg requestforge.Config) {
	w.sim = sim
	w.log = new(journal)
	logger := slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug - 8}))
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: sim.Steps(), Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	w.below = &watch{header: w.s.header, next: sim.Client().Transport}
	cfg.Base = w.below
	cfg.Source = tokens
	cfg.Origins = []string{sim.URL}
	cfg.Attach = []requestforge.Place{{Header: w.s.header}}
	cfg.MaxReplayBody = cmp.Or(cfg.MaxReplayBody, w.s.keep)
	cfg.Logger, cfg.LogHeaders = logger, true
	transport, err := requestforge.NewTransport(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.above = &watch{header: w.s.header, next: transport}
}

func (w *world) open(t *testing.T, credential string, retries bool) client {
	return w.s.open(t, conn{
		url:        w.sim.URL,
		http:       &http.Client{Transport: w.above},
		credential: credential,
		retries:    retries,
		log:        w.log,
	})
}

// revoke ends the user's token, and leaves the app's alone.
func (w *world) revoke() { w.sim.Revoke("user") }

// fetches holds the numbers of logins against what they should be.
func (w *world) fetches(t *testing.T, app, user int) {
	t.Helper()
	steps := w.sim.Stats().Steps
	if a, u := steps["app"].Fetches.Attempted, steps["user"].Fetches.Attempted; a != app || u != user {
		t.Errorf("%d app tokens and %d user tokens were asked for, want %d and %d", a, u, app, user)
	}
}

// closed waits until every body that was sent is closed, and every one that was
// received is closed or has been read to its end, which is all that some SDKs
// do. The refusals that the SDK didn't see are closed. The log is complete then,
// and has no secret.
func (w *world) closed(t *testing.T) {
	t.Helper()
	over := make(chan struct{})
	go func() {
		w.above.bodies.Wait()
		w.below.bodies.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(time.Minute):
		t.Fatal("a body was left open")
	}
	if closed, unseen := w.below.closed.Load(), w.below.refusals()-w.above.refusals(); int(closed) < unseen {
		t.Errorf("%d refusals were closed, and %d replayed", closed, unseen)
	}
	w.secrets(t, nil)
}

var token = regexp.MustCompile(`(app|user)-[0-9]+-[A-Z2-7]{26}`) // as authtest makes them

// secrets looks for secrets in err, if there is one, and in the log.
func (w *world) secrets(t *testing.T, err error) {
	t.Helper()
	text := w.log.String()
	if err != nil {
		text += err.Error()
	}
	for _, secret := range []string{clientSecret, credential} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the log, or in the error", secret)
		}
	}
	if found := token.FindString(text); found != "" {
		t.Errorf("token %q is in the log, or in the error", found)
	}
}

// shelf is what an API keeps: one value.
type shelf struct {
	mu    sync.Mutex
	value string
}

func (s *shelf) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

func (s *shelf) put(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value = value
}

// api is the way into an SDK's API. It remembers every request.
type api struct {
	header         string
	accept, refuse http.Handler

	mu     sync.Mutex
	log    []request
	midway int    // refuse the next body after so many bytes; 0: don't
	revoke func() // called at that point
}

// request is one that arrived.
type request struct {
	method, uri, auth string
	refused           bool
	midway            bool   // refused before the body was complete
	body              []byte // what has been read of it
}

func (r request) String() string { return r.method + " " + r.uri }

// refuseMidway makes the next request with a body of more than n bytes be
// refused in the middle of it, right after revoke.
func (a *api) refuseMidway(n int, revoke func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.midway, a.revoke = n, revoke
}

func (a *api) requests() []request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.log)
}

func (a *api) note(r *http.Request, refused, midway bool, body []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log = append(a.log, request{r.Method, r.RequestURI, r.Header.Get(a.header), refused, midway, body})
}

// refused answers requests whose token is no good, once their body has come.
func (a *api) refused(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	a.note(r, true, false, body)
	a.refuse.ServeHTTP(w, r)
}

// accepted answers requests whose token was good when they came.
func (a *api) accepted(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	n, revoke := a.midway, a.revoke
	a.mu.Unlock()

	var body []byte
	if n > 0 {
		body = make([]byte, n)
		read, err := io.ReadFull(r.Body, body)
		body = body[:read]
		if err == nil {
			a.refuseMidway(0, nil)
			revoke()
			a.note(r, true, true, body)
			a.refuse.ServeHTTP(w, r)
			return
		}
	}
	rest, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	body = append(body, rest...)
	a.note(r, false, false, body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	a.accept.ServeHTTP(w, r)
}

func unauthorized(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="api", error="invalid_token"`)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	io.WriteString(w, `{"error":"invalid_token"}`)
}

// watch is a RoundTripper that notes what passes.
type watch struct {
	header string
	next   http.RoundTripper
	bodies sync.WaitGroup // one for each body that is open
	closed atomic.Int32   // bodies of refusals

	mu       sync.Mutex
	auths    []string
	statuses []int
}

func (w *watch) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.auths = append(w.auths, req.Header.Get(w.header))
	w.mu.Unlock()

	out := req
	if req.Body != nil && req.Body != http.NoBody {
		out = req.WithContext(req.Context())
		out.Body = w.body(req.Body, nil)
		if get := req.GetBody; get != nil {
			out.GetBody = func() (io.ReadCloser, error) {
				body, err := get()
				if err != nil {
					return nil, err
				}
				return w.body(body, nil), nil
			}
		}
	}
	resp, err := w.next.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.statuses = append(w.statuses, resp.StatusCode)
	w.mu.Unlock()
	resp.Request = req
	resp.Body = w.body(resp.Body, resp)
	return resp, nil
}

// body wraps one of a request or, if it isn't nil, of resp.
func (w *watch) body(b io.ReadCloser, resp *http.Response) io.ReadCloser {
	w.bodies.Add(1)
	over := sync.OnceFunc(w.bodies.Done)
	watched := &body{ReadCloser: b, end: func() {}, close: over}
	if resp != nil {
		watched.end = over
	}
	if resp != nil && resp.StatusCode == http.StatusUnauthorized {
		watched.close = func() { w.closed.Add(1); over() }
	}
	return watched
}

// body is a body that tells when it has been read to its end, and when it is
// closed.
type body struct {
	io.ReadCloser
	end, close func()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end()
	}
	return n, err
}

func (b *body) Close() error {
	defer b.close()
	return b.ReadCloser.Close()
}

func (w *watch) sent() int { return len(w.headers()) }

func (w *watch) headers() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.auths)
}

func (w *watch) refusals() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, status := range w.statuses {
		if status == http.StatusUnauthorized {
			n++
		}
	}
	return n
}

// journal is a bytes.Buffer for many goroutines.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// text returns n bytes that differ from place to place.
func text(word string, n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(word)
		b.WriteByte(byte('a' + i%26))
		b.WriteByte(byte('a' + i/26%26))
		b.WriteByte(byte('a' + i/676%26))
	}
	return b.String()[:n]
}

// brief is how a value appears in a message.
func brief(value string) string {
	if len(value) > 40 {
		return value[:40] + "…"
	}
	return value
}
