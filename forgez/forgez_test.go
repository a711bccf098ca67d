package forgez_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/forgez"
)

// local is a request as a browser on this machine sends it.
func local(method, target string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:50000", "localhost:6060"
	return r
}

func answer(h http.Handler, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(text)
}

// step returns a step whose tokens live for an hour.
func step(name string, parents ...string) requestforge.Step {
	return requestforge.Step{Name: name, DependsOn: parents, Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
		return &requestforge.Token{AccessToken: "token-of-" + name, Expiry: time.Now().Add(time.Hour)}, nil
	})}
}

func pipeline(t *testing.T, cfg requestforge.PipelineConfig) *requestforge.Pipeline {
	t.Helper()
	p, err := requestforge.NewPipeline(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

type userKey struct{}

func as(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}

func userOf(ctx context.Context) (string, error) {
	user, ok := ctx.Value(userKey{}).(string)
	if !ok {
		return "", errors.New("nobody")
	}
	return user, nil
}

// perUser is app -> user, the second each subject's own.
func perUser(label func(string) string) requestforge.PipelineConfig {
	user := step("user", "app")
	user.PerSubject = true
	return requestforge.PipelineConfig{Steps: []requestforge.Step{step("app"), user}, Subject: userOf, SubjectLabel: label}
}

// The data are what State and Stats say, under names that scripts may rely on.
func TestDataAreWhatStateAndStatsSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := step("reports", "app")
		fails.Fetcher = requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
			return nil, &requestforge.AuthError{StatusCode: 400, Code: "invalid_client", Permanent: true}
		})
		p := pipeline(t, requestforge.PipelineConfig{Steps: []requestforge.Step{step("app"), step("orders", "app"), fails}})
		users := pipeline(t, perUser(nil))
		_, err := p.Source("orders").Token(t.Context())
		require.NoError(t, err)
		_, err = p.Source("reports").Token(t.Context())
		require.Error(t, err)
		for _, user := range []string{"ann", "bob"} {
			_, err = users.Token(as(t.Context(), user))
			require.NoError(t, err)
		}
		time.Sleep(time.Second)

		resp := answer(forgez.Handler(p, nil, users), local("GET", "/debug/tokens?json"))
		require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
		const none = `"refreshes":0,"failures":0,"failed_fast":0,"loads":0,"refresh_ahead":0,"lock_waits":0,"challenges":0,"revocations":0,"revoke_failures":0}`
		require.JSONEq(t, `{"time":"2000-01-01T00:00:01Z","pipelines":[
			{"name":"orders, reports","labelled":false,"steps":[
				{"name":"app","parents":[],"per_subject":false,"status":"live","expiry":"2000-01-01T01:00:00Z","counters":{"fetches":1,`+none+`},
				{"name":"orders","parents":["app"],"per_subject":false,"status":"live","expiry":"2000-01-01T01:00:00Z","counters":{"fetches":1,`+none+`},
				{"name":"reports","parents":["app"],"per_subject":false,"status":"cooling","next_try":"2000-01-01T00:00:30Z",
				 "error":{"step":"reports","text":"step \"reports\": invalid_client: status 400 Bad Request","at":"2000-01-01T00:00:00Z"},
				 "counters":{"fetches":1,`+strings.Replace(none, `"failures":0`, `"failures":1`, 1)+`}],
			 "counters":{"invalidations":0,"refusals_ignored":0,"storage_errors":0,"bad_records":0,"subjects":0,"evicted":0}},
			{"name":"user","labelled":false,"steps":[
				{"name":"app","parents":[],"per_subject":false,"status":"live","expiry":"2000-01-01T01:00:00Z","counters":{"fetches":1,`+none+`},
				{"name":"user","parents":["app"],"per_subject":true,"status":"none","subjects":{"live":2},"counters":{"fetches":2,`+none+`}],
			 "counters":{"invalidations":0,"refusals_ignored":0,"storage_errors":0,"bad_records":0,"subjects":2,"evicted":0}}]}`, body(t, resp))
	})
}

