// A login that is the same at each server, as far as the servers let it be.

package demo

import (
	"net/http"
	"slices"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/interop/servers"
	"github.com/requestforge/requestforge/oauth2source"
)

// Steps are a login with a password, or by way of a token exchange at a server
// that has no passwords. Whichever it is, Refresh spares it next time.
func Steps(s *servers.Server, client *http.Client) []requestforge.Step {
	id, secret := Owner(s)
	user := requestforge.Step{
		Name: "user",
		// The members of a fleet may reach the server by another URL each.
		Identity: s.Username + " by " + id,
		Refresh: oauth2source.Refresh(oauth2source.Config{
			TokenURL:   s.TokenURL,
			ClientAuth: &requestforge.ClientAuth{ID: id, Secret: secret},
			Client:     client,
		}),
	}
	app := oauth2source.Config{
		TokenURL:   s.TokenURL,
		ClientAuth: &requestforge.ClientAuth{ID: s.ClientID, Secret: s.ClientSecret},
		Scopes:     s.Scopes,
		Client:     client,
	}
	if s.Username != "" {
		app.Scopes = slices.Concat(s.Scopes, s.RefreshScopes)
		user.Fetcher = oauth2source.Password(app, s.Username, s.Password)
		return []requestforge.Step{user}
	}
	params := make(map[string][]string)
	for name, value := range s.Exchange.Params {
		params[name] = []string{value}
	}
	user.DependsOn = []string{"app"}
	user.Fetcher = oauth2source.TokenExchange(oauth2source.Config{
		TokenURL:   s.TokenURL,
		ClientAuth: &requestforge.ClientAuth{ID: id, Secret: secret},
		Scopes:     slices.Concat(s.Exchange.Scopes, s.RefreshScopes),
		Params:     params,
		Client:     client,
	}, oauth2source.Exchange{
		Subject:     oauth2source.FromStep("app"),
		SubjectType: s.Exchange.SubjectTokenType,
	})
	return []requestforge.Step{user, {Name: "app", Identity: s.ClientID, Fetcher: oauth2source.ClientCredentials(app)}}
}

// Owner returns the client that the user's tokens are issued to.
func Owner(s *servers.Server) (id, secret string) {
	if s.Username != "" {
		return s.ClientID, s.ClientSecret
	}
	return s.Exchange.ClientID, s.Exchange.ClientSecret
}

// Logins is what a login looks like on the wire.
func Logins(s *servers.Server) []string {
	if s.Username != "" {
		return []string{"password ok"}
	}
	return []string{"client_credentials ok", "token-exchange ok"}
}
