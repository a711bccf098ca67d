// Sql connects to PostgreSQL with tokens of a pipeline for passwords, as the databases of
// clouds want it:
//
//	go run ./examples/sql
//
// What a program of your own needs is in client.go. The driver is pgx, below
// database/sql; the server is psql-wire, which speaks PostgreSQL's protocol and knows
// nothing but who may log in, on loopback over TLS; the auth server is simulated. What
// came of it is printed; if it isn't what it should be, the exit status is 1.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	wire "github.com/jeroenrinzema/psql-wire"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/interop/internal/demo"
)

func main() { demo.MainAlone(run) }

// run queries before and after the token was revoked, and returns what was wrong.
func run(ctx context.Context, out io.Writer) error {
	auth, tokens, err := demo.NewLogin()
	if err != nil {
		return err
	}
	defer auth.Close()
	defer tokens.Close()
	db, stop, err := start(auth, tokens)
	if err != nil {
		return err
	}
	defer stop()

	for _, say := range []string{"The program queries.", "The token is revoked. The program isn't told, and queries again, by a new connection."} {
		fmt.Fprintln(out, say)
		var answer string
		if err := db.QueryRowContext(ctx, "SELECT answer").Scan(&answer); err != nil || answer != "42" {
			return fmt.Errorf("the answer is %q: %w", answer, err)
		}
		if auth.Stats().Steps["user"].Fetches.OK == 1 {
			auth.Revoke("user")
		}
	}
	fmt.Fprintln(out, "Both queries had their answer.")
	return demo.Compare(auth, 2, 1)
}

// start starts a server whose user "ann" has the tokens of auth for passwords, and opens
// it with those of source. Each query has a connection of its own.
func start(auth *authtest.Server, source requestforge.TokenSource) (db *sql.DB, stop func(), err error) {
	own, trusting, err := demo.TLS()
	if err != nil {
		return nil, nil, err
	}
	login := wire.ClearTextPassword(func(ctx context.Context, _, user, password string) (context.Context, bool, error) {
		good, err := demo.Knows(ctx, auth, password)
		return ctx, good && user == "ann", err
	})
	srv, err := wire.NewServer(answer, wire.SessionAuthStrategy(login), wire.TLSConfig(own), wire.Logger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	go srv.Serve(listener)
	config, err := pgx.ParseConfig("postgres://ann@127.0.0.1:" + strconv.Itoa(listener.Addr().(*net.TCPAddr).Port) + "/shop?sslmode=disable")
	if err != nil {
		srv.Close()
		return nil, nil, err
	}
	config.TLSConfig = trusting // as sslmode=verify-full has it
	db = sql.OpenDB(&connector{config, source})
	db.SetMaxIdleConns(-1)
	return db, func() { db.Close(); srv.Close() }, nil
}

// answer answers every query with one column and one row.
func answer(context.Context, wire.Query) (wire.PreparedStatements, error) {
	return wire.Prepared(wire.NewStatement(func(_ context.Context, w wire.DataWriter, _ []wire.Parameter) error {
		if err := w.Row([]any{"42"}); err != nil {
			return err
		}
		return w.Complete("SELECT 1")
	}, wire.WithColumns(wire.Columns{{Name: "answer", Oid: pgtype.TextOID, Width: 256}}))), nil
}
