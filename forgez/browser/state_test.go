package browser

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/forgez"
)

// The second step goes through every state, and each is seen on the page that was loaded
// at the beginning.
func TestEachChangeIsSeenWithoutAReload(t *testing.T) {
	t.Parallel()
	s, ctx := newStage(), t.Context()
	p := pipeline(t, requestforge.PipelineConfig{Steps: []requestforge.Step{s.step("app"), s.step("user", "app")}, CoolDown: 2 * time.Second})
	b := open(t, serve(t, forgez.Handler(p)), wide)
	b.do(chromedp.Evaluate[chromedp.Void]("window.loadedOnce = true"))
	state := func(want string) {
		t.Helper()
		see(b, "state of user", text("#p0-1 .state"), want)
		see(b, "the same in the graph", text(`.node[title="user"] .at`), want)
		see(b, "shape beside the word", fmt.Sprintf(`document.querySelector("#p0-1 .state .sign").classList.contains(%q) && document.querySelector("#p0-1 .state .icon path") !== null`, want), true)
	}
	shows := func(selector, part string) {
		t.Helper()
		see(b, selector+" has "+part, fmt.Sprintf("(%s).includes(%q)", text(selector), part), true)
	}
	state("none")
	see(b, "fetches", text("#p0-1 .number"), "0")

	release := s.hold("user")
	got := make(chan struct{})
	ask := func() {
		go func() {
			use(ctx, p)
			got <- struct{}{}
		}()
	}
	ask()
	state("fetching")
	see(b, "state of app", text("#p0-0 .state"), "live")
	s.live(20 * time.Second) // renewed ahead in the second half
	release()
	<-got
	state("live")
	left := `parseInt(document.querySelector("#p0-1 .time").textContent.replace("expires in ", ""))`
	if n := eval[int](b, left); n < 2 || n > 20 {
		t.Errorf("the token of 20 s expires in %d s", n)
	} else {
		see(b, "it counts down", fmt.Sprintf("%s < %d", left, n), true)
	}

	release = s.hold("user")
	for end := time.Now().Add(20 * time.Second); p.Stats().Steps["user"].RefreshAhead == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		use(ctx, p)
	}
	state("ahead")
	s.live(time.Hour)
	release()
	state("live")
	shows("#p0-1 .time", "min")
	see(b, "fetches", text("#p0-1 .number"), "2")

	if err := p.InvalidateStep(ctx, "app"); err != nil {
		t.Fatal(err)
	}
	state("dead")
	shows("#p0-1 .time", "revoked or idle")
	see(b, "invalidations", text("#p0 .totals dd"), "1")

	s.fail("app", &requestforge.AuthError{StatusCode: 400, Code: "invalid_client", Permanent: true})
	use(ctx, p)
	state("cooling")
	shows("#p0-1 .error", `step "app": invalid_client: status 400 Bad Request`)
	shows("#p0-1 .time", "next try in ")
	see(b, "the trouble at the top", text("#trouble"), "cooling user / app, and because of it user")
	see(b, "title", "document.title", "1 cooling · Tokens")
	see(b, "failures of app", "document.querySelectorAll('#p0-0 .number')[2].textContent", "1")

	s.fail("app", nil)
	if _, err := p.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	state("live")
	see(b, "nothing at the top", text("#trouble"), "No step is cooling down.")
	see(b, "title", "document.title", "Tokens")
	shows("#p0-1 .error .past", "invalid_client") // what it was stays

	s.live(10 * time.Second)
	if err := p.InvalidateStep(ctx, "user"); err != nil {
		t.Fatal(err)
	}
	use(ctx, p)
	state("live")
	state("dead")
	shows("#p0-1 .time", "expired ")

	if err := p.Forget(ctx); err != nil {
		t.Fatal(err)
	}
	state("none")
	see(b, "error", text("#p0-1 .error .text"), "")

	if list := eval[string](b, text("#changes")); !strings.Contains(list, "user / user: live → cooling") && !strings.Contains(list, "user / user: dead → cooling") {
		t.Errorf("the list of changes lacks one: %s", list)
	}
	if !eval[bool](b, "window.loadedOnce === true") {
		t.Error("the page was loaded anew")
	}
}

