// The flows that people have, against an auth server and an API on loopback
// that are as strict as real ones; those that take time run in a bubble.
// example_test.go shows the same in short.

package requestforge_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// flowClient returns a client with the usual stack over tokens, whose relative
// URLs are srv's.
func flowClient(t *testing.T, srv *authtest.Simulator, tokens requestforge.TokenSource) *http.Client {
	t.Helper()
	transport, err := requestforge.NewTransport(requestforge.Config{
		Base:    srv.Client().Transport,
		BaseURL: srv.URL,
		Source:  tokens,
		Retry:   requestforge.ExponentialBackoff(3, 10*time.Millisecond, time.Second),
	})
	require.NoError(t, err)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// flowGet returns the status of an answer that was read to its end.
func flowGet(t *testing.T, client *http.Client, url string) int {
	t.Helper()
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	return resp.StatusCode
}

// flowGrants returns how many tokens the steps have given out, in the order of
// cfg.
func flowGrants(srv *authtest.Simulator, cfg authtest.Config) string {
	var counts []string
	for _, step := range cfg.Steps {
		s := srv.Stats().Steps[step.Name]
		counts = append(counts, fmt.Sprintf("%s %d", step.Name, s.Fetches.OK+s.Refreshes.OK))
	}
	return strings.Join(counts, ", ")
}

func TestFlowLogsInStepByStepWhenFirstNeeded(t *testing.T) {
	for name, cfg := range map[string]authtest.Config{
		"app, user": twoSteps, "device, app, user": threeSteps, "session, key, access": sessionSteps, "mixed": mixedSteps,
	} {
		for _, tls := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %v", name, tls), func(t *testing.T) {
				cfg.TLS = tls
				srv := authtest.NewServer(cfg)
				defer srv.Close()
				tokens := pipeline(t, requestforge.PipelineConfig{Steps: srv.Steps()})
				client := flowClient(t, srv.Simulator, tokens)
				assert.Empty(t, srv.Log(), "nothing is sent before a request needs it")

				for range 3 {
					assert.Equal(t, 200, flowGet(t, client, "/user/profile"))
				}
				var want, got []string
				for _, step := range cfg.Steps {
					want = append(want, "granted "+step.Name+"-1")
				}
				leaf := cfg.Steps[len(cfg.Steps)-1].Name
				for range 3 {
					want = append(want, "accepted "+leaf+"-1")
				}
				for _, e := range srv.Log() {
					got = append(got, string(e.Outcome)+" "+e.Token)
				}
				assert.Equal(t, want, got)
			})
		}
	}
}

// A token revoked at the server, whichever step's it is, costs the caller
// nothing but time.
func TestFlowSurvivesARevokedTokenOfAnyStep(t *testing.T) {
	for _, cfg := range []authtest.Config{twoSteps, threeSteps, sessionSteps, mixedSteps} {
		cfg.Cascade = true
		for _, step := range cfg.Steps {
			t.Run(step.Name, func(t *testing.T) {
				srv := authtest.NewServer(cfg)
				defer srv.Close()
				tokens := pipeline(t, requestforge.PipelineConfig{Steps: srv.Steps()})
				client := flowClient(t, srv.Simulator, tokens)
				assert.Equal(t, 200, flowGet(t, client, "/orders"))
				require.Equal(t, 1, srv.Revoke(step.Name))
				assert.Equal(t, 200, flowGet(t, client, "/orders"))
			})
		}
	}
}

func TestFlowTokensHaveTheTypesOfTheirSteps(t *testing.T) {
	srv := authtest.NewServer(sessionSteps)
	defer srv.Close()
	storage := requestforge.NewMemoryStorage()
	tokens := pipeline(t, requestforge.PipelineConfig{Steps: srv.Steps(), Storage: storage, KeyPrefix: "complex_auth"})
	mustToken(t, tokens)

	entries, err := storage.Load(t.Context(), requestforge.StorageKeys(tokens)...)
	require.NoError(t, err)
	for i, want := range []string{"Session", "ApiKey", "Bearer"} {
		require.NotNil(t, entries[i].Record)
		assert.Equal(t, want, entries[i].Record.Token.Type())
	}
}

