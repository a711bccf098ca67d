// A logout, and all the ways to undo one that have been tried.

package requestforge_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// tardy is a storage whose calls take a while, or land although they have timed out.
type tardy struct {
	*rf.MemoryStorage
	mu   sync.Mutex
	late map[string]time.Duration // by operation: how long before it is done
}

func (s *tardy) delay(op string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late == nil {
		s.late = map[string]time.Duration{}
	}
	s.late[op] = d
}

func (s *tardy) wait(op string) context.Context {
	s.mu.Lock()
	d := s.late[op]
	s.mu.Unlock()
	time.Sleep(d)
	return context.Background() // what is on the way lands, whoever waits
}

func (s *tardy) Load(_ context.Context, keys ...string) ([]rf.Entry, error) {
	return s.MemoryStorage.Load(s.wait("Load"), keys...)
}

func (s *tardy) Save(_ context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	return s.MemoryStorage.Save(s.wait("Save"), key, r, seen)
}

func (s *tardy) Delete(_ context.Context, key string, seen uint64) (rf.Entry, error) {
	return s.MemoryStorage.Delete(s.wait("Delete"), key, seen)
}

// leavesATombstone fails unless there is nothing under the key but a tombstone.
func leavesATombstone(t *testing.T, s rf.Storage) {
	t.Helper()
	entries, err := s.Load(context.Background(), "requestforge:user")
	require.NoError(t, err)
	require.Nil(t, entries[0].Record)
	require.NotZero(t, entries[0].Gone)
}

// A logout in one process holds in the other: it spends no refresh token from before,
// whatever it holds and whether the storage pushes or not.
func TestPipelineLogoutHoldsInAllProcesses(t *testing.T) {
	storages := map[string]func() rf.Storage{
		"pushing": func() rf.Storage { return newPushing() },
		"silent":  func() rf.Storage { return plainLocker{rf.NewMemoryStorage()} },
	}
	for name, storage := range storages {
		for _, expired := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/expired=%v", name, expired), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := &rotating{}
					cfg := rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: storage(), RefreshAhead: -1}
					here, there := pipeline(t, cfg), pipeline(t, cfg)
					mustToken(t, here)
					mustToken(t, there)
					synctest.Wait()
					if expired {
						time.Sleep(2 * time.Hour)
					}
					require.NoError(t, here.Forget(t.Context()))
					leavesATombstone(t, cfg.Storage)
					wait := 31 * time.Second
					if name == "pushing" {
						wait = time.Second
					}
					time.Sleep(wait)
					require.Equal(t, "access-2", mustToken(t, there).AccessToken)
					require.Equal(t, "access-2", mustToken(t, here).AccessToken)
					require.Equal(t, 2, r.logins)
					require.Zero(t, r.refreshs)
				})
			})
		}
	}
}

// plainLocker is a storage that locks and doesn't push.
type plainLocker struct{ *rf.MemoryStorage }

