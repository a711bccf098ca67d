package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestMain makes the test binary the program itself if it is told so, so that
// a test sees the exit status of a real process.
func TestMain(m *testing.M) {
	if os.Getenv("GATEWAY_EXAMPLE") == "run" {
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
	cmd.Env = append(os.Environ(), "GATEWAY_EXAMPLE=run")
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
	status, stdout, stderr := program(t, "-users=200")
	if status != 0 || stderr != "" {
		t.Errorf("exit status %d, stderr %q; want 0 and nothing", status, stderr)
	}
	contains(t, "stdout", stdout,
		"   app         1 × token fetched\n",
		"   pipeline    20 × everything forgotten\n",
		"120 users are in memory",
		"Answers that were somebody else's: 0. Refusals of users who have a session: 0\n",
	)
}

func TestTheStoryFailsForOneSubjectOfAll(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := program(t, "-users=50", "-apart=false")
	if status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	if ok := "Answers that were somebody else's: 0."; strings.Contains(stdout, ok) {
		t.Errorf("stdout has %q", ok)
	}
	contains(t, "stderr", stderr, "answers that were somebody else's: ", "users in memory: 1, after 0 were dropped")
}

func TestNoSecretAndNoUserIsShown(t *testing.T) {
	t.Parallel()
	var story, raw bytes.Buffer
	if err := run(&story, slog.NewJSONHandler(&raw, nil), 50, subjectOf); err != nil {
		t.Error(err)
	}
	records := 0
	for line := range strings.Lines(raw.String()) {
		var record struct{ Msg string }
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.Msg == "" {
			t.Fatalf("not a log record (%v): %s", err, line)
		}
		records++
	}
	if least := 3 * 50; records < least {
		t.Errorf("%d records, want at least one a fetch, %d", records, least)
	}

	// The auth server's tokens are what they are for, and 26 letters.
	token := regexp.MustCompile(`[a-z]-[A-Z2-7]{10}`)
	user := regexp.MustCompile(`user-\d|example\.com`)
	for name, text := range map[string]string{"the story": story.String(), "the log": raw.String()} {
		for _, secrets := range []*regexp.Regexp{token, user, regexp.MustCompile(secret)} {
			if found := secrets.FindString(text); found != "" {
				t.Errorf("%s shows %s", name, found)
			}
		}
	}
}
