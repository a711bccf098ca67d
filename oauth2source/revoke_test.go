// The end of a login at the auth server (RFC 7009).

package oauth2source_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
)

// both is a token that has a refresh token.
func both() requestforge.Input {
	return requestforge.Input{Previous: &requestforge.Token{AccessToken: "access-" + secret, RefreshToken: "refresh-" + secret}}
}

// What goes over the wire: the refresh token first, the client as with the grants.
func TestRevokeOnTheWire(t *testing.T) {
	e := newEndpoint(t, func(int, url.Values) (int, string) { return 200, "" })
	key := testKeys().rsa
	const basic = "Basic YXBwJTNBMTpwK3Nz" // app%3A1:p+ss
	client := &requestforge.ClientAuth{ID: "app:1", Secret: "p ss"}
	parent := oauth2source.AssertionFunc(func(_ context.Context, in requestforge.Input) (string, error) {
		return "by-func-for-" + in.Parents["app"].AccessToken, nil
	})
	access, refresh := &requestforge.Token{AccessToken: "a-1"}, &requestforge.Token{RefreshToken: "r-1"}
	all := &requestforge.Token{AccessToken: "a-1", RefreshToken: "r-1"}
	for name, tt := range map[string]struct {
		cfg  oauth2source.Config
		tok  *requestforge.Token
		auth string
		form url.Values // beside the token
		want []string
	}{
		"HTTP Basic":          {oauth2source.Config{ClientAuth: client}, all, basic, nil, []string{"refresh_token r-1", "access_token a-1"}},
		"no refresh token":    {oauth2source.Config{ClientAuth: client}, access, basic, nil, []string{"access_token a-1"}},
		"a refresh token":     {oauth2source.Config{ClientAuth: client}, refresh, basic, nil, []string{"refresh_token r-1"}},
		"all of a Config":     {oauth2source.Config{TokenURL: e.URL, ClientAuth: client, Scopes: []string{"read"}, Extra: []string{"x"}}, access, basic, nil, []string{"access_token a-1"}},
		"further parameters":  {oauth2source.Config{ClientAuth: client, Params: url.Values{"tenant": {"b", "c"}}}, access, basic, url.Values{"tenant": {"b", "c"}}, []string{"access_token a-1"}},
		"in the form":         {oauth2source.Config{ClientAuth: &requestforge.ClientAuth{ID: "app:1", Secret: "p ss", InBody: true}}, access, "", url.Values{"client_id": {"app:1"}, "client_secret": {"p ss"}}, []string{"access_token a-1"}},
		"a public client":     {oauth2source.Config{ClientAuth: &requestforge.ClientAuth{ID: "app:1"}}, all, "", url.Values{"client_id": {"app:1"}}, []string{"refresh_token r-1", "access_token a-1"}},
		"somebody's word":     {oauth2source.Config{ClientAuth: &requestforge.ClientAuth{ID: "app:1"}, ClientAssertion: parent}, access, "", url.Values{"client_id": {"app:1"}, "client_assertion": {"by-func-for-app-token"}}, []string{"access_token a-1"}},
		"an assertion alone":  {oauth2source.Config{ClientAssertion: parent}, access, "", url.Values{"client_assertion": {"by-func-for-app-token"}}, []string{"access_token a-1"}},
		"a signed assertion":  {oauth2source.Config{TokenURL: "https://auth.test/token", ClientAuth: &requestforge.ClientAuth{ID: "app:1"}, ClientAssertion: &oauth2source.JWT{Key: key}}, all, "", url.Values{"client_id": {"app:1"}}, []string{"refresh_token r-1", "access_token a-1"}},
		"without a token URL": {oauth2source.Config{ClientAuth: &requestforge.ClientAuth{ID: "app:1"}, ClientAssertion: &oauth2source.JWT{Key: key, Audience: "https://auth.test/token"}}, access, "", url.Values{"client_id": {"app:1"}}, []string{"access_token a-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := e.requests()
			in := requestforge.Input{Previous: tt.tok, Parents: map[string]*requestforge.Token{"app": bearer("app-token")}}
			if err := oauth2source.Revoke(tt.cfg, e.URL+"/revoke")(t.Context(), in); err != nil {
				t.Fatal(err)
			}
			var got []string
			assertions := map[string]bool{}
			for i, form := range e.forms[before:] {
				got = append(got, form.Get("token_type_hint")+" "+form.Get("token"))
				want := maps.Clone(tt.form)
				if want == nil {
					want = url.Values{}
				}
				want["token"], want["token_type_hint"] = form["token"], form["token_type_hint"]
				if assertion := form.Get("client_assertion"); assertion != "" {
					want["client_assertion_type"] = []string{"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}
					if !want.Has("client_assertion") {
						want["client_assertion"] = form["client_assertion"]
						if _, claims := verified(t, assertion, key.Public()); claims["aud"] != "https://auth.test/token" || claims["iss"] != "app:1" || assertions[assertion] {
							t.Errorf("claims %v; sent before: %v", claims, assertions[assertion])
						}
						assertions[assertion] = true
					}
				}
				if !reflect.DeepEqual(form, want) {
					t.Errorf("form:\n got %v\nwant %v", form, want)
				}
				if auth := e.header[before+i].Get("Authorization"); auth != tt.auth {
					t.Errorf("Authorization %q, want %q", auth, tt.auth)
				}
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("revoked %q, want %q", got, tt.want)
			}
		})
	}
}

// What servers answer, about a token with a refresh token: each row has one answer for
// the refresh token and one for the access token, and what that comes to.
func TestRevokeTakesWhatServersAnswer(t *testing.T) {
	type reply struct {
		status int
		body   string
		header http.Header
	}
	code := func(status int, code string) reply {
		return reply{status, `{"error":"` + code + `","error_description":"` + secret + `"}`, nil}
	}
	ok := reply{200, "", nil}
	for name, tt := range map[string]struct {
		refresh, access reply
		requests        int
		want            *requestforge.AuthError // nil: none
		of              string                  // the token
	}{
		"both":               {ok, ok, 2, nil, ""},
		"with JSON":          {reply{200, `{"a":1,"a":2}`, nil}, reply{204, "", nil}, 2, nil, ""},
		"with nonsense":      {reply{200, "{", nil}, reply{202, strings.Repeat("x", 2<<20), nil}, 2, nil, ""},
		"an empty page":      {reply{200, "", http.Header{"Content-Type": {"text/html"}}}, ok, 2, nil, ""},
		"a page":             {reply{200, "<html>log in here</html>", nil}, ok, 1, &requestforge.AuthError{StatusCode: 200}, "refresh token"},
		"no access tokens":   {ok, code(400, "unsupported_token_type"), 2, nil, ""},
		"no refresh tokens":  {code(400, "unsupported_token_type"), ok, 2, nil, ""},
		"none of both":       {code(400, "unsupported_token_type"), code(400, "unsupported_token_type"), 2, &requestforge.AuthError{StatusCode: 400, Code: "unsupported_token_type", Permanent: true}, "refresh token"},
		"gone with it":       {ok, code(400, "invalid_token"), 2, nil, ""},
		"gone before":        {code(400, "invalid_grant"), ok, 2, nil, ""},
		"never ours":         {code(400, "invalid_grant"), code(400, "invalid_token"), 2, &requestforge.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}, "refresh token"},
		"what to do":         {code(400, "invalid_request"), ok, 2, &requestforge.AuthError{StatusCode: 400, Code: "invalid_request", Permanent: true}, "refresh token"},
		"the worse of two":   {code(400, "invalid_token"), code(400, "invalid_request"), 2, &requestforge.AuthError{StatusCode: 400, Code: "invalid_request", Permanent: true}, "access token"},
		"no word":            {ok, reply{400, "", nil}, 2, &requestforge.AuthError{StatusCode: 400}, "access token"},
		"the client":         {code(401, "invalid_client"), ok, 1, &requestforge.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true}, "refresh token"},
		"the client, as 400": {code(400, "invalid_client"), ok, 1, &requestforge.AuthError{StatusCode: 400, Code: "invalid_client", Permanent: true}, "refresh token"},
		"another's":          {code(400, "unauthorized_client"), ok, 1, &requestforge.AuthError{StatusCode: 400, Code: "unauthorized_client", Permanent: true}, "refresh token"},
		"not there":          {reply{404, secret, nil}, ok, 1, &requestforge.AuthError{StatusCode: 404}, "refresh token"},
		"later":              {reply{503, "", http.Header{"Retry-After": {"7"}}}, ok, 1, &requestforge.AuthError{StatusCode: 503, Temporary: true, RetryAfter: 7 * time.Second}, "refresh token"},
		"the second later":   {code(400, "unsupported_token_type"), reply{503, "", nil}, 2, &requestforge.AuthError{StatusCode: 503, Temporary: true}, "access token"},
		"too many":           {reply{429, "", http.Header{"Retry-After": {"7"}}}, ok, 1, &requestforge.AuthError{StatusCode: 429, Temporary: true, RetryAfter: 7 * time.Second}, "refresh token"},
		"a gateway's":        {reply{502, "<html>" + secret, nil}, ok, 1, &requestforge.AuthError{StatusCode: 502, Temporary: true}, "refresh token"},
		"another server's":   {reply{307, "", http.Header{"Location": {"https://elsewhere.test/" + secret}}}, ok, 1, &requestforge.AuthError{StatusCode: 307}, "refresh token"},
		"a form lost":        {reply{302, "", http.Header{"Location": {"/" + secret}}}, ok, 1, &requestforge.AuthError{StatusCode: 302}, "refresh token"},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n++
				a := map[string]reply{"refresh_token": tt.refresh, "access_token": tt.access}[r.PostFormValue("token_type_hint")]
				maps.Copy(w.Header(), a.header)
				w.WriteHeader(a.status)
				if a.status != 204 {
					io.WriteString(w, a.body)
				}
			}))
			defer srv.Close()
			cfg := oauth2source.Config{ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: secret}}
			err := oauth2source.Revoke(cfg, srv.URL+"/revoke?k="+secret)(t.Context(), both())
			if n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
			if tt.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			got, isAuth := err.(*requestforge.AuthError)
			if !isAuth {
				t.Fatalf("got %v, want an *AuthError", err)
			}
			if got.StatusCode != tt.want.StatusCode || got.Code != tt.want.Code || got.Permanent != tt.want.Permanent || got.Temporary != tt.want.Temporary || got.RetryAfter != tt.want.RetryAfter {
				t.Errorf("got %v (permanent %v, temporary %v)", got, got.Permanent, got.Temporary)
			}
			if text := err.Error(); !strings.Contains(text, tt.of+" not revoked: ") || !strings.Contains(text, "/revoke?k=REDACTED") || strings.Contains(text, "elsewhere") {
				t.Errorf("the error is %q", text)
			}
			noSecret(t, err)
		})
	}
}

