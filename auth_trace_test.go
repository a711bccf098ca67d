package requestforge_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// journal is an AuthTrace that writes down what it is told.
func journal(t *testing.T, lines *[]string) *rf.AuthTrace {
	note := func(req *http.Request, format string, args ...any) {
		require.Empty(t, req.Header.Get("Authorization"), "a function sees the token")
		*lines = append(*lines, fmt.Sprintf(format, args...))
	}
	return &rf.AuthTrace{
		Decided: func(req *http.Request, d rf.Decision) {
			if d.Send {
				note(req, "decided: send")
				return
			}
			note(req, "decided: %s %s %v", d.Reason, d.Place, d.Err)
		},
		Refused:  func(req *http.Request, info rf.RefusedInfo) { note(req, "refused: %d", info.StatusCode) },
		Replayed: func(req *http.Request, info rf.ReplayedInfo) { note(req, "send %d: %s", info.SendNumber, info.Reason) },
		GaveUp: func(req *http.Request, info rf.GaveUpInfo) {
			note(req, "gave up: %s %v", info.Reason, info.Err)
		},
	}
}

var errRevoked = &rf.AuthError{Step: "user", StatusCode: 400, Code: "invalid_grant", Permanent: true}

// failsOnce has a token, and after its refusal an error.
type failsOnce struct{ refused bool }

func (s *failsOnce) Token(context.Context) (*rf.Token, error) {
	if s.refused {
		return nil, errRevoked
	}
	return &rf.Token{AccessToken: "t"}, nil
}

func (s *failsOnce) Invalidate(context.Context, *rf.Token) error { s.refused = true; return nil }

// Whatever becomes of a request, the trace and the log say why, be a foreign layer between
// or not.
func TestAuthTraceAndLogSayWhy(t *testing.T) {
	never := api(func(string) bool { return false })
	post := func(body io.Reader) func(context.Context) *http.Request {
		return func(ctx context.Context) *http.Request {
			req, err := http.NewRequestWithContext(ctx, "POST", host+"/x", body)
			require.NoError(t, err)
			return req
		}
	}
	for name, c := range map[string]struct {
		rt   *rf.AuthTransport
		req  func(context.Context) *http.Request // nil: a GET
		auth string
		gave string
		want []string
		err  error
	}{
		"sent": {
			rt:   &rf.AuthTransport{Source: static("t"), Base: api(func(string) bool { return true })},
			auth: "sent", want: []string{"decided: send"},
		},
		"replayed": {
			rt:   &rf.AuthTransport{Source: &numbered{name: "t"}, Base: api(func(tok string) bool { return tok == "t-1" })},
			auth: "sent", want: []string{"decided: send", "refused: 401", "send 2: token refused"},
		},
		"excluded": {
			rt:   &rf.AuthTransport{Source: static("t"), ExcludedPaths: []string{"/x"}, Base: never},
			auth: "the path is excluded", want: []string{"decided: the path is excluded  <nil>"},
		},
		"another origin": {
			rt:   &rf.AuthTransport{Source: static("t"), Origins: []string{"https://elsewhere.example.com"}, Base: never},
			auth: "the origin is not among Origins", want: []string{"decided: the origin is not among Origins  <nil>"},
		},
		"the caller's own": {
			rt: &rf.AuthTransport{Source: static("t"), Attach: []rf.Place{{Header: "X-Key"}}, Base: never},
			req: func(ctx context.Context) *http.Request {
				req := post(nil)(ctx)
				req.Header.Set("X-Key", "hunter2")
				return req
			},
			auth: `the caller has set a place of the token's, or user information, itself: header "X-Key"`,
			want: []string{`decided: the caller has set a place of the token's, or user information, itself header "X-Key" <nil>`},
		},
		"no token": {
			rt:   &rf.AuthTransport{Source: &failsOnce{refused: true}, Base: never},
			auth: "no token", want: []string{"decided: send"}, err: errRevoked,
		},
		"no newer token": {
			rt:   &rf.AuthTransport{Source: static("t"), Base: never},
			auth: "sent", gave: "no newer token", want: []string{"decided: send", "refused: 401", "gave up: no newer token <nil>"},
		},
		"the login fails": {
			rt:   &rf.AuthTransport{Source: &failsOnce{}, Base: never},
			auth: "sent", gave: `requestforge: step "user": invalid_grant: status 400 Bad Request`,
			want: []string{"decided: send", "refused: 401", `gave up: no token requestforge: step "user": invalid_grant: status 400 Bad Request`},
		},
		"a body that is gone": {
			rt: &rf.AuthTransport{Source: &numbered{name: "t"}, Base: never, MaxReplayBody: -1},
			req: func(ctx context.Context) *http.Request {
				return post(io.MultiReader(strings.NewReader("once")))(ctx)
			},
			auth: "sent", gave: "body can't be sent again", want: []string{"decided: send", "refused: 401", "gave up: body can't be sent again <nil>"},
		},
		"no replays": {
			rt:   &rf.AuthTransport{Source: &numbered{name: "t"}, Base: never, Retry: rf.SimpleAuthRetry(0, 0)},
			auth: "sent", gave: "no replays left", want: []string{"decided: send", "refused: 401", "gave up: no replays left <nil>"},
		},
		"two in vain": {
			rt:   &rf.AuthTransport{Source: &numbered{name: "t"}, Base: never, RefusedStatus: []int{403}, Retry: rf.SimpleAuthRetry(2, 0)},
			auth: "sent", gave: "no replays left",
			want: []string{"decided: send", "refused: 401", "send 2: token refused", "refused: 401", "send 3: token refused", "refused: 401", "gave up: no replays left <nil>"},
		},
		"learned": {
			rt: &rf.AuthTransport{Source: static("t"), Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				return reply(req, 400), nil
			}), Learn: func(*http.Response, *rf.Token) bool { return true }},
			auth: "sent", want: []string{"decided: send", "send 2: response learned"},
		},
	} {
		for _, between := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", foreign layer ", between), func(t *testing.T) {
				var lines []string
				auth := &rf.AuthTransport{
					Source: c.rt.Source, Base: c.rt.Base, Origins: c.rt.Origins, ExcludedPaths: c.rt.ExcludedPaths, Attach: c.rt.Attach,
					MaxReplayBody: c.rt.MaxReplayBody, Retry: c.rt.Retry, RefusedStatus: c.rt.RefusedStatus, Learn: c.rt.Learn,
					Trace: journal(t, &lines),
				}
				if auth.Origins == nil {
					auth.Origins = []string{host}
				}
				var below http.RoundTripper = auth
				if between {
					below = hiding{auth}
				}
				switch src := c.rt.Source.(type) {
				case *failsOnce:
					src.refused = c.err != nil
				case *numbered:
					src.n = 0
				}
				logger, records := logged(t, slog.LevelInfo)
				ask := c.req
				if ask == nil {
					ask = func(ctx context.Context) *http.Request {
						req, err := http.NewRequestWithContext(ctx, "GET", host+"/x", nil)
						require.NoError(t, err)
						return req
					}
				}
				_, err := (&rf.LoggingTransport{Base: below, Logger: logger}).RoundTrip(ask(t.Context()))
				if c.err == nil {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, c.err)
				}
				require.Equal(t, c.want, lines)
				all := records()
				require.Len(t, all, 1)
				require.Equal(t, c.auth, all[0]["auth"])
				if c.gave == "" {
					require.NotContains(t, all[0], "gave_up")
				} else {
					require.Equal(t, c.gave, all[0]["gave_up"])
				}
			})
		}
	}
}

