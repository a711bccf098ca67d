// The end of sessions at an auth server that counts them.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// doorman is an auth server that lets in most at once: a login is a session, until somebody
// ends it. Its tokens are "step/subject#number".
type doorman struct {
	most int // 0: no bound

	mu      sync.Mutex
	made    int
	open    map[string]string // sessions by their present token, "" if that has no refresh token
	top     int               // the most sessions at once
	ended   []string          // tokens that were revoked, in order
	parents []string          // what the revocations found in Input.Parents
	refused int               // logins
	fail    error             // of revocations
	hold    time.Duration     // that a login takes
}

func newDoorman(most int) *doorman { return &doorman{most: most, open: map[string]string{}} }

func (d *doorman) sessions() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.open))
}

func (d *doorman) revoked() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.ended)
}

// step is a step of the auth server's whose tokens are revoked.
func (d *doorman) step(name string, after ...string) rf.Step {
	return rf.Step{
		Name: name, DependsOn: after, Identity: name, Revoke: d.revoke,
		Fetcher: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) { return d.login(name, in) }),
	}
}

func (d *doorman) login(step string, in rf.Input) (*rf.Token, error) {
	d.mu.Lock()
	d.made++
	tok := fmt.Sprintf("%s/%s#%d", step, in.Subject, d.made)
	full := d.most > 0 && len(d.open) >= d.most
	if full {
		d.refused++
	} else {
		d.open[tok] = ""
		d.top = max(d.top, len(d.open))
	}
	hold := d.hold
	d.mu.Unlock()
	if full {
		return nil, &rf.AuthError{StatusCode: http.StatusServiceUnavailable, Err: errors.New("too many sessions")}
	}
	time.Sleep(hold)
	return &rf.Token{AccessToken: tok}, nil
}

func (d *doorman) revoke(_ context.Context, in rf.Input) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(in.Parents)) {
		d.parents = append(d.parents, in.Previous.AccessToken+" with "+in.Parents[name].AccessToken)
	}
	if d.fail != nil {
		return d.fail
	}
	tok := in.Previous.AccessToken
	d.ended = append(d.ended, tok)
	if _, ok := d.open[tok]; !ok {
		return &rf.AuthError{StatusCode: http.StatusNotFound, Err: errors.New("no such session")}
	}
	delete(d.open, tok)
	return nil
}

// 1,000 processes, one after another, that log out: none leaves a session.
func TestRestartsThatLogOutLeaveNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorman(16)
		for range 1000 {
			p, err := rf.NewPipeline(rf.PipelineConfig{Steps: []rf.Step{d.step("user")}})
			require.NoError(t, err)
			mustToken(t, p)
			require.NoError(t, p.Logout(t.Context()))
			require.NoError(t, p.Close())
		}
		require.Empty(t, d.sessions())
		require.Zero(t, d.refused)
		require.Len(t, d.revoked(), 1000)
	})
}

// 1,000 renewals by a login from scratch have two sessions at once, and one in the end; the
// old token is good for the whole grace.
func TestRenewalsLeaveTwoSessionsAtMost(t *testing.T) {
	t.Parallel()
	const life, grace = 10 * time.Minute, 30 * time.Second
	for _, busy := range []bool{true, false} { // renewed ahead, or after the end
		t.Run(fmt.Sprint(busy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDoorman(16)
				step := d.step("user")
				step.TTL = life
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}, RevokeReplaced: grace})
				last, since := "", time.Now()
				for renewals := 0; renewals < 1000; {
					tok := mustToken(t, p)
					if tok.AccessToken != last {
						renewals++
						last, since = tok.AccessToken, time.Now()
					}
					synctest.Wait()
					n := 1
					if renewals > 1 && time.Since(since) < grace {
						n = 2
					}
					if !busy {
						require.Len(t, d.sessions(), n)
					}
					require.LessOrEqual(t, len(d.sessions()), 2)
					wait := life
					if busy {
						wait = 10 * time.Second
					}
					time.Sleep(wait)
				}
				time.Sleep(life)
				require.Len(t, d.sessions(), 1)
				require.LessOrEqual(t, d.top, 2)
				require.Zero(t, d.refused)
				s := p.Stats().Steps["user"]
				require.EqualValues(t, len(d.revoked()), s.Revocations)
				require.Zero(t, s.RevokeFailures)
			})
		})
	}
}

