// GitLab takes access tokens in a header of its own, and OAuth tokens in
// Authorization. The SDK sets either, unless it is told not to.

package sdk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"testing"
	"time"

	gitlab "gitlab.com/gitlab-org/api/client-go/v2"
	"golang.org/x/oauth2"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// A GitLab whose access tokens come from a login of two calls.
func Example_gitLab() {
	srv := authtest.NewServer(authtest.Config{
		Steps: login,
		API:   authtest.API{Wants: []authtest.Place{{Header: "Private-Token"}}, Handler: gitLab.api(&shelf{value: "It works."})},
	})
	defer srv.Close()

	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		log.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{
		Source:  tokens,
		Origins: []string{srv.URL},
		Attach:  []requestforge.Place{{Header: "Private-Token"}}, // leave it out for OAuth tokens
		Retry:   requestforge.RetryPolicy{RetryMax: 3},
	})
	if err != nil {
		log.Fatal(err)
	}
	client, err := gitlab.NewAuthSourceClient(gitlab.Unauthenticated{},
		gitlab.WithHTTPClient(&http.Client{Transport: transport, Timeout: 30 * time.Second}),
		gitlab.WithBaseURL(srv.URL),
		gitlab.WithoutRetries(),
	)
	if err != nil {
		log.Fatal(err)
	}

	note, _, err := client.Notes.GetIssueNote("shop/shop", 1, 1, gitlab.WithContext(context.Background()))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(note.Body)
	// Output: It works.
}

func TestGitLab(t *testing.T) { check(t, gitLab) }

var gitLab = register(sdk{
	name:   "gitlab-org/api/client-go",
	module: "gitlab.com/gitlab-org/api/client-go/v2",
	option: "gitlab.WithHTTPClient",
	auth:   sometimes,
	tries:  6,
	how: "`NewAuthSourceClient(Unauthenticated{})`, for `NewClient(\"\")` sets an empty header; or `ReplaceCaller`. " +
		"`Attach: []requestforge.Place{{Header: \"Private-Token\"}}` for access tokens, none for OAuth tokens. " +
		"`WithoutRetries()` leaves retries to us.",

	header: "Private-Token",
	api: func(s *shelf) http.Handler {
		mux := http.NewServeMux()
		answer := func(w http.ResponseWriter, status int) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			json.NewEncoder(w).Encode(map[string]any{"id": 1, "body": s.get()})
		}
		mux.HandleFunc("GET /api/v4/projects/{project}/issues/1/notes/1", func(w http.ResponseWriter, r *http.Request) {
			answer(w, http.StatusOK)
		})
		mux.HandleFunc("POST /api/v4/projects/{project}/issues/1/notes", func(w http.ResponseWriter, r *http.Request) {
			var note struct{ Body string }
			if err := json.NewDecoder(r.Body).Decode(&note); err != nil {
				http.Error(w, `{"message":"no note"}`, http.StatusBadRequest)
				return
			}
			s.put(note.Body)
			answer(w, http.StatusCreated)
		})
		return mux
	},

	open: func(t *testing.T, c conn) client {
		return openGitLab(t, c, gitlab.AccessTokenAuthSource{Token: c.credential})
	},
})

// openGitLab leaves source out if there is no credential for it.
func openGitLab(t *testing.T, c conn, source gitlab.AuthSource) client {
	if c.credential == "" {
		source = gitlab.Unauthenticated{}
	}
	options := []gitlab.ClientOptionFunc{gitlab.WithHTTPClient(c.http), gitlab.WithBaseURL(c.url)}
	if !c.retries {
		options = append(options, gitlab.WithoutRetries())
	}
	api, err := gitlab.NewAuthSourceClient(source, options...)
	if err != nil {
		t.Fatal(err)
	}
	return client{
		read: func(ctx context.Context) (string, error) {
			note, _, err := api.Notes.GetIssueNote("shop/shop", 1, 1, gitlab.WithContext(ctx))
			if err != nil {
				return "", err
			}
			return note.Body, nil
		},
		write: func(ctx context.Context, value string) (string, error) {
			note, _, err := api.Notes.CreateIssueNote("shop/shop", 1, &gitlab.CreateIssueNoteOptions{Body: &value}, gitlab.WithContext(ctx))
			if err != nil {
				return "", err
			}
			return note.Body, nil
		},
	}
}

// The same with OAuth tokens, which go into Authorization.
func TestGitLabWithOAuthTokens(t *testing.T) {
	s := *gitLab
	s.header = "Authorization"
	s.open = func(t *testing.T, c conn) client {
		return openGitLab(t, c, gitlab.OAuthTokenSource{
			TokenSource: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: c.credential}),
		})
	}
	check(t, &s)
}

// An empty token is sent as an empty header, which is the caller's own: by
// default it stays.
func TestGitLabEmptyTokenIsAHeader(t *testing.T) {
	w := newWorld(t, gitLab, requestforge.Config{})
	api, err := gitlab.NewClient("",
		gitlab.WithHTTPClient(&http.Client{Transport: w.above}),
		gitlab.WithBaseURL(w.sim.URL),
		gitlab.WithoutRetries(),
	)
	if err != nil {
		t.Fatal(err)
	}
	_, resp, err := api.Notes.GetIssueNote("shop/shop", 1, 1, gitlab.WithContext(t.Context()))
	if resp == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %v; the table says that the empty header is kept", err)
	}
	w.fetches(t, 0, 0)
	w.closed(t)
}
