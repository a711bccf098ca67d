package requestforge_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
)

func TestAnotherIdentityFindsNothingOfTheOldOnesTokens(t *testing.T) {
	logins := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		logins++
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"t%d"}`, logins)
	}))
	defer srv.Close()
	storage := requestforge.NewMemoryStorage()
	login := func(path, client, secret string, form url.Values) string {
		p, err := requestforge.NewPipeline(requestforge.PipelineConfig{Storage: storage, Steps: []requestforge.Step{{
			Name: "user", Fetcher: &requestforge.HTTPFetcher{
				URL: srv.URL + path, Form: form, ClientAuth: &requestforge.ClientAuth{ID: client, Secret: secret},
			},
		}}})
		require.NoError(t, err)
		tok, err := p.Token(t.Context())
		require.NoError(t, err)
		return tok.AccessToken
	}
	form := func(user, password, scope, audience string) url.Values {
		return url.Values{"username": {user}, "password": {password}, "scope": {scope}, "audience": {audience}}
	}
	require.Equal(t, "t1", login("/a", "c", "s", form("ann", "pw", "read", "api")))
	require.Equal(t, "t1", login("/a", "c", "new", form("ann", "changed", "read", "api")), "a rotated secret")
	require.Equal(t, "t2", login("/b", "c", "s", form("ann", "pw", "read", "api")), "another URL")
	require.Equal(t, "t3", login("/a", "d", "s", form("ann", "pw", "read", "api")), "another client")
	require.Equal(t, "t4", login("/a", "c", "s", form("bob", "pw", "read", "api")), "another user")
	require.Equal(t, "t5", login("/a", "c", "s", form("ann", "pw", "write", "api")), "another scope")
	require.Equal(t, "t6", login("/a", "c", "s", form("ann", "pw", "read", "web")), "another audience")
	require.Equal(t, "t1", login("/a", "c", "s", form("ann", "pw", "read", "api")), "the old configuration beside them")
}

// sharedBy is a storage that others may use, with shared failures.
type sharedBy struct {
	requestforge.Storage
	locks requestforge.Locker
	mu    sync.Mutex
	left  map[string]requestforge.Failure
	saved chan struct{} // one for each failure
}

func newShared() *sharedBy {
	m := requestforge.NewMemoryStorage()
	return &sharedBy{Storage: m, locks: m, left: map[string]requestforge.Failure{}, saved: make(chan struct{}, 1000)}
}

func (s *sharedBy) TryLock(ctx context.Context, key string) (requestforge.Lease, bool, error) {
	return s.locks.TryLock(ctx, key)
}

func (s *sharedBy) LoadFailure(_ context.Context, key string) (requestforge.Failure, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left[key], nil
}

func (s *sharedBy) SaveFailure(_ context.Context, key string, f requestforge.Failure) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left[key] = f
	s.saved <- struct{}{}
	return nil
}

// A storage that others may use needs to know whose the tokens are.
func TestSharedStorageNeedsAPrefixAndIdentities(t *testing.T) {
	function := requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) { return nil, nil })
	body := &requestforge.HTTPFetcher{URL: "https://auth.example.com/token"}
	with := func(change func(*requestforge.HTTPFetcher)) *requestforge.HTTPFetcher {
		f := *body
		change(&f)
		return &f
	}
	for name, c := range map[string]struct {
		storage requestforge.Storage
		prefix  string
		step    requestforge.Step
		want    []string // in the error; nil: none
	}{
		"all said":         {newShared(), "app", requestforge.Step{Fetcher: body}, nil},
		"said by the step": {newShared(), "app", requestforge.Step{Fetcher: function, Identity: "ann"}, nil},
		"no prefix":        {newShared(), "", requestforge.Step{Fetcher: body}, []string{"KeyPrefix is empty"}},
		"a function":       {newShared(), "app", requestforge.Step{Fetcher: function}, []string{`step "user"`, "Step.Identity"}},
		"a body made by a function": {newShared(), "app", requestforge.Step{Fetcher: with(func(f *requestforge.HTTPFetcher) {
			f.BodyFrom = func(requestforge.Input) (any, error) { return nil, nil }
		})}, []string{"Step.Identity"}},
		"a request prepared by a function": {newShared(), "app", requestforge.Step{Fetcher: with(func(f *requestforge.HTTPFetcher) {
			f.Prepare = func(*http.Request, requestforge.Input) error { return nil }
		})}, []string{"Step.Identity"}},
		"both":              {newShared(), "", requestforge.Step{Fetcher: function}, []string{"KeyPrefix is empty", "Step.Identity"}},
		"memory":            {requestforge.NewMemoryStorage(), "", requestforge.Step{Fetcher: function}, nil},
		"memory, wrapped":   {struct{ *requestforge.MemoryStorage }{requestforge.NewMemoryStorage()}, "", requestforge.Step{Fetcher: function}, nil},
		"memory of its own": {nil, "", requestforge.Step{Fetcher: function}, nil},
	} {
		c.step.Name = "user"
		_, err := requestforge.NewPipeline(requestforge.PipelineConfig{Storage: c.storage, KeyPrefix: c.prefix, Steps: []requestforge.Step{c.step}})
		if c.want == nil {
			require.NoError(t, err, name)
		}
		for _, want := range c.want {
			require.ErrorContains(t, err, want, name)
		}
	}
}

// Old and new configuration side by side, in 50 processes over an hour of expiries:
// one login each, and no refresh token lost or sent twice.
func TestRollingDeployCostsOneLoginEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		logins, live, reused := map[string]int{}, map[string]string{}, 0
		client := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			if err := req.ParseForm(); err != nil {
				return nil, err
			}
			scope := req.Form.Get("scope")
			switch given := req.Form.Get("refresh_token"); {
			case given == "":
				logins[scope]++
			case given != live[scope]:
				reused++
				return reply(req, 400), nil
			}
			live[scope] = fmt.Sprintf("refresh-%s-%d", scope, time.Now().UnixNano())
			resp := reply(req, 200, "Content-Type", "application/json")
			resp.Body = io.NopCloser(strings.NewReader(fmt.Sprintf(`{"access_token":"for-%s","refresh_token":%q,"expires_in":300}`, scope, live[scope])))
			return resp, nil
		})}
		storage := newShared()
		process := func(scope string) *requestforge.Pipeline {
			form := url.Values{"username": {"ann"}, "scope": {scope}}
			return pipeline(t, requestforge.PipelineConfig{Storage: storage, KeyPrefix: "app", Steps: []requestforge.Step{{
				Name:    "user",
				Fetcher: &requestforge.HTTPFetcher{URL: "https://auth.example.com/token", Form: form, Client: client},
				Refresh: &requestforge.HTTPFetcher{URL: "https://auth.example.com/token", Client: client, BodyFrom: func(in requestforge.Input) (any, error) {
					return url.Values{"scope": {scope}, "refresh_token": {in.Previous.RefreshToken}}, nil
				}},
			}}})
		}
		var all sync.WaitGroup
		for i := range 50 {
			scope := []string{"read", "read-write"}[i%2]
			p := process(scope)
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				for range 60 {
					if tok, err := p.Token(t.Context()); err != nil || tok.AccessToken != "for-"+scope {
						t.Errorf("%s got %v, %v", scope, tok, err)
					}
					time.Sleep(time.Minute)
				}
			})
		}
		all.Wait()
		require.Equal(t, map[string]int{"read": 1, "read-write": 1}, logins)
		require.Zero(t, reused)
	})
}

// A corrected secret ends a cool-down that another process has left, and nobody who
// fails waits for the slow hash that tells the two apart.
func TestCorrectedSecretEndsAPeersCoolDown(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if _, secret, _ := r.BasicAuth(); secret != "right" {
			w.WriteHeader(401)
			io.WriteString(w, `{"error":"invalid_client"}`)
			return
		}
		io.WriteString(w, `{"access_token":"t"}`)
	}))
	defer srv.Close()
	storage := newShared()
	token := func(secret string) error {
		_, err := pipeline(t, requestforge.PipelineConfig{Storage: storage, KeyPrefix: "app", Steps: []requestforge.Step{{
			Name: "app", Fetcher: &requestforge.HTTPFetcher{URL: srv.URL, ClientAuth: &requestforge.ClientAuth{ID: "c", Secret: secret}},
		}}}).Token(t.Context())
		return err
	}
	require.ErrorContains(t, token("wrong"), "invalid_client")
	<-storage.saved
	require.ErrorContains(t, token("wrong"), "another process's fetch failed")
	require.NoError(t, token("right"))
}

// An outage for 100 tenants, each with a secret of its own: the callers hear of it
// before any slow hash is made.
func TestOutageMakesNoCallerWaitForASlowHash(t *testing.T) {
	client := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) { return reply(req, 503), nil })}
	var all sync.WaitGroup
	storages := make([]*sharedBy, 100)
	for i := range storages {
		storages[i] = newShared()
		p := pipeline(t, requestforge.PipelineConfig{Storage: storages[i], KeyPrefix: fmt.Sprint("tenant-", i), FetchRetries: -1, Steps: []requestforge.Step{{
			Name: "user", Fetcher: &requestforge.HTTPFetcher{URL: "https://auth.example.com", Client: client, Form: url.Values{"password": {fmt.Sprint("s3cret", i/50)}}},
		}}})
		all.Go(func() {
			_, err := p.Token(t.Context())
			require.Error(t, err)
		})
	}
	all.Wait()
	early := 0
	for _, s := range storages {
		early += len(s.saved)
	}
	require.Less(t, early, len(storages), "failures that were shared before the callers heard of theirs")
	for _, s := range storages {
		<-s.saved
	}
}

// writer is a fetcher whose Fingerprint is the test's.
type writer struct {
	requestforge.FetcherFunc
	print func(io.Writer)
}

func (w writer) Fingerprint(to io.Writer) { w.print(to) }

// A print that takes long, since many are to be made, delays neither the callers of a
// process nor, by its lock, those of another one.
func TestNoCallerWaitsForAPeersSlowHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage, asked, slow := newShared(), 0, make(chan struct{})
		start := func() *requestforge.Pipeline {
			return pipeline(t, requestforge.PipelineConfig{Storage: storage, KeyPrefix: "app", FetchRetries: -1, CoolDown: time.Hour, MaxCoolDown: time.Hour, Steps: []requestforge.Step{{
				Name: "user", Identity: "ann", Fetcher: writer{func(context.Context, requestforge.Input) (*requestforge.Token, error) {
					asked++
					return nil, &requestforge.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true}
				}, func(io.Writer) { <-slow }},
			}}})
		}
		for i := range 3 {
			begun := time.Now()
			_, err := start().Token(t.Context())
			require.Error(t, err)
			require.Less(t, time.Since(begun), 2*time.Second)
			require.Equal(t, i+1, asked)
		}
		close(slow)
		for range 3 {
			<-storage.saved
		}
		_, err := start().Token(t.Context())
		require.Error(t, err)
		require.Equal(t, 3, asked, "once the print is known, a peer's failure is heeded")
	})
}

// A Fingerprint that crashes costs the process nothing but what peers would have said.
func TestFingerprintThatPanicsIsNoPrint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage, asked, crash := newShared(), 0, true
		start := func() *requestforge.Pipeline {
			return pipeline(t, requestforge.PipelineConfig{Storage: storage, KeyPrefix: "app", FetchRetries: -1, Steps: []requestforge.Step{{
				Name: "user", Identity: "ann", Fetcher: writer{func(context.Context, requestforge.Input) (*requestforge.Token, error) {
					asked++
					return nil, &requestforge.AuthError{StatusCode: 401, Code: "invalid_client", Permanent: true}
				}, func(io.Writer) {
					if crash {
						panic("a bug")
					}
				}},
			}}})
		}
		_, err := start().Token(t.Context())
		require.Error(t, err)
		synctest.Wait()
		require.Empty(t, storage.left, "a failure of nobody's configuration")

		crash = false
		_, err = start().Token(t.Context())
		require.Error(t, err)
		<-storage.saved
		crash = true
		_, err = start().Token(t.Context())
		require.Error(t, err)
		require.Equal(t, 3, asked)
	})
}
