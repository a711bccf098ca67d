package identity

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestSecret(t *testing.T) {
	for _, name := range []string{
		"password", "Password", "user_password", "client_secret", "clientSecret", "clientsecret", "CLIENT_SECRET", "api_key", "apiKey", "APIKey", "apikey", "X-Api-Key", "key",
		"pin", "PIN", "otp", "totp", "otp_code", "code", "authorization_code", "device_code", "token", "access_token", "refreshToken", "assertion", "client_assertion",
		"password2", "passphrase", "private_key", "mfaCode",
		"pass", "Pass", "PASS", "user_pass", "userPass", "userpass", "db-pass", "pass1", "passwd", "pwd", "userpwd", "api-key", "credential", "credentials", "secret", "passkey", "secretkey", "jwt", "authcode",
	} {
		if !Secret(name) {
			t.Errorf("%q is taken for no secret", name)
		}
	}
	for _, name := range []string{
		"", "username", "user", "scope", "audience", "client_id", "key_id", "keyId", "access_key_id", "token_type", "token_url", "assertion_type", "grant_type", "tenant",
		"country_code", "keyspace", "monkey", "shipping", "pinned", "codec", "account", "laptop", "secretary",
		"keyboard", "compass", "bypass", "passport", "passenger", "pass_id", "design", "coder", "pinterest",
	} {
		if Secret(name) {
			t.Errorf("%q is taken for a secret", name)
		}
	}
}

func TestIdentityHasNoSecret(t *testing.T) {
	body, ok := JSON(map[string]any{"user": "ann", "password": "s3cret", "more": []any{map[string]any{"pin": 1234, "tenant": 7}}})
	text, fine := Of(
		URL("https://ann:s3cret@auth.example.com/token?tenant=7&api_key=s3cret#s3cret"),
		Header(http.Header{"X-Api-Key": {"s3cret"}, "authorization": {"s3cret"}, "X-Tenant": {"7"}}),
		Values(map[string][]string{"scope": {"read"}, "client_secret": {"s3cret"}}),
		body,
	)
	if want := `["https://ann@auth.example.com/token?tenant=7",{"X-Tenant":["7"]},{"scope":["read"]},{"more":[{"tenant":7}],"user":"ann"}]`; !ok || !fine || text != want {
		t.Errorf("got %s\nwant %s", text, want)
	}
}

func TestUserOfHTTPBasicIsOneToTellApart(t *testing.T) {
	who := func(user, password string) string {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		return fmt.Sprint(Header(r.Header))
	}
	if who("ann", "a") != who("ann", "b") || who("ann", "a") == who("bob", "a") {
		t.Errorf("%s, %s and %s", who("ann", "a"), who("ann", "b"), who("bob", "a"))
	}
}

func TestWhatIsNoJSONHasNoIdentity(t *testing.T) {
	if _, ok := JSON(func() {}); ok {
		t.Error("a function has an identity")
	}
	if _, ok := Of(make(chan int)); ok {
		t.Error("a channel has an identity")
	}
}

func TestPartsDontRunTogether(t *testing.T) {
	a, _ := Of("a", "b,c")
	b, _ := Of("a,b", "c")
	if a == b {
		t.Error(fmt.Sprint(a, " for both"))
	}
}

// An object that is called a secret may say who logs in: two who differ there are two.
func TestJSONBelowTheNameOfASecret(t *testing.T) {
	keystone := func(user, domain, password string) any {
		return map[string]any{"auth": map[string]any{"identity": map[string]any{
			"methods":  []string{"password"},
			"password": map[string]any{"user": map[string]any{"name": user, "domain": map[string]any{"id": domain}, "password": password}},
		}}}
	}
	of := func(v any) string {
		open, ok := JSON(v)
		if !ok {
			t.Fatalf("%v: no JSON", v)
		}
		return fmt.Sprint(open)
	}
	ann := of(keystone("ann", "d", "hunter2"))
	if ann == of(keystone("bob", "d", "hunter2")) || ann == of(keystone("ann", "e", "hunter2")) {
		t.Errorf("two are one: %s", ann)
	}
	if ann != of(keystone("ann", "d", "hunter3")) || strings.Contains(ann, "hunter2") {
		t.Errorf("a password in it: %s", ann)
	}
	for _, c := range []struct {
		v    any
		want string
	}{
		{map[string]any{"credentials": map[string]any{"username": "ann", "value": "hunter2", "site": map[string]any{"contentUrl": "s"}}}, "map[credentials:map[site:map[contentUrl:s] username:ann]]"},
		{map[string]any{"credentials": []any{"hunter2", map[string]any{"id": "a", "secret": "hunter2"}}}, "map[credentials:[map[id:a]]]"},
		{map[string]any{"application_credential": map[string]any{"id": "a", "secret": "hunter2"}}, "map[application_credential:map[id:a]]"},
		{map[string]any{"token": map[string]any{"raw": "hunter2"}}, "map[token:map[]]"},
		{map[string]any{"password": "hunter2", "user": "ann"}, "map[user:ann]"},
	} {
		if got := of(c.v); got != c.want {
			t.Errorf("%v: got %s, want %s", c.v, got, c.want)
		}
	}
}
