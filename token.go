// A token, and the header values ready-made from it. token_source.go and
// pipeline.go say where tokens come from.

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
	"github.com/requestforge/requestforge/internal/redact"
)

// Token is what an auth server gave out for one step.
//
// A Token that a TokenSource or an Input hands out is shared: read it, don't
// change it. However it is printed (fmt, encoding/json, log/slog), it shows
// its type, its expiry and which parts are set, never their values. So JSON
// is no way to store one; [Record.MarshalBinary] is the one encoding that
// holds secrets. One thing can't be helped: fmt asks no value in an
// unexported field how it wants to be printed. Keep a *Token there.
type Token struct {
	// AccessToken is what authenticates a request. It must not be empty
	// nor hold control characters: such a token is never sent.
	AccessToken string

	// TokenType goes before the access token in the Authorization header,
	// as [Token.Type] spells it. Empty means Bearer.
	TokenType string

	// RefreshToken gets the next token without a new login. Empty means
	// that there is none.
	RefreshToken string

	// Expiry is when the server stops taking the access token. The zero
	// time means never, as far as the server said.
	Expiry time.Time

	// Extra is what else the server sent: the members of its JSON object
	// that no other field was read from, without further copies of the
	// two tokens. The values are JSON's: nil, bool, string, json.Number
	// (exact, whatever the size), []any and map[string]any. They may well
	// be secrets, an id_token say, and so aren't printed either. Nil means
	// that there was nothing else.
	Extra map[string]any

	prov *provenance
}

// Type returns the token type as the Authorization header wants it: Bearer
// if there is none, the usual spelling of Bearer, Basic and MAC in whatever
// case the server gave them, any other as it is.
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
	case t.TokenType != "" && !httpname.IsToken(t.TokenType):
		return errors.New("the token type is not one word of letters, digits and -._~ and the like")
	}
	return nil
}

// String returns t without its secrets.
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
	return b.String() + ")"
}

// plainType reports whether t's type is one that everybody knows. Any other is
// the server's word, and may be a secret if TypeField is mistaken.
func plainType(t *Token) bool {
	switch t.Type() {
	case "Bearer", "Basic", "MAC", "DPoP":
		return true
	}
	return false
}

// Format prints String for every verb.
func (t Token) Format(s fmt.State, verb rune) { format.Text(s, verb, t.String()) }

// MarshalJSON returns String as a JSON string, which doesn't unmarshal into a
// Token again. To store one, see [Record.MarshalBinary].
func (t Token) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// LogValue returns String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// provenance is where a token came from, and what is ready-made for putting it
// on a request.
type provenance struct {
	origin origin // nil: from no pipeline

	// accepted is set once a server has taken the token: from then on a
	// refusal means that it was revoked.
	accepted atomic.Bool

	typ           string   // the TokenType that these were made with
	authorization []string // the value of Authorization
	bare          []string // the value of any other header
}

// origin is a pipeline's note on a token of its own.
type origin interface {
	// accept is called when a server has taken the token for the first time.
	accept()
}

func newProvenance(tok *Token) *provenance {
	return &provenance{
		typ:           tok.TokenType,
		authorization: []string{tok.Type() + " " + tok.AccessToken},
		bare:          []string{tok.AccessToken},
	}
}

// origin returns the pipeline's note on t, nil if t is from no pipeline.
func (t *Token) origin() origin {
	if t.prov == nil {
		return nil
	}
	return t.prov.origin
}

// accept notes that a server has taken the token. Every response calls accept, so
// only the first call writes.
func (t *Token) accept() {
	p := t.prov
	if p == nil || p.accepted.Load() || !p.accepted.CompareAndSwap(false, true) || p.origin == nil {
		return
	}
	p.origin.accept()
}
