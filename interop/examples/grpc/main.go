// Grpc calls a gRPC server with tokens of a pipeline, as PerRPCCredentials:
//
//	go run ./examples/grpc
//
// What a program of your own needs is in client.go. The server is grpc-go's, with its
// health service, on loopback over TLS; the auth server is simulated. What came of it
// is printed; if it isn't what it should be, the exit status is 1.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/interop/internal/demo"
)

func main() { demo.MainAlone(run) }

// run calls a server before and after its token was revoked, and returns what was wrong.
func run(ctx context.Context, out io.Writer) error {
	auth, tokens, err := demo.NewLogin()
	if err != nil {
		return err
	}
	defer auth.Close()
	defer tokens.Close()
	srv, conn, err := start(auth, withTokens(tokens))
	if err != nil {
		return err
	}
	defer srv.Stop()
	defer conn.Close()

	client := grpc_health_v1.NewHealthClient(conn)
	for _, say := range []string{"The program calls.", "The token is revoked. The program isn't told, and calls again."} {
		fmt.Fprintln(out, say)
		if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
			return err
		}
		if auth.Stats().Steps["user"].Fetches.OK == 1 {
			auth.Revoke("user")
		}
	}
	fmt.Fprintln(out, "Both calls succeeded.")
	return demo.Compare(auth, 2, 1)
}

// start starts a server that takes the tokens of auth, and a connection to it.
func start(auth *authtest.Server, opts ...grpc.DialOption) (*grpc.Server, *grpc.ClientConn, error) {
	own, trusting, err := demo.TLS()
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(own)), grpc.UnaryInterceptor(gate(auth)))
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	go srv.Serve(listener)
	conn, err := grpc.NewClient(listener.Addr().String(), append(opts, grpc.WithTransportCredentials(credentials.NewTLS(trusting)))...)
	if err != nil {
		srv.Stop()
		return nil, nil, err
	}
	return srv, conn, nil
}

// gate lets calls with a token of auth through.
func gate(auth *authtest.Server) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		tok, ok := strings.CutPrefix(strings.Join(md.Get("authorization"), ","), "Bearer ")
		if !ok {
			return nil, status.Error(codes.Unauthenticated, "no token")
		}
		good, err := demo.Knows(ctx, auth, tok)
		switch {
		case err != nil:
			return nil, status.Error(codes.Unavailable, err.Error())
		case !good:
			return nil, status.Error(codes.Unauthenticated, "the token was refused")
		}
		return next(ctx, req)
	}
}
