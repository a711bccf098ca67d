package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestMain makes the test binary the program itself if it is told so, so that
// a test sees the exit status of a real process.
func TestMain(m *testing.M) {
	if os.Getenv("PRODUCTION_EXAMPLE") == "run" {
		main()
		return
	}
	os.Exit(m.Run())
}

// program runs main in a process of its own.
func program(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), "PRODUCTION_EXAMPLE=run")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func contains(t *testing.T, name, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %q:\n%s", name, part, text)
		}
	}
}

func TestTheStoryHolds(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := program(t)
	if status != 0 || stderr != "" {
		t.Errorf("exit status %d, stderr %q; want 0 and nothing", status, stderr)
	}
	contains(t, "stdout", stdout,
		"   app_token       token fetched, good for 60 min\n",
		"   user_token      token fetched, good for 30 min\n",
		"   app_token       cached\n",
		"   /user/profile   240 × 200 OK\n",
		"   /user/profile   8 × 200 OK, replayed\n",
		"   user_token      step cools down for 1s, no answer\n",
		"Refusals seen by the callers: 0\n",
	)
}

func TestTheStoryFailsWithoutReplays(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := program(t, "-replay=false")
	if status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	contains(t, "stdout", stdout,
		"   /user/profile   8 × 401 Unauthorized\n",
		"Refusals seen by the callers: 8\n",
	)
	contains(t, "stderr", stderr,
		"refusals seen by the callers: 8, not 0\n",
		"replays: 0, not 16\n",
	)
}

func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	var story, raw bytes.Buffer
	if err := run(&story, slog.NewJSONHandler(&raw, nil), 1); err != nil {
		t.Error(err)
	}

	// The records are complete: one for each request, with its headers.
	requests := 0
	for line := range strings.Lines(raw.String()) {
		var record struct {
			Msg    string
			Header http.Header `json:"response_header"`
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.Msg == "" {
			t.Fatalf("not a log record (%v): %s", err, line)
		}
		if record.Msg != "request" {
			continue
		}
		if record.Header["Set-Cookie"] == nil {
			t.Errorf("a request without its headers: %s", line)
		}
		requests++
	}
	if want := 2 + (4+2*many)*callers; requests != want {
		t.Errorf("%d records of requests, want %d", requests, want)
	}

	// The simulator's tokens are the step's name, a number and 26 letters.
	token := regexp.MustCompile(`(app|user)_token-\d+-[A-Z2-7]{10}`)
	for name, text := range map[string]string{"the story": story.String(), "the log": raw.String()} {
		if found := token.FindString(text); found != "" {
			t.Errorf("%s shows the token %s", name, found)
		}
		for _, secret := range []string{"a-made-up-client-secret", "a-made-up-password", "a-made-up-session"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows %s", name, secret)
			}
		}
	}
}
