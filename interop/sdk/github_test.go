// google/go-github takes a client or a transport, and credentials if it is
// given some.

package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"testing"
	"testing/synctest"
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
		Source:  tokens,
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
	how: "Leave `WithAuthToken` out, or say `ReplaceCaller`; a proxy is for our `Base`. After a secondary rate limit it refuses all calls " +
		"by itself until the time is over, unless our layer has [waited](#githubs-secondary-rate-limit).",

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

// gitHubRetries is for clients that write much. GitHub answers them with a 403 and a
// Retry-After, before it has done anything; by the default such a POST isn't sent again.
func gitHubRetries() requestforge.RetryPolicy {
	// readme:start secondary
	policy := requestforge.RetryPolicy{
		RetryMax:     3,
		RetryWaitMax: 2 * time.Minute, // GitHub says a minute, more than the default takes
		Undone: func(_ *http.Request, resp *http.Response, err error) bool {
			return err == nil && resp.StatusCode == http.StatusForbidden && resp.Header.Get("Retry-After") != ""
		},
	}
	// readme:end secondary
	return policy
}

// secondaryLimit is what GitHub answers to whoever writes too much.
func secondaryLimit() authtest.Fault {
	return authtest.Fault{
		Times:  1,
		Status: http.StatusForbidden,
		Header: http.Header{"Retry-After": {"60"}, "X-Ratelimit-Remaining": {"4711"}},
		Body: `{"message": "You have exceeded a secondary rate limit and have been temporarily blocked from content creation. Please retry your request again later.",` +
			`"documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}`,
	}
}

// A POST that meets the secondary rate limit is sent again when the minute is over,
// and go-github learns of nothing; one that may have been done is sent once.
func TestGitHubSecondaryRateLimitIsWaitedFor(t *testing.T) {
	failure := func(status int) authtest.Fault {
		return authtest.Fault{Times: 1, Status: status, Body: `{"message": "No."}`}
	}
	byDefault := gitHubRetries()
	byDefault.Undone = nil
	for name, test := range map[string]struct {
		policy  requestforge.RetryPolicy
		fault   authtest.Fault
		arrived int
	}{
		"the limit":             {gitHubRetries(), secondaryLimit(), 2},
		"the limit, by default": {byDefault, secondaryLimit(), 1},
		"a plain 403":           {gitHubRetries(), failure(http.StatusForbidden), 1},
		"a 500":                 {gitHubRetries(), failure(http.StatusInternalServerError), 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newSimulation(t, github, requestforge.Config{Retry: test.policy})
				w.sim.FailAPI(test.fault)
				start := time.Now()
				got, err := w.open(t, "", false).write(t.Context(), "a comment")
				if again := test.arrived > 1; again != (err == nil && got == "a comment") {
					t.Errorf("wrote %q, %v", got, err)
				} else if took := time.Since(start); again && (took < time.Minute || took > 75*time.Second) {
					t.Errorf("the second send came after %v, want a minute and up to a quarter more", took)
				}
				if sent, arrived := w.above.sent(), w.sim.Stats().API.Attempted; sent != 1 || arrived != test.arrived {
					t.Errorf("go-github sent %d requests, and %d arrived; want 1 and %d", sent, arrived, test.arrived)
				}
				w.closed(t)
			})
		})
	}
	t.Run("over the network", func(t *testing.T) {
		policy, limit := gitHubRetries(), secondaryLimit()
		policy.RetryWaitMin = time.Nanosecond
		limit.Header.Set("Retry-After", "0")
		w := newWorld(t, github, requestforge.Config{Retry: policy})
		w.sim.FailAPI(limit)
		if got, err := w.open(t, "", false).write(t.Context(), "a comment"); err != nil || got != "a comment" {
			t.Errorf("wrote %q, %v", got, err)
		}
		if sent, arrived := w.above.sent(), w.sim.Stats().API.Attempted; sent != 1 || arrived != 2 {
			t.Errorf("go-github sent %d requests, and %d arrived; want 1 and 2", sent, arrived)
		}
		w.closed(t)
	})
}

// go-github doesn't wait: once it sees the limit it refuses each further call by
// itself, whatever its method, until the time is over.
func TestGitHubBlocksItselfAfterTheSecondaryRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimulation(t, github, requestforge.Config{})
		w.sim.FailAPI(secondaryLimit())
		c := w.open(t, "", false)
		limited := func(err error) bool {
			_, ok := errors.AsType[*gh.AbuseRateLimitError](err)
			return ok
		}
		if _, err := c.write(t.Context(), "a comment"); !limited(err) {
			t.Errorf("the write: %v, want an AbuseRateLimitError", err)
		}
		if _, err := c.read(t.Context()); !limited(err) || w.above.sent() != 1 {
			t.Errorf("a read within the minute: %v, after %d requests; want an AbuseRateLimitError and 1", err, w.above.sent())
		}
		time.Sleep(time.Minute)
		if _, err := c.read(t.Context()); err != nil || w.above.sent() != 2 {
			t.Errorf("a read after the minute: %v, after %d requests; want none and 2", err, w.above.sent())
		}
		w.closed(t)
	})
}
