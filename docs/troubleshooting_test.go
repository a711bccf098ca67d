// troubleshooting.md: what is shown there of Explain, State and the log is from runs.

package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	rf "github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/authtest"
)

// watched is a world with a log.
type watched struct {
	*world
	log  bytes.Buffer
	said strings.Builder
}

// add writes a line about a request, or a call, and the records that it has left.
func (w *watched) add(format string, args ...any) {
	fmt.Fprintf(&w.said, format+"\n", args...)
	w.said.Write(w.log.Bytes())
	w.log.Reset()
}

// explain writes what Explain says of a request.
func (w *watched) explain(url string) {
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.add("Explain(%s): %s", url, w.client.Transport.(*rf.Transport).Explain(req).Reason)
}

func (w *watched) state() {
	w.add("State:\n%v", w.tokens.State(w.ctx))
}

var symptoms = map[string]func(w *watched){
	"a 401": func(w *watched) {
		w.sim.RefuseAll(true)
		w.add("GET /orders: %v", w.get("/orders"))
	},
	"no other": func(w *watched) {
		w.get("/orders")
		w.sim.Down(true)
		w.sim.Revoke("user")
		w.log.Reset()
		w.add("GET /orders: %v", w.get("/orders"))
	},
	"without": func(w *watched) {
		w.config.ExcludedPaths = []string{"/public/**"}
		w.add("GET /public/prices: %v", w.get("/public/prices"))
		w.explain("/public/prices")
		w.explain("https://elsewhere.example.com/orders")
		w.explain("/orders")
	},
	"no login": func(w *watched) {
		w.login(0).ClientAuth.Secret = "wrong"
		w.add("GET /orders: %v", w.get("/orders").err)
		w.state()
	},
	"answer": func(w *watched) {
		w.pipeline.KeepAnswers = true
		w.sim.Fail("app", authtest.Fault{
			Status: 401,
			Body:   `{"error":"invalid_client","error_description":"AADSTS7000222: the secret of app 'shop' has expired: made-up"}`,
		})
		err := w.get("/orders").err
		w.log.Reset()
		w.add("error: %v", err)
		if auth, ok := errors.AsType[*rf.AuthError](err); ok {
			body, _ := auth.Answer()
			w.add("Answer: %s", body)
		}
	},
	"down": func(w *watched) {
		begun := time.Now()
		w.sim.Down(true)
		w.add("GET /orders: %v", w.get("/orders").err)
		w.state()
		w.sim.Down(false)
		time.Sleep(time.Until(begun.Add(3 * time.Second)))
		w.add("GET /orders, three seconds later: %v", w.get("/orders"))
		w.state()
	},
	"storage": func(w *watched) {
		storage := &flaky{Storage: rf.NewMemoryStorage(), down: true}
		w.pipeline.Storage, w.pipeline.KeyPrefix = storage, "shop"
		w.add("GET /orders: %v", w.get("/orders"))
		storage.down = false
		w.sim.Revoke("user")
		w.add("GET /orders, once the storage is back: %v", w.get("/orders"))
		w.add("Stats().StorageErrors > 0: %t", w.tokens.Stats().StorageErrors > 0)
	},
	"often": func(w *watched) {
		for range 30 {
			w.get("/orders")
			w.sim.Revoke("user")
		}
		w.log.Reset()
		st := w.tokens.Stats()
		w.add("Stats: %d fetches of app, %d of user, %d invalidations", st.Steps["app"].Fetches, st.Steps["user"].Fetches, st.Invalidations)
	},
	"refresh": func(w *watched) {
		w.sim = authtest.NewSimulator(authtest.Config{Steps: []authtest.Step{{Name: "user", RefreshTokens: true, TTL: time.Hour}}})
		w.pipeline.Steps = w.sim.Steps()
		w.config.Base = w.sim.Transport()
		w.get("/orders")
		w.sim.RevokeRefresh("user")
		time.Sleep(2 * time.Hour)
		w.log.Reset()
		w.add("GET /orders: %v", w.get("/orders"))
	},
}