// The server wants the device's token in a header and what depends on it in
// the body, and refuses either alone.
func TestFlowMixesHeaderAndBody(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*requestforge.HTTPFetcher)
		status int // of the error; 0: none
	}{
		"both":      {func(*requestforge.HTTPFetcher) {}, 0},
		"no header": {func(f *requestforge.HTTPFetcher) { f.HeaderFrom = nil }, 401},
		"no data": {func(f *requestforge.HTTPFetcher) {
			f.BodyFrom = func(requestforge.Input) (any, error) {
				return map[string]any{"username": "ann", "password": "made-up"}, nil
			}
		}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				steps := authtest.NewSimulator(mixedSteps).Steps()
				access := steps[1].Fetcher.(*requestforge.HTTPFetcher)
				access.JSON = nil
				access.BodyFrom = func(in requestforge.Input) (any, error) {
					return map[string]any{
						"username": "ann", "password": "made-up",
						"device_validated": in.Parents["device"].AccessToken != "",
					}, nil
				}
				c.change(access)

				_, err := pipeline(t, requestforge.PipelineConfig{Steps: steps}).Token(t.Context())
				if c.status == 0 {
					require.NoError(t, err)
					return
				}
				var auth *requestforge.AuthError
				require.ErrorAs(t, err, &auth)
				assert.Equal(t, "access", auth.Step)
				assert.Equal(t, c.status, auth.StatusCode)
			})
		})
	}
}

// A step's TTL stands beside what the server says: whichever ends first has a
// new token fetched, and other steps' tokens stay.
func TestFlowFetchesAgainAfterTheEarlierOfTTLAndExpiresIn(t *testing.T) {
	for _, c := range []struct {
		ttl, server time.Duration
	}{
		{30 * time.Minute, time.Hour}, {time.Hour, 30 * time.Minute}, {0, 30 * time.Minute}, {30 * time.Minute, 0},
	} {
		t.Run(fmt.Sprintf("TTL %v, expires_in %v", c.ttl, c.server), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := twoSteps
				cfg.Steps = append([]authtest.Step(nil), twoSteps.Steps...)
				cfg.Steps[0].TTL, cfg.Steps[1].TTL = 24*time.Hour, c.server
				sim := authtest.NewSimulator(cfg)
				steps := sim.Steps()
				steps[1].TTL = c.ttl
				tokens := pipeline(t, requestforge.PipelineConfig{Steps: steps, RefreshAhead: -1})
				client := flowClient(t, sim, tokens)

				assert.Equal(t, 200, flowGet(t, client, "/users"))
				time.Sleep(28 * time.Minute)
				assert.Equal(t, 200, flowGet(t, client, "/users"))
				assert.Equal(t, "app 1, user 1", flowGrants(sim, cfg))
				time.Sleep(2 * time.Minute)
				assert.Equal(t, 200, flowGet(t, client, "/users"))
				assert.Equal(t, "app 1, user 2", flowGrants(sim, cfg))
				assert.Zero(t, sim.Stats().API.Refused, "the token was renewed before the API could refuse it")
			})
		})
	}
}

func TestFlowDependenciesAreCheckedAtConstruction(t *testing.T) {
	step := func(name string, parents ...string) requestforge.Step {
		return requestforge.Step{Name: name, DependsOn: parents, Fetcher: &requestforge.HTTPFetcher{URL: "https://auth.example.com/" + name}}
	}
	for name, c := range map[string]struct {
		steps []requestforge.Step
		want  string
	}{
		"a cycle":           {[]requestforge.Step{step("user", "app"), step("device", "user"), step("app", "device")}, `in a cycle: "user" -> "app" -> "device" -> "user"`},
		"itself":            {[]requestforge.Step{step("user", "user")}, `in a cycle: "user" -> "user"`},
		"a duplicate":       {[]requestforge.Step{step("app"), step("app")}, `two steps are named "app"`},
		"an unknown parent": {[]requestforge.Step{step("user", "device")}, `step "user" depends on "device", which is no step`},
	} {
		t.Run(name, func(t *testing.T) {
			tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: c.steps})
			require.ErrorContains(t, err, c.want)
			assert.Nil(t, tokens)
		})
	}

	// All mistakes at once.
	_, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{step("app"), step("app", "nobody"), {}}, FetchRetries: -1, StorageTimeout: -1})
	for _, want := range []string{`named "app"`, `"nobody"`, "StorageTimeout"} {
		assert.ErrorContains(t, err, want)
	}
}

