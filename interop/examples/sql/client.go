package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/requestforge/requestforge"
)

// connector is for sql.OpenDB: it opens PostgreSQL connections whose password is a token
// of source. If the server says that the password is wrong, it connects once more, with
// another token. A connection that is open has no token any more: SetConnMaxLifetime
// bounds how long it may outlive its token.
type connector struct {
	config *pgx.ConnConfig // with TLS, for the server reads the token
	source requestforge.TokenSource
}

func (c *connector) Connect(ctx context.Context) (conn driver.Conn, err error) {
	err = requestforge.Use(ctx, c.source, func(ctx context.Context, tok *requestforge.Token) error {
		config := c.config.Copy()
		config.Password = tok.AccessToken
		conn, err = stdlib.GetConnector(*config).Connect(ctx)
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == invalidPassword {
			return fmt.Errorf("%w: %w", requestforge.ErrRefused, err)
		}
		return err
	})
	return conn, err
}

func (c *connector) Driver() driver.Driver { return stdlib.GetDefaultDriver() }

// invalidPassword is PostgreSQL's code for that.
const invalidPassword = "28P01"
