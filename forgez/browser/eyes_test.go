package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/forgez"
)

// axe returns the findings of axe-core that are serious or worse.
func axe(b *tab) []string {
	b.t.Helper()
	script, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	if err != nil {
		b.t.Fatalf("%v: npm ci installs it", err)
	}
	b.do(chromedp.Evaluate[chromedp.Void](string(script)))
	var result struct {
		Passes     []struct{ ID string }
		Violations []struct {
			ID, Impact, Help string
			Nodes            []struct{ HTML, FailureSummary string }
		}
	}
	text := eval[string](b, `axe.run(document, {resultTypes: ["violations", "passes"]}).then(r => JSON.stringify(r))`)
	if err := json.Unmarshal([]byte(text), &result); err != nil {
		b.t.Fatal(err)
	}
	if len(result.Passes) < 15 {
		b.t.Errorf("axe-core has looked at %d rules only", len(result.Passes))
	}
	var found []string
	for _, v := range result.Violations {
		if v.Impact == "serious" || v.Impact == "critical" {
			found = append(found, fmt.Sprintf("%s (%s): %s %+v", v.ID, v.Impact, v.Help, v.Nodes[0]))
		}
	}
	return found
}

// axe-core has nothing serious to say, whatever the page shows, in light and in dark, on a
// screen and on a phone.
func TestAxe(t *testing.T) {
	t.Parallel()
	for _, l := range []look{wide, narrow} {
		for _, dark := range []bool{false, true} {
			l := l
			l.dark = dark
			t.Run(fmt.Sprintf("%d wide, dark %v", l.width, dark), func(t *testing.T) {
				t.Parallel()
				shop := newShop(t)
				b := open(t, serve(t, page(shop.pipelines)), l)
				see(b, "sections", "document.querySelectorAll('main > section').length", 2)
				if got := eval[string](b, "innerWidth + (matchMedia('(prefers-color-scheme: dark)').matches ? ' dark' : '')"); got != strings.TrimSpace(fmt.Sprint(l.width)+map[bool]string{true: " dark"}[dark]) {
					t.Fatalf("the page is %s", got)
				}
				for name, show := range map[string]string{
					"as it is":      "0",
					"details":       "document.querySelectorAll('.more button').forEach(b => b.click())",
					"program gone":  "document.body.classList.add('lost')",
					"row in change": "document.querySelectorAll('tbody tr').forEach(r => r.classList.add('changed'))",
				} {
					b.do(chromedp.Evaluate[chromedp.Void](show))
					if found := axe(b); len(found) > 0 {
						t.Errorf("%s: %q", name, found)
					}
				}
			})
		}
	}
}

// The check can fail.
func TestAxeFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := open(t, serve(t, forgez.Handler()), wide)
	see(b, "the page", text("main"), "There is no pipeline.")
	b.do(chromedp.Evaluate[chromedp.Void]("document.getElementById('pause').textContent = ''; document.querySelector('main p').style.color = '#999'"))
	found := strings.Join(axe(b), "\n")
	for _, rule := range []string{"button-name", "color-contrast"} {
		if !strings.Contains(found, rule) {
			t.Errorf("axe-core has not found %s: %s", rule, found)
		}
	}
}

