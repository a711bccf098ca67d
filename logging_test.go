package requestforge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
)

// logged returns a logger and a function that decodes what it wrote.
func logged(t *testing.T, level slog.Level) (*slog.Logger, func() []map[string]any) {
	var out bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: level}))
	return logger, func() []map[string]any {
		var records []map[string]any
		for dec := json.NewDecoder(bytes.NewReader(out.Bytes())); ; {
			var record map[string]any
			if err := dec.Decode(&record); err == io.EOF {
				return records
			} else if err != nil {
				t.Fatal(err)
			}
			records = append(records, record)
		}
	}
}

func TestLogHasOneRecordARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, records := logged(t, slog.LevelInfo)
		layer := &requestforge.LoggingTransport{
			Logger: logger,
			Base: sendFunc(func(req *http.Request) (*http.Response, error) {
				time.Sleep(1500 * time.Millisecond)
				return answer(req, 200, nil), nil
			}),
		}
		req, err := http.NewRequest("", "https://h/users?page=2", nil)
		require.NoError(t, err)
		req.Method = ""
		done := time.Now().Add(1500 * time.Millisecond)
		_, err = layer.RoundTrip(req)
		require.NoError(t, err)

		want := []map[string]any{{
			"time":     done.Format(time.RFC3339Nano),
			"level":    "INFO",
			"msg":      "request",
			"method":   "GET",
			"url":      "https://h/users?page=REDACTED",
			"status":   200.0,
			"duration": 1.5e9,
			"attempts": 1.0,
			"replayed": 0.0,
		}}
		assert.Equal(t, want, records())
	})
}

// opaque hides which handler it holds.
type opaque struct{ slog.Handler }

func TestLogRecordIsTheSameForEveryHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrote [2]string
		for i := range wrote {
			var out bytes.Buffer
			var h slog.Handler = slog.NewTextHandler(&out, nil)
			if i == 1 {
				h = opaque{h}
			}
			statuses := []int{503, 200, 404}
			layer := &requestforge.LoggingTransport{
				Logger: slog.New(h).With("service", "shop"),
				Base: &requestforge.RetryTransport{
					Policy: requestforge.ExponentialBackoff(1, time.Nanosecond, time.Nanosecond),
					Base: sendFunc(func(req *http.Request) (*http.Response, error) {
						status := statuses[0]
						statuses = statuses[1:]
						return answer(req, status, nil), nil
					}),
				},
			}
			for range 2 {
				req, err := http.NewRequest("GET", "https://h/users", nil)
				require.NoError(t, err)
				_, err = layer.RoundTrip(req)
				require.NoError(t, err)
			}
			wrote[i] = strings.TrimSpace(regexp.MustCompile(`(?m)(time|duration)=\S+ ?`).ReplaceAllString(out.String(), ""))
		}
		assert.Equal(t, wrote[1], wrote[0])
		assert.Equal(t, `level=INFO msg=request service=shop attempts=2 replayed=0 method=GET url=https://h/users status=200`+" \n"+
			`level=WARN msg=request service=shop attempts=1 replayed=0 method=GET url=https://h/users status=404`, wrote[0])
	})
}

