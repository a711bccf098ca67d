//go:build !race

package filestorage_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
)

type bare struct{ resp http.Response }

func (b *bare) RoundTrip(*http.Request) (*http.Response, error) {
	b.resp = http.Response{StatusCode: 200, Body: http.NoBody}
	return &b.resp, nil
}

// A live token costs what it does over a storage in memory: nothing for the
// token itself, and what copying a request costs on its way.
func TestAllocHotPathOverThisStorage(t *testing.T) {
	store, _ := fresh(t)
	p, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		KeyPrefix: "test",
		Storage:   store,
		Steps: []requestforge.Step{{Name: "user", Identity: "test", Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
			return &requestforge.Token{AccessToken: "t", Expiry: time.Now().Add(time.Hour)}, nil
		})}},
		StorageTimeout: 5 * time.Second,
	})
	require.NoError(t, err)
	defer p.Close()
	_, err = p.Token(t.Context())
	require.NoError(t, err)
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(10_000, func() {
		if _, err := p.Token(ctx); err != nil {
			t.Fatal(err)
		}
	}))

	rt, err := requestforge.NewTransport(requestforge.Config{
		Base: &bare{}, BaseURL: "https://api.example.com", Source: p, Retry: requestforge.RetryPolicy{RetryMax: 3},
	})
	require.NoError(t, err)
	req, err := http.NewRequest("GET", "https://api.example.com/v1/users", nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "application/json")
	require.LessOrEqual(t, testing.AllocsPerRun(10_000, func() {
		if _, err := rt.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
	}), 3.0)
}
