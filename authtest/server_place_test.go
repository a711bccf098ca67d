package authtest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

// web is a step whose login gives out a session in a cookie, a CSRF value in
// a header, and the ID of the account in the body.
func web(change func(*authtest.Step)) authtest.Step {
	st := authtest.Step{
		Name: "web", TokenCookie: "session", TTL: time.Hour,
		Values: map[string]authtest.Value{"csrf": {Header: "X-Csrf-Token"}, "account": {Field: "data.account"}},
	}
	if change != nil {
		change(&st)
	}
	return st
}

// cookie returns the value that a reply sets a cookie to.
func (r reply) cookie(t *testing.T, name string) string {
	t.Helper()
	return r.setCookie(t, name).Value
}

func (r reply) setCookie(t *testing.T, name string) *http.Cookie {
	t.Helper()
	resp := http.Response{Header: r.header}
	for _, c := range resp.Cookies() {
		if c.Name == name {
			if c.Path != "/" || !c.HttpOnly {
				t.Errorf("cookie %s has path %q", name, c.Path)
			}
			return c
		}
	}
	t.Fatalf("no cookie %q in %v", name, r.header["Set-Cookie"])
	return nil
}

// webLogin logs in at web, and returns what its login gave out: TOKEN, CSRF
// and ACCOUNT.
func webLogin(t *testing.T, sim *authtest.Simulator) *strings.Replacer {
	t.Helper()
	r := call(t, sim, "POST", "/web", "")
	r.is(t, 200, "")
	var body struct{ Data struct{ Account string } }
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || body.Data.Account == "" {
		t.Fatalf("%v in %s", err, r.body)
	}
	csrf := r.header.Get("X-Csrf-Token")
	if csrf == "" {
		t.Fatalf("no CSRF value in %v", r.header)
	}
	return strings.NewReplacer("TOKEN", r.cookie(t, "session"), "CSRF", csrf, "ACCOUNT", body.Data.Account)
}

// lastReason is why the last request was refused.
func lastReason(sim *authtest.Simulator) string {
	log := sim.Log()
	return log[len(log)-1].Reason
}

// bring is a request to the API, with TOKEN, CSRF and ACCOUNT for what one
// login gave out, and OLD in front for what another did.
type bring struct {
	name, request string // the request's path, then its headers, then "body:" and a body
	status        int
	reason        string // what is logged
}

