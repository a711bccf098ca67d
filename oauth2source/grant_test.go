package oauth2source_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
)

// endpoint is a token endpoint that notes what it is asked.
type endpoint struct {
	*httptest.Server
	mu     sync.Mutex
	forms  []url.Values
	header []http.Header
	answer func(n int, form url.Values) (status int, body string) // n: 1 for the first; nil: token-n
}

func newEndpoint(t *testing.T, answer func(n int, form url.Values) (int, string)) *endpoint {
	e := &endpoint{answer: answer}
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forms = append(e.forms, form)
	e.header = append(e.header, r.Header)
	n := len(e.forms)
	status, text := 200, fmt.Sprintf(`{"access_token":"token-%d","token_type":"bearer","expires_in":3600,"scope":"granted","other":7}`, n)
	if e.answer != nil {
		status, text = e.answer(n, form)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, text)
}

// last is the latest request: its form and its Authorization.
func (e *endpoint) last() (form url.Values, authorization string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.forms) == 0 {
		return nil, ""
	}
	return e.forms[len(e.forms)-1], e.header[len(e.header)-1].Get("Authorization")
}

func (e *endpoint) requests() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.forms)
}

func bearer(value string) *requestforge.Token { return &requestforge.Token{AccessToken: value} }

func TestGrantOnTheWire(t *testing.T) {
	e := newEndpoint(t, nil)
	cfg := oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "app:1", Secret: "p ss"}, Scopes: []string{"read", "write"}}
	with := func(change func(*oauth2source.Config)) oauth2source.Config {
		cfg := cfg
		change(&cfg)
		return cfg
	}
	const basic = "Basic YXBwJTNBMTpwK3Nz" // app%3A1:p+ss
	in := requestforge.Input{
		Parents:  map[string]*requestforge.Token{"app": bearer("app-token"), "bot": bearer("bot-token")},
		Previous: &requestforge.Token{AccessToken: "old", RefreshToken: "refresh-1"},
	}
	literal := oauth2source.AssertionFunc(func(_ context.Context, in requestforge.Input) (string, error) {
		return "by-func-for-" + in.Parents["app"].AccessToken, nil
	})
	for _, tt := range []struct {
		name  string
		grant *oauth2source.Grant
		auth  string
		form  url.Values
	}{
		{"client credentials", oauth2source.ClientCredentials(cfg), basic,
			url.Values{"grant_type": {"client_credentials"}, "scope": {"read write"}}},
		{"in the form", oauth2source.ClientCredentials(with(func(c *oauth2source.Config) {
			c.ClientAuth = &requestforge.ClientAuth{ID: "app:1", Secret: "p ss", InBody: true}
		})), "",
			url.Values{"grant_type": {"client_credentials"}, "scope": {"read write"}, "client_id": {"app:1"}, "client_secret": {"p ss"}}},
		{"without a secret", oauth2source.ClientCredentials(with(func(c *oauth2source.Config) { c.ClientAuth = &requestforge.ClientAuth{ID: "app:1"} })), "",
			url.Values{"grant_type": {"client_credentials"}, "scope": {"read write"}, "client_id": {"app:1"}}},
		{"further parameters", oauth2source.ClientCredentials(with(func(c *oauth2source.Config) {
			c.Scopes, c.Params = nil, url.Values{"audience": {"a"}, "resource": {"https://b", "https://c"}}
		})), basic,
			url.Values{"grant_type": {"client_credentials"}, "audience": {"a"}, "resource": {"https://b", "https://c"}}},
		{"somebody else's client assertion", oauth2source.ClientCredentials(with(func(c *oauth2source.Config) {
			c.ClientAuth, c.ClientAssertion = &requestforge.ClientAuth{ID: "app:1"}, literal
		})), "",
			url.Values{"grant_type": {"client_credentials"}, "scope": {"read write"}, "client_id": {"app:1"},
				"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {"by-func-for-app-token"}}},
		{"password", oauth2source.Password(cfg, "gopher", "b&w="), basic,
			url.Values{"grant_type": {"password"}, "scope": {"read write"}, "username": {"gopher"}, "password": {"b&w="}}},
		{"refresh asks for no scope", oauth2source.Refresh(cfg), basic,
			url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"refresh-1"}}},
		{"assertion of a parent", oauth2source.JWTBearer(cfg, oauth2source.FromStep("app")), basic,
			url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "scope": {"read write"}, "assertion": {"app-token"}}},
		{"assertion without a client", oauth2source.JWTBearer(oauth2source.Config{TokenURL: e.URL}, literal), "",
			url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {"by-func-for-app-token"}}},
		{"exchange", oauth2source.TokenExchange(cfg, oauth2source.Exchange{Subject: oauth2source.FromStep("app")}), basic,
			url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "scope": {"read write"},
				"subject_token": {"app-token"}, "subject_token_type": {oauth2source.AccessTokenType}}},
		{"exchange with everything", oauth2source.TokenExchange(with(func(c *oauth2source.Config) { c.Params = url.Values{"audience": {"z"}} }), oauth2source.Exchange{
			Subject: literal, SubjectType: oauth2source.IDTokenType,
			Actor: oauth2source.FromStep("bot"), ActorType: oauth2source.JWTType,
			RequestedType: oauth2source.RefreshTokenType,
			Audience:      []string{"x", "y"}, Resource: []string{"https://r"},
		}), basic,
			url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "scope": {"read write"},
				"subject_token": {"by-func-for-app-token"}, "subject_token_type": {oauth2source.IDTokenType},
				"actor_token": {"bot-token"}, "actor_token_type": {oauth2source.JWTType},
				"requested_token_type": {oauth2source.RefreshTokenType},
				"audience":             {"x", "y", "z"}, "resource": {"https://r"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.grant.Validate(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second is not to remember anything of the first
				before := e.requests()
				tok, err := tt.grant.Fetch(t.Context(), in)
				if err != nil {
					t.Fatal(err)
				}
				if n := e.requests(); n != before+1 || tok.AccessToken != fmt.Sprint("token-", n) {
					t.Errorf("%d requests for one token, %s", n-before, tok.AccessToken)
				}
				form, auth := e.last()
				if !reflect.DeepEqual(form, tt.form) {
					t.Errorf("form:\n got %v\nwant %v", form, tt.form)
				}
				if auth != tt.auth {
					t.Errorf("Authorization: got %q, want %q", auth, tt.auth)
				}
			}
		})
	}
}

