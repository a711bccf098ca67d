// Refreshes that carry a parent's token, too.

package requestforge_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// A refresh token that is refused isn't sent again, though the request carried a parent's
// token, too.
func TestPipelineRefusedRefreshTokenIsNotSentAgainForAParent(t *testing.T) {
	for _, age := range []time.Duration{time.Second, time.Hour} {
		for _, e := range []rf.AuthError{{StatusCode: 401, Code: "invalid_grant"}, {StatusCode: 401, RefreshRefused: true}, {StatusCode: 403, Code: "invalid_grant"}, {StatusCode: 401, Code: "expired_token"}} {
			t.Run(fmt.Sprint(age, e.Code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLogin()
					l.takes = 0
					sent := map[string]int{}
					user := l.step("user", "app")
					n := 0
					user.Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
						n++
						return &rf.Token{AccessToken: fmt.Sprint("user-", n), RefreshToken: fmt.Sprint("r-", n)}, nil
					})
					user.Refresh = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
						sent[in.Previous.RefreshToken]++
						err := e
						return nil, &err
					})
					p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("app"), user}})
					mustToken(t, p)
					time.Sleep(age)
					require.NoError(t, p.InvalidateStep(t.Context(), "user"))
					_, err := p.Token(t.Context())
					require.NoError(t, err)
					require.Equal(t, map[string]int{"r-1": 1}, sent)
				})
			})
		}
	}
}

// A bare 401 leaves open who is refused. If a newer parent changes nothing, the parents are
// good, and so are the tokens of other steps; the refresh token is sent once with each.
func TestPipelineRefusedRefreshCostsNoGoodParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		user := l.step("user", "app")
		n := 0
		var asked []string
		user.Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			n++
			return &rf.Token{AccessToken: fmt.Sprint("user-", n), RefreshToken: fmt.Sprint("r-", n), Expiry: time.Now().Add(time.Hour)}, nil
		})
		user.Refresh = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			asked = append(asked, in.Parents["app"].AccessToken)
			return nil, &rf.AuthError{StatusCode: 401}
		})
		p := pipeline(t, rf.PipelineConfig{Leaf: "user", RefreshAhead: -1, Steps: []rf.Step{l.step("app"), user, l.step("other", "app")}})
		mustToken(t, p)
		other, err := p.Source("other").Token(t.Context())
		require.NoError(t, err)
		time.Sleep(2 * time.Hour)
		mustToken(t, p)
		require.Equal(t, []string{"app-1", "app-2"}, asked)
		again, err := p.Source("other").Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, other.AccessToken, again.AccessToken)
	})
}
