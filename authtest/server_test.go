package authtest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge/authtest"
)

const month = 30 * 24 * time.Hour

// threeSteps is the login that most tests use: a header token, then two body
// tokens, the last with a refresh token.
func threeSteps() authtest.Config {
	return authtest.Config{Steps: []authtest.Step{{
		Name: "device", Path: "/v1/device/register",
		TokenHeader: "X-Device-Token", TTL: month,
	}, {
		Name: "app", Path: "/v1/app/token",
		Parents:  map[string]string{"device": "X-Device-Token"},
		ClientID: "shop", ClientSecret: "s3cr:t", TTL: time.Hour,
	}, {
		Name: "user", Path: "/v1/user/token",
		Parents: map[string]string{"app": "Authorization"},
		JSON:    map[string]any{"username": "ann", "password": "pa55"},
		TTL:     15 * time.Minute, RefreshTokens: true, Rotate: true,
	}}}
}

// oneStep is the smallest login, with what change makes of it.
func oneStep(change func(*authtest.Step)) authtest.Config {
	st := authtest.Step{Name: "user", TTL: time.Hour}
	if change != nil {
		change(&st)
	}
	return authtest.Config{Steps: []authtest.Step{st}}
}

// reply is a response that has been read.
type reply struct {
	status int
	header http.Header
	body   string
}

// field returns a string field of the reply's JSON object.
func (r reply) field(t *testing.T, name string) string {
	t.Helper()
	v, _ := r.json(t)[name].(string)
	if v == "" {
		t.Fatalf("no field %q in %s", name, r.body)
	}
	return v
}

func (r reply) json(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(r.body), &m); err != nil {
		t.Fatalf("%v in %q", err, r.body)
	}
	return m
}

// is checks status and OAuth error of a reply.
func (r reply) is(t *testing.T, status int, code string) {
	t.Helper()
	if r.status != status {
		t.Fatalf("status is %d, want %d: %s", r.status, status, r.body)
	}
	if code == "" {
		return
	}
	if got := r.json(t)["error"]; got != code {
		t.Fatalf("error is %v, want %s", got, code)
	}
}

// call sends one request. A header is "Name: value".
func call(t *testing.T, sim *authtest.Simulator, method, path, body string, headers ...string) reply {
	t.Helper()
	r, err := try(t.Context(), sim, method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func try(ctx context.Context, sim *authtest.Simulator, method, path, body string, headers ...string) (reply, error) {
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, sim.URL+path, rd)
	if err != nil {
		return reply{}, err
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Add(k, v)
	}
	resp, err := sim.Client().Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b)}, err
}

const (
	asJSON = "Content-Type: application/json"
	asForm = "Content-Type: application/x-www-form-urlencoded"
)

func basic(id, secret string) string {
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	return "Authorization: " + r.Header.Get("Authorization")
}

// session is one login at threeSteps.
type session struct{ device, app, user, refresh string }

func login(t *testing.T, sim *authtest.Simulator) session {
	t.Helper()
	var s session
	r := call(t, sim, "POST", "/v1/device/register", "")
	r.is(t, 200, "")
	s.device = r.header.Get("X-Device-Token")
	r = call(t, sim, "POST", "/v1/app/token", "", "X-Device-Token: "+s.device, basic("shop", "s3cr:t"))
	r.is(t, 200, "")
	s.app = r.field(t, "access_token")
	r = call(t, sim, "POST", "/v1/user/token", `{"username":"ann","password":"pa55"}`, asJSON, "Authorization: Bearer "+s.app)
	r.is(t, 200, "")
	s.user, s.refresh = r.field(t, "access_token"), r.field(t, "refresh_token")
	return s
}

func (s session) get(t *testing.T, sim *authtest.Simulator) reply {
	t.Helper()
	return call(t, sim, "GET", "/api/things", "", "Authorization: Bearer "+s.user)
}

// everywhere runs a test on each way to a simulator.
func everywhere(t *testing.T, cfg authtest.Config, test func(t *testing.T, sim *authtest.Simulator)) {
	t.Run("in process", func(t *testing.T) { test(t, authtest.NewSimulator(cfg)) })
	t.Run("http", func(t *testing.T) {
		srv := authtest.NewServer(cfg)
		defer srv.Close()
		test(t, srv.Simulator)
	})
	t.Run("https", func(t *testing.T) {
		cfg.TLS = true
		srv := authtest.NewServer(cfg)
		defer srv.Close()
		if !strings.HasPrefix(srv.URL, "https://") {
			t.Errorf("URL is %s", srv.URL)
		}
		test(t, srv.Simulator)
	})
}

func TestServerLogsInThroughDependentSteps(t *testing.T) {
	everywhere(t, threeSteps(), func(t *testing.T, sim *authtest.Simulator) {
		s := login(t, sim)
		for token, want := range map[string]string{
			s.device:  `^device-1-[A-Z2-7]{26}$`,
			s.app:     `^app-1-[A-Z2-7]{26}$`,
			s.user:    `^user-1-[A-Z2-7]{26}$`,
			s.refresh: `^user-refresh-1-[A-Z2-7]{26}$`,
		} {
			if !regexp.MustCompile(want).MatchString(token) {
				t.Errorf("token %q doesn't match %s", token, want)
			}
		}
		if again := login(t, sim); again.user == s.user || !strings.HasPrefix(again.user, "user-2-") {
			t.Errorf("the second token is %q", again.user)
		}

		body := strings.Repeat("forge", 100_000)
		r := call(t, sim, "PUT", "/api/things", body, "Authorization: Bearer "+s.user)
		r.is(t, 200, "")
		var echo authtest.Echo
		if err := json.Unmarshal([]byte(r.body), &echo); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(body))
		want := authtest.Echo{Request: 1, Method: "PUT", Path: "/api/things", Token: "user-1", BodyBytes: 500_000, BodySHA256: hex.EncodeToString(sum[:])}
		if echo != want {
			t.Errorf("echo is %+v, want %+v", echo, want)
		}
	})
}

