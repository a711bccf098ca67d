// The configuration of a simulator, and the methods for tests. How a step grants a
// token is in server_grant.go, the API's checks in server_api.go, the places of
// tokens in requests in server_place.go, and the faults in server_fault.go.

package authtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"
)

// Config describes an auth server and the API behind the auth server. A Config may
// be reused, but must not be changed while a Simulator made from the Config is in
// use.
type Config struct {
	// Steps are the calls of the login, in any order. One step, the leaf, is no
	// other step's parent; the API accepts the leaf's token, unless API.Wants says
	// otherwise. Several leaves are allowed if API.Wants names all of them.
	Steps []Step

	// API is the API that accepts the tokens.
	API API

	// Cascade makes a revocation also revoke the tokens made from the revoked
	// token, and their refresh tokens. False means that such tokens stay alive, as
	// at many real servers. An expired parent never affects its children.
	Cascade bool

	// ClockOffset is how far the server's clock is ahead of the test's clock;
	// negative means behind. The offset shows in the Date header and in absolute
	// expiry times, but doesn't change how long tokens live.
	ClockOffset time.Duration

	// TLS makes NewServer serve https. Client returns a client that trusts the
	// Server's certificate. NewSimulator ignores TLS.
	TLS bool
}

// Step is a call of the login: a path that gives out tokens.
type Step struct {
	// Name identifies the step. Each token of the step begins with Name: "user-3-…"
	// is the third token of step user. So Name consists of letters, digits and
	// "-._~".
	Name string

	// Path is where the step answers. "" means "/" and the name.
	Path string

	// Method is the only method that the step accepts. "" means POST.
	Method string

	// Parents says which steps' tokens a request has to bring, and in
	// which header each of them travels. Authorization has the parent's
	// token type before the token, any other header has the bare token.
	Parents map[string]string

	// Wants are further values that a request has to bring: a parent's token
	// outside of headers, a Value of a parent, a key of the client. A step named in
	// Wants is a parent, as if Parents named the step. A refresh brings only the
	// texts.
	Wants []Place

	// ClientID and ClientSecret are the client's credentials (RFC 6749 §2.3.1). ""
	// for ClientID means that the client need not authenticate.
	ClientID     string
	ClientSecret string `json:"-"`

	// ClientAuth is the place of ClientID and ClientSecret.
	ClientAuth ClientAuthMethod

	// JSON holds the fields, with their values, that a JSON object in the request's
	// body must have; Form does the same for a form. At most one of JSON and Form
	// may be set. With neither, any body is accepted, or no body.
	JSON map[string]any    `json:"-"`
	Form map[string]string `json:"-"`

	// TokenHeader names the response header that holds the token, and TokenCookie
	// the cookie that the response sets to the token. At most one of both may be
	// set; with neither, the token is in the response's body. With either, the body
	// has no token type, and has an expiry only if ExpiryField is set.
	TokenHeader string
	TokenCookie string

	// Body is the format of the response's body.
	Body BodyFormat

	// TokenField, TypeField, RefreshField and ExpiryField name fields of the
	// response's body. A dot leads into an object or, before a number, into an
	// array: "data.0.token". "" means access_token, token_type, refresh_token, and
	// expires_in or expires_at; "-" for TypeField leaves the type out. In XML a
	// name is a path of elements from the root on, and in HTML the name of an
	// input, dots included; in both formats "" leaves the field out, except for
	// TokenField.
	TokenField   string
	TypeField    string
	RefreshField string
	ExpiryField  string

	// Extra holds more fields of the response's body.
	Extra map[string]any

	// Values are further values that each login gives out beside the token. Their
	// names are chosen by the test and follow the rules for Name. A Place wants a
	// Value by its name.
	Values map[string]Value

	// Instances are the places where the step's tokens are valid, as beginnings of
	// URLs: absolute ("https://eu.example.com") or a path on the simulator itself
	// ("/eu"). The response names an instance, as an absolute URL, in the field
	// InstanceField: the first instance, until Move names another. A request to the
	// API or to a step that brings a token to any other place is refused. A
	// Simulator's Transport serves every host, and a Server's Client reaches the
	// Server as example.com and *.example.com.
	Instances     []string
	InstanceField string

	// MaxSessions bounds the logins that are live at once, each with all tokens
	// refreshed from the login. A further login ends the oldest login, or gets 429
	// if KeepSessions is set. 0 means no bound.
	MaxSessions  int
	KeepSessions bool

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

	// Rotate makes a refresh token valid for a single use: the response has the
	// next refresh token. A second use of a refresh token revokes the whole family:
	// every access and refresh token that descends from the same login.
	Rotate bool

	// RenewPath makes the step's tokens leases. A POST to RenewPath with a live
	// token extends the token's life by another TTL. The token comes where the API
	// wants the step's token, or in Authorization if the API wants no token of the
	// step. The response looks like a login's response, with the same token. MaxTTL
	// bounds the life of a token from its login on, however often the token is
	// renewed; the response has the remaining life. 0 means no bound.
	RenewPath string
	MaxTTL    time.Duration

	// Refused answers in place of the default when a parent's token, or
	// what else the step Wants, is missing or dead. Nil means 401 with a
	// challenge (RFC 6750 §3) and an error object. See AnswerHandler.
	Refused http.Handler `json:"-"`

	// Denied answers in place of the default when the client, the fields
	// or the refresh token are wrong. Nil means 400 or 401 with an error
	// object (RFC 6749 §5.2).
	Denied http.Handler `json:"-"`
}

