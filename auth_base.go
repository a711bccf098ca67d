// Where a request goes whose base URL comes from the login: Config.BaseURLFrom.

package requestforge

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/mistake"
	"github.com/requestforge/requestforge/internal/redact"
)

// mover moves URLs below a base to the same path below a token's own base.
type mover struct {
	base *baseURL
	from func(tok *Token) (string, error)

	// last is the base of the last token that wasn't a pipeline's or StaticToken's,
	// which keep their own.
	last atomic.Pointer[knownBase]
}

// holds reports whether u is moved. m may be nil: nothing is.
func (m *mover) holds(u *url.URL) bool { return m != nil && m.base.holds(u) }

// move writes to moved where u goes with tok on it.
func (m *mover) move(u *url.URL, tok *Token, moved *url.URL) error {
	base, err := m.baseOf(tok)
	if err != nil {
		return err
	}
	*moved = *u
	moved.Scheme, moved.Host = base.Scheme, base.Host
	moved.Path, moved.RawPath = base.move(u, m.base)
	return nil
}

// baseOf returns the base of tok, which is parsed once a token.
func (m *mover) baseOf(tok *Token) (*baseURL, error) {
	cache := &m.last
	if tok.prov != nil {
		cache = &tok.prov.base
	}
	if base := cache.Load().find(m, tok); base != nil {
		return base, nil
	}
	raw, err := askBase(m.from, tok)
	if err != nil {
		return nil, baseError(redact.Words(err))
	}
	base, err := parseTokenBase(raw, tok)
	if err != nil {
		return nil, baseError(err)
	}
	cache.Store(cache.Load().and(m, tok, base))
	return base, nil
}

// baseError is an error about what BaseURLFrom did.
func baseError(err error) error {
	return mistake.Final(fmt.Errorf("requestforge: BaseURLFrom: %w; nothing was sent", err))
}

// askBase calls a BaseURLFrom. A panic there is an error.
func askBase(from func(*Token) (string, error), tok *Token) (raw string, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &flight.PanicError{Value: value}
		}
	}()
	return from(tok)
}

// maxBaseURL is in bytes, and more than any URL has that is the beginning of others.
const maxBaseURL = 2048

// leastSecret is the length in bytes from which a token is looked for in a URL: a shorter
// one, the number of a session, may be there by chance.
const leastSecret = 8

// holdsSecret reports whether raw, a URL, holds secret, however that is escaped.
func holdsSecret(raw, secret string) bool {
	if len(secret) < leastSecret {
		return false
	}
	for range 3 {
		if strings.Contains(raw, secret) {
			return true
		}
		plain, err := url.PathUnescape(raw)
		if err != nil {
			return false
		}
		raw = plain
	}
	return false
}

// parseTokenBase returns the base URL in raw. The error shows nothing of raw if that
// holds one of tok's secrets.
func parseTokenBase(raw string, tok *Token) (*baseURL, error) {
	switch {
	case raw == "":
		return nil, errors.New("it returned no URL")
	case len(raw) > maxBaseURL:
		return nil, fmt.Errorf("it returned a URL of more than %d bytes", maxBaseURL)
	case holdsSecret(raw, tok.AccessToken), holdsSecret(raw, tok.RefreshToken):
		return nil, errors.New("it returned a URL that holds the token itself")
	}
	base, faults := parseBaseURL(raw)
	if faults != nil {
		return nil, errors.New(strings.Join(faults, "; "))
	}
	return base, nil
}