// A counter that is added to Stats is missed on the page.
func TestEveryCounterIsShown(t *testing.T) {
	var data struct {
		Pipelines []struct {
			Steps    []struct{ Counters map[string]uint64 }
			Counters map[string]uint64
		}
	}
	resp := answer(forgez.Handler(pipeline(t, perUser(nil))), local("GET", "/?json"))
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&data))
	script := body(t, answer(forgez.Handler(), local("GET", "/?script")))
	fields := func(v any) int {
		n := 0
		for f := range reflect.TypeOf(v).Fields() {
			if f.Type.Kind() == reflect.Uint64 {
				n++
			}
		}
		return n
	}
	require.Len(t, data.Pipelines[0].Counters, fields(requestforge.Stats{}))
	require.Len(t, data.Pipelines[0].Steps[0].Counters, fields(requestforge.StepStats{}))
	for _, counters := range []map[string]uint64{data.Pipelines[0].Counters, data.Pipelines[0].Steps[0].Counters} {
		for name := range counters {
			require.Regexp(t, `["\.]`+name+`\b`, script)
		}
	}
}

func TestNamesOfPipelines(t *testing.T) {
	names := func(h http.Handler) (all []string) {
		var data struct{ Pipelines []struct{ Name string } }
		require.NoError(t, json.NewDecoder(answer(h, local("GET", "/?json")).Body).Decode(&data))
		for _, p := range data.Pipelines {
			all = append(all, p.Name)
		}
		return all
	}
	one := pipeline(t, requestforge.PipelineConfig{Steps: []requestforge.Step{step("app"), step("user", "app")}})
	many := pipeline(t, requestforge.PipelineConfig{Steps: []requestforge.Step{step("a"), step("b"), step("c"), step("d"), step("e")}})
	require.Equal(t, []string{"user", "a, b, c and 2 more", "user (2)"}, names(forgez.Handler(one, many, one)))
	require.Equal(t, []string{"alpha", "beta"}, names(&forgez.Page{Pipelines: map[string]*requestforge.Pipeline{"beta": one, "alpha": many, "none": nil}}))
	require.Empty(t, names(&forgez.Page{}))
}

// The page can be mounted anywhere: whatever its path is, the query says what is wanted.
func TestMountedAnywhere(t *testing.T) {
	h := forgez.Handler(pipeline(t, perUser(nil)))
	mux := http.NewServeMux()
	mux.Handle("/debug/tokens", h)
	mux.Handle("GET /debug/tokens/", h)
	mux.Handle("/internal/", http.StripPrefix("/internal", h))
	mux.Handle("/", h)
	for _, path := range []string{"/debug/tokens", "/debug/tokens/", "/internal/tokens", "/internal/", "/"} {
		for query, want := range map[string]struct{ contentType, has string }{
			"":            {"text/html; charset=utf-8", "<title>Tokens</title>"},
			"?utm=1":      {"text/html; charset=utf-8", "<title>Tokens</title>"},
			"?style":      {"text/css; charset=utf-8", "prefers-color-scheme"},
			"?script":     {"text/javascript; charset=utf-8", "fetch("},
			"?graph":      {"text/javascript; charset=utf-8", "layoutOf"},
			"?icon":       {"image/svg+xml", "<svg"},
			"?json":       {"application/json", `"pipelines":[`},
			"?../view.go": {"text/html; charset=utf-8", "<title>Tokens</title>"},
		} {
			resp := answer(mux, local("GET", path+query))
			require.Equal(t, http.StatusOK, resp.StatusCode, path+query)
			require.Equal(t, want.contentType, resp.Header.Get("Content-Type"), path+query)
			require.Contains(t, body(t, resp), want.has, path+query)
		}
	}
	html := body(t, answer(h, local("GET", "/")))
	for _, ref := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(html, -1) {
		require.Regexp(t, `^[?#]`, ref[1], "an address that isn't relative")
	}
	require.NotContains(t, html, "<style")
	require.NotRegexp(t, `<script(?:>| [^>]*>[^<])| on\w+=| style=`, html, "the policy forbids what is inline")
}

