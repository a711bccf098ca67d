// A resource server that asks for a scope, and for a stronger login (RFC 9470), in front of
// oidc-provider.

package servers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/interop/servers"
	"github.com/requestforge/requestforge/oauth2source"
)

// guard is a resource server that asks s about each token: /pay wants a scope, and
// /transfer a login with acr mfa, too.
func guard(t *testing.T, s *servers.Server) *httptest.Server {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		_, said := post(t, s, s.IntrospectURL, url.Values{"token": {token}})
		scope, _ := said["scope"].(string)
		challenge := func(status int, text string) {
			w.Header().Set("WWW-Authenticate", "Bearer "+text)
			w.WriteHeader(status)
		}
		switch {
		case said["active"] != true:
			challenge(401, `error="invalid_token"`)
		case r.URL.Path == "/transfer" && said["acr"] != "mfa":
			challenge(401, `error="insufficient_user_authentication", acr_values="mfa", max_age="300"`)
		case r.URL.Path != "/orders" && !slices.Contains(strings.Fields(scope), "pay"):
			challenge(403, `error="insufficient_scope", scope="pay"`)
		case r.URL.Path == "/admin":
			challenge(403, `error="insufficient_scope", scope="admin"`)
		default:
			json.NewEncoder(w).Encode(said)
		}
	}))
	t.Cleanup(api.Close)
	return api
}

func TestStepUpAtAResourceServer(t *testing.T) {
	s, err := servers.Start(t.Context(), "oidc-provider")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	api := guard(t, s)
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name: "user", AnswersChallenges: true,
		Fetcher: oauth2source.Password(oauth2source.Config{
			TokenURL:   s.TokenURL,
			ClientAuth: &requestforge.ClientAuth{ID: s.ClientID, Secret: s.ClientSecret},
			Scopes:     []string{"api"}, MaxScopes: []string{"pay"},
		}, s.Username, s.Password),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: api.URL, Source: tokens})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: transport}
	seen := ""
	get := func(path string) string {
		resp, err := client.Get(path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var said struct{ Scope, Acr string }
		json.NewDecoder(resp.Body).Decode(&said)
		return fmt.Sprint(resp.StatusCode, " ", said.Scope, " ", said.Acr)
	}
	for _, step := range []struct{ path, want string }{
		{"/orders", "200 api "},
		{"/pay", "200 api pay "},
		{"/transfer", "200 api pay mfa"},
		{"/orders", "200 api pay mfa"},
		{"/admin", "403  "}, // which nobody asks the server for
		{"/admin", "403  "}, // nor for another token
		{"revoke", ""},
		{"/transfer", "200 api pay mfa"}, // the next login is asked for all of it at once
	} {
		if step.path == "revoke" {
			tok, err := tokens.Token(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if seen = tok.AccessToken; !revoked(t, s, seen) {
				t.Fatal("not revoked")
			}
			continue
		}
		if got := get(step.path); got != step.want {
			t.Errorf("%s: %q, want %q", step.path, got, step.want)
		}
	}
	stats := tokens.Stats().Steps["user"]
	if stats.Challenges != 3 || stats.Fetches != 5 {
		t.Errorf("%+v", stats)
	}
}

// revoked revokes a token, and reports whether the server has.
func revoked(t *testing.T, s *servers.Server, token string) bool {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.RevokeURL, strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(s.ClientID, s.ClientSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
