//go:build !race

// Nothing leaked: one test that collects everything that the package prints,
// over logins and requests at which everything goes wrong, and looks for each
// secret in it. search_test.go is how it looks. Searching some megabytes of text is
// what takes the time, and none of the race detector's business.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/sealedstorage"
)

// The secrets that are not the auth server's to choose. Each has characters
// that an encoding would change.
const (
	secretClient   = `client s+cret/&"0k?=`
	secretPassword = `pass/w+rd <&> "'\ ü`
	secretQuery    = "query-s3cret/+"
	secretUser     = "userinfo-s3cret"
	secretHeader   = "caller's own k+y/9"
	secretUpload   = `{"card":"upload-5105+1051"}`
	secretAnswer   = `{"iban":"answer-DE89/3704"}`
	secretKey      = "0123456789abcdef+/secret-key-32b"
	secretOfBody   = "only in the auth server's b0dy/+"
)

// collector gathers what is printed. It is an io.Writer for slog's handlers.
type collector struct {
	mu      sync.Mutex
	text    bytes.Buffer
	secrets map[string]string // value -> what it is
	types   map[string]bool   // with the package, that were printed
	seen    map[string]bool   // errors that were printed
}

func newCollector() *collector {
	return &collector{types: make(map[string]bool), seen: make(map[string]bool), secrets: map[string]string{
		secretClient: "client secret", secretPassword: "password", secretQuery: "query value", secretUser: "user info",
		secretHeader: "header of the caller", secretUpload: "request body", secretAnswer: "response body",
		secretKey: "encryption key", secretOfBody: "body of the auth server",
	}}
}

func (c *collector) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *collector) logger() *slog.Logger {
	all := &slog.HandlerOptions{Level: slog.LevelDebug - 4, AddSource: true}
	return slog.New(slog.NewMultiHandler(slog.NewTextHandler(c, all), slog.NewJSONHandler(c, all)))
}

// print writes v in every verb, alone and in company, as JSON and through
// slog; of a pointer what it points to as well. Two verbs fmt doesn't let a
// type have a say in: %p of a value that is no pointer, and %w of one that is
// no error. go vet rejects both.
func (c *collector) print(v any) {
	if v == nil {
		return
	}
	rv := reflect.ValueOf(v)
	if err, ok := v.(error); ok && c.again(fmt.Sprintf("%T %s", err, err)) {
		return
	}
	forms := []any{v, []any{v}, map[string]any{"k": v}, struct{ V any }{v}}
	if rv.Kind() == reflect.Pointer && !rv.IsNil() {
		if rv = rv.Elem(); canCopy(rv.Type()) {
			forms = append(forms, rv.Interface())
		}
	}
	c.mu.Lock()
	c.types[rv.Type().String()] = true
	c.mu.Unlock()
	log := c.logger()
	for _, form := range forms {
		for _, verb := range strings.Fields("%v %+v %#v %s %q %d %x %X %t %e %c %U %T") {
			fmt.Fprintf(c, verb+"\n", form)
		}
		if text, err := json.Marshal(form); err == nil {
			c.Write(text)
		} else {
			fmt.Fprintln(c, err)
		}
		log.Error("value", "v", form, slog.Group("g", "v", form))
	}
	if err, ok := v.(error); ok {
		c.chain(err)
	}
}

// again reports whether the same was printed before.
func (c *collector) again(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.seen[text]
	c.seen[text] = true
	return was
}

// canCopy reports whether somebody may have a value of type t rather than a
// pointer: the type is exported and holds no lock.
func canCopy(t reflect.Type) bool {
	return ast.IsExported(t.Name()) && !strings.Contains(t.PkgPath(), "/internal/") &&
		!slices.Contains([]string{"AuthTransport", "Transport", "Pipeline", "MemoryStorage", "Storage"}, t.Name())
}

// chain prints all that is below an error.
func (c *collector) chain(err error) {
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		c.cause(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, below := range e.Unwrap() {
			c.cause(below)
		}
	}
}

// ours reports whether a type is the package's own, an internal one included.
func ours(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return strings.HasPrefix(t.PkgPath(), "github.com/requestforge/requestforge")
}

