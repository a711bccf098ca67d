package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
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

// What becomes of a refresh token: it is spent by nothing but its own refusal or a
// crash, and a login is tried at once where the server says no to the request. After
// an outcome that leaves open whether the token was spent, each fetch sends it once
// more, and after a minute of that tries to log in before.
func TestPipelineRefreshTokenDiesOfItsOwnRefusal(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
	read := &net.OpError{Op: "read", Err: errors.New("reset")}
	said := requestforgePage(t)
	page := func(status int) error { return said(status, "<!doctype html><html>blocked</html>") }
	for name, c := range map[string]struct {
		err    error
		atOnce string // what the auth server is asked by the call that meets err
		later  string // and by one half a minute later, when all is well
		long   string // what it is asked in all by 10 calls, half a minute apart, while err lasts
	}{
		"invalid_grant":               {&rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}, "refresh-1 login", "refresh-2", "refresh-1 login"},
		"invalid_grant in a 200":      {&rf.AuthError{StatusCode: 200, Code: "invalid_grant", Permanent: true}, "refresh-1 login", "refresh-2", "refresh-1 login"},
		"the session has ended":       {&rf.AuthError{StatusCode: 400, Code: "login_required", Permanent: true}, "refresh-1 login", "refresh-2", "refresh-1 login"},
		"a 401 without a code":        {&rf.AuthError{StatusCode: 401}, "refresh-1 login", "refresh-2", "refresh-1 login"},
		"unsupported_grant_type":      {&rf.AuthError{StatusCode: 400, Code: "unsupported_grant_type", Permanent: true}, "refresh-1 login", "refresh-2", "refresh-1 login"},
		"invalid_client":              {&rf.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true}, "refresh-1", "refresh-1", ten("refresh-1", 10)},
		"a reset":                     {&rf.AuthError{Err: read}, "refresh-1", "refresh-1", ten("refresh-1", 3) + " login"},
		"a reset, wrapped":            {fmt.Errorf("my fetcher: %w", &rf.AuthError{Err: read}), "refresh-1", "refresh-1", ten("refresh-1", 3) + " login"},
		"a timeout":                   {&rf.AuthError{Err: context.DeadlineExceeded}, "refresh-1", "refresh-1", ten("refresh-1", 3) + " login"},
		"a bad gateway":               {&rf.AuthError{StatusCode: 502}, "refresh-1", "refresh-1", ten("refresh-1", 3) + " login"},
		"a portal's page":             {page(200), "refresh-1", "refresh-1", ten("refresh-1", 3) + " login"},
		"a firewall's page":           {page(403), "refresh-1", "refresh-1", ten("refresh-1", 3) + " login"},
		"a 401 page":                  {page(401), "refresh-1", "refresh-1", ten("refresh-1", 3) + " login"},
		"a 401 called a page":         {said(401, "Unauthorized"), "refresh-1 login", "refresh-2", "refresh-1 login"},
		"an empty 401 called a page":  {said(401, ""), "refresh-1 login", "refresh-2", "refresh-1 login"},
		"a 200 that says no for good": {&rf.AuthError{StatusCode: 200, Permanent: true}, "refresh-1 login", "refresh-2", "refresh-1 login"},
		"a portal's redirect":         {&rf.AuthError{StatusCode: 302}, "refresh-1", "refresh-1", ten("refresh-1", 10)},
		"403":                         {&rf.AuthError{StatusCode: 403}, "refresh-1", "refresh-1", ten("refresh-1", 3) + " login"},
		"404":                         {&rf.AuthError{StatusCode: 404}, "refresh-1", "refresh-1", ten("refresh-1", 3) + " login"},
		"407":                         {&rf.AuthError{StatusCode: 407}, "refresh-1", "refresh-1", ten("refresh-1", 3) + " login"},
		"503":                         {&rf.AuthError{StatusCode: 503}, "refresh-1", "refresh-1", ten("refresh-1", 10)},
		"a server out of reach":       {&rf.AuthError{Err: dial}, "refresh-1", "refresh-1", ten("refresh-1", 10)},
		"a reset before the send":     {&rf.AuthError{Unsent: true, Err: read}, "refresh-1", "refresh-1", ten("refresh-1", 10)},
		"an error of the fetchers":    {errors.New("no idea"), "refresh-1", "refresh-1", ten("refresh-1", 10)},
	} {
		for _, lasts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/lasts=%v", name, lasts), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var asked []string
					bad, logins := true, 0
					p := pipeline(t, rf.PipelineConfig{FetchRetries: -1, RefreshAhead: -1, Steps: []rf.Step{{
						Name: "user",
						Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
							asked = append(asked, "login")
							logins++
							return &rf.Token{AccessToken: "a", RefreshToken: fmt.Sprintf("refresh-%d", logins), Expiry: time.Now().Add(time.Hour)}, nil
						}),
						Refresh: rf.FetcherFunc(func(_ context.Context, in rf.Input) (*rf.Token, error) {
							asked = append(asked, in.Previous.RefreshToken)
							if bad {
								return nil, c.err
							}
							return &rf.Token{AccessToken: "b", Expiry: time.Now().Add(time.Hour)}, nil
						}),
					}}})
					mustToken(t, p)
					time.Sleep(2 * time.Hour)
					asked = nil
					p.Token(t.Context())
					if !lasts {
						require.Equal(t, c.atOnce, strings.Join(asked, " "))
						bad, asked = false, nil
						time.Sleep(31 * time.Second)
						_, err := p.Refresh(t.Context())
						require.NoError(t, err)
						require.Equal(t, c.later, strings.Join(asked, " "))
						return
					}
					for range 9 {
						time.Sleep(31 * time.Second)
						p.Token(t.Context())
					}
					require.Equal(t, c.long, strings.Join(asked, " "))
				})
			})
		}
	}
}

