// Whatever is printed of a grant, however it is printed, shows no secret.

package oauth2source_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
)

// printed is v in every way that it may get into a log.
func printed(v any) map[string]string {
	texts := map[string]string{}
	nested := struct{ V any }{v}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		texts[verb] = fmt.Sprintf(verb, v)
		texts[verb+" within"] = fmt.Sprintf(verb, nested)
		texts[verb+" in a slice"] = fmt.Sprintf(verb, []any{v})
		texts[verb+" in a map"] = fmt.Sprintf(verb, map[string]any{"k": v})
	}
	text, err := json.Marshal(v)
	texts["JSON"] = fmt.Sprint(string(text), err)
	for name, handler := range map[string]func(io.Writer) slog.Handler{
		"slog text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
		"slog JSON": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		var b bytes.Buffer
		slog.New(handler(&b)).Info("m", "v", v, "within", nested)
		texts[name] = b.String()
	}
	return texts
}

func TestGrantsPrintNoSecret(t *testing.T) {
	k := testKeys()
	cfg := oauth2source.Config{
		TokenURL:   "https://user:" + secret + "@auth.example.com/token?key=" + secret,
		ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: secret}, Scopes: []string{"read"},
		Params: url.Values{"api_key": {secret}}, Client: &http.Client{},
	}
	signed := cfg
	signed.ClientAuth = &requestforge.ClientAuth{ID: "app"}
	signed.ClientAssertion = &oauth2source.JWT{Key: k.rsa, KeyID: "key-1", Claims: map[string]any{"pin": secret}}
	inForm := cfg
	inForm.ClientAuth = &requestforge.ClientAuth{ID: "app", Secret: secret, InBody: true}
	prompt := func(context.Context, *oauth2.DeviceAuthResponse) error { return nil }
	jwt := &oauth2source.JWT{Key: k.ed25519, KeyID: "key-1", Issuer: "service", Subject: "gopher", Audience: "https://a.example.com/?" + secret, Claims: map[string]any{"pin": secret}}
	x := oauth2source.Exchange{Subject: oauth2source.FromStep("app"), Actor: jwt}
	client := oauth2source.ClientCredentials(cfg)
	const at = `https://REDACTED@auth.example.com/token?key=REDACTED, client "app" by HTTP Basic, scopes ["read"], with ["api_key"])`
	for name, tt := range map[string]struct {
		v    any
		want string // "": what it shows is nobody's business, but for secrets
	}{
		"Config":             {cfg, "Config(" + at},
		"*Config":            {&cfg, "Config(" + at},
		"Config in the form": {inForm, strings.Replace("Config("+at, "HTTP Basic", "secret in the form", 1)},
		"Config with a key":  {signed, strings.Replace("Config("+at, "HTTP Basic", "assertion", 1)},
		"ClientCredentials":  {client, "ClientCredentials(Config(" + at + ")"},
		"Grant":              {*client, "ClientCredentials(Config(" + at + ")"},
		"zero Grant":         {oauth2source.Grant{}, "Grant(none)"},
		"Password":           {oauth2source.Password(cfg, "gopher", secret), "Password(Config(" + at + ")"},
		"Refresh":            {oauth2source.Refresh(cfg), "Refresh(Config(" + at + ")"},
		"JWTBearer":          {oauth2source.JWTBearer(cfg, jwt), "JWTBearer(Config(" + at + ")"},
		"TokenExchange":      {oauth2source.TokenExchange(cfg, x), "TokenExchange(Config(" + at + ")"},
		"DeviceCode":         {oauth2source.DeviceCode(cfg, cfg.TokenURL, prompt), "DeviceCode(Config(" + at + ")"},
		"JWT":                {*jwt, `JWT(key "key-1", issuer "service", subject "gopher", audience "https://a.example.com/?REDACTED")`},
		"*JWT":               {jwt, `JWT(key "key-1", issuer "service", subject "gopher", audience "https://a.example.com/?REDACTED")`},
		"Exchange":           {x, ""},
		"Step":               {requestforge.Step{Name: "app", Fetcher: client, Refresh: oauth2source.Refresh(cfg)}, ""},
	} {
		for how, text := range printed(tt.v) {
			for _, key := range []string{secret, fmt.Sprintf("%x", secret), k.rsa.D.String(), fmt.Sprintf("%x", k.rsa.D),
				strings.Trim(fmt.Sprint([]byte(k.ed25519[:8])), "[]"), fmt.Sprintf("%x", []byte(k.ed25519[:8]))} {
				if strings.Contains(text, key) {
					t.Errorf("%s as %s: %s", name, how, text)
				}
			}
			if tt.want != "" && strings.HasPrefix(how, "%v") && !strings.Contains(text, tt.want) {
				t.Errorf("%s as %s: got %s, want %s", name, how, text, tt.want)
			}
		}
	}
}