// cause prints an error that was found below another. Of one that isn't ours
// we have to answer for its words alone.
func (c *collector) cause(err error) {
	switch {
	case err == nil:
	case ours(reflect.TypeOf(err)):
		c.print(err)
	default:
		fmt.Fprintf(c, "%T %s\n", err, err)
		c.chain(err)
	}
}

// tokensOf makes secrets of the tokens in an answer of the auth server.
func (c *collector) tokensOf(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tok := range tokenForm.FindAllString(text, -1) {
		c.secrets[tok] = "token " + label(tok)
	}
}

// leaks returns what is found.
func (c *collector) leaks() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []string
	for _, f := range search(c.text.Bytes(), slices.Collect(maps.Keys(c.secrets))...) {
		found = append(found, fmt.Sprintf("%s, %s: %s", c.secrets[f.secret], f.form, f.where))
	}
	return found
}

func TestNothingIsLeaked(t *testing.T) {
	t.Parallel()
	c := newCollector()
	leakRun(t, c)
	if n := len(c.secrets); n < 20 {
		t.Errorf("there were %d secrets only", n)
	}
	for _, leak := range c.leaks() {
		t.Errorf("leaked: %s", leak)
	}
	for _, name := range exportedTypes(t) {
		if !c.types[name] {
			t.Errorf("no value of %s was printed", name)
		}
	}

	// All this can fail: one line that somebody forgot is found.
	for secret, what := range c.secrets {
		if !strings.HasPrefix(what, "token user-refresh-") {
			continue
		}
		c.text.Reset()
		c.logger().Debug("sent", "body", map[string]string{"refresh_token": secret})
		if leaks := c.leaks(); len(leaks) != 1 || !strings.HasPrefix(leaks[0], what) {
			t.Errorf("%s was leaked on purpose, and found was %q", what, leaks)
		}
		return
	}
	t.Error("there was no refresh token")
}

// exportedTypes are those of the package and of sealedstorage, but for interfaces
// and functions, which hold what somebody else has to print.
func exportedTypes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := filepath.Glob("../sealedstorage/*.go")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, sealed...)
	var names []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || !spec.Name.IsExported() {
				return true
			}
			switch spec.Type.(type) {
			case *ast.InterfaceType, *ast.FuncType:
			default:
				names = append(names, f.Name.Name+"."+spec.Name.Name)
			}
			return true
		})
	}
	if len(names) < 20 {
		t.Fatalf("only %q were found", names)
	}
	return names
}

// leakRun logs in, sends requests and meets faults, and prints whatever there
// is to print.
func leakRun(t *testing.T, c *collector) {
	t.Helper()
	sim := authtest.NewServer(authtest.Config{
		Cascade: true,
		Steps: []authtest.Step{{
			Name: "device", ClientID: "chaos", ClientSecret: secretClient,
		}, {
			Name: "app", Parents: map[string]string{"device": "X-Device-Token"}, TokenHeader: "X-App-Token",
			Form: map[string]string{"password": secretPassword},
		}, {
			Name: "user", Parents: map[string]string{"app": "Authorization"}, JSON: map[string]any{"password": secretPassword},
			TTL: time.Hour, RefreshTokens: true, Rotate: true,
			Extra: map[string]any{"id_token": secretOfBody},
		}},
		API: authtest.API{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.tokensOf(r.Header.Get("Authorization"))
			w.Header().Set("Set-Cookie", "session="+secretAnswer)
			io.WriteString(w, secretAnswer)
		})},
	})
	defer sim.Close()
	spy := &spy{c, sim.Client().Transport}
	defer sim.Client().CloseIdleConnections()
	steps := sim.Steps()
	for i := range steps {
		for _, f := range []requestforge.Fetcher{steps[i].Fetcher, steps[i].Refresh} {
			if f, ok := f.(*requestforge.HTTPFetcher); ok {
				f.Client = &http.Client{Transport: spy}
				f.Header = http.Header{"X-Api-Key": {secretHeader}}
			}
		}
		steps[i].OnError = func(_ context.Context, err error) { c.print(err) }
		steps[i].OnRotate = func(_ context.Context, tok *requestforge.Token) { c.print(tok) }
		c.print(steps[i])
		c.print(steps[i].Fetcher)
		c.print(steps[i].Refresh)
	}
	c.print(steps[0].Fetcher.(*requestforge.HTTPFetcher).ClientAuth)

	key := sealedstorage.Key{ID: "k1", Secret: []byte(secretKey)}
	encryption := sealedstorage.Config{Keys: []sealedstorage.Key{key}, Logger: c.logger()}
	memory := requestforge.NewMemoryStorage()
	sealed, err := sealedstorage.New(memory, encryption)
	if err != nil {
		t.Fatal(err)
	}
	plain := requestforge.NewMemoryStorage()
	for _, store := range []requestforge.Storage{plain, sealed} {
		keys := &saved{Storage: store}
		cfg := requestforge.PipelineConfig{
			Steps: steps, Storage: keys, Logger: c.logger(), KeyPrefix: "leaks",
			FetchTimeout: 500 * time.Millisecond, FetchRetries: -1, CoolDown: time.Microsecond, MaxCoolDown: time.Microsecond,
		}
		stack(t, c, sim, cfg)
		entries, err := store.Load(t.Context(), keys.all()...)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			c.print(e)
			c.print(e.Record)
			c.print(e.Record.Token)
		}
		c.print(store)
	}
	for _, v := range []any{key, encryption, memory, requestforge.Failure{StatusCode: 401, Code: "invalid_grant"}, requestforge.KeepCaller} {
		c.print(v)
	}
	mistakes(c)
}

