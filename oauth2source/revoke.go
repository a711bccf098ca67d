// Token revocation (RFC 7009): the end of a login at the server that issued its tokens. The
// pipeline decides when a token is revoked. The client's authentication is in grant.go, the
// limits of a request's targets are in grant_request.go.

package oauth2source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/requestforge/requestforge"
)

// Revoke returns a function for Step.Revoke, which revokes the tokens of the step at the
// auth server when the tokens are no longer needed (RFC 7009). revokeURL is the server's
// revocation endpoint, an https URL or a URL of this machine, like Config.TokenURL:
//
//	requestforge.Step{
//		Name:    "user",
//		Fetcher: oauth2source.Password(cfg, "gopher", "correct horse"),
//		Refresh: oauth2source.Refresh(cfg),
//		Revoke:  oauth2source.Revoke(cfg, "https://auth.example.com/revoke"),
//	}
//
// cfg names the client that the tokens were issued to, and may be the Config of the step's
// grant: the client authenticates in the same way, a public client by its id alone. Params
// are sent along. Scopes and Extra are not used. TokenURL is used only for the audience of
// a JWT, and may be empty otherwise.
//
// The function revokes the refresh token first, if there is a refresh token, and then the
// access token, each with a request of its own: a server may revoke both tokens with either
// request (§2.1), and answers 200 for a token that was revoked already (§2.2). The body of
// a 200 doesn't matter, unless the body is an HTML page: then a portal or a login form has
// answered, and no token is revoked.
//
// Once one of the two tokens is revoked, an answer of unsupported_token_type for the other
// token is no failure. The same goes for invalid_token and invalid_grant, which some
// servers send where RFC 7009 demands a 200. Any other refusal is a failure, and so is a
// network error: the function returns a [*requestforge.AuthError] that shows no contents of
// the request or the response. If the access token would meet the same failure, the
// function ends before sending the access token: after a failure of the network or of the
// client's authentication, and after 429 and 5xx.
//
// The AuthError is Temporary if the network failed or the server couldn't answer. After a
// 503 the token may still be alive, and RetryAfter says when to try again (§2.2.1).
// Revoking a token twice does no harm. The first call reports all mistakes in cfg and
// revokeURL as a Permanent AuthError, and sends no request.
//
// The function keeps no token, and several goroutines may call the function at once. ctx
// ends the requests, which are otherwise bounded only by the Timeout of Config.Client.
func Revoke(cfg Config, revokeURL string) func(ctx context.Context, in requestforge.Input) error {
	g := newClient("Revoke", cfg)
	g.url("revokeURL", revokeURL)
	if cfg.TokenURL != "" {
		g.url("Config.TokenURL", cfg.TokenURL)
	}
	if cfg.ClientAuth == nil && cfg.ClientAssertion == nil {
		g.mistake("Config.ClientAuth is missing: the server must know whose token is revoked, a public client's by its id alone (RFC 7009 §2.1)")
	}
	for _, name := range []string{"token", "token_type_hint"} {
		if _, ok := cfg.Params[name]; ok {
			g.mistake("Config.Params has %q, which Revoke sets itself", name)
		}
	}
	return func(ctx context.Context, in requestforge.Input) error {
		switch err := g.mistaken(); {
		case err != nil:
			return &requestforge.AuthError{Permanent: true, Unsent: true, Err: err}
		case in.Previous == nil || in.Previous.AccessToken == "" && in.Previous.RefreshToken == "":
			return unsent(errors.New("there is no token to revoke; Revoke belongs into Step.Revoke"))
		}
		return g.revoke(g.reread(ctx), in, revokeURL) // both tokens with one secret
	}
}

// revoke revokes both tokens of in.Previous, as far as there are two.
func (g *Grant) revoke(ctx context.Context, in requestforge.Input, revokeURL string) error {
	var failed *requestforge.AuthError
	var gone bool // one of the two
	for _, t := range []struct{ hint, token string }{
		{"refresh_token", in.Previous.RefreshToken},
		{"access_token", in.Previous.AccessToken},
	} {
		if t.token == "" {
			continue
		}
		err := g.revokeOne(ctx, in, revokeURL, t.hint, t.token)
		switch {
		case err == nil:
			gone = true
		case !concernsToken(err):
			return err
		case failed == nil || rejectsToken(failed) && !rejectsToken(err):
			failed = err
		}
	}
	if failed == nil || gone && rejectsToken(failed) {
		return nil
	}
	return failed
}

// rejectsToken reports whether the server answers that it can't revoke tokens of the type,
// or that the token is invalid. If the server answers so for both tokens, the tokens may
// belong to another client, and be alive.
func rejectsToken(err *requestforge.AuthError) bool {
	return err.StatusCode/100 == 4 && slices.Contains([]string{"unsupported_token_type", "invalid_token", "invalid_grant"}, err.Code)
}

// concernsToken reports whether the failure concerns the token that was sent, so that the
// server may still revoke the other token.
func concernsToken(err *requestforge.AuthError) bool {
	return rejectsToken(err) || err.StatusCode == http.StatusBadRequest && err.Code != "invalid_client" && err.Code != "unauthorized_client"
}

// revokeOne sends one token to the revocation endpoint.
func (g *Grant) revokeOne(ctx context.Context, in requestforge.Input, revokeURL, hint, token string) *requestforge.AuthError {
	which := strings.ReplaceAll(hint, "_", " ")
	form := url.Values{"token": {token}, "token_type_hint": {hint}}
	if err := g.complete(ctx, in, form); err != nil {
		return unsent(err)
	}
	client, err := g.client(ctx)
	if err != nil {
		return unsent(err)
	}
	w := g.wire(ctx, revokeURL)
	w.statusOnly = true
	authenticate(client, w.header, form)
	resp, err := w.send(form)
	var failed *requestforge.AuthError
	switch {
	case err != nil:
		failed = w.fail(masked(err))
		failed.Temporary = !errors.Is(err, context.Canceled) && !errors.Is(err, errPage) && !errors.Is(err, errInTheClear) && passes(failed)
	case resp.StatusCode/100 == 2:
		return nil
	default:
		failed = requestforge.NewAuthError(resp, w.body, nil)
		failed.Temporary = failed.Temporary || passes(failed)
	}
	failed.Err = fmt.Errorf("%s not revoked: %w", which, failed.Err)
	return failed
}

// send posts form, with the client's values. The answer's body is in w.body.
func (w *wire) send(form url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(w.ctx, http.MethodPost, w.url, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err // not after Validate
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	return resp, resp.Body.Close() // of memory
}