// A server answers HEAD, and the body is left out.
func TestMethods(t *testing.T) {
	srv := httptest.NewServer(forgez.Handler(pipeline(t, perUser(nil))))
	defer srv.Close()
	for _, query := range []string{"", "?json", "?script"} {
		resp, err := http.Head(srv.URL + query)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Positive(t, resp.ContentLength, query)
		require.Empty(t, body(t, resp))
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"} {
		resp := answer(forgez.Handler(), local(method, "/?json"))
		require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode, method)
		require.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))
	}
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	h := forgez.Handler(pipeline(t, perUser(nil)))
	remote := local("GET", "/")
	remote.RemoteAddr = "192.0.2.1:50000"
	badLabel := local("GET", "/?json")
	badLabel.Header.Set(forgez.LabelHeader, "%zz")
	for _, r := range []*http.Request{local("GET", "/"), local("GET", "/?json"), local("GET", "/?script"), local("POST", "/"), remote, badLabel} {
		got := answer(h, r).Header
		require.Equal(t, "no-store", got.Get("Cache-Control"))
		require.Equal(t, "nosniff", got.Get("X-Content-Type-Options"))
		require.Equal(t, "no-referrer", got.Get("Referrer-Policy"))
		require.Equal(t, "same-origin", got.Get("Cross-Origin-Resource-Policy"))
		require.Equal(t, "same-origin", got.Get("Cross-Origin-Opener-Policy"))
		policy := got.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"} {
			require.Contains(t, policy, part)
		}
		require.NotContains(t, policy, "unsafe")
		require.Empty(t, got.Get("Access-Control-Allow-Origin"))
	}
}

func TestWhoIsRefused(t *testing.T) {
	h := forgez.Handler(pipeline(t, perUser(nil)))
	with := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	from := func(addr string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	cross := func(site, mode, dest string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", site)
			r.Header.Set("Sec-Fetch-Mode", mode)
			r.Header.Set("Sec-Fetch-Dest", dest)
		}
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		ok     bool
		target string
	}{
		"this machine":           {change: func(*http.Request) {}, ok: true},
		"anywhere in 127/8":      {change: from("127.8.0.1:1"), ok: true},
		"IPv6":                   {change: from("[::1]:1"), ok: true},
		"IPv4 in IPv6":           {change: from("[::ffff:127.0.0.1]:1"), ok: true},
		"another machine":        {change: from("192.0.2.1:1")},
		"a neighbour":            {change: from("192.168.0.2:1")},
		"this machine's network": {change: from("10.0.0.1:1")},
		"another, over IPv6":     {change: from("[2001:db8::1]:1")},
		"IPv4 in IPv6, another":  {change: from("[::ffff:192.0.2.1]:1")},
		"a Unix socket":          {change: from("@")},
		"no address":             {change: from("")},

		"localhost":              {change: host("localhost"), ok: true},
		"a name below":           {change: host("api.LOCALHOST.:80"), ok: true},
		"IPv4 host":              {change: host("127.0.0.1:6060"), ok: true},
		"IPv6 host":              {change: host("[::1]:6060"), ok: true},
		"IPv6 host without port": {change: host("[::1]"), ok: true},
		"DNS rebinding":          {change: host("evil.example:6060")},
		"like localhost":         {change: host("localhost.evil.example")},
		"ending like it":         {change: host("evillocalhost")},
		"every address":          {change: host("0.0.0.0:6060")},
		"another machine's":      {change: host("192.0.2.1:6060")},
		"no host":                {change: host("")},
		"a bad host":             {change: host("[::1")},

		"X-Forwarded-For":   {change: with("X-Forwarded-For", "127.0.0.1")},
		"X-Forwarded-Host":  {change: with("X-Forwarded-Host", "localhost")},
		"X-Forwarded-Proto": {change: with("X-Forwarded-Proto", "http")},
		"an empty one":      {change: with("X-Forwarded-For", "")},
		"Forwarded":         {change: with("Forwarded", "for=127.0.0.1")},
		"Via":               {change: with("Via", "1.1 proxy")},
		"X-Real-IP":         {change: with("X-Real-IP", "127.0.0.1")},

		"typed":                        {change: cross("none", "navigate", "document"), ok: true},
		"the page itself":              {change: cross("same-origin", "cors", "empty"), ok: true, target: "/?json"},
		"a link elsewhere":             {change: cross("cross-site", "navigate", "document"), ok: true},
		"a link to the data":           {change: cross("cross-site", "navigate", "document"), target: "/?json"},
		"a frame elsewhere":            {change: cross("cross-site", "navigate", "iframe")},
		"a script elsewhere":           {change: cross("cross-site", "no-cors", "script"), target: "/?script"},
		"another port's script":        {change: cross("same-site", "no-cors", "empty"), target: "/?json"},
		"an origin elsewhere":          {change: with("Origin", "https://evil.example")},
		"another port's origin":        {change: with("Origin", "http://localhost:3000")},
		"no origin":                    {change: with("Origin", "null")},
		"the page's own origin":        {change: with("Origin", "http://localhost:6060"), ok: true},
		"a method, and another origin": {change: with("Origin", "https://evil.example")},
	} {
		target := c.target
		if target == "" {
			target = "/"
		}
		r := local("GET", target)
		c.change(r)
		resp := answer(h, r)
		text := body(t, resp)
		if c.ok {
			require.Equal(t, http.StatusOK, resp.StatusCode, name)
			continue
		}
		require.Equal(t, http.StatusForbidden, resp.StatusCode, name)
		require.Equal(t, "forgez: this page is not for you; see Page.Allow\n", text, name)
	}
}