func TestGrantBringsAllOfTheToken(t *testing.T) {
	e := newEndpoint(t, func(int, url.Values) (int, string) {
		return 200, `{"access_token":"a","token_type":"DPoP","refresh_token":"r","expires_in":60,
			"scope":"s","id_token":"i","issued_token_type":"t","tenant":"x","other":"y"}`
	})
	cfg := oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "app"}, Extra: []string{"tenant", "missing"}}
	before := time.Now()
	tok, err := oauth2source.ClientCredentials(cfg).Fetch(t.Context(), requestforge.Input{})
	if err != nil {
		t.Fatal(err)
	}
	if tok.AccessToken != "a" || tok.TokenType != "DPoP" || tok.RefreshToken != "r" || tok.Expiry.Before(before.Add(time.Minute)) {
		t.Errorf("got %q, %q, %q, %v", tok.AccessToken, tok.TokenType, tok.RefreshToken, tok.Expiry)
	}
	if want := map[string]any{"scope": "s", "id_token": "i", "issued_token_type": "t", "tenant": "x"}; !reflect.DeepEqual(tok.Extra, want) {
		t.Errorf("extra: got %v, want %v", tok.Extra, want)
	}
	if got := e.header[0].Get("Accept"); got != "application/json" {
		t.Errorf("Accept: %q", got)
	}
}

