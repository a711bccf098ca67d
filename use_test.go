// Tokens for what isn't an http.Client.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

var errDenied = errors.New("denied")

// peer takes the tokens that good says, and notes what it saw.
type peer struct {
	good func(token string) bool
	mu   sync.Mutex
	saw  []string
}

func (p *peer) call(_ context.Context, tok *rf.Token) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.saw = append(p.saw, tok.AccessToken)
	if !p.good(tok.AccessToken) {
		return fmt.Errorf("%w: %w", rf.ErrRefused, errDenied)
	}
	return nil
}

// fixed is a source that gives out any token.
type fixed struct{ all []*rf.Token }

func (s *fixed) Token(context.Context) (*rf.Token, error) { return s.all[0], nil }
func (s *fixed) Invalidate(context.Context, *rf.Token) error {
	s.all = s.all[1:]
	return nil
}

// A token that no request could carry isn't handed out, first or second.
func TestUseHandsOutNoTokenThatCantBeSent(t *testing.T) {
	for _, tok := range []*rf.Token{{}, {AccessToken: "a\r\nX-Admin: 1"}, {AccessToken: "a", TokenType: "x y"}} {
		err := rf.Use(t.Context(), &fixed{[]*rf.Token{tok}}, func(context.Context, *rf.Token) error {
			t.Error("f was called")
			return nil
		})
		require.ErrorContains(t, err, "can't be sent")
		calls := 0
		err = rf.Use(t.Context(), &fixed{[]*rf.Token{{AccessToken: "good"}, tok}}, func(context.Context, *rf.Token) error {
			calls++
			return rf.ErrRefused
		})
		require.ErrorIs(t, err, rf.ErrRefused)
		require.ErrorContains(t, err, "can't be sent")
		require.Equal(t, 1, calls)
	}
}

func TestUseCallsOnceMoreWithAnotherToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		good := "user-1"
		peer := &peer{good: func(tok string) bool { return tok == good }}
		require.NoError(t, rf.Use(t.Context(), p, peer.call))
		good = "user-2"
		require.NoError(t, rf.Use(t.Context(), p, peer.call))
		good = "none"
		err := rf.Use(t.Context(), p, peer.call)
		require.ErrorIs(t, err, rf.ErrRefused)
		require.ErrorIs(t, err, errDenied)
		require.EqualError(t, err, "requestforge: the peer refused the token: denied", "f's last one as it is")
		require.Equal(t, []string{"user-1", "user-1", "user-2", "user-2", "user-3"}, peer.saw)
		require.Equal(t, "user-4", mustToken(t, p).AccessToken, "the second one was refused as well")
	})
}

// Every other error is f's own affair: no second call, no invalidation, no acceptance.
func TestUseLeavesOtherErrorsAlone(t *testing.T) {
	l := newLogin()
	l.takes = 0
	p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
	require.NoError(t, p.Invalidate(t.Context(), mustToken(t, p)))
	calls := 0
	err := rf.Use(t.Context(), p, func(context.Context, *rf.Token) error { calls++; return errDenied })
	require.Equal(t, errDenied, err)
	require.Equal(t, 1, calls)
	require.NoError(t, p.Invalidate(t.Context(), mustToken(t, p)))
	mustToken(t, p)
	require.Equal(t, 2, l.fetches("app"), "the second refusal in a row: nothing was accepted between")
}

// An acceptance ends a row of refusals, and one after a refusal proves that.
func TestUseTellsOfAcceptances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		good := ""
		peer := &peer{good: func(tok string) bool { return tok == good }}
		for n := 2; n < 52; n++ { // far more than three are affordable
			good = fmt.Sprintf("user-%d", n)
			require.NoError(t, rf.Use(t.Context(), p, peer.call), n)
		}
		require.Equal(t, 1, l.fetches("app"))
		require.Zero(t, p.Stats().RefusalsIgnored)
	})
}

// A peer that refuses everything costs the auth server as little as an API that does.
func TestUseIsBoundedWhereEverythingIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		peer := &peer{good: func(string) bool { return false }}
		for range 100 {
			err := rf.Use(t.Context(), p, peer.call)
			require.EqualError(t, err, "requestforge: the peer refused the token: denied")
		}
		require.Equal(t, 4, l.fetches("user"))
		require.Equal(t, 3, l.fetches("app"))
		require.Equal(t, 2, l.fetches("device"))
		require.NotZero(t, p.Stats().RefusalsIgnored)
	})
}

// A thousand callers whose token is refused share one fetch.
func TestUseSharesTheFetchAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		require.NoError(t, rf.Use(t.Context(), p, func(context.Context, *rf.Token) error { return nil }))
		peer := &peer{good: func(tok string) bool { return tok == "user-2" }}
		var wg sync.WaitGroup
		var good atomic.Int32
		for range 1000 {
			wg.Go(func() {
				if err := rf.Use(t.Context(), p, peer.call); err == nil {
					good.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1000, good.Load())
		require.Equal(t, 2, l.fetches("user"))
		require.Equal(t, 1, l.fetches("app"))
	})
}

