package oauth2source_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// Where KeepAnswers is set, one call says why a grant was refused, whichever way leads to
// x/oauth2, and shows nothing of the request.
func TestAnswerSaysWhyAGrantWasRefused(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		kind, body string
		why        string
	}{
		"Entra":           {401, "application/json", `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided, not %s."}`, "AADSTS7000215: Invalid client secret provided"},
		"GitHub with 200": {200, "application/json", `{"error":"incorrect_client_credentials","error_description":"The client_id and/or client_secret %s passed are incorrect."}`, "passed are incorrect"},
		"GitHub's form":   {200, "application/x-www-form-urlencoded", `error=incorrect_client_credentials&error_description=Not+%s%%2C+they+are+incorrect`, "they+are+incorrect"},
		"no token":        {200, "application/json", `{"message":"field account_id is required, %s"}`, "field account_id is required"},
		"a text":          {503, "text/plain", "no healthy upstream for %s", "no healthy upstream"},
		"a page":          {200, "text/html", "<html><h1>Request blocked</h1>%s</html>", "Request blocked"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", c.kind)
				w.Header().Set("X-Reason", "blocked")
				w.WriteHeader(c.status)
				fmt.Fprintf(w, c.body, secret)
			}))
			defer srv.Close()
			grant := oauth2source.ClientCredentials(oauth2source.Config{TokenURL: srv.URL, ClientAuth: &requestforge.ClientAuth{ID: "app-1f", Secret: secret}})
			for way, fetcher := range map[string]requestforge.Fetcher{
				"a grant": grant,
				"a source": oauth2source.FetcherFrom(func(ctx context.Context, _ requestforge.Input) (oauth2.TokenSource, error) {
					conf := clientcredentials.Config{ClientID: "app-1f", ClientSecret: secret, TokenURL: srv.URL, AuthStyle: oauth2.AuthStyleInParams}
					return conf.TokenSource(ctx), nil
				}),
			} {
				if way == "a source" && (name == "no token" || name == "a page") {
					continue // x/oauth2 makes an error of its own of these, without the answer
				}
				for _, keep := range []bool{true, false} {
					p, err := requestforge.NewPipeline(requestforge.PipelineConfig{KeepAnswers: keep, FetchRetries: -1, Steps: []requestforge.Step{{Name: "app", Fetcher: fetcher}}})
					if err != nil {
						t.Fatal(err)
					}
					_, err = p.Token(t.Context())
					failed, ok := errors.AsType[*requestforge.AuthError](err)
					if !ok {
						t.Fatalf("%s: got %v", way, err)
					}
					noSecret(t, err)
					body, header := failed.Answer()
					if !keep {
						if body != nil || header != nil {
							t.Errorf("%s: kept unasked: %q %v", way, body, header)
						}
						continue
					}
					if !strings.Contains(string(body), c.why) || strings.Contains(string(body), secret) {
						t.Errorf("%s: the answer is %q", way, body)
					}
					if header.Get("X-Reason") != "blocked" {
						t.Errorf("%s: the header is %v", way, header)
					}
				}
			}
		})
	}
}
