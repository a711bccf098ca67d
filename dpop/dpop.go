// Package dpop proves with each request that the sender of a token holds the token's key
// (DPoP, RFC 9449): a token stolen from a log or a storage is useless without the key.
//
// A program makes one [Key]. [Client] proves the login with the key, [Key.Prepare] and
// [Key.Learn] prove the requests that carry the token.
//
//	key, err := dpop.StoredKey(ctx, storage, "shop/dpop") // or dpop.NewKey()
//	// …
//	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
//		Storage:   storage,
//		KeyPrefix: "shop/" + key.Thumbprint(), // another key has tokens of its own
//		Steps: []requestforge.Step{{
//			Name: "app",
//			Fetcher: oauth2source.ClientCredentials(oauth2source.Config{
//				TokenURL:   "https://auth.example.com/token",
//				ClientAuth: client,
//				Client:     dpop.Client(key, nil),
//			}),
//		}},
//	})
//	// …
//	transport, err := requestforge.NewTransport(requestforge.Config{
//		BaseURL: "https://api.example.com",
//		Source:  pipeline,
//		Prepare: key.Prepare,
//		Learn:   key.Learn,
//	})
//
// The auth server binds the tokens to the key of the login's proof, the refresh tokens of a
// public client too, and says so by the token type DPoP.
//
// # Nonces
//
// A server may want a nonce of the server's own in each proof, and may change the nonce at any
// time (RFC 9449 §8 and §9). A Key remembers the newest nonce of each origin, from any response
// with a nonce. After use_dpop_nonce, which refuses the proof and not the token, the request is
// sent once more with the new nonce, and no token is fetched. Requests with a token and
// requests without have separate nonces, since an auth server and an API at one origin need
// not share theirs.
//
// # Where the key is kept
//
// A key from [NewKey] ends with the process, as do the logins of a program without a storage.
// Stored tokens, for the next run or for other processes, need a stored key: [StoredKey] keeps
// the key in the same [requestforge.Storage], sealed if the storage is one of package
// sealedstorage. With the [Key.Thumbprint] in the KeyPrefix no process ever sends a token with
// the wrong key, even if the storage has lost the key.
//
// # A key for each subject
//
// [Keys] chooses the key by the context of each request, for a pipeline whose users have a key
// each.
package dpop

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/requestforge/requestforge"
)

// prefix begins the text of each error.
const prefix = "requestforge: dpop: "

var errNoKeys = errors.New(prefix + "the Keys function is nil")

// Keys chooses the key of a request by the request's context, for a pipeline whose subjects
// have a key each. Its methods are those of a [Key]. The function is called for each send, by
// many goroutines at once, and returns the same *Key for a subject each time, since the Key
// remembers the nonces of servers. An error, or a nil Key, ends the request before anything is
// sent; the error must hold no secret.
type Keys func(ctx context.Context) (*Key, error)

// Prepare is [Key.Prepare] of the key for out's context.
func (f Keys) Prepare(out *http.Request, tok *requestforge.Token) error {
	key, err := f.of(out.Context())
	if err != nil {
		return err
	}
	return key.Prepare(out, tok)
}

// Learn is [Key.Learn] of the key for the context of the request.
func (f Keys) Learn(resp *http.Response, tok *requestforge.Token) (again bool) {
	if resp == nil || resp.Request == nil {
		return false
	}
	key, err := f.of(resp.Request.Context())
	return err == nil && key.Learn(resp, tok)
}

// Client is [Client] with the key for the context of each request. The fetch of a step that is
// per subject has the subject's context values.
func (f Keys) Client(base http.RoundTripper) *http.Client { return newClient(f, base) }

// of returns the key for ctx, or why there is none.
func (f Keys) of(ctx context.Context) (*Key, error) {
	if f == nil {
		return nil, errNoKeys
	}
	key, err := f(ctx)
	if err != nil {
		return nil, fmt.Errorf(prefix+"Keys: %w", err)
	}
	if err := key.check(); err != nil {
		return nil, err
	}
	return key, nil
}
