// The Logger and the hooks of a program, and the pipeline's protection from both.

package requestforge

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/requestforge/requestforge/internal/flight"
)

// logTimeout bounds the writing of a record.
const logTimeout = time.Second

// eventLog writes the events of a pipeline. No record ever has a secret.
//
// The invariant: however the Logger's handler behaves, log returns within logTimeout and
// never panics. A handler that hangs is left behind, and further records are dropped until
// the handler returns, so that a hanging handler costs the pipeline one logTimeout.
type eventLog struct {
	logger *slog.Logger // nil: nothing is written
	hangs  *flight.Limit
	label  func(subject string) string // PipelineConfig.SubjectLabel, which may be nil
	about  string                      // the label of the subject; "": no subject
}

func newEventLog(logger *slog.Logger, label func(string) string) eventLog {
	return eventLog{logger: logger, hangs: flight.NewLimit(1), label: label}
}

// of returns the log of a subject's events.
func (e eventLog) of(subject string) eventLog {
	e.about = e.labelOf(subject)
	return e
}

// labelOf returns what log records may say of a subject; "": nothing.
func (e eventLog) labelOf(subject string) (label string) {
	if subject == "" || e.label == nil {
		return ""
	}
	defer func() { _ = recover() }()
	return e.label(subject)
}

// log writes a record about s; nil: about the whole pipeline.
func (e eventLog) log(ctx context.Context, level slog.Level, msg string, s *step, attrs ...slog.Attr) {
	if e.logger == nil {
		return
	}
	// The end of ctx is no reason to leave a record out.
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), logTimeout)
	defer cancel()
	// An error is the handler's, and there is nowhere to report it.
	_, _ = flight.Bounded(bound, e.hangs, func(context.Context) (struct{}, error) {
		if e.logger.Enabled(ctx, level) {
			if s != nil {
				attrs = slices.Insert(attrs, 0, slog.String("step", s.Name))
			}
			if e.about != "" {
				attrs = append(attrs, slog.String("subject", e.about))
			}
			e.logger.LogAttrs(ctx, level, "requestforge: "+msg, attrs...)
		}
		return struct{}{}, nil
	}, nil)
}

// hooks calls functions of the application: a step's OnError and OnRotate.
//
// The invariant: however a function behaves, call returns by the end of the flight's time,
// or a little later if no time is left. A function that hangs is left behind. While
// maxHanging functions of a step or of a subject hang, no further function is called.
type hooks struct{ events eventLog }

// A hook has leastHookTime even if the auth server has used up the flight's time,
// or FetchTimeout if that is shorter; and mostHookTime where FetchTimeout is no bound.
const (
	leastHookTime = time.Second
	mostHookTime  = 30 * time.Second
)

// call runs f in a flight that asked the auth server at begun. hanging counts the functions
// left behind.
func (h *hooks) call(ctx context.Context, s *step, hanging *flight.Limit, begun time.Time, name string, f func(context.Context)) {
	left := mostHookTime
	if t := s.timeout; t > 0 {
		left = max(t-time.Since(begun), min(t, leastHookTime))
	}
	// The context ends only if the time is over: f may keep it for later.
	ctx, end := context.WithCancelCause(ctx)
	timer := time.AfterFunc(left, func() {
		end(fmt.Errorf("%s took longer than the fetch may: %w", name, context.DeadlineExceeded))
	})
	defer timer.Stop()
	_, err := flight.Bounded(ctx, hanging, func(ctx context.Context) (struct{}, error) {
		f(ctx)
		return struct{}{}, nil
	}, nil)
	if err == nil {
		return
	}
	h.events.log(ctx, slog.LevelWarn, name+" failed; going on without", s, slog.Any("error", err))
}

// maxHanging is how many calls may hang in code that is deaf to its context (a storage, or
// the fetchers or the hooks of a step) before no further calls are tried.
const maxHanging = 16
