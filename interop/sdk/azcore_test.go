// azcore takes whatever has a Do method. Its bearer policy wants https.

package sdk_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azlog "github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/oauth2source"
)

// withoutGetBody is a policy for whoever replays what azcore sends. Its GetBody
// doesn't return a copy of the body, as net/http has it, but rewinds the one
// there is; and that is still being read by the transport if the server has
// refused a request in the middle of its body. Without GetBody what is sent is
// kept, up to MaxReplayBody.
type withoutGetBody struct{}

func (withoutGetBody) Do(req *policy.Request) (*http.Response, error) {
	req.Raw().GetBody = nil
	return req.Next()
}

// An Azure client asks a server behind a login of two calls. Every client of
// the SDK takes these options.
func Example_azcore() {
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API:   authtest.API{Handler: azure.api(&shelf{value: "It works."})},
		TLS:   true,
	})
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    srv.Client().Transport, // trusts the server's certificate
		Source:  tokens,
		Origins: []string{srv.URL},
		Retry:   requestforge.RetryPolicy{RetryMax: 3},

		MaxReplayBody: 1 << 20, // see withoutGetBody
	})
	if err != nil {
		log.Fatal(err)
	}
	pipeline := runtime.NewPipeline("shop", "v1.0.0", runtime.PipelineOptions{}, &policy.ClientOptions{
		Transport: &http.Client{Transport: transport, Timeout: 30 * time.Second},
		Retry:     policy.RetryOptions{MaxRetries: -1}, // ours is enough

		PerRetryPolicies: []policy.Policy{withoutGetBody{}},
	})

	req, err := runtime.NewRequest(context.Background(), "GET", srv.URL+"/settings/note")
	if err != nil {
		log.Fatal(err)
	}
	resp, err := pipeline.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	var setting struct{ Value string }
	if err := runtime.UnmarshalAsJSON(resp, &setting); err != nil {
		log.Fatal(err)
	}
	fmt.Println(setting.Value)
	// Output: It works.
}

func TestAzcore(t *testing.T) { check(t, azure) }

var azure = register(sdk{
	name:   "Azure azcore",
	module: "github.com/Azure/azure-sdk-for-go/sdk/azcore",
	option: "policy.ClientOptions.Transport",
	auth:   sometimes,
	tries:  4,
	tls:    true,
	https:  "its `BearerTokenPolicy` on https",
	how:    "`Retry.MaxRetries: -1`; no credential, or `ReplaceCaller`; a policy that drops its `GetBody`, which rewinds a body that may still be read, and a `MaxReplayBody` that is enough.",
	keep:   1 << 20,

	api: func(s *shelf) http.Handler {
		mux := http.NewServeMux()
		answer := func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(map[string]any{"value": s.get()})
		}
		mux.HandleFunc("GET /settings/note", func(w http.ResponseWriter, r *http.Request) { answer(w) })
		mux.HandleFunc("PUT /settings/note", func(w http.ResponseWriter, r *http.Request) {
			var setting struct{ Value string }
			if err := json.NewDecoder(r.Body).Decode(&setting); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			s.put(setting.Value)
			answer(w)
		})
		return mux
	},

	open: func(t *testing.T, c conn) client {
		azlog.SetListener(func(_ azlog.Event, text string) { io.WriteString(c.log, text) })
		t.Cleanup(func() { azlog.SetListener(nil) })
		opts := policy.ClientOptions{Transport: c.http}
		if !c.retries {
			opts.Retry.MaxRetries = -1
		}
		policies := []policy.Policy{withoutGetBody{}}
		if c.credential != "" {
			policies = append(policies, runtime.NewBearerTokenPolicy(azureCredential(c.credential), nil, nil))
		}
		pipeline := runtime.NewPipeline("shop", "v1.0.0", runtime.PipelineOptions{PerRetry: policies}, &opts)

		do := func(ctx context.Context, method string, body any) (string, error) {
			req, err := runtime.NewRequest(ctx, method, c.url+"/settings/note")
			if err != nil {
				return "", err
			}
			if body != nil {
				if err := runtime.MarshalAsJSON(req, body); err != nil {
					return "", err
				}
			}
			resp, err := pipeline.Do(req)
			if err != nil {
				return "", err
			}
			if !runtime.HasStatusCode(resp, http.StatusOK) {
				return "", runtime.NewResponseError(resp)
			}
			var setting struct{ Value string }
			err = runtime.UnmarshalAsJSON(resp, &setting)
			return setting.Value, err
		}
		return client{
			read: func(ctx context.Context) (string, error) { return do(ctx, "GET", nil) },
			write: func(ctx context.Context, value string) (string, error) {
				return do(ctx, "PUT", map[string]any{"value": value})
			},
		}
	},
})

