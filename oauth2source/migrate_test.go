// What docs/from-oauth2.md shows: a client before and after, each run against the same servers.

package oauth2source_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/oauth2source"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// oneGrant is a client of one grant.
func oneGrantBefore(ctx context.Context, authURL string) *http.Client {
	// readme:start grant-before
	conf := clientcredentials.Config{
		TokenURL:     authURL + "/token",
		ClientID:     "billing",
		ClientSecret: "s3cret",
		AuthStyle:    oauth2.AuthStyleInHeader,
		Scopes:       []string{"invoices:read"},
	}
	client := conf.Client(ctx)
	// readme:end grant-before
	return client
}

func oneGrantAfter(authURL, apiURL string) (*http.Client, error) {
	// readme:start grant-after
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{{
		Name: "app",
		Fetcher: oauth2source.ClientCredentials(oauth2source.Config{
			TokenURL:   authURL + "/token",
			ClientAuth: &requestforge.ClientAuth{ID: "billing", Secret: "s3cret"},
			Scopes:     []string{"invoices:read"},
		}),
	}}})
	if err != nil {
		return nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: apiURL, Source: tokens})
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	// readme:end grant-after
	return client, nil
}

// readme:start chain-before

// userSource logs a user in with the application's token.
type userSource struct {
	app oauth2.TokenSource
	url string
}

func (s *userSource) Token() (*oauth2.Token, error) {
	app, err := s.app.Token()
	if err != nil {
		return nil, err
	}
	return login(s.url, app) // no context: nobody who waits can leave
}

func chainBefore(app oauth2.TokenSource, authURL string) *http.Client {
	users := oauth2.ReuseTokenSource(nil, &userSource{app, authURL + "/user"})
	return &http.Client{Transport: &oauth2.Transport{Source: users}}
}

// readme:end chain-before

func login(to string, app *oauth2.Token) (*oauth2.Token, error) {
	req, err := http.NewRequest(http.MethodPost, to, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-App-Token", app.AccessToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	token, _, _ := strings.Cut(strings.TrimPrefix(string(body), `{"access_token":"`), `"`)
	return &oauth2.Token{AccessToken: token}, err
}

func chainAfter(conf clientcredentials.Config, authURL, apiURL string) (*http.Client, error) {
	// readme:start chain-after
	tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: []requestforge.Step{
		// What there is of x/oauth2 can stay: FetcherFrom makes a source a step.
		{Name: "app", Fetcher: oauth2source.FetcherFrom(func(ctx context.Context, _ requestforge.Input) (oauth2.TokenSource, error) {
			return conf.TokenSource(ctx), nil
		})},
		{Name: "user", DependsOn: []string{"app"}, Fetcher: &requestforge.HTTPFetcher{
			URL:        authURL + "/user",
			HeaderFrom: map[string]string{"X-App-Token": "app"},
		}},
	}})
	if err != nil {
		return nil, err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: apiURL, Source: tokens})
	// readme:end chain-after
	return &http.Client{Transport: transport}, err
}

func retryBefore(transport http.RoundTripper, logger *slog.Logger) *http.Client {
	// readme:start retry-before
	retrying := retryablehttp.NewClient()
	retrying.RetryMax = 3
	retrying.RetryWaitMin = time.Second
	retrying.RetryWaitMax = 30 * time.Second
	retrying.Logger = logger
	retrying.HTTPClient.Transport = transport
	client := retrying.StandardClient()
	// readme:end retry-before
	return client
}

func retryAfter(tokens requestforge.TokenSource, apiURL string, logger *slog.Logger) (*http.Client, error) {
	// readme:start retry-after
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: apiURL,
		Source:  tokens,
		Retry:   requestforge.ExponentialBackoff(3, time.Second, 30*time.Second),
		Logger:  logger,
	})
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: transport}
	// readme:end retry-after
	return client, nil
}

func retryPolicy() requestforge.RetryPolicy {
	// readme:start policy
	policy := requestforge.RetryPolicy{
		RetryMax:   3,
		CheckRetry: retryablehttp.ErrorPropagatedRetryPolicy, // as it is
		Backoff:    retryablehttp.LinearJitterBackoff,        // as it is
	}
	// readme:end policy
	return policy
}

// migrated is the servers of the pairs.
func migrated(t *testing.T, apps ...authtest.Step) *authtest.Server {
	t.Helper()
	app := authtest.Step{
		Name: "app", Path: "/token", ClientID: "billing", ClientSecret: "s3cret", TTL: time.Hour,
		Form: map[string]string{"grant_type": "client_credentials"},
	}
	srv := authtest.NewServer(authtest.Config{Steps: append([]authtest.Step{app}, apps...)})
	t.Cleanup(srv.Close)
	return srv
}

// statuses are those of two requests, between which the leaf's token is revoked.
func statuses(t *testing.T, srv *authtest.Server, leaf string, client *http.Client) (list [2]int) {
	t.Helper()
	for i := range list {
		resp, err := client.Get(srv.URL + "/invoices")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		list[i] = resp.StatusCode
		srv.Revoke(leaf)
	}
	return list
}

// Before, a revoked token is used until it expires. After, it is replaced, and the request replayed.
func TestMigratedClients(t *testing.T) {
	before, after := [2]int{200, 401}, [2]int{200, 200}
	t.Run("one grant", func(t *testing.T) {
		srv := migrated(t)
		if got := statuses(t, srv, "app", oneGrantBefore(t.Context(), srv.URL)); got != before {
			t.Errorf("before: %v, want %v", got, before)
		}
		client, err := oneGrantAfter(srv.URL, srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		if got := statuses(t, srv, "app", client); got != after {
			t.Errorf("after: %v, want %v", got, after)
		}
	})
	t.Run("a chain", func(t *testing.T) {
		srv := migrated(t, authtest.Step{Name: "user", Parents: map[string]string{"app": "X-App-Token"}, TTL: time.Hour})
		conf := clientcredentials.Config{TokenURL: srv.URL + "/token", ClientID: "billing", ClientSecret: "s3cret", AuthStyle: oauth2.AuthStyleInHeader}
		if got := statuses(t, srv, "user", chainBefore(conf.TokenSource(t.Context()), srv.URL)); got != before {
			t.Errorf("before: %v, want %v", got, before)
		}
		client, err := chainAfter(conf, srv.URL, srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		if got := statuses(t, srv, "user", client); got != after {
			t.Errorf("after: %v, want %v", got, after)
		}
	})
	t.Run("retries", func(t *testing.T) {
		srv := migrated(t)
		quiet := slog.New(slog.DiscardHandler)
		tokens, err := requestforge.NewPipeline(requestforge.PipelineConfig{Steps: srv.Steps()})
		if err != nil {
			t.Fatal(err)
		}
		client, err := retryAfter(tokens, srv.URL, quiet)
		if err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct {
			client *http.Client
			posts  int // that arrive
		}{
			"before": {retryBefore(&oauth2.Transport{Source: oauth2source.TokenSource(t.Context(), tokens)}, quiet), 2},
			"after":  {client, 1},
		} {
			sent := srv.Stats().API.Attempted
			srv.FailAPI(authtest.Fault{Status: 500, Times: 1})
			resp, err := tt.client.Post(srv.URL+"/orders", "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := srv.Stats().API.Attempted - sent; got != tt.posts {
				t.Errorf("%s: a POST that met a 500 was sent %d times, want %d", name, got, tt.posts)
			}
		}
	})
	t.Run("a policy", func(t *testing.T) {
		if _, err := requestforge.NewTransport(requestforge.Config{Retry: retryPolicy()}); err != nil {
			t.Error(err)
		}
	})
}
