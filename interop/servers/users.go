// Users who come with a token of their own, for the flows that trade it, and what
// the draft of the identity assertion authorization grant (ID-JAG) adds to RFC 8693
// and RFC 7523.

package servers

import "context"

// Users are those of a server that has many.
type Users struct {
	Names []string

	// Login returns tokens of the user as a login in a browser would: an access
	// token of the server, and an ID token.
	Login func(ctx context.Context, user string) (access, id string, err error)

	// Lock has the server refuse each token of the user in an exchange, from now
	// on. What was exchanged before lives on.
	Lock func(ctx context.Context, user string) error

	// StartNext starts another server, of the same kind, that takes the ID-JAGs
	// that this one issues for it. The caller closes it.
	StartNext func(ctx context.Context) (*Server, error)
}

// userNames are everybody's at the servers with many users.
var userNames = []string{"ann", "bob", "cy"}

// What the draft calls an ID-JAG, as a type of token and as the typ of its header
// (draft-ietf-oauth-identity-assertion-authz-grant, §3.1 and §4.3).
const (
	idJAGType   = "urn:ietf:params:oauth:token-type:id-jag"
	idJAGHeader = "oauth-id-jag+jwt"
)
