// An oauth2.TokenSource as a step. The errors of sources are translated in errors.go.

package oauth2source

import (
	"context"
	"errors"
	"time"

	"github.com/requestforge/requestforge"
	"golang.org/x/oauth2"
)

// Fetcher returns src as a step's Fetcher: for a source made by other code, such as an SDK,
// that renews its own tokens.
//
// A source that caches returns the same token again after the step was invalidated. The
// pipeline can't empty the source's cache, so requests are refused until the token expires.
// If the program can make the source anew, use [FetcherFrom].
//
// The step's token has no refresh token, since the source spends the refresh token itself.
// Extra has the named fields that the source's token has; x/oauth2 can't list the fields.
//
// The context of a fetch doesn't reach src, so the requests of src go on after the fetch
// has timed out. Give src a client with a timeout.
func Fetcher(src oauth2.TokenSource, extra ...string) requestforge.Fetcher {
	return requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
		tok, err := fetch(src, extra)
		if err != nil {
			return nil, err
		}
		tok.RefreshToken = ""
		return tok, nil
	})
}

// FetcherFrom returns a step's Fetcher that makes a new source for each fetch and asks the
// source once, so that no cache outlives a refusal. newSource may use the tokens of the
// parents:
//
//	Fetcher: oauth2source.FetcherFrom(func(ctx context.Context, in requestforge.Input) (oauth2.TokenSource, error) {
//		conf := clientcredentials.Config{EndpointParams: url.Values{"device": {in.Parents["device"].AccessToken}}, ...}
//		return conf.TokenSource(ctx), nil
//	})
//
// For Step.Refresh use [Refresh] instead. In the errors of an x/oauth2 source, a broken
// answer looks like a refusal, so the pipeline might send a refresh token again that the
// server has already taken.
//
// ctx ends with the fetch; pass ctx to the source. To choose the client of the source's
// requests, add a client to ctx under the key oauth2.HTTPClient.
//
// The step's token has the source's refresh token, for Step.Refresh to spend. Extra has the
// named fields that the source's token has; x/oauth2 can't list the fields.
func FetcherFrom(newSource func(ctx context.Context, in requestforge.Input) (oauth2.TokenSource, error), extra ...string) requestforge.Fetcher {
	return requestforge.FetcherFunc(func(ctx context.Context, in requestforge.Input) (*requestforge.Token, error) {
		if newSource == nil {
			return nil, errors.New(prefix + "FetcherFrom was given a nil function")
		}
		src, err := newSource(ctx, in)
		if err != nil {
			return nil, translate(err)
		}
		return fetch(src, extra)
	})
}

// fetch returns src's token as a requestforge.Token.
func fetch(src oauth2.TokenSource, extra []string) (*requestforge.Token, error) {
	if src == nil {
		return nil, errNoSource
	}
	tok, err := src.Token()
	if err != nil {
		return nil, translate(err)
	}
	if tok == nil {
		return nil, errNoToken
	}
	out := &requestforge.Token{
		AccessToken:  tok.AccessToken,
		TokenType:    tok.TokenType,
		RefreshToken: tok.RefreshToken,
		Expiry:       tok.Expiry,
	}
	if out.Expiry.IsZero() && tok.ExpiresIn > 0 {
		// The source has only decoded the server's JSON. Without an Expiry the token would
		// never expire.
		out.Expiry = time.Now().Add(time.Duration(min(tok.ExpiresIn, maxSeconds)) * time.Second)
	}
	for _, name := range extra {
		if value := tok.Extra(name); value != nil {
			if out.Extra == nil {
				out.Extra = make(map[string]any)
			}
			out.Extra[name] = value
		}
	}
	return out, nil
}

const maxSeconds = int64(1<<63-1) / int64(time.Second)