func TestServerAPIRefusals(t *testing.T) {
	cfg := threeSteps()
	cfg.API.Open = []string{"/health"}
	cfg.API.InsufficientScope = []string{"/api/admin"}
	everywhere(t, cfg, func(t *testing.T, sim *authtest.Simulator) {
		s := login(t, sim)
		revoked := login(t, sim)
		if !sim.RevokeToken(revoked.user) || sim.RevokeToken(revoked.user) || sim.RevokeToken("nonsense") {
			t.Error("RevokeToken doesn't tell what was live")
		}
		const plain, invalid = `Bearer realm="authtest"`, `Bearer realm="authtest", error="invalid_token", error_description=`
		for _, c := range []struct {
			name, path string
			headers    []string
			status     int
			code       string
			challenge  string // what it begins with
		}{
			{"live", "/api", []string{"Authorization: Bearer " + s.user}, 200, "", ""},
			{"scheme in another case", "/api", []string{"Authorization: bearer " + s.user}, 200, "", ""},
			{"missing", "/api", nil, 401, "invalid_token", plain},
			{"another scheme", "/api", []string{basic("a", "b")}, 401, "invalid_token", plain},
			{"garbage", "/api", []string{"Authorization: Bearer garbage"}, 401, "invalid_token", invalid},
			{"no token", "/api", []string{"Authorization: Bearer"}, 401, "invalid_token", invalid},
			{"revoked", "/api", []string{"Authorization: Bearer " + revoked.user}, 401, "invalid_token", invalid + `"user-2 is revoked"`},
			{"another step's", "/api", []string{"Authorization: Bearer " + s.app}, 401, "invalid_token", invalid},
			{"refresh token", "/api", []string{"Authorization: Bearer " + s.refresh}, 401, "invalid_token", invalid},
			{"twice", "/api", []string{"Authorization: Bearer " + s.user, "Authorization: Bearer " + s.user}, 400, "invalid_request", `Bearer realm="authtest", error="invalid_request"`},
			{"open", "/health", nil, 200, "", ""},
			{"scope", "/api/admin", []string{"Authorization: Bearer " + s.user}, 403, "insufficient_scope", `Bearer realm="authtest", error="insufficient_scope"`},
			{"scope without a token", "/api/admin", nil, 401, "invalid_token", plain},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := call(t, sim, "GET", c.path, "", c.headers...)
				r.is(t, c.status, c.code)
				got := r.header.Get("WWW-Authenticate")
				if !strings.HasPrefix(got, c.challenge) || (c.challenge == plain || c.challenge == "") && got != c.challenge {
					t.Errorf("challenge is %q, want %q", got, c.challenge)
				}
			})
		}
		if got := sim.Stats().API; got.Attempted != 13 || got.OK != 3 || got.Refused != 9 || got.Forbidden != 1 {
			t.Errorf("counted %+v", got)
		}
	})
}

func TestServerAPISettings(t *testing.T) {
	cfg := oneStep(func(st *authtest.Step) { st.TokenType = "Tenant" })
	cfg.API = authtest.API{
		Prefix:  "/api/",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "own handler") }),
		Refused: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, "{}")
		}),
	}
	t.Run("Authorization", func(t *testing.T) {
		sim := authtest.NewSimulator(cfg)
		token := call(t, sim, "POST", "/user", "").field(t, "access_token")
		if r := call(t, sim, "GET", "/api/x", "", "Authorization: Tenant "+token); r.status != 200 || r.body != "own handler" {
			t.Errorf("got %+v", r)
		}
		if r := call(t, sim, "GET", "/api/x", "", "Authorization: Bearer "+token); r.status != 403 || r.body != "{}" {
			t.Errorf("got %+v", r)
		}
		call(t, sim, "GET", "/elsewhere", "", "Authorization: Tenant "+token).is(t, 404, "")
		if got := sim.Stats(); got.API.Attempted != 2 || got.Paths["/elsewhere"] != 1 || got.Paths["/api/x"] != 2 {
			t.Errorf("counted %+v", got)
		}
	})
	t.Run("own header", func(t *testing.T) {
		cfg := cfg
		cfg.API.Wants = []authtest.Place{{Header: "X-Api-Key"}}
		sim := authtest.NewSimulator(cfg)
		token := call(t, sim, "POST", "/user", "").field(t, "access_token")
		call(t, sim, "GET", "/api/x", "", "X-Api-Key: "+token).is(t, 200, "")
		call(t, sim, "GET", "/api/x", "", "X-Api-Key: Tenant "+token).is(t, 403, "")
		call(t, sim, "GET", "/api/x", "", "Authorization: Tenant "+token).is(t, 403, "")
	})
}

func TestServerChecksParents(t *testing.T) {
	sim := authtest.NewSimulator(threeSteps())
	s := login(t, sim)
	user := func(headers ...string) reply {
		return call(t, sim, "POST", "/v1/user/token", `{"username":"ann","password":"pa55"}`, append(headers, asJSON)...)
	}
	r := user()
	r.is(t, 401, "invalid_token")
	if got := r.header.Get("WWW-Authenticate"); got != `Bearer realm="authtest"` {
		t.Errorf("challenge for a missing parent: %q", got)
	}
	for name, header := range map[string]string{
		"unknown":       "Authorization: Bearer app-1-guess",
		"another step":  "Authorization: Bearer " + s.device,
		"refresh token": "Authorization: Bearer " + s.refresh,
	} {
		r := user(header)
		r.is(t, 401, "invalid_token")
		if got := r.header.Get("WWW-Authenticate"); !strings.Contains(got, `error="invalid_token"`) {
			t.Errorf("%s: challenge is %q", name, got)
		}
	}
	call(t, sim, "POST", "/v1/app/token", "", basic("shop", "s3cr:t")).is(t, 401, "invalid_token")
	call(t, sim, "POST", "/v1/app/token", "", basic("shop", "s3cr:t"), "X-Device-Token: x", "X-Device-Token: y").is(t, 400, "invalid_request")

	if n := sim.Revoke("app"); n != 1 {
		t.Errorf("revoked %d", n)
	}
	user("Authorization: Bearer "+s.app).is(t, 401, "invalid_token")
	s = login(t, sim)
	if n := sim.Expire("app"); n != 1 {
		t.Errorf("expired %d", n)
	}
	user("Authorization: Bearer "+s.app).is(t, 401, "invalid_token")
	if got := sim.Stats().Steps["user"].Fetches; got.Refused != 6 || got.OK != 2 || got.Attempted != 8 {
		t.Errorf("counted %+v", got)
	}

	cfg := threeSteps()
	cfg.Steps[2].Refused = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(418) })
	call(t, authtest.NewSimulator(cfg), "POST", "/v1/user/token", `{}`, asJSON).is(t, 418, "")
}

