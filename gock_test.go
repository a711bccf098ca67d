// Flows with every answer mocked by gock, as in users' unit tests. gock's
// registry and the http.DefaultTransport that it replaces are process-wide, so
// none of these tests may be parallel.

package requestforge_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2non/gock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
)

// gockSteps is a login of two steps whose fetchers name no client.
func gockSteps() []requestforge.Step {
	return []requestforge.Step{
		{Name: "app", Fetcher: &requestforge.HTTPFetcher{
			URL:  "https://auth.example.com/app/token",
			JSON: map[string]any{"client_id": "test"},
		}},
		{Name: "user", DependsOn: []string{"app"}, Fetcher: &requestforge.HTTPFetcher{
			URL:        "https://auth.example.com/user/token",
			HeaderFrom: map[string]string{"X-App-Token": "app"},
			JSON:       map[string]any{"username": "test"},
		}},
	}
}

// gockLogin mocks both steps, for as many logins as are asked for.
func gockLogin(times int) {
	gock.New("https://auth.example.com").Post("/app/token").Times(times).
		JSON(map[string]string{"client_id": "test"}).
		Reply(200).JSON(map[string]any{"access_token": "app-token-123", "expires_in": 3600})
	gock.New("https://auth.example.com").Post("/user/token").Times(times).
		MatchHeader("X-App-Token", "^app-token-123$").
		JSON(map[string]string{"username": "test"}).
		Reply(200).JSON(map[string]any{"access_token": "user-token-456", "expires_in": 1800})
}

// gockDone ends a test: all mocks were used, and nothing else was asked for.
func gockDone(t *testing.T) {
	t.Helper()
	assert.True(t, gock.IsDone(), "%d mocks weren't used", len(gock.Pending()))
	assert.False(t, gock.HasUnmatchedRequest(), "%d requests had no mock", len(gock.GetUnmatchedRequests()))
	gock.OffAll()
}

func TestGockTwoSteps(t *testing.T) {
	defer gockDone(t)
	gockLogin(1)

	tokens := pipeline(t, requestforge.PipelineConfig{Steps: gockSteps()})
	for range 3 {
		assert.Equal(t, "user-token-456", mustToken(t, tokens).AccessToken)
	}
}

// Everything is built before gock is there, and with nil for every Base and
// Client: http.DefaultTransport is looked up at each request.
func TestGockInterceptsWhatWasBuiltBefore(t *testing.T) {
	tokens := pipeline(t, requestforge.PipelineConfig{Steps: gockSteps()})
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: "https://api.example.com/v1",
		Source:  tokens,
		Retry:   requestforge.RetryPolicy{RetryMax: 1},
	})
	require.NoError(t, err)
	client := &http.Client{Transport: transport}

	before := http.DefaultTransport
	defer func() { assert.Same(t, before, http.DefaultTransport, "put back by gock") }()
	defer gockDone(t)
	gockLogin(1)
	gock.New("https://api.example.com").Get("/v1/user/profile").
		MatchHeader("Authorization", "^Bearer user-token-456$").
		Reply(200).JSON(map[string]string{"name": "Ann"})

	resp, err := client.Get("/user/profile")
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.JSONEq(t, `{"name":"Ann"}`, string(body))
}

func TestGockRefusedTokenIsReplacedAndTheRequestReplayed(t *testing.T) {
	defer gockDone(t)
	gockLogin(1)
	gock.New("https://auth.example.com").Post("/user/token").Reply(200).JSON(map[string]any{"access_token": "user-token-789"})
	api := func() *gock.Request {
		return gock.New("https://api.example.com").Post("/orders").JSON(map[string]int{"item": 7})
	}
	api().MatchHeader("Authorization", "456$").Reply(201)
	api().MatchHeader("Authorization", "456$").Reply(401)
	api().MatchHeader("Authorization", "789$").Reply(201)

	client := &http.Client{Transport: &requestforge.AuthTransport{
		Source:  pipeline(t, requestforge.PipelineConfig{Steps: gockSteps()}),
		Origins: []string{"https://api.example.com"},
	}}
	for range 2 {
		resp, err := client.Post("https://api.example.com/orders", "application/json", strings.NewReader(`{"item":7}`))
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, 201, resp.StatusCode)
	}
}

func TestGockFailuresOfTheAuthServer(t *testing.T) {
	t.Run("that pass are tried again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			defer gockDone(t)
			gock.New("https://auth.example.com").Post("/app/token").Reply(503).AddHeader("Retry-After", "2")
			gock.New("https://auth.example.com").Post("/app/token").ReplyError(io.ErrUnexpectedEOF)
			gockLogin(1)

			begun := time.Now()
			tokens := pipeline(t, requestforge.PipelineConfig{Steps: gockSteps()})
			assert.Equal(t, "user-token-456", mustToken(t, tokens).AccessToken)
			assert.GreaterOrEqual(t, time.Since(begun), 2*time.Second)
		})
	})
	t.Run("that don't are sent once", func(t *testing.T) {
		defer gockDone(t)
		gock.New("https://auth.example.com").Post("/app/token").
			Reply(401).JSON(map[string]string{"error": "invalid_client", "error_description": "no such client: test"})

		tokens := pipeline(t, requestforge.PipelineConfig{Steps: gockSteps()})
		for range 3 {
			_, err := tokens.Token(t.Context())
			var auth *requestforge.AuthError
			require.ErrorAs(t, err, &auth)
			assert.Equal(t, "app", auth.Step)
			assert.Equal(t, "invalid_client", auth.Code)
			assert.True(t, auth.Permanent)
			assert.NotContains(t, err.Error(), "no such client")
		}
	})
}
