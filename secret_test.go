// Secrets that change while the program runs.

package requestforge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// vault holds the secret that a client is told, which may not be the one that the auth
// server wants.
type vault struct {
	mu     sync.Mutex
	secret string
	err    error
	takes  time.Duration
	reads  int
}

func (v *vault) set(secret string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.secret, v.err = secret, err
}

func (v *vault) read(ctx context.Context) (string, error) {
	v.mu.Lock()
	v.reads++
	secret, err, takes := v.secret, v.err, v.takes
	v.mu.Unlock()
	select {
	case <-time.After(takes):
		return secret, err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (v *vault) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.reads
}

// picky is a token endpoint that takes one secret. Its tokens are "t1", "t2" and so on.
type picky struct {
	mu      sync.Mutex
	secret  string
	life    int      // of its tokens, in seconds
	refresh bool     // tokens come with refresh tokens
	seen    []string // the secret of each request
	grants  []string // the grant type of each request
	wrong   int
	issued  int
	before  func(n int) // called with the number of the request, before it is judged
}

func (p *picky) set(secret string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.secret = secret
}

// state returns the requests so far, and how many of them had a wrong secret.
func (p *picky) state() (asked, wrong int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.seen), p.wrong
}

func (p *picky) RoundTrip(req *http.Request) (*http.Response, error) {
	_, secret, _ := req.BasicAuth()
	req.ParseForm()
	p.mu.Lock()
	p.seen, p.grants = append(p.seen, secret), append(p.grants, req.PostForm.Get("grant_type"))
	n, before := len(p.seen), p.before
	p.mu.Unlock()
	if before != nil {
		before(n)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	status, text := 401, `{"error":"invalid_client"}`
	if secret == p.secret {
		p.issued++
		status, text = 200, fmt.Sprintf(`{"access_token":"t%d"`, p.issued)
		if p.life > 0 {
			text += fmt.Sprintf(`,"expires_in":%d`, p.life)
		}
		if p.refresh {
			text += fmt.Sprintf(`,"refresh_token":"r%d"`, p.issued)
		}
		text += "}"
	} else {
		p.wrong++
	}
	resp := reply(req, status, "Content-Type", "application/json")
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	return resp, nil
}

// step is a step of a client whose secret is v's.
func (p *picky) step(name string, v *vault) rf.Step {
	return rf.Step{Name: name, Fetcher: &rf.HTTPFetcher{
		URL: "https://auth.example.com/token", Client: &http.Client{Transport: p},
		Form: map[string][]string{"grant_type": {"client_credentials"}}, ClientAuth: &rf.ClientAuth{ID: "id", SecretFrom: v.read},
	}}
}

// Each fetch uses the secret of its moment, in each of the places that a secret may be in,
// and reads it once.
func TestSecretFromIsReadAtEachFetch(t *testing.T) {
	for name, inBody := range map[string]bool{"as HTTP Basic": false, "in the body": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := &vault{}
				var seen []string
				client := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
					_, secret, ok := req.BasicAuth()
					if req.ParseForm(); !ok {
						secret = req.PostForm.Get("client_secret")
					}
					seen = append(seen, secret)
					resp := reply(req, 200)
					resp.Body = io.NopCloser(strings.NewReader(`{"access_token":"t","expires_in":60}`))
					return resp, nil
				})}
				p := pipeline(t, rf.PipelineConfig{RefreshAhead: -1, Steps: []rf.Step{{Name: "app", Fetcher: &rf.HTTPFetcher{
					URL: "https://auth.example.com", Client: client, ClientAuth: &rf.ClientAuth{ID: "id", SecretFrom: v.read, InBody: inBody},
				}}}})
				for _, secret := range []string{"one", "two", "three"} {
					v.set(secret, nil)
					for range 10 {
						mustToken(t, p)
					}
					time.Sleep(2 * time.Minute)
				}
				require.Equal(t, []string{"one", "two", "three"}, seen)
				require.Equal(t, 3, v.count())
			})
		})
	}
}

// A new secret ends the cool-down at the next call: of the step, and of those that depend
// on it. The same secret doesn't.
func TestNewSecretEndsTheCoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, server, l := &vault{secret: "wrong"}, &picky{secret: "right"}, newLogin()
		child := l.step("user", "app")
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{server.step("app", v), child}})
		for range 100 {
			_, err := p.Token(t.Context())
			require.ErrorContains(t, err, `step "app": invalid_client`)
		}
		asked, _ := server.state()
		require.Equal(t, 1, asked)

		v.set("wrong as well", nil)
		for range 100 {
			_, err := p.Token(t.Context())
			require.ErrorContains(t, err, "invalid_client")
		}
		asked, _ = server.state()
		require.Equal(t, 2, asked, "each secret is sent once")

		v.set("right", nil)
		mustToken(t, p)
		asked, wrong := server.state()
		require.Equal(t, []int{3, 2}, []int{asked, wrong})
	})
}

