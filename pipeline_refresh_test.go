package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// rotating is an auth server of one step whose refresh tokens work once.
type rotating struct {
	mu       sync.Mutex
	n        int
	logins   int
	good     string            // the refresh token that works
	reused   int               // refresh tokens that came twice
	refuse   func(n int) error // by the number of the refresh
	keep     bool              // refresh tokens are not rotated
	refreshs int
}

func (r *rotating) issue() *rf.Token {
	r.n++
	tok := &rf.Token{AccessToken: fmt.Sprintf("access-%d", r.n), Expiry: time.Now().Add(time.Hour)}
	if !r.keep || r.good == "" {
		r.good = fmt.Sprintf("refresh-%d", r.n)
		tok.RefreshToken = r.good
	}
	return tok
}

func (r *rotating) step() rf.Step {
	return rf.Step{
		Name: "user",
		Fetcher: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if in.Previous != nil {
				return nil, errors.New("Fetcher must not see a refresh token")
			}
			r.logins++
			r.good = ""
			return r.issue(), nil
		}),
		Refresh: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.refreshs++
			if r.refuse != nil {
				if err := r.refuse(r.refreshs); err != nil {
					return nil, err
				}
			}
			if in.Previous.RefreshToken != r.good {
				r.reused++
				return nil, &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}
			}
			return r.issue(), nil
		}),
	}
}

func TestPipelineRefreshTokenIsSpentAndRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{}
		storage := rf.NewMemoryStorage()
		var rotated []string
		s := r.step()
		s.OnRotate = func(ctx context.Context, tok *rf.Token) {
			entries, err := storage.Load(ctx, "requestforge:user")
			require.NoError(t, err)
			require.Equal(t, tok.RefreshToken, entries[0].Record.Token.RefreshToken, "saved before it is handed out")
			rotated = append(rotated, tok.RefreshToken)
		}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{s}, Storage: storage, RefreshAhead: -1})
		for i := range 5 {
			require.Equal(t, fmt.Sprintf("access-%d", i+1), mustToken(t, p).AccessToken)
			time.Sleep(2 * time.Hour) // expired, but its refresh token is not
		}
		require.Equal(t, 1, r.logins)
		require.Zero(t, r.reused)
		require.Equal(t, []string{"refresh-1", "refresh-2", "refresh-3", "refresh-4", "refresh-5"}, rotated)
		require.EqualValues(t, 4, p.Stats().Steps["user"].Refreshes)
	})
}

// RFC 6749 §6: without a new refresh token the old one stays.
func TestPipelineRefreshTokenThatIsNotRotatedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{keep: true}
		hooks := 0
		s := r.step()
		s.OnRotate = func(context.Context, *rf.Token) { hooks++; panic("none of the callers' business") }
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{s}, RefreshAhead: -1})
		for range 3 {
			require.Equal(t, "refresh-1", mustToken(t, p).RefreshToken)
			time.Sleep(2 * time.Hour)
		}
		require.Equal(t, 1, r.logins)
		require.Equal(t, 1, hooks)
	})
}

func TestPipelineRefreshTokenSurvivesAnInvalidation(t *testing.T) {
	r := &rotating{}
	p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{r.step()}})
	mustToken(t, p)
	require.NoError(t, p.InvalidateStep(t.Context(), "user"))
	require.Equal(t, "access-2", mustToken(t, p).AccessToken)
	require.Equal(t, 1, r.logins)
}

func TestPipelineRefreshFallsBackToFetcher(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
	read := &net.OpError{Op: "read", Err: errors.New("reset")}
	for name, c := range map[string]struct {
		refuse            func(n int) error
		refreshes, logins int
	}{
		"invalid_grant":           {func(int) error { return &rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true} }, 1, 2},
		"a code of its own":       {func(int) error { return &rf.AuthError{StatusCode: 401} }, 1, 2},
		"ambiguous network error": {func(int) error { return &rf.AuthError{Err: read} }, 1, 2},
		"gateway timeout":         {func(int) error { return &rf.AuthError{StatusCode: 504} }, 1, 2},
		"never reached, then ok": {func(n int) error {
			if n == 1 {
				return &rf.AuthError{Err: dial}
			}
			return nil
		}, 2, 1},
		"503, then ok": {func(n int) error {
			if n == 1 {
				return &rf.AuthError{StatusCode: 503}
			}
			return nil
		}, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &rotating{refuse: c.refuse}
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{r.step()}, RefreshAhead: -1})
				mustToken(t, p)
				time.Sleep(2 * time.Hour)
				require.Equal(t, "access-2", mustToken(t, p).AccessToken)
				require.Equal(t, c.refreshes, r.refreshs)
				require.Equal(t, c.logins, r.logins)
			})
		})
	}
}

