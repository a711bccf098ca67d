// Tokens for peers other than HTTP servers. auth_transport.go does the same for an
// http.Client.

package requestforge

import (
	"context"
	"errors"
	"fmt"

	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/refund"
)

// ErrRefused means that the peer refused the token. A function called by [Use] returns an
// error that wraps ErrRefused.
var ErrRefused = errors.New("requestforge: the peer refused the token")

// Use calls f with a token of src, for calls that an AuthTransport can't make: a call of
// gRPC, the login of an SQL connection, the dial of a WebSocket. If the peer refuses the
// token, f returns an error that wraps ErrRefused. Then Use invalidates the token in the
// source, as an AuthTransport would, and calls f once more, with another token:
//
//	err := requestforge.Use(ctx, tokens, func(ctx context.Context, tok *requestforge.Token) error {
//		conn, err = dial(ctx, tok.AccessToken)
//		if isDenied(err) {
//			return fmt.Errorf("%w: %w", requestforge.ErrRefused, err)
//		}
//		return err
//	})
//
// Use doesn't control where the token goes: f is responsible for the peer's origin and for
// encryption. f must know the peer's decision when f returns; Use doesn't handle a later
// refusal on a stream or a connection. Many goroutines may call Use, and so f, at once. f
// must neither change nor keep the token.
//
// If f returns nil, the peer has accepted the token. An error without ErrRefused decides
// nothing about the token, and Use returns such an error at once. Refusals count like
// refusals of requests. If the peer accepts the second token, the refusal of the first token
// was real; see [Pipeline.Invalidate]. Use doesn't wait for a peer that may not know a young
// token yet.
//
// Use returns the last error of f unchanged. If there was no other token because src returned
// an error or ctx ended, Use joins that error with the error of f. Use doesn't call f if src
// returns an error or a token that no request could carry, if ctx, src or f is nil, or if ctx
// has ended; then Use returns the error of src, an error that says so, or an error that wraps
// ctx's cause. A panic of f passes through, and decides nothing about the token.
func Use(ctx context.Context, src TokenSource, f func(ctx context.Context, tok *Token) error) error {
	switch {
	case ctx == nil:
		return errors.New("requestforge: Use: ctx is nil")
	case src == nil || mistake.IsNil(src):
		return errors.New("requestforge: Use: src is nil; was the error of its constructor looked at?")
	case f == nil:
		return errors.New("requestforge: Use: f is nil")
	}
	if ctx.Err() != nil {
		return fmt.Errorf("requestforge: Use: %w", context.Cause(ctx))
	}
	ctx = withoutSends(ctx) // a send by f is no send of the request that ctx may come from
	tok, err := tokenFor(ctx, src)
	if err != nil {
		return err
	}
	switch err = f(ctx, tok); {
	case err == nil:
		tok.accept()
	case errors.Is(err, ErrRefused):
		return useAnother(ctx, src, f, tok, err)
	}
	return err
}

// tokenFor returns a token of src that may be sent.
func tokenFor(ctx context.Context, src TokenSource) (*Token, error) {
	tok, err := tokenOf(ctx, src)
	if err == nil {
		_, err = tok.headerValue(false)
	}
	if err != nil {
		return nil, err
	}
	return tok, nil
}

// useAnother calls f once more after f returned first, a refusal of tok.
func useAnother(ctx context.Context, src TokenSource, f func(context.Context, *Token) error, tok *Token, first error) error {
	var toRefund refund.Refund
	defer toRefund.Over()
	// An error of Invalidate is the source's storage's, which has no say here.
	_ = src.Invalidate(refund.With(ctx, &toRefund), tok)
	if ctx.Err() != nil {
		return errors.Join(first, context.Cause(ctx))
	}
	next, err := tokenFor(ctx, src)
	switch {
	case err != nil:
		return errors.Join(first, err)
	case next.AccessToken == tok.AccessToken && next.Type() == tok.Type(), tok.another(next):
		return first
	}
	switch err = f(ctx, next); {
	case err == nil:
		next.accept()
		toRefund.Pay()
	case errors.Is(err, ErrRefused):
		_ = src.Invalidate(refund.With(ctx, &toRefund), next)
	}
	return err
}
