// What steps, configs and pipelines look like when they are printed: what they
// are, and no secret.

package requestforge

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/requestforge/requestforge/internal/format"
)

// String says which step it is and what of it is set. Fetchers of the
// application's own appear as their type.
func (s Step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Step(%q", s.Name)
	for i, parent := range s.DependsOn {
		b.WriteString([]string{" after ", ", "}[min(i, 1)] + strconv.Quote(parent))
	}
	for _, f := range []struct {
		name    string
		fetcher Fetcher
	}{{"Fetcher", s.Fetcher}, {"Refresh", s.Refresh}} {
		switch f.fetcher.(type) {
		case nil:
		case *HTTPFetcher:
			fmt.Fprintf(&b, ", %s %v", f.name, f.fetcher)
		default:
			fmt.Fprintf(&b, ", %s %T", f.name, f.fetcher)
		}
	}
	if s.Given != nil {
		b.WriteString(", given")
	}
	if s.PerSubject {
		b.WriteString(", per subject")
	}
	if s.AnswersChallenges {
		b.WriteString(", answers challenges")
	}
	if s.TTL != 0 {
		fmt.Fprintf(&b, ", TTL %v", s.TTL)
	}
	if s.ExpireEarly != 0 {
		fmt.Fprintf(&b, ", ExpireEarly %v", s.ExpireEarly)
	}
	if s.Timeout != 0 {
		fmt.Fprintf(&b, ", Timeout %v", s.Timeout)
	}
	if s.IdleLimit != 0 {
		fmt.Fprintf(&b, ", IdleLimit %v", s.IdleLimit)
	}
	if s.Revoke != nil {
		b.WriteString(", revoked")
	}
	return b.String() + ")"
}

// Format prints String for every verb.
func (s Step) Format(f fmt.State, verb rune) { format.Text(f, verb, s.String()) }

// MarshalJSON returns String as a JSON string.
func (s Step) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalText returns String, for XML and the like.
func (s Step) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// GobEncode is an error: what gob writes could be read back, secrets and all.
func (s Step) GobEncode() ([]byte, error) { return nil, format.ErrGob }

// LogValue returns String.
func (s Step) LogValue() slog.Value { return slog.StringValue(s.String()) }

// String says what of c is set. The storage appears as its type.
func (c PipelineConfig) String() string {
	parts := []string{fmt.Sprintf("Steps: %v", c.Steps)}
	add := func(set bool, name, format string, value any) {
		if set {
			parts = append(parts, fmt.Sprintf(name+": "+format, value))
		}
	}
	add(c.Subject != nil, "Subject", "%s", "set")
	add(c.MaxSubjects != 0, "MaxSubjects", "%d", c.MaxSubjects)
	add(c.Carry != nil, "Carry", "%s", "set")
	add(c.SubjectLabel != nil, "SubjectLabel", "%s", "set")
	add(c.MaxFetches != 0, "MaxFetches", "%d", c.MaxFetches)
	add(c.Leaf != "", "Leaf", "%q", c.Leaf)
	add(c.Storage != nil, "Storage", "%T", c.Storage)
	add(c.KeyPrefix != "", "KeyPrefix", "%q", c.KeyPrefix)
	add(c.RefreshFrom != "", "RefreshFrom", "%q", c.RefreshFrom)
	add(c.FetchTimeout != 0, "FetchTimeout", "%v", c.FetchTimeout)
	add(c.FetchRetries != 0, "FetchRetries", "%d", c.FetchRetries)
	add(c.StorageTimeout != 0, "StorageTimeout", "%v", c.StorageTimeout)
	add(c.CoolDown != 0, "CoolDown", "%v", c.CoolDown)
	add(c.MaxCoolDown != 0, "MaxCoolDown", "%v", c.MaxCoolDown)
	add(c.RefreshAhead != 0, "RefreshAhead", "%v", c.RefreshAhead)
	add(c.RevokeReplaced != 0, "RevokeReplaced", "%v", c.RevokeReplaced)
	add(c.KeepAnswers, "KeepAnswers", "%v", c.KeepAnswers)
	add(c.Logger != nil, "Logger", "%T", c.Logger)
	return "requestforge.PipelineConfig{" + strings.Join(parts, ", ") + "}"
}

// Format prints String for every verb.
func (c PipelineConfig) Format(s fmt.State, verb rune) { format.Text(s, verb, c.String()) }

// MarshalJSON returns String as a JSON string.
func (c PipelineConfig) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// MarshalText returns String, for XML and the like.
func (c PipelineConfig) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// GobEncode is an error: what gob writes could be read back, secrets and all.
func (c PipelineConfig) GobEncode() ([]byte, error) { return nil, format.ErrGob }

// LogValue returns String.
func (c PipelineConfig) LogValue() slog.Value { return slog.StringValue(c.String()) }

// String names p's steps, parents first.
func (p *Pipeline) String() string {
	var names []string
	if p.graph != nil { // else nobody made p
		for _, s := range slices.Concat(p.graph.given, p.graph.steps) {
			names = append(names, strconv.Quote(s.Name))
		}
	}
	return "Pipeline(" + strings.Join(names, ", ") + ")"
}

// Format prints String for every verb.
func (p *Pipeline) Format(s fmt.State, verb rune) { format.Text(s, verb, p.String()) }

// LogValue returns String.
func (p *Pipeline) LogValue() slog.Value { return slog.StringValue(p.String()) }