// A token that was replaced is ended after the grace, and not before, so that requests with
// it come to their end.
func TestReplacedTokenIsGoodForTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorman(0)
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{d.step("user")}, RevokeReplaced: time.Minute})
		old := mustToken(t, p).AccessToken
		_, err := p.Refresh(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Minute - time.Nanosecond)
		require.Contains(t, d.sessions(), old)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.NotContains(t, d.sessions(), old)
		require.Len(t, d.sessions(), 1)
	})
}

// A process that ends between a save and the end of the grace leaves one session, and the
// next one doesn't end what is not its own.
func TestCrashBeforeTheRevocationLeavesOneSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, storage := newDoorman(0), rf.NewMemoryStorage()
		step := d.step("user")
		step.TTL = time.Hour
		cfg := rf.PipelineConfig{Steps: []rf.Step{step}, Storage: storage, RevokeReplaced: time.Minute, RefreshAhead: -1}
		for crashes := range 10 {
			p := pipeline(t, cfg)
			mustToken(t, p)
			time.Sleep(time.Hour)
			mustToken(t, p)
			require.NoError(t, p.Close())
			time.Sleep(time.Hour)
			require.LessOrEqual(t, len(d.sessions()), 2+crashes)
		}
	})
}

// 50 processes share a storage. Whether one logs out or all do, all forget, and the session
// is ended once.
func TestLogoutOfManyProcessesEndsTheSessionOnce(t *testing.T) {
	for _, callers := range []int{1, 50} {
		t.Run(fmt.Sprint(callers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, storage := newDoorman(0), newPushing()
				var fleet []*rf.Pipeline
				for range 50 {
					p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{d.step("app"), d.step("user", "app")}, Storage: storage, KeyPrefix: "p"})
					mustToken(t, p)
					fleet = append(fleet, p)
				}
				require.Len(t, d.sessions(), 2)
				var wg sync.WaitGroup
				for _, p := range fleet[:callers] {
					wg.Go(func() { require.NoError(t, p.Logout(t.Context())) })
				}
				wg.Wait()
				time.Sleep(time.Second) // pushes
				synctest.Wait()
				require.Empty(t, d.sessions())
				require.Equal(t, []string{"user/#2", "app/#1"}, d.revoked(), "children before parents")
				require.Equal(t, []string{"user/#2 with app/#1"}, d.parents)
				for _, p := range fleet {
					require.Equal(t, rf.StatusNone, p.State(t.Context()).Steps[1].Status)
				}
			})
		})
	}
}

// Whoever's Save has replaced a token ends it, once, and nobody ends the newer one.
func TestNewerTokenOfAPeerIsNotEndedByAnOlderOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, storage := newDoorman(0), newPushing()
		cfg := rf.PipelineConfig{Steps: []rf.Step{d.step("user")}, Storage: storage, KeyPrefix: "p", RevokeReplaced: time.Minute}
		here, there := pipeline(t, cfg), pipeline(t, cfg)
		old := mustToken(t, here).AccessToken
		require.Equal(t, old, mustToken(t, there).AccessToken)
		newer, err := there.Refresh(t.Context())
		require.NoError(t, err)
		require.NoError(t, here.InvalidateStep(t.Context(), "user")) // as of the newer one, which is loaded first
		newest := mustToken(t, here).AccessToken
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, []string{newest}, d.sessions())
		require.ElementsMatch(t, []string{old, newer.AccessToken}, d.revoked())
		require.Equal(t, newest, mustToken(t, there).AccessToken)
	})
}