// Allow decides who sees the page, but for pages of other origins.
func TestAllow(t *testing.T) {
	seen := 0
	p := &forgez.Page{Allow: func(r *http.Request) bool {
		seen++
		return forgez.Loopback(r) || r.Header.Get("X-Admin") == "yes"
	}}
	remote := func() *http.Request {
		r := local("GET", "/?json")
		r.RemoteAddr, r.Host = "192.0.2.1:50000", "admin.example.com"
		return r
	}
	require.Equal(t, http.StatusForbidden, answer(p, remote()).StatusCode)
	admin := remote()
	admin.Header.Set("X-Admin", "yes")
	require.Equal(t, http.StatusOK, answer(p, admin).StatusCode)
	require.Equal(t, http.StatusOK, answer(p, local("GET", "/")).StatusCode)
	require.Equal(t, 3, seen)
	admin.Header.Set("Sec-Fetch-Site", "cross-site")
	require.Equal(t, http.StatusForbidden, answer(p, admin).StatusCode)
	require.Equal(t, http.StatusOK, answer(&forgez.Page{}, local("GET", "/")).StatusCode)
	require.Equal(t, http.StatusForbidden, answer(&forgez.Page{}, remote()).StatusCode)
}

// find asks for the data of a label.
func find(t *testing.T, h http.Handler, label string) string {
	t.Helper()
	r := local("GET", "/?json")
	r.Header.Set(forgez.LabelHeader, url.PathEscape(label))
	resp := answer(h, r)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	return body(t, resp)
}

func TestSubjectOfALabel(t *testing.T) {
	p := pipeline(t, perUser(func(subject string) string { return "tenänt/" + subject[:1] }))
	for _, user := range []string{"ann", "bob", "bea"} {
		_, err := p.Token(as(t.Context(), user))
		require.NoError(t, err)
	}
	h := forgez.Handler(p)
	all := body(t, answer(h, local("GET", "/?json")))
	require.Contains(t, all, `"labelled":true`)
	require.Contains(t, all, `"subjects":{"live":3}`)
	require.Contains(t, find(t, h, "tenänt/b"), `"subjects":{"live":2}`)
	require.Regexp(t, `"per_subject":true,"status":"live","expiry":`, find(t, h, "tenänt/a"))
	require.Contains(t, find(t, h, "tenänt/x"), `"per_subject":true,"status":"none","subjects":{}`)
	require.NotContains(t, find(t, h, "ann"), `"live":`)

	// Where there are no labels, none is looked for.
	require.Contains(t, find(t, forgez.Handler(unlabelled(t)), "ann"), `"subjects":{"live":1}`)
	for _, bad := range []string{"%zz", strings.Repeat("x", 2000)} {
		r := local("GET", "/?json")
		r.Header.Set(forgez.LabelHeader, bad)
		resp := answer(h, r)
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
		require.NotContains(t, body(t, resp), bad)
	}
}

