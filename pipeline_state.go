// What each step of a pipeline is at, for whoever looks in from outside.

package requestforge

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/requestforge/requestforge/internal/format"
)

// Status says what a step is at.
type Status string

// The statuses of a step.
const (
	StatusNone     Status = "none"     // no token is known here
	StatusLive     Status = "live"     // the token can be handed out
	StatusAhead    Status = "ahead"    // live, and being renewed in the background
	StatusFetching Status = "fetching" // no live token; a fetch is under way
	StatusCooling  Status = "cooling"  // the last fetch failed; callers get that failure until NextTry
	StatusDead     Status = "dead"     // the token has expired or was revoked; the next caller fetches
)

// State is what a Pipeline knows of its steps at one instant. It holds no secret.
type State struct {
	// Steps are in an order in which parents come first.
	Steps []StepState
}

// StepState is what a Pipeline knows of one step.
type StepState struct {
	// Name is the step's.
	Name string

	// Status is what the step is at.
	Status Status

	// Expiry is that of the newest token, live or not. Zero means that there
	// is no token, or that it never expires.
	Expiry time.Time

	// NextTry is when the auth server is asked again at the earliest, while
	// the step is cooling; else zero.
	NextTry time.Time

	// LastError is the last failure of a fetch, a parent's or another
	// process's included, and LastErrorAt when it happened. A later success
	// leaves them. Nil means that no fetch has failed since the process began,
	// or since Forget.
	LastError   *AuthError
	LastErrorAt time.Time
}

// State says what each step is at, for a status page or a log. It reads what this
// process knows: nothing is fetched, nothing loaded, no caller is held up. Another
// process's token is none here until the first Token has loaded it. All steps are
// of one instant. The result is the caller's.
func (p *Pipeline) State(_ context.Context) State {
	now := time.Now()
	var all State
	for i, f := range p.ledger.facts(now) {
		all.Steps = append(all.Steps, f.state(p.graph.steps[i].Name, now))
	}
	return all
}

// state is f as users see it.
func (f *facts) state(name string, now time.Time) StepState {
	s := StepState{Name: name, Status: StatusNone}
	if f.token != nil {
		s.Expiry = f.token.tok.Expiry
	}
	if f.last != nil {
		err := *f.last.err
		s.LastError, s.LastErrorAt = &err, f.last.at
	}
	if f.failure != nil {
		s.NextTry = f.failure.until
		s.LastError = f.failure.again(now)
	}
	switch {
	case f.live && f.fetching:
		s.Status = StatusAhead
	case f.live:
		s.Status = StatusLive
	case f.fetching:
		s.Status = StatusFetching
	case f.failure != nil:
		s.Status = StatusCooling
	case f.token != nil:
		s.Status = StatusDead
	}
	return s
}

// String is a line about each step.
func (s State) String() string {
	lines := make([]string, len(s.Steps))
	for i, step := range s.Steps {
		lines[i] = step.String()
	}
	return strings.Join(lines, "\n")
}

// Format prints String for every verb.
func (s State) Format(f fmt.State, verb rune) { format.Text(f, verb, s.String()) }

// LogValue returns String.
func (s State) LogValue() slog.Value { return slog.StringValue(s.String()) }

// String says what the step is at.
func (s StepState) String() string {
	text := fmt.Sprintf("%q %s", s.Name, s.Status)
	if !s.Expiry.IsZero() {
		text += ", expires " + s.Expiry.UTC().Format(time.RFC3339)
	}
	if !s.NextTry.IsZero() {
		text += ", next try " + s.NextTry.UTC().Format(time.RFC3339)
	}
	if s.LastError != nil {
		text += fmt.Sprintf(", failed %s: %v", s.LastErrorAt.UTC().Format(time.RFC3339), s.LastError)
	}
	return text
}

// Format prints String for every verb.
func (s StepState) Format(f fmt.State, verb rune) { format.Text(f, verb, s.String()) }

// LogValue returns String.
func (s StepState) LogValue() slog.Value { return slog.StringValue(s.String()) }
