package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/requestforge/requestforge"
)

// withTokens sends a token of src with each unary call. If the server says that the
// caller isn't authenticated, the call is made once more, with another token. A stream
// is refused only after it has begun; no call can begin it anew.
func withTokens(src requestforge.TokenSource) grpc.DialOption {
	return grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		opts = opts[:len(opts):len(opts)] // calls share what is behind them
		return requestforge.Use(ctx, src, func(ctx context.Context, tok *requestforge.Token) error {
			err := invoke(ctx, method, req, reply, conn, append(opts, grpc.PerRPCCredentials(bearer{tok}))...)
			if status.Code(err) == codes.Unauthenticated {
				return fmt.Errorf("%w: %w", requestforge.ErrRefused, err)
			}
			return err
		})
	})
}

// bearer is credentials.PerRPCCredentials of one call.
type bearer struct{ tok *requestforge.Token }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": b.tok.Type() + " " + b.tok.AccessToken}, nil
}

// RequireTransportSecurity keeps the token off connections without TLS.
func (bearer) RequireTransportSecurity() bool { return true }
