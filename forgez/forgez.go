// The page, and how a handler serves it. access.go decides about viewers, view.go makes the
// data.

// Package forgez is a page that shows what the steps of a [requestforge.Pipeline] are
// at, in the manner of net/http/pprof: the graph, the states, expiries that count down,
// the last errors and the counters.
//
//	mux.Handle("/debug/tokens", forgez.Handler(tokens))
//
// The page asks for its data once a second, while somebody looks at the page. The data alone
// are at the same path with the query ?json. All addresses within the page are relative, so
// that a program can mount the handler anywhere, behind [http.StripPrefix] or not.
//
// # Viewers
//
// Only a browser on the same machine sees the page, unless [Page].Allow says otherwise: see [Loopback].
// Whatever Allow says, pages of other origins can neither read the page nor put the page in a
// frame.
//
// # Content
//
// The page shows what [requestforge.Pipeline.State] and Stats say: names of steps, times,
// counters, and errors. The page holds no token, no password, nothing of an auth server's
// answer but a status and a registered code, and no subject. Errors read as in the log: a
// FetcherFunc's own error is shown in the words of the function, see
// [requestforge.NewAuthError].
//
// With PipelineConfig.SubjectLabel the page has a field for a label, and shows the steps of
// the subject in memory with that label. The label travels in a header, [LabelHeader], and
// never in an address, where access logs and histories would keep the label.
package forgez

import (
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/requestforge/requestforge"
)

// Handler returns a handler for the page of some pipelines, served to the same machine only.
// A pipeline is named after the steps without dependents. For other names or viewers, use a
// [Page].
func Handler(pipelines ...*requestforge.Pipeline) http.Handler {
	var all []named
	times := make(map[string]int)
	for _, p := range pipelines {
		if p == nil {
			continue
		}
		name := nameOf(p)
		if times[name]++; times[name] > 1 {
			name += " (" + strconv.Itoa(times[name]) + ")"
		}
		all = append(all, named{name, p})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(w, r, Loopback, all) })
}

// A Page is a handler that serves the page. The fields must not change while the handler is
// in use.
type Page struct {
	// Pipelines are the pipelines by name, shown in the order of the names. A nil Pipeline
	// is left out.
	Pipelines map[string]*requestforge.Pipeline

	// Allow reports whether the sender of a request may see the page. Many goroutines may
	// call Allow at once. Nil means [Loopback]. A function for viewers on other machines has to
	// authenticate them: the page shows how a login is built, and how the login fails.
	Allow func(r *http.Request) bool
}

// ServeHTTP serves the page and its parts.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var all []named
	for _, name := range slices.Sorted(maps.Keys(p.Pipelines)) {
		if p.Pipelines[name] != nil {
			all = append(all, named{name, p.Pipelines[name]})
		}
	}
	allow := p.Allow
	if allow == nil {
		allow = Loopback
	}
	serve(w, r, allow, all)
}

// named is a pipeline and what the page calls it.
type named struct {
	name     string
	pipeline *requestforge.Pipeline
}

//go:embed page
var files embed.FS

// parts are the files of the page by the query that asks for them.
var parts = map[string]struct{ file, contentType string }{
	"":       {"page.html", "text/html; charset=utf-8"},
	"style":  {"page.css", "text/css; charset=utf-8"},
	"script": {"page.js", "text/javascript; charset=utf-8"},
	"graph":  {"graph.js", "text/javascript; charset=utf-8"},
	"icon":   {"icon.svg", "image/svg+xml"},
}

// policy allows the page to load the parts above and nothing else, and forbids frames.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func serve(w http.ResponseWriter, r *http.Request, allow func(*http.Request) bool, all []named) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case foreign(r) || !allow(r):
		http.Error(w, "forgez: this page is not for you; see Page.Allow", http.StatusForbidden)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "forgez: this page can be read only", http.StatusMethodNotAllowed)
	case r.URL.RawQuery == dataQuery:
		label, err := labelIn(r.Header)
		if err != nil {
			http.Error(w, "forgez: "+err.Error(), http.StatusBadRequest)
			return
		}
		body, err := json.Marshal(viewOf(all, label))
		if err != nil {
			panic(fmt.Sprintf("forgez: %v", err)) // there is nothing in a view that can't be marshaled
		}
		write(w, "application/json", body)
	default:
		part, ok := parts[r.URL.RawQuery]
		if !ok {
			part = parts[""] // whatever was added to the address
		}
		body, err := files.ReadFile("page/" + part.file)
		if err != nil {
			panic(fmt.Sprintf("forgez: %v", err)) // it is embedded
		}
		write(w, part.contentType, body)
	}
}

// dataQuery asks for the data.
const dataQuery = "json"

func write(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body) // an error is the viewer's, who has gone
}

// nameOf calls a pipeline after the steps without dependents.
func nameOf(p *requestforge.Pipeline) string {
	const most = 3
	steps := p.State(background).Steps
	parents := make(map[string]bool)
	for _, s := range steps {
		for _, name := range s.Parents {
			parents[name] = true
		}
	}
	var leaves []string
	for _, s := range steps {
		if !parents[s.Name] {
			leaves = append(leaves, s.Name)
		}
	}
	more := ""
	if len(leaves) > most {
		more = fmt.Sprintf(" and %d more", len(leaves)-most)
		leaves = leaves[:most]
	}
	return strings.Join(leaves, ", ") + more
}