func TestLogLevels(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	tests := []struct {
		ctx    context.Context
		status int
		err    error
		want   string
	}{
		{status: 200, want: "INFO"},
		{status: 101, want: "INFO"},
		{status: 302, want: "INFO"},
		{status: 399, want: "INFO"},
		{status: 400, want: "WARN"},
		{status: 404, want: "WARN"},
		{status: 499, want: "WARN"},
		{status: 500, want: "ERROR"},
		{status: 503, want: "ERROR"},
		{err: errors.New("no route"), want: "ERROR"},
		{err: context.Canceled, want: "ERROR"}, // not the caller's doing
		{err: context.Canceled, ctx: cancelled, want: "INFO"},
		{err: errors.New("no route"), ctx: cancelled, want: "INFO"},
		{status: 500, ctx: cancelled, want: "ERROR"},
		{err: context.DeadlineExceeded, ctx: late, want: "ERROR"},
		{want: "ERROR"}, // neither a response nor an error
	}
	for _, tt := range tests {
		logger, records := logged(t, slog.LevelInfo)
		layer := &requestforge.LoggingTransport{
			Logger: logger,
			Base: sendFunc(func(req *http.Request) (*http.Response, error) {
				if tt.status == 0 {
					return nil, tt.err
				}
				return answer(req, tt.status, nil), tt.err
			}),
		}
		if tt.ctx == nil {
			tt.ctx = context.Background()
		}
		req, err := http.NewRequestWithContext(tt.ctx, http.MethodGet, "https://h/", nil)
		require.NoError(t, err)
		layer.RoundTrip(req)
		got := records()
		require.Len(t, got, 1)
		assert.Equal(t, tt.want, got[0]["level"], "%+v", tt)
		if tt.err != nil {
			assert.Equal(t, tt.err.Error(), got[0]["error"])
			assert.NotContains(t, got[0], "status")
		} else if tt.status != 0 {
			assert.EqualValues(t, tt.status, got[0]["status"])
			assert.NotContains(t, got[0], "error")
		}
	}
}

func TestLogNeverHoldsASecret(t *testing.T) {
	const secret = "hunter2"
	var out bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		for _, failure := range []error{
			nil,
			&url.Error{Op: "Get", URL: "https://me:hunter2@h/?k=hunter2", Err: errors.New("EOF")},
			fmt.Errorf("token: %w", errors.Join(errors.New("x"), &url.Error{Op: "Post", URL: "/login?k=hunter2", Err: io.EOF})),
			errors.New(`proxy "https://me:hunter2@proxy:3128" refused`),
		} {
			transport, err := requestforge.NewTransport(requestforge.Config{
				BaseURL:    "https://h/v1",
				Source:     secretTokens{secret},
				Logger:     slog.New(handler),
				LogHeaders: true,
				Base: sendFunc(func(req *http.Request) (*http.Response, error) {
					if failure != nil {
						return nil, failure
					}
					return answer(req, 200, http.Header{
						"Set-Cookie":       {"session=hunter2"},
						"Location":         {"https://me:hunter2@h/?code=hunter2#hunter2"},
						"Www-Authenticate": {"Negotiate hunter2"},
						"X-Refreshed":      {secret},
						"Content-Type":     {"text/plain"},
					}), nil
				}),
			})
			require.NoError(t, err)
			for _, raw := range []string{"/x?k=hunter2#hunter2", "https://me:hunter2@h/v1/x?k=hunter2", "https://hunter2@h/v1/x?hunter2"} {
				req, err := http.NewRequest(http.MethodGet, raw, nil)
				require.NoError(t, err)
				req.Header.Set("X-Api-Key", secret)
				req.Header.Set("Referer", "https://h/?k=hunter2")
				req.Header.Set("Accept", "text/plain")
				req.AddCookie(&http.Cookie{Name: "session", Value: secret})
				transport.RoundTrip(req)
				req.Header.Set("Authorization", "Bearer hunter2")
				transport.RoundTrip(req)
			}
		}
	}
	if strings.Contains(out.String(), secret) {
		t.Errorf("the secret is in the log:\n%s", &out)
	}
}

func TestLogHeaders(t *testing.T) {
	logger, records := logged(t, slog.LevelInfo)
	layer := &requestforge.LoggingTransport{
		Logger:  logger,
		Headers: true,
		Base: sendFunc(func(req *http.Request) (*http.Response, error) {
			return answer(req, 401, http.Header{"Retry-After": {"3"}, "Www-Authenticate": {`Bearer error="invalid_token"`}}), nil
		}),
	}
	req, err := http.NewRequest(http.MethodGet, "https://h/", nil)
	require.NoError(t, err)
	req.Header = http.Header{"Accept": {"a/b", "c/d"}, "Authorization": {"Bearer hunter2"}}
	_, err = layer.RoundTrip(req)
	require.NoError(t, err)
	req.Header = nil
	_, err = layer.RoundTrip(req)
	require.NoError(t, err)

	got := records()
	require.Len(t, got, 2)
	assert.Equal(t, map[string]any{"Accept": []any{"a/b", "c/d"}, "Authorization": []any{"REDACTED"}}, got[0]["request_header"])
	assert.Equal(t, map[string]any{"Retry-After": []any{"3"}, "Www-Authenticate": []any{"Bearer REDACTED"}}, got[0]["response_header"])
	assert.Nil(t, got[1]["request_header"])
}