// A subject's logout ends the subject's own sessions, with the shared token that this may
// need, and nobody else's.
func TestLogoutOfASubjectLeavesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type who struct{}
		d := newDoorman(0)
		user := d.step("user", "app")
		user.PerSubject = true
		p := pipeline(t, rf.PipelineConfig{
			Steps: []rf.Step{d.step("app"), user},
			Subject: func(ctx context.Context) (string, error) {
				id, _ := ctx.Value(who{}).(string)
				return id, nil
			},
		})
		as := func(id string) context.Context { return context.WithValue(t.Context(), who{}, id) }
		for _, id := range []string{"ann", "bob"} {
			_, err := p.Token(as(id))
			require.NoError(t, err)
		}
		require.Equal(t, []string{"app/#1", "user/ann#2", "user/bob#3"}, d.sessions())
		require.NoError(t, p.Logout(as("ann")))
		require.Equal(t, []string{"app/#1", "user/bob#3"}, d.sessions())
		require.Equal(t, []string{"user/ann#2 with app/#1"}, d.parents)
		require.Error(t, p.Logout(t.Context()), "nobody's")

		// The shared token is fetched for a logout that needs it, and stays.
		require.NoError(t, p.InvalidateStep(t.Context(), "app"))
		require.NoError(t, p.Logout(as("bob")))
		require.Equal(t, []string{"app/#1", "app/#4"}, d.sessions())
		require.Equal(t, "user/bob#3 with app/#4", d.parents[1])
		require.Equal(t, rf.StatusLive, p.State(t.Context()).Steps[0].Status)
	})
}

// A revocation that fails, hangs or panics is in Logout's error and counted; the process has
// forgotten all the same, and within the step's time.
func TestFailedRevocationIsReportedAndForgotten(t *testing.T) {
	secret := errors.New("no service")
	for name, c := range map[string]struct {
		revoke func(ctx context.Context, in rf.Input) error
		want   string
		took   time.Duration
	}{
		"error":    {func(context.Context, rf.Input) error { return secret }, "no service", 0},
		"5xx":      {func(context.Context, rf.Input) error { return &rf.AuthError{StatusCode: 503} }, "503", 2 * time.Second},
		"hang":     {func(ctx context.Context, _ rf.Input) error { <-ctx.Done(); return ctx.Err() }, "Step.Timeout", 20 * time.Second},
		"deaf":     {func(context.Context, rf.Input) error { time.Sleep(time.Hour); return nil }, "Step.Timeout", 20 * time.Second},
		"panic":    {func(_ context.Context, in rf.Input) error { panic(in.Previous.AccessToken) }, "panic", 0},
		"4xx live": {func(context.Context, rf.Input) error { return &rf.AuthError{StatusCode: 403} }, "403", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				step := newDoorman(0).step("user")
				step.Revoke, step.Timeout = c.revoke, 20*time.Second
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}})
				tok := mustToken(t, p).AccessToken
				begun := time.Now()
				err := p.Logout(t.Context())
				require.LessOrEqual(t, time.Since(begun), c.took)
				require.ErrorContains(t, err, c.want)
				require.ErrorContains(t, err, `"user"`)
				require.NotContains(t, err.Error(), tok)
				require.EqualValues(t, 1, p.Stats().Steps["user"].RevokeFailures)
				require.Zero(t, p.Stats().Steps["user"].Revocations)
				require.Equal(t, rf.StatusNone, p.State(t.Context()).Steps[0].Status)
				require.NotEqual(t, tok, mustToken(t, p).AccessToken)
				time.Sleep(time.Hour) // the deaf one
			})
		})
	}
}

// What the auth server says of a token that is dead already is no failure, unless the
// session may live on: by a refresh token, or since it was the client that was refused.
func TestRevocationOfADeadTokenIsDone(t *testing.T) {
	for _, c := range []struct {
		answer  rf.AuthError
		refresh string
		failed  uint64
	}{
		{rf.AuthError{StatusCode: 404}, "", 0},
		{rf.AuthError{StatusCode: 401, Code: "invalid_token"}, "", 0},
		{rf.AuthError{StatusCode: 404}, "refresh", 1},
		{rf.AuthError{StatusCode: 401, Code: "invalid_client"}, "", 1},
		{rf.AuthError{StatusCode: 400, Code: "unauthorized_client"}, "", 1},
		{rf.AuthError{StatusCode: 400, Code: "invalid_request"}, "", 1},
		{rf.AuthError{StatusCode: 429}, "", 1},
		{rf.AuthError{StatusCode: 503}, "", 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			step := rf.Step{Name: "user", Revoke: func(context.Context, rf.Input) error { answer := c.answer; return &answer }}
			step.Fetcher = rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				return &rf.Token{AccessToken: "a", RefreshToken: c.refresh}, nil
			})
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}})
			mustToken(t, p)
			require.NoError(t, p.InvalidateAll(t.Context()))
			require.Equal(t, c.failed > 0, p.Logout(t.Context()) != nil, c)
			require.Equal(t, c.failed, p.Stats().Steps["user"].RevokeFailures, c)
		})
	}
}

