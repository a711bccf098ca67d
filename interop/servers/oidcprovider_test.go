package servers_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/requestforge/requestforge/interop/servers"
)

// post sends a form as the server's client and returns the status and what is
// in the JSON of the answer.
func post(t *testing.T, s *servers.Server, to string, form url.Values) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(s.ClientID, s.ClientSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return resp.StatusCode, answer
}

// ask asks the resource with a token, or without if it is "".
func ask(t *testing.T, to, token string) (status int, challenge string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("WWW-Authenticate")
}

func TestOIDCProviderGivesOutOpaqueTokensAndJWTs(t *testing.T) {
	s, err := servers.StartOIDCProvider(t.Context(), 90*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"api"}}
	_, opaque := post(t, s, s.TokenURL, form)
	form.Set("resource", s.ResourceURL)
	_, jwt := post(t, s, s.TokenURL, form)
	for _, tok := range []struct {
		answer map[string]any
		dots   int
	}{{opaque, 0}, {jwt, 2}} {
		value, _ := tok.answer["access_token"].(string)
		if strings.Count(value, ".") != tok.dots || tok.answer["expires_in"] != 90.0 {
			t.Fatalf("want %d dots and 90 s, got %v", tok.dots, tok.answer)
		}
		if status, _ := ask(t, s.ResourceURL, value); status != http.StatusOK {
			t.Errorf("the resource says %d", status)
		}
		if status, challenge := ask(t, s.ResourceURL, value+"x"); status != http.StatusUnauthorized || !strings.Contains(challenge, `error="invalid_token"`) {
			t.Errorf("the resource says %d, %s to a token that is no token", status, challenge)
		}
	}
	if status, challenge := ask(t, s.ResourceURL, ""); status != http.StatusUnauthorized || challenge == "" || strings.Contains(challenge, "error") {
		t.Errorf("the resource says %d, %s without a token", status, challenge)
	}
}

func TestOIDCProviderKillsTheFamilyOfAReusedRefreshToken(t *testing.T) {
	s, err := servers.Start(t.Context(), "oidc-provider")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	status, first := post(t, s, s.TokenURL, url.Values{
		"grant_type": {"password"}, "username": {s.Username}, "password": {s.Password}, "scope": {"api"}})
	if status != http.StatusOK {
		t.Fatalf("the login: %d", status)
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first["refresh_token"].(string)}}
	status, second := post(t, s, s.TokenURL, form)
	if status != http.StatusOK || second["refresh_token"] == first["refresh_token"] {
		t.Fatalf("the first use: %d", status)
	}
	if status, answer := post(t, s, s.TokenURL, form); status != http.StatusBadRequest || answer["error"] != "invalid_grant" {
		t.Errorf("the second use: %d %v", status, answer)
	}
	if status, _ := ask(t, s.ResourceURL, second["access_token"].(string)); status != http.StatusUnauthorized {
		t.Errorf("the resource says %d to the access token of the family", status)
	}
	form.Set("refresh_token", second["refresh_token"].(string))
	if status, answer := post(t, s, s.TokenURL, form); status != http.StatusBadRequest || answer["error"] != "invalid_grant" {
		t.Errorf("the refresh token of the family: %d %v", status, answer)
	}
}

func TestOIDCProviderApprovesNoUnknownCode(t *testing.T) {
	s, err := servers.Start(t.Context(), "oidc-provider")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Approve(t.Context(), "AAAA-AAAA"); err == nil {
		t.Error("a code that nobody has got was approved")
	}
}

func TestCloseEndsTheProcess(t *testing.T) {
	for _, name := range []string{"docker-registry", "oidc-provider"} {
		s, err := servers.Start(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := http.Get(s.ResourceURL); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s still answers: %v", name, err)
		}
	}
}

func TestStartEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, name := range []string{"docker-registry", "oidc-provider"} {
		if s, err := servers.Start(ctx, name); err == nil {
			s.Close()
			t.Errorf("%s started", name)
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

func TestLockOfTheModulesNamesNoRegistry(t *testing.T) {
	lock, err := os.ReadFile("oidcprovider/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(lock, []byte(`"integrity": "sha512-`)) || bytes.Contains(lock, []byte(`"resolved"`)) {
		t.Error("it should say what is installed, and leave open from where: see .npmrc")
	}
}
