// How the story is told: log records in a few words, and the servers' counters beside
// them. The story itself is main.go's.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/requestforge/requestforge"
)

// story is a slog.Handler that prints at the end of an act one line for all records that
// are alike.
type story struct {
	out   io.Writer
	realm *realm

	mu     sync.Mutex       // guards what follows, and out
	acts   int              // begun so far
	before map[string]count // when the act began
	alike  []event          // in the order of their first
}

// event is what happened to a step some times in an act.
type event struct {
	step, what string
	times      int
}

// act ends the act before and begins another.
func (s *story) act(title string, args ...any) {
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acts++
	s.before = s.realm.seen()
	fmt.Fprintf(s.out, "%d  %s\n", s.acts, fmt.Sprintf(title, args...))
}

// end prints what happened in the act, and what the servers counted.
func (s *story) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acts == 0 {
		return
	}
	for _, e := range s.alike {
		s.print(e.step, fmt.Sprintf("%d × %s", e.times, e.what))
	}
	s.alike = nil
	var given, served, refused int
	for name, now := range s.realm.seen() {
		switch before := s.before[name]; {
		case strings.HasPrefix(name, "at "):
			served += now.ok - before.ok
			refused += now.refused - before.refused
		case name != "session":
			given += now.ok - before.ok
		}
	}
	s.print("counted", fmt.Sprintf("tokens given out %d, requests at the backends %d (%d refused)", given, served+refused, refused))
	fmt.Fprintln(s.out)
}

// summary ends the last act and prints the counters of the whole story.
func (s *story) summary(c *crowd, st requestforge.Stats) {
	s.end()
	seen := s.realm.seen()
	fmt.Fprintf(s.out, "%-26s%10s%10s\n", "In all", "yes", "no")
	for _, row := range []struct{ what, name string }{
		{"sessions confirmed", "session"},
		{"app tokens", "app"},
		{"exchanged for the company", "company"},
		{"exchanged for orders", "orders"},
		{"exchanged for invoices", "invoices"},
		{"served by orders", "at orders"},
		{"served by invoices", "at invoices"},
	} {
		fmt.Fprintf(s.out, "   %-23s%10d%10d\n", row.what, seen[row.name].ok, seen[row.name].refused)
	}
	fmt.Fprintf(s.out, "\n%d users sent %d requests. %d users are in memory, %d times one was dropped.\n",
		len(c.sessions), c.asked.Load(), st.Subjects, st.Evicted)
	fmt.Fprintf(s.out, "Answers that were somebody else's: %d. Refusals of users who have a session: %d\n",
		c.others.Load(), c.refused.Load())
}

// line prints who did what.
func (s *story) line(who, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.print(who, what)
}

func (s *story) print(who, what string) { fmt.Fprintf(s.out, "   %-12s%s\n", who, what) }

// Enabled leaves the details to the JSON of -v.
func (s *story) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// WithAttrs and WithGroup: nothing in this program uses them.
func (s *story) WithAttrs([]slog.Attr) slog.Handler { return s }
func (s *story) WithGroup(string) slog.Handler      { return s }

// Handle counts a record with those that are like it.
func (s *story) Handle(_ context.Context, r slog.Record) error {
	step, what := "pipeline", strings.TrimPrefix(r.Message, "requestforge: ")
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "step":
			step = a.Value.String()
		case "error":
			what += ", " + why(a.Value)
		}
		return true
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.alike, func(e event) bool { return e.step == step && e.what == what })
	if i < 0 {
		i = len(s.alike)
		s.alike = append(s.alike, event{step: step, what: what})
	}
	s.alike[i].times++
	return nil
}

// why is an error in a few words: the auth server's status if it answered.
func why(v slog.Value) string {
	err, ok := v.Any().(error)
	if !ok {
		return v.String()
	}
	if auth := new(requestforge.AuthError); errors.As(err, &auth) && auth.StatusCode != 0 {
		return fmt.Sprintf("%d %s", auth.StatusCode, http.StatusText(auth.StatusCode))
	}
	return "no answer"
}