// A fetch from before a logout comes to nothing wherever it runs: a refresh, a first
// login, one whose Save is on the way. It gives nobody a token, a cool-down or an
// OnRotate, and leaves no record.
func TestPipelineFetchFromBeforeAPeersLogoutComesToNothing(t *testing.T) {
	for name, c := range map[string]struct {
		first bool          // the other process has no token yet
		save  time.Duration // of its Save
		fail  bool          // its fetch
		push  bool
	}{
		"a refresh":                 {},
		"a refresh, pushed":         {push: true},
		"a first login":             {first: true},
		"a first login, pushed":     {first: true, push: true},
		"its Save is late":          {save: 200 * time.Millisecond},
		"its Save has timed out":    {save: 10 * time.Second},
		"its first Save timed out":  {first: true, save: 10 * time.Second},
		"it fails":                  {fail: true},
		"it fails, pushed":          {fail: true, push: true},
		"its first one fails, push": {first: true, fail: true, push: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &rotating{}
				slow, rotations := true, 0
				step := r.step()
				answer := func(f rf.Fetcher) rf.Fetcher {
					return rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
						if slow {
							time.Sleep(5 * time.Second)
							if c.fail {
								return nil, &rf.AuthError{StatusCode: 400}
							}
						}
						return f.Fetch(ctx, in)
					})
				}
				memory := rf.NewMemoryStorage()
				var base rf.Storage = plainLocker{memory}
				if c.push {
					base = newPushing()
				}
				cfg := rf.PipelineConfig{Steps: []rf.Step{step}, Storage: base, RefreshAhead: -1}
				here := pipeline(t, cfg)
				step.Fetcher, step.Refresh = answer(step.Fetcher), answer(step.Refresh)
				step.OnRotate = func(context.Context, *rf.Token) { rotations++ }
				cfg.Steps = []rf.Step{step}
				late := &tardy{MemoryStorage: memory}
				if !c.push {
					cfg.Storage = late
				}
				there := pipeline(t, cfg)
				if !c.first {
					mustToken(t, here)
					time.Sleep(2 * time.Hour)
				}
				late.delay("Save", c.save)
				got := make(chan error, 1)
				go func() { _, err := there.Token(t.Context()); got <- err }()
				time.Sleep(time.Second) // its request is on the way
				if c.save > 0 {
					time.Sleep(4050 * time.Millisecond) // its Save is
				}
				require.NoError(t, here.Forget(t.Context()))
				err := <-got
				if c.push || c.save == 0 && !c.fail {
					require.ErrorContains(t, err, "forgotten")
				}
				if c.push || c.save == 0 {
					require.Zero(t, rotations)
				}
				slow = false
				late.delay("Save", 0)
				time.Sleep(time.Minute)
				if !c.fail || c.push {
					leavesATombstone(t, base)
				}
				logins := r.logins
				require.NotNil(t, mustToken(t, there))
				require.Equal(t, logins+1, r.logins, "the next Token is a login")
				require.Zero(t, r.reused)
				require.Equal(t, mustToken(t, there).AccessToken, mustToken(t, here).AccessToken)
			})
		})
	}
}

// A logout that the storage could not be told of says so, holds here, and is told
// with a later look, also if nobody asks for a token any more: whoever has logged in
// elsewhere meanwhile is logged out.
func TestPipelineLogoutThatFailsIsToldLater(t *testing.T) {
	for _, op := range []string{"Load", "Delete"} {
		for _, idle := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/idle=%v", op, idle), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := &rotating{}
					var down atomic.Bool
					memory := rf.NewMemoryStorage()
					storage := &faulty{MemoryStorage: memory, before: func(o string) error {
						if down.Load() && o == op {
							return errDisk
						}
						return nil
					}}
					cfg := rf.PipelineConfig{Steps: []rf.Step{r.step()}, RefreshAhead: -1}
					cfg.Storage = storage
					here := pipeline(t, cfg)
					cfg.Storage = plainLocker{memory}
					there := pipeline(t, cfg)
					mustToken(t, here)
					mustToken(t, there)
					down.Store(true)
					err := here.Forget(t.Context())
					require.ErrorIs(t, err, errDisk)
					require.ErrorContains(t, err, "others may not know yet")
					down.Store(false)
					if idle {
						time.Sleep(31 * time.Second)
						leavesATombstone(t, memory)
						time.Sleep(31 * time.Second)
					} else {
						mustToken(t, here)
						time.Sleep(31 * time.Second)
					}
					require.Equal(t, "access-2", mustToken(t, there).AccessToken)
					require.Equal(t, "access-2", mustToken(t, here).AccessToken)
					require.Equal(t, 2, r.logins)
					require.Zero(t, r.refreshs)
				})
			})
		}
	}
}

// The program's next run finds nothing that a logout was to end, also where Save and
// Delete crossed each other.
func TestPipelineLogoutDuringASaveLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{}
		storage := &tardy{MemoryStorage: rf.NewMemoryStorage()}
		storage.delay("Save", 100*time.Millisecond)
		cfg := rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: storage}
		p := pipeline(t, cfg)
		got := make(chan error, 1)
		go func() { _, err := p.Token(context.Background()); got <- err }()
		time.Sleep(50 * time.Millisecond)
		require.NoError(t, p.Forget(t.Context()))
		require.ErrorContains(t, <-got, "forgotten")
		time.Sleep(10 * time.Minute)
		leavesATombstone(t, storage)
		mustToken(t, pipeline(t, cfg))
		require.Equal(t, 2, r.logins)
	})
}