func TestFlowInvalidationTakesWhatItShould(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		do   func(*requestforge.Pipeline) error
		want string
	}{
		"the leaf":   {func(p *requestforge.Pipeline) error { return p.InvalidateStep(ctx, "user") }, "device 1, app 1, user 2"},
		"the middle": {func(p *requestforge.Pipeline) error { return p.InvalidateStep(ctx, "app") }, "device 1, app 2, user 2"},
		"the root":   {func(p *requestforge.Pipeline) error { return p.InvalidateStep(ctx, "device") }, "device 2, app 2, user 2"},
		"all":        {func(p *requestforge.Pipeline) error { return p.InvalidateAll(ctx) }, "device 2, app 2, user 2"},
		"refresh":    {func(p *requestforge.Pipeline) error { _, err := p.Refresh(ctx); return err }, "device 2, app 2, user 2"},
		"forget":     {func(p *requestforge.Pipeline) error { return p.Forget(ctx) }, "device 2, app 2, user 2"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := authtest.NewServer(threeSteps)
			defer srv.Close()
			tokens := pipeline(t, requestforge.PipelineConfig{Steps: srv.Steps()})
			client := flowClient(t, srv.Simulator, tokens)
			assert.Equal(t, 200, flowGet(t, client, "/users"))
			require.NoError(t, c.do(tokens))
			for range 2 {
				assert.Equal(t, 200, flowGet(t, client, "/users"))
			}
			assert.Equal(t, c.want, flowGrants(srv.Simulator, threeSteps))
		})
	}
}

func TestFlowRefusalIsBlamedOnRefreshFrom(t *testing.T) {
	for from, want := range map[string]string{
		"":       "device 1, app 1, user 2",
		"user":   "device 1, app 1, user 2",
		"app":    "device 1, app 2, user 2",
		"device": "device 2, app 2, user 2",
	} {
		t.Run(from, func(t *testing.T) {
			srv := authtest.NewServer(threeSteps)
			defer srv.Close()
			client := flowClient(t, srv.Simulator, pipeline(t, requestforge.PipelineConfig{Steps: srv.Steps(), RefreshFrom: from}))
			assert.Equal(t, 200, flowGet(t, client, "/users"))
			srv.Revoke("user")
			assert.Equal(t, 200, flowGet(t, client, "/users"))
			assert.Equal(t, want, flowGrants(srv.Simulator, threeSteps))
		})
	}
}

func TestFlowStorageAndPrefixDecideWhoSharesTokens(t *testing.T) {
	srv := authtest.NewServer(twoSteps)
	defer srv.Close()
	storage := requestforge.NewMemoryStorage()
	for _, c := range []struct {
		storage requestforge.Storage
		prefix  string
		want    string
	}{
		{storage, "myapp", "app 1, user 1"},
		{storage, "myapp", "app 1, user 1"},
		{storage, "another", "app 2, user 2"},
		{requestforge.NewMemoryStorage(), "myapp", "app 3, user 3"},
		{nil, "myapp", "app 4, user 4"},
		{storage, "another", "app 4, user 4"},
	} {
		tokens := pipeline(t, requestforge.PipelineConfig{Steps: srv.Steps(), Storage: c.storage, KeyPrefix: c.prefix})
		assert.Equal(t, 200, flowGet(t, flowClient(t, srv.Simulator, tokens), "/users"))
		assert.Equal(t, c.want, flowGrants(srv.Simulator, twoSteps))
	}
}

