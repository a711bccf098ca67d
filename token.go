// A token, and the header values prepared for requests. token_source.go and pipeline.go are
// the sources of tokens.

package requestforge

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge/internal/format"
	"github.com/requestforge/requestforge/internal/httpname"
	"github.com/requestforge/requestforge/internal/loginjar"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/trial"
)

// Token is a token that an auth server issued for a step.
//
// A Token from a TokenSource or an Input is shared: read the Token, but don't modify the
// Token. A printed Token (fmt, encoding/json, log/slog) shows its type, its expiry and the
// names of the parts that are set, never the values. So don't use JSON to store a Token; only
// [Record.MarshalBinary] encodes the secrets. There is one exception: fmt ignores the methods
// of a value in an unexported field, and would print the secrets. Keep a *Token in such a
// field.
type Token struct {
	// AccessToken authenticates a request. AccessToken must not be empty, hold control
	// characters or have more than 64 KiB: such a token is never sent.
	AccessToken string

	// TokenType precedes the access token in the Authorization header, spelled as by
	// [Token.Type]. Empty means Bearer.
	TokenType string

	// RefreshToken gets the next token without a new login. Empty means no refresh token.
	RefreshToken string

	// Expiry is when the server stops taking the access token. The zero
	// time means never, as far as the server said.
	Expiry time.Time

	// Extra holds the further members of the server's JSON object, except members that
	// another field was read from and further copies of the two tokens. The values are JSON
	// values: nil, bool, string, json.Number (exact, whatever the size), []any and
	// map[string]any. The values may be secrets, such as an id_token, and so aren't printed
	// either. Nil means no further members.
	Extra map[string]any

	// jar holds the cookies of the login that belong to the token, see HTTPFetcher.Cookies;
	// nil: no cookies. A request carries the cookies beside the token, and the answers of an
	// API renew the cookies.
	jar *loginjar.Jar

	prov *provenance
}

// Type returns the token type for the Authorization header: Bearer if TokenType is empty, the
// usual spelling of Bearer, Basic and MAC in any case, and any other type unchanged.
func (t *Token) Type() string {
	switch {
	case t.TokenType == "", strings.EqualFold(t.TokenType, "Bearer"):
		return "Bearer"
	case strings.EqualFold(t.TokenType, "Basic"):
		return "Basic"
	case strings.EqualFold(t.TokenType, "MAC"):
		return "MAC"
	}
	return t.TokenType
}

// maxAccessToken is in bytes. Servers take 8 to 16 KiB of header in all; the largest
// tokens in use, Kerberos tickets with the groups of a user, have 48.
const maxAccessToken = 64 << 10

// validate reports why t can't be put on a request, without showing any of
// it. Bytes from 0x80 on are odd but legal in a header (RFC 9110 §5.5).
func (t *Token) validate() error {
	switch {
	case t == nil:
		return errors.New("there is no token")
	case t.AccessToken == "":
		return errors.New("the access token is empty")
	case strings.ContainsFunc(t.AccessToken, httpname.IsControl):
		return errors.New("the access token holds control characters")
	case len(t.AccessToken) > maxAccessToken:
		return fmt.Errorf("the access token has more than %d KiB, which no server takes with a request", maxAccessToken>>10)
	case t.TokenType != "" && !httpname.IsToken(t.TokenType):
		return errors.New("the token type is not one word of letters, digits and -._~ and the like")
	}
	return nil
}

// String describes t without secrets.
func (t Token) String() string {
	var b strings.Builder
	b.WriteString("Token(")
	switch {
	case t.AccessToken == "":
		b.WriteString("empty")
	case plainType(&t):
		b.WriteString(t.Type())
	default:
		b.WriteString(redact.Mask)
	}
	if t.Expiry.IsZero() {
		b.WriteString(", never expires")
	} else {
		b.WriteString(", expires " + t.Expiry.UTC().Format(time.RFC3339))
	}
	if t.RefreshToken != "" {
		b.WriteString(", can be refreshed")
	}
	if n := len(t.Extra); n > 0 {
		// The names are the server's too: their number has to do.
		b.WriteString(", " + strconv.Itoa(n) + " extra")
	}
	if n := t.jar.Len(); n > 0 {
		b.WriteString(", " + strconv.Itoa(n) + " cookies")
	}
	return b.String() + ")"
}

