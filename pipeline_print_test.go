// Whatever is printed, however it is printed, shows no secret.

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
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	rf "github.com/requestforge/requestforge"
)

// secrets are all that must not be seen. They begin alike, so that one search
// finds each.
const secretsBegin = "s3cret"

func secret(what string) string { return secretsBegin + "-" + what }

// printed is v in every way that it may get into a log.
func printed(v any) map[string]string {
	texts := map[string]string{}
	nested := struct{ V any }{v}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		texts[verb] = fmt.Sprintf(verb, v)
		texts[verb+" within"] = fmt.Sprintf(verb, nested)
		texts[verb+" in a slice"] = fmt.Sprintf(verb, []any{v})
		texts[verb+" in a map"] = fmt.Sprintf(verb, map[string]any{"k": v})
	}
	if text, err := json.Marshal(v); err == nil {
		texts["JSON"] = string(text)
	} else {
		texts["JSON"] = err.Error()
	}
	for name, handler := range map[string]func(io.Writer) slog.Handler{
		"slog text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
		"slog JSON": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		var b bytes.Buffer
		slog.New(handler(&b)).Info("m", "v", v, "within", nested)
		texts[name] = b.String()
	}
	return texts
}

func requireNoSecret(t *testing.T, name string, v any) {
	t.Helper()
	for how, text := range printed(v) {
		hex := strings.Contains(text, fmt.Sprintf("%x", secretsBegin))
		if strings.Contains(text, secretsBegin) || hex {
			t.Errorf("%s as %s: %s", name, how, text)
		}
	}
}

// secretSteps is a login full of secrets, against a server that gives out more.
func secretSteps(server http.RoundTripper) []rf.Step {
	client := &http.Client{Transport: server}
	return []rf.Step{
		{Name: "app", TTL: time.Hour, Fetcher: &rf.HTTPFetcher{
			URL: "https://auth.example.com/app?key=" + secret("query"), Client: client,
			Header:     http.Header{"X-Api-Key": {secret("header")}},
			Form:       url.Values{"password": {secret("password")}},
			ClientAuth: &rf.ClientAuth{ID: "id", Secret: secret("client")},
		}, OnError: func(context.Context, error) {}},
		{Name: "user", DependsOn: []string{"app"}, Fetcher: &rf.HTTPFetcher{
			URL: "https://auth.example.com/user", Client: client,
			JSON: map[string]string{"password": secret("password")}, HeaderFrom: map[string]string{"Authorization": "app"},
		}, Refresh: &rf.HTTPFetcher{
			URL: "https://auth.example.com/refresh", Client: client,
			ClientAuth: &rf.ClientAuth{ID: "id", Secret: secret("client"), InBody: true},
			BodyFrom: func(in rf.Input) (any, error) {
				return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {in.Previous.RefreshToken}}, nil
			},
		}},
	}
}

// secretServer answers with secrets, whatever status says.
func secretServer(status func(*http.Request) (int, error)) roundTrip {
	n := 0
	var mu sync.Mutex
	return func(req *http.Request) (*http.Response, error) {
		code, err := status(req)
		if err != nil {
			if req.Body != nil {
				req.Body.Close()
			}
			return nil, err
		}
		mu.Lock()
		n++
		text := fmt.Sprintf(`{"access_token":"%s-%d","refresh_token":"%s-%d","expires_in":600,"id_token":"%s","error_description":"%s"}`,
			secret("access"), n, secret("refresh"), n, secret("id"), secret("description"))
		mu.Unlock()
		resp := reply(req, code, "Content-Type", "application/json", "X-Secret", secret("response"))
		resp.Status = fmt.Sprint(code, " ", secret("phrase"))
		resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		return resp, nil
	}
}

func ok(*http.Request) (int, error) { return 200, nil }

// secretError is one of a storage whose URL holds a password.
var secretError = &url.Error{Op: "dial", URL: "redis://user:" + secret("storage") + "@db.example.com:6379/0", Err: errors.New("connection refused")}

func TestPipelineNothingPrintsASecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := rf.PipelineConfig{Steps: secretSteps(secretServer(ok)), Storage: rf.NewMemoryStorage(), RefreshFrom: "app", Logger: slog.New(slog.DiscardHandler)}
		p := pipeline(t, cfg)
		tok := mustToken(t, p)
		require.Contains(t, tok.AccessToken, secretsBegin)
		require.Contains(t, tok.RefreshToken, secretsBegin)
		require.Contains(t, tok.Extra["id_token"], secretsBegin)
		entries, err := cfg.Storage.Load(t.Context(), rf.StorageKeys(p)...)
		require.NoError(t, err)
		in := rf.Input{Parents: map[string]*rf.Token{"app": tok}, Previous: tok}
		auth := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: api(func(string) bool { return true })}
		get(t, auth, host)
		fixed := &rf.AuthTransport{Source: rf.StaticToken(tok), Origins: []string{host}, Base: api(func(string) bool { return true })}
		get(t, fixed, host)
		whole, err := rf.NewTransport(rf.Config{Source: p, Origins: []string{host}, Base: auth.Base, Retry: rf.RetryPolicy{RetryMax: 1}, Logger: cfg.Logger})
		require.NoError(t, err)
		get(t, whole, host)

		for name, v := range map[string]any{
			"*Pipeline": p, "PipelineConfig": cfg, "*PipelineConfig": &cfg, "Stats": p.Stats(),
			"Step": cfg.Steps[0], "*Step": &cfg.Steps[1], "[]Step": cfg.Steps,
			"Input": in, "*Input": &in, "*Token": tok, "TokenSource": rf.StaticToken(tok),
			"*AuthTransport": auth, "with a static token": fixed, "*Transport": whole, "Config": rf.Config{Source: rf.StaticToken(tok), Base: fixed},
			"*RetryTransport": &rf.RetryTransport{Base: fixed}, "*LoggingTransport": &rf.LoggingTransport{Base: fixed},
			"[]Entry": entries, "Record": *entries[1].Record, "*Record": entries[1].Record, "Storage": cfg.Storage,
			"Decision": auth.Explain(&http.Request{URL: &url.URL{Scheme: "https", Host: "api.example.com", User: url.UserPassword("u", secret("userinfo"))}}),
		} {
			requireNoSecret(t, name, v)
		}
	})
}

func TestPipelinePrintsAsItsSteps(t *testing.T) {
	l := newLogin()
	cfg := rf.PipelineConfig{Steps: []rf.Step{l.step("user", "app"), l.step("app")}, RefreshFrom: "app", CoolDown: time.Minute}
	cfg.Steps[0].TTL = time.Hour
	p := pipeline(t, cfg)
	const want = `Pipeline("app", "user")`
	for _, text := range []string{p.String(), fmt.Sprint(p), fmt.Sprintf("%+v", p), fmt.Sprintf("%#v", p), p.LogValue().String()} {
		require.Equal(t, want, text)
	}
	require.Equal(t, `Pipeline()`, new(rf.Pipeline).String())
	require.Equal(t, "<nil>", fmt.Sprint((*rf.Pipeline)(nil)))
	require.Equal(t, `Step("user" after "app", Fetcher requestforge.FetcherFunc, TTL 1h0m0s)`, fmt.Sprint(cfg.Steps[0]))
	require.Equal(t, `requestforge.PipelineConfig{Steps: [Step("user" after "app", Fetcher requestforge.FetcherFunc, TTL 1h0m0s) Step("app", Fetcher requestforge.FetcherFunc)], RefreshFrom: "app", CoolDown: 1m0s}`, fmt.Sprintf("%+v", cfg))
	require.Equal(t, fmt.Sprint(cfg), cfg.LogValue().String())
	require.Equal(t, fmt.Sprint(cfg.Steps[1]), cfg.Steps[1].LogValue().String())
}

// A pipeline that is in use can be printed: nothing of it is read that changes.
func TestPipelineCanBePrintedWhileInUse(t *testing.T) {
	l := newLogin()
	l.takes = 0
	p := pipeline(t, rf.PipelineConfig{Steps: l.chain()})
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 100 {
			p.Token(t.Context())
			p.InvalidateAll(t.Context())
		}
	})
	for range 100 {
		fmt.Fprintf(io.Discard, "%v %+v %#v", p, p, p)
	}
	wg.Wait()
}

