package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// An auth server ends all app tokens at once. A process that can't load meets a peer's app
// token, older than the refusal, with its own Save: that the auth server refuses that one as
// well proves nothing.
func TestReplacedParentThatIsOlderThanTheRefusalProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
			if op == "Load" && down.Load() {
				return errDisk
			}
			return nil
		}}
		l := newLogin()
		l.takes = time.Second
		var ended []string
		user := l.step("user", "app")
		fetch, asked := user.Fetcher, []string(nil)
		user.Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			app := in.Parents["app"].AccessToken
			if asked = append(asked, app); slices.Contains(ended, app) {
				return nil, &rf.AuthError{StatusCode: 401}
			}
			return fetch.Fetch(ctx, in)
		})
		cfg := rf.PipelineConfig{Storage: storage, KeyPrefix: "x", Steps: identified([]rf.Step{l.step("app"), user})}
		p, peer := pipeline(t, cfg), pipeline(t, cfg)
		mustToken(t, p)
		require.NoError(t, p.InvalidateStep(t.Context(), "user"))
		time.Sleep(time.Minute)
		_, err := peer.Refresh(t.Context())
		require.NoError(t, err)
		require.NoError(t, peer.InvalidateStep(t.Context(), "user"))
		down.Store(true)
		time.Sleep(time.Minute) // no token is young
		ended, asked = []string{"app-1", "app-2"}, nil
		require.Equal(t, " app-4", mustToken(t, p).Extra["from"])
		require.Equal(t, []string{"app-1", "app-2", "app-4"}, slices.Compact(asked))
	})
}

// The auth server that refuses every app token is asked a few times, not for ever, whatever
// peers save meanwhile.
func TestReplacementsOfParentsAreBoundedWithinAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := rf.NewMemoryStorage()
		l := newLogin()
		var users int
		cfg := rf.PipelineConfig{Storage: storage, KeyPrefix: "x", Steps: identified([]rf.Step{l.step("app"), l.step("user", "app")})}
		peer := pipeline(t, cfg)
		cfg.Steps = slices.Clone(cfg.Steps)
		cfg.Steps[1].Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			if users++; users > 20 {
				return nil, errors.New("enough")
			}
			_, err := peer.Source("app").Token(ctx) // each is older than the refusal
			require.NoError(t, err)
			require.NoError(t, peer.InvalidateStep(ctx, "app"))
			_, err = peer.Source("app").Token(ctx)
			require.NoError(t, err)
			time.Sleep(time.Second)
			return nil, &rf.AuthError{StatusCode: 401}
		})
		p := pipeline(t, cfg)
		_, err := p.Token(t.Context())
		require.ErrorContains(t, err, "401")
		require.Less(t, users, 10)
	})
}

// By whose clock a peer has saved the replacement is unknown.
func TestReplacedParentOfAClockAheadProvesNothing(t *testing.T) {
	for _, life := range []time.Duration{0, time.Hour} {
		for _, skew := range []time.Duration{0, 5 * time.Minute} {
			t.Run(fmt.Sprint(life, skew), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var down atomic.Bool
					storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
						if op == "Load" && down.Load() {
							return errDisk
						}
						return nil
					}}
					storage.after = func(e *rf.Entry) { // the peer's clock
						if down.Load() && e.Record != nil && e.Record.Token.AccessToken == "app-2" {
							r, tok := *e.Record, *e.Record.Token
							r.Issued = r.Issued.Add(skew)
							if !tok.Expiry.IsZero() {
								tok.Expiry = tok.Expiry.Add(skew)
							}
							r.Token = &tok
							e.Record = &r
						}
					}
					l := newLogin()
					l.takes = time.Second
					l.life["app"] = life
					var ended []string
					user := l.step("user", "app")
					fetch, asked := user.Fetcher, []string(nil)
					user.Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
						app := in.Parents["app"].AccessToken
						if asked = append(asked, app); slices.Contains(ended, app) {
							return nil, &rf.AuthError{StatusCode: 401}
						}
						return fetch.Fetch(ctx, in)
					})
					cfg := rf.PipelineConfig{Storage: storage, KeyPrefix: "x", Steps: identified([]rf.Step{l.step("app"), user})}
					p, peer := pipeline(t, cfg), pipeline(t, cfg)
					mustToken(t, p)
					require.NoError(t, p.InvalidateStep(t.Context(), "user"))
					time.Sleep(time.Minute)
					_, err := peer.Refresh(t.Context())
					require.NoError(t, err)
					require.NoError(t, peer.InvalidateStep(t.Context(), "user"))
					down.Store(true)
					time.Sleep(time.Minute)
					ended, asked = []string{"app-1", "app-2"}, nil
					tok, err := p.Token(t.Context())
					require.NoError(t, err)
					require.Equal(t, " app-4", tok.Extra["from"])
				})
			})
		}
	}
}

// Two processes don't replace each other's parents in turn, for as long as an auth server
// refuses everything.
func TestWrongPasswordInTwoProcessesReplacesFewParents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 401} })
		cfg := rf.PipelineConfig{Storage: rf.NewMemoryStorage(), KeyPrefix: "x", Steps: identified([]rf.Step{l.step("app"), l.step("user", "app")})}
		p, q := pipeline(t, cfg), pipeline(t, cfg)
		for range 4 * 60 / 31 {
			p.Token(t.Context())
			q.Token(t.Context())
			time.Sleep(31 * time.Second)
		}
		require.LessOrEqual(t, l.fetches("app"), 4)
	})
}