// A tombstone that the storage has lost is written again by whoever knows of it, and
// what comes back with an old backup is dead.
func TestPipelineLostTombstoneIsWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{}
		storage := newLossy()
		cfg := rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: storage, RefreshAhead: -1}
		here := pipeline(t, cfg)
		mustToken(t, here)
		old, err := storage.Load(t.Context(), "requestforge:user")
		require.NoError(t, err)
		require.NoError(t, here.Forget(t.Context()))
		storage.lose("requestforge:user")
		back := *old[0].Record
		back.Stamp = 0
		_, err = storage.Save(t.Context(), "requestforge:user", back, 0)
		require.NoError(t, err)

		require.Equal(t, "access-2", mustToken(t, here).AccessToken)
		require.Zero(t, r.refreshs)
		require.Equal(t, "access-2", mustToken(t, pipeline(t, cfg)).AccessToken)
	})
}

// Whoever logs in after a logout keeps that login: a Delete that arrives late hits
// nothing, nor does a logout that was heard of before.
func TestPipelineLoginAfterALogoutStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{}
		memory := rf.NewMemoryStorage()
		late := &tardy{MemoryStorage: memory}
		cfg := rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: late, RefreshAhead: -1}
		here := pipeline(t, cfg)
		cfg.Storage = plainLocker{memory}
		there := pipeline(t, cfg)
		mustToken(t, here)
		mustToken(t, there)
		late.delay("Delete", 10*time.Second)
		require.Error(t, here.Forget(t.Context()), "no answer in time")
		require.NoError(t, there.Forget(t.Context()))
		mustToken(t, there)
		time.Sleep(9 * time.Second)
		require.Equal(t, "access-2", mustToken(t, there).AccessToken)
		time.Sleep(10 * time.Minute)
		require.Equal(t, "access-2", mustToken(t, there).AccessToken)
		require.Equal(t, 2, r.logins)
	})
}

// A lease that is lost while the parents are fetched is no lease: the refresh token
// in the storage is another process's to send.
func TestPipelineRefreshTokenIsNotSentAfterTheLeaseWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{}
		lost := make(chan struct{})
		var armed atomic.Bool
		memory := rf.NewMemoryStorage()
		storage := &faulty{MemoryStorage: memory}
		storage.lock = func() (rf.Lease, bool, error) { return &losing{Lease: lease{}, lost: lost}, true, nil }
		parent := rf.Step{Name: "app", TTL: time.Minute, Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			if armed.Load() {
				close(lost)
			}
			return &rf.Token{AccessToken: "app"}, nil
		})}
		user := r.step()
		user.DependsOn = []string{"app"}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{parent, user}, Storage: storage, RefreshAhead: -1})
		mustToken(t, p)
		time.Sleep(2 * time.Hour)
		armed.Store(true)
		mustToken(t, p)
		require.Zero(t, r.refreshs)
		require.Equal(t, 2, r.logins)
	})
}

// A crash is forgiven once. A second one in a row is a failure like any other.
func TestPipelineCrashIsForgivenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent, crash := 0, true
		p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Steps: []rf.Step{{Name: "user", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			if sent++; crash {
				panic("an answer of a kind never seen")
			}
			return &rf.Token{AccessToken: "a", Expiry: time.Now().Add(time.Minute)}, nil
		})}}})
		for range 1000 {
			_, err := p.Token(t.Context())
			require.Error(t, err)
		}
		require.Equal(t, 2, sent)
		crash = false
		time.Sleep(time.Minute)
		mustToken(t, p)

		// After a success there is another one to forgive.
		time.Sleep(time.Hour)
		sent, crash = 0, true
		p.Token(t.Context())
		crash = false
		mustToken(t, p)
		require.Equal(t, 2, sent)
	})
}

// A refresh token that was in a crash counts as spent.
func TestPipelineRefreshTokenInACrashIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{refuse: func(int) error { panic("an answer of a kind never seen") }}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{r.step()}, RefreshAhead: -1})
		mustToken(t, p)
		time.Sleep(2 * time.Hour)
		for range 100 {
			p.Token(t.Context())
		}
		require.Equal(t, 1, r.refreshs)
		require.Equal(t, 2, r.logins)
	})
}

