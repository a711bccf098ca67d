// What a test configures and steers: the simulator's front. How a step grants
// a token is in server_grant.go, what the API accepts in server_api.go, and
// what goes wrong on request in server_fault.go.

package authtest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config describes an auth server and the API behind it. It may be reused,
// but not changed while a Simulator made from it is in use.
type Config struct {
	// Steps are the calls of the login, in any order. Exactly one of
	// them, the leaf, is nobody's parent; the API accepts its token.
	Steps []Step

	// API is what the leaf's token opens.
	API API

	// Cascade makes a revocation reach the tokens that were made from the
	// revoked one, their refresh tokens included. False: they live on, as
	// they do at many real servers. An expired parent never harms its
	// children.
	Cascade bool

	// ClockOffset is how far the server's clock is ahead of the test's,
	// negative if it is behind. It shows in the Date header and in
	// absolute expiry times; tokens live as long as they should all the
	// same.
	ClockOffset time.Duration

	// TLS makes NewServer speak https. The client that trusts it is the
	// one that Client returns. NewSimulator ignores it.
	TLS bool
}

// Step is one call of the login: a path that gives out tokens.
type Step struct {
	// Name identifies the step. Its tokens begin with it ("user-3-…" is
	// the third one), so it is made of letters, digits and "-._~".
	Name string

	// Path is where the step answers. "" means "/" and the name.
	Path string

	// Method is the one method that it answers to. "" means POST.
	Method string

	// Parents says which steps' tokens a request has to bring, and in
	// which header each of them travels. Authorization has the parent's
	// token type before the token, any other header has the bare token.
	Parents map[string]string

	// ClientID and ClientSecret are how the client authenticates itself
	// (RFC 6749 §2.3.1). "" for ClientID means that it needn't.
	ClientID     string
	ClientSecret string `json:"-"`

	// ClientAuth is where they have to be.
	ClientAuth ClientAuthMethod

	// JSON holds fields that a JSON object in the request's body must
	// have, with these values; Form does the same for a form. At most one
	// of them may be set. If neither is, any body will do, or none.
	JSON map[string]any    `json:"-"`
	Form map[string]string `json:"-"`

	// TokenHeader names the response header that the token comes in.
	// "" means that it is in the response's body.
	TokenHeader string

	// TokenField, TypeField, RefreshField and ExpiryField name fields of
	// the response's body. A dot leads into an object or, before a
	// number, into an array: "data.0.token". "" means access_token,
	// token_type, refresh_token, and expires_in or expires_at.
	TokenField   string
	TypeField    string
	RefreshField string
	ExpiryField  string

	// Extra holds more fields of the response's body.
	Extra map[string]any

	// Status is the status of a response with a token. 0 means 200.
	Status int

	// TokenType is the type of the tokens. "" means Bearer.
	TokenType string

	// TTL is how long a token lives. 0 means for ever. Whether the
	// response says so is up to Expiry.
	TTL    time.Duration
	Expiry ExpiryFormat

	// RefreshTokens adds a refresh token to each response. It is redeemed
	// at RefreshPath (RFC 6749 §6), in a form or a JSON object as the step
	// itself is asked; "" means the step's own path. No parent is asked
	// for then. A path of its own answers to POST, and takes a request
	// without a grant_type too.
	RefreshTokens bool
	RefreshPath   string

	// RefreshTTL is how long a refresh token lives. 0 means for ever.
	RefreshTTL time.Duration

	// Rotate makes a refresh token good for one use: the response has the
	// next one. One that comes a second time kills its whole family: every
	// access and refresh token that goes back to the same login.
	Rotate bool

	// Refused answers in place of the default when a parent's token is
	// missing or dead. Nil means 401 with a challenge (RFC 6750 §3) and
	// an error object.
	Refused http.Handler `json:"-"`
}

// String returns the step's name and path. A step has secrets, so that it
// isn't printed field by field.
func (s Step) String() string { return fmt.Sprintf("step %q at %s", s.Name, s.Path) }

// GoString returns what String does.
func (s Step) GoString() string { return s.String() }

// ClientAuthMethod is where a client's id and secret have to be.
type ClientAuthMethod int

// The ways to authenticate a client. A request that uses two at once is
// refused, as RFC 6749 §2.3 has it.
const (
	AnyClientAuth   ClientAuthMethod = iota // either of the following
	BasicClientAuth                         // HTTP Basic, both parts form-encoded
	BodyClientAuth                          // client_id and client_secret in the body
)

// ExpiryFormat is how a response says when its token expires. A token with no
// TTL never has an expiry.
type ExpiryFormat int

