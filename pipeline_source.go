// The token of any step of a pipeline as a source.

package requestforge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/requestforge/requestforge/internal/format"
	"github.com/requestforge/requestforge/internal/mistake"
)

// Source returns the source of a step's tokens, for a second credential on each request or
// a second API.
//
//	tokens, err := requestforge.NewPipeline(…)  // device ─► app ─► user
//	inner := &requestforge.AuthTransport{Source: tokens.Source("user"), …}
//	outer := &requestforge.AuthTransport{Base: inner, Source: tokens.Source("app"), …}
//
// The source works like the pipeline, for its step. Token costs the same, renews ahead of
// expiry while in use, and shares each fetch with all users of the step's token. Invalidate
// blames the step first, or RefreshFrom if the step is made from RefreshFrom, and climbs
// from there. Refusals and acceptances count for each step separately, but a dead token
// takes all tokens made from it along.
//
// A Fetcher may ask the source of an ancestor of its own step.
//
// The source for an unknown name has no token but an error that says so; NewTransport, and
// AuthTransport before each send, report the mistake, too. A source is safe for concurrent
// use, and equal to any other source of its step.
func (p *Pipeline) Source(step string) TokenSource {
	if p.graph == nil {
		return noSource{errUnmade}
	}
	s := p.graph.step(step)
	if s == nil {
		var names []string
		for _, s := range slices.Concat(p.graph.steps, p.graph.given) {
			names = append(names, strconv.Quote(s.Name))
		}
		return noSource{mistake.Final(fmt.Errorf("requestforge: %q is no step of the pipeline; its steps are %s", step, strings.Join(names, ", ")))}
	}
	return stepSource{p, s}
}

var errUnmade = mistake.Final(errors.New("requestforge: the Pipeline was not made by NewPipeline"))

// check returns why Token of p can never have a token; else nil.
func (p *Pipeline) check() error {
	if p.graph == nil {
		return errUnmade
	}
	return p.graph.noLeaf
}

// keepsCookies reports whether tokens of p may have cookies of their own, and so need no
// place on a request.
func (p *Pipeline) keepsCookies() bool { return p != nil && p.graph != nil && p.graph.cookies }

// stepSource is the source of a step.
type stepSource struct {
	p    *Pipeline // not only parts of p: an unreachable pipeline stops listening
	step *step
}

func (s stepSource) keepsCookies() bool { return s.p.keepsCookies() }

func (s stepSource) Token(ctx context.Context) (*Token, error) {
	if tok := s.ready(ctx); tok != nil {
		return tok, nil
	}
	return s.p.fetched(ctx, s.step)
}

func (s stepSource) Invalidate(ctx context.Context, rejected *Token) error {
	return s.p.refused(ctx, s.step, rejected)
}

func (s stepSource) ready(ctx context.Context) *Token { return s.p.live(ctx, s.step) }

// answers and answer are the pipeline's: the token knows its step.
func (s stepSource) answers(tok *Token) bool { return s.p.answers(tok) }

func (s stepSource) answer(ctx context.Context, tok *Token, asked map[string]string) (*Token, error) {
	return s.p.answer(ctx, tok, asked)
}

// missing is the pipeline's, of the step.
func (s stepSource) missing(ctx context.Context) error { return s.p.missingFor(ctx, s.step) }

// Format prints the step of the source.
func (s stepSource) Format(f fmt.State, verb rune) {
	format.Text(f, verb, fmt.Sprintf("Source(%q)", s.step.Name))
}

// noSource has no token, only the reason.
type noSource struct{ err error }

func (s noSource) Token(context.Context) (*Token, error)    { return nil, s.err }
func (s noSource) Invalidate(context.Context, *Token) error { return nil }
func (s noSource) check() error                             { return s.err }
