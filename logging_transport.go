// The log record of a request. The layers below count their sends in the exchange
// (exchange.go); internal/redact decides what a record may show.

package requestforge

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/requestforge/requestforge/internal/redact"
	"github.com/requestforge/requestforge/internal/roundtrip"
)

// LoggingTransport is an [http.RoundTripper] that writes a record for each request, after
// its outcome is known. Bodies are neither read nor logged.
//
// The record's message is "request". Its attributes are
//
//   - attempts, the sends of a RetryTransport below, or 1; replayed, the sends after a
//     refused token
//   - auth, if an AuthTransport below got the request: sent, or why the request carried no
//     token, in the words of Explain. With two AuthTransports below, the lower
//     AuthTransport decides. A foreign layer between a RetryTransport and an AuthTransport
//     hides the latter in the first attempt
//   - gave_up, if the token was refused and the refusal went back to the caller: why there
//     was no further replay, see [GaveUpReason], or the error of the source of tokens,
//     with masked URLs
//   - challenge, if the API asked for more than the token could show and a step answers
//     challenges (see [Step.AnswersChallenges]): answered, or not answered and why
//   - method and url, the URL with user info, query values and fragment masked, or the
//     result of the field URL. The path is shown unmasked; after a redirect, chosen by a
//     server, host and path are shown if equal to the first request's
//   - status, or error: the error's text, with masked URLs and masked quotations, which
//     may be a server's bytes
//   - duration, until the response's header
//   - with Headers, request_header and response_header
//
// The level is Info for a status below 400 and for a request cancelled by the caller, which
// says nothing about the server; Warn for 4xx; Error for 5xx and all other errors,
// including exceeded deadlines. If the logger isn't enabled for Error, the layer does
// nothing.
//
// The fields must not change after first use; a LoggingTransport is then safe for
// concurrent use. Responses and errors pass unchanged; the Request of a response is the
// caller's.
type LoggingTransport struct {
	// Base sends the requests. Nil means http.DefaultTransport, looked up
	// at each request.
	Base http.RoundTripper

	// Logger gets the records, with the request's context and without a source position.
	// Nil means no records.
	Logger *slog.Logger

	// Headers adds the headers of request and response. Most headers appear by name only.
	// Of the request, descriptive values appear, such as Content-Type and X-Request-Id. The
	// token isn't among the request's headers, since a layer below adds the token.
	//
	// A server may repeat parts of the request under any name. Of the response, therefore,
	// only times, numbers and words from a fixed list appear: "Content-Type:
	// application/json", "Retry-After: 3". X-Request-Id, Etag and further headers with
	// arbitrary text are masked; a program can log them from the response. Of a Location,
	// host and path appear if equal to the request's own.
	Headers bool

	// URL returns the url of the record, for an API with a key in the path, for example.
	// Parts of the request's URL that URL leaves out appear neither in error nor in a
	// header such as Location: URL is called for the URLs there, too. Nil masks user info,
	// query values and fragment.
	//
	// URL gets a copy. It may be called by several goroutines at once, and several times
	// for a request. After a panic of URL, the whole URL is masked.
	URL func(*url.URL) string

	once    sync.Once
	base    next
	handler slog.Handler // the Logger's; nil without a Logger
	usual   slog.Handler // see prepare
	sent    slog.Handler // see prepare
}

// RoundTrip sends req to Base and logs the outcome.
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

// logged sends req and logs the outcome.
func (t *LoggingTransport) logged(x *exchange, req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	begun, out, counts := t.begin(x, req)
	attempts, replays := countsOf(counts)
	if counts != nil && t.base.layer() == nil {
		counts.note.Store(nil) // an earlier attempt of a layer above may have left a note
	}
	start := time.Now()
	resp, err := t.base.forward(begun, out)
	duration := time.Since(start)

	if begun != x && begun.body().Used() {
		begun.body().Finish()
	}
	if resp != nil {
		req = begun.seen(req, resp.Request)
		resp.Request = req
	} else {
		req = begun.seen(req, nil)
	}
	level := levelOf(ctx, resp, err)
	if !t.handler.Enabled(ctx, level) {
		return resp, err
	}
	// Counts from before belong to the layers above.
	attemptsNow, replaysNow := countsOf(counts)
	attempts, replays = max(1, attemptsNow-attempts), replaysNow-replays

	shown := redact.RecordOf(req, t.URL)
	record := slog.NewRecord(start.Add(duration), level, "request", 0)
	note := noteOf(begun, counts)
	handler := t.handler
	switch usual := t.usual != nil && attempts == 1 && replays == 0; {
	case usual && note == noteSent:
		handler = t.sent
	case usual:
		handler = t.usual
		record.AddAttrs(note.attrs(shown)...)
	default:
		record.AddAttrs(sends(attempts, replays)...)
		record.AddAttrs(note.attrs(shown)...)
	}
	record.AddAttrs(
		slog.String("method", cmp.Or(req.Method, http.MethodGet)),
		slog.String("url", shown.URL()),
		outcome(shown, resp, err),
		slog.Duration("duration", duration),
	)
	if t.Headers {
		record.AddAttrs(slog.Any("request_header", shown.RequestHeader()))
		if resp != nil {
			record.AddAttrs(slog.Any("response_header", shown.ResponseHeader(resp.Header)))
		}
	}
	// As in slog, nothing can be done about a handler's error.
	_ = handler.Handle(ctx, record)
	return resp, err
}

