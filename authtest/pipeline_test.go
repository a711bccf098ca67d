package authtest_test

import (
	"net/http"
	"testing"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// logins are as different as the simulator can make them.
var logins = map[string]func() authtest.Config{
	"header, basic, JSON, Authorization": threeSteps,
	"forms": func() authtest.Config {
		return authtest.Config{Steps: []authtest.Step{{
			Name: "app", ClientID: "shop", ClientSecret: "s3 r:t", ClientAuth: authtest.BodyClientAuth,
			Form: map[string]string{"grant_type": "client_credentials"}, Expiry: authtest.ExpiresAtRFC3339, TTL: month,
		}, {
			Name: "user", Parents: map[string]string{"app": "X-App"}, ClientID: "shop", ClientSecret: "s3 r:t",
			Form: map[string]string{"grant_type": "password", "username": "ann", "password": "pa55"},
			TTL:  month, Expiry: authtest.ExpiresInString, RefreshTokens: true, Rotate: true, RefreshPath: "/renew",
		}}}
	},
	"nested fields, diamond": func() authtest.Config {
		return authtest.Config{Steps: []authtest.Step{
			{Name: "root", TokenField: "auth.client_token", Expiry: authtest.ExpiryHidden, TTL: month},
			{Name: "left", Parents: map[string]string{"root": "X-Root"}, TokenField: "data.0.token", Expiry: authtest.ExpiresInFloat, TTL: month},
			{Name: "right", Parents: map[string]string{"root": "Authorization"}, ClientID: "shop", ClientSecret: "s3cr:t",
				JSON: map[string]any{"scope": "all"}, TokenField: "token", Expiry: authtest.ExpiresAtUnix, TTL: month},
			{Name: "leaf", Parents: map[string]string{"left": "X-Left", "right": "X-Right"}, ClientID: "public",
				JSON: map[string]any{"device": 7}, RefreshTokens: true, RefreshField: "renew", TTL: month, TokenType: "Tenant"},
		}}
	},
	"cookie and CSRF value": func() authtest.Config {
		return authtest.Config{Steps: []authtest.Step{
			{Name: "page", Method: "GET", Body: authtest.HTMLBody, TokenCookie: "pre", Values: map[string]authtest.Value{"csrf": {Field: "form.csrf"}}},
			{Name: "login", TokenCookie: "session", Form: map[string]string{"user": "ann", "password": "pa55"},
				Values: map[string]authtest.Value{"csrf": {Header: "X-Csrf-Token"}},
				Wants:  []authtest.Place{{Step: "page", Cookie: "pre"}, {Step: "page", Value: "csrf", Field: "csrf"}}},
		}, API: authtest.API{Wants: []authtest.Place{{Cookie: "session"}, {Header: "X-Csrf-Token", Value: "csrf"}}}}
	},
	"CSRF value in a cookie": func() authtest.Config {
		return authtest.Config{Steps: []authtest.Step{
			{Name: "login", TokenField: "data.sid", JSON: map[string]any{"user": "ann"}, TTL: month, Values: map[string]authtest.Value{"csrf": {Cookie: "csrftoken"}}},
		}, API: authtest.API{Wants: []authtest.Place{{Cookie: "sid"}, {Cookie: "csrftoken", Value: "csrf"}, {Header: "X-CSRFToken", Value: "csrf"}}}}
	},
	"query, keys of one's own": func() authtest.Config {
		return authtest.Config{Steps: []authtest.Step{
			{Name: "app", Method: "GET", Body: authtest.JSONStringBody, Wants: []authtest.Place{{Query: "secret", Text: "pa55"}, {Header: "X-Key", Text: "k3y"}}},
			{Name: "user", JSON: map[string]any{"user": "ann"}, TokenField: "authToken", TypeField: "-", RefreshTokens: true, Values: map[string]authtest.Value{"account": {Field: "account.0.id"}},
				Wants: []authtest.Place{{Step: "app", Header: "Authorization", Bare: true}, {Field: "key", Text: "k3y"}, {Cookie: "key", Text: "k3y"}}},
		}, API: authtest.API{Wants: []authtest.Place{{Query: "authToken"}, {Query: "account_id", Value: "account"}, {Header: "X-Key", Text: "k3y"}}}}
	},
	"text, bare": func() authtest.Config {
		return authtest.Config{Steps: []authtest.Step{
			{Name: "app", TokenCookie: "app", ExpiryField: "validity", TTL: month},
			{Name: "user", Body: authtest.TextBody, Wants: []authtest.Place{{Step: "app", Query: "app"}}},
		}, API: authtest.API{Wants: []authtest.Place{{Header: "Authorization", Bare: true}}}}
	},
	"XML": func() authtest.Config {
		return authtest.Config{Steps: []authtest.Step{{
			Name: "user", Body: authtest.XMLBody, TokenField: "r.auth.key", RefreshTokens: true, RefreshField: "r.auth.next", Rotate: true,
			TTL: month, Expiry: authtest.ExpiresAtRFC3339, ExpiryField: "r.until", Values: map[string]authtest.Value{"id": {Field: "r.id"}},
		}}, API: authtest.API{Wants: []authtest.Place{{Header: "X-Api-Key", Scheme: "key"}, {Header: "X-Id", Value: "id"}}}}
	},
	"instance of a parent": func() authtest.Config {
		return authtest.Config{Steps: []authtest.Step{
			{Name: "login", Instances: []string{"/eu"}, InstanceField: "instance_url"},
			{Name: "tenant", Path: "/eu/tenant", Parents: map[string]string{"login": "Authorization"}},
		}}
	},
}

// TestStepsLogIn sees a pipeline log in by the steps that the simulator made,
// renew a token that was revoked, and redeem a refresh token.
func TestStepsLogIn(t *testing.T) {
	for name, login := range logins {
		t.Run(name, func(t *testing.T) {
			everywhere(t, login(), func(t *testing.T, sim *authtest.Simulator) {
				steps := sim.Steps()
				leaf := steps[len(steps)-1].Name
				tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: steps})
				if err != nil {
					t.Fatal(err)
				}
				transport, err := requestforge.NewTransport(requestforge.Config{
					Base: sim.Client().Transport, BaseURL: sim.URL, Source: tokens, Attach: sim.Attach(""),
				})
				if err != nil {
					t.Fatal(err)
				}
				client := &http.Client{Transport: transport}
				get := func() {
					t.Helper()
					resp, err := client.Get("/api/things")
					if err != nil {
						t.Fatal(err)
					}
					resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						t.Fatalf("status is %d", resp.StatusCode)
					}
				}

				get()
				get()
				for _, st := range steps {
					if got, want := sim.Stats().Steps[st.Name].Fetches, (authtest.Count{Attempted: 1, OK: 1}); got != want {
						t.Errorf("step %s: %+v, want %+v", st.Name, got, want)
					}
				}

				sim.Revoke(leaf)
				get()
				st := sim.Stats()
				again := st.Steps[leaf].Refreshes
				if steps[len(steps)-1].Refresh == nil {
					again = st.Steps[leaf].Fetches
					again.Attempted, again.OK = again.Attempted-1, again.OK-1
				}
				if want := (authtest.Count{Attempted: 1, OK: 1}); again != want {
					t.Errorf("after the revocation %+v, want %+v", again, want)
				}
				if got, want := st.API, (authtest.Count{Attempted: 4, OK: 3, Refused: 1}); got != want {
					t.Errorf("API %+v, want %+v", got, want)
				}
				if st.FamiliesKilled != 0 {
					t.Error("a refresh token was used twice")
				}
			})
		})
	}
}

