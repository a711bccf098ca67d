// Layers in every order, and what they tell each other.

package requestforge_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// numbered is a TokenSource of "name-0", "name-1" and so on.
type numbered struct {
	name string
	mu   sync.Mutex
	n    int
}

func (s *numbered) Token(context.Context) (*rf.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &rf.Token{AccessToken: fmt.Sprint(s.name, "-", s.n)}, nil
}

func (s *numbered) Invalidate(_ context.Context, tok *rf.Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if tok.AccessToken == fmt.Sprint(s.name, "-", s.n) {
		s.n++
	}
	return nil
}

// Two auth layers put two credentials on a request, and each replaces its own.
func TestLayersOfAuthReplayEachByItsOwnSchedule(t *testing.T) {
	for name, between := range map[string]func(http.RoundTripper) http.RoundTripper{
		"directly":        func(rt http.RoundTripper) http.RoundTripper { return rt },
		"a foreign layer": func(rt http.RoundTripper) http.RoundTripper { return hiding{rt} },
		"a retry layer":   func(rt http.RoundTripper) http.RoundTripper { return retryOver(rt, retryFast(2)) },
	} {
		for revoked, dead := range map[string][]string{
			"app": {"app-0"}, "user": {"user-0"}, "both": {"app-0", "user-0"}, "app, beside a key": {"app-0"},
		} {
			t.Run(name+"/"+revoked, func(t *testing.T) {
				var app, user rf.TokenSource = &numbered{name: "app"}, &numbered{name: "user"}
				if strings.Contains(revoked, "key") { // which can't be replaced
					user = static("key")
				}
				base := roundTrip(func(req *http.Request) (*http.Response, error) {
					if slices.Contains(dead, req.Header.Get("X-App")) || slices.Contains(dead, req.Header.Get("X-User")) {
						return reply(req, 401), nil
					}
					return reply(req, 200), nil
				})
				inner := &rf.AuthTransport{Source: user, Attach: []rf.Place{{Header: "X-User"}}, Origins: []string{host}, Base: base}
				outer := &rf.AuthTransport{Source: app, Attach: []rf.Place{{Header: "X-App"}}, Origins: []string{host}, Base: between(inner)}
				require.Equal(t, 200, get(t, outer, host).StatusCode)
			})
		}
	}
}

// What is refused below another auth layer's credential costs each layer one token a
// revocation, and one in vain at most.
func TestLayersOfAuthSpareTheTokenThatIsGood(t *testing.T) {
	gate, app := newLogin(), newLogin()
	gate.takes, app.takes = 0, 0
	live := map[string]string{}
	latest := func(l *login, name string) rf.Step {
		s := l.step(name)
		next := s.Fetcher
		s.Fetcher = rf.FetcherFunc(func(ctx context.Context, in rf.Input) (*rf.Token, error) {
			tok, err := next.Fetch(ctx, in)
			if err == nil {
				live[name] = tok.AccessToken
			}
			return tok, err
		})
		return s
	}
	base := roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.Header.Get("X-Gate") == live["gate"] && req.Header.Get("Authorization") == "Bearer "+live["app"] {
			return reply(req, 200), nil
		}
		return reply(req, 401), nil
	})
	inner := &rf.AuthTransport{Base: base, Origins: []string{host}, Source: pipeline(t, rf.PipelineConfig{Steps: []rf.Step{latest(app, "app")}})}
	outer := &rf.AuthTransport{Base: inner, Origins: []string{host}, Attach: []rf.Place{{Header: "X-Gate"}}, Source: pipeline(t, rf.PipelineConfig{Steps: []rf.Step{latest(gate, "gate")}})}
	for _, revoke := range []string{"", "app", "gate", "app"} {
		live[revoke] = "revoked"
		require.Equal(t, 200, get(t, outer, host).StatusCode, revoke)
	}
	require.Equal(t, 2, gate.fetches("gate"))
	require.LessOrEqual(t, app.fetches("app"), 4)
}

