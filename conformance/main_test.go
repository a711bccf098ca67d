package main

import (
	"errors"
	"flag"
	"slices"
	"testing"
	"time"
)

func TestArgumentsAreOursOrGoTests(t *testing.T) {
	dir := t.TempDir()
	cfg, err := parseArgs([]string{dir, "-race", "-j", "1", "-run=TestA/h2", "-skip", "TestB", "-tags", "x", "-count", "2", "-short", "-strict", "-v", "-refresh"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(cfg.wrapdirs, []string{dir}) || cfg.jobs != 1 || cfg.run != "TestA/h2" || cfg.skip != "TestB" || !cfg.strict || !cfg.verbose || !cfg.refresh {
		t.Errorf("got %+v", cfg)
	}
	if want := []string{"-race", "-tags=x"}; !slices.Equal(cfg.buildFlags, want) {
		t.Errorf("for go test: got %q, want %q", cfg.buildFlags, want)
	}
	if want := []string{"-test.count=2", "-test.short"}; !slices.Equal(cfg.testFlags, want) {
		t.Errorf("for the test binary: got %q, want %q", cfg.testFlags, want)
	}
	if cfg.complete() {
		t.Error("complete with -run")
	}
}

func TestTheRaceDetectorGetsMoreTime(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		args []string
		want time.Duration
	}{
		{[]string{dir}, 6 * time.Second},
		{[]string{dir, "-race"}, 18 * time.Second},
		{[]string{dir, "-timeout", "1s", "-race"}, time.Second},
	} {
		if cfg, err := parseArgs(tt.args); err != nil || cfg.timeout != tt.want {
			t.Errorf("%q: got %v, %v; want %v", tt.args[1:], cfg.timeout, err, tt.want)
		}
	}
}

func TestBadArgumentsAreRefused(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{dir + "/missing"}, {dir, "-run"}, {dir, "-j", "0"}, {dir, "-j", "x"}, {dir, "-timeout", "soon"},
	} {
		if _, err := parseArgs(args); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("%q: got %v", args, err)
		}
	}
	if _, err := parseArgs([]string{"-j", "2"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("without a directory: got %v, want help", err)
	}
}
