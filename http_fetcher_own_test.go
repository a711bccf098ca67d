package requestforge_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	rf "github.com/requestforge/requestforge"
	"github.com/stretchr/testify/require"
)

// A login whose URL an earlier step has told sends its password once, if that is wrong: the
// earlier step's answer is where the request goes, and nothing that could be refused. A
// request that carries a parent's token has the parent replaced.
func TestWrongPasswordBehindADiscoveryIsSentOnce(t *testing.T) {
	from := func(in rf.Input) (string, error) { return in.Parents["discovery"].AccessToken, nil }
	for name, tt := range map[string]struct {
		status  int
		login   rf.HTTPFetcher
		parents bool // they are asked again
	}{
		"401":            {401, rf.HTTPFetcher{URLFrom: from, JSON: map[string]any{"password": "wrong"}}, false},
		"403":            {403, rf.HTTPFetcher{URLFrom: from, JSON: map[string]any{"password": "wrong"}}, false},
		"nothing of it":  {401, rf.HTTPFetcher{URL: host + "/login", JSON: map[string]any{"password": "wrong"}}, false},
		"its token":      {401, rf.HTTPFetcher{URLFrom: from, HeaderFrom: map[string]string{"X-App": "discovery"}}, true},
		"in the body":    {401, rf.HTTPFetcher{URLFrom: from, BodyFrom: func(in rf.Input) (any, error) { return map[string]any{"app": in.Parents["discovery"].AccessToken}, nil }}, true},
		"by Prepare":     {401, rf.HTTPFetcher{URLFrom: from, Prepare: func(*http.Request, rf.Input) error { return nil }}, true},
		"Classify's say": {401, rf.HTTPFetcher{URLFrom: from, Classify: func(*http.Response, []byte) *rf.AuthError { return &rf.AuthError{ParentRefused: true} }}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				discovered, asked := 0, 0
				client := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
					if req.URL.Path == "/discovery" {
						discovered++
						resp := reply(req, 200)
						resp.Body = io.NopCloser(strings.NewReader(`{"url":"` + host + `/login"}`))
						return resp, nil
					}
					asked++
					return reply(req, tt.status), nil
				})}
				login := tt.login
				login.Client, login.Origins = client, []string{host}
				p, err := rf.NewPipeline(rf.PipelineConfig{Steps: []rf.Step{
					{Name: "discovery", Fetcher: &rf.HTTPFetcher{Method: "GET", URL: host + "/discovery", TokenField: "url", Client: client}},
					{Name: "login", DependsOn: []string{"discovery"}, Fetcher: &login},
				}})
				require.NoError(t, err)
				defer p.Close()
				_, err = p.Token(context.Background())
				require.Error(t, err)
				if tt.parents {
					require.Greater(t, asked, 1)
					return
				}
				require.Equal(t, 1, asked)
				require.Equal(t, 1, discovered)
			})
		})
	}
}
