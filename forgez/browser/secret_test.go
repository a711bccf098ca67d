package browser

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/forgez"
)

// recorder keeps every answer of a handler.
type recorder struct {
	http.Handler
	mu  sync.Mutex
	all bytes.Buffer
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	rec := httptest.NewRecorder()
	r.Handler.ServeHTTP(rec, req)
	r.mu.Lock()
	fmt.Fprintln(&r.all, rec.Header(), rec.Body)
	r.mu.Unlock()
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// canary is what no answer, and nothing on the page, may have in any form.
const canary = "canary7Zq"

// words are an auth server's own, which the program may have with KeepAnswers, and the page
// never has.
const words = "marmalade is out"

// spelled are the forms in which the canary may be somewhere.
func spelled() []string {
	forms := []string{words, strings.ToLower(canary), fmt.Sprintf("%x", canary)}
	for i := range 3 { // wherever a group of three begins
		text := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", i) + canary + "xx"))
		forms = append(forms, strings.ToLower(text[4:len(text)-4]))
	}
	return forms
}

func searched(t *testing.T, what, text string) {
	t.Helper()
	for _, form := range spelled() {
		if i := strings.Index(strings.ToLower(text), form); i >= 0 {
			t.Errorf("%s has %q: …%s…", what, form, text[max(0, i-80):min(len(text), i+80)])
		}
	}
}

// leaky is an auth server that repeats whatever it was sent, in every place there is.
type leaky struct {
	mu   sync.Mutex
	fail int // status
}

func (l *leaky) set(status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = status
}

func (l *leaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Sent", r.Header.Get("Authorization"))
	w.Header().Set("Set-Cookie", "session="+canary+"-cookie")
	if l.fail != 0 {
		w.WriteHeader(l.fail)
		fmt.Fprintf(w, `{"error":"invalid_client","error_description":"%s: %s-description: %s %s"}`, words, canary, url.QueryEscape(string(sent)), r.URL.RawQuery)
		return
	}
	fmt.Fprintf(w, `{"access_token":"%[1]s-access","refresh_token":"%[1]s-refresh","expires_in":3600,"tenant":"%[1]s-extra"}`, canary)
}

// No token, password, answer, or name of a subject is on the page, or in what the page is
// made from, while it works and after every kind of failure.
func TestNoSecretOnThePage(t *testing.T) {
	t.Parallel()
	auth := new(leaky)
	srv := httptest.NewServer(auth)
	t.Cleanup(srv.Close)
	app := requestforge.Step{Name: "app", Fetcher: &requestforge.HTTPFetcher{
		URL: srv.URL + "/app?key=" + canary + "-key", ClientAuth: &requestforge.ClientAuth{ID: canary + "-id", Secret: canary + "-secret"},
	}}
	user := requestforge.Step{Name: "user", DependsOn: []string{"app"}, PerSubject: true, Fetcher: &requestforge.HTTPFetcher{
		URLFrom: func(in requestforge.Input) (string, error) {
			return srv.URL + "/" + canary + "-path?user=" + url.QueryEscape(in.Subject), nil
		},
		Origins: []string{srv.URL}, HeaderFrom: map[string]string{"X-App": "app"}, Form: url.Values{"password": {canary + "-password"}},
	}}
	var panics bool
	odd := requestforge.Step{Name: "odd", DependsOn: []string{"user"}, Fetcher: requestforge.FetcherFunc(func(context.Context, requestforge.Input) (*requestforge.Token, error) {
		if panics {
			panic(canary + "-panic")
		}
		return nil, requestforge.NewAuthError(nil, []byte(canary+"-read"), fmt.Errorf("it says %q, and %s-read", canary+"-quoted", canary))
	})}
	p := pipeline(t, requestforge.PipelineConfig{
		Steps: []requestforge.Step{app, user, odd}, Leaf: "user", Subject: userOf, FetchRetries: -1, KeepAnswers: true, CoolDown: time.Millisecond, MaxCoolDown: time.Millisecond,
		SubjectLabel: func(subject string) string { return fmt.Sprintf("label-%d", len(subject)) },
	})
	ctx := as(t.Context(), canary+"-ann")
	seen := &recorder{Handler: forgez.Handler(p)}
	b := open(t, serve(t, seen), wide)
	see(b, "filter", "document.getElementById('filter').hidden", false)
	b.do(chromedp.SendKeys(chromedp.CSS("#label"), "label-13\r"))
	failed := func(source requestforge.TokenSource, part string) {
		t.Helper()
		_, err := source.Token(ctx)
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Fatalf("the error is %v, which lacks %q", err, part)
		}
		if auth, ok := errors.AsType[*requestforge.AuthError](err); ok && auth.StatusCode != 0 {
			if answered, _ := auth.Answer(); !strings.Contains(string(answered), words) {
				t.Errorf("the answer that is kept is %q", answered)
			}
		}
		see(b, part+" on the page", fmt.Sprintf("document.body.textContent.includes(%q)", part), true)
		searched(t, "the page", eval[string](b, "document.documentElement.outerHTML"))
	}
	if _, err := p.Token(ctx); err != nil {
		t.Fatal(err)
	}
	see(b, "state", text("#p0-1 .state"), "live")
	searched(t, "the page", eval[string](b, "document.documentElement.outerHTML"))
	failed(p.Source("odd"), "it says")
	panics = true
	failed(p.Source("odd"), "panic")
	for _, status := range []int{400, 403, 500} {
		auth.set(status)
		if err := p.InvalidateStep(ctx, "user"); err != nil {
			t.Fatal(err)
		}
		failed(p, fmt.Sprintf("%d %s", status, http.StatusText(status)))
	}
	srv.Close()
	if err := p.InvalidateStep(ctx, "app"); err != nil {
		t.Fatal(err)
	}
	failed(p, "refused")
	b.do(chromedp.Evaluate[chromedp.Void]("document.querySelectorAll('.more button').forEach(b => b.click())"), chromedp.Click(chromedp.CSS("#filter [type=reset]")))
	see(b, "counted", text("#p0-1 .state"), "1 dead")
	searched(t, "the page", eval[string](b, "document.documentElement.outerHTML"))

	seen.mu.Lock()
	defer seen.mu.Unlock()
	if !strings.Contains(seen.all.String(), "400 Bad Request") {
		t.Error("the answers lack what the page has shown")
	}
	searched(t, "an answer", seen.all.String())
}

