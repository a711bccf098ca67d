// Sessions that a server ends when nobody uses them for a while.

package requestforge_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// lounge is an auth server whose session ends when nobody uses it for limit. Its token is
// taken by fetches of "user", which is how the session is used, and by API requests of use.
type lounge struct {
	limit time.Duration

	mu                         sync.Mutex
	n                          int
	used                       time.Time
	logins, refreshes, refused int
	users                      int
}

// session makes a token of the session, which is used by that.
func (l *lounge) session(_ context.Context, in rf.Input) (*rf.Token, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if in.Previous != nil {
		if time.Since(l.used) >= l.limit {
			l.refused++
			return nil, &rf.AuthError{StatusCode: http.StatusBadRequest, Code: "invalid_grant"}
		}
		l.refreshes++
	} else {
		l.logins++
	}
	l.n++
	l.used = time.Now()
	return &rf.Token{AccessToken: fmt.Sprint("session-", l.n), RefreshToken: "refresh"}, nil
}

// use takes a token of the session.
func (l *lounge) use(tok *rf.Token) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.used) >= l.limit {
		l.refused++
		return &rf.AuthError{StatusCode: http.StatusUnauthorized, Code: "invalid_token"}
	}
	l.used = time.Now()
	return nil
}

func (l *lounge) user(_ context.Context, in rf.Input) (*rf.Token, error) {
	if err := l.use(in.Parents["session"]); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users++
	return &rf.Token{AccessToken: fmt.Sprint("user-", l.users), Expiry: time.Now().Add(time.Hour)}, nil
}

func (l *lounge) steps() []rf.Step {
	return []rf.Step{
		{Name: "session", Fetcher: rf.FetcherFunc(l.session), Refresh: rf.FetcherFunc(l.session), IdleLimit: l.limit, Identity: "ann"},
		{Name: "user", DependsOn: []string{"session"}, Fetcher: rf.FetcherFunc(l.user), Identity: "ann"},
	}
}

// Six busy hours over a session that ends after half an hour without use: one login, and a
// renewal now and then.
func TestSessionOfABusyDescendantIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lounge{limit: 30 * time.Minute}
		p := pipeline(t, rf.PipelineConfig{Steps: l.steps()})
		for range 6 * 60 {
			mustToken(t, p)
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		require.Equal(t, 1, l.logins)
		require.Zero(t, l.refused)
		require.InDelta(t, 6*60/15, l.refreshes, 8)
		require.InDelta(t, 6, l.users, 2)
	})
}

// A session that nobody uses is left to end. Who needs one afterwards sends no token of it.
func TestSessionThatNobodyUsesIsLeftToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lounge{limit: 30 * time.Minute}
		p := pipeline(t, rf.PipelineConfig{Steps: l.steps()})
		mustToken(t, p)
		time.Sleep(24 * time.Hour)
		require.Equal(t, []int{1, 0, 0}, []int{l.logins, l.refreshes, l.refused})
		require.Equal(t, rf.StatusDead, p.State(t.Context()).Steps[0].Status)
		mustToken(t, p)
		require.Equal(t, []int{2, 0, 1}, []int{l.logins, l.refreshes, l.refused}, "the refresh token may have outlived the session")
	})
}

// A token that is used often is good for ever; one that wasn't used for the limit is renewed
// before it is sent.
func TestTokenUnusedForItsLimitIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lounge{limit: 10 * time.Minute}
		step := l.steps()[0]
		step.Refresh = nil
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}})
		for range 100 {
			require.NoError(t, l.use(mustToken(t, p)))
			time.Sleep(9 * time.Minute)
		}
		require.Equal(t, 1, l.logins)
		for range 10 {
			time.Sleep(10 * time.Minute)
			require.NoError(t, l.use(mustToken(t, p)))
		}
		require.Equal(t, 11, l.logins)
		require.Zero(t, l.refused)
	})
}

// A shared session is kept by whichever subject is busy, and a subject's own by that one.
func TestSessionIsKeptForSubjects(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprint(own), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				type who struct{}
				l := &lounge{limit: 30 * time.Minute}
				steps := l.steps()
				steps[0].PerSubject, steps[1].PerSubject = own, true
				p := pipeline(t, rf.PipelineConfig{Steps: steps, Subject: func(ctx context.Context) (string, error) { return ctx.Value(who{}).(string), nil }})
				for i := range 12 * 60 {
					id := fmt.Sprint(i % 4)
					if own {
						id = "ann"
					}
					_, err := p.Token(context.WithValue(t.Context(), who{}, id))
					require.NoError(t, err)
					time.Sleep(30 * time.Second)
				}
				require.Equal(t, 1, l.logins)
				require.Zero(t, l.refused)
				require.NotZero(t, l.refreshes)
			})
		})
	}
}

// Fetches of what is made from a token use it: a session without a Refresh is kept by them.
func TestFetchesOfDescendantsUseASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lounge{limit: 10 * time.Minute}
		steps := l.steps()
		steps[0].Refresh, steps[1].TTL = nil, 5*time.Minute
		p := pipeline(t, rf.PipelineConfig{Steps: steps, RefreshAhead: -1})
		for range 200 {
			mustToken(t, p)
			time.Sleep(time.Minute)
		}
		require.Equal(t, 1, l.logins)
		require.Zero(t, l.refused)
	})
}