// A token that a server doesn't know yet is sent again, and the trace says so.
func TestAuthTraceTellsYoungTokensApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, rt := youngAPI(t, 500*time.Millisecond)
		var lines []string
		rt.Trace = journal(t, &lines)
		require.Equal(t, 200, get(t, rt, host).StatusCode)
		require.Equal(t, []string{"decided: send", "refused: 401", "send 2: token young", "refused: 401", "send 3: token young"}, lines)

		// Without the time to wait, the refusal goes back.
		_, _, rt = youngAPI(t, 500*time.Millisecond)
		lines = nil
		rt.Trace = journal(t, &lines)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", host, nil)
		require.NoError(t, err)
		resp, err := rt.RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, []string{"decided: send", "refused: 401", "gave up: no time to wait for the server <nil>"}, lines)
	})
}

// What the log says is of the last send: a retry that succeeds leaves nothing of a refusal
// before, and each retry is decided anew.
func TestAuthLogSaysNothingOfAnEarlierSend(t *testing.T) {
	for name, between := range map[string]func(http.RoundTripper) http.RoundTripper{
		"directly": func(rt http.RoundTripper) http.RoundTripper { return rt },
		"foreign":  func(rt http.RoundTripper) http.RoundTripper { return hiding{rt} },
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			sends := 0
			auth := &rf.AuthTransport{Source: static("t"), Origins: []string{host}, Trace: journal(t, &lines), Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				if sends++; sends == 1 {
					return reply(req, 401), nil
				}
				return reply(req, 200), nil
			})}
			logger, records := logged(t, slog.LevelInfo)
			retry := retryOver(between(auth), retryFast(1))
			retry.Policy.CheckRetry = func(_ context.Context, resp *http.Response, err error) (bool, error) {
				return resp != nil && resp.StatusCode == 401, nil
			}
			resp := get(t, &rf.LoggingTransport{Base: retry, Logger: logger}, host)
			require.Equal(t, 200, resp.StatusCode)
			record := records()[0]
			require.Equal(t, 2.0, record["attempts"])
			require.Equal(t, "sent", record["auth"])
			require.NotContains(t, record, "gave_up")
			require.Equal(t, []string{"decided: send", "refused: 401", "gave up: no newer token <nil>", "decided: send"}, lines)
		})
	}
}