// A logout while a login is under way leaves no session: the token that arrives is ended.
func TestLoginUnderWayAtALogoutIsEnded(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			d := newDoorman(0)
			d.hold = 5 * time.Second
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{d.step("user")}, RevokeReplaced: grace})
			got := make(chan error, 1)
			go func() { _, err := p.Token(t.Context()); got <- err }()
			time.Sleep(time.Second)
			require.NoError(t, p.Logout(t.Context()))
			require.ErrorContains(t, <-got, "forgotten")
			synctest.Wait()
			require.Empty(t, d.sessions())
		})
	}
}

// Two processes that can't lock log in at once: the session that comes second is ended, and
// the one that all use isn't.
func TestLoginThatAPeerWasFasterThanIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorman(0)
		d.hold = time.Second
		storage := struct{ rf.Storage }{rf.NewMemoryStorage()}
		cfg := rf.PipelineConfig{Steps: []rf.Step{d.step("user")}, Storage: storage, KeyPrefix: "p"}
		here, there := pipeline(t, cfg), pipeline(t, cfg)
		toks := make([]string, 2)
		var wg sync.WaitGroup
		for i, p := range []*rf.Pipeline{here, there} {
			wg.Go(func() { toks[i] = mustToken(t, p).AccessToken })
		}
		wg.Wait()
		synctest.Wait()
		require.Equal(t, toks[0], toks[1])
		require.Equal(t, toks[:1], d.sessions())
		require.Len(t, d.revoked(), 1)
	})
}

// A refresh goes on with the session: what it replaces isn't revoked. Nor is a token that
// the auth server hands out again.
func TestSessionThatGoesOnIsNotRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorman(0)
		n := 0
		next := rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			n++
			return &rf.Token{AccessToken: fmt.Sprint("access-", n), RefreshToken: "refresh", Expiry: time.Now().Add(time.Hour)}, nil
		})
		same := rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			return &rf.Token{AccessToken: "the same", Expiry: time.Now().Add(time.Hour)}, nil
		})
		p := pipeline(t, rf.PipelineConfig{
			Steps: []rf.Step{
				{Name: "refreshed", Fetcher: next, Refresh: next, Revoke: d.revoke},
				{Name: "same", Fetcher: same, Revoke: d.revoke},
			},
			RevokeReplaced: time.Minute,
		})
		for range 5 {
			for _, step := range []string{"refreshed", "same"} {
				_, err := p.Source(step).Token(t.Context())
				require.NoError(t, err)
			}
			time.Sleep(2 * time.Hour)
		}
		synctest.Wait()
		require.Greater(t, n, 4)
		require.Empty(t, d.revoked())
	})
}

// A revocation that needs a parent's token which has expired gets a new one, and ends that,
// too.
func TestLogoutFetchesWhatItNeedsAndEndsThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorman(0)
		app := d.step("app")
		app.TTL = time.Minute
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{app, d.step("user", "app")}, RefreshAhead: -1})
		mustToken(t, p)
		time.Sleep(time.Hour)
		require.NoError(t, p.Logout(t.Context()))
		require.Empty(t, d.sessions())
		require.Equal(t, []string{"user/#2 with app/#3"}, d.parents)
		require.Equal(t, rf.StatusNone, p.State(t.Context()).Steps[0].Status)
	})
}

// Where each revocation takes so long that the parents' tokens have expired by the next,
// all that was fetched for revocations is ended.
func TestLogoutEndsAllThatItsRevocationsFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorman(0)
		var steps []rf.Step
		for i, name := range []string{"a", "b", "c", "d", "e"} {
			step := d.step(name)
			if i > 0 {
				step.DependsOn = []string{steps[i-1].Name}
			}
			step.TTL = time.Second
			step.Revoke = func(ctx context.Context, in rf.Input) error {
				time.Sleep(10 * time.Second)
				return d.revoke(ctx, in)
			}
			steps = append(steps, step)
		}
		p := pipeline(t, rf.PipelineConfig{Steps: steps, RefreshAhead: -1, RevokeReplaced: time.Minute})
		mustToken(t, p)
		time.Sleep(time.Hour)
		require.NoError(t, p.Logout(t.Context()))
		time.Sleep(time.Hour) // what a fetch for a revocation has replaced
		synctest.Wait()
		require.Empty(t, d.sessions())
		require.Greater(t, d.made, 2*len(steps))
	})
}