// The formats. Seconds are whole ones, rounded down, but for ExpiresInFloat.
const (
	ExpiresInNumber  ExpiryFormat = iota // "expires_in": 900
	ExpiresInString                      // "expires_in": "900"
	ExpiresInFloat                       // "expires_in": 900.0
	ExpiresAtRFC3339                     // "expires_at": "2000-01-01T00:15:00Z"
	ExpiresAtUnix                        // "expires_at": 946685700
	ExpiryHidden                         // nothing
)

// API describes the paths that no step has taken.
type API struct {
	// Prefix is what their paths begin with; what doesn't is not found.
	// "" means every path.
	Prefix string

	// Header is the request header that the token comes in. "" means
	// Authorization, where the leaf's token type goes before it; any
	// other header has the bare token.
	Header string

	// Open are paths that need no token, and don't look at one.
	Open []string

	// InsufficientScope are paths that no token is good enough for: a
	// live one gets 403 with error="insufficient_scope".
	InsufficientScope []string

	// Handler answers requests with a live token, and those to open
	// paths. Nil means one that reads the body and answers with an Echo.
	Handler http.Handler

	// Refused answers requests whose token is missing, unknown, expired
	// or revoked. Nil means 401 with a challenge (RFC 6750 §3) and an
	// error object; either way the request's body is left unread.
	Refused http.Handler
}

// Simulator is an auth server and the API behind it, as an http.Handler. It
// may be used by many goroutines at once. Its methods that take the name of a
// step panic if there is no such step.
type Simulator struct {
	// URL is where it is found: the listener's URL for a Server; for one
	// that only has a Transport "https://auth.test", though the Transport
	// serves any host.
	URL string

	cfg    Config
	steps  map[string]*step
	routes map[string]route
	leaf   *step
	client *http.Client

	mu        sync.Mutex // guards what follows, and all tokens
	tokens    map[string]*token
	stats     Stats // Live and LiveRefresh aside
	events    []Event
	faults    map[*step][]Fault // the API's under nil
	down      bool
	refuseAll bool
	gate      *Gate // nil: refusals aren't held
}

// step is a Step with its defaults filled in.
type step struct {
	Step
	parents []string        // names, sorted
	want    map[string]any  // what the request's fields must be
	extra   json.RawMessage // of the response
	issued  int             // access tokens so far; guarded by Simulator.mu
	renewed int             // refresh tokens so far; guarded by Simulator.mu
}

// route is what a path leads to.
type route struct {
	step    *step
	refresh bool // the path takes nothing but refresh tokens
}

// NewSimulator returns a Simulator without a listener: use its Transport or
// Client, or serve it as a handler. It panics if cfg makes no sense, with a
// message that names every mistake.
func NewSimulator(cfg Config) *Simulator {
	s := &Simulator{
		URL:    "https://auth.test",
		cfg:    cfg,
		steps:  make(map[string]*step),
		routes: make(map[string]route),
		tokens: make(map[string]*token),
		faults: make(map[*step][]Fault),
		stats:  Stats{Steps: make(map[string]StepStats), Paths: make(map[string]int)},
	}
	if err := s.compile(); err != nil {
		panic("authtest: " + err.Error())
	}
	s.client = &http.Client{Transport: s.Transport()}
	return s
}

// Server is a Simulator that listens on loopback.
type Server struct {
	*Simulator

	srv    *httptest.Server
	cancel context.CancelFunc // ends the requests that are being served
}

// NewServer starts a Server, which the caller closes. It panics if cfg makes
// no sense or, as httptest does, if it can't listen.
func NewServer(cfg Config) *Server {
	s := &Server{Simulator: NewSimulator(cfg)}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	s.srv = httptest.NewUnstartedServer(s.Simulator)
	s.srv.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	if cfg.TLS {
		s.srv.StartTLS()
	} else {
		s.srv.Start()
	}
	s.URL = s.srv.URL
	s.client = s.srv.Client()
	return s
}

// Close shuts the server down. Requests that hang or are held back end
// without an answer, so that it never waits for them.
func (s *Server) Close() {
	s.cancel()
	s.srv.Close()
}

// Client returns a client that reaches the simulator: a Server's trusts its
// certificate, a Simulator's uses its Transport.
func (s *Simulator) Client() *http.Client { return s.client }

// ServeHTTP answers as the auth server or as the API, by the request's path.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	if at, ok := s.routes[r.URL.Path]; ok {
		s.serveStep(w, r, at)
		return
	}
	s.serveAPI(w, r)
}

// Revoke revokes every live access token of a step, and returns how many they
// were. Refresh tokens stay; see RevokeRefresh.
func (s *Simulator) Revoke(step string) int {
	return s.each(step, false, func(t *token) { t.revoked = true })
}

