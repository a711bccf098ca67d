package requestforge_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// A parent's token that ends while the request waits, for its turn or for the next try, is
// never sent.
func TestFetchSendsNoParentThatEndedMeanwhile(t *testing.T) {
	const life = time.Minute
	for name, c := range map[string]struct {
		slots int
		fails int // tries of the user's step
	}{"for the next try": {0, 1}, "for a slot": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var apps, sent int
				cfg := rf.PipelineConfig{MaxFetches: c.slots, FetchTimeout: 10 * life, RefreshAhead: -1, CoolDown: time.Second}
				cfg.Steps = []rf.Step{
					{Name: "app", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
						apps++
						return &rf.Token{AccessToken: "app", Expiry: time.Now().Add(life)}, nil
					})},
					{Name: "slow", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
						time.Sleep(2 * life)
						return &rf.Token{AccessToken: "slow"}, nil
					})},
					{Name: "user", DependsOn: []string{"app"}, Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
						sent++
						require.True(t, time.Now().Before(in.Parents["app"].Expiry), "an expired token was sent")
						if sent <= c.fails {
							time.Sleep(life)
							return nil, &rf.AuthError{StatusCode: 503}
						}
						return &rf.Token{AccessToken: "user"}, nil
					})},
				}
				p := pipeline(t, cfg)
				_, err := p.Source("app").Token(t.Context())
				require.NoError(t, err)
				if c.slots > 0 {
					go p.Source("slow").Token(t.Context())
					synctest.Wait()
				}
				tok, err := p.Source("user").Token(t.Context())
				if c.fails > 0 { // the answer of the try that was made
					require.ErrorContains(t, err, "503")
					time.Sleep(2 * time.Second)
					tok, err = p.Source("user").Token(t.Context())
				}
				require.NoError(t, err)
				require.Equal(t, "user", tok.AccessToken)
				require.Equal(t, 2, apps)
				require.Equal(t, c.fails+1, sent)
			})
		})
	}
}
