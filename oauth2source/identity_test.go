package oauth2source_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
)

func TestGrantsHaveTheIdentityOfWhoTheyAreFor(t *testing.T) {
	cfg := func(change func(*oauth2source.Config)) oauth2source.Config {
		c := oauth2source.Config{TokenURL: "https://auth.example.com/token", ClientAuth: &requestforge.ClientAuth{ID: "c", Secret: "s"}, Scopes: []string{"read"}}
		change(&c)
		return c
	}
	as := func(*oauth2source.Config) {}
	_, key, _ := ed25519.GenerateKey(nil)
	_, other, _ := ed25519.GenerateKey(nil)
	function := oauth2source.AssertionFunc(func(context.Context, requestforge.Input) (string, error) { return "", nil })
	who := func(g *oauth2source.Grant) string { return g.Identity() }

	seen := map[string]string{}
	for name, g := range map[string]*oauth2source.Grant{
		"client":          oauth2source.ClientCredentials(cfg(as)),
		"another client":  oauth2source.ClientCredentials(cfg(func(c *oauth2source.Config) { c.ClientAuth = &requestforge.ClientAuth{ID: "d", Secret: "s"} })),
		"another scope":   oauth2source.ClientCredentials(cfg(func(c *oauth2source.Config) { c.Scopes = []string{"read", "write"} })),
		"another URL":     oauth2source.ClientCredentials(cfg(func(c *oauth2source.Config) { c.TokenURL = "https://auth.example.org/token" })),
		"an audience":     oauth2source.ClientCredentials(cfg(func(c *oauth2source.Config) { c.Params = url.Values{"audience": {"api"}} })),
		"ann":             oauth2source.Password(cfg(as), "ann", "pw"),
		"bob":             oauth2source.Password(cfg(as), "bob", "pw"),
		"about ann":       oauth2source.JWTBearer(cfg(as), &oauth2source.JWT{Key: key, Subject: "ann"}),
		"about bob":       oauth2source.JWTBearer(cfg(as), &oauth2source.JWT{Key: key, Subject: "bob"}),
		"exchanged":       oauth2source.TokenExchange(cfg(as), oauth2source.Exchange{Subject: oauth2source.FromStep("app")}),
		"for an audience": oauth2source.TokenExchange(cfg(as), oauth2source.Exchange{Subject: oauth2source.FromStep("app"), Audience: []string{"api"}}),
		"of another step": oauth2source.TokenExchange(cfg(as), oauth2source.Exchange{Subject: oauth2source.FromStep("user")}),
	} {
		id := who(g)
		if id == "" {
			t.Errorf("%s: no identity", name)
		}
		if seen[id] != "" {
			t.Errorf("%s has the identity of %s", name, seen[id])
		}
		seen[id] = name
	}

	for name, pair := range map[string][2]*oauth2source.Grant{
		"secret":   {oauth2source.ClientCredentials(cfg(as)), oauth2source.ClientCredentials(cfg(func(c *oauth2source.Config) { c.ClientAuth = &requestforge.ClientAuth{ID: "c", Secret: "new"} }))},
		"password": {oauth2source.Password(cfg(as), "ann", "pw"), oauth2source.Password(cfg(as), "ann", "new")},
		"key":      {oauth2source.JWTBearer(cfg(as), &oauth2source.JWT{Key: key, Subject: "ann", KeyID: "1"}), oauth2source.JWTBearer(cfg(as), &oauth2source.JWT{Key: other, Subject: "ann", KeyID: "2"})},
	} {
		if who(pair[0]) != who(pair[1]) {
			t.Errorf("a rotated %s is another identity", name)
		}
	}
	if who(oauth2source.JWTBearer(cfg(as), function)) != "" || who(oauth2source.TokenExchange(cfg(as), oauth2source.Exchange{Subject: function})) != "" {
		t.Error("a grant for whoever a function names says who that is")
	}
	if who(nil) != "" {
		t.Error("no grant has an identity")
	}
}

func TestCorrectedSecretOfAGrantEndsAPeersCoolDown(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if _, secret, _ := r.BasicAuth(); secret != "right" {
			w.WriteHeader(401)
			io.WriteString(w, `{"error":"invalid_client"}`)
			return
		}
		io.WriteString(w, `{"access_token":"t","token_type":"Bearer"}`)
	}))
	defer srv.Close()
	storage := &sharing{MemoryStorage: requestforge.NewMemoryStorage(), saved: make(chan struct{}, 10)}
	token := func(secret string) error {
		p, err := requestforge.NewPipeline(requestforge.PipelineConfig{Storage: storage, Steps: []requestforge.Step{{
			Name: "app", Fetcher: oauth2source.ClientCredentials(oauth2source.Config{TokenURL: srv.URL, ClientAuth: &requestforge.ClientAuth{ID: "c", Secret: secret}}),
		}}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Token(t.Context())
		return err
	}
	if token("wrong") == nil {
		t.Fatal("no error")
	}
	<-storage.saved
	if err := token("wrong"); err == nil || fmt.Sprint(err) == "" {
		t.Error("no failure was shared")
	}
	if err := token("right"); err != nil {
		t.Errorf("with the right secret: %v", err)
	}
}

// sharing is a storage that shares one failure.
type sharing struct {
	*requestforge.MemoryStorage
	mu    sync.Mutex
	f     requestforge.Failure
	saved chan struct{}
}

func (s *sharing) LoadFailure(context.Context, string) (requestforge.Failure, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.f, nil
}

func (s *sharing) SaveFailure(_ context.Context, _ string, f requestforge.Failure) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.f = f
	s.saved <- struct{}{}
	return nil
}
