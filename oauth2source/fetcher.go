// An oauth2.TokenSource as a step. What its errors become is in errors.go.

package oauth2source

import (
	"context"
	"errors"
	"time"

	"github.com/requestforge/requestforge"
	"golang.org/x/oauth2"
)

// Fetcher returns src as a step's Fetcher: for a source that somebody else
// made, an SDK say, and that looks after itself.
//
// A source that caches gives the same token again after the step was
// invalidated. The pipeline can't make it do otherwise, and the requests go on
// being refused until that token expires. If you can make the source anew, use
// [FetcherFrom].
//
// The step's token comes without the source's refresh token, which the source
// spends itself. Its Extra has those of the named fields that the source's
// token has; x/oauth2 can't list them.
//
// The context of a fetch doesn't reach src, so that its requests run on when
// the fetch has timed out. Give src a client with a timeout.
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

// FetcherFrom returns a step's Fetcher that makes a source for each fetch and
// asks it once, so that no cache outlives a refusal. newSource may use the
// tokens of the parents:
//
//	Fetcher: oauth2source.FetcherFrom(func(ctx context.Context, in requestforge.Input) (oauth2.TokenSource, error) {
//		conf := clientcredentials.Config{EndpointParams: url.Values{"device": {in.Parents["device"].AccessToken}}, ...}
//		return conf.TokenSource(ctx), nil
//	})
//
// As a Step.Refresh take [Refresh] instead. From a source of x/oauth2 an answer
// that broke off can't be told from a refusal, so that a refresh token which
// the server has taken might be sent again.
//
// ctx ends with the fetch and belongs in the source. To choose the client of
// its requests, add one under the key oauth2.HTTPClient.
//
// The step's token has the source's refresh token, for Step.Refresh to spend.
// Its Extra has those of the named fields that the source's token has;
// x/oauth2 can't list them.
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

// fetch returns src's token as one of ours.
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
		// A source that has only decoded the server's JSON. As it is, its
		// token would never expire.
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
