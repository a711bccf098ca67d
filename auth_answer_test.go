package requestforge_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// canaries are secrets of a login, and what it got and gets.
const (
	canaryPassword = "canary-pass"
	canaryParent   = "canary-app"
	canaryOld      = "canary-old"
	canaryRefresh  = "canary-refresh"
	canaryExtra    = "canary-extra"
	canaryNew      = "canary-new"
)

// barred is a login of app and user at a server that refuses user as said, repeating
// all that it knows.
func barred(t *testing.T, cfg rf.PipelineConfig, status int, header http.Header, body string) *rf.Pipeline {
	t.Helper()
	logins := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		if r.URL.Path == "/app" {
			fmt.Fprintf(w, `{"access_token":%q}`, canaryParent)
			return
		}
		if logins++; logins == 1 {
			fmt.Fprintf(w, `{"access_token":%q,"refresh_token":%q,"expires_in":3600,"tenant":%q}`, canaryOld, canaryRefresh, canaryExtra)
			return
		}
		for name, values := range header {
			w.Header()[name] = values
		}
		w.Header().Set("Set-Cookie", "sid="+canaryNew)
		w.Header().Set("X-Echo", r.Header.Get("X-App-Token")+" "+r.Form.Get("password"))
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	cfg.Steps = []rf.Step{
		{Name: "app", Fetcher: &rf.HTTPFetcher{URL: srv.URL + "/app", Form: url.Values{"grant_type": {"client_credentials"}}, ClientAuth: &rf.ClientAuth{ID: "shop", Secret: canaryPassword}}},
		{Name: "user", DependsOn: []string{"app"}, Fetcher: &rf.HTTPFetcher{
			URL: srv.URL + "/user", Form: url.Values{"username": {"ann"}, "password": {canaryPassword}},
			HeaderFrom: map[string]string{"X-App-Token": "app"},
		}},
	}
	return pipeline(t, cfg)
}

// The six refusals that people meet most say why, by one call, and without KeepAnswers
// nowhere.
func TestAnswerSaysWhyALoginWasRefused(t *testing.T) {
	echo := canaryParent + " " + canaryPassword + " " + canaryOld + " " + canaryExtra
	for name, c := range map[string]struct {
		status    int
		kind      string
		body, why string
	}{
		"Entra":           {401, "application/json", `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. ` + echo + `"}`, "AADSTS7000215: Invalid client secret provided."},
		"GitHub with 200": {200, "application/json", `{"error":"bad_verification_code","error_description":"The code passed is incorrect or expired. ` + echo + `","id_token":"` + canaryNew + `x"}`, "The code passed is incorrect or expired."},
		"a vendor":        {400, "application/json", `{"errors":[{"field":"account_id","problem":"field account_id is required ` + echo + `"}]}`, "field account_id is required"},
		"a WAF's page":    {406, "text/html", `<html><h1>Request blocked</h1><p>Rule of the house</p><!-- ` + echo + ` --></html>`, "<h1>Request blocked</h1><p>Rule of the house</p>"},
		"a text":          {500, "text/plain", "no healthy upstream " + echo, "no healthy upstream"},
		"an empty 400":    {400, "", "", ""},
	} {
		for _, keep := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", kept ", keep), func(t *testing.T) {
				var log bytes.Buffer
				p := barred(t, rf.PipelineConfig{KeepAnswers: keep, FetchRetries: -1, Logger: slog.New(slog.NewJSONHandler(&log, nil))},
					c.status, http.Header{"Content-Type": {c.kind}, "X-Request-Reason": {"blocked"}}, c.body)
				mustToken(t, p)
				require.NoError(t, p.InvalidateStep(t.Context(), "user"))
				_, err := p.Token(t.Context())
				var failed *rf.AuthError
				require.ErrorAs(t, err, &failed)

				// A caller in the cool-down, and State, have the same.
				_, err = p.Token(t.Context())
				var again *rf.AuthError
				require.ErrorAs(t, err, &again)
				for _, e := range []*rf.AuthError{failed, again, p.State(t.Context()).Steps[1].LastError} {
					body, header := e.Answer()
					if !keep {
						require.Nil(t, body)
						require.Nil(t, header)
						continue
					}
					require.NotNil(t, body)
					require.Contains(t, string(body), c.why)
					require.NotContains(t, string(body), "canary")
					require.NotContains(t, fmt.Sprint(header), "canary")
					require.Equal(t, "blocked", header.Get("X-Request-Reason"))
					header.Set("X-Request-Reason", "changed") // the caller's own
					if len(body) > 0 {
						body[0]++
					}
				}

				said := log.String()
				for _, v := range []any{failed, *failed, struct{ E *rf.AuthError }{failed}, struct{ e rf.AuthError }{*failed}, p, p.State(t.Context())} {
					said += fmt.Sprintf("%v %+v %#v %s", v, v, v, v)
					j, _ := json.Marshal(v)
					x, _ := xml.Marshal(v)
					var g bytes.Buffer
					_ = gob.NewEncoder(&g).Encode(v)
					said += string(j) + string(x) + g.String() + slog.AnyValue(v).Resolve().String()
				}
				for _, word := range []string{"canary", "AADSTS", "incorrect", "account_id", "blocked", "the house", "upstream", "Request-Reason"} {
					require.NotContains(t, said, word)
				}
			})
		}
	}
}

// A fetcher of the program's own has its answers kept by NewAuthError.
func TestAnswerOfAFetcherOfOnesOwn(t *testing.T) {
	fetch := func(usesContext bool) rf.FetcherFunc {
		return func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			if !usesContext {
				ctx = context.Background()
			}
			req, _ := http.NewRequestWithContext(ctx, "POST", "https://auth.example.com/login", strings.NewReader("pin="+canaryPassword))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			return nil, rf.NewAuthError(&http.Response{StatusCode: 400, Request: req}, []byte("pin "+canaryPassword+" is wrong"), nil)
		}
	}
	for usesContext, want := range map[bool]string{true: "pin REDACTED is wrong", false: ""} {
		p := pipeline(t, rf.PipelineConfig{KeepAnswers: true, Steps: []rf.Step{{Name: "user", Fetcher: fetch(usesContext)}}})
		_, err := p.Token(t.Context())
		var failed *rf.AuthError
		require.ErrorAs(t, err, &failed)
		body, _ := failed.Answer()
		require.Equal(t, want, string(body))
	}
	body, header := (*rf.AuthError)(nil).Answer()
	require.Nil(t, body)
	require.Nil(t, header)
}