// Twenty steps, with names longer than there is room for, fit on the narrowest phones.
func TestNothingScrollsSideways(t *testing.T) {
	t.Parallel()
	s := newStage()
	var steps []requestforge.Step
	for i := range 20 {
		var parents []string
		for j := i - 1; j >= 0 && j > i-4; j -= 2 {
			parents = append(parents, steps[j].Name)
		}
		if i == 18 {
			parents = append(parents, steps[0].Name)
		}
		steps = append(steps, s.step(fmt.Sprintf("a-step-whose-name-is-as-long-as-they-get/%s.%d", strings.Repeat("x", i*2), i), parents...))
	}
	s.fail(steps[19].Name, &requestforge.AuthError{StatusCode: 400, Err: fmt.Errorf("no token for %s", strings.Repeat("y", 300))})
	p := pipeline(t, requestforge.PipelineConfig{Steps: steps, Leaf: steps[19].Name})
	use(t.Context(), p)
	broad := []requestforge.Step{s.step("app")}
	for i := range 19 {
		broad = append(broad, s.step(fmt.Sprintf("api-%d", i), "app"))
	}
	shop := newShop(t)
	all := map[string]*requestforge.Pipeline{
		"a pipeline with a name " + strings.Repeat("long", 40): p,
		"office": shop.office, "tenants": shop.tenants, "broad": pipeline(t, requestforge.PipelineConfig{Steps: broad, Leaf: "api-0"}),
	}
	b := open(t, serve(t, page(all)), wide)
	for _, width := range []int64{320, 360, 700, 761, 1280, 2000} {
		b.look(look{width: width, height: 740})
		see(b, fmt.Sprintf("nodes at %d", width), "document.querySelectorAll('#p0 .node, #p1 .node').length", 40)
		b.do(chromedp.Evaluate[chromedp.Void]("document.querySelectorAll('.more button[aria-expanded=false]').forEach(b => b.click())"))
		if over := eval[int](b, "document.scrollingElement.scrollWidth - innerWidth"); over > 0 {
			t.Errorf("%d pixels stick out of %d", over, width)
		}
		outside := eval[string](b, `[...document.querySelectorAll("body *")].filter(e => { const r = e.getBoundingClientRect(); return r.width > 1 && r.right > innerWidth + 0.5 && !e.closest("thead") }).map(e => e.outerHTML.slice(0, 80)).join()`)
		if outside != "" {
			t.Errorf("at %d outside: %s", width, outside)
		}
		// Cards lie beside each other, whatever the width.
		see(b, fmt.Sprintf("cards that overlap at %d", width), `[...document.querySelectorAll(".graph")].map(g => [...g.querySelectorAll(".node")].map(n => n.getBoundingClientRect()))
			.map(all => all.filter((a, i) => all.some((b, j) => j > i && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)).length)
			.reduce((a, b) => a + b, 0)`, 0)
		see(b, fmt.Sprintf("parents that are not before at %d", width), `[...document.querySelectorAll("#p2 .node")].filter(n => {
			const row = [...document.querySelectorAll("#p2 tbody tr")].find(r => r.querySelector(".name")?.textContent === n.title);
			const at = (e) => e.offsetLeft + e.offsetTop * 10000, r = n.getBoundingClientRect();
			return row.querySelector(".from").textContent.replace("from ", "").split(", ").filter(Boolean)
				.map(p => document.querySelector('#p2 .node[title="' + p + '"]').getBoundingClientRect())
				.some(p => p.right > r.left && p.bottom > r.top);
		}).length`, 0)
	}
}

func TestReducedMotion(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	for still, want := range map[bool]string{true: "none", false: "flash"} {
		b := open(t, serve(t, page(shop.pipelines)), look{width: 1280, height: 900, still: still})
		see(b, "state", text("#p0-0 .state"), "live")
		b.do(chromedp.Evaluate[chromedp.Void]("document.getElementById('p0-0').classList.add('changed')"))
		see(b, fmt.Sprintf("animation, still %v", still), "getComputedStyle(document.getElementById('p0-0')).animationName", want)
	}
}

// The colours follow the system, and so does a change of them.
func TestDarkAndLight(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	b := open(t, serve(t, page(shop.pipelines)), wide)
	luminance := "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
	see(b, "light", luminance+" > 700", true)
	b.look(look{width: 1280, height: 900, dark: true})
	see(b, "dark", luminance+" < 150", true)
}

