// What a rotation by another process means for this one: found with real auth
// servers, which revoke the old access token with it.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// A process holds a token that it has never used, when a peer renews it and
// the server revokes it by that. Its refusal says nothing about the parent.
func TestPipelineRefusalOfATokenThatAPeerReplacedBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := rf.NewMemoryStorage()
		apps, users, live := 0, 0, ""
		replica := func() (*rf.Pipeline, *http.Client) {
			user := rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				users++
				live = fmt.Sprintf("user-%d", users)
				return &rf.Token{AccessToken: live, RefreshToken: "refresh-" + live}, nil
			})
			p := pipeline(t, rf.PipelineConfig{Storage: storage, Steps: []rf.Step{
				{Name: "app", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
					apps++
					return &rf.Token{AccessToken: fmt.Sprintf("app-%d", apps)}, nil
				})},
				{Name: "user", DependsOn: []string{"app"}, Fetcher: user, Refresh: user},
			}})
			return p, &http.Client{Transport: &rf.AuthTransport{
				Source: p, Origins: []string{"https://api.example.com"},
				Base: sendFunc(func(req *http.Request) (*http.Response, error) {
					if req.Header.Get("Authorization") != "Bearer "+live {
						return answer(req, 401, nil), nil
					}
					return answer(req, 200, nil), nil
				}),
			}}
		}
		first, client := replica()
		second, _ := replica()
		mustToken(t, first)
		mustToken(t, second)
		require.NoError(t, second.InvalidateStep(t.Context(), "user"))
		require.Equal(t, "user-2", mustToken(t, second).AccessToken)

		resp, err := client.Get("https://api.example.com/")
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, 1, apps)
		require.Equal(t, 2, users)
		require.Equal(t, "user-2", mustToken(t, second).AccessToken)
	})
}

// unsteady fails the next calls of Save.
type unsteady struct {
	*rf.MemoryStorage
	failures int
}

func (s *unsteady) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	if s.failures > 0 {
		s.failures--
		return rf.Entry{}, errors.New("the disk is slow")
	}
	return s.MemoryStorage.Save(ctx, key, r, seen)
}

// A rotated refresh token that isn't saved leaves the spent one for a peer to
// send again.
func TestPipelineRotatedRefreshTokenIsSavedByMoreThanOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{}
		storage := &unsteady{MemoryStorage: rf.NewMemoryStorage()}
		cfg := rf.PipelineConfig{Storage: storage, Steps: []rf.Step{r.step()}}
		first, second := pipeline(t, cfg), pipeline(t, cfg)
		mustToken(t, first)
		mustToken(t, second)

		storage.failures = 2
		tok, err := first.Refresh(t.Context())
		require.NoError(t, err)
		require.Zero(t, storage.failures)
		require.EqualValues(t, 2, first.Stats().StorageErrors)

		_, err = second.Refresh(t.Context())
		require.NoError(t, err)
		require.Zero(t, r.reused)
		require.Equal(t, 1, r.logins)
		require.NotEqual(t, tok.AccessToken, mustToken(t, second).AccessToken)

		// It gives up some time: the caller has a token after all.
		storage.failures = 10
		_, err = first.Refresh(t.Context())
		require.NoError(t, err)
		require.Equal(t, 7, storage.failures)
	})
}