// String returns the step's name and path. A Step has secrets, so String prints no
// other fields.
func (s Step) String() string { return fmt.Sprintf("step %q at %s", s.Name, s.Path) }

// GoString returns String.
func (s Step) GoString() string { return s.String() }

// ClientAuthMethod is where a client's id and secret have to be.
type ClientAuthMethod int

// The ways to authenticate a client. A request that uses two ways at once is
// refused (RFC 6749 §2.3).
const (
	AnyClientAuth   ClientAuthMethod = iota // either of the following
	BasicClientAuth                         // HTTP Basic, both parts form-encoded
	BodyClientAuth                          // client_id and client_secret in the body
)

// BodyFormat is the format of the body of a response with a token.
type BodyFormat int

// The formats. Text and string have the token and nothing else.
const (
	JSONBody       BodyFormat = iota // an object
	TextBody                         // the token alone
	JSONStringBody                   // the token in quotes
	XMLBody                          // elements, with neither attributes nor namespaces
	HTMLBody                         // a page with a form, with the fields as hidden inputs
)

// ExpiryFormat is how a response says when its token expires. A token with no
// TTL never has an expiry.
type ExpiryFormat int

// The formats. Seconds are rounded down to whole seconds, except in ExpiresInFloat.
const (
	ExpiresInNumber  ExpiryFormat = iota // "expires_in": 900
	ExpiresInString                      // "expires_in": "900"
	ExpiresInFloat                       // "expires_in": 900.0
	ExpiresAtRFC3339                     // "expires_at": "2000-01-01T00:15:00Z"
	ExpiresAtUnix                        // "expires_at": 946685700
	ExpiryHidden                         // nothing
)

// API describes the paths that belong to no step.
type API struct {
	// Prefix is the beginning of the API's paths; any other path is not found. ""
	// means every path.
	Prefix string

	// Wants are the values that a request has to bring, all of them. Nil means the
	// leaf's token in Authorization, with the token's type. A step named in Wants
	// may be a further leaf, or a parent: two tokens of two steps need two places.
	Wants []Place

	// Signature is how each request has to be signed. Nil means not at all.
	Signature *Signature

	// Open are paths that need no token, and ignore a token.
	Open []string

	// InsufficientScope are paths that refuse every token: a live token gets 403
	// with error="insufficient_scope".
	InsufficientScope []string

	// Handler answers requests with a live token, and requests to open paths. Nil
	// means a handler that reads the body and answers with an Echo.
	Handler http.Handler

	// Refused answers requests whose token is missing, unknown, expired
	// or revoked. Nil means 401 with a challenge (RFC 6750 §3) and an
	// error object; either way the request's body is left unread, unless
	// a Field is among Wants. See AnswerHandler.
	Refused http.Handler
}