// Subjects are counted, and one is found by its label, which is in no address.
func TestSubjectsAreCountedAndFoundByTheirLabel(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	b := open(t, serve(t, page(shop.pipelines)), wide)
	see(b, "counts", text("#p1-2 .state"), "39 live3 cooling")
	see(b, "in the graph", text(`#p1 .node[title="storage"] .at`), "3 of 42 cooling")
	see(b, "sum", text("#p1 .summary"), "3 steps: 2 live, 1 cooling. 42 subjects in memory, 0 dropped")
	see(b, "given", text(`#p1 .node.given .name`), "session")
	see(b, "shared and own", "[...document.querySelectorAll('#p1 .node.own .name')].map(e => e.textContent).join()", "tenant,storage")
	use(as(t.Context(), "subject-name-100"), shop.tenants)
	see(b, "one more", text("#p1-2 .state"), "40 live3 cooling")

	find := func(label string) { b.do(chromedp.SendKeys(chromedp.CSS("#label"), label+"\r")) }
	find("tenant-013")
	see(b, "found", text("#found"), "tenants: one subject in memory has the label “tenant-013”.")
	see(b, "its state", text("#p1-2 .state"), "cooling")
	see(b, "its error", "document.querySelector('#p1-2 .error').textContent.includes('step \"storage\" of \"tenant-013\": access_denied')", true)
	shop.fail("storage subject-name-013", nil)
	if _, err := shop.tenants.Refresh(as(t.Context(), "subject-name-013")); err != nil {
		t.Fatal(err)
	}
	see(b, "its state, later", text("#p1-2 .state"), "live")
	see(b, "its expiry", "document.querySelector('#p1-2 .time').textContent.startsWith('expires in ')", true)
	see(b, "the other pipeline", text("#p0-4 .state"), "cooling")

	b.do(chromedp.Evaluate[chromedp.Void]("document.getElementById('label').value = ''"))
	find("nobody é/%")
	see(b, "found", text("#found"), "tenants: no subject in memory has the label “nobody é/%”.")
	see(b, "nobody's state", text("#p1-2 .state"), "no subject")
	b.do(chromedp.Click(chromedp.CSS("#filter [type=reset]")))
	see(b, "all again", text("#p1-2 .state"), "41 live2 cooling")
	see(b, "found", text("#found"), "")

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.requests {
		if strings.Contains(r.URL, "tenant-") || strings.Contains(r.URL, "nobody") || r.Method != "GET" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
	}
}

func TestNoLabelsNoFilter(t *testing.T) {
	t.Parallel()
	s := newStage()
	user := s.step("user")
	user.PerSubject = true
	p := pipeline(t, requestforge.PipelineConfig{Subject: userOf, Steps: []requestforge.Step{s.step("app"), user}, Leaf: "user"})
	use(as(t.Context(), "ann"), p)
	b := open(t, serve(t, forgez.Handler(p)), wide)
	see(b, "counts", text("#p0-1 .state"), "1 live")
	see(b, "filter", "getComputedStyle(document.getElementById('filter')).display", "none")
}

