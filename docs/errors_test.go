// errors.md: each row is a run, and what its caller saw is what the page says.

package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	rf "github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// A situation is a row: what is wrong, the run, and what to change.
type situation struct {
	what   string
	run    func(w *world) seen
	change string
}

// seen is what the caller of a client got.
type seen struct {
	status int
	err    error
	word   string // what can't be seen in either
}

func (s seen) String() string {
	var text string
	switch {
	case s.err != nil:
		text = "`" + strings.ReplaceAll(strings.ReplaceAll(s.err.Error(), "\n", "`<br>`"), "|", `\|`) + "`"
		if auth, ok := errors.AsType[*rf.AuthError](s.err); ok {
			if auth.StatusCode == http.StatusTooManyRequests || auth.StatusCode == http.StatusServiceUnavailable {
				text = wait.ReplaceAllString(text, "next try in …")
			}
			text += "<br>an AuthError"
			if auth.Permanent {
				text += ", Permanent"
			}
		}
	case s.status != 0:
		text = fmt.Sprintf("the API's answer, %d %s", s.status, http.StatusText(s.status))
	}
	return strings.TrimSuffix(strings.TrimPrefix(text+"<br>"+s.word, "<br>"), "<br>")
}

// wait is how long a step waits. Where a Retry-After says so, the wait has a random part.
var wait = regexp.MustCompile(`next try in [0-9.hms]+`)

// world is an auth server, an API and a client of both, ready to be spoiled.
type world struct {
	t        *testing.T
	sim      *authtest.Simulator
	pipeline rf.PipelineConfig
	config   rf.Config
	ctx      context.Context
	tokens   *rf.Pipeline // once a request was sent
	client   *http.Client
}

func newWorld(t *testing.T) *world {
	return newWorldOf(t, authtest.Config{
		Steps: []authtest.Step{
			{Name: "app", ClientID: "shop", ClientSecret: "made-up", TTL: time.Hour},
			{Name: "user", Parents: map[string]string{"app": "X-App-Token"}, JSON: map[string]any{"password": "made-up"}, TTL: time.Hour},
		},
		API: authtest.API{Prefix: "/v1", InsufficientScope: []string{"/v1/admin"}},
	})
}

func newWorldOf(t *testing.T, cfg authtest.Config) *world {
	w := &world{t: t, sim: authtest.NewSimulator(cfg), ctx: t.Context()}
	w.pipeline = rf.PipelineConfig{Steps: w.sim.Steps()}
	w.config = rf.Config{Base: w.sim.Transport(), BaseURL: w.sim.URL + "/v1"}
	return w
}

// login is the fetcher of a step.
func (w *world) login(step int) *rf.HTTPFetcher {
	return w.pipeline.Steps[step].Fetcher.(*rf.HTTPFetcher)
}

// send sends a request, by the client that the configurations make.
func (w *world) send(method, url string, body io.Reader, change ...func(*http.Request)) seen {
	if w.client == nil {
		var err error
		if w.tokens, err = rf.NewPipeline(w.pipeline); err != nil {
			return seen{err: err, word: "from NewPipeline"}
		}
		w.config.Source = w.tokens
		transport, err := rf.NewTransport(w.config)
		if err != nil {
			return seen{err: err, word: "from NewTransport"}
		}
		w.client = &http.Client{Transport: transport}
	}
	req, err := http.NewRequestWithContext(w.ctx, method, url, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range change {
		f(req)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return seen{err: errors.Unwrap(err)} // below the *url.Error of http.Client
	}
	resp.Body.Close()
	return seen{status: resp.StatusCode}
}

func (w *world) get(path string) seen { return w.send(http.MethodGet, path, nil) }

// explained adds what Explain says of a request.
func (w *world) explained(s seen, url string) seen {
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	s.word = "Explain: " + string(w.client.Transport.(*rf.Transport).Explain(req).Reason)
	return s
}

// readAll sends a body to its end before the answer comes, as a network does.
type readAll struct{ next http.RoundTripper }

func (r readAll) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil {
		return r.next.RoundTrip(req)
	}
	defer req.Body.Close()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	out := req.Clone(req.Context())
	out.Body = io.NopCloser(bytes.NewReader(body))
	return r.next.RoundTrip(out)
}

// silent is a server that takes a request and says nothing for a minute, whatever becomes of
// the request's context: an end of both at one instant would be seen in two ways.
type silent struct{}