func TestServerChecksCredentials(t *testing.T) {
	client := func(m authtest.ClientAuthMethod) func(*authtest.Step) {
		return func(st *authtest.Step) {
			st.ClientID, st.ClientSecret, st.ClientAuth = "sh:op", "s3 r:t", m
		}
	}
	form := func(st *authtest.Step) {
		st.Form = map[string]string{"grant_type": "password", "username": "ann", "password": "pa55"}
	}
	jsonStep := func(st *authtest.Step) {
		st.JSON = map[string]any{"user": map[string]any{"id": int64(9007199254740993)}, "password": "pa55", "client_id": "kiosk"}
	}
	both := func(a, b func(*authtest.Step)) func(*authtest.Step) {
		return func(st *authtest.Step) { a(st); b(st) }
	}
	good, inBody := basic("sh:op", "s3 r:t"), "client_id=sh%3Aop&client_secret=s3+r%3At"
	const goodForm = "grant_type=password&username=ann&password=pa55&more=1"
	const goodJSON = `{"user":{"id":9007199254740993},"password":"pa55","client_id":"kiosk","more":1}`

	for _, c := range []struct {
		name    string
		step    func(*authtest.Step)
		target  string // "POST /user" if empty
		body    string
		headers []string
		status  int
		code    string
	}{
		{"nothing wanted", nil, "", "", nil, 200, ""},
		{"nothing wanted, anything sent", nil, "", `{"a":1}`, []string{asJSON}, 200, ""},
		{"method", nil, "GET /user", "", nil, 405, "invalid_request"},
		{"own method", func(st *authtest.Step) { st.Method = "GET" }, "GET /user", "", nil, 200, ""},
		{"unknown content type", nil, "", "a", []string{"Content-Type: text/plain"}, 415, "invalid_request"},
		{"no content type", form, "", goodForm, nil, 415, "invalid_request"},
		{"bad JSON", nil, "", `{"a":`, []string{asJSON}, 400, "invalid_request"},
		{"two JSON values", nil, "", `{} {}`, []string{asJSON}, 400, "invalid_request"},
		{"JSON null", nil, "", `null`, []string{asJSON}, 400, "invalid_request"},
		{"JSON array", nil, "", `[]`, []string{asJSON}, 400, "invalid_request"},
		{"bad form", nil, "", `a=%zz`, []string{asForm}, 400, "invalid_request"},
		{"repeated parameter", form, "", goodForm + "&username=ann", []string{asForm}, 400, "invalid_request"},
		{"too large", form, "", goodForm + "&x=" + strings.Repeat("x", 1<<20), []string{asForm}, 413, "invalid_request"},
		{"secret in the URL", form, "POST /user?password=pa55", goodForm, []string{asForm}, 400, "invalid_request"},

		{"form", form, "", goodForm, []string{asForm}, 200, ""},
		{"form with a charset", form, "", goodForm, []string{asForm + "; charset=utf-8"}, 200, ""},
		{"form as JSON", form, "", `{"grant_type":"password","username":"ann","password":"pa55"}`, []string{asJSON}, 400, "invalid_request"},
		{"form without a body", form, "", "", nil, 400, "invalid_request"},
		{"form without a field", form, "", "grant_type=password&username=ann", []string{asForm}, 400, "invalid_request"},
		{"form with a wrong password", form, "", "grant_type=password&username=ann&password=no", []string{asForm}, 400, "invalid_grant"},
		{"another grant type", form, "", "grant_type=code&username=ann&password=pa55", []string{asForm}, 400, "unsupported_grant_type"},
		{"refresh where there is none", form, "", "grant_type=refresh_token&refresh_token=x", []string{asForm}, 400, "unsupported_grant_type"},
		{"login by refresh token", func(st *authtest.Step) {
			st.Form = map[string]string{"grant_type": "refresh_token", "refresh_token": "long-lived"}
		}, "", "grant_type=refresh_token&refresh_token=long-lived", []string{asForm}, 200, ""},

		{"JSON", jsonStep, "", goodJSON, []string{asJSON}, 200, ""},
		{"JSON subtype", jsonStep, "", goodJSON, []string{"Content-Type: application/vnd.api+json"}, 200, ""},
		{"JSON as form", jsonStep, "", "password=pa55", []string{asForm}, 415, "invalid_request"},
		{"JSON with a large number off by one", jsonStep, "", strings.Replace(goodJSON, "993", "992", 1), []string{asJSON}, 400, "invalid_grant"},
		{"JSON with a wrong client", jsonStep, "", strings.Replace(goodJSON, "kiosk", "stall", 1), []string{asJSON}, 401, "invalid_client"},

		{"any client: basic", client(authtest.AnyClientAuth), "", "", []string{good}, 200, ""},
		{"any client: body", client(authtest.AnyClientAuth), "", inBody, []string{asForm}, 200, ""},
		{"any client: JSON body", client(authtest.AnyClientAuth), "", `{"client_id":"sh:op","client_secret":"s3 r:t"}`, []string{asJSON}, 200, ""},
		{"any client: both", client(authtest.AnyClientAuth), "", inBody, []string{good, asForm}, 400, "invalid_request"},
		{"any client: none", client(authtest.AnyClientAuth), "", "", nil, 401, "invalid_client"},
		{"any client: wrong", client(authtest.AnyClientAuth), "", "", []string{basic("sh:op", "no")}, 401, "invalid_client"},
		{"any client: wrong in the body", client(authtest.AnyClientAuth), "", "client_id=sh%3Aop&client_secret=no", []string{asForm}, 401, "invalid_client"},
		{"any client: another", client(authtest.AnyClientAuth), "", "", []string{basic("stop", "s3 r:t")}, 401, "invalid_client"},
		{"basic, badly encoded", client(authtest.BasicClientAuth), "", "", []string{"Authorization: Basic c2glM0FvcDpzMyUlJQ=="}, 401, "invalid_client"},
		{"basic only: body", client(authtest.BasicClientAuth), "", inBody, []string{asForm}, 401, "invalid_client"},
		{"body only: basic", client(authtest.BodyClientAuth), "", "", []string{good}, 401, "invalid_client"},
		{"client before grant", both(client(authtest.AnyClientAuth), form), "", "grant_type=x", []string{asForm}, 401, "invalid_client"},
		{"client and form", both(client(authtest.AnyClientAuth), form), "", goodForm, []string{good, asForm}, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			sim := authtest.NewSimulator(oneStep(c.step))
			method, path, _ := strings.Cut(c.target, " ")
			if c.target == "" {
				method, path = "POST", "/user"
			}
			r := call(t, sim, method, path, c.body, c.headers...)
			r.is(t, c.status, c.code)
			for _, secret := range []string{"pa55", "s3 r:t", "long-lived"} {
				if strings.Contains(r.body, secret) {
					t.Errorf("a secret comes back: %s", r.body)
				}
			}
			if c.status == 405 && r.header.Get("Allow") != "POST" {
				t.Errorf("Allow is %q", r.header.Get("Allow"))
			}
			conf, challenge := oneStep(c.step).Steps[0], ""
			if c.code == "invalid_client" && conf.ClientID != "" && conf.ClientAuth != authtest.BodyClientAuth {
				challenge = `Basic realm="authtest"`
			}
			if got := r.header.Get("WWW-Authenticate"); got != challenge {
				t.Errorf("challenge is %q, want %q", got, challenge)
			}
			if c.status == 200 && r.header.Get("Cache-Control") != "no-store" {
				t.Error("a token may be cached")
			}
			want := authtest.Count{Attempted: 1, Refused: 1}
			if c.status == 200 {
				want = authtest.Count{Attempted: 1, OK: 1}
			}
			st := sim.Stats().Steps["user"]
			got := st.Fetches
			got.Attempted += st.Refreshes.Attempted
			got.Refused += st.Refreshes.Refused
			if got != want {
				t.Errorf("counted %+v, want %+v", got, want)
			}
		})
	}
}

