// Package oauth2source joins requestforge and golang.org/x/oauth2, in both
// directions: [TokenSource] makes a pipeline the source of an
// oauth2.Transport, and [Fetcher] and [FetcherFrom] make an
// oauth2.TokenSource a step of a pipeline.
//
// # Ready-made grants
//
// For the steps that most logins are made of there are constructors, which
// take one [Config] and return a [Grant], a Fetcher:
//
//   - [ClientCredentials] (RFC 6749 §4.4): the client for itself
//   - [Password] (RFC 6749 §4.3): a user whose password the client knows
//   - [Refresh] (RFC 6749 §6): the next token for a refresh token, as Step.Refresh
//   - [JWTBearer] (RFC 7523 §2.1): a signed assertion for a token
//   - [TokenExchange] (RFC 8693): the token of an earlier step for another one
//   - [DeviceCode] (RFC 8628): a person who approves on another device
//
// A client authenticates by HTTP Basic, in the form, or by a JWT that it signs
// (RFC 7523 §2.2, private_key_jwt). x/oauth2 speaks to the server, go-jose
// signs. The habits below are taken care of: client and secret are sent in one
// way, once; redirects stay within the origin; no token is cached on the way.
//
// # Habits of x/oauth2
//
// Three habits of x/oauth2 are worth knowing when the two meet:
//
//   - oauth2.ReuseTokenSource, which oauth2.NewClient and
//     oauth2.Config.TokenSource put around every source, keeps a token until
//     it expires, revoked or not. Where requestforge should be able to get
//     another one after a refusal, leave it out: use an oauth2.Transport
//     instead of oauth2.NewClient, and FetcherFrom instead of Fetcher.
//   - With AuthStyleAutoDetect, the zero value, it sends a request that
//     failed a second time, with the client's secret elsewhere. That is
//     twice the wrong password for a server that counts them. Set
//     oauth2.Endpoint.AuthStyle.
//   - It follows redirects of a token endpoint with the client in the
//     context, credentials and all. Give it one with a CheckRedirect under
//     the key oauth2.HTTPClient if your auth server may send you elsewhere.
package oauth2source

import (
	"context"
	"errors"

	"github.com/requestforge/requestforge"
	"golang.org/x/oauth2"
)

// TokenSource returns src as an oauth2.TokenSource: put a pipeline into an
// oauth2.Transport, or into any SDK that takes such a source.
//
// A call of an oauth2.TokenSource has no context of its own, so that ctx is the
// context of every call: no token is fetched once it is done. Nil means
// context.Background. A nil src is an error at each call.
//
// Nothing is cached on top of src, so that a token that was invalidated there
// is gone here too; see the package comment for who might put a cache around
// it. x/oauth2 never tells a source that its token was refused, so that someone
// else must invalidate it, by Pipeline.InvalidateStep say. To have that done,
// and the request replayed, use requestforge.AuthTransport.
//
// The token comes without its refresh token. That one is for src to spend, and
// a second holder would spend it twice, which servers that rotate them take
// for theft. Extra has src's values, shared with everyone: don't change them.
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
