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

	"github.com/requestforge/requestforge"
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
		"   /user/profile   8 × 401 Unauthorized, given up: no replays left\n",
		"Refusals seen by the callers: 8\n",
		"   answer    401 Unauthorized\n",
		"   to do     The API refuses the token, and the request's log record says in gave_up",
	)
	contains(t, "stderr", stderr,
		"refusals seen by the callers: 8, not 0\n",
		"replays: 0, not 16\n",
	)
}

// What a person needs is below the story: the step, the states and what to change.
func TestARunThatFailsSaysWhatToChange(t *testing.T) {
	for broken, tt := range map[string]struct {
		status int
		said   []string
	}{
		"client": {1, []string{
			"   error     Get \"/user/profile\": requestforge: step \"app_token\": invalid_client: POST http://",
			"   step      app_token\n",
			"   answer    {\"error\":\"invalid_client\",",
			"   Explain   the request carries the token\n",
			"   State     \"app_token\" cooling, next try ",
			"   to do     The auth server doesn't take this client any more: correct CLIENT_ID and CLIENT_SECRET,\n",
		}},
		"auth": {1, []string{
			"   step      app_token\n",
			"   State     \"app_token\" cooling, next try ",
			"   to do     The auth server is down, or AUTH_URL leads elsewhere.",
		}},
		"storage": {0, []string{
			"   pipeline        the storage fails; going on without",
			"Refusals seen by the callers: 0\n",
			"   State     \"app_token\" live, expires ",
			"   storage   ", " calls have failed\n",
			"   to do     Bring the storage back; requests go on.",
		}},
	} {
		t.Run(broken, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := program(t, "-break", broken)
			if status != tt.status || (stderr == "") != (status == 0) {
				t.Errorf("exit status %d, want %d; stderr %q", status, tt.status, stderr)
			}
			contains(t, "stdout", stdout, append(tt.said, "\nWhat a person needs now\n")...)
			if strings.Contains(stdout+stderr, "a-made-up") {
				t.Errorf("a secret is shown:\n%s%s", stdout, stderr)
			}
		})
	}
}

// Each kind of failure has a hint of its own.
func TestHints(t *testing.T) {
	for want, f := range map[string]*failure{
		"no request has failed":   nil,
		"says in gave_up":         {status: 401},
		"there was a token":       {status: 500},
		"CLIENT_SECRET":           {err: &requestforge.AuthError{Step: "app_token", StatusCode: 401, Permanent: true}},
		"correct USERNAME":        {err: &requestforge.AuthError{Step: "user_token", StatusCode: 401}},
		"auth server is down":     {err: &requestforge.AuthError{Step: "user_token", StatusCode: 503}},
		"what nobody expected":    {err: &requestforge.AuthError{Step: "user_token", StatusCode: 418}},
		"Bring the storage back;": nil,
	} {
		st := requestforge.Stats{}
		if strings.Contains(want, "storage") {
			st.StorageErrors = 1
		}
		if got := hint(f, st); !strings.Contains(got, want) {
			t.Errorf("%+v: %q, which lacks %q", f, got, want)
		}
	}
}

func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	var story, raw bytes.Buffer
	if err := run(&story, slog.NewJSONHandler(&raw, nil), trouble{replays: 1}); err != nil {
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
