// Cli is a command-line tool whose second run needs no login, and the proof of
// it: it starts an auth server with an API, runs itself twice as that tool, and
// prints what each run cost.
//
//	go run -C filestorage ./examples/cli
//
// It exits 1 if the first run didn't log in once, or the second one did.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/filestorage"
)

func main() {
	server := flag.String("server", "", "`URL` of the API to call, as the tool; empty: start one and run the tool twice")
	dir := flag.String("dir", "", "`directory` of the tokens; empty: the tool's own in the user's cache")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	var err error
	if *server != "" {
		err = tool(ctx, os.Stdout, *server, *dir)
	} else {
		err = demo(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cli:", err)
		os.Exit(1)
	}
}

// tool is what a real tool's main would be.
func tool(ctx context.Context, out io.Writer, server, dir string) error {
	if dir == "" {
		var err error
		if dir, err = filestorage.DefaultPath("requestforge-example"); err != nil {
			return err
		}
	}
	store, err := filestorage.New(dir)
	if err != nil {
		return err
	}
	pipeline, err := requestforge.NewPipeline(requestforge.PipelineConfig{
		Storage:        store,
		StorageTimeout: 5 * time.Second, // a laptop's disk may be asleep
		Steps: []requestforge.Step{
			{
				Name:    "device",
				Fetcher: &requestforge.BodyFetcher{URL: server + "/device", JSON: map[string]string{"device": "laptop"}},
			},
			{
				Name:      "user",
				DependsOn: []string{"device"},
				Fetcher: &requestforge.BodyFetcher{
					URL:        server + "/login",
					HeaderFrom: map[string]string{"X-Device": "device"},
					JSON:       map[string]string{"user": "gopher", "password": "burrow"},
				},
			},
		},
	})
	if err != nil {
		return err
	}
	defer pipeline.Close()
	client := &http.Client{Transport: &requestforge.AuthTransport{Source: pipeline, Origins: []string{server}}}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/whoami", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the API answered %s", resp.Status)
	}
	name, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	steps := pipeline.Stats().Steps
	_, err = fmt.Fprintf(out, "hello %s: fetched %d tokens, loaded %d\n",
		name, steps["device"].Fetches+steps["user"].Fetches, steps["device"].Loads+steps["user"].Loads)
	return err
}

// demo runs the tool twice and counts, at the server, what that took.
func demo(ctx context.Context, out io.Writer) error {
	home, err := os.MkdirTemp("", "requestforge-cli-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var api api
	server := &http.Server{Handler: api.handler(), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener)
	defer server.Close()

	exe, err := os.Executable()
	if err != nil {
		return err
	}
	for run, want := range []int32{2, 0} {
		api.fetches.Store(0)
		cmd := exec.CommandContext(ctx, exe, "-server", "http://"+listener.Addr().String(), "-dir", filepath.Join(home, "tokens"))
		cmd.Stderr = os.Stderr
		said, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("run %d: %w", run+1, err)
		}
		got := api.fetches.Load()
		fmt.Fprintf(out, "run %d: the tool says %q, the auth server saw %d fetches\n", run+1, string(said[:max(0, len(said)-1)]), got)
		if got != want {
			return fmt.Errorf("run %d took %d fetches, want %d", run+1, got, want)
		}
	}
	if n := api.refused.Load(); n != 0 {
		return fmt.Errorf("the server refused %d requests", n)
	}
	_, err = fmt.Fprintln(out, "the second run needed no login")
	return err
}

// api is an auth server and the API it guards.
type api struct {
	fetches atomic.Int32 // tokens given out
	refused atomic.Int32
}

func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	answer := func(pattern, header, want, body string, fetch bool) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if want != "" && r.Header.Get(header) != want {
				a.refused.Add(1)
				http.Error(w, "refused", http.StatusUnauthorized)
				return
			}
			if fetch {
				a.fetches.Add(1)
				w.Header().Set("Content-Type", "application/json")
			}
			io.WriteString(w, body)
		})
	}
	answer("POST /device", "", "", `{"access_token":"device-token","expires_in":3600}`, true)
	answer("POST /login", "X-Device", "device-token", `{"access_token":"user-token","expires_in":3600}`, true)
	answer("GET /whoami", "Authorization", "Bearer user-token", "gopher", false)
	return mux
}