func (silent) RoundTrip(*http.Request) (*http.Response, error) {
	time.Sleep(time.Minute)
	return nil, io.ErrUnexpectedEOF
}

// onlyReader has no length, so that http.NewRequest can't set GetBody.
type onlyReader struct{ io.Reader }

type situations struct {
	title string
	rows  []situation
}

var allSituations = []situations{
	{"The auth server says no", []situation{
		{"A wrong client id or secret", func(w *world) seen {
			w.login(0).ClientAuth.Secret = "wrong"
			return w.get("/orders")
		}, "The secret, and start again. With `ClientAuth.SecretFrom` a corrected secret ends the cool-down, without a restart."},
		{"A wrong password", func(w *world) seen {
			w.login(1).JSON = map[string]any{"password": "wrong"}
			return w.get("/orders")
		}, "The password. A wrong one is sent once, so that no account is locked."},
		{"The same, asked again", func(w *world) seen {
			w.login(1).JSON = map[string]any{"password": "wrong"}
			w.get("/orders")
			time.Sleep(10 * time.Second)
			return w.get("/orders")
		}, "Nothing: the failure is remembered until the next try is due. `Pipeline.Refresh` asks now."},
		{"A scope that the client may not have", func(w *world) seen {
			w.sim.Fail("app", authtest.Fault{Status: 400, Body: `{"error":"invalid_scope"}`})
			return w.get("/orders")
		}, "The scope in the step's form, or what the client is registered for."},
		{"Too many logins", func(w *world) seen {
			w.sim.Fail("app", authtest.Fault{Status: 429, RetryAfter: 2 * time.Minute})
			return w.get("/orders")
		}, "Share tokens between processes by a [storage](storage.md); make one pipeline, not one a request."},
		{"The URL of a login is wrong", func(w *world) seen {
			w.login(0).URL = w.sim.URL + "/oauth/tokne"
			return w.get("/orders")
		}, "`HTTPFetcher.URL`."},
		{"A refusal in a 200, in the server's own words", func(w *world) seen {
			w.sim.Fail("app", authtest.Fault{Status: 200, Body: `{"error":"bad_verification_code"}`})
			return w.get("/orders")
		}, "`HTTPFetcher.Classify` reads the answer; `PipelineConfig.KeepAnswers` shows it."},
		{"A step's server never takes its parent's token", func(w *world) seen {
			w.sim.Fail("user", authtest.Fault{Status: 401, Body: "{}"})
			return w.get("/orders")
		}, "Where the parent's token goes: `HeaderFrom`, `BodyFrom`. The parent was fetched again once, in vain."},
		{"A refresh token that was revoked", func(w *world) seen {
			w = newWorldOf(w.t, authtest.Config{Steps: []authtest.Step{
				{Name: "user", RefreshTokens: true, TTL: time.Hour},
			}})
			w.get("/orders")
			w.sim.RevokeRefresh("user")
			time.Sleep(2 * time.Hour)
			return w.get("/orders")
		}, "Nothing: the step logs in from scratch."},
	}},
	{"The auth server can't be understood, or reached", []situation{
		{"It is down", func(w *world) seen {
			w.sim.Down(true)
			return w.get("/orders")
		}, "Nothing here. Live tokens go on being used; a retry layer (`Config.Retry`) waits for the next try."},
		{"It is overloaded", func(w *world) seen {
			w.sim.Fail("app", authtest.Fault{Status: 503, RetryAfter: 20 * time.Second})
			return w.get("/orders")
		}, "Nothing here: the server is left alone for as long as it asks for."},
		{"It doesn't answer", func(w *world) seen {
			w.login(0).Client = &http.Client{Transport: silent{}}
			return w.get("/orders")
		}, "`FetchTimeout`, or `Step.Timeout`, if the server needs longer."},
		{"A proxy answers with a page", func(w *world) seen {
			w.sim.Fail("app", authtest.Fault{Status: 200, HTML: true})
			return w.get("/orders")
		}, "The URL, or the proxy."},
		{"The token is in another field", func(w *world) seen {
			w.login(0).TokenField = "data.token"
			return w.get("/orders")
		}, "`TokenField`, `TokenHeader`, `TokenCookie` or `Read`."},
		{"It redirects to another host", func(w *world) seen {
			w.sim.Fail("app", authtest.Fault{Status: 307, Header: http.Header{"Location": {"https://elsewhere.example.com/app"}}})
			return w.get("/orders")
		}, "`HTTPFetcher.Origins`, if that host may have the credentials."},
		{"Its URL is plain http", func(w *world) seen {
			w.login(0).URL = "http://auth.example.com/app"
			return w.get("/orders")
		}, "https, or `HTTPFetcher.AllowPlaintext`."},
		{"The secret's file is missing", func(w *world) seen {
			w.login(0).ClientAuth = &rf.ClientAuth{ID: "shop", SecretFrom: rf.SecretFile("/run/secrets/none")}
			return w.get("/orders")
		}, "The mount. The file is read for each fetch."},
		{"A fetcher asks its own pipeline", func(w *world) seen {
			w.pipeline.Steps[0].Fetcher = rf.FetcherFunc(func(ctx context.Context, _ rf.Input) (*rf.Token, error) {
				return w.tokens.Token(ctx)
			})
			return w.get("/orders")
		}, "A client without the pipeline's layer in the fetcher; parents' tokens are in `Input.Parents`."},
	}},
	{"The API says no", []situation{
		{"The token was revoked", func(w *world) seen {
			w.get("/orders")
			w.sim.Revoke("user")
			return w.get("/orders")
		}, "Nothing: the token was replaced, and the request replayed."},
		{"It refuses every token", func(w *world) seen {
			w.sim.RefuseAll(true)
			return w.get("/orders")
		}, "Whom the token is meant for (audience, resource), and where it goes: `Attach`. The request's log record has `gave_up`."},
		{"It says 403 for a revoked token", func(w *world) seen {
			w.get("/orders")
			w.sim.FailAPI(authtest.Fault{Status: 403, Body: "{}"})
			return w.get("/orders")
		}, "`RefusedStatus: []int{403}`, or `Refused` if only the body tells."},
		{"It wants more scope", func(w *world) seen { return w.get("/admin") },
			"The scope of the login, or `Step.AnswersChallenges`."},
		{"An upload was refused that can't be sent again", func(w *world) seen {
			w.config.Base = readAll{w.config.Base}
			w.get("/orders")
			w.sim.Revoke("user")
			return w.send(http.MethodPut, "/upload", onlyReader{strings.NewReader(strings.Repeat("x", 100<<10))})
		}, "`Request.GetBody`, or a larger `MaxReplayBody`. The next request has a new token."},
		{"It is down", func(w *world) seen {
			w.config.Retry = rf.ExponentialBackoff(3, time.Second, time.Minute)
			w.sim.FailAPI(authtest.Fault{Status: 503})
			return w.get("/orders")
		}, "Nothing here: the answer of the last retry."},
		{"A POST met a 500", func(w *world) seen {
			w.config.Retry = rf.ExponentialBackoff(3, time.Second, time.Minute)
			w.sim.FailAPI(authtest.Fault{Status: 500, Times: 1})
			return w.send(http.MethodPost, "/orders", strings.NewReader("{}"))
		}, "An `Idempotency-Key`, `RetryPolicy.Undone` or `RetryNonIdempotent`, if a second POST does no harm."},
	}},
	{"No token goes on the request", []situation{
		{"The URL is another host's", func(w *world) seen {
			w.get("/orders")
			return w.explained(w.get("https://elsewhere.example.com/orders"), "https://elsewhere.example.com/orders")
		}, "`Origins`, if that host may have the token."},
		{"The path is excluded", func(w *world) seen {
			w.config.ExcludedPaths = []string{"/orders"}
			return w.explained(w.get("/orders"), "/orders")
		}, "`ExcludedPaths`."},
		{"The caller, or an SDK, has set the header", func(w *world) seen {
			s := w.send(http.MethodGet, "/orders", nil, func(r *http.Request) { r.Header.Set("Authorization", "Bearer mine") })
			s.word = "Explain: " + string(rf.ReasonConflict)
			return s
		}, "`OnConflict: ReplaceCaller`."},
		{"The API's URL is plain http", func(w *world) seen {
			w.config.BaseURL = "http://api.example.com"
			return w.get("/orders")
		}, "https, or `AllowPlaintext`."},
		{"The base URL would be left", func(w *world) seen { return w.get("//evil.example.com/orders") },
			"One slash, or a whole URL."},
		{"The context has no user", func(w *world) seen {
			w.pipeline.Subject = func(context.Context) (string, error) { return "", nil }
			w.pipeline.Steps[1].PerSubject = true
			return w.get("/orders")
		}, "The program's middleware, which puts the user into the context."},
	}},
	{"The login needs something else", []situation{
		{"A person has to type a code", func(w *world) seen {
			w.pipeline.Steps[1].Fetcher = rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				return nil, rf.ErrNeedsPerson
			})
			return w.get("/orders")
		}, "Show the person the login; see [scopes and step-up](recipes/README.md#scopes-and-step-up)."},
		{"The storage is down", func(w *world) seen {
			w.pipeline.Storage, w.pipeline.KeyPrefix = deadStorage{}, "shop"
			s := w.get("/orders")
			s.word = fmt.Sprintf("Stats: StorageErrors %t", w.tokens.Stats().StorageErrors > 0)
			return s
		}, "Nothing here: the processes log in on their own until the storage is back."},
		{"The pipeline was closed", func(w *world) seen {
			w.get("/orders")
			w.tokens.Close()
			w.sim.Revoke("user")
			return w.get("/orders")
		}, "`Close` at the end of the program only; the pipeline works on, without its background."},
	}},
	{"Time is up", []situation{
		{"The caller's deadline passes during a login", func(w *world) seen {
			w.sim.Fail("app", authtest.Fault{Delay: 5 * time.Second})
			ctx, cancel := context.WithTimeout(w.ctx, time.Second)
			defer cancel()
			w.ctx = ctx
			return w.get("/orders")
		}, "A longer deadline. The login goes on, and the next caller has its token."},
	}},
	{"The configuration is wrong", []situation{
		{"Steps depend on each other in a circle", func(w *world) seen {
			w.pipeline.Steps[0].DependsOn = []string{"user"}
			return w.get("/orders")
		}, "`DependsOn`."},
		{"A parent is misspelt, and no token goes anywhere", func(w *world) seen {
			w.pipeline.Steps[1].DependsOn = []string{"ap"}
			return w.get("/orders")
		}, "`DependsOn`. All mistakes are in one error."},
		{"Two steps are nobody's parent", func(w *world) seen {
			w.pipeline.Steps[1].DependsOn, w.login(1).HeaderFrom = nil, nil
			return w.get("/orders")
		}, "`PipelineConfig.Leaf`, or `Pipeline.Source` for each."},
		{"A shared storage without a prefix", func(w *world) seen {
			w.pipeline.Storage = shared{rf.NewMemoryStorage()}
			return w.get("/orders")
		}, "`KeyPrefix`: a name for the program."},
		{"The base URL isn't absolute", func(w *world) seen {
			w.config.BaseURL = "api.example.com"
			return w.get("/orders")
		}, "`BaseURL`, with https://."},
		{"An auth layer over itself", func(w *world) seen {
			before := http.DefaultTransport
			defer func() { http.DefaultTransport = before }()
			http.DefaultTransport = &rf.AuthTransport{Source: rf.StaticToken(&rf.Token{AccessToken: "made-up"}), Origins: []string{"https://api.example.com"}}
			_, err := http.Get("https://api.example.com/")
			return seen{err: errors.Unwrap(err)}
		}, "`Base`, with the transport of before."},
	}},
}

// deadStorage can't be reached.
type deadStorage struct{ rf.Storage }

func (deadStorage) Load(context.Context, ...string) ([]rf.Entry, error) {
	return nil, errors.New("connection refused")
}

func (deadStorage) Save(context.Context, string, rf.Record, uint64) (rf.Entry, error) {
	return rf.Entry{}, errors.New("connection refused")
}

// shared is a storage that others may use.
type shared struct{ rf.Storage }

func TestErrorsPage(t *testing.T) {
	var b strings.Builder
	for _, part := range allSituations {
		fmt.Fprintf(&b, "## %s\n\n| situation | what the caller sees | what to change |\n|---|---|---|\n", part.title)
		for _, row := range part.rows {
			var got seen
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				got = row.run(w)
				if w.tokens != nil {
					w.tokens.Close()
				}
				time.Sleep(2 * time.Minute) // fetches that were left behind end
			})
			if got == (seen{}) {
				t.Errorf("%s: nothing was seen", row.what)
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", row.what, got, row.change)
		}
		b.WriteString("\n")
	}
	show(t, "errors.md", "table", b.String())
}