// TestAttachOfSeveralSteps sees each step get its own places, and the first
// one the texts.
func TestAttachOfSeveralSteps(t *testing.T) {
	sim := authtest.NewSimulator(authtest.Config{
		Steps: []authtest.Step{{Name: "gate", Body: authtest.TextBody}, {Name: "user", Values: map[string]authtest.Value{"csrf": {Header: "x-csrf"}}}},
		API: authtest.API{Wants: []authtest.Place{
			{Query: "key", Text: "k3y"}, {Step: "user", Header: "Authorization"}, {Step: "user", Cookie: "csrf", Value: "csrf"}, {Step: "gate", Header: "X-Gate", Scheme: "Gate"},
		}},
	})
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: sim.Steps()})
	if err != nil {
		t.Fatal(err)
	}
	gate := &requestforge.AuthTransport{Base: sim.Transport(), Source: tokens.Source("gate"), Origins: []string{sim.URL}, Attach: sim.Attach("gate")}
	transport, err := requestforge.NewTransport(requestforge.Config{Base: gate, BaseURL: sim.URL, Source: tokens.Source("user"), Attach: sim.Attach("user")})
	if err != nil {
		t.Fatal(err)
	}
	if got := [2]int{len(sim.Attach("user")), len(sim.Attach("gate"))}; got != [2]int{3, 1} {
		t.Errorf("%d places, want 3 and 1", got)
	}
	for _, revoked := range []string{"gate", "user", ""} {
		resp, err := (&http.Client{Transport: transport}).Get("/api")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("before %q is revoked: %d, %s", revoked, resp.StatusCode, lastReason(sim))
		}
		if revoked != "" {
			sim.Revoke(revoked)
		}
	}
	if got := panicOf(func() { sim.Attach("") }); got != `authtest: no step ""` {
		t.Errorf("panic is %q", got)
	}
}
