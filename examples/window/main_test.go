package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test binary the program itself if it is told so, so that a test sees a
// real process.
func TestMain(m *testing.M) {
	if os.Getenv("WINDOW_EXAMPLE") == "run" {
		main()
		return
	}
	os.Exit(m.Run())
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(text)
}

// The program prints an address, at which the page shows every kind of trouble, and ends
// when the time is over. No token and no secret is in the data.
func TestThePageShowsTheTroubles(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-every=600ms")
	cmd.Env = append(os.Environ(), "WINDOW_EXAMPLE=run")
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	first, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url := strings.TrimSpace(first)
	if !regexp.MustCompile(`^http://127\.0\.0\.1:\d+/debug/tokens$`).MatchString(url) {
		t.Fatalf("the address is %q", url)
	}
	troubles := make(chan string, 1)
	go func() {
		rest, _ := io.ReadAll(out)
		troubles <- string(rest)
	}()
	if page := get(t, url); !strings.Contains(page, "<title>Tokens</title>") {
		t.Errorf("the page is %q", page)
	}

	// The tokens are the step's name, a number, and random letters.
	secrets := regexp.MustCompile(`(device|app|region|user|orders|tenant|files)-\d+-|made-up|example\.com`)
	want := map[string]bool{"live": true, "fetching": true, "cooling": true, "invalid_client": true, "access_denied": true, "shop": true, "tenants": true}
	for end := time.Now().Add(time.Minute); len(want) > 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		text := get(t, url+"?json")
		if !json.Valid([]byte(text)) {
			t.Fatalf("no JSON: %s", text)
		}
		if found := secrets.FindString(text); found != "" {
			t.Fatalf("the data have %q: %s", found, text)
		}
		for part := range want {
			if strings.Contains(text, `"`+part+`"`) || strings.Contains(text, part+":") {
				delete(want, part)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("not seen: %v", want)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	said := <-troubles
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted, the program ends with %v", err)
	}
	for _, part := range []string{"shop: the user token is revoked", "tenants: five tenants are suspended: 07, 14, 21, 35 and 42", "shop: the client secret is wrong"} {
		if !strings.Contains(said, part) {
			t.Errorf("the output lacks %q: %s", part, said)
		}
	}
}

// The time is bounded, and a browser is opened with the address that is printed.
func TestTheEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var out strings.Builder
	opened := ""
	if err := run(ctx, &out, options{listen: "127.0.0.1:0", every: time.Hour, open: func(url string) { opened = url }}); err != nil {
		t.Error(err)
	}
	if opened == "" || out.String() != opened+"\n\n" {
		t.Errorf("opened %q, printed %q", opened, out.String())
	}
	if err := run(t.Context(), io.Discard, options{listen: "256.0.0.1:0", every: time.Hour, open: func(string) {}}); err == nil {
		t.Error("no error of an address that is none")
	}
}

func TestIsTerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, f := range []*os.File{null, file} {
		if isTerminal(f) {
			t.Errorf("%s is a terminal", f.Name())
		}
	}
}
