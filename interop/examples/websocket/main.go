// Websocket opens WebSockets with tokens of a pipeline:
//
//	go run ./examples/websocket
//
// What a program of your own needs is in client.go. Both ends are coder/websocket, on
// loopback over TLS; the auth server is simulated. What came of it is printed; if it
// isn't what it should be, the exit status is 1.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/coder/websocket"

	"github.com/requestforge/requestforge/authtest"
	"github.com/requestforge/requestforge/interop/internal/demo"
)

func main() { demo.MainAlone(run) }

// run dials before and after the token was revoked, and returns what was wrong.
func run(ctx context.Context, out io.Writer) error {
	auth, tokens, err := demo.NewLogin()
	if err != nil {
		return err
	}
	defer auth.Close()
	defer tokens.Close()
	srv := httptest.NewTLSServer(echo(auth))
	defer srv.Close()

	for _, say := range []string{"The program dials.", "The token is revoked. The program isn't told, and dials again."} {
		fmt.Fprintln(out, say)
		conn, err := dial(ctx, tokens, srv.URL, websocket.DialOptions{HTTPClient: srv.Client()})
		if err != nil {
			return err
		}
		if err := talk(ctx, conn); err != nil {
			return err
		}
		if auth.Stats().Steps["user"].Fetches.OK == 1 {
			auth.Revoke("user")
		}
	}
	fmt.Fprintln(out, "Both times the server echoed.")
	return demo.Compare(auth, 2, 1)
}

// talk says something, wants to hear it, and hangs up.
func talk(ctx context.Context, conn *websocket.Conn) error {
	defer conn.CloseNow()
	if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		return err
	}
	if _, heard, err := conn.Read(ctx); err != nil || string(heard) != "hello" {
		return fmt.Errorf("heard %q, %v", heard, err)
	}
	return conn.Close(websocket.StatusNormalClosure, "")
}

// echo accepts WebSockets with a token of auth.
func echo(auth *authtest.Server) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tok, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		good, err := demo.Knows(r.Context(), auth, tok)
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		case !good:
			http.Error(w, "the token was refused", http.StatusUnauthorized)
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			kind, heard, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, heard) != nil {
				return
			}
		}
	})
}
