// How the story is told: log records in a few words, and the servers' counters
// beside them. The story itself is main.go's.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// story is a slog.Handler that prints a line for each record of the pipeline,
// and at the end of an act one for all requests that ended alike.
type story struct {
	out io.Writer
	srv *authtest.Server

	mu     sync.Mutex     // guards what follows, and out
	acts   int            // begun so far
	before authtest.Stats // when the act began
	alike  []outcome      // of requests, in the order of their first
}

// outcome is how some requests of an act ended.
type outcome struct {
	path, how string
	requests  int
}

// act ends the act before and begins another.
func (s *story) act(title string) {
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acts++
	s.before = s.srv.Stats()
	fmt.Fprintf(s.out, "%d  %s\n", s.acts, title)
}

// end prints how the act's requests ended, and the servers' counters.
func (s *story) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acts == 0 {
		return
	}
	for _, o := range s.alike {
		s.print(o.path, fmt.Sprintf("%d × %s", o.requests, o.how))
	}
	s.alike = nil
	now, asked := s.srv.Stats(), 0
	for _, name := range []string{"app_token", "user_token"} {
		st := now.Steps[name]
		n := st.Fetches.Attempted - s.before.Steps[name].Fetches.Attempted
		if asked += n; n == 0 && st.Live > 0 {
			s.print(name, "cached")
		}
	}
	s.print("counted", fmt.Sprintf("auth server %d, API %d (%d refused)", asked,
		now.API.Attempted-s.before.API.Attempted, now.API.Refused-s.before.API.Refused))
	fmt.Fprintln(s.out)
}

// summary ends the last act and prints the counters of the whole story.
func (s *story) summary(c *crowd) {
	s.end()
	st := s.srv.Stats()
	fmt.Fprintf(s.out, "%-16s%10s%10s%10s%10s\n", "In all", "requests", "served", "refused", "failed")
	for _, row := range []struct {
		name string
		authtest.Count
	}{
		{"app_token", st.Steps["app_token"].Fetches},
		{"user_token", st.Steps["user_token"].Fetches},
		{"API", st.API},
	} {
		fmt.Fprintf(s.out, "   %-13s%10d%10d%10d%10d\n", row.name, row.Attempted, row.OK, row.Refused, row.Failed)
	}
	fmt.Fprintf(s.out, "\nThe callers sent %d requests, of which %d were replayed. Refusals seen by the callers: %d\n",
		c.asked.Load(), c.replayed(st), c.refused.Load())
}

// line prints who did what.
func (s *story) line(who, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.print(who, what)
}

func (s *story) print(who, what string) { fmt.Fprintf(s.out, "   %-16s%s\n", who, what) }

// Enabled leaves the details to the JSON of -v.
func (s *story) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// WithAttrs and WithGroup: nothing in this program uses them.
func (s *story) WithAttrs([]slog.Attr) slog.Handler { return s }
func (s *story) WithGroup(string) slog.Handler      { return s }

// Handle puts a record in words: the message, and some of the attributes.
func (s *story) Handle(_ context.Context, r slog.Record) error {
	who, what := "pipeline", []string{strings.TrimPrefix(r.Message, "requestforge: ")}
	if r.Message == "request" {
		what = nil // the status will do
	}
	r.Attrs(func(a slog.Attr) bool {
		switch v := a.Value; a.Key {
		case "step":
			who = v.String()
		case "url":
			if u, err := url.Parse(v.String()); err == nil {
				who = u.Path
			}
		case "status":
			if r.Message == "request" {
				what = slices.Insert(what, 0, fmt.Sprintf("%d %s", v.Int64(), http.StatusText(int(v.Int64()))))
			}
		case "try":
			if n := v.Int64(); n > 1 {
				what = append(what, fmt.Sprintf("try %d", n))
			}
		case "attempts":
			if n := v.Int64(); n > 1 {
				what = append(what, fmt.Sprintf("on attempt %d", n))
			}
		case "replayed":
			if n := v.Int64(); n > 0 {
				what = append(what, "replayed")
			}
		case "gave_up":
			what = append(what, "given up: "+v.String())
		case "expiry":
			what = append(what, fmt.Sprintf("good for %.0f min", v.Time().Sub(r.Time).Minutes()))
		case "for":
			what[0] += fmt.Sprintf(" for %v", v.Duration().Round(time.Millisecond))
		case "error":
			what = append(what, why(v))
		}
		return true
	})

	s.mu.Lock()
	defer s.mu.Unlock()
	how := strings.Join(what, ", ")
	if r.Message != "request" {
		s.print(who, how)
		return nil
	}
	i := slices.IndexFunc(s.alike, func(o outcome) bool { return o.path == who && o.how == how })
	if i < 0 {
		i = len(s.alike)
		s.alike = append(s.alike, outcome{path: who, how: how})
	}
	s.alike[i].requests++
	return nil
}

// why is an error in a few words: the auth server's status if it answered. A
// request's error is a text already.
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
