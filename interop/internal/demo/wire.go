// The wiretap: every request of a program, by what it means.

package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/requestforge/requestforge/interop/servers"
)

// Sent is one request and what became of it.
type Sent struct {
	// What is the grant of a token request without its prefix
	// ("jwt-bearer"), "resource", "revocation", with the hint if there is one
	// ("revocation of refresh_token"), or else the path.
	What   string
	Status int

	// Refused means that the answer refuses the token, or the grant.
	Refused bool

	// Spent is the refresh token in the request, and Got the one in the
	// answer. "" means none.
	Spent, Got string
}

// String says what was sent, and whether that was "ok" or "refused"; another
// outcome is its status.
func (s Sent) String() string {
	switch {
	case s.Refused:
		return s.What + " refused"
	case s.Status/100 == 2:
		return s.What + " ok"
	}
	return fmt.Sprint(s.What, " ", s.Status)
}

// Wire is an http.RoundTripper that keeps and prints what is sent through it to
// a server. It is safe for concurrent use.
type Wire struct {
	server *servers.Server
	out    io.Writer

	mu   sync.Mutex // guards sent, and writes to out
	sent []Sent
}

// NewWire returns a Wire to s that prints to out.
func NewWire(out io.Writer, s *servers.Server) *Wire { return &Wire{server: s, out: out} }

// Client returns a client that sends through w, and follows no redirects.
func (w *Wire) Client() *http.Client {
	return &http.Client{Transport: w, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// Say prints a line of the story.
func (w *Wire) Say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.out, format+"\n", args...)
}

// Sent returns what was sent so far.
func (w *Wire) Sent() []Sent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sent)
}

// Compare returns an error unless exactly want was sent. The tries of a token that the
// server may not know yet, refused one after the other, count as one. Then it forgets
// it, so that the next chapter begins with an empty page.
func (w *Wire) Compare(want []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	got := make([]string, len(w.sent))
	for i, s := range w.sent {
		got[i] = s.String()
	}
	if got = slices.Compact(got); !slices.Equal(got, slices.Compact(slices.Clone(want))) {
		return fmt.Errorf("%s: sent over the wire:\n\t%s\nwant:\n\t%s", w.server.Name,
			strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	w.sent = nil
	return nil
}

// Revoke has the server revoke token (RFC 7009), an access or a refresh token
// of the client.
func (w *Wire) Revoke(ctx context.Context, id, secret, token string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.server.RevokeURL,
		strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	resp, err := w.Client().Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s doesn't revoke the token: %s", w.server.Name, resp.Status)
	}
	return nil
}

// RoundTrip sends req by http.DefaultTransport.
func (w *Wire) RoundTrip(req *http.Request) (*http.Response, error) {
	sent := Sent{What: req.URL.Path}
	switch to := req.URL.String(); to {
	case w.server.TokenURL:
		form, again, err := readForm(req)
		if err != nil {
			return nil, err
		}
		req = again
		grant := form.Get("grant_type")
		sent.What = grant[strings.LastIndexByte(grant, ':')+1:]
		sent.Spent = form.Get("refresh_token")
	case w.server.ResourceURL:
		sent.What = "resource"
	case w.server.RevokeURL:
		form, again, err := readForm(req)
		if err != nil {
			return nil, err
		}
		req = again
		sent.What = "revocation"
		if hint := form.Get("token_type_hint"); hint != "" {
			sent.What += " of " + hint
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	sent.Status = resp.StatusCode
	switch req.URL.String() {
	case w.server.TokenURL:
		sent.Refused = resp.StatusCode/100 == 4
		sent.Got, err = readRefreshToken(resp)
		if err != nil {
			return nil, err
		}
	case w.server.ResourceURL:
		refused := w.server.Refused
		if refused == nil {
			refused = func(resp *http.Response) bool { return resp.StatusCode == http.StatusUnauthorized }
		}
		sent.Refused = refused(resp)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, sent)
	fmt.Fprintf(w.out, "    %-28s %s\n", sent.What, resp.Status)
	return resp, nil
}

// readForm returns the form in req, and req with its body once more.
func readForm(req *http.Request) (url.Values, *http.Request, error) {
	body, err := io.ReadAll(req.Body)
	req.Body.Close()
	if err != nil {
		return nil, nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, nil, err
	}
	again := *req
	again.Body = io.NopCloser(bytes.NewReader(body))
	return form, &again, nil
}

// readRefreshToken returns the refresh token in resp, and leaves the body as it
// was.
func readRefreshToken(resp *http.Response) (string, error) {
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return "", err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	json.Unmarshal(body, &answer) // what isn't JSON has no refresh token
	return answer.RefreshToken, nil
}
