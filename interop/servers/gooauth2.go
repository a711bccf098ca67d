// github.com/go-oauth2/oauth2: a small server library without much of a memory.
// A refresh token that was used once is refused, and nothing more happens.

package servers

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"

	"github.com/go-oauth2/oauth2/v4"
	oauth2errors "github.com/go-oauth2/oauth2/v4/errors"
	"github.com/go-oauth2/oauth2/v4/manage"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/go-oauth2/oauth2/v4/server"
	"github.com/go-oauth2/oauth2/v4/store"
)

func init() { starters["go-oauth2"] = startGoOAuth2 }

func startGoOAuth2(context.Context) (*Server, error) {
	s := &Server{
		Name:     "go-oauth2",
		ClientID: "shop", ClientSecret: "made-up-client-secret",
		Username: "ann", Password: "made-up-password",
		Scopes: []string{"read"},
	}
	stop, err := serve(func(origin string) (http.Handler, error) {
		s.Issuer = origin
		s.TokenURL = origin + "/token"
		s.RevokeURL = origin + "/revoke"
		s.ResourceURL = origin + "/api"
		return goOAuth2Handler(s)
	})
	s.close = stop
	return s, err
}

func goOAuth2Handler(s *Server) (http.Handler, error) {
	tokens, err := store.NewMemoryTokenStore()
	if err != nil {
		return nil, err
	}
	clients := store.NewClientStore()
	if err := clients.Set(s.ClientID, &models.Client{ID: s.ClientID, Secret: s.ClientSecret}); err != nil {
		return nil, err
	}
	manager := manage.NewDefaultManager()
	manager.MapTokenStorage(tokens)
	manager.MapClientStorage(clients)

	srv := server.NewDefaultServer(manager)
	srv.SetAllowedGrantType(oauth2.ClientCredentials, oauth2.PasswordCredentials, oauth2.Refreshing)
	srv.SetPasswordAuthorizationHandler(func(_ context.Context, _, username, password string) (string, error) {
		if username != s.Username || password != s.Password {
			return "", oauth2errors.ErrInvalidGrant
		}
		return username, nil
	})

	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		srv.HandleTokenRequest(w, r) // its error has been answered
	})
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		goOAuth2Revoke(s, manager, w, r)
	})
	mux.HandleFunc("/api", guarded(func(r *http.Request) bool {
		_, err := srv.ValidationBearerToken(r)
		return err == nil
	}))
	return mux, nil
}

// goOAuth2Revoke is RFC 7009, which the library leaves to its users: a client
// takes a token of its own back. An unknown token is as good as revoked.
func goOAuth2Revoke(s *Server, manager oauth2.Manager, w http.ResponseWriter, r *http.Request) {
	id, secret, ok := r.BasicAuth()
	if !ok || id != s.ClientID || subtle.ConstantTimeCompare([]byte(secret), []byte(s.ClientSecret)) == 0 {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	ctx, token := r.Context(), r.PostFormValue("token")
	var err error
	if found, _ := manager.LoadAccessToken(ctx, token); found != nil {
		err = manager.RemoveAccessToken(ctx, token)
	} else if found, _ := manager.LoadRefreshToken(ctx, token); found != nil {
		// RFC 7009 §2.1: the access token that came with it goes, too.
		err = errors.Join(manager.RemoveRefreshToken(ctx, token), manager.RemoveAccessToken(ctx, found.GetAccess()))
	}
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}
