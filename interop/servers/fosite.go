// github.com/ory/fosite, the engine of Hydra, with its in-memory store. It is
// the strictest of them: a refresh token used twice ends the whole grant, and
// so does a revocation, even of just the access token.

package servers

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/storage"
)

func init() { starters["fosite"] = startFosite }

func startFosite(ctx context.Context) (*Server, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Name:     "fosite",
		ClientID: "shop", ClientSecret: "made-up-client-secret",
		Username: "ann", Password: "made-up-password",
		Scopes: []string{"read"}, RefreshScopes: []string{"offline"},
		Key: key, KeyID: "key-1", Subject: "shop",
		KillsFamily:    true,
		RevokesRefresh: true,
	}
	s.close, err = serve(func(origin string) (http.Handler, error) {
		s.Issuer = origin
		s.TokenURL = origin + "/token"
		s.RevokeURL = origin + "/revoke"
		s.ResourceURL = origin + "/api"
		s.Audience = s.TokenURL
		return fositeHandler(ctx, s, key)
	})
	return s, err
}

func fositeHandler(ctx context.Context, s *Server, key *rsa.PrivateKey) (http.Handler, error) {
	config := &fosite.Config{
		AccessTokenLifespan:  time.Hour,
		RefreshTokenLifespan: 24 * time.Hour,
		TokenURL:             s.TokenURL,
		GlobalSecret:         make([]byte, 32),
		HashCost:             4, // bcrypt's least: the secret is no secret
	}
	config.ClientSecretsHasher = &fosite.BCrypt{Config: config} // made on first use otherwise, in a race
	rand.Read(config.GlobalSecret)
	secret, err := config.ClientSecretsHasher.Hash(ctx, []byte(s.ClientSecret))
	if err != nil {
		return nil, err
	}
	scopes := append(s.Scopes, s.RefreshScopes...)

	store := storage.NewMemoryStore()
	store.Clients[s.ClientID] = &fosite.DefaultClient{
		ID:     s.ClientID,
		Secret: secret,
		Scopes: scopes,
		GrantTypes: fosite.Arguments{"client_credentials", "password", "refresh_token",
			"urn:ietf:params:oauth:grant-type:jwt-bearer"},
	}
	store.Users[s.Username] = storage.MemoryUserRelation{Username: s.Username, Password: s.Password}
	store.IssuerPublicKeys[s.Subject] = storage.IssuerPublicKeys{
		Issuer: s.Subject,
		KeysBySub: map[string]storage.SubjectPublicKeys{s.Subject: {
			Subject: s.Subject,
			Keys: map[string]storage.PublicKeyScopes{s.KeyID: {
				Key:    &jose.JSONWebKey{KeyID: s.KeyID, Use: "sig", Key: &key.PublicKey},
				Scopes: scopes,
			}},
		}},
	}
	provider := compose.ComposeAllEnabled(config, store, key)

	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		req, err := provider.NewAccessRequest(ctx, r, new(fosite.DefaultSession))
		if err != nil {
			provider.WriteAccessError(ctx, w, req, err)
			return
		}
		for _, scope := range req.GetRequestedScopes() {
			req.GrantScope(scope) // the handlers of the grants have checked them
		}
		resp, err := provider.NewAccessResponse(ctx, req)
		if err != nil {
			provider.WriteAccessError(ctx, w, req, err)
			return
		}
		provider.WriteAccessResponse(ctx, w, req, resp)
	})
	mux.HandleFunc("/revoke", func(w http.ResponseWriter, r *http.Request) {
		provider.WriteRevocationResponse(r.Context(), w, provider.NewRevocationRequest(r.Context(), r))
	})
	mux.HandleFunc("/api", guarded(func(r *http.Request) bool {
		token := fosite.AccessTokenFromRequest(r)
		_, _, err := provider.IntrospectToken(r.Context(), token, fosite.AccessToken, new(fosite.DefaultSession), s.Scopes...)
		return err == nil
	}))
	return oneByOne(mux), nil
}