// A crash before anything was sent costs no refresh token.
func TestPipelineRefreshTokenOutlivesACrashBeforeTheSend(t *testing.T) {
	boom := false
	crash := func() {
		if boom {
			boom = false
			panic("not this time")
		}
	}
	for name, set := range map[string]func(*rf.HTTPFetcher){
		"BodyFrom": func(f *rf.HTTPFetcher) { f.BodyFrom = func(rf.Input) (any, error) { crash(); return nil, nil } },
		"URLFrom": func(f *rf.HTTPFetcher) {
			f.URLFrom = func(rf.Input) (string, error) { crash(); return "/refresh", nil }
		},
		"Prepare": func(f *rf.HTTPFetcher) { f.Prepare = func(*http.Request, rf.Input) error { crash(); return nil } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := ""
				login := rf.HTTPFetcher{URL: "https://auth.example/login", Client: inMemory(func(w http.ResponseWriter, r *http.Request) {
					asked += r.URL.Path
					answerJSON(w, 200, object{"access_token": asked, "refresh_token": "r", "expires_in": 600})
				})}
				refresh := login
				refresh.URL = "https://auth.example/refresh"
				set(&refresh)
				p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Steps: []rf.Step{{Name: "s", Fetcher: &login, Refresh: &refresh}}})
				mustToken(t, p)
				time.Sleep(11 * time.Minute)
				boom = true
				_, err := p.Token(t.Context())
				var auth *rf.AuthError
				require.ErrorAs(t, err, &auth)
				require.True(t, auth.Unsent)
				require.Contains(t, err.Error(), "panic")
				require.NotContains(t, err.Error(), "not this time")
				mustToken(t, p)
				require.Equal(t, "/login/refresh", asked)
			})
		})
	}
}

// Tokens that are dead on arrival are asked for three times, then the step cools down.
func TestPipelineTokenDeadOnArrivalLeavesACoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetches := 0
		var p *rf.Pipeline
		step := rf.Step{Name: "user", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			fetches++
			return &rf.Token{AccessToken: fmt.Sprint(fetches)}, nil
		})}
		step.OnRotate = func(context.Context, *rf.Token) {}
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage()}
		storage.before = func(op string) error {
			if op == "Save" { // a revocation of what is about to be saved
				storage.MemoryStorage.Revoke(context.Background(), "requestforge:user", uint64(100*fetches))
			}
			return nil
		}
		storage.after = func(e *rf.Entry) { e.Mark = max(e.Mark, e.Record.Stamp) }
		p = pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}, Storage: storage})
		for range 100 {
			_, err := p.Token(t.Context())
			require.Error(t, err)
		}
		require.Equal(t, 3, fetches)
		time.Sleep(2 * time.Second)
		p.Token(t.Context())
		require.Equal(t, 6, fetches)
	})
}

// One request a cool-down means one. Refresh asks all the same.
func TestPipelineRefreshAsksWhileTheStepCoolsDown(t *testing.T) {
	sent := 0
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "user", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
		sent++
		return nil, &rf.AuthError{StatusCode: 401, Permanent: true}
	})}}})
	for range 10 {
		_, err := p.Token(t.Context())
		require.Error(t, err)
	}
	require.Equal(t, 1, sent)
	_, err := p.Refresh(t.Context())
	require.Error(t, err)
	require.Equal(t, 2, sent)
}

// lease is one that nothing ends.
type lease struct{}

func (lease) Done() <-chan struct{}        { return nil }
func (lease) Unlock(context.Context) error { return nil }

// A logout that isn't in the storage yet isn't done with an older one of a peer's: what
// has logged in between the two is from before.
func TestPipelineLogoutThatIsDueOutlivesAnOlderOneOfAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, storage := newLogin(), rf.NewMemoryStorage()
		mine := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: &faulty{MemoryStorage: storage, before: func(op string) error {
			if op == "Delete" {
				return errDisk
			}
			return nil
		}}})
		peer := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage})
		mustToken(t, mine)
		require.NoError(t, peer.Forget(t.Context()))
		before := mustToken(t, peer)
		require.ErrorIs(t, mine.Forget(t.Context()), errDisk)
		for range 3 {
			tok, err := mine.Token(t.Context())
			require.NoError(t, err)
			require.NotEqual(t, before.AccessToken, tok.AccessToken)
			time.Sleep(time.Minute)
		}
	})
}

// Who asks after a peer's logout gets a new login, even where the ask is what the
// logout is heard by, and the login has several steps.
func TestPipelineWhoAsksAfterAPeersLogoutLogsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, storage := newLogin(), rf.NewMemoryStorage()
		l.life["device"], l.life["app"], l.life["user"] = time.Hour, time.Hour, time.Hour
		mine := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: &faulty{MemoryStorage: storage}})
		peer := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage})
		before := mustToken(t, mine)
		time.Sleep(24 * time.Hour) // nobody looks once the token has expired
		require.NoError(t, peer.Forget(t.Context()))
		require.NotEqual(t, before.AccessToken, mustToken(t, mine).AccessToken)
	})
}

