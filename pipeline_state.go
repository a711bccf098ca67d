// The state of each step of a pipeline, for observers.

package requestforge

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/requestforge/requestforge/internal/format"
)

// Status is the state of a step in a word.
type Status string

// The statuses of a step.
const (
	StatusNone     Status = "none"     // no token is known here
	StatusLive     Status = "live"     // the token can be handed out
	StatusAhead    Status = "ahead"    // live, and being renewed in the background
	StatusFetching Status = "fetching" // no live token; a fetch is under way
	StatusCooling  Status = "cooling"  // the last fetch failed; callers get the failure until NextTry
	StatusDead     Status = "dead"     // the token has expired or was revoked; the next caller fetches
)

// State is what a Pipeline knows about its steps at one instant. A State holds no secret.
type State struct {
	// Steps are in an order in which parents come first.
	Steps []StepState

	// Labelled reports whether PipelineConfig.SubjectLabel is set, so that
	// [WithSubjectLabel] finds subjects.
	Labelled bool
}

// StepState is what a Pipeline knows about a step.
type StepState struct {
	// Name is the step's.
	Name string

	// Parents are the names in Step.DependsOn, including given steps.
	Parents []string

	// PerSubject reports whether each subject has a token of the step.
	PerSubject bool

	// Status is the state of the step.
	Status Status

	// Expiry is the expiry of the newest token, live or not. Zero means no token, or a
	// token that never expires.
	Expiry time.Time

	// NextTry is when the auth server is asked again at the earliest, while
	// the step is cooling; else zero.
	NextTry time.Time

	// LastError is the last failure of a fetch, including failures of parents and of other
	// processes, and LastErrorAt the time of the failure. A later success leaves both. Nil
	// means no failed fetch since the process began, or since Forget. If Subjects is set,
	// LastError is the newest failure of all counted subjects.
	LastError   *AuthError
	LastErrorAt time.Time

	// Subjects counts the subjects in memory by their status, for a step of each subject's
	// own and a context without a subject. Nil otherwise.
	Subjects map[Status]int
}

// State returns the state of each step, for a status page or a log. It reads the knowledge
// of this process: nothing is fetched, nothing loaded, no caller held up. A token of
// another process counts as none until the first Token has loaded the token. The shared
// steps are of one instant, and so are the steps of a subject. The result is the caller's.
//
// With PipelineConfig.Subject, the steps of each subject's own are those of ctx's subject.
// For a ctx without a subject, StepState.Subjects counts all subjects in memory; see
// [WithSubjectLabel] for a selection. Given steps have no state and are left out.
func (p *Pipeline) State(ctx context.Context) State {
	now := time.Now()
	all := State{Labelled: p.events.label != nil}
	for i, f := range p.ledger.facts(now) {
		all.Steps = append(all.Steps, f.state(p.ledger.own()[i], now))
	}
	if p.subjects == nil {
		return all
	}
	shared := len(all.Steps)
	for _, s := range p.graph.steps[shared:] {
		all.Steps = append(all.Steps, s.state())
	}
	own := all.Steps[shared:]
	label, labelled := ctx.Value(labelKey{}).(string)
	if !labelled {
		if id, err := p.subject(ctx); err == nil {
			p.subjects.get(nameOf(id)).fill(own, now)
			return all
		}
	}
	of := p.subjects.all()
	if labelled {
		of = p.subjects.labelled(label)
	}
	if labelled && len(of) == 1 {
		of[0].fill(own, now)
		return all
	}
	count(own, of, now)
	return all
}

// labelKey is where a context has the label of WithSubjectLabel.
type labelKey struct{}

// WithSubjectLabel returns a context for [Pipeline.State] that selects subjects by label,
// for a status page with a search field. The steps of each subject's own are then those of
// the subject in memory whose PipelineConfig.SubjectLabel is label. If no subject or
// several subjects have the label, StepState.Subjects counts them. The subject of ctx is
// ignored, and other methods ignore the label. SubjectLabel is called for each subject in
// memory.
func WithSubjectLabel(ctx context.Context, label string) context.Context {
	return context.WithValue(ctx, labelKey{}, label)
}

// fill writes the state of a subject, who may be nil, into the subject's own steps.
func (s *subject) fill(own []StepState, now time.Time) {
	if s == nil {
		return
	}
	for i, f := range s.ledger.facts(now) {
		own[i] = f.state(s.ledger.own()[i], now)
	}
}

// count writes the number of subjects by status, and the newest failure, into each step.
func count(own []StepState, of []*subject, now time.Time) {
	for i := range own {
		own[i].Subjects = make(map[Status]int)
	}
	for _, sub := range of {
		for i, f := range sub.ledger.facts(now) {
			s := &own[i]
			s.Subjects[f.status()]++
			if f.last != nil && f.last.at.After(s.LastErrorAt) {
				err := *f.last.err
				s.LastError, s.LastErrorAt = &err, f.last.at
			}
		}
	}
}

// state is a step of which nothing is known.
func (s *step) state() StepState {
	return StepState{Name: s.Name, Parents: slices.Clone(s.DependsOn), PerSubject: s.perSubject, Status: StatusNone}
}

// state is f, the facts of step, for users.
func (f *facts) state(step *step, now time.Time) StepState {
	s := step.state()
	s.Status = f.status()
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
	return s
}

// status is the state of the step.
func (f *facts) status() Status {
	switch {
	case f.live && f.fetching:
		return StatusAhead
	case f.live:
		return StatusLive
	case f.fetching:
		return StatusFetching
	case f.failure != nil:
		return StatusCooling
	case f.token != nil:
		return StatusDead
	}
	return StatusNone
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

// String describes the state of the step.
func (s StepState) String() string {
	text := fmt.Sprintf("%q %s", s.Name, s.Status)
	if s.Subjects != nil {
		text = fmt.Sprintf("%q", s.Name)
		for _, status := range slices.Sorted(maps.Keys(s.Subjects)) {
			text += fmt.Sprintf(" %s %d", status, s.Subjects[status])
		}
	}
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