func TestServerAnswerShapes(t *testing.T) {
	for _, c := range []struct {
		name  string
		step  func(*authtest.Step)
		want  string // with TOKEN and REFRESH for the tokens
		token string
	}{
		{"default", nil, `{"access_token":TOKEN,"token_type":"Bearer","expires_in":3600}`, "access_token"},
		{"string", func(st *authtest.Step) { st.Expiry = authtest.ExpiresInString }, `{"access_token":TOKEN,"token_type":"Bearer","expires_in":"3600"}`, ""},
		{"float", func(st *authtest.Step) { st.Expiry = authtest.ExpiresInFloat }, `{"access_token":TOKEN,"token_type":"Bearer","expires_in":3600.0}`, ""},
		{"fraction", func(st *authtest.Step) { st.Expiry, st.TTL = authtest.ExpiresInFloat, 1500*time.Millisecond }, `{"access_token":TOKEN,"token_type":"Bearer","expires_in":1.5}`, ""},
		{"RFC 3339", func(st *authtest.Step) { st.Expiry = authtest.ExpiresAtRFC3339 }, `{"access_token":TOKEN,"token_type":"Bearer","expires_at":"2000-01-01T01:00:00Z"}`, ""},
		{"Unix", func(st *authtest.Step) { st.Expiry = authtest.ExpiresAtUnix }, `{"access_token":TOKEN,"token_type":"Bearer","expires_at":946688400}`, ""},
		{"hidden", func(st *authtest.Step) { st.Expiry = authtest.ExpiryHidden }, `{"access_token":TOKEN,"token_type":"Bearer"}`, ""},
		{"for ever", func(st *authtest.Step) { st.TTL = 0 }, `{"access_token":TOKEN,"token_type":"Bearer"}`, ""},
		{"fields", func(st *authtest.Step) {
			st.TokenField, st.TypeField, st.ExpiryField = "data.1.token", "auth.kind", "auth.lease"
			st.RefreshTokens, st.RefreshField = true, "auth.renew"
			st.TokenType, st.Status = "DPoP", 201
			st.Extra = map[string]any{"auth": map[string]any{"user": "ann", "n": 7}}
		}, `{"data":[null,{"token":TOKEN}],"auth":{"kind":"DPoP","lease":3600,"renew":REFRESH,"user":"ann","n":7}}`, ""},
		{"number in an object", func(st *authtest.Step) {
			st.TokenField, st.Extra = "data.0", map[string]any{"data": map[string]any{}}
		}, `{"data":{"0":TOKEN},"token_type":"Bearer","expires_in":3600}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // a bubble begins at midnight, 2000-01-01, UTC
				r := call(t, authtest.NewSimulator(oneStep(c.step)), "POST", "/user", "")
				got := regexp.MustCompile(`"user-refresh-1-\w+"`).ReplaceAllString(r.body, `"REFRESH"`)
				got = regexp.MustCompile(`"user-1-\w+"`).ReplaceAllString(got, `"TOKEN"`)
				want := strings.NewReplacer("TOKEN", `"TOKEN"`, "REFRESH", `"REFRESH"`).Replace(c.want)
				if got, want := canonical(t, got), canonical(t, want); got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		})
	}
}

// canonical sorts a JSON object's fields, and leaves numbers as spelled.
func canonical(t *testing.T, s string) string {
	t.Helper()
	var v any
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestServerTokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(threeSteps())
		s := login(t, sim)
		time.Sleep(15*time.Minute - 1)
		s.get(t, sim).is(t, 200, "")
		time.Sleep(time.Nanosecond)
		s.get(t, sim).is(t, 401, "invalid_token")
		if st := sim.Stats().Steps; st["user"].Live != 0 || st["user"].LiveRefresh != 1 || st["app"].Live != 1 || st["device"].Live != 1 {
			t.Errorf("live: %+v", st)
		}
		time.Sleep(45 * time.Minute)
		call(t, sim, "POST", "/v1/user/token", `{"username":"ann","password":"pa55"}`, asJSON, "Authorization: Bearer "+s.app).is(t, 401, "invalid_token")
	})
}

func TestServerClockOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := oneStep(func(st *authtest.Step) { st.Expiry = authtest.ExpiresAtRFC3339 })
		cfg.ClockOffset = -2 * time.Hour
		sim := authtest.NewSimulator(cfg)
		r := call(t, sim, "POST", "/user", "")
		if got := r.header.Get("Date"); got != "Fri, 31 Dec 1999 22:00:00 GMT" {
			t.Errorf("Date is %s", got)
		}
		if got := r.field(t, "expires_at"); got != "1999-12-31T23:00:00Z" {
			t.Errorf("expires_at is %s", got)
		}
		call(t, sim, "GET", "/api", "", "Authorization: Bearer "+r.field(t, "access_token")).is(t, 200, "")
	})
}

func TestServerCascade(t *testing.T) {
	for _, cascade := range []bool{false, true} {
		t.Run(fmt.Sprint(cascade), func(t *testing.T) {
			cfg := threeSteps()
			cfg.Cascade = cascade
			sim := authtest.NewSimulator(cfg)
			s := login(t, sim)
			sim.Expire("app")
			s.get(t, sim).is(t, 200, "")
			sim.Revoke("device")
			api, refresh := 200, 200
			if cascade {
				api, refresh = 401, 400
			}
			s.get(t, sim).is(t, api, "")
			redeem(t, sim, s.refresh).is(t, refresh, "")
			login(t, sim).get(t, sim).is(t, 200, "")
		})
	}
}

func redeem(t *testing.T, sim *authtest.Simulator, refresh string) reply {
	t.Helper()
	return call(t, sim, "POST", "/v1/user/token", fmt.Sprintf(`{"grant_type":"refresh_token","refresh_token":%q}`, refresh), asJSON)
}

func TestServerRotatesRefreshTokens(t *testing.T) {
	sim := authtest.NewSimulator(threeSteps())
	s, other := login(t, sim), login(t, sim)
	r := redeem(t, sim, s.refresh)
	r.is(t, 200, "")
	user, next := r.field(t, "access_token"), r.field(t, "refresh_token")
	if st := sim.Stats().Steps["user"]; st.Live != 3 || st.LiveRefresh != 2 {
		t.Errorf("live: %+v", st)
	}
	s.get(t, sim).is(t, 200, "")
	session{user: user}.get(t, sim).is(t, 200, "")

	for range 2 { // the second time there is nothing left to kill
		redeem(t, sim, s.refresh).is(t, 400, "invalid_grant")
	}
	s.get(t, sim).is(t, 401, "invalid_token")
	session{user: user}.get(t, sim).is(t, 401, "invalid_token")
	redeem(t, sim, next).is(t, 400, "invalid_grant")
	other.get(t, sim).is(t, 200, "")
	redeem(t, sim, other.refresh).is(t, 200, "")

	st := sim.Stats()
	if st.FamiliesKilled != 1 {
		t.Errorf("families killed: %d", st.FamiliesKilled)
	}
	if got, want := st.Steps["user"].Refreshes, (authtest.Count{Attempted: 5, OK: 2, Refused: 3}); got != want {
		t.Errorf("refreshes %+v, want %+v", got, want)
	}
	if got, want := st.Steps["user"].Fetches, (authtest.Count{Attempted: 2, OK: 2}); got != want {
		t.Errorf("fetches %+v, want %+v", got, want)
	}
}

func TestServerRefreshVariants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(oneStep(func(st *authtest.Step) {
			st.RefreshTokens, st.RefreshPath, st.RefreshTTL = true, "/renew", 2*time.Hour
			st.Method = "GET"
			st.ClientID, st.ClientSecret = "shop", "s3cr:t"
		}))
		auth := basic("shop", "s3cr:t")
		refresh := call(t, sim, "GET", "/user", "", auth).field(t, "refresh_token")
		form := "refresh_token=" + refresh
		for range 2 { // without Rotate it can be used again
			r := call(t, sim, "POST", "/renew", form, asForm, auth)
			r.is(t, 200, "")
			if r.json(t)["refresh_token"] != nil {
				t.Error("a new refresh token without Rotate")
			}
			call(t, sim, "GET", "/api", "", "Authorization: Bearer "+r.field(t, "access_token")).is(t, 200, "")
		}
		call(t, sim, "POST", "/renew", "grant_type=refresh_token&"+form, asForm, auth).is(t, 200, "")
		call(t, sim, "POST", "/renew", `{"refresh_token":"`+refresh+`"}`, asJSON, auth).is(t, 200, "")
		call(t, sim, "POST", "/renew", "grant_type=password&"+form, asForm, auth).is(t, 400, "unsupported_grant_type")
		call(t, sim, "POST", "/renew", "", auth).is(t, 400, "invalid_request")
		call(t, sim, "POST", "/renew", "refresh_token=guess", asForm, auth).is(t, 400, "invalid_grant")
		call(t, sim, "POST", "/renew", form, asForm).is(t, 401, "invalid_client")
		call(t, sim, "GET", "/renew", "", auth).is(t, 405, "")
		time.Sleep(2 * time.Hour)
		call(t, sim, "POST", "/renew", form, asForm, auth).is(t, 400, "invalid_grant")

		refresh = call(t, sim, "GET", "/user", "", auth).field(t, "refresh_token")
		if n := sim.RevokeRefresh("user"); n != 1 {
			t.Errorf("revoked %d", n)
		}
		call(t, sim, "POST", "/renew", "refresh_token="+refresh, asForm, auth).is(t, 400, "invalid_grant")
		if got, want := sim.Stats().Steps["user"].Refreshes, (authtest.Count{Attempted: 11, OK: 4, Refused: 7}); got != want {
			t.Errorf("refreshes %+v, want %+v", got, want)
		}
	})

	cfg := threeSteps()
	sim := authtest.NewSimulator(cfg)
	s := login(t, sim)
	call(t, sim, "POST", "/v1/user/token", "grant_type=refresh_token&refresh_token="+s.refresh, asForm).is(t, 415, "invalid_request")
}

func TestServerRefuseAll(t *testing.T) {
	sim := authtest.NewSimulator(threeSteps())
	s := login(t, sim)
	sim.RefuseAll(true)
	for range 3 {
		s.get(t, sim).is(t, 401, "invalid_token")
		s = login(t, sim)
	}
	sim.RefuseAll(false)
	s.get(t, sim).is(t, 200, "")
}

func TestServerHoldsRefusals(t *testing.T) {
	everywhere(t, threeSteps(), func(t *testing.T, sim *authtest.Simulator) {
		const n = 20
		s := login(t, sim)
		sim.Revoke("user")
		gate := sim.HoldRefusals()
		if again := sim.HoldRefusals(); again != gate {
			t.Error("a second gate")
		}
		answers := make(chan int)
		for range n {
			go func() {
				r, err := try(t.Context(), sim, "GET", "/api", "", "Authorization: Bearer "+s.user)
				if err != nil {
					t.Error(err)
				}
				answers <- r.status
			}()
		}
		if err := gate.Await(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		// What is judged is the token, not the moment of the answer; and
		// what is live isn't held.
		login(t, sim).get(t, sim).is(t, 200, "")
		for i := range n / 2 {
			if got := gate.Release(1); got != 1 {
				t.Fatalf("released %d", got)
			}
			if got := <-answers; got != 401 {
				t.Errorf("answer %d is %d", i, got)
			}
			if got := gate.Held(); got != n-1-i {
				t.Errorf("%d are held", got)
			}
		}
		gate.Open()
		for range n / 2 {
			if got := <-answers; got != 401 {
				t.Errorf("answer is %d", got)
			}
		}
		s.get(t, sim).is(t, 401, "")
		if got := gate.Release(5); got != 0 {
			t.Errorf("released %d of none", got)
		}
		if got := sim.HoldRefusals(); got == gate {
			t.Error("an open gate holds again")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := gate.Await(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("Await: %v", err)
		}
	})
}

func TestServerHeldRequestsMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(threeSteps())
		gate := sim.HoldRefusals()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := try(ctx, sim, "GET", "/api", ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		synctest.Wait()
		if got := gate.Held(); got != 0 {
			t.Errorf("%d are held", got)
		}
	})
}

func TestServerCloseEndsWhatIsHeld(t *testing.T) {
	srv := authtest.NewServer(threeSteps())
	gate := srv.HoldRefusals()
	srv.Fail("user", authtest.Fault{Hang: true})
	srv.Fail("device", authtest.Fault{Delay: time.Hour})
	var wg sync.WaitGroup
	for _, path := range []string{"/api", "/v1/user/token", "/v1/device/register"} {
		wg.Go(func() {
			if r, err := try(t.Context(), srv.Simulator, "POST", path, "x"); err == nil {
				t.Errorf("%s: got an answer: %+v", path, r)
			}
		})
	}
	if err := gate.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for st := srv.Stats().Steps; st["user"].Fetches.Attempted == 0 || st["device"].Fetches.Attempted == 0; st = srv.Stats().Steps {
		runtime.Gosched() // until they have arrived
	}
	srv.Close()
	wg.Wait()
}

func TestServerFaults(t *testing.T) {
	everywhere(t, threeSteps(), func(t *testing.T, sim *authtest.Simulator) {
		device := func() (reply, error) { return try(t.Context(), sim, "POST", "/v1/device/register", "") }
		want := func(status int) reply {
			t.Helper()
			r, err := device()
			if err != nil || r.status != status {
				t.Fatalf("got %d, %v; want %d", r.status, err, status)
			}
			return r
		}

		sim.Fail("device",
			authtest.Fault{Status: 503, RetryAfter: 1500 * time.Millisecond, Times: 2},
			authtest.Fault{RetryAfter: time.Second, Times: 1, Body: "busy", ContentType: "text/plain", Header: http.Header{"X-Why": {"load"}}},
			authtest.Fault{HTML: true, Times: 1},
			authtest.Fault{Status: 502, HTML: true},
		)
		for range 2 {
			r := want(503)
			if r.header.Get("Retry-After") != "2" || r.header.Get("Content-Type") != "application/json" || r.body != "{}" {
				t.Errorf("got %+v", r)
			}
		}
		if r := want(503); r.header.Get("Retry-After") != "1" || r.header.Get("Content-Type") != "text/plain" || r.body != "busy" || r.header.Get("X-Why") != "load" {
			t.Errorf("got %+v", r)
		}
		if r := want(200); !strings.HasPrefix(r.body, "<!DOCTYPE html>") || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") || r.header.Get("X-Device-Token") != "" {
			t.Errorf("got %+v", r)
		}
		for range 3 {
			want(502)
		}
		sim.Fail("device")
		want(200)
		if got, want := sim.Stats().Steps["device"].Fetches, (authtest.Count{Attempted: 8, OK: 1, Failed: 7}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}

		s := login(t, sim)
		sim.FailAPI(authtest.Fault{Status: 500, Times: 1})
		s.get(t, sim).is(t, 500, "")
		s.get(t, sim).is(t, 200, "")
	})
}

func TestServerFaultsCutTheAnswer(t *testing.T) {
	everywhere(t, threeSteps(), func(t *testing.T, sim *authtest.Simulator) {
		s := login(t, sim)
		sim.Fail("user", authtest.Fault{Drop: true, Times: 1})
		if r, err := try(t.Context(), sim, "POST", "/v1/user/token", `{"grant_type":"refresh_token","refresh_token":"`+s.refresh+`"}`, asJSON); err == nil {
			t.Fatalf("got an answer: %+v", r)
		}
		// The answer was lost, but the refresh token was spent.
		redeem(t, sim, s.refresh).is(t, 400, "invalid_grant")
		if got := sim.Stats().FamiliesKilled; got != 1 {
			t.Errorf("families killed: %d", got)
		}

		sim.FailAPI(authtest.Fault{Reset: true, Times: 1})
		r, err := try(t.Context(), sim, "GET", "/api", "", "Authorization: Bearer "+login(t, sim).user)
		if !errors.Is(err, io.ErrUnexpectedEOF) || r.status != 200 || r.body == "" {
			t.Errorf("got %+v, %v", r, err)
		}
		sim.FailAPI(authtest.Fault{Reset: true, Status: 500, Body: "broken"})
		r, err = try(t.Context(), sim, "GET", "/api", "")
		if !errors.Is(err, io.ErrUnexpectedEOF) || r.status != 500 || r.body != "bro" {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}

func TestServerFaultsTakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(threeSteps())
		start := time.Now()
		sim.Fail("device", authtest.Fault{Delay: time.Minute, Times: 1}, authtest.Fault{Hang: true})
		call(t, sim, "POST", "/v1/device/register", "").is(t, 200, "")
		if got := time.Since(start); got != time.Minute {
			t.Errorf("took %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := try(ctx, sim, "POST", "/v1/device/register", ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		if got := time.Since(start); got != time.Hour+time.Minute {
			t.Errorf("took %v", got)
		}

		start = time.Now()
		sim.FailAPI(authtest.Fault{Drip: time.Second, Status: 500, Body: "abcdefghij"})
		req, _ := http.NewRequestWithContext(t.Context(), "GET", sim.URL+"/api", nil)
		resp, err := sim.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got != 0 || resp.ContentLength != 10 {
			t.Errorf("the header took %v", got)
		}
		b, err := io.ReadAll(resp.Body)
		if got := time.Since(start); err != nil || string(b) != "abcdefghij" || got != 10*time.Second {
			t.Errorf("got %q, %v after %v", b, err, got)
		}
		resp.Body.Close()

		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second+time.Second/2)
		defer cancel()
		if r, err := try(ctx, sim, "GET", "/api", ""); !errors.Is(err, context.DeadlineExceeded) || r.body != "abcde" {
			t.Errorf("got %q, %v", r.body, err)
		}
	})
}

func TestServerDown(t *testing.T) {
	everywhere(t, threeSteps(), func(t *testing.T, sim *authtest.Simulator) {
		s := login(t, sim)
		sim.Down(true)
		_, err := try(t.Context(), sim, "POST", "/v1/app/token", "")
		if err == nil {
			t.Error("the auth server is up")
		}
		if sim.URL == "https://auth.test" && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error is %v", err)
		}
		s.get(t, sim).is(t, 200, "")
		if got := sim.Stats().Steps["app"].Fetches; got.Attempted != 2 || got.Failed != 1 {
			t.Errorf("counted %+v", got)
		}
		sim.Down(false)
		login(t, sim)
	})
}

func TestServerLogHasNoTokens(t *testing.T) {
	synctest.Test(t, testServerLog)
}

func testServerLog(t *testing.T) {
	sim := authtest.NewSimulator(threeSteps())
	s := login(t, sim)
	s.get(t, sim)
	sim.Revoke("user")
	s.get(t, sim)
	sim.Fail("user", authtest.Fault{Hang: true, Times: 1}, authtest.Fault{Status: 500})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := try(ctx, sim, "POST", "/v1/user/token", "x"); err == nil {
		t.Error("no hang")
	}
	redeem(t, sim, s.refresh)
	sim.Down(true)
	try(t.Context(), sim, "POST", "/v1/app/token", "")

	var got []string
	for _, e := range sim.Log() {
		if e.Time.IsZero() || e.Method == "" || e.Path == "" {
			t.Errorf("event %+v", e)
		}
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %v %s %s %s", e.Step, e.Refresh, e.Outcome, e.Token, e.Reason)))
	}
	want := []string{
		"device false granted device-1",
		"app false granted app-1",
		"user false granted user-1",
		"false accepted user-1",
		"false refused  user-1 is revoked",
		"user false failed  fault: hang",
		"user true failed  fault: status 500",
		"app false failed  the auth server is down",
	}
	if !slices.Equal(got, want) {
		t.Errorf("log is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestServerPrintsNoSecrets(t *testing.T) {
	cfg := threeSteps()
	cfg.Steps[0].Form = map[string]string{"key": "pa55"}
	sim := authtest.NewSimulator(cfg)
	srv := authtest.NewServer(threeSteps())
	defer srv.Close()
	user := login(t, srv.Simulator).user
	for _, v := range []any{cfg, &cfg, cfg.Steps[1], sim, srv, srv.Stats(), srv.Log()} {
		var out bytes.Buffer
		fmt.Fprintf(&out, "%v %+v %#v ", v, v, v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		for _, secret := range []string{"s3cr:t", "pa55", user} {
			if strings.Contains(out.String(), secret) {
				t.Errorf("%T shows %q: %s", v, secret, out.String())
			}
		}
	}
}

func TestServerIsSafeForConcurrentUse(t *testing.T) {
	sim := authtest.NewSimulator(threeSteps())
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 10 {
				s := login(t, sim)
				s.get(t, sim).is(t, 200, "")
				redeem(t, sim, s.refresh).is(t, 200, "")
				sim.RevokeToken(s.user)
				s.get(t, sim).is(t, 401, "")
				sim.Stats()
				sim.Log()
				if i == 0 {
					sim.FailAPI(authtest.Fault{Delay: time.Microsecond, Times: 3})
				}
			}
		})
	}
	wg.Wait()
	st := sim.Stats()
	if st.API.OK != 160 || st.API.Refused != 160 || st.Steps["user"].Fetches.OK != 160 || st.Steps["user"].Refreshes.OK != 160 || st.Steps["user"].Live != 160 {
		t.Errorf("counted %+v", st)
	}
}

func TestServerConfigMistakes(t *testing.T) {
	step := func(change func(*authtest.Step)) authtest.Config { return oneStep(change) }
	two := func(a, b authtest.Step) authtest.Config { return authtest.Config{Steps: []authtest.Step{a, b}} }
	for want, cfg := range map[string]authtest.Config{
		"no steps":                         {},
		"there are two of that name":       two(authtest.Step{Name: "a"}, authtest.Step{Name: "a", Path: "/b"}),
		"unknown parent \"b\"":             two(authtest.Step{Name: "a"}, authtest.Step{Name: "c", Parents: map[string]string{"a": "A", "b": "B"}}),
		"more than one leaf: \"a\", \"b\"": two(authtest.Step{Name: "a"}, authtest.Step{Name: "b"}),
		"a cycle among the steps [\"a\" \"b\"]": two(
			authtest.Step{Name: "a", Parents: map[string]string{"b": "B"}},
			authtest.Step{Name: "b", Parents: map[string]string{"a": "A"}}),
		"path /x is taken by step \"a\"":  two(authtest.Step{Name: "a", Path: "/x"}, authtest.Step{Name: "b", Path: "/x", Parents: map[string]string{"a": "A"}}),
		"the name needs to be":            step(func(st *authtest.Step) { st.Name = "a b" }),
		"step \"\": the name needs to be": step(func(st *authtest.Step) { st.Name = "" }),
		"doesn't begin with a slash":      step(func(st *authtest.Step) { st.Path = "user" }),
		"prefix \"api\"":                  {Steps: oneStep(nil).Steps, API: authtest.API{Prefix: "api"}},
		"status 302":                      step(func(st *authtest.Step) { st.Status = 302 }),
		"a negative TTL":                  step(func(st *authtest.Step) { st.TTL = -1 }),
		"can't be told in whole seconds":  step(func(st *authtest.Step) { st.TTL = time.Millisecond }),
		"no such ExpiryFormat: 9":         step(func(st *authtest.Step) { st.Expiry = 9 }),
		"no such ClientAuthMethod: -1":    step(func(st *authtest.Step) { st.ClientAuth = -1 }),
		"a client secret without an id":   step(func(st *authtest.Step) { st.ClientSecret = "pa55" }),
		"need RefreshTokens":              step(func(st *authtest.Step) { st.Rotate = true }),
		"has no place in a response":      step(func(st *authtest.Step) { st.RefreshTokens, st.TokenHeader = true, "X" }),
		"needs a RefreshPath": step(func(st *authtest.Step) {
			st.RefreshTokens, st.Form = true, map[string]string{"grant_type": "refresh_token"}
		}),
		"both JSON and Form":                step(func(st *authtest.Step) { st.JSON, st.Form = map[string]any{}, map[string]string{} }),
		"JSON can't be encoded":             step(func(st *authtest.Step) { st.JSON = map[string]any{"a": func() {}} }),
		"Extra can't be encoded":            step(func(st *authtest.Step) { st.Extra = map[string]any{"a": func() {}} }),
		"field \"a..b\"":                    step(func(st *authtest.Step) { st.TokenField = "a..b" }),
		"field \"a.100\"":                   step(func(st *authtest.Step) { st.TokenField = "a.100" }),
		"no header for the token of parent": two(authtest.Step{Name: "a"}, authtest.Step{Name: "b", Parents: map[string]string{"a": ""}}),
		"share the header X-T": {Steps: []authtest.Step{{Name: "a"}, {Name: "b"},
			{Name: "c", Parents: map[string]string{"a": "X-T", "b": "x-t"}}}},
		"both want the Authorization header": two(authtest.Step{Name: "a"},
			authtest.Step{Name: "b", ClientID: "x", ClientAuth: authtest.BasicClientAuth, Parents: map[string]string{"a": "authorization"}}),
	} {
		t.Run(want, func(t *testing.T) {
			got := panicOf(func() { authtest.NewSimulator(cfg) })
			if !strings.HasPrefix(got, "authtest: ") || !strings.Contains(got, want) || strings.Contains(got, "pa55") {
				t.Errorf("panic is %q", got)
			}
			if panicOf(func() { authtest.NewServer(cfg) }) != got {
				t.Error("NewServer takes it")
			}
		})
	}

	t.Run("all at once", func(t *testing.T) {
		got := panicOf(func() {
			authtest.NewSimulator(two(authtest.Step{Name: "a", TTL: -1}, authtest.Step{Name: "b", Status: 500}))
		})
		for _, want := range []string{"TTL", "500", "leaf"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q isn't in %q", want, got)
			}
		}
	})

	sim := authtest.NewSimulator(oneStep(nil))
	for want, f := range map[string]func(){
		`no step "usr"`:    func() { sim.Revoke("usr") },
		`no step "usre"`:   func() { sim.Fail("usre") },
		"negative":         func() { sim.Fail("user", authtest.Fault{Times: -1}) },
		"with status 1000": func() { sim.FailAPI(authtest.Fault{Status: 1000}) },
	} {
		if got := panicOf(f); !strings.Contains(got, want) {
			t.Errorf("panic is %q, want %q", got, want)
		}
	}
}

func panicOf(f func()) (message string) {
	defer func() {
		if v := recover(); v != nil {
			message = fmt.Sprint(v)
		}
	}()
	f()
	return ""
}