// Everything can be done with a keyboard, in the order of the page, and one sees where one
// is.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	b := open(t, serve(t, page(shop.pipelines)), wide)
	see(b, "sections", "document.querySelectorAll('main > section').length", 2)
	const at = `(() => {
		const e = document.activeElement, s = getComputedStyle(e);
		const seen = s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 && e.getBoundingClientRect().left >= 0;
		return (seen ? "" : "unseen ") + (e.getAttribute("aria-label") || e.id || e.textContent);
	})()`
	press := func(key, want string) {
		t.Helper()
		b.do(chromedp.KeyEvent(key))
		see(b, fmt.Sprintf("focus after %q", key), at, want)
	}
	press(kb.Tab, "Skip to the pipelines")
	for _, want := range []string{"pause", "label", "Show", "All subjects", "back office / invoices", "tenants / storage", "Details of device"} {
		press(kb.Tab, want)
	}
	b.do(chromedp.KeyEvent(kb.Enter))
	see(b, "details", "getComputedStyle(document.getElementById('p0-0-more')).display", "table-row")
	see(b, "button", "document.activeElement.getAttribute('aria-expanded')", "true")
	b.do(chromedp.KeyEvent(" "))
	see(b, "details", "getComputedStyle(document.getElementById('p0-0-more')).display", "none")
	press(kb.Tab, "Details of app")

	// The skip link leads past the head: the next stop is the first row's.
	b.do(chromedp.Evaluate[chromedp.Void]("document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0)"), chromedp.Evaluate[chromedp.Void]("document.querySelector('.skip').focus()"))
	b.do(chromedp.KeyEvent(kb.Enter))
	see(b, "focus", "document.activeElement.id", "pipelines")
	press(kb.Tab, "Details of device")

	// A link of the trouble leads to the row.
	b.do(chromedp.Evaluate[chromedp.Void]("document.querySelector('#trouble a').focus()"), chromedp.KeyEvent(kb.Enter))
	see(b, "focus", "document.activeElement.id", "p0-4")
	press(kb.Tab, "Details of invoices")

	b.do(chromedp.Evaluate[chromedp.Void]("document.getElementById('pause').focus()"), chromedp.KeyEvent(" "))
	see(b, "feed", text("#feed"), "Paused")
	see(b, "pressed", "document.activeElement.getAttribute('aria-pressed')", "true")
	b.do(chromedp.KeyEvent(" "))
	see(b, "feed", text("#feed"), "Live")
	press(kb.Tab, "label")
	b.do(chromedp.KeyEvent("tenant-013" + kb.Enter))
	see(b, "found", text("#found"), "tenants: one subject in memory has the label “tenant-013”.")
	see(b, "focus", at, "label")
	press(kb.Tab, "Show")
	press(kb.Tab, "All subjects")
	b.do(chromedp.KeyEvent(kb.Enter))
	see(b, "found", text("#found"), "")
	see(b, "field", "document.getElementById('label').value", "")
}

// What changes every second isn't read out every second.
func TestLittleIsReadOut(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	b := open(t, serve(t, page(shop.pipelines)), wide)
	see(b, "trouble", "document.querySelectorAll('#trouble a').length", 2)
	b.do(chromedp.Evaluate[chromedp.Void](`
		window.said = 0;
		new MutationObserver(() => said++).observe(document.getElementById("feed"), {childList: true, characterData: true, subtree: true});
		new MutationObserver(() => said++).observe(document.getElementById("trouble"), {childList: true, characterData: true, subtree: true});`))
	clock := eval[string](b, text("#clock"))
	for range 3 {
		see(b, "clock", fmt.Sprintf("(%s) !== %q", text("#clock"), clock), true)
		clock = eval[string](b, text("#clock"))
		time.Sleep(10 * time.Millisecond)
	}
	if n := eval[int](b, "said"); n != 0 {
		t.Errorf("read out %d times, though nothing has happened", n)
	}
	shop.fail("storage subject-name-020", &requestforge.AuthError{StatusCode: 403, Permanent: true})
	ctx := as(t.Context(), "subject-name-020")
	if err := shop.tenants.InvalidateStep(ctx, "storage"); err != nil {
		t.Fatal(err)
	}
	use(ctx, shop.tenants)
	see(b, "read out", "said > 0", true)
}
