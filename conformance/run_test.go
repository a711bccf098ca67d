package main

import (
	"errors"
	"maps"
	"slices"
	"testing"
)

func TestParseChargesTheTestThatFailed(t *testing.T) {
	exit1 := errors.New("exit status 1")
	const m = "\x16"
	tests := []struct {
		name    string
		out     string
		exit    error
		status  map[string]string
		message map[string]string
		crashed string
	}{
		{
			name: "pass and skip",
			out:  m + "=== RUN   TestA\n" + m + "=== RUN   TestA/h1\n" + m + "=== RUN   TestA/h2\n" + m + "    --- PASS: TestA/h1 (0.00s)\n" + m + "    --- SKIP: TestA/h2 (0.00s)\n" + m + "--- PASS: TestA (0.01s)\nPASS\n",
			status: map[string]string{
				"TestA": "PASS", "TestA/h1": "PASS", "TestA/h2": "SKIP",
			},
		},
		{
			name: "a test's own words",
			out:  m + "=== RUN   TestA\n    a_test.go:7: got 1\n    a_test.go:8: server log: noise\n    a_test.go:9: got 2\n" + m + "--- FAIL: TestA (0.01s)\nFAIL\n",
			exit: exit1,
			status: map[string]string{
				"TestA": "FAIL",
			},
			message: map[string]string{"TestA": "a_test.go:7: got 1 | a_test.go:9: got 2"},
		},
		{
			name: "output that begins in the middle of a line",
			out:  m + "=== RUN   TestA\nhello" + m + "--- PASS: TestA (0.00s)\nPASS\n",
			status: map[string]string{
				"TestA": "PASS",
			},
		},
		{
			name: "what only looks like a verdict",
			out:  m + "=== RUN   TestA\n--- FAIL: TestB (0.00s)\n" + m + "--- PASS: TestA (0.00s)\nPASS\n",
			status: map[string]string{
				"TestA": "PASS",
			},
		},
		{
			name: "a panic in a subtest",
			out:  m + "=== RUN   TestA\n" + m + "=== RUN   TestA/h1\n" + m + "    --- FAIL: TestA/h1 (0.00s)\n" + m + "--- FAIL: TestA (0.00s)\npanic: boom\n\ngoroutine 1:\n",
			exit: exit1,
			status: map[string]string{
				"TestA": "FAIL", "TestA/h1": "FAIL",
			},
			message: map[string]string{"TestA": "panic: boom", "TestA/h1": "panic: boom"},
			crashed: "TestA/h1",
		},
		{
			name: "a hang",
			out:  m + "=== RUN   TestA\n" + m + "=== RUN   TestA/h1\n" + m + "    --- PASS: TestA/h1 (0.00s)\n" + m + "=== RUN   TestA/h2\npanic: test timed out after 6s\n",
			exit: exit1,
			status: map[string]string{
				"TestA": "FAIL", "TestA/h1": "PASS", "TestA/h2": "FAIL",
			},
			message: map[string]string{"TestA": "panic: test timed out after 6s", "TestA/h2": "panic: test timed out after 6s"},
			crashed: "TestA/h2",
		},
		{
			name: "leaked goroutines",
			out:  m + "=== RUN   TestA\n" + m + "--- PASS: TestA (0.00s)\nPASS\nToo many goroutines running after all test(s).\n2 instances of:\n",
			exit: exit1,
			status: map[string]string{
				"TestA": "PASS", "TestA[exit]": "FAIL",
			},
			message: map[string]string{"TestA[exit]": "Too many goroutines running after all test(s). (exit status 1)"},
		},
		{
			name: "the worst of several rounds",
			out:  m + "=== RUN   TestA\n" + m + "--- FAIL: TestA (0.00s)\n" + m + "=== RUN   TestA\n" + m + "--- PASS: TestA (0.00s)\nFAIL\n",
			exit: exit1,
			status: map[string]string{
				"TestA": "FAIL",
			},
			message: map[string]string{"TestA": ""},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res, crashed := parse("TestA", tt.out, tt.exit)
			if !maps.Equal(res.Status, tt.status) {
				t.Errorf("status: got %v, want %v", res.Status, tt.status)
			}
			if !maps.Equal(res.Message, tt.message) {
				t.Errorf("message: got %q, want %q", res.Message, tt.message)
			}
			if crashed != tt.crashed {
				t.Errorf("crashed: got %q, want %q", crashed, tt.crashed)
			}
		})
	}
}

func TestParseSeesThatAClientWasWrapped(t *testing.T) {
	for out, want := range map[string]bool{
		"\x16=== RUN   TestA\n\nconformance: wrapped\n\x16--- PASS: TestA (0.00s)\n": true,
		"\x16=== RUN   TestA\n\x16--- PASS: TestA (0.00s)\n":                         false,
	} {
		if res, _ := parse("TestA", out, nil); res.Wrapped != want {
			t.Errorf("Wrapped is %v after %q", res.Wrapped, out)
		}
	}
}

func TestLeavesAreTheFailuresWithNoFailureBelow(t *testing.T) {
	got := leaves(map[string]bool{"TestB": true, "TestA": true, "TestA/h1": true, "TestA/h1/x": true, "TestAB/h1": true})
	if want := []string{"TestA/h1/x", "TestAB/h1", "TestB"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTopsNamesEachTestOnce(t *testing.T) {
	got := tops([]string{"TestB[exit]", "TestA/h1", "TestA/h2/x", "TestB"})
	if want := []string{"TestA", "TestB"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSubtestPatternMatchesNothingElse(t *testing.T) {
	if got, want := subtestPattern("TestA/h1/a+b"), `^TestA$/^h1$/^a\+b$`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