// flaky is a storage that others may use, and that can't be reached at times.
type flaky struct {
	rf.Storage
	down bool
}

func (f *flaky) Load(ctx context.Context, keys ...string) ([]rf.Entry, error) {
	if f.down {
		return deadStorage{}.Load(ctx, keys...)
	}
	return f.Storage.Load(ctx, keys...)
}

func (f *flaky) Save(ctx context.Context, key string, r rf.Record, seen uint64) (rf.Entry, error) {
	if f.down {
		return deadStorage{}.Save(ctx, key, r, seen)
	}
	return f.Storage.Save(ctx, key, r, seen)
}

func TestTroubleshootingPage(t *testing.T) {
	for name, run := range symptoms {
		t.Run(name, func(t *testing.T) {
			var text string
			synctest.Test(t, func(t *testing.T) {
				w := &watched{world: newWorld(t)}
				logger := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
					switch a.Key { // what differs from run to run
					case slog.TimeKey, "took", "duration":
						return slog.Attr{}
					case "expiry":
						return slog.String(a.Key, a.Value.Time().UTC().Format(time.RFC3339))
					}
					return a
				}}))
				w.pipeline.Logger, w.config.Logger = logger, logger
				run(w)
				w.tokens.Close()
				text = w.said.String()
			})
			show(t, "troubleshooting.md", name, "```text\n"+text+"```")
		})
	}
}

// The page says of each value of auth and gave_up what to do.
func TestTroubleshootingNamesEveryReason(t *testing.T) {
	page, err := os.ReadFile("troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## What auth and gave_up say\n")
	table, _, _ = strings.Cut(table, "\n## ")
	reasons := append(constants(t, "Reason"), constants(t, "GaveUpReason")...)
	if len(reasons) < 18 {
		t.Fatalf("only %d reasons were found in the source", len(reasons))
	}
	for _, reason := range append(reasons, "sent") {
		if reason == string(rf.ReasonSend) {
			continue // sent
		}
		if !strings.Contains(table, "| `"+reason+"` |") {
			t.Errorf("the page has no line for %q", reason)
		}
	}
}

// constants are the values of a string type's constants.
func constants(t *testing.T, of string) (values []string) {
	t.Helper()
	for _, file := range sources(t) {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			typ, ok := spec.Type.(*ast.Ident)
			lit, literal := spec.Values[0].(*ast.BasicLit)
			if ok && literal && typ.Name == of {
				text, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, text)
			}
			return true
		})
	}
	return values
}

// sources are the files of the package, without its tests.
func sources(t *testing.T) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(gotoken.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// The page has a line for each record that a pipeline writes.
func TestTroubleshootingNamesEveryRecord(t *testing.T) {
	page, err := os.ReadFile("troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "## The records of a pipeline\n")
	if !ok {
		t.Fatal("the page has no table of records")
	}
	var listed []string
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) == 5 && strings.Contains(cells[1], "`") {
			listed = append(listed, strings.Trim(cells[1], " `"))
		}
	}
	written := messages(t)
	if len(written) < 20 {
		t.Fatalf("only %d records were found in the source", len(written))
	}
	slices.Sort(listed)
	if !slices.Equal(listed, written) {
		t.Errorf("the page has\n%q\nthe source\n%q", listed, written)
	}
}

// messages are those of the records that the package's files give to eventLog.log.
func messages(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, file := range sources(t) {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 4 {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "log" {
				return true
			}
			message := call.Args[2]
			prefix := ""
			if sum, ok := message.(*ast.BinaryExpr); ok { // a hook's name comes first
				prefix, message = "…", sum.Y
			}
			lit, ok := message.(*ast.BasicLit)
			if !ok {
				t.Error("a record whose message is no literal")
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, prefix+text)
			return true
		})
	}
	slices.Sort(all)
	return slices.Compact(all)
}