// prepare derives state from the fields, once. usual is the Logger's handler with the
// counts of a request that was sent once, or nil if preparing gains nothing; sent is usual
// with the note of a request that carried its token. The handlers of slog format the
// attributes of WithAttrs beforehand, and the counts are a third of a record. Foreign
// handlers may not, and hasty handlers forget the attributes.
func (t *LoggingTransport) prepare() {
	t.base = nextOf(t.Base)
	if t.Logger == nil {
		return
	}
	t.handler = t.Logger.Handler()
	switch h := t.handler.(type) {
	case *slog.JSONHandler, *slog.TextHandler:
		t.usual = h.WithAttrs(sends(1, 0))
		t.sent = t.usual.WithAttrs(noteSent.attrs(redact.Record{}))
	}
}

// sends are the attributes for counts. They come first in a record, as attributes of a
// handler do.
func sends(attempts, replays int64) []slog.Attr {
	return []slog.Attr{slog.Int64("attempts", attempts), slog.Int64("replayed", replays)}
}

// begin makes the layers below count their sends. It returns the exchange and the request
// for them, and the counts, nil if there is nothing to count. If the exchange isn't x, it
// is new, and the caller must finish it.
func (t *LoggingTransport) begin(x *exchange, req *http.Request) (*exchange, *http.Request, *sendCount) {
	outer := sendCountFrom(req.Context())
	counts := outer
	if x != nil {
		counts = &x.rest().sendCount
	}
	if t.base.layer() != nil {
		if counts == nil {
			x = newLargeExchange(req, nil)
			counts = &x.sendCount
		}
		return x, req, counts
	}
	if _, last := roundtrip.Base(t.Base).(*http.Transport); last {
		return x, req, counts // no layer of ours can be below
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

// noteOf is the note of an auth layer below: in the exchange, or beyond a foreign layer in
// the counts; nil without a note.
func noteOf(x *exchange, counts *sendCount) *authNote {
	switch {
	case x != nil && x.rare != nil && x.rare.note != nil:
		return x.rare.note
	case counts != nil:
		return counts.note.Load()
	}
	return nil
}

// attrs are the attributes for n, which may be nil.
func (n *authNote) attrs(shown redact.Record) []slog.Attr {
	if n == nil {
		return nil
	}
	attrs := []slog.Attr{slog.String("auth", n.auth)}
	if n.gaveUp != nil {
		attrs = append(attrs, slog.String("gave_up", n.gaveUp.text(shown)))
	}
	if n.challenge != "" {
		attrs = append(attrs, slog.String("challenge", n.challenge))
	}
	return attrs
}

// outcome is the attribute for the outcome. An empty attribute, which handlers leave out,
// stands for a transport below that returned neither a response nor an error.
func outcome(shown redact.Record, resp *http.Response, err error) slog.Attr {
	switch {
	case err != nil:
		return slog.String("error", shown.Error(err))
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
func (t *LoggingTransport) Unwrap() http.RoundTripper { return below(t.Base) }

// WrappedRoundTripper is Unwrap under the name for k8s.io/client-go.
func (t *LoggingTransport) WrappedRoundTripper() http.RoundTripper { return t.Unwrap() }

func (t *LoggingTransport) lower() http.RoundTripper { return t.Base }

// CloseIdleConnections closes the idle connections of the transport below.
func (t *LoggingTransport) CloseIdleConnections() { closeIdle(t.Base) }
