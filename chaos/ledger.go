// The ledgers of a run while it is under way. Each entry is written by
// whoever saw it; oracle reads them when all is over.

package main

import (
	"context"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/requestforge/requestforge/chaos/oracle"
)

// ledger collects what is seen. Entries that are still being filled in are
// changed through note only.
type ledger struct {
	begin time.Time

	mu  sync.Mutex // guards run and all that it points to
	run oracle.Run
}

func (l *ledger) now() time.Duration { return time.Since(l.begin) }

// note changes the ledgers.
func (l *ledger) note(f func(run *oracle.Run, now time.Duration)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.run, l.now())
}

// stuck reports whether a caller is overdue by the whole grace, and some more.
func (l *ledger) stuck() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	return slices.ContainsFunc(l.run.Requests, func(r *oracle.Request) bool {
		return r.Ended == 0 && now > r.Due+l.run.Grace+time.Second
	})
}

// call is what the context of a caller's request knows of it.
type call struct {
	req *oracle.Request
	hop int // the current one; a request is sent by one goroutine at a time
	n   int // sends of this hop
}

type callKey struct{}

func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// notes is a slog.Handler that puts down what the pipeline says it did for
// which request.
type notes struct {
	led     *ledger
	process int
}

var noteKinds = map[string]oracle.NoteKind{
	"requestforge: token invalidated":                          oracle.Invalidated,
	"requestforge: refused too often; the token stays for now": oracle.Spared,
}

func (h notes) Enabled(context.Context, slog.Level) bool { return true }

func (h notes) Handle(ctx context.Context, rec slog.Record) error {
	kind, ok := noteKinds[rec.Message]
	if !ok {
		return nil
	}
	n := oracle.Note{Process: h.process, Kind: kind}
	if c := callFrom(ctx); c != nil {
		n.ID = c.req.ID
	}
	h.led.note(func(run *oracle.Run, now time.Duration) {
		n.At = now
		run.Notes = append(run.Notes, n)
	})
	return nil
}

func (h notes) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h notes) WithGroup(string) slog.Handler      { return h }

// The simulator's tokens begin with their label.
var tokenForm = regexp.MustCompile(`((?:device|app|user)(?:-refresh)?-\d+)-[A-Z2-7]{26}`)

// labels returns the labels of the tokens in text, without the secret part.
func labels(text string) []string {
	if !strings.Contains(text, "device-") && !strings.Contains(text, "app-") && !strings.Contains(text, "user-") {
		return nil
	}
	var found []string
	for _, m := range tokenForm.FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

// label returns the label of the only token in text, or "".
func label(text string) string {
	if all := labels(text); len(all) == 1 {
		return all[0]
	}
	return ""
}
