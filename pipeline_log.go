// What a pipeline writes to its Logger.

package requestforge

import (
	"context"
	"log/slog"
	"slices"
)

// eventLog writes what happens in a pipeline. No secret is ever in a record.
type eventLog struct {
	logger *slog.Logger // nil: nothing is written
}

// log writes a record about s; nil: about the whole pipeline.
func (e eventLog) log(ctx context.Context, level slog.Level, msg string, s *step, attrs ...slog.Attr) {
	if e.logger == nil || !e.logger.Enabled(ctx, level) {
		return
	}
	if s != nil {
		attrs = slices.Insert(attrs, 0, slog.String("step", s.Name))
	}
	e.logger.LogAttrs(ctx, level, "requestforge: "+msg, attrs...)
}
