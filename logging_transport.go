// What is written down of a request. The layers below count what they did in
// the exchange (exchange.go); what may be shown is internal/redact's.

package requestforge

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// LoggingTransport is an [http.RoundTripper] that writes one record for each
// request, once its outcome is known. Bodies are neither read nor logged.
//
// The record's message is "request" and its attributes are
//
//   - attempts, the sends that a RetryTransport below asked for, and 1 without
//     one; replayed, the sends after a refused token
//   - method and url, the URL with user info, query values and fragment
//     masked; its path is shown as it is
//   - status, or error, the error's text with the URLs in it masked
//   - duration, up to the response's header
//   - with Headers, request_header and response_header
//
// Its level is Info for a status below 400 and for a request that its caller
// cancelled, which says nothing about the server; Warn for 4xx; Error for 5xx
// and for every other error, a deadline that passed included. If the logger
// isn't enabled for Error, nothing at all is done.
//
// The fields must not change after first use; it is then safe for concurrent
// use. What a response or an error is stays untouched, and its Request is the
// caller's.
type LoggingTransport struct {
	// Base sends the requests. Nil means http.DefaultTransport, looked up
	// at each request.
	Base http.RoundTripper

	// Logger gets the records, with the request's context and without a
	// source position. Nil means that requests pass by unseen.
	Logger *slog.Logger

	// Headers adds the headers of request and response. Of most only the
	// name is shown: values appear for a list of harmless headers, such as
	// Content-Type and Retry-After, and URLs such as Location are masked
	// like the request's own. The token isn't among the request's headers
	// here, which are the caller's; it is added further down.
	Headers bool

	once    sync.Once
	base    next
	handler slog.Handler // the Logger's; nil without one
	usual   slog.Handler // see prepare
}

// RoundTrip sends req to Base and logs what came of it.
func (t *LoggingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.roundTrip(nil, req)
}

func (t *LoggingTransport) roundTrip(x *exchange, req *http.Request) (*http.Response, error) {
	t.once.Do(t.prepare)
	// Error is the highest level there is; whether the record's own level
	// is enabled can only be asked when the outcome is known.
	if t.handler == nil || !t.handler.Enabled(req.Context(), slog.LevelError) {
		return t.base.forward(x, req)
	}
	return t.logged(x, req)
}

// logged sends req and logs what came of it.
func (t *LoggingTransport) logged(x *exchange, req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	begun, out, counts := t.begin(x, req)
	attempts, replays := countsOf(counts)
	start := time.Now()
	resp, err := t.base.forward(begun, out)
	duration := time.Since(start)

	if begun != x && begun.body().Used() {
		begun.body().Finish()
	}
	if resp != nil {
		resp.Request = req
	}
	level := levelOf(ctx, resp, err)
	if !t.handler.Enabled(ctx, level) {
		return resp, err
	}
	// What the layers above have counted before is none of ours.
	attemptsNow, replaysNow := countsOf(counts)
	attempts, replays = max(1, attemptsNow-attempts), replaysNow-replays

	record := slog.NewRecord(start.Add(duration), level, "request", 0)
	handler := t.usual
	if handler == nil || attempts != 1 || replays != 0 {
		handler = t.handler
		record.AddAttrs(sends(attempts, replays)...)
	}
	record.AddAttrs(
		slog.String("method", cmp.Or(req.Method, http.MethodGet)),
		slog.String("url", redact.URL(req.URL)),
		outcome(resp, err),
		slog.Duration("duration", duration),
	)
	if t.Headers {
		record.AddAttrs(slog.Any("request_header", redact.Header(req.Header)))
		if resp != nil {
			record.AddAttrs(slog.Any("response_header", redact.Header(resp.Header)))
		}
	}
	// As in slog itself, there is nobody to tell of a handler's error.
	_ = handler.Handle(ctx, record)
	return resp, err
}

// prepare looks at the fields, once. usual is the Logger's handler with the
// counts of a request that was sent once, nil if there would be no gain. slog's
// own handlers format beforehand what they get by WithAttrs, and the counts are
// a third of a record. Of others it isn't known, and those that somebody wrote
// in a hurry forget it.
func (t *LoggingTransport) prepare() {
	t.base = nextOf(t.Base)
	if t.Logger == nil {
		return
	}
	t.handler = t.Logger.Handler()
	switch h := t.handler.(type) {
	case *slog.JSONHandler, *slog.TextHandler:
		t.usual = h.WithAttrs(sends(1, 0))
	}
}

// sends are the attributes that count. They come first in a record, since
// attributes of a handler do.
func sends(attempts, replays int64) []slog.Attr {
	return []slog.Attr{slog.Int64("attempts", attempts), slog.Int64("replayed", replays)}
}

// begin sees to it that the layers below count what they do. It returns the
// exchange and the request to hand to them and where the counts will be, nil
// if there is nothing to count. An exchange other than x is a new one, for
// the caller to finish.
func (t *LoggingTransport) begin(x *exchange, req *http.Request) (*exchange, *http.Request, *sendCount) {
	outer := sendCountFrom(req.Context())
	counts := outer
	if x != nil {
		counts = &x.sendCount
	}
	if t.base.layer() != nil {
		if counts == nil {
			x = newExchange(req)
			counts = &x.sendCount
		}
		return x, req, counts
	}
	if _, last := roundtrip.Base(t.Base).(*http.Transport); last {
		return x, req, counts // no layer of ours can be below it
	}
	if counts == nil {
		counts = new(sendCount)
	}
	if counts != outer {
		req = req.WithContext(withSendCount(req.Context(), counts))
	}
	return x, req, counts
}

func countsOf(t *sendCount) (attempts, replays int64) {
	if t == nil {
		return 0, 0
	}
	return int64(t.attempts()), int64(t.replays.Load())
}

// outcome is the attribute that says how it ended. An empty one, which
// handlers leave out, stands for a transport below that gave nothing at all.
func outcome(resp *http.Response, err error) slog.Attr {
	switch {
	case err != nil:
		return slog.String("error", redact.Error(err))
	case resp != nil:
		return slog.Int("status", resp.StatusCode)
	}
	return slog.Attr{}
}

func levelOf(ctx context.Context, resp *http.Response, err error) slog.Level {
	switch {
	case err != nil && ctx.Err() == context.Canceled:
		return slog.LevelInfo
	case err != nil || resp == nil || resp.StatusCode >= 500:
		return slog.LevelError
	case resp.StatusCode >= 400:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// Unwrap returns the transport below.
func (t *LoggingTransport) Unwrap() http.RoundTripper { return roundtrip.Base(t.Base) }

// CloseIdleConnections closes the idle connections of the transport below.
func (t *LoggingTransport) CloseIdleConnections() { roundtrip.CloseIdle(t.Base) }
