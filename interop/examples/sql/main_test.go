package main

import (
	"bytes"
	"database/sql"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/interop/internal/demo"
)

func TestSQLConnectionSurvivesARevokedToken(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// open opens a database that takes the tokens of an auth server for passwords.
func open(t *testing.T) (*authtest.Server, *sql.DB) {
	t.Helper()
	auth, tokens, err := demo.NewLogin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(auth.Close)
	db, stop, err := start(auth, tokens)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return auth, db
}

func TestSQLConnectionsAtOnceShareOneLogin(t *testing.T) {
	auth, db := open(t)
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	auth.Revoke("user")
	var queries sync.WaitGroup
	for range 20 {
		queries.Go(func() {
			var answer string
			if err := db.QueryRowContext(t.Context(), "SELECT answer").Scan(&answer); err != nil {
				t.Error(err)
			}
		})
	}
	queries.Wait()
	if n := auth.Stats().Steps["user"].Fetches.OK; n != 2 {
		t.Errorf("%d tokens were fetched, want 2", n)
	}
}

// If there is no other token, the caller gets the server's error, and the reason.
func TestSQLRefusalWithoutAnotherTokenSaysBoth(t *testing.T) {
	auth, db := open(t)
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	auth.Revoke("user")
	auth.Fail("user", authtest.Fault{Status: http.StatusBadRequest})
	err := db.PingContext(t.Context())
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != invalidPassword {
		t.Errorf("got %v, want %s", err, invalidPassword)
	}
	if reason, ok := errors.AsType[*requestforge.AuthError](err); !ok || reason.Step != "user" {
		t.Errorf("%v doesn't say why", err)
	}
}

// A server that can't be reached costs no token.
func TestSQLOtherErrorsCostNoToken(t *testing.T) {
	auth, tokens, err := demo.NewLogin()
	if err != nil {
		t.Fatal(err)
	}
	defer auth.Close()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	config, err := pgx.ParseConfig("postgres://ann@" + nobody.Addr().String() + "/shop?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&connector{config, tokens}).Connect(t.Context())
	if err == nil || conn != nil || errors.Is(err, requestforge.ErrRefused) {
		t.Errorf("got %v, %v", conn, err)
	}
	if err := demo.Compare(auth, 1, 0); err != nil {
		t.Error(err)
	}
}