func unlabelled(t *testing.T) *requestforge.Pipeline {
	p := pipeline(t, perUser(nil))
	_, err := p.Token(as(t.Context(), "ann"))
	require.NoError(t, err)
	return p
}

// Whoever looks is no subject, though a middleware may have made one of the viewer.
func TestTheViewerIsNoSubject(t *testing.T) {
	h := forgez.Handler(unlabelled(t))
	r := local("GET", "/?json")
	require.Contains(t, body(t, answer(h, r.WithContext(as(r.Context(), "ann")))), `"subjects":{"live":1}`)
}

// Nothing that is secret is in the data, whatever has gone wrong.
func TestNoSecretInTheData(t *testing.T) {
	const canary = "canary"
	refuse := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Echo", string(text))
		w.Header().Set("Content-Type", "application/json")
		if refuse {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":"no %s-description, you sent %s"}`, canary, url.QueryEscape(string(text)))
			return
		}
		fmt.Fprintf(w, `{"access_token":"%[1]s-access","refresh_token":"%[1]s-refresh","expires_in":3600,"id":"%[1]s-extra"}`, canary)
	}))
	defer srv.Close()
	user := requestforge.Step{Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: &requestforge.HTTPFetcher{
		URLFrom: func(in requestforge.Input) (string, error) {
			return srv.URL + "/" + canary + "-path?key=" + canary + "-query&user=" + url.QueryEscape(in.Subject), nil
		},
		Origins:    []string{srv.URL},
		HeaderFrom: map[string]string{"X-App": "app"},
		Form:       url.Values{"password": {canary + "-password"}},
	}}
	cfg := requestforge.PipelineConfig{
		Steps: []requestforge.Step{{Name: "app", Fetcher: &requestforge.HTTPFetcher{
			URL: srv.URL, ClientAuth: &requestforge.ClientAuth{ID: canary + "-id", Secret: canary + "-secret"},
		}}, user},
		Subject:      userOf,
		SubjectLabel: func(subject string) string { return fmt.Sprint("label-", len(subject)) },
		FetchRetries: -1,
		KeepAnswers:  true, // for the program, and not for the page
	}
	p := pipeline(t, cfg)
	h := forgez.Handler(p)
	look := func(want string) {
		t.Helper()
		for _, text := range []string{body(t, answer(h, local("GET", "/?json"))), find(t, h, "label-11"), find(t, h, canary+"-ann")} {
			require.NotContains(t, text, canary)
		}
		require.Contains(t, find(t, h, "label-10"), want)
	}
	ann := as(t.Context(), canary+"-ann")
	_, err := p.Token(ann)
	require.NoError(t, err)
	look(`"per_subject":true,"status":"live"`)
	refuse = true
	_, err = p.Refresh(ann)
	failed, ok := errors.AsType[*requestforge.AuthError](err)
	require.True(t, ok)
	answered, _ := failed.Answer()
	require.Contains(t, string(answered), canary+"-description")
	require.NoError(t, p.InvalidateAll(ann))
	_, err = p.Token(ann)
	require.Error(t, err)
	look(`invalid_client`)
	srv.Close()
	_, err = p.Refresh(ann)
	require.Error(t, err)
	look(`"error":{"step":"user","text":"step`)
}

// Many look at once while the pipeline works.
func TestManyViewers(t *testing.T) {
	p := pipeline(t, perUser(func(subject string) string { return subject[:1] }))
	h := &forgez.Page{Pipelines: map[string]*requestforge.Pipeline{"one": p, "two": p}}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 30 {
				ctx := as(t.Context(), fmt.Sprint(n))
				if _, err := p.Token(ctx); err != nil {
					t.Error(err)
				}
				if i%2 == 0 {
					_ = p.InvalidateStep(ctx, "user")
				}
			}
		})
		wg.Go(func() {
			for range 30 {
				r := local("GET", "/?json")
				if i%2 == 0 {
					r.Header.Set(forgez.LabelHeader, "1")
				}
				if resp := answer(h, r); !json.Valid([]byte(body(t, resp))) {
					t.Error("no JSON")
				}
			}
		})
	}
	wg.Wait()
}