// The short form, with the race detector; numbers_test.go has the long one.
func TestPipelineNoRecordHoldsASecretInAShortRun(t *testing.T) {
	t.Parallel()
	noRecordHoldsASecret(t, 60, false)
}

// noRecordHoldsASecret is a run with every fault there is, logged to the last record. If it
// is long, it comes to every event.
func noRecordHoldsASecret(t *testing.T, requests int, long bool) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var logged bytes.Buffer
		seen := map[string]bool{}
		var errs []error
		text, js := slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}), slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})
		log := slog.New(handlerFunc(func(r slog.Record) {
			mu.Lock()
			defer mu.Unlock()
			seen[r.Message] = true
			text.Handle(context.Background(), r)
			js.Handle(context.Background(), r)
		}))
		tell := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			}
		}

		n := 0
		server := secretServer(func(req *http.Request) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			n++
			switch n % 9 {
			case 1:
				return 503, nil
			case 3:
				return 401, nil
			case 5:
				return 0, &url.Error{Op: "Post", URL: req.URL.String(), Err: errors.New("connection reset")}
			case 7:
				return 400, nil
			case 8:
				panic(secret("panic"))
			}
			return 200, nil
		})
		steps := secretSteps(server)
		for i := range steps {
			steps[i].OnError = func(_ context.Context, err error) { tell(err) }
			steps[i].OnRotate = func(_ context.Context, tok *rf.Token) { panic(tok.RefreshToken) }
		}
		calls := 0
		storage := &watching{faulty: faulty{MemoryStorage: rf.NewMemoryStorage(), before: func(string) error {
			mu.Lock()
			defer mu.Unlock()
			switch calls++; calls % 11 {
			case 5:
				return secretError
			case 7:
				panic(secret("panic"))
			}
			return nil
		}, load: func(e []rf.Entry) ([]rf.Entry, error) {
			mu.Lock()
			defer mu.Unlock()
			if r := e[0].Record; r != nil && calls%5 == 0 {
				r.Token.AccessToken = secret("garbage") + "\r\n"
			}
			return e, nil
		}}, watch: func(_ []string, changed func(string, error)) func() {
			changed("", nil)
			changed("", secretError)
			return func() {}
		}}
		cfg := rf.PipelineConfig{Steps: steps, Storage: storage, Logger: log}
		p, peer := pipeline(t, cfg), pipeline(t, cfg)
		rt := &rf.AuthTransport{Source: p, Origins: []string{host}, Base: api(func(string) bool { mu.Lock(); defer mu.Unlock(); n++; return n%4 > 0 })}
		for i := range requests {
			req, err := http.NewRequestWithContext(t.Context(), "GET", host, nil)
			require.NoError(t, err)
			_, err = rt.RoundTrip(req)
			tell(err)
			switch i % 10 {
			case 1:
				_, err = peer.Token(t.Context())
				tell(err)
			case 3:
				tell(peer.InvalidateStep(t.Context(), "user"))
			case 5:
				_, err = p.Refresh(t.Context())
				tell(err)
			case 7:
				tell(p.InvalidateAll(t.Context()))
			case 9:
				if i%50 == 49 {
					tell(peer.Forget(t.Context()))
				}
			}
			time.Sleep(20 * time.Second)
		}
		mu.Lock()
		defer mu.Unlock()
		require.NotContains(t, logged.String(), secretsBegin)
		require.NotEmpty(t, errs)
		for _, err := range errs {
			requireNoSecret(t, "an error", err)
		}
		for _, message := range []string{
			"token fetched", "fetch failed", "token invalidated", "step cools down", "token loaded", "everything forgotten",
			"the storage fails; going on without", "the storage is back", "stored record ignored",
			"no pushes from the storage; looking now and then", "token invalidated by another process",
			"refused by the auth server; replacing the tokens it carried",
		} {
			require.True(t, !long || seen["requestforge: "+message], "the run never came to %q", message)
		}
	})
}