// An auth server that is down costs no login: the refresh token waits.
func TestPipelineRefreshTokenWaitsForTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{refuse: func(int) error { return &rf.AuthError{StatusCode: 503} }}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{r.step()}, RefreshAhead: -1})
		mustToken(t, p)
		time.Sleep(2 * time.Hour)
		_, err := p.Token(t.Context())
		require.Error(t, err)
		r.mu.Lock()
		r.refuse = nil
		r.mu.Unlock()
		time.Sleep(time.Minute)
		require.Equal(t, "access-2", mustToken(t, p).AccessToken)
		require.Equal(t, 1, r.logins)
	})
}

// faulty is a storage whose calls can be made to fail, hang or lie.
type faulty struct {
	*rf.MemoryStorage
	before func(op string) error                // called first; an error is returned
	load   func([]rf.Entry) ([]rf.Entry, error) // changes what Load returns
	lock   func() (rf.Lease, bool, error)
}

func (f *faulty) call(op string) error {
	if f.before == nil {
		return nil
	}
	return f.before(op)
}

func (f *faulty) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	if err := f.call("Load"); err != nil {
		return nil, err
	}
	e, err := f.MemoryStorage.Load(ctx, keys...)
	if f.load != nil && err == nil {
		return f.load(e)
	}
	return e, err
}

func (f *faulty) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	if err := f.call("Save"); err != nil {
		return rf.Entry{}, err
	}
	return f.MemoryStorage.Save(ctx, key, r, seen)
}

func (f *faulty) Revoke(ctx context.Context, key string, stamp uint64) error {
	if err := f.call("Revoke"); err != nil {
		return err
	}
	return f.MemoryStorage.Revoke(ctx, key, stamp)
}

func (f *faulty) Delete(ctx context.Context, keys ...string) error {
	if err := f.call("Delete"); err != nil {
		return err
	}
	return f.MemoryStorage.Delete(ctx, keys...)
}

func (f *faulty) TryLock(ctx context.Context, key string) (rf.Lease, bool, error) {
	if err := f.call("TryLock"); err != nil {
		return nil, false, err
	}
	if f.lock != nil {
		return f.lock()
	}
	return f.MemoryStorage.TryLock(ctx, key)
}

var errDisk = errors.New("disk on fire")

func TestPipelineStorageThatFailsIsGoneAround(t *testing.T) {
	for _, op := range []string{"Load", "Save", "TryLock", "Revoke", "all"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLogin()
				l.takes = 0
				down := true
				storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(o string) error {
					if down && (op == "all" || op == o) {
						return errDisk
					}
					return nil
				}}
				p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage})
				first := mustToken(t, p)
				err := p.InvalidateStep(t.Context(), "app")
				if op == "Revoke" || op == "all" || op == "Load" {
					require.ErrorIs(t, err, errDisk, "the storage may not know")
				}
				next := mustToken(t, p)
				require.NotEqual(t, first.AccessToken, next.AccessToken, "this process knows of the invalidation")
				require.NotZero(t, p.Stats().StorageErrors)

				down = false
				require.NoError(t, p.InvalidateStep(t.Context(), "user"))
				last := mustToken(t, p)
				require.NotEqual(t, next.AccessToken, last.AccessToken)
				other := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage})
				require.Equal(t, last.AccessToken, mustToken(t, other).AccessToken, "shared again, nothing restarted")
			})
		})
	}
}

func TestPipelineStorageThatHangsIsGoneAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.takes = 0
		hang := make(chan struct{})
		storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(string) error { <-hang; return errDisk }}
		p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage, StorageTimeout: 100 * time.Millisecond})
		begun := time.Now()
		require.Equal(t, "user-1", mustToken(t, p).AccessToken)
		require.LessOrEqual(t, time.Since(begun), 3*5*100*time.Millisecond, "a few calls a step, each bounded, deaf as the storage is")
		for range 30 {
			p.InvalidateStep(t.Context(), "user")
			mustToken(t, p)
		}
		begun = time.Now()
		p.InvalidateStep(t.Context(), "user")
		mustToken(t, p)
		require.Zero(t, time.Since(begun), "no more calls into a storage in which enough hang")
		close(hang)
		synctest.Wait()
		storage.before = nil
		p.InvalidateStep(t.Context(), "user")
		mustToken(t, p)
	})
}