// The page says that the program has gone, keeps what it last knew, and goes on when the
// program is back; and a pause is one.
func TestTheProgramGoesAndComesBack(t *testing.T) {
	t.Parallel()
	s := newStage()
	p := pipeline(t, requestforge.PipelineConfig{Steps: []requestforge.Step{s.step("user")}})
	use(t.Context(), p)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	srv := &http.Server{Handler: forgez.Handler(p)}
	go srv.Serve(l)
	b := open(t, "http://"+addr+"/", wide)
	b.expected = true
	see(b, "feed", text("#feed"), "Live")
	see(b, "state", text("#p0-0 .state"), "live")
	srv.Close()
	see(b, "feed", text("#feed"), "Lost the program: no answer. Below is what was last seen; trying again each second.")
	see(b, "state", text("#p0-0 .state"), "live")

	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	p2 := pipeline(t, requestforge.PipelineConfig{Steps: []requestforge.Step{s.step("other"), s.step("user", "other")}})
	srv = &http.Server{Handler: forgez.Handler(p2)}
	t.Cleanup(func() { srv.Close() })
	go srv.Serve(l)
	see(b, "feed", text("#feed"), "Live")
	see(b, "the new program's step", text("#p0-0 .name"), "other")
	see(b, "state", text("#p0-1 .state"), "none")

	b.do(chromedp.Click(chromedp.CSS("#pause")))
	see(b, "feed", text("#feed"), "Paused")
	use(t.Context(), p2)
	time.Sleep(1500 * time.Millisecond) // longer than the page takes to ask again
	if got := eval[string](b, text("#p0-1 .state")); got != "none" {
		t.Errorf("in a pause the state becomes %q", got)
	}
	b.do(chromedp.Click(chromedp.CSS("#pause")))
	see(b, "state", text("#p0-1 .state"), "live")
	see(b, "feed", text("#feed"), "Live")
}

// What is selected, and what has the focus, stays while the page changes around it.
func TestSelectionAndFocusStay(t *testing.T) {
	t.Parallel()
	s := newStage()
	s.fail("user", &requestforge.AuthError{StatusCode: 400, Code: "invalid_client", Permanent: true})
	p := pipeline(t, requestforge.PipelineConfig{Steps: []requestforge.Step{s.step("app"), s.step("user", "app")}})
	use(t.Context(), p)
	b := open(t, serve(t, forgez.Handler(p)), wide)
	see(b, "state", text("#p0-1 .state"), "cooling")
	b.do(chromedp.Click(chromedp.CSS("#p0-1 .more button")), chromedp.Evaluate[chromedp.Void]("getSelection().selectAllChildren(document.querySelector('#p0-1 .error .text'))"))
	selected := eval[string](b, "getSelection().toString()")
	if !strings.Contains(selected, "invalid_client") {
		t.Fatalf("selected %q", selected)
	}
	if err := p.InvalidateStep(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	see(b, "state", text("#p0-0 .state"), "dead")
	if got := eval[string](b, "getSelection().toString()"); got != selected {
		t.Errorf("selected is %q, was %q", got, selected)
	}
	if got := eval[string](b, "document.activeElement.getAttribute('aria-label') + ' ' + document.activeElement.getAttribute('aria-expanded')"); got != "Details of user true" {
		t.Errorf("the focus is on %q", got)
	}
}

// A hundred pipelines: one look at the top says which step is in trouble.
func TestAHundredPipelines(t *testing.T) {
	t.Parallel()
	s := newStage()
	s.fail("storage-73", &requestforge.AuthError{StatusCode: 400, Code: "invalid_client", Permanent: true})
	all := make(map[string]*requestforge.Pipeline)
	for i := range 100 {
		name := fmt.Sprintf("team-%02d", i)
		all[name] = pipeline(t, requestforge.PipelineConfig{Steps: []requestforge.Step{s.step("app"), s.step(fmt.Sprintf("storage-%02d", i), "app")}})
		use(t.Context(), all[name])
	}
	b := open(t, serve(t, page(all)), wide)
	see(b, "sections", "document.querySelectorAll('main > section').length", 100)
	see(b, "trouble", "[...document.querySelectorAll('#trouble a')].map(e => e.textContent).join()", "team-73 / storage-73")
	b.do(chromedp.Click(chromedp.CSS("#trouble a")))
	if got := eval[string](b, "document.activeElement.id"); got != "p73-1" {
		t.Errorf("the link leads to %q", got)
	}
	if err := all["team-99"].InvalidateStep(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	see(b, "the last one", text("#p99-1 .state"), "dead")
}

func TestNoPipeline(t *testing.T) {
	t.Parallel()
	b := open(t, serve(t, forgez.Handler()), wide)
	see(b, "the page", text("main"), "There is no pipeline.")
}