// The network's failures are temporary, the program's own aren't.
func TestRevokeSaysWhichFailuresPass(t *testing.T) {
	cut := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer cut.Close()
	none := httptest.NewServer(nil)
	none.Close()
	sent := 0
	base := func(answer func(r *http.Request) (*http.Response, error)) *http.Client {
		return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			sent++
			return answer(r)
		})}
	}
	hang := base(func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() })
	late, stop := context.WithDeadline(t.Context(), time.Now())
	defer stop()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	refused := errors.New("no redirects at all")
	toProxy, _ := url.Parse(cut.URL)
	for name, tt := range map[string]struct {
		ctx       context.Context
		url       string
		client    *http.Client
		temporary bool
		want      string
	}{
		"cut off":      {t.Context(), cut.URL, nil, true, "EOF"},
		"nobody there": {t.Context(), none.URL, nil, true, "refused"},
		"in its time":  {late, "https://auth.test/", hang, true, "deadline"},
		"given up":     {over, "https://auth.test/", hang, false, "canceled"},
		"in the clear": {t.Context(), "http://localhost:1/", base(func(r *http.Request) (*http.Response, error) {
			return answered(r, 307, "", "Location", "http://LocalHost:1/"), nil
		}), false, "not sent over plain http"},
		"to a proxy":    {t.Context(), "http://localhost:1/", &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(toProxy)}}, false, "not sent over plain http"},
		"its own rules": {t.Context(), "https://auth.test/", &http.Client{Transport: base(func(r *http.Request) (*http.Response, error) { return answered(r, 307, "", "Location", "/x"), nil }).Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return refused }}, false, refused.Error()},
	} {
		sent = 0
		cfg := oauth2source.Config{ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: secret}, Client: tt.client}
		err := oauth2source.Revoke(cfg, tt.url)(tt.ctx, both())
		auth, ok := err.(*requestforge.AuthError)
		if !ok || auth.Temporary != tt.temporary || !strings.Contains(err.Error(), tt.want) || sent > 1 {
			t.Errorf("%s: %v (%d requests), want temporary %v", name, err, sent, tt.temporary)
			continue
		}
		noSecret(t, err)
	}
}

