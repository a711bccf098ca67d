package oauth2source_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
)

// Every grant asks for what a challenge wants, as far as the client may; the refresh grant for
// claims alone.
func TestGrantAsksForWhatAChallengeWants(t *testing.T) {
	e := newEndpoint(t, nil)
	cfg := oauth2source.Config{
		TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: "s"},
		Scopes: []string{"read"}, MaxScopes: []string{"write", "pay"},
		Params: url.Values{"claims": {`{"access_token":{"xms_cc":{"values":["cp1"]}}}`}, "acr_values": {"pwd"}, "resource": {"https://a.test"}},
	}
	in := requestforge.Input{
		Parents: map[string]*requestforge.Token{"app": bearer("parent")}, Previous: &requestforge.Token{AccessToken: "old", RefreshToken: "r"},
		Challenge: map[string]string{
			"error": "insufficient_scope", "scope": "pay read admin", "acr_values": "mfa", "max_age": "5", "resource": "https://b.test",
			"claims": `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`, "resource_metadata": "https://b.test/meta", "username": "eve", "grant_type": "password",
		},
	}
	claims := `{"access_token":{"nbf":{"essential":true,"value":"1604106651"},"xms_cc":{"values":["cp1"]}}}`
	for name, g := range map[string]*oauth2source.Grant{
		"client credentials": oauth2source.ClientCredentials(cfg),
		"password":           oauth2source.Password(cfg, "ann", "p"),
		"JWT bearer":         oauth2source.JWTBearer(cfg, oauth2source.FromStep("app")),
		"token exchange":     oauth2source.TokenExchange(cfg, oauth2source.Exchange{Subject: oauth2source.FromStep("app")}),
		"refresh":            oauth2source.Refresh(cfg),
	} {
		if _, err := g.Fetch(t.Context(), in); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		form, _ := e.last()
		want := map[string]string{"scope": "[read pay]", "acr_values": "[mfa]", "max_age": "[5]", "resource": "[https://a.test https://b.test]", "claims": "[" + claims + "]"}
		if name == "refresh" {
			want = map[string]string{"scope": "[]", "acr_values": "[pwd]", "max_age": "[]", "resource": "[https://a.test]", "claims": "[" + claims + "]"}
		}
		want["resource_metadata"], want["error"] = "[]", "[]"
		for param, value := range want {
			if got := fmt.Sprint(form[param]); got != value {
				t.Errorf("%s: %s is %s, want %s", name, param, got, value)
			}
		}
		if form.Get("username") == "eve" || form.Get("grant_type") == "password" && name != "password" {
			t.Errorf("%s: a challenge has set %v", name, form)
		}
	}
}

func TestDeviceCodeAsksForWhatAChallengeWants(t *testing.T) {
	e := newEndpoint(t, func(n int, form url.Values) (int, string) {
		return 400, `{"error":"invalid_request"}`
	})
	g := oauth2source.DeviceCode(oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "app"}, Scopes: []string{"read"}, MaxScopes: []string{"pay"}}, e.URL,
		func(context.Context, *oauth2.DeviceAuthResponse) error { return nil })
	g.Fetch(t.Context(), requestforge.Input{Challenge: map[string]string{"scope": "pay admin", "acr_values": "mfa", "error": "insufficient_scope"}})
	form, _ := e.last()
	if got := form.Get("scope") + " " + form.Get("acr_values"); got != "read pay mfa" {
		t.Errorf("asked for %q", got)
	}
}