// A logout ends what still waits for the end of its grace, and Close leaves that to end by
// itself.
func TestLogoutEndsWhatWaitsForItsGrace(t *testing.T) {
	for _, logout := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := newDoorman(0)
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{d.step("user")}, RevokeReplaced: time.Hour})
			mustToken(t, p)
			for range 3 {
				_, err := p.Refresh(t.Context())
				require.NoError(t, err)
			}
			require.Len(t, d.sessions(), 4)
			left := 4
			if logout {
				require.NoError(t, p.Logout(t.Context()))
				left = 0
			}
			require.NoError(t, p.Close())
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			require.Len(t, d.sessions(), left)
		})
	}
}

// A Revoke whose client gets its tokens from the step that is ended gets an error, and
// neither waits for itself nor logs in again.
func TestRevokeThatAsksItsOwnStepIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorman(0)
		step := d.step("user")
		var p *rf.Pipeline
		step.Revoke = func(ctx context.Context, _ rf.Input) error {
			_, err := p.Token(ctx)
			return err
		}
		p = pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}})
		mustToken(t, p)
		require.ErrorContains(t, p.Logout(t.Context()), "would wait for itself")
		require.Len(t, d.sessions(), 1)
	})
}

// Revocations hold no more slots than fetches may, and none while they wait for a token.
func TestRevocationsAreBoundedAtTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type who struct{}
		var mu sync.Mutex
		now, top := 0, 0
		user := newDoorman(0).step("user")
		user.PerSubject = true
		user.Revoke = func(context.Context, rf.Input) error {
			mu.Lock()
			now++
			top = max(top, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return nil
		}
		p := pipeline(t, rf.PipelineConfig{
			Steps: []rf.Step{user}, MaxFetches: 4, RevokeReplaced: time.Minute,
			Subject: func(ctx context.Context) (string, error) { return ctx.Value(who{}).(string), nil },
		})
		var wg sync.WaitGroup
		for i := range 40 {
			ctx := context.WithValue(t.Context(), who{}, fmt.Sprint(i))
			wg.Go(func() {
				_, err := p.Token(ctx)
				require.NoError(t, err)
				require.NoError(t, p.Logout(ctx))
			})
		}
		wg.Wait()
		require.Equal(t, 4, top)
	})
}

// A revocation endpoint that is silent, and a Revoke that is deaf to its context, hold up no
// login.
func TestRevocationsHoldUpNoLogin(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			step := newDoorman(0).step("user")
			step.Revoke = func(ctx context.Context, _ rf.Input) error {
				if deaf {
					time.Sleep(time.Hour)
				}
				<-ctx.Done()
				return ctx.Err()
			}
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}, MaxFetches: 2, RevokeReplaced: time.Second})
			for range 100 {
				begun := time.Now()
				_, err := p.Refresh(t.Context())
				require.NoError(t, err)
				require.Zero(t, time.Since(begun))
				time.Sleep(2 * time.Second)
			}
			time.Sleep(2 * time.Hour) // the deaf ones
		})
	}
}

// What is wrong with the fields shows at once.
func TestMistakesOfSessions(t *testing.T) {
	given := rf.Step{Name: "given", Given: func(context.Context) (*rf.Token, error) { return nil, nil }, IdleLimit: time.Hour,
		Revoke: func(context.Context, rf.Input) error { return nil }}
	idle := newDoorman(0).step("idle")
	idle.IdleLimit = -time.Second
	_, err := rf.NewPipeline(rf.PipelineConfig{Steps: []rf.Step{given, idle}, RevokeReplaced: -1})
	for _, want := range []string{`step "given" has both Given and Revoke`, `step "given" has both Given and IdleLimit`, `step "idle": IdleLimit is negative`, "PipelineConfig.RevokeReplaced is negative"} {
		require.ErrorContains(t, err, want)
	}
	idle.IdleLimit = time.Minute
	require.Contains(t, idle.String(), "IdleLimit 1m0s, revoked")
	require.False(t, strings.Contains(idle.String(), "0x"))
}
