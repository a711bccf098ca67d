// google/go-github takes a client or a transport, and credentials if it is
// given some.

package sdk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"testing"
	"time"

	gh "github.com/google/go-github/v90/github"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// go-github asks a GitHub Enterprise Server behind a login of two calls.
func Example_github() {
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API:   authtest.API{Handler: github.api(&shelf{value: "It works."})},
	})
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Tokens:  tokens,
		Origins: []string{srv.URL},
		Retry:   requestforge.RetryPolicy{RetryMax: 3},
	})
	if err != nil {
		log.Fatal(err)
	}
	client, err := gh.NewClient(
		gh.WithHTTPClient(&http.Client{Transport: transport, Timeout: 30 * time.Second}),
		gh.WithURLs(gh.Ptr(srv.URL+"/"), nil),
	)
	if err != nil {
		log.Fatal(err)
	}

	comment, _, err := client.Issues.GetComment(context.Background(), "golang", "go", 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(comment.GetBody())
	// Output: It works.
}

func TestGitHub(t *testing.T) { check(t, github) }

var github = register(sdk{
	name:   "google/go-github",
	module: "github.com/google/go-github/v90",
	option: "github.WithHTTPClient",
	auth:   sometimes,
	tries:  1,
	https:  "`WithEnvProxy` on an `*http.Transport`",
	how:    "Leave `WithAuthToken` out, or say `ReplaceCaller`; a proxy is for our `Base`.",

	api: func(s *shelf) http.Handler {
		mux := http.NewServeMux()
		answer := func(w http.ResponseWriter, status int) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			json.NewEncoder(w).Encode(map[string]any{"id": 1, "body": s.get()})
		}
		mux.HandleFunc("GET /repos/golang/go/issues/comments/1", func(w http.ResponseWriter, r *http.Request) {
			answer(w, http.StatusOK)
		})
		mux.HandleFunc("POST /repos/golang/go/issues/1/comments", func(w http.ResponseWriter, r *http.Request) {
			var comment struct{ Body string }
			if err := json.NewDecoder(r.Body).Decode(&comment); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			s.put(comment.Body)
			answer(w, http.StatusCreated)
		})
		return mux
	},

	open: func(t *testing.T, c conn) client {
		opts := []gh.ClientOptionsFunc{gh.WithHTTPClient(c.http), gh.WithURLs(gh.Ptr(c.url+"/"), nil)}
		if c.credential != "" {
			opts = append(opts, gh.WithAuthToken(c.credential))
		}
		api, err := gh.NewClient(opts...)
		if err != nil {
			t.Fatal(err)
		}
		return client{
			read: func(ctx context.Context) (string, error) {
				comment, _, err := api.Issues.GetComment(ctx, "golang", "go", 1)
				return comment.GetBody(), err
			},
			write: func(ctx context.Context, value string) (string, error) {
				comment, _, err := api.Issues.CreateComment(ctx, "golang", "go", 1, &gh.IssueComment{Body: &value})
				return comment.GetBody(), err
			},
		}
	},
})

// A transport of its own is what go-github can't take a proxy from the
// environment for.
func TestGitHubProxyNeedsAnHTTPTransport(t *testing.T) {
	_, err := gh.NewClient(gh.WithTransport(&requestforge.AuthTransport{}), gh.WithEnvProxy())
	if err == nil {
		t.Error("WithEnvProxy takes any transport; the table says it doesn't")
	}
}