// A redirect within the origin that keeps the form is followed; see the rows of
// TestRevokeTakesWhatServersAnswer for those that aren't.
func TestRevokeFollowsARedirectWithinTheOrigin(t *testing.T) {
	var form url.Values
	mux := http.NewServeMux()
	mux.Handle("/old", http.RedirectHandler("/revoke", http.StatusPermanentRedirect))
	mux.HandleFunc("/revoke", func(_ http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		form = r.PostForm
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	err := oauth2source.Revoke(oauth2source.Config{ClientAuth: &requestforge.ClientAuth{ID: "app"}}, srv.URL+"/old")(t.Context(), both())
	if err != nil || form.Get("token") != "access-"+secret {
		t.Errorf("%v, %v", err, form)
	}
}

// The status of an answer says it all, even if the rest never comes.
func TestRevokeNeedsNoBody(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"`)
	}))
	defer srv.Close()
	if err := oauth2source.Revoke(oauth2source.Config{ClientAuth: &requestforge.ClientAuth{ID: "app"}}, srv.URL)(t.Context(), both()); err != nil {
		t.Error(err)
	}
}

func TestRevokeMistakesAreErrors(t *testing.T) {
	good := oauth2source.Config{TokenURL: "https://auth.example.com/token", ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: secret}}
	const at = "https://auth.example.com/revoke"
	sent := 0
	with := func(change func(*oauth2source.Config)) oauth2source.Config {
		cfg := good
		cfg.Client = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) { sent++; return answered(r, 200, ""), nil })}
		change(&cfg)
		return cfg
	}
	same := with(func(*oauth2source.Config) {})
	for name, tt := range map[string]struct {
		cfg  oauth2source.Config
		url  string
		in   requestforge.Input
		want []string
	}{
		"nothing":         {oauth2source.Config{}, "", both(), []string{"Revoke: revokeURL is missing", "Revoke: Config.ClientAuth is missing"}},
		"plain http":      {same, "http://auth.example.com/?k=" + secret, both(), []string{`revokeURL "http://auth.example.com/?k=REDACTED" is plain http to another machine`}},
		"relative":        {same, "/revoke", both(), []string{`revokeURL "/revoke" is not an absolute`}},
		"a bad token URL": {with(func(c *oauth2source.Config) { c.TokenURL = "/token" }), at, both(), []string{`Config.TokenURL "/token" is not an absolute`}},
		"nobody":          {with(func(c *oauth2source.Config) { c.ClientAuth = nil }), at, both(), []string{"a public client's by its id alone"}},
		"a secret alone":  {with(func(c *oauth2source.Config) { c.ClientAuth = &requestforge.ClientAuth{Secret: secret} }), at, both(), []string{"Config.ClientAuth.ID is missing"}},
		"two ways":        {with(func(c *oauth2source.Config) { c.ClientAssertion = oauth2source.FromStep("x") }), at, both(), []string{"in one way"}},
		"no audience": {with(func(c *oauth2source.Config) {
			*c = oauth2source.Config{ClientAssertion: &oauth2source.JWT{Key: testKeys().rsa, Issuer: "app"}}
		}), at, both(), []string{"Audience is missing"}},
		"our parameter":  {with(func(c *oauth2source.Config) { c.Params = url.Values{"token": {secret}, "token_type_hint": {"x"}} }), at, both(), []string{`Config.Params has "token"`, `Config.Params has "token_type_hint"`}},
		"no token":       {same, at, requestforge.Input{}, []string{"no token to revoke; Revoke belongs into Step.Revoke"}},
		"an empty token": {same, at, requestforge.Input{Previous: &requestforge.Token{}}, []string{"no token to revoke"}},
		"no such parent": {with(func(c *oauth2source.Config) { c.ClientAuth, c.ClientAssertion = nil, oauth2source.FromStep("app") }), at, both(), []string{`client_assertion: there is no token of step "app"`}},
		"a function's word": {with(func(c *oauth2source.Config) {
			c.ClientAuth, c.ClientAssertion = nil, oauth2source.AssertionFunc(func(context.Context, requestforge.Input) (string, error) { return "", errors.New("the vault is shut") })
		}), at, both(), []string{"client_assertion: the vault is shut"}},
	} {
		err := oauth2source.Revoke(tt.cfg, tt.url)(t.Context(), tt.in)
		auth, ok := err.(*requestforge.AuthError)
		if !ok || !auth.Unsent || sent != 0 {
			t.Errorf("%s: %v, %d requests; want an AuthError from before anything is sent", name, err, sent)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
		noSecret(t, err)
	}
}