// A renewal ahead that failed is tried again soon after the secret has changed, while the
// token is still good: no caller waits for the renewal or for the cool-down.
func TestNewSecretEndsTheCoolDownOfARenewalAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, server := &vault{secret: "old"}, &picky{secret: "old", life: 600}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{server.step("app", v)}, RefreshAhead: 5 * time.Minute, CoolDown: time.Hour, MaxCoolDown: time.Hour})
		require.Equal(t, "t1", mustToken(t, p).AccessToken)
		server.set("new")
		time.Sleep(6 * time.Minute)
		for range 60 {
			require.Equal(t, "t1", mustToken(t, p).AccessToken)
			time.Sleep(time.Second)
		}
		_, wrong := server.state()
		require.Equal(t, 1, wrong)
		v.set("new", nil)
		for range 3 {
			mustToken(t, p)
			time.Sleep(time.Second)
		}
		require.Equal(t, "t2", mustToken(t, p).AccessToken)
	})
}

// A corrected secret ends the cool-down in each of 50 processes over one storage at the
// next try: one of them asks, and the others have its token.
func TestCorrectedSecretEndsTheCoolDownInEveryProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v, server, storage := &vault{secret: "wrong"}, &picky{secret: "right"}, newShared()
		var fleet []*rf.Pipeline
		for range 50 {
			fleet = append(fleet, pipeline(t, rf.PipelineConfig{Storage: storage, KeyPrefix: "test", Steps: []rf.Step{server.step("app", v)}}))
		}
		for i, p := range fleet {
			_, err := p.Token(t.Context())
			require.ErrorContains(t, err, "invalid_client")
			if i == 0 {
				<-storage.saved
			}
		}
		asked, _ := server.state()
		require.Equal(t, 1, asked, "a wrong secret is one request")
		for key, f := range storage.left {
			require.NotContains(t, fmt.Sprint(key, f), "wrong")
		}

		v.set("right", nil)
		for _, p := range fleet {
			require.Equal(t, "t1", mustToken(t, p).AccessToken)
		}
		asked, wrong := server.state()
		require.Equal(t, []int{2, 1}, []int{asked, wrong})
	})
}

// A secret is rotated at the auth server, and for the client a moment later or earlier,
// while 50 processes work with tokens that end all the time: no request fails, and at most
// one try has the old secret. The worst moment is when a request with the old one is under
// way.
func TestSecretRotatedUnderLoad(t *testing.T) { secretRotatedUnderLoad(t, 8) }

func secretRotatedUnderLoad(t *testing.T, processes int) {
	const rotations = 5
	for name, revoked := range map[string]bool{"tokens live on": false, "tokens end with the secret": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, server, storage := &vault{secret: "s0"}, &picky{secret: "s0", life: 90}, newShared()
				var least atomic.Int64 // the number of the first token that the API takes
				rotated := 0
				server.before = func(n int) {
					if n%4 == 0 && rotated < rotations { // the request has left with the old secret
						rotated++
						server.set(fmt.Sprint("s", rotated))
						v.set(fmt.Sprint("s", rotated), nil)
						if server.mu.Lock(); revoked {
							least.Store(int64(server.issued) + 1)
						}
						server.mu.Unlock()
					}
				}
				backend := roundTrip(func(req *http.Request) (*http.Response, error) {
					var n int64
					fmt.Sscanf(req.Header.Get("Authorization"), "Bearer t%d", &n)
					if n < max(least.Load(), 1) {
						return reply(req, 401, "WWW-Authenticate", `Bearer error="invalid_token"`), nil
					}
					return reply(req, 200), nil
				})
				var failed, sent atomic.Int64
				var all sync.WaitGroup
				for range processes {
					p := pipeline(t, rf.PipelineConfig{Storage: storage, KeyPrefix: "test", RefreshAhead: 20 * time.Second, Steps: []rf.Step{server.step("app", v)}})
					transport, err := rf.NewTransport(rf.Config{BaseURL: "https://api.example.com", Source: p, Base: backend})
					require.NoError(t, err)
					client := &http.Client{Transport: transport}
					for range 2 {
						all.Go(func() {
							for range 900 {
								resp, err := client.Get("/things")
								if sent.Add(1); err != nil || resp.StatusCode != 200 {
									failed.Add(1)
								}
								if err == nil {
									resp.Body.Close()
								}
								time.Sleep(2 * time.Second)
							}
						})
					}
				}
				all.Wait()
				_, wrong := server.state()
				require.Equal(t, rotations, rotated)
				require.Zero(t, failed.Load(), "of %d requests", sent.Load())
				require.LessOrEqual(t, wrong, rotations, "wrong tries")
				require.Positive(t, wrong, "or no rotation met a request that was under way")
			})
		})
	}
}