// A tombstone that this process found and never wrote is a peer's, also while one of its
// own is due: what it had fetched before comes to nothing. Where the process did write
// one and got no answer, whose the tombstone is can't be known, and nothing is lost but
// a login.
func TestPipelineDueLogoutTakesNoPeersTombstoneForItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		again bool // the peer logs in again
		tried bool // this process's Delete has failed
		load  bool // the storage can be read at the end of the fetch
	}{
		"a logout":                       {},
		"a logout, and a login":          {again: true},
		"a logout, tried":                {tried: true},
		"a logout, and a login, tried":   {again: true, tried: true},
		"a logout, readable":             {load: true},
		"a logout and a login, readable": {again: true, load: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, storage := newLogin(), rf.NewMemoryStorage()
				var down, deaf atomic.Bool // Load; Delete
				mine := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: &faulty{MemoryStorage: storage, before: func(op string) error {
					if op == "Load" && down.Load() || op == "Delete" && deaf.Load() {
						return errDisk
					}
					return nil
				}}})
				peer := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage})
				mustToken(t, mine)
				mustToken(t, peer)
				deaf.Store(c.tried)
				down.Store(!c.tried)
				require.ErrorIs(t, mine.Forget(t.Context()), errDisk)
				down.Store(true)
				var wg sync.WaitGroup
				wg.Go(func() {
					time.Sleep(500 * time.Millisecond) // user-2 is on its way
					assert.NoError(t, peer.Forget(t.Context()))
					if c.again {
						_, err := peer.Token(t.Context())
						assert.NoError(t, err)
					}
					down.Store(!c.load)
				})
				l.fail["user"] = func(n int) error {
					if n == 2 {
						time.Sleep(2 * time.Second) // the peer is faster
					}
					return nil
				}
				tok, err := mine.Token(t.Context())
				if err == nil {
					assert.NotEqual(t, "user-2", tok.AccessToken)
				}
				wg.Wait()
				down.Store(false)
				deaf.Store(false)
				for range 3 {
					entries, err := storage.Load(t.Context(), "requestforge:user")
					require.NoError(t, err)
					if r := entries[0].Record; r != nil {
						require.NotEqual(t, "user-2", r.Token.AccessToken)
					}
					require.NotEqual(t, "user-2", mustToken(t, mine).AccessToken)
					require.NotEqual(t, "user-2", mustToken(t, peer).AccessToken)
					time.Sleep(time.Minute)
				}
			})
		})
	}
}

// A logout ends a cool-down in every process within half a minute, also where the
// storage doesn't push and the process that cools down has no token.
func TestPipelineLogoutEndsAPeersCoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, storage := newLogin(), plainLocker{rf.NewMemoryStorage()}
		cfg := rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage, CoolDown: time.Hour, MaxCoolDown: time.Hour}
		here, there := pipeline(t, cfg), pipeline(t, cfg)
		l.fail["user"] = func(int) error { return &rf.AuthError{StatusCode: 401, Permanent: true} }
		_, err := there.Token(t.Context())
		require.Error(t, err)
		require.NoError(t, here.Forget(t.Context()))
		l.fail["user"] = nil
		time.Sleep(31 * time.Second)
		require.Equal(t, "user-2", mustToken(t, there).AccessToken)
	})
}

// What a Save has met is known, also where the second try of that Save fails: the stamp
// that a process then makes up is above the marks that a peer has set meanwhile.
func TestPipelineStampMadeUpIsAboveWhatASaveHasMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, storage := newLogin(), rf.NewMemoryStorage()
		l.life["user"] = time.Hour
		var down atomic.Bool
		saves := 0
		cfg := rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, RefreshAhead: -1, Storage: &faulty{MemoryStorage: storage, before: func(op string) error {
			if op == "Save" && down.Load() {
				saves++
			}
			if down.Load() && (op == "Load" || op == "Save" && saves > 1) {
				return errDisk
			}
			return nil
		}}}
		here := pipeline(t, cfg)
		mustToken(t, here)
		time.Sleep(2 * time.Hour)
		cfg.Storage = storage
		peer := pipeline(t, cfg)
		mustToken(t, peer)
		require.NoError(t, peer.InvalidateStep(t.Context(), "user"))
		time.Sleep(2 * time.Hour)
		down.Store(true)
		require.Equal(t, "user-3", mustToken(t, here).AccessToken)
		down.Store(false)
		time.Sleep(31 * time.Second)
		require.Equal(t, "user-3", mustToken(t, here).AccessToken)
	})
}