// plainType reports whether t's type is a well-known type. Any other type is text from the
// server, and may be a secret if TypeField is mistaken.
func plainType(t *Token) bool {
	switch t.Type() {
	case "Bearer", "Basic", "MAC", "DPoP":
		return true
	}
	return false
}

// Format prints String for every verb.
func (t Token) Format(s fmt.State, verb rune) { format.Text(s, verb, t.String()) }

// MarshalJSON returns String as a JSON string, which can't be unmarshalled into a Token. To
// store a Token, see [Record.MarshalBinary].
func (t Token) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// MarshalText returns String, for XML and the like.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// GobEncode returns an error: gob would encode the secrets.
func (t Token) GobEncode() ([]byte, error) { return nil, format.ErrGob }

// LogValue returns String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// provenance holds the origin of a token, and the prepared header values.
type provenance struct {
	origin origin // nil: from no pipeline

	// accepted is set once a server has accepted the token: from then on a refusal means that
	// the token was revoked.
	accepted atomic.Bool

	bare int32 // where in authorization the access token begins

	// base is where the token is good, see mover.
	base atomic.Pointer[knownBase]

	typ           string // the TokenType of the prepared values
	authorization string // the value of Authorization
}

// origin is a pipeline's note on a token that the pipeline issued.
type origin interface {
	// stepName returns the name of the token's step.
	stepName() string
	// of identifies the token's owner, as a comparable value.
	of() any
	// accept is called when a server has taken the token for the first time.
	accept()
	// try returns the trial of the token, which was refused, or nil if a
	// server can't be waited for.
	try(now time.Time) *trial.Trial
	// triedInVain ends the trial: the token is still refused.
	triedInVain()
}

func newProvenance(tok *Token) *provenance {
	p := new(provenance)
	p.begin(tok)
	return p
}

// begin makes p, which is zero, the provenance of tok.
func (p *provenance) begin(tok *Token) {
	p.typ, p.authorization = tok.TokenType, tok.Type()+" "+tok.AccessToken
	p.bare = int32(len(p.authorization) - len(tok.AccessToken))
}

// text is the access token, and the value of any header but Authorization.
func (p *provenance) text() string { return p.authorization[p.bare:] }

// headerValue returns the value of a header that carries t, with the token's type first
// unless the header is bare. A token of this package has a prepared value, as long as the
// token is unchanged. A token that can't be sent is an error.
func (t *Token) headerValue(bare bool) (string, error) {
	p := t.prov
	if p == nil || p.text() != t.AccessToken || p.typ != t.TokenType {
		if err := t.validate(); err != nil {
			return "", mistake.Final(fmt.Errorf("requestforge: the token can't be sent: %w", err))
		}
		p = newProvenance(t)
	}
	if bare {
		return p.text(), nil
	}
	return p.authorization, nil
}

// origin returns the pipeline's note on t, nil if t is from no pipeline.
func (t *Token) origin() origin {
	if t.prov == nil {
		return nil
	}
	return t.prov.origin
}

// another reports whether next, from the same source, belongs to another subject than t. A
// replay must not use such a token.
func (t *Token) another(next *Token) bool {
	a, b := t.origin(), next.origin()
	return a != nil && b != nil && a.of() != b.of()
}

// replacedBy reports whether next, of the same source, can be sent in the place of t.
func (t *Token) replacedBy(next *Token) bool {
	_, err := next.headerValue(false)
	return err == nil && (next.AccessToken != t.AccessToken || next.Type() != t.Type()) && !t.another(next)
}

// taken reports whether an acceptance of the token needs no note: a server has accepted the
// token before, or the token has no provenance.
func (t *Token) taken() bool {
	return t.prov == nil || t.prov.accepted.Load()
}

// accept notes that a server has accepted the token. Only the first call writes.
func (t *Token) accept() {
	p := t.prov
	if p == nil || p.accepted.Load() || !p.accepted.CompareAndSwap(false, true) || p.origin == nil {
		return
	}
	p.origin.accept()
}