// ten is n times what was asked.
func ten(asked string, n int) string { return strings.TrimSpace(strings.Repeat(asked+" ", n)) }

// requestforgePage returns errors of a fetcher that was answered by what calls itself a
// page.
func requestforgePage(t *testing.T) func(status int, body string) error {
	return func(status int, body string) error {
		client := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			resp := reply(req, status, "Content-Type", "text/html")
			resp.Body = io.NopCloser(strings.NewReader(body))
			return resp, nil
		})}
		_, err := (&rf.HTTPFetcher{URL: "https://auth.example.com/token", Client: client}).Fetch(t.Context(), rf.Input{})
		require.Error(t, err)
		return err
	}
}

// An answer to a refresh with a token that is no good is an answer: another refresh token
// in it ends the old one, and there is a login.
func TestPipelineRefreshAnsweredByATokenThatIsNoGood(t *testing.T) {
	for name, c := range map[string]struct {
		refresh rf.Fetcher
		later   string // what is asked after a login that has failed as well
	}{
		"rotated": {rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			return &rf.Token{AccessToken: "b", RefreshToken: "new", Expiry: time.Now().Add(-1)}, nil
		}), "login"},
		"not rotated": {rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			return &rf.Token{AccessToken: "b", Expiry: time.Now().Add(-1)}, nil
		}), "refresh login"},
		"rotated, over HTTP": {&rf.HTTPFetcher{URL: "https://auth.example/", Client: fetchAnswer(200, nil, `{"access_token":"b\nb","refresh_token":"new"}`)}, "login"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked []string
				fail := false
				p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Steps: []rf.Step{{
					Name: "user",
					Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
						asked = append(asked, "login")
						if fail {
							return nil, errors.New("no")
						}
						return &rf.Token{AccessToken: "a", RefreshToken: "r", Expiry: time.Now().Add(time.Hour)}, nil
					}),
					Refresh: rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
						asked = append(asked, "refresh")
						return c.refresh.Fetch(ctx, in)
					}),
				}}})
				mustToken(t, p)
				time.Sleep(2 * time.Hour)
				asked, fail = nil, true
				_, err := p.Token(t.Context())
				require.Error(t, err)
				require.Equal(t, "refresh login", strings.Join(asked, " "))
				time.Sleep(time.Hour)
				asked, fail = nil, false
				mustToken(t, p)
				require.Equal(t, c.later, strings.Join(asked, " "))
			})
		})
	}
}

// A login that fails uses up no refresh token: the next fetch sends it again. A passing
// fault of the network asks for no person.
func TestPipelineRefreshTokenIsSentAgainWhenTheLoginHasFailed(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, 50 * time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			r := &rotating{}
			s := r.step()
			login, people := s.Fetcher, 0
			s.Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
				if people++; people > 1 {
					return nil, errors.New("nobody is there")
				}
				return login.Fetch(ctx, in)
			})
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{s}, RefreshAhead: -1})
			mustToken(t, p)
			time.Sleep(2 * time.Hour)
			begun := time.Now()
			r.refuse = func(int) error {
				if time.Since(begun) < outage {
					return &rf.AuthError{Err: &net.OpError{Op: "read", Err: errors.New("reset")}}
				}
				return nil
			}
			for time.Since(begun) < outage+time.Minute {
				p.Token(t.Context())
				time.Sleep(time.Second)
			}
			require.Equal(t, "access-2", mustToken(t, p).AccessToken, outage)
			require.Zero(t, r.reused)
			if outage < time.Minute {
				require.Equal(t, 1, people, "a person was asked for by an outage of %v", outage)
			}
		})
	}
}

// Another process sends a refresh token that is in doubt here, and this one takes
// over what that brings.
func TestPipelineRefreshTokenInDoubtIsAnyProcesssToSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotating{}
		storage := rf.NewMemoryStorage()
		cfg := rf.PipelineConfig{Steps: []rf.Step{r.step()}, Storage: storage, RefreshAhead: -1}
		here, there := pipeline(t, cfg), pipeline(t, cfg)
		mustToken(t, here)
		time.Sleep(2 * time.Hour)
		r.refuse = func(n int) error {
			if n == 1 {
				return &rf.AuthError{StatusCode: 504}
			}
			return nil
		}
		_, err := here.Token(t.Context())
		require.Error(t, err)
		require.Equal(t, "access-2", mustToken(t, there).AccessToken)
		time.Sleep(31 * time.Second)
		require.Equal(t, "access-2", mustToken(t, here).AccessToken)
		require.Equal(t, 1, r.logins)
		require.Zero(t, r.reused)
	})
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
	after  func(*rf.Entry)                      // changes what Save returns
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
	e, err := f.MemoryStorage.Save(ctx, key, r, seen)
	if f.after != nil && err == nil {
		f.after(&e)
	}
	return e, err
}