func TestServerPlaces(t *testing.T) {
	header := func(p authtest.Place) []authtest.Place { return []authtest.Place{p} }
	for _, c := range []struct {
		name  string
		step  func(*authtest.Step)
		wants []authtest.Place
		bring []bring
	}{
		{"bare Authorization", nil, header(authtest.Place{Header: "Authorization", Bare: true}), []bring{
			{"right", "/api|Authorization: TOKEN", 200, ""},
			{"with a scheme", "/api|Authorization: Bearer TOKEN", 401, "header Authorization has a scheme, or more than one value"},
			{"missing", "/api", 401, "a token is missing"},
			{"another value", "/api|Authorization: guess", 401, "not a token of step web"},
			{"twice", "/api|Authorization: TOKEN|Authorization: TOKEN", 400, "more than one header Authorization"},
			{"elsewhere, too", "/api|Authorization: TOKEN|X-Token: TOKEN", 400, "a token or value in header X-Token, where none is wanted"},
		}},
		{"a scheme in another header", nil, header(authtest.Place{Header: "x-serverless-authorization", Scheme: "Bearer"}), []bring{
			{"right", "/api|X-Serverless-Authorization: Bearer TOKEN", 200, ""},
			{"beside the caller's own", "/api|X-Serverless-Authorization: bearer TOKEN|Authorization: Basic x", 200, ""},
			{"without", "/api|X-Serverless-Authorization: TOKEN", 401, "a token is missing"},
			{"another", "/api|X-Serverless-Authorization: Basic TOKEN", 401, "a token is missing"},
			{"in Authorization", "/api|Authorization: Bearer TOKEN", 401, "a token is missing"},
		}},
		{"the token's type", func(st *authtest.Step) { st.TokenType = "DPoP" }, nil, []bring{
			{"right", "/api|Authorization: DPoP TOKEN", 200, ""},
			{"another", "/api|Authorization: Bearer TOKEN", 401, "a token is missing"},
		}},
		{"query", nil, []authtest.Place{{Query: "authToken"}, {Query: "account_id", Value: "account"}}, []bring{
			{"right", "/api?a=b&authToken=TOKEN&account_id=ACCOUNT", 200, ""},
			{"without the account", "/api?authToken=TOKEN", 401, "query parameter account_id is missing"},
			{"without the token", "/api?account_id=ACCOUNT", 401, "a token is missing"},
			{"another spelling", "/api?authtoken=TOKEN&account_id=ACCOUNT", 401, "a token is missing"},
			{"twice", "/api?authToken=TOKEN&authToken=TOKEN&account_id=ACCOUNT", 400, "more than one query parameter authToken"},
			{"another login's account", "/api?authToken=TOKEN&account_id=OLDACCOUNT", 401, "query parameter account_id isn't of the same login as web-3"},
			{"another account", "/api?authToken=TOKEN&account_id=1", 401, "query parameter account_id isn't value account of web-3"},
			{"in a header, too", "/api?authToken=TOKEN&account_id=ACCOUNT|Authorization: Bearer TOKEN", 400, "a token or value in header Authorization, where none is wanted"},
			{"under another name, too", "/api?authToken=TOKEN&account_id=ACCOUNT&old=TOKEN", 400, "a token or value in a query parameter where none is wanted"},
			{"in a Referer, too", "/api?authToken=TOKEN&account_id=ACCOUNT|Referer: https://auth.test/?authToken=TOKEN", 400, "a token or value in header Referer, where none is wanted"},
			{"not a query", "/api?authToken=TOKEN&account_id=ACCOUNT&%zz", 400, "the query can't be read"},
		}},
		{"cookie and CSRF header", nil, []authtest.Place{{Cookie: "session"}, {Header: "X-CSRF-Token", Value: "csrf"}}, []bring{
			{"right", "/api|Cookie: session=TOKEN|X-Csrf-Token: CSRF", 200, ""},
			{"beside another cookie", "/api|Cookie: a=b; session=TOKEN|X-Csrf-Token: CSRF", 200, ""},
			{"without the header", "/api|Cookie: session=TOKEN", 401, "header X-Csrf-Token is missing"},
			{"without the cookie", "/api|X-Csrf-Token: CSRF", 401, "a token is missing"},
			{"another session's", "/api|Cookie: session=TOKEN|X-Csrf-Token: OLDCSRF", 401, "header X-Csrf-Token isn't of the same login as web-3"},
			{"the token as both", "/api|Cookie: session=TOKEN|X-Csrf-Token: TOKEN", 401, "header X-Csrf-Token isn't value csrf of web-3"},
			{"with a scheme", "/api|Cookie: session=TOKEN|X-Csrf-Token: Bearer CSRF", 401, "header X-Csrf-Token has a scheme, or more than one value"},
			{"in a second cookie, too", "/api|Cookie: session=TOKEN; csrf=CSRF|X-Csrf-Token: CSRF", 400, "a token or value in a cookie where none is wanted"},
			{"two sessions", "/api|Cookie: session=OLDTOKEN; session=TOKEN|X-Csrf-Token: CSRF", 400, "more than one cookie session"},
		}},
		{"body", nil, []authtest.Place{{Field: "auth"}}, []bring{
			{"right, JSON", "/api|Content-Type: application/json|body:{\"auth\":\"TOKEN\",\"n\":1}", 200, ""},
			{"right, form", "/api|Content-Type: application/x-www-form-urlencoded|body:auth=TOKEN&n=1", 200, ""},
			{"no body", "/api", 401, "a token is missing"},
			{"no string", "/api|Content-Type: application/json|body:{\"auth\":[\"TOKEN\"]}", 400, "field auth isn't a string"},
			{"another kind", "/api|Content-Type: text/plain|body:auth=TOKEN", 415, "the body is neither JSON nor a form"},
		}},
		{"key of the client's own", nil, []authtest.Place{{Query: "api_key", Text: "k3y"}, {Cookie: "sid"}}, []bring{
			{"right", "/api?api_key=k3y|Cookie: sid=TOKEN", 200, ""},
			{"without", "/api|Cookie: sid=TOKEN", 401, "query parameter api_key is missing"},
			{"wrong", "/api?api_key=key|Cookie: sid=TOKEN", 401, "query parameter api_key is wrong"},
			{"alone", "/api?api_key=k3y", 401, "a token is missing"},
		}},
		{"key with a scheme", nil, []authtest.Place{{Header: "Authorization", Text: "k3y"}, {Header: "X-Sid"}}, []bring{
			{"right", "/api|Authorization: Bearer k3y|X-Sid: TOKEN", 200, ""},
			{"bare", "/api|Authorization: k3y|X-Sid: TOKEN", 401, "header Authorization is missing, or of another scheme"},
		}},
		{"known by a value alone", nil, []authtest.Place{{Header: "X-Key-Id", Value: "account"}}, []bring{
			{"right", "/api|X-Key-Id: ACCOUNT", 200, ""},
			{"the token in its place", "/api|X-Key-Id: TOKEN", 401, "not a value account of step web"},
			{"the token, too", "/api|X-Key-Id: ACCOUNT|Authorization: Bearer TOKEN", 400, "a token or value in header Authorization, where none is wanted"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := authtest.Config{Steps: []authtest.Step{web(c.step)}, API: authtest.API{Wants: c.wants, Open: []string{"/open"}}}
			everywhere(t, cfg, func(t *testing.T, sim *authtest.Simulator) {
				if got, want := call(t, sim, "POST", "/web", "").setCookie(t, "session").Secure, strings.HasPrefix(sim.URL, "https:"); got != want {
					t.Errorf("the cookie is secure: %v, want %v", got, want)
				}
				old := webLogin(t, sim)
				now := webLogin(t, sim)
				send := func(request string) reply {
					t.Helper()
					for _, name := range []string{"TOKEN", "CSRF", "ACCOUNT"} {
						request = strings.ReplaceAll(request, "OLD"+name, old.Replace(name))
					}
					path, rest, _ := strings.Cut(now.Replace(request), "|")
					rest, body, _ := strings.Cut(rest, "body:")
					var headers []string
					if rest = strings.TrimSuffix(rest, "|"); rest != "" {
						headers = strings.Split(rest, "|")
					}
					return call(t, sim, "POST", path, body, headers...)
				}
				for _, b := range c.bring {
					r := send(b.request)
					if reason := lastReason(sim); r.status != b.status || reason != b.reason {
						t.Errorf("%s: %d, %q; want %d, %q", b.name, r.status, reason, b.status, b.reason)
					}
					for _, secret := range []string{now.Replace("TOKEN"), now.Replace("CSRF"), now.Replace("ACCOUNT"), "k3y"} {
						if strings.Contains(r.body+fmt.Sprint(r.header)+lastReason(sim), secret) {
							t.Errorf("%s: a secret comes back: %+v", b.name, r)
						}
					}
				}
				call(t, sim, "GET", "/open", "").is(t, 200, "")
				sim.Revoke("web")
				if r := send(c.bring[0].request); r.status != 401 || lastReason(sim) != "web-3 is revoked" {
					t.Errorf("after a revocation: %d, %q", r.status, lastReason(sim))
				}
			})
		})
	}
}

func TestServerBodyWithATokenReachesTheHandler(t *testing.T) {
	sim := authtest.NewSimulator(authtest.Config{Steps: []authtest.Step{{Name: "user"}}, API: authtest.API{Wants: []authtest.Place{{Field: "auth"}}}})
	token := call(t, sim, "POST", "/user", "").field(t, "access_token")
	body := `{"auth":"` + token + `"}`
	r := call(t, sim, "POST", "/api", body, asJSON)
	r.is(t, 200, "")
	var echo authtest.Echo
	if err := json.Unmarshal([]byte(r.body), &echo); err != nil || echo.BodyBytes != int64(len(body)) || echo.Token != "user-1" {
		t.Errorf("echo is %+v, %v", echo, err)
	}
}

// TestServerStepPlaces sees a login by a form that has a CSRF value: a page
// gives out a session and the value, and the login wants both.
func TestServerStepPlaces(t *testing.T) {
	cfg := authtest.Config{Steps: []authtest.Step{
		{Name: "page", Method: "GET", TokenCookie: "pre", Values: map[string]authtest.Value{"csrf": {Field: "form.csrf"}}, RefreshTokens: false},
		{Name: "login", TokenCookie: "session", Form: map[string]string{"user": "ann", "password": "pa55"}, Wants: []authtest.Place{
			{Step: "page", Cookie: "pre"}, {Step: "page", Value: "csrf", Field: "csrf"}, {Query: "secret", Text: "pa55"},
		}},
	}, API: authtest.API{Wants: []authtest.Place{{Cookie: "session"}}}}
	everywhere(t, cfg, func(t *testing.T, sim *authtest.Simulator) {
		page := func() (string, string) {
			r := call(t, sim, "GET", "/page", "")
			r.is(t, 200, "")
			form, _ := r.json(t)["form"].(map[string]any)
			csrf, _ := form["csrf"].(string)
			return r.cookie(t, "pre"), csrf
		}
		_, other := page()
		pre, csrf := page()
		const form = "user=ann&password=pa55&csrf="
		for _, c := range []struct {
			name, path, body, cookie string
			status                   int
			reason                   string
		}{
			{"right", "/login?secret=pa55", form + csrf, pre, 200, ""},
			{"no cookie", "/login?secret=pa55", form + csrf, "x", 401, "not a token of step page"},
			{"no CSRF value", "/login?secret=pa55", "user=ann&password=pa55", pre, 401, "field csrf is missing"},
			{"another page's", "/login?secret=pa55", form + other, pre, 401, "field csrf isn't of the same login as page-2"},
			{"no text", "/login", form + csrf, pre, 401, "query parameter secret is missing"},
			{"wrong text", "/login?secret=x", form + csrf, pre, 401, "query parameter secret is wrong"},
			{"another secret in the URL", "/login?secret=pa55&password=pa55", form + csrf, pre, 400, "a secret in the URL"},
			{"wrong password", "/login?secret=pa55", "user=ann&password=no&csrf=" + csrf, pre, 400, "field password is wrong"},
		} {
			r := call(t, sim, "POST", c.path, c.body, asForm, "Cookie: pre="+c.cookie)
			if reason := lastReason(sim); r.status != c.status || reason != c.reason {
				t.Errorf("%s: %d, %q; want %d, %q", c.name, r.status, reason, c.status, c.reason)
			}
			if c.status == 200 {
				call(t, sim, "GET", "/api", "", "Cookie: session="+r.cookie(t, "session")).is(t, 200, "")
			}
		}
	})
}

func TestServerSecretInTheURLIfWanted(t *testing.T) {
	sim := authtest.NewSimulator(oneStep(func(st *authtest.Step) {
		st.Method, st.Wants = "GET", []authtest.Place{{Query: "password", Text: "pa55"}}
	}))
	call(t, sim, "GET", "/user?password=pa55", "").is(t, 200, "")
	call(t, sim, "GET", "/user?password=pa55&refresh_token=x", "").is(t, 400, "invalid_request")
}

func TestServerRefreshBringsTextsOnly(t *testing.T) {
	sim := authtest.NewSimulator(authtest.Config{Steps: []authtest.Step{{Name: "app"}, {
		Name: "user", Wants: []authtest.Place{{Step: "app", Query: "app"}, {Header: "X-Key", Text: "k3y"}, {Field: "key", Text: "k3y"}},
		RefreshTokens: true, Values: map[string]authtest.Value{"id": {Field: "id"}},
	}}})
	app := call(t, sim, "POST", "/app", "").field(t, "access_token")
	first := call(t, sim, "POST", "/user?app="+app, "key=k3y", asForm, "X-Key: k3y")
	form := "grant_type=refresh_token&refresh_token=" + first.field(t, "refresh_token")
	call(t, sim, "POST", "/user", form, asForm).is(t, 401, "invalid_token")
	r := call(t, sim, "POST", "/user", form, asForm, "X-Key: k3y")
	r.is(t, 200, "")
	if r.field(t, "id") == first.field(t, "id") {
		t.Error("a refresh brings the value of the login")
	}
}

func TestServerTwoCredentials(t *testing.T) {
	cfg := authtest.Config{
		Steps: []authtest.Step{{Name: "gate"}, {Name: "app"}, {Name: "user", Parents: map[string]string{"app": "X-App"}}},
		API:   authtest.API{Wants: []authtest.Place{{Step: "user", Header: "Authorization"}, {Step: "gate", Header: "X-Gate"}, {Step: "app", Header: "X-App"}}},
	}
	sim := authtest.NewSimulator(cfg)
	gate := call(t, sim, "POST", "/gate", "").field(t, "access_token")
	app := call(t, sim, "POST", "/app", "").field(t, "access_token")
	user := call(t, sim, "POST", "/user", "", "X-App: "+app).field(t, "access_token")
	send := func(gate, app, user string, status int, reason string) {
		t.Helper()
		r := call(t, sim, "GET", "/api", "", "Authorization: Bearer "+user, "X-Gate: "+gate, "X-App: "+app)
		if r.status != status || lastReason(sim) != reason {
			t.Errorf("%d, %q; want %d, %q", r.status, lastReason(sim), status, reason)
		}
	}
	send(gate, app, user, 200, "")
	send(user, app, gate, 401, "not a token of step user")
	send(gate, user, user, 401, "not a token of step app")
	sim.Revoke("gate")
	send(gate, app, user, 401, "gate-1 is revoked")
}

func TestServerValuesRotate(t *testing.T) {
	for _, where := range []string{"header", "cookie"} {
		for good := 1; good <= 2; good++ {
			t.Run(fmt.Sprint(where, " ", good), func(t *testing.T) {
				v := authtest.Value{Header: "X-Csrf", Rotate: good}
				if where == "cookie" {
					v = authtest.Value{Cookie: "csrf", Rotate: good}
				}
				read := func(r reply) string {
					t.Helper()
					if where == "cookie" {
						return r.cookie(t, "csrf")
					}
					return r.header.Get("X-Csrf")
				}
				cfg := oneStep(func(st *authtest.Step) { st.Values = map[string]authtest.Value{"csrf": v} })
				cfg.API = authtest.API{Wants: []authtest.Place{{Header: "Authorization"}, {Header: "X-Csrf", Value: "csrf"}}, Open: []string{"/open"}}
				everywhere(t, cfg, func(t *testing.T, sim *authtest.Simulator) {
					r := call(t, sim, "POST", "/user", "")
					token, values := "Authorization: Bearer "+r.field(t, "access_token"), []string{read(r)}
					for i := range 3 {
						r := call(t, sim, "GET", "/api", "", token, "X-Csrf: "+values[i])
						r.is(t, 200, "")
						values = append(values, read(r))
						if values[i+1] == values[i] || values[i+1] == "" {
							t.Fatalf("the next value is %q after %q", values[i+1], values[i])
						}
					}
					if r := call(t, sim, "GET", "/open", "", token); r.header.Get("X-Csrf") != "" || r.header.Get("Set-Cookie") != "" {
						t.Errorf("an open path brings the next value: %v", r.header)
					}
					// The newest is the fourth, values[3].
					r = call(t, sim, "GET", "/api", "", token, "X-Csrf: "+values[3-good])
					if want := "header X-Csrf is an older value csrf of user-1, which was replaced"; r.status != 401 || lastReason(sim) != want {
						t.Errorf("the value that was replaced: %d, %q", r.status, lastReason(sim))
					}
					if r.header.Get("X-Csrf") != "" || r.header.Get("Set-Cookie") != "" {
						t.Error("a refusal brings the next value")
					}
					call(t, sim, "GET", "/api", "", token, "X-Csrf: "+values[4-good]).is(t, 200, "")
				})
			})
		}
	}
}

func TestServerBodies(t *testing.T) {
	for _, c := range []struct {
		name, kind, want string // with TOKEN, REFRESH and VALUE
		step             func(*authtest.Step)
	}{
		{"text", "text/plain; charset=utf-8", `TOKEN`, func(st *authtest.Step) { st.Body = authtest.TextBody }},
		{"JSON string", "application/json", `"TOKEN"`, func(st *authtest.Step) { st.Body = authtest.JSONStringBody }},
		{"XML", "application/xml", `<response><result><code>0</code><key>TOKEN</key></result></response>`, func(st *authtest.Step) {
			st.Body, st.TokenField = authtest.XMLBody, "response.result.key"
			st.Extra = map[string]any{"response": map[string]any{"result": map[string]any{"code": 0}}}
		}},
		{"all of XML", "application/xml", `<a><b>TOKEN</b><kind>Bearer</kind><more>REFRESH</more><until>2000-01-01T01:00:00Z</until><v>VALUE</v><x>&lt;</x><x></x></a>`, func(st *authtest.Step) {
			st.Body, st.TokenField, st.TypeField, st.RefreshField, st.ExpiryField = authtest.XMLBody, "a.b", "a.kind", "a.more", "a.until"
			st.Expiry, st.RefreshTokens = authtest.ExpiresAtRFC3339, true
			st.Extra = map[string]any{"a": map[string]any{"x": []any{"<", nil}}}
			st.Values = map[string]authtest.Value{"v": {Field: "a.v"}}
		}},
		{"seconds in XML", "application/xml", `<a><b>TOKEN</b><in>3600.0</in></a>`, func(st *authtest.Step) {
			st.Body, st.TokenField, st.Expiry, st.ExpiryField = authtest.XMLBody, "a.b", authtest.ExpiresInFloat, "a.in"
		}},
		{"HTML", "text/html; charset=utf-8", "<!DOCTYPE html>\n<html><body><form method=\"post\">\n" +
			"<input type=\"hidden\" name=\"a.0.b\" value=\"TOKEN\">\n<input type=\"hidden\" name=\"csrf\" value=\"VALUE\">\n<input type=\"hidden\" name=\"q\" value=\"&#34;\">\n</form></body></html>", func(st *authtest.Step) {
			st.Body, st.TokenField, st.Extra = authtest.HTMLBody, "a.0.b", map[string]any{"q": "\""}
			st.Values = map[string]authtest.Value{"v": {Field: "csrf"}}
		}},
		{"no type", "application/json", `{"expires_in":3600,"jwt":"TOKEN"}`, func(st *authtest.Step) { st.TokenField, st.TypeField = "jwt", "-" }},
		{"cookie", "application/json", `{}`, func(st *authtest.Step) { st.TokenCookie = "sid" }},
		{"cookie, and when it expires", "application/json", `{"validity":3600}`, func(st *authtest.Step) { st.TokenCookie, st.ExpiryField = "sid", "validity" }},
		{"header, and when it expires", "application/json", `{"data":{"until":946688400}}`, func(st *authtest.Step) {
			st.TokenHeader, st.Expiry, st.ExpiryField = "X-Token", authtest.ExpiresAtUnix, "data.until"
		}},
		{"header, and a value", "application/json", `{"id":"VALUE"}`, func(st *authtest.Step) {
			st.TokenHeader, st.Values = "X-Token", map[string]authtest.Value{"v": {Field: "id"}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := authtest.NewSimulator(oneStep(c.step))
				r := call(t, sim, "POST", "/user", "")
				r.is(t, 200, "")
				if got := r.header.Get("Content-Type"); got != c.kind || r.header.Get("Cache-Control") != "no-store" {
					t.Errorf("header is %v", r.header)
				}
				token := regexp.MustCompile(`user-1-[A-Z2-7]{26}`)
				got := strings.TrimPrefix(r.body, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")
				got = regexp.MustCompile(`user-refresh-1-\w+`).ReplaceAllString(got, "REFRESH")
				got = regexp.MustCompile(`user-1-v-\w+`).ReplaceAllString(got, "VALUE")
				value := token.FindString(got)
				switch conf := oneStep(c.step).Steps[0]; {
				case conf.TokenHeader != "":
					value = r.header.Get(conf.TokenHeader)
				case conf.TokenCookie != "":
					value = r.cookie(t, conf.TokenCookie)
				}
				if got = strings.TrimSpace(token.ReplaceAllString(got, "TOKEN")); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				call(t, sim, "GET", "/api", "", "Authorization: Bearer "+value).is(t, 200, "")
			})
		})
	}
}

func TestServerInstances(t *testing.T) {
	eu, us := "https://eu.example.com", "https://us.example.com/v2"
	cfg := authtest.Config{TLS: true, Steps: []authtest.Step{
		{Name: "login", Instances: []string{eu, us, "/here"}, InstanceField: "data.instance_url", RefreshTokens: true},
		{Name: "tenant", Parents: map[string]string{"login": "X-Login"}},
	}, API: authtest.API{Wants: []authtest.Place{{Step: "tenant", Header: "Authorization"}, {Step: "login", Header: "X-Login"}}}}
	for name, sim := range map[string]*authtest.Simulator{"in process": authtest.NewSimulator(cfg), "https": nil} {
		t.Run(name, func(t *testing.T) {
			if sim == nil {
				srv := authtest.NewServer(cfg)
				defer srv.Close()
				sim = srv.Simulator
			}
			login := func() (token, instance, refresh string) {
				t.Helper()
				r := call(t, sim, "POST", "/login", "")
				data, _ := r.json(t)["data"].(map[string]any)
				instance, _ = data["instance_url"].(string)
				return r.field(t, "access_token"), instance, r.field(t, "refresh_token")
			}
			home := sim.URL
			send := func(base, method, path string, status int, headers ...string) reply {
				t.Helper()
				sim.URL = base // call sends to it
				defer func() { sim.URL = home }()
				r := call(t, sim, method, path, "", headers...)
				if r.status != status {
					t.Errorf("%s%s: %d, %q; want %d", base, path, r.status, lastReason(sim), status)
				}
				return r
			}
			token, instance, refresh := login()
			if instance != eu {
				t.Fatalf("the instance is %q", instance)
			}
			// A step whose parent has an instance is there, too.
			send(us, "POST", "/tenant", 401, "X-Login: "+token) // /v2/tenant, which is the API
			send(home, "POST", "/tenant", 401, "X-Login: "+token)
			tenant := send(eu, "POST", "/tenant", 200, "X-Login: "+token).field(t, "access_token")
			headers := []string{"Authorization: Bearer " + tenant, "X-Login: " + token}
			send(eu, "GET", "/api", 200, headers...)
			send("https://eu.example.com", "GET", "", 200, headers...)
			send(home, "GET", "/api", 401, headers...)
			if got, want := lastReason(sim), "login-1 is good at https://eu.example.com only"; got != want {
				t.Errorf("reason is %q, want %q", got, want)
			}

			sim.Move("login", us)
			send(eu, "GET", "/api", 200, headers...)
			token, instance, _ = login()
			headers[1] = "X-Login: " + token
			if instance != us {
				t.Fatalf("the instance is %q", instance)
			}
			send(eu, "GET", "/api", 401, headers...)
			send(us, "GET", "/api", 200, headers...)
			send("https://us.example.com", "GET", "/v22", 401, headers...)
			send("https://us.example.com", "GET", "/", 401, headers...)

			sim.Move("login", "/here")
			form := "grant_type=refresh_token&refresh_token=" + refresh
			r := call(t, sim, "POST", "/login", form, asForm)
			data, _ := r.json(t)["data"].(map[string]any)
			if data["instance_url"] != home+"/here" {
				t.Errorf("after a refresh: %v, want %s/here", data, home)
			}
			headers[1] = "X-Login: " + r.field(t, "access_token")
			send(home, "GET", "/here/api", 200, headers...)
			send(home, "GET", "/api", 401, headers...)
			if got := panicOf(func() { sim.Move("login", "https://elsewhere.test") }); !strings.Contains(got, `no instance "https://elsewhere.test"`) {
				t.Errorf("panic is %q", got)
			}
		})
	}
}

func TestServerSessionsAreLimited(t *testing.T) {
	limit := func(change func(*authtest.Step)) *authtest.Simulator {
		return authtest.NewSimulator(oneStep(func(st *authtest.Step) {
			st.MaxSessions, st.RefreshTokens = 2, true
			change(st)
		}))
	}
	login := func(t *testing.T, sim *authtest.Simulator) session {
		t.Helper()
		r := call(t, sim, "POST", "/user", "")
		r.is(t, 200, "")
		return session{user: r.field(t, "access_token"), refresh: r.field(t, "refresh_token")}
	}
	refresh := func(t *testing.T, sim *authtest.Simulator, s session) reply {
		t.Helper()
		return call(t, sim, "POST", "/user", "grant_type=refresh_token&refresh_token="+s.refresh, asForm)
	}
	t.Run("the oldest ends", func(t *testing.T) {
		sim := limit(func(*authtest.Step) {})
		a, b := login(t, sim), login(t, sim)
		again := refresh(t, sim, a) // no session of its own
		again.is(t, 200, "")
		a.get(t, sim).is(t, 200, "")
		c := login(t, sim)
		a.get(t, sim).is(t, 401, "invalid_token")
		if got := lastReason(sim); got != "user-1 was ended by a later login" {
			t.Errorf("reason is %q", got)
		}
		session{user: again.field(t, "access_token")}.get(t, sim).is(t, 401, "invalid_token")
		refresh(t, sim, a).is(t, 400, "invalid_grant")
		b.get(t, sim).is(t, 200, "")
		c.get(t, sim).is(t, 200, "")
		if st := sim.Stats().Steps["user"]; st.Ended != 1 || st.Live != 2 || st.LiveRefresh != 2 {
			t.Errorf("counted %+v", st)
		}
	})
	t.Run("the login is refused", func(t *testing.T) {
		sim := limit(func(st *authtest.Step) { st.KeepSessions = true })
		a, b := login(t, sim), login(t, sim)
		call(t, sim, "POST", "/user", "").is(t, 429, "too_many_sessions")
		if got, want := sim.Stats().Steps["user"].Fetches, (authtest.Count{Attempted: 3, OK: 2, Refused: 1}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
		sim.RevokeToken(a.user)
		call(t, sim, "POST", "/user", "").is(t, 429, "too_many_sessions") // its refresh token lives
		sim.RevokeToken(a.refresh)
		login(t, sim)
		b.get(t, sim).is(t, 200, "")
		call(t, sim, "POST", "/user", "").is(t, 429, "too_many_sessions")
	})
	t.Run("an expired one doesn't count", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			sim := limit(func(st *authtest.Step) { st.KeepSessions, st.RefreshTTL = true, 2*time.Hour })
			login(t, sim)
			login(t, sim)
			time.Sleep(2 * time.Hour)
			login(t, sim)
			login(t, sim)
			call(t, sim, "POST", "/user", "").is(t, 429, "too_many_sessions")
		})
	})
}

func TestServerRenewsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := oneStep(func(st *authtest.Step) {
			st.TokenField, st.ExpiryField = "auth.client_token", "auth.lease_duration"
			st.RenewPath, st.MaxTTL = "/renew-self", 150*time.Minute
		})
		cfg.API.Wants = []authtest.Place{{Header: "X-Vault-Token"}}
		sim := authtest.NewSimulator(cfg)
		lease := func(r reply) (token string, seconds float64) {
			t.Helper()
			r.is(t, 200, "")
			auth, _ := r.json(t)["auth"].(map[string]any)
			token, _ = auth["client_token"].(string)
			seconds, _ = auth["lease_duration"].(float64)
			return token, seconds
		}
		token, _ := lease(call(t, sim, "POST", "/user", ""))
		header := "X-Vault-Token: " + token
		for _, left := range []float64{3600, 1802} {
			time.Sleep(time.Hour - time.Second)
			if again, seconds := lease(call(t, sim, "POST", "/renew-self", `{"increment":1}`, asJSON, header)); again != token || seconds != left {
				t.Errorf("%q for %v s, want %q for %v s", again, seconds, token, left)
			}
		}
		time.Sleep(30*time.Minute + time.Second)
		call(t, sim, "GET", "/api", "", header).is(t, 200, "")
		if _, seconds := lease(call(t, sim, "POST", "/renew-self", "", header)); seconds != 1 {
			t.Errorf("%v s are left of MaxTTL, want 1", seconds)
		}
		call(t, sim, "POST", "/renew-self", "").is(t, 401, "invalid_token")
		call(t, sim, "POST", "/renew-self", "", "Authorization: Bearer "+token).is(t, 401, "invalid_token")
		call(t, sim, "GET", "/renew-self", "", header).is(t, 405, "")
		time.Sleep(time.Second)
		call(t, sim, "GET", "/api", "", header).is(t, 401, "invalid_token")
		call(t, sim, "POST", "/renew-self", "", header).is(t, 401, "invalid_token")
		if got, want := sim.Stats().Steps["user"].Refreshes, (authtest.Count{Attempted: 7, OK: 3, Refused: 4}); got != want {
			t.Errorf("renewals %+v, want %+v", got, want)
		}
	})
	// A token that the API doesn't want is renewed by Authorization.
	cfg := authtest.Config{Steps: []authtest.Step{{Name: "app", Method: "GET", TTL: time.Hour, RenewPath: "/renew"}, {Name: "user", Parents: map[string]string{"app": "X-App"}}}}
	sim := authtest.NewSimulator(cfg)
	app := call(t, sim, "GET", "/app", "").field(t, "access_token")
	call(t, sim, "POST", "/renew", "", "Authorization: Bearer "+app).is(t, 200, "")
	sim.Revoke("app")
	call(t, sim, "POST", "/renew", "", "Authorization: Bearer "+app).is(t, 401, "invalid_token")
}