// A foreign layer that answers by itself, a cache, leaves a record without what the auth
// layer below said of the attempt before.
func TestAuthLogSaysNothingOfAnotherAttempt(t *testing.T) {
	auth := &rf.AuthTransport{Source: static("t"), Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
		return reply(req, 503), nil
	})}
	sends := 0
	cache := roundTrip(func(req *http.Request) (*http.Response, error) {
		if sends++; sends == 1 {
			return auth.RoundTrip(req)
		}
		return reply(req, 200), nil
	})
	logger, records := logged(t, slog.LevelInfo)
	get(t, retryOver(&rf.LoggingTransport{Base: cache, Logger: logger}, retryFast(1)), host)
	require.Len(t, records(), 2)
	require.Equal(t, "sent", records()[0]["auth"])
	require.NotContains(t, records()[1], "auth")
}

// What became of a challenge stays in the record of a request that is retried later.
func TestAuthLogKeepsAChallengeOverARetry(t *testing.T) {
	for name, between := range map[string]func(http.RoundTripper) http.RoundTripper{
		"directly": func(rt http.RoundTripper) http.RoundTripper { return rt },
		"foreign":  func(rt http.RoundTripper) http.RoundTripper { return hiding{rt} },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMint()
			m.takes = 0
			p := pipeline(t, rf.PipelineConfig{Steps: []rf.Step{m.step("user")}})
			scoped, good := m.scoped(nil), 0
			auth := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				resp, err := scoped(req)
				if resp.StatusCode == 200 {
					if good++; good == 1 {
						return reply(req, 503), nil
					}
				}
				return resp, err
			})}
			logger, records := logged(t, slog.LevelInfo)
			resp := get(t, &rf.LoggingTransport{Base: between(retryOver(auth, retryFast(1))), Logger: logger}, host+"/a")
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, "answered", records()[0]["challenge"])
			require.Equal(t, "sent", records()[0]["auth"])
		})
	}
}

// Where a foreign layer hides what the auth layer sends, the retry layer above goes on.
func TestAuthTraceLeavesARetriedRefusalToTheRetryLayer(t *testing.T) {
	var lines []string
	sends := 0
	auth := &rf.AuthTransport{Source: &numbered{name: "t"}, Origins: []string{host}, Trace: journal(t, &lines), Base: roundTrip(func(req *http.Request) (*http.Response, error) {
		if sends++; sends == 1 {
			return reply(req, 503), nil
		}
		return reply(req, 401), nil
	})}
	logger, records := logged(t, slog.LevelInfo)
	get(t, &rf.LoggingTransport{Base: retryOver(hiding{auth}, retryFast(1)), Logger: logger}, host)
	require.Equal(t, []string{"decided: send", "decided: send", "refused: 401", "gave up: left to the retry layer above <nil>"}, lines)
	require.Equal(t, "left to the retry layer above", records()[0]["gave_up"])
}

// Of an AuthTrace each function may be nil, and none of them can fail a request.
func TestAuthTraceThatPanicsFailsNoRequest(t *testing.T) {
	for _, trace := range []*rf.AuthTrace{{}, {
		Decided:  func(*http.Request, rf.Decision) { panic("decided") },
		Refused:  func(*http.Request, rf.RefusedInfo) { panic("refused") },
		Replayed: func(*http.Request, rf.ReplayedInfo) { panic("replayed") },
		GaveUp:   func(*http.Request, rf.GaveUpInfo) { panic("gave up") },
	}} {
		rt, err := rf.NewTransport(rf.Config{BaseURL: host, Source: &numbered{name: "t"}, AuthTrace: trace, Base: api(func(tok string) bool { return tok == "t-1" })})
		require.NoError(t, err)
		require.Equal(t, 200, get(t, rt, host).StatusCode)
		rt, err = rf.NewTransport(rf.Config{BaseURL: host, Source: static("t"), AuthTrace: trace, Base: api(func(string) bool { return false })})
		require.NoError(t, err)
		require.Equal(t, 401, get(t, rt, host).StatusCode)
	}
}

// Text of the source's error goes into a log without what a URL in it holds.
func TestAuthLogMasksTheSourcesError(t *testing.T) {
	logger, records := logged(t, slog.LevelInfo)
	first := true
	auth := &rf.AuthTransport{Origins: []string{host}, Base: api(func(string) bool { return false }), Source: sourceFunc(func(context.Context) (*rf.Token, error) {
		if first {
			first = false
			return &rf.Token{AccessToken: "t"}, nil
		}
		return nil, fmt.Errorf("GET https://auth.example.com/?key=hunter2: %w", io.ErrUnexpectedEOF)
	})}
	get(t, &rf.LoggingTransport{Base: auth, Logger: logger}, host)
	require.Equal(t, "GET https://auth.example.com/?key=REDACTED: unexpected EOF", records()[0]["gave_up"])
}
