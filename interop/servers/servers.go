// What the real servers have in common. Each one has a file of its own that
// starts it.

// Package servers starts real authorization servers on loopback: some are
// handlers of Go libraries, served in this process, some are processes. What is
// done with them is in the examples and the tests of the module.
package servers

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"slices"
)

// Server is one authorization server that runs, with a resource that it
// protects. A field that is "" or nil is something it doesn't have. What isn't
// in a field is in the server's own file.
type Server struct {
	Name          string // one of Names
	Issuer        string
	TokenURL      string
	RevokeURL     string // RFC 7009
	DeviceURL     string // RFC 8628: the device authorization endpoint
	IntrospectURL string // RFC 7662

	// ResourceURL answers 200 to a GET or POST with a live access token, and
	// to any other what Refused is true for.
	ResourceURL string

	// Refused is how the resource says that a token was revoked or has
	// expired. Nil means 401.
	Refused func(*http.Response) bool

	// ClientID and ClientSecret are those of a client that may use every
	// flow that is named for this server in Flows, HTTP Basic being its way
	// to authenticate. Flows that need another client say so in their own
	// field.
	ClientID, ClientSecret string

	// Username and Password are a user's, for the password grant.
	Username, Password string

	// Scopes are to be asked for, so that ResourceURL takes the token, and
	// RefreshScopes so that a refresh token comes with it.
	Scopes, RefreshScopes []string

	// Key signs assertions (RFC 7523). KeyID, Subject and Audience go into
	// them, the subject being the issuer, too.
	Key                      crypto.Signer
	KeyID, Subject, Audience string

	// Exchange is for a token exchange (RFC 8693).
	Exchange *Exchange

	// Users are for the flows that trade a user's own token.
	Users *Users

	// Approve does what a user would in a browser: logs in and lets the
	// device with this user code have its token.
	Approve func(ctx context.Context, userCode string) error

	// KillsFamily says that a refresh token used twice takes the tokens that
	// came of it, and not just itself.
	KillsFamily bool

	// RevokesRefresh says that to revoke an access token takes its refresh
	// token along, as RFC 7009 §2.1 allows.
	RevokesRefresh bool

	close func() error
}

// Exchange is what differs from server to server in a token exchange.
type Exchange struct {
	ClientID, ClientSecret string
	SubjectTokenType       string
	Scopes                 []string
	Params                 map[string]string // fields that RFC 8693 doesn't know
}

// Close ends the server, and its process if it has one.
func (s *Server) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// starters holds one function a server, filled in by the servers' files.
var starters = map[string]func(ctx context.Context) (*Server, error){}

// Names returns the names that Start knows, sorted.
func Names() []string {
	names := make([]string, 0, len(starters))
	for name := range starters {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Start starts the server of that name and returns once it answers. The caller
// closes it. ctx bounds the start alone.
func Start(ctx context.Context, name string) (*Server, error) {
	start, ok := starters[name]
	if !ok {
		return nil, fmt.Errorf("servers: no server is called %q; there are %q", name, Names())
	}
	s, err := start(ctx)
	if err != nil {
		return nil, fmt.Errorf("servers: %s doesn't start: %w", name, err)
	}
	if s.Name != name {
		return nil, errors.Join(fmt.Errorf("servers: %q calls itself %q", name, s.Name), s.Close())
	}
	return s, nil
}