func TestGrantMistakesAreErrors(t *testing.T) {
	good := oauth2source.Config{TokenURL: "https://auth.example.com/token", ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: secret}}
	cfg := func(change func(*oauth2source.Config)) *oauth2source.Grant {
		cfg := good
		change(&cfg)
		return oauth2source.ClientCredentials(cfg)
	}
	prompt := func(context.Context, *oauth2.DeviceAuthResponse) error { return nil }
	const device = "https://auth.example.com/device"
	for name, tt := range map[string]struct {
		grant *oauth2source.Grant
		want  []string
	}{
		"zero":                {new(oauth2source.Grant), []string{"no constructor"}},
		"nil":                 {nil, []string{"no constructor"}},
		"nothing":             {oauth2source.ClientCredentials(oauth2source.Config{}), []string{"ClientCredentials: Config.TokenURL is missing", "ClientCredentials: Config.ClientAuth is missing"}},
		"relative URL":        {cfg(func(c *oauth2source.Config) { c.TokenURL = "/token" }), []string{`Config.TokenURL "/token" is not an absolute`}},
		"URL with a secret":   {cfg(func(c *oauth2source.Config) { c.TokenURL = "https://%zz:" + secret + "@" }), []string{"Config.TokenURL doesn't parse"}},
		"another scheme":      {cfg(func(c *oauth2source.Config) { c.TokenURL = "ftp://u:" + secret + "@h/token" }), []string{`ftp://REDACTED@h/token`}},
		"LocalHost":           {cfg(func(c *oauth2source.Config) { c.TokenURL = "http://LocalHost/token" }), []string{"localhost in lower case"}},
		"plain http":          {cfg(func(c *oauth2source.Config) { c.TokenURL = "http://auth.example.com/?k=" + secret }), []string{"plain http to another machine"}},
		"secret without id":   {cfg(func(c *oauth2source.Config) { c.ClientAuth = &requestforge.ClientAuth{Secret: secret} }), []string{"Config.ClientAuth.ID is missing"}},
		"parameter of ours":   {cfg(func(c *oauth2source.Config) { c.Params = url.Values{"scope": {secret}, "aud": {"x"}} }), []string{`Config.Params has "scope"`}},
		"scopes in one":       {cfg(func(c *oauth2source.Config) { c.Scopes = []string{"read write"} }), []string{"Config.Scopes has one"}},
		"empty scope":         {cfg(func(c *oauth2source.Config) { c.Scopes = []string{""} }), []string{"Config.Scopes has one"}},
		"two ways to say who": {cfg(func(c *oauth2source.Config) { c.ClientAssertion = oauth2source.FromStep("x") }), []string{"in one way"}},
		"nil func": {cfg(func(c *oauth2source.Config) {
			c.ClientAuth, c.ClientAssertion = &requestforge.ClientAuth{ID: "app"}, oauth2source.AssertionFunc(nil)
		}), []string{"Config.ClientAssertion: the AssertionFunc is nil"}},
		"no user":               {oauth2source.Password(good, "", ""), []string{"Password: username is missing", "Password: password is missing"}},
		"no assertion":          {oauth2source.JWTBearer(good, nil), []string{"JWTBearer: assertion is missing"}},
		"no step":               {oauth2source.JWTBearer(good, oauth2source.FromStep("")), []string{"assertion: FromStep names no step"}},
		"no key":                {oauth2source.JWTBearer(good, &oauth2source.JWT{}), []string{"assertion: JWT: Key is missing"}},
		"no subject":            {oauth2source.TokenExchange(good, oauth2source.Exchange{ActorType: "x"}), []string{"Exchange.Subject is missing", "ActorType is set without an Actor"}},
		"nil actor":             {oauth2source.TokenExchange(good, oauth2source.Exchange{Subject: oauth2source.FromStep("a"), Actor: (*oauth2source.JWT)(nil)}), []string{"Exchange.Actor: nil *JWT"}},
		"no prompt, no device":  {oauth2source.DeviceCode(oauth2source.Config{TokenURL: device}, "", nil), []string{"Config.ClientAuth is missing", "authURL is missing", "prompt is nil"}},
		"plain http for device": {oauth2source.DeviceCode(good, "http://auth.example.com/", prompt), []string{"authURL", "plain http"}},
		"two values for device": {oauth2source.DeviceCode(oauth2source.Config{TokenURL: device, ClientAuth: &requestforge.ClientAuth{ID: "app"}, Params: url.Values{"resource": {"a", "b"}}}, device, prompt), []string{`several values of "resource"`}},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.grant.Validate()
			_, fetched := tt.grant.Fetch(t.Context(), requestforge.Input{})
			auth, ok := errors.AsType[*requestforge.AuthError](fetched)
			if err == nil || !ok || !auth.Permanent {
				t.Fatalf("Validate: %v; Fetch: %v; want mistakes, permanent ones", err, fetched)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) || !strings.Contains(fetched.Error(), want) {
					t.Errorf("got %q and %q, want both to say %q", err, fetched, want)
				}
			}
			noSecret(t, fetched)
		})
	}
	plain := good
	plain.TokenURL, plain.AllowPlaintext = "http://auth.example.com/token", true
	if err := oauth2source.ClientCredentials(plain).Validate(); err != nil {
		t.Errorf("AllowPlaintext: %v", err)
	}
}

