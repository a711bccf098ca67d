// Two logins, each with an auth server and an API of package authtest, and visitors who keep
// the API busy.

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// world is a pipeline, its servers and its client.
type world struct {
	srv    *authtest.Server
	tokens *requestforge.Pipeline
	client *http.Client
	as     func(ctx context.Context) context.Context // the tenant of the next request

	mu        sync.Mutex
	suspended map[string]bool // tenants
}

func (w *world) close() {
	w.tokens.Close()
	w.client.CloseIdleConnections()
	w.srv.Close()
}

// visit sends a few requests a second and ignores the answers: the page shows the tokens.
func (w *world) visit(ctx context.Context, number int) {
	every := time.NewTicker(time.Duration(250+50*number) * time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		ctx, cancel := context.WithTimeout(w.as(ctx), 5*time.Second)
		if req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.srv.URL+"/orders/", nil); err == nil {
			if resp, err := w.client.Do(req); err == nil {
				resp.Body.Close()
			}
		}
		cancel()
	}
}

// open makes the pipeline and the client of a world.
func (w *world) open(cfg requestforge.PipelineConfig) error {
	var err error
	if w.tokens, err = requestforge.NewPipeline(cfg); err != nil {
		return err
	}
	transport, err := requestforge.NewTransport(requestforge.Config{BaseURL: w.srv.URL, Source: w.tokens})
	w.client = &http.Client{Transport: transport}
	return err
}

// lose revokes a step's tokens at the server and in the pipeline, as after a leak.
func (w *world) lose(step string) {
	w.srv.Revoke(step)
	_ = w.tokens.InvalidateStep(context.Background(), step) // an error would be the storage's, which is in memory
}

// newShop is a login of five steps, with a diamond: device -> app and region -> user -> orders.
func newShop() (*world, error) {
	const secret = "a-made-up-client-secret"
	w := &world{as: func(ctx context.Context) context.Context { return ctx }}
	w.srv = authtest.NewServer(authtest.Config{
		Cascade: true,
		Steps: []authtest.Step{
			{Name: "device", TTL: 20 * time.Minute},
			{Name: "app", TTL: 3 * time.Minute, Parents: map[string]string{"device": "Authorization"}, ClientID: "shop", ClientSecret: secret, ClientAuth: authtest.BodyClientAuth},
			{Name: "region", TTL: 2 * time.Minute, Parents: map[string]string{"device": "Authorization"}},
			{Name: "user", TTL: 75 * time.Second, Parents: map[string]string{"app": "X-App-Token", "region": "X-Region-Token"}, RefreshTokens: true, Rotate: true},
			{Name: "orders", TTL: 40 * time.Second, Parents: map[string]string{"user": "Authorization"}},
		},
	})
	return w, w.open(requestforge.PipelineConfig{
		Steps:        w.srv.Steps(),
		FetchTimeout: 10 * time.Second,
		MaxCoolDown:  8 * time.Second,
		RefreshAhead: 15 * time.Second,
	})
}

const tenants = 60

type tenantKey struct{}

// newTenants is a login of which two steps are each tenant's own: app -> tenant -> files.
func newTenants() (*world, error) {
	w := &world{suspended: make(map[string]bool)}
	w.as = func(ctx context.Context) context.Context {
		return context.WithValue(ctx, tenantKey{}, fmt.Sprintf("tenant-%02d.example.com", rand.IntN(tenants)))
	}
	w.srv = authtest.NewServer(authtest.Config{
		Cascade: true,
		Steps: []authtest.Step{
			{Name: "app", TTL: 2 * time.Minute},
			{Name: "tenant", TTL: 90 * time.Second, Parents: map[string]string{"app": "Authorization"}},
			{Name: "files", TTL: 45 * time.Second, Parents: map[string]string{"tenant": "Authorization"}},
		},
	})
	steps := w.srv.Steps()
	for i := range steps {
		if steps[i].Name == "tenant" {
			steps[i].PerSubject = true
			steps[i].Fetcher = w.unlessSuspended(steps[i].Fetcher)
		}
	}
	return w, w.open(requestforge.PipelineConfig{
		Steps: steps,
		Subject: func(ctx context.Context) (string, error) {
			if tenant, ok := ctx.Value(tenantKey{}).(string); ok {
				return tenant, nil
			}
			return "", errors.New("the request is for no tenant")
		},
		SubjectLabel: func(subject string) string {
			label, _, _ := strings.Cut(subject, ".")
			return label
		},
		MaxSubjects: tenants * 3 / 4,
		MaxCoolDown: 15 * time.Second,
	})
}

// unlessSuspended is an auth server that refuses suspended tenants.
func (w *world) unlessSuspended(f requestforge.Fetcher) requestforge.Fetcher {
	return requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
		w.mu.Lock()
		refused := w.suspended[in.Subject]
		w.mu.Unlock()
		if refused {
			return nil, &requestforge.AuthError{StatusCode: http.StatusForbidden, Code: "access_denied", Permanent: true}
		}
		return f.Fetch(ctx, in)
	})
}

// suspend has the auth server refuse the tenants with these numbers, and no other tenant.
func (w *world) suspend(numbers ...int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.suspended)
	for _, n := range numbers {
		w.suspended[fmt.Sprintf("tenant-%02d.example.com", n)] = true
	}
	if len(numbers) > 0 {
		w.srv.Revoke("tenant")
	}
}