func TestServerRefusesInItsOwnWay(t *testing.T) {
	cfg := threeSteps()
	cfg.Steps[2].Denied = authtest.AnswerHandler(200, `{"success":false,"error":{"code":400}}`)
	cfg.Steps[2].Refused = authtest.AnswerHandler(498, `<error code="22"/>`)
	cfg.API.Refused = authtest.AnswerHandler(200, `{"success":false,"error":{"code":119}}`)
	everywhere(t, cfg, func(t *testing.T, sim *authtest.Simulator) {
		s := login(t, sim)
		s.get(t, sim).is(t, 200, "")
		check := func(r reply, status int, kind, body string) {
			t.Helper()
			if r.status != status || r.header.Get("Content-Type") != kind || r.body != body || r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("got %+v", r)
			}
		}
		const no = `{"success":false,"error":{"code":400}}`
		user := func(body string) reply {
			return call(t, sim, "POST", "/v1/user/token", body, asJSON, "Authorization: Bearer "+s.app)
		}
		check(user(`{"username":"ann","password":"no"}`), 200, "application/json", no)
		check(redeem(t, sim, "guess"), 200, "application/json", no)
		sim.Revoke("app")
		check(user(`{"username":"ann","password":"pa55"}`), 498, "application/xml", `<error code="22"/>`)
		sim.Revoke("user")
		check(s.get(t, sim), 200, "application/json", `{"success":false,"error":{"code":119}}`)
		if got := sim.Stats(); got.API.Refused != 1 || got.Steps["user"].Fetches.Refused != 2 || got.Steps["user"].Refreshes.Refused != 1 {
			t.Errorf("counted %+v", got)
		}
	})
	sim := authtest.NewSimulator(oneStep(func(st *authtest.Step) {
		st.ClientID, st.Denied = "shop", authtest.AnswerHandler(200, "<!DOCTYPE html><h1>no</h1>")
	}))
	if r := call(t, sim, "POST", "/user", ""); r.status != 200 || r.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("got %+v", r)
	}
}

