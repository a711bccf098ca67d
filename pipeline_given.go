// Tokens that arrive with the request, as roots of other steps' tokens: asked for when a
// dependent step is fetched, neither stored nor renewed.

package requestforge

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
	"github.com/requestforge/requestforge/internal/redact"
)

var errGiven = errors.New("no usable token came with the request")

// givenTokens are the given tokens of one fetch.
//
// The invariant: a fetch asks for each given token once, for all its tries.
type givenTokens struct{ taken []*held }

// take returns the token that Given of s has for ctx.
func (g *givenTokens) take(ctx context.Context, s *step, hanging *flight.Limit) (*held, error) {
	if i := slices.IndexFunc(g.taken, func(h *held) bool { return h.step == s }); i >= 0 {
		return g.taken[i], nil
	}
	tok, err := given(ctx, s, hanging)
	if err != nil {
		return nil, err
	}
	h := &held{step: s, tok: tok, issued: time.Now(), until: nanoseconds(tok.Expiry)}
	g.taken = append(g.taken, h)
	return h, nil
}

// brought returns the given tokens that a fetch of s would use for ctx.
func brought(ctx context.Context, s *step, hanging *flight.Limit) (g givenTokens, err error) {
	for _, p := range s.parents {
		if p.Given != nil {
			if _, err := g.take(ctx, p, hanging); err != nil {
				return g, err
			}
		}
	}
	return g, nil
}

// print is a fingerprint of the tokens, different for the tokens of another request. ""
// means no tokens.
func (g *givenTokens) print() string {
	if len(g.taken) == 0 {
		return ""
	}
	h := sha256.New()
	for _, t := range g.taken {
		fmt.Fprintf(h, "%q %q %q ", t.step.Name, t.tok.AccessToken, t.tok.TokenType)
	}
	return string(h.Sum(nil))
}

// given returns the token that Given of s has for ctx, as a copy of the package's own.
// hanging counts the calls left behind.
func given(ctx context.Context, s *step, hanging *flight.Limit) (*Token, error) {
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.timeout, &fetchTimeout{after: s.timeout})
		defer cancel()
	}
	raw, err := flight.Bounded(ctx, hanging, func(ctx context.Context) (*Token, error) { return s.Given(ctx) }, nil)
	if err != nil {
		return nil, givenError(s, redact.Inner(err))
	}
	if err := raw.validate(); err != nil {
		return nil, givenError(s, err)
	}
	if !raw.Expiry.IsZero() && !raw.Expiry.After(time.Now()) {
		return nil, givenError(s, errors.New("the given token has expired"))
	}
	tok := *raw
	tok.jar = nil
	tok.prov = newProvenance(&tok)
	return &tok, nil
}

func givenError(s *step, err error) error {
	return &AuthError{Step: s.Name, Permanent: true, Unsent: true, Err: fmt.Errorf("%w: %w", errGiven, err)}
}

// fetched returns the parents that were not given: a given token can't be fetched anew.
func fetched(parents []*held) []*held {
	return slices.DeleteFunc(slices.Clone(parents), func(h *held) bool { return h.step.Given != nil })
}
