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
					Base: sim.Client().Transport, BaseURL: sim.URL, Tokens: tokens,
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
				if got, want := st.Steps[leaf].Refreshes, (authtest.Count{Attempted: 1, OK: 1}); got != want {
					t.Errorf("refreshes %+v, want %+v", got, want)
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
