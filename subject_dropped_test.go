// "Beyond MaxSubjects the subjects idle longest are dropped; that costs a load or a fetch":
// also if a subject is dropped while its request is under way.

package requestforge_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// overcrowded is a pipeline of an office for a single subject in memory, whose place a fetch for
// bob takes for an hour: everybody else is dropped as soon as nobody waits for them.
func overcrowded(t *testing.T, cfg rf.PipelineConfig) *rf.Pipeline {
	user := cfg.Steps[1].Fetcher
	cfg.MaxSubjects, cfg.FetchTimeout, cfg.Steps[1].Fetcher = 1, 2*time.Hour, rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
		if in.Subject == "bob" {
			time.Sleep(time.Hour)
		}
		return user.Fetch(ctx, in)
	})
	p := pipeline(t, cfg)
	go p.Source(cfg.Steps[1].Name).Token(as(t.Context(), "bob"))
	t.Cleanup(func() { time.Sleep(2 * time.Hour) }) // for bob
	synctest.Wait()
	return p
}

func TestRefusalOfADroppedSubjectIsRememberedWhereTheStorageDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.chain()
		var down atomic.Bool
		cfg.Storage, cfg.KeyPrefix = &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(op string) error {
			if op == "Revoke" && down.Load() {
				return errDisk
			}
			return nil
		}}, "x"
		p := overcrowded(t, cfg)
		bad := tokenAs(t, p, as(t.Context(), "ann"))
		down.Store(true)
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			if strings.HasSuffix(req.Header.Get("Authorization"), bad) {
				return reply(req, 401), nil
			}
			return reply(req, 200), nil
		})}
		for range 3 {
			require.Equal(t, 200, getAs(t, &http.Client{Transport: rt}, "ann", "/"))
		}
		require.Equal(t, 2, o.fetches("backend ann"))
	})
}

// The ladder from the refused token to its ancestors is climbed within a request, with its
// own storage, where nothing of a dropped subject is kept, and with another.
func TestRefusalsOfADroppedSubjectClimbTheLadder(t *testing.T) {
	for name, storage := range map[string]rf.Storage{"own": nil, "another": rf.NewMemoryStorage()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o office
				cfg := o.chain()
				cfg.Storage = storage
				p := overcrowded(t, cfg)
				rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Retry: rf.SimpleAuthRetry(3, 0), Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					if strings.HasSuffix(req.Header.Get("Authorization"), "<app-1") { // which the auth server still takes
						return reply(req, 401), nil
					}
					return reply(req, 200), nil
				})}
				tokenAs(t, p, as(t.Context(), "ann"))
				time.Sleep(time.Minute) // no token is young
				require.Equal(t, 200, getAs(t, &http.Client{Transport: rt}, "ann", "/"))
				require.Equal(t, 2, o.fetches("app"))
			})
		})
	}
}

// Use is held to the same.
func TestUseAfterItsSubjectWasDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		p := overcrowded(t, o.chain())
		ann, calls := as(t.Context(), "ann"), 0
		err := rf.Use(ann, p, func(_ context.Context, tok *rf.Token) error {
			if calls++; calls == 1 {
				return rf.ErrRefused
			}
			require.EqualValues(t, 2, p.Stats().Subjects, "ann stays until the call is over")
			return nil
		})
		require.NoError(t, err)
		require.EqualValues(t, 1, p.Stats().Subjects)
	})
}

// An API that refuses everything costs a dropped subject few logins, however often a request
// may be replayed: the bounds go from one ledger of the subject to the next.
func TestBoundsOfADroppedSubjectStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		p := overcrowded(t, o.chain())
		tokenAs(t, p, as(t.Context(), "ann"))
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Retry: rf.SimpleAuthRetry(50, 0), Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			return reply(req, 401), nil
		})}
		time.Sleep(time.Minute)
		require.Equal(t, 401, getAs(t, &http.Client{Transport: rt}, "ann", "/"))
		require.LessOrEqual(t, o.fetches("backend ann"), 5)
	})
}

func TestChallengeOfADroppedSubjectIsAnswered(t *testing.T) {
	for name, storage := range map[string]rf.Storage{"own": nil, "another": rf.NewMemoryStorage()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMint()
				m.takes = 0
				user := m.step("user")
				user.PerSubject = true
				cfg := rf.PipelineConfig{Subject: userOf, Storage: storage, Steps: []rf.Step{m.login.step("app"), user}}
				p := overcrowded(t, cfg)
				ann := as(t.Context(), "ann")
				for range 3 { // in its own storage the stamps begin anew
					tokenAs(t, p.Source("user"), ann)
					require.NoError(t, p.InvalidateStep(ann, "user"))
				}
				rt := &rf.AuthTransport{Source: p.Source("user"), Origins: []string{host}, Base: m.scoped(nil)}
				require.Equal(t, 200, getAs(t, &http.Client{Transport: rt}, "ann", "/a"))
				require.Equal(t, 1, challenges(p, "user"))
				require.EqualValues(t, 1, p.Stats().Subjects, "ann was dropped")
			})
		})
	}
}

// More users than are kept in memory come in turn, and an API no longer takes what was made
// from the shared token. No user's requests follow each other in memory, and yet somebody
// climbs the ladder for all.
func TestSharedTokenIsReplacedThoughEverybodyIsDroppedInTurn(t *testing.T) {
	for name, c := range map[string]struct {
		storage    rf.Storage
		max, users int
	}{"own, one": {nil, 1, 3}, "another, one": {rf.NewMemoryStorage(), 1, 3}, "own, ten": {nil, 10, 40}, "another, ten": {rf.NewMemoryStorage(), 10, 40}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o office
				cfg := o.chain()
				cfg.Storage, cfg.MaxSubjects = c.storage, c.max
				p := pipeline(t, cfg)
				var ended atomic.Bool
				rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					if ended.Load() && strings.HasSuffix(req.Header.Get("Authorization"), "<app-1") { // which the auth server still takes
						return reply(req, 401), nil
					}
					return reply(req, 200), nil
				})}
				refused := 0
				for round := range 6 {
					ended.Store(round > 0)
					for i := range c.users {
						status := getAs(t, &http.Client{Transport: rt}, fmt.Sprint("user", i), "/")
						if status != 200 {
							refused++
						}
						if round == 5 {
							require.Equal(t, 200, status)
						}
						time.Sleep(10 * time.Second)
					}
				}
				require.Equal(t, 2, o.fetches("app"), "after %d refusals", refused)
			})
		})
	}
}

// Users whom an API always refuses take nobody's place, and what is remembered of the dropped
// is bounded.
func TestRefusedUsersTakeNobodysPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o office
		cfg := o.chain()
		cfg.MaxSubjects = 8
		p := pipeline(t, cfg)
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.Header.Get("Authorization"), "bad") {
				return reply(req, 401), nil
			}
			return reply(req, 200), nil
		})}
		client := &http.Client{Transport: rt}
		for i := range 2000 {
			for _, good := range []string{"ann", "bob", "eve"} {
				require.Equal(t, 200, getAs(t, client, good, "/"))
			}
			require.Equal(t, 401, getAs(t, client, fmt.Sprint("bad", i), "/"))
			require.LessOrEqual(t, p.Stats().Subjects, uint64(8))
		}
		for _, good := range []string{"ann", "bob", "eve"} {
			require.Equal(t, 1, o.fetches("backend "+good))
		}
		require.Equal(t, 1000, rf.Remembered(p))
	})
}