func TestServerPlacesPrintNoSecrets(t *testing.T) {
	cfg := authtest.Config{Steps: []authtest.Step{web(nil)}, API: authtest.API{Wants: []authtest.Place{{Cookie: "session"}, {Header: "X-Key", Text: "pa55"}}}}
	cfg.Steps[0].Wants = []authtest.Place{{Query: "key", Text: "pa55"}}
	for _, v := range []any{cfg, &cfg, cfg.API, cfg.API.Wants[1], cfg.Steps[0], authtest.NewSimulator(cfg)} {
		var out bytes.Buffer
		fmt.Fprintf(&out, "%v %+v %#v ", v, v, v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		if strings.Contains(out.String(), "pa55") {
			t.Errorf("%T shows a secret: %s", v, out.String())
		}
	}
	for want, p := range map[string]authtest.Place{
		"the token in cookie session":                  {Cookie: "session"},
		"value csrf of step page in field csrf":        {Step: "page", Value: "csrf", Field: "csrf"},
		"a text in header X-Key":                       {Header: "x-key", Text: "pa55"},
		"the token of step app in query parameter key": {Step: "app", Query: "key"},
	} {
		if got := fmt.Sprint(p); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestServerPlaceMistakes(t *testing.T) {
	step := func(change func(*authtest.Step)) authtest.Config { return oneStep(change) }
	api := func(wants ...authtest.Place) authtest.Config {
		return authtest.Config{Steps: []authtest.Step{web(nil)}, API: authtest.API{Wants: wants}}
	}
	value := func(v authtest.Value) authtest.Config {
		return step(func(st *authtest.Step) { st.Values = map[string]authtest.Value{"v": v} })
	}
	for want, cfg := range map[string]authtest.Config{
		"API: a place needs exactly one":           api(authtest.Place{}),
		"exactly one of Header, Query":             api(authtest.Place{Header: "A", Query: "b"}),
		"the name \"a b\"":                         api(authtest.Place{Header: "a b"}),
		"set Cookie to the cookie's name":          api(authtest.Place{Header: "cookie"}),
		"header A: Text stands alone":              api(authtest.Place{Header: "A", Text: "pa55", Value: "csrf"}),
		"Text stands alone, without Value":         api(authtest.Place{Header: "A", Text: "pa55", Step: "web"}),
		"query parameter a: Scheme needs a Header": api(authtest.Place{Query: "a", Scheme: "Bearer"}),
		"Scheme \"a b\" is none":                   api(authtest.Place{Header: "A", Scheme: "a b"}),
		"Bare is for Authorization":                api(authtest.Place{Header: "A", Bare: true}),
		"both Scheme and Bare":                     api(authtest.Place{Header: "authorization", Bare: true, Scheme: "x"}),
		"no step \"wbe\"":                          api(authtest.Place{Header: "A", Step: "wbe"}),
		"step \"web\" has no value \"crsf\"":       api(authtest.Place{Header: "A", Value: "crsf"}),
		"two values share the header X-A":          api(authtest.Place{Header: "X-A"}, authtest.Place{Header: "x-a", Value: "csrf"}),
		"two values share the query":               api(authtest.Place{Query: "a"}, authtest.Place{Query: "a", Value: "csrf"}),
		"nothing that a login gave out":            api(authtest.Place{Header: "A", Text: "pa55"}),
		"API: Signature: a negative MaxAge":        {Steps: oneStep(nil).Steps, API: authtest.API{Signature: &authtest.Signature{MaxAge: -1}}},
		"header A: Step or Text is missing":        step(func(st *authtest.Step) { st.Wants = []authtest.Place{{Header: "A"}} }),
		"unknown parent \"page\"":                  step(func(st *authtest.Step) { st.Wants = []authtest.Place{{Step: "page", Cookie: "a"}} }),
		"a cycle among the steps [\"user\"]":       step(func(st *authtest.Step) { st.Wants = []authtest.Place{{Step: "user", Cookie: "a"}} }),
		"HTTP Basic and a parent or text": step(func(st *authtest.Step) {
			st.ClientID, st.ClientAuth, st.Wants = "x", authtest.BasicClientAuth, []authtest.Place{{Header: "Authorization", Text: "pa55"}}
		}),
		"more than one leaf: \"a\", \"b\"":           {Steps: []authtest.Step{{Name: "a"}, {Name: "b"}}, API: authtest.API{Wants: []authtest.Place{{Step: "a", Header: "A"}}}},
		"Step is missing, as there is more than one": {Steps: []authtest.Step{{Name: "a"}, {Name: "b"}}, API: authtest.API{Wants: []authtest.Place{{Header: "B"}}}},
		"no such BodyFormat: 7":                      step(func(st *authtest.Step) { st.Body = 7 }),
		"both TokenHeader and TokenCookie":           step(func(st *authtest.Step) { st.TokenHeader, st.TokenCookie = "A", "b" }),
		"isn't in the body, too":                     step(func(st *authtest.Step) { st.TokenCookie, st.TokenField = "b", "c" }),
		"header \"Set-Cookie\" can't be set":         step(func(st *authtest.Step) { st.TokenHeader = "set-cookie" }),
		"cookie \"a;b\" can't be set":                step(func(st *authtest.Step) { st.TokenCookie = "a;b" }),
		"a body that is the token has no fields":     step(func(st *authtest.Step) { st.Body, st.ExpiryField = authtest.TextBody, "e" }),
		"refresh token has no place":                 step(func(st *authtest.Step) { st.Body, st.RefreshTokens = authtest.JSONStringBody, true }),
		"XML and HTML need a TokenField":             step(func(st *authtest.Step) { st.Body = authtest.XMLBody }),
		"XML and HTML need a RefreshField":           step(func(st *authtest.Step) { st.Body, st.TokenField, st.RefreshTokens = authtest.XMLBody, "a.b", true }),
		"XML has one root":                           step(func(st *authtest.Step) { st.Body, st.TokenField, st.TypeField = authtest.XMLBody, "a.b", "c.d" }),
		"field \"a.0.b\" can't be reached":           step(func(st *authtest.Step) { st.Body, st.TokenField = authtest.XMLBody, "a.0.b" }),
		"two values share the field \"a\"":           step(func(st *authtest.Step) { st.TokenField, st.TypeField = "a", "a" }),
		"value \"v\" needs exactly one of":           value(authtest.Value{}),
		"needs exactly one of Field":                 value(authtest.Value{Field: "a", Header: "B"}),
		"no place for the next one":                  value(authtest.Value{Field: "a", Rotate: 1}),
		"Rotate is negative":                         value(authtest.Value{Header: "A", Rotate: -1}),
		"value \"a b\": the name needs to be":        step(func(st *authtest.Step) { st.Values = map[string]authtest.Value{"a b": {Header: "A"}} }),
		"two values share the header A": step(func(st *authtest.Step) {
			st.TokenHeader, st.Values = "A", map[string]authtest.Value{"v": {Header: "a"}}
		}),
		"two values share the cookie a": step(func(st *authtest.Step) {
			st.TokenCookie, st.Values = "a", map[string]authtest.Value{"v": {Cookie: "a"}}
		}),
		"value \"v\": a body that is the token": step(func(st *authtest.Step) {
			st.Body, st.Values = authtest.TextBody, map[string]authtest.Value{"v": {Field: "a"}}
		}),
		"Instances and InstanceField go together":               step(func(st *authtest.Step) { st.Instances = []string{"/a"} }),
		"instance \"a\" is neither":                             step(func(st *authtest.Step) { st.Instances, st.InstanceField = []string{"a"}, "i" }),
		"instance \"https://a/\" is neither an absolute URL":    step(func(st *authtest.Step) { st.Instances, st.InstanceField = []string{"https://a/"}, "i" }),
		"instance \"ftp://a\" is neither an absolute URL nor a": step(func(st *authtest.Step) { st.Instances, st.InstanceField = []string{"ftp://a"}, "i" }),
		"RenewPath needs a path of its own":                     step(func(st *authtest.Step) { st.RenewPath = "/user" }),
		"and a TTL":                                             step(func(st *authtest.Step) { st.TTL, st.RenewPath = 0, "/renew" }),
		"MaxTTL is for RenewPath":                               step(func(st *authtest.Step) { st.MaxTTL = time.Hour }),
		"no less than TTL":                                      step(func(st *authtest.Step) { st.RenewPath, st.MaxTTL = "/renew", time.Minute }),
		"path \"renew\" doesn't begin":                          step(func(st *authtest.Step) { st.RenewPath = "renew" }),
		"KeepSessions is without it":                            step(func(st *authtest.Step) { st.KeepSessions = true }),
		"MaxSessions is negative":                               step(func(st *authtest.Step) { st.MaxSessions = -1 }),
	} {
		t.Run(want, func(t *testing.T) {
			got := panicOf(func() { authtest.NewSimulator(cfg) })
			if !strings.HasPrefix(got, "authtest: ") || !strings.Contains(got, want) || strings.Contains(got, "pa55") {
				t.Errorf("panic is %q", got)
			}
		})
	}
}