func TestLogCountsAttempts(t *testing.T) {
	// Straight above the retry layer, and with a foreign layer between.
	for name, between := range map[string]func(http.RoundTripper) http.RoundTripper{
		"ours":    func(rt http.RoundTripper) http.RoundTripper { return rt },
		"foreign": func(rt http.RoundTripper) http.RoundTripper { return sendFunc(rt.RoundTrip) },
		"logging twice": func(rt http.RoundTripper) http.RoundTripper {
			return &requestforge.LoggingTransport{Base: rt, Logger: slog.New(slog.DiscardHandler)}
		},
		"logging above the foreign one": func(rt http.RoundTripper) http.RoundTripper {
			return &requestforge.LoggingTransport{
				Base:   sendFunc((&requestforge.LoggingTransport{Base: rt, Logger: slog.New(enabledDiscard{})}).RoundTrip),
				Logger: slog.New(enabledDiscard{}),
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logger, records := logged(t, slog.LevelInfo)
				sends := 0
				layer := &requestforge.LoggingTransport{
					Logger: logger,
					Base: between(&requestforge.RetryTransport{
						Policy: requestforge.RetryPolicy{RetryMax: 4, RetryWaitMin: time.Second, RetryWaitMax: time.Second},
						Base: sendFunc(func(req *http.Request) (*http.Response, error) {
							if sends++; sends < 3 {
								return answer(req, 503, nil), nil
							}
							return answer(req, 200, nil), nil
						}),
					}),
				}
				req, err := http.NewRequest(http.MethodGet, "https://h/", nil)
				require.NoError(t, err)
				_, err = layer.RoundTrip(req)
				require.NoError(t, err)
				got := records()
				require.Len(t, got, 1)
				assert.EqualValues(t, 200, got[0]["status"])
				assert.EqualValues(t, 3, got[0]["attempts"])
				assert.EqualValues(t, 0, got[0]["replayed"])
			})
		})
	}
}

func TestLogBelowRetryHasOneRecordASend(t *testing.T) {
	for name, between := range map[string]func(http.RoundTripper) http.RoundTripper{
		"ours":    func(rt http.RoundTripper) http.RoundTripper { return rt },
		"foreign": func(rt http.RoundTripper) http.RoundTripper { return sendFunc(rt.RoundTrip) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logger, records := logged(t, slog.LevelInfo)
				layer := &requestforge.RetryTransport{
					Policy: requestforge.RetryPolicy{RetryMax: 2, RetryWaitMin: time.Second, RetryWaitMax: time.Second},
					Base: between(&requestforge.LoggingTransport{
						Logger: logger,
						Base: &requestforge.AuthTransport{
							Source:  secretTokens{"hunter2"},
							Origins: []string{"https://h"},
							Base:    sendFunc(func(req *http.Request) (*http.Response, error) { return answer(req, 503, nil), nil }),
						},
					}),
				}
				req, err := http.NewRequest(http.MethodGet, "https://h/", nil)
				require.NoError(t, err)
				_, err = layer.RoundTrip(req)
				require.NoError(t, err)
				got := records()
				require.Len(t, got, 3)
				for _, record := range got {
					assert.EqualValues(t, 1, record["attempts"])
				}
			})
		})
	}
}

// renewedTokens gives out another token after each refusal.
type renewedTokens struct{ n int }

func (s *renewedTokens) Token(context.Context) (*requestforge.Token, error) {
	return &requestforge.Token{AccessToken: fmt.Sprint("token-", s.n)}, nil
}
func (s *renewedTokens) Invalidate(context.Context, *requestforge.Token) error { s.n++; return nil }