// What an API asks for can't lead to a scope that the client doesn't want to have, nor to
// anything but a JSON object as claims.
func TestGrantAsksForNoScopeBeyondMaxScopes(t *testing.T) {
	e := newEndpoint(t, nil)
	for name, c := range map[string]struct {
		max       []string
		challenge map[string]string
		scope     string // "": nothing is sent
		claims    string
	}{
		"beside one that it may":     {[]string{"pay"}, map[string]string{"error": "insufficient_scope", "scope": "admin pay"}, "read pay", ""},
		"none that it may":           {[]string{"pay"}, map[string]string{"error": "insufficient_scope", "scope": "admin root"}, "", ""},
		"no MaxScopes":               {nil, map[string]string{"error": "insufficient_scope", "scope": "pay"}, "", ""},
		"one of Scopes":              {nil, map[string]string{"error": "insufficient_scope", "scope": "read"}, "read", ""},
		"at a renewal":               {nil, map[string]string{"scope": "pay"}, "read", ""},
		"beside another wish":        {nil, map[string]string{"error": "insufficient_scope", "scope": "pay", "acr_values": "mfa"}, "read", ""},
		"claims that are no object":  {nil, map[string]string{"claims": `["x"]`}, "read", ""},
		"claims with more behind":    {nil, map[string]string{"claims": `{} {}`}, "read", ""},
		"claims that are null":       {nil, map[string]string{"claims": `null`}, "read", ""},
		"claims that are too long":   {nil, map[string]string{"claims": `{"a":"` + strings.Repeat("x", 9000) + `"}`}, "read", ""},
		"claims":                     {nil, map[string]string{"claims": `{"a":1.0}`}, "read", `{"a":1.0}`},
		"parameters of another name": {nil, map[string]string{"client_id": "eve", "Scope": "admin"}, "read", ""},
	} {
		before := e.requests()
		g := oauth2source.ClientCredentials(oauth2source.Config{TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: "s"}, Scopes: []string{"read"}, MaxScopes: c.max})
		_, err := g.Fetch(t.Context(), requestforge.Input{Challenge: c.challenge})
		if sent := e.requests() > before; sent != (c.scope != "") || sent == (err != nil) {
			t.Errorf("%s: sent %t, %v", name, sent, err)
			continue
		}
		if c.scope == "" {
			if text := err.Error(); strings.Contains(text, "admin") || !strings.Contains(text, "Config.MaxScopes") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		form, _ := e.last()
		if form.Get("scope") != c.scope || form.Get("claims") != c.claims || form.Has("client_id") {
			t.Errorf("%s: asked for %v", name, form)
		}
	}
}

func TestMaxScopesMistakesAreErrors(t *testing.T) {
	for name, cfg := range map[string]oauth2source.Config{
		"without Scopes":             {MaxScopes: []string{"pay"}},
		"holds a blank":              {Scopes: []string{"read"}, MaxScopes: []string{"p y"}},
		"Config.MaxScopes has one t": {Scopes: []string{"read"}, MaxScopes: []string{""}},
	} {
		cfg.TokenURL, cfg.ClientAuth = "https://auth.test", &requestforge.ClientAuth{ID: "app", Secret: "s"}
		if err := oauth2source.ClientCredentials(cfg).Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Tokens that may have more rights are another identity's.
	cfg := oauth2source.Config{TokenURL: "https://auth.test", ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: "s"}, Scopes: []string{"read"}}
	plain := oauth2source.ClientCredentials(cfg).Identity()
	cfg.MaxScopes = []string{"pay"}
	if g := oauth2source.ClientCredentials(cfg); g.Identity() == plain || !strings.Contains(g.String(), `up to scopes ["pay"]`) {
		t.Errorf("%v has the identity of a grant without MaxScopes", g)
	}
}

// The whole way: an API asks for a scope, and for claims as Entra does.
func TestChallengeIsAnsweredByAGrant(t *testing.T) {
	e := newEndpoint(t, nil)
	claims := base64.StdEncoding.EncodeToString([]byte(`{"access_token":{"nbf":{"essential":true}}}`))
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		challenge := map[string]string{
			"Bearer token-1": `Bearer error="insufficient_scope", scope="pay"`,
			"Bearer token-2": `Bearer error="insufficient_claims", claims="` + claims + `"`,
		}[r.Header.Get("Authorization")]
		if challenge != "" {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer api.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{Name: "app", AnswersChallenges: true, Fetcher: oauth2source.ClientCredentials(oauth2source.Config{
		TokenURL: e.URL, ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: "s"}, Scopes: []string{"read"}, MaxScopes: []string{"pay"},
	})}}})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &requestforge.AuthTransport{Source: tokens, Origins: []string{api.URL}, Retry: requestforge.SimpleAuthRetry(2, 0)}}
	resp, err := client.Get(api.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	form, _ := e.last()
	if resp.StatusCode != 200 || e.requests() != 3 || form.Get("scope") != "read pay" || form.Get("claims") != `{"access_token":{"nbf":{"essential":true}}}` {
		t.Errorf("%s after %d requests, the last with %v", resp.Status, e.requests(), form)
	}
}