// Without another token the error has both: what f said, and why there was none.
func TestUseJoinsTheReasonWhyThereWasNoOtherToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		mustToken(t, p)
		l.failing("user", func(int) error { return &rf.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true} })
		peer := &peer{good: func(string) bool { return false }}
		err := rf.Use(t.Context(), p, peer.call)
		require.ErrorIs(t, err, errDenied)
		auth, ok := errors.AsType[*rf.AuthError](err)
		require.True(t, ok)
		require.Equal(t, "user", auth.Step)
		require.Len(t, peer.saw, 1)

		// No token to begin with: the source's error alone.
		err = rf.Use(t.Context(), p, peer.call)
		require.NotErrorIs(t, err, rf.ErrRefused)
		_, ok = err.(*rf.AuthError)
		require.True(t, ok, "%T", err)
		require.Len(t, peer.saw, 1)
	})

	// A source that has only the one token.
	err := rf.Use(t.Context(), static("key"), (&peer{good: func(string) bool { return false }}).call)
	require.EqualError(t, err, "requestforge: the peer refused the token: denied")
}

func TestUseEndsWithItsContext(t *testing.T) {
	reason := errors.New("the user has gone")
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		calls := 0
		f := func(err error) func(context.Context, *rf.Token) error {
			return func(context.Context, *rf.Token) error { calls++; return err }
		}
		// While there is no token yet.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, rf.Use(ctx, p, f(nil)), context.DeadlineExceeded)
		require.Zero(t, calls)
		mustToken(t, p)

		// Before, as that of a request that is over, though a token is at hand.
		over, end := context.WithCancelCause(t.Context())
		end(reason)
		require.ErrorIs(t, rf.Use(over, p, f(nil)), reason)
		require.Zero(t, calls)

		// During the call that is refused: others have the token, too.
		ctx, end = context.WithCancelCause(t.Context())
		err := rf.Use(ctx, p, func(context.Context, *rf.Token) error { calls++; end(reason); return rf.ErrRefused })
		require.ErrorIs(t, err, rf.ErrRefused)
		require.ErrorIs(t, err, reason)
		require.Equal(t, 1, calls)
		require.Equal(t, "user-2", mustToken(t, p).AccessToken)

		// While another token is being fetched.
		ctx, cancel = context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		err = rf.Use(ctx, p, f(rf.ErrRefused))
		require.ErrorIs(t, err, rf.ErrRefused)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 2, calls)
	})
}

func TestUseMistakesAreErrors(t *testing.T) {
	f := func(context.Context, *rf.Token) error { t.Error("called"); return nil }
	for want, err := range map[string]error{
		"Use: src is nil": rf.Use(t.Context(), nil, f),
		"src is nil":      rf.Use(t.Context(), (*rf.Pipeline)(nil), f),
		"Use: f is nil":   rf.Use(t.Context(), static("key"), nil),
		//lint:ignore SA1012 that is the mistake
		"Use: ctx is nil":       rf.Use(nil, static("key"), f),
		"there is no token":     rf.Use(t.Context(), rf.StaticToken(nil), f),
		"neither a token nor":   rf.Use(t.Context(), noToken{}, f),
		"nobody's parents":      rf.Use(t.Context(), must(rf.NewPipeline(rf.PipelineConfig{Steps: newLogin().fork()})), f),
		"is no step of the pip": rf.Use(t.Context(), must(rf.NewPipeline(rf.PipelineConfig{Steps: newLogin().fork()})).Source("x"), f),
	} {
		require.ErrorContains(t, err, want)
	}
}

type noToken struct{}

func (noToken) Token(context.Context) (*rf.Token, error)    { return nil, nil }
func (noToken) Invalidate(context.Context, *rf.Token) error { return nil }

// A panic of f is the caller's, and says nothing of the token.
func TestUseLetsAPanicThrough(t *testing.T) {
	l := newLogin()
	l.takes = 0
	p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
	for n := range 2 {
		require.PanicsWithValue(t, "boom", func() {
			calls := 0
			_ = rf.Use(t.Context(), p, func(context.Context, *rf.Token) error {
				if calls++; calls > n {
					panic("boom")
				}
				return rf.ErrRefused
			})
		})
		require.Equal(t, n+1, l.fetches("user"))
		require.Equal(t, fmt.Sprintf("user-%d", n+1), mustToken(t, p).AccessToken)
	}
	require.NoError(t, p.Invalidate(t.Context(), mustToken(t, p)))
	mustToken(t, p)
	require.Equal(t, 2, l.fetches("app"), "nothing was accepted")
}

// What f sends for a request under way isn't counted as that request's sends.
func TestUseInsideARequestCountsAnew(t *testing.T) {
	var numbers []int
	base := roundTrip(func(req *http.Request) (*http.Response, error) {
		err := rf.Use(req.Context(), static("key"), func(ctx context.Context, tok *rf.Token) error {
			numbers = append(numbers, rf.SendNumber(req.Context()), rf.SendNumber(ctx))
			return nil
		})
		return reply(req, 503), err
	})
	get(t, retryOver(base, retryFast(2)), host)
	require.Equal(t, []int{1, 1, 2, 1, 3, 1}, numbers)
}

// Use over the source of a step that isn't the leaf.
func TestUseWithAnotherStepsSource(t *testing.T) {
	l := newLogin()
	l.takes = 0
	p := pipeline(t, rf.PipelineConfig{Steps: l.fork()})
	peer := &peer{good: func(tok string) bool { return tok == "app-2" }}
	require.NoError(t, rf.Use(t.Context(), p.Source("app"), peer.call))
	require.Equal(t, []string{"app-1", "app-2"}, peer.saw)
	require.Equal(t, map[string]int{"root": 1, "app": 2, "user": 0, "audit": 0}, l.counts())
}