func TestGrantWithoutItsInputSendsNothing(t *testing.T) {
	e := newEndpoint(t, nil)
	cfg := oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "app"}}
	broken := errors.New("no such file")
	for name, tt := range map[string]struct {
		grant *oauth2source.Grant
		want  string
	}{
		"no previous token": {oauth2source.Refresh(cfg), "there is no refresh token"},
		"no such parent":    {oauth2source.TokenExchange(cfg, oauth2source.Exchange{Subject: oauth2source.FromStep("app")}), `subject_token: there is no token of step "app"; is it in DependsOn?`},
		"assertion that fails": {oauth2source.JWTBearer(cfg, oauth2source.AssertionFunc(func(context.Context, requestforge.Input) (string, error) {
			return "", broken
		})), "assertion: no such file"},
		"assertion that is empty": {oauth2source.JWTBearer(cfg, oauth2source.AssertionFunc(func(context.Context, requestforge.Input) (string, error) {
			return "", nil
		})), "assertion: it is empty"},
	} {
		_, err := tt.grant.Fetch(t.Context(), requestforge.Input{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		if name == "assertion that fails" && !errors.Is(err, broken) {
			t.Errorf("%v doesn't lead to its cause", err)
		}
	}
	if n := e.requests(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestGrantRefusalsBecomeAuthErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		status      int
		contentType string
		header      [2]string
		body        string
		want        requestforge.AuthError
	}{
		"wrong secret":           {401, "application/json", [2]string{}, `{"error":"invalid_client","error_description":"not hunter2"}`, requestforge.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true}},
		"wrong password":         {400, "application/json", [2]string{}, `{"error":"invalid_grant"}`, requestforge.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}},
		"refusal with status OK": {200, "application/json", [2]string{}, `{"error":"access_denied"}`, requestforge.AuthError{StatusCode: 200, Code: "access_denied", Permanent: true}},
		"code in the challenge":  {401, "text/plain", [2]string{"WWW-Authenticate", `Bearer error="invalid_token", error_description="hunter2"`}, "", requestforge.AuthError{StatusCode: 401, Code: "invalid_token"}},
		"a code of its own":      {400, "application/json", [2]string{}, `{"error":"hunter2"}`, requestforge.AuthError{StatusCode: 400}},
		"too many requests":      {429, "application/json", [2]string{"Retry-After", "7"}, `{"you sent":"hunter2"}`, requestforge.AuthError{StatusCode: 429, RetryAfter: 7 * time.Second}},
		"a broken server":        {503, "text/html", [2]string{}, `<html>hunter2</html>`, requestforge.AuthError{StatusCode: 503}},
		"a captive portal":       {200, "text/html; charset=utf-8", [2]string{}, `<html>hunter2</html>`, requestforge.AuthError{StatusCode: 200}},
		"a portal in disguise":   {200, "application/json", [2]string{}, "\xef\xbb\xbf \n<html>hunter2</html>", requestforge.AuthError{StatusCode: 200}},
		"no token":               {200, "application/json", [2]string{}, `{"acces_token":"hunter2"}`, requestforge.AuthError{StatusCode: 200}},
		"no JSON":                {200, "application/json", [2]string{}, `hunter2`, requestforge.AuthError{StatusCode: 200}},
		"JSON of another type":   {200, "application/json", [2]string{}, `{"access_token":"x","expires_in":"hunter2"}`, requestforge.AuthError{StatusCode: 200}},
		"no end":                 {200, "application/json", [2]string{}, `{"hunter2":"` + strings.Repeat("x", 1<<20) + `"}`, requestforge.AuthError{StatusCode: 200}},
	} {
		t.Run(name, func(t *testing.T) {
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				requests++
				w.Header().Set("Content-Type", tt.contentType)
				w.Header().Set(tt.header[0], tt.header[1])
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			}))
			defer server.Close()
			cfg := oauth2source.Config{TokenURL: server.URL + "/token?key=" + secret, ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: secret}}
			tok, err := oauth2source.Password(cfg, "gopher", secret).Fetch(t.Context(), requestforge.Input{})
			got, ok := err.(*requestforge.AuthError)
			if !ok {
				t.Fatalf("got %v, %v; want an *AuthError", tok, err)
			}
			if got.StatusCode != tt.want.StatusCode || got.Code != tt.want.Code || got.Permanent != tt.want.Permanent || got.RetryAfter != tt.want.RetryAfter {
				t.Errorf("got status %d, code %q, permanent %v, retry after %v; want %d, %q, %v, %v",
					got.StatusCode, got.Code, got.Permanent, got.RetryAfter,
					tt.want.StatusCode, tt.want.Code, tt.want.Permanent, tt.want.RetryAfter)
			}
			if !strings.Contains(err.Error(), server.URL+"/token?key=REDACTED") {
				t.Errorf("%v doesn't say which endpoint", err)
			}
			if requests != 1 {
				t.Errorf("the credentials were sent %d times", requests)
			}
			noSecret(t, err)
		})
	}
}

