// Both packages at work on loopback servers: whose token gets where, and what
// a refusal sets off.

package oauth2source_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// authServer has two endpoints: /token, as in RFC 6749, gives out app-1,
// app-2, ... and a refresh token with each; /login, for an app token, gives out
// user-1, user-2, ...
type authServer struct {
	*httptest.Server
	mu     sync.Mutex
	grants []string // the grant types asked for, with the refresh token if any
	apps   int
	logins []string // the app tokens that came
}

func newAuthServer(t *testing.T) *authServer {
	s := new(authServer)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.apps++
		s.grants = append(s.grants, strings.TrimSpace(r.FormValue("grant_type")+" "+r.FormValue("refresh_token")))
		answer(w, map[string]any{
			"access_token":  fmt.Sprintf("app-%d", s.apps),
			"refresh_token": fmt.Sprintf("refresh-%d", s.apps),
			"expires_in":    3600,
		})
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.logins = append(s.logins, r.Header.Get("Authorization"))
		answer(w, map[string]any{"access_token": fmt.Sprintf("user-%d", len(s.logins)), "expires_in": 3600})
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(body)
}

// app makes the step of the client credentials grant's source.
func (s *authServer) app(ctx context.Context, _ requestforge.Input) (oauth2.TokenSource, error) {
	conf := clientcredentials.Config{
		ClientID:     "client",
		ClientSecret: "secret",
		TokenURL:     s.URL + "/token",
		AuthStyle:    oauth2.AuthStyleInHeader,
	}
	return conf.TokenSource(ctx), nil
}

// steps is a login of two steps, the first by x/oauth2.
func (s *authServer) steps() []requestforge.Step {
	return []requestforge.Step{
		{Name: "app", Fetcher: oauth2source.FetcherFrom(s.app)},
		{Name: "user", DependsOn: []string{"app"}, Fetcher: &requestforge.HTTPFetcher{
			URL:        s.URL + "/login",
			HeaderFrom: map[string]string{"Authorization": "app"},
		}},
	}
}

// api answers with the values of the named request headers, and 401 to those
// that hold a revoked token.
type api struct {
	*httptest.Server
	mu      sync.Mutex
	revoked []string
	seen    []string // the named headers of each request, joined by "|"
	fail    int      // how many requests to answer with 503 first
}