// RevokeRefresh revokes every live refresh token of a step, and returns how
// many they were.
func (s *Simulator) RevokeRefresh(step string) int {
	return s.each(step, true, func(t *token) { t.revoked = true })
}

// Expire makes every live access token of a step expire now, and returns how
// many they were.
func (s *Simulator) Expire(step string) int {
	now := time.Now()
	return s.each(step, false, func(t *token) { t.expires = now })
}

// RevokeToken revokes one access or refresh token, and reports whether it was
// live.
func (s *Simulator) RevokeToken(value string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[value]
	if t == nil || s.dead(t, time.Now()) != "" {
		return false
	}
	t.revoked = true
	return true
}

// each calls do for the live tokens of a step.
func (s *Simulator) each(name string, refresh bool, do func(*token)) int {
	st := s.step(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var live []*token // first all, then do: with Cascade one may be another's ancestor
	for _, t := range s.tokens {
		if t.step == st && t.refresh == refresh && s.dead(t, now) == "" {
			live = append(live, t)
		}
	}
	for _, t := range live {
		do(t)
	}
	return len(live)
}

// RefuseAll makes the API refuse every token, as one that is broken or that
// trusts another auth server would; false ends that.
func (s *Simulator) RefuseAll(refuse bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuseAll = refuse
}

func (s *Simulator) String() string {
	return fmt.Sprintf("authtest simulator of %d steps at %s", len(s.steps), s.URL)
}

// GoString returns what String does: tokens aren't for printing.
func (s *Simulator) GoString() string { return s.String() }

func (s *Simulator) step(name string) *step {
	st := s.steps[name]
	if st == nil {
		panic(fmt.Sprintf("authtest: no step %q", name))
	}
	return st
}

// now is the time by the server's clock.
func (s *Simulator) now() time.Time { return time.Now().Add(s.cfg.ClockOffset) }

// compile checks the configuration and fills in its defaults.
func (s *Simulator) compile() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if len(s.cfg.Steps) == 0 {
		fail("no steps")
	}
	for _, conf := range s.cfg.Steps {
		st, err := compileStep(conf)
		if err != nil {
			errs = append(errs, err)
		}
		if s.steps[st.Name] != nil {
			fail("step %q: there are two of that name", st.Name)
		}
		s.steps[st.Name] = st
		s.stats.Steps[st.Name] = StepStats{}
		for path, at := range st.routes() {
			if other, ok := s.routes[path]; ok {
				fail("step %q: path %s is taken by step %q", st.Name, path, other.step.Name)
			}
			s.routes[path] = at
		}
	}
	if err := s.compileGraph(); err != nil {
		errs = append(errs, err)
	}
	if p := s.cfg.API.Prefix; p != "" && p[0] != '/' {
		fail("API: prefix %q doesn't begin with a slash", p)
	}
	return errors.Join(errs...)
}

func compileStep(conf Step) (*step, error) {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("step %q: "+format, append([]any{conf.Name}, args...)...))
	}

	st := &step{Step: conf, parents: slices.Sorted(maps.Keys(conf.Parents))}
	if st.Name == "" || strings.Trim(st.Name, tokenChars) != "" {
		fail("the name needs to be letters, digits and -._~")
	}
	st.Path = cmp.Or(st.Path, "/"+st.Name)
	st.Method = cmp.Or(st.Method, http.MethodPost)
	st.TokenType = cmp.Or(st.TokenType, "Bearer")
	st.Status = cmp.Or(st.Status, http.StatusOK)
	st.TokenField = cmp.Or(st.TokenField, "access_token")
	st.TypeField = cmp.Or(st.TypeField, "token_type")
	st.RefreshField = cmp.Or(st.RefreshField, "refresh_token")
	st.ExpiryField = cmp.Or(st.ExpiryField, "expires_in")
	if conf.ExpiryField == "" && (st.Expiry == ExpiresAtRFC3339 || st.Expiry == ExpiresAtUnix) {
		st.ExpiryField = "expires_at"
	}
	if st.RefreshTokens {
		st.RefreshPath = cmp.Or(st.RefreshPath, st.Path)
	}

	for _, path := range []string{st.Path, cmp.Or(st.RefreshPath, "/")} {
		if path[0] != '/' {
			fail("path %q doesn't begin with a slash", path)
		}
	}
	if st.Status < 200 || st.Status > 299 {
		fail("status %d isn't one of success", st.Status)
	}
	if st.TTL < 0 || st.RefreshTTL < 0 {
		fail("a negative TTL")
	}
	if st.TTL > 0 && st.TTL < time.Second && (st.Expiry == ExpiresInNumber || st.Expiry == ExpiresInString) && st.TokenHeader == "" {
		fail("a TTL of %v can't be told in whole seconds; set Expiry", st.TTL)
	}
	if st.Expiry < ExpiresInNumber || st.Expiry > ExpiryHidden {
		fail("no such ExpiryFormat: %d", st.Expiry)
	}
	if st.ClientAuth < AnyClientAuth || st.ClientAuth > BodyClientAuth {
		fail("no such ClientAuthMethod: %d", st.ClientAuth)
	}
	if st.ClientID == "" && st.ClientSecret != "" {
		fail("a client secret without an id")
	}
	if !st.RefreshTokens && (st.Rotate || st.RefreshPath != "" || st.RefreshTTL != 0) {
		fail("Rotate, RefreshPath and RefreshTTL need RefreshTokens")
	}
	if st.RefreshTokens && st.TokenHeader != "" {
		fail("a refresh token has no place in a response whose token is in a header")
	}
	headers := make(map[string]string)
	for _, parent := range st.parents {
		header := http.CanonicalHeaderKey(conf.Parents[parent])
		switch other, taken := headers[header]; {
		case header == "":
			fail("no header for the token of parent %q", parent)
		case taken:
			fail("parents %q and %q share the header %s", other, parent, header)
		}
		headers[header] = parent
	}
	if st.ClientID != "" && st.ClientAuth == BasicClientAuth && headers["Authorization"] != "" {
		fail("HTTP Basic and parent %q both want the Authorization header", headers["Authorization"])
	}
	for _, field := range []string{st.TokenField, st.TypeField, st.RefreshField, st.ExpiryField} {
		for part := range strings.SplitSeq(field, ".") {
			if i, err := strconv.Atoi(part); part == "" || err == nil && (i < 0 || i > maxIndex) {
				fail("field %q can't be reached", field)
			}
		}
	}
	if err := st.compileFields(); err != nil {
		fail("%w", err)
	}
	return st, errors.Join(errs...)
}