// JSON is what parses as JSON, whatever its label.
func TestGrantTakesJSONThatIsLabelledAsHTML(t *testing.T) {
	for label, body := range map[string]string{
		"text/html": `{"access_token":"token"}`, "text/html; charset=utf-8": "\n" + `{"access_token":"token"}`,
		"application/xhtml+xml": `{"access_token":"token"}`,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", label)
			io.WriteString(w, body)
		}))
		tok, err := oauth2source.ClientCredentials(oauth2source.Config{TokenURL: server.URL, ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: "s"}}).Fetch(t.Context(), requestforge.Input{})
		server.Close()
		if err != nil || tok.AccessToken != "token" {
			t.Errorf("%s: %v, %v", label, tok, err)
		}
	}
}

// What a pipeline does about a failure depends on what it can tell of it.
func TestGrantFailuresArePipelineFailures(t *testing.T) {
	token := `{"access_token":"token","refresh_token":"refresh","expires_in":3600}`
	for name, tt := range map[string]struct {
		first   func(w http.ResponseWriter)
		want    int    // requests for a token from scratch
		refresh string // and those of a renewal, and the next one if that fails
	}{
		"a page stays": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>please wait</html>")
		}, 1, "refresh_token, refresh_token"},
		"an untitled page stays": {func(w http.ResponseWriter) {
			io.WriteString(w, "\xef\xbb\xbf<!-- x -->\n<!DOCTYPE HTML>")
		}, 1, "refresh_token, refresh_token"},
		"XML stays": {func(w http.ResponseWriter) {
			w.WriteHeader(400)
			io.WriteString(w, "<?xml version='1.0'?><fault/>")
		}, 1, "refresh_token client_credentials"},
		"a page with 400 may be a firewall's": {func(w http.ResponseWriter) {
			w.WriteHeader(400)
			io.WriteString(w, "<?xml version='1.0'?><html/>")
		}, 1, "refresh_token, refresh_token"},
		"a redirect that drops the form stays": {func(w http.ResponseWriter) {
			w.Header().Set("Location", "/")
			w.WriteHeader(302)
		}, 1, "refresh_token, refresh_token"},
		"a break passes": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"access_token":"tok`)
		}, 2, "refresh_token, refresh_token"},
		"a broken server passes": {func(w http.ResponseWriter) { w.WriteHeader(503) }, 2, "refresh_token refresh_token"},
		"a refusal stays":        {func(w http.ResponseWriter) { w.WriteHeader(400) }, 1, "refresh_token client_credentials"},
		"nonsense stays":         {func(w http.ResponseWriter) { io.WriteString(w, "{") }, 1, "refresh_token, refresh_token"},
	} {
		t.Run(name, func(t *testing.T) {
			var grants []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				grants = append(grants, r.FormValue("grant_type"))
				if len(grants) == 1 {
					tt.first(w)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				io.WriteString(w, token)
			}))
			defer server.Close()
			cfg := oauth2source.Config{TokenURL: server.URL, ClientAuth: &requestforge.ClientAuth{ID: "app"}}
			step := requestforge.Step{Name: "app", Fetcher: oauth2source.ClientCredentials(cfg), Refresh: oauth2source.Refresh(cfg)}

			_, err := newPipeline(t, step).Token(t.Context())
			if len(grants) != tt.want || (err == nil) != (tt.want == 2) {
				t.Errorf("%d requests, %v; want %d", len(grants), err, tt.want)
			}

			// The same with a refresh token: nothing but a refusal costs that.
			p := newPipeline(t, step)
			grants = []string{"the login is not to fail"}
			if _, err := p.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			grants = nil
			asked := ""
			for range 2 {
				_, err := p.Refresh(t.Context())
				asked += strings.Join(grants[len(strings.Fields(asked)):], " ")
				if err == nil {
					break
				}
				asked += ", "
			}
			if asked != tt.refresh {
				t.Errorf("the server was asked for %q, want %q", asked, tt.refresh)
			}
		})
	}
}