// Both ways to sign a request for a token reach a server that checks the
// signature, and a wrong key is an error that names the step.
func TestFlowSignedFetcher(t *testing.T) {
	sign := func(key, timestamp, body string) string {
		mac := hmac.New(sha256.New, []byte(key))
		io.WriteString(mac, timestamp+body)
		return hex.EncodeToString(mac.Sum(nil))
	}
	const body = `{"grant_type":"signed"}`
	for name, fetcher := range map[string]func(url, key string) requestforge.Fetcher{
		"Prepare": func(url, key string) requestforge.Fetcher {
			return &requestforge.HTTPFetcher{
				URL: url, JSON: map[string]any{"grant_type": "signed"}, TokenField: "token", ExpiresInField: "ttl", TokenType: "Signed",
				Prepare: func(req *http.Request, _ requestforge.Input) error {
					timestamp := strconv.FormatInt(time.Now().Unix(), 10)
					req.Header.Set("X-Timestamp", timestamp)
					req.Header.Set("X-Signature", sign(key, timestamp, body))
					return nil
				},
			}
		},
		"FetcherFunc": func(url, key string) requestforge.Fetcher {
			return requestforge.FetcherFunc(func(ctx context.Context, _ requestforge.Input) (*requestforge.Token, error) {
				req, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(body))
				if err != nil {
					return nil, err
				}
				timestamp := strconv.FormatInt(time.Now().Unix(), 10)
				req.Header.Set("X-Timestamp", timestamp)
				req.Header.Set("X-Signature", sign(key, timestamp, body))
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					return nil, err
				}
				defer resp.Body.Close()
				if resp.StatusCode != 200 {
					return nil, &requestforge.AuthError{StatusCode: resp.StatusCode}
				}
				return &requestforge.Token{AccessToken: "signed-1", TokenType: "Signed", Expiry: time.Now().Add(time.Hour)}, nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			auth := signedAuth()
			defer auth.Close()
			api := whoami()
			defer api.Close()
			tokens := pipeline(t, requestforge.PipelineConfig{Steps: []requestforge.Step{{Name: "signed", Fetcher: fetcher(auth.URL, "made-up")}}})
			client := &http.Client{Transport: &requestforge.AuthTransport{Source: tokens, Origins: []string{api.URL}}}
			resp, err := client.Get(api.URL)
			require.NoError(t, err)
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.Equal(t, "Authorization: Signed signed-1\n", string(got))

			_, err = pipeline(t, requestforge.PipelineConfig{Steps: []requestforge.Step{{Name: "signed", Fetcher: fetcher(auth.URL, "another key")}}}).Token(t.Context())
			var failed *requestforge.AuthError
			require.ErrorAs(t, err, &failed)
			assert.Equal(t, "signed", failed.Step)
			assert.Equal(t, 401, failed.StatusCode)
		})
	}
}

// Whichever step fails, the client's error names it, its OnError alone is
// called, and once the server is well again so is the client.
func TestFlowErrorNamesTheFailedStep(t *testing.T) {
	for _, failing := range threeSteps.Steps {
		t.Run(failing.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := authtest.NewSimulator(threeSteps)
				steps := sim.Steps()
				var told []string
				for i := range steps {
					steps[i].OnError = func(_ context.Context, err error) {
						var auth *requestforge.AuthError
						if errors.As(err, &auth) {
							told = append(told, steps[i].Name+" "+auth.Step)
						}
					}
				}
				client := flowClient(t, sim, pipeline(t, requestforge.PipelineConfig{Steps: steps}))
				sim.Fail(failing.Name, authtest.Fault{Status: http.StatusServiceUnavailable, Body: `{"error":"made-up"}`})

				_, err := client.Get("/user/profile")
				var auth *requestforge.AuthError
				require.ErrorAs(t, err, &auth)
				assert.Equal(t, failing.Name, auth.Step)
				assert.Equal(t, 503, auth.StatusCode)
				assert.False(t, auth.Permanent)
				assert.NotContains(t, err.Error(), "made-up")
				require.NotEmpty(t, told)
				for _, got := range told {
					assert.Equal(t, failing.Name+" "+failing.Name, got)
				}
				assert.Zero(t, sim.Stats().API.Attempted, "without a token the request isn't sent")

				sim.Fail(failing.Name)
				time.Sleep(time.Minute)
				assert.Equal(t, 200, flowGet(t, client, "/user/profile"))
			})
		})
	}
}

// Three words for three things: the request is retried after failures with
// waits that double, and replayed after a refusal once its delay is over.
func TestFlowRetryAndReplayWaitAsTheirStrategiesSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := authtest.NewSimulator(twoSteps)
		transport, err := requestforge.NewTransport(requestforge.Config{
			Base:      sim.Transport(),
			BaseURL:   sim.URL,
			Source:    pipeline(t, requestforge.PipelineConfig{Steps: sim.Steps()}),
			AuthRetry: requestforge.SimpleAuthRetry(1, 500*time.Millisecond),
			Retry:     requestforge.ExponentialBackoff(3, time.Second, time.Minute),
		})
		require.NoError(t, err)
		client := &http.Client{Transport: transport}

		sim.FailAPI(authtest.Fault{Times: 3, Status: http.StatusBadGateway})
		begun := time.Now()
		assert.Equal(t, 200, flowGet(t, client, "/orders"))
		assert.Equal(t, 4, sim.Stats().API.Attempted)
		took := time.Since(begun)
		assert.True(t, 7*time.Second <= took && took <= 14*time.Second, "1 s, 2 s and 4 s, each up to doubled by jitter; took %v", took)

		sim.Revoke("user")
		begun = time.Now()
		assert.Equal(t, 200, flowGet(t, client, "/orders"))
		assert.Equal(t, 500*time.Millisecond, time.Since(begun))

		sim.FailAPI(authtest.Fault{Status: http.StatusBadGateway})
		assert.Equal(t, 502, flowGet(t, client, "/orders"), "the last answer, once the retries are used up")
	})
}