func newAPI(t *testing.T, headers ...string) *api {
	a := new(api)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var values []string
		for _, h := range headers {
			values = append(values, r.Header.Get(h))
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.seen = append(a.seen, strings.Join(values, "|"))
		switch {
		case a.fail > 0:
			a.fail--
			w.WriteHeader(http.StatusServiceUnavailable)
		case slices.ContainsFunc(values, func(v string) bool { return slices.Contains(a.revoked, v) }):
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			io.WriteString(w, strings.Join(values, "|"))
		}
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *api) revoke(header string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked = append(a.revoked, header)
}

// get sends a request through rt and returns the answer's status and body.
func get(t *testing.T, rt http.RoundTripper, url string, header ...string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func expect(t *testing.T, rt http.RoundTripper, url string, wantStatus int, wantBody string) {
	t.Helper()
	if status, body, err := get(t, rt, url); status != wantStatus || body != wantBody || err != nil {
		t.Errorf("got %d, %q, %v; want %d, %q", status, body, err, wantStatus, wantBody)
	}
}

func newPipeline(t *testing.T, steps ...requestforge.Step) *requestforge.Pipeline {
	t.Helper()
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: steps})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestOAuth2TransportWithinOurLayersAuthenticatesWithAPipeline(t *testing.T) {
	auth, api := newAuthServer(t), newAPI(t, "Authorization")
	pipeline := newPipeline(t, auth.steps()...)
	var log bytes.Buffer
	rt := &requestforge.LoggingTransport{
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
		Headers: true,
		Base: &requestforge.RetryTransport{
			Policy: requestforge.RetryPolicy{RetryMax: 2, RetryWaitMin: time.Millisecond, RetryWaitMax: time.Millisecond},
			Base:   &oauth2.Transport{Source: oauth2source.TokenSource(t.Context(), pipeline)},
		},
	}

	api.fail = 1
	expect(t, rt, api.URL, 200, "Bearer user-1")
	if want := []string{"Bearer user-1", "Bearer user-1"}; !slices.Equal(api.seen, want) {
		t.Errorf("the API saw %q, want %q: one failure and one retry", api.seen, want)
	}

	// x/oauth2 doesn't tell the pipeline of a refusal. Someone has to, and
	// then the next request has a new token.
	api.revoke("Bearer user-1")
	expect(t, rt, api.URL, 401, "")
	if err := pipeline.InvalidateStep(t.Context(), "user"); err != nil {
		t.Fatal(err)
	}
	expect(t, rt, api.URL, 200, "Bearer user-2")
	if auth.apps != 1 || !slices.Equal(auth.logins, []string{"Bearer app-1", "Bearer app-1"}) {
		t.Errorf("%d app tokens fetched, logins with %q; want 1, and app-1 both times", auth.apps, auth.logins)
	}
	if strings.Contains(log.String(), "user-") {
		t.Errorf("a token got into the log:\n%s", log.String())
	}
}

func TestOAuth2TransportBelowOurAuthHasItsOwnHeader(t *testing.T) {
	auth, api := newAuthServer(t), newAPI(t, "Authorization", "X-Session")
	rt := &requestforge.AuthTransport{
		Source:  newPipeline(t, auth.steps()...),
		Attach:  []requestforge.Place{{Header: "X-Session"}},
		Origins: []string{api.URL},
		Base:    &oauth2.Transport{Source: static(&oauth2.Token{AccessToken: "gateway"})},
	}
	expect(t, rt, api.URL, 200, "Bearer gateway|user-1")

	// The refusal of our token is ours to deal with, and each send goes
	// through x/oauth2.
	api.revoke("user-1")
	expect(t, rt, api.URL, 200, "Bearer gateway|user-2")

	// The whole stack, too, takes an oauth2.Transport as its base.
	stack, err := requestforge.NewTransport(requestforge.Config{
		Base:    rt.Base,
		BaseURL: api.URL,
		Source:  rt.Source,
		Attach:  []requestforge.Place{{Header: "X-Session"}},
		Retry:   requestforge.RetryPolicy{RetryMax: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, stack, "/", 200, "Bearer gateway|user-2")
}

// With the same header on both, the one below, nearest to the wire, wins.
func TestOAuth2TransportBelowOurAuthReplacesTheSameHeader(t *testing.T) {
	api := newAPI(t, "Authorization")
	rt := &requestforge.AuthTransport{
		Source:  requestforge.StaticToken(&requestforge.Token{AccessToken: "ours"}),
		Origins: []string{api.URL},
		Base:    &oauth2.Transport{Source: static(&oauth2.Token{AccessToken: "theirs"})},
	}
	expect(t, rt, api.URL, 200, "Bearer theirs")
}

func TestOAuth2TransportAboveOurAuthIsTheCaller(t *testing.T) {
	for name, tt := range map[string]struct {
		rule requestforge.Conflict
		want string // "": an error
	}{
		"kept by default": {requestforge.KeepCaller, "Bearer theirs"},
		"replaced":        {requestforge.ReplaceCaller, "Bearer ours"},
		"rejected":        {requestforge.RejectCaller, ""},
	} {
		t.Run(name, func(t *testing.T) {
			api := newAPI(t, "Authorization")
			rt := &oauth2.Transport{
				Source: static(&oauth2.Token{AccessToken: "theirs"}),
				Base: &requestforge.AuthTransport{
					Source:     requestforge.StaticToken(&requestforge.Token{AccessToken: "ours"}),
					Origins:    []string{api.URL},
					OnConflict: tt.rule,
				},
			}
			if tt.want != "" {
				expect(t, rt, api.URL, 200, tt.want)
			} else if status, _, err := get(t, rt, api.URL); err == nil || len(api.seen) > 0 {
				t.Errorf("got %d, %v, and the API saw %q; want an error and no request", status, err, api.seen)
			}
		})
	}
}

func TestOAuth2SourceIsAStepLikeAnyOther(t *testing.T) {
	auth, api := newAuthServer(t), newAPI(t, "Authorization")
	pipeline := newPipeline(t, auth.steps()...)
	rt, err := requestforge.NewTransport(requestforge.Config{BaseURL: api.URL, Source: pipeline})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, rt, "/", 200, "Bearer user-1")

	api.revoke("Bearer user-1")
	expect(t, rt, "/", 200, "Bearer user-2")
	if auth.apps != 1 {
		t.Errorf("%d app tokens fetched after the user token was revoked, want 1", auth.apps)
	}

	if err := pipeline.InvalidateStep(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	expect(t, rt, "/", 200, "Bearer user-3")
	if want := []string{"Bearer app-1", "Bearer app-1", "Bearer app-2"}; !slices.Equal(auth.logins, want) {
		t.Errorf("logins with %q, want %q", auth.logins, want)
	}
}

func TestStepRefreshesThroughOAuth2Config(t *testing.T) {
	auth := newAuthServer(t)
	conf := oauth2.Config{ClientID: "client", Endpoint: oauth2.Endpoint{
		TokenURL:  auth.URL + "/token",
		AuthStyle: oauth2.AuthStyleInHeader,
	}}
	pipeline := newPipeline(t, requestforge.Step{
		Name:    "app",
		Fetcher: oauth2source.FetcherFrom(auth.app),
		Refresh: oauth2source.FetcherFrom(func(ctx context.Context, in requestforge.Input) (oauth2.TokenSource, error) {
			return conf.TokenSource(ctx, &oauth2.Token{RefreshToken: in.Previous.RefreshToken}), nil
		}),
	})
	for range 3 {
		if _, err := pipeline.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"client_credentials", "refresh_token refresh-1", "refresh_token refresh-2"}; !slices.Equal(auth.grants, want) {
		t.Errorf("the auth server was asked for %q, want %q", auth.grants, want)
	}
}

// What the documentation says of Fetcher and FetcherFrom.
func TestCachingSourceRepeatsTheRefusedToken(t *testing.T) {
	for _, tt := range []struct {
		name       string
		step       func(*authServer) requestforge.Fetcher
		wantStatus int
	}{
		{"Fetcher", func(s *authServer) requestforge.Fetcher {
			src, _ := s.app(t.Context(), requestforge.Input{})
			return oauth2source.Fetcher(src)
		}, 401},
		{"FetcherFrom", func(s *authServer) requestforge.Fetcher {
			return oauth2source.FetcherFrom(s.app)
		}, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			auth, api := newAuthServer(t), newAPI(t, "Authorization")
			rt := &requestforge.AuthTransport{
				Source:  newPipeline(t, requestforge.Step{Name: "app", Fetcher: tt.step(auth)}),
				Origins: []string{api.URL},
			}
			expect(t, rt, api.URL, 200, "Bearer app-1")
			api.revoke("Bearer app-1")
			if status, _, err := get(t, rt, api.URL); status != tt.wantStatus || err != nil {
				t.Errorf("got %d, %v; want %d", status, err, tt.wantStatus)
			}
		})
	}
}