// Simulator is an auth server and the API behind the auth server, as an
// http.Handler. Many goroutines may use a Simulator at once. Methods with the name
// of a step as parameter panic if there is no such step.
type Simulator struct {
	// URL is the base URL of the Simulator: the listener's URL for a Server, or
	// "https://auth.test" without a listener, though the Transport serves any host.
	URL string

	cfg    Config
	steps  map[string]*step
	routes map[string]route
	leaf   *step    // nil: several, which API.Wants names
	wants  []*place // by the API
	client *http.Client

	mu        sync.Mutex // guards the fields below, and all tokens
	tokens    map[string]*token
	values    map[valueKey]*token
	nonces    map[string]bool
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
	wants   []*place        // Parents among them
	renews  []*place        // of a request that renews a token
	want    map[string]any  // required values of the request's fields
	extra   json.RawMessage // of the response
	issued  int             // access tokens so far; guarded by Simulator.mu
	renewed int             // refresh tokens so far; guarded by Simulator.mu

	expiry   bool      // the response says when the token expires
	instance string    // of the next login, an element of Instances; guarded by Simulator.mu
	sessions []*family // live sessions, oldest first, if sessions are counted; guarded by Simulator.mu
}

// route is what a path leads to.
type route struct {
	step    *step
	refresh bool // the path takes nothing but refresh tokens
	renew   bool // the path takes live tokens of the step
}

// NewSimulator returns a Simulator without a listener: use its Transport or Client,
// or serve the Simulator as a handler. NewSimulator panics if cfg makes no sense,
// with a message that names every mistake.
func NewSimulator(cfg Config) *Simulator {
	s := &Simulator{
		URL:    "https://auth.test",
		cfg:    cfg,
		steps:  make(map[string]*step),
		routes: make(map[string]route),
		tokens: make(map[string]*token),
		values: make(map[valueKey]*token),
		nonces: make(map[string]bool),
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
	cancel context.CancelFunc // ends the requests in progress
}

// NewServer starts a Server, which the caller closes. NewServer panics if cfg makes
// no sense or, like httptest, if listening fails.
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

// Close shuts the server down. Requests that hang or are held back end without an
// answer, so Close doesn't wait for them.
func (s *Server) Close() {
	s.cancel()
	s.srv.Close()
}

// Client returns a client that reaches the simulator: a Server's client trusts the
// Server's certificate, a Simulator's client uses the Transport.
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

// RevokeToken revokes an access or refresh token, and reports whether the token was
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
	var live []*token // collect first, then revoke: with Cascade a token may be another token's ancestor
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

// Move makes the step's tokens valid at instance from now on: the next login or
// refresh names instance, an element of the step's Instances. Older tokens stay
// valid at their instance until they are revoked. Move panics if the step has no
// such instance.
func (s *Simulator) Move(step, instance string) {
	st := s.step(step)
	if !slices.Contains(st.Instances, instance) {
		panic(fmt.Sprintf("authtest: step %q has no instance %q", step, instance))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.instance = instance
}

// RefuseAll makes the API refuse every token, like an API that is broken or trusts
// another auth server. RefuseAll(false) ends the refusals.
func (s *Simulator) RefuseAll(refuse bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuseAll = refuse
}

func (s *Simulator) String() string {
	return fmt.Sprintf("authtest simulator of %d steps at %s", len(s.steps), s.URL)
}

// GoString returns String, since tokens must not be printed.
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
