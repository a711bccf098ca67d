// The interface of a source of tokens, the auth layer's calls of a source, and the simplest
// source. The usual source is in pipeline.go.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/requestforge/requestforge/internal/format"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// TokenSource supplies the tokens of requests. A Pipeline is a TokenSource.
//
// Rules for implementers:
//   - Both methods are safe for concurrent use.
//   - Token returns a live token, or an error, but never neither. The token is shared: no
//     caller modifies the token.
//   - Token is called for every request. Token honours ctx while waiting.
//   - Invalidate gets the very token that was refused. A source whose current token is another
//     token by then must keep the current token: refusals of the same token arrive many times,
//     and late. Invalidate ignores a nil token.
//   - A source without another token returns the same token again; the refusal then goes back
//     to the caller.
type TokenSource interface {
	Token(ctx context.Context) (*Token, error)
	Invalidate(ctx context.Context, rejected *Token) error
}

// StaticToken is a TokenSource that always returns tok, for API keys and the like. If tok is
// refused, the refusal goes back to the caller. tok is copied. If tok is nil or can't be
// sent, Token returns an error.
func StaticToken(tok *Token) TokenSource {
	if err := tok.validate(); err != nil {
		return &staticSource{err: mistake.Final(fmt.Errorf("requestforge: StaticToken: %w", err))}
	}
	own := *tok
	own.prov = newProvenance(&own)
	return &staticSource{tok: &own}
}

type staticSource struct {
	tok *Token
	err error
}

func (s *staticSource) Token(context.Context) (*Token, error)    { return s.tok, s.err }
func (s *staticSource) Invalidate(context.Context, *Token) error { return nil }
func (s *staticSource) ready(context.Context) *Token             { return s.tok }

// Format prints the token as a Token prints itself: some verbs follow a
// pointer into a struct without asking.
func (s *staticSource) Format(f fmt.State, verb rune) {
	format.Text(f, verb, fmt.Sprintf("StaticToken(%v)", s.tok))
}

// readySource is a TokenSource that can return a live token at once, without waiting, if the
// source has a live token.
type readySource interface {
	ready(ctx context.Context) *Token
}

// answerer is a TokenSource that may get another token after an API has challenged a token,
// since the API asks for more than the token could show.
type answerer interface {
	// answers reports whether the source gets another token in the place of tok.
	answers(tok *Token) bool
	// answer returns the new token after a challenge with the parameters asked, see
	// Input.Challenge. answer is called only for tokens for which answers returns true.
	answer(ctx context.Context, tok *Token, asked map[string]string) (*Token, error)
}

var errNoToken = mistake.Final(errors.New("requestforge: the TokenSource returned neither a token nor an error"))

// tokenOf asks src for a token.
func tokenOf(ctx context.Context, src TokenSource) (*Token, error) {
	tok, err := src.Token(ctx)
	if err == nil && tok == nil {
		err = errNoToken
	}
	return tok, err
}

// token asks src for the token of req. token honours req.Cancel beside the context, as the
// transports of net/http do.
func token(src TokenSource, req *http.Request) (*Token, error) {
	if roundtrip.Cancel(req) == nil {
		return tokenOf(withoutSends(req.Context()), src)
	}
	return tokenUntilCancel(src, req)
}

// tokenUntilCancel asks src for the token of a request with a Cancel channel. http.Client
// sets Cancel on each request if the client has a Timeout, so the common case has to be
// cheap.
func tokenUntilCancel(src TokenSource, req *http.Request) (*Token, error) {
	if r, ok := src.(readySource); ok {
		if tok := r.ready(req.Context()); tok != nil {
			return tok, nil
		}
	}
	return untilCancel(req, func(ctx context.Context) (*Token, error) { return tokenOf(ctx, src) })
}

// untilCancel returns the result of ask with a context that ends when the caller gives req
// up, by the context or by Cancel.
func untilCancel(req *http.Request, ask func(ctx context.Context) (*Token, error)) (*Token, error) {
	ctx, cancel := context.WithCancel(withoutSends(req.Context()))
	defer cancel()
	if roundtrip.Cancel(req) == nil {
		return ask(ctx)
	}
	if roundtrip.Over(req) {
		cancel() // before the source starts a fetch without a caller
	}
	done := roundtrip.Cancel(req)
	go func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ask(ctx)
}
