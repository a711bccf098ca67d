package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/requestforge/requestforge/filestorage"
	"github.com/requestforge/requestforge/interop/internal/demo"
	"github.com/requestforge/requestforge/interop/internal/demo/demotest"
	"github.com/requestforge/requestforge/interop/servers"
)

// A process of the fleet is this test binary, with a directory in workerDir and
// its member on standard input.
const workerDir = "ROTATION_WORKER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerDir); dir != "" {
		if err := worker(dir, os.Stdin); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// member is as much of a Server as a process needs to log in.
type member struct {
	TokenURL, ClientID, ClientSecret, Username, Password string
	Scopes, RefreshScopes                                []string
	Exchange                                             *servers.Exchange
}

func worker(dir string, in io.Reader) error {
	var m member
	if err := json.NewDecoder(in).Decode(&m); err != nil {
		return err
	}
	s := &servers.Server{
		TokenURL: m.TokenURL,
		ClientID: m.ClientID, ClientSecret: m.ClientSecret,
		Username: m.Username, Password: m.Password,
		Scopes: m.Scopes, RefreshScopes: m.RefreshScopes,
		Exchange: m.Exchange,
	}
	storage, err := filestorage.New(dir)
	if err != nil {
		return err
	}
	tokens, err := login(s, nil, storage)
	if err != nil {
		return err
	}
	defer tokens.Close()
	return renewOften(context.Background(), tokens)
}

func TestRotationSurvivesRevocationAndTheft(t *testing.T) { demotest.Run(t, flow, run) }

// The processes' token requests go by way of a proxy, which sees whether any of
// them sends a refresh token that another one has sent before.
func TestNoTwoProcessesSpendOneRefreshToken(t *testing.T) {
	for _, name := range demo.Servers(flow) {
		t.Run(name, func(t *testing.T) {
			s, err := servers.Start(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			target, err := url.Parse(s.TokenURL)
			if err != nil {
				t.Fatal(err)
			}
			wire := demo.NewWire(io.Discard, s)
			proxy := httptest.NewServer(&httputil.ReverseProxy{
				Transport: wire,
				Rewrite: func(r *httputil.ProxyRequest) {
					r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, target.Host
				},
			})
			defer proxy.Close()
			input, err := json.Marshal(member{
				TokenURL: proxy.URL + target.Path,
				ClientID: s.ClientID, ClientSecret: s.ClientSecret,
				Username: s.Username, Password: s.Password,
				Scopes: s.Scopes, RefreshScopes: s.RefreshScopes,
				Exchange: s.Exchange,
			})
			if err != nil {
				t.Fatal(err)
			}

			dir := filepath.Join(t.TempDir(), "tokens")
			var processes [members]*exec.Cmd
			for i := range processes {
				cmd := exec.CommandContext(t.Context(), os.Args[0])
				cmd.Env = append(os.Environ(), workerDir+"="+dir)
				cmd.Stdin = strings.NewReader(string(input))
				cmd.Stderr = os.Stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				processes[i] = cmd
			}
			for _, cmd := range processes {
				err = errors.Join(err, cmd.Wait())
			}
			if err != nil {
				t.Fatal(err)
			}
			used, err := inspect(s, wire.Sent())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d processes used %d refresh tokens", members, used)

			// The family lives: who comes now needs no login, and its token
			// is taken.
			storage, err := filestorage.New(dir)
			if err != nil {
				t.Fatal(err)
			}
			tokens, err := login(s, wire.Client(), storage)
			if err != nil {
				t.Fatal(err)
			}
			defer tokens.Close()
			client, err := caller(s, wire, tokens)
			if err != nil {
				t.Fatal(err)
			}
			if err := demo.Get(t.Context(), client, s.ResourceURL); err != nil {
				t.Error(err)
			}
			if again, err := inspect(s, wire.Sent()); err != nil || again != used {
				t.Errorf("%d renewals more, %v", again-used, err)
			}
		})
	}
}