// azureCredential is a token that never has to be fetched.
type azureCredential string

func (c azureCredential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(c), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// The reason for withoutGetBody: what azcore's GetBody returns is the body that
// is being sent.
func TestAzcoreGetBodyIsNoCopy(t *testing.T) {
	req, err := runtime.NewRequest(t.Context(), "PUT", "https://api.test")
	if err != nil {
		t.Fatal(err)
	}
	if err := runtime.MarshalAsJSON(req, "value"); err != nil {
		t.Fatal(err)
	}
	again, err := req.Raw().GetBody()
	if err != nil {
		t.Fatal(err)
	}
	if again != req.Raw().Body {
		t.Error("GetBody returns another body; withoutGetBody isn't needed any more")
	}
}

// The table says what azcore insists on, and that it is its policy that does.
func TestAzcoreBearerPolicyInsistsOnHTTPS(t *testing.T) {
	for _, test := range []struct {
		credential string
		ok         bool
	}{{"", true}, {credential, false}} {
		plain := *azure
		plain.tls = false
		w := newWorld(t, &plain, requestforge.Config{OnConflict: requestforge.ReplaceCaller})
		_, err := w.open(t, test.credential, false).read(t.Context())
		if (err == nil) != test.ok {
			t.Errorf("over http, with a bearer policy: %t; got %v", !test.ok, err)
		}
	}
}

// Entra's continuous access evaluation: the API says which claims a token needs from now on,
// and the SDK, which has no credential of its own, notices nothing, with a body neither. The
// token endpoint gets the claims, and so it does at the next login.
func TestAzcoreClaimsChallengeIsAnswered(t *testing.T) {
	const claims = `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`
	var mu sync.Mutex
	var asked []string // claims, by login
	note := shelf{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.FormValue("claims"))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"token-%d","expires_in":3600}`, len(asked))
	})
	api := azure.api(&note)
	mux.HandleFunc("/settings/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer token-1" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="", authorization_uri="https://login.example/oauth2/authorize", error="insufficient_claims", claims="`+base64.StdEncoding.EncodeToString([]byte(claims))+`"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		api.ServeHTTP(w, r)
	})
	srv := httptest.NewTLSServer(mux)
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name: "app", AnswersChallenges: true,
		Fetcher: oauth2source.ClientCredentials(oauth2source.Config{
			TokenURL:   srv.URL + "/token",
			ClientAuth: &requestforge.ClientAuth{ID: "app", Secret: "made-up"},
			Scopes:     []string{"https://api.example/.default"},
			Client:     srv.Client(),
		}),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base: srv.Client().Transport, Source: tokens, Origins: []string{srv.URL}, MaxReplayBody: azure.keep,
	})
	if err != nil {
		t.Fatal(err)
	}
	client := azure.open(t, conn{url: srv.URL, http: &http.Client{Transport: transport}, log: io.Discard})
	if got, err := client.write(t.Context(), "written"); err != nil || got != "written" {
		t.Fatalf("%q, %v", got, err)
	}
	if got, err := client.read(t.Context()); err != nil || got != "written" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := tokens.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"", claims, claims}; !slices.Equal(asked, want) {
		t.Errorf("the logins asked for %q, want %q", asked, want)
	}
}