// RetryMax, the replays and one: so many sends at most, in every order of the layers and
// through every mix of answers.
func TestLayersSendWithinOneBudgetInEveryOrder(t *testing.T) {
	t.Parallel()
	const retries, replays = 2, 2
	type wrap func(http.RoundTripper) http.RoundTripper
	auth := wrap(func(rt http.RoundTripper) http.RoundTripper {
		return &rf.AuthTransport{Source: &numbered{name: "t"}, Origins: []string{host}, Base: rt, Retry: rf.SimpleAuthRetry(replays, 0)}
	})
	retry := wrap(func(rt http.RoundTripper) http.RoundTripper { return retryOver(rt, retryFast(retries)) })
	logging := wrap(func(rt http.RoundTripper) http.RoundTripper {
		return &rf.LoggingTransport{Base: rt, Logger: slog.New(slog.DiscardHandler)}
	})
	foreign := wrap(func(rt http.RoundTripper) http.RoundTripper { return hiding{rt} })
	for name, layers := range map[string][]wrap{
		"retry, auth":                                     {retry, auth},
		"auth, retry":                                     {auth, retry},
		"auth, logging, retry":                            {auth, logging, retry},
		"logging, retry, logging, auth":                   {logging, retry, logging, auth},
		"retry, foreign, auth":                            {retry, foreign, auth},
		"auth, foreign, retry":                            {auth, foreign, retry},
		"logging, foreign, auth, retry":                   {logging, foreign, auth, retry},
		"logging, foreign, auth, foreign, retry, foreign": {logging, foreign, auth, foreign, retry, foreign},
	} {
		for mix := range 3 * 3 * 3 * 3 * 3 {
			sends := 0
			var numbers []int
			var rt http.RoundTripper = roundTrip(func(req *http.Request) (*http.Response, error) {
				numbers = append(numbers, rf.SendNumber(req.Context()))
				n := mix
				for range sends % 5 {
					n /= 3
				}
				sends++
				switch n % 3 {
				case 0:
					return reply(req, 401), nil
				case 1:
					return reply(req, 503), nil
				}
				return nil, io.ErrUnexpectedEOF
			})
			for _, l := range slices.Backward(layers) {
				rt = l(rt)
			}
			req, _ := http.NewRequest("PUT", host, strings.NewReader("body"))
			if resp, err := rt.RoundTrip(req); err == nil {
				resp.Body.Close()
			}
			if sends > 1+retries+replays {
				t.Fatalf("%s: %d sends for mix %d", name, sends, mix)
			}
			for i, n := range numbers {
				if hidden := strings.Contains(name, "foreign, "); n != i+1 && !hidden || n > i+1 {
					t.Fatalf("%s: sends are numbered %v", name, numbers)
				}
			}
		}
	}
}

// Clients of Kubernetes, and whoever unwraps, find the innermost transport.
func TestLayersCanBeLookedThrough(t *testing.T) {
	inner := &http.Transport{}
	stack, err := rf.NewTransport(rf.Config{Base: inner, BaseURL: host, Source: static("t"), Retry: retryFast(1), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	var rt http.RoundTripper = stack
	for range 4 {
		wrapped := rt.(interface{ WrappedRoundTripper() http.RoundTripper }).WrappedRoundTripper()
		require.Same(t, rt.(interface{ Unwrap() http.RoundTripper }).Unwrap(), wrapped)
		rt = wrapped
	}
	require.Same(t, inner, rt)
}

// A layer of ours as http.DefaultTransport, whose Base is http.DefaultTransport: an
// error says so, where the stack would overflow, which no program survives.
func TestLayerThatIsItsOwnDefaultIsAnError(t *testing.T) {
	if kind := os.Getenv("OWN_DEFAULT"); kind != "" {
		ownDefault(t, kind)
		return
	}
	for _, kind := range []string{"AuthTransport", "RetryTransport", "LoggingTransport", "Transport", "Transport without layers", "hidden", "below another"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestLayerThatIsItsOwnDefaultIsAnError$", "-test.v")
			cmd.Env = append(os.Environ(), "OWN_DEFAULT="+kind)
			out, err := cmd.CombinedOutput()
			if err != nil || bytes.Contains(out, []byte("overflow")) || !bytes.Contains(out, []byte("and so to itself")) {
				t.Errorf("%v: %.2000s", err, out)
			}
		})
	}
}

func ownDefault(t *testing.T, kind string) {
	before := http.DefaultTransport
	api := httptest.NewServer(http.NotFoundHandler())
	defer api.Close()
	auth := &rf.AuthTransport{Source: static("t"), Origins: []string{api.URL}}
	build := func(cfg rf.Config) *rf.Transport {
		tr, err := rf.NewTransport(cfg)
		require.NoError(t, err)
		return tr
	}
	switch kind {
	case "AuthTransport":
		http.DefaultTransport = auth
	case "RetryTransport":
		http.DefaultTransport = retryOver(nil, retryFast(1))
	case "LoggingTransport":
		http.DefaultTransport = &rf.LoggingTransport{Logger: slog.New(slog.DiscardHandler)}
	case "Transport":
		http.DefaultTransport = build(rf.Config{BaseURL: api.URL, Source: static("t")})
	case "Transport without layers":
		http.DefaultTransport = build(rf.Config{})
	case "hidden":
		http.DefaultTransport = hiding{auth}
	case "below another":
		http.DefaultTransport = retryOver(auth, retryFast(1))
	}
	req, _ := http.NewRequest("PUT", api.URL, strings.NewReader("body"))
	_, err := http.DefaultClient.Do(req)
	fmt.Println(err)
	http.DefaultClient.CloseIdleConnections()
	if u, ok := http.DefaultTransport.(interface{ Unwrap() http.RoundTripper }); ok {
		u.Unwrap()
	}

	// The right way.
	auth = &rf.AuthTransport{Source: static("t"), Origins: []string{api.URL}, Base: before}
	http.DefaultTransport = auth
	resp, err := (&http.Client{Transport: retryOver(nil, retryFast(1))}).Get(api.URL)
	require.NoError(t, err)
	require.Equal(t, 404, resp.StatusCode)
	http.DefaultClient.CloseIdleConnections()
}
