// What a source of tokens is, how the auth layer asks one, and the simplest one
// there is. The usual one is pipeline.go's.

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

// TokenSource supplies the tokens of requests. A Pipeline is one.
//
// Rules for implementers:
//   - Both methods are safe for concurrent use.
//   - Token returns a token that is live now, or an error, never neither. The
//     token is shared: nobody changes it.
//   - Token is on the path of every request. It honours ctx while it waits.
//   - Invalidate is told the very token that was refused. A source whose
//     current token is another one by then must keep that: refusals of one
//     token arrive many times, and late. nil does nothing.
//   - A source that has no other token to give returns the same one again;
//     the refusal then goes back to the caller.
type TokenSource interface {
	Token(ctx context.Context) (*Token, error)
	Invalidate(ctx context.Context, rejected *Token) error
}

// StaticToken is a TokenSource that has tok and never another, for API keys
// and the like. A refusal of it goes back to the caller. tok is copied; nil or
// one that can't be sent is an error from Token.
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

// readySource is a TokenSource that can say at once, without a context,
// whether it has a live token.
type readySource interface {
	ready(ctx context.Context) *Token
}

var errNoToken = mistake.Final(errors.New("requestforge: the TokenSource returned neither a token nor an error"))

// token asks src for the token of req. It honours req.Cancel beside the
// context, as the transports of net/http do.
func token(src TokenSource, req *http.Request) (*Token, error) {
	var tok *Token
	var err error
	if roundtrip.Cancel(req) == nil {
		tok, err = src.Token(req.Context())
	} else {
		tok, err = tokenUntilCancel(src, req)
	}
	if err == nil && tok == nil {
		err = errNoToken
	}
	return tok, err
}

// tokenUntilCancel asks src for the token of a request with a Cancel channel.
// http.Client sets that on each request if it has a Timeout, so the common case
// has to be cheap.
func tokenUntilCancel(src TokenSource, req *http.Request) (*Token, error) {
	if r, ok := src.(readySource); ok {
		if tok := r.ready(req.Context()); tok != nil {
			return tok, nil
		}
	}
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	if roundtrip.Over(req) {
		cancel() // before the source can start a fetch for nobody
	}
	done := roundtrip.Cancel(req)
	go func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return src.Token(ctx)
}