// maxIndex bounds the arrays that a field name like "data.0.token" makes.
const maxIndex = 99

// tokenChars are those of a token that need no quoting anywhere (RFC 3986
// calls them unreserved).
const tokenChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"

// compileFields brings the wanted fields into the form that a request's
// fields are decoded to.
func (st *step) compileFields() error {
	if st.JSON != nil && st.Form != nil {
		return errors.New("both JSON and Form are set")
	}
	if st.JSON != nil {
		b, err := json.Marshal(st.JSON)
		if err != nil {
			// Without err: it may quote a value.
			return errors.New("JSON can't be encoded")
		}
		if st.want, err = decodeObject(b); err != nil {
			return errors.New("JSON can't be decoded again")
		}
	}
	if st.Form != nil {
		st.want = make(map[string]any, len(st.Form))
		for k, v := range st.Form {
			st.want[k] = v
		}
	}
	if st.RefreshTokens && st.RefreshPath == st.Path && st.want["grant_type"] == grantRefresh {
		return errors.New("a login by refresh token needs a RefreshPath, to be told from a refresh")
	}
	extra, err := json.Marshal(st.Extra)
	if err != nil {
		return errors.New("Extra can't be encoded")
	}
	if st.Extra != nil {
		st.extra = extra
	}
	return nil
}

// routes are the paths that lead to the step.
func (st *step) routes() map[string]route {
	m := map[string]route{st.Path: {step: st}}
	if st.RefreshTokens && st.RefreshPath != st.Path {
		m[st.RefreshPath] = route{step: st, refresh: true}
	}
	return m
}

// compileGraph finds the leaf.
func (s *Simulator) compileGraph() error {
	var errs []error
	isParent := make(map[string]bool)
	for _, conf := range s.cfg.Steps {
		for _, parent := range slices.Sorted(maps.Keys(conf.Parents)) {
			if s.steps[parent] == nil {
				errs = append(errs, fmt.Errorf("step %q: unknown parent %q", conf.Name, parent))
			}
			isParent[parent] = true
		}
	}
	var leaves []string
	for _, conf := range s.cfg.Steps {
		if !isParent[conf.Name] {
			leaves = append(leaves, strconv.Quote(conf.Name))
			s.leaf = s.steps[conf.Name]
		}
	}
	if len(leaves) > 1 {
		errs = append(errs, fmt.Errorf("more than one leaf: %s", strings.Join(leaves, ", ")))
	}

	// Take away steps whose parents are all gone, until none is left, or
	// only a cycle and what hangs on it.
	left := maps.Clone(s.steps)
	for range s.steps {
		maps.DeleteFunc(left, func(_ string, st *step) bool {
			return !slices.ContainsFunc(st.parents, func(p string) bool { return left[p] != nil })
		})
	}
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("a cycle among the steps %q", slices.Sorted(maps.Keys(left))))
	}
	return errors.Join(errs...)
}
