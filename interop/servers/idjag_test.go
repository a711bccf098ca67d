package servers_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/requestforge/requestforge/interop/servers"
)

// TestIDJAGIsForItsServerAlone looks whether the servers are as strict as the flows need:
// what goes through a lenient one shows nothing.
func TestIDJAGIsForItsServerAlone(t *testing.T) {
	const token = "urn:ietf:params:oauth:token-type:"
	for _, name := range []string{"oidc-provider", "zitadel"} {
		t.Run(name, func(t *testing.T) {
			idp, err := servers.Start(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			defer idp.Close()
			next, err := idp.Users.StartNext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer next.Close()
			access, id, err := idp.Users.Login(t.Context(), "ann")
			if err != nil {
				t.Fatal(err)
			}
			exchange := func(subject, typ, audience string) (int, map[string]any) {
				return post(t, idp, idp.TokenURL, url.Values{
					"grant_type":    {"urn:ietf:params:oauth:grant-type:token-exchange"},
					"subject_token": {subject}, "subject_token_type": {token + typ},
					"requested_token_type": {token + "id-jag"}, "audience": {audience}, "scope": next.Scopes,
				})
			}
			bearer := func(s *servers.Server, assertion string) (int, map[string]any) {
				return post(t, s, s.TokenURL, url.Values{
					"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}, "scope": next.Scopes,
				})
			}

			status, answer := exchange(id, "id_token", next.Issuer)
			jag, _ := answer["access_token"].(string)
			if status != http.StatusOK || answer["token_type"] != "N_A" || answer["issued_token_type"] != token+"id-jag" {
				t.Fatalf("%d: %v", status, answer)
			}
			if status, answer := bearer(next, jag); status != http.StatusOK || answer["access_token"] == "" {
				t.Fatalf("%d: %v", status, answer)
			}
			if status, _ := ask(t, next.ResourceURL, jag); status == http.StatusOK {
				t.Error("the ID-JAG itself is good at the resource")
			}

			_, answer = exchange(id, "id_token", "https://elsewhere.example")
			elsewhere, _ := answer["access_token"].(string)
			for what, assertion := range map[string]string{
				"another server's": elsewhere, "an ID token": id, "an access token": access, "changed": jag[:len(jag)-8] + "AAAAAAAA",
			} {
				if status, answer := bearer(next, assertion); status != http.StatusBadRequest || answer["error"] != "invalid_grant" {
					t.Errorf("an assertion that is %s: %d %v", what, status, answer)
				}
			}
			if status, _ := exchange(access, "access_token", next.Issuer); status != http.StatusBadRequest {
				t.Errorf("an access token is exchanged for an ID-JAG: %d", status)
			}
			if status, _ := exchange(jag, "id_token", next.Issuer); status != http.StatusBadRequest {
				t.Errorf("an ID-JAG is exchanged for another one: %d", status)
			}
			if err := idp.Users.Lock(t.Context(), "ann"); err != nil {
				t.Fatal(err)
			}
			if status, answer := exchange(id, "id_token", next.Issuer); status != http.StatusBadRequest || answer["error"] != "invalid_request" {
				t.Errorf("a user who is locked out: %d %v", status, answer)
			}
		})
	}
}