func TestRefreshKeepsTheOldRefreshToken(t *testing.T) {
	e := newEndpoint(t, func(n int, form url.Values) (int, string) {
		if n == 1 {
			return 200, `{"access_token":"a","refresh_token":"r-1","expires_in":3600}`
		}
		return 200, `{"access_token":"b","expires_in":3600}`
	})
	cfg := oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "app"}}
	p := newPipeline(t, requestforge.Step{Name: "user", Fetcher: oauth2source.Password(cfg, "gopher", "x"), Refresh: oauth2source.Refresh(cfg)})
	for range 4 {
		if _, err := p.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i, form := range e.forms[1:] {
		if form.Get("refresh_token") != "r-1" {
			t.Errorf("refresh %d: %v, want r-1", i+1, form)
		}
	}
}

func TestGrantRefusalBlamesTheParentWhoseTokenTravelled(t *testing.T) {
	exchange := func(cfg oauth2source.Config) *oauth2source.Grant {
		return oauth2source.TokenExchange(cfg, oauth2source.Exchange{Subject: oauth2source.FromStep("app")})
	}
	assertion := func(cfg oauth2source.Config) *oauth2source.Grant {
		return oauth2source.JWTBearer(cfg, oauth2source.FromStep("app"))
	}
	own := func(cfg oauth2source.Config) *oauth2source.Grant {
		return oauth2source.JWTBearer(cfg, &oauth2source.JWT{Key: testKeys().ed25519})
	}
	for name, tt := range map[string]struct {
		grant  func(oauth2source.Config) *oauth2source.Grant
		status int
		code   string
		blamed bool
	}{
		"401":                                    {exchange, 401, "", true},
		"403 invalid_token":                      {exchange, 403, "invalid_token", true},
		"as RFC 8693 has it":                     {exchange, 400, "invalid_request", true},
		"by the code, whatever the status":       {exchange, 401, "invalid_request", true},
		"401 invalid_client":                     {exchange, 401, "invalid_client", false},
		"invalid_grant":                          {exchange, 400, "invalid_grant", false},
		"invalid_target":                         {exchange, 400, "invalid_target", false},
		"503":                                    {exchange, 503, "", false},
		"an assertion, as RFC 7521 has it":       {assertion, 400, "invalid_grant", true},
		"an assertion's invalid_client":          {assertion, 401, "invalid_client", false},
		"an assertion that no parent's token is": {own, 400, "invalid_grant", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a young parent's token is tried for three seconds before the next one
			apps := newEndpoint(t, func(n int, _ url.Values) (int, string) {
				return 200, fmt.Sprintf(`{"access_token":"app-%d","expires_in":3600}`, n)
			})
			users := newEndpoint(t, func(n int, form url.Values) (int, string) {
				if token := form.Get("subject_token") + form.Get("assertion"); token == "app-1" || !strings.HasPrefix(token, "app-") {
					return tt.status, fmt.Sprintf(`{"error":%q}`, tt.code)
				}
				return 200, fmt.Sprintf(`{"access_token":"user-%d","expires_in":3600}`, n)
			})
			p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
				FetchRetries: -1,
				Steps: []requestforge.Step{
					{Name: "app", Fetcher: oauth2source.ClientCredentials(oauth2source.Config{TokenURL: apps.URL, ClientAuth: &requestforge.ClientAuth{ID: "app"}})},
					{Name: "user", DependsOn: []string{"app"}, Fetcher: tt.grant(oauth2source.Config{TokenURL: users.URL, ClientAuth: &requestforge.ClientAuth{ID: "app"}})},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			tok, err := p.Token(t.Context())
			if tt.blamed {
				if err != nil || tok.AccessToken != "user-6" || apps.requests() != 2 {
					t.Errorf("got %v, %v after %d app tokens; want a second one to help", tok, err, apps.requests())
				}
				return
			}
			auth, _ := errors.AsType[*requestforge.AuthError](err)
			if auth == nil || auth.StatusCode != tt.status || auth.Code != tt.code || apps.requests() != 1 || users.requests() != 1 {
				t.Errorf("got %v, %v after %d app tokens and %d requests; want the refusal, and one of each", tok, err, apps.requests(), users.requests())
			}
		})
	}
}