func TestFlowExcludedPathsGoWithoutAToken(t *testing.T) {
	var carried, sent atomic.Int32
	cfg := twoSteps
	cfg.API = authtest.API{Prefix: "/v2", Open: []string{"/v2/health", "/v2/public/logo", "/v2/docs/a/b"}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent.Add(1)
		if r.Header.Get("Authorization") != "" {
			carried.Add(1)
		}
	})}
	srv := authtest.NewServer(cfg)
	defer srv.Close()
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL:       srv.URL + "/v2",
		Source:        pipeline(t, requestforge.PipelineConfig{Steps: srv.Steps()}),
		ExcludedPaths: []string{"/health", "/public/*", "/docs/**"},
	})
	require.NoError(t, err)
	client := &http.Client{Transport: transport}

	for _, path := range []string{"/health", "/public/logo", "/docs/a/b"} {
		assert.Equal(t, 200, flowGet(t, client, path), path)
	}
	assert.EqualValues(t, 3, sent.Load())
	assert.Zero(t, carried.Load())
	assert.Equal(t, "app 0, user 0", flowGrants(srv.Simulator, cfg), "no token was fetched")

	assert.Equal(t, 200, flowGet(t, client, "/orders"))
	assert.EqualValues(t, 1, carried.Load())
}

// A log with headers on, of a login, a revoked token and a failed step, holds
// nothing that would let its reader in.
func TestFlowLogHoldsNoSecret(t *testing.T) {
	srv := authtest.NewServer(threeSteps)
	defer srv.Close()
	var logged bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	storage := requestforge.NewMemoryStorage()
	tokens := pipeline(t, requestforge.PipelineConfig{Steps: srv.Steps(), Storage: storage, Logger: logger})
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: srv.URL, Source: tokens, Logger: logger, LogHeaders: true,
	})
	require.NoError(t, err)
	client := &http.Client{Transport: transport}

	secrets := []string{"made-up", "s3cret-in-query", "s3cret-cookie"}
	remember := func() {
		entries, err := storage.Load(t.Context(), requestforge.StorageKeys(tokens)...)
		require.NoError(t, err)
		for _, e := range entries {
			secrets = append(secrets, e.Record.Token.AccessToken)
		}
	}
	send := func() error {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "/orders?key=s3cret-in-query", nil)
		require.NoError(t, err)
		req.Header.Set("Cookie", "session=s3cret-cookie")
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	require.NoError(t, send())
	remember()
	srv.Revoke("user")
	require.NoError(t, send())
	remember()
	srv.Fail("app", authtest.Fault{Status: http.StatusBadRequest, Body: `{"error":"invalid_client","error_description":"made-up"}`})
	require.NoError(t, tokens.InvalidateStep(t.Context(), "app"))
	require.Error(t, send())

	assert.Contains(t, logged.String(), `"Cookie":["REDACTED"]`)
	assert.Contains(t, logged.String(), `"replayed":1`)
	assert.Contains(t, logged.String(), "invalid_client")
	for _, secret := range secrets {
		assert.NotContains(t, logged.String(), secret)
	}
}

// The client's Timeout bounds all that a request takes: the login, the waits
// and the answer.
func TestFlowClientTimeoutBoundsEverything(t *testing.T) {
	for name, hang := range map[string]func(*authtest.Simulator){
		"auth server": func(sim *authtest.Simulator) { sim.Fail("app", authtest.Fault{Hang: true}) },
		"API":         func(sim *authtest.Simulator) { sim.FailAPI(authtest.Fault{Hang: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := authtest.NewSimulator(twoSteps)
				hang(sim)
				client := flowClient(t, sim, pipeline(t, requestforge.PipelineConfig{Steps: sim.Steps()}))
				client.Timeout = 20 * time.Second
				begun := time.Now()
				_, err := client.Get("/orders")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				var ue *url.Error
				require.ErrorAs(t, err, &ue)
				assert.True(t, ue.Timeout(), "%v", err)
				assert.Equal(t, 20*time.Second, time.Since(begun))
				time.Sleep(time.Minute) // the fetch ends at its own bound
			})
		})
	}
}