func (f *faulty) Revoke(ctx context.Context, key string, stamp uint64) error {
	if err := f.call("Revoke"); err != nil {
		return err
	}
	return f.MemoryStorage.Revoke(ctx, key, stamp)
}

func (f *faulty) Delete(ctx context.Context, key string, seen uint64) (rf.Entry, error) {
	if err := f.call("Delete"); err != nil {
		return rf.Entry{}, err
	}
	return f.MemoryStorage.Delete(ctx, key, seen)
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

// What a replica shows can be old, and what a Load leaves out can be there. Whoever
// has a new token then replaces an expired record by it.
func TestPipelineLoadThatShowsTooLittleCostsAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		l.life["user"] = time.Hour
		p := pipeline(t, rf.PipelineConfig{Storage: blind{rf.NewMemoryStorage()}, KeyPrefix: "test", Steps: identified([]rf.Step{l.step("user")}), RefreshAhead: -1})
		for n := 1; n < 5; n++ {
			require.Equal(t, fmt.Sprint("user-", n), mustToken(t, p).AccessToken)
			time.Sleep(2 * time.Hour)
		}
	})
}

// blind is a storage that saves and finds nothing.
type blind struct{ *rf.MemoryStorage }

func (blind) Load(_ context.Context, keys ...string) ([]rf.Entry, error) {
	return make([]rf.Entry, len(keys)), nil
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

// A number that no storage can have given kills no token to come.
func TestPipelineVersionThatIsTooHighIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin()
		p := pipeline(t, rf.PipelineConfig{Steps: identified([]rf.Step{l.step("user")}), KeyPrefix: "test", Storage: &faulty{
			MemoryStorage: rf.NewMemoryStorage(),
			load:          func(e []rf.Entry) ([]rf.Entry, error) { e[0].Gone = 1 << 60; return e, nil },
		}})
		require.Equal(t, "user-1", mustToken(t, p).AccessToken)
		require.NoError(t, p.Forget(t.Context()))
		require.Equal(t, "user-2", mustToken(t, p).AccessToken)
	})
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
	storage := newLossy()
	p := pipeline(t, rf.PipelineConfig{Steps: l.chain(), Storage: storage})
	mustToken(t, p)
	require.NoError(t, p.InvalidateStep(t.Context(), "device"))
	storage.lose("requestforge:device", "requestforge:app", "requestforge:user")
	mustToken(t, p)
	entries, err := storage.Load(t.Context(), "requestforge:device")
	require.NoError(t, err)
	require.EqualValues(t, 1, entries[0].Mark)
	require.EqualValues(t, 2, entries[0].Record.Stamp, "stamps keep rising")
}

// A storage that can't be read doesn't say whether a peer has sent the refresh token
// meanwhile, or has logged out. The lease alone is no leave to send it.
func TestPipelineRefreshTokenIsSentOnlyByWhatTheStorageSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, storage := &rotating{}, rf.NewMemoryStorage()
		blind := false
		mine := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{server.step()}, RefreshAhead: -1, Storage: &faulty{MemoryStorage: storage, before: func(op string) error {
			if blind && op == "Load" {
				return errDisk
			}
			return nil
		}}})
		peer := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{server.step()}, RefreshAhead: -1, Storage: storage})
		_, err := mine.Token(t.Context())
		require.NoError(t, err)
		time.Sleep(2 * time.Hour)
		_, err = peer.Token(t.Context())
		require.NoError(t, err)
		blind = true
		_, err = mine.Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, 0, server.reused)
	})
}

// A peer's logout reaches the storage step by step. A refresh under way meanwhile comes
// to nothing, but its refresh token is spent, although the logout of its own step is
// still to come.
func TestPipelineRefreshTokenOfADroppedAnswerIsSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, storage := &rotating{}, rf.NewMemoryStorage()
		var during func()
		user := server.step()
		user.DependsOn = []string{"app"}
		refresh := user.Refresh
		user.Refresh = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			tok, err := refresh.Fetch(ctx, in)
			during()
			return tok, err
		})
		app := rf.Step{Name: "app", Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
			return &rf.Token{AccessToken: "app"}, nil
		})}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{app, user}, RefreshAhead: -1, Storage: &faulty{MemoryStorage: storage}})
		_, err := p.Token(t.Context())
		require.NoError(t, err)
		time.Sleep(2 * time.Hour)
		during = func() {
			during = func() {}
			_, err := storage.Delete(t.Context(), "requestforge:app", 1)
			require.NoError(t, err)
			require.NoError(t, p.InvalidateStep(t.Context(), "app")) // looks
		}
		_, err = p.Token(t.Context())
		require.Error(t, err)
		_, err = p.Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, 0, server.reused)
	})
}