// A step that is refused for another reason, by the code that means a bad
// token, costs the tries with a young parent's token, one with another, and no more.
func TestGrantBlamesInVainOnlyOnce(t *testing.T) {
	apps := newEndpoint(t, nil)
	users := newEndpoint(t, func(int, url.Values) (int, string) { return 400, `{"error":"invalid_request"}` })
	p := newPipeline(t,
		requestforge.Step{Name: "app", Fetcher: oauth2source.ClientCredentials(oauth2source.Config{TokenURL: apps.URL, ClientAuth: &requestforge.ClientAuth{ID: "app"}})},
		requestforge.Step{Name: "user", DependsOn: []string{"app"}, Fetcher: oauth2source.TokenExchange(oauth2source.Config{TokenURL: users.URL, ClientAuth: &requestforge.ClientAuth{ID: "app"}},
			oauth2source.Exchange{Subject: oauth2source.FromStep("app")})},
	)
	for range 3 {
		_, err := p.Token(t.Context())
		auth, _ := errors.AsType[*requestforge.AuthError](err)
		if auth == nil || auth.Code != "invalid_request" || auth.StatusCode != 400 || auth.Permanent {
			t.Errorf("got %v, want a 400 with invalid_request, not permanent", err)
		}
	}
	if apps.requests() != 2 || users.requests() != 6 {
		t.Errorf("%d app tokens and %d requests for the user's; want 2 and 6", apps.requests(), users.requests())
	}

	// Where no parent's token travelled, the refusal stays what it is.
	_, err := oauth2source.TokenExchange(oauth2source.Config{TokenURL: users.URL}, oauth2source.Exchange{
		Subject: &oauth2source.JWT{Key: testKeys().ed25519, Issuer: "i"},
	}).Fetch(t.Context(), requestforge.Input{})
	if auth, ok := err.(*requestforge.AuthError); !ok || auth.StatusCode != 400 || !auth.Permanent || auth.ParentRefused {
		t.Errorf("without parents: got %v, want a permanent 400", err)
	}
}