// What a user's own test looks like: the program's client, a server that can
// be told to misbehave, and its counters.
func TestFlowRevokedTokenInAUsersTest(t *testing.T) {
	// readme:start testing
	srv := authtest.NewServer(authtest.Config{Steps: []authtest.Step{
		{Name: "app", ClientID: "shop", ClientSecret: "made-up", TTL: time.Hour},
		{Name: "user", Parents: map[string]string{"app": "X-App-Token"}, TTL: 15 * time.Minute},
	}})
	defer srv.Close()
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
	if err != nil {
		t.Fatal(err)
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: srv.URL, Source: tokens})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: transport}

	for range 2 {
		resp, err := client.Get("/orders")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("got %s", resp.Status)
		}
		srv.Revoke("user") // the next request is refused, and replayed
	}
	if got := srv.Stats().Steps["user"].Fetches.OK; got != 2 {
		t.Errorf("%d logins, want 2", got)
	}
	// readme:end testing
}

// The complete production setup, with everything that happens to it in a bad
// week: no caller sees any of it.
func TestFlowProductionSetup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := twoSteps
		cfg.Cascade = true
		sim := authtest.NewSimulator(cfg)
		tokens := pipeline(t, requestforge.PipelineConfig{
			Steps:       sim.Steps(),
			Storage:     requestforge.NewMemoryStorage(),
			KeyPrefix:   "myapp",
			RefreshFrom: "user",
		})
		transport, err := requestforge.NewTransport(requestforge.Config{
			Base:          sim.Transport(),
			BaseURL:       sim.URL + "/v1",
			Source:        tokens,
			AuthRetry:     requestforge.SimpleAuthRetry(1, 500*time.Millisecond),
			ExcludedPaths: []string{"/health"},
			Retry:         requestforge.ExponentialBackoff(3, time.Second, time.Minute),
			Logger:        slog.New(slog.DiscardHandler),
			LogHeaders:    true,
		})
		require.NoError(t, err)
		client := &http.Client{Transport: transport, Timeout: 30 * time.Second}

		assert.Equal(t, 200, flowGet(t, client, "/health"))
		assert.Equal(t, "app 0, user 0", flowGrants(sim, cfg))
		assert.Equal(t, 200, flowGet(t, client, "/user/profile"))
		for _, event := range []struct {
			name   string
			happen func()
		}{
			{"the user token is revoked", func() { sim.Revoke("user") }},
			{"the app token is revoked", func() { sim.Revoke("app") }},
			{"the API fails for a moment", func() { sim.FailAPI(authtest.Fault{Times: 2, Status: http.StatusServiceUnavailable}) }},
			{"the user token expires", func() { time.Sleep(30 * time.Minute) }},
			{"both tokens expire", func() { time.Sleep(2 * time.Hour) }},
			{"the auth server drops a request", func() { sim.Fail("user", authtest.Fault{Times: 1, Drop: true}); sim.Revoke("user") }},
			{"the auth server is down", func() { sim.Down(true) }},
		} {
			event.happen()
			assert.Equal(t, 200, flowGet(t, client, "/user/profile"), event.name)
		}
	})
}

// Neither a URL of the caller's own nor a redirect takes the token to a server
// that isn't the API's.
func TestFlowForeignServerSeesNoToken(t *testing.T) {
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.Header.Values("Authorization")))
	}))
	defer foreign.Close()
	cfg := twoSteps
	cfg.API = authtest.API{Handler: http.RedirectHandler(foreign.URL, http.StatusFound)}
	srv := authtest.NewServer(cfg)
	defer srv.Close()
	client := flowClient(t, srv.Simulator, pipeline(t, requestforge.PipelineConfig{Steps: srv.Steps()}))
	for _, url := range []string{foreign.URL, "/leads/elsewhere"} {
		resp, err := client.Get(url)
		require.NoError(t, err)
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, "0", string(got), url)
	}
}
