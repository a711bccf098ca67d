//go:build !race

package redact

import (
	"net/url"
	"testing"
)

func TestURLAllocatesOnce(t *testing.T) {
	for _, raw := range []string{
		"https://api.example.com/v1/users",
		"https://api.example.com/v1/users?page=2&per_page=50",
		"https://me:hunter2@api.example.com/v1/users#top",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := testing.AllocsPerRun(100, func() { URL(u) }); got > 1 {
			t.Errorf("URL(%q): %v allocations, want 1", raw, got)
		}
	}
}