// A server that repeats whatever it was told, in every way it can, against
// every grant in a pipeline that logs.
func TestGrantsLogNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		n := 0
		client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			r.Body.Close()
			if r.URL.Path == "/device" {
				return answered(r, 200, `{"device_code":"`+secret+`","user_code":"A","verification_uri":"https://a.test/","expires_in":60}`), nil
			}
			switch n++; n % 7 {
			case 0:
				return answered(r, 200, `{"access_token":"`+secret+`","refresh_token":"`+secret+`","id_token":"`+secret+`","expires_in":3600}`), nil
			case 1:
				return answered(r, 400, `{"error":"`+secret+`","error_description":"`+secret+`"}`), nil
			case 2:
				return answered(r, 401, `{"error":"invalid_client","error_uri":"`+secret+`"}`), nil
			case 3:
				return answered(r, 200, `{"access_token":"`+secret+`","expires_in":"`+secret+`"}`), nil
			case 4:
				return answered(r, 307, secret, "Location", "https://"+secret+".test/"+secret), nil
			case 5:
				return nil, fmt.Errorf("malformed HTTP response %q", secret)
			}
			return answered(r, 302, "", "Location", "https://%zz"+secret), nil
		})}
		cfg := oauth2source.Config{TokenURL: "https://auth.test/token?key=" + secret, ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: secret}, Client: client}
		prompt := func(context.Context, *oauth2.DeviceAuthResponse) error { return nil }
		for name, grant := range map[string]*oauth2source.Grant{
			"password": oauth2source.Password(cfg, "gopher", secret),
			"jwt":      oauth2source.JWTBearer(cfg, &oauth2source.JWT{Key: testKeys().ed25519, Claims: map[string]any{"pin": secret}}),
			"exchange": oauth2source.TokenExchange(cfg, oauth2source.Exchange{Subject: oauth2source.AssertionFunc(func(context.Context, requestforge.Input) (string, error) {
				return secret, nil
			})}),
			"device": oauth2source.DeviceCode(cfg, "https://auth.test/device?key="+secret, prompt),
		} {
			p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
				FetchTimeout: time.Hour, FetchRetries: -1, Logger: logger,
				Steps: []requestforge.Step{{Name: name, Fetcher: grant, Refresh: oauth2source.Refresh(cfg)}},
			})
			if err != nil {
				t.Fatal(err)
			}
			failed, got := 0, 0
			for range 60 {
				tok, err := p.Refresh(t.Context())
				if err != nil {
					failed++
					noSecret(t, err)
				} else if got++; tok.AccessToken != secret {
					t.Errorf("%s: not the server's token", name)
				}
				time.Sleep(time.Minute)
			}
			if failed == 0 || got == 0 {
				t.Errorf("%s: %d tokens, %d failures; want both", name, got, failed)
			}
		}
		if strings.Contains(log.String(), secret) {
			t.Errorf("a secret got into the log:\n%s", log.String())
		}
		if !strings.Contains(log.String(), "fetch failed") || !strings.Contains(log.String(), "token fetched") {
			t.Error("there is no log to look at")
		}
	})
}

func answered(r *http.Request, status int, body string, header ...string) *http.Response {
	resp := &http.Response{StatusCode: status, Status: fmt.Sprint(status, " ", secret), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r}
	for i := 0; i < len(header); i += 2 {
		resp.Header.Set(header[i], header[i+1])
	}
	return resp
}

func TestErrorOfAnAssertionIsMasked(t *testing.T) {
	broken := &url.Error{Op: "Post", URL: "https://user:" + secret + "@keys.example.com/sign?key=" + secret, Err: errors.New("refused")}
	cfg := oauth2source.Config{TokenURL: "https://auth.example.com/token", ClientAuth: &requestforge.ClientAuth{ID: "app"}}
	_, err := oauth2source.JWTBearer(cfg, oauth2source.AssertionFunc(func(context.Context, requestforge.Input) (string, error) {
		return "", broken
	})).Fetch(t.Context(), requestforge.Input{})
	if err == nil || !strings.Contains(err.Error(), "keys.example.com/sign") {
		t.Errorf("got %v, want to be told which server", err)
	}
	noSecret(t, err)
}
