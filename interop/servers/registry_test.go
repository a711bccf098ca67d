package servers_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/requestforge/requestforge/interop/servers"
)

// realm asks the token server of r and returns the status and the token.
func realm(t *testing.T, r *servers.Registry, authorize func(*http.Request), query url.Values) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.TokenURL+"?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	authorize(req)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"token"`
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode, answer.Token
}

func basic(id, secret string) func(*http.Request) {
	return func(req *http.Request) { req.SetBasicAuth(id, secret) }
}

func bearer(token string) func(*http.Request) {
	return func(req *http.Request) { req.Header.Set("Authorization", "Bearer "+token) }
}

func TestRegistryNamesItsTokenServerAndTakesItsTokensAlone(t *testing.T) {
	r, err := servers.StartRegistry(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	status, challenge := ask(t, r.ResourceURL, "")
	if want := `Bearer realm="` + r.TokenURL + `",service="` + r.Service + `"`; status != http.StatusUnauthorized || challenge != want {
		t.Errorf("without a token: %d %s, want %s", status, challenge, want)
	}
	service := url.Values{"service": {r.Service}}
	status, token := realm(t, r, basic(r.ClientID, r.ClientSecret), service)
	if status != http.StatusOK {
		t.Fatalf("the token server says %d", status)
	}
	if status, challenge := ask(t, r.ResourceURL, token); status != http.StatusOK {
		t.Errorf("the registry says %d %s to a live token", status, challenge)
	}
	if status, challenge := ask(t, r.ResourceURL, token+"x"); status != http.StatusUnauthorized || !strings.Contains(challenge, `error="invalid_token"`) {
		t.Errorf("the registry says %d %s to a token with another signature", status, challenge)
	}
	r.ShortenTokens(-1)
	_, token = realm(t, r, basic(r.ClientID, r.ClientSecret), service)
	if status, challenge := ask(t, r.ResourceURL, token); status != http.StatusUnauthorized || !strings.Contains(challenge, `error="invalid_token"`) {
		t.Errorf("the registry says %d %s to an expired token", status, challenge)
	}

	for name, authorize := range map[string]func(*http.Request){
		"nobody":         func(*http.Request) {},
		"a wrong secret": basic(r.ClientID, "x"),
		"a bearer":       bearer("x"), // there is nobody to ask about it
	} {
		if status, _ := realm(t, r, authorize, service); status != http.StatusUnauthorized {
			t.Errorf("the token server says %d to %s", status, name)
		}
	}
}

func TestRegistryTakesAUsersTokenFromAnotherServer(t *testing.T) {
	users, err := servers.Start(t.Context(), "oidc-provider")
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close()
	r, err := servers.StartRegistry(t.Context(), users)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	service := url.Values{"service": {r.Service}}
	_, app := post(t, users, users.TokenURL, url.Values{"grant_type": {"client_credentials"}, "scope": {"api"}})
	_, user := post(t, users, users.TokenURL, url.Values{
		"grant_type": {"password"}, "username": {users.Username}, "password": {users.Password}})
	token := user["access_token"].(string)
	if status, _ := realm(t, r, bearer(app["access_token"].(string)), service); status != http.StatusUnauthorized {
		t.Errorf("the token server says %d to an app", status)
	}
	if status, _ := realm(t, r, bearer(token), service); status != http.StatusOK {
		t.Errorf("the token server says %d to a user", status)
	}
	users.Close()
	if status, _ := realm(t, r, bearer(token), service); status != http.StatusBadGateway {
		t.Errorf("the token server says %d if it can't know", status)
	}
}