// spy makes secrets of the tokens that an auth server gives out.
type spy struct {
	c    *collector
	base http.RoundTripper
}

func (s *spy) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := s.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	for _, values := range resp.Header {
		s.c.tokensOf(strings.Join(values, " "))
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	s.c.tokensOf(string(text))
	resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(text), failing{err}))
	return resp, nil
}

// opaque is a transport whose insides aren't ours to print.
type opaque func(*http.Request) (*http.Response, error)

func (f opaque) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// failing is the end of a body, good or bad.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

// stack sends requests through everything, meets each fault in each step, and
// prints what it is made of.
func stack(t *testing.T, c *collector, sim *authtest.Server, cfg requestforge.PipelineConfig) {
	t.Helper()
	tokens, err := requestforge.NewPipeline(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer tokens.Close()
	wire := &http.Transport{}
	defer wire.CloseIdleConnections()
	base := opaque(wire.RoundTrip)
	conf := requestforge.Config{
		Base: base, BaseURL: sim.URL, Source: tokens, Logger: c.logger(), LogHeaders: true,
		Retry: requestforge.ExponentialBackoff(1, time.Microsecond, time.Millisecond),
	}
	conf.AuthTrace = &requestforge.AuthTrace{
		Refused: func(_ *http.Request, info requestforge.RefusedInfo) { c.print(info) },
		Replayed: func(_ *http.Request, info requestforge.ReplayedInfo) {
			c.print(info)
			c.print(info.Reason)
		},
		GaveUp: func(_ *http.Request, info requestforge.GaveUpInfo) {
			c.print(info)
			c.print(info.Reason)
		},
	}
	c.print(conf.AuthTrace)
	transport, err := requestforge.NewTransport(conf)
	if err != nil {
		t.Fatal(err)
	}
	send := func(url string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(secretUpload))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Api-Key", secretHeader)
		req.Header.Set("Cookie", "session="+secretHeader)
		c.print(transport.Explain(req))
		resp, err := transport.RoundTrip(req)
		if err != nil {
			c.print(err)
			return
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	url := "/items?key=" + secretQuery + "#" + secretQuery
	send(url)
	tok, err := tokens.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.print(tok)
	c.print(requestforge.Input{Parents: map[string]*requestforge.Token{"user": tok}, Previous: tok})
	c.print(requestforge.StaticToken(tok))

	for _, step := range []string{"device", "app", "user"} {
		sim.Revoke(step)
		send(url)
		for _, fault := range faults() {
			if fault.Hang && step != "app" {
				continue // it takes its time, and is the same everywhere
			}
			sim.Fail(step, fault)
			if err := tokens.InvalidateAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			sim.RevokeRefresh("user")
			send(url)
			_, err := tokens.Refresh(t.Context())
			if c.print(err); err == nil && !fault.Reset { // a header is there before that
				t.Errorf("nobody has met %+v at step %s", fault, step)
			}
			sim.Fail(step)
		}
	}
	for _, fault := range []authtest.Fault{{Status: 500, Body: secretAnswer}, {Drop: true}, {Status: 401, Body: secretAnswer}} {
		fault.Times = 2
		sim.FailAPI(fault)
		send(url)
	}
	sim.FailAPI()
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	send(strings.Replace(down.URL, "//", "//somebody:"+secretUser+"@", 1) + url)
	send("//elsewhere" + url)
	send("http://plain.test" + url)
	sim.RefuseAll(true)
	for range 5 {
		send(url)
	}
	sim.RefuseAll(false)

	stats, state := tokens.Stats(), tokens.State(t.Context())
	layers := []any{
		cfg, conf, tokens, transport, stats, stats.Steps["user"], state, state.Steps[0], state.Steps[0].Status, conf.Retry,
		&requestforge.AuthTransport{Base: base, Source: tokens, Origins: []string{sim.URL}},
		&requestforge.AuthTransport{Base: base, Source: requestforge.StaticToken(tok), Origins: []string{sim.URL}},
		&requestforge.RetryTransport{Base: transport, Policy: conf.Retry},
		&requestforge.LoggingTransport{Base: transport, Logger: conf.Logger, Headers: true},
	}
	for _, l := range layers {
		c.print(l)
	}
	d := transport.Explain(&http.Request{})
	c.print(d.Reason)
	if _, err := tokens.Token(t.Context()); err != nil {
		t.Fatalf("the last token: %v", err)
	}
}

// faults are answers of an auth server with secrets wherever there is room.
func faults() []authtest.Fault {
	echo, _ := json.Marshal(map[string]string{"error": "invalid_request", "error_description": secretPassword + secretOfBody})
	odd, _ := json.Marshal(map[string]string{"error": secretOfBody, "error_uri": secretQuery})
	cut, _ := json.Marshal(map[string]any{"access_token": secretOfBody, "expires_in": secretPassword})
	bad, _ := json.Marshal(map[string]any{"access_token": secretOfBody + "\r\n", "token_type": secretOfBody})
	header := http.Header{
		"Www-Authenticate": {fmt.Sprintf("Bearer error=%q, error_description=%q", secretOfBody, secretOfBody)},
		"X-App-Token":      {secretOfBody + "\x7f"},
	}
	return []authtest.Fault{
		{Status: 400, Body: string(echo)},
		{Status: 401, Body: string(odd), Header: header},
		{Status: 403, Body: secretOfBody},
		{Status: 429, Body: string(odd)},
		{Status: 500, Body: secretOfBody, HTML: true},
		{Status: 200, Body: "<html>" + secretOfBody, ContentType: "text/html"},
		{Status: 200, Body: string(cut)},
		{Status: 200, Body: string(cut[:len(cut)/2])},
		{Status: 200, Body: string(bad), Header: header},
		{Status: 200, Body: `["` + secretOfBody + `"]`},
		{Status: 307, Header: http.Header{"Location": {"http://elsewhere.test/" + secretOfBody + "?k=" + secretQuery}}},
		{Status: 302, Header: http.Header{"Location": {"http://%zz" + secretQuery}}},
		{Drop: true}, {Reset: true}, {Hang: true},
	}
}

// says is a client whose every answer is body.
func says(body string) *http.Client {
	return &http.Client{Transport: answers(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{"Set-Cookie": {"sid=" + body}}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
	})}
}

type answers func(*http.Request) (*http.Response, error)

func (f answers) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answered is a Read that fails.
func answered(fail func() error) func(requestforge.Input, *http.Response, []byte) (*requestforge.Token, error) {
	return func(requestforge.Input, *http.Response, []byte) (*requestforge.Token, error) { return nil, fail() }
}

// mistakes prints the errors of configurations that have secrets where none
// should be, and of fetchers that misbehave.
func mistakes(c *collector) {
	withSecrets := "ftp://somebody:" + secretUser + "@auth.test:1x/p?key=" + secretQuery + "#" + secretQuery
	valid := "https://somebody:" + secretUser + "@auth.test/p?key=" + secretQuery
	for _, url := range []string{withSecrets, valid, "https://u%zz:" + secretUser + "@auth.test/p?key=" + secretQuery} {
		_, err := requestforge.NewTransport(requestforge.Config{
			BaseURL: url, Origins: []string{url}, ExcludedPaths: []string{"no slash"}, Attach: []requestforge.Place{{Header: "no header"}},
			Source: requestforge.StaticToken(&requestforge.Token{AccessToken: secretOfBody + "\n"}),
		})
		c.print(err)
		place := requestforge.Place{Header: "X-Api-Key", Text: secretHeader}
		c.print(place)
		c.print(requestforge.Config{BaseURL: url, Origins: []string{url}, Attach: []requestforge.Place{place}})
		for _, f := range []requestforge.Fetcher{
			&requestforge.HTTPFetcher{URL: url, Method: "G T", JSON: secretPassword, Form: map[string][]string{"p": {secretPassword}}},
			&requestforge.HTTPFetcher{URL: url, JSON: func() {}},
			&requestforge.HTTPFetcher{Origins: []string{url}, TokenCookie: "sid", URLFrom: func(requestforge.Input) (string, error) { return url, nil }},
			&requestforge.HTTPFetcher{URL: valid, Read: answered(func() error { return fmt.Errorf("it said %q", secretOfBody) }), Client: says(secretOfBody)},
			&requestforge.HTTPFetcher{URL: valid, TokenField: ".", Client: says("no " + secretOfBody)},
			&requestforge.HTTPFetcher{URL: valid, ExpiresAtField: "at", Client: says(`{"access_token": "` + secretOfBody + `", "at": "` + secretOfBody + `"}`)},
			&requestforge.HTTPFetcher{URL: valid, Client: says(secretOfBody), Classify: func(_ *http.Response, body []byte) *requestforge.AuthError {
				return &requestforge.AuthError{Code: secretOfBody, Err: errors.New(string(body))}
			}},
		} {
			_, err = requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{Name: "a", Fetcher: f}}})
			c.print(err)
			_, err = f.Fetch(context.Background(), requestforge.Input{})
			c.print(err)
			c.print(f)
		}
	}
	_, err := sealedstorage.New(requestforge.NewMemoryStorage(), sealedstorage.Config{
		Keys: []sealedstorage.Key{{ID: secretKey, Secret: []byte(secretKey)}, {ID: "k", Secret: []byte(secretKey[:20])}},
	})
	c.print(err)
	source := requestforge.StaticToken(&requestforge.Token{AccessToken: secretOfBody + "\n"})
	_, err = source.Token(context.Background())
	c.print(err)

	for _, fetch := range []requestforge.FetcherFunc{
		func(context.Context, requestforge.Input) (*requestforge.Token, error) { panic(secretPassword) },
		func(context.Context, requestforge.Input) (*requestforge.Token, error) {
			panic(errors.New(secretPassword))
		},
		func(context.Context, requestforge.Input) (*requestforge.Token, error) {
			return &requestforge.Token{AccessToken: secretOfBody + "\n"}, nil
		},
		func(context.Context, requestforge.Input) (*requestforge.Token, error) {
			return &requestforge.Token{AccessToken: "a", Extra: map[string]any{secretOfBody: func() {}}}, nil
		},
		func(context.Context, requestforge.Input) (*requestforge.Token, error) {
			return nil, &net.OpError{Op: "dial", Err: errors.New("nobody there")}
		},
	} {
		p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
			Steps: []requestforge.Step{{Name: "a", Fetcher: fetch}}, Logger: c.logger(), FetchRetries: -1,
		})
		c.print(err)
		_, err = p.Token(context.Background())
		c.print(err)
		c.print(p.Close())
	}
}

// saved is a storage that remembers the keys of what was saved.
type saved struct {
	requestforge.Storage
	keys sync.Map
}

func (s *saved) Unwrap() requestforge.Storage { return s.Storage }

func (s *saved) Save(ctx context.Context, key string, r requestforge.Record, seen uint64) (requestforge.Entry, error) {
	s.keys.Store(key, true)
	return s.Storage.Save(ctx, key, r, seen)
}

func (s *saved) all() (keys []string) {
	s.keys.Range(func(key, _ any) bool { keys = append(keys, key.(string)); return true })
	return keys
}