// The search finds what it looks for.
func TestSearchFindsEveryForm(t *testing.T) {
	for _, text := range []string{"a " + canary, strings.ToUpper(canary), fmt.Sprintf("%x", canary), base64.StdEncoding.EncodeToString([]byte("id:" + canary + "-secret")), base64.StdEncoding.EncodeToString([]byte("me:" + canary)), base64.URLEncoding.EncodeToString([]byte(canary + "-secret"))} {
		found := false
		for _, form := range spelled() {
			found = found || strings.Contains(strings.ToLower(text), form)
		}
		if !found {
			t.Errorf("not found in %s", text)
		}
	}
}

// A page of another origin sees nothing: not with fetch, not as a script, not in a frame. A
// link on it works.
func TestOtherOriginsSeeNothing(t *testing.T) {
	t.Parallel()
	s := newStage()
	p := pipeline(t, requestforge.PipelineConfig{Steps: []requestforge.Step{s.step("user")}})
	tokens := serve(t, forgez.Handler(p))
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<title>other</title><a href="%s">runbook</a><iframe src="%s"></iframe>`, tokens, tokens)
	}))
	t.Cleanup(other.Close)
	for _, origin := range []string{other.URL, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)} {
		b := open(t, origin, wide)
		b.expected = true
		for _, mode := range []string{"cors", "no-cors"} {
			js := fmt.Sprintf(`fetch(%q, {mode: %q}).then(r => r.text()).then(t => "read " + t.length, () => "kept")`, tokens+"?json", mode)
			if got := eval[string](b, js); got != "kept" {
				t.Errorf("%s with %s: %s", origin, mode, got)
			}
		}
		script := fmt.Sprintf(`new Promise(done => { const s = document.createElement("script"); s.src = %q; s.onload = () => done("ran"); s.onerror = () => done("kept"); document.head.append(s); })`, tokens+"?script")
		if got := eval[string](b, script); got != "kept" {
			t.Errorf("%s as a script: %s", origin, got)
		}
		if got := eval[string](b, `(() => { try { return document.querySelector("iframe").contentDocument?.title ?? "kept" } catch { return "kept" } })()`); got != "kept" {
			t.Errorf("%s in a frame: %s", origin, got)
		}
		b.do(chromedp.Click(chromedp.CSS("a")))
		see(b, "the link", text("#p0-0 .state"), "none")
	}
}