func TestLogCountsReplays(t *testing.T) {
	for name, between := range map[string]func(http.RoundTripper) http.RoundTripper{
		"ours":    func(rt http.RoundTripper) http.RoundTripper { return rt },
		"foreign": func(rt http.RoundTripper) http.RoundTripper { return sendFunc(rt.RoundTrip) },
	} {
		t.Run(name, func(t *testing.T) {
			logger, records := logged(t, slog.LevelInfo)
			layer := &requestforge.LoggingTransport{
				Logger: logger,
				Base: between(&requestforge.AuthTransport{
					Source:  &renewedTokens{},
					Origins: []string{"https://h"},
					Base: sendFunc(func(req *http.Request) (*http.Response, error) {
						if req.Header.Get("Authorization") == "Bearer token-0" {
							return answer(req, 401, nil), nil
						}
						body, err := io.ReadAll(req.Body)
						if err != nil || string(body) != "hello" {
							t.Errorf("body %q, %v", body, err)
						}
						return answer(req, 200, nil), nil
					}),
				}),
			}
			// A plain reader: the exchange that the log made keeps the body.
			req, err := http.NewRequest(http.MethodPost, "https://h/", io.MultiReader(strings.NewReader("hello")))
			require.NoError(t, err)
			_, err = layer.RoundTrip(req)
			require.NoError(t, err)
			got := records()
			require.Len(t, got, 1)
			assert.EqualValues(t, 200, got[0]["status"])
			assert.EqualValues(t, 1, got[0]["replayed"])
			assert.EqualValues(t, 1, got[0]["attempts"])
		})
	}
}

func TestLogLeavesRequestAndResponseAlone(t *testing.T) {
	logger, records := logged(t, slog.LevelInfo)
	body := &countedBody{Reader: strings.NewReader("x")}
	want := answer(nil, 200, nil)
	want.Body = io.NopCloser(strings.NewReader("y"))
	wantBody := want.Body
	traced := 0
	layer := &requestforge.LoggingTransport{
		Logger: logger,
		Base: sendFunc(func(req *http.Request) (*http.Response, error) {
			assert.Same(t, body, req.Body)
			httptrace.ContextClientTrace(req.Context()).GetConn("h:443")
			return want, nil
		}),
	}
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GetConn: func(string) { traced++ }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://h/", body)
	require.NoError(t, err)
	before := *req
	resp, err := layer.RoundTrip(req)
	require.NoError(t, err)
	assert.Same(t, want, resp)
	assert.Same(t, req, resp.Request)
	assert.Equal(t, wantBody, resp.Body)
	assert.Equal(t, before, *req)
	assert.Equal(t, 0, body.closes)
	assert.Equal(t, 1, traced)
	assert.Len(t, records(), 1)
}

func TestLogLeavesTheErrorAlone(t *testing.T) {
	logger, records := logged(t, slog.LevelInfo)
	want := &url.Error{Op: "Get", URL: "https://h/?k=hunter2", Err: io.EOF}
	layer := &requestforge.LoggingTransport{
		Logger: logger,
		Base:   sendFunc(func(*http.Request) (*http.Response, error) { return nil, want }),
	}
	req, err := http.NewRequest(http.MethodGet, "https://h/?k=hunter2", nil)
	require.NoError(t, err)
	_, err = layer.RoundTrip(req)
	assert.Same(t, want, err)
	assert.Equal(t, "https://h/?k=hunter2", want.URL)
	assert.Equal(t, `Get "https://h/?k=REDACTED": EOF`, records()[0]["error"])
}

func TestLogThatNobodyReadsCostsNothing(t *testing.T) {
	for name, logger := range map[string]*slog.Logger{
		"no logger":         nil,
		"a discarding one":  slog.New(slog.DiscardHandler),
		"one above Error":   slog.New(slog.NewTextHandler(panicWriter{}, &slog.HandlerOptions{Level: slog.LevelError + 1})),
		"one that's silent": slog.New(enabledFunc(func(slog.Level) bool { return false })),
	} {
		var sent *http.Request
		layer := &requestforge.LoggingTransport{
			Logger: logger,
			Base: sendFunc(func(req *http.Request) (*http.Response, error) {
				sent = req
				return answer(req, 500, nil), nil
			}),
		}
		req, err := http.NewRequest(http.MethodGet, "https://h/", nil)
		require.NoError(t, err)
		_, err = layer.RoundTrip(req)
		require.NoError(t, err)
		assert.Same(t, req, sent, name)
	}
}

