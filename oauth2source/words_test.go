package oauth2source_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
)

// A number that doesn't fit its field is quoted by encoding/json without quotes.
func TestNoNumberOfTheServersIsInAnError(t *testing.T) {
	const secret = "867530912345"
	for name, answer := range map[string]string{
		"interval":        `{"device_code":"d","user_code":"u","verification_uri":"https://x.example/","interval":` + secret + `.5}`,
		"device lifetime": `{"device_code":"d","user_code":"u","verification_uri":"https://x.example/","expires_in":"` + secret + `x"}`,
		"token lifetime":  `{"access_token":"t","expires_in":` + secret + `e` + secret + `}`,
		"negative":        `{"access_token":"t","expires_in":-` + secret + `.5}`,
		"a number":        secret,
		"a token":         `{"access_token":` + secret + `}`,
		"a type":          `{"access_token":"t","token_type":` + secret + `}`,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, answer)
		}))
		cfg := oauth2source.Config{TokenURL: srv.URL + "/token", ClientAuth: &requestforge.ClientAuth{ID: "tv", Secret: secret, InBody: true}}
		prompt := func(context.Context, *oauth2.DeviceAuthResponse) error { return nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		for _, f := range []requestforge.Fetcher{
			oauth2source.DeviceCode(cfg, srv.URL+"/device", prompt), oauth2source.ClientCredentials(cfg),
			&requestforge.HTTPFetcher{URL: srv.URL + "/token"},
		} {
			if _, err := f.Fetch(ctx, requestforge.Input{}); err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v", name, err)
			}
		}
		cancel()
		srv.Close()
	}
}

func TestNoEncodingShowsAGrantsSecret(t *testing.T) {
	const secret = "hunter2hunter2"
	cfg := oauth2source.Config{TokenURL: "https://auth.example.com", ClientAuth: &requestforge.ClientAuth{ID: "c", Secret: secret}}
	for _, v := range []any{cfg, &cfg, oauth2source.Password(cfg, "ann", secret), []oauth2source.Config{cfg}} {
		var g, x bytes.Buffer
		_ = gob.NewEncoder(&g).Encode(v)
		_ = xml.NewEncoder(&x).Encode(v)
		if strings.Contains(g.String()+x.String(), secret) {
			t.Errorf("%T: %q %q", v, g.String(), x.String())
		}
	}
}

// Of two members of one name x/oauth2 takes the last, and a proxy the first, maybe.
func TestNamesTwiceInAResponseAreAnError(t *testing.T) {
	for name, answer := range map[string]string{
		"a token":        `{"access_token":"first","access_token":"second"}`,
		"a token, large": `{"access_token":"first","Access_Token":"second"}`,
		"escaped":        `{"access_token":"first","access\u005ftoken":"second"}`,
		"below":          `{"access_token":"first","more":[{"a":1,"a":1}]}`,
		"none":           `{"access_token":"first","more":[{"a":1e999},{"a":1,"A":2}]}`,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, answer)
		}))
		tok, err := oauth2source.ClientCredentials(oauth2source.Config{TokenURL: srv.URL, ClientAuth: &requestforge.ClientAuth{ID: "c", Secret: "s"}}).Fetch(t.Context(), requestforge.Input{})
		switch {
		case name == "none" && err != nil:
			t.Errorf("%s: %v", name, err)
		case name != "none" && (err == nil || !strings.Contains(err.Error(), "twice")):
			t.Errorf("%s: %v, %v", name, tok, err)
		}
		srv.Close()
	}
}