// An auth server that refuses the old secret is asked once more, at once, if there is a
// new one; and no third time, however often the secret changes.
func TestRefusedSecretIsReplacedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, server := &vault{secret: "s0"}, &picky{secret: "none"}
		server.before = func(n int) { v.set(fmt.Sprint("s", n), nil) }
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{server.step("app", v)}})
		_, err := p.Token(t.Context())
		require.ErrorContains(t, err, "invalid_client")
		require.Equal(t, []string{"s0", "s1"}, server.seen)
	})
}

// A refresh that is refused for the old secret is sent again with the new one: the refresh
// token wasn't looked at, and nobody logs in.
func TestRefreshIsSentAgainWithTheNewSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, server := &vault{secret: "old"}, &picky{secret: "old", life: 60, refresh: true}
		step := server.step("app", v)
		refresh := *step.Fetcher.(*rf.HTTPFetcher)
		refresh.Form = map[string][]string{"grant_type": {"refresh_token"}}
		step.Refresh = &refresh
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}, Storage: rf.NewMemoryStorage(), RefreshAhead: -1})
		mustToken(t, p)
		server.before = func(int) { server.set("new"); v.set("new", nil) }
		time.Sleep(2 * time.Minute)
		require.Equal(t, "t2", mustToken(t, p).AccessToken)
		require.Equal(t, []string{"client_credentials", "refresh_token", "refresh_token"}, server.grants)
		require.Equal(t, []string{"old", "old", "new"}, server.seen)
	})
}

// A secret that can't be had fails the fetch before anything is sent, says which field is
// to blame without a word of the secret, and is a passing fault: the last good token goes
// on being served, and the next try after the secret is there works.
func TestSecretThatCantBeReadIsAPassingFault(t *testing.T) {
	for name, c := range map[string]struct {
		from func(ctx context.Context) (string, error)
		want string
	}{
		"an error":      {func(context.Context) (string, error) { return "", errors.New(`the vault is sealed; it says "s3cret"`) }, "the vault is sealed"},
		"a panic":       {func(context.Context) (string, error) { panic("s3cret") }, "panic"},
		"nothing":       {func(context.Context) (string, error) { return "", nil }, "there is no secret"},
		"too much":      {func(context.Context) (string, error) { return strings.Repeat("s3cret", 20_000), nil }, "larger than 64 KiB"},
		"no answer":     {func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }, ""},
		"a secret, too": {func(context.Context) (string, error) { return "s3cret", errors.New("but an old one") }, "but an old one"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, server, bad := &vault{secret: "right"}, &picky{secret: "right", life: 3600}, atomic.Bool{}
				step := server.step("app", v)
				step.Fetcher.(*rf.HTTPFetcher).ClientAuth.SecretFrom = func(ctx context.Context) (string, error) {
					if bad.Load() {
						return c.from(ctx)
					}
					return v.read(ctx)
				}
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}, RefreshAhead: 30 * time.Minute, MaxCoolDown: time.Hour, CoolDown: time.Hour})
				mustToken(t, p)
				bad.Store(true)
				time.Sleep(40 * time.Minute)
				for range 10 {
					require.Equal(t, "t1", mustToken(t, p).AccessToken)
					time.Sleep(time.Minute)
				}
				time.Sleep(20 * time.Minute)
				begun := time.Now()
				for range 2 { // a crash is forgiven once
					_, err := p.Token(t.Context())
					var auth *rf.AuthError
					require.ErrorAs(t, err, &auth)
					require.Equal(t, "app", auth.Step)
					require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "s3cret")
					require.ErrorContains(t, err, c.want)
					if c.want != "" {
						require.ErrorContains(t, err, "ClientAuth.SecretFrom")
						require.True(t, auth.Unsent && !auth.Permanent, "%#v", auth)
					}
				}
				require.Less(t, time.Since(begun), time.Minute)
				asked, _ := server.state()
				require.Equal(t, 1, asked)
				bad.Store(false)
				if name == "no answer" {
					time.Sleep(time.Minute) // pauses lie between glances that take long
				}
				require.Equal(t, "t2", mustToken(t, p).AccessToken)
			})
		})
	}
}