func TestLogWritesOnlyEnabledLevels(t *testing.T) {
	logger, records := logged(t, slog.LevelWarn)
	status := 200
	layer := &requestforge.LoggingTransport{
		Logger: logger,
		Base: sendFunc(func(req *http.Request) (*http.Response, error) {
			return answer(req, status, nil), nil
		}),
	}
	for _, status = range []int{200, 404, 500} {
		req, err := http.NewRequest(http.MethodGet, "https://h/", nil)
		require.NoError(t, err)
		_, err = layer.RoundTrip(req)
		require.NoError(t, err)
	}
	var got []any
	for _, record := range records() {
		got = append(got, record["status"])
	}
	assert.Equal(t, []any{404.0, 500.0}, got)
}

func TestLogPassesTheContextToTheHandler(t *testing.T) {
	type key struct{}
	seen := 0
	layer := &requestforge.LoggingTransport{
		Logger: slog.New(contextHandler{slog.DiscardHandler, func(ctx context.Context) {
			if ctx.Value(key{}) == "span" {
				seen++
			}
		}}),
		Base: sendFunc(func(req *http.Request) (*http.Response, error) { return answer(req, 200, nil), nil }),
	}
	ctx := context.WithValue(context.Background(), key{}, "span")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://h/", nil)
	require.NoError(t, err)
	_, err = layer.RoundTrip(req)
	require.NoError(t, err)
	assert.Equal(t, 1, seen)
}

func TestLogSeesTheURLBelowTheBase(t *testing.T) {
	logger, records := logged(t, slog.LevelInfo)
	transport, err := requestforge.NewTransport(requestforge.Config{
		BaseURL: "https://h/v1",
		Logger:  logger,
		Base:    sendFunc(func(req *http.Request) (*http.Response, error) { return answer(req, 200, nil), nil }),
	})
	require.NoError(t, err)
	resp, err := (&http.Client{Transport: transport}).Get("/users?page=2")
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, "https://h/v1/users?page=REDACTED", records()[0]["url"])
}

func TestLogForwardsNilURL(t *testing.T) {
	logger, records := logged(t, slog.LevelInfo)
	layer := &requestforge.LoggingTransport{Logger: logger}
	_, err := layer.RoundTrip(&http.Request{})
	require.ErrorContains(t, err, "nil Request.URL")
	assert.Equal(t, "", records()[0]["url"])
}

// enabledDiscard is a handler that is asked for everything and keeps nothing.
type enabledDiscard struct{}

func (enabledDiscard) Enabled(context.Context, slog.Level) bool  { return true }
func (enabledDiscard) Handle(context.Context, slog.Record) error { return nil }
func (h enabledDiscard) WithAttrs([]slog.Attr) slog.Handler      { return h }
func (h enabledDiscard) WithGroup(string) slog.Handler           { return h }

// enabledFunc is a handler that must not be handed a record.
type enabledFunc func(slog.Level) bool

func (f enabledFunc) Enabled(_ context.Context, level slog.Level) bool { return f(level) }
func (f enabledFunc) Handle(context.Context, slog.Record) error        { panic("not enabled") }
func (f enabledFunc) WithAttrs([]slog.Attr) slog.Handler               { return f }
func (f enabledFunc) WithGroup(string) slog.Handler                    { return f }

type contextHandler struct {
	slog.Handler
	handle func(context.Context)
}

func (h contextHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h contextHandler) Handle(ctx context.Context, r slog.Record) error {
	h.handle(ctx)
	return nil
}

type panicWriter struct{}

func (panicWriter) Write([]byte) (int, error) { panic("written to") }