func TestGrantFollowsRedirectsWithinTheOriginOnly(t *testing.T) {
	elsewhere := newEndpoint(t, nil)
	mux := http.NewServeMux()
	home := httptest.NewServer(mux)
	defer home.Close()
	mux.Handle("/away", http.RedirectHandler(elsewhere.URL+"/"+secret+"?"+secret, http.StatusTemporaryRedirect))
	mux.Handle("/near", http.RedirectHandler("/token", http.StatusPermanentRedirect))
	for _, status := range []int{301, 302, 303} {
		mux.Handle(fmt.Sprint("/get", status), http.RedirectHandler("/token", status))
	}
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusTemporaryRedirect))
	var form url.Values
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		form = r.PostForm
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"near"}`)
	})
	fetch := func(path string, client *http.Client) (*requestforge.Token, error) {
		cfg := oauth2source.Config{TokenURL: home.URL + path, ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: secret}, Client: client}
		return oauth2source.ClientCredentials(cfg).Fetch(t.Context(), requestforge.Input{})
	}

	if tok, err := fetch("/near", nil); err != nil || tok.AccessToken != "near" || form.Get("grant_type") != "client_credentials" {
		t.Errorf("within the origin: %v, %v, %v", tok, err, form)
	}
	_, err := fetch("/away", nil)
	if auth, ok := err.(*requestforge.AuthError); !ok || auth.StatusCode != 307 || !strings.Contains(err.Error(), "redirect to another origin not followed") {
		t.Errorf("to another origin: %v", err)
	}
	noSecret(t, err)
	if n := elsewhere.requests(); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
	if _, err := fetch("/loop", nil); err == nil || !strings.Contains(err.Error(), "stopped after 10 redirects") {
		t.Errorf("in a circle: %v", err)
	}
	for _, status := range []int{301, 302, 303} {
		_, err := fetch(fmt.Sprint("/get", status), nil)
		if auth, ok := err.(*requestforge.AuthError); !ok || auth.StatusCode != status || !strings.Contains(err.Error(), "turns the POST into a GET") {
			t.Errorf("%d, which drops the form: %v", status, err)
		}
	}
	refused := errors.New("no redirects at all")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return refused }}
	if _, err := fetch("/near", client); !errors.Is(err, refused) {
		t.Errorf("got %v, want the client's own CheckRedirect to be asked", err)
	}
}

// A grant over plain http, allowed on this machine, goes to no proxy, and along a
// redirect to no other spelling of localhost, which net/http sends to a proxy.
func TestGrantSendsNothingInTheClearToAProxy(t *testing.T) {
	var sent []string
	base := roundTrip(func(r *http.Request) (*http.Response, error) {
		sent = append(sent, r.URL.Host)
		return answered(r, 307, "", "Location", "http://LocalHost:1/token"), nil
	})
	cfg := oauth2source.Config{TokenURL: "http://localhost:1/token", ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: secret}, Client: &http.Client{Transport: base}}
	_, err := oauth2source.ClientCredentials(cfg).Fetch(t.Context(), requestforge.Input{})
	if err == nil || !strings.Contains(err.Error(), "not sent over plain http") || len(sent) != 1 {
		t.Errorf("along a redirect: %v, sent to %q", err, sent)
	}
	noSecret(t, err)

	proxy := newEndpoint(t, nil)
	to, _ := url.Parse(proxy.URL)
	cfg.Client = &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(to)}}
	if _, err = oauth2source.ClientCredentials(cfg).Fetch(t.Context(), requestforge.Input{}); err == nil || !strings.Contains(err.Error(), "not sent over plain http") {
		t.Errorf("through a proxy: %v", err)
	}
	if n := proxy.requests(); n != 0 {
		t.Errorf("the proxy had %d requests", n)
	}
}

// What a mock may answer: no body, no header, nothing at all.
func TestGrantTakesTheBareAnswersOfMocks(t *testing.T) {
	for name, resp := range map[string]*http.Response{"200": {StatusCode: 200}, "401": {StatusCode: 401}, "302": {StatusCode: 302}, "nothing": nil} {
		client := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return resp, nil })}
		cfg := oauth2source.Config{TokenURL: "https://auth.test/token", ClientAuth: &requestforge.ClientAuth{ID: "app"}, Client: client}
		if tok, err := oauth2source.ClientCredentials(cfg).Fetch(t.Context(), requestforge.Input{}); err == nil {
			t.Errorf("%s: %v", name, tok)
		}
	}
}

func TestGrantSendsThroughTheClientItIsGiven(t *testing.T) {
	e := newEndpoint(t, nil)
	var used string
	client := func(name string) *http.Client {
		return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			used = name
			return http.DefaultTransport.RoundTrip(r)
		})}
	}
	cfg := oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "app"}}
	within := context.WithValue(t.Context(), oauth2.HTTPClient, client("the context's"))
	fetch := func(ctx context.Context, cfg oauth2source.Config) string {
		used = "the default"
		if _, err := oauth2source.ClientCredentials(cfg).Fetch(ctx, requestforge.Input{}); err != nil {
			t.Fatal(err)
		}
		return used
	}
	if got := fetch(t.Context(), cfg); got != "the default" {
		t.Errorf("nothing given: sent through %s", got)
	}
	if got := fetch(within, cfg); got != "the context's" {
		t.Errorf("one in the context: sent through %s", got)
	}
	cfg.Client = client("the Config's")
	if got := fetch(within, cfg); got != "the Config's" {
		t.Errorf("both: sent through %s", got)
	}
}

func TestGrantEndsWithItsContextAndItsClientsTimeout(t *testing.T) {
	release := make(chan struct{})
	arrived := make(chan struct{}, 2)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	cfg := oauth2source.Config{TokenURL: server.URL, ClientAuth: &requestforge.ClientAuth{ID: "app"}}
	prompt := func(context.Context, *oauth2.DeviceAuthResponse) error { return nil }
	for name, grant := range map[string]func(oauth2source.Config) *oauth2source.Grant{
		"one request": oauth2source.ClientCredentials,
		"device code": func(cfg oauth2source.Config) *oauth2source.Grant {
			return oauth2source.DeviceCode(cfg, server.URL, prompt)
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-arrived
			cancel()
		}()
		if _, err := grant(cfg).Fetch(ctx, requestforge.Input{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", name, err)
		}
		cfg := cfg
		cfg.Client = &http.Client{Timeout: 10 * time.Millisecond}
		_, err := grant(cfg).Fetch(t.Context(), requestforge.Input{})
		if auth, ok := err.(*requestforge.AuthError); !ok || !auth.Timeout() {
			t.Errorf("%s: got %v, want a timeout", name, err)
		}
	}
}

// A transport that looks at the context alone, as it should, hears of the
// timeout, too.
func TestGrantPassesItsClientsTimeoutOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newBubble(t)
		server.answers = []string{"hang"}
		cfg := server.config()
		cfg.Client.Timeout = 10 * time.Second
		_, err := oauth2source.ClientCredentials(cfg).Fetch(t.Context(), requestforge.Input{})
		if auth, ok := err.(*requestforge.AuthError); !ok || !auth.Timeout() || time.Since(server.begun) != 10*time.Second {
			t.Errorf("got %v after %v, want a timeout after 10 s", err, time.Since(server.begun))
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
