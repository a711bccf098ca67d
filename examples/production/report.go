// The report for a person, once a request has failed: the failed step, the states
// of all steps, whether the request carries a token, and the setting to change.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/requestforge/requestforge"
)

// report writes the report to out. A nil f means that no request has failed.
func report(out io.Writer, transport *requestforge.Transport, tokens *requestforge.Pipeline, f *failure) {
	line := func(name, text string) {
		for l := range strings.Lines(text) {
			fmt.Fprintf(out, "   %-10s%s\n", name, strings.TrimRight(l, "\n"))
			name = ""
		}
	}
	fmt.Fprintln(out, "What a person needs now")
	if f != nil {
		line("request", fmt.Sprintf("%s %s", f.req.Method, f.req.URL))
		if f.err != nil {
			line("error", f.err.Error())
		} else {
			line("answer", fmt.Sprintf("%d %s", f.status, http.StatusText(f.status)))
		}
		if auth, ok := errors.AsType[*requestforge.AuthError](f.err); ok {
			line("step", auth.Step)
			answer, _ := auth.Answer() // all that was sent there is masked
			line("answer", string(answer))
		}
		line("Explain", string(transport.Explain(f.req).Reason))
	}
	line("State", tokens.State(context.Background()).String())
	st := tokens.Stats()
	if st.StorageErrors > 0 {
		line("storage", fmt.Sprintf("%d calls have failed", st.StorageErrors))
	}
	line("to do", hint(f, st))
}

// hint says where to look, and which of setup's settings to change.
func hint(f *failure, st requestforge.Stats) string {
	if f == nil {
		if st.StorageErrors > 0 {
			return "Bring the storage back; requests go on. Until then each process logs in by itself\n" +
				"and hears of no revocation but its own."
		}
		return "Nothing: no request has failed."
	}
	auth, ok := errors.AsType[*requestforge.AuthError](f.err)
	switch {
	case !ok && f.status == http.StatusUnauthorized:
		return "The API refuses the token, and the request's log record says in gave_up why that came back:\n" +
			"\"no replays left\" with AuthRetry at 0 is your own setting; an error there is the login's;\n" +
			"else ask whether the token is meant for this API."
	case !ok:
		return "The API is at fault, or the network; there was a token."
	case auth.Permanent && auth.Step == "app_token":
		return "The auth server doesn't take this client any more: correct CLIENT_ID and CLIENT_SECRET,\n" +
			"and start again. With ClientAuth.SecretFrom a corrected secret counts at the next call."
	case auth.Permanent || auth.StatusCode == http.StatusUnauthorized || auth.StatusCode == http.StatusForbidden:
		return "The auth server doesn't take this user: correct USERNAME and PASSWORD, and start again."
	case auth.StatusCode == 0 || auth.StatusCode >= 500:
		return "The auth server is down, or AUTH_URL leads elsewhere. Live tokens go on being used; a login\n" +
			"is tried at the time after \"next try\", once for all callers. There is nothing to restart."
	}
	return "The auth server answers what nobody expected: compare the step with its documentation."
}

// deadStorage is like a Redis that is down: each call finds that no server listens
// at the address.
type deadStorage struct{}

func (deadStorage) dial() error {
	conn, err := net.Dial("tcp", "127.0.0.1:1")
	if err == nil {
		conn.Close()
		return errors.New("there is no storage at port 1")
	}
	return err
}

func (d deadStorage) Load(context.Context, ...string) ([]requestforge.Entry, error) {
	return nil, d.dial()
}

func (d deadStorage) Save(context.Context, string, requestforge.Record, uint64) (requestforge.Entry, error) {
	return requestforge.Entry{}, d.dial()
}

func (d deadStorage) Revoke(context.Context, string, uint64) error { return d.dial() }

func (d deadStorage) Delete(context.Context, string, uint64) (requestforge.Entry, error) {
	return requestforge.Entry{}, d.dial()
}
