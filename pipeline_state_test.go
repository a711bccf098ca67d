package requestforge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// statuses are those of the steps, in order.
func statuses(t *testing.T, p *rf.Pipeline) string {
	var all []string
	for _, s := range p.State(t.Context()).Steps {
		all = append(all, fmt.Sprintf("%s %s", s.Name, s.Status))
	}
	return strings.Join(all, ", ")
}

func TestPipelineStateFollowsTheSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.life["user"] = time.Hour
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		require.Equal(t, "device none, app none, user none", statuses(t, p))
		require.Zero(t, l.fetches("device"), "State fetches nothing")

		go p.Token(t.Context())
		time.Sleep(1500 * time.Millisecond) // device took a second, app is on its way
		require.Equal(t, "device live, app fetching, user fetching", statuses(t, p))
		tok := mustToken(t, p)
		require.Equal(t, "device live, app live, user live", statuses(t, p))
		user := p.State(t.Context()).Steps[2]
		require.Equal(t, tok.Expiry, user.Expiry)
		require.Nil(t, user.LastError)
		require.Zero(t, user.NextTry)

		// Renewed in the background, then expired.
		time.Sleep(time.Until(tok.Expiry.Add(-time.Minute)))
		mustToken(t, p)
		synctest.Wait()
		require.Equal(t, "device live, app live, user ahead", statuses(t, p))
		time.Sleep(1500 * time.Millisecond) // the renewal took a second
		require.Equal(t, "device live, app live, user live", statuses(t, p))
		time.Sleep(2 * time.Hour)
		require.Equal(t, "device live, app live, user dead", statuses(t, p))

		// Revoked with what was made from it, and then no fetch succeeds.
		require.NoError(t, p.InvalidateStep(t.Context(), "app"))
		require.Equal(t, "device live, app dead, user dead", statuses(t, p))
		l.failing("app", func(int) error { return &rf.AuthError{StatusCode: 400, Code: "invalid_client", Permanent: true} })
		_, err := p.Token(t.Context())
		require.Error(t, err)
		require.Equal(t, "device live, app cooling, user cooling", statuses(t, p))
		failed := time.Now()
		for _, s := range p.State(t.Context()).Steps[1:] {
			require.Equal(t, failed.Add(30*time.Second), s.NextTry, s.Name)
			require.Equal(t, failed, s.LastErrorAt, s.Name)
			require.Equal(t, "app", s.LastError.Step, s.Name)
			require.Equal(t, "invalid_client", s.LastError.Code, s.Name)
			s.LastError.Step = "changed" // the caller's own
		}
		require.Equal(t, "app", p.State(t.Context()).Steps[1].LastError.Step)
		time.Sleep(30 * time.Second)
		require.Equal(t, "device live, app dead, user dead", statuses(t, p))
		require.Equal(t, failed, p.State(t.Context()).Steps[1].LastErrorAt, "the last failure stays")

		require.NoError(t, p.Forget(t.Context()))
		require.Equal(t, "device none, app none, user none", statuses(t, p))
		require.Nil(t, p.State(t.Context()).Steps[1].LastError)
	})
}

func TestPipelineStateShowsACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.failing("device", func(int) error { panic("secret-in-a-panic") })
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
		_, err := p.Token(t.Context())
		require.Error(t, err)
		s := p.State(t.Context()).Steps[0]
		require.Equal(t, rf.StatusNone, s.Status, "the next call tries at once")
		require.ErrorContains(t, s.LastError, "panic")
		require.NotContains(t, p.State(t.Context()).String(), "secret")
	})
}

func TestPipelineStatePrintsNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const secret = "secret-token"
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "user", Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			return &rf.Token{AccessToken: secret, Expiry: time.Now().Add(time.Hour)}, nil
		})}, {Name: "leaf", DependsOn: []string{"user"}, Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			return nil, errors.New("no leaf today")
		})}}})
		p.Token(t.Context())
		state := p.State(t.Context())
		const want = `"user" live, expires 2000-01-01T01:00:00Z
"leaf" cooling, next try 2000-01-01T00:00:01Z, failed 2000-01-01T00:00:00Z: requestforge: step "leaf": no leaf today; next try in 1s`
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
			require.Equal(t, want, fmt.Sprintf(verb, state), verb)
		}
		text, err := json.Marshal(state)
		require.NoError(t, err)
		require.NotContains(t, string(text), secret)
		require.Equal(t, want, state.LogValue().String())
		require.Equal(t, `"user" live, expires 2000-01-01T01:00:00Z`, state.Steps[0].LogValue().String())
	})
}
