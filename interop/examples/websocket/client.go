package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/coder/websocket"

	"github.com/requestforge/requestforge"
)

// dial opens a WebSocket with a token of src. If the server refuses the token, it is
// dialed once more, with another one. A connection that is open has no token any more:
// to end it is up to the server.
//
// This is for every library. One that takes an http.Client, as this does, may be given
// one with an AuthTransport instead.
func dial(ctx context.Context, src requestforge.TokenSource, url string, opts websocket.DialOptions) (conn *websocket.Conn, err error) {
	err = requestforge.Use(ctx, src, func(ctx context.Context, tok *requestforge.Token) error {
		opts := opts
		opts.HTTPHeader = opts.HTTPHeader.Clone()
		if opts.HTTPHeader == nil {
			opts.HTTPHeader = http.Header{}
		}
		opts.HTTPHeader.Set("Authorization", tok.Type()+" "+tok.AccessToken)
		var resp *http.Response
		conn, resp, err = websocket.Dial(ctx, url, &opts)
		if err != nil && resp != nil && resp.StatusCode == http.StatusUnauthorized {
			return fmt.Errorf("%w: %w", requestforge.ErrRefused, err)
		}
		return err
	})
	return conn, err
}
