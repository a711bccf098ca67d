// How the auth layer asks a TokenSource, and the simplest one there is. The
// usual one is pipeline.go's.

package requestforge

import (
	"context"
	"fmt"
	"net/http"
)

// StaticToken is a TokenSource that has tok and never another, for API keys
// and the like. A refusal of it goes back to the caller. tok is copied; nil or
// one that can't be sent is an error from Token.
func StaticToken(tok *Token) TokenSource {
	if err := tok.validate(); err != nil {
		return &staticSource{err: &mistake{fmt.Errorf("requestforge: StaticToken: %w", err)}}
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
	format(f, verb, fmt.Sprintf("StaticToken(%v)", s.tok))
}

// readySource is a TokenSource that can say at once, without a context,
// whether it has a live token.
type readySource interface {
	ready(ctx context.Context) *Token
}

// token asks src for the token of req. It honours req.Cancel beside the
// context, as the transports of net/http do.
func token(src TokenSource, req *http.Request) (*Token, error) {
	var tok *Token
	var err error
	if cancelOf(req) == nil {
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
	if over(req) {
		cancel() // before the source can start a fetch for nobody
	}
	done := cancelOf(req)
	go func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return src.Token(ctx)
}
