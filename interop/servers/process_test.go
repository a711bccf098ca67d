package servers

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// never is for a process that says nothing of interest.
func never(string) (string, bool) { return "", false }

func TestProcessThatEndsIsAnErrorWithWhatItPrinted(t *testing.T) {
	_, _, err := startProcess(t.Context(), exec.Command("sh", "-c", "echo out; echo no such option >&2; exit 3"), "", never)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "out\nno such option") {
		t.Errorf("got %v", err)
	}
}

func TestProcessThatIsNeverReadyEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	printed := func(line string) (string, bool) {
		cancel(enough)
		return "", false
	}
	cmd := exec.Command("sh", "-c", "echo starting; cat")
	if _, _, err := startProcess(ctx, cmd, "", printed); !errors.Is(err, enough) || !strings.Contains(err.Error(), "starting") {
		t.Errorf("got %v", err)
	}
	if cmd.ProcessState == nil {
		t.Error("the process still runs")
	}
}

func TestProcessIsToldItsInputAndEndsWithIt(t *testing.T) {
	cmd := exec.Command("sh", "-c", "read line; echo got $line; cat")
	got, stop, err := startProcess(t.Context(), cmd, "this\n", func(line string) (string, bool) {
		return strings.CutPrefix(line, "got ")
	})
	if err != nil {
		t.Fatal(err)
	}
	if got != "this" {
		t.Errorf("got %q", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !cmd.ProcessState.Success() {
		t.Error(cmd.ProcessState)
	}
}

func TestWithoutItsProgramTheErrorSaysWhatInstallsIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, name := range []string{"docker-registry", "oidc-provider"} {
		_, err := Start(t.Context(), name)
		if err == nil || !strings.Contains(err.Error(), "interop/setup.sh") || !errors.Is(err, exec.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	}
}

func TestTailKeepsTheLastLines(t *testing.T) {
	var printed tail
	for range 2 * tailLines {
		printed.add("early")
	}
	for range tailLines - 1 {
		printed.add("late")
	}
	if got := strings.Count(printed.String(), "early"); got != 1 {
		t.Errorf("%d of the early lines are kept, want 1", got)
	}
	printed.end()
	if printed.add("more") || printed.String() != "" {
		t.Error("it is kept after its end")
	}
}
