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

// The label is what SubjectLabel makes of an ID, however long that is.
func TestStateOfALabel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("long", 100)
		var o office
		cfg := o.chain()
		cfg.MaxSubjects = 3
		cfg.SubjectLabel = func(id string) string { return "label-" + id[:1] }
		o.refuse = func(step, subject string, _ rf.Input) error {
			if subject == "bob" && step == "backend" {
				return &rf.AuthError{StatusCode: 400, Code: "invalid_client", Permanent: true}
			}
			return nil
		}
		p := pipeline(t, cfg)
		require.True(t, p.State(t.Context()).Labelled)
		for _, user := range []string{"ann", "bob", long} {
			_, err := p.Token(as(t.Context(), user))
			require.Equal(t, user == "bob", err != nil, "%v", err)
			time.Sleep(time.Second)
		}
		at := func(label string) []rf.StepState {
			// Whose context it is doesn't matter.
			return p.State(rf.WithSubjectLabel(as(t.Context(), "bob"), label)).Steps
		}
		for label, want := range map[string]rf.Status{"label-a": rf.StatusLive, "label-b": rf.StatusCooling, "label-l": rf.StatusLive} {
			steps := at(label)
			require.Equal(t, rf.StatusLive, steps[0].Status, "the shared step is as for everybody")
			require.Equal(t, rf.StatusLive, steps[1].Status)
			require.Equal(t, want, steps[2].Status)
			require.Nil(t, steps[2].Subjects)
		}
		require.Equal(t, "label-b", at("label-b")[2].LastError.Subject)
		for _, label := range []string{"ann", "label-", "label-c", ""} {
			require.Empty(t, at(label)[2].Subjects)
			require.NotNil(t, at(label)[2].Subjects, "none of them is counted")
		}

		// Two of one label are counted, and whoever is dropped isn't.
		_, err := p.Token(as(t.Context(), "bea"))
		require.NoError(t, err)
		require.Equal(t, map[rf.Status]int{rf.StatusCooling: 1, rf.StatusLive: 1}, at("label-b")[2].Subjects)
		require.Empty(t, at("label-a")[2].Subjects, "ann was idle longest")
		for _, user := range []string{"ann", "amy", "abe"} {
			_, err := p.Token(as(t.Context(), user))
			require.NoError(t, err)
		}
		require.Empty(t, at("label-l")[2].Subjects)
		require.Equal(t, map[rf.Status]int{rf.StatusLive: 3}, at("label-a")[2].Subjects)
	})
}

func TestStateOfALabelWhereThereAreNone(t *testing.T) {
	var o office
	p := pipeline(t, o.chain())
	tokenAs(t, p, as(t.Context(), "ann"))
	state := p.State(rf.WithSubjectLabel(t.Context(), "ann"))
	require.False(t, state.Labelled)
	require.Empty(t, state.Steps[2].Subjects)

	crashing := o.chain()
	crashing.SubjectLabel = func(string) string { panic("no label") }
	p = pipeline(t, crashing)
	tokenAs(t, p, as(t.Context(), "ann"))
	require.Empty(t, p.State(rf.WithSubjectLabel(t.Context(), "ann")).Steps[2].Subjects)
}

// Of many subjects the newest failure is shown.
func TestStateOfManyHasTheNewestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		o.refuse = func(step, subject string, _ rf.Input) error {
			if step == "user" && subject != "ann" {
				return &rf.AuthError{StatusCode: map[string]int{"bob": 400, "cid": 401}[subject], Permanent: true}
			}
			return nil
		}
		p := pipeline(t, o.chain())
		for _, user := range []string{"bob", "cid", "ann"} {
			_, err := p.Token(as(t.Context(), user))
			require.Equal(t, user != "ann", err != nil)
			time.Sleep(time.Second)
		}
		s := p.State(t.Context()).Steps[1]
		require.Equal(t, 401, s.LastError.StatusCode)
		require.Equal(t, time.Now().Add(-2*time.Second), s.LastErrorAt)
		require.Equal(t, map[rf.Status]int{rf.StatusCooling: 2, rf.StatusLive: 1}, s.Subjects)
		s.LastError.StatusCode = 500 // the caller's own
		require.Equal(t, 401, p.State(t.Context()).Steps[1].LastError.StatusCode)
	})
}