// However many callers there are, a vault is asked for a fiftieth of the time, but for the
// first calls, and a caller waits for two seconds at most.
func TestCoolDownAsksTheVaultSeldom(t *testing.T) {
	for takes, most := range map[time.Duration]int{100 * time.Millisecond: 9, time.Hour: 3} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, server := &vault{secret: "wrong"}, &picky{secret: "right"}
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{server.step("app", v)}, CoolDown: time.Minute, MaxCoolDown: time.Minute})
				_, err := p.Token(t.Context())
				require.Error(t, err)
				v.mu.Lock()
				v.takes = takes
				v.mu.Unlock()
				before := v.count()
				var all sync.WaitGroup
				for range 20 {
					all.Go(func() {
						for range 250 {
							begun := time.Now()
							_, err := p.Token(t.Context())
							require.Error(t, err)
							require.LessOrEqual(t, time.Since(begun), 2*time.Second)
							time.Sleep(100 * time.Millisecond)
						}
					})
				}
				all.Wait()
				require.LessOrEqual(t, v.count()-before, most)
				require.Positive(t, v.count()-before)
				asked, _ := server.state()
				require.Equal(t, 1, asked)
			})
		})
	}
}

// A client has one secret, and says who it is.
func TestClientAuthWithTwoSecretsIsAMistake(t *testing.T) {
	f := &rf.HTTPFetcher{URL: "https://auth.example.com", ClientAuth: &rf.ClientAuth{ID: "id", Secret: "s3cret", SecretFrom: (&vault{}).read}}
	err := f.Validate()
	require.ErrorContains(t, err, "ClientAuth.Secret and ClientAuth.SecretFrom are both set")
	require.NotContains(t, err.Error(), "s3cret")
}

// A secret that changes is no part of whose the tokens are, nor is it what a pipeline
// shows or stores.
func TestChangingSecretLosesNoLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, server, storage := &vault{secret: "s3cret-1"}, &picky{secret: "s3cret-1"}, newShared()
		cfg := rf.PipelineConfig{Storage: storage, KeyPrefix: "test", Steps: []rf.Step{server.step("app", v)}}
		mustToken(t, pipeline(t, cfg))
		v.set("s3cret-2", nil)
		p := pipeline(t, cfg)
		require.Equal(t, "t1", mustToken(t, p).AccessToken)
		static := rf.ClientAuth{ID: "id", Secret: "s3cret-1"}
		own := *cfg.Steps[0].Fetcher.(*rf.HTTPFetcher)
		own.ClientAuth = &static
		require.Equal(t, own.Identity(), cfg.Steps[0].Fetcher.(*rf.HTTPFetcher).Identity())
		require.NotContains(t, fmt.Sprintf("%+v %#v %v %v", p, p, p.State(t.Context()), cfg), "s3cret")
	})
}

// wrapping is a fetcher around another one.
type wrapping struct{ inner rf.Fetcher }

func (w wrapping) Fetch(ctx context.Context, in rf.Input) (*rf.Token, error) {
	return w.inner.Fetch(ctx, in)
}

func (w wrapping) Unwrap() rf.Fetcher { return w.inner }

// vaulted is a fetcher of a program's own, whose secret changes.
type vaulted struct {
	v      *vault
	server *picky
}

type vaultedKey struct{}

func (f vaulted) ReadSecrets(ctx context.Context, w io.Writer) (context.Context, error) {
	secret, err := f.v.read(ctx)
	io.WriteString(w, secret)
	return context.WithValue(ctx, vaultedKey{}, secret), err
}

func (f vaulted) Fetch(ctx context.Context, _ rf.Input) (*rf.Token, error) {
	if secret, _ := ctx.Value(vaultedKey{}).(string); secret != "right" {
		f.server.wrong++
		return nil, &rf.AuthError{StatusCode: 403, Permanent: true}
	}
	return &rf.Token{AccessToken: "t1"}, nil
}

// What is said of secrets that change holds for a fetcher around another one, and for one
// of the program's own.
func TestSecretReaders(t *testing.T) {
	v, server := &vault{}, &picky{secret: "right"}
	for name, f := range map[string]rf.Fetcher{
		"within another": wrapping{server.step("app", v).Fetcher},
		"embedded":       struct{ *rf.HTTPFetcher }{server.step("app", v).Fetcher.(*rf.HTTPFetcher)},
		"of one's own":   vaulted{v, server},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v.secret, v.reads, server.issued, server.wrong = "wrong", 0, 0, 0
				p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{{Name: "app", Fetcher: f}}})
				for range 3 {
					_, err := p.Token(t.Context())
					require.Error(t, err)
				}
				v.set("right", nil)
				require.Equal(t, "t1", mustToken(t, p).AccessToken)
				require.Equal(t, 1, server.wrong)
			})
		})
	}
}

