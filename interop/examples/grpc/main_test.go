package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/interop/internal/demo"
)

func TestGRPCCallsSurviveARevokedToken(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// client returns a client of a server that takes the tokens of an auth server.
func client(t *testing.T, opts ...grpc.DialOption) (*authtest.Server, grpc_health_v1.HealthClient) {
	t.Helper()
	auth, tokens, err := demo.NewLogin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(auth.Close)
	srv, conn, err := start(auth, append(opts, withTokens(tokens))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	t.Cleanup(func() { conn.Close() })
	return auth, grpc_health_v1.NewHealthClient(conn)
}

func call(ctx context.Context, c grpc_health_v1.HealthClient, service string) error {
	_, err := c.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	return err
}

func TestGRPCCallsAtOnceShareOneLogin(t *testing.T) {
	auth, c := client(t)
	if err := call(t.Context(), c, ""); err != nil {
		t.Fatal(err)
	}
	auth.Revoke("user")
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			if err := call(t.Context(), c, ""); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if n := auth.Stats().Steps["user"].Fetches.OK; n != 2 {
		t.Errorf("%d tokens were fetched, want 2", n)
	}
}

// An error of the call itself is the caller's at once, as grpc has it, and costs no token.
func TestGRPCOtherErrorsCostNoToken(t *testing.T) {
	auth, c := client(t)
	if err := call(t.Context(), c, "unheard-of"); status.Code(err) != codes.NotFound {
		t.Errorf("got %v, want NotFound", err)
	}
	if err := demo.Compare(auth, 1, 0); err != nil {
		t.Error(err)
	}
}

// If there is no other token, the caller gets the server's code, and the reason.
func TestGRPCRefusalWithoutAnotherTokenSaysBoth(t *testing.T) {
	auth, c := client(t)
	if err := call(t.Context(), c, ""); err != nil {
		t.Fatal(err)
	}
	auth.Revoke("user")
	auth.Fail("user", authtest.Fault{Status: http.StatusBadRequest})
	err := call(t.Context(), c, "")
	if status.Code(err) != codes.Unauthenticated || !errors.Is(err, requestforge.ErrRefused) {
		t.Errorf("got %v, want Unauthenticated", err)
	}
	if reason, ok := errors.AsType[*requestforge.AuthError](err); !ok || reason.Step != "user" {
		t.Errorf("%v doesn't say why", err)
	}
}
