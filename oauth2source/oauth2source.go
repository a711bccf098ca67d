// Package oauth2source joins requestforge and golang.org/x/oauth2, in both directions:
// [TokenSource] makes a pipeline the source of an oauth2.Transport, and [Fetcher] and
// [FetcherFrom] make an oauth2.TokenSource a step of a pipeline.
//
// # Ready-made grants
//
// Most logins are made of a few kinds of steps. For each kind there is a constructor, which
// takes a [Config] and returns a [Grant], a Fetcher:
//
//   - [ClientCredentials] (RFC 6749 §4.4): the client for itself
//   - [Password] (RFC 6749 §4.3): a user whose password the client knows
//   - [Refresh] (RFC 6749 §6): the next token for a refresh token, as Step.Refresh
//   - [JWTBearer] (RFC 7523 §2.1): a signed assertion for a token
//   - [TokenExchange] (RFC 8693): the token of an earlier step for another token
//   - [DeviceCode] (RFC 8628): a person who approves on another device
//
// [Revoke] (RFC 7009), as Step.Revoke, revokes the tokens of the grants at the server.
//
// A client authenticates by HTTP Basic, in the form, by a JWT that the client signs (RFC
// 7523 §2.2, private_key_jwt), or by a JWT that a platform keeps in a file. Secret, key and
// file may change while the program runs: see ClientAuth.SecretFrom, JWT.KeyFrom and
// [AssertionFile]. x/oauth2 talks to the server, and go-jose signs. The grants avoid the
// habits of x/oauth2 listed below: client and secret are sent once, in a single way;
// redirects stay within the origin; no token is cached on the way.
//
// # Habits of x/oauth2
//
// Programs that use x/oauth2 together with requestforge should know three habits of
// x/oauth2:
//
//   - oauth2.NewClient and oauth2.Config.TokenSource wrap every source in
//     oauth2.ReuseTokenSource, which keeps a token until the token expires, revoked or not.
//     To let requestforge replace a refused token, use an oauth2.Transport instead of
//     oauth2.NewClient, and FetcherFrom instead of Fetcher.
//   - With AuthStyleAutoDetect, the zero value, x/oauth2 sends a failed request a second
//     time, with the client's secret in another place. A server that counts wrong passwords
//     counts two. Set oauth2.Endpoint.AuthStyle.
//   - x/oauth2 follows redirects of a token endpoint with the client in the context,
//     credentials and all. If your auth server may redirect to another origin, put a client
//     with a CheckRedirect into the context under the key oauth2.HTTPClient.
package oauth2source

import (
	"context"
	"errors"

	"github.com/requestforge/requestforge"
	"golang.org/x/oauth2"
)

// TokenSource returns src as an oauth2.TokenSource, to put a pipeline into an
// oauth2.Transport, or into any SDK that takes an oauth2.TokenSource.
//
// The Token method of an oauth2.TokenSource has no context parameter, so ctx is the context
// of every call: once ctx is done, no token is fetched. Nil means context.Background. If
// src is nil, each call returns an error.
//
// The result caches no tokens, so a token invalidated in src is gone here, too; the package
// comment lists the functions of x/oauth2 that add a cache. x/oauth2 never reports a
// refused token to a source, so the program has to invalidate the token, by
// Pipeline.InvalidateStep say. requestforge.AuthTransport invalidates refused tokens and
// replays the requests.
//
// The token has no refresh token. Only src may spend the refresh token: a second holder
// would spend the refresh token twice, which servers with rotation take for theft. Extra
// holds src's values, shared by all callers: don't modify the values.
func TokenSource(ctx context.Context, src requestforge.TokenSource) oauth2.TokenSource {
	if ctx == nil {
		ctx = context.Background()
	}
	return &tokenSource{ctx, src}
}

type tokenSource struct {
	ctx context.Context // of every call, for want of a parameter
	src requestforge.TokenSource
}

// Token implements oauth2.TokenSource.
func (s *tokenSource) Token() (*oauth2.Token, error) {
	if s.src == nil {
		return nil, errNoSource
	}
	tok, err := s.src.Token(s.ctx)
	if err != nil {
		return nil, err
	}
	if tok == nil {
		return nil, errNoToken
	}
	out := &oauth2.Token{
		AccessToken: tok.AccessToken,
		TokenType:   tok.TokenType,
		Expiry:      tok.Expiry,
	}
	return out.WithExtra(tok.Extra), nil
}

var (
	errNoSource = errors.New(prefix + "the source is nil")
	errNoToken  = errors.New(prefix + "the source returned no token and no error")
)