func TestPipelineStoredGarbageIsAMiss(t *testing.T) {
	entry := func(r rf.Record) func([]rf.Entry) ([]rf.Entry, error) {
		return func(e []rf.Entry) ([]rf.Entry, error) { e[0].Record = &r; return e, nil }
	}
	good := rf.Record{Key: "requestforge:user", Token: &rf.Token{AccessToken: "stored"}, Stamp: 7, Lineage: map[string]uint64{"requestforge:app": 1}}
	change := func(f func(*rf.Record)) func([]rf.Entry) ([]rf.Entry, error) {
		r := good
		f(&r)
		return entry(r)
	}
	steps := func(l *login) []rf.Step { return []rf.Step{l.step("app"), l.step("user", "app")} }
	l := newLogin()
	l.takes = 0
	p := pipeline(t, rf.PipelineConfig{Steps: steps(l), Storage: &faulty{MemoryStorage: rf.NewMemoryStorage(), load: entry(good)}})
	require.Equal(t, "stored", mustToken(t, p).AccessToken)

	for name, load := range map[string]func([]rf.Entry) ([]rf.Entry, error){
		"another step's":   change(func(r *rf.Record) { r.Key = "requestforge:app" }),
		"no token":         change(func(r *rf.Record) { r.Token = nil }),
		"an empty token":   change(func(r *rf.Record) { r.Token = &rf.Token{} }),
		"CR and LF":        change(func(r *rf.Record) { r.Token = &rf.Token{AccessToken: "a\r\nX: y"} }),
		"no stamp":         change(func(r *rf.Record) { r.Stamp = 0 }),
		"a stamp too high": change(func(r *rf.Record) { r.Stamp = 1 << 60 }),
		"no lineage":       change(func(r *rf.Record) { r.Lineage = nil }),
		"another lineage":  change(func(r *rf.Record) { r.Lineage = map[string]uint64{"requestforge:other": 1} }),
		"expired":          change(func(r *rf.Record) { r.Token = &rf.Token{AccessToken: "stored", Expiry: time.Unix(1, 0)} }),
		"a mark too high":  func(e []rf.Entry) ([]rf.Entry, error) { e[0].Mark = 1 << 60; return e, nil },
		"too few entries":  func(e []rf.Entry) ([]rf.Entry, error) { return nil, nil },
		"too many entries": func(e []rf.Entry) ([]rf.Entry, error) { return append(e, rf.Entry{}), nil },
		"revoked":          func(e []rf.Entry) ([]rf.Entry, error) { r := good; e[0] = rf.Entry{Record: &r, Mark: 7}; return e, nil },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogin()
			l.takes = 0
			p := pipeline(t, rf.PipelineConfig{Steps: steps(l), Storage: &faulty{MemoryStorage: rf.NewMemoryStorage(), load: load}})
			require.Equal(t, "user-1", mustToken(t, p).AccessToken)
		})
	}
}

func TestPipelineWithoutALeaseNoStoredRefreshTokenIsSpent(t *testing.T) {
	for name, lock := range map[string]func() (rf.Lease, bool, error){
		"lock service broken": func() (rf.Lease, bool, error) { return nil, false, errDisk },
		"lease lost":          func() (rf.Lease, bool, error) { return lostLease{}, true, nil },
		"a peer for ever":     func() (rf.Lease, bool, error) { return nil, false, nil },
		"no lease":            func() (rf.Lease, bool, error) { return nil, true, nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &rotating{}
				storage := &faulty{MemoryStorage: rf.NewMemoryStorage(), lock: lock}
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: storage, RefreshAhead: -1, FetchTimeout: time.Second})
				mustToken(t, p)
				time.Sleep(2 * time.Hour)
				require.Equal(t, "access-2", mustToken(t, p).AccessToken)
				require.Equal(t, 2, r.logins)
				require.Zero(t, r.refreshs)
			})
		})
	}
}

type lostLease struct{}

func (lostLease) Done() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
func (lostLease) Unlock(context.Context) error { return nil }

// While a peer holds the lock, the flight waits for what the peer brings.
func TestPipelineWaitsForAPeersToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		storage := rf.NewMemoryStorage()
		var wg sync.WaitGroup
		for range 50 {
			p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage})
			wg.Go(func() {
				tok, err := p.Token(t.Context())
				if err != nil || tok.AccessToken != "user-1" {
					t.Errorf("%v %v", tok, err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, l.fetches("device"))
		require.Equal(t, 1, l.fetches("app"))
		require.Equal(t, 1, l.fetches("user"))
	})
}

// Records written by a clock that is ahead live no longer than they should.
func TestPipelineRecordFromAClockAheadIsCorrected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		now := time.Now()
		storage := rf.NewMemoryStorage()
		_, err := storage.Save(t.Context(), "requestforge:user", rf.Record{
			Key: "requestforge:user", Issued: now.Add(5 * time.Minute),
			Token: &rf.Token{AccessToken: "stored", Expiry: now.Add(15 * time.Minute)},
		}, 0)
		require.NoError(t, err)
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{l.step("user")}, Storage: storage, RefreshAhead: -1})
		tok := mustToken(t, p)
		require.Equal(t, "stored", tok.AccessToken)
		require.WithinDuration(t, now.Add(10*time.Minute), tok.Expiry, 0)
	})
}

// A mark that the storage has lost is written back by whoever knows it.
func TestPipelineLostMarkIsWrittenBack(t *testing.T) {
	l := newLogin()
	l.takes = 0
	storage := rf.NewMemoryStorage()
	p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage})
	mustToken(t, p)
	require.NoError(t, p.InvalidateStep(t.Context(), "device"))
	require.NoError(t, storage.Delete(t.Context(), "requestforge:device", "requestforge:app", "requestforge:user"))
	mustToken(t, p)
	entries, err := storage.Load(t.Context(), "requestforge:device")
	require.NoError(t, err)
	require.EqualValues(t, 1, entries[0].Mark)
	require.EqualValues(t, 2, entries[0].Record.Stamp, "stamps keep rising")
}