// Current is a copy that has the secret, and leaves the original as it is.
func TestClientAuthCurrent(t *testing.T) {
	v := &vault{secret: "one"}
	a := rf.ClientAuth{ID: "id", SecretFrom: v.read, InBody: true}
	now, err := a.Current(t.Context())
	require.NoError(t, err)
	require.True(t, now.ID == "id" && now.Secret == "one" && now.SecretFrom == nil && now.InBody)
	require.Empty(t, a.Secret)
	static := rf.ClientAuth{ID: "id", Secret: "s"}
	now, err = static.Current(t.Context())
	require.NoError(t, err)
	require.Equal(t, static, now)
	v.set("two", errors.New("no"))
	now, err = a.Current(t.Context())
	require.ErrorContains(t, err, "ClientAuth.SecretFrom: no")
	require.Equal(t, rf.ClientAuth{}, now)
}

// One subject's calls find out for all that the client's secret has changed.
func TestNewSecretEndsTheCoolDownOfEachSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, server := &vault{secret: "wrong"}, &picky{secret: "right"}
		step := server.step("user", v)
		step.PerSubject = true
		type userKey struct{}
		p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{step}, Subject: func(ctx context.Context) (string, error) {
			name, _ := ctx.Value(userKey{}).(string)
			return name, nil
		}})
		as := map[string]context.Context{}
		for i := range 20 {
			name := fmt.Sprint("user-", i)
			as[name] = context.WithValue(t.Context(), userKey{}, name)
			for range 2 {
				_, err := p.Token(as[name])
				require.ErrorContains(t, err, "invalid_client")
			}
		}
		v.set("right", nil)
		for _, name := range slices.Sorted(maps.Keys(as)) {
			_, err := p.Token(as[name])
			require.NoError(t, err)
		}
		asked, wrong := server.state()
		require.Equal(t, []int{40, 20}, []int{asked, wrong})
	})
}

// told is a fetcher whose secret changes with each try, and which fails as it is told.
type told struct {
	err   *rf.AuthError
	tries *int
}

func (f told) ReadSecrets(ctx context.Context, w io.Writer) (context.Context, error) {
	fmt.Fprint(w, *f.tries)
	return ctx, nil
}

func (f told) Fetch(context.Context, rf.Input) (*rf.Token, error) {
	*f.tries++
	err := *f.err
	return nil, &err
}

// A refusal that is no secret's isn't asked for again because the secret has changed: a
// person who says no, and a refresh token that is refused.
func TestRefusalThatIsNoSecretsIsSentOnce(t *testing.T) {
	for _, c := range []struct {
		err  rf.AuthError
		want int
	}{
		{rf.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true}, 2},
		{rf.AuthError{StatusCode: 401}, 2},
		{rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}, 2},
		{rf.AuthError{StatusCode: 200, Permanent: true}, 2},
		{rf.AuthError{StatusCode: 400, Code: "access_denied", Permanent: true}, 1},
		{rf.AuthError{StatusCode: 400, Code: "invalid_scope", Permanent: true}, 1},
		{rf.AuthError{Code: "expired_token", Permanent: true}, 1},
		{rf.AuthError{Unsent: true, Permanent: true}, 1},
		{rf.AuthError{StatusCode: 200}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			p := pipeline(t, rf.PipelineConfig{FetchRetries: -1, Steps: []rf.Step{{Name: "app", Fetcher: told{&c.err, &tries}}}})
			_, err := p.Token(t.Context())
			require.Error(t, err)
			require.Equal(t, c.want, tries, "%v", &c.err)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		tries, logins := 0, 0
		p := pipeline(t, rf.PipelineConfig{FetchRetries: -1, RefreshAhead: -1, Storage: rf.NewMemoryStorage(), Steps: []rf.Step{{
			Name: "app",
			Fetcher: rf.FetcherFunc(func(context.Context, rf.Input) (*rf.Token, error) {
				logins++
				return &rf.Token{AccessToken: fmt.Sprint("t", logins), RefreshToken: "r", Expiry: time.Now().Add(time.Minute)}, nil
			}),
			Refresh: told{&rf.AuthError{StatusCode: 400, Code: "invalid_grant", Permanent: true}, &tries},
		}}})
		mustToken(t, p)
		time.Sleep(time.Hour)
		require.Equal(t, "t2", mustToken(t, p).AccessToken)
		require.Equal(t, 1, tries, "of a refresh token that is refused")
	})
}
