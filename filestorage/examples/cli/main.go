// Cli is a command-line tool that stays logged in from one run to the next, and a demo of
// the tool: the program starts an auth server with an API, runs itself as the tool several
// times, and prints what each run says and how many requests the server had.
//
//	go run -C filestorage ./examples/cli
//
// The exit status is 1 unless one password was enough, status asked nobody, and logout left
// no session at the server. The tool itself is tool.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	server := flag.String("server", "", "`URL` of the API, as the tool; empty: start one and run the tool")
	dir := flag.String("dir", "", "`directory` of the tokens; empty: the tool's own in the user's cache")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: cli [-server URL] [-dir directory] login | whoami | status | logout")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	var err error
	if *server != "" {
		err = tool(ctx, os.Stdin, os.Stdout, http.DefaultClient, *server, *dir, flag.Arg(0))
	} else {
		err = demo(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cli:", err)
		os.Exit(1)
	}
}

// demo runs the tool and counts, at the server, what that took.
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
	api := newAPI()
	server := &http.Server{Handler: api, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener)
	defer server.Close()

	exe, err := os.Executable()
	if err != nil {
		return err
	}
	for i, run := range []struct {
		command, input, says string
		requests, sessions   int
	}{
		{"status", "", "not logged in", 0, 0},
		{"whoami", "", "not logged in: run the command login", 0, 0},
		{"login", "burrow\n", "password of gopher: logged in", 2, 1},
		{"whoami", "", "hello gopher", 1, 1},
		{"whoami", "", "hello gopher", 1, 1},
		{"status", "", "logged in as gopher until ", 0, 1},
		{"logout", "", "logged out", 1, 0},
		{"status", "", "not logged in", 0, 0},
		{"logout", "", "logged out", 0, 0},
	} {
		before, _ := api.seen()
		cmd := exec.CommandContext(ctx, exe, "-server", "http://"+listener.Addr().String(), "-dir", filepath.Join(home, "tokens"), run.command)
		cmd.Stdin = strings.NewReader(run.input)
		said, err := cmd.CombinedOutput() // with the text of a command that fails
		if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
			return err
		}
		text := strings.TrimSpace(string(said))
		requests, sessions := api.seen()
		requests -= before
		fmt.Fprintf(out, "run %d, %s: the tool says %q, the server had %d requests and has %d sessions\n", i+1, run.command, text, requests, sessions)
		if !strings.Contains(text, run.says) || requests != run.requests || sessions != run.sessions {
			return fmt.Errorf("run %d should have said %q, with %d requests, and left %d sessions", i+1, run.says, run.requests, run.sessions)
		}
	}
	_, err = fmt.Fprintln(out, "one password, and nothing left at the server")
	return err
}
